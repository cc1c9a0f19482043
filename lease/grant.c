/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How leases begin, on a grant worker:
 *
 *   open as the peer (I9) > [prepare] > flush > lease_request > hold > expose > lease_commit > answer
 *
 * prepare and lease_request may park the request; it then holds no thread and grant_step() is called again. Whatever
 * fails is undone in reverse, an exposure through its fence.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lease/json_line.h"
#include "lease/service_private.h"

int grant_pin(struct request *request)
{
    const struct lease_service_config *c = &request->session->service->config;
    int error;

    if (request->pinned)
        return 0;
    if (!request->path) {
        /* Its pin is the session's, which outlives this request. */
        request->inode = request_file_inode(request);
        return request->inode ? 0 : -ENOENT;
    }
    error = c->layout->open(c->fs, request->path, &request->session->who, request->mode, &request->inode);
    request->pinned = !error;
    return error;
}

bool grant_range(struct request *request, uint64_t *ret_size)
{
    const struct lease_service_config *c = &request->session->service->config;
    struct refusal refusal = {.error = -EINVAL, .reason = LEASEFS_REASON_BEYOND_EOF};
    struct layout_attr attr;
    int error = c->layout->getattr(c->fs, request->inode, &attr);

    if (error) {
        request_fail(request, error);
        return false;
    }
    if (request->length == 0 && request->offset < attr.size)
        request->length = attr.size - request->offset;
    if (request->length == 0 || !range_valid((struct lease_range){request->offset, request->length})) {
        refusal.remedy = "Choose a range below the end of the file, or extend the file first.";
        refusal.range = (struct lease_range){request->offset, request->length};
        request_refuse(request, &refusal, "%s: nothing to cover at offset %llu: the file has %llu bytes",
                       request->path ? request->path : "the file", (unsigned long long)request->offset,
                       (unsigned long long)attr.size);
        return false;
    }
    request->file_policy = attr.policy;
    *ret_size = attr.size;
    return true;
}

/* ---- refusals ---- */

static void refuse_problem(struct request *request, const struct layout_problem *problem)
{
    static const struct {
        const char *reason, *what;
    } words[] = {
        [LAYOUT_OK] = {NULL, "not eligible"},
        [LAYOUT_HOLE] = {LEASEFS_REASON_HOLE, "a hole: no blocks are there"},
        [LAYOUT_UNWRITTEN] = {LEASEFS_REASON_UNWRITTEN, "allocated but never written"},
        [LAYOUT_SHARED] = {LEASEFS_REASON_SHARED, "shared with another file"},
        [LAYOUT_BEYOND_EOF] = {LEASEFS_REASON_BEYOND_EOF, "beyond the end of the file"},
        [LAYOUT_FRAGMENTED] = {LEASEFS_REASON_FRAGMENTED, "too fragmented to be mapped in huge pages"},
    };
    const char *path = request->path ? request->path : "FILE";
    char remedy[LEASEFS_MAX_PATH + 128];
    struct refusal refusal = {
        .error = -EPERM, .reason = words[problem->kind].reason, .remedy = remedy, .range = problem->range};

    if (problem->kind == LAYOUT_BEYOND_EOF)
        snprintf(remedy, sizeof(remedy), "Lease less, or extend the file first (truncate -s).");
    else
        snprintf(remedy, sizeof(remedy), "Run: leasectl prepare %s%s (or ask with --prepare).",
                 request->mode == LEASE_WRITE ? "--write " : "", path);
    request_refuse(request, &refusal, "%s: bytes %llu to %llu are %s", path, (unsigned long long)problem->range.offset,
                   (unsigned long long)range_end(problem->range), words[problem->kind].what);
}

static void refuse_request(struct request *request, int error)
{
    struct refusal refusal = {.error = error,
                              .reason = LEASEFS_REASON_CONFLICT,
                              .remedy = "Wait for the holder (leasectl status shows it), or ask without --try.",
                              .range = {request->offset, request->length}};

    if (error == -EAGAIN) {
        refusal.reason = LEASEFS_REASON_RECALL;
        refusal.remedy = "Try again when the waiting operation is done.";
    } else if (error == -ENFILE) {
        refusal.reason = LEASEFS_REASON_LIMIT;
        refusal.remedy = request->wait ? "Leases that nobody renewed lately are being recalled: try again soon."
                                       : "Ask without --try, so that leases are recalled which nobody renewed lately.";
    } else if (error == -EMFILE || error == -EDQUOT) {
        refusal.reason = LEASEFS_REASON_LIMIT;
        refusal.remedy = "Return leases that are not needed.";
    }
    request_refuse(request, &refusal, "%s: no lease: %s", request->path ? request->path : "the file",
                   error == -EAGAIN  ? "a recall is pending there"
                   : error == -EBUSY ? "another holder's lease is in the way"
                                     : strerror(-error));
}

