/* SPDX-License-Identifier: BSD-2-Clause */

/* Giving back a part of a lease, or its right to write. What is kept is exposed anew by the server, so transfers wait:
 * those under way are let finish first, new ones begin when the answer has told the new key. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rdma/initiator/error.h"
#include "rdma/initiator/holding.h"
#include <leasefs/protocol.h>

struct cut {
    struct rpc_call call;
    struct leasefs_lease *lease;
    struct leasefs_lease *rest; /* made beforehand, for a second piece; NULL: taken, or none is expected */
    struct leasefs_lease *ret_rest;
    bool done; /* guarded by session->lock; the caller goes on, and this object is gone */
};

static bool is_too_much(const json_t *kept, const struct cut *cut)
{
    return json_array_size(kept) > (cut->rest ? 2 : 1);
}

/* The first piece is the lease itself; a second one is a lease of its own. */
static int take_pieces_locked(struct cut *cut, const json_t *kept)
{
    struct leasefs_lease *lease = cut->lease, *rest = cut->rest;
    struct leasefs_layout first, second;
    size_t n = json_array_size(kept);

    if (!json_is_array(kept) || is_too_much(kept, cut) ||
        (n > 0 && lease_parse_grant(json_array_get(kept, 0), &first)) ||
        (n > 1 && lease_parse_grant(json_array_get(kept, 1), &second)))
        return -EPROTO;
    if (n == 0) {
        holding_end_locked(lease, 0, "returned");
        return 0;
    }
    lease->layout = first;
    holding_extend_locked(lease, cut->call.sent_at_ns);
    if (n > 1) {
        rest->layout = second;
        rest->granted = true;
        rest->holding = HOLDING_ACTIVE;
        holding_extend_locked(rest, cut->call.sent_at_ns);
        rest->next = lease->session->leases;
        lease->session->leases = rest;
        cut->ret_rest = rest;
        cut->rest = NULL;
    }
    return 0;
}

/* After these the server has left the lease as it was. */
static bool leaves_it_as_it_is(int status)
{
    return status == -EMFILE || status == -EPERM || status == -EINVAL;
}

/* On the thread that reads the answer, so that a recall on the heels of the answer finds the pieces. */
static void on_cut(struct rpc_call *call)
{
    struct cut *cut = call->arg;
    struct leasefs_lease *lease = cut->lease;
    struct leasefs_session *session = lease->session;
    bool due;

    pthread_mutex_lock(&session->lock);
    if (!call->status)
        call->status = take_pieces_locked(cut, json_object_get(call->result, "kept"));
    if (call->status && !leaves_it_as_it_is(call->status))
        holding_end_locked(lease, -ESTALE, "giving back a part of it failed");
    lease->cutting = false;
    due = holding_return_due_locked(lease);
    cut->done = true;
    pthread_cond_broadcast(&session->changed);
    pthread_mutex_unlock(&session->lock);
    if (due)
        holding_send_return(lease);
}

/* Nothing was asked. */
static void end_cut(struct leasefs_lease *lease)
{
    struct leasefs_session *session = lease->session;
    bool due;

    pthread_mutex_lock(&session->lock);
    lease->cutting = false;
    due = holding_return_due_locked(lease);
    pthread_cond_broadcast(&session->changed);
    pthread_mutex_unlock(&session->lock);
    if (due)
        holding_send_return(lease);
}

/* ACTIVE, no transfers, and none begin until `cutting` is false again. */
static int begin_cut(struct leasefs_lease *lease)
{
    struct leasefs_session *session = lease->session;
    int status = 0;

    pthread_mutex_lock(&session->lock);
    while (lease->cutting)
        session_await_locked(session, UINT64_MAX);
    if (lease->queued) {
        status = -EBUSY;
    } else {
        lease->cutting = true;
        while (lease->transfers && lease->holding == HOLDING_ACTIVE)
            session_await_locked(session, UINT64_MAX);
        if (lease->holding != HOLDING_ACTIVE)
            status = -ESTALE;
    }
    pthread_mutex_unlock(&session->lock);
    if (status == -ESTALE)
        end_cut(lease);
    if (status == -EBUSY)
        error_set(status, "operations of a queue use the lease: call leasefs_queue_wait() first");
    else if (status)
        error_set(status, "the lease has ended, or is being given back");
    return status;
}

static int await_answer(struct cut *cut)
{
    struct leasefs_session *session = cut->lease->session;

    pthread_mutex_lock(&session->lock);
    while (!cut->done)
        session_await_locked(session, UINT64_MAX);
    pthread_mutex_unlock(&session->lock);
    if (cut->call.error)
        return error_from_server(LEASEFS_METHOD_RETURN, cut->call.error);
    if (cut->call.status)
        return error_set(cut->call.status, "return: %s",
                         cut->call.status == -ENOTCONN ? "the control connection was lost"
                                                       : "the server's answer makes no sense");
    return 0;
}

/* Steals params, which lack the lease. */
static int cut_lease(struct leasefs_lease *lease, json_t *params, bool may_split, struct leasefs_lease **ret_rest)
{
    struct cut cut = {.lease = lease, .call = {.complete = on_cut, .arg = &cut, .anywhere = true}};
    int status = session_may_block(lease->session);
    bool reading;

    if (!status && may_split && !(cut.rest = lease_like(lease)))
        status = error_set(-ENOMEM, "out of memory");
    if (!status)
        status = begin_cut(lease);
    if (status) {
        json_decref(params);
        lease_free(cut.rest);
        return status;
    }
    json_object_set_new(params, "lease", json_integer((json_int_t)lease->layout.lease_id));
    reading = rpc_begin_reading(lease->session->rpc);
    status = rpc_start(lease->session->rpc, LEASEFS_METHOD_RETURN, params, &cut.call);
    if (reading)
        rpc_read_along(lease->session->rpc, status ? NULL : &cut.call);
    if (status)
        end_cut(lease);
    else
        status = await_answer(&cut);
    rpc_call_clear(&cut.call);
    lease_free(cut.rest);
    if (!status && ret_rest)
        *ret_rest = cut.ret_rest;
    return status;
}

int leasefs_lease_return_range(struct leasefs_lease *lease, uint64_t offset, uint64_t length,
                               struct leasefs_lease **ret_rest)
{
    struct leasefs_layout layout;
    bool inside;

    if (!length || offset > INT64_MAX || length > INT64_MAX - offset)
        return error_set(-EINVAL, "return: no such range");
    leasefs_lease_layout(lease, &layout);
    inside = offset > layout.offset && offset + length < layout.offset + layout.length;
    if (inside && !ret_rest)
        return error_set(-EINVAL,
                         "return: the range is in the middle of the lease, and there is no place for the lease "
                         "behind it");
    return cut_lease(lease, json_pack("{s:I, s:I}", "offset", (json_int_t)offset, "length", (json_int_t)length), inside,
                     ret_rest);
}

int leasefs_lease_downgrade(struct leasefs_lease *lease)
{
    return cut_lease(lease, json_pack("{s:s}", "mode", "read"), false, NULL);
}
