/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * rereg: the MR loses its access rights, in a time that does not depend on its size; or it moves to a domain without
 * queue pairs, where a driver knows no MR without rights.
 *
 * A gate. On soft-RoCE a READ in progress runs on to its end, because the responder looks at the rights once for each
 * request. Devices that wait for their pipeline in this command (mlx5: a UMR operation that is awaited) make it a
 * fence as well; there the self-test has to agree (proof.h).
 */

#include "rdma/internal.h"
#include "rdma/region.h"

int revoke_by_rereg(struct exposure *exposure, uint64_t deadline_ns)
{
    return region_gate(exposure->region, exposure->successor, deadline_ns);
}
