/* Dense layers in bfloat16: each call as a product, its bias, and who computes it. */
#include "kernels/dense_bf16.h"

#include "base/threads.h"
#include "kernels/dense_bf16_internal.h"
#include "kernels/dense_internal.h"

size_t attn_dense_bf16_packed(size_t out, size_t in)
{
    return attn_strips(out) * attn_strips(in) * ATTN_CELL;
}

static void pack(const attn_context *context, size_t threads, size_t rows, size_t in,
                 const float *w, attn_bf16 *packed)
{
#if defined(__x86_64__)
    if (context->isa >= ATTN_ISA_AMX) {
        attn_bf16_amx_pack(threads, rows, in, w, packed);
        return;
    }
#endif
    (void)context;
    attn_bf16_plain_pack(threads, rows, in, w, packed);
}

void attn_dense_bf16_pack(attn_context *context, size_t out, size_t in, const float *w,
                          attn_bf16 *packed)
{
    pack(context, context->threads, out, in, w, packed);
}

_Static_assert((int)ATTN_DENSE_BF16_ROWS == (int)ATTN_STRIP, "pieces are whole strips");

void attn_dense_bf16_pack_rows(const attn_context *context, size_t rows, size_t in, const float *w,
                               attn_bf16 *packed)
{
    pack(context, 1, rows, in, w, packed);
}

/* ---- rounding ---------------------------------------------------------------------------- */

enum { PIECE = 1 << 14 }; /* numbers of a task */

typedef struct rounding {
    const attn_kernels *kernels;
    size_t count;
    const float *from;
    attn_bf16 *to;
} rounding;

static void round_piece(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const rounding *r = argument;
    const size_t first = index * PIECE, left = r->count - first;
    r->kernels->bf16_from_float(left < PIECE ? left : PIECE, r->from + first, r->to + first);
}

void attn_dense_bf16_round(attn_context *context, size_t count, const float *from, attn_bf16 *to)
{
    rounding r = {.kernels = context->kernels, .count = count, .from = from, .to = to};
    attn_parallel(context->threads, (count + PIECE - 1) / PIECE, round_piece, &r);
}

/* ---- products ---------------------------------------------------------------------------- */

static void multiply(attn_context *context, const attn_bf16_product *product)
{
    attn_bf16_product with_row = *product;
    if (with_row.out.row == 0) with_row.out.row = with_row.n;
    const attn_bf16_product *p = &with_row;
    context->work.matmul += (uint64_t)2 * p->m * p->n * p->k;
    if (p->bias) context->work.other += (uint64_t)p->m * p->n;
    if (p->m <= ATTN_FEW_HALF_ROWS && p->strips) {
        attn_bf16_few_run(context->kernels, context->threads, p);
        return;
    }
    if (p->left_sums) context->work.other += (uint64_t)p->m * p->k;
#if defined(__x86_64__)
    if (context->isa >= ATTN_ISA_AMX) {
        void *scratch =
            attn_dense_scratch(context->dense, attn_bf16_amx_scratch(context->threads, p));
        if (scratch) {
            attn_bf16_amx_run(context->threads, p, scratch);
            return;
        }
    }
#endif
    attn_bf16_plain_run(context->kernels, context->threads, p);
}

void attn_dense_bf16_forward(attn_context *context, size_t rows, size_t in, size_t out,
                             const attn_bf16 *x, const attn_bf16 *packed, const float *bias,
                             attn_dense_output y)
{
    multiply(context, &(attn_bf16_product){.m = rows,
                                           .n = out,
                                           .k = in,
                                           .left = x,
                                           .left_row = in,
                                           .strips = packed,
                                           .bias = bias,
                                           .out = y});
}

void attn_dense_bf16_input_gradient(attn_context *context, size_t rows, size_t in, size_t out,
                                    const attn_bf16 *dy, size_t dy_row, const attn_bf16 *packed,
                                    attn_dense_output dx)
{
    multiply(context, &(attn_bf16_product){.m = rows,
                                           .n = in,
                                           .k = out,
                                           .left = dy,
                                           .left_row = dy_row,
                                           .crossed = packed,
                                           .out = dx});
}

void attn_dense_bf16_weight_gradient(attn_context *context, size_t rows, size_t in, size_t out,
                                     const attn_bf16 *x, const attn_bf16 *dy, size_t dy_row,
                                     float *dw, float *dbias, bool accumulate)
{
    multiply(context,
             &(attn_bf16_product){.m = out,
                                  .n = in,
                                  .k = rows,
                                  .left = dy,
                                  .left_row = dy_row,
                                  .left_is_transposed = true,
                                  .right = x,
                                  .out = {.single = dw, .accumulate = accumulate, .is_far = true},
                                  .left_sums = dbias});
}
