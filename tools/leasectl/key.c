/* SPDX-License-Identifier: BSD-2-Clause */

/* key: makes and lists the keys of remote clients. Asks no server: it works on the server's file of keys. */

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lease/key_file.h"
#include "tools/leasectl/leasectl.h"
#include "tools/leasectl/units.h"

struct arguments {
    const char *words[2];
    unsigned given;
    const char *keys, *out, *gids;
    uint64_t uid, gid;
    bool has_uid, has_gid;
    const char *exports[KEY_EXPORTS_MAX];
    size_t n_exports;
};

/* A text that grows and is forgotten. */
struct text {
    char *bytes;
    size_t length;
};

static void text_clear(struct text *text)
{
    if (text->bytes)
        explicit_bzero(text->bytes, text->length);
    free(text->bytes);
    *text = (struct text){0};
}

/* ---- where the files are ---- */

static int default_keys(char *path, size_t size)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    int length;

    if (geteuid() == 0)
        length = snprintf(path, size, "/etc/leasefs/keys");
    else if (config && *config == '/')
        length = snprintf(path, size, "%s/leasefs/keys", config);
    else
        length = snprintf(path, size, "%s/.config/leasefs/keys", home ? home : "");
    return length > 0 && (size_t)length < size ? 0 : -ENAMETOOLONG;
}

/* The directories above the default file, for the owner alone. Errors show when the file is opened. */
static void make_directories(const char *path)
{
    char part[4096];

    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
        if (mkdir(part, 0700) && errno != EEXIST)
            return;
    }
}

/* ---- the texts ---- */

static int write_hex(struct text *text, const uint8_t *secret, size_t size)
{
    text->length = 2 * size;
    text->bytes = malloc(text->length + 1);
    if (!text->bytes)
        return -ENOMEM;
    for (size_t i = 0; i < size; i++)
        snprintf(text->bytes + 2 * i, 3, "%02x", secret[i]);
    return 0;
}

static int write_sections(const struct arguments *arguments, const char *hex, struct text *server, struct text *client)
{
    const char *name = arguments->words[1];
    FILE *stream = open_memstream(&server->bytes, &server->length);

    if (!stream)
        return -ENOMEM;
    fprintf(stream, "\n[client %s]\nkey = %s\nuid = %llu\ngid = %llu\n", name, hex, (unsigned long long)arguments->uid,
            (unsigned long long)arguments->gid);
    if (arguments->gids)
        fprintf(stream, "gids = %s\n", arguments->gids);
    for (size_t i = 0; i < arguments->n_exports; i++)
        fprintf(stream, "export = %s\n", arguments->exports[i]);
    if (fclose(stream))
        return -ENOMEM;
    stream = open_memstream(&client->bytes, &client->length);
    if (!stream)
        return -ENOMEM;
    fprintf(stream, "[client %s]\nkey = %s\n", name, hex);
    return fclose(stream) ? -ENOMEM : 0;
}

static int make_texts(const struct arguments *arguments, struct text *server, struct text *client)
{
    uint8_t secret[KEY_SECRET_BYTES];
    struct text hex = {0};
    int status = gnutls_rnd(GNUTLS_RND_KEY, secret, sizeof(secret)) ? -EIO : 0;

    if (!status)
        status = write_hex(&hex, secret, sizeof(secret));
    if (!status)
        status = write_sections(arguments, hex.bytes, server, client);
    text_clear(&hex);
    explicit_bzero(secret, sizeof(secret));
    return status;
}

/* ---- the files ---- */

static int write_all(int fd, const struct text *text)
{
    for (size_t done = 0; done < text->length;) {
        ssize_t put = write(fd, text->bytes + done, text->length - done);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        done += (size_t)put;
    }
    return 0;
}

static int read_file(int fd, struct text *text)
{
    struct stat st;
    ssize_t got;

    if (fstat(fd, &st))
        return -errno;
    if (st.st_size > KEY_FILE_MAX)
        return -EFBIG;
    text->bytes = malloc((size_t)st.st_size + 1);
    if (!text->bytes)
        return -ENOMEM;
    got = pread(fd, text->bytes, (size_t)st.st_size, 0);
    text->length = got < 0 ? 0 : (size_t)got;
    return got < 0 ? -errno : 0;
}

