/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: model */
/* The pool: who refers to which block, and which blocks are found for a file. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "fused/pool.h"
#include "fused/pool_private.h"
#include "tests/unit/store_random.h"

#define MIB         (UINT64_C(1) << 20)
#define NO_GOAL     ((struct pool_block){0, 0})
#define AT(n)       ((struct pool_block){0, n})
#define MANY_BLOCKS (GROUP_BLOCKS + 3 * POOL_HUGE_BLOCKS + 7) /* two groups, the second one short */

static struct pool *new_pool(uint64_t size)
{
    struct pool *pool;
    char *error;

    assert_int_equal(pool_new(size, false, &pool, &error), 0);
    return pool;
}

static uint32_t free_blocks(struct pool *pool)
{
    struct pool_usage usage;

    pool_usage(pool, &usage);
    return (uint32_t)usage.free;
}

static void end_empty(struct pool *pool)
{
    assert_int_equal(free_blocks(pool), pool_size(pool) / POOL_BLOCK_SIZE);
    assert_int_equal(pool_check(pool), 0);
    pool_free(pool);
}

static uint32_t take(struct pool *pool, uint32_t want, uint32_t min, struct pool_block goal, uint64_t file_block,
                     uint32_t *ret_count)
{
    struct pool_block start;

    assert_int_equal(pool_alloc(pool, want, min, goal, file_block, &start, ret_count), 0);
    assert_true(*ret_count >= min && *ret_count <= want);
    return start.index;
}

/* ---- stories ---- */

static void a_pool_is_refused_with_the_reason_when_it_cannot_be_had(void **state)
{
    struct pool *pool = NULL;
    char *error = NULL;

    (void)state;
    assert_int_equal(pool_new(4096, false, &pool, &error), -EINVAL);
    assert_non_null(strstr(error, "choose another pool="));
    free(error);
    assert_int_equal(pool_new(UINT64_MAX, false, &pool, &error), -EINVAL);
    free(error);
    assert_int_equal(pool_new(UINT64_C(1) << 43, false, &pool, &error), -ENOMEM);
    assert_non_null(strstr(error, "does not fit"));
    free(error);
    assert_null(pool);
    pool_free(NULL);
}

static void a_pool_in_pieces_is_searched_once_and_not_for_each_piece(void **state)
{
    struct pool *pool = new_pool(16 * MIB);
    uint32_t blocks = (uint32_t)(pool_size(pool) / POOL_BLOCK_SIZE), count, block;

    (void)state;
    take(pool, blocks, blocks, NO_GOAL, 0, &count);
    for (block = 1; block < blocks; block += 2)
        pool_put_file(pool, AT(block), 1);
    block = take(pool, blocks, 1, NO_GOAL, 0, &count); /* looks at all of it */
    assert_int_equal(count, 1);
    assert_int_equal(atomic_load(&pool->groups[0].longest), 1);
    pool_put_file(pool, AT(block), 1);
    pool_put_file(pool, AT(6), 1);
    assert_int_equal(atomic_load(&pool->groups[0].longest), 3);
    assert_int_equal(take(pool, 3, 3, NO_GOAL, 0, &count), 5);
    take(pool, blocks, 1, NO_GOAL, 0, &count); /* looks for three in vain */
    assert_int_equal(count, 1);
    assert_int_equal(atomic_load(&pool->groups[0].longest), 1);
    for (block = 0; block < blocks; block++)
        if (pool_file_count(pool, AT(block)))
            pool_put_file(pool, AT(block), 1);
    assert_int_equal(atomic_load(&pool->groups[0].longest), blocks);
    end_empty(pool);
}

/* I1 */
static void a_block_is_free_only_when_no_file_and_no_exposure_refers_to_it(void **state)
{
    struct pool *pool = new_pool(MIB);
    struct pool_usage usage;
    uint32_t count, block = take(pool, 1, 1, NO_GOAL, 0, &count);

    (void)state;
    assert_true(pool_exclusive(pool, AT(block)));
    assert_int_equal(pool_get_hold(pool, AT(block), 1), 0);
    assert_int_equal(pool_get_file(pool, AT(block), 1), 0);
    assert_false(pool_exclusive(pool, AT(block)));
    pool_put_file(pool, AT(block), 1);
    assert_false(pool_exclusive(pool, AT(block))); /* one file, but held */
    pool_put_file(pool, AT(block), 1);
    pool_usage(pool, &usage);
    assert_int_equal(usage.free, usage.total - 1);
    assert_int_equal(usage.held, 1);
    assert_int_equal(usage.orphaned, 1);
    assert_int_equal(pool_check(pool), 0);
    pool_put_hold(pool, AT(block), 1);
    pool_usage(pool, &usage);
    assert_int_equal(usage.held, 0);
    assert_int_equal(usage.orphaned, 0);
    end_empty(pool);
}

