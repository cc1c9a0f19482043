/* SPDX-License-Identifier: BSD-2-Clause */
/* Every operation that changes a layout or bytes asks at the front door, about the right range, and does nothing when
 * it has to wait. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>

#include "tests/unit/fs_fixture.h"

/* A parked operation; resumed counts. */
struct parked_op {
    struct lease_waiter waiter;
    unsigned resumed;
};

static void count_resume(struct lease_waiter *waiter)
{
    ((struct parked_op *)waiter)->resumed++;
}

#define PARKED_OP                                                                                                      \
    {                                                                                                                  \
        .waiter = {.resume = count_resume }                                                                            \
    }

static void done(struct fixture *f, struct parked_op *op)
{
    fs_op_end(f->fs, &op->waiter);
}

static int64_t write_byte(struct fixture *f, uint64_t ino, uint64_t offset, struct parked_op *op)
{
    return fs_write(f->fs, ino, offset, "!", 1, false, &op->waiter);
}

static int64_t resize(struct fixture *f, uint64_t ino, uint64_t size, struct parked_op *op)
{
    struct stat attr = {.st_size = (off_t)size};

    return fs_setattr(f->fs, ino, &attr, FS_SET_SIZE, &op->waiter, &attr, NULL);
}

static void a_write_waits_for_the_lease_on_its_bytes_and_changes_nothing_before(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 4 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_READ, BLOCK, BLOCK);
    struct parked_op op = PARKED_OP;
    struct stat before = stat_of(f, ino), after;

    assert_int_equal(write_byte(f, ino, BLOCK + 5, &op), -EINPROGRESS);
    assert_int_equal(f->recalls, 1);
    assert_int_equal(byte_at(f, ino, BLOCK + 5), 'a');
    after = stat_of(f, ino);
    assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim));
    end_lease(f, &lease);
    assert_int_equal(op.resumed, 1);
    assert_int_equal(write_byte(f, ino, BLOCK + 5, &op), 1);
    done(f, &op);
    assert_int_equal(byte_at(f, ino, BLOCK + 5), '!');
}

static void writes_beside_a_lease_go_on(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 4 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, BLOCK, BLOCK);
    struct parked_op op = PARKED_OP;

    assert_int_equal(write_byte(f, ino, BLOCK - 1, &op), 1);
    assert_int_equal(write_byte(f, ino, 2 * BLOCK, &op), 1);
    assert_int_equal(f->recalls, 0);
    end_lease(f, &lease);
}

/* The slack of the last block becomes part of the file, and it is leased. */
static void growing_a_file_waits_for_the_lease_on_its_last_block(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", BLOCK + 100);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, BLOCK, BLOCK);
    struct parked_op op = PARKED_OP;

    assert_int_equal(write_byte(f, ino, 5 * BLOCK, &op), -EINPROGRESS);
    assert_true(lease_waiter_cancel(f->table, &op.waiter, NOW));
    assert_int_equal(resize(f, ino, 5 * BLOCK, &op), -EINPROGRESS);
    assert_true(lease_waiter_cancel(f->table, &op.waiter, NOW));
    assert_int_equal(fs_fallocate(f->fs, ino, 0, 0, 5 * BLOCK, false, &op.waiter), -EINPROGRESS);
    assert_true(lease_waiter_cancel(f->table, &op.waiter, NOW));
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_ZERO_RANGE, 4 * BLOCK, BLOCK, false, &op.waiter), -EINPROGRESS);
    assert_true(lease_waiter_cancel(f->table, &op.waiter, NOW));
    assert_int_equal(stat_of(f, ino).st_size, BLOCK + 100);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_KEEP_SIZE, 0, 5 * BLOCK, false, &op.waiter), 0);
    end_lease(f, &lease);
}

