/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "fs_fixture.h"
#include "fused/fs_private.h"
#include "fused/turn.h"

#define SOON_MS 50    /* what must not happen has not happened by then */
#define LATE_MS 60000 /* what must happen has */

/* Requests are bytes in a pipe. A thread reads those that it is told to, and says so in another pipe. */
struct reader {
    struct turn *turn;
    int requests, told[2], seen[2];
    void (*then)(void *arg); /* after each request */
    void *arg;
    pthread_t thread;
};

static void *reader_thread(void *arg)
{
    struct reader *reader = arg;
    char go, request;

    while (read(reader->told[0], &go, 1) == 1) {
        if (turn_read(reader->turn, reader->requests, &request, 1) != 1)
            request = '!';
        if (reader->then)
            reader->then(reader->arg);
        if (write(reader->seen[1], &request, 1) != 1)
            break;
    }
    return NULL;
}

static void reader_start(struct reader *reader, struct turn *turn, int requests)
{
    reader->turn = turn;
    reader->requests = requests;
    assert_int_equal(pipe2(reader->told, O_CLOEXEC), 0);
    assert_int_equal(pipe2(reader->seen, O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&reader->thread, NULL, reader_thread, reader), 0);
}

static void reader_read(struct reader *reader)
{
    assert_int_equal(write(reader->told[1], "", 1), 1);
}

static bool has_seen(struct reader *reader, int ms)
{
    struct pollfd seen = {.fd = reader->seen[0], .events = POLLIN};

    return poll(&seen, 1, ms) == 1;
}

static char reader_saw(struct reader *reader)
{
    char request = 0;

    assert_true(has_seen(reader, LATE_MS));
    assert_int_equal(read(reader->seen[0], &request, 1), 1);
    return request;
}

static void reader_end(struct reader *reader)
{
    close(reader->told[1]);
    pthread_join(reader->thread, NULL);
    close(reader->told[0]);
    close(reader->seen[0]);
    close(reader->seen[1]);
}

struct desk {
    struct turn *turn;
    int requests[2];
    struct reader a, b;
};

static void desk_open(struct desk *desk, void (*then)(void *), void *arg)
{
    assert_int_equal(turn_new(1, &desk->turn), 0);
    assert_int_equal(pipe2(desk->requests, O_CLOEXEC), 0);
    desk->a = desk->b = (struct reader){0};
    desk->a.then = then;
    desk->a.arg = arg;
    reader_start(&desk->a, desk->turn, desk->requests[0]);
    reader_start(&desk->b, desk->turn, desk->requests[0]);
}

static void desk_ask(struct desk *desk, char request)
{
    assert_int_equal(write(desk->requests[1], &request, 1), 1);
}

static void desk_close(struct desk *desk)
{
    reader_end(&desk->a);
    reader_end(&desk->b);
    close(desk->requests[0]);
    close(desk->requests[1]);
    turn_free(desk->turn);
}

static void who_has_read_goes_on_reading_until_he_passes_his_turn(void **state)
{
    struct desk desk;

    (void)state;
    desk_open(&desk, NULL, NULL);
    reader_read(&desk.a);
    desk_ask(&desk, '1');
    assert_int_equal(reader_saw(&desk.a), '1');

    /* While `a` is at it, the next request waits for him, however long `b` has been waiting for one. */
    reader_read(&desk.b);
    desk_ask(&desk, '2');
    assert_false(has_seen(&desk.b, SOON_MS));
    desk.a.then = (void (*)(void *))turn_pass;
    reader_read(&desk.a);
    assert_int_equal(reader_saw(&desk.a), '2');

    desk_ask(&desk, '3');
    assert_int_equal(reader_saw(&desk.b), '3');
    desk_close(&desk);
}

static void who_cannot_read_has_no_turn(void **state)
{
    struct desk desk;
    int requests;

    (void)state;
    desk_open(&desk, NULL, NULL);
    requests = desk.a.requests;
    desk.a.requests = -1;
    reader_read(&desk.a);
    assert_int_equal(reader_saw(&desk.a), '!');
    reader_read(&desk.b);
    desk_ask(&desk, '1');
    assert_int_equal(reader_saw(&desk.b), '1');
    desk.a.requests = requests;
    desk_close(&desk);
}

