/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FS_FRONT_DOOR_H
#define LEASEFS_FUSED_FS_FRONT_DOOR_H

/*
 * The front door: the one question asked before a file's layout or bytes change.
 *
 * Who asks holds the inode's lock exclusively, and on 0 does the operation under that same hold of the lock. That
 * suffices against every race with a grant: a lease is in the table before hold() takes the inode's lock, so an
 * operation either has finished when hold() checks the range, or it finds the lease. An operation that finds none
 * (`holds` is 0: no hold() yet) has finished before hold() looks.
 *
 *   operation                                 range                                       as
 *   write                                     [min(offset, size), end of the write)       REPLACE
 *   truncate to less                          [block of the new size, end of all files)   DROP
 *   truncate to more, allocate behind EOF     [old size, end of its block)                REPLACE
 *   punch                                     the blocks it touches                       DROP
 *   collapse, insert                          [offset, end of all files)                  DROP
 *   unshare, where it replaces blocks         the blocks                                  REPLACE
 *   zero                                      the bytes, and from the old size            REPLACE
 *   copy_file_range, clone: source            the bytes                                   SHARE
 *   copy_file_range: destination              as write                                    REPLACE
 *   clone: destination; the last unlink,
 *   or rename over the last link              everything                                  DROP
 *   prepare, where it replaces blocks         the blocks                                  REPLACE
 *
 * A range that starts at the old size is there for the slack: bytes behind the end of file in its last block are
 * zeros, and become part of the file.
 */

#include "fused/fs_private.h"

/* 0: go. -EINPROGRESS, -EAGAIN, -EBUSY: see fs.h; give up every inode lock. */
int front_door(struct fs *fs, struct fs_inode *inode, struct lease_range range, enum lease_op op,
               struct lease_waiter *waiter);

/* The ranges of the table above. Offsets and lengths were checked: no sum passes RANGE_MAX_END. */
struct lease_range range_of_write(const struct fs_inode *inode, uint64_t offset, uint64_t length);
struct lease_range range_of_slack(const struct fs_inode *inode);
struct lease_range range_of_shrink(uint64_t new_size);

uint64_t fs_monotonic_ns(void);

#endif
