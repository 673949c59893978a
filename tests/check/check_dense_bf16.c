/* Dense products in bfloat16 at odd sizes, at every level, with 1 to 3 threads: each result
 * against float64 on the same bfloat16 factors, the same bits for any number of threads, special
 * numbers, short memory, and the counted work. */
#include "check_kernels.h"

#include "base/memory.h"
#include "kernels/dense_bf16.h"

#include <math.h>
#include <string.h>

/* Half the distance between 1 and the next bfloat16 number. */
#define HALF_UNIT 0x1p-8

typedef struct layer_size {
    size_t rows, in, out;
} layer_size;

static const layer_size sizes[] = {{1, 1, 1},      {1, 64, 64},    {2, 5, 3},      {17, 40, 33},
                                   {31, 33, 65},   {64, 96, 64},   {65, 257, 63},  {1023, 100, 31},
                                   {33, 800, 70},  {40, 70, 1700}, {96, 1600, 32}, {1023, 64, 129},
                                   {1100, 40, 40}, {35, 63, 1090}, {40, 512, 530}, {1, 1601, 131},
                                   {4, 800, 70},   {5, 800, 70},   {35, 800, 1090}};

enum { DY_GAP = 3 }; /* numbers between rows of dy, which no product may read */

/* A layer's numbers, and the same for arithmetic in float64. */
typedef struct layer_data {
    layer_size size;
    size_t dy_row;
    attn_bf16 *x, *dy, *packed;
    float *w, *bias;
    double *wide_x, *wide_w, *wide_dy;
} layer_data;

static attn_bf16 *rounded(check_run *run, size_t n, const float *from, double *wide)
{
    attn_bf16 *out = check_halves(run, n, CHECK_AT_END);
    for (size_t i = 0; i < n; i++) {
        out[i] = attn_bf16_from_float(from[i]);
        wide[i] = (double)attn_bf16_to_float(out[i]);
    }
    return out;
}

static layer_data data_of(check_run *run, layer_size s, attn_context *context)
{
    const check_shape shape = {0, CHECK_AT_END, 1.0};
    layer_data d = {.size = s,
                    .w = check_random(run, &shape, s.out * s.in),
                    .bias = check_random(run, &shape, s.out),
                    .packed =
                        check_halves(run, attn_dense_bf16_packed(s.out, s.in), CHECK_AT_START),
                    .wide_x = check_doubles(run, s.rows * s.in),
                    .wide_w = check_doubles(run, s.out * s.in),
                    .wide_dy = check_doubles(run, s.rows * s.out)};
    const float *x = check_random(run, &shape, s.rows * s.in);
    const float *dy = check_random(run, &shape, s.rows * s.out);
    d.x = rounded(run, s.rows * s.in, x, d.wide_x);
    const attn_bf16 *close = rounded(run, s.rows * s.out, dy, d.wide_dy);
    d.dy_row = s.out + DY_GAP;
    d.dy = check_halves(run, s.rows * d.dy_row - DY_GAP, CHECK_AT_END);
    for (size_t i = 0; i < s.rows; i++)
        memcpy(d.dy + i * d.dy_row, close + i * s.out, s.out * sizeof *close);
    rounded(run, s.out * s.in, d.w, d.wide_w);
    attn_dense_bf16_pack(context, s.out, s.in, d.w, d.packed);
    return d;
}

/* One product in float64: (i, j) is the sum over k of a[i a_row + k a_k] b[j b_column + k b_k]. */
typedef struct definition {
    size_t m, n, k;
    const double *a;
    size_t a_row, a_k;
    const double *b;
    size_t b_column, b_k;
} definition;

static definition forward_of(const layer_data *d)
{
    const layer_size s = d->size;
    return (definition){s.rows, s.out, s.in, d->wide_x, s.in, 1, d->wide_w, s.in, 1};
}

static definition input_of(const layer_data *d)
{
    const layer_size s = d->size;
    return (definition){s.rows, s.in, s.out, d->wide_dy, s.out, 1, d->wide_w, 1, s.in};
}

static definition weight_of(const layer_data *d)
{
    const layer_size s = d->size;
    return (definition){s.out, s.in, s.rows, d->wide_dy, 1, s.out, d->wide_x, 1, s.in};
}

typedef struct result {
    const float *single; /* one of the two */
    const attn_bf16 *half;
    const float *bias, *start; /* added; NULL: nothing */
} result;

