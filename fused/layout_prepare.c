/* SPDX-License-Identifier: BSD-2-Clause */
/* Making a range fit for a lease, and clones. */
#include <errno.h>

#include "fused/fs_front_door.h"
#include "fused/fs_path.h"
#include "fused/fs_space.h"
#include "fused/layout_private.h"

static int prepare_doors(struct fs *fs, struct fs_inode *inode, struct lease_range range, bool exclusive, bool extend,
                         struct lease_waiter *waiter)
{
    int err = 0;

    if (extend && range_end(range) > file_data_size(inode->data))
        err = front_door(fs, inode, range_of_slack(inode), LEASE_OP_REPLACE, waiter);
    if (!err && file_data_prepare_replaces(inode->data, range, exclusive))
        err = front_door(fs, inode, range, LEASE_OP_REPLACE, waiter);
    return err;
}

static int64_t prepare_locked(struct fs *fs, struct fs_inode *inode, struct lease_range range, bool exclusive,
                              bool extend, struct lease_waiter *waiter)
{
    int err = prepare_doors(fs, inode, range, exclusive, extend, waiter);

    return err ? err : file_data_prepare(inode->data, range, exclusive, extend);
}

int layout_prepare(void *arg, uint64_t ino, struct lease_range range, bool exclusive, bool extend,
                   struct lease_waiter *waiter)
{
    struct fs *fs = arg;
    struct fs_inode *inode;
    struct space_mark mark;
    uint64_t size, blocks;
    bool changed = false;
    int64_t err;

    if (fs->read_only)
        return -EROFS;
    if (!range_valid(range) || range.length == 0)
        return -EINVAL;
    err = inode_get_type(fs, ino, S_IFREG, &inode);
    if (err)
        return err;
    mark = space_mark(fs);
    do {
        inode_lock(inode);
        size = file_data_size(inode->data);
        blocks = file_data_blocks(inode->data);
        err = prepare_locked(fs, inode, range, exclusive, extend, waiter);
        if (file_data_size(inode->data) != size) {
            inode_data_changed(inode);
            changed = true;
        }
        changed = changed || file_data_blocks(inode->data) != blocks;
        inode_unlock(inode);
    } while (space_again(fs, &mark, waiter, &err));
    inode_put(fs, inode);
    if (changed)
        cache_forget_attr(fs, ino);
    return (int)err;
}

/* Gives dst the bytes of src; both locked. What dst had is returned in *ret_old, to be freed without locks. The new
 * map is made aside, so that a pool that is full leaves dst as it was. */
static int clone_locked(struct fs *fs, struct fs_inode *src, struct fs_inode *dst, struct lease_waiter *waiter,
                        struct file_data **ret_old)
{
    uint64_t size = file_data_size(src->data);
    struct file_data *data;
    int err = front_door(fs, src, (struct lease_range){0, size}, LEASE_OP_SHARE, waiter);

    if (!err)
        err = front_door(fs, dst, range_from(0), LEASE_OP_DROP, waiter);
    if (!err)
        err = file_data_new(fs->pool, &data);
    if (err)
        return err;
    if (size > 0) {
        int64_t done = file_data_clone(src->data, 0, data, 0, size);

        if (done != (int64_t)size) {
            file_data_free(data);
            return done < 0 ? (int)done : -ENOSPC;
        }
    }
    err = file_data_charge_instead(data, dst->data);
    if (err) {
        file_data_free(data);
        return err;
    }
    *ret_old = dst->data;
    dst->data = data;
    inode_kill_priv(dst, FS_KILL_SUID);
    inode_data_changed(dst);
    return 0;
}

static int clone_inode(struct fs *fs, struct fs_inode *src, struct fs_inode *dst, struct lease_waiter *waiter)
{
    struct file_data *old = NULL;
    struct space_mark mark = space_mark(fs);
    int64_t err;

    if (src == dst)
        return -EINVAL;
    do {
        inode_lock_set(src, dst, NULL, NULL);
        err = clone_locked(fs, src, dst, waiter, &old);
        inode_unlock_set(src, dst, NULL, NULL);
    } while (space_again(fs, &mark, waiter, &err));
    file_data_free(old);
    return (int)err;
}

static uint64_t size_of(struct fs_inode *inode)
{
    uint64_t size;

    inode_lock_shared(inode);
    size = file_data_size(inode->data);
    inode_unlock(inode);
    return size;
}

static int clone_onto(struct fs *fs, struct fs_inode *src, struct fs_inode *dst, const struct lease_credentials *who,
                      struct lease_waiter *waiter)
{
    int err;

    if (dst->type != S_IFREG)
        return dst->type == S_IFDIR ? -EISDIR : -EINVAL;
    err = path_permission(dst, who, PATH_MAY_WRITE);
    if (!err && fs->sizes_kept && size_of(src) != size_of(dst))
        err = -EOPNOTSUPP;
    if (!err)
        err = clone_inode(fs, src, dst, waiter);
    if (!err)
        cache_forget_bytes(fs, dst->ino, range_from(0));
    return err;
}

/* A new file gets its name when it is complete. */
static int clone_new(struct fs *fs, struct fs_inode *src, const char *path, const struct lease_credentials *who,
                     struct lease_waiter *waiter)
{
    struct fs_cred cred = {who->uid, who->gid};
    char name[FS_NAME_MAX + 1];
    struct fs_inode *dir, *dst;
    mode_t mode;
    int err = path_walk_parent(fs, path, who, &dir, name);

    if (err)
        return err;
    err = path_may_replace(fs, dir, name, who);
    if (err)
        goto out_dir;
    inode_lock_shared(src);
    mode = src->mode & 0777;
    inode_unlock(src);
    err = inode_new_in(fs, dir, S_IFREG | mode, cred, &dst);
    if (err)
        goto out_dir;
    dst->linkable = true;
    space_on_nameless(fs, dst, true);
    inode_publish(fs, dst);
    err = clone_inode(fs, src, dst, waiter);
    if (!err)
        err = fs_link_over(fs, dst, dir, name, waiter);
    if (!err)
        cache_forget_name(fs, dir->ino, name);
    inode_put(fs, dst);
out_dir:
    inode_put(fs, dir);
    return err;
}

int layout_clone(void *arg, const char *source, const char *destination, const struct lease_credentials *who,
                 struct lease_waiter *waiter)
{
    struct fs *fs = arg;
    struct fs_inode *src, *dst;
    int err;

    if (fs->read_only)
        return -EROFS;
    err = path_walk(fs, source, who, &src);
    if (err)
        return err;
    if (src->type != S_IFREG)
        err = src->type == S_IFDIR ? -EISDIR : -EINVAL;
    else
        err = path_permission(src, who, PATH_MAY_READ);
    if (!err) {
        /* What programs wrote to their mappings and Linux has not written yet. */
        cache_forget_bytes(fs, src->ino, range_from(0));
        err = path_walk_to_change(fs, destination, who, &dst);
        if (!err) {
            err = clone_onto(fs, src, dst, who, waiter);
            inode_put(fs, dst);
        } else if (err == -ENOENT) {
            err = clone_new(fs, src, destination, who, waiter);
        }
    }
    inode_put(fs, src);
    return err;
}
