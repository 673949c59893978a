/* gla: gated linear attention, a state that forgets each key feature at a rate of its own, which
 * the token decides:
 *
 *     S_t = diag(a_t) S_{t-1} + k_t v_t^T,   o_t = S_t^T q_t / sqrt(dk),
 *     a_t = sigmoid(x_t A1 A2 + b)^(1/16),   A1 [C][rank], A2 [rank][key_dim]
 *
 * with a root mean square norm of each o and the gate silu(x Wg). This file is a_t; the
 * recurrence is decay_engine.c, the rest recurrent_layer.c. */
#include "base/error.h"
#include "mechanisms/decay_engine.h"
#include "mechanisms/projection.h"
#include "mechanisms/recurrent_layer.h"

#include <math.h>
#include <string.h>

enum { KEY_DIM, GATE_RANK };

static const attn_option options[] = {
    [KEY_DIM] = {"key_dim", ATTN_OPTION_SIZE, "auto", 1, 1048576,
                 "width of queries and keys over all heads; the heads divide it. auto: half of the "
                 "model's"},
    [GATE_RANK] = {"gate_rank", ATTN_OPTION_SIZE, "16", 1, 65536,
                   "rank of the projection that makes the decays"},
    {.name = NULL}};

static const float exponent = 1.0f / 16.0f; /* of the sigmoid */

static attn_status check(attn_layer *layer, attn_error *error)
{
    size_t *keys = &layer->options[KEY_DIM].size;
    if (*keys == ATTN_AUTO) *keys = layer->heads * (layer->head_dim > 1 ? layer->head_dim / 2 : 1);
    if (*keys % layer->heads == 0) return ATTN_OK;
    return attn_fail(error, ATTN_ESHAPE, "gla: key_dim=%zu is no multiple of the %zu heads", *keys,
                     layer->heads);
}

static size_t key_dim(const attn_layer *layer)
{
    return layer->options[KEY_DIM].size / layer->heads;
}

static size_t rank(const attn_layer *layer)
{
    return layer->options[GATE_RANK].size;
}

static void declare_more(attn_layer *layer)
{
    attn_layer_declare(layer, "w_a1.weight", rank(layer), layer->d_model, ATTN_INITIAL_WEIGHT);
}

static void declare_own(attn_layer *layer)
{
    const size_t keys = layer->options[KEY_DIM].size;
    attn_layer_declare(layer, "w_a2.weight", keys, rank(layer), ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "w_a2.bias", keys, 0, ATTN_INITIAL_OWN);
    attn_layer_declare_projection(layer, "w_a2.weight", "w_a2.bias", rank(layer), keys);
}

/* Features of a head remember for different times: from sigmoid(0)^(1/16), half of it lost after
 * 16 tokens, to sigmoid(6)^(1/16), half of it lost after 4500. */
static bool initialise(const attn_layer *layer, size_t index, uint64_t seed, uint64_t stream,
                       float *out)
{
    (void)seed;
    (void)stream;
    if (strcmp(layer->parameters[index].name, "w_a2.bias") != 0) return false;
    const size_t d = key_dim(layer);
    for (size_t i = 0; i < layer->parameters[index].count; i++)
        out[i] = d > 1 ? 6.0f * (float)(i % d) / (float)(d - 1) : 3.0f;
    return true;
}

/* ---- decays, for all heads --------------------------------------------------------------- */

/* Over R rows: x A1 [R][rank] and its gradient, z = x A1 A2 + b [R][key_dim] and its gradient. */
typedef struct decays {
    float *a1, *d_a1, *z, *d_z;
} decays;

static decays divide(const attn_layer *layer, size_t rows, float *room)
{
    decays d;
    d.a1 = attn_cut(&room, rows * rank(layer));
    d.d_a1 = attn_cut(&room, rows * rank(layer));
    d.z = attn_cut(&room, rows * layer->options[KEY_DIM].size);
    d.d_z = attn_cut(&room, rows * layer->options[KEY_DIM].size);
    return d;
}

static decays decays_of(const attn_recurrent_run *run)
{
    return divide(run->layer, run->call->batch * run->call->length, run->shared);
}

static size_t shared(const attn_layer *layer, size_t batch, size_t length)
{
    return 2 * batch * length * (rank(layer) + layer->options[KEY_DIM].size);
}

static void prepare(const attn_recurrent_run *run)
{
    const attn_layer *layer = run->layer;
    const size_t rows = run->call->batch * run->call->length, r = rank(layer);
    const decays d = decays_of(run);
    run->context->kernels->copy_rows(rows, r, 1.0f, NULL, run->rows + run->shape.more,
                                     run->shape.row, d.a1, r);
    attn_projection_forward(run->context, layer, run->call, ATTN_RECURRENT_OWN, rows, d.a1, d.z);
}

