/* SPDX-License-Identifier: BSD-2-Clause */
/* Parked requests: what wakes them, and that each is finished exactly once whatever meets whatever. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

#include "fused/park.h"
#include "tests/unit/fs_fixture.h"

#define INO   UINT64_C(42)
#define RANGE ((struct lease_range){0, BLOCK})

struct park_fixture {
    struct lease_table *table;
    struct park *park;
};

struct request {
    struct parked parked;
    struct lease_table *table;
    sem_t finished;
    int64_t result;
    unsigned runs, keeps, finishes;
    int keep_result;
    bool interrupt_in_keep;
};

static struct request *request_of(struct parked *parked)
{
    return (struct request *)((char *)parked - offsetof(struct request, parked));
}

static int64_t run(struct parked *parked)
{
    struct request *r = request_of(parked);

    r->runs++;
    return lease_op_begin(r->table, INO, RANGE, LEASE_OP_REPLACE, NOW, &parked->waiter);
}

static int keep(struct parked *parked)
{
    struct request *r = request_of(parked);

    r->keeps++;
    if (r->interrupt_in_keep)
        park_interrupt(parked);
    return r->keep_result;
}

static void finish(struct parked *parked, int64_t result)
{
    struct request *r = request_of(parked);

    r->result = result;
    r->finishes++;
    sem_post(&r->finished);
}

static const struct parked_ops ops = {.run = run, .keep = keep, .finish = finish};

static void post_nothing(void *ctx, const struct lease_event *event)
{
    (void)ctx;
    (void)event;
}

static int setup(void **state)
{
    struct park_fixture *f = calloc(1, sizeof(*f));
    struct lease_limits limits = {.lease_time_ns = UINT64_C(1) << 60,
                                  .recall_timeout_ns = UINT64_C(1) << 50,
                                  .fence_bound_ns = UINT64_C(1) << 50,
                                  .max_leases = 100,
                                  .max_session_leases = 100,
                                  .policy = LEASE_POLICY_RECALL};
    struct lease_events events = {.post = post_nothing};

    assert_int_equal(lease_table_new(&limits, &events, &f->table), 0);
    assert_int_equal(park_new(&f->park), 0);
    park_set_lease_table(f->park, f->table);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct park_fixture *f = *state;

    park_free(f->park);
    assert_int_equal(lease_table_check(f->table), 0);
    lease_table_free(f->table);
    free(f);
    return 0;
}

static uint64_t grant(struct park_fixture *f)
{
    struct lease_request request = {.session_id = SESSION, .inode = INO, .range = RANGE, .mode = LEASE_WRITE};
    struct lease_waiter waiter = {.resume = no_resume};
    struct lease_info info;
    uint64_t id;

    assert_int_equal(lease_request(f->table, &request, NOW, &waiter, &id), 0);
    assert_int_equal(lease_commit(f->table, id, NOW, NULL, &info), 0);
    return id;
}

static void end(struct park_fixture *f, uint64_t id)
{
    lease_return(f->table, SESSION, id, 0, NOW);
    lease_fenced(f->table, id, true, NOW);
}

static void request_init(struct park_fixture *f, struct request *r)
{
    memset(r, 0, sizeof(*r));
    r->table = f->table;
    sem_init(&r->finished, 0, 0);
    park_init(f->park, &r->parked, &ops);
}

static void a_request_without_conflict_is_finished_on_the_spot(void **state)
{
    struct park_fixture *f = *state;
    struct request r;

    request_init(f, &r);
    park_begin(&r.parked);
    assert_int_equal(r.finishes, 1);
    assert_int_equal(r.result, 0);
    assert_int_equal(r.keeps, 0);
}

static void a_parked_request_runs_again_when_the_lease_ends(void **state)
{
    struct park_fixture *f = *state;
    uint64_t lease = grant(f);
    struct request r;

    request_init(f, &r);
    park_begin(&r.parked);
    assert_int_equal(r.finishes, 0);
    assert_int_equal(r.keeps, 1);
    end(f, lease);
    sem_wait(&r.finished);
    assert_int_equal(r.result, 0);
    assert_int_equal(r.runs, 2);
}

static void an_interrupted_request_ends_with_eintr(void **state)
{
    struct park_fixture *f = *state;
    uint64_t lease = grant(f);
    struct request r;

    request_init(f, &r);
    park_begin(&r.parked);
    park_interrupt(&r.parked);
    sem_wait(&r.finished);
    assert_int_equal(r.result, -EINTR);
    assert_int_equal(r.runs, 1);
    end(f, lease);
}

/* libfuse calls the interrupt function at once when the interrupt came first. */
static void an_interrupt_that_came_before_counts(void **state)
{
    struct park_fixture *f = *state;
    uint64_t lease = grant(f);
    struct request r;

    request_init(f, &r);
    r.interrupt_in_keep = true;
    park_begin(&r.parked);
    sem_wait(&r.finished);
    assert_int_equal(r.result, -EINTR);
    end(f, lease);
}

