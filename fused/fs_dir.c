/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each directory has its entries twice: in a hash table by name, and in a tree by cookie. Cookies count up and are
 * not reused, so a reader that continues after the cookie it saw last meets every entry that stays exactly once,
 * whatever is added and removed meanwhile.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "fused/fs_private.h"

#ifndef __unused /* the tree macros want it, and not every libbsd defines it under glibc */
#define __unused __attribute__((unused))
#endif

#define DIR_MIN_BUCKETS  8u
#define DIR_SPARSE       8u /* buckets for each entry: too many */
#define DIR_FIRST_COOKIE 3u /* 1 and 2 are "." and ".." */

RB_HEAD(cookie_tree, fs_dirent);

struct fs_dir {
    struct fs_dirent **buckets;
    size_t n_buckets, n_entries; /* n_buckets is 0 or a power of two */
    uint64_t next_cookie;
    struct cookie_tree tree;
};

static int cookie_order(struct fs_dirent *a, struct fs_dirent *b)
{
    return a->cookie < b->cookie ? -1 : a->cookie > b->cookie;
}

RB_GENERATE_STATIC(cookie_tree, fs_dirent, by_cookie, cookie_order)

int dir_new(struct fs_dir **ret_dir)
{
    struct fs_dir *dir = calloc(1, sizeof(*dir));

    if (!dir)
        return -ENOMEM;
    dir->buckets = calloc(DIR_MIN_BUCKETS, sizeof(*dir->buckets));
    if (!dir->buckets) {
        free(dir);
        return -ENOMEM;
    }
    dir->n_buckets = DIR_MIN_BUCKETS;
    dir->next_cookie = DIR_FIRST_COOKIE;
    RB_INIT(&dir->tree);
    *ret_dir = dir;
    return 0;
}

void dir_free(struct fs_dir *dir)
{
    struct fs_dirent *dirent, *next;

    if (!dir)
        return;
    for (dirent = RB_MIN(cookie_tree, &dir->tree); dirent; dirent = next) {
        next = RB_NEXT(cookie_tree, &dir->tree, dirent);
        RB_REMOVE(cookie_tree, &dir->tree, dirent);
        free(dirent);
    }
    free(dir->buckets);
    free(dir);
}

bool dir_empty(const struct fs_dir *dir)
{
    return dir->n_entries == 0;
}

/* Seeded, so that nobody can choose names that all fall into one bucket. */
static uint64_t hash_name(const struct fs *fs, const char *name, size_t length)
{
    return XXH3_64bits_withSeed(name, length, fs->hash_seed);
}

struct fs_dirent *dir_find(const struct fs *fs, const struct fs_inode *inode, const char *name)
{
    const struct fs_dir *dir = inode->dir;
    size_t length = strlen(name);
    uint64_t hash = hash_name(fs, name, length);

    for (struct fs_dirent *d = dir->buckets[hash & (dir->n_buckets - 1)]; d; d = d->hash_next) {
        if (d->hash == hash && d->name_length == length && memcmp(d->name, name, length) == 0)
            return d;
    }
    return NULL;
}

uint64_t dir_end(const struct fs_dir *dir)
{
    return dir->next_cookie;
}

struct fs_dirent *dir_after(const struct fs_dir *dir, uint64_t cookie)
{
    struct fs_dirent key = {.cookie = cookie + 1};

    if (cookie == UINT64_MAX)
        return NULL;
    return RB_NFIND(cookie_tree, (struct cookie_tree *)&dir->tree, &key);
}

int dirent_new(const char *name, struct fs_dirent **ret_dirent)
{
    size_t length = strnlen(name, FS_NAME_MAX + 1);
    struct fs_dirent *dirent;

    if (length > FS_NAME_MAX)
        return -ENAMETOOLONG;
    if (length == 0)
        return -ENOENT;
    if (strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return -EINVAL;
    dirent = calloc(1, sizeof(*dirent) + length + 1);
    if (!dirent)
        return -ENOMEM;
    dirent->name_length = length;
    memcpy(dirent->name, name, length + 1);
    *ret_dirent = dirent;
    return 0;
}

/* A table that cannot grow only gets slower, one that cannot shrink keeps its memory. */
static void dir_resize(struct fs_dir *dir, size_t n_buckets)
{
    size_t n_old = dir->n_buckets;
    struct fs_dirent **old = dir->buckets;
    struct fs_dirent **buckets = calloc(n_buckets, sizeof(*buckets));

    if (!buckets)
        return;
    dir->buckets = buckets;
    dir->n_buckets = n_buckets;
    for (size_t i = 0; i < n_old; i++) {
        struct fs_dirent *next;

        for (struct fs_dirent *d = old[i]; d; d = next) {
            struct fs_dirent **bucket = &buckets[d->hash & (dir->n_buckets - 1)];

            next = d->hash_next;
            d->hash_next = *bucket;
            *bucket = d;
        }
    }
    free(old);
}

static void insert_at(const struct fs *fs, struct fs_inode *dir_inode, uint64_t cookie, struct fs_dirent *dirent,
                      struct fs_inode *inode)
{
    struct fs_dir *dir = dir_inode->dir;
    struct fs_dirent **bucket;

    if (dir->n_entries >= dir->n_buckets)
        dir_resize(dir, dir->n_buckets * 2);
    dirent->hash = hash_name(fs, dirent->name, dirent->name_length);
    dirent->cookie = cookie;
    dirent->dir = dir_inode;
    dirent->inode = inode;
    bucket = &dir->buckets[dirent->hash & (dir->n_buckets - 1)];
    dirent->hash_next = *bucket;
    *bucket = dirent;
    RB_INSERT(cookie_tree, &dir->tree, dirent);
    LIST_INSERT_HEAD(&inode->names, dirent, same_inode);
    dir->n_entries++;
}

void dir_insert(const struct fs *fs, struct fs_inode *dir_inode, struct fs_dirent *dirent, struct fs_inode *inode)
{
    insert_at(fs, dir_inode, dir_inode->dir->next_cookie++, dirent, inode);
}

void dir_remove(struct fs_inode *dir_inode, struct fs_dirent *dirent)
{
    struct fs_dir *dir = dir_inode->dir;
    struct fs_dirent **p = &dir->buckets[dirent->hash & (dir->n_buckets - 1)];

    while (*p != dirent)
        p = &(*p)->hash_next;
    *p = dirent->hash_next;
    RB_REMOVE(cookie_tree, &dir->tree, dirent);
    LIST_REMOVE(dirent, same_inode);
    free(dirent);
    if (--dir->n_entries < dir->n_buckets / DIR_SPARSE && dir->n_buckets > DIR_MIN_BUCKETS)
        dir_resize(dir, dir->n_buckets / 2);
}

void dir_insert_instead(const struct fs *fs, struct fs_inode *dir_inode, struct fs_dirent *old,
                        struct fs_dirent *dirent, struct fs_inode *inode)
{
    uint64_t cookie = old->cookie;

    dir_remove(dir_inode, old);
    insert_at(fs, dir_inode, cookie, dirent, inode);
}

void dirent_set_inode(struct fs_dirent *dirent, struct fs_inode *inode)
{
    LIST_REMOVE(dirent, same_inode);
    LIST_INSERT_HEAD(&inode->names, dirent, same_inode);
    dirent->inode = inode;
}
