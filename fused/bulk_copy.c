/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/bulk_copy.h"

#include <stdint.h>
#include <string.h>

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

    for (; length >= STRIPE; length -= STRIPE, out += STRIPE, in += STRIPE)
        copy_stripe(out, in);
    memcpy(out, in, length);
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

#endif
