/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of partial returns and downgrades: what is kept, who goes on, who does not slip in, and which messages may
 * come twice, late or crossed. */
#include "lease_fixture.h"

#include <errno.h>

#include "lease/range.h"

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

static struct lease_info info_of(struct fixture *f, uint64_t id)
{
    struct lease_info info;

    assert_int_equal(lease_get(f->table, id, &info), 0);
    return info;
}

static void expect_range(struct fixture *f, uint64_t id, struct lease_range range)
{
    struct lease_info info = info_of(f, id);

    assert_int_equal(info.range.offset, range.offset);
    assert_int_equal(info.range.length, range.length);
}

static struct lease_cut cut_out(struct lease_range part, enum lease_mode mode)
{
    return (struct lease_cut){.part = part, .mode = mode, .exposure = (void *)0xcafe};
}

/* Cuts, and says which lease the remnant is. */
static uint64_t cut(struct fixture *f, uint64_t session, uint64_t id, struct lease_cut *c)
{
    size_t before = f->n_events;

    assert_int_equal(lease_cut(f->table, session, id, 0, f->now_ns, c), 0);
    assert_true(f->n_events > before);
    assert_int_equal(f->events[before].kind, LEASE_EVENT_FENCE);
    assert_ptr_equal(f->events[before].exposure, (void *)0xcafe);
    assert_int_equal(lease_table_check(f->table), 0);
    return f->events[before].lease_id;
}

static void commit(struct fixture *f, uint64_t id)
{
    struct lease_info info;

    assert_int_equal(lease_commit(f->table, id, f->now_ns, (void *)(uintptr_t)id, &info), 0);
    assert_int_equal(lease_table_check(f->table), 0);
}

static void fenced(struct fixture *f, uint64_t id)
{
    lease_fenced(f->table, id, true, f->now_ns);
    assert_int_equal(lease_table_check(f->table), 0);
}

/* ---- what is kept ---- */

static void the_middle_goes_and_two_leases_are_kept(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 16), LEASE_WRITE), remnant;
    struct lease_cut c = cut_out(blocks(4, 4), LEASE_WRITE);

    remnant = cut(f, 1, id, &c);
    assert_int_equal(c.n_kept, 2);
    assert_int_equal(c.kept[0], id);
    expect_range(f, id, blocks(0, 4));
    expect_range(f, c.kept[1], blocks(8, 8));
    expect_range(f, remnant, blocks(0, 16)); /* what the old key reaches until the fence */
    assert_int_equal(info_of(f, id).sequence, 2);
    fenced(f, remnant);
    commit(f, id);
    commit(f, c.kept[1]);
    assert_int_equal(state_of(f, id), LEASE_ACTIVE);
    assert_int_equal(state_of(f, c.kept[1]), LEASE_ACTIVE);
    assert_int_equal(state_of(f, remnant), 0);
}

static void bytes_and_leases_are_counted_right_through_a_cut(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 16), LEASE_READ), remnant;
    struct lease_cut c = cut_out(blocks(4, 4), LEASE_READ);
    struct lease_counts n;

    remnant = cut(f, 1, id, &c);
    lease_counts(f->table, &n);
    assert_int_equal(n.leases, 3);
    assert_int_equal(n.bytes, 28 * BLOCK); /* both are pinned at that moment */
    fenced(f, remnant);
    commit(f, id);
    commit(f, c.kept[1]);
    lease_counts(f->table, &n);
    assert_int_equal(n.leases, 2);
    assert_int_equal(n.bytes, 12 * BLOCK);
    assert_int_equal(n.granted, 1);
    assert_int_equal(n.returned, 0);
    assert_int_equal(n.parts, 1);
}

/* I10: from the return of a part until the rest is exposed anew, the rest is the holder's. */
static void nobody_slips_in_between(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 8), LEASE_WRITE), remnant, other;
    struct somebody waits = somebody_new();
    struct lease_cut c = cut_out(blocks(0, 4), LEASE_WRITE);

    remnant = cut(f, 1, id, &c);
    assert_int_equal(ask_lease(f, 2, FILE1, blocks(4, 4), LEASE_READ, NULL, &other), -EBUSY);
    fenced(f, remnant);
    assert_int_equal(ask_lease(f, 2, FILE1, blocks(4, 4), LEASE_READ, NULL, &other), -EBUSY);
    assert_int_equal(ask_lease(f, 2, FILE1, blocks(0, 4), LEASE_WRITE, NULL, &other), 0); /* what was given back */
    assert_int_equal(begin(f, FILE1, blocks(7, 1), LEASE_OP_REPLACE, &waits), -EINPROGRESS);
    commit(f, id);
    assert_int_equal(state_of(f, id), LEASE_RECALLED); /* what came meanwhile is not forgotten */
    assert_int_equal(waits.resumed, 0);
    assert_true(lease_waiter_cancel(f->table, &waits.waiter, f->now_ns));
    lease_abort(f->table, other, f->now_ns);
}

