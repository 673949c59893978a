/* Philox 4x32-10 and what is drawn from it. */
#include "base/random.h"

#include "base/threads.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

uint64_t attn_random_stream(attn_random_use use, uint32_t index)
{
    return (uint64_t)use << 32 | index;
}

void attn_random_words(uint64_t seed, uint64_t stream, uint64_t index, uint32_t words[4])
{
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

static uint64_t word64(const uint32_t words[4], int at)
{
    return (uint64_t)words[at] << 32 | words[at + 1];
}

uint64_t attn_random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t bound)
{
    /* Lemire's multiply-shift over 128 bits; with 64 random bits the bias is below
     * bound / 2^64, which no test of ours could see, so no rejection loop is needed. */
    uint32_t words[4];
    attn_random_words(seed, stream, index, words);
    const uint64_t r = word64(words, 0);
    const uint64_t low = (r & 0xFFFFFFFFu) * (bound & 0xFFFFFFFFu);
    const uint64_t mid1 = (r >> 32) * (bound & 0xFFFFFFFFu),
                   mid2 = (r & 0xFFFFFFFFu) * (bound >> 32);
    const uint64_t carry = ((low >> 32) + (mid1 & 0xFFFFFFFFu) + (mid2 & 0xFFFFFFFFu)) >> 32;
    return (r >> 32) * (bound >> 32) + (mid1 >> 32) + (mid2 >> 32) + carry;
}

static double unit_interval(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

double attn_random_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t words[4];
    attn_random_words(seed, stream, index, words);
    return unit_interval(word64(words, 0));
}

/* The two normals of one counter: a radius and an angle. */
typedef struct polar {
    double radius, angle;
} polar;

static polar draw_polar(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t words[4];
    attn_random_words(seed, stream, counter, words);
    const double u = 1.0 - unit_interval(word64(words, 0)); /* in (0, 1]: log is finite */
    return (polar){.radius = sqrt(-2.0 * log(u)),
                   .angle = 2.0 * pi * unit_interval(word64(words, 2))};
}

double attn_random_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    const polar p = draw_polar(seed, stream, index / 2);
    return p.radius * (index % 2 ? sin(p.angle) : cos(p.angle));
}

typedef struct filling {
    uint64_t seed, stream;
    double scale;
    size_t n;
    float *out;
} filling;

enum { FILLING_TASK = 1 << 16 }; /* elements of one task, even */

static void fill_task(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const filling *f = argument;
    const size_t first = index * FILLING_TASK;
    const size_t end = f->n - first < FILLING_TASK ? f->n : first + FILLING_TASK;
    for (size_t i = first; i < end; i += 2) {
        const polar p = draw_polar(f->seed, f->stream, i / 2);
        f->out[i] = (float)(f->scale * (p.radius * cos(p.angle)));
        if (i + 1 < end) f->out[i + 1] = (float)(f->scale * (p.radius * sin(p.angle)));
    }
}

void attn_random_fill_normal(uint64_t seed, uint64_t stream, double scale, size_t n, float *out)
{
    filling f = {.seed = seed, .stream = stream, .scale = scale, .n = n, .out = out};
    const size_t n_tasks = n / FILLING_TASK + (n % FILLING_TASK != 0);
    attn_parallel(attn_cores_available(), n_tasks, fill_task, &f);
}

void attn_random_permutation(uint64_t seed, uint64_t stream, size_t n, size_t *out)
{
    for (size_t i = 0; i < n; i++) {
        const size_t j = (size_t)attn_random_below(seed, stream, i, i + 1);
        if (j < i) out[i] = out[j];
        out[j] = i;
    }
}
