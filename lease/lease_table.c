/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/lease_table.h"

#include <errno.h>
#include <stdlib.h>

#include "lease/lease_private.h"
#include "lease/lock_order.h"

int lease_table_new(const struct lease_limits *limits, const struct lease_events *events,
                    struct lease_table **ret_table)
{
    struct lease_table *table;
    int error;

    if (!limits->lease_time_ns || !limits->max_leases || !events->post || !lease_policy_name(limits->policy))
        return -EINVAL;
    table = calloc(1, sizeof(*table));
    if (!table)
        return -ENOMEM;
    error = -pthread_mutex_init(&table->lock, NULL);
    if (error) {
        free(table);
        return error;
    }
    lock_rank(&table->lock, LOCK_LEASE_TABLE, 0);
    table->limits = *limits;
    table->events = *events;
    *ret_table = table;
    return 0;
}

void lease_table_free(struct lease_table *table)
{
    struct lease *lease;

    if (!table)
        return;
    while ((lease = lease_lowest(table))) {
        struct lease_inode *entry = lease->inode;

        lease_destroy(table, lease);
        if (entry)
            lease_inode_put(table, entry);
    }
    pthread_mutex_destroy(&table->lock);
    free(table);
}

/* ---- leases ---- */

static enum lease_policy request_policy(const struct lease_table *table, const struct lease_request *request)
{
    return request->file_policy ? request->file_policy : table->limits.policy;
}

/* What stands in a request's way? Recalls it when the request will wait for it. */
static bool request_blocked(struct lease_table *table, const struct lease_request *request, uint64_t ticket,
                            bool recall, uint64_t now_ns, bool *ret_recall_pending, bool *ret_busy)
{
    struct lease_inode *entry = lease_inode_find(table, request->inode);
    struct lease *lease;
    bool blocked;

    if (!entry)
        return false;
    blocked = waiter_ahead(entry, request->range, request->mode, ticket);
    *ret_recall_pending |= blocked;
    FOR_EACH_OVERLAP(lease, entry, request->range)
    {
        if (!lease_blocks_request(lease, request->mode))
            continue;
        blocked = true;
        if (lease->courtesy)
            lease_start_fence(table, lease, LEASE_END_EXPIRED, now_ns);
        *ret_recall_pending |= lease->state == LEASE_RECALLED;
        *ret_busy |= lease->state != LEASE_FENCING &&
                     lease_policy_between(lease, request_policy(table, request)) == LEASE_POLICY_BUSY;
        if (recall)
            lease_recall(table, lease, request->range, now_ns);
    }
    return blocked;
}

static int request_wait(struct lease_table *table, const struct lease_request *request, uint64_t now_ns,
                        struct lease_waiter *waiter)
{
    bool pending = false, busy = false;
    int error;

    waiter->mode = request->mode;
    error = waiter_park(table, waiter, request->inode, request->range, 0, request_policy(table, request));
    if (error == -EINPROGRESS)
        request_blocked(table, request, waiter->ticket, true, now_ns, &pending, &busy);
    return error;
}

static void make_room(struct lease_table *table, uint64_t session_id, uint64_t bytes, uint64_t now_ns)
{
    uint64_t coming = 0;

    for (struct lease *lease = lease_lowest(table); lease; lease = lease_after(lease))
        if (lease->state == LEASE_RECALLED || lease->state == LEASE_FENCING)
            coming += lease->node.range.length;
    /* Active leases are in the order of their expiry, and so of their renewal. */
    for (struct lease *lease = lease_first_deadline(table), *next; lease && coming < bytes; lease = next) {
        next = lease_after_deadline(lease);
        if (lease->state != LEASE_ACTIVE || lease->session_id == session_id)
            continue;
        coming += lease->node.range.length;
        lease->recalled_by_try = true;
        if (lease->courtesy)
            lease_start_fence(table, lease, LEASE_END_EXPIRED, now_ns);
        else
            lease_recall(table, lease, lease->node.range, now_ns);
    }
}

void lease_make_room(struct lease_table *table, uint64_t session_id, uint64_t bytes, uint64_t now_ns)
{
    lease_table_lock(table);
    make_room(table, session_id, bytes, now_ns);
    lease_table_unlock(table);
}

