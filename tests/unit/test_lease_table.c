/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of the lease table: every edge of its machine, who waits how long. */
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

/* ---- the machine, edge by edge ---- */

static void a_lease_is_granted_committed_returned_and_gone_after_its_fence(void **state)
{
    struct lease_info info;
    uint64_t id;

    (void)state;
    assert_int_equal(ask_lease(&f, 1, FILE_A, blocks(2, 4), LEASE_WRITE, NULL, &id), 0);
    assert_int_equal(state_of(&f, id), LEASE_GRANTING);
    assert_int_equal(lease_commit(f.table, id, f.now_ns, &f, &info), 0);
    assert_int_equal(info.state, LEASE_ACTIVE);
    assert_int_equal(info.sequence, 1);
    assert_int_equal(info.range.offset, 2 * BLOCK);
    assert_int_equal(info.range.length, 4 * BLOCK);
    assert_int_equal(info.expires_at_ns, f.now_ns + fixture_limits.lease_time_ns);
    assert_int_equal(lease_return(f.table, 1, id, info.sequence, f.now_ns), 0);
    assert_int_equal(state_of(&f, id), LEASE_FENCING);
    assert_int_equal(last_event(&f)->kind, LEASE_EVENT_FENCE);
    assert_int_equal(last_event(&f)->reason, LEASE_END_RETURNED);
    assert_ptr_equal(last_event(&f)->exposure, &f);
    lease_fenced(f.table, id, true, f.now_ns);
    assert_int_equal(state_of(&f, id), 0);
}

static void an_aborted_grant_leaves_nothing(void **state)
{
    struct somebody writer = somebody_new();
    uint64_t id;

    (void)state;
    assert_int_equal(ask_lease(&f, 1, FILE_A, blocks(0, 1), LEASE_WRITE, NULL, &id), 0);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    lease_abort(f.table, id, f.now_ns);
    assert_int_equal(state_of(&f, id), 0);
    assert_int_equal(writer.resumed, 1);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), 0);
    lease_op_end(f.table, &writer.waiter);
    assert_int_equal(f.n_events, 0);
}

static void a_conflict_recalls_and_the_last_waiter_that_leaves_takes_the_recall_back(void **state)
{
    struct somebody first = somebody_new(), second = somebody_new();
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ);
    struct lease_info info;

    (void)state;
    assert_int_equal(begin(&f, FILE_A, blocks(3, 4), LEASE_OP_DROP, &first), -EINPROGRESS);
    assert_int_equal(begin(&f, FILE_A, blocks(3, 1), LEASE_OP_REPLACE, &second), -EINPROGRESS);
    assert_int_equal(state_of(&f, id), LEASE_RECALLED);
    assert_int_equal(events_of(&f, LEASE_EVENT_RECALL, id), 1);
    assert_int_equal(last_event(&f)->deadline_ns, f.now_ns + fixture_limits.recall_timeout_ns);
    assert_true(lease_waiter_cancel(f.table, &first.waiter, f.now_ns));
    assert_int_equal(state_of(&f, id), LEASE_RECALLED);
    assert_true(lease_waiter_cancel(f.table, &second.waiter, f.now_ns));
    assert_int_equal(state_of(&f, id), LEASE_ACTIVE);
    assert_int_equal(events_of(&f, LEASE_EVENT_RECALL_CANCELLED, id), 1);
    assert_int_equal(first.resumed + second.resumed, 0);
    assert_false(lease_waiter_cancel(f.table, &second.waiter, f.now_ns));
    /* It lives on, and its expiry is the only deadline left. */
    pass_time(&f, 2 * fixture_limits.recall_timeout_ns);
    assert_int_equal(lease_get(f.table, id, &info), 0);
    assert_int_equal(info.state, LEASE_ACTIVE);
    assert_int_equal(info.sequence, 3);
    assert_int_equal(lease_next_deadline(f.table), info.expires_at_ns);
}

