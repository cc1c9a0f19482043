/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "fused/fs_private.h"
#include "fused/fs_space.h"
#include "lease/lock_order.h"

#define SHARD_MIN_BUCKETS 64u
#define SPARSE            8u     /* buckets for each inode: too many */
#define MANY_BLOCKS       4096u  /* giving them back takes as long as waking a thread */
#define MANY_INODES       16384u /* 8 MiB of memory: worth going through all of it */

static struct fs_shard *shard_of(struct fs *fs, uint64_t ino)
{
    return &fs->shards[ino % FS_SHARDS];
}

static struct fs_inode **bucket_of(struct fs_shard *shard, uint64_t ino)
{
    return &shard->buckets[(ino / FS_SHARDS) & (shard->n_buckets - 1)];
}

int shards_init(struct fs *fs)
{
    for (size_t i = 0; i < FS_SHARDS; i++) {
        struct fs_shard *shard = &fs->shards[i];

        shard->buckets = calloc(SHARD_MIN_BUCKETS, sizeof(*shard->buckets));
        if (!shard->buckets) {
            while (i-- > 0) {
                free(fs->shards[i].buckets);
                pthread_mutex_destroy(&fs->shards[i].lock);
            }
            return -ENOMEM;
        }
        shard->n_buckets = SHARD_MIN_BUCKETS;
        pthread_mutex_init(&shard->lock, NULL);
        lock_rank(&shard->lock, LOCK_FS_SHARD, 0);
    }
    return 0;
}

/* A table that cannot grow only gets slower, one that cannot shrink keeps its memory. */
static void shard_resize_locked(struct fs_shard *shard, size_t n_buckets)
{
    size_t n_old = shard->n_buckets;
    struct fs_inode **old = shard->buckets;
    struct fs_inode **buckets = calloc(n_buckets, sizeof(*buckets));

    if (!buckets)
        return;
    shard->buckets = buckets;
    shard->n_buckets = n_buckets;
    for (size_t i = 0; i < n_old; i++) {
        struct fs_inode *next;

        for (struct fs_inode *inode = old[i]; inode; inode = next) {
            struct fs_inode **bucket = bucket_of(shard, inode->ino);

            next = inode->shard_next;
            inode->shard_next = *bucket;
            *bucket = inode;
        }
    }
    free(old);
}

/* Writers first: a stream of readers must not keep a truncate, or a lease, waiting. */
static int rwlock_init(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;
    int err = pthread_rwlockattr_init(&attr);

    if (err)
        return -err;
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    err = pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    return -err;
}

static void file_free(struct fs *fs, struct file_data *data)
{
    bool large = file_data_blocks(data) > MANY_BLOCKS;

    space_giving(fs, large);
    if (large)
        turn_pass();
    file_data_free(data);
    space_given(fs, large);
}

static void inode_free_contents(struct fs *fs, struct fs_inode *inode)
{
    switch (inode->type) {
    case S_IFREG:
        file_free(fs, inode->data);
        break;
    case S_IFDIR:
        dir_free(inode->dir);
        break;
    case S_IFLNK:
        free(inode->target);
        break;
    default:
        break;
    }
    xattr_free_all(inode);
}

static void inode_free(struct fs *fs, struct fs_inode *inode)
{
    space_on_nameless(fs, inode, false);
    inode_free_contents(fs, inode);
    space_account_give_file(inode->account);
    pthread_mutex_destroy(&inode->attr_lock);
    pthread_rwlock_destroy(&inode->lock);
    free(inode);
    atomic_fetch_sub(&fs->n_inodes, 1);
}

/* malloc() keeps what is freed in small pieces, for ever if nobody asks. To give it to the system takes it a walk
 * through all of it, so that is done when as many inodes have gone as are left. */
static void give_memory_back(struct fs *fs)
{
    size_t gone = atomic_fetch_add(&fs->n_gone, 1) + 1;

    if (gone < MANY_INODES || gone < atomic_load(&fs->n_inodes))
        return;
    if (!atomic_compare_exchange_strong(&fs->n_gone, &gone, 0)) /* another has just gone, and counts on */
        return;
    turn_pass();
    malloc_trim(0);
}

static int file_new(struct fs *fs, struct fs_inode *inode)
{
    int err = file_data_new(fs->pool, &inode->data);

    return err ? err : file_data_charge(inode->data, inode->account); /* it has no blocks yet */
}

static int inode_init_contents(struct fs *fs, struct fs_inode *inode)
{
    switch (inode->type) {
    case S_IFREG:
        return file_new(fs, inode);
    case S_IFDIR:
        return dir_new(&inode->dir);
    default:
        return 0;
    }
}

