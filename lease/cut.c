/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * "return" of a part, or of the right to write (lease_cut.c has the picture). On the control thread, so that messages
 * take effect in the order they were sent:
 *
 *   lease_cut > [remnant: gate > fence > hold the pieces > release > lease_fenced > expose the pieces > lease_commit]
 *             > stale pages dropped > answer
 *
 * What is in brackets is the fence worker's. The pieces are exposed after the fence, when the old memory is no longer
 * locked: a lease of half of what may be locked can be cut. Whoever waits for what was given back goes on before that.
 * Later returns of the same lease wait here until its cut is through, and commits that meet it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lease/service_private.h"

#define MAX_DEFERRED SESSION_MAX_REQUESTS

struct cut {
    struct lease_cut asked;
    json_t *id;
    struct grant *pieces[2]; /* with a reference each; the first is the lease's own */
    json_t *kept;            /* array: those that were exposed anew */
    int error;               /* why there is none */
    bool proven;             /* cut_hold() was called */
    struct mail mail;
};

/* ---- on the fence worker ---- */

/* A piece of the lease; before, the same memory was reached through the remnant. */
static int hold_piece(struct grant *remnant, struct grant *piece, struct lease_range range)
{
    const struct lease_service_config *c = &remnant->service->config;

    piece->range = range;
    piece->mode = remnant->cut->asked.mode;
    return c->layout->hold_part(c->fs, remnant->hold, range, piece->mode, &piece->hold, &piece->runs, &piece->n_runs);
}

void cut_hold(struct grant *remnant)
{
    const struct lease_service_config *c = &remnant->service->config;
    struct cut *cut = remnant->cut;
    struct lease_range ranges[2];
    size_t n = range_without(remnant->range, cut->asked.part, ranges), done = 0;

    cut->proven = true;
    if (atomic_load(&remnant->session->ended))
        cut->error = -ESTALE;
    for (; done < n && !cut->error; done += !cut->error)
        cut->error = hold_piece(remnant, cut->pieces[done], ranges[done]);
    while (cut->error && done)
        c->layout->release(c->fs, cut->pieces[--done]->hold);
}

/* All of them, or none. */
static int expose_pieces(struct cut *cut)
{
    const struct lease_service_config *c = &cut->pieces[0]->service->config;
    int error = cut->asked.n_kept == 2 ? grant_publish(cut->pieces[1]) : 0;
    size_t done = 0;

    for (; done < cut->asked.n_kept && !error; done += !error)
        error = grant_expose(cut->pieces[done]);
    if (!error)
        return 0;
    for (size_t i = done; i < cut->asked.n_kept; i++)
        c->layout->release(c->fs, cut->pieces[i]->hold);
    while (done)
        fence_exposure(cut->pieces[--done]);
    return error;
}

/* The table's reference goes with the lease. */
static void end_piece(struct grant *piece, uint64_t lease_id)
{
    lease_abort(piece->service->table, lease_id, service_now_ns());
    grant_unpublish(piece);
    grant_unref(piece);
}

static int commit_piece(struct cut *cut, struct grant *piece, uint64_t lease_id)
{
    struct lease_info info;
    int error = lease_commit(piece->service->table, lease_id, service_now_ns(), piece, &info);

    if (error) { /* revoked meanwhile, or the session ended */
        fence_exposure(piece);
        end_piece(piece, lease_id);
        return error;
    }
    json_array_append_new(cut->kept, grant_json(piece, &info));
    return 0;
}

void cut_keep(struct grant *remnant)
{
    struct cut *cut = remnant->cut;
    size_t n = cut->asked.n_kept;
    int error;

    if (!cut->proven)
        cut->error = -EIO;
    if (n == 2)
        cut->pieces[1]->lease_id = cut->asked.kept[1];
    if (!cut->error)
        cut->error = expose_pieces(cut);
    for (size_t i = 0; i < n; i++) {
        if (cut->error) {
            end_piece(cut->pieces[i], cut->asked.kept[i]);
            continue;
        }
        error = commit_piece(cut, cut->pieces[i], cut->asked.kept[i]);
        if (error && i + 1 == n && json_array_size(cut->kept) == 0)
            cut->error = error;
    }
}

/* ---- the answer, on the control thread ---- */

static json_t *answer(const struct cut *cut)
{
    struct refusal refusal = {.error = cut->error, .remedy = expose_remedy(cut->error)};
    const char *what = !cut->proven            ? "nothing proved the end of remote access: the whole lease has ended"
                       : cut->error == -ESTALE ? "the lease was revoked meanwhile: all of it has ended"
                                               : "the rest could not be exposed again: the whole lease has ended";

    if (!cut->error)
        return jsonrpc_result(cut->id, json_pack("{s:O}", "kept", cut->kept));
    if (refusal.remedy)
        refusal.reason = LEASEFS_REASON_LIMIT;
    else
        refusal.remedy = "Ask for a new lease.";
    return refusal_message(cut->id, &refusal, what);
}

