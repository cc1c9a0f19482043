/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/remote.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "lease/host_port.h"
#include "lease/key_file.h"
#include "lease/log_limit.h"
#include "lease/service_private.h"
#include "lease/tls.h"

#define LISTENERS_MAX   16
#define BACKLOG         128
#define STRANGERS_FIRST 100 /* sd-event: smaller numbers go first, the rest of the service has 0 */
#define TURN_AWAY_BYTES 256

#define DEFAULT_HANDSHAKES        256u
#define DEFAULT_SOURCE_HANDSHAKES 64u
#define DEFAULT_SESSIONS          (LEASEFS_MAX_SESSIONS / 4 * 3) /* the rest is for those at the Unix socket */
#define DEFAULT_KEY_SESSIONS      256u
#define DEFAULT_HANDSHAKE_MS      10000u
#define DEFAULT_IDLE_MS           3600000u

/* One that is shaking hands. */
struct stranger {
    struct remote *remote;
    TAILQ_ENTRY(stranger) link; /* the oldest first */
    int fd;
    gnutls_session_t tls;
    struct sockaddr_storage from;
    struct client_key *key; /* whose name it gave; proven only when the handshake is through. NULL: nobody's */
    sd_event_source *io, *timeout;
};

struct listener {
    int fd;
    sd_event_source *source;
};

struct remote {
    struct lease_service *service;
    struct remote_limits limits;
    gnutls_priority_t priority;
    gnutls_psk_server_credentials_t credentials;
    struct listener listeners[LISTENERS_MAX];
    size_t n_listeners;

    /* control thread */
    struct key_set *keys;
    TAILQ_HEAD(, stranger) strangers;
    unsigned n_strangers;
    bool stopped;
    struct log_limit refusals, arrivals;

    /* The secret of every name that nobody has: who guesses names learns nothing from how he is refused. */
    uint8_t decoy[KEY_SECRET_BYTES];
};

/* ---- strangers ---- */

static void stranger_free(struct stranger *stranger)
{
    struct remote *remote = stranger->remote;

    TAILQ_REMOVE(&remote->strangers, stranger, link);
    remote->n_strangers--;
    sd_event_source_disable_unref(stranger->io);
    sd_event_source_disable_unref(stranger->timeout);
    if (stranger->tls)
        gnutls_deinit(stranger->tls);
    if (stranger->fd >= 0)
        close(stranger->fd);
    client_key_unref(stranger->key);
    free(stranger);
}

static const struct log_rate log_rate = {.lines = 10, .window_ns = UINT64_C(10000000000)};

static void refuse(struct stranger *stranger, const char *why)
{
    char from[HOST_PORT_TEXT];
    unsigned dropped;

    if (log_limit_allows(&stranger->remote->refusals, &log_rate, service_now_ns(), &dropped))
        service_log("remote client at %s refused: %s%s", host_port_text(&stranger->from, from), why,
                    dropped ? " (and more that were not logged)" : "");
    stranger_free(stranger);
}

/* From the same place? Of an IPv6 address that is its network: hosts choose the rest themselves. */
static bool same_source(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)a, *b6 = (const struct sockaddr_in6 *)b;

    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr == ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return memcmp(&a6->sin6_addr, &b6->sin6_addr, IN6_IS_ADDR_V4MAPPED(&a6->sin6_addr) ? 16 : 8) == 0;
}

/* A flood drives itself out: the oldest of its source, or of all, makes room. One that means it takes milliseconds. */
static void make_room(struct remote *remote, const struct sockaddr_storage *from)
{
    struct stranger *stranger, *oldest = NULL;
    unsigned count = 0;

    TAILQ_FOREACH(stranger, &remote->strangers, link)
    {
        if (!same_source(&stranger->from, from))
            continue;
        count++;
        if (!oldest)
            oldest = stranger;
    }
    if (count < remote->limits.source_handshakes)
        oldest = remote->n_strangers < remote->limits.handshakes ? NULL : TAILQ_FIRST(&remote->strangers);
    if (oldest)
        refuse(oldest, "too many handshakes at once, and this was the oldest");
}

/* Names the key that the client says it has; GnuTLS then lets it prove that. */
static int find_secret(gnutls_session_t tls, const gnutls_datum_t *name, gnutls_datum_t *ret_secret)
{
    struct stranger *stranger = gnutls_session_get_ptr(tls);
    struct client_key *key = key_set_find(stranger->remote->keys, (const char *)name->data, name->size);
    const uint8_t *secret = key ? key->secret : stranger->remote->decoy;
    unsigned size = key ? (unsigned)key->secret_size : KEY_SECRET_BYTES;

    client_key_unref(stranger->key);
    stranger->key = key ? client_key_ref(key) : NULL;
    ret_secret->data = gnutls_malloc(size);
    if (!ret_secret->data)
        return -1;
    memcpy(ret_secret->data, secret, size);
    ret_secret->size = size;
    return 0;
}

