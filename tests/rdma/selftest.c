/* SPDX-License-Identifier: BSD-2-Clause */
#include "selftest.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "rdma/sync.h"

#define POOL_SIZE (LEASE_SLOTS * LEASE_SIZE)

const char *program = "/proc/self/exe", *address = "10.99.0.1";
struct fabric *fabric;
struct layout_segment pool;
const struct exposure_ops *const ops = &fabric_exposure_ops;
_Atomic uint64_t skipped_ns;
uint64_t spare_bytes;
unsigned test_seconds = 240;

/* It stands still: an emulated and busy machine may take longer to connect than a cookie lives. */
static uint64_t test_clock(void)
{
    return NS_PER_S + skipped_ns;
}

void start_fabric(const char *revoke)
{
    struct fabric_config config = {.device = address, .revoke = revoke, .spare_bytes = spare_bytes};
    char *error = NULL;

    if (fabric_start(&config, &fabric, &error) < 0) {
        printf("# %s\n", error);
        _exit(1);
    }
    fabric->now_ns = test_clock;
}

void pass_time(uint64_t ns)
{
    uint64_t until = monotonic_ns() + ns;

    while (monotonic_ns() < until)
        ;
}

static void stop_and_skip_unless(bool there)
{
    fabric_stop(fabric);
    if (!there)
        exit(SKIPPED);
}

void skip_without_rereg(void)
{
    start_fabric(NULL);
    stop_and_skip_unless(fabric->rereg != REREG_NONE);
}

void skip_without_memory_on_demand(void)
{
    start_fabric(NULL);
    stop_and_skip_unless(fabric->on_demand_works);
}

uint8_t *pool_byte(unsigned slot, size_t offset)
{
    return (uint8_t *)pool.base + (size_t)slot * LEASE_SIZE + offset;
}

size_t count_others(const uint8_t *bytes, size_t length, uint8_t than)
{
    size_t found = 0;

    /* Mostly there is none, and an emulated machine sees that much sooner so. */
    if (bytes[0] == than && !memcmp(bytes, bytes + 1, length - 1))
        return 0;
    for (size_t i = 0; i < length; i++)
        found += bytes[i] != than;
    return found;
}

void expose(struct exposure_session *session, unsigned slot, enum lease_mode mode, struct lease *lease)
{
    for (unsigned i = 0; i < 4; i++)
        lease->runs[i] = (struct layout_run){.offset = (uint64_t)slot * LEASE_SIZE + (3 - i) * MIB, .length = MIB};
    struct exposure_request request = {
        .mode = mode,
        .range = {FILE_OFFSET, LEASE_SIZE},
        .segments = &pool,
        .runs = lease->runs,
        .n_runs = 4,
    };

    CHECK(ops->expose(session, &request, &lease->exposure, &lease->grant) == 0);
}

void end_lease(struct lease *lease)
{
    ops->revoke(lease->exposure);
    CHECK(ops->fence(lease->exposure) == 0);
    ops->drop(lease->exposure);
}

struct exposure_session *open_session(uint64_t id)
{
    struct exposure_session *session;

    CHECK(ops->session_open(fabric, id, NULL, &session) == 0);
    return session;
}

struct exposure_session *start_peer(struct peer *peer, uint64_t session_id)
{
    peer_start(peer, program);
    return open_session(session_id);
}

void end_peer(struct peer *peer, struct exposure_session *session)
{
    ops->session_close(session);
    peer_stop(peer);
}

const char *connect_with(struct peer *peer, const struct exposure_address *where, const char *fault)
{
    char hex[2 * LEASEFS_COOKIE_SIZE + 1];

    for (int i = 0; i < LEASEFS_COOKIE_SIZE; i++)
        sprintf(hex + 2 * i, "%02x", where->cookie[i]);
    return peer_ask(peer, "connect %s %u %s %s", address,
                    ntohs(((const struct sockaddr_in *)&where->address)->sin_port), hex, fault);
}

