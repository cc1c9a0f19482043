/* SPDX-License-Identifier: BSD-2-Clause */
/* What the lease service gets from the filesystem. */
#include <errno.h>
#include <fcntl.h>

#include "tests/unit/fs_fixture.h"

static const gid_t groups[] = {50, 60};
static const struct lease_credentials root = {.uid = 0, .gid = 0};
static const struct lease_credentials alice = {.uid = 1001, .gid = 1001};
static const struct lease_credentials bob = {.uid = 1002, .gid = 1002, .n_groups = 2, .groups = groups};

#define OPS fs_layout_ops

static void set_owner(struct fixture *f, uint64_t ino, uid_t uid, gid_t gid, mode_t mode)
{
    struct stat attr = {.st_uid = uid, .st_gid = gid, .st_mode = mode};

    assert_int_equal(fs_setattr(f->fs, ino, &attr, FS_SET_UID | FS_SET_GID | FS_SET_MODE, NULL, &attr, NULL), 0);
}

static int open_close(struct fixture *f, const char *path, const struct lease_credentials *who, enum lease_mode mode)
{
    uint64_t ino;
    int err = OPS.open(f->fs, path, who, mode, &ino);

    if (!err)
        OPS.close(f->fs, ino);
    return err;
}

/* I9 */
static void nobody_leases_what_the_mode_bits_do_not_let_them(void **state)
{
    struct fixture *f = *state;
    uint64_t dir = make_dir(f, FS_ROOT_INO, "d");
    uint64_t file = make_file_in(f, dir, "x", BLOCK);

    set_owner(f, file, alice.uid, 60, 0640);
    assert_int_equal(open_close(f, "/d/x", &alice, LEASE_WRITE), 0);
    assert_int_equal(open_close(f, "/d/x", &bob, LEASE_READ), 0); /* by a supplementary group */
    assert_int_equal(open_close(f, "/d/x", &bob, LEASE_WRITE), -EACCES);
    set_owner(f, file, alice.uid, 70, 0640);
    assert_int_equal(open_close(f, "/d/x", &bob, LEASE_READ), -EACCES);
    assert_int_equal(open_close(f, "/d/x", &root, LEASE_WRITE), 0);
    set_owner(f, file, alice.uid, 60, 0046); /* the owner is asked as the owner, not as one of all */
    assert_int_equal(open_close(f, "/d/x", &alice, LEASE_READ), -EACCES);
    set_owner(f, file, alice.uid, 60, 0260); /* writing alone is not enough for a write lease */
    assert_int_equal(open_close(f, "/d/x", &alice, LEASE_WRITE), -EACCES);
    assert_int_equal(open_close(f, "/d/x", &bob, LEASE_WRITE), 0);
    set_owner(f, dir, 0, 0, 0700);
    assert_int_equal(open_close(f, "/d/x", &bob, LEASE_READ), -EACCES);
}

static void paths_are_walked_inside_the_filesystem(void **state)
{
    struct fixture *f = *state;
    struct fs_cred cred = {0, 0};
    uint64_t dir = make_dir(f, FS_ROOT_INO, "d");
    struct fs_entry e;

    make_file_in(f, dir, "x", 1);
    fs_symlink(f->fs, FS_ROOT_INO, "abs", "/d/x", cred, &e);
    fs_symlink(f->fs, dir, "rel", "../abs", cred, &e);
    fs_symlink(f->fs, FS_ROOT_INO, "dirlink", "d/", cred, &e);
    fs_symlink(f->fs, FS_ROOT_INO, "ring", "ring", cred, &e);
    fs_symlink(f->fs, FS_ROOT_INO, "up", "../../../d/x", cred, &e);
    fs_mknod(f->fs, FS_ROOT_INO, "fifo", S_IFIFO | 0666, 0, cred, &e);
    assert_int_equal(open_close(f, "/d/x", &root, LEASE_READ), 0);
    assert_int_equal(open_close(f, "//d/./../d//x", &root, LEASE_READ), 0);
    assert_int_equal(open_close(f, "/abs", &root, LEASE_READ), 0);
    assert_int_equal(open_close(f, "/d/rel", &root, LEASE_READ), 0);
    assert_int_equal(open_close(f, "/dirlink/x", &root, LEASE_READ), 0);
    assert_int_equal(open_close(f, "/dirlink/rel", &root, LEASE_READ), 0);
    assert_int_equal(open_close(f, "/up", &root, LEASE_READ), 0);
    assert_int_equal(open_close(f, "/ring", &root, LEASE_READ), -ELOOP);
    assert_int_equal(open_close(f, "/d", &root, LEASE_READ), -EISDIR);
    assert_int_equal(open_close(f, "/", &root, LEASE_READ), -EISDIR);
    assert_int_equal(open_close(f, "/fifo", &root, LEASE_READ), -EINVAL);
    assert_int_equal(open_close(f, "/d/x/", &root, LEASE_READ), -ENOTDIR);
    assert_int_equal(open_close(f, "/d/x/y", &root, LEASE_READ), -ENOTDIR);
    assert_int_equal(open_close(f, "/d/y", &root, LEASE_READ), -ENOENT);
    assert_int_equal(open_close(f, "d/x", &root, LEASE_READ), -EINVAL);
    assert_int_equal(open_close(f, "", &root, LEASE_READ), -EINVAL);
}

