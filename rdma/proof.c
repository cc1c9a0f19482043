/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/proof.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rdma/internal.h"
#include "rdma/loopback.h"
#include "rdma/sync.h"

#define FIRST_LENGTH (UINT64_C(256) << 10) /* of a transfer: hundreds of packets */
#define MAX_LENGTH   (UINT64_C(4) << 20)   /* for devices that are done with shorter ones before they are stopped */
#define TRIALS       2                     /* at least: a READ and a WRITE, of LOOPBACK_DEPTH transfers each */
#define GATE_TRIALS  8                     /* at most, to see a gate leak that somewhere is a fence */
#define MAX_STALLS   3                     /* trials without a result before one that stalls ends the attempt */
#define CONNECT_NS   (2 * NS_PER_S)
#define IN_FLIGHT_NS (1 * NS_PER_S)  /* for the first byte */
#define DRAIN_NS     (3 * NS_PER_S)  /* for the last */
#define ALL_NS       (20 * NS_PER_S) /* a mechanism that is not begun by then is left as it is taken for */
#define OLD_BYTE     0xa5
#define NEW_BYTE     0x5a
#define REMOTE_BYTE  0x77

struct scratch {
    struct fabric *fabric;
    struct layout_segment segment;
    uint8_t *memory, *buffer; /* the lease's, the peer's; MAX_LENGTH */
    uint64_t length;          /* of the lease and of each transfer */
};

const char *proof_kind_name(enum revoke_kind kind)
{
    switch (kind) {
    case REVOKE_GATE:
        return "gate";
    case REVOKE_FENCE:
        return "fence";
    case REVOKE_ORPHAN:
        return "space";
    case REVOKE_NOTHING:
        break;
    }
    return "nothing";
}

const char *proof_state_name(enum proof_state state)
{
    switch (state) {
    case PROOF_DONE:
        return "proven";
    case PROOF_FAILED:
        return "failed";
    case PROOF_INCONCLUSIVE:
        return "assumed";
    case PROOF_NOT_TRIED:
        break;
    }
    return "not here";
}

static bool is_documented_fence(const struct revoke_mechanism *mechanism, const char *driver)
{
    return mechanism->fence_on && !strcmp(mechanism->fence_on, driver);
}

unsigned proof_trials_wanted(const struct revoke_mechanism *mechanism, const char *driver)
{
    if (!mechanism->fence_on)
        return TRIALS;
    return is_documented_fence(mechanism, driver) ? PROOF_PROMOTION : GATE_TRIALS;
}

enum revoke_kind proof_judge(const struct revoke_mechanism *mechanism, const char *driver,
                             const struct proof_trial *trials, unsigned count)
{
    bool late = false, always_refused = true;

    for (unsigned i = 0; i < count; i++) {
        late |= trials[i].late;
        always_refused &= trials[i].refused;
    }
    if (mechanism->kind == REVOKE_ORPHAN)
        return late ? REVOKE_NOTHING : REVOKE_ORPHAN;
    if (!always_refused)
        return REVOKE_NOTHING;
    if (late)
        return REVOKE_GATE;
    if (mechanism->kind == REVOKE_GATE)
        return is_documented_fence(mechanism, driver) && count >= PROOF_PROMOTION ? REVOKE_FENCE : REVOKE_GATE;
    return REVOKE_FENCE;
}

