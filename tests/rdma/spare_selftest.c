/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Spares (rdma/spare.h): a range that was just returned is leased again without a registration, by another key, and
 * nobody gets at one meanwhile. One that does not fit, or is of other memory, is never used.
 */

#include <errno.h>
#include <stdlib.h>

#include "selftest.h"

#include "rdma/sync.h"

#define PATIENCE (30 * NS_PER_S)

static void start(uint64_t bytes)
{
    spare_bytes = bytes;
    start_fabric(NULL);
    if (fabric->rereg == REREG_NONE)
        exit(SKIPPED);
}

/* So many are ready, and nothing is in the making. */
static void wait_for_spares(unsigned count)
{
    uint64_t deadline = monotonic_ns() + PATIENCE;
    struct spare *spare;
    unsigned ready, all;

    pthread_mutex_lock(&fabric->lock);
    do {
        ready = all = 0;
        TAILQ_FOREACH(spare, &fabric->spares.list, link)
        {
            all++;
            ready += spare->state == SPARE_READY;
        }
    } while ((ready != count || all != count) &&
             sync_wait_until(&fabric->changed, &fabric->lock, deadline) != -ETIMEDOUT);
    pthread_mutex_unlock(&fabric->lock);
    CHECK(ready == count && all == count);
}

static json_int_t taken(void)
{
    return status_of("spares", NULL, "taken");
}

/* What a session that has just returned a range reads by this key. */
static const char *read_by(struct peer *peer, struct exposure_session *session, const struct lease *like, uint32_t key)
{
    struct lease guess = *like;

    guess.grant.rkey = key;
    CHECK_ANSWER(connect_peer(peer, session), "ok");
    return read_from(peer, &guess, 0, 4096);
}

static uint32_t key_of_the_spare(void)
{
    uint32_t key;

    pthread_mutex_lock(&fabric->lock);
    CHECK(!TAILQ_EMPTY(&fabric->spares.list));
    key = TAILQ_FIRST(&fabric->spares.list)->mr->rkey;
    pthread_mutex_unlock(&fabric->lock);
    return key;
}

static void the_next_lease_of_a_range_takes_its_spare_by_a_key_of_its_own(void)
{
    struct exposure_session *first, *second;
    struct peer holder, next;
    struct lease lease, again;
    uint32_t key;

    start(LEASE_SIZE);
    first = start_peer(&holder, 1);
    second = start_peer(&next, 2);
    memset(pool_byte(0, 0), OLD_BYTE, LEASE_SIZE);
    expose(first, 0, LEASE_WRITE, &lease);
    CHECK_ANSWER(connect_peer(&holder, first), "ok");
    CHECK_ANSWER(read_from(&holder, &lease, 0, 4096), "ok 165");
    end_lease(&lease);
    wait_for_spares(1);
    CHECK(status_of("spares", NULL, "bytes_now") == LEASE_SIZE);

    /* Nobody gets at it, not by the key that it has, nor by that of the lease. */
    key = key_of_the_spare();
    CHECK(key != lease.grant.rkey);
    CHECK_ANSWER(read_by(&holder, first, &lease, key), wc(REM_ACCESS));
    CHECK_ANSWER(read_by(&holder, first, &lease, lease.grant.rkey), wc(REM_ACCESS));
    CHECK_ANSWER(read_by(&next, second, &lease, key), wc(REM_ACCESS));

    memset(pool_byte(0, 0), NEW_BYTE, LEASE_SIZE); /* meanwhile somebody has written */
    expose(second, 0, LEASE_WRITE, &again);
    CHECK(taken() == 1 && again.grant.rkey == key);
    CHECK_ANSWER(connect_peer(&next, second), "ok");
    CHECK_ANSWER(read_from(&next, &again, MIB - 2048, 4096), "ok 90");
    CHECK_ANSWER(write_to(&next, &again, 0, 4096, REMOTE_BYTE), "ok");
    CHECK(*pool_byte(0, 3 * MIB) == REMOTE_BYTE); /* the lease's first MiB is the slot's last */
    CHECK_ANSWER(read_by(&holder, first, &lease, key), wc(REM_ACCESS));
    end_lease(&again);
    CHECK_ANSWER(read_by(&next, second, &again, key), wc(REM_ACCESS));
    end_peer(&holder, first);
    end_peer(&next, second);
    wait_until_nothing_is_left(PATIENCE);
    fabric_stop(fabric);
}

static void a_spare_gives_no_more_rights_than_its_lease(void)
{
    struct exposure_session *session;
    struct peer peer;
    struct lease lease, writer;

    start(4 * LEASE_SIZE);
    session = start_peer(&peer, 1);
    memset(pool_byte(0, 0), OLD_BYTE, LEASE_SIZE);
    expose(session, 0, LEASE_READ, &lease);
    end_lease(&lease);
    wait_for_spares(1);
    expose(session, 1, LEASE_WRITE, &writer); /* so that the connection may write */
    expose(session, 0, LEASE_READ, &lease);
    CHECK(taken() == 1);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(write_to(&peer, &lease, 0, 4096, REMOTE_BYTE), wc(REM_ACCESS));
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(read_from(&peer, &lease, 0, 4096), "ok 165");
    end_lease(&lease);
    wait_for_spares(1);
    expose(session, 0, LEASE_WRITE, &lease); /* its pages were pinned to be read */
    CHECK(taken() == 1);
    CHECK_ANSWER(write_to(&peer, &lease, 0, 4096, REMOTE_BYTE), "ok");
    end_lease(&lease);
    end_lease(&writer);
    end_peer(&peer, session);
    fabric_stop(fabric);
}

