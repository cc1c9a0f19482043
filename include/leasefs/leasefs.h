/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASEFS_H
#define LEASEFS_LEASEFS_H

/*
 * libleasefs: take leases on files of a leasefs server and read and write them one-sided over RDMA.
 *
 * Errors are negative errno values; outputs change only on success. leasefs_error() gives the sentence for people.
 *
 * Thread safety: calls on one session may come from any thread; transfers of different threads proceed in parallel
 * as far as the one connection allows. A session has one thread of its own, which listens for recalls and renews
 * leases; callbacks run on it and must not call leasefs_session_close(). With leasefs_session_options.caller_drives it
 * has none: see leasefs_session_dispatch().
 *
 * A lease that the server recalls is given back by the library: it stops new transfers (they fail with -ESTALE),
 * waits for those under way and returns the lease, unless leasefs_lease_options.on_recall says otherwise. A transfer
 * that the server has cut off (the lease was revoked) fails with -EREMOTEIO ("remote access error"); the connection
 * is then made anew by the next transfer, and the session's other leases go on.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LEASEFS_API __attribute__((visibility("default")))

struct leasefs_session;
struct leasefs_lease;

enum leasefs_mode {
    LEASEFS_READ = 1,  /* shared: the bytes do not change while it lasts */
    LEASEFS_WRITE = 2, /* exclusive: only this holder changes the bytes */
};

struct leasefs_session_options {
    const char *control; /* path of the server's control socket; NULL: the default (leasefs_default_control()) */
    const char *host;    /* RDMA address of the server, name or number; NULL: the one that the server tells */
    const char *client;  /* a name for the server's status and log; NULL: the program's name */
    unsigned depth;      /* work requests in flight, 1..1024; 0: 16 */
    size_t chunk;        /* bytes of one work request in large transfers; 0: 1 MiB */

    /* Another host's server, by TCP with TLS 1.3: HOST or HOST:PORT, numeric IPv6 addresses in brackets. NULL: the
     * Unix socket `control`. key: the file with this client's key (`leasectl key new`); NULL: $LEASEFS_KEY,
     * else leasefs/key in $XDG_CONFIG_HOME or ~/.config, for root /etc/leasefs/key. */
    const char *server, *key;

    /* Read leases that are kept for a while after leasefs_lease_return(): the same lease (path, offset, length, policy)
     * then costs a round trip but no registration. The server is told that they are idle and asked before one is used
     * again, so that a path that has come to name another file, lost permissions and changed bytes are noticed. They
     * are given back when the server recalls them, after a third of the lease time, when there are more (the oldest
     * first), and when a new lease meets a limit. 0: none; at most 4096. */
    unsigned idle_leases;

    /* No thread: the caller does what it would do, by leasefs_session_dispatch(). All calls on the session and what
     * belongs to it are one thread's at a time then. */
    bool caller_drives;
};

/* $XDG_RUNTIME_DIR/leasefs.sock for users, /run/leasefs.sock for root. Static storage. */
LEASEFS_API const char *leasefs_default_control(void);

/* options may be NULL. The RDMA connection is made with the first lease. */
LEASEFS_API int leasefs_session_open(const struct leasefs_session_options *options,
                                     struct leasefs_session **ret_session);

/* Returns all leases (waiting for the server's fences) and frees. NULL is allowed. */
LEASEFS_API void leasefs_session_close(struct leasefs_session *session);

/*
 * For sessions whose caller drives them (caller_drives). leasefs_session_dispatch() handles what has come from the
 * server, calls callbacks and renews what is due; it does not wait. It is to be called whenever the descriptor, for
 * poll(2) or epoll(7), is readable, which it is in time for renewals, too. Calls of the session that wait do the same
 * meanwhile, so callbacks run in any of them. -ENOTCONN: the control connection has ended, and with it the leases;
 * the descriptor stays readable.
 * -EINVAL: the session has a thread. -EDEADLK: in a callback.
 */
LEASEFS_API int leasefs_session_fd(struct leasefs_session *session);
LEASEFS_API int leasefs_session_dispatch(struct leasefs_session *session);

/* The last error of this thread as a sentence: what, why, what to do. Never NULL; valid until the thread's next call.
 */
LEASEFS_API const char *leasefs_error(void);

/* What the server said about the last error of this thread, as a JSON object with the members of JSON-RPC's
 * error.data (protocol.h: "errno", "reason", "remedy", "offset", "length"); NULL when the error was not the server's.
 * Valid until the thread's next call. */
LEASEFS_API const char *leasefs_error_data(void);

/* One JSON-RPC call on the control connection: method and parameters (a JSON object as text, or NULL) as in
 * leasefs-protocol(7). *ret_result is the result as JSON text, freed by the caller. On an error of the server the
 * errno it names is returned, and *ret_result (if ret_result is not NULL) is the JSON error object. */
