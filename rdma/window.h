/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_WINDOW_H
#define LEASEFS_RDMA_WINDOW_H

/*
 * A window: the runs of a lease side by side in one address range, so that one MR covers them.
 *
 * (1) Several runs: a fresh mapping of its own, run after run with MAP_FIXED.
 *
 *       file      | run 0      | run 1 | run 2      |
 *       pool      ..[2]....[0]........[1]..
 *       window    [0][1][2]
 *
 * (2) A single run (after neighbours have been merged) is contiguous already: the segment's own mapping serves, unless
 *     the window is to be covered some day (WINDOW_OWN): the segment's mapping is everybody's.
 *
 * (3) Huge pages: the kernel maps whole pages only, so a cut between two runs must fall on a page boundary in the
 *     pool and in the window. The first run may start, and the last may end, within a page; the rest of those pages
 *     is mapped with it but lies outside window_address() .. + length, and so outside the MR.
 *
 * A small window whose lease has ended may be kept, mapped, for the next lease of the same blocks: mapping it takes as
 * long as registering it. Memory that it maps is neither pinned nor held by that, and may be rewritten, freed and used
 * by other files: the window is of the same memory as they are.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "lease/layout_ops.h"

#define WINDOWS_KEPT_MAX      64u
#define WINDOW_KEPT_BYTES_MAX (UINT64_C(1) << 20) /* above, mapping is a small part of a registration */

struct window;

/* What all windows share. How many mappings they may use together: vm.max_map_count less a reserve for the rest of the
 * process; those that are kept count, and are given up before a window is refused. Thread-safe. */
struct windows {
    pthread_mutex_t lock;
    size_t limit;

    /* Guarded by lock. */
    size_t used;
    TAILQ_HEAD(window_list, window) kept; /* oldest first */
    unsigned n_kept;
    uint64_t reused; /* ever */
};

void windows_init(struct windows *windows, size_t limit);
void windows_destroy(struct windows *windows);
size_t windows_default_limit(void); /* reads vm.max_map_count */

enum window_flags {
    WINDOW_WRITABLE = 1, /* mapped for writing as well */
    WINDOW_OWN = 2,      /* never case (2) */
};

/* flags: enum window_flags. Nothing is inherited over fork.
 * -EINVAL: no runs, a run outside its segment, or runs that do not line up on huge pages (3).
 * -E2BIG: more runs than mappings allowed, -ENOMEM. */
int window_new(struct windows *windows, const struct layout_segment *segments, const struct layout_run *runs,
               size_t n_runs, unsigned flags, struct window **ret_window);
void window_free(struct window *window); /* NULL is allowed */
void window_keep(struct window *window); /* the same, but that window_new() may find it */

/* Puts a mapping without any access in the window's place: on return the kernel has taken its pages away from every MR
 * that does not pin them (ODP). The addresses stay taken until window_free(). -EINVAL in case (2), -ENOMEM. */
int window_cover(struct window *window);

void *window_address(const struct window *window); /* of the first run's first byte */
uint64_t window_length(const struct window *window);
size_t window_mappings(const struct window *window); /* 0: case (2) */

#endif
