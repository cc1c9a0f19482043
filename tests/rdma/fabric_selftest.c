/* SPDX-License-Identifier: BSD-2-Clause */

/* Sessions, cookies, connections, rights and what survives a refusal. */

#include <dlfcn.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "selftest.h"

#include "rdma/sync.h"

/* Stands in front of the library's: deregistration that does not come back, as with a reference that a driver never
 * drops. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stuck;
} dereg = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};

int ibv_dereg_mr(struct ibv_mr *mr)
{
    int (*real)(struct ibv_mr *) = (int (*)(struct ibv_mr *))dlsym(RTLD_NEXT, "ibv_dereg_mr");

    pthread_mutex_lock(&dereg.lock);
    while (dereg.stuck)
        pthread_cond_wait(&dereg.changed, &dereg.lock);
    pthread_mutex_unlock(&dereg.lock);
    return real(mr);
}

static void let_dereg(bool stuck)
{
    pthread_mutex_lock(&dereg.lock);
    dereg.stuck = stuck;
    pthread_cond_broadcast(&dereg.changed);
    pthread_mutex_unlock(&dereg.lock);
}

static void reads_and_writes_reach_the_leased_bytes_in_file_order(void)
{
    struct exposure_session *session;
    struct peer peer;
    struct lease r, w;

    start_fabric(NULL);
    session = start_peer(&peer, 1);
    for (unsigned i = 0; i < 4; i++)
        memset(pool_byte(0, (size_t)i * MIB), (int)i + 1, MIB);
    expose(session, 0, LEASE_READ, &r);
    expose(session, 1, LEASE_WRITE, &w);
    CHECK(r.grant.remote_address == FILE_OFFSET || atomic_load(&fabric->no_iova));
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(read_from(&peer, &r, 0, MIB), "ok 4");
    CHECK_ANSWER(read_from(&peer, &r, 3 * MIB, MIB), "ok 1");
    CHECK_ANSWER(write_to(&peer, &w, MIB, MIB, 0x66), "ok");
    CHECK(*pool_byte(1, 2 * MIB) == 0x66 && *pool_byte(1, 3 * MIB - 1) == 0x66);
    CHECK(*pool_byte(1, 3 * MIB) != 0x66 && *pool_byte(1, 2 * MIB - 1) != 0x66);
    CHECK_ANSWER(read_from(&peer, &w, MIB, MIB), "ok 102");
    end_lease(&r);
    end_lease(&w);
    ops->session_close(session);
    CHECK_ANSWER(peer_ask(&peer, "wait"), "disconnected");
    peer_stop(&peer);
    fabric_stop(fabric);
}

/* Needs four huge pages of 2 MiB (vm.nr_hugepages). */
static void huge_pages_are_leased_in_file_order(void)
{
    struct layout_run runs[] = {{0, 1 * MIB, 1 * MIB}, {0, 6 * MIB, 2 * MIB}, {0, 2 * MIB, 1 * MIB}};
    struct layout_segment huge = {.size = 8 * MIB, .page_size = 2 * MIB};
    struct exposure_session *session;
    struct peer peer;
    struct lease lease;

    huge.fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
    if (huge.fd < 0 || ftruncate(huge.fd, (off_t)huge.size) < 0)
        exit(SKIPPED);
    huge.base = mmap(NULL, huge.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, huge.fd, 0);
    if (huge.base == MAP_FAILED)
        exit(SKIPPED);
    for (size_t i = 0; i < 8; i++)
        memset((uint8_t *)huge.base + i * MIB, (int)i + 1, MIB);
    struct exposure_request request = {
        .mode = LEASE_WRITE, .range = {FILE_OFFSET, 4 * MIB}, .segments = &huge, .runs = runs, .n_runs = 3};

    start_fabric(NULL);
    session = start_peer(&peer, 1);
    CHECK(ops->expose(session, &request, &lease.exposure, &lease.grant) == 0);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(read_from(&peer, &lease, 0, MIB), "ok 2");
    CHECK_ANSWER(read_from(&peer, &lease, 1 * MIB, MIB), "ok 7");
    CHECK_ANSWER(read_from(&peer, &lease, 2 * MIB, MIB), "ok 8");
    CHECK_ANSWER(read_from(&peer, &lease, 3 * MIB, MIB), "ok 3");
    CHECK_ANSWER(write_to(&peer, &lease, 3 * MIB, MIB, REMOTE_BYTE), "ok");
    CHECK(((uint8_t *)huge.base)[3 * MIB - 1] == REMOTE_BYTE && ((uint8_t *)huge.base)[3 * MIB] == 4);
    CHECK_ANSWER(read_from(&peer, &lease, 4 * MIB - 1, 2), wc(REM_ACCESS)); /* mapped, but not leased */
    end_lease(&lease);
    ops->session_close(session);
    wait_until_nothing_is_left(NS_PER_S);
    peer_stop(&peer);
    fabric_stop(fabric);
}