static void the_wanted_part_satisfies_its_recall_and_the_rest_is_no_longer_recalled(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 16), LEASE_WRITE), remnant;
    struct somebody writer = somebody_new();
    struct lease_cut c;

    assert_int_equal(begin(f, FILE1, blocks(4, 2), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    assert_int_equal(last_event(f)->range.offset, 4 * BLOCK);
    assert_int_equal(last_event(f)->range.length, 2 * BLOCK);
    c = cut_out(last_event(f)->range, LEASE_WRITE);
    remnant = cut(f, 1, id, &c);
    assert_int_equal(writer.resumed, 0); /* a writer may still be at it: only after the fence */
    fenced(f, remnant);
    assert_int_equal(writer.resumed, 1);
    assert_int_equal(begin(f, FILE1, blocks(4, 2), LEASE_OP_REPLACE, &writer), 0);
    lease_op_end(f->table, &writer.waiter);
    commit(f, id);
    commit(f, c.kept[1]);
    assert_int_equal(state_of(f, id), LEASE_ACTIVE);
    assert_int_equal(state_of(f, c.kept[1]), LEASE_ACTIVE);
    pass_time(f, 200 * MS); /* the old deadline means nothing any more */
    assert_int_equal(state_of(f, id), LEASE_ACTIVE);
}

static void an_operation_that_only_drops_the_part_does_not_wait_for_the_fence(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 16), LEASE_WRITE);
    struct somebody puncher = somebody_new();
    struct lease_cut c = cut_out(blocks(8, 8), LEASE_WRITE);

    assert_int_equal(begin(f, FILE1, blocks(8, 8), LEASE_OP_DROP, &puncher), -EINPROGRESS);
    cut(f, 1, id, &c);
    assert_int_equal(puncher.resumed, 1);
    assert_int_equal(begin(f, FILE1, blocks(8, 8), LEASE_OP_DROP, &puncher), 0);
    lease_op_end(f->table, &puncher.waiter);
}

