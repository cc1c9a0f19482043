/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rdma/fabric.h"
#include "rdma/revoke.h"

/* A device that does as it is told. Time passes only when a mechanism says that it took some. */
struct fake_rung {
    int result;
    uint64_t takes_ns;
    unsigned climbed;
};

static struct {
    uint64_t now_ns;
    struct fake_rung gate, late_gate, dereg, qp;
    char order[64];
} fake;

static uint64_t fake_now(void)
{
    return fake.now_ns;
}

static int climb(struct fake_rung *rung, const char *name)
{
    rung->climbed++;
    fake.now_ns += rung->takes_ns;
    strcat(fake.order, name);
    return rung->result;
}

#define FAKE(field, letter)                                                                                            \
    static int run_##field(struct exposure *exposure, uint64_t deadline_ns)                                            \
    {                                                                                                                  \
        (void)exposure;                                                                                                \
        assert_true(deadline_ns > fake.now_ns);                                                                        \
        return climb(&fake.field, letter);                                                                             \
    }
FAKE(gate, "g")
FAKE(late_gate, "h")
FAKE(dereg, "d")
FAKE(qp, "q")

static const struct revoke_mechanism table[] = {
    {"gate", REVOKE_GATE, 10, run_gate},
    {"gate2", REVOKE_GATE, 10, run_late_gate},
    {.name = "dereg", .kind = REVOKE_FENCE, .allowed_ns = 100, .run = run_dereg, .ends = true},
    {"qp", REVOKE_FENCE, 1000, run_qp},
};

static struct revoke_ladder ladder;

static void make_ladder(const char *list)
{
    char *error = NULL;

    memset(&fake, 0, sizeof(fake));
    fake.now_ns = 5000;
    assert_int_equal(revoke_ladder_init(&ladder, table, 4, list, &error), 0);
    assert_null(error);
    ladder.now_ns = fake_now;
}

static int free_ladder(void **state)
{
    (void)state;
    revoke_ladder_destroy(&ladder);
    return 0;
}

static json_int_t counted(const char *rung, const char *what)
{
    json_t *status = revoke_status(&ladder);
    json_int_t value;

    assert_non_null(status);
    value =
        json_integer_value(what ? json_object_get(json_object_get(status, rung), what) : json_object_get(status, rung));
    json_decref(status);
    return value;
}

static void a_gate_is_never_taken_for_a_fence(void **state)
{
    (void)state;
    make_ladder("auto");
    fake.dereg.result = -EIO;
    fake.qp.result = -ETIMEDOUT;
    assert_int_equal(revoke_gate(&ladder, NULL), 0);
    assert_int_equal(revoke_fence(&ladder, NULL), -ETIMEDOUT);
    assert_string_equal(fake.order, "gdq");
    assert_int_equal(counted("unproven", NULL), 1);
}

static void the_first_gate_that_works_is_enough(void **state)
{
    (void)state;
    make_ladder(NULL);
    assert_int_equal(revoke_gate(&ladder, NULL), 0);
    assert_string_equal(fake.order, "g");
}

static void the_next_gate_is_tried_when_one_fails(void **state)
{
    (void)state;
    make_ladder(NULL);
    fake.gate.result = -EOPNOTSUPP;
    assert_int_equal(revoke_gate(&ladder, NULL), 0);
    assert_string_equal(fake.order, "gh");
    fake.late_gate.result = -EIO;
    assert_int_equal(revoke_gate(&ladder, NULL), -EIO);
}

static void the_first_fence_that_works_spares_the_connection(void **state)
{
    (void)state;
    make_ladder(NULL);
    fake.dereg.takes_ns = 99;
    assert_int_equal(revoke_fence(&ladder, NULL), 0);
    assert_string_equal(fake.order, "d");
    assert_int_equal(counted("dereg", "count"), 1);
}

static void a_fence_that_fails_leads_to_the_next_rung(void **state)
{
    (void)state;
    make_ladder(NULL);
    fake.dereg.result = -EINVAL;
    assert_int_equal(revoke_fence(&ladder, NULL), 0);
    assert_string_equal(fake.order, "dq");
    assert_int_equal(counted("dereg", "failed"), 1);
    assert_int_equal(counted("qp", "count"), 1);
}

