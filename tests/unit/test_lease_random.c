/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: model */
/*
 * The lease table against brute force. Random leases, operations (some on two files), returns, partial returns,
 * downgrades, renewals, waits for space, interrupts, ends of sessions, fences with and without proof, and steps of
 * time; after each one everything there is is compared pair by pair with an independent reading of the rules in
 * lease_table.h:
 *
 *   I3   no two leases that could conflict overlap
 *   I4   no operation is parked for longer than a recall's deadline and a fence's bound
 *   I10  nothing is granted over a conflict, or ahead of an operation that waits; whoever is parked has a reason,
 *        and that reason has been recalled
 *
 * LEASEFS_TEST_SEED repeats one run, LEASEFS_TEST_STEPS makes it longer.
 */
#include "lease_fixture.h"

#include <errno.h>

#define ACTORS      40
#define FILES       3
#define FILE_BLOCKS 20
#define SESSIONS    6
#define MAX_STEP_MS 30
#define MAX_LEASES  48
#define MAX_IDS     (1u << 18)

enum stage { IDLE, PARKED, RESUMED };

/* One question to the table: a lease, or a range that an operation wants. */
struct question {
    enum lease_op op; /* 0: a lease */
    enum lease_mode mode;
    uint64_t inode;
    struct lease_range range;
};

struct actor {
    struct lease_waiter waiter; /* first */
    enum stage stage;
    struct question questions[2];
    int n_questions, waits_for;
    uint64_t session, parked_at_ns;
    bool abandoned, placed[2];         /* it has waited for this one: nothing slips in any more */
    bool needs_space, waits_for_space; /* an operation that finds none at first; parked for that */
    uint64_t space_at_ns;              /* since when; 0: never */
};

struct world {
    struct lease_table *table;
    enum lease_policy policy;
    uint64_t now_ns, random, seed;
    struct actor actors[ACTORS];
    uint64_t fencing[MAX_LEASES * 4];
    size_t n_fencing, n_quarantined;
    uint64_t fence_began_ns[MAX_IDS]; /* by lease id */
    struct lease_info leases[MAX_LEASES];
    size_t n_leases;
    uint64_t keeping[MAX_LEASES * 4]; /* pieces of cuts, to be committed or aborted */
    size_t n_keeping;
    size_t parks, grants, operations, interrupts, cuts, space_waits;
};

static struct world w;

#define MUST(condition, ...)                                                                                           \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            print_error("seed %llu: ", (unsigned long long)w.seed);                                                    \
            fail_msg(__VA_ARGS__);                                                                                     \
        }                                                                                                              \
    } while (0)

static unsigned pick(unsigned below)
{
    w.random ^= w.random << 13;
    w.random ^= w.random >> 7;
    w.random ^= w.random << 17;
    return (unsigned)((w.random >> 16) % below);
}

/* ---- the rules, read again ---- */

static bool fence_has_overrun(const struct lease_info *lease)
{
    return lease->state == LEASE_FENCING &&
           w.now_ns - w.fence_began_ns[lease->lease_id] >= fixture_limits.fence_bound_ns;
}

/* A piece of a cut lease that is not exposed yet: its blocks are known. */
static bool is_kept(uint64_t id)
{
    for (size_t i = 0; i < w.n_keeping; i++)
        if (w.keeping[i] == id)
            return true;
    return false;
}

static bool lease_conflicts(const struct lease_info *lease, const struct question *q)
{
    bool usable = lease->state == LEASE_GRANTING || lease->state == LEASE_ACTIVE || lease->state == LEASE_RECALLED;

    if (lease->inode != q->inode || !range_overlaps(lease->range, q->range) || lease->state == LEASE_QUARANTINED)
        return false;
    if (q->op && lease->lost)
        return false;
    if (q->op && w.policy == LEASE_POLICY_ORPHAN && (lease->state != LEASE_GRANTING || is_kept(lease->lease_id)))
        return false;
    switch (q->op) {
    case LEASE_OP_DROP:
        return usable;
    case LEASE_OP_REPLACE:
        return usable || (lease->mode == LEASE_WRITE && !fence_has_overrun(lease));
    case LEASE_OP_SHARE:
        return lease->mode == LEASE_WRITE && !fence_has_overrun(lease);
    }
    if (lease->mode == LEASE_READ && q->mode == LEASE_READ)
        return lease->state == LEASE_RECALLED;
    return true;
}

