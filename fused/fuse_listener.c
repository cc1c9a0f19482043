/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/fuse_listener.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lease/lock_order.h"

#define AWAY_MS 1

struct fuse_listener {
    int bell; /* eventfd: somebody asks */
    _Atomic bool stopped;
    bool forgot;          /* the last message was a FORGET; the listener's own */
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t answered_more;
    uint64_t asked, answered;
    bool listening;
    pthread_t thread;
};

int fuse_listener_new(struct fuse_listener **ret_listener)
{
    struct fuse_listener *listener = calloc(1, sizeof(*listener));
    int err;

    if (!listener)
        return -ENOMEM;
    listener->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (listener->bell < 0) {
        err = -errno;
        free(listener);
        return err;
    }
    pthread_mutex_init(&listener->lock, NULL);
    lock_rank(&listener->lock, LOCK_LISTENER, 0);
    pthread_cond_init(&listener->answered_more, NULL);
    *ret_listener = listener;
    return 0;
}

void fuse_listener_free(struct fuse_listener *listener)
{
    if (!listener)
        return;
    pthread_cond_destroy(&listener->answered_more);
    pthread_mutex_destroy(&listener->lock);
    close(listener->bell);
    free(listener);
}

/* ---- who asks ---- */

/* Where Linux refuses the ring, all requests come by read(2), and the listener serves them. */
static bool is_asked_of_another(const struct fuse_listener *listener)
{
    return listener->listening && !pthread_equal(listener->thread, pthread_self());
}

void fuse_listener_catch_up(struct fuse_listener *listener)
{
    uint64_t mine, one = 1;

    lock_none_held();
    pthread_mutex_lock(&listener->lock);
    mine = ++listener->asked;
    if (is_asked_of_another(listener))
        (void)!write(listener->bell, &one, sizeof(one));
    while (is_asked_of_another(listener) && listener->answered < mine)
        pthread_cond_wait(&listener->answered_more, &listener->lock);
    pthread_mutex_unlock(&listener->lock);
}

/* ---- the listener ---- */

static uint64_t begin_look(struct fuse_listener *listener)
{
    uint64_t asked;

    pthread_mutex_lock(&listener->lock);
    listener->listening = true;
    listener->thread = pthread_self();
    asked = listener->asked;
    pthread_mutex_unlock(&listener->lock);
    return asked;
}

/* There was nothing, and what was before is served. */
static void answer(struct fuse_listener *listener, uint64_t asked)
{
    pthread_mutex_lock(&listener->lock);
    if (listener->answered < asked) {
        listener->answered = asked;
        pthread_cond_broadcast(&listener->answered_more);
    }
    pthread_mutex_unlock(&listener->lock);
}

static void end(struct fuse_listener *listener)
{
    pthread_mutex_lock(&listener->lock);
    listener->listening = false;
    pthread_cond_broadcast(&listener->answered_more);
    pthread_mutex_unlock(&listener->lock);
}

void fuse_listener_stop(struct fuse_listener *listener)
{
    uint64_t one = 1;

    atomic_store(&listener->stopped, true);
    end(listener);
    (void)!write(listener->bell, &one, sizeof(one));
}

static void wait_for_more(struct fuse_listener *listener, int fd)
{
    struct pollfd fds[] = {{.fd = listener->bell, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    uint64_t n;

    if (listener->forgot)
        poll(fds, 1, AWAY_MS);
    else
        poll(fds, 2, -1);
    listener->forgot = false;
    if (fds[0].revents)
        (void)!read(listener->bell, &n, sizeof(n));
}

static bool is_forget(const void *message, ssize_t size)
{
    const struct fuse_in_header *header = message;

    return size >= (ssize_t)sizeof(*header) && (header->opcode == FUSE_FORGET || header->opcode == FUSE_BATCH_FORGET);
}

static void make_nonblocking(int fd)
{
    static _Thread_local int done = -1;

    if (done == fd)
        return;
    fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
    done = fd;
}

static ssize_t next_message(struct fuse_listener *listener, int fd, void *buffer, size_t size)
{
    uint64_t asked;
    ssize_t n;

    while (!atomic_load(&listener->stopped)) {
        asked = begin_look(listener);
        n = read(fd, buffer, size);
        if (n >= 0)
            return n;
        if (errno == EAGAIN) {
            answer(listener, asked);
            wait_for_more(listener, fd);
        } else if (errno != EINTR && errno != ENOENT) {
            return n;
        }
    }
    errno = ENODEV;
    return -1;
}

ssize_t fuse_listener_read(struct fuse_listener *listener, int fd, void *buffer, size_t size)
{
    int cancel, err;
    ssize_t n;

    make_nonblocking(fd);
    /* libfuse cancels its threads; who asks would wait for this one for ever. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    n = next_message(listener, fd, buffer, size);
    err = errno;
    if (n > 0)
        listener->forgot = is_forget(buffer, n);
    else
        end(listener);
    pthread_setcancelstate(cancel, NULL);
    errno = err;
    return n;
}
