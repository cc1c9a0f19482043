/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Direct I/O whose buffer is a mapping of a file of the same filesystem: direct_mapped DIRECTORY ENGINE ROUNDS SEED
 * ABORT
 *
 * The kernel then needs the filesystem's answers to get at the buffer itself. Keepers have parts of two files to
 * themselves, move pages in there from the one or the other's mapping to either file and back, and compare with what
 * they know. Shakers do the same where others truncate, punch and write back; there an I/O may fail, but it ends.
 *
 * Only file CUT is truncated. When a FUSE file's size changes, Linux drops all its pages from the cache, those too that
 * a direct read is just filling: what was read into CUT's mapping may be lost there, page by page, whoever the server
 * is (libfuse's passthrough_ll shows the same). So there either old or new bytes are right.
 * ENGINE: psync, libaio, io_uring. Exit code 77: the kernel does not let us use it. Nobody getting on for PATIENCE
 * seconds is a hang: only the connection's abort (a file of fusectl, to which "1" is written) frees those in it.
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE       4096u
#define UNIT       (16 * PAGE) /* what is moved at most by a keeper: what Linux maps around a fault (fault_around_bytes) */
#define N_KEEPERS  4u
#define N_SHAKERS  6u
#define N_CHAOS    2u
#define SLICE      (16 * UNIT) /* a keeper's part of each file */
#define KEPT       (N_KEEPERS * SLICE)
#define SHAKEN     (1u << 20)
#define FILE_BYTES (KEPT + SHAKEN)
#define DEPTH      8u
#define CUT        0
#define PATIENCE   60 /* seconds */

struct io {
    bool is_read;
    int fd;
    void *buffer;
    size_t length;
    off_t offset;
    int64_t result; /* -errno or bytes */
};

/* One thread's way to do several at once. */
struct queue {
    io_context_t aio;
    struct io_uring ring;
};

struct engine {
    const char *name;
    int (*start)(struct queue *);
    void (*run)(struct queue *, struct io *ios, unsigned n);
};

struct worker {
    pthread_t thread;
    uint64_t random;
    unsigned index;
    atomic_uint_fast64_t done;
    struct queue queue;
};

static const struct engine *engine;
static int direct[2], cached[2];
static char *mapped[2];
static uint64_t rounds;
static atomic_bool chaos_ends;
static atomic_uint_fast64_t moved, refused, lost;

static void give_up(const char *what, uint64_t where)
{
    printf("FAILED: %s (%llu, %s)\n", what, (unsigned long long)where, strerror(errno));
    _exit(1);
}

static uint64_t next_random(struct worker *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

static size_t below(struct worker *w, size_t n)
{
    return next_random(w) % n;
}

/* ---- engines ---- */

static int start_psync(struct queue *q)
{
    (void)q;
    return 0;
}

static void run_psync(struct queue *q, struct io *ios, unsigned n)
{
    (void)q;
    for (unsigned i = 0; i < n; i++) {
        struct io *io = &ios[i];

        io->result = io->is_read ? pread(io->fd, io->buffer, io->length, io->offset)
                                 : pwrite(io->fd, io->buffer, io->length, io->offset);
        if (io->result < 0)
            io->result = -errno;
    }
}

static int start_libaio(struct queue *q)
{
    return io_setup(DEPTH, &q->aio);
}

static void run_libaio(struct queue *q, struct io *ios, unsigned n)
{
    struct iocb blocks[DEPTH], *pointers[DEPTH];
    struct io_event events[DEPTH];
    unsigned submitted = 0, in_flight = 0;

    for (unsigned i = 0; i < n; i++) {
        struct io *io = &ios[i];

        pointers[i] = &blocks[i];
        if (io->is_read)
            io_prep_pread(&blocks[i], io->fd, io->buffer, io->length, io->offset);
        else
            io_prep_pwrite(&blocks[i], io->fd, io->buffer, io->length, io->offset);
        blocks[i].data = io;
    }
    while (submitted < n) {
        int more = io_submit(q->aio, (long)(n - submitted), pointers + submitted);

        if (more > 0) {
            submitted += (unsigned)more;
            in_flight += (unsigned)more;
        } else { /* why not the first of those left */
            ((struct io *)pointers[submitted++]->data)->result = more;
        }
    }
    while (in_flight > 0) {
        int got = io_getevents(q->aio, 1, (long)in_flight, events, NULL);

        for (int i = 0; i < got; i++)
            ((struct io *)events[i].data)->result = (int64_t)(long)events[i].res;
        in_flight -= got > 0 ? (unsigned)got : 0;
    }
}

static int start_uring(struct queue *q)
{
    return io_uring_queue_init(DEPTH, &q->ring, 0);
}

static void run_uring(struct queue *q, struct io *ios, unsigned n)
{
    unsigned submitted = 0;

    for (unsigned i = 0; i < n; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);
        struct io *io = &ios[i];

        if (io->is_read)
            io_uring_prep_read(sqe, io->fd, io->buffer, (unsigned)io->length, (uint64_t)io->offset);
        else
            io_uring_prep_write(sqe, io->fd, io->buffer, (unsigned)io->length, (uint64_t)io->offset);
        io_uring_sqe_set_data(sqe, io);
    }
    while (submitted < n) {
        int more = io_uring_submit(&q->ring);

        submitted += more > 0 ? (unsigned)more : 0;
    }
    for (unsigned i = 0; i < n; i++) {
        struct io_uring_cqe *cqe;

        while (io_uring_wait_cqe(&q->ring, &cqe))
            ;
        ((struct io *)io_uring_cqe_get_data(cqe))->result = cqe->res;
        io_uring_cqe_seen(&q->ring, cqe);
    }
}

static const struct engine engines[] = {
    {"psync", start_psync, run_psync},
    {"libaio", start_libaio, run_libaio},
    {"io_uring", start_uring, run_uring},
};

/* ---- keepers ---- */

struct keeper {
    struct worker *w;
    uint32_t ids[2][SLICE / PAGE]; /* what each page of the slices holds */
    size_t start;                  /* of the slices in both files */
};

static void fill_page(void *page, uint32_t id)
{
    uint64_t *words = page;

    for (size_t i = 0; i < PAGE / 8; i++)
        words[i] = (uint64_t)id << 32 | i;
}

static void check_page(const void *page, uint32_t id, const char *how, uint64_t where)
{
    const uint64_t *words = page;

    for (size_t i = 0; i < PAGE / 8; i++) {
        if (words[i] != ((uint64_t)id << 32 | i)) {
            printf("word %zu is %016llx, not of %08x\n", i, (unsigned long long)words[i], id);
            give_up(how, where);
        }
    }
}

static void check_slice(const struct keeper *k, int file, const char *bytes, const char *how)
{
    for (size_t page = 0; page < SLICE / PAGE; page++)
        check_page(bytes + page * PAGE, k->ids[file][page], how, k->start + page * PAGE);
}

/* Through the cache, past it, and as mapped. */
static void check_all(const struct keeper *k, char *buffer)
{
    for (int file = 0; file < 2; file++) {
        if (pread(cached[file], buffer, SLICE, (off_t)k->start) != SLICE)
            give_up("read", k->start);
        check_slice(k, file, buffer, "wrong contents, read");
        check_slice(k, file, mapped[file] + k->start, "wrong contents, mapped");
        if (pread(direct[file], buffer, SLICE, (off_t)k->start) != SLICE)
            give_up("direct read", k->start);
        check_slice(k, file, buffer, "wrong contents, read past the cache");
    }
}

/* New contents for some pages, by storing into the mapping. */
static void store(struct keeper *k)
{
    for (int i = 0; i < 6; i++) {
        size_t file = below(k->w, 2), page = below(k->w, SLICE / PAGE);
        uint32_t id = (uint32_t)next_random(k->w);

        fill_page(mapped[file] + k->start + page * PAGE, id);
        k->ids[file][page] = id;
    }
}

static uint32_t id_of(const void *page)
{
    return (uint32_t)(*(const uint64_t *)page >> 32);
}

/* Pages of CUT that a direct read has filled, or not. */
static void see_what_arrived(struct keeper *k, size_t page, size_t n, const uint32_t *old_ids)
{
    uint32_t *ids = &k->ids[CUT][page];

    for (size_t i = 0; i < n; i++) {
        if (id_of(mapped[CUT] + k->start + (page + i) * PAGE) == ids[i] || ids[i] == old_ids[i])
            continue;
        ids[i] = old_ids[i];
        atomic_fetch_add(&lost, 1);
    }
}

/* DEPTH moves between 2 * DEPTH units that nobody else touches. */
static void move_units(struct keeper *k)
{
    const unsigned n_units = 2 * SLICE / UNIT;
    unsigned units[2 * SLICE / UNIT];
    uint32_t old_ids[DEPTH][UNIT / PAGE];
    struct io ios[DEPTH];

    for (unsigned i = 0; i < n_units; i++)
        units[i] = i;
    for (unsigned i = 0; i < 2 * DEPTH; i++) {
        unsigned j = i + (unsigned)below(k->w, n_units - i), unit = units[j];

        units[j] = units[i];
        units[i] = unit;
    }
    for (unsigned i = 0; i < DEPTH; i++) {
        unsigned from = units[2 * i], to = units[2 * i + 1];
        size_t in = k->start + from / 2 * UNIT, out = k->start + to / 2 * UNIT, pages = 1 + below(k->w, UNIT / PAGE);

        ios[i].is_read = below(k->w, 2);
        ios[i].fd = direct[ios[i].is_read ? from % 2 : to % 2];
        ios[i].offset = (off_t)(ios[i].is_read ? in : out);
        ios[i].buffer = ios[i].is_read ? mapped[to % 2] + out : mapped[from % 2] + in;
        ios[i].length = pages * PAGE;
        memcpy(old_ids[i], &k->ids[to % 2][to / 2 * (UNIT / PAGE)], sizeof(old_ids[i]));
        memcpy(&k->ids[to % 2][to / 2 * (UNIT / PAGE)], &k->ids[from % 2][from / 2 * (UNIT / PAGE)],
               pages * sizeof(k->ids[0][0]));
    }
    engine->run(&k->w->queue, ios, DEPTH);
    for (unsigned i = 0; i < DEPTH; i++) {
        errno = ios[i].result < 0 ? (int)-ios[i].result : 0;
        if (ios[i].result != (int64_t)ios[i].length)
            give_up(ios[i].is_read ? "a keeper's direct read" : "a keeper's direct write", (uint64_t)ios[i].offset);
        if (ios[i].is_read && units[2 * i + 1] % 2 == CUT)
            see_what_arrived(k, units[2 * i + 1] / 2 * (UNIT / PAGE), ios[i].length / PAGE, old_ids[i]);
    }
}

static void *keep(void *arg)
{
    struct worker *w = arg;
    struct keeper k = {.w = w, .start = w->index * SLICE};
    char *buffer;

    if (posix_memalign((void **)&buffer, PAGE, SLICE))
        give_up("memory", 0);
    for (int file = 0; file < 2; file++) {
        for (size_t page = 0; page < SLICE / PAGE; page++)
            fill_page(mapped[file] + k.start + page * PAGE, k.ids[file][page] = (uint32_t)next_random(w));
    }
    for (uint64_t round = 0; round < rounds; round++) {
        move_units(&k);
        store(&k);
        if (round % 16 == 0)
            check_all(&k, buffer);
        atomic_fetch_add(&w->done, 1);
    }
    check_all(&k, buffer);
    free(buffer);
    return NULL;
}

/* ---- shakers ---- */

static void *shake(void *arg)
{
    struct worker *w = arg;
    struct io ios[DEPTH];

    for (uint64_t round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < DEPTH; i++) {
            size_t pages = 1 + below(w, below(w, 8) ? 8 : SHAKEN / PAGE);
            size_t at = below(w, SHAKEN / PAGE - pages + 1), buffer = below(w, SHAKEN / PAGE - pages + 1);

            ios[i] = (struct io){
                .is_read = below(w, 3) > 0,
                .fd = direct[below(w, 2)],
                .buffer = mapped[below(w, 2)] + KEPT + buffer * PAGE,
                .length = pages * PAGE,
                .offset = (off_t)(KEPT + at * PAGE),
            };
        }
        engine->run(&w->queue, ios, DEPTH);
        for (unsigned i = 0; i < DEPTH; i++) {
            errno = ios[i].result < 0 ? (int)-ios[i].result : 0;
            /* The mapping ends where the file does now. */
            if (ios[i].result < 0 && errno != EFAULT)
                give_up("a shaker's direct I/O", (uint64_t)ios[i].offset);
            atomic_fetch_add(ios[i].result > 0 ? &moved : &refused, 1);
        }
        atomic_fetch_add(&w->done, 1);
    }
    return NULL;
}

