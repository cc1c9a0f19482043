/* SPDX-License-Identifier: BSD-2-Clause */
/* Every operation of the filesystem when memory, space or inodes run out at any point: it happens wholly or not at all,
 * and the tree is as consistent as before. (The bytes of one file: test_file_data_faults.c.) */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdio.h>

#include "tests/unit/failing_malloc.h"
#include "tests/unit/fs_fixture.h"
#include "tests/unit/tree_text.h"

#define ROOT_CRED                                                                                                      \
    (struct fs_cred)                                                                                                   \
    {                                                                                                                  \
        .umask = 022                                                                                                   \
    }

static const struct {
    struct posix_acl_xattr_header header;
    struct posix_acl_xattr_entry entries[5];
} acl = {{POSIX_ACL_XATTR_VERSION},
         {{ACL_USER_OBJ, 7, ACL_UNDEFINED_ID},
          {ACL_USER, 5, 1001},
          {ACL_GROUP_OBJ, 5, ACL_UNDEFINED_ID},
          {ACL_MASK, 7, ACL_UNDEFINED_ID},
          {ACL_OTHER, 0, ACL_UNDEFINED_ID}}};

/* ---- a tree with something of everything ---- */

struct tree {
    struct fixture *f;
    uint64_t dir, other, full, file, linked, link, shared;
};

static void plant(struct fixture *f, struct tree *tree)
{
    struct fs_entry entry;

    *tree = (struct tree){.f = f};
    tree->dir = make_dir(f, FS_ROOT_INO, "dir");
    tree->other = make_dir(f, FS_ROOT_INO, "other");
    tree->full = make_dir(f, tree->dir, "full");
    tree->file = make_file_in(f, tree->dir, "file", 3 * BLOCK + 10);
    tree->linked = make_file_in(f, tree->other, "linked", 100);
    tree->shared = make_file_in(f, tree->other, "shared", 0);
    make_dir(f, tree->other, "empty");
    /* As many as the table of names has room for, so that one more makes it grow. */
    for (int i = 0; i < 8; i++) {
        char name[8];

        snprintf(name, sizeof(name), "n%d", i);
        make_file_in(f, tree->full, name, 0);
    }
    assert_int_equal(fs_link(f->fs, tree->linked, tree->dir, "again", &entry), 0);
    assert_int_equal(fs_symlink(f->fs, tree->dir, "link", "../other", ROOT_CRED, &entry), 0);
    tree->link = entry.ino;
    assert_int_equal(fs_copy(f->fs, tree->file, 0, tree->shared, 0, 3 * BLOCK, false, NULL), 3 * BLOCK);
    assert_int_equal(fs_setxattr(f->fs, tree->file, "user.kept", "value", 5, 0), 0);
    assert_int_equal(fs_setxattr(f->fs, tree->other, "system.posix_acl_default", &acl, sizeof(acl), 0), 0);
}

static void remove_below(struct fixture *f, uint64_t ino)
{
    struct fs_dir_entry *entries = calloc(MAX_ENTRIES, sizeof(*entries));
    int n = fs_readdir(f->fs, ino, 2, UINT64_MAX, true, entries, MAX_ENTRIES);

    for (int i = 0; i < n; i++) {
        uint64_t child = entries[i].entry.ino;

        if (S_ISDIR(entries[i].entry.attr.st_mode)) {
            remove_below(f, child);
            assert_int_equal(fs_rmdir(f->fs, ino, entries[i].name), 0);
        } else {
            assert_int_equal(fs_unlink(f->fs, ino, entries[i].name, NULL), 0);
        }
        fs_forget(f->fs, child, UINT64_MAX);
    }
    free(entries);
}

/* ---- the operations ---- */

static int64_t make_entry(struct tree *t, int err, const struct fs_entry *entry)
{
    if (!err)
        fs_forget(t->f->fs, entry->ino, 1);
    return err;
}

static int64_t do_create(struct tree *t)
{
    struct fs_entry entry;
    int err = fs_mknod(t->f->fs, t->full, "new", S_IFREG | 0640, 0, ROOT_CRED, &entry);

    return make_entry(t, err, &entry);
}

static int64_t do_create_with_acl(struct tree *t)
{
    struct fs_entry entry;
    int err = fs_mknod(t->f->fs, t->other, "new", S_IFREG | 0640, 0, ROOT_CRED, &entry);

    return make_entry(t, err, &entry);
}

static int64_t do_mkfifo(struct tree *t)
{
    struct fs_entry entry;
    int err = fs_mknod(t->f->fs, t->dir, "fifo", S_IFIFO | 0640, 0, ROOT_CRED, &entry);

    return make_entry(t, err, &entry);
}

