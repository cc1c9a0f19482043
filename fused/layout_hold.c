/* SPDX-License-Identifier: BSD-2-Clause */
/* The blocks under leases. A hold is a reference on blocks, not on the file's map: the file may lose or replace its
 * blocks under a hold (that is detach), and the hold keeps what it has. */
#include <errno.h>
#include <stdlib.h>

#include "fused/layout_private.h"

struct layout_hold {
    struct fs_inode *inode; /* referenced */
    struct lease_range range;
    enum lease_mode mode;
    struct layout_run *runs; /* owned */
    size_t n_runs;
    bool detached;
};

static int take_locked(struct layout_hold *hold, struct layout_problem *problem)
{
    struct fs_inode *inode = hold->inode;
    int err;

    *problem = file_data_eligible(inode->data, hold->range, hold->mode == LEASE_WRITE);
    if (problem->kind != LAYOUT_OK)
        return -EPERM;
    err = file_data_hold(inode->data, hold->range, &hold->runs, &hold->n_runs);
    if (err)
        return err;
    inode->holds++;
    if (hold->mode == LEASE_WRITE)
        inode->write_holds++;
    return 0;
}

int layout_hold(void *arg, uint64_t ino, struct lease_range range, enum lease_mode mode, struct layout_hold **ret_hold,
                const struct layout_run **ret_runs, size_t *ret_n_runs, struct layout_problem *problem)
{
    struct fs *fs = arg;
    struct layout_hold *hold;
    int err;

    if (!range_valid(range) || range.length == 0)
        return -EINVAL;
    if (mode == LEASE_WRITE && fs->read_only)
        return -EROFS;
    hold = calloc(1, sizeof(*hold));
    if (!hold)
        return -ENOMEM;
    hold->range = range;
    hold->mode = mode;
    err = inode_get_type(fs, ino, S_IFREG, &hold->inode);
    if (err)
        goto undo_alloc;
    inode_lock(hold->inode);
    err = take_locked(hold, problem);
    inode_unlock(hold->inode);
    if (err)
        goto undo_inode;
    *ret_hold = hold;
    *ret_runs = hold->runs;
    *ret_n_runs = hold->n_runs;
    return 0;

undo_inode:
    inode_put(fs, hold->inode);
undo_alloc:
    free(hold);
    return err;
}

static int hold_runs(struct pool *pool, const struct layout_run *runs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct pool_block start = {runs[i].segment, (uint32_t)(runs[i].offset >> POOL_BLOCK_SHIFT)};
        int err = pool_get_hold(pool, start, (uint32_t)(runs[i].length >> POOL_BLOCK_SHIFT));

        if (err) {
            file_data_put_runs(pool, runs, i);
            return err;
        }
    }
    return 0;
}

/* The pieces of the runs of `of` that lie in the range. There is room for as many as it has. */
static size_t slice(const struct layout_hold *of, struct lease_range range, struct layout_run *runs)
{
    uint64_t at = of->range.offset;
    size_t n = 0;

    for (size_t i = 0; i < of->n_runs; i++) {
        struct lease_range common = range_common((struct lease_range){at, of->runs[i].length}, range);

        if (common.length)
            runs[n++] =
                (struct layout_run){of->runs[i].segment, of->runs[i].offset + (common.offset - at), common.length};
        at += of->runs[i].length;
    }
    return n;
}

int layout_hold_part(void *arg, struct layout_hold *of, struct lease_range range, enum lease_mode mode,
                     struct layout_hold **ret_hold, const struct layout_run **ret_runs, size_t *ret_n_runs)
{
    struct fs *fs = arg;
    struct layout_hold *hold;
    int err = -ENOMEM;