static int request(struct lease_table *table, const struct lease_request *request, uint64_t now_ns,
                   struct lease_waiter *waiter, uint64_t *ret_lease_id)
{
    uint64_t ticket = waiter && waiter->ticket ? waiter->ticket : NO_DEADLINE;
    bool pending = false, busy = false;
    struct lease *lease;
    int error;

    if (waiter && waiter->cancelled)
        return -ECANCELED;
    if (request_blocked(table, request, ticket, false, now_ns, &pending, &busy)) {
        if (!request->wait || !waiter)
            return pending ? -EAGAIN : -EBUSY;
        if (busy)
            return -EBUSY;
        return request_wait(table, request, now_ns, waiter);
    }
    error = lease_add(table, request, &lease);
    if (error == -ENFILE && request->wait)
        make_room(table, request->session_id, request->range.length, now_ns);
    if (error)
        return error;
    *ret_lease_id = lease->lease_id;
    return 0;
}

int lease_request(struct lease_table *table, const struct lease_request *req, uint64_t now_ns,
                  struct lease_waiter *waiter, uint64_t *ret_lease_id)
{
    int result;

    if (!range_valid(req->range) || !req->range.length || (req->mode != LEASE_READ && req->mode != LEASE_WRITE) ||
        (req->file_policy && !lease_policy_name(req->file_policy)) || (req->policy && !lease_policy_name(req->policy)))
        return -EINVAL;
    lease_table_lock(table);
    result = request(table, req, now_ns, waiter, ret_lease_id);
    if (result != -EINPROGRESS && waiter)
        waiter_unregister(table, waiter); /* after the lease is in: whoever comes next meets it */
    lease_table_unlock(table);
    return result;
}

static void get_info(const struct lease *lease, struct lease_info *info)
{
    *info = (struct lease_info){
        .lease_id = lease->lease_id,
        .session_id = lease->session_id,
        .inode = lease->inode_number,
        .range = lease->node.range,
        .mode = lease->mode,
        .state = lease->state,
        .sequence = lease->sequence,
        .granted_at_ns = lease->granted_at_ns,
        .expires_at_ns = lease->expires_at_ns,
        .courtesy = lease->courtesy,
        .cut = lease->state == LEASE_GRANTING && lease->cut,
        .lost = lease_is_lost(lease),
        .recall_deadline_ns = lease->state == LEASE_RECALLED ? lease->recall_deadline_ns : 0,
        .policy = lease->policy,
        .orphaned = lease->orphaned,
        .wanted = lease->state == LEASE_RECALLED ? lease->wanted : (struct lease_range){0},
        .exposure = lease->exposure,
    };
}

static int commit(struct lease_table *table, uint64_t lease_id, uint64_t now_ns, void *exposure,
                  struct lease_info *ret_info)
{
    struct lease *lease = lease_find(table, lease_id);

    if (!lease)
        return -ENOENT;
    if (lease->state != LEASE_GRANTING)
        return -EINVAL;
    if (lease->doomed)
        return -ESTALE;
    lease_activate(table, lease, now_ns, exposure);
    get_info(lease, ret_info);
    if (!lease->recalled_by_try)
        lease->wanted = (struct lease_range){0};
    /* Whoever parked because of the grant in progress found nothing to recall then. (Under policy `busy` a request may
     * wait behind the one that was granted here; it was woken, to be refused.) */
    for (const struct lease_place *p = lease->inode->places; p; p = p->next)
        if (lease_blocks_place(lease, p) && lease_policy_between(lease, p->policy) != LEASE_POLICY_BUSY)
            lease_recall(table, lease, p->range, now_ns);
    if (lease->recalled_by_try)
        lease_recall(table, lease, lease->wanted, now_ns);
    lease->recall_by_ns = 0;
    if (lease->cut && lease->orphaned.length) /* of the second piece nobody was told yet */
        lease_post(table, lease, LEASE_EVENT_ORPHANED);
    lease->cut = false;
    waiters_wake(table, lease->inode); /* under `orphan` they waited for no more than this */
    return 0;
}

int lease_commit(struct lease_table *table, uint64_t lease_id, uint64_t now_ns, void *exposure,
                 struct lease_info *ret_info)
{
    int result;

    lease_table_lock(table);
    result = commit(table, lease_id, now_ns, exposure, ret_info);
    lease_table_unlock(table);
    return result;
}

/* The lease is over and proven so: whoever waited for it may go. */
static void end(struct lease_table *table, struct lease *lease)
{
    struct lease_inode *entry = lease->inode;

    lease_destroy(table, lease);
    waiters_wake(table, entry);
    lease_inode_put(table, entry);
}

