/* SPDX-License-Identifier: BSD-2-Clause */
/* One line of the wire, in any form: parsed, its parameters taken in every way, answered, and the answer parsed. */
#include <stdlib.h>
#include <string.h>

#include "json_line_check.h"
#include "lease/jsonrpc.h"
#include <leasefs/protocol.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void take_members(const json_t *params)
{
    const char *const names[] = {"lease", "path", "mode", "offset", "length", "prepare", "sequence", "nothing"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        uint64_t number = 12345;
        const char *text = NULL;
        bool truth = false;

        if (jsonrpc_get_uint(params, names[i], INT64_MAX, &number) == JSONRPC_FOUND)
            must(number <= INT64_MAX);
        else
            must(number == 12345);
        if (jsonrpc_get_string(params, names[i], LEASEFS_MAX_PATH, &text) == JSONRPC_FOUND)
            must(strlen(text) <= LEASEFS_MAX_PATH);
        else
            must(!text);
        jsonrpc_get_bool(params, names[i], &truth);
    }
}

/* What is sent is one line that a client can read, and carries the id as it came. */
static void check_answer(json_t *answer, const json_t *id)
{
    char *text = json_dumps(answer, JSON_COMPACT);
    json_t *again;

    must(answer && text && !strchr(text, '\n'));
    again = json_loads(text, 0, NULL);
    must(again && json_equal(again, answer));
    must(!id || json_equal(json_object_get(again, "id"), id));
    json_decref(again);
    json_decref(answer);
    free(text);
}

/* It never takes what jansson would not, and makes the same of the rest. */
static void check_reader(const char *text, size_t size)
{
    json_t *ours = json_line_load(text, size), *theirs = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);

    must(ours == theirs || json_equal(ours, theirs));
    must(members_agree(text, size, theirs));
    json_decref(ours);
    json_decref(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jsonrpc_request request;
    const char *why = NULL;
    int code = jsonrpc_parse((const char *)data, size, &request, &why);

    if (code) {
        must(why != NULL);
        check_answer(jsonrpc_error(request.id, code, why, NULL), request.id);
    } else {
        must(strlen(request.method) < sizeof(request.method) && (!request.params || json_is_object(request.params)));
        take_members(request.params);
        check_answer(jsonrpc_result(request.id, json_object()), request.id);
    }
    jsonrpc_request_clear(&request);
    check_reader((const char *)data, size);
    return 0;
}