static void resume_deferred(struct session *session, struct grant *grant)
{
    struct give_back *said, *oldest = NULL;

    while ((said = grant->deferred)) { /* the last first */
        grant->deferred = said->next;
        said->next = oldest;
        oldest = said;
    }
    grant->n_deferred = 0;
    while ((said = oldest)) {
        oldest = said->next;
        cut_return(session, said); /* it may be deferred once more, by one of these */
        json_decref(said->id);
        free(said);
    }
}

/* ---- requests that wait until a cut is through ---- */

static void go_on(struct request *request)
{
    workqueue_push(request->session->service->grants, &request->work);
}

static void resume_waiting(struct grant *grant)
{
    struct request *request;

    while ((request = grant->waiting)) {
        grant->waiting = request->next_waiting;
        go_on(request);
    }
}

/* The cut may be through by now: then the request finds out by itself what is left of the lease. */
static void deliver_waiting(struct mail *mail)
{
    struct request *request = container(mail, struct request, mail);
    struct grant *grant = grant_find(request->session->service, request->lease_id);

    if (grant && grant->cutting) {
        request->next_waiting = grant->waiting;
        grant->waiting = request;
    } else {
        go_on(request);
    }
    if (grant)
        grant_unref(grant);
}

void cut_wait(struct request *request)
{
    request->mail.deliver = deliver_waiting;
    mail_post(request->session->service, &request->mail);
}

static void cut_free(struct cut *cut)
{
    for (int i = 0; i < 2; i++)
        if (cut->pieces[i])
            grant_unref(cut->pieces[i]);
    json_decref(cut->id);
    json_decref(cut->kept);
    free(cut);
}

static void deliver(struct mail *mail)
{
    struct cut *cut = container(mail, struct cut, mail);
    struct grant *lease = cut->pieces[0];
    struct session *session = lease->session;

    session_answer(session, cut->id, answer(cut));
    for (size_t i = 0; i < cut->asked.n_kept; i++)
        grant_announced(cut->pieces[i]);
    lease->cutting = false;
    resume_waiting(lease); /* before what was said later, which may cut again */
    resume_deferred(session, lease);
    cut_free(cut);
}

void cut_told(struct grant *remnant)
{
    struct cut *cut = remnant->cut;

    cut->mail.deliver = deliver;
    mail_post(remnant->service, &cut->mail);
    grant_unref(remnant);
}

/* ---- the message, on the control thread ---- */

static struct grant *grant_beside(struct grant *of)
{
    struct grant *grant = calloc(1, sizeof(*grant));

    if (!grant)
        return NULL;
    grant->service = of->service;
    grant->session = session_ref(of->session);
    atomic_init(&grant->refs, 1);
    grant->early_end = &grant->early;
    grant->inode = of->inode;
    grant->fence.run = fence_run;
    grant->notice.deliver = notice_deliver;
    service_busy(grant->service);
    return grant;
}

/* The remnant's grant, with all that is needed after the table's word, which cannot be taken back. */
static struct grant *remnant_new(struct grant *of, const struct give_back *said, struct lease_range part,
                                 enum lease_mode mode)
{
    struct lease_range ranges[2];
    bool two = range_without(of->range, part, ranges) == 2;
    struct grant *remnant = grant_beside(of);
    struct cut *cut = remnant ? calloc(1, sizeof(*cut)) : NULL;

    if (!cut)
        goto undo;
    cut->asked = (struct lease_cut){.part = part, .mode = mode, .exposure = remnant};
    cut->id = json_deep_copy(said->id);
    cut->kept = json_array();
    cut->pieces[1] = two ? grant_beside(of) : NULL;
    if (cut->pieces[1])
        atomic_fetch_add(&cut->pieces[1]->refs, 1); /* the table's and the cut's */
    if (!cut->kept || (said->id && !cut->id) || (two && !cut->pieces[1]))
        goto undo;
    cut->pieces[0] = of;
    atomic_fetch_add(&of->refs, 1);
    remnant->cut = cut;
    remnant->range = of->range;
    remnant->mode = of->mode;
    remnant->hold = of->hold;
    remnant->runs = of->runs;
    remnant->n_runs = of->n_runs;
    remnant->exposure = of->exposure;
    return remnant;

undo:
    if (cut) {
        if (cut->pieces[1])
            grant_unref(cut->pieces[1]);
        cut_free(cut);
    }
    if (remnant)
        grant_unref(remnant);
    return NULL;
}

