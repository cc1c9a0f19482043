/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/fabric.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lease/lock_order.h"
#include "rdma/connection.h"
#include "rdma/device.h"
#include "rdma/faults.h"
#include "rdma/internal.h"
#include "rdma/mw.h"
#include "rdma/sync.h"

#define STOP_NS (5 * NS_PER_S)

static int init_state(struct fabric *fabric)
{
    int r = sync_cond_init(&fabric->changed);

    if (r < 0)
        return r;
    pthread_mutex_init(&fabric->lock, NULL);
    lock_rank(&fabric->lock, LOCK_FABRIC, 0);
    LIST_INIT(&fabric->sessions);
    LIST_INIT(&fabric->connections);
    LIST_INIT(&fabric->exposures);
    spares_init(&fabric->spares, 0);
    r = keys_new(&fabric->keys);
    if (r < 0) {
        pthread_mutex_destroy(&fabric->lock);
        pthread_cond_destroy(&fabric->changed);
        return r;
    }
    windows_init(&fabric->windows, windows_default_limit());
    fabric->now_ns = monotonic_ns;
    return 0;
}

static void free_state(struct fabric *fabric)
{
    windows_destroy(&fabric->windows);
    keys_free(fabric->keys);
    pthread_mutex_destroy(&fabric->lock);
    pthread_cond_destroy(&fabric->changed);
}

static int open_device(struct fabric *fabric, const struct fabric_config *config, char **ret_error)
{
    int r;

    fabric->channel = device_event_channel(ret_error);
    if (!fabric->channel)
        return -ENODEV;
    r = device_bind(fabric->channel, config->device, config->port, &fabric->listen_id, ret_error);
    if (r < 0)
        goto undo_channel;
    fabric->verbs = fabric->listen_id->verbs;
    r = -ibv_query_device(fabric->verbs, &fabric->attr);
    if (r < 0) {
        fabric_error(ret_error, r, "cannot ask the RDMA device what it can do: %s", strerror(-r));
        goto undo_id;
    }
    fabric->completions = ibv_create_comp_channel(fabric->verbs);
    if (!fabric->completions) {
        r = fabric_error(ret_error, -ENOMEM, "cannot create a completion channel: %s", strerror(errno));
        goto undo_id;
    }
    fabric->quarantine = ibv_alloc_pd(fabric->verbs);
    if (!fabric->quarantine) {
        r = fabric_error(ret_error, -ENOMEM, "cannot create a protection domain: %s", strerror(errno));
        goto undo_completions;
    }
    device_driver(fabric->verbs, fabric->driver, sizeof(fabric->driver));
    fabric->rereg = rereg_probe(fabric->verbs, &fabric->rereg_moves);
    fabric->pins_to_write = device_pins_to_write(fabric->verbs);
    fabric->windows_work = mw_probe(fabric->listen_id);
    fabric->on_demand_works = device_on_demand(fabric->verbs);
    return 0;

undo_completions:
    ibv_destroy_comp_channel(fabric->completions);
undo_id:
    rdma_destroy_id(fabric->listen_id);
undo_channel:
    rdma_destroy_event_channel(fabric->channel);
    return r;
}

static void close_device(struct fabric *fabric)
{
    ibv_dealloc_pd(fabric->quarantine);
    ibv_destroy_comp_channel(fabric->completions);
    addresses_close(fabric);
    rdma_destroy_id(fabric->listen_id);
    rdma_destroy_event_channel(fabric->channel);
}

static int start_threads(struct fabric *fabric)
{
    int r = helper_pool_new(FABRIC_HELPERS_MAX, &fabric->helpers);

    if (r < 0)
        return r;
    r = helper_pool_new(FABRIC_CLOSERS_MAX, &fabric->closers);
    if (r < 0)
        goto undo_helpers;
    r = watchdog_new(fabric->helpers, FABRIC_WATCHED_MAX, &fabric->watchdog);
    if (r < 0)
        goto undo_closers;
    r = listener_start(fabric);
    if (r < 0)
        goto undo_watchdog;
    if (rdma_listen(fabric->listen_id, FABRIC_BACKLOG) < 0) {
        r = -errno;
        goto undo_listener;
    }
    return 0;

undo_listener:
    listener_stop(fabric);
undo_watchdog:
    watchdog_free(fabric->watchdog, UINT64_MAX);
undo_closers:
    helper_pool_free(fabric->closers, UINT64_MAX);
undo_helpers:
    helper_pool_free(fabric->helpers, UINT64_MAX);
    return r;
}

static int check_chosen(struct fabric *fabric, char **ret_error)
{
    if (fabric->ladder.chosen && revoke_ladder_has(&fabric->ladder, "rereg") && fabric->rereg == REREG_NONE)
        return fabric_error(ret_error, -EOPNOTSUPP, "revoke=: rereg does not work on this device: %s",
                            rereg_path_name(REREG_NONE));
    if (revoke_ladder_has(&fabric->ladder, "mw")) {
        if (!fabric->windows_work)
            return fabric_error(ret_error, -EOPNOTSUPP,
                                "revoke=: mw does not work here: the device, or its driver, has no memory windows of "
                                "type 1");
        if (revoke_ladder_has(&fabric->ladder, "odp"))
            return fabric_error(ret_error, -EINVAL,
                                "revoke=: mw and odp register memory in different ways; name one of them");
        fabric->style = EXPOSURE_WINDOWED;
    }
    if (revoke_ladder_has(&fabric->ladder, "odp")) {
        if (!fabric->on_demand_works)
            return fabric_error(ret_error, -EOPNOTSUPP,
                                "revoke=: odp does not work here: the device, or its driver in this kernel, has no "
                                "memory on demand (soft-RoCE has it from Linux 6.15 on)");
        fabric->style = EXPOSURE_ON_DEMAND;
    }
    return 0;
}

