/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages are written to one end of a pair of sockets, which keep them apart as /dev/fuse does. */
#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fused/fuse_listener.h"

#define SOON_MS 50 /* what must not happen has not happened by then */

struct desk {
    struct fuse_listener *listener;
    int linux_end, our_end;
    pthread_t thread;
    atomic_uint read, served; /* messages */
    atomic_bool hold;         /* what is read is not served yet */
    int err;                  /* how it ended */
};

static void *listen_to_it(void *arg)
{
    struct desk *desk = arg;
    char buffer[256];
    ssize_t n;

    while ((n = fuse_listener_read(desk->listener, desk->our_end, buffer, sizeof(buffer))) > 0) {
        atomic_fetch_add(&desk->read, 1);
        while (atomic_load(&desk->hold))
            sched_yield();
        atomic_fetch_add(&desk->served, 1);
    }
    desk->err = n < 0 ? errno : 0;
    return NULL;
}

static void desk_start(struct desk *desk)
{
    assert_int_equal(pthread_create(&desk->thread, NULL, listen_to_it, desk), 0);
}

static void desk_open(struct desk *desk)
{
    int ends[2];

    *desk = (struct desk){0};
    assert_int_equal(fuse_listener_new(&desk->listener), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    desk->linux_end = ends[0];
    desk->our_end = ends[1];
}

static void desk_close(struct desk *desk)
{
    if (desk->linux_end >= 0)
        close(desk->linux_end);
    pthread_join(desk->thread, NULL);
    close(desk->our_end);
    fuse_listener_free(desk->listener);
}

static void desk_tell(struct desk *desk, uint32_t opcode)
{
    struct fuse_in_header header = {.len = sizeof(header), .opcode = opcode};

    assert_int_equal(write(desk->linux_end, &header, sizeof(header)), sizeof(header));
}

static void await(atomic_uint *count, unsigned wanted)
{
    while (atomic_load(count) < wanted)
        sched_yield();
}

/* Away or asleep, in the middle of many or of none. */
static void who_asks_finds_all_served_that_was_sent_before(void **state)
{
    struct desk desk;
    unsigned sent = 0;

    (void)state;
    desk_open(&desk);
    desk_start(&desk);
    desk_tell(&desk, FUSE_INTERRUPT);
    await(&desk.served, ++sent);
    for (int round = 0; round < 300; round++) {
        for (int i = round % 4; i > 0; i--, sent++)
            desk_tell(&desk, round % 3 ? FUSE_FORGET : FUSE_INTERRUPT);
        fuse_listener_catch_up(desk.listener);
        assert_int_equal(atomic_load(&desk.served), sent);
    }
    desk_close(&desk);
}

static void *ask(void *arg)
{
    struct desk *desk = arg;

    fuse_listener_catch_up(desk->listener);
    return (void *)(uintptr_t)atomic_load(&desk->served);
}

static void what_is_read_is_not_yet_served(void **state)
{
    struct desk desk;
    pthread_t asking;
    void *served;

    (void)state;
    desk_open(&desk);
    desk.hold = true;
    desk_start(&desk);
    desk_tell(&desk, FUSE_FORGET);
    await(&desk.read, 1);
    assert_int_equal(pthread_create(&asking, NULL, ask, &desk), 0);
    poll(NULL, 0, SOON_MS);
    assert_int_equal(pthread_tryjoin_np(asking, NULL), EBUSY);
    atomic_store(&desk.hold, false);
    pthread_join(asking, &served);
    assert_int_equal((uintptr_t)served, 1);
    desk_close(&desk);
}

static void nobody_waits_for_a_listener_that_is_not_there(void **state)
{
    struct desk desk;

    (void)state;
    desk_open(&desk);
    fuse_listener_catch_up(desk.listener); /* not yet */
    desk_start(&desk);
    desk_tell(&desk, FUSE_FORGET);
    await(&desk.served, 1);
    close(desk.linux_end);
    desk.linux_end = -1;
    pthread_join(desk.thread, NULL);
    fuse_listener_catch_up(desk.listener); /* no more */
    desk_start(&desk);                     /* reads the end of file again */
    desk_close(&desk);
}

static void stop_ends_the_listener_and_who_waits_for_it(void **state)
{
    struct desk desk;
    pthread_t asking;

    (void)state;
    desk_open(&desk);
    desk.hold = true;
    desk_start(&desk);
    desk_tell(&desk, FUSE_FORGET);
    await(&desk.read, 1);
    assert_int_equal(pthread_create(&asking, NULL, ask, &desk), 0);
    fuse_listener_stop(desk.listener);
    pthread_join(asking, NULL);
    atomic_store(&desk.hold, false);
    pthread_join(desk.thread, NULL);
    assert_int_equal(desk.err, ENODEV);
    fuse_listener_catch_up(desk.listener);

    desk_start(&desk); /* stopped for good, asleep or not */
    desk_close(&desk);
    desk_open(&desk);
    desk_start(&desk);
    desk_tell(&desk, FUSE_INTERRUPT);
    await(&desk.served, 1);
    fuse_listener_stop(desk.listener);
    desk_close(&desk);
}

/* As libfuse ends its threads. */
static void a_cancelled_thread_goes_on_until_it_is_stopped(void **state)
{
    struct desk desk;

    (void)state;
    desk_open(&desk);
    desk_start(&desk);
    desk_tell(&desk, FUSE_INTERRUPT);
    await(&desk.served, 1);
    pthread_cancel(desk.thread);
    desk_tell(&desk, FUSE_INTERRUPT);
    fuse_listener_stop(desk.listener);
    desk_close(&desk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_asks_finds_all_served_that_was_sent_before),
        cmocka_unit_test(what_is_read_is_not_yet_served),
        cmocka_unit_test(nobody_waits_for_a_listener_that_is_not_there),
        cmocka_unit_test(stop_ends_the_listener_and_who_waits_for_it),
        cmocka_unit_test(a_cancelled_thread_goes_on_until_it_is_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
