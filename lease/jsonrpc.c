/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/jsonrpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lease/json_line.h"
#include <leasefs/protocol.h>

static void set_method(struct jsonrpc_request *request, const char *method, size_t length)
{
    size_t fits = length < sizeof(request->method) ? length : sizeof(request->method) - 1;

    memcpy(request->method, method, fits);
    request->method[fits] = '\0';
}

static bool is_version(const char *version, size_t length)
{
    return length == 3 && !memcmp(version, "2.0", 3);
}

/* As most are: then there need be objects of the parameters only. False: it is not, and nothing was changed. */
static bool parse_plain(const char *line, size_t length, struct jsonrpc_request *request)
{
    struct json_line_member members[4];
    int n = json_line_members(line, length, members, 4);
    size_t count = n < 0 ? 0 : (size_t)n;
    const struct json_line_member *version = json_line_find(members, count, "jsonrpc"),
                                  *method = json_line_find(members, count, "method"),
                                  *params = json_line_find(members, count, "params"),
                                  *id = json_line_find(members, count, "id");

    if (!version || version->kind != JSON_LINE_WORD || !is_version(version->text, version->length) || !method ||
        method->kind != JSON_LINE_WORD || (id && id->kind != JSON_LINE_INTEGER) ||
        (params && (params->kind != JSON_LINE_NESTED || *params->text != '{')))
        return false;
    if (params && !(request->params = json_line_load(params->text, params->length)))
        return false;
    if (id && !(request->id = json_integer(id->number))) {
        jsonrpc_request_clear(request);
        return false;
    }
    set_method(request, method->text, method->length);
    return true;
}

static bool id_is_valid(const json_t *id)
{
    return !id || json_is_integer(id) || json_is_string(id) || json_is_null(id);
}

static int take_parts(const json_t *message, struct jsonrpc_request *request)
{
    const json_t *version = json_object_get(message, "jsonrpc"), *method = json_object_get(message, "method");
    json_t *params = json_object_get(message, "params"), *id = json_object_get(message, "id");

    if (!json_is_object(message) || !id_is_valid(id))
        return LEASEFS_RPC_INVALID_REQUEST;
    request->id = json_incref(id);
    if (!json_is_string(version) || !is_version(json_string_value(version), json_string_length(version)) ||
        !json_is_string(method) || strlen(json_string_value(method)) != json_string_length(method) ||
        (params && !json_is_object(params)))
        return LEASEFS_RPC_INVALID_REQUEST;
    request->params = json_incref(params);
    set_method(request, json_string_value(method), json_string_length(method));
    return 0;
}

int jsonrpc_parse(const char *line, size_t length, struct jsonrpc_request *ret_request, const char **ret_why)
{
    json_t *message;
    int code;

    *ret_request = (struct jsonrpc_request){0};
    if (parse_plain(line, length, ret_request))
        return 0;
    message = json_line_load(line, length);
    if (!message) {
        *ret_why = "not one JSON value on one line";
        return LEASEFS_RPC_PARSE_ERROR;
    }
    code = take_parts(message, ret_request);
    if (code)
        *ret_why = "not a JSON-RPC 2.0 request: an object with jsonrpc, method, params (an object) and id";
    json_decref(message);
    return code;
}

void jsonrpc_request_clear(struct jsonrpc_request *request)
{
    json_decref(request->id);
    json_decref(request->params);
    request->id = request->params = NULL;
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
    static const char begin[] = "{\"jsonrpc\":\"2.0\",\"id\":", middle[] = ",\"result\":", end[] = "}\n";
    char number[JSON_LINE_NUMBER + 1], *other = NULL, *line;
    const char *words = number;

    if (json_is_integer(id))
        *json_line_put_number(number, json_integer_value(id)) = '\0';
    else if (!(words = other = json_dumps(id, JSON_COMPACT | JSON_ENCODE_ANY)))
        return NULL;
    line = malloc(sizeof(begin) + strlen(words) + sizeof(middle) + strlen(result) + sizeof(end));
    if (line)
        stpcpy(stpcpy(stpcpy(stpcpy(stpcpy(line, begin), words), middle), result), end);
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
