/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FILE_DATA_PRIVATE_H
#define LEASEFS_FUSED_FILE_DATA_PRIVATE_H

/* A file's bytes from inside: reading and writing in file_data.c, new blocks for a range in file_data_plan.c, fallocate
 * and clones in file_data_space.c, what leases need in file_data_lease.c. */

#include "fused/extent_map.h"
#include "fused/file_data.h"

#define MAX_FILE_SIZE ((uint64_t)INT64_MAX & ~(uint64_t)(POOL_BLOCK_SIZE - 1))

struct file_data {
    struct pool *pool;
    struct space_account *account; /* who pays for map.blocks */
    struct extent_map map;
    uint64_t size;
};

static inline uint64_t block_of(uint64_t offset)
{
    return offset >> POOL_BLOCK_SHIFT;
}

static inline uint64_t blocks_up(uint64_t bytes)
{
    return (bytes + POOL_BLOCK_SIZE - 1) >> POOL_BLOCK_SHIFT;
}

static inline uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What lies at a block: a run of `count` blocks (at most `max`) of one kind. */
struct piece {
    enum piece_kind {
        PIECE_HOLE,
        PIECE_UNWRITTEN, /* always this file's alone: never shared by a clone, never held */
        PIECE_WRITTEN,
    } kind;
    uint64_t count;
    struct pool_block start; /* not of a hole */
};
struct piece piece_at(const struct file_data *data, uint64_t block, uint64_t max);

/* How many blocks from the piece's start are alike: may be changed in place, or may not. */
uint64_t piece_alike(const struct file_data *data, const struct piece *piece, bool *ret_exclusive);

static inline struct pool_block block_plus(struct pool_block block, uint64_t count)
{
    return (struct pool_block){block.segment, block.index + (uint32_t)count};
}

/* How many blocks of a range are holes: what mapping it whole takes of the account; 0 if it has none. */
uint64_t data_holes(const struct file_data *data, uint64_t block, uint64_t count);

/* A run of at most `want` and at least `min` new blocks for `block`, not yet mapped. */
int data_alloc(struct file_data *data, uint64_t block, uint64_t want, uint32_t min, struct pool_block *ret_start,
               uint32_t *ret_count);

/* Maps a new run in place of what was there, whose references are given back. Reserved before; for holes in it the
 * account has been charged. */
void data_replace(struct file_data *data, uint64_t block, struct pool_block start, uint32_t count, bool unwritten);

/* Unmaps whole blocks. -ENOMEM: nothing changed. */
int data_drop(struct file_data *data, uint64_t block, uint64_t count);

/* The blocks of a range of bytes that does not end behind MAX_FILE_SIZE. */
struct blocks {
    uint64_t first, end;             /* touched */
    uint64_t first_whole, end_whole; /* covered; none: first_whole == end_whole */
};
struct blocks blocks_of(uint64_t offset, uint64_t length);

/* New blocks for a range: taken by data_plan(), all or none, with what mapping them needs; mapped by data_plan_map(),
 * which cannot fail and ends the plan. Nothing else changes the file in between. */
enum plan_use {
    PLAN_HOLES,  /* holes become unwritten */
    PLAN_ZEROS,  /* so do, of whole blocks, those that are not the file's alone */
    PLAN_COPIES, /* holes become unwritten, blocks that are not the file's alone are copied */
};
struct data_plan {
    struct planned {
        uint64_t block;
        struct pool_block start;
        uint32_t count;
    } * runs;
    size_t n, room;
    uint64_t charged; /* blocks, to the account */
};
int data_plan(struct file_data *data, struct blocks b, enum plan_use use, struct data_plan *ret_plan);
void data_plan_map(struct file_data *data, struct data_plan *plan, enum plan_use use);

/* Bytes of `count` blocks at `block` of the file into new ones, but for what lies behind the end of file. */
void data_copy_to(const struct file_data *data, uint64_t block, struct pool_block from, struct pool_block to,
                  uint64_t count);

/* Gives the file copies of written blocks of [block, block + count) that `wanted` picks. */
int data_copy_blocks(struct file_data *data, uint64_t block, uint64_t count,
                     bool (*wanted)(const struct file_data *, struct pool_block, const void *), const void *arg);
bool wanted_shared(const struct file_data *data, struct pool_block block, const void *unused); /* not exclusive */
bool wanted_held(const struct file_data *data, struct pool_block block, const void *unused);

/* Zeroes bytes that lie in written blocks; leaves holes and unwritten blocks, which read as zeros. */
int data_zero_written(struct file_data *data, uint64_t offset, uint64_t length);

/* Before the size becomes `end`: bytes behind the old one become part of the file, as zeros. */
int data_before_growth(struct file_data *data, uint64_t end);

/* bytes == NULL: zeros. The size is the caller's business. Bytes done, or an errno before the first. */
int64_t data_store(struct file_data *data, uint64_t offset, const void *bytes, uint64_t length);

#endif
