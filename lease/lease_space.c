/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who waits for space. The blocks of a lease that has ended are free when its fence is through, and its hold is
 * released before lease_fenced(): so whoever found none tries again then. Everybody does: how much a fence gives back
 * is not known here. Fences end (layout and fabric see to it), and each waiter has a time of its own besides, since
 * others may always be quicker.
 */
#include <errno.h>

#include "lease/lease_private.h"

uint64_t lease_space_mark(struct lease_table *table)
{
    return atomic_load(&table->fences_ended);
}

void space_leave(struct lease_waiter *waiter)
{
    if (!waiter->space_prev)
        return;
    *waiter->space_prev = waiter->space_next;
    if (waiter->space_next)
        waiter->space_next->space_prev = waiter->space_prev;
    waiter->space_prev = NULL;
}

static void enter(struct lease_table *table, struct lease_waiter *waiter)
{
    struct lease_waiter **at = &table->space;

    while (*at && (*at)->space_until_ns <= waiter->space_until_ns)
        at = &(*at)->space_next;
    waiter->space_next = *at;
    waiter->space_prev = at;
    if (*at)
        (*at)->space_prev = &waiter->space_next;
    *at = waiter;
}

static void wake(struct lease_waiter *waiter)
{
    space_leave(waiter);
    waiter->resume(waiter);
}

static int wait_for_space(struct lease_table *table, uint64_t mark, uint64_t now_ns, struct lease_waiter *waiter)
{
    struct lease_event event = {.kind = LEASE_EVENT_DEADLINE};

    if (!waiter)
        return -ENOSPC;
    if (waiter->cancelled)
        return -ECANCELED;
    if (!waiter->space_until_ns)
        waiter->space_until_ns = later(now_ns, table->limits.fence_bound_ns);
    if (now_ns >= waiter->space_until_ns)
        return -ENOSPC;
    if (mark != atomic_load(&table->fences_ended))
        return 0;
    if (!table->n_fencing)
        return -ENOSPC;
    enter(table, waiter);
    event.deadline_ns = waiter->space_until_ns;
    if (table->space == waiter)
        table->events.post(table->events.ctx, &event);
    return -EINPROGRESS;
}

int lease_space_wait(struct lease_table *table, uint64_t mark, uint64_t now_ns, struct lease_waiter *waiter)
{
    int result;

    lease_table_lock(table);
    result = wait_for_space(table, mark, now_ns, waiter);
    lease_table_unlock(table);
    return result;
}

void space_fence_ended(struct lease_table *table)
{
    atomic_fetch_add(&table->fences_ended, 1);
    while (table->space)
        wake(table->space);
}

void space_tick(struct lease_table *table, uint64_t now_ns)
{
    while (table->space && table->space->space_until_ns <= now_ns)
        wake(table->space);
}

uint64_t space_deadline(const struct lease_table *table)
{
    return table->space ? table->space->space_until_ns : NO_DEADLINE;
}
