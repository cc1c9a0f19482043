/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdlib.h>

#include "rdma/exposure.h"
#include "rdma/internal.h"
#include "rdma/region.h"
#include "rdma/spare.h"
#include "rdma/sync.h"

static int mode_access(enum lease_mode mode)
{
    if (mode == LEASE_WRITE)
        return IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
    return IBV_ACCESS_REMOTE_READ;
}

static void enlist(struct fabric *fabric, struct exposure *exposure)
{
    pthread_mutex_lock(&fabric->lock);
    LIST_INSERT_HEAD(&fabric->exposures, exposure, link);
    fabric->counters.exposures++;
    fabric->counters.exposures_now++;
    fabric->counters.bytes += exposure->length;
    fabric->counters.bytes_now += exposure->length;
    pthread_mutex_unlock(&fabric->lock);
}

static void count_failure(struct fabric *fabric)
{
    pthread_mutex_lock(&fabric->lock);
    fabric->counters.expose_failed++;
    pthread_mutex_unlock(&fabric->lock);
}

static struct spare_range range_of(const struct exposure *exposure)
{
    return (struct spare_range){
        .segments = exposure->segments,
        .runs = exposure->runs,
        .n_runs = exposure->n_runs,
        .offset = exposure->offset,
        .length = exposure->length,
        .writes = exposure->writes,
    };
}

/* False: there is none of these blocks. */
static bool use_spare(struct exposure *exposure)
{
    struct fabric *fabric = exposure->session->fabric;
    const struct spare_range range = range_of(exposure);
    struct spare *spare = exposure->style == EXPOSURE_PINNED ? spares_take(fabric, &range) : NULL;
    int r;

    if (!spare)
        return false;
    r = region_adopt(exposure->session, spare, mode_access(exposure->writes ? LEASE_WRITE : LEASE_READ),
                     &exposure->region);
    if (r < 0)
        window_free(spare->window);
    else
        spares_count_taken(fabric);
    spare_free(spare);
    return r == 0;
}

static int register_anew(struct exposure *exposure)
{
    struct fabric *fabric = exposure->session->fabric;
    /* For a memory window the MR is pinned as if to write, whatever the key allows. */
    bool writable = exposure->writes || exposure->style == EXPOSURE_WINDOWED || fabric->pins_to_write;
    unsigned flags = (writable ? WINDOW_WRITABLE : 0u) | (exposure->style == EXPOSURE_ON_DEMAND ? WINDOW_OWN : 0u);
    struct window *window;
    int r = window_new(&fabric->windows, exposure->segments, exposure->runs, exposure->n_runs, flags, &window);

    if (r < 0)
        return r;
    r = -EINVAL;
    if (exposure->length != window_length(window))
        goto undo_window;
    r = region_new(exposure->session, window, exposure->offset,
                   mode_access(exposure->writes ? LEASE_WRITE : LEASE_READ), exposure->style, &exposure->region);
    if (r < 0)
        goto undo_window;
    return 0;

undo_window:
    window_free(window);
    return r;
}

static int make_exposure(struct exposure *exposure)
{
    int r;

    if (use_spare(exposure))
        return 0;
    r = register_anew(exposure);
    if ((r == -ENOMEM || r == -E2BIG) && spares_give_back(exposure->session->fabric))
        r = register_anew(exposure);
    return r;
}

int exposure_expose_as(struct exposure_session *session, const struct exposure_request *request,
                       enum exposure_style style, struct exposure **ret_exposure, struct exposure_grant *ret_grant)
{
    struct exposure *exposure;
    int r;

    if (request->mode != LEASE_READ && request->mode != LEASE_WRITE)
        return -EINVAL;
    exposure = calloc(1, sizeof(*exposure));
    if (!exposure)
        return -ENOMEM;
    exposure->style = style;
    exposure->session = session;
    exposure->segments = request->segments;
    exposure->runs = request->runs;
    exposure->n_runs = request->n_runs;
    exposure->offset = request->range.offset;
    exposure->length = request->range.length;
    exposure->writes = request->mode == LEASE_WRITE;
    r = make_exposure(exposure);
    if (r < 0) {
        count_failure(session->fabric);
        free(exposure);
        return r;
    }
    enlist(session->fabric, exposure);
    if (exposure->writes)
        session_add_writer(session);
    ret_grant->remote_address = region_remote_address(exposure->region);
    ret_grant->rkey = region_rkey(exposure->region);
    *ret_exposure = exposure;
    return 0;
}

