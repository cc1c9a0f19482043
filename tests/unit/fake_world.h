/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TEST_FAKE_WORLD_H
#define LEASEFS_TEST_FAKE_WORLD_H

/*
 * A filesystem and a fabric that only pretend, for the control service (service_fixture.h). The filesystem knows a few
 * paths, each FILE_BLOCKS blocks long:
 *
 *   /a /b /c  files 1, 2, 3      /hole    a file with a hole at its third block
 *   /secret   nobody's           the rest does not exist
 */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "lease/service.h"

#define MS          UINT64_C(1000000)
#define BLOCK       UINT64_C(4096)
#define FILE_BLOCKS 8
#define FILE_HOLE   4
#define FILE_NEW    100 /* and up: made by create() */
#define PATIENCE_MS 60000

struct world {
    struct lease_service *service;
    char path[64]; /* of the socket */

    /* What the pretended filesystem and fabric have in their hands. */
    atomic_int pins, holds, detached, exposures, fabric_sessions, committed, published;
    atomic_ulong next_inode;
    atomic_bool renamed; /* "/a" names file 2 */
    atomic_bool locked;  /* nobody may open files any more */
    atomic_int fence_error;
    void (*on_expose)(struct world *world, uint64_t first_byte); /* while a lease is being granted */
    atomic_int expose_error;                                     /* of the next but `exposes_first` */
    atomic_int exposes_first;
    atomic_int n_exposed; /* so many keys were made so far */
    void (*on_fence)(struct world *world);
    void (*on_session_open)(struct world *world, const struct sockaddr *reached);
    void (*on_getattr)(struct world *world, uint64_t inode);
};

static struct world world;

static inline uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Waits for what another thread will make true. */
#define UNTIL(condition)                                                                                               \
    do {                                                                                                               \
        uint64_t until_ = now_ns() + PATIENCE_MS * MS;                                                                 \
        while (!(condition)) {                                                                                         \
            assert_true(now_ns() < until_);                                                                            \
            poll(NULL, 0, 1);                                                                                          \
        }                                                                                                              \
    } while (0)

/* ---- the filesystem ---- */

struct layout_hold {
    struct layout_run run;
};

static inline uint64_t inode_of(const char *path)
{
    static const char *const names[] = {"/a", "/b", "/c", "/hole"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(path, names[i]) == 0)
            return i + 1;
    return 0;
}

static inline struct lease_table *the_table(void)
{
    return lease_service_table(world.service);
}

static inline const struct layout_segment *fake_segments(void *fs, size_t *ret_count)
{
    static const struct layout_segment segment = {.fd = -1, .size = 1 << 20, .page_size = 4096};

    (void)fs;
    *ret_count = 1;
    return &segment;
}

static inline int fake_open(void *fs, const char *path, const struct lease_credentials *who, enum lease_mode mode,
                            uint64_t *ret_inode)
{
    (void)fs, (void)mode;
    assert_int_equal(who->uid, getuid());
    if (strcmp(path, "/secret") == 0 || world.locked)
        return -EACCES;
    if (!inode_of(path))
        return -ENOENT;
    *ret_inode = world.renamed && strcmp(path, "/a") == 0 ? 2 : inode_of(path);
    world.pins++;
    return 0;
}

static inline void fake_close(void *fs, uint64_t inode)
{
    (void)fs, (void)inode;
    world.pins--;
}

static inline int fake_getattr(void *fs, uint64_t inode, struct layout_attr *ret_attr)
{
    (void)fs;
    *ret_attr = (struct layout_attr){.inode = inode, .size = FILE_BLOCKS * BLOCK, .data_version = 1};
    if (world.on_getattr)
        world.on_getattr(&world, inode);
    return 0;
}

static inline int fake_create(void *fs, const char *path, const struct lease_credentials *who, mode_t mode,
                              uint64_t *ret_inode)
{
    (void)fs, (void)path, (void)who, (void)mode;
    *ret_inode = FILE_NEW + world.next_inode++;
    world.pins++;
    return 0;
}

