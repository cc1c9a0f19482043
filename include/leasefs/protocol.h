/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_PROTOCOL_H
#define LEASEFS_PROTOCOL_H

/*
 * The control protocol: JSON-RPC 2.0 (https://www.jsonrpc.org/specification), one message a line (UTF-8, LF),
 * no batches. Numbers that can pass 2^53 (ids, keys, addresses) are JSON integers of 64 bits.
 * The meaning of each method, its parameters, result and errors: leasefs-protocol(7), lease/README.md.
 */

#include <stdint.h>

#define LEASEFS_PROTOCOL_VERSION 1
#define LEASEFS_TCP_PORT         20149 /* default, of the control protocol over TLS */

/* Requests. */
#define LEASEFS_METHOD_SESSION "session" /* first on every connection; opens a session */
#define LEASEFS_METHOD_LEASE   "lease"
#define LEASEFS_METHOD_RENEW   "renew"
#define LEASEFS_METHOD_COMMIT  "commit"
#define LEASEFS_METHOD_RETURN  "return"
#define LEASEFS_METHOD_CONNECT "connect" /* address, port and a single-use cookie for the RDMA connection */
#define LEASEFS_METHOD_CREATE  "create"  /* a nameless file, prepared, to be written by RDMA */
#define LEASEFS_METHOD_PUBLISH "publish" /* gives it its name, atomically */
#define LEASEFS_METHOD_PREPARE "prepare"
#define LEASEFS_METHOD_CLONE   "clone"
#define LEASEFS_METHOD_REVOKE  "revoke"
#define LEASEFS_METHOD_STATUS  "status"
#define LEASEFS_METHOD_PROBE   "probe"
#define LEASEFS_METHOD_MAP     "map" /* the extents and leases of a file */

/* Notifications, server to client. */
#define LEASEFS_NOTIFY_RECALL           "recall"           /* give this lease back before its deadline */
#define LEASEFS_NOTIFY_RECALL_CANCELLED "recall_cancelled" /* nobody waits any more: keep it */
#define LEASEFS_NOTIFY_ORPHANED         "orphaned"         /* the file has other bytes there now; the lease goes on */
#define LEASEFS_NOTIFY_REVOKED          "revoked"          /* remote access is gone; the lease has ended */

/* Limits. The server refuses more with an error and goes on. */
#define LEASEFS_MAX_MESSAGE        (64u * 1024) /* bytes of one line, including LF */
#define LEASEFS_MAX_PATH           4095u        /* bytes of a path, without the terminating 0 */
#define LEASEFS_MAX_SESSIONS       1024u
#define LEASEFS_MAX_SESSION_LEASES 4096u /* default; leases of one session */
#define LEASEFS_BLOCK_SIZE         4096u /* bytes; leases are rounded out to whole blocks */

/* JSON-RPC error codes: the standard's own, and one for everything the server itself refuses. error.data then holds
 * "errno" (a symbolic name such as "EBUSY"), "reason" (a word, below), "remedy" (a sentence), and where a byte range
 * is at fault "offset" and "length". */
#define LEASEFS_RPC_PARSE_ERROR      (-32700)
#define LEASEFS_RPC_INVALID_REQUEST  (-32600)
#define LEASEFS_RPC_METHOD_NOT_FOUND (-32601)
#define LEASEFS_RPC_INVALID_PARAMS   (-32602)
#define LEASEFS_RPC_INTERNAL_ERROR   (-32603)
#define LEASEFS_RPC_REFUSED          (-32000)

/* error.data.reason of a refused lease. */
#define LEASEFS_REASON_HOLE       "hole"       /* no blocks there: leasectl prepare */
#define LEASEFS_REASON_UNWRITTEN  "unwritten"  /* allocated, never written: leasectl prepare */
#define LEASEFS_REASON_SHARED     "shared"     /* blocks of more than one file (write leases only): leasectl prepare */
#define LEASEFS_REASON_BEYOND_EOF "beyond-eof" /* lease less, or extend the file */
#define LEASEFS_REASON_FRAGMENTED "fragmented" /* huge pages: cannot be mapped as one range: leasectl prepare */
#define LEASEFS_REASON_CONFLICT   "conflict"   /* another holder's lease */
#define LEASEFS_REASON_RECALL     "recall"     /* a recall of an overlapping lease is pending (invariant I10) */
#define LEASEFS_REASON_PERMISSION "permission"
#define LEASEFS_REASON_LIMIT      "limit"
#define LEASEFS_REASON_NO_DEVICE  "no-device" /* the server has no RDMA device */

/*
 * RDMA connection: private data of the connection request (rdma_cm gives RoCE and InfiniBand 56 bytes of it).
 * All fields little endian. The cookie comes from the "connect" method as 32 hexadecimal digits; it is good once,
 * for LEASEFS_COOKIE_LIFETIME_MS, and ties the connection to the control session.
 */
#define LEASEFS_CM_MAGIC           0x31736c6cu /* "lls1" */
#define LEASEFS_COOKIE_SIZE        16
#define LEASEFS_COOKIE_LIFETIME_MS 10000

struct leasefs_cm_request {
    uint32_t magic;
    uint16_t version; /* LEASEFS_PROTOCOL_VERSION */
    uint16_t reserved;
    uint8_t cookie[LEASEFS_COOKIE_SIZE];
};

/* Private data of a rejected connection (148 bytes available). */
enum leasefs_cm_reject_code {
    LEASEFS_REJECT_MALFORMED = 1, /* private data short, wrong magic or version */
    LEASEFS_REJECT_COOKIE = 2,    /* unknown, used or expired cookie */
    LEASEFS_REJECT_DEVICE = 3,    /* arrived on another device than the session's */
    LEASEFS_REJECT_RESOURCES = 4,
};

struct leasefs_cm_reject {
    uint32_t magic;
    uint32_t code; /* enum leasefs_cm_reject_code */
};

#endif
