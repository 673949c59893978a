/* Times what a chunk of a linear recurrence is made of, apart: its rows on their way between memory
 * and cache, its products, and what lies between them; so what share of the rate of products a walk
 * over chunks can reach.
 *
 *     bench_rows [READINGS]
 *
 * The bound takes rows and arithmetic side by side; "together" is what that comes to in one walk.
 * T = 4096, batch 2, 12 heads of 64, two threads. The best of all readings counts. Operations are
 * calls of the kernels that mechanisms call, of the same sizes and numbers; tables say which. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/threads.h"
#include "kernels/kernels.h"
#include "mechanisms/head_rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { T = 4096, BATCH = 2, HEADS = 12, D = 64, C = 64, WIDTH = HEADS * D, THREADS = 2 };
enum {
    BLOCK = C * D,
    SETS = 16,
    CHUNKS = 256,
    READINGS_MOST = 1000,
    STEPS_MOST = 20,
    WALKS_MOST = 2
};

typedef enum operation {
    END,
    PRODUCT, /* of m x n x k; the others are of blocks of m x n */
    ELU,
    ELU_GRADIENT,
    SUMS,
    DOTS,
    SQUARES,
    TURN,
    CLEAR, /* above the diagonal */
    COPY,
    TIMES,
    TIMES_ROWS, /* a row by a number */
    PLUS,
    EXP,
    SILU,
    SILU_GRADIENT,
    LOG_SIGMOID,
    ROTATE,
    DECAYED,
    DECAYED_GRADIENT
} operation;

typedef struct step {
    operation what;
    size_t times, m, n, k;
} step;

/* What a walk reads of a head's tokens, or writes where the letter is a capital: q, k, v, g in the
 * layer's rows or in those of gradients; o, its gradient d, and y, which wo is given; z of gla's
 * decays; r of deltanet and s, a state, without gaps. */
typedef struct walk {
    const char *name;
    size_t row, key;               /* floats of the layer's rows; of a head's key */
    const char *parts[WALKS_MOST]; /* of a chunk, in each walk over the sequence */
    step steps[STEPS_MOST];
} walk;

