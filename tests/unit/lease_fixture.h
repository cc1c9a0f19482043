/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TEST_LEASE_FIXTURE_H
#define LEASEFS_TEST_LEASE_FIXTURE_H

/* A lease table with a clock and a fence in the test's hand. Block numbers instead of bytes. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lease/lease_table.h"

#define MS         UINT64_C(1000000)
#define BLOCK      UINT64_C(4096)
#define MAX_EVENTS 4096

static const struct lease_limits fixture_limits = {
    .lease_time_ns = 10000 * MS,
    .recall_timeout_ns = 100 * MS,
    .fence_bound_ns = 50 * MS,
    .max_leases = 64,
    .max_session_leases = 16,
    .policy = LEASE_POLICY_RECALL,
};

/* Somebody who waits: counts how often it was resumed. */
struct somebody {
    struct lease_waiter waiter; /* first */
    int resumed;
};

struct fixture {
    struct lease_table *table;
    struct lease_event events[MAX_EVENTS]; /* all but LEASE_EVENT_DEADLINE */
    size_t n_events;
    uint64_t now_ns;
};

static inline void fixture_post(void *ctx, const struct lease_event *event)
{
    struct fixture *f = ctx;

    if (event->kind == LEASE_EVENT_DEADLINE)
        return;
    assert_true(f->n_events < MAX_EVENTS);
    f->events[f->n_events++] = *event;
}

static inline void somebody_resumed(struct lease_waiter *waiter)
{
    ((struct somebody *)waiter)->resumed++;
}

static inline struct somebody somebody_new(void)
{
    return (struct somebody){.waiter.resume = somebody_resumed};
}

static inline void fixture_start(struct fixture *f, const struct lease_limits *limits)
{
    struct lease_events events = {.post = fixture_post, .ctx = f};

    memset(f, 0, sizeof(*f));
    f->now_ns = 1000 * MS;
    assert_int_equal(lease_table_new(limits, &events, &f->table), 0);
}

static inline void fixture_end(struct fixture *f)
{
    assert_int_equal(lease_table_check(f->table), 0);
    lease_table_free(f->table);
}

static inline struct lease_range blocks(uint64_t first, uint64_t count)
{
    return (struct lease_range){first * BLOCK, count * BLOCK};
}

static inline int ask_lease(struct fixture *f, uint64_t session, uint64_t inode, struct lease_range range,
                            enum lease_mode mode, struct somebody *who, uint64_t *ret_id)
{
    struct lease_request request = {
        .session_id = session, .inode = inode, .range = range, .mode = mode, .wait = who != NULL};

    return lease_request(f->table, &request, f->now_ns, who ? &who->waiter : NULL, ret_id);
}

/* A granted and committed lease. Its exposure is its id. */
static inline uint64_t lease_held(struct fixture *f, uint64_t session, uint64_t inode, struct lease_range range,
                                  enum lease_mode mode)
{
    struct lease_info info;
    uint64_t id;

    assert_int_equal(ask_lease(f, session, inode, range, mode, NULL, &id), 0);
    assert_int_equal(lease_commit(f->table, id, f->now_ns, (void *)(uintptr_t)id, &info), 0);
    return id;
}

static inline int begin(struct fixture *f, uint64_t inode, struct lease_range range, enum lease_op op,
                        struct somebody *who)
{
    return lease_op_begin(f->table, inode, range, op, f->now_ns, who ? &who->waiter : NULL);
}

/* 0: gone. */
static inline enum lease_state state_of(struct fixture *f, uint64_t id)
{
    struct lease_info info;

    return lease_get(f->table, id, &info) ? 0 : info.state;
}

static inline size_t events_of(const struct fixture *f, enum lease_event_kind kind, uint64_t id)
{
    size_t count = 0;

    for (size_t i = 0; i < f->n_events; i++)
        count += f->events[i].kind == kind && (!id || f->events[i].lease_id == id);
    return count;
}

static inline const struct lease_event *last_event(const struct fixture *f)
{
    assert_true(f->n_events > 0);
    return &f->events[f->n_events - 1];
}

static inline void pass_time(struct fixture *f, uint64_t ns)
{
    f->now_ns += ns;
    lease_tick(f->table, f->now_ns);
    assert_int_equal(lease_table_check(f->table), 0);
}

static inline uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

#endif
