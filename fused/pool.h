/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_POOL_H
#define LEASEFS_FUSED_POOL_H

/*
 * The pool: one preallocated memfd, mapped once, cut into blocks of POOL_BLOCK_SIZE, and who refers to each block.
 *
 * A block has two counts. `files` is how many places in files refer to it (over one: shared). `holds` is how many
 * exposures refer to it (leases; see layout_hold). It is free when both are zero, and only then (I1). Both live in an
 * array made at start (a hold on all blocks of a huge page in one for such pages), and free space in bitmaps, so that
 * giving a block back never needs memory and never fails.
 *
 * Thread-safe: allocation groups have a lock each, a leaf lock (nothing is called while it is held). Counts are
 * changed under the group's lock and may be read without it by whoever holds the lock of a file that refers to the
 * block.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POOL_BLOCK_SHIFT 12
#define POOL_BLOCK_SIZE  (1u << POOL_BLOCK_SHIFT)
#define POOL_HUGE_BLOCKS 512u /* blocks of a 2 MiB page */

/* Where a block is. One segment today; a large file can have its own later (DESIGN.md, segment). */
struct pool_block {
    uint32_t segment;
    uint32_t index; /* block number within the segment */
};

struct pool;

/* Creates, seals and populates the memory now, so that a later store never raises SIGBUS. size is rounded down to the
 * page size (4 KiB, or 2 MiB with huge_pages). On failure nothing is left and *ret_error (static or freed by the
 * caller with free()) says what was asked, what there is and what to do: -ENOMEM (memory, cgroup limit, huge pages
 * reserved), -EINVAL (too small, too large). */
int pool_new(uint64_t size, bool huge_pages, struct pool **ret_pool, char **ret_error);
void pool_free(struct pool *pool); /* NULL is allowed */

int pool_fd(const struct pool *pool);
void *pool_base(const struct pool *pool);
uint64_t pool_size(const struct pool *pool);    /* bytes */
size_t pool_page_size(const struct pool *pool); /* 4096 or 2 MiB */
void *pool_address(const struct pool *pool, struct pool_block block);

struct pool_usage {
    uint64_t total, free; /* blocks */
    uint64_t held;        /* blocks with holds */
    uint64_t orphaned;    /* held and in no file */
};
void pool_usage(const struct pool *pool, struct pool_usage *ret_usage);
uint64_t pool_free_blocks(const struct pool *pool); /* takes no lock: a moment's sum */

/* Allocates one run of 1..want consecutive blocks with files = 1 each, contents undefined. Prefers `goal` (where the
 * file's previous run ends) and, for large requests (512 KiB and more), a start congruent to file_block modulo
 * POOL_HUGE_BLOCKS so that huge pages line up. At least `min` blocks or -ENOSPC. */
int pool_alloc(struct pool *pool, uint32_t want, uint32_t min, struct pool_block goal, uint64_t file_block,
               struct pool_block *ret_start, uint32_t *ret_count);

/* Allocates exactly `count` blocks at the place in one huge page of the pool that file_block has in its own of the
 * file, where they end, too. -ENOSPC: no huge page has that place free. */
int pool_alloc_in_huge_page(struct pool *pool, uint32_t count, uint64_t file_block, struct pool_block *ret_start);

/* Reference counts of `count` consecutive blocks. get: -EOVERFLOW changes nothing. put: blocks left with no count at
 * all are free at once. */
int pool_get_file(struct pool *pool, struct pool_block start, uint32_t count);
void pool_put_file(struct pool *pool, struct pool_block start, uint32_t count);
int pool_get_hold(struct pool *pool, struct pool_block start, uint32_t count);
void pool_put_hold(struct pool *pool, struct pool_block start, uint32_t count);

/* May a file change this block in place? Only when it alone refers to it and no exposure does. */
bool pool_exclusive(const struct pool *pool, struct pool_block block);
uint32_t pool_file_count(const struct pool *pool, struct pool_block block);
uint32_t pool_hold_count(const struct pool *pool, struct pool_block block);

/* Counts the bitmaps against the arrays; 0 or -EUCLEAN after a line on stderr. Takes every group's lock. */
int pool_check(struct pool *pool);

#endif
