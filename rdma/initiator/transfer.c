/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>

#include "rdma/initiator/conn.h"
#include "rdma/initiator/error.h"
#include "rdma/initiator/session.h"

/* How often a transfer is repeated when the connection broke under it. Whoever touches another, revoked lease of the
 * session breaks it for all, and one long transfer may see many of them go. */
#define MAX_ATTEMPTS 32

static int attempt(struct leasefs_lease *lease, struct conn_transfer *transfer)
{
    struct conn *conn;
    int status = session_conn(lease->session, &conn);

    if (status)
        return status;
    status = conn_transfer(conn, transfer);
    conn_unref(conn);
    return status;
}

static int move(struct leasefs_lease *lease, bool write, void *bytes, size_t length, uint64_t offset)
{
    struct conn_transfer transfer = {
        .write = write,
        .bytes = bytes,
        .length = length,
        /* Neither changes once the lease is granted. */
        .remote_address = lease->layout.remote_address + (offset - lease->layout.offset),
        .rkey = lease->layout.rkey,
    };
    int status = session_may_block(lease->session);

    if (status || !length)
        return status;
    for (int i = 0; i < MAX_ATTEMPTS; i++) {
        status = lease_transfer_begin(lease, write, offset, length);
        if (status)
            break;
        status = lease_transfer_end(lease, attempt(lease, &transfer));
        if (status != -ENOTCONN)
            break;
    }
    return status;
}

int leasefs_read(struct leasefs_lease *lease, void *buffer, size_t length, uint64_t offset)
{
    return move(lease, false, buffer, length, offset);
}

int leasefs_write(struct leasefs_lease *lease, const void *buffer, size_t length, uint64_t offset)
{
    /* A write does not change the caller's memory. */
    return move(lease, true, (void *)(uintptr_t)buffer, length, offset);
}
