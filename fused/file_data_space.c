/* SPDX-License-Identifier: BSD-2-Clause */
/* The shape of a file: truncate, fallocate in its modes, clones. */
#include <errno.h>
#include <stdlib.h>

#include "fused/file_data_private.h"

int file_data_truncate(struct file_data *data, uint64_t size)
{
    uint64_t in_block = size & (POOL_BLOCK_SIZE - 1);
    int error;

    if (size > MAX_FILE_SIZE)
        return -EFBIG;
    if (size < data->size) {
        /* First what may fail. A shared or held tail block is copied (detach), not zeroed in place. */
        if (extent_map_reserve(&data->map))
            return -ENOMEM;
        error = in_block ? data_zero_written(data, size, POOL_BLOCK_SIZE - in_block) : 0;
        if (!error)
            error = data_drop(data, blocks_up(size), block_of(MAX_FILE_SIZE) - blocks_up(size));
        if (error)
            return error;
    }
    data->size = size;
    return 0;
}

struct filled {
    uint64_t block;
    uint32_t count;
};

int file_data_allocate(struct file_data *data, uint64_t offset, uint64_t length, bool extend)
{
    uint64_t block = block_of(offset), end = blocks_up(offset + length);
    struct filled *filled = NULL;
    size_t n = 0;
    int error = 0;

    if (length > MAX_FILE_SIZE || offset > MAX_FILE_SIZE - length)
        return -EFBIG;
    while (block < end) {
        struct piece piece = piece_at(data, block, end - block);
        struct filled *more;
        struct pool_block start;
        uint32_t got;

        if (piece.kind != PIECE_HOLE) {
            block += piece.count;
            continue;
        }
        more = realloc(filled, (n + 1) * sizeof(*filled));
        if (!more || extent_map_reserve(&data->map)) {
            filled = more ? more : filled;
            error = -ENOMEM;
            break;
        }
        filled = more;
        error = data_alloc(data, block, piece.count, 1, &start, &got);
        if (error)
            break;
        extent_map_insert(&data->map, block, start, got, true);
        filled[n++] = (struct filled){block, got};
        block += got;
    }
    while (error && n > 0) { /* what was a hole is one again */
        n--;
        if (data_drop(data, filled[n].block, filled[n].count))
            break; /* out of memory for the map, too: it stays allocated, which reads the same */
    }
    free(filled);
    if (!error && extend && offset + length > data->size)
        data->size = offset + length;
    return error;
}

/* Zeroes the partial blocks at the ends of a range and returns the whole blocks between. */
static int zero_ends(struct file_data *data, uint64_t offset, uint64_t length, uint64_t *ret_block, uint64_t *ret_count)
{
    uint64_t end = offset + length, first = blocks_up(offset), last = block_of(end);
    int error;

    if (first > last) /* inside one block */
        first = last;
    if (block_of(offset) == block_of(end)) {
        *ret_block = *ret_count = 0;
        return data_zero_written(data, offset, length);
    }
    error = data_zero_written(data, offset, (first << POOL_BLOCK_SHIFT) - offset);
    if (!error)
        error = data_zero_written(data, last << POOL_BLOCK_SHIFT, end - (last << POOL_BLOCK_SHIFT));
    *ret_block = first;
    *ret_count = last - first;
    return error;
}

int file_data_punch(struct file_data *data, uint64_t offset, uint64_t length)
{
    uint64_t block, count;
    int error;

    if (offset >= MAX_FILE_SIZE || length == 0)
        return 0;
    length = smaller(length, MAX_FILE_SIZE - offset);
    error = zero_ends(data, offset, length, &block, &count);
    return error ? error : data_drop(data, block, count);
}

/* Whole blocks become unwritten: those that are the file's alone keep their place, others are given up. */
static int make_unwritten(struct file_data *data, uint64_t block, uint64_t count)
{
    uint64_t end = block + count;

    while (block < end) {
        struct piece piece = piece_at(data, block, end - block);
        bool exclusive;
        uint64_t run;
        int error;

        if (piece.kind != PIECE_WRITTEN) {
            block += piece.count;
            continue;
        }
        run = piece_alike(data, &piece, &exclusive);
        if (extent_map_reserve(&data->map))
            return -ENOMEM;
        if (exclusive) {
            extent_map_remove(&data->map, block, run);
            extent_map_insert(&data->map, block, piece.start, (uint32_t)run, true);
        } else {
            error = data_drop(data, block, run);
            if (error)
                return error;
        }
        block += run;
    }
    return 0;
}

int file_data_zero(struct file_data *data, uint64_t offset, uint64_t length, bool extend)
{
    uint64_t block, count;
    int error;

    if (length > MAX_FILE_SIZE || offset > MAX_FILE_SIZE - length)
        return -EFBIG;
    if (length == 0)
        return 0;
    error = zero_ends(data, offset, length, &block, &count);
    if (!error)
        error = make_unwritten(data, block, count);
    if (!error)
        error = file_data_allocate(data, offset, length, extend);
    return error;
}

