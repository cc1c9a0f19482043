/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of leases that expire, and of limits. */
#include "lease_fixture.h"

#include <errno.h>

#define FILE_A 7
#define FILE_B 8

static struct fixture f;

static int setup(void **state)
{
    (void)state;
    fixture_start(&f, &fixture_limits);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_end(&f);
    return 0;
}

static void courtesy_start(void)
{
    struct lease_limits limits = fixture_limits;

    fixture_end(&f);
    limits.courtesy_ns = 5000 * MS;
    fixture_start(&f, &limits);
}

static void an_expired_lease_that_nobody_needs_stays_for_a_while_and_can_be_renewed(void **state)
{
    uint64_t renewed, left;
    struct lease_info info;

    (void)state;
    courtesy_start();
    renewed = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_WRITE);
    left = lease_held(&f, 1, FILE_A, blocks(4, 4), LEASE_WRITE);
    pass_time(&f, fixture_limits.lease_time_ns);
    assert_int_equal(lease_get(f.table, left, &info), 0);
    assert_true(info.courtesy);
    pass_time(&f, 4999 * MS);
    assert_int_equal(lease_renew(f.table, 1, renewed, f.now_ns, &info), 0);
    assert_false(info.courtesy);
    assert_int_equal(info.expires_at_ns, f.now_ns + fixture_limits.lease_time_ns);
    pass_time(&f, 1 * MS);
    assert_int_equal(state_of(&f, renewed), LEASE_ACTIVE);
    assert_int_equal(state_of(&f, left), LEASE_FENCING);
    assert_int_equal(last_event(&f)->reason, LEASE_END_EXPIRED);
}

/* I6: who is dead keeps nobody waiting, not for the recall's deadline either. */
static void an_expired_lease_ends_at_the_first_conflict(void **state)
{
    struct somebody writer = somebody_new();
    uint64_t read, write, id;

    (void)state;
    courtesy_start();
    read = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ);
    write = lease_held(&f, 1, FILE_A, blocks(4, 4), LEASE_WRITE);
    pass_time(&f, fixture_limits.lease_time_ns);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_SHARE, NULL), 0);
    assert_int_equal(state_of(&f, read), LEASE_ACTIVE); /* that was no conflict */
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, NULL), 0);
    assert_int_equal(state_of(&f, read), LEASE_FENCING);
    assert_int_equal(begin(&f, FILE_A, blocks(4, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS); /* for the fence */
    assert_int_equal(state_of(&f, write), LEASE_FENCING);
    lease_fenced(f.table, write, true, f.now_ns);
    assert_int_equal(writer.resumed, 1);
    assert_int_equal(begin(&f, FILE_A, blocks(4, 1), LEASE_OP_REPLACE, &writer), 0);
    lease_op_end(f.table, &writer.waiter);

    write = lease_held(&f, 1, FILE_B, blocks(0, 4), LEASE_WRITE);
    pass_time(&f, fixture_limits.lease_time_ns);
    assert_int_equal(ask_lease(&f, 2, FILE_B, blocks(0, 4), LEASE_READ, NULL, &id), -EBUSY);
    assert_int_equal(state_of(&f, write), LEASE_FENCING);
    assert_int_equal(events_of(&f, LEASE_EVENT_RECALL, 0), 0);
}

static void limits_of_a_user_hold_over_all_his_sessions_until_his_leases_are_gone(void **state)
{
    struct lease_limits limits = fixture_limits;
    struct lease_request request = {.owner = 1000, .inode = FILE_A, .range = blocks(0, 4), .mode = LEASE_READ};
    struct lease_info info;
    uint64_t id, first = 0;

    (void)state;
    fixture_end(&f);
    limits.max_owner_leases = 3;
    limits.max_owner_bytes = 10 * BLOCK;
    fixture_start(&f, &limits);
    for (request.session_id = 1; request.session_id <= 2; request.session_id++) {
        assert_int_equal(lease_request(f.table, &request, f.now_ns, NULL, &id), 0);
        assert_int_equal(lease_commit(f.table, id, f.now_ns, &f, &info), 0);
        first = first ? first : id;
    }
    assert_int_equal(lease_request(f.table, &request, f.now_ns, NULL, &id), -EDQUOT); /* 12 blocks */
    request.range = blocks(0, 1);
    assert_int_equal(lease_request(f.table, &request, f.now_ns, NULL, &id), 0);
    assert_int_equal(lease_request(f.table, &request, f.now_ns, NULL, &id), -EDQUOT); /* 4 leases */
    request.owner = 1001;
    assert_int_equal(lease_request(f.table, &request, f.now_ns, NULL, &id), 0);
    request.owner = 1000;
    assert_int_equal(lease_return(f.table, 1, first, 0, f.now_ns), 0);
    assert_int_equal(lease_request(f.table, &request, f.now_ns, NULL, &id), -EDQUOT); /* its fence is not proven yet */
    lease_fenced(f.table, first, true, f.now_ns);
    assert_int_equal(lease_request(f.table, &request, f.now_ns, NULL, &id), 0);
}

static void the_bytes_of_a_session_are_limited_also_through_a_cut(void **state)
{
    struct lease_limits limits = fixture_limits;
    struct lease_cut cut = {.part = blocks(1, 2), .mode = LEASE_READ, .exposure = &f};
    struct lease_info info;
    uint64_t id, other;

    (void)state;
    fixture_end(&f);
    limits.max_session_bytes = 10 * BLOCK;
    fixture_start(&f, &limits);
    id = lease_held(&f, 1, FILE_A, blocks(0, 6), LEASE_READ);
    assert_int_equal(ask_lease(&f, 1, FILE_A, blocks(0, 5), LEASE_READ, NULL, &other), -EDQUOT);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 5), LEASE_READ, NULL, &other), 0);
    assert_int_equal(lease_cut(f.table, 1, id, 0, f.now_ns, &cut), 0); /* 4 blocks, and 6 behind the fence */
    assert_int_equal(ask_lease(&f, 1, FILE_B, blocks(0, 1), LEASE_READ, NULL, &other), -EDQUOT);
    lease_fenced(f.table, f.events[f.n_events - 1].lease_id, true, f.now_ns);
    for (size_t i = 0; i < cut.n_kept; i++)
        assert_int_equal(lease_commit(f.table, cut.kept[i], f.now_ns, &f, &info), 0);
    assert_int_equal(ask_lease(&f, 1, FILE_B, blocks(0, 7), LEASE_READ, NULL, &other), -EDQUOT);
    assert_int_equal(ask_lease(&f, 1, FILE_B, blocks(0, 6), LEASE_READ, NULL, &other), 0);
}

