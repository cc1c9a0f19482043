/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "rdma/keys.h"

static int set_up(void **state)
{
    return keys_new((struct keys **)state);
}

static int tear_down(void **state)
{
    keys_free(*state);
    return 0;
}

static void a_key_of_an_ended_lease_is_reserved_for_its_time(void **state)
{
    keys_reserve(*state, 0x1234, 1000);
    assert_true(keys_reserved(*state, 0x1234, 1000));
    assert_true(keys_reserved(*state, 0x1234, 1000 + KEYS_HOLD_NS - 1));
    assert_false(keys_reserved(*state, 0x1234, 1000 + KEYS_HOLD_NS));
    assert_false(keys_reserved(*state, 0x1235, 1000));
    assert_false(keys_reserved(*state, 0, 1000)); /* as the empty table has it */
}

static void a_key_that_ends_again_is_reserved_from_then_on(void **state)
{
    keys_reserve(*state, 7, 0);
    keys_reserve(*state, 7, KEYS_HOLD_NS);
    assert_true(keys_reserved(*state, 7, 2 * KEYS_HOLD_NS - 1));
}

static void a_full_table_forgets_the_oldest_alone(void **state)
{
    for (uint32_t i = 0; i < KEYS_CAPACITY; i++)
        keys_reserve(*state, i << 8, 0);
    assert_true(keys_reserved(*state, 0, 1));
    keys_reserve(*state, 0xff, 0);
    keys_reserve(*state, 0xfe, 0);
    assert_false(keys_reserved(*state, 0, 1));
    assert_false(keys_reserved(*state, 1u << 8, 1));
    for (uint32_t i = 2; i < KEYS_CAPACITY; i++)
        assert_true(keys_reserved(*state, i << 8, 1));
    assert_true(keys_reserved(*state, 0xff, 1));
    assert_true(keys_reserved(*state, 0xfe, 1));
}

/* Against a plain list of what was reserved when. */
static void many_rounds_agree_with_a_list(void **state)
{
    static uint32_t history[3 * KEYS_CAPACITY];
    unsigned seed = 5;
    size_t n = 0;

    for (; n < sizeof(history) / sizeof(history[0]); n++) {
        history[n] = (uint32_t)rand_r(&seed);
        keys_reserve(*state, history[n], n);
    }
    for (size_t i = 0; i < n; i += 97)
        assert_int_equal(keys_reserved(*state, history[i], n), i >= n - KEYS_CAPACITY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_key_of_an_ended_lease_is_reserved_for_its_time),
        TEST(a_key_that_ends_again_is_reserved_from_then_on),
        TEST(a_full_table_forgets_the_oldest_alone),
        TEST(many_rounds_agree_with_a_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