static inline int fake_publish(void *fs, uint64_t inode, const char *path, const struct lease_credentials *who,
                               struct lease_waiter *waiter)
{
    int error = 0;

    (void)fs, (void)inode, (void)who;
    if (inode_of(path))
        error = lease_op_begin(the_table(), inode_of(path), range_from(0), LEASE_OP_DROP, now_ns(), waiter);
    world.published += !error;
    return error;
}

static inline int fake_prepare(void *fs, uint64_t inode, struct lease_range range, bool exclusive, bool extend,
                               struct lease_waiter *waiter)
{
    (void)fs, (void)exclusive, (void)extend;
    return lease_op_begin(the_table(), inode, range, LEASE_OP_REPLACE, now_ns(), waiter);
}

static inline int fake_clone(void *fs, const char *source, const char *destination, const struct lease_credentials *who,
                             struct lease_waiter *waiter)
{
    int error = lease_op_begin(the_table(), inode_of(source), range_from(0), LEASE_OP_SHARE, now_ns(), waiter);

    (void)fs, (void)who;
    if (!error)
        error = lease_op_begin(the_table(), inode_of(destination), range_from(0), LEASE_OP_DROP, now_ns(), waiter);
    return error;
}

static inline int fake_flush(void *fs, uint64_t inode, struct lease_range range, enum lease_mode mode)
{
    (void)fs, (void)inode, (void)range, (void)mode;
    return 0;
}

static inline int fake_hold(void *fs, uint64_t inode, struct lease_range range, enum lease_mode mode,
                            struct layout_hold **ret_hold, const struct layout_run **ret_runs, size_t *ret_n_runs,
                            struct layout_problem *problem)
{
    static const struct lease_range hole = {2 * BLOCK, BLOCK};
    struct layout_hold *hold;

    (void)fs, (void)mode;
    if (inode == FILE_HOLE && range_overlaps(range, hole)) {
        *problem = (struct layout_problem){LAYOUT_HOLE, hole};
        return -EPERM;
    }
    if (range_end(range) > FILE_BLOCKS * BLOCK) {
        *problem = (struct layout_problem){LAYOUT_BEYOND_EOF, range};
        return -EPERM;
    }
    hold = calloc(1, sizeof(*hold));
    if (!hold)
        return -ENOMEM;
    hold->run = (struct layout_run){.offset = range.offset, .length = range.length};
    *ret_hold = hold;
    *ret_runs = &hold->run;
    *ret_n_runs = 1;
    world.holds++;
    return 0;
}

static inline int fake_hold_part(void *fs, struct layout_hold *of, struct lease_range range, enum lease_mode mode,
                                 struct layout_hold **ret_hold, const struct layout_run **ret_runs, size_t *ret_n_runs)
{
    struct layout_hold *hold = calloc(1, sizeof(*hold));

    (void)fs, (void)mode;
    if (!hold)
        return -ENOMEM;
    assert_true(range_contains((struct lease_range){of->run.offset, of->run.length}, range));
    hold->run = (struct layout_run){.offset = range.offset, .length = range.length};
    *ret_hold = hold;
    *ret_runs = &hold->run;
    *ret_n_runs = 1;
    world.holds++;
    return 0;
}

static inline void fake_release(void *fs, struct layout_hold *hold)
{
    (void)fs;
    free(hold);
    world.holds--;
}

static inline int fake_detach(void *fs, struct layout_hold *hold)
{
    (void)fs;
    world.detached++;
    free(hold); /* which the real one never does */
    return 0;
}

static inline int fake_committed(void *fs, uint64_t inode, struct lease_range range, uint64_t new_size)
{
    (void)fs, (void)inode;
    if (new_size != UINT64_MAX && (new_size > range_end(range) || new_size <= range.offset))
        return -EINVAL;
    world.committed++;
    return 0;
}

