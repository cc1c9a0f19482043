/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_CONNECTION_H
#define LEASEFS_RDMA_CONNECTION_H

/*
 * One RC connection of a session.
 *
 *   setting up --> half open --> established
 *        \             \             \
 *         `-------------`-------------`--> condemned --> torn down
 *
 *   setting up   connection_accept(), on the event thread
 *   established  connection_established()
 *   condemned    connection_condemn_locked(): any reason (replaced, disconnected, QP long in ERR, session closed,
 * fence); the tear-down is then on its way on a helper, and nothing brings the connection back torn down tear_down():
 * QP to ERR, the peer told, QP, CQ and id destroyed
 *
 * A connection is *quiet* when its QP can neither read nor write any more: its posted receive came back flushed, or
 * the QP is destroyed. The receive is there for that alone; peers have nothing to send, and one that sends is cut off.
 */

#include <rdma/rdma_cma.h>
#include <stdint.h>

struct connection;
struct exposure_session;
struct fabric;

/*
 * Answers a connection request that belongs to the session. Takes over the caller's reference to the session and the
 * id, on success and on failure. A connection that the session had is replaced. Event thread only.
 * -EBUSY: too many half-open connections, or the session is barred; -ECANCELED: condemned meanwhile; others from the
 * device. The request has been answered (accepted or rejected) in each case.
 */
int connection_accept(struct exposure_session *session, struct rdma_cm_id *id, const struct rdma_conn_param *request);

void connection_reject(struct fabric *fabric, struct rdma_cm_id *id, unsigned code);

/* Event thread. */
void connection_established(struct connection *connection);
/* Data came before the last message of the handshake did, or that one is lost. */
void connection_in_use(struct connection *connection);
void connection_disconnected(struct connection *connection);
/* An error event of its QP or CQ. The peer has a moment to see why and to leave; then the connection is condemned. */
void connection_broken(struct connection *connection);
void connection_completion(struct connection *connection, struct ibv_cq *cq);
/* Condemns what is half open or broken for too long; returns when to look again (monotonic), 0: no need. */
uint64_t connection_expire(struct fabric *fabric);

void connection_condemn_session_locked(struct exposure_session *session);
void connection_condemn_all_locked(struct fabric *fabric);

/*
 * The session's QPs let its peer write, or not any more, as its leases need (session->writers). When it returns they
 * do. May block in the kernel.
 */
void connection_fit_rights(struct exposure_session *session);
unsigned connection_count_writable_locked(struct fabric *fabric);

/*
 * The last rung: every connection that the session has now goes to ERR and is waited for until it is quiet.
 * -ETIMEDOUT: not all of them by the deadline.
 */
int connection_fence_session(struct exposure_session *session, uint64_t deadline_ns);

#endif
