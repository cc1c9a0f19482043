/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/fs_path.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "fused/fs_acl.h"
#include "lease/key_file.h"

#define MAX_LINKS 40

struct walk {
    struct fs *fs;
    const struct lease_credentials *who;
    struct fs_inode *at; /* referenced */
    /* Of a confined client: the export the walk is in, and its directory, referenced. */
    const struct path_export *inside;
    struct fs_inode *top;
    char *buffer; /* owned; `rest` points into it */
    char *rest;   /* what is left of the path */
    int links;
};

static bool in_group(const void *arg, gid_t gid)
{
    const struct lease_credentials *who = arg;

    if (who->gid == gid)
        return true;
    for (size_t i = 0; i < who->n_groups; i++) {
        if (who->groups[i] == gid)
            return true;
    }
    return false;
}

int path_permission(struct fs_inode *inode, const struct lease_credentials *who, unsigned may)
{
    struct acl_who acl_who = {.uid = who->uid, .in_group = in_group, .arg = who};
    unsigned granted;
    const void *acl;
    size_t size;

    inode_lock_shared(inode);
    if ((may & PATH_MAY_WRITE) && inode_kept(inode)) {
        inode_unlock(inode);
        return -EPERM;
    }
    acl = xattr_access_acl(inode, &size);
    if (who->uid == 0)
        granted = PATH_MAY_READ | PATH_MAY_WRITE | PATH_MAY_SEARCH;
    else if (acl)
        granted = acl_granted(acl, size, inode->uid, inode->gid, &acl_who, may);
    else if (who->uid == inode->uid)
        granted = inode->mode >> 6;
    else if (in_group(who, inode->gid))
        granted = inode->mode >> 3;
    else
        granted = inode->mode;
    inode_unlock(inode);
    return (granted & may) == may ? 0 : -EACCES;
}

/* What is left of `path` below the export; NULL: it is not there. Component by component: /a is no prefix of /ab. */
static const char *below_export(const char *path, const char *export)
{
    for (;;) {
        size_t length;

        export += strspn(export, "/");
        if (!*export)
            return path;
        path += strspn(path, "/");
        length = strcspn(export, "/");
        if (strcspn(path, "/") != length || memcmp(path, export, length) != 0)
            return NULL;
        path += length;
        export += length;
    }
}

/* Into the export that the path names; of several the most specific. What leads to the export is the administrator's
 * path, so links in it are followed, but as the client (I9). Nobody learns whether there is something outside. */
static int enter_export(struct walk *walk, const char *path)
{
    struct lease_credentials free_to_go = *walk->who;
    const char *rest = NULL;
    struct fs_inode *top;
    char *buffer;
    int err;

    walk->inside = NULL;
    for (size_t i = 0; i < walk->who->n_exports; i++) {
        const struct path_export *export = &walk->who->exports[i];
        const char *below = below_export(path, export->path);

        if (below && (!rest || below > rest)) {
            walk->inside = export;
            rest = below;
        }
    }
    if (!walk->inside)
        return -EACCES;
    free_to_go.confined = false;
    err = path_walk(walk->fs, walk->inside->path, &free_to_go, &top);
    if (err)
        return err;
    buffer = strdup(rest);
    if (!buffer) {
        inode_put(walk->fs, top);
        return -ENOMEM;
    }
    free(walk->buffer);
    walk->buffer = walk->rest = buffer;
    inode_put(walk->fs, walk->at);
    inode_put(walk->fs, walk->top);
    inode_ref(top);
    walk->at = walk->top = top;
    return 0;
}

static int walk_start(struct walk *walk, struct fs *fs, const char *path, const struct lease_credentials *who)
{
    if (path[0] != '/')
        return -EINVAL;
    if (strlen(path) >= PATH_MAX)
        return -ENAMETOOLONG;
    *walk = (struct walk){.fs = fs, .who = who, .at = fs->root};
    walk->buffer = strdup(path);
    if (!walk->buffer)
        return -ENOMEM;
    walk->rest = walk->buffer;
    inode_ref(fs->root);
    if (who->confined) {
        int err = enter_export(walk, path);

        if (err) {
            free(walk->buffer);
            inode_put(fs, walk->at);
            inode_put(fs, walk->top);
        }
        return err;
    }
    return 0;
}

