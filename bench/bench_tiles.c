/* Times what bfloat16 attention is made of at level amx, on one thread: its softmax alone, its tile
 * products alone, both one after the other and both in turns; and what vectors do beside tiles.
 *
 *     bench_tiles [KEY_TILES [READINGS]]
 *
 * Heads of 64, steps of 32 queries and 64 keys for each key tile. The best of all readings counts:
 * parts that another process disturbs say nothing. */
#include "base/clock.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "base/random.h"
#include "kernels/attention_amx.h"
#include "kernels/bf16.h"
#include "kernels/simd_unroll.h"

#include <immintrin.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH_CELLS = 2,
    KEYS = 64,
    TILES_MOST = 8,
    STEP_CALLS = 100,
    READINGS_MOST = 1000,
    CHAINS = 12,
    VECTORS = 8 * CHAINS, /* of the same kind for each product of tiles */
    ROUNDS = 2000
};

static double best_s(void (*run)(void *), void *of, size_t readings)
{
    double best = INFINITY;
    for (size_t i = 0; i < readings; i++) {
        const uint64_t start_ns = attn_clock_ns();
        run(of);
        best = fmin(best, attn_clock_seconds(start_ns, attn_clock_ns()));
    }
    return best;
}

/* ---- vectors beside tiles ---------------------------------------------------------------- */

/* Twelve chains of 8, and before them a product of tiles where `tiles` says so. */
#define VECTOR_LOOP(name, next)                                                                    \
    __attribute__((target("avx512f,amx-tile,amx-bf16"))) static void name(void *tiles)             \
    {                                                                                              \
        const __m512 by = _mm512_set1_ps(0.75f);                                                   \
        __m512 x[CHAINS];                                                                          \
        for (size_t i = 0; i < CHAINS; i++) x[i] = _mm512_set1_ps((float)i);                       \
        for (size_t round = 0; round < ROUNDS; round++) {                                          \
            if (tiles) _tile_dpbf16ps(0, 4, 6);                                                    \
            for (size_t i = 0; i < VECTORS / CHAINS; i++)                                          \
                UNROLL for (size_t j = 0; j < CHAINS; j++) x[j] = next;                            \
        }                                                                                          \
        UNROLL for (size_t i = 0; i < CHAINS; i++) __asm__ volatile("" ::"v"(x[i]));               \
    }

VECTOR_LOOP(multiply_add, _mm512_fmadd_ps(x[j], by, by))
VECTOR_LOOP(add, _mm512_add_ps(x[j], by))

static void print_vectors(const char *name, void (*run)(void *), size_t readings)
{
    bool with = true;
    const double alone_s = best_s(run, NULL, readings), beside_s = best_s(run, &with, readings);
    const double vectors = (double)ROUNDS * VECTORS;
    printf("%-24s %8.2f %8.2f %8.2f\n", name, 1e-9 * vectors / alone_s, 1e-9 * vectors / beside_s,
           beside_s / alone_s);
}

/* ---- a step of attention ----------------------------------------------------------------- */

typedef struct step {
    attn_amx_softmax softmax;
    attn_amx_block blocks[2 * TILES_MOST + WIDTH_CELLS]; /* scores, then values */
    size_t n_scores, n_values;
    uint32_t cells[2 * TILES_MOST];
} step;

static void run_softmax(void *of)
{
    const step *s = of;
    for (size_t i = 0; i < STEP_CALLS; i++) attn_amx_run_softmax(&s->softmax, 0, NULL);
}

static void run_scores(void *of)
{
    const step *s = of;
    for (size_t i = 0; i < STEP_CALLS; i++) attn_amx_multiply(s->n_scores, s->blocks);
}

static void run_values(void *of)
{
    const step *s = of;
    for (size_t i = 0; i < STEP_CALLS; i++) attn_amx_multiply(s->n_values, s->blocks + s->n_scores);
}

static void run_sequence(void *of)
{
    const step *s = of;
    for (size_t i = 0; i < STEP_CALLS; i++) {
        attn_amx_run_softmax(&s->softmax, 0, NULL);
        attn_amx_multiply(s->n_scores + s->n_values, s->blocks);
    }
}

static void run_turns(void *of)
{
    const step *s = of;
    for (size_t i = 0; i < STEP_CALLS; i++)
        attn_amx_run_softmax(&s->softmax, s->n_scores + s->n_values, s->blocks);
}

