/* Closed forms of what the model's kernels count, in the classes of the cost model:
 *
 *     embedding      C a token forward, 2 C backward
 *     norm           7 C + 2 and a square root a row, 11 C backward; residual C and C
 *     MLP            dense products with biases; GELU one exponential and 8 (16) operations
 *     head and loss  2 C V, V + 1 exponentials and 3 V a row; 4 C V and 2 V backward, without
 *                    exponentials, because the block of logits keeps its probabilities
 *     bfloat16       nothing for rounding, nor for the GELU that its gradient has on the way
 *     AdamW          a square root and 15 operations a parameter, 3 more with clipping */
#include "kernels/context.h"
#include "model/model.h"

static attn_work linear(uint64_t rows, uint64_t in, uint64_t out)
{
    return (attn_work){.matmul = 2 * rows * in * out, .other = rows * out};
}

/* The last norm, or one of the two of a block with its residual. */
static attn_work norm_forward(uint64_t rows, uint64_t c, bool has_residual)
{
    return (attn_work){.exponential = rows,
                       .other = 7 * rows * c + 2 * rows + (has_residual ? rows * c : 0)};
}

static attn_work mlp_forward(uint64_t rows, uint64_t c)
{
    const uint64_t f = ATTN_MODEL_EXPANSION * c;
    attn_work w = {.exponential = rows * f, .other = 8 * rows * f};
    attn_work_add(&w, linear(rows, c, f));
    attn_work_add(&w, linear(rows, f, c));
    return w;
}

/* The attention of all blocks. */
static attn_work attention_work(const attn_model *model, attn_phase phase, size_t batch,
                                size_t length, const uint32_t *document_start)
{
    attn_work w = {0};
    size_t n = 0;
    const attn_model_kind *kinds = attn_model_kinds(model, &n);
    for (size_t i = 0; i < n; i++)
        attn_work_add(&w, attn_work_times(
                              attn_layer_work(kinds[i].layer, phase, batch, length, document_start),
                              kinds[i].n_blocks));
    return w;
}

/* Embedding, blocks with the work `attention` and last norm for `rows` tokens. */
static attn_work stack_forward(const attn_model *model, uint64_t rows, attn_work attention)
{
    const attn_model_config *config = attn_model_configuration(model);
    const uint64_t c = config->d_model, layers = config->layers;
    attn_work w = {.other = rows * c};
    attn_work_add(&w, attention);
    attn_work_add(&w, attn_work_times(norm_forward(rows, c, true), 2 * layers));
    attn_work_add(&w, attn_work_times(mlp_forward(rows, c), layers));
    attn_work_add(&w, norm_forward(rows, c, false));
    return w;
}

static attn_work step_forward(const attn_model *model, size_t batch, size_t length,
                              const uint32_t *document_start)
{
    const attn_model_config *config = attn_model_configuration(model);
    const uint64_t rows = (uint64_t)batch * length, v = config->vocabulary;
    attn_work w = stack_forward(
        model, rows, attention_work(model, ATTN_PHASE_FORWARD, batch, length, document_start));
    w.matmul += 2 * rows * config->d_model * v;
    w.exponential += rows * v + rows;
    w.other += 3 * rows * v;
    return w;
}

static attn_work step_backward(const attn_model *model, size_t batch, size_t length,
                               const uint32_t *document_start)
{
    const attn_model_config *config = attn_model_configuration(model);
    const uint64_t rows = (uint64_t)batch * length, v = config->vocabulary;
    const uint64_t c = config->d_model, f = ATTN_MODEL_EXPANSION * c, layers = config->layers;
    attn_work block = {.matmul = 2 * 4 * rows * c * f,      /* up and down, dx and dw */
                       .exponential = rows * f,             /* GELU */
                       .other = rows * (f + c)              /* biases */
                                + 16 * rows * f             /* GELU */
                                + 2 * (11 + 1) * rows * c}; /* norms and residuals */
    attn_work w = attn_work_times(block, layers);
    attn_work_add(&w, attention_work(model, ATTN_PHASE_BACKWARD, batch, length, document_start));
    w.matmul += 4 * rows * c * v;
    w.other += 2 * rows * v    /* loss */
               + 11 * rows * c /* last norm */
               + 2 * rows * c; /* embedding */
    return w;
}

attn_work attn_model_work(const attn_model *model, attn_model_phase phase, size_t batch,
                          size_t length, const uint32_t *document_start)
{
    const attn_model_config *config = attn_model_configuration(model);
    const uint64_t parameters = attn_model_parameter_count(model);
    const uint64_t last_logits = 2 * (uint64_t)batch * config->d_model * config->vocabulary;
    attn_work w = {0};
    switch (phase) {
    case ATTN_MODEL_FORWARD:
        return step_forward(model, batch, length, document_start);
    case ATTN_MODEL_BACKWARD:
        return step_backward(model, batch, length, document_start);
    case ATTN_MODEL_UPDATE:
        return (attn_work){.exponential = parameters, .other = 15 * parameters};
    case ATTN_MODEL_UPDATE_CLIPPED:
        return (attn_work){.exponential = parameters, .other = (15 + 3) * parameters};
    case ATTN_MODEL_PREFILL:
        w = stack_forward(model, (uint64_t)batch * length,
                          attention_work(model, ATTN_PHASE_FORWARD, batch, length, NULL));
        break;
    case ATTN_MODEL_DECODE:
        w = stack_forward(model, batch,
                          attention_work(model, ATTN_PHASE_DECODE, batch, length, NULL));
        break;
    }
    w.matmul += last_logits;
    return w;
}