static void who_has_no_turn_passes_none(void **state)
{
    struct desk desk;

    (void)state;
    desk_open(&desk, NULL, NULL);
    turn_pass();
    turn_pass_if_crowded();
    reader_read(&desk.a);
    desk_ask(&desk, '1');
    assert_int_equal(reader_saw(&desk.a), '1');
    turn_pass(); /* not this thread's */
    reader_read(&desk.b);
    desk_ask(&desk, '2');
    assert_false(has_seen(&desk.b, SOON_MS));
    reader_read(&desk.a);
    assert_int_equal(reader_saw(&desk.a), '2');
    desk.a.then = (void (*)(void *))turn_pass;
    reader_read(&desk.a);
    desk_ask(&desk, '3');
    assert_int_equal(reader_saw(&desk.a), '3');
    desk_ask(&desk, '4');
    assert_int_equal(reader_saw(&desk.b), '4');
    desk_close(&desk);
}

/* Who of the two has read? */
static struct reader *who_read(struct desk *desk)
{
    struct pollfd seen[] = {{.fd = desk->a.seen[0], .events = POLLIN}, {.fd = desk->b.seen[0], .events = POLLIN}};
    struct reader *reader;

    assert_true(poll(seen, 2, LATE_MS) > 0);
    reader = seen[0].revents ? &desk->a : &desk->b;
    reader_saw(reader);
    return reader;
}

/* After a request that takes its time there is another at once: they come side by side. */
static void in_a_crowd_the_turn_is_passed(void **state)
{
    struct reader *reader;
    struct desk desk;

    (void)state;
    desk_open(&desk, (void (*)(void *))turn_pass_if_crowded, NULL);
    reader_read(&desk.a);
    desk_ask(&desk, '1');
    assert_ptr_equal(who_read(&desk), &desk.a);
    reader_read(&desk.b);
    do { /* again if this thread was away for so long that the crowd was forgotten */
        desk_ask(&desk, '2');
        reader_read(&desk.a);
        reader = who_read(&desk);
    } while (reader == &desk.a);
    /* `a` is waiting for his turn. */
    desk.b.then = (void (*)(void *))turn_pass;
    reader_read(&desk.b);
    desk_ask(&desk, '3');
    assert_ptr_equal(who_read(&desk), &desk.b);
    desk_ask(&desk, '4');
    assert_ptr_equal(who_read(&desk), &desk.a);
    desk_close(&desk);
}

struct scene {
    struct fixture *f;
    uint64_t ino;
};

static void ask_for_attributes(void *arg)
{
    struct scene *scene = arg;
    struct stat attr;

    assert_int_equal(fs_getattr(scene->f->fs, scene->ino, &attr), 0);
}

static void who_waits_for_a_locked_file_passes_his_turn(void **state)
{
    struct scene scene = {.f = *state};
    struct fs_entry entry;
    struct fs_inode *inode;
    struct desk desk;

    assert_int_equal(fs_mknod(scene.f->fs, FS_ROOT_INO, "file", S_IFREG | 0644, 0, (struct fs_cred){0}, &entry), 0);
    scene.ino = entry.ino;
    inode = inode_get(scene.f->fs, entry.ino);
    desk_open(&desk, ask_for_attributes, &scene);
    inode_lock(inode);
    reader_read(&desk.a);
    desk_ask(&desk, '1');
    while (poll(&(struct pollfd){.fd = desk.requests[0], .events = POLLIN}, 1, 0) == 1)
        sched_yield();
    reader_read(&desk.b);
    desk_ask(&desk, '2');
    assert_ptr_equal(who_read(&desk), &desk.b);
    inode_unlock(inode);
    reader_saw(&desk.a);
    desk_close(&desk);
    inode_put(scene.f->fs, inode);
    fs_forget(scene.f->fs, entry.ino, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_read_goes_on_reading_until_he_passes_his_turn),
        cmocka_unit_test(who_cannot_read_has_no_turn),
        cmocka_unit_test(who_has_no_turn_passes_none),
        cmocka_unit_test(in_a_crowd_the_turn_is_passed),
        cmocka_unit_test_setup_teardown(who_waits_for_a_locked_file_passes_his_turn, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
