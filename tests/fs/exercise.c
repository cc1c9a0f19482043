/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exercises the bytes of two files against a model in memory: exercise DIRECTORY OPERATIONS SEED [leased]
 *
 * Writes and reads, buffered, direct and mapped; direct I/O whose buffer is itself a mapping of the other file;
 * truncates, holes, zeroes, allocations; collapse, insert and unshare, by the ioctl on leasefs; copies within and
 * between. Every read is compared. A failure prints the operations that led to it; the same seed repeats them.
 *
 * `leased`: others take leases on the files meanwhile. Linux then drops pages of theirs, also those that a direct read
 * into a mapping is just filling (README.md, Limits), so there are no such reads.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <leasefs/ioctl.h>

#define LIMIT     (256u << 10)
#define BLOCK     4096u
#define MAX_IO    (64u << 10)
#define HISTORY   40u
#define N_FILES   2
#define DEEP_EACH 2000u

struct file {
    char path[4096];
    int fd, direct;
    size_t size;
    unsigned char model[2 * LIMIT];
};

static struct file files[N_FILES];
static unsigned char *buffer; /* aligned, MAX_IO bytes */
static char history[HISTORY][120];
static uint64_t step, state;
static bool shaped; /* ranges can be collapsed here */

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * UINT64_C(0x2545f4914f6cdd1d) >> 11;
}

static size_t below(size_t n)
{
    return n ? next_random() % n : 0;
}

static void note(const char *what, const struct file *f, size_t offset, size_t length)
{
    snprintf(history[step % HISTORY], sizeof(history[0]), "%llu: %s of %d, %zu + %zu, size %zu",
             (unsigned long long)step, what, (int)(f - files), offset, length, f->size);
}

static void give_up(const char *what, size_t at)
{
    int err = errno;

    for (uint64_t i = step >= HISTORY ? step - HISTORY + 1 : 0; i <= step; i++)
        printf("%s\n", history[i % HISTORY]);
    printf("FAILED: %s (at %zu, %s)\n", what, at, strerror(err));
    exit(1);
}

static void expect(bool good, const char *what)
{
    if (!good)
        give_up(what, 0);
}

static void compare(const struct file *f, size_t offset, const unsigned char *got, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (got[i] != f->model[offset + i]) {
            printf("byte %zu is %02x, not %02x\n", offset + i, got[i], f->model[offset + i]);
            give_up("wrong contents", offset + i);
        }
    }
}

/* ---- the model ---- */

static void model_resize(struct file *f, size_t size)
{
    if (size < f->size)
        memset(f->model + size, 0, f->size - size);
    f->size = size;
}

static void model_grow(struct file *f, size_t end)
{
    if (end > f->size)
        model_resize(f, end);
}

static void model_zero(struct file *f, size_t offset, size_t length)
{
    if (offset < f->size)
        memset(f->model + offset, 0, length < f->size - offset ? length : f->size - offset);
}

static void fill(size_t length)
{
    uint64_t seed = next_random();

    for (size_t i = 0; i < length; i++)
        buffer[i] = (unsigned char)((seed >> (i % 8 * 8)) + i / 8);
}

/* ---- operations: each on a file, some place, some length (both more than 0 and below their bounds) ---- */

static void do_write(struct file *f, size_t offset, size_t length)
{
    fill(length);
    expect(pwrite(f->fd, buffer, length, (off_t)offset) == (ssize_t)length, "write");
    model_grow(f, offset + length);
    memcpy(f->model + offset, buffer, length);
}

static void do_append(struct file *f, size_t offset, size_t length)
{
    int fd;

    (void)offset;
    if (f->size + length > LIMIT)
        return;
    fill(length);
    fd = open(f->path, O_WRONLY | O_APPEND);
    expect(fd >= 0 && write(fd, buffer, length) == (ssize_t)length && close(fd) == 0, "append");
    memcpy(f->model + f->size, buffer, length);
    f->size += length;
}

