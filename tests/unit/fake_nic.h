/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TEST_FAKE_NIC_H
#define LEASEFS_TEST_FAKE_NIC_H

/*
 * A NIC that is a thread of the test: it carries out work requests in order, completes only signalled ones, refuses
 * wrong keys and flushes what follows, as a reliable connection does. The functions of libibverbs and librdmacm that
 * the client library calls are replaced by those below.
 */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "rdma/initiator/conn.h"

#define GOOD_KEY    0x1234u
#define BAD_KEY     0x666u
#define REMOTE_SIZE (1u << 20)
#define MAX_DEPTH   64u

struct work {
    struct ibv_send_wr request;
    struct ibv_sge piece;
};

static struct nic {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work_came;
    bool stop, paused, in_error, dead, armed;
    bool always_broken; /* every connection ends before its first request */
    unsigned depth;

    struct work queue[MAX_DEPTH];
    uint64_t posted, executed, freed; /* running numbers; freed: known complete to whoever polls */
    struct ibv_wc completions[2 * MAX_DEPTH];
    uint64_t completed, polled;
    unsigned signals, requests, disconnects, qps_destroyed, connections;
    unsigned break_after; /* so many requests of a connection it ends, as when the server breaks it; 0: never */
    unsigned char *remote;
} nic;

/* ---- libibverbs and librdmacm ---- */

static struct ibv_device fake_device;
static struct ibv_context fake_context;
static struct ibv_pd fake_pd;
static struct ibv_cq fake_cq;
static struct ibv_qp fake_qp;
static struct rdma_cm_id fake_id;
static struct rdma_event_channel fake_events;
static struct ibv_comp_channel fake_channel;

static void complete_locked(uint64_t number, enum ibv_wc_status status)
{
    uint64_t one = 1;

    assert_true(nic.completed - nic.polled < nic.depth + 1);
    nic.completions[nic.completed++ % (2 * MAX_DEPTH)] =
        (struct ibv_wc){.wr_id = nic.queue[number % MAX_DEPTH].request.wr_id, .status = status};
    if (nic.armed) {
        nic.armed = false;
        assert_int_equal(write(fake_channel.fd, &one, sizeof(one)), sizeof(one));
    }
}

static int fake_post_send(struct ibv_qp *qp, struct ibv_send_wr *request, struct ibv_send_wr **bad)
{
    struct work *work;

    (void)bad;
    assert_ptr_equal(qp, &fake_qp);
    pthread_mutex_lock(&nic.lock);
    /* A send queue has room again when a completion at or behind the request was polled. */
    assert_true(nic.posted - nic.freed < nic.depth);
    work = &nic.queue[nic.posted++ % MAX_DEPTH];
    work->request = *request;
    work->piece = *request->sg_list;
    nic.requests++;
    nic.signals += !!(request->send_flags & IBV_SEND_SIGNALED);
    pthread_cond_signal(&nic.work_came);
    pthread_mutex_unlock(&nic.lock);
    return 0;
}

static int fake_poll_cq(struct ibv_cq *cq, int n, struct ibv_wc *completions)
{
    int i = 0;

    (void)cq;
    pthread_mutex_lock(&nic.lock);
    if (nic.dead)
        i = -1;
    while (i >= 0 && i < n && nic.polled < nic.completed) {
        completions[i] = nic.completions[nic.polled++ % (2 * MAX_DEPTH)];
        /* Numbers start at 0 with the connection, as the NIC's do. */
        if (completions[i].wr_id < nic.posted && completions[i].wr_id + 1 > nic.freed)
            nic.freed = completions[i].wr_id + 1;
        i++;
    }
    pthread_mutex_unlock(&nic.lock);
    return i;
}

static int fake_req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
    (void)cq;
    (void)solicited_only;
    pthread_mutex_lock(&nic.lock);
    nic.armed = true;
    pthread_mutex_unlock(&nic.lock);
    return 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **context)
{
    uint64_t count;

    (void)context;
    *cq = &fake_cq;
    return read(channel->fd, &count, sizeof(count)) == sizeof(count) ? 0 : -1;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned n)
{
    (void)cq;
    assert_true(n > 0);
}

int rdma_disconnect(struct rdma_cm_id *id)
{
    (void)id;
    pthread_mutex_lock(&nic.lock);
    nic.disconnects++;
    nic.in_error = true;
    pthread_cond_signal(&nic.work_came);
    pthread_mutex_unlock(&nic.lock);
    return 0;
}

void rdma_destroy_qp(struct rdma_cm_id *id)
{
    pthread_mutex_lock(&nic.lock);
    nic.qps_destroyed++;
    pthread_mutex_unlock(&nic.lock);
    id->qp = NULL;
}

int rdma_destroy_id(struct rdma_cm_id *id)
{
    (void)id;
    return 0;
}

void rdma_destroy_event_channel(struct rdma_event_channel *channel)
{
    (void)channel;
}

