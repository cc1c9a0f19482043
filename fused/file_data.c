/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading and writing a file's bytes in the pool, copy on write. */
#include "fused/file_data.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    if (!data)
        return;
    for (struct extent *e = extent_map_at(&data->map, 0); e; e = extent_map_next(e))
        pool_put_file(data->pool, e->start, e->count);
    extent_map_clear(&data->map);
    free(data);
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
    const struct extent *e = extent_map_at(&data->map, block);
    uint64_t skip;

    if (!e || e->block > block)
        return (struct piece){PIECE_HOLE, e ? smaller(max, e->block - block) : max, {0, 0}};
    skip = block - e->block;
    return (struct piece){e->unwritten ? PIECE_UNWRITTEN : PIECE_WRITTEN, smaller(max, e->count - skip),
                          block_plus(e->start, skip)};
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

int data_alloc(struct file_data *data, uint64_t block, uint64_t want, uint32_t min, struct pool_block *ret_start,
               uint32_t *ret_count)
{
    struct extent *next = extent_map_at(&data->map, block);
    struct extent *before = next && next->block <= block ? next : NULL;
    struct pool_block goal = {0, 0};

    if (!before && block > 0) {
        struct extent *here = extent_map_at(&data->map, block - 1);

        before = here && here->block < block ? here : NULL;
    }
    if (before && before->block + before->count == block)
        goal = block_plus(before->start, before->count);
    return pool_alloc(data->pool, (uint32_t)smaller(want, UINT32_MAX), min, goal, block, ret_start, ret_count);
}

static void put_range(struct file_data *data, uint64_t block, uint64_t count)
{
    uint64_t end = block + count;

    for (struct extent *e = extent_map_at(&data->map, block); e && e->block < end; e = extent_map_next(e)) {
        uint64_t from = e->block > block ? e->block : block;
        uint64_t to = smaller(e->block + e->count, end);

        pool_put_file(data->pool, block_plus(e->start, from - e->block), (uint32_t)(to - from));
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
    if (count == 0)
        return 0;
    if (extent_map_reserve(&data->map))
        return -ENOMEM;
    put_range(data, block, count);
    extent_map_remove(&data->map, block, count);
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

int data_copy_blocks(struct file_data *data, uint64_t block, uint64_t count,
                     bool (*wanted)(const struct file_data *, struct pool_block, const void *), const void *arg)
{
    uint64_t end = block + count;

    while (block < end) {
        struct piece piece = piece_at(data, block, end - block);
        struct pool_block start;
        uint64_t run = 0;
        uint32_t got;
        int error;

        if (piece.kind == PIECE_WRITTEN)
            while (run < piece.count && wanted(data, block_plus(piece.start, run), arg))
                run++;
        if (run == 0) {
            /* Holes and unwritten runs are skipped whole; a written block that is not wanted, alone. */
            block += piece.kind == PIECE_WRITTEN ? 1 : piece.count;
            continue;
        }
        if (extent_map_reserve(&data->map))
            return -ENOMEM;
        error = data_alloc(data, block, run, 1, &start, &got);
        if (error)
            return error;
        memcpy(pool_address(data->pool, start), pool_address(data->pool, piece.start), (size_t)got << POOL_BLOCK_SHIFT);
        data_replace(data, block, start, got, false);
        block += got;
    }
    return 0;
}

/* ---- writing ---- */

static void put_bytes(void *to, const uint8_t *bytes, uint64_t length)
{
    if (bytes)
        memcpy(to, bytes, length);
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
    put_bytes(to + head, bytes, length);
    put_bytes(to + head + length, old ? old + head + length : NULL, tail);
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
    if (extent_map_reserve(&data->map))
        return -ENOMEM;
    if (piece.kind == PIECE_UNWRITTEN) {
        fill_new(data, piece.start, block, run, NULL, offset, bytes, length);
        extent_map_remove(&data->map, block, run);
        extent_map_insert(&data->map, block, piece.start, (uint32_t)run, false);
        return (int64_t)length;
    }
    error = data_alloc(data, block, run, 1, &start, &got);
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

int64_t file_data_write(struct file_data *data, uint64_t offset, const void *bytes, size_t length)
{
    int64_t done;

    if (length == 0)
        return 0;
    if (offset >= MAX_FILE_SIZE)
        return -EFBIG;
    done = data_store(data, offset, bytes, smaller(length, MAX_FILE_SIZE - offset));
    if (done > 0 && offset + (uint64_t)done > data->size)
        data->size = offset + (uint64_t)done;
    return done;
}

int file_data_overwrite(struct file_data *data, uint64_t offset, const void *bytes, size_t length)
{
    uint64_t end = offset + length, block;

    if (length == 0)
        return 0;
    if (offset >= MAX_FILE_SIZE || end > data->size)
        return -EAGAIN;
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
    const struct extent *e = extent_map_at(&data->map, block_of(offset));
    bool shared = false, held = false;

    if (!e)
        return false;
    for (uint32_t i = 0; i < e->count; i++) {
        shared |= pool_file_count(data->pool, block_plus(e->start, i)) > 1;
        held |= pool_hold_count(data->pool, block_plus(e->start, i)) > 0;
    }
    *ret_extent = (struct file_extent){.offset = e->block << POOL_BLOCK_SHIFT,
                                       .length = (uint64_t)e->count << POOL_BLOCK_SHIFT,
                                       .start = e->start,
                                       .unwritten = e->unwritten,
                                       .shared = shared,
                                       .held = held};
    return true;
}

static bool slack_is_zero(const struct file_data *data)
{
    uint64_t in_block = data->size & (POOL_BLOCK_SIZE - 1);
    struct piece piece = piece_at(data, block_of(data->size), 1);
    const uint8_t *bytes;

    if (!in_block || piece.kind != PIECE_WRITTEN || pool_hold_count(data->pool, piece.start))
        return true; /* a remote writer may have written there: set_size() clears it */
    bytes = pool_address(data->pool, piece.start);
    for (uint64_t i = in_block; i < POOL_BLOCK_SIZE; i++)
        if (bytes[i])
            return false;
    return true;
}

int file_data_check(const struct file_data *data)
{
    bool counted = true;

    for (struct extent *e = extent_map_at(&data->map, 0); e; e = extent_map_next(e))
        for (uint32_t i = 0; i < e->count; i++)
            counted = counted && pool_file_count(data->pool, block_plus(e->start, i)) > 0 &&
                      (!e->unwritten || pool_exclusive(data->pool, block_plus(e->start, i)));
    if (extent_map_valid(&data->map) && counted && slack_is_zero(data))
        return 0;
    fprintf(stderr, "leasefs: file data: %s\n",
            !counted              ? "a mapped block without its count, or an unwritten one that is shared"
            : slack_is_zero(data) ? "extents out of order"
                                  : "bytes behind the end of file are not zero");
    return -EUCLEAN;
}
