/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FS_PRIVATE_H
#define LEASEFS_FUSED_FS_PRIVATE_H

/*
 * Shared by the fs_*.c and layout*.c files only.
 *
 * Locks: lease/lock_order.h. From outside to inside fs.rename_lock, fs_inode.lock (several at once only by
 * inode_lock_set(), which takes them in order of inode number), the lease table's, leaves.
 *
 * Directories and files are one rank: whoever needs a directory and an entry's inode together looks the name up,
 * lets go, locks the set in order and looks again.
 * A reference (inode_ref) is never given back while an inode lock is held: the last one frees the inode.
 * Nothing is sent to the kernel while any of these is held, but replies to reads (see fs_read).
 */

#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/tree.h>

#include "fused/file_data.h"
#include "fused/fs.h"
#include "fused/turn.h"
#include "lease/layout_ops.h"

#define FS_SHARDS   64u
#define FS_LINK_MAX 65000u

struct fs_inode;
struct fs_dir;
struct fs_xattr;

/* One name. Guarded by the lock of its directory; `inode` and its place in inode->names by both inodes' locks
 * together, so that either one suffices to look. The name itself never changes. */
struct fs_dirent {
    RB_ENTRY(fs_dirent) by_cookie;
    struct fs_dirent *hash_next;
    LIST_ENTRY(fs_dirent) same_inode;
    struct fs_inode *dir;
    struct fs_inode *inode;
    uint64_t cookie;
    uint64_t hash;
    size_t name_length;
    char name[];
};

struct fs_inode {
    uint64_t ino;
    mode_t type;           /* S_IFMT bits; never changes */
    struct timespec birth; /* never changes */

    /* Who keeps the inode: 1 while nlink > 0, 1 while the kernel's lookup count > 0, and everyone who works on it. */
    atomic_size_t references;

    /* Handles that may write. Without any, Linux has no pages of the file that it has yet to write. */
    atomic_size_t writers;

    /* Guarded by the shard's lock. */
    struct fs_inode *shard_next;
    uint64_t lookups;

    pthread_rwlock_t lock; /* guards everything below */

    /* Changed under the exclusive lock, or the shared lock and attr_lock. Read under the exclusive lock, or the shared
     * lock and attr_lock. */
    pthread_mutex_t attr_lock;
    struct timespec atime, mtime, ctime;
    uint64_t data_version;

    mode_t mode; /* permission bits */
    uid_t uid;
    gid_t gid;
    dev_t rdev;
    struct space_account *account; /* of uid; the data's, too */
    uint32_t flags;                /* FS_IMMUTABLE_FL and so on */
    uint32_t nlink;
    bool linkable;                  /* nlink is 0 because it never had a name, so it may be given one */
    bool nameless;                  /* a file that goes with its last user: see space_on_nameless() */
    bool has_capability;            /* security.capability is set */
    bool has_acl;                   /* one of system.posix_acl_* is */
    enum lease_policy lease_policy; /* 0: the mount's; what is made in a directory takes it over */

    /* Leases that hold blocks of this file: the front door's fast path. */
    uint32_t holds, write_holds;

    LIST_HEAD(, fs_dirent) names;
    struct fs_xattr *xattrs;
    size_t xattr_bytes;

    /* By type; never changes but for the data of a regular file, which a clone replaces. */
    union {
        struct file_data *data;
        struct fs_dir *dir;
        char *target;
    };

    _Atomic uint64_t parent; /* of a directory: inode number of its parent; changed under rename_lock */
};

struct fs_shard {
    pthread_mutex_t lock;
    struct fs_inode **buckets;
    size_t n_buckets, n_inodes; /* n_buckets is a power of two */
};

/* Blocks on their way back to the pool: fs_space.h. */
struct fs_space {
    void (*catch_up)(void *ctx); /* set before the first request */
    void *ctx;
    _Atomic uint64_t given;            /* how often a file's blocks were given back */
    atomic_size_t nameless;            /* files that are there, but have no name */
    _Atomic uint64_t changes, in_vain; /* of that number; when somebody waited for the last close, and none came */
    pthread_mutex_t lock;              /* guards the rest: large files that are being given back, and those that were */
    pthread_cond_t changed;
    atomic_uint giving; /* also looked at without it */
    uint64_t ended;
};

