/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/mw.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rdma/sync.h"

#define BIND_NS          NS_PER_S
#define KEYS_OF_A_WINDOW 256 /* a binding changes the low byte */

struct binder {
    struct ibv_cq *cq;
    struct ibv_qp *qp;
};

static int gid_index(struct rdma_cm_id *id, int table_length)
{
    union ibv_gid gid;

    for (int i = 0; i < table_length; i++)
        if (ibv_query_gid(id->verbs, id->port_num, i, &gid) == 0 &&
            !memcmp(&gid, &id->route.addr.addr.ibaddr.sgid, sizeof(gid)))
            return i;
    return 0;
}

static int address_of_itself(struct rdma_cm_id *id, struct ibv_ah_attr *ah, enum ibv_mtu *ret_mtu)
{
    struct ibv_port_attr port;
    int r = ibv_query_port(id->verbs, id->port_num, &port);

    if (r)
        return -r;
    *ret_mtu = port.active_mtu;
    *ah = (struct ibv_ah_attr){.port_num = id->port_num, .dlid = port.lid};
    if (port.link_layer != IBV_LINK_LAYER_ETHERNET)
        return 0;
    ah->is_global = 1;
    ah->grh.sgid_index = (uint8_t)gid_index(id, port.gid_tbl_len);
    ah->grh.hop_limit = 1;
    return -ibv_query_gid(id->verbs, id->port_num, ah->grh.sgid_index, &ah->grh.dgid);
}

int mw_connect_qp(struct rdma_cm_id *id, struct ibv_qp *qp, uint32_t to, unsigned access)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = id->port_num, .qp_access_flags = access};
    enum ibv_mtu mtu = IBV_MTU_256;
    int r = -ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);

    if (r < 0)
        return r;
    attr =
        (struct ibv_qp_attr){.qp_state = IBV_QPS_RTR, .dest_qp_num = to, .min_rnr_timer = 12, .max_dest_rd_atomic = 1};
    r = address_of_itself(id, &attr.ah_attr, &mtu);
    if (r < 0)
        return r;
    attr.path_mtu = mtu;
    r = -ibv_modify_qp(qp, &attr,
                       IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                           IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    if (r < 0)
        return r;
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1};
    return -ibv_modify_qp(qp, &attr,
                          IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                              IBV_QP_MAX_QP_RD_ATOMIC);
}

static void binder_end(struct binder *binder)
{
    if (binder->qp)
        ibv_destroy_qp(binder->qp);
    if (binder->cq)
        ibv_destroy_cq(binder->cq);
}

static int binder_begin(struct rdma_cm_id *id, struct ibv_pd *pd, struct binder *binder)
{
    struct ibv_qp_init_attr init = {
        .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };
    int r;

    binder->cq = ibv_create_cq(id->verbs, 2, NULL, NULL, 0);
    if (!binder->cq)
        return errno ? -errno : -ENOMEM;
    init.send_cq = init.recv_cq = binder->cq;
    binder->qp = ibv_create_qp(pd, &init);
    if (!binder->qp) {
        r = errno ? -errno : -ENOMEM;
        binder_end(binder);
        return r;
    }
    r = mw_connect_qp(id, binder->qp, binder->qp->qp_num, 0);
    if (r < 0)
        binder_end(binder);
    return r;
}

static int bind_once(struct binder *binder, struct ibv_mw *mw, const struct mw_request *wanted)
{
    struct ibv_mw_bind request = {
        .send_flags = IBV_SEND_SIGNALED,
        .bind_info = {.mr = wanted->mr,
                      .addr = wanted->iova,
                      .length = wanted->length,
                      .mw_access_flags = (unsigned)wanted->access},
    };
    uint64_t deadline = monotonic_ns() + BIND_NS;
    struct ibv_wc completion;
    int r = ibv_bind_mw(binder->qp, mw, &request), n;

    if (r)
        return r > 0 ? -r : -EIO;
    while ((n = ibv_poll_cq(binder->cq, 1, &completion)) == 0) {
        if (monotonic_ns() >= deadline)
            return -ETIMEDOUT;
        sched_yield();
    }
    return n > 0 && completion.status == IBV_WC_SUCCESS ? 0 : -EIO;
}

static int bind_with_usable_key(struct binder *binder, struct ibv_mw *mw, const struct mw_request *wanted)
{
    for (int i = 0; i < KEYS_OF_A_WINDOW; i++) {
        int r = bind_once(binder, mw, wanted);

        if (r < 0 || !wanted->usable || wanted->usable(wanted->arg, mw->rkey))
            return r;
    }
    return -EAGAIN;
}

int mw_new(struct rdma_cm_id *id, const struct mw_request *request, struct ibv_mw **ret_mw)
{
    struct binder binder = {0};
    struct ibv_mw *mw;
    int r = binder_begin(id, request->mr->pd, &binder);

    if (r < 0)
        return r;
    errno = 0;
    mw = ibv_alloc_mw(request->mr->pd, IBV_MW_TYPE_1);
    if (!mw) {
        r = errno ? -errno : -EOPNOTSUPP;
        goto undo_binder;
    }
    r = bind_with_usable_key(&binder, mw, request);
    if (r < 0)
        ibv_dealloc_mw(mw);
    else
        *ret_mw = mw;
undo_binder:
    binder_end(&binder);
    return r;
}

static int try_in(struct rdma_cm_id *id, struct ibv_pd *pd, void *page, size_t page_size)
{
    struct ibv_mr *mr = ibv_reg_mr(pd, page, page_size, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
    struct mw_request request = {.mr = mr,
                                 .iova = (uintptr_t)page,
                                 .length = page_size,
                                 .access = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE};
    struct ibv_mw *mw;
    int r;

    if (!mr)
        return -EIO;
    r = mw_new(id, &request, &mw);
    if (r == 0)
        r = -ibv_dealloc_mw(mw);
    ibv_dereg_mr(mr);
    return r;
}

bool mw_probe(struct rdma_cm_id *id)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    struct ibv_pd *pd;
    int r = -EIO;
    void *page = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return false;
    pd = ibv_alloc_pd(id->verbs);
    if (pd) {
        r = try_in(id, pd, page, page_size);
        ibv_dealloc_pd(pd);
    }
    munmap(page, page_size);
    return r == 0;
}
