/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

/* External keys go with SHA-256 in every GnuTLS from 3.6 on, so suites with another hash are not offered: they could
 * not be used. A signature nobody makes here, but without one GnuTLS has no TLS 1.3. */
static const char priorities[] =
    "NONE:+VERS-TLS1.3:+AES-128-GCM:+CHACHA20-POLY1305:+AEAD:+GROUP-X25519:+GROUP-SECP256R1:"
    "+ECDHE-PSK:+DHE-PSK:+SIGN-ECDSA-SECP256R1-SHA256";

int tls_priority_new(gnutls_priority_t *ret_priority)
{
    return tls_errno(gnutls_priority_init(ret_priority, priorities, NULL));
}

int tls_session_new(unsigned flags, int fd, gnutls_priority_t priority, void *credentials, gnutls_session_t *ret_tls)
{
    gnutls_session_t tls;
    int code = gnutls_init(&tls, flags | TLS_INIT_FLAGS);

    if (code < 0)
        return tls_errno(code);
    code = gnutls_priority_set(tls, priority);
    if (code >= 0)
        code = gnutls_credentials_set(tls, GNUTLS_CRD_PSK, credentials);
    if (code < 0) {
        gnutls_deinit(tls);
        return tls_errno(code);
    }
    gnutls_handshake_set_timeout(tls, GNUTLS_INDEFINITE_TIMEOUT); /* the callers have clocks of their own */
    gnutls_transport_set_int(tls, fd);
    *ret_tls = tls;
    return 0;
}

int tls_errno(int code)
{
    switch (code) {
    case GNUTLS_E_AGAIN:
    case GNUTLS_E_INTERRUPTED:
        return -EAGAIN;
    case GNUTLS_E_MEMORY_ERROR:
        return -ENOMEM;
    case GNUTLS_E_PREMATURE_TERMINATION:
    case GNUTLS_E_PUSH_ERROR:
    case GNUTLS_E_PULL_ERROR:
        return -ECONNRESET;
    default:
        return code < 0 ? -EPROTO : 0;
    }
}

ssize_t tls_send(gnutls_session_t tls, const void *bytes, size_t length)
{
    ssize_t sent = gnutls_record_send(tls, bytes, length);

    return sent < 0 ? tls_errno((int)sent) : sent;
}

ssize_t tls_receive(gnutls_session_t tls, void *buffer, size_t size)
{
    ssize_t got = gnutls_record_recv(tls, buffer, size);

    return got < 0 ? tls_errno((int)got) : got;
}

bool tls_as_agreed(gnutls_session_t tls)
{
    gnutls_kx_algorithm_t kx = gnutls_kx_get(tls);

    return gnutls_protocol_get_version(tls) == GNUTLS_TLS1_3 && (kx == GNUTLS_KX_ECDHE_PSK || kx == GNUTLS_KX_DHE_PSK);
}

static void set_option(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value)); /* without it the kernel's own times count */
}

void tls_watch_peer(int fd, unsigned dead_after_ms)
{
    int third_s = (int)(dead_after_ms / 3000);

    if (third_s < 1)
        third_s = 1;
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, third_s);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, third_s);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 2);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)dead_after_ms);
}
