/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: model */
/* Files' bytes under random operations, against the model of file_model.h: with space to spare, short of space, and
 * with a malloc() that fails now and then. */
#include "fused/file_data_private.h"
#include "tests/unit/failing_malloc.h"
#include "tests/unit/file_model.h"

/* An operation, what it should do, and whether memory ran out. */
struct step {
    struct model *m;
    struct model_file *f;
    struct forecast fc;
    struct block_view *view; /* the forecast's of f */
    uint64_t offset, length;
    bool flag;
    bool faults; /* may malloc() fail? */
};

static int64_t expect(const struct step *s, int64_t result, int64_t wanted)
{
    /* Short of memory, anything up to the forecast is right that changed nothing more than it said. */
    if (failing_malloc_has_failed()) {
        assert_true(result == -ENOMEM || result <= wanted);
        return result;
    }
    assert_int_equal(result, wanted);
    assert_int_equal(pool_free_blocks(s->m->pool), s->fc.n_free);
    return result;
}

/* The map's kinds where more than one is right: the bytes have been compared. */
static void accept_kinds(struct model_file *f)
{
    for (unsigned b = 0; b < FILE_BLOCKS; b++)
        f->kinds[b] = view_of(f, b).kind;
}

static void random_range(struct step *s)
{
    struct dice *dice = &s->m->dice;

    s->offset = dice_below(dice, FILE_BYTES - 1);
    s->length = 1 + dice_below(dice, dice_below(dice, 3) ? 3 * BLOCK : FILE_BYTES);
    if (dice_below(dice, 3) == 0) {
        s->offset &= ~(BLOCK - 1);
        s->length = (s->length + BLOCK - 1) & ~(BLOCK - 1);
    }
    if (dice_below(dice, 5) == 0) /* at the end of file */
        s->offset = s->f->size < FILE_BYTES ? s->f->size : 0;
    s->length = smaller(s->length, FILE_BYTES - s->offset);
}

static void set_kinds(struct model_file *f, uint64_t first, uint64_t end, enum piece_kind kind)
{
    for (uint64_t b = first; b < end; b++)
        f->kinds[b] = kind;
}

static void grow(struct model_file *f, uint64_t end)
{
    f->size = end > f->size ? end : f->size;
}

