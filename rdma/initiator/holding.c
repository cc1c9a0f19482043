/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/holding.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "rdma/initiator/clock.h"
#include "rdma/initiator/error.h"
#include <leasefs/protocol.h>

/* A transfer needs some time: none starts this close to the expiry. */
static uint64_t margin_ns(const struct leasefs_lease *lease)
{
    uint64_t margin = lease->layout.lease_time_ms * NS_PER_MS / 8;

    return margin < 100 * NS_PER_MS ? margin : 100 * NS_PER_MS;
}

void holding_extend_locked(struct leasefs_lease *lease, uint64_t sent_at_ns)
{
    uint64_t lease_time_ns = lease->layout.lease_time_ms * NS_PER_MS;

    lease->expires_at_ns = sent_at_ns + lease_time_ns;
    lease->renew_at_ns = sent_at_ns + lease_time_ns / 3;
}

void holding_end_locked(struct leasefs_lease *lease, int status, const char *reason)
{
    if (lease->holding == HOLDING_ENDED)
        return;
    lease->holding = HOLDING_ENDED;
    lease->end_status = status;
    snprintf(lease->end_reason, sizeof(lease->end_reason), "%s", reason);
    pthread_cond_broadcast(&lease->session->changed);
}

bool holding_at_rest_locked(const struct leasefs_lease *lease)
{
    return lease->holding == HOLDING_ENDED && !lease->pins && !lease->transfers;
}

/* Drops the pin that let the caller use the lease without the lock. The lease may be gone afterwards. */
void lease_unpin(struct leasefs_lease *lease)
{
    struct leasefs_session *session = lease->session;

    pthread_mutex_lock(&session->lock);
    lease->pins--;
    pthread_cond_broadcast(&session->changed);
    pthread_mutex_unlock(&session->lock);
}

/* ---- giving back ---- */

static void on_returned(struct rpc_call *call)
{
    struct leasefs_lease *lease = call->arg;
    struct leasefs_session *session = lease->session;

    pthread_mutex_lock(&session->lock);
    if (!call->status)
        holding_end_locked(lease, 0, lease->recalled ? "it was recalled, and given back" : "returned");
    else if (call->status == -ENOTCONN)
        holding_end_locked(lease, -ESTALE, "the control connection was lost");
    else
        holding_end_locked(lease, -ESTALE, "the server did not know it any more");
    pthread_mutex_unlock(&session->lock);
    lease_unpin(lease);
}

bool holding_return_due_locked(struct leasefs_lease *lease)
{
    if (lease->holding != HOLDING_RETURNING || lease->transfers || lease->cutting || lease->return_begun)
        return false;
    lease->return_begun = true;
    lease->pins++;
    return true;
}

void holding_send_return(struct leasefs_lease *lease)
{
    char params[80]; /* two numbers of at most 20 digits, and their names */
    struct leasefs_layout layout;

    leasefs_lease_layout(lease, &layout);
    snprintf(params, sizeof(params), "{\"lease\":%llu,\"sequence\":%u}", (unsigned long long)layout.lease_id,
             layout.sequence);
    lease->return_call.complete = on_returned;
    lease->return_call.arg = lease;
    lease->return_call.anywhere = true;
    lease->return_call.plain = true; /* there is nothing in it */
    if (rpc_start_text(lease->session->rpc, LEASEFS_METHOD_RETURN, params, &lease->return_call)) {
        lease->return_call.status = -ENOTCONN;
        on_returned(&lease->return_call);
    }
}

static bool begin_return_locked(struct leasefs_lease *lease)
{
    if (lease->holding == HOLDING_ACTIVE)
        lease->holding = HOLDING_RETURNING;
    return holding_return_due_locked(lease);
}

bool holding_return(struct leasefs_lease *lease)
{
    struct leasefs_session *session = lease->session;
    bool due;

    pthread_mutex_lock(&session->lock);
    due = begin_return_locked(lease);
    pthread_mutex_unlock(&session->lock);
    if (due)
        holding_send_return(lease);
    return due;
}

