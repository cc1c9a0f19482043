/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/window.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "lease/lock_order.h"
#include <leasefs/protocol.h>

/* Mappings that the rest of the process may need: libraries, thread stacks, the pool, device pages. */
#define MAPPINGS_RESERVE     4096u
#define MAX_MAP_COUNT_COMMON 65530u /* the kernel's default */

struct window {
    struct windows *windows;
    uint8_t *address;
    uint64_t length;
    void *map; /* NULL in case (2) */
    size_t map_length;
    size_t mappings;
    bool covered;

    /* What it is of, for whoever looks for one that is kept. */
    TAILQ_ENTRY(window) link; /* guarded by windows->lock */
    const struct layout_segment *segments;
    int prot;
    size_t n_runs;
    struct layout_run runs[]; /* merged */
};

void windows_init(struct windows *windows, size_t limit)
{
    *windows = (struct windows){.limit = limit};
    TAILQ_INIT(&windows->kept);
    pthread_mutex_init(&windows->lock, NULL);
    lock_rank(&windows->lock, LOCK_WINDOWS, 0);
}

size_t windows_default_limit(void)
{
    FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
    size_t count = 0;

    if (file) {
        if (fscanf(file, "%zu", &count) != 1)
            count = 0;
        fclose(file);
    }
    if (!count)
        count = MAX_MAP_COUNT_COMMON;
    return count > 2 * MAPPINGS_RESERVE ? count - MAPPINGS_RESERVE : count / 2;
}

static bool take_mappings(struct windows *windows, size_t count)
{
    bool there;

    pthread_mutex_lock(&windows->lock);
    there = count <= windows->limit - windows->used;
    if (there)
        windows->used += count;
    pthread_mutex_unlock(&windows->lock);
    return there;
}

static void give_mappings(struct windows *windows, size_t count)
{
    pthread_mutex_lock(&windows->lock);
    windows->used -= count;
    pthread_mutex_unlock(&windows->lock);
}

static void forget_locked(struct window *window)
{
    TAILQ_REMOVE(&window->windows->kept, window, link);
    window->windows->n_kept--;
}

/* Ends those that are kept. False: there were none. */
static bool give_up_kept(struct windows *windows)
{
    struct window_list ended = TAILQ_HEAD_INITIALIZER(ended);
    struct window *window;

    pthread_mutex_lock(&windows->lock);
    TAILQ_CONCAT(&ended, &windows->kept, link);
    windows->n_kept = 0;
    pthread_mutex_unlock(&windows->lock);
    if (TAILQ_EMPTY(&ended))
        return false;
    while ((window = TAILQ_FIRST(&ended))) {
        TAILQ_REMOVE(&ended, window, link);
        window_free(window);
    }
    return true;
}

void windows_destroy(struct windows *windows)
{
    give_up_kept(windows);
    pthread_mutex_destroy(&windows->lock);
}

static bool run_continues(const struct layout_run *a, const struct layout_run *b)
{
    return a->segment == b->segment && a->offset + a->length == b->offset;
}

/* The run that starts at runs[*index] with all its neighbours; moves *index behind them. */
static struct layout_run merged_run(const struct layout_run *runs, size_t n_runs, size_t *index)
{
    struct layout_run run = runs[*index];

    while (++*index < n_runs && run_continues(&run, &runs[*index]))
        run.length += runs[*index].length;
    return run;
}

static bool run_in_segment(const struct layout_run *run, const struct layout_segment *segment)
{
    return run->length > 0 && run->offset <= segment->size && run->length <= segment->size - run->offset;
}

struct window_plan {
    uint64_t length;
    size_t merged;    /* runs */
    size_t page_size; /* the largest of the segments used */
    size_t lead;      /* bytes of the first page in front of the first run */
};

/* Checks the runs and adds them up. Cuts are looked at in the second pass, when the page size is known. */
static int plan_window(const struct layout_segment *segments, const struct layout_run *runs, size_t n_runs,
                       struct window_plan *plan)
{
    *plan = (struct window_plan){0};
    for (size_t i = 0; i < n_runs; i++) {
        if (!run_in_segment(&runs[i], &segments[runs[i].segment]))
            return -EINVAL;
        if (__builtin_add_overflow(plan->length, runs[i].length, &plan->length) || plan->length > SIZE_MAX / 2)
            return -EINVAL;
        if (segments[runs[i].segment].page_size > plan->page_size)
            plan->page_size = segments[runs[i].segment].page_size;
    }
    if (!n_runs)
        return -EINVAL;
    plan->lead = runs[0].offset & (plan->page_size - 1);

    uint64_t position = plan->lead;

    for (size_t i = 0; i < n_runs; plan->merged++) {
        struct layout_run run = merged_run(runs, n_runs, &i);
        uint64_t mask = plan->page_size - 1;

        if (plan->merged > 0 && ((position & mask) || (run.offset & mask)))
            return -EINVAL;
        position += run.length;
    }
    return 0;
}