static const walk walks[] = {
    {"linear forward",
     3 * WIDTH,
     D,
     {"kvqO"},
     {{PRODUCT, 4, C, D, D},
      {PRODUCT, 1, 1, D, C},
      {ELU, 2, C, D, 0},
      {SUMS, 1, C, C, 0},
      {DOTS, 1, C, D, 0},
      {TURN, 1, C, D, 0},
      {CLEAR, 1, C, C, 0}}},
    {"linear backward",
     3 * WIDTH,
     D,
     {"kvS", "kvqdosQKV"},
     {{PRODUCT, 10, C, D, D},
      {PRODUCT, 2, 1, D, C},
      {ELU, 3, C, D, 0},
      {ELU_GRADIENT, 2, C, D, 0},
      {DOTS, 1, C, D, 0},
      {TURN, 3, C, D, 0},
      {CLEAR, 2, C, C, 0},
      {PLUS, 3, C, D, 0},
      {COPY, 2, C, D, 0}}},
    {"retnet forward",
     4 * WIDTH,
     D,
     {"kvqgOY"},
     {{PRODUCT, 4, C, D, D},
      {ROTATE, 2, C, D, 0},
      {TIMES, 3, C, D, 0},
      {TIMES_ROWS, 3, C, D, 0},
      {TURN, 1, C, D, 0},
      {CLEAR, 1, C, C, 0},
      {COPY, 1, C, D, 0},
      {SQUARES, 1, C, D, 0},
      {SILU, 1, C, D, 0}}},
    {"retnet backward",
     4 * WIDTH,
     D,
     {"kvS", "kvqgodsQKVGY"},
     {{PRODUCT, 10, C, D, D},
      {ROTATE, 5, C, D, 0},
      {TIMES, 9, C, D, 0},
      {TIMES_ROWS, 6, C, D, 0},
      {TURN, 3, C, D, 0},
      {CLEAR, 2, C, C, 0},
      {COPY, 5, C, D, 0},
      {SQUARES, 1, C, D, 0},
      {PLUS, 3, C, D, 0},
      {DOTS, 1, C, D, 0},
      {SILU, 1, C, D, 0},
      {SILU_GRADIENT, 1, C, D, 0}}},
    {"gla forward",
     3 * WIDTH + 16,
     D / 2,
     {"kvzqgOY"},
     {{PRODUCT, 1, C, D, D / 2},
      {PRODUCT, 1, C, D, C},
      {PRODUCT, 1, D / 2, D, C},
      {PRODUCT, 3, 16, 32, D / 2},
      {DECAYED, 4, 16, D / 2, 0},
      {LOG_SIGMOID, 1, C, D / 2, 0},
      {EXP, 1, C, D / 2, 0},
      {TIMES, 4, C, D / 2, 0},
      {TIMES, 2, C, D, 0},
      {TIMES_ROWS, 3, D / 2, D, 0},
      {TIMES_ROWS, 1, C, D, 0},
      {TURN, 1, C, D / 2, 0},
      {COPY, 4, C, D / 2, 0},
      {SQUARES, 1, C, D, 0},
      {SILU, 1, C, D, 0}}},
    {"gla backward",
     3 * WIDTH + 16,
     D / 2,
     {"kvzS", "kvzqgodsQKVGZY"},
     {{PRODUCT, 3, C, D / 2, D},
      {PRODUCT, 2, C, D, C},
      {PRODUCT, 1, C, D, D / 2},
      {PRODUCT, 1, D / 2, D, C},
      {PRODUCT, 6, 16, 32, D / 2},
      {PRODUCT, 3, 32, D / 2, 16},
      {DECAYED, 4, 16, D / 2, 0},
      {DECAYED_GRADIENT, 4, 16, D / 2, 0},
      {LOG_SIGMOID, 3, C, D / 2, 0},
      {EXP, 2, C, D / 2, 0},
      {TIMES, 14, C, D / 2, 0},
      {TIMES, 4, C, D, 0},
      {TIMES_ROWS, 4, D / 2, D, 0},
      {PLUS, 10, C, D / 2, 0},
      {TURN, 3, C, D / 2, 0},
      {COPY, 9, C, D / 2, 0},
      {SQUARES, 1, C, D, 0},
      {SILU, 1, C, D, 0},
      {SILU_GRADIENT, 1, C, D, 0}}},
    {"deltanet forward",
     3 * WIDTH + HEADS,
     D,
     {"kvqOYR"},
     {{PRODUCT, 6, C, D, D},
      {PRODUCT, 7, 8, D, 32},
      {PRODUCT, 56, 1, D, 4},
      {SILU, 3, C, D, 0},
      {SQUARES, 3, C, D, 0},
      {TIMES_ROWS, 4, C, D, 0},
      {TIMES, 3, C, D, 0},
      {TURN, 1, C, D, 0},
      {CLEAR, 2, C, C, 0},
      {COPY, 5, C, D, 0}}},
    {"deltanet backward",
     3 * WIDTH + HEADS,
     D,
     {"krS", "kvqrodsQKVY"},
     {{PRODUCT, 16, C, D, D},
      {PRODUCT, 7, 8, D, 32},
      {PRODUCT, 56, 1, D, 4},
      {SILU, 4, C, D, 0},
      {SILU_GRADIENT, 3, C, D, 0},
      {SQUARES, 4, C, D, 0},
      {DOTS, 4, C, D, 0},
      {TIMES_ROWS, 8, C, D, 0},
      {TIMES, 6, C, D, 0},
      {PLUS, 6, C, D, 0},
      {TURN, 3, C, D, 0},
      {CLEAR, 4, C, C, 0},
      {COPY, 9, C, D, 0}}},
};

static const attn_kernels *kernels;
static float *matrices[256]; /* by letter */
static const walk *at;       /* the case at hand */

/* ---- rows -------------------------------------------------------------------------------- */

/* A head's first row of a chunk. */
typedef struct rows {
    float *from;
    size_t row, n;
    bool is_written;
} rows;

