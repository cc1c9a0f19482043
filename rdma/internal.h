/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_INTERNAL_H
#define LEASEFS_RDMA_INTERNAL_H

/*
 * What the objects of the server's side share. One lock, `fabric.lock`, guards everything that changes after start
 * and is not said to be guarded otherwise. Nothing that can block is called while it is held: no verbs, no rdma_cm,
 * no mmap. Under it come only leaves (lease/lock_order.h): the helper pool's lock, the ladder's, the windows'.
 *
 * Threads: the callers' (exposure_ops), one event thread (listener.c), helpers (helpers.h), a watchdog (watchdog.h).
 *
 * Lifetimes: a session is held by its caller, by each of its connections and by each of its regions; the last of
 * them gives the protection domain back. A connection is torn down on a helper and by nobody else. A region is held
 * by its exposure and by whoever calls on its MR.
 */

#include <infiniband/verbs.h>
#include <jansson.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "lease/exposure_ops.h"
#include "lease/log_limit.h"
#include "rdma/exposure.h"
#include "rdma/helpers.h"
#include "rdma/keys.h"
#include "rdma/proof.h"
#include "rdma/rereg.h"
#include "rdma/revoke.h"
#include "rdma/spare.h"
#include "rdma/watchdog.h"
#include "rdma/window.h"

#define FABRIC_HALF_OPEN_MAX  64u
#define FABRIC_HELPERS_MAX    32u
#define FABRIC_CLOSERS_MAX    8u
#define FABRIC_WATCHED_MAX    32u /* calls by threads that are not helpers; stuck ones included */
#define FABRIC_REJECT_REASONS 5u  /* enum leasefs_cm_reject_code, from 1 */
#define FABRIC_MECHANISMS     6
#define FABRIC_BACKLOG        128 /* connection requests that wait, at each address */
#define FABRIC_ADDRESSES_MAX  16u /* of the device, besides the first */

/* What peers do that they must not. Each is counted where it is refused (struct fabric_counters), and logged now and
 * then. */
enum offence_kind {
    OFFENCE_MALFORMED, /* a connection request that is none of ours */
    OFFENCE_COOKIE,    /* one whose cookie admits nobody */
    OFFENCE_MESSAGE,   /* a message on a connection that takes none */
    OFFENCE_ACCESS,    /* what the NIC refuses; a holder whose lease was revoked meets that, too */
    OFFENCES,
};

struct fabric_counters {
    uint64_t accepted, established, replaced, half_open_expired, violations, broken;
    uint64_t rejected[FABRIC_REJECT_REASONS];
    uint64_t exposures, exposures_now, bytes, bytes_now, expose_failed;
};

struct fabric {
    /* Set before the first thread starts. */
    struct rdma_event_channel *channel;
    struct rdma_cm_id *listen_id;
    struct ibv_context *verbs; /* rdma_cm's own: domains and QPs must be of the same context */
    struct ibv_device_attr attr;
    char driver[64]; /* of the hardware, see device_driver() */
    struct ibv_comp_channel *completions;
    struct helper_pool *helpers; /* for calls that somebody waits for */
    struct watchdog *watchdog;   /* of calls without a helper */
    struct helper_pool *closers; /* for what nobody waits for; apart, so that it never delays a fence */
    struct windows windows;
    struct keys *keys; /* reserved ones */
    struct revoke_ladder ladder;
    enum rereg_path rereg;
    bool rereg_moves;                       /* MRs to another domain */
    struct ibv_pd *quarantine;              /* a domain that no queue pair is ever in */
    enum exposure_style style;              /* of leases */
    bool on_demand_works;                   /* the device has ODP for what leases do */
    bool windows_work;                      /* memory windows of type 1, tried */
    bool pins_to_write;                     /* read-only mappings cannot be registered */
    struct proof proofs[FABRIC_MECHANISMS]; /* in the order of fabric_mechanisms; before leases are given */
    uint64_t (*now_ns)(void);               /* the cookies' clock */
    pthread_t event_thread;
    int wake_fd;

    atomic_bool no_iova;        /* the device refused ibv_reg_mr_iova() */
    atomic_bool failure_logged; /* a registration's, since the last that went well */
    struct log_limit offences[OFFENCES];

