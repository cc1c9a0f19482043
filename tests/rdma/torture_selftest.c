/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The fence torture. A peer with deep queues of large and small reads and writes loses its lease at a random moment,
 * again and again; as soon as the call returns the blocks are somebody else's, who writes a pattern into them. Not one
 * foreign byte may ever be in them afterwards (I1), and the peer may not have read one byte of the pattern (I2).
 *
 * Atomics, which leases never allow, are tried in between.
 *
 * LEASEFS_TORTURE_ROUNDS: revocations for each mechanism (default 8). LEASEFS_TEST_SEED: the same moments again. With
 * LEASEFS_TEST_PEER (see peer.h) the peer is on another machine, and the wire between may be as bad as it likes.
 *
 * The controls do what must never be done, and must be seen to do harm: rereg without a fence, a hole punched under
 * memory on demand.
 */

#include <stdlib.h>
#include <sys/mman.h>

#include "selftest.h"

#include "rdma/sync.h"

#define SLOT 2

struct torture {
    const char *ladder;                                           /* revoke= */
    int (*bare)(struct exposure *exposure, uint64_t deadline_ns); /* instead of the ladder: this call alone */
    bool space;                                                   /* `bare` takes the pages away, not the access */
};

static unsigned seed;

static unsigned rounds(void)
{
    const char *text = getenv("LEASEFS_TORTURE_ROUNDS");

    return text && atoi(text) > 0 ? (unsigned)atoi(text) : 8;
}

static void let_a_random_time_pass(void)
{
    pass_time((uint64_t)(rand_r(&seed) % 20000) * (NS_PER_MS / 1000));
}

static void print_rungs(void)
{
    const struct revoke_ladder *ladder = &fabric->ladder;

    for (size_t i = 0; i < ladder->n_rungs; i++)
        printf("# %s: %llu in time, %llu late, %llu failed; longest %llu ms\n", ladder->rungs[i]->name,
               (unsigned long long)ladder->counts[i].succeeded, (unsigned long long)ladder->counts[i].late,
               (unsigned long long)ladder->counts[i].failed,
               (unsigned long long)(ladder->counts[i].max_ns / NS_PER_MS));
}

static void fence(struct exposure *exposure)
{
    uint64_t start = monotonic_ns();
    int r = ops->fence(exposure);

    if (r) {
        printf("# no proof after %llu ms (%d)\n", (unsigned long long)((monotonic_ns() - start) / NS_PER_MS), r);
        print_rungs();
    }
    CHECK(r == 0);
}

static void take_away(const struct torture *torture, struct exposure *exposure)
{
    if (torture->bare) {
        CHECK(torture->bare(exposure, monotonic_ns() + 5 * NS_PER_S) == 0);
        return;
    }
    ops->revoke(exposure);
    fence(exposure);
}

static size_t foreign_bytes(void)
{
    return count_others(pool_byte(SLOT, 0), LEASE_SIZE, NEW_BYTE);
}

/* A session whose connection was ended to fence an MR is let in again when that MR is gone. And on a bad wire what sets
 * a connection up may be lost more often than is tried again. */
static void connect_in_the_end(struct peer *peer, struct exposure_session *session)
{
    uint64_t until = monotonic_ns() + 20 * NS_PER_S;
    char barred[32];
    unsigned tries = 0;

    snprintf(barred, sizeof(barred), "rejected %u", LEASEFS_REJECT_RESOURCES);
    for (;;) {
        const char *answer = connect_peer(peer, session);

        if (!strcmp(answer, "ok"))
            return;
        if (!strcmp(answer, barred))
            CHECK(monotonic_ns() < until);
        else
            CHECK(getenv("LEASEFS_TEST_PEER") && ++tries < 10);
    }
}

/* Leases never allow them. A refusal costs the connection, so there is one now and then. */
static void try_an_atomic(struct peer *peer, struct exposure_session *session, const struct lease *lease)
{
    const char *answer =
        peer_ask(peer, "atomic %llu %u", (unsigned long long)lease->grant.remote_address, lease->grant.rkey);

    CHECK(strncmp(answer, "wc ", 3) == 0);
    CHECK(count_others(pool_byte(SLOT, 0), LEASE_SIZE, OLD_BYTE) == 0);
    connect_in_the_end(peer, session);
}

/* One life of a lease. Bytes that crossed after it: in the blocks, or in the peer. */
static size_t live_and_die(const struct torture *torture, struct peer *peer, struct exposure_session *session,
                           enum lease_mode mode)
{
    struct lease lease;
    size_t seen = 0, foreign;

    memset(pool_byte(SLOT, 0), OLD_BYTE, LEASE_SIZE);
    expose(session, SLOT, mode, &lease);
    connect_in_the_end(peer, session);
    if (rand_r(&seed) % 4 == 0)
        try_an_atomic(peer, session, &lease);
    CHECK_ANSWER(peer_ask(peer, "storm %llu %u %u %u %s", (unsigned long long)lease.grant.remote_address,
                          lease.grant.rkey, LEASE_SIZE, (unsigned)rand_r(&seed), mode == LEASE_READ ? "read" : ""),
                 "running");
    let_a_random_time_pass();
    take_away(torture, lease.exposure);
    memset(pool_byte(SLOT, 0), NEW_BYTE, LEASE_SIZE);
    if (torture->space) { /* it goes on in pages of nobody: for as long as it would have taken to come here */
        let_a_random_time_pass();
        foreign = foreign_bytes();
        fence(lease.exposure);
    } else {
        foreign = 0;
    }
    CHECK(strncmp(peer_ask(peer, "stopped"), "wc ", 3) == 0);
    CHECK(sscanf(peer_ask(peer, "scan %d", NEW_BYTE), "found %zu", &seen) == 1);
    foreign += foreign_bytes();
    if (torture->bare && !torture->space)
        fence(lease.exposure);
    ops->drop(lease.exposure);
    return seen + foreign;
}

