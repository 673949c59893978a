/* Dense products at odd sizes, through the context (oneDNN where the build has it) and through
 * the plain one, with 1 to 3 threads, overwriting and accumulating; and their counted work. */
#include "check_kernels.h"

#include "kernels/dense_internal.h"

#include <math.h>
#include <string.h>

typedef struct dense_size {
    size_t rows, in, out;
} dense_size;

static const dense_size sizes[] = {{1, 1, 1},     {1, 64, 64},   {2, 5, 3},     {5, 37, 129},
                                   {1, 800, 131}, {8, 131, 70},  {9, 131, 70},  {37, 40, 17},
                                   {64, 64, 192}, {65, 257, 63}, {193, 33, 65}, {300, 96, 100},
                                   {257, 300, 31}};

/* One of the three products of a layer as matrices; c starts as `start`. */
static void check_result_of(check_run *run, const attn_matrix_product *p, const float *start,
                            const float *got, const char *what)
{
    double *want = check_doubles(run, p->m * p->n), *bounds = check_doubles(run, p->m * p->n);
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            double sum = start ? (double)start[i * p->n + j] : 0.0, terms = fabs(sum);
            for (size_t q = 0; q < p->k; q++) {
                const double term = (double)p->a[i * p->a_row + q * p->a_column] *
                                    (double)p->b[q * p->b_row + j * p->b_column];
                sum += term;
                terms += fabs(term);
            }
            want[i * p->n + j] = sum;
            bounds[i * p->n + j] = (double)(p->k + 2) * CHECK_UNIT * terms + CHECK_TINY;
        }
    check_compare(run, p->m * p->n, (check_numbers){.single = got}, (check_numbers){.real = want},
                  (check_rule){.bounds = bounds}, "%s", what);
}

typedef struct layer_data {
    dense_size size;
    const float *x, *w, *dy, *bias;
    float *y, *dx, *dw, *dbias;
} layer_data;

static float *random_floats(check_run *run, size_t n)
{
    return check_random(run, &(check_shape){n, CHECK_AT_END, 1.0}, n);
}

static float *copied(check_run *run, size_t n, const float *from)
{
    return check_copy(run, &(check_shape){n, CHECK_AT_END, 1.0}, n, from);
}

static layer_data data_of(check_run *run, dense_size s)
{
    layer_data d = {.size = s,
                    .x = random_floats(run, s.rows * s.in),
                    .w = random_floats(run, s.out * s.in),
                    .dy = random_floats(run, s.rows * s.out),
                    .bias = random_floats(run, s.out)};
    d.y = check_floats(run, s.rows * s.out, CHECK_AT_END);
    d.dx = random_floats(run, s.rows * s.in);
    d.dw = random_floats(run, s.out * s.in);
    d.dbias = random_floats(run, s.out);
    return d;
}

static attn_matrix_product forward_product(const layer_data *d)
{
    const dense_size s = d->size;
    return (attn_matrix_product){.m = s.rows,
                                 .n = s.out,
                                 .k = s.in,
                                 .a = d->x,
                                 .a_row = s.in,
                                 .a_column = 1,
                                 .b = d->w,
                                 .b_row = 1,
                                 .b_column = s.in,
                                 .c = d->y,
                                 .c_row = s.out};
}

static attn_matrix_product input_product(const layer_data *d, bool accumulate)
{
    const dense_size s = d->size;
    return (attn_matrix_product){.m = s.rows,
                                 .n = s.in,
                                 .k = s.out,
                                 .a = d->dy,
                                 .a_row = s.out,
                                 .a_column = 1,
                                 .b = d->w,
                                 .b_row = s.in,
                                 .b_column = 1,
                                 .c = d->dx,
                                 .c_row = s.in,
                                 .accumulate = accumulate};
}

static attn_matrix_product weight_product(const layer_data *d, bool accumulate)
{
    const dense_size s = d->size;
    return (attn_matrix_product){.m = s.out,
                                 .n = s.in,
                                 .k = s.rows,
                                 .a = d->dy,
                                 .a_row = 1,
                                 .a_column = s.out,
                                 .b = d->x,
                                 .b_row = s.in,
                                 .b_column = 1,
                                 .c = d->dw,
                                 .c_row = s.in,
                                 .accumulate = accumulate};
}