static void give_up_ipc_lock(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    CHECK(syscall(SYS_capget, &header, data) == 0);
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    CHECK(syscall(SYS_capset, &header, data) == 0);
}

static void a_lease_over_the_memlock_limit_is_refused_and_the_next_is_not(void)
{
    struct exposure_session *session;
    struct rlimit limit = {LEASE_SIZE + MIB, LEASE_SIZE + MIB};
    struct layout_run run = {0, 0, 2 * LEASE_SIZE};
    struct exposure_request request = {
        .mode = LEASE_READ, .range = {0, 2 * LEASE_SIZE}, .segments = &pool, .runs = &run, .n_runs = 1};
    struct lease lease, refused = {0};

    give_up_ipc_lock(); /* before the device is opened: uverbs refuses changed credentials */
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    start_fabric(NULL);
    session = open_session(1);
    CHECK(ops->expose(session, &request, &refused.exposure, &refused.grant) == -ENOMEM);
    CHECK(!refused.exposure && !refused.grant.rkey);
    expose(session, 0, LEASE_READ, &lease);
    end_lease(&lease);
    CHECK(status_of("exposures", NULL, "failed") == 1);
    ops->session_close(session);
    wait_until_nothing_is_left(NS_PER_S);
    fabric_stop(fabric);
}

/* However it is registered: what stays in memory for a lease is counted until it is let go. */
static void pinned_memory_is_counted_until_it_is_let_go(void)
{
    static const char *const ladders[] = {"dereg", "mw,dereg", "odp,dereg"};

    for (unsigned i = 0; i < 3; i++) {
        struct exposure_session *session;
        struct lease a, b;

        start_fabric(NULL);
        bool here = i == 0 || (i == 1 ? fabric->windows_work : fabric->on_demand_works);
        json_int_t size = i < 2 ? LEASE_SIZE : 0; /* on demand nothing is pinned */

        fabric_stop(fabric);
        if (!here)
            continue;
        start_fabric(ladders[i]);
        CHECK(status_of("exposures", NULL, "pinned_bytes") == 0);
        session = open_session(1);
        expose(session, 0, LEASE_READ, &a);
        expose(session, 1, LEASE_WRITE, &b);
        CHECK(status_of("exposures", NULL, "pinned_bytes") == 2 * size);
        end_lease(&a);
        CHECK(status_of("exposures", NULL, "pinned_bytes") == size);
        end_lease(&b);
        CHECK(status_of("exposures", NULL, "pinned_bytes") == 0);
        ops->session_close(session);
        fabric_stop(fabric);
    }
}

static void a_cookie_admits_one_connection_once_and_in_time(void)
{
    struct exposure_session *session;
    struct exposure_address where, wrong, old;
    struct peer peer, other;

    start_fabric(NULL);
    peer_start(&peer, program);
    peer_start(&other, program);
    session = open_session(1);
    CHECK(ops->session_connect(session, &where) == 0);
    wrong = where;
    wrong.cookie[15] ^= 1;
    CHECK_ANSWER(connect_with(&other, &wrong, ""), "rejected 2");
    CHECK_ANSWER(connect_with(&other, &where, "version"), "rejected 1");
    CHECK_ANSWER(connect_with(&other, &where, "short"), "rejected 1");
    memset(wrong.cookie, 0, sizeof(wrong.cookie));
    CHECK_ANSWER(connect_with(&other, &wrong, ""), "rejected 2");

    CHECK_ANSWER(connect_with(&peer, &where, ""), "ok");
    CHECK_ANSWER(connect_with(&other, &where, ""), "rejected 2"); /* used */
    CHECK_ANSWER(connect_with(&other, &wrong, ""), "rejected 2"); /* all zero, as the used one is now */

    CHECK(ops->session_connect(session, &old) == 0);
    CHECK(ops->session_connect(session, &where) == 0);
    CHECK_ANSWER(connect_with(&other, &old, ""), "rejected 2"); /* voided by the next */
    skipped_ns += LEASEFS_COOKIE_LIFETIME_MS * NS_PER_MS;
    CHECK_ANSWER(connect_with(&other, &where, ""), "rejected 2"); /* too late */
    CHECK(ops->session_connect(session, &where) == 0);
    ops->session_close(session);
    CHECK_ANSWER(connect_with(&other, &where, ""), "rejected 2"); /* nobody's any more */
    CHECK(status_of("connections", "rejected", "cookie") >= 7);   /* a slow answer lets rdma_cm ask again */
    CHECK(status_of("connections", "rejected", "malformed") >= 2);
    peer_stop(&peer);
    peer_stop(&other);
    fabric_stop(fabric);
}

