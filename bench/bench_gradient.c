/* Times what the backward pass of bfloat16 attention is made of at level amx, on one thread: P and dS
 * with S and dP beside them, and the products that take them in, in the order of a head that sees all
 * keys, with everything packed and in place; and the rows that have to be packed for it and stored
 * behind it, in memory, where those of a head lie apart.
 *
 *     bench_gradient [READINGS [WIDTH]]
 *
 * Heads of 64, or of another multiple of 32 numbers. With few tokens all of it stays in the second
 * cache. The best of all readings counts: what another process disturbs says nothing. Run one on each
 * core at once for what two threads get. */
#include "base/clock.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "base/random.h"
#include "kernels/attention_amx.h"
#include "kernels/bf16.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SQUARE = ATTN_STRIP * ATTN_STRIP,
    STRIPS = 8, /* of a block, either way */
    UNITS = STRIPS * STRIPS,
    RANGE = 2 * STRIPS, /* strips of keys that all queries see before others */
    READINGS_MOST = 1000,
    WIDTH_MOST = 256
};

static size_t width_cells = 2; /* of a head */

/* Of 32 queries or keys. */
static size_t strip_numbers(void)
{
    return width_cells * ATTN_CELL;
}

typedef enum part { FACTORS, QUERIES, KEYS, PARTS } part;

typedef struct walk {
    size_t strips; /* of the queries, and of the keys */
    const attn_bf16 *keys, *values, *key_rows, *q, *d_o, *q_columns, *d_o_columns;
    attn_bf16 *p_right, *ds_right, *ds_left; /* of a block */
    float *scores, *dp;                      /* of two units */
    float *top, *delta, *dq, *dk, *dv;
    double time_s[PARTS];
} walk;

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

static attn_amx_scores ask_scores(const walk *w, size_t i0, size_t j0, size_t unit)
{
    const size_t row = (i0 + unit / STRIPS) * strip_numbers();
    const size_t column = (j0 + unit % STRIPS) * strip_numbers();
    return (attn_amx_scores){.q = w->q + row,
                             .keys = w->keys + column,
                             .d_o = w->d_o + row,
                             .values = w->values + column,
                             .key_cells = width_cells,
                             .value_cells = width_cells,
                             .scores = w->scores + unit % 2 * SQUARE,
                             .dp = w->dp + unit % 2 * SQUARE};
}

static void make_factors(const walk *w, size_t i0, size_t j0)
{
    attn_amx_scores next = ask_scores(w, i0, j0, 0);
    attn_amx_run_gradient(NULL, &next);
    for (size_t unit = 0; unit < UNITS; unit++) {
        const size_t row = unit / STRIPS, right = (unit % STRIPS * STRIPS + row) * ATTN_CELL;
        const attn_amx_gradient now = {.factor = 0.18f,
                                       .scores = w->scores + unit % 2 * SQUARE,
                                       .dp = w->dp + unit % 2 * SQUARE,
                                       .top = w->top + (i0 + row) * ATTN_STRIP,
                                       .delta = w->delta + (i0 + row) * ATTN_STRIP,
                                       .p_right = w->p_right + right,
                                       .ds_right = w->ds_right + right,
                                       .ds_left = w->ds_left + unit * ATTN_CELL};
        if (unit + 1 < UNITS) next = ask_scores(w, i0, j0, unit + 1);
        attn_amx_run_gradient(&now, unit + 1 < UNITS ? &next : NULL);
    }
}

static void add_queries(const walk *w, size_t i0, size_t j0)
{
    for (size_t i = 0; i < width_cells; i++) {
        attn_amx_block blocks[STRIPS];
        for (size_t s = 0; s < STRIPS; s++)
            blocks[s] =
                (attn_amx_block){.left = w->ds_left + s * STRIPS * ATTN_CELL,
                                 .right = w->key_rows + (i * w->strips + j0) * ATTN_CELL,
                                 .n_cells = STRIPS,
                                 .sums = w->dq + (i0 + s) * strip_numbers() + i * ATTN_STRIP,
                                 .sums_row = width_cells * ATTN_STRIP,
                                 .adds = true};
        attn_amx_multiply(STRIPS, blocks);
    }
}

static void add_keys(const walk *w, size_t i0, size_t j0, const attn_bf16 *left,
                     const attn_bf16 *right, float *sums)
{
    for (size_t i = 0; i < width_cells; i++) {
        attn_amx_block blocks[STRIPS];
        for (size_t s = 0; s < STRIPS; s++)
            blocks[s] = (attn_amx_block){.left = left + (i * w->strips + i0) * ATTN_CELL,
                                         .right = right + s * STRIPS * ATTN_CELL,
                                         .n_cells = STRIPS,
                                         .sums = sums + ((j0 + s) * width_cells + i) * SQUARE,
                                         .sums_row = ATTN_STRIP,
                                         .adds = true};
        attn_amx_multiply(STRIPS, blocks);
    }
}

