/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_SESSION_H
#define LEASEFS_INITIATOR_SESSION_H

/*
 * The library's inside: what a session and a lease are made of, and who guards what.
 *
 * Locks. All are leaves (lease/lock_order.h): none is held while another is taken, a callback is called, or, but where
 * said otherwise, a socket or the RDMA connection manager is waited for.
 *
 *   session->lock     leases and their states, the current connection, the device
 *   device->lock      registered buffers                                      (device.h)
 *   conn->lock        work requests under way, bounce slots. Held across ibv_post_send, whose order is the list's
 *                     order; nothing else                                     (conn.c)
 *   conn->cm_lock     keeps rdma_disconnect and rdma_destroy_qp apart         (conn.c)
 *   rpc->lock, channel->lock                                                  (rpc.h, channel.h)
 *
 * Threads. The session's own thread reads the control socket (but while a caller who waits does, rpc.h), runs
 * callbacks, renews leases and watches the RDMA connection for a disconnect. It never waits for a reply (it may be the
 * one that would read it) nor for a transfer: what has to follow those is started by whoever ends them (a lease whose
 * recall came during transfers is returned by the last of these). Callers' threads do everything else. Where the caller
 * drives, his calls do that work, too (loop.h); it is one thread's at a time then.
 *
 * A lease, seen from here:
 *
 *   OPENING --granted--> ACTIVE --recall, leasefs_lease_return()--> RETURNING --answered--> ENDED
 *      |refused            |revoked, control connection lost           |the same               ^
 *      v                   +-------------------------------------------+-----------------------+
 *    ENDED
 *
 * Transfers start in ACTIVE only; the return request is sent when the last of them has ended. Beside the state, time
 * ends a lease: a transfer neither starts nor counts as done past expires_at_ns, which is reckoned from when the
 * granting request (or renewal) was sent, so that it is never later than the server's own.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "rdma/initiator/conn.h"
#include "rdma/initiator/rpc.h"
#include <leasefs/leasefs.h>

struct conn;
struct device;

enum holding {
    HOLDING_OPENING = 1,
    HOLDING_ACTIVE,
    HOLDING_RETURNING,
    HOLDING_ENDED,
};

struct leasefs_lease {
    struct leasefs_session *session;
    struct leasefs_lease_options options; /* immutable, but while it is idle (idle.h) */
    struct leasefs_lease *kept;           /* OPENING: an idle one that may do instead; immutable */
    uint64_t file;                        /* of leasefs_create(); immutable */
    char *publish_path;                   /* likewise; NULL otherwise */
    char *path;                           /* that it was opened with; immutable; NULL: of leasefs_create() */
    struct rpc_call open_call, renew_call, return_call;

    /* Guarded by session->lock. */
    struct leasefs_lease *next;
    struct leasefs_layout layout; /* lease_id is immutable once granted */
    bool granted;                 /* there is a layout */
    enum holding holding;
    int end_status;      /* ENDED: 0 when returned, else why not */
    char end_reason[96]; /* ENDED: a few words for people */
    uint64_t expires_at_ns, renew_at_ns;
    unsigned transfers; /* under way */
    unsigned queued;    /* of these, operations of queues */
    unsigned pins;      /* calls under way and callbacks that still use the object */
    bool recalled;      /* at least once: for messages */
    bool refused;       /* the server's NIC has refused it */
    bool renewing;      /* renew_call is under way */
    bool cutting;       /* a part of it is being given back: no transfers (cut.c) */
    bool return_begun;  /* return_call was sent or is about to be */
    bool idle;          /* no caller has it (idle.h) */
    bool taken;         /* idle, and asked for again: the server has not answered yet */
};

struct leasefs_session {
    struct rpc *rpc;
    char *client, *host; /* host NULL: what the server tells */
    unsigned depth;
    size_t chunk;
    unsigned max_idle;
    pthread_t thread; /* unless `driven` */
    int wake_fd;      /* eventfd: look at `stopping`, at the connection, at the times anew */

