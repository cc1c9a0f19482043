/* SPDX-License-Identifier: BSD-2-Clause */
/* A request that a grant worker carries out, and how it is answered. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lease/service_private.h"

static void run(struct work *work)
{
    struct request *request = container(work, struct request, work);

    request->step(request);
}

/* Called by the table with its lock held: enqueues. */
static void resume(struct lease_waiter *waiter)
{
    struct request *request = container(waiter, struct request, waiter);

    workqueue_push(request->session->service->grants, &request->work);
}

/* false: the session has too many. */
static bool register_request(struct session *session, struct request *request)
{
    bool fits;

    pthread_mutex_lock(&session->requests_lock);
    fits = session->n_requests < SESSION_MAX_REQUESTS;
    if (fits) {
        session->n_requests++;
        request->next = session->requests;
        request->prev = &session->requests;
        if (request->next)
            request->next->prev = &request->next;
        session->requests = request;
    }
    pthread_mutex_unlock(&session->requests_lock);
    return fits;
}

static void unregister_request(struct request *request)
{
    struct session *session = request->session;

    pthread_mutex_lock(&session->requests_lock);
    *request->prev = request->next;
    if (request->next)
        request->next->prev = request->prev;
    session->n_requests--;
    pthread_mutex_unlock(&session->requests_lock);
}

void requests_abandon(struct session *session)
{
    pthread_mutex_lock(&session->requests_lock);
    for (struct request *request = session->requests; request; request = request->next)
        lease_waiter_abandon(session->service->table, &request->waiter);
    pthread_mutex_unlock(&session->requests_lock);
}

void request_start(struct session *session, struct jsonrpc_request *rpc, void (*step)(struct request *), bool brief)
{
    struct refusal refusal = {.error = -EAGAIN, .reason = LEASEFS_REASON_LIMIT, .remedy = "Wait for earlier requests."};
    struct request *request = calloc(1, sizeof(*request));

    if (!request || !register_request(session, request)) {
        free(request);
        session_answer(session, rpc->id, refusal_message(rpc->id, &refusal, "too many requests under way"));
        return;
    }
    request->work.run = run;
    request->waiter.resume = resume;
    request->session = session_ref(session);
    request->id = rpc->id; /* from here on another thread's, as is the next */
    request->params = rpc->params;
    rpc->id = rpc->params = NULL;
    request->step = step;
    service_busy(session->service);
    service_push(session->service, session->service->grants, &request->work, brief);
}

static void let_go(struct request *request)
{
    struct lease_service *service = request->session->service;

    unregister_request(request);
    lease_op_end(service->table, &request->waiter);
    if (request->pinned)
        service->config.layout->close(service->config.fs, request->inode);
}

static void free_request(struct request *request)
{
    struct lease_service *service = request->session->service;

    json_decref(request->id);
    json_decref(request->params);
    session_unref(request->session);
    free(request);
    service_idle(service);
}

void request_end(struct request *request, json_t *message)
{
    let_go(request);
    if (message && request->id)
        session_mail(request->session, message);
    else
        json_decref(message);
    free_request(request);
}

void request_end_with_text(struct request *request, const char *result)
{
    let_go(request);
    if (request->id)
        session_mail_line(request->session, jsonrpc_result_line(request->id, result));
    free_request(request);
}

void request_result(struct request *request, json_t *result)
{
    request_end(request, jsonrpc_result(request->id, result));
}

json_t *refusal_message(json_t *id, const struct refusal *refusal, const char *message)
{
    json_t *data = json_pack("{s:s, s:s*, s:s*}", "errno", jsonrpc_errno_name(refusal->error), "reason",
                             refusal->reason, "remedy", refusal->remedy);

    if (data && refusal->range.length) {
        json_object_set_new(data, "offset", json_integer((json_int_t)refusal->range.offset));
        json_object_set_new(data, "length", json_integer((json_int_t)refusal->range.length));
    }
    return jsonrpc_error(id, LEASEFS_RPC_REFUSED, message, data);
}

void request_refuse(struct request *request, const struct refusal *refusal, const char *format, ...)
{
    char message[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    request_end(request, refusal_message(request->id, refusal, message));
}

void request_fail(struct request *request, int error)
{
    struct refusal refusal = {.error = error};
    const char *path = request->path ? request->path : "the file";

    switch (error) {
    case -EACCES:
    case -EPERM:
        refusal.reason = LEASEFS_REASON_PERMISSION;
        refusal.remedy = request->session->key ? "Neither this key's exports nor the file's permissions go further."
                                               : "Ask the file's owner for access, or run as a user who has it.";
        break;
    case -EBUSY:
        refusal.reason = LEASEFS_REASON_CONFLICT;
        refusal.remedy = "Wait for the holder to return its lease (leasectl status), or revoke it.";
        break;
    case -ENOSPC:
        refusal.remedy = "Delete files, or mount with a larger pool.";
        break;
    case -EROFS:
        refusal.remedy = "The filesystem is mounted read-only, or exported so to this client.";
        break;
    default:
        break;
    }
    request_refuse(request, &refusal, "%s: %s", path, strerror(-error));
}

uint64_t request_file_inode(struct request *request)
{
    struct lease_service *service = request->session->service;
    uint64_t inode = 0;

    pthread_mutex_lock(&service->lock);
    for (const struct session_file *file = request->session->files; file; file = file->next)
        if (file->id == request->file)
            inode = file->inode;
    pthread_mutex_unlock(&service->lock);
    return inode;
}
