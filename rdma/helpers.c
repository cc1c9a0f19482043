/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/helpers.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "lease/lock_order.h"
#include "rdma/sync.h"

#define HELPERS_MAX 64

struct helper_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;    /* for helpers: the queue or `stopping` changed */
    pthread_cond_t changed; /* for callers: a call returned, a thread ended */

    /* Guarded by lock. */
    struct helper_job *head, **tail;
    unsigned queued;
    unsigned running; /* jobs that a thread has taken and not finished */
    unsigned started, ended, max_threads;
    bool stopping;
    pthread_t threads[HELPERS_MAX];
};

/* One helper_call(): shared by the caller and the helper, freed by the last of them. */
struct helper_call {
    struct helper_job job; /* must be first */
    struct helper_pool *pool;
    int (*call)(void *arg);
    void *arg;
    int result;   /* guarded by pool->lock, as are the next two */
    bool done;    /* the call has returned */
    bool waiting; /* the caller is still there */
};

static struct helper_job *take_job_locked(struct helper_pool *pool)
{
    struct helper_job *job = pool->head;

    pool->head = job->next;
    if (!pool->head)
        pool->tail = &pool->head;
    pool->queued--;
    return job;
}

static void run_call(struct helper_job *job)
{
    struct helper_call *call = (struct helper_call *)job;
    struct helper_pool *pool = call->pool;
    int result = call->call(call->arg);
    bool waiting;

    pthread_mutex_lock(&pool->lock);
    waiting = call->waiting;
    call->result = result;
    call->done = true;
    pool->running--; /* here, so that a caller who has its answer finds this thread free for the next */
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
    if (!waiting)
        free(call);
}

static void *helper_main(void *arg)
{
    struct helper_pool *pool = arg;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->head && !pool->stopping)
            pthread_cond_wait(&pool->work, &pool->lock);
        if (!pool->head)
            break;
        struct helper_job *job = take_job_locked(pool);
        bool is_call = job->run == run_call;

        pool->running++;
        pthread_mutex_unlock(&pool->lock);
        job->run(job);
        pthread_mutex_lock(&pool->lock);
        if (!is_call)
            pool->running--;
    }
    pool->ended++;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Sees to it that a thread will take one more job at once. -EAGAIN: all are busy. */
static int ensure_helper_locked(struct helper_pool *pool)
{
    if (pool->started - pool->running > pool->queued)
        return 0;
    if (pool->started == pool->max_threads)
        return -EAGAIN;
    int r = sync_thread_start("lfs-rdma-help", helper_main, pool, &pool->threads[pool->started]);

    if (r < 0)
        return r;
    pool->started++;
    return 0;
}

static void queue_job_locked(struct helper_pool *pool, struct helper_job *job)
{
    job->next = NULL;
    *pool->tail = job;
    pool->tail = &job->next;
    pool->queued++;
    pthread_cond_signal(&pool->work);
}

int helper_pool_new(unsigned max_threads, struct helper_pool **ret_pool)
{
    struct helper_pool *pool;
    int r;

    if (max_threads < 1 || max_threads > HELPERS_MAX)
        return -EINVAL;
    pool = calloc(1, sizeof(*pool));
    if (!pool)
        return -ENOMEM;
    pool->max_threads = max_threads;
    pool->tail = &pool->head;
    pthread_mutex_init(&pool->lock, NULL);
    lock_rank(&pool->lock, LOCK_HELPERS, 0);
    pthread_cond_init(&pool->work, NULL);
    r = sync_cond_init(&pool->changed);
    if (r < 0)
        goto undo_pool;
    /* The first thread is started now, so that a queued job always has somebody who comes for it some day. */
    r = sync_thread_start("lfs-rdma-help", helper_main, pool, &pool->threads[0]);
    if (r < 0)
        goto undo_changed;
    pthread_mutex_lock(&pool->lock);
    pool->started = 1;
    pthread_mutex_unlock(&pool->lock);
    *ret_pool = pool;
    return 0;

undo_changed:
    pthread_cond_destroy(&pool->changed);
undo_pool:
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
    return r;
}

int helper_pool_free(struct helper_pool *pool, uint64_t deadline_ns)
{
    if (!pool)
        return 0;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->work);
    while (pool->ended < pool->started) {
        if (sync_wait_until(&pool->changed, &pool->lock, deadline_ns) == -ETIMEDOUT && pool->ended < pool->started) {
            pthread_mutex_unlock(&pool->lock);
            return -ETIMEDOUT;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->started; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->changed);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
    return 0;
}

int helper_call(struct helper_pool *pool, int (*call_fn)(void *arg), void *arg, uint64_t deadline_ns, int *ret_result)
{
    struct helper_call *call = calloc(1, sizeof(*call));
    bool done;
    int r;

    if (!call)
        return -ENOMEM;
    *call = (struct helper_call){.job.run = run_call, .pool = pool, .call = call_fn, .arg = arg, .waiting = true};

    pthread_mutex_lock(&pool->lock);
    r = ensure_helper_locked(pool);
    if (r < 0) {
        pthread_mutex_unlock(&pool->lock);
        free(call);
        return r;
    }
    queue_job_locked(pool, &call->job);
    while (!call->done && sync_wait_until(&pool->changed, &pool->lock, deadline_ns) != -ETIMEDOUT)
        ;
    done = call->done;
    call->waiting = false;
    pthread_mutex_unlock(&pool->lock);

    if (!done)
        return -ETIMEDOUT; /* run_call() frees it */
    *ret_result = call->result;
    free(call);
    return 0;
}

void helper_submit(struct helper_pool *pool, struct helper_job *job)
{
    pthread_mutex_lock(&pool->lock);
    ensure_helper_locked(pool); /* when there is none, the job waits for one */
    queue_job_locked(pool, job);
    pthread_mutex_unlock(&pool->lock);
}
