/* cross: queries from the tokens, keys and values from a memory m [S][C_m] beside them, such as
 * an encoder's output; every query sees all of it.
 *
 *     q = x Wq^T + b,  k = m Wk^T + b,  v = m Wv^T + b,  o = softmax(q k^T / sqrt(d)) v,
 *     y = o Wo^T + b
 *
 * With learned queries for x this is the cross-attention of a Q-Former (Li et al., BLIP-2,
 * 2023). There is no order between tokens and memory, and so no causal form. */
#include "mechanisms/exact_core.h"
#include "mechanisms/projection.h"

enum { MEM_LEN, MEM_DIM };
enum { Q, KV, O }; /* projections */

static const attn_option options[] = {
    [MEM_LEN] = {"mem_len", ATTN_OPTION_SIZE, "257", 1, 1 << 28, "positions of the memory"},
    [MEM_DIM] = {"mem_dim", ATTN_OPTION_SIZE, "auto", 1, 1 << 20,
                 "width of the memory. auto: the model's"},
    {.name = NULL}};

static attn_status check(attn_layer *layer, attn_error *error)
{
    (void)error;
    const size_t width = layer->options[MEM_DIM].size;
    layer->memory_length = layer->options[MEM_LEN].size;
    layer->memory_width = width == ATTN_AUTO ? layer->d_model : width;
    return ATTN_OK;
}

