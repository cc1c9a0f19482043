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
    struct window_budget *budget;
    uint8_t *address;
    uint64_t length;
    void *map; /* NULL in case (2) */
    size_t map_length;
    size_t mappings;
};

void window_budget_init(struct window_budget *budget, size_t limit)
{
    pthread_mutex_init(&budget->lock, NULL);
    lock_rank(&budget->lock, LOCK_WINDOWS, 0);
    budget->limit = limit;
    budget->used = 0;
}

void window_budget_destroy(struct window_budget *budget)
{
    pthread_mutex_destroy(&budget->lock);
}

size_t window_budget_default(void)
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

static int budget_take(struct window_budget *budget, size_t count)
{
    int r = -E2BIG;

    pthread_mutex_lock(&budget->lock);
    if (count <= budget->limit - budget->used) {
        budget->used += count;
        r = 0;
    }
    pthread_mutex_unlock(&budget->lock);
    return r;
}

static void budget_give(struct window_budget *budget, size_t count)
{
    pthread_mutex_lock(&budget->lock);
    budget->used -= count;
    pthread_mutex_unlock(&budget->lock);
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
static int map_runs(struct window *window, const struct window_plan *plan, const struct layout_segment *segments,
                    const struct layout_run *runs, size_t n_runs, int prot)
{
    uint64_t mask = plan->page_size - 1;
    uint8_t *to = window->map;

    for (size_t i = 0; i < n_runs;) {
        struct layout_run run = merged_run(runs, n_runs, &i);
        uint64_t start = run.offset & ~mask;
        uint64_t length = (run.offset + run.length - start + mask) & ~mask;

        int fixed = to ? MAP_FIXED : 0;
        uint8_t *at = mmap(to, length, prot, MAP_SHARED | fixed, segments[run.segment].fd, (off_t)start);

        if (at == MAP_FAILED)
            return -errno;
        if (!to)
            window->map = at;
        to = at + length;
    }
    /* A child of the daemon must neither keep the pool alive nor make these pages copy on write under a DMA. */
    return madvise(window->map, window->map_length, MADV_DONTFORK) < 0 ? -errno : 0;
}

static int map_window(struct window *window, const struct window_plan *plan, const struct layout_segment *segments,
                      const struct layout_run *runs, size_t n_runs, int prot)
{
    uint64_t mask = plan->page_size - 1;
    uint8_t *map = NULL;
    int r = budget_take(window->budget, plan->merged);

    if (r < 0)
        return r;
    window->map_length = (plan->lead + plan->length + mask) & ~mask;
    if (plan->merged > 1)
        r = reserve(window->map_length, plan->page_size, &map);
    if (r < 0)
        goto undo_budget;
    window->map = map;
    r = map_runs(window, plan, segments, runs, n_runs, prot);
    if (r < 0)
        goto undo_map;
    window->mappings = plan->merged;
    window->address = (uint8_t *)window->map + plan->lead;
    return 0;

undo_map:
    if (window->map)
        munmap(window->map, window->map_length);
undo_budget:
    budget_give(window->budget, plan->merged);
    return r;
}

int window_new(struct window_budget *budget, const struct layout_segment *segments, const struct layout_run *runs,
               size_t n_runs, unsigned flags, struct window **ret_window)
{
    struct window_plan plan;
    struct window *window;
    int r = plan_window(segments, runs, n_runs, &plan);

    if (r < 0)
        return r;
    window = calloc(1, sizeof(*window));
    if (!window)
        return -ENOMEM;
    window->budget = budget;
    window->length = plan.length;
    if (plan.merged == 1 && !(flags & WINDOW_OWN)) {
        window->address = (uint8_t *)segments[runs[0].segment].base + runs[0].offset;
    } else {
        r = map_window(window, &plan, segments, runs, n_runs, PROT_READ | (flags & WINDOW_WRITABLE ? PROT_WRITE : 0));
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
        budget_give(window->budget, window->mappings);
    }
    free(window);
}

int window_cover(struct window *window)
{
    if (!window->map)
        return -EINVAL;
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
