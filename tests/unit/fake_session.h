/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TEST_FAKE_SESSION_H
#define LEASEFS_TEST_FAKE_SESSION_H

/* A session with one write lease on the fake NIC's memory, without a server: connections are made by the
 * session_conn() below, which replaces session.c's. */

#include "fake_nic.h"
#include "rdma/initiator/clock.h"
#include "rdma/initiator/session.h"
#include <leasefs/leasefs.h>

static struct leasefs_session fake_session;
static struct leasefs_lease fake_lease;

int session_may_block(const struct leasefs_session *session)
{
    (void)session;
    return 0;
}

void session_wake(struct leasefs_session *session)
{
    (void)session;
}

void session_drive_now_and_then(struct leasefs_session *session)
{
    (void)session;
}

int session_await_locked(struct leasefs_session *session, uint64_t until_ns)
{
    (void)until_ns;
    return -pthread_cond_wait(&session->changed, &session->lock);
}

int session_conn(struct leasefs_session *session, struct conn **ret_conn)
{
    if (session->conn && conn_broken(session->conn)) {
        conn_unref(session->conn);
        session->conn = NULL;
    }
    if (!session->conn)
        session->conn = nic_connect(session->depth, session->chunk);
    *ret_conn = conn_ref(session->conn);
    return 0;
}

static struct leasefs_lease *fake_session_start(unsigned depth, size_t chunk)
{
    nic_start();
    fake_session = (struct leasefs_session){.depth = depth, .chunk = chunk, .device = device};
    pthread_mutex_init(&fake_session.lock, NULL);
    pthread_cond_init(&fake_session.changed, NULL);
    fake_lease = (struct leasefs_lease){
        .session = &fake_session,
        .options = {.mode = LEASEFS_WRITE},
        .layout =
            {.lease_id = 1, .mode = LEASEFS_WRITE, .length = REMOTE_SIZE, .rkey = GOOD_KEY, .lease_time_ms = 60000},
        .granted = true,
        .holding = HOLDING_ACTIVE,
        .expires_at_ns = clock_now_ns() + 60000 * NS_PER_MS,
    };
    return &fake_lease;
}

static void fake_session_stop(void)
{
    assert_int_equal(fake_lease.transfers, 0);
    conn_unref(fake_session.conn);
    nic_stop();
    pthread_cond_destroy(&fake_session.changed);
    pthread_mutex_destroy(&fake_session.lock);
}

#endif
