/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front door, all of it: every operation that changes a layout or bytes, and some that do not, at each place
 * relative to a lease; read and write leases in each state; each policy of the file and of the lease; operations that
 * wait, that do not, and that the holder itself asks for. What is expected is said once more in expected(), after
 * DESIGN.md and not after the code:
 *
 *   - what an operation does to the file's bytes is in its line of the table below;
 *   - bytes that leave the file wait for the holder, not for the fence; bytes that change under a writer, and a second
 *     file for bytes that a writer may change, wait for the fence; a reader minds neither a second file nor the fence;
 *   - the more permissive of the two policies counts: busy fails, recall waits, orphan goes on (but not through a grant
 *     in progress);
 *   - who cannot wait is told to try again, and the recall goes out; the holder is told that it would wait for itself,
 *     and is not recalled.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>

#include "tests/unit/fs_fixture.h"

#define BLOCKS 8
#define SIZE   (BLOCKS * BLOCK - 100) /* the last block has slack */
#define HOLDER 77                     /* the process */

struct scene {
    struct fixture *f;
    uint64_t ino, other; /* "a", which is leased, and "b", of the same size */
    uint64_t made;       /* a nameless file, to be published; 0: not yet */
    uint64_t first, count;
};

static const struct lease_credentials root = {.uid = 0, .gid = 0};

/* ---- operations: on blocks [first, first + count) of "a" ---- */

static int64_t write_bytes(struct scene *s, struct lease_waiter *waiter)
{
    static const char news[BLOCKS * BLOCK] = "news";

    return fs_write(s->f->fs, s->ino, s->first * BLOCK + 17, news, s->count * BLOCK - 34, true, waiter);
}

static int64_t write_back_pages(struct scene *s, struct lease_waiter *waiter)
{
    static const char pages[BLOCKS * BLOCK] = "pages";

    return fs_write(s->f->fs, s->ino, s->first * BLOCK, pages, s->count * BLOCK, false, waiter);
}

static int64_t append(struct scene *s, struct lease_waiter *waiter)
{
    return fs_write(s->f->fs, s->ino, SIZE, "!", 1, true, waiter);
}

static int64_t write_far_behind_the_end(struct scene *s, struct lease_waiter *waiter)
{
    return fs_write(s->f->fs, s->ino, 20 * BLOCK, "!", 1, true, waiter);
}

static int64_t set_size(struct scene *s, uint64_t size, struct lease_waiter *waiter)
{
    struct stat attr = {.st_size = (off_t)size};

    return fs_setattr(s->f->fs, s->ino, &attr, FS_SET_SIZE, waiter, &attr, NULL);
}

static int64_t truncate_to(struct scene *s, struct lease_waiter *waiter)
{
    return set_size(s, s->first * BLOCK, waiter);
}

static int64_t truncate_inside_a_block(struct scene *s, struct lease_waiter *waiter)
{
    return set_size(s, s->first * BLOCK + 1, waiter);
}

static int64_t open_with_o_trunc(struct scene *s, struct lease_waiter *waiter)
{
    return set_size(s, 0, waiter);
}

static int64_t grow(struct scene *s, struct lease_waiter *waiter)
{
    return set_size(s, 20 * BLOCK, waiter);
}

static int64_t allocate_mode(struct scene *s, int mode, uint64_t offset, uint64_t length, struct lease_waiter *waiter)
{
    return fs_fallocate(s->f->fs, s->ino, mode, offset, length, true, waiter);
}

static int64_t allocate_inside(struct scene *s, struct lease_waiter *waiter)
{
    return allocate_mode(s, 0, s->first * BLOCK, s->count * BLOCK, waiter);
}

static int64_t allocate_behind_and_keep_the_size(struct scene *s, struct lease_waiter *waiter)
{
    return allocate_mode(s, FALLOC_FL_KEEP_SIZE, 10 * BLOCK, BLOCK, waiter);
}

static int64_t allocate_behind(struct scene *s, struct lease_waiter *waiter)
{
    return allocate_mode(s, 0, 10 * BLOCK, BLOCK, waiter);
}

static int64_t punch(struct scene *s, struct lease_waiter *waiter)
{
    return allocate_mode(s, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, s->first * BLOCK + 17, s->count * BLOCK - 34,
                         waiter);
}