/* wk and wv lie behind each other, and so do their biases: one product makes keys and values. */
static void declare(attn_layer *layer)
{
    const size_t C = layer->d_model, width = layer->memory_width;
    attn_layer_declare(layer, "wq.weight", C, C, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "wk.weight", C, width, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "wv.weight", C, width, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "wq.bias", C, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare(layer, "wk.bias", C, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare(layer, "wv.bias", C, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare(layer, "wo.weight", C, C, ATTN_INITIAL_RESIDUAL);
    attn_layer_declare(layer, "wo.bias", C, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare_projection(layer, "wq.weight", "wq.bias", C, C);
    attn_layer_declare_projection(layer, "wk.weight", "wk.bias", width, 2 * C);
    attn_layer_declare_projection(layer, "wo.weight", "wo.bias", C, C);
}

/* ---- memory ------------------------------------------------------------------------------ */

static attn_tile_shape shape_of(const attn_layer *layer, size_t batch, size_t length)
{
    return (attn_tile_shape){.batch = batch,
                             .heads = layer->heads,
                             .kv_heads = layer->heads,
                             .queries = length,
                             .keys = layer->memory_length,
                             .key_width = layer->head_dim,
                             .value_width = layer->head_dim,
                             .dtype = layer->dtype};
}

/* q [B T][C], [k | v] [B S][2 C] and o [B T][C]: kept when training, and their gradients. */
typedef struct rows {
    float *q, *kv, *o;
} rows;

static rows cut_rows(const attn_layer *layer, size_t batch, size_t length, float **room)
{
    const size_t C = layer->d_model, tokens = batch * length;
    return (rows){.q = attn_cut(room, attn_rounded(tokens * C)),
                  .kv = attn_cut(room, attn_rounded(batch * layer->memory_length * 2 * C)),
                  .o = attn_cut(room, attn_rounded(tokens * C))};
}

static size_t rows_count(const attn_layer *layer, size_t batch, size_t length)
{
    const size_t C = layer->d_model;
    return 2 * attn_rounded(batch * length * C) +
           attn_rounded(batch * layer->memory_length * 2 * C);
}

static size_t saved(const attn_layer *layer, size_t batch, size_t length)
{
    const attn_tile_shape shape = shape_of(layer, batch, length);
    return rows_count(layer, batch, length) + attn_tile_saved(&shape);
}

static size_t scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    const attn_tile_shape shape = shape_of(layer, batch, length);
    return rows_count(layer, batch, length) + attn_tile_scratch(&shape, threads);
}

static size_t cache(const attn_layer *layer, size_t batch, size_t capacity)
{
    (void)layer;
    (void)batch;
    (void)capacity;
    return 0;
}

/* ---- forward and backward ---------------------------------------------------------------- */

static const attn_visibility all = {.is_causal = false, .window = ATTN_NO_WINDOW};

static attn_tile_call tile_call(attn_context *context, const attn_layer *layer,
                                const attn_call *call, const rows *at)
{
    const size_t C = layer->d_model, d = layer->head_dim;
    const attn_head_layout tokens = {.row = C, .head = d}, memory = {.row = 2 * C, .head = d};
    return (attn_tile_call){.context = context,
                            .shape = shape_of(layer, call->batch, call->length),
                            .rule = attn_rule_tiles(&all, ATTN_TILE_ONLINE),
                            .q_at = tokens,
                            .k_at = memory,
                            .v_at = memory,
                            .o_at = tokens,
                            .q = {.single = at->q},
                            .k = {.single = at->kv},
                            .v = {.single = at->kv + C},
                            .o = at->o};
}

static void forward(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    const size_t tokens = call->batch * call->length;
    float *scratch_room = call->scratch, *saved_room = call->saved;
    const rows at =
        cut_rows(layer, call->batch, call->length, saved_room ? &saved_room : &scratch_room);
    attn_projection_forward(context, layer, call, Q, tokens, call->x, at.q);
    attn_projection_forward(context, layer, call, KV, call->batch * layer->memory_length,
                            call->memory, at.kv);
    attn_tile_call tiles = tile_call(context, layer, call, &at);
    tiles.saved = saved_room;
    tiles.scratch = scratch_room;
    attn_tile_forward(&tiles);
    attn_projection_forward(context, layer, call, O, tokens, at.o, call->y);
}

static void backward(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    const size_t C = layer->d_model, tokens = call->batch * call->length;
    const size_t positions = call->batch * layer->memory_length;
    float *saved_room = call->saved, *scratch_room = call->scratch;
    const rows at = cut_rows(layer, call->batch, call->length, &saved_room);
    const rows d = cut_rows(layer, call->batch, call->length, &scratch_room);

    attn_projection_backward(context, layer, call, O, tokens, at.o, call->dy, d.o);
    attn_tile_call tiles = tile_call(context, layer, call, &at);
    tiles.saved = saved_room;
    tiles.scratch = scratch_room;
    tiles.d_o.single = d.o;
    tiles.dq.single = d.q;
    tiles.dk.single = d.kv;
    tiles.dv.single = d.kv + C;
    attn_tile_backward(&tiles);
    attn_projection_backward(context, layer, call, Q, tokens, call->x, d.q, call->dx);
    attn_projection_backward(context, layer, call, KV, positions, call->memory, d.kv,
                             call->d_memory);
}

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    (void)document_start; /* packed documents need a causal layer */
    const attn_tile_shape shape = shape_of(layer, batch, length);
    const attn_tile_rule rule = attn_rule_tiles(&all, ATTN_TILE_ONLINE);
    const uint64_t C = layer->d_model, tokens = (uint64_t)batch * length;
    const uint64_t positions = (uint64_t)batch * layer->memory_length;
    const uint64_t products = phase == ATTN_PHASE_BACKWARD ? 2 : 1;
    attn_work total = {.matmul = products *
                                 (4 * tokens * C * C + 4 * positions * layer->memory_width * C),
                       .other = 2 * tokens * C + 2 * positions * C};
    attn_work_add(&total, attn_tile_work(&shape, &rule, phase, NULL));
    return total;
}

static attn_node *oracle(attn_tape *tape, const attn_layer *layer, attn_node *x,
                         attn_node *const *parameters, attn_node *memory,
                         const uint32_t *document_start)
{
    (void)document_start;
    const attn_mask mask = attn_visibility_mask(&all);
    const size_t d = layer->head_dim;
    attn_node *q = attn_linear(tape, x, parameters[0], parameters[3]);
    attn_node *k = attn_linear(tape, memory, parameters[1], parameters[4]);
    attn_node *v = attn_linear(tape, memory, parameters[2], parameters[5]);
    attn_node *o = NULL;
    for (size_t h = 0; h < layer->heads; h++) {
        attn_node *scores = attn_oracle_scores(tape, attn_columns(tape, q, h * d, d),
                                               attn_columns(tape, k, h * d, d));
        attn_node *head =
            attn_oracle_attend(tape, &mask, h, scores, attn_columns(tape, v, h * d, d), NULL);
        o = o ? attn_beside(tape, o, head) : head;
    }
    return attn_linear(tape, o, parameters[6], parameters[7]);
}

static const attn_layer_functions functions = {
    .declare = declare,
    .saved = saved,
    .scratch = scratch,
    .cache = cache,
    .forward = forward,
    .backward = backward,
    .work = work,
    .oracle = oracle,
};

const attn_mechanism attn_mechanism_cross = {
    .title = "flash from the tokens to a memory beside them, such as an encoder's output",
    .source = "Vaswani et al., Attention Is All You Need, 2017; Li et al., BLIP-2, 2023",
    .options = options,
    .is_bidirectional_only = true,
    .reads_memory = true,
    .has_bf16 = true,
    .check = check,
    .functions = &functions,
};
