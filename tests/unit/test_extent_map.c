/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: model */
/* The map of a file's extents, tried against an array with an entry a block. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "fused/extent_map.h"
#include "tests/unit/store_random.h"

#define AT(n) ((struct pool_block){0, n})

static void insert(struct extent_map *map, uint64_t block, uint32_t start, uint32_t count, bool unwritten)
{
    assert_int_equal(extent_map_reserve(map, 1), 0);
    extent_map_insert(map, block, AT(start), count, unwritten);
    assert_true(extent_map_valid(map));
}

static void drop(struct extent_map *map, uint64_t block, uint64_t count)
{
    assert_int_equal(extent_map_reserve(map, 1), 0);
    extent_map_remove(map, block, count);
    assert_true(extent_map_valid(map));
}

static void shift(struct extent_map *map, uint64_t block, int64_t delta)
{
    assert_int_equal(extent_map_reserve(map, 1), 0);
    extent_map_shift(map, block, delta);
    assert_true(extent_map_valid(map));
}

static void assert_extent(const struct extent_map *map, uint64_t at, uint64_t block, uint32_t start, uint32_t count,
                          bool unwritten)
{
    struct extent e;

    assert_true(extent_map_at(map, at, &e));
    assert_int_equal(e.block, block);
    assert_int_equal(e.start.index, start);
    assert_int_equal(e.count, count);
    assert_int_equal(e.unwritten, unwritten);
}

/* ---- stories ---- */

static void an_empty_map_has_nothing(void **state)
{
    struct extent_map map;
    struct extent e = {.block = 77};

    (void)state;
    extent_map_init(&map);
    assert_false(extent_map_at(&map, 0, &e));
    assert_false(extent_map_before(&map, UINT64_MAX, &e));
    drop(&map, 0, UINT64_MAX);
    shift(&map, 0, 5);
    assert_int_equal(e.block, 77);
    assert_int_equal(map.blocks, 0);
    extent_map_clear(&map);
}

static void neighbours_that_continue_each_other_become_one(void **state)
{
    struct extent_map map;
    struct extent e;

    (void)state;
    extent_map_init(&map);
    insert(&map, 10, 100, 5, false);
    insert(&map, 20, 110, 5, false);
    insert(&map, 15, 105, 5, false); /* closes the gap on both sides */
    assert_extent(&map, 12, 10, 100, 15, false);
    insert(&map, 25, 115, 1, true); /* another state */
    insert(&map, 26, 117, 1, true); /* another place */
    assert_extent(&map, 25, 25, 115, 1, true);
    assert_extent(&map, 26, 26, 117, 1, true);
    assert_false(extent_map_at(&map, 27, &e));
    assert_int_equal(map.blocks, 17);
    extent_map_clear(&map);
}

static void a_count_never_overflows_by_merging(void **state)
{
    struct extent_map map;

    (void)state;
    extent_map_init(&map);
    insert(&map, 0, 0, UINT32_MAX - 1, false);
    insert(&map, UINT32_MAX - 1, UINT32_MAX - 1, 1, false);
    assert_extent(&map, 5, 0, 0, UINT32_MAX, false);
    insert(&map, UINT32_MAX, UINT32_MAX, 1, false);
    assert_extent(&map, 5, 0, 0, UINT32_MAX, false);
    assert_extent(&map, UINT32_MAX, UINT32_MAX, UINT32_MAX, 1, false);
    extent_map_clear(&map);
}

static void what_a_shift_brings_together_becomes_one(void **state)
{
    struct extent_map map;

    (void)state;
    extent_map_init(&map);
    insert(&map, 10, 100, 5, false);
    insert(&map, 20, 105, 5, false);
    shift(&map, 20, -5);
    assert_extent(&map, 10, 10, 100, 10, false);
    shift(&map, 13, 7);
    assert_extent(&map, 10, 10, 100, 3, false);
    assert_extent(&map, 13, 20, 103, 7, false);
    extent_map_clear(&map);
}

