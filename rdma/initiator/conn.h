/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_CONN_H
#define LEASEFS_INITIATOR_CONN_H

/*
 * One RDMA connection and the transfers over it. Shared by reference count: whoever drops the last one unmakes it.
 *
 * Work requests complete in the order of their posting, so the connection keeps them in a ring indexed by a running
 * number, which is also the wr_id:
 *
 *        tail                    head
 *     ----+--+--+--+--+--+--+--+--+----
 *         |A |A |B |A |B |B |B |A |          A, B: transfers of two threads
 *     ----+--+--+--+--+--+--+--+--+----
 *               s        s     s  s          s: signalled
 *
 * The completion of number n ends all from tail to n: earlier ones without a signal went well. After an error every
 * request left has a completion of its own. A number outside [tail, head) is nobody's and is dropped.
 *
 * Who waits? There is no thread for it. The first waiting thread polls for all (briefly busy, then blocked on the
 * completion channel); the others sleep until it has ended requests, and the next of them takes over when it leaves.
 *
 * Memory is never given back to a caller while a request that uses it is under way: a transfer ends when its last
 * request has completed or was flushed, or, should a device not flush, after its queue pair was destroyed.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rdma/initiator/cm.h"

struct conn;

/* Takes the link over, also on failure. The caller has the one reference. */
int conn_new(const struct cm_link *link, struct device *device, size_t chunk, struct conn **ret_conn);
struct conn *conn_ref(struct conn *conn);
void conn_unref(struct conn *conn); /* NULL is allowed */

/* No new work is taken; what is under way is flushed. Safe from any thread, any number of times. */
void conn_break(struct conn *conn);
bool conn_broken(const struct conn *conn);

/* Who waits for completions calls this now and then, without a lock. */
void conn_meanwhile(struct conn *conn, void (*meanwhile)(void *arg), void *arg);

/* rdma_cm's events: poll conn_event_fd() for reading, then call conn_events(), which breaks an ended connection. */
int conn_event_fd(const struct conn *conn);
void conn_events(struct conn *conn);

struct conn_transfer {
    bool write;
    void *bytes; /* any memory; not changed by a write */
    size_t length;
    uint64_t remote_address;
    uint32_t rkey;
};

/* What is left after so many bytes. */
static inline void conn_transfer_skip(struct conn_transfer *transfer, size_t moved)
{
    transfer->bytes = (char *)transfer->bytes + moved;
    transfer->length -= moved;
    transfer->remote_address += moved;
}

/* Moves the bytes; blocks. 0, or:
 * -EREMOTEIO: the server's NIC refused this very transfer; the connection is broken.
 * -ENOTCONN: the connection was or got broken by something else; worth repeating over a new one.
 * -EIO, -ENOMEM: a local failure. Sets the error sentence.
 * *ret_moved, also set on failure: so many bytes, from the beginning, have been moved for certain. */
int conn_transfer(struct conn *conn, const struct conn_transfer *transfer, size_t *ret_moved);

#endif