static void check_bias_gradient(check_run *run, const layer_data *d, const float *start)
{
    double *want = check_doubles(run, d->size.out), *bounds = check_doubles(run, d->size.out);
    for (size_t j = 0; j < d->size.out; j++) {
        double terms = 0.0;
        want[j] = start ? (double)start[j] : 0.0;
        for (size_t i = 0; i < d->size.rows; i++) {
            want[j] += (double)d->dy[i * d->size.out + j];
            terms += fabs((double)d->dy[i * d->size.out + j]);
        }
        bounds[j] = (double)(d->size.rows + 1) * CHECK_UNIT * (terms + fabs(want[j]));
    }
    check_compare(run, d->size.out, (check_numbers){.single = d->dbias},
                  (check_numbers){.real = want}, (check_rule){.bounds = bounds}, "dbias");
}

static void check_work(check_run *run, const attn_context *context, attn_work before,
                       uint64_t products, uint64_t biases, dense_size s)
{
    const attn_work now = attn_context_work(context);
    const uint64_t each = (uint64_t)2 * s.rows * s.in * s.out;
    check_that(run,
               now.matmul - before.matmul == products * each &&
                   now.other - before.other == biases * s.rows * s.out &&
                   now.exponential == before.exponential,
               "work: counted %llu and %llu", (unsigned long long)(now.matmul - before.matmul),
               (unsigned long long)(now.other - before.other));
}

static void check_context_products(check_run *run, attn_context *context, dense_size s)
{
    const attn_work before = attn_context_work(context);
    const layer_data d = data_of(run, s);
    attn_dense_forward(context, s.rows, s.in, s.out, d.x, d.w, NULL, d.y);
    attn_matrix_product p = forward_product(&d);
    check_result_of(run, &p, NULL, d.y, "x w^T");
    attn_dense_decode(context, s.rows, s.in, s.out, d.x, d.w, d.bias, d.y);
    float *biases = check_floats(run, s.rows * s.out, CHECK_AT_START);
    for (size_t i = 0; i < s.rows; i++) memcpy(biases + i * s.out, d.bias, s.out * sizeof *biases);
    check_result_of(run, &p, biases, d.y, "x w^T + bias");
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        const float *dx = copied(run, s.rows * s.in, d.dx), *dw = copied(run, s.out * s.in, d.dw);
        const float *dbias = copied(run, s.out, d.dbias);
        attn_dense_input_gradient(context, s.rows, s.in, s.out, d.dy, d.w, d.dx, accumulate);
        p = input_product(&d, accumulate);
        check_result_of(run, &p, accumulate ? dx : NULL, d.dx, accumulate ? "dx +=" : "dx =");
        attn_dense_weight_gradient(context, s.rows, s.in, s.out, d.x, d.dy, d.dw, d.dbias,
                                   accumulate);
        p = weight_product(&d, accumulate);
        check_result_of(run, &p, accumulate ? dw : NULL, d.dw, accumulate ? "dw +=" : "dw =");
        check_bias_gradient(run, &d, accumulate ? dbias : NULL);
    }
    check_work(run, context, before, 6, 3, s);
}

static void check_plain_products(check_run *run, size_t threads, dense_size s)
{
    const layer_data d = data_of(run, s);
    attn_matrix_product p = forward_product(&d);
    attn_dense_plain_run(run->kernels, threads, &p);
    check_result_of(run, &p, NULL, d.y, "x w^T");
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        const float *dx = copied(run, s.rows * s.in, d.dx), *dw = copied(run, s.out * s.in, d.dw);
        p = input_product(&d, accumulate);
        attn_dense_plain_run(run->kernels, threads, &p);
        check_result_of(run, &p, accumulate ? dx : NULL, d.dx, accumulate ? "dx +=" : "dx =");
        p = weight_product(&d, accumulate);
        attn_dense_plain_run(run->kernels, threads, &p);
        check_result_of(run, &p, accumulate ? dw : NULL, d.dw, accumulate ? "dw +=" : "dw =");
    }
}

static void run_dense(check_run *run)
{
    const bool is_plain = run->group->what != NULL;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t threads = 1; threads <= CHECK_THREADS; threads++) {
            const dense_size s = sizes[i];
            attn_context *context = check_context(run, threads);
            check_case(run, "%zu x %zu to %zu, %zu threads, %s", s.rows, s.in, s.out, threads,
                       is_plain ? "plain" : attn_context_dense(context));
            if (is_plain)
                check_plain_products(run, threads, s);
            else
                check_context_products(run, context, s);
            check_guards(run);
        }
}

void check_collect_dense(check_list *list)
{
    check_list_add_levels(list,
                          (check_group){.mode = "test", .subject = "dense", .body = run_dense});
    check_list_add_levels(
        list, (check_group){
                  .mode = "test", .subject = "dense.plain", .body = run_dense, .what = "plain"});
}
