/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A fabric without RDMA: leases are granted and revoked, and no peer ever touches the memory. With it the daemon, as
 * `leasefs_simulated`, shows how local operations and leases meet, on machines that have no device.
 *
 *   -o device=simulated,revoke=at-once|slow|never    how the fence goes; slow: 300 ms; never: no proof
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "rdma/fabric.h"

#define SLOW_NS UINT64_C(300000000)

enum fence { AT_ONCE, SLOW, NEVER };

struct fabric {
    enum fence fence;
    atomic_uint exposures;
};

struct exposure_session {
    struct fabric *fabric;
};

struct exposure {
    struct fabric *fabric;
};

int fabric_start(const struct fabric_config *config, struct fabric **ret_fabric, char **ret_error)
{
    struct fabric *fabric;

    if (!config->device || strcmp(config->device, "simulated") != 0) {
        *ret_error = strdup("there is no such device");
        return -ENODEV;
    }
    fabric = calloc(1, sizeof(*fabric));
    if (!fabric)
        return -ENOMEM;
    if (config->revoke && strcmp(config->revoke, "slow") == 0)
        fabric->fence = SLOW;
    else if (config->revoke && strcmp(config->revoke, "never") == 0)
        fabric->fence = NEVER;
    *ret_fabric = fabric;
    return 0;
}

void fabric_stop(struct fabric *fabric)
{
    free(fabric);
}

static int session_open(void *fabric, uint64_t session_id, const struct sockaddr *reached,
                        struct exposure_session **ret_session)
{
    struct exposure_session *session = calloc(1, sizeof(*session));

    (void)session_id, (void)reached;
    if (!session)
        return -ENOMEM;
    session->fabric = fabric;
    *ret_session = session;
    return 0;
}

static int session_connect(struct exposure_session *session, struct exposure_address *ret_address)
{
    (void)session;
    (void)ret_address;
    return -ENODEV;
}

static void session_close(struct exposure_session *session)
{
    free(session);
}

static int expose(struct exposure_session *session, const struct exposure_request *request,
                  struct exposure **ret_exposure, struct exposure_grant *ret_grant)
{
    struct exposure *exposure = calloc(1, sizeof(*exposure));

    if (!exposure)
        return -ENOMEM;
    exposure->fabric = session->fabric;
    ret_grant->rkey = 1000 + atomic_fetch_add(&session->fabric->exposures, 1);
    ret_grant->remote_address = request->range.offset;
    *ret_exposure = exposure;
    return 0;
}

static int revoke(struct exposure *exposure)
{
    (void)exposure;
    return 0;
}

static int fence(struct exposure *exposure)
{
    struct timespec slow = {.tv_nsec = (long)SLOW_NS};

    if (exposure->fabric->fence == SLOW)
        nanosleep(&slow, NULL);
    return exposure->fabric->fence == NEVER ? -ETIMEDOUT : 0;
}

static uint64_t fence_bound_ns(void *fabric)
{
    (void)fabric;
    return 2 * SLOW_NS;
}

static void drop(struct exposure *exposure)
{
    free(exposure);
}

static json_t *describe(void *fabric)
{
    (void)fabric;
    return json_pack("{s:s}", "device", "simulated");
}

const struct exposure_ops fabric_exposure_ops = {
    .session_open = session_open,
    .session_connect = session_connect,
    .session_close = session_close,
    .expose = expose,
    .revoke = revoke,
    .fence = fence,
    .fence_bound_ns = fence_bound_ns,
    .drop = drop,
    .probe = describe,
    .status = describe,
};
