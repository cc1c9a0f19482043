/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What a peer can try over RDMA that it must not. Each attempt is refused, counted, and logged now and then; and all
 * the while another session, whose transfers are in flight, notices nothing.
 *
 * A write that the QP refuses answers "invalid request", one that the MR refuses "access error": so tests can tell
 * which of the two lines held.
 */

#include <stdlib.h>
#include <sys/mman.h>

#include "selftest.h"

#include "rdma/sync.h"

#define REM_INVALID IBV_WC_REM_INV_REQ_ERR
#define VICTIM_SLOT 3
#define PATIENCE    (60 * NS_PER_S)

static void nothing_changed(unsigned slot)
{
    CHECK(count_others(pool_byte(slot, 0), LEASE_SIZE, OLD_BYTE) == 0);
}

static void wait_until_broken(json_int_t count)
{
    uint64_t deadline = monotonic_ns() + PATIENCE;

    while (status_of("connections", NULL, "broken") < count)
        CHECK(monotonic_ns() < deadline);
}

/* Somebody who minds his own business, all through an attack. */
struct victim {
    struct exposure_session *session;
    struct peer peer;
    struct lease lease;
};

static void victim_start(struct victim *victim)
{
    victim->session = start_peer(&victim->peer, 100);
    memset(pool_byte(VICTIM_SLOT, 0), OLD_BYTE, LEASE_SIZE);
    expose(victim->session, VICTIM_SLOT, LEASE_READ, &victim->lease);
    CHECK_ANSWER(connect_peer(&victim->peer, victim->session), "ok");
    CHECK_ANSWER(hammer(&victim->peer, &victim->lease, true, OLD_BYTE), "running");
}

/* It was still reading: only now the NIC refuses it. On a busy machine it may hear of the connection's end first. */
static void victim_end(struct victim *victim)
{
    json_int_t broken = status_of("connections", NULL, "broken");
    const char *answer;

    end_lease(&victim->lease);
    wait_until_broken(broken + 1);
    answer = peer_ask(&victim->peer, "stopped");
    if (strcmp(answer, wc(IBV_WC_WR_FLUSH_ERR)) != 0)
        CHECK_ANSWER(answer, wc(REM_ACCESS));
    nothing_changed(VICTIM_SLOT);
    end_peer(&victim->peer, victim->session);
}

static json_int_t rejected(const char *why)
{
    return status_of("connections", "rejected", why);
}

static void wait_until_writable(json_int_t count)
{
    uint64_t deadline = monotonic_ns() + PATIENCE;

    while (status_of("connections", NULL, "writable") != count)
        CHECK(monotonic_ns() < deadline);
}

/* Standard error goes to a file from here on; what is in it by now that contains `text`. */
static int log_fd = -1;

static void catch_log(void)
{
    log_fd = memfd_create("log", MFD_CLOEXEC);
    CHECK(log_fd >= 0 && dup2(log_fd, STDERR_FILENO) >= 0);
}

static unsigned logged(const char *text)
{
    static char log[65536];
    ssize_t length = pread(log_fd, log, sizeof(log) - 1, 0);
    unsigned count = 0;

    CHECK(length >= 0);
    log[length] = '\0';
    for (const char *at = log; (at = strstr(at, text)); at++)
        count++;
    return count;
}

static void a_flood_of_made_up_cookies_is_counted_and_logged_now_and_then(void)
{
    enum { FLOOD = 20 };
    struct exposure_session *session;
    struct exposure_address where;
    struct victim victim;
    struct peer thief;

    start_fabric(NULL);
    catch_log();
    victim_start(&victim);
    session = start_peer(&thief, 1);
    CHECK(ops->session_connect(session, &where) == 0);
    CHECK_ANSWER(connect_with(&thief, &where, "short"), "rejected 1"); /* no cookie at all */
    CHECK(rejected("malformed") >= 1);
    for (unsigned i = 0; i < FLOOD; i++) {
        struct exposure_address guess = where;

        guess.cookie[i % LEASEFS_COOKIE_SIZE] ^= (uint8_t)(1u + i);
        CHECK_ANSWER(connect_with(&thief, &guess, ""), "rejected 2");
    }
    CHECK(rejected("cookie") >= FLOOD); /* a slow answer lets rdma_cm ask again */
    CHECK(logged("no request of ours") >= 1);
    CHECK(logged("cookie is used") >= 1 && logged("cookie is used") < FLOOD / 2);
    CHECK(status_of("connections", NULL, "half_open") == 0);
    CHECK_ANSWER(connect_with(&thief, &where, ""), "ok"); /* guesses have not used it up */
    end_peer(&thief, session);
    victim_end(&victim);
    fabric_stop(fabric);
}

