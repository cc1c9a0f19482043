/* SPDX-License-Identifier: BSD-2-Clause */
/* Conflicts, as the table in lease_table.h has them, and those who wait for them to go. */
#include "lease/lease_private.h"

#include <errno.h>

static bool before_fence(const struct lease *lease)
{
    return lease->state == LEASE_GRANTING || lease->state == LEASE_ACTIVE || lease->state == LEASE_RECALLED;
}

bool lease_conflicts_op(const struct lease *lease, enum lease_op op)
{
    if (lease->state == LEASE_QUARANTINED || lease_is_lost(lease))
        return false;
    if (op == LEASE_OP_DROP)
        return before_fence(lease);
    if (lease->mode == LEASE_READ)
        return op == LEASE_OP_REPLACE && before_fence(lease);
    /* The bytes stay in the file while a remote writer may still change them: wait for the fence, bounded. */
    return before_fence(lease) || !lease->overrun;
}

static int leeway(enum lease_policy policy)
{
    return policy == LEASE_POLICY_BUSY ? 0 : policy == LEASE_POLICY_RECALL ? 1 : 2;
}

enum lease_policy lease_policy_between(const struct lease *lease, enum lease_policy policy)
{
    if (lease->idle && policy == LEASE_POLICY_BUSY) /* nobody uses it */
        policy = LEASE_POLICY_RECALL;
    return lease->policy && leeway(lease->policy) > leeway(policy) ? lease->policy : policy;
}

bool lease_blocks_op(const struct lease *lease, enum lease_op op, enum lease_policy policy)
{
    /* Of a grant in progress nobody knows yet which blocks it will hold; a piece of a cut has those of its remnant. */
    return lease_conflicts_op(lease, op) && (lease_policy_between(lease, policy) != LEASE_POLICY_ORPHAN ||
                                             (lease->state == LEASE_GRANTING && !lease->cut));
}

bool lease_blocks_request(const struct lease *lease, enum lease_mode mode)
{
    if (lease->state == LEASE_QUARANTINED)
        return false;
    if (lease->mode == LEASE_READ && mode == LEASE_READ)
        return lease->state == LEASE_RECALLED; /* I10 */
    return true;
}

bool lease_blocks_place(const struct lease *lease, const struct lease_place *place)
{
    if (!range_overlaps(lease->node.range, place->range))
        return false;
    return place->op ? lease_blocks_op(lease, place->op, place->policy)
                     : lease_blocks_request(lease, place->waiter->mode);
}

bool waiter_is_parked(const struct lease_waiter *waiter)
{
    for (int i = 0; i < LEASE_WAITER_PLACES; i++)
        if (waiter->places[i].parked)
            return true;
    return waiter->space_prev != NULL;
}

static void place_link(struct lease_table *table, struct lease_place *place, struct lease_inode *entry)
{
    struct lease_place **at = &entry->places;

    lease_touch(table, entry);
    while (*at && (*at)->waiter->ticket <= place->waiter->ticket)
        at = &(*at)->next;
    place->next = *at;
    place->prev = at;
    if (place->next)
        place->next->prev = &place->next;
    *at = place;
    place->inode_entry = entry;
    table->n_places++;
}

/* A recall that nobody waits for any more is taken back: the holder may keep its lease. */
static void cancel_idle_recalls(struct lease_table *table, struct lease_inode *entry, struct lease_range range)
{
    struct lease *lease;

    FOR_EACH_OVERLAP(lease, entry, range)
    {
        const struct lease_place *place = entry->places;

        if (lease->state != LEASE_RECALLED || lease->recalled_by_try)
            continue;
        while (place && !lease_blocks_place(lease, place))
            place = place->next;
        if (!place)
            lease_cancel_recall(table, lease);
    }
}

static void place_free(struct lease_table *table, struct lease_place *place)
{
    struct lease_inode *entry = place->inode_entry;

    if (!entry)
        return;
    lease_touch(table, entry);
    *place->prev = place->next;
    if (place->next)
        place->next->prev = place->prev;
    place->parked = false;
    place->inode_entry = NULL;
    table->n_places--;
    cancel_idle_recalls(table, entry, place->range);
    waiters_wake(table, entry);
    lease_inode_put(table, entry);
}

