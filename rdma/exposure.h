/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_EXPOSURE_H
#define LEASEFS_RDMA_EXPOSURE_H

/* What a mechanism finds in an exposure. Its operations are in internal.h, as exposure_ops has them. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct exposure {
    struct exposure_session *session; /* the region's reference keeps it */
    struct window *window;
    struct region *region;
    uint64_t length;
    atomic_bool fenced;
    LIST_ENTRY(exposure) link; /* fabric->exposures; guarded by fabric->lock */
};

#endif
