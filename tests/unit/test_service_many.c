/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: model */
/*
 * 200 sessions, 10,000 leases at once, random operations, beside a naive model: for each block of each file, who can
 * reach it over the fabric at this moment. Clients ask, cut, downgrade, give back, fall silent and die; local
 * operations of each kind and policy wait or do not, some are interrupted. Each wait ends in time, that of an operation
 * and that of a request. Made for TSan, too; LEASEFS_TEST_SECONDS makes it longer.
 */
#include "service_fixture.h"

#define SESSIONS  200
#define DRIVERS   4 /* threads, each with its share of the sessions */
#define LOCALS    8
#define FILES     1000
#define FIRST     5000 /* inode */
#define LEASES    10000
#define OF_EACH   (LEASES / SESSIONS)
#define AT_ONCE   8    /* leases asked for by one session: without a bound, queues get longer than anybody waits */
#define UNDERWAY  1024 /* requests of one session: as many as the service takes */
#define RECALL_MS 200
#define LATE_MS   60000 /* how late on a machine that is busy with other things: a hang is longer */

/* ---- the model: exposures by block ---- */

struct reach {
    atomic_int readers, writers;
};

static struct reach reach[FILES][FILE_BLOCKS];
static atomic_ulong collisions, n_leases, n_leases_last, cuts, operations, waits, interrupted, refused, answers;
static atomic_ulong longest_operation_ms, longest_request_ms;
static atomic_bool stopping;

struct model_exposure {
    struct exposure exposure; /* first */
    enum lease_mode mode;
    struct layout_run run;
};

static struct reach *reach_of(struct layout_run run, uint64_t block)
{
    return &reach[run.offset >> 32][((run.offset & UINT32_MAX) + block * BLOCK) / BLOCK];
}

/* What another exposure may still read does not get a writer, and what one may still write gets nobody. */
static int model_expose(struct exposure_session *session, const struct exposure_request *request,
                        struct exposure **ret_exposure, struct exposure_grant *ret_grant)
{
    struct model_exposure *exposure = calloc(1, sizeof(*exposure));

    (void)session;
    if (!exposure)
        return -ENOMEM;
    exposure->mode = request->mode;
    exposure->run = request->runs[0];
    for (uint64_t i = 0; i < exposure->run.length / BLOCK; i++) {
        struct reach *r = reach_of(exposure->run, i);

        if (request->mode == LEASE_WRITE) {
            collisions += r->writers++ > 0 || r->readers > 0;
        } else {
            r->readers++;
            collisions += r->writers > 0;
        }
    }
    *ret_exposure = &exposure->exposure;
    *ret_grant = (struct exposure_grant){.remote_address = request->range.offset, .rkey = 7};
    world.exposures++;
    return 0;
}

static int model_fence(struct exposure *fenced)
{
    struct model_exposure *exposure = (struct model_exposure *)fenced;

    for (uint64_t i = 0; i < exposure->run.length / BLOCK; i++) {
        struct reach *r = reach_of(exposure->run, i);

        exposure->mode == LEASE_WRITE ? r->writers-- : r->readers--;
    }
    return 0;
}

/* ---- the filesystem: many files ---- */

static int model_open(void *fs, const char *path, const struct lease_credentials *who, enum lease_mode mode,
                      uint64_t *ret_inode)
{
    (void)fs, (void)who, (void)mode;
    *ret_inode = FIRST + strtoul(path + 1, NULL, 10) % FILES;
    world.pins++;
    return 0;
}

static int model_hold(void *fs, uint64_t inode, struct lease_range range, enum lease_mode mode,
                      struct layout_hold **ret_hold, const struct layout_run **ret_runs, size_t *ret_n_runs,
                      struct layout_problem *problem)
{
    int error = fake_hold(fs, inode, range, mode, ret_hold, ret_runs, ret_n_runs, problem);

    if (!error)
        (*ret_hold)->run.offset |= (inode - FIRST) << 32;
    return error;
}

static int model_hold_part(void *fs, struct layout_hold *of, struct lease_range range, enum lease_mode mode,
                           struct layout_hold **ret_hold, const struct layout_run **ret_runs, size_t *ret_n_runs)
{
    struct lease_range inside = {(of->run.offset & ~(uint64_t)UINT32_MAX) | range.offset, range.length};

