/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_FUSE_RING_PROTOCOL_H
#define LEASEFS_FUSED_FUSE_RING_PROTOCOL_H

#include <assert.h>
#include <stdint.h>

/* Of the protocol, 7.42, which Debian 12's headers are too old to have: include/uapi/linux/fuse.h. */
enum ring_command_code { REGISTER = 1, COMMIT_AND_FETCH = 2 };

struct ring_header {
    char in_out[128]; /* a struct fuse_in_header, then a struct fuse_out_header */
    char op_in[128];  /* the request's struct fuse_..._in, if it has one */
    struct {
        uint64_t flags, commit_id;
        uint32_t payload_size, padding; /* the payload: the rest of the request; all of the answer */
        uint64_t reserved;
    } entry;
};
static_assert(sizeof(struct ring_header) == 288, "struct fuse_uring_req_header of the protocol");

struct ring_command {
    uint64_t flags, commit_id;
    uint16_t queue;
    uint8_t padding[6];
};
static_assert(sizeof(struct ring_command) == 24, "struct fuse_uring_cmd_req of the protocol");

#endif