static void a_hold_of_a_block_that_is_free_is_refused_and_nothing_changes(void **state)
{
    struct pool *pool = new_pool(2 * POOL_HUGE_BLOCKS * POOL_BLOCK_SIZE);
    uint32_t all = 2 * POOL_HUGE_BLOCKS, count;

    (void)state;
    assert_int_equal(take(pool, all, all, NO_GOAL, 0, &count), 0);
    pool_put_file(pool, AT(all - 9), 1);
    assert_int_equal(pool_get_hold(pool, AT(0), all), -EOVERFLOW);
    for (uint32_t i = 0; i < all; i++)
        assert_int_equal(pool_hold_count(pool, AT(i)), 0);
    pool_put_file(pool, AT(0), all - 9);
    pool_put_file(pool, AT(all - 8), 8);
    end_empty(pool);
}

/* The size of a lease of whole huge pages is not to matter. */
static void a_hold_of_a_whole_huge_page_is_one_count(void **state)
{
    struct pool *pool = new_pool(4 * POOL_HUGE_BLOCKS * POOL_BLOCK_SIZE);
    struct pool_usage usage;
    uint32_t all = 4 * POOL_HUGE_BLOCKS, count, second = POOL_HUGE_BLOCKS;

    (void)state;
    assert_int_equal(take(pool, all, all, NO_GOAL, 0, &count), 0);
    assert_int_equal(pool_get_hold(pool, AT(3), all - 6), 0);
    assert_int_equal(atomic_load(&pool->chunk_holds[0]), 0);
    assert_int_equal(atomic_load(&pool->chunk_holds[1]), 1);
    assert_int_equal(atomic_load(&pool->chunk_holds[2]), 1);
    assert_int_equal(atomic_load(&pool->chunk_holds[3]), 0);
    assert_int_equal(atomic_load(&pool->holds[second]), 0);
    assert_int_equal(pool_hold_count(pool, AT(2)), 0);
    assert_int_equal(pool_hold_count(pool, AT(second)), 1);
    assert_false(pool_exclusive(pool, AT(second)));
    assert_int_equal(pool_get_hold(pool, AT(second + 1), 2), 0); /* and some beside it */
    pool_put_file(pool, AT(0), all);
    pool_usage(pool, &usage);
    assert_int_equal(usage.free, 6);
    assert_int_equal(usage.held, all - 6);
    assert_int_equal(usage.orphaned, all - 6);
    assert_int_equal(pool_check(pool), 0);
    pool_put_hold(pool, AT(3), all - 6); /* I1: the blocks of the other hold stay */
    pool_usage(pool, &usage);
    assert_int_equal(usage.free, all - 2);
    assert_int_equal(usage.held, 2);
    assert_int_equal(usage.orphaned, 2);
    assert_int_equal(pool_check(pool), 0);
    pool_put_hold(pool, AT(second + 1), 2);
    end_empty(pool);
}

static void a_part_of_a_hold_of_a_whole_huge_page_can_be_given_back(void **state)
{
    struct pool *pool = new_pool(2 * POOL_HUGE_BLOCKS * POOL_BLOCK_SIZE);
    struct pool_usage usage;
    uint32_t all = 2 * POOL_HUGE_BLOCKS, count;

    (void)state;
    assert_int_equal(take(pool, all, all, NO_GOAL, 0, &count), 0);
    assert_int_equal(pool_get_hold(pool, AT(0), all), 0);
    assert_int_equal(pool_get_hold(pool, AT(0), all), 0);
    pool_put_hold(pool, AT(POOL_HUGE_BLOCKS - 1), 2);
    assert_int_equal(pool_hold_count(pool, AT(0)), 2);
    assert_int_equal(pool_hold_count(pool, AT(POOL_HUGE_BLOCKS - 1)), 1);
    assert_int_equal(pool_hold_count(pool, AT(POOL_HUGE_BLOCKS)), 1);
    pool_put_hold(pool, AT(0), all);
    pool_put_file(pool, AT(0), all);
    pool_usage(pool, &usage);
    assert_int_equal(usage.free, 2); /* those that were given back twice */
    assert_int_equal(usage.orphaned, all - 2);
    assert_int_equal(pool_check(pool), 0);
    pool_put_hold(pool, AT(0), POOL_HUGE_BLOCKS - 1);
    pool_put_hold(pool, AT(POOL_HUGE_BLOCKS + 1), POOL_HUGE_BLOCKS - 1);
    end_empty(pool);
}

