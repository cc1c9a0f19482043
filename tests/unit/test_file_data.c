/* SPDX-License-Identifier: BSD-2-Clause */
/* The bytes of a file: what every operation needs of space and memory, and that it changes nothing without them; what
 * an exposure keeps; what a lease is given. The random operations are in test_file_data_random.c. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fused/file_data_private.h"
#include "tests/unit/failing_malloc.h"
#include "tests/unit/store_random.h"

#define BLOCK    ((uint64_t)POOL_BLOCK_SIZE)
#define MOST     (16 * BLOCK)
#define NOT_ZERO 0xa5

static struct pool *new_pool(uint64_t blocks)
{
    struct pool *pool;
    char *error;

    assert_int_equal(pool_new(blocks * BLOCK, false, &pool, &error), 0);
    return pool;
}

static struct file_data *new_file(struct pool *pool)
{
    struct file_data *data;

    assert_int_equal(file_data_new(pool, &data), 0);
    return data;
}

static void end_empty(struct pool *pool)
{
    assert_int_equal(pool_free_blocks(pool) * BLOCK, pool_size(pool));
    assert_int_equal(pool_check(pool), 0);
    pool_free(pool);
}

/* All of a small file; what is behind its end is zero in `bytes`. */
static void read_all(const struct file_data *data, uint8_t bytes[MOST])
{
    struct iovec iov[32];
    size_t length, sum = 0;
    int n;

    memset(bytes, 0, MOST);
    file_data_read(data, 0, MOST, iov, 32, &n, &length);
    for (int i = 0; i < n; i++) {
        memcpy(bytes + sum, iov[i].iov_base, iov[i].iov_len);
        sum += iov[i].iov_len;
    }
    assert_int_equal(sum, length);
    assert_int_equal(sum, smaller(file_data_size(data), MOST));
}

static void fill(struct file_data *data, uint64_t offset, uint64_t length, uint8_t byte)
{
    static uint8_t bytes[MOST];

    memset(bytes, byte, length);
    assert_int_equal(file_data_write(data, offset, bytes, length), length);
}

static void *address_of(const struct file_data *data, uint64_t block)
{
    struct piece piece = piece_at(data, block, 1);

    assert_int_equal(piece.kind, PIECE_WRITTEN);
    return pool_address(data->pool, piece.start);
}

/* Makes every free block hold what no file may show. */
static void soil_free_blocks(struct pool *pool)
{
    for (uint32_t i = 0; i < pool_size(pool) / BLOCK; i++)
        if (!pool_file_count(pool, (struct pool_block){0, i}) && !pool_hold_count(pool, (struct pool_block){0, i}))
            memset(pool_address(pool, (struct pool_block){0, i}), NOT_ZERO, BLOCK);
}

/* ---- a file with everything in it ---- */

/*
 * block 0 1  own    2 3  shared with `other`    4  hole    5  unwritten    6 7  held, a reader
 *       8    held, a writer, who has left bytes behind the end of file (100 bytes into this block)
 */
#define RICH_SIZE (8 * BLOCK + 100)
struct rich {
    struct pool *pool;
    struct file_data *file, *other; /* other: two blocks */
    struct layout_run *read_runs, *write_runs;
    size_t n_read_runs, n_write_runs;
    uint8_t read_bytes[2 * POOL_BLOCK_SIZE], write_bytes[POOL_BLOCK_SIZE]; /* what the exposures see */
    const uint8_t *read_memory[2], *write_memory;
    uint32_t n_ballast;
    struct pool_block ballast[256];
};

static void take_ballast(struct rich *r, uint32_t leave_free)
{
    uint32_t count;

    while (pool_free_blocks(r->pool) > leave_free)
        assert_int_equal(pool_alloc(r->pool, 1, 1, (struct pool_block){0}, 0, &r->ballast[r->n_ballast++], &count), 0);
}

