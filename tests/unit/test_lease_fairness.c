/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nobody starves: a stream of readers and one who wants to change the bytes, for a simulated minute. Holders keep a
 * lease for a while, some answer recalls and some do not; a fence takes its time. LEASEFS_TEST_SEED repeats one run.
 */
#include "lease_fixture.h"

#include <errno.h>

#define FILE1   UINT64_C(1)
#define HOLDERS 40
#ifdef __SANITIZE_THREAD__
#define SECONDS 3 /* there is one thread */
#elif defined(LEASEFS_CHECK)
#define SECONDS 12 /* every edge is followed by a look at the whole table */
#else
#define SECONDS 60
#endif
#define STEP     (1 * MS)
#define FENCE    (5 * MS)
#define A_RECALL (100 * MS) /* fixture_limits */

enum stage { IDLE, WAITING, HOLDING, FENCED_SOON };

struct holder {
    struct somebody who; /* first */
    enum stage stage;
    enum lease_mode mode; /* 0: an operation, which holds nothing */
    uint64_t session, lease, until_ns, asked_ns, longest_ns;
    unsigned long grants;
    bool stubborn; /* does not answer recalls */
};

static struct holder holders[HOLDERS + 1];
static uint64_t random_state;

static unsigned pick(unsigned below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned)(random_state >> 33) % below;
}

static void granted(struct fixture *f, struct holder *h)
{
    struct lease_info info;

    h->grants++;
    if (f->now_ns - h->asked_ns > h->longest_ns)
        h->longest_ns = f->now_ns - h->asked_ns;
    h->until_ns = f->now_ns + (1 + pick(h->stubborn ? 300 : 20)) * MS;
    h->stage = IDLE;
    if (!h->mode) {
        lease_op_end(f->table, &h->who.waiter);
        return;
    }
    assert_int_equal(lease_commit(f->table, h->lease, f->now_ns, NULL, &info), 0);
    h->stage = HOLDING;
}

static void ask(struct fixture *f, struct holder *h)
{
    int result;

    if (h->stage == IDLE) {
        h->who = somebody_new();
        h->asked_ns = f->now_ns;
    }
    h->who.resumed = 0;
    h->stage = WAITING;
    result = h->mode ? ask_lease(f, h->session, FILE1, blocks(0, 8), h->mode, &h->who, &h->lease)
                     : begin(f, FILE1, blocks(2, 2), LEASE_OP_REPLACE, &h->who);
    if (!result)
        granted(f, h);
    else
        assert_int_equal(result, -EINPROGRESS);
}

static void live(struct fixture *f, struct holder *h)
{
    enum lease_state state = h->stage == HOLDING || h->stage == FENCED_SOON ? state_of(f, h->lease) : 0;

    if (h->stage == HOLDING && state != LEASE_FENCING &&
        (f->now_ns >= h->until_ns || (state == LEASE_RECALLED && !h->stubborn)))
        assert_int_equal(lease_return(f->table, h->session, h->lease, 0, f->now_ns), 0);
    if (h->stage == HOLDING && state_of(f, h->lease) == LEASE_FENCING) { /* returned, or taken away */
        h->stage = FENCED_SOON;
        h->until_ns = f->now_ns + FENCE;
    } else if (h->stage == FENCED_SOON && f->now_ns >= h->until_ns) {
        lease_fenced(f->table, h->lease, true, f->now_ns);
        h->stage = IDLE;
        h->until_ns = f->now_ns + pick(3) * MS;
    } else if ((h->stage == IDLE && f->now_ns >= h->until_ns) || (h->stage == WAITING && h->who.resumed)) {
        ask(f, h);
    }
}

/* Everybody wants the same bytes. The last holder is the one that is watched. */
static void live_together(struct fixture *f, size_t n, enum lease_mode crowd, enum lease_mode watched)
{
    struct lease_limits limits = fixture_limits;

    limits.lease_time_ns = 10 * SECONDS * 1000 * MS;
    fixture_start(f, &limits);
    memset(holders, 0, sizeof(holders));
    random_state = from_environment("LEASEFS_TEST_SEED", 1);
    for (size_t i = 0; i <= n; i++)
        holders[i] = (struct holder){.mode = i < n ? crowd : watched, .session = i + 1, .stubborn = i % 4 == 0};
    for (uint64_t ms = 0; ms < SECONDS * 1000; ms++) {
        f->n_events = 0;
        f->now_ns += STEP;
        lease_tick(f->table, f->now_ns);
        for (size_t i = 0; i <= n; i++)
            live(f, &holders[(i + ms) % (n + 1)]);
    }
    for (size_t i = 0; i <= n; i++) {
        lease_waiter_cancel(f->table, &holders[i].who.waiter, f->now_ns);
        lease_op_end(f->table, &holders[i].who.waiter);
        assert_true(holders[i].grants > 0);
    }
    print_message("%lu turns, the longest wait %llu ms; the crowd's first had %lu\n", holders[n].grants,
                  (unsigned long long)(holders[n].longest_ns / MS), holders[0].grants);
    fixture_end(f);
}

static struct fixture fixture;

/* All that hold it are recalled at once, then those that were before it in the queue have their turn, and nobody comes
 * after them. */
static void a_writer_waits_for_the_readers_that_were_there_and_for_no_more(void **state)
{
    (void)state;
    live_together(&fixture, HOLDERS, LEASE_READ, LEASE_WRITE);
    assert_true(holders[HOLDERS].longest_ns <= 2 * (A_RECALL + FENCE) + 8 * STEP);
    assert_true(holders[HOLDERS].grants > SECONDS * 1000 / 400);
}

static void an_operation_waits_for_the_readers_that_were_there_and_for_no_more(void **state)
{
    (void)state;
    live_together(&fixture, HOLDERS, LEASE_READ, 0);
    assert_true(holders[HOLDERS].longest_ns <= A_RECALL + 2 * FENCE + 4 * STEP);
    assert_true(holders[HOLDERS].grants > SECONDS * 1000 / 400);
}

/* First come, first served: each writer that was there before has one turn. */
static void a_reader_among_writers_waits_one_turn_of_each(void **state)
{
    (void)state;
    live_together(&fixture, 10, LEASE_WRITE, LEASE_READ);
    assert_true(holders[10].longest_ns <= 10 * (A_RECALL + FENCE + 4 * STEP));
    assert_true(holders[10].grants > SECONDS * 1000 / 2000);
}

static void an_operation_goes_before_all_writers_that_wait(void **state)
{
    (void)state;
    live_together(&fixture, 10, LEASE_WRITE, 0);
    assert_true(holders[10].longest_ns <= A_RECALL + 2 * FENCE + 4 * STEP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_writer_waits_for_the_readers_that_were_there_and_for_no_more),
        cmocka_unit_test(an_operation_waits_for_the_readers_that_were_there_and_for_no_more),
        cmocka_unit_test(a_reader_among_writers_waits_one_turn_of_each),
        cmocka_unit_test(an_operation_goes_before_all_writers_that_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
