/* SPDX-License-Identifier: BSD-2-Clause */

/* The table of what can be done to take access away. What each is worth on a device is found out at start (proof.h);
 * here is what it is taken for until then. What is behind `revoke_by_NAME` is in mechanism_NAME.c. */

#include "rdma/internal.h"
#include "rdma/sync.h"

static bool is_on_demand(const struct exposure *exposure)
{
    return exposure->style == EXPOSURE_ON_DEMAND;
}

static bool is_windowed(const struct exposure *exposure)
{
    return exposure->style == EXPOSURE_WINDOWED;
}

/* A window's rights are its own: those of the MR under it do not matter. */
static bool has_own_key(const struct exposure *exposure)
{
    return exposure->style != EXPOSURE_WINDOWED;
}

static bool is_pinned(const struct exposure *exposure)
{
    return exposure->style != EXPOSURE_ON_DEMAND;
}

/* The deadlines: deregistering takes time with the size (some GiB a second where emulated), so it gets seconds; all
 * stay far below the 50 s after which the rxe kernel gives up and reports success. odp and mw want to be named: they
 * change how all leases are registered (the first access to each page then costs a fault; each grant a QP to bind
 * with). */
const struct revoke_mechanism fabric_mechanisms[FABRIC_MECHANISMS] = {
    {.name = "rereg",
     .kind = REVOKE_GATE,
     .fence_on = "mlx5_core",
     .allowed_ns = 500 * NS_PER_MS,
     .run = revoke_by_rereg,
     .applies = has_own_key,
     .note = "takes the access rights from the memory region"},
    {.name = "mw",
     .kind = REVOKE_GATE,
     .by_name = true,
     .allowed_ns = 500 * NS_PER_MS,
     .run = revoke_by_mw,
     .applies = is_windowed,
     .note = "frees the memory window that the lease's key is of"},
    {.name = "odp",
     .kind = REVOKE_FENCE,
     .by_name = true,
     .allowed_ns = NS_PER_S,
     .run = revoke_by_odp,
     .applies = is_on_demand,
     .note = "maps the lease's window over (memory on demand)"},
    {.name = "dereg",
     .kind = REVOKE_FENCE,
     .ends = true,
     .allowed_ns = 2 * NS_PER_S,
     .run = revoke_by_dereg,
     .note = "waits for all references to the memory region"},
    {.name = "qp",
     .kind = REVOKE_FENCE,
     .allowed_ns = 2 * NS_PER_S,
     .run = revoke_by_qp,
     .note = "ends the peer's connection; it reconnects by itself"},
    {.name = "punch",
     .kind = REVOKE_ORPHAN,
     .allowed_ns = 2 * NS_PER_S,
     .run = revoke_by_punch,
     .applies = is_pinned,
     .note = "gives the pool other pages, when nothing else worked"},
};

enum exposure_style mechanism_style(const struct revoke_mechanism *mechanism)
{
    if (mechanism->applies == is_on_demand)
        return EXPOSURE_ON_DEMAND;
    return mechanism->applies == is_windowed ? EXPOSURE_WINDOWED : EXPOSURE_PINNED;
}