/* Whoever has it is admitted, once, as the session that it was made for: none of the others' keys works there, and the
 * session's owner, refused, asks for another and has the thief cut off. */
static void a_stolen_cookie_opens_nothing_but_its_own_session_and_not_for_long(void)
{
    struct exposure_session *mine;
    struct exposure_address where;
    struct victim victim;
    struct peer owner, thief;

    start_fabric(NULL);
    victim_start(&victim);
    peer_start(&owner, program);
    peer_start(&thief, program);
    mine = open_session(1);
    CHECK(ops->session_connect(mine, &where) == 0);
    CHECK_ANSWER(connect_with(&thief, &where, ""), "ok");
    CHECK_ANSWER(connect_with(&owner, &where, ""), "rejected 2");
    CHECK_ANSWER(read_from(&thief, &victim.lease, 0, 4096), wc(REM_ACCESS));
    CHECK_ANSWER(connect_peer(&thief, mine), "ok");
    CHECK_ANSWER(connect_peer(&owner, mine), "ok");
    CHECK_ANSWER(peer_ask(&thief, "wait"), "disconnected");
    CHECK_ANSWER(connect_with(&thief, &where, ""), "rejected 2");
    ops->session_close(mine);
    peer_stop(&owner);
    peer_stop(&thief);
    victim_end(&victim);
    fabric_stop(fabric);
}

/* Keys are guessable on soft-RoCE: an index in the upper 24 bits, a random byte below. Here they are known, and those
 * around them are tried, too: the protection domain is what holds. */
static void keys_of_another_session_are_found_by_scanning_and_open_nothing(void)
{
    enum { AROUND = 3, STEP = 128 };
    struct exposure_session *session;
    struct lease own, guess;
    struct victim victim;
    struct peer thief;
    json_int_t tried = 0;

    start_fabric(NULL);
    catch_log();
    victim_start(&victim);
    session = start_peer(&thief, 1);
    memset(pool_byte(0, 0), OLD_BYTE, LEASE_SIZE);
    expose(session, 0, LEASE_WRITE, &own); /* so that its QP lets it write */
    guess = victim.lease;
    for (int around = -AROUND; around <= AROUND; around++) {
        for (unsigned low = 0; low < 256; low += STEP) {
            uint32_t index = (victim.lease.grant.rkey >> 8) + (uint32_t)around;

            guess.grant.rkey = index << 8 | ((victim.lease.grant.rkey + low) & 0xff);
            if (guess.grant.rkey == own.grant.rkey)
                continue;
            CHECK_ANSWER(connect_peer(&thief, session), "ok");
            if (tried % 2)
                CHECK_ANSWER(write_to(&thief, &guess, 0, 4096, REMOTE_BYTE), wc(REM_ACCESS));
            else
                CHECK_ANSWER(read_from(&thief, &guess, 0, 4096), wc(REM_ACCESS));
            tried++;
        }
    }
    wait_until_broken(tried / 2); /* at least: a fresh connection may be faster than the news of the old one's end */
    CHECK(logged("has refused its peer") >= 1 && logged("has refused its peer") < (unsigned)tried / 2);
    CHECK_ANSWER(connect_peer(&thief, session), "ok");
    CHECK_ANSWER(read_from(&thief, &own, 0, 4096), "ok 165");
    end_lease(&own);
    end_peer(&thief, session);
    victim_end(&victim);
    fabric_stop(fabric);
}

/* A message can ask for the end of a key. Windows of type 2, which are made for that, soft-RoCE would end for anybody
 * who knows the key (window_selftest); ours are of type 1. */
static void nobody_ends_a_key_with_a_message(const char *ladder)
{
    struct exposure_session *theirs, *mine;
    struct lease lease;
    struct peer holder, thief;

    start_fabric(ladder);
    theirs = start_peer(&holder, 1);
    mine = start_peer(&thief, 2);
    memset(pool_byte(0, 0), OLD_BYTE, LEASE_SIZE);
    expose(theirs, 0, LEASE_READ, &lease);
    CHECK_ANSWER(connect_peer(&holder, theirs), "ok");
    for (int i = 0; i < 3; i++) {
        CHECK_ANSWER(connect_peer(&thief, mine), "ok");
        peer_ask(&thief, "invalidate %u", lease.grant.rkey); /* whatever it is told */
        CHECK_ANSWER(peer_ask(&thief, "wait"), "disconnected");
        CHECK_ANSWER(read_from(&holder, &lease, 0, 4096), "ok 165");
    }
    end_lease(&lease);
    end_peer(&holder, theirs);
    end_peer(&thief, mine);
    wait_until_nothing_is_left(PATIENCE);
    fabric_stop(fabric);
}

