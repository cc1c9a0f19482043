/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of the control service, as its clients live them. */
#include "service_fixture.h"

/* ---- sessions ---- */

static void nothing_is_done_before_a_session_is_opened_and_it_is_opened_once(void **state)
{
    struct client client;
    json_t *answer;

    (void)state;
    client_dial(&client);
    answer = client_call(&client, "status", "{}");
    assert_int_equal(json_integer_value(member(answer, "error", "code")), LEASEFS_RPC_INVALID_REQUEST);
    json_decref(answer);
    answer = client_call(&client, "session", "{\"client\":\"test\",\"version\":2}");
    assert_int_equal(json_integer_value(member(answer, "error", "code")), LEASEFS_RPC_INVALID_PARAMS);
    json_decref(answer);
    answer = client_call(&client, "session", "{\"client\":\"test\",\"version\":1}");
    assert_int_equal(json_integer_value(member(answer, "result", "boot_epoch")), 42);
    assert_int_equal(json_integer_value(member(answer, "result", "block_size")), BLOCK);
    assert_int_equal(json_integer_value(member(answer, "result", "lease_time_ms")), 600000);
    json_decref(answer);
    answer = client_call(&client, "session", "{\"client\":\"test\",\"version\":1}");
    assert_int_equal(json_integer_value(member(answer, "error", "code")), LEASEFS_RPC_INVALID_REQUEST);
    json_decref(answer);
    client_hang_up(&client);
}

/* I6 */
static void a_client_that_is_gone_gives_everything_back(void **state)
{
    struct client client;

    (void)state;
    client_open(&client);
    client_lease(&client, "/a", "write");
    client_lease(&client, "/b", "read");
    client_result(&client, "create", "{\"path\":\"/new\",\"size\":4096}", "file");
    assert_int_equal(world.holds, 2);
    client_hang_up(&client);
    UNTIL(world.holds == 0 && world.exposures == 0 && world.pins == 0 && world.fabric_sessions == 0);
    assert_int_equal(world.committed, 1); /* the write lease's */
}

/* ---- leases ---- */

static void a_lease_is_granted_renewed_and_returned(void **state)
{
    struct client client, other;
    char params[64];
    json_t *answer;
    int64_t lease;

    (void)state;
    client_open(&client);
    client_open(&other);
    answer = client_call(&client, "lease", "{\"path\":\"/a\",\"mode\":\"write\",\"offset\":5000,\"length\":1}");
    lease = json_integer_value(member(answer, "result", "lease"));
    assert_int_equal(json_integer_value(member(answer, "result", "offset")), BLOCK); /* whole blocks */
    assert_int_equal(json_integer_value(member(answer, "result", "length")), BLOCK);
    assert_int_equal(json_integer_value(member(answer, "result", "remote_address")), BLOCK);
    assert_int_equal(json_integer_value(member(answer, "result", "rkey")), 7);
    assert_int_equal(json_integer_value(member(answer, "result", "sequence")), 1);
    json_decref(answer);
    snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)lease);
    client_result(&client, "renew", params, "lease_time_ms");
    client_result(&client, "commit", params, "data_version");
    /* Another session's lease is as good as none (I8). */
    client_refused(&other, "renew", params, "ENOENT", NULL);
    client_refused(&other, "commit", params, "ENOENT", NULL);
    client_refused(&other, "return", params, "ENOENT", NULL);
    client_result(&client, "return", params, NULL);
    /* The answer comes after the fence and all that follows it. */
    assert_int_equal(world.exposures, 0);
    assert_int_equal(world.holds, 0);
    client_refused(&client, "return", params, "ENOENT", NULL);
    client_hang_up(&client);
    client_hang_up(&other);
}

