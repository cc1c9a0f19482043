/* SPDX-License-Identifier: BSD-2-Clause */
/* What chattr(1) and lsattr(1) ask for: a leased file shows as immutable, whatever its own flags are. And what Linux
 * has no request for: clones, and some modes of fallocate. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>

#include "fused/clone_tokens.h"
#include "fused/fs_front_door.h"
#include "fused/fuse_private.h"

static const struct {
    uint32_t flag, xflag;
} names[] = {
    {FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE},
    {FS_APPEND_FL, FS_XFLAG_APPEND},
    {FS_NOATIME_FL, FS_XFLAG_NOATIME},
    {FS_NODUMP_FL, FS_XFLAG_NODUMP},
};

static uint32_t flags_to_xflags(uint32_t flags)
{
    uint32_t xflags = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (flags & names[i].flag)
            xflags |= names[i].xflag;
    }
    return xflags;
}

/* -EOPNOTSUPP: others than can be. */
static int xflags_to_flags(uint32_t xflags, uint32_t *ret_flags)
{
    uint32_t flags = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (xflags & names[i].xflag)
            flags |= names[i].flag;
    }
    if (flags_to_xflags(flags) != xflags)
        return -EOPNOTSUPP;
    *ret_flags = flags;
    return 0;
}

struct flags {
    uint32_t own;   /* the file's */
    uint32_t shown; /* with what a lease adds */
};

static int get(fuse_req_t req, fuse_ino_t ino, struct flags *ret_flags)
{
    bool leased;
    uint32_t own;
    int err = fs_get_flags(fs_of(req), ino, &own);

    if (!err)
        err = fs_leased(fs_of(req), ino, &leased);
    if (!err)
        *ret_flags = (struct flags){own, leased ? own | FS_IMMUTABLE_FL : own};
    return err;
}

/* Linux checks before it asks, from 5.13 on. */
static int check_caller(fuse_req_t req, fuse_ino_t ino, uint32_t changed)
{
    uid_t uid = fuse_req_ctx(req)->uid;
    struct stat attr;
    int err = fs_getattr(fs_of(req), ino, &attr);

    if (err || uid == 0)
        return err;
    return uid != attr.st_uid || (changed & (FS_IMMUTABLE_FL | FS_APPEND_FL)) ? -EPERM : 0;
}

static int set(fuse_req_t req, fuse_ino_t ino, const struct flags *flags, uint32_t wanted)
{
    uint32_t lease = flags->shown & ~flags->own;
    int err;

    if (lease & ~wanted)
        return -EBUSY; /* that one goes with the lease */
    wanted &= ~lease;
    err = check_caller(req, ino, wanted ^ flags->own);
    if (err || wanted == flags->own)
        return err;
    return fs_read_only(fs_of(req)) ? -EROFS : fs_set_flags(fs_of(req), ino, wanted);
}

static int set_flags(fuse_req_t req, fuse_ino_t ino, const struct flags *flags, const void *in, size_t size)
{
    uint32_t wanted;

    if (size < sizeof(wanted))
        return -EINVAL;
    memcpy(&wanted, in, sizeof(wanted));
    return set(req, ino, flags, wanted);
}

static int set_xattr(fuse_req_t req, fuse_ino_t ino, const struct flags *flags, const void *in, size_t size)
{
    struct fsxattr fsx;
    uint32_t wanted;
    int err;

    if (size < sizeof(fsx))
        return -EINVAL;
    memcpy(&fsx, in, sizeof(fsx));
    err = xflags_to_flags(fsx.fsx_xflags, &wanted);
    if (!err && (fsx.fsx_extsize || fsx.fsx_projid || fsx.fsx_cowextsize))
        err = -EOPNOTSUPP;
    return err ? err : set(req, ino, flags, wanted);
}

static void reply(fuse_req_t req, int err, const void *out, size_t size, size_t room)
{
    if (!err && room < size)
        err = -EINVAL;
    if (err)
        fuse_reply_err(req, -err);
    else
        fuse_reply_ioctl(req, 0, out, size);
}

/* ---- clones ---- */

static int regular_size(fuse_req_t req, uint64_t ino, uint64_t *ret_size)
{
    struct stat attr;
    int err = fs_getattr(fs_of(req), ino, &attr);

    if (err)
        return err;
    if (!S_ISREG(attr.st_mode))
        return S_ISDIR(attr.st_mode) ? -EISDIR : -EINVAL;
    *ret_size = (uint64_t)attr.st_size;
    return 0;
}

static void clone_token(fuse_req_t req, fuse_ino_t ino, int flags, size_t room)
{
    struct leasefs_clone_token token;
    uint64_t size;
    int err = regular_size(req, ino, &size);

    if (!err && (flags & O_ACCMODE) == O_WRONLY)
        err = -EBADF;
    if (!err)
        err = clone_token_issue(server_of(req)->clone_tokens, ino, fuse_req_ctx(req)->uid, fs_monotonic_ns(), &token);
    reply(req, err, &token, sizeof(token), room);
}

