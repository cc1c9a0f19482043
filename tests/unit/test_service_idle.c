/* SPDX-License-Identifier: BSD-2-Clause */

/* Leases that a client has returned and keeps for a while: the client library and the real service, between a
 * filesystem and a fabric that only pretend. What must not happen is that one is used again when it should not be, or
 * stands in anybody's way. */

#include "service_fixture.h"

#include <leasefs/leasefs.h>

#define SIZE (2 * BLOCK)

static struct leasefs_session *open_session(unsigned idle_leases)
{
    const struct leasefs_session_options options = {.control = world.path, .idle_leases = idle_leases};
    struct leasefs_session *session;

    assert_int_equal(leasefs_session_open(&options, &session), 0);
    return session;
}

static int try_open(struct leasefs_session *session, const char *path, uint64_t offset,
                    struct leasefs_lease **ret_lease)
{
    const struct leasefs_lease_options options = {
        .mode = LEASEFS_READ, .offset = offset, .length = SIZE, .no_rdma = true};

    return leasefs_lease_open(session, path, &options, ret_lease);
}

static uint32_t take_and_return(struct leasefs_session *session, const char *path, uint64_t offset)
{
    struct leasefs_layout layout;
    struct leasefs_lease *lease;

    assert_int_equal(try_open(session, path, offset, &lease), 0);
    leasefs_lease_layout(lease, &layout);
    assert_int_equal(layout.offset, offset);
    assert_int_equal(layout.length, SIZE);
    assert_int_equal(leasefs_lease_return(lease), 0);
    return layout.rkey;
}

/* A local change of the file, by this process, which is the holder's. */
struct change {
    struct lease_waiter waiter; /* first */
    atomic_int resumed;
};

static void change_resumed(struct lease_waiter *waiter)
{
    ((struct change *)waiter)->resumed++;
}

static int begin_change(struct change *change, uint64_t inode, enum lease_policy policy)
{
    *change = (struct change){.waiter = {.resume = change_resumed, .process = getpid()}};
    return lease_op_begin_under(the_table(), inode, (struct lease_range){0, BLOCK}, LEASE_OP_REPLACE, policy, now_ns(),
                                &change->waiter);
}

static void it_is_taken_up_again_without_a_registration(void **state)
{
    struct leasefs_session *session = open_session(4);
    uint32_t key = take_and_return(session, "/a", 0);

    (void)state;
    for (int i = 0; i < 10; i++)
        assert_int_equal(take_and_return(session, "/a", 0), key);
    assert_int_equal(world.n_exposed, 1);
    assert_int_equal(world.exposures, 1);
    /* Another range, another file: other leases. */
    assert_int_not_equal(take_and_return(session, "/a", 2 * BLOCK), key);
    assert_int_not_equal(take_and_return(session, "/b", 0), key);
    assert_int_equal(world.n_exposed, 3);
    leasefs_session_close(session);
    UNTIL(world.exposures == 0);
}

static void without_the_option_each_return_is_one(void **state)
{
    struct leasefs_session *session = open_session(0);

    (void)state;
    take_and_return(session, "/a", 0);
    assert_int_equal(world.exposures, 0);
    take_and_return(session, "/a", 0);
    assert_int_equal(world.n_exposed, 2);
    leasefs_session_close(session);
}

static void two_who_want_it_at_once_get_two(void **state)
{
    struct leasefs_session *session = open_session(4);
    struct leasefs_lease *one, *other;

    (void)state;
    take_and_return(session, "/a", 0);
    assert_int_equal(try_open(session, "/a", 0, &one), 0);
    assert_int_equal(try_open(session, "/a", 0, &other), 0);
    assert_int_equal(world.n_exposed, 2);
    assert_int_equal(leasefs_lease_return(one), 0);
    assert_int_equal(leasefs_lease_return(other), 0);
    leasefs_session_close(session);
}

static void a_change_by_its_own_process_is_no_deadlock(void **state)
{
    struct leasefs_session *session = open_session(4);
    struct leasefs_lease *lease;
    struct change change;

    (void)state;
    assert_int_equal(try_open(session, "/a", 0, &lease), 0);
    assert_int_equal(begin_change(&change, 1, 0), -EDEADLK);
    assert_int_equal(leasefs_lease_return(lease), 0);
    /* The return is a message; that it has arrived shows in the lease's not being in the way. */
    take_and_return(session, "/a", 0);
    UNTIL(begin_change(&change, 1, 0) != -EDEADLK);
    UNTIL(change.resumed == 1);
    lease_op_end(the_table(), &change.waiter);
    UNTIL(world.exposures == 0);
    /* What was changed is leased anew. */
    take_and_return(session, "/a", 0);
    assert_int_equal(world.n_exposed, 2);
    leasefs_session_close(session);
}

static void it_makes_no_file_busy(void **state)
{
    struct leasefs_session *session = open_session(4);
    struct leasefs_lease *lease;
    struct change change;
    int answer = -EBUSY;

    (void)state;
    assert_int_equal(try_open(session, "/a", 0, &lease), 0);
    assert_int_equal(begin_change(&change, 1, LEASE_POLICY_BUSY), -EBUSY);
    assert_int_equal(leasefs_lease_return(lease), 0);
    UNTIL((answer = begin_change(&change, 1, LEASE_POLICY_BUSY)) != -EBUSY);
    assert_int_equal(answer, -EINPROGRESS);
    UNTIL(change.resumed == 1);
    lease_op_end(the_table(), &change.waiter);
    leasefs_session_close(session);
}

