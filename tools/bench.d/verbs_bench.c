/* SPDX-License-Identifier: BSD-2-Clause */

/* What exposing memory and taking it back costs with bare verbs: the least that a lease can cost. Used by tools/bench.
 *
 * Each round maps a window of memory that is there already, registers it, takes remote access away by one mechanism
 * and cleans up. A server does neither in a hot loop: somebody's message wakes a thread, which then finds its code and
 * the kernel's out of the caches. So before each of the two another process is asked for a byte, and gives it after a
 * millisecond; only the verbs are timed. Prints one JSON object with lists of microseconds. Exit code 77: the device
 * cannot do it. */

#include <argp.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "rdma/rereg.h"

#define CANNOT 77

struct settings {
    const char *mechanism, *device;
    uint64_t size;
    unsigned count;
};

struct bench {
    const struct settings *settings;
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_cq *cq;
    struct ibv_qp *qp; /* connected to itself: windows are bound through a working one */
    enum rereg_path rereg;
    int memory; /* memfd */
    int client; /* a socket: who asks */

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

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- mechanisms ---- */

static void revoke_by_dereg(struct bench *bench)
{
    if (ibv_dereg_mr(bench->mr))
        err(1, "dereg");
    bench->mr = NULL;
}

static void prepare_rereg(struct bench *bench)
{
    bool moves;

    bench->rereg = rereg_probe(bench->context, &moves);
    if (bench->rereg == REREG_NONE)
        errx(CANNOT, "no rereg here");
}

static void revoke_by_rereg(struct bench *bench)
{
    int status = rereg_to_no_access(bench->rereg, bench->mr);

    if (status)
        errx(1, "rereg: %s", strerror(-status));
}

static void prepare_odp(struct bench *bench)
{
    struct ibv_device_attr_ex attr = {0};

    if (ibv_query_device_ex(bench->context, NULL, &attr) || !(attr.odp_caps.general_caps & IBV_ODP_SUPPORT) ||
        !(attr.odp_caps.per_transport_caps.rc_odp_caps & IBV_ODP_SUPPORT_READ))
        errx(CANNOT, "no paging on demand here");
}

static void revoke_by_odp(struct bench *bench)
{
    if (mmap(bench->window, bench->settings->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
             -1, 0) == MAP_FAILED)
        err(1, "mmap");
}

static void make_qp(struct bench *bench)
{
    struct ibv_qp_init_attr attr = {
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = 16, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
    };

    bench->cq = ibv_create_cq(bench->context, 32, NULL, NULL, 0);
    if (!bench->cq)
        err(1, "cq");
    attr.send_cq = attr.recv_cq = bench->cq;
    bench->qp = ibv_create_qp(bench->pd, &attr);
    if (!bench->qp)
        err(1, "qp");
}

static void connect_qp(struct bench *bench, int gid_index, enum ibv_mtu mtu)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    union ibv_gid gid;

