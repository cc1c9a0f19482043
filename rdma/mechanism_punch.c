/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * punch: the space comes back although nothing proved that the device has stopped. The pages of the lease are cut out
 * of the pool's memory and fresh ones are put in their place; the device keeps the old ones pinned, and what it still
 * does happens in memory that belongs to nobody.
 *
 *     pool   ..[a][b][c]..      punched    ..[ ][ ][ ]..      filled    ..[a'][b'][c']..
 *     MR        a  b  c                       a  b  c                      a   b   c
 *
 * Only for pinned MRs: one that is on demand would fault the fresh pages in. Only for whole pages: a part of a huge
 * page is zeroed in place and stays with the device. That includes huge pages that the kernel makes on its own accord
 * in shared memory, so the hole is looked at before it is filled: a page that is still there was not cut out.
 */

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "rdma/faults.h"
#include "rdma/internal.h"

static bool whole_pages(const struct exposure *exposure)
{
    for (size_t i = 0; i < exposure->n_runs; i++) {
        const struct layout_run *run = &exposure->runs[i];
        uint64_t mask = exposure->segments[run->segment].page_size - 1;

        if ((run->offset | run->length) & mask)
            return false;
    }
    return true;
}

static int punch_run(const struct layout_segment *segment, const struct layout_run *run)
{
    off_t start = (off_t)run->offset, length = (off_t)run->length;

    if (fallocate(segment->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, length) < 0)
        return -errno;
    return 0;
}

/* Is every page gone? mincore() looks at the memory file, or at the mapping where that is of huge pages. */
static int check_hole(const struct layout_segment *segment, const struct layout_run *run)
{
    uint8_t present[1024];
    const uint64_t at_once = sizeof(present) * LEASEFS_BLOCK_SIZE;

    for (uint64_t done = 0; done < run->length; done += at_once) {
        uint64_t length = run->length - done < at_once ? run->length - done : at_once;

        if (mincore((uint8_t *)segment->base + run->offset + done, length, present) < 0)
            return -errno;
        for (uint64_t i = 0; i < length / LEASEFS_BLOCK_SIZE; i++)
            if (present[i] & 1)
                return -EBUSY;
    }
    return 0;
}

static int fill_run(const struct layout_segment *segment, const struct layout_run *run)
{
    if (fallocate(segment->fd, 0, (off_t)run->offset, (off_t)run->length) < 0)
        return -errno;
    return 0;
}

static int each_run(const struct exposure *exposure,
                    int (*call)(const struct layout_segment *segment, const struct layout_run *run))
{
    int r = 0;

    for (size_t i = 0; i < exposure->n_runs; i++) {
        const struct layout_run *run = &exposure->runs[i];
        int error = call(&exposure->segments[run->segment], run);

        if (error && !r)
            r = error;
    }
    return r;
}

/* The blocks are the exposure's alone, so it matters to nobody in which state a failure leaves them: they are never
 * used again. Holes are filled in any case; what cannot be filled is given back to the machine. */
int revoke_by_punch(struct exposure *exposure, uint64_t deadline_ns)
{
    int r, filled;

    (void)deadline_ns; /* memory only: no call on the device */
    if (!whole_pages(exposure))
        return -EOPNOTSUPP;
    if (fault_inject("punch", &r))
        return r;
    r = each_run(exposure, punch_run);
    if (r == 0)
        r = each_run(exposure, check_hole);
    filled = each_run(exposure, fill_run);
    return r ? r : filled;
}
