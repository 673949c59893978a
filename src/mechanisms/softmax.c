/* softmax: attention as GPT-2 computes it, without any saving: the full square of scores, masked
 * work done too, P [B][H][T][T] kept for the backward pass.
 *
 *     S = scale Q K^T,  S_ij = -inf for j > i,  P = softmax_row(S),  O = P V
 *     dV = P^T dO,  dP = dO V^T,  dS = scale P o (dP - rowsum(P o dP)),  dQ = dS K,  dK = dS^T Q */
#include "base/threads.h"
#include "mechanisms/exact_core.h"
#include "mechanisms/kv_cache.h"

#include <math.h>
#include <string.h>

enum { ROWS = ATTN_TILE_QUERIES };

/* Rows of P are a whole number of tiles apart. */
static size_t p_row(size_t length)
{
    return attn_packed_count(length, 1);
}

static size_t saved(const attn_layer *layer, size_t batch, size_t length)
{
    return batch * layer->heads * length * p_row(length);
}

/* Forward: packed keys, values, and a block of P where none is kept. Backward: packed values,
 * rows of k, q and dO, sums dq, dk, dv, and a block of dS. */
static size_t worker_count(const attn_layer *layer, size_t length)
{
    return 7 * attn_packed_count(length, layer->head_dim) + ROWS * p_row(length);
}

static size_t scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    (void)batch;
    return threads * worker_count(layer, length);
}

typedef struct job {
    const attn_core_call *call;
    attn_mask mask;
    float scale;
    attn_tally tally;
} job;

/* One head's place in the call. */
typedef struct head {
    size_t b, h, T, d;
    const float *q, *k, *v;
    float *room;
    float *p; /* [T][p_row] kept, or one block */
} head;

static head head_of(const job *j, size_t index, size_t worker)
{
    const attn_core_call *call = j->call;
    const attn_layer *layer = call->layer;
    head s = {.b = index / layer->heads,
              .h = index % layer->heads,
              .T = call->length,
              .d = layer->head_dim};
    const size_t at = s.b * s.T * call->row + s.h * s.d;
    s.q = call->q + at;
    s.k = call->k + at;
    s.v = call->v + at;
    s.room = call->scratch + worker * worker_count(layer, s.T);
    s.p = call->saved ? call->saved + index * s.T * p_row(s.T) : NULL;
    return s;
}

/* c[ni][T] = a[ni][d] times all packed tiles */
static void multiply_tiles(const attn_kernels *kernels, size_t ni, size_t T, size_t d,
                           const float *a, size_t a_row, const float *packed, float *c)
{
    for (size_t j0 = 0; j0 < T; j0 += ATTN_TILE_KEYS)
        kernels->product(ni, attn_smaller(ATTN_TILE_KEYS, T - j0), d, a, a_row, 1, packed + j0 * d,
                         ATTN_TILE_KEYS, c + j0, p_row(T), false);
}

static void softmax_row(const job *j, size_t T, size_t i, size_t document, float *s)
{
    const attn_kernels *kernels = j->call->context->kernels;
    kernels->scale(T, j->scale, s);
    j->mask.hide(j->mask.rule, 0, i, 0, T, document, s);
    kernels->scale(T, 1.0f / kernels->exp_shifted(T, kernels->maximum(T, s), s), s);
}

static void forward_head(void *argument, size_t index, size_t worker)
{
    job *j = argument;
    const attn_core_call *call = j->call;
    const attn_kernels *kernels = call->context->kernels;
    const head s = head_of(j, index, worker);
    const size_t T = s.T, d = s.d, n = attn_packed_count(T, d);
    float *keys = s.room, *values = s.room + n;
    attn_pack_transposed(kernels, T, d, (attn_far_rows){.single = s.k, .row = call->row}, keys);
    attn_copy_head(T, d, s.v, call->row, values);
    for (size_t i0 = 0; i0 < T; i0 += ROWS) {
        const size_t ni = attn_smaller(ROWS, T - i0);
        float *p = s.p ? s.p + i0 * p_row(T) : s.room + 2 * n;
        multiply_tiles(kernels, ni, T, d, s.q + i0 * call->row, call->row, keys, p);
        for (size_t i = 0; i < ni; i++)
            softmax_row(j, T, i0 + i,
                        call->document_start ? call->document_start[s.b * T + i0 + i] : 0,
                        p + i * p_row(T));
        kernels->product(ni, d, T, p, p_row(T), 1, values, d,
                         call->o + (s.b * T + i0) * call->o_row + s.h * d, call->o_row, false);
    }
    /* a score's scale, mask, maximum, difference, sum and quotient; a row's reciprocal */
    const uint64_t square = (uint64_t)T * T;
    attn_work_add(
        &j->tally.of[worker],
        (attn_work){.matmul = 4 * square * d, .exponential = square, .other = 6 * square + T});
}