static int64_t zero(struct scene *s, struct lease_waiter *waiter)
{
    return allocate_mode(s, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, s->first * BLOCK + 17, s->count * BLOCK - 34,
                         waiter);
}

static int64_t collapse(struct scene *s, struct lease_waiter *waiter)
{
    return allocate_mode(s, FALLOC_FL_COLLAPSE_RANGE, s->first * BLOCK, BLOCK, waiter);
}

static int64_t insert(struct scene *s, struct lease_waiter *waiter)
{
    return allocate_mode(s, FALLOC_FL_INSERT_RANGE, s->first * BLOCK, BLOCK, waiter);
}

static int64_t unshare(struct scene *s, struct lease_waiter *waiter)
{
    return allocate_mode(s, FALLOC_FL_UNSHARE_RANGE, s->first * BLOCK, s->count * BLOCK, waiter);
}

static int64_t copy_from(struct scene *s, struct lease_waiter *waiter)
{
    return fs_copy(s->f->fs, s->ino, s->first * BLOCK, s->other, 0, s->count * BLOCK, true, waiter);
}

static int64_t copy_to(struct scene *s, struct lease_waiter *waiter)
{
    return fs_copy(s->f->fs, s->other, 0, s->ino, s->first * BLOCK, s->count * BLOCK, true, waiter);
}

static int64_t clone_from(struct scene *s, struct lease_waiter *waiter)
{
    return fs_layout_ops.clone(s->f->fs, "/a", "/b", &root, waiter);
}

static int64_t clone_to(struct scene *s, struct lease_waiter *waiter)
{
    return fs_layout_ops.clone(s->f->fs, "/b", "/a", &root, waiter);
}

static int64_t unlink_the_last_name(struct scene *s, struct lease_waiter *waiter)
{
    return fs_unlink(s->f->fs, FS_ROOT_INO, "a", waiter);
}

static int64_t unlink_a_name(struct scene *s, struct lease_waiter *waiter)
{
    struct fs_entry entry;

    if (!exists(s->f, FS_ROOT_INO, "a2")) {
        assert_int_equal(fs_link(s->f->fs, s->ino, FS_ROOT_INO, "a2", &entry), 0);
        fs_forget(s->f->fs, s->ino, 1);
    }
    return fs_unlink(s->f->fs, FS_ROOT_INO, "a2", waiter);
}

static int64_t rename_over(struct scene *s, struct lease_waiter *waiter)
{
    return fs_rename(s->f->fs, FS_ROOT_INO, "b", FS_ROOT_INO, "a", 0, (struct fs_cred){0}, waiter);
}

static int64_t rename_away(struct scene *s, struct lease_waiter *waiter)
{
    return fs_rename(s->f->fs, FS_ROOT_INO, "a", FS_ROOT_INO, "c", 0, (struct fs_cred){0}, waiter);
}

static int64_t publish_over(struct scene *s, struct lease_waiter *waiter)
{
    if (!s->made)
        assert_int_equal(fs_layout_ops.create(s->f->fs, "/a", &root, 0644, &s->made), 0);
    return fs_layout_ops.publish(s->f->fs, s->made, "/a", &root, waiter);
}

static int64_t change_mode_and_times(struct scene *s, struct lease_waiter *waiter)
{
    struct stat attr = {.st_mode = 0600, .st_uid = 1, .st_gid = 1};

    return fs_setattr(s->f->fs, s->ino, &attr, FS_SET_MODE | FS_SET_UID | FS_SET_GID | FS_SET_MTIME_NOW, waiter, &attr,
                      NULL);
}

static int64_t prepare(struct scene *s, struct lease_waiter *waiter)
{
    return fs_layout_ops.prepare(s->f->fs, s->ino, (struct lease_range){s->first * BLOCK, s->count * BLOCK}, true,
                                 false, waiter);
}

/* ---- what they do to the bytes of "a" ---- */

enum does { NOTHING, DROPS, CHANGES, SHARES };
enum where { THE_BLOCKS, INSIDE_THE_BLOCKS, FROM_THE_FIRST, ALL, THE_LAST_BLOCK };

