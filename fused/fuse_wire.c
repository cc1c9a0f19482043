/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/fuse_wire.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fused/fuse_private.h"

/* Numbers of the protocol that Debian 12's headers are too old to name. */
enum { OPCODE_TMPFILE = 51, OPCODE_STATX = 52 };

#define INIT_DONT_MASK            (UINT64_C(1) << 6)
#define INIT_PARALLEL_DIROPS      (UINT64_C(1) << 18)
#define INIT_POSIX_ACL            (UINT64_C(1) << 20)
#define INIT_HANDLE_KILLPRIV_V2   (UINT64_C(1) << 28)
#define INIT_SETXATTR_EXT         (UINT64_C(1) << 29)
#define INIT_EXT                  (UINT64_C(1) << 30)
#define INIT_DIRECT_IO_ALLOW_MMAP (UINT64_C(1) << 36)
#define INIT_OVER_IO_URING        (UINT64_C(1) << 41)
#define WRITE_KILL_SUIDGID        (1u << 2)
#define SETATTR_KILL_SUIDGID      (1u << 11)
#define SETXATTR_KILL_SGID        (1u << 0)
#define OPEN_PARALLEL_WRITES      (1u << 6)
#define SX_BASIC_STATS            0x7ffu
#define SX_BTIME                  0x800u

#define WANTED                                                                                                         \
    (INIT_DONT_MASK | INIT_PARALLEL_DIROPS | INIT_POSIX_ACL | INIT_HANDLE_KILLPRIV_V2 | INIT_SETXATTR_EXT |            \
     INIT_DIRECT_IO_ALLOW_MMAP)

struct setxattr_ext {
    uint32_t size, flags, setxattr_flags, padding;
};

struct sx_time {
    int64_t sec;
    uint32_t nsec;
    int32_t reserved;
};

struct sx {
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, spare0;
    uint64_t ino, size, blocks, attributes_mask;
    struct sx_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t spare2[14];
};

struct statx_reply {
    struct fuse_out_header header;
    uint64_t attr_valid;
    uint32_t attr_valid_nsec, flags;
    uint64_t spare[2];
    struct sx stat;
};
static_assert(sizeof(struct sx) == 256, "struct fuse_statx of the protocol");
static_assert(sizeof(struct statx_reply) == FUSE_WIRE_STATX_BYTES, "header and struct fuse_statx_out");

/* Of the request that this thread read last. */
static _Thread_local struct {
    bool knows_kill_priv, kill_priv, kill_sgid, parallel_writes;
} current;

bool fuse_wire_kill_priv(bool otherwise)
{
    return current.knows_kill_priv ? current.kill_priv : otherwise;
}

bool fuse_wire_kill_sgid(void)
{
    return current.kill_sgid;
}

void fuse_wire_parallel_writes(void)
{
    current.parallel_writes = true;
}

/* Linux 6.19 does, and so do late versions of 6.18, the only earlier one that was looked at. */
static bool drops_pages_after_direct_write(const char *release)
{
    unsigned major, minor, patch = 0;

    if (sscanf(release, "%u.%u.%u", &major, &minor, &patch) < 2)
        return false;
    if (major != 6)
        return major > 6;
    return minor > 18 || (minor == 18 && patch >= 10);
}

bool fuse_wire_direct_handles(const struct fuse_wire *wire, const char *release)
{
    return (atomic_load(&wire->offered) & INIT_DIRECT_IO_ALLOW_MMAP) && drops_pages_after_direct_write(release);
}

/* ---- requests ---- */

static void note_init(struct fuse_wire *wire, const struct fuse_in_header *header, const struct fuse_init_in *init,
                      size_t size)
{
    uint64_t flags = size >= 16 ? init->flags : 0;

    if ((flags & INIT_EXT) && size >= 20)
        flags |= (uint64_t)init->flags2 << 32;
    atomic_store(&wire->offered, flags);
    atomic_store(&wire->init_unique, header->unique);
}

static void note_kill_priv(struct fuse_wire *wire, bool kill)
{
    current.knows_kill_priv = atomic_load(&wire->offered) & INIT_HANDLE_KILLPRIV_V2;
    current.kill_priv = kill;
}

/* Linux puts the name "/" there itself; whatever it is, it must be one that no CREATE can have. */
static void note_tmpfile(struct fuse_in_header *header, size_t size)
{
    char *name = (char *)(header + 1) + sizeof(struct fuse_create_in);

    if (size < sizeof(struct fuse_create_in) + sizeof(FUSE_WIRE_TMPFILE_NAME))
        return;
    memcpy(name, FUSE_WIRE_TMPFILE_NAME, sizeof(FUSE_WIRE_TMPFILE_NAME));
    header->opcode = FUSE_CREATE;
}

/* libfuse, asked by nobody for the longer form, expects the shorter one. */
static void note_setxattr(struct fuse_wire *wire, struct fuse_in_header *header, size_t size)
{
    struct setxattr_ext *in = (void *)(header + 1);

    if (!(atomic_load(&wire->offered) & INIT_SETXATTR_EXT) || size < sizeof(*in))
        return;
    current.kill_sgid = in->setxattr_flags & SETXATTR_KILL_SGID;
    memmove(&in->setxattr_flags, in + 1, size - sizeof(*in));
    header->len -= (uint32_t)(sizeof(*in) - offsetof(struct setxattr_ext, setxattr_flags));
}

