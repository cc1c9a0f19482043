/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: security */
/* Remote clients, good and hostile, at the real service's TCP port on the loopback interface. */
#include "service_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
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

static void write_file(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

/* Sections for "a" and, unless it is NULL, "b", which both stand for this user. */
static void write_keys(const char *a, const char *b, const char *export)
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

static void note_reached(struct world *w, const struct sockaddr *address)
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

static void expect_reached(const char *address)
{
    pthread_mutex_lock(&reached_lock);
    assert_string_equal(reached, address);
    pthread_mutex_unlock(&reached_lock);
}

static void start_at(const char *address, struct remote_limits limits)
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

static void start(struct remote_limits limits)
{
    start_at("127.0.0.1:0", limits);
}

static int end(void **state)
{
    (void)state;
    client_result(&bystander, "status", "{}", "uptime_ms");
    client_hang_up(&bystander);
    world_end();
    unlink(keys_path);
    unlink(client_path);
    return 0;
}

static int start_as_usual(void **state)
{
    (void)state;
    start((struct remote_limits){0});
    return 0;
}

/* How many sessions there are, as the bystander sees it. */
static size_t count_sessions(void)
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

static int try_dial_at(const char *host, struct remote_client *client, const char *name, const char *key)
{
    char text[512], server[64];

    snprintf(text, sizeof(text), "[client %s]\nkey = %s\n", name, key);
    write_file(client_path, text, 0600);
    snprintf(server, sizeof(server), "%s:%u", host, port);
    memset(client, 0, sizeof(*client));
    return channel_open_tls(server, client_path, &client->channel);
}

static int try_dial(struct remote_client *client, const char *name, const char *key)
{
    return try_dial_at("127.0.0.1", client, name, key);
}

static void dial(struct remote_client *client, const char *name, const char *key)
{
    if (try_dial(client, name, key))
        fail_msg("%s: %s", name, leasefs_error());
}

static void hang_up(struct remote_client *client)
{
    channel_free(client->channel);
    client->channel = NULL;
}

/* NULL: the server has ended the connection. */
static json_t *hear(struct remote_client *client)
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

static void say(struct remote_client *client, const char *method, const char *params)
{
    char line[512];

    snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}\n", method, params);
    assert_int_equal(channel_send(client->channel, line, strlen(line)), 0);
}

static json_t *ask(struct remote_client *client, const char *method, const char *params)
{
    json_t *message;

    say(client, method, params);
    message = hear(client);
    assert_non_null(message);
    return message;
}

static int64_t result(struct remote_client *client, const char *method, const char *params, const char *name)
{
    json_t *message = ask(client, method, params);
    int64_t value;

    if (!json_object_get(message, "result"))
        fail_msg("%s: %s", method, json_dumps(message, 0));
    value = json_integer_value(member(message, "result", name));
    json_decref(message);
    return value;
}

static void open_session(struct remote_client *client, const char *name, const char *key)
{
    dial(client, name, key);
    result(client, "session", "{\"client\":\"test\",\"version\":1}", "session");
}

/* ---- hostile ones: bytes, or a TLS of their own ---- */

static int connect_raw(void)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* The server ends this connection, in its own time, whatever it says before. No answer is one to a request. */
static void expect_hang_up(int fd)
{
    char bytes[4096];
    ssize_t got;

    do {
        struct pollfd ready = {.fd = fd, .events = POLLIN};

        assert_int_equal(poll(&ready, 1, PATIENCE_MS), 1);
        got = recv(fd, bytes, sizeof(bytes) - 1, 0);
        if (got > 0) {
            bytes[got] = '\0';
            assert_null(strstr(bytes, "jsonrpc"));
        }
    } while (got > 0);
    close(fd);
}

struct attack {
    const char *priorities, *name, *key;
};

/* GnuTLS' verdict on the handshake; *ret_alert: what the server said. */
static int shake_hands(const struct attack *attack, int *ret_alert)
{
    gnutls_psk_client_credentials_t psk;
    gnutls_certificate_credentials_t certificates;
    gnutls_datum_t key = {(unsigned char *)(uintptr_t)attack->key, (unsigned)strlen(attack->key)};
    gnutls_session_t tls;
    int code, fd = connect_raw();

    assert_int_equal(gnutls_psk_allocate_client_credentials(&psk), 0);
    if (*attack->name)
        assert_int_equal(gnutls_psk_set_client_credentials(psk, attack->name, &key, GNUTLS_PSK_KEY_HEX), 0);
    assert_int_equal(gnutls_certificate_allocate_credentials(&certificates), 0);
    assert_int_equal(gnutls_init(&tls, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL), 0);
    assert_int_equal(gnutls_priority_set_direct(tls, attack->priorities, NULL), 0);
    if (*attack->name)
        gnutls_credentials_set(tls, GNUTLS_CRD_PSK, psk);
    gnutls_credentials_set(tls, GNUTLS_CRD_CERTIFICATE, certificates);
    gnutls_transport_set_int(tls, fd);
    gnutls_handshake_set_timeout(tls, PATIENCE_MS);
    do
        code = gnutls_handshake(tls);
    while (code < 0 && !gnutls_error_is_fatal(code));
    if (code == 0) { /* only now may it matter that the server has not said yes yet */
        char byte;
        ssize_t got = gnutls_record_recv(tls, &byte, 1);

        code = got == 0 ? GNUTLS_E_PREMATURE_TERMINATION : (int)got;
    }
    *ret_alert = code == GNUTLS_E_FATAL_ALERT_RECEIVED ? (int)gnutls_alert_get(tls) : -1;
    gnutls_deinit(tls);
    gnutls_psk_free_client_credentials(psk);
    gnutls_certificate_free_credentials(certificates);
    close(fd);
    return code;
}

