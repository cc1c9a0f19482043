/* SPDX-License-Identifier: BSD-2-Clause */
/* Who refers to which block, and when it is free. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fused/pool_private.h"
#include "lease/lock_order.h"

/* Who finds a block to be his alone changes it: after all that others did before they let it go. */
#define READ(array, block)       atomic_load_explicit(&(array)[block], memory_order_acquire)
#define SET(array, block, value) atomic_store_explicit(&(array)[block], value, memory_order_release)

#define BLOCKS_OF_A_TURN 4096u /* a part of a group: its lock is held for so many at most */
_Static_assert(GROUP_BLOCKS % BLOCKS_OF_A_TURN == 0, "a turn lies in one group");

int pool_groups_new(struct pool *pool)
{
    pool->n_groups = (pool->blocks + GROUP_BLOCKS - 1) / GROUP_BLOCKS;
    pool->files = calloc(pool->blocks, sizeof(*pool->files));
    pool->holds = calloc(pool->blocks, sizeof(*pool->holds));
    pool->groups = calloc(pool->n_groups, sizeof(*pool->groups));
    if (!pool->files || !pool->holds || !pool->groups)
        return -ENOMEM;
    for (uint32_t i = 0; i < pool->n_groups; i++) {
        struct pool_group *group = &pool->groups[i];

        pthread_mutex_init(&group->lock, NULL);
        lock_rank(&group->lock, LOCK_POOL_GROUP, 0);
        group->first = i * GROUP_BLOCKS;
        group->blocks = pool->blocks - group->first < GROUP_BLOCKS ? pool->blocks - group->first : GROUP_BLOCKS;
        for (uint32_t at = 0; at < GROUP_BLOCKS; at++) {
            if (at < group->blocks)
                group->chunk_free[at / POOL_HUGE_BLOCKS]++;
            else
                group->taken[at / 64] |= 1ull << (at % 64);
        }
        atomic_init(&group->n_free, group->blocks);
        atomic_init(&group->longest, group->blocks);
    }
    return 0;
}

void pool_groups_free(struct pool *pool)
{
    for (uint32_t i = 0; pool->groups && i < pool->n_groups; i++)
        pthread_mutex_destroy(&pool->groups[i].lock);
    free(pool->groups);
    free(pool->holds);
    free(pool->files);
}

void group_mark(struct pool_group *group, uint32_t at, uint32_t count, bool taken)
{
    uint32_t end = at + count;

    if (taken)
        atomic_fetch_sub_explicit(&group->n_free, count, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&group->n_free, count, memory_order_relaxed);
    while (at < end) {
        uint32_t bit = at % 64, n = end - at < 64 - bit ? end - at : 64 - bit;
        uint64_t mask = (n == 64 ? UINT64_MAX : (1ull << n) - 1) << bit;

        if (taken) {
            group->taken[at / 64] |= mask;
            group->chunk_free[at / POOL_HUGE_BLOCKS] -= (uint16_t)n;
        } else {
            group->taken[at / 64] &= ~mask;
            group->chunk_free[at / POOL_HUGE_BLOCKS] += (uint16_t)n;
        }
        at += n;
    }
}

/* Blocks without any reference left. */
static void set_free(struct pool_group *group, uint32_t at, uint32_t count)
{
    uint32_t run;

    if (count == 0)
        return;
    group_mark(group, at, count, false);
    run = group_run_before(group, at) + group_run_at(group, at, GROUP_BLOCKS);
    if (run > atomic_load_explicit(&group->longest, memory_order_relaxed))
        atomic_store_explicit(&group->longest, run, memory_order_relaxed);
}

/* With the group's lock held: sets both counts of a block and keeps the sums true. Is the block to be set free? */
static bool set_counts(struct pool *pool, struct pool_group *group, uint32_t block, uint32_t files, uint32_t holds)
{
    uint32_t old_files = READ(pool->files, block), old_holds = READ(pool->holds, block);

    group->held += (holds > 0) - (old_holds > 0);
    group->orphaned += (holds > 0 && files == 0) - (old_holds > 0 && old_files == 0);
    SET(pool->files, block, files);
    SET(pool->holds, block, holds);
    return !files && !holds; /* I1: free only now */
}

enum which {
    FILES,
    HOLDS,
};

/* The same for [start, end) of one group, under its lock. Where it stopped. */
static uint32_t change_in_group(struct pool *pool, struct pool_group *group, uint32_t start, uint32_t end,
                                enum which which, int by)
{
    uint32_t block, freed = 0; /* the last `freed` blocks */

    pthread_mutex_lock(&group->lock);
    for (block = start; block < end; block++) {
        uint32_t files = READ(pool->files, block), holds = READ(pool->holds, block);
        uint32_t *value = which == FILES ? &files : &holds;

        if (*value == (by > 0 ? UINT32_MAX : 0) || (!files && !holds))
            break;
        *value += (uint32_t)by;
        if (set_counts(pool, group, block, files, holds)) {
            freed++;
            continue;
        }
        set_free(group, block - freed - group->first, freed);
        freed = 0;
    }
    set_free(group, block - freed - group->first, freed);
    pthread_mutex_unlock(&group->lock);
    return block;
}

