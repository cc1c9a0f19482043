/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_TABLE_H
#define LEASEFS_LEASE_TABLE_H

/*
 * Who may touch which bytes, and until when.
 *
 * Pure logic: no I/O, no threads, no clock (`now_ns` is passed in, CLOCK_MONOTONIC nanoseconds). Thread-safe: one
 * lock inside (its place: lease/lock_order.h; the front door is asked with the inode lock held), which is never held
 * while calling out, with two exceptions that may only enqueue: lease_events.post and lease_waiter.resume.
 *
 * A lease's life (the table in lease_state.c is the machine; every edge names its function):
 *
 *   GRANTING --commit--> ACTIVE --conflict--> RECALLED --cancelled by the last waiter--> ACTIVE
 *      |abort  ^            |return, expiry, revoke, session end      |return, deadline, ...
 *      v       +--- cut ----+-----------------------------------------+
 *    (gone)              FENCING <------------------------------------+
 *                           |fenced                |no proof
 *                           v                      v
 *                         (gone)              QUARANTINED (for ever)
 *
 * Conflicts. An operation and a lease conflict when their ranges overlap and
 *
 *                          read lease                      write lease
 *   LEASE_OP_DROP          until FENCING                   until FENCING          bytes leave the file: detach suffices
 *   LEASE_OP_REPLACE       until FENCING                   until fenced (*)       bytes change
 *   LEASE_OP_SHARE         never                           until fenced (*)       bytes get a second file
 *   another lease, read    only while RECALLED (I10)       until fenced
 *   another lease, write   until fenced                    until fenced
 *
 *   (*) or until the fence has overrun lease_limits.fence_bound_ns: then the filesystem copies the held blocks.
 *   An expired lease that nobody conflicts with stays for lease_limits.courtesy_ns, and can be renewed. A conflict ends
 * it at once: its holder has had its time. GRANTING conflicts like ACTIVE; its recall is sent as soon as the grant is
 * committed.
 *
 * What a conflict means for an operation is the policy of its file, or that of the lease where it lets the operation
 * go further (busy, recall, orphan in this order). Under `orphan` only a grant in progress is waited for, and a lease
 * whose bytes are replaced or dropped is told from where to where: held blocks are never changed in place. A request
 * for a lease that meets another lease waits and recalls under `orphan`, too.
 *
 *   A request for a lease also conflicts with every parked operation that overlaps it, whichever came first (each
 *   grant before it would cost the operation one more recall: I4), and with every earlier parked request (first come,
 *   first served).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lease/range.h"

enum lease_mode {
    LEASE_READ = 1,  /* shared */
    LEASE_WRITE = 2, /* exclusive */
};

enum lease_state {
    LEASE_GRANTING = 1,
    LEASE_ACTIVE,
    LEASE_RECALLED,
    LEASE_FENCING,
    LEASE_QUARANTINED,
};

/* What a local operation does to the bytes of its range; see the table above. */
enum lease_op {
    LEASE_OP_DROP = 1, /* truncate, punch, collapse, insert, unlink or rename over the last link */
    LEASE_OP_REPLACE,  /* write, writeback, zero range, destination of a copy or a clone, unshare */
    LEASE_OP_SHARE,    /* source of a clone */
};

enum lease_policy {
    LEASE_POLICY_RECALL = 1, /* a conflicting operation waits, bounded */
    LEASE_POLICY_BUSY,       /* it fails with EBUSY */
    LEASE_POLICY_ORPHAN,     /* it goes on; the file gets other blocks there, the lease keeps the old ones */
};

enum lease_end_reason {
    LEASE_END_RETURNED = 1,
    LEASE_END_RECALL_TIMEOUT, /* the holder did not answer its recall in time */
    LEASE_END_EXPIRED,
    LEASE_END_REVOKED, /* by an administrator */
    LEASE_END_SESSION, /* its session died or left */
    LEASE_END_ABORTED, /* the grant failed half-way */
};

struct lease_limits {
    uint64_t lease_time_ns;     /* from grant or renewal to expiry */
    uint64_t courtesy_ns;       /* how long an expired lease lives on, as long as nobody conflicts with it */
    uint64_t recall_timeout_ns; /* from recall to revocation */
    uint64_t fence_bound_ns;    /* a fence that takes longer than this has overrun */
    size_t max_leases;          /* in the table */
    size_t max_session_leases;
    size_t max_owner_leases;  /* of all sessions of one user; 0: no limit, here and below */
    uint64_t max_owner_bytes; /* likewise: of the ranges of their leases */
    uint64_t max_session_bytes;
    uint64_t max_bytes; /* in the table: more, and leases of others are recalled, those renewed least recently first */
    enum lease_policy policy;
};

struct lease_table;
struct lease_waiter;