static void a_fence_that_succeeds_too_late_proves_nothing(void **state)
{
    (void)state;
    make_ladder(NULL);
    fake.dereg.takes_ns = 101;
    assert_int_equal(revoke_fence(&ladder, NULL), 0);
    assert_string_equal(fake.order, "dq");
    assert_int_equal(counted("dereg", "count"), 0);
    assert_int_equal(counted("dereg", "late"), 1);
    fake.qp.takes_ns = 1001;
    assert_int_equal(revoke_fence(&ladder, NULL), -ETIMEDOUT);
}

static void every_rung_gets_its_full_deadline_even_after_a_late_one(void **state)
{
    (void)state;
    make_ladder(NULL);
    fake.dereg.takes_ns = 60000;
    fake.qp.takes_ns = 1000;
    assert_int_equal(revoke_fence(&ladder, NULL), 0);
}

static void only_the_listed_mechanisms_are_climbed_in_that_order(void **state)
{
    (void)state;
    make_ladder("qp,dereg");
    fake.qp.result = -EIO;
    assert_int_equal(revoke_gate(&ladder, NULL), -EOPNOTSUPP);
    assert_int_equal(revoke_fence(&ladder, NULL), 0);
    assert_string_equal(fake.order, "qd");
    assert_true(revoke_ladder_has(&ladder, "qp"));
    assert_false(revoke_ladder_has(&ladder, "gate"));
}

static void the_bound_is_the_sum_of_the_fences(void **state)
{
    (void)state;
    make_ladder(NULL);
    assert_int_equal(revoke_fence_bound_ns(&ladder), 1100);
    revoke_ladder_destroy(&ladder);
    make_ladder("gate,qp");
    assert_int_equal(revoke_fence_bound_ns(&ladder), 1000);
}

static void a_list_without_a_fence_or_with_nonsense_is_refused(void **state)
{
    static const char *const bad[] = {"gate",       "gate,gate2", "",      "dereg,", ",dereg",
                                      "deregister", "der",        "qp,qp", "auto,qp"};
    (void)state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct revoke_ladder refused;
        char *error = NULL;

        assert_int_equal(revoke_ladder_init(&refused, table, 4, bad[i], &error), -EINVAL);
        assert_non_null(error);
        free(error);
    }
}

static void what_a_mechanism_is_here_decides_what_it_is_climbed_for(void **state)
{
    (void)state;
    make_ladder("auto");
    assert_int_equal(revoke_ladder_set_kind(&ladder, &table[2], REVOKE_GATE), 0); /* dereg: found to be a gate */
    fake.gate.result = fake.late_gate.result = -EIO;
    assert_int_equal(revoke_gate(&ladder, NULL), 0);
    assert_string_equal(fake.order, "ghd");
    assert_int_equal(revoke_fence(&ladder, NULL), 0);
    assert_string_equal(fake.order, "ghdq");
    assert_int_equal(revoke_fence_bound_ns(&ladder), 1000);
    assert_int_equal(revoke_ladder_set_kind(&ladder, &table[0], REVOKE_FENCE), 0);
    fake.gate.result = 0;
    assert_int_equal(revoke_fence(&ladder, NULL), 0);
    assert_string_equal(fake.order, "ghdqg");
}

static void a_ladder_is_never_left_without_a_fence(void **state)
{
    (void)state;
    make_ladder("gate,dereg");
    assert_int_equal(revoke_ladder_set_kind(&ladder, &table[2], REVOKE_NOTHING), -EOPNOTSUPP);
    assert_int_equal(revoke_ladder_set_kind(&ladder, &table[3], REVOKE_NOTHING), 0); /* not in it */
    assert_int_equal(revoke_fence(&ladder, NULL), 0);
}

static bool never(const struct exposure *exposure)
{
    (void)exposure;
    return false;
}

