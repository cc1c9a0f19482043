/* SPDX-License-Identifier: BSD-2-Clause */

/* A lease of which a part is given back, or the right to write. */

#include "initiator_fixture.h"

#define PIECE(lease, mode, offset, length)                                                                             \
    "{\"lease\": " lease ", \"sequence\": 2, \"mode\": \"" mode "\", \"offset\": " offset ", \"length\": " length      \
    ", \"file_size\": 10000, \"remote_address\": 4096000, \"rkey\": 99, \"lease_time_ms\": 60000}"

static struct leasefs_lease *open_to_cut(struct leasefs_session *session)
{
    const struct leasefs_lease_options options = {.mode = LEASEFS_WRITE, .no_rdma = true};
    struct leasefs_lease *lease;

    assert_int_equal(leasefs_lease_open(session, "/f", &options, &lease), 0);
    lease->options.no_rdma = false; /* for begin_transfer() */
    return lease;
}

static void a_part_that_is_given_back_leaves_the_rest(void **state)
{
    struct server *server =
        start_server_that(&(const struct behaviour){.kept = "[" PIECE("7", "write", "4096", "4096") "]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session), *rest = lease;
    struct leasefs_layout layout;
    struct lease_target target;

    (void)state;
    assert_int_equal(leasefs_lease_return_range(lease, 8192, 4096, &rest), 0);
    assert_null(rest);
    assert_int_equal(json_integer_value(json_object_get(server->part, "lease")), 7);
    assert_int_equal(json_integer_value(json_object_get(server->part, "offset")), 8192);
    assert_int_equal(json_integer_value(json_object_get(server->part, "length")), 4096);
    leasefs_lease_layout(lease, &layout);
    assert_int_equal(layout.length, 4096);
    assert_int_equal(begin_transfer(lease, true, 8192, 1), -ERANGE);
    assert_int_equal(lease_transfer_begin(lease, true, 4196, 1, &target), 0);
    assert_int_equal(target.remote_address, 4096100);
    assert_int_equal(target.rkey, 99);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(server->returns, 1);
    assert_int_equal(server->return_sequence, 2);
    leasefs_session_close(session);
    stop_server(server);
}

static void the_middle_given_back_makes_two_leases(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){
        .kept = "[" PIECE("7", "write", "4096", "4096") ", " PIECE("8", "write", "20480", "4096") "]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session), *rest;
    struct leasefs_layout layout;

    (void)state;
    lease->layout.length = 20480;
    assert_int_equal(leasefs_lease_return_range(lease, 8192, 12288, NULL), -EINVAL);
    assert_int_equal(peek(&server->lock, &server->parts), 0);
    assert_int_equal(leasefs_lease_return_range(lease, 8192, 12288, &rest), 0);
    leasefs_lease_layout(rest, &layout);
    assert_int_equal(layout.lease_id, 8);
    assert_int_equal(layout.offset, 20480);
    assert_int_equal(begin_transfer(rest, true, 20480, 4096), 0);
    assert_int_equal(lease_transfer_end(rest, 0), 0);
    assert_int_equal(leasefs_lease_return(rest), 0);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(server->returns, 2);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_downgraded_lease_does_not_write(void **state)
{
    struct server *server =
        start_server_that(&(const struct behaviour){.kept = "[" PIECE("7", "read", "4096", "8192") "]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session);

    (void)state;
    assert_int_equal(begin_transfer(lease, true, 4096, 1), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    assert_int_equal(leasefs_lease_downgrade(lease), 0);
    assert_string_equal(json_string_value(json_object_get(server->part, "mode")), "read");
    assert_int_equal(begin_transfer(lease, true, 4096, 1), -EBADF);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void nothing_kept_is_the_leases_end(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){.kept = "[]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session);

    (void)state;
    assert_int_equal(leasefs_lease_return_range(lease, 0, 1u << 20, NULL), 0);
    assert_int_equal(begin_transfer(lease, true, 4096, 1), -ESTALE);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(server->returns, 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_refused_part_leaves_the_lease_as_it_was(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){
        .refuse_part = "{\"code\": -32000, \"message\": \"no\", \"data\": {\"errno\": \"EMFILE\"}}"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session);

    (void)state;
    assert_int_equal(leasefs_lease_return_range(lease, 4096, 4096, NULL), -EMFILE);
    assert_int_equal(begin_transfer(lease, true, 4096, 8192), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    leasefs_session_close(session);
    stop_server(server);

    /* Sense it must make, though. */
    server = start_server_that(&(const struct behaviour){.kept = "[1, 2, 3]"});
    session = open_session(server);
    lease = open_to_cut(session);
    assert_int_equal(leasefs_lease_downgrade(lease), -EPROTO);
    assert_int_equal(begin_transfer(lease, true, 4096, 1), -ESTALE);
    leasefs_session_close(session);
    stop_server(server);
}

static void *downgrade(void *arg)
{
    assert_int_equal(leasefs_lease_downgrade(arg), 0);
    return NULL;
}

static void a_part_is_given_back_when_transfers_have_ended(void **state)
{
    struct server *server =
        start_server_that(&(const struct behaviour){.kept = "[" PIECE("7", "read", "4096", "8192") "]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session);
    pthread_t thread;

    (void)state;
    assert_int_equal(begin_transfer(lease, true, 4096, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, downgrade, lease), 0);
    for (bool cutting = false; !cutting;) {
        pthread_mutex_lock(&session->lock);
        cutting = lease->cutting;
        pthread_mutex_unlock(&session->lock);
    }
    assert_int_equal(peek(&server->lock, &server->parts), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    /* Waits for the answer, and reads under the new key. */
    assert_int_equal(begin_transfer(lease, true, 4096, 1), -EBADF);
    pthread_join(thread, NULL);
    assert_int_equal(peek(&server->lock, &server->parts), 1);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_recall_that_crosses_the_return_of_a_part_is_answered(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){
        .before_kept = "{\"jsonrpc\": \"2.0\", \"method\": \"recall\", \"params\": {\"lease\": 7, \"sequence\": 2, "
                       "\"deadline_ms\": 5000}}\n",
        .kept = "[" PIECE("7", "read", "4096", "8192") "]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session);

    (void)state;
    assert_int_equal(leasefs_lease_downgrade(lease), 0);
    await(server, &server->returns, 1);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(server->returns, 1);
    leasefs_session_close(session);
    stop_server(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_that_is_given_back_leaves_the_rest),
        cmocka_unit_test(the_middle_given_back_makes_two_leases),
        cmocka_unit_test(a_downgraded_lease_does_not_write),
        cmocka_unit_test(nothing_kept_is_the_leases_end),
        cmocka_unit_test(a_refused_part_leaves_the_lease_as_it_was),
        cmocka_unit_test(a_part_is_given_back_when_transfers_have_ended),
        cmocka_unit_test(a_recall_that_crosses_the_return_of_a_part_is_answered),
    };

    alarm(60);
    return cmocka_run_group_tests_name("initiator_cut", tests, NULL, NULL);
}