/* The same bytes of the file in other blocks; the same blocks elsewhere in a file. */
static void a_range_that_has_changed_finds_no_spare(void)
{
    struct exposure_session *session;
    struct peer peer;
    struct lease lease, other;
    struct exposure_request request = {
        .mode = LEASE_READ, .range = {FILE_OFFSET, LEASE_SIZE}, .segments = &pool, .runs = other.runs, .n_runs = 4};

    start(LEASE_SIZE);
    session = start_peer(&peer, 1);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    memset(pool_byte(0, 0), OLD_BYTE, 2 * LEASE_SIZE);
    memset(pool_byte(1, 0), NEW_BYTE, MIB);
    expose(session, 0, LEASE_READ, &lease);
    memcpy(other.runs, lease.runs, sizeof(other.runs));
    end_lease(&lease);
    wait_for_spares(1);

    other.runs[2].offset = LEASE_SIZE; /* its third MiB has been written elsewhere */
    CHECK(ops->expose(session, &request, &other.exposure, &other.grant) == 0);
    CHECK(taken() == 0);
    CHECK_ANSWER(read_from(&peer, &other, 2 * MIB, MIB), "ok 90");
    other.runs[2] = lease.runs[2];
    ops->revoke(other.exposure);
    CHECK(ops->fence(other.exposure) == 0);
    ops->drop(other.exposure);

    request.range.offset += LEASE_SIZE;
    CHECK(ops->expose(session, &request, &other.exposure, &other.grant) == 0);
    CHECK(taken() == 0);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(read_from(&peer, &other, 2 * MIB, MIB), "ok 165");
    end_lease(&other);
    wait_for_spares(1);

    for (size_t i = 0; i < 4; i++) /* it is the same, whatever is between the fields */
        memset((uint8_t *)&other.runs[i] + sizeof(other.runs[i].segment), 0xff,
               offsetof(struct layout_run, offset) - sizeof(other.runs[i].segment));
    CHECK(ops->expose(session, &request, &other.exposure, &other.grant) == 0);
    CHECK(taken() == 1);
    end_lease(&other);
    end_peer(&peer, session);
    fabric_stop(fabric);
}

/* The pool gets other pages in the place of a lease's: a spare of the old ones would show what nobody sees any more. */
static void no_spare_outlives_the_pages_that_it_is_of(void)
{
    struct exposure_session *session;
    struct peer peer;
    struct lease lease, orphan;

    start(LEASE_SIZE);
    session = start_peer(&peer, 1);
    memset(pool_byte(0, 0), OLD_BYTE, LEASE_SIZE);
    expose(session, 0, LEASE_READ, &lease);
    end_lease(&lease);
    wait_for_spares(1);
    expose(session, 0, LEASE_WRITE, &orphan);
    CHECK(taken() == 0);
    CHECK(ops->orphan(orphan.exposure) == 0);
    memset(pool_byte(0, 0), NEW_BYTE, LEASE_SIZE);
    expose(session, 0, LEASE_READ, &lease);
    CHECK(taken() == 0);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(read_from(&peer, &lease, 0, 4096), "ok 90");
    end_lease(&lease);
    end_peer(&peer, session);
    exit(0); /* an orphaned exposure stays for ever */
}

static void the_oldest_make_room(void)
{
    struct exposure_session *session;
    struct lease lease;

    start(2 * LEASE_SIZE + MIB);
    session = open_session(1);
    for (unsigned slot = 0; slot < 3; slot++) {
        expose(session, slot, LEASE_WRITE, &lease);
        end_lease(&lease);
        wait_for_spares(slot < 2 ? slot + 1 : 2);
        CHECK(status_of("spares", NULL, "bytes_now") <= 2 * LEASE_SIZE);
    }
    expose(session, 0, LEASE_WRITE, &lease);
    CHECK(taken() == 0);
    ops->fence(lease.exposure);
    exposure_abandon(lease.exposure);
    expose(session, 1, LEASE_WRITE, &lease);
    CHECK(taken() == 1);
    end_lease(&lease);
    ops->session_close(session);
    fabric_stop(fabric);
}

/* Mappings are what is scarce here; locked memory goes the same way. */
static void what_is_scarce_is_given_back_to_leases(void)
{
    struct exposure_session *session;
    struct lease leases[2];

    start(LEASE_SLOTS * LEASE_SIZE);
    session = open_session(1);
    for (unsigned slot = 0; slot < 2; slot++) {
        expose(session, slot, LEASE_WRITE, &leases[slot]);
        end_lease(&leases[slot]);
        wait_for_spares(slot + 1);
    }
    fabric->windows.limit = fabric->windows.used + 3; /* a lease here needs four */
    expose(session, 2, LEASE_WRITE, &leases[0]);
    CHECK(status_of("spares", NULL, "now") == 0);
    end_lease(&leases[0]);
    ops->session_close(session);
    fabric_stop(fabric);
}

static void without_the_option_there_are_none(void)
{
    struct exposure_session *session;
    struct lease lease;

    start(0);
    session = open_session(1);
    expose(session, 0, LEASE_WRITE, &lease);
    end_lease(&lease);
    wait_for_spares(0);
    ops->session_close(session);
    fabric_stop(fabric);
}

int main(int argc, char **argv)
{
    static const struct selftest tests[] = {
        SELFTEST(the_next_lease_of_a_range_takes_its_spare_by_a_key_of_its_own),
        SELFTEST(a_spare_gives_no_more_rights_than_its_lease),
        SELFTEST(a_range_that_has_changed_finds_no_spare),
        SELFTEST(no_spare_outlives_the_pages_that_it_is_of),
        SELFTEST(the_oldest_make_room),
        SELFTEST(what_is_scarce_is_given_back_to_leases),
        SELFTEST(without_the_option_there_are_none),
    };

    return SELFTESTS(argc, argv, tests);
}
