/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASECTL_MAP_H
#define LEASEFS_LEASECTL_MAP_H

/* Drawing byte ranges to scale. */

#include <stddef.h>
#include <stdint.h>

/* Fills those of `width` columns, which stand for `total` bytes, that the range touches: a byte at least shows. */
void map_draw(char *line, size_t width, uint64_t total, uint64_t offset, uint64_t length, char with);

#endif
