/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/conn.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "lease/lock_order.h"
#include "rdma/initiator/clock.h"
#include "rdma/initiator/error.h"
#include "rdma/initiator/ring.h"

#define SPIN_NS          (50 * NS_PER_US)   /* a 4 KiB read takes a few us: worth more than a sleep */
#define MAX_SPIN_NS      (1000 * NS_PER_US) /* busy for longer only where completions usually come within this */
#define POLLS_A_LOOK     16                 /* polls between looks at the clock, which may cost more than a poll */
#define FLUSH_TIMEOUT_NS (5000 * NS_PER_MS) /* from breaking to destroying a queue pair that does not flush */
#define WAIT_MS          500                /* looks for the above */
#define MEANWHILE_MS     10                 /* looks at what else there is to do */
#define POLL_BATCH       16

int conn_new(const struct cm_link *link, struct device *device, size_t chunk, struct conn **ret_conn)
{
    struct cm_link owned = *link;
    struct conn *conn = calloc(1, sizeof(*conn));
    pthread_condattr_t clock;

    if (conn)
        conn->ring = calloc(link->depth, sizeof(*conn->ring));
    if (!conn || !conn->ring) {
        free(conn);
        cm_close(&owned);
        return error_set(-ENOMEM, "out of memory");
    }
    conn->link = owned;
    conn->device = device;
    conn->chunk = chunk < device_limits(device)->message ? chunk : device_limits(device)->message;
    atomic_init(&conn->refs, 1);
    pthread_mutex_init(&conn->cm_lock, NULL);
    lock_rank(&conn->cm_lock, LOCK_CONN_CM, 0);
    pthread_mutex_init(&conn->lock, NULL);
    lock_rank(&conn->lock, LOCK_CONN, 0);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&conn->progress, &clock);
    pthread_condattr_destroy(&clock);
    *ret_conn = conn;
    return 0;
}

struct conn *conn_ref(struct conn *conn)
{
    atomic_fetch_add(&conn->refs, 1);
    return conn;
}

void conn_unref(struct conn *conn)
{
    if (!conn || atomic_fetch_sub(&conn->refs, 1) > 1)
        return;
    conn_break(conn);
    if (conn->unacked_events)
        ibv_ack_cq_events(conn->link.cq, conn->unacked_events);
    cm_close(&conn->link);
    device_memory_free(&conn->bounce);
    pthread_cond_destroy(&conn->progress);
    pthread_mutex_destroy(&conn->lock);
    pthread_mutex_destroy(&conn->cm_lock);
    free(conn->slots);
    free(conn->ring);
    free(conn);
}

bool conn_broken(const struct conn *conn)
{
    return atomic_load(&conn->broken);
}

void conn_break(struct conn *conn)
{
    bool was_whole = false;

    /* The time first: who sees `broken` reckons with it. */
    if (!conn_broken(conn))
        atomic_store(&conn->broken_at_ns, clock_now_ns());
    if (!atomic_compare_exchange_strong(&conn->broken, &was_whole, true))
        return;
    /* Puts the queue pair into its error state, so that all requests are flushed, and tells the server. */
    pthread_mutex_lock(&conn->cm_lock);
    if (!conn->qp_destroyed)
        rdma_disconnect(conn->link.id);
    pthread_mutex_unlock(&conn->cm_lock);
    pthread_mutex_lock(&conn->lock);
    conn_tell_locked(conn);
    pthread_mutex_unlock(&conn->lock);
}

void conn_meanwhile(struct conn *conn, void (*meanwhile)(void *arg), void *arg)
{
    conn->meanwhile_arg = arg;
    conn->meanwhile = meanwhile;
}

int conn_event_fd(const struct conn *conn)
{
    return conn->link.channel->fd;
}

void conn_events(struct conn *conn)
{
    if (cm_ended(&conn->link))
        conn_break(conn);
}

/* ---- those who wait ---- */

static void wake_watcher(const struct conn_watcher *watcher)
{
    uint64_t one = 1;

    /* Fails only when the counter is full: then it is readable, which is all that is wanted. */
    if (write(watcher->wake_fd, &one, sizeof(one)) < 0)
        return;
}

void conn_tell_locked(struct conn *conn)
{
    conn->changes++;
    if (conn->sleepers)
        pthread_cond_broadcast(&conn->progress);
    for (const struct conn_watcher *watcher = conn->watchers; watcher; watcher = watcher->next)
        if (watcher->asleep && (watcher->attention || watcher->wants_room || conn_broken(conn)))
            wake_watcher(watcher);
}

void conn_hand_over_locked(struct conn *conn)
{
    if (conn->watchers)
        conn->changes++; /* for those about to fall asleep */
    for (const struct conn_watcher *watcher = conn->watchers; watcher; watcher = watcher->next)
        if (watcher->asleep && watcher->under_way)
            wake_watcher(watcher);
}

