/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TOOLS_VERBS_BENCH_H
#define LEASEFS_TOOLS_VERBS_BENCH_H

/* Measuring bare verbs. Whatever fails ends the process. */

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#include "rdma/rereg.h"

#define CANNOT 77

struct settings {
    const char *mechanism, *device;
    uint64_t size;
    unsigned count;
    bool exchange;
};

struct bench {
    const struct settings *settings;
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_cq *cq;
    struct ibv_qp *qp; /* connected to itself: windows are bound through a working one */
    enum rereg_path rereg;
    int memory; /* memfd */
    int client; /* a socket: who asks for nothing in particular */
    int reader; /* a socket: who asks for a byte to read */

    /* One round's. */
    void *window;
    struct ibv_mr *mr;
    struct ibv_mw *mw;
};

struct mechanism {
    const char *name;
    int access; /* beside remote reading */
    void (*prepare)(struct bench *bench);
    void (*expose_more)(struct bench *bench);
    void (*revoke)(struct bench *bench);
};

uint64_t now_ns(void);
double *samples_new(unsigned count);

/* verbs_device.c. `name`: NULL: the first. */
struct ibv_pd *open_device(const char *name);
struct ibv_qp *make_qp(struct ibv_pd *pd, struct ibv_cq *cq);
void connect_qp(struct ibv_qp *qp, uint32_t other); /* to another of the same port, or itself */

/* verbs_bench.c */
void expose(struct bench *bench, const struct mechanism *mechanism);
void clean_up(struct bench *bench);

/* verbs_exchange.c: the two ends of a socket. The reader, another process, opens a device of its own when it hears of
 * the server, and sends its samples at the end. */
void exchange_read(int server, const struct settings *settings);
void exchange_serve(struct bench *bench, const struct mechanism *mechanism, double *ret_first_byte);

#endif