static bool all_at_rest_locked(const struct leasefs_session *session)
{
    for (const struct leasefs_lease *lease = session->leases; lease; lease = lease->next)
        if (!holding_at_rest_locked(lease))
            return false;
    return true;
}

void holding_return_all(struct leasefs_session *session)
{
    uint64_t until_ns;
    int status = 0;

    pthread_mutex_lock(&session->lock);
    for (struct leasefs_lease *lease = session->leases; lease; lease = lease->next) {
        bool due = begin_return_locked(lease);

        /* Only the caller, who is here, unlinks leases. */
        pthread_mutex_unlock(&session->lock);
        if (due)
            holding_send_return(lease);
        pthread_mutex_lock(&session->lock);
    }
    until_ns = clock_now_ns() + HOLDING_CLOSE_TIMEOUT_S * NS_PER_S;
    while (!all_at_rest_locked(session) && !status)
        status = session_await_locked(session, until_ns);
    if (status)
        shutdown(rpc_fd(session->rpc), SHUT_RDWR);
    while (!all_at_rest_locked(session))
        session_await_locked(session, UINT64_MAX);
    pthread_mutex_unlock(&session->lock);
}

/* ---- notices ---- */

static enum leasefs_recall_action tell(struct leasefs_lease *lease, enum leasefs_notice notice, unsigned deadline_ms,
                                       const char *reason)
{
    struct leasefs_lease_options options;

    pthread_mutex_lock(&lease->session->lock);
    options = lease->options;
    if (lease->idle) /* whoever wanted to know has returned it */
        options.on_notice = NULL;
    pthread_mutex_unlock(&lease->session->lock);
    if (!options.on_notice)
        return LEASEFS_RECALL_RETURN;
    return options.on_notice(lease, notice, deadline_ms, reason, options.arg);
}

static void recalled(struct leasefs_lease *lease, unsigned deadline_ms)
{
    pthread_mutex_lock(&lease->session->lock);
    lease->recalled = true;
    pthread_mutex_unlock(&lease->session->lock);
    if (tell(lease, LEASEFS_NOTICE_RECALL, deadline_ms, "recalled") == LEASEFS_RECALL_RETURN)
        holding_return(lease);
}

/* The lease of this number, pinned; NULL: it is not ours any more, and its return is on its way or done. */
static struct leasefs_lease *find_and_pin(struct leasefs_session *session, uint64_t id, uint32_t sequence)
{
    struct leasefs_lease *lease;

    pthread_mutex_lock(&session->lock);
    for (lease = session->leases; lease; lease = lease->next)
        if (lease->layout.lease_id == id)
            break;
    if (lease) {
        lease->pins++;
        if (sequence > lease->layout.sequence)
            lease->layout.sequence = sequence;
    }
    pthread_mutex_unlock(&session->lock);
    return lease;
}

static bool is_active(struct leasefs_lease *lease)
{
    bool active;

    pthread_mutex_lock(&lease->session->lock);
    active = lease->holding == HOLDING_ACTIVE;
    pthread_mutex_unlock(&lease->session->lock);
    return active;
}

static void end_and_tell(struct leasefs_lease *lease, int status, const char *reason)
{
    bool ended_before;

    pthread_mutex_lock(&lease->session->lock);
    ended_before = lease->holding == HOLDING_ENDED;
    holding_end_locked(lease, status, reason);
    pthread_mutex_unlock(&lease->session->lock);
    if (!ended_before)
        tell(lease, LEASEFS_NOTICE_REVOKED, 0, reason);
}

static void tell_orphaned(struct leasefs_lease *lease, const json_t *params)
{
    char range[48];

    snprintf(range, sizeof(range), "%lld+%lld", (long long)json_integer_value(json_object_get(params, "offset")),
             (long long)json_integer_value(json_object_get(params, "length")));
    tell(lease, LEASEFS_NOTICE_ORPHANED, 0, range);
}

