/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FUSE_CHANNEL_H
#define LEASEFS_FUSED_FUSE_CHANNEL_H

#include <stddef.h>

struct fuse_session;
struct fuse_server;

/* How the session's requests are read and its answers sent. After the mount and before the first request. The
 * session's userdata is the fuse_server. -EINVAL, -ENOMEM. */
int fuse_channel_attach(struct fuse_session *session);

/* Bytes of the largest read or write that Linux shall ask for at once. Not before INIT has been read. */
size_t fuse_channel_largest(const struct fuse_server *server);

#endif
