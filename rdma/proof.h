/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_PROOF_H
#define LEASEFS_RDMA_PROOF_H

/*
 * What each mechanism of revocation is on this device, found out and not asked for: a lease on scratch memory, a
 * connection to ourselves over the device, long READs or WRITEs in flight, access taken away, the memory rewritten at
 * once. Bytes that cross afterwards tell.
 *
 *   READ    memory  OLD OLD OLD ... revoke, then NEW NEW NEW      a NEW byte in the reader's buffer: no fence
 *   WRITE   memory  revoke, then NEW NEW NEW                      anything else in the memory: no fence
 *   either  none of the transfers that were still to come is refused: no gate
 *
 * A trial counts when the transfers were still under way. One byte that gets through is proof; that none did is as good
 * as the number of trials, so a gate that might be a fence as well needs many of them.
 */

#include <stdint.h>

#include "rdma/revoke.h"

struct fabric;

enum proof_state {
    PROOF_NOT_TRIED = 0, /* the device does not have it */
    PROOF_DONE,
    PROOF_FAILED,       /* the call did not succeed */
    PROOF_INCONCLUSIVE, /* no transfer was caught in flight, or there was no connection: it is what it is taken for */
};

struct proof {
    enum proof_state state;
    enum revoke_kind kind; /* proven, or taken for */
    unsigned trials;       /* those that count */
    uint64_t latency_ns;   /* of the call, on average, with transfers in flight */
};

/* Tries all mechanisms into fabric->proofs, and tells the ladder. After the listener has started and before leases are
 * given. Takes some tens of milliseconds on a NIC, some seconds where it is emulated.
 * -EOPNOTSUPP: the ladder has not one fence; *ret_error is a sentence, free(). */
int proof_run(struct fabric *fabric, char **ret_error);

/* "gate", "fence", "space" (REVOKE_ORPHAN) or "nothing". */
const char *proof_kind_name(enum revoke_kind kind);
const char *proof_state_name(enum proof_state state); /* "not here", "proven", "failed", "assumed" */

/* What a trial saw, and what that makes of a mechanism. Pure logic. */
struct proof_trial {
    bool caught;  /* transfers were under way when the call was made */
    bool late;    /* a byte crossed after it had returned */
    bool refused; /* a transfer failed after it */
};

/* expected: what the mechanism is taken for; few: too few trials to make a gate a fence. */
enum revoke_kind proof_judge(enum revoke_kind expected, bool few, const struct proof_trial *trials, unsigned count);

#endif
