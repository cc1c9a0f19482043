/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_LAYOUT_OPS_H
#define LEASEFS_LEASE_LAYOUT_OPS_H

/*
 * What the lease service asks of the filesystem. fused/ fills this table in; unit tests fill in another.
 * Every function is thread-safe, is called with no lock held, may block unless it says otherwise, and returns
 * 0 or a negative errno. Outputs change only on success, but for *problem, which a refusal fills in.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "lease/lease_table.h"
#include "lease/range.h"

struct path_export; /* lease/key_file.h */

/* Who asks: the control connection's peer, never what a message claims. */
struct lease_credentials {
    uid_t uid;
    gid_t gid;
    pid_t pid;       /* of the peer when it connected; 0 when unknown. For messages, never for signals. */
    size_t n_groups; /* supplementary groups */
    const gid_t *groups;

    /* A remote client: nothing exists but what lies below one of the exports, and in read-only ones nothing changes.
     * Neither ".." nor a symbolic link leads out (-EACCES). */
    bool confined;
    size_t n_exports;
    const struct path_export *exports;
};

/* One piece of backing memory: today the whole pool. */
struct layout_segment {
    int fd;           /* mappable, MAP_SHARED */
    void *base;       /* the daemon's own mapping, for the daemon's life */
    uint64_t size;    /* bytes */
    size_t page_size; /* 4096, or the huge page size: the granularity of mmap on fd */
};

/* A run of consecutive pool bytes. Runs of a hold are in file order and add up to its range. */
struct layout_run {
    uint32_t segment; /* index into layout_ops.segments() */
    uint64_t offset;  /* bytes into the segment, a multiple of LEASEFS_BLOCK_SIZE */
    uint64_t length;  /* bytes, likewise */
};

/* Field by field: what is between fields is whatever was there. */
static inline bool layout_runs_equal(const struct layout_run *a, const struct layout_run *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (a[i].segment != b[i].segment || a[i].offset != b[i].offset || a[i].length != b[i].length)
            return false;
    return true;
}

/* Why a range is not eligible, and where: the first offending part of it. */
enum layout_problem_kind {
    LAYOUT_OK = 0,
    LAYOUT_HOLE,
    LAYOUT_UNWRITTEN,
    LAYOUT_SHARED,
    LAYOUT_BEYOND_EOF,
    LAYOUT_FRAGMENTED,
};

struct layout_problem {
    enum layout_problem_kind kind;
    struct lease_range range;
};

/*
 * References on the blocks under a leased range, taken by hold() and given back by release(). While a block is
 * held it is never freed, changed in place or shared by the filesystem, whatever else goes wrong: an operation
 * that changes it gives the file a copy (or drops it from the file) and leaves the old block to the hold: that is
 * *detach*. (I1)
 */
struct layout_hold;

struct layout_attr {
    uint64_t inode;        /* never reused */
    uint64_t size;         /* bytes */
    uint64_t data_version; /* grows with every change of the file's bytes or size */
    mode_t mode;
    uid_t uid;
    gid_t gid;
    struct timespec mtime;
    enum lease_policy policy; /* the file's own; 0: the mount's */
};

/* A run of blocks of a file, as people are shown it. */
struct layout_extent {
    uint64_t offset, length; /* bytes of the file */
    uint64_t pool_offset;    /* bytes */
    bool unwritten;
    bool shared; /* some block of it belongs to other files, too */
};

struct layout_ops {
    const struct layout_segment *(*segments)(void *fs, size_t *ret_count);

    /* Resolves an absolute path inside the filesystem ("/dir/file"; "." and ".." and symbolic links are followed
     * inside it) as `who`, checks search permission on the way and read (LEASE_READ) or read and write permission
     * (LEASE_WRITE) on the regular file (I9), and pins the inode. The caller ends it with close().
     * -ENOENT, -EACCES, -EISDIR, -EINVAL (not a regular file), -ELOOP, -ENAMETOOLONG, -EROFS. */
    int (*open)(void *fs, const char *path, const struct lease_credentials *who, enum lease_mode mode,
                uint64_t *ret_inode);
    void (*close)(void *fs, uint64_t inode);
    int (*getattr)(void *fs, uint64_t inode, struct layout_attr *ret_attr);