    if (ibv_query_gid(bench->context, 1, gid_index, &gid))
        err(1, "gid");
    if (ibv_modify_qp(bench->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
        err(1, "qp: init");
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTR,
        .path_mtu = mtu,
        .dest_qp_num = bench->qp->qp_num,
        .min_rnr_timer = 12,
        .ah_attr = {.is_global = 1,
                    .port_num = 1,
                    .grh = {.dgid = gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 1}},
    };
    if (ibv_modify_qp(bench->qp, &attr,
                      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
        err(1, "qp: rtr");
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7};
    if (ibv_modify_qp(bench->qp, &attr,
                      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                          IBV_QP_MAX_QP_RD_ATOMIC))
        err(1, "qp: rts");
}

static void prepare_mw(struct bench *bench)
{
    struct ibv_device_attr attr;
    struct ibv_port_attr port;

    if (ibv_query_device(bench->context, &attr) ||
        !(attr.device_cap_flags & (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B)))
        errx(CANNOT, "no memory windows of type 2 here");
    if (ibv_query_port(bench->context, 1, &port))
        err(1, "port");
    make_qp(bench);
    connect_qp(bench, 0, port.active_mtu);
}

static void bind_mw(struct bench *bench)
{
    struct ibv_send_wr request = {.opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED}, *bad;
    struct ibv_wc completion;
    int n;

    bench->mw = ibv_alloc_mw(bench->pd, IBV_MW_TYPE_2);
    if (!bench->mw)
        errx(CANNOT, "memory windows of type 2 are promised, but there are none: %s", strerror(errno));
    request.bind_mw.mw = bench->mw;
    request.bind_mw.rkey = ibv_inc_rkey(bench->mw->rkey);
    request.bind_mw.bind_info = (struct ibv_mw_bind_info){
        .mr = bench->mr,
        .addr = (uintptr_t)bench->window,
        .length = bench->settings->size,
        .mw_access_flags = IBV_ACCESS_REMOTE_READ,
    };
    if (ibv_post_send(bench->qp, &request, &bad))
        err(1, "bind");
    while ((n = ibv_poll_cq(bench->cq, 1, &completion)) == 0)
        ;
    if (n < 0 || completion.status != IBV_WC_SUCCESS)
        errx(1, "bind: %s", n < 0 ? "no completion" : ibv_wc_status_str(completion.status));
}

static void revoke_by_mw(struct bench *bench)
{
    if (ibv_dealloc_mw(bench->mw))
        err(1, "dealloc_mw");
    bench->mw = NULL;
}

static const struct mechanism mechanisms[] = {
    {"dereg", 0, NULL, NULL, revoke_by_dereg},
    {"rereg", 0, prepare_rereg, NULL, revoke_by_rereg},
    {"odp", IBV_ACCESS_ON_DEMAND, prepare_odp, NULL, revoke_by_odp},
    {"mw", IBV_ACCESS_MW_BIND, prepare_mw, bind_mw, revoke_by_mw},
};

/* ---- who asks ---- */

/* Another process, which ends with the other side of its socket. */
static void run_client(int server)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    char byte;

    while (read(server, &byte, 1) == 1) {
        nanosleep(&pause, NULL);
        if (write(server, &byte, 1) != 1)
            break;
    }
    _exit(0);
}

/* Before the device is opened: the child has none. */
static void start_client(struct bench *bench)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        err(1, "socketpair");
    switch (fork()) {
    case -1:
        err(1, "fork");
    case 0:
        close(ends[0]);
        run_client(ends[1]);
    }
    close(ends[1]);
    bench->client = ends[0];
}

static void await_request(struct bench *bench)
{
    char byte = 0;

    if (write(bench->client, &byte, 1) != 1 || read(bench->client, &byte, 1) != 1)
        errx(1, "the process that asks is gone");
}

/* ---- rounds ---- */

static void expose(struct bench *bench, const struct mechanism *mechanism)
{
    bench->window = mmap(NULL, bench->settings->size, PROT_READ | PROT_WRITE, MAP_SHARED, bench->memory, 0);
    if (bench->window == MAP_FAILED)
        err(1, "mmap");
    bench->mr = ibv_reg_mr(bench->pd, bench->window, bench->settings->size,
                           IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | mechanism->access);
    if (!bench->mr)
        err(1, "reg_mr");
    if (mechanism->expose_more)
        mechanism->expose_more(bench);
}

static void clean_up(struct bench *bench)
{
    if (bench->mr && ibv_dereg_mr(bench->mr))
        err(1, "dereg");
    munmap(bench->window, bench->settings->size);
    bench->mr = NULL;
}

static void print_samples(const char *name, const double *samples, unsigned count, bool last)
{
    printf("\"%s\": [", name);
    for (unsigned i = 0; i < count; i++)
        printf("%s%.3f", i ? ", " : "", samples[i]);
    printf("]%s", last ? "" : ", ");
}

