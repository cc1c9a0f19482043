/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rdma/window.h"

#define BLOCK  4096u
#define BLOCKS 64u

struct fixture {
    struct layout_segment segment;
    struct windows windows;
};

/* A segment whose every block says which it is. */
static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    int fd = memfd_create("window", MFD_CLOEXEC);

    if (!f || fd < 0 || ftruncate(fd, BLOCKS * BLOCK) < 0)
        return -1;
    f->segment = (struct layout_segment){
        .fd = fd,
        .base = mmap(NULL, BLOCKS * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
        .size = BLOCKS * BLOCK,
        .page_size = BLOCK,
    };
    if (f->segment.base == MAP_FAILED)
        return -1;
    for (unsigned i = 0; i < BLOCKS; i++)
        memset((uint8_t *)f->segment.base + (size_t)i * BLOCK, (int)i + 1, BLOCK);
    windows_init(&f->windows, 100);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    windows_destroy(&f->windows);
    munmap(f->segment.base, f->segment.size);
    close(f->segment.fd);
    free(f);
    return 0;
}

static struct layout_run run_of(unsigned block, unsigned count)
{
    return (struct layout_run){.offset = (uint64_t)block * BLOCK, .length = (uint64_t)count * BLOCK};
}

static uint8_t block_of(const struct window *window, unsigned index)
{
    return ((uint8_t *)window_address(window))[(size_t)index * BLOCK + 7];
}

static void scattered_runs_lie_side_by_side_in_file_order(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(40, 1), run_of(3, 2), run_of(10, 1)};
    struct window *window;

    assert_int_equal(window_new(&f->windows, &f->segment, runs, 3, WINDOW_WRITABLE, &window), 0);
    assert_int_equal(window_length(window), 4 * BLOCK);
    assert_int_equal(window_mappings(window), 3);
    assert_int_equal(block_of(window, 0), 41);
    assert_int_equal(block_of(window, 1), 4);
    assert_int_equal(block_of(window, 2), 5);
    assert_int_equal(block_of(window, 3), 11);
    window_free(window);
}

static void window_and_pool_are_the_same_memory(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(9, 1), run_of(1, 1)};
    struct window *window;

    assert_int_equal(window_new(&f->windows, &f->segment, runs, 2, WINDOW_WRITABLE, &window), 0);
    ((uint8_t *)window_address(window))[BLOCK] = 0xee;
    assert_int_equal(((uint8_t *)f->segment.base)[BLOCK], 0xee);
    ((uint8_t *)f->segment.base)[9 * BLOCK] = 0xdd;
    assert_int_equal(((uint8_t *)window_address(window))[0], 0xdd);
    window_free(window);
    assert_int_equal(((uint8_t *)f->segment.base)[BLOCK], 0xee);
}

static void neighbouring_runs_share_a_mapping(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(5, 2), run_of(7, 3), run_of(30, 1), run_of(31, 1)};
    struct window *window;

    assert_int_equal(window_new(&f->windows, &f->segment, runs, 4, 0, &window), 0);
    assert_int_equal(window_mappings(window), 2);
    assert_int_equal(block_of(window, 4), 10);
    assert_int_equal(block_of(window, 6), 32);
    window_free(window);
}

static void a_single_run_needs_no_mapping(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(5, 2), run_of(7, 3)};
    struct window *window;

    assert_int_equal(window_new(&f->windows, &f->segment, runs, 2, WINDOW_WRITABLE, &window), 0);
    assert_int_equal(window_mappings(window), 0);
    assert_ptr_equal(window_address(window), (uint8_t *)f->segment.base + 5 * BLOCK);
    window_free(window);
    assert_int_equal(((uint8_t *)f->segment.base)[5 * BLOCK], 6);
}

static void a_read_window_cannot_be_written(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(9, 1), run_of(1, 1)};
    struct window *window;

    assert_int_equal(window_new(&f->windows, &f->segment, runs, 2, 0, &window), 0);
    /* read(2) into it says EFAULT where a store would raise SIGSEGV. */
    int pipe_fds[2];

    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(write(pipe_fds[1], "x", 1), 1);
    assert_int_equal(read(pipe_fds[0], window_address(window), 1), -1);
    assert_int_equal(errno, EFAULT);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    window_free(window);
}