/* Products of bfloat16 numbers are exact in float32; k - 1 additions, one more for a bias and one
 * for what was there, and the rounding to bfloat16. */
static void check_result_of(check_run *run, definition p, result r, const char *what)
{
    const size_t count = p.m * p.n;
    double *want = check_doubles(run, count), *bounds = check_doubles(run, count);
    double *got = check_doubles(run, count);
    for (size_t i = 0; i < p.m; i++)
        for (size_t j = 0; j < p.n; j++) {
            const size_t at = i * p.n + j;
            double sum = (r.bias ? (double)r.bias[j] : 0.0) + (r.start ? (double)r.start[at] : 0.0);
            double terms = fabs(sum);
            for (size_t k = 0; k < p.k; k++) {
                const double term = p.a[i * p.a_row + k * p.a_k] * p.b[j * p.b_column + k * p.b_k];
                sum += term;
                terms += fabs(term);
            }
            want[at] = sum;
            bounds[at] = (double)(p.k + 2) * CHECK_UNIT * terms + CHECK_TINY;
            if (r.half) bounds[at] += HALF_UNIT * (fabs(sum) + bounds[at]) + (double)FLT_MIN;
            got[at] = r.half ? (double)attn_bf16_to_float(r.half[at]) : (double)r.single[at];
        }
    check_compare(run, count, (check_numbers){.real = got}, (check_numbers){.real = want},
                  (check_rule){.bounds = bounds, .nan_is_wanted = true}, "%s", what);
}

static void check_bias_gradient(check_run *run, const layer_data *d, const float *got,
                                const float *start)
{
    const layer_size s = d->size;
    double *want = check_doubles(run, s.out), *bounds = check_doubles(run, s.out);
    for (size_t j = 0; j < s.out; j++) {
        want[j] = start ? (double)start[j] : 0.0;
        double terms = fabs(want[j]);
        for (size_t i = 0; i < s.rows; i++) {
            want[j] += d->wide_dy[i * s.out + j];
            terms += fabs(d->wide_dy[i * s.out + j]);
        }
        bounds[j] = (double)(s.rows + 1) * CHECK_UNIT * terms;
    }
    check_compare(run, s.out, (check_numbers){.single = got}, (check_numbers){.real = want},
                  (check_rule){.bounds = bounds}, "dbias");
}

/* Everything that a layer computes; accumulating results start from their first values. */
typedef struct layer_results {
    float *y, *dx, *dx_sum, *dw, *dw_sum, *dbias, *dbias_sum;
    attn_bf16 *half_y, *half_dx;
} layer_results;

static layer_results compute(check_run *run, attn_context *context, const layer_data *d,
                             const layer_results *start)
{
    const layer_size s = d->size;
    const check_shape shape = {0, CHECK_AT_END, 1.0};
    const layer_results r = {.y = check_floats(run, s.rows * s.out, CHECK_AT_END),
                             .dx = check_floats(run, s.rows * s.in, CHECK_AT_END),
                             .dw = check_floats(run, s.out * s.in, CHECK_AT_END),
                             .dbias = check_floats(run, s.out, CHECK_AT_END),
                             .dx_sum = check_copy(run, &shape, s.rows * s.in, start->dx_sum),
                             .dw_sum = check_copy(run, &shape, s.out * s.in, start->dw_sum),
                             .dbias_sum = check_copy(run, &shape, s.out, start->dbias_sum),
                             .half_y = check_halves(run, s.rows * s.out, CHECK_AT_END),
                             .half_dx = check_halves(run, s.rows * s.in, CHECK_AT_END)};
    attn_dense_bf16_forward(context, s.rows, s.in, s.out, d->x, d->packed, NULL,
                            (attn_dense_output){.single = r.y});
    attn_dense_bf16_forward(context, s.rows, s.in, s.out, d->x, d->packed, d->bias,
                            (attn_dense_output){.half = r.half_y});
    attn_dense_bf16_input_gradient(context, s.rows, s.in, s.out, d->dy, d->dy_row, d->packed,
                                   (attn_dense_output){.single = r.dx});
    attn_dense_bf16_input_gradient(context, s.rows, s.in, s.out, d->dy, d->dy_row, d->packed,
                                   (attn_dense_output){.single = r.dx_sum, .accumulate = true});
    attn_dense_bf16_input_gradient(context, s.rows, s.in, s.out, d->dy, d->dy_row, d->packed,
                                   (attn_dense_output){.half = r.half_dx});
    attn_dense_bf16_weight_gradient(context, s.rows, s.in, s.out, d->x, d->dy, d->dy_row, r.dw,
                                    r.dbias, false);
    attn_dense_bf16_weight_gradient(context, s.rows, s.in, s.out, d->x, d->dy, d->dy_row, r.dw_sum,
                                    r.dbias_sum, true);
    return r;
}

