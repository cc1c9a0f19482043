/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lease/json_line.h"
#include "rdma/initiator/clock.h"
#include "rdma/initiator/conn.h"
#include "rdma/initiator/error.h"
#include "rdma/initiator/holding.h"
#include "rdma/initiator/idle.h"
#include "rdma/initiator/session.h"
#include <leasefs/protocol.h>

static struct leasefs_lease *lease_new(struct leasefs_session *session, const struct leasefs_lease_options *options)
{
    struct leasefs_lease *lease = calloc(1, sizeof(*lease));

    if (!lease)
        return NULL;
    lease->session = session;
    lease->options = *options;
    lease->holding = HOLDING_OPENING;
    return lease;
}

struct leasefs_lease *lease_like(const struct leasefs_lease *lease)
{
    struct leasefs_lease *other = lease_new(lease->session, &lease->options);

    if (other && lease->path && !(other->path = strdup(lease->path))) {
        free(other);
        other = NULL;
    }
    return other;
}

void lease_free(struct leasefs_lease *lease)
{
    if (!lease)
        return;
    rpc_call_clear(&lease->open_call);
    rpc_call_clear(&lease->renew_call);
    rpc_call_clear(&lease->return_call);
    free(lease->publish_path);
    free(lease->path);
    free(lease);
}

/* ---- asking for a lease ---- */

#define GRANT_MEMBERS 64 /* today's servers tell twelve; others than those named below are passed over */

static int parse_members(const struct json_line_member *members, size_t count, struct leasefs_layout *ret_layout)
{
    const struct json_line_member *mode = json_line_find(members, count, "mode");
    int64_t id, sequence = 0, offset, length, file_size, address = 0, rkey = 0, lease_time_ms;
    const struct {
        const char *name;
        int64_t *ret_number;
        bool optional;
    } numbers[] = {
        {"lease", &id, false},
        {"sequence", &sequence, true},
        {"offset", &offset, false},
        {"length", &length, false},
        {"file_size", &file_size, false},
        {"remote_address", &address, true},
        {"rkey", &rkey, true},
        {"lease_time_ms", &lease_time_ms, false},
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        const struct json_line_member *number = json_line_find(members, count, numbers[i].name);

        if (number && number->kind == JSON_LINE_INTEGER)
            *numbers[i].ret_number = number->number;
        else if (number || !numbers[i].optional)
            return -EPROTO;
    }
    if (!mode || mode->kind != JSON_LINE_WORD)
        return -EPROTO;
    if (sequence < 0 || sequence > UINT32_MAX || rkey < 0 || rkey > UINT32_MAX || offset < 0 || length <= 0 ||
        length > INT64_MAX - offset || file_size < 0 || lease_time_ms <= 0 || lease_time_ms > INT32_MAX)
        return -EPROTO;
    *ret_layout = (struct leasefs_layout){
        .lease_id = (uint64_t)id,
        .sequence = (uint32_t)sequence,
        .mode = mode->length == strlen("write") && !memcmp(mode->text, "write", mode->length) ? LEASEFS_WRITE
                                                                                              : LEASEFS_READ,
        .offset = (uint64_t)offset,
        .length = (uint64_t)length,
        .file_size = (uint64_t)file_size,
        .remote_address = (uint64_t)address,
        .rkey = (uint32_t)rkey,
        .lease_time_ms = (unsigned)lease_time_ms,
    };
    return 0;
}

int lease_parse_grant(const json_t *grant, struct leasefs_layout *ret_layout)
{
    struct json_line_member members[GRANT_MEMBERS];
    int n = json_line_members_of(grant, members, GRANT_MEMBERS);

    return n < 0 ? -EPROTO : parse_members(members, (size_t)n, ret_layout);
}

static int parse_answer(const struct rpc_call *call, struct leasefs_layout *ret_layout)
{
    if (call->status)
        return call->status;
    return call->members ? parse_members(call->members, call->n_members, ret_layout)
                         : lease_parse_grant(call->result, ret_layout);
}

