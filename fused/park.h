/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_PARK_H
#define LEASEFS_FUSED_PARK_H

/*
 * Where requests wait for leases, holding no thread.
 *
 * A request that met a lease (-EINPROGRESS) is an object here, embedding the lease table's waiter. What wakes it:
 *   - the lease table's resume callback (the lease ended, its deadline passed): run again;
 *   - park_interrupt() (Ctrl-C): taken out of the lease table, finished with -EINTR, unless it is being resumed
 *     already: then it runs, and is interrupted only should it have to wait once more;
 *   - park_stop(): as an interrupt, with -ENOTCONN.
 * All three only put it on a queue; PARK_THREADS threads of the park's own do the work. A request is on the queue at
 * most once and worked on by one thread at a time, so run() and finish() of one request never overlap.
 *
 *            park_begin
 *                |          resumed, interrupted
 *                v        <----------------------
 *   RUNNING (run() again)                        IDLE  (no thread; the lease table knows the waiter)
 *       |        |        ---------------------->   |
 *       |        |           -EINPROGRESS           | resumed, interrupted
 *       |        +----<---- a park thread --- QUEUED <
 *       v
 *    finish(result)
 *
 * Locks: the park's lock is a leaf; it is taken with the lease table's lock held (resume) or a FUSE request's
 * (interrupt), and nothing is called while it is held.
 */

#include <stdbool.h>
#include <sys/queue.h>

#include "lease/lease_table.h"

#define PARK_THREADS 2

struct park;
struct parked;

struct parked_ops {
    /* The operation, with &parked->waiter. -EINPROGRESS: parked (again). */
    int64_t (*run)(struct parked *parked);
    /* It was parked for the first time and will outlive the caller's buffers: copies what it needs of them, and from
     * here on may be interrupted. 0, or -ENOMEM to finish with. */
    int (*keep)(struct parked *parked);
    /* Called once, on any thread, when the waiter is out of the lease table: answers the request and frees it. */
    void (*finish)(struct parked *parked, int64_t result);
};

/* Embedded in the request. Zeroed, then park_init(). */
struct parked {
    struct lease_waiter waiter;
    const struct parked_ops *ops;

    /* The park's own, guarded by its lock. */
    struct park *park;
    bool known; /* in the park's list */
    TAILQ_ENTRY(parked) queue_entry;
    LIST_ENTRY(parked) all_entry;
    enum { PARKED_RUNNING, PARKED_IDLE, PARKED_QUEUED } state;
    bool resumed;
    int cancel; /* -errno to finish with, when it has to wait; 0: none */

    int unkept; /* what keep() said; the worker's own */
};

int park_new(struct park **ret_park);

/* Ends the threads, once everything that was begun is finished. No park_begin() any more. NULL is allowed. */
void park_free(struct park *park);

/* Before the first park_begin(). The table outlives the park's last request. */
void park_set_lease_table(struct park *park, struct lease_table *table);

void park_init(struct park *park, struct parked *parked, const struct parked_ops *ops);

/* Runs the request on the caller's thread; it is finished or parked on return, and belongs to the park in any case.
 * A request that need not wait costs the park nothing, not even a lock. */
void park_begin(struct parked *parked);

/* Any time between keep() and finish(). Only enqueues. */
void park_interrupt(struct parked *parked);

/* Finishes everything that waits, and returns when nothing is left; from now on nothing waits. */
void park_stop(struct park *park);

#endif
