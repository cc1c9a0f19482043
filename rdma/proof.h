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
 * A trial counts when the transfers were still under way. One byte that gets through is proof. That none did is not: on
 * a busy machine the call may take longer than what was in flight, again and again. So trials can refute a fence and
 * never make one: a gate is a fence only where its driver's documentation says so, and no trial of many says otherwise.
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
    unsigned late;         /* of them, those after which a byte still crossed */
    unsigned inconclusive; /* those that do not count: nothing was caught in flight */
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

#define PROOF_PROMOTION 24u /* clean trials without which not even a documented fence is taken for one */

/* The trials that a mechanism gets on a device of this kernel driver ("": not known). */
unsigned proof_trials_wanted(const struct revoke_mechanism *mechanism, const char *driver);

enum revoke_kind proof_judge(const struct revoke_mechanism *mechanism, const char *driver,
                             const struct proof_trial *trials, unsigned count);

#endif
