/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: security */
/* Who comes to the TCP port without a key, with bytes or a TLS of his own. */
#include "remote_fixture.h"

#include <gnutls/gnutls.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(without_a_key_there_is_no_service),
        STORY(names_cannot_be_found_out),
        STORY(plain_text_and_garbage_are_not_answered),
        STORY(a_handshake_may_end_or_break_anywhere),
        STORY(a_recorded_handshake_opens_nothing),
        STORY_OF(who_takes_too_long_is_dropped, start_with_short_handshakes),
        STORY_OF(a_flood_of_handshakes_keeps_nobody_out, start_with_few_handshakes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
