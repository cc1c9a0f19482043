/* SPDX-License-Identifier: BSD-2-Clause */
/* Names: looking them up, making and removing them. Renaming is in fs_rename.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fused/fs_front_door.h"
#include "fused/fs_private.h"
#include "fused/fs_space.h"

void entry_fill(struct fs *fs, struct fs_inode *inode, struct fs_entry *entry)
{
    entry->ino = inode->ino;
    entry->generation = fs->generation;
    inode_lock_shared(inode);
    inode_stat(inode, &entry->attr);
    entry->fleeting = inode->write_holds > 0;
    inode_unlock(inode);
}

/* The entry goes to the kernel. */
static void entry_return(struct fs *fs, struct fs_inode *inode, struct fs_entry *ret_entry)
{
    entry_fill(fs, inode, ret_entry);
    inode_add_lookup(fs, inode);
}

int dir_lookup(struct fs *fs, struct fs_inode *dir, const char *name, struct fs_inode **ret_inode)
{
    struct fs_dirent *dirent;
    struct fs_inode *inode = NULL;

    inode_lock_shared(dir);
    dirent = dir_find(fs, dir, name);
    if (dirent) {
        inode = dirent->inode;
        inode_ref(inode);
    }
    inode_unlock(dir);
    if (!inode)
        return strnlen(name, FS_NAME_MAX + 1) > FS_NAME_MAX ? -ENAMETOOLONG : -ENOENT;
    *ret_inode = inode;
    return 0;
}

int fs_lookup(struct fs *fs, uint64_t parent, const char *name, struct fs_entry *ret_entry)
{
    struct fs_inode *dir, *inode;
    int err;

    /* NFS servers ask for "." of anything. */
    if (strcmp(name, ".") == 0) {
        inode = inode_get(fs, parent);
        if (!inode)
            return -ESTALE;
        entry_return(fs, inode, ret_entry);
        inode_put(fs, inode);
        return 0;
    }
    err = inode_get_type(fs, parent, S_IFDIR, &dir);
    if (err)
        return err;
    if (strcmp(name, "..") == 0) {
        inode = inode_get(fs, atomic_load(&dir->parent));
        err = inode ? 0 : -ESTALE;
    } else {
        err = dir_lookup(fs, dir, name, &inode);
    }
    if (!err) {
        entry_return(fs, inode, ret_entry);
        inode_put(fs, inode);
    }
    inode_put(fs, dir);
    return err;
}

int inode_new_in(struct fs *fs, struct fs_inode *dir, mode_t mode, struct fs_cred cred, struct fs_inode **ret_inode)
{
    struct fs_inode *inode = NULL;
    int err;

    if (!inode_room(fs, cred.uid))
        space_settle(fs);
    inode_lock_shared(dir);
    if (dir->mode & S_ISGID) {
        cred.gid = dir->gid;
        if (S_ISDIR(mode))
            mode |= S_ISGID;
    }
    err = inode_new(fs, mode, cred, &inode);
    if (!err && !S_ISLNK(mode))
        err = acl_to_new_inode(dir, inode, cred.umask);
    if (!err)
        inode->lease_policy = dir->lease_policy;
    inode_unlock(dir);
    if (err)
        inode_put(fs, inode);
    else
        *ret_inode = inode;
    return err;
}

/* Gives a new inode (known to nobody yet, so not locked) its first name. */
static int add_first_name(struct fs *fs, struct fs_inode *dir, const char *name, struct fs_inode *inode)
{
    bool is_dir = inode->type == S_IFDIR;
    struct fs_dirent *dirent;
    int err = dirent_new(name, &dirent);

    if (err)
        return err == -EINVAL ? -EEXIST : err; /* "." and ".." exist */
    inode_lock(dir);
    if (dir->nlink == 0)
        err = -ENOENT;
    else if (dir_find(fs, dir, name))
        err = -EEXIST;
    else if (inode_immutable(dir))
        err = -EPERM;
    else if (is_dir && dir->nlink >= FS_LINK_MAX)
        err = -EMLINK;
    if (err) {
        inode_unlock(dir);
        free(dirent);
        return err;
    }
    inode->nlink = is_dir ? 2 : 1;
    inode_ref(inode);
    if (is_dir) {
        atomic_store(&inode->parent, dir->ino);
        dir->nlink++;
    }
    dir_insert(fs, dir, dirent, inode);
    inode_publish(fs, inode);
    inode_touch(dir);
    inode_unlock(dir);
    return 0;
}

