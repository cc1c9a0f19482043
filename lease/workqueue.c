/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/workqueue.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "lease/lock_order.h"

struct workqueue {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct work *first, **last;
    bool ending;
    int n_threads;
    pthread_t threads[];
};

static void *serve(void *arg)
{
    struct workqueue *queue = arg;
    struct work *work;

    pthread_mutex_lock(&queue->lock);
    for (;;) {
        while (!queue->first && !queue->ending)
            pthread_cond_wait(&queue->more, &queue->lock);
        work = queue->first;
        if (!work)
            break;
        queue->first = work->next;
        if (!queue->first)
            queue->last = &queue->first;
        pthread_mutex_unlock(&queue->lock);
        work->run(work);
        pthread_mutex_lock(&queue->lock);
    }
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}

int workqueue_new(const char *name, int threads, struct workqueue **ret_queue)
{
    struct workqueue *queue = calloc(1, sizeof(*queue) + (size_t)threads * sizeof(queue->threads[0]));
    sigset_t all, before;
    int error = 0;

    if (!queue)
        return -ENOMEM;
    pthread_mutex_init(&queue->lock, NULL);
    lock_rank(&queue->lock, LOCK_WORKQUEUE, 0);
    pthread_cond_init(&queue->more, NULL);
    queue->last = &queue->first;
    sigfillset(&all); /* signals are the FUSE session's business */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (!error && queue->n_threads < threads) {
        error = -pthread_create(&queue->threads[queue->n_threads], NULL, serve, queue);
        if (!error)
            pthread_setname_np(queue->threads[queue->n_threads++], name);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        workqueue_free(queue);
        return error;
    }
    *ret_queue = queue;
    return 0;
}

void workqueue_push(struct workqueue *queue, struct work *work)
{
    work->next = NULL;
    pthread_mutex_lock(&queue->lock);
    *queue->last = work;
    queue->last = &work->next;
    pthread_cond_signal(&queue->more);
    pthread_mutex_unlock(&queue->lock);
}

void workqueue_free(struct workqueue *queue)
{
    if (!queue)
        return;
    pthread_mutex_lock(&queue->lock);
    queue->ending = true;
    pthread_cond_broadcast(&queue->more);
    pthread_mutex_unlock(&queue->lock);
    for (int i = 0; i < queue->n_threads; i++)
        pthread_join(queue->threads[i], NULL);
    pthread_cond_destroy(&queue->more);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}
