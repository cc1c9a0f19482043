/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_RING_H
#define LEASEFS_INITIATOR_RING_H

/*
 * The inside of a connection, for the files that work on its ring (picture in conn.h): conn.c ends requests and waits
 * for completions, moving.c posts them, queue.c does so without blocking.
 *
 * `_locked`: with conn->lock held. Where said, it is dropped meanwhile.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "rdma/initiator/conn.h"

/* Registered memory for one request of a transfer from or to unregistered memory. */
struct slot {
    struct slot *next;
    char *memory;
    void *copy_to; /* a read: where the bytes go */
    size_t length;
};

/* One that drives transfers without blocking (queue.c). Guarded by conn->lock while it is on the connection's list. */
struct conn_watcher {
    struct conn_watcher *next;
    struct moving *attention; /* its transfers that moving_advance_locked() should be called for */
    struct moving **attention_end;
    unsigned under_way; /* requests */
    bool wants_room;    /* has more to post */
    bool asleep;        /* its owner does not look: to be woken through wake_fd */
    int wake_fd;        /* eventfd */
};

/* A transfer under way. Whoever began it keeps it until moving_advance_locked() says that it has ended. */
struct moving {
    struct conn_transfer what;
    bool direct; /* the caller's memory is registered, under lkey */
    uint32_t lkey;
    size_t piece; /* bytes of one request */

    /* Guarded by conn->lock. */
    size_t posted;      /* bytes */
    size_t moved;       /* bytes at the beginning that are known to be where they belong, or have arrived in slots */
    unsigned under_way; /* requests */
    int status;
    struct slot *filled;  /* a write: copied into, not posted yet */
    struct slot *arrived; /* a read: complete, not copied out yet; in order */
    struct slot **arrived_end;
    struct conn_watcher *watcher; /* NULL: a thread waits in conn_transfer() */
    struct moving *next_attention;
    bool in_attention;
};

struct request {
    struct moving *moving;
    struct slot *slot; /* NULL: direct */
    size_t length;
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
    uint64_t changes;        /* counts what sleepers are woken for */
    struct conn_watcher *watchers;
    bool polling;         /* a thread polls the completion queue */
    uint64_t head, tail;  /* running numbers: next to post, oldest under way */
    unsigned unsignalled; /* posted since the last signalled one */
    struct request *ring; /* [link.depth] */
    struct slot *free_slots;
    struct slot *slots; /* [link.depth], NULL until first needed */
    struct device_memory bounce;

    void (*meanwhile)(void *arg); /* conn_meanwhile() */
    void *meanwhile_arg;

    /* The polling thread's. */
    unsigned unacked_events;
    uint64_t usual_wait_ns; /* of late */
};

/* ---- conn.c ---- */

void conn_free_slot_locked(struct conn *conn, struct slot *slot);

/* Something changed that others may wait for: wakes them. */
void conn_tell_locked(struct conn *conn);

enum conn_wait {
    CONN_LOOK,         /* looks once, does not block */
    CONN_LOOK_AND_ARM, /* likewise; the next completion makes the completion channel readable */
    CONN_WAIT,
};

/* Waits until some request has ended or a slot may have come free, or (CONN_WAIT) until a time of clock_now_ns();
 * UINT64_MAX: without end. Drops the lock meanwhile. */
void conn_await_progress_locked(struct conn *conn, enum conn_wait how, uint64_t deadline_ns);

void conn_watch(struct conn *conn, struct conn_watcher *watcher);
void conn_unwatch(struct conn *conn, struct conn_watcher *watcher); /* none of its requests is under way */

/* A thread that polled leaves: watchers that count on others' polling have to look themselves from now on. */
void conn_hand_over_locked(struct conn *conn);

/* ---- moving.c ---- */

/* Makes *ret_moving ready. Sets the error sentence. */
int moving_init(struct conn *conn, const struct conn_transfer *transfer, struct moving *ret_moving);

/* Copies and posts what can be now. true: it has ended, with moving->status, and nothing of it is in use any more.
 * Drops the lock meanwhile. */
bool moving_advance_locked(struct conn *conn, struct moving *moving);

/* Takes the next of the watcher's transfers that is to be advanced; NULL: there is none. */
struct moving *moving_attention_locked(struct conn_watcher *watcher);

/* The result of one that has ended, with the error sentence. */
int moving_result(const struct moving *moving);

#endif
