/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FUSE_WIRE_H
#define LEASEFS_FUSED_FUSE_WIRE_H

/*
 * What the kernel offers and libfuse does not pass on, done where requests are read and replies written.
 *
 * libfuse 3.14 never sends some capabilities that it knows (parallel look-ups), and does not know others. So the same
 * for every libfuse from 3.14 on:
 *
 *   INIT reply        PARALLEL_DIROPS, HANDLE_KILLPRIV_V2, DIRECT_IO_ALLOW_MMAP, POSIX_ACL with DONT_MASK and
 *                     SETXATTR_EXT: as far as the kernel offered them
 *   TMPFILE           becomes a CREATE of FUSE_WIRE_TMPFILE_NAME: both have one form, and no file has that name
 *   STATX             answered here, with the time of birth
 *   SETXATTR          becomes the shorter form; whether set-group-id shall go: fuse_wire_kill_sgid()
 *   WRITE, SETATTR    whether the kernel wants set-user-id bits gone: fuse_wire_kill_priv()
 *   OPEN, CREATE      the reply says PARALLEL_DIRECT_WRITES: fuse_wire_parallel_writes()
 *
 * The last three talk about the request that the calling thread has read last, so they are for its op_*() function.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct fs;

#define FUSE_WIRE_TMPFILE_NAME "/"
#define FUSE_WIRE_STATX_BYTES  (16 + 288) /* of an answer with its header */

/* Does the request being served want the set-user-id and set-group-id bits cleared? `otherwise`: when the kernel
 * makes no difference (before 5.12). */
bool fuse_wire_kill_priv(bool otherwise);

/* Does the SETXATTR being served, of an access ACL, want set-group-id cleared? */
bool fuse_wire_kill_sgid(void);

/* The reply to OPEN or CREATE that this thread sends next lets direct writes of the file run side by side. */
void fuse_wire_parallel_writes(void);

struct fuse_wire {
    _Atomic uint64_t init_unique; /* of the INIT request; 0: none yet */
    _Atomic uint64_t offered;     /* the kernel's capabilities */
    uint64_t cache_seconds;       /* of what STATX tells */
    bool over_io_uring;           /* the INIT reply says OVER_IO_URING, if the kernel offered it */
};

/* May handles opened with O_DIRECT say that they go past the cache? Then their writers do not wait for each other.
 * Linux of `release` has to map such files and to drop what a buffered reader brought into the cache during the write.
 */
bool fuse_wire_direct_handles(const struct fuse_wire *wire, const char *release);

bool fuse_wire_offers_io_uring(const struct fuse_wire *wire);

/* A reply to INIT that is no error; its second part is a struct fuse_init_out. */
bool fuse_wire_is_init_reply(const struct fuse_wire *wire, const struct iovec *iov, int count);

/* A request of `size` bytes was read: notes and translates. true: it is to be answered by fuse_wire_statx(). */
bool fuse_wire_request(struct fuse_wire *wire, void *request, size_t size);

/* The answer to a STATX request (header and all): its bytes; 0: no room. */
size_t fuse_wire_statx(const struct fuse_wire *wire, struct fs *fs, const void *request, void *reply, size_t room);

/* A reply is about to be written. */
void fuse_wire_reply(struct fuse_wire *wire, const struct iovec *iov, int count);

#endif
