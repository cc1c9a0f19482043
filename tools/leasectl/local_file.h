/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASECTL_LOCAL_FILE_H
#define LEASEFS_LEASECTL_LOCAL_FILE_H

/*
 * A local file that is written whole or not at all. Until local_file_publish() its bytes are in a nameless file in the
 * same directory (O_TMPFILE), or where the filesystem has none in ".NAME.XXXXXX", which is removed on every way out:
 * local_file_abandon(), SIGINT, SIGTERM, SIGHUP. "-" is stdout, and what is not a regular file (a pipe, a device) is
 * written directly.
 */

#include <stdint.h>

struct local_file {
    int fd;
    char *path;      /* the final name; NULL: written directly */
    char *temporary; /* NULL: nameless */
};

/* `name`: what a file in `path` is called, should that be a directory. Sets *message (PIPELINE_MESSAGE_MAX bytes). */
int local_file_create(const char *path, const char *name, uint64_t size, struct local_file *ret_file, char *message);

/* Gives the file its name, replacing what had it. Ends the file, also on failure. */
int local_file_publish(struct local_file *file, char *message);
void local_file_abandon(struct local_file *file);

#endif
