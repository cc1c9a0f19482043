/* SPDX-License-Identifier: BSD-2-Clause */
/* One message from a client: which method, which parameters, who carries it out. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lease/service_private.h"

/* ---- parameters ---- */

enum need {
    OPTIONAL,
    REQUIRED,
};

static bool take_uint(const struct request *r, const char *name, enum need need, uint64_t *value)
{
    enum jsonrpc_member found = jsonrpc_get_uint(r->params, name, INT64_MAX, value);

    return found == JSONRPC_FOUND || (found == JSONRPC_ABSENT && need == OPTIONAL);
}

static bool take_path(const struct request *r, const char *name, enum need need, const char **value)
{
    enum jsonrpc_member found = jsonrpc_get_string(r->params, name, LEASEFS_MAX_PATH, value);

    return (found == JSONRPC_FOUND && (*value)[0] == '/') || (found == JSONRPC_ABSENT && need == OPTIONAL);
}

static bool take_mode(struct request *r, enum need need)
{
    const char *mode = NULL;
    enum jsonrpc_member found = jsonrpc_get_string(r->params, "mode", 16, &mode);

    r->mode = LEASE_READ;
    if (found == JSONRPC_FOUND && strcmp(mode, "write") == 0)
        r->mode = LEASE_WRITE;
    else if (found == JSONRPC_FOUND && strcmp(mode, "read") != 0)
        return false;
    return found == JSONRPC_FOUND || (found == JSONRPC_ABSENT && need == OPTIONAL);
}

static bool take_policy(struct request *r)
{
    const char *name = NULL;
    enum jsonrpc_member found = jsonrpc_get_string(r->params, "policy", 16, &name);

    if (found == JSONRPC_FOUND)
        r->policy = lease_policy_named(name, strlen(name));
    return found == JSONRPC_ABSENT || r->policy;
}

static bool take_bool(const struct request *r, const char *name, bool *value)
{
    return jsonrpc_get_bool(r->params, name, value) != JSONRPC_WRONG;
}

static void invalid(struct request *request, const char *what)
{
    request_end(request, jsonrpc_error(request->id, LEASEFS_RPC_INVALID_PARAMS, what, NULL));
}

/* ---- steps of the simpler methods; lease is in grant.c, status in status.c ---- */

static void lease_step(struct request *r)
{
    if (!r->prepared && !r->flushed && !r->pinned) {
        r->wait = true;
        if (!take_path(r, "path", OPTIONAL, &r->path) || !take_uint(r, "file", OPTIONAL, &r->file) ||
            (!r->path == !r->file) || !take_mode(r, REQUIRED) || !take_uint(r, "offset", OPTIONAL, &r->offset) ||
            !take_uint(r, "length", OPTIONAL, &r->length) || !take_bool(r, "prepare", &r->prepare) ||
            !take_bool(r, "wait", &r->wait) || !take_policy(r) || !take_uint(r, "idle", OPTIONAL, &r->idle)) {
            invalid(r,
                    "lease {path: absolute, or file: from create; mode: \"read\" or \"write\"; offset, length: bytes; "
                    "prepare, wait: booleans; policy: \"recall\", \"busy\" or \"orphan\"; idle: an idle lease}");
            return;
        }
    }
    grant_step(r);
}