static void remnant_undo(struct grant *remnant)
{
    struct cut *cut = remnant->cut;

    if (cut->pieces[1])
        grant_unref(cut->pieces[1]);
    cut_free(cut);
    grant_unref(remnant);
}

void return_refuse(struct session *session, json_t *id, int error)
{
    struct refusal refusal = {.error = error};
    const char *what = strerror(-error);

    if (error == -ENOENT) {
        refusal.remedy = "It has ended: nothing is left to return.";
        what = "no such lease of this session";
    } else if (error == -EINVAL) {
        refusal.remedy = "Use the sequence number of the grant or the last notice.";
        what = "a sequence number that this lease never had";
    } else if (error == -EMFILE) {
        refusal.reason = LEASEFS_REASON_LIMIT;
        refusal.remedy = "Return a part at an end of the lease, or all of it.";
        what = "two pieces would be left, one lease too many";
    } else if (error == -EPERM) {
        refusal.remedy = "Return the lease, and ask for one with mode write.";
        what = "a read lease does not become a write lease";
    } else if (error == -EAGAIN) {
        refusal.reason = LEASEFS_REASON_LIMIT;
        refusal.remedy = "Wait for the answers to earlier ones.";
        what = "too many returns of this lease are under way";
    }
    session_answer(session, id, refusal_message(id, &refusal, what));
}

/* false: nothing has begun, and the whole lease is ending or has ended. */
static bool start(struct session *session, struct grant *grant, const struct give_back *said, struct lease_range part,
                  enum lease_mode mode)
{
    struct lease_service *service = session->service;
    struct grant *remnant = remnant_new(grant, said, part, mode);
    int error = -ENOMEM;

    if (!remnant) {
        return_refuse(session, said->id, error);
        return true;
    }
    pthread_mutex_lock(&service->lock);
    grant->announced = false; /* its news follow the answer */
    pthread_mutex_unlock(&service->lock);
    error =
        lease_cut(service->table, session->id, said->lease_id, said->sequence, service_now_ns(), &remnant->cut->asked);
    if (!error) {
        grant->cutting = true;
        grant->told_recall = false; /* the answer's sequence number says how it stands */
        return true;
    }
    remnant_undo(remnant);
    grant_announced(grant);
    if (error == -EALREADY)
        return false;
    return_refuse(session, said->id, error == -EINPROGRESS ? -ENOENT : error);
    return true;
}

/* Nothing of the lease is asked for: said again what was carried out already, perhaps. */
static bool answer_unchanged(struct session *session, struct grant *grant, const struct give_back *said)
{
    struct lease_info info;

    if (lease_get(session->service->table, said->lease_id, &info) ||
        (info.state != LEASE_ACTIVE && info.state != LEASE_RECALLED))
        return false;
    if (said->sequence > info.sequence)
        return_refuse(session, said->id, -EINVAL);
    else
        session_answer(session, said->id,
                       jsonrpc_result(said->id, json_pack("{s:[o]}", "kept", grant_json(grant, &info))));
    return true;
}

static bool return_part(struct session *session, struct grant *grant, const struct give_back *said)
{
    struct lease_range part = range_common(range_round_in(said->part, LEASEFS_BLOCK_SIZE), grant->range), left[2];
    enum lease_mode mode = said->mode ? said->mode : grant->mode;

    if (mode == LEASE_WRITE && grant->mode == LEASE_READ) {
        return_refuse(session, said->id, -EPERM);
        return true;
    }
    if (range_without(grant->range, part, left) == 0)
        return false;
    if (!part.length && mode == grant->mode)
        return answer_unchanged(session, grant, said);
    return start(session, grant, said, part, mode);
}

static void defer(struct session *session, struct grant *grant, const struct give_back *said)
{
    struct give_back *copy = grant->n_deferred < MAX_DEFERRED ? malloc(sizeof(*copy)) : NULL;

    if (!copy) {
        return_refuse(session, said->id, -EAGAIN);
        return;
    }
    *copy = *said;
    copy->id = json_deep_copy(said->id);
    copy->next = grant->deferred;
    grant->deferred = copy;
    grant->n_deferred++;
}

void cut_return(struct session *session, const struct give_back *said)
{
    struct grant *grant = grant_find(session->service, said->lease_id);

    if (!grant || grant->session != session)
        return_refuse(session, said->id, -ENOENT);
    else if (grant->cutting)
        defer(session, grant, said);
    else if (!said->in_part || !return_part(session, grant, said))
        fence_return(session, said->id, said->lease_id, said->sequence);
    if (grant)
        grant_unref(grant);
}
