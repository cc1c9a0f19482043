/* SPDX-License-Identifier: BSD-2-Clause */
/* Huge files: allocated at once, whatever their size, and freed while others go on. Counted, not timed: bytes touched,
 * locks taken, blocks freed under one of them, and what others get done in between. */
#include <errno.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/mman.h>

#include "fused/fs_private.h"
#include "tests/unit/fs_fixture.h"
#include "tests/unit/unlock_hook.h"

#define HUGE_POOL   (384u << 20) /* three groups */
#define GROUPS      3u
#define TURN_BLOCKS 4096u /* what may be freed under one lock */
#define PATTERN     0xab

static struct scene {
    struct fixture f;
    uint64_t ino;
    unsigned locks;
    uint64_t n_free, largest_step; /* blocks */
    unsigned made;
} s;

static int huge_setup(void **state)
{
    char *error = NULL;

    (void)state;
    memset(&s, 0, sizeof(s));
    assert_int_equal(pool_new(HUGE_POOL, false, &s.f.pool, &error), 0);
    assert_int_equal(fs_new(s.f.pool, (struct fs_cred){0, 0}, false, &s.f.fs), 0);
    s.ino = make_file(&s.f, "huge", 0);
    return 0;
}

static int huge_teardown(void **state)
{
    (void)state;
    assert_int_equal(fs_free(s.f.fs), 0);
    assert_int_equal(pool_check(s.f.pool), 0);
    pool_free(s.f.pool);
    return 0;
}

static void count_lock(void)
{
    s.locks++;
}

static void allocate(uint64_t bytes)
{
    s.locks = 0;
    unlock_hook = count_lock;
    assert_int_equal(fs_fallocate(s.f.fs, s.ino, 0, 0, bytes, false, NULL), 0);
    unlock_hook = NULL;
}

static int check_zeros(void *arg, const struct iovec *iov, int count, size_t bytes)
{
    (void)arg;
    assert_int_equal(bytes, BLOCK);
    for (int i = 0; i < count; i++)
        for (size_t at = 0; at < iov[i].iov_len; at++)
            assert_int_equal(((const char *)iov[i].iov_base)[at], 0);
    return 0;
}

static void allocating_touches_no_byte_and_takes_a_lock_a_group(void **state)
{
    const unsigned char *base = pool_base(s.f.pool);
    uint64_t wanted = pool_free_blocks(s.f.pool) - 100;
    unsigned small;

    (void)state;
    memset(pool_base(s.f.pool), PATTERN, HUGE_POOL);
    allocate(BLOCK);
    small = s.locks;
    allocate(wanted * BLOCK);
    print_message("%u locks for a block, %u for %llu\n", small, s.locks, (unsigned long long)wanted);
    assert_true(s.locks <= small + 4 * GROUPS);
    assert_int_equal(stat_of(&s.f, s.ino).st_blocks, wanted * BLOCK / 512);
    /* The first byte, and each as the one before it. */
    assert_int_equal(base[0], PATTERN);
    assert_int_equal(memcmp(base, base + 1, HUGE_POOL - 1), 0);
    for (uint64_t block = 0; block < wanted; block += wanted / 7)
        assert_int_equal(fs_read(s.f.fs, s.ino, block * BLOCK, BLOCK, false, check_zeros, NULL), 0);
}

static void step(void)
{
    uint64_t n_free = pool_free_blocks(s.f.pool);

    if (n_free > s.n_free && n_free - s.n_free > s.largest_step)
        s.largest_step = n_free - s.n_free;
    s.n_free = n_free;
    s.locks++;
}

/* Another takes a block, wherever it is, and gives it back. */
static void others_allocate(void)
{
    struct pool_block block;
    uint32_t got;

    step();
    assert_int_equal(pool_alloc(s.f.pool, 1, 1, (struct pool_block){0, 0}, 0, &block, &got), 0);
    pool_put_file(s.f.pool, block, 1);
    s.made++;
}

/* Another makes a file in the same directory, writes to it and removes it. */
static void others_make_files(void)
{
    uint64_t ino;

    step();
    assert_int_equal(pthread_rwlock_trywrlock(&s.f.fs->root->lock), 0); /* they would wait for it */
    inode_unlock(s.f.fs->root);
    ino = make_file(&s.f, "other", 3 * BLOCK);
    assert_int_equal(fs_unlink(s.f.fs, FS_ROOT_INO, "other", NULL), 0);
    fs_forget(s.f.fs, ino, 1);
    s.made++;
}

static void watch(void (*hook)(void))
{
    s.n_free = pool_free_blocks(s.f.pool);
    s.locks = s.made = 0;
    s.largest_step = 0;
    unlock_hook = hook;
}

static void expect_turns(uint64_t blocks)
{
    unlock_hook = NULL;
    print_message("%llu blocks: %u locks, %llu blocks at most under one\n", (unsigned long long)blocks, s.locks,
                  (unsigned long long)s.largest_step);
    assert_true(s.largest_step <= TURN_BLOCKS);
    assert_true(s.made >= blocks / TURN_BLOCKS);
}

static void others_make_files_while_a_huge_one_is_freed(void **state)
{
    uint64_t blocks = pool_free_blocks(s.f.pool) - 100;

    (void)state;
    allocate(blocks * BLOCK);
    assert_int_equal(fs_unlink(s.f.fs, FS_ROOT_INO, "huge", NULL), 0);
    watch(others_make_files);
    fs_forget(s.f.fs, s.ino, 1);
    expect_turns(blocks);
}

static void others_allocate_while_a_huge_file_is_cut_off(void **state)
{
    uint64_t blocks = pool_free_blocks(s.f.pool) - 100;
    struct stat attr = {.st_size = 0};

    (void)state;
    allocate(blocks * BLOCK);
    watch(others_allocate);
    assert_int_equal(fs_setattr(s.f.fs, s.ino, &attr, FS_SET_SIZE, NULL, &attr, NULL), 0);
    expect_turns(blocks);
    assert_int_equal(stat_of(&s.f, s.ino).st_blocks, 0);
}

static void others_allocate_while_a_huge_hole_is_punched(void **state)
{
    uint64_t blocks = pool_free_blocks(s.f.pool) - 100;

    (void)state;
    allocate(blocks * BLOCK);
    watch(others_allocate);
    assert_int_equal(
        fs_fallocate(s.f.fs, s.ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, blocks * BLOCK, false, NULL), 0);
    expect_turns(blocks);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, huge_setup, huge_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(allocating_touches_no_byte_and_takes_a_lock_a_group),
        TEST(others_make_files_while_a_huge_one_is_freed),
        TEST(others_allocate_while_a_huge_file_is_cut_off),
        TEST(others_allocate_while_a_huge_hole_is_punched),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