static void only_the_last_resort_takes_the_pages_and_only_where_it_applies(void **state)
{
    static const struct revoke_mechanism with_space[] = {
        {.name = "dereg", .kind = REVOKE_FENCE, .allowed_ns = 100, .run = run_dereg},
        {.name = "other", .kind = REVOKE_ORPHAN, .allowed_ns = 100, .run = run_late_gate, .applies = never},
        {.name = "space", .kind = REVOKE_ORPHAN, .allowed_ns = 100, .run = run_gate},
        {.name = "shy", .kind = REVOKE_FENCE, .allowed_ns = 100, .run = run_qp, .by_name = true},
    };
    char *error = NULL;

    (void)state;
    memset(&fake, 0, sizeof(fake));
    assert_int_equal(revoke_ladder_init(&ladder, with_space, 4, "auto", &error), 0);
    ladder.now_ns = fake_now;
    fake.dereg.result = -EIO;
    assert_int_equal(revoke_gate(&ladder, NULL), -EOPNOTSUPP);
    assert_int_equal(revoke_fence(&ladder, NULL), -ETIMEDOUT);
    assert_string_equal(fake.order, "d");
    assert_int_equal(revoke_orphan(&ladder, NULL), 0);
    assert_string_equal(fake.order, "dg");
    revoke_ladder_destroy(&ladder);
    make_ladder("auto");
    assert_int_equal(revoke_orphan(&ladder, NULL), -EOPNOTSUPP);
}

/* The thread that climbs is stuck in a rung: another goes on behind it. */
static void a_stuck_rung_counts_as_late_and_the_successor_climbs_on(void **state)
{
    struct revoke_climb climb;

    (void)state;
    make_ladder("auto");
    revoke_climb_begin(&climb, &ladder, NULL, false);
    fake.gate.result = -EINPROGRESS;
    assert_int_equal(revoke_climb_on(&climb), -EINPROGRESS);
    fake.dereg.result = -EINPROGRESS;
    assert_int_equal(revoke_climb_on(&climb), -EINPROGRESS);
    assert_int_equal(revoke_climb_on(&climb), 0);
    assert_string_equal(fake.order, "ghdq");
    assert_int_equal(counted("gate", "late"), 1);
    assert_int_equal(counted("gate2", "count"), 1);
    assert_int_equal(counted("dereg", "late"), 1);
    assert_int_equal(counted("dereg", "count"), 0);
    assert_int_equal(counted("qp", "count"), 1);
    assert_int_equal(counted("unproven", NULL), 0);
}

static void a_climb_that_ends_on_a_stuck_rung_has_no_proof(void **state)
{
    struct revoke_climb climb;

    (void)state;
    make_ladder("gate,dereg");
    revoke_climb_begin(&climb, &ladder, NULL, false);
    fake.dereg.result = -EINPROGRESS;
    assert_int_equal(revoke_climb_on(&climb), -EINPROGRESS);
    assert_int_equal(counted("unproven", NULL), 0);
    assert_int_equal(revoke_climb_on(&climb), -ETIMEDOUT);
    assert_string_equal(fake.order, "gd");
    assert_int_equal(counted("unproven", NULL), 1);
}

static void a_climb_of_its_own_goes_by_the_same_rungs(void **state)
{
    struct revoke_climb climb;

    (void)state;
    make_ladder("auto");
    fake.dereg.takes_ns = 101; /* too late */
    revoke_climb_begin(&climb, &ladder, NULL, false);
    assert_int_equal(revoke_climb_on(&climb), 0);
    assert_string_equal(fake.order, "gdq");
}

/* Nobody waits: what only ends access sooner is left out, and whatever else the registration would outlive. */
static void at_leisure_what_ends_the_registration_is_enough(void **state)
{
    struct revoke_climb climb;

    (void)state;
    make_ladder("gate,qp,dereg");
    revoke_climb_begin(&climb, &ladder, NULL, true);
    assert_int_equal(revoke_climb_on(&climb), 0);
    assert_string_equal(fake.order, "d");
    assert_int_equal(counted("dereg", "count"), 1);
}

static void at_leisure_all_that_is_left_follows_where_that_fails(void **state)
{
    struct revoke_climb climb;

    (void)state;
    make_ladder("gate,dereg,qp");
    fake.dereg.result = -EIO;
    revoke_climb_begin(&climb, &ladder, NULL, true);
    assert_int_equal(revoke_climb_on(&climb), 0);
    assert_string_equal(fake.order, "dgq");

    fake.order[0] = '\0';
    fake.dereg.result = -EINPROGRESS;
    fake.gate.result = -EINPROGRESS;
    revoke_climb_begin(&climb, &ladder, NULL, true);
    assert_int_equal(revoke_climb_on(&climb), -EINPROGRESS);
    assert_int_equal(revoke_climb_on(&climb), -EINPROGRESS);
    fake.qp.result = -EIO;
    assert_int_equal(revoke_climb_on(&climb), -ETIMEDOUT);
    assert_string_equal(fake.order, "dgq");
    assert_int_equal(counted("dereg", "late"), 1);
    assert_int_equal(counted("unproven", NULL), 1);
}