static void a_silent_holder_loses_its_lease_at_the_recalls_deadline(void **state)
{
    struct somebody writer = somebody_new();
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ);

    (void)state;
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    assert_int_equal(lease_next_deadline(f.table), f.now_ns + fixture_limits.recall_timeout_ns);
    pass_time(&f, fixture_limits.recall_timeout_ns - 1);
    assert_int_equal(state_of(&f, id), LEASE_RECALLED);
    assert_int_equal(writer.resumed, 0);
    pass_time(&f, 1);
    assert_int_equal(state_of(&f, id), LEASE_FENCING);
    assert_int_equal(last_event(&f)->reason, LEASE_END_RECALL_TIMEOUT);
    assert_int_equal(writer.resumed, 1);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), 0);
    lease_op_end(f.table, &writer.waiter);
}

static void an_unrenewed_lease_expires_and_a_renewed_one_does_not(void **state)
{
    uint64_t kept = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ);
    uint64_t left = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ);
    struct lease_info info;

    (void)state;
    pass_time(&f, fixture_limits.lease_time_ns - 1);
    assert_int_equal(lease_renew(f.table, 1, kept, f.now_ns, &info), 0);
    assert_int_equal(info.expires_at_ns, f.now_ns + fixture_limits.lease_time_ns);
    pass_time(&f, 1);
    assert_int_equal(state_of(&f, kept), LEASE_ACTIVE);
    assert_int_equal(state_of(&f, left), LEASE_FENCING);
    assert_int_equal(last_event(&f)->reason, LEASE_END_EXPIRED);
    assert_int_equal(lease_renew(f.table, 1, left, f.now_ns, &info), -ESTALE);
    assert_int_equal(lease_renew(f.table, 2, kept, f.now_ns, &info), -ENOENT);
    assert_int_equal(lease_renew(f.table, 1, 999, f.now_ns, &info), -ENOENT);
}

static void renewing_a_recalled_lease_does_not_put_its_deadline_off(void **state)
{
    struct somebody writer = somebody_new();
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ);
    struct lease_info info;

    (void)state;
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    pass_time(&f, 90 * MS);
    assert_int_equal(lease_renew(f.table, 1, id, f.now_ns, &info), 0);
    pass_time(&f, 10 * MS);
    assert_int_equal(state_of(&f, id), LEASE_FENCING);
    lease_op_end(f.table, &writer.waiter);
}

static void revocation_and_the_sessions_end_fence_at_once(void **state)
{
    uint64_t revoked = lease_held(&f, 1, FILE_A, blocks(0, 1), LEASE_WRITE);
    uint64_t orphaned = lease_held(&f, 2, FILE_A, blocks(4, 1), LEASE_WRITE);
    uint64_t other = lease_held(&f, 3, FILE_A, blocks(8, 1), LEASE_WRITE);

    (void)state;
    assert_int_equal(lease_revoke(f.table, revoked, f.now_ns), 0);
    assert_int_equal(last_event(&f)->reason, LEASE_END_REVOKED);
    assert_int_equal(lease_revoke(f.table, revoked, f.now_ns), -EALREADY);
    assert_int_equal(lease_revoke(f.table, 999, f.now_ns), -ENOENT);
    lease_session_end(f.table, 2, f.now_ns);
    assert_int_equal(state_of(&f, orphaned), LEASE_FENCING);
    assert_int_equal(last_event(&f)->reason, LEASE_END_SESSION);
    assert_int_equal(state_of(&f, other), LEASE_ACTIVE);
}

static void a_grant_whose_session_ended_meanwhile_cannot_be_committed(void **state)
{
    struct lease_info info;
    uint64_t id;

    (void)state;
    assert_int_equal(ask_lease(&f, 1, FILE_A, blocks(0, 1), LEASE_WRITE, NULL, &id), 0);
    lease_session_end(f.table, 1, f.now_ns);
    assert_int_equal(lease_commit(f.table, id, f.now_ns, &f, &info), -ESTALE);
    lease_abort(f.table, id, f.now_ns);
    assert_int_equal(state_of(&f, id), 0);
}

