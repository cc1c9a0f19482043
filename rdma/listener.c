/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The event thread: connection requests and connection events of rdma_cm, completions (there are only final ones),
 * and the device's own events. It never waits for a helper, a fence or a peer; tearing down a connection waits for
 * this thread, never the other way round.
 */

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "rdma/connection.h"
#include "rdma/internal.h"
#include "rdma/sync.h"

/* Events of one source before the others get their turn. */
#define EVENTS_A_ROUND 32

/* 0, or why the request is refused: enum leasefs_cm_reject_code. */
static unsigned parse_request(const void *data, size_t length, struct leasefs_cm_request *ret_request)
{
    struct leasefs_cm_request request;

    if (!data || length < sizeof(request))
        return LEASEFS_REJECT_MALFORMED;
    memcpy(&request, data, sizeof(request));
    if (le32toh(request.magic) != LEASEFS_CM_MAGIC || le16toh(request.version) != LEASEFS_PROTOCOL_VERSION)
        return LEASEFS_REJECT_MALFORMED;
    *ret_request = request;
    return 0;
}

static void handle_connect_request(struct fabric *fabric, struct rdma_cm_id *id, const struct rdma_conn_param *param,
                                   const struct leasefs_cm_request *request, unsigned code)
{
    struct exposure_session *session = NULL;

    if (!code && id->verbs != fabric->verbs)
        code = LEASEFS_REJECT_DEVICE;
    if (!code) {
        session = session_take_cookie(fabric, request->cookie);
        if (!session)
            code = LEASEFS_REJECT_COOKIE;
    }
    if (code) {
        connection_reject(fabric, id, code);
        rdma_destroy_id(id);
        return;
    }
    int r = connection_accept(session, id, param);

    if (r < 0 && r != -EBUSY && r != -ECANCELED)
        fabric_log("a connection was refused: %s", strerror(-r));
}

static void device_removed(struct fabric *fabric)
{
    bool first;

    pthread_mutex_lock(&fabric->lock);
    first = !fabric->device_gone;
    fabric->device_gone = true;
    connection_condemn_all_locked(fabric);
    pthread_mutex_unlock(&fabric->lock);
    if (first)
        fabric_log("the RDMA device is gone; no more leases until leasefs is started again");
}

static void handle_connection_event(struct fabric *fabric, const struct rdma_cm_event *event)
{
    struct connection *connection = event->id->context;

    if (event->event == RDMA_CM_EVENT_DEVICE_REMOVAL) {
        device_removed(fabric);
        return;
    }
    if (!connection) /* the listener's own */
        return;
    switch (event->event) {
    case RDMA_CM_EVENT_ESTABLISHED:
        connection_established(connection);
        break;
    case RDMA_CM_EVENT_DISCONNECTED:
    case RDMA_CM_EVENT_TIMEWAIT_EXIT:
    case RDMA_CM_EVENT_CONNECT_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE:
    case RDMA_CM_EVENT_REJECTED:
        connection_disconnected(connection);
        break;
    default:
        break;
    }
}

/* -EAGAIN: none left. */
static int next_cm_event(struct fabric *fabric)
{
    struct rdma_cm_event *event;

    if (rdma_get_cm_event(fabric->channel, &event) < 0)
        return -errno;
    if (event->event != RDMA_CM_EVENT_CONNECT_REQUEST) {
        /* Acknowledged afterwards: until then the connection cannot go away. */
        handle_connection_event(fabric, event);
        rdma_ack_cm_event(event);
        return 0;
    }
    /* Acknowledged first: an id is destroyed only when its events are. */
    struct rdma_cm_id *id = event->id;
    struct rdma_conn_param param = event->param.conn;
    struct leasefs_cm_request request = {0};
    unsigned code = parse_request(param.private_data, param.private_data_len, &request);

    param.private_data = NULL;
    param.private_data_len = 0;
    rdma_ack_cm_event(event);
    handle_connect_request(fabric, id, &param, &request, code);
    return 0;
}

