/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_FAULTS_H
#define LEASEFS_RDMA_FAULTS_H

/*
 * A device that fails, for tests only: without LEASEFS_FAULTS nothing of it is compiled. A list names places and what
 * goes wrong there, several at once: by faults_set(), or in the environment. There LEASEFS_FAULTS_AT_START counts from
 * the start, so that the self-test meets it, and LEASEFS_FAULTS takes its place when the self-test is over.
 *
 *   dereg=stuck,rereg=fail,qp=slow:300
 *
 *   fail     the call is not made, and fails with EIO
 *   early    the call is not made, and success is reported
 *   slow:MS  the call is made, MS milliseconds late
 *   stuck    the call does not come back until the list changes; then it is made
 *
 * Places: rereg, mw, odp, dereg, qp, punch; rights (a rereg to no rights).
 */

#include <stdbool.h>

#ifdef LEASEFS_FAULTS

/* True: the call is not to be made, its result is *ret_result. May block. Called with no lock held. */
bool fault_inject(const char *place, int *ret_result);

/* Replaces the list; "" ends all faults. -EINVAL: not such a list. */
int faults_set(const char *list);
void faults_after_start(void);

#else

static inline void faults_after_start(void)
{
}

static inline bool fault_inject(const char *place, int *ret_result)
{
    (void)place;
    (void)ret_result;
    return false;
}

#endif

#endif
