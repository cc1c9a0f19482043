/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_SERVICE_PRIVATE_H
#define LEASEFS_LEASE_SERVICE_PRIVATE_H

/*
 * The control service from inside. Who owns what:
 *
 *   control thread         sockets, input, the list of sessions. Whichever thread leads (service.c), one at a time
 *   service.lock (leaf)    mail for the control thread, grants by lease id, returns that wait, files of sessions
 *   session.requests_lock  its requests under way; outside the lease table's lock
 *   session.output_lock    (leaf) what is still to be sent, and who sends: the control thread, or a worker who has an
 *                          answer and finds nothing before it, see session_mail()
 *   reference counts       sessions (connection, each request under way, each grant) and grants (table, notice)
 *
 * What else other threads have for a client goes by mail: mail_post() wakes the control thread.
 */

#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdatomic.h>
#include <systemd/sd-event.h>
#define HASH_NONFATAL_OOM 1 /* an entry that was not added has no hh.tbl; else uthash ends the process */
#include <uthash.h>

#include "lease/jsonrpc.h"
#include "lease/service.h"
#include "lease/workqueue.h"

#define GRANT_MAX_RETURNS       8u                  /* of one lease, that wait for its end */
#define SESSION_MAX_REQUESTS    1024u               /* under way at once, of one session */
#define SESSION_MAX_OUTPUT      (16u * 1024 * 1024) /* unsent bytes; a slower reader is dropped */
#define SESSION_MAX_FILES       1024u               /* created and not yet published */
#define SESSION_OPEN_TIMEOUT_US (10u * 1000 * 1000) /* lease_service_config.open_timeout_us by default */

struct session;
struct grant;

/* Something for the control thread to do. Embedded, or made by mail_send(). */
struct mail {
    void (*deliver)(struct mail *mail); /* on the control thread; frees it or what holds it */
    struct mail *next;
};

struct lease_service {
    struct lease_service_config config;
    struct lease_table *table;
    struct workqueue *grants, *fences;
    struct work lead; /* to be the control thread; of `fences`. Whoever runs it leads until it is queued again */
    struct work *own; /* control thread: what it will carry out itself; NULL: nothing */
    struct workqueue *own_queue; /* where else `own` would be */
    bool own_is_brief;           /* unless something is stuck */
    atomic_bool on_offer;        /* the lead: the control thread will be back soon */
    struct deputy *deputy;
    uint64_t last_speaker; /* control thread: the session that the last message came from, */
    bool alone;            /* and whether so did the one before */
    sd_event *loop;
    sd_event_source *timer, *wake_source, *listen_source, *accept_again;
    struct remote *remote; /* NULL: no remote clients */
    bool started;
    int listen_fd, wake_fd;
    char *control_path;
    uint64_t started_at_ns;
    uint64_t last_session_id;          /* control thread */
    atomic_uint_least64_t rings_at_ns; /* of `timer`; set by the control thread. UINT64_MAX: never */
    struct session *sessions;          /* control thread */
    size_t n_sessions;

    pthread_mutex_t lock;
    pthread_cond_t idle; /* `busy` became 0, or `led` false */
    bool led;            /* there is a control thread */
    unsigned n_own;      /* requests that former control threads carry out themselves */
    struct mail *mail, **mail_end;
    struct grant *grants_by_id;
    size_t busy;       /* sessions, requests and grants that exist */
    bool wake_pending; /* the control thread has been woken for `mail` */
};

struct session_file { /* made by "create", nameless until published */
    uint64_t id, inode;
    struct session_file *next;
};

struct session {
    struct lease_service *service;
    atomic_uint refs;
    atomic_bool ended; /* the client is gone: no new leases */
    pthread_mutex_t requests_lock;
    struct request *requests; /* under way; requests_lock */
    size_t n_requests;        /* the same */
    struct session *next, **prev;
    uint64_t id;
    char *client;
    bool opened;                     /* control thread: "session" was answered */
    struct exposure_session *fabric; /* set before `opened` */
    int fabric_error;
    struct lease_credentials who;
    struct client_key *key;          /* a remote client's: `who` is made of it. NULL: one at the Unix socket */
    struct sockaddr_storage reached; /* the address of this host that a remote client came to; else no family */
    struct session_file *files;      /* service.lock */
    uint64_t last_file, opened_at_ns;
    size_t n_files;

