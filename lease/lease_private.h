/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_PRIVATE_H
#define LEASEFS_LEASE_PRIVATE_H

/* The lease table from inside. Every field is guarded by lease_table.lock; every function here is called with it
 * held. */

#include <bsd/sys/tree.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#define HASH_NONFATAL_OOM 1 /* an entry that was not added has no hh.tbl; else uthash ends the process */
#include <uthash.h>

#include "lease/lease_table.h"
#include "lease/lease_tree.h"

#define NO_DEADLINE UINT64_MAX

struct lease_inode {
    uint64_t inode;
    struct lease_tree tree;                           /* leases that can conflict: all but the quarantined */
    struct lease_place *places;                       /* of its waiters, by ticket */
    struct lease_inode *touched_next, **touched_prev; /* see lease_touch() */
    UT_hash_handle hh;
};

struct lease_session {
    uint64_t session_id;
    struct lease *leases;
    size_t count;
    uint64_t bytes;
    UT_hash_handle hh;
};

/* A user, over all sessions. Leases count until they are gone for good. */
struct lease_owner {
    uint32_t owner;
    size_t count;
    uint64_t bytes;
    UT_hash_handle hh;
};

struct lease {
    struct lease_tree_node node; /* first: a node of the inode's tree is its lease */
    RB_ENTRY(lease) by_id, by_deadline;
    struct lease *next, **prev; /* of the session */
    struct lease_inode *inode;
    struct lease_session *session; /* NULL once quarantined */
    struct lease_owner *owner;
    uint64_t lease_id, session_id, inode_number;
    enum lease_mode mode;
    enum lease_state state;
    enum lease_end_reason reason;
    int process;
    enum lease_policy policy;
    struct lease_range orphaned, wanted; /* see lease_info */
    uint32_t sequence;
    uint64_t granted_at_ns, expires_at_ns, recall_deadline_ns, fence_overrun_ns;
    uint64_t deadline_ns; /* its place in the tree of deadlines; NO_DEADLINE: not in it */
    void *exposure;
    bool doomed;           /* to end as soon as its grant is through: session gone, or revoked meanwhile */
    bool courtesy;         /* ACTIVE, and past its expiry */
    bool idle;             /* its holder keeps it for later: see lease_keep_idle() */
    bool overrun;          /* the fence took longer than fence_bound_ns */
    bool at_leisure;       /* its holder gave it back, and nobody had asked for that */
    bool recalled_by_try;  /* recalled for somebody who did not wait: nobody's leaving cancels that */
    bool remnant;          /* what was reachable before a cut; overlaps what its session kept */
    bool cut;              /* GRANTING, and kept by a cut */
    uint64_t recall_by_ns; /* of a cut one: the deadline that goes on, or that its next recall has; 0: none */
};

RB_HEAD(lease_ids, lease);
RB_HEAD(lease_deadlines, lease);

struct lease_table {
    pthread_mutex_t lock;
    struct lease_limits limits;
    struct lease_events events;
    struct lease_ids ids;
    struct lease_deadlines deadlines;
    struct lease_inode *inodes;
    struct lease_session *sessions;
    struct lease_owner *owners;
    uint64_t bytes; /* of all leases' ranges */
    uint64_t last_id, last_ticket;
    size_t n_leases, n_places, n_fencing;
    struct lease_waiter *space;   /* who waits for it, by the end of their wait */
    atomic_uint n_space;          /* how many; written under the lock */
    _Atomic uint64_t space_comes; /* how often some has come */
    struct lease_counts total;    /* the counters since the start */
    struct lease_inode *touched;
    size_t edges; /* since the whole table was checked */
};

/* lease_index.c: finding, adding and removing. */
struct lease *lease_find(struct lease_table *table, uint64_t lease_id);
/* For its holder, who has been told `sequence` of it. -ENOENT: not his; -EINVAL: nobody was told that yet. */
int lease_find_own(struct lease_table *table, uint64_t session_id, uint64_t lease_id, uint32_t sequence,
                   struct lease **ret_lease);
struct lease *lease_after(struct lease *lease); /* by id */
struct lease *lease_lowest(struct lease_table *table);
struct lease_inode *lease_inode_find(struct lease_table *table, uint64_t inode);
struct lease_inode *lease_inode_get(struct lease_table *table, uint64_t inode); /* made if need be; NULL: no memory */
void lease_inode_put(struct lease_table *table, struct lease_inode *entry);     /* freed when nothing is left in it */
int lease_add(struct lease_table *table, const struct lease_request *request, struct lease **ret_lease);
void lease_unlink(struct lease_table *table,
                  struct lease *lease); /* from its inode and session; it conflicts no more */
void lease_destroy(struct lease_table *table, struct lease *lease);
/* A lease beside `of`, of the same holder, on a part of its range, in state GRANTING. Asks no limits. NULL: no memory.
 */
