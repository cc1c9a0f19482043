/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Each rung of revocation fails in turn, with a transfer in flight: the next one is climbed, and whoever reports
 * success keeps its word. Linked with the build of the fabric whose device can be told to fail (rdma/faults.h).
 */

#include <errno.h>
#include <stdlib.h>

#include "selftest.h"

#include "rdma/faults.h"
#include "rdma/sync.h"

struct escalation {
    const char *faults;
    const char *ladder;
    int gate, fence, orphan;   /* what each returns; orphan counts when the fence fails */
    const char *climbed;       /* the rung that did it */
    const char *passed, *word; /* a rung that did not, and how it is counted */
    const char *unused;        /* a rung that was not climbed */
    bool by_itself;            /* by the thread that asks, which may get stuck: take_back() */
    bool overtaken;            /* and does */
    bool at_leisure;           /* as if the peer had given it back, though it goes on */
};

static struct peer peer;
static struct exposure_session *session;

/* Whoever is next to have these blocks has written them; the peer may go on as it likes. */
static void check_that_nothing_lands(void)
{
    uint64_t until = monotonic_ns() + 300 * NS_PER_MS;

    memset(pool_byte(2, 0), NEW_BYTE, LEASE_SIZE);
    do
        CHECK(count_others(pool_byte(2, 0), LEASE_SIZE, NEW_BYTE) == 0);
    while (monotonic_ns() < until);
}

/* A thread that takes a lease back itself, and what came of it, by whichever thread. */
struct taker {
    struct exposure *exposure;
    bool at_leisure;
    pthread_t thread;
    int returned;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ended; /* guarded by lock, as is the next */
    int result;
};

static void taken(void *arg, int result)
{
    struct taker *taker = arg;

    pthread_mutex_lock(&taker->lock);
    CHECK(!taker->ended);
    taker->ended = true;
    taker->result = result;
    pthread_cond_broadcast(&taker->changed);
    pthread_mutex_unlock(&taker->lock);
}

static void *take_back(void *arg)
{
    struct taker *taker = arg;

    taker->returned = ops->take_back(taker->exposure, taker->at_leisure, taken, taker);
    if (taker->returned != -EINPROGRESS)
        taken(taker, taker->returned);
    return NULL;
}

static void start_taker(struct taker *taker, struct exposure *exposure, bool at_leisure)
{
    *taker = (struct taker){.exposure = exposure, .at_leisure = at_leisure};
    pthread_mutex_init(&taker->lock, NULL);
    CHECK(sync_cond_init(&taker->changed) == 0);
    CHECK(pthread_create(&taker->thread, NULL, take_back, taker) == 0);
}

static int await_taker(struct taker *taker)
{
    uint64_t deadline = monotonic_ns() + 30 * NS_PER_S;

    pthread_mutex_lock(&taker->lock);
    while (!taker->ended)
        CHECK(sync_wait_until(&taker->changed, &taker->lock, deadline) != -ETIMEDOUT);
    pthread_mutex_unlock(&taker->lock);
    return taker->result;
}

static void escalate(const struct escalation *e)
{
    struct lease lease;
    struct taker taker;

    printf("# %s\n", *e->faults ? e->faults : "no fault");
    fflush(stdout);
    start_fabric(e->ladder);
    session = start_peer(&peer, 1);
    expose(session, 2, LEASE_WRITE, &lease);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(hammer(&peer, &lease, false, REMOTE_BYTE), "running");
    CHECK(faults_set(e->faults) == 0);
    if (e->by_itself) {
        start_taker(&taker, lease.exposure, e->at_leisure);
        CHECK(await_taker(&taker) == e->fence);
    } else {
        CHECK(ops->revoke(lease.exposure) == e->gate);
        CHECK(ops->fence(lease.exposure) == e->fence);
    }
    if (e->fence) {
        CHECK(ops->orphan(lease.exposure) == e->orphan);
        CHECK(status_of("revocations", NULL, "unproven") == 1);
    }
    if (!e->fence || !e->orphan)
        check_that_nothing_lands();
    if (e->climbed)
        CHECK(status_of("revocations", e->climbed, "count") == 1);
    if (e->passed)
        CHECK(status_of("revocations", e->passed, e->word) == 1);
    if (e->unused)
        CHECK(status_of("revocations", e->unused, "count") == 0);
    CHECK(faults_set("") == 0);
    if (e->by_itself) {
        pthread_join(taker.thread, NULL);
        CHECK((taker.returned == -EINPROGRESS) == e->overtaken);
    }
    if (e->fence) { /* nothing stops it */
        peer_kill(&peer);
    } else {
        CHECK(strncmp(peer_ask(&peer, "stopped"), "wc ", 3) == 0);
        ops->drop(lease.exposure);
        peer_stop(&peer);
    }
    ops->session_close(session);
    fabric_stop(fabric);
}

