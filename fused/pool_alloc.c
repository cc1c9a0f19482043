/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finding free blocks. In this order: right behind the goal, so that a file stays in one piece; for large requests,
 * whole free 2 MiB chunks at the place in them that the file's offset has, so that huge pages line up; the first run
 * that is long enough; the longest there is.
 *
 * A group's `longest` says where looking is in vain. It is lowered by who has looked at all of the group, and raised by
 * who frees blocks, so a pool in pieces is not searched again for each of them.
 */
#include <errno.h>

#include "fused/pool_private.h"

struct run {
    uint32_t at, count; /* numbered within the group */
};

#define LARGE (POOL_HUGE_BLOCKS / 4)

uint32_t group_run_at(const struct pool_group *group, uint32_t at, uint32_t want)
{
    uint32_t count = 0;

    while (count < want && at + count < group->blocks) {
        uint32_t here = at + count;
        uint64_t word = group->taken[here / 64] >> (here % 64);
        uint32_t in_word = 64 - here % 64, free_bits = word ? (uint32_t)__builtin_ctzll(word) : in_word;

        count += free_bits < in_word ? free_bits : in_word;
        if (free_bits < in_word)
            break;
    }
    if (count > want)
        count = want;
    return at + count > group->blocks ? group->blocks - at : count;
}

uint32_t group_run_before(const struct pool_group *group, uint32_t at)
{
    uint32_t count = 0;

    while (count < at) {
        uint32_t last = at - count - 1, in_word = last % 64 + 1;
        uint64_t word = group->taken[last / 64] << (64 - in_word);
        uint32_t free_bits = word ? (uint32_t)__builtin_clzll(word) : in_word;

        count += free_bits < in_word ? free_bits : in_word;
        if (free_bits < in_word)
            break;
    }
    return count;
}

static uint32_t longest_of(const struct pool_group *group)
{
    return atomic_load_explicit(&group->longest, memory_order_relaxed);
}

/* A run that starts in a wholly free chunk, at the same place in it as the file's block in its own. */
static struct run find_congruent(const struct pool_group *group, uint32_t want, uint32_t offset)
{
    struct run best = {0};

    for (uint32_t chunk = 0; chunk * POOL_HUGE_BLOCKS < group->blocks; chunk++) {
        uint32_t at = chunk * POOL_HUGE_BLOCKS + offset, count;

        if (group->chunk_free[chunk] < POOL_HUGE_BLOCKS)
            continue;
        count = group_run_at(group, at, want);
        if (count > best.count)
            best = (struct run){at, count};
        if (count == want)
            break;
        chunk += count / POOL_HUGE_BLOCKS; /* nothing that starts inside is longer */
    }
    return best;
}

static struct run find_any(const struct pool_group *group, uint32_t want)
{
    struct run best = {0};
    uint32_t at = 0;

    while (at < group->blocks) {
        uint32_t count;

        if (!group->chunk_free[at / POOL_HUGE_BLOCKS]) {
            at = (at / POOL_HUGE_BLOCKS + 1) * POOL_HUGE_BLOCKS;
            continue;
        }
        if (group->taken[at / 64] == UINT64_MAX) {
            at = (at / 64 + 1) * 64;
            continue;
        }
        count = group_run_at(group, at, want);
        if (count > best.count)
            best = (struct run){at, count};
        if (count == want)
            break;
        at += count + 1; /* what ended the run is taken */
    }
    return best;
}

static void take(struct pool *pool, struct pool_group *group, struct run run, struct pool_block *ret_start,
                 uint32_t *ret_count)
{
    group_mark(group, run.at, run.count, true);
    for (uint32_t i = 0; i < run.count; i++)
        atomic_store_explicit(&pool->files[group->first + run.at + i], 1, memory_order_relaxed);
    *ret_start = (struct pool_block){0, group->first + run.at};
    *ret_count = run.count;
}

static bool take_at_goal(struct pool *pool, uint32_t goal, uint32_t want, uint32_t min, struct pool_block *ret_start,
                         uint32_t *ret_count)
{
    struct pool_group *group;
    struct run run;

    if (goal == 0 || goal >= pool->blocks) /* 0: no goal */
        return false;
    group = group_of(pool, goal);
    run.at = goal - group->first;
    pthread_mutex_lock(&group->lock);
    run.count = group_taken(group, run.at) ? 0 : group_run_at(group, run.at, want);
    if (run.count >= min && run.count)
        take(pool, group, run, ret_start, ret_count);
    pthread_mutex_unlock(&group->lock);
    return run.count >= min && run.count;
}

