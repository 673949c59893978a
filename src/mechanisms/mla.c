/* mla: multi-head latent attention (DeepSeek-V2, 2024). Keys and values of all heads come from
 * one latent of rank r a token, and the keys of all heads share dr rotary features:
 *
 *     u = x W_DKV^T,  c = w_c o norm(u[:r]),  k_r = rope(u[r:]),  [k_c,h | v_h] = c W_UKV,h^T,
 *     q_h = [q_c,h | rope(q_r,h)] from x W_Q^T, or from w_q o norm(x W_DQ^T) by W_UQ,
 *     o_h = softmax(q_h [k_c,h | k_r]^T / sqrt(dn + dr)) v_h,  y = [o_h] Wo^T + b
 *
 * with norm(u) = u / sqrt(mean(u^2) + 1e-5). A cached token is c and k_r, r + dr numbers.
 *
 * Training goes through keys and values (mla_forward.c, mla_backward.c). Decoding never makes
 * them: q_c . (W_UK c) = (W_UK^T q_c) . c, so that all heads attend to the cache itself
 * (mla_decode.c). This file is the options, the parameters and the definition. */
#include "mechanisms/mla.h"

#include "base/error.h"
#include "mechanisms/exact_core.h"
#include "mechanisms/rope.h"

static const attn_option options[] = {
    [ATTN_MLA_KV_RANK] =
        {"kv_rank", ATTN_OPTION_SIZE, "auto", 1, 1 << 20,
         "rank of the latent of keys and values, 2 or more. auto: the width of four "
         "heads, at most half of the model's"},
    [ATTN_MLA_Q_RANK] = {"q_rank", ATTN_OPTION_SIZE, "0", 0, 1 << 20,
                         "rank of a latent of the queries. 0: none, they come from x"},
    [ATTN_MLA_NOPE] = {"nope_dim", ATTN_OPTION_SIZE, "auto", 1, 1 << 16,
                       "key features of a head without a position. auto: a head's width"},
    [ATTN_MLA_ROPE] = {"rope_dim", ATTN_OPTION_SIZE, "auto", 0, 1 << 16,
                       "rotary key features that all heads share; even. auto: half of a head's "
                       "width"},
    [ATTN_MLA_V] = {"v_dim", ATTN_OPTION_SIZE, "auto", 1, 1 << 16,
                    "value features of a head. auto: a head's width"},
    {.name = NULL}};

static void choose(attn_layer *layer, size_t option, size_t size)
{
    if (layer->options[option].size == ATTN_AUTO) layer->options[option].size = size;
}

static attn_status check_rank(const attn_layer *layer, size_t option, attn_error *error)
{
    const size_t rank = layer->options[option].size;
    if (rank == 1)
        return attn_fail(error, ATTN_ESHAPE,
                         "mla: %s=1 leaves nothing but a sign behind the norm; take 2 or more",
                         options[option].name);
    if (rank <= layer->d_model) return ATTN_OK;
    return attn_fail(error, ATTN_ESHAPE, "mla: %s=%zu is more than the width %zu of the model",
                     options[option].name, rank, layer->d_model);
}

static attn_status check(attn_layer *layer, attn_error *error)
{
    const size_t d = layer->head_dim, half = layer->d_model > 4 ? layer->d_model / 2 : 2;
    choose(layer, ATTN_MLA_KV_RANK, attn_smaller(4 * d, half));
    choose(layer, ATTN_MLA_NOPE, d);
    choose(layer, ATTN_MLA_ROPE, d / 4 * 2);
    choose(layer, ATTN_MLA_V, d);
    if (layer->options[ATTN_MLA_ROPE].size % 2 != 0)
        return attn_fail(error, ATTN_ESHAPE,
                         "mla: rope_dim=%zu is odd, and rotary features come in pairs",
                         layer->options[ATTN_MLA_ROPE].size);
    const attn_status status = check_rank(layer, ATTN_MLA_KV_RANK, error);
    return status == ATTN_OK ? check_rank(layer, ATTN_MLA_Q_RANK, error) : status;
}