static void prepare_step(struct request *r)
{
    const struct lease_service_config *c = &r->session->service->config;
    enum lease_mode mode;
    struct lease_range range;
    uint64_t size;
    int error;

    if (!take_path(r, "path", REQUIRED, &r->path) || !take_mode(r, OPTIONAL) ||
        !take_uint(r, "offset", OPTIONAL, &r->offset) || !take_uint(r, "length", OPTIONAL, &r->length)) {
        invalid(r, "prepare {path: absolute; mode: \"read\" or \"write\"; offset, length: bytes}");
        return;
    }
    mode = r->mode;
    r->mode = LEASE_WRITE; /* it changes the file, whatever lease is to follow */
    error = grant_pin(r);
    if (error) {
        request_fail(r, error);
        return;
    }
    if (!grant_range(r, &size))
        return;
    range = (struct lease_range){r->offset, r->length};
    error = c->layout->prepare(c->fs, r->inode, range, mode == LEASE_WRITE, false, &r->waiter);
    if (error == -EINPROGRESS)
        return;
    if (error) {
        request_fail(r, error);
        return;
    }
    range = range_round_out(range, LEASEFS_BLOCK_SIZE);
    request_result(r, json_pack("{s:I, s:I}", "offset", (json_int_t)range.offset, "length", (json_int_t)range.length));
}

static void clone_step(struct request *r)
{
    const struct lease_service_config *c = &r->session->service->config;
    int error;

    if (!take_path(r, "source", REQUIRED, &r->path) || !take_path(r, "destination", REQUIRED, &r->destination)) {
        invalid(r, "clone {source, destination: absolute paths}");
        return;
    }
    error = c->layout->clone(c->fs, r->path, r->destination, &r->session->who, &r->waiter);
    if (error == -EINPROGRESS)
        return;
    if (error)
        request_fail(r, error);
    else
        request_result(r, json_object());
}

static int add_file(struct session *session, uint64_t inode, uint64_t *ret_id)
{
    struct session_file *file = calloc(1, sizeof(*file));
    bool full;

    if (!file)
        return -ENOMEM;
    pthread_mutex_lock(&session->service->lock);
    full = session->n_files >= SESSION_MAX_FILES;
    if (!full) {
        session->n_files++;
        file->id = *ret_id = ++session->last_file;
        file->inode = inode;
        file->next = session->files;
        session->files = file;
    }
    pthread_mutex_unlock(&session->service->lock);
    if (full)
        free(file);
    return full ? -EMFILE : 0;
}

static void create_step(struct request *r)
{
    const struct lease_service_config *c = &r->session->service->config;
    uint64_t permissions = 0644, id;
    int error;

    if (!take_path(r, "path", REQUIRED, &r->path) || !take_uint(r, "size", REQUIRED, &r->size) ||
        !take_uint(r, "mode", OPTIONAL, &permissions) || permissions > 0777) {
        invalid(r, "create {path: absolute; size: bytes; mode: permission bits}");
        return;
    }
    error = r->inode ? 0 : c->layout->create(c->fs, r->path, &r->session->who, (mode_t)permissions, &r->inode);
    if (error) {
        request_fail(r, error);
        return;
    }
    if (r->size) /* nobody else knows the file: there is nothing to wait for but space */
        error = c->layout->prepare(c->fs, r->inode, (struct lease_range){0, r->size}, true, true, &r->waiter);
    if (error == -EINPROGRESS)
        return;
    if (!error)
        error = add_file(r->session, r->inode, &id);
    if (error) {
        c->layout->close(c->fs, r->inode);
        request_fail(r, error);
        return;
    }
    request_result(r, json_pack("{s:I, s:I}", "file", (json_int_t)id, "inode", (json_int_t)r->inode));
}

static void remove_file(struct session *session, uint64_t id)
{
    struct lease_service *service = session->service;
    struct session_file **place, *file;

    pthread_mutex_lock(&service->lock);
    for (place = &session->files; *place && (*place)->id != id; place = &(*place)->next)
        ;
    file = *place;
    if (file) {
        *place = file->next;
        session->n_files--;
    }
    pthread_mutex_unlock(&service->lock);
    if (file)
        service->config.layout->close(service->config.fs, file->inode);
    free(file);
}

