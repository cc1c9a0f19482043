/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_IDLE_H
#define LEASEFS_INITIATOR_IDLE_H

/*
 * Read leases that their callers have returned and that the session keeps for a moment
 * (leasefs_session_options.idle_leases), because to take the same one again would cost a registration.
 *
 *            leasefs_lease_return()          leasefs_lease_open()           the server: it is still good
 *   the caller's ------------------> idle -----------------------> taken -------------------------------> the caller's
 *                                     |  recall, a third of the      | the server: here is a new one
 *                                     |  lease time, too many, need  v
 *                                     +------------------------> given back
 *
 * The server is told that it is idle, and asked before it is taken up again: whether the path still names that file,
 * the caller may still read it, and the range is still what is wanted. What is given back is freed by reap().
 */

#include "rdma/initiator/session.h"

/* In place of giving it back. true: it is kept, and the caller's no longer. */
bool idle_keep(struct leasefs_lease *lease);

/* A kept lease that looks like the one that is asked for, taken and pinned; NULL: none does. It is either taken up
 * (idle_take_up_locked(), on the thread that reads the answer), or idle_give_back() must follow. */
struct leasefs_lease *idle_take(struct leasefs_session *session, const char *path,
                                const struct leasefs_lease_options *options);
/* The server has answered `asking` with the kept lease. false: it has ended here meanwhile. */
bool idle_take_up_locked(struct leasefs_lease *kept, const struct leasefs_lease *asking,
                         const struct leasefs_layout *layout, uint64_t sent_at_ns);
void idle_give_back(struct leasefs_lease *kept);

/* Gives all back and waits for it. false: there was none. */
bool idle_give_back_all(struct leasefs_session *session);

#endif
