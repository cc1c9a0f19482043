/* SPDX-License-Identifier: BSD-2-Clause */
/* Partial returns and downgrades, as clients live them. */
#include "service_fixture.h"

/* A fence that lasts until the test lets it go. */
static atomic_int fences_wait, fences_came;

static void wait_at_the_fence(struct world *w)
{
    (void)w;
    fences_came++;
    UNTIL(!fences_wait);
}

static const char *said(const char *format, ...)
{
    static char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return text;
}

#define PART(lease, first, count)                                                                                      \
    said("{\"lease\":%lld,\"offset\":%llu,\"length\":%llu}", (long long)(lease), (first)*BLOCK, (count)*BLOCK)

/* The answer keeps these pieces, {first, count} each; their numbers. */
static void expect_kept(json_t *answer, size_t n, const uint64_t pieces[][2], int64_t *leases)
{
    json_t *kept = member(answer, "result", "kept");

    if (!json_is_array(kept))
        fail_msg("%s", json_dumps(answer, 0));
    assert_int_equal(json_array_size(kept), n);
    for (size_t i = 0; i < n; i++) {
        json_t *piece = json_array_get(kept, i);

        assert_int_equal(json_integer_value(json_object_get(piece, "offset")), pieces[i][0] * BLOCK);
        assert_int_equal(json_integer_value(json_object_get(piece, "length")), pieces[i][1] * BLOCK);
        assert_int_equal(json_integer_value(json_object_get(piece, "remote_address")), pieces[i][0] * BLOCK);
        leases[i] = json_integer_value(json_object_get(piece, "lease"));
    }
    json_decref(answer);
}

static const uint64_t NOTHING[1][2] = {{0, 0}};

static void a_part_is_returned_and_the_rest_has_new_keys(void **state)
{
    static const uint64_t both[2][2] = {{0, 2}, {4, 4}};
    struct client client;
    int64_t lease, kept[2];
    json_t *answer;

    (void)state;
    client_open(&client);
    lease = client_lease(&client, "/a", "write");
    answer = client_call(&client, "return", PART(lease, 2, 2));
    assert_int_equal(json_integer_value(json_object_get(json_array_get(member(answer, "result", "kept"), 0), "rkey")),
                     8);
    assert_int_equal(
        json_integer_value(json_object_get(json_array_get(member(answer, "result", "kept"), 0), "sequence")), 2);
    assert_int_equal(
        json_integer_value(json_object_get(json_array_get(member(answer, "result", "kept"), 1), "sequence")), 1);
    expect_kept(answer, 2, both, kept);
    assert_int_equal(kept[0], lease);
    assert_int_not_equal(kept[1], lease);
    assert_int_equal(world.exposures, 2); /* the old one is gone before the answer */
    assert_int_equal(world.holds, 2);
    assert_int_equal(world.committed, 1); /* mtime and data version, as at the return of all */
    client_result(&client, "renew", said("{\"lease\":%lld}", (long long)kept[1]), "lease_time_ms");
    client_return(&client, kept[0]);
    client_return(&client, kept[1]);
    assert_int_equal(world.exposures, 0);
    client_hang_up(&client);
}

/* Whole blocks: what is asked to be given back is rounded inwards. */
static void what_is_given_back_is_what_the_message_covers_of_whole_blocks(void **state)
{
    static const struct {
        const char *params;
        size_t n;
        uint64_t kept[2][2];
    } table[] = {
        {"\"offset\":0,\"length\":4095", 1, {{0, 8}}},
        {"\"offset\":1,\"length\":8190", 1, {{0, 8}}},
        {"\"offset\":1,\"length\":8191", 2, {{0, 1}, {2, 6}}},
        {"\"offset\":4097", 1, {{0, 2}}},
        {"\"length\":8192", 1, {{2, 6}}},
        {"\"offset\":32768", 1, {{0, 8}}},
        {"\"offset\":0", 0, {{0, 0}}},
        {"\"offset\":0,\"length\":9223372036854775807", 0, {{0, 0}}},
        {"\"mode\":\"write\"", 1, {{0, 8}}},
        {"\"mode\":\"read\"", 1, {{0, 8}}},
        {"\"mode\":\"read\",\"offset\":4096,\"length\":4096", 2, {{0, 1}, {2, 6}}},
    };
    struct client client;
    int64_t kept[2];

    (void)state;
    client_open(&client);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        int64_t lease = client_lease(&client, "/a", "write");

        expect_kept(client_call(&client, "return", said("{\"lease\":%lld,%s}", (long long)lease, table[i].params)),
                    table[i].n, table[i].kept, kept);
        for (size_t j = 0; j < table[i].n; j++)
            client_return(&client, kept[j]);
    }
    client_hang_up(&client);
}

