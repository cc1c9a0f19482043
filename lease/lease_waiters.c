/* SPDX-License-Identifier: BSD-2-Clause */
/* Conflicts, as the table in lease_table.h has them, and those who wait for them to go. */
#include "lease/lease_private.h"

#include <errno.h>

static bool before_fence(const struct lease *lease)
{
    return lease->state == LEASE_GRANTING || lease->state == LEASE_ACTIVE || lease->state == LEASE_RECALLED;
}

bool lease_blocks_op(const struct lease *lease, enum lease_op op)
{
    if (lease->state == LEASE_QUARANTINED)
        return false;
    if (op == LEASE_OP_DROP)
        return before_fence(lease);
    if (lease->mode == LEASE_READ)
        return op == LEASE_OP_REPLACE && before_fence(lease);
    /* The bytes stay in the file while a remote writer may still change them: wait for the fence, bounded. */
    return before_fence(lease) || !lease->overrun;
}

bool lease_blocks_request(const struct lease *lease, enum lease_mode mode)
{
    if (lease->state == LEASE_QUARANTINED)
        return false;
    if (lease->mode == LEASE_READ && mode == LEASE_READ)
        return lease->state == LEASE_RECALLED; /* I10 */
    return true;
}

bool lease_blocks_waiter(const struct lease *lease, const struct lease_waiter *waiter)
{
    if (!range_overlaps(lease->node.range, waiter->range))
        return false;
    return waiter->op ? lease_blocks_op(lease, waiter->op) : lease_blocks_request(lease, waiter->mode);
}

static void waiter_register(struct lease_table *table, struct lease_waiter *waiter, struct lease_inode *entry)
{
    struct lease_waiter **place = &entry->waiters;

    if (!waiter->ticket)
        waiter->ticket = ++table->last_ticket;
    while (*place && (*place)->ticket < waiter->ticket)
        place = &(*place)->next;
    waiter->next = *place;
    waiter->prev = place;
    if (waiter->next)
        waiter->next->prev = &waiter->next;
    *place = waiter;
    waiter->inode_entry = entry;
    waiter->registered = true;
    table->n_waiters++;
}

/* A recall that nobody waits for any more is taken back: the holder may keep its lease. */
static void cancel_idle_recalls(struct lease_table *table, struct lease_inode *entry, struct lease_range range)
{
    struct lease *lease;

    FOR_EACH_OVERLAP(lease, entry, range)
    {
        const struct lease_waiter *waiter = entry->waiters;

        if (lease->state != LEASE_RECALLED || lease->recalled_by_try)
            continue;
        while (waiter && !lease_blocks_waiter(lease, waiter))
            waiter = waiter->next;
        if (!waiter)
            lease_cancel_recall(table, lease);
    }
}

void waiter_unregister(struct lease_table *table, struct lease_waiter *waiter)
{
    struct lease_inode *entry = waiter->inode_entry;

    if (!waiter->registered)
        return;
    *waiter->prev = waiter->next;
    if (waiter->next)
        waiter->next->prev = waiter->prev;
    waiter->registered = waiter->parked = false;
    waiter->inode_entry = NULL;
    table->n_waiters--;
    cancel_idle_recalls(table, entry, waiter->range);
    waiters_wake(table, entry);
    lease_inode_put(table, entry);
}

int waiter_park(struct lease_table *table, struct lease_waiter *waiter, uint64_t inode, struct lease_range range)
{
    struct lease_inode *entry = lease_inode_get(table, inode);

    if (!entry)
        return -ENOMEM;
    if (waiter->registered && waiter->inode_entry != entry)
        waiter_unregister(table, waiter); /* an operation on two files now waits for the other one */
    waiter->range = range;
    if (!waiter->registered)
        waiter_register(table, waiter, entry);
    waiter->parked = true;
    return -EINPROGRESS;
}

bool waiter_ahead(const struct lease_inode *entry, struct lease_range range, enum lease_mode mode, uint64_t ticket)
{
    for (const struct lease_waiter *w = entry->waiters; w && w->ticket < ticket; w = w->next) {
        bool compatible = mode == LEASE_READ && (w->op == LEASE_OP_SHARE || (!w->op && w->mode == LEASE_READ));

        if (!compatible && range_overlaps(w->range, range))
            return true;
    }
    return false;
}

static bool blocked(struct lease_inode *entry, const struct lease_waiter *waiter)
{
    struct lease *lease;

    if (waiter->cancelled)
        return false;
    FOR_EACH_OVERLAP(lease, entry, waiter->range)
    if (lease_blocks_waiter(lease, waiter))
        return true;
    return !waiter->op && waiter_ahead(entry, waiter->range, waiter->mode, waiter->ticket);
}

void waiters_wake(struct lease_table *table, struct lease_inode *entry)
{
    struct lease_waiter *next;

    (void)table;
    for (struct lease_waiter *waiter = entry->waiters; waiter; waiter = next) {
        next = waiter->next;
        if (!waiter->parked || blocked(entry, waiter))
            continue;
        waiter->parked = false; /* still registered: no lease slips in before it has run (I10) */
        waiter->resume(waiter);
    }
}
