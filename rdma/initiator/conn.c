/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/conn.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lease/lock_order.h"
#include "rdma/initiator/clock.h"
#include "rdma/initiator/error.h"

#define SPIN_NS          (50 * NS_PER_US)   /* a 4 KiB read takes a few us: worth more than a sleep */
#define MAX_SPIN_NS      (1000 * NS_PER_US) /* busy for longer only where completions usually come within this */
#define POLLS_A_LOOK     16                 /* polls between looks at the clock, which may cost more than a poll */
#define FLUSH_TIMEOUT_NS (5000 * NS_PER_MS) /* from breaking to destroying a queue pair that does not flush */
#define WAIT_MS          500                /* looks for the above */
#define POLL_BATCH       16
#define BOUNCE_SIZE      (256u * 1024) /* bytes of a slot: small enough that copying and moving overlap */

/* Registered memory for one request of a transfer from or to unregistered memory. */
struct slot {
    struct slot *next;
    char *memory;
    void *copy_to; /* a read: where the bytes go */
    size_t length;
};

/* One call of conn_transfer(). Lives on its thread's stack. */
struct moving {
    const struct conn_transfer *what;
    bool direct; /* the caller's memory is registered, under lkey */
    uint32_t lkey;
    size_t piece; /* bytes of one request */

    /* Guarded by conn->lock. */
    size_t posted;      /* bytes */
    unsigned under_way; /* requests */
    int status;
    struct slot *filled;  /* a write: copied into, not posted yet */
    struct slot *arrived; /* a read: complete, not copied out yet; in order */
    struct slot **arrived_end;
};

struct request {
    struct moving *moving;
    struct slot *slot; /* NULL: direct */
};

struct conn {
    struct cm_link link;
    struct device *device;
    size_t chunk;
    atomic_uint refs;
    atomic_bool broken;
    atomic_uint_fast64_t broken_at_ns;

    pthread_mutex_t cm_lock;
    bool qp_destroyed; /* guarded by cm_lock */

    pthread_mutex_t lock;
    pthread_cond_t progress; /* requests ended, slots came free, nobody polls */
    unsigned sleepers;       /* on progress */
    bool polling;            /* a thread polls the completion queue */
    uint64_t head, tail;     /* running numbers: next to post, oldest under way */
    unsigned unsignalled;    /* posted since the last signalled one */
    struct request *ring;    /* [link.depth] */
    struct slot *free_slots;
    struct slot *slots; /* [link.depth], NULL until first needed */
    struct device_memory bounce;

    /* The polling thread's. */
    unsigned unacked_events;
    uint64_t usual_wait_ns; /* of late */
};

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
    if (status && !moving->status)
        moving->status = status;
    if (slot && !moving->what->write) {
        slot->next = NULL;
        *moving->arrived_end = slot;
        moving->arrived_end = &slot->next;
    }
}

static void free_slot_locked(struct conn *conn, struct slot *slot)
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
        if (request->slot && request->moving->what->write)
            free_slot_locked(conn, request->slot);
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

/* Waits until some request has ended or a slot may have come free. Returns with the lock held. */
static void await_progress_locked(struct conn *conn)
{
    if (conn->tail < conn->head && !conn->polling) {
        poll_for_all_locked(conn);
        return;
    }
    conn->sleepers++;
    pthread_cond_wait(&conn->progress, &conn->lock);
    conn->sleepers--;
}

/* ---- posting ---- */

static int post_locked(struct conn *conn, struct moving *moving, void *local, uint32_t lkey, struct slot *slot,
                       size_t length)
{
    const struct conn_transfer *what = moving->what;
    struct ibv_sge piece = {.addr = (uintptr_t)local, .length = (uint32_t)length, .lkey = lkey};
    struct ibv_send_wr request = {
        .wr_id = conn->head,
        .sg_list = &piece,
        .num_sge = 1,
        .opcode = what->write ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ,
        .wr.rdma.remote_addr = what->remote_address + moving->posted,
        .wr.rdma.rkey = what->rkey,
    };
    struct ibv_send_wr *bad;

    /* Often enough that a full ring always has a signalled request in it, and the last of a transfer always. */
    if (slot || moving->posted + length == what->length || ++conn->unsignalled >= (conn->link.depth + 3) / 4) {
        request.send_flags = IBV_SEND_SIGNALED;
        conn->unsignalled = 0;
    }
    if (ibv_post_send(conn->link.id->qp, &request, &bad))
        return -ENOTCONN;
    conn->ring[conn->head % conn->link.depth] = (struct request){moving, slot};
    conn->head++;
    moving->posted += length;
    moving->under_way++;
    return 0;
}

static size_t next_length(const struct moving *moving)
{
    size_t left = moving->what->length - moving->posted;

    return left < moving->piece ? left : moving->piece;
}

static bool ring_has_room(const struct conn *conn)
{
    return conn->head - conn->tail < conn->link.depth;
}

static int post_direct_locked(struct conn *conn, struct moving *moving)
{
    int status = 0;

    while (!status && moving->posted < moving->what->length && ring_has_room(conn))
        status = post_locked(conn, moving, (char *)moving->what->bytes + moving->posted, moving->lkey, NULL,
                             next_length(moving));
    return status;
}

