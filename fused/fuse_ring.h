/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FUSE_RING_H
#define LEASEFS_FUSED_FUSE_RING_H

/*
 * FUSE over io_uring (Linux 6.14; Documentation/filesystems/fuse/fuse-io-uring.rst): requests come by io_uring instead
 * of read(2), answers go by it instead of writev(2), and sending an answer fetches the next request.
 *
 * Linux has a queue for each processor and puts a request into that of the processor on which its program runs. Here a
 * few threads serve each queue, bound to that processor: program and server take turns on it, and nobody waits until
 * another processor has been woken. Each thread has an io_uring of its own and one entry (a header and a buffer for the
 * largest request), which Linux fills and the answer gives back. Linux takes the entry that came back last, so one
 * thread does all the work; while it works long or waits for a lock its entry is out, and others get the requests.
 *
 * A request that is not answered when serve() returns, because it waits for a lease, keeps its entry, and the thread
 * adds another: nobody else waits. Its answer comes from some thread later, and is handed to the thread of the entry,
 * because Linux fills an entry on the thread that gave it.
 *
 * FORGET and INTERRUPT come by read(2) all the same, and so does everything before open().
 *
 *   new -> open -> stop -> free         (or new -> stop -> free)
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

struct fuse_ring;

struct fuse_ring_config {
    int fd;         /* of the FUSE connection */
    size_t largest; /* bytes of a request or answer besides its headers: as INIT has agreed on */
    /* A request, header and body as read(2) would have given it; the callee may change it. On a thread of the ring. */
    void (*serve)(void *arg, void *request, size_t size);
    void *arg;
};

/* Makes threads and buffers. To be called before the INIT reply says OVER_IO_URING: from then on Linux waits for the
 * ring. -ENOSYS, -EPERM: no io_uring here; -EINVAL: an old one; -ENOMEM, -EAGAIN, -EMFILE. */
int fuse_ring_new(const struct fuse_ring_config *config, struct fuse_ring **ret_ring);

/* Linux has that reply. Once. */
void fuse_ring_open(struct fuse_ring *ring);

/* Answers a request that came by the ring; iov[0] is a struct fuse_out_header. false: it did not come by the ring. Any
 * thread; one answer to each request. An answer after the end of the connection or after stop() goes nowhere. */
bool fuse_ring_reply(struct fuse_ring *ring, const struct iovec *iov, int count);

/* Ends the threads. Who waits for an answer then waits for the end of the connection. Once. NULL is allowed. */
void fuse_ring_stop(struct fuse_ring *ring);

/* After stop(). NULL is allowed. */
void fuse_ring_free(struct fuse_ring *ring);

#endif
