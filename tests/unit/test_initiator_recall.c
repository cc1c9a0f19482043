/* SPDX-License-Identifier: BSD-2-Clause */

/* What a holder is told, and what it does then: recalls, their end, revocations. */

#include "initiator_fixture.h"

static const char recall_line[] = "{\"jsonrpc\":\"2.0\",\"method\":\"recall\",\"params\":{\"lease\":7,\"sequence\":2,"
                                  "\"offset\":4096,\"length\":4096,\"deadline_ms\":1500}}\n";
static const char revoked_line[] = "{\"jsonrpc\":\"2.0\",\"method\":\"revoked\",\"params\":{\"lease\":7,\"sequence\":3,"
                                   "\"reason\":\"recall timeout\"}}\n";

static void a_recall_is_answered_by_giving_the_lease_back(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(RETURN);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    allow_transfers(lease);
    send_text(server, recall_line);
    await(server, &server->returns, 1);
    assert_int_equal(peek(&server->lock, &server->return_sequence), 2);
    assert_int_equal(peek(&notices.lock, &notices.deadline_ms), 1500);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), -ESTALE);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(peek(&server->lock, &server->returns), 1);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_recall_on_the_heels_of_the_grant_finds_the_lease(void **state)
{
    struct holder holder;

    (void)state;
    hold(&holder, &(const struct behaviour){.after_grant = recall_line}, LEASEFS_RECALL_RETURN);
    await(holder.server, &holder.server->returns, 1);
    let_go(&holder, 0);
    assert_int_equal(holder.notices.recalls, 1);
}

static void a_recall_waits_for_transfers_under_way_and_refuses_new_ones(void **state)
{
    struct holder holder;

    (void)state;
    hold(&holder, &(const struct behaviour){0}, LEASEFS_RECALL_RETURN);
    assert_int_equal(begin_transfer(holder.lease, false, 4096, 8192), 0);
    assert_int_equal(begin_transfer(holder.lease, false, 4096, 1), 0);
    send_text(holder.server, recall_line);
    await_notice(&holder.notices, &holder.notices.recalls, 1);
    /* The notice is given before the state changes: a call that goes through the session's thread waits for that. */
    assert_int_equal(leasefs_call(holder.session, "status", NULL, NULL), -EOPNOTSUPP);
    assert_int_equal(begin_transfer(holder.lease, false, 4096, 1), -ESTALE);
    assert_int_equal(peek(&holder.server->lock, &holder.server->returns), 0);
    assert_int_equal(lease_transfer_end(holder.lease, 0), 0);
    assert_int_equal(leasefs_call(holder.session, "status", NULL, NULL), -EOPNOTSUPP);
    assert_int_equal(peek(&holder.server->lock, &holder.server->returns), 0);
    assert_int_equal(lease_transfer_end(holder.lease, 0), 0);
    await(holder.server, &holder.server->returns, 1);
    let_go(&holder, 0);
}

static void a_kept_lease_is_not_given_back(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(KEEP);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    allow_transfers(lease);
    send_text(server, recall_line);
    await_notice(&notices, &notices.recalls, 1);
    send_text(server, "{\"method\":\"recall_cancelled\",\"params\":{\"lease\":7,\"sequence\":3}}\n");
    await_notice(&notices, &notices.cancellations, 1);
    assert_int_equal(peek(&server->lock, &server->returns), 0);
    assert_int_equal(begin_transfer(lease, false, 4096, 8192), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(peek(&server->lock, &server->return_sequence), 3);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_revoked_lease_moves_no_bytes(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(KEEP);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    allow_transfers(lease);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), 0);
    send_text(server, revoked_line);
    await_notice(&notices, &notices.revocations, 1);
    pthread_mutex_lock(&notices.lock);
    assert_string_equal(notices.reason, "recall timeout");
    pthread_mutex_unlock(&notices.lock);
    /* One that was under way ended after the revocation: its bytes may be another file's. */
    assert_int_equal(lease_transfer_end(lease, 0), -EREMOTEIO);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), -EREMOTEIO);
    assert_non_null(strstr(leasefs_error(), "recall timeout"));
    assert_int_equal(leasefs_lease_return(lease), -EREMOTEIO);
    assert_int_equal(peek(&server->lock, &server->returns), 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void an_unguarded_lease_leaves_refusing_to_the_nic(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(KEEP);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    allow_transfers(lease);
    lease->options.unguarded = true;
    send_text(server, revoked_line);
    await_notice(&notices, &notices.revocations, 1);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), 0);
    assert_int_equal(lease_transfer_end(lease, -EREMOTEIO), -EREMOTEIO);
    leasefs_lease_return(lease);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_callback_that_would_wait_for_itself_is_refused(void **state)
{
    struct holder holder;

    (void)state;
    hold(&holder, &(const struct behaviour){0}, LEASEFS_RECALL_RETURN);
    pthread_mutex_lock(&holder.notices.lock);
    holder.notices.session = holder.session;
    pthread_mutex_unlock(&holder.notices.lock);
    send_text(holder.server, recall_line);
    await(holder.server, &holder.server->returns, 1);
    assert_int_equal((int)peek(&holder.notices.lock, (unsigned *)&holder.notices.call_status), -EDEADLK);
    let_go(&holder, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recall_is_answered_by_giving_the_lease_back),
        cmocka_unit_test(a_recall_on_the_heels_of_the_grant_finds_the_lease),
        cmocka_unit_test(a_recall_waits_for_transfers_under_way_and_refuses_new_ones),
        cmocka_unit_test(a_kept_lease_is_not_given_back),
        cmocka_unit_test(a_revoked_lease_moves_no_bytes),
        cmocka_unit_test(an_unguarded_lease_leaves_refusing_to_the_nic),
        cmocka_unit_test(a_callback_that_would_wait_for_itself_is_refused),
    };

    alarm(60);
    return cmocka_run_group_tests_name("initiator_recall", tests, NULL, NULL);
}
