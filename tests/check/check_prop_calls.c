/* Properties that compare different ways to call a layer: packed and separate documents, numbers
 * of threads, decoding and the full forward pass. */
#include "check_prop.h"

#include "kernels/context.h"

#include <string.h>

static const check_rule rounding = {.tolerance = CHECK_ROUNDING};

static void compare(check_run *run, size_t n, const float *got, const float *want, const char *what)
{
    check_compare(run, n, (check_numbers){.single = got}, (check_numbers){.single = want}, rounding,
                  "%s", what);
}

/* ---- documents --------------------------------------------------------------------------- */

/* One document of sequence b alone: its y and dx against the packed call's; its gradients are
 * added to `sum`. */
static void check_document(check_run *run, const check_layer *packed, size_t b, size_t first,
                           size_t length, double *sum)
{
    const size_t at = (b * packed->T + first) * packed->C;
    check_layer alone = *packed;
    alone.B = 1;
    alone.T = length;
    alone.n = length * packed->C;
    alone.x = packed->x + at;
    alone.dy = packed->dy + at;
    alone.documents = NULL;
    attn_context *context = check_context(run, 2);
    if (!check_layer_forward(run, &alone, context)) return;
    check_layer_backward(run, &alone, context);
    compare(run, alone.n, packed->y + at, alone.y, "y of a packed document");
    const double floor =
        CHECK_GRADIENT_FLOOR * check_norm(packed->n, (check_numbers){.single = packed->dx});
    check_compare(run, alone.n, (check_numbers){.single = packed->dx + at},
                  (check_numbers){.single = alone.dx},
                  (check_rule){.tolerance = CHECK_ROUNDING, .floor = floor},
                  "dx of a packed document");
    for (size_t i = 0; i < packed->P; i++) sum[i] += (double)alone.gradients[i];
}

/* Borders in a tile, on a tile's border, and documents of one token. */
void check_prop_documents(check_run *run, check_layer *l)
{
    static const size_t borders[3][7] = {
        {0, 1, 2, 40, 64, 130}, {0, 63, 64, 65, 129, 130}, {0, 77, 130}};
    l->documents = check_words(run, l->B * l->T);
    for (size_t b = 0; b < l->B; b++)
        for (size_t k = 0; borders[b][k] < l->T; k++)
            for (size_t t = borders[b][k]; t < borders[b][k + 1]; t++)
                l->documents[b * l->T + t] = (uint32_t)borders[b][k];
    attn_context *context = check_context(run, 2);
    if (!check_layer_forward(run, l, context)) return;
    check_layer_backward(run, l, context);
    double *sum = check_doubles(run, l->P);
    for (size_t b = 0; b < l->B; b++)
        for (size_t k = 0; borders[b][k] < l->T; k++)
            check_document(run, l, b, borders[b][k], borders[b][k + 1] - borders[b][k], sum);
    const double floor = check_gradient_floor(l, (check_numbers){.real = sum});
    size_t count = 0;
    const attn_parameter *p = attn_layer_parameters(l->layer, &count);
    for (size_t i = 0; i < count; i++)
        check_compare(run, p[i].count, (check_numbers){.single = l->gradients + p[i].offset},
                      (check_numbers){.real = sum + p[i].offset},
                      (check_rule){.tolerance = CHECK_LAYER_TOLERANCE, .floor = floor},
                      "gradient of %s over all documents", p[i].name);
}

/* ---- threads ----------------------------------------------------------------------------- */

/* The whole layer: the same bits where all of it is ours, rounding where oneDNN chooses how to
 * cut a product by the number of threads. */
