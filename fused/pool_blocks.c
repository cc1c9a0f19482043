/* SPDX-License-Identifier: BSD-2-Clause */
/* Who refers to which block, and when it is free. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fused/pool_private.h"
#include "lease/lock_order.h"

/* Who finds a block to be his alone changes it: after all that others did before they let it go. */
#define READ(array, block)       atomic_load_explicit(&(array)[block], memory_order_acquire)
#define SET(array, block, value) atomic_store_explicit(&(array)[block], value, memory_order_release)

#define MAX_COUNT (UINT32_MAX / 2) /* of a block, and of its chunk: their sum is one, too */

#define BLOCKS_OF_A_TURN 4096u /* a part of a group: its lock is held for so many at most */
_Static_assert(GROUP_BLOCKS % BLOCKS_OF_A_TURN == 0, "a turn lies in one group");

int pool_groups_new(struct pool *pool)
{
    pool->n_groups = (pool->blocks + GROUP_BLOCKS - 1) / GROUP_BLOCKS;
    pool->files = calloc(pool->blocks, sizeof(*pool->files));
    pool->holds = calloc(pool->blocks, sizeof(*pool->holds));
    pool->chunk_holds = calloc((size_t)pool->n_groups * GROUP_CHUNKS, sizeof(*pool->chunk_holds));
    pool->groups = calloc(pool->n_groups, sizeof(*pool->groups));
    if (!pool->files || !pool->holds || !pool->chunk_holds || !pool->groups)
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
    free(pool->chunk_holds);
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

/* ---- counts, with the group's lock held ---- */

/*
 * A hold on a whole chunk is one count of the chunk's, so that a lease of a gibibyte takes 512 steps and not 262,144.
 * Where a part of that is given back, it becomes a count of each block.
 */

static bool chunk_is_held(const struct pool *pool, uint32_t block)
{
    return READ(pool->chunk_holds, block / POOL_HUGE_BLOCKS) > 0;
}

static uint32_t chunk_in_group(const struct pool_group *group, uint32_t block)
{
    return (block - group->first) / POOL_HUGE_BLOCKS;
}

/* Sets both counts of a block and keeps the sums true. Is the block to be set free? */
static bool set_counts(struct pool *pool, struct pool_group *group, uint32_t block, uint32_t files, uint32_t holds)
{
    uint32_t old_files = READ(pool->files, block), old_holds = READ(pool->holds, block);
    uint32_t chunk = chunk_in_group(group, block);
    bool whole = chunk_is_held(pool, block);
    int held = (holds > 0) - (old_holds > 0);
    int orphaned = (files == 0 && (whole || holds > 0)) - (old_files == 0 && (whole || old_holds > 0));

    group->chunk_held[chunk] = (uint16_t)(group->chunk_held[chunk] + held);
    group->chunk_orphaned[chunk] = (uint16_t)(group->chunk_orphaned[chunk] + orphaned);
    group->held += whole ? 0 : (uint32_t)held;
    group->orphaned += (uint32_t)orphaned;
    SET(pool->files, block, files);
    SET(pool->holds, block, holds);
    return !files && !holds && !whole; /* I1: free only now */
}

enum which {
    FILES,
    HOLDS,
};

/* A hold of the whole chunk becomes one of each of its blocks: these first, as others read the counts the other way
 * round. */
static void split_chunk_hold(struct pool *pool, struct pool_group *group, uint32_t block)
{
    uint32_t chunk = block / POOL_HUGE_BLOCKS, at = chunk * POOL_HUGE_BLOCKS, holds = READ(pool->chunk_holds, chunk);

    for (uint32_t end = at + POOL_HUGE_BLOCKS; at < end; at++)
        set_counts(pool, group, at, READ(pool->files, at), READ(pool->holds, at) + 1);
    SET(pool->chunk_holds, chunk, holds - 1); /* all of them are held now as before */
}

/* A hold of each of [start, end), which lie in one chunk, as long as they are in files: whatever becomes of it, they
 * are not free. Where it stopped. */
static uint32_t change_holds_of_files(struct pool *pool, struct pool_group *group, uint32_t start, uint32_t end, int by)
{
    const uint32_t last = by > 0 ? MAX_COUNT : 0, first = by > 0 ? 0 : 1;
    uint32_t block, n = 0, chunk = chunk_in_group(group, start);

    for (block = start; block < end && READ(pool->files, block); block++) {
        uint32_t holds = READ(pool->holds, block);

        if (holds == last)
            break;
        SET(pool->holds, block, holds + (uint32_t)by);
        n += holds == first;
    }
    n = by > 0 ? n : -n;
    group->chunk_held[chunk] = (uint16_t)(group->chunk_held[chunk] + n);
    group->held += chunk_is_held(pool, start) ? 0 : n;
    return block;
}

/* A count of each of [start, end), which lie in one chunk. Where it stopped. */
static uint32_t change_blocks(struct pool *pool, struct pool_group *group, uint32_t start, uint32_t end,
                              enum which which, int by)
{
    uint32_t block, freed = 0; /* the last `freed` blocks */

    if (which == HOLDS)
        start = change_holds_of_files(pool, group, start, end, by);
    for (block = start; block < end; block++) {
        uint32_t files = READ(pool->files, block), holds = READ(pool->holds, block);
        uint32_t *value = which == FILES ? &files : &holds;

        if (which == HOLDS && by < 0 && holds == 0 && chunk_is_held(pool, block)) {
            split_chunk_hold(pool, group, block);
            holds = READ(pool->holds, block);
        }
        if (*value == (by > 0 ? MAX_COUNT : 0) || (!files && !holds && !chunk_is_held(pool, block)))
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
    return block;
}

/* The last hold of a whole chunk is gone: blocks that are in no file and have no hold of their own are free. */
static void free_orphans(struct pool *pool, struct pool_group *group, uint32_t start)
{
    uint32_t chunk = chunk_in_group(group, start), at = start - group->first;

    for (uint32_t i = 0, freed = 0; i <= POOL_HUGE_BLOCKS; i++) {
        if (i < POOL_HUGE_BLOCKS && !READ(pool->files, start + i) && !READ(pool->holds, start + i)) {
            freed++;
            continue;
        }
        set_free(group, at + i - freed, freed);
        group->chunk_orphaned[chunk] = (uint16_t)(group->chunk_orphaned[chunk] - freed);
        group->orphaned -= freed;
        freed = 0;
    }
}

/* Holds of the whole chunk that begins at `start`. False: it cannot be done so. */
static bool change_chunk(struct pool *pool, struct pool_group *group, uint32_t start, int by)
{
    uint32_t chunk = start / POOL_HUGE_BLOCKS, in_group = chunk_in_group(group, start);
    uint32_t holds = READ(pool->chunk_holds, chunk), others = POOL_HUGE_BLOCKS - group->chunk_held[in_group];

    if (by > 0 ? holds == MAX_COUNT || group->chunk_free[in_group] : holds == 0)
        return false;
    SET(pool->chunk_holds, chunk, holds + (uint32_t)by);
    if (by > 0 && holds == 0)
        group->held += others;
    if (by < 0 && holds == 1) {
        group->held -= others;
        if (group->chunk_orphaned[in_group])
            free_orphans(pool, group, start);
    }
    return true;
}

/* A count of each of [start, end), which lie in one group; takes its lock. Where it stopped. */
static uint32_t change_in_group(struct pool *pool, struct pool_group *group, uint32_t start, uint32_t end,
                                enum which which, int by)
{
    uint32_t at = start;

    pthread_mutex_lock(&group->lock);
    while (at < end) {
        uint32_t chunk_end = (at / POOL_HUGE_BLOCKS + 1) * POOL_HUGE_BLOCKS, stop = chunk_end < end ? chunk_end : end;

        if (which == HOLDS && stop - at == POOL_HUGE_BLOCKS && change_chunk(pool, group, at, by)) {
            at = stop;
            continue;
        }
        at = change_blocks(pool, group, at, stop, which, by);
        if (at < stop)
            break;
    }
    pthread_mutex_unlock(&group->lock);
    return at;
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
    return READ(pool->files, block.index) == 1 && pool_hold_count(pool, block) == 0;
}

uint32_t pool_file_count(const struct pool *pool, struct pool_block block)
{
    return READ(pool->files, block.index);
}

uint32_t pool_hold_count(const struct pool *pool, struct pool_block block)
{
    uint32_t chunk = READ(pool->chunk_holds, block.index / POOL_HUGE_BLOCKS); /* first: see split_chunk_hold() */

    return chunk + READ(pool->holds, block.index);
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
    uint32_t n_free = 0, held = 0, orphaned = 0, run = 0, longest = 0;
    uint16_t chunk_free[GROUP_CHUNKS] = {0}, chunk_held[GROUP_CHUNKS] = {0}, chunk_orphaned[GROUP_CHUNKS] = {0};

    for (uint32_t at = 0; at < group->blocks; at++) {
        uint32_t block = group->first + at, chunk = at / POOL_HUGE_BLOCKS;
        bool files = READ(pool->files, block), own = READ(pool->holds, block),
             holds = own || chunk_is_held(pool, block);

        if (group_taken(group, at) != (files || holds))
            return false;
        n_free += !files && !holds;
        run = !files && !holds ? run + 1 : 0;
        longest = run > longest ? run : longest;
        held += holds;
        orphaned += holds && !files;
        chunk_free[chunk] += !files && !holds;
        chunk_held[chunk] += own;
        chunk_orphaned[chunk] += holds && !files;
    }
    return longest <= atomic_load(&group->longest) && n_free == atomic_load(&group->n_free) && held == group->held &&
           orphaned == group->orphaned && !memcmp(chunk_free, group->chunk_free, sizeof(chunk_free)) &&
           !memcmp(chunk_held, group->chunk_held, sizeof(chunk_held)) &&
           !memcmp(chunk_orphaned, group->chunk_orphaned, sizeof(chunk_orphaned));
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