attn_mla_sizes attn_mla_sizes_of(const attn_layer *layer)
{
    attn_mla_sizes z = {.heads = layer->heads,
                        .width = layer->d_model,
                        .kv_rank = layer->options[ATTN_MLA_KV_RANK].size,
                        .q_rank = layer->options[ATTN_MLA_Q_RANK].size,
                        .nope = layer->options[ATTN_MLA_NOPE].size,
                        .rope = layer->options[ATTN_MLA_ROPE].size,
                        .value = layer->options[ATTN_MLA_V].size,
                        .dtype = layer->dtype};
    z.key = z.nope + z.rope;
    z.latent = z.q_rank ? z.q_rank : z.heads * z.key;
    z.row = z.latent + z.kv_rank + z.rope;
    z.q_at = (attn_head_layout){.row = z.q_rank ? z.heads * z.key : z.row, .head = z.key};
    z.k_at = (attn_head_layout){.row = z.heads * z.key, .head = z.key};
    z.kv_at = (attn_head_layout){.row = z.heads * (z.nope + z.value), .head = z.nope + z.value};
    z.o_at = (attn_head_layout){.row = z.heads * z.value, .head = z.value};
    return z;
}

static void declare(attn_layer *layer)
{
    const attn_mla_sizes z = attn_mla_sizes_of(layer);
    attn_layer_declare(layer, z.q_rank ? "w_dq.weight" : "wq.weight", z.latent, z.width,
                       ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "w_dkv.weight", z.kv_rank + z.rope, z.width, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "kv_norm.weight", z.kv_rank, 0, ATTN_INITIAL_ONE);
    attn_layer_declare(layer, "w_ukv.weight", z.kv_at.row, z.kv_rank, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "wo.weight", z.width, z.o_at.row, ATTN_INITIAL_RESIDUAL);
    attn_layer_declare(layer, "wo.bias", z.width, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare_projection(layer, layer->parameters[ATTN_MLA_Q].name, NULL, z.width, z.row);
    attn_layer_declare_projection(layer, "w_ukv.weight", NULL, z.kv_rank, z.kv_at.row);
    attn_layer_declare_projection(layer, "wo.weight", "wo.bias", z.o_at.row, z.width);
    if (!z.q_rank) return;
    attn_layer_declare(layer, "q_norm.weight", z.q_rank, 0, ATTN_INITIAL_ONE);
    attn_layer_declare(layer, "w_uq.weight", z.k_at.row, z.q_rank, ATTN_INITIAL_WEIGHT);
    attn_layer_declare_projection(layer, "w_uq.weight", NULL, z.q_rank, z.q_at.row);
}

/* ---- memory ------------------------------------------------------------------------------ */

size_t attn_mla_kept_count(const attn_mla_sizes *z, size_t rows)
{
    return attn_rounded(rows * z->row) + attn_rounded(rows * z->o_at.row);
}

size_t attn_mla_other_count(const attn_mla_sizes *z, size_t rows)
{
    return attn_rounded(rows * z->kv_rank) + attn_rounded(rows * z->q_rank) +
           (z->q_rank ? attn_rounded(rows * z->q_at.row) : 0) + attn_rounded(rows * z->k_at.row) +
           attn_rounded(rows * z->kv_at.row);
}

attn_mla_rows attn_mla_cut(const attn_mla_sizes *z, size_t rows, float **kept, float **others)
{
    attn_mla_rows r;
    r.x = attn_cut(kept, attn_rounded(rows * z->row));
    r.o = attn_cut(kept, attn_rounded(rows * z->o_at.row));
    r.c = attn_cut(others, attn_rounded(rows * z->kv_rank));
    r.cq = attn_cut(others, attn_rounded(rows * z->q_rank));
    r.q = z->q_rank ? attn_cut(others, attn_rounded(rows * z->q_at.row)) : r.x;
    r.k = attn_cut(others, attn_rounded(rows * z->k_at.row));
    r.kv = attn_cut(others, attn_rounded(rows * z->kv_at.row));
    return r;
}

size_t attn_mla_angles_count(const attn_mla_sizes *z, size_t length)
{
    return attn_rounded(length * z->rope);
}

static size_t block_count(size_t rows)
{
    return (rows + ATTN_MLA_BLOCK - 1) / ATTN_MLA_BLOCK;
}

size_t attn_mla_sums_count(const attn_mla_sizes *z, size_t rows)
{
    return attn_rounded(block_count(rows) * (z->kv_rank + z->q_rank));
}

attn_tile_shape attn_mla_shape(const attn_mla_sizes *z, size_t batch, size_t length)
{
    return (attn_tile_shape){.batch = batch,
                             .heads = z->heads,
                             .kv_heads = z->heads,
                             .queries = length,
                             .keys = length,
                             .key_width = z->key,
                             .value_width = z->value,
                             .dtype = z->dtype};
}

static size_t saved(const attn_layer *layer, size_t batch, size_t length)
{
    const attn_mla_sizes z = attn_mla_sizes_of(layer);
    const attn_tile_shape shape = attn_mla_shape(&z, batch, length);
    return attn_mla_kept_count(&z, batch * length) + attn_tile_saved(&shape);
}

/* Of the backward pass: other rows, gradients of all, and the engine's. */
static size_t scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    const attn_mla_sizes z = attn_mla_sizes_of(layer);
    const attn_tile_shape shape = attn_mla_shape(&z, batch, length);
    const size_t rows = batch * length, tiles = attn_tile_scratch(&shape, threads);
    const size_t decode = attn_mla_decode_scratch(&z, threads, batch, layer->positions);
    return attn_mla_kept_count(&z, rows) + 2 * attn_mla_other_count(&z, rows) +
           attn_mla_angles_count(&z, length) + attn_mla_sums_count(&z, rows) +
           (tiles > decode ? tiles : decode);
}

