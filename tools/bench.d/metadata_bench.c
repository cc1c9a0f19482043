/* SPDX-License-Identifier: BSD-2-Clause */

/* How many names a second a filesystem makes, looks up, opens, lists, renames and removes. Used by tools/bench.
 *
 * Each thread works on files of its own, in a directory of its own (or, with --population, all in the one that holds
 * the population). Prints one JSON object: operation -> operations per second of all threads together. */

#include <argp.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NAME_SIZE 32
#define STRIDE    UINT64_C(7919) /* prime: it comes back to a file only when it has seen all */

struct settings {
    const char *directory;
    unsigned threads;
    unsigned files;      /* of each thread */
    unsigned population; /* files that are in the directory beforehand */
    unsigned settle_ms;
};

struct worker {
    const struct settings *settings;
    unsigned number;
    int directory;
    uint64_t first; /* of the population, to look at */
    pthread_t thread;
};

struct operation {
    const char *name;
    bool settle; /* what the kernel remembers of the names must have expired, or only the kernel is measured */
    unsigned (*run)(struct worker *worker);
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static const char *own_name(const struct worker *worker, unsigned i, char *name)
{
    snprintf(name, NAME_SIZE, "t%u.%u", worker->number, i);
    return name;
}

/* How many files to look at: none of the population twice, or the kernel would answer from memory. */
static unsigned n_looked_at(const struct worker *worker)
{
    const struct settings *settings = worker->settings;

    return settings->population && settings->population < settings->files ? settings->population : settings->files;
}

/* The i-th of these: one of the population, far from the last one, or the thread's own. */
static const char *some_name(const struct worker *worker, unsigned i, char *name)
{
    if (!worker->settings->population)
        return own_name(worker, i, name);
    snprintf(name, NAME_SIZE, "p%u", (unsigned)((worker->first + i * STRIDE) % worker->settings->population));
    return name;
}

static void make_file(int directory, const char *name, bool may_exist)
{
    int fd = openat(directory, name, O_CREAT | (may_exist ? 0 : O_EXCL) | O_WRONLY | O_CLOEXEC, 0644);

    if (fd < 0 || close(fd))
        err(1, "create %s", name);
}

static unsigned run_create(struct worker *worker)
{
    char name[NAME_SIZE];

    for (unsigned i = 0; i < worker->settings->files; i++)
        make_file(worker->directory, own_name(worker, i, name), false);
    return worker->settings->files;
}

static unsigned run_stat(struct worker *worker)
{
    char name[NAME_SIZE];
    struct stat found;

    for (unsigned i = 0; i < n_looked_at(worker); i++)
        if (fstatat(worker->directory, some_name(worker, i, name), &found, 0))
            err(1, "stat %s", name);
    return n_looked_at(worker);
}

static unsigned run_open(struct worker *worker)
{
    char name[NAME_SIZE];

    for (unsigned i = 0; i < n_looked_at(worker); i++) {
        int fd = openat(worker->directory, some_name(worker, i, name), O_RDONLY | O_CLOEXEC);

        if (fd < 0 || close(fd))
            err(1, "open %s", name);
    }
    return n_looked_at(worker);
}

static unsigned run_list(struct worker *worker)
{
    int fd = openat(worker->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    unsigned found = 0;

    if (!directory)
        err(1, "open the directory");
    for (struct dirent *entry; (entry = readdir(directory)) != NULL; found++) {
        struct stat attributes;

        if (fstatat(worker->directory, entry->d_name, &attributes, AT_SYMLINK_NOFOLLOW))
            err(1, "stat %s", entry->d_name);
    }
    closedir(directory);
    return found;
}

static unsigned run_rename(struct worker *worker)
{
    char from[NAME_SIZE], to[NAME_SIZE + 2];

    for (unsigned i = 0; i < worker->settings->files; i++) {
        snprintf(to, sizeof(to), "%s.r", own_name(worker, i, from));
        if (renameat(worker->directory, from, worker->directory, to))
            err(1, "rename %s", from);
    }
    return worker->settings->files;
}

static unsigned run_unlink(struct worker *worker)
{
    char from[NAME_SIZE], name[NAME_SIZE + 2];

    for (unsigned i = 0; i < worker->settings->files; i++) {
        snprintf(name, sizeof(name), "%s.r", own_name(worker, i, from));
        if (unlinkat(worker->directory, name, 0))
            err(1, "unlink %s", name);
    }
    return worker->settings->files;
}

static const struct operation operations[] = {
    {"create", false, run_create},    {"stat", true, run_stat},      {"open_close", true, run_open},
    {"readdir_stat", true, run_list}, {"rename", false, run_rename}, {"unlink", false, run_unlink},
};
#define N_OPERATIONS (sizeof(operations) / sizeof(*operations))

/* ---- all threads through one operation ---- */

struct turn {
    struct worker *worker;
    const struct operation *operation;
    pthread_barrier_t *start;
    uint64_t started_ns, ended_ns;
    unsigned done;
};

static void *take_turn(void *arg)
{
    struct turn *turn = arg;

    pthread_barrier_wait(turn->start);
    turn->started_ns = now_ns();
    turn->done = turn->operation->run(turn->worker);
    turn->ended_ns = now_ns();
    return NULL;
}

static double run_operation(struct worker *workers, unsigned n, const struct operation *operation)
{
    struct turn *turns = calloc(n, sizeof(*turns));
    uint64_t first = UINT64_MAX, last = 0, done = 0;
    pthread_barrier_t start;

    if (!turns)
        err(1, "memory");
    pthread_barrier_init(&start, NULL, n);
    for (unsigned i = 0; i < n; i++) {
        turns[i] = (struct turn){.worker = &workers[i], .operation = operation, .start = &start};
        errno = pthread_create(&workers[i].thread, NULL, take_turn, &turns[i]);
        if (errno)
            err(1, "thread");
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(workers[i].thread, NULL);
        first = turns[i].started_ns < first ? turns[i].started_ns : first;
        last = turns[i].ended_ns > last ? turns[i].ended_ns : last;
        done += turns[i].done;
    }
    pthread_barrier_destroy(&start);
    free(turns);
    return (double)done * 1e9 / (double)(last > first ? last - first : 1);
}

/* ---- set-up ---- */

static int open_directory(const struct settings *settings, unsigned number)
{
    char path[4096];
    int fd;

    if (settings->population)
        snprintf(path, sizeof(path), "%s", settings->directory);
    else
        snprintf(path, sizeof(path), "%s/d%u", settings->directory, number);
    if (mkdir(path, 0755) && errno != EEXIST)
        err(1, "mkdir %s", path);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        err(1, "%s", path);
    return fd;
}

/* A population that is there from an earlier run grows. Prints how fast. */
static void populate(const struct settings *settings)
{
    int directory = open_directory(settings, 0);
    char name[NAME_SIZE];
    struct stat found;
    uint64_t started;
    unsigned first = settings->population;

    while (first && (snprintf(name, sizeof(name), "p%u", first - 1), fstatat(directory, name, &found, 0)))
        first = first > 1000 ? first - 1000 : 0;
    started = now_ns();
    for (unsigned i = first; i < settings->population; i++) {
        snprintf(name, sizeof(name), "p%u", i);
        make_file(directory, name, true);
    }
    if (first < settings->population)
        printf("\"populate\": %.1f, ", (double)(settings->population - first) * 1e9 / (double)(now_ns() - started + 1));
    close(directory);
}

static void remove_directories(const struct settings *settings)
{
    char path[4096];

    for (unsigned i = 0; i < settings->threads && !settings->population; i++) {
        snprintf(path, sizeof(path), "%s/d%u", settings->directory, i);
        if (rmdir(path))
            err(1, "rmdir %s", path);
    }
}

static void settle(unsigned ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    while (nanosleep(&time, &time))
        ;
}

static void run(const struct settings *settings)
{
    struct worker *workers = calloc(settings->threads, sizeof(*workers));

    if (!workers)
        err(1, "memory");
    putchar('{');
    if (settings->population)
        populate(settings);
    for (unsigned i = 0; i < settings->threads; i++)
        workers[i] = (struct worker){
            .settings = settings, .number = i, .directory = open_directory(settings, i), .first = now_ns()};
    for (size_t i = 0; i < N_OPERATIONS; i++) {
        if (operations[i].settle)
            settle(settings->settle_ms);
        printf("%s\"%s\": %.1f", i ? ", " : "", operations[i].name,
               run_operation(workers, settings->threads, &operations[i]));
    }
    puts("}");
    for (unsigned i = 0; i < settings->threads; i++)
        close(workers[i].directory);
    remove_directories(settings);
    free(workers);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct settings *settings = state->input;

    switch (key) {
    case 't':
        settings->threads = (unsigned)strtoul(arg, NULL, 10);
        return 0;
    case 'f':
        settings->files = (unsigned)strtoul(arg, NULL, 10);
        return 0;
    case 'p':
        settings->population = (unsigned)strtoul(arg, NULL, 10);
        return 0;
    case 's':
        settings->settle_ms = (unsigned)strtoul(arg, NULL, 10);
        return 0;
    case ARGP_KEY_ARG:
        settings->directory = arg;
        return 0;
    case ARGP_KEY_END:
        if (!settings->directory || !settings->threads || !settings->files)
            argp_error(state, "a directory, threads and files are needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"threads", 't', "N", 0, "Threads (1)", 0},
        {"files", 'f', "N", 0, "Files of each thread (1000)", 0},
        {"population", 'p', "N", 0, "Put N other files into the directory first, and leave them there", 0},
        {"settle", 's', "MS", 0, "Wait before looking at names, for the kernel to forget them (1200)", 0},
        {0},
    };
    static const struct argp argp = {
        .options = options, .parser = parse, .args_doc = "DIRECTORY", .doc = "Measures a filesystem's metadata rates."};
    struct settings settings = {.threads = 1, .files = 1000, .settle_ms = 1200};

    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    run(&settings);
    return 0;
}
