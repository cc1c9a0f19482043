/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_IOCTL_H
#define LEASEFS_IOCTL_H

/*
 * What Linux does not pass on to FUSE filesystems: clones, and three modes of
 * fallocate(2).
 *
 * Clones: copying by sharing blocks between two open files of one leasefs
 * mount, as FICLONE and FICLONERANGE do elsewhere. Later changes to either file
 * are not seen in the other.
 *
 * An ioctl knows only the file it is made on. So the source hands out a token,
 * which proves that its bearer had the file open for reading, and the
 * destination takes it. leasefs_clone() does both.
 */

#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Good for one clone within ten seconds. Not to be shown to those who may not
 * read the file. */
struct leasefs_clone_token {
    uint64_t word[3];
};

/* Offsets are multiples of 4096; so is the length, or it reaches the source's
 * end. 0: to the source's end. */
struct leasefs_clone_range {
    struct leasefs_clone_token source;
    uint64_t source_offset, length, destination_offset;
};

/* On a regular file that is open for reading.
 * EBADF: it is not open for reading. EINVAL: not a regular file. EAGAIN: too
 * many tokens are out. ENOTTY: no leasefs. */
#define LEASEFS_IOC_CLONE_TOKEN _IOR('l', 0xe0, struct leasefs_clone_token)

/* On a regular file that is open for writing, not with O_APPEND; it becomes
 * longer where the range wants it, never shorter. Waits for leases as a write
 * does. EOPNOTSUPP: it would become longer, on a mount with
 * `writeback`. Other errors: as FICLONERANGE, and ESTALE: no such token: it was used,
 * it is too old, or it comes from elsewhere. */
#define LEASEFS_IOC_CLONE_RANGE _IOW('l', 0xe1, struct leasefs_clone_range)

/* mode: FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, or
 * FALLOC_FL_UNSHARE_RANGE with or without FALLOC_FL_KEEP_SIZE. */
struct leasefs_falloc {
    int32_t mode;
    uint32_t reserved; /* 0 */
    uint64_t offset, length;
};

/* On a regular file that is open for writing. Waits for leases as the other
 * modes do. Errors as fallocate(2); EOPNOTSUPP: also for the modes that Linux
 * passes on, and on a mount with `writeback`, where Linux would not take notice
 * of the new size. */
#define LEASEFS_IOC_FALLOCATE _IOW('l', 0xe2, struct leasefs_falloc)

#if defined(_POSIX_C_SOURCE) && _POSIX_C_SOURCE >= 200112L /* fsync() is declared */
/* Linux forgets a file's size with the ioctls below and asks for it again, but
 * takes no notice of an answer that crosses a notice about a lease: a mapping
 * would end where the file ended before, or O_APPEND go there. So until what it
 * has is what it is told (without _GNU_SOURCE: once). 0, or -1 and errno. */
static inline int leasefs_renew_size(int fd)
{
#ifdef AT_STATX_DONT_SYNC
    struct statx told, kept;

    for (int i = 0; i < 1000; i++) {
        if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE, &told) ||
            statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &kept))
            return -1;
        if (told.stx_size == kept.stx_size)
            break;
    }
    return 0;
#else
    struct stat unused;

    return fstat(fd, &unused);
#endif
}

/* All of `source` over the start of `destination`. What programs wrote to
 * mappings of either is written back first: what Linux would write later is not
 * in the source, and would be over the copy. 0, or -1 and errno. */
static inline int leasefs_clone(int source, int destination)
{
    struct leasefs_clone_range all = {{{0, 0, 0}}, 0, 0, 0};

    if (fsync(source) || fsync(destination))
        return -1;
    if (ioctl(source, LEASEFS_IOC_CLONE_TOKEN, &all.source))
        return -1;
    if (ioctl(destination, LEASEFS_IOC_CLONE_RANGE, &all))
        return -1;
    return leasefs_renew_size(destination);
}

/* What programs wrote to mappings is written back first: it would be written to
 * where it no longer belongs. 0, or -1 and errno. */
static inline int leasefs_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
    struct leasefs_falloc range = {mode, 0, offset, length};

    if (fsync(fd) || ioctl(fd, LEASEFS_IOC_FALLOCATE, &range))
        return -1;
    return leasefs_renew_size(fd);
}
#endif

#endif
