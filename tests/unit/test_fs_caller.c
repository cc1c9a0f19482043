/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fused/caller.h"

/* A child that blocks SIGUSR1 and has stopped, so that what it is sent stays pending. */
static pid_t stopped_child(void)
{
    pid_t child = fork();
    sigset_t blocked;

    assert_true(child >= 0);
    if (child == 0) {
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGUSR1);
        sigprocmask(SIG_BLOCK, &blocked, NULL);
        raise(SIGSTOP);
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, WUNTRACED), child);
    return child;
}

static void a_pending_signal_is_seen_unless_it_is_blocked(void **state)
{
    pid_t child = stopped_child();

    (void)state;
    assert_false(caller_is_interrupted(child));
    kill(child, SIGUSR1);
    assert_false(caller_is_interrupted(child));
    kill(child, SIGTERM);
    assert_true(caller_is_interrupted(child));
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void who_is_not_known_is_not_interrupted(void **state)
{
    pid_t gone = stopped_child();

    (void)state;
    kill(gone, SIGKILL);
    assert_int_equal(waitpid(gone, NULL, 0), gone);
    assert_false(caller_is_interrupted(gone));
    assert_false(caller_is_interrupted(0));
    assert_false(caller_is_interrupted(-1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pending_signal_is_seen_unless_it_is_blocked),
        cmocka_unit_test(who_is_not_known_is_not_interrupted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
