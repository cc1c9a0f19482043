/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_JSON_LINE_H
#define LEASEFS_LEASE_JSON_LINE_H

/* Reading a message, which most of the time is nothing but small objects of numbers and plain words. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL) gives, as a rule in a fifth of the time. */
json_t *json_line_load(const char *text, size_t length);

#define JSON_LINE_NUMBER 20 /* characters of a number, at most */

/* Writes a number, or ,"NAME":NUMBER, without a NUL. Where it ends. */
char *json_line_put_number(char *at, int64_t number);
char *json_line_put_member(char *at, const char *name, uint64_t number); /* at most INT64_MAX */

/* Is it the same in JSON, between quotes? */
bool json_line_is_plain(const char *text);

/* A member of an object, as it stands in the message: no memory is taken, and all of it is as long-lived as the text.
 */
enum json_line_kind {
    JSON_LINE_INTEGER,
    JSON_LINE_WORD,   /* a string of plain characters */
    JSON_LINE_NESTED, /* an object or array, which nobody has looked into: it may be none after all */
};

struct json_line_member {
    const char *name; /* ends with its length, as do the others */
    size_t name_length;
    enum json_line_kind kind;
    const char *text; /* of a word, without its quotes; of what is nested, with its brackets */
    size_t length;
    int64_t number;
};

/* The members of an object, no two of the same name. How many; -1: more than max, or something that wants thought: read
 * it by json_line_load(), which knows whether it is wrong. */
int json_line_members(const char *text, size_t length, struct json_line_member *ret_members, size_t max);

/* The same of an object that was read; what is neither a number nor a string counts as nested, without a text. */
int json_line_members_of(const json_t *object, struct json_line_member *ret_members, size_t max);

/* The one of this name, or NULL. */
const struct json_line_member *json_line_find(const struct json_line_member *members, size_t count, const char *name);

#endif