static rows rows_of(char letter, size_t sequence, size_t t, size_t h)
{
    const bool is_written = letter >= 'A' && letter <= 'Z';
    const char name = (char)(is_written ? letter - 'A' + 'a' : letter);
    const size_t first = sequence * T + t, keys = HEADS * at->key;
    const size_t alone = (sequence * HEADS + h) * T + t;
    float *matrix = matrices[(unsigned char)letter], *wide = matrices[is_written ? 'Q' : 'q'];
    switch (name) {
    case 'q':
        return (rows){wide + first * at->row + h * at->key, at->row, at->key, is_written};
    case 'k':
        return (rows){wide + first * at->row + keys + h * at->key, at->row, at->key, is_written};
    case 'v':
        return (rows){wide + first * at->row + 2 * keys + h * D, at->row, D, is_written};
    case 'g':
        return (rows){wide + first * at->row + 2 * keys + WIDTH + h * D, at->row, D, is_written};
    case 'z':
        return (rows){matrix + first * keys + h * at->key, keys, at->key, is_written};
    case 'r':
        return (rows){matrix + alone * D, D, D, is_written};
    case 's':
        return (rows){matrix + alone * at->key, at->key, at->key, is_written};
    default:
        return (rows){matrix + first * WIDTH + h * D, WIDTH, D, is_written};
    }
}

/* As engines walk: heads of a task together, chunk by chunk, the next one's rows asked for. */
static void move_rows(void *argument, size_t task, size_t worker)
{
    float *near = (float *)argument + worker * SETS * 3 * BLOCK;
    const size_t together = attn_heads_together(HEADS, BATCH, THREADS);
    const attn_head_range heads = attn_heads_of(task, HEADS, together);
    for (size_t pass = 0; pass < WALKS_MOST && at->parts[pass]; pass++)
        for (size_t t = 0; t < T; t += C)
            for (size_t h = heads.first; h < heads.end; h++)
                for (const char *letter = at->parts[pass]; *letter; letter++) {
                    const bool is_last = h + 1 == heads.end;
                    const rows r = rows_of(*letter, heads.sequence, t, h);
                    const rows next = rows_of(*letter, heads.sequence, is_last ? t + C : t,
                                              is_last ? heads.first : h + 1);
                    if (!is_last || t + C < T) attn_fetch_rows(C, next.n, next.from, next.row);
                    if (r.is_written)
                        kernels->copy_rows(C, r.n, 1.0f, NULL, near, r.n, r.from, r.row);
                    else
                        kernels->copy_rows(C, r.n, 1.0f, NULL, r.from, r.row, near, r.n);
                }
}

/* ---- arithmetic -------------------------------------------------------------------------- */

/* b becomes what it says of a, or of both; numbers stay near 1 however often that is done. */
static void run_rows(const step *s, const float *a, const float *ones, float *b)
{
    const attn_far_rows far = {.single = a, .row = s->n};
    float sums[C];
    for (size_t i = 0; i < s->m; i++) {
        const float *x = a + i * s->n;
        float *y = b + i * s->n;
        if (s->what == SUMS) sums[i] = kernels->sum(s->n, x);
        if (s->what == SQUARES) sums[i] = (float)kernels->sum_squares(s->n, x);
        if (s->what == ROTATE) kernels->rotate(s->n / 2, ones, ones, 1.0f, x, y);
        if (s->what == ELU_GRADIENT) kernels->elu_plus_one_gradient(s->n, x, x, ones, y);
    }
    if (s->what == DOTS) kernels->dot_rows(1, s->m, s->n, ones, s->n, far, sums, s->m);
    b[0] = s->what == SUMS || s->what == SQUARES || s->what == DOTS ? sums[s->m - 1] : b[0];
}

