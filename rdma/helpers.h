/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_HELPERS_H
#define LEASEFS_RDMA_HELPERS_H

/*
 * Threads for calls that may block in the kernel for longer than anyone can wait (deregistration, destroying a QP).
 * A helper that is stuck is simply not idle: the next call gets another. Thread-safe; its lock is a leaf.
 */

#include <stdint.h>

struct helper_pool;

/* Threads are started as they are needed, `max_threads` of them at most (1..64). */
int helper_pool_new(unsigned max_threads, struct helper_pool **ret_pool);

/* Runs what is queued and joins the threads. -ETIMEDOUT: a call is still stuck; the pool, and whatever that call
 * uses, stays in place for ever. NULL is allowed. */
int helper_pool_free(struct helper_pool *pool, uint64_t deadline_ns);

/*
 * Runs call(arg) on a helper and waits for it. On 0 it has returned, and *ret_result is what it returned.
 * -ETIMEDOUT: the deadline (monotonic) has passed and it still runs. Whatever it returns then is lost, so `arg` must
 * live until it does, by a reference of its own.
 * -EAGAIN, -ENOMEM: not started, and never will be.
 */
int helper_call(struct helper_pool *pool, int (*call)(void *arg), void *arg, uint64_t deadline_ns, int *ret_result);

/* A call that nobody waits for. The job is the caller's, and is not touched once run() has been entered. */
struct helper_job {
    void (*run)(struct helper_job *job);
    struct helper_job *next;
};

/* Never fails and never blocks: it waits for a helper in a queue when all are busy. */
void helper_submit(struct helper_pool *pool, struct helper_job *job);

#endif