static void do_write_direct(struct file *f, size_t offset, size_t length)
{
    offset &= ~(size_t)(BLOCK - 1);
    length = (length | (BLOCK - 1)) + 1;
    if (length > MAX_IO)
        length = MAX_IO;
    fill(length);
    expect(pwrite(f->direct, buffer, length, (off_t)offset) == (ssize_t)length, "direct write");
    model_grow(f, offset + length);
    memcpy(f->model + offset, buffer, length);
}

static void do_read(struct file *f, size_t offset, size_t length)
{
    size_t want = offset < f->size ? (length < f->size - offset ? length : f->size - offset) : 0;

    expect(pread(f->fd, buffer, length, (off_t)offset) == (ssize_t)want, "read");
    compare(f, offset, buffer, want);
}

static void do_read_direct(struct file *f, size_t offset, size_t length)
{
    size_t want;

    offset &= ~(size_t)(BLOCK - 1);
    length = (length | (BLOCK - 1)) + 1;
    if (length > MAX_IO)
        length = MAX_IO;
    want = offset < f->size ? (length < f->size - offset ? length : f->size - offset) : 0;
    expect(pread(f->direct, buffer, length, (off_t)offset) == (ssize_t)want, "direct read");
    compare(f, offset, buffer, want);
}

static unsigned char *map(struct file *f, int protection)
{
    unsigned char *at = mmap(NULL, f->size, protection, MAP_SHARED, f->fd, 0);

    expect(at != MAP_FAILED, "mmap");
    return at;
}

static void do_write_mapped(struct file *f, size_t offset, size_t length)
{
    unsigned char *at;

    if (offset >= f->size)
        return;
    if (length > f->size - offset)
        length = f->size - offset;
    fill(length);
    at = map(f, PROT_READ | PROT_WRITE);
    memcpy(at + offset, buffer, length);
    if (below(2))
        expect(msync(at, f->size, MS_SYNC) == 0, "msync");
    munmap(at, f->size);
    memcpy(f->model + offset, buffer, length);
}

static void do_read_mapped(struct file *f, size_t offset, size_t length)
{
    unsigned char *at;

    if (offset >= f->size)
        return;
    if (length > f->size - offset)
        length = f->size - offset;
    at = map(f, PROT_READ);
    compare(f, offset, at + offset, length);
    munmap(at, f->size);
}

/* Direct I/O from and to the pages of the other file. */
static void do_direct_from_map(struct file *f, size_t offset, size_t length)
{
    struct file *other = &files[N_FILES - 1 - (f - files)];
    size_t from = below(other->size) & ~(size_t)(BLOCK - 1);
    unsigned char *at;

    offset &= ~(size_t)(BLOCK - 1);
    length = length / BLOCK * BLOCK;
    if (length == 0 || from + length > other->size)
        return;
    at = map(other, PROT_READ | PROT_WRITE);
    expect(pwrite(f->direct, at + from, length, (off_t)offset) == (ssize_t)length, "direct write from a mapping");
    munmap(at, other->size);
    model_grow(f, offset + length);
    memcpy(f->model + offset, other->model + from, length);
}

static void do_direct_to_map(struct file *f, size_t offset, size_t length)
{
    struct file *other = &files[N_FILES - 1 - (f - files)];
    size_t to = below(other->size) & ~(size_t)(BLOCK - 1);
    unsigned char *at;

    offset &= ~(size_t)(BLOCK - 1);
    length = length / BLOCK * BLOCK;
    if (length == 0 || to + length > other->size || offset + length > f->size)
        return;
    at = map(other, PROT_READ | PROT_WRITE);
    expect(pread(f->direct, at + to, length, (off_t)offset) == (ssize_t)length, "direct read to a mapping");
    munmap(at, other->size);
    memcpy(other->model + to, f->model + offset, length);
}

