/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rdma/initiator/error.h"

#define BOUNCE_SIZE (256u * 1024) /* bytes of a slot: small enough that copying and moving overlap */

/* ---- posting ---- */

static int post_locked(struct conn *conn, struct moving *moving, void *local, uint32_t lkey, struct slot *slot,
                       size_t length)
{
    const struct conn_transfer *what = &moving->what;
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
    conn->ring[conn->head % conn->link.depth] = (struct request){moving, slot, length};
    conn->head++;
    moving->posted += length;
    moving->under_way++;
    if (moving->watcher)
        moving->watcher->under_way++;
    return 0;
}

static size_t next_length(const struct moving *moving)
{
    size_t left = moving->what.length - moving->posted;

    return left < moving->piece ? left : moving->piece;
}

static bool ring_has_room(const struct conn *conn)
{
    return conn->head - conn->tail < conn->link.depth;
}

static int post_direct_locked(struct conn *conn, struct moving *moving)
{
    int status = 0;

    while (!status && moving->posted < moving->what.length && ring_has_room(conn))
        status = post_locked(conn, moving, (char *)moving->what.bytes + moving->posted, moving->lkey, NULL,
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
    memcpy(slot->memory, (const char *)moving->what.bytes + moving->posted, length);
    pthread_mutex_lock(&conn->lock);
    moving->filled = slot;
}

static int post_bounced_locked(struct conn *conn, struct moving *moving)
{
    int status = 0;

    while (!status && moving->posted < moving->what.length && ring_has_room(conn) && !conn_broken(conn)) {
        struct slot *slot = moving->filled;

        if (!slot && !conn->free_slots)
            break;
        if (!slot && moving->what.write) {
            fill_slot_locked(conn, moving);
            continue;
        }
        if (!slot) {
            slot = conn->free_slots;
            conn->free_slots = slot->next;
            slot->copy_to = (char *)moving->what.bytes + moving->posted;
        }
        slot->length = next_length(moving);
        moving->filled = NULL;
        status = post_locked(conn, moving, slot->memory, conn->bounce.mr->lkey, slot, slot->length);
        if (status)
            conn_free_slot_locked(conn, slot);
    }
    return status;
}

/* Copies what a read has brought to where it belongs, with the lock dropped meanwhile. */
static void copy_out_locked(struct conn *conn, struct moving *moving)
{
    struct slot *arrived = moving->arrived, *next;

    if (!arrived)
        return;
    moving->arrived = NULL;
    moving->arrived_end = &moving->arrived;
    pthread_mutex_unlock(&conn->lock);
    for (struct slot *slot = arrived; slot; slot = slot->next)
        memcpy(slot->copy_to, slot->memory, slot->length);
    pthread_mutex_lock(&conn->lock);
    for (; arrived; arrived = next) {
        next = arrived->next;
        conn_free_slot_locked(conn, arrived);
    }
    conn_tell_locked(conn);
}

/* ---- a transfer ---- */

static bool may_post(const struct conn *conn, const struct moving *moving)
{
    return !moving->status && !conn_broken(conn) && moving->posted < moving->what.length;
}

struct moving *moving_attention_locked(struct conn_watcher *watcher)
{
    struct moving *moving = watcher->attention;

    if (moving) {
        watcher->attention = moving->next_attention;
        if (!watcher->attention)
            watcher->attention_end = &watcher->attention;
        moving->in_attention = false;
    }
    return moving;
}

/* It has ended: its watcher must not come across it again. */
static void forget_attention_locked(struct moving *moving)
{
    struct conn_watcher *watcher = moving->watcher;
    struct moving **link = &watcher->attention;

    while (*link != moving)
        link = &(*link)->next_attention;
    *link = moving->next_attention;
    if (!*link)
        watcher->attention_end = link;
    moving->in_attention = false;
}

bool moving_advance_locked(struct conn *conn, struct moving *moving)
{
    do {
        int status = 0;

        copy_out_locked(conn, moving);
        if (may_post(conn, moving))
            status = moving->direct ? post_direct_locked(conn, moving) : post_bounced_locked(conn, moving);
        if (status) {
            moving->status = status;
            pthread_mutex_unlock(&conn->lock);
            conn_break(conn);
            pthread_mutex_lock(&conn->lock);
        }
        /* Whatever dropped the lock may have let the rest of it arrive. */
    } while (moving->arrived);
    if (moving->under_way || may_post(conn, moving))
        return false;
    if (moving->filled) {
        conn_free_slot_locked(conn, moving->filled);
        moving->filled = NULL;
        conn_tell_locked(conn);
    }
    if (moving->in_attention)
        forget_attention_locked(moving);
    if (!moving->status && moving->posted < moving->what.length)
        moving->status = -ENOTCONN;
    return true;
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
            conn_free_slot_locked(conn, &conn->slots[i]);
        }
    }
    pthread_mutex_unlock(&conn->lock);
    free(slots);
    device_memory_free(&memory);
    return 0;
}

int moving_init(struct conn *conn, const struct conn_transfer *transfer, struct moving *ret_moving)
{
    size_t bounce = conn->chunk < BOUNCE_SIZE ? conn->chunk : BOUNCE_SIZE;

    *ret_moving = (struct moving){.what = *transfer, .piece = conn->chunk};
    ret_moving->arrived_end = &ret_moving->arrived;
    ret_moving->direct = device_buffer_key(conn->device, transfer->bytes, transfer->length, &ret_moving->lkey);
    if (ret_moving->direct)
        return 0;
    ret_moving->piece = bounce;
    return need_slots(conn, bounce);
}

int moving_result(const struct moving *moving)
{
    const char *what = moving->what.write ? "write" : "read";

    switch (moving->status) {
    case 0:
        return 0;
    case -EREMOTEIO:
        return error_set(-EREMOTEIO,
                         "remote access error: the server's NIC refused the %s, so the lease was revoked "
                         "or never allowed it. Take a new lease.",
                         what);
    case -EIO:
        return error_set(-EIO, "the local RDMA device refused the %s: a buffer was freed during its transfer", what);
    default:
        return error_set(-ENOTCONN, "the RDMA connection was lost during the %s", what);
    }
}

int conn_transfer(struct conn *conn, const struct conn_transfer *transfer, size_t *ret_moved)
{
    struct moving moving;
    int status = moving_init(conn, transfer, &moving);

    *ret_moved = 0;
    if (status)
        return status;
    pthread_mutex_lock(&conn->lock);
    while (!moving_advance_locked(conn, &moving))
        conn_await_progress_locked(conn, CONN_WAIT, UINT64_MAX);
    conn_hand_over_locked(conn);
    pthread_mutex_unlock(&conn->lock);
    *ret_moved = moving.moved;
    return moving_result(&moving);
}