void lease_abort(struct lease_table *table, uint64_t lease_id, uint64_t now_ns)
{
    struct lease *lease;

    (void)now_ns;
    lease_table_lock(table);
    lease = lease_find(table, lease_id);
    if (lease && lease->state == LEASE_GRANTING)
        end(table, lease);
    lease_table_unlock(table);
}

static void renew(struct lease_table *table, struct lease *lease, uint64_t now_ns, struct lease_info *ret_info)
{
    lease->expires_at_ns = later(now_ns, table->limits.lease_time_ns);
    lease->courtesy = false;
    lease_set_deadline(table, lease);
    get_info(lease, ret_info);
}

int lease_renew(struct lease_table *table, uint64_t session_id, uint64_t lease_id, uint64_t now_ns,
                struct lease_info *ret_info)
{
    struct lease *lease;
    int result = 0;

    lease_table_lock(table);
    lease = lease_find(table, lease_id);
    if (!lease || lease->session_id != session_id) {
        result = -ENOENT;
    } else if (lease->state == LEASE_GRANTING && lease->cut) {
        get_info(lease, ret_info); /* its time starts anew as soon as it is exposed again */
    } else if (lease->state != LEASE_ACTIVE && lease->state != LEASE_RECALLED) {
        result = -ESTALE;
    } else {
        renew(table, lease, now_ns, ret_info);
    }
    lease_table_unlock(table);
    return result;
}

int lease_keep_idle(struct lease_table *table, uint64_t session_id, uint64_t lease_id, uint64_t now_ns,
                    struct lease_info *ret_info)
{
    struct lease *lease;
    int result = -ESTALE;

    lease_table_lock(table);
    lease = lease_find(table, lease_id);
    if (!lease || lease->session_id != session_id) {
        result = -ENOENT;
    } else if (lease->state == LEASE_ACTIVE) {
        lease->idle = true;
        renew(table, lease, now_ns, ret_info);
        result = 0;
    }
    lease_table_unlock(table);
    return result;
}

int lease_take_up(struct lease_table *table, const struct lease_request *wanted, uint64_t lease_id, uint64_t now_ns,
                  struct lease_info *ret_info)
{
    struct lease *lease;
    int result = -ESTALE;

    lease_table_lock(table);
    lease = lease_find(table, lease_id);
    if (!lease || lease->session_id != wanted->session_id) {
        result = -ENOENT;
    } else if (lease->state == LEASE_ACTIVE && lease->idle && lease->inode_number == wanted->inode &&
               lease->mode == wanted->mode && lease->policy == wanted->policy &&
               lease->node.range.offset == wanted->range.offset && lease->node.range.length == wanted->range.length &&
               !lease->orphaned.length) {
        lease->idle = false;
        renew(table, lease, now_ns, ret_info);
        result = 0;
    }
    lease_table_unlock(table);
    return result;
}

static int begin_end(struct lease_table *table, struct lease *lease, enum lease_end_reason reason, uint64_t now_ns)
{
    switch (lease->state) {
    case LEASE_GRANTING:
        lease_doom(table, lease);
        return 0;
    case LEASE_ACTIVE:
    case LEASE_RECALLED:
        lease_start_fence(table, lease, reason, now_ns);
        return 0;
    case LEASE_FENCING:
    case LEASE_QUARANTINED:
        break;
    }
    return -EALREADY;
}

int lease_return(struct lease_table *table, uint64_t session_id, uint64_t lease_id, uint32_t sequence, uint64_t now_ns)
{
    struct lease *lease;
    int result;

    lease_table_lock(table);
    result = lease_find_own(table, session_id, lease_id, sequence, &lease);
    if (!result)
        result = begin_end(table, lease, LEASE_END_RETURNED, now_ns);
    lease_table_unlock(table);
    return result;
}

int lease_revoke(struct lease_table *table, uint64_t lease_id, uint64_t now_ns)
{
    struct lease *lease;
    int result;

    lease_table_lock(table);
    lease = lease_find(table, lease_id);
    result = lease ? begin_end(table, lease, LEASE_END_REVOKED, now_ns) : -ENOENT;
    lease_table_unlock(table);
    return result;
}