static void without_faults_the_first_gate_and_the_first_fence_do(void)
{
    escalate(&(struct escalation){.faults = "", .climbed = "dereg"});
}

static void a_gate_that_fails_is_made_up_for_by_the_fence(void)
{
    escalate(&(struct escalation){
        .faults = "rereg=fail", .gate = -EIO, .climbed = "dereg", .passed = "rereg", .word = "failed"});
}

/* A driver that knows no MR without rights: it moves to the quarantine, and that alone stops the peer. */
static void an_mr_that_cannot_lose_its_rights_moves_out_of_reach(void)
{
    struct lease lease;

    CHECK(faults_set("rights=fail") == 0);
    start_fabric("rereg,dereg");
    session = start_peer(&peer, 1);
    memset(pool_byte(2, 0), OLD_BYTE, LEASE_SIZE);
    expose(session, 2, LEASE_WRITE, &lease);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(read_from(&peer, &lease, 0, 4096), "ok 165");
    CHECK(ops->revoke(lease.exposure) == 0);
    CHECK_ANSWER(write_to(&peer, &lease, 0, 4096, REMOTE_BYTE), wc(REM_ACCESS));
    check_that_nothing_lands();
    end_lease(&lease);
    end_peer(&peer, session);
    wait_until_nothing_is_left(30 * NS_PER_S);
    fabric_stop(fabric);
}

static void a_gate_that_is_stuck_costs_the_fence_its_region_and_the_connection_ends(void)
{
    escalate(&(struct escalation){
        .faults = "rereg=stuck", .gate = -ETIMEDOUT, .climbed = "qp", .passed = "rereg", .word = "late"});
}

static void a_deregistration_that_fails_leads_to_the_connection(void)
{
    escalate(&(struct escalation){.faults = "dereg=fail", .climbed = "qp", .passed = "dereg", .word = "failed"});
}

static void a_deregistration_that_is_stuck_leads_to_the_connection(void)
{
    escalate(&(struct escalation){.faults = "dereg=stuck", .climbed = "qp", .passed = "dereg", .word = "late"});
}

static void a_deregistration_that_succeeds_too_late_is_no_proof(void)
{
    escalate(&(struct escalation){.faults = "dereg=slow:2500", .climbed = "qp", .passed = "dereg", .word = "late"});
}

/* The same three, and none at all, with nobody between the lease's end and the device. */
static void the_thread_that_is_stuck_is_left_behind_and_another_climbs_on(void)
{
    escalate(&(struct escalation){.faults = "", .climbed = "dereg", .by_itself = true});
    escalate(&(struct escalation){.faults = "rereg=stuck",
                                  .climbed = "qp",
                                  .passed = "rereg",
                                  .word = "late",
                                  .by_itself = true,
                                  .overtaken = true});
    escalate(&(struct escalation){.faults = "dereg=stuck",
                                  .climbed = "qp",
                                  .passed = "dereg",
                                  .word = "late",
                                  .by_itself = true,
                                  .overtaken = true});
    escalate(&(struct escalation){.faults = "dereg=slow:2500",
                                  .climbed = "qp",
                                  .passed = "dereg",
                                  .word = "late",
                                  .by_itself = true,
                                  .overtaken = true});
}

/* Whoever gives a lease back and goes on all the same gets no further. */
static void at_leisure_the_deregistration_alone_keeps_the_promise(void)
{
    escalate(&(struct escalation){
        .faults = "", .climbed = "dereg", .unused = "rereg", .by_itself = true, .at_leisure = true});
    escalate(&(struct escalation){.faults = "dereg=stuck",
                                  .climbed = "qp",
                                  .passed = "dereg",
                                  .word = "late",
                                  .by_itself = true,
                                  .overtaken = true,
                                  .at_leisure = true});
}

static void memory_on_demand_that_fails_leads_to_the_deregistration(void)
{
    skip_without_memory_on_demand();
    escalate(&(struct escalation){.faults = "odp=fail",
                                  .ladder = "odp,dereg,qp",
                                  .gate = -EOPNOTSUPP,
                                  .climbed = "dereg",
                                  .passed = "odp",
                                  .word = "failed"});
    escalate(&(struct escalation){.faults = "", .ladder = "odp,dereg,qp", .gate = -EOPNOTSUPP, .climbed = "odp"});
}

static void memory_on_demand_that_is_stuck_leads_to_the_connection(void)
{
    skip_without_memory_on_demand();
    escalate(&(struct escalation){.faults = "odp=stuck",
                                  .ladder = "odp,dereg,qp",
                                  .gate = -EOPNOTSUPP,
                                  .climbed = "qp",
                                  .passed = "odp",
                                  .word = "late"});
}

