/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_WORKQUEUE_H
#define LEASEFS_LEASE_WORKQUEUE_H

/* A fixed number of threads that run queued work in order of arrival. Work is embedded by the caller, so that
 * queueing never fails and may be done under any lock (the queue's own is a leaf). */

struct workqueue;

struct work {
    void (*run)(struct work *work); /* may free or queue the work again */
    struct work *next;              /* the queue's */
};

int workqueue_new(const char *name, int threads, struct workqueue **ret_queue); /* name: at most 15 characters */
void workqueue_push(struct workqueue *queue, struct work *work);
void workqueue_free(struct workqueue *queue); /* runs what is queued, then joins. NULL is allowed */

#endif
