/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/rpc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "lease/json_line.h"
#include "lease/lock_order.h"
#include "rdma/initiator/channel.h"
#include "rdma/initiator/clock.h"
#include "rdma/initiator/error.h"
#include <leasefs/protocol.h>

struct rpc {
    struct channel *channel;
    int watch_fd;
    void (*wake)(void *arg); /* NULL: callers do not read */
    void *wake_arg;
    void (*drive)(void *arg); /* NULL: there is a thread that reads */
    void *drive_arg;

    pthread_mutex_t lock;
    pthread_cond_t ended;
    struct rpc_call *calls;
    int64_t next_id;
    bool broken;
    bool reading; /* somebody is */
    bool left;    /* something in `input` or the channel, or an error, is for the session's thread */

    /* Of whoever reads. */
    char *input;
    size_t filled, size, scanned;
};

/* What a thread may do with what it reads. */
struct reader {
    rpc_notify *notify; /* NULL: a caller, who reads along */
    void *arg;
};

#define LEFT_TO_SESSION 1 /* status of a caller: it stopped before a line */

#define MAX_MEMBERS 16 /* of a result that is handed on as it stands */

static int control_watch(struct rpc *rpc, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events};

    return epoll_ctl(rpc->watch_fd, operation, channel_fd(rpc->channel), &event);
}

/* Is the session's thread to wake for what comes? (It does for the connection's end.) */
static void watch(struct rpc *rpc, bool watched)
{
    control_watch(rpc, EPOLL_CTL_MOD, watched ? EPOLLIN : 0); /* needs no memory: does not fail */
}

/* On failure the channel is freed. */
static int make_watch(struct rpc *rpc)
{
    int status = 0;

    rpc->watch_fd = epoll_create1(EPOLL_CLOEXEC);
    if (rpc->watch_fd < 0 || control_watch(rpc, EPOLL_CTL_ADD, EPOLLIN) < 0)
        status = error_set(-errno, "no epoll set for the session: %m");
    if (status) {
        if (rpc->watch_fd >= 0)
            close(rpc->watch_fd);
        channel_free(rpc->channel);
    }
    return status;
}

int rpc_connect(const struct leasefs_session_options *options, struct rpc **ret_rpc)
{
    struct rpc *rpc = calloc(1, sizeof(*rpc));
    int status;

    if (!rpc)
        return error_set(-ENOMEM, "out of memory");
    if (options->server && *options->server)
        status = channel_open_tls(options->server, options->key, &rpc->channel);
    else
        status = channel_open_unix(options->control, &rpc->channel);
    if (!status)
        status = make_watch(rpc);
    if (status) {
        free(rpc);
        return status;
    }
    pthread_mutex_init(&rpc->lock, NULL);
    lock_rank(&rpc->lock, LOCK_RPC, 0);
    pthread_cond_init(&rpc->ended, NULL);
    rpc->next_id = 1;
    *ret_rpc = rpc;
    return 0;
}

void rpc_free(struct rpc *rpc)
{
    if (!rpc)
        return;
    close(rpc->watch_fd);
    channel_free(rpc->channel);
    pthread_cond_destroy(&rpc->ended);
    pthread_mutex_destroy(&rpc->lock);
    free(rpc->input);
    free(rpc);
}

int rpc_fd(const struct rpc *rpc)
{
    return channel_fd(rpc->channel);
}

int rpc_watch_fd(const struct rpc *rpc)
{
    return rpc->watch_fd;
}

void rpc_share(struct rpc *rpc, void (*wake)(void *arg), void *arg)
{
    rpc->wake_arg = arg;
    rpc->wake = wake;
}

void rpc_drive(struct rpc *rpc, void (*drive)(void *arg), void *arg)
{
    rpc->drive_arg = arg;
    rpc->drive = drive;
}

/* Adds the call to the list, so that a reply that comes at once finds it. */
static int enlist(struct rpc *rpc, struct rpc_call *call, int64_t *ret_id)
{
    int status = 0;

    pthread_mutex_lock(&rpc->lock);
    if (rpc->broken) {
        status = -ENOTCONN;
    } else {
        *ret_id = call->id = rpc->next_id++;
        call->next = rpc->calls;
        rpc->calls = call;
    }
    pthread_mutex_unlock(&rpc->lock);
    return status;
}

static struct rpc_call **find_locked(struct rpc *rpc, int64_t id)
{
    struct rpc_call **link = &rpc->calls;

    while (*link && (*link)->id != id)
        link = &(*link)->next;
    return link;
}

