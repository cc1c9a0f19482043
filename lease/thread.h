/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_THREAD_H
#define LEASEFS_LEASE_THREAD_H

/* Threads that take no signals: those are the FUSE session's business, or the program's that uses libleasefs. */

#include <pthread.h>
#include <signal.h>
#include <stddef.h>

/* Joinable. name: at most 15 characters. stack_size: 0 for the usual one. 0 or a negative errno. */
static inline int thread_start(const char *name, size_t stack_size, void *(*run)(void *arg), void *arg,
                               pthread_t *ret_thread)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int error = pthread_attr_init(&attr);

    if (error)
        return -error;
    if (stack_size)
        error = pthread_attr_setstacksize(&attr, stack_size);
    sigfillset(&all); /* in the thread from its first instruction on */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!error)
        error = pthread_create(ret_thread, &attr, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (!error)
        pthread_setname_np(*ret_thread, name);
    return -error;
}

#endif
