/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of policies: who waits, who is refused, who goes on; and who would wait for himself. */
#include "lease_fixture.h"

#include <errno.h>

#define FILE_A 7

static struct fixture f;

static int setup(void **state)
{
    (void)state;
    fixture_start(&f, &fixture_limits);
    return 0;
}

static int setup_busy(void **state)
{
    struct lease_limits limits = fixture_limits;

    (void)state;
    limits.policy = LEASE_POLICY_BUSY;
    fixture_start(&f, &limits);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_end(&f);
    return 0;
}

static void who_would_wait_for_his_own_lease_hears_so(void **state)
{
    struct lease_request request = {
        .session_id = 1, .process = 77, .inode = FILE_A, .range = blocks(0, 4), .mode = LEASE_WRITE};
    struct somebody self = somebody_new(), other = somebody_new(), nobody = somebody_new();
    struct lease_info info;
    uint64_t id;

    (void)state;
    self.waiter.process = 77;
    other.waiter.process = 78;
    assert_int_equal(lease_request(f.table, &request, f.now_ns, NULL, &id), 0);
    assert_int_equal(lease_commit(f.table, id, f.now_ns, &f, &info), 0);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &self), -EDEADLK);
    assert_int_equal(state_of(&f, id), LEASE_ACTIVE);
    assert_int_equal(begin(&f, FILE_A, blocks(4, 1), LEASE_OP_REPLACE, &self), 0);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &other), -EINPROGRESS);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &self), -EDEADLK);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &nobody), -EINPROGRESS);
    /* The fence ends without its help. */
    assert_int_equal(lease_return(f.table, 1, id, 0, f.now_ns), 0);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &self), -EINPROGRESS);
    lease_op_end(f.table, &self.waiter);
    lease_op_end(f.table, &other.waiter);
    lease_op_end(f.table, &nobody.waiter);
}

/* ---- policy busy ---- */

static void under_policy_busy_an_operation_fails_and_nobody_is_recalled(void **state)
{
    struct somebody writer = somebody_new();
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ);

    (void)state;
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), -EBUSY);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_DROP, NULL), -EBUSY);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 1), LEASE_WRITE, &writer, &id), -EBUSY);
    assert_int_equal(f.n_events, 0);
}

static void under_policy_busy_the_second_in_the_queue_is_refused_not_the_first_recalled(void **state)
{
    struct somebody first = somebody_new(), second = somebody_new();
    uint64_t held = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_WRITE), id;
    struct lease_info info;

    (void)state;
    lease_return(f.table, 1, held, 0, f.now_ns);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 4), LEASE_WRITE, &first, &id), -EINPROGRESS);
    assert_int_equal(ask_lease(&f, 3, FILE_A, blocks(0, 4), LEASE_WRITE, &second, &id), -EINPROGRESS);
    lease_fenced(f.table, held, true, f.now_ns);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 4), LEASE_WRITE, &first, &id), 0);
    assert_int_equal(lease_commit(f.table, id, f.now_ns, &f, &info), 0);
    assert_int_equal(events_of(&f, LEASE_EVENT_RECALL, 0), 0);
    assert_int_equal(state_of(&f, id), LEASE_ACTIVE);
    assert_int_equal(second.resumed, 1);
    assert_int_equal(ask_lease(&f, 3, FILE_A, blocks(0, 4), LEASE_WRITE, &second, &id), -EBUSY);
}

/* ---- policy orphan, and policies that differ ---- */

static int begin_under(enum lease_policy policy, struct lease_range range, enum lease_op op, struct somebody *who)
{
    return lease_op_begin_under(f.table, FILE_A, range, op, policy, f.now_ns, who ? &who->waiter : NULL);
}

static void under_policy_orphan_an_operation_goes_on_and_the_holder_is_told_where(void **state)
{
    uint64_t reader = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ);
    uint64_t writer = lease_held(&f, 1, FILE_A, blocks(4, 4), LEASE_WRITE);
    struct lease_info info;

    (void)state;
    assert_int_equal(begin_under(LEASE_POLICY_ORPHAN, blocks(3, 2), LEASE_OP_REPLACE, NULL), 0);
    assert_int_equal(events_of(&f, LEASE_EVENT_ORPHANED, reader), 1);
    assert_int_equal(events_of(&f, LEASE_EVENT_ORPHANED, writer), 1);
    assert_int_equal(lease_get(f.table, reader, &info), 0);
    assert_int_equal(info.state, LEASE_ACTIVE);
    assert_int_equal(info.sequence, 2);
    assert_int_equal(info.orphaned.offset, 3 * BLOCK);
    assert_int_equal(info.orphaned.length, BLOCK);
    /* Told once of the same place; of everything together when there is more. */
    assert_int_equal(begin_under(LEASE_POLICY_ORPHAN, blocks(3, 2), LEASE_OP_DROP, NULL), 0);
    assert_int_equal(events_of(&f, LEASE_EVENT_ORPHANED, 0), 2);
    assert_int_equal(begin_under(LEASE_POLICY_ORPHAN, range_from(7 * BLOCK), LEASE_OP_DROP, NULL), 0);
    assert_int_equal(lease_get(f.table, writer, &info), 0);
    assert_int_equal(info.orphaned.offset, 4 * BLOCK);
    assert_int_equal(info.orphaned.length, 4 * BLOCK);
    /* Who shares bytes under a writer gets a copy, and the writer keeps the file's. */
    assert_int_equal(begin_under(LEASE_POLICY_ORPHAN, blocks(0, 8), LEASE_OP_SHARE, NULL), 0);
    assert_int_equal(events_of(&f, LEASE_EVENT_ORPHANED, 0), 3);
    assert_int_equal(events_of(&f, LEASE_EVENT_RECALL, 0), 0);
}

