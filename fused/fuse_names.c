/* SPDX-License-Identifier: BSD-2-Clause */
#include <string.h>

#include "fused/fuse_private.h"

/* Where a notice that attributes are old may cross an answer, Linux is not to keep them: README, "The kernel's cache".
 */
double attr_seconds(fuse_req_t req, bool fleeting)
{
    return fleeting ? 0 : server_of(req)->cache_seconds;
}

void entry_to_fuse(fuse_req_t req, const struct fs_entry *entry, struct fuse_entry_param *param)
{
    *param = (struct fuse_entry_param){
        .ino = entry->ino,
        .generation = entry->generation,
        .attr = entry->attr,
        .attr_timeout = attr_seconds(req, entry->fleeting),
        .entry_timeout = server_of(req)->cache_seconds,
    };
}

void reply_entry(fuse_req_t req, int err, const struct fs_entry *entry)
{
    struct fs *fs = fs_of(req);
    struct fuse_entry_param param;

    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    entry_to_fuse(req, entry, &param);
    if (fuse_reply_entry(req, &param))
        fs_forget(fs, entry->ino, 1);
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs_entry entry;
    int err = fs_lookup(fs_of(req), parent, name, &entry);

    reply_entry(req, err, &entry);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
    fs_forget(fs_of(req), ino, nlookup);
    fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        fs_forget(fs_of(req), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    char target[FS_SYMLINK_MAX + 1];
    int err = fs_readlink(fs_of(req), ino, target, sizeof(target));

    if (err)
        fuse_reply_err(req, -err);
    else
        fuse_reply_readlink(req, target);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct fs_entry entry;
    int err = fs_mknod(fs_of(req), parent, name, mode, rdev, cred_of(req), &entry);

    reply_entry(req, err, &entry);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct fs_entry entry;
    int err = fs_mkdir(fs_of(req), parent, name, mode, cred_of(req), &entry);

    reply_entry(req, err, &entry);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct fs_entry entry;
    int err = fs_symlink(fs_of(req), parent, name, target, cred_of(req), &entry);

    reply_entry(req, err, &entry);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
    struct fs_entry entry;
    int err = fs_link(fs_of(req), ino, new_parent, new_name, &entry);

    reply_entry(req, err, &entry);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    reply_result(req, fs_rmdir(fs_of(req), parent, name));
}

static void reply_created(fuse_req_t req, int err, const struct fs_entry *entry, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    struct fuse_entry_param param;

    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    entry_to_fuse(req, entry, &param);
    cache_file(req, fi, false);
    fs_created(fs, entry->ino, (int)fi->fh);
    if (fuse_reply_create(req, &param, fi)) {
        fs_close(fs, entry->ino, (int)fi->fh);
        fs_forget(fs, entry->ino, 1);
    }
}

/* O_TMPFILE comes as a file of a name that there is not, see fuse_wire.h. */
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    struct fs_entry entry;
    int err;

    mode = S_IFREG | (mode & ~(mode_t)S_IFMT);
    if (strcmp(name, FUSE_WIRE_TMPFILE_NAME) == 0)
        err = fs_tmpfile(fs, parent, mode, cred_of(req), &entry);
    else
        err = fs_mknod(fs, parent, name, mode, 0, cred_of(req), &entry);
    reply_created(req, err, &entry, fi);
}