static void paths_have_limits(void **state)
{
    struct fixture *f = *state;
    static char path[8192];

    memset(path, 'n', sizeof(path) - 1);
    path[0] = '/';
    assert_int_equal(open_close(f, path, &root, LEASE_READ), -ENAMETOOLONG);
    path[300] = '\0';
    assert_int_equal(open_close(f, path, &root, LEASE_READ), -ENAMETOOLONG);
}

static void a_created_file_has_no_name_until_it_is_published(void **state)
{
    struct fixture *f = *state;
    struct lease_waiter waiter = {.resume = no_resume};
    struct fs_entry entry;
    uint64_t ino;
    struct stat attr;

    assert_int_equal(OPS.create(f->fs, "/new", &root, 0640, &ino), 0);
    assert_false(exists(f, FS_ROOT_INO, "new"));
    assert_int_equal(OPS.prepare(f->fs, ino, (struct lease_range){0, 2 * BLOCK}, true, true, &waiter), 0);
    assert_int_equal(OPS.publish(f->fs, ino, "/new", &root, &waiter), 0);
    assert_int_equal(OPS.publish(f->fs, ino, "/new", &root, &waiter), 0); /* again: nothing to do */
    assert_int_equal(fs_lookup(f->fs, FS_ROOT_INO, "new", &entry), 0);
    assert_int_equal(entry.ino, ino);
    assert_int_equal(entry.attr.st_nlink, 1);
    assert_int_equal(entry.attr.st_mode, S_IFREG | 0640);
    assert_int_equal(entry.attr.st_size, 2 * BLOCK);
    OPS.close(f->fs, ino);

    assert_int_equal(OPS.create(f->fs, "/gone", &root, 0640, &ino), 0);
    OPS.close(f->fs, ino);
    assert_int_equal(fs_getattr(f->fs, ino, &attr), -ESTALE);
    assert_int_equal(OPS.publish(f->fs, ino, "/gone", &root, &waiter), -ESTALE);
}

static void publishing_replaces_a_file_when_its_leases_have_ended(void **state)
{
    struct fixture *f = *state;
    uint64_t old = make_file(f, "a", BLOCK);
    struct test_lease lease = take_lease(f, old, LEASE_READ, 0, BLOCK);
    struct lease_waiter waiter = {.resume = no_resume};
    struct fs_entry entry;
    uint64_t ino;

    assert_int_equal(OPS.create(f->fs, "/a", &root, 0644, &ino), 0);
    assert_int_equal(OPS.publish(f->fs, ino, "/a", &root, &waiter), -EINPROGRESS);
    assert_int_equal(byte_at(f, old, 0), 'a');
    end_lease(f, &lease);
    assert_int_equal(OPS.publish(f->fs, ino, "/a", &root, &waiter), 0);
    fs_op_end(f->fs, &waiter);
    assert_int_equal(fs_lookup(f->fs, FS_ROOT_INO, "a", &entry), 0);
    assert_int_equal(entry.ino, ino);
    assert_int_equal(stat_of(f, old).st_nlink, 0);
    OPS.close(f->fs, ino);
}

struct told {
    uint64_t ino, directory;
    char name[FS_NAME_MAX + 1];
};

static void told_of_inode(void *ctx, uint64_t ino, int64_t offset, int64_t length)
{
    struct told *told = ctx;

    (void)length;
    if (offset < 0 && ino != FS_ROOT_INO)
        told->ino = ino;
}