static void a_read_lease_never_writes_and_the_session_recovers(void)
{
    struct exposure_session *session;
    struct peer peer;
    struct lease r, w;

    start_fabric(NULL);
    session = start_peer(&peer, 1);
    memset(pool_byte(0, 0), OLD_BYTE, 2 * LEASE_SIZE);
    expose(session, 0, LEASE_READ, &r);
    expose(session, 1, LEASE_WRITE, &w);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(write_to(&peer, &r, 0, MIB, REMOTE_BYTE), wc(REM_ACCESS));
    CHECK(count_others(pool_byte(0, 0), LEASE_SIZE, OLD_BYTE) == 0);
    /* Both QPs are in ERR now, and the server finds out by itself; the leases live on in the session's domain. */
    wait_until_no_connection(NS_PER_S);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(read_from(&peer, &r, 0, MIB), "ok 165");
    CHECK_ANSWER(write_to(&peer, &w, 0, MIB, REMOTE_BYTE), "ok");
    /* One byte beyond the lease, on either side. */
    CHECK_ANSWER(read_from(&peer, &r, LEASE_SIZE - 1, 2), wc(REM_ACCESS));
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(read_from(&peer, &r, (size_t)-1, 2), wc(REM_ACCESS));
    end_lease(&r);
    end_lease(&w);
    end_peer(&peer, session);
    fabric_stop(fabric);
}

static void a_key_of_another_session_is_refused(void)
{
    struct exposure_session *mine, *theirs;
    struct peer peer, other;
    struct lease lease;

    start_fabric(NULL);
    mine = start_peer(&peer, 1);
    theirs = start_peer(&other, 2);
    expose(mine, 0, LEASE_WRITE, &lease);
    CHECK_ANSWER(connect_peer(&peer, mine), "ok");
    CHECK_ANSWER(connect_peer(&other, theirs), "ok");
    CHECK_ANSWER(read_from(&other, &lease, 0, 4096), wc(REM_ACCESS));
    CHECK_ANSWER(connect_peer(&other, theirs), "ok");
    CHECK_ANSWER(write_to(&other, &lease, 0, 4096, REMOTE_BYTE), wc(IBV_WC_REM_INV_REQ_ERR)); /* has no write lease */
    CHECK_ANSWER(write_to(&peer, &lease, 0, 4096, REMOTE_BYTE), "ok");
    end_lease(&lease);
    end_peer(&peer, mine);
    end_peer(&other, theirs);
    fabric_stop(fabric);
}

static void a_second_connection_replaces_the_first(void)
{
    struct exposure_session *session;
    struct peer first, second;
    struct lease lease;

    start_fabric(NULL);
    peer_start(&first, program);
    peer_start(&second, program);
    session = open_session(1);
    expose(session, 0, LEASE_READ, &lease);
    CHECK_ANSWER(connect_peer(&first, session), "ok");
    CHECK_ANSWER(connect_peer(&second, session), "ok");
    CHECK_ANSWER(peer_ask(&first, "wait"), "disconnected");
    CHECK(strncmp(read_from(&first, &lease, 0, 4096), "wc ", 3) == 0);
    CHECK(strncmp(read_from(&second, &lease, 0, 4096), "ok ", 3) == 0);
    CHECK(status_of("connections", NULL, "replaced") == 1);
    end_lease(&lease);
    ops->session_close(session);
    peer_stop(&first);
    peer_stop(&second);
    fabric_stop(fabric);
}

static void ending_one_lease_leaves_the_connection_and_the_others(void)
{
    struct exposure_session *session;
    struct peer peer;
    struct lease a, b;

    start_fabric("rereg,dereg");
    session = start_peer(&peer, 1);
    memset(pool_byte(0, 0), OLD_BYTE, 2 * LEASE_SIZE);
    expose(session, 0, LEASE_READ, &a);
    expose(session, 1, LEASE_READ, &b);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK(ops->revoke(a.exposure) == 0);
    CHECK_ANSWER(read_from(&peer, &b, 0, MIB), "ok 165");
    CHECK_ANSWER(read_from(&peer, &a, 0, MIB), wc(REM_ACCESS)); /* gated */
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK(ops->fence(a.exposure) == 0);
    CHECK(ops->fence(a.exposure) == 0); /* a second one is free */
    CHECK_ANSWER(read_from(&peer, &b, 0, MIB), "ok 165");
    ops->drop(a.exposure);
    CHECK_ANSWER(read_from(&peer, &b, 0, MIB), "ok 165");
    CHECK_ANSWER(read_from(&peer, &a, 0, MIB), wc(REM_ACCESS)); /* gone */
    end_lease(&b);
    end_peer(&peer, session);
    fabric_stop(fabric);
}