static void run_block(walk *w, size_t i0, size_t j0)
{
    const uint64_t start_ns = attn_clock_ns();
    make_factors(w, i0, j0);
    const uint64_t queries_ns = attn_clock_ns();
    add_queries(w, i0, j0);
    const uint64_t keys_ns = attn_clock_ns();
    add_keys(w, i0, j0, w->d_o_columns, w->p_right, w->dv);
    add_keys(w, i0, j0, w->q_columns, w->ds_right, w->dk);
    w->time_s[FACTORS] += attn_clock_seconds(start_ns, queries_ns);
    w->time_s[QUERIES] += attn_clock_seconds(queries_ns, keys_ns);
    w->time_s[KEYS] += attn_clock_seconds(keys_ns, attn_clock_ns());
}

/* Memory is given back by the end of the program. */
static walk prepare(size_t strips)
{
    const size_t packed = strips * strip_numbers(), block = UNITS * ATTN_CELL;
    return (walk){.strips = strips,
                  .keys = draw_half(packed, 0),
                  .values = draw_half(packed, 1),
                  .key_rows = draw_half(packed, 2),
                  .q = draw_half(packed, 3),
                  .d_o = draw_half(packed, 4),
                  .q_columns = draw_half(packed, 5),
                  .d_o_columns = draw_half(packed, 6),
                  .p_right = draw_half(block, 7),
                  .ds_right = draw_half(block, 8),
                  .ds_left = draw_half(block, 9),
                  .scores = take_floats(2 * SQUARE),
                  .dp = take_floats(2 * SQUARE),
                  .top = take_floats(strips * ATTN_STRIP),
                  .delta = take_floats(strips * ATTN_STRIP),
                  .dq = take_floats(packed),
                  .dk = take_floats(packed),
                  .dv = take_floats(packed)};
}

static void print_walk(size_t tokens, size_t readings)
{
    walk w = prepare(tokens / ATTN_STRIP);
    double best[PARTS] = {INFINITY, INFINITY, INFINITY}, whole = INFINITY;
    for (size_t reading = 0; reading < readings; reading++) {
        for (part p = 0; p < PARTS; p++) w.time_s[p] = 0.0;
        for (size_t first = 0; first < w.strips; first += RANGE)
            for (size_t i0 = 0; i0 < w.strips; i0 += STRIPS)
                for (size_t j0 = first; j0 < first + RANGE && j0 < w.strips; j0 += STRIPS)
                    run_block(&w, i0, j0);
        double sum = 0.0;
        for (part p = 0; p < PARTS; p++) {
            best[p] = fmin(best[p], w.time_s[p]);
            sum += w.time_s[p];
        }
        whole = fmin(whole, sum);
    }
    const double vectors = (double)tokens * (double)tokens / 16.0;
    printf("%6zu %8.2f %8.2f %8.2f %8.2f\n", tokens, 1e9 * best[FACTORS] / vectors,
           1e9 * best[QUERIES] / vectors, 1e9 * best[KEYS] / vectors, 1e9 * whole / vectors);
}

/* ---- rows -------------------------------------------------------------------------------- */

enum {
    FAR_ROWS = 4096,
    HEADS = 12,
    NEAR_ROWS = STRIPS * ATTN_STRIP, /* of a block, which are packed together */
    SWEPT_FLOATS = 100 << 20         /* more than any cache holds of the rest */
};

static size_t width(void)
{
    return width_cells * ATTN_STRIP;
}

/* Numbers of a token in q, k, v, dO and o each. */
static size_t row_width(void)
{
    return HEADS * width();
}

/* All heads' rows in memory, and one block's forms and sums. */
typedef struct far {
    attn_bf16 *qkv, *d_o, *gradients; /* [FAR_ROWS][3 rows of heads], [FAR_ROWS][one], as qkv */
    float *o, *swept;
    attn_bf16 *forms[6];
    float *delta, *sums, *square;
} far;

static far prepare_far(void)
{
    const size_t near = NEAR_ROWS * width();
    far f = {.qkv = draw_half(FAR_ROWS * 3 * row_width(), 0),
             .d_o = draw_half(FAR_ROWS * row_width(), 1),
             .gradients = draw_half(FAR_ROWS * 3 * row_width(), 2),
             .o = take_floats(FAR_ROWS * row_width()),
             .swept = take_floats(SWEPT_FLOATS),
             .delta = take_floats(NEAR_ROWS),
             .sums = take_floats(near),
             .square = take_floats(SQUARE)};
    for (size_t i = 0; i < sizeof f.forms / sizeof *f.forms; i++) f.forms[i] = draw_half(near, 3);
    return f;
}

