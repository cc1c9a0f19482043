/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/conn.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "lease/lock_order.h"
#include "rdma/initiator/clock.h"
#include "rdma/initiator/error.h"
#include "rdma/initiator/ring.h"

#define SPIN_NS          (50 * NS_PER_US)   /* a 4 KiB read takes a few us: worth more than a sleep */
#define MAX_SPIN_NS      (1000 * NS_PER_US) /* busy for longer only where completions usually come within this */
#define POLLS_A_LOOK     16                 /* polls between looks at the clock, which may cost more than a poll */
#define FLUSH_TIMEOUT_NS (5000 * NS_PER_MS) /* from breaking to destroying a queue pair that does not flush */
#define WAIT_MS          500                /* looks for the above */
#define POLL_BATCH       16

int conn_new(const struct cm_link *link, struct device *device, size_t chunk, struct conn **ret_conn)
{
    struct cm_link owned = *link;
    struct conn *conn = calloc(1, sizeof(*conn));

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
    pthread_cond_init(&conn->progress, NULL);
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
    pthread_cond_broadcast(&conn->progress);
    pthread_mutex_unlock(&conn->lock);
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

/* ---- ending requests ---- */

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
    pthread_mutex_unlock(&conn->lock);
}

static bool flush_overdue(const struct conn *conn)
{
    return conn_broken(conn) && clock_now_ns() > atomic_load(&conn->broken_at_ns) + FLUSH_TIMEOUT_NS;
}

/* Blocks until the completion channel tells of a completion, or WAIT_MS. */
static void await_completion_event(struct conn *conn)
{
    struct pollfd poll_fd = {.fd = conn->link.completions->fd, .events = POLLIN};
    struct ibv_cq *cq;
    void *context;

    if (poll(&poll_fd, 1, WAIT_MS) <= 0)
        return;
    if (!ibv_get_cq_event(conn->link.completions, &cq, &context))
        conn->unacked_events++;
}

/* Where completions come soon, a wait without a sleep is much shorter; where they do not, it wastes a processor. */
static uint64_t spin_ns(const struct conn *conn)
{
    return conn->usual_wait_ns < MAX_SPIN_NS / 2 ? SPIN_NS + 2 * conn->usual_wait_ns : SPIN_NS;
}

static int poll_busily(struct conn *conn, struct ibv_wc *completions)
{
    uint64_t spin_until = clock_now_ns() + spin_ns(conn);
    int n;

    do {
        n = 0;
        for (int i = 0; n == 0 && i < POLLS_A_LOOK; i++)
            n = ibv_poll_cq(conn->link.cq, POLL_BATCH, completions);
    } while (n == 0 && clock_now_ns() < spin_until);
    return n;
}

/* The polling thread: returns with completions, or -ETIMEDOUT: the connection is broken and the device does not
 * flush, or cannot even be asked. */
static int poll_completions(struct conn *conn, struct ibv_wc *completions)
{
    uint64_t started = clock_now_ns();
    int n = poll_busily(conn, completions);

    while (n == 0) {
        /* Armed first, polled again: a completion between the two raises an event. */
        if (ibv_req_notify_cq(conn->link.cq, 0))
            return -ETIMEDOUT;
        n = ibv_poll_cq(conn->link.cq, POLL_BATCH, completions);
        if (n)
            break;
        if (flush_overdue(conn))
            return -ETIMEDOUT;
        await_completion_event(conn);
        n = ibv_poll_cq(conn->link.cq, POLL_BATCH, completions);
    }
    conn->usual_wait_ns += (clock_now_ns() - started) / 8 - conn->usual_wait_ns / 8;
    return n < 0 ? -ETIMEDOUT : n;
}

static void poll_for_all_locked(struct conn *conn)
{
    struct ibv_wc completions[POLL_BATCH];
    bool failed = false;
    int n;

    conn->polling = true;
    pthread_mutex_unlock(&conn->lock);
    n = poll_completions(conn, completions);
    if (n < 0) {
        conn_break(conn);
        abandon(conn);
    }
    pthread_mutex_lock(&conn->lock);
    conn->polling = false;
    if (n > 0)
        failed = complete_locked(conn, completions, n);
    if (conn->sleepers)
        pthread_cond_broadcast(&conn->progress);
    if (failed) {
        pthread_mutex_unlock(&conn->lock);
        conn_break(conn);
        pthread_mutex_lock(&conn->lock);
    }
}

void conn_await_progress_locked(struct conn *conn)
{
    if (conn->tail < conn->head && !conn->polling) {
        poll_for_all_locked(conn);
        return;
    }
    conn->sleepers++;
    pthread_cond_wait(&conn->progress, &conn->lock);
    conn->sleepers--;
}
