/* SPDX-License-Identifier: BSD-2-Clause */
/* Nobody is told that there is no space while some is on its way. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/statvfs.h>

#include "tests/unit/fs_fixture.h"

#include "fused/fs_front_door.h"
#include "fused/fs_space.h"

#define SOON_MS 50 /* what must not happen has not happened by then */
#define ROOT                                                                                                           \
    (struct fs_cred)                                                                                                   \
    {                                                                                                                  \
        0, 0                                                                                                           \
    }

/* What Linux has forgotten, but nobody has read yet. */
struct kernel {
    struct fs *fs;
    uint64_t forgotten;
    unsigned asked;
};

static void catch_up(void *arg)
{
    struct kernel *kernel = arg;

    kernel->asked++;
    if (kernel->forgotten)
        fs_forget(kernel->fs, kernel->forgotten, 1);
    kernel->forgotten = 0;
}

/* A file that takes all but a few blocks, and has lost its name; Linux still knows it. */
static uint64_t nameless_file(struct fixture *f)
{
    uint64_t ino = make_file(f, "large", POOL_BYTES - 4 * BLOCK);

    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "large", NULL), 0);
    return ino;
}

static int64_t write_much(struct fixture *f, uint64_t ino, size_t size)
{
    char *bytes = malloc(size);
    int64_t done;

    memset(bytes, 'm', size);
    done = fs_write(f->fs, ino, 0, bytes, size, false, NULL);
    free(bytes);
    return done;
}

static void what_is_forgotten_but_not_read_is_space(void **state)
{
    struct fixture *f = *state;
    struct kernel kernel = {.fs = f->fs};
    uint64_t file = make_file(f, "file", 0);
    struct statvfs usage;

    fs_set_catch_up(f->fs, catch_up, &kernel);
    kernel.forgotten = nameless_file(f);
    assert_int_equal(write_much(f, file, BLOCK), BLOCK);
    assert_int_equal(kernel.asked, 0); /* there was space */
    assert_int_equal(fs_fallocate(f->fs, file, 0, 0, 8 * BLOCK, false, NULL), 0);
    assert_int_equal(kernel.asked, 1);

    fs_unlink(f->fs, FS_ROOT_INO, "file", NULL);
    kernel.forgotten = file;
    assert_int_equal(fs_statfs(f->fs, &usage), 0);
    assert_int_equal(usage.f_bfree, POOL_BYTES / BLOCK);
    assert_int_equal(usage.f_files - usage.f_ffree, 1);
}

/* Whoever wrote as much as there was goes on with what has come. */
static void a_write_is_not_short_for_what_is_forgotten(void **state)
{
    struct fixture *f = *state;
    struct kernel kernel = {.fs = f->fs};
    uint64_t file = make_file(f, "file", 0);

    fs_set_catch_up(f->fs, catch_up, &kernel);
    kernel.forgotten = nameless_file(f);
    assert_int_equal(write_much(f, file, 100 * BLOCK), 100 * BLOCK);
    assert_int_equal(stat_of(f, file).st_size, 100 * BLOCK);
    fs_forget(f->fs, file, 1);
}

static void a_forgotten_inode_makes_room_for_another(void **state)
{
    struct fixture *f = *state;
    struct kernel kernel = {.fs = f->fs};
    struct fs_entry entry;
    char name[32];
    uint64_t some;
    size_t n = 0;

    fs_set_catch_up(f->fs, catch_up, &kernel);
    some = make_file(f, "some", 0);
    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "some", NULL), 0);
    while (snprintf(name, sizeof(name), "%zu", n++),
           fs_mknod(f->fs, FS_ROOT_INO, name, S_IFREG | 0600, 0, ROOT, &entry) == 0)
        fs_forget(f->fs, entry.ino, 1);
    kernel.forgotten = some;
    assert_int_equal(fs_mknod(f->fs, FS_ROOT_INO, "one", S_IFREG | 0600, 0, ROOT, &entry), 0);
    fs_forget(f->fs, entry.ino, 1);
    assert_int_equal(fs_mknod(f->fs, FS_ROOT_INO, "two", S_IFREG | 0600, 0, ROOT, &entry), -ENOSPC);
}

static void where_nothing_comes_there_is_no_space(void **state)
{
    struct fixture *f = *state;
    uint64_t large = make_file(f, "large", POOL_BYTES), file = make_file(f, "file", 0);

    assert_int_equal(write_much(f, file, BLOCK), -ENOSPC);
    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "large", NULL), 0);
    assert_int_equal(write_much(f, file, BLOCK), -ENOSPC); /* somebody has it open */
    fs_forget(f->fs, large, 1);
    assert_int_equal(write_much(f, file, BLOCK), BLOCK);
    fs_forget(f->fs, file, 1);
}

/* ---- others give back meanwhile ---- */

struct other {
    struct fixture *f;
    atomic_bool done;
};

static void *settle(void *arg)
{
    struct other *other = arg;

    space_settle(other->f->fs);
    atomic_store(&other->done, true);
    return NULL;
}

static void a_large_file_on_its_way_back_is_waited_for(void **state)
{
    struct other other = {.f = *state};
    struct fs *fs = other.f->fs;
    pthread_t thread;

    space_giving(fs, true);
    assert_int_equal(pthread_create(&thread, NULL, settle, &other), 0);
    poll(NULL, 0, SOON_MS);
    assert_false(atomic_load(&other.done));
    space_given(fs, true);
    pthread_join(thread, NULL);
    assert_true(atomic_load(&other.done));
}

