/* SPDX-License-Identifier: BSD-2-Clause */
/* Names, directories and lookup counts, without a kernel. */
#include <errno.h>
#include <stdio.h>

#include "fused/fs_private.h"
#include "tests/unit/fs_fixture.h"

static void a_file_lives_until_its_last_name_and_lookup_are_gone(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 10);
    struct stat attr;

    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "a", NULL), 0);
    assert_int_equal(stat_of(f, ino).st_nlink, 0);
    fs_forget(f->fs, ino, 1);
    assert_int_equal(fs_getattr(f->fs, ino, &attr), -ESTALE);
}

struct maker {
    struct fs *fs;
    atomic_bool stop;
};

static void *make_what_is_there(void *arg)
{
    struct maker *maker = arg;
    struct fs_entry entry;

    while (!atomic_load(&maker->stop))
        if (fs_mknod(maker->fs, FS_ROOT_INO, "there", S_IFREG | 0644, 0, (struct fs_cred){0}, &entry) != -EEXIST)
            return "made";
    return NULL;
}

static void the_last_inode_is_not_refused_because_of_others_who_fail(void **state)
{
    struct fixture *f = *state;
    struct maker maker = {.fs = f->fs};
    struct fs_entry entry;
    pthread_t thread;
    void *failure;
    int err = 0;

    make_file(f, "there", 0);
    f->fs->max_inodes = atomic_load(&f->fs->n_inodes) + 1;
    assert_int_equal(pthread_create(&thread, NULL, make_what_is_there, &maker), 0);
    for (unsigned i = 0; !err && i < 20000; i++) {
        err = fs_mknod(f->fs, FS_ROOT_INO, "new", S_IFREG | 0644, 0, (struct fs_cred){0}, &entry);
        if (!err)
            err = fs_unlink(f->fs, FS_ROOT_INO, "new", NULL);
        if (!err)
            fs_forget(f->fs, entry.ino, 1);
    }
    atomic_store(&maker.stop, true);
    pthread_join(thread, &failure);
    assert_int_equal(err, 0);
    assert_null(failure);
    assert_int_equal(fs_mknod(f->fs, FS_ROOT_INO, "last", S_IFREG | 0644, 0, (struct fs_cred){0}, &entry), 0);
    fs_forget(f->fs, entry.ino, 1);
    assert_int_equal(fs_mknod(f->fs, FS_ROOT_INO, "more", S_IFREG | 0644, 0, (struct fs_cred){0}, &entry), -ENOSPC);
}

static void a_named_file_outlives_its_lookups(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 10);

    fs_forget(f->fs, ino, 1);
    assert_int_equal(stat_of(f, ino).st_nlink, 1);
}

static void forgetting_more_than_was_looked_up_takes_what_there_is(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 10);
    struct stat attr;

    fs_forget(f->fs, ino, UINT64_MAX);
    fs_forget(f->fs, ino, UINT64_MAX);
    fs_forget(f->fs, 12345, 1);
    fs_forget(f->fs, FS_ROOT_INO, 1000);
    assert_int_equal(stat_of(f, ino).st_nlink, 1);
    assert_int_equal(stat_of(f, FS_ROOT_INO).st_nlink, 2);
    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "a", NULL), 0);
    assert_int_equal(fs_getattr(f->fs, ino, &attr), -ESTALE);
}

static void every_listed_entry_but_the_dots_counts_as_a_lookup(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 0);
    struct fs_dir_entry entries[8];
    struct stat attr;

    assert_int_equal(fs_readdir(f->fs, FS_ROOT_INO, 0, UINT64_MAX, true, entries, 8), 3);
    assert_int_equal(fs_readdir(f->fs, FS_ROOT_INO, 0, UINT64_MAX, false, entries, 8), 3);
    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "a", NULL), 0);
    fs_forget(f->fs, ino, 1);
    assert_int_equal(fs_getattr(f->fs, ino, &attr), 0);
    fs_forget(f->fs, ino, 1);
    assert_int_equal(fs_getattr(f->fs, ino, &attr), -ESTALE);
}

