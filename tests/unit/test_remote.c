/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: security */
/* Remote clients with a key, at the real service's TCP port on the loopback interface: what they get, and their limits.
 */
#include "remote_fixture.h"

static void who_has_a_key_is_served_as_its_user(void **state)
{
    struct remote_client client;
    json_t *message, *session;
    int64_t lease;
    char params[64];

    (void)state;
    open_session(&client, "a", KEY_A);
    lease = result(&client, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}", "lease");
    message = ask(&client, "status", "{}");
    session = json_array_get(member(message, "result", "sessions"), 0);
    assert_string_equal(json_string_value(json_object_get(session, "key")), "a");
    assert_int_equal(json_integer_value(json_object_get(session, "uid")), getuid());
    assert_int_equal(json_integer_value(json_object_get(session, "pid")), 0);
    json_decref(message);
    snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)lease);
    result(&client, "return", params, "lease");
    result(&client, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}", "lease");
    hang_up(&client); /* its lease ends with the connection */
    UNTIL(world.holds == 0);
}

static int start_on_every_address(void **state)
{
    (void)state;
    start_at("[::]:0", (struct remote_limits){0});
    return 0;
}

static void the_fabric_is_told_which_address_a_client_came_to(void **state)
{
    static const struct {
        const char *host, *address;
    } ways[] = {{"127.0.0.1", "127.0.0.1"}, {"127.0.0.2", "127.0.0.2"}, {"[::1]", "::1"}};

    (void)state;
    for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
        struct remote_client client;

        if (try_dial_at(ways[i].host, &client, "a", KEY_A))
            fail_msg("%s: %s", ways[i].host, leasefs_error());
        result(&client, "session", "{\"client\":\"test\",\"version\":1}", "session");
        expect_reached(ways[i].address);
        hang_up(&client);
    }
}

static void the_library_says_what_is_wrong(void **state)
{
    struct remote_client client;
    struct channel *channel;

    (void)state;
    assert_int_equal(try_dial(&client, "a", KEY_X), -EACCES);
    assert_non_null(strstr(leasefs_error(), "does not take this key"));
    assert_int_equal(channel_open_tls("127.0.0.1:1", client_path, &channel), -ECONNREFUSED);
    assert_int_equal(channel_open_tls("no host", client_path, &channel), -EHOSTUNREACH);
    assert_int_equal(channel_open_tls("127.0.0.1:x", client_path, &channel), -EINVAL);
    assert_int_equal(channel_open_tls("127.0.0.1", "/nonexistent", &channel), -ENOENT);
    assert_non_null(strstr(leasefs_error(), "leasectl key new"));
    assert_int_equal(chmod(client_path, 0644), 0);
    assert_int_equal(channel_open_tls("127.0.0.1", client_path, &channel), -EACCES);
    assert_non_null(strstr(leasefs_error(), "chmod 600"));
}

static void a_message_without_end_ends_the_connection(void **state)
{
    static char bytes[LEASEFS_MAX_MESSAGE];
    struct remote_client client;
    json_t *message;

    (void)state;
    open_session(&client, "a", KEY_A);
    memset(bytes, '{', sizeof(bytes));
    assert_int_equal(channel_send(client.channel, bytes, sizeof(bytes)), 0);
    message = hear(&client);
    assert_non_null(message);
    assert_int_equal(json_integer_value(member(message, "error", "code")), LEASEFS_RPC_INVALID_REQUEST);
    json_decref(message);
    assert_null(hear(&client));
    hang_up(&client);
    UNTIL(count_sessions() == 1);
}

