/* SPDX-License-Identifier: BSD-2-Clause */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fused/awake.h"

#define MS     UINT64_C(1000000)
#define LATE_S 20 /* on a busy machine, a thread of the lowest priority */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Of all threads but this one. */
static uint64_t their_cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID) - clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* Notes requests, `gap_ns` apart, until the others have worked for a millisecond: true; or `for_ns` are over. */
static bool works(struct awake *awake, uint64_t gap_ns, uint64_t for_ns)
{
    uint64_t start = clock_ns(CLOCK_MONOTONIC), before = their_cpu_ns(), noted = 0, now;

    while ((now = clock_ns(CLOCK_MONOTONIC)) - start < for_ns) {
        if (their_cpu_ns() - before > MS)
            return true;
        if (now - noted >= gap_ns) {
            awake_note(awake);
            noted = now;
        }
        sched_yield();
    }
    return false;
}

/* Not at once: on a busy machine it may have to be told to stop when it has not begun. */
static bool rests(struct awake *awake)
{
    for (uint64_t start = clock_ns(CLOCK_MONOTONIC); clock_ns(CLOCK_MONOTONIC) - start < LATE_S * 1000 * MS;)
        if (!works(awake, AWAKE_NS * 50, 300 * MS)) /* too rare to be worth it */
            return true;
    return false;
}

static void it_works_while_requests_come_and_not_longer(void **state)
{
    struct awake *awake;

    (void)state;
    assert_int_equal(awake_new(&awake), 0);
    if (!awake) {
        assert_int_not_equal(sysconf(_SC_NPROCESSORS_ONLN), 2);
        skip();
    }
    assert_true(works(awake, AWAKE_NS / 4, LATE_S * 1000 * MS));
    assert_true(rests(awake));
    assert_true(works(awake, AWAKE_NS / 4, LATE_S * 1000 * MS));
    awake_free(awake);
}

static void none_is_nothing(void **state)
{
    (void)state;
    awake_note(NULL);
    awake_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_works_while_requests_come_and_not_longer),
        cmocka_unit_test(none_is_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
