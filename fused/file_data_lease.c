/* SPDX-License-Identifier: BSD-2-Clause */
/* What leases need of a file: eligible ranges, holds, and letting go. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fused/file_data_private.h"

static struct layout_problem problem(enum layout_problem_kind kind, uint64_t block, uint64_t count)
{
    return (struct layout_problem){kind, {block << POOL_BLOCK_SHIFT, count << POOL_BLOCK_SHIFT}};
}

/* The blocks of a huge page of the file from `block` on. */
static uint64_t huge_part(uint64_t block, uint64_t end)
{
    return smaller(POOL_HUGE_BLOCKS - block % POOL_HUGE_BLOCKS, end - block);
}

static bool lies_in_huge_page(const struct file_data *data, uint64_t block, uint64_t count)
{
    struct piece piece = piece_at(data, block, count);

    return piece.count == count && piece.start.index % POOL_HUGE_BLOCKS == block % POOL_HUGE_BLOCKS;
}

/* Huge pages map whole: the range must be one run, or each 2 MiB of the file one run at the same place in its page. */
static struct layout_problem fragmented(const struct file_data *data, uint64_t block, uint64_t end)
{
    if (pool_page_size(data->pool) == POOL_BLOCK_SIZE || piece_at(data, block, end - block).count == end - block)
        return (struct layout_problem){0};
    for (uint64_t part; block < end; block += part) {
        part = huge_part(block, end);
        if (!lies_in_huge_page(data, block, part))
            return problem(LAYOUT_FRAGMENTED, block, part);
    }
    return (struct layout_problem){0};
}

struct layout_problem file_data_eligible(const struct file_data *data, struct lease_range range, bool exclusive)
{
    uint64_t first = block_of(range.offset), end = blocks_up(range_end(range)), last = blocks_up(data->size), block;

    if (end > last)
        return problem(LAYOUT_BEYOND_EOF, first > last ? first : last, end - (first > last ? first : last));
    for (block = first; block < end;) {
        struct piece piece = piece_at(data, block, end - block);
        bool alone = true;
        uint64_t run;

        if (piece.kind == PIECE_HOLE)
            return problem(LAYOUT_HOLE, block, piece.count);
        if (piece.kind == PIECE_UNWRITTEN)
            return problem(LAYOUT_UNWRITTEN, block, piece.count);
        run = exclusive ? piece_alike(data, &piece, &alone) : piece.count;
        if (!alone)
            return problem(LAYOUT_SHARED, block, run);
        block += run;
    }
    return fragmented(data, first, end);
}

bool file_data_prepare_replaces(const struct file_data *data, struct lease_range range, bool exclusive)
{
    uint64_t end = smaller(blocks_up(range_end(range)), blocks_up(data->size)), block = block_of(range.offset);

    if (exclusive)
        for (uint64_t b = block; b < end;) {
            struct piece piece = piece_at(data, b, end - b);
            bool alone = true;

            if (piece.kind == PIECE_WRITTEN)
                piece.count = piece_alike(data, &piece, &alone);
            if (!alone)
                return true;
            b += piece.count;
        }
    return block < end && fragmented(data, block, end).kind != LAYOUT_OK;
}

/* Unwritten blocks become written zeros: zeroed before anybody can look. */
static int fill_with_zeros(struct file_data *data, uint64_t block, uint64_t end)
{
    while (block < end) {
        struct piece piece = piece_at(data, block, end - block);

        if (piece.kind == PIECE_UNWRITTEN) {
            if (extent_map_reserve(&data->map, 1))
                return -ENOMEM;
            memset(pool_address(data->pool, piece.start), 0, piece.count << POOL_BLOCK_SHIFT);
            extent_map_remove(&data->map, block, piece.count);
            extent_map_insert(&data->map, block, piece.start, (uint32_t)piece.count, false);
        }
        block += piece.count;
    }
    return 0;
}

static int move_into_huge_page(struct file_data *data, uint64_t block, uint64_t count)
{
    struct pool_block start;
    int error;

    if (extent_map_reserve(&data->map, 1))
        return -ENOMEM;
    error = pool_alloc_in_huge_page(data->pool, (uint32_t)count, block, &start);
    if (error)
        return error;
    for (uint64_t done = 0; done < count;) {
        struct piece piece = piece_at(data, block + done, count - done);

        data_copy_to(data, block + done, piece.start, block_plus(start, done), piece.count);
        done += piece.count;
    }
    data_replace(data, block, start, (uint32_t)count, false);
    return 0;
}

/* Moves what is fragmented in a pool of huge pages. All of it is written. */
static int defragment(struct file_data *data, uint64_t block, uint64_t end)
{
    int error = 0;

    if (!fragmented(data, block, end).kind)
        return 0;
    for (uint64_t part; block < end && !error; block += part) {
        part = huge_part(block, end);
        if (!lies_in_huge_page(data, block, part))
            error = move_into_huge_page(data, block, part);
    }
    return error;
}

