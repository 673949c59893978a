/* Layers under test: their inputs, calls and comparison with the oracle. */
#include "check_layer.h"
#include "check_kernels.h"

#include "mechanisms/oracle.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *check_config_text(const check_config *c)
{
    static char text[CHECK_TEXT_BYTES];
    static const char *const families[CHECK_FAMILIES] = {"", ", scores of thousands",
                                                         ", scores below -20000"};
    snprintf(text, sizeof text, "%sB=%zu H=%zu d=%zu T=%zu %s%s%s",
             c->dtype == ATTN_BF16 ? "bf16 " : "", c->batch, c->heads, c->head_dim, c->length,
             c->is_causal ? "causal" : "full", c->has_documents ? ", documents" : "",
             families[c->family]);
    return text;
}

const attn_parameter *check_parameter(const check_layer *l, const char *name)
{
    size_t count = 0;
    const attn_parameter *p = attn_layer_parameters(l->layer, &count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(p[i].name, name) == 0) return &p[i];
    return NULL;
}

/* ---- inputs ------------------------------------------------------------------------------ */

static void draw_documents(check_run *run, check_layer *l)
{
    l->documents = check_words(run, l->B * l->T);
    for (size_t b = 0; b < l->B; b++) {
        uint32_t start = 0;
        for (size_t t = 0; t < l->T; t++) {
            if (t > 0 && check_below(run, 29) == 0) start = (uint32_t)t;
            l->documents[b * l->T + t] = start;
        }
    }
}

/* Weights that keep the scale of what they multiply, and biases and fixed buffers beside them. */
static void draw_ordinary(check_run *run, check_layer *l)
{
    check_fill_normal(run, 1.0, l->n, l->x);
    check_fill_normal(run, 1.0, l->n, l->dy);
    check_fill_normal(run, 1.0, l->M, l->memory);
    size_t count = 0;
    const attn_parameter *p = attn_layer_parameters(l->layer, &count);
    for (size_t i = 0; i < count; i++) {
        const double fan_in = p[i].dimensions > 1 ? (double)p[i].shape[p[i].dimensions - 1] : 4.0;
        check_fill_normal(run, 1.0 / sqrt(fan_in), p[i].count, l->parameters + p[i].offset);
    }
}

static bool has_lone_tokens_behind_norm(const check_layer *l)
{
    bool is_alone = l->T == 1 || l->documents;
    for (size_t i = 0; l->documents && i < l->B * l->T; i++)
        is_alone &= l->documents[i] == i % l->T;
    return is_alone && l->layer->mechanism->recurrence;
}

/* There o is (q . k) v, the norm takes its gradient along v away, and what its epsilon leaves is a
 * difference of numbers as large as 1 / |o|. Keys near queries keep |o| away from 0. */
static void draw_keys_near_queries(check_layer *l)
{
    const attn_parameter *wq = check_parameter(l, "wq.weight"),
                         *wk = check_parameter(l, "wk.weight");
    for (size_t i = 0; i < wk->count; i++) {
        float *k = l->parameters + wk->offset + i;
        *k = 0.95f * l->parameters[wq->offset + i] + 0.3f * *k;
    }
}

/* Extreme scores that float32 still gets exactly: queries and keys are whole numbers, so that every
 * score is one too and the oracle means the same one. The size lies in q, whose second column is
 * the constant LARGE; keys stay small, so that sums over keys lose nothing by cancellation. What
 * the second column of k holds makes the family:
 *     thousands    a small whole number that depends on the token's pattern, one of PATTERNS
 *     low          -16 for every token
 * Among the keys that share the largest value the first column decides, in which queries are 1
 * and keys hold the last column of x, a small number. The last FREE columns of x reach v freely.
 * Where keys come from a memory, it is made as x is. */
enum { PATTERNS = 5, ENTRIES = 3, FREE = 4 };

static float large_of(check_family family)
{
    return family == CHECK_SCORES_LOW ? 8192.0f : 1024.0f;
}

static void draw_pattern_tokens(check_run *run, size_t rows, size_t width, float *x)
{
    float *patterns = check_floats(run, PATTERNS * width, CHECK_AT_END);
    check_fill_whole(run, 4, PATTERNS * width, patterns);
    for (size_t i = 0; i < rows; i++, x += width) {
        memcpy(x, patterns + check_below(run, PATTERNS) * width, (width - FREE) * sizeof *x);
        check_fill_whole(run, 4, 1, x + width - 1);
    }
}

