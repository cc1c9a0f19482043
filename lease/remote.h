/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_REMOTE_H
#define LEASEFS_LEASE_REMOTE_H

/*
 * Remote clients until they are sessions: listening sockets, TLS handshakes, keys, and how much of all this strangers
 * may use. Everything but the reading of the file happens on the control thread, at a lower priority than all else:
 * who has not shown a key yet is served when nobody else wants to be, and does not keep a Unix client waiting.
 */

#include "lease/service.h"

struct remote;
struct client_key;

/* Binds; no thread may run yet. *ret_remote is NULL when the configuration wants no remote clients. */
int remote_new(struct lease_service *service, struct remote **ret_remote, char **ret_error);
int remote_start(struct remote *remote); /* puts its sockets into the service's loop. NULL is allowed */
void remote_stop(struct remote *remote); /* control thread: no more strangers. NULL is allowed */
void remote_free(struct remote *remote); /* NULL is allowed */

/* A session that says nothing for so long is ended. */
uint64_t remote_idle_us(const struct remote *remote);

/* Control thread: after descriptors ran out. */
void remote_accept_again(struct remote *remote);

#endif
