/* SPDX-License-Identifier: BSD-2-Clause */

/* A session, its leases and their time. */

#include "initiator_fixture.h"

/* A request for a lease is written by hand. */
static void a_lease_is_asked_for_as_the_caller_says(void **state)
{
    static const char path[] = "/a \"quoted\" \\ back\nslash\t\x01 \xc3\xa4";
    const struct leasefs_lease_options all = {.mode = LEASEFS_WRITE,
                                              .no_rdma = true,
                                              .offset = 4096,
                                              .length = INT64_MAX - 4096,
                                              .prepare = true,
                                              .try_only = true,
                                              .policy = LEASEFS_POLICY_ORPHAN},
                                       none = {.mode = LEASEFS_READ, .no_rdma = true};
    struct server *server = start_server();
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease;
    json_t *expected;

    (void)state;
    assert_int_equal(leasefs_lease_open(session, path, &all, &lease), 0);
    expected =
        json_pack("{s:s, s:s, s:I, s:I, s:b, s:b, s:s}", "path", path, "mode", "write", "offset", (json_int_t)4096,
                  "length", (json_int_t)INT64_MAX - 4096, "prepare", 1, "wait", 0, "policy", "orphan");
    pthread_mutex_lock(&server->lock);
    assert_true(json_equal(server->asked, expected));
    pthread_mutex_unlock(&server->lock);
    json_decref(expected);
    leasefs_lease_return(lease);
    assert_int_equal(leasefs_lease_open(session, "/file", &none, &lease), 0);
    expected = json_pack("{s:s, s:s}", "path", "/file", "mode", "read"); /* the rest is the default */
    pthread_mutex_lock(&server->lock);
    assert_true(json_equal(server->asked, expected));
    pthread_mutex_unlock(&server->lock);
    json_decref(expected);
    leasefs_lease_return(lease);
    assert_int_equal(leasefs_lease_open(session, "/\xff", &none, &lease), -EINVAL); /* no UTF-8 */
    leasefs_session_close(session);
    stop_server(server);
}

static void a_grant_tells_the_layout(void **state)
{
    struct server *server = start_server();
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, NULL);
    struct leasefs_layout layout;

    (void)state;
    leasefs_lease_layout(lease, &layout);
    assert_int_equal(layout.lease_id, 7);
    assert_int_equal(layout.sequence, 1);
    assert_int_equal(layout.mode, LEASEFS_READ);
    assert_int_equal(layout.offset, 4096);
    assert_int_equal(layout.length, 8192);
    assert_int_equal(layout.file_size, 10000);
    assert_int_equal(layout.remote_address, 0x7f0012340000);
    assert_int_equal(layout.rkey, 0xfedcba98);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(peek(&server->lock, &server->return_sequence), 1);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_refusal_says_what_where_and_what_to_do(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){
        .refuse_lease =
            "{\"code\":-32000,\"message\":\"bytes 4096+8192 are a hole\\u001b[31m\",\"data\":{\"errno\":\"EPERM\","
            "\"reason\":\"hole\",\"remedy\":\"Run leasectl prepare.\",\"offset\":4096,\"length\":8192}}"});
    const struct leasefs_lease_options options = {.mode = LEASEFS_READ, .no_rdma = true};
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = (void *)1;

    (void)state;
    assert_int_equal(leasefs_lease_open(session, "/file", &options, &lease), -EPERM);
    assert_ptr_equal(lease, (void *)1);
    assert_string_equal(leasefs_error(), "lease: bytes 4096+8192 are a hole?[31m. Run leasectl prepare.");
    assert_non_null(strstr(leasefs_error_data(), "\"reason\":\"hole\""));
    leasefs_session_close(session);
    stop_server(server);
}

static void *open_and_return(void *arg)
{
    struct leasefs_lease *lease = open_lease(arg, NULL);

    assert_int_equal(leasefs_lease_return(lease), 0);
    return NULL;
}

/* Who reads the answer to another's call ends that; at what is for the session's thread it stops reading, and gets its
 * own answer from there. */
static void who_waits_longest_reads_for_the_others(void **state)
{
    struct server *server = start_server_that(
        &(const struct behaviour){.meanwhile = "{\"jsonrpc\": \"2.0\", \"method\": \"news of tomorrow\"}\n"});
    struct leasefs_session *session = open_session(server);
    pthread_t waiting;

    (void)state;
    for (unsigned round = 1; round <= 20; round++) {
        assert_int_equal(pthread_create(&waiting, NULL, open_and_return, session), 0);
        await(server, &server->leases, round);
        assert_int_equal(leasefs_call(session, "status", NULL, NULL), -EOPNOTSUPP);
        pthread_join(waiting, NULL);
    }
    leasefs_session_close(session);
    stop_server(server);
}

static void a_lease_is_renewed_in_time(void **state)
{
    struct holder holder;

    (void)state;
    hold(&holder, &(const struct behaviour){.lease_time_ms = 60}, LEASEFS_RECALL_KEEP);
    await(holder.server, &holder.server->renewals, 3);
    let_go(&holder, 0);
}

static void a_lease_that_the_server_does_not_renew_has_ended(void **state)
{
    struct holder holder;

    (void)state;
    hold(&holder,
         &(const struct behaviour){.lease_time_ms = 60,
                                   .refuse_renew =
                                       "{\"code\":-32000,\"message\":\"expired\",\"data\":{\"errno\":\"ESTALE\"}}"},
         LEASEFS_RECALL_KEEP);
    await_notice(&holder.notices, &holder.notices.revocations, 1);
    assert_int_equal(begin_transfer(holder.lease, false, 4096, 1), -ESTALE);
    let_go(&holder, -ESTALE);
}

