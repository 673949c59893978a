/* performer: FAVOR+. The exponential kernel of softmax attention becomes a product of positive
 * random features, so that a state of fixed size replaces the past:
 *
 *     exp(q . k / sqrt(d)) = E phi(q) . phi(k),   phi(u)_r = exp(w_r . u' - |u'|^2 / 2),
 *     u' = u / d^(1/4),   o_t = phi(q_t) S_t / phi(q_t) . z_t   (recurrence_engine.h)
 *
 * W [m][d] is fixed: blocks of orthogonal rows whose norms are those of normal vectors. It comes
 * from the seed, never from data.
 *
 * No epsilon, and nothing looks ahead. A factor of one query cancels in o, so a query is divided
 * by its own largest exponential. Keys are divided by exp(rho_r), where rho holds the exponents of
 * the document's first key until some key exceeds them by RISE; then it rises to that key's, and
 * the state is carried along. Each feature's sum stays at least about 1 and each query's largest
 * weight is 1, so that the quotient is finite whatever the inputs are. Counts are those of chunks
 * that no such key cuts: e^60 between two keys of one feature does not occur in training. */
#include "base/random.h"
#include "mechanisms/recurrence_engine.h"

#include <math.h>
#include <string.h>

enum { FEATURES };

static const attn_option options[] = {
    [FEATURES] = {"features", ATTN_OPTION_SIZE, "auto", 1, 1 << 16,
                  "random features m. auto: d ln d, the number that the paper's bound asks for, "
                  "rounded up to a multiple of 8"},
    {.name = NULL}};

static const float RISE = 60.0f;

static size_t count(const attn_layer *layer)
{
    const size_t asked = layer->options[FEATURES].size;
    const double d = (double)layer->head_dim;
    return asked != ATTN_AUTO ? asked : 8 * ((size_t)(d * log(d) / 8.0) + 1);
}

/* ---- W ----------------------------------------------------------------------------------- */

static void declare(attn_layer *layer)
{
    const size_t shape[] = {count(layer), layer->head_dim};
    attn_layer_declare_shaped(layer, "features.weight", 2, shape, ATTN_INITIAL_OWN, false);
}

/* Removes from x what lies along the n orthonormal rows before it, and makes its norm `length`. */
static void orthogonalise(size_t d, size_t n, const float *rows, float *x, double length)
{
    for (size_t j = 0; j < n; j++) {
        double along = 0.0;
        for (size_t i = 0; i < d; i++) along += (double)rows[j * d + i] * (double)x[i];
        for (size_t i = 0; i < d; i++)
            x[i] = (float)((double)x[i] - along * (double)rows[j * d + i]);
    }
    double square = 0.0;
    for (size_t i = 0; i < d; i++) square += (double)x[i] * (double)x[i];
    for (size_t i = 0; i < d; i++) x[i] = (float)((double)x[i] * length / sqrt(square));
}

/* Gram-Schmidt, each row twice, in blocks of d rows; then the norms of other normal vectors. */
static bool initialise(const attn_layer *layer, size_t index, uint64_t seed, uint64_t stream,
                       float *out)
{
    if (strcmp(layer->parameters[index].name, "features.weight") != 0) return false;
    const size_t m = count(layer), d = layer->head_dim;
    attn_random_fill_normal(seed, stream, 1.0, m * d, out);
    for (size_t r = 0; r < m; r++)
        for (int pass = 0; pass < 2; pass++)
            orthogonalise(d, r % d, out + (r - r % d) * d, out + r * d, 1.0);
    for (size_t r = 0; r < m; r++) {
        double square = 0.0;
        for (size_t i = 0; i < d; i++) {
            const double normal = attn_random_normal(seed, stream, (m + r) * d + i);
            square += normal * normal;
        }
        orthogonalise(d, 0, NULL, out + r * d, sqrt(square));
    }
    return true;
}

/* ---- phi --------------------------------------------------------------------------------- */

/* Shared by all heads: W' = W / d^(1/4) [m][d] and its transpose [d][m]. */
static size_t shared_count(const attn_layer *layer)
{
    return 2 * count(layer) * layer->head_dim;
}