static void under_policy_orphan_a_grant_in_progress_is_waited_for_and_then_orphaned(void **state)
{
    struct somebody op = somebody_new();
    struct lease_info info;
    uint64_t id;

    (void)state;
    assert_int_equal(ask_lease(&f, 1, FILE_A, blocks(0, 4), LEASE_WRITE, NULL, &id), 0);
    assert_int_equal(begin_under(LEASE_POLICY_ORPHAN, blocks(0, 1), LEASE_OP_DROP, &op), -EINPROGRESS);
    assert_int_equal(lease_commit(f.table, id, f.now_ns, &f, &info), 0);
    assert_int_equal(state_of(&f, id), LEASE_ACTIVE);
    assert_int_equal(op.resumed, 1);
    assert_int_equal(begin_under(LEASE_POLICY_ORPHAN, blocks(0, 1), LEASE_OP_DROP, &op), 0);
    lease_op_end(f.table, &op.waiter);
    assert_int_equal(events_of(&f, LEASE_EVENT_ORPHANED, id), 1);
    assert_int_equal(events_of(&f, LEASE_EVENT_RECALL, id), 0);
}

static void a_request_for_a_lease_recalls_under_policy_orphan_too(void **state)
{
    struct somebody who = somebody_new();
    uint64_t held = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ), id;
    struct lease_request request = {.session_id = 2,
                                    .inode = FILE_A,
                                    .range = blocks(0, 1),
                                    .mode = LEASE_WRITE,
                                    .file_policy = LEASE_POLICY_ORPHAN,
                                    .wait = true};

    (void)state;
    assert_int_equal(lease_request(f.table, &request, f.now_ns, &who.waiter, &id), -EINPROGRESS);
    assert_int_equal(state_of(&f, held), LEASE_RECALLED);
    lease_op_end(f.table, &who.waiter);
}

/* What the file says, and what the lease says: the operation gets what lets it go further. */
static void of_two_policies_the_one_that_lets_the_operation_go_further_holds(void **state)
{
    static const struct {
        enum lease_policy file, lease;
        int answer;
    } pairs[] = {
        {LEASE_POLICY_BUSY, 0, -EBUSY},
        {LEASE_POLICY_BUSY, LEASE_POLICY_BUSY, -EBUSY},
        {LEASE_POLICY_BUSY, LEASE_POLICY_RECALL, -EAGAIN},
        {LEASE_POLICY_BUSY, LEASE_POLICY_ORPHAN, 0},
        {LEASE_POLICY_RECALL, LEASE_POLICY_BUSY, -EAGAIN},
        {LEASE_POLICY_RECALL, LEASE_POLICY_ORPHAN, 0},
        {LEASE_POLICY_ORPHAN, LEASE_POLICY_BUSY, 0},
        {0, LEASE_POLICY_ORPHAN, 0},
        {0, 0, -EAGAIN}, /* the table's: recall */
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        struct lease_request request = {
            .session_id = 1, .inode = FILE_A, .range = blocks(0, 4), .mode = LEASE_WRITE, .policy = pairs[i].lease};
        struct lease_info info;
        uint64_t id;

        assert_int_equal(lease_request(f.table, &request, f.now_ns, NULL, &id), 0);
        assert_int_equal(lease_commit(f.table, id, f.now_ns, &f, &info), 0);
        assert_int_equal(begin_under(pairs[i].file, blocks(0, 1), LEASE_OP_REPLACE, NULL), pairs[i].answer);
        assert_int_equal(events_of(&f, LEASE_EVENT_RECALL, id), pairs[i].answer == -EAGAIN);
        teardown(state);
        setup(state);
    }
    assert_int_equal(begin_under(LEASE_POLICY_ORPHAN + 1, blocks(0, 1), LEASE_OP_DROP, NULL), -EINVAL);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define BUSY(name)  cmocka_unit_test_setup_teardown(name, setup_busy, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(who_would_wait_for_his_own_lease_hears_so),
        BUSY(under_policy_busy_an_operation_fails_and_nobody_is_recalled),
        BUSY(under_policy_busy_the_second_in_the_queue_is_refused_not_the_first_recalled),
        STORY(under_policy_orphan_an_operation_goes_on_and_the_holder_is_told_where),
        STORY(under_policy_orphan_a_grant_in_progress_is_waited_for_and_then_orphaned),
        STORY(a_request_for_a_lease_recalls_under_policy_orphan_too),
        STORY(of_two_policies_the_one_that_lets_the_operation_go_further_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
