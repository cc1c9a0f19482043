/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/channel.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lease/host_port.h"
#include "lease/key_file.h"
#include "lease/lock_order.h"
#include "lease/tls.h"
#include "rdma/initiator/clock.h"
#include "rdma/initiator/error.h"
#include <leasefs/leasefs.h>
#include <leasefs/protocol.h>

struct channel {
    int fd;
    char *name;
    pthread_mutex_t lock;
    pthread_cond_t turn;
    bool sending;         /* guarded by lock */
    gnutls_session_t tls; /* likewise; NULL: a Unix socket */
    gnutls_priority_t priority;
    gnutls_psk_client_credentials_t credentials;
};

static int channel_new(const char *name, struct channel **ret_channel)
{
    struct channel *channel = calloc(1, sizeof(*channel));

    if (!channel)
        return -ENOMEM;
    channel->name = strdup(name);
    if (!channel->name) {
        free(channel);
        return -ENOMEM;
    }
    channel->fd = -1;
    pthread_mutex_init(&channel->lock, NULL);
    lock_rank(&channel->lock, LOCK_CHANNEL, 0);
    pthread_cond_init(&channel->turn, NULL);
    *ret_channel = channel;
    return 0;
}

void channel_free(struct channel *channel)
{
    if (!channel)
        return;
    if (channel->tls) {
        gnutls_bye(channel->tls, GNUTLS_SHUT_WR);
        gnutls_deinit(channel->tls);
    }
    if (channel->credentials)
        gnutls_psk_free_client_credentials(channel->credentials);
    if (channel->priority)
        gnutls_priority_deinit(channel->priority);
    if (channel->fd >= 0)
        close(channel->fd);
    pthread_cond_destroy(&channel->turn);
    pthread_mutex_destroy(&channel->lock);
    free(channel->name);
    free(channel);
}

int channel_fd(const struct channel *channel)
{
    return channel->fd;
}

const char *channel_name(const struct channel *channel)
{
    return channel->name;
}

void channel_shut_down(struct channel *channel)
{
    shutdown(channel->fd, SHUT_RDWR);
}

/* 0: ready. */
static int wait_for(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd ready = {.fd = fd, .events = events};
    uint64_t now_ns = clock_now_ns();
    int n = 0;

    do {
        if (now_ns >= deadline_ns)
            return -ETIMEDOUT;
        n = poll(&ready, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1);
        now_ns = clock_now_ns();
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return n ? 0 : -ETIMEDOUT;
}

/* ---- Unix socket ---- */

static int connect_unix(const char *path, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, status;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        status = -errno;
        close(fd);
        return status;
    }
    *ret_fd = fd;
    return 0;
}

static int explain_unix(int status, const char *path)
{
    const char *remedy = "";

    if (status == -ENOENT || status == -ECONNREFUSED)
        remedy = " No leasefs serves there: mount one, or name its control socket (--control, -o control=) or server "
                 "(--server).";
    else if (status == -EACCES)
        remedy = " The socket belongs to the user who mounted: ask as that user.";
    return error_set(status, "control socket %s: %s.%s", path, strerror(-status), remedy);
}

int channel_open_unix(const char *path, struct channel **ret_channel)
{
    struct channel *channel = NULL;
    int status = channel_new(path, &channel);

    if (!status)
        status = connect_unix(path, &channel->fd);
    if (status) {
        channel_free(channel);
        return explain_unix(status, path);
    }
    *ret_channel = channel;
    return 0;
}

/* ---- TCP ---- */

static int connect_one(const struct addrinfo *address, uint64_t deadline_ns, int *ret_fd)
{
    int status = 0, fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t length = sizeof(status);

    if (fd < 0)
        return -errno;
    if (connect(fd, address->ai_addr, address->ai_addrlen) < 0) {
        status = errno == EINPROGRESS ? wait_for(fd, POLLOUT, deadline_ns) : -errno;
        if (!status && getsockopt(fd, SOL_SOCKET, SO_ERROR, &status, &length) == 0)
            status = -status;
    }
    if (status) {
        close(fd);
        return status;
    }
    *ret_fd = fd;
    return 0;
}

