/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/awake.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lease/lock_order.h"

#define OTHERS_NS 300000u    /* who yields for longer has a processor that others want */
#define LOADED_NS 100000000u /* for so long they are taken to want it */

struct awake {
    pthread_t thread;
    _Atomic uint64_t last_ns; /* when a request came */
    _Atomic uint64_t loaded_until_ns;
    _Atomic bool asleep;
    pthread_mutex_t lock; /* guards `stop` */
    pthread_cond_t wanted;
    bool stop;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool is_wanted(struct awake *awake, uint64_t now)
{
    uint64_t last = atomic_load_explicit(&awake->last_ns, memory_order_relaxed);

    return (now < last || now - last < AWAKE_NS) &&
           now >= atomic_load_explicit(&awake->loaded_until_ns, memory_order_relaxed);
}

void awake_note(struct awake *awake)
{
    uint64_t now, last;

    if (!awake)
        return;
    now = now_ns();
    last = atomic_exchange_explicit(&awake->last_ns, now, memory_order_relaxed);
    if (now - last >= AWAKE_NS || !atomic_load_explicit(&awake->asleep, memory_order_relaxed) || !is_wanted(awake, now))
        return;
    pthread_mutex_lock(&awake->lock);
    pthread_cond_signal(&awake->wanted);
    pthread_mutex_unlock(&awake->lock);
}

static bool sleep_until_wanted(struct awake *awake)
{
    bool stop;

    pthread_mutex_lock(&awake->lock);
    atomic_store(&awake->asleep, true);
    while (!awake->stop && !is_wanted(awake, now_ns()))
        pthread_cond_wait(&awake->wanted, &awake->lock);
    atomic_store(&awake->asleep, false);
    stop = awake->stop;
    pthread_mutex_unlock(&awake->lock);
    return !stop;
}

static void *awake_thread(void *arg)
{
    struct awake *awake = arg;
    uint64_t before, now;

    pthread_setname_np(pthread_self(), "leasefs-awake");
    setpriority(PRIO_PROCESS, (id_t)gettid(), 19); /* on Linux, of this thread alone */
    while (sleep_until_wanted(awake)) {
        now = now_ns();
        while (is_wanted(awake, now)) {
            before = now;
            sched_yield();
            now = now_ns();
            if (now - before > OTHERS_NS)
                atomic_store_explicit(&awake->loaded_until_ns, now + LOADED_NS, memory_order_relaxed);
        }
    }
    return NULL;
}

int awake_new(struct awake **ret_awake)
{
    struct awake *awake;
    int err;

    *ret_awake = NULL;
    if (sysconf(_SC_NPROCESSORS_ONLN) != 2)
        return 0;
    awake = calloc(1, sizeof(*awake));
    if (!awake)
        return -ENOMEM;
    pthread_mutex_init(&awake->lock, NULL);
    lock_rank(&awake->lock, LOCK_AWAKE, 0);
    pthread_cond_init(&awake->wanted, NULL);
    err = -pthread_create(&awake->thread, NULL, awake_thread, awake);
    if (err) {
        pthread_cond_destroy(&awake->wanted);
        pthread_mutex_destroy(&awake->lock);
        free(awake);
        return err;
    }
    *ret_awake = awake;
    return 0;
}

void awake_free(struct awake *awake)
{
    if (!awake)
        return;
    pthread_mutex_lock(&awake->lock);
    awake->stop = true;
    pthread_cond_signal(&awake->wanted);
    pthread_mutex_unlock(&awake->lock);
    pthread_join(awake->thread, NULL);
    pthread_cond_destroy(&awake->wanted);
    pthread_mutex_destroy(&awake->lock);
    free(awake);
}