void lease_notified(struct leasefs_session *session, const char *method, const json_t *params)
{
    json_int_t id = json_integer_value(json_object_get(params, "lease"));
    json_int_t sequence = json_integer_value(json_object_get(params, "sequence"));
    json_int_t deadline_ms = json_integer_value(json_object_get(params, "deadline_ms"));
    const char *reason = json_string_value(json_object_get(params, "reason"));
    struct leasefs_lease *lease =
        find_and_pin(session, (uint64_t)id, sequence > 0 && sequence <= UINT32_MAX ? (uint32_t)sequence : 0);

    if (!lease)
        return;
    if (!strcmp(method, LEASEFS_NOTIFY_RECALL)) {
        if (is_active(lease))
            recalled(lease, deadline_ms > 0 && deadline_ms <= UINT32_MAX ? (unsigned)deadline_ms : 0);
    } else if (!strcmp(method, LEASEFS_NOTIFY_RECALL_CANCELLED)) {
        if (is_active(lease))
            tell(lease, LEASEFS_NOTICE_RECALL_CANCELLED, 0, "nobody waits for it any more");
    } else if (!strcmp(method, LEASEFS_NOTIFY_ORPHANED)) {
        if (is_active(lease))
            tell_orphaned(lease, params);
    } else if (!strcmp(method, LEASEFS_NOTIFY_REVOKED)) {
        end_and_tell(lease, -EREMOTEIO, reason ? reason : "revoked");
    }
    lease_unpin(lease);
}

void lease_all_lost(struct leasefs_session *session)
{
    for (;;) {
        struct leasefs_lease *lease;

        pthread_mutex_lock(&session->lock);
        for (lease = session->leases; lease; lease = lease->next)
            if (lease->holding != HOLDING_ENDED)
                break;
        if (lease)
            lease->pins++;
        pthread_mutex_unlock(&session->lock);
        if (!lease)
            return;
        end_and_tell(lease, -ESTALE, "the control connection was lost");
        lease_unpin(lease);
    }
}

/* ---- renewal ---- */

static void on_renewed(struct rpc_call *call)
{
    struct leasefs_lease *lease = call->arg;
    struct leasefs_session *session = lease->session;
    json_int_t lease_time_ms = json_integer_value(json_object_get(call->result, "lease_time_ms"));
    bool gone = call->status == -ESTALE || call->status == -ENOENT, due = false;

    pthread_mutex_lock(&session->lock);
    lease->renewing = false;
    if (!call->status) {
        if (lease_time_ms > 0 && lease_time_ms <= INT32_MAX)
            lease->layout.lease_time_ms = (unsigned)lease_time_ms;
        holding_extend_locked(lease, call->sent_at_ns);
    }
    /* A lease on its way back is unknown to the server before we hear so: no news. */
    gone = gone && lease->holding == HOLDING_ACTIVE;
    if (call->status && lease->idle) { /* not kept after all: it may have been recalled just then */
        due = begin_return_locked(lease);
        gone = false;
    }
    pthread_mutex_unlock(&session->lock);
    rpc_call_clear(call);
    if (due)
        holding_send_return(lease);
    if (gone)
        end_and_tell(lease, -ESTALE, "it was not renewed in time");
    lease_unpin(lease);
}

void holding_send_renewal(struct leasefs_lease *lease, bool idle)
{
    json_t *params = json_pack("{s:I}", "lease", (json_int_t)lease->layout.lease_id);

    if (idle && json_object_set_new(params, "idle", json_true())) {
        json_decref(params); /* NULL is refused */
        params = NULL;
    }
    lease->renew_call.complete = on_renewed;
    lease->renew_call.arg = lease;
    if (rpc_start(lease->session->rpc, LEASEFS_METHOD_RENEW, params, &lease->renew_call)) {
        lease->renew_call.status = -ENOTCONN;
        on_renewed(&lease->renew_call);
    }
}