/* What the table tells the control service. Copied by post(); no pointer in it outlives the call. */
enum lease_event_kind {
    LEASE_EVENT_RECALL = 1,       /* tell the holder; deadline_ns is set */
    LEASE_EVENT_RECALL_CANCELLED, /* tell the holder */
    LEASE_EVENT_ORPHANED,         /* tell the holder: lease_info.orphaned has grown */
    LEASE_EVENT_FENCE,            /* run gate and fence, then call lease_fenced(); reason and at_leisure are set */
    LEASE_EVENT_DEADLINE,         /* lease_next_deadline() may have come nearer */
};

struct lease_event {
    enum lease_event_kind kind;
    enum lease_end_reason reason;
    bool at_leisure; /* its holder gave it back, and nobody had asked for that */
    uint64_t lease_id, session_id, inode;
    uint32_t sequence;
    enum lease_mode mode;
    struct lease_range range; /* of a recall: what is wanted; else the lease's */
    uint64_t deadline_ns;
    void *exposure; /* what lease_commit() stored */
};

struct lease_events {
    /* Called with the table's lock held, in order: must only enqueue. */
    void (*post)(void *ctx, const struct lease_event *event);
    void *ctx;
};

/*
 * A parked operation or lease request. Embedded in the caller's request object, zeroed before first use but for
 * `resume` and `process`, and owned by the caller. Protocol:
 *   - lease_op_begin() or lease_request() returned -EINPROGRESS: the waiter is parked; resume will be called exactly
 *     once (unless lease_waiter_cancel() returns true), with the table's lock held: it must only enqueue.
 *   - after resume, call the same function again with the same waiter: 0, an error, or parked once more.
 *   - a waiter that was ever parked stays registered (so that no lease is granted over its range) until
 *     lease_op_end() or, for a lease request, until the grant or an error.
 */
#define LEASE_WAITER_PLACES 3

/* Where a waiter stands in the queue of one file. The table's own, guarded by its lock. */
struct lease_place {
    struct lease_place *next, **prev;
    struct lease_waiter *waiter;
    struct lease_inode *inode_entry; /* NULL: free */
    struct lease_range range;
    enum lease_op op; /* 0: a request for a lease */
    enum lease_policy policy;
    bool parked; /* else it only keeps others from being granted what the operation has waited for already */
};

struct lease_waiter {
    void (*resume)(struct lease_waiter *waiter);
    int process; /* which asks, as lease_request.process has it; 0: unknown */

    /* The table's own, guarded by its lock. */
    struct lease_place places[LEASE_WAITER_PLACES]; /* an operation may ask for several ranges, of two files */
    enum lease_mode mode;                           /* of a lease request */
    struct lease_waiter *space_next, **space_prev;  /* of those who wait for space; space_prev NULL: not among them */
    uint64_t space_until_ns;                        /* so long at most; 0: it never did */
    uint64_t space_expected_until_ns;               /* of that, for what is expected; 0: it never did */
    uint64_t space_wakes_ns;                        /* the end of this wait */
    bool cancelled;
    unsigned turn;   /* which place is given up when all are taken */
    uint64_t ticket; /* arrival order; 0: never parked */
};

int lease_table_new(const struct lease_limits *limits, const struct lease_events *events,
                    struct lease_table **ret_table);
void lease_table_free(struct lease_table *table); /* NULL is allowed; nothing may be parked */

/* ---- the front door: called by fused/ with the inode's lock held, for inodes that have (or may have) leases ---- */

/* May the operation change these bytes now? Does not block.
 * 0: go, now, under the same inode lock. (If the waiter was parked before, lease_op_end() follows the operation.)
 * -EINPROGRESS: parked; conflicting leases have been recalled. Drop the inode lock and give the thread back.
 * -EBUSY: policy `busy`. -EDEADLK: the process that asks holds the lease that it would wait for; it is not recalled.
 * -EAGAIN: `waiter` is NULL and the operation would have to park (recalls have been sent).
 * -ECANCELED: abandoned. After -EINPROGRESS another thread may be running with the waiter already: the caller does not
 * touch it, nor what embeds it. */
int lease_op_begin(struct lease_table *table, uint64_t inode, struct lease_range range, enum lease_op op,
                   uint64_t now_ns, struct lease_waiter *waiter);
/* The same for a file with a policy of its own; 0: the table's. */
int lease_op_begin_under(struct lease_table *table, uint64_t inode, struct lease_range range, enum lease_op op,
                         enum lease_policy policy, uint64_t now_ns, struct lease_waiter *waiter);
void lease_op_end(struct lease_table *table, struct lease_waiter *waiter); /* no-op if it was never parked */

/* Interrupted: takes a parked waiter out. true: it was parked, resume will not be called, the caller answers EINTR;
 * recalls that only it waited for are cancelled and those leases live on. false: it is being resumed or was never
 * parked; the caller lets the resumed operation run. */
