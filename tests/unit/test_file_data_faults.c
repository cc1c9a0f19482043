/* SPDX-License-Identifier: BSD-2-Clause */
/* What every operation on a file's bytes needs of space and memory, and that it changes nothing without them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fused/file_data_private.h"
#include "tests/unit/failing_malloc.h"
#include "tests/unit/file_fixture.h"

/* ---- every operation on it ---- */

static uint8_t new_bytes[MOST];

static int64_t do_write(struct rich *r)
{
    return file_data_write(r->file, 0, new_bytes, 9 * BLOCK);
}

static int64_t do_write_inside(struct rich *r)
{
    return file_data_write(r->file, 2 * BLOCK + 7, new_bytes, 3 * BLOCK);
}

static int64_t do_shrink(struct rich *r)
{
    return file_data_truncate(r->file, 2 * BLOCK + 10);
}

static int64_t do_shrink_to_held(struct rich *r)
{
    return file_data_truncate(r->file, 7 * BLOCK + 1);
}

static int64_t do_shrink_to_blocks(struct rich *r)
{
    return file_data_truncate(r->file, 6 * BLOCK);
}

static int64_t do_grow(struct rich *r)
{
    return file_data_truncate(r->file, 10 * BLOCK);
}

static int64_t do_allocate(struct rich *r)
{
    return file_data_allocate(r->file, 0, 12 * BLOCK, true);
}

static int64_t do_allocate_keep(struct rich *r)
{
    return file_data_allocate(r->file, 0, 12 * BLOCK, false);
}

static int64_t do_unshare(struct rich *r)
{
    return file_data_unshare(r->file, 0, 9 * BLOCK, false);
}

static int64_t do_unshare_extend(struct rich *r)
{
    return file_data_unshare(r->file, 0, 9 * BLOCK, true);
}

static int64_t do_punch(struct rich *r)
{
    return file_data_punch(r->file, BLOCK + 100, 5 * BLOCK);
}

static int64_t do_zero(struct rich *r)
{
    return file_data_zero(r->file, 2 * BLOCK + 5, 7 * BLOCK - 5, true);
}

static int64_t do_collapse(struct rich *r)
{
    return file_data_collapse(r->file, 0, 2 * BLOCK);
}

static int64_t do_insert(struct rich *r)
{
    return file_data_insert(r->file, BLOCK, 3 * BLOCK);
}

static int64_t do_clone(struct rich *r)
{
    return file_data_clone(r->file, 0, r->other, 0, RICH_SIZE);
}

static int64_t do_copy(struct rich *r)
{
    return file_data_clone(r->file, 10, r->other, 20, 3 * BLOCK);
}

static int64_t do_clone_inside(struct rich *r)
{
    return file_data_clone(r->file, 0, r->file, 4 * BLOCK, 4 * BLOCK);
}

static int64_t do_prepare_read(struct rich *r)
{
    return file_data_prepare(r->file, (struct lease_range){0, 9 * BLOCK}, false, false);
}

static int64_t do_prepare_write(struct rich *r)
{
    return file_data_prepare(r->file, (struct lease_range){0, 9 * BLOCK}, true, false);
}

static int64_t do_prepare_extend(struct rich *r)
{
    return file_data_prepare(r->file, (struct lease_range){8 * BLOCK, 4 * BLOCK}, false, true);
}

static int64_t do_detach(struct rich *r)
{
    return file_data_detach(r->file, (struct lease_range){6 * BLOCK, 2 * BLOCK}, r->read_runs, r->n_read_runs);
}

static int64_t do_set_size(struct rich *r)
{
    return file_data_set_size(r->file, 8 * BLOCK + 50);
}