static void do_truncate(struct file *f, size_t offset, size_t length)
{
    (void)length;
    expect(ftruncate(f->fd, (off_t)offset) == 0, "truncate");
    model_resize(f, offset);
}

/* false: this filesystem does not know it (`writeback` with the modes of the ioctl). */
static bool allocate(struct file *f, int mode, size_t offset, size_t length, const char *what)
{
    int result = fallocate(f->fd, mode, (off_t)offset, (off_t)length);

    if (result && errno == EOPNOTSUPP)
        result = leasefs_fallocate(f->fd, mode, offset, length);
    if (result && (errno == EOPNOTSUPP || errno == ENOTTY))
        return false;
    shaped |= result == 0 && mode == FALLOC_FL_COLLAPSE_RANGE;
    expect(result == 0, what);
    return true;
}

static void do_punch(struct file *f, size_t offset, size_t length)
{
    if (allocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length, "punch"))
        model_zero(f, offset, length);
}

static void do_zero(struct file *f, size_t offset, size_t length)
{
    int keep = below(2) ? FALLOC_FL_KEEP_SIZE : 0;

    if (!allocate(f, FALLOC_FL_ZERO_RANGE | keep, offset, length, "zero"))
        return;
    if (!keep)
        model_grow(f, offset + length);
    model_zero(f, offset, length);
}

static void do_allocate(struct file *f, size_t offset, size_t length)
{
    int keep = below(2) ? FALLOC_FL_KEEP_SIZE : 0;

    if (allocate(f, keep, offset, length, "allocate") && !keep)
        model_grow(f, offset + length);
}

static void do_collapse(struct file *f, size_t offset, size_t length)
{
    offset &= ~(size_t)(BLOCK - 1);
    length = (length | (BLOCK - 1)) + 1;
    if (offset + length >= f->size || !allocate(f, FALLOC_FL_COLLAPSE_RANGE, offset, length, "collapse"))
        return;
    memmove(f->model + offset, f->model + offset + length, f->size - offset - length);
    model_resize(f, f->size - length);
}

static void do_insert(struct file *f, size_t offset, size_t length)
{
    size_t old = f->size;

    offset &= ~(size_t)(BLOCK - 1);
    length = (length | (BLOCK - 1)) + 1;
    if (offset >= old || old + length > LIMIT || !allocate(f, FALLOC_FL_INSERT_RANGE, offset, length, "insert"))
        return;
    model_grow(f, old + length);
    memmove(f->model + offset + length, f->model + offset, old - offset);
    memset(f->model + offset, 0, length);
}

static void do_unshare(struct file *f, size_t offset, size_t length)
{
    int keep = below(2) ? FALLOC_FL_KEEP_SIZE : 0;

    if (allocate(f, FALLOC_FL_UNSHARE_RANGE | keep, offset, length, "unshare") && !keep)
        model_grow(f, offset + length);
}

static void do_copy(struct file *f, size_t offset, size_t length)
{
    struct file *from = &files[below(N_FILES)];
    off_t in = (off_t)below(from->size), out = (off_t)offset;
    size_t start;

    if (below(2)) { /* so that blocks can be shared */
        in &= ~(off_t)(BLOCK - 1);
        out &= ~(off_t)(BLOCK - 1);
    }
    start = (size_t)out;
    if (length > from->size - (size_t)in)
        length = from->size - (size_t)in;
    if (length == 0 || (from == f && (size_t)in < start + length && start < (size_t)in + length))
        return;
    memcpy(buffer, from->model + in, length);
    for (size_t left = length; left > 0;) {
        ssize_t n = copy_file_range(from->fd, &in, f->fd, &out, left, 0);

        expect(n > 0, "copy_file_range");
        left -= (size_t)n;
    }
    model_grow(f, start + length);
    memcpy(f->model + start, buffer, length);
}

static void open_file(struct file *f)
{
    f->fd = open(f->path, O_RDWR | O_CREAT, 0644);
    f->direct = open(f->path, O_RDWR | O_DIRECT);
    expect(f->fd >= 0 && f->direct >= 0, "open");
}