/* I4: giving back block after block does not put the deadline off. */
static void a_holder_cannot_put_off_the_deadline_by_slices(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 16), LEASE_WRITE), deadline_ns;
    struct somebody writer = somebody_new();

    assert_int_equal(begin(f, FILE1, blocks(0, 16), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    deadline_ns = info_of(f, id).recall_deadline_ns;
    for (uint64_t i = 0; i < 9; i++) {
        struct lease_cut c = cut_out(blocks(i, 1), LEASE_WRITE);
        uint64_t remnant = cut(f, 1, id, &c);

        pass_time(f, 10 * MS);
        fenced(f, remnant);
        commit(f, id);
        assert_int_equal(state_of(f, id), LEASE_RECALLED);
        assert_int_equal(info_of(f, id).recall_deadline_ns, deadline_ns);
    }
    pass_time(f, 10 * MS);
    assert_int_equal(state_of(f, id), LEASE_FENCING);
    assert_int_equal(last_event(f)->reason, LEASE_END_RECALL_TIMEOUT);
    fenced(f, id);
    assert_int_equal(writer.resumed, 1);
    assert_int_equal(begin(f, FILE1, blocks(0, 16), LEASE_OP_REPLACE, &writer), 0);
    lease_op_end(f->table, &writer.waiter);
}

/* The same for a change that comes while the rest is not exposed yet: its deadline counts from then. */
static void the_deadline_counts_from_the_change_not_from_the_new_exposure(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 16), LEASE_WRITE), came_ns;
    struct lease_cut c = cut_out(blocks(0, 1), LEASE_WRITE);
    struct somebody writer = somebody_new();
    uint64_t remnant = cut(f, 1, id, &c);

    came_ns = f->now_ns;
    assert_int_equal(begin(f, FILE1, blocks(8, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    pass_time(f, 30 * MS);
    fenced(f, remnant);
    commit(f, id);
    assert_int_equal(info_of(f, id).recall_deadline_ns, came_ns + 100 * MS);
    pass_time(f, 70 * MS);
    assert_int_equal(state_of(f, id), LEASE_FENCING);
    fenced(f, id);
    assert_int_equal(begin(f, FILE1, blocks(8, 1), LEASE_OP_REPLACE, &writer), 0);
    lease_op_end(f->table, &writer.waiter);
}

/* I4 even if exposing the rest, or the fence before it, takes for ever. */
static void a_piece_that_is_not_exposed_by_its_deadline_is_lost(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 16), LEASE_WRITE), remnant, other;
    struct lease_cut c = cut_out(blocks(4, 4), LEASE_WRITE);
    struct somebody puncher = somebody_new(), writer = somebody_new();
    struct lease_info info;

    remnant = cut(f, 1, id, &c);
    assert_int_equal(begin(f, FILE1, blocks(0, 1), LEASE_OP_DROP, &puncher), -EINPROGRESS);
    assert_int_equal(begin(f, FILE1, blocks(1, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    pass_time(f, 99 * MS);
    assert_int_equal(puncher.resumed, 0);
    pass_time(f, 1 * MS);
    assert_int_equal(puncher.resumed, 1);
    assert_int_equal(begin(f, FILE1, blocks(0, 1), LEASE_OP_DROP, &puncher), 0);
    lease_op_end(f->table, &puncher.waiter);
    assert_int_equal(begin(f, FILE1, blocks(1, 1), LEASE_OP_REPLACE, &writer), 0); /* the fence has overrun, too */
    lease_op_end(f->table, &writer.waiter);
    assert_true(info_of(f, id).lost);
    assert_false(info_of(f, c.kept[1]).lost); /* nobody wants it */
    assert_int_equal(ask_lease(f, 2, FILE1, blocks(0, 1), LEASE_READ, NULL, &other), -EBUSY);
    fenced(f, remnant);
    assert_int_equal(lease_commit(f->table, id, f->now_ns, NULL, &info), -ESTALE);
    lease_abort(f->table, id, f->now_ns);
    commit(f, c.kept[1]);
    assert_int_equal(ask_lease(f, 2, FILE1, blocks(0, 1), LEASE_READ, NULL, &other), 0);
    lease_abort(f->table, other, f->now_ns);
}

/* Nobody wants it any more when its deadline comes. */
static void a_piece_whose_waiter_left_is_not_lost(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 16), LEASE_WRITE), remnant;
    struct lease_cut c = cut_out(blocks(8, 8), LEASE_WRITE);
    struct somebody writer = somebody_new();

    assert_int_equal(begin(f, FILE1, blocks(0, 16), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    remnant = cut(f, 1, id, &c);
    assert_true(lease_waiter_cancel(f->table, &writer.waiter, f->now_ns));
    pass_time(f, 200 * MS);
    fenced(f, remnant);
    commit(f, id);
    assert_int_equal(state_of(f, id), LEASE_ACTIVE);
}

/* Under `orphan` an operation waits for no piece: its blocks are the remnant's, which are never changed in place. */
static void under_orphan_an_operation_goes_through_a_piece_which_is_told_later(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 16), LEASE_READ), remnant;
    struct lease_cut c = cut_out(blocks(4, 4), LEASE_READ);

    remnant = cut(f, 1, id, &c);
    assert_int_equal(
        lease_op_begin_under(f->table, FILE1, blocks(2, 8), LEASE_OP_REPLACE, LEASE_POLICY_ORPHAN, f->now_ns, NULL), 0);
    assert_int_equal(events_of(f, LEASE_EVENT_ORPHANED, 0), 0);
    fenced(f, remnant);
    commit(f, id);
    commit(f, c.kept[1]);
    assert_int_equal(events_of(f, LEASE_EVENT_ORPHANED, id), 1);
    assert_int_equal(events_of(f, LEASE_EVENT_ORPHANED, c.kept[1]), 1);
    assert_int_equal(info_of(f, id).orphaned.offset, 2 * BLOCK);
    assert_int_equal(info_of(f, id).orphaned.length, 2 * BLOCK);
    assert_int_equal(info_of(f, c.kept[1]).orphaned.length, 2 * BLOCK);
}

static void somebody_who_only_tried_still_wants_what_was_kept_of_it(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 16), LEASE_WRITE);
    struct lease_cut c = cut_out(blocks(0, 5), LEASE_WRITE), rest = cut_out(blocks(5, 3), LEASE_WRITE);
    uint64_t remnant;

    assert_int_equal(begin(f, FILE1, blocks(4, 4), LEASE_OP_REPLACE, NULL), -EAGAIN);
    remnant = cut(f, 1, id, &c);
    fenced(f, remnant);
    commit(f, id);
    assert_int_equal(state_of(f, id), LEASE_RECALLED);
    assert_int_equal(info_of(f, id).wanted.offset, 5 * BLOCK);
    assert_int_equal(info_of(f, id).wanted.length, 3 * BLOCK);
    remnant = cut(f, 1, id, &rest);
    fenced(f, remnant);
    commit(f, id);
    assert_int_equal(state_of(f, id), LEASE_ACTIVE);
}

