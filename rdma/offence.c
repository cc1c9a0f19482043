/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/offence.h"

#include "rdma/internal.h"
#include "rdma/sync.h"

bool offence_to_log(struct fabric *fabric, enum offence_kind kind, unsigned long long *ret_unsaid)
{
    struct offence *offence = &fabric->offences[kind];
    uint64_t now = monotonic_ns();
    bool log;

    pthread_mutex_lock(&fabric->lock);
    log = now >= offence->silent_until_ns;
    if (log) {
        *ret_unsaid = offence->unsaid;
        *offence = (struct offence){.silent_until_ns = now + OFFENCE_SILENCE_NS};
    } else {
        offence->unsaid++;
    }
    pthread_mutex_unlock(&fabric->lock);
    return log;
}
