/* SPDX-License-Identifier: BSD-2-Clause */
/* How leases end: gate, fence, release, and only then the answer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lease/service_private.h"

struct grant *grant_find(struct lease_service *service, uint64_t lease_id)
{
    struct grant *grant;

    pthread_mutex_lock(&service->lock);
    HASH_FIND(hh, service->grants_by_id, &lease_id, sizeof(lease_id), grant);
    if (grant)
        atomic_fetch_add(&grant->refs, 1);
    pthread_mutex_unlock(&service->lock);
    return grant;
}

void grant_unref(struct grant *grant)
{
    struct lease_service *service = grant->service;

    if (atomic_fetch_sub(&grant->refs, 1) != 1)
        return;
    session_unref(grant->session);
    free(grant);
    service_idle(service);
}

int grant_publish(struct grant *grant)
{
    bool added;

    pthread_mutex_lock(&grant->service->lock);
    HASH_ADD(hh, grant->service->grants_by_id, lease_id, sizeof(grant->lease_id), grant);
    added = grant->hh.tbl;
    pthread_mutex_unlock(&grant->service->lock);
    return added ? 0 : -ENOMEM;
}

static struct pending_return *take_returns(struct grant *grant)
{
    struct pending_return *returns;

    pthread_mutex_lock(&grant->service->lock);
    if (grant->hh.tbl) {
        HASH_DELETE(hh, grant->service->grants_by_id, grant);
        grant->hh.tbl = NULL;
    }
    returns = grant->returns;
    grant->returns = NULL;
    pthread_mutex_unlock(&grant->service->lock);
    return returns;
}

static void answer_returns(struct pending_return *returns)
{
    struct pending_return *next;

    for (; returns; returns = next) {
        next = returns->next;
        if (returns->id)
            session_mail_line(returns->session, jsonrpc_result_line(returns->id, "{\"kept\":[]}"));
        json_decref(returns->id);
        session_unref(returns->session);
        free(returns);
    }
}

void grant_unpublish(struct grant *grant)
{
    answer_returns(take_returns(grant));
}

/* The kernel's stale pages are gone, too: the end can be told. */
static void told(void *arg)
{
    struct grant *grant = arg;
    struct mail *letter = NULL;

    if (grant->cut) {
        cut_told(grant);
        return;
    }
    grant_unpublish(grant);
    if (grant->reason != LEASE_END_RETURNED && grant->reason != LEASE_END_SESSION)
        letter = session_letter(grant->session,
                                jsonrpc_notification(LEASEFS_NOTIFY_REVOKED,
                                                     json_pack("{s:I, s:I, s:s}", "lease", (json_int_t)grant->lease_id,
                                                               "sequence", (json_int_t)grant->sequence, "reason",
                                                               lease_end_reason_name(grant->reason))));
    if (letter)
        mail_post_news(grant, letter);
    grant_unref(grant);
}

/* No proof. The file gets copies; then the blocks can be used again if other memory takes the place of the exposed
 * one, and else never. */
static bool without_proof(struct grant *grant, int error)
{
    const struct lease_service_config *c = &grant->service->config;
    unsigned long long id = grant->lease_id;

    service_log("ALARM: lease %llu: no mechanism proved the end of remote access (%s); its blocks are quarantined", id,
                strerror(-error));
    error = c->layout->detach(c->fs, grant->hold);
    if (error) {
        service_log("ALARM: lease %llu: the file could not be given copies of its blocks (%s): remote writes may still "
                    "show in it",
                    id, strerror(-error));
        return false;
    }
    if (!c->exposure->orphan || !c->layout->sole(c->fs, grant->hold) || c->exposure->orphan(grant->exposure))
        return false;
    service_log("lease %llu: the quarantine is over: its blocks have new pages, the device keeps the old ones", id);
    c->layout->release(c->fs, grant->hold);
    return true;
}

/* True: proven, everything released. */
static bool after_fence(struct grant *grant, int error)
{
    const struct lease_service_config *c = &grant->service->config;

    if (grant->mode == LEASE_WRITE) /* with proof or without: its holder may have written */
        c->layout->committed(c->fs, grant->inode, grant->range, UINT64_MAX);
    if (error)
        return without_proof(grant, error);
    c->exposure->drop(grant->exposure);
    if (grant->cut)
        cut_hold(grant);
    c->layout->release(c->fs, grant->hold); /* last: it also keeps the inode */
    return true;
}

bool fence_exposure(struct grant *grant)
{
    const struct lease_service_config *c = &grant->service->config;

    c->exposure->revoke(grant->exposure);
    return after_fence(grant, c->exposure->fence(grant->exposure));
}

/* On a fence worker, or on the thread that has taken over from one that is stuck. */
static void fence_ended(void *arg, int error)
{
    struct grant *grant = arg;
    const struct lease_service_config *c = &grant->service->config;
    bool proven = after_fence(grant, error);

    /* Resumes the parked requests. Only then may the page cache be touched: it may wait for a page that one of them
     * holds locked. */
    lease_fenced(grant->service->table, grant->lease_id, proven, service_now_ns());
    if (grant->cut)
        cut_keep(grant);
    if (grant->mode == LEASE_WRITE)
        c->layout->invalidate(c->fs, grant->inode, grant->range, told, grant);
    else
        told(grant);
}

