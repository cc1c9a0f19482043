/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: security */
/* A remote client's paths: neither "..", nor links, nor directories that move lead out of its exports. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "lease/key_file.h"
#include "tests/unit/fs_fixture.h"

#define OPS fs_layout_ops

static struct path_export exports[] = {{(char *)"/data", false}, {(char *)"/pub", true}, {(char *)"/way/in", false}};
static const struct lease_credentials guest = {.uid = 0, .confined = true, .n_exports = 3, .exports = exports};
static const struct lease_credentials nowhere = {.uid = 0, .confined = true};
static const struct fs_cred root_cred = {0, 0};

static void link_to(struct fixture *f, uint64_t dir, const char *name, const char *target)
{
    struct fs_entry e;

    assert_int_equal(fs_symlink(f->fs, dir, name, target, root_cred, &e), 0);
}

/* /data/{x,sub/y}, /pub/p, /database, /secret, /real/in/z with /way/in a link to /real/in; links of all kinds. */
static int setup_tree(void **state)
{
    struct fixture *f;
    uint64_t data, sub, pub, real, way, in;

    fixture_setup(state);
    f = *state;
    data = make_dir(f, FS_ROOT_INO, "data");
    sub = make_dir(f, data, "sub");
    pub = make_dir(f, FS_ROOT_INO, "pub");
    real = make_dir(f, FS_ROOT_INO, "real");
    in = make_dir(f, real, "in");
    way = make_dir(f, FS_ROOT_INO, "way");
    make_file_in(f, data, "x", BLOCK);
    make_file_in(f, sub, "y", BLOCK);
    make_file_in(f, pub, "p", BLOCK);
    make_file_in(f, in, "z", BLOCK);
    make_file(f, "secret", BLOCK);
    make_file_in(f, make_dir(f, FS_ROOT_INO, "database"), "x", BLOCK);
    link_to(f, way, "in", "/real/in");
    link_to(f, data, "abs-out", "/secret");
    link_to(f, data, "rel-out", "../secret");
    link_to(f, data, "root", "/");
    link_to(f, data, "up", "..");
    link_to(f, sub, "up-and-out", "../../secret");
    link_to(f, data, "abs-in", "/data/sub/y");
    link_to(f, sub, "rel-in", "../x");
    link_to(f, data, "to-pub", "/pub/p");
    link_to(f, data, "to-pub-dir", "/pub");
    link_to(f, in, "out", "../../secret");
    link_to(f, data, "loop", "/data/loop");
    return 0;
}

static int open_close(struct fixture *f, const char *path, const struct lease_credentials *who, enum lease_mode mode)
{
    uint64_t ino;
    int err = OPS.open(f->fs, path, who, mode, &ino);

    if (!err)
        OPS.close(f->fs, ino);
    return err;
}

static const char *const outside[] = {
    "/secret",
    "/",
    "/..",
    "/database/x", /* "/data" is no prefix of it */
    "/dat",
    "/data/..",
    "/data/../secret",
    "/data/../data/x", /* in the end it would be inside; the way is not */
    "/data/sub/../../secret",
    "/data/./../secret",
    "//data//..//secret",
    "/./secret",
    "/../data/../secret",
    "/data/abs-out",
    "/data/rel-out",
    "/data/root/secret",
    "/data/root",
    "/data/up/secret",
    "/data/up",
    "/data/sub/up-and-out",
    "/way/in/out",
    "/way/in/../secret",
    "/real/in/z", /* the export's own path is what counts */
    "/way",
};

static void no_path_leads_out_of_an_export(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
        char deeper[128];
        uint64_t ino;

        if (open_close(f, outside[i], &guest, LEASE_READ) != -EACCES)
            fail_msg("read: %s", outside[i]);
        if (open_close(f, outside[i], &guest, LEASE_WRITE) != -EACCES)
            fail_msg("write: %s", outside[i]);
        assert_int_equal(OPS.clone(f->fs, outside[i], "/data/stolen", &guest, NULL), -EACCES);
        snprintf(deeper, sizeof(deeper), "%s/new", outside[i]); /* under a file or a directory outside */
        assert_true(OPS.create(f->fs, deeper, &guest, 0644, &ino) < 0);
        assert_true(OPS.clone(f->fs, "/data/x", deeper, &guest, NULL) < 0);
    }
    assert_false(exists(f, FS_ROOT_INO, "new"));
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]);
         i++) /* the same without walls: they are what stops it */
        if (strcmp(outside[i], "/data/sub/up-and-out") == 0) {
            const struct lease_credentials root = {.uid = 0};

            assert_int_equal(open_close(f, outside[i], &root, LEASE_READ), 0);
        }
}

/* Whether there is something outside is nobody's business. */
static void what_is_outside_looks_like_what_is_not_there(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(open_close(f, "/data/../secret", &guest, LEASE_READ), -EACCES);
    assert_int_equal(open_close(f, "/data/../no-such-file", &guest, LEASE_READ), -EACCES);
    assert_int_equal(open_close(f, "/secret", &guest, LEASE_READ), -EACCES);
    assert_int_equal(open_close(f, "/no-such-file", &guest, LEASE_READ), -EACCES);
    assert_int_equal(open_close(f, "/data/x", &nowhere, LEASE_READ), -EACCES);
}

