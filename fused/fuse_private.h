/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FUSE_PRIVATE_H
#define LEASEFS_FUSED_FUSE_PRIVATE_H

/* Shared by the fuse_*.c files: requests are translated here and nothing else. */

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <sys/queue.h>

#include "fused/fs.h"
#include "fused/fuse_server.h"
#include "fused/fuse_wire.h"
#include "fused/park.h"
#include "fused/turn.h"

struct fuse_server {
    struct fs *fs;
    struct park *park;
    struct fuse_session *session;
    struct clone_tokens *clone_tokens;
    struct fuse_wire wire;
    struct turn *turn;
    struct fuse_listener *listener;
    struct fuse_ring *_Atomic ring; /* NULL: all requests come by read(2) */
    struct fuse_server_config config;
    /* How long the kernel trusts attributes and names. It is the only client but for leases, whose commits tell it. */
    double cache_seconds;
    _Atomic size_t kept_bytes; /* of writes that wait */
    bool direct_handles;       /* O_DIRECT handles go past the cache: see fuse_wire_direct_handles() */
    int ready_fd, ended_fd;    /* eventfds */
    unsigned max_threads, max_readers;
    bool looping;
    pthread_t loop;
    struct {
        pthread_mutex_t lock; /* guards the rest */
        LIST_HEAD(, open_dir) list;
    } open_dirs;
};

static inline struct fuse_server *server_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static inline struct fs *fs_of(fuse_req_t req)
{
    return server_of(req)->fs;
}

static inline struct fs_cred cred_of(fuse_req_t req)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);

    return (struct fs_cred){ctx->uid, ctx->gid, ctx->umask};
}

/* Replies with 0 or -errno. */
static inline void reply_result(fuse_req_t req, int64_t result)
{
    fuse_reply_err(req, result < 0 ? (int)-result : 0);
}

/* Replies with the entry (its lookup count goes back if the kernel did not take it), or the error. */
void reply_entry(fuse_req_t req, int err, const struct fs_entry *entry);
double attr_seconds(fuse_req_t req, bool fleeting); /* how long Linux may keep attributes */
void entry_to_fuse(fuse_req_t req, const struct fs_entry *entry, struct fuse_entry_param *param);

/* How a file that was just opened is read and written: past the kernel's cache or through it. Its handle is the flags
 * it was opened with. */
void cache_file(fuse_req_t req, struct fuse_file_info *fi, bool direct);

/* fuse_change.c: requests that may have to wait for a lease. */
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
               unsigned flags);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
                        fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags);

/* Answer an ioctl. */
void change_fallocate(fuse_req_t req, uint64_t ino, int mode, uint64_t offset, uint64_t length);
void change_clone(fuse_req_t req, uint64_t source, uint64_t source_offset, uint64_t length, uint64_t destination,
                  uint64_t destination_offset);

/* fuse_names.c */
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void op_readlink(fuse_req_t req, fuse_ino_t ino);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);

/* fuse_listing.c */
void open_dirs_init(struct fuse_server *server);
void open_dirs_free(struct fuse_server *server);
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);

/* fuse_files.c */
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void op_statfs(fuse_req_t req, fuse_ino_t ino);
void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg, struct fuse_file_info *fi, unsigned flags,
              const void *in_buf, size_t in_bufsz, size_t out_bufsz);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

#endif
