/* retnet: retention, a state that forgets at a fixed rate, one rate a head:
 *
 *     S_n = gamma_h S_{n-1} + k_n v_n^T,   o_n = S_n^T q_n / sqrt(d),   gamma_h = 1 - 2^(-5-h),
 *
 * with rotary q and k; each o is divided by its root mean square and gated by silu(x Wg). This
 * file is the rotation; the recurrence is decay_engine.c, the rest recurrent_layer.c. */
#include "base/error.h"
#include "base/memory.h"
#include "mechanisms/decay_engine.h"
#include "mechanisms/head_rows.h"
#include "mechanisms/recurrent_layer.h"
#include "mechanisms/rope.h"

#include <math.h>

static attn_status check(attn_layer *layer, attn_error *error)
{
    if (layer->head_dim % 2 == 0) return ATTN_OK;
    return attn_fail(error, ATTN_ESHAPE,
                     "retnet: rotary positions need an even width of a head, not %zu",
                     layer->head_dim);
}

static size_t key_dim(const attn_layer *layer)
{
    return layer->head_dim;
}

static double gamma_of(size_t head)
{
    return 1.0 - ldexp(1.0, -5 - (int)head);
}

/* ---- tables, for all heads --------------------------------------------------------------- */

/* Cosines and sines [T][d / 2], and each head's powers of gamma. */
static size_t shared(const attn_layer *layer, size_t batch, size_t length)
{
    (void)batch;
    return length * layer->head_dim + layer->heads * ATTN_DECAY_POWERS;
}

static float *powers_of(const attn_recurrent_run *run, size_t head)
{
    return run->shared + run->call->length * run->layer->head_dim + head * ATTN_DECAY_POWERS;
}

static void prepare(const attn_recurrent_run *run)
{
    const size_t T = run->call->length, half = run->layer->head_dim / 2;
    attn_rope_fill(run->position, T, half, run->shared, run->shared + T * half);
    for (size_t h = 0; h < run->layer->heads; h++)
        attn_decay_fill_powers(gamma_of(h), powers_of(run, h));
    run->context->work.other += 6 * (uint64_t)T * half + ATTN_CHUNK * run->layer->heads;
}

static attn_work shared_work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length)
{
    (void)phase;
    (void)batch;
    return (attn_work){.other = 6 * (uint64_t)length * (layer->head_dim / 2) +
                                ATTN_CHUNK * layer->heads};
}

/* Rows of a chunk turned by their positions; `sign` -1 turns back. */
static void rotate_rows(const attn_recurrent_head *head, float sign, const float *from,
                        size_t from_row, float *to, size_t to_row)
{
    const size_t c = head->length, half = head->run->layer->head_dim / 2;
    const float *cosine = head->run->shared + head->position * half;
    const float *sine = cosine + head->run->call->length * half;
    for (size_t t = 0; t < c; t++) {
        if (t + ATTN_ROWS_AHEAD < c) {
            attn_fetch_rows(1, 2 * half, from + (t + ATTN_ROWS_AHEAD) * from_row, 0);
            attn_claim_row(2 * half, to + (t + ATTN_ROWS_AHEAD) * to_row);
        }
        head->on.kernels->rotate(half, cosine + t * half, sine + t * half, sign,
                                 from + t * from_row, to + t * to_row);
    }
    head->on.work->other += 6 * (uint64_t)c * half;
}

/* ---- a chunk ----------------------------------------------------------------------------- */

/* q, k, v, and the gradients of each [C][d]; the engine's memory. */
static size_t room(const attn_layer *layer)
{
    const size_t d = layer->head_dim;
    return 6 * ATTN_CHUNK * d + attn_decay_room(d, d);
}

/* q is left as it is where only the state is wanted. */
static attn_decay_input load(const attn_recurrent_head *head, bool with_queries)
{
    const attn_recurrent_shape *s = &head->run->shape;
    const size_t c = head->length, d = s->key_dim, block = ATTN_CHUNK * d;
    const float *rows = head->run->rows + attn_recurrent_at(head, head->h * d);
    float *room = head->room, *q = attn_cut(&room, block), *k = attn_cut(&room, block);
    float *v = attn_cut(&room, block);
    if (with_queries) {
        rotate_rows(head, 1.0f, rows + s->q, s->row, q, d);
        attn_counted_scale(head->on, c * d, 1.0f / sqrtf((float)d), q);
    }
    rotate_rows(head, 1.0f, rows + s->k, s->row, k, d);
    head->on.kernels->copy_rows(c, d, 1.0f, NULL, rows + s->v, s->row, v, d);
    return (attn_decay_input){.on = head->on,
                              .length = c,
                              .key_dim = d,
                              .value_dim = d,
                              .q = q,
                              .k = k,
                              .v = v,
                              .powers = powers_of(head->run, head->h),
                              .room = room};
}