static void refusals_say_what_is_wrong_where_and_what_to_do(void **state)
{
    struct client client, holder;
    json_t *answer;

    (void)state;
    client_open(&client);
    client_open(&holder);
    answer = client_call(&client, "lease", "{\"path\":\"/hole\",\"mode\":\"read\"}");
    assert_int_equal(json_integer_value(json_object_get(member(answer, "error", "data"), "offset")), 2 * BLOCK);
    assert_int_equal(json_integer_value(json_object_get(member(answer, "error", "data"), "length")), BLOCK);
    expect_refusal(answer, "EPERM", LEASEFS_REASON_HOLE);
    client_refused(&client, "lease", "{\"path\":\"/secret\",\"mode\":\"read\"}", "EACCES", LEASEFS_REASON_PERMISSION);
    client_refused(&client, "lease", "{\"path\":\"/none\",\"mode\":\"read\"}", "ENOENT", NULL);
    client_refused(&client, "lease", "{\"path\":\"/a\",\"mode\":\"read\",\"offset\":99999}", "EINVAL",
                   LEASEFS_REASON_BEYOND_EOF);
    client_refused(&client, "lease", "{\"path\":\"/a\",\"mode\":\"read\",\"length\":99999}", "EPERM",
                   LEASEFS_REASON_BEYOND_EOF);
    client_refused(&client, "lease", "{\"file\":9,\"mode\":\"read\"}", "ENOENT", NULL);
    client_lease(&holder, "/a", "write");
    client_refused(&client, "lease", "{\"path\":\"/a\",\"mode\":\"read\",\"wait\":false}", "EBUSY",
                   LEASEFS_REASON_CONFLICT);
    assert_int_equal(world.holds, 1); /* nothing is left of what was refused */
    client_hang_up(&client);
    client_hang_up(&holder);
}

static void a_session_has_a_limited_number_of_leases(void **state)
{
    struct client client;

    (void)state;
    client_open(&client);
    for (int i = 0; i < 16; i++)
        client_lease(&client, "/a", "read");
    client_refused(&client, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}", "EMFILE", LEASEFS_REASON_LIMIT);
    client_hang_up(&client);
}

/* The limit on locked memory: as that on leased bytes, but it is the device that meets it. */
static void where_no_memory_can_be_locked_the_lease_renewed_least_recently_is_recalled(void **state)
{
    static const char wish[] = "{\"path\":\"/c\",\"mode\":\"read\",\"wait\":true}";
    struct client renewed, left, third;
    int64_t first, second;
    char params[64];

    (void)state;
    client_open(&renewed);
    client_open(&left);
    client_open(&third);
    first = client_lease(&renewed, "/a", "read");
    second = client_lease(&left, "/b", "read");
    snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)first);
    client_result(&renewed, "renew", params, "sequence");
    world.expose_error = -ENOMEM;
    client_refused(&third, "lease", "{\"path\":\"/c\",\"mode\":\"read\",\"wait\":false}", "ENOMEM", NULL);
    client_result(&left, "status", "{}", "uptime_ms"); /* who does not wait has nobody recalled */
    client_refused(&third, "lease", wish, "ENOMEM", NULL);
    json_decref(client_notice(&left, "recall", second));
    client_result(&renewed, "status", "{}", "uptime_ms"); /* one is enough, and this one is in use */
    client_return(&left, second);
    world.expose_error = 0;
    client_result(&third, "lease", wish, "lease");
    client_result(&renewed, "status", "{}", "uptime_ms");
    client_hang_up(&renewed);
    client_hang_up(&left);
    client_hang_up(&third);
}

static void without_a_device_leases_are_refused_with_what_to_do(void **state)
{
    struct lease_service_config config = world_config();
    struct client client;

    (void)state;
    config.exposure = NULL;
    world_start(&config);
    client_open(&client);
    client_refused(&client, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}", "ENODEV", LEASEFS_REASON_NO_DEVICE);
    client_refused(&client, "connect", "{}", "ENODEV", LEASEFS_REASON_NO_DEVICE);
    client_refused(&client, "probe", "{}", "ENODEV", LEASEFS_REASON_NO_DEVICE);
    client_result(&client, "prepare", "{\"path\":\"/a\"}", "length");
    client_hang_up(&client);
    world_end();
}

static void a_cookie_is_handed_out_as_hexadecimal_digits(void **state)
{
    struct client client;
    json_t *answer;

    (void)state;
    client_open(&client);
    answer = client_call(&client, "connect", "{}");
    assert_string_equal(json_string_value(member(answer, "result", "cookie")), "ab000000000000000000000000000000");
    assert_string_equal(json_string_value(member(answer, "result", "address")), "0.0.0.0");
    json_decref(answer);
    client_hang_up(&client);
}