static void draw_whole_projection(check_run *run, check_layer *l, const attn_parameter *w,
                                  bool has_first, bool has_second)
{
    const size_t d = l->layer->head_dim, width = w->shape[1];
    for (size_t row = 0; row < w->shape[0]; row++) {
        float *to = l->parameters + w->offset + row * width;
        for (size_t j = 0; j < width; j++) to[j] = 0.0f;
        const bool is_drawn = row % d > 1 || (row % d == 1 && has_second);
        for (size_t k = 0; k < ENTRIES && is_drawn; k++)
            to[check_below(run, width - FREE)] = k % 2 ? 1.0f : -1.0f;
        if (row % d == 0 && has_first) to[width - 1] = 1.0f;
    }
}

static void draw_whole_bias(check_layer *l, const attn_parameter *bias, float first, float second)
{
    const size_t d = l->layer->head_dim;
    for (size_t i = 0; i < bias->count; i++)
        l->parameters[bias->offset + i] = i % d == 0 ? first : i % d == 1 ? second : 0.0f;
}

static bool draw_extreme(check_run *run, check_layer *l, check_family family)
{
    const attn_parameter *wq = check_parameter(l, "wq.weight"),
                         *wk = check_parameter(l, "wk.weight");
    const attn_parameter *bq = check_parameter(l, "wq.bias"), *bk = check_parameter(l, "wk.bias");
    if (!wq || !wk || !bq || !bk || l->layer->head_dim < 2 || l->C <= FREE) return false;
    if (wk->shape[1] <= FREE) return false;
    const bool is_low = family == CHECK_SCORES_LOW;
    draw_pattern_tokens(run, l->B * l->T, l->C, l->x);
    if (l->memory) draw_pattern_tokens(run, l->M / wk->shape[1], wk->shape[1], l->memory);
    draw_whole_projection(run, l, wq, false, false);
    draw_whole_projection(run, l, wk, true, !is_low);
    draw_whole_bias(l, bq, 1.0f, large_of(family));
    draw_whole_bias(l, bk, 0.0f, is_low ? -16.0f : 0.0f);
    l->amplification = (double)large_of(family);
    return true;
}

/* ---- beginning and end ------------------------------------------------------------------- */

bool check_layer_begin(check_run *run, check_layer *l, const char *options,
                       const check_config *config)
{
    *l = (check_layer){.B = config->batch,
                       .T = config->length,
                       .C = config->heads * config->head_dim,
                       .amplification = 1.0};
    const attn_layer_config layer_config = {.mechanism = check_entry(run)->name,
                                            .options = options,
                                            .d_model = l->C,
                                            .heads = config->heads,
                                            .positions = CHECK_POSITIONS,
                                            .is_causal = config->is_causal,
                                            .dtype = config->dtype};
    attn_error error = {0};
    const attn_status status = attn_layer_create(&l->layer, &layer_config, &error);
    if (status == ATTN_EUNSUPPORTED) {
        check_skip(run, "%s", error.text);
        return false;
    }
    if (!check_ok(run, status, &error, "making the layer")) return false;
    const attn_mechanism *mechanism = l->layer->mechanism;
    if (mechanism->check_length &&
        mechanism->check_length(l->layer, config->length, &error) != ATTN_OK) {
        check_skip(run, "%s", error.text);
        check_layer_end(l);
        return false;
    }
    if (run->group->plant && run->group->plant->mechanism)
        l->layer->mechanism = run->group->plant->mechanism;
    l->n = l->B * l->T * l->C;
    l->P = attn_layer_parameter_count(l->layer);
    size_t memory_length = 0, memory_width = 0;
    attn_layer_memory(l->layer, &memory_length, &memory_width);
    l->M = l->B * memory_length * memory_width;
    l->parameters = check_floats(run, l->P, CHECK_AT_END);
    l->x = check_floats(run, l->n, CHECK_AT_END);
    l->dy = check_floats(run, l->n, CHECK_AT_END);
    if (l->M) l->memory = check_floats(run, l->M, CHECK_AT_END);
    draw_ordinary(run, l);
    if (config->has_documents) draw_documents(run, l);
    if (has_lone_tokens_behind_norm(l)) draw_keys_near_queries(l);
    if (config->family == CHECK_ORDINARY || draw_extreme(run, l, config->family)) return true;
    check_skip(run, "the layer has no plain wq and wk to make extreme scores with");
    check_layer_end(l);
    return false;
}

void check_layer_end(check_layer *l)
{
    attn_layer_free(l->layer);
    l->layer = NULL;
}

