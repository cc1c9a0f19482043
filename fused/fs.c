/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "fused/fs_private.h"
#include "fused/fs_space.h"
#include "lease/lock_order.h"

/* Metadata lives outside the pool, so it has a limit of its own: one inode a block, as small files would need. */
#define MIN_INODES 65536u

static int fs_make_root(struct fs *fs, struct fs_cred owner)
{
    struct fs_inode *root;
    int err = inode_new(fs, S_IFDIR | 0755, owner, &root);

    if (err)
        return err;
    root->nlink = 2;
    atomic_store(&root->parent, root->ino);
    inode_ref(root);
    inode_publish(fs, root);
    fs->root = root;
    return 0;
}

static int fs_init_random(struct fs *fs)
{
    uint32_t generation;

    if (getrandom(&fs->hash_seed, sizeof(fs->hash_seed), 0) != sizeof(fs->hash_seed) ||
        getrandom(&generation, sizeof(generation), 0) != sizeof(generation))
        return -EIO;
    fs->generation = generation;
    return 0;
}

int fs_new(struct pool *pool, struct fs_cred owner, bool read_only, struct fs **ret_fs)
{
    struct fs *fs = calloc(1, sizeof(*fs));
    int err;

    if (!fs)
        return -ENOMEM;
    fs->pool = pool;
    fs->read_only = read_only;
    fs->segment = (struct layout_segment){
        .fd = pool_fd(pool),
        .base = pool_base(pool),
        .size = pool_size(pool),
        .page_size = pool_page_size(pool),
    };
    fs->max_inodes = pool_size(pool) / POOL_BLOCK_SIZE;
    if (fs->max_inodes < MIN_INODES)
        fs->max_inodes = MIN_INODES;
    atomic_init(&fs->next_ino, FS_ROOT_INO);
    pthread_rwlock_init(&fs->rename_lock, NULL);
    lock_rank(&fs->rename_lock, LOCK_FS_RENAME, 0);
    space_init(&fs->space);
    err = fs_init_random(fs);
    if (err)
        goto undo_lock;
    err = shards_init(fs);
    if (err)
        goto undo_lock;
    err = fs_make_root(fs, owner);
    if (err)
        goto undo_shards;
    *ret_fs = fs;
    return 0;

undo_shards:
    shards_destroy(fs);
undo_lock:
    space_destroy(&fs->space);
    pthread_rwlock_destroy(&fs->rename_lock);
    free(fs);
    return err;
}

size_t fs_free(struct fs *fs)
{
    size_t leftover;

    if (!fs)
        return 0;
    fs->leases = NULL; /* it may be gone, and nobody waits any more */
    leftover = shards_destroy(fs);
    space_accounts_free(fs->accounts);
    space_destroy(&fs->space);
    pthread_rwlock_destroy(&fs->rename_lock);
    free(fs->control_path);
    free(fs);
    return leftover;
}

int fs_set_user_limits(struct fs *fs, uint64_t bytes, uint64_t files)
{
    return bytes || files ? space_accounts_new(bytes >> POOL_BLOCK_SHIFT, files, &fs->accounts) : 0;
}

void fs_set_noatime(struct fs *fs)
{
    fs->noatime = true;
}

bool fs_read_only(const struct fs *fs)
{
    return fs->read_only;
}

void fs_set_sizes_kept(struct fs *fs)
{
    fs->sizes_kept = true;
}

void fs_set_lease_table(struct fs *fs, struct lease_table *table)
{
    fs->leases = table;
}

int fs_set_control_path(struct fs *fs, const char *path)
{
    char *copy = strdup(path);

    if (!copy)
        return -ENOMEM;
    free(fs->control_path);
    fs->control_path = copy;
    return 0;
}

void fs_set_kernel_cache(struct fs *fs, const struct fs_kernel_cache *cache)
{
    fs->cache = *cache;
}

void cache_forget_attr(struct fs *fs, uint64_t ino)
{
    lock_none_held();
    if (fs->cache.inval_inode)
        fs->cache.inval_inode(fs->cache.ctx, ino, -1, 0);
}

void cache_forget_bytes(struct fs *fs, uint64_t ino, struct lease_range range)
{
    lock_none_held();
    if (fs->cache.inval_inode)
        fs->cache.inval_inode(fs->cache.ctx, ino, (int64_t)range.offset, (int64_t)range.length);
}

void cache_forget_bytes_later(struct fs *fs, uint64_t ino, struct lease_range range, void (*done)(void *arg), void *arg)
{
    lock_none_held();
    if (fs->cache.inval_inode_later)
        fs->cache.inval_inode_later(fs->cache.ctx, ino, (int64_t)range.offset, (int64_t)range.length, done, arg);
    else if (done)
        done(arg);
}

void cache_forget_name(struct fs *fs, uint64_t dir, const char *name)
{
    lock_none_held();
    if (fs->cache.inval_entry)
        fs->cache.inval_entry(fs->cache.ctx, dir, name);
    cache_forget_attr(fs, dir);
}

void fs_forget_pages(struct fs *fs, uint64_t ino, void (*done)(void *arg), void *arg)
{
    cache_forget_bytes_later(fs, ino, (struct lease_range){0, 0}, done, arg);
}

void fs_op_end(struct fs *fs, struct lease_waiter *waiter)
{
    if (fs->leases && waiter)
        lease_op_end(fs->leases, waiter);
}
