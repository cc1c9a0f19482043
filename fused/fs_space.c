/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/fs_space.h"

#include <errno.h>

#include "fused/fs_front_door.h"
#include "lease/lock_order.h"

#define MOST_TRIES 16u      /* others may always be quicker */
#define SOON_NS    5000000u /* by then Linux has told of a close(2) */

void space_init(struct fs_space *space)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&space->lock, NULL);
    lock_rank(&space->lock, LOCK_FS_SPACE, 0);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&space->changed, &attr);
    pthread_condattr_destroy(&attr);
}

void space_destroy(struct fs_space *space)
{
    pthread_cond_destroy(&space->changed);
    pthread_mutex_destroy(&space->lock);
}

void fs_set_catch_up(struct fs *fs, void (*catch_up)(void *ctx), void *ctx)
{
    fs->space.catch_up = catch_up;
    fs->space.ctx = ctx;
}

/* ---- giving back ---- */

void space_on_nameless(struct fs *fs, struct fs_inode *inode, bool nameless)
{
    if (inode->type != S_IFREG || inode->nameless == nameless)
        return;
    inode->nameless = nameless;
    if (nameless)
        atomic_fetch_add(&fs->space.nameless, 1);
    else
        atomic_fetch_sub(&fs->space.nameless, 1);
}

void space_giving(struct fs *fs, bool large)
{
    if (!large)
        return;
    pthread_mutex_lock(&fs->space.lock);
    fs->space.giving++;
    pthread_mutex_unlock(&fs->space.lock);
}

void space_given(struct fs *fs, bool large)
{
    atomic_fetch_add(&fs->space.given, 1);
    if (!large && !atomic_load(&fs->space.waiting))
        return;
    pthread_mutex_lock(&fs->space.lock);
    if (large) {
        fs->space.giving--;
        fs->space.ended++;
    }
    pthread_cond_broadcast(&fs->space.changed);
    pthread_mutex_unlock(&fs->space.lock);
}

/* As many as are under way now, and no more: others may follow for ever. */
static void wait_for_large_files(struct fs_space *space)
{
    uint64_t until;

    pthread_mutex_lock(&space->lock);
    until = space->ended + space->giving;
    if (space->giving > 0)
        turn_pass();
    while (space->giving > 0 && space->ended < until)
        pthread_cond_wait(&space->changed, &space->lock);
    pthread_mutex_unlock(&space->lock);
}

void space_settle(struct fs *fs)
{
    lock_none_held();
    if (fs->space.catch_up)
        fs->space.catch_up(fs->space.ctx);
    wait_for_large_files(&fs->space);
}

/* ---- trying again ---- */

struct space_mark space_mark(struct fs *fs)
{
    return (struct space_mark){
        .fences = fs->leases ? lease_space_mark(fs->leases) : 0,
        .given = atomic_load(&fs->space.given),
    };
}

/* Who waits says so before it looks, who gives back gives before it looks for who waits. */
static void wait_a_moment(struct fs_space *space, uint64_t given)
{
    uint64_t until_ns = fs_monotonic_ns() + SOON_NS;
    struct timespec until = {(time_t)(until_ns / 1000000000u), (long)(until_ns % 1000000000u)};

    turn_pass();
    atomic_fetch_add(&space->waiting, 1);
    pthread_mutex_lock(&space->lock);
    while (atomic_load(&space->given) == given &&
           pthread_cond_timedwait(&space->changed, &space->lock, &until) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&space->lock);
    atomic_fetch_sub(&space->waiting, 1);
}

bool space_came(struct fs *fs, struct space_mark *mark)
{
    struct fs_space *space = &fs->space;

    if (mark->tries++ == MOST_TRIES)
        return false;
    space_settle(fs);
    if (atomic_load(&space->given) == mark->given && atomic_load(&space->nameless) > 0)
        wait_a_moment(space, mark->given);
    if (atomic_load(&space->given) == mark->given)
        return false;
    mark->given = atomic_load(&space->given);
    return true;
}

static bool fence_ended(struct fs *fs, struct space_mark *mark, struct lease_waiter *waiter, int64_t *result)
{
    uint64_t tried = mark->fences;

    if (!fs->leases)
        return false;
    mark->fences = lease_space_mark(fs->leases);
    *result = lease_space_wait(fs->leases, tried, fs_monotonic_ns(), waiter);
    return *result == 0;
}

bool space_again(struct fs *fs, struct space_mark *mark, struct lease_waiter *waiter, int64_t *result)
{
    return *result == -ENOSPC && (space_came(fs, mark) || fence_ended(fs, mark, waiter, result));
}