/* Does `other`, who waits or is about to run, keep this question's lease from being granted? */
static bool actor_keeps_away(const struct actor *other, const struct question *q, uint64_t ticket)
{
    for (int i = 0; i <= other->waits_for && i < other->n_questions; i++) {
        const struct question *o = &other->questions[i];
        bool both_read = q->mode == LEASE_READ && (o->op == LEASE_OP_SHARE || (!o->op && o->mode == LEASE_READ));

        if (o->inode == q->inode && range_overlaps(o->range, q->range) && !both_read &&
            (o->op ? i == other->waits_for && other->placed[i] : other->waiter.ticket < ticket))
            return true;
    }
    return false;
}

static const struct lease_info *conflicting_lease(const struct question *q, uint64_t but_id)
{
    for (size_t i = 0; i < w.n_leases; i++)
        if (w.leases[i].lease_id != but_id && lease_conflicts(&w.leases[i], q))
            return &w.leases[i];
    return NULL;
}

static void look(void)
{
    w.n_leases = lease_list(w.table, 0, w.leases, MAX_LEASES);
    MUST(w.n_leases <= MAX_LEASES, "more leases than the table's limit");
}

static void check_leases(void)
{
    for (size_t i = 0; i < w.n_leases; i++)
        for (size_t j = i + 1; j < w.n_leases; j++) {
            const struct lease_info *a = &w.leases[i], *b = &w.leases[j];

            /* The old access of a lease that was cut covers what its holder kept. */
            bool cut = a->session_id == b->session_id && (a->state == LEASE_FENCING || b->state == LEASE_FENCING);

            MUST(a->inode != b->inode || !range_overlaps(a->range, b->range) || a->state == LEASE_QUARANTINED ||
                     b->state == LEASE_QUARANTINED || (a->mode == LEASE_READ && b->mode == LEASE_READ) || cut,
                 "I3: leases %llu and %llu", (unsigned long long)a->lease_id, (unsigned long long)b->lease_id);
        }
}

static void check_waits_for_space(const struct actor *actor)
{
    bool fences = false;

    for (size_t i = 0; i < w.n_leases; i++)
        fences |= w.leases[i].state == LEASE_FENCING;
    MUST(fences, "waits for space that no fence will give");
    MUST(w.now_ns - actor->space_at_ns <= fixture_limits.fence_bound_ns, "I4: waits for space for too long");
}

static void check_parked(const struct actor *actor)
{
    const struct question *q = &actor->questions[actor->waits_for];
    bool reason = false;

    if (actor->waits_for_space) {
        check_waits_for_space(actor);
        return;
    }
    for (size_t i = 0; i < w.n_leases; i++) {
        if (!lease_conflicts(&w.leases[i], q))
            continue;
        reason = true;
        MUST(w.leases[i].state != LEASE_ACTIVE, "I10: parked for lease %llu, which is not recalled",
             (unsigned long long)w.leases[i].lease_id);
    }
    for (int i = 0; i < ACTORS && !reason && !q->op; i++)
        reason = &w.actors[i] != actor && w.actors[i].stage != IDLE &&
                 actor_keeps_away(&w.actors[i], q, actor->waiter.ticket);
    /* A place that an operation gave up or kept from an earlier question may hold a request for a moment longer. */
    for (int i = 0; i < ACTORS && !reason && !q->op; i++)
        reason = &w.actors[i] != actor && w.actors[i].stage != IDLE && w.actors[i].n_questions == 2;
    MUST(reason, "parked, and nothing is in the way: a lost wake-up");
    MUST(!q->op || w.now_ns - actor->parked_at_ns <= fixture_limits.recall_timeout_ns + fixture_limits.fence_bound_ns +
                                                         UINT64_C(2) * MAX_STEP_MS * MS,
         "I4: an operation is parked for %llu ms", (unsigned long long)((w.now_ns - actor->parked_at_ns) / MS));
}

static void check_world(void)
{
    MUST(lease_table_check(w.table) == 0, "the table's own checker");
    look();
    check_leases();
    for (int i = 0; i < ACTORS; i++)
        if (w.actors[i].stage == PARKED)
            check_parked(&w.actors[i]);
}

/* ---- what the table calls ---- */