static void prepare(const attn_core_call *call, float *shared)
{
    const attn_kernels *kernels = call->kernels;
    const size_t m = count(call->layer), d = call->layer->head_dim;
    memcpy(shared, call->parameters + attn_layer_offset(call->layer, "features.weight"),
           m * d * sizeof *shared);
    kernels->scale(m * d, (float)pow((double)d, -0.25), shared);
    kernels->transpose(m, d, shared, d, shared + m * d, m);
}

static attn_work shared_work(const attn_layer *layer)
{
    return (attn_work){.other = (uint64_t)count(layer) * layer->head_dim};
}

/* x W'^T */
static void project(const attn_feature_walk *walk, size_t rows, const float *x, float *out)
{
    const attn_core_call *call = walk->call;
    const size_t m = count(call->layer), d = call->layer->head_dim;
    call->kernels->product(rows, m, d, x, call->row, 1, walk->shared + m * d, m, out, m, false);
    walk->work->matmul += (uint64_t)2 * rows * m * d;
}

static void queries(const attn_feature_walk *walk, size_t rows, const float *q, float *phi)
{
    const attn_kernels *kernels = walk->call->kernels;
    const size_t m = count(walk->call->layer);
    project(walk, rows, q, phi);
    for (size_t i = 0; i < rows; i++) {
        float *row = phi + i * m;
        kernels->add(m, walk->own, row);
        kernels->exp_shifted(m, kernels->maximum(m, row), row);
    }
    walk->work->exponential += (uint64_t)rows * m;
    walk->work->other += (uint64_t)3 * rows * m;
}

/* rho rises to the exponents row - shift + rho where they are larger; these features are 1, to the
 * last bit whatever the rounding of large exponents. */
static void raise_reference(const attn_feature_walk *walk, size_t m, float shift, float *row,
                            float *carry)
{
    for (size_t r = 0; r < m; r++) {
        const float rise = fmaxf(row[r] - shift, 0.0f);
        walk->own[r] += rise;
        if (rise > 0.0f) row[r] = shift;
        carry[r] = expf(-rise);
    }
    walk->work->exponential += m;
    walk->work->other += (uint64_t)4 * m;
}

static size_t keys(const attn_feature_walk *walk, size_t rows, bool is_first, const float *k,
                   float *phi, float *carry, bool *has_carry)
{
    const attn_core_call *call = walk->call;
    const attn_kernels *kernels = call->kernels;
    const size_t m = count(call->layer), d = call->layer->head_dim;
    const float half = 0.5f / sqrtf((float)d); /* |u'|^2 / 2 = half |u|^2 */
    size_t i = 0;
    *has_carry = false;
    project(walk, rows, k, phi);
    for (; i < rows; i++) {
        const float *ki = k + i * call->row;
        float *row = phi + i * m;
        const float shift = half * kernels->dot(d, ki, ki);
        if (is_first && i == 0) {
            for (size_t r = 0; r < m; r++) walk->own[r] = row[r] - shift;
            for (size_t r = 0; r < m; r++) row[r] = shift; /* the features are 1 */
        } else {
            kernels->add_scaled(m, -1.0f, walk->own, row);
        }
        if (kernels->maximum(m, row) - shift > RISE) {
            if (i > 0) break;
            raise_reference(walk, m, shift, row, carry);
            *has_carry = true;
        }
        kernels->exp_shifted(m, shift, row);
    }
    walk->work->matmul += (uint64_t)2 * i * d;
    walk->work->exponential += (uint64_t)i * m;
    walk->work->other += (uint64_t)i * (3 * m + 2);
    return i;
}

/* du' = W^T (dphi o phi), and for keys - u' sum(dphi o phi) */
static void features_gradient(const attn_feature_walk *walk, size_t rows, const float *phi,
                              float *dphi, float *dx)
{
    const attn_core_call *call = walk->call;
    const attn_kernels *kernels = call->kernels;
    const size_t m = count(call->layer), d = call->layer->head_dim;
    kernels->softmax_gradient(rows * m, 1.0f, phi, dphi, 0.0f, dphi);
    kernels->product(rows, d, m, dphi, m, 1, walk->shared, d, dx, call->row, false);
    walk->work->matmul += (uint64_t)2 * rows * m * d;
    walk->work->other += (uint64_t)3 * rows * m;
}