static void pack_rows(const far *f, size_t head, size_t first)
{
    const attn_bf16 *q = f->qkv + (first * 3 * HEADS + head) * width();
    attn_bf16 *const *forms = f->forms;
    const size_t at = (first * HEADS + head) * width();
    const attn_far_rows rows[] = {{.half = q, .row = 3 * row_width()},
                                  {.half = q + row_width(), .row = 3 * row_width()},
                                  {.half = q + 2 * row_width(), .row = 3 * row_width()}};
    const attn_amx_output_rows output = {.d_o = {.half = f->d_o + at, .row = row_width()},
                                         .o = f->o + at,
                                         .o_row = row_width(),
                                         .delta = f->delta};
    for (size_t i = 0; i < NEAR_ROWS; i++) f->delta[i] = 1.0f;
    attn_amx_pack(
        0, NEAR_ROWS, width(), rows[0],
        &(attn_amx_forms){.left = forms[0], .transposed = forms[1], .row_strips = STRIPS});
    attn_amx_pack_gradient(
        0, NEAR_ROWS, width(), &output,
        &(attn_amx_forms){.left = forms[2], .transposed = forms[3], .row_strips = STRIPS});
    attn_amx_pack(
        0, NEAR_ROWS, width(), rows[1],
        &(attn_amx_forms){.right = forms[4], .right_of_p = forms[5], .row_strips = STRIPS});
    attn_amx_pack(0, NEAR_ROWS, width(), rows[2], &(attn_amx_forms){.right = forms[4]});
}

/* dq row by row, dk and dv from their transposes. */
static void store_rows(const attn_kernels *kernels, const far *f, size_t head, size_t first)
{
    attn_bf16 *dq = f->gradients + (first * 3 * HEADS + head) * width();
    kernels->round_rows(NEAR_ROWS, width(), 0.18f, NULL, f->sums, width(), dq, 3 * row_width());
    for (size_t of = 1; of < 3; of++)
        for (size_t row = 0; row < NEAR_ROWS; row += ATTN_STRIP)
            for (size_t column = 0; column < width(); column += ATTN_STRIP) {
                attn_bf16 *to = dq + of * row_width() + row * 3 * row_width() + column;
                kernels->transpose(ATTN_STRIP, ATTN_STRIP, f->sums + row * width() + column,
                                   width(), f->square, ATTN_STRIP);
                kernels->round_rows(ATTN_STRIP, ATTN_STRIP, 0.18f, NULL, f->square, ATTN_STRIP, to,
                                    3 * row_width());
            }
}

/* With everything else in the caches before each reading. */
static void print_rows(size_t readings)
{
    const attn_kernels *kernels = attn_kernels_for(ATTN_ISA_AMX);
    const far f = prepare_far();
    double packed_s = INFINITY, stored_s = INFINITY;
    for (size_t reading = 0; reading < readings; reading++) {
        double time_s[2] = {0.0, 0.0};
        for (size_t i = 0; i < SWEPT_FLOATS; i += 16) f.swept[i] += 1.0f;
        for (size_t head = 0; head < HEADS; head++)
            for (size_t first = 0; first < FAR_ROWS; first += NEAR_ROWS) {
                const uint64_t start_ns = attn_clock_ns();
                pack_rows(&f, head, first);
                const uint64_t packed_ns = attn_clock_ns();
                store_rows(kernels, &f, head, first);
                time_s[0] += attn_clock_seconds(start_ns, packed_ns);
                time_s[1] += attn_clock_seconds(packed_ns, attn_clock_ns());
            }
        packed_s = fmin(packed_s, time_s[0]);
        stored_s = fmin(stored_s, time_s[1]);
    }
    const double rows = (double)HEADS * FAR_ROWS, scores = (FAR_ROWS + 1) / 2.0 / 16.0;
    printf("\nns for a row of a head in memory\nq, k, v, dO and o packed %8.1f\n",
           1e9 * packed_s / rows);
    printf("dq, dk and dv stored      %8.1f\n", 1e9 * stored_s / rows);
    printf("both, for 16 scores of %d causal tokens %.2f\n", FAR_ROWS,
           1e9 * (packed_s + stored_s) / rows / scores);
}

int main(int count, char **arguments)
{
    const size_t readings = count > 1 ? strtoul(arguments[1], NULL, 10) : 20;
    const size_t wanted = count > 2 ? strtoul(arguments[2], NULL, 10) : 64;
    if (readings < 1 || readings > READINGS_MOST || wanted < ATTN_STRIP || wanted > WIDTH_MOST ||
        wanted % ATTN_STRIP != 0) {
        fprintf(stderr, "usage: bench_gradient [READINGS up to %d [WIDTH, of 32s, up to %d]]\n",
                READINGS_MOST, WIDTH_MOST);
        return EXIT_FAILURE;
    }
    width_cells = wanted / ATTN_STRIP;
    if (attn_cpu_best_isa() < ATTN_ISA_AMX) {
        fprintf(stderr, "bench_gradient: this machine has no AMX\n");
        return EXIT_FAILURE;
    }
    attn_amx_begin();
    puts("ns for 16 scores\ntokens  P dS       dQ    dK dV    whole");
    print_walk(256, 16 * readings);
    print_walk(1024, 4 * readings);
    print_walk(4096, readings);
    attn_amx_end();
    print_rows(readings < 10 ? readings : 10);
    return EXIT_SUCCESS;
}
