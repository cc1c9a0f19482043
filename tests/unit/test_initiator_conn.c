/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Transfers over a connection whose NIC is a thread of this test: it carries out work requests in order, completes
 * only signalled ones, refuses wrong keys and flushes what follows, as a reliable connection does. The functions of
 * libibverbs and librdmacm that the library calls are replaced by those at the top.
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
#include <leasefs/leasefs.h>

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
    unsigned depth;

    struct work queue[MAX_DEPTH];
    uint64_t posted, executed, freed; /* running numbers; freed: known complete to whoever polls */
    struct ibv_wc completions[2 * MAX_DEPTH];
    uint64_t completed, polled;
    unsigned signals, requests, disconnects, qps_destroyed;
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

static struct conn *start(unsigned depth, size_t chunk)
{
    struct cm_link link = {.channel = &fake_events, .id = &fake_id, .completions = &fake_channel, .cq = &fake_cq};
    struct conn *conn;

    memset(&nic, 0, sizeof(nic));
    pthread_mutex_init(&nic.lock, NULL);
    pthread_cond_init(&nic.work_came, NULL);
    nic.depth = link.depth = depth;
    nic.remote = malloc(REMOTE_SIZE);
    for (size_t i = 0; i < REMOTE_SIZE; i++)
        nic.remote[i] = (unsigned char)(i * 131 >> 3);
    fake_context.device = &fake_device;
    fake_context.ops.poll_cq = fake_poll_cq;
    fake_context.ops.req_notify_cq = fake_req_notify_cq;
    fake_context.ops.post_send = fake_post_send;
    fake_cq.context = fake_qp.context = fake_id.verbs = &fake_context;
    fake_id.qp = &fake_qp;
    fake_channel.fd = eventfd(0, EFD_NONBLOCK);
    assert_int_equal(pthread_create(&nic.thread, NULL, run_nic, NULL), 0);
    assert_int_equal(device_new(&fake_context, 1, &device), 0);
    assert_int_equal(conn_new(&link, device, chunk, &conn), 0);
    return conn;
}

static void finish(struct conn *conn)
{
    conn_unref(conn);
    device_free(device);
    pthread_mutex_lock(&nic.lock);
    nic.stop = true;
    pthread_cond_signal(&nic.work_came);
    pthread_mutex_unlock(&nic.lock);
    pthread_join(nic.thread, NULL);
    free(nic.remote);
    close(fake_channel.fd);
}

static int transfer(struct conn *conn, bool write, void *bytes, size_t length, uint64_t remote, uint32_t rkey)
{
    const struct conn_transfer what = {
        .write = write, .bytes = bytes, .length = length, .remote_address = remote, .rkey = rkey};

    return conn_transfer(conn, &what);
}

/* ---- tests ---- */

static void check_both_ways(struct conn *conn, unsigned char *bytes, size_t length)
{
    unsigned char *expected = malloc(REMOTE_SIZE);

    assert_int_equal(transfer(conn, false, bytes, length, 5, GOOD_KEY), 0);
    assert_memory_equal(bytes, nic.remote + 5, length);
    memcpy(expected, nic.remote, REMOTE_SIZE);
    for (size_t i = 0; i < length; i++)
        bytes[i] = expected[100 + i] = (unsigned char)(i * 7 + length);
    assert_int_equal(transfer(conn, true, bytes, length, 100, GOOD_KEY), 0);
    assert_memory_equal(nic.remote, expected, REMOTE_SIZE);
    free(expected);
}

static void bytes_arrive_whole_at_every_depth_and_length(void **state)
{
    static const unsigned depths[] = {1, 2, 3, 5, 16};
    static const size_t lengths[] = {1, 511, 512, 513, 4096, 40000, 300000};

    (void)state;
    for (size_t d = 0; d < sizeof(depths) / sizeof(*depths); d++) {
        struct conn *conn = start(depths[d], 512);
        unsigned char *plain = malloc(300000);
        void *registered;

        assert_int_equal(device_buffer_new(device, 300000, &registered), 0);
        for (size_t l = 0; l < sizeof(lengths) / sizeof(*lengths); l++) {
            check_both_ways(conn, plain, lengths[l]);
            check_both_ways(conn, registered, lengths[l]);
        }
        free(plain);
        finish(conn);
    }
}

