/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FUSE_CHANNEL_H
#define LEASEFS_FUSED_FUSE_CHANNEL_H

struct fuse_session;

/* How the session's requests are read and its answers sent. After the mount and before the first request. The
 * session's userdata is the fuse_server. -EINVAL, -ENOMEM. */
int fuse_channel_attach(struct fuse_session *session);

#endif