static unsigned count_sessions(const struct remote *remote, const char *key_name)
{
    unsigned count = 0;

    for (const struct session *s = remote->service->sessions; s; s = s->next)
        count += s->key && (!key_name || strcmp(s->key->name, key_name) == 0);
    return count;
}

/* What a client is told that has a key but no place. It fits into any socket's buffer. */
static void turn_away(struct stranger *stranger, const char *why)
{
    char line[TURN_AWAY_BYTES];

    snprintf(
        line, sizeof(line),
        "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":%d,\"message\":\"%s\",\"data\":{\"errno\":\"EMFILE\","
        "\"reason\":\"limit\",\"remedy\":\"Close sessions that are not needed.\"}}}\n",
        LEASEFS_RPC_REFUSED, why);
    if (tls_send(stranger->tls, line, strlen(line)) > 0)
        gnutls_bye(stranger->tls, GNUTLS_SHUT_WR);
    refuse(stranger, why);
}

/* The handshake is through: it has the key. */
static void admit(struct stranger *stranger)
{
    struct remote *remote = stranger->remote;
    struct session_peer peer = {stranger->fd, stranger->tls, stranger->key, stranger->from};
    char name[KEY_NAME_MAX + 1], from[HOST_PORT_TEXT];
    unsigned dropped;

    if (!stranger->key || !tls_as_agreed(stranger->tls)) {
        refuse(stranger, "not the handshake that was asked for");
    } else if (remote->service->n_sessions >= LEASEFS_MAX_SESSIONS ||
               count_sessions(remote, NULL) >= remote->limits.sessions) {
        turn_away(stranger, "too many remote sessions");
    } else if (count_sessions(remote, stranger->key->name) >= remote->limits.key_sessions) {
        turn_away(stranger, "too many sessions with this key");
    } else {
        strcpy(name, stranger->key->name);
        sd_event_source_disable_unref(stranger->io); /* before the session watches the same descriptor */
        stranger->io = NULL;
        if (session_new(remote->service, &peer) < 0) {
            refuse(stranger, "no memory for a session");
            return;
        }
        if (log_limit_allows(&remote->arrivals, &log_rate, service_now_ns(), &dropped))
            service_log("remote client %s at %s", name, host_port_text(&stranger->from, from));
        stranger->fd = -1;
        stranger->tls = NULL;
        stranger->key = NULL;
        stranger_free(stranger);
    }
}

static int on_handshake(sd_event_source *source, int fd, uint32_t events, void *arg)
{
    struct stranger *stranger = arg;
    int code;

    (void)source, (void)fd, (void)events;
    do
        code = gnutls_handshake(stranger->tls);
    while (code == GNUTLS_E_INTERRUPTED);
    if (code == GNUTLS_E_SUCCESS) {
        admit(stranger);
    } else if (code == GNUTLS_E_AGAIN) {
        sd_event_source_set_io_events(stranger->io, gnutls_record_get_direction(stranger->tls) ? EPOLLOUT : EPOLLIN);
    } else {
        gnutls_alert_send_appropriate(stranger->tls, code);
        refuse(stranger, gnutls_strerror(code));
    }
    return 0;
}

static int on_handshake_timeout(sd_event_source *source, uint64_t usec, void *arg)
{
    (void)source, (void)usec;
    refuse(arg, "it took too long over its handshake");
    return 0;
}

static int stranger_new(struct remote *remote, int fd, const struct sockaddr_storage *from)
{
    struct lease_service *service = remote->service;
    struct stranger *stranger = calloc(1, sizeof(*stranger));
    int error;

    if (!stranger)
        return -ENOMEM;
    *stranger = (struct stranger){.remote = remote, .fd = -1, .from = *from};
    TAILQ_INSERT_TAIL(&remote->strangers, stranger, link);
    remote->n_strangers++;
    error = tls_session_new(GNUTLS_SERVER, fd, remote->priority, remote->credentials, &stranger->tls);
    if (error)
        goto undo;
    gnutls_session_set_ptr(stranger->tls, stranger);
    error = sd_event_add_io(service->loop, &stranger->io, fd, EPOLLIN, on_handshake, stranger);
    if (error < 0)
        goto undo;
    error = sd_event_add_time_relative(service->loop, &stranger->timeout, CLOCK_MONOTONIC,
                                       (uint64_t)remote->limits.handshake_ms * 1000, 0, on_handshake_timeout, stranger);
    if (error < 0)
        goto undo;
    sd_event_source_set_priority(stranger->io, STRANGERS_FIRST); /* before new ones: what is begun is finished */
    stranger->fd = fd;
    return 0;

undo:
    stranger_free(stranger);
    return error;
}