static void a_child_does_not_inherit_the_window(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(9, 1), run_of(1, 1)};
    struct window *window;
    int status;

    assert_int_equal(window_new(&f->windows, &f->segment, runs, 2, 0, &window), 0);
    pid_t child = fork();

    if (child == 0) {
        unsigned char vec;

        _exit(mincore(window_address(window), BLOCK, &vec) == -1 && errno == ENOMEM ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    window_free(window);
}

static void too_many_runs_are_e2big_and_room_comes_back(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(9, 1), run_of(1, 1), run_of(20, 1)};
    struct window *a, *b = NULL;

    f->windows.limit = 5;
    assert_int_equal(window_new(&f->windows, &f->segment, runs, 3, 0, &a), 0);
    assert_int_equal(window_new(&f->windows, &f->segment, runs, 3, 0, &b), -E2BIG);
    assert_null(b);
    assert_int_equal(f->windows.used, 3);
    window_free(a);
    assert_int_equal(f->windows.used, 0);
    assert_int_equal(window_new(&f->windows, &f->segment, runs, 3, 0, &b), 0);
    window_free(b);
}

static void runs_outside_the_segment_are_refused(void **state)
{
    struct fixture *f = *state;
    struct layout_run beyond[] = {run_of(BLOCKS - 1, 2)};
    struct layout_run overflow[] = {{.offset = UINT64_MAX - BLOCK + 1, .length = 2 * BLOCK}};
    struct layout_run empty[] = {run_of(3, 0)};
    struct window *window = NULL;

    assert_int_equal(window_new(&f->windows, &f->segment, beyond, 1, 0, &window), -EINVAL);
    assert_int_equal(window_new(&f->windows, &f->segment, overflow, 1, 0, &window), -EINVAL);
    assert_int_equal(window_new(&f->windows, &f->segment, empty, 1, 0, &window), -EINVAL);
    assert_int_equal(window_new(&f->windows, &f->segment, NULL, 0, 0, &window), -EINVAL);
    assert_null(window);
}

static void a_mapping_that_fails_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(9, 1), run_of(1, 1)};
    struct layout_segment closed = f->segment;
    struct window *window = NULL;

    closed.fd = -1;
    assert_int_equal(window_new(&f->windows, &closed, runs, 2, 0, &window), -EBADF);
    assert_null(window);
    assert_int_equal(f->windows.used, 0);
}

/* Pages of four blocks, on the same memfd: the rules are those of hugetlbfs, and mmap() follows them. */
#define BIG 4u

static void cuts_within_a_huge_page_are_refused(void **state)
{
    struct fixture *f = *state;
    struct layout_run cut_early[] = {run_of(4, 3), run_of(8, 4)};
    struct layout_run starts_inside[] = {run_of(4, 4), run_of(13, 3)};
    struct layout_run shifted[] = {run_of(5, 4), run_of(16, 4)};
    struct window *window = NULL;

    f->segment.page_size = BIG * BLOCK;
    assert_int_equal(window_new(&f->windows, &f->segment, cut_early, 2, 0, &window), -EINVAL);
    assert_int_equal(window_new(&f->windows, &f->segment, starts_inside, 2, 0, &window), -EINVAL);
    assert_int_equal(window_new(&f->windows, &f->segment, shifted, 2, 0, &window), -EINVAL);
    assert_null(window);
}

static void first_and_last_run_may_stop_short_of_a_huge_page(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(21, 3), run_of(8, 4), run_of(40, 2)};
    struct window *window;

    f->segment.page_size = BIG * BLOCK;
    assert_int_equal(window_new(&f->windows, &f->segment, runs, 3, 0, &window), 0);
    assert_int_equal(window_length(window), 9 * BLOCK);
    assert_int_equal((uintptr_t)window_address(window) % (BIG * BLOCK), BLOCK);
    assert_int_equal(block_of(window, 0), 22);
    assert_int_equal(block_of(window, 2), 24);
    assert_int_equal(block_of(window, 3), 9);
    assert_int_equal(block_of(window, 6), 12);
    assert_int_equal(block_of(window, 7), 41);
    assert_int_equal(block_of(window, 8), 42);
    window_free(window);
}

static void a_single_run_within_huge_pages_needs_no_alignment(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(21, 7)};
    struct window *window;

    f->segment.page_size = BIG * BLOCK;
    assert_int_equal(window_new(&f->windows, &f->segment, runs, 1, 0, &window), 0);
    assert_int_equal(block_of(window, 6), 28);
    window_free(window);
}