static void run_step(const step *s, float *a, float *ones, float *b)
{
    const size_t count = s->m * s->n;
    switch (s->what) {
    case PRODUCT:
        kernels->product(s->m, s->n, s->k, a, s->k, 1, ones, s->n, b, s->n, false);
        break;
    case TURN:
        kernels->transpose(s->m, s->n, a, s->n, b, s->m);
        break;
    case COPY:
        memcpy(b, a, count * sizeof *b);
        break;
    case TIMES:
        kernels->multiply(count, ones, b);
        break;
    case TIMES_ROWS:
        kernels->scale_rows(s->m, s->n, ones, b, s->n);
        break;
    case ELU:
        kernels->elu_plus_one(s->m, s->n, a, s->n, b);
        break;
    case CLEAR:
        kernels->keep_lower(s->m, s->n, NULL, b, s->n);
        break;
    case PLUS:
        kernels->add(count, a, b);
        break;
    case EXP:
        kernels->exp_shifted(count, 1.0f, b);
        break;
    case SILU:
        kernels->silu(count, a, b);
        break;
    case SILU_GRADIENT:
        kernels->silu_gradient(count, a, ones, b);
        break;
    case LOG_SIGMOID:
        kernels->log_sigmoid(count, a, b);
        break;
    case DECAYED:
        kernels->decayed_scores(s->m, s->n, a, ones, b, C, b + BLOCK / 2, C);
        break;
    case DECAYED_GRADIENT:
        kernels->decayed_scores_gradient(s->m, s->n, a, a, ones, ones, C, b, b + BLOCK / 2);
        break;
    default:
        run_rows(s, a, ones, b);
    }
}

typedef struct arithmetic {
    float *near;
    const step *steps;
    size_t sets; /* of blocks that take turns: 1 lies in the first cache, SETS in the second */
    bool wants_products;
} arithmetic;

static void run_arithmetic(void *argument, size_t task, size_t worker)
{
    const arithmetic *of = argument;
    float *near = of->near + worker * SETS * 3 * BLOCK;
    size_t turn = 0;
    (void)task;
    for (size_t chunk = 0; chunk < CHUNKS; chunk++)
        for (const step *s = of->steps; s->what != END; s++)
            for (size_t i = 0; i < s->times && (s->what == PRODUCT) == of->wants_products; i++) {
                float *a = near + turn++ % of->sets * 3 * BLOCK;
                run_step(s, a, a + BLOCK, a + 2 * BLOCK);
            }
}

/* ---- both -------------------------------------------------------------------------------- */

/* Rows of a head's chunk from or to the cache. */
static void copy_parts(const char *letters, bool wants_written, size_t sequence, size_t t, size_t h,
                       float *near)
{
    for (; *letters; letters++) {
        const rows r = rows_of(*letters, sequence, t, h);
        if (r.is_written != wants_written) continue;
        if (r.is_written)
            kernels->copy_rows(C, r.n, 1.0f, NULL, near, r.n, r.from, r.row);
        else
            kernels->copy_rows(C, r.n, 1.0f, NULL, r.from, r.row, near, r.n);
    }
}

/* The walk with all its arithmetic, in the last pass, while the next chunk's rows are asked for within
 * the products: what an engine would take if nothing in it waited for anything else. */
static void run_together(void *argument, size_t task, size_t worker)
{
    float *near = (float *)argument + worker * SETS * 3 * BLOCK;
    const size_t together = attn_heads_together(HEADS, BATCH, THREADS);
    const attn_head_range heads = attn_heads_of(task, HEADS, together);
    const size_t passes = at->parts[1] ? 2 : 1, n = heads.end - heads.first;
    for (size_t pass = 0; pass < passes; pass++)
        for (size_t i = 0; i < T / C * n; i++) {
            const size_t t = i / n * C, h = heads.first + i % n;
            const size_t next_t = (i + 1) / n * C, next_h = heads.first + (i + 1) % n;
            attn_ahead ahead = {.rows = C};
            for (const char *letter = at->parts[pass]; *letter && next_t < T; letter++) {
                const rows r = rows_of(*letter, heads.sequence, next_t, next_h);
                if (ahead.n_parts < sizeof ahead.parts / sizeof *ahead.parts)
                    attn_ahead_add(&ahead, r.n, r.from, r.row, r.is_written);
            }
            copy_parts(at->parts[pass], false, heads.sequence, t, h, near);
            for (const step *s = at->steps; s->what != END && pass + 1 == passes; s++)
                for (size_t turn = 0; turn < s->times; turn++) {
                    float *a = near + turn % 4 * 3 * BLOCK, *b = a + BLOCK, *c = b + BLOCK;
                    if (s->what == PRODUCT)
                        attn_ahead_product(kernels, &ahead, s->m, s->n, s->k, a, s->k, 1, b, s->n,
                                           c, s->n, false);
                    else
                        run_step(s, a, b, c);
                }
            copy_parts(at->parts[pass], true, heads.sequence, t, h, near);
        }
}

