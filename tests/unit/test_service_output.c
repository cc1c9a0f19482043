/* SPDX-License-Identifier: BSD-2-Clause */
/* What clients are sent when an answer goes out in parts, or memory runs out meanwhile. */
#include "lease/service_private.h"
#include "tests/unit/cut_send.h"
#include "tests/unit/failing_malloc.h"
#include "tests/unit/service_fixture.h"

#define PART 10 /* bytes of an answer that are sent at once */

static atomic_bool half_sent, go_on;
static atomic_uint allowed; /* allocations of the worker, before memory runs out */

static bool has_output(struct session *session)
{
    bool any;

    pthread_mutex_lock(&session->output_lock);
    any = session->out_length > 0;
    pthread_mutex_unlock(&session->output_lock);
    return any;
}

static bool is_hung_up(const struct client *client)
{
    struct pollfd end = {.fd = client->fd, .events = POLLRDHUP};

    return poll(&end, 1, 0) == 1;
}

static void wait_half_way(void)
{
    half_sent = true;
    UNTIL(go_on);
}

/* On the worker that will answer. */
static void cut_the_answer(struct world *w, uint64_t first_byte)
{
    (void)w, (void)first_byte;
    cut_send.bytes = PART;
    cut_send.then = wait_half_way;
}

/* Lease answers are written by hand: any id must come back as it was. */
static void an_answer_bears_the_id_of_its_request(void **state)
{
    static const char *const ids[] = {"7", "-9007199254740993", "\"\"", "\"a\\\"b\\\\\\n\\u00e4\"", "null"};
    struct client client;
    char line[256];

    (void)state;
    client_open(&client);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        json_t *id = json_loads(ids[i], JSON_DECODE_ANY, NULL), *answer;

        snprintf(
            line, sizeof(line),
            "{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"lease\",\"params\":{\"path\":\"/a\",\"mode\":\"read\"}}\n",
            ids[i]);
        client_say(&client, line);
        answer = client_hear(&client);
        assert_true(json_equal(json_object_get(answer, "id"), id));
        assert_string_equal(json_string_value(json_object_get(answer, "jsonrpc")), "2.0");
        assert_int_equal(json_integer_value(member(answer, "result", "length")), FILE_BLOCKS * BLOCK);
        assert_string_equal(json_string_value(member(answer, "result", "mode")), "read");
        json_decref(answer);
        json_decref(id);
    }
    client_hang_up(&client);
}

/* The control thread answers other requests while a worker is half way through its answer. */
static void the_rest_of_a_half_sent_answer_goes_before_what_others_say(void **state)
{
    struct client client;
    int lease, second;

    (void)state;
    client_open(&client);
    half_sent = go_on = false;
    world.on_expose = cut_the_answer;
    lease = client_send(&client, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}");
    UNTIL(half_sent);
    second = client_send(&client, "renew", "{\"lease\":1000}"); /* which there is not */
    UNTIL(has_output(world.service->sessions));
    go_on = true;
    json_decref(client_answer(&client, lease));
    json_decref(client_answer(&client, second));
    client_hang_up(&client);
}

static void run_out(struct world *w, uint64_t first_byte)
{
    (void)w, (void)first_byte;
    failing_malloc_arm(allowed);
}

static void run_out_half_way(void)
{
    failing_malloc_arm(allowed);
}

static void cut_the_answer_and_run_out(struct world *w, uint64_t first_byte)
{
    (void)w, (void)first_byte;
    cut_send.bytes = PART;
    cut_send.then = run_out_half_way;
}

/* The first one waits half way; the next finds it there, and memory runs out. */
static void cut_the_first_answer(struct world *w, uint64_t first_byte)
{
    if (half_sent)
        run_out(w, first_byte);
    else
        cut_the_answer(w, first_byte);
}

enum outcome { GRANTED, REFUSED, HUNG_UP }; /* there is nothing else */

static enum outcome hear(struct client *client)
{
    json_t *message = client_hear(client);
    enum outcome outcome = !message ? HUNG_UP : json_object_get(message, "result") ? GRANTED : REFUSED;

    json_decref(message);
    return outcome;
}

static enum outcome ask_for_a_lease(void)
{
    struct client client;
    enum outcome outcome;

    client_open(&client);
    client_send(&client, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}");
    outcome = hear(&client);
    client_hang_up(&client);
    return outcome;
}

/* With more and more memory, until there is enough. */
static void expect_hang_ups(void (*on_expose)(struct world *world, uint64_t first_byte))
{
    enum outcome outcome;
    unsigned hung_up = 0;

    world.on_expose = on_expose;
    for (allowed = 0; (outcome = ask_for_a_lease()) != GRANTED; allowed++) {
        assert_true(allowed < 20);
        hung_up += outcome == HUNG_UP;
    }
    assert_true(hung_up > 0);
}

static void who_gets_no_answer_for_want_of_memory_is_hung_up_on(void **state)
{
    (void)state;
    expect_hang_ups(run_out);
}

/* The rest is to be kept, and the control thread told of it. */
static void who_gets_half_an_answer_for_want_of_memory_is_hung_up_on(void **state)
{
    (void)state;
    expect_hang_ups(cut_the_answer_and_run_out);
}

/* An answer that finds another half sent is the control thread's to send. */
static void who_loses_an_answer_behind_another_for_want_of_memory_is_hung_up_on(void **state)
{
    enum outcome first, second = HUNG_UP;
    unsigned hung_up = 0;

    (void)state;
    world.on_expose = cut_the_first_answer;
    for (allowed = 0; second != GRANTED; allowed++) {
        struct client client;
        struct session *session;

        assert_true(allowed < 20);
        half_sent = go_on = false;
        client_open(&client);
        client_send(&client, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}");
        UNTIL(half_sent);
        session = session_ref(world.service->sessions);
        client_send(&client, "lease", "{\"path\":\"/b\",\"mode\":\"read\"}");
        UNTIL(has_output(session) || is_hung_up(&client));
        go_on = true;
        first = hear(&client);
        second = first == HUNG_UP ? HUNG_UP : hear(&client);
        hung_up += second == HUNG_UP;
        client_hang_up(&client);
        session_unref(session);
    }
    assert_true(hung_up > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_answer_bears_the_id_of_its_request, setup, teardown),
        cmocka_unit_test_setup_teardown(the_rest_of_a_half_sent_answer_goes_before_what_others_say, setup, teardown),
        cmocka_unit_test_setup_teardown(who_gets_no_answer_for_want_of_memory_is_hung_up_on, setup, teardown),
        cmocka_unit_test_setup_teardown(who_gets_half_an_answer_for_want_of_memory_is_hung_up_on, setup, teardown),
        cmocka_unit_test_setup_teardown(who_loses_an_answer_behind_another_for_want_of_memory_is_hung_up_on, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
