/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine of one lease: the picture in lease_table.h as a table. set_state() is the only place that changes a
 * state, and refuses an edge that is not here.
 *
 *   from         to            by
 *   (new)        GRANTING      lease_add
 *   GRANTING     ACTIVE        lease_activate        lease_commit()
 *   GRANTING     (gone)        lease_destroy         lease_abort()
 *   ACTIVE       RECALLED      lease_recall          a conflict
 *   RECALLED     ACTIVE        lease_cancel_recall   the last waiter left (I10 holds: it was registered until then)
 *   ACTIVE       GRANTING      lease_keep            lease_cut(): a part is given back, the rest is exposed anew
 *   RECALLED     GRANTING      lease_keep            the same
 *   ACTIVE       FENCING       lease_start_fence     return, expiry, revocation, session end
 *   RECALLED     FENCING       lease_start_fence     the same, and the recall's deadline
 *   FENCING      (gone)        lease_destroy         lease_fenced(proven): only now are the blocks free (I1)
 *   FENCING      QUARANTINED   lease_quarantine      lease_fenced(no proof)
 */
#include "lease/lease_private.h"

#include <stdio.h>
#include <stdlib.h>

static const bool permitted[LEASE_QUARANTINED + 1][LEASE_QUARANTINED + 1] = {
    [LEASE_GRANTING][LEASE_ACTIVE] = true,  [LEASE_ACTIVE][LEASE_RECALLED] = true,
    [LEASE_RECALLED][LEASE_ACTIVE] = true,  [LEASE_ACTIVE][LEASE_FENCING] = true,
    [LEASE_RECALLED][LEASE_FENCING] = true, [LEASE_FENCING][LEASE_QUARANTINED] = true,
    [LEASE_ACTIVE][LEASE_GRANTING] = true,  [LEASE_RECALLED][LEASE_GRANTING] = true,
};

static void set_state(struct lease_table *table, struct lease *lease, enum lease_state to)
{
    if (!permitted[lease->state][to]) {
        /* A lease in a wrong state may hand live memory to somebody else: stop rather than go on. */
        fprintf(stderr, "leasefs: lease %llu: no edge from %s to %s\n", (unsigned long long)lease->lease_id,
                lease_state_name(lease->state), lease_state_name(to));
        abort();
    }
    lease->state = to;
    lease_set_deadline(table, lease);
}

void lease_post(struct lease_table *table, const struct lease *lease, enum lease_event_kind kind)
{
    struct lease_event event = {
        .kind = kind,
        .reason = lease->reason,
        .at_leisure = lease->at_leisure,
        .lease_id = lease->lease_id,
        .session_id = lease->session_id,
        .inode = lease->inode_number,
        .sequence = lease->sequence,
        .mode = lease->mode,
        .range = kind == LEASE_EVENT_RECALL ? lease->wanted : lease->node.range,
        .deadline_ns = kind == LEASE_EVENT_DEADLINE ? lease->deadline_ns : lease->recall_deadline_ns,
        .exposure = lease->exposure,
    };

    table->events.post(table->events.ctx, &event);
}

void lease_activate(struct lease_table *table, struct lease *lease, uint64_t now_ns, void *exposure)
{
    lease->exposure = exposure;
    lease->granted_at_ns = now_ns;
    lease->expires_at_ns = later(now_ns, table->limits.lease_time_ns);
    set_state(table, lease, LEASE_ACTIVE);
    table->total.granted += !lease->cut;
}

void lease_keep(struct lease_table *table, struct lease *lease)
{
    lease->cut = true;
    lease->courtesy = false;
    lease->sequence++;
    set_state(table, lease, LEASE_GRANTING);
}

/* Makes *all the smallest range that has both it and the part of `range` inside of the lease. false: it is as it was.
 */
static bool widen(const struct lease *lease, struct lease_range *all, struct lease_range range)
{
    struct lease_range now = lease->node.range;
    uint64_t end = range_end(range) < range_end(now) ? range_end(range) : range_end(now);

    if (range.offset > now.offset)
        now.offset = range.offset;
    if (all->length) {
        end = end > range_end(*all) ? end : range_end(*all);
        now.offset = now.offset < all->offset ? now.offset : all->offset;
    }
    now.length = end - now.offset;
    if (now.offset == all->offset && now.length == all->length)
        return false;
    *all = now;
    return true;
}