static void a_request_that_cannot_be_kept_fails_and_does_not_run_again(void **state)
{
    struct park_fixture *f = *state;
    uint64_t lease = grant(f);
    struct request r;

    request_init(f, &r);
    r.keep_result = -ENOMEM;
    park_begin(&r.parked);
    sem_wait(&r.finished);
    assert_int_equal(r.result, -ENOMEM);
    assert_int_equal(r.runs, 1);
    end(f, lease);
}

static void stopping_finishes_those_who_wait_and_lets_nobody_wait_after(void **state)
{
    struct park_fixture *f = *state;
    uint64_t lease = grant(f);
    struct request early, late;

    request_init(f, &early);
    request_init(f, &late);
    park_begin(&early.parked);
    park_stop(f->park);
    assert_int_equal(early.finishes, 1);
    assert_int_equal(early.result, -ENOTCONN);
    park_begin(&late.parked);
    sem_wait(&late.finished);
    assert_int_equal(late.result, -ENOTCONN);
    end(f, lease);
}

/* Returns and interrupts race for many requests: each is finished once, with one or the other result. */
struct interrupter {
    struct request *requests;
    size_t n;
};

static void *interrupt_all(void *arg)
{
    struct interrupter *i = arg;

    for (size_t k = 0; k < i->n; k++)
        park_interrupt(&i->requests[k].parked);
    return NULL;
}

static void a_return_and_an_interrupt_may_race(void **state)
{
    enum { REQUESTS = 40, ROUNDS = 100 };
    struct park_fixture *f = *state;
    static struct request requests[REQUESTS];
    struct interrupter interrupter = {requests, REQUESTS};
    unsigned interrupted = 0, resumed = 0;

    for (int round = 0; round < ROUNDS; round++) {
        uint64_t lease = grant(f);
        pthread_t thread;

        for (int i = 0; i < REQUESTS; i++) {
            request_init(f, &requests[i]);
            park_begin(&requests[i].parked);
        }
        pthread_create(&thread, NULL, interrupt_all, &interrupter);
        end(f, lease);
        pthread_join(thread, NULL);
        for (int i = 0; i < REQUESTS; i++) {
            sem_wait(&requests[i].finished);
            assert_int_equal(requests[i].finishes, 1);
            interrupted += requests[i].result == -EINTR;
            resumed += requests[i].result == 0;
        }
    }
    assert_int_equal(interrupted + resumed, REQUESTS * ROUNDS);
    assert_true(resumed > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_request_without_conflict_is_finished_on_the_spot),
        TEST(a_parked_request_runs_again_when_the_lease_ends),
        TEST(an_interrupted_request_ends_with_eintr),
        TEST(an_interrupt_that_came_before_counts),
        TEST(a_request_that_cannot_be_kept_fails_and_does_not_run_again),
        TEST(stopping_finishes_those_who_wait_and_lets_nobody_wait_after),
        TEST(a_return_and_an_interrupt_may_race),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