static void post(void *ctx, const struct lease_event *event)
{
    (void)ctx;
    MUST(event->kind != LEASE_EVENT_RECALL || w.policy != LEASE_POLICY_BUSY, "a recall under policy busy");
    if (event->kind != LEASE_EVENT_FENCE)
        return;
    MUST(event->lease_id < MAX_IDS && w.n_fencing < MAX_LEASES * 4, "the test's own limits");
    w.fencing[w.n_fencing++] = event->lease_id;
    w.fence_began_ns[event->lease_id] = w.now_ns;
}

static void resumed(struct lease_waiter *waiter)
{
    struct actor *actor = (struct actor *)waiter;

    MUST(actor->stage == PARKED, "resumed though it was not parked");
    actor->stage = RESUMED;
}

/* ---- what actors do ---- */

static void granted(uint64_t id, const struct question *q, const struct actor *actor)
{
    struct lease_info info;

    look();
    MUST(!conflicting_lease(q, id), "I10: lease %llu was granted over lease %llu", (unsigned long long)id,
         (unsigned long long)conflicting_lease(q, id)->lease_id);
    for (int i = 0; i < ACTORS; i++)
        MUST(&w.actors[i] == actor || w.actors[i].stage == IDLE || !w.actors[i].questions[w.actors[i].waits_for].op ||
                 !actor_keeps_away(&w.actors[i], q, UINT64_MAX),
             "I10: a lease was granted ahead of an operation");
    if (pick(10) && lease_commit(w.table, id, w.now_ns, (void *)(uintptr_t)id, &info) == 0)
        w.grants++;
    else
        lease_abort(w.table, id, w.now_ns);
}

static int ask(struct actor *actor, const struct question *q, uint64_t *ret_id)
{
    struct lease_request request = {
        .session_id = actor->session, .inode = q->inode, .range = q->range, .mode = q->mode, .wait = true};

    int result;

    actor->stage = PARKED; /* it may be resumed before the call returns */
    result = q->op ? lease_op_begin(w.table, q->inode, q->range, q->op, w.now_ns, &actor->waiter)
                   : lease_request(w.table, &request, w.now_ns, &actor->waiter, ret_id);
    actor->placed[q - actor->questions] |= result == -EINPROGRESS;
    return result;
}

/* It may go, and finds no space: 0 when there is some at last. */
static int look_for_space(struct actor *actor)
{
    uint64_t mark = lease_space_mark(w.table);
    int result;

    actor->waits_for = actor->n_questions - 1;
    if (!actor->needs_space || !pick(3))
        return 0;
    if (!actor->space_at_ns)
        actor->space_at_ns = w.now_ns;
    actor->stage = PARKED;
    actor->waits_for_space = true;
    result = lease_space_wait(w.table, mark, 0, w.now_ns, &actor->waiter);
    w.space_waits += result == -EINPROGRESS;
    return result == -ENOSPC ? 0 : result; /* it fails, and so it is through */
}

static void run(struct actor *actor)
{
    uint64_t id = 0;
    int result = 0;

    bool anew = actor->waits_for_space; /* while it waited for that, somebody may have got a lease */

    actor->waits_for_space = false;
    for (int i = 0; i < actor->n_questions && !result; i++) {
        if (actor->stage == IDLE || i != actor->waits_for || (anew && !actor->placed[i]))
            actor->parked_at_ns = w.now_ns;
        actor->waits_for = i;
        result = ask(actor, &actor->questions[i], &id);
    }
    if (!result && actor->questions[0].op)
        result = look_for_space(actor);
    if (result == -EINPROGRESS) {
        w.parks++;
        return;
    }
    if (!result && !actor->questions[0].op) {
        granted(id, &actor->questions[0], actor);
    } else if (!result) {
        look();
        for (int i = 0; i < actor->n_questions; i++)
            MUST(!conflicting_lease(&actor->questions[i], 0), "an operation went through lease %llu",
                 (unsigned long long)conflicting_lease(&actor->questions[i], 0)->lease_id);
        w.operations++;
    } else {
        MUST(result == -EMFILE || result == -ENFILE || (result == -ECANCELED && actor->abandoned) ||
                 (result == -EBUSY && w.policy == LEASE_POLICY_BUSY),
             "an unexpected refusal: %s", strerror(-result));
    }
    actor->stage = IDLE;
    lease_op_end(w.table, &actor->waiter);
}

static struct lease_range any_range(void)
{
    uint64_t first = pick(FILE_BLOCKS);