static bool is_listed(struct rpc *rpc, int64_t id)
{
    bool listed;

    pthread_mutex_lock(&rpc->lock);
    listed = *find_locked(rpc, id);
    pthread_mutex_unlock(&rpc->lock);
    return listed;
}

/* Takes the call with this id out; NULL: there is none (any more), or it is not for a caller to end. */
static struct rpc_call *delist(struct rpc *rpc, int64_t id, bool by_caller)
{
    struct rpc_call **link, *call;

    pthread_mutex_lock(&rpc->lock);
    link = find_locked(rpc, id);
    call = *link;
    if (call && by_caller && call->complete && !call->anywhere)
        call = NULL;
    if (call)
        *link = call->next;
    pthread_mutex_unlock(&rpc->lock);
    return call;
}

/* What a request is made of. */
struct request {
    const char *method;
    json_t *params;   /* or NULL */
    const char *text; /* the same as JSON, in place of `params`, and then the method has no character to be escaped */
};

static char *format_text(int64_t id, const struct request *request)
{
    static const char begin[] = "{\"jsonrpc\":\"2.0\"", method[] = ",\"method\":\"",
                      params[] = "\",\"params\":", end[] = "}\n", name[] = "id";
    char *line = malloc(sizeof(begin) + sizeof(name) + JSON_LINE_NUMBER + 4 + sizeof(method) + strlen(request->method) +
                        sizeof(params) + strlen(request->text) + sizeof(end));
    char *at;

    if (!line)
        return NULL;
    at = json_line_put_member(stpcpy(line, begin), name, (uint64_t)id);
    stpcpy(stpcpy(stpcpy(stpcpy(stpcpy(at, method), request->method), params), request->text), end);
    return line;
}

/* The line ends with LF. */
static char *format_request(int64_t id, const struct request *request)
{
    char *line = NULL;
    json_t *message;
    size_t length;

    if (request->text)
        return format_text(id, request);
    message = json_pack("{s:s, s:I, s:s, s:O*}", "jsonrpc", "2.0", "id", (json_int_t)id, "method", request->method,
                        "params", request->params);
    if (!message)
        return NULL;
    length = json_dumpb(message, NULL, 0, JSON_COMPACT);
    line = malloc(length + 2);
    if (line && json_dumpb(message, line, length, JSON_COMPACT) == length)
        strcpy(line + length, "\n");
    json_decref(message);
    return line;
}

static int lost(struct rpc *rpc)
{
    return error_set(-ENOTCONN,
                     "the control connection at %s was lost: the server ended it or stopped. Open a new session.",
                     channel_name(rpc->channel));
}

static int start(struct rpc *rpc, const struct request *request, struct rpc_call *call)
{
    const char *method = request->method;
    int64_t id;
    int status;
    char *line;

    call->method = method;
    call->status = 0;
    call->result = call->error = NULL;
    call->members = NULL;
    call->done = false;
    call->sent_at_ns = clock_now_ns();
    status = enlist(rpc, call, &id);
    if (status)
        return lost(rpc);
    line = format_request(id, request);
    if (!line)
        status = error_set(-EINVAL, "%s: the parameters are no text in UTF-8, or memory is short", method);
    else if (strlen(line) > LEASEFS_MAX_MESSAGE)
        status = error_set(-EMSGSIZE, "%s: the request is longer than %u bytes", method, LEASEFS_MAX_MESSAGE);
    else if (channel_send(rpc->channel, line, strlen(line)))
        status = lost(rpc);
    free(line);
    /* From the sending on the call may have ended and be gone. When the receiving thread was quicker to find out about
     * a failure, it has ended the call, and the caller hears of it that way. */
    if (status && !delist(rpc, id, false))
        status = 0;
    return status;
}

int rpc_start(struct rpc *rpc, const char *method, json_t *params, struct rpc_call *call)
{
    const struct request request = {.method = method, .params = params};
    int status = start(rpc, &request, call);

    json_decref(params);
    return status;
}

int rpc_start_text(struct rpc *rpc, const char *method, const char *params, struct rpc_call *call)
{
    const struct request request = {.method = method, .text = params};

    return start(rpc, &request, call);
}

/* The call was delisted, so this is its only end. Steals result and error. */
static void end_call(struct rpc *rpc, struct rpc_call *call, int status, json_t *result, json_t *error)
{
    void (*complete)(struct rpc_call *) = call->complete;

    call->status = status;
    call->result = result;
    call->error = error;
    if (complete)
        complete(call);
    /* A completed call that nobody waits for may be gone: only calls without complete() are waited for by `done`. */
    if (complete)
        return;
    pthread_mutex_lock(&rpc->lock);
    call->done = true;
    pthread_cond_broadcast(&rpc->ended);
    pthread_mutex_unlock(&rpc->lock);
}

