/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TEST_INITIATOR_FIXTURE_H
#define LEASEFS_TEST_INITIATOR_FIXTURE_H

/*
 * A session of the client library and its leases, against a server of a few lines, without RDMA. The server grants
 * everything: lease 7, bytes 4096 to 12287 of whatever file; or behaves as it is told to.
 */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "rdma/initiator/clock.h"
#include "rdma/initiator/session.h"
#include <leasefs/leasefs.h>

/* Where the bytes are does not matter: nothing moves here. */
static inline int begin_transfer(struct leasefs_lease *lease, bool write, uint64_t offset, size_t length)
{
    struct lease_target target;

    return lease_transfer_begin(lease, write, offset, length, &target);
}

/* ---- the server ---- */

/* What a server is to do other than grant everything. */
struct behaviour {
    json_int_t lease_time_ms; /* 0: long */
    const char *after_grant;  /* a line sent right behind a grant, in the same write */
    const char *meanwhile;    /* a lease waits until another request was answered, and this line sent */
    const char *refuse_lease; /* an error object */
    const char *refuse_renew; /* likewise */
    bool garbage;             /* answer a lease with no JSON at all */
    const char *kept;         /* what is kept after the return of a part: a list */
    const char *refuse_part;  /* an error object */
    const char *before_kept;  /* a line sent before that answer */
};

struct server {
    char path[64];
    int listener, fd;
    pthread_t thread;
    struct behaviour behaviour;

    pthread_mutex_t lock;
    pthread_cond_t seen;
    unsigned leases, renewals, returns, publishes;
    unsigned return_sequence;
    unsigned parts;
    json_t *part;        /* the parameters of the last return of a part */
    json_t *asked;       /* the parameters of the last lease */
    json_t *late_params; /* of a lease that waits */
    json_int_t late_id;
};

