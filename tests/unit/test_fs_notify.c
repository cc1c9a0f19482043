/* SPDX-License-Identifier: BSD-2-Clause */
/* What is told the kernel is told without locks, and is done with where there is no kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fused/fs_private.h"
#include "fused/fuse_notify.h"
#include "lease/lock_order.h"
#include "tests/unit/fs_fixture.h"
#include "tests/unit/survives.h"

static struct fixture *fixture;
static struct fuse_notifier *notifier;
static struct fs_inode *inode; /* locked or not */

static void count(void *arg)
{
    ++*(unsigned *)arg;
}

static void tell_of_an_inode(void)
{
    fuse_notify_inode(notifier, inode->ino, 0, 0);
}

static void tell_of_a_name(void)
{
    fuse_notify_entry(notifier, FS_ROOT_INO, "a");
}

static void tell_of_an_inode_later(void)
{
    fuse_notify_inode_later(notifier, inode->ino, 0, 0, NULL, NULL);
}

static void forget_attributes(void)
{
    cache_forget_attr(fixture->fs, inode->ino);
}

static void forget_bytes(void)
{
    cache_forget_bytes(fixture->fs, inode->ino, range_from(0));
}

static void forget_bytes_later(void)
{
    unsigned done = 0;

    cache_forget_bytes_later(fixture->fs, inode->ino, range_from(0), count, &done);
}

static void forget_a_name(void)
{
    cache_forget_name(fixture->fs, FS_ROOT_INO, "a");
}

static void the_kernel_is_told_nothing_with_an_inode_locked(void **state)
{
    static void (*const tell[])(void) = {
        tell_of_an_inode, tell_of_a_name, tell_of_an_inode_later, forget_attributes,
        forget_bytes,     forget_a_name,  forget_bytes_later,
    };

    fixture = *state;
    assert_int_equal(fuse_notifier_new(&notifier), 0);
    inode = inode_get(fixture->fs, make_file(fixture, "a", 0));
    for (size_t i = 0; i < sizeof(tell) / sizeof(*tell); i++) {
        assert_true(survives(tell[i]));
#ifdef LEASEFS_LOCK_CHECK
        inode_lock_shared(inode);
        assert_false(survives(tell[i]));
        inode_unlock(inode);
#endif
    }
    inode_put(fixture->fs, inode);
    fuse_notifier_free(notifier);
}

static void without_a_mount_a_notice_is_done_at_once(void **state)
{
    struct fixture *f = *state;
    unsigned done = 0;

    fs_forget_pages(f->fs, FS_ROOT_INO, count, &done);
    assert_int_equal(done, 1);
    assert_int_equal(fuse_notifier_new(&notifier), 0);
    fuse_notify_inode_later(notifier, FS_ROOT_INO, 0, 0, count, &done);
    assert_int_equal(done, 2);
    fuse_notifier_stop(notifier); /* of one that was never started */
    fuse_notifier_free(notifier);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_kernel_is_told_nothing_with_an_inode_locked, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(without_a_mount_a_notice_is_done_at_once, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