/* ---- recalls ---- */

static void a_holder_is_told_of_a_recall_and_its_return_lets_the_local_write_go(void **state)
{
    struct client holder;
    struct local_op local = {0};
    json_t *notice;
    int64_t lease;

    (void)state;
    client_open(&holder);
    lease = client_lease(&holder, "/a", "write");
    assert_int_equal(local_write(&local, 1, 0, 1), -EINPROGRESS);
    notice = client_notice(&holder, "recall", lease);
    assert_int_equal(json_integer_value(member(notice, "params", "sequence")), 2);
    assert_true(json_integer_value(member(notice, "params", "deadline_ms")) > 500000);
    json_decref(notice);
    client_return(&holder, lease);
    UNTIL(local.resumed == 1);
    assert_int_equal(local_write(&local, 1, 0, 1), 0);
    lease_op_end(the_table(), &local.waiter);
    client_hang_up(&holder);
}

static void a_recall_that_nobody_waits_for_any_more_is_taken_back(void **state)
{
    struct client holder;
    struct local_op local = {0};
    int64_t lease;

    (void)state;
    client_open(&holder);
    lease = client_lease(&holder, "/a", "write");
    assert_int_equal(local_write(&local, 1, 0, 1), -EINPROGRESS);
    json_decref(client_notice(&holder, "recall", lease));
    assert_true(lease_waiter_cancel(the_table(), &local.waiter, now_ns()));
    json_decref(client_notice(&holder, "recall_cancelled", lease));
    client_return(&holder, lease);
    client_hang_up(&holder);
}

/* I4 */
static void a_silent_holder_is_revoked_at_the_deadline_and_told_so(void **state)
{
    struct lease_service_config config = world_config();
    struct client holder;
    struct local_op local = {0};
    json_t *notice;
    int64_t lease;

    (void)state;
    config.limits.recall_timeout_ns = 100 * MS;
    world_start(&config);
    client_open(&holder);
    lease = client_lease(&holder, "/a", "read");
    assert_int_equal(local_write(&local, 1, 0, 1), -EINPROGRESS);
    json_decref(client_notice(&holder, "recall", lease));
    notice = client_notice(&holder, "revoked", lease);
    assert_string_equal(json_string_value(member(notice, "params", "reason")), "recall-timeout");
    json_decref(notice);
    assert_int_equal(local.resumed, 1);
    assert_int_equal(local_write(&local, 1, 0, 1), 0);
    lease_op_end(the_table(), &local.waiter);
    client_hang_up(&holder);
    world_end();
}

/* Nothing but the clock wakes the service for it; each expires later than the one before. */
static void leases_that_nobody_renews_expire_one_after_the_other(void **state)
{
    struct lease_service_config config = world_config();
    struct client holder;

    (void)state;
    config.limits.lease_time_ns = 50 * MS;
    world_start(&config);
    client_open(&holder);
    for (int i = 0; i < 3; i++) {
        int64_t lease = client_lease(&holder, "/a", "read");
        json_t *notice = client_notice(&holder, "revoked", lease);

        assert_string_equal(json_string_value(member(notice, "params", "reason")), "expired");
        json_decref(notice);
    }
    client_hang_up(&holder);
    world_end();
}

static void recall_while_granting(struct world *w, uint64_t first_byte)
{
    struct lease_range range = {first_byte, BLOCK};

    w->on_expose = NULL;
    assert_int_equal(lease_op_begin(the_table(), 1, range, LEASE_OP_DROP, now_ns(), NULL), -EAGAIN);
}

static void a_recall_that_meets_a_grant_is_told_after_the_grant(void **state)
{
    struct client client;
    int64_t lease;

    (void)state;
    client_open(&client);
    world.on_expose = recall_while_granting;
    lease = client_lease(&client, "/a", "read");
    json_decref(client_notice(&client, "recall", lease));
    client_return(&client, lease);
    client_hang_up(&client);
}

/* It is asked for the attributes between the grant and its answer. */
static void revoke_before_the_answer(struct world *w, uint64_t inode)
{
    struct lease_info info;

    (void)inode;
    if (lease_list(the_table(), 0, &info, 1) == 0)
        return;
    w->on_getattr = NULL;
    assert_int_equal(lease_revoke(the_table(), info.lease_id, now_ns()), 0);
    UNTIL(lease_list(the_table(), 0, NULL, 0) == 0);
}