/* Every shape of a few runs against the obvious: the bytes of the runs one after the other. */
/* What revokes an MR that is on demand: nothing is there to fault in any more, and the pool keeps its bytes. */
static void a_covered_window_has_no_access_and_keeps_its_addresses(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(5, 2)};
    struct window *window, *shared;
    int pipe_fds[2];

    assert_int_equal(window_new(&f->windows, &f->segment, runs, 1, WINDOW_WRITABLE | WINDOW_OWN, &window), 0);
    assert_int_equal(window_mappings(window), 1);
    assert_int_equal(block_of(window, 1), 7);
    void *address = window_address(window);

    assert_int_equal(window_cover(window), 0);
    assert_ptr_equal(window_address(window), address);
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(write(pipe_fds[1], address, 1), -1);
    assert_int_equal(errno, EFAULT);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    assert_int_equal(((uint8_t *)f->segment.base)[5 * BLOCK], 6);
    window_free(window);
    assert_int_equal(f->windows.used, 0);

    assert_int_equal(window_new(&f->windows, &f->segment, runs, 1, WINDOW_WRITABLE, &shared), 0);
    assert_int_equal(window_cover(shared), -EINVAL); /* everybody's mapping */
    window_free(shared);
}

static struct window *new_window(struct fixture *f, struct layout_run *runs, size_t n_runs, unsigned flags)
{
    struct window *window;

    assert_int_equal(window_new(&f->windows, &f->segment, runs, n_runs, flags, &window), 0);
    return window;
}

/* The next lease of the same blocks. What others wrote meanwhile shows in it. */
static void a_window_that_was_kept_serves_whoever_wants_just_that(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(9, 1), run_of(1, 2)}, same[] = {run_of(9, 1), run_of(1, 1), run_of(2, 1)};
    struct window *kept = new_window(f, runs, 2, 0), *window;

    window_keep(kept);
    assert_int_equal(f->windows.used, 2);
    memset((uint8_t *)f->segment.base + 9 * BLOCK, 0xcc, BLOCK);
    window = new_window(f, same, 3, 0);
    assert_ptr_equal(window, kept);
    assert_int_equal(f->windows.reused, 1);
    assert_int_equal(f->windows.used, 2);
    assert_int_equal(block_of(window, 0), 0xcc);
    assert_int_equal(block_of(window, 2), 3);

    struct window *second = new_window(f, runs, 2, 0); /* the first is taken */

    assert_ptr_not_equal(second, kept);
    window_free(second);
    window_free(window);
    assert_int_equal(f->windows.used, 0);
    assert_int_equal(f->windows.n_kept, 0);
}

static void a_window_that_was_kept_is_not_for_other_blocks_or_rights(void **state)
{
    struct fixture *f = *state;
    struct layout_segment other = f->segment;
    struct layout_run runs[] = {run_of(9, 1), run_of(1, 2)};
    struct layout_run elsewhere[] = {run_of(9, 1), run_of(2, 2)}, longer[] = {run_of(9, 1), run_of(1, 3)},
                      more[] = {run_of(9, 1), run_of(1, 2), run_of(20, 1)}, single[] = {run_of(9, 1)};
    struct window *others[7];

    window_keep(new_window(f, runs, 2, 0));
    others[0] = new_window(f, elsewhere, 2, 0);
    others[1] = new_window(f, longer, 2, 0);
    others[2] = new_window(f, more, 3, 0);
    others[3] = new_window(f, single, 1, WINDOW_OWN);
    others[4] = new_window(f, runs, 2, WINDOW_WRITABLE);
    assert_int_equal(window_new(&f->windows, &other, runs, 2, 0, &others[5]), 0);
    window_keep(new_window(f, single, 1, WINDOW_OWN));
    others[6] = new_window(f, single, 1, 0); /* the segment's own mapping will do */
    assert_int_equal(f->windows.reused, 0);
    assert_int_equal(block_of(others[0], 1), 3);
    assert_int_equal(block_of(others[1], 3), 4);
    assert_int_equal(block_of(others[2], 3), 21);
    ((uint8_t *)window_address(others[4]))[7] = 10; /* may be written */
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        window_free(others[i]);
    assert_int_equal(f->windows.n_kept, 2);
}

