/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FS_H
#define LEASEFS_FUSED_FS_H

/*
 * The filesystem without FUSE: inodes, directories, names, attributes, extended attributes and file operations.
 *
 * Inodes are named by number: 64 bits, counting up, never reused while the daemon lives. FS_ROOT_INO is the root.
 * Thread-safe; locks are taken inside (fs_private.h has their order). No function blocks but on those locks.
 * 0 or a negative errno (-ESTALE: no such inode number); outputs change only on success. Names are one path
 * component each. Permission is checked by the caller (the kernel, by default_permissions; or fs_path.h).
 *
 * A function that takes a `waiter` changes a file's layout or bytes, so it goes through the front door
 * (fs_front_door.h) and may meet a lease:
 *   -EINPROGRESS  the waiter is parked. Nothing has changed and no lock is held. After its resume make the same call
 *                 again with the same waiter; when it has another result, call fs_op_end().
 *   -EAGAIN       waiter was NULL and the call would have had to park. Recalls have been sent, for good: unlike a
 *                 waiter's, they are not taken back when nobody waits any more.
 *   -EBUSY        policy `busy`.
 *   -EDEADLK      waiter->process holds the lease itself. Negative there: a thread's number, whose process is looked
 *                 up when it matters.
 *
 * Lookup counts: every function that fills in a struct fs_entry adds one to the inode's lookup count, as the kernel
 * will have it; fs_forget() takes them back. A count belongs to the kernel and is believed only so far: it keeps an
 * unlinked inode alive, and a forget of more than was looked up takes what there is.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>

#include "fused/pool.h"
#include "lease/lease_table.h"

#define FS_ROOT_INO    UINT64_C(1)
#define FS_NAME_MAX    255u
#define FS_SYMLINK_MAX 4095u
#define FS_READ_MAX    (1u << 20) /* bytes of one fs_read() */
#define FS_CLONE_MAX   (1u << 30) /* bytes of one fs_copy(): bounds the time that both files are locked */

struct fs;

struct fs_cred {
    uid_t uid;
    gid_t gid;
    mode_t umask; /* for new files in directories without a default ACL */
};

struct fs_entry {
    uint64_t ino;
    uint64_t generation; /* differs between daemon lives, so that stale NFS handles are noticed */
    struct stat attr;
    bool fleeting; /* a remote writer has a lease: its commits change attr without Linux's knowing */
};

/* The root directory belongs to `owner`, mode 0755. The pool outlives the fs. */
int fs_new(struct pool *pool, struct fs_cred owner, bool read_only, struct fs **ret_fs);

/* When nobody uses it any more. Complains on stderr about references that were never given back, and returns how
 * many there were: tests want 0. NULL is allowed. */
size_t fs_free(struct fs *fs);

bool fs_read_only(const struct fs *fs);
void fs_set_noatime(struct fs *fs); /* before the first request: access times stay */

/* Before the first request: what the files of one user (but root) may take, in blocks as st_blocks counts them, and how
 * many there may be; 0: no limit. More is -EDQUOT. -ENOMEM. */
int fs_set_user_limits(struct fs *fs, uint64_t bytes, uint64_t files);
void fs_set_sizes_kept(struct fs *fs); /* the same: the kernel takes no notice of sizes that it did not set */
void fs_set_lease_table(struct fs *fs, struct lease_table *table); /* before the first request; NULL: no leases */
int fs_set_control_path(struct fs *fs, const char *path);          /* for user.leasefs.control */
void fs_op_end(struct fs *fs, struct lease_waiter *waiter);

/*
 * What the kernel has cached, told by the glue. Called with no lock held. Unset (no mount): nothing is cached.
 * inval_inode: drops attributes and the pages of [offset, offset+length); length 0: to the end. May wait for pages that
 * a request holds. offset -1: attributes only; this alone waits for nobody and may be called while serving a request.
 * inval_entry: may wait for the directory's requests.
 */
struct fs_kernel_cache {
    void (*inval_inode)(void *ctx, uint64_t ino, int64_t offset, int64_t length);
    void (*inval_entry)(void *ctx, uint64_t parent, const char *name);
    /* The same as inval_inode on a thread of its own, and then done(arg) (NULL: nothing). Never blocks. */
    void (*inval_inode_later)(void *ctx, uint64_t ino, int64_t offset, int64_t length, void (*done)(void *arg),
                              void *arg);
    void *ctx;
};
void fs_set_kernel_cache(struct fs *fs, const struct fs_kernel_cache *cache); /* copied; before the first request */

