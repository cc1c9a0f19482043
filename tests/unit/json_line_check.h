/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TEST_JSON_LINE_CHECK_H
#define LEASEFS_TEST_JSON_LINE_CHECK_H

#include <string.h>

#include "lease/json_line.h"

static inline bool is_same_member(const struct json_line_member *member, const json_t *value)
{
    switch (member->kind) {
    case JSON_LINE_INTEGER:
        return json_is_integer(value) && json_integer_value(value) == member->number;
    case JSON_LINE_WORD:
        return json_is_string(value) && json_string_length(value) == member->length &&
               !memcmp(json_string_value(value), member->text, member->length);
    case JSON_LINE_NESTED:
        break;
    }
    json_t *nested = json_loadb(member->text, member->length, JSON_REJECT_DUPLICATES, NULL);
    bool same = (json_is_object(nested) || json_is_array(nested)) && json_equal(nested, value);

    json_decref(nested);
    return same;
}

/* What json_line_members() makes of a text, of which jansson makes `theirs` (or NULL). Nobody looks into what is
 * nested, so that alone may be wrong. */
static inline bool members_agree(const char *text, size_t length, const json_t *theirs)
{
    struct json_line_member members[8];
    int n = json_line_members(text, length, members, 8);
    bool nested = false;

    if (n < 0)
        return true;
    for (int i = 0; i < n; i++) {
        nested |= members[i].kind == JSON_LINE_NESTED;
        if (theirs && (!is_same_member(&members[i], json_object_getn(theirs, members[i].name, members[i].name_length))))
            return false;
    }
    return theirs ? json_object_size(theirs) == (size_t)n : nested;
}

#endif
