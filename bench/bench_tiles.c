/* Times what bfloat16 attention is made of at level amx, on one thread: what vectors do beside tiles;
 * a step's softmax alone, its tile products alone, both one after the other and both in turns; and
 * steps in the order of a head, each with what the one before it left.
 *
 *     bench_tiles [KEY_TILES [READINGS]]
 *
 * Heads of 64, steps of 32 queries and 64 keys for each key tile; the walk's are of one key tile. The best of all readings counts:
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

static _Alignas(64) float tile_room[256];

/* Twelve chains of 8, and `before` them a tile instruction. */
#define VECTOR_LOOP(name, before, next)                                                            \
    __attribute__((target("avx512f,amx-tile,amx-bf16"))) static void name(void *of)                \
    {                                                                                              \
        (void)of;                                                                                  \
        const __m512 by = _mm512_set1_ps(0.75f);                                                   \
        __m512 x[CHAINS];                                                                          \
        UNROLL for (size_t i = 0; i < CHAINS; i++) x[i] = _mm512_set1_ps((float)i);                \
        for (size_t round = 0; round < ROUNDS; round++) {                                          \
            before;                                                                                \
            for (size_t i = 0; i < VECTORS / CHAINS; i++)                                          \
                UNROLL for (size_t j = 0; j < CHAINS; j++) x[j] = next;                            \
        }                                                                                          \
        UNROLL for (size_t i = 0; i < CHAINS; i++) __asm__ volatile("" ::"v"(x[i]));               \
    }
#define VECTOR_LOOPS(name, next)                                                                   \
    VECTOR_LOOP(name##_alone, (void)0, next)                                                       \
    VECTOR_LOOP(name##_product, _tile_dpbf16ps(0, 4, 6), next)                                     \
    VECTOR_LOOP(name##_load, _tile_loadd(5, tile_room, 64), next)                                  \
    VECTOR_LOOP(name##_store, _tile_stored(1, tile_room, 64), next)                                \
    static void (*const name[])(void *) = {name##_alone, name##_product, name##_load, name##_store};

VECTOR_LOOPS(multiply_add, _mm512_fmadd_ps(x[j], by, by))
VECTOR_LOOPS(add, _mm512_add_ps(x[j], by))

static void print_vectors(const char *name, void (*const run[4])(void *), size_t readings)
{
    printf("%-24s", name);
    for (size_t i = 0; i < 4; i++)
        printf(" %8.2f", 1e-9 * ROUNDS * VECTORS / best_s(run[i], NULL, readings));
    putchar('\n');
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

/* ---- steps in their order ---------------------------------------------------------------- */

enum {
    WALK_STRIPS = 12, /* of queries */
    WALK_TILES = 8,   /* of keys, which each strip sees one after the other */
    WALK_STEPS = WALK_STRIPS * WALK_TILES,
    STEP_SCORES = ATTN_STRIP * KEYS,
    STRIP_NUMBERS = WIDTH_CELLS * ATTN_CELL /* of 32 queries or keys */
};

typedef struct walk {
    attn_bf16 *q, *keys, *values, *p;
    float *scores, *o, *top, *total;
} walk;

static size_t ask_scores(const walk *w, size_t at, attn_amx_block *blocks)
{
    const size_t strip = at / WALK_TILES, tile = at % WALK_TILES;
    for (size_t i = 0; i < 2; i++)
        blocks[i] = (attn_amx_block){.left = w->q + strip * STRIP_NUMBERS,
                                     .right = w->keys + (2 * tile + i) * STRIP_NUMBERS,
                                     .n_cells = WIDTH_CELLS,
                                     .sums = w->scores + at % 2 * STEP_SCORES + i * ATTN_STRIP,
                                     .sums_row = KEYS,
                                     .is_narrow = true};
    return 2;
}

static size_t ask_values(const walk *w, size_t at, attn_amx_block *blocks)
{
    const size_t strip = at / WALK_TILES, tile = at % WALK_TILES;
    for (size_t i = 0; i < WIDTH_CELLS; i++)
        blocks[i] = (attn_amx_block){.left = w->p + at % 2 * STEP_SCORES,
                                     .right = w->values + (i * WALK_TILES + tile) * 2 * ATTN_CELL,
                                     .n_cells = 2,
                                     .sums = w->o + strip * STEP_SCORES + i * ATTN_STRIP,
                                     .sums_row = KEYS,
                                     .adds = true};
    return WIDTH_CELLS;
}

static void run_walk(void *of)
{
    const walk *w = of;
    attn_amx_block blocks[2 + WIDTH_CELLS];
    attn_amx_multiply(ask_scores(w, 0, blocks), blocks);
    for (size_t at = 0; at < WALK_STEPS; at++) {
        const size_t first = at / WALK_TILES * ATTN_STRIP;
        size_t n = at + 1 < WALK_STEPS ? ask_scores(w, at + 1, blocks) : 0;
        if (at > 0) n += ask_values(w, at - 1, blocks + n);
        attn_amx_run_softmax(&(attn_amx_softmax){.rows = ATTN_STRIP,
                                                 .n_tiles = 1,
                                                 .factor = 0.18f,
                                                 .scores = w->scores + at % 2 * STEP_SCORES,
                                                 .top = w->top + first,
                                                 .total = w->total + first * ATTN_RUNNING_SUMS,
                                                 .o = w->o + first * KEYS,
                                                 .o_row = KEYS,
                                                 .p = w->p + at % 2 * STEP_SCORES},
                             n, blocks);
    }
    attn_amx_multiply(ask_values(w, WALK_STEPS - 1, blocks), blocks);
}

static void print_walk(size_t readings)
{
    const size_t queries = WALK_STRIPS * ATTN_STRIP;
    walk w = {.q = draw_half(WALK_STRIPS * STRIP_NUMBERS, 0),
              .keys = draw_half(2 * WALK_TILES * STRIP_NUMBERS, 1),
              .values = draw_half(2 * WALK_TILES * STRIP_NUMBERS, 2),
              .p = draw_half(2 * STEP_SCORES, 3),
              .scores = take_floats(2 * STEP_SCORES),
              .o = take_floats(queries * KEYS),
              .top = take_floats(queries),
              .total = take_floats(queries * ATTN_RUNNING_SUMS)};
    for (size_t i = 0; i < queries; i++) w.top[i] = ATTN_RUNNING_START;
    printf("%-24s %8.2f\n", "steps in their order",
           1e9 * best_s(run_walk, &w, readings) / (WALK_STEPS * STEP_SCORES / 16));
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
    printf("512-bit vectors, G/s: alone, and for every %d a tile's product, load or store\n",
           VECTORS);
    print_vectors("multiply-add", multiply_add, readings);
    print_vectors("add", add, readings);
    printf("\na step of 32 queries and %zu keys, ns for 16 scores\n", tiles * KEYS);
    print_step("softmax", run_softmax, &s, readings);
    print_step("Q K^T", run_scores, &s, readings);
    print_step("P V", run_values, &s, readings);
    print_step("one after the other", run_sequence, &s, readings);
    print_step("in turns", run_turns, &s, readings);
    print_walk(readings);
    attn_amx_end();
    return EXIT_SUCCESS;
}
