/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/workqueue.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "lease/lock_order.h"
#include "lease/thread.h"

#define FREE_PATIENCE_S 5

struct workqueue {
    pthread_mutex_t lock;
    pthread_cond_t more, ended;
    const char *name;
    int max_threads;

    /* Guarded by lock. */
    struct work *first, **last;
    struct work *offered;
    bool nudged; /* it waits for a thread that is free */
    int n_queued, n_idle, n_threads, n_ended;
    bool ending;
    pthread_t threads[];
};

/* NULL: nothing is to be done. */
static struct work *take_locked(struct workqueue *queue, bool offered)
{
    struct work *work = queue->offered;

    if (work && (offered || queue->nudged || queue->ending)) {
        queue->offered = NULL;
        queue->nudged = false;
        return work;
    }
    work = queue->first;
    if (!work)
        return NULL;
    queue->first = work->next;
    if (!queue->first)
        queue->last = &queue->first;
    queue->n_queued--;
    return work;
}

/* NULL: the queue ends. */
static struct work *await_locked(struct workqueue *queue)
{
    struct work *work;

    queue->n_idle++;
    while (!(work = take_locked(queue, false)) && !queue->ending)
        pthread_cond_wait(&queue->more, &queue->lock);
    queue->n_idle--;
    return work;
}

static void *serve(void *arg)
{
    struct workqueue *queue = arg;
    struct work *work;

    pthread_mutex_lock(&queue->lock);
    work = await_locked(queue);
    while (work) {
        pthread_mutex_unlock(&queue->lock);
        work->run(work);
        pthread_mutex_lock(&queue->lock);
        work = take_locked(queue, true);
        if (!work)
            work = await_locked(queue);
    }
    queue->n_ended++;
    pthread_cond_broadcast(&queue->ended);
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}

static int start_thread_locked(struct workqueue *queue)
{
    int error = thread_start(queue->name, 0, serve, queue, &queue->threads[queue->n_threads]);

    queue->n_threads += !error;
    return error;
}

void cond_init_monotonic(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

int workqueue_new(const char *name, int threads, int max_threads, struct workqueue **ret_queue)
{
    struct workqueue *queue = calloc(1, sizeof(*queue) + (size_t)max_threads * sizeof(queue->threads[0]));
    int error = 0;

    if (!queue)
        return -ENOMEM;
    pthread_mutex_init(&queue->lock, NULL);
    lock_rank(&queue->lock, LOCK_WORKQUEUE, 0);
    pthread_cond_init(&queue->more, NULL);
    cond_init_monotonic(&queue->ended);
    queue->last = &queue->first;
    queue->name = name;
    queue->max_threads = max_threads;
    pthread_mutex_lock(&queue->lock);
    while (!error && queue->n_threads < threads)
        error = start_thread_locked(queue);
    pthread_mutex_unlock(&queue->lock);
    if (error) {
        workqueue_free(queue);
        return error;
    }
    *ret_queue = queue;
    return 0;
}

static void append_locked(struct workqueue *queue, struct work *work)
{
    work->next = NULL;
    *queue->last = work;
    queue->last = &work->next;
    queue->n_queued++;
}

void workqueue_push(struct workqueue *queue, struct work *work)
{
    pthread_mutex_lock(&queue->lock);
    append_locked(queue, work);
    pthread_cond_signal(&queue->more); /* with the lock, or the queue might be gone */
    /* On failure the work waits for one of those that are there. */
    if (queue->n_queued > queue->n_idle && queue->n_threads < queue->max_threads)
        start_thread_locked(queue);
    pthread_mutex_unlock(&queue->lock);
}

bool workqueue_push_if_idle(struct workqueue *queue, struct work *work)
{
    bool idle;

    pthread_mutex_lock(&queue->lock);
    idle = queue->n_idle > queue->n_queued;
    if (idle)
        append_locked(queue, work);
    pthread_mutex_unlock(&queue->lock);
    /* Who wakes shall not have to wait for the lock at once. The caller is one of the queue's, which is there as long.
     */
    if (idle)
        pthread_cond_signal(&queue->more);
    return idle;
}

bool workqueue_offer(struct workqueue *queue, struct work *work)
{
    bool fits;

    pthread_mutex_lock(&queue->lock);
    fits = !queue->offered && queue->n_idle > queue->n_queued;
    if (fits)
        queue->offered = work;
    pthread_mutex_unlock(&queue->lock);
    return fits;
}

void workqueue_nudge(struct workqueue *queue)
{
    pthread_mutex_lock(&queue->lock);
    if (queue->offered && !queue->nudged) {
        queue->nudged = true;
        pthread_cond_signal(&queue->more);
        if (queue->n_queued >= queue->n_idle && queue->n_threads < queue->max_threads)
            start_thread_locked(queue);
    }
    pthread_mutex_unlock(&queue->lock);
}

bool workqueue_is_empty(struct workqueue *queue)
{
    bool empty;

    pthread_mutex_lock(&queue->lock);
    empty = !queue->first;
    pthread_mutex_unlock(&queue->lock);
    return empty;
}

/* False: a thread is stuck in its work. */
static bool await_threads_locked(struct workqueue *queue)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += FREE_PATIENCE_S;
    while (queue->n_ended < queue->n_threads)
        if (pthread_cond_timedwait(&queue->ended, &queue->lock, &until) == ETIMEDOUT)
            return queue->n_ended == queue->n_threads;
    return true;
}

void workqueue_free(struct workqueue *queue)
{
    bool all_ended;

    if (!queue)
        return;
    pthread_mutex_lock(&queue->lock);
    queue->ending = true;
    pthread_cond_broadcast(&queue->more);
    all_ended = await_threads_locked(queue);
    pthread_mutex_unlock(&queue->lock);
    if (!all_ended)
        return;
    for (int i = 0; i < queue->n_threads; i++)
        pthread_join(queue->threads[i], NULL);
    pthread_cond_destroy(&queue->more);
    pthread_cond_destroy(&queue->ended);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}
