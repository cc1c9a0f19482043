/* SPDX-License-Identifier: BSD-2-Clause */

/* A session and its leases against a server of a few lines, without RDMA. */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
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
static int begin_transfer(struct leasefs_lease *lease, bool write, uint64_t offset, size_t length)
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
    json_t *late_params; /* of a lease that waits */
    json_int_t late_id;
};

static void send_text(struct server *server, const char *text)
{
    assert_int_equal(send(server->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void reply(struct server *server, json_int_t id, const char *key, json_t *value, const char *behind)
{
    json_t *message = json_pack("{s:s, s:I, s:o}", "jsonrpc", "2.0", "id", id, key, value);
    char *text = json_dumps(message, JSON_COMPACT), *line;

    assert_true(asprintf(&line, "%s\n%s", text, behind ? behind : "") > 0);
    send_text(server, line);
    free(line);
    free(text);
    json_decref(message);
}

static void grant(struct server *server, json_int_t id, json_t *params)
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

static void count(struct server *server, unsigned *counter)
{
    pthread_mutex_lock(&server->lock);
    ++*counter;
    pthread_cond_broadcast(&server->seen);
    pthread_mutex_unlock(&server->lock);
}

static void answer_part(struct server *server, json_int_t id, json_t *params)
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

static void answer_return(struct server *server, json_int_t id, json_t *params)
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

static void answer(struct server *server, json_t *request)
{
    const char *method = json_string_value(json_object_get(request, "method"));
    json_t *params = json_object_get(request, "params");
    json_int_t id = json_integer_value(json_object_get(request, "id"));

    if (!strcmp(method, "session")) {
        reply(server, id, "result", json_pack("{s:i, s:i}", "session", 1, "block_size", 4096), NULL);
    } else if (!strcmp(method, "lease")) {
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

static void *serve(void *arg)
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

static struct server *start_server_that(const struct behaviour *behaviour)
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

static struct server *start_server(void)
{
    return start_server_that(&(const struct behaviour){0});
}

static void stop_server(struct server *server)
{
    shutdown(server->fd, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->fd);
    close(server->listener);
    unlink(server->path);
    json_decref(server->part);
    free(server);
}

static void await(struct server *server, unsigned *counter, unsigned value)
{
    pthread_mutex_lock(&server->lock);
    while (*counter < value)
        pthread_cond_wait(&server->seen, &server->lock);
    pthread_mutex_unlock(&server->lock);
}

static unsigned peek(pthread_mutex_t *lock, const unsigned *value)
{
    unsigned copy;

    pthread_mutex_lock(lock);
    copy = *value;
    pthread_mutex_unlock(lock);
    return copy;
}

static const char recall_line[] = "{\"jsonrpc\":\"2.0\",\"method\":\"recall\",\"params\":{\"lease\":7,\"sequence\":2,"
                                  "\"offset\":4096,\"length\":4096,\"deadline_ms\":1500}}\n";
static const char revoked_line[] = "{\"jsonrpc\":\"2.0\",\"method\":\"revoked\",\"params\":{\"lease\":7,\"sequence\":3,"
                                   "\"reason\":\"recall timeout\"}}\n";

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

static enum leasefs_recall_action on_notice(struct leasefs_lease *lease, enum leasefs_notice notice,
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

static void await_notice(struct notices *notices, unsigned *counter, unsigned value)
{
    pthread_mutex_lock(&notices->lock);
    while (*counter < value)
        pthread_cond_wait(&notices->came, &notices->lock);
    pthread_mutex_unlock(&notices->lock);
}

static struct leasefs_session *open_session(struct server *server)
{
    const struct leasefs_session_options options = {.control = server->path};
    struct leasefs_session *session;

    assert_int_equal(leasefs_session_open(&options, &session), 0);
    return session;
}

static struct leasefs_lease *open_lease(struct leasefs_session *session, struct notices *notices)
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

/* Transfers under way are counted without RDMA, so that the rules for their begin and end can be seen alone. Makes a
 * lease taken without a connection believe in one. */
static void allow_transfers(struct leasefs_lease *lease)
{
    pthread_mutex_lock(&lease->session->lock);
    lease->options.no_rdma = false;
    pthread_mutex_unlock(&lease->session->lock);
}

/* ---- tests ---- */

static void a_grant_tells_the_layout(void **state)
{
    struct server *server = start_server();
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, NULL);
    struct leasefs_layout layout;

    (void)state;
    leasefs_lease_layout(lease, &layout);
    assert_int_equal(layout.lease_id, 7);
    assert_int_equal(layout.sequence, 1);
    assert_int_equal(layout.mode, LEASEFS_READ);
    assert_int_equal(layout.offset, 4096);
    assert_int_equal(layout.length, 8192);
    assert_int_equal(layout.file_size, 10000);
    assert_int_equal(layout.remote_address, 0x7f0012340000);
    assert_int_equal(layout.rkey, 0xfedcba98);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(peek(&server->lock, &server->return_sequence), 1);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_refusal_says_what_where_and_what_to_do(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){
        .refuse_lease =
            "{\"code\":-32000,\"message\":\"bytes 4096+8192 are a hole\\u001b[31m\",\"data\":{\"errno\":\"EPERM\","
            "\"reason\":\"hole\",\"remedy\":\"Run leasectl prepare.\",\"offset\":4096,\"length\":8192}}"});
    const struct leasefs_lease_options options = {.mode = LEASEFS_READ, .no_rdma = true};
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = (void *)1;

    (void)state;
    assert_int_equal(leasefs_lease_open(session, "/file", &options, &lease), -EPERM);
    assert_ptr_equal(lease, (void *)1);
    assert_string_equal(leasefs_error(), "lease: bytes 4096+8192 are a hole?[31m. Run leasectl prepare.");
    assert_non_null(strstr(leasefs_error_data(), "\"reason\":\"hole\""));
    leasefs_session_close(session);
    stop_server(server);
}

static void a_recall_is_answered_by_giving_the_lease_back(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(RETURN);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    allow_transfers(lease);
    send_text(server, recall_line);
    await(server, &server->returns, 1);
    assert_int_equal(peek(&server->lock, &server->return_sequence), 2);
    assert_int_equal(peek(&notices.lock, &notices.deadline_ms), 1500);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), -ESTALE);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(peek(&server->lock, &server->returns), 1);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_recall_on_the_heels_of_the_grant_finds_the_lease(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){.after_grant = recall_line});
    struct notices notices = NOTICES(RETURN);
    struct leasefs_session *session;
    struct leasefs_lease *lease;

    (void)state;
    session = open_session(server);
    lease = open_lease(session, &notices);
    await(server, &server->returns, 1);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(peek(&notices.lock, &notices.recalls), 1);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_recall_waits_for_transfers_under_way_and_refuses_new_ones(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(RETURN);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    allow_transfers(lease);
    assert_int_equal(begin_transfer(lease, false, 4096, 8192), 0);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), 0);
    send_text(server, recall_line);
    await_notice(&notices, &notices.recalls, 1);
    /* The notice is given before the state changes: a call that goes through the session's thread waits for that. */
    assert_int_equal(leasefs_call(session, "status", NULL, NULL), -EOPNOTSUPP);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), -ESTALE);
    assert_int_equal(peek(&server->lock, &server->returns), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    assert_int_equal(leasefs_call(session, "status", NULL, NULL), -EOPNOTSUPP);
    assert_int_equal(peek(&server->lock, &server->returns), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    await(server, &server->returns, 1);
    assert_int_equal(leasefs_lease_return(lease), 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_kept_lease_is_not_given_back(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(KEEP);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    allow_transfers(lease);
    send_text(server, recall_line);
    await_notice(&notices, &notices.recalls, 1);
    send_text(server, "{\"method\":\"recall_cancelled\",\"params\":{\"lease\":7,\"sequence\":3}}\n");
    await_notice(&notices, &notices.cancellations, 1);
    assert_int_equal(peek(&server->lock, &server->returns), 0);
    assert_int_equal(begin_transfer(lease, false, 4096, 8192), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(peek(&server->lock, &server->return_sequence), 3);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_revoked_lease_moves_no_bytes(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(KEEP);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    allow_transfers(lease);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), 0);
    send_text(server, revoked_line);
    await_notice(&notices, &notices.revocations, 1);
    pthread_mutex_lock(&notices.lock);
    assert_string_equal(notices.reason, "recall timeout");
    pthread_mutex_unlock(&notices.lock);
    /* One that was under way ended after the revocation: its bytes may be another file's. */
    assert_int_equal(lease_transfer_end(lease, 0), -EREMOTEIO);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), -EREMOTEIO);
    assert_non_null(strstr(leasefs_error(), "recall timeout"));
    assert_int_equal(leasefs_lease_return(lease), -EREMOTEIO);
    assert_int_equal(peek(&server->lock, &server->returns), 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void an_unguarded_lease_leaves_refusing_to_the_nic(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(KEEP);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    allow_transfers(lease);
    lease->options.unguarded = true;
    send_text(server, revoked_line);
    await_notice(&notices, &notices.revocations, 1);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), 0);
    assert_int_equal(lease_transfer_end(lease, -EREMOTEIO), -EREMOTEIO);
    leasefs_lease_return(lease);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_lease_is_renewed_in_time(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){.lease_time_ms = 60});
    struct leasefs_session *session;
    struct leasefs_lease *lease;

    (void)state;
    session = open_session(server);
    lease = open_lease(session, NULL);
    await(server, &server->renewals, 3);
    assert_int_equal(leasefs_lease_return(lease), 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_lease_that_the_server_does_not_renew_has_ended(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){
        .lease_time_ms = 60,
        .refuse_renew = "{\"code\":-32000,\"message\":\"expired\",\"data\":{\"errno\":\"ESTALE\"}}"});
    struct notices notices = NOTICES(KEEP);
    struct leasefs_session *session;
    struct leasefs_lease *lease;

    (void)state;
    session = open_session(server);
    lease = open_lease(session, &notices);
    allow_transfers(lease);
    await_notice(&notices, &notices.revocations, 1);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), -ESTALE);
    assert_int_equal(leasefs_lease_return(lease), -ESTALE);
    leasefs_session_close(session);
    stop_server(server);
}