static void rich_start(struct rich *r, uint32_t leave_free)
{
    static const uint8_t slack[] = "behind the end";

    *r = (struct rich){.pool = new_pool(256)};
    r->file = new_file(r->pool);
    r->other = new_file(r->pool);
    for (uint64_t b = 0; b < 4; b++)
        fill(r->file, b * BLOCK, BLOCK, (uint8_t)(0x10 + b));
    assert_int_equal(file_data_clone(r->file, 2 * BLOCK, r->other, 0, 2 * BLOCK), 2 * BLOCK);
    assert_int_equal(file_data_allocate(r->file, 5 * BLOCK, BLOCK, true), 0);
    fill(r->file, 6 * BLOCK, 2 * BLOCK, 0x16);
    fill(r->file, 8 * BLOCK, 100, 0x18);
    assert_int_equal(
        file_data_hold(r->file, (struct lease_range){6 * BLOCK, 2 * BLOCK}, &r->read_runs, &r->n_read_runs), 0);
    assert_int_equal(file_data_hold(r->file, (struct lease_range){8 * BLOCK, BLOCK}, &r->write_runs, &r->n_write_runs),
                     0);
    r->read_memory[0] = address_of(r->file, 6);
    r->read_memory[1] = address_of(r->file, 7);
    memcpy((uint8_t *)address_of(r->file, 8) + 200, slack, sizeof(slack));
    r->write_memory = address_of(r->file, 8);
    memset(r->read_bytes, 0x16, sizeof(r->read_bytes));
    memcpy(r->write_bytes, r->write_memory, BLOCK);
    soil_free_blocks(r->pool);
    take_ballast(r, leave_free);
}

/* I1: whatever was done, the exposures have their blocks, with their bytes, and nobody else has. */
static void assert_exposures_untouched(const struct rich *r)
{
    assert_memory_equal(r->read_memory[0], r->read_bytes, BLOCK);
    assert_memory_equal(r->read_memory[1], r->read_bytes + BLOCK, BLOCK);
    assert_memory_equal(r->write_memory, r->write_bytes, BLOCK);
    for (size_t i = 0; i < r->n_read_runs + r->n_write_runs; i++) {
        const struct layout_run *run = i < r->n_read_runs ? &r->read_runs[i] : &r->write_runs[i - r->n_read_runs];

        for (uint64_t at = run->offset; at < run->offset + run->length; at += BLOCK) {
            struct pool_block block = {run->segment, (uint32_t)(at / BLOCK)};

            assert_int_equal(pool_hold_count(r->pool, block), 1);
            assert_true(pool_file_count(r->pool, block) <= 1);
        }
    }
}

static void rich_stop(struct rich *r)
{
    assert_exposures_untouched(r);
    assert_int_equal(file_data_check(r->file), 0);
    assert_int_equal(file_data_check(r->other), 0);
    assert_int_equal(pool_check(r->pool), 0);
    file_data_free(r->file);
    file_data_free(r->other);
    assert_exposures_untouched(r);
    file_data_put_runs(r->pool, r->read_runs, r->n_read_runs);
    file_data_put_runs(r->pool, r->write_runs, r->n_write_runs);
    free(r->read_runs);
    free(r->write_runs);
    while (r->n_ballast)
        pool_put_file(r->pool, r->ballast[--r->n_ballast], 1);
    end_empty(r->pool);
}

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

/* ---- stories ---- */

/* I1 */
static void a_held_block_is_not_free_before_the_hold_ends_whatever_becomes_of_the_file(void **state)
{
    struct pool *pool = new_pool(256);
    struct file_data *file = new_file(pool), *next = new_file(pool);
    struct layout_run *runs;
    const uint8_t *memory;
    size_t n;

    (void)state;
    fill(file, 0, 2 * BLOCK, 1);
    assert_int_equal(file_data_hold(file, (struct lease_range){0, 2 * BLOCK}, &runs, &n), 0);
    memory = address_of(file, 0);
    assert_int_equal(file_data_truncate(file, 0), 0);
    file_data_free(file);
    assert_int_equal(pool_free_blocks(pool), 254);
    for (uint64_t b = 0; b < 254; b++)
        fill(next, b * BLOCK, BLOCK, 2);
    assert_int_equal(file_data_write(next, 254 * BLOCK, "x", 1), -ENOSPC);
    for (uint64_t i = 0; i < 2 * BLOCK; i++)
        assert_int_equal(memory[i], 1);
    file_data_put_runs(pool, runs, n);
    free(runs);
    assert_int_equal(file_data_write(next, 254 * BLOCK, "x", 1), 1);
    file_data_free(next);
    end_empty(pool);
}

