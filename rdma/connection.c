/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/connection.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include "lease/log_limit.h"
#include "rdma/faults.h"
#include "rdma/internal.h"
#include "rdma/sync.h"

#define HALF_OPEN_NS (5 * NS_PER_S)
#define LINGER_NS    (200 * NS_PER_MS) /* for the peer's answer to a disconnect */
#define BROKEN_NS    (200 * NS_PER_MS) /* for the peer to see why its QP is in ERR */
/* Well below the 50 s after which the rxe kernel destroys a QP that is still in use. */
#define DESTROY_PROOF_NS (10 * NS_PER_S)

struct connection {
    struct helper_job tear_down; /* must be first */
    struct fabric *fabric;
    struct exposure_session *session; /* a reference */
    struct rdma_cm_id *id;
    struct ibv_cq *cq;
    uint64_t number;

    /* Guarded by fabric->lock. */
    LIST_ENTRY(connection) link;
    uint64_t ends_at_ns; /* of one that is half open, or broken */
    unsigned users;      /* threads that call verbs on the QP; it is destroyed when there are none */
    bool setting_up;
    bool may_write; /* what the QP lets the peer do, besides reading */
    bool changing;  /* a thread is about to change that */
    bool established;
    bool broken; /* its QP is in ERR */
    bool condemned;
    bool killed; /* somebody has sent the QP to ERR, or is about to */
    bool quiet;
    bool disconnected; /* the peer has answered, or is known not to be there */
};

static void tear_down(struct helper_job *job);

static void condemn_locked(struct connection *connection)
{
    struct fabric *fabric = connection->fabric;

    if (connection->condemned)
        return;
    connection->condemned = true;
    if (!connection->established)
        fabric->n_half_open--;
    helper_submit(fabric->closers, &connection->tear_down);
    pthread_cond_broadcast(&fabric->changed);
}

void connection_condemn_session_locked(struct exposure_session *session)
{
    struct connection *connection;

    LIST_FOREACH(connection, &session->fabric->connections, link)
    if (connection->session == session)
        condemn_locked(connection);
}

void connection_condemn_all_locked(struct fabric *fabric)
{
    struct connection *connection;

    LIST_FOREACH(connection, &fabric->connections, link)
    condemn_locked(connection);
}

/* With connection->users held, without the lock. */
static void kill_qp(struct connection *connection)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    int fault;

    if (!connection->id->qp || fault_inject("qp", &fault))
        return;
    ibv_modify_qp(connection->id->qp, &attr, IBV_QP_STATE);
    /* A QP in ERR is silent: without this the peer finds out when its retries run out. */
    rdma_disconnect(connection->id);
}

/* Gives the lock up for a while; `users` keeps the connection in place meanwhile. */
static void kill_locked(struct connection *connection)
{
    struct fabric *fabric = connection->fabric;

    connection->users++;
    while (connection->setting_up)
        pthread_cond_wait(&fabric->changed, &fabric->lock);
    if (!connection->killed) {
        connection->killed = true;
        pthread_mutex_unlock(&fabric->lock);
        kill_qp(connection);
        pthread_mutex_lock(&fabric->lock);
    }
    connection->users--;
    pthread_cond_broadcast(&fabric->changed);
}

/* False: the QP cannot be shown to be gone. */
static bool destroy_qp(struct connection *connection)
{
    uint64_t start = monotonic_ns();
    int fault;

    if (!connection->id->qp)
        return true;
    if (fault_inject("qp", &fault) && fault < 0)
        return false;
    if (ibv_destroy_qp(connection->id->qp))
        return false;
    connection->id->qp = NULL; /* or rdma_destroy_id() would destroy it again */
    return monotonic_ns() - start < DESTROY_PROOF_NS;
}