static void nobody_ends_a_regions_key_with_a_message(void)
{
    nobody_ends_a_key_with_a_message("dereg");
}

static void nobody_ends_a_windows_key_with_a_message(void)
{
    nobody_ends_a_key_with_a_message("mw,dereg");
}

static void addresses_out_of_range_are_refused_whatever_they_wrap_to(void)
{
    struct exposure_session *session;
    struct victim victim;
    struct lease lease;
    struct peer peer;

    start_fabric(NULL);
    victim_start(&victim);
    session = start_peer(&peer, 1);
    memset(pool_byte(0, 0), OLD_BYTE, 2 * LEASE_SIZE);
    expose(session, 0, LEASE_WRITE, &lease);

    const uint64_t start = lease.grant.remote_address;
    const struct {
        uint64_t address;
        size_t length;
    } bad[] = {
        {start - 1, 1},
        {start - 4096, 8192}, /* written: every other one is */
        {start + LEASE_SIZE - 1, 2},
        {start + LEASE_SIZE - 1, 2},
        {start + LEASE_SIZE, 1},
        {start + LEASE_SIZE, 4096},
        {0, 4096},
        {UINT64_MAX, 1},
        {UINT64_MAX - 4095, 8192},
        {start + (UINT64_C(1) << 32), 4096},
        {start + (UINT64_C(1) << 63), 4096},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (bad[i].address == start) /* the lease begins at 0 */
            continue;
        size_t offset = bad[i].address - start;

        CHECK_ANSWER(connect_peer(&peer, session), "ok");
        if (i % 2)
            CHECK_ANSWER(write_to(&peer, &lease, offset, bad[i].length, REMOTE_BYTE), wc(REM_ACCESS));
        else
            CHECK_ANSWER(read_from(&peer, &lease, offset, bad[i].length), wc(REM_ACCESS));
    }
    nothing_changed(0);
    nothing_changed(1);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(read_from(&peer, &lease, LEASE_SIZE - 1, 1), "ok 165");
    end_lease(&lease);
    end_peer(&peer, session);
    victim_end(&victim);
    fabric_stop(fabric);
}

/* Leases never allow them, those to write no more than those to read. */
static void atomics_on_leased_keys_are_refused(void)
{
    struct exposure_session *session;
    struct victim victim;
    struct lease leases[2];
    struct peer peer;

    start_fabric(NULL);
    victim_start(&victim);
    session = start_peer(&peer, 1);
    memset(pool_byte(0, 0), OLD_BYTE, 2 * LEASE_SIZE);
    expose(session, 0, LEASE_READ, &leases[0]);
    expose(session, 1, LEASE_WRITE, &leases[1]);
    for (unsigned i = 0; i < 2; i++) {
        CHECK_ANSWER(connect_peer(&peer, session), "ok");
        CHECK(strncmp(peer_ask(&peer, "atomic %llu %u", (unsigned long long)leases[i].grant.remote_address,
                               leases[i].grant.rkey),
                      "wc ", 3) == 0);
        nothing_changed(i);
        end_lease(&leases[i]);
    }
    end_peer(&peer, session);
    victim_end(&victim);
    fabric_stop(fabric);
}

static void who_floods_with_messages_is_cut_off_each_time(void)
{
    enum { FLOODS = 6 };
    struct exposure_session *session;
    struct victim victim;
    struct peer peer;

    start_fabric(NULL);
    catch_log();
    victim_start(&victim);
    session = start_peer(&peer, 1);
    for (unsigned i = 0; i < FLOODS; i++) {
        CHECK_ANSWER(connect_peer(&peer, session), "ok");
        CHECK(strncmp(peer_ask(&peer, "send 32"), "wc ", 3) == 0); /* the first may be taken, not the rest */
    }
    CHECK(status_of("connections", NULL, "violations") == FLOODS);
    CHECK(logged("sends messages") >= 1 && logged("sends messages") < FLOODS);
    end_peer(&peer, session);
    victim_end(&victim);
    fabric_stop(fabric);
}