static void a_message_in_pieces_is_one(void **state)
{
    static const char line[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}\n{\"jsonrpc\":\"2.0\",\"id\":2,"
                               "\"method\":\"status\"}\n";
    struct remote_client client;
    json_t *message;

    (void)state;
    open_session(&client, "a", KEY_A);
    for (size_t i = 0; i < sizeof(line) - 1; i++)
        assert_int_equal(channel_send(client.channel, line + i, 1), 0);
    for (int i = 1; i <= 2; i++) {
        message = hear(&client);
        assert_non_null(json_object_get(message, "result"));
        json_decref(message);
    }
    hang_up(&client);
}

static void who_does_not_read_is_dropped(void **state)
{
    static char line[LEASEFS_MAX_MESSAGE - 1]; /* whose answer is as long as it is: the id comes back */
    struct remote_client client;
    uint64_t until = now_ns() + PATIENCE_MS * MS;
    char end_of_id[] = "\",\"method\":\"none\"}\n";
    int length = snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":\""), status = 0;

    (void)state;
    open_session(&client, "a", KEY_A);
    memset(line + length, 'x', sizeof(line) - (size_t)length);
    memcpy(line + sizeof(line) - (sizeof(end_of_id) - 1), end_of_id, sizeof(end_of_id) - 1);
    while (!status) {
        status = channel_send(client.channel, line, sizeof(line));
        assert_true(now_ns() < until);
    }
    UNTIL(count_sessions() == 1);
    hang_up(&client);
}

static int start_with_few_places(void **state)
{
    (void)state;
    start((struct remote_limits){.sessions = 3, .key_sessions = 2});
    return 0;
}

static void expect_no_place(const char *name, const char *key)
{
    struct remote_client client;
    json_t *message;

    dial(&client, name, key);
    message = hear(&client);
    assert_non_null(message);
    expect_refusal(message, "EMFILE", LEASEFS_REASON_LIMIT);
    assert_null(hear(&client));
    hang_up(&client);
}

static void sessions_are_limited_by_key_and_in_all(void **state)
{
    struct remote_client a[2], b;
    struct client local;

    (void)state;
    open_session(&a[0], "a", KEY_A);
    open_session(&a[1], "a", KEY_A);
    expect_no_place("a", KEY_A);
    open_session(&b, "b", KEY_B);
    expect_no_place("b", KEY_B);
    client_open(&local); /* the Unix socket has places of its own */
    hang_up(&a[0]);
    UNTIL(count_sessions() == 4);
    open_session(&a[0], "a", KEY_A);
    hang_up(&a[0]);
    hang_up(&a[1]);
    hang_up(&b);
    client_hang_up(&local);
}

static int start_with_short_patience(void **state)
{
    (void)state;
    start((struct remote_limits){.idle_ms = 300});
    return 0;
}

static void who_says_nothing_for_long_is_dropped(void **state)
{
    struct remote_client client;

    (void)state;
    open_session(&client, "a", KEY_A);
    assert_null(hear(&client));
    hang_up(&client);
    assert_int_equal(count_sessions(), 1); /* the bystander may be silent as long as it likes */
}

/* ---- least privilege ---- */

static void a_key_sees_and_revokes_only_what_is_its_own(void **state)
{
    struct remote_client a, other_a, b;
    int64_t of_local, of_a;
    char params[64];
    json_t *message;

    (void)state;
    of_local = client_lease(&bystander, "/a", "read");
    open_session(&a, "a", KEY_A);
    open_session(&other_a, "a", KEY_A);
    open_session(&b, "b", KEY_B);
    of_a = result(&a, "lease", "{\"path\":\"/b\",\"mode\":\"read\"}", "lease");
    message = ask(&b, "status", "{}");
    assert_int_equal(json_array_size(member(message, "result", "sessions")), 1);
    assert_int_equal(json_array_size(member(message, "result", "leases")), 0);
    assert_null(member(message, "result", "fabric"));
    json_decref(message);
    message = ask(&other_a, "status", "{}");
    assert_int_equal(json_array_size(member(message, "result", "sessions")), 2);
    assert_int_equal(json_array_size(member(message, "result", "leases")), 1);
    json_decref(message);
    snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)of_local);
    expect_refusal(ask(&a, "revoke", params), "EPERM", LEASEFS_REASON_PERMISSION); /* though its uid is the daemon's */
    snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)of_a);
    expect_refusal(ask(&b, "revoke", params), "EPERM", LEASEFS_REASON_PERMISSION);
    result(&other_a, "revoke", params, "lease");
    message = hear(&a);
    assert_string_equal(json_string_value(json_object_get(message, "method")), LEASEFS_NOTIFY_REVOKED);
    json_decref(message);
    hang_up(&a);
    hang_up(&other_a);
    hang_up(&b);
    client_return(&bystander, of_local);
}

