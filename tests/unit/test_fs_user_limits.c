/* SPDX-License-Identifier: BSD-2-Clause */
/* What one user's files may take: exact to the block, whatever operation takes it, and whoever asks. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>

#include "tests/unit/fs_fixture.h"

#include "fused/fs_private.h"

#define ANN    1001u
#define BOB    1002u
#define BLOCKS 20u /* of each */
#define FILES  6u

static const struct lease_credentials root = {.uid = 0, .gid = 0};

static int setup(void **state)
{
    struct fixture *f;

    fixture_setup(state);
    f = *state;
    return fs_set_user_limits(f->fs, BLOCKS * BLOCK, FILES);
}

static int make(struct fixture *f, const char *name, uid_t uid, uint64_t *ret_ino)
{
    struct fs_entry entry;
    int err = fs_mknod(f->fs, FS_ROOT_INO, name, S_IFREG | 0644, 0, (struct fs_cred){uid, uid}, &entry);

    if (!err)
        *ret_ino = entry.ino;
    return err;
}

static uint64_t file_of(struct fixture *f, const char *name, uid_t uid, uint64_t blocks)
{
    uint64_t ino = 0;

    assert_int_equal(make(f, name, uid, &ino), 0);
    if (blocks)
        assert_int_equal(fs_fallocate(f->fs, ino, 0, 0, blocks * BLOCK, false, NULL), 0);
    return ino;
}

static void remove_file(struct fixture *f, const char *name, uint64_t ino)
{
    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, name, NULL), 0);
    fs_forget(f->fs, ino, 1);
}

static struct space_usage usage_of(struct fixture *f, uid_t uid)
{
    struct space_account *account;

    assert_int_equal(space_account_of(f->fs->accounts, uid, &account), 0);
    return space_account_usage(account);
}

static int64_t write_blocks(struct fixture *f, uint64_t ino, uint64_t at, size_t blocks)
{
    char *bytes = malloc(blocks * BLOCK);
    int64_t done;

    memset(bytes, 'w', blocks * BLOCK);
    done = fs_write(f->fs, ino, at * BLOCK, bytes, blocks * BLOCK, false, NULL);
    free(bytes);
    return done;
}

static int chown_to(struct fixture *f, uint64_t ino, uid_t uid)
{
    struct stat attr = {.st_uid = uid};

    return fs_setattr(f->fs, ino, &attr, FS_SET_UID, NULL, &attr, NULL);
}

/* Each operation takes a block that its owner may not have, and changes nothing; with one block less in use it works.
 */
static int64_t take_one(struct fixture *f, int operation, uint64_t ino, uint64_t source)
{
    switch (operation) {
    case 0:
        return fs_write(f->fs, ino, 0, "!", 1, false, NULL);
    case 1:
        return fs_fallocate(f->fs, ino, 0, 0, BLOCK, false, NULL);
    case 2:
        return fs_fallocate(f->fs, ino, FALLOC_FL_ZERO_RANGE, 10, BLOCK - 10, false, NULL);
    case 3:
        return fs_fallocate(f->fs, ino, FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE, 0, 1, false, NULL);
    case 4: /* shared with the source, and paid for twice */
        return fs_copy(f->fs, source, 0, ino, 0, BLOCK, false, NULL);
    case 5: /* copied */
        return fs_copy(f->fs, source, 1, ino, 0, 100, false, NULL);
    case 6:
        return fs_layout_ops.prepare(f->fs, ino, (struct lease_range){0, BLOCK}, true, true, NULL);
    case 7:
        return fs_layout_ops.clone(f->fs, "/source", "/file", &root, NULL);
    }
    return 1;
}

static void every_operation_is_held_to_the_block(void **state)
{
    struct fixture *f = *state;
    uint64_t source = make_file(f, "source", BLOCK); /* root's */
    int64_t done;

    for (int operation = 0; operation < 8; operation++) {
        uint64_t ballast = file_of(f, "ballast", ANN, BLOCKS), file = file_of(f, "file", ANN, 0);

        if ((done = take_one(f, operation, file, source)) != -EDQUOT)
            fail_msg("operation %d: %lld", operation, (long long)done);
        assert_int_equal(stat_of(f, file).st_size, 0);
        assert_int_equal(stat_of(f, file).st_blocks, 0);
        assert_int_equal(usage_of(f, ANN).blocks, BLOCKS);
        assert_int_equal(
            fs_fallocate(f->fs, ballast, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BLOCK, false, NULL), 0);
        if ((done = take_one(f, operation, file, source)) < 0)
            fail_msg("operation %d with a block to take: %lld", operation, (long long)done);
        assert_int_equal(usage_of(f, ANN).blocks, BLOCKS);
        remove_file(f, "ballast", ballast);
        remove_file(f, "file", file);
        assert_int_equal(usage_of(f, ANN).blocks, 0);
        assert_int_equal(usage_of(f, ANN).files, 0);
    }
    fs_forget(f->fs, source, 1);
}