/* Would the daemon take the file with this section at its end? 0 or, after saying why, an exit code. */
static int check_result(const char *path, const struct text *old, const struct text *section)
{
    struct text whole = {.length = old->length + section->length};
    struct key_set *set = NULL;
    char *why = NULL;
    int status = -ENOMEM, code = 0;

    whole.bytes = malloc(whole.length + 1);
    if (whole.bytes) {
        memcpy(whole.bytes, old->bytes, old->length);
        memcpy(whole.bytes + old->length, section->bytes, section->length);
        status = key_file_parse(whole.bytes, whole.length, KEY_FILE_SERVER, &set, &why);
    }
    if (status)
        code = output_failure(status, "%s: %s. Nothing was changed.", path, why ? why : strerror(-status));
    free(why);
    key_set_free(set);
    text_clear(&whole);
    return code;
}

/* 0 or, after saying why, an exit code. */
static int append_section(const char *path, const struct text *section)
{
    int status = 0, code = 0, fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
    struct text old = {0};
    struct stat st;

    if (fd < 0)
        return output_failure(-errno, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX) || fstat(fd, &st))
        status = -errno;
    else if (!S_ISREG(st.st_mode))
        status = -EINVAL;
    else if (st.st_mode & 077)
        code = output_failure(-EACCES, "%s: others may read or write it: chmod 600 %s", path, path);
    else
        status = read_file(fd, &old);
    if (!status && !code)
        code = check_result(path, &old, section);
    if (!status && !code) {
        status = write_all(fd, section);
        if (!status && fsync(fd))
            status = -errno;
        if (status && ftruncate(fd, st.st_size)) /* the daemon would refuse half a section, and keep its old keys */
            fprintf(stderr, "leasectl: %s: half a section is at its end\n", path);
    }
    if (status)
        code = output_failure(status, "%s: %s", path, strerror(-status));
    close(fd);
    text_clear(&old);
    return code;
}

