/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading and writing a file's bytes in the pool, copy on write. */
#include "fused/file_data.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fused/bulk_copy.h"
#include "fused/file_data_private.h"

int file_data_new(struct pool *pool, struct file_data **ret_data)
{
    struct file_data *data = calloc(1, sizeof(*data));

    if (!data)
        return -ENOMEM;
    data->pool = pool;
    extent_map_init(&data->map);
    *ret_data = data;
    return 0;
}

void file_data_free(struct file_data *data)
{
    struct extent e;

    if (!data)
        return;
    for (uint64_t at = 0; extent_map_at(&data->map, at, &e); at = extent_end(&e))
        pool_put_file(data->pool, e.start, e.count);
    space_account_give(data->account, data->map.blocks);
    extent_map_clear(&data->map);
    free(data);
}

int file_data_charge(struct file_data *data, struct space_account *account)
{
    if (account == data->account)
        return 0;
    if (!space_account_take(account, data->map.blocks))
        return -EDQUOT;
    space_account_give(data->account, data->map.blocks);
    data->account = account;
    return 0;
}

int file_data_charge_instead(struct file_data *data, struct file_data *old)
{
    if (!space_account_exchange(old->account, data->map.blocks, old->map.blocks))
        return -EDQUOT;
    data->account = old->account;
    old->account = NULL;
    return 0;
}

uint64_t file_data_size(const struct file_data *data)
{
    return data->size;
}

uint64_t file_data_blocks(const struct file_data *data)
{
    return data->map.blocks;
}

/* ---- pieces ---- */

struct piece piece_at(const struct file_data *data, uint64_t block, uint64_t max)
{
    struct extent e;
    uint64_t skip;

    if (!extent_map_at(&data->map, block, &e))
        return (struct piece){PIECE_HOLE, max, {0, 0}};
    if (e.block > block)
        return (struct piece){PIECE_HOLE, smaller(max, e.block - block), {0, 0}};
    skip = block - e.block;
    return (struct piece){e.unwritten ? PIECE_UNWRITTEN : PIECE_WRITTEN, smaller(max, e.count - skip),
                          block_plus(e.start, skip)};
}

uint64_t data_holes(const struct file_data *data, uint64_t block, uint64_t count)
{
    uint64_t holes = 0, end = data->account ? block + count : block;

    while (block < end) {
        struct piece piece = piece_at(data, block, end - block);

        holes += piece.kind == PIECE_HOLE ? piece.count : 0;
        block += piece.count;
    }
    return holes;
}

uint64_t piece_alike(const struct file_data *data, const struct piece *piece, bool *ret_exclusive)
{
    bool exclusive = pool_exclusive(data->pool, piece->start);
    uint64_t count = 1;

    while (count < piece->count && pool_exclusive(data->pool, block_plus(piece->start, count)) == exclusive)
        count++;
    *ret_exclusive = exclusive;
    return count;
}

/* ---- blocks ---- */

struct blocks blocks_of(uint64_t offset, uint64_t length)
{
    struct blocks b = {block_of(offset), blocks_up(offset + length), blocks_up(offset), block_of(offset + length)};

    if (b.end_whole < b.first_whole) /* inside one block */
        b.end_whole = b.first_whole;
    return b;
}

int data_alloc(struct file_data *data, uint64_t block, uint64_t want, uint32_t min, struct pool_block *ret_start,
               uint32_t *ret_count)
{
    struct pool_block goal = {0, 0};
    struct extent before;

    if (extent_map_before(&data->map, block, &before) && extent_end(&before) == block)
        goal = block_plus(before.start, before.count);
    return pool_alloc(data->pool, (uint32_t)smaller(want, UINT32_MAX), min, goal, block, ret_start, ret_count);
}

static void put_range(struct file_data *data, uint64_t block, uint64_t count)
{
    uint64_t end = block + count;
    struct extent e;

    for (uint64_t at = block; at < end && extent_map_at(&data->map, at, &e) && e.block < end; at = extent_end(&e)) {
        uint64_t from = e.block > block ? e.block : block;
        uint64_t to = smaller(extent_end(&e), end);

        pool_put_file(data->pool, block_plus(e.start, from - e.block), (uint32_t)(to - from));
    }
}

