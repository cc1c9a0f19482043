/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_LOOP_H
#define LEASEFS_INITIATOR_LOOP_H

/*
 * What a session does by itself: it hears the server, calls callbacks, renews leases and watches the connection for a
 * disconnect. On a thread of its own, or, where the caller drives, in leasefs_session_dispatch() and in every call that
 * waits: session_await_locked(), and rpc_wait() and conn.c through what they are given here.
 */

struct leasefs_session;

int loop_start(struct leasefs_session *session); /* sets the error sentence */
void loop_stop(struct leasefs_session *session);

/* The session has another connection, or none. */
void loop_watch_conn(struct leasefs_session *session);

/* For conn_meanwhile(). */
void loop_drive_meanwhile(void *session);

#endif
