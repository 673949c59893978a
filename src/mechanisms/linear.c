/* linear: attention with the feature map phi(u) = elu(u) + 1 in place of the exponential of a
 * product, so that a state of fixed size replaces the past:
 *
 *     o_t = phi(q_t) S_t / phi(q_t) . z_t,   S_t = sum_{s<=t} phi(k_s) v_s^T,   z_t = sum phi(k_s)
 *
 * This file is the feature map; the chunked recurrence is recurrence_engine.c.
 *
 * Below 0 phi is an exponential, which float32 loses below -87, and with it the quotient. So
 * phi(u) = exp(min(u, 0)) (1 + max(u, 0)), and the exponents have references: a query's largest is
 * taken off, since a factor of one query cancels in o. Those of a feature's keys are taken against
 * rho: 0, or where the document's first key lies below LOW, that key's; when a later key exceeds
 * rho by RISE, rho rises to it and the state is carried along. So each feature's sum stays at least
 * exp(LOW) and each query's largest weight at least 1. Counts are those of documents whose rho is
 * 0, as in training. */
#include "mechanisms/head_rows.h"
#include "mechanisms/recurrence_engine.h"

#include <math.h>
#include <string.h>

static const float LOW = -40.0f, RISE = 60.0f;

static size_t count(const attn_layer *layer)
{
    return layer->head_dim;
}

/* rho [d], and whether any of it is not 0. */
static size_t own_count(const attn_layer *layer)
{
    return layer->head_dim + 1;
}

static bool has_reference(const attn_feature_walk *walk)
{
    return walk->own[walk->call->layer->head_dim] != 0.0f;
}

static float exponent_of(float x)
{
    return x > 0.0f ? 0.0f : x; /* NaN stays */
}

/* What rho is when it starts with, or rises to, the key's feature x. */
static float reference_of(float x)
{
    return x < LOW ? x : 0.0f;
}

/* phi holds exponents; it becomes exp(phi - shift) (1 + max(x, 0)). */
static void apply_exponents(const attn_kernels *kernels, size_t d, float shift, const float *x,
                            float *phi)
{
    kernels->exp_shifted(d, shift, phi);
    for (size_t r = 0; r < d; r++)
        if (x[r] > 0.0f) phi[r] *= x[r] + 1.0f;
}

static void queries(const attn_feature_walk *walk, size_t rows, const float *q, float *phi)
{
    const attn_core_call *call = walk->call;
    const attn_kernels *kernels = call->kernels;
    const size_t d = call->layer->head_dim;
    walk->work->exponential += (uint64_t)rows * d;
    walk->work->other += (uint64_t)2 * rows * d;
    if (!has_reference(walk) && kernels->elu_plus_one(rows, d, q, call->row, phi)) return;
    for (size_t i = 0; i < rows; i++) {
        const float *x = q + i * call->row;
        float *row = phi + i * d;
        if (!has_reference(walk) && kernels->elu_plus_one(1, d, x, d, row)) continue;
        for (size_t r = 0; r < d; r++) row[r] = exponent_of(x[r]) + walk->own[r];
        apply_exponents(kernels, d, kernels->maximum(d, row), x, row);
    }
}

static void start_reference(float *rho, size_t d, const float *x)
{
    rho[d] = 0.0f;
    for (size_t r = 0; r < d; r++) {
        rho[r] = reference_of(x[r]);
        if (rho[r] < 0.0f) rho[d] = 1.0f;
    }
}

static bool exceeds_reference(const float *rho, size_t d, const float *x)
{
    bool exceeds = false;
    for (size_t r = 0; r < d; r++) exceeds = exceeds || exponent_of(x[r]) - rho[r] > RISE;
    return exceeds;
}

static void raise_reference(float *rho, size_t d, const float *x, float *carry)
{
    rho[d] = 0.0f;
    for (size_t r = 0; r < d; r++) {
        const float risen = fmaxf(rho[r], reference_of(x[r]));
        carry[r] = expf(rho[r] - risen);
        rho[r] = risen;
        if (risen < 0.0f) rho[d] = 1.0f;
    }
}