static void an_unproven_fence_quarantines_the_lease_and_bothers_nobody(void **state)
{
    struct somebody writer = somebody_new();
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_WRITE), next;
    struct lease_counts counts;

    (void)state;
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    assert_int_equal(lease_return(f.table, 1, id, 0, f.now_ns), 0);
    assert_int_equal(writer.resumed, 0);
    lease_fenced(f.table, id, false, f.now_ns);
    assert_int_equal(state_of(&f, id), LEASE_QUARANTINED);
    assert_int_equal(writer.resumed, 1);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), 0);
    lease_op_end(f.table, &writer.waiter);
    assert_int_equal(lease_return(f.table, 1, id, 0, f.now_ns), -EALREADY);
    lease_fenced(f.table, id, true, f.now_ns); /* late proof changes nothing */
    assert_int_equal(state_of(&f, id), LEASE_QUARANTINED);
    next = lease_held(&f, 2, FILE_A, blocks(0, 4), LEASE_WRITE);
    assert_int_equal(state_of(&f, next), LEASE_ACTIVE);
    lease_counts(f.table, &counts);
    assert_int_equal(counts.quarantined, 1);
}

static void a_fence_that_overruns_lets_a_writer_go_and_keeps_leases_away(void **state)
{
    struct somebody writer = somebody_new();
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_WRITE), none;

    (void)state;
    assert_int_equal(lease_return(f.table, 1, id, 0, f.now_ns), 0);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    pass_time(&f, fixture_limits.fence_bound_ns - 1);
    assert_int_equal(writer.resumed, 0);
    pass_time(&f, 1);
    assert_int_equal(writer.resumed, 1);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), 0);
    lease_op_end(f.table, &writer.waiter);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 1), LEASE_READ, NULL, &none), -EBUSY);
}

/* ---- what conflicts with nothing; who conflicts with whom is in test_lease_conflicts.c ---- */

static void another_file_and_an_empty_range_conflict_with_nothing(void **state)
{
    (void)state;
    lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_WRITE);
    assert_int_equal(begin(&f, FILE_B, blocks(0, 4), LEASE_OP_DROP, NULL), 0);
    assert_int_equal(begin(&f, FILE_A, blocks(1, 0), LEASE_OP_DROP, NULL), 0);
    assert_int_equal(begin(&f, FILE_A, range_from(4 * BLOCK), LEASE_OP_DROP, NULL), 0);
    assert_int_equal(begin(&f, FILE_A, range_from(4 * BLOCK - 1), LEASE_OP_DROP, NULL), -EAGAIN);
}

static void nonsense_is_refused(void **state)
{
    struct lease_range beyond = {RANGE_MAX_END, 1};
    uint64_t id;

    (void)state;
    assert_int_equal(begin(&f, FILE_A, beyond, LEASE_OP_DROP, NULL), -EINVAL);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), 0, NULL), -EINVAL);
    assert_int_equal(ask_lease(&f, 1, FILE_A, beyond, LEASE_READ, NULL, &id), -EINVAL);
    assert_int_equal(ask_lease(&f, 1, FILE_A, blocks(0, 0), LEASE_READ, NULL, &id), -EINVAL);
    assert_int_equal(ask_lease(&f, 1, FILE_A, blocks(0, 1), 3, NULL, &id), -EINVAL);
}

/* ---- waiting ---- */

static void a_grant_in_progress_is_recalled_as_soon_as_it_is_committed(void **state)
{
    struct somebody writer = somebody_new();
    struct lease_info info;
    uint64_t id;

    (void)state;
    assert_int_equal(ask_lease(&f, 1, FILE_A, blocks(0, 1), LEASE_READ, NULL, &id), 0);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    assert_int_equal(lease_commit(f.table, id, f.now_ns, &f, &info), 0);
    assert_int_equal(info.state, LEASE_ACTIVE); /* as the grant's answer shows it */
    assert_int_equal(state_of(&f, id), LEASE_RECALLED);
    assert_int_equal(events_of(&f, LEASE_EVENT_RECALL, id), 1);
    lease_op_end(f.table, &writer.waiter);
}