static void wrong_parts_are_refused_and_change_nothing(void **state)
{
    static const char *const wrong[] = {
        "\"offset\":-1",     "\"offset\":1,\"length\":9223372036854775807", "\"length\":\"all\"",
        "\"mode\":\"both\"", "\"offset\":4096,\"length\":4096,\"mode\":7",
    };
    static const uint64_t all[1][2] = {{0, 8}};
    struct client client, other;
    int64_t lease, kept[2];

    (void)state;
    client_open(&client);
    client_open(&other);
    lease = client_lease(&client, "/a", "read");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        json_t *answer = client_call(&client, "return", said("{\"lease\":%lld,%s}", (long long)lease, wrong[i]));

        assert_int_equal(json_integer_value(member(answer, "error", "code")), LEASEFS_RPC_INVALID_PARAMS);
        json_decref(answer);
    }
    client_refused(&client, "return", said("{\"lease\":%lld,\"mode\":\"write\"}", (long long)lease), "EPERM", NULL);
    client_refused(&client, "return", said("{\"lease\":%lld,\"sequence\":2,\"length\":4096}", (long long)lease),
                   "EINVAL", NULL);
    client_refused(&client, "return", said("{\"lease\":%lld,\"sequence\":2,\"length\":0}", (long long)lease), "EINVAL",
                   NULL);
    client_refused(&other, "return", PART(lease, 0, 1), "ENOENT", NULL); /* I8 */
    expect_kept(client_call(&client, "return", PART(lease, 0, 0)), 1, all, kept);
    assert_int_equal(kept[0], lease);
    assert_int_equal(world.n_exposed, 1); /* it is the first exposure still */
    client_hang_up(&client);
    client_hang_up(&other);
}

static void the_wanted_part_is_returned_and_the_waiter_goes_on(void **state)
{
    static const uint64_t both[2][2] = {{0, 4}, {6, 2}};
    struct client client;
    struct local_op writer = {0};
    int64_t lease, kept[2];
    json_t *notice;

    (void)state;
    client_open(&client);
    lease = client_lease(&client, "/a", "write");
    assert_int_equal(local_write(&writer, 1, 4, 2), -EINPROGRESS);
    notice = client_notice(&client, "recall", lease);
    assert_int_equal(json_integer_value(member(notice, "params", "offset")), 4 * BLOCK);
    assert_int_equal(json_integer_value(member(notice, "params", "length")), 2 * BLOCK);
    json_decref(notice);
    expect_kept(client_call(&client, "return", PART(lease, 4, 2)), 2, both, kept);
    UNTIL(writer.resumed == 1);
    assert_int_equal(local_write(&writer, 1, 4, 2), 0);
    lease_op_end(the_table(), &writer.waiter);
    client_result(&client, "status", "{}", NULL); /* no further notice came */
    client_hang_up(&client);
}

/* News of what is kept come after the answer that says what it is. */
static void a_recall_of_what_is_kept_follows_the_answer(void **state)
{
    static const uint64_t rest[1][2] = {{4, 4}};
    struct client client;
    struct local_op early = {0}, meanwhile = {0};
    int64_t lease, kept[2];
    int id;

    (void)state;
    fences_wait = 1;
    fences_came = 0;
    world.on_fence = wait_at_the_fence;
    client_open(&client);
    lease = client_lease(&client, "/a", "write");
    assert_int_equal(local_write(&early, 1, 2, 4), -EINPROGRESS);
    json_decref(client_notice(&client, "recall", lease));
    id = client_send(&client, "return", PART(lease, 0, 4));
    UNTIL(fences_came == 1);
    assert_int_equal(local_write(&meanwhile, 1, 7, 1), -EINPROGRESS);
    fences_wait = 0;
    expect_kept(client_answer(&client, id), 1, rest, kept);
    json_decref(client_notice(&client, "recall", lease));
    client_return(&client, lease);
    UNTIL(early.resumed == 1 && meanwhile.resumed == 1);
    lease_op_end(the_table(), &early.waiter);
    lease_op_end(the_table(), &meanwhile.waiter);
    client_hang_up(&client);
}

