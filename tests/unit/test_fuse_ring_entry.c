/* SPDX-License-Identifier: BSD-2-Clause */
/* A place in a queue of FUSE over io_uring: requests put together, answers put in, whatever their sizes say. */
#include <errno.h>
#include <linux/fuse.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fused/fuse_ring_entry.h"
#include "tests/unit/failing_malloc.h"

#define ROOM   (64u << 10)
#define UNIQUE UINT64_C(77)

static int setup(void **state)
{
    *state = ring_entry_new(ROOM, 3);
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    ring_entry_free(*state);
    return 0;
}

/* As Linux fills it. */
static void fill(struct ring_entry *entry, const void *fixed, size_t fixed_size, const void *payload,
                 size_t payload_size)
{
    struct fuse_in_header in = {
        .len = (uint32_t)(sizeof(in) + fixed_size + payload_size), .opcode = FUSE_WRITE, .unique = UNIQUE};

    memcpy(entry->header->in_out, &in, sizeof(in));
    memcpy(entry->header->op_in, fixed, fixed_size);
    memcpy(entry->payload, payload, payload_size);
    entry->header->entry.payload_size = (uint32_t)payload_size;
}

static void a_request_is_as_read_would_have_given_it(void **state)
{
    static char bytes[ROOM];
    struct ring_entry *entry = *state;
    struct fuse_write_in write = {.fh = 1, .offset = 2, .size = sizeof(bytes)};
    size_t size = 0;
    char *request;

    assert_int_equal(entry->queue, 3);
    memset(bytes, 'b', sizeof(bytes));
    fill(entry, &write, sizeof(write), bytes, sizeof(bytes));
    request = ring_entry_request(entry, &size);
    assert_non_null(request);
    assert_int_equal(size, sizeof(struct fuse_in_header) + sizeof(write) + sizeof(bytes));
    assert_int_equal(((struct fuse_in_header *)request)->unique, UNIQUE);
    assert_memory_equal(request + sizeof(struct fuse_in_header), &write, sizeof(write));
    assert_memory_equal(request + sizeof(struct fuse_in_header) + sizeof(write), bytes, sizeof(bytes));
}

static void one_without_anything_but_a_header_is_one(void **state)
{
    size_t size = 0;

    fill(*state, "", 0, "", 0);
    assert_non_null(ring_entry_request(*state, &size));
    assert_int_equal(size, sizeof(struct fuse_in_header));
}

static void sizes_that_do_not_fit_together_are_no_request(void **state)
{
    struct ring_entry *entry = *state;
    struct fuse_in_header *in = (struct fuse_in_header *)entry->header->in_out;
    uint32_t header = sizeof(*in), op_in = sizeof(entry->header->op_in);
    const struct {
        uint32_t len, payload;
        bool fits;
    } sizes[] = {
        {header, 0, true},
        {header + op_in, 0, true},
        {header + op_in + ROOM, ROOM, true},
        {0, 0, false},
        {header - 1, 0, false},
        {header + 9, 10, false}, /* the payload alone is longer */
        {header + op_in + 1, 0, false},
        {header + op_in + ROOM + 1, ROOM + 1, false},
        {UINT32_MAX, UINT32_MAX, false},
        {UINT32_MAX, 0, false},
    };
    size_t size;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        in->len = sizes[i].len;
        entry->header->entry.payload_size = sizes[i].payload;
        assert_int_equal(ring_entry_request(entry, &size) != NULL, sizes[i].fits);
    }
}

/* The answer in the entry. */
static const struct fuse_out_header *answer(struct ring_entry *entry, size_t first, size_t second)
{
    static char bytes[ROOM + 1];
    struct fuse_out_header out = {.unique = UNIQUE};
    struct iovec iov[] = {{&out, sizeof(out)}, {bytes, first}, {bytes, second}};

    memset(bytes, 'a', sizeof(bytes));
    ring_entry_answer(entry, iov, 3);
    return (const struct fuse_out_header *)entry->header->in_out;
}

static void an_answer_may_fill_it(void **state)
{
    struct ring_entry *entry = *state;
    const struct fuse_out_header *out = answer(entry, ROOM - 10, 10);

    assert_int_equal(out->unique, UNIQUE);
    assert_int_equal(out->error, 0);
    assert_int_equal(entry->header->entry.payload_size, ROOM);
    for (size_t i = 0; i < ROOM; i++)
        assert_int_equal(entry->payload[i], 'a');
}

static void one_that_does_not_fit_is_an_error_without_bytes(void **state)
{
    struct ring_entry *entry = *state;

    assert_int_equal(answer(entry, ROOM - 10, 11)->error, -EIO);
    assert_int_equal(entry->header->entry.payload_size, 0);
    assert_int_equal(answer(entry, ROOM + 1, 0)->error, -EIO);
    assert_int_equal(entry->header->entry.payload_size, 0);
    assert_int_equal(answer(entry, 5, 5)->error, 0); /* and goes on */
    assert_int_equal(entry->header->entry.payload_size, 10);
}

static size_t resident_pages(const struct ring_entry *entry)
{
    unsigned char pages[ROOM / 4096];
    size_t n = 0;

    assert_int_equal(mincore(entry->payload, ROOM, pages), 0);
    for (size_t i = 0; i < sizeof(pages); i++)
        n += pages[i] & 1;
    return n;
}

static void what_waits_keeps_a_page(void **state)
{
    struct ring_entry *entry = *state;

    answer(entry, ROOM, 0);
    assert_int_equal(resident_pages(entry), ROOM / 4096);
    ring_entry_shrink(entry);
    assert_int_equal(resident_pages(entry), RING_ENTRY_KEPT / 4096);
    assert_int_equal(entry->payload[0], 'a');
    answer(entry, ROOM, 0);
    assert_int_equal(entry->payload[ROOM - 1], 'a');
}

static void without_memory_there_is_none(void **state)
{
    (void)state;
    failing_malloc_arm(0);
    assert_null(ring_entry_new(ROOM, 0));
    assert_true(failing_malloc_has_failed());
    failing_malloc_disarm();
    assert_null(ring_entry_new((size_t)1 << 60, 0)); /* no such mapping */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_request_is_as_read_would_have_given_it, setup, teardown),
        cmocka_unit_test_setup_teardown(one_without_anything_but_a_header_is_one, setup, teardown),
        cmocka_unit_test_setup_teardown(sizes_that_do_not_fit_together_are_no_request, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_may_fill_it, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_does_not_fit_is_an_error_without_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(what_waits_keeps_a_page, setup, teardown),
        cmocka_unit_test(without_memory_there_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