static void growing_a_file_of_whole_blocks_disturbs_nobody(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 2 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, 0, 2 * BLOCK);
    struct parked_op op = PARKED_OP;

    assert_int_equal(write_byte(f, ino, 2 * BLOCK, &op), 1);
    assert_int_equal(resize(f, ino, 10 * BLOCK, &op), 0);
    assert_int_equal(f->recalls, 0);
    end_lease(f, &lease);
}

static void a_truncate_waits_for_leases_from_the_block_of_the_new_end(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 4 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_READ, BLOCK, BLOCK);
    struct parked_op op = PARKED_OP;

    assert_int_equal(resize(f, ino, 3 * BLOCK, &op), 0);
    assert_int_equal(resize(f, ino, 2 * BLOCK, &op), 0);
    assert_int_equal(f->recalls, 0);
    assert_int_equal(resize(f, ino, 2 * BLOCK - 1, &op), -EINPROGRESS);
    assert_int_equal(stat_of(f, ino).st_size, 2 * BLOCK);
    end_lease(f, &lease);
    assert_int_equal(op.resumed, 1);
    assert_int_equal(resize(f, ino, 2 * BLOCK - 1, &op), 0);
    done(f, &op);
    assert_int_equal(stat_of(f, ino).st_size, 2 * BLOCK - 1);
}

static void punching_and_zeroing_wait_for_leases_on_their_blocks(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 4 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_READ, BLOCK, BLOCK);
    struct parked_op op = PARKED_OP;
    int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

    assert_int_equal(fs_fallocate(f->fs, ino, punch, 2 * BLOCK, BLOCK, false, &op.waiter), 0);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_ZERO_RANGE, 3 * BLOCK, BLOCK, false, &op.waiter), 0);
    assert_int_equal(f->recalls, 0);
    assert_int_equal(fs_fallocate(f->fs, ino, punch, 0, BLOCK + 1, false, &op.waiter), -EINPROGRESS);
    assert_true(lease_waiter_cancel(f->table, &op.waiter, NOW));
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_ZERO_RANGE, BLOCK + 7, 1, false, &op.waiter), -EINPROGRESS);
    assert_true(lease_waiter_cancel(f->table, &op.waiter, NOW));
    assert_int_equal(byte_at(f, ino, BLOCK), 'a');
    end_lease(f, &lease);
}

static void collapsing_and_inserting_wait_for_leases_on_what_moves(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 4 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, BLOCK, BLOCK);
    struct parked_op op = PARKED_OP;

    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_INSERT_RANGE, 2 * BLOCK, BLOCK, false, &op.waiter), 0);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_COLLAPSE_RANGE, 2 * BLOCK, BLOCK, false, &op.waiter), 0);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_COLLAPSE_RANGE, 0, 4 * BLOCK, false, &op.waiter), -EINVAL);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_INSERT_RANGE, 1, BLOCK, false, &op.waiter), -EINVAL);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_INSERT_RANGE, 0, RANGE_MAX_END + 1 - BLOCK, false, &op.waiter),
                     -EFBIG);
    assert_int_equal(f->recalls, 0);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_COLLAPSE_RANGE, 0, BLOCK, false, &op.waiter), -EINPROGRESS);
    assert_true(lease_waiter_cancel(f->table, &op.waiter, NOW));
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_INSERT_RANGE, BLOCK, BLOCK, false, &op.waiter), -EINPROGRESS);
    assert_int_equal(stat_of(f, ino).st_size, 4 * BLOCK);
    end_lease(f, &lease);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_INSERT_RANGE, BLOCK, BLOCK, false, &op.waiter), 0);
    done(f, &op);
    assert_int_equal(stat_of(f, ino).st_size, 5 * BLOCK);
    assert_int_equal(byte_at(f, ino, BLOCK), 0);
}