#define TLS13_PSK "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+DHE-PSK"

/* ---- the tests ---- */

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

static void without_a_key_there_is_no_service(void **state)
{
    static const struct attack attacks[] = {
        {TLS13_PSK, "a", KEY_X},                                                           /* wrong key */
        {TLS13_PSK, "a", "000102030405060708090a0b0c0d0e0f"},                              /* a part of it */
        {TLS13_PSK, "a", KEY_A "00"},                                                      /* more than it */
        {TLS13_PSK, "nobody", KEY_A},                                                      /* unknown */
        {TLS13_PSK, "A", KEY_A},                                                           /* nearly known */
        {"NORMAL:-VERS-ALL:+VERS-TLS1.3", "", KEY_A},                                      /* no key at all */
        {"NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK", "a", KEY_A},    /* an older TLS */
        {"NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+PSK", "a", KEY_A},                        /* no forward secrecy */
        {"NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:-CIPHER-ALL:+AES-256-GCM", "a", KEY_A}, /* another hash */
    };
    int alert;

    (void)state;
    for (size_t i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++)
        if (shake_hands(&attacks[i], &alert) == 0)
            fail_msg("%zu: %s: served", i, attacks[i].priorities);
    assert_int_equal(count_sessions(), 1);
    /* The same client with the right key: the tool works. Not served without a request, so it has to be told apart. */
    struct remote_client good;

    open_session(&good, "a", KEY_A);
    assert_int_equal(count_sessions(), 2);
    hang_up(&good);
}

static void names_cannot_be_found_out(void **state)
{
    int known, unknown;

    (void)state;
    assert_int_not_equal(shake_hands(&(struct attack){TLS13_PSK, "a", KEY_X}, &known), 0);
    assert_int_not_equal(shake_hands(&(struct attack){TLS13_PSK, "nobody", KEY_X}, &unknown), 0);
    assert_int_not_equal(known, -1);
    assert_int_equal(known, unknown);
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

static void plain_text_and_garbage_are_not_answered(void **state)
{
    static const char *const texts[] = {
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"session\",\"params\":{\"version\":1}}\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\x16\x03\x01\xff\xff",
        "\x16\x03\x03\x00\x05\x01\x00\x00\x01\x00",
        "\x15\x03\x03\x00\x02\x02\x28",
        "\x17\x03\x03\x00\x10xxxxxxxxxxxxxxxx",
        "SSH-2.0-OpenSSH_9.2\r\n",
    };
    static const size_t lengths[] = {0, 0, 5, 10, 7, 21, 0};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        int fd = connect_raw();
        size_t length = lengths[i] ? lengths[i] : strlen(texts[i]);

        assert_int_equal(send(fd, texts[i], length, MSG_NOSIGNAL), length);
        shutdown(fd, SHUT_WR);
        expect_hang_up(fd);
    }
    assert_int_equal(count_sessions(), 1);
}

/* ---- handshakes in pieces ---- */

static unsigned char hello[4096];
static size_t hello_length;

static ssize_t keep(gnutls_transport_ptr_t arg, const void *bytes, size_t length)
{
    (void)arg;
    if (length > sizeof(hello) - hello_length)
        length = sizeof(hello) - hello_length;
    memcpy(hello + hello_length, bytes, length);
    hello_length += length;
    return (ssize_t)length;
}

static ssize_t nothing_yet(gnutls_transport_ptr_t tls, void *buffer, size_t size)
{
    (void)buffer, (void)size;
    gnutls_transport_set_errno(tls, EAGAIN);
    return -1;
}

