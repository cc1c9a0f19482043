/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_TLS_H
#define LEASEFS_LEASE_TLS_H

/*
 * TLS as leasefs speaks it, both ends: 1.3 alone, external pre-shared keys with an ephemeral Diffie-Hellman exchange
 * (forward secrecy), no certificates, no tickets, no early data. Of the wire's library.
 *
 * A session of GnuTLS is not thread-safe: who uses one from several threads has a lock for it.
 */

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define TLS_INIT_FLAGS (GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | GNUTLS_NO_SIGNAL)

/* What is offered and taken. The caller frees it with gnutls_priority_deinit(). A negative errno. */
int tls_priority_new(gnutls_priority_t *ret_priority);

/* A new session on a non-blocking socket. flags: GNUTLS_SERVER or GNUTLS_CLIENT. `credentials` of that side. */
int tls_session_new(unsigned flags, int fd, gnutls_priority_t priority, void *credentials, gnutls_session_t *ret_tls);

/* Bytes, or a negative errno. -EAGAIN: the socket has to become readable (receive) or writable (send); after it, the
 * next send has to have the same bytes at its beginning. Receiving gives 0 at the end; -ECONNRESET: an end without a
 * farewell. */
ssize_t tls_send(gnutls_session_t tls, const void *bytes, size_t length);
ssize_t tls_receive(gnutls_session_t tls, void *buffer, size_t size);

/* TCP finds out that the peer is gone, or takes nothing any more, within about this time; and sends at once. */
void tls_watch_peer(int fd, unsigned dead_after_ms);

/* A negative errno for a code of GnuTLS. */
int tls_errno(int code);

/* Was this session agreed on as it has to be? TLS 1.3 with a pre-shared key and Diffie-Hellman. */
bool tls_as_agreed(gnutls_session_t tls);

#endif