void check_prop_threads(check_run *run, check_layer *l)
{
    const float *y = NULL, *dx = NULL, *gradients = NULL, *d_memory = NULL;
    for (size_t threads = 1; threads <= CHECK_THREADS; threads++) {
        attn_context *context = check_context(run, threads);
        const bool is_plain = strcmp(attn_context_dense(context), "plain") == 0;
        if (!check_layer_forward(run, l, context)) return;
        check_layer_backward(run, l, context);
        if (threads > 1 && is_plain) {
            check_same_bits(run, l->n, l->y, y, "y with %zu threads", threads);
            check_same_bits(run, l->n, l->dx, dx, "dx with %zu threads", threads);
            check_same_bits(run, l->P, l->gradients, gradients, "gradients with %zu threads",
                            threads);
            check_same_bits(run, l->M, l->d_memory, d_memory, "d_memory with %zu threads", threads);
        } else if (threads > 1) {
            compare(run, l->n, l->y, y, "y with more threads");
            compare(run, l->n, l->dx, dx, "dx with more threads");
            compare(run, l->P, l->gradients, gradients, "gradients with more threads");
            compare(run, l->M, l->d_memory, d_memory, "d_memory with more threads");
        }
        if (threads == 1) y = l->y, dx = l->dx, gradients = l->gradients, d_memory = l->d_memory;
    }
}

/* The core alone, between q, k, v and o: the same bits at every level. */
void check_prop_core_threads(check_run *run, check_layer *l)
{
    const attn_core *core = l->layer->mechanism->core;
    if (!core) {
        check_skip(run, "the mechanism has projections of its own");
        return;
    }
    const size_t d = l->layer->head_dim, rows = l->B * l->T;
    const size_t row = (l->layer->heads + 2 * l->layer->kv_heads) * d;
    const size_t saved = core->saved(l->layer, l->B, l->T);
    float *qkv = check_floats(run, rows * row, CHECK_AT_END);
    float *d_o = check_floats(run, l->n, CHECK_AT_END), *o[CHECK_THREADS], *d_qkv[CHECK_THREADS];
    check_fill_normal(run, 1.0, rows * row, qkv);
    check_fill_normal(run, 1.0, l->n, d_o);
    for (size_t i = 0; i < CHECK_THREADS; i++) {
        const size_t k = l->layer->heads * d, v = k + l->layer->kv_heads * d;
        const size_t scratch = core->scratch(l->layer, i + 1, l->B, l->T);
        o[i] = check_floats(run, l->n, CHECK_AT_END);
        d_qkv[i] = check_floats(run, rows * row, CHECK_AT_END);
        const attn_core_call call = {.context = check_context(run, i + 1),
                                     .kernels =
                                         attn_core_kernels(check_context(run, i + 1), l->layer),
                                     .layer = l->layer,
                                     .batch = l->B,
                                     .length = l->T,
                                     .q = qkv,
                                     .k = qkv + k,
                                     .v = qkv + v,
                                     .row = row,
                                     .o = o[i],
                                     .o_row = l->C,
                                     .saved = check_floats(run, saved, CHECK_AT_END),
                                     .scratch = check_floats(run, scratch, CHECK_AT_END),
                                     .d_o = d_o,
                                     .dq = d_qkv[i],
                                     .dk = d_qkv[i] + k,
                                     .dv = d_qkv[i] + v,
                                     .parameters = l->parameters,
                                     .gradients = check_floats(run, l->P, CHECK_AT_END)};
        core->forward(&call);
        core->backward(&call);
        check_same_bits(run, l->n, o[i], o[0], "o with %zu threads", i + 1);
        check_same_bits(run, rows * row, d_qkv[i], d_qkv[0], "dq, dk, dv with %zu threads", i + 1);
    }
}

/* ---- decoding ---------------------------------------------------------------------------- */