bool lease_waiter_cancel(struct lease_table *table, struct lease_waiter *waiter, uint64_t now_ns);

/* For an operation that found no space: blocks of leases that have ended are free after their fence. `mark` is what
 * lease_space_mark() said before the operation looked for space. `expect_ns`: so long some may come that no fence gives
 * (lease_space_came()); 0: none is expected.
 * 0: some has come since: try again. -EINPROGRESS: parked as by lease_op_begin(), until some comes, over all tries of
 * this waiter for expect_ns at most, or while fences run for lease_limits.fence_bound_ns. -ENOSPC: no fence is running
 * and nothing expected, its time is over, or `waiter` is NULL. -ECANCELED: abandoned. */
uint64_t lease_space_mark(struct lease_table *table); /* takes no lock */
int lease_space_wait(struct lease_table *table, uint64_t mark, uint64_t expect_ns, uint64_t now_ns,
                     struct lease_waiter *waiter);

/* Blocks have come back, by no fence. Takes no lock where nobody waits for them; resumes who does. */
void lease_space_came(struct lease_table *table);

/* Whoever it was for is gone. Parked: resume is called now. From here on lease_op_begin() and lease_request() do not
 * park it, but return -ECANCELED. Thread-safe as long as the waiter exists. */
void lease_waiter_abandon(struct lease_table *table, struct lease_waiter *waiter);

/* ---- leases: called by the control service ---- */

struct lease_request {
    uint64_t session_id;
    uint32_t owner; /* the user whose limits it counts against */
    int process;    /* of the holder; 0: unknown */
    uint64_t inode;
    struct lease_range range; /* whole blocks, not empty */
    enum lease_mode mode;
    enum lease_policy file_policy; /* 0: the table's */
    enum lease_policy policy;      /* the lease's own wish; 0: none */
    bool wait; /* recall conflicting leases and park; else -EBUSY at once without recalling anybody */
};

/* Begins a grant: 0 and *ret_lease_id in state GRANTING (the caller then holds and exposes, and ends with
 * lease_commit() or lease_abort()). -EINPROGRESS: parked. -EBUSY: conflict and policy `busy` or !wait.
 * -EAGAIN: a recall is pending (I10) and !wait. -EMFILE, -EDQUOT, -ENFILE: limit of the session, of
 * the owner, of the table (with `wait`, leases that were renewed least recently have been recalled to make room).
 * -EINVAL. -ECANCELED: the waiter was abandoned. */
int lease_request(struct lease_table *table, const struct lease_request *request, uint64_t now_ns,
                  struct lease_waiter *waiter, uint64_t *ret_lease_id);

struct lease_info {
    uint64_t lease_id, session_id, inode;
    struct lease_range range;
    enum lease_mode mode;
    enum lease_state state;
    uint32_t sequence; /* starts at 1, grows with each change of the lease that the holder is told of */
    uint64_t granted_at_ns, expires_at_ns;
    bool courtesy;               /* past its expiry, and not ended yet */
    bool cut;                    /* GRANTING: being cut, and soon ACTIVE again or gone */
    bool lost;                   /* a piece of a cut that will not be exposed again: no operation waits for it */
    uint64_t recall_deadline_ns; /* 0: none */
    struct lease_range wanted;   /* recalled: from the first to the last byte that somebody waits for */
    enum lease_policy policy;    /* 0: the file's */
    struct lease_range orphaned; /* from the first to the last byte that the file has elsewhere; empty: none */
    void *exposure;
};

/* GRANTING -> ACTIVE; stores `exposure` for the FENCE event; expiry starts. If a conflict arose meanwhile it is
 * recalled at once. -ESTALE: the session ended or the lease was revoked meanwhile: the caller undoes what it did and
 * calls lease_abort(). */
int lease_commit(struct lease_table *table, uint64_t lease_id, uint64_t now_ns, void *exposure,
                 struct lease_info *ret_info);
void lease_abort(struct lease_table *table, uint64_t lease_id, uint64_t now_ns);

/* The holder renews, or gives back. session_id must be the lease's: -ENOENT for others' leases and unknown ones.
 * lease_renew: -ESTALE when it is past ACTIVE and RECALLED. A recalled lease's expiry grows, its deadline does not.
 * lease_return: -> FENCING. -EALREADY: fencing already (the caller may wait for the same end).
 * `sequence` 0 skips the check; one newer than the lease's is -EINVAL, an older one is accepted (crossing messages). */
int lease_renew(struct lease_table *table, uint64_t session_id, uint64_t lease_id, uint64_t now_ns,
                struct lease_info *ret_info);
int lease_return(struct lease_table *table, uint64_t session_id, uint64_t lease_id, uint32_t sequence, uint64_t now_ns);

