/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_CM_H
#define LEASEFS_INITIATOR_CM_H

/* Making and unmaking the RDMA connection (rdma_cm), without the work that goes over it (conn.h). */

#include <rdma/rdma_cma.h>
#include <stdint.h>
#include <sys/socket.h>

#include "rdma/initiator/device.h"
#include <leasefs/protocol.h>

struct cm_request {
    struct sockaddr_storage address; /* with the port */
    uint8_t cookie[LEASEFS_COOKIE_SIZE];
    unsigned depth; /* work requests wanted in flight; the device may allow less */
};

struct cm_link {
    struct rdma_event_channel *channel; /* non-blocking */
    struct rdma_cm_id *id;              /* with its QP, connected */
    struct ibv_comp_channel *completions;
    struct ibv_cq *cq;
    unsigned depth; /* work requests the queues hold */
};

/* Resolves, makes the queues and connects; bounded in time. *device is made when it is NULL, also if connecting then
 * fails; -EXDEV: the way leads over another device than *device. Sets the error sentence. */
int cm_connect(const struct cm_request *request, struct device **device, struct cm_link *ret_link);

/* Every completion event must have been acknowledged. */
void cm_close(struct cm_link *link);

/* Looks at what rdma_cm reports. true: the connection has ended. */
bool cm_ended(struct cm_link *link);

/* The address of a host by name or number, with `port`. Sets the error sentence. */
int cm_lookup(const char *host, uint16_t port, struct sockaddr_storage *ret_address);

#endif