static int scratch_init(struct scratch *scratch, struct fabric *fabric)
{
    int fd = memfd_create("leasefs-self-test", MFD_CLOEXEC);

    if (fd < 0)
        return -errno;
    *scratch = (struct scratch){
        .fabric = fabric,
        .segment = {.fd = fd, .size = MAX_LENGTH, .page_size = (size_t)sysconf(_SC_PAGESIZE)},
        .length = FIRST_LENGTH,
    };
    if (ftruncate(fd, (off_t)MAX_LENGTH) < 0)
        goto undo_fd;
    scratch->memory = mmap(NULL, MAX_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (scratch->memory == MAP_FAILED)
        goto undo_fd;
    scratch->buffer = mmap(NULL, MAX_LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (scratch->buffer == MAP_FAILED)
        goto undo_memory;
    madvise(scratch->memory, MAX_LENGTH, MADV_DONTFORK);
    madvise(scratch->buffer, MAX_LENGTH, MADV_DONTFORK);
    scratch->segment.base = scratch->memory;
    return 0;

undo_memory:
    munmap(scratch->memory, MAX_LENGTH);
undo_fd:
    close(fd);
    return -ENOMEM;
}

static void scratch_clear(struct scratch *scratch)
{
    munmap(scratch->memory, MAX_LENGTH);
    munmap(scratch->buffer, MAX_LENGTH);
    close(scratch->segment.fd);
}

static bool wait_for_byte(const volatile uint8_t *byte, uint8_t value, uint64_t allowed_ns)
{
    uint64_t deadline = monotonic_ns() + allowed_ns;

    while (*byte != value) {
        if (monotonic_ns() >= deadline)
            return false;
        sched_yield();
    }
    return true;
}

static unsigned outstanding(struct loopback *loopback)
{
    struct loopback_state state;

    loopback_poll(loopback, &state);
    return LOOPBACK_DEPTH - state.succeeded - state.failed;
}

static bool any_other(const uint8_t *bytes, uint64_t length, uint8_t than)
{
    for (uint64_t i = 0; i < length; i++)
        if (bytes[i] != than)
            return true;
    return false;
}

/* Transfers are under way: takes access away and watches what still comes. */
static int revoke_and_watch(struct scratch *scratch, const struct revoke_mechanism *mechanism,
                            struct exposure *exposure, struct loopback *loopback, bool read,
                            struct proof_trial *ret_trial, uint64_t *ret_latency_ns)
{
    uint64_t start = monotonic_ns();
    bool in_flight = outstanding(loopback) > 0;
    struct loopback_state state;
    int r = mechanism->run(exposure, start + mechanism->allowed_ns);
    uint64_t end = monotonic_ns();

    if (r < 0)
        return r;
    memset(scratch->memory, NEW_BYTE, scratch->length);
    loopback_drain(loopback, end + DRAIN_NS, &state);
    *ret_trial = (struct proof_trial){
        .late = read ? memchr(scratch->buffer, NEW_BYTE, scratch->length) != NULL
                     : any_other(scratch->memory, scratch->length, NEW_BYTE),
        .refused = state.succeeded < LOOPBACK_DEPTH,
    };
    ret_trial->caught = in_flight && (ret_trial->late || ret_trial->refused || mechanism->kind == REVOKE_ORPHAN);
    *ret_latency_ns = end - start;
    return 0;
}

static int with_connection(struct scratch *scratch, const struct revoke_mechanism *mechanism,
                           struct exposure_session *session, unsigned number, struct proof_trial *ret_trial,
                           uint64_t *ret_latency_ns)
{
    const struct layout_run run = {.length = scratch->length};
    const struct exposure_request request = {
        .mode = LEASE_WRITE,
        .range = {0, scratch->length},
        .segments = &scratch->segment,
        .runs = &run,
        .n_runs = 1,
    };
    bool read = number % 2 == 0;
    size_t moment = number / 2 % 4 * (scratch->length / 4); /* the byte to wait for moves about */
    struct exposure_address where;
    struct exposure_grant grant;
    struct exposure *exposure;
    struct loopback *loopback;
    int r = exposure_expose_as(session, &request, mechanism_style(mechanism), &exposure, &grant);

    if (r < 0)
        return r;
    memset(scratch->memory, OLD_BYTE, scratch->length);
    memset(scratch->buffer, read ? 0 : REMOTE_BYTE, scratch->length);
    r = session_connect(session, &where);
    if (r < 0)
        goto undo_exposure;
    r = loopback_connect(&where, scratch->buffer, scratch->length, monotonic_ns() + CONNECT_NS, &loopback);
    if (r < 0)
        goto undo_exposure;
    r = loopback_start(loopback, read, grant.remote_address, grant.rkey);
    if (r < 0) {
        r = -EAGAIN;
    } else if (!wait_for_byte((read ? scratch->buffer : scratch->memory) + moment, read ? OLD_BYTE : REMOTE_BYTE,
                              IN_FLIGHT_NS)) {
        r = -ETIMEDOUT;
    } else { /* what fails from here on is the mechanism's failure */
        r = revoke_and_watch(scratch, mechanism, exposure, loopback, read, ret_trial, ret_latency_ns);
        r = r < 0 ? -EOPNOTSUPP : 0;
    }
    loopback_close(loopback);
    exposure_abandon(exposure);
    return r;

undo_exposure:
    exposure_abandon(exposure);
    return -EAGAIN;
}

/* -EOPNOTSUPP: the mechanism failed; -ETIMEDOUT: nothing began to move in time; others: there can be no trial. */
static int run_trial(struct scratch *scratch, const struct revoke_mechanism *mechanism, unsigned number,
                     struct proof_trial *ret_trial, uint64_t *ret_latency_ns)
{
    struct exposure_session *session;
    int r = session_open(scratch->fabric, 0, NULL, &session);

    if (r < 0)
        return -EAGAIN;
    r = with_connection(scratch, mechanism, session, number, ret_trial, ret_latency_ns);
    session_close(session);
    return r;
}

/* Longer transfers leave a call less of a chance to come back when all is over. */
static void lengthen(struct scratch *scratch)
{
    if (scratch->length < MAX_LENGTH)
        scratch->length *= 4;
}

static void prove(struct scratch *scratch, const struct revoke_mechanism *mechanism, struct proof *proof)
{
    /* What the provider has no rereg for is soft-RoCE, which may stand on anybody's network interface. */
    const char *driver = scratch->fabric->rereg == REREG_PROVIDER ? scratch->fabric->driver : "";
    struct proof_trial trials[PROOF_PROMOTION];
    unsigned count = 0, wanted = proof_trials_wanted(mechanism, driver);
    uint64_t total_ns = 0, latency_ns = 0;
    int r = 0;

    scratch->length = FIRST_LENGTH;
    for (unsigned i = 0; i < 4 * wanted && count < wanted; i++) {
        r = run_trial(scratch, mechanism, count, &trials[count], &latency_ns);
        if (r < 0 && r != -ETIMEDOUT)
            break;
        if (r < 0 || !trials[count].caught) { /* too early, or too late */
            proof->inconclusive++;
            if (r == 0)
                lengthen(scratch);
            else if (proof->inconclusive > MAX_STALLS)
                break;
            continue;
        }
        total_ns += latency_ns;
        proof->late += trials[count].late;
        count++;
        if (count < TRIALS)
            continue;
        /* The question is answered once a byte was late, or when nothing was refused; not so what it is besides, for
         * which some more are needed. */
        if (proof->late || proof_judge(mechanism, driver, trials, count) == REVOKE_NOTHING)
            break;
        if (mechanism->fence_on)
            lengthen(scratch);
    }
    proof->trials = count;
    proof->state = r == -EOPNOTSUPP ? PROOF_FAILED : count < TRIALS ? PROOF_INCONCLUSIVE : PROOF_DONE;
    if (proof->state != PROOF_DONE)
        return;
    proof->latency_ns = total_ns / count;
    proof->kind = proof_judge(mechanism, driver, trials, count);
}

/* The trials' own connections, domains and numbers are to be seen by nobody. */
static void sweep(struct fabric *fabric)
{
    uint64_t deadline = monotonic_ns() + DRAIN_NS;
    int r = 0;

    pthread_mutex_lock(&fabric->lock);
    while ((!LIST_EMPTY(&fabric->connections) || fabric->n_objects) && r != -ETIMEDOUT)
        r = sync_wait_until(&fabric->changed, &fabric->lock, deadline);
    fabric->counters = (struct fabric_counters){0};
    pthread_mutex_unlock(&fabric->lock);
}

static bool is_here(const struct fabric *fabric, const struct revoke_mechanism *mechanism)
{
    if (mechanism_style(mechanism) == EXPOSURE_ON_DEMAND)
        return fabric->on_demand_works;
    if (mechanism_style(mechanism) == EXPOSURE_WINDOWED)
        return fabric->windows_work;
    return mechanism->run != revoke_by_rereg || fabric->rereg != REREG_NONE;
}

static int tell_ladder(struct fabric *fabric, char **ret_error)
{
    for (size_t i = 0; i < FABRIC_MECHANISMS; i++) {
        const struct revoke_mechanism *mechanism = &fabric_mechanisms[i];
        const struct proof *proof = &fabric->proofs[i];

        if (proof->state == PROOF_NOT_TRIED) { /* "auto" names it: passed over */
            revoke_ladder_set_kind(&fabric->ladder, mechanism, REVOKE_NOTHING);
            continue;
        }
        if (proof->state != PROOF_DONE)
            continue;
        if (revoke_ladder_has(&fabric->ladder, mechanism->name) && proof->kind != mechanism->kind)
            fabric_log("self-test: on this device %s serves as %s, not as %s", mechanism->name,
                       proof_kind_name(proof->kind), proof_kind_name(mechanism->kind));
        if (revoke_ladder_set_kind(&fabric->ladder, mechanism, proof->kind) < 0)
            return fabric_error(ret_error, -EOPNOTSUPP,
                                "in the self-test bytes crossed after each mechanism of revoke= had ended: not one "
                                "of them is a fence on this device; name others");
    }
    return 0;
}

int proof_run(struct fabric *fabric, char **ret_error)
{
    uint64_t deadline = monotonic_ns() + ALL_NS;
    struct scratch scratch;
    int r = scratch_init(&scratch, fabric);

    if (r < 0)
        return fabric_error(ret_error, r, "no memory for the self-test of revocation: %s", strerror(-r));
    for (size_t i = 0; i < FABRIC_MECHANISMS; i++) {
        struct proof *proof = &fabric->proofs[i];

        proof->kind = fabric_mechanisms[i].kind;
        if (!is_here(fabric, &fabric_mechanisms[i]))
            continue;
        if (monotonic_ns() < deadline)
            prove(&scratch, &fabric_mechanisms[i], proof);
        else
            proof->state = PROOF_INCONCLUSIVE;
        if (proof->state == PROOF_INCONCLUSIVE)
            fabric_log("the self-test of %s came to no result (%u trials caught nothing in flight): it is taken for a "
                       "%s",
                       fabric_mechanisms[i].name, proof->inconclusive, proof_kind_name(proof->kind));
    }
    sweep(fabric);
    scratch_clear(&scratch);
    return tell_ladder(fabric, ret_error);
}