const char *connect_peer(struct peer *peer, struct exposure_session *session)
{
    struct exposure_address where;

    CHECK(ops->session_connect(session, &where) == 0);
    return connect_with(peer, &where, "");
}

const char *read_from(struct peer *peer, const struct lease *lease, size_t offset, size_t length)
{
    return peer_ask(peer, "read %llu %u %zu", (unsigned long long)lease->grant.remote_address + offset,
                    lease->grant.rkey, length);
}

const char *write_to(struct peer *peer, const struct lease *lease, size_t offset, size_t length, int byte)
{
    return peer_ask(peer, "write %llu %u %zu %d", (unsigned long long)lease->grant.remote_address + offset,
                    lease->grant.rkey, length, byte);
}

const char *hammer(struct peer *peer, const struct lease *lease, bool read, int byte)
{
    return peer_ask(peer, "hammer %s %llu %u %u %d", read ? "read" : "write",
                    (unsigned long long)lease->grant.remote_address, lease->grant.rkey, LEASE_SIZE, byte);
}

const char *wc(int status)
{
    static char text[16];

    snprintf(text, sizeof(text), "wc %d", status);
    return text;
}

json_int_t status_of(const char *group, const char *subgroup, const char *name)
{
    json_t *status = ops->status(fabric);
    json_t *part = json_object_get(status, group);
    json_int_t value;

    CHECK(part);
    if (subgroup)
        part = json_object_get(part, subgroup);
    CHECK(json_object_get(part, name));
    value = json_integer_value(json_object_get(part, name));
    json_decref(status);
    return value;
}

/* Waits, on the fabric's own condition, until no connection is left and at most so many sessions. */
static void wait_until_left(unsigned sessions, uint64_t allowed_ns)
{
    uint64_t deadline = monotonic_ns() + allowed_ns;
    bool done;
    int r = 0;

    pthread_mutex_lock(&fabric->lock);
    do
        done = LIST_EMPTY(&fabric->connections) && fabric->n_objects <= sessions;
    while (!done && (r = sync_wait_until(&fabric->changed, &fabric->lock, deadline)) != -ETIMEDOUT);
    pthread_mutex_unlock(&fabric->lock);
    CHECK(done);
}

void wait_until_no_connection(uint64_t allowed_ns)
{
    wait_until_left(UINT_MAX, allowed_ns);
}

void wait_until_nothing_is_left(uint64_t allowed_ns)
{
    wait_until_left(0, allowed_ns);
}

/* In a process of its own: verbs are opened anew, and a failure takes nothing with it. Its exit status. */
static int run_test(const struct selftest *test)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        int fd = memfd_create("pool", MFD_CLOEXEC);

        if (fd < 0 || ftruncate(fd, POOL_SIZE) < 0)
            _exit(1);
        pool = (struct layout_segment){.fd = fd, .size = POOL_SIZE, .page_size = 4096};
        pool.base = mmap(NULL, POOL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
        if (pool.base == MAP_FAILED)
            _exit(1);
        alarm(test_seconds);
        test->run();
        exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return 1;
    return WEXITSTATUS(status);
}

int selftest_main(int argc, char **argv, const struct selftest *tests, size_t n_tests)
{
    int failed = 0;

    if (argc > 1 && !strcmp(argv[1], "peer"))
        return peer_main();
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1)
        address = argv[1];
    printf("1..%zu\n", n_tests);
    for (size_t i = 0; i < n_tests; i++) {
        if (argc > 2 && !strstr(tests[i].name, argv[2])) {
            printf("ok %zu - %s # SKIP not asked for\n", i + 1, tests[i].name);
            continue;
        }
        fflush(stdout);
        int status = run_test(&tests[i]);
        bool ok = status == 0 || status == SKIPPED;

        printf("%sok %zu - %s%s\n", ok ? "" : "not ", i + 1, tests[i].name, status == SKIPPED ? " # SKIP" : "");
        fflush(stdout);
        failed += !ok;
    }
    return failed != 0;
}
