/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/control_socket.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MS 5000 /* within that who lives answers, or is taken to live */
#define BACKLOG   128

static bool is_a_socket(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* Whoever is connected to: does he live? Whatever he is asked, he answers, while of one who is dying nothing comes but
 * the end. */
static bool answers(int fd)
{
    static const char question[] = "{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"status\"}\n";
    struct pollfd answer = {.fd = fd, .events = POLLIN};
    char byte;

    (void)!send(fd, question, strlen(question), MSG_NOSIGNAL | MSG_DONTWAIT);
    return poll(&answer, 1, ANSWER_MS) <= 0 || recv(fd, &byte, 1, MSG_DONTWAIT) > 0;
}

/* 0: nobody listens there. */
static int find_nobody(const struct sockaddr_un *address)
{
    bool dying;

    do {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0)
            return -errno;
        dying = false;
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0) {
            dying = !answers(fd);
            if (!dying) {
                close(fd);
                return -EADDRINUSE;
            }
        } else if (errno == ECONNREFUSED && is_a_socket(address->sun_path)) { /* a regular file refuses, too */
            unlink(address->sun_path);
        }
        close(fd);
    } while (dying);
    return 0;
}

static int listen_at(const struct sockaddr_un *address, int *ret_fd)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error;
    mode_t mask;

    if (fd < 0)
        return -errno;
    mask = umask(0177);
    error = bind(fd, (const struct sockaddr *)address, sizeof(*address)) ? -errno : 0;
    umask(mask);
    if (!error && listen(fd, BACKLOG))
        error = -errno;
    if (error)
        close(fd);
    else
        *ret_fd = fd;
    return error;
}

int control_socket_listen(const char *path, int *ret_fd, char **ret_error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int error;

    if (strlen(path) >= sizeof(address.sun_path)) {
        if (asprintf(ret_error, "control socket %s: the path is longer than %zu bytes; choose another with -o control=",
                     path, sizeof(address.sun_path) - 1) < 0)
            *ret_error = NULL;
        return -ENAMETOOLONG;
    }
    strcpy(address.sun_path, path);
    error = find_nobody(&address);
    if (!error)
        error = listen_at(&address, ret_fd);
    if (error == -EADDRINUSE && !is_a_socket(path))
        error = -EEXIST;
    if (error &&
        asprintf(ret_error, "control socket %s: %s%s", path, strerror(-error),
                 error == -EADDRINUSE ? ": another leasefs serves it; choose another with -o control=PATH"
                 : error == -EEXIST   ? ": it is no socket, and stays; choose another with -o control=PATH"
                 : error == -ENOENT   ? ": its directory does not exist; make it or choose another with -o control=PATH"
                                      : "") < 0)
        *ret_error = NULL;
    return error;
}