static const struct operation {
    const char *name;
    int64_t (*run)(struct scene *scene, struct lease_waiter *waiter);
    enum does does;
    enum where where;
    bool shared; /* the file's blocks are shared first */
} operations[] = {
    {"write", write_bytes, CHANGES, INSIDE_THE_BLOCKS, false},
    {"writeback of mapped pages", write_back_pages, CHANGES, THE_BLOCKS, false},
    {"append", append, CHANGES, THE_LAST_BLOCK, false},
    {"write far behind the end", write_far_behind_the_end, CHANGES, THE_LAST_BLOCK, false},
    {"truncate", truncate_to, DROPS, FROM_THE_FIRST, false},
    {"truncate inside a block", truncate_inside_a_block, DROPS, FROM_THE_FIRST, false},
    {"open with O_TRUNC", open_with_o_trunc, DROPS, ALL, false},
    {"grow", grow, CHANGES, THE_LAST_BLOCK, false},
    {"allocate inside", allocate_inside, NOTHING, THE_BLOCKS, false},
    {"allocate behind, keep size", allocate_behind_and_keep_the_size, NOTHING, ALL, false},
    {"allocate behind", allocate_behind, CHANGES, THE_LAST_BLOCK, false},
    {"punch", punch, DROPS, THE_BLOCKS, false},
    {"zero", zero, CHANGES, INSIDE_THE_BLOCKS, false},
    {"collapse", collapse, DROPS, FROM_THE_FIRST, false},
    {"insert", insert, DROPS, FROM_THE_FIRST, false},
    {"unshare", unshare, CHANGES, THE_BLOCKS, true},
    /* A leased block counts as shared: the file gets one of its own. */
    {"unshare what is leased", unshare, CHANGES, THE_BLOCKS, false},
    {"copy from", copy_from, SHARES, THE_BLOCKS, false},
    {"copy to", copy_to, CHANGES, THE_BLOCKS, false},
    {"clone from", clone_from, SHARES, ALL, false},
    {"clone to", clone_to, DROPS, ALL, false},
    {"unlink the last name", unlink_the_last_name, DROPS, ALL, false},
    {"unlink a name", unlink_a_name, NOTHING, ALL, false},
    {"rename over", rename_over, DROPS, ALL, false},
    {"rename away", rename_away, NOTHING, ALL, false},
    {"publish over", publish_over, DROPS, ALL, false},
    {"setattr", change_mode_and_times, NOTHING, ALL, false},
    {"prepare, shared", prepare, CHANGES, THE_BLOCKS, true},
    {"prepare what is leased", prepare, CHANGES, THE_BLOCKS, false},
};

enum waiting { WAITS, CANNOT_WAIT, HOLDER_ITSELF, N_WAITING };

struct combination {
    const struct operation *operation;
    uint64_t first, count;        /* blocks of the operation */
    uint64_t lease_first, leased; /* and of the lease */
    enum lease_mode mode;
    enum lease_state state;
    enum lease_policy file, lease; /* 0: none of its own */
    enum waiting waiting;
};

/* ---- the rules ---- */

static bool touches(const struct combination *c)
{
    uint64_t from = c->lease_first * BLOCK, to = from + c->leased * BLOCK; /* the lease */
    uint64_t first = c->first * BLOCK, end = first + c->count * BLOCK;

    switch (c->operation->where) {
    case THE_BLOCKS:
        return first < to && from < end;
    case INSIDE_THE_BLOCKS:
        return first + 17 < to && from < end - 17;
    case FROM_THE_FIRST:
        return first < to;
    case ALL:
        return true;
    case THE_LAST_BLOCK:
        return to == BLOCKS * BLOCK;
    }
    return true;
}

static bool conflicts(const struct combination *c)
{
    bool usable = c->state != LEASE_FENCING;

    switch (c->operation->does) {
    case NOTHING:
        return false;
    case DROPS:
        return usable;
    case CHANGES:
        return usable || c->mode == LEASE_WRITE;
    case SHARES:
        return c->mode == LEASE_WRITE;
    }
    return true;
}

static int expected(const struct combination *c)
{
    enum lease_policy file = c->file ? c->file : LEASE_POLICY_RECALL;
    bool orphan = file == LEASE_POLICY_ORPHAN || c->lease == LEASE_POLICY_ORPHAN;
    bool recall = file == LEASE_POLICY_RECALL || c->lease == LEASE_POLICY_RECALL;

    if (!touches(c) || !conflicts(c) || (orphan && c->state != LEASE_GRANTING))
        return 0;
    if (c->state != LEASE_FENCING && !orphan && !recall)
        return -EBUSY;
    if (c->state != LEASE_FENCING && c->waiting == HOLDER_ITSELF)
        return -EDEADLK;
    return c->waiting == CANNOT_WAIT ? -EAGAIN : -EINPROGRESS;
}

