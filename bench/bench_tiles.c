/* Times what bfloat16 attention is made of at level amx, on one thread: what vectors do beside tiles;
 * a step's softmax and its tile products, each alone; and a walk, the steps of a block of queries in
 * their order with both beside each other: what forward is without packing, storing and masks.
 *
 *     bench_tiles [READINGS [HEAD_DIM]]
 *
 * Heads of 64 or so, steps of 32 queries and 64 keys. Then what lies between: rows of one head that come
 * from memory and go there. The best of all readings counts: parts that another
 * process disturbs say nothing. */
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
    WIDTH_CELLS_MOST = 8,
    KEYS = 64, /* of a tile */
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

enum {
    STRIPS = 24, /* of queries */
    TILES = 16,  /* of keys, which each strip sees one after the other */
    STEPS = STRIPS * TILES,
    SCORES = ATTN_STRIP * KEYS, /* of a step */
    QUERIES = STRIPS * ATTN_STRIP
};

/* A block of queries of a head and a group of key tiles, as the engine walks them. */
typedef struct block {
    size_t cells, width; /* of a head: cells of 32 */
    attn_amx_walk walk;
    attn_amx_step steps[STEPS];
} block;

static void run_softmax(void *of)
{
    const block *b = of;
    const attn_amx_walk *w = &b->walk;
    for (size_t i = 0; i < STEPS; i++) {
        const size_t first = i / TILES * ATTN_STRIP;
        attn_amx_run_softmax(&(attn_amx_softmax){.rows = ATTN_STRIP,
                                                 .n_tiles = 1,
                                                 .factor = w->factor,
                                                 .scores = w->scores[0],
                                                 .top = w->top + first,
                                                 .total = w->total + first * ATTN_RUNNING_SUMS,
                                                 .o = w->o + first * b->width,
                                                 .o_row = b->width,
                                                 .p = w->p[0]});
    }
}

static void run_scores(void *of)
{
    const block *b = of;
    const size_t strip = b->cells * ATTN_CELL; /* numbers of 32 queries or keys */
    attn_amx_block two[2];
    for (size_t i = 0; i < STEPS; i++) {
        const attn_amx_step *s = &b->steps[i];
        for (size_t j = 0; j < 2; j++)
            two[j] = (attn_amx_block){.left = b->walk.q + s->strip * strip,
                                      .right = b->walk.keys + (2 * s->tile + j) * strip,
                                      .n_cells = b->cells,
                                      .sums = b->walk.scores[0] + j * ATTN_STRIP,
                                      .sums_row = KEYS};
        attn_amx_multiply(2, two);
    }
}

static void run_values(void *of)
{
    const block *b = of;
    attn_amx_block columns[WIDTH_CELLS_MOST];
    for (size_t i = 0; i < STEPS; i++) {
        const attn_amx_step *s = &b->steps[i];
        for (size_t j = 0; j < b->cells; j++)
            columns[j] = (attn_amx_block){
                .left = b->walk.p[0],
                .right = b->walk.values + (j * TILES + s->tile) * 2 * ATTN_CELL,
                .n_cells = 2,
                .sums = b->walk.o + s->strip * ATTN_STRIP * b->width + j * ATTN_STRIP,
                .sums_row = b->width,
                .adds = true};
        attn_amx_multiply(b->cells, columns);
    }
}

static void run_walk(void *of)
{
    block *b = of;
    const attn_amx_step *last = b->steps + STEPS - 1;
    attn_amx_start_walk(&b->walk, b->steps);
    for (const attn_amx_step *now = b->steps; now <= last; now++)
        attn_amx_run_step(&b->walk, now > b->steps ? now - 1 : NULL, now,
                          now < last ? now + 1 : NULL);
    attn_amx_end_walk(&b->walk, last);
}

/* Memory is given back by the end of the program. */
static block *prepare(size_t width)
{
    const size_t cells = width / ATTN_STRIP, strip = cells * ATTN_CELL;
    block *b = attn_alloc(ATTN_MEMORY_OTHER, sizeof *b);
    if (!b) exit(EXIT_FAILURE);
    b->cells = cells;
    b->width = width;
    b->walk = (attn_amx_walk){.queries = QUERIES,
                              .key_cells = cells,
                              .value_strips = cells,
                              .key_strips = 2 * TILES,
                              .factor = 0.18f,
                              .q = draw_half(STRIPS * strip, 0),
                              .keys = draw_half(2 * TILES * strip, 1),
                              .values = draw_half(2 * TILES * strip, 2),
                              .o = take_floats(QUERIES * width),
                              .top = take_floats(QUERIES),
                              .total = take_floats(QUERIES * ATTN_RUNNING_SUMS),
                              .scores = {take_floats(SCORES), take_floats(SCORES)},
                              .p = {draw_half(SCORES, 3), draw_half(SCORES, 4)}};
    for (size_t i = 0; i < QUERIES; i++) b->walk.top[i] = ATTN_RUNNING_START;
    for (size_t i = 0; i < STEPS; i++)
        b->steps[i] = (attn_amx_step){.strip = i / TILES, .tile = i % TILES};
    return b;
}