static int connect_tcp(const char *server, const struct host_port *where, uint64_t deadline_ns, int *ret_fd)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG, .ai_socktype = SOCK_STREAM}, *all, *one;
    int status = -EHOSTUNREACH, code;
    char port[8];

    snprintf(port, sizeof(port), "%u", where->port);
    code = getaddrinfo(where->host, port, &hints, &all);
    if (code == EAI_NONAME || code == EAI_ADDRFAMILY) { /* a loopback address alone is no reason for AI_ADDRCONFIG */
        hints.ai_flags &= ~AI_ADDRCONFIG;
        code = getaddrinfo(where->host, port, &hints, &all);
    }
    if (code)
        return error_set(-EHOSTUNREACH, "server %s: %s. Check its name.", server, gai_strerror(code));
    for (one = all; one; one = one->ai_next) {
        status = connect_one(one, deadline_ns, ret_fd);
        if (!status)
            break;
    }
    freeaddrinfo(all);
    if (!status)
        return 0;
    return error_set(status, "server %s, port %s: %s.%s", server, port, strerror(-status),
                     status == -ECONNREFUSED ? " No leasefs listens there (leasefs -o listen=ADDRESS,keys=FILE)."
                     : status == -ETIMEDOUT  ? " The host is down, or a firewall is between."
                                             : "");
}

/* ---- keys ---- */

static int default_key_file(char *path, size_t size)
{
    const char *named = getenv("LEASEFS_KEY"), *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    int length;

    if (named && *named)
        length = snprintf(path, size, "%s", named);
    else if (config && *config == '/')
        length = snprintf(path, size, "%s/leasefs/key", config);
    else if (geteuid() == 0 || !home || *home != '/')
        length = snprintf(path, size, "/etc/leasefs/key");
    else
        length = snprintf(path, size, "%s/.config/leasefs/key", home);
    return length > 0 && (size_t)length < size ? 0 : -ENAMETOOLONG;
}

static int read_key(const char *key_file, gnutls_psk_client_credentials_t credentials)
{
    struct key_set *set = NULL;
    char path[4096], *why = NULL;
    gnutls_datum_t secret;
    int status = key_file ? 0 : default_key_file(path, sizeof(path));

    if (!status)
        status = key_file_read(key_file ? key_file : path, KEY_FILE_CLIENT, &set, &why);
    if (status) {
        status =
            error_set(status, "no key: %s.%s", why ? why : strerror(-status),
                      status == -ENOENT ? " Ask the server's administrator for one (leasectl key new), and name it "
                                          "with --key or LEASEFS_KEY, or put it there."
                                        : "");
        free(why);
        return status;
    }
    secret = (gnutls_datum_t){set->keys[0]->secret, (unsigned)set->keys[0]->secret_size};
    status = tls_errno(gnutls_psk_set_client_credentials(credentials, set->keys[0]->name, &secret, GNUTLS_PSK_KEY_RAW));
    key_set_free(set);
    return status ? error_set(status, "the key cannot be used: %s", strerror(-status)) : 0;
}

/* ---- TLS ---- */

static int explain_handshake(const struct channel *channel, int code, int status)
{
    if (status == -ETIMEDOUT)
        return error_set(status, "server %s: no answer to the TLS handshake. Does leasefs serve there?", channel->name);
    /* A server that does not take a key says so by an alert; which one depends on its library. */
    if (code == GNUTLS_E_FATAL_ALERT_RECEIVED)
        return error_set(-EACCES,
                         "server %s does not take this key (TLS alert: %s). The name or the key is not in its file of "
                         "keys, or it has been changed.",
                         channel->name, gnutls_alert_get_name(gnutls_alert_get(channel->tls)));
    if (status == -ECONNRESET)
        return error_set(status, "server %s ended the connection during the TLS handshake. Does leasefs serve there?",
                         channel->name);
    return error_set(status, "server %s: no TLS 1.3 with a pre-shared key: %s. Does leasefs serve there?",
                     channel->name, gnutls_strerror(code));
}

static int shake_hands(struct channel *channel, uint64_t deadline_ns)
{
    int code, status = 0;

    do {
        code = gnutls_handshake(channel->tls);
        if (code == GNUTLS_E_AGAIN)
            status = wait_for(channel->fd, gnutls_record_get_direction(channel->tls) ? POLLOUT : POLLIN, deadline_ns);
        else if (code < 0 && gnutls_error_is_fatal(code))
            status = tls_errno(code);
    } while (code < 0 && !status);
    if (status)
        return explain_handshake(channel, code, status);
    if (!tls_as_agreed(channel->tls))
        return error_set(-EPROTO, "server %s: not the TLS that was asked for", channel->name);
    return 0;
}

