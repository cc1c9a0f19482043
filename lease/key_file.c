/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/key_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A piece of the text: no copy. */
struct word {
    const char *start;
    size_t length;
};

enum member {
    MEMBER_KEY = 1 << 0,
    MEMBER_UID = 1 << 1,
    MEMBER_GID = 1 << 2,
    MEMBER_GIDS = 1 << 3,
    MEMBER_EXPORT = 1 << 4,
};

struct parser {
    enum key_file_kind kind;
    struct key_set *set;
    struct client_key *key; /* of the section that is being read; borrowed from set */
    unsigned line, section_line, seen;
    char *why;
};

/* ---- keys ---- */

struct client_key *client_key_ref(struct client_key *key)
{
    atomic_fetch_add(&key->refs, 1);
    return key;
}

void client_key_unref(struct client_key *key)
{
    if (!key || atomic_fetch_sub(&key->refs, 1) != 1)
        return;
    explicit_bzero(key->secret, sizeof(key->secret));
    for (size_t i = 0; i < key->n_exports; i++)
        free(key->exports[i].path);
    free(key->exports);
    free(key->groups);
    free(key);
}

void key_set_free(struct key_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->n_keys; i++)
        client_key_unref(set->keys[i]);
    free(set->keys);
    free(set);
}

struct client_key *key_set_find(const struct key_set *set, const char *name, size_t length)
{
    for (size_t i = 0; i < set->n_keys; i++)
        if (strlen(set->keys[i]->name) == length && memcmp(set->keys[i]->name, name, length) == 0)
            return set->keys[i];
    return NULL;
}

bool client_key_equal(const struct client_key *a, const struct client_key *b)
{
    if (strcmp(a->name, b->name) != 0 || a->secret_size != b->secret_size ||
        memcmp(a->secret, b->secret, a->secret_size) != 0 || a->uid != b->uid || a->gid != b->gid ||
        a->n_groups != b->n_groups || a->n_exports != b->n_exports)
        return false;
    for (size_t i = 0; i < a->n_groups; i++)
        if (a->groups[i] != b->groups[i])
            return false;
    for (size_t i = 0; i < a->n_exports; i++)
        if (a->exports[i].read_only != b->exports[i].read_only || strcmp(a->exports[i].path, b->exports[i].path) != 0)
            return false;
    return true;
}

