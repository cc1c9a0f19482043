/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "rdma/sync.h"
#include "rdma/watchdog.h"

#define SOON      (20 * NS_PER_MS)
#define LONG      (60 * NS_PER_S)
#define MAX_CALLS 4

/* Somebody's business, which a call is a part of. When the call is stuck, a successor sees to the rest. */
struct business {
    struct helper_job successor; /* must be first */
    struct watchdog *watchdog;
    uint64_t allowed_ns;
    int answer; /* what watchdog_call() said */
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool entered, go, succeeded; /* guarded by lock */
};

static struct helper_pool *helpers;
static struct watchdog *watchdog;

static int set_up(void **state)
{
    (void)state;
    assert_int_equal(helper_pool_new(4, &helpers), 0);
    assert_int_equal(watchdog_new(helpers, MAX_CALLS, &watchdog), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(watchdog_free(watchdog, monotonic_ns() + LONG), 0);
    assert_int_equal(helper_pool_free(helpers, monotonic_ns() + LONG), 0);
    return 0;
}

static void set(struct business *business, bool *what)
{
    pthread_mutex_lock(&business->lock);
    *what = true;
    pthread_cond_broadcast(&business->changed);
    pthread_mutex_unlock(&business->lock);
}

static void await(struct business *business, const bool *what)
{
    uint64_t deadline = monotonic_ns() + LONG;

    pthread_mutex_lock(&business->lock);
    while (!*what)
        assert_int_not_equal(sync_wait_until(&business->changed, &business->lock, deadline), -ETIMEDOUT);
    pthread_mutex_unlock(&business->lock);
}

static bool is(struct business *business, const bool *what)
{
    bool value;

    pthread_mutex_lock(&business->lock);
    value = *what;
    pthread_mutex_unlock(&business->lock);
    return value;
}

static void succeed(struct helper_job *job)
{
    struct business *business = (struct business *)job;

    set(business, &business->succeeded);
}

/* Blocks, as a stuck deregistration does, until the test lets it go. */
static int block(void *arg)
{
    struct business *business = arg;

    set(business, &business->entered);
    pthread_mutex_lock(&business->lock);
    while (!business->go)
        pthread_cond_wait(&business->changed, &business->lock);
    pthread_mutex_unlock(&business->lock);
    return 7;
}

static void *conduct(void *arg)
{
    struct business *business = arg;
    int result = 0;

    business->answer = watchdog_call(business->watchdog, block, business, monotonic_ns() + business->allowed_ns,
                                     &business->successor, &result);
    if (business->answer == 0)
        assert_int_equal(result, 7);
    return NULL;
}

static void start(struct business *business, uint64_t allowed_ns)
{
    *business = (struct business){.successor.run = succeed, .watchdog = watchdog, .allowed_ns = allowed_ns};
    pthread_mutex_init(&business->lock, NULL);
    sync_cond_init(&business->changed);
    assert_int_equal(pthread_create(&business->thread, NULL, conduct, business), 0);
    await(business, &business->entered);
}

static int end(struct business *business)
{
    set(business, &business->go);
    pthread_join(business->thread, NULL);
    pthread_cond_destroy(&business->changed);
    pthread_mutex_destroy(&business->lock);
    return business->answer;
}

static int add_one(void *arg)
{
    return ++*(int *)arg;
}

static void never(struct helper_job *job)
{
    (void)job;
    abort();
}

static void the_caller_itself_makes_the_call(void **state)
{
    struct helper_job successor = {.run = never};
    int value = 0, result = 0;

    (void)state;
    for (int i = 1; i <= 1000; i++) {
        assert_int_equal(watchdog_call(watchdog, add_one, &value, monotonic_ns() + LONG, &successor, &result), 0);
        assert_int_equal(result, i);
    }
}

static void the_successor_goes_on_while_the_call_is_stuck(void **state)
{
    struct business stuck;

    (void)state;
    start(&stuck, SOON);
    await(&stuck, &stuck.succeeded);
    assert_int_equal(end(&stuck), -EINPROGRESS);
}

/* The timer is set to the first deadline, whichever was armed first, and then to the next. */
static void each_is_succeeded_at_its_own_deadline(void **state)
{
    struct business patient, third, first, second;

    (void)state;
    start(&patient, LONG);
    start(&third, 3 * SOON);
    start(&first, SOON);
    start(&second, 2 * SOON);
    await(&first, &first.succeeded);
    await(&second, &second.succeeded);
    await(&third, &third.succeeded);
    assert_false(is(&patient, &patient.succeeded));
    assert_int_equal(end(&patient), 0);
    assert_int_equal(end(&first), -EINPROGRESS);
    assert_int_equal(end(&second), -EINPROGRESS);
    assert_int_equal(end(&third), -EINPROGRESS);
}

/* The timer rings for a call that is back: it must be set again for those that came later. */
static void a_call_armed_behind_one_that_is_back_is_watched_too(void **state)
{
    struct helper_job successor = {.run = never};
    struct business stuck;
    int value = 0, result = 0;

    (void)state;
    assert_int_equal(watchdog_call(watchdog, add_one, &value, monotonic_ns() + SOON, &successor, &result), 0);
    start(&stuck, 3 * SOON);
    await(&stuck, &stuck.succeeded);
    assert_int_equal(end(&stuck), -EINPROGRESS);
}

/* Until the watchdog's timer rings, in nanoseconds; 0: it is not set. */
static uint64_t rings_in_ns(void)
{
    for (int fd = 3; fd < 64; fd++) {
        char path[64], line[128];
        bool timer = false;
        unsigned long long seconds, ns;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file)) {
            timer |= !strncmp(line, "clockid:", 8);
            if (timer && sscanf(line, "it_value: (%llu, %llu)", &seconds, &ns) == 2) {
                fclose(file);
                return seconds * NS_PER_S + ns;
            }
        }
        if (file)
            fclose(file);
    }
    fail_msg("there is no timer");
    return 0;
}

