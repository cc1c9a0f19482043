/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control thread, its mail and its clock; start and end of the service.
 *
 * The control thread is one of the fence workers at a time: the one that leads. What takes longer it does not do as the
 * control thread. But to wake another thread for that, while it goes to sleep itself, costs a client who waits more
 * than most grants and fences do: on a cold processor, with cold caches. So it hands over the lead rather than the
 * work: another worker wakes up to wait for messages, while this one, warm as it is, carries out what the last message
 * asked for and is a worker like the others from then on.
 *
 *   sd_event_run > [own work?] > no: again
 *                              > yes: a worker is free to lead: it does, and we work
 *                                     none is: the work is queued, and we lead on
 *
 * So at no time does a message wait for work: either somebody leads, or a thread that was found idle is about to.
 *
 * To wake a thread costs more than a small grant or fence does, and the one that is woken finds the lead taken again.
 * So where the work is brief and no two clients talk at a time, the lead is only on offer until the worker is back,
 * which begins with it; who has mail for the control thread meanwhile, or the deputy if the worker is stuck, has it
 * taken by another.
 */
#include "lease/service.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lease/control_socket.h"
#include "lease/deputy.h"
#include "lease/lock_order.h"
#include "lease/remote.h"
#include "lease/service_private.h"

#define GRANT_WORKERS     4
#define FENCE_WORKERS     5           /* one of them leads */
#define FENCE_WORKERS_MAX 64          /* more than may be stuck in the fabric */
#define STOP_SLACK_NS     5000000000u /* beyond the fences' own bound */

void service_log(const char *format, ...)
{
    va_list args;
    char line[512];

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    fprintf(stderr, "leasefs: %s\n", line);
}

/* ---- whose work ---- */

static _Thread_local struct lease_service *leading;   /* this thread is its control thread, */
static _Thread_local struct lease_service *soon_back; /* or will be in a moment */

void service_push_own(struct lease_service *service)
{
    if (service->own)
        workqueue_push(service->own_queue, service->own);
    service->own = NULL;
}

void service_push(struct lease_service *service, struct workqueue *queue, struct work *work, bool brief)
{
    if (leading != service) {
        workqueue_push(queue, work);
        return;
    }
    service_push_own(service);
    service->own = work;
    service->own_queue = queue;
    service->own_is_brief = brief;
}

void service_hears(const struct session *session)
{
    struct lease_service *service = session->service;

    service->alone = session->id == service->last_speaker;
    service->last_speaker = session->id;
}

/* Requests may block for long, so those who are to fence must not all be busy with them. And they overtake none that
 * waits. */
static bool may_run_request(struct lease_service *service)
{
    bool may;

    pthread_mutex_lock(&service->lock);
    may = service->n_own < GRANT_WORKERS;
    service->n_own += may;
    pthread_mutex_unlock(&service->lock);
    return may;
}

static void request_is_run(struct lease_service *service)
{
    pthread_mutex_lock(&service->lock);
    service->n_own--;
    pthread_mutex_unlock(&service->lock);
}

/* What the control thread carries out itself. */
struct own_work {
    struct work *work;
    bool request; /* counted in service->n_own */
    bool brief;   /* the lead is on offer meanwhile */
};

/* From here on it is the next one's. False: nobody is free. */
static bool give_lead(struct lease_service *service, bool brief)
{
    bool taken;

    atomic_store(&service->on_offer, brief);
    taken = brief ? workqueue_offer(service->fences, &service->lead)
                  : workqueue_push_if_idle(service->fences, &service->lead);
    if (!taken)
        atomic_store(&service->on_offer, false);
    else if (brief)
        deputy_watch(service->deputy);
    return taken;
}