/* Whoever takes one needs rereg, and leases whose keys are MRs' own. */
static void start_spares(struct fabric *fabric, uint64_t limit)
{
    bool possible = fabric->rereg_moves && fabric->style == EXPOSURE_PINNED;

    if (limit && !possible)
        fabric_log("nothing is registered ahead: %s", fabric->rereg_moves
                                                          ? "mw and odp register memory in other ways"
                                                          : "the device, or its driver, cannot change a registration");
    spares_init(&fabric->spares, possible ? limit : 0);
}

int fabric_start(const struct fabric_config *config, struct fabric **ret_fabric, char **ret_error)
{
    struct fabric *fabric = calloc(1, sizeof(*fabric));
    int r;

    if (!fabric)
        return fabric_error(ret_error, -ENOMEM, "no memory");
    r = init_state(fabric);
    if (r < 0) {
        fabric_error(ret_error, r, "cannot initialize: %s", strerror(-r));
        goto undo_fabric;
    }
    r = revoke_ladder_init(&fabric->ladder, fabric_mechanisms, FABRIC_MECHANISMS, config->revoke, ret_error);
    if (r < 0)
        goto undo_state;
    r = open_device(fabric, config, ret_error);
    if (r < 0)
        goto undo_ladder;
    r = check_chosen(fabric, ret_error);
    if (r < 0)
        goto undo_device;
    r = start_threads(fabric);
    if (r < 0) {
        fabric_error(ret_error, r, "cannot listen for RDMA connections: %s", strerror(-r));
        goto undo_device;
    }
    start_spares(fabric, config->spare_bytes);
#ifndef LEASEFS_HAZARD
    r = proof_run(fabric, ret_error);
    if (r < 0) {
        fabric_stop(fabric);
        return r;
    }
    faults_after_start();
#else
    fabric_log("THIS IS A TEST BUILD THAT CORRUPTS FILES: revocation is switched off");
#endif
    *ret_fabric = fabric;
    return 0;

undo_device:
    close_device(fabric);
undo_ladder:
    revoke_ladder_destroy(&fabric->ladder);
undo_state:
    free_state(fabric);
undo_fabric:
    free(fabric);
    return r;
}

/* True when no connection is left. */
static bool close_sessions(struct fabric *fabric, uint64_t deadline_ns)
{
    struct exposure_session *session;
    bool empty;
    int r = 0;

    pthread_mutex_lock(&fabric->lock);
    fabric->stopping = true;
    while ((session = LIST_FIRST(&fabric->sessions))) {
        pthread_mutex_unlock(&fabric->lock);
        session_close(session);
        pthread_mutex_lock(&fabric->lock);
    }
    while (!LIST_EMPTY(&fabric->connections) && r != -ETIMEDOUT)
        r = sync_wait_until(&fabric->changed, &fabric->lock, deadline_ns);
    empty = LIST_EMPTY(&fabric->connections);
    pthread_mutex_unlock(&fabric->lock);
    return empty;
}

void fabric_stop(struct fabric *fabric)
{
    uint64_t deadline = monotonic_ns() + STOP_NS;
    bool clean;

    if (!fabric)
        return;
    clean = close_sessions(fabric, deadline);
    /* Helpers first: a call that comes back can leave work to the closers. The event thread last: tear-downs wait for
     * it. */
    clean &= watchdog_free(fabric->watchdog, deadline) == 0;
    clean &= helper_pool_free(fabric->helpers, deadline) == 0;
    clean = clean && helper_pool_free(fabric->closers, deadline) == 0;
    listener_stop(fabric);
    if (!clean || fabric->n_objects) {
        /* A stuck call, or a quarantined exposure: the kernel takes it apart when the process ends. */
        fabric_log("stopped with %u sessions that still have memory registered", fabric->n_objects);
        return;
    }
    spares_give_back(fabric);
    close_device(fabric);
    revoke_ladder_destroy(&fabric->ladder);
    free_state(fabric);
    free(fabric);
}

static uint64_t fence_bound_ns(void *fabric)
{
    return revoke_fence_bound_ns(&((struct fabric *)fabric)->ladder);
}

const struct exposure_ops fabric_exposure_ops = {
    .session_open = session_open,
    .session_connect = session_connect,
    .session_close = session_close,
    .expose = exposure_expose,
    .revoke = exposure_revoke,
    .fence = exposure_fence,
    .take_back = exposure_take_back,
    .fence_bound_ns = fence_bound_ns,
    .orphan = exposure_orphan,
    .drop = exposure_drop,
    .probe = report_probe,
    .status = report_status,
};
