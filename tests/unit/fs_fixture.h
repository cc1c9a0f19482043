/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TESTS_FS_FIXTURE_H
#define LEASEFS_TESTS_FS_FIXTURE_H

/* A filesystem on a small pool with a lease table, and leases on its files as the control service makes them. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fused/fs.h"
#include "fused/layout.h"
#include "fused/pool.h"
#include "lease/lease_table.h"

#define BLOCK      POOL_BLOCK_SIZE
#define POOL_BYTES (4u << 20)
#define SESSION    UINT64_C(7)
#define NOW        UINT64_C(1000)

struct fixture {
    struct pool *pool;
    struct fs *fs;
    struct lease_table *table;
    unsigned recalls, cancelled_recalls; /* notices to the holder */
};

static inline void fixture_post(void *ctx, const struct lease_event *event)
{
    struct fixture *f = ctx;

    f->recalls += event->kind == LEASE_EVENT_RECALL;
    f->cancelled_recalls += event->kind == LEASE_EVENT_RECALL_CANCELLED;
}

static inline int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct lease_limits limits = {
        .lease_time_ns = UINT64_C(3600) * 1000000000,
        .recall_timeout_ns = UINT64_C(1000000000),
        .fence_bound_ns = UINT64_C(1000000000),
        .max_leases = 100,
        .max_session_leases = 100,
        .policy = LEASE_POLICY_RECALL,
    };
    struct lease_events events = {.post = fixture_post, .ctx = f};
    char *error = NULL;

    assert_int_equal(pool_new(POOL_BYTES, false, &f->pool, &error), 0);
    assert_int_equal(fs_new(f->pool, (struct fs_cred){0, 0}, false, &f->fs), 0);
    assert_int_equal(lease_table_new(&limits, &events, &f->table), 0);
    fs_set_lease_table(f->fs, f->table);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(lease_table_check(f->table), 0);
    assert_int_equal(fs_free(f->fs), 0);
    assert_int_equal(pool_check(f->pool), 0);
    lease_table_free(f->table);
    pool_free(f->pool);
    free(f);
    return 0;
}

/* ---- files ---- */

static inline uint64_t make_file_in(struct fixture *f, uint64_t dir, const char *name, size_t size)
{
    struct fs_entry entry;
    char *bytes;

    assert_int_equal(fs_mknod(f->fs, dir, name, S_IFREG | 0644, 0, (struct fs_cred){0, 0}, &entry), 0);
    if (size) {
        bytes = malloc(size);
        memset(bytes, name[0], size);
        assert_int_equal(fs_write(f->fs, entry.ino, 0, bytes, size, false, NULL), size);
        free(bytes);
    }
    return entry.ino;
}

static inline uint64_t make_file(struct fixture *f, const char *name, size_t size)
{
    return make_file_in(f, FS_ROOT_INO, name, size);
}

static inline uint64_t make_dir(struct fixture *f, uint64_t parent, const char *name)
{
    struct fs_entry entry;

    assert_int_equal(fs_mkdir(f->fs, parent, name, 0755, (struct fs_cred){0, 0}, &entry), 0);
    return entry.ino;
}

static inline int exists(struct fixture *f, uint64_t dir, const char *name)
{
    struct fs_entry entry;
    int err = fs_lookup(f->fs, dir, name, &entry);

    if (!err)
        fs_forget(f->fs, entry.ino, 1);
    return err == 0;
}

static inline struct stat stat_of(struct fixture *f, uint64_t ino)
{
    struct stat attr;

    assert_int_equal(fs_getattr(f->fs, ino, &attr), 0);
    return attr;
}

static inline int fixture_emit(void *arg, const struct iovec *iov, int count, size_t bytes)
{
    char *at = arg;

    for (int i = 0; i < count; i++) {
        memcpy(at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    *at = '\0';
    return (int)bytes;
}

/* Up to length bytes and a terminating 0; how many. */
static inline int read_at(struct fixture *f, uint64_t ino, uint64_t offset, size_t length, char *buffer)
{
    return fs_read(f->fs, ino, offset, length, true, fixture_emit, buffer);
}

static inline char byte_at(struct fixture *f, uint64_t ino, uint64_t offset)
{
    char buffer[2];

    assert_int_equal(read_at(f, ino, offset, 1, buffer), 1);
    return buffer[0];
}

/* ---- leases ---- */

struct test_lease {
    uint64_t id, ino;
    struct layout_hold *hold;
    const struct layout_run *runs;
    size_t n_runs;
};

static inline void no_resume(struct lease_waiter *waiter)
{
    (void)waiter;
}

static inline struct test_lease take_lease(struct fixture *f, uint64_t ino, enum lease_mode mode, uint64_t offset,
                                           uint64_t length)
{
    struct lease_request request = {
        .session_id = SESSION, .inode = ino, .range = {offset, length}, .mode = mode, .wait = false};
    struct lease_waiter waiter = {.resume = no_resume};
    struct test_lease lease = {.ino = ino};
    struct layout_problem problem = {0};
    struct lease_info info;

    assert_int_equal(lease_request(f->table, &request, NOW, &waiter, &lease.id), 0);
    assert_int_equal(
        fs_layout_ops.hold(f->fs, ino, request.range, mode, &lease.hold, &lease.runs, &lease.n_runs, &problem), 0);
    assert_int_equal(lease_commit(f->table, lease.id, NOW, NULL, &info), 0);
    return lease;
}

static inline void end_lease(struct fixture *f, struct test_lease *lease)
{
    assert_int_equal(lease_return(f->table, SESSION, lease->id, 0, NOW), 0);
    fs_layout_ops.release(f->fs, lease->hold);
    lease_fenced(f->table, lease->id, true, NOW);
}

static inline enum lease_state state_of(struct fixture *f, const struct test_lease *lease)
{
    struct lease_info info;

    assert_int_equal(lease_get(f->table, lease->id, &info), 0);
    return info.state;
}

#endif
