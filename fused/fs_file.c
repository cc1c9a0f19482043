/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations on the bytes of regular files. Whatever changes them goes through the front door. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "fused/fs_front_door.h"
#include "fused/fs_private.h"
#include "fused/fs_space.h"

/* A read of FS_READ_MAX bytes touches one block more than it is long when it does not start on a boundary. */
#define READ_PIECES (FS_READ_MAX / POOL_BLOCK_SIZE + 2)

static int get_file(struct fs *fs, uint64_t ino, struct fs_inode **ret_inode)
{
    return inode_get_type(fs, ino, S_IFREG, ret_inode);
}

static int check_range(uint64_t offset, uint64_t length)
{
    return range_valid((struct lease_range){offset, length}) ? 0 : -EFBIG;
}

static bool may_write(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY;
}

static int check_flags(const struct fs_inode *inode, int flags)
{
    if (!may_write(flags) || !inode_kept(inode))
        return 0;
    return inode_immutable(inode) || !(flags & O_APPEND) ? -EPERM : 0;
}

int fs_open(struct fs *fs, uint64_t ino, int flags, bool *ret_direct)
{
    struct fs_inode *inode;
    int err = get_file(fs, ino, &inode);

    if (err)
        return err;
    inode_lock_shared(inode);
    err = check_flags(inode, flags);
    if (!err) {
        *ret_direct = inode->write_holds > 0;
        inode->writers += may_write(flags);
    }
    inode_unlock(inode);
    inode_put(fs, inode);
    return err;
}

static void count_writers(struct fs *fs, uint64_t ino, int by)
{
    struct fs_inode *inode = inode_get(fs, ino);

    if (!inode)
        return;
    inode->writers += (size_t)by;
    inode_put(fs, inode);
}

void fs_created(struct fs *fs, uint64_t ino, int flags)
{
    count_writers(fs, ino, may_write(flags));
}

void fs_close(struct fs *fs, uint64_t ino, int flags)
{
    count_writers(fs, ino, -may_write(flags));
}

int fs_read(struct fs *fs, uint64_t ino, uint64_t offset, size_t length, bool touch,
            int (*emit)(void *arg, const struct iovec *iov, int count, size_t bytes), void *arg)
{
    struct iovec iov[READ_PIECES];
    struct fs_inode *inode;
    size_t bytes = 0;
    int count = 0;
    int err = get_file(fs, ino, &inode);

    if (err)
        return err;
    if (length > FS_READ_MAX)
        length = FS_READ_MAX;
    inode_lock_shared(inode);
    file_data_read(inode->data, offset, length, iov, READ_PIECES, &count, &bytes);
    if (touch)
        inode_accessed(fs, inode);
    err = emit(arg, iov, count, bytes);
    inode_unlock(inode);
    inode_put(fs, inode);
    return err;
}

static bool has_priv(const struct fs_inode *inode)
{
    return inode->has_capability || (inode->mode & (S_ISUID | S_ISGID));
}

/* The common write: over bytes that are there, of a file without leases. Other writers and readers go on beside it. */
static int overwrite_shared(struct fs_inode *inode, uint64_t offset, const void *bytes, size_t length)
{
    struct timespec now;
    int err = -EAGAIN;

    inode_lock_shared(inode);
    if (inode->holds == 0 && !has_priv(inode))
        err = file_data_overwrite(inode->data, offset, bytes, length);
    if (!err) {
        now = fs_now();
        pthread_mutex_lock(&inode->attr_lock);
        inode->mtime = inode->ctime = now;
        inode->data_version++;
        pthread_mutex_unlock(&inode->attr_lock);
    }
    inode_unlock(inode);
    return err;
}

static int64_t write_exclusive(struct fs *fs, struct fs_inode *inode, uint64_t offset, const void *bytes, size_t length,
                               enum fs_kill kill, struct lease_waiter *waiter)
{
    bool killed = false;
    int64_t done;

    inode_lock(inode);
    done = front_door(fs, inode, range_of_write(inode, offset, length), LEASE_OP_REPLACE, waiter);
    if (!done)
        done = file_data_write(inode->data, offset, bytes, length);
    if (done > 0) {
        killed = inode_kill_priv(inode, kill);
        inode_data_changed(inode);
    }
    inode_unlock(inode);
    tell_mode(fs, inode, killed);
    return done;
}

static int64_t write_all(struct fs *fs, struct fs_inode *inode, uint64_t offset, const void *bytes, size_t length,
                         enum fs_kill kill, struct lease_waiter *waiter)
{
    struct space_mark mark = space_mark(fs);
    int64_t done, more;

