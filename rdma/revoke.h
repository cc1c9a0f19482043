/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_REVOKE_H
#define LEASEFS_RDMA_REVOKE_H

/*
 * The ladder of revocation mechanisms. Pure logic: what a rung does is behind a function pointer, so that tests climb
 * ladders of their own. Thread-safe after revoke_ladder_init().
 *
 * A gate refuses new remote accesses. A fence proves that none in progress can land either. The two are never taken
 * for each other: revoke_gate() only runs gates, and its success lets no block go.
 */

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct exposure;

enum revoke_kind {
    REVOKE_GATE = 1,
    REVOKE_FENCE,
};

struct revoke_mechanism {
    const char *name;
    enum revoke_kind kind;
    uint64_t allowed_ns; /* from its start to its deadline */

    /* 0: done, within the deadline (monotonic). Returns by the deadline: what can block in the kernel runs on a
     * helper thread, and goes on there if it must. */
    int (*run)(struct exposure *exposure, uint64_t deadline_ns);
};

struct revoke_count {
    uint64_t succeeded, failed, late;
    uint64_t max_ns, total_ns; /* of those that succeeded */
};

#define REVOKE_MAX_RUNGS 8

struct revoke_ladder {
    const struct revoke_mechanism *rungs[REVOKE_MAX_RUNGS]; /* in climbing order */
    size_t n_rungs;
    bool chosen; /* by name, not "auto" */
    uint64_t (*now_ns)(void);
    pthread_mutex_t lock;                         /* a leaf */
    struct revoke_count counts[REVOKE_MAX_RUNGS]; /* guarded by lock */
    uint64_t unproven;                            /* fences that failed altogether; guarded by lock */
};

/* list: NULL or "auto" (all of the table, in its order), or names with commas, climbed in that order.
 * -EINVAL with a sentence in *ret_error (free()): unknown or repeated name, no fence among them. */
int revoke_ladder_init(struct revoke_ladder *ladder, const struct revoke_mechanism *table, size_t n_table,
                       const char *list, char **ret_error);
void revoke_ladder_destroy(struct revoke_ladder *ladder);

bool revoke_ladder_has(const struct revoke_ladder *ladder, const char *name);

/* The first gate that succeeds ends it. -EOPNOTSUPP: no gate in the ladder; else the last gate's error. */
int revoke_gate(struct revoke_ladder *ladder, struct exposure *exposure);

/* Climbs the fences until one succeeds within its deadline. -ETIMEDOUT: none did, there is no proof. */
int revoke_fence(struct revoke_ladder *ladder, struct exposure *exposure);

/* What revoke_fence() takes at most. */
uint64_t revoke_fence_bound_ns(const struct revoke_ladder *ladder);

/* {"dereg": {count, failed, late, mean_us, max_us}, ...}. NULL: no memory. */
json_t *revoke_status(struct revoke_ladder *ladder);

#endif