static const struct operation {
    const char *name;
    int64_t (*run)(struct rich *);
    uint32_t need;   /* blocks */
    int64_t result;  /* when there is enough */
    uint64_t at;     /* where a short count begins */
    bool into_other; /* other changes */
} operations[] = {
    {"write over all", do_write, 6, 9 * BLOCK, 0},
    {"write into shared blocks and a hole", do_write_inside, 3, 3 * BLOCK, 2 * BLOCK + 7},
    {"truncate inside a shared block", do_shrink, 1, 0, 0},
    {"truncate inside a held block", do_shrink_to_held, 1, 0, 0},
    {"truncate between blocks", do_shrink_to_blocks, 0, 0, 0},
    {"grow over what a remote writer left", do_grow, 1, 0, 0},
    {"allocate and extend", do_allocate, 5, 0, 0},
    {"allocate", do_allocate_keep, 4, 0, 0},
    {"unshare", do_unshare, 6, 0, 0},
    {"unshare and extend", do_unshare_extend, 6, 0, 0},
    {"punch", do_punch, 1, 0, 0},
    {"zero and extend", do_zero, 6, 0, 0},
    {"collapse", do_collapse, 3, 0, 0},
    {"insert", do_insert, 3, 0, 0},
    {"clone", do_clone, 3, RICH_SIZE, 0, true},
    {"copy", do_copy, 4, 3 * BLOCK, 20, true},
    {"clone inside a file", do_clone_inside, 0, 4 * BLOCK, 4 * BLOCK},
    {"prepare for reading", do_prepare_read, 1, 0, 0},
    {"prepare for writing", do_prepare_write, 6, 0, 0},
    {"prepare and extend", do_prepare_extend, 4, 0, 0},
    {"detach", do_detach, 2, 0, 0},
    {"commit a size", do_set_size, 0, 0, 0},
};
#define N_OPERATIONS (sizeof(operations) / sizeof(operations[0]))

/* After a failure or a short count: nothing is different but what was counted. */
static void assert_changed_only(const struct file_data *data, const uint8_t before[MOST], uint64_t old_size,
                                uint64_t at, int64_t done)
{
    static uint8_t after[MOST];

    if (done <= 0)
        done = 0;
    read_all(data, after);
    assert_int_equal(file_data_size(data), done && at + (uint64_t)done > old_size ? at + (uint64_t)done : old_size);
    assert_memory_equal(after, before, at);
    assert_memory_equal(after + at + done, before + at + done, MOST - at - (uint64_t)done);
}

/* Runs it once on a new file; `after`: malloc() fails after so many calls. */
static int64_t try(const struct operation *op, uint32_t n_free, unsigned after, bool *ret_failed_malloc)
{
    static uint8_t file_before[MOST], other_before[MOST];
    static struct rich r;
    int64_t result;

    rich_start(&r, n_free);
    read_all(r.file, file_before);
    read_all(r.other, other_before);
    failing_malloc_arm(after);
    result = op->run(&r);
    *ret_failed_malloc = failing_malloc_has_failed();
    failing_malloc_disarm();
    if (result != op->result) {
        assert_changed_only(r.file, file_before, RICH_SIZE, op->into_other ? 0 : op->at, op->into_other ? 0 : result);
        assert_changed_only(r.other, other_before, 2 * BLOCK, op->into_other ? op->at : 0, op->into_other ? result : 0);
    }
    rich_stop(&r);
    return result;
}

static void every_operation_needs_so_many_blocks_and_changes_nothing_with_one_less(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_OPERATIONS; i++) {
        const struct operation *op = &operations[i];
        bool failed_malloc;

        for (uint32_t n_free = 0; n_free <= op->need; n_free++) {
            int64_t result = try(op, n_free, 1000, &failed_malloc);

            if ((result == op->result) != (n_free == op->need))
                fail_msg("%s, with %u free blocks of the %u it needs: %lld", op->name, n_free, op->need,
                         (long long)result);
            if (result < 0)
                assert_int_equal(result, -ENOSPC);
        }
    }
}

static void every_operation_survives_every_malloc_that_fails(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_OPERATIONS; i++) {
        const struct operation *op = &operations[i];
        bool failed_malloc = true;

        for (unsigned after = 0; failed_malloc; after++) {
            int64_t result = try(op, 20, after, &failed_malloc);

            if (failed_malloc ? result < 0 && result != -ENOMEM : result != op->result)
                fail_msg("%s, malloc %u fails: %lld", op->name, after, (long long)result);
            assert_true(after < 500);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_needs_so_many_blocks_and_changes_nothing_with_one_less),
        cmocka_unit_test(every_operation_survives_every_malloc_that_fails),
    };

    memset(new_bytes, 0x77, sizeof(new_bytes));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