static int64_t do_mkdir(struct tree *t)
{
    struct fs_entry entry;

    return make_entry(t, fs_mkdir(t->f->fs, t->full, "newdir", 0755, ROOT_CRED, &entry), &entry);
}

static int64_t do_mkdir_with_acl(struct tree *t)
{
    struct fs_entry entry;

    return make_entry(t, fs_mkdir(t->f->fs, t->other, "newdir", 0755, ROOT_CRED, &entry), &entry);
}

static int64_t do_symlink(struct tree *t)
{
    struct fs_entry entry;

    return make_entry(t, fs_symlink(t->f->fs, t->dir, "new", "a/b/c", ROOT_CRED, &entry), &entry);
}

static int64_t do_link(struct tree *t)
{
    struct fs_entry entry;

    return make_entry(t, fs_link(t->f->fs, t->file, t->full, "new", &entry), &entry);
}

/* Without a name it is gone when the kernel forgets it. */
static int64_t do_tmpfile(struct tree *t)
{
    struct fs_entry entry;

    return make_entry(t, fs_tmpfile(t->f->fs, t->other, 0600, ROOT_CRED, &entry), &entry);
}

static int64_t do_tmpfile_named(struct tree *t)
{
    struct fs_entry entry, named;
    int err = fs_tmpfile(t->f->fs, t->other, 0600, ROOT_CRED, &entry);

    if (!err) {
        err = fs_link(t->f->fs, entry.ino, t->dir, "named", &named);
        fs_forget(t->f->fs, entry.ino, err ? 1 : 2);
    }
    return err;
}

static int64_t do_unlink(struct tree *t)
{
    return fs_unlink(t->f->fs, t->dir, "file", NULL);
}

static int64_t do_rmdir(struct tree *t)
{
    return fs_rmdir(t->f->fs, t->other, "empty");
}

static int64_t do_rename(struct tree *t)
{
    return fs_rename(t->f->fs, t->dir, "file", t->full, "moved", 0, ROOT_CRED, NULL);
}

static int64_t do_rename_whiteout(struct tree *t)
{
    return fs_rename(t->f->fs, t->dir, "file", t->full, "moved", RENAME_WHITEOUT, ROOT_CRED, NULL);
}

static int64_t do_rename_over(struct tree *t)
{
    return fs_rename(t->f->fs, t->dir, "file", t->other, "linked", 0, ROOT_CRED, NULL);
}

static int64_t do_rename_dir_over(struct tree *t)
{
    return fs_rename(t->f->fs, t->dir, "full", t->other, "empty", 0, ROOT_CRED, NULL);
}

static int64_t do_exchange(struct tree *t)
{
    return fs_rename(t->f->fs, t->dir, "full", t->other, "linked", RENAME_EXCHANGE, ROOT_CRED, NULL);
}

static int64_t set_attr(struct tree *t, uint64_t ino, const struct stat *attr, unsigned what)
{
    struct stat after;

    return fs_setattr(t->f->fs, ino, attr, what, NULL, &after, NULL);
}

static int64_t do_chmod(struct tree *t)
{
    struct stat attr = {.st_mode = 0750};

    return set_attr(t, t->file, &attr, FS_SET_MODE);
}

static int64_t do_chown(struct tree *t)
{
    struct stat attr = {.st_uid = 5, .st_gid = 6};

    return set_attr(t, t->file, &attr, FS_SET_UID | FS_SET_GID);
}

static int64_t do_truncate(struct tree *t)
{
    struct stat attr = {.st_size = BLOCK + 7};

    return set_attr(t, t->file, &attr, FS_SET_SIZE);
}

static int64_t do_truncate_and_chmod(struct tree *t)
{
    struct stat attr = {.st_size = BLOCK + 7, .st_mode = 0600, .st_uid = 3};

    return set_attr(t, t->file, &attr, FS_SET_SIZE | FS_SET_MODE | FS_SET_UID);
}

static int64_t do_setxattr(struct tree *t)
{
    return fs_setxattr(t->f->fs, t->file, "user.new", "some", 4, 0);
}

static int64_t do_setxattr_over(struct tree *t)
{
    return fs_setxattr(t->f->fs, t->file, "user.kept", "longer than before", 18, 0);
}

static int64_t do_removexattr(struct tree *t)
{
    return fs_removexattr(t->f->fs, t->file, "user.kept");
}

static int64_t do_set_acl(struct tree *t)
{
    return fs_setxattr(t->f->fs, t->file, "system.posix_acl_access", &acl, sizeof(acl), 0);
}

static int64_t do_set_default_acl(struct tree *t)
{
    return fs_setxattr(t->f->fs, t->dir, "system.posix_acl_default", &acl, sizeof(acl), 0);
}