/* So that setting the timer costs the next call nothing. */
static void the_timer_rings_on_for_a_while_and_no_longer(void **state)
{
    struct helper_job successor = {.run = never};
    const struct timespec pause = {.tv_nsec = 10 * NS_PER_MS};
    int value = 0, result = 0;
    unsigned set_again = 0, silent = 0;
    uint64_t before = 0, rings, begun = monotonic_ns();

    (void)state;
    assert_int_equal(watchdog_call(watchdog, add_one, &value, begun + LONG, &successor, &result), 0);
    assert_true(rings_in_ns() > LONG / 2);
    assert_int_equal(watchdog_call(watchdog, add_one, &value, monotonic_ns() + SOON, &successor, &result), 0);
    /* When it rings, it is not set for a moment. */
    while (silent < 20 && monotonic_ns() - begun < LONG) {
        rings = rings_in_ns();
        assert_true(rings < NS_PER_S);
        set_again += rings > before;
        silent = rings ? 0 : silent + 1;
        before = rings;
        nanosleep(&pause, NULL); /* to look again, not for anything */
    }
    assert_int_equal(silent, 20);
    assert_true(set_again > 2);
}

static void a_call_too_many_is_refused_at_once(void **state)
{
    struct business stuck[MAX_CALLS];
    struct helper_job successor = {.run = never};
    int value = 0, result = 0;

    (void)state;
    for (int i = 0; i < MAX_CALLS; i++)
        start(&stuck[i], SOON);
    for (int i = 0; i < MAX_CALLS; i++)
        await(&stuck[i], &stuck[i].succeeded);
    assert_int_equal(watchdog_call(watchdog, add_one, &value, monotonic_ns() + LONG, &successor, &result), -EAGAIN);
    assert_int_equal(value, 0);
    for (int i = 0; i < MAX_CALLS; i++)
        assert_int_equal(end(&stuck[i]), -EINPROGRESS);
    assert_int_equal(watchdog_call(watchdog, add_one, &value, monotonic_ns() + LONG, &successor, &result), 0);
}

static void stopping_does_not_wait_for_what_is_stuck(void **state)
{
    struct business stuck;

    (void)state;
    start(&stuck, SOON);
    await(&stuck, &stuck.succeeded);
    assert_int_equal(watchdog_free(watchdog, monotonic_ns() + SOON), -ETIMEDOUT);
    assert_int_equal(end(&stuck), -EINPROGRESS); /* and then it can be freed */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_caller_itself_makes_the_call),
        TEST(the_successor_goes_on_while_the_call_is_stuck),
        TEST(each_is_succeeded_at_its_own_deadline),
        TEST(a_call_armed_behind_one_that_is_back_is_watched_too),
        TEST(the_timer_rings_on_for_a_while_and_no_longer),
        TEST(a_call_too_many_is_refused_at_once),
        TEST(stopping_does_not_wait_for_what_is_stuck),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
