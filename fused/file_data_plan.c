/* SPDX-License-Identifier: BSD-2-Clause */
/* New blocks for a range of a file: all of them or none. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fused/file_data_private.h"

/* How many blocks from `block` on are to get new ones; else *ret_skip of them are not. */
static uint64_t blocks_to_plan(const struct file_data *data, struct blocks b, uint64_t block, enum plan_use use,
                               uint64_t *ret_skip)
{
    bool whole = block >= b.first_whole && block < b.end_whole, exclusive = true;
    uint64_t stop = block < b.first_whole ? b.first_whole : whole ? b.end_whole : b.end;
    struct piece piece = piece_at(data, block, stop - block);

    if (piece.kind == PIECE_WRITTEN && (use == PLAN_COPIES || (use == PLAN_ZEROS && whole)))
        piece.count = piece_alike(data, &piece, &exclusive);
    *ret_skip = piece.count;
    return piece.kind == PIECE_HOLE || !exclusive ? piece.count : 0;
}

static int make_room(struct data_plan *plan)
{
    size_t room = plan->room ? plan->room * 2 : 8;
    struct planned *more;

    if (plan->n < plan->room)
        return 0;
    more = realloc(plan->runs, room * sizeof(*more));
    if (!more)
        return -ENOMEM;
    plan->runs = more;
    plan->room = room;
    return 0;
}

static int plan_run(struct file_data *data, struct data_plan *plan, uint64_t block, uint64_t want)
{
    struct pool_block start;
    uint32_t got;
    int error = make_room(plan);
    struct planned *last = plan->n ? &plan->runs[plan->n - 1] : NULL;

    if (error)
        return error;
    if (last && last->block + last->count == block)
        error = pool_alloc(data->pool, (uint32_t)smaller(want, UINT32_MAX), 1, block_plus(last->start, last->count),
                           block, &start, &got);
    else
        error = data_alloc(data, block, want, 1, &start, &got);
    if (!error)
        plan->runs[plan->n++] = (struct planned){block, start, got};
    return error;
}

int data_plan(struct file_data *data, struct blocks b, enum plan_use use, struct data_plan *ret_plan)
{
    struct data_plan plan = {0};
    uint64_t need = 0, skip;
    int error = 0;

    /* Copies take the place of what is there. */
    plan.charged = data_holes(data, b.first, b.end - b.first);

    /* A range that cannot fit is refused before it takes everybody's space for a moment. */
    for (uint64_t at = b.first; at < b.end; at += skip)
        need += blocks_to_plan(data, b, at, use, &skip);
    if (need > pool_free_blocks(data->pool))
        return -ENOSPC;
    if (!space_account_take(data->account, plan.charged))
        return -EDQUOT;
    for (uint64_t at = b.first; at < b.end && !error;) {
        uint64_t want = blocks_to_plan(data, b, at, use, &skip);

        if (want)
            error = plan_run(data, &plan, at, want);
        at += want && !error ? plan.runs[plan.n - 1].count : skip;
    }
    if (!error)
        error = extent_map_reserve(&data->map, plan.n);
    if (!error) {
        *ret_plan = plan;
        return 0;
    }
    while (plan.n--)
        pool_put_file(data->pool, plan.runs[plan.n].start, plan.runs[plan.n].count);
    free(plan.runs);
    space_account_give(data->account, plan.charged);
    return error;
}

void data_plan_map(struct file_data *data, struct data_plan *plan, enum plan_use use)
{
    for (size_t i = 0; i < plan->n; i++) {
        const struct planned *run = &plan->runs[i];
        struct piece old = piece_at(data, run->block, run->count); /* of one kind, as it was planned */
        bool copy = use == PLAN_COPIES && old.kind == PIECE_WRITTEN;

        if (copy)
            data_copy_to(data, run->block, old.start, run->start, run->count);
        data_replace(data, run->block, run->start, run->count, !copy);
    }
    free(plan->runs);
}