int rpc_wait(struct rpc *rpc, struct rpc_call *call)
{
    if (rpc_begin_reading(rpc))
        rpc_read_along(rpc, call);
    pthread_mutex_lock(&rpc->lock);
    while (!call->done) {
        if (!rpc->drive) {
            pthread_cond_wait(&rpc->ended, &rpc->lock);
            continue;
        }
        pthread_mutex_unlock(&rpc->lock);
        rpc->drive(rpc->drive_arg);
        pthread_mutex_lock(&rpc->lock);
    }
    pthread_mutex_unlock(&rpc->lock);
    if (call->error)
        return error_from_server(call->method, call->error);
    if (call->status == -ENOTCONN)
        return lost(rpc);
    if (call->status)
        return error_set(call->status, "%s: %s", call->method, strerror(-call->status));
    return 0;
}

void rpc_call_clear(struct rpc_call *call)
{
    json_decref(call->result);
    json_decref(call->error);
    call->result = call->error = NULL;
}

int rpc_call(struct rpc *rpc, const char *method, json_t *params, json_t **ret_result)
{
    struct rpc_call call = {.complete = NULL};
    int status = rpc_start(rpc, method, params, &call);

    if (status)
        return status;
    status = rpc_wait(rpc, &call);
    if (!status && ret_result)
        *ret_result = json_incref(call.result);
    rpc_call_clear(&call);
    return status;
}

void rpc_break(struct rpc *rpc)
{
    struct rpc_call *calls, *next;

    pthread_mutex_lock(&rpc->lock);
    rpc->broken = true;
    calls = rpc->calls;
    rpc->calls = NULL;
    pthread_mutex_unlock(&rpc->lock);
    for (; calls; calls = next) {
        next = calls->next;
        end_call(rpc, calls, -ENOTCONN, NULL, NULL);
    }
}

/* Takes a member out of a message, so that the message and the call share nothing across threads. */
static json_t *take(json_t *message, const char *key)
{
    json_t *value = json_incref(json_object_get(message, key));

    json_object_del(message, key);
    return value;
}

static int dispatch_reply(struct rpc *rpc, json_t *message, const struct reader *reader)
{
    json_t *id = json_object_get(message, "id");
    struct rpc_call *call;
    json_t *error, *result;

    call = json_is_integer(id) ? delist(rpc, json_integer_value(id), !reader->notify) : NULL;
    if (!call)
        return -EPROTO;
    error = take(message, "error");
    result = take(message, "result");
    if (json_is_object(error)) {
        const char *name = json_string_value(json_object_get(json_object_get(error, "data"), "errno"));
        int status = name ? error_from_name(name) : 0;

        json_decref(result);
        end_call(rpc, call, status ? status : -EPROTO, NULL, error);
    } else {
        json_decref(error);
        end_call(rpc, call, result ? 0 : -EPROTO, result, NULL);
    }
    return 0;
}

static bool wants_members(struct rpc *rpc, int64_t id)
{
    const struct rpc_call *call;
    bool wants;

    pthread_mutex_lock(&rpc->lock);
    call = *find_locked(rpc, id);
    wants = call && call->plain;
    pthread_mutex_unlock(&rpc->lock);
    return wants;
}

/* The reply to a call that takes it as it stands, which saves making objects of it. False: it is no such thing. */
static bool dispatch_plain(struct rpc *rpc, const char *line, size_t length, const struct reader *reader)
{
    struct json_line_member reply[3], members[MAX_MEMBERS];
    const struct json_line_member *id, *result;
    int n = json_line_members(line, length, reply, 3);
    struct rpc_call *call;

    if (n < 0)
        return false;
    id = json_line_find(reply, (size_t)n, "id");
    result = json_line_find(reply, (size_t)n, "result");
    if (!id || id->kind != JSON_LINE_INTEGER || !result || result->kind != JSON_LINE_NESTED ||
        json_line_find(reply, (size_t)n, "method") || json_line_find(reply, (size_t)n, "error") ||
        !wants_members(rpc, id->number))
        return false;
    n = json_line_members(result->text, result->length, members, MAX_MEMBERS);
    call = n < 0 ? NULL : delist(rpc, id->number, !reader->notify);
    if (!call)
        return false;
    call->members = members;
    call->n_members = (size_t)n;
    end_call(rpc, call, 0, NULL, NULL);
    return true;
}

