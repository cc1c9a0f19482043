/* SPDX-License-Identifier: BSD-2-Clause */
/* Connections: what they say, who the peer is, and the session's life. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lease/key_file.h"
#include "lease/lock_order.h"
#include "lease/remote.h"
#include "lease/service_private.h"
#include "lease/tls.h"

#define ACCEPT_PAUSE_US 100000u /* when there are no file descriptors */

struct session *session_ref(struct session *session)
{
    atomic_fetch_add(&session->refs, 1);
    return session;
}

/* On a fence worker: closing the fabric's side may block, and so may dropping a large nameless file. */
static void session_close(struct work *work)
{
    struct session *session = container(work, struct session, close);
    struct lease_service *service = session->service;

    if (session->fabric)
        service->config.exposure->session_close(session->fabric);
    while (session->files) {
        struct session_file *file = session->files;

        session->files = file->next;
        service->config.layout->close(service->config.fs, file->inode);
        free(file);
    }
    close(session->ended_fd);
    if (!session->key)
        free((void *)session->who.groups);
    client_key_unref(session->key);
    free(session->client);
    free(session->in);
    free(session->out);
    pthread_mutex_destroy(&session->requests_lock);
    pthread_mutex_destroy(&session->output_lock);
    free(session);
    service_idle(service);
}

void session_unref(struct session *session)
{
    if (atomic_fetch_sub(&session->refs, 1) == 1)
        workqueue_push(session->service->fences, &session->close);
}

struct session *session_find(struct lease_service *service, uint64_t session_id)
{
    struct session *session = service->sessions;

    while (session && session->id != session_id)
        session = session->next;
    return session;
}

