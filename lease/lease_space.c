/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who waits for space. The blocks of a lease that has ended are free when its fence is through, and its hold is
 * released before lease_fenced(): so whoever found none tries again then. Others may give back, too
 * (lease_space_came()). Everybody tries: how much has come is not known here. Fences end (layout and fabric see to it),
 * and each waiter has a time of its own besides, since others may always be quicker.
 */
#include <errno.h>

#include "lease/lease_private.h"

uint64_t lease_space_mark(struct lease_table *table)
{
    return atomic_load(&table->space_comes);
}

void space_leave(struct lease_table *table, struct lease_waiter *waiter)
{
    if (!waiter->space_prev)
        return;
    *waiter->space_prev = waiter->space_next;
    if (waiter->space_next)
        waiter->space_next->space_prev = waiter->space_prev;
    waiter->space_prev = NULL;
    atomic_fetch_sub(&table->n_space, 1);
}

static void enter(struct lease_table *table, struct lease_waiter *waiter)
{
    struct lease_waiter **at = &table->space;

    while (*at && (*at)->space_wakes_ns <= waiter->space_wakes_ns)
        at = &(*at)->space_next;
    waiter->space_next = *at;
    waiter->space_prev = at;
    if (*at)
        (*at)->space_prev = &waiter->space_next;
    *at = waiter;
    atomic_fetch_add(&table->n_space, 1);
}

static void wake(struct lease_table *table, struct lease_waiter *waiter)
{
    space_leave(table, waiter);
    waiter->resume(waiter);
}

/* 0: nothing will come. */
static uint64_t wait_until(struct lease_table *table, uint64_t expect_ns, uint64_t now_ns, struct lease_waiter *waiter)
{
    if (!waiter->space_until_ns)
        waiter->space_until_ns = later(now_ns, table->limits.fence_bound_ns);
    if (expect_ns && !waiter->space_expected_until_ns)
        waiter->space_expected_until_ns = later(now_ns, expect_ns);
    if (table->n_fencing && now_ns < waiter->space_until_ns)
        return waiter->space_until_ns;
    if (expect_ns && now_ns < waiter->space_expected_until_ns)
        return waiter->space_expected_until_ns;
    return 0;
}

static int wait_for_space(struct lease_table *table, uint64_t mark, uint64_t expect_ns, uint64_t now_ns,
                          struct lease_waiter *waiter)
{
    struct lease_event event = {.kind = LEASE_EVENT_DEADLINE};
    uint64_t until_ns;

    if (!waiter)
        return -ENOSPC;
    if (waiter->cancelled)
        return -ECANCELED;
    until_ns = wait_until(table, expect_ns, now_ns, waiter);
    if (now_ns >= waiter->space_until_ns && !until_ns)
        return -ENOSPC;
    if (mark != atomic_load(&table->space_comes))
        return 0;
    if (!until_ns)
        return -ENOSPC;
    waiter->space_wakes_ns = until_ns;
    enter(table, waiter);
    if (mark != atomic_load(&table->space_comes)) { /* lease_space_came() did not see it */
        space_leave(table, waiter);
        return 0;
    }
    event.deadline_ns = until_ns;
    if (table->space == waiter)
        table->events.post(table->events.ctx, &event);
    return -EINPROGRESS;
}

int lease_space_wait(struct lease_table *table, uint64_t mark, uint64_t expect_ns, uint64_t now_ns,
                     struct lease_waiter *waiter)
{
    int result;

    lease_table_lock(table);
    result = wait_for_space(table, mark, expect_ns, now_ns, waiter);
    lease_table_unlock(table);
    return result;
}

void space_fence_ended(struct lease_table *table)
{
    atomic_fetch_add(&table->space_comes, 1);
    while (table->space)
        wake(table, table->space);
}

void lease_space_came(struct lease_table *table)
{
    atomic_fetch_add(&table->space_comes, 1);
    if (!atomic_load(&table->n_space))
        return;
    lease_table_lock(table);
    while (table->space)
        wake(table, table->space);
    lease_table_unlock(table);
}

void space_tick(struct lease_table *table, uint64_t now_ns)
{
    while (table->space && table->space->space_wakes_ns <= now_ns)
        wake(table, table->space);
}

uint64_t space_deadline(const struct lease_table *table)
{
    return table->space ? table->space->space_wakes_ns : NO_DEADLINE;
}
