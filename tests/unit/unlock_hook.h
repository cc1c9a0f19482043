/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TESTS_UNLOCK_HOOK_H
#define LEASEFS_TESTS_UNLOCK_HOOK_H

/* Calls a function after each mutex that this thread gives back: there others may have their turn, and a test plays
 * them. The linker puts it in the place of the libraries' calls (see CMakeLists.txt: -Wl,--wrap). Include it in one
 * file of a program. */

#include <pthread.h>

static _Thread_local void (*unlock_hook)(void);

void mutex_was_unlocked(void);

void mutex_was_unlocked(void)
{
    void (*hook)(void) = unlock_hook;

    if (hook) {
        unlock_hook = NULL; /* what it does itself is not looked at */
        hook();
        unlock_hook = hook;
    }
}

#ifndef LEASEFS_LOCK_CHECK /* else lease/lock_order.c is in that place, and calls it */
int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int err = __real_pthread_mutex_unlock(mutex);

    mutex_was_unlocked();
    return err;
}
#endif

#endif
