/* SPDX-License-Identifier: BSD-2-Clause */
/* All that a client's first byte needs with bare verbs, over a queue pair that is connected before. */
#include "tools/bench.d/verbs_bench.h"

#include <err.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* As libleasefs waits for completions. */
#define SPIN_NS     50000u
#define MAX_SPIN_NS 1000000u

/* What the processes of the exchange tell each other. */
struct ask {
    uint64_t length; /* 0: what was exposed before is given back */
};

struct answer {
    uint64_t address;
    uint32_t key;
};

static bool got(int fd, void *message, size_t size)
{
    return recv(fd, message, size, MSG_WAITALL) == (ssize_t)size;
}

static void put(int fd, const void *message, size_t size)
{
    if (send(fd, message, size, MSG_NOSIGNAL) != (ssize_t)size)
        errx(1, "the other process is gone");
}

/* Who reads a byte, with what it has before it asks for the first. */
struct reader {
    int server;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    struct ibv_mr *mr;
    char buffer[4096];
    uint64_t usual_wait_ns;
};

static void reader_open(struct reader *reader, int server, const struct settings *settings)
{
    uint32_t other;

    if (!got(server, &other, sizeof(other)))
        _exit(0); /* there is no exchange */
    reader->server = server;
    reader->pd = open_device(settings->device);
    reader->channel = ibv_create_comp_channel(reader->pd->context);
    reader->cq = reader->channel ? ibv_create_cq(reader->pd->context, 32, NULL, reader->channel, 0) : NULL;
    reader->mr = ibv_reg_mr(reader->pd, reader->buffer, sizeof(reader->buffer), IBV_ACCESS_LOCAL_WRITE);
    if (!reader->cq || !reader->mr)
        err(1, "the reader's queue or memory");
    reader->qp = make_qp(reader->pd, reader->cq);
    connect_qp(reader->qp, other);
    put(server, &reader->qp->qp_num, sizeof(reader->qp->qp_num));
}

/* Busily for twice the usual time, unless that is long, and then asleep. */
static int poll_until_completed(struct reader *reader, struct ibv_wc *completion)
{
    uint64_t started = now_ns(), spin_ns = SPIN_NS;
    struct pollfd channel = {.fd = reader->channel->fd, .events = POLLIN};
    struct ibv_cq *cq;
    void *context;
    int n;

    if (reader->usual_wait_ns < MAX_SPIN_NS / 2)
        spin_ns += 2 * reader->usual_wait_ns;
    do {
        n = 0;
        for (int i = 0; i < 16 && !n; i++)
            n = ibv_poll_cq(reader->cq, 1, completion);
    } while (!n && now_ns() - started < spin_ns);
    while (!n) {
        if (ibv_req_notify_cq(reader->cq, 0))
            return -1;
        n = ibv_poll_cq(reader->cq, 1, completion);
        if (n || poll(&channel, 1, 500) <= 0)
            continue;
        if (!ibv_get_cq_event(reader->channel, &cq, &context))
            ibv_ack_cq_events(cq, 1);
        n = ibv_poll_cq(reader->cq, 1, completion);
    }
    reader->usual_wait_ns += (now_ns() - started) / 8 - reader->usual_wait_ns / 8;
    return n;
}

static void read_byte(struct reader *reader, const struct answer *answer)
{
    struct ibv_sge piece = {.addr = (uintptr_t)reader->buffer, .length = 1, .lkey = reader->mr->lkey};
    struct ibv_send_wr request = {
        .sg_list = &piece,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_READ,
        .send_flags = IBV_SEND_SIGNALED,
        .wr.rdma = {.remote_addr = answer->address, .rkey = answer->key},
    };
    struct ibv_send_wr *bad;
    struct ibv_wc completion;

    if (ibv_post_send(reader->qp, &request, &bad))
        err(1, "read");
    if (poll_until_completed(reader, &completion) < 0 || completion.status != IBV_WC_SUCCESS)
        errx(1, "read: no success");
}

static void call_server(struct reader *reader, uint64_t length, struct answer *ret_answer)
{
    const struct ask ask = {.length = length};

    put(reader->server, &ask, sizeof(ask));
    if (!got(reader->server, ret_answer, sizeof(*ret_answer)))
        errx(1, "the server is gone");
}

void exchange_read(int server, const struct settings *settings)
{
    double *first_byte = samples_new(settings->count);
    struct reader reader = {0};
    struct answer answer;

    reader_open(&reader, server, settings);
    for (unsigned i = 0; i < settings->count; i++) {
        uint64_t started = now_ns();

        call_server(&reader, settings->size, &answer);
        read_byte(&reader, &answer);
        first_byte[i] = (double)(now_ns() - started) / 1e3;
        call_server(&reader, 0, &answer);
    }
    put(server, first_byte, settings->count * sizeof(*first_byte));
}

/* The server's side: a thread that waits for messages. */
void exchange_serve(struct bench *bench, const struct mechanism *mechanism, double *ret_first_byte)
{
    struct ibv_cq *cq = ibv_create_cq(bench->context, 32, NULL, NULL, 0);
    struct ibv_qp *qp = cq ? make_qp(bench->pd, cq) : NULL;
    struct answer answer = {0};
    struct ask ask;
    uint32_t other;

    if (!qp)
        err(1, "cq");
    put(bench->reader, &qp->qp_num, sizeof(qp->qp_num));
    if (!got(bench->reader, &other, sizeof(other)))
        errx(1, "no reader");
    connect_qp(qp, other);
    for (unsigned i = 0; i < 2 * bench->settings->count; i++) {
        if (!got(bench->reader, &ask, sizeof(ask)))
            errx(1, "the reader is gone");
        if (ask.length) {
            expose(bench, mechanism);
            answer = (struct answer){.address = (uintptr_t)bench->window, .key = bench->mr->rkey};
        } else {
            clean_up(bench);
        }
        put(bench->reader, &answer, sizeof(answer));
    }
    if (!got(bench->reader, ret_first_byte, bench->settings->count * sizeof(*ret_first_byte)))
        errx(1, "the reader is gone");
    ibv_destroy_qp(qp);
    ibv_destroy_cq(cq);
}