static int64_t do_set_policy(struct tree *t)
{
    return fs_setxattr(t->f->fs, t->dir, FS_XATTR_POLICY, "busy", 4, 0);
}

static int64_t do_write(struct tree *t)
{
    static char bytes[2 * BLOCK];

    return fs_write(t->f->fs, t->file, BLOCK, bytes, sizeof(bytes), true, NULL);
}

static int64_t do_extend(struct tree *t)
{
    static char bytes[2 * BLOCK];

    return fs_write(t->f->fs, t->file, 9 * BLOCK, bytes, sizeof(bytes), false, NULL);
}

static int64_t do_fallocate(struct tree *t)
{
    return fs_fallocate(t->f->fs, t->file, 0, 0, 9 * BLOCK, false, NULL);
}

static int64_t do_punch(struct tree *t)
{
    return fs_fallocate(t->f->fs, t->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, BLOCK, false, NULL);
}

static int64_t do_copy(struct tree *t)
{
    return fs_copy(t->f->fs, t->file, 5, t->linked, 20, 2 * BLOCK, false, NULL);
}

static int64_t do_clone(struct tree *t)
{
    return fs_copy(t->f->fs, t->file, 0, t->linked, 0, 3 * BLOCK, false, NULL);
}

static const struct operation {
    const char *name;
    int64_t (*run)(struct tree *);
    unsigned makes;  /* inodes */
    uint32_t blocks; /* that it needs */
    int64_t result;  /* when all is there */
    bool asks;       /* it changes nothing that shows in the text */
    bool unshares;   /* it fails with the one end made its own and not the other: with the same bytes in more blocks */
} operations[] = {
    {"create", do_create, 1, 0, 0},
    {"create under a default ACL", do_create_with_acl, 1, 0, 0},
    {"mkfifo", do_mkfifo, 1, 0, 0},
    {"mkdir", do_mkdir, 1, 0, 0},
    {"mkdir under a default ACL", do_mkdir_with_acl, 1, 0, 0},
    {"symlink", do_symlink, 1, 0, 0},
    {"link", do_link, 0, 0, 0},
    {"tmpfile", do_tmpfile, 1, 0, 0, true},
    {"tmpfile, then link", do_tmpfile_named, 1, 0, 0},
    {"unlink", do_unlink, 0, 0, 0},
    {"rmdir", do_rmdir, 0, 0, 0},
    {"rename", do_rename, 0, 0, 0},
    {"rename with a whiteout", do_rename_whiteout, 1, 0, 0},
    {"rename over a file", do_rename_over, 0, 0, 0},
    {"rename over a directory", do_rename_dir_over, 0, 0, 0},
    {"exchange", do_exchange, 0, 0, 0},
    {"chmod", do_chmod, 0, 0, 0},
    {"chown", do_chown, 0, 0, 0},
    {"truncate", do_truncate, 0, 1, 0},
    {"truncate with other attributes", do_truncate_and_chmod, 0, 1, 0},
    {"setxattr", do_setxattr, 0, 0, 0},
    {"setxattr over another", do_setxattr_over, 0, 0, 0},
    {"removexattr", do_removexattr, 0, 0, 0},
    {"an access ACL", do_set_acl, 0, 0, 0},
    {"a default ACL", do_set_default_acl, 0, 0, 0},
    {"a policy", do_set_policy, 0, 0, 0, true},
    {"write over shared blocks", do_write, 0, 2, 2 * BLOCK},
    {"write behind the end", do_extend, 0, 2, 2 * BLOCK},
    {"fallocate", do_fallocate, 0, 5, 0},
    {"punch", do_punch, 0, 2, 0, .unshares = true},
    {"copy", do_copy, 0, 2, 2 * BLOCK},
    {"clone", do_clone, 0, 0, 3 * BLOCK},
};
#define N_OPERATIONS (sizeof(operations) / sizeof(operations[0]))

/* ---- trials ---- */

struct shortage {
    unsigned mallocs; /* succeed before one fails */
    bool blocks;      /* only so many are left */
    uint32_t n_blocks;
};
#define PLENTY 100000u

static void leave_blocks(struct tree *t, uint32_t n)
{
    uint64_t hog = make_file(t->f, "hog", 0);
    struct statvfs space;

    assert_int_equal(fs_statfs(t->f->fs, &space), 0);
    assert_int_equal(fs_fallocate(t->f->fs, hog, 0, 0, (space.f_bfree - n) * BLOCK, false, NULL), 0);
    assert_int_equal(fs_statfs(t->f->fs, &space), 0);
    assert_int_equal(space.f_bfree, n);
}