static void a_path_that_names_another_file_is_noticed(void **state)
{
    struct leasefs_session *session = open_session(4);
    uint32_t key = take_and_return(session, "/a", 0);

    (void)state;
    world.renamed = true;
    assert_int_not_equal(take_and_return(session, "/a", 0), key);
    assert_int_equal(world.n_exposed, 2);
    UNTIL(world.exposures == 1); /* what does not fit is given back */
    leasefs_session_close(session);
}

static void lost_permissions_are_noticed(void **state)
{
    struct leasefs_session *session = open_session(4);
    struct leasefs_lease *lease;

    (void)state;
    take_and_return(session, "/a", 0);
    world.locked = true;
    assert_int_equal(try_open(session, "/a", 0, &lease), -EACCES);
    UNTIL(world.exposures == 0);
    leasefs_session_close(session);
}

static void no_more_are_kept_than_allowed_the_oldest_goes(void **state)
{
    struct leasefs_session *session = open_session(2);
    uint32_t b, c;

    (void)state;
    take_and_return(session, "/a", 0);
    b = take_and_return(session, "/b", 0);
    c = take_and_return(session, "/c", 0);
    UNTIL(world.exposures == 2);
    assert_int_equal(take_and_return(session, "/b", 0), b);
    assert_int_equal(take_and_return(session, "/c", 0), c);
    assert_int_equal(world.n_exposed, 3);
    leasefs_session_close(session);
}

static void a_limit_takes_them_back(void **state)
{
    struct leasefs_session *session = open_session(16);
    struct leasefs_lease *leases[16];

    (void)state;
    for (int i = 0; i < 8; i++)
        take_and_return(session, "/a", i % 4 * SIZE);
    take_and_return(session, "/b", 0);
    UNTIL(world.exposures == 5);
    /* The session may have 16. */
    for (int i = 0; i < 16; i++)
        assert_int_equal(try_open(session, "/c", 0, &leases[i]), 0);
    assert_int_equal(world.exposures, 16);
    for (int i = 0; i < 16; i++)
        assert_int_equal(leasefs_lease_return(leases[i]), 0);
    leasefs_session_close(session);
}

static int setup_short(void **state)
{
    struct lease_service_config config = world_config();

    (void)state;
    config.limits.lease_time_ns = 900 * MS;
    world_start(&config);
    return 0;
}

static void nobody_who_wants_it_for_a_while_it_goes(void **state)
{
    struct leasefs_session *session = open_session(4);
    struct leasefs_lease *used;

    (void)state;
    assert_int_equal(try_open(session, "/b", 0, &used), 0);
    take_and_return(session, "/a", 0);
    UNTIL(world.exposures == 1);
    leasefs_session_close(session); /* with the one in use, which was renewed meanwhile */
}

static atomic_bool over;

static void *change_again_and_again(void *arg)
{
    unsigned *seed = arg;

    while (!over) {
        struct change change;
        int error = begin_change(&change, (unsigned)rand_r(seed) % 2 + 1, 0);

        if (error == -EINPROGRESS) {
            UNTIL(change.resumed);
            lease_op_end(the_table(), &change.waiter);
        }
    }
    return NULL;
}

static void *take_again_and_again(void *arg)
{
    struct leasefs_session *session = arg;
    unsigned seed = (unsigned)(uintptr_t)&seed;

    for (int i = 0; i < 400; i++) {
        struct leasefs_lease *lease;
        int status = try_open(session, rand_r(&seed) % 2 ? "/a" : "/b", rand_r(&seed) % 3 * SIZE, &lease);

        if (!status)
            leasefs_lease_return(lease); /* or revoked: then an error */
    }
    return NULL;
}

static void many_at_once_leave_nothing_behind(void **state)
{
    struct leasefs_session *session = open_session(3);
    pthread_t takers[3], changers[2];
    unsigned seeds[2] = {1, 2};

    (void)state;
    over = false;
    for (int i = 0; i < 2; i++)
        pthread_create(&changers[i], NULL, change_again_and_again, &seeds[i]);
    for (int i = 0; i < 3; i++)
        pthread_create(&takers[i], NULL, take_again_and_again, session);
    for (int i = 0; i < 3; i++)
        pthread_join(takers[i], NULL);
    over = true;
    for (int i = 0; i < 2; i++)
        pthread_join(changers[i], NULL);
    UNTIL(world.exposures <= 3);
    leasefs_session_close(session);
    UNTIL(world.exposures == 0 && world.pins == 0);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        STORY(it_is_taken_up_again_without_a_registration),
        STORY(without_the_option_each_return_is_one),
        STORY(two_who_want_it_at_once_get_two),
        STORY(a_change_by_its_own_process_is_no_deadlock),
        STORY(it_makes_no_file_busy),
        STORY(a_path_that_names_another_file_is_noticed),
        STORY(lost_permissions_are_noticed),
        STORY(no_more_are_kept_than_allowed_the_oldest_goes),
        STORY(a_limit_takes_them_back),
        cmocka_unit_test_setup_teardown(nobody_who_wants_it_for_a_while_it_goes, setup_short, teardown),
        STORY(many_at_once_leave_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
