/* SPDX-License-Identifier: BSD-2-Clause */
/* The bytes of a file: what an exposure keeps, what a lease is given, what threads see. Random operations are in
 * test_file_data_random.c, failures in test_file_data_faults.c. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "fused/file_data_private.h"
#include "fused/pool_private.h"
#include "tests/unit/file_fixture.h"
#include "tests/unit/store_random.h"

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

static void on_huge_pages_a_range_in_pieces_is_moved_before_a_lease(void **state)
{
    const uint64_t n = 2 * POOL_HUGE_BLOCKS;
    struct pool *pool = new_pool(6 * (uint64_t)POOL_HUGE_BLOCKS);
    struct file_data *file = new_file(pool), *other = new_file(pool);
    struct lease_range range = {3 * BLOCK, (n - 3) * BLOCK};

    (void)state;
    for (uint64_t b = 0; b < n; b++) {
        fill(file, b * BLOCK, BLOCK, (uint8_t)b);
        fill(other, b * BLOCK, BLOCK, 0xff);
    }
    assert_int_equal(file_data_eligible(file, range, true).kind, LAYOUT_OK);
    pool->page_size = POOL_HUGE_BLOCKS * BLOCK; /* as if; huge pages are for the machine's owner to reserve */
    assert_int_equal(file_data_eligible(file, range, true).kind, LAYOUT_FRAGMENTED);
    assert_true(file_data_prepare_replaces(file, range, true));
    assert_int_equal(file_data_prepare(file, range, true, false), 0);
    assert_int_equal(file_data_eligible(file, range, true).kind, LAYOUT_OK);
    assert_false(file_data_prepare_replaces(file, range, true));
    for (uint64_t b = 0; b < n; b++) {
        assert_int_equal(*(uint8_t *)address_of(file, b), (uint8_t)b);
        if (b >= 3)
            assert_int_equal(piece_at(file, b, 1).start.index % POOL_HUGE_BLOCKS, b % POOL_HUGE_BLOCKS);
    }
    assert_int_equal(file_data_prepare(other, (struct lease_range){0, n * BLOCK}, true, false), -ENOSPC);
    for (uint64_t b = 0; b < n; b++)
        assert_int_equal(*(uint8_t *)address_of(other, b), 0xff);
    assert_int_equal(file_data_check(other), 0);
    pool->page_size = BLOCK;
    file_data_free(file);
    file_data_free(other);
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
        cmocka_unit_test(a_held_block_is_not_free_before_the_hold_ends_whatever_becomes_of_the_file),
        cmocka_unit_test(a_remote_store_reaches_no_clone),
        cmocka_unit_test(after_detach_a_remote_store_shows_in_no_file),
        cmocka_unit_test(prepared_bytes_are_zero_whatever_the_blocks_held_before),
        cmocka_unit_test(a_shared_block_is_leased_for_reading_only_until_prepared),
        cmocka_unit_test(on_huge_pages_a_range_in_pieces_is_moved_before_a_lease),
        cmocka_unit_test(a_sparse_file_of_terabytes_costs_what_is_in_it),
        cmocka_unit_test(threads_share_a_file_and_its_clone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