struct lease *lease_add_beside(struct lease_table *table, const struct lease *of, struct lease_range range);
void lease_narrow(struct lease_table *table, struct lease *lease, struct lease_range range);
bool lease_fits_one_more(const struct lease_table *table, const struct lease *beside); /* limits on their number */
struct lease *lease_first_deadline(struct lease_table *table);
struct lease *lease_after_deadline(struct lease *lease);
void lease_set_deadline(struct lease_table *table, struct lease *lease); /* recomputed from its state */

/* lease_state.c: the machine's edges. */
void lease_activate(struct lease_table *table, struct lease *lease, uint64_t now_ns, void *exposure);
/* Recalls it, or asks for more of a recalled one. Of a grant in progress it is noted what will be asked for. */
void lease_recall(struct lease_table *table, struct lease *lease, struct lease_range wanted, uint64_t now_ns);
void lease_orphan(struct lease_table *table, struct lease *lease, struct lease_range range);
void lease_cancel_recall(struct lease_table *table, struct lease *lease);
void lease_keep(struct lease_table *table, struct lease *lease);
void lease_doom(struct lease_table *table, struct lease *lease); /* GRANTING; commit will fail */
void lease_fence_remnant(struct lease_table *table, struct lease *remnant,
                         uint64_t now_ns); /* a new lease, see lease_cut.c */
void lease_start_fence(struct lease_table *table, struct lease *lease, enum lease_end_reason reason, uint64_t now_ns);
void lease_extend_courtesy(struct lease_table *table, struct lease *lease); /* nobody conflicts with it: ACTIVE */
void lease_overrun(struct lease_table *table, struct lease *lease);
void lease_quarantine(struct lease_table *table, struct lease *lease);
void lease_post(struct lease_table *table, const struct lease *lease, enum lease_event_kind kind);

/* lease_waiters.c: conflicts and parking. */
bool lease_conflicts_op(const struct lease *lease, enum lease_op op);
/* What the conflict of an operation under this policy of its file with this lease comes to. */
enum lease_policy lease_policy_between(const struct lease *lease, enum lease_policy policy);
bool lease_blocks_op(const struct lease *lease, enum lease_op op, enum lease_policy policy);
bool lease_blocks_request(const struct lease *lease, enum lease_mode mode);
bool lease_blocks_place(const struct lease *lease, const struct lease_place *place);
bool waiter_is_parked(const struct lease_waiter *waiter);
/* -EINPROGRESS; -ENOMEM, -ECANCELED. op 0: a request for a lease. */
int waiter_park(struct lease_table *table, struct lease_waiter *waiter, uint64_t inode, struct lease_range range,
                enum lease_op op, enum lease_policy policy);
void waiter_unregister(struct lease_table *table, struct lease_waiter *waiter);
/* Is a request behind another waiter? Every operation counts, and the requests that came before `ticket`. */
bool waiter_ahead(const struct lease_inode *entry, struct lease_range range, enum lease_mode mode, uint64_t ticket);
/* Resumes every parked waiter of the inode that nothing blocks any more. */
void waiters_wake(struct lease_table *table, struct lease_inode *entry);

static inline void lease_table_lock(struct lease_table *table)
{
    pthread_mutex_lock(&table->lock);
}

/* lease_space.c */
void space_leave(struct lease_table *table, struct lease_waiter *waiter); /* no-op for who does not wait there */
void space_fence_ended(struct lease_table *table);
void space_tick(struct lease_table *table, uint64_t now_ns);
uint64_t space_deadline(const struct lease_table *table);

/* lease_check.c. In LEASEFS_CHECK builds lease_check_edge() aborts the process when an invariant is broken. Whoever
 * changes a lease or a place tells it where: each file that was touched is looked at before the lock is free, the whole
 * table each time while it is small, else once in as many edges as there are leases. */
void lease_touch(struct lease_table *table, struct lease_inode *entry);
void lease_untouch(struct lease_inode *entry); /* it will be freed */
void lease_check_edge(struct lease_table *table);

static inline void lease_table_unlock(struct lease_table *table)
{
    lease_check_edge(table);
    pthread_mutex_unlock(&table->lock);
}

static inline uint64_t later(uint64_t now_ns, uint64_t by_ns)
{
    return by_ns >= NO_DEADLINE - 1 - now_ns ? NO_DEADLINE - 1 : now_ns + by_ns;
}

/* A piece of a cut that will not be exposed again: only its remnant is in anybody's way, and it itself in that of other
 * leases. */
static inline bool lease_is_lost(const struct lease *lease)
{
    return lease->state == LEASE_GRANTING && lease->cut && lease->doomed;
}

static inline struct lease *lease_of(struct lease_tree_node *node)
{
    return (struct lease *)node;
}

#define FOR_EACH_OVERLAP(lease_, entry_, range_)                                                                       \
    for (struct lease_tree_node *node_ = lease_tree_first(&(entry_)->tree, (range_));                                  \
         node_ && ((lease_) = lease_of(node_), true); node_ = lease_tree_next(node_, (range_)))

#endif
