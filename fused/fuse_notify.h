/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FUSE_NOTIFY_H
#define LEASEFS_FUSED_FUSE_NOTIFY_H

/*
 * Telling the kernel that what it has cached is old.
 *
 * The kernel may make the teller wait: for a page that a WRITE request holds (which may be parked), or for a directory
 * that an UNLINK holds. So nothing here is called with a lock held or from a request's thread, and what must not block
 * goes to a thread. Before the mount and after its end there is nothing to tell.
 */

#include <stdbool.h>
#include <stdint.h>

struct fuse_session;
struct fuse_notifier;

int fuse_notifier_new(struct fuse_notifier **ret_notifier);
void fuse_notifier_free(struct fuse_notifier *notifier); /* after stop; NULL is allowed */

/* The mount is gone: tells the kernel nothing any more; notes to come are done at once. Waits for those under way.
 * Before the session's file descriptor is closed. */
void fuse_notifier_mute(struct fuse_notifier *notifier);

/* The session is usable from start to stop. stop: waits for the last notification and its done(); whatever is asked
 * for later is done at once, without a kernel to tell. */
int fuse_notifier_start(struct fuse_notifier *notifier, struct fuse_session *session);
void fuse_notifier_stop(struct fuse_notifier *notifier);

/* As struct fs_kernel_cache wants them. */
void fuse_notify_inode(void *notifier, uint64_t ino, int64_t offset, int64_t length);
void fuse_notify_entry(void *notifier, uint64_t parent, const char *name);
void fuse_notify_inode_later(void *notifier, uint64_t ino, int64_t offset, int64_t length, void (*done)(void *arg),
                             void *arg);

#endif
