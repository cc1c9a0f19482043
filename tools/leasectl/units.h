/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASECTL_UNITS_H
#define LEASEFS_LEASECTL_UNITS_H

/* Sizes, ranges and times as people write and read them. */

#include <stddef.h>
#include <stdint.h>

#include <leasefs/leasefs.h>

/* "4096", "64K", "1M", "2G", "1T" (powers of 1024; "KiB" and "KB" alike) up to the largest file. -EINVAL, -ERANGE */
int parse_size(const char *text, uint64_t *ret_bytes);

/* "OFFSET:LENGTH", each a size; a missing or zero LENGTH reaches to the end of the file. */
int parse_range(const char *text, uint64_t *ret_offset, uint64_t *ret_length);

/* Seconds with an optional fraction ("2", "0.5"), at most a year, as milliseconds. */
int parse_seconds(const char *text, uint64_t *ret_ms);

/* A whole number from min to max. */
int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number);

/* "1.5 GiB". Returns text. */
char *format_size(uint64_t bytes, char *text, size_t size);

/* "recall", "busy" or "orphan". -EINVAL */
int parse_policy(const char *text, enum leasefs_policy *ret_policy);

#endif
