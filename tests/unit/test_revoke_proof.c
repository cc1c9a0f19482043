/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rdma/proof.h"

#define STOPPED                                                                                                        \
    {                                                                                                                  \
        .caught = true, .refused = true                                                                                \
    }
#define RAN_ON                                                                                                         \
    {                                                                                                                  \
        .caught = true, .refused = true, .late = true                                                                  \
    }
#define UNHINDERED                                                                                                     \
    {                                                                                                                  \
        .caught = true                                                                                                 \
    }

static const struct revoke_mechanism fence = {.name = "dereg", .kind = REVOKE_FENCE};
static const struct revoke_mechanism gate = {.name = "mw", .kind = REVOKE_GATE};
static const struct revoke_mechanism space = {.name = "punch", .kind = REVOKE_ORPHAN};
static const struct revoke_mechanism rereg = {.name = "rereg", .kind = REVOKE_GATE, .fence_on = "mlx5_core"};

static void one_late_byte_makes_a_gate_of_a_fence(void **state)
{
    const struct proof_trial trials[] = {STOPPED, STOPPED, RAN_ON, STOPPED};

    (void)state;
    assert_int_equal(proof_judge(&fence, "", trials, 4), REVOKE_GATE);
    assert_int_equal(proof_judge(&fence, "", trials, 2), REVOKE_FENCE);
}

/* On a busy host the call comes back when all is over, however often it is tried. */
static void trials_alone_never_make_a_fence_of_a_gate(void **state)
{
    struct proof_trial trials[1000];

    (void)state;
    for (unsigned i = 0; i < 1000; i++)
        trials[i] = (struct proof_trial)STOPPED;
    assert_int_equal(proof_judge(&rereg, "", trials, 1000), REVOKE_GATE);
    assert_int_equal(proof_judge(&rereg, "irdma", trials, 1000), REVOKE_GATE);
    assert_int_equal(proof_judge(&rereg, "mlx5_core2", trials, 1000), REVOKE_GATE);
    assert_int_equal(proof_judge(&gate, "mlx5_core", trials, 1000), REVOKE_GATE);
    assert_int_equal(proof_judge(&gate, "", trials, 1000), REVOKE_GATE);
}

static void a_documented_fence_needs_many_clean_trials_and_loses_by_one(void **state)
{
    struct proof_trial trials[PROOF_PROMOTION];

    (void)state;
    for (unsigned i = 0; i < PROOF_PROMOTION; i++)
        trials[i] = (struct proof_trial)STOPPED;
    assert_int_equal(proof_trials_wanted(&rereg, "mlx5_core"), PROOF_PROMOTION);
    assert_int_equal(proof_judge(&rereg, "mlx5_core", trials, PROOF_PROMOTION - 1), REVOKE_GATE);
    assert_int_equal(proof_judge(&rereg, "mlx5_core", trials, PROOF_PROMOTION), REVOKE_FENCE);
    trials[17] = (struct proof_trial)RAN_ON;
    assert_int_equal(proof_judge(&rereg, "mlx5_core", trials, PROOF_PROMOTION), REVOKE_GATE);
}

static void no_more_trials_are_made_than_fit(void **state)
{
    const struct revoke_mechanism *const all[] = {&fence, &gate, &space, &rereg};

    (void)state;
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        assert_in_range(proof_trials_wanted(all[i], ""), 2, PROOF_PROMOTION);
        assert_in_range(proof_trials_wanted(all[i], "mlx5_core"), 2, PROOF_PROMOTION);
    }
    assert_true(proof_trials_wanted(&rereg, "") < PROOF_PROMOTION);
}

static void what_refuses_nothing_is_nothing(void **state)
{
    const struct proof_trial trials[] = {STOPPED, UNHINDERED};

    (void)state;
    assert_int_equal(proof_judge(&rereg, "mlx5_core", trials, 2), REVOKE_NOTHING);
    assert_int_equal(proof_judge(&fence, "", trials, 2), REVOKE_NOTHING);
    assert_int_equal(proof_judge(&fence, "", trials, 1), REVOKE_FENCE);
}

static void new_pages_are_space_as_long_as_nothing_reaches_them(void **state)
{
    const struct proof_trial clean[] = {UNHINDERED, UNHINDERED};
    const struct proof_trial reached[] = {UNHINDERED, {.caught = true, .late = true}};

    (void)state;
    assert_int_equal(proof_judge(&space, "", clean, 2), REVOKE_ORPHAN);
    assert_int_equal(proof_judge(&space, "", reached, 2), REVOKE_NOTHING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_late_byte_makes_a_gate_of_a_fence),
        cmocka_unit_test(trials_alone_never_make_a_fence_of_a_gate),
        cmocka_unit_test(a_documented_fence_needs_many_clean_trials_and_loses_by_one),
        cmocka_unit_test(no_more_trials_are_made_than_fit),
        cmocka_unit_test(what_refuses_nothing_is_nothing),
        cmocka_unit_test(new_pages_are_space_as_long_as_nothing_reaches_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
