/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/fuse_ring_entry.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fused/bulk_copy.h"

#define HEADER_ROOM 4096u

struct ring_entry *ring_entry_new(size_t room, uint16_t queue)
{
    struct ring_entry *entry = calloc(1, sizeof(*entry));
    char *memory;

    if (!entry)
        return NULL;
    memory = mmap(NULL, HEADER_ROOM + room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        free(entry);
        return NULL;
    }
    entry->queue = queue;
    entry->header = (struct ring_header *)memory;
    entry->payload = memory + HEADER_ROOM;
    entry->room = room;
    entry->parts[0] = (struct iovec){entry->header, sizeof(*entry->header)};
    entry->parts[1] = (struct iovec){entry->payload, room};
    return entry;
}

void ring_entry_free(struct ring_entry *entry)
{
    munmap(entry->header, HEADER_ROOM + entry->room);
    free(entry);
}

char *ring_entry_request(struct ring_entry *entry, size_t *ret_size)
{
    const struct ring_header *header = entry->header;
    const struct fuse_in_header *in = (const struct fuse_in_header *)header->in_out;
    size_t payload = header->entry.payload_size, fixed;
    char *request;

    if (payload > entry->room || in->len < sizeof(*in) + payload)
        return NULL;
    fixed = in->len - sizeof(*in) - payload;
    if (fixed > sizeof(header->op_in))
        return NULL;
    request = entry->payload - fixed - sizeof(*in);
    memcpy(request, in, sizeof(*in));
    memcpy(request + sizeof(*in), header->op_in, fixed);
    *ret_size = in->len;
    return request;
}

void ring_entry_answer(struct ring_entry *entry, const struct iovec *iov, int count)
{
    struct fuse_out_header *out = (struct fuse_out_header *)entry->header->in_out;
    size_t size = 0;

    memcpy(out, iov[0].iov_base, sizeof(*out));
    for (int i = 1; i < count; i++) {
        if (iov[i].iov_len > entry->room - size) {
            out->error = -EIO;
            size = 0;
            break;
        }
        if (iov[i].iov_len > 0)
            bulk_copy_out(entry->payload + size, iov[i].iov_base, iov[i].iov_len);
        size += iov[i].iov_len;
    }
    entry->header->entry.payload_size = (uint32_t)size;
}

void ring_entry_shrink(struct ring_entry *entry)
{
    madvise(entry->payload + RING_ENTRY_KEPT, entry->room - RING_ENTRY_KEPT, MADV_DONTNEED);
}
