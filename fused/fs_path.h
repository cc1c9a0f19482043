/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FS_PATH_H
#define LEASEFS_FUSED_FS_PATH_H

/*
 * Paths, for those who come by the control socket: no kernel has resolved theirs or checked what they may do.
 * Absolute inside the filesystem; symbolic links and ".." stay inside it, and of confined clients inside their exports
 * (-EACCES).
 */

#include "fused/fs_private.h"
#include "lease/layout_ops.h"

enum { PATH_MAY_READ = 4, PATH_MAY_WRITE = 2, PATH_MAY_SEARCH = 1 };

/* By the ACL or the mode bits; uid 0 may everything. 0 or -EACCES. -EPERM: written to is what is immutable
 * or append-only. Takes the inode's lock. */
int path_permission(struct fs_inode *inode, const struct lease_credentials *who, unsigned may);

/* The inode (referenced) that the path leads to, the last symbolic link followed.
 * -EINVAL (not absolute), -ENOENT, -ENOTDIR, -EACCES, -ELOOP, -ENAMETOOLONG, -ENOMEM. */
int path_walk(struct fs *fs, const char *path, const struct lease_credentials *who, struct fs_inode **ret_inode);

/* The same, of something that is to be changed. -EROFS: the export is read-only. */
int path_walk_to_change(struct fs *fs, const char *path, const struct lease_credentials *who,
                        struct fs_inode **ret_inode);

/* The directory (referenced) and the last name, not looked up, for who makes or replaces it. -EISDIR: the path ends in
 * "/", "." or "..". -EROFS: the export is read-only. */
int path_walk_parent(struct fs *fs, const char *path, const struct lease_credentials *who, struct fs_inode **ret_dir,
                     char ret_name[FS_NAME_MAX + 1]);

/* May `who` make this name, or replace the file that has it? Write permission, and the sticky bit. -EISDIR: it is a
 * directory. */
int path_may_replace(struct fs *fs, struct fs_inode *dir, const char *name, const struct lease_credentials *who);

#endif
