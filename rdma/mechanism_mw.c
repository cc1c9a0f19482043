/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * mw: the lease's key is that of a memory window on its MR, and the window is freed. In a time that does not depend on
 * the size, and also where a driver has no rereg. A gate: on soft-RoCE one more packet may follow (seen in a READ out
 * of five), so it is never taken for a fence.
 */

#include "rdma/internal.h"
#include "rdma/region.h"

int revoke_by_mw(struct exposure *exposure, uint64_t deadline_ns)
{
    return region_close_window(exposure->region, exposure->successor, deadline_ns);
}