static void inode_numbers_are_not_reused(void **state)
{
    struct fixture *f = *state;
    uint64_t last = 0;

    for (int i = 0; i < 100; i++) {
        uint64_t ino = make_file(f, "a", 0);

        assert_true(ino > last);
        last = ino;
        assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "a", NULL), 0);
        fs_forget(f->fs, ino, 1);
    }
}

static void names_are_checked(void **state)
{
    struct fixture *f = *state;
    struct fs_cred root = {0, 0};
    char name[FS_NAME_MAX + 2];
    struct fs_entry entry;

    memset(name, 'n', sizeof(name));
    name[FS_NAME_MAX + 1] = '\0';
    assert_int_equal(fs_mkdir(f->fs, FS_ROOT_INO, name, 0755, root, &entry), -ENAMETOOLONG);
    assert_int_equal(fs_lookup(f->fs, FS_ROOT_INO, name, &entry), -ENAMETOOLONG);
    name[FS_NAME_MAX] = '\0';
    assert_int_equal(fs_mkdir(f->fs, FS_ROOT_INO, name, 0755, root, &entry), 0);
    assert_true(exists(f, FS_ROOT_INO, name));
    assert_int_equal(fs_mkdir(f->fs, FS_ROOT_INO, name, 0755, root, &entry), -EEXIST);
    assert_int_equal(fs_mkdir(f->fs, FS_ROOT_INO, ".", 0755, root, &entry), -EEXIST);
    assert_int_equal(fs_mkdir(f->fs, FS_ROOT_INO, "", 0755, root, &entry), -ENOENT);
    assert_int_equal(fs_rmdir(f->fs, FS_ROOT_INO, "."), -EINVAL);
    assert_int_equal(fs_rmdir(f->fs, FS_ROOT_INO, ".."), -ENOENT);
    assert_int_equal(fs_symlink(f->fs, FS_ROOT_INO, "l", "", root, &entry), -ENOENT);
}

static void nothing_is_added_to_a_removed_directory(void **state)
{
    struct fixture *f = *state;
    uint64_t dir = make_dir(f, FS_ROOT_INO, "d");
    uint64_t file = make_file(f, "a", 0);
    struct fs_entry entry;

    assert_int_equal(fs_rmdir(f->fs, FS_ROOT_INO, "d"), 0);
    assert_int_equal(fs_mkdir(f->fs, dir, "x", 0755, (struct fs_cred){0, 0}, &entry), -ENOENT);
    assert_int_equal(fs_link(f->fs, file, dir, "x", &entry), -ENOENT);
    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "a", dir, "x", 0, (struct fs_cred){0}, NULL), -ENOENT);
    assert_int_equal(stat_of(f, FS_ROOT_INO).st_nlink, 2);
}

static void an_unlinked_file_is_not_linked_again_but_a_nameless_one_is(void **state)
{
    struct fixture *f = *state;
    uint64_t file = make_file(f, "a", 0);
    struct fs_entry entry;

    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "a", NULL), 0);
    assert_int_equal(fs_link(f->fs, file, FS_ROOT_INO, "b", &entry), -ENOENT);
    assert_int_equal(fs_tmpfile(f->fs, FS_ROOT_INO, 0600, (struct fs_cred){0, 0}, &entry), 0);
    assert_int_equal(entry.attr.st_nlink, 0);
    assert_int_equal(fs_link(f->fs, entry.ino, FS_ROOT_INO, "b", &entry), 0);
    assert_int_equal(entry.attr.st_nlink, 1);
    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "b", NULL), 0);
    assert_int_equal(fs_link(f->fs, entry.ino, FS_ROOT_INO, "b", &entry), -ENOENT);
}

static void a_directory_does_not_move_into_itself(void **state)
{
    struct fixture *f = *state;
    uint64_t a = make_dir(f, FS_ROOT_INO, "a");
    uint64_t b = make_dir(f, a, "b");
    uint64_t c = make_dir(f, b, "c");

    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "a", c, "x", 0, (struct fs_cred){0}, NULL), -EINVAL);
    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "a", a, "x", 0, (struct fs_cred){0}, NULL), -EINVAL);
    assert_int_equal(fs_rename(f->fs, b, "c", FS_ROOT_INO, "a", 0, (struct fs_cred){0}, NULL), -ENOTEMPTY);
    assert_int_equal(fs_rename(f->fs, b, "c", FS_ROOT_INO, "a", RENAME_EXCHANGE, (struct fs_cred){0}, NULL), -EINVAL);
    assert_int_equal(fs_rename(f->fs, b, "c", FS_ROOT_INO, "c", 0, (struct fs_cred){0}, NULL), 0);
    assert_int_equal(stat_of(f, b).st_nlink, 2);
    assert_int_equal(stat_of(f, FS_ROOT_INO).st_nlink, 4);
    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "a", c, "a", 0, (struct fs_cred){0}, NULL), 0);
    assert_int_equal(stat_of(f, c).st_nlink, 3);
}

