/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The client library against the real fabric on a real device. The control service between them is a thread of a few
 * lines that knows four files, "/0" to "/3": the pool's lease slots.
 */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "selftest.h"

#include <leasefs/leasefs.h>

static struct {
    char path[64];
    int listener, fd;
    pthread_t thread;
    struct exposure_session *session;
    struct lease leases[LEASE_SLOTS];
    atomic_bool gone[LEASE_SLOTS]; /* dropped by the test itself */
    atomic_uint connects;
    atomic_bool spoil_cookie;
} control;

static void answer(json_int_t id, json_t *result)
{
    json_t *message = json_pack("{s:s, s:I, s:o}", "jsonrpc", "2.0", "id", id, "result", result);
    char *text = json_dumps(message, JSON_COMPACT), *line;

    CHECK(asprintf(&line, "%s\n", text) > 0);
    CHECK(send(control.fd, line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line));
    free(line);
    free(text);
    json_decref(message);
}

static json_t *where_to_connect(void)
{
    struct exposure_address where;
    char cookie[2 * LEASEFS_COOKIE_SIZE + 1];

    CHECK(ops->session_connect(control.session, &where) == 0);
    atomic_fetch_add(&control.connects, 1);
    if (atomic_load(&control.spoil_cookie))
        where.cookie[3] ^= 0x40;
    for (int i = 0; i < LEASEFS_COOKIE_SIZE; i++)
        sprintf(cookie + 2 * i, "%02x", where.cookie[i]);
    return json_pack("{s:s, s:i, s:s}", "address", address, "port",
                     ntohs(((const struct sockaddr_in *)&where.address)->sin_port), "cookie", cookie);
}

static json_t *grant(json_t *params)
{
    unsigned slot = (unsigned)atoi(json_string_value(json_object_get(params, "path")) + 1);
    const char *mode = json_string_value(json_object_get(params, "mode"));
    struct lease *lease = &control.leases[slot];

    expose(control.session, slot, strcmp(mode, "write") ? LEASE_READ : LEASE_WRITE, lease);
    return json_pack("{s:i, s:i, s:s, s:i, s:i, s:i, s:I, s:I, s:i}", "lease", slot + 1, "sequence", 1, "mode", mode,
                     "offset", FILE_OFFSET, "length", LEASE_SIZE, "file_size", FILE_OFFSET + LEASE_SIZE,
                     "remote_address", (json_int_t)lease->grant.remote_address, "rkey", (json_int_t)lease->grant.rkey,
                     "lease_time_ms", 60000);
}

static void serve_request(json_t *request)
{
    const char *method = json_string_value(json_object_get(request, "method"));
    json_t *params = json_object_get(request, "params");
    json_int_t id = json_integer_value(json_object_get(request, "id"));

    if (!strcmp(method, "session")) {
        answer(id, json_pack("{s:i}", "block_size", 4096));
    } else if (!strcmp(method, "connect")) {
        answer(id, where_to_connect());
    } else if (!strcmp(method, "lease")) {
        answer(id, grant(params));
    } else if (!strcmp(method, "return")) {
        json_int_t slot = json_integer_value(json_object_get(params, "lease")) - 1;

        if (!atomic_load(&control.gone[slot]))
            end_lease(&control.leases[slot]);
        answer(id, json_object());
    } else {
        CHECK(!strcmp(method, "renew"));
        answer(id, json_pack("{s:i}", "lease_time_ms", 60000));
    }
}

static void *serve(void *arg)
{
    FILE *input;
    char *line = NULL;
    size_t size = 0;

    (void)arg;
    control.fd = accept(control.listener, NULL, NULL);
    input = fdopen(dup(control.fd), "r");
    while (getline(&line, &size, input) > 0) {
        json_t *request = json_loads(line, 0, NULL);

        CHECK(request);
        serve_request(request);
        json_decref(request);
    }
    free(line);
    fclose(input);
    close(control.fd);
    return NULL;
}

static struct leasefs_session *start(const char *revoke, unsigned depth, size_t chunk)
{
    struct leasefs_session_options options = {.control = control.path, .depth = depth, .chunk = chunk};
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct leasefs_session *session;

    start_fabric(revoke);
    control.session = open_session(1);
    snprintf(control.path, sizeof(control.path), "/tmp/initiator_selftest.%d", getpid());
    strcpy(name.sun_path, control.path);
    control.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(control.listener, (struct sockaddr *)&name, sizeof(name)) == 0 && listen(control.listener, 1) == 0);
    CHECK(pthread_create(&control.thread, NULL, serve, NULL) == 0);
    CHECK(leasefs_session_open(&options, &session) == 0);
    return session;
}

