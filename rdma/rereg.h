/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_REREG_H
#define LEASEFS_RDMA_REREG_H

/*
 * Changing a registered MR's access rights and protection domain, in time that does not depend on its size. The key
 * stays the same, so an MR whose key a peer has had is never given out again.
 */

#include <infiniband/verbs.h>
#include <stdbool.h>

enum rereg_path {
    REREG_NONE = 0,
    REREG_PROVIDER, /* ibv_rereg_mr() */
    REREG_KERNEL,   /* the uverbs command itself: the kernel driver can, its user-space provider cannot (rxe) */
};

const char *rereg_path_name(enum rereg_path path);

/* Which way works to take the rights away, tried on a scratch page in scratch domains; *ret_moves: rereg_move() works
 * that way, too. REREG_NONE on any failure. */
enum rereg_path rereg_probe(struct ibv_context *context, bool *ret_moves);

/* After success no new access through mr's keys, remote or local, is accepted. */
int rereg_to_no_access(enum rereg_path path, struct ibv_mr *mr);

/* The same for peers, also where the driver knows no MR without rights: the MR moves to a domain without queue pairs.
 * On soft-RoCE that is worth what the other is worth: a READ in progress looks at neither again. */
int rereg_away_from_peers(enum rereg_path path, struct ibv_mr *mr, struct ibv_pd *quarantine);

/* Into this domain, with these rights (of writing only what was registered with IBV_ACCESS_LOCAL_WRITE). */
int rereg_move(enum rereg_path path, struct ibv_mr *mr, struct ibv_pd *domain, int access);

#endif
