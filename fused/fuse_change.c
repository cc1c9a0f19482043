/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests that change a file's layout or bytes, and so may have to wait for a lease. Each is a struct change: its
 * arguments, how to run it and how to answer. Names and bytes are libfuse's own, good until the request's function
 * returns; they are copied only if the request has to wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "fused/caller.h"
#include "fused/fuse_private.h"

#define KEPT_MOST (64u << 20) /* bytes of writes that wait; then each keeps the rest of a page */

struct change {
    struct parked parked;
    fuse_req_t req;
    int64_t (*run)(struct change *change, struct lease_waiter *waiter);
    void (*reply)(struct change *change, int64_t result);

    /* Arguments; each operation uses some. */
    uint64_t ino, other_ino;
    uint64_t offset, other_offset, length; /* a clone's move on with what is done */
    const char *name, *other_name;
    const void *bytes; /* `length` of them */
    char *kept;        /* own copies of name, other_name and bytes; once parked */
    struct stat attr;
    unsigned flags;
    int mode;
    enum fs_kill kill;
    bool nonblock; /* the caller would rather have EAGAIN */
    bool whole;    /* Linux writes a page of its cache back, and would take a short write for all of it */
    bool fleeting; /* of attr */
};

static struct change *change_of(struct parked *parked)
{
    return (struct change *)((char *)parked - offsetof(struct change, parked));
}

static int64_t parked_run(struct parked *parked)
{
    struct change *change = change_of(parked);

    return change->run(change, change->nonblock ? NULL : &parked->waiter);
}

/* libfuse holds the request's lock, so answering here would deadlock: only enqueues. */
static void interrupted(fuse_req_t req, void *data)
{
    struct change *change = data;

    (void)req;
    park_interrupt(&change->parked);
}

/* How many bytes of a write are kept while it waits. Anybody may start many, and has them all in his own memory; so
 * that they do not take ours, a write becomes a short one. */
static size_t bytes_to_keep(struct change *change)
{
    _Atomic size_t *kept = &server_of(change->req)->kept_bytes;
    size_t all = change->bytes ? change->length : 0, few = POOL_BLOCK_SIZE - change->offset % POOL_BLOCK_SIZE;

    if (atomic_fetch_add(kept, all) + all > KEPT_MOST && all > few && !change->whole) {
        atomic_fetch_sub(kept, all - few);
        change->length = few;
        return few;
    }
    return all;
}

/* The request's buffer is about to be reused. */
static int parked_keep(struct parked *parked)
{
    struct change *change = change_of(parked);
    size_t name_size = change->name ? strlen(change->name) + 1 : 0;
    size_t other_name_size = change->other_name ? strlen(change->other_name) + 1 : 0;
    size_t n_bytes = bytes_to_keep(change);
    char *at = malloc(name_size + other_name_size + n_bytes + 1);

    if (!at) {
        atomic_fetch_sub(&server_of(change->req)->kept_bytes, n_bytes);
        return -ENOMEM;
    }
    change->kept = at;
    if (change->name) {
        memcpy(at, change->name, name_size);
        change->name = at;
        at += name_size;
    }
    if (change->other_name) {
        memcpy(at, change->other_name, other_name_size);
        change->other_name = at;
        at += other_name_size;
    }
    if (change->bytes) {
        memcpy(at, change->bytes, n_bytes);
        change->bytes = at;
    }
    fuse_req_interrupt_func(change->req, interrupted, change);
    if (server_of(change->req)->ring && caller_is_interrupted(fuse_req_ctx(change->req)->pid))
        interrupted(change->req, change);
    return 0;
}

static void parked_finish(struct parked *parked, int64_t result)
{
    struct change *change = change_of(parked);

    /* From here on no interrupt callback runs, nor will it: libfuse calls it under the lock that this takes. */
    if (change->kept) {
        fuse_req_interrupt_func(change->req, NULL, NULL);
        if (change->bytes)
            atomic_fetch_sub(&server_of(change->req)->kept_bytes, change->length);
    }
    change->reply(change, result);
    free(change->kept);
    free(change);
}

static const struct parked_ops change_parked_ops = {
    .run = parked_run,
    .keep = parked_keep,
    .finish = parked_finish,
};

static void change_start(fuse_req_t req, const struct change *arguments)
{
    struct change *change = malloc(sizeof(*change));

    if (!change) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    *change = *arguments;
    change->req = req;
    change->parked.waiter.process = -fuse_req_ctx(req)->pid; /* a thread's; 0: the kernel's own writeback */
    park_init(server_of(req)->park, &change->parked, &change_parked_ops);
    park_begin(&change->parked);
}

