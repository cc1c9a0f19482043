/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/park.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#include "fused/fs_front_door.h"
#include "lease/lock_order.h"
#include "lease/thread.h"

struct park {
    struct lease_table *table;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;  /* the queue has something, or the threads are to end */
    pthread_cond_t empty;
    TAILQ_HEAD(, parked) queue;
    LIST_HEAD(, parked) all;
    size_t n_unfinished; /* in `all`, or in their finish() */
    bool stopping, ending;
    size_t n_threads;
    pthread_t threads[PARK_THREADS];
};

static void wake_locked(struct parked *parked)
{
    struct park *park = parked->park;

    if (parked->state != PARKED_IDLE)
        return;
    parked->state = PARKED_QUEUED;
    TAILQ_INSERT_TAIL(&park->queue, parked, queue_entry);
    pthread_cond_signal(&park->work);
}

/* With the lease table's lock held. */
static void resume(struct lease_waiter *waiter)
{
    struct parked *parked = (struct parked *)((char *)waiter - offsetof(struct parked, waiter));
    struct park *park = parked->park;

    pthread_mutex_lock(&park->lock);
    parked->resumed = true;
    wake_locked(parked);
    pthread_mutex_unlock(&park->lock);
}

static void cancel_locked(struct parked *parked, int err)
{
    if (!parked->cancel)
        parked->cancel = err;
    wake_locked(parked);
}

void park_interrupt(struct parked *parked)
{
    struct park *park = parked->park;

    pthread_mutex_lock(&park->lock);
    cancel_locked(parked, -EINTR);
    pthread_mutex_unlock(&park->lock);
}

static void finish(struct parked *parked, int64_t result)
{
    struct park *park = parked->park;

    if (!parked->known) {
        parked->ops->finish(parked, result);
        return;
    }
    lease_op_end(park->table, &parked->waiter);
    pthread_mutex_lock(&park->lock);
    LIST_REMOVE(parked, all_entry);
    pthread_mutex_unlock(&park->lock);
    parked->ops->finish(parked, result);

    pthread_mutex_lock(&park->lock);
    if (--park->n_unfinished == 0)
        pthread_cond_broadcast(&park->empty);
    pthread_mutex_unlock(&park->lock);
}

/* What to do next with a request that had to wait. */
enum next { NEXT_RUN, NEXT_CANCEL, NEXT_LEAVE };

static enum next next_step(struct parked *parked)
{
    struct park *park = parked->park;
    enum next next;

    pthread_mutex_lock(&park->lock);
    if (parked->resumed) {
        parked->resumed = false;
        next = NEXT_RUN;
    } else if (parked->cancel) {
        next = NEXT_CANCEL;
    } else {
        parked->state = PARKED_IDLE;
        next = NEXT_LEAVE;
    }
    pthread_mutex_unlock(&park->lock);
    return next;
}

/* The lease table says that the request is being resumed, so the call comes, or has come. */
static void leave_to_resume(struct parked *parked)
{
    struct park *park = parked->park;

    pthread_mutex_lock(&park->lock);
    parked->state = PARKED_IDLE;
    if (parked->resumed)
        wake_locked(parked);
    pthread_mutex_unlock(&park->lock);
}

/* Works on a request that is parked in the lease table, or was. After NEXT_LEAVE another thread may have it. */
static void work_on(struct parked *parked)
{
    int64_t result;

    for (;;) {
        switch (next_step(parked)) {
        case NEXT_RUN:
            result = parked->unkept ? parked->unkept : parked->ops->run(parked);
            if (result != -EINPROGRESS) {
                finish(parked, result);
                return;
            }
            break;
        case NEXT_CANCEL:
            if (lease_waiter_cancel(parked->park->table, &parked->waiter, fs_monotonic_ns()))
                finish(parked, parked->cancel);
            else
                leave_to_resume(parked);
            return;
        case NEXT_LEAVE:
            return;
        }
    }
}

