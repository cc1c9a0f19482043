/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fused/clone_tokens.h"

#define NOW UINT64_C(1000)
enum { INO = 77, UID = 1000 };

static int setup(void **state)
{
    return clone_tokens_new((struct clone_tokens **)state);
}

static int teardown(void **state)
{
    clone_tokens_free(*state);
    return 0;
}

static struct leasefs_clone_token issue(void **state, uint64_t ino, uid_t uid, uint64_t now_ns)
{
    struct leasefs_clone_token token;

    assert_int_equal(clone_token_issue(*state, ino, uid, now_ns, &token), 0);
    return token;
}

static void a_token_is_good_once(void **state)
{
    struct leasefs_clone_token token = issue(state, INO, UID, NOW);
    uint64_t ino = 0;

    assert_int_equal(clone_token_take(*state, &token, NOW, &ino), 0);
    assert_int_equal(ino, INO);
    assert_int_equal(clone_token_take(*state, &token, NOW, &ino), -ESTALE);
}

static void a_token_gets_too_old(void **state)
{
    struct leasefs_clone_token first = issue(state, INO, UID, NOW), second = issue(state, INO, UID, NOW);
    uint64_t ino;

    assert_int_equal(clone_token_take(*state, &first, NOW + CLONE_TOKEN_NS - 1, &ino), 0);
    assert_int_equal(clone_token_take(*state, &second, NOW + CLONE_TOKEN_NS, &ino), -ESTALE);
}

static void what_is_nearly_a_token_is_none_and_harms_none(void **state)
{
    struct leasefs_clone_token token = issue(state, INO, UID, NOW);
    uint64_t ino;

    for (unsigned word = 0; word < 3; word++)
        for (unsigned bit = 0; bit < 64; bit++) {
            struct leasefs_clone_token other = token;

            other.word[word] ^= UINT64_C(1) << bit;
            assert_int_equal(clone_token_take(*state, &other, NOW, &ino), -ESTALE);
        }
    assert_int_equal(clone_token_take(*state, &token, NOW, &ino), 0);
}

static void a_user_pushes_out_only_his_own(void **state)
{
    struct leasefs_clone_token other = issue(state, INO, UID + 1, NOW), first = issue(state, INO, UID, NOW), last;
    uint64_t ino;

    for (unsigned i = 1; i < CLONE_TOKENS_OF_USER; i++)
        issue(state, INO, UID, NOW + i);
    last = issue(state, INO, UID, NOW + CLONE_TOKENS_OF_USER);
    assert_int_equal(clone_token_take(*state, &first, NOW, &ino), -ESTALE);
    assert_int_equal(clone_token_take(*state, &last, NOW, &ino), 0);
    assert_int_equal(clone_token_take(*state, &other, NOW, &ino), 0);
}

static void when_all_are_out_others_wait_until_some_are_too_old(void **state)
{
    struct leasefs_clone_token first = issue(state, INO, UID, NOW), token;
    uint64_t ino;

    for (unsigned i = 1; i < CLONE_TOKENS; i++)
        issue(state, INO, UID + i / CLONE_TOKENS_OF_USER, NOW);
    assert_int_equal(clone_token_issue(*state, INO, 1, NOW, &token), -EAGAIN);
    assert_int_equal(clone_token_take(*state, &first, NOW, &ino), 0);
    issue(state, INO, 1, NOW);
    issue(state, INO, 2, NOW + CLONE_TOKEN_NS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_token_is_good_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_token_gets_too_old, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_nearly_a_token_is_none_and_harms_none, setup, teardown),
        cmocka_unit_test_setup_teardown(a_user_pushes_out_only_his_own, setup, teardown),
        cmocka_unit_test_setup_teardown(when_all_are_out_others_wait_until_some_are_too_old, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
