/* SPDX-License-Identifier: BSD-2-Clause */
/* The arithmetic of ranges of bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lease/range.h"

static void a_range_is_cut_into_what_is_left_of_it(void **state)
{
    static const struct {
        struct lease_range part, left[2];
        size_t n;
    } table[] = {
        {{4, 4}, {{0, 4}, {8, 8}}, 2},   /* the middle */
        {{0, 4}, {{4, 12}}, 1},          /* the start */
        {{12, 4}, {{0, 12}}, 1},         /* the end */
        {{0, 16}, {{0, 0}}, 0},          /* all */
        {{0, 0}, {{0, 16}}, 1},          /* nothing */
        {{8, 0}, {{0, 16}}, 1},          /* nothing, inside */
        {{16, 4}, {{0, 16}}, 1},         /* beyond */
        {{12, 1000}, {{0, 12}}, 1},      /* over the end */
        {{0, RANGE_MAX_END}, {{0}}, 0},  /* everything there is */
        {{15, 1}, {{0, 15}}, 1},         /* the last */
        {{1, 14}, {{0, 1}, {15, 1}}, 2}, /* all but the edges */
    };
    struct lease_range whole = {0, 16}, left[2];

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        assert_int_equal(range_without(whole, table[i].part, left), table[i].n);
        for (size_t j = 0; j < table[i].n; j++) {
            assert_int_equal(left[j].offset, table[i].left[j].offset);
            assert_int_equal(left[j].length, table[i].left[j].length);
        }
    }
    assert_int_equal(range_without((struct lease_range){5, 0}, whole, left), 0);
}

static void ranges_round_inwards_without_overflow(void **state)
{
    static const struct {
        struct lease_range in, out;
    } table[] = {
        {{0, 16}, {0, 16}},
        {{1, 15}, {8, 8}},
        {{1, 14}, {8, 0}},
        {{7, 2}, {8, 0}},
        {{8, 7}, {8, 0}},
        {{0, 23}, {0, 16}},
        {{3, 3}, {8, 0}},
        {{16, 0}, {16, 0}},
        {{RANGE_MAX_END, 0}, {RANGE_MAX_END, 0}},
        {{0, RANGE_MAX_END}, {0, RANGE_MAX_END & ~UINT64_C(7)}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct lease_range r = range_round_in(table[i].in, 8);

        assert_int_equal(r.offset, table[i].out.offset);
        assert_int_equal(r.length, table[i].out.length);
    }
}

/* Each cut of a small range, against a set of bytes. */
static void no_byte_is_lost_or_doubled_by_a_cut(void **state)
{
    (void)state;
    for (uint64_t a = 0; a < 12; a++)
        for (uint64_t n = 0; n < 12; n++)
            for (uint64_t from = 2; from < 8; from++) {
                struct lease_range whole = {from, 8 - from}, part = {a, n}, left[2];
                size_t pieces = range_without(whole, part, left);

                for (uint64_t at = 0; at < 24; at++) {
                    struct lease_range byte = {at, 1};
                    int owners = 0;

                    for (size_t i = 0; i < pieces; i++)
                        owners += range_contains(left[i], byte);
                    assert_int_equal(owners, range_contains(whole, byte) && !range_overlaps(part, byte));
                }
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_range_is_cut_into_what_is_left_of_it),
        cmocka_unit_test(ranges_round_inwards_without_overflow),
        cmocka_unit_test(no_byte_is_lost_or_doubled_by_a_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