static void a_memory_window_that_is_stuck_leads_to_the_connection(void)
{
    escalate(&(struct escalation){.faults = "mw=stuck",
                                  .ladder = "mw,dereg,qp",
                                  .gate = -ETIMEDOUT,
                                  .climbed = "qp",
                                  .passed = "mw",
                                  .word = "late"});
}

/* No gate either: behind one the peer is refused, its QP ends by itself, and that it is quiet may be seen in time. */
static void a_connection_that_is_stuck_leads_to_other_pages(void)
{
    escalate(&(struct escalation){.faults = "rereg=fail,dereg=fail,qp=stuck",
                                  .gate = -EIO,
                                  .fence = -ETIMEDOUT,
                                  .climbed = "punch",
                                  .passed = "qp",
                                  .word = "late"});
}

/* An MR cannot go as long as there is a window on it. */
static void a_memory_window_that_cannot_be_freed_leads_to_the_connection(void)
{
    escalate(&(struct escalation){.faults = "", .ladder = "mw,dereg,qp", .climbed = "mw"});
    escalate(&(struct escalation){.faults = "mw=fail",
                                  .ladder = "mw,dereg,qp",
                                  .gate = -EIO,
                                  .climbed = "qp",
                                  .passed = "dereg",
                                  .word = "failed"});
}

/* The peer goes on all the while. */
static void when_no_fence_comes_the_pool_gets_other_pages(void)
{
    escalate(&(struct escalation){.faults = "rereg=fail,dereg=fail,qp=fail",
                                  .gate = -EIO,
                                  .fence = -ETIMEDOUT,
                                  .climbed = "punch",
                                  .passed = "dereg",
                                  .word = "failed"});
}

static void when_everything_fails_nothing_is_given_back(void)
{
    escalate(&(struct escalation){.faults = "rereg=fail,dereg=fail,qp=fail,punch=fail",
                                  .gate = -EIO,
                                  .fence = -ETIMEDOUT,
                                  .orphan = -EIO,
                                  .passed = "punch",
                                  .word = "failed"});
}

/* On memory on demand the device would fault the fresh pages in. */
static void memory_on_demand_is_never_punched(void)
{
    skip_without_memory_on_demand();
    escalate(&(struct escalation){.faults = "odp=fail,dereg=fail,qp=fail",
                                  .ladder = "odp,dereg,qp,punch",
                                  .gate = -EOPNOTSUPP,
                                  .fence = -ETIMEDOUT,
                                  .orphan = -EOPNOTSUPP,
                                  .passed = "odp",
                                  .word = "failed"});
}

/* It reports success and does nothing: the self-test at start sees the bytes cross, and it is never trusted. */
static void a_deregistration_that_reports_success_too_early_is_found_out(void)
{
    struct fabric_config config = {.device = address, .revoke = "dereg"};
    char *error = NULL;

    CHECK(faults_set("dereg=early") == 0);
    CHECK(fabric_start(&config, &fabric, &error) == -EOPNOTSUPP);
    printf("# %s\n", error);
    free(error);
    escalate(&(struct escalation){.faults = "dereg=early", .climbed = "qp"});
}

int main(int argc, char **argv)
{
    static const struct selftest tests[] = {
        SELFTEST(without_faults_the_first_gate_and_the_first_fence_do),
        SELFTEST(a_gate_that_fails_is_made_up_for_by_the_fence),
        SELFTEST(an_mr_that_cannot_lose_its_rights_moves_out_of_reach),
        SELFTEST(a_gate_that_is_stuck_costs_the_fence_its_region_and_the_connection_ends),
        SELFTEST(a_deregistration_that_fails_leads_to_the_connection),
        SELFTEST(a_deregistration_that_is_stuck_leads_to_the_connection),
        SELFTEST(a_deregistration_that_succeeds_too_late_is_no_proof),
        SELFTEST(the_thread_that_is_stuck_is_left_behind_and_another_climbs_on),
        SELFTEST(at_leisure_the_deregistration_alone_keeps_the_promise),
        SELFTEST(memory_on_demand_that_fails_leads_to_the_deregistration),
        SELFTEST(a_memory_window_that_cannot_be_freed_leads_to_the_connection),
        SELFTEST(memory_on_demand_that_is_stuck_leads_to_the_connection),
        SELFTEST(a_memory_window_that_is_stuck_leads_to_the_connection),
        SELFTEST(a_connection_that_is_stuck_leads_to_other_pages),
        SELFTEST(when_no_fence_comes_the_pool_gets_other_pages),
        SELFTEST(when_everything_fails_nothing_is_given_back),
        SELFTEST(memory_on_demand_is_never_punched),
        SELFTEST(a_deregistration_that_reports_success_too_early_is_found_out),
    };

    return SELFTESTS(argc, argv, tests);
}