/* What a client with the right key says first. */
static void record_hello(void)
{
    gnutls_psk_client_credentials_t psk;
    gnutls_datum_t key = {(unsigned char *)(uintptr_t)KEY_A, sizeof(KEY_A) - 1};
    gnutls_session_t tls;

    hello_length = 0;
    assert_int_equal(gnutls_psk_allocate_client_credentials(&psk), 0);
    assert_int_equal(gnutls_psk_set_client_credentials(psk, "a", &key, GNUTLS_PSK_KEY_HEX), 0);
    assert_int_equal(gnutls_init(&tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK), 0);
    assert_int_equal(gnutls_priority_set_direct(tls, TLS13_PSK, NULL), 0);
    gnutls_credentials_set(tls, GNUTLS_CRD_PSK, psk);
    gnutls_transport_set_ptr(tls, tls);
    gnutls_transport_set_push_function(tls, keep);
    gnutls_transport_set_pull_function(tls, nothing_yet);
    assert_int_equal(gnutls_handshake(tls), GNUTLS_E_AGAIN);
    gnutls_deinit(tls);
    gnutls_psk_free_client_credentials(psk);
    assert_true(hello_length > 100);
}

static void a_handshake_may_end_or_break_anywhere(void **state)
{
    (void)state;
    record_hello();
    for (size_t length = 0; length <= hello_length; length += length < 16 ? 1 : 29) {
        int fd = connect_raw();

        assert_int_equal(send(fd, hello, length, MSG_NOSIGNAL), length);
        shutdown(fd, SHUT_WR);
        expect_hang_up(fd);
    }
    for (size_t i = 0; i < hello_length; i += 7) { /* with one byte changed; the length stays */
        unsigned char broken[sizeof(hello)];
        int fd = connect_raw();

        memcpy(broken, hello, hello_length);
        broken[i] ^= 0x41;
        assert_int_equal(send(fd, broken, hello_length, MSG_NOSIGNAL), hello_length);
        shutdown(fd, SHUT_WR);
        expect_hang_up(fd);
    }
    assert_int_equal(count_sessions(), 1);
}

/* A recorded hello has a good proof of the key in it; whoever repeats it cannot go on. */
static void a_recorded_handshake_opens_nothing(void **state)
{
    int fd = connect_raw();
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    static const char more[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"session\",\"params\":{\"version\":1}}\n";

    (void)state;
    record_hello();
    assert_int_equal(send(fd, hello, hello_length, MSG_NOSIGNAL), hello_length);
    assert_int_equal(poll(&ready, 1, PATIENCE_MS), 1); /* the server goes on with it */
    assert_int_equal(send(fd, hello, hello_length, MSG_NOSIGNAL), hello_length);
    send(fd, more, sizeof(more) - 1, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    expect_hang_up(fd);
    assert_int_equal(count_sessions(), 1);
}

static int start_with_short_handshakes(void **state)
{
    (void)state;
    start((struct remote_limits){.handshake_ms = 200});
    return 0;
}

static void who_takes_too_long_is_dropped(void **state)
{
    int silent = connect_raw(), slow = connect_raw();

    (void)state;
    record_hello();
    assert_int_equal(send(slow, hello, 10, MSG_NOSIGNAL), 10);
    expect_hang_up(silent);
    expect_hang_up(slow);
    assert_int_equal(count_sessions(), 1);
}

#define FLOOD 200

static int start_with_few_handshakes(void **state)
{
    (void)state;
    start((struct remote_limits){.handshakes = 8, .source_handshakes = 4, .handshake_ms = 600000});
    return 0;
}

static void a_flood_of_handshakes_keeps_nobody_out(void **state)
{
    int fds[FLOOD];
    struct remote_client good;
    struct client local;

    (void)state;
    for (int i = 0; i < FLOOD; i++)
        fds[i] = connect_raw();
    client_open(&local); /* at the Unix socket */
    client_lease(&local, "/a", "read");
    open_session(&good, "a", KEY_A); /* and from the flood's own address */
    result(&good, "lease", "{\"path\":\"/b\",\"mode\":\"read\"}", "lease");
    /* All but four, or fewer that the good one has driven out, are gone. */
    for (int i = 0; i < FLOOD - 4; i++)
        expect_hang_up(fds[i]);
    for (int i = FLOOD - 4; i < FLOOD; i++)
        close(fds[i]);
    hang_up(&good);
    client_hang_up(&local);
}

/* ---- with a key ---- */

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

#define STORY(story)         cmocka_unit_test_setup_teardown(story, start_as_usual, end)
#define STORY_OF(story, how) cmocka_unit_test_setup_teardown(story, how, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(who_has_a_key_is_served_as_its_user),
        STORY_OF(the_fabric_is_told_which_address_a_client_came_to, start_on_every_address),
        STORY(without_a_key_there_is_no_service),
        STORY(names_cannot_be_found_out),
        STORY(the_library_says_what_is_wrong),
        STORY(plain_text_and_garbage_are_not_answered),
        STORY(a_handshake_may_end_or_break_anywhere),
        STORY(a_recorded_handshake_opens_nothing),
        STORY_OF(who_takes_too_long_is_dropped, start_with_short_handshakes),
        STORY_OF(a_flood_of_handshakes_keeps_nobody_out, start_with_few_handshakes),
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