/* A caller ends calls and leaves all else as it is. */
static int dispatch_line(struct rpc *rpc, const char *line, size_t length, const struct reader *reader)
{
    json_t *message;
    const char *method;
    int status = 0;

    if (dispatch_plain(rpc, line, length, reader))
        return 0;
    message = json_line_load(line, length);
    method = json_string_value(json_object_get(message, "method"));

    if (!json_is_object(message))
        status = -EPROTO;
    else if (!method)
        status = dispatch_reply(rpc, message, reader);
    else if (reader->notify)
        reader->notify(reader->arg, method, json_object_get(message, "params"));
    else
        status = LEFT_TO_SESSION;
    json_decref(message);
    return status && !reader->notify ? LEFT_TO_SESSION : status;
}

/* Cuts lines off the input and handles each. */
static int dispatch_input(struct rpc *rpc, const struct reader *reader)
{
    size_t start = 0;
    int status = 0;
    char *end;

    while (!status && (end = memchr(rpc->input + rpc->scanned, '\n', rpc->filled - rpc->scanned))) {
        size_t after = (size_t)(end - rpc->input) + 1;

        status = dispatch_line(rpc, rpc->input + start, after - 1 - start, reader);
        if (status != LEFT_TO_SESSION)
            start = after;
        rpc->scanned = start;
    }
    if (!status)
        rpc->scanned = rpc->filled;
    rpc->filled -= start;
    memmove(rpc->input, rpc->input + start, rpc->filled);
    rpc->scanned -= start;
    return status;
}

static int make_room(struct rpc *rpc)
{
    size_t size = rpc->size ? rpc->size * 2 : LEASEFS_MAX_MESSAGE;
    char *larger;

    if (rpc->filled < rpc->size)
        return 0;
    if (rpc->size >= RPC_MAX_REPLY)
        return -EMSGSIZE;
    larger = realloc(rpc->input, size);
    if (!larger)
        return -ENOMEM;
    rpc->input = larger;
    rpc->size = size;
    return 0;
}

/* Reads once. `wait`: until something comes. -EAGAIN: nothing has. */
static int receive_once(struct rpc *rpc, bool wait, const struct reader *reader)
{
    int status = make_room(rpc);
    ssize_t got;

    if (status)
        return status;
    got = (wait ? channel_await : channel_receive)(rpc->channel, rpc->input + rpc->filled, rpc->size - rpc->filled);
    if (got <= 0)
        return got < 0 ? (int)got : -ECONNRESET;
    rpc->filled += (size_t)got;
    return dispatch_input(rpc, reader);
}

/* ---- whose turn it is to read ---- */

static bool take_turn(struct rpc *rpc, bool by_caller)
{
    bool mine;

    pthread_mutex_lock(&rpc->lock);
    mine = !rpc->reading && !(by_caller && (rpc->left || rpc->broken));
    if (mine) {
        rpc->reading = true;
        rpc->left = false;
    }
    pthread_mutex_unlock(&rpc->lock);
    return mine;
}

static void give_turn_back(struct rpc *rpc, bool left)
{
    pthread_mutex_lock(&rpc->lock);
    rpc->reading = false;
    rpc->left = left;
    pthread_mutex_unlock(&rpc->lock);
}

bool rpc_begin_reading(struct rpc *rpc)
{
    bool mine = rpc->wake && take_turn(rpc, true);

    if (mine)
        watch(rpc, false);
    return mine;
}

void rpc_read_along(struct rpc *rpc, const struct rpc_call *call)
{
    const struct reader caller = {.notify = NULL};
    int64_t id = call ? call->id : 0;
    int status = 0;
    bool left;

    while (!status && id && is_listed(rpc, id))
        status = receive_once(rpc, true, &caller);
    left = status || channel_buffers(rpc->channel);
    watch(rpc, true);
    give_turn_back(rpc, left);
    if (left)
        rpc->wake(rpc->wake_arg);
}

int rpc_receive(struct rpc *rpc, rpc_notify *notify, void *arg)
{
    const struct reader session = {notify, arg};
    int status;

    if (!take_turn(rpc, false))
        return 0;
    status = rpc->filled ? dispatch_input(rpc, &session) : 0;
    while (!status)
        status = receive_once(rpc, false, &session);
    give_turn_back(rpc, false);
    if (status == -EAGAIN)
        return 0;
    channel_shut_down(rpc->channel);
    rpc_break(rpc);
    return status;
}