/* How to have all that the kernel has forgotten by now come to fs_forget(): `catch_up` returns when it has. Before the
 * first request. Without it nothing is ever under way. */
void fs_set_catch_up(struct fs *fs, void (*catch_up)(void *ctx), void *ctx);

/* What the kernel has of the file is dropped, by another thread, and then done(arg) called. Never blocks. */
void fs_forget_pages(struct fs *fs, uint64_t ino, void (*done)(void *arg), void *arg);

/* ---- names (fs_namespace.c, fs_rename.c) ---- */

int fs_lookup(struct fs *fs, uint64_t parent, const char *name, struct fs_entry *ret_entry); /* "." and ".." too */
void fs_forget(struct fs *fs, uint64_t ino, uint64_t count);

/* mode has the type: S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK. Set-group-id directories are honoured. */
int fs_mknod(struct fs *fs, uint64_t parent, const char *name, mode_t mode, dev_t rdev, struct fs_cred cred,
             struct fs_entry *ret_entry);
int fs_mkdir(struct fs *fs, uint64_t parent, const char *name, mode_t mode, struct fs_cred cred,
             struct fs_entry *ret_entry);
int fs_symlink(struct fs *fs, uint64_t parent, const char *name, const char *target, struct fs_cred cred,
               struct fs_entry *ret_entry);
/* A file without a name, which fs_link() may give one. */
int fs_tmpfile(struct fs *fs, uint64_t parent, mode_t mode, struct fs_cred cred, struct fs_entry *ret_entry);
int fs_link(struct fs *fs, uint64_t ino, uint64_t parent, const char *name, struct fs_entry *ret_entry);

int fs_unlink(struct fs *fs, uint64_t parent, const char *name, struct lease_waiter *waiter);
int fs_rmdir(struct fs *fs, uint64_t parent, const char *name);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT (`cred` owns what takes the old name). */
int fs_rename(struct fs *fs, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
              unsigned flags, struct fs_cred cred, struct lease_waiter *waiter);

/* At most `size` bytes with the terminating 0. Moves the link's time of access. */
int fs_readlink(struct fs *fs, uint64_t ino, char *buffer, size_t size);

/* Directory entries with a cookie greater than `cookie` (0: from the start) and less than `end`, ".", ".." first, at
 * most `max`. A cookie belongs to an entry for its life, also when it gets another free name in the same directory, so
 * no entry that stays is met twice or missed. Returns their number.
 * `with_attr`: attributes too, and one lookup count each, but for "." and "..". */
struct fs_dir_entry {
    uint64_t cookie;
    struct fs_entry entry; /* without with_attr: ino and the type bits of attr.st_mode */
    char name[FS_NAME_MAX + 1];
};
int fs_readdir(struct fs *fs, uint64_t ino, uint64_t cookie, uint64_t end, bool with_attr, struct fs_dir_entry *entries,
               size_t max);

/* *ret_end: greater than the cookies of the entries that are there now, and no greater than those of any to come. */
int fs_readdir_end(struct fs *fs, uint64_t ino, uint64_t *ret_end);

/* ---- attributes (fs_attr.c) ---- */

/* A directory has been listed: its time of access moves, as relatime has it. */
void fs_accessed(struct fs *fs, uint64_t ino);

int fs_getattr(struct fs *fs, uint64_t ino, struct stat *ret_attr);
int fs_statx(struct fs *fs, uint64_t ino, struct stat *ret_attr, struct timespec *ret_birth);

#define FS_SET_MODE       (1u << 0)
#define FS_SET_UID        (1u << 1)
#define FS_SET_GID        (1u << 2)
#define FS_SET_SIZE       (1u << 3)
#define FS_SET_ATIME      (1u << 4)
#define FS_SET_MTIME      (1u << 5)
#define FS_SET_CTIME      (1u << 6)
#define FS_SET_ATIME_NOW  (1u << 7)
#define FS_SET_MTIME_NOW  (1u << 8)
#define FS_SET_TIMES_KEPT (1u << 10) /* by the caller, who says "now" in figures */
#define FS_SET_KILL_PRIV  (1u << 9)  /* by someone who may not keep set-user-id */
#define FS_SET_KILL_SGID  (1u << 11) /* nor set-group-id: FS_KILL_SGID */
/* ret_fleeting: as in struct fs_entry; NULL: of no interest. */
int fs_setattr(struct fs *fs, uint64_t ino, const struct stat *attr, unsigned what, struct lease_waiter *waiter,
               struct stat *ret_attr, bool *ret_fleeting);

int fs_statfs(struct fs *fs, struct statvfs *ret_stat);

