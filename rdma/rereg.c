/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/rereg.h"

#include <errno.h>
#include <rdma/ib_user_verbs.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char *rereg_path_name(enum rereg_path path)
{
    switch (path) {
    case REREG_PROVIDER:
        return "through the provider";
    case REREG_KERNEL:
        return "kernel command, the provider has none";
    case REREG_NONE:
        break;
    }
    return "neither the provider nor the kernel driver has it";
}

static int rereg_by_provider(struct ibv_mr *mr)
{
    errno = 0;
    if (ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, 0) == 0)
        return 0;
    return errno ? -errno : -EIO;
}

static int rereg_by_kernel(struct ibv_mr *mr)
{
    struct ib_uverbs_rereg_mr_resp response = {0};
    struct {
        struct ib_uverbs_cmd_hdr header;
        struct ib_uverbs_rereg_mr body;
    } command = {
        .header = {.command = IB_USER_VERBS_CMD_REREG_MR,
                   .in_words = sizeof(command) / 4,
                   .out_words = sizeof(response) / 4},
        .body = {.response = (uintptr_t)&response,
                 .mr_handle = mr->handle,
                 .flags = IBV_REREG_MR_CHANGE_ACCESS,
                 .pd_handle = mr->pd->handle,
                 .access_flags = 0},
    };

    if (write(mr->context->cmd_fd, &command, sizeof(command)) != (ssize_t)sizeof(command))
        return -errno;
    return 0;
}

int rereg_to_no_access(enum rereg_path path, struct ibv_mr *mr)
{
    switch (path) {
    case REREG_PROVIDER:
        return rereg_by_provider(mr);
    case REREG_KERNEL:
        return rereg_by_kernel(mr);
    case REREG_NONE:
        break;
    }
    return -EOPNOTSUPP;
}

static enum rereg_path try_paths(struct ibv_pd *pd, void *page, size_t page_size)
{
    static const enum rereg_path paths[] = {REREG_PROVIDER, REREG_KERNEL};

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
        struct ibv_mr *mr = ibv_reg_mr(pd, page, page_size, access);

        if (!mr)
            break;
        int r = rereg_to_no_access(paths[i], mr);

        ibv_dereg_mr(mr);
        if (r == 0)
            return paths[i];
    }
    return REREG_NONE;
}

enum rereg_path rereg_probe(struct ibv_context *context)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    enum rereg_path path = REREG_NONE;
    struct ibv_pd *pd;
    void *page = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return REREG_NONE;
    pd = ibv_alloc_pd(context);
    if (pd) {
        path = try_paths(pd, page, page_size);
        ibv_dealloc_pd(pd);
    }
    munmap(page, page_size);
    return path;
}