static inline void send_text(struct server *server, const char *text)
{
    assert_int_equal(send(server->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static inline void reply(struct server *server, json_int_t id, const char *key, json_t *value, const char *behind)
{
    json_t *message = json_pack("{s:s, s:I, s:o}", "jsonrpc", "2.0", "id", id, key, value);
    char *text = json_dumps(message, JSON_COMPACT), *line;

    assert_true(asprintf(&line, "%s\n%s", text, behind ? behind : "") > 0);
    send_text(server, line);
    free(line);
    free(text);
    json_decref(message);
}

static inline void grant(struct server *server, json_int_t id, json_t *params)
{
    const char *mode = json_string_value(json_object_get(params, "mode"));
    json_t *result = json_pack("{s:i, s:i, s:i, s:s, s:i, s:i, s:i, s:i, s:I, s:I, s:I}", "lease", 7, "sequence", 1,
                               "boot_epoch", 1, "mode", mode, "offset", 4096, "length", 8192, "file_size", 10000,
                               "data_version", 1, "remote_address", (json_int_t)0x7f0012340000, "rkey",
                               (json_int_t)0xfedcba98, "lease_time_ms", server->behaviour.lease_time_ms);

    if (server->behaviour.garbage)
        send_text(server, "Segmentation fault\n");
    else if (server->behaviour.refuse_lease)
        reply(server, id, "error", json_loads(server->behaviour.refuse_lease, 0, NULL), NULL);
    else
        reply(server, id, "result", result, server->behaviour.after_grant);
    if (server->behaviour.garbage || server->behaviour.refuse_lease)
        json_decref(result);
}

static inline void count(struct server *server, unsigned *counter)
{
    pthread_mutex_lock(&server->lock);
    ++*counter;
    pthread_cond_broadcast(&server->seen);
    pthread_mutex_unlock(&server->lock);
}

static inline void answer_part(struct server *server, json_int_t id, json_t *params)
{
    pthread_mutex_lock(&server->lock);
    json_decref(server->part);
    server->part = json_incref(params);
    pthread_mutex_unlock(&server->lock);
    count(server, &server->parts);
    if (server->behaviour.before_kept)
        send_text(server, server->behaviour.before_kept);
    if (server->behaviour.refuse_part)
        reply(server, id, "error", json_loads(server->behaviour.refuse_part, 0, NULL), NULL);
    else
        reply(server, id, "result", json_pack("{s:o}", "kept", json_loads(server->behaviour.kept, 0, NULL)), NULL);
}

static inline void answer_return(struct server *server, json_int_t id, json_t *params)
{
    if (json_object_get(params, "length") || json_object_get(params, "mode")) {
        answer_part(server, id, params);
        return;
    }
    pthread_mutex_lock(&server->lock);
    server->return_sequence = (unsigned)json_integer_value(json_object_get(params, "sequence"));
    pthread_mutex_unlock(&server->lock);
    count(server, &server->returns);
    reply(server, id, "result", json_object(), NULL);
}

static inline void answer(struct server *server, json_t *request)
{
    const char *method = json_string_value(json_object_get(request, "method"));
    json_t *params = json_object_get(request, "params");
    json_int_t id = json_integer_value(json_object_get(request, "id"));

    if (!strcmp(method, "session")) {
        reply(server, id, "result", json_pack("{s:i, s:i}", "session", 1, "block_size", 4096), NULL);
    } else if (!strcmp(method, "lease")) {
        pthread_mutex_lock(&server->lock);
        json_decref(server->asked);
        server->asked = json_deep_copy(params);
        pthread_mutex_unlock(&server->lock);
        count(server, &server->leases);
        if (server->behaviour.meanwhile) {
            server->late_id = id;
            server->late_params = json_incref(params);
        } else {
            grant(server, id, params);
        }
    } else if (!strcmp(method, "renew")) {
        count(server, &server->renewals);
        if (server->behaviour.refuse_renew)
            reply(server, id, "error", json_loads(server->behaviour.refuse_renew, 0, NULL), NULL);
        else
            reply(server, id, "result", json_pack("{s:I}", "lease_time_ms", server->behaviour.lease_time_ms), NULL);
    } else if (!strcmp(method, "return")) {
        answer_return(server, id, params);
    } else if (!strcmp(method, "create")) {
        reply(server, id, "result", json_pack("{s:i, s:i}", "file", 3, "inode", 9), NULL);
    } else if (!strcmp(method, "publish")) {
        count(server, &server->publishes);
        reply(server, id, "result", json_pack("{s:i}", "inode", 9), NULL);
    } else {
        reply(server, id, "error", json_pack("{s:i, s:s}", "code", -32601, "message", "no such method"), NULL);
        if (server->late_params) {
            send_text(server, server->behaviour.meanwhile);
            grant(server, server->late_id, server->late_params);
            json_decref(server->late_params);
            server->late_params = NULL;
        }
    }
}

static inline void *serve(void *arg)
{
    struct server *server = arg;
    FILE *input;
    char *line = NULL;
    size_t size = 0;

    server->fd = accept(server->listener, NULL, NULL);
    input = fdopen(dup(server->fd), "r");
    while (getline(&line, &size, input) > 0) {
        json_t *request = json_loads(line, 0, NULL);

        assert_non_null(request);
        answer(server, request);
        json_decref(request);
    }
    free(line);
    fclose(input);
    return NULL;
}

static inline struct server *start_server_that(const struct behaviour *behaviour)
{
    struct server *server = calloc(1, sizeof(*server));
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    server->behaviour = *behaviour;
    if (!server->behaviour.lease_time_ms)
        server->behaviour.lease_time_ms = 60000;
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->seen, NULL);
    snprintf(server->path, sizeof(server->path), "/tmp/test_initiator.%d", getpid());
    strcpy(address.sun_path, server->path);
    unlink(server->path);
    server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(server->listener, 1), 0);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
    return server;
}

static inline struct server *start_server(void)
{
    return start_server_that(&(const struct behaviour){0});
}

static inline void stop_server(struct server *server)
{
    shutdown(server->fd, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->fd);
    close(server->listener);
    unlink(server->path);
    json_decref(server->part);
    json_decref(server->asked);
    free(server);
}

static inline void await(struct server *server, unsigned *counter, unsigned value)
{
    pthread_mutex_lock(&server->lock);
    while (*counter < value)
        pthread_cond_wait(&server->seen, &server->lock);
    pthread_mutex_unlock(&server->lock);
}

static inline unsigned peek(pthread_mutex_t *lock, const unsigned *value)
{
    unsigned copy;

    pthread_mutex_lock(lock);
    copy = *value;
    pthread_mutex_unlock(lock);
    return copy;
}

/* ---- the peer ---- */

struct notices {
    pthread_mutex_t lock;
    pthread_cond_t came;
    unsigned recalls, cancellations, revocations;
    unsigned deadline_ms;
    char reason[64];
    enum leasefs_recall_action action;
    int call_status; /* of a call made inside the callback */
    struct leasefs_session *session;
};

static inline enum leasefs_recall_action on_notice(struct leasefs_lease *lease, enum leasefs_notice notice,
                                                   unsigned deadline_ms, const char *reason, void *arg)
{
    struct notices *notices = arg;

    /* Whoever it was that read the notification. */
    assert_true(pthread_equal(pthread_self(), lease->session->thread));
    pthread_mutex_lock(&notices->lock);
    notices->recalls += notice == LEASEFS_NOTICE_RECALL;
    notices->cancellations += notice == LEASEFS_NOTICE_RECALL_CANCELLED;
    notices->revocations += notice == LEASEFS_NOTICE_REVOKED;
    if (notice == LEASEFS_NOTICE_RECALL)
        notices->deadline_ms = deadline_ms;
    if (notices->session)
        notices->call_status = leasefs_call(notices->session, "status", NULL, NULL);
    snprintf(notices->reason, sizeof(notices->reason), "%s", reason);
    pthread_cond_broadcast(&notices->came);
    pthread_mutex_unlock(&notices->lock);
    return notices->action;
}

static inline void await_notice(struct notices *notices, unsigned *counter, unsigned value)
{
    pthread_mutex_lock(&notices->lock);
    while (*counter < value)
        pthread_cond_wait(&notices->came, &notices->lock);
    pthread_mutex_unlock(&notices->lock);
}

static inline struct leasefs_session *open_session(struct server *server)
{
    const struct leasefs_session_options options = {.control = server->path};
    struct leasefs_session *session;

    assert_int_equal(leasefs_session_open(&options, &session), 0);
    return session;
}

static inline struct leasefs_lease *open_lease(struct leasefs_session *session, struct notices *notices)
{
    const struct leasefs_lease_options options = {
        .mode = LEASEFS_READ, .no_rdma = true, .on_notice = notices ? on_notice : NULL, .arg = notices};
    struct leasefs_lease *lease;

    assert_int_equal(leasefs_lease_open(session, "/file", &options, &lease), 0);
    return lease;
}

#define NOTICES(ACTION)                                                                                                \
    {                                                                                                                  \
        .lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER, .action = LEASEFS_RECALL_##ACTION         \
    }

/* A server, a session with it, and a lease that may move bytes. */
struct holder {
    struct server *server;
    struct notices notices;
    struct leasefs_session *session;
    struct leasefs_lease *lease;
};

/* Transfers under way are counted without RDMA, so that the rules for their begin and end can be seen alone. Makes a
 * lease taken without a connection believe in one. */
static inline void allow_transfers(struct leasefs_lease *lease)
{
    pthread_mutex_lock(&lease->session->lock);
    lease->options.no_rdma = false;
    pthread_mutex_unlock(&lease->session->lock);
}

static inline void hold(struct holder *holder, const struct behaviour *behaviour, enum leasefs_recall_action action)
{
    *holder = (struct holder){.server = start_server_that(behaviour), .notices = NOTICES(RETURN)};
    holder->notices.action = action;
    holder->session = open_session(holder->server);
    holder->lease = open_lease(holder->session, &holder->notices);
    allow_transfers(holder->lease);
}

/* Gives the lease back, with that result. */
static inline void let_go(struct holder *holder, int result)
{
    assert_int_equal(leasefs_lease_return(holder->lease), result);
    leasefs_session_close(holder->session);
    stop_server(holder->server);
}

#endif