    do
        done = write_exclusive(fs, inode, offset, bytes, length, kill, waiter);
    while (space_again(fs, &mark, waiter, &done));
    /* What has been written stays so: from here on nobody waits, and no error counts. */
    while (done > 0 && (size_t)done < length && space_came(fs, &mark)) {
        more = write_exclusive(fs, inode, offset + (size_t)done, (const char *)bytes + done, length - (size_t)done,
                               kill, NULL);
        done += more > 0 ? more : 0;
    }
    return done;
}

int64_t fs_write(struct fs *fs, uint64_t ino, uint64_t offset, const void *bytes, size_t length, enum fs_kill kill,
                 struct lease_waiter *waiter)
{
    struct fs_inode *inode;
    int64_t done = check_range(offset, length);

    if (done)
        return done;
    done = get_file(fs, ino, &inode);
    if (done)
        return done;
    if (length > 0 && overwrite_shared(inode, offset, bytes, length) == 0)
        done = (int64_t)length;
    else if (length > 0)
        done = write_all(fs, inode, offset, bytes, length, kill, waiter);
    inode_put(fs, inode);
    return done;
}

static int allocate_locked(struct fs *fs, struct fs_inode *inode, uint64_t offset, uint64_t length, bool extend,
                           struct lease_waiter *waiter)
{
    uint64_t size = file_data_size(inode->data);

    if (extend && offset + length > size) {
        int err = front_door(fs, inode, range_of_slack(inode), LEASE_OP_REPLACE, waiter);

        if (err)
            return err;
    }
    return file_data_allocate(inode->data, offset, length, extend);
}

static int punch_locked(struct fs *fs, struct fs_inode *inode, uint64_t offset, uint64_t length,
                        struct lease_waiter *waiter)
{
    struct lease_range blocks = range_round_out((struct lease_range){offset, length}, POOL_BLOCK_SIZE);
    int err = front_door(fs, inode, blocks, LEASE_OP_DROP, waiter);

    return err ? err : file_data_punch(inode->data, offset, length);
}

static int zero_locked(struct fs *fs, struct fs_inode *inode, uint64_t offset, uint64_t length, bool extend,
                       struct lease_waiter *waiter)
{
    struct lease_range range = extend ? range_of_write(inode, offset, length) : (struct lease_range){offset, length};
    int err = front_door(fs, inode, range, LEASE_OP_REPLACE, waiter);

    return err ? err : file_data_zero(inode->data, offset, length, extend);
}

/* Everything from there on moves. */
static int shift_locked(struct fs *fs, struct fs_inode *inode, int mode, uint64_t offset, uint64_t length,
                        struct lease_waiter *waiter)
{
    uint64_t size = file_data_size(inode->data);
    int err = 0;

    /* What cannot be done recalls no lease. */
    if ((offset | length) % POOL_BLOCK_SIZE || offset >= size)
        err = -EINVAL;
    else if (mode == FALLOC_FL_COLLAPSE_RANGE && length >= size - offset)
        err = -EINVAL;
    else if (mode == FALLOC_FL_INSERT_RANGE)
        err = check_range(size, length);
    if (!err)
        err = front_door(fs, inode, range_from(offset), LEASE_OP_DROP, waiter);
    if (err)
        return err;
    return mode == FALLOC_FL_COLLAPSE_RANGE ? file_data_collapse(inode->data, offset, length)
                                            : file_data_insert(inode->data, offset, length);
}

static int unshare_locked(struct fs *fs, struct fs_inode *inode, uint64_t offset, uint64_t length, bool extend,
                          struct lease_waiter *waiter)
{
    struct lease_range blocks = range_round_out((struct lease_range){offset, length}, POOL_BLOCK_SIZE);
    int err = 0;

    if (extend && offset + length > file_data_size(inode->data))
        err = front_door(fs, inode, range_of_slack(inode), LEASE_OP_REPLACE, waiter);
    if (!err && file_data_prepare_replaces(inode->data, blocks, true))
        err = front_door(fs, inode, blocks, LEASE_OP_REPLACE, waiter);
    return err ? err : file_data_unshare(inode->data, offset, length, extend);
}

static int fallocate_locked(struct fs *fs, struct fs_inode *inode, int mode, uint64_t offset, uint64_t length,
                            struct lease_waiter *waiter)
{
    bool extend = !(mode & FALLOC_FL_KEEP_SIZE);

    if (inode_immutable(inode) || ((mode & ~FALLOC_FL_KEEP_SIZE) && inode_kept(inode)))
        return -EPERM;
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
        return allocate_locked(fs, inode, offset, length, extend, waiter);
    case FALLOC_FL_ZERO_RANGE:
        return zero_locked(fs, inode, offset, length, extend, waiter);
    case FALLOC_FL_UNSHARE_RANGE:
        return unshare_locked(fs, inode, offset, length, extend, waiter);
    case FALLOC_FL_PUNCH_HOLE:
        return punch_locked(fs, inode, offset, length, waiter);
    default:
        return shift_locked(fs, inode, mode, offset, length, waiter);
    }
}