static void a_count_that_is_full_is_refused_and_nothing_changes(void **state)
{
    struct pool *pool = new_pool(MIB);
    uint32_t count, start = take(pool, 8, 8, NO_GOAL, 0, &count);

    (void)state;
    atomic_store(&pool->files[start + 5], UINT32_MAX / 2); /* nobody shares a block that often in a test's time */
    assert_int_equal(pool_get_file(pool, AT(start), 8), -EOVERFLOW);
    for (uint32_t i = 0; i < 8; i++)
        assert_int_equal(pool_file_count(pool, AT(start + i)), i == 5 ? UINT32_MAX / 2 : 1);
    atomic_store(&pool->files[start + 5], 1);
    atomic_store(&pool->holds[start + 7], UINT32_MAX / 2);
    assert_int_equal(pool_get_hold(pool, AT(start), 8), -EOVERFLOW);
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(pool_hold_count(pool, AT(start + i)), 0);
    atomic_store(&pool->holds[start + 7], 0);
    pool_put_file(pool, AT(start), 8);
    end_empty(pool);
}

static void a_file_goes_on_where_it_ended(void **state)
{
    struct pool *pool = new_pool(MIB);
    uint32_t count, a = take(pool, 3, 3, NO_GOAL, 0, &count), b = take(pool, 5, 1, AT(a + 3), 3, &count), c;

    (void)state;
    assert_int_equal(b, a + 3);
    c = take(pool, 4, 1, AT(a + 1), 1, &count); /* the goal is taken: elsewhere */
    assert_int_not_equal(c, a + 1);
    assert_int_equal(count, 4);
    pool_put_file(pool, AT(a), 3);
    pool_put_file(pool, AT(b), 5);
    pool_put_file(pool, AT(c), 4);
    end_empty(pool);
}

static void large_requests_lie_in_their_huge_pages_as_in_the_file(void **state)
{
    struct pool *pool = new_pool(8 * MIB);
    uint32_t count, small = take(pool, 3, 3, NO_GOAL, 0, &count), large;

    (void)state;
    large = take(pool, 1000, 1, NO_GOAL, 77, &count);
    assert_int_equal(large % POOL_HUGE_BLOCKS, 77);
    assert_int_equal(count, 1000);
    pool_put_file(pool, AT(large), count);
    large = take(pool, POOL_HUGE_BLOCKS, 1, NO_GOAL, 5 * POOL_HUGE_BLOCKS, &count);
    assert_int_equal(large % POOL_HUGE_BLOCKS, 0);
    assert_int_equal(count, POOL_HUGE_BLOCKS);
    pool_put_file(pool, AT(large), count);
    pool_put_file(pool, AT(small), 3);
    end_empty(pool);
}

static void a_full_pool_is_full_to_the_block(void **state)
{
    struct pool *pool = new_pool(MIB);
    struct pool_block start;
    uint32_t count;

    (void)state;
    assert_int_equal(take(pool, 256, 256, NO_GOAL, 0, &count), 0);
    assert_int_equal(pool_alloc(pool, 1, 1, NO_GOAL, 0, &start, &count), -ENOSPC);
    pool_put_file(pool, AT(100), 1);
    pool_put_file(pool, AT(102), 2);
    assert_int_equal(pool_alloc(pool, 4, 3, NO_GOAL, 0, &start, &count), -ENOSPC);
    assert_int_equal(take(pool, 4, 1, NO_GOAL, 0, &count), 102); /* the longest there is */
    assert_int_equal(count, 2);
    assert_int_equal(take(pool, 4, 1, AT(7), 0, &count), 100);
    assert_int_equal(count, 1);
    assert_int_equal(pool_alloc(pool, 1, 1, AT(3), 0, &start, &count), -ENOSPC);
    pool_put_file(pool, AT(0), 256);
    end_empty(pool);
}

