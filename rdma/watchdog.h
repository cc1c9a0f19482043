/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_WATCHDOG_H
#define LEASEFS_RDMA_WATCHDOG_H

/*
 * Calls that may block in the kernel for longer than anyone can wait, made by the thread that wants the result: waking
 * another one and being woken by it takes many times as long as a revocation. The price is that this thread may be
 * stuck. So what it would have gone on with must be able to go on elsewhere.
 *
 *      caller     arms, calls ......................... returns: disarmed, or -EINPROGRESS
 *      watchdog                    deadline: takes over
 *      helper                               successor: goes on without the result
 *
 * Arming costs a lock, and a system call when no deadline before this one is waited for already, nor has there been a
 * call in the last seconds. Thread-safe; its lock is a leaf.
 */

#include <stdint.h>

#include "rdma/helpers.h"

struct watchdog;

/* Successors run on `helpers`, which must outlive it. max_calls: at a time. */
int watchdog_new(struct helper_pool *helpers, unsigned max_calls, struct watchdog **ret_watchdog);

/* Waits for the calls that are under way. -ETIMEDOUT: one is still stuck, and whatever it uses stays in place until
 * another try succeeds. NULL is allowed. */
int watchdog_free(struct watchdog *watchdog, uint64_t deadline_ns);

/*
 * Runs call(arg) on this thread. On 0 it has returned before the watchdog saw the deadline (monotonic) pass, and
 * *ret_result is what it returned.
 * -EINPROGRESS: it has returned, but too late: the successor runs, or has run. Whatever that works on, exists no more
 * for this thread; what the call itself uses must be kept by a reference of its own.
 * -EAGAIN: not called, too many are under way.
 */
int watchdog_call(struct watchdog *watchdog, int (*call)(void *arg), void *arg, uint64_t deadline_ns,
                  struct helper_job *successor, int *ret_result);

#endif
