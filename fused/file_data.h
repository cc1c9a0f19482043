/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FILE_DATA_H
#define LEASEFS_FUSED_FILE_DATA_H

/*
 * The bytes of one file: its size and the map from file blocks to pool blocks.
 *
 * Not locked in here. The caller holds the inode's lock: shared for functions that take a const pointer and for
 * file_data_overwrite(), exclusive for all others; with two files, both. The front door was asked before.
 *
 * Rules kept by every function:
 *   - a block that is shared or held is never changed in place (copy on write), and a held block is never shared:
 *     a clone of it is a copy (I1, I3);
 *   - an unwritten block reads as zeros and is zeroed outside the written part when it becomes written;
 *   - bytes between the size and the end of its block are zero in every written block that is not held, and zero before
 *     they become part of the file;
 *   - each block that is mapped has been taken from the file's account; -EDQUOT where that has none left;
 *   - on failure (-ENOSPC, -EDQUOT, -ENOMEM) contents and size are as before, unless a short count says otherwise.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "fused/pool.h"
#include "fused/space_account.h"
#include "lease/layout_ops.h"

struct file_data;

int file_data_new(struct pool *pool, struct file_data **ret_data); /* its blocks are in no account */
void file_data_free(struct file_data *data);                       /* drops the blocks; NULL is allowed */

/* From now on this account pays for the blocks, those that are there included. -EDQUOT: nothing changed. */
int file_data_charge(struct file_data *data, struct space_account *account);

/* New data (in no account) are paid for in place of old ones, whose account they take over. -EDQUOT: nothing changed.
 */
int file_data_charge_instead(struct file_data *data, struct file_data *old);

uint64_t file_data_size(const struct file_data *data);   /* bytes */
uint64_t file_data_blocks(const struct file_data *data); /* allocated pool blocks, for st_blocks */

/* Points iov at the pool (or a page of zeros) for at most max_iov pieces of [offset, offset+length), cut at the size;
 * valid while the lock is held. *ret_bytes may be less than asked when the pieces ran out. */
void file_data_read(const struct file_data *data, uint64_t offset, size_t length, struct iovec *iov, int max_iov,
                    int *ret_iov, size_t *ret_bytes);

/* Returns bytes written (short when space ran out after some), or -ENOSPC, -EDQUOT, -EFBIG. Extends the size. */
int64_t file_data_write(struct file_data *data, uint64_t offset, const void *bytes, size_t length);

/* A write that needs no change of the map: every block exists, is written, exclusive and unheld, and the range ends
 * at or below the size. 0, or -EAGAIN with nothing changed. Shared lock: parallel writers of disjoint ranges. */
int file_data_overwrite(struct file_data *data, uint64_t offset, const void *bytes, size_t length);

int file_data_truncate(struct file_data *data, uint64_t size);

/* fallocate. Ranges are bytes; partial blocks at the ends are handled. `extend` grows the size to the range's end. */
int file_data_allocate(struct file_data *data, uint64_t offset, uint64_t length, bool extend); /* unwritten blocks */
int file_data_punch(struct file_data *data, uint64_t offset, uint64_t length);                 /* keeps the size */
int file_data_zero(struct file_data *data, uint64_t offset, uint64_t length, bool extend);
int file_data_collapse(struct file_data *data, uint64_t offset, uint64_t length); /* whole blocks, ends below EOF */
int file_data_insert(struct file_data *data, uint64_t offset, uint64_t length);   /* whole blocks, starts below EOF */
/* Allocates, and copies what is shared or held: later writes to the range need no space. */
int file_data_unshare(struct file_data *data, uint64_t offset, uint64_t length, bool extend);

/* SEEK_DATA / SEEK_HOLE (unwritten counts as hole). -ENXIO as lseek(2). */
int64_t file_data_seek(const struct file_data *data, uint64_t offset, int whence);

/* Makes [dst_offset, +length) of dst the same bytes as [src_offset, +length) of src (which lies below src's size):
 * shares whole blocks where both offsets are congruent and the block is not held, copies the rest. Handles
 * src == dst without overlap. Bytes done (short on lack of space), or -ENOSPC. Grows dst's size. */
int64_t file_data_clone(const struct file_data *src, uint64_t src_offset, struct file_data *dst, uint64_t dst_offset,
                        uint64_t length);

/* ---- for leases; range in whole blocks ---- */

/* See layout_ops.prepare. */
int file_data_prepare(struct file_data *data, struct lease_range range, bool exclusive, bool extend);

/* Would prepare replace blocks that are there already (unshare, relocate)? Then it conflicts with leases. */
bool file_data_prepare_replaces(const struct file_data *data, struct lease_range range, bool exclusive);

/* Eligible now? LAYOUT_OK or the first offending part. */
struct layout_problem file_data_eligible(const struct file_data *data, struct lease_range range, bool exclusive);

/* Takes a hold on each block of an eligible range; *ret_runs is malloc'd, merged where consecutive, freed by the
 * caller. -EINVAL: not eligible. */
int file_data_hold(struct file_data *data, struct lease_range range, struct layout_run **ret_runs, size_t *ret_count);
void file_data_put_runs(struct pool *pool, const struct layout_run *runs, size_t count);

/* Zeroes the slack in place if its block is one of the runs and nobody else's: a remote writer was the last to have it,
 * and can reach it no more. */
void file_data_zero_held_slack(struct file_data *data, const struct layout_run *runs, size_t count);

/* Replaces each block of the range that the file shares with the runs by a copy. */
int file_data_detach(struct file_data *data, struct lease_range range, const struct layout_run *runs, size_t count);

/* The size alone, within the last block (commit of a remote writer; also when it no longer holds the block). Zeroes the
 * slack behind it unless the block is held: then the writer goes on, and this is called again without the hold. */
int file_data_set_size(struct file_data *data, uint64_t size);

/* One extent at or after offset, for maps shown to people. false: none. */
struct file_extent {
    uint64_t offset, length; /* bytes in the file */
    struct pool_block start;
    bool unwritten, shared, held;
};
bool file_data_next_extent(const struct file_data *data, uint64_t offset, struct file_extent *ret_extent);

/* Checks order, overlap, counts; 0 or -EUCLEAN after a line on stderr. */
int file_data_check(const struct file_data *data);

#endif