static size_t keys(const attn_feature_walk *walk, size_t rows, bool is_first, const float *k,
                   float *phi, float *carry, bool *has_carry)
{
    const attn_core_call *call = walk->call;
    const attn_kernels *kernels = call->kernels;
    const size_t d = call->layer->head_dim;
    float *rho = walk->own;
    size_t i = 0;
    *has_carry = false;
    if (is_first) start_reference(rho, d, k);
    if (!has_reference(walk)) { /* nor will it have one before the next document */
        kernels->elu_plus_one(rows, d, k, call->row, phi);
        i = rows;
    }
    for (; i < rows; i++) {
        const float *x = k + i * call->row;
        float *row = phi + i * d;
        if (exceeds_reference(rho, d, x)) {
            if (i > 0) break;
            raise_reference(rho, d, x, carry);
            *has_carry = true;
        }
        for (size_t r = 0; r < d; r++) row[r] = exponent_of(x[r]) - rho[r];
        apply_exponents(kernels, d, 0.0f, x, row);
    }
    walk->work->exponential += (uint64_t)i * d;
    walk->work->other += (uint64_t)i * d;
    return i;
}

/* dx = dphi phi, and above 0 divided by 1 + x. What a query's reference owes to q cancels as the
 * reference does. */
static void features_gradient(const attn_feature_walk *walk, size_t rows, const float *x,
                              const float *phi, float *dphi, float *dx)
{
    const attn_core_call *call = walk->call;
    const size_t d = call->layer->head_dim;
    attn_fetch_rows(rows, d, x, call->row);
    for (size_t i = 0; i < rows; i++)
        call->kernels->elu_plus_one_gradient(d, x + i * call->row, phi + i * d, dphi + i * d,
                                             dx + i * call->row);
    walk->work->other += (uint64_t)3 * rows * d;
}

static attn_work head_work(const attn_layer *layer, attn_phase phase, uint64_t tokens,
                           uint64_t again)
{
    const uint64_t n = tokens * layer->head_dim, more = again * layer->head_dim;
    /* a query's maximum, 1 + u of both; and in their gradients */
    return (attn_work){.exponential = 2 * n + more,
                       .other = (phase == ATTN_PHASE_BACKWARD ? 9 * n : 3 * n) + more};
}

static const attn_feature_map map = {
    .count = count,
    .own_count = own_count,
    .keys = keys,
    .queries = queries,
    .keys_gradient = features_gradient,
    .queries_gradient = features_gradient,
    .head_work = head_work,
};

/* ---- the core ---------------------------------------------------------------------------- */

/* phi(q) phi(k)^T, masked, divided by its row sums, times v: the definition without a state. */
static attn_node *oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                         attn_node *k, attn_node *v, attn_node *const *parameters,
                         const uint32_t *document_start)
{
    (void)head;
    (void)parameters;
    attn_node *a = attn_matmul(tape, attn_elu_plus_one(tape, q),
                               attn_transpose(tape, attn_elu_plus_one(tape, k)));
    a = attn_recurrence_visible(tape, layer, a, document_start);
    attn_node *o = attn_matmul(tape, a, v);
    return attn_times(tape, o, attn_reciprocal(tape, attn_row_sums(tape, a)));
}

static const attn_core core = {
    .saved = attn_recurrence_saved,
    .scratch = attn_recurrence_scratch,
    .cache = attn_recurrence_cache,
    .forward = attn_recurrence_forward,
    .backward = attn_recurrence_backward,
    .decode = attn_recurrence_decode,
    .oracle = oracle,
    .work = attn_recurrence_work,
};

const attn_mechanism attn_mechanism_linear = {
    .title = "linear attention with elu + 1 features: O(T) work, a state instead of a cache",
    .source = "Katharopoulos et al., Transformers are RNNs, 2020",
    .multiplies_parts = true,
    .functions = &attn_heads_functions,
    .core = &core,
    .features = &map,
};