/* ---- one combination ---- */

struct asker {
    struct lease_waiter waiter; /* first */
    unsigned resumed;
};

static void count_resume(struct lease_waiter *waiter)
{
    ((struct asker *)waiter)->resumed++;
}

static struct test_lease lease_in_state(struct fixture *f, uint64_t ino, const struct combination *c)
{
    struct lease_request request = {.session_id = SESSION,
                                    .process = HOLDER,
                                    .inode = ino,
                                    .range = {c->lease_first * BLOCK, c->leased * BLOCK},
                                    .mode = c->mode,
                                    .policy = c->lease};
    struct test_lease lease = {.ino = ino};
    struct layout_problem problem;
    struct lease_info info;

    assert_int_equal(lease_request(f->table, &request, NOW, NULL, &lease.id), 0);
    assert_int_equal(
        fs_layout_ops.hold(f->fs, ino, request.range, c->mode, &lease.hold, &lease.runs, &lease.n_runs, &problem), 0);
    if (c->state != LEASE_GRANTING)
        assert_int_equal(lease_commit(f->table, lease.id, NOW, NULL, &info), 0);
    if (c->state == LEASE_RECALLED)
        lease_make_room(f->table, SESSION + 1, 1, NOW);
    if (c->state == LEASE_FENCING)
        assert_int_equal(lease_return(f->table, SESSION, lease.id, 0, NOW), 0);
    assert_int_equal(state_of(f, &lease), c->state);
    return lease;
}

static void end_in_any_state(struct fixture *f, struct test_lease *lease)
{
    enum lease_state state = state_of(f, lease);

    if (state == LEASE_ACTIVE || state == LEASE_RECALLED)
        assert_int_equal(lease_return(f->table, SESSION, lease->id, 0, NOW), 0);
    fs_layout_ops.release(f->fs, lease->hold);
    if (state == LEASE_GRANTING)
        lease_abort(f->table, lease->id, NOW);
    else
        lease_fenced(f->table, lease->id, true, NOW);
}

static const char *describe(const struct combination *c)
{
    static char text[512];
    static const char *const waiting[] = {"waits", "cannot wait", "is the holder's own"};

    snprintf(text, sizeof(text), "%s of %llu+%llu, %s lease %llu+%llu %s, policies %s and %s, %s", c->operation->name,
             (unsigned long long)c->first, (unsigned long long)c->count, lease_mode_name(c->mode),
             (unsigned long long)c->lease_first, (unsigned long long)c->leased, lease_state_name(c->state),
             c->file ? lease_policy_name(c->file) : "none", c->lease ? lease_policy_name(c->lease) : "none",
             waiting[c->waiting]);
    return text;
}

static uint64_t version_of(struct fixture *f, uint64_t ino)
{
    struct layout_attr attr;

    assert_int_equal(fs_layout_ops.getattr(f->fs, ino, &attr), 0);
    return attr.data_version;
}

static void expect_nothing_happened(struct scene *s, uint64_t version, const struct combination *c)
{
    if (version_of(s->f, s->ino) != version || stat_of(s->f, s->ino).st_size != SIZE ||
        byte_at(s->f, s->ino, c->first * BLOCK + 100) != 'a' || !exists(s->f, FS_ROOT_INO, "a"))
        fail_msg("%s: it changed the file all the same", describe(c));
}

/* It has been asked once; the lease is as it has to be after that. */
static void expect_the_lease(struct fixture *f, const struct test_lease *lease, const struct combination *c, int answer)
{
    bool recalled = c->state == LEASE_ACTIVE && (answer == -EINPROGRESS || answer == -EAGAIN);

    if (state_of(f, lease) != (recalled ? LEASE_RECALLED : c->state))
        fail_msg("%s: then the lease is %s", describe(c), lease_state_name(state_of(f, lease)));
    if (f->recalls != (recalled || c->state == LEASE_RECALLED))
        fail_msg("%s: %u recalls", describe(c), f->recalls);
}

