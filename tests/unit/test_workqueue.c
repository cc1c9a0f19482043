/* SPDX-License-Identifier: BSD-2-Clause */
/* Work that is on offer: who begins it, and when (workqueue.h, deputy.h). */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "lease/deputy.h"
#include "lease/workqueue.h"

#define PATIENCE_S 30

/* On a thread of the queue: offers `offered`, then stays until it may go. */
static struct {
    struct work offering, offered, another;
    struct workqueue *queue;
    struct deputy *deputy;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Guarded by lock. */
    pthread_t offerer, taker;
    bool others; /* besides the offerer */
    bool asked, fits, fits_again, may_go, gone, taken;
} scene;

static void set_up(int threads)
{
    memset(&scene, 0, sizeof(scene));
    pthread_mutex_init(&scene.lock, NULL);
    cond_init_monotonic(&scene.changed);
    scene.others = threads > 1;
    assert_int_equal(workqueue_new("test", threads, threads, &scene.queue), 0);
}

static void tear_down(void)
{
    workqueue_free(scene.queue);
    pthread_cond_destroy(&scene.changed);
    pthread_mutex_destroy(&scene.lock);
}

static void tell(bool *what)
{
    pthread_mutex_lock(&scene.lock);
    *what = true;
    pthread_cond_broadcast(&scene.changed);
    pthread_mutex_unlock(&scene.lock);
}

static bool await(const bool *what)
{
    struct timespec until;
    bool there;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&scene.lock);
    while (!*what && pthread_cond_timedwait(&scene.changed, &scene.lock, &until) != ETIMEDOUT)
        ;
    there = *what;
    pthread_mutex_unlock(&scene.lock);
    return there;
}

static void take(struct work *work)
{
    (void)work;
    pthread_mutex_lock(&scene.lock); /* it may be taken twice: what was pushed, and then what was on offer */
    scene.taker = pthread_self();
    pthread_mutex_unlock(&scene.lock);
    tell(&scene.taken);
}

static bool offerer_took_it(void)
{
    bool same;

    pthread_mutex_lock(&scene.lock);
    same = pthread_equal(scene.offerer, scene.taker);
    pthread_mutex_unlock(&scene.lock);
    return same;
}

static void offer(struct work *work)
{
    (void)work;
    scene.offerer = pthread_self();
    do /* the others may not have come to be idle yet */
        scene.fits = workqueue_offer(scene.queue, &scene.offered);
    while (!scene.fits && scene.others && sched_yield() == 0);
    scene.fits_again = workqueue_offer(scene.queue, &scene.another);
    if (scene.deputy)
        deputy_watch(scene.deputy);
    tell(&scene.asked);
    assert_true(await(&scene.may_go));
    tell(&scene.gone);
}

static void begin(void)
{
    scene.offering.run = offer;
    scene.offered.run = scene.another.run = take;
    workqueue_push(scene.queue, &scene.offering);
    assert_true(await(&scene.asked));
}

/* Others are free all the while. */
static void the_one_who_offers_takes_it_himself(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        set_up(4);
        begin();
        assert_true(scene.fits);
        assert_false(scene.fits_again);
        assert_false(scene.taken);
        tell(&scene.may_go);
        assert_true(await(&scene.taken));
        assert_true(offerer_took_it());
        tear_down();
    }
}

static void after_a_nudge_another_takes_it(void **state)
{
    (void)state;
    set_up(2);
    begin();
    workqueue_nudge(scene.queue);
    assert_true(await(&scene.taken));
    assert_false(scene.gone);
    assert_false(offerer_took_it());
    workqueue_nudge(scene.queue); /* nothing is on offer any more */
    tell(&scene.may_go);
    tear_down();
}

static void the_deputy_nudges(void **state)
{
    (void)state;
    set_up(2);
    assert_int_equal(deputy_new(scene.queue, &scene.deputy), 0);
    for (int i = 0; i < 3; i++) {
        scene.asked = scene.may_go = scene.gone = scene.taken = false;
        begin();
        assert_true(await(&scene.taken));
        assert_false(scene.gone);
        tell(&scene.may_go);
        assert_true(await(&scene.gone));
    }
    deputy_free(scene.deputy);
    tear_down();
}

static void nothing_is_offered_where_nobody_is_free(void **state)
{
    (void)state;
    set_up(1);
    begin();
    assert_false(scene.fits);
    workqueue_nudge(scene.queue);
    tell(&scene.may_go);
    tear_down();
    assert_false(scene.taken);
}

/* A thread that is woken for other work leaves the offer where it is. */
static void what_is_pushed_goes_to_who_is_woken(void **state)
{
    (void)state;
    set_up(2);
    begin();
    workqueue_push(scene.queue, &scene.another);
    assert_true(await(&scene.taken));
    assert_false(offerer_took_it());
    tell(&scene.may_go);
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_one_who_offers_takes_it_himself),
        cmocka_unit_test(after_a_nudge_another_takes_it),
        cmocka_unit_test(the_deputy_nudges),
        cmocka_unit_test(nothing_is_offered_where_nobody_is_free),
        cmocka_unit_test(what_is_pushed_goes_to_who_is_woken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