/* ---- keys that change ---- */

static void reload(int wanted, const char *says)
{
    char *why = NULL;

    assert_int_equal(lease_service_reload_keys(world.service, &why), wanted);
    if (says && (!why || !strstr(why, says)))
        fail_msg("'%s' does not say '%s'", why ? why : "", says);
    free(why);
}

static void a_key_that_is_gone_or_has_changed_ends_its_sessions(void **state)
{
    struct remote_client a, b;

    (void)state;
    open_session(&a, "a", KEY_A);
    open_session(&b, "b", KEY_B);
    result(&a, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}", "lease");
    reload(0, NULL); /* the same keys: nobody notices */
    result(&a, "lease", "{\"path\":\"/b\",\"mode\":\"read\"}", "lease");
    write_keys(NULL, KEY_B, "/");
    reload(0, NULL);
    assert_null(hear(&a));
    hang_up(&a);
    UNTIL(world.holds == 0);
    assert_int_equal(try_dial(&a, "a", KEY_A), -EACCES);
    result(&b, "status", "{}", "uptime_ms");
    write_keys(KEY_A, KEY_X, "/a"); /* b has another key, a is back */
    reload(0, NULL);
    assert_null(hear(&b));
    hang_up(&b);
    open_session(&a, "a", KEY_A);
    write_keys(KEY_A, KEY_X, "/a:ro"); /* another export is another client */
    reload(0, NULL);
    assert_null(hear(&a));
    hang_up(&a);
}

static void an_error_in_the_new_file_keeps_the_old_keys(void **state)
{
    struct remote_client a;

    (void)state;
    open_session(&a, "a", KEY_A);
    write_file(keys_path, "[client a]\nkey = oops\n", 0600);
    reload(-EINVAL, "line 2");
    write_file(keys_path, "", 0644);
    reload(-EACCES, "chmod 600");
    unlink(keys_path);
    reload(-ENOENT, keys_path);
    result(&a, "status", "{}", "uptime_ms");
    hang_up(&a);
    open_session(&a, "a", KEY_A);
    hang_up(&a);
}

static void no_start_without_keys(void **state)
{
    static const char *const listen[] = {"127.0.0.1:0"}, *const nonsense[] = {"127.0.0.1:port"};
    struct lease_service_config config = world_config();
    struct lease_service *service = NULL;
    char *why = NULL;

    (void)state;
    config.listen = listen;
    config.n_listen = 1;
    config.keys_path = "/nonexistent";
    assert_int_equal(lease_service_new(&config, &service, &why), -ENOENT);
    free(why);
    snprintf(keys_path, sizeof(keys_path), "test_remote.%d.keys", (int)getpid());
    write_keys(KEY_A, NULL, "/");
    config.keys_path = keys_path;
    config.listen = nonsense;
    assert_int_equal(lease_service_new(&config, &service, &why), -EINVAL);
    free(why);
    assert_int_equal(access(world.path, F_OK), -1); /* nothing is left */
    unlink(keys_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(who_has_a_key_is_served_as_its_user),
        STORY_OF(the_fabric_is_told_which_address_a_client_came_to, start_on_every_address),
        STORY(the_library_says_what_is_wrong),
        STORY(a_message_without_end_ends_the_connection),
        STORY(a_message_in_pieces_is_one),
        STORY(who_does_not_read_is_dropped),
        STORY_OF(sessions_are_limited_by_key_and_in_all, start_with_few_places),
        STORY_OF(who_says_nothing_for_long_is_dropped, start_with_short_patience),
        STORY(a_key_sees_and_revokes_only_what_is_its_own),
        STORY(a_key_that_is_gone_or_has_changed_ends_its_sessions),
        STORY(an_error_in_the_new_file_keeps_the_old_keys),
        cmocka_unit_test(no_start_without_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