void data_replace(struct file_data *data, uint64_t block, struct pool_block start, uint32_t count, bool unwritten)
{
    put_range(data, block, count);
    extent_map_remove(&data->map, block, count);
    extent_map_insert(&data->map, block, start, count, unwritten);
}

int data_drop(struct file_data *data, uint64_t block, uint64_t count)
{
    uint64_t before = data->map.blocks;

    if (count == 0)
        return 0;
    if (extent_map_reserve(&data->map, 1))
        return -ENOMEM;
    put_range(data, block, count);
    extent_map_remove(&data->map, block, count);
    space_account_give(data->account, before - data->map.blocks);
    return 0;
}

bool wanted_shared(const struct file_data *data, struct pool_block block, const void *unused)
{
    (void)unused;
    return !pool_exclusive(data->pool, block);
}

bool wanted_held(const struct file_data *data, struct pool_block block, const void *unused)
{
    (void)unused;
    return pool_hold_count(data->pool, block) > 0;
}

/* Of a copy of [block, block + count): a remote writer may have written behind the end of file. */
static void clear_slack(const struct file_data *data, struct pool_block start, uint64_t block, uint64_t count)
{
    uint64_t used = data->size & (POOL_BLOCK_SIZE - 1), last = block_of(data->size);

    if (used && last >= block && last - block < count)
        memset((uint8_t *)pool_address(data->pool, block_plus(start, last - block)) + used, 0, POOL_BLOCK_SIZE - used);
}

void data_copy_to(const struct file_data *data, uint64_t block, struct pool_block from, struct pool_block to,
                  uint64_t count)
{
    bulk_copy_in(pool_address(data->pool, to), pool_address(data->pool, from), count << POOL_BLOCK_SHIFT);
    clear_slack(data, to, block, count);
}

int data_copy_blocks(struct file_data *data, uint64_t block, uint64_t count,
                     bool (*wanted)(const struct file_data *, struct pool_block, const void *), const void *arg)
{
    uint64_t end = block + count;

    while (block < end) {
        struct piece piece = piece_at(data, block, end - block);
        struct pool_block start;
        bool copy = piece.kind == PIECE_WRITTEN && wanted(data, piece.start, arg);
        uint64_t run = 1;
        uint32_t got;
        int error;

        if (piece.kind != PIECE_WRITTEN)
            run = piece.count;
        while (run < piece.count && wanted(data, block_plus(piece.start, run), arg) == copy)
            run++;
        if (!copy) {
            block += run;
            continue;
        }
        if (extent_map_reserve(&data->map, 1))
            return -ENOMEM;
        error = data_alloc(data, block, run, 1, &start, &got);
        if (error)
            return error;
        data_copy_to(data, block, piece.start, start, got);
        data_replace(data, block, start, got, false);
        block += got;
    }
    return 0;
}

/* ---- writing ---- */

static void put_bytes(void *to, const uint8_t *bytes, uint64_t length)
{
    if (bytes)
        bulk_copy_in(to, bytes, length);
    else
        memset(to, 0, length);
}

/* Fills a run of `count` blocks, new to the file, for a store of [offset, offset + length) that lies inside it. `old`
 * holds the bytes around it, or is NULL for zeros. */
static void fill_new(struct file_data *data, struct pool_block start, uint64_t block, uint64_t count,
                     const uint8_t *old, uint64_t offset, const uint8_t *bytes, uint64_t length)
{
    uint8_t *to = pool_address(data->pool, start);
    uint64_t head = offset - (block << POOL_BLOCK_SHIFT);
    uint64_t tail = (count << POOL_BLOCK_SHIFT) - head - length;

    put_bytes(to, old, head);
    put_bytes(to + head + length, old ? old + head + length : NULL, tail);
    if (old)
        clear_slack(data, start, block, count);
    put_bytes(to + head, bytes, length);
}

