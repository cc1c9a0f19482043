/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_CLOCK_H
#define LEASEFS_INITIATOR_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_S  1000000000ull
#define NS_PER_MS 1000000ull
#define NS_PER_US 1000ull

/* Nanoseconds that count while the machine is suspended: a holder that slept must find its leases expired. */
static inline uint64_t clock_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
