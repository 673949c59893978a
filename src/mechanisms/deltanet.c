/* deltanet: the delta rule, a state that at each key replaces what it holds by the new value
 *
 *     S_t = a_t S_{t-1} (I - b_t k_t k_t^T) + b_t v_t k_t^T,   o_t = S_t q_t / sqrt(d),
 *     q, k = silu(projection) / sqrt(|.|^2 + 1e-6),   v = silu(projection),   b_t = sigmoid(x wb)
 *
 * with a root mean square norm of each o. deltanet: a_t = 1. gated-deltanet:
 *     a_t = exp(-exp(a_log_h) softplus(x wa + dt_bias_h)), and the gate silu(x Wg).
 *
 * This file is the maps around the recurrence of delta_engine.c. */
#include "base/random.h"
#include "mechanisms/delta_engine.h"
#include "mechanisms/head_rows.h"
#include "mechanisms/recurrent_layer.h"
#include "mechanisms/tile_engine.h"

#include <math.h>
#include <string.h>

static const float norm_epsilon = 1e-6f;

static bool is_gated(const attn_layer *layer)
{
    return layer->mechanism->recurrence->has_gate;
}

static size_t key_dim(const attn_layer *layer)
{
    return layer->head_dim;
}

static size_t more(const attn_layer *layer)
{
    return (is_gated(layer) ? 2 : 1) * layer->heads; /* x wb, then x wa */
}

static void declare_more(attn_layer *layer)
{
    attn_layer_declare(layer, "wb.weight", layer->heads, layer->d_model, ATTN_INITIAL_WEIGHT);
    if (is_gated(layer))
        attn_layer_declare(layer, "wa.weight", layer->heads, layer->d_model, ATTN_INITIAL_WEIGHT);
}

static void declare_decay(attn_layer *layer)
{
    attn_layer_declare(layer, "a_log", layer->heads, 0, ATTN_INITIAL_OWN);
    attn_layer_declare(layer, "dt_bias", layer->heads, 0, ATTN_INITIAL_OWN);
}

/* As published: exp(a_log) uniform in (0, 16]; softplus(dt_bias) log-uniform in [0.001, 0.1]. */
static bool initialise(const attn_layer *layer, size_t index, uint64_t seed, uint64_t stream,
                       float *out)
{
    const bool is_rate = strcmp(layer->parameters[index].name, "a_log") == 0;
    if (!is_rate && strcmp(layer->parameters[index].name, "dt_bias") != 0) return false;
    for (size_t h = 0; h < layer->heads; h++) {
        const double u = attn_random_uniform(seed, stream, h);
        const double dt = 0.001 * pow(100.0, u);
        out[h] = (float)(is_rate ? log(16.0 * (1.0 - u)) : dt + log(-expm1(-dt)));
    }
    return true;
}

/* ---- memory ------------------------------------------------------------------------------ */

static size_t saved(const attn_layer *layer, size_t batch, size_t length)
{
    return batch * length * layer->d_model; /* R of every head */
}

/* Gradients of a_log and dt_bias by head and sequence. */
static size_t shared(const attn_layer *layer, size_t batch, size_t length)
{
    (void)length;
    return is_gated(layer) ? 2 * batch * layer->heads : 0;
}

/* q, k, v [C][d], their gradients or R; b, log a, their gradients, inverse lengths of q and k [C];
 * the engine's. */
static size_t room(const attn_layer *layer)
{
    const size_t d = layer->head_dim;
    return ATTN_CHUNK * (6 * d + 6) + attn_delta_room(d, d);
}

/* ---- into the recurrence ----------------------------------------------------------------- */

/* from's rows through silu to `to` [c][d], each divided by its length and times `scale`, and the
 * reciprocals of lengths; NULL: not divided. */
static void load_rows(const attn_recurrent_head *head, const float *from, float scale, float *to,
                      float *inverses)
{
    const attn_counted on = head->on;
    const size_t c = head->length, d = head->run->shape.key_dim;
    on.kernels->copy_rows(c, d, 1.0f, NULL, from, head->run->shape.row, to, d);
    attn_counted_silu(on, c * d, to, to);
    for (size_t t = 0; inverses && t < c; t++) {
        const float squares = (float)on.kernels->sum_squares(d, to + t * d);
        inverses[t] = 1.0f / sqrtf(squares + norm_epsilon);
        attn_counted_scale(on, d, scale * inverses[t], to + t * d);
        on.work->exponential += 1;
        on.work->other += 2 * (uint64_t)d + 3;
    }
}