static void stop(struct leasefs_session *session)
{
    leasefs_session_close(session);
    pthread_join(control.thread, NULL);
    close(control.listener);
    unlink(control.path);
    ops->session_close(control.session);
    fabric_stop(fabric);
}

static struct leasefs_lease *take(struct leasefs_session *session, const char *path, enum leasefs_mode mode)
{
    const struct leasefs_lease_options options = {.mode = mode, .unguarded = true};
    struct leasefs_lease *lease;
    int status = leasefs_lease_open(session, path, &options, &lease);

    if (status)
        printf("# %s\n", leasefs_error());
    CHECK(status == 0);
    return lease;
}

/* Where byte `offset` of a slot's file is in the pool: its runs are in reverse order. */
static uint8_t *file_byte(unsigned slot, size_t offset)
{
    return pool_byte(slot, (3 - offset / MIB) * MIB + offset % MIB);
}

static uint8_t pattern(size_t offset, unsigned seed)
{
    return (uint8_t)((offset * 2654435761u + seed) >> 11);
}

static void move_both_ways(struct leasefs_lease *lease, unsigned slot, uint8_t *bytes, size_t length, size_t offset)
{
    for (size_t i = 0; i < length; i++)
        *file_byte(slot, offset + i) = pattern(i, 1);
    memset(bytes, 0, length);
    CHECK(leasefs_read(lease, bytes, length, FILE_OFFSET + offset) == 0);
    for (size_t i = 0; i < length; i++)
        CHECK(bytes[i] == pattern(i, 1));
    for (size_t i = 0; i < length; i++)
        bytes[i] = pattern(i, 2);
    CHECK(leasefs_write(lease, bytes, length, FILE_OFFSET + offset) == 0);
    for (size_t i = 0; i < length; i++)
        CHECK(*file_byte(slot, offset + i) == pattern(i, 2));
}

static void bytes_move_from_and_to_any_memory(void)
{
    static const size_t lengths[] = {1, 4096, 65536, MIB + 12345, LEASE_SIZE};
    struct leasefs_session *session = start(NULL, 0, 0);
    struct leasefs_lease *lease = take(session, "/1", LEASEFS_WRITE);
    uint8_t *plain = malloc(LEASE_SIZE);
    void *registered;

    CHECK(leasefs_buffer_new(session, LEASE_SIZE, &registered) == 0);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        size_t offset = (LEASE_SIZE - lengths[i]) / 2;

        move_both_ways(lease, 1, plain, lengths[i], offset);
        move_both_ways(lease, 1, registered, lengths[i], offset);
    }
    CHECK(atomic_load(&control.connects) == 1);
    CHECK(leasefs_lease_return(lease) == 0);
    free(plain);
    stop(session);
}

static void a_revoked_lease_is_refused_and_the_other_goes_on(void)
{
    struct leasefs_session *session = start(NULL, 0, 0);
    struct leasefs_lease *lost = take(session, "/0", LEASEFS_READ), *kept = take(session, "/1", LEASEFS_WRITE);
    uint8_t *bytes = malloc(LEASE_SIZE);

    CHECK(leasefs_read(lost, bytes, LEASE_SIZE, FILE_OFFSET) == 0);
    CHECK(ops->revoke(control.leases[0].exposure) == 0 && ops->fence(control.leases[0].exposure) == 0);
    CHECK(leasefs_read(lost, bytes, LEASE_SIZE, FILE_OFFSET) == -EREMOTEIO);
    CHECK(strstr(leasefs_error(), "remote access error"));
    move_both_ways(kept, 1, bytes, LEASE_SIZE, 0);
    CHECK(atomic_load(&control.connects) == 2);
    CHECK(leasefs_read(lost, bytes, 4096, FILE_OFFSET) == -EREMOTEIO);
    CHECK(leasefs_write(lost, bytes, 4096, FILE_OFFSET) == -EREMOTEIO);
    move_both_ways(kept, 1, bytes, 4096, 0);
    CHECK(atomic_load(&control.connects) == 4);
    free(bytes);
    stop(session);
}

static void a_write_through_a_read_lease_changes_nothing(void)
{
    struct leasefs_session *session = start(NULL, 0, 0);
    struct leasefs_lease *lease = take(session, "/2", LEASEFS_READ);
    uint8_t bytes[8192];

    memset(pool_byte(2, 0), OLD_BYTE, LEASE_SIZE);
    memset(bytes, REMOTE_BYTE, sizeof(bytes));
    CHECK(leasefs_write(lease, bytes, sizeof(bytes), FILE_OFFSET) == -EREMOTEIO);
    for (size_t i = 0; i < LEASE_SIZE; i++)
        CHECK(*pool_byte(2, i) == OLD_BYTE);
    stop(session);
}

