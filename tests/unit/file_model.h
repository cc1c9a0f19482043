/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TESTS_FILE_MODEL_H
#define LEASEFS_TESTS_FILE_MODEL_H

/*
 * A few files on a small pool, and what they should be: an array of bytes and a kind for each block, and for each
 * exposure a copy of the bytes that it holds. model_check() compares everything.
 *
 * What an operation needs is worked out beforehand, block by block, on a copy of the pool's counts (struct forecast):
 * an operation fails when the pool is short of one block, and not before; and afterwards exactly so many are free.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "fused/file_data_private.h"
#include "tests/unit/store_random.h"

#define BLOCK       ((uint64_t)POOL_BLOCK_SIZE)
#define FILES       3
#define FILE_BLOCKS 40u /* of each, at most */
#define FILE_BYTES  (FILE_BLOCKS * BLOCK)
#define POOL_BLOCKS 256u
#define HOLDS       6
#define POISON      0xdb /* what free blocks are filled with: it must never be seen in a file, and never change */

struct block_view {
    enum piece_kind kind;
    uint32_t index; /* in the pool; in a forecast, from POOL_BLOCKS on: taken since */
};

struct model_file {
    struct file_data *data;
    uint64_t size;
    uint8_t bytes[FILE_BYTES]; /* zeros behind the size */
    enum piece_kind kinds[FILE_BLOCKS];
};

struct model_hold {
    struct model_file *file; /* NULL: none */
    struct lease_range range;
    bool write;
    struct layout_run *runs;
    size_t n_runs;
    uint32_t blocks[FILE_BLOCKS]; /* of the pool, in the file's order */
    uint8_t bytes[FILE_BYTES];    /* what the remote peer sees */
};

struct model {
    struct pool *pool;
    struct dice dice;
    struct model_file files[FILES];
    struct model_hold holds[HOLDS];
    bool ballast[POOL_BLOCKS], poisoned[POOL_BLOCKS];
    uint32_t most_files[POOL_BLOCKS]; /* of a held block: its count may only fall */
};

struct forecast {
    uint32_t files[2 * POOL_BLOCKS], held[2 * POOL_BLOCKS], n_free, n_new;
    struct block_view view[FILES][FILE_BLOCKS];
};

static inline unsigned hold_blocks(const struct model_hold *hold)
{
    return (unsigned)(hold->range.length / BLOCK);
}

static inline void *pool_bytes(const struct model *m, uint32_t index)
{
    return pool_address(m->pool, (struct pool_block){0, index});
}

static inline struct block_view view_of(const struct model_file *f, uint64_t block)
{
    struct piece piece = piece_at(f->data, block, 1);

    return (struct block_view){piece.kind, piece.start.index};
}

static inline uint64_t in_last_block(uint64_t size)
{
    return size & (BLOCK - 1);
}

/* ---- start and end ---- */

static inline void model_start(struct model *m, struct dice dice, uint32_t n_free)
{
    struct pool_block start;
    uint32_t count;
    char *error;

    *m = (struct model){.dice = dice};
    assert_int_equal(pool_new(POOL_BLOCKS * BLOCK, false, &m->pool, &error), 0);
    for (uint32_t n = POOL_BLOCKS - n_free; n > 0; n--) { /* here and there, so that the rest is in pieces */
        struct pool_block goal = {0, 1 + (uint32_t)dice_below(&m->dice, POOL_BLOCKS - 1)};

        assert_int_equal(pool_alloc(m->pool, 1, 1, goal, 0, &start, &count), 0);
        m->ballast[start.index] = true;
    }
    for (unsigned i = 0; i < FILES; i++)
        assert_int_equal(file_data_new(m->pool, &m->files[i].data), 0);
}

static inline void model_stop(struct model *m)
{
    for (unsigned i = 0; i < FILES; i++)
        file_data_free(m->files[i].data);
    for (unsigned i = 0; i < HOLDS; i++) {
        if (!m->holds[i].file)
            continue;
        file_data_put_runs(m->pool, m->holds[i].runs, m->holds[i].n_runs);
        free(m->holds[i].runs);
    }
    for (uint32_t i = 0; i < POOL_BLOCKS; i++)
        if (m->ballast[i])
            pool_put_file(m->pool, (struct pool_block){0, i}, 1);
    assert_int_equal(pool_free_blocks(m->pool), POOL_BLOCKS);
    assert_int_equal(pool_check(m->pool), 0);
    pool_free(m->pool);
}

/* ---- comparing ---- */

