/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TESTS_FAILING_MALLOC_H
#define LEASEFS_TESTS_FAILING_MALLOC_H

/* A malloc() that fails once, when armed, after `after` more calls of this thread. The linker puts it in the place of
 * the libraries' calls (see CMakeLists.txt: -Wl,--wrap). Include it in one file of a program. */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct {
    bool armed, failed;
    unsigned after;
} failing_malloc;

static inline void failing_malloc_arm(unsigned after)
{
    failing_malloc.armed = true;
    failing_malloc.failed = false;
    failing_malloc.after = after;
}

/* Of the time since it was armed. */
static inline bool failing_malloc_has_failed(void)
{
    return failing_malloc.failed;
}

static inline void failing_malloc_disarm(void)
{
    failing_malloc.armed = failing_malloc.failed = false;
}

static inline bool failing_malloc_fails_now(void)
{
    if (!failing_malloc.armed || failing_malloc.after-- > 0)
        return false;
    failing_malloc.armed = false;
    failing_malloc.failed = true;
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);

#define SEEN_BY_SANITIZERS __attribute__((visibility("default"))) /* their shared library calls them, too */
SEEN_BY_SANITIZERS void *__wrap_malloc(size_t size);
SEEN_BY_SANITIZERS void *__wrap_calloc(size_t count, size_t size);
SEEN_BY_SANITIZERS void *__wrap_realloc(void *old, size_t size);
SEEN_BY_SANITIZERS char *__wrap_strdup(const char *text);

void *__wrap_malloc(size_t size)
{
    return failing_malloc_fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return failing_malloc_fails_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return failing_malloc_fails_now() ? NULL : __real_realloc(old, size);
}

/* Inside libc its malloc() is not ours. */
char *__wrap_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = __wrap_malloc(size);

    return copy ? memcpy(copy, text, size) : NULL;
}

#endif