/* True: somebody else leads, or will; *ret_own is ours. */
static bool hand_over(struct lease_service *service, struct own_work *ret_own)
{
    struct work *work = service->own;
    bool request = service->own_queue == service->grants, brief = service->own_is_brief && service->alone;

    if (!work)
        return false;
    if (!workqueue_is_empty(service->own_queue) || (request && !may_run_request(service))) {
        service_push_own(service);
        return false;
    }
    service->own = NULL;
    if (!give_lead(service, brief)) {
        if (request)
            request_is_run(service);
        workqueue_push(service->own_queue, work);
        return false;
    }
    *ret_own = (struct own_work){work, request, brief};
    return true;
}

static void run_own(struct lease_service *service, const struct own_work *own)
{
    soon_back = own->brief ? service : NULL;
    own->work->run(own->work);
    if (own->request)
        request_is_run(service);
    soon_back = NULL;
}

static void leave(struct lease_service *service, int error)
{
    if (error < 0)
        service_log("control service: %s: no more leases are granted", strerror(-error));
    service_push_own(service);
    pthread_mutex_lock(&service->lock);
    service->led = false;
    pthread_cond_broadcast(&service->idle);
    pthread_mutex_unlock(&service->lock);
}

static void lead(struct work *lead)
{
    struct lease_service *service = container(lead, struct lease_service, lead);
    struct own_work own;
    int error;

    atomic_store(&service->on_offer, false);
    leading = service;
    do {
        error = sd_event_run(service->loop, UINT64_MAX);
        if (hand_over(service, &own)) {
            leading = NULL;
            run_own(service, &own);
            return;
        }
    } while (error >= 0 && sd_event_get_state(service->loop) != SD_EVENT_FINISHED);
    leading = NULL;
    leave(service, error);
}

/* ---- mail ---- */

