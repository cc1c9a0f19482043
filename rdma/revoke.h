/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_REVOKE_H
#define LEASEFS_RDMA_REVOKE_H

/*
 * The ladder of revocation mechanisms. Pure logic: what a rung does is behind a function pointer, so that tests climb
 * ladders of their own. Thread-safe after revoke_ladder_init().
 *
 * A gate refuses new remote accesses. A fence proves that none in progress can land either. The two are never taken
 * for each other: revoke_gate() only runs gates, and its success lets no block go. The last resort takes the pages
 * from under accesses that nobody could stop; it is neither, and only revoke_orphan() runs it.
 *
 * What a mechanism is, is a property of the device: the ladder starts with what the table takes it for, and
 * revoke_ladder_set_kind() tells it what was found out (proof.h).
 */

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct exposure;

enum revoke_kind {
    REVOKE_NOTHING = 0,
    REVOKE_GATE,
    REVOKE_FENCE,
    REVOKE_ORPHAN,
};

struct revoke_mechanism {
    const char *name;
    enum revoke_kind kind; /* until something else is proven */
    uint64_t allowed_ns;   /* from its start to its deadline */

    /* 0: done, within the deadline (monotonic). Returns by the deadline: what can block in the kernel runs on a
     * helper thread, and goes on there if it must. -EINPROGRESS, in a climb that has a successor only: the deadline
     * has passed, and the successor climbs on (revoke_climb_on). */
    int (*run)(struct exposure *exposure, uint64_t deadline_ns);

    /* NULL: always. Does it have anything to do with this exposure? When not, it is passed over. */
    bool (*applies)(const struct exposure *exposure);

    const char *fence_on; /* the kernel driver whose documentation makes a fence of this gate, or NULL */
    bool by_name;         /* not in "auto" */
    bool ends;            /* leaves nothing registered: where it is a fence, it is all that needs to be done */
    const char *note;
};

struct revoke_count {
    uint64_t succeeded, failed, late;
    uint64_t max_ns, total_ns; /* of those that succeeded */
};

#define REVOKE_MAX_RUNGS 8

struct revoke_ladder {
    const struct revoke_mechanism *rungs[REVOKE_MAX_RUNGS]; /* in climbing order */
    enum revoke_kind kinds[REVOKE_MAX_RUNGS];               /* what they are on this device */
    size_t n_rungs;
    bool chosen; /* by name, not "auto" */
    uint64_t (*now_ns)(void);
    pthread_mutex_t lock;                         /* a leaf */
    struct revoke_count counts[REVOKE_MAX_RUNGS]; /* guarded by lock */
    uint64_t unproven;                            /* fences that failed altogether; guarded by lock */
};

/* list: NULL or "auto" (the table's order, without those that want to be named), or names with commas, climbed in
 * that order. -EINVAL with a sentence in *ret_error (free()): unknown or repeated name, no fence among them. */
int revoke_ladder_init(struct revoke_ladder *ladder, const struct revoke_mechanism *table, size_t n_table,
                       const char *list, char **ret_error);
void revoke_ladder_destroy(struct revoke_ladder *ladder);

bool revoke_ladder_has(const struct revoke_ladder *ladder, const char *name);

/* What `mechanism` is here; before the ladder is used. -EOPNOTSUPP: that leaves no fence, and nothing was changed. */
int revoke_ladder_set_kind(struct revoke_ladder *ladder, const struct revoke_mechanism *mechanism,
                           enum revoke_kind kind);

/* The first gate that succeeds ends it. -EOPNOTSUPP: no gate in the ladder; else the last gate's error. */
int revoke_gate(struct revoke_ladder *ladder, struct exposure *exposure);

/* Climbs the fences until one succeeds within its deadline. -ETIMEDOUT: none did, there is no proof. */
int revoke_fence(struct revoke_ladder *ladder, struct exposure *exposure);

/* After revoke_fence() failed, and after nothing of any file is left in the exposure's pages: 0, other pages are in
 * their place, and whatever is still in progress cannot reach them. -EOPNOTSUPP: no such mechanism. */
int revoke_orphan(struct revoke_ladder *ladder, struct exposure *exposure);

/*
 * Both of them on one thread after the other. The first begins; when a rung keeps it past the deadline, the next goes
 * on behind that rung, and so on. One at a time: who is told -EINPROGRESS never touches the climb again.
 */
struct revoke_climb {
    struct revoke_ladder *ladder;
    struct exposure *exposure;
    bool at_leisure;       /* at first only what ends the registration, too */
    unsigned tried;        /* a bit for each rung that was climbed so */
    enum revoke_kind kind; /* gates first */
    size_t next;           /* rung */
    int result;            /* of the last rung of that kind */
    bool under_way;        /* of the rung before `next` */
};

/* at_leisure: nobody waits for access to end. Then a fence that ends the registration, too, is all that is climbed;
 * what ends access sooner would be work on top of that. Only where there is none, or it fails, the others are. */
void revoke_climb_begin(struct revoke_climb *climb, struct revoke_ladder *ladder, struct exposure *exposure,
                        bool at_leisure);

/* Begins, or goes on where a stuck rung, which counts as late, kept another thread. As revoke_fence(), after the gates;
 * or -EINPROGRESS: another thread goes on. */
int revoke_climb_on(struct revoke_climb *climb);

/* What revoke_fence() takes at most. */
uint64_t revoke_fence_bound_ns(const struct revoke_ladder *ladder);

/* {"dereg": {count, failed, late, mean_us, max_us}, ...}. NULL: no memory. */
json_t *revoke_status(struct revoke_ladder *ladder);

#endif
