/* Dense layers: the three products of a linear layer, its bias, and who computes them. */
#include "kernels/dense.h"

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/dense_internal.h"

struct attn_dense {
#ifdef ATTN_HAVE_ONEDNN
    attn_onednn *onednn; /* NULL: the plain product does everything */
#endif
    void *scratch; /* of one product; grows to what the largest one needs */
    size_t scratch_bytes;
};

attn_dense *attn_dense_create(attn_isa isa)
{
    attn_dense *dense = attn_alloc(ATTN_MEMORY_OTHER, sizeof *dense);
    (void)isa;
#ifdef ATTN_HAVE_ONEDNN
    /* oneDNN knows no scalar mode: with `ref` nothing but plain C may run. */
    if (dense && isa != ATTN_ISA_REF) dense->onednn = attn_onednn_create();
#endif
    return dense;
}

void attn_dense_free(attn_dense *dense)
{
    if (!dense) return;
#ifdef ATTN_HAVE_ONEDNN
    attn_onednn_free(dense->onednn);
#endif
    attn_free(dense->scratch);
    attn_free(dense);
}

void *attn_dense_scratch(attn_dense *dense, size_t size_bytes)
{
    if (!dense->scratch || size_bytes > dense->scratch_bytes) {
        attn_free(dense->scratch);
        dense->scratch = attn_alloc(ATTN_MEMORY_WORKSPACE, size_bytes);
        dense->scratch_bytes = dense->scratch ? size_bytes : 0;
    }
    return dense->scratch;
}

const char *attn_dense_name(const attn_dense *dense)
{
#ifdef ATTN_HAVE_ONEDNN
    if (dense->onednn) return attn_onednn_name(dense->onednn);
#else
    (void)dense;
#endif
    return "plain";
}

static void multiply(attn_context *context, const attn_matrix_product *p)
{
    context->work.matmul += (uint64_t)2 * p->m * p->n * p->k;
#ifdef ATTN_HAVE_ONEDNN
    if (context->dense->onednn && attn_onednn_run(context->dense->onednn, context->threads, p))
        return;
#endif
    attn_dense_plain_run(context->kernels, context->threads, p);
}

/* ---- biases: rows in tasks of fixed size, so that sums do not depend on threads ---------- */

enum { BIAS_ROWS = 64, BIAS_COLUMNS = 256 };

typedef struct bias_task {
    const attn_kernels *kernels;
    size_t rows, out;
    const float *bias, *dy;
    float *y, *dbias;
    bool accumulate;
} bias_task;

static void add_bias_rows(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const bias_task *t = argument;
    const size_t first = index * BIAS_ROWS;
    const size_t last = first + BIAS_ROWS < t->rows ? first + BIAS_ROWS : t->rows;
    for (size_t i = first; i < last; i++) t->kernels->add(t->out, t->bias, t->y + i * t->out);
}

/* One task sums all rows of its own columns. */
static void sum_bias_columns(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const bias_task *t = argument;
    const size_t first = index * BIAS_COLUMNS;
    const size_t n = first + BIAS_COLUMNS < t->out ? BIAS_COLUMNS : t->out - first;
    float *dbias = t->dbias + first;
    if (!t->accumulate)
        for (size_t j = 0; j < n; j++) dbias[j] = 0.0f;
    for (size_t i = 0; i < t->rows; i++) t->kernels->add(n, t->dy + i * t->out + first, dbias);
}

void attn_dense_forward(attn_context *context, size_t rows, size_t in, size_t out, const float *x,
                        const float *w, const float *bias, float *y)
{
    multiply(context, &(attn_matrix_product){.m = rows,
                                             .n = out,
                                             .k = in,
                                             .a = x,
                                             .a_row = in,
                                             .a_column = 1,
                                             .b = w,
                                             .b_row = 1,
                                             .b_column = in,
                                             .c = y,
                                             .c_row = out});
    if (!bias) return;
    context->work.other += (uint64_t)rows * out;
    bias_task task = {.kernels = context->kernels, .rows = rows, .out = out, .bias = bias, .y = y};
    attn_parallel(context->threads, (rows + BIAS_ROWS - 1) / BIAS_ROWS, add_bias_rows, &task);
}

void attn_dense_decode(attn_context *context, size_t rows, size_t in, size_t out, const float *x,
                       const float *w, const float *bias, float *y)
{
    if (rows > ATTN_FEW_ROWS) {
        attn_dense_forward(context, rows, in, out, x, w, bias, y);
        return;
    }
    context->work.matmul += (uint64_t)2 * rows * in * out;
    if (bias) context->work.other += (uint64_t)rows * out;
    attn_dense_few_forward(context->kernels, context->threads, rows, in, out, x, w, bias, y);
}

void attn_dense_input_gradient(attn_context *context, size_t rows, size_t in, size_t out,
                               const float *dy, const float *w, float *dx, bool accumulate)
{
    multiply(context, &(attn_matrix_product){.m = rows,
                                             .n = in,
                                             .k = out,
                                             .a = dy,
                                             .a_row = out,
                                             .a_column = 1,
                                             .b = w,
                                             .b_row = in,
                                             .b_column = 1,
                                             .c = dx,
                                             .c_row = in,
                                             .accumulate = accumulate});
}

void attn_dense_weight_gradient(attn_context *context, size_t rows, size_t in, size_t out,
                                const float *x, const float *dy, float *dw, float *dbias,
                                bool accumulate)
{
    multiply(context, &(attn_matrix_product){.m = out,
                                             .n = in,
                                             .k = rows,
                                             .a = dy,
                                             .a_row = 1,
                                             .a_column = out,
                                             .b = x,
                                             .b_row = in,
                                             .b_column = 1,
                                             .c = dw,
                                             .c_row = in,
                                             .accumulate = accumulate});
    if (!dbias) return;
    bias_task task = {.kernels = context->kernels,
                      .rows = rows,
                      .out = out,
                      .dy = dy,
                      .dbias = dbias,
                      .accumulate = accumulate};
    attn_parallel(context->threads, (out + BIAS_COLUMNS - 1) / BIAS_COLUMNS, sum_bias_columns,
                  &task);
    context->work.other += (uint64_t)rows * out;
}