static size_t cache(const attn_layer *layer, size_t batch, size_t capacity)
{
    const attn_mla_sizes z = attn_mla_sizes_of(layer);
    return batch * capacity * (z.kv_rank + z.rope);
}

/* ---- counts ------------------------------------------------------------------------------ */

/* c and q of one row, and their gradients: norms and rotations. A row is rotated once; queries
 * behind a latent are again whenever they are made. */
static attn_work row_work(const attn_mla_sizes *z, attn_phase phase)
{
    const uint64_t norms = z->q_rank ? 2 : 1, ranks = z->kv_rank + z->q_rank, turn = 3 * z->rope;
    attn_work work = {.exponential = norms, .other = 4 * ranks + 2 * norms};
    if (phase != ATTN_PHASE_BACKWARD) {
        work.other += (1 + z->heads) * turn;
        return work;
    }
    if (z->q_rank) work.other += z->heads * turn;
    attn_work_add(&work, (attn_work){.matmul = 2 * ranks,
                                     .exponential = norms,
                                     .other = 9 * ranks + 4 * norms + (1 + z->heads) * turn +
                                              (z->heads - 1) * z->rope});
    return work;
}

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    const attn_mla_sizes z = attn_mla_sizes_of(layer);
    const bool is_backward = phase == ATTN_PHASE_BACKWARD, is_decode = phase == ATTN_PHASE_DECODE;
    const size_t T = is_decode ? 1 : length;
    const uint64_t rows = (uint64_t)batch * T, C = z.width;
    const uint64_t up_q = (uint64_t)z.q_rank * z.k_at.row;
    const uint64_t up_kv = is_decode ? 0 : (uint64_t)z.kv_rank * z.kv_at.row;
    const uint64_t around = C * (z.row + z.o_at.row);
    attn_work total = {.matmul = 2 * rows * (around + up_q + up_kv),
                       .other = rows * C + 3 * (uint64_t)T * z.rope};
    if (is_backward) {
        total.matmul += 2 * rows * (around + 2 * (up_q + up_kv));
        total.other += block_count(rows) * (z.kv_rank + z.q_rank);
    }
    attn_work_add(&total, attn_work_times(row_work(&z, phase), rows));
    if (is_decode) {
        attn_work_add(&total, attn_work_times(attn_mla_decode_work(&z, length), batch));
        return total;
    }
    const attn_visibility rule = attn_rule_all(layer);
    const attn_tile_rule tiles = attn_rule_tiles(&rule, ATTN_TILE_ONLINE);
    const attn_tile_shape shape = attn_mla_shape(&z, batch, length);
    attn_work_add(&total, attn_tile_work(&shape, &tiles, phase, document_start));
    return total;
}

