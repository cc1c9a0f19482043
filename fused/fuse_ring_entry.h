/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FUSE_RING_ENTRY_H
#define LEASEFS_FUSED_FUSE_RING_ENTRY_H

/*
 * A place in a queue of FUSE over io_uring: a header and a buffer, which Linux fills with a request and which goes back
 * with the answer in it. Not locked in here: it is its thread's (fuse_ring.c) while it serves, and whoever has found it
 * under the thread's lock while its request waits.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "fused/fuse_ring_protocol.h"

#define RING_ENTRY_KEPT 4096u /* bytes of the payload that ring_entry_shrink() leaves */

/* One mapping: the header at its start, the payload a page behind it. Before the payload is room to put the request's
 * parts together. */
struct ring_entry {
    SLIST_ENTRY(ring_entry) next;
    STAILQ_ENTRY(ring_entry) mail;
    uint16_t queue;
    struct ring_header *header;
    char *payload;
    size_t room;             /* bytes of it */
    struct iovec parts[2];   /* both, for Linux to read while it registers the entry */
    _Atomic uint64_t unique; /* of the request that waits for its answer; 0: none does */
    bool answered;           /* while it is served */
    uint64_t used;           /* when: by the thread's count of requests */
};

/* room: bytes, whole pages. NULL: no memory. */
struct ring_entry *ring_entry_new(size_t room, uint16_t queue);
void ring_entry_free(struct ring_entry *entry);

/* The request that Linux has put in, as read(2) would have given it; it lies in the entry. NULL: sizes that do not fit
 * together. */
char *ring_entry_request(struct ring_entry *entry, size_t *ret_size);

/* Puts an answer in; iov[0] is a struct fuse_out_header. One that does not fit becomes EIO. */
void ring_entry_answer(struct ring_entry *entry, const struct iovec *iov, int count);

/* Gives the payload's memory back but for its start; it comes again when it is written. */
void ring_entry_shrink(struct ring_entry *entry);

#endif
