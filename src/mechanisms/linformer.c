/* linformer: keys and values are compressed along the sequence by learned matrices E, F.
 *
 * Bidirectional, as published: E, F [rank][positions],
 *     O = softmax(Q (E K)^T / sqrt(d)) F V.
 * Causal, by segments of s tokens: E, F [rank][s] make `rank` virtual keys and values of every
 * finished segment; a query sees, in one softmax, those of all earlier segments and the exact keys
 * up to itself in its own. `mass_bias` adds log(s / rank) to the scores of virtual keys, each of
 * which stands for s / rank tokens. The last segment of a document is only ever seen exactly, so
 * its length is free. Work grows with T (s + rank T / s).
 *
 * Backward recomputes P as the tile engine does. E and F serve all heads and sequences: each head
 * sums its own part of their gradients, and the parts are added in the order of the heads. */
#include "mechanisms/linformer.h"
#include "base/error.h"
#include "base/memory.h"
#include "mechanisms/tile_engine.h"

#include <math.h>

static const attn_option options[] = {
    [ATTN_LINFORMER_SEGMENT] = {"segment", ATTN_OPTION_SIZE, "64", 1, 65536,
                                "causal: tokens that are compressed together"},
    [ATTN_LINFORMER_RANK] =
        {"rank", ATTN_OPTION_SIZE, "auto", 1, 65536,
         "virtual keys for each segment, or for the whole sequence. auto: a quarter of the tokens "
         "that they stand for"},
    [ATTN_LINFORMER_MASS_BIAS] = {"mass_bias", ATTN_OPTION_FLAG, "false", 0, 1,
                                  "causal: weigh virtual keys by the tokens that they stand for"},
    {.name = NULL}};

size_t attn_linformer_columns(const attn_layer *layer)
{
    return layer->is_causal ? layer->options[ATTN_LINFORMER_SEGMENT].size : layer->positions;
}

static attn_status check(attn_layer *layer, attn_error *error)
{
    attn_value *rank = &layer->options[ATTN_LINFORMER_RANK];
    const size_t columns = attn_linformer_columns(layer);
    if (rank->size == ATTN_AUTO) rank->size = columns < 4 ? 1 : columns / 4;
    if (rank->size > columns)
        return attn_fail(
            error, ATTN_ESHAPE, "linformer: rank=%zu is more than the %zu tokens %s: at most %zu",
            rank->size, columns, layer->is_causal ? "of a segment" : "of a sequence", columns);
    return ATTN_OK;
}

static void declare(attn_layer *layer)
{
    const size_t rank = layer->options[ATTN_LINFORMER_RANK].size,
                 columns = attn_linformer_columns(layer);
    attn_layer_declare(layer, "e.weight", rank, columns, ATTN_INITIAL_OWN);
    attn_layer_declare(layer, "f.weight", rank, columns, ATTN_INITIAL_OWN);
}

/* Each virtual key starts as the mean of its share of the tokens: far text is visible from the
 * first step on, where random rows would mix its keys to noise. */
static bool initialise(const attn_layer *layer, size_t index, uint64_t seed, uint64_t stream,
                       float *out)
{
    (void)seed;
    (void)stream;
    const size_t rank = layer->options[ATTN_LINFORMER_RANK].size,
                 columns = attn_linformer_columns(layer);
    if (index + 2 < layer->n_parameters) return false;
    for (size_t i = 0; i < rank; i++) {
        const size_t first = i * columns / rank, end = (i + 1) * columns / rank;
        for (size_t j = 0; j < columns; j++)
            out[i * columns + j] = j >= first && j < end ? 1.0f / (float)(end - first) : 0.0f;
    }
    return true;
}

/* ---- sizes, blocks and counts ------------------------------------------------------------ */

