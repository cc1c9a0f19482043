/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lease/lock_order.h"
#include "rdma/initiator/clock.h"
#include "rdma/initiator/conn.h"
#include "rdma/initiator/device.h"
#include "rdma/initiator/error.h"
#include "rdma/initiator/loop.h"
#include <leasefs/protocol.h>

#define DEFAULT_DEPTH 16
#define MAX_DEPTH     1024
#define DEFAULT_CHUNK (1024u * 1024)
#define MAX_CHUNK     (1024u * 1024 * 1024)

#define CONNECT_BACK_OFF_MAX_MS 640 /* doubled from 5: 1.3 s in all */

static char default_control[128];

static void find_default_control(void)
{
    const char *directory = getenv("XDG_RUNTIME_DIR");

    if (geteuid() == 0)
        snprintf(default_control, sizeof(default_control), "/run/leasefs.sock");
    else if (directory && *directory == '/' && strlen(directory) < sizeof(default_control) - 16)
        snprintf(default_control, sizeof(default_control), "%s/leasefs.sock", directory);
    else
        snprintf(default_control, sizeof(default_control), "/run/user/%u/leasefs.sock", geteuid());
}

const char *leasefs_default_control(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, find_default_control);
    return default_control;
}

/* ---- opening and closing ---- */

static int take_options(struct leasefs_session *session, const struct leasefs_session_options *options)
{
    const char *client = options->client ? options->client : program_invocation_short_name;

    if (options->depth > MAX_DEPTH || options->chunk > MAX_CHUNK)
        return error_set(-EINVAL, "at most %u requests in flight, of %u bytes", MAX_DEPTH, MAX_CHUNK);
    if (options->idle_leases > LEASEFS_MAX_SESSION_LEASES)
        return error_set(-EINVAL, "at most %u idle leases", LEASEFS_MAX_SESSION_LEASES);
    session->max_idle = options->idle_leases;
    session->driven = options->caller_drives;
    session->depth = options->depth ? options->depth : DEFAULT_DEPTH;
    session->chunk = options->chunk ? options->chunk : DEFAULT_CHUNK;
    session->client = strdup(client);
    session->host = options->host && *options->host ? strdup(options->host) : NULL;
    if (!session->client || (options->host && *options->host && !session->host))
        return error_set(-ENOMEM, "out of memory");
    return 0;
}

static int greet(struct leasefs_session *session)
{
    json_t *params = json_pack("{s:s, s:i}", "client", session->client, "version", (int)LEASEFS_PROTOCOL_VERSION);
    json_t *result;
    json_int_t block_size = 0;
    int status;

    status = rpc_call(session->rpc, LEASEFS_METHOD_SESSION, params, &result);
    if (status)
        return status;
    block_size = json_integer_value(json_object_get(result, "block_size"));
    json_decref(result);
    if (block_size != LEASEFS_BLOCK_SIZE)
        return error_set(-EPROTO, "the server has blocks of %lld bytes, this library knows %u", (long long)block_size,
                         LEASEFS_BLOCK_SIZE);
    return 0;
}

/* What needs no loop. */
static void session_free(struct leasefs_session *session)
{
    const int fds[] = {session->wake_fd, session->epoll_fd, session->timer_fd};

    conn_unref(session->conn);
    device_free(session->device);
    rpc_free(session->rpc);
    for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_cond_destroy(&session->changed);
    pthread_mutex_destroy(&session->lock);
    free(session->client);
    free(session->host);
    free(session);
}

int leasefs_session_open(const struct leasefs_session_options *options, struct leasefs_session **ret_session)
{
    const struct leasefs_session_options none = {0};
    struct leasefs_session *session = calloc(1, sizeof(*session));
    struct leasefs_session_options where;
    pthread_condattr_t clock;
    int status;

    if (!session)
        return error_set(-ENOMEM, "out of memory");
    if (!options)
        options = &none;
    pthread_mutex_init(&session->lock, NULL);
    lock_rank(&session->lock, LOCK_SESSION, 0);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&session->changed, &clock);
    pthread_condattr_destroy(&clock);
    session->looks_at_ns = UINT64_MAX;
    session->epoll_fd = session->timer_fd = session->conn_fd = -1;
    session->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (session->wake_fd < 0) {
        status = error_set(-errno, "no event counter for the session: %m");
        goto undo_session;
    }
    status = take_options(session, options);
    if (status)
        goto undo_session;
    where = *options;
    where.control = options->control ? options->control : leasefs_default_control();
    status = rpc_connect(&where, &session->rpc);
    if (status)
        goto undo_session;
    status = loop_start(session);
    if (status)
        goto undo_session;
    status = greet(session);
    if (status)
        goto undo_loop;
    *ret_session = session;
    return 0;

undo_loop:
    loop_stop(session);
undo_session:
    session_free(session);
    return status;
}

void leasefs_session_close(struct leasefs_session *session)
{
    if (!session)
        return;
    while (session->queues)
        leasefs_queue_free(session->queues);
    lease_return_all(session);
    loop_stop(session);
    session_free(session);
}

/* ---- the RDMA connection ---- */

