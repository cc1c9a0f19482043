/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
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

/* ---- directories ---- */

#define READDIR_BATCH 32u

/* libfuse tells the flags of an open directory here only: the handle keeps the one that listing wants. */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    fi->fh = fi->flags & O_NOATIME;
    fuse_reply_open(req, fi);
}

struct listing {
    fuse_req_t req;
    bool plus;
    char *buffer;
    size_t size, used;
    uint64_t *counted; /* plus: whose lookup counts the reply carries */
    size_t n_counted;
};

static bool is_dots(const struct fs_dir_entry *entry)
{
    return entry->name[0] == '.' && (!entry->name[1] || (entry->name[1] == '.' && !entry->name[2]));
}

/* false: no room. */
static bool listing_add(struct listing *list, const struct fs_dir_entry *entry)
{
    char *at = list->buffer + list->used;
    size_t room = list->size - list->used;
    struct fuse_entry_param param;
    size_t need;

    if (list->plus) {
        entry_to_fuse(list->req, &entry->entry, &param);
        if (is_dots(entry))
            param.ino = 0; /* no look-up, says the protocol */
        need = fuse_add_direntry_plus(list->req, at, room, entry->name, &param, (off_t)entry->cookie);
    } else {
        need = fuse_add_direntry(list->req, at, room, entry->name, &entry->entry.attr, (off_t)entry->cookie);
    }
    if (need > room)
        return false;
    list->used += need;
    if (list->plus && !is_dots(entry))
        list->counted[list->n_counted++] = entry->entry.ino;
    return true;
}

/* Returns when the buffer is full or the directory at its end. */
static int listing_fill(struct listing *list, fuse_ino_t ino, uint64_t cookie)
{
    struct fs *fs = fs_of(list->req);
    struct fs_dir_entry entries[READDIR_BATCH];
    int n;

    do {
        bool full = false;

        n = fs_readdir(fs, ino, cookie, list->plus, entries, READDIR_BATCH);
        for (int i = 0; i < n; i++) {
            full = full || !listing_add(list, &entries[i]);
            if (!full)
                cookie = entries[i].cookie;
            else if (list->plus && !is_dots(&entries[i]))
                fs_forget(fs, entries[i].entry.ino, 1);
        }
        if (full)
            break;
    } while (n == READDIR_BATCH);
    return n < 0 && list->used == 0 ? n : 0;
}

static void listing_reply(struct listing *list, int err)
{
    struct fs *fs = fs_of(list->req);

    if (err)
        fuse_reply_err(list->req, -err);
    else
        err = fuse_reply_buf(list->req, list->buffer, list->used);
    for (size_t i = 0; err && i < list->n_counted; i++)
        fs_forget(fs, list->counted[i], 1);
}

static void readdir_common(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus, bool touch)
{
    struct listing list = {.req = req, .plus = plus, .size = size};
    struct fuse_entry_param param = {0};
    size_t smallest = fuse_add_direntry_plus(req, NULL, 0, "a", &param, 0);
    int err = -ENOMEM;

    list.buffer = malloc(size ? size : 1);
    if (plus)
        list.counted = calloc(size / smallest + 1, sizeof(*list.counted));
    if (list.buffer && (list.counted || !plus))
        err = listing_fill(&list, ino, (uint64_t)off);
    if (!err && touch)
        fs_accessed(fs_of(req), ino);
    listing_reply(&list, err);
    free(list.buffer);
    free(list.counted);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    readdir_common(req, ino, size, off, false, !(fi->fh & O_NOATIME));
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    readdir_common(req, ino, size, off, true, !(fi->fh & O_NOATIME));
}