attn_linformer_sizes attn_linformer_sizes_of(const attn_layer *layer, size_t length)
{
    attn_linformer_sizes z = {.d = layer->head_dim,
                              .rank = layer->options[ATTN_LINFORMER_RANK].size,
                              .columns = attn_linformer_columns(layer),
                              .scale = 1.0f / sqrtf((float)layer->head_dim)};
    z.n = layer->is_causal ? z.columns : length;
    z.block = layer->is_causal ? attn_smaller(z.n, length) : ATTN_TILE_QUERIES;
    z.far = layer->is_causal ? (length - 1) / z.n * z.rank : z.rank;
    z.width = z.far + (layer->is_causal ? z.block : 0);
    if (layer->is_causal && layer->options[ATTN_LINFORMER_MASS_BIAS].flag)
        z.bias = logf((float)z.n / (float)z.rank) / z.scale;
    return z;
}

bool attn_linformer_next(const attn_layer *layer, const attn_linformer_sizes *z, size_t length,
                         const uint32_t *documents, attn_linformer_block *b)
{
    b->first += b->ni;
    if (b->first >= length) return false;
    if (documents) b->document = documents[b->first];
    size_t end = b->first + 1;
    while (end < length && end - b->first < z->block && (!documents || documents[end] != end))
        end++;
    b->ni = end - b->first;
    b->far = layer->is_causal ? (b->first - b->document) / z->n * z->rank : z->rank;
    b->near = layer->is_causal ? b->ni : 0;
    return true;
}

bool attn_linformer_compresses(const attn_layer *layer, const attn_linformer_block *b)
{
    return layer->is_causal ? b->first > b->document : b->first == 0;
}

attn_work attn_linformer_compress_work(const attn_linformer_sizes *z, attn_phase phase)
{
    const uint64_t product = 2 * z->n * z->rank * z->d;
    if (phase != ATTN_PHASE_BACKWARD) return (attn_work){.matmul = 2 * product};
    /* E K and F V again, dK and dV, dE and dF; the scale of dE K */
    return (attn_work){.matmul = 6 * product, .other = z->rank * z->d};
}

attn_work attn_linformer_block_work(const attn_linformer_sizes *z, attn_phase phase, uint64_t ni,
                                    uint64_t far, uint64_t near)
{
    const uint64_t pairs = ni * (far + near), d = z->d, masked = near ? ni * (ni - 1) / 2 : 0;
    if (phase == ATTN_PHASE_BACKWARD)
        return (attn_work){.matmul = 10 * pairs * d,
                           .exponential = pairs,
                           /* 1 / l, dO / l, delta, the scales of dq and dk */
                           .other = 4 * pairs + masked + ni * (4 * d + 1) + near * d};
    return (attn_work){.matmul = 4 * pairs * d,
                       .exponential = pairs + ni,
                       .other = 4 * pairs + masked + 4 * ni + ni * (d + 1)};
}

/* ---- work and oracle --------------------------------------------------------------------- */

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    const bool decodes = phase == ATTN_PHASE_DECODE;
    const attn_linformer_sizes z = attn_linformer_sizes_of(layer, decodes ? length + 1 : length);
    attn_work total = {0};
    for (size_t b = 0; b < batch && !decodes; b++) {
        const uint32_t *documents = document_start ? document_start + b * length : NULL;
        attn_linformer_block at = {0};
        while (attn_linformer_next(layer, &z, length, documents, &at)) {
            if (attn_linformer_compresses(layer, &at))
                attn_work_add(&total, attn_linformer_compress_work(&z, phase));
            attn_work_add(&total, attn_linformer_block_work(&z, phase, at.ni, at.far, at.near));
        }
    }
    if (decodes) {
        const size_t slot = length % z.n, far = length / z.n * z.rank;
        if (slot == 0 && far > 0) total = attn_linformer_compress_work(&z, phase);
        attn_work_add(&total, attn_linformer_block_work(&z, phase, 1, far, slot + 1));
        total = attn_work_times(total, batch);
    }
    if (phase == ATTN_PHASE_BACKWARD) total.other += batch * attn_linformer_part(layer);
    return attn_work_times(total, layer->heads);
}

