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
 * Out: what is large is read at several places at once, and ahead: it is in no cache, and processors do not look
 * further ahead than to the end of a page. */
void bulk_copy_in(void *to, const void *from, size_t length);
void bulk_copy_out(void *to, const void *from, size_t length);

#endif
