/* lsh: hashed attention (Reformer), made strictly causal. One projection serves queries and keys:
 *
 *     q = x Wqk + b,  k_j = q_j / |q_j|,  v = x Wv + b,  s_ij = q_i . k_j,
 *     h_r(q) = argmax [q R_r, -q R_r],  R_r [d][buckets / 2] fixed
 *
 * In round r query i sees the last `reach` positions j < i with h_r(q_j) = h_r(q_i); o_i is one
 * softmax over the multiset of what all rounds show it. A query that sees nothing returns v_i. No
 * gradient goes through the hash.
 *
 * Published code sorts by bucket, cuts the order into chunks, and lets a chunk see itself and the
 * one before: a chunk's borders then depend on how many later tokens fall into earlier buckets, and
 * the last of 512 tokens changes up to four outputs in five before it. Counting back within the
 * bucket instead has no such borders. */
#include "mechanisms/lsh.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "kernels/dense.h"
#include "mechanisms/projection.h"

#include <math.h>
#include <string.h>

static const attn_option options[] = {
    [ATTN_LSH_ROUNDS] = {"rounds", ATTN_OPTION_SIZE, "2", 1, 64, "hashes of each token"},
    [ATTN_LSH_BUCKETS] = {"buckets", ATTN_OPTION_SIZE, "16", 2, 65536,
                          "buckets of a round, an even number"},
    [ATTN_LSH_REACH] = {"reach", ATTN_OPTION_SIZE, "64", 1, 65536,
                        "earlier tokens of its bucket that a query sees, in each round"},
    {.name = NULL}};

static attn_status check(attn_layer *layer, attn_error *error)
{
    const size_t buckets = layer->options[ATTN_LSH_BUCKETS].size;
    if (buckets % 2 == 0) return ATTN_OK;
    return attn_fail(error, ATTN_ESHAPE,
                     "lsh: buckets=%zu is odd: buckets are pairs, a direction and its opposite",
                     buckets);
}

/* Projections. A rounding of q to bfloat16 would be another bucket for some tokens, and decisions
 * must not depend on the type of the arithmetic: forward, the first is of float32 factors always. */
enum { QK_V, O };