/* One document: virtual keys above the exact ones, one masked softmax over all. */
static attn_node *oracle_document(attn_tape *tape, const attn_layer *layer, attn_node *q,
                                  attn_node *k, attn_node *v, attn_node *e, attn_node *f)
{
    const size_t T = q->rows, s = layer->options[ATTN_LINFORMER_SEGMENT].size,
                 r = layer->options[ATTN_LINFORMER_RANK].size;
    const bool is_causal = layer->is_causal;
    const size_t far = is_causal ? T / s * r : r, n = is_causal ? far + T : far;
    attn_node *keys = is_causal ? k : attn_matmul(tape, attn_columns(tape, e, 0, T), k);
    attn_node *values = is_causal ? v : attn_matmul(tape, attn_columns(tape, f, 0, T), v);
    for (size_t c = T / s; is_causal && c-- > 0;) { /* the last segment is put on top first */
        keys = attn_above(tape, attn_matmul(tape, e, attn_rows(tape, k, c * s, s)), keys);
        values = attn_above(tape, attn_matmul(tape, f, attn_rows(tape, v, c * s, s)), values);
    }
    bool *allowed = attn_alloc_array(ATTN_MEMORY_OTHER, T * n, sizeof *allowed);
    double *bias = attn_alloc_array(ATTN_MEMORY_OTHER, T * n, sizeof *bias);
    attn_node *o = NULL;
    if (allowed && bias) {
        for (size_t i = 0; i < T; i++)
            for (size_t j = 0; j < n; j++) {
                const bool is_far = j < far;
                allowed[i * n + j] =
                    !is_causal || (is_far ? j / r < i / s : j - far <= i && (j - far) / s == i / s);
                if (is_causal && is_far && layer->options[ATTN_LINFORMER_MASS_BIAS].flag)
                    bias[i * n + j] = log((double)s / (double)r);
            }
        attn_node *scores = attn_scaled(tape, attn_matmul(tape, q, attn_transpose(tape, keys)),
                                        1.0 / sqrt((double)q->columns));
        scores = attn_plus(tape, scores, attn_leaf(tape, T, n, bias));
        o = attn_matmul(tape, attn_softmax(tape, scores, allowed), values);
    }
    attn_free(allowed);
    attn_free(bias);
    return o ? o : attn_tape_fail(tape);
}

static attn_node *oracle(attn_tape *tape, const attn_layer *layer, size_t head_index, attn_node *q,
                         attn_node *k, attn_node *v, attn_node *const *parameters,
                         const uint32_t *document_start)
{
    (void)head_index;
    attn_node *o = NULL;
    for (size_t t = 0, end; t < q->rows; t = end) {
        end = t + 1;
        while (end < q->rows && (!document_start || document_start[end] != end)) end++;
        attn_node *part = oracle_document(
            tape, layer, attn_rows(tape, q, t, end - t), attn_rows(tape, k, t, end - t),
            attn_rows(tape, v, t, end - t), parameters[0], parameters[1]);
        o = o ? attn_above(tape, o, part) : part;
    }
    return o ? o : attn_tape_fail(tape); /* no rows: the tape has failed before */
}

static const attn_core core = {
    .declare = declare,
    .saved = attn_linformer_saved,
    .scratch = attn_linformer_scratch,
    .cache = attn_linformer_cache,
    .forward = attn_linformer_forward,
    .backward = attn_linformer_backward,
    .decode = attn_linformer_decode,
    .oracle = oracle,
    .work = work,
};

const attn_mechanism attn_mechanism_linformer = {
    .title =
        "keys and values compressed along the sequence by learned matrices, segment by segment",
    .source = "Wang et al., Linformer, 2020; causal by segments: Zhu et al., Long-Short "
              "Transformer, 2021",
    .multiplies_parts = true,
    .options = options,
    .check = check,
    .initialise = initialise,
    .functions = &attn_heads_functions,
    .core = &core,
};
