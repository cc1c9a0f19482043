/* SPDX-License-Identifier: BSD-2-Clause */

/* leasefs_read() and leasefs_write() when the connection breaks under them. A lease of this test's own making, over
 * connections to a NIC that is a thread; making them anew is this file's session_conn(). */

#include "fake_nic.h"
#include "fake_session.h"

static void a_transfer_goes_on_where_its_connection_broke(void **state)
{
    unsigned char *bytes = malloc(REMOTE_SIZE);
    struct leasefs_lease *lease = fake_session_start(8, 4096);

    (void)state;
    /* 256 requests, 3 of which each connection carries out: far more connections than may pass without progress. */
    nic.break_after = 3;
    memset(bytes, 0, REMOTE_SIZE);
    assert_int_equal(leasefs_read(lease, bytes, REMOTE_SIZE, 0), 0);
    assert_memory_equal(bytes, nic.remote, REMOTE_SIZE);
    assert_int_equal(nic.connections, 86);
    for (size_t i = 0; i < REMOTE_SIZE; i++)
        bytes[i] = (unsigned char)(i * 7 + 1);
    assert_int_equal(leasefs_write(lease, bytes, REMOTE_SIZE, 0), 0);
    assert_memory_equal(bytes, nic.remote, REMOTE_SIZE);
    free(bytes);
    fake_session_stop();
}

static void a_transfer_that_does_not_move_any_more_fails(void **state)
{
    unsigned char bytes[8192];
    struct leasefs_lease *lease = fake_session_start(8, 4096);

    (void)state;
    nic.always_broken = true;
    assert_int_equal(leasefs_read(lease, bytes, sizeof(bytes), 0), -ENOTCONN);
    assert_true(nic.connections > 1 && nic.connections < 100);
    nic.always_broken = false;
    assert_int_equal(leasefs_read(lease, bytes, sizeof(bytes), 0), 0);
    assert_memory_equal(bytes, nic.remote, sizeof(bytes));
    fake_session_stop();
}

/* Another lease on part of the same file, which is the remote memory. */
static struct leasefs_lease *add_lease(uint64_t offset, uint64_t length, uint32_t rkey)
{
    struct leasefs_lease *lease = malloc(sizeof(*lease));

    *lease = fake_lease;
    lease->layout.offset = lease->layout.remote_address = offset;
    lease->layout.length = length;
    lease->layout.rkey = rkey;
    lease->path = "/file";
    lease->next = fake_session.leases;
    fake_session.leases = lease;
    return lease;
}

static void free_leases(void)
{
    while (fake_session.leases) {
        struct leasefs_lease *lease = fake_session.leases;

        assert_int_equal(lease->pins, 0);
        assert_int_equal(lease->transfers, 0);
        fake_session.leases = lease->next;
        free(lease);
    }
}

static void a_read_is_served_from_several_leases(void **state)
{
    unsigned char *bytes = calloc(1, REMOTE_SIZE);
    struct leasefs_lease *middle;

    (void)state;
    fake_session_start(8, 4096);
    add_lease(600000, REMOTE_SIZE - 600000, GOOD_KEY);
    middle = add_lease(200000, 450000, GOOD_KEY);
    add_lease(0, 300000, GOOD_KEY);
    add_lease(0, REMOTE_SIZE, GOOD_KEY)->path = "/other";
    assert_int_equal(leasefs_read_path(&fake_session, "/file", bytes, REMOTE_SIZE, 0), 0);
    assert_memory_equal(bytes, nic.remote, REMOTE_SIZE);
    assert_int_equal(leasefs_read_path(&fake_session, "/file", bytes, 1, REMOTE_SIZE), -ERANGE);

    middle->holding = HOLDING_RETURNING;
    assert_int_equal(leasefs_read_path(&fake_session, "/file", bytes, REMOTE_SIZE, 0), -ERANGE);
    assert_non_null(strstr(leasefs_error(), "300000"));
    assert_int_equal(leasefs_read_path(&fake_session, "/file", bytes, 299999, 1), 0);
    assert_int_equal(leasefs_read_path(&fake_session, "/nobody's", bytes, 1, 0), -ERANGE);
    free(bytes);
    free_leases();
    fake_session_stop();
}

static void another_lease_serves_what_a_lost_one_does_not(void **state)
{
    unsigned char *bytes = calloc(1, REMOTE_SIZE);

    (void)state;
    fake_session_start(8, 4096);
    add_lease(0, REMOTE_SIZE / 2, GOOD_KEY);
    add_lease(REMOTE_SIZE / 2, REMOTE_SIZE / 2, GOOD_KEY);
    add_lease(100, REMOTE_SIZE - 100, BAD_KEY); /* revoked, which only the NIC knows yet */
    assert_int_equal(leasefs_read_path(&fake_session, "/file", bytes, REMOTE_SIZE, 0), 0);
    assert_memory_equal(bytes, nic.remote, REMOTE_SIZE);
    assert_int_equal(nic.connections, 2);
    free(bytes);
    free_leases();
    fake_session_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_transfer_goes_on_where_its_connection_broke),
        cmocka_unit_test(a_transfer_that_does_not_move_any_more_fails),
        cmocka_unit_test(a_read_is_served_from_several_leases),
        cmocka_unit_test(another_lease_serves_what_a_lost_one_does_not),
    };

    alarm(100);
    return cmocka_run_group_tests_name("initiator_transfer", tests, NULL, NULL);
}