static void only_some_requests_of_a_large_transfer_are_signalled(void **state)
{
    struct conn *conn = start(16, 4096);
    void *registered;

    (void)state;
    assert_int_equal(device_buffer_new(device, REMOTE_SIZE, &registered), 0);
    assert_int_equal(transfer(conn, false, registered, REMOTE_SIZE, 0, GOOD_KEY), 0);
    assert_int_equal(nic.requests, 256);
    assert_int_equal(nic.signals, 64);
    finish(conn);
}

struct crowd_member {
    pthread_t thread;
    struct conn *conn;
    unsigned seed;
    uint32_t rkey;
    bool registered;
    uint64_t remote; /* of its own part of the remote memory */
    int status;
};

#define PART (REMOTE_SIZE / 8)

static void *move_at_random(void *arg)
{
    struct crowd_member *member = arg;
    unsigned char *model = malloc(PART), *bytes = NULL;

    if (member->registered)
        assert_int_equal(device_buffer_new(device, PART, (void **)&bytes), 0);
    else
        bytes = malloc(PART);
    memcpy(model, nic.remote + member->remote, PART);
    for (int round = 0; round < 60 && !member->status; round++) {
        size_t offset = (size_t)rand_r(&member->seed) % PART;
        size_t length = 1 + (size_t)rand_r(&member->seed) % (PART - offset);
        bool write = rand_r(&member->seed) & 1;

        for (size_t i = 0; write && i < length; i++)
            model[offset + i] = bytes[i] = (unsigned char)rand_r(&member->seed);
        member->status = transfer(member->conn, write, bytes, length, member->remote + offset, member->rkey);
        if (!member->status && !write && memcmp(bytes, model + offset, length))
            member->status = -EILSEQ;
    }
    if (member->registered)
        device_buffer_free(device, bytes);
    else
        free(bytes);
    free(model);
    return NULL;
}

static void run_crowd(struct crowd_member *members, size_t n, struct conn *conn)
{
    for (size_t i = 0; i < n; i++) {
        members[i].conn = conn;
        members[i].seed = (unsigned)i + 1;
        members[i].registered = i & 1;
        members[i].remote = i * PART;
        if (!members[i].rkey)
            members[i].rkey = GOOD_KEY;
        assert_int_equal(pthread_create(&members[i].thread, NULL, move_at_random, &members[i]), 0);
    }
    for (size_t i = 0; i < n; i++)
        pthread_join(members[i].thread, NULL);
}

static void threads_share_a_connection(void **state)
{
    static const unsigned depths[] = {1, 4, 16};

    (void)state;
    for (size_t d = 0; d < sizeof(depths) / sizeof(*depths); d++) {
        struct crowd_member members[6] = {0};
        struct conn *conn = start(depths[d], 4096);

        run_crowd(members, 6, conn);
        for (size_t i = 0; i < 6; i++)
            assert_int_equal(members[i].status, 0);
        finish(conn);
    }
}

static void a_refused_transfer_is_told_from_those_that_it_took_down(void **state)
{
    (void)state;
    /* Often: whose request is in front of the refused one is a matter of luck. */
    for (unsigned round = 0; round < 200; round++) {
        struct crowd_member members[6] = {[3] = {.rkey = BAD_KEY}};
        struct conn *conn = start(8, 512);

        run_crowd(members, 6, conn);
        for (size_t i = 0; i < 6; i++)
            assert_true(members[i].status == (i == 3 ? -EREMOTEIO : -ENOTCONN) || (i != 3 && !members[i].status));
        assert_true(conn_broken(conn));
        assert_int_equal(nic.disconnects, 1);
        finish(conn);
    }
}

