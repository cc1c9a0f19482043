/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/rereg.h"

#include <errno.h>
#include <rdma/ib_user_verbs.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rdma/faults.h"

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

struct change {
    int flags;             /* IBV_REREG_MR_CHANGE_* */
    struct ibv_pd *domain; /* with CHANGE_PD */
    int access;            /* with CHANGE_ACCESS */
};

static int rereg_by_provider(struct ibv_mr *mr, const struct change *change)
{
    errno = 0;
    if (ibv_rereg_mr(mr, change->flags, change->domain, NULL, 0, change->access) == 0)
        return 0;
    return errno ? -errno : -EIO;
}

static int rereg_by_kernel(struct ibv_mr *mr, const struct change *change)
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
                 .flags = (uint32_t)change->flags,
                 .pd_handle = change->domain ? change->domain->handle : mr->pd->handle,
                 .access_flags = (uint32_t)change->access},
    };

    if (write(mr->context->cmd_fd, &command, sizeof(command)) != (ssize_t)sizeof(command))
        return -errno;
    if (change->domain)
        mr->pd = change->domain; /* as ibv_rereg_mr() does */
    return 0;
}

static int rereg(enum rereg_path path, struct ibv_mr *mr, const struct change *change)
{
    switch (path) {
    case REREG_PROVIDER:
        return rereg_by_provider(mr, change);
    case REREG_KERNEL:
        return rereg_by_kernel(mr, change);
    case REREG_NONE:
        break;
    }
    return -EOPNOTSUPP;
}

int rereg_to_no_access(enum rereg_path path, struct ibv_mr *mr)
{
    int r;

    if (fault_inject("rights", &r))
        return r;
    return rereg(path, mr, &(struct change){.flags = IBV_REREG_MR_CHANGE_ACCESS});
}

int rereg_away_from_peers(enum rereg_path path, struct ibv_mr *mr, struct ibv_pd *quarantine)
{
    int r = rereg_to_no_access(path, mr);

    if (r == 0)
        return 0;
    return rereg(path, mr, &(struct change){.flags = IBV_REREG_MR_CHANGE_PD, .domain = quarantine});
}

int rereg_move(enum rereg_path path, struct ibv_mr *mr, struct ibv_pd *domain, int access)
{
    const struct change change = {IBV_REREG_MR_CHANGE_PD | IBV_REREG_MR_CHANGE_ACCESS, domain, access};

    return rereg(path, mr, &change);
}

static enum rereg_path try_paths(struct ibv_pd *pd, struct ibv_pd *quarantine, void *page, size_t page_size)
{
    static const enum rereg_path paths[] = {REREG_PROVIDER, REREG_KERNEL};

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
        struct ibv_mr *mr = ibv_reg_mr(pd, page, page_size, access);

        if (!mr)
            break;
        int r = rereg_away_from_peers(paths[i], mr, quarantine);

        ibv_dereg_mr(mr);
        if (r == 0)
            return paths[i];
    }
    return REREG_NONE;
}

/* From the quarantine to a session, as a spare goes. */
static bool try_to_move(enum rereg_path path, struct ibv_pd *pd, struct ibv_pd *quarantine, void *page,
                        size_t page_size)
{
    int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
    struct ibv_mr *mr = ibv_reg_mr(quarantine, page, page_size, IBV_ACCESS_LOCAL_WRITE);
    bool moved = mr && rereg_move(path, mr, pd, access) == 0;

    if (mr)
        ibv_dereg_mr(mr);
    return moved;
}

enum rereg_path rereg_probe(struct ibv_context *context, bool *ret_moves)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    enum rereg_path path = REREG_NONE;
    struct ibv_pd *pd, *quarantine;
    void *page = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    *ret_moves = false;
    if (page == MAP_FAILED)
        return REREG_NONE;
    pd = ibv_alloc_pd(context);
    quarantine = ibv_alloc_pd(context);
    if (pd && quarantine)
        path = try_paths(pd, quarantine, page, page_size);
    if (path != REREG_NONE)
        *ret_moves = try_to_move(path, pd, quarantine, page, page_size);
    if (quarantine)
        ibv_dealloc_pd(quarantine);
    if (pd)
        ibv_dealloc_pd(pd);
    munmap(page, page_size);
    return path;
}