static void do_reopen(struct file *f, size_t offset, size_t length)
{
    (void)offset;
    (void)length;
    expect(close(f->fd) == 0 && close(f->direct) == 0, "close");
    open_file(f);
}

static void do_sync(struct file *f, size_t offset, size_t length)
{
    (void)offset;
    (void)length;
    expect(fsync(f->fd) == 0, "fsync");
}

static const struct {
    const char *name;
    void (*run)(struct file *f, size_t offset, size_t length);
    unsigned weight;
} operations[] = {
    {"write", do_write, 12},
    {"append", do_append, 2},
    {"direct write", do_write_direct, 6},
    {"mapped write", do_write_mapped, 5},
    {"read", do_read, 12},
    {"direct read", do_read_direct, 6},
    {"mapped read", do_read_mapped, 5},
    {"direct write from a mapping", do_direct_from_map, 2},
    {"direct read to a mapping", do_direct_to_map, 2},
    {"truncate", do_truncate, 3},
    {"punch", do_punch, 4},
    {"zero", do_zero, 3},
    {"allocate", do_allocate, 2},
    {"collapse", do_collapse, 2},
    {"insert", do_insert, 2},
    {"unshare", do_unshare, 1},
    {"copy", do_copy, 6},
    {"reopen", do_reopen, 2},
    {"sync", do_sync, 1},
};

static bool leased;

static unsigned weight_of(size_t op)
{
    return leased && operations[op].run == do_direct_to_map ? 0 : operations[op].weight;
}

static size_t choose(void)
{
    const size_t n = sizeof(operations) / sizeof(operations[0]);
    unsigned total = 0;
    size_t at;

    for (size_t i = 0; i < n; i++)
        total += weight_of(i);
    at = below(total);
    for (size_t i = 0; i < n; i++) {
        if (at < weight_of(i))
            return i;
        at -= weight_of(i);
    }
    return 0;
}

/* All of it, both ways, and the size. */
static void check_all(struct file *f)
{
    struct stat st;

    expect(fstat(f->fd, &st) == 0, "fstat");
    if ((size_t)st.st_size != f->size) {
        printf("the size is %lld, not %zu\n", (long long)st.st_size, f->size);
        give_up("wrong size", f->size);
    }
    for (size_t at = 0; at < f->size; at += MAX_IO) {
        do_read(f, at, MAX_IO);
        do_read_direct(f, at, MAX_IO);
    }
}

int main(int argc, char **argv)
{
    uint64_t count;

    leased = argc == 5 && strcmp(argv[4], "leased") == 0;
    if (argc != 4 && !leased) {
        fprintf(stderr, "usage: exercise DIRECTORY OPERATIONS SEED [leased]\n");
        return 2;
    }
    count = strtoull(argv[2], NULL, 10);
    state = strtoull(argv[3], NULL, 10) * 2 + 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%s operations, seed %s\n", argv[2], argv[3]);
    expect(posix_memalign((void **)&buffer, BLOCK, LIMIT) == 0, "memory");
    for (int i = 0; i < N_FILES; i++) {
        snprintf(files[i].path, sizeof(files[i].path), "%s/exercise%d", argv[1], i);
        open_file(&files[i]);
    }
    for (; step < count; step++) {
        struct file *f = &files[below(N_FILES)];
        size_t op = choose(), offset = below(LIMIT - MAX_IO), length = 1 + below(below(4) ? 2 * BLOCK : MAX_IO);

        note(operations[op].name, f, offset, length);
        operations[op].run(f, offset, length);
        for (int i = 0; step % DEEP_EACH == 0 && i < N_FILES; i++)
            check_all(&files[i]);
    }
    for (int i = 0; i < N_FILES; i++)
        check_all(&files[i]);
    printf("%s\n", shaped ? "ranges were collapsed" : "no range could be collapsed");
    return 0;
}