static void a_hole_in_the_middle_leaves_both_ends(void **state)
{
    struct extent_map map;
    struct extent e;

    (void)state;
    extent_map_init(&map);
    insert(&map, 10, 100, 10, false);
    drop(&map, 13, 4);
    assert_extent(&map, 0, 10, 100, 3, false);
    assert_extent(&map, 13, 17, 107, 3, false);
    assert_true(extent_map_before(&map, 17, &e));
    assert_int_equal(e.block, 10);
    assert_true(extent_map_before(&map, 18, &e));
    assert_int_equal(e.block, 17);
    assert_false(extent_map_before(&map, 10, &e));
    drop(&map, 0, 1000);
    assert_int_equal(map.blocks, 0);
    extent_map_clear(&map);
}

static void places_at_the_end_of_the_largest_file_work(void **state)
{
    const uint64_t last = (UINT64_C(1) << 51) - 2; /* of 2^63 bytes */
    struct extent_map map;
    struct extent e;

    (void)state;
    extent_map_init(&map);
    insert(&map, last, 7, 1, true);
    insert(&map, 0, 9, 1, false);
    assert_extent(&map, 1, last, 7, 1, true);
    shift(&map, 1, -(int64_t)(last - 1));
    assert_extent(&map, 1, 1, 7, 1, true);
    shift(&map, 1, (int64_t)(last - 1));
    assert_extent(&map, 1, last, 7, 1, true);
    drop(&map, 1, UINT64_MAX - 1);
    assert_false(extent_map_at(&map, 1, &e));
    extent_map_clear(&map);
}

/* ---- random operations against an array ---- */

#define BLOCKS 400

struct model {
    struct extent_map map;
    struct dice dice;
    struct slot {
        bool mapped, unwritten;
        uint32_t index;
    } slots[BLOCKS];
    uint64_t base; /* of slots[0] in the map: high places are as good as low ones */
};

static void compare(const struct model *m)
{
    uint64_t at = m->base, blocks = 0;
    struct extent e;

    assert_true(extent_map_valid(&m->map));
    for (unsigned i = 0; i < BLOCKS; i++) {
        bool found = extent_map_at(&m->map, m->base + i, &e) && e.block <= m->base + i;

        assert_int_equal(found, m->slots[i].mapped);
        if (!found)
            continue;
        blocks++;
        assert_int_equal(e.unwritten, m->slots[i].unwritten);
        assert_int_equal(e.start.index + (m->base + i - e.block), m->slots[i].index);
    }
    assert_int_equal(m->map.blocks, blocks);
    /* The first behind, and the last before. */
    at += dice_below((struct dice *)&m->dice, BLOCKS);
    if (extent_map_at(&m->map, at, &e))
        for (uint64_t i = at; i < e.block; i++)
            assert_false(m->slots[i - m->base].mapped);
    if (extent_map_before(&m->map, at, &e)) {
        assert_true(e.block < at && m->slots[e.block - m->base].mapped);
        for (uint64_t i = extent_end(&e); i < at; i++)
            assert_false(m->slots[i - m->base].mapped);
    }
}

static void random_insert(struct model *m)
{
    unsigned at = (unsigned)dice_below(&m->dice, BLOCKS), most = 1 + (unsigned)dice_below(&m->dice, 8), count = 0;
    bool unwritten = dice_below(&m->dice, 2);
    /* Few places, so that neighbours often continue each other. */
    uint32_t start = (uint32_t)(dice_below(&m->dice, 2) ? at + 1000 : dice_below(&m->dice, 5000));

    while (count < most && at + count < BLOCKS && !m->slots[at + count].mapped) {
        m->slots[at + count] = (struct slot){true, unwritten, start + count};
        count++;
    }
    if (count)
        insert(&m->map, m->base + at, start, count, unwritten);
}

static void random_remove(struct model *m)
{
    unsigned at = (unsigned)dice_below(&m->dice, BLOCKS);
    unsigned count = 1 + (unsigned)dice_below(&m->dice, dice_below(&m->dice, 10) ? 12 : BLOCKS);

    if (count > BLOCKS - at)
        count = BLOCKS - at;
    drop(&m->map, m->base + at, count);
    memset(&m->slots[at], 0, count * sizeof(m->slots[0]));
}