/* Two hexadecimal digits a byte. */
static int parse_cookie(const char *text, uint8_t *ret_cookie)
{
    if (!text || strlen(text) != 2 * LEASEFS_COOKIE_SIZE || strspn(text, "0123456789abcdefABCDEF") != strlen(text))
        return -EPROTO;
    for (size_t i = 0; i < LEASEFS_COOKIE_SIZE; i++) {
        const char digits[] = {text[2 * i], text[2 * i + 1], '\0'};

        ret_cookie[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return 0;
}

static int ask_where_to_connect(struct leasefs_session *session, struct cm_request *ret_request)
{
    struct cm_request request = {.depth = session->depth};
    const char *address, *cookie;
    json_t *result;
    json_int_t port;
    int status = rpc_call(session->rpc, LEASEFS_METHOD_CONNECT, NULL, &result);

    if (status)
        return status;
    address = json_string_value(json_object_get(result, "address"));
    cookie = json_string_value(json_object_get(result, "cookie"));
    port = json_integer_value(json_object_get(result, "port"));
    if (!address || port < 1 || port > UINT16_MAX || parse_cookie(cookie, request.cookie))
        status = error_set(-EPROTO, "connect: the server's answer lacks an address, a port or a cookie");
    else
        status = cm_lookup(session->host ? session->host : address, (uint16_t)port, &request.address);
    json_decref(result);
    if (!status)
        *ret_request = request;
    return status;
}

/* Waits, but no longer than the control connection lasts. */
static void back_off(struct leasefs_session *session, unsigned ms)
{
    uint64_t until_ns = clock_now_ns() + ms * NS_PER_MS;

    pthread_mutex_lock(&session->lock);
    while (!session->lost && !session_await_locked(session, until_ns))
        ;
    pthread_mutex_unlock(&session->lock);
}

static int try_to_connect(struct leasefs_session *session, struct device **device, struct conn **ret_conn)
{
    struct cm_request request;
    struct cm_link link;
    int status = ask_where_to_connect(session, &request);

    if (!status)
        status = cm_connect(&request, device, &link);
    if (!status)
        status = conn_new(&link, *device, session->chunk, ret_conn);
    if (!status && session->driven)
        conn_meanwhile(*ret_conn, loop_drive_meanwhile, session);
    return status;
}

/* A server that has just broken the connection to take a lease away admits no new one until the lease's memory is out
 * of reach: a matter of milliseconds, so that trying again spares the other leases' holders an error. */
static int make_conn(struct leasefs_session *session, struct device **device, struct conn **ret_conn)
{
    int status = try_to_connect(session, device, ret_conn);

    for (unsigned ms = 5; status == -EAGAIN && ms <= CONNECT_BACK_OFF_MAX_MS; ms *= 2) {
        back_off(session, ms);
        status = try_to_connect(session, device, ret_conn);
    }
    return status;
}

int session_conn(struct leasefs_session *session, struct conn **ret_conn)
{
    struct conn *old, *fresh = NULL;
    struct device *device;
    int status;

    pthread_mutex_lock(&session->lock);
    while (session->connecting)
        session_await_locked(session, UINT64_MAX);
    if (session->conn && !conn_broken(session->conn) && !session->lost) {
        *ret_conn = conn_ref(session->conn);
        pthread_mutex_unlock(&session->lock);
        return 0;
    }
    session->connecting = true;
    old = session->conn;
    session->conn = NULL;
    device = session->device;
    pthread_mutex_unlock(&session->lock);

    /* The session's thread may still watch the old one; it is to let go of it. */
    session_wake(session);
    conn_unref(old);
    status = make_conn(session, &device, &fresh);

    pthread_mutex_lock(&session->lock);
    session->connecting = false;
    session->device = device;
    session->conn = fresh;
    if (fresh)
        *ret_conn = conn_ref(fresh);
    pthread_cond_broadcast(&session->changed);
    pthread_mutex_unlock(&session->lock);
    loop_watch_conn(session);
    return status;
}

/* ---- calls and buffers ---- */

int leasefs_call(struct leasefs_session *session, const char *method, const char *params, char **ret_result)
{
    struct rpc_call call = {.complete = NULL};
    json_t *object = params ? json_loads(params, JSON_REJECT_DUPLICATES, NULL) : NULL;
    json_t *answer;
    int status = session_may_block(session);

    if (status) {
        json_decref(object);
        return status;
    }
    if (params && !json_is_object(object)) {
        json_decref(object);
        return error_set(-EINVAL, "%s: the parameters are no JSON object", method);
    }
    status = rpc_start(session->rpc, method, object, &call);
    if (status)
        return status;
    status = rpc_wait(session->rpc, &call);
    answer = status ? call.error : call.result;
    if (ret_result && answer) {
        char *text = json_dumps(answer, JSON_COMPACT | JSON_ENCODE_ANY);

        if (text)
            *ret_result = text;
        else if (!status)
            status = error_set(-ENOMEM, "out of memory");
    }
    rpc_call_clear(&call);
    return status;
}

int leasefs_buffer_new(struct leasefs_session *session, size_t length, void **ret_buffer)
{
    struct device *device;
    struct conn *conn;
    int status = session_may_block(session);

    /* There is no domain to register in before the way to the server, and with it the device, is known. */
    if (!status)
        status = session_conn(session, &conn);
    if (status)
        return status;
    conn_unref(conn);
    pthread_mutex_lock(&session->lock);
    device = session->device;
    pthread_mutex_unlock(&session->lock);
    return device_buffer_new(device, length, ret_buffer);
}

void leasefs_buffer_free(struct leasefs_session *session, void *buffer)
{
    struct device *device;

    pthread_mutex_lock(&session->lock);
    device = session->device;
    pthread_mutex_unlock(&session->lock);
    if (device && buffer)
        device_buffer_free(device, buffer);
}
