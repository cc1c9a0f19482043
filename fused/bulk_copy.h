/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_BULK_COPY_H
#define LEASEFS_FUSED_BULK_COPY_H

#include <stddef.h>

#define BULK_COPY_MIN (64u << 10) /* from so many bytes on a copy goes in past the caches, where the processor can */

/* memcpy() into the pool and out of it. The two places must not overlap.
 *
 * In: what is large is stored past the processor's caches: memory that is overwritten whole need not be read first, and
 * the caches keep what is in use. Whatever orders later stores of this thread (a lock given up) orders these, too.
 *
 * Out: what is large is in no cache. Some processors do not look further ahead than to the end of a page: there it is
 * read at several pages at once, and ahead, which memcpy() does not do. On others memcpy() is one instruction, and
 * faster than that. */
void bulk_copy_in(void *to, const void *from, size_t length);
void bulk_copy_out(void *to, const void *from, size_t length);

enum bulk_copy_way {
    BULK_COPY_SIDE_BY_SIDE, /* until another is chosen */
    BULK_COPY_PLAIN,
};

/* Measures on the first 4 MiB of `memory`, if it has so many, which way out is faster on this processor, and has
 * bulk_copy_out() go that way; returns it. Some milliseconds. As for bulk_copy_choose(): not while
 * another thread copies. */
enum bulk_copy_way bulk_copy_measure(const void *memory, size_t size);
void bulk_copy_choose(enum bulk_copy_way way);

#endif
