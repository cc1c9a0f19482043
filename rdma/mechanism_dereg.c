/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * dereg: the MR is deregistered, which waits for every reference to it. Takes time with the MR's size (pages are
 * unpinned one by one).
 */

#include "rdma/internal.h"
#include "rdma/region.h"

int revoke_by_dereg(struct exposure *exposure, uint64_t deadline_ns)
{
    return region_deregister(exposure->region, exposure->successor, deadline_ns);
}
