/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How access is revoked, each way with what it is worth as measured on soft-RoCE with long transfers in flight:
 *
 *   rereg  gate    no new access; but a READ in progress runs on to its end, so it is never a fence
 *   dereg  fence   waits for every reference to the MR
 *   qp     fence   ends the peer's connection; it reconnects into the same domain and its other MRs serve on
 */

#include "rdma/connection.h"
#include "rdma/exposure.h"
#include "rdma/internal.h"
#include "rdma/region.h"
#include "rdma/sync.h"

static int gate_by_rereg(struct exposure *exposure, uint64_t deadline_ns)
{
    return region_gate(exposure->region, deadline_ns);
}

static int fence_by_dereg(struct exposure *exposure, uint64_t deadline_ns)
{
    return region_deregister(exposure->region, deadline_ns);
}

static int fence_by_qp(struct exposure *exposure, uint64_t deadline_ns)
{
    /* Barred first: a connection admitted between the fence and the bar would reach the MR again. */
    region_bar(exposure->region);
    return connection_fence_session(exposure->session, deadline_ns);
}

/* The deadlines: deregistering takes time with the size (some GiB a second where emulated), so it gets seconds; all
 * stay far below the 50 s after which the rxe kernel gives up and reports success. */
const struct revoke_mechanism fabric_mechanisms[] = {
    {"rereg", REVOKE_GATE, 500 * NS_PER_MS, gate_by_rereg},
    {"dereg", REVOKE_FENCE, 2 * NS_PER_S, fence_by_dereg},
    {"qp", REVOKE_FENCE, 2 * NS_PER_S, fence_by_qp},
};
const size_t fabric_n_mechanisms = sizeof(fabric_mechanisms) / sizeof(fabric_mechanisms[0]);