static void renaming_one_of_two_names_onto_the_other_does_nothing(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 0);
    struct fs_entry entry;

    assert_int_equal(fs_link(f->fs, ino, FS_ROOT_INO, "b", &entry), 0);
    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "a", FS_ROOT_INO, "b", 0, (struct fs_cred){0}, NULL), 0);
    assert_true(exists(f, FS_ROOT_INO, "a"));
    assert_int_equal(stat_of(f, ino).st_nlink, 2);
    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "a", FS_ROOT_INO, "a", 0, (struct fs_cred){0}, NULL), 0);
}

/* Cookies: a reader that stops after any entry and goes on later misses and repeats nothing that stays. */
static void a_listing_goes_on_where_it_stopped_whatever_changes(void **state)
{
    struct fixture *f = *state;
    enum { FILES = 200 };
    unsigned char seen[FILES] = {0};
    struct fs_dir_entry entries[7];
    uint64_t cookie = 0;
    char name[16];
    int n, step = 0;

    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "stay%d", i);
        make_file(f, name, 0);
    }
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "go%d", i);
        make_file(f, name, 0);
    }
    while ((n = fs_readdir(f->fs, FS_ROOT_INO, cookie, UINT64_MAX, false, entries, 7)) > 0) {
        for (int i = 0; i < n; i++) {
            int number;

            assert_true(entries[i].cookie > cookie);
            cookie = entries[i].cookie;
            if (sscanf(entries[i].name, "stay%d", &number) == 1)
                assert_int_equal(seen[number]++, 0);
        }
        snprintf(name, sizeof(name), "go%d", step++);
        assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, name, NULL), 0);
        if (step < 10) {
            snprintf(name, sizeof(name), "come%d", step);
            make_file(f, name, 0);
        }
    }
    assert_int_equal(n, 0);
    for (int i = 0; i < FILES; i++)
        assert_int_equal(seen[i], 1);
}

/* Of the first entry behind a cookie; "": there is none. */
static const char *name_after(struct fixture *f, uint64_t cookie, uint64_t end)
{
    static struct fs_dir_entry entry;
    int n = fs_readdir(f->fs, FS_ROOT_INO, cookie, end, false, &entry, 1);

    assert_true(n >= 0);
    return n ? entry.name : "";
}

static void what_came_later_is_behind_the_end(void **state)
{
    struct fixture *f = *state;
    uint64_t before, after;

    make_file(f, "a", 0);
    assert_int_equal(fs_readdir_end(f->fs, FS_ROOT_INO, &before), 0);
    make_file(f, "b", 0);
    assert_int_equal(fs_readdir_end(f->fs, FS_ROOT_INO, &after), 0);
    assert_string_equal(name_after(f, 2, before), "a");
    assert_string_equal(name_after(f, before - 1, before), "");
    assert_string_equal(name_after(f, before - 1, after), "b");
    assert_string_equal(name_after(f, after - 1, after), "");
    assert_int_equal(fs_readdir_end(f->fs, make_file(f, "c", 0), &after), -ENOTDIR);
    assert_int_equal(fs_readdir_end(f->fs, 12345, &after), -ESTALE);
}

