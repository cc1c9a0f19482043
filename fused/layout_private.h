/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_LAYOUT_PRIVATE_H
#define LEASEFS_FUSED_LAYOUT_PRIVATE_H

/* The pieces of fs_layout_ops: files by path in layout.c, making ranges fit and clones in layout_prepare.c, the blocks
 * under leases in layout_hold.c. */

#include "fused/fs_private.h"
#include "fused/layout.h"

int layout_prepare(void *fs, uint64_t ino, struct lease_range range, bool exclusive, bool extend,
                   struct lease_waiter *waiter);
int layout_clone(void *fs, const char *source, const char *destination, const struct lease_credentials *who,
                 struct lease_waiter *waiter);

int layout_hold(void *fs, uint64_t ino, struct lease_range range, enum lease_mode mode, struct layout_hold **ret_hold,
                const struct layout_run **ret_runs, size_t *ret_n_runs, struct layout_problem *problem);
int layout_hold_part(void *fs, struct layout_hold *of, struct lease_range range, enum lease_mode mode,
                     struct layout_hold **ret_hold, const struct layout_run **ret_runs, size_t *ret_n_runs);
void layout_release(void *fs, struct layout_hold *hold);
int layout_detach(void *fs, struct layout_hold *hold);
bool layout_sole(void *fs, struct layout_hold *hold);
int layout_committed(void *fs, uint64_t ino, struct lease_range range, uint64_t new_size);

#endif