static atomic_bool readers_stop;

static void *read_until_stopped(void *arg)
{
    struct leasefs_lease *lease = arg;
    uint8_t *bytes = malloc(LEASE_SIZE);
    size_t rounds = 0;

    for (; !atomic_load(&readers_stop); rounds++) {
        int status = leasefs_read(lease, bytes, LEASE_SIZE, FILE_OFFSET);

        if (status)
            printf("# after %zu rounds: %s\n", rounds, leasefs_error());
        CHECK(status == 0);
        for (size_t i = 0; i < LEASE_SIZE; i += 997)
            CHECK(bytes[i] == OLD_BYTE);
    }
    free(bytes);
    return NULL;
}

/* A holder of several leases loses one in the middle of transfers of all. */
static void others_transfers_survive_a_revocation(void)
{
    struct leasefs_session *session = start(NULL, 0, 0);
    struct leasefs_lease *kept = take(session, "/1", LEASEFS_READ);
    pthread_t readers[3];
    uint8_t *bytes = malloc(LEASE_SIZE);

    memset(pool_byte(1, 0), OLD_BYTE, LEASE_SIZE);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&readers[i], NULL, read_until_stopped, kept) == 0);
    for (int round = 0; round < 5; round++) {
        struct leasefs_lease *lost = take(session, "/0", LEASEFS_READ);

        CHECK(leasefs_read(lost, bytes, LEASE_SIZE, FILE_OFFSET) == 0);
        CHECK(ops->revoke(control.leases[0].exposure) == 0);
        CHECK(leasefs_read(lost, bytes, LEASE_SIZE, FILE_OFFSET) == -EREMOTEIO);
        CHECK(leasefs_lease_return(lost) == 0);
    }
    atomic_store(&readers_stop, true);
    for (int i = 0; i < 3; i++)
        pthread_join(readers[i], NULL);
    free(bytes);
    stop(session);
}

/* The ladder's last rung breaks the peer's connection; a new one in the same domain reaches the surviving leases. */
static void a_connection_that_the_server_breaks_is_made_anew(void)
{
    struct leasefs_session *session = start("qp,dereg", 0, 0);
    struct leasefs_lease *lost = take(session, "/0", LEASEFS_READ), *kept = take(session, "/1", LEASEFS_READ);
    uint8_t bytes[4096];
    pthread_t reader;

    memset(pool_byte(1, 0), OLD_BYTE, LEASE_SIZE);
    CHECK(pthread_create(&reader, NULL, read_until_stopped, kept) == 0);
    CHECK(leasefs_read(lost, bytes, sizeof(bytes), FILE_OFFSET) == 0);
    CHECK(ops->fence(control.leases[0].exposure) == 0);
    ops->drop(control.leases[0].exposure);
    atomic_store(&control.gone[0], true);
    CHECK(leasefs_read(lost, bytes, sizeof(bytes), FILE_OFFSET) == -EREMOTEIO);
    atomic_store(&readers_stop, true);
    pthread_join(reader, NULL);
    CHECK(atomic_load(&control.connects) >= 2);
    stop(session);
}

#define QUEUED 64u

/* Waits until `n` operations of a queue have ended, by its descriptor; their statuses are noted where `user` says. */
static void gather(struct leasefs_queue *queue, unsigned n)
{
    struct pollfd readable = {.fd = leasefs_queue_fd(queue), .events = POLLIN};

    CHECK(readable.fd >= 0);
    while (n) {
        struct leasefs_event events[16];
        int got;

        CHECK(poll(&readable, 1, 60000) == 1);
        got = leasefs_queue_wait(queue, events, 0, 16, 0);
        CHECK(got >= 0 && (unsigned)got <= n);
        for (int i = 0; i < got; i++)
            *(int *)events[i].user = events[i].status;
        n -= (unsigned)got;
    }
}

