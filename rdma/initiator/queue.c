/* SPDX-License-Identifier: BSD-2-Clause */

/* Completion queues: transfers that the caller drives instead of waiting for each. A queue is one thread's at a time,
 * so that only what the connection touches (queue->watcher, the transfers under way) is guarded: by conn->lock. */

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "rdma/initiator/clock.h"
#include "rdma/initiator/error.h"
#include "rdma/initiator/ring.h"
#include "rdma/initiator/session.h"

#define MAX_IDLE_ATTEMPTS 32  /* as in transfer.c */
#define TICK_MS           500 /* who waits at the descriptor looks at least so often, for a device that never flushes */

struct operation {
    struct moving moving; /* the first member: attention lists lead here */
    struct operation *next;
    struct leasefs_lease *lease;
    struct conn_transfer left; /* what no connection has moved yet */
    unsigned idle;             /* connections in a row that moved nothing */
    bool posting;              /* moving is ready, and belongs to queue->conn */
    int status;                /* once it has ended */
    void *user;
};

struct fifo {
    struct operation *first, **end;
};

struct leasefs_queue {
    struct leasefs_queue *next; /* guarded by session->lock */
    struct leasefs_session *session;
    struct conn *conn; /* watched; NULL: none yet */
    struct conn_watcher watcher;
    struct fifo backlog; /* to be posted; the first may be in parts */
    struct fifo ended;   /* to be told */
    unsigned moving;     /* operations on queue->conn */
    bool closing;        /* what the connection breaks under is not tried again */
    int wake_fd;
    int epoll_fd, timer_fd; /* -1 until leasefs_queue_fd() */
    uint64_t tick_at_ns;
};

/* ---- lists ---- */

static void fifo_init(struct fifo *fifo)
{
    fifo->first = NULL;
    fifo->end = &fifo->first;
}

static void push(struct fifo *fifo, struct operation *operation)
{
    operation->next = NULL;
    *fifo->end = operation;
    fifo->end = &operation->next;
}

static struct operation *pop(struct fifo *fifo)
{
    struct operation *operation = fifo->first;

    if (operation) {
        fifo->first = operation->next;
        if (!fifo->first)
            fifo->end = &fifo->first;
    }
    return operation;
}

/* ---- the connection ---- */

