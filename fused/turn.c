/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/turn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "lease/lock_order.h"

#define CROWD_NS  20000000u  /* so long it is taken for granted that requests come side by side */
#define OTHERS_NS 300000u    /* who yields for longer has a processor that others want */
#define LOADED_NS 100000000u /* for so long they are taken to want it: each yield gives them a time slice */
#define STREAK    64u        /* requests without a pause after which another thread shall read, too */

struct turn {
    pthread_mutex_t lock;
    pthread_cond_t free; /* a turn is */
    unsigned limit, taken;
    _Atomic uint64_t watch_ns, crowded_until_ns, loaded_until_ns;
};

static _Thread_local struct {
    struct turn *held;
    bool busy; /* with something that others waited for, or not: the next read tells */
    bool nonblocking;
    unsigned streak;
} mine;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int turn_new(unsigned limit, struct turn **ret_turn)
{
    struct turn *turn = calloc(1, sizeof(*turn));

    if (!turn)
        return -ENOMEM;
    pthread_mutex_init(&turn->lock, NULL);
    lock_rank(&turn->lock, LOCK_TURN, 0);
    pthread_cond_init(&turn->free, NULL);
    turn->limit = limit ? limit : 1;
    *ret_turn = turn;
    return 0;
}

void turn_allow(struct turn *turn, unsigned limit)
{
    pthread_mutex_lock(&turn->lock);
    if (limit > turn->limit)
        turn->limit = limit;
    pthread_mutex_unlock(&turn->lock);
}

void turn_free(struct turn *turn)
{
    if (!turn)
        return;
    pthread_cond_destroy(&turn->free);
    pthread_mutex_destroy(&turn->lock);
    free(turn);
}

/* ---- having the turn ---- */

static void unlock(void *lock)
{
    pthread_mutex_unlock(lock);
}

void turn_take(struct turn *turn)
{
    if (mine.held)
        return;
    pthread_mutex_lock(&turn->lock);
    pthread_cleanup_push(unlock, &turn->lock);
    while (turn->taken >= turn->limit)
        pthread_cond_wait(&turn->free, &turn->lock);
    turn->taken++;
    pthread_cleanup_pop(1);
    mine.held = turn;
    mine.streak = 0;
}

void turn_pass(void)
{
    struct turn *turn = mine.held;

    if (!turn)
        return;
    mine.held = NULL;
    mine.busy = false;
    pthread_mutex_lock(&turn->lock);
    turn->taken--;
    pthread_cond_signal(&turn->free);
    pthread_mutex_unlock(&turn->lock);
}

void turn_pass_if_crowded(void)
{
    if (!mine.held)
        return;
    if (now_ns() < atomic_load_explicit(&mine.held->crowded_until_ns, memory_order_relaxed))
        turn_pass();
    else
        mine.busy = true;
}

/* One reader sleeps in the kernel, the others here. */
static bool leave(struct turn *turn)
{
    bool left;

    pthread_mutex_lock(&turn->lock);
    left = turn->taken > 1;
    turn->taken -= left;
    pthread_mutex_unlock(&turn->lock);
    if (left)
        mine.held = NULL;
    return left;
}

/* Requests do not stop coming. */
static void invite(struct turn *turn)
{
    mine.streak = 0;
    pthread_mutex_lock(&turn->lock);
    if (turn->taken < turn->limit)
        pthread_cond_signal(&turn->free);
    pthread_mutex_unlock(&turn->lock);
}

/* ---- reading ---- */

static void set_nonblocking(int fd, bool on)
{
    if (mine.nonblocking == on)
        return;
    fcntl(fd, F_SETFL, O_RDWR | (on ? O_NONBLOCK : 0));
    mine.nonblocking = on;
}

static void note_at_once(struct turn *turn)
{
    if (mine.busy)
        atomic_store_explicit(&turn->crowded_until_ns, now_ns() + CROWD_NS, memory_order_relaxed);
    if (++mine.streak >= STREAK)
        invite(turn);
}

/* -EAGAIN in errno: none came. */
static ssize_t watch(struct turn *turn, int fd, void *buffer, size_t size, uint64_t started, uint64_t for_ns)
{
    ssize_t n = read(fd, buffer, size);
    uint64_t now, yielded;

    if (n >= 0) {
        note_at_once(turn);
        return n;
    }
    mine.streak = 0;
    now = now_ns();
    while (errno == EAGAIN && now - started < for_ns) {
        yielded = now;
        sched_yield();
        n = read(fd, buffer, size);
        if (n >= 0)
            break;
        now = now_ns();
        if (now - yielded > OTHERS_NS) {
            atomic_store_explicit(&turn->loaded_until_ns, now + LOADED_NS, memory_order_relaxed);
            errno = EAGAIN;
            break;
        }
    }
    return n;
}

/* Where several threads share a descriptor, another may have made it non-blocking. */
static ssize_t read_sleeping(int fd, void *buffer, size_t size)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    ssize_t n;

    set_nonblocking(fd, false);
    while ((n = read(fd, buffer, size)) < 0 && errno == EAGAIN)
        poll(&ready, 1, -1);
    return n;
}

static uint64_t watch_ns(struct turn *turn, uint64_t now)
{
    if (now < atomic_load_explicit(&turn->loaded_until_ns, memory_order_relaxed))
        return 0;
    return atomic_load_explicit(&turn->watch_ns, memory_order_relaxed);
}

static ssize_t read_in_turn(struct turn *turn, int fd, void *buffer, size_t size)
{
    uint64_t started = now_ns(), for_ns = watch_ns(turn, started);
    ssize_t n;

    if (for_ns || mine.busy) {
        set_nonblocking(fd, true);
        n = watch(turn, fd, buffer, size, started, for_ns);
        mine.busy = false;
        if (n >= 0 || errno != EAGAIN)
            return n;
        if (leave(turn))
            turn_take(turn);
    }
    n = read_sleeping(fd, buffer, size);
    for_ns = now_ns() - started < TURN_WATCH_NS ? TURN_WATCH_NS : 0;
    atomic_store_explicit(&turn->watch_ns, for_ns, memory_order_relaxed);
    return n;
}

ssize_t turn_read(struct turn *turn, int fd, void *buffer, size_t size)
{
    ssize_t n;

    turn_take(turn);
    n = read_in_turn(turn, fd, buffer, size);
    if (n <= 0) {
        int err = errno;

        turn_pass();
        errno = err;
    }
    return n;
}