struct fs {
    struct pool *pool;
    struct layout_segment segment;
    struct lease_table *leases;
    struct fs_kernel_cache cache;
    char *control_path;
    bool read_only, noatime, sizes_kept;
    uint64_t generation;
    uint64_t hash_seed;

    pthread_rwlock_t rename_lock;
    atomic_uint_fast64_t next_ino;
    atomic_size_t n_inodes, n_gone; /* that there are; freed since memory was given back */
    size_t max_inodes;
    atomic_uint_fast64_t quarantined_bytes;
    struct fs_space space;
    struct space_accounts *accounts; /* NULL: users have no limits */
    struct fs_shard shards[FS_SHARDS];
    struct fs_inode *root; /* referenced */
};

/* Nothing of it may be changed; or nothing but bytes and names added. The inode's lock is held. */
static inline bool inode_immutable(const struct fs_inode *inode)
{
    return inode->flags & FS_IMMUTABLE_FL;
}

static inline bool inode_kept(const struct fs_inode *inode)
{
    return inode->flags & (FS_IMMUTABLE_FL | FS_APPEND_FL);
}

/* ---- fs_inode.c ---- */

/* A new inode with one reference, no name and no lookup; not yet found by inode_get(). -ENOSPC: too many; -EDQUOT: too
 * many of this user. */
bool inode_room(struct fs *fs, uid_t uid); /* could this user make one more now? */
int inode_new(struct fs *fs, mode_t mode, struct fs_cred cred, struct fs_inode **ret_inode);
int inode_set_owner(struct fs *fs, struct fs_inode *inode, uid_t uid); /* locked. -EDQUOT, -ENOMEM: nothing changed */
void inode_publish(struct fs *fs, struct fs_inode *inode);             /* from here on inode_get() finds it */
struct fs_inode *inode_get(struct fs *fs, uint64_t ino);               /* NULL: none. One more reference */
int inode_get_type(struct fs *fs, uint64_t ino, mode_t type, struct fs_inode **ret_inode);
void inode_ref(struct fs_inode *inode);
void inode_put(struct fs *fs, struct fs_inode *inode); /* NULL is allowed */
void inode_add_lookup(struct fs *fs, struct fs_inode *inode);
int shards_init(struct fs *fs);
size_t shards_destroy(struct fs *fs); /* frees every inode; returns how many references were left over */

/* Locks up to four inodes exclusively in order of inode number. NULLs and repetitions are skipped. */
void inode_lock_set(struct fs_inode *a, struct fs_inode *b, struct fs_inode *c, struct fs_inode *d);
void inode_unlock_set(struct fs_inode *a, struct fs_inode *b, struct fs_inode *c, struct fs_inode *d);

/* Who would wait lets another thread read requests meanwhile. */
static inline void inode_lock_shared(struct fs_inode *inode)
{
    if (pthread_rwlock_tryrdlock(&inode->lock) == 0)
        return;
    turn_pass();
    pthread_rwlock_rdlock(&inode->lock);
}

static inline void inode_lock(struct fs_inode *inode)
{
    if (pthread_rwlock_trywrlock(&inode->lock) == 0)
        return;
    turn_pass();
    pthread_rwlock_wrlock(&inode->lock);
}

static inline void inode_unlock(struct fs_inode *inode)
{
    pthread_rwlock_unlock(&inode->lock);
}

/* ---- fs_dir.c: the entries of one directory; the caller holds its lock (exclusive to change) ---- */