static void told_of_entry(void *ctx, uint64_t parent, const char *name)
{
    struct told *told = ctx;

    told->directory = parent;
    snprintf(told->name, sizeof(told->name), "%s", name);
}

/* It has another name, so one sees its links and its time of change. */
static void the_kernel_is_told_of_the_file_that_publishing_replaces(void **state)
{
    struct fixture *f = *state;
    uint64_t ino, old = make_file(f, "a", BLOCK);
    struct told told = {0};
    struct fs_kernel_cache cache = {.inval_inode = told_of_inode, .inval_entry = told_of_entry, .ctx = &told};
    struct lease_waiter waiter = {.resume = no_resume};
    struct fs_entry entry;

    assert_int_equal(fs_link(f->fs, old, FS_ROOT_INO, "b", &entry), 0);
    fs_set_kernel_cache(f->fs, &cache);
    assert_int_equal(OPS.create(f->fs, "/a", &root, 0644, &ino), 0);
    assert_int_equal(OPS.publish(f->fs, ino, "/a", &root, &waiter), 0);
    assert_int_equal(told.ino, old);
    assert_int_equal(told.directory, FS_ROOT_INO);
    assert_string_equal(told.name, "a");
    OPS.close(f->fs, ino);
    fs_forget(f->fs, old, 1); /* the link's */
}

static void told_of_pages(void *ctx, uint64_t ino, int64_t offset, int64_t length)
{
    struct told *told = ctx;

    if (offset == 0 && length == BLOCK)
        told->ino = ino;
}

/* Pages that are only read may stay under a lease to read. */
static void the_kernel_is_asked_for_its_pages_where_it_may_have_written_some_or_a_peer_may_write(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", BLOCK);
    struct lease_range range = {0, BLOCK};
    struct told told = {0};
    struct fs_kernel_cache cache = {.inval_inode = told_of_pages, .ctx = &told};
    bool direct;

    fs_set_kernel_cache(f->fs, &cache);
    assert_int_equal(fs_open(f->fs, ino, O_RDONLY, &direct), 0);
    assert_int_equal(OPS.flush(f->fs, ino, range, LEASE_READ), 0);
    assert_int_equal(told.ino, 0);
    assert_int_equal(OPS.flush(f->fs, ino, range, LEASE_WRITE), 0);
    assert_int_equal(told.ino, ino);

    for (int flags = O_WRONLY; flags <= O_RDWR; flags += O_RDWR - O_WRONLY) {
        assert_int_equal(fs_open(f->fs, ino, flags, &direct), 0);
        fs_created(f->fs, ino, flags); /* another handle */
        for (int handles = 2; handles; handles--) {
            told.ino = 0;
            assert_int_equal(OPS.flush(f->fs, ino, range, LEASE_READ), 0);
            assert_int_equal(told.ino, ino);
            fs_close(f->fs, ino, flags);
        }
        told.ino = 0;
        assert_int_equal(OPS.flush(f->fs, ino, range, LEASE_READ), 0);
        assert_int_equal(told.ino, 0);
    }
    fs_close(f->fs, ino, O_RDONLY);
}

static void creating_and_publishing_need_write_permission_and_respect_the_sticky_bit(void **state)
{
    struct fixture *f = *state;
    uint64_t dir = make_dir(f, FS_ROOT_INO, "d");
    uint64_t file = make_file_in(f, dir, "x", 1);
    uint64_t ino;

    assert_int_equal(OPS.create(f->fs, "/d/y", &bob, 0644, &ino), -EACCES);
    set_owner(f, dir, 0, 50, 03770);
    set_owner(f, file, alice.uid, 0, 0666);
    assert_int_equal(OPS.create(f->fs, "/d/x", &alice, 0644, &ino), -EACCES);
    assert_int_equal(OPS.create(f->fs, "/d/x", &bob, 0644, &ino), -EPERM); /* sticky, another's file */
    assert_int_equal(OPS.create(f->fs, "/d/y", &bob, 0644, &ino), 0);
    assert_int_equal(stat_of(f, ino).st_gid, 50); /* set-group-id */
    assert_int_equal(stat_of(f, ino).st_uid, bob.uid);
    assert_int_equal(OPS.publish(f->fs, ino, "/d/x", &bob, NULL), -EPERM);
    assert_int_equal(OPS.publish(f->fs, ino, "/d", &root, NULL), -EISDIR);
    assert_int_equal(OPS.publish(f->fs, ino, "/d/", &root, NULL), -EISDIR);
    assert_int_equal(OPS.publish(f->fs, ino, "/d/..", &root, NULL), -EISDIR);
    OPS.close(f->fs, ino);
}

