/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TESTS_CUT_SEND_H
#define LEASEFS_TESTS_CUT_SEND_H

/* A send() of which a thread can say: the next sends a part only, and then calls a function. The linker puts it in the
 * place of the libraries' calls (see CMakeLists.txt: -Wl,--wrap). Include it in one file of a program. */

#include <sys/socket.h>
#include <sys/types.h>

static _Thread_local struct {
    size_t bytes; /* 0: not cut */
    void (*then)(void);
} cut_send;

ssize_t __real_send(int fd, const void *bytes, size_t length, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t length, int flags);

__attribute__((visibility("default"))) ssize_t __wrap_send(int fd, const void *bytes, size_t length, int flags)
{
    size_t part = cut_send.bytes;
    ssize_t sent;

    if (!part || part >= length)
        return __real_send(fd, bytes, length, flags);
    cut_send.bytes = 0;
    sent = __real_send(fd, bytes, part, flags);
    cut_send.then();
    return sent;
}

#endif