static void silly_requests_are_refused(void **state)
{
    struct pool *pool = new_pool(MIB);
    struct pool_block start;
    uint32_t count;

    (void)state;
    assert_int_equal(pool_alloc(pool, 0, 0, NO_GOAL, 0, &start, &count), -EINVAL);
    assert_int_equal(pool_alloc(pool, 3, 4, NO_GOAL, 0, &start, &count), -EINVAL);
    assert_int_equal(pool_alloc(pool, 3, 0, NO_GOAL, 0, &start, &count), -EINVAL);
    assert_int_equal(pool_alloc(pool, UINT32_MAX, UINT32_MAX, AT(UINT32_MAX), UINT64_MAX, &start, &count), -ENOSPC);
    assert_int_equal(take(pool, UINT32_MAX, 1, AT(UINT32_MAX), UINT64_MAX, &count), 0);
    assert_int_equal(count, 256);
    pool_put_file(pool, AT(0), 256);
    end_empty(pool);
}

/* ---- random operations against arrays ---- */

struct model {
    struct pool *pool;
    struct dice dice;
    uint32_t blocks;
    bool large; /* much of it at once */
    uint32_t *files, *holds;
    unsigned chunks_held; /* seen */
};

static bool is_free(const struct model *m, uint32_t block)
{
    return m->files[block] == 0 && m->holds[block] == 0;
}

static uint32_t free_run(const struct model *m, uint32_t at, uint32_t want)
{
    uint32_t count = 0;

    while (count < want && at + count < m->blocks && is_free(m, at + count))
        count++;
    return count;
}

/* The longest free run that begins where `ok` says, within an allocation group. */
static uint32_t longest(const struct model *m, uint32_t want, uint32_t congruent_to)
{
    uint32_t best = 0;

    for (uint32_t at = 0; at < m->blocks && best < want; at++) {
        uint32_t left = GROUP_BLOCKS - at % GROUP_BLOCKS, count;

        if (congruent_to != UINT32_MAX && (at % POOL_HUGE_BLOCKS != congruent_to ||
                                           free_run(m, at - congruent_to, POOL_HUGE_BLOCKS) < POOL_HUGE_BLOCKS))
            continue;
        count = free_run(m, at, want < left ? want : left);
        best = count > best ? count : best;
        if (congruent_to == UINT32_MAX)
            at += count;
    }
    return best;
}

static void random_alloc(struct model *m)
{
    bool large = m->large || dice_below(&m->dice, 8) == 0;
    uint32_t want = 1 + (uint32_t)dice_below(&m->dice, large ? 3 * POOL_HUGE_BLOCKS : 40), count;
    uint32_t min = dice_below(&m->dice, 2) ? 1 : 1 + (uint32_t)dice_below(&m->dice, want);
    struct pool_block start, goal = AT((uint32_t)dice_below(&m->dice, m->blocks + 10));
    uint64_t file_block = dice_roll(&m->dice);
    int error;

    if (dice_below(&m->dice, 2))
        goal = NO_GOAL;
    error = pool_alloc(m->pool, want, min, goal, file_block, &start, &count);
    if (error) {
        assert_int_equal(error, -ENOSPC);
        assert_true(longest(m, min, UINT32_MAX) < min);
        return;
    }
    assert_true(count >= min && count <= want);
    assert_int_equal(free_run(m, start.index, count), count); /* I1: nobody's */
    if (goal.index && goal.index < m->blocks && goal.index / GROUP_BLOCKS == start.index / GROUP_BLOCKS &&
        free_run(m, goal.index, min) == min && goal.index % GROUP_BLOCKS + min <= GROUP_BLOCKS)
        assert_int_equal(start.index, goal.index);
    for (uint32_t i = 0; i < count; i++) {
        m->files[start.index + i] = 1;
        assert_int_equal(pool_file_count(m->pool, AT(start.index + i)), 1);
        assert_int_equal(pool_hold_count(m->pool, AT(start.index + i)), 0);
    }
}

