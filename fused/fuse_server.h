/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FUSE_SERVER_H
#define LEASEFS_FUSED_FUSE_SERVER_H

/*
 * The mount: a libfuse session and the threads that answer its requests.
 *
 *   new -> mount -> start ... stop -> free
 *
 * Two eventfds tell of it: `ready` when the kernel has shaken hands (the mount works), `ended` when the threads have
 * ended (unmounted from outside, or stop()).
 */

#include <stdbool.h>

struct fs;
struct park;
struct fuse_args;
struct fuse_session;
struct fuse_server;

/* How far the kernel may trust what it has read. NONE: not at all; all I/O is direct. AUTO: until it is told.
 * `writeback`: it may also keep what is written, and is right about sizes and times then: not for files that anybody
 * else changes, as leases do. */
enum fuse_cache { FUSE_CACHE_AUTO, FUSE_CACHE_NONE };

/* How requests come (fuse_ring.h): by io_uring where the kernel offers it; never; or not at all if it does not. */
enum fuse_io_uring { FUSE_IO_URING_AUTO, FUSE_IO_URING_OFF, FUSE_IO_URING_ON };

struct fuse_server_config {
    enum fuse_cache cache;
    bool writeback;
    enum fuse_io_uring io_uring;
};

/* args: FUSE's and libfuse's options (fuse_opt.h). On failure libfuse has said on stderr what it did not like.
 * -EINVAL, -ENOMEM. */
int fuse_server_new(struct fs *fs, struct park *park, const struct fuse_server_config *config, struct fuse_args *args,
                    struct fuse_server **ret_server);
struct fuse_session *fuse_server_session(struct fuse_server *server);
int fuse_server_ready_fd(const struct fuse_server *server);
int fuse_server_ended_fd(const struct fuse_server *server);

int fuse_server_mount(struct fuse_server *server, const char *mountpoint); /* says itself what went wrong; -EIO */
int fuse_server_start(struct fuse_server *server);

/* Ends the threads and unmounts, also a mount in use (its users get ENOTCONN). Bounded by the requests being worked
 * on, of which none waits. To be called once after a successful mount, whether or not the mount is there still. */
void fuse_server_stop(struct fuse_server *server);

/* Every request was answered. NULL is allowed. */
void fuse_server_free(struct fuse_server *server);

#endif