static void who_does_not_wait_for_a_grant_in_progress_has_it_recalled_all_the_same(void **state)
{
    struct lease_info info;
    uint64_t id;

    (void)state;
    assert_int_equal(ask_lease(&f, 1, FILE_A, blocks(0, 1), LEASE_READ, NULL, &id), 0);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, NULL), -EAGAIN);
    assert_int_equal(lease_commit(f.table, id, f.now_ns, &f, &info), 0);
    assert_int_equal(state_of(&f, id), LEASE_RECALLED);
}

/* I10 */
static void no_lease_is_granted_over_a_pending_recall(void **state)
{
    struct somebody writer = somebody_new();
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ), other;

    (void)state;
    assert_int_equal(begin(&f, FILE_A, blocks(2, 4), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 1), LEASE_READ, NULL, &other), -EAGAIN);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(5, 1), LEASE_READ, NULL, &other), -EAGAIN);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(6, 1), LEASE_READ, NULL, &other), 0);
    assert_int_equal(lease_return(f.table, 1, id, 0, f.now_ns), 0);
    /* Resumed, but it has not run yet. */
    assert_int_equal(writer.resumed, 1);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(5, 1), LEASE_READ, NULL, &other), -EAGAIN);
    assert_int_equal(begin(&f, FILE_A, blocks(2, 4), LEASE_OP_REPLACE, &writer), 0);
    lease_op_end(f.table, &writer.waiter);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(5, 1), LEASE_READ, NULL, &other), 0);
}

/* I4: requests that were there first, of holders that never answer, do not cost a write a deadline each. */
static void an_operation_goes_before_lease_requests_that_are_older(void **state)
{
    enum { REQUESTS = 16 };
    struct somebody requests[REQUESTS], writer = somebody_new();
    uint64_t started_ns = f.now_ns, id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_WRITE);
    bool done = false;

    (void)state;
    for (int i = 0; i < REQUESTS; i++) {
        requests[i] = somebody_new();
        assert_int_equal(ask_lease(&f, 2 + i, FILE_A, blocks(0, 4), LEASE_WRITE, &requests[i], &id), -EINPROGRESS);
    }
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    while (!done) {
        for (size_t i = 0; i < f.n_events; i++)
            if (f.events[i].kind == LEASE_EVENT_FENCE)
                lease_fenced(f.table, f.events[i].lease_id, true, f.now_ns);
        for (int i = 0; i < REQUESTS; i++)
            if (requests[i].resumed) { /* the worst order: they take their turn first */
                struct lease_info info;

                requests[i].resumed = 0;
                if (ask_lease(&f, 2 + i, FILE_A, blocks(0, 4), LEASE_WRITE, &requests[i], &id) == 0)
                    assert_int_equal(lease_commit(f.table, id, f.now_ns, &f, &info), 0);
            }
        if (writer.resumed) {
            writer.resumed = 0;
            done = begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer) == 0;
        } else {
            pass_time(&f, 10 * MS);
        }
    }
    assert_true(f.now_ns - started_ns <= fixture_limits.recall_timeout_ns + 10 * MS);
    lease_op_end(f.table, &writer.waiter);
    for (int i = 0; i < REQUESTS; i++)
        lease_op_end(f.table, &requests[i].waiter);
}

/* I10, of an operation on two files: what it has waited for once is not leased away while it waits for the other. */
static void an_operation_on_two_files_keeps_the_first_while_it_waits_for_the_second(void **state)
{
    struct somebody copy = somebody_new(), thief = somebody_new();
    uint64_t source = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_WRITE);
    uint64_t destination = lease_held(&f, 1, FILE_B, blocks(0, 4), LEASE_WRITE), id;

    (void)state;
    assert_int_equal(begin(&f, FILE_A, blocks(0, 2), LEASE_OP_SHARE, &copy), -EINPROGRESS);
    lease_return(f.table, 1, source, 0, f.now_ns);
    lease_fenced(f.table, source, true, f.now_ns);
    assert_int_equal(copy.resumed, 1);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 2), LEASE_OP_SHARE, &copy), 0);
    assert_int_equal(begin(&f, FILE_B, blocks(0, 2), LEASE_OP_REPLACE, &copy), -EINPROGRESS);

    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 1), LEASE_WRITE, NULL, &id), -EAGAIN);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 1), LEASE_WRITE, &thief, &id), -EINPROGRESS);
    lease_return(f.table, 1, destination, 0, f.now_ns);
    lease_fenced(f.table, destination, true, f.now_ns);
    assert_int_equal(copy.resumed, 2);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 2), LEASE_OP_SHARE, &copy), 0);
    assert_int_equal(begin(&f, FILE_B, blocks(0, 2), LEASE_OP_REPLACE, &copy), 0);
    assert_int_equal(thief.resumed, 0);
    lease_op_end(f.table, &copy.waiter);
    assert_int_equal(thief.resumed, 1);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 1), LEASE_WRITE, &thief, &id), 0);
}

