/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/jsonrpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lease/json_line.h"
#include <leasefs/protocol.h>

int jsonrpc_parse(const char *line, size_t length, struct jsonrpc_request *ret_request, const char **ret_why)
{
    const char *version;
    json_t *method;

    *ret_request = (struct jsonrpc_request){0};
    ret_request->message = json_line_load(line, length);
    if (!ret_request->message) {
        *ret_why = "not one JSON value on one line";
        return LEASEFS_RPC_PARSE_ERROR;
    }
    *ret_why = "not a JSON-RPC 2.0 request: an object with jsonrpc, method, params (an object) and id";
    if (!json_is_object(ret_request->message))
        return LEASEFS_RPC_INVALID_REQUEST;
    ret_request->id = json_object_get(ret_request->message, "id");
    if (ret_request->id && !json_is_integer(ret_request->id) && !json_is_string(ret_request->id) &&
        !json_is_null(ret_request->id)) {
        ret_request->id = NULL;
        return LEASEFS_RPC_INVALID_REQUEST;
    }
    version = json_string_value(json_object_get(ret_request->message, "jsonrpc"));
    method = json_object_get(ret_request->message, "method");
    ret_request->params = json_object_get(ret_request->message, "params");
    if (!version || strcmp(version, "2.0") != 0 || !json_is_string(method) ||
        strlen(json_string_value(method)) != json_string_length(method) ||
        (ret_request->params && !json_is_object(ret_request->params)))
        return LEASEFS_RPC_INVALID_REQUEST;
    ret_request->method = json_string_value(method);
    return 0;
}

static json_t *reply(json_t *id, const char *key, json_t *value)
{
    json_t *message = json_object();

    if (!message || !value || json_object_set_new(message, "jsonrpc", json_string("2.0")) ||
        json_object_set_new(message, "id", id ? json_deep_copy(id) : json_null())) {
        json_decref(message);
        json_decref(value);
        return NULL;
    }
    if (json_object_set_new(message, key, value)) {
        json_decref(message);
        return NULL;
    }
    return message;
}

json_t *jsonrpc_result(json_t *id, json_t *result)
{
    return reply(id, "result", result);
}

char *jsonrpc_line(const json_t *message)
{
    char usual[1024]; /* most messages fit: they are put into words once, not twice */
    size_t length = json_dumpb(message, usual, sizeof(usual), JSON_COMPACT);
    char *line = length ? malloc(length + 2) : NULL;

    if (!line)
        return NULL;
    if (length <= sizeof(usual)) {
        memcpy(line, usual, length);
    } else if (json_dumpb(message, line, length, JSON_COMPACT) != length) {
        free(line);
        return NULL;
    }
    strcpy(line + length, "\n");
    return line;
}

char *jsonrpc_result_line(const json_t *id, const char *result)
{
    static const char format[] = "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":%s}\n";
    char number[24], *other = NULL, *line;
    const char *words = number;
    size_t size;

    if (json_is_integer(id))
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(id));
    else if (!(words = other = json_dumps(id, JSON_COMPACT | JSON_ENCODE_ANY)))
        return NULL;
    size = sizeof(format) + strlen(words) + strlen(result);
    line = malloc(size);
    if (line)
        snprintf(line, size, format, words, result);
    free(other);
    return line;
}

json_t *jsonrpc_error(json_t *id, int code, const char *message, json_t *data)
{
    return reply(id, "error", json_pack("{s:i, s:s, s:o*}", "code", code, "message", message, "data", data));
}

json_t *jsonrpc_notification(const char *method, json_t *params)
{
    return json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", method, "params", params);
}

const char *jsonrpc_errno_name(int error)
{
    const char *name = strerrorname_np(abs(error));

    return name ? name : "EIO";
}

enum jsonrpc_member jsonrpc_get_uint(const json_t *params, const char *name, uint64_t max, uint64_t *ret_value)
{
    const json_t *value = json_object_get(params, name);

    if (!value)
        return JSONRPC_ABSENT;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max)
        return JSONRPC_WRONG;
    *ret_value = (uint64_t)json_integer_value(value);
    return JSONRPC_FOUND;
}

enum jsonrpc_member jsonrpc_get_bool(const json_t *params, const char *name, bool *ret_value)
{
    const json_t *value = json_object_get(params, name);

    if (!value)
        return JSONRPC_ABSENT;
    if (!json_is_boolean(value))
        return JSONRPC_WRONG;
    *ret_value = json_is_true(value);
    return JSONRPC_FOUND;
}

enum jsonrpc_member jsonrpc_get_string(const json_t *params, const char *name, size_t max, const char **ret_value)
{
    const json_t *value = json_object_get(params, name);

    if (!value)
        return JSONRPC_ABSENT;
    if (!json_is_string(value) || json_string_length(value) > max ||
        strlen(json_string_value(value)) != json_string_length(value)) /* a NUL inside */
        return JSONRPC_WRONG;
    *ret_value = json_string_value(value);
    return JSONRPC_FOUND;
}