/* Rounds in which anything crossed. */
static unsigned harmful_rounds(const struct torture *torture, struct peer *peer, struct exposure_session *session,
                               enum lease_mode mode, unsigned count)
{
    uint64_t start = monotonic_ns();
    unsigned harmful = 0;

    if (!count)
        return 0;
    for (unsigned i = 0; i < count; i++)
        harmful += live_and_die(torture, peer, session, mode) != 0;
    printf("# %s%s, %s: harm in %u of %u rounds (%.1f s)\n", torture->ladder ? torture->ladder : "auto",
           torture->bare ? ", one call alone" : "", mode == LEASE_READ ? "reads" : "reads and writes", harmful, count,
           (double)(monotonic_ns() - start) / NS_PER_S);
    fflush(stdout);
    return harmful;
}

/* On a busy machine a rung may miss its deadline, and the next one gives the proof. What is tried is to be seen, too.
 */
static void look_at_rungs(const struct torture *torture)
{
    const struct revoke_ladder *ladder = &fabric->ladder;
    uint64_t late = 0, failed = 0;

    if (torture->bare)
        return;
    for (size_t i = 0; i < ladder->n_rungs; i++) {
        late += ladder->counts[i].late;
        failed += ladder->counts[i].failed;
    }
    if (late || failed)
        print_rungs();
    CHECK(failed <= late); /* while a call is late, what needs it to be over fails */
    CHECK(late <= ladder->counts[0].succeeded / 2);
}

/* Rounds, with leases to write and with leases to read, that were harmful. */
static unsigned harm(const struct torture *torture, unsigned writers, unsigned readers)
{
    struct exposure_session *session;
    struct peer peer;
    unsigned harmful;

    start_fabric(torture->ladder);
    session = start_peer(&peer, 1);
    harmful = harmful_rounds(torture, &peer, session, LEASE_WRITE, writers);
    harmful += harmful_rounds(torture, &peer, session, LEASE_READ, readers);
    look_at_rungs(torture);
    end_peer(&peer, session);
    fabric_stop(fabric);
    return harmful;
}

static void never_harmful(const struct torture *torture)
{
    CHECK(harm(torture, rounds(), (rounds() + 1) / 2) == 0);
}

static void nothing_crosses_gate_and_fence(void)
{
    skip_without_rereg();
    never_harmful(&(struct torture){.ladder = "rereg,dereg,qp"});
}

static void nothing_crosses_a_memory_window_and_a_fence(void)
{
    never_harmful(&(struct torture){.ladder = "mw,dereg,qp"});
}

static void nothing_crosses_a_deregistration(void)
{
    never_harmful(&(struct torture){.ladder = "dereg,qp"});
}

static void nothing_crosses_the_end_of_the_connection(void)
{
    never_harmful(&(struct torture){.ladder = "qp,dereg"});
}

static void nothing_crosses_a_window_that_is_mapped_over(void)
{
    skip_without_memory_on_demand();
    never_harmful(&(struct torture){.ladder = "odp,dereg,qp"});
}

static void nothing_reaches_the_pages_that_take_the_place_of_pinned_ones(void)
{
    never_harmful(&(struct torture){.bare = revoke_by_punch, .space = true});
}

/* It may notice that the device has faulted a page in before the hole was filled: not in time. */
static int punch_whatever_it_says(struct exposure *exposure, uint64_t deadline_ns)
{
    revoke_by_punch(exposure, deadline_ns);
    return 0;
}

static void control_a_gate_without_a_fence_does_harm(void)
{
    skip_without_rereg();
    CHECK(harm(&(struct torture){.ladder = "rereg,dereg", .bare = revoke_by_rereg}, 0, 8) > 0);
}

static void control_a_hole_under_memory_on_demand_does_harm(void)
{
    skip_without_memory_on_demand();
    CHECK(harm(&(struct torture){.ladder = "odp,dereg", .bare = punch_whatever_it_says, .space = true}, 8, 0) > 0);
}

int main(int argc, char **argv)
{
    static const struct selftest tests[] = {
        SELFTEST(nothing_crosses_gate_and_fence),
        SELFTEST(nothing_crosses_a_memory_window_and_a_fence),
        SELFTEST(nothing_crosses_a_deregistration),
        SELFTEST(nothing_crosses_the_end_of_the_connection),
        SELFTEST(nothing_crosses_a_window_that_is_mapped_over),
        SELFTEST(nothing_reaches_the_pages_that_take_the_place_of_pinned_ones),
        SELFTEST(control_a_gate_without_a_fence_does_harm),
        SELFTEST(control_a_hole_under_memory_on_demand_does_harm),
    };
    const char *text = getenv("LEASEFS_TEST_SEED");

    seed = text && *text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)monotonic_ns();
    test_seconds += (getenv("LEASEFS_TEST_PEER") ? 60 : 10) * rounds();
    if (argc < 2 || strcmp(argv[1], "peer") != 0)
        printf("# LEASEFS_TEST_SEED=%u\n", seed);
    return SELFTESTS(argc, argv, tests);
}
