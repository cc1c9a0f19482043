/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/spare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rdma/internal.h"
#include "rdma/sync.h"

#define TAKE_NS (5 * NS_PER_S) /* for one that is being made */

TAILQ_HEAD(spare_list, spare);

void spares_init(struct spares *spares, uint64_t limit)
{
    *spares = (struct spares){.limit = limit};
    TAILQ_INIT(&spares->list);
}

static bool same_range(const struct spare_range *a, const struct spare_range *b)
{
    return a->offset == b->offset && a->length == b->length && a->writes == b->writes && a->segments == b->segments &&
           a->n_runs == b->n_runs && layout_runs_equal(a->runs, b->runs, a->n_runs);
}

static struct spare *find_locked(struct fabric *fabric, const struct spare_range *range)
{
    struct spare *spare;

    TAILQ_FOREACH(spare, &fabric->spares.list, link)
    if (!spare->unwanted && same_range(&spare->range, range))
        return spare;
    return NULL;
}

static void unlink_locked(struct fabric *fabric, struct spare *spare)
{
    struct spares *spares = &fabric->spares;

    TAILQ_REMOVE(&spares->list, spare, link);
    spares->count--;
    if (spare->state != SPARE_QUEUED)
        spares->bytes -= spare->range.length;
    pthread_cond_broadcast(&fabric->changed);
}

void spare_free(struct spare *spare)
{
    free((void *)spare->range.runs);
    free(spare);
}

void spares_count_taken(struct fabric *fabric)
{
    pthread_mutex_lock(&fabric->lock);
    fabric->spares.taken++;
    pthread_mutex_unlock(&fabric->lock);
}

/* Nobody knows it any more. */
static void end_spare(struct spare *spare)
{
    /* An MR that stays keeps its addresses: something else mapped there would be no harm, but nothing is to be. */
    if (spare->mr && ibv_dereg_mr(spare->mr))
        fabric_log("an MR that nobody uses cannot be deregistered");
    else
        window_free(spare->window);
    spare_free(spare);
}

static void end_list(struct spare_list *list)
{
    struct spare *spare;

    while ((spare = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, spare, link);
        end_spare(spare);
    }
}

/* Makes room, by the oldest. False: there is none, as too much is being made. */
static bool make_room_locked(struct fabric *fabric, uint64_t length, struct spare_list *ended)
{
    struct spares *spares = &fabric->spares;
    struct spare *spare, *next;

    for (spare = TAILQ_FIRST(&spares->list); spare && spares->bytes + length > spares->limit; spare = next) {
        next = TAILQ_NEXT(spare, link);
        if (spare->state != SPARE_READY)
            continue;
        unlink_locked(fabric, spare);
        TAILQ_INSERT_TAIL(ended, spare, link);
    }
    return spares->bytes + length <= spares->limit;
}

static int register_spare(struct spare *spare)
{
    struct fabric *fabric = spare->fabric;
    const struct spare_range *range = &spare->range;
    int access = range->writes ? IBV_ACCESS_LOCAL_WRITE : 0;
    unsigned flags = range->writes || fabric->pins_to_write ? WINDOW_WRITABLE : 0;
    int r = window_new(&fabric->windows, range->segments, range->runs, range->n_runs, flags, &spare->window);

    if (r < 0)
        return r;
    void *address = window_address(spare->window);

    if (atomic_load(&fabric->no_iova)) {
        spare->remote_address = (uintptr_t)address;
        spare->mr = ibv_reg_mr(fabric->quarantine, address, range->length, access);
    } else {
        spare->remote_address = range->offset;
        spare->mr = ibv_reg_mr_iova(fabric->quarantine, address, range->length, range->offset, access);
    }
    return spare->mr && !keys_reserved(fabric->keys, spare->mr->rkey, monotonic_ns()) ? 0 : -EAGAIN;
}