void conn_watch(struct conn *conn, struct conn_watcher *watcher)
{
    pthread_mutex_lock(&conn->lock);
    watcher->attention = NULL;
    watcher->attention_end = &watcher->attention;
    watcher->next = conn->watchers;
    conn->watchers = watcher;
    pthread_mutex_unlock(&conn->lock);
}

void conn_unwatch(struct conn *conn, struct conn_watcher *watcher)
{
    pthread_mutex_lock(&conn->lock);
    for (struct conn_watcher **link = &conn->watchers; *link; link = &(*link)->next) {
        if (*link == watcher) {
            *link = watcher->next;
            break;
        }
    }
    pthread_mutex_unlock(&conn->lock);
}

/* ---- ending requests ---- */

static void attend(struct moving *moving)
{
    struct conn_watcher *watcher = moving->watcher;

    if (moving->in_attention)
        return;
    moving->in_attention = true;
    moving->next_attention = NULL;
    *watcher->attention_end = moving;
    watcher->attention_end = &moving->next_attention;
}

static void end_request(struct request *request, int status)
{
    struct moving *moving = request->moving;
    struct slot *slot = request->slot;

    moving->under_way--;
    if (!moving->status)
        moving->status = status;
    if (!moving->status)
        moving->moved += request->length; /* they end in order */
    if (slot && !moving->what.write) {
        slot->next = NULL;
        *moving->arrived_end = slot;
        moving->arrived_end = &slot->next;
    }
    if (moving->watcher) {
        moving->watcher->under_way--;
        if (moving->arrived || !moving->under_way)
            attend(moving);
    }
}

void conn_free_slot_locked(struct conn *conn, struct slot *slot)
{
    slot->next = conn->free_slots;
    conn->free_slots = slot;
}

/* Ends all requests from tail up to and including `number`, the last of them with `status`. */
static void retire_locked(struct conn *conn, uint64_t number, int status)
{
    while (conn->tail <= number) {
        struct request *request = &conn->ring[conn->tail % conn->link.depth];

        end_request(request, conn->tail == number ? status : 0);
        if (request->slot && request->moving->what.write)
            conn_free_slot_locked(conn, request->slot);
        conn->tail++;
    }
}

static int status_of_completion(enum ibv_wc_status status)
{
    switch (status) {
    case IBV_WC_SUCCESS:
        return 0;
    case IBV_WC_REM_ACCESS_ERR:
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
        return -EREMOTEIO;
    case IBV_WC_LOC_LEN_ERR:
    case IBV_WC_LOC_PROT_ERR:
    case IBV_WC_LOC_QP_OP_ERR:
        return -EIO;
    default: /* flushed, or the other side does not answer */
        return -ENOTCONN;
    }
}

/* Returns whether one of them was an error. */
static bool complete_locked(struct conn *conn, const struct ibv_wc *completions, int n)
{
    bool failed = false;

    for (int i = 0; i < n; i++) {
        const struct ibv_wc *wc = &completions[i];

        failed |= wc->status != IBV_WC_SUCCESS;
        if (wc->wr_id >= conn->tail && wc->wr_id < conn->head)
            retire_locked(conn, wc->wr_id, status_of_completion(wc->status));
    }
    return failed;
}

/* ---- waiting ---- */

/* The connection is broken and its device does not flush: without the queue pair it cannot touch our memory. */
static void abandon(struct conn *conn)
{
    /* Whoever is posting ends first; nobody posts to a broken connection after that. */
    pthread_mutex_lock(&conn->lock);
    pthread_mutex_unlock(&conn->lock);
    pthread_mutex_lock(&conn->cm_lock);
    if (!conn->qp_destroyed)
        rdma_destroy_qp(conn->link.id);
    conn->qp_destroyed = true;
    pthread_mutex_unlock(&conn->cm_lock);
    pthread_mutex_lock(&conn->lock);
    while (conn->tail < conn->head)
        retire_locked(conn, conn->tail, -ENOTCONN);
    conn_tell_locked(conn);
    pthread_mutex_unlock(&conn->lock);
}

static bool flush_overdue(const struct conn *conn)
{
    return conn_broken(conn) && clock_now_ns() > atomic_load(&conn->broken_at_ns) + FLUSH_TIMEOUT_NS;
}

/* Blocks until the completion channel tells of a completion, or for so long. */
static void await_completion_event(struct conn *conn, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = conn->link.completions->fd, .events = POLLIN};
    struct ibv_cq *cq;
    void *context;

    if (poll(&poll_fd, 1, timeout_ms) <= 0)
        return;
    if (!ibv_get_cq_event(conn->link.completions, &cq, &context))
        conn->unacked_events++;
}

/* Where completions come soon, a wait without a sleep is much shorter; where they do not, it wastes a processor. */
static uint64_t spin_ns(const struct conn *conn)
{
    return conn->usual_wait_ns < MAX_SPIN_NS / 2 ? SPIN_NS + 2 * conn->usual_wait_ns : SPIN_NS;
}

