/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_LOG_LIMIT_H
#define LEASEFS_LEASE_LOG_LIMIT_H

/*
 * How often strangers may make the log grow: LOG_LIMIT_LINES lines in LOG_LIMIT_WINDOW_NS, for each kind of event that
 * has a limit of its own. Any thread; a race costs or gives a line.
 *
 *     static struct log_limit refused;
 *     unsigned dropped;
 *
 *     if (log_limit_allows(&refused, now_ns, &dropped))
 *         service_log("...%s", dropped ? ", and more that were not logged" : "");
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LOG_LIMIT_LINES     10u
#define LOG_LIMIT_WINDOW_NS UINT64_C(10000000000)

struct log_limit {
    _Atomic uint64_t window_ends_ns;
    atomic_uint lines, dropped;
};

/* *ret_dropped: how many were kept quiet since the last line that was allowed. */
static inline bool log_limit_allows(struct log_limit *limit, uint64_t now_ns, unsigned *ret_dropped)
{
    uint64_t ends_ns = atomic_load(&limit->window_ends_ns);

    if (now_ns >= ends_ns &&
        atomic_compare_exchange_strong(&limit->window_ends_ns, &ends_ns, now_ns + LOG_LIMIT_WINDOW_NS))
        atomic_store(&limit->lines, 0);
    if (atomic_fetch_add(&limit->lines, 1) >= LOG_LIMIT_LINES) {
        atomic_fetch_add(&limit->dropped, 1);
        return false;
    }
    *ret_dropped = atomic_exchange(&limit->dropped, 0);
    return true;
}

#endif