void check_layer_oracle(check_run *run, check_layer *l)
{
    double *parameters = check_doubles(run, l->P), *x = check_doubles(run, l->n);
    double *dy = check_doubles(run, l->n), *memory = check_doubles(run, l->M);
    check_widen(l->P, l->parameters, parameters);
    check_widen(l->n, l->x, x);
    check_widen(l->n, l->dy, dy);
    check_widen(l->M, l->memory, memory);
    attn_error error = {0};
    attn_oracle_call call = {.batch = l->B,
                             .length = l->T,
                             .parameters = parameters,
                             .x = x,
                             .document_start = l->documents,
                             .y = l->want_y = check_doubles(run, l->n),
                             .dy = dy,
                             .dx = l->want_dx = check_doubles(run, l->n),
                             .gradients = l->want_gradients = check_doubles(run, l->P),
                             .memory = l->memory ? memory : NULL,
                             .d_memory = l->want_d_memory = check_doubles(run, l->M)};
    attn_layer_memory(l->layer, &call.memory_length, &call.memory_width);
    const bool is_half = attn_layer_dtype(l->layer) == ATTN_BF16;
    if (is_half) call.rounding.mode = ATTN_ROUND_NEAREST;
    check_ok(run, attn_layer_oracle(l->layer, &call, &error), &error, "the oracle");
    if (!is_half) return;
    call.y = l->moved_y = check_doubles(run, l->n);
    call.dx = l->moved_dx = check_doubles(run, l->n);
    call.gradients = l->moved_gradients = check_doubles(run, l->P);
    call.d_memory = l->moved_d_memory = check_doubles(run, l->M);
    call.rounding = (attn_rounding){.mode = ATTN_ROUND_RANDOMLY, .seed = run->seed};
    check_ok(run, attn_layer_oracle(l->layer, &call, &error), &error, "the oracle");
}

/* ---- calls ------------------------------------------------------------------------------- */

float *check_layer_memory(const check_layer *l, size_t b)
{
    return l->memory ? l->memory + b * (l->M / l->B) : NULL;
}

attn_call check_layer_call(const check_layer *l)
{
    attn_call call = {.batch = l->B,
                      .length = l->T,
                      .parameters = l->parameters,
                      .packed = l->packed,
                      .x = l->x,
                      .y = l->y,
                      .saved = l->saved,
                      .scratch = l->scratch,
                      .document_start = l->documents,
                      .dy = l->dy,
                      .dx = l->dx,
                      .gradients = l->gradients,
                      .memory = l->memory,
                      .d_memory = l->d_memory};
    size_t width = 0;
    attn_layer_memory(l->layer, &call.memory_length, &width);
    return call;
}

bool check_layer_forward(check_run *run, check_layer *l, attn_context *context)
{
    if (attn_layer_packed_count(l->layer)) {
        l->packed = check_halves(run, attn_layer_packed_count(l->layer), CHECK_AT_START);
        attn_layer_pack(context, l->layer, l->parameters, l->packed);
    }
    l->saved_count = attn_layer_saved_count(l->layer, l->B, l->T);
    l->saved = check_floats(run, l->saved_count, CHECK_AT_END);
    l->scratch =
        check_floats(run, attn_layer_scratch_count(l->layer, context, l->B, l->T), CHECK_AT_END);
    l->y = check_floats(run, l->n, CHECK_AT_END);
    const attn_call call = check_layer_call(l);
    attn_context_clear_error(context);
    const attn_work before = attn_context_work(context);
    const attn_status status = attn_layer_forward(context, l->layer, &call);
    if (status == ATTN_EUNSUPPORTED && l->documents) {
        check_skip(run, "%s", attn_context_error(context)->text);
        return false;
    }
    check_same_work(run, check_work_since(context, before),
                    attn_layer_work(l->layer, ATTN_PHASE_FORWARD, l->B, l->T, l->documents),
                    "forward");
    return check_ok(run, status, attn_context_error(context), "forward");
}

void check_layer_backward(check_run *run, check_layer *l, attn_context *context)
{
    l->dx = check_floats(run, l->n, CHECK_AT_END);
    l->gradients = check_floats(run, l->P, CHECK_AT_END);
    if (l->M) l->d_memory = check_floats(run, l->M, CHECK_AT_END);
    const attn_call call = check_layer_call(l);
    const attn_work before = attn_context_work(context);
    check_ok(run, attn_layer_backward(context, l->layer, &call), attn_context_error(context),
             "backward");
    check_same_work(run, check_work_since(context, before),
                    attn_layer_work(l->layer, ATTN_PHASE_BACKWARD, l->B, l->T, l->documents),
                    "backward");
}

/* ---- comparing --------------------------------------------------------------------------- */

static check_numbers part(check_numbers values, const attn_parameter *p)
{
    return values.single ? (check_numbers){.single = values.single + p->offset}
                         : (check_numbers){.real = values.real + p->offset};
}

/* With a large q the rounding of every score's gradient comes out multiplied by q, also where the
 * gradient itself is zero (a row with one key): the floors are that much higher. */
