/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: model */
/* The interval tree against a flat array: random inserts, removes and searches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lease/lease_tree.h"

#define NODES 400

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void check_search(struct lease_tree *tree, struct lease_tree_node *nodes, const bool *in,
                         struct lease_range range)
{
    size_t expected = 0, found = 0;
    const struct lease_tree_node *previous = NULL;

    for (int i = 0; i < NODES; i++)
        expected += in[i] && range_overlaps(nodes[i].range, range);
    for (struct lease_tree_node *n = lease_tree_first(tree, range); n; n = lease_tree_next(n, range)) {
        assert_true(in[n - nodes]);
        assert_true(range_overlaps(n->range, range));
        assert_true(!previous || previous->range.offset < n->range.offset ||
                    (previous->range.offset == n->range.offset && previous->key < n->key));
        previous = n;
        found++;
    }
    assert_int_equal(found, expected);
}

static void search_finds_what_a_flat_array_finds(void **state)
{
    unsigned seed = (unsigned)from_environment("LEASEFS_TEST_SEED", 20261121);
    uint64_t steps = from_environment("LEASEFS_TEST_STEPS", 30000);
    static struct lease_tree_node nodes[NODES];
    static bool in[NODES];
    struct lease_tree tree = {0};

    (void)state;
    printf("seed %u, %llu steps\n", seed, (unsigned long long)steps);
    for (uint64_t step = 0; step < steps; step++) {
        int i = rand_r(&seed) % NODES;
        struct lease_range range = {(uint64_t)(rand_r(&seed) % 1000), (uint64_t)(1 + rand_r(&seed) % 60)};

        if (in[i]) {
            lease_tree_remove(&tree, &nodes[i]);
            in[i] = false;
        } else {
            nodes[i].range = range;
            nodes[i].key = (uint64_t)i;
            lease_tree_insert(&tree, &nodes[i]);
            in[i] = true;
        }
        if (step % 16 == 0)
            assert_true(lease_tree_valid(&tree));
        check_search(&tree, nodes, in, range);
    }
    for (int i = 0; i < NODES; i++)
        if (in[i])
            lease_tree_remove(&tree, &nodes[i]);
    assert_true(lease_tree_empty(&tree));
}

static void empty_ranges_and_the_last_byte_are_handled(void **state)
{
    struct lease_tree tree = {0};
    struct lease_tree_node whole = {.range = {0, RANGE_MAX_END}, .key = 1};

    (void)state;
    lease_tree_insert(&tree, &whole);
    assert_null(lease_tree_first(&tree, (struct lease_range){5, 0}));
    assert_ptr_equal(lease_tree_first(&tree, (struct lease_range){RANGE_MAX_END - 1, 1}), &whole);
    assert_null(lease_tree_next(&whole, range_from(0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(search_finds_what_a_flat_array_finds),
        cmocka_unit_test(empty_ranges_and_the_last_byte_are_handled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
