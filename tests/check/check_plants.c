/* The faults. Each keeps everything but its one mistake. */
#include "check_plants.h"

#include "kernels/bf16.h"
#include "mechanisms/mechanism.h"

#include <math.h>
#include <string.h>

/* ---- kernels ----------------------------------------------------------------------------- */

static void softmax_with_nan(size_t rows, size_t n, float factor, float *s, size_t s_row,
                             const attn_running_rows *state)
{
    attn_kernels_ref.running_softmax(rows, n, factor, s, s_row, state);
    s[0] = NAN;
}

static void softmax_without_maximum(size_t rows, size_t n, float factor, float *s, size_t s_row,
                                    const attn_running_rows *state)
{
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < n; j++) {
            s[i * s_row + j] = exp2f(factor * s[i * s_row + j]);
            state->total[i * ATTN_RUNNING_SUMS] += s[i * s_row + j];
        }
        state->top[i] = 0.0f;
    }
}

static void softmax_from_minus_10000(size_t rows, size_t n, float factor, float *s, size_t s_row,
                                     const attn_running_rows *state)
{
    for (size_t i = 0; i < rows; i++)
        if (state->top[i] == ATTN_RUNNING_START) state->top[i] = -10000.0f;
    attn_kernels_ref.running_softmax(rows, n, factor, s, s_row, state);
}

/* Any reference near the row's maximum gives the right quotients; this one has seen the next row. */
static void softmax_that_peeks(size_t rows, size_t n, float factor, float *s, size_t s_row,
                               const attn_running_rows *state)
{
    for (size_t i = 0; i < rows; i++) {
        const float *next = s + (i + 1 < rows ? i + 1 : i) * s_row;
        const float own = factor * attn_kernels_ref.maximum(n, s + i * s_row);
        const float seen = factor * attn_kernels_ref.maximum(n, next);
        const bool is_first = state->top[i] == ATTN_RUNNING_START;
        if (is_first && isfinite(own) && seen > own && seen - own < 10.0f) state->top[i] = seen;
        const attn_running_rows row = {.top = state->top + i,
                                       .total = state->total + i * ATTN_RUNNING_SUMS,
                                       .o = state->o + i * state->o_row,
                                       .o_row = state->o_row,
                                       .width = state->width};
        attn_kernels_ref.running_softmax(1, n, factor, s + i * s_row, s_row, &row);
    }
}

static float sum_with_short_tail(size_t n, const float *x)
{
    return attn_kernels_ref.sum(n % 8 > 1 ? n - 1 : n, x);
}

static void scale_past_the_end(size_t n, float a, float *x)
{
    attn_kernels_ref.scale(n, a, x);
    if (n % 8 > 0) ((volatile float *)x)[n] = 0.0f;
}

static void add_before_the_start(size_t n, const float *x, float *y)
{
    attn_kernels_ref.add(n, x, y);
    if (n > 0) ((volatile float *)y)[-1] = 0.0f;
}

static float dot_past_the_end(size_t n, const float *x, const float *y)
{
    const float beyond = ((const volatile float *)x)[n];
    return attn_kernels_ref.dot(n, x, y) + 0.0f * (beyond > 0.0f ? 1.0f : 0.0f);
}

static void product_that_overwrites(size_t m, size_t n, size_t k, const float *a, size_t a_row,
                                    size_t a_column, const float *b, size_t b_row, float *c,
                                    size_t c_row, bool accumulate)
{
    (void)accumulate;
    attn_kernels_ref.product(m, n, k, a, a_row, a_column, b, b_row, c, c_row, false);
}

static void gradient_without_scale(size_t n, float scale, const float *p, const float *dp,
                                   float delta, float *ds)
{
    (void)scale;
    attn_kernels_ref.softmax_gradient(n, 1.0f, p, dp, delta, ds);
}

/* Every partial sum in bfloat16, not the factors alone. */
static void product_that_sums_in_bf16(size_t m, size_t n, size_t k, const float *a, size_t a_row,
                                      size_t a_column, const float *b, size_t b_row, float *c,
                                      size_t c_row, bool accumulate)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = accumulate ? c[i * c_row + j] : 0.0f;
            for (size_t t = 0; t < k; t++) {
                sum += a[i * a_row + t * a_column] * b[t * b_row + j];
                sum = attn_bf16_to_float(attn_bf16_from_float(sum));
            }
            c[i * c_row + j] = sum;
        }
}

static void bf16_cut_off(size_t n, const float *x, attn_bf16 *y)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = 0;
        memcpy(&bits, x + i, sizeof bits);
        y[i].bits = (uint16_t)(bits >> 16);
    }
}

/* ---- mechanisms: flash with one part wrapped ---------------------------------------------- */

static attn_core real;

static void dk_to_the_next_head(const attn_core_call *call)
{
    real.backward(call);
    const size_t d = call->layer->head_dim;
    for (size_t i = 0; i < call->batch * call->length && call->layer->kv_heads > 1; i++)
        for (size_t j = 0; j < d; j++) {
            float *dk = call->dk + i * call->row;
            const float first = dk[j];
            dk[j] = dk[d + j];
            dk[d + j] = first;
        }
}

static attn_work one_more(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                          const uint32_t *document_start)
{
    attn_work work = real.work(layer, phase, batch, length, document_start);
    work.other++;
    return work;
}