static void a_revocation_that_meets_a_grant_is_told_after_the_grant(void **state)
{
    struct client client;
    json_t *notice;
    int64_t lease;

    (void)state;
    client_open(&client);
    world.on_getattr = revoke_before_the_answer;
    lease = client_lease(&client, "/a", "read");
    notice = client_notice(&client, "revoked", lease);
    assert_string_equal(json_string_value(member(notice, "params", "reason")), "revoked");
    json_decref(notice);
    client_hang_up(&client);
}

static void a_lease_that_wishes_so_is_orphaned_and_told_where(void **state)
{
    struct client holder;
    struct local_op local = {0};
    json_t *notice;
    int64_t lease;

    (void)state;
    client_open(&holder);
    lease = client_result(&holder, "lease", "{\"path\":\"/a\",\"mode\":\"read\",\"policy\":\"orphan\"}", "lease");
    assert_int_equal(local_write(&local, 1, 0, 1), 0);
    notice = client_notice(&holder, "orphaned", lease);
    assert_int_equal(json_integer_value(member(notice, "params", "sequence")), 2);
    assert_int_equal(json_integer_value(member(notice, "params", "offset")), 0);
    assert_int_equal(json_integer_value(member(notice, "params", "length")), BLOCK);
    json_decref(notice);
    assert_int_equal(local_write(&local, 1, 0, 1), 0); /* no news: the next message is the answer */
    client_return(&holder, lease);
    client_hang_up(&holder);
}

static void an_administrator_revokes_any_lease(void **state)
{
    struct client holder, admin;
    char params[64];
    int64_t lease;

    (void)state;
    client_open(&holder);
    client_open(&admin);
    lease = client_lease(&holder, "/a", "write");
    snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)lease);
    client_result(&admin, "revoke", params, "lease");
    json_decref(client_notice(&holder, "revoked", lease));
    client_refused(&holder, "renew", params, "ENOENT", NULL);
    client_refused(&admin, "revoke", params, "ENOENT", NULL);
    client_hang_up(&holder);
    client_hang_up(&admin);
}

/* I1, I2: without a proof nothing is released, and the file's bytes count as changed. */
static void without_a_proven_fence_the_blocks_stay_held_and_the_file_counts_as_written(void **state)
{
    struct client holder;
    struct lease_info info;
    int64_t lease;

    (void)state;
    client_open(&holder);
    lease = client_lease(&holder, "/a", "write");
    world.fence_error = -ETIMEDOUT;
    client_return(&holder, lease);
    assert_int_equal(world.holds, 1);
    assert_int_equal(world.detached, 1);
    assert_int_equal(world.committed, 1);
    assert_int_equal(lease_get(the_table(), (uint64_t)lease, &info), 0);
    assert_int_equal(info.state, LEASE_QUARANTINED);
    world.fence_error = 0;
    client_hang_up(&holder);
}

/* ---- waiting ---- */

/* What a client asks for that a write lease on /a keeps waiting. */
static void whoever_waits_and_dies_lets_the_holder_keep_its_lease(void **state)
{
    static const struct {
        const char *method, *params;
    } requests[] = {
        {"lease", "{\"path\":\"/a\",\"mode\":\"read\"}"},
        {"lease", "{\"path\":\"/a\",\"mode\":\"write\",\"prepare\":true}"},
        {"prepare", "{\"path\":\"/a\",\"mode\":\"write\"}"},
        {"clone", "{\"source\":\"/a\",\"destination\":\"/b\"}"},
        {"clone", "{\"source\":\"/b\",\"destination\":\"/a\"}"},
        {"publish", "{\"file\":1,\"path\":\"/a\"}"},
    };
    struct client holder, dying;
    int64_t lease;

    (void)state;
    client_open(&holder);
    lease = client_lease(&holder, "/a", "write");
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        client_open(&dying);
        client_result(&dying, "create", "{\"path\":\"/new\",\"size\":4096}", "file");
        client_send(&dying, requests[i].method, requests[i].params);
        json_decref(client_notice(&holder, "recall", lease));
        client_hang_up(&dying);
        json_decref(client_notice(&holder, "recall_cancelled", lease));
    }
    assert_int_equal(world.published, 0);
    client_hang_up(&holder);
}