static void set_expiry(struct leasefs_lease *lease, uint64_t expires_at_ns)
{
    pthread_mutex_lock(&lease->session->lock);
    lease->expires_at_ns = expires_at_ns;
    pthread_mutex_unlock(&lease->session->lock);
}

static void a_completion_after_the_expiry_is_rejected(void **state)
{
    struct server *server = start_server();
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, NULL);

    (void)state;
    allow_transfers(lease);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), 0);
    set_expiry(lease, clock_now_ns());
    assert_int_equal(lease_transfer_end(lease, 0), -ESTALE);
    assert_int_equal(leasefs_lease_return(lease), 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void no_transfer_starts_close_to_the_expiry(void **state)
{
    struct server *server = start_server();
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, NULL);

    (void)state;
    allow_transfers(lease);
    set_expiry(lease, clock_now_ns() + 50 * NS_PER_MS);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), -ESTALE);
    assert_int_equal(leasefs_lease_return(lease), 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void transfers_stay_inside_the_lease(void **state)
{
    struct server *server = start_server();
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, NULL);

    (void)state;
    assert_int_equal(begin_transfer(lease, false, 4096, 1), -EOPNOTSUPP);
    allow_transfers(lease);
    assert_int_equal(begin_transfer(lease, false, 4095, 1), -ERANGE);
    assert_int_equal(begin_transfer(lease, false, 4096, 8193), -ERANGE);
    assert_int_equal(begin_transfer(lease, false, 12288, 1), -ERANGE);
    assert_int_equal(begin_transfer(lease, false, UINT64_MAX, 2), -ERANGE);
    assert_int_equal(begin_transfer(lease, false, 8192, SIZE_MAX), -ERANGE);
    assert_int_equal(begin_transfer(lease, true, 4096, 1), -EBADF);
    assert_int_equal(leasefs_lease_return(lease), 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void the_servers_death_ends_leases_and_calls(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(KEEP);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    allow_transfers(lease);
    stop_server(server);
    await_notice(&notices, &notices.revocations, 1);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), -ESTALE);
    assert_int_equal(leasefs_call(session, "status", NULL, NULL), -ENOTCONN);
    assert_int_equal(leasefs_lease_return(lease), -ESTALE);
    leasefs_session_close(session);
}

