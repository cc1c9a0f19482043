/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_KEY_FILE_H
#define LEASEFS_LEASE_KEY_FILE_H

/*
 * Files of pre-shared keys: who may come by TCP, as whom, and where to. Of the wire's library, because the client reads
 * one, too: the same form with name and key alone.
 *
 *     # comment, also with ';'
 *     [client NAME]          1..64 of A-Z a-z 0-9 . _ @ -
 *     key = HEX              16..64 bytes
 *     uid = NUMBER           whose permissions the client has
 *     gid = NUMBER
 *     gids = NUMBER, ...     supplementary groups; may be left out
 *     export = /PATH[:ro]    once or more: the parts of the filesystem that exist for this client
 *
 * Strict: what is unknown, twice there, missing or malformed is an error that names its line. Pure but for
 * key_file_read(); thread-safe.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define KEY_NAME_MAX     64u
#define KEY_SECRET_MIN   16u /* bytes: less could be guessed from one handshake that was listened to */
#define KEY_SECRET_MAX   64u
#define KEY_GROUPS_MAX   64u
#define KEY_EXPORTS_MAX  64u
#define KEY_CLIENTS_MAX  4096u
#define KEY_FILE_MAX     (4u << 20) /* bytes */
#define KEY_SECRET_BYTES 32u        /* of new keys */

/* A part of the filesystem: a path without ".", ".." and double slashes, "/" or without one at its end. */
struct path_export {
    char *path;
    bool read_only;
};

struct client_key {
    atomic_uint refs;
    char name[KEY_NAME_MAX + 1];
    uint8_t secret[KEY_SECRET_MAX];
    size_t secret_size;
    uid_t uid;
    gid_t gid;
    size_t n_groups;
    gid_t *groups;
    size_t n_exports; /* of a server's file: at least one */
    struct path_export *exports;
};

struct key_set {
    size_t n_keys;
    struct client_key **keys; /* a reference each */
};

enum key_file_kind {
    KEY_FILE_SERVER, /* uid, gid and export are needed */
    KEY_FILE_CLIENT, /* one section, with nothing but the key */
};

/* -EINVAL with *ret_why, a sentence that names the line; free(). -ENOMEM. */
int key_file_parse(const char *text, size_t length, enum key_file_kind kind, struct key_set **ret_set, char **ret_why);

/* The same of a file. It must be a regular one that belongs to root or to this user, and group and others may neither
 * read nor write it. *ret_why is set on every error but -ENOMEM. */
int key_file_read(const char *path, enum key_file_kind kind, struct key_set **ret_set, char **ret_why);

void key_set_free(struct key_set *set);                                                      /* NULL is allowed */
struct client_key *key_set_find(const struct key_set *set, const char *name, size_t length); /* borrowed, or NULL */

struct client_key *client_key_ref(struct client_key *key);
void client_key_unref(struct client_key *key); /* the last one forgets the secret. NULL is allowed */

/* Do both let the same client do the same things? */
bool client_key_equal(const struct client_key *a, const struct client_key *b);

bool key_name_valid(const char *name, size_t length);

/* "/a//b/:ro" > "/a/b", read-only. -EINVAL: not absolute, or with "." or ".." in it. -ENOMEM. */
int path_export_parse(const char *text, size_t length, struct path_export *ret_export);

#endif