static inline void check_read(struct model *m, const struct model_file *f, uint64_t offset, size_t length)
{
    struct iovec iov[FILE_BLOCKS + 1];
    int max_iov = 1 + (int)dice_below(&m->dice, FILE_BLOCKS), n;
    uint64_t end = offset >= f->size ? offset : offset + smaller(length, f->size - offset);
    size_t bytes, sum = 0;

    file_data_read(f->data, offset, length, iov, max_iov, &n, &bytes);
    assert_true(n <= max_iov && bytes <= end - offset);
    assert_true(bytes == end - offset || n == max_iov);
    for (int i = 0; i < n; i++) {
        assert_memory_equal(iov[i].iov_base, f->bytes + offset + sum, iov[i].iov_len);
        sum += iov[i].iov_len;
    }
    assert_int_equal(sum, bytes);
    if (bytes && bytes < end - offset)
        check_read(m, f, offset + bytes, length - bytes);
}

static inline void check_seek(const struct model_file *f, uint64_t offset)
{
    uint64_t data = offset, hole = offset;

    while (data < f->size && f->kinds[data / BLOCK] != PIECE_WRITTEN)
        data = (data / BLOCK + 1) * BLOCK;
    while (hole < f->size && f->kinds[hole / BLOCK] == PIECE_WRITTEN)
        hole = (hole / BLOCK + 1) * BLOCK;
    assert_int_equal(file_data_seek(f->data, offset, SEEK_DATA), data < f->size ? (int64_t)data : -ENXIO);
    assert_int_equal(file_data_seek(f->data, offset, SEEK_HOLE),
                     offset >= f->size ? -ENXIO : (int64_t)smaller(hole, f->size));
}

static inline void check_file(struct model *m, const struct model_file *f, uint32_t counted[POOL_BLOCKS])
{
    uint64_t blocks = 0;

    assert_int_equal(file_data_check(f->data), 0);
    assert_int_equal(file_data_size(f->data), f->size);
    for (unsigned b = 0; b < FILE_BLOCKS; b++) {
        struct block_view view = view_of(f, b);

        assert_int_equal(view.kind, f->kinds[b]);
        if (view.kind == PIECE_HOLE)
            continue;
        blocks++;
        counted[view.index]++;
    }
    assert_int_equal(file_data_blocks(f->data), blocks);
    check_read(m, f, 0, FILE_BYTES);
    check_read(m, f, dice_below(&m->dice, FILE_BYTES), (size_t)dice_below(&m->dice, FILE_BYTES));
    check_seek(f, dice_below(&m->dice, FILE_BYTES));
}

/* I1, I3: what an exposure holds changes by remote stores only, and no file gets it anew. */
static inline void check_holds(struct model *m, uint32_t held[POOL_BLOCKS])
{
    for (unsigned i = 0; i < HOLDS; i++) {
        const struct model_hold *hold = &m->holds[i];

        for (unsigned b = 0; hold->file && b < hold_blocks(hold); b++) {
            uint32_t index = hold->blocks[b], files = pool_file_count(m->pool, (struct pool_block){0, index});

            held[index]++;
            assert_memory_equal(pool_bytes(m, index), hold->bytes + b * BLOCK, BLOCK);
            assert_true(files <= m->most_files[index] && (!hold->write || files <= 1));
            m->most_files[index] = files;
        }
    }
}

/* Free blocks are poisoned when they become free, and are seen to stay so. */
static inline void check_free_blocks(struct model *m, const uint32_t files[POOL_BLOCKS],
                                     const uint32_t held[POOL_BLOCKS])
{
    static uint8_t poison[POOL_BLOCK_SIZE];
    bool thorough = dice_below(&m->dice, 16) == 0;

    memset(poison, POISON, sizeof(poison));
    for (uint32_t i = 0; i < POOL_BLOCKS; i++) {
        bool is_free = !files[i] && !held[i];

        assert_int_equal(pool_file_count(m->pool, (struct pool_block){0, i}), files[i]);
        assert_int_equal(pool_hold_count(m->pool, (struct pool_block){0, i}), held[i]);
        if (is_free && !m->poisoned[i])
            memcpy(pool_bytes(m, i), poison, sizeof(poison));
        else if (is_free && thorough)
            assert_memory_equal(pool_bytes(m, i), poison, sizeof(poison));
        m->poisoned[i] = is_free;
    }
}