static void declare(attn_layer *layer)
{
    const size_t C = layer->d_model;
    const size_t rotations[] = {layer->options[ATTN_LSH_ROUNDS].size, layer->head_dim,
                                layer->options[ATTN_LSH_BUCKETS].size / 2};
    attn_layer_declare(layer, "wqk.weight", C, C, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "wv.weight", C, C, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "wqk.bias", C, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare(layer, "wv.bias", C, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare(layer, "wo.weight", C, C, ATTN_INITIAL_RESIDUAL);
    attn_layer_declare(layer, "wo.bias", C, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare_shaped(layer, "rotations.weight", 3, rotations, ATTN_INITIAL_OWN, false);
    attn_layer_declare_projection(layer, "wqk.weight", "wqk.bias", C, 2 * C);
    attn_layer_declare_projection(layer, "wo.weight", "wo.bias", C, C);
}

/* R, from the seed and never from data. */
static bool initialise(const attn_layer *layer, size_t index, uint64_t seed, uint64_t stream,
                       float *out)
{
    const attn_parameter *p = &layer->parameters[index];
    if (p->is_trained) return false;
    attn_random_fill_normal(seed, stream, 1.0, p->count, out);
    return true;
}

/* ---- calls ------------------------------------------------------------------------------- */

static attn_lsh run_of(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    return (attn_lsh){.context = context,
                      .layer = layer,
                      .call = call,
                      .C = layer->d_model,
                      .H = layer->heads,
                      .d = layer->head_dim,
                      .T = call->length,
                      .rounds = layer->options[ATTN_LSH_ROUNDS].size,
                      .buckets = layer->options[ATTN_LSH_BUCKETS].size,
                      .reach = layer->options[ATTN_LSH_REACH].size};
}

static void run_heads(attn_lsh *run, attn_task *task)
{
    attn_parallel(run->context->threads, run->call->batch * run->H, task, run);
    attn_tally_collect(&run->tally, run->context->threads, &run->context->work);
}

/* Rows of q and v, and o. */
static size_t rows_count(const attn_layer *layer, size_t batch, size_t length)
{
    return batch * length * 3 * layer->d_model;
}

static size_t saved(const attn_layer *layer, size_t batch, size_t length)
{
    return rows_count(layer, batch, length) +
           batch * layer->heads * attn_lsh_record_count(layer, length);
}

static void forward(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    const size_t rows = call->batch * call->length, C = layer->d_model;
    const float *p = call->parameters;
    attn_lsh run = run_of(context, layer, call);
    float *memory = call->scratch, *kept = call->saved ? call->saved : call->scratch;
    if (!call->saved) memory += rows_count(layer, call->batch, call->length);
    run.rows = attn_cut(&kept, rows * 2 * C);
    run.o = attn_cut(&kept, rows * C);
    run.records = call->saved ? kept : NULL;
    run.measures = attn_cut(&memory, attn_lsh_measure_count(layer, call->batch, call->length));
    run.workers = memory;

    attn_dense_forward(context, rows, C, 2 * C, call->x, p,
                       p + attn_layer_offset(layer, "wqk.bias"), run.rows);
    attn_lsh_measure(&run);
    run_heads(&run, attn_lsh_forward_head);
    attn_projection_forward(context, layer, call, O, rows, run.o, call->y);
}

static void backward(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    const size_t rows = call->batch * call->length, C = layer->d_model;
    attn_lsh run = run_of(context, layer, call);
    float *memory = call->scratch, *kept = call->saved;
    run.rows = attn_cut(&kept, rows * 2 * C);
    run.o = attn_cut(&kept, rows * C);
    run.records = kept;
    run.d_rows = attn_cut(&memory, rows * 2 * C);
    run.d_o = attn_cut(&memory, rows * C);
    run.workers = memory;

    attn_projection_backward(context, layer, call, O, rows, run.o, call->dy, run.d_o);
    run_heads(&run, attn_lsh_backward_head);
    attn_projection_backward(context, layer, call, QK_V, rows, call->x, run.d_rows, call->dx);
}

static void decode(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    const size_t B = call->batch, C = layer->d_model;
    const float *p = call->parameters;
    attn_lsh run = run_of(context, layer, call);
    float *memory = call->scratch;
    run.rows = attn_cut(&memory, B * C); /* values alone */
    run.o = attn_cut(&memory, B * C);
    run.workers = memory;
    attn_dense_decode(context, B, C, C, call->x, p + attn_layer_offset(layer, "wv.weight"),
                      p + attn_layer_offset(layer, "wv.bias"), run.rows);
    run_heads(&run, attn_lsh_decode_head);
    attn_projection_forward(context, layer, call, O, B, run.o, call->y);
}

static size_t scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    const size_t rows = rows_count(layer, batch, length);
    const size_t forward_count = rows + attn_lsh_measure_count(layer, batch, length) +
                                 threads * attn_lsh_forward_room(layer, length);
    const size_t backward_count = rows + threads * attn_lsh_backward_room(layer, length);
    const size_t decode_count = 2 * batch * layer->d_model + threads * attn_lsh_decode_room(layer);
    const size_t most = forward_count > backward_count ? forward_count : backward_count;
    return most > decode_count ? most : decode_count;
}

/* ---- work -------------------------------------------------------------------------------- */

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    (void)document_start; /* documents hide pairs; what is executed stays the same */
    const uint64_t C = layer->d_model, heads = (uint64_t)batch * layer->heads;
    const uint64_t rows = (uint64_t)batch * length;
    if (phase == ATTN_PHASE_DECODE) {
        attn_work decoded = attn_work_times(attn_lsh_decode_work(layer, length), heads);
        attn_work_add(&decoded,
                      attn_work_times((attn_work){.matmul = 4 * C * C, .other = 2 * C}, batch));
        return decoded;
    }
    attn_work done = attn_work_times(attn_lsh_head_work(layer, phase, length), heads);
    const uint64_t products = phase == ATTN_PHASE_BACKWARD ? 2 : 1; /* dx and dw; y */
    attn_work_add(&done, (attn_work){.matmul = products * 6 * rows * C * C, .other = 3 * rows * C});
    if (phase == ATTN_PHASE_FORWARD)
        attn_work_add(&done, attn_lsh_measure_work(layer, batch, length));
    return done;
}

/* ---- the definition ---------------------------------------------------------------------- */

/* The first index of the largest of [q R_r, -q R_r]. */
static size_t bucket_of(const attn_lsh *run, const double *q, const double *rotation)
{
    const size_t n = run->buckets / 2;
    double best = -INFINITY;
    size_t bucket = 0;
    for (size_t k = 0; k < run->buckets; k++) {
        double u = 0.0;
        for (size_t f = 0; f < run->d; f++) u += q[f] * rotation[f * n + k % n];
        if (k >= n) u = -u;
        if (u > best) best = u, bucket = k;
    }
    return bucket;
}

/* How often i sees each j, over all rounds: count [T][T]. */
static void count_sights(const attn_lsh *run, const attn_node *q, const attn_node *rotations,
                         const uint32_t *document_start, size_t *bucket, double *count)
{
    const size_t T = q->rows, d = run->d;
    for (size_t r = 0; r < run->rounds; r++) {
        for (size_t t = 0; t < T; t++)
            bucket[t] =
                bucket_of(run, q->value + t * d, rotations->value + r * d * (run->buckets / 2));
        for (size_t i = 0; i < T; i++) {
            size_t seen = 0;
            for (size_t j = i; j-- > (document_start ? document_start[i] : 0);)
                if (bucket[j] == bucket[i] && seen++ < run->reach) count[i * T + j] += 1.0;
        }
    }
}

/* softmax(q k^T + log count) v; a row without any sight is v's own. */
static attn_node *attend(attn_tape *tape, attn_node *q, attn_node *v, double *count, bool *allowed,
                         double *alone)
{
    const size_t T = q->rows;
    for (size_t i = 0; i < T; i++) {
        alone[i] = 1.0;
        for (size_t j = 0; j < T; j++) {
            allowed[i * T + j] = count[i * T + j] > 0.0;
            if (allowed[i * T + j]) alone[i] = 0.0;
            count[i * T + j] = allowed[i * T + j] ? log(count[i * T + j]) : 0.0;
        }
    }
    attn_node *k = attn_normal(tape, q, 1.0, 0.0);
    attn_node *scores = attn_plus(tape, attn_matmul(tape, q, attn_transpose(tape, k)),
                                  attn_leaf(tape, T, T, count));
    attn_node *o = attn_matmul(tape, attn_softmax(tape, scores, allowed), v);
    return attn_plus(tape, o, attn_times(tape, v, attn_leaf(tape, T, 1, alone)));
}

static attn_node *oracle_head(attn_tape *tape, const attn_lsh *run, attn_node *q, attn_node *v,
                              const attn_node *rotations, const uint32_t *document_start)
{
    const size_t T = q->rows;
    if (attn_tape_failed(tape)) return attn_tape_fail(tape);
    double *count = attn_alloc_array(ATTN_MEMORY_OTHER, T * (T + 1), sizeof *count);
    bool *allowed = attn_alloc_array(ATTN_MEMORY_OTHER, T * T, sizeof *allowed);
    size_t *bucket = attn_alloc_array(ATTN_MEMORY_OTHER, T, sizeof *bucket);
    attn_node *o = NULL;
    if (count && allowed && bucket) {
        count_sights(run, q, rotations, document_start, bucket, count);
        o = attend(tape, q, v, count, allowed, count + T * T);
    }
    attn_free(bucket);
    attn_free(allowed);
    attn_free(count);
    return o ? o : attn_tape_fail(tape);
}

static attn_node *oracle(attn_tape *tape, const attn_layer *layer, attn_node *x,
                         attn_node *const *parameters, attn_node *memory,
                         const uint32_t *document_start)
{
    (void)memory; /* keys and values come from x */
    const attn_lsh run = run_of(NULL, layer, &(attn_call){.length = x->rows});
    const size_t d = run.d;
    attn_node *q = attn_linear_decisive(tape, x, parameters[0], parameters[2]);
    attn_node *v = attn_linear_decisive(tape, x, parameters[1], parameters[3]), *o = NULL;
    for (size_t h = 0; h < run.H; h++) {
        attn_node *head =
            oracle_head(tape, &run, attn_columns(tape, q, h * d, d),
                        attn_columns(tape, v, h * d, d), parameters[6], document_start);
        o = o ? attn_beside(tape, o, head) : head;
    }
    return attn_linear(tape, o, parameters[4], parameters[5]);
}

static const attn_layer_functions functions = {
    .declare = declare,
    .saved = saved,
    .scratch = scratch,
    .cache = attn_lsh_cache_count,
    .forward = forward,
    .backward = backward,
    .decode = decode,
    .work = work,
    .oracle = oracle,
};

const attn_mechanism attn_mechanism_lsh = {
    .title = "hashed attention: a query sees the latest keys of its own buckets, and none later",
    .source = "Kitaev et al., Reformer, 2020; counted back within buckets, so that it is causal",
    .options = options,
    .is_causal_only = true,
    .check = check,
    .initialise = initialise,
    .functions = &functions,
};