/* Keeps `at` when ret_inode is given. */
static void walk_end(struct walk *walk, struct fs_inode **ret_inode)
{
    free(walk->buffer);
    inode_put(walk->fs, walk->top);
    if (ret_inode)
        *ret_inode = walk->at;
    else
        inode_put(walk->fs, walk->at);
}

/* Cuts the next component off `rest`. *ret_more: something, if only a slash, came after it. false: none left. */
static bool next_component(struct walk *walk, char **ret_name, bool *ret_more)
{
    char *name = walk->rest + strspn(walk->rest, "/");
    size_t length = strcspn(name, "/");

    if (length == 0)
        return false;
    *ret_more = name[length] == '/';
    walk->rest = name + length + *ret_more;
    name[length] = '\0';
    *ret_name = name;
    return true;
}

static void step_to(struct walk *walk, struct fs_inode *inode)
{
    inode_put(walk->fs, walk->at);
    walk->at = inode;
}

static int follow(struct walk *walk, const struct fs_inode *link, bool more)
{
    size_t size = strlen(link->target) + 1 + strlen(walk->rest) + 1;
    char *path;
    int err;

    if (++walk->links > MAX_LINKS)
        return -ELOOP;
    if (size > PATH_MAX)
        return -ENAMETOOLONG;
    path = malloc(size);
    if (!path)
        return -ENOMEM;
    strcpy(path, link->target);
    if (more) {
        strcat(path, "/");
        strcat(path, walk->rest);
    }
    if (path[0] == '/' && walk->who->confined) {
        err = enter_export(walk, path);
        free(path);
        return err;
    }
    free(walk->buffer);
    walk->buffer = walk->rest = path;
    if (path[0] == '/') {
        inode_ref(walk->fs->root);
        step_to(walk, walk->fs->root);
    }
    return 0;
}

static int check_search(const struct walk *walk)
{
    if (walk->at->type != S_IFDIR)
        return -ENOTDIR;
    return path_permission(walk->at, walk->who, PATH_MAY_SEARCH);
}

/* Is this directory below the top of the export? With fs.rename_lock, so that it does not move meanwhile. */
static bool is_inside_locked(const struct walk *walk)
{
    struct fs_inode *inode = walk->at, *parent;
    bool inside;

    inode_ref(inode);
    while (inode && inode != walk->top && inode != walk->fs->root) {
        parent = inode_get(walk->fs, atomic_load(&inode->parent));
        inode_put(walk->fs, inode);
        inode = parent;
    }
    inside = inode == walk->top;
    inode_put(walk->fs, inode);
    return inside;
}

/* "..": never out of an export, also when somebody moves the directory out of it just now. */
static int parent_of(const struct walk *walk, struct fs_inode **ret_inode)
{
    bool allowed = true;

    if (walk->who->confined) {
        pthread_rwlock_rdlock(&walk->fs->rename_lock);
        allowed = walk->at != walk->top && is_inside_locked(walk);
    }
    *ret_inode = allowed ? inode_get(walk->fs, atomic_load(&walk->at->parent)) : NULL;
    if (walk->who->confined)
        pthread_rwlock_unlock(&walk->fs->rename_lock);
    if (!allowed)
        return -EACCES;
    return *ret_inode ? 0 : -ENOENT;
}

static int walk_component(struct walk *walk, const char *name, bool more)
{
    struct fs_inode *inode;
    int err = check_search(walk);

    if (err)
        return err;
    if (strcmp(name, ".") == 0)
        return 0;
    if (strcmp(name, "..") == 0) {
        err = parent_of(walk, &inode);
    } else {
        err = dir_lookup(walk->fs, walk->at, name, &inode);
    }
    if (err)
        return err;
    if (inode->type == S_IFLNK) {
        err = follow(walk, inode, more);
        inode_put(walk->fs, inode);
        return err;
    }
    step_to(walk, inode);
    return more && inode->type != S_IFDIR ? -ENOTDIR : 0;
}

static bool is_read_only(const struct walk *walk)
{
    return walk->inside && walk->inside->read_only;
}

static int walk_to(struct fs *fs, const char *path, const struct lease_credentials *who, bool to_change,
                   struct fs_inode **ret_inode)
{
    struct walk walk;
    char *name;
    bool more;
    int err = walk_start(&walk, fs, path, who);

