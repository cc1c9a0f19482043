/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * qp: the session's connection ends. The peer reconnects into the same protection domain, where its other leases go on.
 */

#include "rdma/connection.h"
#include "rdma/internal.h"
#include "rdma/region.h"

int revoke_by_qp(struct exposure *exposure, uint64_t deadline_ns)
{
    /* Barred first: a connection admitted between the fence and the bar would reach the MR again. */
    region_bar(exposure->region);
    return connection_fence_session(exposure->session, deadline_ns);
}
