/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/fs_space.h"

#include <errno.h>

#include "fused/fs_front_door.h"
#include "lease/lock_order.h"

#define MOST_TRIES 16u        /* others may always be quicker */
#define LONG_NS    200000000u /* by then Linux has told of a close(2), whatever else the machine is doing */
#define SHORT_NS   5000000u   /* the same, where a file is most likely still open */

void space_init(struct fs_space *space)
{
    pthread_mutex_init(&space->lock, NULL);
    lock_rank(&space->lock, LOCK_FS_SPACE, 0);
    pthread_cond_init(&space->changed, NULL);
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
    if (nameless) {
        atomic_fetch_add(&fs->space.nameless, 1);
        atomic_fetch_add(&fs->space.changes, 1);
    } else {
        atomic_fetch_sub(&fs->space.nameless, 1);
    }
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
    if (large) {
        pthread_mutex_lock(&fs->space.lock);
        fs->space.giving--;
        fs->space.ended++;
        pthread_cond_broadcast(&fs->space.changed);
        pthread_mutex_unlock(&fs->space.lock);
    }
    if (fs->leases)
        lease_space_came(fs->leases);
}

/* As many as are under way now, and no more: others may follow for ever. */
static void wait_for_large_files(struct fs_space *space)
{
    uint64_t until;

    pthread_mutex_lock(&space->lock);
    until = space->ended + space->giving;
    while (space->giving > 0 && space->ended < until)
        pthread_cond_wait(&space->changed, &space->lock);
    pthread_mutex_unlock(&space->lock);
}

void space_settle(struct fs *fs)
{
    lock_none_held();
    if (fs->space.catch_up)
        fs->space.catch_up(fs->space.ctx);
    if (atomic_load(&fs->space.giving) == 0)
        return;
    turn_pass(); /* others are served meanwhile */
    wait_for_large_files(&fs->space);
}

/* ---- trying again ---- */

struct space_mark space_mark(struct fs *fs)
{
    return (struct space_mark){
        .comes = fs->leases ? lease_space_mark(fs->leases) : 0,
        .given = atomic_load(&fs->space.given),
    };
}

bool space_came(struct fs *fs, struct space_mark *mark)
{
    uint64_t given;

    if (mark->tries++ == MOST_TRIES)
        return false;
    space_settle(fs);
    given = atomic_load(&fs->space.given);
    if (given == mark->given)
        return false;
    mark->given = given;
    return true;
}

/* Of the last close(2) of a file without a name. Long only once for the same files: they may stay open, and every full
 * write would take that long. */
static uint64_t expect_ns(struct fs_space *space, uint64_t changes)
{
    if (!atomic_load(&space->nameless))
        return 0;
    return changes == atomic_load(&space->in_vain) ? SHORT_NS : LONG_NS;
}

static bool wait_for_some(struct fs *fs, struct space_mark *mark, struct lease_waiter *waiter, int64_t *result)
{
    uint64_t tried = mark->comes, changes = atomic_load(&fs->space.changes), now_ns = fs_monotonic_ns();
    int waited;

    if (!fs->leases)
        return false;
    mark->comes = lease_space_mark(fs->leases);
    waited = lease_space_wait(fs->leases, tried, expect_ns(&fs->space, changes), now_ns, waiter);
    if (waited == -ENOSPC) {
        if (waiter && waiter->space_expected_until_ns)
            atomic_store(&fs->space.in_vain, changes);
        return false; /* and the result stays */
    }
    *result = waited;
    return waited == 0;
}

bool space_again(struct fs *fs, struct space_mark *mark, struct lease_waiter *waiter, int64_t *result)
{
    return (*result == -ENOSPC || *result == -EDQUOT) &&
           (space_came(fs, mark) || wait_for_some(fs, mark, waiter, result));
}