static void a_write_takes_what_there_is(void **state)
{
    struct fixture *f = *state;
    uint64_t file = file_of(f, "file", ANN, 0), other = file_of(f, "other", BOB, 0);

    assert_int_equal(write_blocks(f, file, 0, BLOCKS + 5), BLOCKS * BLOCK);
    assert_int_equal(write_blocks(f, file, BLOCKS, 1), -EDQUOT);
    assert_int_equal(write_blocks(f, file, 3, 4), 4 * BLOCK);            /* over its own */
    assert_int_equal(write_blocks(f, other, 0, BLOCKS), BLOCKS * BLOCK); /* that is another user's */
    assert_int_equal(fs_fallocate(f->fs, file, 0, 0, BLOCKS * BLOCK, false, NULL), 0);
    assert_int_equal(fs_fallocate(f->fs, file, 0, 0, (BLOCKS + 1) * BLOCK, false, NULL), -EDQUOT);
    fs_forget(f->fs, file, 1);
    fs_forget(f->fs, other, 1);
}

static void who_gets_a_file_pays_for_it(void **state)
{
    struct fixture *f = *state;
    uint64_t file = file_of(f, "file", ANN, 12), large = file_of(f, "large", BOB, 10),
             small = file_of(f, "small", BOB, 8);
    struct fs_entry entry;

    assert_int_equal(chown_to(f, large, ANN), -EDQUOT);
    assert_int_equal(stat_of(f, large).st_uid, BOB);
    assert_int_equal(usage_of(f, ANN).files, 1);
    assert_int_equal(chown_to(f, small, ANN), 0);
    assert_int_equal(usage_of(f, ANN).blocks, 20);
    assert_int_equal(usage_of(f, BOB).blocks, 10);
    assert_int_equal(write_blocks(f, small, 8, 1), -EDQUOT);
    assert_int_equal(chown_to(f, file, 0), 0);
    assert_int_equal(usage_of(f, ANN).blocks, 8);
    assert_int_equal(chown_to(f, file, ANN), 0);
    assert_int_equal(usage_of(f, ANN).blocks, 20);

    for (unsigned i = 2; i < FILES; i++) {
        char name[] = {'0' + (char)i, 0};

        assert_int_equal(fs_symlink(f->fs, FS_ROOT_INO, name, "target", (struct fs_cred){ANN, ANN}, &entry), 0);
        fs_forget(f->fs, entry.ino, 1);
    }
    assert_int_equal(fs_mkdir(f->fs, FS_ROOT_INO, "dir", 0755, (struct fs_cred){ANN, ANN}, &entry), -EDQUOT);
    assert_int_equal(fs_mkdir(f->fs, FS_ROOT_INO, "dir", 0755, (struct fs_cred){BOB, BOB}, &entry), 0);
    assert_int_equal(chown_to(f, entry.ino, ANN), -EDQUOT);
    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "2", NULL), 0);
    assert_int_equal(chown_to(f, entry.ino, ANN), 0);
    fs_forget(f->fs, entry.ino, 1);
    fs_forget(f->fs, file, 1);
    fs_forget(f->fs, large, 1);
    fs_forget(f->fs, small, 1);
}