static void an_operation_that_asks_for_ever_other_ranges_keeps_only_the_latest(void **state)
{
    struct somebody op = somebody_new();
    struct lease_counts counts;

    (void)state;
    lease_held(&f, 1, FILE_A, blocks(0, 16), LEASE_READ);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(begin(&f, FILE_A, blocks(i, 1), LEASE_OP_DROP, &op), -EINPROGRESS);
        assert_int_equal(lease_table_check(f.table), 0);
    }
    lease_counts(f.table, &counts);
    assert_int_equal(counts.waiters, LEASE_WAITER_PLACES);
    assert_true(lease_waiter_cancel(f.table, &op.waiter, f.now_ns));
    lease_counts(f.table, &counts);
    assert_int_equal(counts.waiters, 0);
}

static void readers_that_keep_coming_do_not_starve_a_writer(void **state)
{
    struct somebody writer = somebody_new(), reader = somebody_new();
    uint64_t held = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ), id;

    (void)state;
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 4), LEASE_WRITE, &writer, &id), -EINPROGRESS);
    assert_int_equal(ask_lease(&f, 3, FILE_A, blocks(0, 4), LEASE_READ, &reader, &id), -EINPROGRESS);
    assert_int_equal(ask_lease(&f, 4, FILE_A, blocks(1, 1), LEASE_READ, NULL, &id), -EAGAIN);
    lease_return(f.table, 1, held, 0, f.now_ns);
    lease_fenced(f.table, held, true, f.now_ns);
    assert_int_equal(writer.resumed, 1);
    assert_int_equal(reader.resumed, 0);
    assert_int_equal(ask_lease(&f, 3, FILE_A, blocks(0, 4), LEASE_READ, &reader, &id), -EINPROGRESS);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 4), LEASE_WRITE, &writer, &id), 0);
    lease_abort(f.table, id, f.now_ns);
    assert_int_equal(reader.resumed, 1);
    lease_op_end(f.table, &reader.waiter);
}

static void who_does_not_wait_recalls_and_nobodys_leaving_takes_that_back(void **state)
{
    struct somebody writer = somebody_new();
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ);

    (void)state;
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, NULL), -EAGAIN);
    assert_int_equal(state_of(&f, id), LEASE_RECALLED);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    assert_true(lease_waiter_cancel(f.table, &writer.waiter, f.now_ns));
    assert_int_equal(state_of(&f, id), LEASE_RECALLED);
    pass_time(&f, fixture_limits.recall_timeout_ns);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, NULL), 0);
}

static void a_lease_request_that_does_not_wait_recalls_nobody(void **state)
{
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ), other;

    (void)state;
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 4), LEASE_WRITE, NULL, &other), -EBUSY);
    assert_int_equal(state_of(&f, id), LEASE_ACTIVE);
    assert_int_equal(f.n_events, 0);
}

static void an_abandoned_waiter_is_resumed_and_never_parks_again(void **state)
{
    struct somebody op = somebody_new(), request = somebody_new(), early = somebody_new();
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_WRITE), other;

    (void)state;
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &op), -EINPROGRESS);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 4), LEASE_WRITE, &request, &other), -EINPROGRESS);
    lease_waiter_abandon(f.table, &op.waiter);
    lease_waiter_abandon(f.table, &request.waiter);
    lease_waiter_abandon(f.table, &early.waiter);
    assert_int_equal(op.resumed, 1);
    assert_int_equal(request.resumed, 1);
    assert_int_equal(early.resumed, 0);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &op), -ECANCELED);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 4), LEASE_WRITE, &request, &other), -ECANCELED);
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &early), -ECANCELED);
    lease_op_end(f.table, &op.waiter);
    assert_int_equal(state_of(&f, id), LEASE_ACTIVE); /* nobody waits: the recall was taken back */
}