void fence_run(struct work *work)
{
    struct grant *grant = container(work, struct grant, fence);
    const struct exposure_ops *fabric = grant->service->config.exposure;
    int error;

    if (fabric->take_back) {
        error = fabric->take_back(grant->exposure, grant->at_leisure, fence_ended, grant);
    } else {
        fabric->revoke(grant->exposure);
        error = fabric->fence(grant->exposure);
    }
    if (error != -EINPROGRESS) /* else the grant may be gone by now */
        fence_ended(grant, error);
}

/* Takes the answer's place in the queue before the lease can end, so that the end finds it. */
void fence_return(struct session *session, json_t *id, uint64_t lease_id, uint32_t sequence)
{
    struct lease_service *service = session->service;
    struct pending_return *pending = calloc(1, sizeof(*pending));
    struct grant *grant;
    int error = 0;

    pthread_mutex_lock(&service->lock);
    HASH_FIND(hh, service->grants_by_id, &lease_id, sizeof(lease_id), grant);
    if (!grant || grant->session != session)
        error = -ENOENT;
    else if (grant->n_returns == GRANT_MAX_RETURNS)
        error = -EAGAIN;
    else if (!pending)
        error = -ENOMEM;
    if (!error) {
        pending->id = json_deep_copy(id);
        pending->session = session_ref(session);
        pending->next = grant->returns;
        grant->returns = pending;
        grant->n_returns++;
    }
    pthread_mutex_unlock(&service->lock);
    if (error) {
        free(pending);
        return_refuse(session, id, error);
        return;
    }
    error = lease_return(service->table, session->id, lease_id, sequence, service_now_ns());
    if (error == -EINVAL) {
        struct pending_return **place;

        pthread_mutex_lock(&service->lock);
        HASH_FIND(hh, service->grants_by_id, &lease_id, sizeof(lease_id), grant);
        for (place = grant ? &grant->returns : NULL; place && *place != pending; place = &(*place)->next)
            ;
        if (place) {
            *place = pending->next;
            grant->n_returns--;
        }
        pthread_mutex_unlock(&service->lock);
        if (!place)
            return; /* it ended meanwhile, and was answered */
        json_decref(pending->id);
        session_unref(pending->session);
        free(pending);
        return_refuse(session, id, error);
    }
}

static void tell_recall(struct grant *grant, const struct lease_info *info)
{
    uint64_t now_ns = service_now_ns();
    uint64_t left_ns = info->recall_deadline_ns > now_ns ? info->recall_deadline_ns - now_ns : 0;
    struct lease_range wanted = range_round_out(info->wanted, LEASEFS_BLOCK_SIZE);
    bool recalled = info->state == LEASE_RECALLED;

    if (recalled)
        session_send(
            grant->session,
            jsonrpc_notification(LEASEFS_NOTIFY_RECALL,
                                 json_pack("{s:I, s:I, s:I, s:I, s:I}", "lease", (json_int_t)info->lease_id, "sequence",
                                           (json_int_t)info->sequence, "offset", (json_int_t)wanted.offset, "length",
                                           (json_int_t)wanted.length, "deadline_ms", (json_int_t)(left_ns / 1000000))));
    else if (grant->told_recall)
        session_send(grant->session, jsonrpc_notification(LEASEFS_NOTIFY_RECALL_CANCELLED,
                                                          json_pack("{s:I, s:I}", "lease", (json_int_t)info->lease_id,
                                                                    "sequence", (json_int_t)info->sequence)));
    grant->told_recall = recalled;
}

static void tell_orphaned(struct grant *grant, const struct lease_info *info)
{
    struct lease_range blocks = range_round_out(info->orphaned, LEASEFS_BLOCK_SIZE);

    if (blocks.offset == grant->told_orphaned.offset && blocks.length == grant->told_orphaned.length)
        return;
    session_send(grant->session,
                 jsonrpc_notification(LEASEFS_NOTIFY_ORPHANED,
                                      json_pack("{s:I, s:I, s:I, s:I}", "lease", (json_int_t)info->lease_id, "sequence",
                                                (json_int_t)info->sequence, "offset", (json_int_t)blocks.offset,
                                                "length", (json_int_t)blocks.length)));
    grant->told_orphaned = blocks;
}

/* Tells the holder how its lease stands now: a recall and its cancelling that crossed need no message at all. */
void notice_deliver(struct mail *mail)
{
    struct grant *grant = container(mail, struct grant, notice);
    struct lease_service *service = grant->service;
    struct lease_info info;

    pthread_mutex_lock(&service->lock);
    grant->notice_queued = false;
    pthread_mutex_unlock(&service->lock);
    if (lease_get(service->table, grant->lease_id, &info) == 0 &&
        (info.state == LEASE_ACTIVE || info.state == LEASE_RECALLED)) {
        if (info.orphaned.length)
            tell_orphaned(grant, &info);
        if (info.state == LEASE_RECALLED || grant->told_recall)
            tell_recall(grant, &info);
    }
    grant_unref(grant);
}
