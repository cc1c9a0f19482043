/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_CHANNEL_H
#define LEASEFS_INITIATOR_CHANNEL_H

/*
 * The bytes of the control connection: a Unix socket, or TCP with TLS 1.3 (lease/tls.h).
 *
 * One thread at a time receives, any number send; what one call sends stays in one piece. One leaf lock: it guards the
 * TLS session and whose turn it is to send, and is held across system calls that do not block, never while waiting.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CHANNEL_SEND_TIMEOUT_MS    10000u
#define CHANNEL_CONNECT_TIMEOUT_MS 10000u /* to connect and shake hands, all addresses of a name together */
#define CHANNEL_DEAD_AFTER_MS      20000u /* a server that acknowledges nothing for so long is gone */

struct channel;

/* Each sets the thread's error sentence. */
int channel_open_unix(const char *path, struct channel **ret_channel);
/* server: HOST or HOST:PORT. key_file: NULL: where it is looked for by default. Bounded in time. */
int channel_open_tls(const char *server, const char *key_file, struct channel **ret_channel);
void channel_free(struct channel *channel); /* NULL is allowed */

int channel_fd(const struct channel *channel);           /* readable: channel_receive() has something */
const char *channel_name(const struct channel *channel); /* for messages */

/* All or an error; waits for a slow server, bounded. After an error the channel is of no use. */
int channel_send(struct channel *channel, const char *bytes, size_t length);

/* Never blocks. Bytes; 0: the end; a negative errno. To be called until -EAGAIN: what TLS has decrypted already makes
 * no descriptor readable. */
ssize_t channel_receive(struct channel *channel, void *buffer, size_t size);

/* Waits for bytes first: as long as the connection lasts. */
ssize_t channel_await(struct channel *channel, void *buffer, size_t size);
/* Are there bytes that make no descriptor readable? */
bool channel_buffers(struct channel *channel);

/* Makes the receiving thread see the end. Any thread. */
void channel_shut_down(struct channel *channel);

#endif
