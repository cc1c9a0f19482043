/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <string.h>

#include "fused/fs_front_door.h"
#include "fused/fs_private.h"
#include "fused/fs_space.h"

struct timespec fs_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return now;
}

void inode_touch(struct fs_inode *inode)
{
    inode->mtime = inode->ctime = fs_now();
}

void inode_data_changed(struct fs_inode *inode)
{
    inode_touch(inode);
    inode->data_version++;
}

static bool time_before(struct timespec a, struct timespec b)
{
    return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

void inode_accessed(const struct fs *fs, struct fs_inode *inode)
{
    struct timespec now = fs_now();

    if (fs->read_only || fs->noatime || (inode->flags & FS_NOATIME_FL))
        return;
    pthread_mutex_lock(&inode->attr_lock);
    if (!time_before(inode->mtime, inode->atime) || !time_before(inode->ctime, inode->atime) ||
        now.tv_sec - inode->atime.tv_sec >= 24 * 60 * 60)
        inode->atime = now;
    pthread_mutex_unlock(&inode->attr_lock);
}

void fs_accessed(struct fs *fs, uint64_t ino)
{
    struct fs_inode *inode = inode_get(fs, ino);

    if (!inode)
        return;
    inode_lock_shared(inode);
    inode_accessed(fs, inode);
    inode_unlock(inode);
    inode_put(fs, inode);
}

/* As the kernel does for its own filesystems: the set-group-id bit of a file that its group cannot execute (once that
 * meant mandatory locking) stays if a member of the group changes it. */
bool inode_kill_priv(struct fs_inode *inode, enum fs_kill kill)
{
    mode_t before = inode->mode;

    xattr_kill_capability(inode);
    if (kill == FS_KILL_CAPABILITY || inode->type == S_IFDIR)
        return false;
    inode->mode &= ~(mode_t)S_ISUID;
    if (kill == FS_KILL_SGID || (inode->mode & S_IXGRP))
        inode->mode &= ~(mode_t)S_ISGID;
    return inode->mode != before;
}

bool fs_has_idle_sgid(struct fs *fs, uint64_t ino, gid_t *ret_group)
{
    struct fs_inode *inode = inode_get(fs, ino);
    bool idle;

    if (!inode)
        return false;
    inode_lock_shared(inode);
    idle = inode->type != S_IFDIR && (inode->mode & (S_ISGID | S_IXGRP)) == S_ISGID;
    *ret_group = inode->gid;
    inode_unlock(inode);
    inode_put(fs, inode);
    return idle;
}

/* The kernel trusts the mode that it knows, and would run a file that was just written as set-user-id. Before the
 * reply, which attributes alone permit: for them the kernel waits for nobody. */
void tell_mode(struct fs *fs, struct fs_inode *inode, bool changed)
{
    if (changed)
        cache_forget_attr(fs, inode->ino);
}

static void stat_size(const struct fs_inode *inode, struct stat *attr)
{
    switch (inode->type) {
    case S_IFREG:
        attr->st_size = (off_t)file_data_size(inode->data);
        attr->st_blocks = (blkcnt_t)(file_data_blocks(inode->data) * (POOL_BLOCK_SIZE / 512));
        break;
    case S_IFLNK:
        attr->st_size = (off_t)strlen(inode->target);
        break;
    case S_IFDIR:
        attr->st_size = POOL_BLOCK_SIZE;
        break;
    default:
        break;
    }
}

void inode_stat(struct fs_inode *inode, struct stat *attr)
{
    memset(attr, 0, sizeof(*attr));
    attr->st_ino = inode->ino;
    attr->st_mode = inode->type | inode->mode;
    attr->st_nlink = inode->nlink;
    attr->st_uid = inode->uid;
    attr->st_gid = inode->gid;
    attr->st_rdev = inode->rdev;
    attr->st_blksize = POOL_BLOCK_SIZE;
    stat_size(inode, attr);
    pthread_mutex_lock(&inode->attr_lock);
    attr->st_atim = inode->atime;
    attr->st_mtim = inode->mtime;
    attr->st_ctim = inode->ctime;
    pthread_mutex_unlock(&inode->attr_lock);
}

int fs_statx(struct fs *fs, uint64_t ino, struct stat *ret_attr, struct timespec *ret_birth)
{
    struct fs_inode *inode = inode_get(fs, ino);

    if (!inode)
        return -ESTALE;
    inode_lock_shared(inode);
    inode_stat(inode, ret_attr);
    *ret_birth = inode->birth;
    inode_unlock(inode);
    inode_put(fs, inode);
    return 0;
}

int fs_getattr(struct fs *fs, uint64_t ino, struct stat *ret_attr)
{
    struct timespec birth;

    return fs_statx(fs, ino, ret_attr, &birth);
}

#define FLAGS_SETTABLE (FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NOATIME_FL | FS_NODUMP_FL)

int fs_get_flags(struct fs *fs, uint64_t ino, uint32_t *ret_flags)
{
    struct fs_inode *inode = inode_get(fs, ino);

    if (!inode)
        return -ESTALE;
    inode_lock_shared(inode);
    *ret_flags = inode->flags;
    inode_unlock(inode);
    inode_put(fs, inode);
    return 0;
}

int fs_set_flags(struct fs *fs, uint64_t ino, uint32_t flags)
{
    struct fs_inode *inode;

    if (flags & ~(uint32_t)FLAGS_SETTABLE)
        return -EOPNOTSUPP;
    inode = inode_get(fs, ino);
    if (!inode)
        return -ESTALE;
    inode_lock(inode);
    inode->flags = flags;
    inode->ctime = fs_now();
    inode_unlock(inode);
    inode_put(fs, inode);
    cache_forget_attr(fs, ino); /* Linux does not know what an ioctl changes */
    return 0;
}

int fs_leased(struct fs *fs, uint64_t ino, bool *ret_leased)
{
    struct fs_inode *inode = inode_get(fs, ino);

    if (!inode)
        return -ESTALE;
    inode_lock_shared(inode);
    *ret_leased = inode->holds > 0;
    inode_unlock(inode);
    inode_put(fs, inode);
    return 0;
}

/* Truncates or extends. -EFBIG, and whatever the front door says. */
int inode_resize(struct fs *fs, struct fs_inode *inode, uint64_t size, struct lease_waiter *waiter)
{
    uint64_t old = file_data_size(inode->data);
    int err = 0;

    if (size > RANGE_MAX_END)
        return -EFBIG;
    if (size < old)
        err = front_door(fs, inode, range_of_shrink(size), LEASE_OP_DROP, waiter);
    else if (size > old)
        err = front_door(fs, inode, range_of_slack(inode), LEASE_OP_REPLACE, waiter);
    if (err || size == old)
        return err;
    return file_data_truncate(inode->data, size);
}

static int set_size(struct fs *fs, struct fs_inode *inode, const struct stat *attr, struct lease_waiter *waiter)
{
    int err;

    if (inode->type == S_IFDIR)
        return -EISDIR;
    if (inode->type != S_IFREG || attr->st_size < 0)
        return -EINVAL;
    err = inode_resize(fs, inode, (uint64_t)attr->st_size, waiter);
    if (err)
        return err;
    inode_kill_priv(inode, FS_KILL_CAPABILITY);
    inode_data_changed(inode);
    return 0;
}

static void set_owner_and_mode(struct fs_inode *inode, const struct stat *attr, unsigned what)
{
    if (what & (FS_SET_UID | FS_SET_GID)) {
        if (what & FS_SET_GID)
            inode->gid = attr->st_gid;
        inode_kill_priv(inode, what & FS_SET_KILL_SGID ? FS_KILL_SGID : FS_KILL_SUID);
    }
    if (what & FS_SET_MODE) {
        inode->mode = attr->st_mode & ~(mode_t)S_IFMT;
        acl_after_chmod(inode);
    }
}

static void set_times(struct fs_inode *inode, const struct stat *attr, unsigned what)
{
    struct timespec now = fs_now();

    if (what & FS_SET_ATIME_NOW)
        inode->atime = now;
    else if (what & FS_SET_ATIME)
        inode->atime = attr->st_atim;
    if (what & FS_SET_MTIME_NOW)
        inode->mtime = now;
    else if (what & FS_SET_MTIME)
        inode->mtime = attr->st_mtim;
    inode->ctime = what & FS_SET_CTIME ? attr->st_ctim : now;
}

/* What an immutable or append-only file lets be set: an empty change, which drops set-user-id; of the latter, both
 * times to now, for which only one of them is too particular. */
static int check_kept(const struct fs_inode *inode, unsigned what)
{
    unsigned allowed = FS_SET_KILL_PRIV | FS_SET_KILL_SGID | FS_SET_CTIME | FS_SET_TIMES_KEPT;
    bool mtime_now = what & (what & FS_SET_TIMES_KEPT ? FS_SET_MTIME : FS_SET_MTIME_NOW);

    if (!inode_kept(inode))
        return 0;
    if (!inode_immutable(inode)) {
        if (mtime_now && (what & FS_SET_ATIME_NOW))
            allowed |= FS_SET_ATIME | FS_SET_ATIME_NOW | FS_SET_MTIME | FS_SET_MTIME_NOW;
        else if (what & FS_SET_TIMES_KEPT)
            allowed |= FS_SET_MTIME; /* of a write that was kept */
    }
    return what & ~allowed ? -EPERM : 0;
}

int fs_setattr(struct fs *fs, uint64_t ino, const struct stat *attr, unsigned what, struct lease_waiter *waiter,
               struct stat *ret_attr, bool *ret_fleeting)
{
    struct fs_inode *inode = inode_get(fs, ino);
    struct space_mark mark = space_mark(fs);
    int64_t err;

    if (!inode)
        return -ESTALE;
    do {
        inode_lock(inode);
        err = check_kept(inode, what);
        if (!err && (what & FS_SET_SIZE))
            err = set_size(fs, inode, attr, waiter);
        if (!err && (what & FS_SET_UID))
            err = inode_set_owner(fs, inode, attr->st_uid);
        if (!err) {
            if (what & FS_SET_KILL_PRIV)
                inode_kill_priv(inode, what & FS_SET_KILL_SGID ? FS_KILL_SGID : FS_KILL_SUID);
            set_owner_and_mode(inode, attr, what);
            set_times(inode, attr, what);
            inode_stat(inode, ret_attr);
            if (ret_fleeting)
                *ret_fleeting = inode->write_holds > 0;
        }
        inode_unlock(inode);
    } while (space_again(fs, &mark, waiter, &err));
    inode_put(fs, inode);
    return (int)err;
}

int fs_statfs(struct fs *fs, struct statvfs *ret_stat)
{
    struct pool_usage usage;
    size_t n_inodes;

    space_settle(fs);
    n_inodes = atomic_load(&fs->n_inodes);
    pool_usage(fs->pool, &usage);
    memset(ret_stat, 0, sizeof(*ret_stat));
    ret_stat->f_bsize = POOL_BLOCK_SIZE;
    ret_stat->f_frsize = POOL_BLOCK_SIZE;
    ret_stat->f_blocks = usage.total;
    ret_stat->f_bfree = usage.free;
    ret_stat->f_bavail = usage.free;
    ret_stat->f_files = fs->max_inodes;
    ret_stat->f_ffree = n_inodes < fs->max_inodes ? fs->max_inodes - n_inodes : 0;
    ret_stat->f_favail = ret_stat->f_ffree;
    ret_stat->f_namemax = FS_NAME_MAX;
    return 0;
}