/* A run of blocks that all have the count. */
static bool random_run(struct model *m, const uint32_t *counts, uint32_t *ret_start, uint32_t *ret_count)
{
    uint32_t at = (uint32_t)dice_below(&m->dice, m->blocks), count = 0;
    uint32_t most = 1 + (uint32_t)dice_below(&m->dice, dice_below(&m->dice, 8) ? 30 : 2000);

    for (uint32_t i = 0; i < 200 && !counts[at]; i++)
        at = (uint32_t)dice_below(&m->dice, m->blocks);
    if (m->large && dice_below(&m->dice, 8)) {
        at = at / POOL_HUGE_BLOCKS * POOL_HUGE_BLOCKS;
        most = POOL_HUGE_BLOCKS * (1 + (uint32_t)dice_below(&m->dice, 3));
    }
    while (count < most && at + count < m->blocks && counts[at + count])
        count++;
    *ret_start = at;
    *ret_count = count;
    return count > 0;
}

static void random_count(struct model *m, unsigned which)
{
    uint32_t start, count, *changed = which & 1 ? m->holds : m->files;
    bool get = which & 2;

    /* A hold is taken only of blocks that are in files. */
    if (!random_run(m, get ? m->files : changed, &start, &count))
        return;
    if (get)
        assert_int_equal((which & 1 ? pool_get_hold : pool_get_file)(m->pool, AT(start), count), 0);
    else
        (which & 1 ? pool_put_hold : pool_put_file)(m->pool, AT(start), count);
    for (uint32_t i = 0; i < count; i++)
        changed[start + i] += get ? 1 : UINT32_MAX;
}

static void compare(struct model *m)
{
    struct pool_usage usage, sum = {.total = m->blocks};

    for (uint32_t i = 0; i < m->blocks; i++) {
        assert_int_equal(pool_file_count(m->pool, AT(i)), m->files[i]);
        assert_int_equal(pool_hold_count(m->pool, AT(i)), m->holds[i]);
        assert_int_equal(pool_exclusive(m->pool, AT(i)), m->files[i] == 1 && m->holds[i] == 0);
        sum.free += is_free(m, i);
        sum.held += m->holds[i] > 0;
        sum.orphaned += m->holds[i] > 0 && m->files[i] == 0;
    }
    pool_usage(m->pool, &usage);
    assert_memory_equal(&usage, &sum, sizeof(usage));
    assert_int_equal(pool_check(m->pool), 0);
    for (uint32_t i = 0; i < m->blocks / POOL_HUGE_BLOCKS; i++)
        m->chunks_held += atomic_load(&m->pool->chunk_holds[i]) > 0;
}

static unsigned run_random(const char *name, uint32_t blocks, bool large, unsigned steps, unsigned every)
{
    struct model m = {
        .pool = new_pool((uint64_t)blocks * POOL_BLOCK_SIZE), .dice = dice_new(name), .blocks = blocks, .large = large};

    m.files = calloc(blocks, sizeof(*m.files));
    m.holds = calloc(blocks, sizeof(*m.holds));
    for (unsigned step = 0; step < steps; step++) {
        unsigned what = (unsigned)dice_below(&m.dice, 10);

        if (what < 3)
            random_alloc(&m);
        else if (what < (large ? 6 : 5))
            random_count(&m, what == 3 ? 2 : 3);
        else
            random_count(&m, what < 8 ? 0 : 1);
        if (step % every == 0)
            compare(&m);
    }
    for (uint32_t i = 0; i < blocks; i++) {
        for (; m.files[i]; m.files[i]--)
            pool_put_file(m.pool, AT(i), 1);
        for (; m.holds[i]; m.holds[i]--)
            pool_put_hold(m.pool, AT(i), 1);
    }
    end_empty(m.pool);
    free(m.files);
    free(m.holds);
    return m.chunks_held;
}

/* I1 */
static void random_references_agree_with_arrays(void **state)
{
    (void)state;
    run_random("one small group", 1500, false, dice_steps(20000), 50);
}

static void random_references_agree_with_arrays_over_two_groups(void **state)
{
    (void)state;
    run_random("two groups", MANY_BLOCKS, false, dice_steps(3000), 500);
}