static void reply_plain(struct change *change, int64_t result)
{
    reply_result(change->req, result);
}

static void reply_count(struct change *change, int64_t result)
{
    if (result < 0)
        fuse_reply_err(change->req, (int)-result);
    else
        fuse_reply_write(change->req, (size_t)result);
}

static bool must_kill_priv(fuse_req_t req)
{
    return fuse_wire_kill_priv(fuse_req_ctx(req)->uid != 0);
}

/* Of the group itself, or by /proc. What cannot be found out is no. */
static bool is_member(fuse_req_t req, gid_t group)
{
    bool found = fuse_req_ctx(req)->gid == group;
    int n = found ? 0 : fuse_req_getgroups(req, 0, NULL);
    gid_t *groups = n > 0 ? calloc((size_t)n, sizeof(*groups)) : NULL;

    if (groups && fuse_req_getgroups(req, n, groups) == n)
        for (int i = 0; i < n && !found; i++)
            found = groups[i] == group;
    free(groups);
    return found;
}

static bool must_kill_sgid(fuse_req_t req, fuse_ino_t ino)
{
    gid_t group;

    return fs_has_idle_sgid(fs_of(req), ino, &group) && !is_member(req, group);
}

static enum fs_kill what_to_kill(fuse_req_t req, fuse_ino_t ino)
{
    if (!must_kill_priv(req))
        return FS_KILL_CAPABILITY;
    return must_kill_sgid(req, ino) ? FS_KILL_SGID : FS_KILL_SUID;
}

/* ---- setattr ---- */

static int64_t run_setattr(struct change *c, struct lease_waiter *waiter)
{
    struct stat attr;
    int err = fs_setattr(fs_of(c->req), c->ino, &c->attr, c->flags, waiter, &attr, &c->fleeting);

    if (!err)
        c->attr = attr;
    return err;
}

static void reply_setattr(struct change *c, int64_t result)
{
    if (result < 0)
        fuse_reply_err(c->req, (int)-result);
    else
        fuse_reply_attr(c->req, &c->attr, attr_seconds(c->req, c->fleeting));
}

static unsigned what_to_set(int to_set)
{
    static const struct {
        int fuse;
        unsigned fs;
    } map[] = {
        {FUSE_SET_ATTR_MODE, FS_SET_MODE},
        {FUSE_SET_ATTR_UID, FS_SET_UID},
        {FUSE_SET_ATTR_GID, FS_SET_GID},
        {FUSE_SET_ATTR_SIZE, FS_SET_SIZE},
        {FUSE_SET_ATTR_ATIME, FS_SET_ATIME},
        {FUSE_SET_ATTR_MTIME, FS_SET_MTIME},
        {FUSE_SET_ATTR_CTIME, FS_SET_CTIME},
        {FUSE_SET_ATTR_ATIME_NOW, FS_SET_ATIME_NOW},
        {FUSE_SET_ATTR_MTIME_NOW, FS_SET_MTIME_NOW},
    };
    unsigned what = 0;

    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
        if (to_set & map[i].fuse)
            what |= map[i].fs;
    }
    return what;
}

/* Nothing is asked for, or ctime alone (writeback): Linux's chown(-1, -1) by root or the owner, which drops
 * set-user-id. From others it announces a change of bytes, which will see to that. */
static bool is_empty_chown(fuse_req_t req, fuse_ino_t ino, unsigned what)
{
    uid_t uid = fuse_req_ctx(req)->uid;
    struct stat attr;

    if (what & ~FS_SET_CTIME)
        return false;
    return uid == 0 || (fs_getattr(fs_of(req), ino, &attr) == 0 && attr.st_uid == uid);
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    unsigned what = what_to_set(to_set);
    struct change c = {
        .run = run_setattr,
        .reply = reply_setattr,
        .ino = ino,
        .attr = *attr,
        .flags = what,
    };

    if (server_of(req)->config.writeback)
        c.flags |= FS_SET_TIMES_KEPT;
    if (is_empty_chown(req, ino, what) || ((what & FS_SET_SIZE) && must_kill_priv(req)))
        c.flags |= FS_SET_KILL_PRIV;
    if (fuse_req_ctx(req)->uid != 0 && (c.flags & (FS_SET_KILL_PRIV | FS_SET_UID | FS_SET_GID)) &&
        must_kill_sgid(req, ino))
        c.flags |= FS_SET_KILL_SGID;

    (void)fi;
    change_start(req, &c);
}

/* ---- names ---- */

static int64_t run_unlink(struct change *c, struct lease_waiter *waiter)
{
    return fs_unlink(fs_of(c->req), c->ino, c->name, waiter);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct change c = {.run = run_unlink, .reply = reply_plain, .ino = parent, .name = name};

    change_start(req, &c);
}