static void garbage_from_the_server_ends_the_session(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){.garbage = true});
    const struct leasefs_lease_options options = {.mode = LEASEFS_READ, .no_rdma = true};
    struct leasefs_session *session;
    struct leasefs_lease *lease;

    (void)state;
    session = open_session(server);
    assert_int_equal(leasefs_lease_open(session, "/file", &options, &lease), -ENOTCONN);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_callback_that_would_wait_for_itself_is_refused(void **state)
{
    struct server *server = start_server();
    struct notices notices = NOTICES(RETURN);
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_lease(session, &notices);

    (void)state;
    pthread_mutex_lock(&notices.lock);
    notices.session = session;
    pthread_mutex_unlock(&notices.lock);
    send_text(server, recall_line);
    await(server, &server->returns, 1);
    assert_int_equal((int)peek(&notices.lock, (unsigned *)&notices.call_status), -EDEADLK);
    assert_int_equal(leasefs_lease_return(lease), 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void closing_gives_every_lease_back_first(void **state)
{
    struct server *server = start_server();
    struct leasefs_session *session = open_session(server);

    (void)state;
    open_lease(session, NULL);
    leasefs_session_close(session);
    assert_int_equal(peek(&server->lock, &server->returns), 1);
    stop_server(server);
}

static void an_empty_file_is_published_without_a_lease(void **state)
{
    struct server *server = start_server();
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease;

    (void)state;
    assert_int_equal(leasefs_create(session, "/new", 0644, 0, &lease), 0);
    assert_int_equal(leasefs_publish(lease), 0);
    assert_int_equal(peek(&server->lock, &server->leases), 0);
    assert_int_equal(peek(&server->lock, &server->publishes), 1);
    leasefs_session_close(session);
    stop_server(server);
}

static void nobody_at_the_socket_is_said_with_what_to_do(void **state)
{
    const struct leasefs_session_options options = {.control = "/nonexistent/leasefs.sock"};
    struct leasefs_session *session = (void *)1;

    (void)state;
    assert_int_equal(leasefs_session_open(&options, &session), -ENOENT);
    assert_ptr_equal(session, (void *)1);
    assert_non_null(strstr(leasefs_error(), "/nonexistent/leasefs.sock"));
    assert_non_null(strstr(leasefs_error(), "--control"));
    assert_null(leasefs_error_data());
}

#define PIECE(lease, mode, offset, length)                                                                             \
    "{\"lease\": " lease ", \"sequence\": 2, \"mode\": \"" mode "\", \"offset\": " offset ", \"length\": " length      \
    ", \"file_size\": 10000, \"remote_address\": 4096000, \"rkey\": 99, \"lease_time_ms\": 60000}"

static struct leasefs_lease *open_to_cut(struct leasefs_session *session)
{
    const struct leasefs_lease_options options = {.mode = LEASEFS_WRITE, .no_rdma = true};
    struct leasefs_lease *lease;

    assert_int_equal(leasefs_lease_open(session, "/f", &options, &lease), 0);
    lease->options.no_rdma = false; /* for begin_transfer() */
    return lease;
}

static void a_part_that_is_given_back_leaves_the_rest(void **state)
{
    struct server *server =
        start_server_that(&(const struct behaviour){.kept = "[" PIECE("7", "write", "4096", "4096") "]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session), *rest = lease;
    struct leasefs_layout layout;
    struct lease_target target;

    (void)state;
    assert_int_equal(leasefs_lease_return_range(lease, 8192, 4096, &rest), 0);
    assert_null(rest);
    assert_int_equal(json_integer_value(json_object_get(server->part, "lease")), 7);
    assert_int_equal(json_integer_value(json_object_get(server->part, "offset")), 8192);
    assert_int_equal(json_integer_value(json_object_get(server->part, "length")), 4096);
    leasefs_lease_layout(lease, &layout);
    assert_int_equal(layout.length, 4096);
    assert_int_equal(begin_transfer(lease, true, 8192, 1), -ERANGE);
    assert_int_equal(lease_transfer_begin(lease, true, 4196, 1, &target), 0);
    assert_int_equal(target.remote_address, 4096100);
    assert_int_equal(target.rkey, 99);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(server->returns, 1);
    assert_int_equal(server->return_sequence, 2);
    leasefs_session_close(session);
    stop_server(server);
}

static void the_middle_given_back_makes_two_leases(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){
        .kept = "[" PIECE("7", "write", "4096", "4096") ", " PIECE("8", "write", "20480", "4096") "]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session), *rest;
    struct leasefs_layout layout;

    (void)state;
    lease->layout.length = 20480;
    assert_int_equal(leasefs_lease_return_range(lease, 8192, 12288, NULL), -EINVAL);
    assert_int_equal(peek(&server->lock, &server->parts), 0);
    assert_int_equal(leasefs_lease_return_range(lease, 8192, 12288, &rest), 0);
    leasefs_lease_layout(rest, &layout);
    assert_int_equal(layout.lease_id, 8);
    assert_int_equal(layout.offset, 20480);
    assert_int_equal(begin_transfer(rest, true, 20480, 4096), 0);
    assert_int_equal(lease_transfer_end(rest, 0), 0);
    assert_int_equal(leasefs_lease_return(rest), 0);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(server->returns, 2);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_downgraded_lease_does_not_write(void **state)
{
    struct server *server =
        start_server_that(&(const struct behaviour){.kept = "[" PIECE("7", "read", "4096", "8192") "]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session);

    (void)state;
    assert_int_equal(begin_transfer(lease, true, 4096, 1), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    assert_int_equal(leasefs_lease_downgrade(lease), 0);
    assert_string_equal(json_string_value(json_object_get(server->part, "mode")), "read");
    assert_int_equal(begin_transfer(lease, true, 4096, 1), -EBADF);
    assert_int_equal(begin_transfer(lease, false, 4096, 1), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void nothing_kept_is_the_leases_end(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){.kept = "[]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session);

    (void)state;
    assert_int_equal(leasefs_lease_return_range(lease, 0, 1u << 20, NULL), 0);
    assert_int_equal(begin_transfer(lease, true, 4096, 1), -ESTALE);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(server->returns, 0);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_refused_part_leaves_the_lease_as_it_was(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){
        .refuse_part = "{\"code\": -32000, \"message\": \"no\", \"data\": {\"errno\": \"EMFILE\"}}"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session);

    (void)state;
    assert_int_equal(leasefs_lease_return_range(lease, 4096, 4096, NULL), -EMFILE);
    assert_int_equal(begin_transfer(lease, true, 4096, 8192), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    leasefs_session_close(session);
    stop_server(server);

    /* Sense it must make, though. */
    server = start_server_that(&(const struct behaviour){.kept = "[1, 2, 3]"});
    session = open_session(server);
    lease = open_to_cut(session);
    assert_int_equal(leasefs_lease_downgrade(lease), -EPROTO);
    assert_int_equal(begin_transfer(lease, true, 4096, 1), -ESTALE);
    leasefs_session_close(session);
    stop_server(server);
}

static void *downgrade(void *arg)
{
    assert_int_equal(leasefs_lease_downgrade(arg), 0);
    return NULL;
}

static void a_part_is_given_back_when_transfers_have_ended(void **state)
{
    struct server *server =
        start_server_that(&(const struct behaviour){.kept = "[" PIECE("7", "read", "4096", "8192") "]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session);
    pthread_t thread;

    (void)state;
    assert_int_equal(begin_transfer(lease, true, 4096, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, downgrade, lease), 0);
    for (bool cutting = false; !cutting;) {
        pthread_mutex_lock(&session->lock);
        cutting = lease->cutting;
        pthread_mutex_unlock(&session->lock);
    }
    assert_int_equal(peek(&server->lock, &server->parts), 0);
    assert_int_equal(lease_transfer_end(lease, 0), 0);
    /* Waits for the answer, and reads under the new key. */
    assert_int_equal(begin_transfer(lease, true, 4096, 1), -EBADF);
    pthread_join(thread, NULL);
    assert_int_equal(peek(&server->lock, &server->parts), 1);
    leasefs_session_close(session);
    stop_server(server);
}

static void a_recall_that_crosses_the_return_of_a_part_is_answered(void **state)
{
    struct server *server = start_server_that(&(const struct behaviour){
        .before_kept = "{\"jsonrpc\": \"2.0\", \"method\": \"recall\", \"params\": {\"lease\": 7, \"sequence\": 2, "
                       "\"deadline_ms\": 5000}}\n",
        .kept = "[" PIECE("7", "read", "4096", "8192") "]"});
    struct leasefs_session *session = open_session(server);
    struct leasefs_lease *lease = open_to_cut(session);

    (void)state;
    assert_int_equal(leasefs_lease_downgrade(lease), 0);
    await(server, &server->returns, 1);
    assert_int_equal(leasefs_lease_return(lease), 0);
    assert_int_equal(server->returns, 1);
    leasefs_session_close(session);
    stop_server(server);
}

static void *open_and_return(void *arg)
{
    struct leasefs_lease *lease = open_lease(arg, NULL);

    assert_int_equal(leasefs_lease_return(lease), 0);
    return NULL;
}

/* Who reads the answer to another's call ends that; at what is for the session's thread it stops reading, and gets its
 * own answer from there. */
static void who_waits_longest_reads_for_the_others(void **state)
{
    struct server *server = start_server_that(
        &(const struct behaviour){.meanwhile = "{\"jsonrpc\": \"2.0\", \"method\": \"news of tomorrow\"}\n"});
    struct leasefs_session *session = open_session(server);
    pthread_t waiting;

    (void)state;
    for (unsigned round = 1; round <= 20; round++) {
        assert_int_equal(pthread_create(&waiting, NULL, open_and_return, session), 0);
        await(server, &server->leases, round);
        assert_int_equal(leasefs_call(session, "status", NULL, NULL), -EOPNOTSUPP);
        pthread_join(waiting, NULL);
    }
    leasefs_session_close(session);
    stop_server(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_grant_tells_the_layout),
        cmocka_unit_test(a_refusal_says_what_where_and_what_to_do),
        cmocka_unit_test(a_recall_is_answered_by_giving_the_lease_back),
        cmocka_unit_test(a_recall_on_the_heels_of_the_grant_finds_the_lease),
        cmocka_unit_test(who_waits_longest_reads_for_the_others),
        cmocka_unit_test(a_recall_waits_for_transfers_under_way_and_refuses_new_ones),
        cmocka_unit_test(a_kept_lease_is_not_given_back),
        cmocka_unit_test(a_revoked_lease_moves_no_bytes),
        cmocka_unit_test(an_unguarded_lease_leaves_refusing_to_the_nic),
        cmocka_unit_test(a_lease_is_renewed_in_time),
        cmocka_unit_test(a_lease_that_the_server_does_not_renew_has_ended),
        cmocka_unit_test(a_completion_after_the_expiry_is_rejected),
        cmocka_unit_test(no_transfer_starts_close_to_the_expiry),
        cmocka_unit_test(transfers_stay_inside_the_lease),
        cmocka_unit_test(the_servers_death_ends_leases_and_calls),
        cmocka_unit_test(garbage_from_the_server_ends_the_session),
        cmocka_unit_test(a_callback_that_would_wait_for_itself_is_refused),
        cmocka_unit_test(closing_gives_every_lease_back_first),
        cmocka_unit_test(an_empty_file_is_published_without_a_lease),
        cmocka_unit_test(nobody_at_the_socket_is_said_with_what_to_do),
        cmocka_unit_test(a_part_that_is_given_back_leaves_the_rest),
        cmocka_unit_test(the_middle_given_back_makes_two_leases),
        cmocka_unit_test(a_downgraded_lease_does_not_write),
        cmocka_unit_test(nothing_kept_is_the_leases_end),
        cmocka_unit_test(a_refused_part_leaves_the_lease_as_it_was),
        cmocka_unit_test(a_part_is_given_back_when_transfers_have_ended),
        cmocka_unit_test(a_recall_that_crosses_the_return_of_a_part_is_answered),
    };

    alarm(60);
    return cmocka_run_group_tests_name("initiator_session", tests, NULL, NULL);
}
