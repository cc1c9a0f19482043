/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "rdma/faults.h"
#include "rdma/internal.h"
#include "rdma/mw.h"
#include "rdma/sync.h"

/* Registrations to find a key that is not reserved. A device that gives the freed number out next needs one more. */
#define KEY_ATTEMPTS 8

struct region {
    struct helper_job retirement; /* must be first */
    struct fabric *fabric;
    struct exposure_session *session; /* a reference */
    struct window *window;
    struct ibv_mr *mr; /* valid unless gone; called by whoever has set busy */
    struct ibv_mw *mw; /* of EXPOSURE_WINDOWED, until it is freed; likewise */
    uint64_t remote_address;
    uint32_t rkey;
    enum exposure_style style;

    /* Guarded by fabric->lock. */
    unsigned refs; /* the exposure, whoever calls */
    bool busy;     /* somebody calls on the MR */
    bool gated, gone;
    bool barring; /* counted in session->barred */
    bool retired;
};

static uint64_t pinned_now(struct fabric *fabric)
{
    uint64_t pinned;

    pthread_mutex_lock(&fabric->lock);
    pinned = fabric->pinned_bytes;
    pthread_mutex_unlock(&fabric->lock);
    return pinned;
}

/* Once, until a registration goes well again: peers can ask for what fails as often as they like. */
static void log_registration(struct fabric *fabric, uint64_t length, int r)
{
    struct rlimit limit;

    if (atomic_exchange(&fabric->failure_logged, true))
        return;
    if (r == -ENOMEM && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        fabric_log("cannot register %llu bytes: %s. Leases pin %llu bytes already, and RLIMIT_MEMLOCK is %llu bytes: "
                   "raise it (LimitMEMLOCK=infinity in the service file, ulimit -l unlimited in a shell)",
                   (unsigned long long)length, strerror(-r), (unsigned long long)pinned_now(fabric),
                   (unsigned long long)limit.rlim_cur);
    else
        fabric_log("cannot register %llu bytes: %s", (unsigned long long)length, strerror(-r));
}

static bool is_pinned(const struct region *region)
{
    return region->style != EXPOSURE_ON_DEMAND;
}

/* What the MR itself allows: nothing to peers when their key is a window's. */
static int mr_access(const struct region *region, int access)
{
    const int remote = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;

    switch (region->style) {
    case EXPOSURE_WINDOWED:
        return (access & ~remote) | IBV_ACCESS_MW_BIND;
    case EXPOSURE_ON_DEMAND:
        return access | IBV_ACCESS_ON_DEMAND;
    case EXPOSURE_PINNED:
        break;
    }
    return access;
}

static struct ibv_mr *register_once(struct region *region, uint64_t iova, int access)
{
    struct fabric *fabric = region->fabric;
    void *address = window_address(region->window);
    uint64_t length = window_length(region->window);
    struct ibv_mr *mr;

    if (is_pinned(region) && !atomic_load(&fabric->no_iova)) {
        mr = ibv_reg_mr_iova(region->session->pd, address, length, iova, access);
        if (mr || (errno != EOPNOTSUPP && errno != EINVAL)) {
            region->remote_address = iova;
            return mr;
        }
    }
    mr = ibv_reg_mr(region->session->pd, address, length, access);
    if (mr && is_pinned(region))
        atomic_store(&fabric->no_iova, true);
    region->remote_address = (uintptr_t)address;
    return mr;
}

/* Is it one that peers get? The MR under a memory window has no remote rights, and on Linux 6.1 they all have key 0. */
static bool has_own_key(const struct region *region)
{
    return region->style != EXPOSURE_WINDOWED;
}

/* What it cannot use stays registered until it has found another, or the device would offer it again. */
static int register_memory(struct region *region, uint64_t iova, int access)
{
    struct ibv_mr *passed_over[KEY_ATTEMPTS];
    unsigned n = 0;
    int r;

    for (;;) {
        region->mr = register_once(region, iova, mr_access(region, access));
        r = region->mr ? 0 : errno ? -errno : -EIO;
        if (r < 0 || !has_own_key(region) || !keys_reserved(region->fabric->keys, region->mr->rkey, monotonic_ns()))
            break;
        passed_over[n++] = region->mr;
        if (n == KEY_ATTEMPTS) {
            r = -EAGAIN;
            break;
        }
    }
    while (n)
        ibv_dereg_mr(passed_over[--n]);
    return r;
}

static bool key_is_free(void *arg, uint32_t key)
{
    return !keys_reserved(arg, key, monotonic_ns());
}

static int make_memory_window(struct region *region, int access)
{
    struct mw_request request = {
        .mr = region->mr,
        .iova = region->remote_address,
        .length = window_length(region->window),
        .access = access,
        .usable = key_is_free,
        .arg = region->fabric->keys,
    };

    return mw_new(region->fabric->listen_id, &request, &region->mw);
}

/* The key that peers get. */
static int make_key(struct region *region, int access)
{
    int r = 0;

    if (!has_own_key(region))
        r = make_memory_window(region, access & (IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE));
    if (r == 0)
        region->rkey = has_own_key(region) ? region->mr->rkey : region->mw->rkey;
    return r;
}

static struct region *allocate(struct exposure_session *session, struct window *window, enum exposure_style style)
{
    struct region *region = calloc(1, sizeof(*region));

    if (!region)
        return NULL;
    region->fabric = session->fabric;
    region->session = session;
    region->window = window;
    region->style = style;
    region->refs = 1;
    return region;
}

static void enlist(struct region *region)
{
    struct fabric *fabric = region->fabric;

    pthread_mutex_lock(&fabric->lock);
    session_ref_locked(region->session);
    if (is_pinned(region))
        fabric->pinned_bytes += window_length(region->window);
    pthread_mutex_unlock(&fabric->lock);
}

int region_new(struct exposure_session *session, struct window *window, uint64_t iova, int access,
               enum exposure_style style, struct region **ret_region)
{
    struct region *region = allocate(session, window, style);
    int r;

    if (!region)
        return -ENOMEM;
    r = register_memory(region, iova, access);
    if (r == 0) {
        r = make_key(region, access);
        if (r < 0)
            ibv_dereg_mr(region->mr);
    }
    if (r < 0) {
        log_registration(region->fabric, window_length(window), r);
        free(region);
        return r;
    }
    atomic_store(&region->fabric->failure_logged, false);
    enlist(region);
    *ret_region = region;
    return 0;
}

int region_adopt(struct exposure_session *session, struct spare *spare, int access, struct region **ret_region)
{
    struct region *region = allocate(session, spare->window, EXPOSURE_PINNED);
    int r = region ? rereg_move(session->fabric->rereg, spare->mr, session->pd, access) : -ENOMEM;

    if (r < 0) {
        ibv_dereg_mr(spare->mr);
        free(region);
        return r;
    }
    region->mr = spare->mr;
    region->remote_address = spare->remote_address;
    region->rkey = spare->mr->rkey;
    enlist(region);
    *ret_region = region;
    return 0;
}

uint32_t region_rkey(const struct region *region)
{
    return region->rkey;
}

uint64_t region_remote_address(const struct region *region)
{
    return region->remote_address;
}

static void unbar_locked(struct region *region)
{
    if (region->barring) {
        region->barring = false;
        region->session->barred--;
    }
}

static void retire_in_background(struct helper_job *job);

/* A call on the MR is done. The last one out frees the region. */
static void finish_call(struct region *region)
{
    struct fabric *fabric = region->fabric;
    bool last = false;

    pthread_mutex_lock(&fabric->lock);
    region->busy = false;
    if (region->gated || region->gone)
        unbar_locked(region);
    if (region->retired && !region->gone) {
        /* Its exposure left while we were stuck: deregister, with the reference that this call had. */
        region->busy = true;
        region->retirement.run = retire_in_background;
        helper_submit(fabric->closers, &region->retirement);
    } else {
        last = --region->refs == 0;
    }
    pthread_cond_broadcast(&fabric->changed);
    pthread_mutex_unlock(&fabric->lock);
    if (!last)
        return;
    window_keep(region->window);
    fabric_session_unref(region->session);
    free(region);
}

static int call_rereg(void *arg)
{
    struct region *region = arg;
    struct fabric *fabric = region->fabric;
    int r;

    if (!fault_inject("rereg", &r))
        r = rereg_away_from_peers(fabric->rereg, region->mr, fabric->quarantine);
    if (r == 0) {
        pthread_mutex_lock(&fabric->lock);
        region->gated = true;
        pthread_mutex_unlock(&fabric->lock);
    }
    finish_call(region);
    return r;
}

static int free_mw(struct region *region)
{
    int r;

    if (!region->mw)
        return 0;
    keys_reserve(region->fabric->keys, region->rkey, monotonic_ns());
    if (!fault_inject("mw", &r))
        r = -ibv_dealloc_mw(region->mw);
    if (r == 0)
        region->mw = NULL;
    return r;
}

static int call_close_window(void *arg)
{
    struct region *region = arg;
    struct fabric *fabric = region->fabric;
    int r = free_mw(region);

    if (r == 0) {
        pthread_mutex_lock(&fabric->lock);
        region->gated = true;
        pthread_mutex_unlock(&fabric->lock);
    }
    finish_call(region);
    return r;
}

static int call_cover(void *arg)
{
    struct region *region = arg;
    struct fabric *fabric = region->fabric;
    int r;

    if (!fault_inject("odp", &r))
        r = window_cover(region->window);
    if (r == 0) {
        pthread_mutex_lock(&fabric->lock);
        region->gated = true;
        pthread_mutex_unlock(&fabric->lock);
    }
    finish_call(region);
    return r;
}

static int deregister(struct region *region)
{
    struct fabric *fabric = region->fabric;
    int r;

    r = free_mw(region); /* an MR with a window on it is refused */
    if (r < 0)
        return r;
    if (has_own_key(region))
        keys_reserve(fabric->keys, region->rkey, monotonic_ns());
    if (!fault_inject("dereg", &r))
        r = -ibv_dereg_mr(region->mr);
    if (r == 0) {
        pthread_mutex_lock(&fabric->lock);
        region->gone = true;
        if (is_pinned(region))
            fabric->pinned_bytes -= window_length(region->window);
        pthread_mutex_unlock(&fabric->lock);
    }
    return r;
}

static int call_dereg(void *arg)
{
    struct region *region = arg;
    int r = deregister(region);

    finish_call(region);
    return r;
}

static void retire_in_background(struct helper_job *job)
{
    struct region *region = (struct region *)job;
    int r = deregister(region);

    if (r < 0) {
        /* It stays as it is: registered, its session barred if need be, and never in anybody's way again. */
        fabric_log("session %llu: an MR cannot be deregistered: %s", (unsigned long long)region->session->id,
                   strerror(-r));
        return;
    }
    finish_call(region);
}

/* Runs one call on the MR. gone_result: when there is no MR any more. */
static int run_call(struct region *region, int (*call)(void *), struct helper_job *successor, uint64_t deadline_ns,
                    int gone_result)
{
    struct fabric *fabric = region->fabric;
    int r = 0, result;

    pthread_mutex_lock(&fabric->lock);
    if (region->gone) {
        pthread_mutex_unlock(&fabric->lock);
        return gone_result;
    }
    while (region->busy && r != -ETIMEDOUT)
        r = sync_wait_until(&fabric->changed, &fabric->lock, deadline_ns);
    if (region->busy || region->gone) {
        r = region->busy ? -EBUSY : gone_result;
        pthread_mutex_unlock(&fabric->lock);
        return r;
    }
    region->busy = true;
    region->refs++;
    pthread_mutex_unlock(&fabric->lock);

    r = -EAGAIN;
    if (successor)
        r = watchdog_call(fabric->watchdog, call, region, deadline_ns, successor, &result);
    if (r == -EAGAIN)
        r = helper_call(fabric->helpers, call, region, deadline_ns, &result);
    if (r == 0)
        return result;
    if (r != -ETIMEDOUT && r != -EINPROGRESS)
        finish_call(region); /* not started: the caller's reference keeps the region */
    return r;
}

int region_gate(struct region *region, struct helper_job *successor, uint64_t deadline_ns)
{
    if (region->fabric->rereg == REREG_NONE)
        return -EOPNOTSUPP;
    return run_call(region, call_rereg, successor, deadline_ns, 0);
}

int region_cover(struct region *region, struct helper_job *successor, uint64_t deadline_ns)
{
    return is_pinned(region) ? -EOPNOTSUPP : run_call(region, call_cover, successor, deadline_ns, -EALREADY);
}

int region_close_window(struct region *region, struct helper_job *successor, uint64_t deadline_ns)
{
    return region->style == EXPOSURE_WINDOWED ? run_call(region, call_close_window, successor, deadline_ns, 0)
                                              : -EOPNOTSUPP;
}

int region_deregister(struct region *region, struct helper_job *successor, uint64_t deadline_ns)
{
    return run_call(region, call_dereg, successor, deadline_ns, -EALREADY);
}

void region_bar(struct region *region)
{
    struct fabric *fabric = region->fabric;

    pthread_mutex_lock(&fabric->lock);
    if (!region->gone && !region->gated && !region->barring) {
        region->barring = true;
        region->session->barred++;
    }
    pthread_mutex_unlock(&fabric->lock);
}

void region_retire(struct region *region)
{
    struct fabric *fabric = region->fabric;
    bool finish;

    pthread_mutex_lock(&fabric->lock);
    region->retired = true;
    /* Busy: whoever calls sees to the rest. Otherwise our own reference does, as if a call had just ended. */
    finish = !region->busy;
    if (!finish)
        region->refs--;
    else
        region->busy = true;
    pthread_mutex_unlock(&fabric->lock);
    if (finish)
        finish_call(region);
}