static void a_recall_names_the_bytes_that_are_wanted_and_asks_for_more_when_more_are(void **state)
{
    struct somebody first = somebody_new(), second = somebody_new(), third = somebody_new();
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(2, 8), LEASE_READ), deadline_ns;
    struct lease_info info;

    (void)state;
    assert_int_equal(begin(&f, FILE_A, blocks(0, 3), LEASE_OP_REPLACE, &first), -EINPROGRESS);
    assert_int_equal(last_event(&f)->range.offset, 2 * BLOCK);
    assert_int_equal(last_event(&f)->range.length, BLOCK);
    deadline_ns = last_event(&f)->deadline_ns;
    pass_time(&f, 10 * MS);
    assert_int_equal(begin(&f, FILE_A, blocks(4, 1), LEASE_OP_REPLACE, &second), -EINPROGRESS);
    assert_int_equal(events_of(&f, LEASE_EVENT_RECALL, id), 2);
    assert_int_equal(last_event(&f)->range.offset, 2 * BLOCK);
    assert_int_equal(last_event(&f)->range.length, 3 * BLOCK);
    assert_int_equal(last_event(&f)->deadline_ns, deadline_ns);
    assert_int_equal(last_event(&f)->sequence, 3);
    assert_int_equal(begin(&f, FILE_A, blocks(3, 1), LEASE_OP_REPLACE, &third), -EINPROGRESS);
    assert_int_equal(events_of(&f, LEASE_EVENT_RECALL, id), 2); /* it has been asked for */
    lease_op_end(f.table, &first.waiter);
    lease_op_end(f.table, &second.waiter);
    lease_op_end(f.table, &third.waiter);
    assert_int_equal(lease_get(f.table, id, &info), 0);
    assert_int_equal(info.wanted.length, 0);
    assert_int_equal(begin(&f, FILE_A, blocks(9, 1), LEASE_OP_REPLACE, &first), -EINPROGRESS);
    assert_int_equal(last_event(&f)->range.offset, 9 * BLOCK); /* a new recall asks anew */
    lease_op_end(f.table, &first.waiter);
}

/* ---- giving back; limits ---- */

