/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_EXPOSURE_H
#define LEASEFS_RDMA_EXPOSURE_H

/* What a mechanism finds in an exposure. Its operations are in internal.h, as exposure_ops has them. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "rdma/helpers.h"
#include "rdma/revoke.h"

/* How memory is registered decides what can be done about it later. */
enum exposure_style {
    EXPOSURE_PINNED,
    EXPOSURE_WINDOWED,  /* pinned; the key is a memory window's */
    EXPOSURE_ON_DEMAND, /* the NIC follows the page tables of a window of the lease's own */
};

struct exposure {
    /* Of exposure_take_back(), and of whichever thread climbs. */
    struct helper_job go_on;      /* must be first */
    struct helper_job *successor; /* &go_on: who is stuck is succeeded. NULL: who might be waits for a helper instead */
    struct revoke_climb climb;
    void (*late)(void *arg, int error);
    void *late_arg;

    struct exposure_session *session; /* the region's reference keeps it */
    struct region *region;
    enum exposure_style style;
    uint64_t offset, length; /* of the file */
    bool writes;             /* its peer may write: counted in session->writers */

    /* The caller's, until it drops the exposure or has been told that orphaning succeeded. */
    const struct layout_segment *segments;
    const struct layout_run *runs;
    size_t n_runs;

    atomic_bool fenced;
    LIST_ENTRY(exposure) link; /* fabric->exposures; guarded by fabric->lock */
};

#endif
