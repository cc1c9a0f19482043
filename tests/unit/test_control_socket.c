/* SPDX-License-Identifier: BSD-2-Clause */
/* Who listens at the path already: nobody, one who is dead, one who dies, one who is slow. (Of a service that lives:
 * test_service_hostile.c.) */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "lease/control_socket.h"

static struct sockaddr_un address = {.sun_family = AF_UNIX};

static int setup(void **state)
{
    (void)state;
    snprintf(address.sun_path, sizeof(address.sun_path), "test_control_socket.%d", (int)getpid());
    unlink(address.sun_path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(address.sun_path);
    return 0;
}

static int other_listens(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

struct newcomer {
    pthread_t thread;
    int result, fd;
    char *why;
};

static void *come(void *arg)
{
    struct newcomer *newcomer = arg;

    newcomer->result = control_socket_listen(address.sun_path, &newcomer->fd, &newcomer->why);
    return NULL;
}

static void newcomer_start(struct newcomer *newcomer, int other)
{
    struct pollfd came = {.fd = other, .events = POLLIN};

    *newcomer = (struct newcomer){.fd = -1};
    assert_int_equal(pthread_create(&newcomer->thread, NULL, come, newcomer), 0);
    assert_int_equal(poll(&came, 1, 60000), 1);
}

static void newcomer_has_it(struct newcomer *newcomer)
{
    pthread_join(newcomer->thread, NULL);
    assert_int_equal(newcomer->result, 0);
    close(newcomer->fd);
}

static void the_place_of_one_who_is_dead_is_taken(void **state)
{
    struct newcomer newcomer = {.fd = -1};

    (void)state;
    close(other_listens());
    come(&newcomer);
    assert_int_equal(newcomer.result, 0);
    close(newcomer.fd);
}

static void one_who_dies_is_waited_for(void **state)
{
    struct newcomer newcomer;
    int other, client;

    (void)state;
    other = other_listens();
    newcomer_start(&newcomer, other);
    close(other); /* before anybody was let in */
    newcomer_has_it(&newcomer);
    unlink(address.sun_path);

    other = other_listens();
    newcomer_start(&newcomer, other);
    client = accept(other, NULL, NULL); /* and after */
    assert_true(client >= 0);
    close(other);
    close(client);
    newcomer_has_it(&newcomer);
}

static void one_who_answers_whatever_it_is_lives(void **state)
{
    struct newcomer newcomer;
    int other = other_listens(), client;

    (void)state;
    newcomer_start(&newcomer, other);
    client = accept(other, NULL, NULL);
    assert_int_equal(write(client, "?", 1), 1);
    pthread_join(newcomer.thread, NULL);
    assert_int_equal(newcomer.result, -EADDRINUSE);
    assert_non_null(strstr(newcomer.why, "another leasefs"));
    free(newcomer.why);
    close(client);
    close(other);
}

/* Stopped, and with as many who wait to be let in as there may be: connect(2) would block. */
static void one_with_a_full_queue_keeps_nobody(void **state)
{
    struct newcomer newcomer = {.fd = -1};
    int other = other_listens(), clients[64], n = 0;

    (void)state;
    do
        clients[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    while (connect(clients[n++], (struct sockaddr *)&address, sizeof(address)) == 0 && n < 64);
    assert_true(n < 64);
    come(&newcomer);
    assert_int_equal(newcomer.result, -EADDRINUSE);
    free(newcomer.why);
    while (n > 0)
        close(clients[--n]);
    close(other);
}

/* A folder, or a file, is nobody's socket, and nobody's to remove. */
static void what_is_no_socket_is_named_and_stays(void **state)
{
    struct newcomer newcomer = {.fd = -1};

    (void)state;
    for (int folder = 0; folder < 2; folder++) {
        const char *path = address.sun_path;

        assert_int_equal(folder ? mkdir(path, 0700) : mknod(path, S_IFREG | 0600, 0), 0);
        come(&newcomer);
        assert_int_equal(newcomer.result, -EEXIST);
        assert_non_null(strstr(newcomer.why, "no socket"));
        free(newcomer.why);
        assert_int_equal(folder ? rmdir(path) : unlink(path), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_place_of_one_who_is_dead_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(one_who_dies_is_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(one_who_answers_whatever_it_is_lives, setup, teardown),
        cmocka_unit_test_setup_teardown(one_with_a_full_queue_keeps_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_socket_is_named_and_stays, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