    pthread_mutex_t lock;
    pthread_cond_t changed;                 /* any of what follows, connections and regions included */
    LIST_HEAD(, exposure_session) sessions; /* open ones */
    LIST_HEAD(, connection) connections;    /* until they are torn down */
    LIST_HEAD(, exposure) exposures;        /* quarantined ones for ever */
    unsigned n_half_open;                   /* accepted, not established, not condemned */
    unsigned n_objects;                     /* sessions whose domain is still there */
    uint64_t last_connection;               /* number given out last */
    uint64_t pinned_bytes;                  /* by regions that are not gone */
    struct spares spares;
    bool stopping, device_gone;
    struct fabric_counters counters;

    struct rdma_cm_id *more_ids[FABRIC_ADDRESSES_MAX]; /* that listen at other addresses of the device */
    unsigned n_more_ids;
    bool listening, listening_failed; /* one thread is about to add one; failed once, and logged */
};

struct exposure_session {
    struct helper_job narrowing; /* must be first */
    struct fabric *fabric;
    uint64_t id;
    struct ibv_pd *pd;
    struct rdma_cm_id *listen_id; /* that its peer is told of */

    /* Guarded by fabric->lock. */
    LIST_ENTRY(exposure_session) link;
    unsigned refs;
    unsigned barred;  /* regions of a fenced QP that could still be reached: no new connection (see region_bar) */
    unsigned writers; /* exposures that peers may write to: without any, the QP does not let them */
    bool narrows;     /* the job is on its way, with a reference */
    bool cookie_valid;
    uint64_t cookie_expires_ns;
    uint8_t cookie[LEASEFS_COOKIE_SIZE];
};

/* session.c */
int session_open(void *fabric, uint64_t session_id, const struct sockaddr *reached,
                 struct exposure_session **ret_session);
int session_connect(struct exposure_session *session, struct exposure_address *ret_address);
void session_close(struct exposure_session *session);
void session_ref_locked(struct exposure_session *session);
void fabric_session_unref(struct exposure_session *session); /* without the lock */
/* An exposure to write to is about to be granted: on return the session's connections allow it. Another has ended. */
void session_add_writer(struct exposure_session *session);
void session_remove_writer(struct exposure_session *session);
/* The session that this cookie admits, with a reference; the cookie is used up. NULL: none. */
struct exposure_session *session_take_cookie(struct fabric *fabric, const uint8_t cookie[LEASEFS_COOKIE_SIZE]);

/* addresses.c */
/* The id that accepts connections at this address of the host, from now on if need be; where none can, the one at
 * `device=`'s. NULL: that one. It is there until addresses_close(). May block. */
struct rdma_cm_id *addresses_listen(struct fabric *fabric, const struct sockaddr *address);
void addresses_close(struct fabric *fabric);

/* listener.c */
int listener_start(struct fabric *fabric); /* the event thread; the ids and channels are the fabric's */
void listener_stop(struct fabric *fabric);

/* exposure.c */
int exposure_expose(struct exposure_session *session, const struct exposure_request *request,
                    struct exposure **ret_exposure, struct exposure_grant *ret_grant);
int exposure_expose_as(struct exposure_session *session, const struct exposure_request *request,
                       enum exposure_style style, struct exposure **ret_exposure, struct exposure_grant *ret_grant);
int exposure_revoke(struct exposure *exposure);
int exposure_fence(struct exposure *exposure);
int exposure_take_back(struct exposure *exposure, bool at_leisure, void (*late)(void *arg, int error), void *arg);
int exposure_orphan(struct exposure *exposure);
void exposure_drop(struct exposure *exposure);
void exposure_abandon(struct exposure *exposure); /* a self-test's: fenced or not, its memory is nobody's */

/* mechanisms.c: the table behind `revoke=`, in the order of "auto". Each mechanism has a file, mechanism_NAME.c. */
extern const struct revoke_mechanism fabric_mechanisms[FABRIC_MECHANISMS];
enum exposure_style mechanism_style(const struct revoke_mechanism *mechanism); /* that it needs */

int revoke_by_rereg(struct exposure *exposure, uint64_t deadline_ns);
int revoke_by_mw(struct exposure *exposure, uint64_t deadline_ns);
int revoke_by_odp(struct exposure *exposure, uint64_t deadline_ns);
int revoke_by_dereg(struct exposure *exposure, uint64_t deadline_ns);
int revoke_by_qp(struct exposure *exposure, uint64_t deadline_ns);
int revoke_by_punch(struct exposure *exposure, uint64_t deadline_ns);

/* report.c */
json_t *report_probe(void *fabric);
json_t *report_status(void *fabric);

#endif
