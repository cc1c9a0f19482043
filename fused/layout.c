/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/layout.h"

#include <errno.h>
#include <stdlib.h>

#include "fused/fs_path.h"
#include "fused/fs_space.h"
#include "fused/layout_private.h"

static const struct layout_segment *layout_segments(void *arg, size_t *ret_count)
{
    struct fs *fs = arg;

    *ret_count = 1;
    return &fs->segment;
}

static int check_openable(struct fs *fs, struct fs_inode *inode, const struct lease_credentials *who,
                          enum lease_mode mode)
{
    if (inode->type == S_IFDIR)
        return -EISDIR;
    if (inode->type != S_IFREG)
        return -EINVAL;
    if (mode == LEASE_WRITE && fs->read_only)
        return -EROFS;
    return path_permission(inode, who, mode == LEASE_WRITE ? PATH_MAY_READ | PATH_MAY_WRITE : PATH_MAY_READ);
}

/* The reference that the walk returns is the pin. */
static int layout_open(void *arg, const char *path, const struct lease_credentials *who, enum lease_mode mode,
                       uint64_t *ret_inode)
{
    struct fs *fs = arg;
    struct fs_inode *inode;
    int err = mode == LEASE_WRITE ? path_walk_to_change(fs, path, who, &inode) : path_walk(fs, path, who, &inode);

    if (err)
        return err;
    err = check_openable(fs, inode, who, mode);
    if (err)
        inode_put(fs, inode);
    else
        *ret_inode = inode->ino;
    return err;
}

static void layout_close(void *arg, uint64_t ino)
{
    struct fs *fs = arg;
    struct fs_inode *inode = inode_get(fs, ino);

    if (!inode)
        return;
    inode_put(fs, inode); /* the pin */
    inode_put(fs, inode);
}

static int layout_getattr(void *arg, uint64_t ino, struct layout_attr *ret_attr)
{
    struct fs *fs = arg;
    struct fs_inode *inode = inode_get(fs, ino);
    struct stat attr;
    enum lease_policy policy;
    uint64_t data_version;

    if (!inode)
        return -ESTALE;
    inode_lock_shared(inode);
    policy = inode->lease_policy;
    inode_stat(inode, &attr);
    pthread_mutex_lock(&inode->attr_lock);
    data_version = inode->data_version;
    pthread_mutex_unlock(&inode->attr_lock);
    inode_unlock(inode);
    inode_put(fs, inode);
    *ret_attr = (struct layout_attr){
        .inode = ino,
        .size = (uint64_t)attr.st_size,
        .data_version = data_version,
        .mode = attr.st_mode,
        .uid = attr.st_uid,
        .gid = attr.st_gid,
        .mtime = attr.st_mtim,
        .policy = policy,
    };
    return 0;
}

/* The directory and the name in it that `who` may make or replace. */
static int walk_to_replace(struct fs *fs, const char *path, const struct lease_credentials *who,
                           struct fs_inode **ret_dir, char ret_name[FS_NAME_MAX + 1])
{
    struct fs_inode *dir;
    int err;

    if (fs->read_only)
        return -EROFS;
    err = path_walk_parent(fs, path, who, &dir, ret_name);
    if (err)
        return err;
    err = path_may_replace(fs, dir, ret_name, who);
    if (err)
        inode_put(fs, dir);
    else
        *ret_dir = dir;
    return err;
}

static int layout_create(void *arg, const char *path, const struct lease_credentials *who, mode_t mode,
                         uint64_t *ret_inode)
{
    struct fs *fs = arg;
    struct fs_cred cred = {who->uid, who->gid};
    char name[FS_NAME_MAX + 1];
    struct fs_inode *dir, *inode;
    int err = walk_to_replace(fs, path, who, &dir, name);

    if (err)
        return err;
    err = inode_new_in(fs, dir, S_IFREG | (mode & 07777), cred, &inode);
    inode_put(fs, dir);
    if (err)
        return err;
    inode->linkable = true;
    space_on_nameless(fs, inode, true);
    inode_publish(fs, inode);
    *ret_inode = inode->ino; /* the reference is the pin */
    return 0;
}

static int layout_publish(void *arg, uint64_t ino, const char *path, const struct lease_credentials *who,
                          struct lease_waiter *waiter)
{
    struct fs *fs = arg;
    char name[FS_NAME_MAX + 1];
    struct fs_inode *dir, *inode;
    uint64_t dir_ino;
    int err = walk_to_replace(fs, path, who, &dir, name);

    if (err)
        return err;
    dir_ino = dir->ino;
    inode = inode_get(fs, ino);
    err = inode ? fs_link_over(fs, inode, dir, name, waiter) : -ESTALE;
    inode_put(fs, inode);
    inode_put(fs, dir);
    if (!err)
        cache_forget_name(fs, dir_ino, name);
    return err;
}

/* To peers that only read, pages are no harm that Linux has nothing to write of. A page that a mapping changes from now
 * on is written later, and then waits at the front door. */
static int layout_flush(void *arg, uint64_t ino, struct lease_range range, enum lease_mode mode)
{
    struct fs *fs = arg;
    struct fs_inode *inode = inode_get(fs, ino);
    bool clean = inode && inode->writers == 0;

    inode_put(fs, inode);
    if (mode == LEASE_WRITE || !clean)
        cache_forget_bytes(fs, ino, range);
    return 0;
}

static void layout_invalidate(void *arg, uint64_t ino, struct lease_range range, void (*done)(void *arg),
                              void *done_arg)
{
    cache_forget_bytes_later(arg, ino, range, done, done_arg);
}

static int layout_extents(void *arg, uint64_t ino, uint64_t offset, struct layout_extent *extents, int max)
{
    struct fs *fs = arg;
    struct fs_inode *inode;
    struct file_extent e;
    int n = 0, err = inode_get_type(fs, ino, S_IFREG, &inode);

    if (err)
        return err;
    inode_lock_shared(inode);
    for (; n < max && file_data_next_extent(inode->data, offset, &e); offset = e.offset + e.length)
        extents[n++] = (struct layout_extent){
            .offset = e.offset,
            .length = e.length,
            .pool_offset = (uint64_t)e.start.index * POOL_BLOCK_SIZE,
            .unwritten = e.unwritten,
            .shared = e.shared,
        };
    inode_unlock(inode);
    inode_put(fs, inode);
    return n;
}

static struct layout_usage layout_usage(void *arg)
{
    struct fs *fs = arg;
    struct pool_usage usage;

    pool_usage(fs->pool, &usage);
    return (struct layout_usage){
        .total_bytes = usage.total * POOL_BLOCK_SIZE,
        .free_bytes = usage.free * POOL_BLOCK_SIZE,
        .held_bytes = usage.held * POOL_BLOCK_SIZE,
        .quarantined_bytes = atomic_load(&fs->quarantined_bytes),
    };
}

const struct layout_ops fs_layout_ops = {
    .segments = layout_segments,
    .open = layout_open,
    .close = layout_close,
    .getattr = layout_getattr,
    .create = layout_create,
    .publish = layout_publish,
    .prepare = layout_prepare,
    .clone = layout_clone,
    .flush = layout_flush,
    .hold = layout_hold,
    .hold_part = layout_hold_part,
    .release = layout_release,
    .detach = layout_detach,
    .sole = layout_sole,
    .committed = layout_committed,
    .invalidate = layout_invalidate,
    .extents = layout_extents,
    .usage = layout_usage,
};
