/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/leasectl/local_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/leasectl/pipeline.h"
#include "tools/leasectl/target.h"

static const int deadly_signals[] = {SIGINT, SIGTERM, SIGHUP};

/* What the signal handler removes. One a process is enough. */
static char remove_on_signal[PATH_MAX];
static volatile sig_atomic_t removal_armed;

static int say(int status, char *message, const char *path, const char *what)
{
    snprintf(message, PIPELINE_MESSAGE_MAX, "%s: %s: %s", path, what, strerror(-status));
    return status;
}

static void remove_and_die(int number)
{
    if (removal_armed)
        unlink(remove_on_signal);
    signal(number, SIG_DFL);
    raise(number);
}

static void arm_removal(const char *path)
{
    const struct sigaction action = {.sa_handler = remove_and_die};
    struct sigaction old;

    snprintf(remove_on_signal, sizeof(remove_on_signal), "%s", path);
    removal_armed = 1;
    for (size_t i = 0; i < sizeof(deadly_signals) / sizeof(*deadly_signals); i++)
        /* What was ignored at the start (nohup) stays so. */
        if (!sigaction(deadly_signals[i], NULL, &old) && old.sa_handler != SIG_IGN)
            sigaction(deadly_signals[i], &action, NULL);
}

static char *directory_of(const char *path)
{
    const char *base = base_name(path);

    if (base == path)
        return strdup(".");
    return base == path + 1 ? strdup("/") : strndup(path, (size_t)(base - path - 1));
}

/* ".NAME.XXXXXX" beside path. */
static char *temporary_beside(const char *path)
{
    const char *base = base_name(path);
    char *name;

    return asprintf(&name, "%.*s.%.200s.XXXXXX", (int)(base - path), path, base) < 0 ? NULL : name;
}

/* The final name: inside a directory, behind symbolic links. */
static int final_name(const char *path, const char *name, char **ret_path, bool *ret_direct, char *message)
{
    struct stat stat_now;
    char *joined = NULL;

    *ret_direct = false;
    if (!stat(path, &stat_now) && S_ISDIR(stat_now.st_mode)) {
        if (asprintf(&joined, "%s/%s", path, name) < 0)
            return say(-ENOMEM, message, path, "cannot create");
        path = joined;
    }
    if (!stat(path, &stat_now)) {
        if (S_ISDIR(stat_now.st_mode)) {
            say(-EISDIR, message, path, "cannot create");
            free(joined);
            return -EISDIR;
        }
        *ret_direct = !S_ISREG(stat_now.st_mode);
        *ret_path = realpath(path, NULL);
        free(joined);
    } else {
        *ret_path = joined ? joined : strdup(path);
    }
    return *ret_path ? 0 : say(-ENOMEM, message, path, "cannot create");
}

static int open_temporary(struct local_file *file)
{
    char *directory = directory_of(file->path);
    mode_t mask = umask(0);
    int status = 0;

    umask(mask);
    file->fd = directory ? open(directory, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666) : -1;
    free(directory);
    if (file->fd >= 0)
        return 0;
    file->temporary = temporary_beside(file->path);
    if (!file->temporary)
        return -ENOMEM;
    file->fd = mkostemp(file->temporary, O_CLOEXEC);
    if (file->fd < 0) {
        status = -errno;
        free(file->temporary);
        file->temporary = NULL;
        return status;
    }
    arm_removal(file->temporary);
    fchmod(file->fd, 0666 & ~mask);
    return 0;
}

/* A file that is replaced keeps its mode. */
static void keep_mode(const struct local_file *file)
{
    struct stat old;

    if (!stat(file->path, &old))
        fchmod(file->fd, old.st_mode & 07777);
}

int local_file_create(const char *path, const char *name, uint64_t size, struct local_file *ret_file, char *message)
{
    struct local_file file = {.fd = -1};
    bool direct = false;
    int status;

    if (!strcmp(path, "-")) {
        ret_file->fd = STDOUT_FILENO;
        ret_file->path = ret_file->temporary = NULL;
        return 0;
    }
    status = final_name(path, name, &file.path, &direct, message);
    if (status)
        return status;
    if (direct) {
        file.fd = open(file.path, O_WRONLY | O_CLOEXEC);
        status = file.fd < 0 ? say(-errno, message, path, "cannot open") : 0;
        free(file.path);
        file.path = NULL;
        if (!status)
            *ret_file = file;
        return status;
    }
    status = open_temporary(&file);
    if (status) {
        say(status, message, file.path, "cannot create");
        free(file.path);
        return status;
    }
    keep_mode(&file);
    /* A full disk is better found before the transfer; a filesystem that cannot tell says so and is let off. */
    if (size && fallocate(file.fd, 0, 0, (off_t)size) && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
        status = say(-errno, message, file.path, "no room");
        local_file_abandon(&file);
        return status;
    }
    *ret_file = file;
    return 0;
}

void local_file_abandon(struct local_file *file)
{
    removal_armed = 0;
    if (file->temporary)
        unlink(file->temporary);
    if (file->fd > STDERR_FILENO)
        close(file->fd);
    free(file->temporary);
    free(file->path);
    *file = (struct local_file){.fd = -1};
}

/* A nameless file cannot replace a name: when the final one is taken it gets a temporary one for a moment. */
static int name_nameless(struct local_file *file)
{
    char source[64];

    snprintf(source, sizeof(source), "/proc/self/fd/%d", file->fd);
    for (int i = 0; i < 100; i++) {
        unsigned random;
        char *name;

        if (!linkat(AT_FDCWD, source, AT_FDCWD, file->path, AT_SYMLINK_FOLLOW))
            return 0;
        if (errno != EEXIST)
            return -errno;
        name = temporary_beside(file->path);
        if (!name || getrandom(&random, sizeof(random), 0) != sizeof(random)) {
            free(name);
            return -ENOMEM;
        }
        snprintf(name + strlen(name) - 6, 7, "%06x", random & 0xffffff);
        arm_removal(name);
        if (!linkat(AT_FDCWD, source, AT_FDCWD, name, AT_SYMLINK_FOLLOW)) {
            file->temporary = name;
            return 0;
        }
        removal_armed = 0;
        free(name);
    }
    return -EEXIST;
}

/* A late write error (a full network filesystem) shows when the file is closed. */
static int close_written(struct local_file *file)
{
    int fd = file->fd;

    file->fd = -1;
    return fd >= 0 && close(fd) ? -errno : 0;
}

int local_file_publish(struct local_file *file, char *message)
{
    int status = 0;

    if (file->path && !file->temporary)
        status = name_nameless(file);
    if (!status)
        status = close_written(file);
    if (!status && file->temporary) {
        status = rename(file->temporary, file->path) ? -errno : 0;
        if (!status) {
            free(file->temporary);
            file->temporary = NULL;
        }
    }
    if (status)
        say(status, message, file->path ? file->path : "output", "cannot finish the file");
    local_file_abandon(file);
    return status;
}