static void unsharing_waits_only_where_it_replaces_blocks(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 4 * BLOCK), clone = make_file(f, "b", 0);
    struct parked_op op = PARKED_OP;
    struct test_lease lease;

    assert_int_equal(fs_copy(f->fs, ino, 0, clone, 0, BLOCK, false, &op.waiter), BLOCK);
    lease = take_lease(f, ino, LEASE_READ, 0, BLOCK);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_UNSHARE_RANGE, BLOCK, 9 * BLOCK, false, &op.waiter), 0);
    assert_int_equal(stat_of(f, ino).st_size, 10 * BLOCK);
    assert_int_equal(f->recalls, 0);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_UNSHARE_RANGE, 0, 1, false, &op.waiter), -EINPROGRESS);
    end_lease(f, &lease);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_UNSHARE_RANGE, 0, 1, false, &op.waiter), 0);
    done(f, &op);
    assert_int_equal(fs_fallocate(f->fs, ino, FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_PUNCH_HOLE, 0, 1, false, &op.waiter),
                     -EOPNOTSUPP);
}

static void unlinking_waits_when_it_is_the_last_name(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", BLOCK);
    struct test_lease lease;
    struct parked_op op = PARKED_OP;
    struct fs_entry entry;

    assert_int_equal(fs_link(f->fs, ino, FS_ROOT_INO, "b", &entry), 0);
    lease = take_lease(f, ino, LEASE_READ, 0, BLOCK);
    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "a", &op.waiter), 0);
    assert_int_equal(f->recalls, 0);
    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "b", &op.waiter), -EINPROGRESS);
    assert_true(exists(f, FS_ROOT_INO, "b"));
    end_lease(f, &lease);
    assert_int_equal(op.resumed, 1);
    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "b", &op.waiter), 0);
    done(f, &op);
    assert_false(exists(f, FS_ROOT_INO, "b"));
}

static void renaming_over_the_last_name_waits_and_other_renames_do_not(void **state)
{
    struct fixture *f = *state;
    uint64_t a = make_file(f, "a", BLOCK);
    uint64_t b = make_file(f, "b", BLOCK);
    struct test_lease lease_a = take_lease(f, a, LEASE_WRITE, 0, BLOCK);
    struct test_lease lease_b = take_lease(f, b, LEASE_WRITE, 0, BLOCK);
    struct parked_op op = PARKED_OP;

    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "a", FS_ROOT_INO, "c", 0, (struct fs_cred){0}, &op.waiter), 0);
    assert_int_equal(
        fs_rename(f->fs, FS_ROOT_INO, "c", FS_ROOT_INO, "b", RENAME_EXCHANGE, (struct fs_cred){0}, &op.waiter), 0);
    assert_int_equal(
        fs_rename(f->fs, FS_ROOT_INO, "c", FS_ROOT_INO, "b", RENAME_EXCHANGE, (struct fs_cred){0}, &op.waiter), 0);
    assert_int_equal(f->recalls, 0);
    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "c", FS_ROOT_INO, "b", 0, (struct fs_cred){0}, &op.waiter),
                     -EINPROGRESS);
    assert_true(exists(f, FS_ROOT_INO, "c"));
    assert_int_equal(state_of(f, &lease_a), LEASE_ACTIVE);
    assert_int_equal(state_of(f, &lease_b), LEASE_RECALLED);
    end_lease(f, &lease_b);
    assert_int_equal(fs_rename(f->fs, FS_ROOT_INO, "c", FS_ROOT_INO, "b", 0, (struct fs_cred){0}, &op.waiter), 0);
    done(f, &op);
    end_lease(f, &lease_a);
}

