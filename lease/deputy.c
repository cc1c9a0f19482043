/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/deputy.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "lease/thread.h"

struct deputy {
    struct workqueue *queue;
    int timer_fd;
    pthread_t thread;
    atomic_bool set; /* the timer; else it is to be set for what is offered from now on */
    atomic_bool ending;
};

static void set_timer(struct deputy *deputy, long ns)
{
    const struct itimerspec when = {.it_value.tv_nsec = ns};

    timerfd_settime(deputy->timer_fd, 0, &when, NULL);
}

static void *deputise(void *arg)
{
    struct deputy *deputy = arg;
    uint64_t rings;

    do {
        while (read(deputy->timer_fd, &rings, sizeof(rings)) < 0 && errno == EINTR)
            ;
        /* First: what is offered from now on is either seen by the nudge or sets the timer. */
        atomic_store(&deputy->set, false);
        workqueue_nudge(deputy->queue);
    } while (!atomic_load(&deputy->ending));
    return NULL;
}

int deputy_new(struct workqueue *queue, struct deputy **ret_deputy)
{
    struct deputy *deputy = calloc(1, sizeof(*deputy));
    int error;

    if (!deputy)
        return -ENOMEM;
    deputy->queue = queue;
    deputy->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (deputy->timer_fd < 0) {
        error = -errno;
        free(deputy);
        return error;
    }
    error = thread_start("lfs-deputy", 0, deputise, deputy, &deputy->thread);
    if (error) {
        close(deputy->timer_fd);
        free(deputy);
        return error;
    }
    *ret_deputy = deputy;
    return 0;
}

void deputy_watch(struct deputy *deputy)
{
    if (!atomic_exchange(&deputy->set, true))
        set_timer(deputy, DEPUTY_PATIENCE_MS * 1000000L);
}

void deputy_free(struct deputy *deputy)
{
    if (!deputy)
        return;
    atomic_store(&deputy->ending, true);
    set_timer(deputy, 1);
    pthread_join(deputy->thread, NULL);
    close(deputy->timer_fd);
    free(deputy);
}