    return fake_hold_part(fs, of, inside, mode, ret_hold, ret_runs, ret_n_runs);
}

/* ---- local operations ---- */

struct local {
    struct lease_waiter waiter; /* first */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool resumed;
};

static void local_resumed(struct lease_waiter *waiter)
{
    struct local *local = (struct local *)waiter;

    pthread_mutex_lock(&local->lock);
    local->resumed = true;
    pthread_cond_signal(&local->changed);
    pthread_mutex_unlock(&local->lock);
}

static void note_longest(atomic_ulong *longest_ms, uint64_t since_ns)
{
    unsigned long took_ms = (now_ns() - since_ns) / MS, before = *longest_ms;

    while (took_ms > before && !atomic_compare_exchange_weak(longest_ms, &before, took_ms))
        ;
}

static bool resumed_within(struct local *local, uint64_t ns)
{
    uint64_t until_ns = now_ns() + ns;
    struct timespec until = {(time_t)(until_ns / 1000000000u), (long)(until_ns % 1000000000u)};
    bool resumed;

    pthread_mutex_lock(&local->lock);
    while (!local->resumed && now_ns() < until_ns)
        pthread_cond_clockwait(&local->changed, &local->lock, CLOCK_MONOTONIC, &until);
    resumed = local->resumed;
    if (resumed)
        local->resumed = false;
    pthread_mutex_unlock(&local->lock);
    return resumed;
}

/* false: its user pressed Ctrl-C. */
static bool wait_for_resume(struct local *local, uint64_t patience_ns)
{
    if (patience_ns && resumed_within(local, patience_ns))
        return true;
    if (patience_ns && lease_waiter_cancel(the_table(), &local->waiter, now_ns()))
        return false;
    if (!resumed_within(local, LATE_MS * MS)) {
        fprintf(stderr, "I4: an operation is parked for ever\n");
        abort();
    }
    return true;
}

/* Once an operation may go that keeps the bytes, or puts others in their place, no remote writer reaches its block. */
static void operate(struct local *local, unsigned *seed)
{
    static const enum lease_policy policies[] = {LEASE_POLICY_RECALL, LEASE_POLICY_RECALL, LEASE_POLICY_RECALL,
                                                 LEASE_POLICY_BUSY, LEASE_POLICY_ORPHAN};
    uint64_t file = rand_r(seed) % FILES, block = rand_r(seed) % FILE_BLOCKS, began_ns = now_ns();
    uint64_t patience_ns = rand_r(seed) % 4 ? 0 : rand_r(seed) % (2 * RECALL_MS) * MS;
    enum lease_op op = LEASE_OP_DROP + rand_r(seed) % 3;
    enum lease_policy policy = policies[rand_r(seed) % 5];
    struct lease_range range = {block * BLOCK, BLOCK};
    int result;

    memset(&local->waiter, 0, sizeof(local->waiter));
    local->waiter.resume = local_resumed;
    while ((result = lease_op_begin_under(the_table(), FIRST + file, range, op, policy, now_ns(), &local->waiter)) ==
               -EINPROGRESS &&
           wait_for_resume(local, patience_ns))
        ;
    /* It keeps its place until its end only if it has waited. */
    if (!result && local->waiter.ticket && op != LEASE_OP_DROP && policy == LEASE_POLICY_RECALL)
        collisions += reach[file][block].writers > 0;
    collisions += result && result != -EINPROGRESS && (result != -EBUSY || policy != LEASE_POLICY_BUSY);
    waits += local->waiter.ticket != 0;
    interrupted += result == -EINPROGRESS;
    refused += result == -EBUSY;
    lease_op_end(the_table(), &local->waiter);
    note_longest(&longest_operation_ms, began_ns);
    operations++;
}

static void *local_thread(void *arg)
{
    struct local local = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    unsigned seed = (unsigned)(uintptr_t)arg;

    while (!stopping) {
        operate(&local, &seed);
        poll(NULL, 0, rand_r(&seed) % 3);
    }
    pthread_mutex_destroy(&local.lock);
    pthread_cond_destroy(&local.changed);
    return NULL;
}

/* ---- clients ---- */