int file_data_unshare(struct file_data *data, uint64_t offset, uint64_t length)
{
    if (offset >= data->size)
        return 0;
    length = smaller(length, data->size - offset);
    return data_copy_blocks(data, block_of(offset), blocks_up(offset + length) - block_of(offset), wanted_shared, NULL);
}

static bool whole_blocks(uint64_t offset, uint64_t length)
{
    return length && !((offset | length) & (POOL_BLOCK_SIZE - 1));
}

/* Blocks that move to another place in the file and are held must not move with their hold: a remote writer that is
 * not fenced yet would write to the wrong place. The file gets copies. */
static int let_go_from(struct file_data *data, uint64_t block)
{
    return data_copy_blocks(data, block, block_of(MAX_FILE_SIZE) - block, wanted_held, NULL);
}

int file_data_collapse(struct file_data *data, uint64_t offset, uint64_t length)
{
    int error;

    if (!whole_blocks(offset, length) || length >= data->size || offset >= data->size - length)
        return -EINVAL;
    error = let_go_from(data, block_of(offset + length));
    if (!error)
        error = data_drop(data, block_of(offset), block_of(length));
    if (!error && extent_map_reserve(&data->map))
        error = -ENOMEM;
    if (error)
        return error;
    extent_map_shift(&data->map, block_of(offset + length), -(int64_t)block_of(length));
    data->size -= length;
    return 0;
}

int file_data_insert(struct file_data *data, uint64_t offset, uint64_t length)
{
    int error;

    if (!whole_blocks(offset, length) || offset >= data->size)
        return -EINVAL;
    if (length > MAX_FILE_SIZE - data->size)
        return -EFBIG;
    error = let_go_from(data, block_of(offset));
    if (!error && extent_map_reserve(&data->map))
        error = -ENOMEM;
    if (error)
        return error;
    extent_map_shift(&data->map, block_of(offset), (int64_t)block_of(length));
    data->size += length;
    return 0;
}

/* ---- clones ---- */

/* Shares the whole blocks of a piece of src that no exposure holds. Blocks done; 0: the first is held. */
static int64_t share_blocks(const struct file_data *src, struct file_data *dst, const struct piece *piece,
                            uint64_t dst_block)
{
    uint64_t count = 0;
    int error;

    while (count < piece->count && count < UINT32_MAX && !wanted_held(src, block_plus(piece->start, count), NULL))
        count++;
    if (count == 0)
        return 0;
    if (extent_map_reserve(&dst->map))
        return -ENOMEM;
    error = pool_get_file(dst->pool, piece->start, (uint32_t)count);
    if (error)
        return error;
    data_replace(dst, dst_block, piece->start, (uint32_t)count, false);
    return (int64_t)count;
}

/* The first piece of the rest. Bytes done, or an errno. */
static int64_t clone_piece(const struct file_data *src, uint64_t from, struct file_data *dst, uint64_t to,
                           uint64_t length)
{
    uint64_t in_block = from & (POOL_BLOCK_SIZE - 1), block = block_of(from);
    struct piece piece = piece_at(src, block, blocks_up(from + length) - block);
    uint64_t bytes = smaller(length, (piece.count << POOL_BLOCK_SHIFT) - in_block);
    /* The source's last block is zero behind its end, so it may be shared whole if it is dst's last, too. */
    bool to_end = from + length == src->size && to + length >= dst->size;

    if (piece.kind != PIECE_WRITTEN) {
        int error = file_data_punch(dst, to, bytes);

        return error ? error : (int64_t)bytes;
    }
    if (!in_block && !(to & (POOL_BLOCK_SIZE - 1))) {
        int64_t shared;

        if (!to_end)
            piece.count = block_of(bytes);
        shared = piece.count ? share_blocks(src, dst, &piece, block_of(to)) : 0;
        if (shared)
            return shared < 0 ? shared : (int64_t)smaller(bytes, (uint64_t)shared << POOL_BLOCK_SHIFT);
        bytes = smaller(bytes, POOL_BLOCK_SIZE);
    }
    return data_store(dst, to, (const uint8_t *)pool_address(src->pool, piece.start) + in_block, bytes);
}

int64_t file_data_clone(const struct file_data *src, uint64_t src_offset, struct file_data *dst, uint64_t dst_offset,
                        uint64_t length)
{
    uint64_t done = 0;
    int64_t piece = 0;

    if (dst_offset > MAX_FILE_SIZE || length > MAX_FILE_SIZE - dst_offset)
        return -EFBIG;
    while (done < length) {
        piece = clone_piece(src, src_offset + done, dst, dst_offset + done, length - done);
        if (piece < 0)
            break;
        done += (uint64_t)piece;
    }
    if (done && dst_offset + done > dst->size)
        dst->size = dst_offset + done;
    return done || piece >= 0 ? (int64_t)done : piece;
}