/* What load_rows() does, backward: `grad` [c][d] is that of its rows, overwritten. */
static void load_rows_gradient(const attn_recurrent_head *head, const float *from, float scale,
                               const float *rows, const float *inverses, float *grad, float *to)
{
    const attn_counted on = head->on;
    const size_t c = head->length, d = head->run->shape.key_dim, stride = head->run->shape.row;
    for (size_t t = 0; t < c; t++) {
        float *dx = grad + t * d;
        if (t + ATTN_ROWS_AHEAD < c) {
            attn_fetch_rows(1, d, from + (t + ATTN_ROWS_AHEAD) * stride, 0);
            attn_claim_row(d, to + (t + ATTN_ROWS_AHEAD) * stride);
        }
        if (inverses) {
            /* x = scale s / |s|: ds = (dx - x (x . dx) / scale^2) scale / |s| */
            const float along = attn_counted_dot(on, d, rows + t * d, dx) / (scale * scale);
            attn_counted_add_scaled(on, d, -along, rows + t * d, dx);
            attn_counted_scale(on, d, scale * inverses[t], dx);
            on.work->other += 4;
        }
        attn_counted_silu_gradient(on, d, from + t * stride, dx, to + t * stride);
    }
}

static double softplus(double x)
{
    return (x > 0.0 ? x : 0.0) + log1p(exp(-fabs(x)));
}

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

/* log a_t = -rate softplus(u_t + bias), u = x wa */
typedef struct forgetting {
    double rate, bias;
} forgetting;

static forgetting forgetting_of(const attn_recurrent_head *head)
{
    const attn_layer *layer = head->run->layer;
    const float *parameters = head->run->call->parameters;
    return (forgetting){.rate =
                            exp((double)parameters[attn_layer_offset(layer, "a_log") + head->h]),
                        .bias = (double)parameters[attn_layer_offset(layer, "dt_bias") + head->h]};
}

static double log_decay_of(forgetting f, double u)
{
    return -f.rate * softplus(u + f.bias);
}

/* The two numbers a token that a head has: T of each, far fewer than its vectors. */
enum { RATE_WORK = 2, DECAY_WORK = 5 }; /* sum, quotient; bias, softplus, product */

static void load_gates(const attn_recurrent_head *head, float *rate, float *log_decay)
{
    const attn_recurrent_shape *s = &head->run->shape;
    const attn_layer *layer = head->run->layer;
    const size_t T = head->length, heads = layer->heads;
    const float *row = head->run->rows + attn_recurrent_at(head, s->more + head->h);
    for (size_t t = 0; t < T; t++) rate[t] = (float)sigmoid((double)row[t * s->row]);
    head->on.work->exponential += T;
    head->on.work->other += RATE_WORK * (uint64_t)T;
    if (!is_gated(layer)) return;
    const forgetting f = forgetting_of(head);
    for (size_t t = 0; t < T; t++)
        log_decay[t] = (float)fmax(log_decay_of(f, (double)row[t * s->row + heads]), -1e30);
    head->on.work->exponential += 2 * (uint64_t)T + 1;
    head->on.work->other += DECAY_WORK * (uint64_t)T;
}

/* From d_rate [T] and d_log_decay [T] to the rows and to the head's part of a_log and dt_bias. */
static void gate_gradients(const attn_recurrent_head *head, const float *rate,
                           const float *log_decay, const float *d_rate, const float *d_log_decay)
{
    const attn_recurrent_shape *s = &head->run->shape;
    const attn_layer *layer = head->run->layer;
    const size_t T = head->length, heads = layer->heads;
    const size_t at = attn_recurrent_at(head, s->more + head->h);
    const float *row = head->run->rows + at;
    float *d_row = head->run->d_rows + at;
    for (size_t t = 0; t < T; t++) d_row[t * s->row] = d_rate[t] * rate[t] * (1.0f - rate[t]);
    head->on.work->other += 3 * (uint64_t)T;
    if (!is_gated(layer)) return;
    const forgetting f = forgetting_of(head);
    double d_a_log = 0.0, d_dt = 0.0;
    for (size_t t = 0; t < T; t++) {
        /* d/du = -rate sigmoid(u + bias), d/d a_log = log a_t */
        const double d_u =
            -(double)d_log_decay[t] * f.rate * sigmoid((double)row[t * s->row + heads] + f.bias);
        d_a_log += (double)d_log_decay[t] * (double)log_decay[t];
        d_dt += d_u;
        d_row[t * s->row + heads] = (float)d_u;
    }
    head->run->shared[2 * head->index] += (float)d_a_log;
    head->run->shared[2 * head->index + 1] += (float)d_dt;
    head->on.work->exponential += T + 1;
    head->on.work->other += 8 * (uint64_t)T + 2;
}

