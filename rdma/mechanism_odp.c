/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * odp: the lease's window is mapped over with memory that nobody may touch. Gate and fence in one, on MRs that are on
 * demand: the kernel returns from mmap() only when the device has let go of the pages, and the next access finds
 * nothing to fault in. Anything that leaves the window mapped (punching a hole, MADV_DONTNEED) would not do: the device
 * faults fresh pages in.
 */

#include "rdma/internal.h"
#include "rdma/region.h"

int revoke_by_odp(struct exposure *exposure, uint64_t deadline_ns)
{
    return region_cover(exposure->region, exposure->successor, deadline_ns);
}
