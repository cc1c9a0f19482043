/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/loopback.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <stdlib.h>
#include <string.h>

#include "rdma/sync.h"

#define RESOLVE_MS 1000

struct loopback {
    struct rdma_event_channel *channel;
    struct rdma_cm_id *id;
    struct ibv_pd *pd;
    struct ibv_cq *cq;
    struct ibv_mr *mr;
    size_t size;
    uint8_t *buffer;
    struct loopback_state state;
};

/* The next event of the connection must be this one. */
static int expect_event(struct loopback *loopback, enum rdma_cm_event_type wanted, uint64_t deadline_ns)
{
    struct pollfd channel = {.fd = loopback->channel->fd, .events = POLLIN};
    struct rdma_cm_event *event;
    uint64_t now = monotonic_ns();
    int timeout = now < deadline_ns ? (int)((deadline_ns - now) / NS_PER_MS) + 1 : 0;
    int n = poll(&channel, 1, timeout);
    bool right;

    if (n <= 0)
        return n == 0 ? -ETIMEDOUT : -errno;
    if (rdma_get_cm_event(loopback->channel, &event) < 0)
        return -errno;
    right = event->event == wanted;
    rdma_ack_cm_event(event);
    return right ? 0 : -ECONNREFUSED;
}

static int resolve(struct loopback *loopback, const struct exposure_address *where, uint64_t deadline_ns)
{
    struct sockaddr_storage to = where->address, from = where->address;
    int r;

    /* From the same address, so that it is the same device. */
    if (from.ss_family == AF_INET)
        ((struct sockaddr_in *)&from)->sin_port = 0;
    else
        ((struct sockaddr_in6 *)&from)->sin6_port = 0;
    if (rdma_create_id(loopback->channel, &loopback->id, NULL, RDMA_PS_TCP) < 0)
        return -errno;
    if (rdma_resolve_addr(loopback->id, (struct sockaddr *)&from, (struct sockaddr *)&to, RESOLVE_MS) < 0)
        return -errno;
    r = expect_event(loopback, RDMA_CM_EVENT_ADDR_RESOLVED, deadline_ns);
    if (r < 0)
        return r;
    if (rdma_resolve_route(loopback->id, RESOLVE_MS) < 0)
        return -errno;
    return expect_event(loopback, RDMA_CM_EVENT_ROUTE_RESOLVED, deadline_ns);
}

static int create_qp(struct loopback *loopback)
{
    struct ibv_context *verbs = loopback->id->verbs;

    loopback->pd = ibv_alloc_pd(verbs);
    if (!loopback->pd)
        return -ENOMEM;
    loopback->cq = ibv_create_cq(verbs, (int)LOOPBACK_DEPTH + 1, NULL, NULL, 0);
    if (!loopback->cq)
        return -ENOMEM;
    loopback->mr = ibv_reg_mr(loopback->pd, loopback->buffer, loopback->size, IBV_ACCESS_LOCAL_WRITE);
    if (!loopback->mr)
        return errno ? -errno : -EIO;
    struct ibv_qp_init_attr init = {
        .send_cq = loopback->cq,
        .recv_cq = loopback->cq,
        .cap = {.max_send_wr = LOOPBACK_DEPTH, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };

    return rdma_create_qp(loopback->id, loopback->pd, &init) < 0 ? (errno ? -errno : -EIO) : 0;
}

static int connect_qp(struct loopback *loopback, const struct exposure_address *where, uint64_t deadline_ns)
{
    struct leasefs_cm_request request = {.magic = htole32(LEASEFS_CM_MAGIC),
                                         .version = htole16(LEASEFS_PROTOCOL_VERSION)};
    struct rdma_conn_param param = {
        .private_data = &request,
        .private_data_len = sizeof(request),
        .initiator_depth = 4,
        .retry_count = 7,
        .rnr_retry_count = 7,
    };

    memcpy(request.cookie, where->cookie, sizeof(request.cookie));
    if (rdma_connect(loopback->id, &param) < 0)
        return -errno;
    return expect_event(loopback, RDMA_CM_EVENT_ESTABLISHED, deadline_ns);
}

int loopback_connect(const struct exposure_address *where, void *buffer, size_t size, uint64_t deadline_ns,
                     struct loopback **ret_loopback)
{
    struct loopback *loopback = calloc(1, sizeof(*loopback));
    int r;

    if (!loopback)
        return -ENOMEM;
    loopback->buffer = buffer;
    loopback->size = size;
    loopback->channel = rdma_create_event_channel();
    r = loopback->channel ? resolve(loopback, where, deadline_ns) : -errno;
    if (r == 0)
        r = create_qp(loopback);
    if (r == 0)
        r = connect_qp(loopback, where, deadline_ns);
    if (r < 0) {
        loopback_close(loopback);
        return r;
    }
    *ret_loopback = loopback;
    return 0;
}

void loopback_close(struct loopback *loopback)
{
    if (!loopback)
        return;
    if (loopback->id && loopback->id->qp) {
        rdma_disconnect(loopback->id);
        rdma_destroy_qp(loopback->id);
    }
    if (loopback->mr)
        ibv_dereg_mr(loopback->mr);
    if (loopback->cq)
        ibv_destroy_cq(loopback->cq);
    if (loopback->pd)
        ibv_dealloc_pd(loopback->pd);
    if (loopback->id)
        rdma_destroy_id(loopback->id);
    if (loopback->channel)
        rdma_destroy_event_channel(loopback->channel);
    free(loopback);
}

int loopback_start(struct loopback *loopback, bool read, uint64_t remote_address, uint32_t rkey)
{
    struct ibv_sge sge = {(uintptr_t)loopback->buffer, (uint32_t)loopback->size, loopback->mr->lkey};
    struct ibv_send_wr *bad, wr = {
                                 .sg_list = &sge,
                                 .num_sge = 1,
                                 .opcode = read ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE,
                                 .send_flags = IBV_SEND_SIGNALED,
                                 .wr.rdma = {.remote_addr = remote_address, .rkey = rkey},
                             };

    for (unsigned i = 0; i < LOOPBACK_DEPTH; i++) {
        int error = ibv_post_send(loopback->id->qp, &wr, &bad);

        if (error)
            return -error;
    }
    return 0;
}

/* A server that ends the connection says so here; the answer flushes what is outstanding. */
static void look_at_events(struct loopback *loopback, int timeout_ms)
{
    struct pollfd channel = {.fd = loopback->channel->fd, .events = POLLIN};

    if (poll(&channel, 1, timeout_ms) == 1 && expect_event(loopback, RDMA_CM_EVENT_DISCONNECTED, 0) == 0)
        rdma_disconnect(loopback->id);
}

static void take_completions(struct loopback *loopback, struct loopback_state *ret_state)
{
    struct ibv_wc completion;

    while (ibv_poll_cq(loopback->cq, 1, &completion) > 0)
        if (completion.status == IBV_WC_SUCCESS)
            loopback->state.succeeded++;
        else
            loopback->state.failed++;
    *ret_state = loopback->state;
}

void loopback_poll(struct loopback *loopback, struct loopback_state *ret_state)
{
    look_at_events(loopback, 0);
    take_completions(loopback, ret_state);
}

void loopback_drain(struct loopback *loopback, uint64_t deadline_ns, struct loopback_state *ret_state)
{
    take_completions(loopback, ret_state);
    while (ret_state->succeeded + ret_state->failed < LOOPBACK_DEPTH && monotonic_ns() < deadline_ns) {
        look_at_events(loopback, 1);
        take_completions(loopback, ret_state);
    }
}