/* ---- listening ---- */

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *arg)
{
    struct remote *remote = arg;
    struct sockaddr_storage from = {0};
    socklen_t length = sizeof(from);
    int client = accept4(fd, (struct sockaddr *)&from, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (client < 0 && session_accept_pauses(remote->service))
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
    if (client < 0)
        return 0;
    make_room(remote, &from);
    tls_watch_peer(client, (unsigned)(remote->service->config.limits.lease_time_ns / 1000000 / 3 * 2));
    if (stranger_new(remote, client, &from) < 0)
        close(client);
    return 0;
}

void remote_accept_again(struct remote *remote)
{
    if (!remote || remote->stopped)
        return;
    for (size_t i = 0; i < remote->n_listeners; i++)
        sd_event_source_set_enabled(remote->listeners[i].source, SD_EVENT_ON);
}

static int listen_on(struct remote *remote, const struct addrinfo *address, bool both_families)
{
    const int on = 1, off = 0;
    int error, fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, both_families ? &off : &on, sizeof(on));
    if (bind(fd, address->ai_addr, address->ai_addrlen) || listen(fd, BACKLOG)) {
        error = -errno;
        close(fd);
        return error;
    }
    remote->listeners[remote->n_listeners++].fd = fd;
    return 0;
}

__attribute__((format(printf, 3, 4))) static int explain(char **ret_error, int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (vasprintf(ret_error, format, args) < 0)
        *ret_error = NULL;
    va_end(args);
    return error;
}

/* All addresses of a name. "[::]" takes IPv4 as well, unless an IPv4 address has been given, too. */
static int listen_on_name(struct remote *remote, const char *name, bool ipv4_too, char **ret_error)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *all, *one;
    struct host_port where;
    char port[8];
    int error = host_port_parse(name, LEASEFS_TCP_PORT, &where);

    if (error)
        return explain(ret_error, error, "listen=%s: an address is HOST, HOST:PORT or [IPV6]:PORT", name);
    snprintf(port, sizeof(port), "%u", where.port);
    error = getaddrinfo(where.host, port, &hints, &all);
    if (error)
        return explain(ret_error, -EADDRNOTAVAIL, "listen=%s: %s", name, gai_strerror(error));
    for (one = all; one && !error; one = one->ai_next)
        error = remote->n_listeners < LISTENERS_MAX ? listen_on(remote, one, ipv4_too) : -E2BIG;
    freeaddrinfo(all);
    if (error)
        return explain(ret_error, error, "listen=%s: %s%s", name, strerror(-error),
                       error == -EADDRINUSE      ? ": another program has that port; choose another with ADDRESS:PORT"
                       : error == -EADDRNOTAVAIL ? ": no interface of this host has that address"
                                                 : "");
    return 0;
}

static int listen_on_all(struct remote *remote, char **ret_error)
{
    const struct lease_service_config *c = &remote->service->config;
    struct host_port where;
    bool ipv4_too = true;
    int error = 0;

    for (size_t i = 0; i < c->n_listen; i++)
        if (host_port_parse(c->listen[i], 0, &where) == 0 && !strchr(where.host, ':'))
            ipv4_too = false;
    for (size_t i = 0; i < c->n_listen && !error; i++)
        error = listen_on_name(remote, c->listen[i], ipv4_too, ret_error);
    return error;
}

uint16_t lease_service_remote_port(const struct lease_service *service, size_t n)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);

    if (!service->remote || n >= service->remote->n_listeners ||
        getsockname(service->remote->listeners[n].fd, (struct sockaddr *)&address, &length))
        return 0;
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

/* ---- keys ---- */

struct keys_mail {
    struct mail mail;
    struct lease_service *service;
    struct key_set *keys;
};

static void deliver_keys(struct mail *mail)
{
    struct keys_mail *m = container(mail, struct keys_mail, mail);
    struct remote *remote = m->service->remote;
    struct session *session, *next;

    key_set_free(remote->keys);
    remote->keys = m->keys;
    while (!TAILQ_EMPTY(&remote->strangers)) /* with a key that may be gone */
        stranger_free(TAILQ_FIRST(&remote->strangers));
    for (session = m->service->sessions; session; session = next) {
        const struct client_key *now =
            session->key ? key_set_find(remote->keys, session->key->name, strlen(session->key->name)) : NULL;

        next = session->next;
        if (!session->key || (now && client_key_equal(now, session->key)))
            continue;
        service_log("remote client %s: its key %s: session %llu ends", session->key->name,
                    now ? "has changed" : "is gone", (unsigned long long)session->id);
        session_end(session);
    }
    free(m);
}

