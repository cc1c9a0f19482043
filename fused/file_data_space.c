/* SPDX-License-Identifier: BSD-2-Clause */
/* The shape of a file: truncate, fallocate in its modes, clones. */
#include <errno.h>
#include <string.h>

#include "fused/file_data_private.h"

int file_data_truncate(struct file_data *data, uint64_t size)
{
    uint64_t in_block = size & (POOL_BLOCK_SIZE - 1);
    int error;

    if (size > MAX_FILE_SIZE)
        return -EFBIG;
    if (size <= data->size) { /* of the same size, too: blocks may be allocated behind it */
        /* First what may fail. A shared or held tail block is copied (detach), not zeroed in place. */
        if (extent_map_reserve(&data->map, 2))
            return -ENOMEM;
        error = in_block && size < data->size ? data_zero_written(data, size, POOL_BLOCK_SIZE - in_block) : 0;
        if (!error)
            error = data_drop(data, blocks_up(size), block_of(MAX_FILE_SIZE) - blocks_up(size));
        if (error)
            return error;
    }
    error = data_before_growth(data, size);
    if (!error)
        data->size = size;
    return error;
}

/* ---- allocate, unshare ---- */

static int allocate(struct file_data *data, uint64_t offset, uint64_t length, bool extend, enum plan_use use)
{
    struct data_plan plan;
    int error;

    if (length > MAX_FILE_SIZE || offset > MAX_FILE_SIZE - length)
        return -EFBIG;
    error = data_before_growth(data, extend ? offset + length : 0);
    if (!error)
        error = data_plan(data, blocks_of(offset, length), use, &plan);
    if (error)
        return error;
    data_plan_map(data, &plan, use);
    if (extend && offset + length > data->size)
        data->size = offset + length;
    return 0;
}

int file_data_allocate(struct file_data *data, uint64_t offset, uint64_t length, bool extend)
{
    return allocate(data, offset, length, extend, PLAN_HOLES);
}

int file_data_unshare(struct file_data *data, uint64_t offset, uint64_t length, bool extend)
{
    return allocate(data, offset, length, extend, PLAN_COPIES);
}

/* ---- zeros ---- */

/* Makes the partial blocks at the ends the file's alone, after which zeroing them cannot fail. */
static int own_ends(struct file_data *data, struct blocks b)
{
    int error = 0;

    if (b.first < b.first_whole)
        error = data_copy_blocks(data, b.first, 1, wanted_shared, NULL);
    if (!error && b.end_whole < b.end)
        error = data_copy_blocks(data, b.end_whole, 1, wanted_shared, NULL);
    return error;
}

static void zero_ends(struct file_data *data, uint64_t offset, uint64_t length, struct blocks b)
{
    uint64_t end = offset + length;

    if (b.first < b.first_whole) {
        uint64_t stop = smaller(end, b.first_whole << POOL_BLOCK_SHIFT);

        (void)data_zero_written(data, offset, stop - offset);
    }
    if (b.end_whole < b.end)
        (void)data_zero_written(data, b.end_whole << POOL_BLOCK_SHIFT, end - (b.end_whole << POOL_BLOCK_SHIFT));
}

int file_data_punch(struct file_data *data, uint64_t offset, uint64_t length)
{
    struct blocks b;
    int error;

    if (offset >= MAX_FILE_SIZE || length == 0)
        return 0;
    length = smaller(length, MAX_FILE_SIZE - offset);
    b = blocks_of(offset, length);
    error = own_ends(data, b);
    if (!error)
        error = data_drop(data, b.first_whole, b.end_whole - b.first_whole);
    if (!error)
        zero_ends(data, offset, length, b);
    return error;
}

/* Written blocks become unwritten in their place: all are the file's alone by now. */
static void make_unwritten(struct file_data *data, uint64_t block, uint64_t end)
{
    while (block < end) {
        struct piece piece = piece_at(data, block, smaller(end - block, UINT32_MAX));

        if (piece.kind == PIECE_WRITTEN && extent_map_reserve(&data->map, 1)) {
            memset(pool_address(data->pool, piece.start), 0, piece.count << POOL_BLOCK_SHIFT); /* the same, slower */
        } else if (piece.kind == PIECE_WRITTEN) {
            extent_map_remove(&data->map, block, piece.count);
            extent_map_insert(&data->map, block, piece.start, (uint32_t)piece.count, true);
        }
        block += piece.count;
    }
}

