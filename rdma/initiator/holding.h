/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_HOLDING_H
#define LEASEFS_INITIATOR_HOLDING_H

/* The states of a lease that the peer holds (picture in session.h), and everything that moves it from one to another
 * once it was granted: recalls, renewals, transfers, giving back. `_locked`: with session->lock held. */

#include "rdma/initiator/session.h"

/* Granted or renewed by a request sent at that time. */
void holding_extend_locked(struct leasefs_lease *lease, uint64_t sent_at_ns);

/* -> ENDED, once; later ends change nothing. */
void holding_end_locked(struct leasefs_lease *lease, int status, const char *reason);

/* ACTIVE -> RETURNING. Does not wait. True: return_call was sent just now. */
bool holding_return(struct leasefs_lease *lease);

/* Is it time to send the return request? Then the caller sends it, after dropping the lock; the lease is pinned. */
bool holding_return_due_locked(struct leasefs_lease *lease);
void holding_send_return(struct leasefs_lease *lease);

/* Sends a renewal, which also says whether the lease is idle now. The caller has set `renewing` and pinned it. */
void holding_send_renewal(struct leasefs_lease *lease, bool idle);

/* ENDED, and nobody uses the object any more. */
bool holding_at_rest_locked(const struct leasefs_lease *lease);

/* Gives back every lease of the session and waits until all are at rest; a server that does not answer for
 * HOLDING_CLOSE_TIMEOUT_S loses the control connection, which ends them too. */
#define HOLDING_CLOSE_TIMEOUT_S 60
void holding_return_all(struct leasefs_session *session);

#endif