static void publish_step(struct request *r)
{
    const struct lease_service_config *c = &r->session->service->config;
    uint64_t inode;
    int error;

    if (!take_path(r, "path", REQUIRED, &r->path) || !take_uint(r, "file", REQUIRED, &r->file)) {
        invalid(r, "publish {file: from create; path: absolute}");
        return;
    }
    inode = request_file_inode(r);
    error = inode ? c->layout->publish(c->fs, inode, r->path, &r->session->who, &r->waiter) : -ENOENT;
    if (error == -EINPROGRESS)
        return;
    if (error) {
        request_fail(r, error);
        return;
    }
    remove_file(r->session, r->file);
    request_result(r, json_pack("{s:I}", "inode", (json_int_t)inode));
}

static void commit_step(struct request *r)
{
    struct lease_service *service = r->session->service;
    const struct lease_service_config *c = &service->config;
    uint64_t size = UINT64_MAX;
    struct layout_attr attr;
    struct lease_info info;
    int error;

    if (!take_uint(r, "lease", REQUIRED, &r->lease_id) || !take_uint(r, "size", OPTIONAL, &size)) {
        invalid(r, "commit {lease; size: bytes}");
        return;
    }
    error = lease_get(service->table, r->lease_id, &info);
    if (!error && info.session_id != r->session->id)
        error = -ENOENT;
    /* Which bytes it keeps is known in a moment. (A second piece, of sequence 1, is not the client's before the
     * answer.) */
    if (!error && info.cut && info.sequence > 1) {
        cut_wait(r);
        return;
    }
    if (!error && info.mode != LEASE_WRITE)
        error = -EBADF;
    if (!error && info.state != LEASE_ACTIVE && info.state != LEASE_RECALLED)
        error = -ESTALE;
    if (!error)
        error = c->layout->committed(c->fs, info.inode, info.range, size);
    if (!error)
        error = c->layout->getattr(c->fs, info.inode, &attr);
    if (error)
        request_fail(r, error);
    else
        request_result(r, json_pack("{s:I}", "data_version", (json_int_t)attr.data_version));
}

static void take_map_step(struct request *r)
{
    r->mode = LEASE_READ; /* who may read it may know */
    if (take_path(r, "path", REQUIRED, &r->path) && take_uint(r, "offset", OPTIONAL, &r->offset))
        map_step(r);
    else
        invalid(r, "map {path: absolute; offset: bytes}");
}

static void probe_step(struct request *r)
{
    const struct lease_service_config *c = &r->session->service->config;
    struct refusal none = {.error = -ENODEV, .reason = LEASEFS_REASON_NO_DEVICE, .remedy = c->no_device_reason};

    if (c->exposure)
        request_result(r, c->exposure->probe(c->fabric));
    else
        request_refuse(r, &none, "the server has no usable RDMA device");
}

/* ---- methods that the control thread answers itself ---- */

static void renew(struct session *session, const struct jsonrpc_request *rpc)
{
    struct lease_service *service = session->service;
    struct refusal ended = {.error = -ESTALE, .remedy = "The lease has ended: ask for a new one."};
    struct lease_info info;
    uint64_t id = 0;
    bool idle = false;
    int error;

    if (jsonrpc_get_uint(rpc->params, "lease", INT64_MAX, &id) != JSONRPC_FOUND ||
        jsonrpc_get_bool(rpc->params, "idle", &idle) == JSONRPC_WRONG) {
        session_answer(session, rpc->id,
                       jsonrpc_error(rpc->id, LEASEFS_RPC_INVALID_PARAMS, "renew {lease; idle: boolean}", NULL));
        return;
    }
    error = idle ? lease_keep_idle(service->table, session->id, id, service_now_ns(), &info)
                 : lease_renew(service->table, session->id, id, service_now_ns(), &info);
    ended.error = error;
    session_answer(
        session, rpc->id,
        error ? refusal_message(rpc->id, &ended, "no such lease of this session")
              : jsonrpc_result(rpc->id, json_pack("{s:I, s:I, s:I}", "lease", (json_int_t)id, "sequence",
                                                  (json_int_t)info.sequence, "lease_time_ms",
                                                  (json_int_t)(service->config.limits.lease_time_ns / 1000000))));
}