static inline void model_check(struct model *m)
{
    uint32_t files[POOL_BLOCKS] = {0}, held[POOL_BLOCKS] = {0};

    for (uint32_t i = 0; i < POOL_BLOCKS; i++)
        files[i] = m->ballast[i];
    for (unsigned i = 0; i < FILES; i++)
        check_file(m, &m->files[i], files);
    check_holds(m, held);
    check_free_blocks(m, files, held);
    assert_int_equal(pool_check(m->pool), 0);
}

/* ---- forecasts ---- */

static inline void forecast_start(struct forecast *fc, const struct model *m)
{
    memset(fc, 0, sizeof(*fc));
    for (uint32_t i = 0; i < POOL_BLOCKS; i++) {
        fc->files[i] = pool_file_count(m->pool, (struct pool_block){0, i});
        fc->held[i] = pool_hold_count(m->pool, (struct pool_block){0, i});
    }
    for (unsigned i = 0; i < FILES; i++)
        for (unsigned b = 0; b < FILE_BLOCKS; b++)
            fc->view[i][b] = view_of(&m->files[i], b);
    fc->n_free = (uint32_t)pool_free_blocks(m->pool);
}

static inline bool is_held(const struct forecast *fc, struct block_view v)
{
    return v.kind != PIECE_HOLE && fc->held[v.index];
}

/* A written block that a store has to copy. */
static inline bool must_copy(const struct forecast *fc, struct block_view v)
{
    return v.kind == PIECE_WRITTEN && (fc->files[v.index] > 1 || fc->held[v.index]);
}

static inline void drop_block(struct forecast *fc, struct block_view *v)
{
    if (v->kind != PIECE_HOLE && --fc->files[v->index] == 0 && !fc->held[v->index])
        fc->n_free++;
    v->kind = PIECE_HOLE;
}

/* The file gets another block there, whose bytes are copied when there were any. false: there is none. */
static inline bool take_block(struct forecast *fc, struct block_view *v, enum piece_kind kind)
{
    if (fc->n_free == 0)
        return false;
    fc->n_free--;
    drop_block(fc, v);
    *v = (struct block_view){kind, POOL_BLOCKS + fc->n_new++};
    assert_true(v->index < 2 * POOL_BLOCKS);
    fc->files[v->index] = 1;
    return true;
}

static inline bool copy_if_needed(struct forecast *fc, struct block_view *v)
{
    return !must_copy(fc, *v) || take_block(fc, v, PIECE_WRITTEN);
}

static inline bool store_block(struct forecast *fc, struct block_view *v)
{
    if (v->kind == PIECE_HOLE)
        return take_block(fc, v, PIECE_WRITTEN);
    if (!copy_if_needed(fc, v))
        return false;
    v->kind = PIECE_WRITTEN;
    return true;
}

/* Bytes that a remote writer has left behind the end of file, when the size becomes `end`. */
static inline bool grow_to(struct forecast *fc, const struct model *m, const struct model_file *f, uint64_t end)
{
    struct block_view *v = &fc->view[f - m->files][f->size / BLOCK];
    const uint8_t *bytes;

    if (end <= f->size || !in_last_block(f->size) || v->kind != PIECE_WRITTEN)
        return true;
    bytes = pool_bytes(m, v->index);
    for (uint64_t i = in_last_block(f->size); i < BLOCK; i++)
        if (bytes[i])
            return copy_if_needed(fc, v);
    return true;
}

static inline bool to_be_new(const struct forecast *fc, const struct block_view *view, struct blocks b, uint64_t i,
                             enum plan_use use)
{
    bool whole = i >= b.first_whole && i < b.end_whole;

    return view[i].kind == PIECE_HOLE ||
           ((use == PLAN_COPIES || (use == PLAN_ZEROS && whole)) && must_copy(fc, view[i]));
}

/* New blocks, all of them before any is replaced. */
static inline bool take_all(struct forecast *fc, struct block_view *view, struct blocks b, enum plan_use use)
{
    bool new[FILE_BLOCKS] = {0};
    uint32_t need = 0;

    for (uint64_t i = b.first; i < b.end; i++)
        need += new[i] = to_be_new(fc, view, b, i, use);
    if (need > fc->n_free)
        return false;
    fc->n_free -= need;
    for (uint64_t i = b.first; i < b.end; i++)
        if (new[i])
            drop_block(fc, &view[i]); /* may have been the last of a block that the file shares with itself */
    return true;
}

static inline bool own_ends_of(struct forecast *fc, struct block_view *view, struct blocks b)
{
    return (b.first == b.first_whole || copy_if_needed(fc, &view[b.first])) &&
           (b.end_whole == b.end || copy_if_needed(fc, &view[b.end_whole]));
}

#endif