static void backward_head(void *argument, size_t index, size_t worker)
{
    job *j = argument;
    const attn_core_call *call = j->call;
    const attn_kernels *kernels = call->context->kernels;
    const head s = head_of(j, index, worker);
    const size_t T = s.T, d = s.d, n = attn_packed_count(T, d);
    float *values = s.room, *k = values + n, *q = k + n, *d_o = q + n, *dq = d_o + n, *dk = dq + n,
          *dv = dk + n, *ds = dv + n;
    attn_pack_transposed(kernels, T, d, (attn_far_rows){.single = s.v, .row = call->row}, values);
    attn_copy_head(T, d, s.k, call->row, k);
    attn_copy_head(T, d, s.q, call->row, q);
    attn_copy_head(T, d, call->d_o + s.b * T * call->o_row + s.h * d, call->o_row, d_o);
    for (size_t i0 = 0; i0 < T; i0 += ROWS) {
        const size_t ni = attn_smaller(ROWS, T - i0), row = p_row(T);
        const float *p = s.p + i0 * row;
        multiply_tiles(kernels, ni, T, d, d_o + i0 * d, d, values, ds); /* dP */
        for (size_t i = 0; i < ni; i++) {
            const float delta = kernels->dot(T, p + i * row, ds + i * row);
            kernels->softmax_gradient(T, j->scale, p + i * row, ds + i * row, delta, ds + i * row);
        }
        const bool adds = i0 > 0;
        kernels->product(ni, d, T, ds, row, 1, k, d, dq + i0 * d, d, false);
        kernels->product(T, d, ni, ds, 1, row, q + i0 * d, d, dk, d, adds);
        kernels->product(T, d, ni, p, 1, row, d_o + i0 * d, d, dv, d, adds);
    }
    const size_t at = s.b * T * call->row + s.h * d;
    for (size_t i = 0; i < T; i++) {
        memcpy(call->dq + at + i * call->row, dq + i * d, d * sizeof *dq);
        memcpy(call->dk + at + i * call->row, dk + i * d, d * sizeof *dk);
        memcpy(call->dv + at + i * call->row, dv + i * d, d * sizeof *dv);
    }
    const uint64_t square = (uint64_t)T * T;
    attn_work_add(&j->tally.of[worker], (attn_work){.matmul = 8 * square * d, .other = 5 * square});
}

static void run(const attn_core_call *call, attn_task *task)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    job j = {.call = call,
             .mask = attn_visibility_mask(&rule),
             .scale = 1.0f / sqrtf((float)call->layer->head_dim)};
    const size_t threads = call->context->threads;
    attn_parallel(threads, call->batch * call->layer->heads, task, &j);
    attn_tally_collect(&j.tally, threads, &call->context->work);
}

static void forward(const attn_core_call *call)
{
    run(call, forward_head);
    if (call->cache) {
        const attn_visibility rule = attn_rule_all(call->layer);
        attn_kv_cache_fill(call, &rule);
    }
}

static void backward(const attn_core_call *call)
{
    run(call, backward_head);
}

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    (void)document_start; /* the whole square is computed whatever is masked */
    const attn_visibility rule = attn_rule_all(layer);
    if (phase == ATTN_PHASE_DECODE) return attn_kv_cache_work(layer, &rule, batch, length);
    const uint64_t T = length, d = layer->head_dim, heads = (uint64_t)batch * layer->heads;
    if (phase == ATTN_PHASE_BACKWARD)
        return attn_work_times((attn_work){.matmul = 8 * T * T * d, .other = 5 * T * T}, heads);
    return attn_work_times(
        (attn_work){.matmul = 4 * T * T * d, .exponential = T * T, .other = 6 * T * T + T}, heads);
}

static const attn_core core = {
    .saved = saved,
    .scratch = scratch,
    .cache = attn_all_cache,
    .forward = forward,
    .backward = backward,
    .decode = attn_all_decode,
    .oracle = attn_all_oracle_single,
    .walk = ATTN_WALK_SQUARE,
    .mask = attn_all_mask,
    .work = work,
};

const attn_mechanism attn_mechanism_softmax = {
    .title = "exact attention with every T x T matrix kept: O(T^2) work and memory",
    .source = "Vaswani et al., Attention Is All You Need, 2017; as in GPT-2",
    .functions = &attn_heads_functions,
    .core = &core,
};
