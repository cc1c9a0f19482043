/* SPDX-License-Identifier: BSD-2-Clause */

/* The front door: what an operation of the filesystem meets before it changes bytes or a layout, and how those that
 * wait give up. */

#include <errno.h>

#include "lease/lease_private.h"
#include "lease/lease_table.h"

/* May the operation go? Else what to answer, to who does not wait. */
static int op_blocked(struct lease_inode *entry, struct lease_range range, enum lease_op op, enum lease_policy policy,
                      int process)
{
    struct lease *lease;
    int answer = 0;

    FOR_EACH_OVERLAP(lease, entry, range)
    {
        if (!lease_blocks_op(lease, op, policy))
            continue;
        if (lease->state != LEASE_FENCING && lease_policy_between(lease, policy) == LEASE_POLICY_BUSY)
            return -EBUSY;
        if (lease->state != LEASE_FENCING && process && lease->process == process && !lease->idle)
            return -EDEADLK;
        answer = -EAGAIN;
    }
    return answer;
}

static void op_recalls(struct lease_table *table, struct lease_inode *entry, const struct lease_place *op, bool waits,
                       uint64_t now_ns)
{
    struct lease *lease;

    FOR_EACH_OVERLAP(lease, entry, op->range)
    {
        if (!lease_blocks_op(lease, op->op, op->policy) ||
            lease_policy_between(lease, op->policy) == LEASE_POLICY_ORPHAN)
            continue;
        if (!waits)
            lease->recalled_by_try = true;
        lease_recall(table, lease, op->range, now_ns);
    }
}

/* The operation goes: the file gets other blocks where leases hold the old ones. */
static void op_orphans(struct lease_table *table, struct lease_inode *entry, struct lease_range range, enum lease_op op)
{
    struct lease *lease;

    if (op == LEASE_OP_SHARE)
        return; /* a copy is made; the lease stays on the file's own */
    FOR_EACH_OVERLAP(lease, entry, range)
    if (lease->state == LEASE_ACTIVE || lease->state == LEASE_RECALLED || lease->cut)
        lease_orphan(table, lease, range);
}

static void op_ends_expired(struct lease_table *table, struct lease_inode *entry, const struct lease_place *op,
                            uint64_t now_ns)
{
    struct lease *lease;

    FOR_EACH_OVERLAP(lease, entry, op->range)
    if (lease->courtesy && lease_blocks_op(lease, op->op, op->policy))
        lease_start_fence(table, lease, LEASE_END_EXPIRED, now_ns);
}

static int op_begin(struct lease_table *table, uint64_t inode, const struct lease_place *op, uint64_t now_ns,
                    struct lease_waiter *waiter)
{
    struct lease_inode *entry = lease_inode_find(table, inode);
    int error;

    if (!entry)
        return 0;
    op_ends_expired(table, entry, op, now_ns);
    error = op_blocked(entry, op->range, op->op, op->policy, waiter ? waiter->process : 0);
    if (!error)
        op_orphans(table, entry, op->range, op->op);
    if (error != -EAGAIN)
        return error;
    if (waiter) {
        error = waiter_park(table, waiter, inode, op->range, op->op, op->policy);
        if (error != -EINPROGRESS)
            return error;
    }
    op_recalls(table, entry, op, waiter != NULL, now_ns);
    return error;
}

int lease_op_begin_under(struct lease_table *table, uint64_t inode, struct lease_range range, enum lease_op op,
                         enum lease_policy policy, uint64_t now_ns, struct lease_waiter *waiter)
{
    struct lease_place wanted = {.range = range, .op = op, .policy = policy ? policy : table->limits.policy};
    int result;

    if (!range_valid(range) || op < LEASE_OP_DROP || op > LEASE_OP_SHARE || !lease_policy_name(wanted.policy))
        return -EINVAL;
    lease_table_lock(table);
    result = op_begin(table, inode, &wanted, now_ns, waiter);
    lease_table_unlock(table);
    return result;
}

int lease_op_begin(struct lease_table *table, uint64_t inode, struct lease_range range, enum lease_op op,
                   uint64_t now_ns, struct lease_waiter *waiter)
{
    return lease_op_begin_under(table, inode, range, op, 0, now_ns, waiter);
}

void lease_op_end(struct lease_table *table, struct lease_waiter *waiter)
{
    lease_table_lock(table);
    waiter_unregister(table, waiter);
    lease_table_unlock(table);
}

bool lease_waiter_cancel(struct lease_table *table, struct lease_waiter *waiter, uint64_t now_ns)
{
    bool was_parked;

    (void)now_ns;
    lease_table_lock(table);
    was_parked = waiter_is_parked(waiter);
    if (was_parked)
        waiter_unregister(table, waiter);
    lease_table_unlock(table);
    return was_parked;
}

void lease_waiter_abandon(struct lease_table *table, struct lease_waiter *waiter)
{
    lease_table_lock(table);
    waiter->cancelled = true;
    if (waiter_is_parked(waiter)) {
        for (int i = 0; i < LEASE_WAITER_PLACES; i++)
            waiter->places[i].parked = false;
        space_leave(table, waiter);
        waiter->resume(waiter);
    }
    lease_table_unlock(table);
}