static void prepare(const attn_recurrent_run *run)
{
    memset(run->shared, 0, 2 * run->call->batch * run->layer->heads * sizeof *run->shared);
}

static void finish(const attn_recurrent_run *run)
{
    const attn_layer *layer = run->layer;
    const size_t heads = layer->heads;
    float *d_a_log = run->call->gradients + attn_layer_offset(layer, "a_log");
    float *d_dt = run->call->gradients + attn_layer_offset(layer, "dt_bias");
    for (size_t h = 0; h < heads; h++) d_a_log[h] = d_dt[h] = 0.0f;
    for (size_t i = 0; i < run->call->batch * heads; i++) {
        d_a_log[i % heads] += run->shared[2 * i];
        d_dt[i % heads] += run->shared[2 * i + 1];
    }
    run->context->work.other += 2 * run->call->batch * heads;
}

/* ---- a chunk ----------------------------------------------------------------------------- */

typedef struct inverse_lengths {
    float *q, *k; /* [C], of rows before they became directions */
} inverse_lengths;

/* Keys, b and decays; the rest only where more than the state is wanted. */
static attn_delta_input load(const attn_recurrent_head *head, bool is_whole,
                             inverse_lengths *inverses)
{
    const attn_recurrent_shape *s = &head->run->shape;
    const size_t d = s->key_dim, block = ATTN_CHUNK * d;
    const float *rows = head->run->rows + attn_recurrent_at(head, head->h * d);
    float *room = head->room, *q = attn_cut(&room, block), *k = attn_cut(&room, block);
    float *v = attn_cut(&room, block), *rate = attn_cut(&room, ATTN_CHUNK);
    float *log_decay = attn_cut(&room, ATTN_CHUNK);
    inverses->q = attn_cut(&room, ATTN_CHUNK);
    inverses->k = attn_cut(&room, ATTN_CHUNK);
    if (is_whole) {
        load_rows(head, rows + s->q, 1.0f / sqrtf((float)d), q, inverses->q);
        load_rows(head, rows + s->v, 1.0f, v, NULL);
    }
    load_rows(head, rows + s->k, 1.0f, k, inverses->k);
    load_gates(head, rate, log_decay);
    return (attn_delta_input){.on = head->on,
                              .length = head->length,
                              .key_dim = d,
                              .value_dim = d,
                              .q = q,
                              .k = k,
                              .v = v,
                              .rate = rate,
                              .log_decay = is_gated(head->run->layer) ? log_decay : NULL,
                              .room = room};
}

/* The chunk's rows of R, which the forward pass keeps; NULL: inference. */
static float *kept_updates(const attn_recurrent_head *head)
{
    const size_t T = head->run->call->length;
    if (!head->run->saved) return NULL;
    return head->run->saved + (head->index * T + head->start) * head->run->shape.value_dim;
}

static void forward(const attn_recurrent_head *head, float *state, float *o)
{
    float *kept = kept_updates(head);
    inverse_lengths inverses;
    attn_delta_input in = load(head, true, &inverses);
    float *r = attn_cut(&in.room, ATTN_CHUNK * in.value_dim);
    attn_delta_forward(&in, state, o, kept ? kept : r);
}

static void advance(const attn_recurrent_head *head, const float *state, float *next)
{
    inverse_lengths inverses;
    const attn_delta_input in = load(head, false, &inverses);
    attn_delta_advance(&in, kept_updates(head), state, next);
}

