/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_SERVICE_H
#define LEASEFS_LEASE_SERVICE_H

/*
 * The control service: the Unix socket, its sessions, and the threads that carry grants and fences out.
 *
 *   control thread   sd-event loop: accepts, parses, answers, sends notices, runs the table's clock. Never blocks. It
 *                    is one of the workers at a time: see service.c
 *   grant workers    flush, hold, expose, prepare, clone, publish: may block on the kernel or on registration.
 *   fence workers    gate, fence, drop, release. Separate, so that a grant that waits never delays a fence.
 *
 * Lock order: lease/lock_order.h. Nothing calls out with a lock of the service held.
 */

#include <stdint.h>
#include <sys/types.h>

#include "lease/exposure_ops.h"
#include "lease/layout_ops.h"
#include "lease/lease_table.h"

struct lease_service;

/* Of remote clients. 0: the default (lease/remote.c). */
struct remote_limits {
    unsigned handshakes, source_handshakes; /* at once, in all and from one address; the oldest gives way */
    unsigned sessions, key_sessions;        /* at once, in all and with one key */
    unsigned handshake_ms;
    uint64_t idle_ms; /* a session that says nothing for so long is ended */
};

struct lease_service_config {
    const char *control_path;  /* Unix socket, mode 0600; a stale one (nobody listens) is replaced */
    const char *const *listen; /* "ADDRESS[:PORT]" each: TLS for remote clients; port 0: any. With keys_path */
    size_t n_listen;
    const char *keys_path; /* lease/key_file.h; lives as long as the service */
    struct remote_limits remote;
    struct lease_limits limits;
    const struct layout_ops *layout;
    void *fs;
    const struct exposure_ops *exposure; /* NULL: no RDMA device; leases are refused with no_device_reason */
    void *fabric;
    const char *no_device_reason;
    uint64_t boot_epoch;
    uint64_t open_timeout_us; /* a connection that has asked for no session by then is closed; 0: 10 s */
};

/* new: binds the socket and makes the table, so that errors show before the mount. start: runs the threads (after
 * daemonizing). stop: ends sessions, fences every lease, joins the threads; bounded in time. *ret_error: a sentence,
 * free(). */
int lease_service_new(const struct lease_service_config *config, struct lease_service **ret_service, char **ret_error);
int lease_service_start(struct lease_service *service);
void lease_service_stop(struct lease_service *service);
void lease_service_free(struct lease_service *service); /* after stop; removes the socket. NULL is allowed */

/* Reads the keys again. On an error the old ones stay, and *ret_error (free()) says why; else sessions whose key is
 * gone or has changed end soon. Any thread; may block. */
int lease_service_reload_keys(struct lease_service *service, char **ret_error);

/* Of the n-th address that is listened on; 0: there is none. */
uint16_t lease_service_remote_port(const struct lease_service *service, size_t n);

struct lease_table *lease_service_table(struct lease_service *service);

#endif
