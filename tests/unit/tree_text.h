/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TEST_TREE_TEXT_H
#define LEASEFS_TEST_TREE_TEXT_H

/*
 * All that can be seen of a filesystem as a text, to be compared with what it was: a line for each name, with
 * attributes, a sum of the bytes, and what else is kept with it. What must agree is checked on the way.
 *
 *     static struct text before;
 *
 *     say_all(f, true, &before);
 */

#include "tests/unit/fs_fixture.h"

#define TEXT_MAX    65536u
#define MAX_ENTRIES 64u

struct text {
    char bytes[TEXT_MAX];
    size_t length;
};

#define SAY(text, ...)                                                                                                 \
    do {                                                                                                               \
        (text)->length += (size_t)snprintf((text)->bytes + (text)->length, TEXT_MAX - (text)->length, __VA_ARGS__);    \
        assert_in_range((text)->length, 1, TEXT_MAX - 1);                                                              \
    } while (0)

static inline void say_xattrs(struct fixture *f, uint64_t ino, struct text *text)
{
    char list[1024], value[1024];
    int64_t length = fs_listxattr(f->fs, ino, true, list, sizeof(list));

    assert_in_range(length, 0, sizeof(list));
    for (int64_t at = 0; at < length; at += (int64_t)strlen(list + at) + 1) {
        int64_t size = fs_getxattr(f->fs, ino, list + at, value, sizeof(value));
        unsigned sum = 0;

        assert_in_range(size, 0, sizeof(value));
        for (int64_t i = 0; i < size; i++)
            sum = sum * 31 + (unsigned char)value[i];
        SAY(text, " %s=%u:%lld", list + at, sum, (long long)size);
    }
}

static inline void say_contents(struct fixture *f, uint64_t ino, const struct stat *attr, struct text *text)
{
    static char buffer[64 * BLOCK + 1];
    unsigned sum = 0;
    int length;

    if (S_ISLNK(attr->st_mode)) {
        assert_int_equal(fs_readlink(f->fs, ino, buffer, sizeof(buffer)), 0);
        SAY(text, " -> %s", buffer);
    } else if (S_ISREG(attr->st_mode)) {
        length = read_at(f, ino, 0, sizeof(buffer) - 1, buffer);
        assert_int_equal(length, (size_t)attr->st_size < sizeof(buffer) ? (size_t)attr->st_size : sizeof(buffer) - 1);
        for (int i = 0; i < length; i++)
            sum = sum * 31 + (unsigned char)buffer[i];
        SAY(text, " %lld bytes %u, %lld blocks", (long long)attr->st_size, sum, (long long)attr->st_blocks);
    }
}

struct seen {
    uint64_t inos[256];
    nlink_t names[256], links[256];
    size_t n;
};

static inline void count_name(struct seen *seen, uint64_t ino, nlink_t links)
{
    size_t i = 0;

    while (i < seen->n && seen->inos[i] != ino)
        i++;
    assert_in_range(i, 0, 255);
    if (i == seen->n) {
        seen->inos[seen->n] = ino;
        seen->names[seen->n++] = 0;
    }
    seen->links[i] = links;
    seen->names[i]++;
}

/* What is below a directory, its own line first. Checks on its way what must agree. */
static inline void say_tree(struct fixture *f, uint64_t ino, uint64_t parent, const char *path, bool with_times,
                            struct seen *seen, struct text *text)
{
    struct fs_dir_entry *entries = calloc(MAX_ENTRIES, sizeof(*entries));
    int n = fs_readdir(f->fs, ino, 0, UINT64_MAX, false, entries, MAX_ENTRIES);
    nlink_t below = 0;

    assert_in_range(n, 2, MAX_ENTRIES - 1);
    assert_string_equal(entries[0].name, ".");
    assert_int_equal(entries[0].entry.ino, ino);
    assert_string_equal(entries[1].name, "..");
    assert_int_equal(entries[1].entry.ino, parent);
    for (int i = 2; i < n; i++) {
        struct fs_entry found;
        char longer[512];
        struct stat attr;

        assert_true(entries[i].cookie > entries[i - 1].cookie);
        assert_int_equal(fs_lookup(f->fs, ino, entries[i].name, &found), 0);
        assert_int_equal(found.ino, entries[i].entry.ino);
        fs_forget(f->fs, found.ino, 1);
        attr = stat_of(f, found.ino);
        assert_int_equal(attr.st_mode & S_IFMT, entries[i].entry.attr.st_mode & S_IFMT);
        snprintf(longer, sizeof(longer), "%s/%s", path, entries[i].name);
        SAY(text, "%s %o %u:%u %lu", longer, attr.st_mode, attr.st_uid, attr.st_gid, (unsigned long)attr.st_nlink);
        if (with_times)
            SAY(text, " %lld.%09ld %lld.%09ld", (long long)attr.st_mtim.tv_sec, attr.st_mtim.tv_nsec,
                (long long)attr.st_ctim.tv_sec, attr.st_ctim.tv_nsec);
        say_contents(f, found.ino, &attr, text);
        say_xattrs(f, found.ino, text);
        SAY(text, "\n");
        if (S_ISDIR(attr.st_mode)) {
            below++;
            say_tree(f, found.ino, ino, longer, with_times, seen, text);
        } else {
            count_name(seen, found.ino, attr.st_nlink);
        }
    }
    assert_int_equal(stat_of(f, ino).st_nlink, 2 + below);
    free(entries);
}

/* Checks that the tree is consistent. */
static inline void say_all(struct fixture *f, bool with_times, struct text *text)
{
    struct seen seen = {.n = 0};
    struct statvfs space;

    text->length = 0;
    say_tree(f, FS_ROOT_INO, FS_ROOT_INO, "", with_times, &seen, text);
    for (size_t i = 0; i < seen.n; i++)
        assert_int_equal(seen.names[i], seen.links[i]);
    assert_int_equal(fs_statfs(f->fs, &space), 0);
    SAY(text, "%lu blocks and %lu inodes are free\n", (unsigned long)space.f_bfree, (unsigned long)space.f_ffree);
    assert_int_equal(pool_check(f->pool), 0);
}

#endif