static void another_name_in_the_same_directory_is_at_the_same_place(void **state)
{
    struct fixture *f = *state;
    struct fs_cred root = {0, 0};
    uint64_t dir = make_dir(f, FS_ROOT_INO, "dir"), end;

    make_file(f, "a", 0);
    make_file(f, "b", 0);
    assert_int_equal(fs_readdir_end(f->fs, FS_ROOT_INO, &end), 0);
    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "a", FS_ROOT_INO, "A", 0, root, NULL), 0);
    assert_string_equal(name_after(f, 3, end), "A");
    assert_string_equal(name_after(f, 4, end), "b");
    assert_true(exists(f, FS_ROOT_INO, "A") && !exists(f, FS_ROOT_INO, "a"));

    /* What leaves the directory and comes back has come later; so has what leaves a whiteout behind. */
    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "A", dir, "a", 0, root, NULL), 0);
    assert_int_equal(fs_rename(f->fs, dir, "a", FS_ROOT_INO, "a", 0, root, NULL), 0);
    assert_string_equal(name_after(f, 3, UINT64_MAX), "b");
    assert_string_equal(name_after(f, 5, UINT64_MAX), "a");
    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "b", FS_ROOT_INO, "B", RENAME_WHITEOUT, root, NULL), 0);
    assert_string_equal(name_after(f, 3, UINT64_MAX), "b");
    assert_string_equal(name_after(f, 6, UINT64_MAX), "B");
}

static void a_path_is_told_by_one_of_the_names(void **state)
{
    struct fixture *f = *state;
    uint64_t a = make_dir(f, FS_ROOT_INO, "a");
    uint64_t file = make_file_in(f, make_dir(f, a, "b"), "c", 0);
    char path[64] = "";

    assert_int_equal(fs_getxattr(f->fs, file, FS_XATTR_PATH, path, sizeof(path)), 6);
    assert_string_equal(path, "/a/b/c");
    assert_int_equal(fs_getxattr(f->fs, FS_ROOT_INO, FS_XATTR_PATH, path, sizeof(path)), 1);
    assert_int_equal(path[0], '/');
    assert_int_equal(fs_getxattr(f->fs, file, FS_XATTR_PATH, path, 3), -ERANGE);
    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "a", FS_ROOT_INO, "z", 0, (struct fs_cred){0}, NULL), 0);
    memset(path, 0, sizeof(path));
    assert_int_equal(fs_getxattr(f->fs, file, FS_XATTR_PATH, path, sizeof(path)), 6);
    assert_string_equal(path, "/z/b/c");
}

static void the_parent_is_found_by_its_dots(void **state)
{
    struct fixture *f = *state;
    uint64_t a = make_dir(f, FS_ROOT_INO, "a");
    uint64_t b = make_dir(f, a, "b");
    struct fs_entry entry;

    assert_int_equal(fs_lookup(f->fs, b, "..", &entry), 0);
    assert_int_equal(entry.ino, a);
    assert_int_equal(fs_rename(f->fs, a, "b", FS_ROOT_INO, "b", 0, (struct fs_cred){0}, NULL), 0);
    assert_int_equal(fs_lookup(f->fs, b, "..", &entry), 0);
    assert_int_equal(entry.ino, FS_ROOT_INO);
    assert_int_equal(fs_lookup(f->fs, b, ".", &entry), 0);
    assert_int_equal(entry.ino, b);
    assert_int_equal(fs_lookup(f->fs, 999, ".", &entry), -ESTALE);
    assert_int_equal(fs_lookup(f->fs, FS_ROOT_INO, "..", &entry), 0);
    assert_int_equal(entry.ino, FS_ROOT_INO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_file_lives_until_its_last_name_and_lookup_are_gone),
        TEST(the_last_inode_is_not_refused_because_of_others_who_fail),
        TEST(a_named_file_outlives_its_lookups),
        TEST(forgetting_more_than_was_looked_up_takes_what_there_is),
        TEST(every_listed_entry_but_the_dots_counts_as_a_lookup),
        TEST(inode_numbers_are_not_reused),
        TEST(names_are_checked),
        TEST(nothing_is_added_to_a_removed_directory),
        TEST(an_unlinked_file_is_not_linked_again_but_a_nameless_one_is),
        TEST(a_directory_does_not_move_into_itself),
        TEST(renaming_one_of_two_names_onto_the_other_does_nothing),
        TEST(a_listing_goes_on_where_it_stopped_whatever_changes),
        TEST(what_came_later_is_behind_the_end),
        TEST(another_name_in_the_same_directory_is_at_the_same_place),
        TEST(a_path_is_told_by_one_of_the_names),
        TEST(the_parent_is_found_by_its_dots),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