static void random_references_to_whole_huge_pages_agree_with_arrays(void **state)
{
    (void)state;
    assert_true(run_random("huge pages", 5 * POOL_HUGE_BLOCKS, true, dice_steps(20000), 20) > 20);
}

/* ---- threads ---- */

#define THREADS 4

struct worker {
    pthread_t thread;
    struct pool *pool;
    struct dice dice;
    unsigned steps;
};

/* Writes a mark of its own into what it gets: nobody else may have the block. */
static void *allocate_and_give_back(void *arg)
{
    struct worker *worker = arg;
    struct pool_block mine[32] = {0};
    uint32_t counts[32] = {0};

    for (unsigned step = 0; step < worker->steps; step++) {
        unsigned slot = (unsigned)dice_below(&worker->dice, 32);

        for (uint32_t i = 0; i < counts[slot]; i++) {
            struct worker **mark = pool_address(worker->pool, AT(mine[slot].index + i));

            if (*mark != worker)
                return worker;
        }
        if (counts[slot]) {
            if (pool_get_hold(worker->pool, mine[slot], counts[slot]))
                return worker;
            pool_put_file(worker->pool, mine[slot], counts[slot]);
            pool_put_hold(worker->pool, mine[slot], counts[slot]);
            counts[slot] = 0;
            continue;
        }
        if (pool_alloc(worker->pool, 1 + (uint32_t)dice_below(&worker->dice, 30), 1, NO_GOAL, 0, &mine[slot],
                       &counts[slot]))
            counts[slot] = 0;
        for (uint32_t i = 0; i < counts[slot]; i++)
            *(struct worker **)pool_address(worker->pool, AT(mine[slot].index + i)) = worker;
    }
    for (unsigned slot = 0; slot < 32; slot++)
        if (counts[slot])
            pool_put_file(worker->pool, mine[slot], counts[slot]);
    return NULL;
}

static void threads_never_get_the_same_block(void **state)
{
    struct pool *pool = new_pool(4 * MIB);
    struct worker workers[THREADS];
    struct dice dice = dice_new("threads");

    (void)state;
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.pool = pool, .dice = {dice_roll(&dice)}, .steps = dice_steps(5000)};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, allocate_and_give_back, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        void *wrong;

        pthread_join(workers[i].thread, &wrong);
        assert_null(wrong);
    }
    end_empty(pool);
}

/* A child that had it would make pages that the NIC writes copy-on-write: the daemon and the NIC would part ways. */
static void a_child_does_not_inherit_the_pool(void **state)
{
    struct pool *pool = new_pool(4 * MIB);
    unsigned char present;
    int status;

    (void)state;
    assert_int_equal(mincore(pool_base(pool), 1, &present), 0);
#ifdef __SANITIZE_THREAD__ /* whose runtime maps memory of its own in the child, there of all places */
    end_empty(pool);
    skip();
#endif

    pid_t child = fork();

    if (child == 0)
        _exit(mincore(pool_base(pool), 1, &present) < 0 && errno == ENOMEM ? 0 : 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    end_empty(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_is_refused_with_the_reason_when_it_cannot_be_had),
        cmocka_unit_test(a_pool_in_pieces_is_searched_once_and_not_for_each_piece),
        cmocka_unit_test(a_block_is_free_only_when_no_file_and_no_exposure_refers_to_it),
        cmocka_unit_test(a_hold_of_a_block_that_is_free_is_refused_and_nothing_changes),
        cmocka_unit_test(a_hold_of_a_whole_huge_page_is_one_count),
        cmocka_unit_test(a_part_of_a_hold_of_a_whole_huge_page_can_be_given_back),
        cmocka_unit_test(a_count_that_is_full_is_refused_and_nothing_changes),
        cmocka_unit_test(a_file_goes_on_where_it_ended),
        cmocka_unit_test(large_requests_lie_in_their_huge_pages_as_in_the_file),
        cmocka_unit_test(a_full_pool_is_full_to_the_block),
        cmocka_unit_test(silly_requests_are_refused),
        cmocka_unit_test(a_child_does_not_inherit_the_pool),
        cmocka_unit_test(random_references_agree_with_arrays),
        cmocka_unit_test(random_references_agree_with_arrays_over_two_groups),
        cmocka_unit_test(random_references_to_whole_huge_pages_agree_with_arrays),
        cmocka_unit_test(threads_never_get_the_same_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
