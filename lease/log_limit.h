/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_LOG_LIMIT_H
#define LEASEFS_LEASE_LOG_LIMIT_H

/*
 * How often strangers may make the log grow: so many lines in so much time, for each kind of event that has a limit of
 * its own. Starts as zeros. Any thread; a race costs or gives a line.
 *
 *     static const struct log_rate rate = {.lines = 10, .window_ns = UINT64_C(10000000000)};
 *     static struct log_limit refused;
 *     unsigned dropped;
 *
 *     if (log_limit_allows(&refused, &rate, now_ns, &dropped))
 *         service_log("...%s", dropped ? ", and more that were not logged" : "");
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct log_rate {
    unsigned lines;
    uint64_t window_ns; /* it begins with the first line that comes after the last one's end */
};

struct log_limit {
    _Atomic uint64_t window_ends_ns;
    atomic_uint lines, dropped;
};

/* *ret_dropped: how many were kept quiet since the last line that was allowed. */
static inline bool log_limit_allows(struct log_limit *limit, const struct log_rate *rate, uint64_t now_ns,
                                    unsigned *ret_dropped)
{
    uint64_t ends_ns = atomic_load(&limit->window_ends_ns);

    if (now_ns >= ends_ns && atomic_compare_exchange_strong(&limit->window_ends_ns, &ends_ns, now_ns + rate->window_ns))
        atomic_store(&limit->lines, 0);
    if (atomic_fetch_add(&limit->lines, 1) >= rate->lines) {
        atomic_fetch_add(&limit->dropped, 1);
        return false;
    }
    *ret_dropped = atomic_exchange(&limit->dropped, 0);
    return true;
}

#endif
