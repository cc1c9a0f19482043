/* SPDX-License-Identifier: BSD-2-Clause */

/* Completion queues: against a NIC that is a thread, with a lease of this test's own making. */

#include <poll.h>

#include "fake_nic.h"
#include "fake_session.h"

#define PIECE      4096u
#define OPERATIONS 200u

static struct leasefs_queue *queue;
static unsigned char *bytes;            /* as many as the remote memory has */
static unsigned char ended[OPERATIONS]; /* how often */
static int statuses[OPERATIONS];
static unsigned failures;

static struct leasefs_lease *start(unsigned depth, size_t chunk)
{
    struct leasefs_lease *lease = fake_session_start(depth, chunk);

    bytes = malloc(REMOTE_SIZE);
    memset(bytes, 0xee, REMOTE_SIZE);
    memset(ended, 0, sizeof(ended));
    failures = 0;
    assert_int_equal(leasefs_queue_new(&fake_session, &queue), 0);
    return lease;
}

static void finish(void)
{
    leasefs_queue_free(queue);
    fake_session_stop();
    free(bytes);
}

static void submit_reads(struct leasefs_lease *lease, unsigned first, unsigned n)
{
    for (unsigned i = first; i < first + n; i++)
        assert_int_equal(leasefs_submit_read(queue, lease, bytes + i * PIECE, PIECE, i * PIECE, &ended[i]), 0);
}

static void note(const struct leasefs_event *events, int n)
{
    assert_true(n >= 0);
    for (int i = 0; i < n; i++) {
        size_t number = (size_t)((unsigned char *)events[i].user - ended);

        assert_true(number < OPERATIONS);
        ended[number]++;
        statuses[number] = events[i].status;
        failures += events[i].status != 0;
    }
}

static unsigned wait_for(unsigned min, int timeout_ms)
{
    struct leasefs_event events[OPERATIONS];
    int n = leasefs_queue_wait(queue, events, min, OPERATIONS, timeout_ms);

    note(events, n);
    return (unsigned)n;
}

static void check_reads(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(ended[i], 1);
        assert_int_equal(statuses[i], 0);
    }
    assert_memory_equal(bytes, nic.remote, (size_t)n * PIECE);
}

static void pause_nic(bool paused)
{
    pthread_mutex_lock(&nic.lock);
    nic.paused = paused;
    pthread_cond_signal(&nic.work_came);
    pthread_mutex_unlock(&nic.lock);
}

static void connect_now(void)
{
    struct conn *conn;

    assert_int_equal(session_conn(&fake_session, &conn), 0);
    conn_unref(conn);
}

static void submitting_returns_at_once_and_waiting_moves_the_bytes(void **state)
{
    static const unsigned depths[] = {1, 4, 16};

    (void)state;
    for (size_t d = 0; d < sizeof(depths) / sizeof(*depths); d++) {
        struct leasefs_lease *lease = start(depths[d], 1u << 20);

        connect_now();
        pause_nic(true);
        submit_reads(lease, 0, OPERATIONS);
        assert_int_equal(nic.posted, depths[d]);
        assert_int_equal(wait_for(0, 0), 0);
        assert_int_equal(wait_for(1, 20), 0);
        pause_nic(false);
        assert_int_equal(wait_for(OPERATIONS, -1), OPERATIONS);
        check_reads(OPERATIONS);
        assert_int_equal(wait_for(1, -1), 0); /* nothing to wait for */
        finish();
    }
}

static void operations_longer_than_the_ring_move_in_both_directions(void **state)
{
    (void)state;
    for (unsigned variant = 0; variant < 4; variant++) {
        struct leasefs_lease *lease = start(4, PIECE);
        unsigned char *expected = malloc(REMOTE_SIZE);
        void *buffer = bytes;

        if (variant & 1)
            assert_int_equal(device_buffer_new(device, REMOTE_SIZE, &buffer), 0);
        memset(buffer, 0x5a, REMOTE_SIZE);
        memcpy(expected, nic.remote, REMOTE_SIZE);
        if (variant & 2)
            memset(expected + 1000, 0x5a, 300000);
        assert_int_equal(variant & 2 ? leasefs_submit_write(queue, lease, buffer, 300000, 1000, &ended[0])
                                     : leasefs_submit_read(queue, lease, buffer, 300000, 1000, &ended[0]),
                         0);
        assert_int_equal(leasefs_submit_read(queue, lease, NULL, 0, 5, &ended[1]), 0);
        assert_int_equal(leasefs_submit_read(queue, lease, (char *)buffer + 300000, PIECE, 0, &ended[2]), 0);
        assert_int_equal(wait_for(3, -1), 3);
        assert_int_equal(failures, 0);
        assert_memory_equal(nic.remote, expected, REMOTE_SIZE);
        assert_memory_equal(buffer, expected + 1000, 300000);
        assert_memory_equal((char *)buffer + 300000, expected, PIECE);
        free(expected);
        finish();
    }
}