struct member {
    struct client client;
    int64_t leases[2 * OF_EACH];
    size_t n;
    uint64_t asked_ns[UNDERWAY]; /* by id; 0: answered */
    int unanswered;
};

static void meet(struct member *m)
{
    m->n = 0;
    m->unanswered = 0;
    memset(m->asked_ns, 0, sizeof(m->asked_ns));
    client_open(&m->client);
}

static void say(struct member *m, const char *method, const char *params)
{
    uint64_t *asked_ns = &m->asked_ns[client_send(&m->client, method, params) % UNDERWAY];

    assert_int_equal(*asked_ns, 0); /* the one before is answered long since */
    *asked_ns = now_ns();
    m->unanswered++;
}

static void answered(struct member *m, json_int_t id)
{
    note_longest(&longest_request_ms, m->asked_ns[id % UNDERWAY]);
    m->asked_ns[id % UNDERWAY] = 0;
    m->unanswered--;
    answers++;
}

static void keep(struct member *m, int64_t lease)
{
    if (m->n < 2 * OF_EACH)
        m->leases[m->n++] = lease;
}

static void say_return(struct member *m, int64_t lease, unsigned *seed)
{
    char params[128];

    if (rand_r(seed) % 2)
        snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)lease);
    else
        snprintf(params, sizeof(params), "{\"lease\":%lld,\"offset\":%u,\"length\":4096%s}", (long long)lease,
                 rand_r(seed) % FILE_BLOCKS * 4096, rand_r(seed) % 3 ? "" : ",\"mode\":\"read\"");
    say(m, "return", params);
}

static void forget(struct member *m, json_int_t lease)
{
    for (size_t i = m->n; i-- > 0;)
        if (m->leases[i] == lease)
            m->leases[i] = m->leases[--m->n];
}

static void notified(struct member *m, const char *method, json_int_t lease, unsigned *seed)
{
    if (strcmp(method, LEASEFS_NOTIFY_REVOKED) == 0)
        forget(m, lease);
    if (strcmp(method, LEASEFS_NOTIFY_RECALL) == 0 && rand_r(seed) % 4) {
        say_return(m, lease, seed);
        forget(m, lease); /* what is kept of it comes with the answer */
    }
}

/* What has come so far, or one message at least. */
static void listen_to(struct member *m, unsigned *seed, bool wait)
{
    struct pollfd ready = {.fd = m->client.fd, .events = POLLIN};

    while (wait || memchr(m->client.buffer, '\n', m->client.length) || poll(&ready, 1, 0) == 1) {
        json_t *message = client_hear(&m->client), *kept;
        const char *method;

        assert_non_null(message);
        wait = false;
        method = json_string_value(json_object_get(message, "method"));
        kept = member(message, "result", "kept");
        cuts += json_array_size(kept) > 0;
        for (size_t i = 0; i < json_array_size(kept); i++)
            keep(m, json_integer_value(json_object_get(json_array_get(kept, i), "lease")));
        if (json_is_integer(member(message, "result", "rkey")))
            keep(m, json_integer_value(member(message, "result", "lease")));
        if (json_is_integer(json_object_get(message, "id")))
            answered(m, json_integer_value(json_object_get(message, "id")));
        if (method)
            notified(m, method, json_integer_value(member(message, "params", "lease")), seed);
        json_decref(message);
    }
}

static void ask(struct member *m, unsigned *seed, bool read)
{
    char params[128];

    snprintf(params, sizeof(params), "{\"path\":\"/%u\",\"mode\":\"%s\",\"offset\":%u,\"length\":%u,\"wait\":%s}",
             (unsigned)rand_r(seed) % FILES, read ? "read" : "write", rand_r(seed) % 6 * 4096,
             1 + rand_r(seed) % 3 * 4096,
             read               ? "true"
             : rand_r(seed) % 2 ? "true"
                                : "false");
    say(m, "lease", params);
}

static void join(struct member *m, unsigned *seed)
{
    meet(m);
    for (int i = 0; i < OF_EACH; i++)
        ask(m, seed, true);
    while (m->n < OF_EACH)
        listen_to(m, seed, true);
}