/* Adds `by` (1 or -1) to a count of [start, start + count); stops before a count that cannot change. Returns how many
 * blocks were changed. Others get their turn in between: a file may be huge. */
static uint32_t change(struct pool *pool, uint32_t start, uint32_t count, enum which which, int by)
{
    uint32_t at = start, end = start + count;

    while (at < end) {
        uint32_t turn = (at / BLOCKS_OF_A_TURN + 1) * BLOCKS_OF_A_TURN, stop = turn < end ? turn : end;

        at = change_in_group(pool, group_of(pool, at), at, stop, which, by);
        if (at < stop)
            break;
    }
    return at - start;
}

static int get(struct pool *pool, struct pool_block start, uint32_t count, enum which which)
{
    uint32_t done = change(pool, start.index, count, which, 1);

    if (done == count)
        return 0;
    change(pool, start.index, done, which, -1);
    return -EOVERFLOW;
}

static void put(struct pool *pool, struct pool_block start, uint32_t count, enum which which)
{
    if (change(pool, start.index, count, which, -1) == count)
        return;
    /* Somebody gives back what nobody has: going on would free another file's blocks. */
    fprintf(stderr, "leasefs: pool: a reference was given back twice near block %u\n", start.index);
    abort();
}

int pool_get_file(struct pool *pool, struct pool_block start, uint32_t count)
{
    return get(pool, start, count, FILES);
}

void pool_put_file(struct pool *pool, struct pool_block start, uint32_t count)
{
    put(pool, start, count, FILES);
}

int pool_get_hold(struct pool *pool, struct pool_block start, uint32_t count)
{
    return get(pool, start, count, HOLDS);
}

void pool_put_hold(struct pool *pool, struct pool_block start, uint32_t count)
{
    put(pool, start, count, HOLDS);
}

bool pool_exclusive(const struct pool *pool, struct pool_block block)
{
    return READ(pool->files, block.index) == 1 && READ(pool->holds, block.index) == 0;
}

uint32_t pool_file_count(const struct pool *pool, struct pool_block block)
{
    return READ(pool->files, block.index);
}

uint32_t pool_hold_count(const struct pool *pool, struct pool_block block)
{
    return READ(pool->holds, block.index);
}

void pool_usage(const struct pool *pool, struct pool_usage *ret_usage)
{
    struct pool_usage usage = {.total = pool->blocks};

    for (uint32_t i = 0; i < pool->n_groups; i++) {
        struct pool_group *group = &pool->groups[i];

        pthread_mutex_lock(&group->lock);
        usage.free += atomic_load(&group->n_free);
        usage.held += group->held;
        usage.orphaned += group->orphaned;
        pthread_mutex_unlock(&group->lock);
    }
    *ret_usage = usage;
}

uint64_t pool_free_blocks(const struct pool *pool)
{
    uint64_t n_free = 0;

    for (uint32_t i = 0; i < pool->n_groups; i++)
        n_free += atomic_load_explicit(&pool->groups[i].n_free, memory_order_relaxed);
    return n_free;
}

static bool group_valid(struct pool *pool, struct pool_group *group)
{
    uint32_t n_free = 0, held = 0, orphaned = 0, run = 0, longest = 0, chunk_free[GROUP_CHUNKS] = {0};

    for (uint32_t at = 0; at < group->blocks; at++) {
        uint32_t files = READ(pool->files, group->first + at), holds = READ(pool->holds, group->first + at);

        if (group_taken(group, at) != (files || holds))
            return false;
        n_free += !files && !holds;
        run = !files && !holds ? run + 1 : 0;
        longest = run > longest ? run : longest;
        chunk_free[at / POOL_HUGE_BLOCKS] += !files && !holds;
        held += holds > 0;
        orphaned += holds > 0 && !files;
    }
    for (uint32_t i = 0; i < GROUP_CHUNKS; i++)
        if (chunk_free[i] != group->chunk_free[i])
            return false;
    return longest <= atomic_load(&group->longest) && n_free == atomic_load(&group->n_free) && held == group->held &&
           orphaned == group->orphaned;
}

int pool_check(struct pool *pool)
{
    bool valid = true;

    for (uint32_t i = 0; i < pool->n_groups; i++) {
        pthread_mutex_lock(&pool->groups[i].lock);
        if (!group_valid(pool, &pool->groups[i])) {
            fprintf(stderr, "leasefs: pool: group %u: bitmap, sums and counts disagree\n", i);
            valid = false;
        }
        pthread_mutex_unlock(&pool->groups[i].lock);
    }
    return valid ? 0 : -EUCLEAN;
}