/* Stores into the first piece at offset. Bytes done, at least one, or an errno. */
static int64_t store_piece(struct file_data *data, uint64_t offset, const uint8_t *bytes, uint64_t length)
{
    uint64_t block = block_of(offset), wanted = blocks_up(offset + length) - block, run;
    struct piece piece = piece_at(data, block, wanted);
    bool exclusive = false;
    struct pool_block start;
    uint32_t got;
    int error;

    run = piece.kind == PIECE_WRITTEN ? piece_alike(data, &piece, &exclusive) : piece.count;
    length = smaller(length, ((block + run) << POOL_BLOCK_SHIFT) - offset);
    if (exclusive) {
        uint8_t *to = pool_address(data->pool, piece.start);

        put_bytes(to + (offset & (POOL_BLOCK_SIZE - 1)), bytes, length);
        return (int64_t)length;
    }
    if (extent_map_reserve(&data->map, 1))
        return -ENOMEM;
    if (piece.kind == PIECE_HOLE) {
        run = space_account_take_some(data->account, run);
        if (!run)
            return -EDQUOT;
    }
    if (piece.kind == PIECE_UNWRITTEN) {
        fill_new(data, piece.start, block, run, NULL, offset, bytes, length);
        extent_map_remove(&data->map, block, run);
        extent_map_insert(&data->map, block, piece.start, (uint32_t)run, false);
        return (int64_t)length;
    }
    error = data_alloc(data, block, run, 1, &start, &got);
    if (piece.kind == PIECE_HOLE)
        space_account_give(data->account, error ? run : run - got);
    if (error)
        return error;
    length = smaller(length, ((block + got) << POOL_BLOCK_SHIFT) - offset);
    fill_new(data, start, block, got, piece.kind == PIECE_WRITTEN ? pool_address(data->pool, piece.start) : NULL,
             offset, bytes, length);
    data_replace(data, block, start, got, false); /* only now: `bytes` may lie in the old blocks */
    return (int64_t)length;
}

int64_t data_store(struct file_data *data, uint64_t offset, const void *bytes, uint64_t length)
{
    uint64_t done = 0;

    while (done < length) {
        int64_t stored = store_piece(data, offset + done, bytes ? (const uint8_t *)bytes + done : NULL, length - done);

        if (stored < 0)
            return done ? (int64_t)done : stored;
        done += (uint64_t)stored;
    }
    return (int64_t)done;
}

static bool all_zero(const uint8_t *bytes, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++)
        if (bytes[i])
            return false;
    return true;
}

/* Are the bytes between the size and the end of its block zero? */
static bool slack_is_zero(const struct file_data *data)
{
    uint64_t used = data->size & (POOL_BLOCK_SIZE - 1);
    struct piece piece = piece_at(data, block_of(data->size), 1);

    return !used || piece.kind != PIECE_WRITTEN ||
           all_zero((uint8_t *)pool_address(data->pool, piece.start) + used, POOL_BLOCK_SIZE - used);
}

/* Only a remote writer may have written there, so the block is held, and the file gets a copy. */
int data_before_growth(struct file_data *data, uint64_t end)
{
    uint64_t used = data->size & (POOL_BLOCK_SIZE - 1);

    if (end <= data->size || !used || slack_is_zero(data))
        return 0;
    return data_zero_written(data, data->size, POOL_BLOCK_SIZE - used);
}

int64_t file_data_write(struct file_data *data, uint64_t offset, const void *bytes, size_t length)
{
    int64_t done;

    if (length == 0)
        return 0;
    if (offset >= MAX_FILE_SIZE)
        return -EFBIG;
    length = smaller(length, MAX_FILE_SIZE - offset);
    done = data_before_growth(data, offset + length);
    if (done)
        return done;
    done = data_store(data, offset, bytes, length);
    if (done > 0 && offset + (uint64_t)done > data->size)
        data->size = offset + (uint64_t)done;
    return done;
}

int file_data_overwrite(struct file_data *data, uint64_t offset, const void *bytes, size_t length)
{
    uint64_t end, block;

    if (length == 0)
        return 0;
    if (offset >= data->size || length > data->size - offset)
        return -EAGAIN;
    end = offset + length;
    for (block = block_of(offset); block < blocks_up(end);) {
        struct piece piece = piece_at(data, block, blocks_up(end) - block);
        bool exclusive = false;

        if (piece.kind != PIECE_WRITTEN || piece_alike(data, &piece, &exclusive) != piece.count || !exclusive)
            return -EAGAIN;
        block += piece.count;
    }
    return data_store(data, offset, bytes, length) == (int64_t)length ? 0 : -EAGAIN;
}

