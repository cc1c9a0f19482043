/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/extent_map.h"

#include <errno.h>
#include <stdlib.h>

#include <bsd/sys/tree.h>

#ifndef __unused /* a BSD name that sys/tree.h takes for granted */
#define __unused __attribute__((unused))
#endif

#define NODES_OF_A_CHANGE 3 /* two ends that are split, one that is inserted */
#define SPARE_KEPT        3

struct extent_node {
    RB_ENTRY(extent_node) link;
    struct extent e;
};

RB_HEAD(extent_tree, extent_node);

static int compare(const struct extent_node *a, const struct extent_node *b)
{
    return a->e.block < b->e.block ? -1 : a->e.block > b->e.block;
}

RB_PROTOTYPE_STATIC(extent_tree, extent_node, link, compare);
RB_GENERATE_STATIC(extent_tree, extent_node, link, compare)

static struct extent_tree *tree_of(struct extent_map *map)
{
    return (struct extent_tree *)&map->root; /* the head is its root */
}

void extent_map_init(struct extent_map *map)
{
    *map = (struct extent_map){0};
}

static void give_spare(struct extent_map *map, struct extent_node *node)
{
    RB_LEFT(node, link) = map->spare;
    map->spare = node;
    map->n_spare++;
}

static struct extent_node *take_spare(struct extent_map *map)
{
    struct extent_node *node = map->spare;

    if (!node) /* a change without a reservation: a bug that would lose data if it went on */
        abort();
    map->spare = RB_LEFT(node, link);
    map->n_spare--;
    return node;
}

int extent_map_reserve(struct extent_map *map, size_t changes)
{
    while (map->n_spare < changes * NODES_OF_A_CHANGE) {
        struct extent_node *node = calloc(1, sizeof(*node));

        if (!node)
            return -ENOMEM;
        give_spare(map, node);
    }
    return 0;
}

static void drop(struct extent_map *map, struct extent_node *node)
{
    RB_REMOVE(extent_tree, tree_of(map), node);
    if (map->n_spare < SPARE_KEPT)
        give_spare(map, node);
    else
        free(node);
}

void extent_map_clear(struct extent_map *map)
{
    struct extent_node *node;

    while ((node = map->root)) {
        RB_REMOVE(extent_tree, tree_of(map), node);
        free(node);
    }
    while (map->spare)
        free(take_spare(map));
    map->blocks = 0;
}

static struct extent_node *node_at(const struct extent_map *map, uint64_t block)
{
    struct extent_node *node = map->root, *found = NULL;

    while (node) {
        if (block < node->e.block) {
            found = node;
            node = RB_LEFT(node, link);
        } else if (block >= extent_end(&node->e)) {
            node = RB_RIGHT(node, link);
        } else {
            return node;
        }
    }
    return found;
}

bool extent_map_at(const struct extent_map *map, uint64_t block, struct extent *ret_extent)
{
    struct extent_node *node = node_at(map, block);

    if (node)
        *ret_extent = node->e;
    return node != NULL;
}

bool extent_map_before(const struct extent_map *map, uint64_t block, struct extent *ret_extent)
{
    struct extent_node *node = map->root, *found = NULL;

    while (node) {
        if (node->e.block < block) {
            found = node;
            node = RB_RIGHT(node, link);
        } else {
            node = RB_LEFT(node, link);
        }
    }
    if (found)
        *ret_extent = found->e;
    return found != NULL;
}

static bool continues(const struct extent *a, const struct extent *b)
{
    return extent_end(a) == b->block && a->unwritten == b->unwritten && a->start.segment == b->start.segment &&
           a->start.index + a->count == b->start.index && a->count <= UINT32_MAX - b->count;
}

static void merge_with_next(struct extent_map *map, struct extent_node *node)
{
    struct extent_node *next = node ? RB_NEXT(extent_tree, NULL, node) : NULL;

    if (!next || !continues(&node->e, &next->e))
        return;
    node->e.count += next->e.count;
    drop(map, next);
}

static struct extent_node *add(struct extent_map *map, struct extent extent)
{
    struct extent_node *node = take_spare(map);

    *node = (struct extent_node){.e = extent};
    RB_INSERT(extent_tree, tree_of(map), node);
    return node;
}

void extent_map_insert(struct extent_map *map, uint64_t block, struct pool_block start, uint32_t count, bool unwritten)
{
    struct extent_node *node =
        add(map, (struct extent){.block = block, .count = count, .unwritten = unwritten, .start = start});

    map->blocks += count;
    merge_with_next(map, node);
    merge_with_next(map, RB_PREV(extent_tree, NULL, node));
}

/* Makes `block` the first of its extent, if it is inside one. */
static void split(struct extent_map *map, uint64_t block)
{
    struct extent_node *node = node_at(map, block);
    struct extent tail;
    uint32_t head;

    if (!node || node->e.block >= block)
        return;
    head = (uint32_t)(block - node->e.block);
    tail = node->e;
    tail.block = block;
    tail.count -= head;
    tail.start.index += head;
    node->e.count = head;
    add(map, tail);
}

void extent_map_remove(struct extent_map *map, uint64_t block, uint64_t count)
{
    struct extent_node *node, *next;

    split(map, block);
    split(map, block + count);
    for (node = node_at(map, block); node && node->e.block < block + count; node = next) {
        next = RB_NEXT(extent_tree, NULL, node);
        map->blocks -= node->e.count;
        drop(map, node);
    }
}

void extent_map_shift(struct extent_map *map, uint64_t block, int64_t delta)
{
    struct extent_node *first, *node;

    split(map, block);
    first = node_at(map, block);
    /* All move by the same amount into unmapped places, so their order stays. */
    for (node = first; node; node = RB_NEXT(extent_tree, NULL, node))
        node->e.block += (uint64_t)delta;
    if (first)
        merge_with_next(map, RB_PREV(extent_tree, NULL, first));
}

bool extent_map_valid(const struct extent_map *map)
{
    struct extent previous = {0}, extent;
    uint64_t blocks = 0;
    bool any = false;

    for (uint64_t at = 0; extent_map_at(map, at, &extent); at = extent_end(&extent)) {
        if (!extent.count || (any && (extent_end(&previous) > extent.block || continues(&previous, &extent))))
            return false;
        blocks += extent.count;
        previous = extent;
        any = true;
    }
    return blocks == map->blocks;
}