static void wait_until_admitted(struct exposure_session *session)
{
    pthread_mutex_lock(&fabric->lock);
    while (session->barred)
        pthread_cond_wait(&fabric->changed, &fabric->lock);
    pthread_mutex_unlock(&fabric->lock);
}

static void the_last_rung_admits_no_new_connection_while_the_region_lives(void)
{
    struct exposure_session *session;
    struct peer peer;
    struct lease a, b;

    start_fabric("qp");
    session = start_peer(&peer, 1);
    memset(pool_byte(0, 0), OLD_BYTE, 2 * LEASE_SIZE);
    expose(session, 0, LEASE_READ, &a);
    expose(session, 1, LEASE_READ, &b);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK(ops->fence(a.exposure) == 0);
    CHECK_ANSWER(peer_ask(&peer, "wait"), "disconnected");
    CHECK_ANSWER(connect_peer(&peer, session), "rejected 4"); /* a's MR is still registered */
    ops->drop(a.exposure);
    wait_until_admitted(session);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(read_from(&peer, &b, 0, MIB), "ok 165");
    CHECK_ANSWER(read_from(&peer, &a, 0, MIB), wc(REM_ACCESS));
    end_lease(&b);
    end_peer(&peer, session);
    fabric_stop(fabric);
}

static void a_stuck_deregistration_costs_the_connection_and_no_other_lease(void)
{
    struct exposure_session *session;
    struct peer peer;
    struct lease a, b;

    start_fabric(NULL);
    session = start_peer(&peer, 1);
    memset(pool_byte(0, 0), OLD_BYTE, 2 * LEASE_SIZE);
    expose(session, 0, LEASE_READ, &a);
    expose(session, 1, LEASE_READ, &b);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    let_dereg(true);
    CHECK(ops->revoke(a.exposure) == 0);
    CHECK(ops->fence(a.exposure) == 0);
    CHECK(status_of("revocations", "dereg", "late") == 1);
    CHECK(status_of("revocations", "qp", "count") == 1);
    CHECK_ANSWER(peer_ask(&peer, "wait"), "disconnected");
    /* The gate holds for new connections, so they are admitted. */
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(read_from(&peer, &b, 0, MIB), "ok 165");
    CHECK_ANSWER(read_from(&peer, &a, 0, MIB), wc(REM_ACCESS));
    ops->drop(a.exposure);
    let_dereg(false);
    end_lease(&b);
    ops->session_close(session);
    wait_until_nothing_is_left(NS_PER_S);
    peer_stop(&peer);
    fabric_stop(fabric);
}

static void a_stuck_deregistration_without_a_gate_bars_the_session_until_it_returns(void)
{
    struct exposure_session *session;
    struct peer peer;
    struct lease a;

    start_fabric("dereg,qp");
    session = start_peer(&peer, 1);
    expose(session, 0, LEASE_READ, &a);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    let_dereg(true);
    CHECK(ops->fence(a.exposure) == 0);
    CHECK_ANSWER(connect_peer(&peer, session), "rejected 4");
    ops->drop(a.exposure);
    CHECK_ANSWER(connect_peer(&peer, session), "rejected 4");
    let_dereg(false);
    wait_until_admitted(session);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    ops->session_close(session);
    wait_until_nothing_is_left(NS_PER_S);
    peer_stop(&peer);
    fabric_stop(fabric);
}

static void without_proof_an_exposure_is_kept_for_ever(void)
{
    struct exposure_session *session;
    struct lease a;

    start_fabric("dereg");
    session = open_session(1);
    expose(session, 0, LEASE_READ, &a);
    let_dereg(true);
    CHECK(ops->fence(a.exposure) == -ETIMEDOUT);
    let_dereg(false);
    CHECK(ops->fence(a.exposure) == -ETIMEDOUT); /* it has come back meanwhile, or will: too late for a proof */
    ops->drop(a.exposure);
    CHECK(status_of("exposures", NULL, "now") == 1);
    CHECK(status_of("revocations", NULL, "unproven") == 2);
    ops->session_close(session);
    fabric_stop(fabric);
}

