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

/* ---- a chunk ----------------------------------------------------------------------------- */

/* q, k, log a [C][dk] and v [C][dv], the gradients of each, and the engine's memory. */
static size_t room(const attn_layer *layer)
{
    const size_t dk = key_dim(layer), dv = layer->head_dim;
    return 2 * ATTN_CHUNK * (3 * dk + dv) + attn_decay_room(dk, dv);
}

/* The head's columns of z or its gradient, `keys` apart. */
static size_t gate_at(const attn_recurrent_head *head)
{
    return head->first * head->run->layer->options[KEY_DIM].size +
           head->h * head->run->shape.key_dim;
}

/* At the start of the worker's room; q is left as it is where only the state is wanted. */
static attn_decay_input load(const attn_recurrent_head *head, bool with_queries)
{
    const attn_recurrent_shape *s = &head->run->shape;
    const size_t c = head->length, dk = s->key_dim, dv = s->value_dim, block = ATTN_CHUNK * dk;
    const float *rows = head->run->rows + attn_recurrent_at(head, 0);
    const float *z = decays_of(head->run).z + gate_at(head);
    float *room = head->room, *q = attn_cut(&room, block), *k = attn_cut(&room, block);
    float *v = attn_cut(&room, ATTN_CHUNK * dv), *log_a = attn_cut(&room, block);
    const attn_kernels *kernels = head->on.kernels;
    if (with_queries) {
        kernels->copy_rows(c, dk, 1.0f / sqrtf((float)dk), NULL, rows + s->q + head->h * dk, s->row,
                           q, dk);
        head->on.work->other += (uint64_t)c * dk;
    }
    kernels->copy_rows(c, dk, 1.0f, NULL, rows + s->k + head->h * dk, s->row, k, dk);
    kernels->copy_rows(c, dv, 1.0f, NULL, rows + s->v + head->h * dv, s->row, v, dv);
    kernels->copy_rows(c, dk, 1.0f, NULL, z, head->run->layer->options[KEY_DIM].size, log_a, dk);
    kernels->log_sigmoid(c * dk, log_a, log_a);
    head->on.work->exponential += 2 * (uint64_t)c * dk; /* an exponential and a logarithm */
    head->on.work->other += 2 * (uint64_t)c * dk;
    attn_counted_scale(head->on, c * dk, exponent, log_a);
    return (attn_decay_input){.on = head->on,
                              .length = c,
                              .key_dim = dk,
                              .value_dim = dv,
                              .q = q,
                              .k = k,
                              .v = v,
                              .log_decay = log_a,
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
    const attn_kernels *kernels = head->on.kernels;
    const size_t c = head->length, dk = s->key_dim, dv = s->value_dim, block = ATTN_CHUNK * dk;
    const size_t keys = head->run->layer->options[KEY_DIM].size;
    const decays all = decays_of(head->run);
    const float *z = all.z + gate_at(head);
    float *d_rows = head->run->d_rows + attn_recurrent_at(head, 0), *d_z = all.d_z + gate_at(head);
    attn_decay_input in = load(head, true);
    const attn_decay_gradients to = {.dq = attn_cut(&in.room, block),
                                     .dk = attn_cut(&in.room, block),
                                     .d_log_decay = attn_cut(&in.room, block),
                                     .dv = attn_cut(&in.room, ATTN_CHUNK * dv)};
    attn_decay_backward(&in, states, d_o, &to);
    attn_counted_scale(head->on, c * dk, exponent, to.d_log_decay);
    kernels->copy_rows(c, dk, 1.0f / sqrtf((float)dk), NULL, to.dq, dk,
                       d_rows + s->q + head->h * dk, s->row);
    kernels->copy_rows(c, dk, 1.0f, NULL, to.dk, dk, d_rows + s->k + head->h * dk, s->row);
    kernels->copy_rows(c, dv, 1.0f, NULL, to.dv, dv, d_rows + s->v + head->h * dv, s->row);
    for (size_t t = 0; t < c; t++)
        kernels->log_sigmoid_gradient(dk, z + t * keys, to.d_log_decay + t * dk, d_z + t * keys);
    head->on.work->exponential += (uint64_t)c * dk;
    head->on.work->other += 3 * (uint64_t)c * dk;
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
    if (phase != ATTN_PHASE_BACKWARD) return work;
    const uint64_t again =
        attn_chunk_counts_of(length, documents).tokens_passed * dk; /* their decays */
    work.exponential += 2 * again;
    work.other += 3 * again;
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
    .advance = advance,
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