static void what_is_covered_or_large_or_everybodys_is_not_kept(void **state)
{
    struct fixture *f = *state;
    struct layout_run runs[] = {run_of(5, 2)}, large[] = {run_of(0, WINDOW_KEPT_BYTES_MAX / BLOCK + 1)};
    struct window *covered = new_window(f, runs, 1, WINDOW_OWN);

    assert_int_equal(ftruncate(f->segment.fd, 2 * WINDOW_KEPT_BYTES_MAX), 0);
    assert_int_equal(window_cover(covered), 0);
    window_keep(covered);
    window_keep(new_window(f, runs, 1, 0));
    f->segment.size = 2 * WINDOW_KEPT_BYTES_MAX;
    window_keep(new_window(f, large, 1, WINDOW_OWN));
    f->segment.size = BLOCKS * BLOCK;
    assert_int_equal(f->windows.n_kept, 0);
    assert_int_equal(f->windows.used, 0);
}

static void the_oldest_that_is_kept_leaves_first_and_all_leave_for_room(void **state)
{
    struct fixture *f = *state;
    struct layout_run run[] = {run_of(0, 1)}, pair[] = {run_of(3, 1), run_of(1, 1)};

    for (unsigned i = 0; i <= WINDOWS_KEPT_MAX; i++) { /* of the first block, that and its next, and so on */
        run[0] = run_of(i % BLOCKS, 1 + i / BLOCKS);
        window_keep(new_window(f, run, 1, WINDOW_OWN));
    }
    assert_int_equal(f->windows.n_kept, WINDOWS_KEPT_MAX);
    assert_int_equal(f->windows.used, WINDOWS_KEPT_MAX);
    run[0] = run_of(0, 1);
    window_free(new_window(f, run, 1, WINDOW_OWN));
    assert_int_equal(f->windows.reused, 0);
    run[0] = run_of(1, 1);
    window_keep(new_window(f, run, 1, WINDOW_OWN));
    assert_int_equal(f->windows.reused, 1);

    f->windows.limit = WINDOWS_KEPT_MAX + 1;
    struct window *window = new_window(f, pair, 2, 0);

    assert_int_equal(f->windows.n_kept, 0);
    assert_int_equal(f->windows.used, 2);
    window_free(window);
}

static void random_layouts_match_a_copy(void **state)
{
    struct fixture *f = *state;
    unsigned seed = 1;

    for (int round = 0; round < 300; round++) {
        struct layout_run runs[12];
        uint8_t expected[12 * 3];
        size_t n_runs = 1 + (size_t)rand_r(&seed) % 12, n = 0;
        struct window *window;

        for (size_t i = 0; i < n_runs; i++) {
            unsigned count = 1 + (unsigned)rand_r(&seed) % 3;
            unsigned block = (unsigned)rand_r(&seed) % (BLOCKS - 3);

            runs[i] = run_of(block, count);
            for (unsigned k = 0; k < count; k++)
                expected[n++] = (uint8_t)(block + k + 1);
        }
        assert_int_equal(window_new(&f->windows, &f->segment, runs, n_runs, round & WINDOW_WRITABLE, &window), 0);
        assert_int_equal(window_length(window), n * BLOCK);
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(block_of(window, i), expected[i]);
        (round % 3 ? window_keep : window_free)(window);
    }
    assert_true(f->windows.n_kept > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(scattered_runs_lie_side_by_side_in_file_order),
        TEST(window_and_pool_are_the_same_memory),
        TEST(neighbouring_runs_share_a_mapping),
        TEST(a_single_run_needs_no_mapping),
        TEST(a_read_window_cannot_be_written),
        TEST(a_child_does_not_inherit_the_window),
        TEST(too_many_runs_are_e2big_and_room_comes_back),
        TEST(runs_outside_the_segment_are_refused),
        TEST(a_mapping_that_fails_leaves_nothing),
        TEST(cuts_within_a_huge_page_are_refused),
        TEST(first_and_last_run_may_stop_short_of_a_huge_page),
        TEST(a_single_run_within_huge_pages_needs_no_alignment),
        TEST(a_covered_window_has_no_access_and_keeps_its_addresses),
        TEST(a_window_that_was_kept_serves_whoever_wants_just_that),
        TEST(a_window_that_was_kept_is_not_for_other_blocks_or_rights),
        TEST(what_is_covered_or_large_or_everybodys_is_not_kept),
        TEST(the_oldest_that_is_kept_leaves_first_and_all_leave_for_room),
        TEST(random_layouts_match_a_copy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
