/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/leasectl/units.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char prefixes[] = "KMGTPE";

/* Digits only: no sign, no blanks, which strtoull() would take. */
static int parse_digits(const char *text, const char **ret_end, uint64_t *ret_number)
{
    char *end;
    uint64_t number;

    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    errno = 0;
    number = strtoull(text, &end, 10);
    if (errno)
        return -ERANGE;
    *ret_end = end;
    *ret_number = number;
    return 0;
}

/* The suffix's power of 1024, as a shift; -EINVAL. */
static int parse_suffix(const char *text)
{
    const char *prefix;

    if (!*text)
        return 0;
    prefix = strchr(prefixes, toupper((unsigned char)*text));
    if (!prefix || (text[1] && strcasecmp(text + 1, "B") && strcasecmp(text + 1, "iB")))
        return -EINVAL;
    return 10 * (int)(prefix - prefixes + 1);
}

int parse_size(const char *text, uint64_t *ret_bytes)
{
    const char *end;
    uint64_t number;
    int shift, status = parse_digits(text, &end, &number);

    if (status)
        return status;
    shift = parse_suffix(end);
    if (shift < 0)
        return shift;
    if (number > (uint64_t)INT64_MAX >> shift)
        return -ERANGE;
    *ret_bytes = number << shift;
    return 0;
}

int parse_range(const char *text, uint64_t *ret_offset, uint64_t *ret_length)
{
    const char *colon = strchr(text, ':');
    uint64_t offset, length = 0;
    char first[32];
    int status;

    if (!colon)
        colon = text + strlen(text);
    if ((size_t)(colon - text) >= sizeof(first))
        return -EINVAL;
    memcpy(first, text, (size_t)(colon - text));
    first[colon - text] = '\0';
    status = parse_size(first, &offset);
    if (!status && *colon && colon[1])
        status = parse_size(colon + 1, &length);
    if (status)
        return status;
    if (length > INT64_MAX - offset)
        return -ERANGE;
    *ret_offset = offset;
    *ret_length = length;
    return 0;
}

int parse_seconds(const char *text, uint64_t *ret_ms)
{
    const char *end;
    uint64_t seconds, ms = 0;
    int status = parse_digits(text, &end, &seconds);

    if (status)
        return status;
    if (*end == '.') {
        unsigned scale = 100;

        if (!isdigit((unsigned char)*++end))
            return -EINVAL;
        for (; isdigit((unsigned char)*end); end++, scale /= 10)
            ms += (uint64_t)(*end - '0') * scale;
    }
    if (*end)
        return -EINVAL;
    if (seconds > 366 * 86400)
        return -ERANGE;
    *ret_ms = seconds * 1000 + ms;
    return 0;
}

int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number)
{
    const char *end;
    uint64_t number;
    int status = parse_digits(text, &end, &number);

    if (status)
        return status;
    if (*end)
        return -EINVAL;
    if (number < min || number > max)
        return -ERANGE;
    *ret_number = number;
    return 0;
}

char *format_size(uint64_t bytes, char *text, size_t size)
{
    double value = (double)bytes;
    int power = 0;

    if (bytes < 1024) {
        snprintf(text, size, "%u B", (unsigned)bytes);
        return text;
    }
    /* The limit is where rounding to one digit would show 1024.0. */
    while (value >= 1023.95 && prefixes[power]) {
        value /= 1024;
        power++;
    }
    snprintf(text, size, "%.1f %ciB", value, prefixes[power - 1]);
    return text;
}

int parse_policy(const char *text, enum leasefs_policy *ret_policy)
{
    static const char *const names[] = {
        [LEASEFS_POLICY_RECALL] = "recall", [LEASEFS_POLICY_BUSY] = "busy", [LEASEFS_POLICY_ORPHAN] = "orphan"};

    for (int i = LEASEFS_POLICY_RECALL; i <= LEASEFS_POLICY_ORPHAN; i++) {
        if (!strcmp(text, names[i])) {
            *ret_policy = (enum leasefs_policy)i;
            return 0;
        }
    }
    return -EINVAL;
}