int dir_new(struct fs_dir **ret_dir);
void dir_free(struct fs_dir *dir); /* must be empty but for fs_free() */
bool dir_empty(const struct fs_dir *dir);
struct fs_dirent *dir_find(const struct fs *fs, const struct fs_inode *dir, const char *name);
uint64_t dir_end(const struct fs_dir *dir);                             /* the cookie that comes next */
struct fs_dirent *dir_after(const struct fs_dir *dir, uint64_t cookie); /* first with a greater cookie */
int dirent_new(const char *name, struct fs_dirent **ret_dirent);        /* -ENAMETOOLONG, -ENOENT (empty), -ENOMEM */
/* Both inodes locked. Neither fails nor touches link counts and times. */
void dir_insert(const struct fs *fs, struct fs_inode *dir, struct fs_dirent *dirent, struct fs_inode *inode);
void dir_remove(struct fs_inode *dir, struct fs_dirent *dirent); /* frees it */
/* In place of `old`, which it removes: with its cookie. */
void dir_insert_instead(const struct fs *fs, struct fs_inode *dir, struct fs_dirent *old, struct fs_dirent *dirent,
                        struct fs_inode *inode);
void dirent_set_inode(struct fs_dirent *dirent, struct fs_inode *inode);

/* ---- fs_attr.c ---- */

struct timespec fs_now(void);
void inode_stat(struct fs_inode *inode, struct stat *attr); /* lock held, shared or exclusive */
void inode_touch(struct fs_inode *inode);                   /* exclusive: ctime, and mtime */
void inode_data_changed(struct fs_inode *inode);            /* exclusive: ctime, mtime, data_version */
/* Lock held, shared or exclusive: has been read. As mount option relatime: the time of access moves often enough to
 * tell read from unread, and once a day. */
void inode_accessed(const struct fs *fs, struct fs_inode *inode);
/* Tell the kernel, if there is a mount, of what changed without its knowing. No lock held. */
void cache_forget_attr(struct fs *fs, uint64_t ino); /* waits for nobody */
void cache_forget_bytes(struct fs *fs, uint64_t ino, struct lease_range range);
void cache_forget_bytes_later(struct fs *fs, uint64_t ino, struct lease_range range, void (*done)(void *arg),
                              void *arg); /* done: may be NULL */
void cache_forget_name(struct fs *fs, uint64_t dir, const char *name);

/* exclusive: after a change of bytes. true: the mode has changed, tell_mode() once unlocked */
bool inode_kill_priv(struct fs_inode *inode, enum fs_kill kill);
void tell_mode(struct fs *fs, struct fs_inode *inode, bool changed);
int inode_resize(struct fs *fs, struct fs_inode *inode, uint64_t size, struct lease_waiter *waiter); /* exclusive */

/* ---- fs_xattr.c ---- */

void xattr_free_all(struct fs_inode *inode);
void xattr_kill_capability(struct fs_inode *inode); /* exclusive */

/* The access ACL, NULL: none; valid while the lock is held. */
const void *xattr_access_acl(const struct fs_inode *inode, size_t *ret_size);
void acl_after_chmod(struct fs_inode *inode); /* exclusive */
/* A file made in `dir`, known to nobody yet: ACLs and mode by the directory's default ACL, or the umask. -ENOMEM. */
int acl_to_new_inode(const struct fs_inode *dir, struct fs_inode *inode, mode_t umask);

/* ---- fs_namespace.c ---- */

void entry_fill(struct fs *fs, struct fs_inode *inode, struct fs_entry *entry); /* no lock held; counts no lookup */
/* The inode behind a name, referenced; the directory's lock is taken and given back. */
int dir_lookup(struct fs *fs, struct fs_inode *dir, const char *name, struct fs_inode **ret_inode);
/* A new inode as `dir` makes it (group, set-group-id), not in any directory. */
int inode_new_in(struct fs *fs, struct fs_inode *dir, mode_t mode, struct fs_cred cred, struct fs_inode **ret_inode);
/* Gives a file the name, in place of a file that has it; the replaced file's leases are in conflict. */
int fs_link_over(struct fs *fs, struct fs_inode *inode, struct fs_inode *dir, const char *name,
                 struct lease_waiter *waiter);
/* The path of an inode inside the filesystem, by one of its names; malloc'd. -ENOENT: it has none. */
int fs_inode_path(struct fs *fs, struct fs_inode *inode, char **ret_path);

#endif
