/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/cm.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rdma/initiator/clock.h"
#include "rdma/initiator/error.h"

#define RESOLVE_TIMEOUT_MS 3000
#define CONNECT_TIMEOUT_MS 15000

/* Status of IB's communication manager in a rejection, as rdma_cm passes it on. */
#define REJECT_NO_LISTENER 8
#define REJECT_BY_CONSUMER 28

static const char *name_address(const struct sockaddr_storage *address, char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;

        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(text, size, "%s port %u", host, ntohs(in->sin_port));
    } else {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;

        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(text, size, "%s port %u", host, ntohs(in6->sin6_port));
    }
    return text;
}

int cm_lookup(const char *host, uint16_t port, struct sockaddr_storage *ret_address)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    char service[8];
    int error;

    snprintf(service, sizeof(service), "%u", port);
    error = getaddrinfo(host, service, &hints, &found);
    if (error)
        return error_set(-EHOSTUNREACH, "host %s: %s", host, gai_strerror(error));
    memset(ret_address, 0, sizeof(*ret_address));
    memcpy(ret_address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

static int explain_reject(const struct rdma_cm_event *event, const char *where)
{
    const struct rdma_conn_param *param = &event->param.conn;
    struct leasefs_cm_reject reject = {0};

    if (event->status == REJECT_NO_LISTENER)
        return error_set(-ECONNREFUSED, "RDMA connection to %s: nobody listens there. Is it the server's address?",
                         where);
    if (event->status == REJECT_BY_CONSUMER && param->private_data && param->private_data_len >= sizeof(reject))
        memcpy(&reject, param->private_data, sizeof(reject));
    if (le32toh(reject.magic) != LEASEFS_CM_MAGIC)
        return error_set(-ECONNREFUSED, "RDMA connection to %s: rejected (status %d)", where, event->status);
    switch (le32toh(reject.code)) {
    case LEASEFS_REJECT_MALFORMED:
        return error_set(-EPROTO, "RDMA connection to %s: the server does not understand this version's request",
                         where);
    case LEASEFS_REJECT_COOKIE:
        return error_set(-EACCES,
                         "RDMA connection to %s: the cookie is unknown, used or too old. Is it the server whose "
                         "control socket was asked?",
                         where);
    case LEASEFS_REJECT_DEVICE:
        return error_set(-EXDEV, "RDMA connection to %s: it arrived on another device than the session's", where);
    case LEASEFS_REJECT_RESOURCES:
        return error_set(-EAGAIN, "RDMA connection to %s: the server is short of resources. Try again later.", where);
    default:
        return error_set(-ECONNREFUSED, "RDMA connection to %s: rejected (code %u)", where, le32toh(reject.code));
    }
}

static int explain_event(const struct rdma_cm_event *event, const char *where)
{
    switch (event->event) {
    case RDMA_CM_EVENT_REJECTED:
        return explain_reject(event, where);
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
        return error_set(-EHOSTUNREACH, "no way to %s: %s. Is the address right, and its network up?", where,
                         event->status < 0 ? strerror(-event->status) : "no answer");
    case RDMA_CM_EVENT_UNREACHABLE:
        return error_set(-EHOSTUNREACH, "RDMA connection to %s: no answer", where);
    default:
        return error_set(-ENOTCONN, "RDMA connection to %s: %s (status %d)", where, rdma_event_str(event->event),
                         event->status);
    }
}

static bool await_readable(int fd, unsigned timeout_ms)
{
    uint64_t deadline = clock_now_ns() + timeout_ms * NS_PER_MS;
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    for (;;) {
        uint64_t now = clock_now_ns();
        int ready = poll(&poll_fd, 1, now < deadline ? (int)((deadline - now) / NS_PER_MS) + 1 : 0);

        if (ready > 0)
            return true;
        if (ready == 0 && clock_now_ns() >= deadline)
            return false;
    }
}

/* Waits for one event of the id's; `wanted` is success. */
static int await_event(struct rdma_event_channel *channel, enum rdma_cm_event_type wanted, unsigned timeout_ms,
                       const char *where)
{
    struct rdma_cm_event *event;
    int status = 0;

    if (!await_readable(channel->fd, timeout_ms))
        return error_set(-ETIMEDOUT, "RDMA connection to %s: no answer within %u ms", where, timeout_ms);
    if (rdma_get_cm_event(channel, &event))
        return error_set(-errno, "RDMA connection to %s: %m", where);
    if (event->event != wanted)
        status = explain_event(event, where);
    rdma_ack_cm_event(event);
    return status;
}

static int resolve(struct cm_link *link, struct sockaddr_storage *address, const char *where)
{
    int status;

    if (rdma_resolve_addr(link->id, NULL, (struct sockaddr *)address, RESOLVE_TIMEOUT_MS)) {
        if (errno == ENODEV)
            return error_set(-ENODEV, "no RDMA device of this machine reaches %s. See `rdma link`.", where);
        return error_set(-errno, "no way to %s: %m", where);
    }
    status = await_event(link->channel, RDMA_CM_EVENT_ADDR_RESOLVED, 2 * RESOLVE_TIMEOUT_MS, where);
    if (status)
        return status;
    if (!link->id->verbs)
        return error_set(-ENODEV, "no RDMA device of this machine reaches %s. See `rdma link`.", where);
    if (rdma_resolve_route(link->id, RESOLVE_TIMEOUT_MS))
        return error_set(-errno, "no route to %s: %m", where);
    return await_event(link->channel, RDMA_CM_EVENT_ROUTE_RESOLVED, 2 * RESOLVE_TIMEOUT_MS, where);
}

static int make_queues(struct cm_link *link, struct device *device, unsigned depth)
{
    const struct device_limits *limits = device_limits(device);
    struct ibv_qp_init_attr attr = {.qp_type = IBV_QPT_RC};
    int status;

    link->depth = depth < limits->depth ? depth : limits->depth;
    link->completions = ibv_create_comp_channel(link->id->verbs);
    if (!link->completions)
        return error_set(-errno, "RDMA completion channel: %m");
    fcntl(link->completions->fd, F_SETFL, fcntl(link->completions->fd, F_GETFL) | O_NONBLOCK);
    link->cq = ibv_create_cq(link->id->verbs, (int)link->depth + 1, NULL, link->completions, 0);
    if (!link->cq) {
        status = error_set(-errno, "RDMA completion queue for %u requests: %m", link->depth);
        goto undo_channel;
    }
    attr.send_cq = attr.recv_cq = link->cq;
    attr.cap.max_send_wr = link->depth;
    attr.cap.max_recv_wr = 1;
    attr.cap.max_send_sge = attr.cap.max_recv_sge = 1;
    if (rdma_create_qp(link->id, device_pd(device), &attr)) {
        status = error_set(-errno, "RDMA queue pair for %u requests: %m", link->depth);
        goto undo_cq;
    }
    return 0;

undo_cq:
    ibv_destroy_cq(link->cq);
undo_channel:
    ibv_destroy_comp_channel(link->completions);
    return status;
}

static void unmake_queues(struct cm_link *link)
{
    if (link->id->qp)
        rdma_destroy_qp(link->id);
    ibv_destroy_cq(link->cq);
    ibv_destroy_comp_channel(link->completions);
}

static int connect_link(struct cm_link *link, struct device *device, const uint8_t *cookie, const char *where)
{
    const struct device_limits *limits = device_limits(device);
    struct leasefs_cm_request greeting = {
        .magic = htole32(LEASEFS_CM_MAGIC),
        .version = htole16(LEASEFS_PROTOCOL_VERSION),
    };
    struct rdma_conn_param param = {
        .private_data = &greeting,
        .private_data_len = sizeof(greeting),
        .responder_resources = limits->responder_resources,
        .initiator_depth = limits->initiator_depth,
        .retry_count = 7,
        .rnr_retry_count = 7,
    };

    memcpy(greeting.cookie, cookie, sizeof(greeting.cookie));
    if (rdma_connect(link->id, &param))
        return error_set(-errno, "RDMA connection to %s: %m", where);
    return await_event(link->channel, RDMA_CM_EVENT_ESTABLISHED, CONNECT_TIMEOUT_MS, where);
}

static int open_channel(struct cm_link *link)
{
    link->channel = rdma_create_event_channel();
    if (!link->channel)
        return error_set(errno == ENOENT ? -ENODEV : -errno,
                         "RDMA connection manager: %m. Is there an RDMA device, and is the module rdma_ucm loaded?");
    fcntl(link->channel->fd, F_SETFL, fcntl(link->channel->fd, F_GETFL) | O_NONBLOCK);
    if (rdma_create_id(link->channel, &link->id, NULL, RDMA_PS_TCP)) {
        int status = error_set(-errno, "RDMA connection manager: %m");

        rdma_destroy_event_channel(link->channel);
        return status;
    }
    return 0;
}

static int use_device(struct cm_link *link, struct device **device)
{
    if (!*device)
        return device_new(link->id->verbs, link->id->port_num, device);
    if (device_verbs(*device) != link->id->verbs)
        return error_set(-EXDEV,
                         "the way to the server now leads over %s, not over the session's device %s. Open a "
                         "new session.",
                         ibv_get_device_name(link->id->verbs->device),
                         ibv_get_device_name(device_verbs(*device)->device));
    return 0;
}

int cm_connect(const struct cm_request *request, struct device **device, struct cm_link *ret_link)
{
    struct sockaddr_storage address = request->address;
    struct cm_link link = {0};
    char where[64];
    int status = open_channel(&link);

    if (status)
        return status;
    name_address(&address, where, sizeof(where));
    status = resolve(&link, &address, where);
    if (status)
        goto undo_channel;
    status = use_device(&link, device);
    if (status)
        goto undo_channel;
    status = make_queues(&link, *device, request->depth);
    if (status)
        goto undo_channel;
    status = connect_link(&link, *device, request->cookie, where);
    if (status)
        goto undo_queues;
    *ret_link = link;
    return 0;

undo_queues:
    unmake_queues(&link);
undo_channel:
    rdma_destroy_id(link.id);
    rdma_destroy_event_channel(link.channel);
    return status;
}

void cm_close(struct cm_link *link)
{
    unmake_queues(link);
    rdma_destroy_id(link->id);
    rdma_destroy_event_channel(link->channel);
}

bool cm_ended(struct cm_link *link)
{
    struct rdma_cm_event *event;
    bool ended = false;

    /* Rejected: by a server that ends the connection before it has heard that it is there. */
    while (!rdma_get_cm_event(link->channel, &event)) {
        ended |= event->event == RDMA_CM_EVENT_DISCONNECTED || event->event == RDMA_CM_EVENT_REJECTED ||
                 event->event == RDMA_CM_EVENT_DEVICE_REMOVAL || event->event == RDMA_CM_EVENT_CONNECT_ERROR;
        rdma_ack_cm_event(event);
    }
    return ended;
}