/* ---- main -------------------------------------------------------------------------------- */

static size_t readings = 5;

static double best_us(attn_task *task, size_t tasks, void *argument, size_t chunks)
{
    double best = INFINITY;
    for (size_t i = 0; i < readings; i++) {
        const uint64_t start_ns = attn_clock_ns();
        attn_parallel(THREADS, tasks, task, argument);
        best = fmin(best, 1e6 * attn_clock_seconds(start_ns, attn_clock_ns()));
    }
    return best / (double)chunks;
}

static double arithmetic_us(float *near, const step *steps, size_t sets, bool wants_products)
{
    arithmetic of = {near, steps, sets, wants_products};
    return best_us(run_arithmetic, THREADS, &of, CHUNKS);
}

static void print_walk(float *near, double unit_us)
{
    const size_t together = attn_heads_together(HEADS, BATCH, THREADS);
    const size_t tasks = attn_head_tasks(HEADS, BATCH, together);
    const size_t chunks = BATCH * HEADS * (T / C) / THREADS;
    const double rows_us = best_us(move_rows, tasks, near, chunks);
    const double first_us = arithmetic_us(near, at->steps, 1, true);
    const double second_us = arithmetic_us(near, at->steps, SETS, true);
    const double rest_us = arithmetic_us(near, at->steps, SETS, false);
    double products = 0.0; /* of C x D x D */
    for (const step *s = at->steps; s->what == PRODUCT; s++)
        products += (double)(s->times * s->m * s->n * s->k) / (C * D * D);
    const double together_us = best_us(run_together, tasks, near, chunks);
    const double bound_us = fmax(rows_us, second_us + rest_us), rate_us = products * unit_us;
    printf("%-18s %6.1f %6.1f %6.1f %6.1f %6.1f %6.1f %5.0f %9.1f %5.0f\n", at->name, rows_us,
           rate_us, first_us, second_us, rest_us, bound_us, 100.0 * rate_us / bound_us, together_us,
           100.0 * rate_us / together_us);
}

/* Written once: pages that nobody has written are all the same one. */
static float *take(size_t n)
{
    float *floats = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *floats);
    if (!floats) {
        fprintf(stderr, "bench_rows: no memory\n");
        exit(EXIT_FAILURE);
    }
    for (size_t i = 0; i < n; i++) floats[i] = (float)(i % 64) / 64.0f - 0.5f;
    return floats;
}

int main(int count, char **arguments)
{
    if (count > 1) readings = strtoul(arguments[1], NULL, 10);
    if (readings < 1 || readings > READINGS_MOST) {
        fprintf(stderr, "usage: bench_rows [READINGS up to %d]\n", READINGS_MOST);
        return EXIT_FAILURE;
    }
    kernels = attn_kernels_for(attn_cpu_best_isa());
    matrices['q'] = take(BATCH * T * 4 * WIDTH);
    matrices['Q'] = take(BATCH * T * 4 * WIDTH);
    for (const char *letter = "odyzrsDOYZRS"; *letter; letter++)
        matrices[(unsigned char)*letter] = take(BATCH * T * WIDTH);
    float *near = take(THREADS * SETS * 3 * BLOCK);
    for (size_t i = 0; i < THREADS * SETS * 3 * BLOCK; i++)
        if (i / BLOCK % 3 == 1) near[i] = 1.0f;
    static const step product[] = {{PRODUCT, 4, C, D, D}, {0}};
    const double unit_us = arithmetic_us(near, product, 1, true) / 4.0;
    printf("a product of %d x %d x %d: %.2f us on each of %d threads\n\n", C, D, D, unit_us,
           THREADS);
    printf("us a chunk of a head                at the   first second\n");
    printf("%-18s %6s %6s %6s %6s %6s %6s %5s %9s %5s\n", "", "rows", "rate", "cache", "cache",
           "rest", "bound", "%", "together", "%");
    for (at = walks; at < walks + sizeof walks / sizeof *walks; at++) print_walk(near, unit_us);
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) attn_free(matrices[i]);
    attn_free(near);
    return EXIT_SUCCESS;
}
