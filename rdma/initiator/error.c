/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <leasefs/leasefs.h>
#include <leasefs/protocol.h>

#define LARGEST_ERRNO 133 /* EHWPOISON */

static _Thread_local char sentence[768];
static _Thread_local char data[1536];

const char *leasefs_error(void)
{
    return sentence[0] ? sentence : "no error";
}

const char *leasefs_error_data(void)
{
    return data[0] ? data : NULL;
}

int error_set(int status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    data[0] = '\0';
    return status;
}

int error_from_name(const char *name)
{
    for (int number = 1; number <= LARGEST_ERRNO; number++) {
        const char *known = strerrorname_np(number);

        if (known && !strcmp(known, name))
            return -number;
    }
    return 0;
}

/* A message may quote a path: no control characters reach a terminal. */
static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

static int status_of_code(json_int_t code)
{
    switch (code) {
    case LEASEFS_RPC_METHOD_NOT_FOUND:
        return -EOPNOTSUPP;
    case LEASEFS_RPC_INVALID_PARAMS:
        return -EINVAL;
    default:
        return -EPROTO;
    }
}

int error_from_server(const char *method, const json_t *error)
{
    const json_t *details = json_object_get(error, "data");
    const char *message = json_string_value(json_object_get(error, "message"));
    const char *remedy = json_string_value(json_object_get(details, "remedy"));
    const char *name = json_string_value(json_object_get(details, "errno"));
    int status = name ? error_from_name(name) : 0;
    size_t length;

    if (!status)
        status = status_of_code(json_integer_value(json_object_get(error, "code")));
    if (!message)
        message = "refused without a reason";
    length = strlen(message);
    error_set(status, "%s: %s%s%s", method, message,
              remedy && *remedy ? (length && message[length - 1] == '.' ? " " : ". ") : "", remedy ? remedy : "");
    make_printable(sentence);
    if (json_is_object(details)) {
        size_t size = json_dumpb(details, data, sizeof(data) - 1, JSON_COMPACT);

        data[size < sizeof(data) ? size : 0] = '\0';
    }
    return status;
}
