/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of conflicts in lease_table.h: operation or lease x held lease x its state x range x policy x waiting. */
#include "lease_fixture.h"

#include <errno.h>

#define FILE_A 7

static struct fixture f;

enum phase { PHASE_GRANTING, PHASE_ACTIVE, PHASE_RECALLED, PHASE_FENCING, PHASE_OVERRUN, PHASE_QUARANTINED, PHASES };

static uint64_t lease_in_phase(enum lease_mode mode, enum phase phase)
{
    struct lease_info info;
    uint64_t id;

    assert_int_equal(ask_lease(&f, 1, FILE_A, blocks(4, 4), mode, NULL, &id), 0);
    if (phase == PHASE_GRANTING)
        return id;
    assert_int_equal(lease_commit(f.table, id, f.now_ns, &f, &info), 0);
    if (phase == PHASE_RECALLED)
        assert_int_equal(begin(&f, FILE_A, blocks(4, 1), LEASE_OP_DROP, NULL), -EAGAIN);
    if (phase >= PHASE_FENCING)
        assert_int_equal(lease_return(f.table, 1, id, 0, f.now_ns), 0);
    if (phase == PHASE_OVERRUN)
        pass_time(&f, fixture_limits.fence_bound_ns);
    if (phase == PHASE_QUARANTINED)
        lease_fenced(f.table, id, false, f.now_ns);
    return id;
}

/* Columns: granting, active, recalled, fencing, overrun, quarantined. */
static const struct {
    enum lease_op op; /* 0: a lease */
    enum lease_mode wanted, held;
    bool conflicts[PHASES];
} conflict_table[] = {
    {LEASE_OP_DROP, 0, LEASE_READ, {1, 1, 1, 0, 0, 0}},    {LEASE_OP_DROP, 0, LEASE_WRITE, {1, 1, 1, 0, 0, 0}},
    {LEASE_OP_REPLACE, 0, LEASE_READ, {1, 1, 1, 0, 0, 0}}, {LEASE_OP_REPLACE, 0, LEASE_WRITE, {1, 1, 1, 1, 0, 0}},
    {LEASE_OP_SHARE, 0, LEASE_READ, {0, 0, 0, 0, 0, 0}},   {LEASE_OP_SHARE, 0, LEASE_WRITE, {1, 1, 1, 1, 0, 0}},
    {0, LEASE_READ, LEASE_READ, {0, 0, 1, 0, 0, 0}},       {0, LEASE_READ, LEASE_WRITE, {1, 1, 1, 1, 1, 0}},
    {0, LEASE_WRITE, LEASE_READ, {1, 1, 1, 1, 1, 0}},      {0, LEASE_WRITE, LEASE_WRITE, {1, 1, 1, 1, 1, 0}},
};

/* What somebody hears who meets a lease in his way. */
static int expected_answer(size_t row, enum phase phase, enum lease_policy policy, bool waits)
{
    bool fencing = phase == PHASE_FENCING || phase == PHASE_OVERRUN;

    if (policy == LEASE_POLICY_ORPHAN && conflict_table[row].op && phase != PHASE_GRANTING)
        return 0;
    if (policy == LEASE_POLICY_BUSY && !fencing)
        return -EBUSY;
    if (waits)
        return -EINPROGRESS;
    return conflict_table[row].op || phase == PHASE_RECALLED ? -EAGAIN : -EBUSY;
}

/* Somebody wants this range beside a lease on blocks 4 to 7. Who waits, or does an operation without waiting, has it
 * recalled. */
static void expect_answer(size_t row, enum phase phase, struct lease_range range, bool waits, int expected)
{
    struct somebody who = somebody_new();
    uint64_t held = lease_in_phase(conflict_table[row].held, phase), id;
    bool recalled;
    int result;

    if (conflict_table[row].op)
        result = begin(&f, FILE_A, range, conflict_table[row].op, waits ? &who : NULL);
    else
        result = ask_lease(&f, 2, FILE_A, range, conflict_table[row].wanted, waits ? &who : NULL, &id);
    recalled = events_of(&f, LEASE_EVENT_RECALL, held) > 0;
    if (result != expected ||
        (phase == PHASE_ACTIVE &&
         recalled != (result == -EINPROGRESS || (result == -EAGAIN && conflict_table[row].op != 0))))
        fail_msg("row %zu, phase %d, range at block %llu, waits %d: %s, %s", row, (int)phase,
                 (unsigned long long)(range.offset / BLOCK), waits, strerror(-result),
                 recalled ? "recalled" : "not recalled");
    lease_op_end(f.table, &who.waiter);
}

static void conflicts_are_those_of_the_table(void **state)
{
    static const struct {
        uint64_t first, count;
        bool overlaps;
    } relations[] = {
        {4, 4, true}, {5, 2, true}, {3, 6, true}, {3, 2, true}, {7, 2, true}, {2, 2, false}, {8, 2, false},
    };

    struct lease_limits limits = fixture_limits;

    (void)state;
    for (size_t row = 0; row < sizeof(conflict_table) / sizeof(conflict_table[0]); row++)
        for (enum phase phase = 0; phase < PHASES; phase++)
            for (size_t i = 0; i < 6 * sizeof(relations) / sizeof(relations[0]); i++) {
                enum lease_policy policy = LEASE_POLICY_RECALL + i / 2 % 3;
                bool waits = i & 1, conflict;

                if (policy != LEASE_POLICY_RECALL && phase == PHASE_RECALLED)
                    continue; /* no operation recalls anybody under these policies */
                conflict = conflict_table[row].conflicts[phase] && relations[i / 6].overlaps;
                limits.policy = policy;
                fixture_start(&f, &limits);
                expect_answer(row, phase, blocks(relations[i / 6].first, relations[i / 6].count), waits,
                              conflict ? expected_answer(row, phase, policy, waits) : 0);
                fixture_end(&f);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(conflicts_are_those_of_the_table)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
