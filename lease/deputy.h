/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_DEPUTY_H
#define LEASEFS_LEASE_DEPUTY_H

/* Bounds how long what is on offer (workqueue_offer()) waits for a thread that promised to be back soon, and is stuck.
 * Its timer is set once for all offers of a while: to set it for each would cost those who wait for the thread's work.
 */

#include "lease/workqueue.h"

#define DEPUTY_PATIENCE_MS 10

struct deputy;

/* -EMFILE, -ENFILE, -ENOMEM, -EAGAIN. */
int deputy_new(struct workqueue *queue, struct deputy **ret_deputy);

/* Something is on offer: after DEPUTY_PATIENCE_MS at the latest the queue is nudged. Any thread, under any lock. */
void deputy_watch(struct deputy *deputy);

/* Before the queue's end. NULL is allowed. */
void deputy_free(struct deputy *deputy);

#endif