static void check_results(check_run *run, const layer_data *d, const layer_results *r,
                          const layer_results *start)
{
    check_result_of(run, forward_of(d), (result){.single = r->y}, "x w^T");
    check_result_of(run, forward_of(d), (result){.half = r->half_y, .bias = d->bias},
                    "bfloat16 of x w^T + bias");
    check_result_of(run, input_of(d), (result){.single = r->dx}, "dx =");
    check_result_of(run, input_of(d), (result){.half = r->half_dx}, "bfloat16 dx");
    check_result_of(run, weight_of(d), (result){.single = r->dw}, "dw =");
    check_bias_gradient(run, d, r->dbias, NULL);
    if (!start) return;
    check_result_of(run, input_of(d), (result){.single = r->dx_sum, .start = start->dx_sum},
                    "dx +=");
    check_result_of(run, weight_of(d), (result){.single = r->dw_sum, .start = start->dw_sum},
                    "dw +=");
    check_bias_gradient(run, d, r->dbias_sum, start->dbias_sum);
}

static void check_same(check_run *run, layer_size s, const layer_results *a, const layer_results *b)
{
    check_same_bits(run, s.rows * s.out, a->y, b->y, "y with 1 thread");
    check_same_bits(run, s.rows * s.in, a->dx, b->dx, "dx with 1 thread");
    check_same_bits(run, s.rows * s.in, a->dx_sum, b->dx_sum, "dx += with 1 thread");
    check_same_bits(run, s.out * s.in, a->dw, b->dw, "dw with 1 thread");
    check_same_bits(run, s.out * s.in, a->dw_sum, b->dw_sum, "dw += with 1 thread");
    check_same_bits(run, s.out, a->dbias_sum, b->dbias_sum, "dbias with 1 thread");
    check_that(run,
               memcmp(a->half_y, b->half_y, s.rows * s.out * sizeof *a->half_y) == 0 &&
                   memcmp(a->half_dx, b->half_dx, s.rows * s.in * sizeof *a->half_dx) == 0,
               "bfloat16 results have the bits of 1 thread");
}

static void check_work(check_run *run, attn_work before, attn_work now, layer_size s)
{
    const uint64_t each = (uint64_t)2 * s.rows * s.in * s.out, bias = (uint64_t)s.rows * s.out;
    check_that(run,
               now.matmul - before.matmul == 7 * each && now.other - before.other == 3 * bias &&
                   now.exponential == before.exponential,
               "work: counted %llu and %llu", (unsigned long long)(now.matmul - before.matmul),
               (unsigned long long)(now.other - before.other));
}

static layer_results first_values(check_run *run, layer_size s)
{
    const check_shape shape = {0, CHECK_AT_END, 1.0};
    return (layer_results){.dx_sum = check_random(run, &shape, s.rows * s.in),
                           .dw_sum = check_random(run, &shape, s.out * s.in),
                           .dbias_sum = check_random(run, &shape, s.out)};
}

static void run_sizes(check_run *run)
{
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const layer_size s = sizes[i];
        layer_results alone = {0};
        check_case(run, "%zu x %zu to %zu", s.rows, s.in, s.out);
        const layer_data d = data_of(run, s, check_context(run, 1));
        const layer_results start = first_values(run, s);
        for (size_t threads = 1; threads <= CHECK_THREADS; threads++) {
            attn_context *context = check_context(run, threads);
            const attn_work before = attn_context_work(context);
            const layer_results r = compute(run, context, &d, &start);
            check_work(run, before, attn_context_work(context), s);
            if (threads == 1) {
                check_results(run, &d, &r, &start);
                alone = r;
            } else {
                check_same(run, s, &r, &alone);
            }
        }
        check_guards(run);
    }
}

