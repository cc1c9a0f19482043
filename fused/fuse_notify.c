/* SPDX-License-Identifier: BSD-2-Clause */
#define FUSE_USE_VERSION 312
#include "fused/fuse_notify.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "lease/lock_order.h"

struct note {
    STAILQ_ENTRY(note) entry;
    uint64_t ino;
    int64_t offset, length;
    void (*done)(void *arg);
    void *arg;
};

struct fuse_notifier {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    pthread_cond_t idle;
    struct fuse_session *session; /* NULL: no mount */
    size_t callers;               /* inside a notification */
    STAILQ_HEAD(, note) notes;
    bool running;
    pthread_t thread;
};

/* Pins the session for one notification. NULL: none. */
static struct fuse_session *session_get(struct fuse_notifier *notifier)
{
    struct fuse_session *session;

    lock_none_held();
    pthread_mutex_lock(&notifier->lock);
    session = notifier->session;
    if (session)
        notifier->callers++;
    pthread_mutex_unlock(&notifier->lock);
    return session;
}

static void session_put(struct fuse_notifier *notifier)
{
    pthread_mutex_lock(&notifier->lock);
    if (--notifier->callers == 0)
        pthread_cond_broadcast(&notifier->idle);
    pthread_mutex_unlock(&notifier->lock);
}

/* Errors are of no interest: an inode or name that the kernel does not know is not cached, and a mount that is gone
 * caches nothing. */
void fuse_notify_inode(void *arg, uint64_t ino, int64_t offset, int64_t length)
{
    struct fuse_notifier *notifier = arg;
    struct fuse_session *session = session_get(notifier);

    if (!session)
        return;
    (void)fuse_lowlevel_notify_inval_inode(session, ino, offset, length);
    session_put(notifier);
}

void fuse_notify_entry(void *arg, uint64_t parent, const char *name)
{
    struct fuse_notifier *notifier = arg;
    struct fuse_session *session = session_get(notifier);

    if (!session)
        return;
    (void)fuse_lowlevel_notify_inval_entry(session, parent, name, strlen(name));
    session_put(notifier);
}

static void carry_out(struct fuse_notifier *notifier, struct note *note)
{
    fuse_notify_inode(notifier, note->ino, note->offset, note->length);
    if (note->done)
        note->done(note->arg);
}

static void *notifier_thread(void *arg)
{
    struct fuse_notifier *notifier = arg;

    pthread_mutex_lock(&notifier->lock);
    for (;;) {
        struct note *note = STAILQ_FIRST(&notifier->notes);

        if (note) {
            STAILQ_REMOVE_HEAD(&notifier->notes, entry);
            pthread_mutex_unlock(&notifier->lock);
            carry_out(notifier, note);
            free(note);
            pthread_mutex_lock(&notifier->lock);
        } else if (notifier->running) {
            pthread_cond_wait(&notifier->work, &notifier->lock);
        } else {
            break;
        }
    }
    pthread_mutex_unlock(&notifier->lock);
    return NULL;
}

void fuse_notify_inode_later(void *arg, uint64_t ino, int64_t offset, int64_t length, void (*done)(void *arg),
                             void *done_arg)
{
    struct fuse_notifier *notifier = arg;
    struct note here = {.ino = ino, .offset = offset, .length = length, .done = done, .arg = done_arg};
    struct note *note = malloc(sizeof(*note));
    bool queued = false;

    lock_none_held(); /* it may have to be done here */
    if (note) {
        *note = here;
        pthread_mutex_lock(&notifier->lock);
        queued = notifier->running;
        if (queued) {
            STAILQ_INSERT_TAIL(&notifier->notes, note, entry);
            pthread_cond_signal(&notifier->work);
        }
        pthread_mutex_unlock(&notifier->lock);
    }
    if (!queued) {
        /* No mount; or no memory, and then waiting is better than a reader who sees old bytes. */
        free(note);
        carry_out(notifier, &here);
    }
}

int fuse_notifier_new(struct fuse_notifier **ret_notifier)
{
    struct fuse_notifier *notifier = calloc(1, sizeof(*notifier));

    if (!notifier)
        return -ENOMEM;
    pthread_mutex_init(&notifier->lock, NULL);
    lock_rank(&notifier->lock, LOCK_NOTIFIER, 0);
    pthread_cond_init(&notifier->work, NULL);
    pthread_cond_init(&notifier->idle, NULL);
    STAILQ_INIT(&notifier->notes);
    *ret_notifier = notifier;
    return 0;
}

void fuse_notifier_free(struct fuse_notifier *notifier)
{
    if (!notifier)
        return;
    pthread_cond_destroy(&notifier->idle);
    pthread_cond_destroy(&notifier->work);
    pthread_mutex_destroy(&notifier->lock);
    free(notifier);
}

int fuse_notifier_start(struct fuse_notifier *notifier, struct fuse_session *session)
{
    int err;

    pthread_mutex_lock(&notifier->lock);
    notifier->session = session;
    notifier->running = true;
    err = -pthread_create(&notifier->thread, NULL, notifier_thread, notifier);
    if (err) {
        notifier->running = false;
        notifier->session = NULL;
    }
    pthread_mutex_unlock(&notifier->lock);
    return err;
}

void fuse_notifier_mute(struct fuse_notifier *notifier)
{
    pthread_mutex_lock(&notifier->lock);
    notifier->session = NULL;
    while (notifier->callers > 0)
        pthread_cond_wait(&notifier->idle, &notifier->lock);
    pthread_mutex_unlock(&notifier->lock);
}

void fuse_notifier_stop(struct fuse_notifier *notifier)
{
    bool running;

    pthread_mutex_lock(&notifier->lock);
    running = notifier->running;
    notifier->running = false;
    pthread_cond_signal(&notifier->work);
    pthread_mutex_unlock(&notifier->lock);
    if (running)
        pthread_join(notifier->thread, NULL);
    fuse_notifier_mute(notifier);
}