    /* control thread */
    bool tls_stuck; /* the last record is still to be sent on */
    uint64_t heard_at_ns;
    sd_event_source *io, *timeout;
    char *in;
    size_t in_length;

    pthread_mutex_t output_lock;
    int fd, ended_fd;     /* fd -1: ended. Changed by the control thread with output_lock */
    gnutls_session_t tls; /* of a remote client; likewise */
    /* output_lock; the control thread's while it sends */
    char *out;
    size_t out_length, out_sent, out_size;
    bool sending;    /* somebody is, without the lock */
    unsigned mailed; /* messages that the control thread is still to find: none overtakes them */

    struct work close;
};

/* A request under way on a grant worker, or parked. */
struct request {
    struct work work;
    struct lease_waiter waiter;
    struct session *session;
    struct request *next, **prev; /* of the session; its requests_lock */
    json_t *id, *params;
    void (*step)(struct request *request); /* one of methods.c and grant.c; called again after a park */
    const char *path, *destination;        /* borrowed from params */
    uint64_t inode, offset, length, size, file, lease_id, idle;
    enum lease_mode mode;
    enum lease_policy policy, file_policy;
    mode_t permissions;
    bool pinned, prepare, wait, prepared, flushed;
    struct mail mail;             /* to the control thread: it waits for a cut (cut_wait()) */
    struct request *next_waiting; /* of a grant; control thread */
};

/* One lease's things outside the table: the `exposure` pointer of lease_commit(). */
struct grant {
    struct lease_service *service;
    struct session *session;
    atomic_uint refs;
    uint64_t lease_id, inode;
    struct lease_range range;
    enum lease_mode mode;
    struct layout_hold *hold;
    const struct layout_run *runs;
    size_t n_runs;
    struct exposure *exposure;
    struct exposure_grant keys;
    enum lease_end_reason reason;
    bool at_leisure;   /* it ends, and nobody waits for that but who gave it back */
    uint32_t sequence; /* at its end */
    struct work fence;
    struct mail notice;
    bool notice_queued; /* service.lock */
    bool announced;     /* service.lock: its answer is sent or in the mail, so that news of it may follow */
    struct mail *early, **early_end;  /* service.lock: news from before that */
    struct lease_range told_orphaned; /* control thread: what the holder was told last */
    bool told_recall;                 /* control thread: what the holder was told last */
    struct pending_return *returns;   /* service.lock */
    unsigned n_returns;               /* service.lock */
    struct cut *cut;                  /* this is a remnant (lease_cut.c): what else there is to do after its fence */
    bool cutting;                     /* control thread: the lease is being cut; returns of it wait */
    struct give_back *deferred;       /* control thread: those, the last first */
    size_t n_deferred;
    struct request *waiting; /* control thread: requests that go on when the cut is through */
    UT_hash_handle hh;
};

struct pending_return {
    json_t *id;
    struct session *session;
    struct pending_return *next;
};

/* A "return" as it was said. */
struct give_back {
    json_t *id; /* NULL: no answer is wanted */
    uint64_t lease_id;
    uint32_t sequence;       /* 0: not said */
    bool in_part;            /* else all of it */
    struct lease_range part; /* bytes */
    enum lease_mode mode;    /* of what is kept; 0: as it is */
    struct give_back *next;
};

static inline uint64_t service_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#define container(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

/* service.c */
void service_wake(struct lease_service *service);

/* Work for service->grants or ->fences. The control thread keeps the last of what comes up in its turn for itself, the
 * others go to the queue. brief: it takes no longer than to wake a thread does, if nothing is stuck. May be called
 * under any lock. */
