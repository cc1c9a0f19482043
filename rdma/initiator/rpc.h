/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_RPC_H
#define LEASEFS_INITIATOR_RPC_H

/*
 * The control connection: requests go out from any thread. A request is matched with its reply by its id.
 *
 * Who reads? The session's thread, by rpc_receive(), whatever comes; but while a caller waits for a reply, the first to
 * do so reads in its place (rpc_read_along()), so that no thread is woken only to wake another. A caller goes on past
 * replies to others that wait; at anything else, a notification, say, it stops, and leaves that and all behind it to
 * the session's thread. So whatever may call a program's callbacks runs there, in the order in which it came.
 *
 *     rpc_watch_fd() is an epoll set of the socket, which a caller that reads takes out for as long.
 *
 * One lock, a leaf: it guards the list of requests under way and whose turn it is to read. The bytes are channel.h's.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include <leasefs/leasefs.h>

#define RPC_MAX_REPLY (16u * 1024 * 1024) /* bytes of one line from the server: a status with every lease fits */

struct rpc;

/* A request under way. The caller owns it, and keeps it until rpc_wait() or complete() has ended it. Zeroed but for
 * complete, arg and anywhere before rpc_start(). */
struct rpc_call {
    /* Called once, on the session's thread or, `anywhere`, on one that reads along, with no lock held, before waiters
     * wake. May be NULL. Last touch of the call when nobody waits for it. */
    void (*complete)(struct rpc_call *call);
    void *arg;
    bool anywhere; /* complete() calls no callback of the program's */
    bool plain;    /* complete() would rather have the result as it stands, if it is an object of plain members */

    const char *method; /* static storage, or as long-lived as the call */
    uint64_t sent_at_ns;
    int status;     /* 0, the errno that the server's error names, or -ENOTCONN: connection lost */
    json_t *result; /* owned by the call; rpc_call_clear() drops it */
    json_t *error;
    const struct json_line_member *members; /* of a plain result, in place of `result`, as long as complete() runs */
    size_t n_members;

    /* rpc.c's own, guarded by its lock. */
    struct rpc_call *next;
    int64_t id;
    bool done;
};

typedef void rpc_notify(void *arg, const char *method, const json_t *params);

/* Connects to the server that `options` name: by TLS, or at `control`, which is not NULL then. Sets the thread's error
 * sentence. */
int rpc_connect(const struct leasefs_session_options *options, struct rpc **ret_rpc);
void rpc_free(struct rpc *rpc);          /* no call may be under way; NULL is allowed */
int rpc_fd(const struct rpc *rpc);       /* the socket, to shut it down */
int rpc_watch_fd(const struct rpc *rpc); /* readable: rpc_receive() has something */

/* From here on callers read along. wake(): has the session's thread call rpc_receive() though nothing is readable. */
void rpc_share(struct rpc *rpc, void (*wake)(void *arg), void *arg);

/* Nobody else reads: who waits calls drive(), which waits for something and calls rpc_receive(), until it is there. */
void rpc_drive(struct rpc *rpc, void (*drive)(void *arg), void *arg);

/* Sends. Steals `params` (NULL: none), also on failure. On failure complete() is not called. */
int rpc_start(struct rpc *rpc, const char *method, json_t *params, struct rpc_call *call);

/* The same with `params` as JSON, for a method of the library's own. */
int rpc_start_text(struct rpc *rpc, const char *method, const char *params, struct rpc_call *call);

/* Who starts a call and will wait for it reads from here on, so that the answer wakes nobody else however quick it is.
 * False: somebody else reads. */
bool rpc_begin_reading(struct rpc *rpc);

/* Then, before waiting for complete(), by whoever keeps the call: reads until it has ended, and lets others read again.
 * It may not have ended yet. NULL, or one that could not be started: reads nothing. */
void rpc_read_along(struct rpc *rpc, const struct rpc_call *call);

/* Waits for the reply; returns call->status and sets the thread's error sentence when it is not 0. */
int rpc_wait(struct rpc *rpc, struct rpc_call *call);

/* start and wait. *ret_result (may be NULL) is a new reference. */
int rpc_call(struct rpc *rpc, const char *method, json_t *params, json_t **ret_result);

void rpc_call_clear(struct rpc_call *call);

/* Of the session's thread. Reads what has arrived, ends calls, hands notifications over. 0 when there is nothing more,
 * or somebody else reads.
 * Another error: the connection is broken, every call under way has ended with -ENOTCONN. */
int rpc_receive(struct rpc *rpc, rpc_notify *notify, void *arg);

/* Ends every call under way and to come with -ENOTCONN. */
void rpc_break(struct rpc *rpc);

#endif
