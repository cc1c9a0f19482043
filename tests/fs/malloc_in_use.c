/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Preloaded into a program under test (LD_PRELOAD): whoever reads the fifo LEASEFS_TEST_MALLOC is told how many bytes
 * malloc() has handed out and not got back. What is resident is no measure of that: the allocator keeps some of what
 * was freed, for each thread, by chance.
 */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *answer(void *arg)
{
    const char *fifo = arg;
    char text[32];

    for (;;) {
        int fd = open(fifo, O_WRONLY | O_CLOEXEC); /* until somebody reads */
        struct mallinfo2 info;
        int length;

        if (fd < 0)
            return NULL;
        info = mallinfo2();
        length = snprintf(text, sizeof(text), "%zu\n", info.uordblks + info.hblkhd);
        (void)!write(fd, text, (size_t)length);
        close(fd);
    }
}

__attribute__((constructor)) static void start(void)
{
    const char *fifo = getenv("LEASEFS_TEST_MALLOC");
    sigset_t all, old;
    pthread_t thread;

    unsetenv("LD_PRELOAD"); /* not in children */
    if (!fifo)
        return;
    sigfillset(&all); /* signals are for the program's own threads */
    pthread_sigmask(SIG_BLOCK, &all, &old);
    if (pthread_create(&thread, NULL, answer, (void *)fifo) == 0)
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}