    return pick(16) ? blocks(first, 1 + pick(6)) : range_from(first * BLOCK);
}

static void start(struct actor *actor)
{
    *actor = (struct actor){.waiter.resume = resumed, .session = 1 + pick(SESSIONS), .n_questions = 1};
    actor->questions[0] = (struct question){
        .mode = 1 + pick(2), .inode = 1 + pick(FILES), .range = blocks(pick(FILE_BLOCKS), 1 + pick(6))};
    if (pick(2)) {
        actor->questions[0].op = 1 + pick(3);
        actor->needs_space = pick(3) == 0;
        actor->questions[0].range = any_range();
        if (actor->questions[0].op == LEASE_OP_SHARE && pick(2)) {
            actor->n_questions = 2;
            actor->questions[1] =
                (struct question){.op = LEASE_OP_REPLACE, .inode = 1 + pick(FILES), .range = any_range()};
        }
    }
    run(actor);
}

static void interrupt(struct actor *actor)
{
    MUST(lease_waiter_cancel(w.table, &actor->waiter, w.now_ns), "parked, but cannot be interrupted");
    actor->stage = IDLE;
    w.interrupts++;
}

static void session_ends(uint64_t session)
{
    for (int i = 0; i < ACTORS; i++)
        if (w.actors[i].stage != IDLE && w.actors[i].session == session) {
            w.actors[i].abandoned = true;
            lease_waiter_abandon(w.table, &w.actors[i].waiter);
        }
    lease_session_end(w.table, session, w.now_ns);
}

static void some_fence_ends(bool may_fail)
{
    size_t i = pick((unsigned)w.n_fencing);
    uint64_t id = w.fencing[i];
    bool proven = !may_fail || w.n_quarantined > MAX_LEASES / 4 || pick(50);

    w.fencing[i] = w.fencing[--w.n_fencing];
    w.n_quarantined += !proven;
    lease_fenced(w.table, id, proven, w.now_ns);
}

static void some_lease(void (*act)(const struct lease_info *lease))
{
    look();
    if (w.n_leases)
        act(&w.leases[pick((unsigned)w.n_leases)]);
}

static void gives_back(const struct lease_info *lease)
{
    lease_return(w.table, lease->session_id, lease->lease_id, pick(2) ? lease->sequence : 0, w.now_ns);
}

static void gives_back_a_part(const struct lease_info *lease)
{
    struct lease_cut cut = {.mode = pick(3) ? lease->mode : LEASE_READ};
    struct lease_range whole = lease->range, left[2];
    uint64_t n = whole.length / BLOCK, first = pick((unsigned)n);
    struct lease_info piece;
    int result;

    cut.part = (struct lease_range){whole.offset + first * BLOCK, pick((unsigned)(n - first + 1)) * BLOCK};
    result = lease_cut(w.table, lease->session_id, lease->lease_id, pick(2) ? lease->sequence : 0, w.now_ns, &cut);
    if (result) {
        MUST(result == -EINVAL || result == -EALREADY || result == -EINPROGRESS || result == -EMFILE,
             "an unexpected refusal of a cut: %s", strerror(-result));
        return;
    }
    w.cuts++;
    MUST(cut.n_kept == range_without(whole, cut.part, left), "a cut into %zu", cut.n_kept);
    for (size_t i = 0; i < cut.n_kept; i++) {
        MUST(lease_get(w.table, cut.kept[i], &piece) == 0 && piece.state == LEASE_GRANTING &&
                 piece.range.offset == left[i].offset && piece.range.length == left[i].length &&
                 piece.mode == cut.mode && (i || piece.sequence == lease->sequence + 1),
             "a piece is not what is left");
        w.keeping[w.n_keeping++] = cut.kept[i];
    }
}

/* A piece is exposed anew, or could not be. */
static void some_piece_is_kept(bool may_fail)
{
    size_t i = pick((unsigned)w.n_keeping);
    uint64_t id = w.keeping[i];
    struct lease_info info;

    w.keeping[i] = w.keeping[--w.n_keeping];
    if ((may_fail && !pick(10)) || lease_commit(w.table, id, w.now_ns, (void *)(uintptr_t)id, &info))
        lease_abort(w.table, id, w.now_ns);
}

static void renews(const struct lease_info *lease)
{
    struct lease_info info;

    lease_renew(w.table, lease->session_id, lease->lease_id, w.now_ns, &info);
}