/* Copies the next piece of a write into a slot, with the lock dropped meanwhile. */
static void fill_slot_locked(struct conn *conn, struct moving *moving)
{
    struct slot *slot = conn->free_slots;
    size_t length = next_length(moving);

    conn->free_slots = slot->next;
    pthread_mutex_unlock(&conn->lock);
    memcpy(slot->memory, (const char *)moving->what->bytes + moving->posted, length);
    pthread_mutex_lock(&conn->lock);
    moving->filled = slot;
}

static int post_bounced_locked(struct conn *conn, struct moving *moving)
{
    int status = 0;

    while (!status && moving->posted < moving->what->length && ring_has_room(conn) && !conn_broken(conn)) {
        struct slot *slot = moving->filled;

        if (!slot && !conn->free_slots)
            break;
        if (!slot && moving->what->write) {
            fill_slot_locked(conn, moving);
            continue;
        }
        if (!slot) {
            slot = conn->free_slots;
            conn->free_slots = slot->next;
            slot->copy_to = (char *)moving->what->bytes + moving->posted;
        }
        slot->length = next_length(moving);
        moving->filled = NULL;
        status = post_locked(conn, moving, slot->memory, conn->bounce.mr->lkey, slot, slot->length);
        if (status)
            free_slot_locked(conn, slot);
    }
    return status;
}

/* Copies what a read has brought to where it belongs, with the lock dropped meanwhile. */
static bool copy_out_locked(struct conn *conn, struct moving *moving)
{
    struct slot *arrived = moving->arrived, *next;

    if (!arrived)
        return false;
    moving->arrived = NULL;
    moving->arrived_end = &moving->arrived;
    pthread_mutex_unlock(&conn->lock);
    for (struct slot *slot = arrived; slot; slot = slot->next)
        memcpy(slot->copy_to, slot->memory, slot->length);
    pthread_mutex_lock(&conn->lock);
    for (; arrived; arrived = next) {
        next = arrived->next;
        free_slot_locked(conn, arrived);
    }
    if (conn->sleepers)
        pthread_cond_broadcast(&conn->progress);
    return true;
}

/* ---- a transfer ---- */

static bool may_post(const struct conn *conn, const struct moving *moving)
{
    return !moving->status && !conn_broken(conn) && moving->posted < moving->what->length;
}

static void run(struct conn *conn, struct moving *moving)
{
    pthread_mutex_lock(&conn->lock);
    for (;;) {
        int status = 0;

        if (copy_out_locked(conn, moving))
            continue;
        if (may_post(conn, moving))
            status = moving->direct ? post_direct_locked(conn, moving) : post_bounced_locked(conn, moving);
        if (status) {
            moving->status = status;
            pthread_mutex_unlock(&conn->lock);
            conn_break(conn);
            pthread_mutex_lock(&conn->lock);
            continue;
        }
        /* Filling a slot dropped the lock: the world may have changed since copy_out. */
        if (moving->arrived)
            continue;
        if (!moving->under_way && !may_post(conn, moving))
            break;
        await_progress_locked(conn);
    }
    if (moving->filled) {
        free_slot_locked(conn, moving->filled);
        pthread_cond_broadcast(&conn->progress);
    }
    if (!moving->status && moving->posted < moving->what->length)
        moving->status = -ENOTCONN;
    pthread_mutex_unlock(&conn->lock);
}

/* Makes the slots when they are first needed. */
static int need_slots(struct conn *conn, size_t size)
{
    struct device_memory memory;
    struct slot *slots;
    int status;

    pthread_mutex_lock(&conn->lock);
    slots = conn->slots;
    pthread_mutex_unlock(&conn->lock);
    if (slots)
        return 0;
    slots = calloc(conn->link.depth, sizeof(*slots));
    if (!slots)
        return error_set(-ENOMEM, "out of memory");
    status = device_memory_new(conn->device, conn->link.depth * size, &memory);
    if (status) {
        free(slots);
        return status;
    }
    pthread_mutex_lock(&conn->lock);
    if (!conn->slots) {
        conn->slots = slots;
        conn->bounce = memory;
        memory.mr = NULL;
        slots = NULL;
        for (unsigned i = 0; i < conn->link.depth; i++) {
            conn->slots[i].memory = (char *)conn->bounce.bytes + i * size;
            free_slot_locked(conn, &conn->slots[i]);
        }
    }
    pthread_mutex_unlock(&conn->lock);
    free(slots);
    device_memory_free(&memory);
    return 0;
}

int conn_transfer(struct conn *conn, const struct conn_transfer *transfer)
{
    size_t bounce = conn->chunk < BOUNCE_SIZE ? conn->chunk : BOUNCE_SIZE;
    struct moving moving = {.what = transfer, .piece = conn->chunk};
    int status = 0;

    moving.arrived_end = &moving.arrived;
    moving.direct = device_buffer_key(conn->device, transfer->bytes, transfer->length, &moving.lkey);
    if (!moving.direct) {
        moving.piece = bounce;
        status = need_slots(conn, bounce);
    }
    if (status)
        return status;
    run(conn, &moving);
    switch (moving.status) {
    case 0:
        return 0;
    case -EREMOTEIO:
        return error_set(-EREMOTEIO,
                         "remote access error: the server's NIC refused the %s, so the lease was revoked "
                         "or never allowed it. Take a new lease.",
                         transfer->write ? "write" : "read");
    case -EIO:
        return error_set(-EIO, "the local RDMA device refused the %s: a buffer was freed during its transfer",
                         transfer->write ? "write" : "read");
    default:
        return error_set(-ENOTCONN, "the RDMA connection was lost during the %s", transfer->write ? "write" : "read");
    }
}
