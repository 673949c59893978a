/* What must hold whatever the numbers are: nothing of the future is seen, the parts of a batch
 * and of a packed sequence know nothing of each other, and neither threads nor what is kept for
 * the backward pass change a result. */
#include "check_prop.h"

#include "kernels/context.h"

#include <math.h>
#include <string.h>

enum { B = 3, HEADS = 6, HEAD_DIM = 8, T = 130, THREADS = 2 };

static const check_config causal = {
    .batch = B, .heads = HEADS, .head_dim = HEAD_DIM, .length = T, .is_causal = true};
static const check_config full = {.batch = B, .heads = HEADS, .head_dim = HEAD_DIM, .length = T};

/* ---- one forward call -------------------------------------------------------------------- */

float *check_prop_forward(check_run *run, const check_layer *l, attn_context *context, size_t batch,
                          size_t length, const float *x, const uint32_t *documents, bool saves)
{
    const size_t n = batch * length * l->C;
    const size_t saved = saves ? attn_layer_saved_count(l->layer, batch, length) : 0;
    const size_t scratch = attn_layer_scratch_count(l->layer, context, batch, length);
    attn_call call = {.batch = batch,
                      .length = length,
                      .parameters = l->parameters,
                      .x = x,
                      .y = check_floats(run, n, CHECK_AT_END),
                      .saved = saves ? check_floats(run, saved, CHECK_AT_END) : NULL,
                      .scratch = check_floats(run, scratch, CHECK_AT_END),
                      .document_start = documents,
                      .memory = l->memory};
    size_t width = 0;
    attn_layer_memory(l->layer, &call.memory_length, &width);
    attn_context_clear_error(context);
    check_ok(run, attn_layer_forward(context, l->layer, &call), attn_context_error(context),
             "forward");
    return call.y;
}

static float *plain_forward(check_run *run, const check_layer *l, const float *x)
{
    return check_prop_forward(run, l, check_context(run, THREADS), l->B, l->T, x, NULL, false);
}

/* Same bits where the order of every sum is fixed: plain C kernels and plain products. */
static void compare_outputs(check_run *run, size_t n, const float *got, const float *want,
                            const char *what)
{
    if (run->kernels->isa == ATTN_ISA_REF)
        check_same_bits(run, n, got, want, "%s", what);
    else
        check_compare(run, n, (check_numbers){.single = got}, (check_numbers){.single = want},
                      (check_rule){.tolerance = CHECK_ROUNDING}, "%s", what);
}

/* Positions [first, first + count) of every sequence, one after the other. */
static float *slice(check_run *run, const check_layer *l, const float *x, size_t first,
                    size_t count)
{
    float *out = check_floats(run, l->B * count * l->C, CHECK_AT_END);
    for (size_t b = 0; b < l->B; b++)
        memcpy(out + b * count * l->C, x + (b * l->T + first) * l->C, count * l->C * sizeof *out);
    return out;
}

/* ---- order ------------------------------------------------------------------------------- */

static void check_future(check_run *run, check_layer *l)
{
    static const size_t changes[] = {1, 2, 63, 64, 65, 100, 128, 129};
    const float *y = plain_forward(run, l, l->x);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const size_t t = changes[i], late = (l->T - t) * l->C;
        float *x = check_floats(run, l->n, CHECK_AT_END);
        memcpy(x, l->x, l->n * sizeof *x);
        for (size_t b = 0; b < l->B; b++)
            check_fill_normal(run, 30.0, late, x + (b * l->T + t) * l->C);
        const float *changed = plain_forward(run, l, x);
        for (size_t b = 0; b < l->B; b++)
            check_same_bits(run, t * l->C, changed + b * l->T * l->C, y + b * l->T * l->C,
                            "outputs before %zu, where the tokens changed", t);
    }
}

static void check_prefix(check_run *run, check_layer *l)
{
    static const size_t lengths[] = {1, 17, 64, 65, 129};
    const float *y = plain_forward(run, l, l->x);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const size_t t = lengths[i];
        const float *short_y = check_prop_forward(run, l, check_context(run, THREADS), l->B, t,
                                                  slice(run, l, l->x, 0, t), NULL, false);
        compare_outputs(run, l->B * t * l->C, short_y, slice(run, l, y, 0, t),
                        "a prefix alone and as a part");
    }
}

static void check_batch(check_run *run, check_layer *l)
{
    const float *y = plain_forward(run, l, l->x);
    const size_t one = l->T * l->C, one_memory = l->M / l->B;
    float *x = check_floats(run, l->n, CHECK_AT_END), *want = check_floats(run, l->n, CHECK_AT_END);
    check_layer turned = *l, single = *l;
    if (l->M) turned.memory = check_floats(run, l->M, CHECK_AT_END);
    single.memory = check_layer_memory(l, 1);
    for (size_t b = 0; b < l->B; b++) {
        if (l->M)
            memcpy(turned.memory + b * one_memory, check_layer_memory(l, (b + 1) % l->B),
                   one_memory * sizeof *x);
        memcpy(x + b * one, l->x + (b + 1) % l->B * one, one * sizeof *x);
        memcpy(want + b * one, y + (b + 1) % l->B * one, one * sizeof *want);
    }
    compare_outputs(run, l->n, plain_forward(run, &turned, x), want, "the batch in another order");
    const float *alone = check_prop_forward(run, &single, check_context(run, THREADS), 1, l->T,
                                            l->x + one, NULL, false);
    compare_outputs(run, one, alone, y + one, "a sequence alone");
}