/* What a clone takes, it takes in place of what the file had. */
static void a_clone_pays_for_the_difference(void **state)
{
    struct fixture *f = *state;
    uint64_t source = make_file(f, "source", 15 * BLOCK), file = file_of(f, "file", ANN, 12), more;

    assert_int_equal(fs_layout_ops.clone(f->fs, "/source", "/file", &root, NULL), 0);
    assert_int_equal(usage_of(f, ANN).blocks, 15);
    more = file_of(f, "more", ANN, 5);
    assert_int_equal(fs_layout_ops.clone(f->fs, "/source", "/more", &root, NULL), -EDQUOT);
    assert_int_equal(usage_of(f, ANN).blocks, 20);
    assert_int_equal(fs_layout_ops.clone(f->fs, "/more", "/file", &root, NULL), 0);
    assert_int_equal(usage_of(f, ANN).blocks, stat_of(f, file).st_blocks / 8 + 5);
    fs_forget(f->fs, source, 1);
    fs_forget(f->fs, file, 1);
    fs_forget(f->fs, more, 1);
}

/* ---- by chance ---- */

static uint64_t random_state;

static unsigned pick(unsigned n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(random_state >> 33) % n;
}

static void step(struct fixture *f, const uint64_t *inos)
{
    static const int modes[] = {0,
                                FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_UNSHARE_RANGE,
                                FALLOC_FL_COLLAPSE_RANGE,
                                FALLOC_FL_INSERT_RANGE};
    static const char *const names[] = {"/0", "/1", "/2", "/3"};
    uint64_t ino = inos[pick(4)], block = pick(12), length = 1 + pick(8 * BLOCK);
    struct stat attr = {.st_size = (off_t)pick(16 * BLOCK)};
    char bytes[8 * BLOCK] = "x";
    int mode;

    switch (pick(7)) {
    case 0:
    case 1:
        fs_write(f->fs, ino, block * BLOCK + pick(BLOCK), bytes, length, false, NULL);
        break;
    case 2:
        fs_setattr(f->fs, ino, &attr, FS_SET_SIZE, NULL, &attr, NULL);
        break;
    case 3:
        mode = modes[pick(7)];
        if (mode == FALLOC_FL_COLLAPSE_RANGE || mode == FALLOC_FL_INSERT_RANGE)
            fs_fallocate(f->fs, ino, mode, block * BLOCK, (1 + pick(4)) * BLOCK, false, NULL);
        else
            fs_fallocate(f->fs, ino, mode, block * BLOCK + pick(3), length, false, NULL);
        break;
    case 4:
        fs_copy(f->fs, inos[pick(4)], pick(2) ? block * BLOCK : pick(9 * BLOCK), ino, pick(12) * BLOCK, length, false,
                NULL);
        break;
    case 5:
        chown_to(f, ino, pick(2) ? ANN : BOB);
        break;
    case 6:
        if (pick(2))
            fs_layout_ops.clone(f->fs, names[pick(4)], names[pick(4)], &root, NULL);
        else
            fs_layout_ops.prepare(f->fs, ino, (struct lease_range){block * BLOCK, length}, pick(2), pick(2), NULL);
        break;
    }
}

static void the_account_is_the_sum_of_the_files(void **state)
{
    const char *seed = getenv("LEASEFS_TEST_SEED"), *steps = getenv("LEASEFS_TEST_STEPS");
    struct fixture *f = *state;
    unsigned full = 0;
    uint64_t inos[4];

    random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)fs_now().tv_nsec;
    printf("seed %llu\n", (unsigned long long)random_state);
    for (unsigned i = 0; i < 4; i++) {
        char name[] = {'0' + (char)i, 0};

        inos[i] = file_of(f, name, i < 2 ? ANN : BOB, 0);
    }
    for (long n = steps ? atol(steps) : 20000; n > 0; n--) {
        uint64_t blocks[2] = {0, 0};

        step(f, inos);
        for (unsigned i = 0; i < 4; i++) {
            struct stat attr = stat_of(f, inos[i]);

            blocks[attr.st_uid == BOB] += (uint64_t)attr.st_blocks / 8;
        }
        assert_int_equal(usage_of(f, ANN).blocks, blocks[0]);
        assert_int_equal(usage_of(f, BOB).blocks, blocks[1]);
        assert_true(blocks[0] <= BLOCKS && blocks[1] <= BLOCKS);
        full += blocks[0] == BLOCKS || blocks[1] == BLOCKS;
    }
    assert_true(full > 0);
    for (unsigned i = 0; i < 4; i++)
        fs_forget(f->fs, inos[i], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_operation_is_held_to_the_block, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_write_takes_what_there_is, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(who_gets_a_file_pays_for_it, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_clone_pays_for_the_difference, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(the_account_is_the_sum_of_the_files, setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