void waiter_unregister(struct lease_table *table, struct lease_waiter *waiter)
{
    /* First of all it stops waiting: freeing a place wakes those who may go on. */
    for (int i = 0; i < LEASE_WAITER_PLACES; i++)
        waiter->places[i].parked = false;
    space_leave(table, waiter);
    for (int i = 0; i < LEASE_WAITER_PLACES; i++)
        place_free(table, &waiter->places[i]);
}

static bool place_is(const struct lease_place *place, const struct lease_inode *entry, struct lease_range range,
                     enum lease_op op)
{
    return place->inode_entry == entry && place->op == op && place->range.offset == range.offset &&
           place->range.length == range.length;
}

/* The waiter's place for this question: the same as last time, a free one, or else the one that it asked for first (the
 * file or its size changed while it waited). */
static struct lease_place *place_for(struct lease_table *table, struct lease_waiter *waiter, struct lease_inode *entry,
                                     struct lease_range range, enum lease_op op)
{
    struct lease_place *place = NULL;

    for (int i = 0; i < LEASE_WAITER_PLACES; i++)
        if (place_is(&waiter->places[i], entry, range, op))
            return &waiter->places[i];
    for (int i = 0; i < LEASE_WAITER_PLACES && !place; i++)
        if (!waiter->places[i].inode_entry)
            place = &waiter->places[i];
    if (!place)
        place = &waiter->places[waiter->turn++ % LEASE_WAITER_PLACES];
    place_free(table, place);
    *place = (struct lease_place){.waiter = waiter, .range = range, .op = op};
    return place;
}

int waiter_park(struct lease_table *table, struct lease_waiter *waiter, uint64_t inode, struct lease_range range,
                enum lease_op op, enum lease_policy policy)
{
    struct lease_inode *entry;
    struct lease_place *place;

    if (waiter->cancelled)
        return -ECANCELED;
    entry = lease_inode_get(table, inode);
    if (!entry)
        return -ENOMEM;
    if (!waiter->ticket)
        waiter->ticket = ++table->last_ticket;
    place = place_for(table, waiter, entry, range, op);
    if (!place->inode_entry)
        place_link(table, place, entry);
    lease_touch(table, entry);
    place->policy = policy;
    place->parked = true;
    return -EINPROGRESS;
}

bool waiter_ahead(const struct lease_inode *entry, struct lease_range range, enum lease_mode mode, uint64_t ticket)
{
    for (const struct lease_place *p = entry->places; p; p = p->next) {
        bool compatible = mode == LEASE_READ && (p->op == LEASE_OP_SHARE || (!p->op && p->waiter->mode == LEASE_READ));
        bool first = p->op || p->waiter->ticket < ticket;

        if (first && !compatible && range_overlaps(p->range, range))
            return true;
    }
    return false;
}

static bool blocked(struct lease_inode *entry, const struct lease_place *place)
{
    const struct lease_waiter *waiter = place->waiter;
    bool waits = false;
    struct lease *lease;

    if (waiter->cancelled)
        return false;
    FOR_EACH_OVERLAP(lease, entry, place->range)
    {
        if (!lease_blocks_place(lease, place))
            continue;
        /* Somebody ahead in the queue got a lease. Nobody is recalled under this policy: ask again, to hear -EBUSY. */
        if (lease_policy_between(lease, place->policy) == LEASE_POLICY_BUSY && lease->state != LEASE_FENCING)
            return false;
        waits = true;
    }
    return waits || (!place->op && waiter_ahead(entry, place->range, waiter->mode, waiter->ticket));
}

void waiters_wake(struct lease_table *table, struct lease_inode *entry)
{
    struct lease_place *next;

    (void)table;
    for (struct lease_place *place = entry->places; place; place = next) {
        next = place->next;
        if (!place->parked || blocked(entry, place))
            continue;
        place->parked = false; /* still registered: no lease slips in before it has run (I10) */
        place->waiter->resume(place->waiter);
    }
}