/* ---- words ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct word trim(struct word word)
{
    while (word.length && is_blank(word.start[0]))
        word = (struct word){word.start + 1, word.length - 1};
    while (word.length && is_blank(word.start[word.length - 1]))
        word.length--;
    return word;
}

static bool word_is(struct word word, const char *text)
{
    return word.length == strlen(text) && memcmp(word.start, text, word.length) == 0;
}

bool key_name_valid(const char *name, size_t length)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@-";

    if (length < 1 || length > KEY_NAME_MAX)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!name[i] || !strchr(allowed, name[i]))
            return false;
    return true;
}

/* Ids up to 2^32 - 2: the last one means "none" to the kernel. */
static bool parse_id(struct word word, uint32_t *ret_id)
{
    uint64_t value = 0;

    if (word.length < 1 || word.length > 10)
        return false;
    for (size_t i = 0; i < word.length; i++) {
        if (word.start[i] < '0' || word.start[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(word.start[i] - '0');
    }
    if (value >= UINT32_MAX)
        return false;
    *ret_id = (uint32_t)value;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool parse_secret(struct word word, struct client_key *key)
{
    if (word.length % 2 || word.length < 2 * KEY_SECRET_MIN || word.length > 2 * KEY_SECRET_MAX)
        return false;
    for (size_t i = 0; i < word.length; i += 2) {
        int high = hex_digit(word.start[i]), low = hex_digit(word.start[i + 1]);

        if (high < 0 || low < 0)
            return false;
        key->secret[i / 2] = (uint8_t)(high << 4 | low);
    }
    key->secret_size = word.length / 2;
    return true;
}

int path_export_parse(const char *text, size_t length, struct path_export *ret_export)
{
    struct path_export export = {0};
    char *end;

    if (length > 3 && memcmp(text + length - 3, ":ro", 3) == 0) {
        export.read_only = true;
        length -= 3;
    } else if (length > 3 && memcmp(text + length - 3, ":rw", 3) == 0) {
        length -= 3;
    }
    if (length < 1 || length >= PATH_MAX || text[0] != '/' || memchr(text, '\0', length))
        return -EINVAL;
    export.path = end = malloc(length + 1);
    if (!export.path)
        return -ENOMEM;
    for (size_t i = 0; i < length;) {
        size_t start = i, stop;

        while (start < length && text[start] == '/')
            start++;
        for (stop = start; stop < length && text[stop] != '/';)
            stop++;
        if (start >= length)
            break;
        if ((stop - start == 1 && text[start] == '.') ||
            (stop - start == 2 && text[start] == '.' && text[start + 1] == '.')) {
            free(export.path);
            return -EINVAL;
        }
        *end++ = '/';
        memcpy(end, text + start, stop - start);
        end += stop - start;
        i = stop;
    }
    if (end == export.path)
        *end++ = '/';
    *end = '\0';
    *ret_export = export;
    return 0;
}

/* ---- the file ---- */

__attribute__((format(printf, 3, 4))) static int complain_at(struct parser *p, unsigned line, const char *format, ...)
{
    char sentence[256];
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    if (asprintf(&p->why, "line %u: %s", line, sentence) < 0) {
        p->why = NULL;
        return -ENOMEM;
    }
    return -EINVAL;
}

/* The section that ends here has all it needs. */
static bool is_below(const char *path, const char *top)
{
    size_t length = strcmp(top, "/") ? strlen(top) : 0;

    return strncmp(path, top, length) == 0 && path[length] == '/';
}

/* A link or ".." could lead a client from the writable export into the read-only one. */
static int check_exports(struct parser *p)
{
    for (size_t i = 0; i < p->key->n_exports; i++)
        for (size_t j = 0; j < p->key->n_exports; j++)
            if (p->key->exports[i].read_only && !p->key->exports[j].read_only &&
                is_below(p->key->exports[i].path, p->key->exports[j].path))
                return complain_at(p, p->section_line, "client %s has a read-only export below a writable one",
                                   p->key->name);
    return 0;
}

static int end_section(struct parser *p)
{
    static const struct {
        enum member member;
        const char *name;
    } needed[] = {{MEMBER_KEY, "key"}, {MEMBER_UID, "uid"}, {MEMBER_GID, "gid"}, {MEMBER_EXPORT, "export"}};

    if (!p->key)
        return 0;
    for (size_t i = 0; i < (p->kind == KEY_FILE_SERVER ? 4 : 1); i++)
        if (!(p->seen & needed[i].member))
            return complain_at(p, p->section_line, "client %s has no %s", p->key->name, needed[i].name);
    return check_exports(p);
}

static int add_key(struct parser *p, struct word name)
{
    struct client_key **larger, *key;

    if (p->set->n_keys == (p->kind == KEY_FILE_SERVER ? KEY_CLIENTS_MAX : 1))
        return complain_at(p, p->line, "more than %u clients", p->kind == KEY_FILE_SERVER ? KEY_CLIENTS_MAX : 1);
    larger = realloc(p->set->keys, (p->set->n_keys + 1) * sizeof(struct client_key *));
    if (!larger)
        return -ENOMEM;
    p->set->keys = larger;
    key = calloc(1, sizeof(*key));
    if (!key)
        return -ENOMEM;
    atomic_init(&key->refs, 1);
    memcpy(key->name, name.start, name.length);
    p->set->keys[p->set->n_keys++] = p->key = key;
    p->seen = 0;
    p->section_line = p->line;
    return 0;
}

static int take_section(struct parser *p, struct word line)
{
    struct word inner = {line.start + 1, line.length - 2}, name;
    int error = end_section(p);

    if (error)
        return error;
    if (line.start[line.length - 1] != ']' || line.length < 2)
        return complain_at(p, p->line, "a section is [client NAME]");
    inner = trim(inner);
    if (inner.length < 7 || memcmp(inner.start, "client", 6) != 0 || !is_blank(inner.start[6]))
        return complain_at(p, p->line, "unknown section: a section is [client NAME]");
    name = trim((struct word){inner.start + 6, inner.length - 6});
    if (!key_name_valid(name.start, name.length))
        return complain_at(p, p->line, "a client's name is 1 to %u of A-Z a-z 0-9 . _ @ -", KEY_NAME_MAX);
    if (key_set_find(p->set, name.start, name.length))
        return complain_at(p, p->line, "client %.*s is there already", (int)name.length, name.start);
    return add_key(p, name);
}

static int take_groups(struct parser *p, struct word value)
{
    gid_t groups[KEY_GROUPS_MAX];
    size_t count = 0;

    while (value.length) {
        const char *comma = memchr(value.start, ',', value.length);
        size_t length = comma ? (size_t)(comma - value.start) : value.length;

        if (count == KEY_GROUPS_MAX)
            return complain_at(p, p->line, "more than %u groups", KEY_GROUPS_MAX);
        if (!parse_id(trim((struct word){value.start, length}), &groups[count++]))
            return complain_at(p, p->line, "gids are numbers with commas between them");
        value = (struct word){value.start + length + !!comma, value.length - length - !!comma};
        if (comma && !trim(value).length)
            return complain_at(p, p->line, "gids are numbers with commas between them");
    }
    if (!count)
        return complain_at(p, p->line, "gids are numbers with commas between them");
    p->key->groups = malloc(count * sizeof(*groups));
    if (!p->key->groups)
        return -ENOMEM;
    memcpy(p->key->groups, groups, count * sizeof(*groups));
    p->key->n_groups = count;
    return 0;
}

static int take_export(struct parser *p, struct word value)
{
    struct client_key *key = p->key;
    struct path_export export, *larger;
    int error;

    if (key->n_exports == KEY_EXPORTS_MAX)
        return complain_at(p, p->line, "more than %u exports", KEY_EXPORTS_MAX);
    error = path_export_parse(value.start, value.length, &export);
    if (error == -EINVAL)
        return complain_at(p, p->line, "an export is /PATH or /PATH:ro, without \".\" and \"..\"");
    if (error)
        return error;
    for (size_t i = 0; i < key->n_exports; i++) {
        if (strcmp(key->exports[i].path, export.path) == 0) {
            free(export.path);
            return complain_at(p, p->line, "this export is there already");
        }
    }
    larger = realloc(key->exports, (key->n_exports + 1) * sizeof(*larger));
    if (!larger) {
        free(export.path);
        return -ENOMEM;
    }
    key->exports = larger;
    key->exports[key->n_exports++] = export;
    return 0;
}

static int take_value(struct parser *p, enum member member, struct word value)
{
    switch (member) {
    case MEMBER_KEY:
        /* The value is not quoted: logs are read by others. */
        return parse_secret(value, p->key)
                   ? 0
                   : complain_at(p, p->line, "a key is %u to %u hexadecimal digits, an even number", 2 * KEY_SECRET_MIN,
                                 2 * KEY_SECRET_MAX);
    case MEMBER_UID:
        return parse_id(value, &p->key->uid) ? 0 : complain_at(p, p->line, "a uid is a number below %u", UINT32_MAX);
    case MEMBER_GID:
        return parse_id(value, &p->key->gid) ? 0 : complain_at(p, p->line, "a gid is a number below %u", UINT32_MAX);
    case MEMBER_GIDS:
        return take_groups(p, value);
    case MEMBER_EXPORT:
        return take_export(p, value);
    }
    return -EINVAL;
}

static int take_member(struct parser *p, struct word line)
{
    static const struct {
        const char *name;
        enum member member;
    } members[] = {{"key", MEMBER_KEY},
                   {"uid", MEMBER_UID},
                   {"gid", MEMBER_GID},
                   {"gids", MEMBER_GIDS},
                   {"export", MEMBER_EXPORT}};
    size_t n_members = p->kind == KEY_FILE_SERVER ? sizeof(members) / sizeof(members[0]) : 1;
    const char *equals = memchr(line.start, '=', line.length);
    struct word name, value;

    if (!equals)
        return complain_at(p, p->line, "neither [client NAME] nor NAME = VALUE");
    if (!p->key)
        return complain_at(p, p->line, "there is no [client NAME] above this line");
    name = trim((struct word){line.start, (size_t)(equals - line.start)});
    value = trim((struct word){equals + 1, line.length - (size_t)(equals + 1 - line.start)});
    for (size_t i = 0; i < n_members; i++) {
        if (!word_is(name, members[i].name))
            continue;
        if ((p->seen & members[i].member) && members[i].member != MEMBER_EXPORT)
            return complain_at(p, p->line, "%s is there twice", members[i].name);
        p->seen |= members[i].member;
        return take_value(p, members[i].member, value);
    }
    return complain_at(p, p->line, "unknown: there is %s",
                       p->kind == KEY_FILE_SERVER ? "key, uid, gid, gids and export" : "key alone in a client's file");
}

static int take_line(struct parser *p, struct word line)
{
    if (line.length && line.start[line.length - 1] == '\r')
        line.length--;
    for (size_t i = 0; i < line.length; i++)
        if (((unsigned char)line.start[i] < ' ' && line.start[i] != '\t') || line.start[i] == 0x7f)
            return complain_at(p, p->line, "a control character");
    line = trim(line);
    if (!line.length || line.start[0] == '#' || line.start[0] == ';')
        return 0;
    return line.start[0] == '[' ? take_section(p, line) : take_member(p, line);
}

int key_file_parse(const char *text, size_t length, enum key_file_kind kind, struct key_set **ret_set, char **ret_why)
{
    struct parser p = {.kind = kind, .set = calloc(1, sizeof(*p.set))};
    int error = p.set ? 0 : -ENOMEM;

    *ret_why = NULL;
    while (!error && length) {
        const char *newline = memchr(text, '\n', length);
        struct word line = {text, newline ? (size_t)(newline - text) : length};

        p.line++;
        error = take_line(&p, line);
        text += line.length + !!newline;
        length -= line.length + !!newline;
    }
    if (!error)
        error = end_section(&p);
    if (!error && kind == KEY_FILE_CLIENT && !p.set->n_keys)
        error = complain_at(&p, p.line ? p.line : 1, "no [client NAME] and key");
    if (error) {
        key_set_free(p.set);
        *ret_why = p.why;
        return error;
    }
    *ret_set = p.set;
    return 0;
}

__attribute__((format(printf, 3, 4))) static int explain(char **ret_why, int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (vasprintf(ret_why, format, args) < 0)
        *ret_why = NULL;
    va_end(args);
    return error;
}

static int check_file(int fd, const char *path, char **ret_why)
{
    struct stat st;

    if (fstat(fd, &st))
        return explain(ret_why, -errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return explain(ret_why, -EINVAL, "%s: not a regular file", path);
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return explain(ret_why, -EACCES, "%s: belongs to uid %u, who could change it: chown it", path, st.st_uid);
    if (st.st_mode & 077)
        return explain(ret_why, -EACCES, "%s: others may read or write it, and so have its keys: chmod 600 %s", path,
                       path);
    if (st.st_size > KEY_FILE_MAX)
        return explain(ret_why, -EFBIG, "%s: larger than %u bytes", path, KEY_FILE_MAX);
    return 0;
}

/* At most KEY_FILE_MAX bytes, though the file may grow meanwhile. */
static int read_all(int fd, char *text, size_t *ret_length)
{
    size_t length = 0;
    ssize_t got;

    while (length < KEY_FILE_MAX && (got = read(fd, text + length, KEY_FILE_MAX - length)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        length += (size_t)got;
    }
    *ret_length = length;
    return 0;
}

int key_file_read(const char *path, enum key_file_kind kind, struct key_set **ret_set, char **ret_why)
{
    int error, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    char *text = NULL, *why = NULL;
    size_t length = 0;

    *ret_why = NULL;
    if (fd < 0)
        return explain(ret_why, -errno, "%s: %s", path, strerror(errno));
    error = check_file(fd, path, ret_why);
    if (!error && !(text = malloc(KEY_FILE_MAX)))
        error = -ENOMEM;
    if (!error) {
        error = read_all(fd, text, &length);
        if (error)
            explain(ret_why, error, "%s: %s", path, strerror(-error));
    }
    close(fd);
    if (!error) {
        error = key_file_parse(text, length, kind, ret_set, &why);
        if (why)
            explain(ret_why, error, "%s: %s", path, why);
    }
    free(why);
    if (text)
        explicit_bzero(text, length);
    free(text);
    return error;
}