/* ---- downgrade ---- */

static void a_downgrade_lets_readers_in_after_the_fence(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 8), LEASE_WRITE), remnant, other;
    struct somebody reader = somebody_new();
    struct lease_cut c = cut_out(blocks(0, 0), LEASE_READ);

    assert_int_equal(ask_lease(f, 2, FILE1, blocks(0, 8), LEASE_READ, &reader, &other), -EINPROGRESS);
    assert_int_equal(state_of(f, id), LEASE_RECALLED);
    remnant = cut(f, 1, id, &c);
    assert_int_equal(c.n_kept, 1);
    assert_int_equal(info_of(f, id).mode, LEASE_READ);
    assert_int_equal(reader.resumed, 0); /* a write may be on its way still */
    fenced(f, remnant);
    assert_int_equal(reader.resumed, 1);
    assert_int_equal(ask_lease(f, 2, FILE1, blocks(0, 8), LEASE_READ, &reader, &other), 0);
    commit(f, other);
    commit(f, id);
    assert_int_equal(state_of(f, id), LEASE_ACTIVE);
    assert_int_equal(state_of(f, other), LEASE_ACTIVE);
}

static void a_read_lease_is_not_upgraded(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 8), LEASE_READ);
    struct lease_cut c = cut_out(blocks(0, 4), LEASE_WRITE);

    assert_int_equal(lease_cut(f->table, 1, id, 0, f->now_ns, &c), -EINVAL);
    expect_range(f, id, blocks(0, 8));
}

/* ---- limits, and ends in the midst of it ---- */

static void two_pieces_are_refused_at_the_limit_and_one_is_not(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 8), LEASE_READ);
    struct lease_cut middle = cut_out(blocks(2, 2), LEASE_READ), end = cut_out(blocks(4, 4), LEASE_READ);

    while (lease_get(f->table, id + 15, &(struct lease_info){0}))
        lease_held(f, 1, FILE1, blocks(0, 8), LEASE_READ);
    assert_int_equal(lease_cut(f->table, 1, id, 0, f->now_ns, &middle), -EMFILE);
    expect_range(f, id, blocks(0, 8)); /* all is as it was */
    assert_int_equal(info_of(f, id).sequence, 1);
    fenced(f, cut(f, 1, id, &end));
    commit(f, id);
    expect_range(f, id, blocks(0, 4));
}

/* I6 */
static void a_session_that_ends_meanwhile_keeps_nothing(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 8), LEASE_WRITE), remnant;
    struct lease_cut c = cut_out(blocks(2, 2), LEASE_WRITE);
    struct lease_info info;

    remnant = cut(f, 1, id, &c);
    lease_session_end(f->table, 1, f->now_ns);
    fenced(f, remnant);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lease_commit(f->table, c.kept[i], f->now_ns, NULL, &info), -ESTALE);
        lease_abort(f->table, c.kept[i], f->now_ns);
        assert_int_equal(state_of(f, c.kept[i]), 0);
    }
}