static int try_hold(struct fixture *f, uint64_t ino, uint64_t offset, uint64_t length, enum lease_mode mode,
                    struct layout_problem *problem)
{
    struct lease_range range = {offset, length};
    const struct layout_run *runs;
    struct layout_hold *hold;
    size_t n_runs;
    int err = OPS.hold(f->fs, ino, range, mode, &hold, &runs, &n_runs, problem);

    if (!err)
        OPS.release(f->fs, hold);
    return err;
}

static void a_hold_is_refused_with_the_reason_and_the_range(void **state)
{
    struct fixture *f = *state;
    struct lease_waiter waiter = {.resume = no_resume};
    uint64_t ino = make_file(f, "a", BLOCK);
    uint64_t clone = make_file(f, "b", 0);
    struct layout_problem problem;

    assert_int_equal(try_hold(f, ino, 0, 2 * BLOCK, LEASE_READ, &problem), -EPERM);
    assert_int_equal(problem.kind, LAYOUT_BEYOND_EOF);
    assert_int_equal(fs_write(f->fs, ino, 2 * BLOCK, "x", 1, false, NULL), 1);
    assert_int_equal(try_hold(f, ino, 0, 3 * BLOCK, LEASE_READ, &problem), -EPERM);
    assert_int_equal(problem.kind, LAYOUT_HOLE);
    assert_int_equal(problem.range.offset, BLOCK);
    assert_int_equal(problem.range.length, BLOCK);
    assert_int_equal(fs_fallocate(f->fs, ino, 0, 0, 3 * BLOCK, false, NULL), 0);
    assert_int_equal(try_hold(f, ino, 0, 3 * BLOCK, LEASE_READ, &problem), -EPERM);
    assert_int_equal(problem.kind, LAYOUT_UNWRITTEN);
    assert_int_equal(fs_copy(f->fs, ino, 0, clone, 0, BLOCK, false, NULL), BLOCK);
    assert_int_equal(try_hold(f, ino, 0, BLOCK, LEASE_READ, &problem), 0);
    assert_int_equal(try_hold(f, ino, 0, BLOCK, LEASE_WRITE, &problem), -EPERM);
    assert_int_equal(problem.kind, LAYOUT_SHARED);
    assert_int_equal(OPS.prepare(f->fs, ino, (struct lease_range){0, 3 * BLOCK}, true, false, &waiter), 0);
    assert_int_equal(try_hold(f, ino, 0, 3 * BLOCK, LEASE_WRITE, &problem), 0);
    assert_int_equal(byte_at(f, ino, BLOCK + 17), 0);
    assert_int_equal(byte_at(f, clone, 0), 'a');
}

static void a_clone_shares_blocks_and_parts_with_them_on_write(void **state)
{
    struct fixture *f = *state;
    struct lease_waiter waiter = {.resume = no_resume};
    uint64_t a = make_file(f, "a", 10 * BLOCK + 1);
    struct pool_usage before, after;
    struct fs_entry entry;

    pool_usage(f->pool, &before);
    assert_int_equal(OPS.clone(f->fs, "/a", "/b", &root, &waiter), 0);
    pool_usage(f->pool, &after);
    assert_int_equal(after.free, before.free);
    assert_int_equal(fs_lookup(f->fs, FS_ROOT_INO, "b", &entry), 0);
    assert_int_equal(entry.attr.st_size, 10 * BLOCK + 1);
    assert_int_equal(fs_write(f->fs, a, 5, "!", 1, false, NULL), 1);
    assert_int_equal(byte_at(f, entry.ino, 5), 'a');
    assert_int_equal(OPS.clone(f->fs, "/a", "/b", &root, &waiter), 0); /* over an existing file */
    assert_int_equal(byte_at(f, entry.ino, 5), '!');
    assert_int_equal(OPS.clone(f->fs, "/a", "/a", &root, &waiter), -EINVAL);
    assert_int_equal(OPS.clone(f->fs, "/none", "/c", &root, &waiter), -ENOENT);
    set_owner(f, a, alice.uid, 0, 0600);
    assert_int_equal(OPS.clone(f->fs, "/a", "/b", &bob, &waiter), -EACCES);
    assert_int_equal(OPS.clone(f->fs, "/b", "/c", &bob, &waiter), -EACCES); /* the root directory is not bob's */
}