/* Address space on a page boundary, to be filled with MAP_FIXED; nothing else can land in it meanwhile. */
static int reserve(size_t length, size_t page_size, uint8_t **ret_address)
{
    /* Small pages need no alignment. */
    size_t padded = page_size > LEASEFS_BLOCK_SIZE ? length + page_size : length;
    uint8_t *map = mmap(NULL, padded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (map == MAP_FAILED)
        return -errno;
    uint8_t *start = (uint8_t *)(((uintptr_t)map + page_size - 1) & ~(uintptr_t)(page_size - 1));

    if (start > map)
        munmap(map, (size_t)(start - map));
    if (map + padded > start + length)
        munmap(start + length, (size_t)(map + padded - (start + length)));
    *ret_address = start;
    return 0;
}

/* One run goes anywhere (the kernel aligns it to its pages), several to what window->map reserves. */
static int map_runs(struct window *window, uint64_t mask)
{
    uint8_t *to = window->map;

    for (size_t i = 0; i < window->n_runs; i++) {
        const struct layout_run *run = &window->runs[i];
        uint64_t start = run->offset & ~mask;
        uint64_t length = (run->offset + run->length - start + mask) & ~mask;

        int fixed = to ? MAP_FIXED : 0;
        uint8_t *at =
            mmap(to, length, window->prot, MAP_SHARED | fixed, window->segments[run->segment].fd, (off_t)start);

        if (at == MAP_FAILED)
            return -errno;
        if (!to)
            window->map = at;
        to = at + length;
    }
    /* A child of the daemon must neither keep the pool alive nor make these pages copy on write under a DMA. */
    return madvise(window->map, window->map_length, MADV_DONTFORK) < 0 ? -errno : 0;
}

static int map_window(struct window *window, const struct window_plan *plan)
{
    struct windows *windows = window->windows;
    uint64_t mask = plan->page_size - 1;
    uint8_t *map = NULL;
    int r = 0;

    if (!take_mappings(windows, plan->merged) && (!give_up_kept(windows) || !take_mappings(windows, plan->merged)))
        return -E2BIG;
    window->map_length = (plan->lead + plan->length + mask) & ~mask;
    if (plan->merged > 1)
        r = reserve(window->map_length, plan->page_size, &map);
    if (r < 0)
        goto undo_mappings;
    window->map = map;
    r = map_runs(window, mask);
    if (r < 0)
        goto undo_map;
    window->mappings = plan->merged;
    window->address = (uint8_t *)window->map + plan->lead;
    return 0;

undo_map:
    if (window->map)
        munmap(window->map, window->map_length);
undo_mappings:
    give_mappings(windows, plan->merged);
    return r;
}

/* The one that is kept of the same blocks. NULL: none. */
static struct window *take_kept(const struct window *like)
{
    struct windows *windows = like->windows;
    struct window *window;

    pthread_mutex_lock(&windows->lock);
    TAILQ_FOREACH(window, &windows->kept, link)
    if (window->prot == like->prot && window->segments == like->segments && window->n_runs == like->n_runs &&
        layout_runs_equal(window->runs, like->runs, like->n_runs))
        break;
    if (window) {
        forget_locked(window);
        windows->reused++;
    }
    pthread_mutex_unlock(&windows->lock);
    return window;
}

static struct window *allocate(struct windows *windows, const struct window_plan *plan,
                               const struct layout_segment *segments, const struct layout_run *runs, size_t n_runs,
                               int prot)
{
    struct window *window = calloc(1, sizeof(*window) + plan->merged * sizeof(window->runs[0]));

    if (!window)
        return NULL;
    window->windows = windows;
    window->length = plan->length;
    window->segments = segments;
    window->prot = prot;
    for (size_t i = 0; i < n_runs;)
        window->runs[window->n_runs++] = merged_run(runs, n_runs, &i);
    return window;
}

int window_new(struct windows *windows, const struct layout_segment *segments, const struct layout_run *runs,
               size_t n_runs, unsigned flags, struct window **ret_window)
{
    struct window_plan plan;
    struct window *window, *kept;
    int r = plan_window(segments, runs, n_runs, &plan);

    if (r < 0)
        return r;
    window = allocate(windows, &plan, segments, runs, n_runs, PROT_READ | (flags & WINDOW_WRITABLE ? PROT_WRITE : 0));
    if (!window)
        return -ENOMEM;
    if (plan.merged == 1 && !(flags & WINDOW_OWN)) {
        window->address = (uint8_t *)segments[runs[0].segment].base + runs[0].offset;
    } else if ((kept = take_kept(window))) {
        free(window);
        window = kept;
    } else {
        r = map_window(window, &plan);
        if (r < 0) {
            free(window);
            return r;
        }
    }
    *ret_window = window;
    return 0;
}

void window_free(struct window *window)
{
    if (!window)
        return;
    if (window->map) {
        munmap(window->map, window->map_length);
        give_mappings(window->windows, window->mappings);
    }
    free(window);
}

void window_keep(struct window *window)
{
    struct windows *windows = window->windows;
    struct window *ended = NULL;

    if (!window->map || window->covered || window->length > WINDOW_KEPT_BYTES_MAX) {
        window_free(window);
        return;
    }
    pthread_mutex_lock(&windows->lock);
    TAILQ_INSERT_TAIL(&windows->kept, window, link);
    if (++windows->n_kept > WINDOWS_KEPT_MAX) {
        ended = TAILQ_FIRST(&windows->kept);
        forget_locked(ended);
    }
    pthread_mutex_unlock(&windows->lock);
    window_free(ended);
}

int window_cover(struct window *window)
{
    if (!window->map)
        return -EINVAL;
    window->covered = true; /* or half of it: it is not kept */
    if (mmap(window->map, window->map_length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
             0) == MAP_FAILED)
        return -errno;
    return 0;
}

void *window_address(const struct window *window)
{
    return window->address;
}

uint64_t window_length(const struct window *window)
{
    return window->length;
}

size_t window_mappings(const struct window *window)
{
    return window->mappings;
}
