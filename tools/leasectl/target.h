/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASECTL_TARGET_H
#define LEASEFS_LEASECTL_TARGET_H

/*
 * How a file on a server is named:
 *   HOST:/dir/file      on the server at HOST ("[2001:db8::1]" for numeric IPv6 addresses), asked by TLS; where
 * --control or
 *                       --server name the server, HOST is its RDMA address
 *   :/dir/file          on the server that the command line or the environment names
 *   path/on/a/mount     a path on a mounted leasefs: the mount tells control socket and path
 *   /dir/file           otherwise: a path inside the filesystem
 */

struct target {
    char *host;    /* NULL: none given */
    char *path;    /* inside the filesystem */
    char *control; /* NULL: not told by a mount */
};

/* Asks a mounted filesystem; getxattr(2) by default, replaced in unit tests. */
typedef long target_getxattr(const char *path, const char *name, void *value, unsigned long size);

/* -EINVAL: neither of the forms, or a HOST: path that does not begin with '/'. */
int target_parse(const char *text, target_getxattr *ask, struct target *ret_target);
void target_clear(struct target *target);

/* target_parse() with the system's getxattr; after saying why, an exit code. */
int target_take(const char *text, struct target *ret_target);

/* The last component of a path: what a copy into a directory is called. Points into path. */
const char *base_name(const char *path);

/* For a target that ends in '/': appends the base name of `source`. -ENOMEM */
int target_complete(struct target *target, const char *source);

#endif