uint64_t lease_renew_due(struct leasefs_session *session, uint64_t now_ns)
{
    uint64_t next_ns = UINT64_MAX;

    pthread_mutex_lock(&session->lock);
    for (struct leasefs_lease *lease = session->leases, *next; lease; lease = next) {
        bool due = lease->holding == HOLDING_ACTIVE && lease->renew_at_ns <= now_ns;

        if (due) {
            /* Should this one fail, the next is tried after another third. */
            lease->renew_at_ns = now_ns + lease->layout.lease_time_ms * NS_PER_MS / 3 + 1;
            due = !lease->renewing;
        }
        if (lease->holding == HOLDING_ACTIVE && lease->renew_at_ns < next_ns)
            next_ns = lease->renew_at_ns;
        if (due && lease->idle) { /* it has waited long enough for somebody to want it again */
            if (begin_return_locked(lease)) {
                lease->pins++;
                pthread_mutex_unlock(&session->lock);
                holding_send_return(lease);
                pthread_mutex_lock(&session->lock);
                lease->pins--;
                pthread_cond_broadcast(&session->changed);
            }
        } else if (due) {
            lease->renewing = true;
            lease->pins += 2; /* one for the call, one so that it stays linked until we have gone on from it */
            pthread_mutex_unlock(&session->lock);
            holding_send_renewal(lease, false);
            pthread_mutex_lock(&session->lock);
            lease->pins--;
            pthread_cond_broadcast(&session->changed);
        }
        next = lease->next;
    }
    /* Nearer, never farther: most leases are returned long before that, and each would wake this thread to say when it
     * is due. It may look for a lease that is no more. */
    if (next_ns > session->looks_at_ns && session->looks_at_ns > now_ns)
        next_ns = session->looks_at_ns;
    session->looks_at_ns = next_ns;
    pthread_mutex_unlock(&session->lock);
    return next_ns;
}

/* ---- transfers ---- */

static int check_request(const struct leasefs_lease *lease, const struct leasefs_layout *layout, bool write,
                         uint64_t offset, size_t length)
{
    if (lease->options.no_rdma)
        return error_set(-EOPNOTSUPP, "the lease was taken without a connection for transfers");
    if (write && layout->mode != LEASEFS_WRITE && !lease->options.unguarded)
        return error_set(-EBADF, "a write through a read lease");
    if (offset < layout->offset || offset - layout->offset > layout->length ||
        length > layout->length - (offset - layout->offset))
        return error_set(-ERANGE, "bytes %llu+%zu are outside of the lease, which covers %llu+%llu",
                         (unsigned long long)offset, length, (unsigned long long)layout->offset,
                         (unsigned long long)layout->length);
    return 0;
}

/* 0: transfers are allowed now, else why not. */
static int guard_locked(const struct leasefs_lease *lease, uint64_t now_ns)
{
    if (lease->options.unguarded)
        return 0;
    if (lease->holding == HOLDING_ENDED)
        return lease->end_status == -EREMOTEIO ? -EREMOTEIO : -ESTALE;
    if (lease->holding != HOLDING_ACTIVE || now_ns + margin_ns(lease) >= lease->expires_at_ns)
        return -ESTALE;
    return 0;
}

static int explain_guard(int status, const char *reason, enum holding holding)
{
    if (status == -EREMOTEIO)
        return error_set(status, "remote access error: the lease was revoked (%s). Take a new lease.", reason);
    if (holding == HOLDING_ENDED)
        return error_set(status, "the lease has ended: %s. Take a new lease.", reason);
    if (holding == HOLDING_RETURNING)
        return error_set(status, "the lease was recalled and is being given back. Take a new lease.");
    return error_set(status, "the lease has expired, or is about to: its renewal was not answered in time");
}