static double extreme_floor(const check_layer *l, check_numbers gradients)
{
    const attn_parameter *wv = check_parameter(l, "wv.weight");
    return l->amplification > 1.0 && wv
               ? CHECK_EXTREME_FLOOR * l->amplification * check_norm(wv->count, part(gradients, wv))
               : 0.0;
}

double check_gradient_floor(const check_layer *l, check_numbers gradients)
{
    size_t count = 0;
    const attn_parameter *p = attn_layer_parameters(l->layer, &count);
    double largest = 0.0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, check_norm(p[i].count, part(gradients, &p[i])));
    const double share =
        has_lone_tokens_behind_norm(l) ? CHECK_LONE_TOKENS_FLOOR : CHECK_GRADIENT_FLOOR;
    return fmax(share * largest, extreme_floor(l, gradients));
}

/* The rule with the share of what rounding at random moved added to its tolerance. */
static check_rule conditioned(check_rule rule, size_t n, const double *moved, const double *want)
{
    double square = 0.0;
    for (size_t i = 0; moved && i < n; i++) square += (moved[i] - want[i]) * (moved[i] - want[i]);
    if (square > 0.0)
        rule.tolerance += CHECK_HALF_SHARE * sqrt(square) /
                          fmax(check_norm(n, (check_numbers){.real = want}), rule.floor);
    return rule;
}

void check_layer_compare_y(check_run *run, const check_layer *l, const float *y, double tolerance,
                           const char *what)
{
    const check_rule rule = {.tolerance = tolerance};
    check_compare(run, l->n, (check_numbers){.single = y}, (check_numbers){.real = l->want_y},
                  conditioned(rule, l->n, l->moved_y, l->want_y), "%s", what);
}

void check_layer_compare(check_run *run, const check_layer *l, double tolerance)
{
    const check_rule rule = {.tolerance = tolerance};
    check_layer_compare_y(run, l, l->y, tolerance, "y");
    if (!l->dx) return;
    check_rule dx_rule = rule;
    size_t memory_length = 0, memory_width = 0;
    attn_layer_memory(l->layer, &memory_length, &memory_width);
    if (memory_length == 1)
        dx_rule.floor =
            CHECK_SINGLE_KEY_FLOOR * check_norm(l->M, (check_numbers){.real = l->want_d_memory});
    if (l->amplification > 1.0)
        dx_rule.floor = CHECK_EXTREME_FLOOR * l->amplification *
                        check_norm(l->n, (check_numbers){.single = l->dy});
    check_compare(run, l->n, (check_numbers){.single = l->dx}, (check_numbers){.real = l->want_dx},
                  conditioned(dx_rule, l->n, l->moved_dx, l->want_dx), "dx");
    check_compare(run, l->M, (check_numbers){.single = l->d_memory},
                  (check_numbers){.real = l->want_d_memory},
                  conditioned(dx_rule, l->M, l->moved_d_memory, l->want_d_memory),
                  "gradient of the memory");
    const check_numbers got = {.single = l->gradients}, want = {.real = l->want_gradients};
    const check_rule floored = {.tolerance = tolerance, .floor = check_gradient_floor(l, want)};
    size_t count = 0;
    const attn_parameter *p = attn_layer_parameters(l->layer, &count);
    for (size_t i = 0; i < count; i++)
        check_compare(run, p[i].count, part(got, &p[i]), part(want, &p[i]),
                      conditioned(floored, p[i].count,
                                  l->moved_gradients ? l->moved_gradients + p[i].offset : NULL,
                                  l->want_gradients + p[i].offset),
                      "gradient of %s", p[i].name);
}

bool check_same_work(check_run *run, attn_work counted, attn_work expected, const char *what)
{
    return check_that(run,
                      counted.matmul == expected.matmul &&
                          counted.exponential == expected.exponential &&
                          counted.other == expected.other,
                      "work of %s: counted %llu %llu %llu, formula %llu %llu %llu", what,
                      (unsigned long long)counted.matmul, (unsigned long long)counted.exponential,
                      (unsigned long long)counted.other, (unsigned long long)expected.matmul,
                      (unsigned long long)expected.exponential, (unsigned long long)expected.other);
}

attn_work check_work_since(const attn_context *context, attn_work before)
{
    const attn_work now = attn_context_work(context);
    return (attn_work){.matmul = now.matmul - before.matmul,
                       .exponential = now.exponential - before.exponential,
                       .other = now.other - before.other};
}

void check_list_add_mechanisms(check_list *list, const char *mode, check_body *body,
                               const check_plant *plant)
{
    for (const attn_mechanism_entry *e = attn_mechanisms; e->name; e++)
        check_list_add_levels(
            list, (check_group){
                      .mode = mode, .subject = e->name, .body = body, .what = e, .plant = plant});
}
