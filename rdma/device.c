/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/device.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rdma/sync.h"

struct search {
    struct rdma_event_channel *channel;
    const char *device;              /* only this one, or NULL */
    const struct ibv_context *verbs; /* the same */
    uint16_t port;
    struct rdma_cm_id *found;
    bool inactive;  /* a device fits, but its port is down */
    int bind_error; /* of an address that does belong to a device */
};

static socklen_t address_length(const struct sockaddr *address)
{
    return address->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static bool port_active(struct rdma_cm_id *id)
{
    struct ibv_port_attr port;

    return ibv_query_port(id->verbs, id->port_num, &port) == 0 && port.state == IBV_PORT_ACTIVE;
}

/* Tries one address of this host; true ends the search. */
static bool try_address(struct search *search, const struct sockaddr *address)
{
    struct sockaddr_storage with_port = {0};
    struct rdma_cm_id *id;

    memcpy(&with_port, address, address_length(address));
    if (address->sa_family == AF_INET)
        ((struct sockaddr_in *)&with_port)->sin_port = htons(search->port);
    else
        ((struct sockaddr_in6 *)&with_port)->sin6_port = htons(search->port);

    if (rdma_create_id(search->channel, &id, NULL, RDMA_PS_TCP) < 0) {
        search->bind_error = -errno;
        return false;
    }
    if (rdma_bind_addr(id, (struct sockaddr *)&with_port) < 0) {
        if (errno != ENODEV && errno != EADDRNOTAVAIL)
            search->bind_error = -errno;
        goto undo_id;
    }
    if (!id->verbs)
        goto undo_id;
    if (search->verbs && search->verbs != id->verbs)
        goto undo_id;
    if (search->device && strcmp(ibv_get_device_name(id->verbs->device), search->device) != 0)
        goto undo_id;
    if (!port_active(id)) {
        search->inactive = true;
        goto undo_id;
    }
    search->found = id;
    return true;

undo_id:
    rdma_destroy_id(id);
    return false;
}

/* The lower, the better liked; -1: not to be tried without being named. */
static int address_rank(const struct ifaddrs *interface)
{
    const struct sockaddr *address = interface->ifa_addr;
    int loopback = interface->ifa_flags & IFF_LOOPBACK ? 2 : 0;

    if (!address || !(interface->ifa_flags & IFF_UP))
        return -1;
    if (address->sa_family == AF_INET)
        return loopback;
    if (address->sa_family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)address)->sin6_addr))
        return loopback + 1;
    return -1;
}

static int search_interfaces(struct search *search)
{
    struct ifaddrs *interfaces;

    if (getifaddrs(&interfaces) < 0)
        return -errno;
    for (int rank = 0; rank < 4 && !search->found; rank++)
        for (struct ifaddrs *i = interfaces; i && !search->found; i = i->ifa_next)
            if (address_rank(i) == rank)
                try_address(search, i->ifa_addr);
    freeifaddrs(interfaces);
    return 0;
}

/* The names of all devices. */
struct device_names {
    int count;
    char *all; /* "rxe0, mlx5_0"; NULL when there is none or no memory */
    bool has_wanted;
};

static void list_devices(const char *wanted, struct device_names *names)
{
    struct ibv_device **devices = ibv_get_device_list(&names->count);

    if (!devices)
        names->count = 0;
    for (int i = 0; i < names->count; i++) {
        const char *name = ibv_get_device_name(devices[i]);
        char *longer;

        names->has_wanted |= wanted && !strcmp(name, wanted);
        if (asprintf(&longer, "%s%s%s", names->all ? names->all : "", names->all ? ", " : "", name) < 0)
            continue;
        free(names->all);
        names->all = longer;
    }
    if (devices)
        ibv_free_device_list(devices);
}

static int explain_not_found(const struct search *search, const char *wanted, bool by_address,
                             const struct device_names *names, char **ret_error)
{
    const char *all = names->all ? names->all : "?";

    if (search->bind_error)
        return fabric_error(ret_error, search->bind_error, "cannot listen for RDMA connections on port %u: %s",
                            search->port, strerror(-search->bind_error));
    if (search->inactive)
        return fabric_error(ret_error, -ENODEV, "the RDMA port of %s is not active; check its cable and interface",
                            wanted ? wanted : all);
    if (by_address)
        return fabric_error(ret_error, -ENODEV, "%s is not the address of an RDMA device of this host (it has %s)",
                            wanted, all);
    if (wanted && !names->has_wanted)
        return fabric_error(ret_error, -ENODEV, "no RDMA device \"%s\"; there is: %s", wanted, all);
    return fabric_error(ret_error, -ENODEV,
                        "RDMA device %s has no network interface that is up and has an IP address; give it one",
                        wanted ? wanted : all);
}

