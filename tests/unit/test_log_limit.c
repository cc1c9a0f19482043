/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: security */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lease/log_limit.h"

#define SECOND UINT64_C(1000000000)
#define START  (1000 * SECOND)

static const struct log_rate rate = {.lines = 3, .window_ns = 10 * SECOND};

/* So many events at that moment: how many are logged. */
static unsigned logged(struct log_limit *limit, uint64_t now_ns, unsigned events)
{
    unsigned count = 0, dropped;

    for (unsigned i = 0; i < events; i++)
        count += log_limit_allows(limit, &rate, now_ns, &dropped);
    return count;
}

static void the_first_of_a_flood_are_logged_and_the_others_are_not(void **state)
{
    struct log_limit limit = {0};

    (void)state;
    assert_int_equal(logged(&limit, START, 1000), 3);
    assert_int_equal(logged(&limit, START + 10 * SECOND - 1, 1000), 0);
}

static void a_window_that_is_over_lets_as_many_be_logged_again(void **state)
{
    struct log_limit limit = {0};

    (void)state;
    for (unsigned window = 0; window < 5; window++)
        assert_int_equal(logged(&limit, START + window * 10 * SECOND, 100), 3);
    assert_int_equal(logged(&limit, START + 49 * SECOND, 1), 0); /* no gap in time, no line */
}

static void a_line_tells_how_many_were_not_logged_before_it(void **state)
{
    struct log_limit limit = {0};
    unsigned dropped = 99;

    (void)state;
    assert_true(log_limit_allows(&limit, &rate, START, &dropped));
    assert_int_equal(dropped, 0);
    assert_int_equal(logged(&limit, START, 42), 2);
    dropped = 99;
    assert_false(log_limit_allows(&limit, &rate, START, &dropped));
    assert_int_equal(dropped, 99); /* changes only with a line */
    assert_true(log_limit_allows(&limit, &rate, START + 10 * SECOND, &dropped));
    assert_int_equal(dropped, 41);
    assert_true(log_limit_allows(&limit, &rate, START + 10 * SECOND, &dropped));
    assert_int_equal(dropped, 0);
}

static void a_flood_of_one_kind_takes_no_line_from_another(void **state)
{
    struct log_limit flood = {0}, other = {0};

    (void)state;
    logged(&flood, START, 1000);
    assert_int_equal(logged(&other, START, 2), 2);
}

static void each_kind_has_the_rate_that_its_owner_names(void **state)
{
    static const struct log_rate seldom = {.lines = 1, .window_ns = 60 * SECOND};
    struct log_limit limit = {0};
    unsigned dropped, count = 0;

    (void)state;
    for (unsigned second = 0; second < 180; second++)
        count += log_limit_allows(&limit, &seldom, START + second * SECOND, &dropped);
    assert_int_equal(count, 3);
}

#define THREADS 4
#define EVENTS  500000u

static const struct log_rate half = {.lines = THREADS * EVENTS / 2, .window_ns = 10 * SECOND};
static struct log_limit shared;
static pthread_barrier_t start;
static atomic_uint lines, told;

static void *flood(void *arg)
{
    (void)arg;
    pthread_barrier_wait(&start);
    for (unsigned i = 0; i < EVENTS; i++) {
        unsigned dropped;

        if (log_limit_allows(&shared, &half, START, &dropped)) {
            lines++;
            told += dropped;
        }
    }
    return NULL;
}

static void threads_together_log_no_more_and_every_event_is_logged_or_told_of(void **state)
{
    pthread_t threads[THREADS];
    unsigned dropped = 0;

    (void)state;
    assert_true(log_limit_allows(&shared, &half, START, &dropped)); /* the window is open: nothing races for it */
    pthread_barrier_init(&start, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, flood, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
    assert_int_equal(lines, half.lines - 1);
    assert_true(log_limit_allows(&shared, &half, START + 10 * SECOND, &dropped));
    assert_int_equal(lines + told + dropped, THREADS * EVENTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_of_a_flood_are_logged_and_the_others_are_not),
        cmocka_unit_test(a_window_that_is_over_lets_as_many_be_logged_again),
        cmocka_unit_test(a_line_tells_how_many_were_not_logged_before_it),
        cmocka_unit_test(a_flood_of_one_kind_takes_no_line_from_another),
        cmocka_unit_test(each_kind_has_the_rate_that_its_owner_names),
        cmocka_unit_test(threads_together_log_no_more_and_every_event_is_logged_or_told_of),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
