/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_REGION_H
#define LEASEFS_RDMA_REGION_H

/*
 * One MR in a session's protection domain, from registration to deregistration, and never given to a second lease:
 * its key would come alive again in the hands of the first holder.
 *
 * Calls on the MR can block in the kernel. They run one at a time (`busy`), and nobody waits for one past its deadline.
 * A call that comes back late still changes the region's state, but is no proof of anything.
 */

#include <stdbool.h>
#include <stdint.h>

#include "rdma/exposure.h"
#include "rdma/helpers.h"

struct region;
struct exposure_session;
struct spare;
struct window;

/* Takes a reference to the session, and on success the window over: its addresses stay taken as long as the MR lives.
 * access: IBV_ACCESS_*, of peers' keys. iova is the address that peers use, where the device allows the choice; on
 * demand it is always the memory's own: soft-RoCE needs that and does not check it. -ENOMEM: RLIMIT_MEMLOCK included,
 * which is logged; -EAGAIN: the device offers only keys of leases that ended a moment ago; others from the device. May
 * block. */
int region_new(struct exposure_session *session, struct window *window, uint64_t iova, int access,
               enum exposure_style style, struct region **ret_region);

/* Of a spare, in no time that depends on the size. As region_new(), on failure, too: the window is the caller's; the MR
 * is gone. */
int region_adopt(struct exposure_session *session, struct spare *spare, int access, struct region **ret_region);

uint32_t region_rkey(const struct region *region);
uint64_t region_remote_address(const struct region *region);

/*
 * What follows calls on the MR. successor NULL: on a helper, while this thread waits, until the deadline and no longer.
 * Otherwise on this thread, without a hand-over; when it is stuck past the deadline, the successor is run on a helper,
 * and -EINPROGRESS is what it finds when it comes back.
 */

/* No remote access any more (rereg). 0: done by the deadline, or the MR is gone. -EBUSY: an earlier call is stuck. */
int region_gate(struct region *region, struct helper_job *successor, uint64_t deadline_ns);

/* Takes the pages away from an MR that is on demand. 0: done by the deadline, which proves that no access is in
 * progress. -EBUSY as above. */
int region_cover(struct region *region, struct helper_job *successor, uint64_t deadline_ns);

/* Frees the memory window whose key peers use. 0: done by the deadline, or there is no access any more. -EBUSY as
 * above; -EOPNOTSUPP: the region has none. */
int region_close_window(struct region *region, struct helper_job *successor, uint64_t deadline_ns);

/* Deregisters. 0: done by the deadline, which proves that no access is in progress. -EALREADY: gone, but by a call
 * that came back late. -EBUSY: an earlier call is stuck. */
int region_deregister(struct region *region, struct helper_job *successor, uint64_t deadline_ns);

/* The session's QPs are about to be fenced while this MR may live on: until it is gone or gated, no new connection of
 * the session is admitted, for it could reach the MR again. */
void region_bar(struct region *region);

/* The caller's reference; deregisters in the background what still is registered. Frees the session's reference when
 * that has happened. */
void region_retire(struct region *region);

#endif