/* The rules of FICLONERANGE. *ret_length: what there is to be done. */
static int check_clone(const struct leasefs_clone_range *range, uint64_t size, uint64_t *ret_length)
{
    uint64_t whole = POOL_BLOCK_SIZE - 1, length = range->length;

    if ((range->source_offset | range->destination_offset) & whole || range->source_offset > size)
        return -EINVAL;
    if (length == 0)
        length = size - range->source_offset;
    if (length > size - range->source_offset)
        return -EINVAL;
    if ((length & whole) && range->source_offset + length != size)
        return -EINVAL;
    *ret_length = length;
    return 0;
}

static void clone_range(fuse_req_t req, fuse_ino_t ino, int flags, const void *in, size_t size)
{
    struct leasefs_clone_range range;
    uint64_t source, length, source_size, own_size;
    int err = regular_size(req, ino, &own_size);

    if (!err && ((flags & O_ACCMODE) == O_RDONLY || (flags & O_APPEND)))
        err = -EBADF;
    if (!err && fs_read_only(fs_of(req)))
        err = -EROFS;
    if (!err && size < sizeof(range))
        err = -EINVAL;
    if (!err) {
        memcpy(&range, in, sizeof(range));
        err = clone_token_take(server_of(req)->clone_tokens, &range.source, fs_monotonic_ns(), &source);
    }
    if (!err)
        err = regular_size(req, source, &source_size);
    if (!err)
        err = check_clone(&range, source_size, &length);
    /* With writeback Linux takes no notice of another size. */
    if (!err && server_of(req)->config.writeback && (length > own_size || range.destination_offset > own_size - length))
        err = -EOPNOTSUPP;
    if (err)
        fuse_reply_err(req, -err);
    else
        change_clone(req, source, range.source_offset, length, ino, range.destination_offset);
}

/* ---- fallocate ---- */

/* With writeback Linux would not believe another size. */
static int check_fallocate(fuse_req_t req, fuse_ino_t ino, int flags, const struct leasefs_falloc *range)
{
    uint64_t unused;
    int err;

    if ((flags & O_ACCMODE) == O_RDONLY)
        return -EBADF;
    if (range->reserved || range->offset > INT64_MAX || range->length > INT64_MAX || !range->length)
        return -EINVAL;
    switch (range->mode & ~FALLOC_FL_KEEP_SIZE) {
    case FALLOC_FL_COLLAPSE_RANGE:
    case FALLOC_FL_INSERT_RANGE:
    case FALLOC_FL_UNSHARE_RANGE:
        break;
    default:
        return -EOPNOTSUPP;
    }
    err = regular_size(req, ino, &unused);
    if (!err && server_of(req)->config.writeback)
        err = -EOPNOTSUPP;
    if (!err && fs_read_only(fs_of(req)))
        err = -EROFS;
    return err;
}

static void fallocate_range(fuse_req_t req, fuse_ino_t ino, int flags, const void *in, size_t size)
{
    struct leasefs_falloc range;
    int err = -EINVAL;

    if (size >= sizeof(range)) {
        memcpy(&range, in, sizeof(range));
        err = check_fallocate(req, ino, flags, &range);
    }
    if (err)
        fuse_reply_err(req, -err);
    else
        change_fallocate(req, ino, range.mode, range.offset, range.length);
}

/* ---- all ---- */

void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg, struct fuse_file_info *fi, unsigned flags,
              const void *in_buf, size_t in_bufsz, size_t out_bufsz)
{
    struct fsxattr fsx = {0};
    struct flags its;
    int err;

    (void)arg;
    (void)flags;
    if (cmd == LEASEFS_IOC_CLONE_TOKEN) {
        clone_token(req, ino, (int)fi->fh, out_bufsz);
        return;
    }
    if (cmd == LEASEFS_IOC_CLONE_RANGE) {
        clone_range(req, ino, (int)fi->fh, in_buf, in_bufsz);
        return;
    }
    if (cmd == LEASEFS_IOC_FALLOCATE) {
        fallocate_range(req, ino, (int)fi->fh, in_buf, in_bufsz);
        return;
    }
    err = get(req, ino, &its);
    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    /* By number: the argument of FS_IOC_GETFLAGS is declared a long and is an int. */
    switch (cmd) {
    case FS_IOC_GETFLAGS:
    case FS_IOC32_GETFLAGS:
        reply(req, 0, &its.shown, sizeof(its.shown), out_bufsz);
        break;
    case FS_IOC_FSGETXATTR:
        fsx.fsx_xflags = flags_to_xflags(its.shown);
        reply(req, 0, &fsx, sizeof(fsx), out_bufsz);
        break;
    case FS_IOC_SETFLAGS:
    case FS_IOC32_SETFLAGS:
        reply(req, set_flags(req, ino, &its, in_buf, in_bufsz), NULL, 0, out_bufsz);
        break;
    case FS_IOC_FSSETXATTR:
        reply(req, set_xattr(req, ino, &its, in_buf, in_bufsz), NULL, 0, out_bufsz);
        break;
    default:
        fuse_reply_err(req, ENOTTY);
        break;
    }
}