static int search_for(struct search *search, const char *wanted, bool *ret_by_address)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    struct addrinfo *address;

    *ret_by_address = wanted && getaddrinfo(wanted, NULL, &hints, &address) == 0;
    if (!*ret_by_address) {
        search->device = wanted;
        return search_interfaces(search);
    }
    try_address(search, address->ai_addr);
    freeaddrinfo(address);
    return 0;
}

int device_bind(struct rdma_event_channel *channel, const char *wanted, uint16_t port, struct rdma_cm_id **ret_id,
                char **ret_error)
{
    struct search search = {.channel = channel, .port = port};
    struct device_names names = {0};
    bool by_address;
    int r;

    list_devices(wanted, &names);
    r = search_for(&search, wanted, &by_address);
    if (r < 0)
        r = fabric_error(ret_error, r, "cannot list the network interfaces: %s", strerror(-r));
    else if (!search.found)
        r = explain_not_found(&search, wanted, by_address, &names, ret_error);
    else
        *ret_id = search.found;
    free(names.all);
    return r;
}

int device_bind_too(struct rdma_event_channel *channel, const struct ibv_context *verbs, const struct sockaddr *address,
                    uint16_t port, struct rdma_cm_id **ret_id)
{
    struct search search = {.channel = channel, .verbs = verbs, .port = port};

    if (!try_address(&search, address))
        return search.bind_error ? search.bind_error : -ENODEV;
    *ret_id = search.found;
    return 0;
}

struct rdma_event_channel *device_event_channel(char **ret_error)
{
    struct rdma_event_channel *channel;
    int count = 0;
    struct ibv_device **devices = ibv_get_device_list(&count);

    if (devices)
        ibv_free_device_list(devices);
    if (!devices || !count) {
        fabric_error(ret_error, 0, "no RDMA device; for soft-RoCE: rdma link add rxe0 type rxe netdev eth0");
        return NULL;
    }
    channel = rdma_create_event_channel();
    if (!channel)
        fabric_error(ret_error, 0, "cannot use /dev/infiniband/rdma_cm: %s; load it with: modprobe rdma_ucm",
                     strerror(errno));
    return channel;
}

void device_driver(const struct ibv_context *verbs, char *driver, size_t size)
{
    char path[IBV_SYSFS_PATH_MAX + 16], target[IBV_SYSFS_PATH_MAX];
    ssize_t length;

    snprintf(path, sizeof(path), "%s/device/driver", verbs->device->ibdev_path);
    length = readlink(path, target, sizeof(target) - 1);
    if (length < 0)
        length = 0;
    target[length] = '\0';

    const char *slash = strrchr(target, '/');

    snprintf(driver, size, "%s", slash ? slash + 1 : target);
}

bool device_on_demand(struct ibv_context *verbs)
{
    const uint32_t needed = IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_WRITE;
    struct ibv_device_attr_ex attr = {0};

    return ibv_query_device_ex(verbs, NULL, &attr) == 0 && (attr.odp_caps.general_caps & IBV_ODP_SUPPORT) &&
           (attr.odp_caps.per_transport_caps.rc_odp_caps & needed) == needed;
}

static bool refuses_read_only(struct ibv_pd *pd, size_t page_size)
{
    bool refused = false;
    void *page;
    int fd = memfd_create("leasefs-pin", MFD_CLOEXEC);

    if (fd < 0)
        return false;
    page = ftruncate(fd, (off_t)page_size) == 0 ? mmap(NULL, page_size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (page != MAP_FAILED) {
        struct ibv_mr *mr = ibv_reg_mr(pd, page, page_size, IBV_ACCESS_REMOTE_READ);

        refused = !mr && errno == EFAULT;
        if (mr)
            ibv_dereg_mr(mr);
        munmap(page, page_size);
    }
    close(fd);
    return refused;
}

bool device_pins_to_write(struct ibv_context *verbs)
{
    struct ibv_pd *pd = ibv_alloc_pd(verbs);
    bool refused;

    if (!pd)
        return false;
    refused = refuses_read_only(pd, (size_t)sysconf(_SC_PAGESIZE));
    ibv_dealloc_pd(pd);
    return refused;
}