static void backward(const attn_recurrent_head *head, const attn_chunk_states *states,
                     const float *d_o)
{
    const attn_recurrent_shape *s = &head->run->shape;
    const size_t d = s->key_dim, block = ATTN_CHUNK * d;
    const size_t at = attn_recurrent_at(head, head->h * d);
    const float *rows = head->run->rows + at;
    float *d_rows = head->run->d_rows + at;
    inverse_lengths inverses;
    attn_delta_input in = load(head, true, &inverses);
    const attn_delta_gradients to = {.dq = attn_cut(&in.room, block),
                                     .dk = attn_cut(&in.room, block),
                                     .dv = attn_cut(&in.room, block),
                                     .d_rate = attn_cut(&in.room, ATTN_CHUNK),
                                     .d_log_decay = attn_cut(&in.room, ATTN_CHUNK)};
    attn_delta_backward(&in, states, kept_updates(head), d_o, &to);
    load_rows_gradient(head, rows + s->q, 1.0f / sqrtf((float)d), in.q, inverses.q, to.dq,
                       d_rows + s->q);
    load_rows_gradient(head, rows + s->k, 1.0f, in.k, inverses.k, to.dk, d_rows + s->k);
    load_rows_gradient(head, rows + s->v, 1.0f, NULL, NULL, to.dv, d_rows + s->v);
    gate_gradients(head, in.rate, in.log_decay, to.d_rate, to.d_log_decay);
}

/* x = silu(x), divided by its length where it is a direction */
static void activate(size_t n, double *x, bool is_direction)
{
    double squares = 0.0;
    for (size_t i = 0; i < n; i++) {
        x[i] *= sigmoid(x[i]);
        squares += x[i] * x[i];
    }
    for (size_t i = 0; i < n && is_direction; i++) x[i] /= sqrt(squares + (double)norm_epsilon);
}

static void token(const attn_recurrent_head *head, attn_recurrent_token *t)
{
    const attn_layer *layer = head->run->layer;
    const size_t d = head->run->shape.key_dim;
    activate(d, t->q, true);
    activate(d, t->k, true);
    activate(d, t->v, false);
    t->rate = sigmoid(t->more[head->h]);
    for (size_t i = 0; i < d; i++) t->q[i] /= sqrt((double)d);
    if (!is_gated(layer)) return;
    const double u = t->more[layer->heads + head->h];
    const double a = exp(log_decay_of(forgetting_of(head), u));
    for (size_t i = 0; i < d; i++) t->decay[i] = a;
}

static attn_work head_work(const attn_layer *layer, attn_phase phase, size_t length,
                           const uint32_t *documents)
{
    const uint64_t T = length, d = layer->head_dim;
    const bool gated = is_gated(layer), is_backward = phase == ATTN_PHASE_BACKWARD;
    attn_work work = attn_delta_work(phase, d, d, gated, length, documents);
    work.exponential += 3 * T * d + 2 * T + T; /* silu; lengths; b */
    work.other += 6 * T * d + 2 * T * (3 * d + 3) + RATE_WORK * T;
    const attn_chunk_counts chunks = attn_chunk_counts_of(length, documents);
    if (gated) {
        work.exponential += 2 * T + chunks.all;
        work.other += DECAY_WORK * T;
    }
    if (!is_backward) return work;
    work.matmul += 4 * T * d;
    work.exponential += 3 * T * d;
    work.other += 21 * T * d + 2 * T * (3 * d + 4) + 3 * T;
    /* k and b of chunks whose state goes on, again */
    work.exponential += chunks.tokens_passed * (d + 2);
    work.other += chunks.tokens_passed * (5 * d + 3 + RATE_WORK);
    if (gated) {
        work.exponential += T + chunks.all + 2 * chunks.tokens_passed + chunks.passed;
        work.other += 8 * T + 2 * chunks.all + DECAY_WORK * chunks.tokens_passed;
    }
    return work;
}

static attn_work shared_work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length)
{
    (void)length;
    return (attn_work){.other = phase == ATTN_PHASE_BACKWARD ? 2 * batch * layer->heads : 0};
}

/* ---- oracle ------------------------------------------------------------------------------ */

static attn_node *silu_project(attn_tape *tape, const attn_layer *layer,
                               attn_node *const *parameters, const char *name, attn_node *x,
                               size_t head)
{
    attn_node *u = attn_recurrent_project(tape, layer, parameters, name, x, head);
    return attn_times(tape, u, attn_sigmoid(tape, u));
}

