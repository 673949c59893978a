/* Products of two bfloat16 parts (kernels/product_amx.h) against float64: at every edge of their cells,
 * strips and passes, for ordinary, tiny, huge and subnormal numbers, with steps on the way and
 * without; and what infinities and NaN become. */
#include "check_kernels.h"

#include "kernels/product_amx.h"

#include <math.h>
#include <string.h>

typedef struct parts_case {
    size_t m, n, k, gap; /* gap: floats between rows that are not part of them */
    bool is_transposed, accumulate;
    double a_scale, b_scale;
} parts_case;

/* A product and its definition; `start` is what c holds before. */
typedef struct matrices {
    size_t a_row, a_column, b_row, c_row;
    float *a, *b, *start, *c;
} matrices;

static matrices draw(check_run *run, const parts_case *p, check_place place)
{
    const bool turned = p->is_transposed;
    matrices x = {.a_row = turned ? 1 : p->k + p->gap,
                  .a_column = turned ? p->m + p->gap : 1,
                  .b_row = p->n + p->gap,
                  .c_row = p->n + p->gap};
    const size_t a_count = turned ? p->k * x.a_column : p->m * x.a_row;
    x.a = check_floats(run, a_count, place);
    x.b = check_floats(run, p->k * x.b_row, place);
    x.start = check_floats(run, p->m * x.c_row, place);
    x.c = check_floats(run, p->m * x.c_row, place);
    check_fill_normal(run, p->a_scale, a_count, x.a);
    check_fill_normal(run, p->b_scale, p->k * x.b_row, x.b);
    check_fill_normal(run, p->a_scale * p->b_scale, p->m * x.c_row, x.start);
    return x;
}

static void multiply(const parts_case *p, const matrices *x, bool has_steps, float *c)
{
    attn_ahead ahead = {.rows = p->k};
    attn_ahead_add(&ahead, p->n, x->b, x->b_row, false);
    attn_ahead_add(&ahead, p->n, x->b, x->b_row, true);
    const attn_kernels *kernels = attn_kernels_in_parts(ATTN_ISA_AMX);
    memcpy(c, x->start, p->m * x->c_row * sizeof *c);
    if (has_steps)
        kernels->product_ahead(p->m, p->n, p->k, x->a, x->a_row, x->a_column, x->b, x->b_row, c,
                               x->c_row, p->accumulate, &ahead);
    else
        kernels->product(p->m, p->n, p->k, x->a, x->a_row, x->a_column, x->b, x->b_row, c, x->c_row,
                         p->accumulate);
}

/* Three products of tiles for each product, whose factors err by 2^-16 and lack low low; and every
 * factor, product and sum below the smallest normal number may be 0. */
static void check_against_definition(check_run *run, const parts_case *p, const matrices *x)
{
    double *want = check_doubles(run, p->m * x->c_row),
           *bounds = check_doubles(run, p->m * x->c_row);
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < x->c_row; j++) {
            const size_t at = i * x->c_row + j;
            double sum = (double)x->start[at];
            if (j < p->n) {
                double terms = 0.0, flushed = 0.0;
                if (!p->accumulate) sum = 0.0;
                const double start = fabs(sum);
                for (size_t q = 0; q < p->k; q++) {
                    const double u = (double)x->a[i * x->a_row + q * x->a_column];
                    const double v = (double)x->b[q * x->b_row + j];
                    sum += u * v;
                    terms += fabs(u * v);
                    flushed += (double)FLT_MIN * (6.0 + 2.0 * fabs(u) + 2.0 * fabs(v));
                }
                bounds[at] = 3.0 * 0x1p-16 * terms + flushed +
                             (double)(3 * p->k + 2) * CHECK_UNIT * (terms + start);
            }
            want[at] = sum; /* between rows: left alone, bound 0 */
        }
    check_compare(run, p->m * x->c_row, (check_numbers){.single = x->c},
                  (check_numbers){.real = want}, (check_rule){.bounds = bounds},
                  p->is_transposed ? "a^T b" : "a b");
}

static void check_size(check_run *run, const parts_case *p, check_place place)
{
    check_case(run, "%zu x %zu x %zu, gap %zu%s%s, scales %g and %g", p->m, p->n, p->k, p->gap,
               p->is_transposed ? ", transposed" : "", p->accumulate ? ", adds" : "", p->a_scale,
               p->b_scale);
    const matrices x = draw(run, p, place);
    float *stepped = check_floats(run, p->m * x.c_row, place);
    multiply(p, &x, false, x.c);
    multiply(p, &x, true, stepped);
    check_against_definition(run, p, &x);
    check_same_bits(run, p->m * x.c_row, stepped, x.c, "with steps on the way");
    check_guards(run);
}