static void run(struct bench *bench, const struct mechanism *mechanism)
{
    unsigned count = bench->settings->count;
    double *exposing = calloc(count, sizeof(*exposing)), *revoking = calloc(count, sizeof(*revoking));

    if (!exposing || !revoking)
        err(1, "memory");
    if (mechanism->prepare)
        mechanism->prepare(bench);
    for (unsigned i = 0; i < count; i++) {
        uint64_t started;

        await_request(bench);
        started = now_ns();
        expose(bench, mechanism);
        exposing[i] = (double)(now_ns() - started) / 1e3;
        await_request(bench);
        started = now_ns();
        mechanism->revoke(bench);
        revoking[i] = (double)(now_ns() - started) / 1e3;
        clean_up(bench);
    }
    putchar('{');
    print_samples("expose_us", exposing, count, false);
    print_samples("revoke_us", revoking, count, true);
    puts("}");
    free(exposing);
    free(revoking);
}

static void open_device(struct bench *bench)
{
    int n;
    struct ibv_device **devices = ibv_get_device_list(&n);
    const char *name = bench->settings->device;

    for (int i = 0; devices && i < n && !bench->context; i++)
        if (!name || !strcmp(name, ibv_get_device_name(devices[i])))
            bench->context = ibv_open_device(devices[i]);
    if (!bench->context)
        errx(CANNOT, "no RDMA device%s%s", name ? " " : "", name ? name : "");
    ibv_free_device_list(devices);
    bench->pd = ibv_alloc_pd(bench->context);
    if (!bench->pd)
        err(1, "pd");
}

/* Memory that is there, as a pool's is. */
static void make_memory(struct bench *bench)
{
    bench->memory = memfd_create("verbs_bench", MFD_CLOEXEC);
    if (bench->memory < 0 || ftruncate(bench->memory, (off_t)bench->settings->size) ||
        fallocate(bench->memory, 0, 0, (off_t)bench->settings->size))
        err(1, "%llu bytes of memory", (unsigned long long)bench->settings->size);
}

static void close_all(struct bench *bench)
{
    if (bench->qp)
        ibv_destroy_qp(bench->qp);
    if (bench->cq)
        ibv_destroy_cq(bench->cq);
    ibv_dealloc_pd(bench->pd);
    ibv_close_device(bench->context);
    close(bench->memory);
    close(bench->client);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct settings *settings = state->input;

    switch (key) {
    case 'D':
        settings->device = arg;
        return 0;
    case 's':
        settings->size = strtoull(arg, NULL, 10);
        return 0;
    case 'n':
        settings->count = (unsigned)strtoul(arg, NULL, 10);
        return 0;
    case ARGP_KEY_ARG:
        settings->mechanism = arg;
        return 0;
    case ARGP_KEY_END:
        if (!settings->mechanism || !settings->size || !settings->count)
            argp_error(state, "a mechanism, a size and a count are needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"device", 'D', "NAME", 0, "RDMA device (the first)", 0},
        {"size", 's', "BYTES", 0, "Bytes exposed (4096)", 0},
        {"count", 'n', "N", 0, "Rounds (20)", 0},
        {0},
    };
    static const struct argp argp = {.options = options,
                                     .parser = parse,
                                     .args_doc = "dereg|rereg|odp|mw",
                                     .doc = "Measures exposing and revoking memory with bare verbs."};
    struct settings settings = {.size = 4096, .count = 20};
    struct bench bench = {.settings = &settings};

    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    for (size_t i = 0; i < sizeof(mechanisms) / sizeof(*mechanisms); i++) {
        if (!strcmp(mechanisms[i].name, settings.mechanism)) {
            start_client(&bench);
            open_device(&bench);
            make_memory(&bench);
            run(&bench, &mechanisms[i]);
            close_all(&bench);
            return 0;
        }
    }
    errx(2, "no such mechanism: %s", settings.mechanism);
}
