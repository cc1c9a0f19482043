/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_RANGE_H
#define LEASEFS_LEASE_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A half-open range of bytes of one file: [offset, offset + length).
 * Valid ranges end at or below RANGE_MAX_END (the largest off_t), so that no sum below overflows.
 * An operation that reaches to the end of the file and beyond (truncate) ends at RANGE_MAX_END.
 */
#define RANGE_MAX_END ((uint64_t)INT64_MAX)

struct lease_range {
    uint64_t offset; /* bytes */
    uint64_t length; /* bytes; 0 is an empty range that overlaps nothing */
};

static inline bool range_valid(struct lease_range r)
{
    return r.offset <= RANGE_MAX_END && r.length <= RANGE_MAX_END - r.offset;
}

static inline uint64_t range_end(struct lease_range r)
{
    return r.offset + r.length;
}

static inline struct lease_range range_from(uint64_t offset)
{
    return (struct lease_range){offset, RANGE_MAX_END - offset};
}

static inline bool range_overlaps(struct lease_range a, struct lease_range b)
{
    return a.length && b.length && a.offset < range_end(b) && b.offset < range_end(a);
}

static inline bool range_contains(struct lease_range outer, struct lease_range inner)
{
    return outer.offset <= inner.offset && range_end(inner) <= range_end(outer);
}

/* Grows a valid range to whole blocks; block is a power of two. Saturates at RANGE_MAX_END. */
static inline struct lease_range range_round_out(struct lease_range r, uint64_t block)
{
    uint64_t start = r.offset & ~(block - 1);
    uint64_t end = range_end(r);

    end = end > RANGE_MAX_END - (block - 1) ? RANGE_MAX_END : (end + block - 1) & ~(block - 1);
    return (struct lease_range){start, end - start};
}

/* Shrinks a valid range to the whole blocks inside of it; empty when there are none. */
static inline struct lease_range range_round_in(struct lease_range r, uint64_t block)
{
    uint64_t start = r.offset > RANGE_MAX_END - (block - 1) ? RANGE_MAX_END : (r.offset + block - 1) & ~(block - 1);
    uint64_t end = range_end(r) & ~(block - 1);

    return (struct lease_range){start, end > start ? end - start : 0};
}

/* What both have; empty when they do not overlap. */
static inline struct lease_range range_common(struct lease_range a, struct lease_range b)
{
    uint64_t start = a.offset > b.offset ? a.offset : b.offset;
    uint64_t end = range_end(a) < range_end(b) ? range_end(a) : range_end(b);

    return (struct lease_range){start, end > start ? end - start : 0};
}

/* What is left of `whole` without `part`: at most two pieces, in order, none of them empty. Returns how many. */
static inline size_t range_without(struct lease_range whole, struct lease_range part, struct lease_range pieces[2])
{
    struct lease_range common = range_common(whole, part);
    size_t n = 0;

    if (!common.length) {
        pieces[n] = whole;
        return whole.length > 0;
    }
    if (common.offset > whole.offset)
        pieces[n++] = (struct lease_range){whole.offset, common.offset - whole.offset};
    if (range_end(common) < range_end(whole))
        pieces[n++] = (struct lease_range){range_end(common), range_end(whole) - range_end(common)};
    return n;
}

#endif