static void a_queue_moves_bytes_beside_a_thread_that_waits(void)
{
    struct leasefs_session *session = start(NULL, 0, 0);
    struct leasefs_lease *lease = take(session, "/1", LEASEFS_WRITE), *other = take(session, "/2", LEASEFS_READ);
    size_t piece = LEASE_SIZE / QUEUED;
    uint8_t *plain = malloc(LEASE_SIZE);
    struct leasefs_queue *queue;
    int statuses[QUEUED];
    void *registered;
    pthread_t reader;

    memset(pool_byte(2, 0), OLD_BYTE, LEASE_SIZE);
    atomic_store(&readers_stop, false);
    CHECK(pthread_create(&reader, NULL, read_until_stopped, other) == 0);
    CHECK(leasefs_buffer_new(session, LEASE_SIZE, &registered) == 0);
    CHECK(leasefs_queue_new(session, &queue) == 0);
    for (size_t i = 0; i < LEASE_SIZE; i++)
        ((uint8_t *)registered)[i] = pattern(i, 3);
    for (unsigned i = 0; i < QUEUED; i++)
        CHECK(leasefs_submit_write(queue, lease, (uint8_t *)registered + i * piece, piece, FILE_OFFSET + i * piece,
                                   &statuses[i]) == 0);
    CHECK(leasefs_lease_return(lease) == -EBUSY);
    gather(queue, QUEUED);
    for (unsigned i = 0; i < QUEUED; i++)
        CHECK(statuses[i] == 0);
    for (unsigned i = QUEUED; i-- > 0;)
        CHECK(leasefs_submit_read(queue, lease, plain + i * piece, piece, FILE_OFFSET + i * piece, &statuses[i]) == 0);
    gather(queue, QUEUED);
    for (size_t i = 0; i < LEASE_SIZE; i++)
        CHECK(plain[i] == pattern(i, 3) && *file_byte(1, i) == pattern(i, 3));
    atomic_store(&readers_stop, true);
    pthread_join(reader, NULL);
    CHECK(atomic_load(&control.connects) == 1);
    CHECK(leasefs_lease_return(lease) == 0);
    free(plain);
    stop(session); /* frees the queue */
}

/* One of its leases is revoked under a queue's operations: those end with an error, the others go on. */
static void a_queue_survives_a_revocation(void)
{
    struct leasefs_session *session = start(NULL, 0, 0);
    struct leasefs_lease *lost = take(session, "/0", LEASEFS_READ), *kept = take(session, "/1", LEASEFS_READ);
    uint8_t *bytes = malloc(LEASE_SIZE);
    size_t piece = LEASE_SIZE / QUEUED;
    struct leasefs_queue *queue;
    int statuses[QUEUED + 1];

    memset(pool_byte(1, 0), OLD_BYTE, LEASE_SIZE);
    CHECK(leasefs_read(lost, bytes, LEASE_SIZE, FILE_OFFSET) == 0);
    CHECK(leasefs_queue_new(session, &queue) == 0);
    CHECK(ops->revoke(control.leases[0].exposure) == 0 && ops->fence(control.leases[0].exposure) == 0);
    for (unsigned i = 0; i < QUEUED; i++) {
        if (i == QUEUED / 2)
            CHECK(leasefs_submit_read(queue, lost, bytes, piece, FILE_OFFSET, &statuses[QUEUED]) == 0);
        CHECK(leasefs_submit_read(queue, kept, bytes + i * piece, piece, FILE_OFFSET + i * piece, &statuses[i]) == 0);
    }
    gather(queue, QUEUED + 1);
    CHECK(statuses[QUEUED] == -EREMOTEIO);
    for (unsigned i = 0; i < QUEUED; i++)
        CHECK(statuses[i] == 0);
    CHECK(atomic_load(&control.connects) == 2);
    free(bytes);
    stop(session);
}

static void a_wrong_cookie_is_explained(void)
{
    const struct leasefs_lease_options options = {.mode = LEASEFS_READ};
    struct leasefs_session *session = start(NULL, 0, 0);
    struct leasefs_lease *lease;

    atomic_store(&control.spoil_cookie, true);
    CHECK(leasefs_lease_open(session, "/0", &options, &lease) == -EACCES);
    CHECK(strstr(leasefs_error(), "cookie"));
    atomic_store(&control.spoil_cookie, false);
    CHECK(leasefs_lease_open(session, "/0", &options, &lease) == 0);
    stop(session);
}

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void measure(const char *what, size_t chunk, bool use_registered, size_t length)
{
    struct leasefs_session *session = start(NULL, 16, chunk);
    struct leasefs_lease *lease = take(session, "/1", LEASEFS_READ);
    uint8_t *plain = malloc(LEASE_SIZE);
    void *registered;
    double started, spent;
    size_t rounds = 0;

    CHECK(leasefs_buffer_new(session, LEASE_SIZE, &registered) == 0);
    started = seconds_now();
    do {
        CHECK(leasefs_read(lease, use_registered ? registered : plain, length, FILE_OFFSET) == 0);
        rounds++;
        spent = seconds_now() - started;
    } while (spent < 2);
    printf("# %s: %.1f MB/s, %.0f us a call\n", what, (double)(rounds * length) / spent / 1e6,
           spent / (double)rounds * 1e6);
    free(plain);
    stop(session);
}

