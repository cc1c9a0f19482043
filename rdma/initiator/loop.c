/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/loop.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "lease/thread.h"
#include "rdma/initiator/clock.h"
#include "rdma/initiator/conn.h"
#include "rdma/initiator/error.h"
#include "rdma/initiator/session.h"

#define DRIVE_EVERY_MS 5 /* while the caller who drives waits for a transfer */

void session_wake(struct leasefs_session *session)
{
    uint64_t one = 1;

    /* Fails only when the counter is full: then it is readable, which is all that is wanted. */
    if (write(session->wake_fd, &one, sizeof(one)) < 0)
        return;
}

static void wake_to_read(void *arg)
{
    session_wake(arg);
}

int session_may_block(const struct leasefs_session *session)
{
    if (session->driven ? session->dispatching : pthread_equal(pthread_self(), session->thread))
        return error_set(-EDEADLK, "a callback must not wait for what only its caller can do");
    return 0;
}

/* ---- the session's thread ---- */

static void on_notification(void *arg, const char *method, const json_t *params)
{
    lease_notified(arg, method, params);
}

static void control_lost(struct leasefs_session *session)
{
    struct conn *conn;

    pthread_mutex_lock(&session->lock);
    session->lost = true;
    conn = session->conn ? conn_ref(session->conn) : NULL;
    pthread_cond_broadcast(&session->changed);
    pthread_mutex_unlock(&session->lock);
    /* Without the control connection the session is over, and with it all that its connection may reach. */
    if (conn)
        conn_break(conn);
    conn_unref(conn);
    lease_all_lost(session);
}

