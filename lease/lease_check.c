/* SPDX-License-Identifier: BSD-2-Clause */
/* What must hold whenever the table's lock is free, and the names of things. */
#include "lease/lease_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define REQUIRE(condition, sentence)                                                                                   \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "leasefs: lease table broken: %s\n", sentence);                                            \
            return -EUCLEAN;                                                                                           \
        }                                                                                                              \
    } while (0)

static int check_places(const struct lease_inode *entry, size_t *count)
{
    for (const struct lease_place *p = entry->places; p; p = p->next) {
        REQUIRE(p->inode_entry == entry, "a place in another file's queue");
        REQUIRE(*p->prev == p, "a place's back link");
        REQUIRE(!p->next || p->waiter->ticket <= p->next->waiter->ticket, "places out of order");
        (*count)++;
    }
    return 0;
}

/* I3: a write lease is alone; I10: an active lease that somebody parked for has been recalled. */
static int check_lease(struct lease *lease)
{
    struct lease *other;

    REQUIRE(lease->inode, "a listed lease without its file");
    FOR_EACH_OVERLAP(other, lease->inode, lease->node.range)
    REQUIRE(other == lease || (lease->mode == LEASE_READ && other->mode == LEASE_READ) ||
                ((lease->remnant || other->remnant) && lease->session_id == other->session_id),
            "I3: a write lease overlaps");
    REQUIRE(!lease->remnant || lease->state == LEASE_FENCING, "what a cut took away is still in use");
    if (lease->state == LEASE_ACTIVE)
        for (const struct lease_place *p = lease->inode->places; p; p = p->next)
            REQUIRE(!p->parked || !lease_blocks_place(lease, p), "I10: parked for a lease that is not recalled");
    REQUIRE(!lease->courtesy || lease->state == LEASE_ACTIVE, "courtesy for a lease that is wanted or over");
    REQUIRE(
        (lease->deadline_ns == NO_DEADLINE) ==
            (lease->state == LEASE_GRANTING ? !lease->cut || !lease->recall_by_ns || lease->doomed : lease->overrun),
        "a deadline where none belongs, or none where one does");
    return 0;
}

static int check(struct lease_table *table)
{
    size_t leases = 0, places = 0, fencing = 0, waiting = 0;
    uint64_t bytes = 0, live = 0;

    for (struct lease *lease = lease_lowest(table); lease; lease = lease_after(lease)) {
        leases++;
        bytes += lease->node.range.length;
        fencing += lease->state == LEASE_FENCING;
        if (lease->state == LEASE_QUARANTINED) {
            REQUIRE(!lease->session && !lease->inode, "a quarantined lease can still conflict");
            continue;
        }
        live += lease->node.range.length;
        if (check_lease(lease))
            return -EUCLEAN;
    }
    REQUIRE(leases == table->n_leases, "count of leases");
    REQUIRE(fencing == table->n_fencing, "count of fences");
    for (const struct lease_waiter *w = table->space; w; w = w->space_next) {
        REQUIRE(*w->space_prev == w && (!w->space_next || w->space_wakes_ns <= w->space_next->space_wakes_ns),
                "who waits for space is out of order");
        REQUIRE(fencing || w->space_expected_until_ns, "somebody waits for space that no fence will give");
        waiting++;
    }
    REQUIRE(waiting == atomic_load(&table->n_space), "count of those who wait for space");
    REQUIRE(bytes == table->bytes, "count of bytes");
    for (struct lease_owner *owner = table->owners; owner; owner = owner->hh.next) {
        leases -= owner->count;
        bytes -= owner->bytes;
    }
    REQUIRE(!leases && !bytes, "counts of owners");
    for (struct lease_session *session = table->sessions; session; session = session->hh.next)
        live -= session->bytes;
    REQUIRE(!live, "count of sessions' bytes");
    for (struct lease_inode *entry = table->inodes; entry; entry = entry->hh.next) {
        REQUIRE(lease_tree_valid(&entry->tree), "interval tree");
        REQUIRE(entry->places || !lease_tree_empty(&entry->tree), "an empty file entry");
        if (check_places(entry, &places))
            return -EUCLEAN;
    }
    REQUIRE(places == table->n_places, "count of places");
    return 0;
}