int rdma_get_cm_event(struct rdma_event_channel *channel, struct rdma_cm_event **event)
{
    (void)channel;
    (void)event;
    return -1;
}

int ibv_destroy_cq(struct ibv_cq *cq)
{
    (void)cq;
    return 0;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
    (void)channel;
    return 0;
}

#undef ibv_reg_mr
struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *bytes, size_t length, int access)
{
    struct ibv_mr *mr = calloc(1, sizeof(*mr));

    (void)access;
    mr->pd = pd;
    mr->addr = bytes;
    mr->length = length;
    mr->lkey = 77;
    return mr;
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
    free(mr);
    return 0;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    (void)context;
    return &fake_pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
    (void)pd;
    return 0;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
    (void)context;
    *attr =
        (struct ibv_device_attr){.max_qp_wr = 1024, .max_cqe = 1024, .max_qp_init_rd_atom = 16, .max_qp_rd_atom = 16};
    return 0;
}

#undef ibv_query_port
int ibv_query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attr)
{
    struct ibv_port_attr known = {.max_msg_sz = 1u << 23};

    (void)context;
    (void)port;
    memcpy(attr, &known, offsetof(struct ibv_port_attr, max_msg_sz) + sizeof(known.max_msg_sz));
    return 0;
}

/* ---- the NIC ---- */

static void execute_locked(uint64_t number)
{
    struct work *work = &nic.queue[number % MAX_DEPTH];
    const struct ibv_send_wr *request = &work->request;
    unsigned char *remote = nic.remote + request->wr.rdma.remote_addr;
    void *local = (void *)(uintptr_t)work->piece.addr;

    if (nic.always_broken || (nic.break_after && number == nic.break_after))
        nic.in_error = true;
    if (nic.in_error) {
        complete_locked(number, IBV_WC_WR_FLUSH_ERR);
        return;
    }
    if (request->wr.rdma.rkey != GOOD_KEY || request->wr.rdma.remote_addr + work->piece.length > REMOTE_SIZE) {
        nic.in_error = true;
        complete_locked(number, IBV_WC_REM_ACCESS_ERR);
        return;
    }
    assert_int_equal(work->piece.lkey, 77);
    if (request->opcode == IBV_WR_RDMA_WRITE)
        memcpy(remote, local, work->piece.length);
    else
        memcpy(local, remote, work->piece.length);
    if (request->send_flags & IBV_SEND_SIGNALED)
        complete_locked(number, IBV_WC_SUCCESS);
}

static void *run_nic(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&nic.lock);
    while (!nic.stop) {
        if (nic.executed < nic.posted && (!nic.paused || nic.in_error) && !nic.dead)
            execute_locked(nic.executed++);
        else
            pthread_cond_wait(&nic.work_came, &nic.lock);
    }
    pthread_mutex_unlock(&nic.lock);
    return NULL;
}

static struct device *device;

/* A connection to the NIC; the one before has ended. */
static struct conn *nic_connect(unsigned depth, size_t chunk)
{
    struct cm_link link = {
        .channel = &fake_events, .id = &fake_id, .completions = &fake_channel, .cq = &fake_cq, .depth = depth};
    struct conn *conn;

    pthread_mutex_lock(&nic.lock);
    nic.posted = nic.executed = nic.freed = nic.completed = nic.polled = 0;
    nic.in_error = nic.dead = nic.armed = false;
    nic.depth = depth;
    nic.connections++;
    pthread_mutex_unlock(&nic.lock);
    fake_id.qp = &fake_qp;
    assert_int_equal(conn_new(&link, device, chunk, &conn), 0);
    return conn;
}

static void nic_start(void)
{
    memset(&nic, 0, sizeof(nic));
    pthread_mutex_init(&nic.lock, NULL);
    pthread_cond_init(&nic.work_came, NULL);
    nic.remote = malloc(REMOTE_SIZE);
    for (size_t i = 0; i < REMOTE_SIZE; i++)
        nic.remote[i] = (unsigned char)(i * 131 >> 3);
    fake_context.device = &fake_device;
    fake_context.ops.poll_cq = fake_poll_cq;
    fake_context.ops.req_notify_cq = fake_req_notify_cq;
    fake_context.ops.post_send = fake_post_send;
    fake_cq.context = fake_qp.context = fake_id.verbs = &fake_context;
    fake_channel.fd = eventfd(0, EFD_NONBLOCK);
    assert_int_equal(pthread_create(&nic.thread, NULL, run_nic, NULL), 0);
    assert_int_equal(device_new(&fake_context, 1, &device), 0);
}

/* After the last connection. */
static void nic_stop(void)
{
    device_free(device);
    pthread_mutex_lock(&nic.lock);
    nic.stop = true;
    pthread_cond_signal(&nic.work_came);
    pthread_mutex_unlock(&nic.lock);
    pthread_join(nic.thread, NULL);
    free(nic.remote);
    close(fake_channel.fd);
}

#endif