static void tear_down(struct helper_job *job)
{
    struct connection *connection = (struct connection *)job;
    struct fabric *fabric = connection->fabric;
    bool destroyed;

    pthread_mutex_lock(&fabric->lock);
    kill_locked(connection);
    while (connection->users)
        pthread_cond_wait(&fabric->changed, &fabric->lock);
    pthread_mutex_unlock(&fabric->lock);

    destroyed = destroy_qp(connection);
    pthread_mutex_lock(&fabric->lock);
    if (!destroyed && !connection->quiet) {
        /* It stays in the list, so that no fence of this session ever counts it as quiet. */
        pthread_mutex_unlock(&fabric->lock);
        fabric_log("session %llu: its QP cannot be shown to be stopped", (unsigned long long)connection->session->id);
        return;
    }
    connection->quiet = true;
    pthread_cond_broadcast(&fabric->changed);
    uint64_t linger_until = monotonic_ns() + LINGER_NS;

    while (connection->established && !connection->disconnected &&
           sync_wait_until(&fabric->changed, &fabric->lock, linger_until) != -ETIMEDOUT)
        ;
    pthread_mutex_unlock(&fabric->lock);

    /* Each waits until the event thread is done with the events it has been given, so that nobody knows this
     * connection afterwards. */
    if (connection->cq)
        ibv_destroy_cq(connection->cq);
    rdma_destroy_id(connection->id);

    pthread_mutex_lock(&fabric->lock);
    LIST_REMOVE(connection, link);
    pthread_cond_broadcast(&fabric->changed);
    pthread_mutex_unlock(&fabric->lock);
    fabric_session_unref(connection->session);
    free(connection);
}

static const void *address_of(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return &((const struct sockaddr_in *)address)->sin_addr;
    return &((const struct sockaddr_in6 *)address)->sin6_addr;
}

/* Is this one to be logged? How many of its kind before it were not: *ret_unsaid. */
static bool offence_to_log(struct fabric *fabric, enum offence_kind kind, unsigned *ret_unsaid)
{
    static const struct log_rate rate = {.lines = 1, .window_ns = 60 * NS_PER_S};

    return log_limit_allows(&fabric->offences[kind], &rate, monotonic_ns(), ret_unsaid);
}

void connection_reject(struct fabric *fabric, struct rdma_cm_id *id, unsigned code)
{
    struct leasefs_cm_reject reject = {.magic = htole32(LEASEFS_CM_MAGIC), .code = htole32(code)};
    const struct sockaddr *peer = rdma_get_peer_addr(id);
    char from[INET6_ADDRSTRLEN];
    unsigned unsaid;

    /* Peers are refused for these whenever they like. */
    if ((code == LEASEFS_REJECT_MALFORMED || code == LEASEFS_REJECT_COOKIE) &&
        offence_to_log(fabric, code == LEASEFS_REJECT_COOKIE ? OFFENCE_COOKIE : OFFENCE_MALFORMED, &unsaid))
        fabric_log("a connection from %s was refused: %s (%u like it before)",
                   inet_ntop(peer->sa_family, address_of(peer), from, sizeof(from)) ? from : "?",
                   code == LEASEFS_REJECT_COOKIE ? "its cookie is used, expired or made up" : "no request of ours",
                   unsaid);
    pthread_mutex_lock(&fabric->lock);
    fabric->counters.rejected[code < FABRIC_REJECT_REASONS ? code : 0]++; /* before the peer knows */
    pthread_mutex_unlock(&fabric->lock);
    rdma_reject(id, &reject, sizeof(reject));
}

static int create_qp(struct connection *connection)
{
    struct fabric *fabric = connection->fabric;
    struct ibv_recv_wr receive = {0}, *bad;

    connection->cq = ibv_create_cq(fabric->verbs, 2, connection, fabric->completions, 0);
    if (!connection->cq)
        return errno ? -errno : -ENOMEM;
    struct ibv_qp_init_attr init = {
        .qp_context = connection,
        .send_cq = connection->cq,
        .recv_cq = connection->cq,
        .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };
    /* Armed once: the first completion of whatever kind ends the connection. */
    int r = ibv_req_notify_cq(connection->cq, 0);

    if (r)
        return -r;
    if (rdma_create_qp(connection->id, connection->session->pd, &init) < 0)
        return errno ? -errno : -EIO;
    return -ibv_post_recv(connection->id->qp, &receive, &bad);
}