/* Fills the cache with the first tokens of every sequence in one forward call. */
static bool prefill(check_run *run, const check_layer *l, attn_context *context, size_t count,
                    float *cache)
{
    float *x = check_floats(run, l->B * count * l->C, CHECK_AT_END);
    for (size_t b = 0; b < l->B; b++)
        memcpy(x + b * count * l->C, l->x + b * l->T * l->C, count * l->C * sizeof *x);
    const size_t scratch = attn_layer_scratch_count(l->layer, context, l->B, count);
    const attn_call call = {.batch = l->B,
                            .length = count,
                            .parameters = l->parameters,
                            .packed = l->packed,
                            .x = x,
                            .y = check_floats(run, l->B * count * l->C, CHECK_AT_END),
                            .scratch = check_floats(run, scratch, CHECK_AT_END),
                            .cache = cache,
                            .cache_capacity = l->T};
    const attn_status status = attn_layer_forward(context, l->layer, &call);
    if (status == ATTN_EUNSUPPORTED) {
        check_skip(run, "%s", attn_context_error(context)->text);
        return false;
    }
    return check_ok(run, status, attn_context_error(context), "prefill");
}

/* Token t of every sequence; its rows of y go to their places. */
static bool decode(check_run *run, const check_layer *l, attn_context *context, size_t t,
                   float *scratch, float *cache, float *y)
{
    float *x = check_floats(run, l->B * l->C, CHECK_AT_END);
    float *y_t = check_floats(run, l->B * l->C, CHECK_AT_END);
    for (size_t b = 0; b < l->B; b++)
        memcpy(x + b * l->C, l->x + (b * l->T + t) * l->C, l->C * sizeof *x);
    const attn_call call = {.batch = l->B,
                            .length = 1,
                            .parameters = l->parameters,
                            .packed = l->packed,
                            .x = x,
                            .y = y_t,
                            .scratch = scratch,
                            .cache = cache,
                            .cache_capacity = l->T,
                            .position = t};
    const attn_work before = attn_context_work(context);
    const attn_status status = attn_layer_decode(context, l->layer, &call);
    if (status == ATTN_EUNSUPPORTED) {
        check_skip(run, "%s", attn_context_error(context)->text);
        return false;
    }
    if (!check_ok(run, status, attn_context_error(context), "decode")) return false;
    for (size_t b = 0; b < l->B; b++)
        memcpy(y + (b * l->T + t) * l->C, y_t + b * l->C, l->C * sizeof *y);
    return check_same_work(run, check_work_since(context, before),
                           attn_layer_work(l->layer, ATTN_PHASE_DECODE, l->B, t, NULL), "decode");
}

bool check_prop_decode_behind(check_run *run, const check_layer *l, attn_context *context,
                              size_t first, float *y)
{
    attn_context_clear_error(context);
    const size_t cache_count = attn_layer_cache_count(l->layer, l->B, l->T);
    float *cache = check_floats(run, cache_count, CHECK_AT_END);
    /* An empty cache is zeros; a prefilled one may hold anything before. */
    if (first == 0)
        memset(cache, 0, cache_count * sizeof *cache);
    else if (!prefill(run, l, context, first, cache))
        return false;
    const size_t scratch_count = attn_layer_scratch_count(l->layer, context, l->B, 1);
    float *scratch = check_floats(run, scratch_count, CHECK_AT_END);
    for (size_t t = first; t < l->T; t++)
        if (!decode(run, l, context, t, scratch, cache, y)) return false;
    return true;
}

/* From an empty cache and from prefilled ones. */
void check_prop_decode(check_run *run, check_layer *l)
{
    static const size_t prefilled[] = {0, 1, 43, 64, 129};
    for (size_t i = 0; i < sizeof prefilled / sizeof *prefilled; i++) {
        attn_context *context = check_context(run, 1 + i % CHECK_THREADS);
        attn_context_clear_error(context);
        const float *want = check_prop_forward(run, l, context, l->B, l->T, l->x, NULL, false);
        float *y = check_floats(run, l->n, CHECK_AT_END);
        memcpy(y, want, l->n * sizeof *y);
        if (!check_prop_decode_behind(run, l, context, prefilled[i], y)) return;
        compare(run, l->n, y, want,
                prefilled[i] ? "decoding behind a prefilled cache" : "decoding");
    }
}
