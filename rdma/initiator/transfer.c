/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>

#include "rdma/initiator/conn.h"
#include "rdma/initiator/error.h"
#include "rdma/initiator/session.h"

/* A transfer that the connection broke under goes on where it stopped: whoever touches another, revoked lease of the
 * session breaks it for all, and one long transfer may see many of them go. It ends when nothing moves any more. */
#define MAX_IDLE_ATTEMPTS 32

static int attempt(struct leasefs_lease *lease, const struct conn_transfer *transfer, size_t *ret_moved)
{
    struct conn *conn;
    int status = session_conn(lease->session, &conn);

    *ret_moved = 0;
    if (status)
        return status;
    status = conn_transfer(conn, transfer, ret_moved);
    conn_unref(conn);
    return status;
}

static int move(struct leasefs_lease *lease, bool write, void *bytes, size_t length, uint64_t offset)
{
    struct conn_transfer transfer = {
        .write = write,
        .bytes = bytes,
        .length = length,
    };
    int status = session_may_block(lease->session);
    unsigned idle = 0;

    if (status || !length)
        return status;
    do {
        struct lease_target target;
        size_t moved;

        status = lease_transfer_begin(lease, write, offset + (length - transfer.length), transfer.length, &target);
        if (status)
            break;
        transfer.remote_address = target.remote_address;
        transfer.rkey = target.rkey;
        status = lease_transfer_end(lease, attempt(lease, &transfer, &moved));
        idle = moved ? 0 : idle + 1;
        conn_transfer_skip(&transfer, moved);
    } while (status == -ENOTCONN && idle < MAX_IDLE_ATTEMPTS);
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

/* A lease ends under a read as often as somebody takes it away; the next look finds another or none. */
static bool worth_another_lease(int status)
{
    return status == -ESTALE || status == -EREMOTEIO;
}

int leasefs_read_path(struct leasefs_session *session, const char *path, void *buffer, size_t length, uint64_t offset)
{
    char *bytes = buffer;

    while (length) {
        struct leasefs_lease *lease;
        uint64_t covered;
        size_t piece;
        int status;

        lease = lease_covering(session, path, offset, &covered);
        if (!lease)
            return error_set(-ERANGE, "%s: no lease of the session covers byte %llu", path, (unsigned long long)offset);
        piece = covered < length ? (size_t)covered : length;
        status = move(lease, false, bytes, piece, offset);
        lease_unpin(lease);
        if (status && !worth_another_lease(status))
            return status;
        if (status)
            continue;
        bytes += piece;
        offset += piece;
        length -= piece;
    }
    return 0;
}
