/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TEST_REMOTE_FIXTURE_H
#define LEASEFS_TEST_REMOTE_FIXTURE_H

/*
 * The service of service_fixture.h with a TCP port on the loopback interface, and remote clients by the library's own
 * channel. Keys: "a" (KEY_A) and "b" (KEY_B) are this user, KEY_X is nobody's. A bystander at the Unix socket lives
 * through everything.
 */
#include "service_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/stat.h>

#include "rdma/initiator/channel.h"
#include <leasefs/leasefs.h>

#define KEY_A "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define KEY_B "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define KEY_X "550102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

static char keys_path[64], client_path[64];
static uint16_t port;
static struct client bystander; /* at the Unix socket; lives through everything that the others do */

/* ---- the service ---- */

static inline void write_file(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

/* Sections for "a" and, unless it is NULL, "b", which both stand for this user. */
static inline void write_keys(const char *a, const char *b, const char *export)
{
    char text[1024];
    int length = 0;

    if (a)
        length += snprintf(text, sizeof(text), "[client a]\nkey = %s\nuid = %u\ngid = %u\nexport = %s\n", a, getuid(),
                           getgid(), export);
    if (b)
        length += snprintf(text + length, sizeof(text) - (size_t)length,
                           "[client b]\nkey = %s\nuid = %u\ngid = %u\nexport = /\n", b, getuid(), getgid());
    text[length] = '\0';
    write_file(keys_path, text, 0600);
}

static char reached[INET6_ADDRSTRLEN]; /* what the fabric was told last; lock */
static pthread_mutex_t reached_lock = PTHREAD_MUTEX_INITIALIZER;

static inline void note_reached(struct world *w, const struct sockaddr *address)
{
    const void *number = NULL;

    (void)w;
    if (address && address->sa_family == AF_INET)
        number = &((const struct sockaddr_in *)address)->sin_addr;
    else if (address && address->sa_family == AF_INET6)
        number = &((const struct sockaddr_in6 *)address)->sin6_addr;
    pthread_mutex_lock(&reached_lock);
    if (!number || !inet_ntop(address->sa_family, number, reached, sizeof(reached)))
        strcpy(reached, address ? "?" : "nowhere");
    pthread_mutex_unlock(&reached_lock);
}

static inline void expect_reached(const char *address)
{
    pthread_mutex_lock(&reached_lock);
    assert_string_equal(reached, address);
    pthread_mutex_unlock(&reached_lock);
}

static inline void start_at(const char *address, struct remote_limits limits)
{
    const char *const listen[] = {address};
    struct lease_service_config config = world_config();

    world.on_session_open = note_reached;
    snprintf(keys_path, sizeof(keys_path), "test_remote.%d.keys", (int)getpid());
    snprintf(client_path, sizeof(client_path), "test_remote.%d.key", (int)getpid());
    write_keys(KEY_A, KEY_B, "/");
    config.listen = listen;
    config.n_listen = 1;
    config.keys_path = keys_path;
    config.remote = limits;
    world_start(&config);
    port = lease_service_remote_port(world.service, 0);
    assert_int_not_equal(port, 0);
    client_open(&bystander);
    expect_reached("nowhere");
}

static inline void start(struct remote_limits limits)
{
    start_at("127.0.0.1:0", limits);
}

static inline int end(void **state)
{
    (void)state;
    client_result(&bystander, "status", "{}", "uptime_ms");
    client_hang_up(&bystander);
    world_end();
    unlink(keys_path);
    unlink(client_path);
    return 0;
}

static inline int start_as_usual(void **state)
{
    (void)state;
    start((struct remote_limits){0});
    return 0;
}

/* How many sessions there are, as the bystander sees it. */
static inline size_t count_sessions(void)
{
    json_t *message = client_call(&bystander, "status", "{}");
    size_t count = json_array_size(member(message, "result", "sessions"));

    json_decref(message);
    return count;
}

/* ---- good clients: the library's channel ---- */

struct remote_client {
    struct channel *channel;
    char buffer[1 << 16];
    size_t length;
};

static inline int try_dial_at(const char *host, struct remote_client *client, const char *name, const char *key)
{
    char text[512], server[64];

    snprintf(text, sizeof(text), "[client %s]\nkey = %s\n", name, key);
    write_file(client_path, text, 0600);
    snprintf(server, sizeof(server), "%s:%u", host, port);
    memset(client, 0, sizeof(*client));
    return channel_open_tls(server, client_path, &client->channel);
}

static inline int try_dial(struct remote_client *client, const char *name, const char *key)
{
    return try_dial_at("127.0.0.1", client, name, key);
}

static inline void dial(struct remote_client *client, const char *name, const char *key)
{
    if (try_dial(client, name, key))
        fail_msg("%s: %s", name, leasefs_error());
}

static inline void hang_up(struct remote_client *client)
{
    channel_free(client->channel);
    client->channel = NULL;
}

/* NULL: the server has ended the connection. */
static inline json_t *hear(struct remote_client *client)
{
    char *newline;
    json_t *message;

    while (!(newline = memchr(client->buffer, '\n', client->length))) {
        ssize_t got =
            channel_receive(client->channel, client->buffer + client->length, sizeof(client->buffer) - client->length);
        struct pollfd ready = {.fd = channel_fd(client->channel), .events = POLLIN};

        if (got == -EAGAIN)
            assert_int_equal(poll(&ready, 1, PATIENCE_MS), 1);
        else if (got <= 0)
            return NULL;
        else
            client->length += (size_t)got;
    }
    message = json_loadb(client->buffer, (size_t)(newline - client->buffer), 0, NULL);
    assert_non_null(message);
    client->length -= (size_t)(newline + 1 - client->buffer);
    memmove(client->buffer, newline + 1, client->length);
    return message;
}

static inline void say(struct remote_client *client, const char *method, const char *params)
{
    char line[512];

    snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}\n", method, params);
    assert_int_equal(channel_send(client->channel, line, strlen(line)), 0);
}

static inline json_t *ask(struct remote_client *client, const char *method, const char *params)
{
    json_t *message;

    say(client, method, params);
    message = hear(client);
    assert_non_null(message);
    return message;
}

static inline int64_t result(struct remote_client *client, const char *method, const char *params, const char *name)
{
    json_t *message = ask(client, method, params);
    int64_t value;

    if (!json_object_get(message, "result"))
        fail_msg("%s: %s", method, json_dumps(message, 0));
    value = json_integer_value(member(message, "result", name));
    json_decref(message);
    return value;
}

static inline void open_session(struct remote_client *client, const char *name, const char *key)
{
    dial(client, name, key);
    result(client, "session", "{\"client\":\"test\",\"version\":1}", "session");
}

#define STORY(story)         cmocka_unit_test_setup_teardown(story, start_as_usual, end)
#define STORY_OF(story, how) cmocka_unit_test_setup_teardown(story, how, end)

#endif