/* A NaN or an infinity reaches what it is a term of, and nothing else, padding included. */
static void run_special(check_run *run)
{
    static const float specials[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 2 * (sizeof specials / sizeof *specials); i++) {
        const layer_size s = {i % 2 ? 4 : 37, 41, 45};
        const float special = specials[i / 2];
        check_case(run, "%g among the factors of %zu rows", (double)special, s.rows);
        attn_context *context = check_context(run, 2);
        layer_data d = data_of(run, s, context);
        const size_t x_at = (s.rows - 1) * s.in + 40, dy_at = 3 * s.out + 44;
        d.x[x_at] = attn_bf16_from_float(special);
        d.wide_x[x_at] = (double)special;
        d.dy[3 * d.dy_row + 44] = attn_bf16_from_float(special);
        d.wide_dy[dy_at] = (double)special;
        float *y = check_floats(run, s.rows * s.out, CHECK_AT_END);
        float *dx = check_floats(run, s.rows * s.in, CHECK_AT_END);
        float *dw = check_floats(run, s.out * s.in, CHECK_AT_END);
        attn_dense_bf16_forward(context, s.rows, s.in, s.out, d.x, d.packed, d.bias,
                                (attn_dense_output){.single = y});
        attn_dense_bf16_input_gradient(context, s.rows, s.in, s.out, d.dy, d.dy_row, d.packed,
                                       (attn_dense_output){.single = dx});
        attn_dense_bf16_weight_gradient(context, s.rows, s.in, s.out, d.x, d.dy, d.dy_row, dw, NULL,
                                        false);
        check_result_of(run, forward_of(&d), (result){.single = y, .bias = d.bias}, "y");
        check_result_of(run, input_of(&d), (result){.single = dx}, "dx");
        check_result_of(run, weight_of(&d), (result){.single = dw}, "dw");
    }
}

/* Without scratch memory the results come another way. A product of few rows needs none. */
static void run_short(check_run *run)
{
    const layer_size s = {35, 830, 70};
    check_case(run, "memory is short");
    attn_context *context = NULL;
    attn_error error = {0};
    if (!check_ok(run, attn_context_create(&context, 2, attn_isa_name(run->group->isa), &error),
                  &error, "context"))
        return;
    const layer_data d = data_of(run, s, context);
    float *y = check_floats(run, s.rows * s.out, CHECK_AT_END);
    attn_memory_fail_at(1);
    attn_dense_bf16_forward(context, s.rows, s.in, s.out, d.x, d.packed, d.bias,
                            (attn_dense_output){.single = y});
    attn_memory_fail_at(0);
    check_result_of(run, forward_of(&d), (result){.single = y, .bias = d.bias}, "y");
    attn_context_free(context);
}

/* Rows of a result apart from each other, read soon or not: what lies between them stays. */
static void run_apart(check_run *run)
{
    static const size_t gaps[] = {3, 14}; /* the second: rows of whole cache lines */
    const layer_size s = {520, 40, 530};
    attn_context *context = check_context(run, 2);
    check_case(run, "rows apart");
    const layer_data d = data_of(run, s, context);
    float *close = check_floats(run, s.rows * s.out, CHECK_AT_END);
    attn_dense_bf16_forward(context, s.rows, s.in, s.out, d.x, d.packed, d.bias,
                            (attn_dense_output){.single = close});
    for (size_t i = 0; i < 2 * sizeof gaps / sizeof *gaps; i++) {
        const size_t gap = gaps[i / 2], row = s.out + gap;
        float *apart = check_floats(run, s.rows * row, CHECK_AT_START);
        for (size_t at = 0; at < s.rows * row; at++) apart[at] = 7.0f;
        attn_dense_bf16_forward(
            context, s.rows, s.in, s.out, d.x, d.packed, d.bias,
            (attn_dense_output){.single = apart, .row = row, .is_far = i % 2 == 1});
        bool is_same = true, is_kept = true;
        for (size_t r = 0; r < s.rows; r++) {
            const float *own = apart + r * row;
            is_same = is_same && memcmp(own, close + r * s.out, s.out * sizeof *own) == 0;
            for (size_t j = s.out; j < row; j++) is_kept = is_kept && own[j] == 7.0f;
        }
        check_that(run, is_same, "rows %zu apart hold the bits of close ones", row);
        check_that(run, is_kept, "nothing is written between rows %zu apart", row);
    }
    check_guards(run);
}

static void run_all(check_run *run)
{
    run_sizes(run);
    run_special(run);
    run_apart(run);
    run_short(run);
}

void check_collect_dense_bf16(check_list *list)
{
    check_group group = {.mode = "test", .subject = "dense.bf16", .body = run_all};
    check_list_add_levels(list, group);
    group.isa = ATTN_ISA_AMX; /* the float32 kernels' level below has another product here */
    if (attn_cpu_best_isa() >= ATTN_ISA_AMX) check_list_add(list, group);
}
