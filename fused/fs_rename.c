/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "fused/fs_front_door.h"
#include "fused/fs_private.h"
#include "fused/fs_space.h"

/* Everything that one rename touches; all references owned, `dst` NULL when the new name is free. */
struct rename {
    struct fs_inode *old_dir, *new_dir;
    const char *old_name, *new_name;
    unsigned flags;
    struct fs_inode *src, *dst;
    struct fs_dirent *src_entry, *dst_entry; /* valid while locked */
    struct fs_dirent *spare;                 /* the new entry, if it comes to one */
    struct fs_inode *whiteout;               /* what takes the old name, or NULL; has no name yet */
    bool dst_gone;                           /* its last name was replaced */
};

static bool crosses(const struct rename *r)
{
    return r->old_dir != r->new_dir;
}

/* Is `dir` the directory `top` or below it? Under rename_lock, exclusive: no directory changes its parent. */
static bool is_below(struct fs *fs, struct fs_inode *dir, const struct fs_inode *top)
{
    uint64_t ino = dir->ino;

    while (ino != top->ino && ino != FS_ROOT_INO) {
        struct fs_inode *step = inode_get(fs, ino);

        if (!step)
            return false;
        ino = atomic_load(&step->parent);
        inode_put(fs, step);
    }
    return ino == top->ino;
}

static int rename_find(struct fs *fs, struct rename *r)
{
    int err = dir_lookup(fs, r->old_dir, r->old_name, &r->src);

    if (err)
        return err;
    err = dir_lookup(fs, r->new_dir, r->new_name, &r->dst);
    if (err && err != -ENOENT) {
        inode_put(fs, r->src);
        return err;
    }
    if (err)
        r->dst = NULL;
    return 0;
}

static void rename_lock(struct rename *r)
{
    inode_lock_set(r->old_dir, r->new_dir, r->src, r->dst);
}

static void rename_unlock(struct rename *r)
{
    inode_unlock_set(r->old_dir, r->new_dir, r->src, r->dst);
}

/* Do the names still mean what they meant before the locks were taken? */
static bool rename_unchanged(struct fs *fs, struct rename *r)
{
    r->src_entry = dir_find(fs, r->old_dir, r->old_name);
    r->dst_entry = dir_find(fs, r->new_dir, r->new_name);
    return r->src_entry && r->src_entry->inode == r->src && (r->dst_entry ? r->dst_entry->inode : NULL) == r->dst;
}

static int check_replace(const struct rename *r)
{
    bool src_dir = r->src->type == S_IFDIR;
    bool dst_dir = r->dst->type == S_IFDIR;

    if (src_dir && !dst_dir)
        return -ENOTDIR;
    if (!src_dir && dst_dir)
        return -EISDIR;
    return dst_dir && !dir_empty(r->dst->dir) ? -ENOTEMPTY : 0;
}

static int rename_check(struct fs *fs, const struct rename *r)
{
    bool exchange = r->flags & RENAME_EXCHANGE;

    if (r->new_dir->nlink == 0)
        return -ENOENT;
    if (r->dst && (r->flags & RENAME_NOREPLACE))
        return -EEXIST;
    if (!r->dst && exchange)
        return -ENOENT;
    if (inode_kept(r->old_dir) || inode_kept(r->src) || inode_immutable(r->new_dir))
        return -EPERM;
    if (r->dst && (inode_kept(r->new_dir) || inode_kept(r->dst)))
        return -EPERM;
    if (crosses(r)) {
        bool src_dir = r->src->type == S_IFDIR;
        bool dst_dir = r->dst && r->dst->type == S_IFDIR;

        if (src_dir && is_below(fs, r->new_dir, r->src))
            return -EINVAL;
        if (dst_dir && is_below(fs, r->old_dir, r->dst))
            return exchange ? -EINVAL : -ENOTEMPTY;
        if (src_dir && !dst_dir && r->new_dir->nlink >= FS_LINK_MAX)
            return -EMLINK;
    }
    return r->dst && !exchange ? check_replace(r) : 0;
}

/* A directory came from one parent to another. */
static void moved_dir(struct fs_inode *inode, struct fs_inode *from, struct fs_inode *to)
{
    if (inode->type != S_IFDIR)
        return;
    from->nlink--;
    to->nlink++;
    atomic_store(&inode->parent, to->ino);
}

static void rename_exchange(struct rename *r)
{
    dirent_set_inode(r->src_entry, r->dst);
    dirent_set_inode(r->dst_entry, r->src);
    if (crosses(r)) {
        moved_dir(r->src, r->old_dir, r->new_dir);
        moved_dir(r->dst, r->new_dir, r->old_dir);
    }
    r->dst->ctime = fs_now();
}