static void measure_one_mib_requests(void)
{
    measure("4 MiB calls, 1 MiB requests, registered", MIB, true, LEASE_SIZE);
}

static void measure_64_kib_requests(void)
{
    measure("4 MiB calls, 64 KiB requests, registered", 65536, true, LEASE_SIZE);
}

static void measure_bounced(void)
{
    measure("4 MiB calls, any memory", MIB, false, LEASE_SIZE);
}

static void measure_latency(void)
{
    measure("4 KiB calls, registered", MIB, true, 4096);
}

static void measure_queue(void)
{
    struct leasefs_session *session = start(NULL, 16, MIB);
    struct leasefs_lease *lease = take(session, "/1", LEASEFS_READ);
    struct leasefs_event events[16];
    struct leasefs_queue *queue;
    double started, spent = 0;
    size_t rounds = 0;
    void *registered;
    int free_slots = 16;

    CHECK(leasefs_buffer_new(session, LEASE_SIZE, &registered) == 0);
    CHECK(leasefs_queue_new(session, &queue) == 0);
    for (started = seconds_now(); spent < 2; spent = seconds_now() - started) {
        for (; free_slots; free_slots--, rounds++)
            CHECK(leasefs_submit_read(queue, lease, registered, 4096, FILE_OFFSET, NULL) == 0);
        free_slots = leasefs_queue_wait(queue, events, 1, 16, -1);
        CHECK(free_slots > 0);
    }
    printf("# 4 KiB reads, 16 under way, registered: %.0f us a read\n", spent / (double)rounds * 1e6);
    leasefs_queue_free(queue);
    stop(session);
}

/* A refused access breaks the connection that the session's other leases use, too. */
static void measure_how_long_a_refused_access_holds_other_leases_up(void)
{
    struct leasefs_session *session = start(NULL, 0, 0);
    struct leasefs_lease *kept = take(session, "/1", LEASEFS_READ);
    double undisturbed = 0, longest = 0, total = 0;
    uint8_t bytes[4096];
    enum { ROUNDS = 20 };

    for (int round = 0; round < ROUNDS; round++) {
        struct leasefs_lease *lost = take(session, "/0", LEASEFS_READ);
        double started = seconds_now(), took;

        CHECK(leasefs_read(kept, bytes, sizeof(bytes), FILE_OFFSET) == 0);
        undisturbed += seconds_now() - started;
        CHECK(ops->revoke(control.leases[0].exposure) == 0 && ops->fence(control.leases[0].exposure) == 0);
        CHECK(leasefs_read(lost, bytes, sizeof(bytes), FILE_OFFSET) == -EREMOTEIO);
        started = seconds_now();
        CHECK(leasefs_read(kept, bytes, sizeof(bytes), FILE_OFFSET) == 0);
        took = seconds_now() - started;
        total += took;
        longest = took > longest ? took : longest;
        CHECK(leasefs_lease_return(lost) == 0);
    }
    printf("# 4 KiB through another lease right after a refused access: %.1f ms, at most %.1f; else %.1f\n",
           total / ROUNDS * 1e3, longest * 1e3, undisturbed / ROUNDS * 1e3);
    CHECK(longest < 5);
    stop(session);
}

int main(int argc, char **argv)
{
    static const struct selftest tests[] = {
        SELFTEST(bytes_move_from_and_to_any_memory),
        SELFTEST(a_revoked_lease_is_refused_and_the_other_goes_on),
        SELFTEST(a_write_through_a_read_lease_changes_nothing),
        SELFTEST(others_transfers_survive_a_revocation),
        SELFTEST(a_connection_that_the_server_breaks_is_made_anew),
        SELFTEST(a_queue_moves_bytes_beside_a_thread_that_waits),
        SELFTEST(a_queue_survives_a_revocation),
        SELFTEST(a_wrong_cookie_is_explained),
        SELFTEST(measure_one_mib_requests),
        SELFTEST(measure_64_kib_requests),
        SELFTEST(measure_bounced),
        SELFTEST(measure_latency),
        SELFTEST(measure_queue),
        SELFTEST(measure_how_long_a_refused_access_holds_other_leases_up),
    };

    return selftest_main(argc, argv, tests, sizeof(tests) / sizeof(*tests));
}
