/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fused/space_account.h"

static struct space_account *account_of(struct space_accounts *accounts, uid_t uid)
{
    struct space_account *account;

    assert_int_equal(space_account_of(accounts, uid, &account), 0);
    return account;
}

static void each_user_has_one_and_root_has_none(void **state)
{
    struct space_accounts *accounts;
    struct space_account *first;

    (void)state;
    assert_int_equal(space_accounts_new(10, 0, &accounts), 0);
    first = account_of(accounts, 1);
    assert_non_null(first);
    for (uid_t uid = 2; uid < 1000; uid++)
        assert_ptr_not_equal(account_of(accounts, uid), first);
    assert_ptr_equal(account_of(accounts, 1), first);
    assert_null(account_of(accounts, 0));
    assert_null(account_of(NULL, 1));
    space_accounts_free(accounts);
    space_accounts_free(NULL);
}

static void blocks_are_exact(void **state)
{
    struct space_accounts *accounts;
    struct space_account *account;

    (void)state;
    assert_int_equal(space_accounts_new(10, 0, &accounts), 0);
    account = account_of(accounts, 1);
    assert_true(space_account_take(account, 7));
    assert_false(space_account_take(account, 4));
    assert_true(space_account_take(account, 0));
    assert_int_equal(space_account_take_some(account, 4), 3);
    assert_int_equal(space_account_take_some(account, 4), 0);
    assert_true(space_account_take(account, 0));
    assert_int_equal(space_account_usage(account).blocks, 10);
    assert_true(space_account_exchange(account, 3, 5));
    assert_int_equal(space_account_usage(account).blocks, 8);
    assert_false(space_account_exchange(account, 6, 3));
    assert_true(space_account_exchange(account, 5, 3));
    space_account_give(account, 10);
    assert_int_equal(space_account_usage(account).blocks, 0);
    assert_true(space_account_take_file(account)); /* there is no limit for these */
    space_account_give_file(account);
    space_accounts_free(accounts);
}

static void files_are_exact(void **state)
{
    struct space_accounts *accounts;
    struct space_account *account;

    (void)state;
    assert_int_equal(space_accounts_new(0, 2, &accounts), 0);
    account = account_of(accounts, 1);
    assert_true(space_account_take(account, UINT64_MAX / 2));
    assert_true(space_account_has_file(account));
    assert_true(space_account_take_file(account));
    assert_true(space_account_take_file(account));
    assert_false(space_account_has_file(account));
    assert_false(space_account_take_file(account));
    space_account_give_file(account);
    assert_true(space_account_take_file(account));
    assert_int_equal(space_account_usage(account).files, 2);
    space_accounts_free(accounts);
}

static void no_account_has_no_limits(void **state)
{
    (void)state;
    assert_true(space_account_take(NULL, UINT64_MAX));
    assert_int_equal(space_account_take_some(NULL, 7), 7);
    assert_true(space_account_exchange(NULL, 7, 3));
    assert_true(space_account_take_file(NULL));
    assert_true(space_account_has_file(NULL));
    space_account_give(NULL, 7);
    space_account_give_file(NULL);
    assert_int_equal(space_account_usage(NULL).blocks, 0);
}

/* ---- many at once ---- */

#define ROUNDS 20000

static void *take_and_give(void *arg)
{
    struct space_account *account;
    uintptr_t wrong = 0;

    if (space_account_of(arg, 5, &account))
        return (void *)1;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t some = space_account_take_some(account, 3);

        wrong += space_account_usage(account).blocks > 5;
        space_account_give(account, some);
        if (space_account_take_file(account))
            space_account_give_file(account);
    }
    return (void *)wrong;
}

static void nobody_ever_sees_more_than_there_may_be(void **state)
{
    struct space_accounts *accounts;
    pthread_t threads[4];
    void *wrong;

    (void)state;
    assert_int_equal(space_accounts_new(5, 2, &accounts), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, accounts), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    assert_int_equal(space_account_usage(account_of(accounts, 5)).blocks, 0);
    assert_int_equal(space_account_usage(account_of(accounts, 5)).files, 0);
    space_accounts_free(accounts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_user_has_one_and_root_has_none),
        cmocka_unit_test(blocks_are_exact),
        cmocka_unit_test(files_are_exact),
        cmocka_unit_test(no_account_has_no_limits),
        cmocka_unit_test(nobody_ever_sees_more_than_there_may_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