struct new_inode {
    mode_t mode;
    dev_t rdev;
    const char *target; /* of a symbolic link */
};

static int make(struct fs *fs, uint64_t parent, const char *name, const struct new_inode *what, struct fs_cred cred,
                struct fs_entry *ret_entry)
{
    struct fs_inode *dir, *inode;
    int err = inode_get_type(fs, parent, S_IFDIR, &dir);

    if (err)
        return err;
    /* Known to be in vain, it takes no inode from those that are left. */
    inode_lock_shared(dir);
    err = dir_find(fs, dir, name) ? -EEXIST : 0;
    inode_unlock(dir);
    if (!err)
        err = inode_new_in(fs, dir, what->mode, cred, &inode);
    if (err)
        goto out_dir;
    inode->rdev = what->rdev;
    if (what->target) {
        inode->target = strdup(what->target);
        err = inode->target ? 0 : -ENOMEM;
    }
    if (!err)
        err = add_first_name(fs, dir, name, inode);
    if (!err)
        entry_return(fs, inode, ret_entry);
    inode_put(fs, inode);
out_dir:
    inode_put(fs, dir);
    return err;
}

int fs_mknod(struct fs *fs, uint64_t parent, const char *name, mode_t mode, dev_t rdev, struct fs_cred cred,
             struct fs_entry *ret_entry)
{
    struct new_inode what = {.mode = mode, .rdev = rdev};

    if (!(mode & S_IFMT))
        what.mode |= S_IFREG;
    switch (what.mode & S_IFMT) {
    case S_IFREG:
    case S_IFIFO:
    case S_IFSOCK:
        what.rdev = 0;
        break;
    case S_IFCHR:
    case S_IFBLK:
        break;
    default:
        return -EINVAL;
    }
    return make(fs, parent, name, &what, cred, ret_entry);
}

int fs_mkdir(struct fs *fs, uint64_t parent, const char *name, mode_t mode, struct fs_cred cred,
             struct fs_entry *ret_entry)
{
    struct new_inode what = {.mode = S_IFDIR | (mode & ~(mode_t)S_IFMT)};

    return make(fs, parent, name, &what, cred, ret_entry);
}

int fs_symlink(struct fs *fs, uint64_t parent, const char *name, const char *target, struct fs_cred cred,
               struct fs_entry *ret_entry)
{
    struct new_inode what = {.mode = S_IFLNK | 0777, .target = target};

    if (!*target)
        return -ENOENT;
    if (strlen(target) > FS_SYMLINK_MAX)
        return -ENAMETOOLONG;
    return make(fs, parent, name, &what, cred, ret_entry);
}

int fs_tmpfile(struct fs *fs, uint64_t parent, mode_t mode, struct fs_cred cred, struct fs_entry *ret_entry)
{
    struct fs_inode *dir, *inode;
    int err = inode_get_type(fs, parent, S_IFDIR, &dir);

    if (err)
        return err;
    inode_lock_shared(dir);
    err = inode_immutable(dir) ? -EPERM : 0;
    inode_unlock(dir);
    if (!err)
        err = inode_new_in(fs, dir, S_IFREG | (mode & ~(mode_t)S_IFMT), cred, &inode);
    if (!err) {
        inode->linkable = true;
        space_on_nameless(fs, inode, true);
        inode_publish(fs, inode);
        entry_return(fs, inode, ret_entry);
        inode_put(fs, inode);
    }
    inode_put(fs, dir);
    return err;
}