int file_data_zero(struct file_data *data, uint64_t offset, uint64_t length, bool extend)
{
    struct blocks b;
    struct data_plan plan;
    int error;

    if (length > MAX_FILE_SIZE || offset > MAX_FILE_SIZE - length)
        return -EFBIG;
    if (length == 0)
        return 0;
    b = blocks_of(offset, length);
    error = data_before_growth(data, extend ? offset + length : 0);
    if (!error)
        error = own_ends(data, b);
    if (!error)
        error = data_plan(data, b, PLAN_ZEROS, &plan);
    if (error)
        return error;
    data_plan_map(data, &plan, PLAN_ZEROS);
    make_unwritten(data, b.first_whole, b.end_whole);
    zero_ends(data, offset, length, b);
    if (extend && offset + length > data->size)
        data->size = offset + length;
    return 0;
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
        error = extent_map_reserve(&data->map, 2);
    if (!error)
        error = data_drop(data, block_of(offset), block_of(length));
    if (error)
        return error;
    extent_map_shift(&data->map, block_of(offset + length), -(int64_t)block_of(length));
    data->size -= length;
    return 0;
}

int file_data_insert(struct file_data *data, uint64_t offset, uint64_t length)
{
    struct extent last;
    int error;

    if (!whole_blocks(offset, length) || offset >= data->size)
        return -EINVAL;
    if (length > MAX_FILE_SIZE - data->size)
        return -EFBIG;
    /* Blocks may be allocated behind the end of file. */
    if (extent_map_before(&data->map, UINT64_MAX, &last) &&
        extent_end(&last) > block_of(MAX_FILE_SIZE) - block_of(length))
        return -EFBIG;
    error = let_go_from(data, block_of(offset));
    if (!error)
        error = extent_map_reserve(&data->map, 1);
    if (error)
        return error;
    extent_map_shift(&data->map, block_of(offset), (int64_t)block_of(length));
    data->size += length;
    return 0;
}

/* ---- clones ---- */

/* Shares the whole blocks of a piece of src that no exposure holds. Blocks done; 0: the first is to be copied. */
static int64_t share_blocks(const struct file_data *src, struct file_data *dst, const struct piece *piece,
                            uint64_t dst_block)
{
    uint64_t count = 0, holes;
    int error;

    while (count < piece->count && count < UINT32_MAX && !wanted_held(src, block_plus(piece->start, count), NULL))
        count++;
    if (count == 0)
        return 0;
    if (extent_map_reserve(&dst->map, 1))
        return -ENOMEM;
    holes = data_holes(dst, dst_block, count);
    if (!space_account_take(dst->account, holes))
        return -EDQUOT;
    error = pool_get_file(dst->pool, piece->start, (uint32_t)count);
    if (error) { /* a count is full */
        space_account_give(dst->account, holes);
        return 0;
    }
    data_replace(dst, dst_block, piece->start, (uint32_t)count, false);
    return (int64_t)count;
}

/* The first piece of the rest. Bytes done, or an errno. */
static int64_t clone_piece(const struct file_data *src, uint64_t from, struct file_data *dst, uint64_t to,
                           uint64_t length)
{
    uint64_t in_block = from & (POOL_BLOCK_SIZE - 1), to_in_block = to & (POOL_BLOCK_SIZE - 1);
    uint64_t block = block_of(from);
    struct piece piece = piece_at(src, block, blocks_up(from + length) - block);
    uint64_t bytes = smaller(length, (piece.count << POOL_BLOCK_SHIFT) - in_block);
    /* The source's last block is zero behind its end, so it may be shared whole if it is dst's last, too. */
    bool to_end = from + length == src->size && to + length >= dst->size;

    if (piece.kind != PIECE_WRITTEN) {
        int error = file_data_punch(dst, to, bytes);

        return error ? error : (int64_t)bytes;
    }
    if (!in_block && !to_in_block) {
        int64_t shared;

        if (!to_end)
            piece.count = block_of(bytes);
        shared = piece.count ? share_blocks(src, dst, &piece, block_of(to)) : 0;
        if (shared)
            return shared < 0 ? shared : (int64_t)smaller(bytes, (uint64_t)shared << POOL_BLOCK_SHIFT);
    }
    if (in_block == to_in_block) /* up to the next block, which may be shared */
        bytes = smaller(bytes, POOL_BLOCK_SIZE - in_block);
    else if (src == dst) /* one block at a time: what it replaces may be what the rest is copied from */
        bytes = smaller(bytes, POOL_BLOCK_SIZE - to_in_block);
    return data_store(dst, to, (const uint8_t *)pool_address(src->pool, piece.start) + in_block, bytes);
}

int64_t file_data_clone(const struct file_data *src, uint64_t src_offset, struct file_data *dst, uint64_t dst_offset,
                        uint64_t length)
{
    uint64_t done = 0;
    int64_t piece = 0;

    if (dst_offset > MAX_FILE_SIZE || length > MAX_FILE_SIZE - dst_offset)
        return -EFBIG;
    piece = data_before_growth(dst, length ? dst_offset + length : 0);
    if (piece)
        return piece;
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