/* On the thread that reads the answer, so that a recall on its heels finds the lease. */
static void on_granted(struct rpc_call *call)
{
    struct leasefs_lease *lease = call->arg;
    struct leasefs_session *session = lease->session;
    struct leasefs_layout layout;
    int status = parse_answer(call, &layout);
    bool wake = false;

    pthread_mutex_lock(&session->lock);
    if (status) {
        holding_end_locked(lease, status, "not granted");
    } else if (lease->kept && lease->kept->layout.lease_id == layout.lease_id) {
        status = idle_take_up_locked(lease->kept, lease, &layout, call->sent_at_ns) ? 0 : -ESTALE;
        holding_end_locked(lease, status, "the idle lease is taken up");
    } else {
        lease->layout = layout;
        lease->granted = true;
        lease->holding = HOLDING_ACTIVE;
        holding_extend_locked(lease, call->sent_at_ns);
        lease->next = session->leases;
        session->leases = lease;
        wake = lease->renew_at_ns < session->looks_at_ns;
    }
    lease->pins--;
    pthread_cond_broadcast(&session->changed);
    pthread_mutex_unlock(&session->lock);
    if (wake)
        session_wake(session);
}

/* With its quotes; NULL: no text in UTF-8, or no memory. */
static char *escape(const char *path)
{
    char *escaped = NULL;
    json_t *string;

    if (json_line_is_plain(path))
        return asprintf(&escaped, "\"%s\"", path) < 0 ? NULL : escaped;
    string = json_string(path);
    escaped = string ? json_dumps(string, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(string);
    return escaped;
}

#define PARAMS_SIZE 256 /* four numbers, the words, and the names */

/* As JSON, for the caller to free; NULL: the path is no text in UTF-8, or no memory. Written by hand, and without what
 * is the default: whoever asks for a lease waits for this, too. */
static char *lease_params(const struct leasefs_lease *lease, const char *path)
{
    static const char *const policies[] = {
        [LEASEFS_POLICY_RECALL] = "recall", [LEASEFS_POLICY_BUSY] = "busy", [LEASEFS_POLICY_ORPHAN] = "orphan"};
    const struct leasefs_lease_options *options = &lease->options;
    char *escaped = path ? escape(path) : NULL, *params, *at;

    if (path && !escaped)
        return NULL;
    params = malloc(PARAMS_SIZE + (path ? strlen(escaped) : 0));
    if (!params)
        goto out;
    at = stpcpy(params, options->mode == LEASEFS_WRITE ? "{\"mode\":\"write\"" : "{\"mode\":\"read\"");
    if (options->offset || options->length) {
        at = json_line_put_member(at, "offset", options->offset);
        at = json_line_put_member(at, "length", options->length);
    }
    if (options->prepare)
        at = stpcpy(at, ",\"prepare\":true");
    if (options->try_only)
        at = stpcpy(at, ",\"wait\":false");
    if (lease->kept)
        at = json_line_put_member(at, "idle", lease->kept->layout.lease_id);
    if (options->policy)
        at = stpcpy(stpcpy(stpcpy(at, ",\"policy\":\""), policies[options->policy]), "\"");
    if (path)
        at = stpcpy(stpcpy(at, ",\"path\":"), escaped);
    else
        at = json_line_put_member(at, "file", lease->file);
    stpcpy(at, "}");
out:
    free(escaped);
    return params;
}

/* Asks the server and waits. On failure the lease is freed. */
static int acquire(struct leasefs_lease *lease, const char *path, struct leasefs_lease **ret_lease)
{
    struct leasefs_session *session = lease->session;
    char *params = lease_params(lease, path);
    bool taken_up, reading;
    int status;

    if (!params) {
        status = error_set(-EINVAL, "lease: the path is no text in UTF-8");
        goto undo_lease;
    }
    lease->open_call.complete = on_granted;
    lease->open_call.arg = lease;
    lease->open_call.anywhere = true;
    lease->open_call.plain = true;
    lease->pins = 1;
    reading = rpc_begin_reading(session->rpc);
    status = rpc_start_text(session->rpc, LEASEFS_METHOD_LEASE, params, &lease->open_call);
    free(params);
    if (reading)
        rpc_read_along(session->rpc, status ? NULL : &lease->open_call);
    if (status)
        goto undo_lease;
    pthread_mutex_lock(&session->lock);
    while (lease->pins && !lease->granted)
        session_await_locked(session, UINT64_MAX);
    status = lease->granted ? 0 : lease->end_status;
    taken_up = lease->kept && !lease->kept->taken;
    pthread_mutex_unlock(&session->lock);
    if (taken_up) {
        *ret_lease = lease->kept;
        lease_free(lease);
        return 0;
    }
    if (status) {
        if (lease->open_call.error)
            status = error_from_server(LEASEFS_METHOD_LEASE, lease->open_call.error);
        else
            error_set(status, "lease: %s",
                      status == -ENOTCONN ? "the control connection was lost" : "the server's answer makes no sense");
        goto undo_lease;
    }
    *ret_lease = lease;
    return 0;

undo_lease:
    lease_free(lease);
    return status;
}

/* Connects now rather than at the first transfer: a peer without RDMA is not to make others give leases back. */
static int ensure_rdma(struct leasefs_session *session)
{
    struct conn *conn;
    int status = session_conn(session, &conn);

    if (!status)
        conn_unref(conn);
    return status;
}

static int open_lease(struct leasefs_session *session, const char *path, const struct leasefs_lease_options *options,
                      struct leasefs_lease *kept, struct leasefs_lease **ret_lease)
{
    struct leasefs_lease *lease = lease_new(session, options);

    if (lease)
        lease->path = strdup(path);
    if (!lease || !lease->path) {
        free(lease);
        return error_set(-ENOMEM, "out of memory");
    }
    lease->kept = kept;
    return acquire(lease, path, ret_lease);
}

/* With an idle lease, if there is one like this. */
static int open_or_take_up(struct leasefs_session *session, const char *path,
                           const struct leasefs_lease_options *options, struct leasefs_lease **ret_lease)
{
    struct leasefs_lease *kept = idle_take(session, path, options);
    int status = open_lease(session, path, options, kept, ret_lease);

    if (!kept)
        return status;
    if (!status && *ret_lease == kept) {
        lease_unpin(kept);
        return 0;
    }
    idle_give_back(kept);
    /* The server meant the idle one, and we had given it up just then. */
    return status == -ESTALE ? open_lease(session, path, options, NULL, ret_lease) : status;
}

static bool is_a_limit(int status)
{
    return status == -ENFILE || status == -EMFILE || status == -EDQUOT || status == -ENOMEM;
}

int leasefs_lease_open(struct leasefs_session *session, const char *path, const struct leasefs_lease_options *options,
                       struct leasefs_lease **ret_lease)
{
    int status = session_may_block(session);

    if (status)
        return status;
    if (options->mode != LEASEFS_READ && options->mode != LEASEFS_WRITE)
        return error_set(-EINVAL, "lease: the mode is neither read nor write");
    if ((unsigned)options->policy > LEASEFS_POLICY_ORPHAN)
        return error_set(-EINVAL, "lease: no such policy");
    if (options->offset > INT64_MAX || options->length > INT64_MAX - options->offset)
        return error_set(-EINVAL, "lease: the range ends beyond the largest file");
    if (!options->no_rdma)
        status = ensure_rdma(session);
    if (status)
        return status;
    status = open_or_take_up(session, path, options, ret_lease);
    if (is_a_limit(status) && idle_give_back_all(session))
        status = open_lease(session, path, options, NULL, ret_lease);
    return status;
}

void leasefs_lease_layout(const struct leasefs_lease *lease, struct leasefs_layout *ret_layout)
{
    pthread_mutex_lock(&lease->session->lock);
    *ret_layout = lease->layout;
    pthread_mutex_unlock(&lease->session->lock);
}

int leasefs_commit(struct leasefs_lease *lease, uint64_t size)
{
    json_t *params = json_pack("{s:I}", "lease", (json_int_t)lease->layout.lease_id);
    int status = session_may_block(lease->session);

    if (status) {
        json_decref(params);
        return status;
    }
    if (size != UINT64_MAX &&
        (size > INT64_MAX || json_object_set_new(params, "size", json_integer((json_int_t)size)))) {
        json_decref(params);
        return error_set(-EINVAL, "commit: a size of %llu is not possible", (unsigned long long)size);
    }
    return rpc_call(lease->session->rpc, LEASEFS_METHOD_COMMIT, params, NULL);
}

/* ---- new files ---- */

static int create_file(struct leasefs_session *session, const char *path, mode_t mode, uint64_t size,
                       uint64_t *ret_file)
{
    json_t *params = json_pack("{s:s, s:I, s:i}", "path", path, "size", (json_int_t)size, "mode", (int)(mode & 0777));
    json_t *result;
    json_int_t file;
    int status;

    if (!params)
        return error_set(-EINVAL, "create: the path is no text in UTF-8");
    status = rpc_call(session->rpc, LEASEFS_METHOD_CREATE, params, &result);
    if (status)
        return status;
    if (json_unpack(result, "{s:I}", "file", &file))
        status = error_set(-EPROTO, "create: the server's answer lacks the file");
    else
        *ret_file = (uint64_t)file;
    json_decref(result);
    return status;
}

int leasefs_create(struct leasefs_session *session, const char *path, mode_t mode, uint64_t size,
                   struct leasefs_lease **ret_lease)
{
    const struct leasefs_lease_options options = {.mode = LEASEFS_WRITE};
    struct leasefs_lease *lease;
    int status = session_may_block(session);

    if (status)
        return status;
    if (size > INT64_MAX)
        return error_set(-EFBIG, "create: a size of %llu is not possible", (unsigned long long)size);
    if (size)
        status = ensure_rdma(session);
    if (status)
        return status;
    lease = lease_new(session, &options);
    if (lease)
        lease->publish_path = strdup(path);
    if (!lease || !lease->publish_path) {
        free(lease);
        return error_set(-ENOMEM, "out of memory");
    }
    status = create_file(session, path, mode, size, &lease->file);
    if (status) {
        lease_free(lease);
        return status;
    }
    if (size)
        return acquire(lease, NULL, ret_lease);
    /* There is nothing to lease in an empty file. */
    lease->holding = HOLDING_ENDED;
    lease->layout.mode = LEASEFS_WRITE;
    *ret_lease = lease;
    return 0;
}

static int publish_file(struct leasefs_session *session, uint64_t file, const char *path)
{
    json_t *params = json_pack("{s:I, s:s}", "file", (json_int_t)file, "path", path);

    return rpc_call(session->rpc, LEASEFS_METHOD_PUBLISH, params, NULL);
}

/* May the caller give it back and wait for that? */
static int may_return(struct leasefs_lease *lease)
{
    struct leasefs_session *session = lease->session;
    int status = session_may_block(session);
    unsigned queued;

    if (status)
        return status;
    pthread_mutex_lock(&session->lock);
    queued = lease->queued;
    pthread_mutex_unlock(&session->lock);
    if (queued)
        return error_set(-EBUSY, "%u operations of a queue use the lease: call leasefs_queue_wait() first", queued);
    return 0;
}

int leasefs_publish(struct leasefs_lease *lease)
{
    struct leasefs_session *session = lease->session;
    int status = may_return(lease);
    char *path;
    uint64_t file;

    if (status)
        return status;
    path = lease->publish_path;
    file = lease->file;
    lease->publish_path = NULL;
    status = leasefs_lease_return(lease);
    if (!status && !path)
        status = error_set(-EINVAL, "publish: the file has a name already");
    if (!status)
        status = publish_file(session, file, path);
    free(path);
    return status;
}

/* ---- giving back ---- */

static void unlink_locked(struct leasefs_lease *lease)
{
    for (struct leasefs_lease **link = &lease->session->leases; *link; link = &(*link)->next) {
        if (*link == lease) {
            *link = lease->next;
            break;
        }
    }
}

int leasefs_lease_return(struct leasefs_lease *lease)
{
    struct leasefs_session *session;
    bool reading, due;
    int status;

    if (!lease)
        return 0;
    session = lease->session;
    status = may_return(lease);
    if (status)
        return status;
    if (idle_keep(lease))
        return 0;
    reading = rpc_begin_reading(session->rpc);
    due = holding_return(lease);
    if (reading)
        rpc_read_along(session->rpc, due ? &lease->return_call : NULL);
    pthread_mutex_lock(&session->lock);
    while (!holding_at_rest_locked(lease))
        session_await_locked(session, UINT64_MAX);
    unlink_locked(lease);
    pthread_mutex_unlock(&session->lock);
    status = lease->end_status;
    if (status)
        error_set(status, "lease %llu had ended before it was given back: %s",
                  (unsigned long long)lease->layout.lease_id, lease->end_reason);
    lease_free(lease);
    return status;
}

void lease_return_all(struct leasefs_session *session)
{
    struct leasefs_lease *lease;

    /* All at once, so that their fences run side by side. */
    holding_return_all(session);
    pthread_mutex_lock(&session->lock);
    lease = session->leases;
    session->leases = NULL;
    pthread_mutex_unlock(&session->lock);
    while (lease) {
        struct leasefs_lease *next = lease->next;

        lease_free(lease);
        lease = next;
    }
}