void service_wake(struct lease_service *service)
{
    uint64_t one = 1;

    while (write(service->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    if (atomic_load(&service->on_offer) && soon_back != service)
        workqueue_nudge(service->fences);
}

static void append_locked(struct mail ***end, struct mail *mail)
{
    mail->next = NULL;
    **end = mail;
    *end = &mail->next;
}

/* Is the control thread to be woken? Not for mail that it will find with other mail. */
static bool needs_wake_locked(struct lease_service *service)
{
    bool needs = service->mail && !service->wake_pending;

    service->wake_pending |= needs;
    return needs;
}

void mail_post(struct lease_service *service, struct mail *mail)
{
    bool wake;

    pthread_mutex_lock(&service->lock);
    append_locked(&service->mail_end, mail);
    wake = needs_wake_locked(service);
    pthread_mutex_unlock(&service->lock);
    if (wake)
        service_wake(service);
}

void mail_post_news(struct grant *grant, struct mail *mail)
{
    struct lease_service *service = grant->service;
    bool wake;

    pthread_mutex_lock(&service->lock);
    append_locked(grant->announced ? &service->mail_end : &grant->early_end, mail);
    wake = needs_wake_locked(service);
    pthread_mutex_unlock(&service->lock);
    if (wake)
        service_wake(service);
}

void grant_announced(struct grant *grant)
{
    struct lease_service *service = grant->service;
    bool wake;

    pthread_mutex_lock(&service->lock);
    grant->announced = true;
    if (grant->early) {
        *service->mail_end = grant->early;
        service->mail_end = grant->early_end;
        grant->early = NULL;
        grant->early_end = &grant->early;
    }
    wake = needs_wake_locked(service);
    pthread_mutex_unlock(&service->lock);
    if (wake)
        service_wake(service);
}

void service_busy(struct lease_service *service)
{
    pthread_mutex_lock(&service->lock);
    service->busy++;
    pthread_mutex_unlock(&service->lock);
}

void service_idle(struct lease_service *service)
{
    pthread_mutex_lock(&service->lock);
    if (--service->busy == 0)
        pthread_cond_broadcast(&service->idle);
    pthread_mutex_unlock(&service->lock);
}

static void deliver_all(struct lease_service *service)
{
    struct mail *mail, *next;

    pthread_mutex_lock(&service->lock);
    mail = service->mail;
    service->mail = NULL;
    service->mail_end = &service->mail;
    service->wake_pending = false;
    pthread_mutex_unlock(&service->lock);
    for (; mail; mail = next) {
        next = mail->next;
        mail->deliver(mail);
    }
}

/* ---- the clock ---- */

/* The timer is set nearer, never farther: most leases are returned long before they expire, and each would set it once
 * more and wake this thread for that. It may ring for a deadline that is no more. */
static void arm_timer(struct lease_service *service)
{
    uint64_t deadline_ns = lease_next_deadline(service->table);

    if (deadline_ns >= atomic_load(&service->rings_at_ns))
        return;
    atomic_store(&service->rings_at_ns, deadline_ns);
    sd_event_source_set_time(service->timer, deadline_ns / 1000 + 1);
    sd_event_source_set_enabled(service->timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
    struct lease_service *service = arg;

    (void)source, (void)usec;
    /* First: a deadline that comes from now on wakes this thread, or is seen by arm_timer(). */
    atomic_store(&service->rings_at_ns, UINT64_MAX);
    lease_tick(service->table, service_now_ns());
    arm_timer(service);
    return 0;
}

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *arg)
{
    struct lease_service *service = arg;
    uint64_t count;

    (void)source, (void)events;
    if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN && errno != EINTR)
        return -errno;
    deliver_all(service);
    arm_timer(service);
    return 0;
}

/* Called by the table with its lock held: enqueues. */
static void post(void *ctx, const struct lease_event *event)
{
    struct lease_service *service = ctx;
    struct grant *grant = event->exposure;
    bool queue = false;

    switch (event->kind) {
    case LEASE_EVENT_FENCE:
        if (grant->cut)
            grant->lease_id = event->lease_id; /* a remnant's, which the table chose just now */
        grant->reason = event->reason;
        grant->at_leisure = event->at_leisure;
        grant->sequence = event->sequence;
        service_push(service, service->fences, &grant->fence, grant->range.length <= SERVICE_BRIEF_BYTES);
        break;
    case LEASE_EVENT_RECALL:
    case LEASE_EVENT_RECALL_CANCELLED:
    case LEASE_EVENT_ORPHANED:
        pthread_mutex_lock(&service->lock);
        queue = !grant->notice_queued;
        grant->notice_queued = true;
        pthread_mutex_unlock(&service->lock);
        if (queue) {
            atomic_fetch_add(&grant->refs, 1);
            mail_post_news(grant, &grant->notice);
        }
        break;
    case LEASE_EVENT_DEADLINE:
        if (event->deadline_ns < atomic_load(&service->rings_at_ns))
            service_wake(service);
        break;
    }
}

/* ---- life ---- */

static int make_loop(struct lease_service *service)
{
    int error = sd_event_new(&service->loop);

    if (error >= 0)
        error = sd_event_add_io(service->loop, &service->wake_source, service->wake_fd, EPOLLIN, on_wake, service);
    if (error >= 0)
        error = sd_event_add_io(service->loop, &service->listen_source, service->listen_fd, EPOLLIN, session_accept,
                                service);
    if (error >= 0)
        error = sd_event_add_time(service->loop, &service->accept_again, CLOCK_MONOTONIC, UINT64_MAX, 0,
                                  session_accept_again, service);
    if (error >= 0) /* 1 us: the default accuracy of 250 ms would stretch every deadline */
        error = sd_event_add_time(service->loop, &service->timer, CLOCK_MONOTONIC, UINT64_MAX, 1, on_timer, service);
    if (error >= 0)
        error = remote_start(service->remote);
    return error < 0 ? error : 0;
}

int lease_service_new(const struct lease_service_config *config, struct lease_service **ret_service, char **ret_error)
{
    struct lease_service *service = calloc(1, sizeof(*service));
    struct lease_events events = {.post = post, .ctx = service};
    int error = -ENOMEM;

    *ret_error = NULL;
    if (!service)
        return -ENOMEM;
    service->config = *config;
    service->mail_end = &service->mail;
    atomic_init(&service->rings_at_ns, UINT64_MAX);
    service->listen_fd = service->wake_fd = -1;
    service->started_at_ns = service_now_ns();
    pthread_mutex_init(&service->lock, NULL);
    lock_rank(&service->lock, LOCK_SERVICE, 0);
    cond_init_monotonic(&service->idle);
    /* Requests of the mount may post before the service starts. */
    service->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    error = service->wake_fd < 0 ? -errno : control_socket_listen(config->control_path, &service->listen_fd, ret_error);
    if (!error && !(service->control_path = strdup(config->control_path)))
        error = -ENOMEM;
    if (!error)
        error = lease_table_new(&config->limits, &events, &service->table);
    if (!error)
        error = remote_new(service, &service->remote, ret_error);
    if (error) {
        lease_service_free(service);
        return error;
    }
    *ret_service = service;
    return 0;
}

int lease_service_start(struct lease_service *service)
{
    int error;

    error = workqueue_new("lfs-grant", GRANT_WORKERS, GRANT_WORKERS, &service->grants);
    if (!error)
        error = workqueue_new("lfs-control", FENCE_WORKERS, FENCE_WORKERS_MAX, &service->fences);
    if (!error)
        error = deputy_new(service->fences, &service->deputy);
    if (!error)
        error = make_loop(service);
    if (error)
        return error;
    service->lead.run = lead;
    service->led = service->started = true;
    workqueue_push(service->fences, &service->lead);
    return 0;
}

struct stop_mail {
    struct mail mail;
    struct lease_service *service;
    bool exit;
};

static void deliver_stop(struct mail *mail)
{
    struct stop_mail *stop = container(mail, struct stop_mail, mail);

    if (stop->exit) {
        sd_event_exit(stop->service->loop, 0);
        return;
    }
    sd_event_source_set_enabled(stop->service->listen_source, SD_EVENT_OFF);
    sd_event_source_set_enabled(stop->service->accept_again, SD_EVENT_OFF);
    remote_stop(stop->service->remote);
    session_end_all(stop->service);
}

void lease_service_stop(struct lease_service *service)
{
    struct stop_mail end = {{deliver_stop, NULL}, service, false}, leave = {{deliver_stop, NULL}, service, true};
    uint64_t bound_ns = 2 * service->config.limits.fence_bound_ns + STOP_SLACK_NS;
    struct timespec until;
    bool idle;

    if (!service->started)
        return;
    service->started = false;
    mail_post(service, &end.mail);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(bound_ns / 1000000000u) + 1;
    pthread_mutex_lock(&service->lock);
    while (service->busy && pthread_cond_timedwait(&service->idle, &service->lock, &until) != ETIMEDOUT)
        ;
    idle = service->busy == 0;
    pthread_mutex_unlock(&service->lock);
    if (!idle)
        service_log("control service: %zu requests or leases did not end in time; their memory stays until exit",
                    service->busy);
    mail_post(service, &leave.mail);
    pthread_mutex_lock(&service->lock);
    while (service->led)
        pthread_cond_wait(&service->idle, &service->lock);
    pthread_mutex_unlock(&service->lock);
    deputy_free(service->deputy);
    service->deputy = NULL;
    if (!idle) /* their threads end with the process */
        service->grants = service->fences = NULL;
}

void lease_service_free(struct lease_service *service)
{
    if (!service)
        return;
    deputy_free(service->deputy);
    remote_free(service->remote);
    sd_event_source_unref(service->timer);
    sd_event_source_unref(service->wake_source);
    sd_event_source_unref(service->listen_source);
    sd_event_source_unref(service->accept_again);
    sd_event_unref(service->loop);
    workqueue_free(service->grants);
    workqueue_free(service->fences);
    if (service->control_path) {
        unlink(service->control_path);
        free(service->control_path);
    }
    if (service->listen_fd >= 0)
        close(service->listen_fd);
    if (service->wake_fd >= 0)
        close(service->wake_fd);
    lease_table_free(service->table);
    pthread_cond_destroy(&service->idle);
    pthread_mutex_destroy(&service->lock);
    free(service);
}

struct lease_table *lease_service_table(struct lease_service *service)
{
    return service->table;
}
