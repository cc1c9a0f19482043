/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FS_SPACE_H
#define LEASEFS_FUSED_FS_SPACE_H

/*
 * Space that is not free yet, but will be without anybody's doing. Programs expect of a filesystem that what they
 * delete is free when unlink(2) or close(2) returns; here it is a little later:
 *   - Linux sends FORGET behind the end of a file's last use and does not wait for an answer. By io_uring it comes
 *     another way than the next request, which may overtake it;
 *   - a large file is given back by a thread that lets others serve requests meanwhile;
 *   - nor does it wait for an answer to RELEASE: the last close(2) of a file without a name may be under way;
 *   - blocks of leases that have ended are free after their fence.
 * So nobody is told that there is no space, or how much there is, before what was forgotten is given back; and who
 * needs space waits for the rest, parked (lease_space_wait()): for fences while they run, for a close for a moment.
 */

#include "fused/fs_private.h"

/* An operation that found no space tries again when some has come back:
 *
 *     struct space_mark mark = space_mark(fs);
 *     do
 *         result = operation();
 *     while (space_again(fs, &mark, waiter, &result));
 *
 * Instead of -ENOSPC or -EDQUOT the result may be -EINPROGRESS (parked), and stays when nothing is on its way. No lock
 * is held, but by the operation. */
struct space_mark {
    uint64_t comes, given;
    unsigned tries;
};

struct space_mark space_mark(struct fs *fs);
bool space_again(struct fs *fs, struct space_mark *mark, struct lease_waiter *waiter, int64_t *result);

/* Has any come back since the mark (which is set anew)? Waits for what was forgotten, and for nothing else. */
bool space_came(struct fs *fs, struct space_mark *mark);

void space_init(struct fs_space *space);
void space_destroy(struct fs_space *space);

/* Returns when what Linux has forgotten by now is given back. No lock is held. */
void space_settle(struct fs *fs);

/* A file has lost its last name or was made without one; it was given one or is gone. Locked, or known to nobody. */
void space_on_nameless(struct fs *fs, struct fs_inode *inode, bool nameless);

/* Around giving back the blocks of a file: large, if others may come in between. */
void space_giving(struct fs *fs, bool large);
void space_given(struct fs *fs, bool large);

#endif