static void returns_may_be_late_doubled_or_somebody_elses(void **state)
{
    struct somebody writer = somebody_new();
    uint64_t id = lease_held(&f, 1, FILE_A, blocks(0, 4), LEASE_READ);

    (void)state;
    assert_int_equal(lease_return(f.table, 2, id, 0, f.now_ns), -ENOENT);
    assert_int_equal(lease_return(f.table, 1, id, 2, f.now_ns), -EINVAL);
    /* The recall that crosses the return has made the sequence 2. */
    assert_int_equal(begin(&f, FILE_A, blocks(0, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    assert_int_equal(lease_return(f.table, 1, id, 1, f.now_ns), 0);
    assert_int_equal(lease_return(f.table, 1, id, 2, f.now_ns), -EALREADY);
    lease_fenced(f.table, id, true, f.now_ns);
    assert_int_equal(lease_return(f.table, 1, id, 2, f.now_ns), -ENOENT);
    lease_op_end(f.table, &writer.waiter);
}

static void limits_of_a_session_and_of_the_table_are_kept(void **state)
{
    uint64_t id;

    (void)state;
    for (size_t i = 0; i < fixture_limits.max_session_leases; i++)
        lease_held(&f, 1, FILE_A, blocks(i, 1), LEASE_READ);
    assert_int_equal(ask_lease(&f, 1, FILE_A, blocks(0, 1), LEASE_READ, NULL, &id), -EMFILE);
    for (size_t i = fixture_limits.max_session_leases; i < fixture_limits.max_leases; i++)
        lease_held(&f, 2 + i, FILE_A, blocks(i, 1), LEASE_READ);
    assert_int_equal(ask_lease(&f, 2, FILE_A, blocks(0, 1), LEASE_READ, NULL, &id), -ENFILE);
}

static void the_list_is_in_order_of_id_and_says_how_many_there_are(void **state)
{
    uint64_t first = lease_held(&f, 1, FILE_A, blocks(0, 1), LEASE_READ);
    uint64_t second = lease_held(&f, 1, FILE_B, blocks(0, 1), LEASE_WRITE);
    struct lease_info infos[2];

    (void)state;
    assert_int_equal(lease_list(f.table, 0, infos, 2), 2);
    assert_int_equal(infos[0].lease_id, first);
    assert_int_equal(infos[1].lease_id, second);
    assert_int_equal(lease_list(f.table, FILE_B, infos, 1), 1);
    assert_int_equal(infos[0].lease_id, second);
    assert_int_equal(lease_list(f.table, 0, NULL, 0), 2);
    assert_int_equal(lease_get(f.table, 999, infos), -ENOENT);
}

static void every_name_has_its_word(void **state)
{
    (void)state;
    assert_string_equal(lease_mode_name(LEASE_WRITE), "write");
    assert_string_equal(lease_mode_name(LEASE_READ), "read");
    assert_string_equal(lease_state_name(LEASE_QUARANTINED), "quarantined");
    assert_string_equal(lease_end_reason_name(LEASE_END_RECALL_TIMEOUT), "recall-timeout");
    assert_string_equal(lease_policy_name(LEASE_POLICY_ORPHAN), "orphan");
    assert_null(lease_policy_name(0));
    assert_int_equal(lease_policy_named("busy", 4), LEASE_POLICY_BUSY);
    assert_int_equal(lease_policy_named("busybody", 8), 0);
    assert_int_equal(lease_policy_named("", 0), 0);
    assert_string_equal(lease_state_name(0), "?");
    assert_string_equal(lease_end_reason_name(99), "?");
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(a_lease_is_granted_committed_returned_and_gone_after_its_fence),
        STORY(an_aborted_grant_leaves_nothing),
        STORY(a_conflict_recalls_and_the_last_waiter_that_leaves_takes_the_recall_back),
        STORY(a_silent_holder_loses_its_lease_at_the_recalls_deadline),
        STORY(an_unrenewed_lease_expires_and_a_renewed_one_does_not),
        STORY(renewing_a_recalled_lease_does_not_put_its_deadline_off),
        STORY(revocation_and_the_sessions_end_fence_at_once),
        STORY(a_grant_whose_session_ended_meanwhile_cannot_be_committed),
        STORY(an_unproven_fence_quarantines_the_lease_and_bothers_nobody),
        STORY(a_fence_that_overruns_lets_a_writer_go_and_keeps_leases_away),
        STORY(another_file_and_an_empty_range_conflict_with_nothing),
        STORY(nonsense_is_refused),
        STORY(a_grant_in_progress_is_recalled_as_soon_as_it_is_committed),
        STORY(who_does_not_wait_for_a_grant_in_progress_has_it_recalled_all_the_same),
        STORY(no_lease_is_granted_over_a_pending_recall),
        STORY(an_operation_goes_before_lease_requests_that_are_older),
        STORY(an_operation_on_two_files_keeps_the_first_while_it_waits_for_the_second),
        STORY(an_operation_that_asks_for_ever_other_ranges_keeps_only_the_latest),
        STORY(readers_that_keep_coming_do_not_starve_a_writer),
        STORY(who_does_not_wait_recalls_and_nobodys_leaving_takes_that_back),
        STORY(a_lease_request_that_does_not_wait_recalls_nobody),
        STORY(an_abandoned_waiter_is_resumed_and_never_parks_again),
        STORY(a_recall_names_the_bytes_that_are_wanted_and_asks_for_more_when_more_are),
        STORY(returns_may_be_late_doubled_or_somebody_elses),
        STORY(limits_of_a_session_and_of_the_table_are_kept),
        STORY(the_list_is_in_order_of_id_and_says_how_many_there_are),
        STORY(every_name_has_its_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
