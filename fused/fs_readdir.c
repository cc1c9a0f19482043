/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fused/fs_private.h"

enum { COOKIE_DOT = 1, COOKIE_DOT_DOT = 2 };

static void fill_bare(struct fs_dir_entry *entry, uint64_t cookie, uint64_t ino, mode_t type, const char *name)
{
    entry->cookie = cookie;
    entry->entry = (struct fs_entry){.ino = ino, .attr = {.st_ino = ino, .st_mode = type}};
    strcpy(entry->name, name); /* at most FS_NAME_MAX bytes */
}

/* Lists under the directory's lock. The inodes' attributes are read after it is given back, for which each entry's
 * inode is referenced (`inodes` not NULL). */
static size_t list_names(struct fs_inode *dir, uint64_t cookie, uint64_t end, struct fs_dir_entry *entries,
                         struct fs_inode **inodes, size_t max)
{
    size_t n = 0;

    inode_lock_shared(dir);
    if (cookie < COOKIE_DOT && n < max)
        fill_bare(&entries[n++], COOKIE_DOT, dir->ino, S_IFDIR, ".");
    if (cookie < COOKIE_DOT_DOT && n < max)
        fill_bare(&entries[n++], COOKIE_DOT_DOT, atomic_load(&dir->parent), S_IFDIR, "..");
    if (cookie < COOKIE_DOT_DOT)
        cookie = COOKIE_DOT_DOT;
    while (n < max) {
        struct fs_dirent *dirent = dir_after(dir->dir, cookie);

        if (!dirent || dirent->cookie >= end)
            break;
        cookie = dirent->cookie;
        if (inodes) {
            inode_ref(dirent->inode);
            inodes[n] = dirent->inode;
        }
        fill_bare(&entries[n++], cookie, dirent->inode->ino, dirent->inode->type, dirent->name);
    }
    inode_unlock(dir);
    return n;
}

int fs_readdir(struct fs *fs, uint64_t ino, uint64_t cookie, uint64_t end, bool with_attr, struct fs_dir_entry *entries,
               size_t max)
{
    struct fs_inode **inodes = NULL;
    struct fs_inode *dir;
    size_t n;
    int err = inode_get_type(fs, ino, S_IFDIR, &dir);

    if (err)
        return err;
    if (with_attr) {
        inodes = calloc(max, sizeof(*inodes));
        if (!inodes) {
            inode_put(fs, dir);
            return -ENOMEM;
        }
    }
    n = list_names(dir, cookie, end, entries, inodes, max);
    for (size_t i = 0; inodes && i < n; i++) {
        if (!inodes[i])
            continue;
        entry_fill(fs, inodes[i], &entries[i].entry);
        inode_add_lookup(fs, inodes[i]);
        inode_put(fs, inodes[i]);
    }
    free(inodes);
    inode_put(fs, dir);
    return (int)n;
}

int fs_readdir_end(struct fs *fs, uint64_t ino, uint64_t *ret_end)
{
    struct fs_inode *dir;
    int err = inode_get_type(fs, ino, S_IFDIR, &dir);

    if (err)
        return err;
    inode_lock_shared(dir);
    *ret_end = dir_end(dir->dir);
    inode_unlock(dir);
    inode_put(fs, dir);
    return 0;
}