static void a_broken_connection_is_made_anew_under_operations(void **state)
{
    struct leasefs_lease *lease = start(8, 2048);

    (void)state;
    nic.break_after = 3;
    submit_reads(lease, 0, OPERATIONS);
    assert_int_equal(wait_for(OPERATIONS, -1), OPERATIONS);
    check_reads(OPERATIONS);
    assert_true(nic.connections > 100);
    nic.always_broken = true;
    submit_reads(lease, 0, 3);
    assert_int_equal(wait_for(3, -1), 3);
    assert_int_equal(failures, 3);
    assert_int_equal(statuses[2], -ENOTCONN);
    nic.always_broken = false;
    finish();
}

static void a_refused_operation_is_told_from_those_that_it_took_down(void **state)
{
    struct leasefs_lease *lease = start(8, 1u << 20), lost = *lease;

    (void)state;
    lost.layout.rkey = BAD_KEY;
    submit_reads(lease, 0, 50);
    submit_reads(&lost, 50, 1);
    submit_reads(lease, 51, 100);
    assert_int_equal(wait_for(151, -1), 151);
    assert_int_equal(failures, 1);
    assert_int_equal(statuses[50], -EREMOTEIO);
    assert_int_equal(nic.connections, 2);
    assert_int_equal(lost.transfers, 0);
    finish();
}

static void a_recall_waits_for_what_is_under_way_only(void **state)
{
    struct leasefs_lease *lease = start(4, 1u << 20);

    (void)state;
    connect_now();
    pause_nic(true);
    submit_reads(lease, 0, 20);
    pthread_mutex_lock(&fake_session.lock);
    lease->holding = HOLDING_RETURNING;
    lease->return_begun = true; /* there is no server to tell */
    pthread_mutex_unlock(&fake_session.lock);
    assert_int_equal(leasefs_submit_read(queue, lease, bytes, PIECE, 0, NULL), -ESTALE);
    pause_nic(false);
    assert_int_equal(wait_for(20, -1), 20);
    check_reads(4);
    for (unsigned i = 4; i < 20; i++)
        assert_int_equal(statuses[i], -ESTALE);
    assert_int_equal(nic.posted, 4);
    finish();
}

static void a_completion_after_the_expiry_is_no_success(void **state)
{
    struct leasefs_lease *lease = start(4, 1u << 20);

    (void)state;
    connect_now();
    submit_reads(lease, 0, 3);
    pthread_mutex_lock(&fake_session.lock);
    lease->expires_at_ns = clock_now_ns();
    pthread_mutex_unlock(&fake_session.lock);
    assert_int_equal(wait_for(3, -1), 3);
    assert_int_equal(failures, 3);
    assert_int_equal(statuses[0], -ESTALE);
    finish();
}

static void a_lease_in_use_by_a_queue_is_not_given_back(void **state)
{
    struct leasefs_lease *lease = start(4, 1u << 20);

    (void)state;
    submit_reads(lease, 0, 2);
    assert_int_equal(leasefs_lease_return(lease), -EBUSY);
    assert_int_equal(leasefs_publish(lease), -EBUSY);
    assert_int_equal(wait_for(2, -1), 2);
    assert_int_equal(failures, 0);
    assert_int_equal(lease->queued, 0);
    finish();
}

static void a_freed_queue_has_nothing_under_way(void **state)
{
    struct leasefs_lease *lease = start(4, 512);

    (void)state;
    connect_now();
    submit_reads(lease, 0, 100);
    leasefs_queue_free(queue);
    assert_int_equal(nic.executed, nic.posted);
    assert_true(nic.posted < 100);
    assert_int_equal(lease->transfers, 0);
    assert_int_equal(lease->queued, 0);
    assert_int_equal(leasefs_queue_new(&fake_session, &queue), 0);
    finish();
}

static bool readable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, timeout_ms) == 1;
}

static void the_descriptor_is_quiet_until_there_is_something_to_do(void **state)
{
    struct leasefs_lease *lease = start(4, 1u << 20);
    int fd = leasefs_queue_fd(queue);
    unsigned n = 0, looks = 0;

    (void)state;
    assert_true(fd >= 0);
    pause_nic(true);
    submit_reads(lease, 0, 100);
    /* Not for long: it has a tick for devices that fail in silence. */
    while (readable(fd, 0)) {
        assert_int_equal(wait_for(0, 0), 0);
        assert_true(++looks < 1000);
    }
    pause_nic(false);
    for (looks = 0; n < 100; looks++) {
        assert_true(readable(fd, 60000));
        n += wait_for(0, 0);
    }
    check_reads(100);
    /* A look or three for each event, not a busy loop. */
    assert_true(looks < 1000);
    while (readable(fd, 0))
        assert_int_equal(wait_for(0, 0), 0);
    finish();
}

