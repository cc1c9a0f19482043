/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fused/fuse_private.h"

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat attr;
    int err = fs_getattr(fs_of(req), ino, &attr);

    (void)fi;
    if (err)
        fuse_reply_err(req, -err);
    else
        fuse_reply_attr(req, &attr, server_of(req)->cache_seconds);
}

void cache_file(fuse_req_t req, struct fuse_file_info *fi, bool direct)
{
    direct = direct || server_of(req)->config.cache == FUSE_CACHE_NONE ||
             ((fi->flags & O_DIRECT) && server_of(req)->direct_handles);
    fi->fh = (uint64_t)fi->flags;
    fi->direct_io = direct;
    fi->keep_cache = !direct;
    fuse_wire_parallel_writes();
}

/* The kernel's pages stay valid from open to open: whoever changes bytes behind its back tells it (fuse_notify.h).
 * Under a write lease that happens only at commit, so who opens then reads past the cache. */
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    bool direct;
    int err = fs_open(fs_of(req), ino, fi->flags, &direct);

    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    cache_file(req, fi, direct);
    if (fuse_reply_open(req, fi))
        fs_close(fs_of(req), ino, (int)fi->fh);
}

/* Linux has written the file's pages by now: it does so when a mapping ends and when a descriptor is closed. */
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_close(fs_of(req), ino, (int)fi->fh);
    fuse_reply_err(req, 0);
}

/* The reply goes straight from the pool, under the file's lock: the kernel copies it and waits for nobody. */
static int emit_reply(void *arg, const struct iovec *iov, int count, size_t bytes)
{
    fuse_req_t req = arg;

    if (bytes == 0)
        fuse_reply_buf(req, NULL, 0);
    else
        fuse_reply_iov(req, iov, count);
    return 0;
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    int err = fs_read(fs_of(req), ino, (uint64_t)off, size, !(fi->flags & O_NOATIME), emit_reply, req);

    if (err)
        fuse_reply_err(req, -err);
}

/* A pool in memory has nothing to write: what a write acknowledged is there for as long as the pool is. */
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    (void)datasync;
    (void)fi;
    fuse_reply_err(req, 0);
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    int64_t result = off < 0 ? -ENXIO : fs_seek(fs_of(req), ino, (uint64_t)off, whence);

    (void)fi;
    /* Linux does not write its dirty pages before it asks, so they would be holes. Not asked again, it takes all for
     * data. */
    if (server_of(req)->config.writeback)
        result = -ENOSYS;
    if (result < 0)
        fuse_reply_err(req, (int)-result);
    else
        fuse_reply_lseek(req, result);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct statvfs stat;
    int err = fs_statfs(fs_of(req), &stat);

    (void)ino;
    if (err)
        fuse_reply_err(req, -err);
    else
        fuse_reply_statfs(req, &stat);
}

/* ---- extended attributes ---- */

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
    if (fuse_wire_kill_sgid())
        flags |= FS_XATTR_KILL_SGID;
    reply_result(req, fs_setxattr(fs_of(req), ino, name, value, size, flags));
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    reply_result(req, fs_removexattr(fs_of(req), ino, name));
}

static void reply_xattr(fuse_req_t req, int64_t result, const char *buffer, size_t size)
{
    if (result < 0)
        fuse_reply_err(req, (int)-result);
    else if (size == 0)
        fuse_reply_xattr(req, (size_t)result);
    else
        fuse_reply_buf(req, buffer, (size_t)result);
}

static void answer_xattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    char *buffer = size ? malloc(size) : NULL;
    int64_t result;

    if (size && !buffer) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    result = name ? fs_getxattr(fs_of(req), ino, name, buffer, size)
                  : fs_listxattr(fs_of(req), ino, fuse_req_ctx(req)->uid == 0, buffer, size);
    reply_xattr(req, result, buffer, size);
    free(buffer);
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    answer_xattr(req, ino, name, size);
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    answer_xattr(req, ino, NULL, size);
}