bool fuse_wire_request(struct fuse_wire *wire, void *request, size_t size)
{
    struct fuse_in_header *header = request;
    const void *body = header + 1;

    if (size < sizeof(*header))
        return false;
    size -= sizeof(*header);
    memset(&current, 0, sizeof(current));
    switch (header->opcode) {
    case FUSE_INIT:
        note_init(wire, header, body, size);
        return false;
    case FUSE_WRITE:
        if (size >= sizeof(struct fuse_write_in))
            note_kill_priv(wire, ((const struct fuse_write_in *)body)->write_flags & WRITE_KILL_SUIDGID);
        return false;
    case FUSE_SETATTR:
        if (size >= sizeof(struct fuse_setattr_in))
            note_kill_priv(wire, ((const struct fuse_setattr_in *)body)->valid & SETATTR_KILL_SUIDGID);
        return false;
    case FUSE_SETXATTR:
        note_setxattr(wire, header, size);
        return false;
    case OPCODE_TMPFILE:
        note_tmpfile(header, size);
        return false;
    case OPCODE_STATX:
        return true;
    default:
        return false;
    }
}

/* ---- replies ---- */

static void *second_part(const struct iovec *iov, int count, size_t smallest)
{
    return count >= 2 && iov[1].iov_len >= smallest ? iov[1].iov_base : NULL;
}

static void patch_init(uint64_t more, struct fuse_init_out *out)
{

    out->flags |= (uint32_t)more;
    if (out->flags & INIT_EXT)
        out->flags2 |= (uint32_t)(more >> 32);
}

/* The answer to OPEN is a struct fuse_open_out, that to CREATE ends with one. */
static void patch_open(const struct iovec *part)
{
    struct fuse_open_out *out = (void *)((char *)part->iov_base + part->iov_len - sizeof(*out));

    out->open_flags |= OPEN_PARALLEL_WRITES;
}

void fuse_wire_reply(struct fuse_wire *wire, const struct iovec *iov, int count)
{
    const struct fuse_out_header *header = iov[0].iov_base;
    bool parallel_writes = current.parallel_writes;

    if (header->unique == 0) /* a notification */
        return;
    current.parallel_writes = false;
    if (header->error)
        return;
    if (fuse_wire_is_init_reply(wire, iov, count)) {
        uint64_t wanted = WANTED | (wire->over_io_uring ? INIT_OVER_IO_URING : 0);

        patch_init(atomic_load(&wire->offered) & wanted, iov[1].iov_base);
    } else if (parallel_writes && second_part(iov, count, sizeof(struct fuse_open_out))) {
        patch_open(&iov[1]);
    }
}

bool fuse_wire_is_init_reply(const struct fuse_wire *wire, const struct iovec *iov, int count)
{
    const struct fuse_out_header *header = iov[0].iov_base;

    return header->unique != 0 && header->unique == atomic_load(&wire->init_unique) && !header->error &&
           second_part(iov, count, sizeof(struct fuse_init_out));
}

bool fuse_wire_offers_io_uring(const struct fuse_wire *wire)
{
    return atomic_load(&wire->offered) & INIT_OVER_IO_URING;
}

/* ---- STATX ---- */

static struct sx_time sx_time(struct timespec time)
{
    return (struct sx_time){.sec = time.tv_sec, .nsec = (uint32_t)time.tv_nsec};
}

static struct sx sx_of(const struct stat *attr, struct timespec birth)
{
    return (struct sx){
        .mask = SX_BASIC_STATS | SX_BTIME,
        .blksize = (uint32_t)attr->st_blksize,
        .nlink = (uint32_t)attr->st_nlink,
        .uid = attr->st_uid,
        .gid = attr->st_gid,
        .mode = (uint16_t)attr->st_mode,
        .ino = attr->st_ino,
        .size = (uint64_t)attr->st_size,
        .blocks = (uint64_t)attr->st_blocks,
        .atime = sx_time(attr->st_atim),
        .btime = sx_time(birth),
        .ctime = sx_time(attr->st_ctim),
        .mtime = sx_time(attr->st_mtim),
        .rdev_major = major(attr->st_rdev),
        .rdev_minor = minor(attr->st_rdev),
    };
}

size_t fuse_wire_statx(const struct fuse_wire *wire, struct fs *fs, const void *request, void *reply, size_t room)
{
    const struct fuse_in_header *header = request;
    struct statx_reply *out = reply;
    struct timespec birth;
    struct stat attr;

    if (room < sizeof(*out))
        return 0;
    memset(out, 0, sizeof(*out));
    out->header.unique = header->unique;
    out->header.error = fs_statx(fs, header->nodeid, &attr, &birth);
    out->header.len = out->header.error ? sizeof(out->header) : sizeof(*out);
    if (!out->header.error) {
        out->attr_valid = wire->cache_seconds;
        out->stat = sx_of(&attr, birth);
    }
    return out->header.len;
}
