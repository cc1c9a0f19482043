/* SPDX-License-Identifier: BSD-2-Clause */
/* The policy of a file or directory, and what `orphan` makes of a file under lease. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>

#include "tests/unit/fs_fixture.h"

static int set_policy(struct fixture *f, uint64_t ino, const char *policy)
{
    return fs_setxattr(f->fs, ino, FS_XATTR_POLICY, policy, strlen(policy), 0);
}

static void expect_policy(struct fixture *f, uint64_t ino, const char *expected)
{
    char value[32] = "";
    int64_t length = fs_getxattr(f->fs, ino, FS_XATTR_POLICY, value, sizeof(value));

    if (!expected)
        assert_int_equal(length, -ENODATA);
    else
        assert_int_equal(length, strlen(expected));
    assert_string_equal(value, expected ? expected : "");
}

static void what_is_made_in_a_directory_takes_its_policy_over(void **state)
{
    struct fixture *f = *state;
    uint64_t dir = make_dir(f, FS_ROOT_INO, "d"), before = make_file_in(f, dir, "before", 0), sub, file;
    struct layout_attr attr;

    assert_int_equal(set_policy(f, dir, "orphan"), 0);
    sub = make_dir(f, dir, "sub");
    file = make_file_in(f, sub, "file", 0);
    expect_policy(f, before, NULL);
    expect_policy(f, sub, "orphan");
    expect_policy(f, file, "orphan");
    assert_int_equal(fs_layout_ops.getattr(f->fs, file, &attr), 0);
    assert_int_equal(attr.policy, LEASE_POLICY_ORPHAN);
    assert_int_equal(set_policy(f, file, "busy"), 0);
    expect_policy(f, file, "busy");
    assert_int_equal(fs_removexattr(f->fs, file, FS_XATTR_POLICY), 0);
    expect_policy(f, file, NULL);
    assert_int_equal(fs_removexattr(f->fs, file, FS_XATTR_POLICY), -ENODATA);
    assert_int_equal(set_policy(f, file, "anarchy"), -EINVAL);
    assert_int_equal(set_policy(f, file, ""), -EINVAL);
}

static void a_files_policy_goes_before_the_mounts(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 2 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_READ, 0, BLOCK);

    assert_int_equal(set_policy(f, ino, "busy"), 0);
    assert_int_equal(fs_write(f->fs, ino, 0, "!", 1, false, NULL), -EBUSY);
    assert_int_equal(f->recalls, 0);
    end_lease(f, &lease);
}

/* The bytes that a lease of the first two blocks reaches. */
static char *leased(struct fixture *f, const struct test_lease *lease)
{
    size_t n;

    return (char *)fs_layout_ops.segments(f->fs, &n)[lease->runs[0].segment].base + lease->runs[0].offset;
}

static void a_reader_keeps_the_bytes_as_they_were(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 4 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_READ, 0, 2 * BLOCK);
    struct stat attr = {.st_size = 0};
    const char *remote = leased(f, &lease);

    assert_int_equal(set_policy(f, ino, "orphan"), 0);
    assert_int_equal(fs_write(f->fs, ino, 5, "!", 1, false, NULL), 1);
    assert_int_equal(byte_at(f, ino, 5), '!');
    assert_int_equal(remote[5], 'a');
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLOCK, BLOCK, false, NULL),
                     0);
    assert_int_equal(byte_at(f, ino, BLOCK), 0);
    assert_int_equal(remote[BLOCK], 'a');
    assert_int_equal(fs_setattr(f->fs, ino, &attr, FS_SET_SIZE, NULL, &attr, NULL), 0);
    assert_int_equal(remote[0], 'a');
    /* Not even when the pool is short of blocks does anybody else get them (I1). */
    ino = make_file(f, "b", 4 * BLOCK);
    assert_int_equal(remote[0], 'a');
    assert_int_equal(remote[BLOCK], 'a');
    assert_int_equal(state_of(f, &lease), LEASE_ACTIVE);
    end_lease(f, &lease);
}

static void a_writers_late_writes_go_nowhere(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 4 * BLOCK), copy = make_file(f, "c", 0);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, 0, 2 * BLOCK);
    char *remote = leased(f, &lease);
    int64_t done;

    assert_int_equal(set_policy(f, ino, "orphan"), 0);
    remote[7] = 'W';
    assert_int_equal(fs_write(f->fs, ino, 5, "!", 1, false, NULL), 1);
    assert_int_equal(byte_at(f, ino, 7), 'W'); /* from before */
    remote[7] = 'L';
    remote[5] = 'L';
    assert_int_equal(byte_at(f, ino, 7), 'W');
    assert_int_equal(byte_at(f, ino, 5), '!');
    /* A copy of what the lease still reaches is one: the writer's next bytes are the file's, not the copy's. */
    done = fs_copy(f->fs, ino, BLOCK, copy, 0, BLOCK, false, NULL);
    assert_int_equal(done, BLOCK);
    remote[BLOCK] = 'N';
    assert_int_equal(byte_at(f, ino, BLOCK), 'N');
    assert_int_equal(byte_at(f, copy, 0), 'a');
    end_lease(f, &lease);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(what_is_made_in_a_directory_takes_its_policy_over),
        STORY(a_files_policy_goes_before_the_mounts),
        STORY(a_reader_keeps_the_bytes_as_they_were),
        STORY(a_writers_late_writes_go_nowhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