struct leasefs_lease *lease_covering(struct leasefs_session *session, const char *path, uint64_t offset,
                                     uint64_t *ret_length)
{
    struct leasefs_lease *best = NULL;
    uint64_t now_ns = clock_now_ns(), best_length = 0;

    pthread_mutex_lock(&session->lock);
    for (struct leasefs_lease *lease = session->leases; lease; lease = lease->next) {
        const struct leasefs_layout *layout = &lease->layout;
        uint64_t end = layout->offset + layout->length;

        if (!lease->path || lease->options.no_rdma || lease->refused || lease->idle || strcmp(lease->path, path) ||
            guard_locked(lease, now_ns))
            continue;
        if (offset >= layout->offset && offset < end && end - offset > best_length) {
            best = lease;
            best_length = end - offset;
        }
    }
    if (best)
        best->pins++;
    pthread_mutex_unlock(&session->lock);
    if (best)
        *ret_length = best_length;
    return best;
}

int lease_transfer_begin(struct leasefs_lease *lease, bool write, uint64_t offset, size_t length,
                         struct lease_target *ret_target)
{
    struct leasefs_session *session = lease->session;
    char reason[sizeof(lease->end_reason)];
    struct leasefs_layout layout;
    enum holding holding;
    int status;

    pthread_mutex_lock(&session->lock);
    while (lease->cutting)
        session_await_locked(session, UINT64_MAX);
    layout = lease->layout;
    status = check_request(lease, &layout, write, offset, length);
    if (status) {
        pthread_mutex_unlock(&session->lock);
        return status;
    }
    status = guard_locked(lease, clock_now_ns());
    if (!status)
        lease->transfers++;
    holding = lease->holding;
    memcpy(reason, lease->end_reason, sizeof(reason));
    pthread_mutex_unlock(&session->lock);
    if (status)
        return explain_guard(status, reason, holding);
    *ret_target = (struct lease_target){layout.remote_address + (offset - layout.offset), layout.rkey};
    return 0;
}

int lease_transfer_check(struct leasefs_lease *lease)
{
    struct leasefs_session *session = lease->session;
    char reason[sizeof(lease->end_reason)];
    enum holding holding;
    int status;

    pthread_mutex_lock(&session->lock);
    status = guard_locked(lease, clock_now_ns());
    holding = lease->holding;
    memcpy(reason, lease->end_reason, sizeof(reason));
    pthread_mutex_unlock(&session->lock);
    return status ? explain_guard(status, reason, holding) : 0;
}

void lease_queued(struct leasefs_lease *lease, int change)
{
    pthread_mutex_lock(&lease->session->lock);
    lease->queued += (unsigned)change;
    pthread_mutex_unlock(&lease->session->lock);
}

int lease_transfer_end(struct leasefs_lease *lease, int status)
{
    struct leasefs_session *session = lease->session;
    char reason[sizeof(lease->end_reason)];
    uint64_t now_ns = clock_now_ns();
    enum holding holding;
    int late = 0;
    bool due;

    pthread_mutex_lock(&session->lock);
    /* Transfers under way at a recall may finish: the lease is ours until it is returned. Past the lease's end the
     * blocks may be another file's, so bytes read then are not the file's, and bytes written then may be lost. */
    if (!status && !lease->options.unguarded) {
        if (lease->holding == HOLDING_ENDED)
            late = lease->end_status == -EREMOTEIO ? -EREMOTEIO : -ESTALE;
        else if (now_ns >= lease->expires_at_ns)
            late = -ESTALE;
    }
    holding = lease->holding;
    memcpy(reason, lease->end_reason, sizeof(reason));
    lease->refused |= status == -EREMOTEIO;
    lease->transfers--;
    due = holding_return_due_locked(lease);
    if (!lease->transfers)
        pthread_cond_broadcast(&session->changed);
    pthread_mutex_unlock(&session->lock);
    if (due)
        holding_send_return(lease);
    return late ? explain_guard(late, reason, holding) : status;
}
