/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/initiator/device.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lease/lock_order.h"
#include "rdma/initiator/error.h"

struct buffer {
    struct buffer *next;
    struct device_memory memory;
};

struct device {
    struct ibv_context *verbs;
    struct ibv_pd *pd;
    struct device_limits limits;

    pthread_mutex_t lock; /* a leaf */
    struct buffer *buffers;
};

static uint8_t clamp_depth(int depth)
{
    return depth < 0 ? 0 : depth > UINT8_MAX ? UINT8_MAX : (uint8_t)depth;
}

static int query_limits(struct ibv_context *verbs, uint8_t port, struct device_limits *ret_limits)
{
    struct ibv_device_attr device;
    struct ibv_port_attr attr;
    int status = -ibv_query_device(verbs, &device);

    if (!status)
        status = -ibv_query_port(verbs, port, &attr);
    if (status)
        return status;
    ret_limits->depth = (unsigned)(device.max_qp_wr < device.max_cqe ? device.max_qp_wr : device.max_cqe);
    ret_limits->initiator_depth = clamp_depth(device.max_qp_init_rd_atom);
    ret_limits->responder_resources = clamp_depth(device.max_qp_rd_atom);
    ret_limits->message = attr.max_msg_sz;
    return 0;
}

int device_new(struct ibv_context *verbs, uint8_t port, struct device **ret_device)
{
    const char *name = ibv_get_device_name(verbs->device);
    struct device *device = calloc(1, sizeof(*device));
    int status;

    if (!device)
        return error_set(-ENOMEM, "out of memory");
    status = query_limits(verbs, port, &device->limits);
    if (status) {
        error_set(status, "RDMA device %s tells no limits: %s", name, strerror(-status));
        goto undo_device;
    }
    device->verbs = verbs;
    device->pd = ibv_alloc_pd(verbs);
    if (!device->pd) {
        status = error_set(errno ? -errno : -ENOMEM, "RDMA device %s gives no protection domain: %m", name);
        goto undo_device;
    }
    pthread_mutex_init(&device->lock, NULL);
    lock_rank(&device->lock, LOCK_DEVICE, 0);
    *ret_device = device;
    return 0;

undo_device:
    free(device);
    return status;
}

void device_free(struct device *device)
{
    struct buffer *next;

    if (!device)
        return;
    for (struct buffer *buffer = device->buffers; buffer; buffer = next) {
        next = buffer->next;
        device_memory_free(&buffer->memory);
        free(buffer);
    }
    ibv_dealloc_pd(device->pd);
    pthread_mutex_destroy(&device->lock);
    free(device);
}

struct ibv_context *device_verbs(const struct device *device)
{
    return device->verbs;
}

struct ibv_pd *device_pd(const struct device *device)
{
    return device->pd;
}

const struct device_limits *device_limits(const struct device *device)
{
    return &device->limits;
}

static int explain_register(int status, size_t length)
{
    struct rlimit limit;

    if (status == -ENOMEM && !getrlimit(RLIMIT_MEMLOCK, &limit) && limit.rlim_cur != RLIM_INFINITY)
        return error_set(status,
                         "registering %zu bytes for RDMA: the limit of locked memory is %llu bytes. Raise it "
                         "(ulimit -l, LimitMEMLOCK=) or use fewer and smaller buffers.",
                         length, (unsigned long long)limit.rlim_cur);
    return error_set(status, "registering %zu bytes for RDMA: %s", length, strerror(-status));
}

int device_memory_new(struct device *device, size_t length, struct device_memory *ret_memory)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct device_memory memory = {.length = length};
    int status;

    if (!length || length > SIZE_MAX - (page - 1))
        return error_set(-EINVAL, "a buffer of %zu bytes is not possible", length);
    memory.length = (length + page - 1) & ~(page - 1);
    memory.bytes = mmap(NULL, memory.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory.bytes == MAP_FAILED)
        return error_set(-errno, "a buffer of %zu bytes: %m", length);
    /* A child that writes would make the parent copy pages away from under the NIC. */
    madvise(memory.bytes, memory.length, MADV_DONTFORK);
    madvise(memory.bytes, memory.length, MADV_HUGEPAGE);
    memory.mr = ibv_reg_mr(device->pd, memory.bytes, memory.length, IBV_ACCESS_LOCAL_WRITE);
    if (!memory.mr) {
        status = explain_register(errno ? -errno : -ENOMEM, length);
        munmap(memory.bytes, memory.length);
        return status;
    }
    *ret_memory = memory;
    return 0;
}

void device_memory_free(struct device_memory *memory)
{
    if (!memory->mr)
        return;
    /* Memory that the NIC may still reach is not given back to the process: better leaked than overwritten. */
    if (!ibv_dereg_mr(memory->mr))
        munmap(memory->bytes, memory->length);
    *memory = (struct device_memory){0};
}

int device_buffer_new(struct device *device, size_t length, void **ret_buffer)
{
    struct buffer *buffer = calloc(1, sizeof(*buffer));
    int status;

    if (!buffer)
        return error_set(-ENOMEM, "out of memory");
    status = device_memory_new(device, length, &buffer->memory);
    if (status) {
        free(buffer);
        return status;
    }
    pthread_mutex_lock(&device->lock);
    buffer->next = device->buffers;
    device->buffers = buffer;
    pthread_mutex_unlock(&device->lock);
    *ret_buffer = buffer->memory.bytes;
    return 0;
}

void device_buffer_free(struct device *device, void *bytes)
{
    struct buffer *found = NULL;

    pthread_mutex_lock(&device->lock);
    for (struct buffer **link = &device->buffers; *link; link = &(*link)->next) {
        if ((*link)->memory.bytes == bytes) {
            found = *link;
            *link = found->next;
            break;
        }
    }
    pthread_mutex_unlock(&device->lock);
    if (!found)
        return;
    device_memory_free(&found->memory);
    free(found);
}

bool device_buffer_key(struct device *device, const void *bytes, size_t length, uint32_t *ret_lkey)
{
    uintptr_t address = (uintptr_t)bytes;
    bool found = false;

    pthread_mutex_lock(&device->lock);
    for (const struct buffer *buffer = device->buffers; buffer && !found; buffer = buffer->next) {
        uintptr_t start = (uintptr_t)buffer->memory.bytes;

        if (address >= start && address - start <= buffer->memory.length &&
            length <= buffer->memory.length - (address - start)) {
            *ret_lkey = buffer->memory.mr->lkey;
            found = true;
        }
    }
    pthread_mutex_unlock(&device->lock);
    return found;
}