static void under_pressure_leases_go_that_were_renewed_least_recently(void **state)
{
    struct lease_limits limits = fixture_limits;
    struct somebody late = somebody_new();
    uint64_t ids[4], id;
    struct lease_info info;

    (void)state;
    fixture_end(&f);
    limits.max_bytes = 16 * BLOCK;
    fixture_start(&f, &limits);
    for (int i = 0; i < 4; i++) {
        ids[i] = lease_held(&f, 1 + i, FILE_A, blocks(4 * i, 4), LEASE_WRITE);
        pass_time(&f, MS);
    }
    assert_int_equal(lease_renew(f.table, 1, ids[0], f.now_ns, &info), 0);
    assert_int_equal(ask_lease(&f, 2, FILE_B, blocks(0, 6), LEASE_READ, NULL, &id), -ENFILE);
    assert_int_equal(events_of(&f, LEASE_EVENT_RECALL, 0), 0); /* it does not wait */
    for (int i = 0; i < 2; i++)                                /* asking twice recalls no more than asking once */
        assert_int_equal(ask_lease(&f, 2, FILE_B, blocks(0, 6), LEASE_READ, &late, &id), -ENFILE);
    assert_int_equal(state_of(&f, ids[0]), LEASE_ACTIVE);
    assert_int_equal(state_of(&f, ids[1]), LEASE_ACTIVE); /* its own */
    assert_int_equal(state_of(&f, ids[2]), LEASE_RECALLED);
    assert_int_equal(state_of(&f, ids[3]), LEASE_RECALLED);
    for (int i = 2; i < 4; i++) {
        assert_int_equal(lease_return(f.table, 1 + i, ids[i], 0, f.now_ns), 0);
        lease_fenced(f.table, ids[i], true, f.now_ns);
    }
    assert_int_equal(ask_lease(&f, 2, FILE_B, blocks(0, 6), LEASE_READ, &late, &id), 0);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(an_expired_lease_that_nobody_needs_stays_for_a_while_and_can_be_renewed),
        STORY(an_expired_lease_ends_at_the_first_conflict),
        STORY(limits_of_a_user_hold_over_all_his_sessions_until_his_leases_are_gone),
        STORY(the_bytes_of_a_session_are_limited_also_through_a_cut),
        STORY(under_pressure_leases_go_that_were_renewed_least_recently),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
