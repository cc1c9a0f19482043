/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_WORKQUEUE_H
#define LEASEFS_LEASE_WORKQUEUE_H

/* Threads that run queued work in order of arrival; more are started while all are busy, so that work that is stuck
 * holds up none that comes later. Work is embedded by the caller, so that queueing never fails and may be done under
 * any lock (the queue's own is a leaf). */

#include <pthread.h>
#include <stdbool.h>

struct workqueue;

struct work {
    void (*run)(struct work *work); /* may free or queue the work again */
    struct work *next;              /* the queue's */
};

/* name: at most 15 characters, a constant. threads: from the start, 1 or more. */
int workqueue_new(const char *name, int threads, int max_threads, struct workqueue **ret_queue);
void workqueue_push(struct workqueue *queue, struct work *work);

/* Only if a thread is free to begin it at once. The caller is a thread of the queue. */
bool workqueue_push_if_idle(struct workqueue *queue, struct work *work);

/* The same, but nobody is woken: the caller will be back soon, and then begins it, or any other thread that is done
 * with something before; or, from workqueue_nudge() on, one that is free. One work at a time is on offer: false, too,
 * while another is. */
bool workqueue_offer(struct workqueue *queue, struct work *work);

/* What is on offer is to be begun now. Any thread, under any lock. */
void workqueue_nudge(struct workqueue *queue);

/* True: nothing waits for a thread, so what begins now overtakes nothing. */
bool workqueue_is_empty(struct workqueue *queue);

/* Runs what is queued, then joins. A thread that is stuck for seconds keeps the queue's memory for ever, and whoever
 * pushed its work must be content with that. NULL is allowed. */
void workqueue_free(struct workqueue *queue);

/* A condition whose pthread_cond_timedwait() reckons in CLOCK_MONOTONIC: the wall clock may jump. */
void cond_init_monotonic(pthread_cond_t *cond);

#endif
