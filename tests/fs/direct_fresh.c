/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who reads through the page cache sees what an asynchronous direct write wrote, once that is complete, also when
 * others read the same bytes all the while and so put them into the cache: direct_fresh FILE ROUNDS
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE      4096u
#define WRITE     (4 * PAGE)
#define DEPTH     16
#define BYTES     ((size_t)DEPTH * WRITE)
#define N_READERS 3

static int cached, direct;
static atomic_bool ends;

static void give_up(const char *what, uint64_t where)
{
    printf("FAILED: %s (%llu, %s)\n", what, (unsigned long long)where, strerror(errno));
    exit(1);
}

static void *read_all(void *arg)
{
    char *buffer = malloc(BYTES);

    (void)arg;
    while (buffer && !atomic_load(&ends)) {
        if (pread(cached, buffer, BYTES, 0) != (ssize_t)BYTES)
            give_up("read", 0);
    }
    free(buffer);
    return NULL;
}

static void write_all(io_context_t aio, char *bytes, char version)
{
    struct iocb blocks[DEPTH], *pointers[DEPTH];
    struct io_event events[DEPTH];

    memset(bytes, version, BYTES);
    for (int i = 0; i < DEPTH; i++) {
        pointers[i] = &blocks[i];
        io_prep_pwrite(&blocks[i], direct, bytes + (size_t)i * WRITE, WRITE, (long long)i * WRITE);
    }
    if (io_submit(aio, DEPTH, pointers) != DEPTH || io_getevents(aio, DEPTH, DEPTH, events, NULL) != DEPTH)
        give_up("libaio", 0);
    for (int i = 0; i < DEPTH; i++) {
        if (events[i].res != WRITE)
            give_up("direct write", (uint64_t)i);
    }
}

int main(int argc, char **argv)
{
    pthread_t readers[N_READERS];
    io_context_t aio = NULL;
    char *bytes, *got = malloc(BYTES);
    uint64_t rounds;

    if (argc != 3) {
        fprintf(stderr, "usage: direct_fresh FILE ROUNDS\n");
        return 2;
    }
    rounds = strtoull(argv[2], NULL, 10);
    cached = open(argv[1], O_RDWR | O_CREAT, 0644);
    direct = open(argv[1], O_RDWR | O_DIRECT);
    if (!got || posix_memalign((void **)&bytes, PAGE, BYTES) || cached < 0 || direct < 0 || io_setup(DEPTH, &aio) ||
        ftruncate(cached, (off_t)BYTES))
        give_up("start", 0);
    for (int i = 0; i < N_READERS; i++) {
        if (pthread_create(&readers[i], NULL, read_all, NULL))
            give_up("thread", 0);
    }
    for (uint64_t round = 1; round <= rounds; round++) {
        write_all(aio, bytes, (char)round);
        if (pread(cached, got, BYTES, 0) != (ssize_t)BYTES)
            give_up("read", 0);
        for (size_t i = 0; i < BYTES; i++) {
            errno = 0;
            if (got[i] != (char)round)
                give_up("older bytes read after a write was complete, in round", round);
        }
    }
    atomic_store(&ends, true);
    for (int i = 0; i < N_READERS; i++)
        pthread_join(readers[i], NULL);
    io_destroy(aio);
    free(bytes);
    free(got);
    return 0;
}