/* One more name; both locked. */
static void add_name(struct fs *fs, struct fs_inode *dir, struct fs_dirent *dirent, struct fs_inode *inode)
{
    if (inode->nlink++ == 0)
        inode_ref(inode);
    inode->linkable = false;
    space_on_nameless(fs, inode, false);
    dir_insert(fs, dir, dirent, inode);
    inode->ctime = fs_now();
    inode_touch(dir);
}

/* May this file have one more name? Locked. */
static int check_linkable(const struct fs_inode *inode)
{
    if (inode->type == S_IFDIR || inode_kept(inode))
        return -EPERM;
    if (inode->nlink == 0 && !inode->linkable)
        return -ENOENT;
    return inode->nlink >= FS_LINK_MAX ? -EMLINK : 0;
}

static int link_inode(struct fs *fs, struct fs_inode *inode, struct fs_inode *dir, const char *name)
{
    struct fs_dirent *dirent;
    int err = dirent_new(name, &dirent);

    if (err)
        return err == -EINVAL ? -EEXIST : err;
    inode_lock_set(dir, inode, NULL, NULL);
    err = check_linkable(inode);
    if (!err && dir->nlink == 0)
        err = -ENOENT;
    if (!err && dir_find(fs, dir, name))
        err = -EEXIST;
    if (!err && inode_immutable(dir))
        err = -EPERM;
    if (!err)
        add_name(fs, dir, dirent, inode);
    inode_unlock_set(dir, inode, NULL, NULL);
    if (err)
        free(dirent);
    return err;
}

int fs_link(struct fs *fs, uint64_t ino, uint64_t parent, const char *name, struct fs_entry *ret_entry)
{
    struct fs_inode *dir, *inode;
    int err = inode_get_type(fs, parent, S_IFDIR, &dir);

    if (err)
        return err;
    inode = inode_get(fs, ino);
    err = inode ? link_inode(fs, inode, dir, name) : -ESTALE;
    if (!err)
        entry_return(fs, inode, ret_entry);
    inode_put(fs, inode);
    inode_put(fs, dir);
    return err;
}

/* One name less; both locked. true: it was the last, and the caller gives the reference of the names back after
 * unlocking. */
static bool drop_name(struct fs *fs, struct fs_inode *inode)
{
    inode->ctime = fs_now();
    if (--inode->nlink > 0)
        return false;
    space_on_nameless(fs, inode, true);
    return true;
}

/* Both locked; the name was looked up again. */
static int unlink_locked(struct fs *fs, struct fs_inode *dir, struct fs_dirent *dirent, struct lease_waiter *waiter,
                         bool *ret_last)
{
    struct fs_inode *inode = dirent->inode;

    if (inode_kept(dir) || inode_kept(inode))
        return -EPERM;
    if (inode->type == S_IFDIR)
        return -EISDIR;
    if (inode->nlink == 1) {
        int err = front_door(fs, inode, range_from(0), LEASE_OP_DROP, waiter);

        if (err)
            return err;
    }
    dir_remove(dir, dirent);
    *ret_last = drop_name(fs, inode);
    inode_touch(dir);
    return 0;
}

static int rmdir_locked(struct fs_inode *dir, struct fs_dirent *dirent, bool *ret_last)
{
    struct fs_inode *inode = dirent->inode;

    if (inode_kept(dir) || inode_kept(inode))
        return -EPERM;
    if (inode->type != S_IFDIR)
        return -ENOTDIR;
    if (!dir_empty(inode->dir))
        return -ENOTEMPTY;
    dir_remove(dir, dirent);
    inode->nlink = 0;
    inode->ctime = fs_now();
    *ret_last = true;
    dir->nlink--;
    inode_touch(dir);
    return 0;
}

