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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_transfer_goes_on_where_its_connection_broke),
        cmocka_unit_test(a_transfer_that_does_not_move_any_more_fails),
    };

    alarm(100);
    return cmocka_run_group_tests_name("initiator_transfer", tests, NULL, NULL);
}
