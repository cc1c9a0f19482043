/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/bulk_copy.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ThreadSanitizer does not see the streaming stores. */
#ifdef __SANITIZE_THREAD__
#define WATCHED 1
#elif defined(__has_feature)
#define WATCHED __has_feature(thread_sanitizer)
#else
#define WATCHED 0
#endif

#if defined(__SSE2__) && !WATCHED
#include <emmintrin.h>

#define LINE   64u
#define LANE   4096u       /* a page */
#define STRIPE (4u * LANE) /* lanes that are read side by side */

#define MEASURED_BYTES (4u << 20) /* a time: some tenths of a millisecond */
#define MEASURED_TIMES 3u
#define SCRATCH_BYTES  (512u << 10)

/* Set before there are threads that copy. */
static enum bulk_copy_way way_out = BULK_COPY_SIDE_BY_SIDE;

/* `to` is aligned to lines; whole lines. */
static void stream_lines(uint8_t *to, const uint8_t *from, size_t lines)
{
    for (; lines > 0; lines--, to += LINE, from += LINE) {
        const __m128i *in = (const __m128i *)(const void *)from;
        __m128i *out = (__m128i *)(void *)to;
        __m128i a = _mm_loadu_si128(in), b = _mm_loadu_si128(in + 1), c = _mm_loadu_si128(in + 2),
                d = _mm_loadu_si128(in + 3);

        _mm_stream_si128(out, a);
        _mm_stream_si128(out + 1, b);
        _mm_stream_si128(out + 2, c);
        _mm_stream_si128(out + 3, d);
    }
    _mm_sfence(); /* these stores are in no order with others */
}

void bulk_copy_in(void *to, const void *from, size_t length)
{
    size_t head = (size_t)(-(uintptr_t)to & (LINE - 1)), middle;

    if (length < BULK_COPY_MIN) {
        memcpy(to, from, length);
        return;
    }
    middle = (length - head) / LINE * LINE;
    memcpy(to, from, head);
    stream_lines((uint8_t *)to + head, (const uint8_t *)from + head, middle / LINE);
    memcpy((uint8_t *)to + head + middle, (const uint8_t *)from + head + middle, length - head - middle);
}

static void copy_stripe(uint8_t *to, const uint8_t *from)
{
    for (size_t at = 0; at < LANE; at += LINE)
        for (size_t lane = 0; lane < STRIPE; lane += LANE) {
            const __m128i *in = (const __m128i *)(const void *)(from + lane + at);
            __m128i *out = (__m128i *)(void *)(to + lane + at);
            __m128i a = _mm_loadu_si128(in), b = _mm_loadu_si128(in + 1), c = _mm_loadu_si128(in + 2),
                    d = _mm_loadu_si128(in + 3);

            _mm_prefetch((const char *)in + STRIPE, _MM_HINT_T0); /* of the next stripe, if there is one */
            _mm_storeu_si128(out, a);
            _mm_storeu_si128(out + 1, b);
            _mm_storeu_si128(out + 2, c);
            _mm_storeu_si128(out + 3, d);
        }
}

void bulk_copy_out(void *to, const void *from, size_t length)
{
    uint8_t *out = to;
    const uint8_t *in = from;

    for (; length >= STRIPE && way_out == BULK_COPY_SIDE_BY_SIDE; length -= STRIPE, out += STRIPE, in += STRIPE)
        copy_stripe(out, in);
    memcpy(out, in, length);
}

/* ---- which way is faster ---- */

void bulk_copy_choose(enum bulk_copy_way way)
{
    way_out = way;
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t time_of_copying(enum bulk_copy_way way, uint8_t *scratch, const uint8_t *from)
{
    uint64_t began;

    for (size_t at = 0; at < MEASURED_BYTES; at += LINE) /* out of the caches */
        _mm_clflush(from + at);
    _mm_mfence();
    bulk_copy_choose(way);
    began = now_ns();
    for (size_t at = 0; at < MEASURED_BYTES; at += SCRATCH_BYTES)
        bulk_copy_out(scratch, from + at, SCRATCH_BYTES);
    return now_ns() - began;
}

enum bulk_copy_way bulk_copy_measure(const void *memory, size_t size)
{
    uint64_t best[] = {[BULK_COPY_SIDE_BY_SIDE] = UINT64_MAX, [BULK_COPY_PLAIN] = UINT64_MAX};
    enum bulk_copy_way faster = BULK_COPY_SIDE_BY_SIDE;
    uint8_t *scratch = size < MEASURED_BYTES ? NULL : malloc(SCRATCH_BYTES);

    if (scratch)
        time_of_copying(faster, scratch, memory); /* what the first touch of memory costs does not count */
    for (size_t turn = 0; scratch && turn < 2 * MEASURED_TIMES; turn++) {
        enum bulk_copy_way way = turn % 2 ? BULK_COPY_PLAIN : BULK_COPY_SIDE_BY_SIDE;
        uint64_t took = time_of_copying(way, scratch, memory);

        if (took < best[way])
            best[way] = took;
    }
    if (best[BULK_COPY_PLAIN] < best[BULK_COPY_SIDE_BY_SIDE])
        faster = BULK_COPY_PLAIN;
    bulk_copy_choose(faster);
    free(scratch);
    return faster;
}

#else

void bulk_copy_in(void *to, const void *from, size_t length)
{
    memcpy(to, from, length);
}

void bulk_copy_out(void *to, const void *from, size_t length)
{
    memcpy(to, from, length);
}

void bulk_copy_choose(enum bulk_copy_way way)
{
    (void)way;
}

enum bulk_copy_way bulk_copy_measure(const void *memory, size_t size)
{
    (void)memory;
    (void)size;
    return BULK_COPY_PLAIN;
}

#endif
