/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A part of a lease is given back, or its right to write, and the rest is kept.
 *
 *   before            0 |======== lease 7, write ========| 16
 *   lease_cut(4..8)   0 |== 7 ==|         |===== 8 ======| 16    GRANTING: nobody slips in between
 *                     0 |-------- 9, the remnant --------| 16    FENCING: all that could be reached with the old key
 *   lease_fenced(9), lease_commit(7), lease_commit(8)
 *
 * The remnant covers the whole old range, since that is what the old key reaches until the fence; it is the one thing
 * that may overlap leases of its own session (I3).
 */
#include <errno.h>

#include "lease/lease_private.h"

/* A piece keeps what it was told and what was asked of it. Somebody who waits for it is found when it is committed;
 * the deadline goes on, or a holder could put it off by giving back block after block (I4). */
static void inherit(struct lease_table *table, struct lease *piece, const struct lease *from)
{
    struct lease_range range = piece->node.range, wanted = range_common(from->wanted, range);
    bool recalled = from->state == LEASE_RECALLED;

    piece->orphaned = range_common(from->orphaned, range);
    piece->recalled_by_try = from->recalled_by_try && recalled && wanted.length;
    piece->recall_by_ns = recalled ? from->recall_deadline_ns : 0;
    piece->wanted = wanted;
    lease_set_deadline(table, piece);
}

static int may_cut(const struct lease_table *table, const struct lease *lease, const struct lease_cut *cut,
                   size_t n_pieces)
{
    struct lease_range whole = lease->node.range;

    if (lease->state == LEASE_GRANTING)
        return -EINPROGRESS;
    if (lease->state != LEASE_ACTIVE && lease->state != LEASE_RECALLED)
        return -EALREADY;
    if (n_pieces == 0 || (cut->part.length && !range_contains(whole, cut->part)) ||
        (cut->mode != lease->mode && lease->mode != LEASE_WRITE) || (!cut->part.length && cut->mode == lease->mode))
        return -EINVAL;
    return n_pieces == 2 && !lease_fits_one_more(table, lease) ? -EMFILE : 0;
}

static int cut_it(struct lease_table *table, struct lease *lease, struct lease_cut *cut, uint64_t now_ns)
{
    struct lease_range pieces[2];
    size_t n = range_without(lease->node.range, cut->part, pieces);
    struct lease *remnant, *second = NULL, old = *lease;
    int error = may_cut(table, lease, cut, n);

    if (error)
        return error;
    if (n == 2 && !(second = lease_add_beside(table, lease, pieces[1])))
        return -ENOMEM;
    remnant = lease_add_beside(table, lease, lease->node.range);
    if (!remnant) {
        if (second)
            lease_destroy(table, second);
        return -ENOMEM;
    }
    lease_narrow(table, lease, pieces[0]);
    lease_keep(table, lease);
    inherit(table, lease, &old);
    lease->mode = cut->mode;
    if (second) {
        second->cut = true;
        inherit(table, second, &old);
        second->mode = cut->mode;
    }
    table->total.parts += cut->part.length > 0;
    table->total.downgraded += cut->mode != old.mode;
    cut->n_kept = n;
    cut->kept[0] = lease->lease_id;
    cut->kept[1] = second ? second->lease_id : 0;
    remnant->exposure = cut->exposure;
    lease_fence_remnant(table, remnant, now_ns);
    return 0;
}

int lease_cut(struct lease_table *table, uint64_t session_id, uint64_t lease_id, uint32_t sequence, uint64_t now_ns,
              struct lease_cut *cut)
{
    struct lease *lease;
    int result;

    if (!range_valid(cut->part) || (cut->mode != LEASE_READ && cut->mode != LEASE_WRITE))
        return -EINVAL;
    lease_table_lock(table);
    result = lease_find_own(table, session_id, lease_id, sequence, &lease);
    if (!result)
        result = cut_it(table, lease, cut, now_ns);
    lease_table_unlock(table);
    return result;
}