/* Never more than there may be, not even for a moment: another's would be refused for that. */
static bool take_count(struct fs *fs)
{
    size_t n = atomic_load(&fs->n_inodes);

    do {
        if (n >= fs->max_inodes)
            return false;
    } while (!atomic_compare_exchange_weak(&fs->n_inodes, &n, n + 1));
    return true;
}

bool inode_room(struct fs *fs, uid_t uid)
{
    struct space_account *account;

    return atomic_load(&fs->n_inodes) < fs->max_inodes && !space_account_of(fs->accounts, uid, &account) &&
           space_account_has_file(account);
}

static int join_account(struct fs *fs, struct fs_inode *inode)
{
    int err = space_account_of(fs->accounts, inode->uid, &inode->account);

    if (!err && !space_account_take_file(inode->account))
        err = -EDQUOT;
    return err;
}

int inode_set_owner(struct fs *fs, struct fs_inode *inode, uid_t uid)
{
    struct space_account *account;
    int err = space_account_of(fs->accounts, uid, &account);

    if (err)
        return err;
    if (account != inode->account) {
        if (!space_account_take_file(account))
            return -EDQUOT;
        err = inode->type == S_IFREG ? file_data_charge(inode->data, account) : 0;
        space_account_give_file(err ? account : inode->account);
        if (err)
            return err;
        inode->account = account;
    }
    inode->uid = uid;
    return 0;
}

int inode_new(struct fs *fs, mode_t mode, struct fs_cred cred, struct fs_inode **ret_inode)
{
    struct fs_inode *inode;
    int err;

    if (!take_count(fs))
        return -ENOSPC;
    inode = calloc(1, sizeof(*inode));
    if (!inode) {
        err = -ENOMEM;
        goto undo_count;
    }
    inode->type = mode & S_IFMT;
    inode->mode = mode & ~(mode_t)S_IFMT;
    inode->uid = cred.uid;
    inode->gid = cred.gid;
    inode->birth = inode->atime = inode->mtime = inode->ctime = fs_now();
    inode->data_version = 1;
    atomic_init(&inode->references, 1);
    LIST_INIT(&inode->names);
    err = join_account(fs, inode);
    if (err)
        goto undo_alloc;
    err = rwlock_init(&inode->lock);
    if (err)
        goto undo_account;
    err = inode_init_contents(fs, inode);
    if (err)
        goto undo_lock;
    pthread_mutex_init(&inode->attr_lock, NULL);
    lock_rank(&inode->attr_lock, LOCK_FS_ATTR, 0);
    inode->ino = atomic_fetch_add(&fs->next_ino, 1);
    lock_rank(&inode->lock, LOCK_FS_INODE, inode->ino);
    *ret_inode = inode;
    return 0;

undo_lock:
    pthread_rwlock_destroy(&inode->lock);
undo_account:
    space_account_give_file(inode->account);
undo_alloc:
    free(inode);
undo_count:
    atomic_fetch_sub(&fs->n_inodes, 1);
    return err;
}

void inode_publish(struct fs *fs, struct fs_inode *inode)
{
    struct fs_shard *shard = shard_of(fs, inode->ino);
    struct fs_inode **bucket;

    pthread_mutex_lock(&shard->lock);
    if (++shard->n_inodes > shard->n_buckets)
        shard_resize_locked(shard, shard->n_buckets * 2);
    bucket = bucket_of(shard, inode->ino);
    inode->shard_next = *bucket;
    *bucket = inode;
    pthread_mutex_unlock(&shard->lock);
}

static struct fs_inode *shard_find_locked(struct fs_shard *shard, uint64_t ino)
{
    struct fs_inode *inode = *bucket_of(shard, ino);

    while (inode && inode->ino != ino)
        inode = inode->shard_next;
    return inode;
}

struct fs_inode *inode_get(struct fs *fs, uint64_t ino)
{
    struct fs_shard *shard = shard_of(fs, ino);
    struct fs_inode *inode;

    pthread_mutex_lock(&shard->lock);
    inode = shard_find_locked(shard, ino);
    if (inode)
        atomic_fetch_add(&inode->references, 1);
    pthread_mutex_unlock(&shard->lock);
    return inode;
}

int inode_get_type(struct fs *fs, uint64_t ino, mode_t type, struct fs_inode **ret_inode)
{
    struct fs_inode *inode = inode_get(fs, ino);
    mode_t found;

    if (!inode)
        return -ESTALE;
    found = inode->type;
    if (found != type) {
        inode_put(fs, inode);
        if (type == S_IFDIR)
            return -ENOTDIR;
        return found == S_IFDIR ? -EISDIR : -EINVAL;
    }
    *ret_inode = inode;
    return 0;
}

