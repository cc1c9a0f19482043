/* SPDX-License-Identifier: BSD-2-Clause */
/* The pool's memory. */
#include "fused/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fused/pool_private.h"

#define HUGE_PAGE_SIZE (2u << 20)
#define MIN_POOL_SIZE  (1u << 20)
#define MAX_POOL_SIZE  ((uint64_t)UINT32_MAX << POOL_BLOCK_SHIFT)
#define MIB(bytes)     ((unsigned long long)((bytes) >> 20))

static int explain(char **ret_error, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int explain(char **ret_error, int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (vasprintf(ret_error, format, args) < 0)
        *ret_error = NULL;
    va_end(args);
    return error;
}

/* A number after `key` in a file of the kernel's; UINT64_MAX when there is none. */
static uint64_t kernel_number(const char *path, const char *key)
{
    FILE *file = fopen(path, "re");
    uint64_t value = UINT64_MAX;
    char line[256];

    if (!file)
        return UINT64_MAX;
    while (value == UINT64_MAX && fgets(line, sizeof(line), file))
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), "%" SCNu64, &value) != 1)
            value = UINT64_MAX;
    fclose(file);
    return value;
}

/* What this process's control group (version 2) may still use; UINT64_MAX: no limit. */
static uint64_t cgroup_left(void)
{
    char line[512], path[640];
    uint64_t max, current;
    FILE *file = fopen("/proc/self/cgroup", "re");
    bool found = false;

    if (!file)
        return UINT64_MAX;
    while (!found && fgets(line, sizeof(line), file))
        found = strncmp(line, "0::", 3) == 0;
    fclose(file);
    if (!found)
        return UINT64_MAX;
    line[strcspn(line, "\n")] = 0;
    snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", line + 3);
    max = kernel_number(path, "");
    snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.current", line + 3);
    current = kernel_number(path, "");
    if (max == UINT64_MAX || current == UINT64_MAX)
        return UINT64_MAX;
    return max > current ? max - current : 0;
}

/* Asked beforehand: populating more than there is would wake the OOM killer instead of failing. */
static int check_memory(uint64_t size, bool huge_pages, char **ret_error)
{
    static const char meminfo[] = "/proc/meminfo";
    uint64_t available;

    if (huge_pages) {
        uint64_t free_pages = kernel_number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "");
        uint64_t total = kernel_number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "");
        uint64_t wanted = size / HUGE_PAGE_SIZE;

        if (total == UINT64_MAX)
            return explain(ret_error, -ENOMEM, "this kernel has no 2 MiB huge pages; leave out the option hugepages");
        if (free_pages < wanted)
            return explain(ret_error, -ENOMEM,
                           "a pool of %llu MiB needs %llu huge pages of 2 MiB, %llu of %llu are free; run: sysctl "
                           "vm.nr_hugepages=%llu, or choose a smaller pool=",
                           MIB(size), (unsigned long long)wanted, (unsigned long long)free_pages,
                           (unsigned long long)total, (unsigned long long)(total + wanted - free_pages));
        return 0;
    }
    available = kernel_number(meminfo, "MemAvailable:");
    if (available != UINT64_MAX && size > available * 1024)
        return explain(ret_error, -ENOMEM,
                       "a pool of %llu MiB does not fit: %llu MiB of memory are available; choose a "
                       "smaller pool=",
                       MIB(size), MIB(available * 1024));
    if (size > cgroup_left())
        return explain(
            ret_error, -ENOMEM,
            "a pool of %llu MiB does not fit: %llu MiB are left of this control group's memory.max; raise it "
            "or choose a smaller pool=",
            MIB(size), MIB(cgroup_left()));
    return 0;
}

static int map_memory(struct pool *pool, bool huge_pages, char **ret_error)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge_pages ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
    void *base;

    pool->fd = memfd_create("leasefs-pool", flags);
    if (pool->fd < 0)
        return explain(ret_error, -errno, "memfd_create: %s", strerror(errno));
    if (ftruncate(pool->fd, (off_t)pool->size))
        return explain(ret_error, -errno, "a pool of %llu MiB: %s", MIB(pool->size), strerror(errno));
    base = mmap(NULL, pool->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, pool->fd, 0);
    if (base == MAP_FAILED)
        return explain(ret_error, -errno, "mapping a pool of %llu MiB: %s", MIB(pool->size), strerror(errno));
    pool->base = base;
    /* A child's copy-on-write would take the pages from under the NIC. */
    if (madvise(base, pool->size, MADV_DONTFORK))
        return explain(ret_error, -errno, "MADV_DONTFORK on the pool: %s", strerror(errno));
    if (fallocate(pool->fd, 0, 0, (off_t)pool->size) || madvise(base, pool->size, MADV_POPULATE_WRITE))
        return explain(ret_error, -ENOMEM,
                       "a pool of %llu MiB could not be filled with memory: %s; choose a smaller "
                       "pool=",
                       MIB(pool->size), strerror(errno));
    if (fcntl(pool->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
        return explain(ret_error, -errno, "sealing the pool: %s", strerror(errno));
    return 0;
}

int pool_new(uint64_t size, bool huge_pages, struct pool **ret_pool, char **ret_error)
{
    size_t page_size = huge_pages ? HUGE_PAGE_SIZE : POOL_BLOCK_SIZE;
    struct pool *pool;
    int error;

    *ret_error = NULL;
    size &= ~((uint64_t)page_size - 1);
    if (size < MIN_POOL_SIZE || size > MAX_POOL_SIZE)
        return explain(ret_error, -EINVAL,
                       "a pool has between %u MiB and %llu MiB; choose another pool=", MIN_POOL_SIZE >> 20,
                       MIB(MAX_POOL_SIZE));
    error = check_memory(size, huge_pages, ret_error);
    if (error)
        return error;
    pool = calloc(1, sizeof(*pool));
    if (!pool)
        return -ENOMEM;
    pool->fd = -1;
    pool->size = size;
    pool->page_size = page_size;
    pool->blocks = (uint32_t)(size >> POOL_BLOCK_SHIFT);
    error = pool_groups_new(pool);
    if (!error)
        error = map_memory(pool, huge_pages, ret_error);
    if (error) {
        pool_free(pool);
        return error;
    }
    *ret_pool = pool;
    return 0;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    if (pool->base)
        munmap(pool->base, pool->size);
    if (pool->fd >= 0)
        close(pool->fd);
    pool_groups_free(pool);
    free(pool);
}

int pool_fd(const struct pool *pool)
{
    return pool->fd;
}

void *pool_base(const struct pool *pool)
{
    return pool->base;
}

uint64_t pool_size(const struct pool *pool)
{
    return pool->size;
}

size_t pool_page_size(const struct pool *pool)
{
    return pool->page_size;
}

void *pool_address(const struct pool *pool, struct pool_block block)
{
    return pool->base + ((uint64_t)block.index << POOL_BLOCK_SHIFT);
}
