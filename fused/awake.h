/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_AWAKE_H
#define LEASEFS_FUSED_AWAKE_H

/*
 * Keeps a program and its server on one processor while requests come one after the other (fuse_ring.h).
 *
 * With the answer Linux wakes the program, and prefers a processor that is idle to the one on which both have been. In
 * a virtual machine the idle one has halted, and to start it takes longer than many requests. So as long as requests
 * come within AWAKE_NS of each other a thread of the lowest priority keeps it busy. It yields all the time; when others
 * want the processor for long, it gives up and does not try for some time.
 *
 * Only with two processors: with more, one thread would not do.
 */

#include <stddef.h>

#define AWAKE_NS 200000u

struct awake;

int awake_new(struct awake **ret_awake); /* NULL in it: not on this machine. -ENOMEM, -EAGAIN */
void awake_free(struct awake *awake);    /* NULL is allowed */

/* A request has come. Any thread; NULL is allowed. */
void awake_note(struct awake *awake);

#endif
