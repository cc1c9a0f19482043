/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nobody starves, through the service: readers whose leases overlap, so that there is always one, and somebody who
 * wants to change the bytes. A recall goes out when it is asked for, and from then on each reader has at most the one
 * grant that was under way: turns are counted, not time.
 */
#include "service_fixture.h"

#define READERS 6
#define ROUNDS  25

static atomic_uint grants, recalled_at; /* the crowd's, so far; so many when the first was recalled */
static atomic_bool recalled, over;

/* The next message of a holder, who keeps its lease meanwhile; NULL: there is none yet. */
static json_t *hear_now(struct client *client)
{
    struct pollfd ready = {.fd = client->fd, .events = POLLIN};

    if (!memchr(client->buffer, '\n', client->length) && poll(&ready, 1, 1) == 0)
        return NULL;
    return client_hear(client);
}

/* Holds its lease until it is asked for it, or another reader has got one, too. */
static void hold_a_while(struct client *client, int64_t lease, unsigned grants_then)
{
    json_t *message = NULL;

    while (!message && !over && grants - grants_then < 2)
        message = hear_now(client);
    if (message && strcmp(json_string_value(json_object_get(message, "method")), "recall") == 0 &&
        json_integer_value(member(message, "params", "lease")) == lease && !recalled) {
        recalled_at = grants;
        recalled = true;
    }
    json_decref(message);
}

/* The answer to a request; what else comes meanwhile is old news of the lease before. */
static json_t *answer_of(struct client *client, int id)
{
    json_t *message;

    while ((message = client_hear(client)) && json_integer_value(json_object_get(message, "id")) != id)
        json_decref(message);
    assert_non_null(message);
    return message;
}

static void *reader(void *arg)
{
    struct client *client = arg;
    char params[64];

    while (!over) {
        int id = client_send(client, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}");
        json_t *answer = answer_of(client, id);
        int64_t lease = json_integer_value(member(answer, "result", "lease"));

        assert_int_not_equal(lease, 0);
        json_decref(answer);
        hold_a_while(client, lease, grants++);
        snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)lease);
        json_decref(answer_of(client, client_send(client, "return", params)));
    }
    return NULL;
}

static void writer_turn(struct client *writer)
{
    json_t *answer = answer_of(writer, client_send(writer, "lease", "{\"path\":\"/a\",\"mode\":\"write\"}"));
    char params[64];

    assert_non_null(member(answer, "result", "lease"));
    snprintf(params, sizeof(params), "{\"lease\":%lld}",
             (long long)json_integer_value(member(answer, "result", "lease")));
    json_decref(answer);
    if (recalled)
        assert_in_range(grants - recalled_at, 0, READERS);
    json_decref(answer_of(writer, client_send(writer, "return", params)));
}

static void local_turn(struct client *nobody)
{
    struct lease_range tail = {BLOCK, 7 * BLOCK};
    struct local_op local = {.waiter.resume = local_op_resumed};
    int tries = 0;

    (void)nobody;
    while (lease_op_begin(the_table(), 1, tail, LEASE_OP_DROP, now_ns(), &local.waiter)) {
        UNTIL(local.resumed > tries);
        tries++;
    }
    assert_in_range(tries, 0, 2); /* it keeps its place while it waits */
    if (recalled)
        assert_in_range(grants - recalled_at, 0, READERS);
    lease_op_end(the_table(), &local.waiter);
}

static void nobody_starves(void (*turn)(struct client *client), bool with_another_writer)
{
    static struct client readers[READERS], one, other;
    pthread_t threads[READERS];
    unsigned recalls = 0;

    grants = 0;
    over = false;
    client_open(&one);
    client_open(&other);
    for (int i = 0; i < READERS; i++) {
        client_open(&readers[i]);
        pthread_create(&threads[i], NULL, reader, &readers[i]);
    }
    for (int i = 0; i < ROUNDS; i++) {
        unsigned before = grants;

        UNTIL(grants > before + READERS); /* the stream is there */
        recalled = false;
        turn(&one);
        recalls += recalled;
        recalled = false;
        if (with_another_writer)
            writer_turn(&other);
    }
    over = true;
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    print_message("%u turns in a stream of %u grants, %u recalls\n", ROUNDS, grants, recalls);
    assert_true(recalls > 0);
    for (int i = 0; i < READERS; i++)
        client_hang_up(&readers[i]);
    client_hang_up(&one);
    client_hang_up(&other);
}

static void a_writer_gets_its_turn_in_a_stream_of_readers(void **state)
{
    (void)state;
    nobody_starves(writer_turn, false);
}

static void a_local_truncate_gets_its_turn_in_a_stream_of_requests(void **state)
{
    (void)state;
    nobody_starves(local_turn, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_writer_gets_its_turn_in_a_stream_of_readers, setup, teardown),
        cmocka_unit_test_setup_teardown(a_local_truncate_gets_its_turn_in_a_stream_of_requests, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
