/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_EXTENT_MAP_H
#define LEASEFS_FUSED_EXTENT_MAP_H

/*
 * Which pool blocks a file's blocks are: extents that do not overlap, in order, neighbours that continue each other
 * merged. Knows nothing of reference counts: it maps, others own. Not locked.
 *
 * Changes cannot fail half-way: extent_map_reserve() first sets aside the nodes that a change may need (a change of
 * one range needs at most EXTENT_NODES), and is the only function that can fail.
 */

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>

#include "fused/pool.h"

#define EXTENT_NODES 3

struct extent {
    RB_ENTRY(extent) link;
    uint64_t block; /* of the file */
    uint32_t count;
    bool unwritten;
    struct pool_block start;
};

RB_HEAD(extent_tree, extent);

struct extent_map {
    struct extent_tree tree;
    struct extent *spare; /* reserved nodes, chained by link.rbe_left */
    int n_spare;
    uint64_t blocks; /* mapped */
};

void extent_map_init(struct extent_map *map);
void extent_map_clear(struct extent_map *map); /* frees nodes, whatever they map */

int extent_map_reserve(struct extent_map *map); /* -ENOMEM */

/* The extent that covers `block`, or the first behind it; NULL: none. */
struct extent *extent_map_at(const struct extent_map *map, uint64_t block);
struct extent *extent_map_next(struct extent *extent);
struct extent *extent_map_previous(struct extent *extent);

/* Maps a range in which nothing is mapped. Needs a reservation. */
void extent_map_insert(struct extent_map *map, uint64_t block, struct pool_block start, uint32_t count, bool unwritten);

/* Unmaps [block, block + count): the caller has looked at what was there and gives the references back. Needs a
 * reservation. */
void extent_map_remove(struct extent_map *map, uint64_t block, uint64_t count);

/* Adds delta blocks (may be negative) to the place of everything mapped at or behind `block`. The places that it moves
 * to are unmapped. Needs a reservation. */
void extent_map_shift(struct extent_map *map, uint64_t block, int64_t delta);

bool extent_map_valid(const struct extent_map *map);

#endif