static void watch_descriptor(struct leasefs_queue *queue, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    if (queue->epoll_fd >= 0)
        epoll_ctl(queue->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void detach(struct leasefs_queue *queue)
{
    if (!queue->conn)
        return;
    if (queue->epoll_fd >= 0)
        epoll_ctl(queue->epoll_fd, EPOLL_CTL_DEL, queue->conn->link.completions->fd, NULL);
    conn_unwatch(queue->conn, &queue->watcher);
    conn_unref(queue->conn);
    queue->conn = NULL;
}

/* Watches a connection that works. *ret_later: not now, because one would have to be made and the caller may not block,
 * or because the broken one is still in use. */
static int need_conn(struct leasefs_queue *queue, bool may_block, bool *ret_later)
{
    struct conn *conn;
    int status = 0;

    *ret_later = false;
    if (queue->conn && !conn_broken(queue->conn))
        return 0;
    if (!queue->moving) {
        detach(queue);
        conn = session_present_conn(queue->session);
        if (!conn && may_block)
            status = session_conn(queue->session, &conn);
    }
    if (status)
        return status;
    *ret_later = queue->moving || !conn;
    if (*ret_later)
        return 0;
    queue->conn = conn;
    conn_watch(conn, &queue->watcher);
    watch_descriptor(queue, conn->link.completions->fd);
    return 0;
}

/* ---- operations ---- */

/* It is over, or goes on over another connection. */
static void end_operation(struct leasefs_queue *queue, struct operation *operation, int status)
{
    if (status == -ENOTCONN && !queue->closing && operation->idle < MAX_IDLE_ATTEMPTS) {
        push(&queue->backlog, operation);
        return;
    }
    lease_queued(operation->lease, -1);
    operation->status = lease_transfer_end(operation->lease, status);
    push(&queue->ended, operation);
}

/* Takes the bytes that it has moved into account; `operation` is on no list any more. */
static void leave_conn(struct leasefs_queue *queue, struct operation *operation)
{
    operation->posting = false;
    queue->moving--;
    operation->idle = operation->moving.moved ? 0 : operation->idle + 1;
    conn_transfer_skip(&operation->left, operation->moving.moved);
    end_operation(queue, operation, moving_result(&operation->moving));
}

static bool has_room(struct conn *conn)
{
    bool room;

    pthread_mutex_lock(&conn->lock);
    room = conn->head - conn->tail < conn->link.depth;
    pthread_mutex_unlock(&conn->lock);
    return room;
}

static int begin_posting(struct leasefs_queue *queue, struct operation *operation)
{
    /* Recalled since it was submitted, and nothing of it is under way: the return need not wait for it. */
    int status = lease_transfer_check(operation->lease);

    if (!status)
        status = moving_init(queue->conn, &operation->left, &operation->moving);
    if (status)
        return status;
    operation->moving.watcher = &queue->watcher;
    operation->posting = true;
    queue->moving++;
    return 0;
}

/* Posts what fits of the first operation of the backlog. true: it has left the backlog, look at the next. */
static bool post_first(struct leasefs_queue *queue, bool may_block)
{
    struct operation *operation = queue->backlog.first;
    bool posted, over, later;
    int status;

    if (!operation->posting) {
        status = need_conn(queue, may_block, &later);
        if (later || (!status && !has_room(queue->conn)))
            return false;
        if (!status)
            status = begin_posting(queue, operation);
        if (status) {
            end_operation(queue, pop(&queue->backlog), status);
            return true;
        }
    }
    pthread_mutex_lock(&queue->conn->lock);
    over = moving_advance_locked(queue->conn, &operation->moving);
    posted = operation->moving.posted == operation->moving.what.length;
    pthread_mutex_unlock(&queue->conn->lock);
    if (over || posted)
        pop(&queue->backlog);
    if (over)
        leave_conn(queue, operation);
    return over || posted;
}

/* Operations that completions have something to do for. */
static void attend(struct leasefs_queue *queue)
{
    struct conn *conn = queue->conn;
    struct moving *moving;

    if (!conn)
        return;
    pthread_mutex_lock(&conn->lock);
    while ((moving = moving_attention_locked(&queue->watcher))) {
        struct operation *operation = (struct operation *)moving;

        /* The one that is being posted is post_first()'s. */
        if (operation == queue->backlog.first || !moving_advance_locked(conn, moving))
            continue;
        pthread_mutex_unlock(&conn->lock);
        leave_conn(queue, operation);
        pthread_mutex_lock(&conn->lock);
    }
    pthread_mutex_unlock(&conn->lock);
}

static uint64_t changes(struct leasefs_queue *queue)
{
    uint64_t changes = 0;

    if (queue->conn) {
        pthread_mutex_lock(&queue->conn->lock);
        changes = queue->conn->changes;
        pthread_mutex_unlock(&queue->conn->lock);
    }
    return changes;
}

static void post_backlog(struct leasefs_queue *queue, bool may_block)
{
    while (queue->backlog.first && post_first(queue, may_block))
        ;
}

/* Waits until there may be something to do that was not there at `seen`. Returns whether there is. */
static bool await(struct leasefs_queue *queue, uint64_t seen, enum conn_wait how, uint64_t deadline_ns)
{
    struct conn *conn = queue->conn;
    bool changed;

    if (!conn)
        return true;
    pthread_mutex_lock(&conn->lock);
    if (conn->changes == seen)
        conn_await_progress_locked(conn, how, deadline_ns);
    changed = conn->changes != seen;
    /* Who leaves after using up the event that others sleep for has to say so. */
    if (how == CONN_WAIT)
        conn_hand_over_locked(conn);
    pthread_mutex_unlock(&conn->lock);
    return changed;
}

static unsigned take_events(struct leasefs_queue *queue, struct leasefs_event *events, unsigned max)
{
    struct operation *operation;
    unsigned n = 0;

    while (n < max && (operation = pop(&queue->ended))) {
        events[n++] = (struct leasefs_event){.user = operation->user, .status = operation->status};
        free(operation);
    }
    return n;
}

/* ---- who waits at the descriptor ---- */

static void call(struct leasefs_queue *queue)
{
    uint64_t one = 1;

    /* Fails only when the counter is full: then it is readable, which is all that is wanted. */
    if (write(queue->wake_fd, &one, sizeof(one)) < 0)
        return;
}

static void come_back(struct leasefs_queue *queue)
{
    uint64_t count;

    if (queue->epoll_fd < 0)
        return;
    if (queue->conn) {
        pthread_mutex_lock(&queue->conn->lock);
        queue->watcher.asleep = false;
        pthread_mutex_unlock(&queue->conn->lock);
    }
    /* Both are non-blocking; nothing to read is as good. */
    if (read(queue->wake_fd, &count, sizeof(count)) < 0)
        count = 0;
    if (read(queue->timer_fd, &count, sizeof(count)) > 0)
        queue->tick_at_ns = 0;
}

/* From now on the descriptor has to tell of what comes after `seen`. armed: the next completion does. */
static void go_away(struct leasefs_queue *queue, uint64_t seen, bool armed)
{
    const struct itimerspec tick = {.it_value = {.tv_nsec = TICK_MS * NS_PER_MS}};
    bool pending = queue->moving || queue->backlog.first;
    bool more = queue->ended.first || (pending && !armed);
    uint64_t now_ns;

    if (queue->epoll_fd < 0)
        return;
    if (queue->conn) {
        pthread_mutex_lock(&queue->conn->lock);
        queue->watcher.asleep = true;
        queue->watcher.wants_room = queue->backlog.first;
        more = more || (pending && queue->conn->changes != seen);
        pthread_mutex_unlock(&queue->conn->lock);
    }
    if (more)
        call(queue);
    now_ns = clock_now_ns();
    if (pending && now_ns + TICK_MS * NS_PER_MS / 2 > queue->tick_at_ns) {
        timerfd_settime(queue->timer_fd, 0, &tick, NULL);
        queue->tick_at_ns = now_ns + TICK_MS * NS_PER_MS;
    }
}

/* ---- the interface ---- */

int leasefs_queue_new(struct leasefs_session *session, struct leasefs_queue **ret_queue)
{
    struct leasefs_queue *queue = calloc(1, sizeof(*queue));

    if (!queue)
        return error_set(-ENOMEM, "out of memory");
    queue->session = session;
    queue->epoll_fd = queue->timer_fd = -1;
    fifo_init(&queue->backlog);
    fifo_init(&queue->ended);
    queue->wake_fd = queue->watcher.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->wake_fd < 0) {
        int status = error_set(-errno, "no event counter for a queue: %m");

        free(queue);
        return status;
    }
    pthread_mutex_lock(&session->lock);
    queue->next = session->queues;
    session->queues = queue;
    pthread_mutex_unlock(&session->lock);
    *ret_queue = queue;
    return 0;
}

/* Ends what is on the connection, without posting more of it. */
static void drain(struct leasefs_queue *queue)
{
    struct operation *first = queue->backlog.first;
    bool over = true;

    queue->closing = true;
    if (first && first->posting) {
        pop(&queue->backlog);
        pthread_mutex_lock(&queue->conn->lock);
        first->moving.status = -ECANCELED;
        over = moving_advance_locked(queue->conn, &first->moving);
        pthread_mutex_unlock(&queue->conn->lock);
        if (over)
            leave_conn(queue, first);
    }
    while (queue->backlog.first)
        end_operation(queue, pop(&queue->backlog), -ECANCELED);
    while (queue->moving) {
        uint64_t seen = changes(queue);

        attend(queue);
        if (queue->moving)
            await(queue, seen, CONN_WAIT, UINT64_MAX);
    }
}

void leasefs_queue_free(struct leasefs_queue *queue)
{
    struct operation *operation;

    if (!queue)
        return;
    drain(queue);
    detach(queue);
    pthread_mutex_lock(&queue->session->lock);
    for (struct leasefs_queue **link = &queue->session->queues; *link; link = &(*link)->next) {
        if (*link == queue) {
            *link = queue->next;
            break;
        }
    }
    pthread_mutex_unlock(&queue->session->lock);
    while ((operation = pop(&queue->ended)))
        free(operation);
    if (queue->epoll_fd >= 0) {
        close(queue->epoll_fd);
        close(queue->timer_fd);
    }
    close(queue->wake_fd);
    free(queue);
}

static int submit(struct leasefs_queue *queue, struct leasefs_lease *lease, bool write, void *bytes, size_t length,
                  uint64_t offset, void *user)
{
    struct operation *operation;
    struct lease_target target;
    int status;

    if (lease->session != queue->session)
        return error_set(-EINVAL, "the lease is of another session than the queue");
    operation = calloc(1, sizeof(*operation));
    if (!operation)
        return error_set(-ENOMEM, "out of memory");
    status = lease_transfer_begin(lease, write, offset, length, &target);
    if (status) {
        free(operation);
        return status;
    }
    lease_queued(lease, 1);
    *operation = (struct operation){
        .lease = lease,
        .left = {.write = write,
                 .bytes = bytes,
                 .length = length,
                 .remote_address = target.remote_address,
                 .rkey = target.rkey},
        .user = user,
    };
    if (length)
        push(&queue->backlog, operation);
    else
        end_operation(queue, operation, 0);
    post_backlog(queue, false);
    /* Who waits at the descriptor comes once more: nobody has armed the completion queue yet. */
    if (queue->epoll_fd >= 0)
        call(queue);
    return 0;
}

int leasefs_submit_read(struct leasefs_queue *queue, struct leasefs_lease *lease, void *buffer, size_t length,
                        uint64_t offset, void *user)
{
    return submit(queue, lease, false, buffer, length, offset, user);
}

int leasefs_submit_write(struct leasefs_queue *queue, struct leasefs_lease *lease, const void *buffer, size_t length,
                         uint64_t offset, void *user)
{
    /* A write does not change the caller's memory. */
    return submit(queue, lease, true, (void *)(uintptr_t)buffer, length, offset, user);
}

int leasefs_queue_wait(struct leasefs_queue *queue, struct leasefs_event *events, unsigned min, unsigned max,
                       int timeout_ms)
{
    uint64_t deadline_ns = timeout_ms < 0 ? UINT64_MAX : clock_now_ns() + (unsigned)timeout_ms * NS_PER_MS, seen;
    enum conn_wait look = queue->epoll_fd < 0 ? CONN_LOOK : CONN_LOOK_AND_ARM;
    bool looked = false, armed = false;
    int status = session_may_block(queue->session);
    unsigned n = 0;

    if (status)
        return status;
    if (!max || min > max)
        return error_set(-EINVAL, "a queue is asked for at least one event, and not for less than it is to wait for");
    session_drive_now_and_then(queue->session);
    come_back(queue);
    for (;;) {
        enum conn_wait how;
        bool idle;

        seen = changes(queue);
        attend(queue);
        post_backlog(queue, true);
        n += take_events(queue, events + n, max - n);
        idle = !queue->moving && !queue->backlog.first;
        if (n == max || (n >= min && (min || looked)) || (idle && (looked || queue->epoll_fd < 0)) ||
            (looked && clock_now_ns() >= deadline_ns))
            break;
        how = n >= min || idle || !timeout_ms ? look : CONN_WAIT;
        armed = !await(queue, seen, how, deadline_ns) && how == CONN_LOOK_AND_ARM;
        looked = true;
    }
    go_away(queue, seen, armed);
    return (int)n;
}

int leasefs_queue_fd(struct leasefs_queue *queue)
{
    int status;

    if (queue->epoll_fd >= 0)
        return queue->epoll_fd;
    queue->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    queue->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (queue->epoll_fd < 0 || queue->timer_fd < 0) {
        status = error_set(-errno, "no descriptor for a queue: %m");
        if (queue->epoll_fd >= 0)
            close(queue->epoll_fd);
        if (queue->timer_fd >= 0)
            close(queue->timer_fd);
        queue->epoll_fd = queue->timer_fd = -1;
        return status;
    }
    watch_descriptor(queue, queue->wake_fd);
    watch_descriptor(queue, queue->timer_fd);
    if (queue->conn)
        watch_descriptor(queue, queue->conn->link.completions->fd);
    /* Readable at once: the first look makes the descriptor know what is under way. */
    call(queue);
    return queue->epoll_fd;
}
