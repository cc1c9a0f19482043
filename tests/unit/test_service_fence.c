/* SPDX-License-Identifier: BSD-2-Clause */
/* Which thread ends a lease, how, and what becomes of it when the device keeps that thread. */
#include "service_fixture.h"
#include "stuck_threads.h"

struct takeover {
    void (*late)(void *arg, int error);
    void *arg;
};

static void *take_over(void *arg)
{
    struct takeover takeover = *(struct takeover *)arg;

    free(arg);
    takeover.late(takeover.arg, 0);
    return NULL;
}

/* The device keeps the thread that takes a lease back, and another one takes over. */
static int take_back_and_be_stuck(struct exposure *exposure, bool at_leisure, void (*late)(void *arg, int error),
                                  void *arg)
{
    struct takeover *takeover = malloc(sizeof(*takeover));
    pthread_t thread;

    (void)exposure;
    (void)at_leisure;
    assert_non_null(takeover);
    *takeover = (struct takeover){late, arg};
    assert_int_equal(pthread_create(&thread, NULL, take_over, takeover), 0);
    pthread_detach(thread);
    stay();
    return -EINPROGRESS;
}

static struct {
    unsigned at_leisure, at_once; /* on fence workers; read when the lease's end was told */
} ends;

static int take_back_and_count(struct exposure *exposure, bool at_leisure, void (*late)(void *arg, int error),
                               void *arg)
{
    (void)late;
    (void)arg;
    if (at_leisure)
        ends.at_leisure++;
    else
        ends.at_once++;
    fake_exposure.revoke(exposure);
    return fake_exposure.fence(exposure);
}

/* A recall, or a client that is gone: access is to end at once. */
static void only_a_lease_that_nobody_wants_back_ends_at_leisure(void **state)
{
    struct lease_service_config config = world_config();
    struct exposure_ops fabric = fake_exposure;
    struct client holder;
    struct local_op local = {0};
    int64_t lease;

    (void)state;
    memset(&ends, 0, sizeof(ends));
    fabric.take_back = take_back_and_count;
    config.exposure = &fabric;
    world_start(&config);
    client_open(&holder);
    client_return(&holder, client_lease(&holder, "/a", "write"));
    assert_int_equal(ends.at_leisure, 1);
    assert_int_equal(ends.at_once, 0);

    lease = client_lease(&holder, "/a", "write");
    assert_int_equal(local_write(&local, 1, 0, 1), -EINPROGRESS);
    json_decref(client_notice(&holder, "recall", lease));
    client_return(&holder, lease);
    UNTIL(local.resumed == 1);
    assert_int_equal(local_write(&local, 1, 0, 1), 0);
    lease_op_end(the_table(), &local.waiter);
    assert_int_equal(ends.at_leisure, 1);
    assert_int_equal(ends.at_once, 1);

    client_lease(&holder, "/a", "read");
    client_hang_up(&holder);
    UNTIL(world.fabric_sessions == 0);
    assert_int_equal(ends.at_leisure, 1);
    assert_int_equal(ends.at_once, 2);
    world_end();
}

static void threads_stuck_in_the_device_hold_up_no_lease_that_ends_later(void **state)
{
    enum { LEASES = 12 }; /* more than there are workers at first */
    struct lease_service_config config = world_config();
    struct exposure_ops fabric = fake_exposure;
    struct client client;

    (void)state;
    fabric.take_back = take_back_and_be_stuck;
    config.exposure = &fabric;
    world_start(&config);
    client_open(&client);
    for (int i = 0; i < LEASES; i++) {
        client_return(&client, client_lease(&client, "/a", "write"));
        assert_int_equal(world.exposures, 0);
        assert_int_equal(world.holds, 0);
    }
    client_hang_up(&client);
    UNTIL(world.fabric_sessions == 0);
    UNTIL(stuck_now() == LEASES);
    let_go();
    UNTIL(stuck.left == LEASES);
    world_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_lease_that_nobody_wants_back_ends_at_leisure),
        cmocka_unit_test(threads_stuck_in_the_device_hold_up_no_lease_that_ends_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