static void set_expiry(struct leasefs_lease *lease, uint64_t expires_at_ns)
{
    pthread_mutex_lock(&lease->session->lock);
    lease->expires_at_ns = expires_at_ns;
    pthread_mutex_unlock(&lease->session->lock);
}

static void a_completion_after_the_expiry_is_rejected(void **state)
{
    struct holder holder;

    (void)state;
    hold(&holder, &(const struct behaviour){0}, LEASEFS_RECALL_KEEP);
    assert_int_equal(begin_transfer(holder.lease, false, 4096, 1), 0);
    set_expiry(holder.lease, clock_now_ns());
    assert_int_equal(lease_transfer_end(holder.lease, 0), -ESTALE);
    let_go(&holder, 0);
}

static void no_transfer_starts_close_to_the_expiry(void **state)
{
    struct holder holder;

    (void)state;
    hold(&holder, &(const struct behaviour){0}, LEASEFS_RECALL_KEEP);
    set_expiry(holder.lease, clock_now_ns() + 50 * NS_PER_MS);
    assert_int_equal(begin_transfer(holder.lease, false, 4096, 1), -ESTALE);
    let_go(&holder, 0);
}

static void transfers_stay_inside_the_lease(void **state)
{
    struct server *server = start_server();
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, NULL);

    (void)state;
    assert_int_equal(begin_transfer(lease, false, 4096, 1), -EOPNOTSUPP);
    allow_transfers(lease);
    assert_int_equal(begin_transfer(lease, false, 4095, 1), -ERANGE);
    assert_int_equal(begin_transfer(lease, false, 4096, 8193), -ERANGE);
    assert_int_equal(begin_transfer(lease, false, 12288, 1), -ERANGE);
    assert_int_equal(begin_transfer(lease, false, UINT64_MAX, 2), -ERANGE);
    assert_int_equal(begin_transfer(lease, false, 8192, SIZE_MAX), -ERANGE);
    assert_int_equal(begin_transfer(lease, true, 4096, 1), -EBADF);
    assert_int_equal(leasefs_lease_return(lease), 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void the_servers_death_ends_leases_and_calls(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(KEEP);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    allow_transfers(lease);
    stop_server(server);
    await_notice(&notices, &notices.revocations, 1);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), -ESTALE);
    assert_int_equal(leasefs_call(session, "status", NULL, NULL), -ENOTCONN);
    assert_int_equal(leasefs_lease_return(lease), -ESTALE);
    leasefs_session_close(session);
}

static void garbage_from_the_server_ends_the_session(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){.garbage = true});
    const struct leasefs_lease_options options = {.mode = LEASEFS_READ, .no_rdma = true};
    struct leasefs_session *session;
    struct leasefs_lease *lease;

    (void)state;
    session = open_session(server);
    assert_int_equal(leasefs_lease_open(session, "/file", &options, &lease), -ENOTCONN);
    leasefs_session_close(session);
    stop_server(server);
}

static void closing_gives_every_lease_back_first(void **state)
{
    struct server *server = start_server();
    struct leasefs_session *session = open_session(server);

    (void)state;
    open_lease(session, NULL);
    leasefs_session_close(session);
    assert_int_equal(peek(&server->lock, &server->returns), 1);
    stop_server(server);
}

static void an_empty_file_is_published_without_a_lease(void **state)
{
    struct server *server = start_server();
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease;

    (void)state;
    assert_int_equal(leasefs_create(session, "/new", 0644, 0, &lease), 0);
    assert_int_equal(leasefs_publish(lease), 0);
    assert_int_equal(peek(&server->lock, &server->leases), 0);
    assert_int_equal(peek(&server->lock, &server->publishes), 1);
    leasefs_session_close(session);
    stop_server(server);
}

static void nobody_at_the_socket_is_said_with_what_to_do(void **state)
{
    const struct leasefs_session_options options = {.control = "/nonexistent/leasefs.sock"};
    struct leasefs_session *session = (void *)1;

    (void)state;
    assert_int_equal(leasefs_session_open(&options, &session), -ENOENT);
    assert_ptr_equal(session, (void *)1);
    assert_non_null(strstr(leasefs_error(), "/nonexistent/leasefs.sock"));
    assert_non_null(strstr(leasefs_error(), "--control"));
    assert_null(leasefs_error_data());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lease_is_asked_for_as_the_caller_says),
        cmocka_unit_test(a_grant_tells_the_layout),
        cmocka_unit_test(a_refusal_says_what_where_and_what_to_do),
        cmocka_unit_test(who_waits_longest_reads_for_the_others),
        cmocka_unit_test(a_lease_is_renewed_in_time),
        cmocka_unit_test(a_lease_that_the_server_does_not_renew_has_ended),
        cmocka_unit_test(a_completion_after_the_expiry_is_rejected),
        cmocka_unit_test(no_transfer_starts_close_to_the_expiry),
        cmocka_unit_test(transfers_stay_inside_the_lease),
        cmocka_unit_test(the_servers_death_ends_leases_and_calls),
        cmocka_unit_test(garbage_from_the_server_ends_the_session),
        cmocka_unit_test(closing_gives_every_lease_back_first),
        cmocka_unit_test(an_empty_file_is_published_without_a_lease),
        cmocka_unit_test(nobody_at_the_socket_is_said_with_what_to_do),
    };

    alarm(60);
    return cmocka_run_group_tests_name("initiator_session", tests, NULL, NULL);
}
