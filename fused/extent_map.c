/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/extent_map.h"

#include <errno.h>
#include <stdlib.h>

#ifndef __unused /* a BSD name that sys/tree.h takes for granted */
#define __unused __attribute__((unused))
#endif

static int compare(const struct extent *a, const struct extent *b)
{
    return a->block < b->block ? -1 : a->block > b->block;
}

RB_PROTOTYPE_STATIC(extent_tree, extent, link, compare);
RB_GENERATE_STATIC(extent_tree, extent, link, compare)

static uint64_t extent_end(const struct extent *extent)
{
    return extent->block + extent->count;
}

void extent_map_init(struct extent_map *map)
{
    *map = (struct extent_map){0};
    RB_INIT(&map->tree);
}

static void give_spare(struct extent_map *map, struct extent *extent)
{
    if (map->n_spare == EXTENT_NODES) {
        free(extent);
        return;
    }
    RB_LEFT(extent, link) = map->spare;
    map->spare = extent;
    map->n_spare++;
}

static struct extent *take_spare(struct extent_map *map)
{
    struct extent *extent = map->spare;

    if (!extent) /* a change without a reservation: a bug that would lose data if it went on */
        abort();
    map->spare = RB_LEFT(extent, link);
    map->n_spare--;
    return extent;
}

int extent_map_reserve(struct extent_map *map)
{
    while (map->n_spare < EXTENT_NODES) {
        struct extent *extent = calloc(1, sizeof(*extent));

        if (!extent)
            return -ENOMEM;
        give_spare(map, extent);
    }
    return 0;
}

void extent_map_clear(struct extent_map *map)
{
    struct extent *extent;

    while ((extent = RB_ROOT(&map->tree))) {
        RB_REMOVE(extent_tree, &map->tree, extent);
        free(extent);
    }
    while (map->spare)
        free(take_spare(map));
    map->blocks = 0;
}

struct extent *extent_map_at(const struct extent_map *map, uint64_t block)
{
    struct extent *extent = RB_ROOT(&map->tree), *found = NULL;

    while (extent) {
        if (block < extent->block) {
            found = extent;
            extent = RB_LEFT(extent, link);
        } else if (block >= extent_end(extent)) {
            extent = RB_RIGHT(extent, link);
        } else {
            return extent;
        }
    }
    return found;
}

struct extent *extent_map_next(struct extent *extent)
{
    return RB_NEXT(extent_tree, NULL, extent);
}

struct extent *extent_map_previous(struct extent *extent)
{
    return RB_PREV(extent_tree, NULL, extent);
}

static bool continues(const struct extent *a, const struct extent *b)
{
    return extent_end(a) == b->block && a->unwritten == b->unwritten && a->start.segment == b->start.segment &&
           a->start.index + a->count == b->start.index && a->count <= UINT32_MAX - b->count;
}

static void merge_with_next(struct extent_map *map, struct extent *extent)
{
    struct extent *next = extent ? extent_map_next(extent) : NULL;

    if (!next || !continues(extent, next))
        return;
    extent->count += next->count;
    RB_REMOVE(extent_tree, &map->tree, next);
    give_spare(map, next);
}

static struct extent *add(struct extent_map *map, uint64_t block, struct pool_block start, uint32_t count,
                          bool unwritten)
{
    struct extent *extent = take_spare(map);

    *extent = (struct extent){.block = block, .count = count, .unwritten = unwritten, .start = start};
    RB_INSERT(extent_tree, &map->tree, extent);
    return extent;
}

void extent_map_insert(struct extent_map *map, uint64_t block, struct pool_block start, uint32_t count, bool unwritten)
{
    struct extent *extent = add(map, block, start, count, unwritten);

    map->blocks += count;
    merge_with_next(map, extent);
    merge_with_next(map, extent_map_previous(extent));
}

/* Makes `block` the first of its extent, if it is inside one. */
static void split(struct extent_map *map, uint64_t block)
{
    struct extent *extent = extent_map_at(map, block);
    uint32_t head;

    if (!extent || extent->block >= block)
        return;
    head = (uint32_t)(block - extent->block);
    add(map, block, (struct pool_block){extent->start.segment, extent->start.index + head}, extent->count - head,
        extent->unwritten);
    extent->count = head;
}

void extent_map_remove(struct extent_map *map, uint64_t block, uint64_t count)
{
    struct extent *extent, *next;

    split(map, block);
    split(map, block + count);
    for (extent = extent_map_at(map, block); extent && extent->block < block + count; extent = next) {
        next = extent_map_next(extent);
        map->blocks -= extent->count;
        RB_REMOVE(extent_tree, &map->tree, extent);
        give_spare(map, extent);
    }
}

void extent_map_shift(struct extent_map *map, uint64_t block, int64_t delta)
{
    struct extent *first, *extent;

    split(map, block);
    first = extent_map_at(map, block);
    /* All move by the same amount into unmapped places, so their order stays. */
    for (extent = first; extent; extent = extent_map_next(extent))
        extent->block += (uint64_t)delta;
    if (first)
        merge_with_next(map, extent_map_previous(first));
}

bool extent_map_valid(const struct extent_map *map)
{
    const struct extent *previous = NULL;
    struct extent *extent;
    uint64_t blocks = 0;

    for (extent = extent_map_at(map, 0); extent; extent = extent_map_next(extent)) {
        if (!extent->count || (previous && extent_end(previous) > extent->block))
            return false;
        blocks += extent->count;
        previous = extent;
    }
    return blocks == map->blocks;
}