static void returns_that_come_meanwhile_wait_and_are_carried_out_in_order(void **state)
{
    static const uint64_t first[1][2] = {{2, 6}}, third[1][2] = {{4, 4}};
    struct client client;
    int64_t lease, kept[2];
    int ids[5];

    (void)state;
    fences_wait = 1;
    fences_came = 0;
    world.on_fence = wait_at_the_fence;
    client_open(&client);
    lease = client_lease(&client, "/a", "write");
    ids[0] = client_send(&client, "return", PART(lease, 0, 2));
    UNTIL(fences_came == 1);
    ids[1] = client_send(&client, "return", PART(lease, 0, 2)); /* twice */
    ids[2] = client_send(&client, "return", PART(lease, 2, 2));
    client_result(&client, "renew", said("{\"lease\":%lld}", (long long)lease), "lease_time_ms"); /* late */
    ids[3] = client_send(&client, "return", said("{\"lease\":%lld,\"sequence\":1}", (long long)lease));
    ids[4] = client_send(&client, "return", said("{\"lease\":%lld,\"sequence\":1}", (long long)lease));
    fences_wait = 0;
    expect_kept(client_answer(&client, ids[0]), 1, first, kept);
    assert_int_equal(kept[0], lease);
    expect_kept(client_answer(&client, ids[1]), 1, first, kept);
    expect_kept(client_answer(&client, ids[2]), 1, third, kept);
    for (int i = 3; i < 5; i++) { /* both wait for the same end, and either is answered first, or the second is late */
        json_t *answer = client_hear(&client);

        assert_true(json_integer_value(json_object_get(answer, "id")) >= ids[3]);
        if (json_object_get(answer, "error"))
            expect_refusal(answer, "ENOENT", NULL);
        else
            expect_kept(answer, 0, NOTHING, kept);
    }
    assert_int_equal(world.exposures, 0);
    client_hang_up(&client);
}

/* The answers to these requests, in whatever order they come. */
static void collect(struct client *client, size_t n, const int *ids, json_t **answers)
{
    for (size_t i = 0; i < n; i++) {
        json_t *answer = client_hear(client);
        size_t which = 0;

        while (which < n && json_integer_value(json_object_get(answer, "id")) != ids[which])
            which++;
        assert_true(which < n);
        answers[which] = answer;
    }
}

/* A commit that meets a cut is about what is kept. */
static void a_commit_waits_for_the_cut(void **state)
{
    static const uint64_t front[1][2] = {{0, 4}};
    struct client client;
    int64_t lease, kept[2];
    json_t *answers[3];
    int ids[3];

    (void)state;
    fences_wait = 1;
    fences_came = 0;
    world.on_fence = wait_at_the_fence;
    client_open(&client);
    lease = client_lease(&client, "/a", "write");
    ids[0] = client_send(&client, "return", PART(lease, 4, 4));
    UNTIL(fences_came == 1);
    ids[1] = client_send(&client, "commit", said("{\"lease\":%lld}", (long long)lease));
    ids[2] = client_send(&client, "commit", said("{\"lease\":%lld,\"size\":%llu}", (long long)lease, 8 * BLOCK));
    client_result(&client, "status", "{}", NULL); /* neither was answered */
    fences_wait = 0;
    collect(&client, 3, ids, answers);
    expect_kept(answers[0], 1, front, kept);
    assert_non_null(member(answers[1], "result", "data_version"));
    json_decref(answers[1]);
    expect_refusal(answers[2], "EINVAL", NULL); /* that size is in the part that was given back */
    client_return(&client, lease);
    client_hang_up(&client);
}

static void a_commit_whose_lease_is_lost_in_the_cut_is_refused(void **state)
{
    struct client client;
    int64_t lease;
    json_t *answers[2];
    int ids[2];

    (void)state;
    fences_wait = 1;
    fences_came = 0;
    world.on_fence = wait_at_the_fence;
    client_open(&client);
    lease = client_lease(&client, "/a", "write");
    ids[0] = client_send(&client, "return", PART(lease, 4, 4));
    UNTIL(fences_came == 1);
    ids[1] = client_send(&client, "commit", said("{\"lease\":%lld}", (long long)lease));
    client_result(&client, "status", "{}", NULL);
    world.expose_error = -ENOMEM;
    fences_wait = 0;
    collect(&client, 2, ids, answers);
    expect_refusal(answers[0], "ENOMEM", NULL);
    expect_refusal(answers[1], "ENOENT", NULL);
    client_hang_up(&client);
}