    /* The caller drives: one thread's at a time. */
    bool driven;
    bool dispatching;       /* a callback may be running */
    int epoll_fd, timer_fd; /* leasefs_session_fd(); for renewals */
    int conn_fd;            /* of the connection that epoll_fd watches, or -1 */
    uint64_t last_drive_ns;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a lease's state, transfers, callbacks; connecting */
    bool stopping;
    bool lost;            /* the control connection ended */
    uint64_t looks_at_ns; /* so long its thread may sleep: what is due earlier has to wake it */
    struct leasefs_lease *leases;
    struct leasefs_queue *queues;
    struct device *device; /* made with the first connection, lives as long as the session */
    struct conn *conn;     /* the newest; may be broken */
    bool connecting;
};

/* Makes the session's thread look around. */
void session_wake(struct leasefs_session *session);

/* Waits, as on a condition, until something of the session may have changed. The caller who drives it makes it change:
 * callbacks may run. With the session's lock. -ETIMEDOUT: it is later than that (clock_now_ns(); UINT64_MAX: never). */
int session_await_locked(struct leasefs_session *session, uint64_t until_ns);

/* What a driving caller who waits for transfers owes to the rest; nothing where there is a thread. */
void session_drive_now_and_then(struct leasefs_session *session);

/* A working connection, made anew if there is none; the caller drops it with conn_unref(). Sets the error sentence. */
int session_conn(struct leasefs_session *session, struct conn **ret_conn);
/* The connection if there is one that works, to be dropped likewise; NULL. Makes none. */
static inline struct conn *session_present_conn(struct leasefs_session *session)
{
    struct conn *conn = NULL;

    pthread_mutex_lock(&session->lock);
    if (session->conn && !conn_broken(session->conn))
        conn = conn_ref(session->conn);
    pthread_mutex_unlock(&session->lock);
    return conn;
}

/* -EDEADLK, with a sentence, on the session's own thread: a callback that waits for what only this thread can do. */
int session_may_block(const struct leasefs_session *session);

/* ---- lease.c, for the session's thread ---- */

void lease_notified(struct leasefs_session *session, const char *method, const json_t *params);
/* Sends the renewals that are due and returns when the next one is (UINT64_MAX: none). */
uint64_t lease_renew_due(struct leasefs_session *session, uint64_t now_ns);
/* The control connection is gone: every lease ends. */
void lease_all_lost(struct leasefs_session *session);

/* The layout that a grant tells. -EPROTO */
int lease_parse_grant(const json_t *grant, struct leasefs_layout *ret_layout);

/* An object for another lease with the same options on the same file; NULL: no memory. */
struct leasefs_lease *lease_like(const struct leasefs_lease *lease);
void lease_free(struct leasefs_lease *lease); /* linked nowhere; NULL is allowed */

/* For closing: returns and frees every lease that the caller left. Bounded in time. */
void lease_return_all(struct leasefs_session *session);

/* ---- lease.c, for transfers ---- */

/* Where a file's byte is in the server's memory; does not change before the transfer has ended. */
struct lease_target {
    uint64_t remote_address;
    uint32_t rkey;
};

/* May `length` bytes at `offset` be moved now, in this direction? 0: yes, and lease_transfer_end() must follow. Waits
 * while a part of the lease is being given back. */
int lease_transfer_begin(struct leasefs_lease *lease, bool write, uint64_t offset, size_t length,
                         struct lease_target *ret_target);
/* `status` is the transfer's; what the caller is to be told is returned: a transfer that was well but ended after the
 * lease did is an error. */
int lease_transfer_end(struct leasefs_lease *lease, int status);

/* The lease of this path that allows reading most bytes from `offset` on, pinned; how many is told. NULL: none does. */
struct leasefs_lease *lease_covering(struct leasefs_session *session, const char *path, uint64_t offset,
                                     uint64_t *ret_length);
void lease_unpin(struct leasefs_lease *lease);

/* Between begin and end: may bytes still be moved? As lease_transfer_begin(). */
int lease_transfer_check(struct leasefs_lease *lease);

/* An operation of a queue has come (1) or is about to end (-1): a lease that has some is not given back by a caller,
 * who might be the one that has to drive them. */
void lease_queued(struct leasefs_lease *lease, int change);

#endif