/* ---- oracle ------------------------------------------------------------------------------ */

static attn_node *norm(attn_tape *tape, attn_node *u, attn_node *weight)
{
    return attn_times(tape, attn_normal(tape, u, 1.0 / (double)u->columns, 1e-5), weight);
}

/* [nope | rotary], where there are rotary features. */
static attn_node *with_rotary(attn_tape *tape, const attn_mla_sizes *z, attn_node *nope,
                              attn_node *rotary)
{
    return z->rope ? attn_beside(tape, nope, rotary) : nope;
}

static attn_node *rotary_of(attn_tape *tape, const attn_mla_sizes *z, attn_node *from, size_t first,
                            const uint32_t *document_start)
{
    if (!z->rope) return NULL;
    return attn_rope_oracle(tape, attn_columns(tape, from, first, z->rope), document_start);
}

static attn_node *oracle(attn_tape *tape, const attn_layer *layer, attn_node *x,
                         attn_node *const *parameters, attn_node *memory,
                         const uint32_t *document_start)
{
    (void)memory; /* keys and values come from x */
    const attn_mla_sizes z = attn_mla_sizes_of(layer);
    const attn_visibility rule = attn_rule_all(layer);
    const attn_mask mask = attn_visibility_mask(&rule);
    attn_node *q = attn_linear(tape, x, parameters[ATTN_MLA_Q], NULL);
    if (z.q_rank)
        q = attn_linear(tape, norm(tape, q, parameters[ATTN_MLA_Q_NORM]), parameters[ATTN_MLA_UQ],
                        NULL);
    attn_node *u = attn_linear(tape, x, parameters[ATTN_MLA_DKV], NULL);
    attn_node *c = norm(tape, attn_columns(tape, u, 0, z.kv_rank), parameters[ATTN_MLA_KV_NORM]);
    attn_node *kv = attn_linear(tape, c, parameters[ATTN_MLA_UKV], NULL);
    attn_node *k_r = rotary_of(tape, &z, u, z.kv_rank, document_start), *o = NULL;
    for (size_t h = 0; h < z.heads; h++) {
        attn_node *q_r = rotary_of(tape, &z, q, h * z.key + z.nope, document_start);
        attn_node *q_h = with_rotary(tape, &z, attn_columns(tape, q, h * z.key, z.nope), q_r);
        attn_node *k_h =
            with_rotary(tape, &z, attn_columns(tape, kv, h * z.kv_at.head, z.nope), k_r);
        attn_node *v_h = attn_columns(tape, kv, h * z.kv_at.head + z.nope, z.value);
        attn_node *head = attn_oracle_attend(tape, &mask, h, attn_oracle_scores(tape, q_h, k_h),
                                             v_h, document_start);
        o = o ? attn_beside(tape, o, head) : head;
    }
    return attn_linear(tape, o, parameters[ATTN_MLA_O], parameters[ATTN_MLA_O_BIAS]);
}

static const attn_layer_functions functions = {
    .declare = declare,
    .saved = saved,
    .scratch = scratch,
    .cache = cache,
    .forward = attn_mla_forward,
    .backward = attn_mla_backward,
    .decode = attn_mla_decode,
    .work = work,
    .oracle = oracle,
};

const attn_mechanism attn_mechanism_mla = {
    .title = "keys and values from one latent a token: a cache several times smaller",
    .source = "DeepSeek-V2, 2024",
    .has_bf16 = true,
    .options = options,
    .check = check,
    .functions = &functions,
};