/* What came by IPv4 to a socket for both is of IPv4. */
static void note_reached(struct session *session)
{
    socklen_t length = sizeof(session->reached);
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&session->reached;
    struct sockaddr_in in = {.sin_family = AF_INET};

    if (getsockname(session->fd, (struct sockaddr *)&session->reached, &length)) {
        session->reached.ss_family = AF_UNSPEC;
        return;
    }
    if (session->reached.ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
        return;
    memcpy(&in.sin_addr, &in6->sin6_addr.s6_addr[12], sizeof(in.sin_addr));
    in.sin_port = in6->sin6_port;
    memcpy(&session->reached, &in, sizeof(in));
}

const struct sockaddr *session_reached(const struct session *session)
{
    return session->reached.ss_family ? (const struct sockaddr *)&session->reached : NULL;
}

bool session_same_key(const struct session *a, const struct session *b)
{
    return a->key && b->key && strcmp(a->key->name, b->key->name) == 0;
}

/* The descriptor is closed with the last reference: a worker may be about to send an answer to it. */
static void end_connection(struct session *session)
{
    if (session->tls) {
        gnutls_bye(session->tls, GNUTLS_SHUT_WR); /* as far as the socket takes it */
        gnutls_deinit(session->tls);
    }
    pthread_mutex_lock(&session->output_lock);
    session->tls = NULL;
    session->ended_fd = session->fd;
    session->fd = -1;
    pthread_mutex_unlock(&session->output_lock);
    shutdown(session->ended_fd, SHUT_RDWR);
}

/* The client is gone: its leases go the way of a return, fence first (I6). */
void session_end(struct session *session)
{
    struct lease_service *service = session->service;

    if (session->fd < 0)
        return;
    atomic_store(&session->ended, true);
    session->io = sd_event_source_disable_unref(session->io);
    session->timeout = sd_event_source_disable_unref(session->timeout);
    end_connection(session);
    *session->prev = session->next;
    if (session->next)
        session->next->prev = session->prev;
    service->n_sessions--;
    requests_abandon(session);
    lease_session_end(service->table, session->id, service_now_ns());
    session_unref(session);
}

void session_end_all(struct lease_service *service)
{
    while (service->sessions)
        session_end(service->sessions);
}

/* ---- input ---- */

static void handle_lines(struct session *session)
{
    char *start = session->in, *end = session->in + session->in_length, *newline;

    while (session->fd >= 0 && (newline = memchr(start, '\n', (size_t)(end - start)))) {
        service_push_own(session->service); /* what the line before has asked for does not wait for this one */
        if (newline > start)
            methods_handle(session, start, (size_t)(newline - start));
        start = newline + 1;
    }
    session->in_length = (size_t)(end - start);
    memmove(session->in, start, session->in_length);
}

static ssize_t receive_some(struct session *session, char *buffer, size_t size)
{
    ssize_t got;

    if (session->tls)
        return tls_receive(session->tls, buffer, size);
    got = recv(session->fd, buffer, size, MSG_DONTWAIT);
    return got < 0 ? -errno : got;
}

static int read_input(struct session *session)
{
    ssize_t got = receive_some(session, session->in + session->in_length, LEASEFS_MAX_MESSAGE - session->in_length);

    if (got == 0)
        return -ECONNRESET;
    if (got < 0)
        return got == -EAGAIN || got == -EINTR ? 0 : (int)got;
    session->heard_at_ns = service_now_ns();
    service_hears(session);
    session->in_length += (size_t)got;
    handle_lines(session);
    if (session->in_length == LEASEFS_MAX_MESSAGE) {
        session_send(session,
                     jsonrpc_error(NULL, LEASEFS_RPC_INVALID_REQUEST, "message longer than 65536 bytes", NULL));
        return -EMSGSIZE;
    }
    return 0;
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *arg)
{
    struct session *session = arg;
    int error = 0;

    (void)source, (void)fd;
    session_ref(session); /* a line may end the session */
    if (events & EPOLLOUT)
        error = session_flush(session);
    if (error >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        error = read_input(session);
        /* What is decrypted already makes no descriptor readable. At most the rest of one record. */
        while (error >= 0 && session->tls && gnutls_record_check_pending(session->tls))
            error = read_input(session);
    }
    if (error < 0)
        session_end(session);
    session_unref(session);
    return 0;
}

static bool has_requests(struct session *session)
{
    bool any;

    pthread_mutex_lock(&session->requests_lock);
    any = session->n_requests > 0;
    pthread_mutex_unlock(&session->requests_lock);
    return any;
}

static uint64_t open_timeout_us(const struct lease_service *service)
{
    return service->config.open_timeout_us ? service->config.open_timeout_us : SESSION_OPEN_TIMEOUT_US;
}

/* It has spoken, and we are so busy that we have not answered, or not even read a byte of it. */
static bool awaits_us(struct session *session)
{
    struct pollfd input = {.fd = session->fd, .events = POLLIN};

    return has_requests(session) || (session->heard_at_ns == session->opened_at_ns && poll(&input, 1, 0) > 0);
}

/* No session by now; or, of a remote client: nothing heard for long. */
static int on_silence(sd_event_source *source, uint64_t usec, void *arg)
{
    struct session *session = arg;
    uint64_t idle_us, silent_us = (service_now_ns() - session->heard_at_ns) / 1000;

    (void)usec;
    if (session->opened && !session->key)
        return 0;
    if (!session->opened && awaits_us(session)) {
        sd_event_source_set_time_relative(source, open_timeout_us(session->service));
        return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    }
    idle_us = session->key ? remote_idle_us(session->service->remote) : 0;
    if (!session->opened || (silent_us >= idle_us && !has_requests(session))) {
        session_end(session);
        return 0;
    }
    sd_event_source_set_time_relative(source, silent_us < idle_us ? idle_us - silent_us : idle_us);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void session_opened(struct session *session)
{
    session->opened = true;
    if (session->key && session->fd >= 0)
        sd_event_source_set_time_relative(session->timeout, remote_idle_us(session->service->remote));
}

/* ---- accepting ---- */

static int identify_by_socket(struct session *session)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);
    gid_t *groups;

    if (getsockopt(session->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length))
        return -errno;
    session->who = (struct lease_credentials){.uid = peer.uid, .gid = peer.gid, .pid = peer.pid};
    length = 64 * sizeof(*groups);
    for (;;) {
        groups = malloc(length);
        if (!groups)
            return -ENOMEM;
        if (getsockopt(session->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) == 0)
            break;
        free(groups); /* length is now what is needed */
        if (errno != ERANGE)
            return -errno;
    }
    session->who.groups = groups;
    session->who.n_groups = length / sizeof(*groups);
    return 0;
}

