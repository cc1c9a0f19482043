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

static void one_late_byte_makes_a_gate_of_a_fence(void **state)
{
    const struct proof_trial trials[] = {STOPPED, STOPPED, RAN_ON, STOPPED};

    (void)state;
    assert_int_equal(proof_judge(REVOKE_FENCE, true, trials, 4), REVOKE_GATE);
    assert_int_equal(proof_judge(REVOKE_FENCE, true, trials, 2), REVOKE_FENCE);
}

static void a_gate_becomes_a_fence_by_many_trials_only(void **state)
{
    const struct proof_trial trials[] = {STOPPED, STOPPED};

    (void)state;
    assert_int_equal(proof_judge(REVOKE_GATE, true, trials, 2), REVOKE_GATE);
    assert_int_equal(proof_judge(REVOKE_GATE, false, trials, 2), REVOKE_FENCE);
}

static void what_refuses_nothing_is_nothing(void **state)
{
    const struct proof_trial trials[] = {STOPPED, UNHINDERED};

    (void)state;
    assert_int_equal(proof_judge(REVOKE_GATE, false, trials, 2), REVOKE_NOTHING);
    assert_int_equal(proof_judge(REVOKE_FENCE, true, trials, 2), REVOKE_NOTHING);
    assert_int_equal(proof_judge(REVOKE_FENCE, true, trials, 1), REVOKE_FENCE);
}

static void new_pages_are_space_as_long_as_nothing_reaches_them(void **state)
{
    const struct proof_trial clean[] = {UNHINDERED, UNHINDERED};
    const struct proof_trial reached[] = {UNHINDERED, {.caught = true, .late = true}};

    (void)state;
    assert_int_equal(proof_judge(REVOKE_ORPHAN, true, clean, 2), REVOKE_ORPHAN);
    assert_int_equal(proof_judge(REVOKE_ORPHAN, true, reached, 2), REVOKE_NOTHING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_late_byte_makes_a_gate_of_a_fence),
        cmocka_unit_test(a_gate_becomes_a_fence_by_many_trials_only),
        cmocka_unit_test(what_refuses_nothing_is_nothing),
        cmocka_unit_test(new_pages_are_space_as_long_as_nothing_reaches_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
