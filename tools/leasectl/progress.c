/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/leasectl/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tools/leasectl/leasectl.h"
#include "tools/leasectl/units.h"

#define REDRAW_NS 100000000u
#define BAR_MAX   40

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void progress_start(struct progress *progress, const char *name, uint64_t total)
{
    *progress = (struct progress){
        .shown = isatty(STDERR_FILENO) && !common.json && total,
        .name = name,
        .total = total,
        .started_ns = now_ns(),
    };
}

static int terminal_width(void)
{
    struct winsize size;

    return !ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col ? size.ws_col : 80;
}

void progress_update(struct progress *progress, uint64_t done)
{
    static const char full[] = "########################################",
                      empty[] = "........................................";
    uint64_t now = now_ns();
    double seconds = (double)(now - progress->started_ns) / 1e9;
    int bar = terminal_width() - 58, filled;
    char moved[32];

    if (!progress->shown || (now - progress->drawn_ns < REDRAW_NS && done < progress->total))
        return;
    progress->drawn_ns = now;
    bar = bar > BAR_MAX ? BAR_MAX : bar < 0 ? 0 : bar;
    filled = (int)((double)done / (double)progress->total * bar);
    fprintf(stderr, "\r%-20.20s [%.*s%.*s] %3u%%  %10s  %8.1f MB/s", progress->name, filled, full, bar - filled, empty,
            (unsigned)((double)done * 100 / (double)progress->total), format_size(done, moved, sizeof(moved)),
            seconds > 0 ? (double)done / seconds / 1e6 : 0.0);
    fflush(stderr);
}

void progress_end(struct progress *progress)
{
    if (progress->shown && progress->drawn_ns)
        fputs("\r\033[K", stderr);
    progress->shown = false;
}