static inline void fake_invalidate(void *fs, uint64_t inode, struct lease_range range, void (*done)(void *arg),
                                   void *arg)
{
    (void)fs, (void)inode, (void)range;
    done(arg);
}

static inline int fake_extents(void *fs, uint64_t inode, uint64_t offset, struct layout_extent *extents, int max)
{
    (void)fs, (void)inode, (void)max;
    *extents = (struct layout_extent){.length = FILE_BLOCKS * BLOCK};
    return offset < FILE_BLOCKS * BLOCK;
}

static inline struct layout_usage fake_usage(void *fs)
{
    (void)fs;
    return (struct layout_usage){1 << 20, 1 << 19, 0, 0};
}

static const struct layout_ops fake_layout = {
    .segments = fake_segments,
    .open = fake_open,
    .close = fake_close,
    .getattr = fake_getattr,
    .create = fake_create,
    .publish = fake_publish,
    .prepare = fake_prepare,
    .clone = fake_clone,
    .flush = fake_flush,
    .hold = fake_hold,
    .hold_part = fake_hold_part,
    .release = fake_release,
    .detach = fake_detach,
    .committed = fake_committed,
    .invalidate = fake_invalidate,
    .extents = fake_extents,
    .usage = fake_usage,
};

/* ---- the fabric ---- */

struct exposure {
    int nothing;
};

struct exposure_session {
    int nothing;
};

static inline int fake_session_open(void *fabric, uint64_t session_id, const struct sockaddr *reached,
                                    struct exposure_session **ret_session)
{
    (void)fabric, (void)session_id;
    if (world.on_session_open)
        world.on_session_open(&world, reached);
    *ret_session = calloc(1, sizeof(**ret_session));
    world.fabric_sessions++;
    return *ret_session ? 0 : -ENOMEM;
}

static inline int fake_session_connect(struct exposure_session *session, struct exposure_address *ret_address)
{
    (void)session;
    *ret_address = (struct exposure_address){.address.ss_family = AF_INET, .cookie = {0xab}};
    return 0;
}

static inline void fake_session_close(struct exposure_session *session)
{
    free(session);
    world.fabric_sessions--;
}

static inline int fake_expose(struct exposure_session *session, const struct exposure_request *request,
                              struct exposure **ret_exposure, struct exposure_grant *ret_grant)
{
    (void)session;
    if (world.expose_error && world.exposes_first-- <= 0)
        return world.expose_error;
    *ret_exposure = calloc(1, sizeof(**ret_exposure));
    if (!*ret_exposure)
        return -ENOMEM;
    *ret_grant =
        (struct exposure_grant){.remote_address = request->range.offset, .rkey = 7 + (uint32_t)world.n_exposed++};
    world.exposures++;
    if (world.on_expose)
        world.on_expose(&world, request->range.offset);
    return 0;
}

static inline int fake_revoke(struct exposure *exposure)
{
    (void)exposure;
    return 0;
}

static inline int fake_fence(struct exposure *exposure)
{
    int error = world.fence_error;

    if (world.on_fence)
        world.on_fence(&world);
    if (error)
        free(exposure); /* which the real one never does: it stays for ever */
    return error;
}

static inline uint64_t fake_fence_bound_ns(void *fabric)
{
    (void)fabric;
    return 1000 * MS;
}

static inline void fake_drop(struct exposure *exposure)
{
    free(exposure);
    world.exposures--;
}

static inline json_t *fake_report(void *fabric)
{
    (void)fabric;
    return json_object();
}

static const struct exposure_ops fake_exposure = {
    .session_open = fake_session_open,
    .session_connect = fake_session_connect,
    .session_close = fake_session_close,
    .expose = fake_expose,
    .revoke = fake_revoke,
    .fence = fake_fence,
    .fence_bound_ns = fake_fence_bound_ns,
    .drop = fake_drop,
    .probe = fake_report,
    .status = fake_report,
};

#endif
