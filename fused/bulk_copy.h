/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_BULK_COPY_H
#define LEASEFS_FUSED_BULK_COPY_H

#include <stddef.h>

#define BULK_COPY_MIN (64u << 10) /* from so many bytes on it goes past the caches, where the processor can */

/* memcpy() into the pool. What is large is stored past the processor's caches: memory that is overwritten whole need
 * not be read first, and the caches keep what is in use. Whatever orders later stores of this thread (a lock given up)
 * orders these, too. The two must not overlap. */
void bulk_copy(void *to, const void *from, size_t length);

#endif