/* I1, I3 */
static void a_remote_store_reaches_no_clone(void **state)
{
    static uint8_t bytes[MOST];
    static struct rich r;

    (void)state;
    rich_start(&r, 200);
    assert_int_equal(file_data_clone(r.file, 0, r.other, 0, RICH_SIZE), RICH_SIZE);
    memset(address_of(r.file, 8), 0xee, BLOCK);
    memset(r.write_bytes, 0xee, BLOCK);
    read_all(r.other, bytes);
    for (uint64_t i = 8 * BLOCK; i < RICH_SIZE; i++)
        assert_int_equal(bytes[i], 0x18);
    read_all(r.file, bytes);
    assert_int_equal(bytes[8 * BLOCK], 0xee);
    rich_stop(&r);
}

/* I2 */
static void after_detach_a_remote_store_shows_in_no_file(void **state)
{
    static uint8_t before[MOST], after[MOST];
    static struct rich r;

    (void)state;
    rich_start(&r, 200);
    read_all(r.file, before);
    assert_int_equal(file_data_detach(r.file, (struct lease_range){8 * BLOCK, BLOCK}, r.write_runs, r.n_write_runs), 0);
    memset((void *)r.write_memory, 0xee, BLOCK);
    memset(r.write_bytes, 0xee, BLOCK);
    assert_int_equal(file_data_truncate(r.file, 9 * BLOCK), 0);
    read_all(r.file, after);
    assert_memory_equal(after, before, MOST); /* nor behind the old end, now part of the file */
    rich_stop(&r);
}

static void prepared_bytes_are_zero_whatever_the_blocks_held_before(void **state)
{
    static const uint8_t zeros[POOL_BLOCK_SIZE];
    struct pool *pool = new_pool(256);
    struct file_data *file = new_file(pool);
    struct lease_range range = {0, 8 * BLOCK};

    (void)state;
    soil_free_blocks(pool);
    assert_int_equal(file_data_allocate(file, BLOCK, 2 * BLOCK, true), 0);
    assert_int_equal(file_data_eligible(file, range, false).kind, LAYOUT_BEYOND_EOF);
    assert_int_equal(file_data_truncate(file, 7 * BLOCK + 9), 0);
    assert_int_equal(file_data_eligible(file, range, false).kind, LAYOUT_HOLE);
    assert_int_equal(file_data_eligible(file, (struct lease_range){BLOCK, BLOCK}, false).kind, LAYOUT_UNWRITTEN);
    assert_int_equal(file_data_prepare(file, range, true, false), 0);
    assert_int_equal(file_data_eligible(file, range, true).kind, LAYOUT_OK);
    assert_int_equal(file_data_size(file), 7 * BLOCK + 9);
    for (uint64_t b = 0; b < 8; b++) /* of the last block, also what is behind the end of file */
        assert_memory_equal(address_of(file, b), zeros, BLOCK);
    file_data_free(file);
    end_empty(pool);
}

/* I3 */
static void a_shared_block_is_leased_for_reading_only_until_prepared(void **state)
{
    struct pool *pool = new_pool(256);
    struct file_data *file = new_file(pool), *clone = new_file(pool);
    struct lease_range range = {0, 4 * BLOCK};
    struct layout_problem problem;

    (void)state;
    fill(file, 0, 4 * BLOCK, 7);
    assert_int_equal(file_data_clone(file, BLOCK, clone, 0, 2 * BLOCK), 2 * BLOCK);
    assert_int_equal(file_data_eligible(file, range, false).kind, LAYOUT_OK);
    problem = file_data_eligible(file, range, true);
    assert_int_equal(problem.kind, LAYOUT_SHARED);
    assert_int_equal(problem.range.offset, BLOCK);
    assert_int_equal(problem.range.length, 2 * BLOCK);
    assert_true(file_data_prepare_replaces(file, range, true));
    assert_int_equal(file_data_prepare(file, range, true, false), 0);
    assert_int_equal(file_data_eligible(file, range, true).kind, LAYOUT_OK);
    file_data_free(file);
    file_data_free(clone);
    end_empty(pool);
}