static void a_commit_may_move_the_end_of_file_within_the_last_block_only(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 2 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, 0, 2 * BLOCK);
    struct lease_range range = {0, 2 * BLOCK};
    struct layout_attr before, after;

    assert_int_equal(OPS.getattr(f->fs, ino, &before), 0);
    assert_int_equal(OPS.committed(f->fs, ino, range, UINT64_MAX), 0);
    assert_int_equal(OPS.getattr(f->fs, ino, &after), 0);
    assert_int_equal(after.size, 2 * BLOCK);
    assert_true(after.data_version > before.data_version);
    assert_int_equal(OPS.committed(f->fs, ino, range, BLOCK + 10), 0);
    assert_int_equal(stat_of(f, ino).st_size, BLOCK + 10);
    assert_int_equal(OPS.committed(f->fs, ino, range, BLOCK), -EINVAL);
    assert_int_equal(OPS.committed(f->fs, ino, range, 2 * BLOCK + 1), -EINVAL);
    assert_int_equal(OPS.committed(f->fs, ino, (struct lease_range){0, BLOCK}, 10), -EINVAL);
    end_lease(f, &lease);
    assert_int_equal(stat_of(f, ino).st_size, BLOCK + 10);
}

/* The remote writer wrote behind the end of file. It must not appear when the file grows. */
static void bytes_behind_the_end_are_zeros_again_after_a_write_lease(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 100);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, 0, BLOCK);
    char *block = (char *)pool_base(f->pool) + lease.runs[0].offset;
    struct stat attr = {.st_size = BLOCK};

    memset(block, 'X', BLOCK);
    end_lease(f, &lease);
    assert_int_equal(byte_at(f, ino, 99), 'X');
    assert_int_equal(fs_setattr(f->fs, ino, &attr, FS_SET_SIZE, NULL, &attr, NULL), 0);
    assert_int_equal(byte_at(f, ino, 100), 0);
    assert_int_equal(byte_at(f, ino, BLOCK - 1), 0);
}

/* What is kept of a lease is what it was, whatever the file has there by now. */
static void a_part_of_a_hold_has_the_same_blocks_and_outlives_it(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 4 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_READ, 0, 4 * BLOCK);
    struct pool_usage held, after;
    char news[2 * BLOCK];
    const struct layout_run *runs;
    struct layout_hold *part;
    size_t n;

    fs_set_lease_table(f->fs, NULL); /* as under policy orphan */
    memset(news, 'N', sizeof(news));
    assert_int_equal(fs_write(f->fs, ino, BLOCK, news, sizeof(news), false, NULL), (int)sizeof(news));
    fs_set_lease_table(f->fs, f->table);
    pool_usage(f->pool, &held);
    assert_int_equal(
        OPS.hold_part(f->fs, lease.hold, (struct lease_range){BLOCK, 2 * BLOCK}, LEASE_READ, &part, &runs, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(runs[0].offset, lease.runs[0].offset + BLOCK);
    assert_int_equal(runs[0].length, 2 * BLOCK);
    end_lease(f, &lease);
    assert_int_equal(((char *)pool_base(f->pool))[runs[0].offset], 'a');
    assert_int_equal(byte_at(f, ino, BLOCK), 'N');
    pool_usage(f->pool, &after);
    assert_int_equal(after.free, held.free); /* the two that no file has are still somebody's */
    OPS.release(f->fs, part);
    pool_usage(f->pool, &after);
    assert_int_equal(after.free, held.free + 2);
}

static void a_part_of_a_hold_has_no_more_rights_and_no_other_bytes(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 4 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_READ, BLOCK, 2 * BLOCK);
    const struct layout_run *runs;
    struct layout_hold *part;
    size_t n;

    assert_int_equal(
        OPS.hold_part(f->fs, lease.hold, (struct lease_range){BLOCK, BLOCK}, LEASE_WRITE, &part, &runs, &n), -EINVAL);
    assert_int_equal(OPS.hold_part(f->fs, lease.hold, (struct lease_range){0, 2 * BLOCK}, LEASE_READ, &part, &runs, &n),
                     -EINVAL);
    assert_int_equal(OPS.hold_part(f->fs, lease.hold, (struct lease_range){BLOCK, 0}, LEASE_READ, &part, &runs, &n),
                     -EINVAL);
    end_lease(f, &lease);
}

