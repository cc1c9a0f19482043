/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: security */
/* Access control lists as values, and what those who come by the control socket get of them (I9). */
#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>

#include "fused/fs_acl.h"
#include "tests/unit/fs_fixture.h"

struct acl {
    struct posix_acl_xattr_header header;
    struct posix_acl_xattr_entry entries[8];
};

#define E(tag, perm, id)                                                                                               \
    {                                                                                                                  \
        tag, perm, id                                                                                                  \
    }
#define NOBODY ACL_UNDEFINED_ID
#define ACL(...)                                                                                                       \
    {                                                                                                                  \
        .header = {POSIX_ACL_XATTR_VERSION}, .entries = { __VA_ARGS__ }                                                \
    }
#define SIZE(n) (sizeof(struct posix_acl_xattr_header) + (n) * sizeof(struct posix_acl_xattr_entry))

static const struct acl plain = ACL(E(ACL_USER_OBJ, 6, NOBODY), E(ACL_GROUP_OBJ, 4, NOBODY), E(ACL_OTHER, 0, NOBODY));
static const struct acl full = ACL(E(ACL_USER_OBJ, 7, NOBODY), E(ACL_USER, 6, 11), E(ACL_GROUP_OBJ, 4, NOBODY),
                                   E(ACL_GROUP, 7, 22), E(ACL_MASK, 6, NOBODY), E(ACL_OTHER, 1, NOBODY));

static void malformed_lists_are_refused(void **state)
{
    struct acl twice = ACL(E(ACL_USER_OBJ, 6, NOBODY), E(ACL_USER_OBJ, 6, NOBODY), E(ACL_GROUP_OBJ, 4, NOBODY),
                           E(ACL_OTHER, 0, NOBODY));
    struct acl unmasked =
        ACL(E(ACL_USER_OBJ, 6, NOBODY), E(ACL_USER, 6, 11), E(ACL_GROUP_OBJ, 4, NOBODY), E(ACL_OTHER, 0, NOBODY));
    struct acl disorder = ACL(E(ACL_GROUP_OBJ, 6, NOBODY), E(ACL_USER_OBJ, 4, NOBODY), E(ACL_OTHER, 0, NOBODY));
    struct acl wide = ACL(E(ACL_USER_OBJ, 8, NOBODY), E(ACL_GROUP_OBJ, 4, NOBODY), E(ACL_OTHER, 0, NOBODY));
    struct acl unknown = ACL(E(ACL_USER_OBJ, 6, NOBODY), E(ACL_GROUP_OBJ, 4, NOBODY), E(0x40, 0, NOBODY));
    struct acl version = plain;

    (void)state;
    version.header.a_version = 1;
    assert_int_equal(acl_check(&plain, SIZE(3)), 0);
    assert_int_equal(acl_check(&full, SIZE(6)), 0);
    assert_int_equal(acl_check(&twice, SIZE(4)), -EINVAL);
    assert_int_equal(acl_check(&unmasked, SIZE(4)), -EINVAL);
    assert_int_equal(acl_check(&disorder, SIZE(3)), -EINVAL);
    assert_int_equal(acl_check(&wide, SIZE(3)), -EINVAL);
    assert_int_equal(acl_check(&unknown, SIZE(3)), -EINVAL);
    assert_int_equal(acl_check(&version, SIZE(3)), -EOPNOTSUPP);
    assert_int_equal(acl_check(&full, SIZE(5)), -EINVAL);
    assert_int_equal(acl_check(&plain, SIZE(3) - 1), -EINVAL);
    assert_int_equal(acl_check(&plain, SIZE(0)), -EINVAL);
    assert_int_equal(acl_check(&plain, 0), -EINVAL);
}

static void list_and_mode_follow_each_other(void **state)
{
    struct acl list = full;

    (void)state;
    assert_int_equal(acl_to_mode(&plain, SIZE(3), 02777), 02640);
    assert_int_equal(acl_to_mode(&full, SIZE(6), 0), 0761); /* the mask shows */
    acl_follow_mode(&list, SIZE(6), 04752);
    assert_int_equal(acl_to_mode(&list, SIZE(6), 0), 0752);
    assert_int_equal(list.entries[2].e_perm, 4); /* the group's own bits stay */
    list = full;
    assert_int_equal(acl_inherit(&list, SIZE(6), 02604), 02600);
    assert_int_equal(acl_to_mode(&list, SIZE(6), 0), 0600);
    assert_true(acl_is_plain(SIZE(3)));
    assert_false(acl_is_plain(SIZE(6)));
}

static bool in_one_group(const void *arg, gid_t gid)
{
    return gid == *(const gid_t *)arg;
}

