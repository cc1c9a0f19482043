/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * jansson fetches each byte by a callback, checks it, and copies it twice: a lease waits for that longer than for all
 * that is done about it. Here the objects are made at once of what needs no thought. Anything else is jansson's:
 * escapes, bytes beyond ASCII, fractions, numbers that do not fit, whitespace but spaces, all that may be
 * wrong.
 */
#include "lease/json_line.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MAX_DEPTH  4
#define MAX_DIGITS 19 /* of INT64_MAX */

struct reader {
    const char *at, *end;
};

static char next(const struct reader *reader)
{
    return reader->at < reader->end ? *reader->at : '\0';
}

static void skip_spaces(struct reader *reader)
{
    while (next(reader) == ' ')
        reader->at++;
}

static bool take(struct reader *reader, char wanted)
{
    skip_spaces(reader);
    if (next(reader) != wanted)
        return false;
    reader->at++;
    return true;
}

/* What stands in a string as it is. */
static const bool plain[256] = {[' ' ... '!'] = true, ['#' ... '['] = true, [']' ... '~'] = true};

static bool is_plain(char c)
{
    return plain[(unsigned char)c];
}

/* Behind its first quote. */
static bool take_characters(struct reader *reader, const char **ret_text, size_t *ret_length)
{
    const char *start = reader->at, *at = start, *end = reader->end;

    while (at < end && is_plain(*at))
        at++;
    if (at == end || *at != '"')
        return false;
    *ret_text = start;
    *ret_length = (size_t)(at - start);
    reader->at = at + 1;
    return true;
}

static json_t *read_string(struct reader *reader)
{
    const char *text;
    size_t length;

    reader->at++;
    return take_characters(reader, &text, &length) ? json_stringn_nocheck(text, length) : NULL;
}

static bool take_number(struct reader *reader, int64_t *ret_number)
{
    bool negative = next(reader) == '-';
    uint64_t value = 0;
    const char *start;

    reader->at += negative;
    start = reader->at;
    while (next(reader) >= '0' && next(reader) <= '9' && reader->at - start < MAX_DIGITS)
        value = value * 10 + (uint64_t)(*reader->at++ - '0');
    /* What goes on after it, by another digit or a point, is no end of a member. */
    if (reader->at == start || (*start == '0' && (negative || reader->at - start > 1)) || value > INT64_MAX)
        return false;
    *ret_number = negative ? -(int64_t)value : (int64_t)value;
    return true;
}

static json_t *read_number(struct reader *reader)
{
    int64_t number;

    return take_number(reader, &number) ? json_integer(number) : NULL;
}

static bool take_word(struct reader *reader, const char *word, size_t length)
{
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0)
        return false;
    reader->at += length;
    return true;
}

static json_t *read_object(struct reader *reader, unsigned depth);
static json_t *read_array(struct reader *reader, unsigned depth);

static json_t *read_value(struct reader *reader, unsigned depth)
{
    skip_spaces(reader);
    switch (next(reader)) {
    case '"':
        return read_string(reader);
    case '{':
        return read_object(reader, depth + 1);
    case '[':
        return read_array(reader, depth + 1);
    case 't':
        return take_word(reader, "true", 4) ? json_true() : NULL;
    case 'f':
        return take_word(reader, "false", 5) ? json_false() : NULL;
    case 'n':
        return take_word(reader, "null", 4) ? json_null() : NULL;
    default:
        return read_number(reader);
    }
}

static bool read_member(struct reader *reader, json_t *object, unsigned depth)
{
    size_t length, before = json_object_size(object);
    const char *key;
    json_t *value;

    if (!take(reader, '"') || !take_characters(reader, &key, &length) || !take(reader, ':'))
        return false;
    value = read_value(reader, depth);
    /* One that replaces another is a duplicate. */
    return value && !json_object_setn_new_nocheck(object, key, length, value) && json_object_size(object) > before;
}

static bool read_element(struct reader *reader, json_t *array, unsigned depth)
{
    return !json_array_append_new(array, read_value(reader, depth)); /* NULL is refused */
}

/* Steals the whole, which may be NULL. Behind its first bracket. */
static json_t *read_rest(struct reader *reader, json_t *whole, char end, unsigned depth,
                         bool (*read_one)(struct reader *reader, json_t *whole, unsigned depth))
{
    if (take(reader, end))
        return whole;
    if (!whole || depth > MAX_DEPTH)
        goto undo_whole;
    do {
        if (!read_one(reader, whole, depth))
            goto undo_whole;
    } while (take(reader, ','));
    if (take(reader, end))
        return whole;

undo_whole:
    json_decref(whole);
    return NULL;
}

