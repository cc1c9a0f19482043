/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASECTL_PROGRESS_H
#define LEASEFS_LEASECTL_PROGRESS_H

/* A progress bar on stderr, for a terminal only; nothing otherwise, and nothing under --json. One thread. */

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool shown;
    const char *name;
    uint64_t total, started_ns, drawn_ns;
};

void progress_start(struct progress *progress, const char *name, uint64_t total);
void progress_update(struct progress *progress, uint64_t done);
void progress_end(struct progress *progress); /* wipes the line */

#endif