static void decode_without_the_first(const attn_core_call *call)
{
    real.decode(call);
    for (size_t i = 0; i < call->layer->head_dim && call->position == 0; i++) call->cache[i] = 0.0f;
}

static void forward_adds_nothing_kept(const attn_core_call *call)
{
    real.forward(call);
    if (!call->saved) call->o[0] *= 1.0f + 0x1p-23f;
}

static attn_layer_functions real_functions;

static attn_layer in_float32(const attn_layer *layer)
{
    attn_layer single = *layer;
    single.dtype = ATTN_F32;
    return single;
}

static void forward_without_roundings(attn_context *context, const attn_layer *layer,
                                      const attn_call *call)
{
    const attn_layer single = in_float32(layer);
    real_functions.forward(context, &single, call);
}

static void backward_without_roundings(attn_context *context, const attn_layer *layer,
                                       const attn_call *call)
{
    const attn_layer single = in_float32(layer);
    real_functions.backward(context, &single, call);
}

static const attn_kernels *never_above_avx2(attn_isa isa)
{
    return attn_kernels_for(isa > ATTN_ISA_AVX2 ? ATTN_ISA_AVX2 : isa);
}

/* ---- the list ---------------------------------------------------------------------------- */

enum { KERNELS = 12, CORES = 4, FUNCTIONS = 2, MECHANISMS = CORES + FUNCTIONS };

const check_fault *check_faults(void)
{
    static attn_kernels kernels[KERNELS];
    static attn_core cores[CORES];
    static attn_layer_functions functions[FUNCTIONS];
    static attn_mechanism mechanisms[MECHANISMS];
    const attn_mechanism *flash = attn_mechanism_find("flash");
    real = *flash->core;
    real_functions = *flash->functions;
    for (size_t i = 0; i < KERNELS; i++) kernels[i] = attn_kernels_ref;
    for (size_t i = 0; i < MECHANISMS; i++) mechanisms[i] = *flash;
    for (size_t i = 0; i < CORES; i++) {
        cores[i] = real;
        mechanisms[i].core = &cores[i];
    }
    for (size_t i = 0; i < FUNCTIONS; i++) {
        functions[i] = real_functions;
        mechanisms[CORES + i].functions = &functions[i];
    }
    kernels[0].running_softmax = softmax_with_nan;
    kernels[1].running_softmax = softmax_without_maximum;
    kernels[2].running_softmax = softmax_from_minus_10000;
    kernels[3].running_softmax = softmax_that_peeks;
    kernels[4].sum = sum_with_short_tail;
    kernels[5].scale = scale_past_the_end;
    kernels[6].dot = dot_past_the_end;
    kernels[7].product = product_that_overwrites;
    kernels[8].softmax_gradient = gradient_without_scale;
    kernels[9].add = add_before_the_start;
    kernels[10].product = product_that_sums_in_bf16;
    kernels[11].bf16_from_float = bf16_cut_off;
    cores[0].backward = dk_to_the_next_head;
    cores[1].work = one_more;
    cores[2].decode = decode_without_the_first;
    cores[3].forward = forward_adds_nothing_kept;
    functions[0].forward = forward_without_roundings;
    functions[1].backward = backward_without_roundings;

    static check_fault faults[] = {
        {"a NaN in the first row", check_mechanism_all, "flash", {.kernels = &kernels[0]}},
        {"softmax without its maximum", check_mechanism_all, "flash", {.kernels = &kernels[1]}},
        {"the maximum starts at -10000", check_mechanism_all, "flash", {.kernels = &kernels[2]}},
        {"the maximum peeks one row ahead", check_prop_all, "flash", {.kernels = &kernels[3]}},
        {"a tail mask one short", check_kernel_slots, "kernel.sum", {.kernels = &kernels[4]}},
        {"a store past the end", check_kernel_slots, "kernel.scale", {.kernels = &kernels[5]}},
        {"a store before the start", check_kernel_slots, "kernel.add", {.kernels = &kernels[9]}},
        {"a load past the end", check_kernel_slots, "kernel.dot", {.kernels = &kernels[6]}},
        {"a product that does not accumulate",
         check_kernel_slots,
         "kernel.product",
         {.kernels = &kernels[7]}},
        {"a gradient without its scale", check_mechanism_all, "softmax", {.kernels = &kernels[8]}},
        {"dk of one head in another", check_mechanism_all, "flash", {.mechanism = &mechanisms[0]}},
        {"work counted off by one", check_mechanism_all, "flash", {.mechanism = &mechanisms[1]}},
        {"decoding that loses a key", check_prop_all, "flash", {.mechanism = &mechanisms[2]}},
        {"an output that depends on `saved`",
         check_prop_all,
         "flash",
         {.mechanism = &mechanisms[3]}},
        {"sums in bfloat16", check_half_all, "flash", {.kernels = &kernels[10]}},
        {"bfloat16 cut off, not rounded", check_half_all, "flash", {.kernels = &kernels[11]}},
        {"a forward pass that does not round",
         check_half_all,
         "flash",
         {.mechanism = &mechanisms[CORES]}},
        {"a backward pass that does not round",
         check_half_all,
         "flash",
         {.mechanism = &mechanisms[CORES + 1]}},
        {"a level that is never chosen",
         check_dispatch_levels,
         "levels",
         {.kernels_for = never_above_avx2}},
        {NULL, NULL, NULL, {NULL, NULL, NULL}}};
    return faults;
}