static void identify_by_key(struct session *session, const struct client_key *key)
{
    session->who = (struct lease_credentials){.uid = key->uid,
                                              .gid = key->gid,
                                              .n_groups = key->n_groups,
                                              .groups = key->groups,
                                              .confined = true,
                                              .n_exports = key->n_exports,
                                              .exports = key->exports};
}

int session_new(struct lease_service *service, const struct session_peer *peer)
{
    struct session *session = calloc(1, sizeof(*session));
    int error = -ENOMEM;

    if (!session)
        return -ENOMEM;
    session->fd = peer->fd;
    session->service = service;
    session->close.run = session_close;
    atomic_init(&session->refs, 1);
    pthread_mutex_init(&session->requests_lock, NULL);
    lock_rank(&session->requests_lock, LOCK_REQUESTS, 0);
    pthread_mutex_init(&session->output_lock, NULL);
    lock_rank(&session->output_lock, LOCK_OUTPUT, 0);
    session->in = malloc(LEASEFS_MAX_MESSAGE);
    if (!session->in)
        goto undo;
    error = peer->key ? 0 : identify_by_socket(session);
    if (error)
        goto undo;
    if (peer->key) {
        identify_by_key(session, peer->key);
        note_reached(session);
    }
    error = sd_event_add_io(service->loop, &session->io, session->fd, EPOLLIN, on_io, session);
    if (error < 0)
        goto undo;
    error = sd_event_add_time_relative(service->loop, &session->timeout, CLOCK_MONOTONIC, open_timeout_us(service), 0,
                                       on_silence, session);
    if (error < 0)
        goto undo;
    session->id = ++service->last_session_id;
    session->opened_at_ns = session->heard_at_ns = service_now_ns();
    session->tls = peer->tls;
    session->key = peer->key;
    session->next = service->sessions;
    session->prev = &service->sessions;
    if (session->next)
        session->next->prev = &session->next;
    service->sessions = session;
    service->n_sessions++;
    service_busy(service);
    return 0;

undo:
    sd_event_source_disable_unref(session->io);
    if (!peer->key)
        free((void *)session->who.groups);
    free(session->in);
    pthread_mutex_destroy(&session->requests_lock);
    pthread_mutex_destroy(&session->output_lock);
    free(session);
    return error;
}

static void turn_away(int client)
{
    static const char full[] = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32000,\"message\":\"too many "
                               "sessions\",\"data\":{\"errno\":\"EMFILE\",\"reason\":\"limit\"}}}\n";

    if (send(client, full, sizeof(full) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        /* The closed connection says it, too. */
    }
    close(client);
}

int session_accept(sd_event_source *source, int fd, uint32_t events, void *arg)
{
    struct lease_service *service = arg;
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct session_peer peer = {.fd = client};

    (void)events;
    if (client < 0 && session_accept_pauses(service))
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
    if (client < 0)
        return 0;
    if (service->n_sessions >= LEASEFS_MAX_SESSIONS)
        turn_away(client);
    else if (session_new(service, &peer) < 0)
        close(client);
    return 0;
}

bool session_accept_pauses(struct lease_service *service)
{
    if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
        return false;
    /* The connection stays in the queue and the socket readable: asking at once again would go on for ever. */
    sd_event_source_set_time_relative(service->accept_again, ACCEPT_PAUSE_US);
    sd_event_source_set_enabled(service->accept_again, SD_EVENT_ONESHOT);
    return true;
}

int session_accept_again(sd_event_source *source, uint64_t usec, void *arg)
{
    struct lease_service *service = arg;

    (void)source, (void)usec;
    remote_accept_again(service->remote);
    return sd_event_source_set_enabled(service->listen_source, SD_EVENT_ON);
}