static void without_proof_the_remnant_is_quarantined_and_waits_for_nobody(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 8), LEASE_WRITE), remnant;
    struct lease_cut c = cut_out(blocks(0, 4), LEASE_WRITE);
    struct somebody writer = somebody_new();

    assert_int_equal(begin(f, FILE1, blocks(0, 8), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    remnant = cut(f, 1, id, &c);
    lease_fenced(f->table, remnant, false, f->now_ns);
    assert_int_equal(state_of(f, remnant), LEASE_QUARANTINED);
    assert_int_equal(writer.resumed, 0);
    lease_abort(f->table, id, f->now_ns); /* what could not be fenced is not exposed again */
    assert_int_equal(writer.resumed, 1);
    assert_int_equal(begin(f, FILE1, blocks(0, 8), LEASE_OP_REPLACE, &writer), 0);
    lease_op_end(f->table, &writer.waiter);
}

/* A kept piece that is returned at once is not free before the old access is fenced: the remnant covers it. */
static void the_remnant_guards_what_was_kept_and_returned_before_the_fence(void **state)
{
    struct fixture *f = *state;
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 8), LEASE_WRITE), remnant;
    struct lease_cut c = cut_out(blocks(0, 4), LEASE_WRITE);
    struct somebody writer = somebody_new();

    remnant = cut(f, 1, id, &c);
    commit(f, id);
    assert_int_equal(lease_return(f->table, 1, id, 0, f->now_ns), 0);
    fenced(f, id);
    assert_int_equal(begin(f, FILE1, blocks(6, 1), LEASE_OP_REPLACE, &writer), -EINPROGRESS);
    fenced(f, remnant);
    assert_int_equal(writer.resumed, 1);
    assert_int_equal(begin(f, FILE1, blocks(6, 1), LEASE_OP_REPLACE, &writer), 0);
    lease_op_end(f->table, &writer.waiter);
}

/* ---- messages that come twice, late, or cross ---- */

enum message { NONE, RENEW, RETURN, CUT_FRONT, CUT_SAME, DOWNGRADE };

static int say(struct fixture *f, enum message message, uint64_t session, uint64_t id, uint32_t sequence)
{
    struct lease_cut front = cut_out(blocks(0, 4), LEASE_WRITE), down = cut_out(blocks(0, 0), LEASE_READ);
    struct lease_info info;

    switch (message) {
    case NONE:
        break;
    case RENEW:
        return lease_renew(f->table, session, id, f->now_ns, &info);
    case RETURN:
        return lease_return(f->table, session, id, sequence, f->now_ns);
    case CUT_FRONT:
    case CUT_SAME:
        return lease_cut(f->table, session, id, sequence, f->now_ns, &front);
    case DOWNGRADE:
        return lease_cut(f->table, session, id, sequence, f->now_ns, &down);
    }
    return 0;
}

/* What a write lease on 8 blocks goes through first; then a message, and perhaps the same once more. */
enum past { FRESH, WAS_RECALLED, RECALL_CANCELLED, CUTTING, WAS_CUT, ENDING, ENDED, TIMED_OUT };

static uint64_t live(struct fixture *f, enum past past, struct somebody *writer)
{
    uint64_t id = lease_held(f, 1, FILE1, blocks(0, 8), LEASE_WRITE);
    struct lease_cut front = cut_out(blocks(0, 4), LEASE_WRITE);

    if (past == WAS_RECALLED || past == RECALL_CANCELLED || past == TIMED_OUT)
        assert_int_equal(begin(f, FILE1, blocks(0, 4), LEASE_OP_REPLACE, writer), -EINPROGRESS);
    if (past == RECALL_CANCELLED)
        assert_true(lease_waiter_cancel(f->table, &writer->waiter, f->now_ns));
    if (past == TIMED_OUT)
        pass_time(f, 100 * MS);
    if (past == CUTTING)
        cut(f, 1, id, &front);
    if (past == WAS_CUT) {
        fenced(f, cut(f, 1, id, &front));
        commit(f, id);
    }
    if (past == ENDING || past == ENDED)
        assert_int_equal(lease_return(f->table, 1, id, 0, f->now_ns), 0);
    if (past == ENDED)
        fenced(f, id);
    return id;
}

