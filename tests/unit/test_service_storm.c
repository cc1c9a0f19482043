/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control service under many clients and local writers at once, for a few seconds: clients that ask, give back,
 * fall silent and die in any order, holders that answer recalls or not, local operations that wait, give up or go on.
 * Made to be run under TSan and ASan. Afterwards nothing is left (world_end()). LEASEFS_TEST_SECONDS makes it longer.
 */
#include "service_fixture.h"

#define CLIENTS 6
#define LOCALS  3

static atomic_bool stopping;
static atomic_ulong grants, operations, recalls;

struct local {
    struct lease_waiter waiter; /* first */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool resumed;
};

static void local_resumed(struct lease_waiter *waiter)
{
    struct local *local = (struct local *)waiter;

    pthread_mutex_lock(&local->lock);
    local->resumed = true;
    pthread_cond_signal(&local->changed);
    pthread_mutex_unlock(&local->lock);
}

static void wait_for_resume(struct local *local)
{
    pthread_mutex_lock(&local->lock);
    while (!local->resumed)
        pthread_cond_wait(&local->changed, &local->lock);
    local->resumed = false;
    pthread_mutex_unlock(&local->lock);
}

/* One local operation, which is interrupted now and then while it waits. */
static void operate(struct local *local, unsigned *seed)
{
    struct lease_range range = {rand_r(seed) % FILE_BLOCKS * BLOCK, BLOCK};
    uint64_t inode = 1 + rand_r(seed) % 3;
    enum lease_op op = 1 + rand_r(seed) % 3;
    enum lease_policy policy = rand_r(seed) % 3 ? LEASE_POLICY_RECALL : 1 + rand_r(seed) % 3;

    memset(&local->waiter, 0, sizeof(local->waiter));
    local->waiter.resume = local_resumed;
    while (lease_op_begin_under(the_table(), inode, range, op, policy, now_ns(), &local->waiter) == -EINPROGRESS) {
        if (rand_r(seed) % 4 == 0 && lease_waiter_cancel(the_table(), &local->waiter, now_ns()))
            break;
        wait_for_resume(local);
    }
    lease_op_end(the_table(), &local->waiter);
    operations++;
}

static void *local_thread(void *arg)
{
    struct local local = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    unsigned seed = (unsigned)(uintptr_t)arg;

    while (!stopping) {
        operate(&local, &seed);
        poll(NULL, 0, rand_r(&seed) % 3);
    }
    pthread_mutex_destroy(&local.lock);
    pthread_cond_destroy(&local.changed);
    return NULL;
}

static void ask_something(struct client *client, unsigned *seed)
{
    static const char *const modes[] = {"read", "write"};
    static const char *const policies[] = {"recall", "recall", "busy", "orphan"};
    const char *mode = modes[rand_r(seed) % 2];
    unsigned block = rand_r(seed) % FILE_BLOCKS, file = rand_r(seed) % 3;
    char params[256];

    snprintf(
        params, sizeof(params),
        "{\"path\":\"/%c\",\"source\":\"/%c\",\"destination\":\"/%c\",\"mode\":\"%s\",\"offset\":%u,\"length\":4096,"
        "\"wait\":%s,\"prepare\":%s,\"lease\":%u,\"policy\":\"%s\"}",
        "abc"[file], "abc"[file], "abc"[(file + 1) % 3], mode, block * 4096, rand_r(seed) % 4 ? "true" : "false",
        rand_r(seed) % 2 ? "true" : "false", rand_r(seed) % 20, policies[rand_r(seed) % 4]);
    switch (rand_r(seed) % 12) {
    case 0:
        client_send(client, "clone", params);
        break;
    case 1:
        client_send(client, "prepare", params);
        break;
    case 2:
        client_send(client, "status", "{}");
        break;
    case 3:
        client_send(client, "revoke", params);
        break;
    case 4:
        client_send(client, "connect", "{}");
        break;
    case 5:
        client_send(client, "renew", params);
        break;
    default:
        client_send(client, "lease", params);
    }
}

static void give_back(struct client *client, json_int_t lease)
{
    char params[64];

    snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)lease);
    client_send(client, "return", params);
}

/* Reads what there is; returns recalled leases, and now and then one that was just granted. */
static void listen_a_while(struct client *client, unsigned *seed)
{
    struct pollfd ready = {.fd = client->fd, .events = POLLIN};

    while (memchr(client->buffer, '\n', client->length) || poll(&ready, 1, rand_r(seed) % 3) == 1) {
        json_t *message = client_hear(client), *granted;

        if (!message)
            return;
        granted = member(message, "result", "lease");
        grants += granted != NULL;
        if (json_object_get(message, "method"))
            recalls++;
        if (strcmp("recall", json_string_value(json_object_get(message, "method")) ?: "") == 0 && rand_r(seed) % 4)
            give_back(client, json_integer_value(member(message, "params", "lease")));
        if (granted && rand_r(seed) % 3 == 0)
            give_back(client, json_integer_value(granted));
        json_decref(message);
    }
}

static void *client_thread(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    struct client *client = malloc(sizeof(*client));

    while (client && !stopping) {
        unsigned turns = 1 + rand_r(&seed) % 60;

        client_open(client);
        for (unsigned i = 0; i < turns && !stopping; i++) {
            for (unsigned j = rand_r(&seed) % 4; j > 0; j--)
                ask_something(client, &seed);
            listen_a_while(client, &seed);
        }
        client_hang_up(client);
    }
    free(client);
    return NULL;
}

static void many_clients_and_local_writers_at_once_leave_nothing_behind(void **state)
{
    struct lease_service_config config = world_config();
    const char *seconds = getenv("LEASEFS_TEST_SECONDS");
    uint64_t until = now_ns() + (seconds ? strtoull(seconds, NULL, 0) : 2) * 1000 * MS;
    pthread_t threads[CLIENTS + LOCALS];

    (void)state;
    config.limits.recall_timeout_ns = 20 * MS;
    config.limits.lease_time_ns = 300 * MS;
    config.limits.courtesy_ns = 100 * MS;
    config.limits.max_bytes = 40 * BLOCK; /* pressure */
    world_start(&config);
    for (uintptr_t i = 0; i < CLIENTS + LOCALS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, i < CLIENTS ? client_thread : local_thread, (void *)(i + 1)),
                         0);
    while (now_ns() < until || !grants || !operations)
        poll(NULL, 0, 10);
    stopping = true;
    for (int i = 0; i < CLIENTS + LOCALS; i++)
        pthread_join(threads[i], NULL);
    print_message("%lu grants, %lu notices, %lu operations\n", grants, recalls, operations);
    UNTIL(world.holds == 0);
    world_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_clients_and_local_writers_at_once_leave_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
