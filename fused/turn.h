/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_TURN_H
#define LEASEFS_FUSED_TURN_H

/*
 * Whose turn it is to read requests.
 *
 * Most requests take a few microseconds, waking a thread on another processor many times that. So one thread reads,
 * serves what is short by itself and reads on, while the others sleep here, not in the kernel, which would wake one for
 * each request. Who is about to take long, or to wait for a lock, first passes the turn to another.
 *
 * A reader that had a request a moment ago looks for the next one for a moment before it sleeps (TURN_WATCH_NS): then
 * the kernel has nobody to wake. It lets others have its processor meanwhile; when they take it for long, it gives
 * up and does not try for some time. Nor does it while requests are rarer than that.
 *
 * With many processors more than one thread may have a turn: another joins when requests do not stop coming, and leaves
 * when they do.
 */

#include <stddef.h>
#include <sys/types.h>

#define TURN_WATCH_NS 200000u

struct turn;

int turn_new(unsigned limit, struct turn **ret_turn); /* how many may read at a time. -ENOMEM */
void turn_free(struct turn *turn);                    /* no thread is in it any more. NULL is allowed */

/* More may. To be called before there are many requests. */
void turn_allow(struct turn *turn, unsigned limit);

/* Waits until it is this thread's turn, which it has from then on until it passes it. A cancellation point. */
void turn_take(struct turn *turn);

/* read(2) of one request. Waits until it is this thread's turn, which it has from then on until it passes it or reads
 * again; after an error it has none. `fd` should be the thread's own: it is made blocking and non-blocking as needed. A
 * cancellation point. */
ssize_t turn_read(struct turn *turn, int fd, void *buffer, size_t size);

/* The calling thread will be busy for long, or wait: another may read. Nothing, if it does not have the turn. Any locks
 * may be held. */
void turn_pass(void);

/* The same if otherwise requests would wait: before something that takes as long as waking a thread. */
void turn_pass_if_crowded(void);

#endif
