/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_CONTROL_SOCKET_H
#define LEASEFS_LEASE_CONTROL_SOCKET_H

/* A Unix socket at `path` on which nobody else listens, for its owner alone (0600), non-blocking. What a daemon has
 * left there that is dead is replaced; one that is dying (killed, it listens until its last descriptor is closed) is
 * waited for, and so is, for some seconds, one that does not answer: it lives. -EADDRINUSE, -EEXIST (no socket),
 * -ENOENT, -ENAMETOOLONG and others; *ret_error says why (malloc'd; NULL: no memory). */
int control_socket_listen(const char *path, int *ret_fd, char **ret_error);

#endif
