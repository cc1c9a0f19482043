/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fused/bulk_copy.h"

#define ROOM (2 * BULK_COPY_MIN + 1024)

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 7 + (i >> 8) + 1);
}

/* Every byte is where it belongs, and none around it has changed, whatever the alignment of the two. */
static void copies_these_bytes(void (*copy)(void *to, const void *from, size_t length), size_t to_at, size_t from_at,
                               size_t length)
{
    uint8_t *to = calloc(1, ROOM), *from = malloc(ROOM);

    assert_non_null(to);
    assert_non_null(from);
    for (size_t i = 0; i < ROOM; i++)
        from[i] = pattern(i);
    copy(to + to_at, from + from_at, length);
    for (size_t i = 0; i < ROOM; i++)
        assert_int_equal(to[i], i >= to_at && i < to_at + length ? pattern(i - to_at + from_at) : 0);
    free(to);
    free(from);
}

static void a_copy_is_exact_at_every_alignment(void **state)
{
    const size_t lengths[] = {
        0, 1, 4096, BULK_COPY_MIN - 1, BULK_COPY_MIN, BULK_COPY_MIN + 1, BULK_COPY_MIN + 63, 2 * BULK_COPY_MIN};

    (void)state;
    for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++)
        for (size_t to_at = 0; to_at < 70; to_at += 23)
            for (size_t from_at = 0; from_at < 40; from_at += 13) {
                copies_these_bytes(bulk_copy_in, to_at, from_at, lengths[l]);
                bulk_copy_choose(BULK_COPY_SIDE_BY_SIDE);
                copies_these_bytes(bulk_copy_out, to_at, from_at, lengths[l]);
                bulk_copy_choose(BULK_COPY_PLAIN);
                copies_these_bytes(bulk_copy_out, to_at, from_at, lengths[l]);
            }
}

/* Behind the memory is none: to touch it ends the program. */
static void measuring_stays_within_the_memory(void **state)
{
    const size_t mib = 1u << 20, most = 32;
    uint8_t *room = mmap(NULL, (most + 1) * mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_true(room != MAP_FAILED);
    assert_int_equal(mprotect(room + most * mib, mib, PROT_NONE), 0);
    for (size_t size = 0; size <= most; size += 2) {
        enum bulk_copy_way way = bulk_copy_measure(room + (most - size) * mib, size * mib);

        assert_true(way == BULK_COPY_PLAIN || way == BULK_COPY_SIDE_BY_SIDE);
        copies_these_bytes(bulk_copy_out, 1, 2, BULK_COPY_MIN + 3);
    }
    munmap(room, (most + 1) * mib);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_is_exact_at_every_alignment),
        cmocka_unit_test(measuring_stays_within_the_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