int exposure_expose(struct exposure_session *session, const struct exposure_request *request,
                    struct exposure **ret_exposure, struct exposure_grant *ret_grant)
{
    return exposure_expose_as(session, request, session->fabric->style, ret_exposure, ret_grant);
}

static void free_exposure(struct exposure *exposure)
{
    struct fabric *fabric = exposure->session->fabric;

    pthread_mutex_lock(&fabric->lock);
    LIST_REMOVE(exposure, link);
    fabric->counters.exposures_now--;
    fabric->counters.bytes_now -= exposure->length;
    pthread_mutex_unlock(&fabric->lock);
    if (exposure->writes)
        session_remove_writer(exposure->session);
    region_retire(exposure->region);
    free(exposure);
}

void exposure_abandon(struct exposure *exposure)
{
    free_exposure(exposure);
}

#ifdef LEASEFS_HAZARD

/* The negative control: no gate, no fence, and the caller is told otherwise. */
int exposure_revoke(struct exposure *exposure)
{
    (void)exposure;
    return 0;
}

int exposure_fence(struct exposure *exposure)
{
    (void)exposure;
    (void)free_exposure;
    return 0;
}

int exposure_take_back(struct exposure *exposure, bool at_leisure, void (*late)(void *arg, int error), void *arg)
{
    (void)exposure;
    (void)at_leisure;
    (void)late;
    (void)arg;
    return 0;
}

int exposure_orphan(struct exposure *exposure)
{
    (void)exposure;
    return -EOPNOTSUPP;
}

void exposure_drop(struct exposure *exposure)
{
    (void)exposure;
}

#else

int exposure_revoke(struct exposure *exposure)
{
    return revoke_gate(&exposure->session->fabric->ladder, exposure);
}

static int note_fence(struct exposure *exposure, int r)
{
    if (r == 0)
        atomic_store(&exposure->fenced, true);
    else
        fabric_log("session %llu: no proof that remote access to %llu bytes has ended",
                   (unsigned long long)exposure->session->id, (unsigned long long)exposure->length);
    return r;
}

int exposure_fence(struct exposure *exposure)
{
    if (atomic_load(&exposure->fenced))
        return 0;
    return note_fence(exposure, revoke_fence(&exposure->session->fabric->ladder, exposure));
}

static int climb_on(struct exposure *exposure)
{
    int r = revoke_climb_on(&exposure->climb);

    if (r == -EINPROGRESS)
        return r;
    exposure->successor = NULL;
    return note_fence(exposure, r);
}

/* On a helper: the thread that climbed is stuck. */
static void go_on(struct helper_job *job)
{
    struct exposure *exposure = (struct exposure *)job;
    int r = climb_on(exposure);

    if (r != -EINPROGRESS)
        exposure->late(exposure->late_arg, r);
}

int exposure_take_back(struct exposure *exposure, bool at_leisure, void (*late)(void *arg, int error), void *arg)
{
    if (atomic_load(&exposure->fenced))
        return 0;
    exposure->late = late;
    exposure->late_arg = arg;
    exposure->go_on.run = go_on;
    exposure->successor = &exposure->go_on;
    revoke_climb_begin(&exposure->climb, &exposure->session->fabric->ladder, exposure, at_leisure);
    return climb_on(exposure);
}

int exposure_orphan(struct exposure *exposure)
{
    int r = revoke_orphan(&exposure->session->fabric->ladder, exposure);

    if (r < 0)
        return r;
    exposure->n_runs = 0;
    spares_give_back(exposure->session->fabric); /* they may be of the old pages */
    fabric_log("session %llu: %llu bytes have new pages; the old ones stay with the device",
               (unsigned long long)exposure->session->id, (unsigned long long)exposure->length);
    return 0;
}

void exposure_drop(struct exposure *exposure)
{
    if (!atomic_load(&exposure->fenced)) {
        fabric_log("session %llu: an exposure without a fence is kept", (unsigned long long)exposure->session->id);
        return;
    }
    if (exposure->style == EXPOSURE_PINNED) {
        const struct spare_range range = range_of(exposure);

        spares_make(exposure->session->fabric, &range);
    }
    free_exposure(exposure);
}

#endif