static void what_is_inside_works(void **state)
{
    struct fixture *f = *state;
    static const char *const inside[] = {"/data/x",          "//data///x",      "/data/sub/y",
                                         "/data/sub/../x",   "/data/./sub/./y", "/data/abs-in",
                                         "/data/sub/rel-in", "/way/in/z",       "/data/sub/../sub/y"};
    uint64_t ino;

    for (size_t i = 0; i < sizeof(inside) / sizeof(inside[0]); i++)
        if (open_close(f, inside[i], &guest, LEASE_WRITE))
            fail_msg("%s", inside[i]);
    assert_int_equal(open_close(f, "/data/none", &guest, LEASE_READ), -ENOENT);
    assert_int_equal(open_close(f, "/data", &guest, LEASE_READ), -EISDIR);
    assert_int_equal(open_close(f, "/data/loop", &guest, LEASE_READ), -ELOOP);
    assert_int_equal(OPS.create(f->fs, "/data/sub/new", &guest, 0644, &ino), 0);
    assert_int_equal(OPS.publish(f->fs, ino, "/data/sub/new", &guest, NULL), 0);
    OPS.close(f->fs, ino);
    assert_int_equal(open_close(f, "/data/sub/new", &guest, LEASE_READ), 0);
    assert_int_equal(OPS.clone(f->fs, "/data/x", "/data/copy", &guest, NULL), 0);
}

static void nothing_changes_in_a_read_only_export(void **state)
{
    struct fixture *f = *state;
    uint64_t ino;

    assert_int_equal(open_close(f, "/pub/p", &guest, LEASE_READ), 0);
    assert_int_equal(open_close(f, "/pub/p", &guest, LEASE_WRITE), -EROFS);
    assert_int_equal(open_close(f, "/data/to-pub", &guest, LEASE_READ), 0);
    assert_int_equal(open_close(f, "/data/to-pub", &guest, LEASE_WRITE), -EROFS); /* by a link from a writable one */
    assert_int_equal(OPS.create(f->fs, "/pub/new", &guest, 0644, &ino), -EROFS);
    assert_int_equal(OPS.create(f->fs, "/data/to-pub-dir/new", &guest, 0644, &ino), -EROFS);
    assert_int_equal(OPS.clone(f->fs, "/data/x", "/pub/p", &guest, NULL), -EROFS);
    assert_int_equal(OPS.clone(f->fs, "/data/x", "/pub/new", &guest, NULL), -EROFS);
    assert_int_equal(OPS.create(f->fs, "/data/mine", &guest, 0644, &ino), 0);
    assert_int_equal(OPS.publish(f->fs, ino, "/pub/p", &guest, NULL), -EROFS);
    assert_int_equal(OPS.publish(f->fs, ino, "/pub/new", &guest, NULL), -EROFS);
    assert_int_equal(OPS.publish(f->fs, ino, "/secret", &guest, NULL), -EACCES);
    OPS.close(f->fs, ino);
    assert_int_equal(OPS.clone(f->fs, "/pub/p", "/data/p", &guest, NULL), 0); /* from there is reading */
}

/* I9: an export is no permission. */
static void permissions_count_inside_and_on_the_way_to_an_export(void **state)
{
    struct fixture *f = *state;
    struct lease_credentials bob = guest;
    struct fs_entry e;
    struct stat attr = {.st_mode = 0600};

    bob.uid = bob.gid = 1002;
    assert_int_equal(open_close(f, "/data/x", &bob, LEASE_READ), 0);
    assert_int_equal(open_close(f, "/data/x", &bob, LEASE_WRITE), -EACCES);
    assert_int_equal(fs_lookup(f->fs, FS_ROOT_INO, "real", &e), 0);
    assert_int_equal(open_close(f, "/way/in/z", &bob, LEASE_READ), 0);
    assert_int_equal(fs_setattr(f->fs, e.ino, &attr, FS_SET_MODE, NULL, &attr, NULL), 0);
    fs_forget(f->fs, e.ino, 1);
    assert_int_equal(open_close(f, "/way/in/z", &bob, LEASE_READ), -EACCES);
}

/* ---- directories that move ---- */

static atomic_bool stop;

static void *keep_looking(void *arg)
{
    struct fixture *f = arg;
    uint64_t ino;

    while (!atomic_load(&stop)) {
        /* Where sub is just then, its parent's "secret" is /secret or /data/secret, of which there is none. */
        int err = OPS.open(f->fs, "/data/sub/../secret", &guest, LEASE_READ, &ino);

        if (!err)
            OPS.close(f->fs, ino);
        if (err != -EACCES && err != -ENOENT)
            return (void *)1;
    }
    return NULL;
}

static void a_directory_that_moves_out_takes_nobody_along(void **state)
{
    struct fixture *f = *state;
    struct fs_entry data;
    pthread_t thread;
    void *escaped;

    assert_int_equal(fs_lookup(f->fs, FS_ROOT_INO, "data", &data), 0);
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, keep_looking, f), 0);
    for (int i = 0; i < 20000; i++) {
        assert_int_equal(fs_rename(f->fs, data.ino, "sub", FS_ROOT_INO, "sub", 0, (struct fs_cred){0}, NULL), 0);
        assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "sub", data.ino, "sub", 0, (struct fs_cred){0}, NULL), 0);
    }
    atomic_store(&stop, true);
    pthread_join(thread, &escaped);
    assert_null(escaped);
    fs_forget(f->fs, data.ino, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_path_leads_out_of_an_export, setup_tree, fixture_teardown),
        cmocka_unit_test_setup_teardown(what_is_outside_looks_like_what_is_not_there, setup_tree, fixture_teardown),
        cmocka_unit_test_setup_teardown(what_is_inside_works, setup_tree, fixture_teardown),
        cmocka_unit_test_setup_teardown(nothing_changes_in_a_read_only_export, setup_tree, fixture_teardown),
        cmocka_unit_test_setup_teardown(permissions_count_inside_and_on_the_way_to_an_export, setup_tree,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(a_directory_that_moves_out_takes_nobody_along, setup_tree, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