LEASEFS_API int leasefs_call(struct leasefs_session *session, const char *method, const char *params,
                             char **ret_result);

enum leasefs_recall_action {
    LEASEFS_RECALL_RETURN = 0, /* give it back now */
    LEASEFS_RECALL_KEEP = 1,   /* the caller will return it itself, before the deadline */
};

enum leasefs_notice {
    LEASEFS_NOTICE_RECALL = 1,
    LEASEFS_NOTICE_RECALL_CANCELLED,
    LEASEFS_NOTICE_REVOKED,
    LEASEFS_NOTICE_ORPHANED, /* the file has other bytes in the range that `reason` tells; the lease goes on: reads
                                give what was there, writes go nowhere */
};

/* What happens when a local operation of the server meets a lease. */
enum leasefs_policy {
    LEASEFS_POLICY_FILE = 0, /* as the file, its directory or the mount says */
    LEASEFS_POLICY_RECALL,   /* it waits until the lease is given back or taken away */
    LEASEFS_POLICY_BUSY,     /* it fails */
    LEASEFS_POLICY_ORPHAN,   /* it goes on; the lease keeps the old blocks (LEASEFS_NOTICE_ORPHANED) */
};

struct leasefs_lease_options {
    enum leasefs_mode mode;
    uint64_t offset; /* bytes; rounded out to blocks */
    uint64_t length; /* bytes; 0: to the end of the file */
    bool prepare;    /* allocate, zero and unshare first (needs write permission) */
    bool try_only;   /* fail with -EBUSY rather than recall others */
    bool no_rdma;    /* hold the lease without connecting (no transfers through this handle) */

    /* For trying a server out: transfers are attempted even when the library knows that the lease was recalled,
     * revoked or has expired, so that it is the server's NIC that refuses (-EREMOTEIO). Bytes moved then mean nothing.
     */
    bool unguarded;

    /* Called on the session's thread (else in any call that drives the session), possibly before leasefs_lease_open()
     * has returned. Must not block. NULL:
     * LEASEFS_RECALL_RETURN. The result counts for LEASEFS_NOTICE_RECALL only. */
    enum leasefs_recall_action (*on_notice)(struct leasefs_lease *lease, enum leasefs_notice notice,
                                            unsigned deadline_ms, const char *reason, void *arg);
    void *arg;

    /* Counts where it lets a local operation go further than the file's own: from busy over recall to orphan. */
    enum leasefs_policy policy;
};

/* path is inside the filesystem ("/dir/file"). -EPERM: not eligible (leasefs_error() names the range and the remedy),
 * -EBUSY, -EACCES, -ENOENT, -ENODEV (no RDMA device at the server), ... */
LEASEFS_API int leasefs_lease_open(struct leasefs_session *session, const char *path,
                                   const struct leasefs_lease_options *options, struct leasefs_lease **ret_lease);

/* A new file of `size` bytes that will have the name `path` once published; the lease is a write lease on all of it.
 * Until then it has no name, and is gone if the session ends. */
LEASEFS_API int leasefs_create(struct leasefs_session *session, const char *path, mode_t mode, uint64_t size,
                               struct leasefs_lease **ret_lease);

/* Gives the lease back (waiting for the fence), then names the file, replacing an existing one. Frees the lease on
 * success and on failure. */
LEASEFS_API int leasefs_publish(struct leasefs_lease *lease);

struct leasefs_layout {
    uint64_t lease_id;
    uint32_t sequence;
    enum leasefs_mode mode;
    uint64_t offset, length; /* bytes of the file that are covered, whole blocks */
    uint64_t file_size;      /* bytes, when granted */
    uint64_t remote_address; /* of the byte at `offset` */
    uint32_t rkey;
    unsigned lease_time_ms;
};
LEASEFS_API void leasefs_lease_layout(const struct leasefs_lease *lease, struct leasefs_layout *ret_layout);

/* One-sided transfers. Blocks until done; large ones are cut into chunks and pipelined. `buffer` may be any memory
 * (it is copied through registered buffers) or memory from leasefs_buffer_new() (not copied). Returns 0 when all
 * bytes were moved. -ERANGE: outside the lease. -EBADF: a write through a read lease. -ESTALE: recalled, returned or
 * expired. -EREMOTEIO: refused by the server's NIC. -ENOTCONN: connection lost; try again. */
LEASEFS_API int leasefs_read(struct leasefs_lease *lease, void *buffer, size_t length, uint64_t offset);
LEASEFS_API int leasefs_write(struct leasefs_lease *lease, const void *buffer, size_t length, uint64_t offset);

