/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "rdma/helpers.h"
#include "rdma/sync.h"

#define SOON (20 * NS_PER_MS)
#define LONG (20 * NS_PER_S)

/* A call that blocks, as a stuck deregistration does, until the test lets it go. */
struct stuck {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool go;
    unsigned entered, left;
};

static void stuck_init(struct stuck *stuck)
{
    *stuck = (struct stuck){.go = false};
    pthread_mutex_init(&stuck->lock, NULL);
    sync_cond_init(&stuck->changed);
}

static int block(void *arg)
{
    struct stuck *stuck = arg;

    pthread_mutex_lock(&stuck->lock);
    stuck->entered++;
    pthread_cond_broadcast(&stuck->changed);
    while (!stuck->go)
        pthread_cond_wait(&stuck->changed, &stuck->lock);
    stuck->left++;
    pthread_mutex_unlock(&stuck->lock);
    return 7;
}

static void let_go(struct stuck *stuck)
{
    pthread_mutex_lock(&stuck->lock);
    stuck->go = true;
    pthread_cond_broadcast(&stuck->changed);
    pthread_mutex_unlock(&stuck->lock);
}

static void stuck_destroy(struct stuck *stuck)
{
    pthread_mutex_destroy(&stuck->lock);
    pthread_cond_destroy(&stuck->changed);
}

static int answer(void *arg)
{
    return *(int *)arg;
}

static void the_result_of_a_call_comes_back(void **state)
{
    struct helper_pool *pool;
    int value = -EIO, result = 0;

    (void)state;
    assert_int_equal(helper_pool_new(2, &pool), 0);
    for (int i = 0; i < 1000; i++) {
        value = -i;
        assert_int_equal(helper_call(pool, answer, &value, monotonic_ns() + LONG, &result), 0);
        assert_int_equal(result, -i);
    }
    assert_int_equal(helper_pool_free(pool, monotonic_ns() + LONG), 0);
}

static void a_stuck_call_keeps_nobody_past_the_deadline(void **state)
{
    struct helper_pool *pool;
    struct stuck stuck;
    int result = 42, value = 3;

    (void)state;
    stuck_init(&stuck);
    assert_int_equal(helper_pool_new(4, &pool), 0);
    assert_int_equal(helper_call(pool, block, &stuck, monotonic_ns() + SOON, &result), -ETIMEDOUT);
    assert_int_equal(result, 42);
    /* The next rung is climbed meanwhile. */
    assert_int_equal(helper_call(pool, answer, &value, monotonic_ns() + LONG, &result), 0);
    assert_int_equal(result, 3);
    let_go(&stuck);
    assert_int_equal(helper_pool_free(pool, monotonic_ns() + LONG), 0);
    assert_int_equal(stuck.left, 1);
    stuck_destroy(&stuck);
}

static void with_all_helpers_stuck_a_call_is_refused_at_once(void **state)
{
    struct helper_pool *pool;
    struct stuck stuck;
    int result, value = 3;

    (void)state;
    stuck_init(&stuck);
    assert_int_equal(helper_pool_new(2, &pool), 0);
    assert_int_equal(helper_call(pool, block, &stuck, monotonic_ns() + SOON, &result), -ETIMEDOUT);
    assert_int_equal(helper_call(pool, block, &stuck, monotonic_ns() + SOON, &result), -ETIMEDOUT);
    assert_int_equal(helper_call(pool, answer, &value, monotonic_ns() + LONG, &result), -EAGAIN);
    let_go(&stuck);
    assert_int_equal(helper_pool_free(pool, monotonic_ns() + LONG), 0);
    stuck_destroy(&stuck);
}

struct counted_job {
    struct helper_job job;
    struct stuck *stuck;
};

static void run_counted(struct helper_job *job)
{
    block(((struct counted_job *)job)->stuck);
}

static void submitted_jobs_wait_for_a_helper_and_run_before_the_end(void **state)
{
    struct counted_job jobs[20];
    struct helper_pool *pool;
    struct stuck stuck;

    (void)state;
    stuck_init(&stuck);
    assert_int_equal(helper_pool_new(2, &pool), 0);
    for (int i = 0; i < 20; i++) {
        jobs[i] = (struct counted_job){.job.run = run_counted, .stuck = &stuck};
        helper_submit(pool, &jobs[i].job);
    }
    let_go(&stuck);
    assert_int_equal(helper_pool_free(pool, monotonic_ns() + LONG), 0);
    assert_int_equal(stuck.left, 20);
    stuck_destroy(&stuck);
}

static void stopping_does_not_wait_for_what_is_stuck(void **state)
{
    struct helper_pool *pool;
    struct stuck stuck;
    int result;

    (void)state;
    stuck_init(&stuck);
    assert_int_equal(helper_pool_new(2, &pool), 0);
    assert_int_equal(helper_call(pool, block, &stuck, monotonic_ns() + SOON, &result), -ETIMEDOUT);
    assert_int_equal(helper_pool_free(pool, monotonic_ns() + SOON), -ETIMEDOUT);
    let_go(&stuck);
    assert_int_equal(helper_pool_free(pool, monotonic_ns() + LONG), 0);
    stuck_destroy(&stuck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_result_of_a_call_comes_back),
        cmocka_unit_test(a_stuck_call_keeps_nobody_past_the_deadline),
        cmocka_unit_test(with_all_helpers_stuck_a_call_is_refused_at_once),
        cmocka_unit_test(submitted_jobs_wait_for_a_helper_and_run_before_the_end),
        cmocka_unit_test(stopping_does_not_wait_for_what_is_stuck),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
