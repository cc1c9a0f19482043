/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_DEVICE_H
#define LEASEFS_INITIATOR_DEVICE_H

/*
 * The peer's RDMA device as one session uses it: a protection domain and the memory registered in it. Outlives the
 * session's connections, so that registered buffers stay good when a connection is made anew. Thread-safe.
 */

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device;

struct device_limits {
    unsigned depth;              /* work requests of one queue */
    uint8_t initiator_depth;     /* RDMA READs under way, from here */
    uint8_t responder_resources; /* and from the other side */
    size_t message;              /* bytes of one work request */
};

/* `verbs` belongs to rdma_cm and lives as long as the process. Sets the error sentence. */
int device_new(struct ibv_context *verbs, uint8_t port, struct device **ret_device);
void device_free(struct device *device); /* frees the buffers too; NULL is allowed */

struct ibv_context *device_verbs(const struct device *device);
struct ibv_pd *device_pd(const struct device *device);
const struct device_limits *device_limits(const struct device *device);

/* Page-aligned memory, registered for local reading and writing. Sets the error sentence. */
int device_buffer_new(struct device *device, size_t length, void **ret_buffer);
void device_buffer_free(struct device *device, void *buffer);

/* The key of the buffer that holds all of these bytes; false: none does. */
bool device_buffer_key(struct device *device, const void *bytes, size_t length, uint32_t *ret_lkey);

/* Memory for the library's own use: page-aligned, registered, not inherited by children. Sets the error sentence. */
struct device_memory {
    void *bytes;
    size_t length;
    struct ibv_mr *mr;
};
int device_memory_new(struct device *device, size_t length, struct device_memory *ret_memory);
void device_memory_free(struct device_memory *memory); /* zeroed memory is allowed */

#endif
