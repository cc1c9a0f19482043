/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_SYNC_H
#define LEASEFS_RDMA_SYNC_H

/* Time, waiting and threads as the rest of rdma/ uses them, and its one way to speak. */

#include <pthread.h>
#include <stdint.h>

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

uint64_t monotonic_ns(void);

/* A condition whose timed waits count on the monotonic clock. */
int sync_cond_init(pthread_cond_t *cond);

/* 0, or -ETIMEDOUT once the deadline (monotonic) has passed. Wakes up early like any condition wait. */
int sync_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t deadline_ns);

/* A joinable thread that takes no signals: they belong to the daemon's main thread. */
int sync_thread_start(const char *name, void *(*run)(void *arg), void *arg, pthread_t *ret_thread);

/* One line on stderr, which is the journal under systemd. */
void fabric_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Formats a sentence into *ret_error (NULL when there is no memory) and returns r. */
int fabric_error(char **ret_error, int r, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