static void a_lease_that_ends_is_not_returned_without_end(void **state)
{
    enum { MANY = 40 };
    struct client client;
    int64_t lease;
    int refused = 0, ids[MANY];

    (void)state;
    fences_wait = 1;
    fences_came = 0;
    world.on_fence = wait_at_the_fence;
    client_open(&client);
    lease = client_lease(&client, "/a", "write");
    for (int i = 0; i < MANY; i++)
        ids[i] = client_send(&client, "return", said("{\"lease\":%lld}", (long long)lease));
    for (; refused < MANY - 8; refused++) /* eight wait for its end; the others are told so at once */
        expect_refusal(client_answer(&client, ids[8 + refused]), "EAGAIN", LEASEFS_REASON_LIMIT);
    fences_wait = 0;
    for (int i = 0; i < 8; i++) {
        json_t *answer = client_hear(&client);

        assert_true(json_integer_value(json_object_get(answer, "id")) <= ids[7]);
        expect_kept(answer, 0, NOTHING, NULL);
    }
    client_hang_up(&client);
}

static void a_downgrade_lets_readers_in(void **state)
{
    static const uint64_t all[1][2] = {{0, 8}};
    struct client writer, reader;
    int64_t lease, kept[2];
    json_t *answer;
    int id;

    (void)state;
    client_open(&writer);
    client_open(&reader);
    lease = client_lease(&writer, "/a", "write");
    id = client_send(&reader, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}");
    json_decref(client_notice(&writer, "recall", lease));
    answer = client_call(&writer, "return", said("{\"lease\":%lld,\"mode\":\"read\"}", (long long)lease));
    assert_string_equal(json_string_value(json_object_get(json_array_get(member(answer, "result", "kept"), 0), "mode")),
                        "read");
    expect_kept(answer, 1, all, kept);
    assert_int_equal(kept[0], lease);
    answer = client_answer(&reader, id);
    assert_non_null(json_object_get(answer, "result"));
    json_decref(answer);
    assert_int_equal(world.committed, 1);
    client_refused(&writer, "commit", said("{\"lease\":%lld}", (long long)lease), "EBADF", NULL);
    client_hang_up(&writer);
    client_hang_up(&reader);
}

/* ---- what goes wrong ---- */

static void when_the_rest_cannot_be_exposed_all_of_it_has_ended(void **state)
{
    (void)state;
    for (int first = 0; first < 2; first++) { /* neither piece, or only the first */
        struct client client;
        int64_t lease;

        client_open(&client);
        lease = client_lease(&client, "/a", "write");
        world.exposes_first = first;
        world.expose_error = -ENOMEM;
        client_refused(&client, "return", PART(lease, 2, 2), "ENOMEM", LEASEFS_REASON_LIMIT);
        world.expose_error = 0;
        assert_int_equal(world.exposures, 0);
        assert_int_equal(world.holds, 0);
        client_refused(&client, "renew", said("{\"lease\":%lld}", (long long)lease), "ENOENT", NULL);
        client_return(&client, client_lease(&client, "/a", "write")); /* nothing is in the way */
        client_hang_up(&client);
    }
}

static void without_proof_all_of_it_has_ended(void **state)
{
    struct client client;
    int64_t lease;

    (void)state;
    client_open(&client);
    lease = client_lease(&client, "/a", "write");
    world.fence_error = -ETIMEDOUT;
    client_refused(&client, "return", PART(lease, 2, 2), "EIO", NULL);
    world.fence_error = 0;
    assert_int_equal(world.detached, 1);
    assert_int_equal(world.holds, 1); /* quarantined */
    client_return(&client, client_lease(&client, "/a", "write"));
    client_hang_up(&client);
}

static void revoked_meanwhile_it_is_not_exposed_again(void **state)
{
    struct client client, admin;
    int64_t lease;
    int id;

    (void)state;
    fences_wait = 1;
    fences_came = 0;
    world.on_fence = wait_at_the_fence;
    client_open(&client);
    client_open(&admin);
    lease = client_lease(&client, "/a", "write");
    id = client_send(&client, "return", PART(lease, 0, 4));
    UNTIL(fences_came == 1);
    client_result(&admin, "revoke", said("{\"lease\":%lld}", (long long)lease), "lease");
    fences_wait = 0;
    expect_refusal(client_answer(&client, id), "ESTALE", NULL);
    assert_int_equal(world.exposures, 0);
    client_hang_up(&client);
    client_hang_up(&admin);
}