/* The gradients of A2 and b, and of x A1 into the rows. */
static void finish(const attn_recurrent_run *run)
{
    const attn_layer *layer = run->layer;
    const attn_call *call = run->call;
    const size_t rows = call->batch * call->length, r = rank(layer);
    const decays d = decays_of(run);
    attn_projection_backward(run->context, layer, call, ATTN_RECURRENT_OWN, rows, d.a1, d.d_z,
                             d.d_a1);
    for (size_t i = 0; i < rows; i++)
        memcpy(run->d_rows + i * run->shape.row + run->shape.more, d.d_a1 + i * r,
               r * sizeof(float));
}

static attn_work shared_work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length)
{
    const uint64_t rows = (uint64_t)batch * length, keys = layer->options[KEY_DIM].size;
    const bool is_backward = phase == ATTN_PHASE_BACKWARD;
    return (attn_work){.matmul = (is_backward ? 6 : 2) * rows * rank(layer) * keys,
                       .other = (is_backward ? 2 : 1) * rows * keys};
}

/* ---- a head ------------------------------------------------------------------------------ */

/* q, k, log a [T][dk] and v [T][dv], the gradients of each, and the engine's memory. */
static size_t room(const attn_layer *layer, size_t length)
{
    const size_t dk = key_dim(layer), dv = layer->head_dim;
    return 2 * length * (3 * dk + dv) + attn_decay_room(length, dk, dv);
}

static attn_decay_head load(const attn_recurrent_head *head, float **memory)
{
    const attn_recurrent_shape *s = &head->run->shape;
    const size_t T = head->run->call->length, dk = s->key_dim, dv = s->value_dim;
    const size_t keys = head->run->layer->options[KEY_DIM].size;
    const float *rows = head->run->rows + attn_recurrent_at(head, 0);
    const float *z = decays_of(head->run).z + head->first * keys + head->h * dk;
    float *q = attn_cut(memory, T * dk), *k = attn_cut(memory, T * dk);
    float *v = attn_cut(memory, T * dv), *log_a = attn_cut(memory, T * dk);
    const attn_kernels *kernels = head->on.kernels;
    kernels->copy_rows(T, dk, 1.0f, NULL, rows + s->q + head->h * dk, s->row, q, dk);
    kernels->copy_rows(T, dk, 1.0f, NULL, rows + s->k + head->h * dk, s->row, k, dk);
    kernels->copy_rows(T, dv, 1.0f, NULL, rows + s->v + head->h * dv, s->row, v, dv);
    kernels->copy_rows(T, dk, 1.0f, NULL, z, keys, log_a, dk);
    attn_counted_scale(head->on, T * dk, 1.0f / sqrtf((float)dk), q);
    kernels->log_sigmoid(T * dk, log_a, log_a);
    head->on.work->exponential += 2 * (uint64_t)T * dk; /* an exponential and a logarithm */
    head->on.work->other += 2 * (uint64_t)T * dk;
    attn_counted_scale(head->on, T * dk, exponent, log_a);
    return (attn_decay_head){.on = head->on,
                             .length = T,
                             .key_dim = dk,
                             .value_dim = dv,
                             .documents = head->documents,
                             .q = q,
                             .k = k,
                             .v = v,
                             .log_decay = log_a};
}

static void forward(const attn_recurrent_head *head, float *state, float *o)
{
    float *memory = head->room;
    attn_decay_head inner = load(head, &memory);
    inner.room = memory;
    attn_decay_forward(&inner, state, o);
}

static void backward(const attn_recurrent_head *head, const float *d_o)
{
    const attn_recurrent_shape *s = &head->run->shape;
    const size_t T = head->run->call->length, dk = s->key_dim, dv = s->value_dim;
    const size_t keys = head->run->layer->options[KEY_DIM].size;
    const size_t z_at = head->first * keys + head->h * dk;
    const decays all = decays_of(head->run);
    float *memory = head->room, *d_rows = head->run->d_rows + attn_recurrent_at(head, 0);
    attn_decay_head inner = load(head, &memory);
    const attn_decay_gradients to = {.dq = attn_cut(&memory, T * dk),
                                     .dk = attn_cut(&memory, T * dk),
                                     .d_log_decay = attn_cut(&memory, T * dk),
                                     .dv = attn_cut(&memory, T * dv)};
    inner.room = memory;
    attn_decay_backward(&inner, d_o, &to);
    attn_counted_scale(head->on, T * dk, 1.0f / sqrtf((float)dk), to.dq);
    attn_counted_scale(head->on, T * dk, exponent, to.d_log_decay);
    for (size_t t = 0; t < T; t++) {
        float *row = d_rows + t * s->row;
        memcpy(row + s->q + head->h * dk, to.dq + t * dk, dk * sizeof *row);
        memcpy(row + s->k + head->h * dk, to.dk + t * dk, dk * sizeof *row);
        memcpy(row + s->v + head->h * dv, to.dv + t * dv, dv * sizeof *row);
        head->on.kernels->log_sigmoid_gradient(dk, all.z + z_at + t * keys, to.d_log_decay + t * dk,
                                               all.d_z + z_at + t * keys);
    }
    head->on.work->exponential += (uint64_t)T * dk;
    head->on.work->other += 2 * (uint64_t)T * dk;
}