static bool take_congruent(struct pool *pool, struct pool_group *group, uint32_t want, uint32_t min, uint32_t offset,
                           struct pool_block *ret_start, uint32_t *ret_count)
{
    struct run run;

    if (longest_of(group) < POOL_HUGE_BLOCKS)
        return false;
    pthread_mutex_lock(&group->lock);
    run = find_congruent(group, want, offset);
    if (run.count >= min)
        take(pool, group, run, ret_start, ret_count);
    pthread_mutex_unlock(&group->lock);
    return run.count >= min;
}

/* As many as the group's longest run is said to have; false: it has none such, and says so now. */
static bool take_in_group(struct pool *pool, struct pool_group *group, uint32_t want, uint32_t min,
                          struct pool_block *ret_start, uint32_t *ret_count)
{
    struct run run = {0};
    uint32_t longest;
    bool found;

    pthread_mutex_lock(&group->lock);
    longest = longest_of(group); /* may have changed since it was promising */
    if (want > longest)
        want = longest;
    if (want >= min)
        run = find_any(group, want);
    found = want >= min && run.count == want;
    if (found)
        take(pool, group, run, ret_start, ret_count);
    else if (want >= min)
        atomic_store_explicit(&group->longest, run.count, memory_order_relaxed);
    pthread_mutex_unlock(&group->lock);
    return found;
}

/* The first group from there on that may have `want` blocks in a run, else the one that may have most. */
static uint32_t most_promising(const struct pool *pool, uint32_t from, uint32_t want)
{
    uint32_t best = from;

    for (uint32_t i = 0; i < pool->n_groups; i++) {
        uint32_t n = (from + i) % pool->n_groups, longest = longest_of(&pool->groups[n]);

        if (longest >= want)
            return n;
        if (longest > longest_of(&pool->groups[best]))
            best = n;
    }
    return best;
}

int pool_alloc(struct pool *pool, uint32_t want, uint32_t min, struct pool_block goal, uint64_t file_block,
               struct pool_block *ret_start, uint32_t *ret_count)
{
    uint32_t offset = (uint32_t)(file_block % POOL_HUGE_BLOCKS), from, n;

    if (want == 0 || min == 0 || min > want)
        return -EINVAL;
    if (take_at_goal(pool, goal.index, want, min, ret_start, ret_count))
        return 0;
    from = goal.index && goal.index < pool->blocks ? goal.index / GROUP_BLOCKS
                                                   : atomic_load_explicit(&pool->next_group, memory_order_relaxed);
    for (uint32_t i = 0; want >= LARGE && i < pool->n_groups; i++) {
        n = (from + i) % pool->n_groups;
        if (take_congruent(pool, &pool->groups[n], want, min, offset, ret_start, ret_count))
            goto found;
    }
    do { /* each turn in vain makes one group less promising */
        n = most_promising(pool, from, want);
        if (longest_of(&pool->groups[n]) < min)
            return -ENOSPC;
    } while (!take_in_group(pool, &pool->groups[n], want, min, ret_start, ret_count));
found:
    atomic_store_explicit(&pool->next_group, n, memory_order_relaxed);
    return 0;
}

int pool_alloc_in_huge_page(struct pool *pool, uint32_t count, uint64_t file_block, struct pool_block *ret_start)
{
    uint32_t offset = (uint32_t)(file_block % POOL_HUGE_BLOCKS), got;

    if (count == 0 || count > POOL_HUGE_BLOCKS - offset)
        return -EINVAL;
    for (uint32_t i = 0; i < pool->n_groups; i++) {
        struct pool_group *group = &pool->groups[i];
        uint32_t at = offset;

        if (longest_of(group) < count)
            continue;
        pthread_mutex_lock(&group->lock);
        while (at < group->blocks && group_run_at(group, at, count) < count)
            at += POOL_HUGE_BLOCKS;
        if (at < group->blocks)
            take(pool, group, (struct run){at, count}, ret_start, &got);
        pthread_mutex_unlock(&group->lock);
        if (at < group->blocks)
            return 0;
    }
    return -ENOSPC;
}