int file_data_prepare(struct file_data *data, struct lease_range range, bool exclusive, bool extend)
{
    enum plan_use use = exclusive ? PLAN_COPIES : PLAN_HOLES;
    uint64_t block = block_of(range.offset), end;
    struct data_plan plan;
    int error;

    if (range_end(range) > MAX_FILE_SIZE)
        return -EFBIG;
    end = blocks_up(extend ? range_end(range) : smaller(range_end(range), data->size));
    if (block >= end)
        return -EINVAL;
    error = data_before_growth(data, extend ? range_end(range) : 0);
    if (!error) /* all the space first: a range that does not fit takes none */
        error = data_plan(data, blocks_of(block << POOL_BLOCK_SHIFT, (end - block) << POOL_BLOCK_SHIFT), use, &plan);
    if (error)
        return error;
    data_plan_map(data, &plan, use);
    error = fill_with_zeros(data, block, end);
    if (!error)
        error = defragment(data, block, end);
    if (error)
        return error;
    if (extend && range_end(range) > data->size)
        data->size = range_end(range);
    return 0;
}

int file_data_hold(struct file_data *data, struct lease_range range, struct layout_run **ret_runs, size_t *ret_count)
{
    uint64_t block = block_of(range.offset), end = blocks_up(range_end(range));
    struct layout_run *runs = NULL;
    size_t n = 0;
    int error;

    while (block < end) {
        struct piece piece = piece_at(data, block, smaller(end - block, UINT32_MAX));
        struct layout_run *more = realloc(runs, (n + 1) * sizeof(*runs));

        error = more ? -EINVAL : -ENOMEM;
        runs = more ? more : runs;
        if (!more || piece.kind != PIECE_WRITTEN)
            goto undo;
        error = pool_get_hold(data->pool, piece.start, (uint32_t)piece.count);
        if (error)
            goto undo;
        runs[n++] = (struct layout_run){piece.start.segment, (uint64_t)piece.start.index << POOL_BLOCK_SHIFT,
                                        piece.count << POOL_BLOCK_SHIFT};
        block += piece.count;
    }
    *ret_runs = runs;
    *ret_count = n;
    return 0;

undo:
    file_data_put_runs(data->pool, runs, n);
    free(runs);
    return error;
}

void file_data_put_runs(struct pool *pool, const struct layout_run *runs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pool_put_hold(pool, (struct pool_block){runs[i].segment, (uint32_t)(runs[i].offset >> POOL_BLOCK_SHIFT)},
                      (uint32_t)(runs[i].length >> POOL_BLOCK_SHIFT));
}

void file_data_zero_held_slack(struct file_data *data, const struct layout_run *runs, size_t count)
{
    uint64_t used = data->size & (POOL_BLOCK_SIZE - 1);
    struct piece tail = piece_at(data, block_of(data->size), 1);
    uint64_t offset = (uint64_t)tail.start.index << POOL_BLOCK_SHIFT;

    if (!used || tail.kind != PIECE_WRITTEN || pool_hold_count(data->pool, tail.start) != 1 ||
        pool_file_count(data->pool, tail.start) != 1)
        return;
    for (size_t i = 0; i < count; i++)
        if (runs[i].segment == tail.start.segment && offset >= runs[i].offset &&
            offset - runs[i].offset < runs[i].length)
            memset((uint8_t *)pool_address(data->pool, tail.start) + used, 0, POOL_BLOCK_SIZE - used);
}

struct run_list {
    struct layout_run *runs; /* by place in the pool */
    size_t count;
};

static int compare_runs(const void *a, const void *b)
{
    const struct layout_run *left = a, *right = b;

    return left->offset < right->offset ? -1 : left->offset > right->offset;
}

static bool wanted_in_runs(const struct file_data *data, struct pool_block block, const void *arg)
{
    const struct run_list *list = arg;
    uint64_t offset = (uint64_t)block.index << POOL_BLOCK_SHIFT;
    size_t from = 0, to = list->count;

    (void)data;
    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (offset < list->runs[middle].offset)
            to = middle;
        else if (offset - list->runs[middle].offset < list->runs[middle].length)
            return true;
        else
            from = middle + 1;
    }
    return false;
}

int file_data_detach(struct file_data *data, struct lease_range range, const struct layout_run *runs, size_t count)
{
    uint64_t first = block_of(range.offset);
    struct run_list list = {NULL, count};
    int error;

    if (count == 0)
        return 0;
    list.runs = malloc(count * sizeof(*runs));
    if (!list.runs)
        return -ENOMEM;
    memcpy(list.runs, runs, count * sizeof(*runs));
    qsort(list.runs, count, sizeof(*runs), compare_runs);
    error = data_copy_blocks(data, first, blocks_up(range_end(range)) - first, wanted_in_runs, &list);
    free(list.runs);
    return error;
}

int file_data_set_size(struct file_data *data, uint64_t size)
{
    uint64_t used = size & (POOL_BLOCK_SIZE - 1);
    struct piece piece = piece_at(data, block_of(size), 1);
    int error = 0;

    if (blocks_up(size) != blocks_up(data->size))
        return -EINVAL;
    /* A held block is still the remote writer's, who goes on: zeroing would give the file another one. */
    if (used && !(piece.kind == PIECE_WRITTEN && pool_hold_count(data->pool, piece.start)))
        error = data_zero_written(data, size, POOL_BLOCK_SIZE - used);
    if (!error)
        data->size = size;
    return error;
}