int lease_service_reload_keys(struct lease_service *service, char **ret_error)
{
    struct keys_mail *m;
    int error;

    *ret_error = NULL;
    if (!service->remote)
        return 0;
    m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    error = key_file_read(service->config.keys_path, KEY_FILE_SERVER, &m->keys, ret_error);
    if (error) {
        free(m);
        return error;
    }
    m->mail.deliver = deliver_keys;
    m->service = service;
    mail_post(service, &m->mail);
    return 0;
}

/* ---- life ---- */

static void set_limits(struct remote_limits *limits, const struct lease_service_config *config)
{
    const uint64_t lease_ms = config->limits.lease_time_ns / 1000000;

    *limits = config->remote;
    limits->handshakes = limits->handshakes ? limits->handshakes : DEFAULT_HANDSHAKES;
    limits->source_handshakes = limits->source_handshakes ? limits->source_handshakes : DEFAULT_SOURCE_HANDSHAKES;
    limits->sessions = limits->sessions ? limits->sessions : DEFAULT_SESSIONS;
    limits->key_sessions = limits->key_sessions ? limits->key_sessions : DEFAULT_KEY_SESSIONS;
    limits->handshake_ms = limits->handshake_ms ? limits->handshake_ms : DEFAULT_HANDSHAKE_MS;
    /* Whoever holds a lease renews it, so a longer silence means that there is none. */
    if (!limits->idle_ms)
        limits->idle_ms = 2 * lease_ms > DEFAULT_IDLE_MS ? 2 * lease_ms : DEFAULT_IDLE_MS;
}

uint64_t remote_idle_us(const struct remote *remote)
{
    return remote->limits.idle_ms * 1000;
}

int remote_new(struct lease_service *service, struct remote **ret_remote, char **ret_error)
{
    const struct lease_service_config *c = &service->config;
    struct remote *remote;
    int error;

    if (!c->n_listen)
        return 0;
    remote = calloc(1, sizeof(*remote));
    if (!remote)
        return -ENOMEM;
    remote->service = service;
    TAILQ_INIT(&remote->strangers);
    set_limits(&remote->limits, c);
    error = key_file_read(c->keys_path, KEY_FILE_SERVER, &remote->keys, ret_error);
    if (!error)
        error = tls_priority_new(&remote->priority);
    if (!error)
        error = tls_errno(gnutls_psk_allocate_server_credentials(&remote->credentials));
    if (!error)
        error = tls_errno(gnutls_rnd(GNUTLS_RND_KEY, remote->decoy, sizeof(remote->decoy)));
    if (!error)
        error = listen_on_all(remote, ret_error);
    if (error) {
        remote_free(remote);
        return error;
    }
    gnutls_psk_set_server_credentials_function2(remote->credentials, find_secret);
    *ret_remote = remote;
    return 0;
}

int remote_start(struct remote *remote)
{
    int error = 0;

    for (size_t i = 0; remote && i < remote->n_listeners && error >= 0; i++) {
        error = sd_event_add_io(remote->service->loop, &remote->listeners[i].source, remote->listeners[i].fd, EPOLLIN,
                                on_accept, remote);
        if (error >= 0)
            error = sd_event_source_set_priority(remote->listeners[i].source, STRANGERS_FIRST + 1);
    }
    return error < 0 ? error : 0;
}

void remote_stop(struct remote *remote)
{
    if (!remote)
        return;
    remote->stopped = true;
    for (size_t i = 0; i < remote->n_listeners; i++)
        sd_event_source_set_enabled(remote->listeners[i].source, SD_EVENT_OFF);
    while (!TAILQ_EMPTY(&remote->strangers))
        stranger_free(TAILQ_FIRST(&remote->strangers));
}

void remote_free(struct remote *remote)
{
    if (!remote)
        return;
    while (!TAILQ_EMPTY(&remote->strangers))
        stranger_free(TAILQ_FIRST(&remote->strangers));
    for (size_t i = 0; i < remote->n_listeners; i++) {
        sd_event_source_unref(remote->listeners[i].source);
        close(remote->listeners[i].fd);
    }
    if (remote->credentials)
        gnutls_psk_free_server_credentials(remote->credentials);
    if (remote->priority)
        gnutls_priority_deinit(remote->priority);
    key_set_free(remote->keys);
    explicit_bzero(remote->decoy, sizeof(remote->decoy));
    free(remote);
}