    /* A nameless file in the directory of `path` (so permissions, quota and setgid are that directory's), owned by
     * `who`, pinned as by open(); it vanishes with the last close() unless published. Checks write permission on
     * the directory and that `path` could be replaced. publish() gives it the name, replacing an existing file
     * atomically; the replaced file's leases are in conflict: -EINPROGRESS means that `waiter` is parked and the
     * call is to be made again after its resume. */
    int (*create)(void *fs, const char *path, const struct lease_credentials *who, mode_t mode, uint64_t *ret_inode);
    int (*publish)(void *fs, uint64_t inode, const char *path, const struct lease_credentials *who,
                   struct lease_waiter *waiter);

    /* Makes a range eligible: fills holes and unwritten blocks with zeros, unshares (`exclusive`), zeroes the slack
     * of the last block behind the end of file, makes it mappable on huge pages. `extend`: grow the file to the
     * range's end first. Conflicts with others' leases as a write where it replaces blocks (-EINPROGRESS as above).
     * -ENOSPC leaves the file's contents as they were. */
    int (*prepare)(void *fs, uint64_t inode, struct lease_range range, bool exclusive, bool extend,
                   struct lease_waiter *waiter);

    /* Clones the bytes of a whole file by sharing its blocks (copy on write after); creates or truncates the
     * destination. A conflict with write leases on the source and all leases on the destination. */
    int (*clone)(void *fs, const char *source, const char *destination, const struct lease_credentials *who,
                 struct lease_waiter *waiter);

    /* Brings dirty bytes of local mappings and caches into the pool and, for a lease that writes, drops the kernel's
     * cached pages of the range. To be called before the lease is begun, never between begin and hold (a page written
     * back then would wait for the grant, and the grant for the page). */
    int (*flush)(void *fs, uint64_t inode, struct lease_range range, enum lease_mode mode);

    /* Checks eligibility of a range in whole blocks (the last may reach beyond the end of file, no block of it may
     * lie wholly beyond) and takes references, atomically with the check: every operation that changes the range
     * either finished before, or sees the lease. -EPERM with *problem: not eligible.
     * *ret_runs is owned by the hold. */
    int (*hold)(void *fs, uint64_t inode, struct lease_range range, enum lease_mode mode, struct layout_hold **ret_hold,
                const struct layout_run **ret_runs, size_t *ret_n_runs, struct layout_problem *problem);

    /* A second hold on the blocks of a part of the first, whatever the file has there by now, for a lease that goes on
     * with less: another range, or LEASE_READ after LEASE_WRITE. To be called between the first one's fence and its
     * release(), when no remote access changes a byte; bytes that a writer left behind the end of file are zeroed
     * then, before readers share the block. */
    int (*hold_part)(void *fs, struct layout_hold *of, struct lease_range range, enum lease_mode mode,
                     struct layout_hold **ret_hold, const struct layout_run **ret_runs, size_t *ret_n_runs);

    /* The blocks' only permitted way back: after the fence. */
    void (*release)(void *fs, struct layout_hold *hold);

    /* The fence failed and the hold stays for ever: gives the file copies of every block that it still shares with
     * the hold, so that nothing a remote peer does shows in the file. */
    int (*detach)(void *fs, struct layout_hold *hold);

    /* After detach(): does nothing but this hold refer to its blocks, no file and no other lease? It stays so. */
    bool (*sole)(void *fs, struct layout_hold *hold);

    /* A remote writer changed, or may have changed, the range: new mtime, ctime and data version; size becomes
     * `new_size` when it is not UINT64_MAX (and lies within the last block of the range; else -EINVAL). The kernel
     * is told that the attributes which it knows are old; its pages of the range stay. */
    int (*committed)(void *fs, uint64_t inode, struct lease_range range, uint64_t new_size);

    /* Drops the kernel's cached pages of the range, on a thread of the filesystem's own, and then calls done(arg).
     * Never blocks the caller. */
    void (*invalidate)(void *fs, uint64_t inode, struct lease_range range, void (*done)(void *arg), void *arg);

    /* The blocks of a file, for people: at most max extents at or after `offset` (bytes), in order; how many, or a
     * negative errno. */
    int (*extents)(void *fs, uint64_t inode, uint64_t offset, struct layout_extent *extents, int max);

    /* Fills in a summary for "status". */
    struct layout_usage {
        uint64_t total_bytes, free_bytes, held_bytes, quarantined_bytes;
    } (*usage)(void *fs);
};

#endif