static void a_parked_request_is_carried_out_when_the_lease_is_back(void **state)
{
    struct client holder, waiting;
    int64_t lease, file;
    char params[64];
    json_t *answer;
    int id;

    (void)state;
    client_open(&holder);
    client_open(&waiting);
    lease = client_lease(&holder, "/a", "write");
    file = client_result(&waiting, "create", "{\"path\":\"/a\",\"size\":4096}", "file");
    snprintf(params, sizeof(params), "{\"file\":%lld,\"path\":\"/a\"}", (long long)file);
    id = client_send(&waiting, "publish", params);
    json_decref(client_notice(&holder, "recall", lease));
    client_result(&waiting, "status", "{}", "uptime_ms"); /* others of the same client are served meanwhile */
    client_return(&holder, lease);
    answer = client_answer(&waiting, id);
    assert_non_null(json_object_get(answer, "result"));
    json_decref(answer);
    assert_int_equal(world.published, 1);
    client_hang_up(&holder);
    client_hang_up(&waiting);
}

static void the_service_stops_while_clients_hold_and_wait(void **state)
{
    struct client holder, waiting;
    int64_t lease;

    (void)state;
    client_open(&holder);
    client_open(&waiting);
    lease = client_lease(&holder, "/a", "write");
    client_send(&waiting, "clone", "{\"source\":\"/a\",\"destination\":\"/b\"}");
    json_decref(client_notice(&holder, "recall", lease));
    lease_service_stop(world.service); /* and once more in teardown(): nothing is left to do */
    assert_int_equal(world.holds, 0);
    client_hang_up(&holder);
    client_hang_up(&waiting);
}

static void commits_are_checked(void **state)
{
    struct client client;
    char params[64];
    int64_t lease;

    (void)state;
    client_open(&client);
    lease = client_lease(&client, "/a", "read");
    snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)lease);
    client_refused(&client, "commit", params, "EBADF", NULL);
    client_return(&client, lease);
    client_refused(&client, "commit", params, "ENOENT", NULL);
    lease = client_lease(&client, "/b", "write");
    snprintf(params, sizeof(params), "{\"lease\":%lld,\"size\":%llu}", (long long)lease,
             (unsigned long long)(FILE_BLOCKS * BLOCK + 1));
    client_refused(&client, "commit", params, "EINVAL", NULL);
    client_hang_up(&client);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(nothing_is_done_before_a_session_is_opened_and_it_is_opened_once),
        STORY(a_client_that_is_gone_gives_everything_back),
        STORY(a_lease_is_granted_renewed_and_returned),
        STORY(refusals_say_what_is_wrong_where_and_what_to_do),
        STORY(a_session_has_a_limited_number_of_leases),
        STORY(where_no_memory_can_be_locked_the_lease_renewed_least_recently_is_recalled),
        cmocka_unit_test(without_a_device_leases_are_refused_with_what_to_do),
        STORY(a_cookie_is_handed_out_as_hexadecimal_digits),
        STORY(a_holder_is_told_of_a_recall_and_its_return_lets_the_local_write_go),
        STORY(a_recall_that_nobody_waits_for_any_more_is_taken_back),
        cmocka_unit_test(a_silent_holder_is_revoked_at_the_deadline_and_told_so),
        cmocka_unit_test(leases_that_nobody_renews_expire_one_after_the_other),
        STORY(a_recall_that_meets_a_grant_is_told_after_the_grant),
        STORY(a_revocation_that_meets_a_grant_is_told_after_the_grant),
        STORY(a_lease_that_wishes_so_is_orphaned_and_told_where),
        STORY(an_administrator_revokes_any_lease),
        STORY(without_a_proven_fence_the_blocks_stay_held_and_the_file_counts_as_written),
        STORY(whoever_waits_and_dies_lets_the_holder_keep_its_lease),
        STORY(a_parked_request_is_carried_out_when_the_lease_is_back),
        STORY(the_service_stops_while_clients_hold_and_wait),
        STORY(commits_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