static void a_sparse_file_of_terabytes_costs_what_is_in_it(void **state)
{
    const uint64_t tib = UINT64_C(1) << 40, last = MAX_FILE_SIZE - 1;
    struct pool *pool = new_pool(256);
    struct file_data *file = new_file(pool), *clone = new_file(pool);

    (void)state;
    assert_int_equal(file_data_truncate(file, 100 * tib), 0);
    fill(file, 8 * tib + 5, 10, 1);
    fill(file, last, 1, 2);
    assert_int_equal(file_data_write(file, last, "ab", 2), 1);
    assert_int_equal(file_data_write(file, last + 1, "a", 1), -EFBIG);
    assert_int_equal(file_data_truncate(file, MAX_FILE_SIZE + 1), -EFBIG);
    assert_int_equal(file_data_size(file), MAX_FILE_SIZE);
    assert_int_equal(file_data_blocks(file), 2);
    assert_int_equal(file_data_seek(file, 0, SEEK_DATA), 8 * tib);
    assert_int_equal(file_data_seek(file, 8 * tib, SEEK_HOLE), 8 * tib + BLOCK);
    assert_int_equal(file_data_seek(file, 9 * tib, SEEK_DATA), last & ~(BLOCK - 1));
    assert_int_equal(file_data_insert(file, 0, BLOCK), -EFBIG);
    assert_int_equal(file_data_allocate(file, 0, tib, false), -ENOSPC);
    assert_int_equal(file_data_zero(file, tib, 90 * tib, false), -ENOSPC);
    assert_int_equal(file_data_collapse(file, tib, tib), 0);
    assert_int_equal(file_data_seek(file, 0, SEEK_DATA), 7 * tib);
    assert_int_equal(file_data_insert(file, 0, tib), 0);
    assert_int_equal(file_data_clone(file, 0, clone, 0, 50 * tib), 50 * tib);
    assert_int_equal(file_data_blocks(clone), 1);
    assert_int_equal(file_data_punch(file, 0, UINT64_MAX), 0);
    assert_int_equal(file_data_blocks(file), 0);
    file_data_free(file);
    file_data_free(clone);
    end_empty(pool);
}

/* ---- threads, with the locks that the header asks for ---- */

#define THREADS       3
#define THREAD_BLOCKS 48u /* of the file; block b is thread b % THREADS's */

struct crowd {
    struct pool *pool;
    struct file_data *file, *clone;
    pthread_rwlock_t file_lock, clone_lock; /* in this order */
    struct dice dice;
};

struct one {
    struct crowd *crowd;
    unsigned number;
    struct dice dice;
    uint8_t last[THREAD_BLOCKS]; /* bytes it has written */
};

static void overwrite_own(struct one *me)
{
    unsigned b = (unsigned)dice_below(&me->dice, THREAD_BLOCKS / THREADS) * THREADS + me->number;
    uint8_t bytes[POOL_BLOCK_SIZE], byte = (uint8_t)dice_roll(&me->dice);
    int error;

    memset(bytes, byte, sizeof(bytes));
    pthread_rwlock_rdlock(&me->crowd->file_lock);
    error = file_data_overwrite(me->crowd->file, b * BLOCK, bytes, sizeof(bytes));
    pthread_rwlock_unlock(&me->crowd->file_lock);
    if (error) {
        assert_int_equal(error, -EAGAIN);
        pthread_rwlock_wrlock(&me->crowd->file_lock);
        assert_int_equal(file_data_write(me->crowd->file, b * BLOCK, bytes, sizeof(bytes)), BLOCK);
        pthread_rwlock_unlock(&me->crowd->file_lock);
    }
    me->last[b] = byte;
}

