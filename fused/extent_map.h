/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_EXTENT_MAP_H
#define LEASEFS_FUSED_EXTENT_MAP_H

/*
 * Which pool blocks a file's blocks are: extents that do not overlap, in order, neighbours that continue each other
 * merged. Knows nothing of reference counts: it maps, others own. Not locked.
 *
 * Changes cannot fail half-way: extent_map_reserve() first sets aside the memory that they may need, and is the only
 * function that can fail. One change is one insert, remove or shift, or a remove and an insert of the same range.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fused/pool.h"

struct extent {
    uint64_t block; /* of the file */
    uint32_t count;
    bool unwritten;
    struct pool_block start;
};

struct extent_node;

struct extent_map {
    struct extent_node *root;
    struct extent_node *spare; /* reserved */
    size_t n_spare;
    uint64_t blocks; /* mapped */
};

void extent_map_init(struct extent_map *map);
void extent_map_clear(struct extent_map *map); /* frees the memory, whatever it maps */

int extent_map_reserve(struct extent_map *map, size_t changes); /* -ENOMEM */

/* The extent that covers `block`, or the first behind it. false: none, *ret untouched. */
bool extent_map_at(const struct extent_map *map, uint64_t block, struct extent *ret_extent);

/* The last extent that begins below `block`. false: none, *ret untouched. */
bool extent_map_before(const struct extent_map *map, uint64_t block, struct extent *ret_extent);

/* Maps a range in which nothing is mapped. */
void extent_map_insert(struct extent_map *map, uint64_t block, struct pool_block start, uint32_t count, bool unwritten);

/* Unmaps [block, block + count): the caller has looked at what was there and gives the references back. */
void extent_map_remove(struct extent_map *map, uint64_t block, uint64_t count);

/* Adds delta blocks (may be negative) to the place of everything mapped at or behind `block`. The places that it moves
 * to are unmapped. */
void extent_map_shift(struct extent_map *map, uint64_t block, int64_t delta);

static inline uint64_t extent_end(const struct extent *extent)
{
    return extent->block + extent->count;
}

/* Order, overlap, sums, and that no two neighbours could be one. */
bool extent_map_valid(const struct extent_map *map);

#endif