struct parked_op {
    struct lease_waiter waiter; /* first */
    unsigned resumed;
};

static void count_resume(struct lease_waiter *waiter)
{
    ((struct parked_op *)waiter)->resumed++;
}

/* Linux tells of the last close(2) of a file without a name when it is past, too. */
static void files_without_names_are_waited_for_without_a_thread(void **state)
{
    struct fixture *f = *state;
    struct parked_op op = {.waiter = {.resume = count_resume}};
    uint64_t large = make_file(f, "large", POOL_BYTES), file = make_file(f, "file", 0);

    assert_int_equal(fs_write(f->fs, file, 0, "!", 1, false, &op.waiter), -ENOSPC); /* it has its name */
    fs_unlink(f->fs, FS_ROOT_INO, "large", NULL);
    assert_int_equal(fs_write(f->fs, file, 0, "!", 1, false, &op.waiter), -EINPROGRESS);
    assert_int_equal(op.resumed, 0);
    fs_forget(f->fs, large, 1);
    assert_int_equal(op.resumed, 1);
    assert_int_equal(fs_write(f->fs, file, 0, "!", 1, false, &op.waiter), 1);
    fs_forget(f->fs, file, 1);
}

static uint64_t first_deadline_of(struct fixture *f, uint64_t ino, struct parked_op *op)
{
    uint64_t before = fs_monotonic_ns();

    *op = (struct parked_op){.waiter = {.resume = count_resume}};
    assert_int_equal(fs_write(f->fs, ino, 0, "!", 1, false, &op->waiter), -EINPROGRESS);
    return lease_next_deadline(f->table) - before;
}

/* Who keeps a file open does not make everybody wait for long, again and again. */
static void the_same_files_are_waited_for_long_only_once(void **state)
{
    struct fixture *f = *state;
    uint64_t large = make_file(f, "large", POOL_BYTES - BLOCK), file = make_file(f, "file", 0), small;
    struct parked_op op;
    uint64_t first_ns, second_ns;

    small = make_file(f, "small", BLOCK);
    fs_unlink(f->fs, FS_ROOT_INO, "large", NULL);
    first_ns = first_deadline_of(f, file, &op);
    assert_int_equal(lease_table_check(f->table), 0);
    lease_tick(f->table, lease_next_deadline(f->table));
    assert_int_equal(op.resumed, 1);
    while (fs_monotonic_ns() < op.waiter.space_expected_until_ns)
        sched_yield();
    assert_int_equal(fs_write(f->fs, file, 0, "!", 1, false, &op.waiter), -ENOSPC);

    second_ns = first_deadline_of(f, file, &op);
    assert_true(second_ns * 5 < first_ns);
    assert_true(lease_waiter_cancel(f->table, &op.waiter, fs_monotonic_ns()));

    fs_unlink(f->fs, FS_ROOT_INO, "small", NULL); /* another */
    assert_true(first_deadline_of(f, file, &op) > second_ns * 5);
    fs_forget(f->fs, small, 1);
    assert_int_equal(op.resumed, 1);
    fs_forget(f->fs, large, 1);
    fs_forget(f->fs, file, 1);
}

/* Only files that are there and have no name are such. */
static void files_without_names_are_counted(void **state)
{
    struct fixture *f = *state;
    struct fs *fs = f->fs;
    uint64_t a = make_file(f, "a", 1), b = make_file(f, "b", 1), c = make_file(f, "c", 1), dir;
    struct fs_entry entry;

    assert_int_equal(fs_tmpfile(fs, FS_ROOT_INO, 0600, ROOT, &entry), 0);
    assert_int_equal(atomic_load(&fs->space.nameless), 1);
    fs_link(fs, entry.ino, FS_ROOT_INO, "named", &entry);
    assert_int_equal(atomic_load(&fs->space.nameless), 0);
    fs_forget(fs, entry.ino, 2);

    fs_link(fs, a, FS_ROOT_INO, "a2", &entry);
    fs_unlink(fs, FS_ROOT_INO, "a", NULL);
    assert_int_equal(atomic_load(&fs->space.nameless), 0);
    fs_unlink(fs, FS_ROOT_INO, "a2", NULL);
    assert_int_equal(atomic_load(&fs->space.nameless), 1);
    fs_rename(fs, FS_ROOT_INO, "b", FS_ROOT_INO, "c", 0, (struct fs_cred){0}, NULL);
    assert_int_equal(atomic_load(&fs->space.nameless), 2);
    fs_forget(fs, a, 2);
    fs_forget(fs, c, 1);
    assert_int_equal(atomic_load(&fs->space.nameless), 0);

    dir = make_dir(f, FS_ROOT_INO, "dir");
    fs_rmdir(fs, FS_ROOT_INO, "dir");
    assert_int_equal(atomic_load(&fs->space.nameless), 0);
    fs_forget(fs, dir, 1);
    fs_forget(fs, b, 1);
    fs_unlink(fs, FS_ROOT_INO, "c", NULL);
    assert_int_equal(atomic_load(&fs->space.nameless), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_forgotten_but_not_read_is_space, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_write_is_not_short_for_what_is_forgotten, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_forgotten_inode_makes_room_for_another, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(where_nothing_comes_there_is_no_space, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_large_file_on_its_way_back_is_waited_for, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(files_without_names_are_waited_for_without_a_thread, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(the_same_files_are_waited_for_long_only_once, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(files_without_names_are_counted, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
