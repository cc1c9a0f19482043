/* SPDX-License-Identifier: BSD-2-Clause */

/* What exposing memory and taking it back costs with bare verbs: the least that a lease can cost. Used by tools/bench.
 *
 * Each round maps a window of memory that is there already, registers it, takes remote access away by one mechanism
 * and cleans up. A server does neither in a hot loop: somebody's message wakes a thread, which then finds its code and
 * the kernel's out of the caches. So before each of the two another process is asked for a byte, and gives it after a
 * millisecond; only the verbs are timed.
 *
 * With --exchange also all that a client's first byte needs: another process asks by a message, is told an address and
 * a key, and reads a byte over a connection that was there before. Back to back, as leasefs_bench asks for leases.
 *
 * Prints one JSON object with lists of microseconds. Exit code 77: the device cannot do it. */

#include "tools/bench.d/verbs_bench.h"

#include <argp.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

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

static void prepare_mw(struct bench *bench)
{
    struct ibv_device_attr attr;

    if (ibv_query_device(bench->context, &attr) ||
        !(attr.device_cap_flags & (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B)))
        errx(CANNOT, "no memory windows of type 2 here");
    bench->cq = ibv_create_cq(bench->context, 32, NULL, NULL, 0);
    if (!bench->cq)
        err(1, "cq");
    bench->qp = make_qp(bench->pd, bench->cq);
    connect_qp(bench->qp, bench->qp->qp_num);
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
static void run_client(int server, const struct settings *settings)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    char byte;

    (void)settings;
    while (read(server, &byte, 1) == 1) {
        nanosleep(&pause, NULL);
        if (write(server, &byte, 1) != 1)
            break;
    }
}

/* Before the device is opened: the child has none. Returns our end of its socket. */
static int start_client(void (*run)(int server, const struct settings *settings), const struct settings *settings,
                        int not_its)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        err(1, "socketpair");
    switch (fork()) {
    case -1:
        err(1, "fork");
    case 0:
        close(ends[0]);
        if (not_its >= 0)
            close(not_its);
        run(ends[1], settings);
        _exit(0);
    }
    close(ends[1]);
    return ends[0];
}

static void await_request(struct bench *bench)
{
    char byte = 0;

    if (write(bench->client, &byte, 1) != 1 || read(bench->client, &byte, 1) != 1)
        errx(1, "the process that asks is gone");
}

/* ---- the server ---- */

void expose(struct bench *bench, const struct mechanism *mechanism)
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

void clean_up(struct bench *bench)
{
    if (bench->mr && ibv_dereg_mr(bench->mr))
        err(1, "dereg");
    munmap(bench->window, bench->settings->size);
    bench->mr = NULL;
}

/* ---- rounds ---- */

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
    double *exposing = samples_new(count), *revoking = samples_new(count), *first_byte = samples_new(count);

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
    if (bench->settings->exchange)
        exchange_serve(bench, mechanism, first_byte);
    putchar('{');
    if (bench->settings->exchange)
        print_samples("first_byte_us", first_byte, count, false);
    print_samples("expose_us", exposing, count, false);
    print_samples("revoke_us", revoking, count, true);
    puts("}");
    free(exposing);
    free(revoking);
    free(first_byte);
}

/* Memory that is there and has been written, as a pool's: Linux maps the pages around a fault only then, too. */
static void make_memory(struct bench *bench)
{
    uint64_t size = bench->settings->size;
    void *map;

    bench->memory = memfd_create("verbs_bench", MFD_CLOEXEC);
    if (bench->memory < 0 || ftruncate(bench->memory, (off_t)size) || fallocate(bench->memory, 0, 0, (off_t)size))
        err(1, "%llu bytes of memory", (unsigned long long)size);
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, bench->memory, 0);
    if (map == MAP_FAILED)
        err(1, "mmap");
    memset(map, 0xA5, size);
    munmap(map, size);
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
    close(bench->reader);
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
    case 'x':
        settings->exchange = true;
        return 0;
    case ARGP_KEY_ARG:
        settings->mechanism = arg;
        return 0;
    case ARGP_KEY_END:
        if (!settings->mechanism || !settings->size || !settings->count)
            argp_error(state, "a mechanism, a size and a count are needed");
        if (settings->exchange && !strcmp(settings->mechanism, "mw"))
            argp_error(state, "a window's key is for one queue pair: no exchange with mw");
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
        {"exchange", 'x', NULL, 0, "Measure a client's first byte, too", 0},
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
            bench.client = start_client(run_client, &settings, -1);
            bench.reader = start_client(exchange_read, &settings, bench.client);
            bench.pd = open_device(settings.device);
            bench.context = bench.pd->context;
            make_memory(&bench);
            run(&bench, &mechanisms[i]);
            close_all(&bench);
            return 0;
        }
    }
    errx(2, "no such mechanism: %s", settings.mechanism);
}