static void queries_gradient(const attn_feature_walk *walk, size_t rows, const float *q,
                             const float *phi, float *dphi, float *dq)
{
    (void)q; /* |q|^2 cancels: rows of dphi o phi sum to 0 */
    features_gradient(walk, rows, phi, dphi, dq);
}

static void keys_gradient(const attn_feature_walk *walk, size_t rows, const float *k,
                          const float *phi, float *dphi, float *dk)
{
    const attn_core_call *call = walk->call;
    const attn_kernels *kernels = call->kernels;
    const size_t m = count(call->layer), d = call->layer->head_dim;
    const float factor = -1.0f / sqrtf((float)d);
    features_gradient(walk, rows, phi, dphi, dk);
    for (size_t i = 0; i < rows; i++)
        kernels->add_scaled(d, factor * kernels->sum(m, dphi + i * m), k + i * call->row,
                            dk + i * call->row);
    walk->work->other += (uint64_t)rows * (m + 2 * d + 1);
}

static attn_work head_work(const attn_layer *layer, attn_phase phase, uint64_t tokens,
                           uint64_t again)
{
    const uint64_t m = count(layer), d = layer->head_dim;
    attn_work work = {.matmul = tokens * (4 * m * d + 2 * d),
                      .exponential = 2 * tokens * m,
                      .other = tokens * (6 * m + 2)};
    if (phase != ATTN_PHASE_BACKWARD) return work;
    work.matmul += again * (2 * m * d + 2 * d);
    work.exponential += again * m;
    work.other += again * (3 * m + 2);
    work.matmul += tokens * 4 * m * d;
    work.other += tokens * (7 * m + 2 * d + 1);
    return work;
}

static const attn_feature_map map = {
    .count = count,
    .shared_count = shared_count,
    .own_count = count,
    .prepare = prepare,
    .keys = keys,
    .queries = queries,
    .queries_gradient = queries_gradient,
    .keys_gradient = keys_gradient,
    .head_work = head_work,
    .shared_work = shared_work,
};

/* ---- the core ---------------------------------------------------------------------------- */

static attn_node *oracle_phi(attn_tape *tape, attn_node *u, attn_node *w)
{
    u = attn_scaled(tape, u, pow((double)u->columns, -0.25));
    attn_node *half = attn_scaled(tape, attn_row_sums(tape, attn_times(tape, u, u)), -0.5);
    return attn_exp(tape, attn_plus(tape, attn_matmul(tape, u, attn_transpose(tape, w)), half));
}

/* phi(q) phi(k)^T, masked, divided by its row sums, times v: the definition without a state. */
static attn_node *oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                         attn_node *k, attn_node *v, attn_node *const *parameters,
                         const uint32_t *document_start)
{
    (void)head;
    attn_node *a = attn_matmul(tape, oracle_phi(tape, q, parameters[0]),
                               attn_transpose(tape, oracle_phi(tape, k, parameters[0])));
    a = attn_recurrence_visible(tape, layer, a, document_start);
    attn_node *o = attn_matmul(tape, a, v);
    return attn_times(tape, o, attn_reciprocal(tape, attn_row_sums(tape, a)));
}

static const attn_core core = {
    .declare = declare,
    .saved = attn_recurrence_saved,
    .scratch = attn_recurrence_scratch,
    .cache = attn_recurrence_cache,
    .forward = attn_recurrence_forward,
    .backward = attn_recurrence_backward,
    .decode = attn_recurrence_decode,
    .oracle = oracle,
    .work = attn_recurrence_work,
};

const attn_mechanism attn_mechanism_performer = {
    .title = "softmax attention estimated by positive random features: O(T) work, a fixed state",
    .source = "Choromanski et al., Rethinking Attention with Performers, 2021",
    .multiplies_parts = true,
    .options = options,
    .initialise = initialise,
    .functions = &attn_heads_functions,
    .core = &core,
    .features = &map,
};
