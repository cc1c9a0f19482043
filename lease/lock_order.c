/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/lock_order.h"

/*
 * Debug and ASan builds are linked with --wrap for the functions below, so that every lock of ours is seen on its
 * way to libc. Locks without a rank (tests have some) are let through. The table of ranks has locks of its own, which
 * would hide races from TSan: such builds go without.
 */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define HELD_MAX 16
#define BUCKETS  1024u

struct ranked {
    const void *lock;
    enum lock_rank rank;
    uint64_t order;
    struct ranked *next;
};

static struct bucket {
    pthread_mutex_t lock;
    struct ranked *first;
} buckets[BUCKETS] = {[0 ... BUCKETS - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER}};

static _Thread_local struct ranked held[HELD_MAX];
static _Thread_local unsigned n_held;

#define DECLARE_REAL(name, ...) int __real_##name(__VA_ARGS__), __wrap_##name(__VA_ARGS__)
DECLARE_REAL(pthread_mutex_lock, pthread_mutex_t *mutex);
DECLARE_REAL(pthread_mutex_unlock, pthread_mutex_t *mutex);
DECLARE_REAL(pthread_mutex_destroy, pthread_mutex_t *mutex);
DECLARE_REAL(pthread_rwlock_rdlock, pthread_rwlock_t *lock);
DECLARE_REAL(pthread_rwlock_wrlock, pthread_rwlock_t *lock);
DECLARE_REAL(pthread_rwlock_tryrdlock, pthread_rwlock_t *lock);
DECLARE_REAL(pthread_rwlock_trywrlock, pthread_rwlock_t *lock);
DECLARE_REAL(pthread_rwlock_unlock, pthread_rwlock_t *lock);
DECLARE_REAL(pthread_rwlock_destroy, pthread_rwlock_t *lock);
DECLARE_REAL(pthread_cond_wait, pthread_cond_t *cond, pthread_mutex_t *mutex);
DECLARE_REAL(pthread_cond_timedwait, pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until);

static struct bucket *bucket_lock(const void *lock)
{
    struct bucket *bucket = &buckets[((uintptr_t)lock >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (BUCKETS - 1)];

    __real_pthread_mutex_lock(&bucket->lock);
    return bucket;
}

static struct ranked **find(struct bucket *bucket, const void *lock)
{
    struct ranked **at = &bucket->first;

    while (*at && (*at)->lock != lock)
        at = &(*at)->next;
    return at;
}

void lock_rank(const void *lock, enum lock_rank rank, uint64_t order)
{
    struct bucket *bucket = bucket_lock(lock);
    struct ranked **at = find(bucket, lock);

    if (!*at) {
        /* Not malloc(): tests in which memory runs out mean the product's. */
        struct ranked *ranked = aligned_alloc(16, (sizeof(*ranked) + 15) & ~(size_t)15);

        if (!ranked)
            abort();
        *ranked = (struct ranked){.lock = lock, .rank = rank, .order = order};
        *at = ranked;
    }
    __real_pthread_mutex_unlock(&bucket->lock);
}

static void forget(const void *lock)
{
    struct bucket *bucket = bucket_lock(lock);
    struct ranked **at = find(bucket, lock);
    struct ranked *ranked = *at;

    if (ranked)
        *at = ranked->next;
    __real_pthread_mutex_unlock(&bucket->lock);
    free(ranked);
}

static bool lookup(const void *lock, struct ranked *ret_ranked)
{
    struct bucket *bucket = bucket_lock(lock);
    struct ranked *ranked = *find(bucket, lock);

    if (ranked)
        *ret_ranked = *ranked;
    __real_pthread_mutex_unlock(&bucket->lock);
    return ranked;
}

static bool allowed(const struct ranked *outer, const struct ranked *inner)
{
    if (outer->rank >= LOCK_LEAVES)
        return false;
    return inner->rank > outer->rank || (inner->rank == outer->rank && inner->order > outer->order);
}

__attribute__((noreturn)) static void broken(const char *what, const struct ranked *inner, const struct ranked *outer)
{
    fprintf(stderr, "lock order: %s: rank %d (order %llu) with rank %d (order %llu) held\n", what, inner->rank,
            (unsigned long long)inner->order, outer->rank, (unsigned long long)outer->order);
    abort();
}

/* Before the lock is taken, so that a deadlock is told rather than seen. */
static void take(const void *lock)
{
    struct ranked ranked;

    if (!lookup(lock, &ranked))
        return;
    for (unsigned i = 0; i < n_held; i++)
        if (!allowed(&held[i], &ranked))
            broken("taken", &ranked, &held[i]);
    if (n_held == HELD_MAX)
        abort();
    held[n_held++] = ranked;
}

void lock_none_held(void)
{
    if (n_held == 0)
        return;
    fprintf(stderr, "lock order: others are called with rank %d (order %llu) held\n", held[0].rank,
            (unsigned long long)held[0].order);
    abort();
}

static void give(const void *lock)
{
    for (unsigned i = n_held; i-- > 0;) {
        if (held[i].lock != lock)
            continue;
        for (n_held--; i < n_held; i++)
            held[i] = held[i + 1];
        return;
    }
}

static void wait_alone(const pthread_mutex_t *mutex)
{
    struct ranked ranked;

    if (!lookup(mutex, &ranked))
        return;
    for (unsigned i = 0; i < n_held; i++)
        if (held[i].lock != mutex)
            broken("waited with", &ranked, &held[i]);
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    take(mutex);
    return __real_pthread_mutex_lock(mutex);
}

/* What a test may define to look at what lies between two locks: tests/unit/unlock_hook.h. */
void mutex_was_unlocked(void) __attribute__((weak));

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int err;

    give(mutex);
    err = __real_pthread_mutex_unlock(mutex);
    if (mutex_was_unlocked)
        mutex_was_unlocked();
    return err;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *mutex)
{
    forget(mutex);
    return __real_pthread_mutex_destroy(mutex);
}

int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    take(lock);
    return __real_pthread_rwlock_rdlock(lock);
}

int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
    take(lock);
    return __real_pthread_rwlock_wrlock(lock);
}

/* Held to the order, too: who tries waits when it fails. */
int __wrap_pthread_rwlock_tryrdlock(pthread_rwlock_t *lock)
{
    int err;

    take(lock);
    err = __real_pthread_rwlock_tryrdlock(lock);
    if (err)
        give(lock);
    return err;
}

int __wrap_pthread_rwlock_trywrlock(pthread_rwlock_t *lock)
{
    int err;

    take(lock);
    err = __real_pthread_rwlock_trywrlock(lock);
    if (err)
        give(lock);
    return err;
}

int __wrap_pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
    give(lock);
    return __real_pthread_rwlock_unlock(lock);
}

int __wrap_pthread_rwlock_destroy(pthread_rwlock_t *lock)
{
    forget(lock);
    return __real_pthread_rwlock_destroy(lock);
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    wait_alone(mutex);
    return __real_pthread_cond_wait(cond, mutex);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until)
{
    wait_alone(mutex);
    return __real_pthread_cond_timedwait(cond, mutex, until);
}