static void a_reflink_waits_for_a_writer_of_the_source_and_not_for_readers(void **state)
{
    struct fixture *f = *state;
    uint64_t a = make_file(f, "a", 2 * BLOCK);
    uint64_t b = make_file(f, "b", 0);
    struct test_lease reader = take_lease(f, a, LEASE_READ, 0, BLOCK);
    struct test_lease writer = take_lease(f, a, LEASE_WRITE, BLOCK, BLOCK);
    struct parked_op op = PARKED_OP;

    assert_int_equal(fs_copy(f->fs, a, 0, b, 0, BLOCK, false, &op.waiter), BLOCK);
    assert_int_equal(f->recalls, 0);
    assert_int_equal(fs_copy(f->fs, a, 0, b, 0, 2 * BLOCK, false, &op.waiter), -EINPROGRESS);
    assert_int_equal(state_of(f, &reader), LEASE_ACTIVE);
    assert_int_equal(state_of(f, &writer), LEASE_RECALLED);
    end_lease(f, &writer);
    assert_int_equal(fs_copy(f->fs, a, 0, b, 0, 2 * BLOCK, false, &op.waiter), 2 * BLOCK);
    done(f, &op);
    end_lease(f, &reader);
}

static void a_reflink_waits_for_any_lease_on_the_destination(void **state)
{
    struct fixture *f = *state;
    uint64_t a = make_file(f, "a", BLOCK);
    uint64_t b = make_file(f, "b", BLOCK);
    struct test_lease lease = take_lease(f, b, LEASE_READ, 0, BLOCK);
    struct parked_op op = PARKED_OP;

    assert_int_equal(fs_copy(f->fs, a, 0, b, 0, BLOCK, false, &op.waiter), -EINPROGRESS);
    assert_int_equal(byte_at(f, b, 0), 'b');
    end_lease(f, &lease);
    assert_int_equal(op.resumed, 1);
    assert_int_equal(fs_copy(f->fs, a, 0, b, 0, BLOCK, false, &op.waiter), BLOCK);
    done(f, &op);
}

/* Both ends leased: it waits for one and then for the other. */
static void a_reflink_between_two_leased_files_waits_for_each(void **state)
{
    struct fixture *f = *state;
    uint64_t a = make_file(f, "a", BLOCK);
    uint64_t b = make_file(f, "b", BLOCK);
    struct test_lease lease_a = take_lease(f, a, LEASE_WRITE, 0, BLOCK);
    struct test_lease lease_b = take_lease(f, b, LEASE_WRITE, 0, BLOCK);
    struct parked_op op = PARKED_OP;

    assert_int_equal(fs_copy(f->fs, a, 0, b, 0, BLOCK, false, &op.waiter), -EINPROGRESS);
    end_lease(f, &lease_a);
    assert_int_equal(op.resumed, 1);
    assert_int_equal(fs_copy(f->fs, a, 0, b, 0, BLOCK, false, &op.waiter), -EINPROGRESS);
    end_lease(f, &lease_b);
    assert_int_equal(op.resumed, 2);
    assert_int_equal(fs_copy(f->fs, a, 0, b, 0, BLOCK, false, &op.waiter), BLOCK);
    done(f, &op);
}

static void an_interrupted_operation_leaves_the_lease_alive(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, 0, BLOCK);
    struct parked_op op = PARKED_OP;

    assert_int_equal(resize(f, ino, 0, &op), -EINPROGRESS);
    assert_int_equal(state_of(f, &lease), LEASE_RECALLED);
    assert_true(lease_waiter_cancel(f->table, &op.waiter, NOW));
    done(f, &op);
    assert_int_equal(state_of(f, &lease), LEASE_ACTIVE);
    assert_int_equal(f->cancelled_recalls, 1);
    assert_int_equal(op.resumed, 0);
    assert_int_equal(stat_of(f, ino).st_size, BLOCK);
    end_lease(f, &lease);
}

static void who_cannot_wait_gets_eagain_and_the_recall_goes_out(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, 0, BLOCK);

    assert_int_equal(fs_write(f->fs, ino, 0, "!", 1, false, NULL), -EAGAIN);
    assert_int_equal(f->recalls, 1);
    end_lease(f, &lease);
    assert_int_equal(fs_write(f->fs, ino, 0, "!", 1, false, NULL), 1);
}