/* Two lines: the QP, and the MR behind it. */
static void a_connection_may_write_only_while_its_session_holds_a_lease_to_write(void)
{
    struct exposure_session *session;
    struct lease r, w;
    struct peer peer;

    start_fabric(NULL);
    session = start_peer(&peer, 1);
    memset(pool_byte(0, 0), OLD_BYTE, 2 * LEASE_SIZE);
    expose(session, 0, LEASE_READ, &r);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK(status_of("connections", NULL, "writable") == 0);
    CHECK_ANSWER(write_to(&peer, &r, 0, 4096, REMOTE_BYTE), wc(REM_INVALID));

    CHECK_ANSWER(connect_peer(&peer, session), "ok"); /* before the grant */
    expose(session, 1, LEASE_WRITE, &w);
    CHECK(status_of("connections", NULL, "writable") == 1);
    CHECK_ANSWER(write_to(&peer, &w, 0, 4096, REMOTE_BYTE), "ok");
    CHECK_ANSWER(write_to(&peer, &r, 0, 4096, REMOTE_BYTE), wc(REM_ACCESS));
    CHECK_ANSWER(connect_peer(&peer, session), "ok"); /* after it */
    CHECK_ANSWER(write_to(&peer, &w, 4096, 4096, REMOTE_BYTE), "ok");
    CHECK_ANSWER(read_from(&peer, &r, 0, 4096), "ok 165");

    end_lease(&w);
    wait_until_writable(0);
    CHECK_ANSWER(read_from(&peer, &r, 0, 4096), "ok 165"); /* the same connection */
    CHECK_ANSWER(write_to(&peer, &r, 0, 4096, REMOTE_BYTE), wc(REM_INVALID));
    nothing_changed(0);
    end_lease(&r);
    end_peer(&peer, session);
    wait_until_nothing_is_left(PATIENCE);
    fabric_stop(fabric);
}

static void *grant_and_end(void *arg)
{
    for (unsigned i = 0; i < 40; i++) {
        struct lease lease;

        expose(arg, 1, LEASE_WRITE, &lease);
        end_lease(&lease);
    }
    return NULL;
}

/* Rights come and go while connections do. Whoever has a lease to write can write, however that fell out. */
static void a_lease_to_write_works_whenever_it_was_granted(void)
{
    struct exposure_session *session;
    struct lease lease;
    struct peer peer;
    pthread_t other;

    start_fabric(NULL);
    session = start_peer(&peer, 1);
    CHECK(pthread_create(&other, NULL, grant_and_end, session) == 0);
    for (unsigned i = 0; i < 12; i++) {
        CHECK_ANSWER(connect_peer(&peer, session), "ok");
        expose(session, 2, LEASE_WRITE, &lease);
        CHECK_ANSWER(write_to(&peer, &lease, 0, 4096, REMOTE_BYTE), "ok");
        if (i % 2)
            CHECK_ANSWER(connect_peer(&peer, session), "ok");
        CHECK_ANSWER(write_to(&peer, &lease, 4096, 4096, REMOTE_BYTE), "ok");
        end_lease(&lease);
    }
    pthread_join(other, NULL);
    wait_until_writable(0);
    end_peer(&peer, session);
    wait_until_nothing_is_left(PATIENCE);
    fabric_stop(fabric);
}

int main(int argc, char **argv)
{
    static const struct selftest tests[] = {
        SELFTEST(a_flood_of_made_up_cookies_is_counted_and_logged_now_and_then),
        SELFTEST(a_stolen_cookie_opens_nothing_but_its_own_session_and_not_for_long),
        SELFTEST(keys_of_another_session_are_found_by_scanning_and_open_nothing),
        SELFTEST(nobody_ends_a_regions_key_with_a_message),
        SELFTEST(nobody_ends_a_windows_key_with_a_message),
        SELFTEST(addresses_out_of_range_are_refused_whatever_they_wrap_to),
        SELFTEST(atomics_on_leased_keys_are_refused),
        SELFTEST(who_floods_with_messages_is_cut_off_each_time),
        SELFTEST(a_connection_may_write_only_while_its_session_holds_a_lease_to_write),
        SELFTEST(a_lease_to_write_works_whenever_it_was_granted),
    };

    return SELFTESTS(argc, argv, tests);
}