/* As insert range and collapse range do it. */
static void random_shift(struct model *m)
{
    unsigned at = (unsigned)dice_below(&m->dice, BLOCKS - 1);
    unsigned by = 1 + (unsigned)dice_below(&m->dice, BLOCKS - 1 - at < 20 ? BLOCKS - 1 - at : 20);

    if (dice_below(&m->dice, 2)) {
        drop(&m->map, m->base + BLOCKS - by, by);
        shift(&m->map, m->base + at, by);
        memmove(&m->slots[at + by], &m->slots[at], (BLOCKS - at - by) * sizeof(m->slots[0]));
        memset(&m->slots[at], 0, by * sizeof(m->slots[0]));
    } else {
        drop(&m->map, m->base + at, by);
        shift(&m->map, m->base + at + by, -(int64_t)by);
        memmove(&m->slots[at], &m->slots[at + by], (BLOCKS - at - by) * sizeof(m->slots[0]));
        memset(&m->slots[BLOCKS - by], 0, by * sizeof(m->slots[0]));
    }
}

static void random_changes_agree_with_an_array(void **state)
{
    struct dice dice = dice_new("extent map");
    unsigned steps = dice_steps(30000);

    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        static struct model m;

        m = (struct model){.dice = {dice_roll(&dice)}, .base = round & 1 ? (UINT64_C(1) << 51) - BLOCKS : 0};
        extent_map_init(&m.map);
        for (unsigned step = 0; step < steps / 4; step++) {
            unsigned what = (unsigned)dice_below(&m.dice, 100);

            if (what < (round & 2 ? 70 : 55)) /* rather full, rather empty */
                random_insert(&m);
            else if (what < 95)
                random_remove(&m);
            else
                random_shift(&m);
            if (step % 7 == 0)
                compare(&m);
        }
        compare(&m);
        extent_map_clear(&m.map);
    }
}

/* Every second block of a large file: as fragmented as can be. */
static void very_many_extents_are_found_moved_and_removed(void **state)
{
    const uint32_t n = 200000;
    struct extent_map map;
    struct dice dice = dice_new("many extents");

    (void)state;
    extent_map_init(&map);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = (uint32_t)((uint64_t)i * 77777 % n); /* not in order; 77777 and n have no common factor */

        assert_int_equal(extent_map_reserve(&map, 1), 0);
        extent_map_insert(&map, 2 * (uint64_t)at, AT(3 * at), 1, false);
    }
    assert_true(extent_map_valid(&map));
    for (unsigned i = 0; i < 2000; i++) {
        uint32_t at = (uint32_t)dice_below(&dice, n);

        assert_extent(&map, 2 * (uint64_t)at, 2 * (uint64_t)at, 3 * at, 1, false);
    }
    for (unsigned i = 0; i < 50; i++) {
        uint64_t at = 2 * dice_below(&dice, n);

        assert_int_equal(extent_map_reserve(&map, 1), 0);
        extent_map_shift(&map, at, 10);
        assert_extent(&map, at, at + 10, (uint32_t)(at / 2 * 3), 1, false);
        assert_int_equal(extent_map_reserve(&map, 1), 0);
        extent_map_shift(&map, at, -10);
    }
    assert_true(extent_map_valid(&map));
    for (uint32_t i = 0; i < n; i += 2) {
        assert_int_equal(extent_map_reserve(&map, 1), 0);
        extent_map_remove(&map, 2 * (uint64_t)i, 1);
    }
    assert_true(extent_map_valid(&map));
    assert_int_equal(map.blocks, n / 2);
    drop(&map, 0, UINT64_MAX);
    assert_int_equal(map.blocks, 0);
    extent_map_clear(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_map_has_nothing),
        cmocka_unit_test(neighbours_that_continue_each_other_become_one),
        cmocka_unit_test(a_count_never_overflows_by_merging),
        cmocka_unit_test(what_a_shift_brings_together_becomes_one),
        cmocka_unit_test(a_hole_in_the_middle_leaves_both_ends),
        cmocka_unit_test(places_at_the_end_of_the_largest_file_work),
        cmocka_unit_test(random_changes_agree_with_an_array),
        cmocka_unit_test(very_many_extents_are_found_moved_and_removed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