static uint8_t at_most(uint8_t asked, int device_limit)
{
    return device_limit >= 0 && asked > device_limit ? (uint8_t)device_limit : asked;
}

static int set_rights(struct connection *connection, bool may_write)
{
    struct ibv_qp_attr attr = {.qp_access_flags = IBV_ACCESS_REMOTE_READ | (may_write ? IBV_ACCESS_REMOTE_WRITE : 0u)};

    return -ibv_modify_qp(connection->id->qp, &attr, IBV_QP_ACCESS_FLAGS);
}

static int accept_request(struct connection *connection, const struct rdma_conn_param *request)
{
    struct rdma_conn_param answer = {
        .responder_resources = at_most(request->responder_resources, connection->fabric->attr.max_qp_rd_atom),
        .initiator_depth = at_most(request->initiator_depth, connection->fabric->attr.max_qp_init_rd_atom),
        .rnr_retry_count = 7,
    };

    return rdma_accept(connection->id, &answer) < 0 ? errno ? -errno : -EIO : 0;
}

/* rdma_cm has allowed everything, atomics as well, which no MR of ours does: only what the session's leases need stays.
 * Whoever grants a lease meanwhile waits until the connection is set up. Gives the lock up for a while. */
static int set_first_rights_locked(struct connection *connection)
{
    struct fabric *fabric = connection->fabric;
    bool wanted;
    int r;

    do {
        wanted = connection->session->writers > 0;
        pthread_mutex_unlock(&fabric->lock);
        r = set_rights(connection, wanted);
        pthread_mutex_lock(&fabric->lock);
        connection->may_write = wanted;
    } while (r == 0 && wanted != (connection->session->writers > 0));
    return r;
}

/* One whose QP allows more or less than the session's leases need, or does not have its rights yet. */
static struct connection *find_unfitting_locked(struct exposure_session *session)
{
    struct connection *connection;

    LIST_FOREACH(connection, &session->fabric->connections, link)
    {
        if (connection->session != session || connection->condemned)
            continue;
        if (connection->setting_up || connection->changing || connection->may_write != (session->writers > 0))
            return connection;
    }
    return NULL;
}

void connection_fit_rights(struct exposure_session *session)
{
    struct fabric *fabric = session->fabric;
    struct connection *connection;

    pthread_mutex_lock(&fabric->lock);
    while ((connection = find_unfitting_locked(session))) {
        bool wanted = session->writers > 0;

        if (connection->setting_up || connection->changing) {
            pthread_cond_wait(&fabric->changed, &fabric->lock);
            continue;
        }
        connection->changing = true;
        connection->users++;
        pthread_mutex_unlock(&fabric->lock);
        set_rights(connection, wanted); /* a failure is a QP that allows nothing any more */
        pthread_mutex_lock(&fabric->lock);
        connection->may_write = wanted;
        connection->changing = false;
        connection->users--;
        pthread_cond_broadcast(&fabric->changed);
    }
    pthread_mutex_unlock(&fabric->lock);
}

unsigned connection_count_writable_locked(struct fabric *fabric)
{
    struct connection *connection;
    unsigned count = 0;

    LIST_FOREACH(connection, &fabric->connections, link)
    count += !connection->condemned && connection->may_write;
    return count;
}

/* Puts a new connection into the list, in place of the session's others. -EBUSY */
static int enlist(struct connection *connection)
{
    struct exposure_session *session = connection->session;
    struct fabric *fabric = session->fabric;
    struct connection *other;
    int r = 0;

    pthread_mutex_lock(&fabric->lock);
    if (fabric->stopping || fabric->n_half_open >= FABRIC_HALF_OPEN_MAX || session->barred) {
        r = -EBUSY;
    } else {
        LIST_FOREACH(other, &fabric->connections, link)
        {
            if (other->session != session || other->condemned)
                continue;
            fabric->counters.replaced++;
            condemn_locked(other);
        }
        connection->number = ++fabric->last_connection;
        connection->ends_at_ns = monotonic_ns() + HALF_OPEN_NS;
        fabric->n_half_open++;
        LIST_INSERT_HEAD(&fabric->connections, connection, link);
    }
    pthread_mutex_unlock(&fabric->lock);
    return r;
}