static void check_positions(check_run *run, check_layer *l)
{
    if (!check_subject_find(run->group->subject)->is_order_free) {
        check_skip(run, "outputs depend on positions");
        return;
    }
    float *x = check_floats(run, l->n, CHECK_AT_END), *want = check_floats(run, l->n, CHECK_AT_END);
    const float *y = plain_forward(run, l, l->x);
    const size_t stride = 37; /* has no divisor in common with T */
    for (size_t i = 0; i < l->B * l->T; i++) {
        const size_t from = i / l->T * l->T + i % l->T * stride % l->T;
        memcpy(x + i * l->C, l->x + from * l->C, l->C * sizeof *x);
        memcpy(want + i * l->C, y + from * l->C, l->C * sizeof *want);
    }
    check_compare(run, l->n, (check_numbers){.single = plain_forward(run, l, x)},
                  (check_numbers){.single = want}, (check_rule){.tolerance = CHECK_ROUNDING},
                  "tokens in another order");
}

/* A NaN is never swallowed, and stays in its own sequence. */
static void check_nan(check_run *run, check_layer *l)
{
    const size_t t = 77, one = l->T * l->C;
    const float *y = plain_forward(run, l, l->x);
    l->x[one + t * l->C + 3] = NAN;
    const float *spoilt = plain_forward(run, l, l->x);
    size_t count = 0;
    for (size_t j = 0; j < l->C; j++) count += isnan(spoilt[one + t * l->C + j]) ? 1 : 0;
    check_that(run, count == l->C, "only %zu of %zu outputs of a token with a NaN are NaN", count,
               l->C);
    check_same_bits(run, one, spoilt, y, "the sequence before the one with a NaN");
    check_same_bits(run, one, spoilt + 2 * one, y + 2 * one, "the sequence behind it");
}

/* ---- what a call keeps and is given ------------------------------------------------------- */

static void check_saved(check_run *run, check_layer *l)
{
    attn_context *context = check_context(run, THREADS);
    const float *kept = check_prop_forward(run, l, context, l->B, l->T, l->x, NULL, true);
    check_same_bits(run, l->n, plain_forward(run, l, l->x), kept, "y with and without `saved`");
}

static void check_twice(check_run *run, check_layer *l)
{
    attn_context *context = check_context(run, THREADS);
    if (!check_layer_forward(run, l, context)) return;
    check_layer_backward(run, l, context);
    const float *dx = l->dx, *gradients = l->gradients, *d_memory = l->d_memory;
    check_layer_backward(run, l, context);
    check_same_bits(run, l->n, l->dx, dx, "dx of a second backward call");
    check_same_bits(run, l->P, l->gradients, gradients, "gradients of a second backward call");
    check_same_bits(run, l->M, l->d_memory, d_memory, "gradient of the memory of a second call");
}

/* A constant v comes out as it went in: y is wo v + bias, the same at every position. */
static void check_average(check_run *run, check_layer *l)
{
    const attn_parameter *wv = check_parameter(l, "wv.weight"), *bv = check_parameter(l, "wv.bias");
    const attn_parameter *wo = check_parameter(l, "wo.weight"), *bo = check_parameter(l, "wo.bias");
    if (!check_subject_find(run->group->subject)->is_average || !wv || !bv || !wo || !bo) {
        check_skip(run, "the output is no weighted mean of v");
        return;
    }
    memset(l->parameters + wv->offset, 0, wv->count * sizeof *l->parameters);
    const size_t d = l->layer->head_dim, group = l->layer->heads / l->layer->kv_heads;
    double *want = check_doubles(run, l->n);
    for (size_t i = 0; i < l->n; i++) {
        const size_t row = i % l->C;
        want[i] = (double)l->parameters[bo->offset + row];
        for (size_t j = 0; j < l->C; j++)
            want[i] += (double)l->parameters[wo->offset + row * l->C + j] *
                       (double)l->parameters[bv->offset + j / d / group * d + j % d];
    }
    check_compare(run, l->n, (check_numbers){.single = plain_forward(run, l, l->x)},
                  (check_numbers){.real = want}, (check_rule){.tolerance = CHECK_ROUNDING},
                  "y of a constant v");
}

/* ---- all of them ------------------------------------------------------------------------- */

typedef struct property {
    const char *name;
    const check_config *config;
    check_property *check;
} property;

static const property properties[] = {
    {"future", &causal, check_future},
    {"prefix", &causal, check_prefix},
    {"batch", &causal, check_batch},
    {"batch, full", &full, check_batch},
    {"positions", &full, check_positions},
    {"NaN", &causal, check_nan},
    {"NaN, full", &full, check_nan},
    {"saved or not", &causal, check_saved},
    {"saved or not, full", &full, check_saved},
    {"backward twice", &causal, check_twice},
    {"backward twice, full", &full, check_twice},
    {"constant v", &causal, check_average},
    {"constant v, full", &full, check_average},
    {"documents", &causal, check_prop_documents},
    {"threads", &causal, check_prop_threads},
    {"threads, full", &full, check_prop_threads},
    {"threads of the core", &causal, check_prop_core_threads},
    {"threads of the core, full", &full, check_prop_core_threads},
    {"decoding", &causal, check_prop_decode},
};

void check_prop_all(check_run *run)
{
    const char *const *options = check_subject_options(check_subject_find(run->group->subject));
    for (size_t o = 0; options[o]; o++)
        for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
            const property *p = &properties[i];
            check_layer l;
            check_case(run, "%s %s", p->name, options[o]);
            if (!check_layer_begin(run, &l, options[o], p->config)) continue;
            if (p->config->is_causal && !attn_layer_is_causal(l.layer))
                check_skip(run, "with these options the layer is not causal");
            else
                p->check(run, &l);
            check_guards(run);
            check_layer_end(&l);
        }
}

void check_collect_prop(check_list *list)
{
    check_list_add_mechanisms(list, "prop", check_prop_all, NULL);
}