    if (err)
        return err;
    while (!err && next_component(&walk, &name, &more))
        err = walk_component(&walk, name, more);
    if (!err && to_change && is_read_only(&walk))
        err = -EROFS;
    walk_end(&walk, err ? NULL : ret_inode);
    return err;
}

int path_walk(struct fs *fs, const char *path, const struct lease_credentials *who, struct fs_inode **ret_inode)
{
    return walk_to(fs, path, who, false, ret_inode);
}

int path_walk_to_change(struct fs *fs, const char *path, const struct lease_credentials *who,
                        struct fs_inode **ret_inode)
{
    return walk_to(fs, path, who, true, ret_inode);
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

int path_walk_parent(struct fs *fs, const char *path, const struct lease_credentials *who, struct fs_inode **ret_dir,
                     char ret_name[FS_NAME_MAX + 1])
{
    struct walk walk;
    char *name;
    bool more;
    int err = walk_start(&walk, fs, path, who);

    if (err)
        return err;
    for (;;) {
        if (!next_component(&walk, &name, &more)) {
            err = -EISDIR;
            break;
        }
        if (!more || walk.rest[strspn(walk.rest, "/")] == '\0') {
            err = more || is_dots(name) ? -EISDIR : check_search(&walk);
            break;
        }
        err = walk_component(&walk, name, more);
        if (err)
            break;
    }
    if (!err && is_read_only(&walk))
        err = -EROFS;
    if (!err && strlen(name) > FS_NAME_MAX)
        err = -ENAMETOOLONG;
    if (!err)
        strcpy(ret_name, name);
    walk_end(&walk, err ? NULL : ret_dir);
    return err;
}

int path_may_replace(struct fs *fs, struct fs_inode *dir, const char *name, const struct lease_credentials *who)
{
    struct fs_inode *old;
    bool sticky, own_dir;
    int err = path_permission(dir, who, PATH_MAY_WRITE | PATH_MAY_SEARCH);

    if (err)
        return err;
    err = dir_lookup(fs, dir, name, &old);
    if (err)
        return err == -ENOENT ? 0 : err;
    inode_lock_shared(dir);
    sticky = dir->mode & S_ISVTX;
    own_dir = dir->uid == who->uid;
    inode_unlock(dir);
    if (old->type == S_IFDIR) {
        err = -EISDIR;
    } else if (sticky && !own_dir && who->uid != 0) {
        inode_lock_shared(old);
        err = old->uid == who->uid ? 0 : -EPERM;
        inode_unlock(old);
    }
    inode_put(fs, old);
    return err;
}

/* One step up: the name of `inode` in the directory that it then goes to. The reference moves along. */
static int prepend_name(struct fs *fs, struct fs_inode **inode, char *buffer, size_t *start)
{
    struct fs_inode *dir = NULL;
    struct fs_dirent *dirent;
    int err = -ENOENT;

    inode_lock_shared(*inode);
    dirent = LIST_FIRST(&(*inode)->names);
    if (dirent && *start < dirent->name_length + 1) {
        err = -ENAMETOOLONG;
    } else if (dirent) {
        *start -= dirent->name_length;
        memcpy(buffer + *start, dirent->name, dirent->name_length);
        buffer[--*start] = '/';
        dir = dirent->dir;
        inode_ref(dir);
        err = 0;
    }
    inode_unlock(*inode);
    if (!err) {
        inode_put(fs, *inode);
        *inode = dir;
    }
    return err;
}

int fs_inode_path(struct fs *fs, struct fs_inode *inode, char **ret_path)
{
    char buffer[PATH_MAX];
    size_t start = sizeof(buffer) - 1;
    char *path;
    int err = 0;

    buffer[start] = '\0';
    inode_ref(inode);
    pthread_rwlock_rdlock(&fs->rename_lock);
    while (!err && inode != fs->root)
        err = prepend_name(fs, &inode, buffer, &start);
    pthread_rwlock_unlock(&fs->rename_lock);
    inode_put(fs, inode);
    if (err)
        return err;
    path = strdup(start == sizeof(buffer) - 1 ? "/" : buffer + start);
    if (!path)
        return -ENOMEM;
    *ret_path = path;
    return 0;
}