/* ---- chaos ---- */

static void *confuse(void *arg)
{
    struct worker *w = arg;
    int zero = open("/dev/zero", O_RDONLY);

    while (!atomic_load(&chaos_ends)) {
        size_t file = below(w, 2), at = KEPT + below(w, SHAKEN), length = 1 + below(w, SHAKEN / 4);

        switch (below(w, 6)) {
        case 0:
            if (ftruncate(cached[CUT], (off_t)at))
                give_up("truncate", at);
            break;
        case 1:
            if (ftruncate(cached[CUT], FILE_BYTES))
                give_up("truncate", FILE_BYTES);
            break;
        case 2:
            if (fallocate(cached[file], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)length))
                give_up("punch", at);
            break;
        case 3: /* as a store that cannot raise SIGBUS */
            if (length > FILE_BYTES - at)
                length = FILE_BYTES - at;
            (void)!read(zero, mapped[file] + at, length);
            break;
        case 4:
            (void)!msync(mapped[file] + KEPT, SHAKEN, MS_SYNC);
            break;
        default:
            posix_fadvise(cached[file], KEPT, SHAKEN, POSIX_FADV_DONTNEED);
        }
        atomic_fetch_add(&w->done, 1);
    }
    close(zero);
    return NULL;
}

/* ---- */