static int refuse(struct exposure_session *session, struct rdma_cm_id *id, int r)
{
    connection_reject(session->fabric, id, LEASEFS_REJECT_RESOURCES);
    rdma_destroy_id(id);
    fabric_session_unref(session);
    return r;
}

int connection_accept(struct exposure_session *session, struct rdma_cm_id *id, const struct rdma_conn_param *request)
{
    struct fabric *fabric = session->fabric;
    struct connection *connection = calloc(1, sizeof(*connection));
    int r;

    if (!connection)
        return refuse(session, id, -ENOMEM);
    connection->tear_down.run = tear_down;
    connection->fabric = fabric;
    connection->session = session;
    connection->id = id;
    connection->setting_up = true;
    r = enlist(connection);
    if (r < 0) {
        free(connection);
        return refuse(session, id, r);
    }
    id->context = connection;
    r = create_qp(connection);
    if (r == 0)
        r = accept_request(connection, request);
    if (r < 0)
        connection_reject(fabric, id, LEASEFS_REJECT_RESOURCES);

    pthread_mutex_lock(&fabric->lock);
    if (r == 0)
        r = set_first_rights_locked(connection);
    connection->setting_up = false;
    if (r < 0)
        condemn_locked(connection);
    else
        fabric->counters.accepted++;
    pthread_cond_broadcast(&fabric->changed);
    pthread_mutex_unlock(&fabric->lock);
    return r;
}

void connection_established(struct connection *connection)
{
    struct fabric *fabric = connection->fabric;

    pthread_mutex_lock(&fabric->lock);
    if (!connection->condemned && !connection->established) {
        connection->established = true;
        fabric->n_half_open--;
        fabric->counters.established++;
    }
    pthread_mutex_unlock(&fabric->lock);
}

void connection_in_use(struct connection *connection)
{
    rdma_notify(connection->id, IBV_EVENT_COMM_EST); /* rdma_cm then says that it is established */
}

void connection_disconnected(struct connection *connection)
{
    struct fabric *fabric = connection->fabric;

    pthread_mutex_lock(&fabric->lock);
    connection->disconnected = true;
    condemn_locked(connection);
    pthread_cond_broadcast(&fabric->changed);
    pthread_mutex_unlock(&fabric->lock);
}

/* Ending the connection at once would let the peer's own clean-up flush its requests before it sees the refusal that
 * tells it why. The QP is dead, so nothing is lost by waiting for the peer to go. */
static bool break_locked(struct connection *connection)
{
    if (connection->broken || connection->condemned)
        return false;
    connection->broken = true;
    connection->fabric->counters.broken++;
    connection->ends_at_ns = monotonic_ns() + BROKEN_NS;
    return true;
}

static void log_offence(struct fabric *fabric, enum offence_kind kind, uint64_t session_id)
{
    unsigned unsaid;

    /* Session 0 is the self-test's. */
    if (session_id && offence_to_log(fabric, kind, &unsaid))
        fabric_log("session %llu: %s (%u like it before)", (unsigned long long)session_id,
                   kind == OFFENCE_MESSAGE ? "its peer sends messages, which are not in our protocol: it is cut off"
                                           : "the NIC has refused its peer an access, or their connection broke",
                   unsaid);
}

void connection_broken(struct connection *connection)
{
    struct fabric *fabric = connection->fabric;
    uint64_t session_id = connection->session->id;
    bool broke;

    pthread_mutex_lock(&fabric->lock);
    broke = break_locked(connection);
    pthread_mutex_unlock(&fabric->lock);
    if (broke)
        log_offence(fabric, OFFENCE_ACCESS, session_id);
}

