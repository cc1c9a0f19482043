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
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lease/layout_ops.h"

struct window;

/* How many mappings all windows together may use: vm.max_map_count less a reserve for the rest of the process.
 * Thread-safe. */
struct window_budget {
    pthread_mutex_t lock;
    size_t limit;
    size_t used; /* guarded by lock */
};

void window_budget_init(struct window_budget *budget, size_t limit);
void window_budget_destroy(struct window_budget *budget);
size_t window_budget_default(void); /* reads vm.max_map_count */

enum window_flags {
    WINDOW_WRITABLE = 1, /* mapped for writing as well */
    WINDOW_OWN = 2,      /* never case (2) */
};

/* flags: enum window_flags. Nothing is inherited over fork.
 * -EINVAL: no runs, a run outside its segment, or runs that do not line up on huge pages (3).
 * -E2BIG: more runs than mappings allowed, -ENOMEM. */
int window_new(struct window_budget *budget, const struct layout_segment *segments, const struct layout_run *runs,
               size_t n_runs, unsigned flags, struct window **ret_window);
void window_free(struct window *window); /* NULL is allowed */

/* Puts a mapping without any access in the window's place: on return the kernel has taken its pages away from every MR
 * that does not pin them (ODP). The addresses stay taken until window_free(). -EINVAL in case (2), -ENOMEM. */
int window_cover(struct window *window);

void *window_address(const struct window *window); /* of the first run's first byte */
uint64_t window_length(const struct window *window);
size_t window_mappings(const struct window *window); /* 0: case (2) */

#endif
