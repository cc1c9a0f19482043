/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extended attributes: a list per inode, in the namespaces user, trusted and security (whose own rules the kernel
 * enforces). system.* is refused: there are no ACLs. user.leasefs.* are computed, cannot be set, and are left out of
 * lists, so that copying programs do not try to set them elsewhere.
 */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

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

static int check_name(const char *name)
{
    size_t length = strnlen(name, XATTR_NAME_MAX + 1);

    if (length > XATTR_NAME_MAX)
        return -ERANGE;
    if (!has_prefix(name, "user.") && !has_prefix(name, "trusted.") && !has_prefix(name, "security."))
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

static int virtual_text(struct fs *fs, struct fs_inode *inode, const char *name, char **ret_text)
{
    if (strcmp(name, FS_XATTR_PATH) == 0)
        return fs_inode_path(fs, inode, ret_text) ? -ENODATA : 0;
    if (strcmp(name, FS_XATTR_LEASES) == 0 && inode->type == S_IFREG)
        return leases_as_json(fs, inode->ino, ret_text);
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

static int64_t list_locked(const struct fs_inode *inode, char *list, size_t size)
{
    size_t length = 0;

    for (const struct fs_xattr *xattr = inode->xattrs; xattr; xattr = xattr->next) {
        size_t n = strlen(xattr->name) + 1;

        if (size) {
            if (length + n > size)
                return -ERANGE;
            memcpy(list + length, xattr->name, n);
        }
        length += n;
    }
    return (int64_t)length;
}

int64_t fs_listxattr(struct fs *fs, uint64_t ino, char *list, size_t size)
{
    struct fs_inode *inode = inode_get(fs, ino);
    int64_t result;

    if (!inode)
        return -ESTALE;
    inode_lock_shared(inode);
    result = list_locked(inode, list, size);
    inode_unlock(inode);
    inode_put(fs, inode);
    return result;
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

static int set_locked(struct fs_inode *inode, struct fs_xattr *xattr, int flags)
{
    struct fs_xattr **p = find(inode, xattr->name);
    size_t old_cost = *p ? cost(*p) : 0;

    if (*p && (flags & XATTR_CREATE))
        return -EEXIST;
    if (!*p && (flags & XATTR_REPLACE))
        return -ENODATA;
    if (inode->xattr_bytes - old_cost + cost(xattr) > XATTR_INODE_BYTES)
        return -ENOSPC;
    if (*p)
        unlink_xattr(inode, p);
    xattr->next = *p;
    *p = xattr;
    inode->xattr_bytes += cost(xattr);
    if (strcmp(xattr->name, XATTR_CAPABILITY) == 0)
        inode->has_capability = true;
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
    if (has_prefix(name, XATTR_VIRTUAL))
        return -EPERM;
    inode = inode_get(fs, ino);
    if (!inode)
        return -ESTALE;
    inode_lock(inode);
    p = find(inode, name);
    if (*p) {
        unlink_xattr(inode, p);
        inode->ctime = fs_now();
    } else {
        err = -ENODATA;
    }
    inode_unlock(inode);
    inode_put(fs, inode);
    return err;
}
