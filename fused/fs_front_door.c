/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/fs_front_door.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

uint64_t fs_monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* 0: it has ended. */
static int process_of(int thread)
{
    char path[64], line[128];
    int process = 0;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", thread);
    status = fopen(path, "re");
    if (!status)
        return 0;
    while (fgets(line, sizeof(line), status) && sscanf(line, "Tgid: %d", &process) != 1)
        ;
    fclose(status);
    return process;
}

int front_door(struct fs *fs, struct fs_inode *inode, struct lease_range range, enum lease_op op,
               struct lease_waiter *waiter)
{
    if (inode->holds == 0 || !fs->leases || range.length == 0)
        return 0;
    if (waiter && waiter->process < 0)
        waiter->process = process_of(-waiter->process);
    return lease_op_begin_under(fs->leases, inode->ino, range, op, inode->lease_policy, fs_monotonic_ns(), waiter);
}

struct lease_range range_of_write(const struct fs_inode *inode, uint64_t offset, uint64_t length)
{
    uint64_t size = file_data_size(inode->data);
    uint64_t start = offset < size ? offset : size;

    return (struct lease_range){start, offset + length - start};
}

struct lease_range range_of_slack(const struct fs_inode *inode)
{
    uint64_t size = file_data_size(inode->data);
    uint64_t used = size & (POOL_BLOCK_SIZE - 1);

    return (struct lease_range){size, used ? POOL_BLOCK_SIZE - used : 0};
}

struct lease_range range_of_shrink(uint64_t new_size)
{
    return range_from(new_size & ~(uint64_t)(POOL_BLOCK_SIZE - 1));
}
