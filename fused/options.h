/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_OPTIONS_H
#define LEASEFS_FUSED_OPTIONS_H

/* The command line. leasefs(8) describes it. */

#define FUSE_USE_VERSION 312
#include <fuse_opt.h>
#include <stdbool.h>
#include <stdint.h>

#include "fused/fuse_server.h"
#include "lease/lease_table.h"

#define OPTIONS_MAX_LISTEN 8

struct options {
    uint64_t pool_size; /* bytes */
    bool huge_pages;
    char *control;                    /* absolute */
    char *listen[OPTIONS_MAX_LISTEN]; /* ADDRESS[:PORT] */
    size_t n_listen;
    char *keys;       /* absolute; with listen */
    char *mountpoint; /* absolute; a directory */
    char *device;     /* name or address; NULL: the first that works */
    bool no_device;   /* device=none */
    uint16_t port;    /* 0: any */
    char *revoke;     /* NULL: auto */
    enum lease_policy policy;
    uint64_t recall_timeout_ns, lease_time_ns;
    uint64_t user_space, user_files;                  /* of one user's files: bytes, number; 0: no limit */
    uint64_t leased_bytes, user_bytes, session_bytes; /* most that may be leased at once; 0: no limit */
    uint64_t spare_bytes; /* most that is registered ahead for ranges just returned; 0: nothing */
    enum fuse_cache cache;
    bool writeback; /* only with no_device */
    enum fuse_io_uring io_uring;
    bool read_only, noatime, foreground, show_help, show_version;
    struct fuse_args fuse; /* for libfuse, with the program's name first */
};

/* -EINVAL after a line on stderr that says what is wrong. Does not look at the mountpoint. */
int options_parse(int argc, char **argv, struct options *ret_options);
void options_free(struct options *options);

/* Makes the mountpoint's path absolute; takes a dead mount off it. -EINVAL after a line on stderr. */
int options_check_mountpoint(struct options *options);

void options_print_help(void);

/* "512M", "4G", "1TiB": binary multiples. "250ms", "30s", "5min", a bare number: milliseconds. -EINVAL, -ERANGE. */
int options_parse_size(const char *text, uint64_t *ret_bytes);
int parse_duration(const char *text, uint64_t *ret_ns);

#endif