/* A downgraded writer's bytes behind the end of file: others may read the block from now on. */
static void bytes_behind_the_end_are_zeros_after_a_downgrade(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 100);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, 0, BLOCK);
    char *block = (char *)pool_base(f->pool) + lease.runs[0].offset;
    const struct layout_run *runs;
    struct layout_hold *part;
    size_t n;

    memset(block, 'X', BLOCK);
    assert_int_equal(OPS.hold_part(f->fs, lease.hold, (struct lease_range){0, BLOCK}, LEASE_READ, &part, &runs, &n), 0);
    end_lease(f, &lease);
    assert_int_equal(block[99], 'X');
    assert_int_equal(block[100], 0);
    assert_int_equal(block[BLOCK - 1], 0);
    OPS.release(f->fs, part);
}

static void a_held_file_outlives_its_last_name(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, 0, BLOCK);
    struct pool_usage start, end;

    pool_usage(f->pool, &start);
    fs_set_lease_table(f->fs, NULL); /* a quarantined lease conflicts with nothing */
    assert_int_equal(fs_unlink(f->fs, FS_ROOT_INO, "a", NULL), 0);
    fs_set_lease_table(f->fs, f->table);
    fs_forget(f->fs, ino, 1);
    pool_usage(f->pool, &end);
    assert_int_equal(end.free, start.free);
    end_lease(f, &lease);
    pool_usage(f->pool, &end);
    assert_int_equal(end.free, start.free + 1);
}

static void detaching_gives_the_file_copies(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 2 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_WRITE, 0, 2 * BLOCK);
    char *block = (char *)pool_base(f->pool) + lease.runs[0].offset;

    assert_false(OPS.sole(f->fs, lease.hold));
    assert_int_equal(OPS.detach(f->fs, lease.hold), 0);
    assert_true(OPS.sole(f->fs, lease.hold));
    memset(block, 'X', BLOCK); /* the peer goes on writing */
    assert_int_equal(byte_at(f, ino, 0), 'a');
    assert_int_equal(OPS.usage(f->fs).quarantined_bytes, 2 * BLOCK);
    end_lease(f, &lease);
    assert_int_equal(OPS.usage(f->fs).quarantined_bytes, 0);
}

/* Then nothing may be done to its blocks: they are somebody's. */
static void a_hold_that_shares_its_blocks_is_not_the_sole_one(void **state)
{
    struct fixture *f = *state;
    uint64_t ino = make_file(f, "a", 2 * BLOCK);
    struct test_lease lease = take_lease(f, ino, LEASE_READ, 0, 2 * BLOCK);
    struct test_lease second = take_lease(f, ino, LEASE_READ, BLOCK, BLOCK);

    assert_int_equal(OPS.detach(f->fs, lease.hold), 0);
    assert_false(OPS.sole(f->fs, lease.hold));
    end_lease(f, &second);
    assert_true(OPS.sole(f->fs, lease.hold));
    end_lease(f, &lease);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_leases_what_the_mode_bits_do_not_let_them),
        TEST(paths_are_walked_inside_the_filesystem),
        TEST(paths_have_limits),
        TEST(a_created_file_has_no_name_until_it_is_published),
        TEST(publishing_replaces_a_file_when_its_leases_have_ended),
        TEST(the_kernel_is_told_of_the_file_that_publishing_replaces),
        TEST(the_kernel_is_asked_for_its_pages_where_it_may_have_written_some_or_a_peer_may_write),
        TEST(creating_and_publishing_need_write_permission_and_respect_the_sticky_bit),
        TEST(a_hold_is_refused_with_the_reason_and_the_range),
        TEST(a_clone_shares_blocks_and_parts_with_them_on_write),
        TEST(a_commit_may_move_the_end_of_file_within_the_last_block_only),
        TEST(bytes_behind_the_end_are_zeros_again_after_a_write_lease),
        TEST(a_part_of_a_hold_has_the_same_blocks_and_outlives_it),
        TEST(a_part_of_a_hold_has_no_more_rights_and_no_other_bytes),
        TEST(bytes_behind_the_end_are_zeros_after_a_downgrade),
        TEST(a_held_file_outlives_its_last_name),
        TEST(detaching_gives_the_file_copies),
        TEST(a_hold_that_shares_its_blocks_is_not_the_sole_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
