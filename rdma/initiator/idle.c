/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/idle.h"

#include <string.h>

#include "rdma/initiator/clock.h"
#include "rdma/initiator/holding.h"

static bool is_kept(const struct leasefs_lease *lease)
{
    return lease->idle && !lease->taken && lease->holding == HOLDING_ACTIVE;
}

/* Unlinks and frees those that have ended. */
static void reap(struct leasefs_session *session)
{
    struct leasefs_lease *ended = NULL;

    pthread_mutex_lock(&session->lock);
    for (struct leasefs_lease **link = &session->leases; *link;) {
        struct leasefs_lease *lease = *link;

        if (lease->idle && !lease->taken && holding_at_rest_locked(lease)) {
            *link = lease->next;
            lease->next = ended;
            ended = lease;
        } else {
            link = &lease->next;
        }
    }
    pthread_mutex_unlock(&session->lock);
    while (ended) {
        struct leasefs_lease *next = ended->next;

        lease_free(ended);
        ended = next;
    }
}

/* Which has to go so that there is room for one more; NULL: none. Pinned. */
static struct leasefs_lease *surplus_locked(struct leasefs_session *session)
{
    struct leasefs_lease *oldest = NULL;
    unsigned count = 0;

    for (struct leasefs_lease *lease = session->leases; lease; lease = lease->next) {
        if (!is_kept(lease))
            continue;
        count++;
        if (!oldest || lease->renew_at_ns < oldest->renew_at_ns)
            oldest = lease;
    }
    if (count < session->max_idle)
        return NULL;
    oldest->pins++;
    return oldest;
}

static bool may_keep_locked(const struct leasefs_lease *lease)
{
    const struct leasefs_lease_options *options = &lease->options;

    return lease->session->max_idle && !lease->session->lost && lease->holding == HOLDING_ACTIVE && lease->path &&
           options->mode == LEASEFS_READ && !options->unguarded && !lease->recalled && !lease->refused &&
           !lease->transfers && !lease->cutting;
}

bool idle_keep(struct leasefs_lease *lease)
{
    struct leasefs_session *session = lease->session;
    struct leasefs_lease *surplus;

    reap(session);
    pthread_mutex_lock(&session->lock);
    while (lease->pins) /* its callback runs, or a renewal is under way */
        session_await_locked(session, UINT64_MAX);
    if (!may_keep_locked(lease)) {
        pthread_mutex_unlock(&session->lock);
        return false;
    }
    surplus = surplus_locked(session);
    lease->idle = true;
    lease->renewing = true;
    lease->pins++;
    pthread_mutex_unlock(&session->lock);
    holding_send_renewal(lease, true);
    if (surplus) {
        holding_return(surplus);
        lease_unpin(surplus);
    }
    return true;
}

struct leasefs_lease *idle_take(struct leasefs_session *session, const char *path,
                                const struct leasefs_lease_options *options)
{
    struct leasefs_lease *lease = NULL;

    if (!session->max_idle || options->mode != LEASEFS_READ || options->prepare || options->unguarded)
        return NULL;
    reap(session);
    pthread_mutex_lock(&session->lock);
    for (lease = session->leases; lease; lease = lease->next)
        if (is_kept(lease) && lease->options.offset == options->offset && lease->options.length == options->length &&
            lease->options.policy == options->policy && lease->options.no_rdma == options->no_rdma &&
            !strcmp(lease->path, path))
            break;
    if (lease) {
        lease->taken = true;
        lease->pins++;
    }
    pthread_mutex_unlock(&session->lock);
    return lease;
}

bool idle_take_up_locked(struct leasefs_lease *kept, const struct leasefs_lease *asking,
                         const struct leasefs_layout *layout, uint64_t sent_at_ns)
{
    if (kept->holding != HOLDING_ACTIVE)
        return false;
    kept->options = asking->options;
    kept->layout = *layout;
    kept->idle = kept->taken = false;
    holding_extend_locked(kept, sent_at_ns);
    return true;
}

void idle_give_back(struct leasefs_lease *kept)
{
    struct leasefs_session *session = kept->session;

    pthread_mutex_lock(&session->lock);
    kept->taken = false;
    pthread_mutex_unlock(&session->lock);
    holding_return(kept);
    lease_unpin(kept);
}

static struct leasefs_lease *first_kept_locked(const struct leasefs_session *session)
{
    struct leasefs_lease *lease = session->leases;

    while (lease && !is_kept(lease))
        lease = lease->next;
    return lease;
}

static bool any_ending_locked(const struct leasefs_session *session)
{
    for (const struct leasefs_lease *lease = session->leases; lease; lease = lease->next)
        if (lease->idle && !lease->taken && lease->holding == HOLDING_RETURNING)
            return true;
    return false;
}

bool idle_give_back_all(struct leasefs_session *session)
{
    struct leasefs_lease *lease;
    bool any = false;

    pthread_mutex_lock(&session->lock);
    while ((lease = first_kept_locked(session))) {
        lease->pins++;
        pthread_mutex_unlock(&session->lock);
        holding_return(lease);
        lease_unpin(lease);
        any = true;
        pthread_mutex_lock(&session->lock);
    }
    while (any_ending_locked(session))
        session_await_locked(session, UINT64_MAX);
    pthread_mutex_unlock(&session->lock);
    reap(session);
    return any;
}