/* Every edge of cells, strips, tiles and passes meets some of every other. */
static void run_sizes(check_run *run)
{
    static const size_t rows[] = {0, 1, 31, 32, 33, 48, 49, 64, 70, 96, 129};
    static const size_t columns[] = {0, 1, 15, 16, 17, 31, 32, 33, 48, 49, 64, 65, 272, 600};
    static const size_t terms[] = {0, 1, 31, 32, 33, 47, 48, 49, 64, 65, 100, 288, 289, 600};
    static const double scales[][2] = {{1.0, 1.0},     {1e-15, 1e15}, {1e15, 1e15},
                                       {1e-22, 1e-15}, {1e30, 1e-30}, {1e-40, 1.0}};
    const size_t n_rows = sizeof rows / sizeof *rows, n_columns = sizeof columns / sizeof *columns;
    const size_t n_terms = sizeof terms / sizeof *terms, n_scales = sizeof scales / sizeof *scales;
    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_columns; j++)
            for (size_t variant = 0; variant < 4; variant++) {
                const size_t at = i + j + variant, q = (i * 3 + j * 5 + variant) % n_terms;
                const parts_case p = {.m = rows[i],
                                      .n = columns[j],
                                      .k = terms[q],
                                      .gap = at % 3 * 5,
                                      .is_transposed = variant & 1,
                                      .accumulate = variant & 2,
                                      .a_scale = scales[at % n_scales][0],
                                      .b_scale = scales[at % n_scales][1]};
                check_size(run, &p, (check_place)(at % CHECK_PLACES));
            }
}

/* Something that is not finite, or nearly so, in one factor: every result as in float32. */
static void run_special(check_run *run)
{
    static const float specials[] = {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX};
    static const char *const names[] = {"inf", "-inf", "NaN", "the largest", "minus the largest"};
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++)
        for (size_t variant = 0; variant < 8; variant++) {
            const parts_case p = {.m = 70,
                                  .n = 65,
                                  .k = 300,
                                  .is_transposed = variant & 1,
                                  .accumulate = variant & 2,
                                  .a_scale = 1.0,
                                  .b_scale = 1.0};
            check_case(run, "%s in %s, variant %zu", names[i], variant & 4 ? "b" : "a", variant);
            const matrices x = draw(run, &p, CHECK_AT_END);
            float *want = check_floats(run, p.m * x.c_row, CHECK_AT_END);
            if (variant & 4) {
                x.b[check_below(run, p.k * x.b_row)] = specials[i];
                for (size_t q = 0; q < p.m; q++) x.a[q * x.a_row] = 1.0f; /* whose low part is 0 */
            } else {
                x.a[check_below(run, p.m * p.k)] = specials[i];
                for (size_t j = 0; j < p.n; j++) x.b[j] = 0.0f;
            }
            memcpy(want, x.start, p.m * x.c_row * sizeof *want);
            attn_kernels_ref.product(p.m, p.n, p.k, x.a, x.a_row, x.a_column, x.b, x.b_row, want,
                                     x.c_row, p.accumulate);
            multiply(&p, &x, false, x.c);
            bool is_same = true;
            for (size_t at = 0; at < p.m * x.c_row; at++) {
                if (isnan(want[at]) || isinf(want[at]))
                    is_same = is_same && (isnan(want[at]) ? isnan(x.c[at]) : x.c[at] == want[at]);
                else /* of up to 300 terms of about 1, or one that is far larger than all others */
                    is_same =
                        is_same && fabsf(x.c[at] - want[at]) <= 2e-3f + 1e-5f * fabsf(want[at]);
            }
            check_that(run, is_same, "infinities, NaN and their absence as in float32");
            check_guards(run);
        }
}

/* Rows do not depend on the rows beside them. */
static void run_rows(check_run *run)
{
    const parts_case p = {.m = 96, .n = 80, .k = 320, .a_scale = 1.0, .b_scale = 1.0};
    check_case(run, "rows in other company");
    const matrices x = draw(run, &p, CHECK_UNALIGNED);
    multiply(&p, &x, false, x.c);
    for (size_t first = 0; first + 32 <= p.m; first += 13) {
        float *part = check_floats(run, 32 * x.c_row, CHECK_UNALIGNED);
        attn_kernels_in_parts(ATTN_ISA_AMX)
            ->product(32, p.n, p.k, x.a + first * x.a_row, x.a_row, 1, x.b, x.b_row, part, x.c_row,
                      false);
        check_same_bits(run, 32 * x.c_row, part, x.c + first * x.c_row, "rows from %zu on", first);
    }
    check_guards(run);
}

static void run_all(check_run *run)
{
    run_sizes(run);
    run_special(run);
    run_rows(run);
}

static void skip_all(check_run *run)
{
    check_case(run, "all");
    check_skip(run, "this machine offers %s at most", attn_isa_name(attn_cpu_best_isa()));
}

void check_collect_parts(check_list *list)
{
    check_list_add(list,
                   (check_group){.mode = "test",
                                 .subject = "kernel.product-parts",
                                 .isa = ATTN_ISA_AMX,
                                 .body = attn_cpu_best_isa() < ATTN_ISA_AMX ? skip_all : run_all});
}