static int open_tls(struct channel *channel, const char *key_file)
{
    uint64_t deadline_ns = clock_now_ns() + CHANNEL_CONNECT_TIMEOUT_MS * NS_PER_MS;
    struct host_port where;
    int status;

    if (host_port_parse(channel->name, LEASEFS_TCP_PORT, &where) || !where.port)
        return error_set(-EINVAL, "server %s: it is HOST, HOST:PORT or [IPV6]:PORT", channel->name);
    status = tls_errno(gnutls_psk_allocate_client_credentials(&channel->credentials));
    if (!status)
        status = tls_priority_new(&channel->priority);
    if (status)
        return error_set(status, "no TLS: %s", strerror(-status));
    status = read_key(key_file, channel->credentials);
    if (!status)
        status = connect_tcp(channel->name, &where, deadline_ns, &channel->fd);
    if (status)
        return status;
    tls_watch_peer(channel->fd, CHANNEL_DEAD_AFTER_MS);
    status = tls_session_new(GNUTLS_CLIENT, channel->fd, channel->priority, channel->credentials, &channel->tls);
    if (status)
        return error_set(status, "no TLS: %s", strerror(-status));
    return shake_hands(channel, deadline_ns);
}

int channel_open_tls(const char *server, const char *key_file, struct channel **ret_channel)
{
    struct channel *channel;
    int status = channel_new(server, &channel);

    if (status)
        return error_set(status, "out of memory");
    status = open_tls(channel, key_file);
    if (status) {
        channel_free(channel);
        return status;
    }
    *ret_channel = channel;
    return 0;
}

/* ---- bytes ---- */

static ssize_t send_some(struct channel *channel, const char *bytes, size_t length, bool again)
{
    ssize_t sent;

    pthread_mutex_lock(&channel->lock);
    if (channel->tls) {
        sent = again ? tls_send(channel->tls, NULL, 0) : tls_send(channel->tls, bytes, length);
    } else {
        sent = send(channel->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        sent = sent < 0 ? -errno : sent;
    }
    pthread_mutex_unlock(&channel->lock);
    return sent;
}

static int send_in_turn(struct channel *channel, const char *bytes, size_t length)
{
    uint64_t deadline_ns = clock_now_ns() + CHANNEL_SEND_TIMEOUT_MS * NS_PER_MS;
    bool again = false;
    int status = 0;

    while (length && !status) {
        ssize_t sent = send_some(channel, bytes, length, again);

        again = sent == -EAGAIN;
        if (again) {
            status = wait_for(channel->fd, POLLOUT, deadline_ns);
        } else if (sent >= 0) {
            bytes += sent;
            length -= (size_t)sent;
        } else if (sent != -EINTR) {
            status = (int)sent;
        }
    }
    return status;
}

int channel_send(struct channel *channel, const char *bytes, size_t length)
{
    int status;

    pthread_mutex_lock(&channel->lock);
    while (channel->sending)
        pthread_cond_wait(&channel->turn, &channel->lock);
    channel->sending = true;
    pthread_mutex_unlock(&channel->lock);

    status = send_in_turn(channel, bytes, length);
    /* A line cut short would garble the next one: the receiving thread sees the end and breaks the connection. */
    if (status)
        channel_shut_down(channel);

    pthread_mutex_lock(&channel->lock);
    channel->sending = false;
    pthread_cond_signal(&channel->turn);
    pthread_mutex_unlock(&channel->lock);
    return status;
}

ssize_t channel_receive(struct channel *channel, void *buffer, size_t size)
{
    ssize_t got;

    if (!channel->tls) {
        do
            got = recv(channel->fd, buffer, size, MSG_DONTWAIT);
        while (got < 0 && errno == EINTR);
        return got < 0 ? -errno : got;
    }
    pthread_mutex_lock(&channel->lock);
    got = tls_receive(channel->tls, buffer, size);
    pthread_mutex_unlock(&channel->lock);
    return got;
}

ssize_t channel_await(struct channel *channel, void *buffer, size_t size)
{
    struct pollfd ready = {.fd = channel->fd, .events = POLLIN};
    ssize_t got;

    /* Not by a recv() that waits: Linux wakes it, for nothing, when the other side has read what was sent before. What
     * TLS has read already is no news to poll(). */
    if (channel->tls && (got = channel_receive(channel, buffer, size)) != -EAGAIN)
        return got;
    do
        if (poll(&ready, 1, -1) < 0 && errno != EINTR)
            return -errno;
    while ((got = channel_receive(channel, buffer, size)) == -EAGAIN);
    return got;
}

bool channel_buffers(struct channel *channel)
{
    bool buffers;

    if (!channel->tls)
        return false;
    pthread_mutex_lock(&channel->lock);
    buffers = gnutls_record_check_pending(channel->tls) > 0;
    pthread_mutex_unlock(&channel->lock);
    return buffers;
}