int lease_table_check(struct lease_table *table)
{
    int result;

    pthread_mutex_lock(&table->lock);
    result = check(table);
    pthread_mutex_unlock(&table->lock);
    return result;
}

#ifdef LEASEFS_CHECK

#define SMALL_TABLE 256 /* leases */

static int check_file(struct lease_inode *entry)
{
    static const struct lease_range all = {0, UINT64_MAX};
    struct lease *lease;
    size_t places = 0;

    REQUIRE(lease_tree_valid(&entry->tree), "interval tree");
    REQUIRE(entry->places || !lease_tree_empty(&entry->tree), "an empty file entry");
    FOR_EACH_OVERLAP(lease, entry, all)
    {
        REQUIRE(lease->inode == entry && lease->session, "another file's lease, or one that has ended, in a tree");
        if (check_lease(lease))
            return -EUCLEAN;
    }
    return check_places(entry, &places);
}

void lease_touch(struct lease_table *table, struct lease_inode *entry)
{
    if (!entry || entry->touched_prev)
        return;
    entry->touched_next = table->touched;
    entry->touched_prev = &table->touched;
    if (table->touched)
        table->touched->touched_prev = &entry->touched_next;
    table->touched = entry;
}

void lease_untouch(struct lease_inode *entry)
{
    if (!entry->touched_prev)
        return;
    *entry->touched_prev = entry->touched_next;
    if (entry->touched_next)
        entry->touched_next->touched_prev = entry->touched_prev;
    entry->touched_prev = NULL;
}

void lease_check_edge(struct lease_table *table)
{
    bool whole = table->n_leases <= SMALL_TABLE || table->edges++ >= table->n_leases;

    while (table->touched) {
        if (!whole && check_file(table->touched))
            abort();
        lease_untouch(table->touched);
    }
    if (!whole)
        return;
    table->edges = 0;
    if (check(table))
        abort();
}

#else

void lease_touch(struct lease_table *table, struct lease_inode *entry)
{
    (void)table, (void)entry;
}

void lease_untouch(struct lease_inode *entry)
{
    (void)entry;
}

void lease_check_edge(struct lease_table *table)
{
    (void)table;
}

#endif

const char *lease_mode_name(enum lease_mode mode)
{
    return mode == LEASE_READ ? "read" : mode == LEASE_WRITE ? "write" : "?";
}

const char *lease_state_name(enum lease_state state)
{
    static const char *const names[] = {
        [LEASE_GRANTING] = "granting", [LEASE_ACTIVE] = "active",           [LEASE_RECALLED] = "recalled",
        [LEASE_FENCING] = "fencing",   [LEASE_QUARANTINED] = "quarantined",
    };

    return state >= LEASE_GRANTING && state <= LEASE_QUARANTINED ? names[state] : "?";
}

static const char *const policy_names[] = {
    [LEASE_POLICY_RECALL] = "recall",
    [LEASE_POLICY_BUSY] = "busy",
    [LEASE_POLICY_ORPHAN] = "orphan",
};

const char *lease_policy_name(enum lease_policy policy)
{
    return policy >= LEASE_POLICY_RECALL && policy <= LEASE_POLICY_ORPHAN ? policy_names[policy] : NULL;
}

enum lease_policy lease_policy_named(const char *name, size_t length)
{
    for (enum lease_policy policy = LEASE_POLICY_RECALL; policy <= LEASE_POLICY_ORPHAN; policy++)
        if (strlen(policy_names[policy]) == length && memcmp(policy_names[policy], name, length) == 0)
            return policy;
    return 0;
}

const char *lease_end_reason_name(enum lease_end_reason reason)
{
    static const char *const names[] = {
        [LEASE_END_RETURNED] = "returned", [LEASE_END_RECALL_TIMEOUT] = "recall-timeout",
        [LEASE_END_EXPIRED] = "expired",   [LEASE_END_REVOKED] = "revoked",
        [LEASE_END_SESSION] = "session",   [LEASE_END_ABORTED] = "aborted",
    };

    return reason >= LEASE_END_RETURNED && reason <= LEASE_END_ABORTED ? names[reason] : "?";
}