/* Faults and read-ahead touch no pages but of their own unit: even a passing touch may keep a direct write from taking
 * a page out of the cache, and then Linux leaves an old one there, for any filesystem. */
static char *map_alone(int fd)
{
    char *room = mmap(NULL, FILE_BYTES + UNIT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *at = (char *)(((uintptr_t)room + UNIT - 1) / UNIT * UNIT);

    if (room == MAP_FAILED || mmap(at, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != at ||
        madvise(at, FILE_BYTES, MADV_RANDOM))
        give_up("mmap", FILE_BYTES);
    return at;
}

static void open_files(const char *directory)
{
    char path[4096];

    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/direct_mapped%d", directory, i);
        cached[i] = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
        direct[i] = open(path, O_RDWR | O_DIRECT);
        if (cached[i] < 0 || direct[i] < 0 || ftruncate(cached[i], FILE_BYTES))
            give_up("open", (uint64_t)i);
        mapped[i] = map_alone(cached[i]);
    }
}

static struct worker workers[N_KEEPERS + N_SHAKERS + N_CHAOS];

static uint64_t all_done(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < N_KEEPERS + N_SHAKERS; i++)
        sum += atomic_load(&workers[i].done);
    return sum;
}

static void stop_connection(const char *abort_path)
{
    int fd = open(abort_path, O_WRONLY);

    if (fd < 0 || write(fd, "1", 1) != 1)
        printf("the connection cannot be aborted: %s\n", strerror(errno));
}

