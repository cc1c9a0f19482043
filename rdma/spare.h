/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_SPARE_H
#define LEASEFS_RDMA_SPARE_H

/*
 * Spares: ranges that were just returned, registered anew in the background. The next lease of the same blocks,
 * whoever's it is, takes one instead of waiting for a registration.
 *
 *   lease returned    its MR is fenced and deregistered, as always: its key is dead
 *   behind that       another MR on the same blocks: in a domain without queue pairs, without remote rights, with a key
 *                     that nobody has ever had
 *   leased again      that MR moves to the session's domain and gets its rights (rereg), in time that does not depend
 *                     on its size
 *
 * What a spare is of is told by its blocks, not by the file: a range whose blocks are others now finds none. Blocks may
 * be rewritten, freed and used by other files meanwhile: the spare is of the same memory as they are. Only `punch` puts
 * other memory in their place, and ends all spares.
 *
 * Bounded in bytes and in number, the oldest leaves first. All are given back when something cannot be registered or
 * mapped for want of memory.
 */

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "lease/layout_ops.h"
#include "rdma/helpers.h"

#define SPARES_MAX      64u
#define SPARE_MIN_BYTES (UINT64_C(1) << 20) /* below, registering costs no more than handing over */

struct fabric;
struct window;

enum spare_state { SPARE_QUEUED, SPARE_MAKING, SPARE_READY };

struct spare_range {
    const struct layout_segment *segments;
    const struct layout_run *runs;
    size_t n_runs;
    uint64_t offset, length; /* of the file */
    bool writes;             /* pinned for peers that write */
};

struct spare {
    struct helper_job job; /* must be first */
    struct fabric *fabric;
    struct spare_range range; /* with runs of its own */

    /* Whoever makes it until it is ready, whoever takes it afterwards. */
    struct window *window;
    struct ibv_mr *mr;
    uint64_t remote_address;

    /* Guarded by fabric->lock. */
    enum spare_state state;
    bool unwanted; /* who makes it ends it */
    TAILQ_ENTRY(spare) link;
};

/* All guarded by fabric->lock, but the first. */
struct spares {
    uint64_t limit;           /* bytes; 0: none are made */
    TAILQ_HEAD(, spare) list; /* oldest first */
    unsigned count;
    uint64_t bytes; /* of those that are being made, or ready */
    uint64_t taken; /* ever */
};

void spares_init(struct spares *spares, uint64_t limit);

/* A fenced lease's range is about to be dropped: later, on a helper, it becomes a spare, if it may. Never blocks. */
void spares_make(struct fabric *fabric, const struct spare_range *range);

/* The spare of exactly these blocks, the caller's from now on; one that is being made is waited for. NULL: none. */
struct spare *spares_take(struct fabric *fabric, const struct spare_range *range);

/* It has become a lease's. */
void spares_count_taken(struct fabric *fabric);

/* Without its window and MR, which are somebody else's or gone. */
void spare_free(struct spare *spare);

/* Ends them all. False: there were none. May block. */
bool spares_give_back(struct fabric *fabric);

#endif