/* Reads through whichever of the session's leases cover the bytes: several, if no single one does, and another when one
 * ends meanwhile. `path` is the one that they were opened with. Takes no leases. -ERANGE: leasefs_error() names the
 * first byte that no lease covers, or none any more. Other errors as leasefs_read(). What several leases give is of one
 * moment only if they were held together all the time. */
LEASEFS_API int leasefs_read_path(struct leasefs_session *session, const char *path, void *buffer, size_t length,
                                  uint64_t offset);

/*
 * Completion queues: many transfers under way from one thread, without a thread more.
 *
 * Submitting posts what fits and returns; leasefs_queue_wait() posts the rest, ends operations and tells of them, in
 * the order in which they end. Nothing goes on but in these calls: operations hold their lease, so that one that is
 * recalled is given back only after leasefs_queue_wait() was called, and is revoked if that takes too long. A recall
 * makes new submissions fail with -ESTALE, and operations of which nothing was posted yet; the others end as usual.
 *
 * A queue is one thread's at a time; queues of different threads work side by side, and beside leasefs_read() and
 * leasefs_write(). Free it before its session (closing the session frees it, too). While operations of a queue use a
 * lease, leasefs_lease_return() and leasefs_publish() fail with -EBUSY.
 */
struct leasefs_queue;

struct leasefs_event {
    void *user; /* as submitted */
    int status; /* as leasefs_read() and leasefs_write() return; leasefs_error() may be about another operation */
};

LEASEFS_API int leasefs_queue_new(struct leasefs_session *session, struct leasefs_queue **ret_queue);

/* Operations under way end first, without an event; those not yet posted are given up. NULL is allowed. */
LEASEFS_API void leasefs_queue_free(struct leasefs_queue *queue);

/* The buffer is the operation's until its event. Errors are those that leasefs_read() finds before it moves anything;
 * there is no event then. */
LEASEFS_API int leasefs_submit_read(struct leasefs_queue *queue, struct leasefs_lease *lease, void *buffer,
                                    size_t length, uint64_t offset, void *user);
LEASEFS_API int leasefs_submit_write(struct leasefs_queue *queue, struct leasefs_lease *lease, const void *buffer,
                                     size_t length, uint64_t offset, void *user);

/* Waits until `min` operations have ended, no more are under way, or the time is over (in ms; negative: no limit), and
 * tells of at most `max`. Returns how many, or a negative errno. min 0: just looks. When the connection has broken a
 * new one is made here, which takes its time whatever timeout_ms is. */
LEASEFS_API int leasefs_queue_wait(struct leasefs_queue *queue, struct leasefs_event *events, unsigned min,
                                   unsigned max, int timeout_ms);

/* A descriptor for poll(2) or epoll(7), which is the queue's. When it is readable, call leasefs_queue_wait() with min 0
 * (there may be no event); it stays readable while there is more to do. */
LEASEFS_API int leasefs_queue_fd(struct leasefs_queue *queue);

/* Page-aligned memory registered for this session's connection; at least `length` bytes. */
LEASEFS_API int leasefs_buffer_new(struct leasefs_session *session, size_t length, void **ret_buffer);
LEASEFS_API void leasefs_buffer_free(struct leasefs_session *session, void *buffer);

/* Tells the server that the bytes written so far are to be seen: mtime, data version. size: new file size within the
 * leased range, or UINT64_MAX to keep it. */
LEASEFS_API int leasefs_commit(struct leasefs_lease *lease, uint64_t size);

/* Gives the lease back and frees it; waits until the server has fenced it. After a write lease's return local readers
 * of the server see the new bytes. NULL is allowed. */
LEASEFS_API int leasefs_lease_return(struct leasefs_lease *lease);

/* Gives back a part of the lease (whole blocks: the range is rounded inwards) and waits for its fence. What is kept was
 * held without a gap; its layout is another: leasefs_lease_layout(). Transfers under way end first, new ones wait.
 * Where the middle is given back, *ret_rest is another lease, on what is behind it (else NULL; ret_rest may be NULL
 * when there is no such middle). If nothing is left the lease has ended, and is still to be freed with
 * leasefs_lease_return(). -EBUSY: operations of a queue use it. After -EMFILE, -EPERM, -EINVAL and -EBUSY the lease is
 * as it was. */
LEASEFS_API int leasefs_lease_return_range(struct leasefs_lease *lease, uint64_t offset, uint64_t length,
                                           struct leasefs_lease **ret_rest);

/* Gives back the right to write, and waits until local readers see what was written; goes on as a read lease. Otherwise
 * as leasefs_lease_return_range(). */
LEASEFS_API int leasefs_lease_downgrade(struct leasefs_lease *lease);

#ifdef __cplusplus
}
#endif

#endif
