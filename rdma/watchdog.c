/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "lease/lock_order.h"
#include "rdma/sync.h"

#define NEVER UINT64_MAX

/* Setting the timer takes half as long as a gate does. So it goes on ringing as long as calls come, ahead of the first
 * deadline that may follow. */
#define AHEAD_NS  (250 * NS_PER_MS) /* less than any mechanism is allowed */
#define LINGER_NS (5 * NS_PER_S)

/* One call; lives on its thread's stack, which stays in place as long as the call does. */
struct watch {
    LIST_ENTRY(watch) link; /* unless taken over; these are guarded by watchdog->lock */
    uint64_t deadline_ns;
    struct helper_job *successor;
    bool taken_over;
};

struct watchdog {
    struct helper_pool *helpers;
    unsigned max_calls;
    int timer_fd;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t returned; /* no call is under way any more */

    /* Guarded by lock. */
    LIST_HEAD(, watch) watches;
    unsigned n_calls;     /* stuck ones included */
    uint64_t rings_at_ns; /* of the timer: not after the first deadline; often before, of a call that has returned */
    uint64_t last_call_ns;
    bool stopping;
};

static void set_timer_locked(struct watchdog *watchdog, uint64_t at_ns)
{
    struct itimerspec when = {0};

    watchdog->rings_at_ns = at_ns;
    if (at_ns != NEVER) {
        when.it_value.tv_sec = (time_t)(at_ns / NS_PER_S);
        when.it_value.tv_nsec = (long)(at_ns % NS_PER_S);
    }
    timerfd_settime(watchdog->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Takes the calls over whose deadlines have passed; returns their successors, and sets the timer to the next one. */
static struct helper_job *take_over_locked(struct watchdog *watchdog)
{
    struct helper_job *successors = NULL;
    uint64_t now = monotonic_ns(), next_ns = NEVER;
    struct watch *watch, *following;

    for (watch = LIST_FIRST(&watchdog->watches); watch; watch = following) {
        following = LIST_NEXT(watch, link);
        if (watch->deadline_ns > now) {
            if (watch->deadline_ns < next_ns)
                next_ns = watch->deadline_ns;
            continue;
        }
        LIST_REMOVE(watch, link);
        watch->taken_over = true;
        watch->successor->next = successors;
        successors = watch->successor;
    }
    if (now - watchdog->last_call_ns < LINGER_NS && next_ns > now + AHEAD_NS)
        next_ns = now + AHEAD_NS;
    set_timer_locked(watchdog, next_ns);
    return successors;
}

static void *watch_calls(void *arg)
{
    struct watchdog *watchdog = arg;
    struct helper_job *successors, *next;
    uint64_t rings;

    for (;;) {
        bool stopping;

        if (read(watchdog->timer_fd, &rings, sizeof(rings)) < 0 && errno != EINTR)
            fabric_log("the watchdog's timer cannot be read");
        pthread_mutex_lock(&watchdog->lock);
        stopping = watchdog->stopping;
        successors = take_over_locked(watchdog);
        pthread_mutex_unlock(&watchdog->lock);
        for (; successors; successors = next) {
            next = successors->next;
            helper_submit(watchdog->helpers, successors);
        }
        if (stopping)
            return NULL;
    }
}

int watchdog_new(struct helper_pool *helpers, unsigned max_calls, struct watchdog **ret_watchdog)
{
    struct watchdog *watchdog = calloc(1, sizeof(*watchdog));
    int r;

    if (!watchdog)
        return -ENOMEM;
    watchdog->helpers = helpers;
    watchdog->max_calls = max_calls;
    watchdog->rings_at_ns = NEVER;
    LIST_INIT(&watchdog->watches);
    watchdog->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (watchdog->timer_fd < 0) {
        r = -errno;
        goto undo_watchdog;
    }
    r = sync_cond_init(&watchdog->returned);
    if (r < 0)
        goto undo_timer;
    pthread_mutex_init(&watchdog->lock, NULL);
    lock_rank(&watchdog->lock, LOCK_WATCHDOG, 0);
    r = sync_thread_start("lfs-rdma-watch", watch_calls, watchdog, &watchdog->thread);
    if (r < 0)
        goto undo_lock;
    *ret_watchdog = watchdog;
    return 0;

undo_lock:
    pthread_mutex_destroy(&watchdog->lock);
    pthread_cond_destroy(&watchdog->returned);
undo_timer:
    close(watchdog->timer_fd);
undo_watchdog:
    free(watchdog);
    return r;
}

int watchdog_free(struct watchdog *watchdog, uint64_t deadline_ns)
{
    bool stuck, first;
    int r = 0;

    if (!watchdog)
        return 0;
    pthread_mutex_lock(&watchdog->lock);
    while (watchdog->n_calls && r != -ETIMEDOUT)
        r = sync_wait_until(&watchdog->returned, &watchdog->lock, deadline_ns);
    stuck = watchdog->n_calls > 0;
    first = !watchdog->stopping;
    watchdog->stopping = true;
    if (first)
        set_timer_locked(watchdog, monotonic_ns());
    pthread_mutex_unlock(&watchdog->lock);
    if (first)
        pthread_join(watchdog->thread, NULL);
    if (stuck)
        return -ETIMEDOUT;
    pthread_mutex_destroy(&watchdog->lock);
    pthread_cond_destroy(&watchdog->returned);
    close(watchdog->timer_fd);
    free(watchdog);
    return 0;
}

int watchdog_call(struct watchdog *watchdog, int (*call)(void *arg), void *arg, uint64_t deadline_ns,
                  struct helper_job *successor, int *ret_result)
{
    struct watch watch = {.deadline_ns = deadline_ns, .successor = successor};
    uint64_t now_ns = monotonic_ns();
    int result;

    pthread_mutex_lock(&watchdog->lock);
    if (watchdog->n_calls == watchdog->max_calls) {
        pthread_mutex_unlock(&watchdog->lock);
        return -EAGAIN;
    }
    watchdog->n_calls++;
    watchdog->last_call_ns = now_ns;
    LIST_INSERT_HEAD(&watchdog->watches, &watch, link);
    if (deadline_ns < watchdog->rings_at_ns)
        set_timer_locked(watchdog, deadline_ns);
    pthread_mutex_unlock(&watchdog->lock);

    result = call(arg);

    pthread_mutex_lock(&watchdog->lock);
    if (!watch.taken_over)
        LIST_REMOVE(&watch, link);
    if (--watchdog->n_calls == 0)
        pthread_cond_broadcast(&watchdog->returned);
    pthread_mutex_unlock(&watchdog->lock);
    if (watch.taken_over)
        return -EINPROGRESS;
    *ret_result = result;
    return 0;
}
