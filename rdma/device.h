/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_DEVICE_H
#define LEASEFS_RDMA_DEVICE_H

/*
 * Which RDMA device, and which of its addresses. rdma_cm is asked, not guessed at: an address belongs to the device
 * that rdma_bind_addr() finds for it, whatever the link layer (RoCE, InfiniBand with IPoIB, iWARP).
 */

#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* NULL: there is no RDMA device, or no rdma_cm; *ret_error is a sentence, free(). */
struct rdma_event_channel *device_event_channel(char **ret_error);

/*
 * An id bound to an address of a port that is active. wanted: a device's name, an address, or NULL (the first found;
 * IPv4 before IPv6, both before loopback). port 0: any free one.
 * -ENODEV and others: *ret_error is a sentence, free().
 */
int device_bind(struct rdma_event_channel *channel, const char *wanted, uint16_t port, struct rdma_cm_id **ret_id,
                char **ret_error);

/* The same for one more address of the device whose context rdma_cm has made already; port of `address` is ignored.
 * -ENODEV: it is not this device's, or its port is not active. */
int device_bind_too(struct rdma_event_channel *channel, const struct ibv_context *verbs, const struct sockaddr *address,
                    uint16_t port, struct rdma_cm_id **ret_id);

/* Must memory be mapped for writing even where peers only read it? Linux pins it so before 6.2. Tried on a scratch
 * page; false on any failure. */
bool device_pins_to_write(struct ibv_context *verbs);

/* The name of the kernel driver of the device's hardware ("mlx5_core"); "" where there is none, as on soft-RoCE. */
void device_driver(const struct ibv_context *verbs, char *driver, size_t size);

/* Does the device have memory on demand (ODP) for remote reads and writes? */
bool device_on_demand(struct ibv_context *verbs);

#endif
