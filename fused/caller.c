/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/caller.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATUS_SIZE 4096 /* of proc(5)'s status, with room */

/* The set of signals on the line of this name, as "\nSigPnd:\t0000000000000100". */
static uint64_t signals(const char *status, const char *name)
{
    const char *line = strstr(status, name);

    return line ? strtoull(line + strlen(name), NULL, 16) : 0;
}

bool caller_is_interrupted(pid_t thread)
{
    char path[32], status[STATUS_SIZE];
    ssize_t n;
    int fd;

    if (thread <= 0)
        return false;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)thread);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, status, sizeof(status) - 1);
    close(fd);
    if (n <= 0)
        return false;
    status[n] = '\0';
    return (signals(status, "\nSigPnd:") | signals(status, "\nShdPnd:")) & ~signals(status, "\nSigBlk:");
}