static void assert_same(const struct operation *op, const struct text *before, const struct text *after)
{
    size_t at = 0, line = 0;

    while (before->bytes[at] && before->bytes[at] == after->bytes[at]) {
        if (before->bytes[at++] == '\n')
            line = at;
    }
    if (op->unshares && strstr(before->bytes + line, " blocks and ") == strchr(before->bytes + line, ' '))
        return;
    if (before->bytes[at] != after->bytes[at])
        fail_msg("%s failed, and yet\n  %.150s\nbecame\n  %.150s", op->name, before->bytes + line, after->bytes + line);
}

/* Runs it on a new tree. The result; *ret_failed: a malloc() failed. Whatever comes of it: all or nothing. */
static int64_t try(const struct operation *op, struct shortage shortage, bool *ret_failed)
{
    static struct text before, after;
    struct statvfs space;
    struct tree tree;
    void *state = NULL;
    int64_t result;

    fixture_setup(&state);
    plant(state, &tree);
    if (shortage.blocks)
        leave_blocks(&tree, shortage.n_blocks);
    say_all(tree.f, true, &before);
    failing_malloc_arm(shortage.mallocs);
    result = op->run(&tree);
    *ret_failed = failing_malloc_has_failed();
    failing_malloc_disarm();
    say_all(tree.f, true, &after);
    if (result < 0)
        assert_same(op, &before, &after);
    if (result >= 0 && !op->asks && strcmp(before.bytes, after.bytes) == 0)
        fail_msg("%s did nothing, and said %lld", op->name, (long long)result);
    remove_below(tree.f, FS_ROOT_INO);
    fs_forget(tree.f->fs, tree.file, UINT64_MAX);
    assert_int_equal(fs_statfs(tree.f->fs, &space), 0);
    assert_int_equal(space.f_bfree, space.f_blocks);
    fixture_teardown(&state);
    return result;
}

static void every_operation_survives_every_malloc_that_fails(void **state)
{
    unsigned failures = 0;

    (void)state;
    for (size_t i = 0; i < N_OPERATIONS; i++) {
        const struct operation *op = &operations[i];
        bool failed = true;

        for (unsigned after = 0; failed; after++) {
            int64_t result = try(op, (struct shortage){.mallocs = after}, &failed);

            if (failed ? result < 0 && result != -ENOMEM : result != op->result)
                fail_msg("%s, malloc %u fails: %lld", op->name, after, (long long)result);
            failures += failed && result == -ENOMEM;
            assert_true(after < 500);
        }
    }
    assert_true(failures > 20);
}

static void every_operation_needs_so_many_blocks_and_changes_nothing_with_one_less(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_OPERATIONS; i++) {
        const struct operation *op = &operations[i];

        for (uint32_t n = 0; n <= op->blocks; n++) {
            bool failed;
            int64_t result = try(op, (struct shortage){PLENTY, true, n}, &failed);

            if ((result == op->result) != (n == op->blocks))
                fail_msg("%s, with %u free blocks of the %u it needs: %lld", op->name, n, op->blocks,
                         (long long)result);
            if (result < 0)
                assert_int_equal(result, -ENOSPC);
        }
    }
}

static void the_last_inode_can_be_used_and_then_nothing_changes(void **state)
{
    static struct text before, after;
    struct statvfs space;
    struct fs_entry last, again;
    struct tree tree;

    plant(*state, &tree);
    assert_int_equal(fs_statfs(tree.f->fs, &space), 0);
    for (uint64_t left = space.f_ffree; left > 0; left--)
        assert_int_equal(fs_tmpfile(tree.f->fs, FS_ROOT_INO, 0600, ROOT_CRED, &last), 0);
    for (size_t i = 0; i < N_OPERATIONS; i++) {
        if (!operations[i].makes)
            continue;
        assert_int_equal(fs_statfs(tree.f->fs, &space), 0);
        assert_int_equal(space.f_ffree, 0);
        say_all(tree.f, true, &before);
        assert_int_equal(operations[i].run(&tree), -ENOSPC);
        say_all(tree.f, true, &after);
        assert_string_equal(before.bytes, after.bytes);
        /* One is given back, and that is enough. */
        fs_forget(tree.f->fs, last.ino--, 1);
        assert_int_equal(operations[i].run(&tree), operations[i].result);
        if (operations[i].asks)
            assert_int_equal(fs_tmpfile(tree.f->fs, FS_ROOT_INO, 0600, ROOT_CRED, &again), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_survives_every_malloc_that_fails),
        cmocka_unit_test(every_operation_needs_so_many_blocks_and_changes_nothing_with_one_less),
        cmocka_unit_test_setup_teardown(the_last_inode_can_be_used_and_then_nothing_changes, fixture_setup,
                                        fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