static void token(const attn_recurrent_head *head, attn_recurrent_token *t)
{
    const attn_layer *layer = head->run->layer;
    const size_t dk = key_dim(layer), r = rank(layer);
    const float *parameters = head->run->call->parameters;
    const float *w = parameters + attn_layer_offset(layer, "w_a2.weight") + head->h * dk * r;
    const float *bias = parameters + attn_layer_offset(layer, "w_a2.bias") + head->h * dk;
    for (size_t i = 0; i < dk; i++) {
        double z = (double)bias[i];
        for (size_t j = 0; j < r; j++) z += (double)w[i * r + j] * t->more[j];
        t->q[i] /= sqrt((double)dk);
        t->decay[i] = pow(1.0 + exp(-z), -(double)exponent);
    }
}

static attn_work head_work(const attn_layer *layer, attn_phase phase, size_t length,
                           const uint32_t *documents)
{
    const size_t dk = key_dim(layer);
    attn_work work = attn_decay_work(phase, dk, layer->head_dim, true, length, documents);
    work.exponential += (phase == ATTN_PHASE_BACKWARD ? 3 : 2) * (uint64_t)length * dk;
    work.other += (phase == ATTN_PHASE_BACKWARD ? 8 : 4) * (uint64_t)length * dk;
    return work;
}

static attn_node *project_more(attn_tape *tape, const attn_layer *layer, attn_node *x,
                               attn_node *const *parameters)
{
    return attn_linear(tape, x, attn_recurrent_parameter(layer, parameters, "w_a1.weight"), NULL);
}

/* Token by token, as the equation stands. */
static attn_node *oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *x,
                         attn_node *const *parameters, attn_node *more, const uint32_t *documents)
{
    const size_t dk = key_dim(layer);
    attn_node *q = attn_recurrent_project(tape, layer, parameters, "wq.weight", x, head);
    attn_node *k = attn_recurrent_project(tape, layer, parameters, "wk.weight", x, head);
    attn_node *v = attn_recurrent_project(tape, layer, parameters, "wv.weight", x, head);
    attn_node *a2 = attn_recurrent_parameter(layer, parameters, "w_a2.weight");
    attn_node *bias = attn_recurrent_parameter(layer, parameters, "w_a2.bias");
    attn_node *z = attn_linear(tape, more, attn_rows(tape, a2, head * dk, dk),
                               attn_columns(tape, bias, head * dk, dk));
    attn_node *loss = attn_softplus(tape, attn_scaled(tape, z, -1.0)); /* -log sigmoid(z) */
    attn_node *a = attn_transpose(tape, attn_exp(tape, attn_scaled(tape, loss, -1.0 / 16.0)));
    q = attn_scaled(tape, q, 1.0 / sqrt((double)dk));
    attn_node *k_t = attn_transpose(tape, k), *state = NULL, *o = NULL;
    for (size_t t = 0; t < x->rows; t++) {
        attn_node *write =
            attn_matmul(tape, attn_columns(tape, k_t, t, 1), attn_rows(tape, v, t, 1));
        const bool is_first = t == 0 || (documents && documents[t] == t);
        attn_node *kept = is_first ? NULL : attn_times(tape, state, attn_columns(tape, a, t, 1));
        state = is_first ? write : attn_plus(tape, kept, write);
        attn_node *row = attn_matmul(tape, attn_rows(tape, q, t, 1), state);
        o = o ? attn_above(tape, o, row) : row;
    }
    return o ? o : attn_tape_fail(tape); /* no rows: x did not fit */
}

static const attn_recurrence gated_linear = {
    .has_gate = true,
    .has_norm_weight = true,
    .key_dim = key_dim,
    .more = rank,
    .declare_more = declare_more,
    .declare_own = declare_own,
    .shared = shared,
    .room = room,
    .prepare = prepare,
    .forward = forward,
    .backward = backward,
    .token = token,
    .finish = finish,
    .head_work = head_work,
    .shared_work = shared_work,
    .project_more = project_more,
    .oracle = oracle,
};

const attn_mechanism attn_mechanism_gla = {
    .title = "gated linear attention: a state whose features forget at rates the tokens decide",
    .source = "Yang et al., Gated Linear Attention Transformers, 2023; without convolutions",
    .options = options,
    .is_causal_only = true,
    .check = check,
    .initialise = initialise,
    .functions = &attn_recurrent_functions,
    .recurrence = &gated_linear,
};
