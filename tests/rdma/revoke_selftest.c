/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What happens to a long transfer in flight when its lease is revoked. One packet, or WRITE alone, would let a broken
 * revocation pass: READs and WRITEs of thousands of packets do not.
 *
 * With the hazard build of the fabric (gate and fence do nothing) the same trials must find the harm: that shows that
 * they can fail.
 */

#include <stdlib.h>

#include "selftest.h"

#include "rdma/connection.h"
#include "rdma/sync.h"

#define TRIALS 12

#ifdef LEASEFS_HAZARD
#define HARM true
#else
#define HARM false
#endif

/* What a trial left behind. */
struct harm {
    size_t read_late;    /* bytes written after the fence that the peer has read */
    size_t written_late; /* bytes that the peer changed after the fence */
};

enum how {
    GATE_AND_FENCE,
    GATE_ONLY,
    NOTHING,
};

/* Moves the moment of the revocation about within a transfer. */
static void let_some_of_it_pass(unsigned trial)
{
    pass_time((trial % 6) * 3 * NS_PER_MS);
}

/* As libleasefs does: while an MR that only its connection fenced is on its way out, the session may not connect. */
static void connect_when_admitted(struct peer *peer, struct exposure_session *session)
{
    uint64_t until = monotonic_ns() + 10 * NS_PER_S;
    const char *answer;

    do
        answer = connect_peer(peer, session);
    while (strcmp(answer, "rejected 4") == 0 && monotonic_ns() < until);
    CHECK_ANSWER(answer, "ok");
}

/* A long transfer is in flight; access is taken away; the memory is given to somebody else and rewritten. */
static struct harm revoke_in_flight(struct peer *peer, struct exposure_session *session, enum lease_mode mode,
                                    enum how how, unsigned trial)
{
    struct harm harm = {0};
    struct lease lease;
    bool read = mode == LEASE_READ;

    memset(pool_byte(2, 0), OLD_BYTE, LEASE_SIZE);
    expose(session, 2, mode, &lease);
    connect_when_admitted(peer, session);
    CHECK_ANSWER(hammer(peer, &lease, read, read ? OLD_BYTE : REMOTE_BYTE), "running");
    let_some_of_it_pass(trial);
    if (how != NOTHING)
        ops->revoke(lease.exposure);
    if (how == GATE_AND_FENCE)
        CHECK(ops->fence(lease.exposure) == 0);
    memset(pool_byte(2, 0), NEW_BYTE, LEASE_SIZE);
    if (how == NOTHING) {
        let_some_of_it_pass(5);
        CHECK(ops->fence(lease.exposure) == 0);
    }
    if (HARM) { /* nothing else stops the peer */
        let_some_of_it_pass(5);
        pthread_mutex_lock(&fabric->lock);
        connection_condemn_session_locked(session);
        pthread_mutex_unlock(&fabric->lock);
    }
    CHECK(strncmp(peer_ask(peer, "stopped"), "wc ", 3) == 0);
    CHECK(sscanf(peer_ask(peer, "scan %d", NEW_BYTE), "found %zu", &harm.read_late) == 1);
    harm.written_late = count_others(pool_byte(2, 0), LEASE_SIZE, NEW_BYTE);
    if (how != GATE_AND_FENCE)
        CHECK(ops->fence(lease.exposure) == 0);
    ops->drop(lease.exposure);
    return harm;
}

static unsigned harmful_trials(const char *ladder, enum lease_mode mode, enum how how)
{
    struct exposure_session *session;
    struct peer peer;
    unsigned harmful = 0;

    start_fabric(ladder);
    session = start_peer(&peer, 1);
    for (unsigned i = 0; i < TRIALS; i++) {
        struct harm harm = revoke_in_flight(&peer, session, mode, how, i);

        harmful += harm.read_late || harm.written_late;
    }
    json_t *status = ops->status(fabric);
    char *text = json_dumps(json_object_get(status, "revocations"), JSON_COMPACT);

    printf("# %s: harm in %u of %u trials; %s\n", mode == LEASE_READ ? "READ" : "WRITE", harmful, TRIALS, text);
    free(text);
    json_decref(status);
    end_peer(&peer, session);
    fabric_stop(fabric);
    return harmful;
}

#ifdef LEASEFS_HAZARD

static void without_revocation_a_reader_sees_the_next_owners_bytes(void)
{
    CHECK(harmful_trials(NULL, LEASE_READ, GATE_AND_FENCE) > 0);
}

static void without_revocation_a_writer_changes_the_next_owners_bytes(void)
{
    CHECK(harmful_trials(NULL, LEASE_WRITE, GATE_AND_FENCE) > 0);
}

#else

static void no_read_in_flight_outlives_the_fence(void)
{
    CHECK(harmful_trials(NULL, LEASE_READ, GATE_AND_FENCE) == 0);
}

static void no_write_in_flight_outlives_the_fence(void)
{
    CHECK(harmful_trials(NULL, LEASE_WRITE, GATE_AND_FENCE) == 0);
}

static void no_transfer_outlives_the_last_rung(void)
{
    CHECK(harmful_trials("qp", LEASE_READ, GATE_AND_FENCE) == 0);
    CHECK(harmful_trials("qp", LEASE_WRITE, GATE_AND_FENCE) == 0);
}

/* The controls: the same measurement finds harm where there is some. */
static void a_gate_alone_lets_a_read_in_flight_run_on(void)
{
    skip_without_rereg();
    CHECK(harmful_trials(NULL, LEASE_READ, GATE_ONLY) > 0);
}

static void a_write_in_flight_does_harm_when_nothing_is_revoked(void)
{
    CHECK(harmful_trials(NULL, LEASE_WRITE, NOTHING) > 0);
}

#endif

int main(int argc, char **argv)
{
    static const struct selftest tests[] = {
#ifdef LEASEFS_HAZARD
        SELFTEST(without_revocation_a_reader_sees_the_next_owners_bytes),
        SELFTEST(without_revocation_a_writer_changes_the_next_owners_bytes),
#else
        SELFTEST(no_read_in_flight_outlives_the_fence),
        SELFTEST(no_write_in_flight_outlives_the_fence),
        SELFTEST(no_transfer_outlives_the_last_rung),
        SELFTEST(a_gate_alone_lets_a_read_in_flight_run_on),
        SELFTEST(a_write_in_flight_does_harm_when_nothing_is_revoked),
#endif
    };

    return SELFTESTS(argc, argv, tests);
}