/* 0 or, after saying why, an exit code. */
static int write_client_file(const char *path, const struct text *text)
{
    int status, fd;

    if (!strcmp(path, "-")) {
        output_use_stderr();
        return write_all(STDOUT_FILENO, text) ? output_failure(-EIO, "stdout: %s", strerror(errno)) : 0;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return output_failure(-errno, "%s: %s%s", path, strerror(errno),
                              errno == EEXIST ? ": name another file with --out" : "");
    status = write_all(fd, text);
    if (!status && fsync(fd))
        status = -errno;
    if (close(fd) && !status)
        status = -errno;
    if (!status)
        return 0;
    unlink(path);
    return output_failure(status, "%s: %s", path, strerror(-status));
}

/* ---- new ---- */

static int check_new(struct arguments *arguments)
{
    const char *name = arguments->words[1];
    struct path_export export;

    if (!key_name_valid(name, strlen(name)))
        return output_usage("'%s' is no name of a client: 1 to %u of A-Z a-z 0-9 . _ @ -", name, KEY_NAME_MAX);
    if (!arguments->n_exports)
        return output_usage("which part of the filesystem? --export /PATH or /PATH:ro, once or more; / is all of it");
    for (size_t i = 0; i < arguments->n_exports; i++) {
        if (path_export_parse(arguments->exports[i], strlen(arguments->exports[i]), &export))
            return output_usage("'%s' is no export: /PATH or /PATH:ro, a path inside the filesystem without '..'",
                                arguments->exports[i]);
        free(export.path);
    }
    if (!arguments->has_uid && geteuid() == 0)
        return output_usage("as which user? --uid NUMBER [--gid NUMBER]");
    if (!arguments->has_gid && arguments->has_uid)
        return output_usage("as which group? --gid NUMBER");
    if (!arguments->has_uid)
        arguments->uid = geteuid();
    if (!arguments->has_gid)
        arguments->gid = getegid();
    return 0;
}

static int key_new(struct arguments *arguments, const char *keys)
{
    struct text server = {0}, client = {0};
    const char *name = arguments->words[1];
    char default_out[KEY_NAME_MAX + 8];
    int code = check_new(arguments);

    if (code)
        return code;
    snprintf(default_out, sizeof(default_out), "%s.key", name);
    if (!arguments->out)
        arguments->out = default_out;
    if (!arguments->keys)
        make_directories(keys);
    if (make_texts(arguments, &server, &client))
        code = output_failure(-EIO, "no key could be made");
    if (!code)
        code = write_client_file(arguments->out, &client);
    if (!code) {
        code = append_section(keys, &server);
        if (code && strcmp(arguments->out, "-"))
            unlink(arguments->out);
    }
    if (!code) {
        output_text("client %s added to %s; leasefs reads it again on SIGHUP", name, keys);
        if (strcmp(arguments->out, "-"))
            output_text("its key is in %s: move it to the client, to ~/.config/leasefs/key, mode 600", arguments->out);
        output_json(
            json_pack("{s:s, s:s, s:s, s:s}", "event", "key", "client", name, "keys", keys, "out", arguments->out));
    }
    text_clear(&server);
    text_clear(&client);
    return code;
}

/* ---- list ---- */

static json_t *key_json(const struct client_key *key)
{
    json_t *gids = json_array(), *exports = json_array();

    for (size_t i = 0; i < key->n_groups; i++)
        json_array_append_new(gids, json_integer(key->groups[i]));
    for (size_t i = 0; i < key->n_exports; i++)
        json_array_append_new(exports, json_pack("{s:s, s:b}", "path", key->exports[i].path, "read_only",
                                                 (int)key->exports[i].read_only));
    return json_pack("{s:s, s:s, s:I, s:I, s:o, s:o}", "event", "key", "client", key->name, "uid", (json_int_t)key->uid,
                     "gid", (json_int_t)key->gid, "gids", gids, "exports", exports);
}

static void print_key(const struct client_key *key)
{
    char *line = NULL;
    size_t length;
    FILE *stream = open_memstream(&line, &length);

    if (!stream)
        return;
    fprintf(stream, "%s: uid %u, gid %u", key->name, key->uid, key->gid);
    for (size_t i = 0; i < key->n_groups; i++)
        fprintf(stream, "%s%u", i ? "," : ", gids ", key->groups[i]);
    for (size_t i = 0; i < key->n_exports; i++)
        fprintf(stream, ", %s%s", key->exports[i].path, key->exports[i].read_only ? " read-only" : "");
    fclose(stream);
    output_text("%s", line);
    free(line);
}

static int key_list(const char *keys)
{
    struct key_set *set = NULL;
    char *why = NULL;
    int status = key_file_read(keys, KEY_FILE_SERVER, &set, &why);

    if (status) {
        status = output_failure(status, "%s", why ? why : strerror(-status));
        free(why);
        return status;
    }
    for (size_t i = 0; i < set->n_keys; i++) {
        print_key(set->keys[i]);
        output_json(key_json(set->keys[i]));
    }
    key_set_free(set);
    return EXIT_OK;
}

/* ---- the command line ---- */

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *arguments = state->input;

    switch (key) {
    case 'K':
        arguments->keys = arg;
        return 0;
    case 'o':
        arguments->out = arg;
        return 0;
    case 'u':
    case 'g':
        if (parse_number(arg, 0, UINT32_MAX - 1, key == 'u' ? &arguments->uid : &arguments->gid))
            argp_error(state, "'%s' is no number of a user or group", arg);
        arguments->has_uid |= key == 'u';
        arguments->has_gid |= key == 'g';
        return 0;
    case 'G':
        arguments->gids = arg;
        return 0;
    case 'e':
        if (arguments->n_exports == KEY_EXPORTS_MAX)
            argp_error(state, "at most %u exports", KEY_EXPORTS_MAX);
        arguments->exports[arguments->n_exports++] = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (arguments->given == 2)
            argp_error(state, "too many arguments");
        arguments->words[arguments->given++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (!arguments->given || (strcmp(arguments->words[0], "new") && strcmp(arguments->words[0], "list")))
            argp_error(state, "'new CLIENT' or 'list'?");
        if ((arguments->given == 2) != !strcmp(arguments->words[0], "new"))
            argp_error(state, arguments->given == 2 ? "too many arguments" : "which client?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int command_key(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"keys", 'K', "FILE", 0, "The server's file of keys (root: /etc/leasefs/keys, else ~/.config/leasefs/keys)", 0},
        {"export", 'e', "/PATH[:ro]", 0, "What of the filesystem exists for the client; may be repeated", 0},
        {"uid", 'u', "NUMBER", 0, "Whose permissions it has (default: yours, unless you are root)", 0},
        {"gid", 'g', "NUMBER", 0, "Its group (default: yours)", 0},
        {"gids", 'G', "NUMBER,...", 0, "More groups", 0},
        {"out", 'o', "FILE", 0, "Where the client's key goes (CLIENT.key; - is standard output)", 0},
        {0},
    };
    static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {.options = options,
                                     .parser = parse,
                                     .children = children,
                                     .args_doc = "new CLIENT\nlist",
                                     .doc = "Make a key for a remote client, or list those there are."};
    struct arguments arguments = {0};
    char keys[4096];

    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return EXIT_USAGE;
    if (arguments.keys)
        snprintf(keys, sizeof(keys), "%s", arguments.keys);
    else if (default_keys(keys, sizeof(keys)))
        return output_usage("say where the keys are: --keys FILE");
    return !strcmp(arguments.words[0], "new") ? key_new(&arguments, keys) : key_list(keys);
}