/* The source has its new name. */
static void give_up_old_name(struct fs *fs, struct rename *r)
{
    if (!r->whiteout) {
        dir_remove(r->old_dir, r->src_entry);
        return;
    }
    r->whiteout->nlink = 1;
    inode_ref(r->whiteout);
    dirent_set_inode(r->src_entry, r->whiteout);
    inode_publish(fs, r->whiteout);
}

static int rename_over(struct fs *fs, struct rename *r, struct lease_waiter *waiter)
{
    bool is_dir = r->dst->type == S_IFDIR;

    if (!is_dir && r->dst->nlink == 1) {
        int err = front_door(fs, r->dst, range_from(0), LEASE_OP_DROP, waiter);

        if (err)
            return err;
    }
    dirent_set_inode(r->dst_entry, r->src);
    give_up_old_name(fs, r);
    if (is_dir) {
        r->dst->nlink = 0;
        r->new_dir->nlink--;
    } else {
        r->dst->nlink--;
    }
    r->dst->ctime = fs_now();
    r->dst_gone = r->dst->nlink == 0;
    space_on_nameless(fs, r->dst, r->dst_gone);
    if (crosses(r))
        moved_dir(r->src, r->old_dir, r->new_dir);
    return 0;
}

/* In the same directory it stays at its place: who is reading the directory meets it once. */
static void rename_to_free_name(struct fs *fs, struct rename *r)
{
    if (!crosses(r) && !r->whiteout) {
        dir_insert_instead(fs, r->new_dir, r->src_entry, r->spare, r->src);
    } else {
        give_up_old_name(fs, r);
        dir_insert(fs, r->new_dir, r->spare, r->src);
    }
    r->spare = NULL;
    if (crosses(r))
        moved_dir(r->src, r->old_dir, r->new_dir);
}

static int rename_locked(struct fs *fs, struct rename *r, struct lease_waiter *waiter)
{
    int err = rename_check(fs, r);

    if (err)
        return err;
    if (r->src == r->dst)
        return 0; /* two names of one file: POSIX wants nothing done */
    if (r->flags & RENAME_EXCHANGE)
        rename_exchange(r);
    else if (r->dst)
        err = rename_over(fs, r, waiter);
    else
        rename_to_free_name(fs, r);
    if (err)
        return err;
    r->src->ctime = fs_now();
    inode_touch(r->old_dir);
    inode_touch(r->new_dir);
    return 0;
}

static int rename_dirs(struct fs *fs, struct rename *r, struct lease_waiter *waiter)
{
    int err;

    for (bool again = true; again;) {
        r->dst_gone = false;
        err = rename_find(fs, r);
        if (err)
            break;
        rename_lock(r);
        again = !rename_unchanged(fs, r);
        if (!again)
            err = rename_locked(fs, r, waiter);
        rename_unlock(r);
        if (r->dst_gone)
            inode_put(fs, r->dst);
        inode_put(fs, r->src);
        inode_put(fs, r->dst);
    }
    return err;
}

static int check_names(const struct rename *r)
{
    if (strcmp(r->old_name, ".") == 0 || strcmp(r->old_name, "..") == 0 || strcmp(r->new_name, ".") == 0 ||
        strcmp(r->new_name, "..") == 0)
        return -EBUSY;
    if (r->flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
        return -EINVAL;
    return r->flags & RENAME_EXCHANGE && r->flags != RENAME_EXCHANGE ? -EINVAL : 0;
}

static int whiteout_new(struct fs *fs, struct rename *r, struct fs_cred cred)
{
    int err = inode_new_in(fs, r->old_dir, S_IFCHR, cred, &r->whiteout);

    if (!err)
        r->whiteout->rdev = makedev(0, 0);
    return err;
}

int fs_rename(struct fs *fs, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
              unsigned flags, struct fs_cred cred, struct lease_waiter *waiter)
{
    struct rename r = {.old_name = name, .new_name = new_name, .flags = flags};
    int err = check_names(&r);

    if (err)
        return err;
    err = dirent_new(new_name, &r.spare);
    if (err)
        return err;
    err = inode_get_type(fs, parent, S_IFDIR, &r.old_dir);
    if (err)
        goto out_spare;
    err = inode_get_type(fs, new_parent, S_IFDIR, &r.new_dir);
    if (err)
        goto out_old;
    if (flags & RENAME_WHITEOUT)
        err = whiteout_new(fs, &r, cred);
    if (err)
        goto out_new;
    if (crosses(&r) && pthread_rwlock_trywrlock(&fs->rename_lock)) {
        turn_pass();
        pthread_rwlock_wrlock(&fs->rename_lock);
    }
    err = rename_dirs(fs, &r, waiter);
    if (crosses(&r))
        pthread_rwlock_unlock(&fs->rename_lock);
    inode_put(fs, r.whiteout);
out_new:
    inode_put(fs, r.new_dir);
out_old:
    inode_put(fs, r.old_dir);
out_spare:
    free(r.spare);
    return err;
}