void lease_recall(struct lease_table *table, struct lease *lease, struct lease_range wanted, uint64_t now_ns)
{
    bool more = widen(lease, &lease->wanted, wanted);

    if (lease->state == LEASE_ACTIVE) {
        lease->recall_deadline_ns = later(now_ns, table->limits.recall_timeout_ns);
        if (lease->recall_by_ns && lease->recall_by_ns < lease->recall_deadline_ns)
            lease->recall_deadline_ns = lease->recall_by_ns;
        set_state(table, lease, LEASE_RECALLED);
        table->total.recalls++;
    } else if (lease->state != LEASE_RECALLED || !more) {
        if (lease->cut && !lease->recall_by_ns) {
            lease->recall_by_ns = later(now_ns, table->limits.recall_timeout_ns);
            lease_set_deadline(table, lease);
        }
        return;
    }
    lease->sequence++;
    lease_post(table, lease, LEASE_EVENT_RECALL);
}

void lease_orphan(struct lease_table *table, struct lease *lease, struct lease_range range)
{
    if (!widen(lease, &lease->orphaned, range))
        return;
    lease->sequence++;
    table->total.orphaned++;
    if (lease->state != LEASE_GRANTING) /* else lease_commit() tells */
        lease_post(table, lease, LEASE_EVENT_ORPHANED);
}

void lease_cancel_recall(struct lease_table *table, struct lease *lease)
{
    lease->recall_deadline_ns = 0;
    lease->wanted = (struct lease_range){0};
    lease->sequence++;
    set_state(table, lease, LEASE_ACTIVE);
    lease_post(table, lease, LEASE_EVENT_RECALL_CANCELLED);
}

static void count_end(struct lease_counts *total, const struct lease *lease)
{
    if (lease->remnant)
        return; /* the lease itself goes on */
    switch (lease->reason) {
    case LEASE_END_RETURNED:
        total->returned++;
        break;
    case LEASE_END_RECALL_TIMEOUT:
        total->recall_timeouts++;
        break;
    case LEASE_END_EXPIRED:
        total->expired++;
        break;
    case LEASE_END_REVOKED:
        total->revoked++;
        break;
    case LEASE_END_SESSION:
    case LEASE_END_ABORTED:
        break;
    }
}

void lease_start_fence(struct lease_table *table, struct lease *lease, enum lease_end_reason reason, uint64_t now_ns)
{
    lease->courtesy = false;
    lease->reason = reason;
    lease->at_leisure = reason == LEASE_END_RETURNED && lease->state == LEASE_ACTIVE && !lease->remnant;
    lease->sequence++;
    lease->fence_overrun_ns = later(now_ns, table->limits.fence_bound_ns);
    set_state(table, lease, LEASE_FENCING);
    table->n_fencing++;
    count_end(&table->total, lease);
    lease_post(table, lease, LEASE_EVENT_FENCE);
    /* Operations that only drop blocks need not wait for the fence: detach suffices. */
    waiters_wake(table, lease->inode);
}

void lease_doom(struct lease_table *table, struct lease *lease)
{
    lease->doomed = true;
    lease_set_deadline(table, lease);
    if (lease->cut) /* it is never exposed again: what remote access there is, is the remnant's */
        waiters_wake(table, lease->inode);
}

void lease_fence_remnant(struct lease_table *table, struct lease *remnant, uint64_t now_ns)
{
    remnant->remnant = true;
    set_state(table, remnant, LEASE_ACTIVE); /* as the lease was that it is what is left of */
    lease_start_fence(table, remnant, LEASE_END_RETURNED, now_ns);
}

void lease_extend_courtesy(struct lease_table *table, struct lease *lease)
{
    lease->courtesy = true;
    lease_set_deadline(table, lease);
}

void lease_overrun(struct lease_table *table, struct lease *lease)
{
    lease->overrun = true;
    lease_set_deadline(table, lease);
    waiters_wake(table, lease->inode);
}

void lease_quarantine(struct lease_table *table, struct lease *lease)
{
    struct lease_inode *entry = lease->inode;

    set_state(table, lease, LEASE_QUARANTINED);
    table->n_fencing--;
    lease_unlink(table, lease);
    waiters_wake(table, entry);
    lease_inode_put(table, entry);
    lease->inode = NULL;
}