static int poll_timeout(uint64_t now_ns, uint64_t deadline_ns)
{
    uint64_t ms;

    if (deadline_ns == UINT64_MAX)
        return -1;
    ms = deadline_ns > now_ns ? (deadline_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    return ms > 60000 ? 60000 : (int)ms;
}

static bool is_stopping(struct leasefs_session *session)
{
    bool stopping;

    pthread_mutex_lock(&session->lock);
    stopping = session->stopping;
    pthread_mutex_unlock(&session->lock);
    return stopping;
}

/* One round: waits for something to happen, until then at most, and handles it. */
static void look_around(struct leasefs_session *session, uint64_t until_ns, bool *lost)
{
    uint64_t next_ns = *lost ? UINT64_MAX : lease_renew_due(session, clock_now_ns());
    struct conn *conn = session_present_conn(session);
    struct pollfd fds[] = {
        {.fd = session->wake_fd, .events = POLLIN},
        {.fd = *lost ? -1 : rpc_watch_fd(session->rpc), .events = POLLIN},
        {.fd = conn ? conn_event_fd(conn) : -1, .events = POLLIN},
    };
    uint64_t woken;

    if (until_ns < next_ns)
        next_ns = until_ns;
    if (poll(fds, 3, poll_timeout(clock_now_ns(), next_ns)) > 0) {
        if (fds[0].revents && read(session->wake_fd, &woken, sizeof(woken)) < 0)
            woken = 0;
        if ((fds[1].revents || (fds[0].revents && !*lost)) && rpc_receive(session->rpc, on_notification, session)) {
            control_lost(session);
            *lost = true;
        }
        if (fds[2].revents)
            conn_events(conn);
    }
    conn_unref(conn);
}

static void *session_thread(void *arg)
{
    struct leasefs_session *session = arg;
    bool lost = false;

    while (!is_stopping(session))
        look_around(session, UINT64_MAX, &lost);
    return NULL;
}

static int start_thread(struct leasefs_session *session)
{
    int status = thread_start("leasefs-session", 0, session_thread, session, &session->thread);

    return status ? error_set(status, "no thread for the session: %s", strerror(-status)) : 0;
}

/* ---- or its caller ---- */

static void watch_in(struct leasefs_session *session, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    epoll_ctl(session->epoll_fd, EPOLL_CTL_ADD, fd, &event); /* short of memory: seen at the next dispatch */
}

/* A connection that is broken would call for ever. `fresh`: the descriptor's number may be that of the one before. */
static void watch_conn(struct leasefs_session *session, bool fresh)
{
    struct conn *conn = session_present_conn(session);
    int fd = conn ? conn_event_fd(conn) : -1;

    if (session->conn_fd >= 0 && (fresh || fd != session->conn_fd))
        epoll_ctl(session->epoll_fd, EPOLL_CTL_DEL, session->conn_fd, NULL);
    if (fd >= 0 && (fresh || fd != session->conn_fd))
        watch_in(session, fd);
    session->conn_fd = fd;
    conn_unref(conn);
}

static void set_timer(struct leasefs_session *session)
{
    struct itimerspec when = {0};
    uint64_t next_ns;

    pthread_mutex_lock(&session->lock);
    next_ns = session->lost ? UINT64_MAX : session->looks_at_ns;
    pthread_mutex_unlock(&session->lock);
    if (next_ns != UINT64_MAX) {
        when.it_value.tv_sec = (time_t)(next_ns / NS_PER_S);
        when.it_value.tv_nsec = (long)(next_ns % NS_PER_S);
    }
    timerfd_settime(session->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void drive(struct leasefs_session *session, uint64_t until_ns)
{
    bool lost;

    pthread_mutex_lock(&session->lock);
    lost = session->lost;
    pthread_mutex_unlock(&session->lock);
    session->dispatching = true;
    look_around(session, until_ns, &lost);
    session->dispatching = false;
    watch_conn(session, false);
    set_timer(session);
    session->last_drive_ns = clock_now_ns();
}

static void drive_until_something_happens(void *arg)
{
    drive(arg, UINT64_MAX);
}

void session_drive_now_and_then(struct leasefs_session *session)
{
    if (session->driven && clock_now_ns() - session->last_drive_ns >= DRIVE_EVERY_MS * NS_PER_MS)
        drive(session, 0);
}

void loop_drive_meanwhile(void *arg)
{
    session_drive_now_and_then(arg);
}

int session_await_locked(struct leasefs_session *session, uint64_t until_ns)
{
    uint64_t now_ns = clock_now_ns();
    struct timespec until;

    if (now_ns >= until_ns)
        return -ETIMEDOUT;
    if (session->driven) {
        pthread_mutex_unlock(&session->lock);
        drive(session, until_ns);
        pthread_mutex_lock(&session->lock);
    } else if (until_ns == UINT64_MAX) {
        pthread_cond_wait(&session->changed, &session->lock);
    } else {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until_ns = (uint64_t)until.tv_sec * NS_PER_S + (uint64_t)until.tv_nsec + (until_ns - now_ns);
        until = (struct timespec){.tv_sec = (time_t)(until_ns / NS_PER_S), .tv_nsec = (long)(until_ns % NS_PER_S)};
        pthread_cond_timedwait(&session->changed, &session->lock, &until);
    }
    return 0;
}

static int start_driven(struct leasefs_session *session)
{
    session->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    session->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (session->epoll_fd < 0 || session->timer_fd < 0)
        return error_set(-errno, "no descriptor for the session: %m");
    watch_in(session, session->wake_fd);
    watch_in(session, session->timer_fd);
    watch_in(session, rpc_watch_fd(session->rpc));
    rpc_drive(session->rpc, drive_until_something_happens, session);
    return 0;
}

int leasefs_session_fd(struct leasefs_session *session)
{
    return session->driven ? session->epoll_fd : error_set(-EINVAL, "the session has a thread of its own");
}

int leasefs_session_dispatch(struct leasefs_session *session)
{
    int status = session_may_block(session);
    bool lost;

    if (status)
        return status;
    if (!session->driven)
        return error_set(-EINVAL, "the session has a thread of its own");
    drive(session, 0);
    pthread_mutex_lock(&session->lock);
    lost = session->lost;
    pthread_mutex_unlock(&session->lock);
    return lost ? error_set(-ENOTCONN, "the control connection was lost: open a new session") : 0;
}

/* ---- both ---- */

void loop_watch_conn(struct leasefs_session *session)
{
    if (session->driven)
        watch_conn(session, true);
    else
        session_wake(session);
}

int loop_start(struct leasefs_session *session)
{
    if (session->driven)
        return start_driven(session);
    rpc_share(session->rpc, wake_to_read, session);
    return start_thread(session);
}

void loop_stop(struct leasefs_session *session)
{
    if (session->driven)
        return;
    pthread_mutex_lock(&session->lock);
    session->stopping = true;
    pthread_mutex_unlock(&session->lock);
    session_wake(session);
    pthread_join(session->thread, NULL);
}