static void act(struct member *m, unsigned *seed)
{
    switch (rand_r(seed) % 8) {
    case 0:
        if (rand_r(seed) % 200)
            break;
        client_hang_up(&m->client); /* I6 */
        meet(m);
        break;
    case 1:
        if (m->unanswered < AT_ONCE && rand_r(seed) % 2)
            ask(m, seed, false);
        break;
    case 2:
    case 3:
    case 4:
        if (m->unanswered < AT_ONCE && m->n < OF_EACH + 5)
            ask(m, seed, true);
        break;
    case 5:
        if (m->n > OF_EACH - 5) {
            size_t i = rand_r(seed) % m->n;

            say_return(m, m->leases[i], seed);
            m->leases[i] = m->leases[--m->n];
        }
        break;
    default:
        break;
    }
    listen_to(m, seed, false);
}

static pthread_barrier_t all_there;

static void *driver(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    struct member *members = calloc(SESSIONS / DRIVERS, sizeof(*members));

    for (int i = 0; members && i < SESSIONS / DRIVERS; i++)
        join(&members[i], &seed);
    pthread_barrier_wait(&all_there); /* the number is looked at */
    pthread_barrier_wait(&all_there);
    while (members && !stopping)
        act(&members[rand_r(&seed) % (SESSIONS / DRIVERS)], &seed);
    for (int i = 0; members && i < SESSIONS / DRIVERS; i++)
        while (members[i].unanswered)
            listen_to(&members[i], &seed, true);
    for (int i = 0; members && i < SESSIONS / DRIVERS; i++)
        client_hang_up(&members[i].client);
    free(members);
    return NULL;
}

static void live_for(uint64_t seconds)
{
    pthread_t threads[DRIVERS + LOCALS];
    struct lease_counts counts;

    pthread_barrier_init(&all_there, NULL, DRIVERS + 1);
    for (uintptr_t i = 0; i < DRIVERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, driver, (void *)(i + 1)), 0);
    pthread_barrier_wait(&all_there);
    lease_counts(the_table(), &counts);
    n_leases = counts.leases;
    assert_true(n_leases >= LEASES);
    pthread_barrier_wait(&all_there);
    for (uintptr_t i = DRIVERS; i < DRIVERS + LOCALS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, local_thread, (void *)(i + 1)), 0);
    for (uint64_t until = now_ns() + seconds * 1000 * MS;
         now_ns() < until || !waits || !interrupted || !refused || !cuts;)
        poll(NULL, 0, 10);
    lease_counts(the_table(), &counts);
    n_leases_last = counts.leases;
    stopping = true;
    for (int i = 0; i < DRIVERS + LOCALS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&all_there);
}

static void ten_thousand_leases_of_two_hundred_sessions_keep_to_the_rules(void **state)
{
    struct lease_service_config config = world_config();
    struct layout_ops layout = fake_layout;
    struct exposure_ops exposure = fake_exposure;
    const char *seconds = getenv("LEASEFS_TEST_SECONDS");

    (void)state;
    layout.open = model_open;
    layout.hold = model_hold;
    layout.hold_part = model_hold_part;
    exposure.expose = model_expose;
    exposure.fence = model_fence;
    config.layout = &layout;
    config.exposure = &exposure;
    config.limits.recall_timeout_ns = RECALL_MS * MS;
    config.limits.fence_bound_ns = 600000 * MS; /* none overruns: an operation goes when it is through */
    config.limits.max_leases = 4 * LEASES;
    config.limits.max_session_leases = 4 * OF_EACH;
    world_start(&config);
    live_for(seconds ? strtoull(seconds, NULL, 0) : 5);
    print_message("%lu leases at once, %lu at last; %lu answers, the longest after %lu ms; %lu cuts\n", n_leases,
                  n_leases_last, answers, longest_request_ms, cuts);
    print_message("%lu operations, %lu waited, the longest %lu ms; %lu interrupted, %lu refused\n", operations, waits,
                  longest_operation_ms, interrupted, refused);
    UNTIL(world.holds == 0);
    assert_int_equal(collisions, 0);
    assert_true(waits && interrupted && refused);
    assert_true(longest_operation_ms < RECALL_MS + LATE_MS);
    assert_true(longest_request_ms < LATE_MS);
    world_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_leases_of_two_hundred_sessions_keep_to_the_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
