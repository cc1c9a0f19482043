/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/bench.d/verbs_bench.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

double *samples_new(unsigned count)
{
    double *samples = calloc(count, sizeof(*samples));

    if (!samples)
        err(1, "memory");
    return samples;
}

struct ibv_pd *open_device(const char *name)
{
    struct ibv_context *context = NULL;
    struct ibv_pd *pd;
    int n;
    struct ibv_device **devices = ibv_get_device_list(&n);

    for (int i = 0; devices && i < n && !context; i++)
        if (!name || !strcmp(name, ibv_get_device_name(devices[i])))
            context = ibv_open_device(devices[i]);
    if (!context)
        errx(CANNOT, "no RDMA device%s%s", name ? " " : "", name ? name : "");
    ibv_free_device_list(devices);
    pd = ibv_alloc_pd(context);
    if (!pd)
        err(1, "pd");
    return pd;
}

struct ibv_qp *make_qp(struct ibv_pd *pd, struct ibv_cq *cq)
{
    struct ibv_qp_init_attr attr = {
        .qp_type = IBV_QPT_RC,
        .send_cq = cq,
        .recv_cq = cq,
        .cap = {.max_send_wr = 16, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
    };
    struct ibv_qp *qp = ibv_create_qp(pd, &attr);

    if (!qp)
        err(1, "qp");
    return qp;
}

/* One that IP routes, as connections by address have. */
static uint8_t choose_gid(struct ibv_context *context, int count, union ibv_gid *ret_gid)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

    for (int i = 0; i < count && i < 256; i++)
        if (!ibv_query_gid(context, 1, i, ret_gid) && !memcmp(ret_gid->raw, mapped, sizeof(mapped)))
            return (uint8_t)i;
    if (ibv_query_gid(context, 1, 0, ret_gid))
        err(1, "gid");
    return 0;
}

/* To another of the same port. */
void connect_qp(struct ibv_qp *qp, uint32_t other)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_READ};
    struct ibv_port_attr port;
    union ibv_gid gid;
    uint8_t gid_index;

    if (ibv_query_port(qp->context, 1, &port))
        err(1, "port");
    gid_index = choose_gid(qp->context, port.gid_tbl_len, &gid);
    if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
        err(1, "qp: init");
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTR,
        .path_mtu = port.active_mtu,
        .dest_qp_num = other,
        .max_dest_rd_atomic = 1,
        .min_rnr_timer = 12,
        .ah_attr = {.is_global = 1,
                    .port_num = 1,
                    .dlid = port.lid,
                    .grh = {.dgid = gid, .sgid_index = gid_index, .hop_limit = 64}},
    };
    if (ibv_modify_qp(qp, &attr,
                      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
        err(1, "qp: rtr");
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1};
    if (ibv_modify_qp(qp, &attr,
                      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                          IBV_QP_MAX_QP_RD_ATOMIC))
        err(1, "qp: rts");
}