void lease_session_end(struct lease_table *table, uint64_t session_id, uint64_t now_ns)
{
    struct lease_session *session;

    lease_table_lock(table);
    HASH_FIND(hh, table->sessions, &session_id, sizeof(session_id), session);
    if (session)
        for (struct lease *lease = session->leases; lease; lease = lease->next)
            begin_end(table, lease, LEASE_END_SESSION, now_ns);
    lease_table_unlock(table);
}

void lease_fenced(struct lease_table *table, uint64_t lease_id, bool proven, uint64_t now_ns)
{
    struct lease *lease;

    (void)now_ns;
    lease_table_lock(table);
    lease = lease_find(table, lease_id);
    if (lease && lease->state == LEASE_FENCING) {
        if (proven)
            end(table, lease);
        else
            lease_quarantine(table, lease);
        space_fence_ended(table);
    }
    lease_table_unlock(table);
}

/* A kept piece is not exposed yet, and its time is over, if somebody still waits for it. */
static void tick_granting(struct lease_table *table, struct lease *lease)
{
    bool wanted = lease->recalled_by_try;

    for (const struct lease_place *p = lease->inode->places; p && !wanted; p = p->next)
        wanted = lease_blocks_place(lease, p);
    if (wanted) {
        table->total.recall_timeouts++;
        lease_doom(table, lease);
        return;
    }
    lease->recall_by_ns = 0;
    lease_set_deadline(table, lease);
}

static void tick_one(struct lease_table *table, struct lease *lease, uint64_t now_ns)
{
    if (lease->state == LEASE_GRANTING)
        tick_granting(table, lease);
    else if (lease->state == LEASE_FENCING)
        lease_overrun(table, lease);
    else if (lease->state == LEASE_RECALLED && lease->recall_deadline_ns <= now_ns)
        lease_start_fence(table, lease, LEASE_END_RECALL_TIMEOUT, now_ns);
    else if (lease->state == LEASE_ACTIVE && !lease->courtesy && table->limits.courtesy_ns)
        lease_extend_courtesy(table, lease);
    else
        lease_start_fence(table, lease, LEASE_END_EXPIRED, now_ns);
}

void lease_tick(struct lease_table *table, uint64_t now_ns)
{
    struct lease *lease;

    lease_table_lock(table);
    while ((lease = lease_first_deadline(table)) && lease->deadline_ns <= now_ns)
        tick_one(table, lease, now_ns);
    space_tick(table, now_ns);
    lease_table_unlock(table);
}

uint64_t lease_next_deadline(struct lease_table *table)
{
    const struct lease *lease;
    uint64_t deadline_ns;

    lease_table_lock(table);
    lease = lease_first_deadline(table);
    deadline_ns = lease ? lease->deadline_ns : UINT64_MAX;
    if (space_deadline(table) < deadline_ns)
        deadline_ns = space_deadline(table);
    lease_table_unlock(table);
    return deadline_ns;
}

/* ---- looking ---- */

int lease_get(struct lease_table *table, uint64_t lease_id, struct lease_info *ret_info)
{
    const struct lease *lease;

    lease_table_lock(table);
    lease = lease_find(table, lease_id);
    if (lease)
        get_info(lease, ret_info);
    lease_table_unlock(table);
    return lease ? 0 : -ENOENT;
}

size_t lease_list(struct lease_table *table, uint64_t inode, struct lease_info *infos, size_t max)
{
    size_t count = 0;

    lease_table_lock(table);
    for (struct lease *lease = lease_lowest(table); lease; lease = lease_after(lease)) {
        if (inode && lease->inode_number != inode)
            continue;
        if (count < max)
            get_info(lease, &infos[count]);
        count++;
    }
    lease_table_unlock(table);
    return count;
}

void lease_counts(struct lease_table *table, struct lease_counts *ret_counts)
{
    lease_table_lock(table);
    *ret_counts = table->total;
    ret_counts->leases = table->n_leases;
    ret_counts->bytes = table->bytes;
    ret_counts->waiters = table->n_places;
    for (struct lease *lease = lease_lowest(table); lease; lease = lease_after(lease)) {
        ret_counts->granting += lease->state == LEASE_GRANTING;
        ret_counts->active += lease->state == LEASE_ACTIVE;
        ret_counts->recalled += lease->state == LEASE_RECALLED;
        ret_counts->fencing += lease->state == LEASE_FENCING;
        ret_counts->quarantined += lease->state == LEASE_QUARANTINED;
    }
    lease_table_unlock(table);
}
