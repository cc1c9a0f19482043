/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/revoke.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lease/lock_order.h"
#include "rdma/sync.h"

static const struct revoke_mechanism *find_mechanism(const struct revoke_mechanism *table, size_t n_table,
                                                     const char *name, size_t length)
{
    for (size_t i = 0; i < n_table; i++)
        if (strlen(table[i].name) == length && !memcmp(table[i].name, name, length))
            return &table[i];
    return NULL;
}

static int add_rung(struct revoke_ladder *ladder, const struct revoke_mechanism *mechanism)
{
    for (size_t i = 0; i < ladder->n_rungs; i++)
        if (ladder->rungs[i] == mechanism)
            return -EEXIST;
    if (ladder->n_rungs == REVOKE_MAX_RUNGS)
        return -E2BIG;
    ladder->kinds[ladder->n_rungs] = mechanism->kind;
    ladder->rungs[ladder->n_rungs++] = mechanism;
    return 0;
}

static int parse_list(struct revoke_ladder *ladder, const struct revoke_mechanism *table, size_t n_table,
                      const char *list, char **ret_error)
{
    for (const char *name = list;; name += strcspn(name, ",") + 1) {
        size_t length = strcspn(name, ",");
        const struct revoke_mechanism *mechanism = find_mechanism(table, n_table, name, length);

        if (!mechanism) {
            return fabric_error(ret_error, -EINVAL,
                                "revoke=: there is no mechanism \"%.*s\"; leasectl probe lists them", (int)length,
                                name);
        }
        if (add_rung(ladder, mechanism) < 0) {
            return fabric_error(ret_error, -EINVAL, "revoke=: \"%.*s\" is named twice", (int)length, name);
        }
        if (!name[length])
            return 0;
    }
}

static bool has_fence(const struct revoke_ladder *ladder)
{
    for (size_t i = 0; i < ladder->n_rungs; i++)
        if (ladder->kinds[i] == REVOKE_FENCE)
            return true;
    return false;
}

int revoke_ladder_init(struct revoke_ladder *ladder, const struct revoke_mechanism *table, size_t n_table,
                       const char *list, char **ret_error)
{
    struct revoke_ladder new = {.now_ns = monotonic_ns, .chosen = list && strcmp(list, "auto") != 0};
    int r = 0;

    if (new.chosen)
        r = parse_list(&new, table, n_table, list, ret_error);
    else
        for (size_t i = 0; i < n_table && r == 0; i++)
            if (!table[i].by_name)
                r = add_rung(&new, &table[i]);
    if (r < 0)
        return r;
    if (!has_fence(&new))
        return fabric_error(ret_error, -EINVAL,
                            "revoke=%s: not one of these is a fence, so no block could ever be freed; add one",
                            list ? list : "auto");
    *ladder = new;
    pthread_mutex_init(&ladder->lock, NULL);
    lock_rank(&ladder->lock, LOCK_LADDER, 0);
    return 0;
}

void revoke_ladder_destroy(struct revoke_ladder *ladder)
{
    pthread_mutex_destroy(&ladder->lock);
}

bool revoke_ladder_has(const struct revoke_ladder *ladder, const char *name)
{
    for (size_t i = 0; i < ladder->n_rungs; i++)
        if (!strcmp(ladder->rungs[i]->name, name))
            return true;
    return false;
}

int revoke_ladder_set_kind(struct revoke_ladder *ladder, const struct revoke_mechanism *mechanism,
                           enum revoke_kind kind)
{
    for (size_t i = 0; i < ladder->n_rungs; i++) {
        enum revoke_kind before = ladder->kinds[i];

        if (ladder->rungs[i] != mechanism)
            continue;
        ladder->kinds[i] = kind;
        if (has_fence(ladder))
            return 0;
        ladder->kinds[i] = before;
        return -EOPNOTSUPP;
    }
    return 0;
}

static void count_rung(struct revoke_ladder *ladder, size_t index, int r, uint64_t took_ns)
{
    struct revoke_count *count = &ladder->counts[index];

    pthread_mutex_lock(&ladder->lock);
    if (r == 0) {
        count->succeeded++;
        count->total_ns += took_ns;
        if (took_ns > count->max_ns)
            count->max_ns = took_ns;
    } else if (r == -ETIMEDOUT) {
        count->late++;
    } else {
        count->failed++;
    }
    pthread_mutex_unlock(&ladder->lock);
}

static int climb_rung(struct revoke_ladder *ladder, size_t index, struct exposure *exposure)
{
    const struct revoke_mechanism *rung = ladder->rungs[index];
    uint64_t start = ladder->now_ns();
    uint64_t deadline = start + rung->allowed_ns;
    int r = rung->run(exposure, deadline);
    uint64_t end;

    if (r == -EINPROGRESS)
        return r; /* nothing here is ours any more */
    end = ladder->now_ns();
    /* A late success proves nothing: after 50 s of a stuck reference the rxe kernel gives up on it, and its dereg
     * still returns 0. */
    if (r == 0 && end > deadline)
        r = -ETIMEDOUT;
    count_rung(ladder, index, r, end - start);
    return r;
}

