/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/sync.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "lease/thread.h"

#define THREAD_STACK_SIZE (512u * 1024)

uint64_t monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int sync_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int err = pthread_condattr_init(&attr);

    if (err)
        return -err;
    err = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (!err)
        err = pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
    return -err;
}

int sync_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t deadline_ns)
{
    struct timespec deadline = {
        .tv_sec = (time_t)(deadline_ns / NS_PER_S),
        .tv_nsec = (long)(deadline_ns % NS_PER_S),
    };

    return -pthread_cond_timedwait(cond, mutex, &deadline);
}

int sync_thread_start(const char *name, void *(*run)(void *arg), void *arg, pthread_t *ret_thread)
{
    return thread_start(name, THREAD_STACK_SIZE, run, arg, ret_thread);
}

void fabric_log(const char *format, ...)
{
    char line[512];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    fprintf(stderr, "leasefs: rdma: %s\n", line);
}

int fabric_error(char **ret_error, int r, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (vasprintf(ret_error, format, args) < 0)
        *ret_error = NULL;
    va_end(args);
    return r;
}