static bool mode_known(int mode)
{
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_UNSHARE_RANGE:
        return true;
    default:
        return mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) || mode == FALLOC_FL_COLLAPSE_RANGE ||
               mode == FALLOC_FL_INSERT_RANGE;
    }
}

int fs_fallocate(struct fs *fs, uint64_t ino, int mode, uint64_t offset, uint64_t length, enum fs_kill kill,
                 struct lease_waiter *waiter)
{
    struct fs_inode *inode;
    bool killed = false;
    struct space_mark mark;
    int64_t done;
    int err;

    if (!mode_known(mode))
        return -EOPNOTSUPP;
    if (length == 0)
        return -EINVAL;
    err = check_range(offset, length);
    if (err)
        return err;
    err = get_file(fs, ino, &inode);
    if (err)
        return err == -EISDIR ? err : -ENODEV;
    mark = space_mark(fs);
    do {
        inode_lock(inode);
        done = fallocate_locked(fs, inode, mode, offset, length, waiter);
        if (!done) {
            killed = inode_kill_priv(inode, kill);
            inode_data_changed(inode);
        }
        inode_unlock(inode);
    } while (space_again(fs, &mark, waiter, &done));
    tell_mode(fs, inode, killed);
    inode_put(fs, inode);
    return (int)done;
}

int64_t fs_seek(struct fs *fs, uint64_t ino, uint64_t offset, int whence)
{
    struct fs_inode *inode;
    int64_t result;

    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL;
    result = get_file(fs, ino, &inode);
    if (result)
        return result;
    inode_lock_shared(inode);
    result = file_data_seek(inode->data, offset, whence);
    inode_unlock(inode);
    inode_put(fs, inode);
    return result;
}

/* The two conflicts of a copy. Asking about one does not wait for the other: should the second park, both files are
 * unlocked, and both are asked about again. */
static int copy_doors(struct fs *fs, struct fs_inode *src, struct lease_range src_range, struct fs_inode *dst,
                      struct lease_range dst_range, struct lease_waiter *waiter)
{
    int err = front_door(fs, src, src_range, LEASE_OP_SHARE, waiter);

    return err ? err : front_door(fs, dst, dst_range, LEASE_OP_REPLACE, waiter);
}

static int64_t copy_locked(struct fs *fs, struct fs_inode *src, uint64_t src_offset, struct fs_inode *dst,
                           uint64_t dst_offset, uint64_t length, enum fs_kill kill, struct lease_waiter *waiter,
                           bool *ret_killed)
{
    uint64_t src_size = file_data_size(src->data);
    int64_t done;

    if (inode_kept(dst))
        return -EPERM;
    if (src_offset >= src_size || length == 0)
        return 0;
    if (length > src_size - src_offset)
        length = src_size - src_offset;
    if (length > FS_CLONE_MAX)
        length = FS_CLONE_MAX;
    done = check_range(dst_offset, length);
    if (done)
        return done;
    if (src == dst &&
        range_overlaps((struct lease_range){src_offset, length}, (struct lease_range){dst_offset, length}))
        return -EINVAL;
    done = copy_doors(fs, src, (struct lease_range){src_offset, length}, dst, range_of_write(dst, dst_offset, length),
                      waiter);
    if (done)
        return done;
    done = file_data_clone(src->data, src_offset, dst->data, dst_offset, length);
    if (done > 0) {
        *ret_killed = inode_kill_priv(dst, kill);
        inode_data_changed(dst);
        inode_accessed(fs, src);
    }
    return done;
}

int64_t fs_copy(struct fs *fs, uint64_t src_ino, uint64_t src_offset, uint64_t dst_ino, uint64_t dst_offset,
                uint64_t length, enum fs_kill kill, struct lease_waiter *waiter)
{
    struct fs_inode *src, *dst;
    bool killed = false;
    struct space_mark mark = space_mark(fs);
    int64_t done = get_file(fs, src_ino, &src);

    if (done)
        return done;
    done = get_file(fs, dst_ino, &dst);
    if (done)
        goto out_src;
    do {
        inode_lock_set(src, dst, NULL, NULL);
        done = copy_locked(fs, src, src_offset, dst, dst_offset, length, kill, waiter, &killed);
        inode_unlock_set(src, dst, NULL, NULL);
    } while (space_again(fs, &mark, waiter, &done));
    tell_mode(fs, dst, killed);
    inode_put(fs, dst);
out_src:
    inode_put(fs, src);
    return done;
}