static void read_own(struct one *me)
{
    unsigned b = (unsigned)dice_below(&me->dice, THREAD_BLOCKS / THREADS) * THREADS + me->number;
    struct iovec iov[1];
    size_t length;
    int n;

    pthread_rwlock_rdlock(&me->crowd->file_lock);
    file_data_read(me->crowd->file, b * BLOCK, BLOCK, iov, 1, &n, &length);
    assert_int_equal(length, BLOCK);
    for (uint64_t i = 0; i < BLOCK; i++)
        assert_int_equal(((uint8_t *)iov[0].iov_base)[i], me->last[b]);
    pthread_rwlock_unlock(&me->crowd->file_lock);
}

static void clone_all(struct one *me)
{
    uint64_t length = THREAD_BLOCKS * BLOCK;

    pthread_rwlock_wrlock(&me->crowd->file_lock);
    pthread_rwlock_wrlock(&me->crowd->clone_lock);
    assert_int_equal(file_data_clone(me->crowd->file, 0, me->crowd->clone, 0, length), length);
    pthread_rwlock_unlock(&me->crowd->clone_lock);
    pthread_rwlock_unlock(&me->crowd->file_lock);
}

/* The clone's blocks become the file's alone again while others look at their counts. */
static void empty_clone(struct one *me)
{
    pthread_rwlock_wrlock(&me->crowd->clone_lock);
    assert_int_equal(file_data_truncate(me->crowd->clone, dice_below(&me->dice, THREAD_BLOCKS) * BLOCK), 0);
    pthread_rwlock_unlock(&me->crowd->clone_lock);
}

static void *one_runs(void *arg)
{
    struct one *me = arg;

    for (unsigned i = dice_steps(2000); i > 0; i--) {
        uint64_t what = dice_below(&me->dice, 20);

        if (what < 9)
            overwrite_own(me);
        else if (what < 17)
            read_own(me);
        else if (what == 17)
            clone_all(me);
        else
            empty_clone(me);
    }
    return NULL;
}

static void threads_share_a_file_and_its_clone(void **state)
{
    struct crowd crowd = {.pool = new_pool(256), .dice = dice_new("threads")};
    struct one ones[THREADS];
    pthread_t threads[THREADS];

    (void)state;
    crowd.file = new_file(crowd.pool);
    crowd.clone = new_file(crowd.pool);
    pthread_rwlock_init(&crowd.file_lock, NULL);
    pthread_rwlock_init(&crowd.clone_lock, NULL);
    for (uint64_t b = 0; b < THREAD_BLOCKS; b++)
        fill(crowd.file, b * BLOCK, BLOCK, 0);
    for (unsigned i = 0; i < THREADS; i++) {
        ones[i] = (struct one){.crowd = &crowd, .number = i, .dice = {dice_roll(&crowd.dice)}};
        assert_int_equal(pthread_create(&threads[i], NULL, one_runs, &ones[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(file_data_check(crowd.file), 0);
    assert_int_equal(file_data_check(crowd.clone), 0);
    file_data_free(crowd.file);
    file_data_free(crowd.clone);
    pthread_rwlock_destroy(&crowd.file_lock);
    pthread_rwlock_destroy(&crowd.clone_lock);
    end_empty(crowd.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_needs_so_many_blocks_and_changes_nothing_with_one_less),
        cmocka_unit_test(every_operation_survives_every_malloc_that_fails),
        cmocka_unit_test(a_held_block_is_not_free_before_the_hold_ends_whatever_becomes_of_the_file),
        cmocka_unit_test(a_remote_store_reaches_no_clone),
        cmocka_unit_test(after_detach_a_remote_store_shows_in_no_file),
        cmocka_unit_test(prepared_bytes_are_zero_whatever_the_blocks_held_before),
        cmocka_unit_test(a_shared_block_is_leased_for_reading_only_until_prepared),
        cmocka_unit_test(a_sparse_file_of_terabytes_costs_what_is_in_it),
        cmocka_unit_test(threads_share_a_file_and_its_clone),
    };

    memset(new_bytes, 0x77, sizeof(new_bytes));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
