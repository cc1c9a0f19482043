/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TEST_STUCK_THREADS_H
#define LEASEFS_TEST_STUCK_THREADS_H

/* Threads of the service that are kept until the test lets them go. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int entered; /* guarded by lock, as is the next */
    bool go;
    atomic_int left;
} stuck = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Of such a thread. */
static inline void stay(void)
{
    pthread_mutex_lock(&stuck.lock);
    stuck.entered++;
    while (!stuck.go)
        pthread_cond_wait(&stuck.changed, &stuck.lock);
    pthread_mutex_unlock(&stuck.lock);
    stuck.left++;
}

static inline int stuck_now(void)
{
    int n;

    pthread_mutex_lock(&stuck.lock);
    n = stuck.entered - stuck.left;
    pthread_mutex_unlock(&stuck.lock);
    return n;
}

static inline void let_go(void)
{
    pthread_mutex_lock(&stuck.lock);
    stuck.go = true;
    pthread_cond_broadcast(&stuck.changed);
    pthread_mutex_unlock(&stuck.lock);
}

#endif
