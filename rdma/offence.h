/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_OFFENCE_H
#define LEASEFS_RDMA_OFFENCE_H

/*
 * What peers do that they must not. Each is counted where it is refused (struct fabric_counters); here is which of them
 * are logged: the first of a kind, and then one a minute at most, so that nobody fills the journal from outside.
 */

#include <stdbool.h>
#include <stdint.h>

struct fabric;

enum offence_kind {
    OFFENCE_MALFORMED, /* a connection request that is none of ours */
    OFFENCE_COOKIE,    /* one whose cookie admits nobody */
    OFFENCE_MESSAGE,   /* a message on a connection that takes none */
    OFFENCE_ACCESS,    /* what the NIC refuses; a holder whose lease was revoked meets that, too */
    OFFENCES,
};

struct offence { /* guarded by fabric->lock */
    uint64_t silent_until_ns;
    unsigned long long unsaid;
};

#define OFFENCE_SILENCE_NS (UINT64_C(60) * 1000000000)

/* Is this one to be logged? How many before it were not: *ret_unsaid. Takes the lock. */
bool offence_to_log(struct fabric *fabric, enum offence_kind kind, unsigned long long *ret_unsaid);

#endif
