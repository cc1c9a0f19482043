/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_RPC_H
#define LEASEFS_INITIATOR_RPC_H

/*
 * The control connection: requests go out from any thread, replies and notifications are read by one (the session's
 * thread, which calls rpc_receive()). A request is matched with its reply by its id.
 *
 * One lock, a leaf: it guards the list of requests under way. The bytes are channel.h's.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include <leasefs/leasefs.h>

#define RPC_MAX_REPLY (16u * 1024 * 1024) /* bytes of one line from the server: a status with every lease fits */

struct rpc;

/* A request under way. The caller owns it, and keeps it until rpc_wait() or complete() has ended it. Zeroed but for
 * complete and arg before rpc_start(). */
struct rpc_call {
    /* Called once, on the receiving thread (or, when the connection breaks, on the thread that finds out), with no
     * lock held, before waiters wake. May be NULL. Last touch of the call when nobody waits for it. */
    void (*complete)(struct rpc_call *call);
    void *arg;

    const char *method; /* static storage, or as long-lived as the call */
    uint64_t sent_at_ns;
    int status;     /* 0, the errno that the server's error names, or -ENOTCONN: connection lost */
    json_t *result; /* owned by the call; rpc_call_clear() drops it */
    json_t *error;

    /* rpc.c's own, guarded by its lock. */
    struct rpc_call *next;
    int64_t id;
    bool done;
};

typedef void rpc_notify(void *arg, const char *method, const json_t *params);

/* Connects to the server that `options` name: by TLS, or at `control`, which is not NULL then. Sets the thread's error
 * sentence. */
int rpc_connect(const struct leasefs_session_options *options, struct rpc **ret_rpc);
void rpc_free(struct rpc *rpc); /* no call may be under way; NULL is allowed */
int rpc_fd(const struct rpc *rpc);

/* Sends. Steals `params` (NULL: none), also on failure. On failure complete() is not called. */
int rpc_start(struct rpc *rpc, const char *method, json_t *params, struct rpc_call *call);

/* Waits for the reply; returns call->status and sets the thread's error sentence when it is not 0. */
int rpc_wait(struct rpc *rpc, struct rpc_call *call);

/* start and wait. *ret_result (may be NULL) is a new reference. */
int rpc_call(struct rpc *rpc, const char *method, json_t *params, json_t **ret_result);

void rpc_call_clear(struct rpc_call *call);

/* Reads what has arrived, ends calls, hands notifications over. -EAGAIN never: 0 when there is nothing more.
 * Another error: the connection is broken, every call under way has ended with -ENOTCONN. */
int rpc_receive(struct rpc *rpc, rpc_notify *notify, void *arg);

/* Ends every call under way and to come with -ENOTCONN. */
void rpc_break(struct rpc *rpc);

#endif
