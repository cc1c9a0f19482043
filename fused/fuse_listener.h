/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FUSE_LISTENER_H
#define LEASEFS_FUSED_FUSE_LISTENER_H

/*
 * By io_uring FORGET and INTERRUPT come by read(2) all the same (fuse_ring.h). Nobody waits for an answer, but what has
 * been forgotten is space, and where programs delete many files there are as many FORGETs as requests: to wake a thread
 * for each costs more than the request.
 *
 * So one thread at a time (turn.h) is the listener. When it has read a FORGET and finds nothing more, it stays away for
 * a millisecond: meanwhile Linux has nobody to wake, and gives it the FORGETs of that time in one piece. Who has to
 * know what has been forgotten so far asks it to look now, and waits until it has.
 */

#include <stddef.h>
#include <sys/types.h>

struct fuse_listener;

int fuse_listener_new(struct fuse_listener **ret_listener); /* -ENOMEM, -EMFILE */
void fuse_listener_free(struct fuse_listener *listener);    /* nobody is in it any more. NULL is allowed */

/* read(2) of one message, as libfuse expects it: whoever calls again has served the last one, or passed its turn. One
 * thread at a time. `fd`, the thread's own, is made non-blocking. Not a cancellation point. Ends as the connection
 * does, and with ENODEV after stop(). */
ssize_t fuse_listener_read(struct fuse_listener *listener, int fd, void *buffer, size_t size);

/* Returns when all that Linux has sent by now has been read, and served but for what its thread passed the turn for. At
 * once before the first read and after the end. No lock is held. The listener itself does not wait. */
void fuse_listener_catch_up(struct fuse_listener *listener);

/* The listener ends. Any thread. */
void fuse_listener_stop(struct fuse_listener *listener);

#endif
