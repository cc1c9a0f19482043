/* SPDX-License-Identifier: BSD-2-Clause */
/* Who finds no space waits for fences, and for nothing else. */
#include "lease_fixture.h"

#include <errno.h>

#define FILE1 UINT64_C(1)

static int start(void **state)
{
    static struct fixture fixture;

    fixture_start(&fixture, &fixture_limits);
    *state = &fixture;
    return 0;
}

static int end(void **state)
{
    fixture_end(*state);
    return 0;
}

static int wait_for_space(struct fixture *f, uint64_t mark, struct somebody *who)
{
    int result = lease_space_wait(f->table, mark, 0, f->now_ns, who ? &who->waiter : NULL);

    assert_int_equal(lease_table_check(f->table), 0);
    return result;
}

static uint64_t fencing(struct fixture *f, uint64_t first)
{
    uint64_t id = lease_held(f, 1, FILE1, blocks(first, 1), LEASE_WRITE);

    assert_int_equal(lease_return(f->table, 1, id, 0, f->now_ns), 0);
    return id;
}

static void nobody_waits_while_no_fence_is_running(void **state)
{
    struct fixture *f = *state;
    struct somebody who = somebody_new();

    assert_int_equal(wait_for_space(f, lease_space_mark(f->table), &who), -ENOSPC);
    lease_held(f, 1, FILE1, blocks(0, 1), LEASE_WRITE); /* its blocks are not about to be free */
    assert_int_equal(wait_for_space(f, lease_space_mark(f->table), &who), -ENOSPC);
    assert_int_equal(who.resumed, 0);
}

static void whoever_cannot_wait_hears_it_at_once(void **state)
{
    struct fixture *f = *state;

    fencing(f, 0);
    assert_int_equal(wait_for_space(f, lease_space_mark(f->table), NULL), -ENOSPC);
}

static void each_fence_that_ends_wakes_all_who_wait(void **state)
{
    struct fixture *f = *state;
    struct somebody a = somebody_new(), b = somebody_new();
    uint64_t one = fencing(f, 0), two = fencing(f, 1), mark = lease_space_mark(f->table);

    assert_int_equal(wait_for_space(f, mark, &a), -EINPROGRESS);
    assert_int_equal(wait_for_space(f, mark, &b), -EINPROGRESS);
    lease_fenced(f->table, one, true, f->now_ns);
    assert_int_equal(a.resumed, 1);
    assert_int_equal(b.resumed, 1);
    assert_int_equal(wait_for_space(f, lease_space_mark(f->table), &a), -EINPROGRESS); /* it was not enough */
    lease_fenced(f->table, two, false, f->now_ns); /* no proof: it hears that nothing is to come */
    assert_int_equal(a.resumed, 2);
    assert_int_equal(wait_for_space(f, lease_space_mark(f->table), &a), -ENOSPC);
}

/* The fence ended between the search for space and the question. */
static void a_fence_that_ended_meanwhile_is_not_missed(void **state)
{
    struct fixture *f = *state;
    struct somebody who = somebody_new();
    uint64_t id = fencing(f, 0), mark = lease_space_mark(f->table);

    lease_fenced(f->table, id, true, f->now_ns);
    assert_int_equal(wait_for_space(f, mark, &who), 0);
    assert_int_equal(wait_for_space(f, lease_space_mark(f->table), &who), -ENOSPC);
}

/* I4: others may always be quicker. */
static void the_wait_is_bounded_over_all_tries(void **state)
{
    struct fixture *f = *state;
    struct somebody who = somebody_new();
    uint64_t came_ns = f->now_ns;
    int result = 0, tries = 0;

    for (uint64_t i = 0; result != -ENOSPC; i++) {
        uint64_t id = fencing(f, i), next = fencing(f, i + 1000);

        result = wait_for_space(f, lease_space_mark(f->table), &who);
        assert_true(result == -EINPROGRESS || result == -ENOSPC);
        tries += result == -EINPROGRESS;
        f->now_ns += 10 * MS;
        lease_fenced(f->table, id, true, f->now_ns);
        lease_fenced(f->table, next, true, f->now_ns);
    }
    assert_int_equal(tries, 5);
    assert_true(f->now_ns - came_ns <= fixture_limits.fence_bound_ns + 10 * MS);
}

static void a_fence_that_does_not_end_keeps_nobody(void **state)
{
    struct fixture *f = *state;
    struct somebody who = somebody_new();
    uint64_t deadline_ns;

    fencing(f, 0);
    f->now_ns += 20 * MS;
    assert_int_equal(wait_for_space(f, lease_space_mark(f->table), &who), -EINPROGRESS);
    lease_tick(f->table, f->now_ns + 30 * MS); /* the fence's own bound */
    deadline_ns = lease_next_deadline(f->table);
    assert_int_equal(deadline_ns, f->now_ns + fixture_limits.fence_bound_ns);
    f->now_ns = deadline_ns;
    pass_time(f, 0);
    assert_int_equal(who.resumed, 1);
    assert_int_equal(wait_for_space(f, lease_space_mark(f->table), &who), -ENOSPC);
}

