/* SPDX-License-Identifier: BSD-2-Clause */
#include "peer.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <leasefs/protocol.h>

#define DEPTH       4
#define SLOT_SIZE   (4u << 20)
#define BUFFER_SIZE (DEPTH * SLOT_SIZE)
#define STORM_DEPTH 32
#define STORM_LARGE 2u         /* of them are of up to this size: */
#define LARGE_SIZE  (2u << 20) /* reads go to the buffer's first half, writes come from the second */
#define SMALL_SIZE  (128u << 10)
#define RESOLVE_MS  2000
#define RETRIES     7 /* on soft-RoCE: for ever. Fewer would not do on a bad wire: a loss in a WRITE costs one of them */
#define ACK_TIMEOUT 14 /* 4.096 us << 14: 67 ms, not the seconds that rdma_cm takes */

struct connection {
    struct rdma_event_channel *channel;
    struct rdma_cm_id *id;
    struct ibv_cq *cq;
    bool disconnected;
};

static uint8_t *buffer;
static size_t to_scan; /* of it: what came from outside is in there */
static struct connection connection;
/* These outlive connections: registering so much takes longer than connecting. */
static struct ibv_pd *domain;
static struct ibv_mr *registered;

static void answer(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void answer(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

static void die(const char *what)
{
    fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The next event, whatever it is; its rejection code in *ret_code. */
static int wait_event(unsigned *ret_code)
{
    struct rdma_cm_event *event;
    struct leasefs_cm_reject reject = {0};
    int type;

    if (rdma_get_cm_event(connection.channel, &event) < 0)
        die("rdma_get_cm_event");
    type = event->event;
    if (type == RDMA_CM_EVENT_REJECTED && event->param.conn.private_data_len >= sizeof(reject)) {
        memcpy(&reject, event->param.conn.private_data, sizeof(reject));
        if (le32toh(reject.magic) != LEASEFS_CM_MAGIC)
            reject.code = 0;
    }
    *ret_code = le32toh(reject.code);
    rdma_ack_cm_event(event);
    return type;
}

static void close_connection(void)
{
    struct connection *c = &connection;

    if (c->id && c->id->qp)
        rdma_destroy_qp(c->id);
    if (c->cq)
        ibv_destroy_cq(c->cq);
    if (c->id)
        rdma_destroy_id(c->id);
    if (c->channel)
        rdma_destroy_event_channel(c->channel);
    *c = (struct connection){0};
}

static bool resolve(const char *host, const char *port)
{
    struct connection *c = &connection;
    struct addrinfo *address, hints = {.ai_socktype = SOCK_STREAM};
    uint8_t ack_timeout = ACK_TIMEOUT;
    unsigned code;
    bool resolved;

    if (getaddrinfo(host, port, &hints, &address))
        die(host);
    c->channel = rdma_create_event_channel();
    if (!c->channel || rdma_create_id(c->channel, &c->id, NULL, RDMA_PS_TCP) < 0)
        die("rdma_create_id");
    resolved = rdma_resolve_addr(c->id, NULL, address->ai_addr, RESOLVE_MS) == 0 &&
               wait_event(&code) == RDMA_CM_EVENT_ADDR_RESOLVED && rdma_resolve_route(c->id, RESOLVE_MS) == 0 &&
               wait_event(&code) == RDMA_CM_EVENT_ROUTE_RESOLVED;
    freeaddrinfo(address);
    if (resolved &&
        rdma_set_option(c->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &ack_timeout, sizeof(ack_timeout)) < 0)
        die("rdma_set_option");
    return resolved;
}

static void make_qp(void)
{
    struct connection *c = &connection;

    if (!domain) {
        domain = ibv_alloc_pd(c->id->verbs);
        registered = domain ? ibv_reg_mr(domain, buffer, BUFFER_SIZE, IBV_ACCESS_LOCAL_WRITE) : NULL;
        if (!registered)
            die("ibv_reg_mr");
    }
    c->cq = ibv_create_cq(c->id->verbs, STORM_DEPTH + 1, NULL, NULL, 0);
    if (!c->cq)
        die("ibv_create_cq");
    struct ibv_qp_init_attr init = {
        .send_cq = c->cq,
        .recv_cq = c->cq,
        .cap = {.max_send_wr = STORM_DEPTH, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };

    if (rdma_create_qp(c->id, domain, &init) < 0)
        die("rdma_create_qp");
}

static void parse_cookie(const char *hex, uint8_t *cookie)
{
    for (int i = 0; i < LEASEFS_COOKIE_SIZE; i++) {
        unsigned byte = 0;

        sscanf(hex + 2 * i, "%2x", &byte);
        cookie[i] = (uint8_t)byte;
    }
}

static void do_connect(const char *line)
{
    char host[64], port[16], hex[40], fault[16] = "";
    struct leasefs_cm_request request = {.magic = htole32(LEASEFS_CM_MAGIC),
                                         .version = htole16(LEASEFS_PROTOCOL_VERSION)};
    unsigned code;
    int event;

    close_connection();
    if (sscanf(line, "connect %63s %15s %39s %15s", host, port, hex, fault) < 3)
        die(line);
    parse_cookie(hex, request.cookie);
    if (!strcmp(fault, "version"))
        request.version = htole16(999);
    if (!resolve(host, port)) {
        answer("failed to resolve %s", host);
        return;
    }
    make_qp();

    struct rdma_conn_param param = {
        .private_data = strcmp(fault, "short") ? (void *)&request : NULL,
        .private_data_len = strcmp(fault, "short") ? sizeof(request) : 0,
        .initiator_depth = DEPTH,
        .retry_count = RETRIES,
        .rnr_retry_count = 7,
    };

    if (rdma_connect(connection.id, &param) < 0)
        die("rdma_connect");
    event = wait_event(&code);
    if (event == RDMA_CM_EVENT_ESTABLISHED) {
        fcntl(connection.channel->fd, F_SETFL, fcntl(connection.channel->fd, F_GETFL) | O_NONBLOCK);
        answer("ok");
    } else if (event == RDMA_CM_EVENT_REJECTED) {
        answer("rejected %u", code);
    } else {
        answer("failed %s", rdma_event_str((enum rdma_cm_event_type)event));
    }
}

/* A server that ends the connection says so here; answering flushes what is outstanding. */
static void look_at_events(void)
{
    struct rdma_cm_event *event;

    if (rdma_get_cm_event(connection.channel, &event) < 0)
        return;
    /* Rejected: by a server that ends the connection before it has heard that it is there. */
    if (event->event == RDMA_CM_EVENT_DISCONNECTED || event->event == RDMA_CM_EVENT_REJECTED) {
        connection.disconnected = true;
        rdma_disconnect(connection.id);
    }
    rdma_ack_cm_event(event);
}

static int wait_completion(uint64_t *ret_slot)
{
    struct ibv_wc wc;
    int n, spins = 0;

    while ((n = ibv_poll_cq(connection.cq, 1, &wc)) == 0)
        if (++spins % 64 == 0)
            look_at_events();
    if (n < 0)
        die("ibv_poll_cq");
    if (ret_slot)
        *ret_slot = wc.wr_id;
    return wc.status;
}

static void post_from(enum ibv_wr_opcode opcode, uint64_t id, uint8_t *local, uint64_t remote, uint32_t rkey,
                      uint32_t length)
{
    struct ibv_sge sge = {(uintptr_t)local, length, registered->lkey};
    struct ibv_send_wr *bad, wr = {
                                 .wr_id = id,
                                 .sg_list = &sge,
                                 .num_sge = length ? 1 : 0,
                                 .opcode = opcode,
                                 .send_flags = IBV_SEND_SIGNALED,
                                 .wr.rdma = {.remote_addr = remote, .rkey = rkey},
                             };

    if (ibv_post_send(connection.id->qp, &wr, &bad))
        die("ibv_post_send");
}

static void post(enum ibv_wr_opcode opcode, unsigned slot, uint64_t remote, uint32_t rkey, uint32_t length)
{
    post_from(opcode, slot, buffer + (size_t)slot * SLOT_SIZE, remote, rkey, length);
}

static int uniform_byte(size_t length)
{
    for (size_t i = 1; i < length; i++)
        if (buffer[i] != buffer[0])
            return -1;
    return buffer[0];
}

static void answer_status(int status)
{
    if (status == IBV_WC_SUCCESS)
        answer("ok");
    else
        answer("wc %d", status);
}

static void do_transfer(const char *line)
{
    char what[8];
    uint64_t remote;
    uint32_t rkey, length;
    int byte = 0, status;

    if (sscanf(line, "%7s %" SCNu64 " %" SCNu32 " %" SCNu32 " %d", what, &remote, &rkey, &length, &byte) < 4)
        die(line);
    bool read = !strcmp(what, "read");

    memset(buffer, read ? 0xcc : byte, length);
    post(read ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE, 0, remote, rkey, length);
    status = wait_completion(NULL);
    if (status == IBV_WC_SUCCESS && read)
        answer("ok %d", uniform_byte(length));
    else
        answer_status(status);
}

static void do_send(const char *line)
{
    unsigned count = 1;
    int status = IBV_WC_SUCCESS;

    if (sscanf(line, "send %u", &count) == 1 && (count < 1 || count > STORM_DEPTH))
        die(line);
    for (unsigned i = 0; i < count; i++)
        post(IBV_WR_SEND, 0, 0, 0, 0);
    for (unsigned i = 0; i < count; i++) {
        int one = wait_completion(NULL);

        if (status == IBV_WC_SUCCESS)
            status = one;
    }
    answer_status(status);
}

static void do_invalidate(const char *line)
{
    struct ibv_send_wr *bad, wr = {.opcode = IBV_WR_SEND_WITH_INV, .send_flags = IBV_SEND_SIGNALED};

    if (sscanf(line, "invalidate %" SCNu32, &wr.invalidate_rkey) != 1)
        die(line);
    if (ibv_post_send(connection.id->qp, &wr, &bad))
        die("ibv_post_send");
    answer_status(wait_completion(NULL));
}

static void do_atomic(const char *line)
{
    struct ibv_sge sge = {(uintptr_t)buffer, 8, registered->lkey};
    struct ibv_send_wr *bad, wr = {
                                 .sg_list = &sge,
                                 .num_sge = 1,
                                 .opcode = IBV_WR_ATOMIC_FETCH_AND_ADD,
                                 .send_flags = IBV_SEND_SIGNALED,
                                 .wr.atomic = {.compare_add = 1},
                             };

    if (sscanf(line, "atomic %" SCNu64 " %" SCNu32, &wr.wr.atomic.remote_addr, &wr.wr.atomic.rkey) != 2)
        die(line);
    if (ibv_post_send(connection.id->qp, &wr, &bad))
        die("ibv_post_send");
    answer_status(wait_completion(NULL));
}

/* The rest comes back flushed: until then the buffers can still change. */
static void finish_transfers(int status, bool announced, int outstanding)
{
    char stopped[128];

    for (; outstanding; outstanding--)
        wait_completion(NULL);
    if (!announced)
        answer("wc %d", status);
    if (!fgets(stopped, sizeof(stopped), stdin) || strcmp(stopped, "stopped\n"))
        die("expected: stopped");
    answer("wc %d", status);
}

static void do_hammer(const char *line)
{
    char what[8];
    uint64_t remote, slot;
    uint32_t rkey, length;
    int byte, status, outstanding = 0;
    bool announced = false;

    if (sscanf(line, "hammer %7s %" SCNu64 " %" SCNu32 " %" SCNu32 " %d", what, &remote, &rkey, &length, &byte) < 5)
        die(line);
    enum ibv_wr_opcode opcode = !strcmp(what, "read") ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;

    memset(buffer, byte, BUFFER_SIZE);
    to_scan = BUFFER_SIZE;
    for (unsigned i = 0; i < DEPTH; i++, outstanding++)
        post(opcode, i, remote, rkey, length);
    while ((status = wait_completion(&slot)) == IBV_WC_SUCCESS) {
        if (!announced)
            answer("running");
        announced = true;
        post(opcode, (unsigned)slot, remote, rkey, length);
    }
    finish_transfers(status, announced, outstanding - 1);
}

struct storm {
    uint64_t remote;
    uint32_t rkey, length;
    unsigned seed;
    bool reads_only;
};

/* The two large slots make long answers, which only a real fence stops; the small ones keep the queues full. */
static void post_random(struct storm *storm, uint64_t slot)
{
    bool large = slot < STORM_LARGE;
    bool read = storm->reads_only || rand_r(&storm->seed) % 2;
    uint32_t most = large ? LARGE_SIZE : SMALL_SIZE >> rand_r(&storm->seed) % 15; /* down to 8 bytes */
    uint32_t length = large ? most - (uint32_t)rand_r(&storm->seed) % (LARGE_SIZE / 2) : most;
    uint32_t offset = (uint32_t)rand_r(&storm->seed) % (storm->length - length + 1);
    size_t place = large ? slot * LARGE_SIZE : STORM_LARGE * LARGE_SIZE + (slot - STORM_LARGE) * SMALL_SIZE;

    post_from(read ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE, slot, buffer + place + (read ? 0 : BUFFER_SIZE / 2),
              storm->remote + offset, storm->rkey, length);
}

static void do_storm(const char *line)
{
    struct storm storm = {0};
    char how[8] = "";
    uint64_t slot;
    int status;
    bool announced = false;

    if (sscanf(line, "storm %" SCNu64 " %" SCNu32 " %" SCNu32 " %u %7s", &storm.remote, &storm.rkey, &storm.length,
               &storm.seed, how) < 4 ||
        storm.length < LARGE_SIZE)
        die(line);
    storm.reads_only = !strcmp(how, "read");
    /* What is under way at the end: mostly small transfers, or a large one. */
    unsigned first = storm.seed % 2 ? STORM_DEPTH - 1 : 0;

    /* What is written. What an earlier storm has read may stay: it was looked at. */
    if (buffer[BUFFER_SIZE - 1] != REMOTE_BYTE || to_scan != BUFFER_SIZE / 2)
        memset(buffer, REMOTE_BYTE, BUFFER_SIZE);
    to_scan = BUFFER_SIZE / 2;
    for (unsigned i = 0; i < STORM_DEPTH; i++)
        post_random(&storm, (i + first) % STORM_DEPTH);
    while ((status = wait_completion(&slot)) == IBV_WC_SUCCESS) {
        if (!announced)
            answer("running");
        announced = true;
        post_random(&storm, slot);
    }
    finish_transfers(status, announced, STORM_DEPTH - 1);
}

static void do_scan(const char *line)
{
    const uint8_t *end = buffer + to_scan;
    uint8_t *next = buffer;
    size_t found = 0;
    int byte;

    if (sscanf(line, "scan %d", &byte) != 1)
        die(line);
    while ((next = memchr(next, byte, (size_t)(end - next)))) {
        found++;
        *next++ = REMOTE_BYTE;
    }
    answer("found %zu", found);
}

static void do_wait(void)
{
    struct pollfd channel = {.fd = connection.channel->fd, .events = POLLIN};

    while (!connection.disconnected) {
        poll(&channel, 1, -1);
        look_at_events();
    }
    answer("disconnected");
}

int peer_main(void)
{
    char line[256];

    buffer = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (buffer == MAP_FAILED)
        die("mmap");
    while (fgets(line, sizeof(line), stdin)) {
        if (!strncmp(line, "connect ", 8))
            do_connect(line);
        else if (!strncmp(line, "read ", 5) || !strncmp(line, "write ", 6))
            do_transfer(line);
        else if (!strncmp(line, "hammer ", 7))
            do_hammer(line);
        else if (!strncmp(line, "storm ", 6))
            do_storm(line);
        else if (!strncmp(line, "scan ", 5))
            do_scan(line);
        else if (!strncmp(line, "send", 4))
            do_send(line);
        else if (!strncmp(line, "invalidate ", 11))
            do_invalidate(line);
        else if (!strncmp(line, "atomic ", 7))
            do_atomic(line);
        else if (!strcmp(line, "wait\n"))
            do_wait();
        else
            die(line);
    }
    close_connection();
    if (registered)
        ibv_dereg_mr(registered);
    if (domain)
        ibv_dealloc_pd(domain);
    return 0;
}

void peer_start(struct peer *peer, const char *program)
{
    const char *elsewhere = getenv("LEASEFS_TEST_PEER");
    int in[2], out[2];

    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        die("pipe2");
    peer->pid = fork();
    if (peer->pid < 0)
        die("fork");
    if (peer->pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        if (elsewhere && *elsewhere)
            execl("/bin/sh", "sh", "-c", elsewhere, NULL);
        else
            execl(program, program, "peer", NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    peer->commands = fdopen(in[1], "w");
    peer->answers = fdopen(out[0], "r");
}

const char *peer_ask(struct peer *peer, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(peer->commands, format, args);
    va_end(args);
    fputc('\n', peer->commands);
    fflush(peer->commands);
    if (!fgets(peer->answer, sizeof(peer->answer), peer->answers))
        die("the peer is gone");
    peer->answer[strcspn(peer->answer, "\n")] = 0;
    return peer->answer;
}

void peer_stop(struct peer *peer)
{
    fclose(peer->commands);
    waitpid(peer->pid, NULL, 0);
    fclose(peer->answers);
}

void peer_kill(struct peer *peer)
{
    kill(peer->pid, SIGKILL);
    peer_stop(peer);
}