static bool refuse_without_fabric(struct request *request)
{
    const struct lease_service_config *c = &request->session->service->config;
    struct refusal refusal = {.error = -ENODEV, .reason = LEASEFS_REASON_NO_DEVICE, .remedy = c->no_device_reason};

    if (request->session->fabric)
        return false;
    if (c->exposure && request->session->fabric_error)
        refusal.remedy = strerror(-request->session->fabric_error);
    request_refuse(request, &refusal, "no lease: the server has no usable RDMA device");
    return true;
}

const char *expose_remedy(int error)
{
    return error == -E2BIG ? "Run leasectl prepare, lease less, or raise vm.max_map_count."
           : error == -ENOMEM
               ? "Raise the server's memory lock limit (ulimit -l, LimitMEMLOCK=infinity), or lease less."
               : NULL;
}

static void refuse_memory(struct request *request, int error)
{
    struct refusal refusal = {.error = error, .reason = LEASEFS_REASON_LIMIT, .remedy = expose_remedy(error)};

    request_refuse(request, &refusal, "%s: the range could not be registered: %s",
                   request->path ? request->path : "the file",
                   error == -E2BIG ? "it lies in too many pieces" : strerror(-error));
}

/* ---- the grant ---- */

#define GRANT_TEXT_SIZE 512 /* eleven numbers of at most 20 digits, and their names */

static struct grant *grant_new(struct request *request, uint64_t lease_id)
{
    struct grant *grant = calloc(1, sizeof(*grant));

    if (!grant)
        return NULL;
    grant->service = request->session->service;
    grant->session = session_ref(request->session);
    atomic_init(&grant->refs, 1);
    grant->early_end = &grant->early;
    grant->lease_id = lease_id;
    grant->inode = request->inode;
    grant->range = range_round_out((struct lease_range){request->offset, request->length}, LEASEFS_BLOCK_SIZE);
    grant->mode = request->mode;
    grant->fence.run = fence_run;
    grant->notice.deliver = notice_deliver;
    service_busy(grant->service);
    return grant;
}

static int grant_hold(struct grant *grant, struct layout_problem *problem)
{
    const struct lease_service_config *c = &grant->service->config;

    return c->layout->hold(c->fs, grant->inode, grant->range, grant->mode, &grant->hold, &grant->runs, &grant->n_runs,
                           problem);
}

int grant_expose(struct grant *grant)
{
    const struct lease_service_config *c = &grant->service->config;
    size_t n_segments;
    struct exposure_request exposure = {.mode = grant->mode,
                                        .range = grant->range,
                                        .segments = c->layout->segments(c->fs, &n_segments),
                                        .runs = grant->runs,
                                        .n_runs = grant->n_runs};

    return c->exposure->expose(grant->session->fabric, &exposure, &grant->exposure, &grant->keys);
}

/* Written by hand: to build the objects of twelve members and to put them into words takes as long as to register a
 * small range does, and printf() half of that. */
static void write_grant(const struct grant *grant, const struct lease_info *info, char text[GRANT_TEXT_SIZE])
{
    const struct lease_service_config *c = &grant->service->config;
    struct layout_attr attr = {0};
    char *at = stpcpy(stpcpy(stpcpy(text, "{\"mode\":\""), lease_mode_name(info->mode)), "\"");

    c->layout->getattr(c->fs, grant->inode, &attr);
    at = json_line_put_member(at, "lease", info->lease_id);
    at = json_line_put_member(at, "sequence", info->sequence);
    at = json_line_put_member(at, "boot_epoch", (int64_t)c->boot_epoch);
    at = json_line_put_member(at, "offset", info->range.offset);
    at = json_line_put_member(at, "length", info->range.length);
    at = json_line_put_member(at, "file_size", attr.size);
    at = json_line_put_member(at, "data_version", attr.data_version);
    at = json_line_put_member(at, "inode", attr.inode);
    at = json_line_put_member(at, "remote_address", grant->keys.remote_address);
    at = json_line_put_member(at, "rkey", grant->keys.rkey);
    at = json_line_put_member(at, "lease_time_ms", c->limits.lease_time_ns / 1000000);
    stpcpy(at, "}");
}

json_t *grant_json(const struct grant *grant, const struct lease_info *info)
{
    char text[GRANT_TEXT_SIZE];

    write_grant(grant, info, text);
    return json_loads(text, 0, NULL);
}

static void answer(struct request *request, const struct grant *grant, const struct lease_info *info)
{
    char text[GRANT_TEXT_SIZE];

    write_grant(grant, info, text);
    request_end_with_text(request, text);
}

