/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_REREG_H
#define LEASEFS_RDMA_REREG_H

/*
 * Taking a registered MR's access rights away, in time that does not depend on its size. The key stays the same, so
 * an MR that has been through this is never given out again.
 */

#include <infiniband/verbs.h>

enum rereg_path {
    REREG_NONE = 0,
    REREG_PROVIDER, /* ibv_rereg_mr() */
    REREG_KERNEL,   /* the uverbs command itself: the kernel driver can, its user-space provider cannot (rxe) */
};

const char *rereg_path_name(enum rereg_path path);

/* Which way works, tried on a scratch page in a scratch domain. REREG_NONE on any failure. */
enum rereg_path rereg_probe(struct ibv_context *context);

/* After success no new access through mr's keys, remote or local, is accepted. */
int rereg_to_no_access(enum rereg_path path, struct ibv_mr *mr);

#endif