int data_zero_written(struct file_data *data, uint64_t offset, uint64_t length)
{
    uint64_t end = offset + length;

    while (offset < end) {
        uint64_t block = block_of(offset);
        struct piece piece = piece_at(data, block, blocks_up(end) - block);
        uint64_t stop = smaller(end, (block + piece.count) << POOL_BLOCK_SHIFT);

        if (piece.kind == PIECE_WRITTEN) {
            int64_t done = data_store(data, offset, NULL, stop - offset);

            if (done < 0)
                return (int)done;
            stop = offset + (uint64_t)done;
        }
        offset = stop;
    }
    return 0;
}

/* ---- reading ---- */

void file_data_read(const struct file_data *data, uint64_t offset, size_t length, struct iovec *iov, int max_iov,
                    int *ret_iov, size_t *ret_bytes)
{
    static const uint8_t zeros[1u << 20];
    uint64_t end = offset >= data->size ? offset : offset + smaller(length, data->size - offset), at = offset;
    int n = 0;

    while (at < end && n < max_iov) {
        uint64_t block = block_of(at), in_block = at & (POOL_BLOCK_SIZE - 1);
        struct piece piece = piece_at(data, block, blocks_up(end) - block);
        uint64_t bytes = smaller(end - at, (piece.count << POOL_BLOCK_SHIFT) - in_block);

        if (piece.kind == PIECE_WRITTEN) {
            iov[n++] = (struct iovec){(uint8_t *)pool_address(data->pool, piece.start) + in_block, bytes};
        } else {
            bytes = smaller(bytes, sizeof(zeros));
            iov[n++] = (struct iovec){(void *)zeros, bytes};
        }
        at += bytes;
    }
    *ret_iov = n;
    *ret_bytes = at - offset;
}

int64_t file_data_seek(const struct file_data *data, uint64_t offset, int whence)
{
    uint64_t blocks = blocks_up(data->size), block = block_of(offset);

    if (offset >= data->size)
        return -ENXIO;
    while (block < blocks) {
        struct piece piece = piece_at(data, block, blocks - block);

        if ((piece.kind == PIECE_WRITTEN) == (whence == SEEK_DATA)) {
            uint64_t found = block << POOL_BLOCK_SHIFT;

            return (int64_t)(found > offset ? found : offset);
        }
        block += piece.count;
    }
    return whence == SEEK_DATA ? -ENXIO : (int64_t)data->size;
}

bool file_data_next_extent(const struct file_data *data, uint64_t offset, struct file_extent *ret_extent)
{
    bool shared = false, held = false;
    struct extent e;

    if (!extent_map_at(&data->map, block_of(offset), &e))
        return false;
    for (uint32_t i = 0; i < e.count; i++) {
        shared |= pool_file_count(data->pool, block_plus(e.start, i)) > 1;
        held |= pool_hold_count(data->pool, block_plus(e.start, i)) > 0;
    }
    *ret_extent = (struct file_extent){.offset = e.block << POOL_BLOCK_SHIFT,
                                       .length = (uint64_t)e.count << POOL_BLOCK_SHIFT,
                                       .start = e.start,
                                       .unwritten = e.unwritten,
                                       .shared = shared,
                                       .held = held};
    return true;
}

int file_data_check(const struct file_data *data)
{
    struct piece tail = piece_at(data, block_of(data->size), 1);
    const char *wrong = NULL;
    struct extent e;

    for (uint64_t at = 0; !wrong && extent_map_at(&data->map, at, &e); at = extent_end(&e))
        for (uint32_t i = 0; i < e.count; i++)
            if (pool_file_count(data->pool, block_plus(e.start, i)) == 0)
                wrong = "a mapped block without its count";
            else if (e.unwritten && !pool_exclusive(data->pool, block_plus(e.start, i)))
                wrong = "an unwritten block that is shared or held";
    if (!extent_map_valid(&data->map))
        wrong = "extents out of order";
    /* Under a hold a remote writer may have written there. */
    if (!slack_is_zero(data) && !pool_hold_count(data->pool, tail.start))
        wrong = "bytes behind the end of file are not zero";
    if (!wrong)
        return 0;
    fprintf(stderr, "leasefs: file data: %s\n", wrong);
    return -EUCLEAN;
}