static bool take_part(json_t *params, struct give_back *said)
{
    uint64_t offset = 0, length = 0;
    const char *mode = NULL;
    enum jsonrpc_member has_offset = jsonrpc_get_uint(params, "offset", RANGE_MAX_END, &offset);
    enum jsonrpc_member has_length = jsonrpc_get_uint(params, "length", RANGE_MAX_END, &length);
    enum jsonrpc_member has_mode = jsonrpc_get_string(params, "mode", 16, &mode);

    if (has_offset == JSONRPC_WRONG || has_length == JSONRPC_WRONG || has_mode == JSONRPC_WRONG)
        return false;
    if (has_mode == JSONRPC_FOUND)
        said->mode = strcmp(mode, "read") == 0 ? LEASE_READ : strcmp(mode, "write") == 0 ? LEASE_WRITE : 0;
    if (has_mode == JSONRPC_FOUND && !said->mode)
        return false;
    if (has_length == JSONRPC_ABSENT && has_offset == JSONRPC_FOUND)
        length = RANGE_MAX_END - offset;
    said->in_part = has_offset == JSONRPC_FOUND || has_length == JSONRPC_FOUND || has_mode == JSONRPC_FOUND;
    said->part = (struct lease_range){offset, length};
    return range_valid(said->part);
}

static void give_back(struct session *session, const struct jsonrpc_request *rpc)
{
    struct give_back said = {.id = rpc->id};
    uint64_t sequence = 0;

    if (jsonrpc_get_uint(rpc->params, "lease", INT64_MAX, &said.lease_id) != JSONRPC_FOUND ||
        jsonrpc_get_uint(rpc->params, "sequence", UINT32_MAX, &sequence) == JSONRPC_WRONG ||
        !take_part(rpc->params, &said)) {
        session_answer(session, rpc->id,
                       jsonrpc_error(rpc->id, LEASEFS_RPC_INVALID_PARAMS,
                                     "return {lease, sequence; offset, length: bytes to give back; mode: \"read\", to "
                                     "keep the rest for reading}",
                                     NULL));
        return;
    }
    said.sequence = (uint32_t)sequence;
    cut_return(session, &said);
}

/* At the Unix socket: root, the daemon's user, and the holder. A remote client: what its own key holds, whatever its
 * uid. */
static bool may_revoke(const struct session *session, const struct lease_info *lease)
{
    const struct session *holder = session_find(session->service, lease->session_id);

    if (holder == session)
        return true;
    if (session->key)
        return holder && session_same_key(session, holder);
    return session->who.uid == 0 || session->who.uid == geteuid();
}

/* The gate comes first: to make an answer, send it and wake who waits for it takes longer than to close it. */
struct revoked_mail {
    struct mail mail;
    struct session *session;
    json_t *id;
    uint64_t lease_id;
};

static void deliver_revoked(struct mail *mail)
{
    struct revoked_mail *m = container(mail, struct revoked_mail, mail);

    session_answer(m->session, m->id, jsonrpc_result(m->id, json_pack("{s:I}", "lease", (json_int_t)m->lease_id)));
    json_decref(m->id);
    session_unref(m->session);
    free(m);
}

static int answer_later(struct session *session, json_t *id, uint64_t lease_id)
{
    struct revoked_mail *m = id ? calloc(1, sizeof(*m)) : NULL;

    if (!m)
        return id ? -ENOMEM : 0;
    *m = (struct revoked_mail){{deliver_revoked, NULL}, session_ref(session), json_incref(id), lease_id};
    mail_post(session->service, &m->mail);
    return 0;
}

