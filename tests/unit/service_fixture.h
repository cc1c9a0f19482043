/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TEST_SERVICE_FIXTURE_H
#define LEASEFS_TEST_SERVICE_FIXTURE_H

/*
 * The real control service on a real Unix socket, between the filesystem and the fabric of fake_world.h, and clients
 * that speak JSON by hand.
 */

#include "fake_world.h"

/* ---- the service ---- */

static inline struct lease_service_config world_config(void)
{
    memset(&world, 0, sizeof(world));
    snprintf(world.path, sizeof(world.path), "test_service.%d", (int)getpid());
    return (struct lease_service_config){
        .control_path = world.path,
        .limits = {.lease_time_ns = 600000 * MS,
                   .recall_timeout_ns = 600000 * MS,
                   .fence_bound_ns = 1000 * MS,
                   .max_leases = 4096,
                   .max_session_leases = 16,
                   .policy = LEASE_POLICY_RECALL},
        .layout = &fake_layout,
        .exposure = &fake_exposure,
        .no_device_reason = "Give the server a device.",
        .boot_epoch = 42,
    };
}

static inline void world_start(const struct lease_service_config *config)
{
    char *why = NULL;

    assert_int_equal(lease_service_new(config, &world.service, &why), 0);
    assert_int_equal(lease_service_start(world.service), 0);
}

/* Everything is given back when the service has stopped, whatever the clients did. */
static inline void world_end(void)
{
    lease_service_stop(world.service);
    assert_int_equal(lease_table_check(the_table()), 0);
    lease_service_free(world.service);
    assert_int_equal(world.pins, 0);
    assert_int_equal(world.holds, world.detached);
    assert_int_equal(world.exposures, world.detached);
    assert_int_equal(world.fabric_sessions, 0);
    assert_int_equal(access(world.path, F_OK), -1);
}

static inline int setup(void **state)
{
    struct lease_service_config config = world_config();

    (void)state;
    world_start(&config);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    world_end();
    return 0;
}

/* ---- clients ---- */

struct client {
    int fd;
    char buffer[1 << 17];
    size_t length;
    int last_id;
};

static inline void client_dial(struct client *client)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *client = (struct client){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    assert_true(client->fd >= 0);
    strcpy(address.sun_path, world.path);
    assert_int_equal(connect(client->fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

static inline void client_hang_up(struct client *client)
{
    close(client->fd);
    client->fd = -1;
}

static inline void client_write(struct client *client, const char *bytes, size_t length)
{
    while (length) {
        ssize_t sent = send(client->fd, bytes, length, MSG_NOSIGNAL);

        assert_true(sent > 0);
        bytes += sent;
        length -= (size_t)sent;
    }
}

static inline void client_say(struct client *client, const char *text)
{
    client_write(client, text, strlen(text));
}

/* The next message; NULL: the server hung up. */
static inline json_t *client_hear(struct client *client)
{
    char *newline;
    json_t *message;

    while (!(newline = memchr(client->buffer, '\n', client->length))) {
        struct pollfd ready = {.fd = client->fd, .events = POLLIN};
        ssize_t got;

        assert_int_equal(poll(&ready, 1, PATIENCE_MS), 1);
        got = recv(client->fd, client->buffer + client->length, sizeof(client->buffer) - client->length, 0);
        if (got <= 0)
            return NULL;
        client->length += (size_t)got;
    }
    message = json_loadb(client->buffer, (size_t)(newline - client->buffer), 0, NULL);
    assert_non_null(message);
    client->length -= (size_t)(newline + 1 - client->buffer);
    memmove(client->buffer, newline + 1, client->length);
    return message;
}

/* Sends a request without waiting for its answer; params as JSON text. Returns its id. */
static inline int client_send(struct client *client, const char *method, const char *params)
{
    char line[8192];

    snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\",\"params\":%s}\n", ++client->last_id,
             method, params);
    client_say(client, line);
    return client->last_id;
}

/* The answer to request `id`, or its error; notifications that come first are the caller's to have read. */
static inline json_t *client_answer(struct client *client, int id)
{
    json_t *message = client_hear(client);

    assert_non_null(message);
    assert_int_equal(json_integer_value(json_object_get(message, "id")), id);
    return message;
}

static inline json_t *client_call(struct client *client, const char *method, const char *params)
{
    return client_answer(client, client_send(client, method, params));
}

/* The call succeeds; an integer of its result, 0 when `name` is NULL. */
static inline int64_t client_result(struct client *client, const char *method, const char *params, const char *name)
{
    json_t *message = client_call(client, method, params), *result = json_object_get(message, "result");
    int64_t value = 0;

    if (!result)
        fail_msg("%s %s: %s", method, params, json_dumps(message, 0));
    if (name) {
        assert_true(json_is_integer(json_object_get(result, name)));
        value = json_integer_value(json_object_get(result, name));
    }
    json_decref(message);
    return value;
}

static inline json_t *member(json_t *message, const char *outer, const char *inner)
{
    return json_object_get(json_object_get(message, outer), inner);
}

/* The message is a refusal with this errno and reason. */
static inline void expect_refusal(json_t *message, const char *name, const char *reason)
{
    json_t *data = member(message, "error", "data");

    assert_int_equal(json_integer_value(member(message, "error", "code")), LEASEFS_RPC_REFUSED);
    assert_string_equal(json_string_value(json_object_get(data, "errno")), name);
    if (reason) {
        assert_string_equal(json_string_value(json_object_get(data, "reason")), reason);
        assert_non_null(json_string_value(json_object_get(data, "remedy")));
    }
    json_decref(message);
}

static inline void client_refused(struct client *client, const char *method, const char *params, const char *name,
                                  const char *reason)
{
    expect_refusal(client_call(client, method, params), name, reason);
}

/* The next message is this notification about this lease. */
static inline json_t *client_notice(struct client *client, const char *method, int64_t lease)
{
    json_t *message = client_hear(client);

    assert_non_null(message);
    assert_null(json_object_get(message, "id"));
    assert_string_equal(json_string_value(json_object_get(message, "method")), method);
    assert_int_equal(json_integer_value(member(message, "params", "lease")), lease);
    return message;
}

static inline void client_open(struct client *client)
{
    client_dial(client);
    client_result(client, "session", "{\"client\":\"test\",\"version\":1}", "session");
}

static inline int64_t client_lease(struct client *client, const char *path, const char *mode)
{
    char params[256];

    snprintf(params, sizeof(params), "{\"path\":\"%s\",\"mode\":\"%s\"}", path, mode);
    return client_result(client, "lease", params, "lease");
}

static inline void client_return(struct client *client, int64_t lease)
{
    char params[64];

    snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)lease);
    client_result(client, "return", params, NULL);
}

/* ---- others ---- */

/* Somebody local who changes a file. */
struct local_op {
    struct lease_waiter waiter; /* first */
    atomic_int resumed;
};

static inline void local_op_resumed(struct lease_waiter *waiter)
{
    ((struct local_op *)waiter)->resumed++;
}

/* Writes `count` blocks from `first` on. */
static inline int local_write(struct local_op *op, uint64_t inode, uint64_t first, uint64_t count)
{
    struct lease_range range = {first * BLOCK, count * BLOCK};

    op->waiter.resume = local_op_resumed;
    return lease_op_begin(the_table(), inode, range, LEASE_OP_REPLACE, now_ns(), &op->waiter);
}

#endif