/* Nothing in the ladder ends it, or what does is no fence here. */
static void at_leisure_the_others_are_climbed_where_nothing_ends_the_registration(void **state)
{
    struct revoke_climb climb;

    (void)state;
    make_ladder("gate,qp");
    revoke_climb_begin(&climb, &ladder, NULL, true);
    assert_int_equal(revoke_climb_on(&climb), 0);
    assert_string_equal(fake.order, "gq");
    revoke_ladder_destroy(&ladder);
    make_ladder("dereg,qp");
    assert_int_equal(revoke_ladder_set_kind(&ladder, &table[2], REVOKE_GATE), 0);
    revoke_climb_begin(&climb, &ladder, NULL, true);
    assert_int_equal(revoke_climb_on(&climb), 0);
    assert_string_equal(fake.order, "dq");
}

static void latency_is_counted_as_mean_and_maximum(void **state)
{
    (void)state;
    make_ladder(NULL);
    ladder.rungs[2] = &(const struct revoke_mechanism){"dereg", REVOKE_FENCE, 1000000, run_dereg};
    fake.dereg.takes_ns = 2000;
    assert_int_equal(revoke_fence(&ladder, NULL), 0);
    fake.dereg.takes_ns = 6000;
    assert_int_equal(revoke_fence(&ladder, NULL), 0);
    assert_int_equal(counted("dereg", "mean_us"), 4);
    assert_int_equal(counted("dereg", "max_us"), 6);
}

static void a_device_that_is_not_there_is_refused_with_a_sentence(void **state)
{
    struct fabric_config config = {.device = "no-such-device"};
    struct fabric *fabric = NULL;
    char *error = NULL;

    (void)state;
    assert_int_equal(fabric_start(&config, &fabric, &error), -ENODEV);
    assert_null(fabric);
    assert_non_null(error);
    assert_non_null(strstr(error, "RDMA device"));
    free(error);
    fabric_stop(NULL);
}

static void a_wrong_ladder_is_refused_before_any_device_is_opened(void **state)
{
    struct fabric_config config = {.revoke = "rereg"};
    struct fabric *fabric = NULL;
    char *error = NULL;

    (void)state;
    assert_int_equal(fabric_start(&config, &fabric, &error), -EINVAL);
    assert_non_null(strstr(error, "fence"));
    free(error);
}

#define TEST(name) cmocka_unit_test_teardown(name, free_ladder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_gate_is_never_taken_for_a_fence),
        TEST(the_first_gate_that_works_is_enough),
        TEST(the_next_gate_is_tried_when_one_fails),
        TEST(the_first_fence_that_works_spares_the_connection),
        TEST(a_fence_that_fails_leads_to_the_next_rung),
        TEST(a_fence_that_succeeds_too_late_proves_nothing),
        TEST(every_rung_gets_its_full_deadline_even_after_a_late_one),
        TEST(only_the_listed_mechanisms_are_climbed_in_that_order),
        TEST(the_bound_is_the_sum_of_the_fences),
        cmocka_unit_test(a_list_without_a_fence_or_with_nonsense_is_refused),
        TEST(what_a_mechanism_is_here_decides_what_it_is_climbed_for),
        TEST(a_ladder_is_never_left_without_a_fence),
        TEST(only_the_last_resort_takes_the_pages_and_only_where_it_applies),
        TEST(a_stuck_rung_counts_as_late_and_the_successor_climbs_on),
        TEST(a_climb_that_ends_on_a_stuck_rung_has_no_proof),
        TEST(a_climb_of_its_own_goes_by_the_same_rungs),
        TEST(at_leisure_what_ends_the_registration_is_enough),
        TEST(at_leisure_all_that_is_left_follows_where_that_fails),
        TEST(at_leisure_the_others_are_climbed_where_nothing_ends_the_registration),
        TEST(latency_is_counted_as_mean_and_maximum),
        cmocka_unit_test(a_device_that_is_not_there_is_refused_with_a_sentence),
        cmocka_unit_test(a_wrong_ladder_is_refused_before_any_device_is_opened),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
