/* SPDX-License-Identifier: BSD-2-Clause */
/* A file of keys, in any form: what is taken keeps the parser's promises, what is not is explained. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lease/host_port.h"
#include "lease/key_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void check_path(const char *path)
{
    size_t length = strlen(path);

    must(path[0] == '/' && !strstr(path, "//") && !strstr(path, "/./") && !strstr(path, "/../"));
    must(length == 1 || path[length - 1] != '/');
    must(length < 3 || strcmp(path + length - 3, "/..") != 0);
    must(length < 2 || strcmp(path + length - 2, "/.") != 0);
}

static void check(const struct key_set *set, enum key_file_kind kind)
{
    must(kind == KEY_FILE_SERVER ? set->n_keys <= KEY_CLIENTS_MAX : set->n_keys == 1);
    for (size_t i = 0; i < set->n_keys; i++) {
        const struct client_key *key = set->keys[i];

        must(key_name_valid(key->name, strlen(key->name)));
        must(key_set_find(set, key->name, strlen(key->name)) == key); /* no two of a name */
        must(key->secret_size >= KEY_SECRET_MIN && key->secret_size <= KEY_SECRET_MAX);
        must(client_key_equal(key, key));
        must(kind == KEY_FILE_SERVER ? key->n_exports > 0 && key->n_exports <= KEY_EXPORTS_MAX : key->n_exports == 0);
        must(key->uid != (uid_t)-1 && key->gid != (gid_t)-1 && key->n_groups <= KEY_GROUPS_MAX);
        for (size_t j = 0; j < key->n_exports; j++)
            check_path(key->exports[j].path);
    }
}

static void try(const char *text, size_t size, enum key_file_kind kind)
{
    struct key_set *set = NULL;
    char *why = NULL;
    int error = key_file_parse(text, size, kind, &set, &why);

    if (error) {
        must(!set && (error != -EINVAL || (why && strncmp(why, "line ", 5) == 0)));
    } else {
        must(set && !why);
        check(set, kind);
    }
    key_set_free(set);
    free(why);
}

static void try_as_words(const char *text, size_t size)
{
    struct path_export export;
    struct host_port where;
    char *word = strndup(text, size < 600 ? size : 600);

    if (path_export_parse(text, size, &export) == 0) {
        check_path(export.path);
        free(export.path);
    }
    if (word && host_port_parse(word, 1, &where) == 0)
        must(where.host[0] && strlen(where.host) <= HOST_MAX);
    free(word);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try((const char *)data, size, KEY_FILE_SERVER);
    try((const char *)data, size, KEY_FILE_CLIENT);
    try_as_words((const char *)data, size);
    return 0;
}