void connection_completion(struct connection *connection, struct ibv_cq *cq)
{
    struct fabric *fabric = connection->fabric;
    uint64_t session_id = connection->session->id;
    bool broke = false, violation = false;
    struct ibv_wc completion;
    int n = ibv_poll_cq(cq, 1, &completion);

    pthread_mutex_lock(&fabric->lock);
    if (n > 0 && completion.status == IBV_WC_WR_FLUSH_ERR) {
        connection->quiet = true;
        broke = break_locked(connection);
    } else {
        violation = n > 0 && completion.status == IBV_WC_SUCCESS; /* a SEND, or a WRITE with immediate data */
        fabric->counters.violations += violation;
        condemn_locked(connection);
    }
    pthread_cond_broadcast(&fabric->changed);
    pthread_mutex_unlock(&fabric->lock);
    if (broke || violation)
        log_offence(fabric, broke ? OFFENCE_ACCESS : OFFENCE_MESSAGE, session_id);
}

uint64_t connection_expire(struct fabric *fabric)
{
    struct connection *connection;
    uint64_t now = monotonic_ns(), next = 0;

    pthread_mutex_lock(&fabric->lock);
    LIST_FOREACH(connection, &fabric->connections, link)
    {
        if (connection->condemned || (connection->established && !connection->broken))
            continue;
        if (now >= connection->ends_at_ns) {
            fabric->counters.half_open_expired += !connection->broken;
            condemn_locked(connection);
        } else if (!next || connection->ends_at_ns < next) {
            next = connection->ends_at_ns;
        }
    }
    pthread_mutex_unlock(&fabric->lock);
    return next;
}

struct fence {
    struct exposure_session *session; /* a reference */
    uint64_t last;                    /* connections up to this number are meant */
};

/* On a helper: sending a QP to ERR can block. */
static int kill_session(void *arg)
{
    struct fence *fence = arg;
    struct fabric *fabric = fence->session->fabric;
    struct connection *connection;

    pthread_mutex_lock(&fabric->lock);
    do {
        LIST_FOREACH(connection, &fabric->connections, link)
        if (connection->session == fence->session && connection->number <= fence->last && !connection->killed)
            break;
        if (connection) {
            condemn_locked(connection);
            kill_locked(connection); /* gives the lock up: start over */
        }
    } while (connection);
    pthread_mutex_unlock(&fabric->lock);
    fabric_session_unref(fence->session);
    free(fence);
    return 0;
}

static bool session_quiet_locked(struct exposure_session *session, uint64_t last)
{
    struct connection *connection;

    LIST_FOREACH(connection, &session->fabric->connections, link)
    if (connection->session == session && connection->number <= last && !connection->quiet)
        return false;
    return true;
}

int connection_fence_session(struct exposure_session *session, uint64_t deadline_ns)
{
    struct fabric *fabric = session->fabric;
    struct fence *fence = calloc(1, sizeof(*fence));
    uint64_t last;
    int r, ignored;

    if (!fence)
        return -ENOMEM;
    pthread_mutex_lock(&fabric->lock);
    session_ref_locked(session);
    connection_condemn_session_locked(session);
    last = fabric->last_connection;
    *fence = (struct fence){session, last};
    pthread_mutex_unlock(&fabric->lock);

    /* The tear-down kills them, too; but all closers may be busy with others. */
    r = helper_call(fabric->helpers, kill_session, fence, deadline_ns, &ignored);
    if (r < 0 && r != -ETIMEDOUT) {
        fabric_session_unref(session);
        free(fence);
    }

    pthread_mutex_lock(&fabric->lock);
    r = 0;
    while (!session_quiet_locked(session, last) && r != -ETIMEDOUT)
        r = sync_wait_until(&fabric->changed, &fabric->lock, deadline_ns);
    r = session_quiet_locked(session, last) ? 0 : -ETIMEDOUT;
    pthread_mutex_unlock(&fabric->lock);
    return r;
}
