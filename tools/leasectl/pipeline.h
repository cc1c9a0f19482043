/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASECTL_PIPELINE_H
#define LEASEFS_LEASECTL_PIPELINE_H

/*
 * Moves a known number of bytes in pieces through stages (read, hash, write), each on a thread of its own, so that
 * disk, processor and network work at the same time:
 *
 *   buffers   |piece 8|piece 5|piece 6|piece 7|      piece p lives in buffer p % n
 *   stage 0    works on 8: waits until stage 2 is done with 4
 *   stage 1    works on 6
 *   stage 2    works on 5
 *
 * Each stage gets every piece once, in order.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PIPELINE_MAX_STAGES  4
#define PIPELINE_MESSAGE_MAX 768

struct pipeline_stage {
    /* Returns 0, or a negative errno after writing a sentence (PIPELINE_MESSAGE_MAX bytes): then all stages stop. */
    int (*run)(void *context, void *buffer, size_t length, uint64_t position, char *message);
    void *context;
};

struct pipeline {
    void *const *buffers;
    size_t n_buffers, buffer_size;
    const struct pipeline_stage *stages;
    size_t n_stages;
    uint64_t total; /* bytes */
};

/* The last stage runs on the caller's thread. 0, or the first failing stage's errno and sentence. */
int pipeline_run(const struct pipeline *pipeline, char *message);

#endif