static int remove_name(struct fs *fs, uint64_t parent, const char *name, bool is_rmdir, struct lease_waiter *waiter)
{
    struct fs_inode *dir;
    int err = inode_get_type(fs, parent, S_IFDIR, &dir);

    if (err)
        return err;
    for (bool again = true; again;) {
        struct fs_inode *inode;
        struct fs_dirent *dirent;
        bool last = false;

        err = dir_lookup(fs, dir, name, &inode);
        if (err)
            break;
        inode_lock_set(dir, inode, NULL, NULL);
        dirent = dir_find(fs, dir, name);
        again = dirent && dirent->inode != inode;
        if (!dirent)
            err = -ENOENT;
        else if (!again)
            err = is_rmdir ? rmdir_locked(dir, dirent, &last) : unlink_locked(fs, dir, dirent, waiter, &last);
        inode_unlock_set(dir, inode, NULL, NULL);
        if (last)
            inode_put(fs, inode);
        inode_put(fs, inode);
    }
    inode_put(fs, dir);
    return err;
}

int fs_unlink(struct fs *fs, uint64_t parent, const char *name, struct lease_waiter *waiter)
{
    return remove_name(fs, parent, name, false, waiter);
}

int fs_rmdir(struct fs *fs, uint64_t parent, const char *name)
{
    if (strcmp(name, ".") == 0)
        return -EINVAL;
    return remove_name(fs, parent, name, true, NULL);
}

/* Puts `inode` where `old` is. All three locked, the name looked up again. */
static int replace_locked(struct fs *fs, struct fs_inode *dir, struct fs_dirent *dirent, struct fs_inode *inode,
                          struct lease_waiter *waiter, bool *ret_last)
{
    struct fs_inode *old = dirent->inode;
    int err;

    if (old->type == S_IFDIR)
        return -EISDIR;
    if (inode_kept(dir) || inode_kept(old))
        return -EPERM;
    if (old->nlink == 1) {
        err = front_door(fs, old, range_from(0), LEASE_OP_DROP, waiter);
        if (err)
            return err;
    }
    dirent_set_inode(dirent, inode);
    if (inode->nlink++ == 0)
        inode_ref(inode);
    inode->linkable = false;
    space_on_nameless(fs, inode, false);
    inode->ctime = fs_now();
    *ret_last = drop_name(fs, old);
    inode_touch(dir);
    return 0;
}

int fs_link_over(struct fs *fs, struct fs_inode *inode, struct fs_inode *dir, const char *name,
                 struct lease_waiter *waiter)
{
    int err;

    for (bool again = true; again;) {
        struct fs_inode *old;
        struct fs_dirent *dirent;
        bool last = false;

        err = dir_lookup(fs, dir, name, &old);
        if (err == -ENOENT) {
            err = link_inode(fs, inode, dir, name);
            again = err == -EEXIST && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
            continue;
        }
        if (err)
            return err;
        inode_lock_set(dir, inode, old, NULL);
        dirent = dir_find(fs, dir, name);
        again = !dirent || dirent->inode != old;
        if (!again && old != inode) {
            err = check_linkable(inode);
            if (!err)
                err = replace_locked(fs, dir, dirent, inode, waiter, &last);
        }
        inode_unlock_set(dir, inode, old, NULL);
        if (!again && !err)
            cache_forget_attr(fs, old->ino); /* it may have other names, or be open */
        if (last)
            inode_put(fs, old);
        inode_put(fs, old);
    }
    return err;
}

int fs_readlink(struct fs *fs, uint64_t ino, char *buffer, size_t size)
{
    struct fs_inode *inode;
    int err = inode_get_type(fs, ino, S_IFLNK, &inode);
    size_t length;

    if (err)
        return err == -EISDIR ? -EINVAL : err;
    length = strlen(inode->target);
    if (length >= size)
        err = -ENAMETOOLONG;
    else
        memcpy(buffer, inode->target, length + 1);
    inode_lock_shared(inode);
    inode_accessed(fs, inode);
    inode_unlock(inode);
    inode_put(fs, inode);
    return err;
}