static void *park_thread(void *arg)
{
    struct park *park = arg;

    pthread_mutex_lock(&park->lock);
    for (;;) {
        struct parked *parked = TAILQ_FIRST(&park->queue);

        if (!parked) {
            if (park->ending)
                break;
            pthread_cond_wait(&park->work, &park->lock);
            continue;
        }
        TAILQ_REMOVE(&park->queue, parked, queue_entry);
        parked->state = PARKED_RUNNING;
        pthread_mutex_unlock(&park->lock);
        work_on(parked);
        pthread_mutex_lock(&park->lock);
    }
    pthread_mutex_unlock(&park->lock);
    return NULL;
}

void park_init(struct park *park, struct parked *parked, const struct parked_ops *ops)
{
    parked->waiter.resume = resume;
    parked->ops = ops;
    parked->park = park;
    parked->state = PARKED_RUNNING;
}

/* Parked for the first time. It may have been resumed already, but nobody works on it: it counts as running. */
static void take_in(struct parked *parked)
{
    struct park *park = parked->park;
    int err;

    pthread_mutex_lock(&park->lock);
    parked->known = true;
    LIST_INSERT_HEAD(&park->all, parked, all_entry);
    park->n_unfinished++;
    if (park->stopping)
        cancel_locked(parked, -ENOTCONN);
    pthread_mutex_unlock(&park->lock);
    err = parked->ops->keep(parked);
    if (!err)
        return;
    parked->unkept = err; /* no other thread looks before this one lets go */
    pthread_mutex_lock(&park->lock);
    cancel_locked(parked, err);
    pthread_mutex_unlock(&park->lock);
}

void park_begin(struct parked *parked)
{
    int64_t result = parked->ops->run(parked);

    if (result == -EINPROGRESS) {
        take_in(parked);
        work_on(parked);
    } else {
        finish(parked, result);
    }
}

static void end_threads(struct park *park)
{
    pthread_mutex_lock(&park->lock);
    park->ending = true;
    pthread_cond_broadcast(&park->work);
    pthread_mutex_unlock(&park->lock);
    for (size_t i = 0; i < park->n_threads; i++)
        pthread_join(park->threads[i], NULL);
    park->n_threads = 0;
}

int park_new(struct park **ret_park)
{
    struct park *park = calloc(1, sizeof(*park));
    int err = 0;

    if (!park)
        return -ENOMEM;
    pthread_mutex_init(&park->lock, NULL);
    lock_rank(&park->lock, LOCK_PARK, 0);
    pthread_cond_init(&park->work, NULL);
    pthread_cond_init(&park->empty, NULL);
    TAILQ_INIT(&park->queue);
    LIST_INIT(&park->all);
    while (!err && park->n_threads < PARK_THREADS) {
        err = thread_start("leasefs-park", 0, park_thread, park, &park->threads[park->n_threads]);
        park->n_threads += !err;
    }
    if (err) {
        park_free(park);
        return err;
    }
    *ret_park = park;
    return 0;
}

void park_set_lease_table(struct park *park, struct lease_table *table)
{
    park->table = table;
}

static void wait_until_empty_locked(struct park *park)
{
    while (park->n_unfinished > 0)
        pthread_cond_wait(&park->empty, &park->lock);
}

void park_stop(struct park *park)
{
    struct parked *parked;

    pthread_mutex_lock(&park->lock);
    park->stopping = true;
    LIST_FOREACH(parked, &park->all, all_entry)
    cancel_locked(parked, -ENOTCONN);
    wait_until_empty_locked(park);
    pthread_mutex_unlock(&park->lock);
}

void park_free(struct park *park)
{
    if (!park)
        return;
    pthread_mutex_lock(&park->lock);
    wait_until_empty_locked(park);
    pthread_mutex_unlock(&park->lock);
    end_threads(park);
    pthread_cond_destroy(&park->empty);
    pthread_cond_destroy(&park->work);
    pthread_mutex_destroy(&park->lock);
    free(park);
}
