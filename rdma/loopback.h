/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_LOOPBACK_H
#define LEASEFS_RDMA_LOOPBACK_H

/*
 * A peer of our own, for proof.c: a connection to our listener over the device, and transfers on it. One thread only.
 * All waiting is polling with a deadline (monotonic).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lease/exposure_ops.h"

#define LOOPBACK_DEPTH 16u

struct loopback;

/* buffer: local memory for transfers. -ETIMEDOUT, -ECONNREFUSED, others. */
int loopback_connect(const struct exposure_address *where, void *buffer, size_t size, uint64_t deadline_ns,
                     struct loopback **ret_loopback);
void loopback_close(struct loopback *loopback); /* NULL is allowed */

/* Posts LOOPBACK_DEPTH transfers of the whole buffer, one after the other. */
int loopback_start(struct loopback *loopback, bool read, uint64_t remote_address, uint32_t rkey);

struct loopback_state {
    unsigned succeeded, failed;
};

/* Takes what has completed into account. */
void loopback_poll(struct loopback *loopback, struct loopback_state *ret_state);

/* The same until all have completed, or until the deadline; leaves the processor to others. */
void loopback_drain(struct loopback *loopback, uint64_t deadline_ns, struct loopback_state *ret_state);

#endif
