/* SPDX-License-Identifier: BSD-2-Clause */
/* A full pool, part of which lies behind a fence: every operation that needs space waits for it, holding no thread. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "tests/unit/fs_fixture.h"

struct parked_op {
    struct lease_waiter waiter; /* first */
    unsigned resumed;
};

static void count_resume(struct lease_waiter *waiter)
{
    ((struct parked_op *)waiter)->resumed++;
}

enum { WRITE, ALLOCATE, ZERO, UNSHARE, TRUNCATE, COPY, PREPARE, CLONE, N_OPERATIONS };

struct files {
    uint64_t hole, shared, source;
};

/* Each needs a block: that is, the files are made so that it does. */
static int64_t operate(struct fixture *f, int operation, const struct files *files, struct lease_waiter *waiter)
{
    static const struct lease_credentials root = {.uid = 0, .gid = 0};
    struct stat attr = {.st_size = BLOCK + 1};

    switch (operation) {
    case WRITE:
        return fs_write(f->fs, files->hole, 0, "!", 1, false, waiter);
    case ALLOCATE:
        return fs_fallocate(f->fs, files->hole, 0, 0, BLOCK, false, waiter);
    case ZERO:
        return fs_fallocate(f->fs, files->hole, FALLOC_FL_ZERO_RANGE, 0, BLOCK, false, waiter);
    case UNSHARE:
        return fs_fallocate(f->fs, files->shared, FALLOC_FL_UNSHARE_RANGE, 0, BLOCK, false, waiter);
    case TRUNCATE: /* the new last block is shared: its slack is zeroed in a copy */
        return fs_setattr(f->fs, files->shared, &attr, FS_SET_SIZE, waiter, &attr, NULL);
    case COPY: /* not congruent: bytes are copied */
        return fs_copy(f->fs, files->source, 1, files->hole, 0, BLOCK, false, waiter);
    case PREPARE:
        return fs_layout_ops.prepare(f->fs, files->hole, (struct lease_range){0, BLOCK}, false, false, waiter);
    case CLONE: /* a lease holds the source's block: it is copied */
        return fs_layout_ops.clone(f->fs, "/leased", "/hole", &root, waiter);
    }
    return -1;
}

static void make_hole(struct fixture *f, uint64_t ino, uint64_t size)
{
    struct stat attr = {.st_size = (off_t)size};

    assert_int_equal(fs_setattr(f->fs, ino, &attr, FS_SET_SIZE, NULL, &attr, NULL), 0);
}

static void fill_the_pool(struct fixture *f)
{
    uint64_t ino = make_file(f, "ballast", 0);
    struct pool_usage usage;

    pool_usage(f->pool, &usage);
    assert_int_equal(fs_fallocate(f->fs, ino, 0, 0, usage.free * BLOCK, false, NULL), 0);
    pool_usage(f->pool, &usage);
    assert_int_equal(usage.free, 0);
}

static void every_operation_waits_for_the_space_behind_a_fence(void **state)
{
    static const char *const names[] = {"hole", "shared", "source", "clone", "leased", "ballast"};
    struct fixture *f = *state;

    for (int operation = 0; operation < N_OPERATIONS; operation++) {
        struct parked_op op = {.waiter = {.resume = count_resume}};
        struct files files = {make_file(f, "hole", 0), make_file(f, "shared", 2 * BLOCK),
                              make_file(f, "source", 2 * BLOCK)};
        uint64_t clone = make_file(f, "clone", 0), victim = make_file(f, "victim", 4 * BLOCK);
        uint64_t leased = make_file(f, "leased", BLOCK);
        struct test_lease lease = take_lease(f, victim, LEASE_READ, 0, 4 * BLOCK);
        struct test_lease reader = take_lease(f, leased, LEASE_READ, 0, BLOCK);

        make_hole(f, files.hole, BLOCK);
        assert_int_equal(fs_copy(f->fs, files.shared, 0, clone, 0, 2 * BLOCK, false, NULL), 2 * BLOCK);
        fill_the_pool(f);
        if (operate(f, operation, &files, NULL) != -ENOSPC)
            fail_msg("operation %d needed no space", operation);
        /* Its lease ended, and the file went; the blocks are the hold's until the fence. */
        assert_int_equal(lease_return(f->table, SESSION, lease.id, 0, NOW), 0);
        assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "victim", NULL), 0);
        fs_forget(f->fs, victim, 1);
        if (operate(f, operation, &files, &op.waiter) != -EINPROGRESS)
            fail_msg("operation %d did not wait", operation);
        assert_int_equal(op.resumed, 0);
        fs_layout_ops.release(f->fs, lease.hold);
        lease_fenced(f->table, lease.id, true, NOW);
        if (op.resumed != 1)
            fail_msg("operation %d was not resumed", operation);
        if (operate(f, operation, &files, &op.waiter) < 0)
            fail_msg("operation %d failed though there is space", operation);
        fs_op_end(f->fs, &op.waiter);
        end_lease(f, &reader);
        assert_int_equal(lease_table_check(f->table), 0);
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, names[i], NULL), 0);
        for (uint64_t ino = files.hole; ino <= leased + 1; ino++) /* the ballast came last */
            if (ino != victim)
                fs_forget(f->fs, ino, 1);
    }
}

static void with_no_fence_running_a_full_pool_is_told_at_once(void **state)
{
    struct fixture *f = *state;
    struct parked_op op = {.waiter = {.resume = count_resume}};
    uint64_t ino = make_file(f, "a", BLOCK), other = make_file(f, "b", 0);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, 0, BLOCK);

    fill_the_pool(f);
    assert_int_equal(fs_write(f->fs, other, 0, "!", 1, false, &op.waiter), -ENOSPC);
    end_lease(f, &lease);
    assert_int_equal(fs_write(f->fs, other, 0, "!", 1, false, &op.waiter), -ENOSPC); /* the file has it still */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_operation_waits_for_the_space_behind_a_fence),
        TEST(with_no_fence_running_a_full_pool_is_told_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