static void the_descriptor_tells_of_a_broken_connection(void **state)
{
    struct leasefs_lease *lease = start(4, 1u << 20);
    int fd = leasefs_queue_fd(queue);
    unsigned n = 0;

    (void)state;
    connect_now();
    pause_nic(true);
    submit_reads(lease, 0, 10);
    while (readable(fd, 0))
        assert_int_equal(wait_for(0, 0), 0);
    pthread_mutex_lock(&nic.lock);
    nic.in_error = true; /* flushes what it has */
    nic.paused = false;
    pthread_cond_signal(&nic.work_came);
    pthread_mutex_unlock(&nic.lock);
    while (n < 10) {
        assert_true(readable(fd, 60000));
        n += wait_for(0, 0);
    }
    check_reads(10);
    assert_int_equal(nic.connections, 2);
    finish();
}

/* ---- several threads ---- */

enum style { BLOCKING, WAITING, LOOKING, AT_DESCRIPTOR, STYLES };

struct member {
    pthread_t thread;
    enum style style;
    struct leasefs_lease *lease;
    unsigned char *memory;
    uint64_t offset;
};

#define PART  (REMOTE_SIZE / 8)
#define BURST 24u

static unsigned gather(struct leasefs_queue *own, int fd, enum style style)
{
    struct leasefs_event events[BURST];
    int n;

    if (style == AT_DESCRIPTOR)
        assert_true(readable(fd, 60000));
    n = leasefs_queue_wait(own, events, style == WAITING, BURST, style == WAITING ? 60000 : 0);
    assert_true(n >= 0);
    for (int i = 0; i < n; i++)
        assert_int_equal(events[i].status, 0);
    return (unsigned)n;
}

/* Writes its part, reads it back. */
static void burst(const struct member *member, struct leasefs_queue *own, int fd, bool write)
{
    for (unsigned i = 0; i < BURST; i++) {
        uint64_t at = member->offset + i * (PART / BURST);
        unsigned char *memory = member->memory + i * (PART / BURST);
        int status;

        if (member->style == BLOCKING)
            status = write ? leasefs_write(member->lease, memory, PART / BURST, at)
                           : leasefs_read(member->lease, memory, PART / BURST, at);
        else
            status = write ? leasefs_submit_write(own, member->lease, memory, PART / BURST, at, NULL)
                           : leasefs_submit_read(own, member->lease, memory, PART / BURST, at, NULL);
        assert_int_equal(status, 0);
    }
    for (unsigned n = 0; member->style != BLOCKING && n < BURST;)
        n += gather(own, fd, member->style);
}

static void *take_part(void *arg)
{
    const struct member *member = arg;
    struct leasefs_queue *own = NULL;
    int fd = -1;

    if (member->style != BLOCKING)
        assert_int_equal(leasefs_queue_new(&fake_session, &own), 0);
    if (member->style == AT_DESCRIPTOR)
        fd = leasefs_queue_fd(own);
    for (unsigned round = 0; round < 20; round++) {
        unsigned char value = (unsigned char)(member->offset / PART * 31 + round);

        memset(member->memory, value, PART);
        burst(member, own, fd, true);
        memset(member->memory, 0, PART);
        burst(member, own, fd, false);
        for (unsigned i = 0; i < BURST * (PART / BURST); i++)
            assert_int_equal(member->memory[i], value);
    }
    leasefs_queue_free(own);
    return NULL;
}

static void queues_and_blocking_calls_share_a_connection(void **state)
{
    static const unsigned depths[] = {2, 16};

    (void)state;
    for (size_t d = 0; d < sizeof(depths) / sizeof(*depths); d++) {
        struct leasefs_lease *lease = start(depths[d], 2048);
        struct member members[8];

        connect_now();
        for (unsigned i = 0; i < 8; i++) {
            members[i] = (struct member){.style = i % STYLES, .lease = lease, .offset = (uint64_t)i * PART};
            members[i].memory = malloc(PART);
            if (i >= STYLES) {
                free(members[i].memory);
                assert_int_equal(device_buffer_new(device, PART, (void **)&members[i].memory), 0);
            }
            assert_int_equal(pthread_create(&members[i].thread, NULL, take_part, &members[i]), 0);
        }
        for (unsigned i = 0; i < 8; i++) {
            pthread_join(members[i].thread, NULL);
            if (i < STYLES)
                free(members[i].memory);
        }
        assert_int_equal(nic.connections, 1);
        finish();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(submitting_returns_at_once_and_waiting_moves_the_bytes),
        cmocka_unit_test(operations_longer_than_the_ring_move_in_both_directions),
        cmocka_unit_test(a_broken_connection_is_made_anew_under_operations),
        cmocka_unit_test(a_refused_operation_is_told_from_those_that_it_took_down),
        cmocka_unit_test(a_recall_waits_for_what_is_under_way_only),
        cmocka_unit_test(a_completion_after_the_expiry_is_no_success),
        cmocka_unit_test(a_lease_in_use_by_a_queue_is_not_given_back),
        cmocka_unit_test(a_freed_queue_has_nothing_under_way),
        cmocka_unit_test(the_descriptor_is_quiet_until_there_is_something_to_do),
        cmocka_unit_test(the_descriptor_tells_of_a_broken_connection),
        cmocka_unit_test(queues_and_blocking_calls_share_a_connection),
    };

    alarm(100);
    return cmocka_run_group_tests_name("initiator_queue", tests, NULL, NULL);
}