static void random_bytes(struct dice *dice, uint8_t *bytes, uint64_t length)
{
    uint8_t seed = (uint8_t)dice_roll(dice);

    for (uint64_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(seed + i * 13 + (i >> 8) * 7);
}

/* ---- operations ---- */

static uint8_t scratch[FILE_BYTES];

static void op_write(struct step *s)
{
    struct blocks b = blocks_of(s->offset, s->length);
    uint64_t block = b.first, done = 0;
    int64_t result;

    if (grow_to(&s->fc, s->m, s->f, s->offset + s->length)) {
        while (block < b.end && store_block(&s->fc, &s->view[block]))
            block++;
        done = smaller(s->offset + s->length, block * BLOCK);
        done = done > s->offset ? done - s->offset : 0;
    }
    random_bytes(&s->m->dice, scratch, s->length);
    result = expect(s, file_data_write(s->f->data, s->offset, scratch, s->length), done ? (int64_t)done : -ENOSPC);
    if (result <= 0)
        return;
    memcpy(s->f->bytes + s->offset, scratch, (size_t)result);
    set_kinds(s->f, b.first, blocks_up(s->offset + (uint64_t)result), PIECE_WRITTEN);
    grow(s->f, s->offset + (uint64_t)result);
}

static void op_overwrite(struct step *s)
{
    struct blocks b = blocks_of(s->offset, s->length);
    bool can = s->offset + s->length <= s->f->size;

    for (uint64_t i = b.first; i < b.end; i++)
        can = can && s->view[i].kind == PIECE_WRITTEN && !must_copy(&s->fc, s->view[i]);
    random_bytes(&s->m->dice, scratch, s->length);
    if (expect(s, file_data_overwrite(s->f->data, s->offset, scratch, s->length), can ? 0 : -EAGAIN) == 0)
        memcpy(s->f->bytes + s->offset, scratch, s->length);
}

static void op_truncate(struct step *s)
{
    uint64_t size = s->offset;
    bool can = true;

    if (size < s->f->size && in_last_block(size))
        can = copy_if_needed(&s->fc, &s->view[size / BLOCK]);
    for (uint64_t b = blocks_up(size); can && size <= s->f->size && b < FILE_BLOCKS; b++)
        drop_block(&s->fc, &s->view[b]);
    can = can && grow_to(&s->fc, s->m, s->f, size);
    if (expect(s, file_data_truncate(s->f->data, size), can ? 0 : -ENOSPC))
        return;
    if (size <= s->f->size) {
        memset(s->f->bytes + size, 0, FILE_BYTES - size);
        set_kinds(s->f, blocks_up(size), FILE_BLOCKS, PIECE_HOLE);
    }
    s->f->size = size;
}

static void op_allocate(struct step *s)
{
    struct blocks b = blocks_of(s->offset, s->length);
    bool unshare = dice_below(&s->m->dice, 3) == 0;
    bool can = grow_to(&s->fc, s->m, s->f, s->flag ? s->offset + s->length : 0) &&
               take_all(&s->fc, s->view, b, unshare ? PLAN_COPIES : PLAN_HOLES);
    int result = unshare ? file_data_unshare(s->f->data, s->offset, s->length, s->flag)
                         : file_data_allocate(s->f->data, s->offset, s->length, s->flag);

    if (expect(s, result, can ? 0 : -ENOSPC))
        return;
    for (uint64_t i = b.first; i < b.end; i++) {
        if (s->f->kinds[i] == PIECE_HOLE)
            s->f->kinds[i] = PIECE_UNWRITTEN;
        if (unshare && s->f->kinds[i] == PIECE_WRITTEN)
            assert_true(pool_exclusive(s->m->pool, piece_at(s->f->data, i, 1).start));
    }
    if (s->flag)
        grow(s->f, s->offset + s->length);
}

static void op_punch(struct step *s)
{
    struct blocks b = blocks_of(s->offset, s->length);
    bool can = own_ends_of(&s->fc, s->view, b);

    for (uint64_t i = b.first_whole; can && i < b.end_whole; i++)
        drop_block(&s->fc, &s->view[i]);
    if (expect(s, file_data_punch(s->f->data, s->offset, s->length), can ? 0 : -ENOSPC))
        return;
    memset(s->f->bytes + s->offset, 0, s->length);
    set_kinds(s->f, b.first_whole, b.end_whole, PIECE_HOLE);
}

static void op_zero(struct step *s)
{
    struct blocks b = blocks_of(s->offset, s->length);
    bool can = grow_to(&s->fc, s->m, s->f, s->flag ? s->offset + s->length : 0) && own_ends_of(&s->fc, s->view, b) &&
               take_all(&s->fc, s->view, b, PLAN_ZEROS);

    if (expect(s, file_data_zero(s->f->data, s->offset, s->length, s->flag), can ? 0 : -ENOSPC))
        return;
    memset(s->f->bytes + s->offset, 0, s->length);
    set_kinds(s->f, b.first_whole, b.end_whole, PIECE_UNWRITTEN);
    for (uint64_t i = b.first; i < b.end; i++)
        if (s->f->kinds[i] == PIECE_HOLE)
            s->f->kinds[i] = PIECE_UNWRITTEN;
    if (s->flag)
        grow(s->f, s->offset + s->length);
    if (failing_malloc_has_failed())
        accept_kinds(s->f);
}

static bool copy_held_from(struct step *s, uint64_t block)
{
    for (; block < FILE_BLOCKS; block++)
        if (s->view[block].kind == PIECE_WRITTEN && is_held(&s->fc, s->view[block]) &&
            !take_block(&s->fc, &s->view[block], PIECE_WRITTEN))
            return false;
    return true;
}

static void op_collapse(struct step *s)
{
    uint64_t offset = s->offset & ~(BLOCK - 1), length = (s->length + BLOCK - 1) & ~(BLOCK - 1);
    uint64_t block = offset / BLOCK, count = length / BLOCK;
    bool can = offset + length < s->f->size;
    struct model_file *f = s->f;

    if (can) {
        can = copy_held_from(s, block + count);
        for (uint64_t i = block; can && i < block + count; i++)
            drop_block(&s->fc, &s->view[i]);
        if (expect(s, file_data_collapse(f->data, offset, length), can ? 0 : -ENOSPC))
            return;
    } else {
        expect(s, file_data_collapse(f->data, offset, length), -EINVAL);
        return;
    }
    memmove(f->bytes + offset, f->bytes + offset + length, FILE_BYTES - offset - length);
    memset(f->bytes + FILE_BYTES - length, 0, length);
    memmove(f->kinds + block, f->kinds + block + count, (FILE_BLOCKS - block - count) * sizeof(f->kinds[0]));
    set_kinds(f, FILE_BLOCKS - count, FILE_BLOCKS, PIECE_HOLE);
    f->size -= length;
}

static void op_insert(struct step *s)
{
    uint64_t offset = s->offset & ~(BLOCK - 1), block = offset / BLOCK, count = 1 + s->length / BLOCK % 4, last;
    struct model_file *f = s->f;
    bool can;

    for (last = FILE_BLOCKS; last > 0 && f->kinds[last - 1] == PIECE_HOLE; last--)
        ;
    last = last > blocks_up(f->size) ? last : blocks_up(f->size);
    if (last + count > FILE_BLOCKS)
        return;
    if (offset >= f->size) {
        expect(s, file_data_insert(f->data, offset, count * BLOCK), -EINVAL);
        return;
    }
    can = copy_held_from(s, block);
    if (expect(s, file_data_insert(f->data, offset, count * BLOCK), can ? 0 : -ENOSPC))
        return;
    memmove(f->bytes + offset + count * BLOCK, f->bytes + offset, FILE_BYTES - offset - count * BLOCK);
    memset(f->bytes + offset, 0, count * BLOCK);
    memmove(f->kinds + block + count, f->kinds + block, (FILE_BLOCKS - block - count) * sizeof(f->kinds[0]));
    set_kinds(f, block, block + count, PIECE_HOLE);
    f->size += count * BLOCK;
}

/* ---- clones ---- */

/* As far as the source is of one kind and in one run. */
static uint64_t piece_bytes(const struct block_view *src, uint64_t from, uint64_t length)
{
    uint64_t first = from / BLOCK, b = first + 1;

    while (b < blocks_up(from + length) && src[b].kind == src[first].kind &&
           (src[b].kind == PIECE_HOLE || src[b].index == src[first].index + (b - first)))
        b++;
    return smaller(length, b * BLOCK - from);
}

static bool forecast_punch(struct forecast *fc, struct block_view *view, uint64_t offset, uint64_t length)
{
    struct blocks b = blocks_of(offset, length);

    if (!own_ends_of(fc, view, b))
        return false;
    for (uint64_t i = b.first_whole; i < b.end_whole; i++)
        drop_block(fc, &view[i]);
    return true;
}

/* One step: a piece of zeros, a block shared, or bytes copied within a block of each. 0: no space. */
static uint64_t forecast_clone_step(struct step *s, const struct model_file *src, uint64_t from, uint64_t to,
                                    uint64_t length)
{
    struct block_view *src_view = s->fc.view[src - s->m->files], *old = &s->view[to / BLOCK];
    struct block_view v = src_view[from / BLOCK];
    uint64_t part = smaller(length, BLOCK - in_last_block(from));
    bool to_end = from + length == src->size && to + length >= s->f->size;

    if (v.kind != PIECE_WRITTEN) {
        part = piece_bytes(src_view, from, length);
        return forecast_punch(&s->fc, s->view, to, part) ? part : 0;
    }
    if (!in_last_block(from) && !in_last_block(to) && (part == BLOCK || to_end) && !is_held(&s->fc, v)) {
        s->fc.files[v.index]++;
        drop_block(&s->fc, old);
        *old = v;
        return part;
    }
    part = smaller(part, BLOCK - in_last_block(to));
    return store_block(&s->fc, old) ? part : 0;
}

static void op_clone(struct step *s)
{
    struct model_file *src = &s->m->files[dice_below(&s->m->dice, FILES)], *dst = s->f;
    uint64_t from = dice_below(&s->m->dice, 2) ? s->offset : dice_below(&s->m->dice, FILE_BYTES), to = s->offset;
    uint64_t length, done = 0, part = 1;
    int64_t result;

    if (dice_below(&s->m->dice, 2)) { /* whole blocks */
        from &= ~(BLOCK - 1);
        to &= ~(BLOCK - 1);
    }
    if (from >= src->size)
        return;
    length = smaller(dice_below(&s->m->dice, 2) ? s->length : FILE_BYTES, src->size - from);
    length = smaller(length, FILE_BYTES - to);
    if (!length || (src == dst && from < to + length && to < from + length))
        return;
    if (grow_to(&s->fc, s->m, dst, to + length))
        while (done < length && part) {
            part = forecast_clone_step(s, src, from + done, to + done, length - done);
            done += part;
        }
    result = expect(s, file_data_clone(src->data, from, dst->data, to, length), done ? (int64_t)done : -ENOSPC);
    if (result <= 0)
        return;
    memmove(dst->bytes + to, src->bytes + from, (size_t)result);
    grow(dst, to + (uint64_t)result);
    accept_kinds(dst);
}

/* ---- leases ---- */

static struct lease_range whole_blocks_of(const struct step *s)
{
    struct blocks b = blocks_of(s->offset, s->length);

    return (struct lease_range){b.first * BLOCK, (b.end - b.first) * BLOCK};
}

static void op_prepare(struct step *s)
{
    struct lease_range range = whole_blocks_of(s);
    bool exclusive = dice_below(&s->m->dice, 2), can;
    struct model_file *f = s->f;
    uint64_t end = s->flag ? range_end(range) : smaller(range_end(range), f->size);
    struct blocks b = blocks_of(range.offset, end > range.offset ? end - range.offset : 0);

    if (range.offset >= end) {
        expect(s, file_data_prepare(f->data, range, exclusive, s->flag), -EINVAL);
        return;
    }
    b = (struct blocks){b.first, b.end, b.first, b.end};
    can = grow_to(&s->fc, s->m, f, s->flag ? end : 0) &&
          take_all(&s->fc, s->view, b, exclusive ? PLAN_COPIES : PLAN_HOLES);
    if (expect(s, file_data_prepare(f->data, range, exclusive, s->flag), can ? 0 : -ENOSPC)) {
        if (failing_malloc_has_failed())
            accept_kinds(f);
        return;
    }
    set_kinds(f, b.first, b.end, PIECE_WRITTEN);
    if (s->flag)
        grow(f, end);
    range.length = b.end * BLOCK - range.offset;
    assert_int_equal(file_data_eligible(f->data, range, exclusive).kind, LAYOUT_OK);
    assert_false(file_data_prepare_replaces(f->data, range, exclusive));
}

static enum layout_problem_kind problem_at(const struct step *s, struct lease_range range, bool write,
                                           uint64_t *ret_block)
{
    uint64_t b = range.offset / BLOCK;
    enum layout_problem_kind kind = LAYOUT_OK;

    if (range_end(range) > blocks_up(s->f->size) * BLOCK) {
        *ret_block = b > blocks_up(s->f->size) ? b : blocks_up(s->f->size);
        return LAYOUT_BEYOND_EOF;
    }
    for (; b < range_end(range) / BLOCK && kind == LAYOUT_OK; b++) {
        *ret_block = b;
        if (s->view[b].kind == PIECE_HOLE)
            kind = LAYOUT_HOLE;
        else if (s->view[b].kind == PIECE_UNWRITTEN)
            kind = LAYOUT_UNWRITTEN;
        else if (write && must_copy(&s->fc, s->view[b]))
            kind = LAYOUT_SHARED;
    }
    return kind;
}

/* The lease table would refuse a lease on what another may write to. */
static bool has_writer(const struct step *s, struct lease_range range)
{
    for (unsigned i = 0; i < HOLDS; i++)
        for (unsigned b = 0; s->m->holds[i].file && s->m->holds[i].write && b < hold_blocks(&s->m->holds[i]); b++)
            for (uint64_t at = range.offset / BLOCK; at < range_end(range) / BLOCK; at++)
                if (s->view[at].index == s->m->holds[i].blocks[b])
                    return true;
    return false;
}

static void fill_hold(struct step *s, struct model_hold *hold)
{
    unsigned n = 0;

    for (size_t r = 0; r < hold->n_runs; r++)
        for (uint64_t at = 0; at < hold->runs[r].length; at += BLOCK, n++) {
            hold->blocks[n] = (uint32_t)((hold->runs[r].offset + at) / BLOCK);
            assert_int_equal(hold->blocks[n], s->view[hold->range.offset / BLOCK + n].index);
            s->m->most_files[hold->blocks[n]] = s->fc.files[hold->blocks[n]];
            memcpy(hold->bytes + n * BLOCK, pool_bytes(s->m, hold->blocks[n]), BLOCK);
        }
    assert_int_equal(n, hold_blocks(hold));
}

static void op_hold(struct step *s)
{
    struct model_hold *hold = &s->m->holds[dice_below(&s->m->dice, HOLDS)], new = {.file = s->f, .write = s->flag};
    struct layout_problem problem;
    uint64_t block = 0;

    if (hold->file)
        return;
    new.range = whole_blocks_of(s);
    problem = file_data_eligible(s->f->data, new.range, new.write);
    assert_int_equal(problem.kind, problem_at(s, new.range, new.write, &block));
    if (problem.kind != LAYOUT_OK) {
        assert_int_equal(problem.range.offset, block * BLOCK);
        assert_true(problem.range.length && range_end(problem.range) <= range_end(new.range));
        return;
    }
    if (!new.write && has_writer(s, new.range))
        return;
    if (expect(s, file_data_hold(s->f->data, new.range, &new.runs, &new.n_runs), 0))
        return;
    *hold = new;
    fill_hold(s, hold);
}

/* As a client asks for it: prepare, then the lease. */
static void op_lease(struct step *s)
{
    op_prepare(s);
    if (s->offset >= s->f->size)
        return;
    s->length = smaller(s->length, s->f->size - s->offset);
    forecast_start(&s->fc, s->m);
    op_hold(s);
}

/* Shows in the file, too, where it has the block still. Often behind the end of file. */
static void remote_store(struct step *s)
{
    struct model_hold *hold = &s->m->holds[dice_below(&s->m->dice, HOLDS)];
    uint64_t b, in_block, offset;
    uint8_t byte = (uint8_t)(1 + dice_below(&s->m->dice, 255));

    if (!hold->file || !hold->write)
        return;
    b = dice_below(&s->m->dice, hold_blocks(hold));
    in_block = dice_below(&s->m->dice, BLOCK);
    if (dice_below(&s->m->dice, 2) && hold->range.offset < hold->file->size &&
        hold->file->size < range_end(hold->range)) {
        b = (hold->file->size - hold->range.offset) / BLOCK;
        in_block = in_last_block(hold->file->size);
    }
    offset = hold->range.offset + b * BLOCK + in_block;
    ((uint8_t *)pool_bytes(s->m, hold->blocks[b]))[in_block] = byte;
    hold->bytes[b * BLOCK + in_block] = byte;
    if (offset < hold->file->size && view_of(hold->file, offset / BLOCK).index == hold->blocks[b] &&
        hold->file->kinds[offset / BLOCK] != PIECE_HOLE)
        hold->file->bytes[offset] = byte;
}

/* The last block's own size, with what a remote writer has put there. */
static void op_set_size(struct step *s, uint64_t size)
{
    struct model_file *f = s->f;
    struct block_view *v = &s->view[size / BLOCK];
    bool can = true, held = is_held(&s->fc, *v);
    uint64_t old = f->size;

    if (in_last_block(size) && v->kind == PIECE_WRITTEN && !held)
        can = copy_if_needed(&s->fc, v);
    if (expect(s, file_data_set_size(f->data, size), can ? 0 : -ENOSPC))
        return;
    f->size = size;
    if (size > old && held)
        memcpy(f->bytes + old, (uint8_t *)pool_bytes(s->m, v->index) + in_last_block(old), size - old);
    else if (size < old)
        memset(f->bytes + size, 0, old - size);
}

static void op_commit(struct step *s)
{
    struct model_hold *hold = &s->m->holds[dice_below(&s->m->dice, HOLDS)];
    uint64_t last, size;

    if (!hold->file || !hold->write)
        return;
    last = range_end(hold->range) - BLOCK;
    s->f = hold->file;
    s->view = s->fc.view[s->f - s->m->files];
    size = last + 1 + dice_below(&s->m->dice, BLOCK - 1);
    if (s->f->size > last && s->f->size < range_end(hold->range))
        op_set_size(s, size);
    else if (blocks_up(s->f->size) != blocks_up(size))
        expect(s, file_data_set_size(s->f->data, size), -EINVAL);
}

static void op_release(struct step *s)
{
    struct model_hold *hold = &s->m->holds[dice_below(&s->m->dice, HOLDS)];
    struct model_file *f = hold->file;

    if (!f)
        return;
    file_data_put_runs(s->m->pool, hold->runs, hold->n_runs);
    free(hold->runs);
    hold->file = NULL;
    if (!hold->write || f->size <= hold->range.offset || f->size >= range_end(hold->range))
        return;
    s->f = f;
    s->view = s->fc.view[f - s->m->files];
    forecast_start(&s->fc, s->m);
    op_set_size(s, f->size);
}

static void op_detach(struct step *s)
{
    struct model_hold *hold = &s->m->holds[dice_below(&s->m->dice, HOLDS)];
    bool can = true;

    if (!hold->file)
        return;
    s->f = hold->file;
    s->view = s->fc.view[s->f - s->m->files];
    for (uint64_t b = hold->range.offset / BLOCK; can && b < range_end(hold->range) / BLOCK; b++)
        for (unsigned i = 0; can && i < hold_blocks(hold); i++)
            if (s->view[b].kind == PIECE_WRITTEN && s->view[b].index == hold->blocks[i])
                can = take_block(&s->fc, &s->view[b], PIECE_WRITTEN);
    if (expect(s, file_data_detach(s->f->data, hold->range, hold->runs, hold->n_runs), can ? 0 : -ENOSPC))
        return;
    for (uint64_t b = hold->range.offset / BLOCK; b < range_end(hold->range) / BLOCK; b++)
        for (unsigned i = 0; i < hold_blocks(hold); i++)
            assert_true(view_of(s->f, b).kind == PIECE_HOLE || view_of(s->f, b).index != hold->blocks[i]);
}

/* ---- all together ---- */

static void do_step(struct step *s)
{
    static void (*const operations[])(struct step *) = {
        op_write, op_write, op_write,    op_write,  op_overwrite, op_truncate, op_allocate,  op_punch,
        op_zero,  op_zero,  op_collapse, op_insert, op_clone,     op_clone,    op_clone,     op_prepare,
        op_lease, op_lease, op_hold,     op_commit, op_release,   op_detach,   remote_store, remote_store,
    };
    struct dice *dice = &s->m->dice;

    s->f = &s->m->files[dice_below(dice, FILES)];
    s->view = s->fc.view[s->f - s->m->files];
    s->flag = dice_below(dice, 2);
    random_range(s);
    forecast_start(&s->fc, s->m);
    if (s->faults && dice_below(dice, 4) == 0)
        failing_malloc_arm((unsigned)dice_below(dice, 4));
    operations[dice_below(dice, sizeof(operations) / sizeof(operations[0]))](s);
    failing_malloc_disarm();
}

static void run(const char *what, uint32_t n_free, bool faults)
{
    static struct model m;
    unsigned steps = dice_steps(900);

    model_start(&m, dice_new(what), n_free);
    for (unsigned i = 0; i < steps; i++) {
        static struct step s;

        s = (struct step){.m = &m, .faults = faults};
        do_step(&s);
        model_check(&m);
    }
    model_stop(&m);
}

static void files_are_arrays_of_bytes_with_space_to_spare(void **state)
{
    (void)state;
    run("space to spare", POOL_BLOCKS, false);
}

static void files_are_arrays_of_bytes_when_space_is_short(void **state)
{
    (void)state;
    run("short of space", 70, false);
    run("very short of space", 16, false);
}

static void files_are_arrays_of_bytes_when_memory_runs_out(void **state)
{
    (void)state;
    run("out of memory", POOL_BLOCKS, true);
    run("out of memory and space", 70, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_arrays_of_bytes_with_space_to_spare),
        cmocka_unit_test(files_are_arrays_of_bytes_when_space_is_short),
        cmocka_unit_test(files_are_arrays_of_bytes_when_memory_runs_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