static void a_refusal_in_the_middle_of_a_transfer_fails_it(void **state)
{
    struct conn *conn = start(8, 4096);
    unsigned char *bytes = malloc(REMOTE_SIZE + 4096);

    (void)state;
    assert_int_equal(transfer(conn, false, bytes, REMOTE_SIZE + 4096, 0, GOOD_KEY), -EREMOTEIO);
    assert_non_null(strstr(leasefs_error(), "remote access error"));
    assert_int_equal(transfer(conn, false, bytes, 4096, 0, GOOD_KEY), -ENOTCONN);
    free(bytes);
    finish(conn);
}

static void await_posted(uint64_t n)
{
    for (bool done = false; !done;) {
        pthread_mutex_lock(&nic.lock);
        done = nic.posted >= n;
        pthread_mutex_unlock(&nic.lock);
    }
}

static void pause_nic(void)
{
    pthread_mutex_lock(&nic.lock);
    nic.paused = true;
    pthread_mutex_unlock(&nic.lock);
}

static void breaking_ends_transfers_under_way(void **state)
{
    struct crowd_member member = {.rkey = GOOD_KEY, .seed = 1};
    struct conn *conn = start(4, 4096);

    (void)state;
    pause_nic();
    member.conn = conn;
    assert_int_equal(pthread_create(&member.thread, NULL, move_at_random, &member), 0);
    await_posted(1);
    conn_break(conn);
    conn_break(conn);
    pthread_join(member.thread, NULL);
    assert_int_equal(member.status, -ENOTCONN);
    assert_int_equal(nic.disconnects, 1);
    finish(conn);
}

static void a_device_that_cannot_flush_loses_its_queue_pair_before_memory_is_given_back(void **state)
{
    struct crowd_member member = {.rkey = GOOD_KEY, .seed = 1};
    struct conn *conn = start(4, 4096);

    (void)state;
    pause_nic();
    member.conn = conn;
    assert_int_equal(pthread_create(&member.thread, NULL, move_at_random, &member), 0);
    await_posted(1);
    pthread_mutex_lock(&nic.lock);
    nic.dead = true;
    pthread_mutex_unlock(&nic.lock);
    pthread_join(member.thread, NULL);
    assert_int_equal(member.status, -ENOTCONN);
    assert_int_equal(nic.qps_destroyed, 1);
    finish(conn);
    assert_int_equal(nic.qps_destroyed, 1);
}

static void a_completion_of_nobodys_request_changes_nothing(void **state)
{
    struct conn *conn = start(4, 4096);
    unsigned char bytes[8192];

    (void)state;
    assert_int_equal(transfer(conn, false, bytes, sizeof(bytes), 0, GOOD_KEY), 0);
    pthread_mutex_lock(&nic.lock);
    nic.completions[nic.completed++ % (2 * MAX_DEPTH)] = (struct ibv_wc){.wr_id = 0, .status = IBV_WC_SUCCESS};
    nic.completions[nic.completed++ % (2 * MAX_DEPTH)] = (struct ibv_wc){.wr_id = 1u << 30, .status = IBV_WC_SUCCESS};
    pthread_mutex_unlock(&nic.lock);
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(transfer(conn, false, bytes, sizeof(bytes), 300, GOOD_KEY), 0);
    assert_memory_equal(bytes, nic.remote + 300, sizeof(bytes));
    finish(conn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_arrive_whole_at_every_depth_and_length),
        cmocka_unit_test(only_some_requests_of_a_large_transfer_are_signalled),
        cmocka_unit_test(threads_share_a_connection),
        cmocka_unit_test(a_refused_transfer_is_told_from_those_that_it_took_down),
        cmocka_unit_test(a_refusal_in_the_middle_of_a_transfer_fails_it),
        cmocka_unit_test(breaking_ends_transfers_under_way),
        cmocka_unit_test(a_device_that_cannot_flush_loses_its_queue_pair_before_memory_is_given_back),
        cmocka_unit_test(a_completion_of_nobodys_request_changes_nothing),
    };

    alarm(100);
    return cmocka_run_group_tests_name("initiator_conn", tests, NULL, NULL);
}