/* I6 */
static void a_client_that_is_gone_meanwhile_keeps_nothing(void **state)
{
    struct client client;
    int64_t lease;

    (void)state;
    fences_wait = 1;
    fences_came = 0;
    world.on_fence = wait_at_the_fence;
    client_open(&client);
    lease = client_lease(&client, "/a", "write");
    client_send(&client, "return", PART(lease, 2, 2));
    UNTIL(fences_came == 1);
    client_send(&client, "return", PART(lease, 0, 1)); /* deferred */
    client_hang_up(&client);
    fences_wait = 0;
    UNTIL(world.holds == 0 && world.exposures == 0 && world.fabric_sessions == 0);
}

static void the_limit_on_leases_refuses_two_pieces_and_keeps_the_lease(void **state)
{
    static const uint64_t front[1][2] = {{0, 4}};
    struct client client;
    int64_t lease = 0, kept[2];

    (void)state;
    client_open(&client);
    for (int i = 0; i < 16; i++)
        lease = client_lease(&client, "/a", "read");
    client_refused(&client, "return", PART(lease, 2, 2), "EMFILE", LEASEFS_REASON_LIMIT);
    client_result(&client, "renew", said("{\"lease\":%lld}", (long long)lease), "lease_time_ms");
    expect_kept(client_call(&client, "return", PART(lease, 4, 4)), 1, front, kept);
    client_hang_up(&client);
}

/* Cuts, downgrades, ends of sessions and writers, all at once: for TSan. */
static int64_t call_among_news(struct client *client, const char *method, const char *params)
{
    int id = client_send(client, method, params);
    int64_t lease = -1;

    while (lease < 0) {
        json_t *message = client_hear(client);

        assert_non_null(message);
        if (json_integer_value(json_object_get(message, "id")) == id)
            lease = json_integer_value(member(message, "result", "lease")); /* 0: no such thing */
        json_decref(message);
    }
    return lease;
}

static void *cutter(void *arg)
{
    static _Thread_local struct client client;
    unsigned random = *(unsigned *)arg;

    for (int round = 0; round < 4; round++) {
        client_open(&client);
        for (int i = 0; i < 20; i++) {
            char params[128];
            int64_t lease;

            random = random * 1103515245u + 12345u;
            snprintf(params, sizeof(params), "{\"path\":\"/%c\",\"mode\":\"%s\",\"wait\":false}",
                     random & 0x8000 ? 'a' : 'b', random & 0x10000 ? "read" : "write");
            lease = call_among_news(&client, "lease", params);
            if (!lease)
                continue;
            snprintf(params, sizeof(params), "{\"lease\":%lld,\"offset\":%u,\"length\":%u%s}", (long long)lease,
                     (random >> 20) % 8 * 4096, (random >> 24) % 5 * 4096,
                     random & 0x20000 ? ",\"mode\":\"read\"" : "");
            client_send(&client, "return", params); /* answered among what comes before the next call's answer */
            if (random & 0x40000)
                client_send(&client, "return", params);
            snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)lease);
            if (random & 0x80000)
                call_among_news(&client, "return", params);
        }
        client_hang_up(&client);
    }
    return NULL;
}

static void many_at_once_leave_nothing_behind(void **state)
{
    unsigned seeds[] = {1, 2, 3, 4};
    pthread_t threads[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, cutter, &seeds[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    UNTIL(world.holds == 0 && world.exposures == 0 && world.pins == 0);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        STORY(a_part_is_returned_and_the_rest_has_new_keys),
        STORY(what_is_given_back_is_what_the_message_covers_of_whole_blocks),
        STORY(wrong_parts_are_refused_and_change_nothing),
        STORY(the_wanted_part_is_returned_and_the_waiter_goes_on),
        STORY(a_recall_of_what_is_kept_follows_the_answer),
        STORY(returns_that_come_meanwhile_wait_and_are_carried_out_in_order),
        STORY(a_commit_waits_for_the_cut),
        STORY(a_commit_whose_lease_is_lost_in_the_cut_is_refused),
        STORY(a_lease_that_ends_is_not_returned_without_end),
        STORY(a_downgrade_lets_readers_in),
        STORY(when_the_rest_cannot_be_exposed_all_of_it_has_ended),
        STORY(without_proof_all_of_it_has_ended),
        STORY(revoked_meanwhile_it_is_not_exposed_again),
        STORY(a_client_that_is_gone_meanwhile_keeps_nothing),
        STORY(the_limit_on_leases_refuses_two_pieces_and_keeps_the_lease),
        STORY(many_at_once_leave_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
