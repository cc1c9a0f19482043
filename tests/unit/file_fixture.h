/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TESTS_FILE_FIXTURE_H
#define LEASEFS_TESTS_FILE_FIXTURE_H

/* The bytes of files on a small pool, and a file that has everything in it. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fused/file_data_private.h"

#define BLOCK    ((uint64_t)POOL_BLOCK_SIZE)
#define MOST     (16 * BLOCK)
#define NOT_ZERO 0xa5

static inline struct pool *new_pool(uint64_t blocks)
{
    struct pool *pool;
    char *error;

    assert_int_equal(pool_new(blocks * BLOCK, false, &pool, &error), 0);
    return pool;
}

static inline struct file_data *new_file(struct pool *pool)
{
    struct file_data *data;

    assert_int_equal(file_data_new(pool, &data), 0);
    return data;
}

static inline void end_empty(struct pool *pool)
{
    assert_int_equal(pool_free_blocks(pool) * BLOCK, pool_size(pool));
    assert_int_equal(pool_check(pool), 0);
    pool_free(pool);
}

/* All of a small file; what is behind its end is zero in `bytes`. */
static inline void read_all(const struct file_data *data, uint8_t bytes[MOST])
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

static inline void fill(struct file_data *data, uint64_t offset, uint64_t length, uint8_t byte)
{
    static uint8_t bytes[MOST];

    memset(bytes, byte, length);
    assert_int_equal(file_data_write(data, offset, bytes, length), length);
}

static inline void *address_of(const struct file_data *data, uint64_t block)
{
    struct piece piece = piece_at(data, block, 1);

    assert_int_equal(piece.kind, PIECE_WRITTEN);
    return pool_address(data->pool, piece.start);
}

/* Makes every free block hold what no file may show. */
static inline void soil_free_blocks(struct pool *pool)
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

static inline void take_ballast(struct rich *r, uint32_t leave_free)
{
    uint32_t count;

    while (pool_free_blocks(r->pool) > leave_free)
        assert_int_equal(pool_alloc(r->pool, 1, 1, (struct pool_block){0}, 0, &r->ballast[r->n_ballast++], &count), 0);
}

static inline void rich_start(struct rich *r, uint32_t leave_free)
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
static inline void assert_exposures_untouched(const struct rich *r)
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

static inline void rich_stop(struct rich *r)
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

#endif
