/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading directories. Who reads one is shown what was there when he opened it, or went back to its start: a program
 * that makes a file for each one it finds comes to an end.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "fused/fuse_private.h"
#include "lease/lock_order.h"

#define READDIR_BATCH 32u

/* ---- open directories ---- */

struct open_dir {
    LIST_ENTRY(open_dir) next;
    bool touch;           /* reading it counts as access */
    _Atomic uint64_t end; /* cookies from here on are not shown */
};

static struct open_dir *dir_of(const struct fuse_file_info *fi)
{
    return (struct open_dir *)(uintptr_t)fi->fh;
}

void open_dirs_init(struct fuse_server *server)
{
    pthread_mutex_init(&server->open_dirs.lock, NULL);
    lock_rank(&server->open_dirs.lock, LOCK_OPEN_DIRS, 0);
    LIST_INIT(&server->open_dirs.list);
}

/* After an unmount Linux tells of no more ends. */
void open_dirs_free(struct fuse_server *server)
{
    struct open_dir *dir;

    while ((dir = LIST_FIRST(&server->open_dirs.list))) {
        LIST_REMOVE(dir, next);
        free(dir);
    }
    pthread_mutex_destroy(&server->open_dirs.lock);
}

static int dir_open(struct fuse_server *server, fuse_ino_t ino, int flags, struct open_dir **ret_dir)
{
    struct open_dir *dir;
    uint64_t end;
    int err = fs_readdir_end(server->fs, ino, &end);

    if (err)
        return err;
    dir = calloc(1, sizeof(*dir));
    if (!dir)
        return -ENOMEM;
    dir->touch = !(flags & O_NOATIME);
    atomic_init(&dir->end, end);
    pthread_mutex_lock(&server->open_dirs.lock);
    LIST_INSERT_HEAD(&server->open_dirs.list, dir, next);
    pthread_mutex_unlock(&server->open_dirs.lock);
    *ret_dir = dir;
    return 0;
}

static void dir_close(struct fuse_server *server, struct open_dir *dir)
{
    pthread_mutex_lock(&server->open_dirs.lock);
    LIST_REMOVE(dir, next);
    pthread_mutex_unlock(&server->open_dirs.lock);
    free(dir);
}

/* libfuse tells the flags of an open directory here only. */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct open_dir *dir;
    int err = dir_open(server_of(req), ino, fi->flags, &dir);

    if (err) {
        fuse_reply_err(req, -err);
        return;
    }
    fi->fh = (uintptr_t)dir;
    if (fuse_reply_open(req, fi))
        dir_close(server_of(req), dir);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    dir_close(server_of(req), dir_of(fi));
    fuse_reply_err(req, 0);
}

/* ---- listing ---- */

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
static int listing_fill(struct listing *list, fuse_ino_t ino, uint64_t cookie, uint64_t end)
{
    struct fs *fs = fs_of(list->req);
    struct fs_dir_entry entries[READDIR_BATCH];
    int n;

    do {
        bool full = false;

        n = fs_readdir(fs, ino, cookie, end, list->plus, entries, READDIR_BATCH);
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

/* rewinddir(3) is seen as a reader who starts. */
static int how_far(fuse_req_t req, fuse_ino_t ino, off_t off, struct open_dir *dir, uint64_t *ret_end)
{
    int err = 0;

    if (off == 0) {
        err = fs_readdir_end(fs_of(req), ino, ret_end);
        if (!err)
            atomic_store(&dir->end, *ret_end);
    } else {
        *ret_end = atomic_load(&dir->end);
    }
    return err;
}

static int list(struct listing *list, fuse_ino_t ino, off_t off, struct open_dir *dir)
{
    uint64_t end;
    int err = how_far(list->req, ino, off, dir, &end);

    return err ? err : listing_fill(list, ino, (uint64_t)off, end);
}

static void readdir_common(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus, struct open_dir *dir)
{
    struct listing listing = {.req = req, .plus = plus, .size = size};
    struct fuse_entry_param param = {0};
    size_t smallest = fuse_add_direntry_plus(req, NULL, 0, "a", &param, 0);
    int err = -ENOMEM;

    listing.buffer = malloc(size ? size : 1);
    if (plus)
        listing.counted = calloc(size / smallest + 1, sizeof(*listing.counted));
    if (listing.buffer && (listing.counted || !plus))
        err = list(&listing, ino, off, dir);
    if (!err && dir->touch)
        fs_accessed(fs_of(req), ino);
    listing_reply(&listing, err);
    free(listing.buffer);
    free(listing.counted);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    readdir_common(req, ino, size, off, false, dir_of(fi));
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    readdir_common(req, ino, size, off, true, dir_of(fi));
}