static void is_revoked(const struct lease_info *lease)
{
    lease_revoke(w.table, lease->lease_id, w.now_ns);
}

static void time_passes(unsigned ms)
{
    w.now_ns += ms * MS;
    lease_tick(w.table, w.now_ns);
}

static void step(void)
{
    struct actor *actor = &w.actors[pick(ACTORS)];
    unsigned what = pick(12);

    if (what < 4 && actor->stage == IDLE)
        start(actor);
    else if (what < 7 && actor->stage == RESUMED)
        run(actor);
    else if (what == 7 && actor->stage == PARKED && pick(2))
        interrupt(actor);
    else if (what == 8)
        some_lease(pick(3) ? pick(2) ? gives_back : gives_back_a_part : pick(8) ? renews : is_revoked);
    else if (what == 9 && w.n_keeping && pick(2))
        some_piece_is_kept(true);
    else if (what == 9 && w.n_fencing)
        some_fence_ends(true);
    else if (what == 10)
        time_passes(pick(MAX_STEP_MS + 1));
    else if (what == 11 && pick(40) == 0)
        session_ends(1 + pick(SESSIONS));
}

/* Everybody gets through in the end, without any holder's help. */
static void drain(void)
{
    bool any = true;

    for (int round = 0; any; round++) {
        MUST(round < 100000, "somebody waits for ever");
        any = false;
        for (int i = 0; i < ACTORS; i++) {
            if (w.actors[i].stage == RESUMED)
                run(&w.actors[i]);
            any |= w.actors[i].stage != IDLE;
        }
        while (w.n_fencing)
            some_fence_ends(false);
        while (w.n_keeping)
            some_piece_is_kept(false);
        time_passes(10);
        check_world();
    }
}

static void run_seed(uint64_t seed, enum lease_policy policy, uint64_t steps)
{
    struct lease_limits limits = fixture_limits;
    struct lease_events events = {.post = post};

    memset(&w, 0, sizeof(w));
    w.seed = seed;
    w.random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    w.policy = limits.policy = policy;
    w.now_ns = MS;
    limits.lease_time_ns = 1000 * MS;
    limits.courtesy_ns = seed % 2 ? 1000 * MS : 0;
    limits.max_leases = MAX_LEASES;
    if (policy == LEASE_POLICY_BUSY)
        limits.max_session_leases = 5; /* the table never fills up, which would recall leases under any policy */
    assert_int_equal(lease_table_new(&limits, &events, &w.table), 0);
    for (uint64_t i = 0; i < steps; i++) {
        step();
        check_world();
    }
    drain();
    for (uint64_t session = 1; session <= SESSIONS; session++)
        session_ends(session);
    while (w.n_keeping)
        some_piece_is_kept(false);
    while (w.n_fencing)
        some_fence_ends(false);
    look();
    MUST(w.n_leases == w.n_quarantined, "leases are left");
    print_message("seed %llu: %zu grants, %zu cuts, %zu operations, %zu parks, %zu for space, %zu interrupts, %zu "
                  "quarantined\n",
                  (unsigned long long)seed, w.grants, w.cuts, w.operations, w.parks, w.space_waits, w.interrupts,
                  w.n_quarantined);
    lease_table_free(w.table);
}

static void run_policy(enum lease_policy policy)
{
    uint64_t steps = from_environment("LEASEFS_TEST_STEPS", 8000);

    if (getenv("LEASEFS_TEST_SEED")) {
        run_seed(from_environment("LEASEFS_TEST_SEED", 1), policy, steps);
        return;
    }
    for (uint64_t seed = 1; seed <= 4; seed++)
        run_seed(seed, policy, steps);
}

static void random_operations_keep_to_the_rules_under_policy_recall(void **state)
{
    (void)state;
    run_policy(LEASE_POLICY_RECALL);
}

static void random_operations_keep_to_the_rules_under_policy_busy(void **state)
{
    (void)state;
    run_policy(LEASE_POLICY_BUSY);
}

static void random_operations_keep_to_the_rules_under_policy_orphan(void **state)
{
    (void)state;
    run_policy(LEASE_POLICY_ORPHAN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_keep_to_the_rules_under_policy_recall),
        cmocka_unit_test(random_operations_keep_to_the_rules_under_policy_busy),
        cmocka_unit_test(random_operations_keep_to_the_rules_under_policy_orphan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