static void revoke_lease(struct session *session, const struct jsonrpc_request *rpc)
{
    struct lease_service *service = session->service;
    struct refusal refusal = {.error = -ENOENT, .remedy = "leasectl status lists the leases."};
    struct lease_info info;
    uint64_t id = 0;

    if (jsonrpc_get_uint(rpc->params, "lease", INT64_MAX, &id) != JSONRPC_FOUND) {
        session_answer(session, rpc->id, jsonrpc_error(rpc->id, LEASEFS_RPC_INVALID_PARAMS, "revoke {lease}", NULL));
        return;
    }
    refusal.error = lease_get(service->table, id, &info);
    if (!refusal.error && !may_revoke(session, &info)) {
        refusal = (struct refusal){.error = -EPERM,
                                   .reason = LEASEFS_REASON_PERMISSION,
                                   .remedy = session->key ? "Ask on the server's host."
                                                          : "Run as root or as the daemon's user."};
        session_answer(session, rpc->id, refusal_message(rpc->id, &refusal, "another session's lease"));
        return;
    }
    if (!refusal.error)
        refusal.error = lease_revoke(service->table, id, service_now_ns());
    if (refusal.error && refusal.error != -EALREADY)
        session_answer(session, rpc->id, refusal_message(rpc->id, &refusal, "no such lease"));
    else if (answer_later(session, rpc->id, id))
        shutdown(session->fd, SHUT_RDWR); /* as where no memory is left for an answer */
}

static void connect_fabric(struct session *session, const struct jsonrpc_request *rpc)
{
    const struct lease_service_config *c = &session->service->config;
    struct refusal refusal = {.error = -ENODEV, .reason = LEASEFS_REASON_NO_DEVICE, .remedy = c->no_device_reason};
    char text[INET6_ADDRSTRLEN] = "", cookie[2 * LEASEFS_COOKIE_SIZE + 1];
    struct exposure_address where;
    unsigned port;

    if (session->fabric)
        refusal.error = c->exposure->session_connect(session->fabric, &where);
    if (refusal.error) {
        session_answer(session, rpc->id, refusal_message(rpc->id, &refusal, "no RDMA connection can be made"));
        return;
    }
    for (int i = 0; i < LEASEFS_COOKIE_SIZE; i++)
        snprintf(cookie + 2 * i, 3, "%02x", where.cookie[i]);
    if (where.address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&where.address;

        inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
        port = ntohs(in6->sin6_port);
    } else {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&where.address;

        inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
        port = ntohs(in->sin_port);
    }
    session_answer(session, rpc->id,
                   jsonrpc_result(rpc->id, json_pack("{s:s, s:I, s:s}", "address", text, "port", (json_int_t)port,
                                                     "cookie", cookie)));
}

/* ---- opening the session ---- */

struct open_mail {
    struct mail mail;
    struct request *request;
};

static void deliver_open(struct mail *mail)
{
    struct open_mail *m = container(mail, struct open_mail, mail);
    struct session *session = m->request->session;
    const struct lease_service_config *c = &session->service->config;

    session_opened(session);
    request_result(m->request, json_pack("{s:I, s:I, s:s, s:I, s:I, s:I}", "session", (json_int_t)session->id,
                                         "boot_epoch", (json_int_t)c->boot_epoch, "server", LEASEFS_VERSION,
                                         "block_size", (json_int_t)LEASEFS_BLOCK_SIZE, "lease_time_ms",
                                         (json_int_t)(c->limits.lease_time_ns / 1000000), "recall_timeout_ms",
                                         (json_int_t)(c->limits.recall_timeout_ns / 1000000)));
    free(m);
}

static void session_step(struct request *r)
{
    struct session *session = r->session;
    const struct lease_service_config *c = &session->service->config;
    struct open_mail *m = calloc(1, sizeof(*m));

    if (!m) {
        request_fail(r, -ENOMEM);
        return;
    }
    if (c->exposure)
        session->fabric_error =
            c->exposure->session_open(c->fabric, session->id, session_reached(session), &session->fabric);
    *m = (struct open_mail){.mail.deliver = deliver_open, .request = r};
    mail_post(session->service, &m->mail);
}