void inode_ref(struct fs_inode *inode)
{
    atomic_fetch_add(&inode->references, 1);
}

/* The last reference is dropped under the shard's lock, where alone inode_get() could find the inode again. */
void inode_put(struct fs *fs, struct fs_inode *inode)
{
    struct fs_shard *shard;
    size_t references;

    if (!inode)
        return;
    references = atomic_load(&inode->references);
    while (references > 1) {
        if (atomic_compare_exchange_weak(&inode->references, &references, references - 1))
            return;
    }
    shard = shard_of(fs, inode->ino);
    pthread_mutex_lock(&shard->lock);
    if (atomic_fetch_sub(&inode->references, 1) > 1) {
        pthread_mutex_unlock(&shard->lock);
        return;
    }
    for (struct fs_inode **p = bucket_of(shard, inode->ino); *p; p = &(*p)->shard_next) {
        if (*p == inode) {
            *p = inode->shard_next;
            if (--shard->n_inodes < shard->n_buckets / SPARSE && shard->n_buckets > SHARD_MIN_BUCKETS)
                shard_resize_locked(shard, shard->n_buckets / 2);
            break;
        }
    }
    pthread_mutex_unlock(&shard->lock);
    inode_free(fs, inode);
    give_memory_back(fs);
}

void inode_add_lookup(struct fs *fs, struct fs_inode *inode)
{
    struct fs_shard *shard = shard_of(fs, inode->ino);

    pthread_mutex_lock(&shard->lock);
    if (inode->lookups++ == 0)
        inode_ref(inode);
    pthread_mutex_unlock(&shard->lock);
}

void fs_forget(struct fs *fs, uint64_t ino, uint64_t count)
{
    struct fs_shard *shard = shard_of(fs, ino);
    struct fs_inode *inode;
    bool last = false;

    pthread_mutex_lock(&shard->lock);
    inode = shard_find_locked(shard, ino);
    if (inode && inode->lookups && count) {
        inode->lookups -= count < inode->lookups ? count : inode->lookups;
        last = inode->lookups == 0;
    }
    pthread_mutex_unlock(&shard->lock);
    if (last)
        inode_put(fs, inode);
}

/* What is left when nobody works here any more: names (nlink), lookups that the kernel never forgot (it does not at
 * unmount), holds in quarantine. More is a reference that was lost. */
static size_t inode_leftover(const struct fs *fs, struct fs_inode *inode)
{
    size_t expected = (inode->nlink > 0) + (inode->lookups > 0) + (inode == fs->root) + inode->holds;
    size_t references = atomic_load(&inode->references);

    if (references == expected)
        return 0;
    fprintf(stderr, "leasefs: internal error: inode %" PRIu64 " ends with %zu references, expected %zu\n", inode->ino,
            references, expected);
    return references > expected ? references - expected : expected - references;
}

size_t shards_destroy(struct fs *fs)
{
    size_t leftover = 0;

    for (size_t i = 0; i < FS_SHARDS; i++) {
        struct fs_shard *shard = &fs->shards[i];

        for (size_t b = 0; b < shard->n_buckets; b++) {
            struct fs_inode *next;

            for (struct fs_inode *inode = shard->buckets[b]; inode; inode = next) {
                next = inode->shard_next;
                leftover += inode_leftover(fs, inode);
                inode_free(fs, inode);
            }
        }
        free(shard->buckets);
        pthread_mutex_destroy(&shard->lock);
    }
    return leftover;
}

static size_t sort_set(struct fs_inode *set[4])
{
    size_t n = 0;

    for (size_t i = 0; i < 4; i++) {
        struct fs_inode *inode = set[i];
        size_t at = n;

        if (!inode)
            continue;
        while (at > 0 && set[at - 1]->ino > inode->ino)
            at--;
        if (at > 0 && set[at - 1] == inode)
            continue;
        for (size_t j = n; j > at; j--)
            set[j] = set[j - 1];
        set[at] = inode;
        n++;
    }
    return n;
}

void inode_lock_set(struct fs_inode *a, struct fs_inode *b, struct fs_inode *c, struct fs_inode *d)
{
    struct fs_inode *set[4] = {a, b, c, d};
    size_t n = sort_set(set);

    for (size_t i = 0; i < n; i++)
        inode_lock(set[i]);
}

void inode_unlock_set(struct fs_inode *a, struct fs_inode *b, struct fs_inode *c, struct fs_inode *d)
{
    struct fs_inode *set[4] = {a, b, c, d};
    size_t n = sort_set(set);

    while (n > 0)
        inode_unlock(set[--n]);
}