static void forward(const attn_recurrent_head *head, float *state, float *o)
{
    const attn_decay_input in = load(head, true);
    attn_decay_forward(&in, state, o);
}

static void advance(const attn_recurrent_head *head, const float *state, float *next)
{
    const attn_decay_input in = load(head, false);
    attn_decay_advance(&in, state, next);
}

static void backward(const attn_recurrent_head *head, const attn_chunk_states *states,
                     const float *d_o)
{
    const attn_recurrent_shape *s = &head->run->shape;
    const size_t c = head->length, d = s->key_dim, block = ATTN_CHUNK * d;
    float *d_rows = head->run->d_rows + attn_recurrent_at(head, head->h * d);
    attn_decay_input in = load(head, true);
    const attn_decay_gradients to = {.dq = attn_cut(&in.room, block),
                                     .dk = attn_cut(&in.room, block),
                                     .dv = attn_cut(&in.room, block)};
    attn_decay_backward(&in, states, d_o, &to);
    attn_counted_scale(head->on, c * d, 1.0f / sqrtf((float)d), to.dq);
    rotate_rows(head, -1.0f, to.dq, d, d_rows + s->q, s->row);
    rotate_rows(head, -1.0f, to.dk, d, d_rows + s->k, s->row);
    head->on.kernels->copy_rows(c, d, 1.0f, NULL, to.dv, d, d_rows + s->v, s->row);
}

static void token(const attn_recurrent_head *head, attn_recurrent_token *t)
{
    const size_t d = head->run->shape.key_dim;
    attn_rope_turn(t->position, d / 2, t->q);
    attn_rope_turn(t->position, d / 2, t->k);
    for (size_t i = 0; i < d; i++) {
        t->q[i] /= sqrt((double)d);
        t->decay[i] = gamma_of(head->h);
    }
}

static attn_work head_work(const attn_layer *layer, attn_phase phase, size_t length,
                           const uint32_t *documents)
{
    const size_t d = layer->head_dim;
    attn_work work = attn_decay_work(phase, d, d, false, length, documents);
    /* turned, q scaled; and k of chunks whose state goes on */
    work.other += (phase == ATTN_PHASE_BACKWARD ? 14 : 7) * (uint64_t)length * d;
    if (phase == ATTN_PHASE_BACKWARD)
        work.other += 3 * attn_chunk_counts_of(length, documents).tokens_passed * (uint64_t)d;
    return work;
}

/* ((q k^T) o D) v, D_nm = gamma^(n - m) for m <= n of the same document: the parallel form */
static attn_node *oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *x,
                         attn_node *const *parameters, attn_node *more, const uint32_t *documents)
{
    (void)more; /* there is none */
    const size_t T = x->rows;
    double *decay = attn_alloc_array(ATTN_MEMORY_OTHER, T * T, sizeof *decay);
    if (!decay) return attn_tape_fail(tape);
    for (size_t n = 0; n < T; n++)
        for (size_t m = documents ? documents[n] : 0; m <= n; m++)
            decay[n * T + m] = pow(gamma_of(head), (double)(n - m));
    attn_node *d = attn_leaf(tape, T, T, decay);
    attn_free(decay);
    attn_node *q = attn_recurrent_project(tape, layer, parameters, "wq.weight", x, head);
    attn_node *k = attn_recurrent_project(tape, layer, parameters, "wk.weight", x, head);
    attn_node *v = attn_recurrent_project(tape, layer, parameters, "wv.weight", x, head);
    q = attn_scaled(tape, attn_rope_oracle(tape, q, documents),
                    1.0 / sqrt((double)layer->head_dim));
    k = attn_rope_oracle(tape, k, documents);
    attn_node *a = attn_times(tape, attn_matmul(tape, q, attn_transpose(tape, k)), d);
    return attn_matmul(tape, a, v);
}

static const attn_recurrence retention = {
    .has_gate = true,
    .key_dim = key_dim,
    .shared = shared,
    .room = room,
    .prepare = prepare,
    .forward = forward,
    .advance = advance,
    .backward = backward,
    .token = token,
    .head_work = head_work,
    .shared_work = shared_work,
    .oracle = oracle,
};

const attn_mechanism attn_mechanism_retnet = {
    .title = "retention: a state that forgets at a fixed rate in each head, rotary positions",
    .source = "Sun et al., Retentive Network, 2023",
    .is_causal_only = true,
    .check = check,
    .functions = &attn_recurrent_functions,
    .recurrence = &retention,
};