static int64_t run_rename(struct change *c, struct lease_waiter *waiter)
{
    return fs_rename(fs_of(c->req), c->ino, c->name, c->other_ino, c->other_name, c->flags, cred_of(c->req), waiter);
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
               unsigned flags)
{
    struct change c = {
        .run = run_rename,
        .reply = reply_plain,
        .ino = parent,
        .name = name,
        .other_ino = new_parent,
        .other_name = new_name,
        .flags = flags,
    };

    change_start(req, &c);
}

/* ---- bytes ---- */

static int64_t run_write(struct change *c, struct lease_waiter *waiter)
{
    return fs_write(fs_of(c->req), c->ino, c->offset, c->bytes, c->length, c->kill, waiter);
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct change c = {
        .run = run_write,
        .reply = reply_count,
        .ino = ino,
        .offset = (uint64_t)off,
        .bytes = buf,
        .length = size,
        /* A page written back comes from nobody in particular, and after the writer lost the privilege. */
        .kill = fi->writepage ? FS_KILL_CAPABILITY : what_to_kill(req, ino),
        .nonblock = !fi->writepage && (fi->flags & O_NONBLOCK),
        .whole = fi->writepage,
    };

    change_start(req, &c);
}

static int64_t run_fallocate(struct change *c, struct lease_waiter *waiter)
{
    return fs_fallocate(fs_of(c->req), c->ino, c->mode, c->offset, c->length, c->kill, waiter);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
    struct change c = {
        .run = run_fallocate,
        .reply = reply_plain,
        .ino = ino,
        .mode = mode,
        .offset = (uint64_t)offset,
        .length = (uint64_t)length,
        .kill = what_to_kill(req, ino),
    };

    (void)fi;
    change_start(req, &c);
}

static void answer_ioctl(void *arg)
{
    fuse_reply_ioctl(arg, 0, NULL, 0);
}

/* Linux knows nothing of it, so what it has cached of the file is old. */
static void reply_changed_by_ioctl(fuse_req_t req, uint64_t ino, int64_t result)
{
    if (result < 0)
        fuse_reply_err(req, (int)-result);
    else
        fs_forget_pages(fs_of(req), ino, answer_ioctl, req);
}

static void reply_ioctl_fallocate(struct change *c, int64_t result)
{
    reply_changed_by_ioctl(c->req, c->ino, result);
}

void change_fallocate(fuse_req_t req, uint64_t ino, int mode, uint64_t offset, uint64_t length)
{
    struct change c = {
        .run = run_fallocate,
        .reply = reply_ioctl_fallocate,
        .ino = ino,
        .mode = mode,
        .offset = offset,
        .length = length,
        .kill = what_to_kill(req, ino),
    };

    change_start(req, &c);
}

static int64_t run_copy(struct change *c, struct lease_waiter *waiter)
{
    return fs_copy(fs_of(c->req), c->ino, c->offset, c->other_ino, c->other_offset, c->length, c->kill, waiter);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
                        fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
    struct change c = {
        .run = run_copy,
        .reply = reply_count,
        .ino = ino_in,
        .offset = (uint64_t)off_in,
        .other_ino = ino_out,
        .other_offset = (uint64_t)off_out,
        .length = len,
        .kill = what_to_kill(req, ino_out),
    };

    (void)fi_in;
    (void)fi_out;
    if (flags)
        fuse_reply_err(req, EINVAL);
    else
        change_start(req, &c);
}

/* In steps, between which others get the files. */
static int64_t run_clone(struct change *c, struct lease_waiter *waiter)
{
    int64_t done = 1;

    while (c->length > 0 && done > 0) {
        done = fs_copy(fs_of(c->req), c->ino, c->offset, c->other_ino, c->other_offset, c->length, c->kill, waiter);
        if (done > 0) {
            c->offset += (uint64_t)done;
            c->other_offset += (uint64_t)done;
            c->length -= (uint64_t)done;
        }
    }
    return done < 0 ? done : 0;
}

static void reply_clone(struct change *c, int64_t result)
{
    reply_changed_by_ioctl(c->req, c->other_ino, result);
}

void change_clone(fuse_req_t req, uint64_t source, uint64_t source_offset, uint64_t length, uint64_t destination,
                  uint64_t destination_offset)
{
    struct change c = {
        .run = run_clone,
        .reply = reply_clone,
        .ino = source,
        .offset = source_offset,
        .other_ino = destination,
        .other_offset = destination_offset,
        .length = length,
        .kill = what_to_kill(req, destination),
    };

    change_start(req, &c);
}
