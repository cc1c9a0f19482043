/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FS_ACL_H
#define LEASEFS_FUSED_FS_ACL_H

/*
 * POSIX access control lists, acl(5), in the form in which they travel and are stored: the value of an extended
 * attribute. Pure functions of such a value. All but acl_check() want one that acl_check() has passed.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define ACL_ACCESS_XATTR  "system.posix_acl_access"
#define ACL_DEFAULT_XATTR "system.posix_acl_default"

int acl_check(const void *value, size_t size); /* 0, -EINVAL, -EOPNOTSUPP (another version) */

bool acl_is_plain(size_t size); /* says no more than mode bits can */

/* The permission bits that a file with this list shows; the rest of `mode` stays. */
mode_t acl_to_mode(const void *value, size_t size, mode_t mode);

/* chmod: the list follows the mode. */
void acl_follow_mode(void *value, size_t size, mode_t mode);

/* A directory's default list becomes the list of a new file that is made with `mode`. Returns the file's mode. */
mode_t acl_inherit(void *value, size_t size, mode_t mode);

/* What it grants, as in the lowest three bits of a mode, to a user who is in the groups for which in_group() holds. */
struct acl_who {
    uid_t uid;
    bool (*in_group)(const void *arg, gid_t gid);
    const void *arg;
};
unsigned acl_granted(const void *value, size_t size, uid_t owner, gid_t group, const struct acl_who *who,
                     unsigned wanted);

#endif
