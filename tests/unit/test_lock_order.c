/* SPDX-License-Identifier: BSD-2-Clause */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lease/lock_order.h"
#include "tests/unit/survives.h"

static pthread_mutex_t table, fabric, park, service, unranked;
static pthread_rwlock_t inode_1, inode_2;

static int set_up(void **state)
{
    (void)state;
    pthread_mutex_init(&table, NULL);
    pthread_mutex_init(&fabric, NULL);
    pthread_mutex_init(&park, NULL);
    pthread_mutex_init(&service, NULL);
    pthread_mutex_init(&unranked, NULL);
    pthread_rwlock_init(&inode_1, NULL);
    pthread_rwlock_init(&inode_2, NULL);
    lock_rank(&table, LOCK_LEASE_TABLE, 0);
    lock_rank(&fabric, LOCK_FABRIC, 0);
    lock_rank(&park, LOCK_PARK, 0);
    lock_rank(&service, LOCK_SERVICE, 0);
    lock_rank(&inode_1, LOCK_FS_INODE, 1);
    lock_rank(&inode_2, LOCK_FS_INODE, 2);
    return 0;
}

static void in_order(void)
{
    pthread_rwlock_rdlock(&inode_1);
    pthread_rwlock_wrlock(&inode_2);
    pthread_mutex_lock(&table);
    pthread_mutex_lock(&park);
    pthread_mutex_unlock(&park);
    pthread_mutex_unlock(&table);
    pthread_rwlock_unlock(&inode_1);
    pthread_rwlock_unlock(&inode_2);
    pthread_rwlock_rdlock(&inode_1);
    pthread_rwlock_unlock(&inode_1);
}

static void unranked_locks(void)
{
    pthread_mutex_lock(&park);
    pthread_mutex_lock(&unranked);
    pthread_mutex_unlock(&unranked);
    pthread_mutex_unlock(&park);
}

static void against_the_ranks(void)
{
    pthread_mutex_lock(&table);
    pthread_rwlock_rdlock(&inode_1);
}

static void against_the_order_of_inodes(void)
{
    pthread_rwlock_wrlock(&inode_2);
    pthread_rwlock_wrlock(&inode_1);
}

static void under_a_leaf(void)
{
    pthread_mutex_lock(&park);
    pthread_mutex_lock(&service);
}

static void twice(void)
{
    pthread_rwlock_rdlock(&inode_1);
    pthread_rwlock_rdlock(&inode_1);
}

static void wait_with_another_lock(void)
{
    pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
    struct timespec past = {0, 0};

    pthread_mutex_lock(&fabric);
    pthread_mutex_lock(&park);
    pthread_cond_timedwait(&cond, &park, &past);
}

static void calls_out(void)
{
    pthread_rwlock_rdlock(&inode_1);
    pthread_rwlock_unlock(&inode_1);
    lock_none_held();
}

static void calls_out_with_a_lock(void)
{
    pthread_rwlock_rdlock(&inode_1);
    lock_none_held();
}

static void calls_out_with_a_leaf(void)
{
    pthread_mutex_lock(&park);
    lock_none_held();
}

static void locks_taken_in_order_are_let_through(void **state)
{
    (void)state;
    assert_true(survives(in_order));
    assert_true(survives(unranked_locks));
}

static void a_broken_order_ends_the_process(void **state)
{
    (void)state;
#ifndef LEASEFS_LOCK_CHECK
    skip();
#endif
    assert_false(survives(against_the_ranks));
    assert_false(survives(against_the_order_of_inodes));
    assert_false(survives(under_a_leaf));
    assert_false(survives(twice));
    assert_false(survives(wait_with_another_lock));
}

static void who_calls_others_with_a_lock_ends_the_process(void **state)
{
    (void)state;
    assert_true(survives(calls_out));
#ifndef LEASEFS_LOCK_CHECK
    skip();
#endif
    assert_false(survives(calls_out_with_a_lock));
    assert_false(survives(calls_out_with_a_leaf));
}

static void a_lock_that_was_destroyed_has_no_rank(void **state)
{
    pthread_mutex_t lock;

    (void)state;
    pthread_mutex_init(&lock, NULL);
    lock_rank(&lock, LOCK_FABRIC, 0);
    pthread_mutex_destroy(&lock);
    pthread_mutex_init(&lock, NULL); /* as memory that was freed and given out again */
    pthread_mutex_lock(&park);
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&park);
    pthread_mutex_destroy(&lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(locks_taken_in_order_are_let_through),
        cmocka_unit_test(a_broken_order_ends_the_process),
        cmocka_unit_test(who_calls_others_with_a_lock_ends_the_process),
        cmocka_unit_test(a_lock_that_was_destroyed_has_no_rank),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