static json_t *read_object(struct reader *reader, unsigned depth)
{
    return take(reader, '{') ? read_rest(reader, json_object(), '}', depth, read_member) : NULL;
}

static json_t *read_array(struct reader *reader, unsigned depth)
{
    return take(reader, '[') ? read_rest(reader, json_array(), ']', depth, read_element) : NULL;
}

json_t *json_line_load(const char *text, size_t length)
{
    struct reader reader = {text, text + length};
    json_t *object = read_object(&reader, 0);

    skip_spaces(&reader);
    if (object && reader.at == reader.end)
        return object;
    json_decref(object);
    return json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
}

/* ---- without objects ---- */

char *json_line_put_number(char *at, int64_t number)
{
    char digits[JSON_LINE_NUMBER], *first = digits + sizeof(digits);
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;

    do
        *--first = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0)
        *at++ = '-';
    return mempcpy(at, first, (size_t)(digits + sizeof(digits) - first));
}

char *json_line_put_member(char *at, const char *name, uint64_t number)
{
    return json_line_put_number(stpcpy(stpcpy(stpcpy(at, ",\""), name), "\":"), (int64_t)number);
}

bool json_line_is_plain(const char *text)
{
    while (is_plain(*text))
        text++;
    return !*text;
}

/* To the bracket that closes the one it is at. */
static bool take_nested(struct reader *reader, const char **ret_text, size_t *ret_length)
{
    const char *start = reader->at, *text;
    unsigned depth = 0;
    size_t length;

    while (reader->at < reader->end) {
        char c = *reader->at++;

        if (c == '"') {
            if (!take_characters(reader, &text, &length))
                return false;
        } else if (!is_plain(c)) {
            return false;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if ((c == '}' || c == ']') && --depth == 0) {
            *ret_text = start;
            *ret_length = (size_t)(reader->at - start);
            return true;
        }
    }
    return false;
}

static bool take_member(struct reader *reader, struct json_line_member *ret_member)
{
    *ret_member = (struct json_line_member){0};
    if (!take(reader, '"') || !take_characters(reader, &ret_member->name, &ret_member->name_length) ||
        !take(reader, ':'))
        return false;
    skip_spaces(reader);
    switch (next(reader)) {
    case '"':
        reader->at++;
        ret_member->kind = JSON_LINE_WORD;
        return take_characters(reader, &ret_member->text, &ret_member->length);
    case '{':
    case '[':
        ret_member->kind = JSON_LINE_NESTED;
        return take_nested(reader, &ret_member->text, &ret_member->length);
    default:
        ret_member->kind = JSON_LINE_INTEGER;
        return take_number(reader, &ret_member->number);
    }
}

static const struct json_line_member *find(const struct json_line_member *members, size_t count, const char *name,
                                           size_t length)
{
    for (size_t i = 0; i < count; i++)
        if (members[i].name_length == length && !memcmp(members[i].name, name, length))
            return &members[i];
    return NULL;
}

int json_line_members(const char *text, size_t length, struct json_line_member *ret_members, size_t max)
{
    struct reader reader = {text, text + length};
    size_t n = 0;

    if (!take(&reader, '{'))
        return -1;
    if (!take(&reader, '}')) {
        do {
            if (n == max || !take_member(&reader, &ret_members[n]) ||
                find(ret_members, n, ret_members[n].name, ret_members[n].name_length))
                return -1;
            n++;
        } while (take(&reader, ','));
        if (!take(&reader, '}'))
            return -1;
    }
    skip_spaces(&reader);
    return reader.at == reader.end ? (int)n : -1;
}

int json_line_members_of(const json_t *object, struct json_line_member *ret_members, size_t max)
{
    size_t n = 0;
    const char *name;
    json_t *value;

    if (json_object_size(object) > max)
        return -1;
    json_object_foreach((json_t *)object, name, value)
    {
        struct json_line_member *member = &ret_members[n++];

        *member = (struct json_line_member){.name = name, .name_length = strlen(name), .kind = JSON_LINE_NESTED};
        if (json_is_integer(value)) {
            member->kind = JSON_LINE_INTEGER;
            member->number = json_integer_value(value);
        } else if (json_is_string(value)) {
            member->kind = JSON_LINE_WORD;
            member->text = json_string_value(value);
            member->length = json_string_length(value);
        }
    }
    return (int)n;
}

const struct json_line_member *json_line_find(const struct json_line_member *members, size_t count, const char *name)
{
    return find(members, count, name, strlen(name));
}