void service_push(struct lease_service *service, struct workqueue *queue, struct work *work, bool brief);
#define SERVICE_BRIEF_BYTES (1u << 20)                /* registering them, or the end of that, is brief */
void service_hears(const struct session *session);    /* control thread: a message of its is to be handled */
void service_push_own(struct lease_service *service); /* control thread: it has something else to do before that */
void mail_post(struct lease_service *service, struct mail *mail);
void mail_post_news(struct grant *grant, struct mail *mail); /* not before the grant is announced */
void grant_announced(struct grant *grant);
void service_busy(struct lease_service *service);
void service_idle(struct lease_service *service);
void service_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* session.c */
int session_accept(sd_event_source *source, int fd, uint32_t events, void *arg);
int session_accept_again(sd_event_source *source, uint64_t usec, void *arg);
bool session_accept_pauses(struct lease_service *service); /* errno says that descriptors are short: try later */
struct session_peer {
    int fd;
    gnutls_session_t tls; /* with `key`: of a remote client */
    struct client_key *key;
    struct sockaddr_storage from;
};
int session_new(struct lease_service *service, const struct session_peer *peer); /* on success it owns all of it */
void session_opened(struct session *session);                                    /* control thread: it is answered */
void session_end(struct session *session);                                       /* control thread */
void session_end_all(struct lease_service *service);
struct session *session_ref(struct session *session);
void session_unref(struct session *session);
struct session *session_find(struct lease_service *service, uint64_t session_id); /* control thread */
const struct sockaddr *session_reached(const struct session *session);            /* NULL: it came by no network */
bool session_same_key(const struct session *a, const struct session *b);

/* session_output.c. No lock is held. What cannot be sent or kept ends the connection: better the client learns now than
 * that it waits for an answer. */
void session_send(struct session *session, json_t *message);                     /* control thread; steals message */
void session_answer(struct session *session, const json_t *id, json_t *message); /* the same; nothing without an id */
int session_flush(struct session *session); /* control thread: the descriptor takes more. An error ends the session */
void session_mail(struct session *session, json_t *message);           /* any thread, without locks; steals message */
void session_mail_line(struct session *session, char *line);           /* the same, with its LF. NULL: no memory */
struct mail *session_letter(struct session *session, json_t *message); /* steals message. NULL: no memory, as above */

/* methods.c: one line from a client. Control thread. */
void methods_handle(struct session *session, const char *line, size_t length);

/* request.c */
/* Takes what rpc has. */
void request_start(struct session *session, struct jsonrpc_request *rpc, void (*step)(struct request *), bool brief);
void request_end(struct request *request, json_t *message);              /* sends, frees */
void request_end_with_text(struct request *request, const char *result); /* the same: a result, as JSON */
void requests_abandon(struct session *session);                          /* none of them waits any longer */
void request_result(struct request *request, json_t *result);
struct refusal {
    int error; /* negative errno */
    const char *reason, *remedy;
    struct lease_range range; /* length 0: none */
};
json_t *refusal_message(json_t *id, const struct refusal *refusal, const char *message);
void request_refuse(struct request *request, const struct refusal *refusal, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void request_fail(struct request *request, int error); /* a filesystem's errno, in words */
uint64_t request_file_inode(struct request *request);  /* 0: no such file */

/* grant.c: steps */
int grant_expose(struct grant *grant); /* its hold */
json_t *grant_json(const struct grant *grant, const struct lease_info *info);
const char *expose_remedy(int error);
void grant_step(struct request *request);
int grant_pin(struct request *request);                        /* opens the path, or finds the file */
bool grant_range(struct request *request, uint64_t *ret_size); /* length 0: to EOF. false: refused, request gone */

/* fence.c */
struct grant *grant_find(struct lease_service *service, uint64_t lease_id); /* with a reference, or NULL */
void grant_unref(struct grant *grant);
int grant_publish(struct grant *grant);    /* found by id from now on. -ENOMEM */
void grant_unpublish(struct grant *grant); /* also if it could not be published */
void fence_run(struct work *work);         /* the FENCE event's job */
bool fence_exposure(struct grant *grant);  /* true: proven, everything released */
void fence_return(struct session *session, json_t *id, uint64_t lease_id, uint32_t sequence);
void notice_deliver(struct mail *mail);

/* cut.c */
void cut_return(struct session *session, const struct give_back *said); /* control thread */
void cut_hold(struct grant *remnant);   /* after its fence, before its release: the pieces get holds of their own */
void cut_keep(struct grant *remnant);   /* after lease_fenced(): exposes what is kept, or ends it */
void cut_wait(struct request *request); /* any thread: it goes on when its lease is no longer being cut */
void return_refuse(struct session *session, json_t *id, int error);
void cut_told(struct grant *remnant); /* answers; takes the reference */

/* status.c */
void status_step(struct request *request);
void map_step(struct request *request); /* path and offset are taken */

#endif