static void a_killed_peer_is_noticed_and_its_lease_fenced_within_a_second(void)
{
    struct exposure_session *session;
    struct peer peer;
    struct lease lease;

    start_fabric(NULL);
    session = start_peer(&peer, 1);
    expose(session, 2, LEASE_WRITE, &lease);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    CHECK_ANSWER(hammer(&peer, &lease, false, REMOTE_BYTE), "running");
    uint64_t start = monotonic_ns();

    peer_kill(&peer);
    end_lease(&lease);
    wait_until_no_connection(NS_PER_S);
    printf("# kill to fenced and torn down: %llu ms\n", (unsigned long long)(monotonic_ns() - start) / NS_PER_MS);
    CHECK(monotonic_ns() - start < NS_PER_S);
    peer_start(&peer, program);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    end_peer(&peer, session);
    fabric_stop(fabric);
}

static void a_peer_that_sends_is_cut_off(void)
{
    struct exposure_session *session;
    struct peer peer;

    start_fabric(NULL);
    session = start_peer(&peer, 1);
    CHECK_ANSWER(connect_peer(&peer, session), "ok");
    peer_ask(&peer, "send");
    CHECK_ANSWER(peer_ask(&peer, "wait"), "disconnected");
    CHECK(status_of("connections", NULL, "violations") == 1);
    wait_until_no_connection(NS_PER_S);
    end_peer(&peer, session);
    fabric_stop(fabric);
}

static void connecting_again_and_again_leaves_nothing_behind(void)
{
    struct exposure_session *session;
    struct peer peer;

    start_fabric(NULL);
    peer_start(&peer, program);
    for (uint64_t i = 0; i < 20; i++) {
        session = open_session(i);
        CHECK_ANSWER(connect_peer(&peer, session), "ok");
        CHECK_ANSWER(connect_peer(&peer, session), "ok");
        ops->session_close(session);
    }
    wait_until_nothing_is_left(5 * NS_PER_S);
    pthread_mutex_lock(&fabric->lock);
    CHECK(fabric->n_half_open == 0);
    pthread_mutex_unlock(&fabric->lock);
    peer_stop(&peer);
    fabric_stop(fabric);
}

static void stopping_ends_open_sessions_and_their_connections(void)
{
    struct peer peer;

    start_fabric(NULL);
    peer_start(&peer, program);
    CHECK_ANSWER(connect_peer(&peer, open_session(1)), "ok");
    open_session(2);
    fabric_stop(fabric);
    CHECK_ANSWER(peer_ask(&peer, "wait"), "disconnected");
    peer_stop(&peer);
    start_fabric(NULL);
    fabric_stop(fabric);
}

static void probe_tells_the_device_and_its_mechanisms(void)
{
    start_fabric(NULL);
    json_t *probe = ops->probe(fabric);
    char *text = json_dumps(probe, JSON_COMPACT);

    CHECK(probe && json_array_size(json_object_get(probe, "mechanisms")) == FABRIC_MECHANISMS);
    CHECK_ANSWER(json_string_value(json_object_get(probe, "address")), address);
    printf("# %s\n", text);
    free(text);
    json_decref(probe);
    fabric_stop(fabric);
}

int main(int argc, char **argv)
{
    static const struct selftest tests[] = {
        SELFTEST(reads_and_writes_reach_the_leased_bytes_in_file_order),
        SELFTEST(huge_pages_are_leased_in_file_order),
        SELFTEST(a_lease_over_the_memlock_limit_is_refused_and_the_next_is_not),
        SELFTEST(pinned_memory_is_counted_until_it_is_let_go),
        SELFTEST(a_cookie_admits_one_connection_once_and_in_time),
        SELFTEST(a_read_lease_never_writes_and_the_session_recovers),
        SELFTEST(a_key_of_another_session_is_refused),
        SELFTEST(a_second_connection_replaces_the_first),
        SELFTEST(ending_one_lease_leaves_the_connection_and_the_others),
        SELFTEST(the_last_rung_admits_no_new_connection_while_the_region_lives),
        SELFTEST(a_stuck_deregistration_costs_the_connection_and_no_other_lease),
        SELFTEST(a_stuck_deregistration_without_a_gate_bars_the_session_until_it_returns),
        SELFTEST(without_proof_an_exposure_is_kept_for_ever),
        SELFTEST(a_killed_peer_is_noticed_and_its_lease_fenced_within_a_second),
        SELFTEST(a_peer_that_sends_is_cut_off),
        SELFTEST(connecting_again_and_again_leaves_nothing_behind),
        SELFTEST(stopping_ends_open_sessions_and_their_connections),
        SELFTEST(probe_tells_the_device_and_its_mechanisms),
    };

    return SELFTESTS(argc, argv, tests);
}