static unsigned granted(uid_t uid, gid_t gid, unsigned wanted)
{
    struct acl_who who = {.uid = uid, .in_group = in_one_group, .arg = &gid};

    return acl_granted(&full, SIZE(6), 1, 2, &who, wanted) & wanted;
}

static void the_first_class_that_fits_decides(void **state)
{
    (void)state;
    assert_int_equal(granted(1, 99, 7), 7); /* the owner, unmasked */
    assert_int_equal(granted(11, 2, 7), 6); /* a named user, not by the group */
    assert_int_equal(granted(50, 2, 4), 4); /* the owning group */
    assert_int_equal(granted(50, 2, 2), 0);
    assert_int_equal(granted(50, 22, 6), 6); /* a named group, masked */
    assert_int_equal(granted(50, 22, 1), 0);
    assert_int_equal(granted(50, 99, 7), 1); /* others */
}

static int open_as(struct fixture *f, uid_t uid, enum lease_mode mode)
{
    struct lease_credentials who = {.uid = uid, .gid = uid};
    uint64_t ino;
    int err = fs_layout_ops.open(f->fs, "/a", &who, mode, &ino);

    if (!err)
        fs_layout_ops.close(f->fs, ino);
    return err;
}

static void leases_are_given_by_the_list(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 10);
    struct acl list = ACL(E(ACL_USER_OBJ, 7, NOBODY), E(ACL_USER, 6, 11), E(ACL_USER, 4, 12),
                          E(ACL_GROUP_OBJ, 0, NOBODY), E(ACL_MASK, 6, NOBODY), E(ACL_OTHER, 0, NOBODY));
    struct stat attr = {.st_mode = 0700};

    assert_int_equal(fs_setxattr(f->fs, ino, ACL_ACCESS_XATTR, &list, SIZE(6), 0), 0);
    assert_int_equal(stat_of(f, ino).st_mode & 07777, 0760);
    assert_int_equal(open_as(f, 11, LEASE_WRITE), 0);
    assert_int_equal(open_as(f, 12, LEASE_READ), 0);
    assert_int_equal(open_as(f, 12, LEASE_WRITE), -EACCES);
    assert_int_equal(open_as(f, 13, LEASE_READ), -EACCES);
    assert_int_equal(fs_setattr(f->fs, ino, &attr, FS_SET_MODE, NULL, &attr, NULL), 0);
    assert_int_equal(open_as(f, 11, LEASE_READ), -EACCES);
}

static void a_default_list_stands_in_for_the_umask(void **state)
{
    struct fixture *f = *state;
    struct fs_cred cred = {5, 6, 077};
    struct fs_entry entry;
    uint64_t dir = make_dir(f, FS_ROOT_INO, "d");
    struct acl list = full;

    assert_int_equal(fs_mknod(f->fs, dir, "before", S_IFREG | 0666, 0, cred, &entry), 0);
    assert_int_equal(entry.attr.st_mode & 07777, 0600);
    assert_int_equal(fs_setxattr(f->fs, dir, ACL_DEFAULT_XATTR, &list, SIZE(6), 0), 0);
    assert_int_equal(fs_mknod(f->fs, dir, "after", S_IFREG | 0666, 0, cred, &entry), 0);
    assert_int_equal(entry.attr.st_mode & 07777, 0660);
    assert_int_equal(fs_getxattr(f->fs, entry.ino, ACL_ACCESS_XATTR, NULL, 0), SIZE(6));
    assert_int_equal(fs_getxattr(f->fs, entry.ino, ACL_DEFAULT_XATTR, NULL, 0), -ENODATA);
    assert_int_equal(fs_setxattr(f->fs, entry.ino, ACL_DEFAULT_XATTR, &list, SIZE(6), 0), -EACCES);
    assert_int_equal(fs_mkdir(f->fs, dir, "dir", 0777, cred, &entry), 0);
    assert_int_equal(fs_getxattr(f->fs, entry.ino, ACL_DEFAULT_XATTR, NULL, 0), SIZE(6));
    assert_int_equal(fs_removexattr(f->fs, dir, ACL_DEFAULT_XATTR), 0);
    assert_int_equal(fs_removexattr(f->fs, dir, ACL_DEFAULT_XATTR), 0);
    assert_int_equal(fs_mknod(f->fs, dir, "then", S_IFREG | 0666, 0, cred, &entry), 0);
    assert_int_equal(entry.attr.st_mode & 07777, 0600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_lists_are_refused),
        cmocka_unit_test(list_and_mode_follow_each_other),
        cmocka_unit_test(the_first_class_that_fits_decides),
        cmocka_unit_test_setup_teardown(leases_are_given_by_the_list, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_default_list_stands_in_for_the_umask, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