/* The holder has no use for a lease now, and keeps it for a while, so that taking up the same one again costs no
 * registration. It is renewed, counted and recalled like any other, but is in nobody's way: an operation under policy
 * BUSY recalls it, and so does one of the holder's own process, which would be told EDEADLK otherwise (whoever keeps
 * a lease idle gives it back when it is recalled, without anybody's help). -ENOENT, or -ESTALE unless ACTIVE.
 *
 * lease_take_up: it is in use again if it is just what a request asks for (file, range, mode, policy; nothing of it
 * orphaned) and nobody wants it. -ENOENT, -ESTALE: ask for a new one. */
int lease_keep_idle(struct lease_table *table, uint64_t session_id, uint64_t lease_id, uint64_t now_ns,
                    struct lease_info *ret_info);
int lease_take_up(struct lease_table *table, const struct lease_request *wanted, uint64_t lease_id, uint64_t now_ns,
                  struct lease_info *ret_info);

/* The holder gives back a part, or its right to write, and keeps the rest. One lease becomes one on the first piece
 * that is left (the lease itself, with a new sequence number), perhaps one on the second (a new one), both GRANTING
 * until they are exposed anew and committed, or aborted; and a remnant: all that the old access reached, FENCING. In
 * between nobody else is granted anything of it. A kept piece that is still wanted is recalled again when it is
 * committed; its deadline goes on. If that passes first, it is lost: no operation waits for it any more, and its commit
 * fails. */
struct lease_cut {
    struct lease_range part; /* to be given back: whole blocks in the lease's range; empty: nothing */
    enum lease_mode mode;    /* of what is kept: the lease's, or LEASE_READ */
    void *exposure;          /* of the FENCE event, which has the remnant's id; it may come before the call returns */
    size_t n_kept;           /* answer, there before the event: */
    uint64_t kept[2];        /* leases */
};

/* -ENOENT, -EALREADY (it is ending), -EINPROGRESS (an earlier cut is not through), -EMFILE (two pieces are one lease
 * too many), -ENOMEM: all is as it was. -EINVAL: likewise; a sequence that the lease never had, nothing or all of it to
 * be given back, or more rights than before. */
int lease_cut(struct lease_table *table, uint64_t session_id, uint64_t lease_id, uint32_t sequence, uint64_t now_ns,
              struct lease_cut *cut);

/* Recalls leases of other sessions, least recently renewed first, until those on their way back add up to `bytes`. */
void lease_make_room(struct lease_table *table, uint64_t session_id, uint64_t bytes, uint64_t now_ns);

/* By an administrator: -> FENCING at once. -ENOENT, -EALREADY. */
int lease_revoke(struct lease_table *table, uint64_t lease_id, uint64_t now_ns);

/* The session died or left: all its leases -> FENCING. Its parked requests are the caller's to abandon. */
void lease_session_end(struct lease_table *table, uint64_t session_id, uint64_t now_ns);

/* The fence ended: proof (lease gone, waiters resumed), or no proof (QUARANTINED, detached: conflicts with nothing,
 * waiters resumed; the filesystem's hold protects the blocks for ever). */
void lease_fenced(struct lease_table *table, uint64_t lease_id, bool proven, uint64_t now_ns);

/* Deadlines, expiries, fence overruns. Call at or after lease_next_deadline(); UINT64_MAX: none. */
void lease_tick(struct lease_table *table, uint64_t now_ns);
uint64_t lease_next_deadline(struct lease_table *table);

/* ---- looking ---- */

int lease_get(struct lease_table *table, uint64_t lease_id, struct lease_info *ret_info); /* -ENOENT */

/* Copies at most max leases (of one inode; inode 0: of all) in order of id; returns how many there are. */
size_t lease_list(struct lease_table *table, uint64_t inode, struct lease_info *infos, size_t max);

struct lease_counts {
    size_t leases, granting, active, recalled, fencing, quarantined, waiters;
    uint64_t bytes;                                                                   /* of their ranges */
    uint64_t granted, returned, recalls, recall_timeouts, expired, revoked, orphaned; /* since the start */
    uint64_t parts, downgraded;                                                       /* leases cut, likewise */
};
void lease_counts(struct lease_table *table, struct lease_counts *ret_counts);

/* Checks every invariant of the table; 0, or -EUCLEAN after describing the first violation on stderr. */
int lease_table_check(struct lease_table *table);

const char *lease_mode_name(enum lease_mode mode);
const char *lease_state_name(enum lease_state state);
const char *lease_policy_name(enum lease_policy policy);               /* NULL: no policy */
enum lease_policy lease_policy_named(const char *name, size_t length); /* 0: none is called so */
const char *lease_end_reason_name(enum lease_end_reason reason);

#endif
