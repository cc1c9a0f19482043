/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_MW_H
#define LEASEFS_RDMA_MW_H

/*
 * Memory windows of type 1: a key of their own on a registered MR that has no remote rights itself. Freeing one takes
 * the access away in a time that does not depend on its size.
 *
 * Type 1, though type 2 would tie the key to one QP: a peer connects after its first lease was granted, and connects
 * again whenever an access was refused, while its other leases go on. A type 2 key would die with each connection, and
 * on soft-RoCE at any stranger's request (tests/rdma/window_selftest.c). The keys are as safe as an MR's: bound to the
 * session's protection domain.
 *
 * Binding needs a QP that is ready to send. It is one of our own, connected to itself, for as long as that takes: no
 * packet ever leaves it.
 */

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdint.h>

/* `id` is bound to the device: its port and address are used. The MR has IBV_ACCESS_MW_BIND, and IBV_ACCESS_LOCAL_WRITE
 * for remote writes. Its key is one that usable(arg, key) says yes to: each binding makes another. Ended with
 * ibv_dealloc_mw(). -EOPNOTSUPP: not on this device; -EAGAIN: no such key; -ETIMEDOUT, others. May block. */
struct mw_request {
    struct ibv_mr *mr;
    uint64_t iova, length;
    int access;
    bool (*usable)(void *arg, uint32_t key); /* NULL: any */
    void *arg;
};
int mw_new(struct rdma_cm_id *id, const struct mw_request *request, struct ibv_mw **ret_mw);

/* Connects a new RC queue pair to number `to` of the same port, which may be itself. access: of the other side. */
int mw_connect_qp(struct rdma_cm_id *id, struct ibv_qp *qp, uint32_t to, unsigned access);

/* Tried on a scratch page in a scratch domain. False on any failure. */
bool mw_probe(struct rdma_cm_id *id);

#endif