static bool passes_over(const struct revoke_climb *climb, size_t index)
{
    const struct revoke_mechanism *rung = climb->ladder->rungs[index];

    return climb->ladder->kinds[index] != climb->kind || (rung->applies && !rung->applies(climb->exposure)) ||
           (climb->at_leisure ? !rung->ends : climb->tried & 1u << index);
}

/* Climbs the rungs of climb->kind. */
static int climb_kind(struct revoke_climb *climb)
{
    struct revoke_ladder *ladder = climb->ladder;
    int r;

    while (climb->result != 0 && climb->next < ladder->n_rungs) {
        size_t index = climb->next++;

        if (passes_over(climb, index))
            continue;
        if (climb->at_leisure)
            climb->tried |= 1u << index;
        climb->under_way = true;
        r = climb_rung(ladder, index, climb->exposure);
        if (r == -EINPROGRESS)
            return r;
        climb->under_way = false;
        climb->result = r;
    }
    return climb->result;
}

static void start_kind(struct revoke_climb *climb, enum revoke_kind kind)
{
    climb->kind = kind;
    climb->next = 0;
    climb->result = -EOPNOTSUPP;
}

static int climb(struct revoke_ladder *ladder, enum revoke_kind kind, struct exposure *exposure)
{
    struct revoke_climb climb = {.ladder = ladder, .exposure = exposure};

    start_kind(&climb, kind);
    return climb_kind(&climb);
}

int revoke_gate(struct revoke_ladder *ladder, struct exposure *exposure)
{
    return climb(ladder, REVOKE_GATE, exposure);
}

static int judge_fence(struct revoke_ladder *ladder, int r)
{
    if (r == 0)
        return 0;
    pthread_mutex_lock(&ladder->lock);
    ladder->unproven++;
    pthread_mutex_unlock(&ladder->lock);
    return -ETIMEDOUT;
}

int revoke_fence(struct revoke_ladder *ladder, struct exposure *exposure)
{
    return judge_fence(ladder, climb(ladder, REVOKE_FENCE, exposure));
}

void revoke_climb_begin(struct revoke_climb *climb, struct revoke_ladder *ladder, struct exposure *exposure,
                        bool at_leisure)
{
    *climb = (struct revoke_climb){.ladder = ladder, .exposure = exposure, .at_leisure = at_leisure};
    start_kind(climb, at_leisure ? REVOKE_FENCE : REVOKE_GATE);
}

int revoke_climb_on(struct revoke_climb *climb)
{
    int r;

    if (climb->under_way) {
        climb->under_way = false;
        climb->result = -ETIMEDOUT;
        count_rung(climb->ladder, climb->next - 1, -ETIMEDOUT, 0);
    }
    r = climb_kind(climb);
    if (r == -EINPROGRESS)
        return r;
    if (climb->at_leisure && r < 0) {
        climb->at_leisure = false;
        start_kind(climb, REVOKE_GATE);
        r = climb_kind(climb);
        if (r == -EINPROGRESS)
            return r;
    }
    if (climb->kind == REVOKE_GATE) { /* whatever became of it: the fence follows */
        start_kind(climb, REVOKE_FENCE);
        r = climb_kind(climb);
        if (r == -EINPROGRESS)
            return r;
    }
    return judge_fence(climb->ladder, r);
}

int revoke_orphan(struct revoke_ladder *ladder, struct exposure *exposure)
{
    return climb(ladder, REVOKE_ORPHAN, exposure);
}

uint64_t revoke_fence_bound_ns(const struct revoke_ladder *ladder)
{
    uint64_t bound = 0;

    for (size_t i = 0; i < ladder->n_rungs; i++)
        if (ladder->kinds[i] == REVOKE_FENCE)
            bound += ladder->rungs[i]->allowed_ns;
    return bound;
}

static json_t *count_json(const struct revoke_count *count)
{
    uint64_t mean = count->succeeded ? count->total_ns / count->succeeded : 0;

    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "count", (json_int_t)count->succeeded, "failed",
                     (json_int_t)count->failed, "late", (json_int_t)count->late, "mean_us", (json_int_t)(mean / 1000),
                     "max_us", (json_int_t)(count->max_ns / 1000), "total_ns", (json_int_t)count->total_ns);
}

json_t *revoke_status(struct revoke_ladder *ladder)
{
    struct revoke_count counts[REVOKE_MAX_RUNGS];
    uint64_t unproven;
    json_t *status = json_object();

    pthread_mutex_lock(&ladder->lock);
    memcpy(counts, ladder->counts, sizeof(counts));
    unproven = ladder->unproven;
    pthread_mutex_unlock(&ladder->lock);

    int failed = json_object_set_new(status, "unproven", json_integer((json_int_t)unproven));

    for (size_t i = 0; i < ladder->n_rungs; i++)
        failed |= json_object_set_new(status, ladder->rungs[i]->name, count_json(&counts[i]));
    if (failed) {
        json_decref(status);
        return NULL;
    }
    return status;
}