static int poll_busily(struct conn *conn, struct ibv_wc *completions, uint64_t deadline_ns)
{
    uint64_t spin_until = clock_now_ns() + spin_ns(conn);
    int n;

    if (spin_until > deadline_ns)
        spin_until = deadline_ns;
    do {
        n = 0;
        for (int i = 0; n == 0 && i < POLLS_A_LOOK; i++)
            n = ibv_poll_cq(conn->link.cq, POLL_BATCH, completions);
    } while (n == 0 && clock_now_ns() < spin_until);
    return n;
}

static int wait_ms(const struct conn *conn, uint64_t deadline_ns)
{
    const int most_ms = conn->meanwhile ? MEANWHILE_MS : WAIT_MS;
    uint64_t now_ns = clock_now_ns();

    if (deadline_ns <= now_ns)
        return 0;
    return deadline_ns - now_ns < most_ms * NS_PER_MS ? (int)((deadline_ns - now_ns) / NS_PER_MS + 1) : most_ms;
}

/* The polling thread: returns with completions; 0: the deadline has passed; -ETIMEDOUT: the connection is broken and
 * the device does not flush, or cannot even be asked. */
static int poll_until(struct conn *conn, struct ibv_wc *completions, uint64_t deadline_ns)
{
    uint64_t started = clock_now_ns();
    int n;

    if (conn->meanwhile)
        conn->meanwhile(conn->meanwhile_arg);
    n = poll_busily(conn, completions, deadline_ns);
    while (n == 0) {
        int timeout_ms = wait_ms(conn, deadline_ns);

        /* Armed first, polled again: a completion between the two raises an event. */
        if (ibv_req_notify_cq(conn->link.cq, 0))
            return -ETIMEDOUT;
        n = ibv_poll_cq(conn->link.cq, POLL_BATCH, completions);
        if (n)
            break;
        if (flush_overdue(conn))
            return -ETIMEDOUT;
        if (!timeout_ms)
            return 0;
        await_completion_event(conn, timeout_ms);
        if (conn->meanwhile)
            conn->meanwhile(conn->meanwhile_arg);
        n = ibv_poll_cq(conn->link.cq, POLL_BATCH, completions);
    }
    conn->usual_wait_ns += (clock_now_ns() - started) / 8 - conn->usual_wait_ns / 8;
    return n < 0 ? -ETIMEDOUT : n;
}

/* The same without waiting. */
static int look_once(struct conn *conn, struct ibv_wc *completions, bool arm)
{
    int n = ibv_poll_cq(conn->link.cq, POLL_BATCH, completions);

    if (n == 0 && arm) {
        /* The event that called is used up first, so that the next is seen. */
        await_completion_event(conn, 0);
        if (ibv_req_notify_cq(conn->link.cq, 0))
            return -ETIMEDOUT;
        n = ibv_poll_cq(conn->link.cq, POLL_BATCH, completions);
    }
    if (n < 0 || (n == 0 && flush_overdue(conn)))
        return -ETIMEDOUT;
    return n;
}

static void poll_for_all_locked(struct conn *conn, enum conn_wait how, uint64_t deadline_ns)
{
    struct ibv_wc completions[POLL_BATCH];
    bool failed = false;
    int n;

    conn->polling = true;
    pthread_mutex_unlock(&conn->lock);
    n = how == CONN_WAIT ? poll_until(conn, completions, deadline_ns)
                         : look_once(conn, completions, how == CONN_LOOK_AND_ARM);
    if (n < 0) {
        conn_break(conn);
        abandon(conn);
    }
    pthread_mutex_lock(&conn->lock);
    conn->polling = false;
    if (n > 0)
        failed = complete_locked(conn, completions, n);
    if (n)
        conn_tell_locked(conn);
    else if (conn->sleepers)
        pthread_cond_broadcast(&conn->progress); /* one of them is to poll */
    if (failed) {
        pthread_mutex_unlock(&conn->lock);
        conn_break(conn);
        pthread_mutex_lock(&conn->lock);
    }
}

static void sleep_locked(struct conn *conn, uint64_t deadline_ns)
{
    uint64_t now_ns = clock_now_ns();
    struct timespec until;

    conn->sleepers++;
    if (deadline_ns == UINT64_MAX) {
        pthread_cond_wait(&conn->progress, &conn->lock);
    } else if (deadline_ns > now_ns) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        now_ns = (uint64_t)until.tv_sec * NS_PER_S + (uint64_t)until.tv_nsec + (deadline_ns - now_ns);
        until = (struct timespec){.tv_sec = (time_t)(now_ns / NS_PER_S), .tv_nsec = (long)(now_ns % NS_PER_S)};
        pthread_cond_timedwait(&conn->progress, &conn->lock, &until);
    }
    conn->sleepers--;
}

void conn_await_progress_locked(struct conn *conn, enum conn_wait how, uint64_t deadline_ns)
{
    /* To arm uses up an old event, which would call again and again. */
    if (!conn->polling && (conn->tail < conn->head || how == CONN_LOOK_AND_ARM))
        poll_for_all_locked(conn, how, deadline_ns);
    else if (how == CONN_WAIT)
        sleep_locked(conn, deadline_ns);
}
