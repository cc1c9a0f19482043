/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_FABRIC_H
#define LEASEFS_RDMA_FABRIC_H

/*
 * The server's side of the fabric: one RDMA device, its listener, the sessions' protection domains and connections,
 * and exposures. Filled into exposure_ops. Thread-safe. One thread of its own handles rdma_cm and device events.
 *
 * To be started after daemonizing and after any change of credentials: uverbs refuses forked users and changed
 * credentials.
 */

#include <stdint.h>

#include "lease/exposure_ops.h"

struct fabric;

struct fabric_config {
    const char *device;   /* device name ("rxe0"), an address of one of its ports ("10.0.0.1"), or NULL: the first that
                           * is active and has an address */
    uint16_t port;        /* of the rdma_cm listener; 0: any free one */
    const char *revoke;   /* ladder: "auto" or NULL, or a comma-separated list of mechanisms */
    uint64_t spare_bytes; /* most that is registered ahead for ranges just returned (spare.h); 0: nothing */
};

/* -ENODEV and other errors: *ret_error is a sentence (what, why, what to do), free(). */
int fabric_start(const struct fabric_config *config, struct fabric **ret_fabric, char **ret_error);
void fabric_stop(struct fabric *fabric); /* every session closed; NULL is allowed */

extern const struct exposure_ops fabric_exposure_ops; /* its `fabric` argument is a struct fabric */

#endif