/* What others give back, by no fence, is waited for where it is expected, and only so long. */
static void what_is_expected_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct somebody a = somebody_new(), b = somebody_new();
    uint64_t mark = lease_space_mark(f->table), from_ns = f->now_ns;

    assert_int_equal(lease_space_wait(f->table, mark, 10 * MS, f->now_ns, NULL), -ENOSPC);
    assert_int_equal(lease_space_wait(f->table, mark, 10 * MS, f->now_ns, &a.waiter), -EINPROGRESS);
    assert_int_equal(lease_space_wait(f->table, mark, 5 * MS, f->now_ns, &b.waiter), -EINPROGRESS);
    assert_int_equal(lease_table_check(f->table), 0);
    assert_int_equal(lease_next_deadline(f->table), from_ns + 5 * MS);
    lease_space_came(f->table);
    assert_int_equal(a.resumed, 1);
    assert_int_equal(b.resumed, 1);
    assert_int_equal(lease_table_check(f->table), 0);

    /* It was not enough, and more comes between the search and the question; then nothing does. */
    mark = lease_space_mark(f->table);
    lease_space_came(f->table);
    assert_int_equal(lease_space_wait(f->table, mark, 10 * MS, f->now_ns, &a.waiter), 0);
    mark = lease_space_mark(f->table);
    assert_int_equal(lease_space_wait(f->table, mark, 10 * MS, f->now_ns, &a.waiter), -EINPROGRESS);
    f->now_ns = from_ns + 10 * MS;
    pass_time(f, 0);
    assert_int_equal(a.resumed, 2);
    assert_int_equal(lease_space_wait(f->table, mark, 10 * MS, f->now_ns, &a.waiter), -ENOSPC);
}

/* Its time for a fence is longer. */
static void a_fence_is_waited_for_longer_than_what_is_expected(void **state)
{
    struct fixture *f = *state;
    struct somebody who = somebody_new();
    uint64_t id = fencing(f, 0), mark = lease_space_mark(f->table);

    f->now_ns += 1 * MS;
    assert_int_equal(lease_space_wait(f->table, mark, 1 * MS, f->now_ns, &who.waiter), -EINPROGRESS);
    f->now_ns += 2 * MS;
    pass_time(f, 0);
    assert_int_equal(who.resumed, 0);
    lease_fenced(f->table, id, true, f->now_ns);
    assert_int_equal(who.resumed, 1);
}

static void an_interrupt_and_an_abandoned_request_leave_the_queue(void **state)
{
    struct fixture *f = *state;
    struct somebody a = somebody_new(), b = somebody_new(), c = somebody_new();
    uint64_t id = fencing(f, 0), mark = lease_space_mark(f->table);

    assert_int_equal(wait_for_space(f, mark, &a), -EINPROGRESS);
    assert_int_equal(wait_for_space(f, mark, &b), -EINPROGRESS);
    assert_int_equal(wait_for_space(f, mark, &c), -EINPROGRESS);
    assert_true(lease_waiter_cancel(f->table, &b.waiter, f->now_ns));
    assert_false(lease_waiter_cancel(f->table, &b.waiter, f->now_ns));
    lease_waiter_abandon(f->table, &a.waiter);
    assert_int_equal(a.resumed, 1);
    assert_int_equal(wait_for_space(f, mark, &a), -ECANCELED);
    lease_fenced(f->table, id, true, f->now_ns);
    assert_int_equal(a.resumed, 1);
    assert_int_equal(b.resumed, 0);
    assert_int_equal(c.resumed, 1);
}

/* An operation that has waited for a lease keeps its place while it waits for space: no lease slips in (I10). */
static void a_place_is_kept_while_waiting_for_space(void **state)
{
    struct fixture *f = *state;
    struct somebody writer = somebody_new();
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 4), LEASE_WRITE), other = fencing(f, 10), ignored;

    assert_int_equal(begin(f, FILE1, blocks(0, 4), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    assert_int_equal(lease_return(f->table, 1, id, 0, f->now_ns), 0);
    lease_fenced(f->table, id, true, f->now_ns);
    assert_int_equal(begin(f, FILE1, blocks(0, 4), LEASE_OP_REPLACE, &writer), 0);
    assert_int_equal(wait_for_space(f, lease_space_mark(f->table), &writer), -EINPROGRESS);
    assert_int_equal(ask_lease(f, 2, FILE1, blocks(0, 4), LEASE_READ, NULL, &ignored), -EAGAIN);
    lease_fenced(f->table, other, true, f->now_ns);
    assert_int_equal(writer.resumed, 2);
    lease_op_end(f->table, &writer.waiter);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, start, end)
    const struct CMUnitTest tests[] = {
        STORY(nobody_waits_while_no_fence_is_running),
        STORY(whoever_cannot_wait_hears_it_at_once),
        STORY(each_fence_that_ends_wakes_all_who_wait),
        STORY(a_fence_that_ended_meanwhile_is_not_missed),
        STORY(the_wait_is_bounded_over_all_tries),
        STORY(a_fence_that_does_not_end_keeps_nobody),
        STORY(what_is_expected_is_waited_for),
        STORY(a_fence_is_waited_for_longer_than_what_is_expected),
        STORY(an_interrupt_and_an_abandoned_request_leave_the_queue),
        STORY(a_place_is_kept_while_waiting_for_space),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
