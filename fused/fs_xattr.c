/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extended attributes: a list per inode, in the namespaces user, trusted and security (whose own rules the kernel
 * enforces), and POSIX ACLs, which are kept as the attributes that they are set by. user.leasefs.* are computed, cannot
 * be set but for the policy, and are left out of lists, so that copying programs do not try to set them elsewhere.
 */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "fused/fs_acl.h"
#include "fused/fs_front_door.h"
#include "fused/fs_private.h"

#define XATTR_CAPABILITY  "security.capability"
#define XATTR_VIRTUAL     "user.leasefs."
#define XATTR_INODE_BYTES (128u * 1024) /* names and values of one inode; the pool does not pay for them */

struct fs_xattr {
    struct fs_xattr *next;
    size_t value_size;
    char *value;
    char name[];
};

static bool has_prefix(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_acl(const char *name)
{
    return strcmp(name, ACL_ACCESS_XATTR) == 0 || strcmp(name, ACL_DEFAULT_XATTR) == 0;
}

static int check_name(const char *name)
{
    size_t length = strnlen(name, XATTR_NAME_MAX + 1);

    if (length > XATTR_NAME_MAX)
        return -ERANGE;
    if (!has_prefix(name, "user.") && !has_prefix(name, "trusted.") && !has_prefix(name, "security.") && !is_acl(name))
        return -EOPNOTSUPP;
    return 0;
}

static size_t cost(const struct fs_xattr *xattr)
{
    return strlen(xattr->name) + 1 + xattr->value_size;
}

static void xattr_free(struct fs_xattr *xattr)
{
    if (!xattr)
        return;
    free(xattr->value);
    free(xattr);
}

static struct fs_xattr **find(struct fs_inode *inode, const char *name)
{
    struct fs_xattr **p = &inode->xattrs;

    while (*p && strcmp((*p)->name, name) != 0)
        p = &(*p)->next;
    return p;
}

static const struct fs_xattr *find_acl(const struct fs_inode *inode, const char *name)
{
    return inode->has_acl ? *find((struct fs_inode *)inode, name) : NULL;
}

static void unlink_xattr(struct fs_inode *inode, struct fs_xattr **p)
{
    struct fs_xattr *xattr = *p;

    *p = xattr->next;
    inode->xattr_bytes -= cost(xattr);
    if (strcmp(xattr->name, XATTR_CAPABILITY) == 0)
        inode->has_capability = false;
    xattr_free(xattr);
}

void xattr_free_all(struct fs_inode *inode)
{
    while (inode->xattrs)
        unlink_xattr(inode, &inode->xattrs);
}

void xattr_kill_capability(struct fs_inode *inode)
{
    if (inode->has_capability)
        unlink_xattr(inode, find(inode, XATTR_CAPABILITY));
}

static int xattr_new(const char *name, const void *value, size_t size, struct fs_xattr **ret_xattr)
{
    size_t name_size = strlen(name) + 1;
    struct fs_xattr *xattr = calloc(1, sizeof(*xattr) + name_size);

    if (!xattr)
        return -ENOMEM;
    xattr->value = malloc(size ? size : 1);
    if (!xattr->value) {
        free(xattr);
        return -ENOMEM;
    }
    memcpy(xattr->name, name, name_size);
    if (size)
        memcpy(xattr->value, value, size);
    xattr->value_size = size;
    *ret_xattr = xattr;
    return 0;
}

static void link_xattr(struct fs_inode *inode, struct fs_xattr *xattr)
{
    xattr->next = inode->xattrs;
    inode->xattrs = xattr;
    inode->xattr_bytes += cost(xattr);
    if (strcmp(xattr->name, XATTR_CAPABILITY) == 0)
        inode->has_capability = true;
    if (is_acl(xattr->name))
        inode->has_acl = true;
}

/* ---- access control lists ---- */

const void *xattr_access_acl(const struct fs_inode *inode, size_t *ret_size)
{
    const struct fs_xattr *xattr = find_acl(inode, ACL_ACCESS_XATTR);

    if (!xattr)
        return NULL;
    *ret_size = xattr->value_size;
    return xattr->value;
}

void acl_after_chmod(struct fs_inode *inode)
{
    const struct fs_xattr *xattr = find_acl(inode, ACL_ACCESS_XATTR);

    if (xattr)
        acl_follow_mode(xattr->value, xattr->value_size, inode->mode);
}

int acl_to_new_inode(const struct fs_inode *dir, struct fs_inode *inode, mode_t umask)
{
    const struct fs_xattr *from = find_acl(dir, ACL_DEFAULT_XATTR);
    struct fs_xattr *xattr;
    int err;

    if (!from) {
        inode->mode &= ~umask;
        return 0;
    }
    err = xattr_new(ACL_ACCESS_XATTR, from->value, from->value_size, &xattr);
    if (err)
        return err;
    inode->mode = acl_inherit(xattr->value, xattr->value_size, inode->mode);
    if (acl_is_plain(xattr->value_size))
        xattr_free(xattr);
    else
        link_xattr(inode, xattr);
    if (inode->type != S_IFDIR)
        return 0;
    err = xattr_new(ACL_DEFAULT_XATTR, from->value, from->value_size, &xattr);
    if (!err)
        link_xattr(inode, xattr);
    return err;
}

static int check_acl(const struct fs_inode *inode, const struct fs_xattr *acl)
{
    if (inode->type == S_IFLNK)
        return -EOPNOTSUPP;
    if (strcmp(acl->name, ACL_DEFAULT_XATTR) == 0 && inode->type != S_IFDIR)
        return -EACCES;
    return acl_check(acl->value, acl->value_size);
}

/* The mode shows an access list, and is all there is to keep of one that says no more. true: keep the list, too. */
static bool apply_acl(struct fs_inode *inode, const struct fs_xattr *acl, int flags)
{
    if (strcmp(acl->name, ACL_DEFAULT_XATTR) == 0)
        return true;
    inode->mode = acl_to_mode(acl->value, acl->value_size, inode->mode);
    if (flags & FS_XATTR_KILL_SGID)
        inode->mode &= ~(mode_t)S_ISGID;
    return !acl_is_plain(acl->value_size);
}

/* ---- the computed ones ---- */

static json_t *lease_to_json(const struct lease_info *info)
{
    uint64_t now_ns = fs_monotonic_ns();
    uint64_t expires_in_ns = info->expires_at_ns > now_ns ? info->expires_at_ns - now_ns : 0;

    return json_pack("{s:I, s:I, s:s, s:s, s:I, s:I, s:I}", "lease", (json_int_t)info->lease_id, "session",
                     (json_int_t)info->session_id, "mode", lease_mode_name(info->mode), "state",
                     lease_state_name(info->state), "offset", (json_int_t)info->range.offset, "length",
                     (json_int_t)info->range.length, "expires_in_ms", (json_int_t)(expires_in_ns / 1000000));
}

/* How many leases are shown: as many as fit into an attribute's 64 KiB. */
#define SHOWN_LEASES 256u

static int leases_as_json(struct fs *fs, uint64_t ino, char **ret_text)
{
    struct lease_info *infos;
    json_t *array;
    size_t n = 0;

    infos = calloc(SHOWN_LEASES, sizeof(*infos));
    array = json_array();
    if (infos && fs->leases)
        n = lease_list(fs->leases, ino, infos, SHOWN_LEASES);
    for (size_t i = 0; array && i < n && i < SHOWN_LEASES; i++)
        json_array_append_new(array, lease_to_json(&infos[i]));
    *ret_text = array && infos ? json_dumps(array, JSON_COMPACT) : NULL;
    json_decref(array);
    free(infos);
    return *ret_text ? 0 : -ENOMEM;
}

static int policy_text(struct fs_inode *inode, char **ret_text)
{
    const char *name;

    inode_lock_shared(inode);
    name = lease_policy_name(inode->lease_policy);
    inode_unlock(inode);
    if (!name)
        return -ENODATA;
    *ret_text = strdup(name);
    return *ret_text ? 0 : -ENOMEM;
}

/* policy 0: the attribute is removed. */
static int set_policy(struct fs *fs, uint64_t ino, enum lease_policy policy)
{
    struct fs_inode *inode = inode_get(fs, ino);
    int err = 0;

    if (!inode)
        return -ESTALE;
    inode_lock(inode);
    if (inode_kept(inode))
        err = -EPERM;
    else if (!policy && !inode->lease_policy)
        err = -ENODATA;
    if (!err) {
        inode->lease_policy = policy;
        inode->ctime = fs_now();
    }
    inode_unlock(inode);
    inode_put(fs, inode);
    return err;
}

static int virtual_text(struct fs *fs, struct fs_inode *inode, const char *name, char **ret_text)
{
    if (strcmp(name, FS_XATTR_PATH) == 0)
        return fs_inode_path(fs, inode, ret_text) ? -ENODATA : 0;
    if (strcmp(name, FS_XATTR_LEASES) == 0 && inode->type == S_IFREG)
        return leases_as_json(fs, inode->ino, ret_text);
    if (strcmp(name, FS_XATTR_POLICY) == 0)
        return policy_text(inode, ret_text);
    if (strcmp(name, FS_XATTR_CONTROL) == 0 && fs->control_path) {
        *ret_text = strdup(fs->control_path);
        return *ret_text ? 0 : -ENOMEM;
    }
    return -ENODATA;
}

static int64_t copy_out(const void *from, size_t length, void *to, size_t size)
{
    if (size == 0)
        return (int64_t)length;
    if (length > size)
        return -ERANGE;
    if (length)
        memcpy(to, from, length);
    return (int64_t)length;
}

static int64_t get_virtual(struct fs *fs, struct fs_inode *inode, const char *name, void *value, size_t size)
{
    char *text;
    int64_t result = virtual_text(fs, inode, name, &text);

    if (result)
        return result;
    result = copy_out(text, strlen(text), value, size);
    free(text);
    return result;
}

/* ---- operations ---- */

int64_t fs_getxattr(struct fs *fs, uint64_t ino, const char *name, void *value, size_t size)
{
    struct fs_inode *inode;
    struct fs_xattr *xattr;
    int64_t result = check_name(name);

    if (result)
        return result;
    inode = inode_get(fs, ino);
    if (!inode)
        return -ESTALE;
    if (has_prefix(name, XATTR_VIRTUAL)) {
        result = get_virtual(fs, inode, name, value, size);
    } else {
        inode_lock_shared(inode);
        xattr = *find(inode, name);
        result = xattr ? copy_out(xattr->value, xattr->value_size, value, size) : -ENODATA;
        inode_unlock(inode);
    }
    inode_put(fs, inode);
    return result;
}

static int64_t list_locked(const struct fs_inode *inode, bool trusted, char *list, size_t size)
{
    size_t length = 0;

    for (const struct fs_xattr *xattr = inode->xattrs; xattr; xattr = xattr->next) {
        size_t n = strlen(xattr->name) + 1;

        if (!trusted && has_prefix(xattr->name, "trusted."))
            continue;
        if (size) {
            if (length + n > size)
                return -ERANGE;
            memcpy(list + length, xattr->name, n);
        }
        length += n;
    }
    return (int64_t)length;
}

int64_t fs_listxattr(struct fs *fs, uint64_t ino, bool trusted, char *list, size_t size)
{
    struct fs_inode *inode = inode_get(fs, ino);
    int64_t result;

    if (!inode)
        return -ESTALE;
    inode_lock_shared(inode);
    result = list_locked(inode, trusted, list, size);
    inode_unlock(inode);
    inode_put(fs, inode);
    return result;
}

/* On success the attribute is the inode's. */
static int set_locked(struct fs_inode *inode, struct fs_xattr *xattr, int flags)
{
    struct fs_xattr **p = find(inode, xattr->name);
    size_t old_cost = *p ? cost(*p) : 0;

    if (inode_kept(inode))
        return -EPERM;
    if (*p && (flags & XATTR_CREATE))
        return -EEXIST;
    if (!*p && (flags & XATTR_REPLACE))
        return -ENODATA;
    if (inode->xattr_bytes - old_cost + cost(xattr) > XATTR_INODE_BYTES)
        return -ENOSPC;
    if (is_acl(xattr->name)) {
        int err = check_acl(inode, xattr);

        if (err)
            return err;
    }
    if (*p)
        unlink_xattr(inode, p);
    if (!is_acl(xattr->name) || apply_acl(inode, xattr, flags))
        link_xattr(inode, xattr);
    else
        xattr_free(xattr);
    inode->ctime = fs_now();
    return 0;
}

int fs_setxattr(struct fs *fs, uint64_t ino, const char *name, const void *value, size_t size, int flags)
{
    struct fs_xattr *xattr;
    struct fs_inode *inode;
    int err = check_name(name);

    if (err)
        return err;
    if (strcmp(name, FS_XATTR_POLICY) == 0)
        return lease_policy_named(value, size) ? set_policy(fs, ino, lease_policy_named(value, size)) : -EINVAL;
    if (has_prefix(name, XATTR_VIRTUAL))
        return -EPERM;
    if (size > XATTR_SIZE_MAX)
        return -E2BIG;
    err = xattr_new(name, value, size, &xattr);
    if (err)
        return err;
    inode = inode_get(fs, ino);
    if (!inode) {
        xattr_free(xattr);
        return -ESTALE;
    }
    inode_lock(inode);
    err = set_locked(inode, xattr, flags);
    inode_unlock(inode);
    inode_put(fs, inode);
    if (err)
        xattr_free(xattr);
    return err;
}

int fs_removexattr(struct fs *fs, uint64_t ino, const char *name)
{
    struct fs_inode *inode;
    struct fs_xattr **p;
    int err = check_name(name);

    if (err)
        return err;
    if (strcmp(name, FS_XATTR_POLICY) == 0)
        return set_policy(fs, ino, 0);
    if (has_prefix(name, XATTR_VIRTUAL))
        return -EPERM;
    inode = inode_get(fs, ino);
    if (!inode)
        return -ESTALE;
    inode_lock(inode);
    p = find(inode, name);
    if (inode_kept(inode)) {
        err = -EPERM;
    } else if (*p) {
        unlink_xattr(inode, p);
        inode->ctime = fs_now();
    } else {
        err = is_acl(name) ? 0 : -ENODATA; /* no list: that is what was asked for */
    }
    inode_unlock(inode);
    inode_put(fs, inode);
    return err;
}
