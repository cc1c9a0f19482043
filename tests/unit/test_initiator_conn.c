/* SPDX-License-Identifier: BSD-2-Clause */

/* Transfers over a connection whose NIC is a thread of this test. */

#include "fake_nic.h"
#include <leasefs/leasefs.h>

static struct conn *start(unsigned depth, size_t chunk)
{
    nic_start();
    return nic_connect(depth, chunk);
}

static void finish(struct conn *conn)
{
    conn_unref(conn);
    nic_stop();
}

static int transfer_counted(struct conn *conn, bool write, void *bytes, size_t length, uint64_t remote, uint32_t rkey,
                            size_t *ret_moved)
{
    const struct conn_transfer what = {
        .write = write, .bytes = bytes, .length = length, .remote_address = remote, .rkey = rkey};

    return conn_transfer(conn, &what, ret_moved);
}

static int transfer(struct conn *conn, bool write, void *bytes, size_t length, uint64_t remote, uint32_t rkey)
{
    return transfer_counted(conn, write, bytes, length, remote, rkey, &(size_t){0});
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

static void a_transfer_that_was_cut_tells_how_far_it_came(void **state)
{
    static const unsigned limits[] = {1, 5, 30};

    (void)state;
    for (unsigned variant = 0; variant < 12; variant++) {
        unsigned limit = limits[variant % 3];
        bool write = variant & 4, registered = variant >= 6;
        struct conn *conn = start(8, 4096);
        unsigned char *bytes;
        void *buffer;
        size_t moved = 0;

        assert_int_equal(device_buffer_new(device, REMOTE_SIZE, &buffer), 0);
        bytes = registered ? buffer : malloc(REMOTE_SIZE);
        memset(bytes, 0xee, REMOTE_SIZE);
        nic.break_after = limit;
        assert_int_equal(transfer_counted(conn, write, bytes, REMOTE_SIZE, 0, GOOD_KEY, &moved), -ENOTCONN);
        assert_int_equal(moved, limit * 4096);
        assert_memory_equal(bytes, nic.remote, moved);
        if (!registered)
            free(bytes);
        finish(conn);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_arrive_whole_at_every_depth_and_length),
        cmocka_unit_test(only_some_requests_of_a_large_transfer_are_signalled),
        cmocka_unit_test(threads_share_a_connection),
        cmocka_unit_test(a_refused_transfer_is_told_from_those_that_it_took_down),
        cmocka_unit_test(a_refusal_in_the_middle_of_a_transfer_fails_it),
        cmocka_unit_test(a_transfer_that_was_cut_tells_how_far_it_came),
        cmocka_unit_test(breaking_ends_transfers_under_way),
        cmocka_unit_test(a_device_that_cannot_flush_loses_its_queue_pair_before_memory_is_given_back),
        cmocka_unit_test(a_completion_of_nobodys_request_changes_nothing),
    };

    alarm(100);
    return cmocka_run_group_tests_name("initiator_conn", tests, NULL, NULL);
}
