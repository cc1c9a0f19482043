/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The device's other addresses. Connections are accepted at one from the start, that of `device=`. A client that came
 * to the host by another network may not reach that one, but does reach the address that it came to: when that is the
 * same device's, connections are accepted there, too, on the same port. (Not at all addresses at once: a host's other
 * devices would be listened on, where no session's domain is.)
 */

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "rdma/device.h"
#include "rdma/internal.h"
#include "rdma/sync.h"

static bool same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr == ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return IN6_ARE_ADDR_EQUAL(&((const struct sockaddr_in6 *)a)->sin6_addr,
                              &((const struct sockaddr_in6 *)b)->sin6_addr);
}

/* One that means the same to the peer as to us: neither loopback, nor good on one link only, whose name for the peer
 * nobody here knows. */
static bool can_be_told(const struct sockaddr *address)
{
    const struct in6_addr *in6 = &((const struct sockaddr_in6 *)address)->sin6_addr;

    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 != IN_LOOPBACKNET;
    return address->sa_family == AF_INET6 && !IN6_IS_ADDR_LOOPBACK(in6) && !IN6_IS_ADDR_LINKLOCAL(in6);
}

static struct rdma_cm_id *find_locked(const struct fabric *fabric, const struct sockaddr *address)
{
    if (same_address(rdma_get_local_addr(fabric->listen_id), address))
        return fabric->listen_id;
    for (unsigned i = 0; i < fabric->n_more_ids; i++)
        if (same_address(rdma_get_local_addr(fabric->more_ids[i]), address))
            return fabric->more_ids[i];
    return NULL;
}

/* The same, unless another thread is about to listen at one; then nobody else is. With the lock held. */
static struct rdma_cm_id *find_or_begin(struct fabric *fabric, const struct sockaddr *address)
{
    struct rdma_cm_id *id;

    while (!(id = find_locked(fabric, address)) && fabric->listening)
        pthread_cond_wait(&fabric->changed, &fabric->lock);
    fabric->listening |= !id;
    return id;
}

static int listen_at(struct fabric *fabric, const struct sockaddr *address, struct rdma_cm_id **ret_id)
{
    uint16_t port = ntohs(rdma_get_src_port(fabric->listen_id));
    struct rdma_cm_id *id;
    int r = device_bind_too(fabric->channel, fabric->verbs, address, port, &id);

    if (r < 0)
        return r;
    if (rdma_listen(id, FABRIC_BACKLOG) < 0) {
        r = -errno;
        rdma_destroy_id(id);
        return r;
    }
    *ret_id = id;
    return 0;
}

struct rdma_cm_id *addresses_listen(struct fabric *fabric, const struct sockaddr *address)
{
    struct rdma_cm_id *id;
    bool full, tell;
    int r;

    if (!address || !can_be_told(address))
        return fabric->listen_id;
    pthread_mutex_lock(&fabric->lock);
    id = find_or_begin(fabric, address);
    full = fabric->n_more_ids == FABRIC_ADDRESSES_MAX; /* it stays so: nobody else adds one */
    pthread_mutex_unlock(&fabric->lock);
    if (id)
        return id;

    r = full ? -E2BIG : listen_at(fabric, address, &id);
    pthread_mutex_lock(&fabric->lock);
    if (!r)
        fabric->more_ids[fabric->n_more_ids++] = id;
    tell = r && r != -ENODEV && !fabric->listening_failed;
    fabric->listening_failed |= tell;
    fabric->listening = false;
    pthread_cond_broadcast(&fabric->changed);
    pthread_mutex_unlock(&fabric->lock);
    if (tell)
        fabric_log("no RDMA connections at an address that a client came to; it is told another: %s", strerror(-r));
    return r ? fabric->listen_id : id;
}

void addresses_close(struct fabric *fabric)
{
    for (unsigned i = 0; i < fabric->n_more_ids; i++)
        rdma_destroy_id(fabric->more_ids[i]);
}