static void open_session(struct session *session, struct jsonrpc_request *rpc)
{
    uint64_t version = 0;
    const char *client = NULL;

    if (session->client) {
        session_answer(session, rpc->id,
                       jsonrpc_error(rpc->id, LEASEFS_RPC_INVALID_REQUEST, "the session is open already", NULL));
        return;
    }
    if (jsonrpc_get_uint(rpc->params, "version", INT32_MAX, &version) != JSONRPC_FOUND ||
        version != LEASEFS_PROTOCOL_VERSION ||
        jsonrpc_get_string(rpc->params, "client", 255, &client) == JSONRPC_WRONG) {
        session_answer(session, rpc->id,
                       jsonrpc_error(rpc->id, LEASEFS_RPC_INVALID_PARAMS,
                                     "session {client: a name of at most 255 bytes; version: 1}", NULL));
        return;
    }
    session->client = strdup(client ? client : "?");
    request_start(session, rpc, session_step, false);
}

/* ---- dispatch ---- */

static const struct method {
    const char *name;
    void (*now)(struct session *session, const struct jsonrpc_request *rpc); /* on the control thread */
    void (*step)(struct request *request);                                   /* on a grant worker */
} methods[] = {
    {LEASEFS_METHOD_LEASE, NULL, lease_step},       {LEASEFS_METHOD_RENEW, renew, NULL},
    {LEASEFS_METHOD_COMMIT, NULL, commit_step},     {LEASEFS_METHOD_RETURN, give_back, NULL},
    {LEASEFS_METHOD_CONNECT, connect_fabric, NULL}, {LEASEFS_METHOD_CREATE, NULL, create_step},
    {LEASEFS_METHOD_PUBLISH, NULL, publish_step},   {LEASEFS_METHOD_PREPARE, NULL, prepare_step},
    {LEASEFS_METHOD_CLONE, NULL, clone_step},       {LEASEFS_METHOD_REVOKE, revoke_lease, NULL},
    {LEASEFS_METHOD_STATUS, NULL, status_step},     {LEASEFS_METHOD_PROBE, NULL, probe_step},
    {LEASEFS_METHOD_MAP, NULL, take_map_step},
};

/* A lease of a few bytes that need not be made ready. */
static bool is_brief(const struct jsonrpc_request *rpc, const struct method *method)
{
    uint64_t length = 0;
    bool prepare = false;

    return method->step == lease_step &&
           jsonrpc_get_uint(rpc->params, "length", SERVICE_BRIEF_BYTES, &length) == JSONRPC_FOUND && length &&
           jsonrpc_get_bool(rpc->params, "prepare", &prepare) != JSONRPC_WRONG && !prepare;
}

static void dispatch(struct session *session, struct jsonrpc_request *rpc)
{
    if (strcmp(rpc->method, LEASEFS_METHOD_SESSION) == 0) {
        open_session(session, rpc);
        return;
    }
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(rpc->method, methods[i].name) != 0)
            continue;
        if (!session->opened)
            session_answer(
                session, rpc->id,
                jsonrpc_error(rpc->id, LEASEFS_RPC_INVALID_REQUEST, "open a session first: method session", NULL));
        else if (methods[i].now)
            methods[i].now(session, rpc);
        else
            request_start(session, rpc, methods[i].step, is_brief(rpc, &methods[i]));
        return;
    }
    session_answer(session, rpc->id, jsonrpc_error(rpc->id, LEASEFS_RPC_METHOD_NOT_FOUND, "no such method", NULL));
}

void methods_handle(struct session *session, const char *line, size_t length)
{
    struct jsonrpc_request rpc;
    const char *why = NULL;
    int code = jsonrpc_parse(line, length, &rpc, &why);

    if (code)
        session_send(session, jsonrpc_error(rpc.id, code, why, NULL));
    else
        dispatch(session, &rpc);
    jsonrpc_request_clear(&rpc);
}