static attn_bf16 *draw_half(size_t n, uint32_t stream)
{
    float *wide = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *wide);
    attn_bf16 *half = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *half);
    if (!wide || !half) exit(EXIT_FAILURE);
    attn_random_fill_normal(1, attn_random_stream(ATTN_RANDOM_TEST, stream), 1.0, n, wide);
    for (size_t i = 0; i < n; i++) half[i] = attn_bf16_from_float(wide[i]);
    attn_free(wide);
    return half;
}

static float *take_floats(size_t n)
{
    float *floats = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *floats);
    if (!floats) exit(EXIT_FAILURE);
    return floats;
}

/* Memory is given back by the end of the program. */
static void prepare(step *s, size_t tiles)
{
    const size_t strip = WIDTH_CELLS * ATTN_CELL, scores = tiles * ATTN_STRIP * KEYS;
    const attn_bf16 *q = draw_half(strip, 0), *p = draw_half(scores, 3);
    const attn_bf16 *keys = draw_half(2 * tiles * strip, 1);
    const attn_bf16 *values = draw_half(2 * tiles * strip, 2);
    float *now = take_floats(scores), *next = take_floats(scores);
    float *o = take_floats(ATTN_STRIP * KEYS);
    *s = (step){.n_scores = 2 * tiles, .n_values = WIDTH_CELLS};
    attn_random_fill_normal(1, attn_random_stream(ATTN_RANDOM_TEST, 4), 8.0, scores, now);
    s->softmax = (attn_amx_softmax){.rows = ATTN_STRIP,
                                    .n_tiles = tiles,
                                    .factor = 0.18f,
                                    .scores = now,
                                    .top = take_floats(ATTN_STRIP),
                                    .total = take_floats(ATTN_STRIP * ATTN_RUNNING_SUMS),
                                    .o = o,
                                    .o_row = KEYS,
                                    .p = draw_half(scores, 5)};
    for (uint32_t i = 0; i < 2 * tiles; i++) {
        s->cells[i] = i;
        s->blocks[i] =
            (attn_amx_block){.left = q,
                             .right = keys + i * strip,
                             .n_cells = WIDTH_CELLS,
                             .sums = next + i / 2 * ATTN_STRIP * KEYS + i % 2 * ATTN_STRIP,
                             .sums_row = KEYS,
                             .is_narrow = true};
    }
    for (size_t i = 0; i < WIDTH_CELLS; i++)
        s->blocks[2 * tiles + i] = (attn_amx_block){.left = p,
                                                    .right = values + i * 2 * tiles * ATTN_CELL,
                                                    .right_cells = s->cells,
                                                    .n_cells = 2 * tiles,
                                                    .sums = o + i * ATTN_STRIP,
                                                    .sums_row = KEYS,
                                                    .adds = true};
}

static void print_step(const char *name, void (*run)(void *), step *s, size_t readings)
{
    const double vectors = (double)(s->softmax.n_tiles * ATTN_STRIP * KEYS) / 16.0 * STEP_CALLS;
    printf("%-24s %8.2f\n", name, 1e9 * best_s(run, s, readings) / vectors);
}

int main(int count, char **arguments)
{
    const size_t tiles = count > 1 ? strtoul(arguments[1], NULL, 10) : 4;
    const size_t readings = count > 2 ? strtoul(arguments[2], NULL, 10) : 100;
    if (tiles < 1 || tiles > TILES_MOST || readings < 1 || readings > READINGS_MOST) {
        fprintf(stderr, "usage: bench_tiles [KEY_TILES up to %d [READINGS up to %d]]\n", TILES_MOST,
                READINGS_MOST);
        return EXIT_FAILURE;
    }
    if (attn_cpu_best_isa() < ATTN_ISA_AMX) {
        fprintf(stderr, "bench_tiles: this machine has no AMX\n");
        return EXIT_FAILURE;
    }
    static step s;
    prepare(&s, tiles);
    attn_amx_begin();
    printf("512-bit vectors, G/s: alone, with a tile product for every %d, time over alone\n",
           VECTORS);
    print_vectors("multiply-add", multiply_add, readings);
    print_vectors("add", add, readings);
    printf("\na step of 32 queries and %zu keys, ns for 16 scores\n", tiles * KEYS);
    print_step("softmax", run_softmax, &s, readings);
    print_step("Q K^T", run_scores, &s, readings);
    print_step("P V", run_values, &s, readings);
    print_step("one after the other", run_sequence, &s, readings);
    print_step("in turns", run_turns, &s, readings);
    attn_amx_end();
    return EXIT_SUCCESS;
}