static int next_completion(struct fabric *fabric)
{
    struct ibv_cq *cq;
    void *context;

    if (ibv_get_cq_event(fabric->completions, &cq, &context) < 0)
        return -EAGAIN;
    connection_completion(context, cq);
    ibv_ack_cq_events(cq, 1); /* until here the connection cannot go away */
    return 0;
}

/* The self-test's own QPs are of the same context and have none: nobody needs to be told. */
static void tell_qp(void (*tell)(struct connection *connection), const struct ibv_qp *qp)
{
    if (qp->qp_context)
        tell(qp->qp_context);
}

static int next_device_event(struct fabric *fabric)
{
    struct ibv_async_event event;

    if (ibv_get_async_event(fabric->verbs, &event) < 0)
        return -EAGAIN;
    switch (event.event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
        tell_qp(connection_broken, event.element.qp);
        break;
    case IBV_EVENT_COMM_EST:
        tell_qp(connection_in_use, event.element.qp);
        break;
    case IBV_EVENT_CQ_ERR:
        if (event.element.cq->cq_context)
            connection_broken(event.element.cq->cq_context);
        break;
    case IBV_EVENT_DEVICE_FATAL:
        device_removed(fabric);
        break;
    case IBV_EVENT_PORT_ERR:
        fabric_log("port %d is down", event.element.port_num);
        break;
    case IBV_EVENT_PORT_ACTIVE:
        fabric_log("port %d is active", event.element.port_num);
        break;
    default:
        break;
    }
    ibv_ack_async_event(&event);
    return 0;
}

static void drain(struct fabric *fabric, int (*next)(struct fabric *fabric))
{
    for (int i = 0; i < EVENTS_A_ROUND; i++)
        if (next(fabric) < 0)
            break;
}

static int timeout_ms(uint64_t next_ns)
{
    uint64_t now = monotonic_ns();

    if (!next_ns)
        return -1;
    return next_ns <= now ? 0 : (int)((next_ns - now) / NS_PER_MS) + 1;
}

static void *event_loop(void *arg)
{
    struct fabric *fabric = arg;
    struct pollfd sources[] = {
        {.fd = fabric->channel->fd, .events = POLLIN},
        {.fd = fabric->completions->fd, .events = POLLIN},
        {.fd = fabric->verbs->async_fd, .events = POLLIN},
        {.fd = fabric->wake_fd, .events = POLLIN},
    };

    while (!sources[3].revents) {
        int timeout = timeout_ms(connection_expire(fabric));

        if (poll(sources, 4, timeout) < 0) {
            if (errno == EINTR)
                continue;
            fabric_log("poll: %s", strerror(errno));
            break;
        }
        if (sources[0].revents)
            drain(fabric, next_cm_event);
        if (sources[1].revents)
            drain(fabric, next_completion);
        if (sources[2].revents)
            drain(fabric, next_device_event);
        /* A descriptor in error stays so: leave it out rather than spin. */
        for (int i = 0; i < 3; i++)
            if (sources[i].revents & (POLLERR | POLLHUP | POLLNVAL)) {
                sources[i].fd = -1;
                device_removed(fabric);
            }
    }
    return NULL;
}

static int set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

int listener_start(struct fabric *fabric)
{
    int r = set_nonblocking(fabric->channel->fd);

    if (r == 0)
        r = set_nonblocking(fabric->completions->fd);
    if (r == 0)
        r = set_nonblocking(fabric->verbs->async_fd);
    if (r < 0)
        return r;
    fabric->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fabric->wake_fd < 0)
        return -errno;
    r = sync_thread_start("lfs-rdma-event", event_loop, fabric, &fabric->event_thread);
    if (r < 0)
        close(fabric->wake_fd);
    return r;
}

void listener_stop(struct fabric *fabric)
{
    eventfd_write(fabric->wake_fd, 1);
    pthread_join(fabric->event_thread, NULL);
    close(fabric->wake_fd);
}
