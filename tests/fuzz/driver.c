/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for libFuzzer where the compiler has none: runs every file of the corpus, then random mutations of them,
 * for LEASEFS_FUZZ_SECONDS (4). LEASEFS_FUZZ_SEED repeats a run. The input under test is in the file last_input.NAME,
 * mapped, so that it is there after a crash: `fuzz_NAME last_input.NAME` runs it once more.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_FILES  256
#define INPUT_SIZE 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct input {
    uint8_t bytes[INPUT_SIZE];
    size_t size;
} corpus[MAX_FILES], *last;

static int n_corpus;
static uint64_t random_state;

static unsigned pick(size_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return below ? (unsigned)((random_state >> 16) % below) : 0;
}

static void load(const char *path)
{
    FILE *file = fopen(path, "rb");

    if (!file || n_corpus == MAX_FILES) {
        fprintf(stderr, "%s: %s\n", path, file ? "too many inputs" : strerror(errno));
        exit(2);
    }
    corpus[n_corpus].size = fread(corpus[n_corpus].bytes, 1, INPUT_SIZE, file);
    n_corpus++;
    fclose(file);
}

static void load_all(const char *path)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;
    char name[4096];

    if (!directory) {
        load(path);
        return;
    }
    while ((entry = readdir(directory))) {
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.')
            load(name);
    }
    closedir(directory);
}

static void map_last(const char *program)
{
    const char *name = strrchr(program, '/') ? strrchr(program, '/') + 1 : program;
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "last_input.%s", strncmp(name, "fuzz_", 5) == 0 ? name + 5 : name);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(*last)) < 0 ||
        (last = mmap(NULL, sizeof(*last), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED) {
        perror(path);
        exit(2);
    }
    close(fd);
}

static void run(const struct input *input)
{
    uint8_t *exact = malloc(input->size ? input->size : 1); /* so that ASan sees a read behind the end */

    if (!exact)
        abort();
    *last = *input;
    memcpy(exact, input->bytes, input->size);
    LLVMFuzzerTestOneInput(exact, input->size);
    free(exact);
}

static void insert(struct input *input, const uint8_t *bytes, size_t size)
{
    size_t at;

    if (input->size >= INPUT_SIZE) /* it is full */
        return;
    at = pick(input->size + 1);
    if (size > INPUT_SIZE - input->size)
        size = INPUT_SIZE - input->size;
    memmove(input->bytes + at + size, input->bytes + at, input->size - at);
    memcpy(input->bytes + at, bytes, size);
    input->size += size;
}

static void cut(struct input *input)
{
    size_t at = pick(input->size), size = pick(pick(8) ? 8 : input->size - at + 1);

    if (size > input->size - at)
        size = input->size - at;
    memmove(input->bytes + at, input->bytes + at + size, input->size - at - size);
    input->size -= size;
}

static void mutate(struct input *input)
{
    static const char *const words[] = {
        "null", "-1",      "9223372036854775807", "1e999", "{", "[", "}", "]", "\"", "\\u0", "\n", "{}", "\0", "0.5",
        "id",   "\xff\xfe"};
    const char *word;
    struct input copy;

    switch (pick(6)) {
    case 0:
        if (input->size)
            input->bytes[pick(input->size)] ^= (uint8_t)(1u << pick(8));
        break;
    case 1:
        if (input->size)
            input->bytes[pick(input->size)] = (uint8_t)pick(256);
        break;
    case 2:
        cut(input);
        break;
    case 3:
        word = words[pick(sizeof(words) / sizeof(words[0]))];
        insert(input, (const uint8_t *)word, word[0] ? strlen(word) : 1);
        break;
    case 4:
        copy = corpus[pick((size_t)n_corpus)];
        insert(input, copy.bytes, pick(copy.size + 1));
        break;
    case 5: /* a piece of itself, often many times */
        copy = *input;
        for (unsigned n = pick(4) ? 1 : pick(200), at = pick(copy.size), size = pick(16); n > 0; n--)
            insert(input, copy.bytes + at, size < copy.size - at ? size : copy.size - at);
        break;
    }
}

int main(int argc, char **argv)
{
    const char *seconds = getenv("LEASEFS_FUZZ_SECONDS"), *seed = getenv("LEASEFS_FUZZ_SEED");
    time_t end;
    unsigned long runs = 0;

    random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)random_state);
    random_state = (random_state + 1) * UINT64_C(0x9e3779b97f4a7c15);
    for (int i = 1; i < argc; i++)
        load_all(argv[i]);
    map_last(argv[0]);
    for (int i = 0; i < n_corpus; i++, runs++)
        run(&corpus[i]);
    end = time(NULL) + (seconds ? (time_t)strtoull(seconds, NULL, 0) : 4);
    while (n_corpus > 1 && time(NULL) < end) {
        struct input input = corpus[pick((size_t)n_corpus)];

        for (unsigned n = 1 + pick(8); n > 0; n--)
            mutate(&input);
        run(&input);
        runs++;
    }
    printf("%lu inputs from a corpus of %d\n", runs, n_corpus);
    return n_corpus ? 0 : 2;
}