/* Until all rounds are done. */
static void watch(const char *abort_path)
{
    uint64_t seen = 0, all = rounds * (N_KEEPERS + N_SHAKERS);
    unsigned still = 0;

    for (;;) {
        uint64_t now = all_done();

        if (now == all)
            return;
        still = now == seen ? still + 1 : 0;
        seen = now;
        if (still == PATIENCE) {
            printf("FAILED: nothing moves any more, at %llu of %llu rounds\n", (unsigned long long)now,
                   (unsigned long long)all);
            stop_connection(abort_path);
            _exit(1);
        }
        sleep(1);
    }
}

int main(int argc, char **argv)
{
    const unsigned n = N_KEEPERS + N_SHAKERS + N_CHAOS;

    for (size_t i = 0; argc == 6 && i < sizeof(engines) / sizeof(engines[0]); i++) {
        if (!strcmp(argv[2], engines[i].name))
            engine = &engines[i];
    }
    if (!engine) {
        fprintf(stderr, "usage: direct_mapped DIRECTORY psync|libaio|io_uring ROUNDS SEED ABORT\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    rounds = strtoull(argv[3], NULL, 10);
    for (unsigned i = 0; i < n; i++) {
        int err = engine->start(&workers[i].queue);

        if (err == -ENOSYS || err == -EPERM)
            return 77;
        if (err)
            give_up("start of the engine", (uint64_t)-err);
    }
    open_files(argv[1]);
    for (unsigned i = 0; i < n; i++) {
        struct worker *w = &workers[i];

        w->index = i;
        w->random = (strtoull(argv[4], NULL, 10) << 8) + i + 1;
        if (pthread_create(&w->thread, NULL, i < N_KEEPERS ? keep : i < N_KEEPERS + N_SHAKERS ? shake : confuse, w))
            give_up("thread", i);
    }
    watch(argv[5]);
    atomic_store(&chaos_ends, true);
    for (unsigned i = 0; i < n; i++)
        pthread_join(workers[i].thread, NULL);
    printf("%s: %llu rounds; shakers: %llu done, %llu refused; pages lost to truncation: %llu\n", engine->name,
           (unsigned long long)all_done(), (unsigned long long)moved, (unsigned long long)refused,
           (unsigned long long)lost);
    return 0;
}