static void messages_may_come_twice_late_or_crossed(void **state)
{
    static const struct {
        enum past past;
        enum message message;
        uint32_t sequence;
        int first, again; /* the answers */
    } table[] = {
        {FRESH, RENEW, 0, 0, 0},
        {FRESH, RETURN, 1, 0, -EALREADY},
        {FRESH, RETURN, 2, -EINVAL, -EINVAL}, /* a sequence of the future */
        {FRESH, CUT_FRONT, 1, 0, -EINPROGRESS},
        {FRESH, CUT_FRONT, 2, -EINVAL, -EINVAL},
        {FRESH, DOWNGRADE, 1, 0, -EINPROGRESS},
        {WAS_RECALLED, RENEW, 0, 0, 0},
        {WAS_RECALLED, RETURN, 1, 0, -EALREADY}, /* the return crossed the recall */
        {WAS_RECALLED, RETURN, 2, 0, -EALREADY},
        {WAS_RECALLED, CUT_FRONT, 1, 0, -EINPROGRESS},
        {RECALL_CANCELLED, RETURN, 2, 0, -EALREADY}, /* the return crossed the cancelling */
        {RECALL_CANCELLED, CUT_FRONT, 2, 0, -EINPROGRESS},
        {CUTTING, RENEW, 0, 0, 0},
        {CUTTING, RETURN, 1, 0, 0}, /* noted: it ends as soon as it is exposed */
        {CUTTING, CUT_SAME, 1, -EINPROGRESS, -EINPROGRESS},
        {WAS_CUT, RENEW, 0, 0, 0},
        {WAS_CUT, CUT_SAME, 1, -EINVAL, -EINVAL}, /* nothing of it is left to give back */
        {WAS_CUT, RETURN, 1, 0, -EALREADY},
        {WAS_CUT, DOWNGRADE, 1, 0, -EINPROGRESS},
        {ENDING, RENEW, 0, -ESTALE, -ESTALE},
        {ENDING, RETURN, 1, -EALREADY, -EALREADY},
        {ENDING, CUT_FRONT, 1, -EALREADY, -EALREADY},
        {ENDED, RENEW, 0, -ENOENT, -ENOENT},
        {ENDED, RETURN, 1, -ENOENT, -ENOENT},
        {ENDED, CUT_FRONT, 1, -ENOENT, -ENOENT},
        {TIMED_OUT, RENEW, 0, -ESTALE, -ESTALE}, /* the renewal crossed the revocation */
        {TIMED_OUT, RETURN, 2, -EALREADY, -EALREADY},
        {TIMED_OUT, CUT_FRONT, 2, -EALREADY, -EALREADY},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        static struct fixture f;
        struct somebody writer = somebody_new();
        uint64_t id;
        int first, again;

        fixture_start(&f, &fixture_limits);
        id = live(&f, table[i].past, &writer);
        /* Another session's word counts for nothing. */
        if (table[i].message)
            assert_int_equal(say(&f, table[i].message, 2, id, 0), -ENOENT);
        first = say(&f, table[i].message, 1, id, table[i].sequence);
        again = say(&f, table[i].message, 1, id, table[i].sequence);
        if (first != table[i].first || again != table[i].again)
            fail_msg("row %zu: %d, then %d", i, first, again);
        lease_waiter_cancel(f.table, &writer.waiter, f.now_ns);
        lease_op_end(f.table, &writer.waiter);
        fixture_end(&f);
    }
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, start, end)
    const struct CMUnitTest tests[] = {
        STORY(the_middle_goes_and_two_leases_are_kept),
        STORY(bytes_and_leases_are_counted_right_through_a_cut),
        STORY(nobody_slips_in_between),
        STORY(the_wanted_part_satisfies_its_recall_and_the_rest_is_no_longer_recalled),
        STORY(an_operation_that_only_drops_the_part_does_not_wait_for_the_fence),
        STORY(a_holder_cannot_put_off_the_deadline_by_slices),
        STORY(the_deadline_counts_from_the_change_not_from_the_new_exposure),
        STORY(a_piece_that_is_not_exposed_by_its_deadline_is_lost),
        STORY(a_piece_whose_waiter_left_is_not_lost),
        STORY(under_orphan_an_operation_goes_through_a_piece_which_is_told_later),
        STORY(somebody_who_only_tried_still_wants_what_was_kept_of_it),
        STORY(a_downgrade_lets_readers_in_after_the_fence),
        STORY(a_read_lease_is_not_upgraded),
        STORY(two_pieces_are_refused_at_the_limit_and_one_is_not),
        STORY(a_session_that_ends_meanwhile_keeps_nothing),
        STORY(without_proof_the_remnant_is_quarantined_and_waits_for_nobody),
        STORY(the_remnant_guards_what_was_kept_and_returned_before_the_fence),
        cmocka_unit_test(messages_may_come_twice_late_or_crossed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
