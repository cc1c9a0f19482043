/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_EXPOSURE_OPS_H
#define LEASEFS_LEASE_EXPOSURE_OPS_H

/*
 * What the lease service asks of the fabric. rdma/ fills this table in; unit tests and a server without an RDMA
 * device fill in others. Every function is thread-safe and called with no lock held; those that may block say so.
 * 0 or a negative errno; outputs change only on success.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lease/layout_ops.h"
#include "lease/lease_table.h"
#include "lease/range.h"
#include <leasefs/protocol.h>

/* A control session's side of the fabric: a protection domain and at most one live connection. Every exposure of
 * the session is registered in that domain, so no key of one session works on another's connection (I8). */
struct exposure_session;

/* One lease's remote access: a window on its blocks and one MR. */
struct exposure;

struct exposure_request {
    enum lease_mode mode;     /* LEASE_READ: remote read only (I8). LEASE_WRITE: remote read and write. */
    struct lease_range range; /* of the file, whole blocks */
    const struct layout_segment *segments;
    const struct layout_run *runs; /* in file order; the caller keeps them valid until drop() */
    size_t n_runs;
};

struct exposure_grant {
    uint64_t remote_address; /* of the range's first byte */
    uint32_t rkey;
};

struct exposure_address {
    struct sockaddr_storage address; /* where rdma_cm listens, with the port */
    uint8_t cookie[LEASEFS_COOKIE_SIZE];
};

struct exposure_ops {
    /* reached: the address of this host at which its client arrived, for session_connect(); NULL: by no network.
     * -ENODEV: no usable RDMA device. May block. */
    int (*session_open)(void *fabric, uint64_t session_id, const struct sockaddr *reached,
                        struct exposure_session **ret_session);

    /* A fresh cookie for one connection of this session; voids an earlier unused one. A second connection replaces
     * the first. The address is the one that the client reached if connections are accepted there. */
    int (*session_connect)(struct exposure_session *session, struct exposure_address *ret_address);

    /* Breaks the connection. Called when every exposure of the session is dropped or abandoned. May block. */
    void (*session_close)(struct exposure_session *session);

    /* Maps the window and registers it. May block for a time that grows with the size.
     * -ENOMEM with RLIMIT_MEMLOCK exceeded, -E2BIG: more runs than mappings allowed. */
    int (*expose)(struct exposure_session *session, const struct exposure_request *request,
                  struct exposure **ret_exposure, struct exposure_grant *ret_grant);

    /* Gate: after success no new remote access is accepted. Not a proof about accesses in progress. Bounded. A
     * failure is not an error for the caller to act on: fence() follows in any case. */
    int (*revoke)(struct exposure *exposure);

    /* Fence: after success no remote access through the exposure can read or change a byte any more. Climbs the
     * ladder of mechanisms, each with its own deadline; blocks for at most fence_bound_ns() in all.
     * -ETIMEDOUT: no proof; the blocks must be quarantined. */
    int (*fence)(struct exposure *exposure);
    uint64_t (*fence_bound_ns)(void *fabric);

    /* NULL: not supported. revoke() and fence() in one, as fast as the device allows: its calls are made by the
     * calling thread, which may then be stuck in the kernel for longer than the bound. So when the deadline of such a
     * call passes, another thread takes over: it climbs on, and calls late(arg, error), with what fence() would have
     * returned, within fence_bound_ns() and the gates' deadlines from the start. On this thread -EINPROGRESS is
     * returned whenever that may be, and the exposure is none of its business any more.
     * at_leisure: nobody waits for the end of access, so the shortest way to the end of everything is taken, without
     * what only ends access sooner. */
    int (*take_back)(struct exposure *exposure, bool at_leisure, void (*late)(void *arg, int error), void *arg);

    /* NULL: not supported. After a failed fence, when no file refers to the blocks any more (detach): puts other memory
     * in their place. On 0 the blocks may be used again, though the device may go on with the old memory; the
     * exposure stays for ever, and must not be dropped. */
    int (*orphan)(struct exposure *exposure);

    /* Frees the window and the object; only after a successful fence. */
    void (*drop)(struct exposure *exposure);

    /* Devices, mechanisms and counters, for "probe" and "status". New references; NULL when out of memory. */
    json_t *(*probe)(void *fabric);
    json_t *(*status)(void *fabric);
};

#endif