/* ---- rows from memory -------------------------------------------------------------------- */

enum {
    FAR_ROWS = 4096,
    HEADS = 12,
    SWEPT_FLOATS = 100 << 20 /* more than any cache holds of the rest */
};

/* The q, k, v and o of all heads, and one head's packed. */
typedef struct far {
    size_t width, row; /* of a head; of a token: q, k and v */
    attn_bf16 *rows, *packed;
    float *o, *swept;
    const block *near; /* whose results are stored */
} far;

static void pack_far(const far *f, size_t part, const attn_amx_forms *to)
{
    for (size_t h = 0; h < HEADS; h++) {
        const attn_far_rows from = {.half = f->rows + (part * HEADS + h) * f->width, .row = f->row};
        attn_amx_pack(0, FAR_ROWS, f->width, from, to);
    }
}

static void pack_queries(void *of)
{
    const far *f = of;
    pack_far(f, 0, &(attn_amx_forms){.left = f->packed});
}

static void pack_keys(void *of)
{
    const far *f = of;
    pack_far(f, 1, &(attn_amx_forms){.right = f->packed});
}

static void pack_values(void *of)
{
    const far *f = of;
    pack_far(f, 2, &(attn_amx_forms){.right_of_p = f->packed, .row_strips = FAR_ROWS / ATTN_STRIP});
}

static void store_results(void *of)
{
    const far *f = of;
    const attn_amx_walk *w = &f->near->walk;
    for (size_t h = 0; h < HEADS; h++)
        for (size_t first = 0; first + QUERIES <= FAR_ROWS; first += QUERIES)
            attn_amx_store_rows(&(attn_amx_results){.rows = QUERIES,
                                                    .width = f->width,
                                                    .top = w->top,
                                                    .total = w->total,
                                                    .o = w->o,
                                                    .o_row = f->width,
                                                    .to = f->o + (first * HEADS + h) * f->width,
                                                    .to_row = HEADS * f->width});
}

/* With everything else in the caches before each reading. */
static void print_far(const char *name, void (*run)(void *), far *f, size_t rows)
{
    double best = INFINITY;
    for (size_t i = 0; i < 5; i++) {
        for (size_t j = 0; j < SWEPT_FLOATS; j += 16) f->swept[j] += 1.0f;
        best = fmin(best, best_s(run, f, 1));
    }
    printf("%-24s %8.1f\n", name, 1e9 * best / (double)(HEADS * rows));
}

static void print_part(const char *name, void (*run)(void *), block *b, size_t readings)
{
    printf("%-24s %8.2f\n", name, 1e9 * best_s(run, b, readings) / (STEPS * SCORES / 16));
}

int main(int count, char **arguments)
{
    const size_t readings = count > 1 ? strtoul(arguments[1], NULL, 10) : 100;
    const size_t width = count > 2 ? strtoul(arguments[2], NULL, 10) : 64;
    const bool is_width =
        width > 0 && width % ATTN_STRIP == 0 && width / ATTN_STRIP <= WIDTH_CELLS_MOST;
    if (readings < 1 || readings > READINGS_MOST || !is_width) {
        fprintf(stderr,
                "usage: bench_tiles [READINGS up to %d [HEAD_DIM, a multiple of %d up to %d]]\n",
                READINGS_MOST, ATTN_STRIP, ATTN_STRIP * WIDTH_CELLS_MOST);
        return EXIT_FAILURE;
    }
    if (attn_cpu_best_isa() < ATTN_ISA_AMX) {
        fprintf(stderr, "bench_tiles: this machine has no AMX\n");
        return EXIT_FAILURE;
    }
    block *b = prepare(width);
    attn_amx_begin();
    printf("512-bit vectors, G/s: alone, and for every %d a tile's product, load or store\n",
           VECTORS);
    print_vectors("multiply-add", multiply_add, readings);
    print_vectors("add", add, readings);
    printf("\nheads of %zu, 32 queries and 64 keys, ns for 16 scores\n", width);
    print_part("softmax", run_softmax, b, readings);
    print_part("Q K^T", run_scores, b, readings);
    print_part("P V", run_values, b, readings);
    print_part("a walk", run_walk, b, readings);
    attn_amx_end();
    far f = {.width = width,
             .row = 3 * HEADS * width,
             .rows = draw_half(FAR_ROWS * 3 * HEADS * width, 5),
             .packed = draw_half(FAR_ROWS * width, 6),
             .o = take_floats(FAR_ROWS * HEADS * width),
             .swept = take_floats(SWEPT_FLOATS),
             .near = b};
    printf("\nrows of %zu that lie %zu bytes apart in memory, ns each\n", width,
           f.row * sizeof *f.rows);
    print_far("q packed", pack_queries, &f, FAR_ROWS);
    print_far("k packed", pack_keys, &f, FAR_ROWS);
    print_far("v packed", pack_values, &f, FAR_ROWS);
    print_far("o stored", store_results, &f, FAR_ROWS / QUERIES * QUERIES);
    return EXIT_SUCCESS;
}