/* From GRANTING to ACTIVE, or all the way back. Ends the request. */
static void finish(struct request *request, uint64_t lease_id)
{
    struct lease_service *service = request->session->service;
    const struct lease_service_config *c = &service->config;
    struct grant *grant = grant_new(request, lease_id);
    struct layout_problem problem = {0};
    struct lease_info info;
    int error = -ENOMEM;

    if (!grant)
        goto undo_lease;
    error = grant_hold(grant, &problem);
    if (error)
        goto undo_grant;
    error = grant_expose(grant);
    if (error) {
        c->layout->release(c->fs, grant->hold);
        if (error == -ENOMEM && request->wait) /* the limit on locked memory, most likely */
            lease_make_room(service->table, request->session->id, grant->range.length, service_now_ns());
        goto undo_grant;
    }
    error = grant_publish(grant);
    if (!error) {
        atomic_fetch_add(&grant->refs, 1); /* once committed, it may end at any moment */
        error = lease_commit(service->table, lease_id, service_now_ns(), grant, &info);
        if (!error) {
            answer(request, grant, &info);
            grant_announced(grant);
            grant_unref(grant);
            return;
        }
        grant_unref(grant);
    }
    fence_exposure(grant);
    grant_unpublish(grant);
undo_grant:
    grant_unref(grant);
undo_lease:
    lease_abort(service->table, lease_id, service_now_ns());
    if (problem.kind)
        refuse_problem(request, &problem);
    else if (error == -ENOMEM || error == -E2BIG)
        refuse_memory(request, error);
    else
        request_fail(request, error);
}

static int prepare(struct request *request)
{
    const struct lease_service_config *c = &request->session->service->config;
    int error;

    if (!request->prepare || request->prepared)
        return 0;
    error = c->layout->prepare(c->fs, request->inode, (struct lease_range){request->offset, request->length},
                               request->mode == LEASE_WRITE, false, &request->waiter);
    if (error == -EINPROGRESS)
        return error; /* another worker may have it already */
    request->prepared = !error;
    lease_op_end(request->session->service->table, &request->waiter);
    return error;
}

static struct lease_request wanted_by(const struct request *request)
{
    const struct session *session = request->session;

    return (struct lease_request){
        .session_id = session->id,
        .owner = session->who.uid,
        .process = session->who.pid,
        .inode = request->inode,
        .range = range_round_out((struct lease_range){request->offset, request->length}, LEASEFS_BLOCK_SIZE),
        .mode = request->mode,
        .policy = request->policy,
        .file_policy = request->file_policy,
        .wait = request->wait,
    };
}

/* The idle lease that the client names is the one it asks for: it is as good as new. */
static bool take_up(struct request *request)
{
    struct lease_service *service = request->session->service;
    struct lease_request wanted = wanted_by(request);
    struct lease_info info;
    struct grant *grant;
    bool taken;

    if (!request->idle || request->prepare)
        return false;
    grant = grant_find(service, request->idle);
    if (!grant)
        return false;
    taken = !lease_take_up(service->table, &wanted, request->idle, service_now_ns(), &info);
    if (taken)
        answer(request, grant, &info);
    grant_unref(grant);
    return taken;
}

/* Asks the table for the lease. false: parked, or refused and gone. */
static bool ask(struct request *request, uint64_t *ret_lease_id)
{
    struct session *session = request->session;
    struct lease_service *service = session->service;
    struct lease_request wanted = wanted_by(request);
    int error = lease_request(service->table, &wanted, service_now_ns(), &request->waiter, ret_lease_id);

    if (error == -EINPROGRESS)
        return false;
    if (error == -ECANCELED) {
        request_end(request, NULL);
        return false;
    }
    if (error) {
        refuse_request(request, error);
        return false;
    }
    /* The session's end either found this lease in the table, or is found here. */
    if (atomic_load(&session->ended)) {
        lease_abort(service->table, *ret_lease_id, service_now_ns());
        request_end(request, NULL);
        return false;
    }
    return true;
}

void grant_step(struct request *request)
{
    const struct lease_service_config *c = &request->session->service->config;
    uint64_t size, lease_id;
    int error;

    if (!request->flushed) {
        if (refuse_without_fabric(request))
            return;
        error = grant_pin(request);
        if (error) {
            request_fail(request, error);
            return;
        }
        if (!request->prepared && !grant_range(request, &size))
            return;
        if (take_up(request))
            return;
        error = prepare(request);
        if (error == -EINPROGRESS)
            return;
        if (!error)
            error = c->layout->flush(c->fs, request->inode, (struct lease_range){request->offset, request->length},
                                     request->mode);
        if (error) {
            request_fail(request, error);
            return;
        }
        request->flushed = true;
    }
    if (ask(request, &lease_id))
        finish(request, lease_id);
}