    if (!range.length || !range_contains(of->range, range) || (mode == LEASE_WRITE && of->mode != LEASE_WRITE))
        return -EINVAL;
    hold = calloc(1, sizeof(*hold));
    if (!hold)
        return -ENOMEM;
    *hold = (struct layout_hold){.inode = of->inode, .range = range, .mode = mode};
    hold->runs = calloc(of->n_runs, sizeof(*hold->runs));
    if (!hold->runs)
        goto undo;
    hold->n_runs = slice(of, range, hold->runs);
    inode_lock(hold->inode);
    if (of->mode == LEASE_WRITE && mode == LEASE_READ)
        file_data_zero_held_slack(of->inode->data, hold->runs, hold->n_runs);
    err = hold_runs(fs->pool, hold->runs, hold->n_runs);
    if (!err) {
        inode_ref(hold->inode);
        hold->inode->holds++;
        hold->inode->write_holds += mode == LEASE_WRITE;
    }
    inode_unlock(hold->inode);
    if (err)
        goto undo;
    *ret_hold = hold;
    *ret_runs = hold->runs;
    *ret_n_runs = hold->n_runs;
    return 0;

undo:
    free(hold->runs);
    free(hold);
    return err;
}

/* The holder may have written behind the end of file. Those bytes must be zeros before anything makes them part of
 * the file; until the fence the peer could have written them again. */
static void clear_slack(struct fs_inode *inode, struct lease_range range)
{
    uint64_t size = file_data_size(inode->data);

    if (size > range.offset && size < range_end(range))
        (void)file_data_set_size(inode->data, size);
}

void layout_release(void *arg, struct layout_hold *hold)
{
    struct fs *fs = arg;
    struct fs_inode *inode = hold->inode;

    inode_lock(inode);
    file_data_put_runs(fs->pool, hold->runs, hold->n_runs);
    inode->holds--;
    if (hold->mode == LEASE_WRITE) {
        inode->write_holds--;
        clear_slack(inode, hold->range);
    }
    inode_unlock(inode);
    if (hold->detached)
        atomic_fetch_sub(&fs->quarantined_bytes, hold->range.length);
    inode_put(fs, inode);
    free(hold->runs);
    free(hold);
}

int layout_detach(void *arg, struct layout_hold *hold)
{
    struct fs *fs = arg;
    int err;

    inode_lock(hold->inode);
    err = file_data_detach(hold->inode->data, hold->range, hold->runs, hold->n_runs);
    inode_unlock(hold->inode);
    if (!err && !hold->detached) {
        hold->detached = true;
        atomic_fetch_add(&fs->quarantined_bytes, hold->range.length);
    }
    return err;
}

/* Counts only fall here: a block that no file has can get into none, and a hold is taken through a file. */
bool layout_sole(void *arg, struct layout_hold *hold)
{
    struct fs *fs = arg;

    for (size_t i = 0; i < hold->n_runs; i++) {
        const struct layout_run *run = &hold->runs[i];
        struct pool_block block = {run->segment, (uint32_t)(run->offset >> POOL_BLOCK_SHIFT)};

        for (uint64_t left = run->length >> POOL_BLOCK_SHIFT; left; left--, block.index++)
            if (pool_file_count(fs->pool, block) || pool_hold_count(fs->pool, block) != 1)
                return false;
    }
    return true;
}

/* Both sizes must end in the range's last block: a lease does not reach beyond it. */
static bool may_resize(uint64_t size, uint64_t new_size, struct lease_range range)
{
    uint64_t end = range_end(range);
    uint64_t last = end - POOL_BLOCK_SIZE;

    return size > last && size <= end && new_size > last && new_size <= end;
}

int layout_committed(void *arg, uint64_t ino, struct lease_range range, uint64_t new_size)
{
    struct fs *fs = arg;
    struct fs_inode *inode;
    uint64_t size;
    int err;

    if (!range_valid(range) || range.length < POOL_BLOCK_SIZE)
        return -EINVAL;
    err = inode_get_type(fs, ino, S_IFREG, &inode);
    if (err)
        return err;
    inode_lock(inode);
    size = file_data_size(inode->data);
    if (new_size == UINT64_MAX)
        new_size = size;
    else if (!may_resize(size, new_size, range))
        err = -EINVAL;
    if (!err && new_size != size)
        err = file_data_set_size(inode->data, new_size);
    if (!err) {
        inode_kill_priv(inode, FS_KILL_SUID);
        inode_data_changed(inode);
    }
    inode_unlock(inode);
    inode_put(fs, inode);
    if (!err)
        cache_forget_attr(fs, ino);
    return err;
}