/* A lease covers a part of the file: it shows as immutable. */
int fs_leased(struct fs *fs, uint64_t ino, bool *ret_leased);

/* As chattr(1) has them: FS_IMMUTABLE_FL, FS_APPEND_FL, FS_NOATIME_FL, FS_NODUMP_FL; other bits: -EOPNOTSUPP. Who may
 * is the caller's business. Handles that are open keep what they may do. */
int fs_get_flags(struct fs *fs, uint64_t ino, uint32_t *ret_flags);
int fs_set_flags(struct fs *fs, uint64_t ino, uint32_t flags);

/* ---- extended attributes (fs_xattr.c) ---- */

/* Computed, read only and not listed: the file's leases as JSON, the control socket's path, the file's path. */
#define FS_XATTR_LEASES  "user.leasefs.leases"
#define FS_XATTR_CONTROL "user.leasefs.control"
#define FS_XATTR_PATH    "user.leasefs.path"
#define FS_XATTR_POLICY  "user.leasefs.policy" /* can be set: recall, busy, orphan */

#define FS_XATTR_KILL_SGID (1 << 16) /* with an access ACL: set-group-id goes */

/* get, list: bytes of the value; -ERANGE when size is not 0 and too small. set: XATTR_CREATE, XATTR_REPLACE. An access
 * ACL and the mode follow each other. */
int64_t fs_getxattr(struct fs *fs, uint64_t ino, const char *name, void *value, size_t size);
/* `trusted`: with those that only the administrator sees. */
int64_t fs_listxattr(struct fs *fs, uint64_t ino, bool trusted, char *list, size_t size);
int fs_setxattr(struct fs *fs, uint64_t ino, const char *name, const void *value, size_t size, int flags);
int fs_removexattr(struct fs *fs, uint64_t ino, const char *name);

/* ---- file operations (fs_file.c) ---- */

/* flags: of open(2). -EPERM: immutable, or append-only and not O_APPEND. *ret_direct: a write lease covers a part, so
 * the kernel should not cache what this handle reads. To be closed with the same flags, when all that was written
 * through it, by mappings too, has come as fs_write(). */
int fs_open(struct fs *fs, uint64_t ino, int flags, bool *ret_direct);
void fs_created(struct fs *fs, uint64_t ino, int flags); /* the same of a file that was just made; cannot fail */
void fs_close(struct fs *fs, uint64_t ino, int flags);

/* Calls emit() once with the bytes where they lie, under the file's lock: it must not wait for another request.
 * bytes < length only at the end of the file. `touch`: the access time moves, as relatime has it. Returns what emit()
 * returns; when that is not 0 it was emit's error. */
int fs_read(struct fs *fs, uint64_t ino, uint64_t offset, size_t length, bool touch,
            int (*emit)(void *arg, const struct iovec *iov, int count, size_t bytes), void *arg);

/* What who changes bytes may not leave on the file. Each includes the one before. */
enum fs_kill {
    FS_KILL_CAPABILITY, /* security.capability; for everybody */
    FS_KILL_SUID,       /* set-user-id, and set-group-id where the group may execute; without CAP_FSETID */
    FS_KILL_SGID, /* set-group-id in any case; nor a member of the file's group (Linux: setattr_should_drop_sgid()) */
};

/* Has the file a set-group-id bit that FS_KILL_SUID leaves to it? And whose. */
bool fs_has_idle_sgid(struct fs *fs, uint64_t ino, gid_t *ret_group);

/* Bytes written, short when space ran out. */
int64_t fs_write(struct fs *fs, uint64_t ino, uint64_t offset, const void *bytes, size_t length, enum fs_kill kill,
                 struct lease_waiter *waiter);

/* Every mode of fallocate(2); collapse and insert in whole blocks. Linux sends a FUSE filesystem allocate, punch and
 * zero only, and answers EOPNOTSUPP to the others by itself. */
int fs_fallocate(struct fs *fs, uint64_t ino, int mode, uint64_t offset, uint64_t length, enum fs_kill kill,
                 struct lease_waiter *waiter);
int64_t fs_seek(struct fs *fs, uint64_t ino, uint64_t offset, int whence); /* SEEK_DATA, SEEK_HOLE */

/* copy_file_range: shares whole blocks where both offsets are congruent, copies the rest. Bytes done, at most
 * FS_CLONE_MAX, short at the source's end and when space ran out. */
int64_t fs_copy(struct fs *fs, uint64_t src, uint64_t src_offset, uint64_t dst, uint64_t dst_offset, uint64_t length,
                enum fs_kill kill, struct lease_waiter *waiter);

#endif