/* On a helper. */
static void make_spare(struct helper_job *job)
{
    struct spare *spare = (struct spare *)job;
    struct fabric *fabric = spare->fabric;
    struct spare_list ended = TAILQ_HEAD_INITIALIZER(ended);
    bool wanted;

    pthread_mutex_lock(&fabric->lock);
    wanted = !spare->unwanted && !fabric->stopping && !fabric->device_gone &&
             make_room_locked(fabric, spare->range.length, &ended);
    if (wanted) {
        spare->state = SPARE_MAKING;
        fabric->spares.bytes += spare->range.length;
    }
    pthread_mutex_unlock(&fabric->lock);
    end_list(&ended);

    if (wanted)
        wanted = register_spare(spare) == 0;
    pthread_mutex_lock(&fabric->lock);
    wanted &= !spare->unwanted && !fabric->stopping;
    if (wanted) {
        spare->state = SPARE_READY;
        pthread_cond_broadcast(&fabric->changed);
    } else {
        unlink_locked(fabric, spare);
    }
    pthread_mutex_unlock(&fabric->lock);
    if (!wanted)
        end_spare(spare);
}

static struct spare *new_spare(struct fabric *fabric, const struct spare_range *range)
{
    struct spare *spare = calloc(1, sizeof(*spare));
    size_t size = range->n_runs * sizeof(range->runs[0]);
    struct layout_run *runs = malloc(size);

    if (!spare || !runs) {
        free(spare);
        free(runs);
        return NULL;
    }
    memcpy(runs, range->runs, size);
    spare->job.run = make_spare;
    spare->fabric = fabric;
    spare->range = *range;
    spare->range.runs = runs;
    return spare;
}

void spares_make(struct fabric *fabric, const struct spare_range *range)
{
    struct spares *spares = &fabric->spares;
    struct spare *spare;
    bool queued;

    if (range->length > spares->limit || range->length < SPARE_MIN_BYTES || !range->n_runs)
        return;
    spare = new_spare(fabric, range);
    if (!spare)
        return;
    pthread_mutex_lock(&fabric->lock);
    queued = spares->count < SPARES_MAX && !find_locked(fabric, range);
    if (queued) {
        TAILQ_INSERT_TAIL(&spares->list, spare, link);
        spares->count++;
        helper_submit(fabric->closers, &spare->job);
    }
    pthread_mutex_unlock(&fabric->lock);
    if (!queued)
        spare_free(spare);
}

struct spare *spares_take(struct fabric *fabric, const struct spare_range *range)
{
    uint64_t deadline = monotonic_ns() + TAKE_NS;
    struct spare *spare;
    int r = 0;

    if (!fabric->spares.limit)
        return NULL;
    pthread_mutex_lock(&fabric->lock);
    while ((spare = find_locked(fabric, range)) && spare->state == SPARE_MAKING && r != -ETIMEDOUT)
        r = sync_wait_until(&fabric->changed, &fabric->lock, deadline);
    if (spare && spare->state == SPARE_READY) {
        unlink_locked(fabric, spare);
    } else if (spare) { /* who asks is faster than who makes it */
        spare->unwanted = true;
        spare = NULL;
    }
    pthread_mutex_unlock(&fabric->lock);
    return spare;
}

bool spares_give_back(struct fabric *fabric)
{
    struct spare_list ended = TAILQ_HEAD_INITIALIZER(ended);
    struct spare *spare, *next;
    bool any = false;

    pthread_mutex_lock(&fabric->lock);
    for (spare = TAILQ_FIRST(&fabric->spares.list); spare; spare = next) {
        next = TAILQ_NEXT(spare, link);
        spare->unwanted = true;
        if (spare->state != SPARE_READY)
            continue;
        unlink_locked(fabric, spare);
        TAILQ_INSERT_TAIL(&ended, spare, link);
        any = true;
    }
    pthread_mutex_unlock(&fabric->lock);
    end_list(&ended);
    return any;
}
