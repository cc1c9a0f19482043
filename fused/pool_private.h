/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_POOL_PRIVATE_H
#define LEASEFS_FUSED_POOL_PRIVATE_H

/* The pool from inside: memory in pool.c, who refers to which block in pool_blocks.c, finding free ones in
 * pool_alloc.c. */

#include <pthread.h>
#include <stdatomic.h>

#include "fused/pool.h"

#define GROUP_CHUNKS 64u /* 128 MiB */
#define GROUP_BLOCKS (GROUP_CHUNKS * POOL_HUGE_BLOCKS)
#define GROUP_WORDS  (GROUP_BLOCKS / 64)

/* Free space of GROUP_BLOCKS blocks. All but n_free and longest (read without the lock as hints) is guarded by lock. */
struct pool_group {
    pthread_mutex_t lock;
    uint32_t first, blocks; /* block numbers; the last group may be short */
    _Atomic uint32_t n_free;
    _Atomic uint32_t longest;          /* no free run is longer; that there is such a run, only looking tells */
    uint32_t held, orphaned;           /* blocks with holds; of those, in no file */
    uint16_t chunk_free[GROUP_CHUNKS]; /* per 2 MiB */
    uint16_t chunk_held[GROUP_CHUNKS]; /* blocks with holds of their own */
    uint16_t chunk_orphaned[GROUP_CHUNKS];
    uint64_t taken[GROUP_WORDS]; /* a bit a block; bits behind the end are set */
};

struct pool {
    int fd;
    uint8_t *base;
    uint64_t size;
    size_t page_size;
    uint32_t blocks, n_groups;
    _Atomic uint32_t next_group;     /* where the next file without a goal starts to look */
    _Atomic uint32_t *files, *holds; /* per block */
    _Atomic uint32_t *chunk_holds;   /* per chunk: of all its blocks, beside their own */
    struct pool_group *groups;
};

static inline struct pool_group *group_of(const struct pool *pool, uint32_t block)
{
    return &pool->groups[block / GROUP_BLOCKS];
}

static inline bool group_taken(const struct pool_group *group, uint32_t at)
{
    return group->taken[at / 64] >> (at % 64) & 1;
}

/* With the group's lock held: marks a run of blocks, numbered within the group. */
void group_mark(struct pool_group *group, uint32_t at, uint32_t count, bool taken);

/* With the group's lock held: a free run of `want` blocks, or a shorter one. */
uint32_t group_run_at(const struct pool_group *group, uint32_t at, uint32_t want);
uint32_t group_run_before(const struct pool_group *group, uint32_t at);

int pool_groups_new(struct pool *pool);
void pool_groups_free(struct pool *pool);

#endif
