/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/leasectl/leasectl.h"

static bool use_stderr;

void output_use_stderr(void)
{
    use_stderr = true;
}

static FILE *stream(void)
{
    return use_stderr ? stderr : stdout;
}

void output_text(const char *format, ...)
{
    va_list args;

    if (common.json)
        return;
    va_start(args, format);
    vfprintf(stream(), format, args);
    va_end(args);
    fputc('\n', stream());
    fflush(stream());
}

void output_json(json_t *object)
{
    if (common.json && object) {
        json_dumpf(object, stream(), JSON_COMPACT | JSON_REAL_PRECISION(12));
        fputc('\n', stream());
        fflush(stream());
    }
    json_decref(object);
}

int exit_code_of(int status)
{
    switch (status) {
    case 0:
        return EXIT_OK;
    case -EPERM:
    case -EACCES:
    case -EROFS:
        return EXIT_REFUSED;
    case -EBUSY:
    case -EAGAIN:
    case -EDEADLK:
        return EXIT_BUSY;
    case -EREMOTEIO:
        return EXIT_LOST;
    case -ESTALE:
        return EXIT_RECALLED;
    case -ENODEV:
    case -ENOTCONN:
    case -EHOSTUNREACH:
    case -ECONNREFUSED:
    case -ETIMEDOUT:
    case -EXDEV:
        return EXIT_NO_RDMA;
    default:
        return EXIT_FAILED;
    }
}

static int report(int status, int code, const char *sentence, const char *data)
{
    const char *name = strerrorname_np(-status);
    json_t *object, *more;

    if (!common.json) {
        fprintf(stderr, "leasectl: %s\n", sentence);
        return code;
    }
    object = json_pack("{s:s, s:s, s:s, s:i}", "event", "error", "errno", name ? name : "EIO", "message", sentence,
                       "exit_code", code);
    more = data ? json_loads(data, 0, NULL) : NULL;
    if (object && more)
        json_object_update_missing(object, more);
    json_decref(more);
    output_json(object);
    return code;
}

int output_error(int status, const char *what)
{
    char sentence[1024];

    /* The server names the file itself. */
    if (leasefs_error_data())
        what = NULL;
    snprintf(sentence, sizeof(sentence), "%s%s%s", what ? what : "", what ? ": " : "", leasefs_error());
    return report(status, exit_code_of(status), sentence, leasefs_error_data());
}

int output_failure(int status, const char *format, ...)
{
    char sentence[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    return report(status, exit_code_of(status), sentence, NULL);
}

int output_usage(const char *format, ...)
{
    char sentence[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    return report(-EINVAL, EXIT_USAGE, sentence, NULL);
}

int open_session(const char *control, const char *host, struct leasefs_session **ret_session)
{
    struct leasefs_session_options options = {.client = "leasectl", .key = common.key};
    int status;

    if (common.control || common.server) {
        options.control = common.control;
        options.server = common.server;
        options.host = host; /* only where the RDMA connection goes */
    } else if (control) {
        options.control = control;
    } else {
        options.server = host ? host : getenv("LEASEFS_SERVER");
    }
    status = leasefs_session_open(&options, ret_session);

    return status ? report(status, EXIT_NO_SERVER, leasefs_error(), leasefs_error_data()) : 0;
}

int call_and_show(const char *control, const char *host, const char *method, json_t *params)
{
    struct leasefs_session *session;
    char *text = params ? json_dumps(params, JSON_COMPACT) : NULL;
    char *answer = NULL;
    json_t *result;
    int code, status;

    json_decref(params);
    code = open_session(control, host, &session);
    if (code) {
        free(text);
        return code;
    }
    status = leasefs_call(session, method, text, &answer);
    if (status) {
        code = output_error(status, NULL);
    } else {
        result = json_loads(answer, JSON_DECODE_ANY, NULL);
        output_result(method, result);
        json_decref(result);
    }
    free(answer);
    free(text);
    leasefs_session_close(session);
    return code;
}