/* a [T][1] */
static attn_node *decay(attn_tape *tape, const attn_layer *layer, attn_node *const *parameters,
                        attn_node *x, size_t head)
{
    attn_node *log_rate = attn_recurrent_parameter(layer, parameters, "a_log");
    attn_node *bias = attn_recurrent_parameter(layer, parameters, "dt_bias");
    attn_node *u = attn_recurrent_project(tape, layer, parameters, "wa.weight", x, head);
    attn_node *dt = attn_softplus(tape, attn_plus(tape, u, attn_columns(tape, bias, head, 1)));
    attn_node *rate = attn_exp(tape, attn_columns(tape, log_rate, head, 1));
    return attn_exp(tape, attn_scaled(tape, attn_times(tape, dt, rate), -1.0));
}

/* Token by token, as the equation stands, S [dk][dv]. */
static attn_node *oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *x,
                         attn_node *const *parameters, attn_node *more, const uint32_t *documents)
{
    (void)more; /* rows of heads */
    const double scale = 1.0 / sqrt((double)layer->head_dim);
    attn_node *q = silu_project(tape, layer, parameters, "wq.weight", x, head);
    attn_node *k = silu_project(tape, layer, parameters, "wk.weight", x, head);
    attn_node *v = silu_project(tape, layer, parameters, "wv.weight", x, head);
    q = attn_scaled(tape, attn_normal(tape, q, 1.0, 1e-6), scale);
    k = attn_normal(tape, k, 1.0, 1e-6);
    attn_node *b =
        attn_sigmoid(tape, attn_recurrent_project(tape, layer, parameters, "wb.weight", x, head));
    attn_node *a = is_gated(layer) ? decay(tape, layer, parameters, x, head) : NULL;
    attn_node *k_t = attn_transpose(tape, k), *state = NULL, *o = NULL;
    for (size_t t = 0; t < x->rows; t++) {
        const bool is_first = t == 0 || (documents && documents[t] == t);
        attn_node *wrong = attn_rows(tape, v, t, 1);
        if (!is_first) {
            if (a) state = attn_times(tape, state, attn_rows(tape, a, t, 1));
            attn_node *recalled = attn_matmul(tape, attn_rows(tape, k, t, 1), state);
            wrong = attn_plus(tape, wrong, attn_scaled(tape, recalled, -1.0));
        }
        attn_node *update = attn_times(tape, wrong, attn_rows(tape, b, t, 1));
        attn_node *write = attn_matmul(tape, attn_columns(tape, k_t, t, 1), update);
        state = is_first ? write : attn_plus(tape, state, write);
        attn_node *row = attn_matmul(tape, attn_rows(tape, q, t, 1), state);
        o = o ? attn_above(tape, o, row) : row;
    }
    return o ? o : attn_tape_fail(tape); /* no rows: x did not fit */
}

static const attn_recurrence plain = {
    .has_norm_weight = true,
    .corrects = true,
    .key_dim = key_dim,
    .more = more,
    .declare_more = declare_more,
    .saved = saved,
    .room = room,
    .forward = forward,
    .advance = advance,
    .backward = backward,
    .token = token,
    .head_work = head_work,
    .oracle = oracle,
};

static const attn_recurrence gated = {
    .has_gate = true,
    .has_norm_weight = true,
    .corrects = true,
    .key_dim = key_dim,
    .more = more,
    .declare_more = declare_more,
    .declare_own = declare_decay,
    .saved = saved,
    .shared = shared,
    .room = room,
    .prepare = prepare,
    .forward = forward,
    .advance = advance,
    .backward = backward,
    .token = token,
    .finish = finish,
    .head_work = head_work,
    .shared_work = shared_work,
    .oracle = oracle,
};

const attn_mechanism attn_mechanism_deltanet = {
    .title = "the delta rule: a state that corrects what it holds at each key",
    .source = "Yang et al., Parallelizing Linear Transformers with the Delta Rule, 2024; without "
              "convolutions",
    .is_causal_only = true,
    .functions = &attn_recurrent_functions,
    .recurrence = &plain,
};

const attn_mechanism attn_mechanism_gated_deltanet = {
    .title = "the delta rule with a decay that the tokens decide",
    .source = "Yang et al., Gated Delta Networks, 2024; without convolutions",
    .is_causal_only = true,
    .initialise = initialise,
    .functions = &attn_recurrent_functions,
    .recurrence = &gated,
};
