/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_CALLER_H
#define LEASEFS_FUSED_CALLER_H

/*
 * Whoever has made a request.
 *
 * Linux sends an INTERRUPT for a request that is with us when a signal comes. By io_uring (fuse_ring.h), one that comes
 * while the request is on its way to us is forgotten (seen up to 6.18: fuse_uring_prepare_send() does not look at
 * FR_INTERRUPTED). The caller has it pending still.
 */

#include <stdbool.h>
#include <sys/types.h>

/* Has the thread a signal pending that it does not block? false: it is not known here, as those of other PID
 * namespaces and the kernel's own (0). */
bool caller_is_interrupted(pid_t thread);

#endif