/* One filesystem serves many combinations. */
static void clean_up(struct scene *s)
{
    static const char *const names[] = {"a", "a2", "b", "c"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (exists(s->f, FS_ROOT_INO, names[i]))
            assert_int_equal(fs_unlink(s->f->fs, FS_ROOT_INO, names[i], NULL), 0);
    fs_forget(s->f->fs, s->ino, 1);
    fs_forget(s->f->fs, s->other, 1);
    if (s->made)
        fs_layout_ops.close(s->f->fs, s->made);
    assert_int_equal(lease_table_check(s->f->table), 0);
    s->f->recalls = 0;
}

static void run(struct fixture *f, const struct combination *c)
{
    struct asker asker = {.waiter = {.resume = count_resume}};
    struct lease_waiter *waiter = c->waiting == CANNOT_WAIT ? NULL : &asker.waiter;
    struct scene s = {.f = f, .first = c->first, .count = c->count};
    struct test_lease lease;
    uint64_t version;
    int64_t got;
    int answer = expected(c);

    s.ino = make_file(s.f, "a", SIZE);
    s.other = make_file(s.f, "b", SIZE);
    if (c->operation->shared)
        assert_int_equal(fs_copy(s.f->fs, s.ino, 0, s.other, 0, SIZE, false, NULL), SIZE);
    if (c->file)
        assert_int_equal(fs_setxattr(s.f->fs, s.ino, FS_XATTR_POLICY, lease_policy_name(c->file),
                                     strlen(lease_policy_name(c->file)), 0),
                         0);
    lease = lease_in_state(s.f, s.ino, c);
    asker.waiter.process = c->waiting == HOLDER_ITSELF ? HOLDER : HOLDER + 1;
    version = version_of(s.f, s.ino);
    got = c->operation->run(&s, waiter);
    if ((got < 0 ? got : 0) != answer)
        fail_msg("%s: %lld instead of %d", describe(c), (long long)got, answer);
    expect_the_lease(s.f, &lease, c, answer);
    if (answer)
        expect_nothing_happened(&s, version, c);
    end_in_any_state(s.f, &lease);
    if (asker.resumed != (answer == -EINPROGRESS))
        fail_msg("%s: resumed %u times", describe(c), asker.resumed);
    if (answer && c->operation->run(&s, waiter) < 0)
        fail_msg("%s: after the lease's end it fails", describe(c));
    lease_op_end(s.f->table, &asker.waiter);
    clean_up(&s);
}

/* ---- the product ---- */

static unsigned long combinations;

static void in_each_state_and_under_each_policy(struct fixture *f, struct combination c)
{
    for (c.mode = LEASE_READ; c.mode <= LEASE_WRITE; c.mode++) {
        if (c.operation->shared && c.mode == LEASE_WRITE)
            continue; /* a write lease covers no shared block (I3) */
        for (c.state = LEASE_GRANTING; c.state <= LEASE_FENCING; c.state++)
            for (c.file = 0; c.file <= LEASE_POLICY_ORPHAN; c.file++)
                for (c.lease = 0; c.lease <= LEASE_POLICY_ORPHAN; c.lease++)
                    for (c.waiting = 0; c.waiting < N_WAITING; c.waiting++) {
                        run(f, &c);
                        combinations++;
                    }
    }
}

static void at_each_place(struct fixture *f, const struct operation *operation)
{
    static const uint64_t places[][2] = {{1, 2}, {2, 1}, {2, 2}, {3, 1}, {3, 2}, {2, 4}, {4, 2}, {5, 1}, {5, 2}};
    static const uint64_t leases[][2] = {{0, 1}, {3, 2}, {7, 1}, {0, 8}};
    struct combination c = {.operation = operation, .count = 1};

    if (operation->where == ALL || operation->where == THE_LAST_BLOCK) {
        for (size_t i = 0; i < sizeof(leases) / sizeof(leases[0]); i++) {
            c.lease_first = leases[i][0];
            c.leased = leases[i][1];
            in_each_state_and_under_each_policy(f, c);
        }
        return;
    }
    c.lease_first = 3;
    c.leased = 2;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        c.first = places[i][0];
        c.count = places[i][1];
        in_each_state_and_under_each_policy(f, c);
    }
}

static void every_operation_meets_every_lease_as_the_rules_say(void **state)
{
    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
        at_each_place(*state, &operations[i]);
    print_message("%lu combinations\n", combinations);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_operation_meets_every_lease_as_the_rules_say, fixture_setup,
                                        fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