/* The silent holder: after its deadline the file lets go of the blocks, and what the peer still does shows nowhere. */
static void after_the_deadline_a_truncate_goes_on_and_the_blocks_stay_with_the_hold(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 2 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, 0, 2 * BLOCK);
    struct parked_op op = PARKED_OP;
    char *leased = (char *)pool_base(f->pool) + lease.runs[0].offset;
    struct pool_usage before, after;

    assert_int_equal(resize(f, ino, 10, &op), -EINPROGRESS);
    lease_tick(f->table, lease_next_deadline(f->table)); /* the recall's */
    assert_int_equal(op.resumed, 1);
    pool_usage(f->pool, &before);
    assert_int_equal(resize(f, ino, 10, &op), 0);
    done(f, &op);
    assert_int_equal(stat_of(f, ino).st_size, 10);
    pool_usage(f->pool, &after);
    assert_int_equal(after.free, before.free - 1); /* the tail was copied; the leased blocks are not free (I1) */
    memset(leased, 'X', BLOCK);
    assert_int_equal(byte_at(f, ino, 0), 'a'); /* I2 */
    fs_layout_ops.release(f->fs, lease.hold);
    lease_fenced(f->table, lease.id, true, NOW);
    pool_usage(f->pool, &after);
    assert_int_equal(after.free, before.free + 1);
}

static void a_leased_file_shows_as_such_until_the_last_lease_ends(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 2 * BLOCK);
    struct test_lease first = take_lease(f, ino, LEASE_READ, 0, BLOCK);
    struct test_lease second = take_lease(f, ino, LEASE_WRITE, BLOCK, BLOCK);
    char json[512] = "";
    bool leased, direct;

    assert_int_equal(fs_leased(f->fs, ino, &leased), 0);
    assert_true(leased);
    assert_int_equal(fs_open(f->fs, ino, O_RDWR, &direct), 0);
    assert_true(direct);
    assert_true(fs_getxattr(f->fs, ino, FS_XATTR_LEASES, json, sizeof(json) - 1) > 0);
    assert_non_null(strstr(json, "\"mode\":\"read\""));
    assert_non_null(strstr(json, "\"mode\":\"write\",\"state\":\"active\",\"offset\":4096,\"length\":4096"));
    end_lease(f, &second);
    assert_int_equal(fs_open(f->fs, ino, O_RDWR, &direct), 0);
    assert_false(direct);
    assert_int_equal(fs_leased(f->fs, ino, &leased), 0);
    assert_true(leased);
    end_lease(f, &first);
    assert_int_equal(fs_leased(f->fs, ino, &leased), 0);
    assert_false(leased);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_write_waits_for_the_lease_on_its_bytes_and_changes_nothing_before),
        TEST(writes_beside_a_lease_go_on),
        TEST(growing_a_file_waits_for_the_lease_on_its_last_block),
        TEST(growing_a_file_of_whole_blocks_disturbs_nobody),
        TEST(a_truncate_waits_for_leases_from_the_block_of_the_new_end),
        TEST(punching_and_zeroing_wait_for_leases_on_their_blocks),
        TEST(collapsing_and_inserting_wait_for_leases_on_what_moves),
        TEST(unsharing_waits_only_where_it_replaces_blocks),
        TEST(unlinking_waits_when_it_is_the_last_name),
        TEST(renaming_over_the_last_name_waits_and_other_renames_do_not),
        TEST(a_reflink_waits_for_a_writer_of_the_source_and_not_for_readers),
        TEST(a_reflink_waits_for_any_lease_on_the_destination),
        TEST(a_reflink_between_two_leased_files_waits_for_each),
        TEST(an_interrupted_operation_leaves_the_lease_alive),
        TEST(who_cannot_wait_gets_eagain_and_the_recall_goes_out),
        TEST(after_the_deadline_a_truncate_goes_on_and_the_blocks_stay_with_the_hold),
        TEST(a_leased_file_shows_as_such_until_the_last_lease_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
