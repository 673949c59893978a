/* The step benchmark. */
#include "experiment/bench_step.h"

#include "attn/context.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "kernels/dense.h"
#include "kernels/dense_bf16.h"
#include "model/training.h"

#include <stdio.h>
#include <string.h>

/* Places of the samples of one repeat. */
enum { SAMPLE_STEP, SAMPLE_DENSE, SAMPLE_PARTS };
enum { SAMPLE_PRODUCTS = SAMPLE_PARTS + ATTN_PARTS * ATTN_PASSES };
enum { SAMPLES = SAMPLE_PRODUCTS + ATTN_MODEL_PRODUCTS_MAX };

typedef struct bench {
    const attn_bench_step_options *options;
    attn_bench_step *result;
    attn_context *context;
    attn_model *model;
    attn_trainer *trainer;
    uint32_t *tokens; /* inputs, then targets, [batch][length] each */
    float *weights;
    float *x, *y;                             /* rows of the widest product */
    attn_bf16 *x_half, *y_half, *result_half; /* in bfloat16 */
    double *samples;                          /* [SAMPLES][repeats] */
} bench;

static bool is_half(const bench *b)
{
    return b->options->model->dtype == ATTN_BF16;
}

/* Elements of the largest input and output of a product. */
static size_t largest_matrix(const attn_bench_step *result)
{
    size_t most = 0;
    for (size_t i = 0; i < result->n_products; i++) {
        const attn_model_product *p = &result->products[i].product;
        const size_t widest = p->in > p->out ? p->in : p->out;
        if (p->rows * widest > most) most = p->rows * widest;
    }
    return most;
}

static void list_products(bench *b)
{
    attn_model_product products[ATTN_MODEL_PRODUCTS_MAX];
    attn_bench_step *result = b->result;
    result->n_products =
        attn_model_dense_products(b->model, b->options->batch, b->options->length, products);
    for (size_t i = 0; i < result->n_products; i++) {
        const attn_model_product *p = &products[i];
        result->products[i].product = *p;
        result->products[i].flop =
            2.0 * (double)p->rows * (double)p->in * (double)p->out * (double)p->times;
        result->dense_flop += result->products[i].flop;
    }
}

static attn_status set_up(bench *b, attn_error *error)
{
    const attn_bench_step_options *o = b->options;
    const size_t rows = o->batch * o->length;
    attn_status status = attn_context_create(&b->context, o->threads, o->isa, error);
    if (status == ATTN_OK) status = attn_model_create(&b->model, o->model, error);
    if (status != ATTN_OK) return status;
    attn_model_initialise(b->model, o->seed);
    status =
        attn_trainer_create(&b->trainer, b->model, b->context, o->batch, o->length, true, error);
    if (status != ATTN_OK) return status;
    b->tokens = attn_alloc_array(ATTN_MEMORY_OTHER, 2 * rows, sizeof *b->tokens);
    b->weights = attn_alloc_array(ATTN_MEMORY_OTHER, rows, sizeof *b->weights);
    b->samples = attn_alloc_array(ATTN_MEMORY_OTHER, SAMPLES * o->repeats, sizeof *b->samples);
    if (!b->tokens || !b->weights || !b->samples)
        return attn_fail(error, ATTN_EMEMORY, "no memory for the benchmark");
    const uint64_t stream = attn_random_stream(ATTN_RANDOM_TEST, 0);
    for (size_t i = 0; i < 2 * rows; i++)
        b->tokens[i] = (uint32_t)attn_random_below(o->seed, stream, i, o->model->vocabulary);
    for (size_t i = 0; i < rows; i++) b->weights[i] = 1.0f;
    return ATTN_OK;
}

/* What the products alone need, after the step's memory has been read. */
static attn_status set_up_products(bench *b, attn_error *error)
{
    list_products(b);
    const size_t n = largest_matrix(b->result);
    b->x = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *b->x);
    b->y = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *b->y);
    if (is_half(b)) {
        b->x_half = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *b->x_half);
        b->y_half = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *b->y_half);
        b->result_half = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *b->result_half);
    }
    if (!b->x || !b->y || (is_half(b) && (!b->x_half || !b->y_half || !b->result_half)))
        return attn_fail(error, ATTN_EMEMORY, "no memory for the benchmark");
    attn_random_fill_normal(b->options->seed, attn_random_stream(ATTN_RANDOM_TEST, 1), 1.0, n,
                            b->x);
    memcpy(b->y, b->x, n * sizeof *b->y);
    if (!is_half(b)) return ATTN_OK;
    attn_dense_bf16_round(b->context, n, b->x, b->x_half);
    attn_dense_bf16_round(b->context, n, b->x, b->y_half);
    return ATTN_OK;
}

static void tear_down(bench *b)
{
    attn_trainer_free(b->trainer);
    attn_model_free(b->model);
    attn_free(b->tokens);
    attn_free(b->weights);
    attn_free(b->x);
    attn_free(b->y);
    attn_free(b->x_half);
    attn_free(b->y_half);
    attn_free(b->result_half);
    attn_free(b->samples);
    attn_context_free(b->context);
}

static void put_sample(bench *b, size_t quantity, size_t repeat, double time_s)
{
    b->samples[quantity * b->options->repeats + repeat] = time_s;
}

static attn_status run_step(bench *b, double *time_s, attn_error *error)
{
    const size_t rows = b->options->batch * b->options->length;
    const attn_adamw adamw = attn_adamw_default();
    const attn_training_batch batch = {
        .inputs = b->tokens, .targets = b->tokens + rows, .weights = b->weights};
    attn_loss loss;
    double norm = 0.0;
    memset(attn_trainer_profile(b->trainer), 0, sizeof(attn_profile));
    const attn_work before = attn_context_work(b->context);
    const uint64_t begin_ns = attn_clock_ns();
    attn_status status = attn_trainer_loss(b->trainer, &batch, &loss, error);
    if (status == ATTN_OK) status = attn_trainer_backward(b->trainer, error);
    if (status == ATTN_OK) status = attn_trainer_update(b->trainer, &adamw, 1e-5, &norm, error);
    *time_s = attn_clock_seconds(begin_ns, attn_clock_ns());
    b->result->step_matmul_flop = (double)(attn_context_work(b->context).matmul - before.matmul);
    return status;
}

/* One product in bfloat16 as often as a step does it. */
static double run_half_product(bench *b, const attn_model_product *p)
{
    const attn_model_offsets *layout = attn_model_layout(b->model);
    const attn_bf16 *packed = attn_model_packed(b->model);
    float *gradients = attn_trainer_gradients(b->trainer);
    const bool is_head = strcmp(p->name, "head") == 0;
    const attn_dense_output result = {.single = p->is_half ? NULL : b->x,
                                      .half = p->is_half ? b->result_half : NULL,
                                      .accumulate = p->accumulate};
    double time_s = 0.0;
    for (size_t i = 0; i < p->times; i++) {
        const attn_block_offsets *block = &layout->blocks[i % b->options->model->layers];
        const size_t at = is_head ? layout->tokens : block->norm1_gain;
        const attn_bf16 *weights =
            packed + (is_head ? layout->packed_head : block->packed_attention);
        const uint64_t begin_ns = attn_clock_ns();
        switch (p->kind) {
        case ATTN_PRODUCT_FORWARD:
            attn_dense_bf16_forward(b->context, p->rows, p->in, p->out, b->x_half, weights, NULL,
                                    result);
            break;
        case ATTN_PRODUCT_INPUT_GRADIENT:
            attn_dense_bf16_input_gradient(b->context, p->rows, p->in, p->out, b->y_half, p->out,
                                           weights, result);
            break;
        case ATTN_PRODUCT_WEIGHT_GRADIENT:
        case ATTN_PRODUCT_KINDS:
            attn_dense_bf16_weight_gradient(b->context, p->rows, p->in, p->out, b->x_half,
                                            b->y_half, p->out, gradients + at, NULL, p->accumulate);
            break;
        }
        time_s += attn_clock_seconds(begin_ns, attn_clock_ns());
    }
    return time_s;
}

/* One product as often as a step does it, on the weights of one layer after the other, so that
 * they come from as far away as in a step. */
static double run_product(bench *b, const attn_model_product *p)
{
    const attn_model_offsets *layout = attn_model_layout(b->model);
    float *parameters = attn_model_parameters(b->model);
    float *gradients = attn_trainer_gradients(b->trainer);
    const bool is_head = strcmp(p->name, "head") == 0;
    if (is_half(b)) return run_half_product(b, p);
    const uint64_t begin_ns = attn_clock_ns();
    for (size_t i = 0; i < p->times; i++) {
        const size_t layer = i % b->options->model->layers;
        const size_t at = is_head ? layout->tokens : layout->blocks[layer].norm1_gain;
        switch (p->kind) {
        case ATTN_PRODUCT_FORWARD:
            attn_dense_forward(b->context, p->rows, p->in, p->out, b->x, parameters + at, NULL,
                               b->y);
            break;
        case ATTN_PRODUCT_INPUT_GRADIENT:
            attn_dense_input_gradient(b->context, p->rows, p->in, p->out, b->y, parameters + at,
                                      b->x, p->accumulate);
            break;
        case ATTN_PRODUCT_WEIGHT_GRADIENT:
        case ATTN_PRODUCT_KINDS:
            attn_dense_weight_gradient(b->context, p->rows, p->in, p->out, b->x, b->y,
                                       gradients + at, NULL, p->accumulate);
            break;
        }
    }
    return attn_clock_seconds(begin_ns, attn_clock_ns());
}

/* One step and one round of products; `repeat` SIZE_MAX warms the products up. */
static attn_status run_repeat(bench *b, size_t repeat, attn_error *error)
{
    double step_s = 0.0, dense_s = 0.0;
    const bool counts = repeat != SIZE_MAX;
    const attn_status status = run_step(b, &step_s, error);
    if (status != ATTN_OK) return status;
    const attn_profile *profile = attn_trainer_profile(b->trainer);
    for (size_t part = 0; counts && part < ATTN_PARTS; part++)
        for (size_t pass = 0; pass < ATTN_PASSES; pass++)
            put_sample(b, SAMPLE_PARTS + part * ATTN_PASSES + pass, repeat,
                       1e-9 * (double)profile->ns[part][pass]);
    for (size_t i = 0; i < b->result->n_products; i++) {
        const double time_s = run_product(b, &b->result->products[i].product);
        dense_s += time_s;
        if (counts) put_sample(b, SAMPLE_PRODUCTS + i, repeat, time_s);
    }
    if (counts) {
        put_sample(b, SAMPLE_STEP, repeat, step_s);
        put_sample(b, SAMPLE_DENSE, repeat, dense_s);
    }
    return ATTN_OK;
}

static attn_bench_time summary_of(bench *b, size_t quantity)
{
    return attn_bench_time_of(b->samples + quantity * b->options->repeats, b->options->repeats);
}

static void summarise(bench *b)
{
    attn_bench_step *result = b->result;
    result->step = summary_of(b, SAMPLE_STEP);
    result->dense = summary_of(b, SAMPLE_DENSE);
    for (size_t part = 0; part < ATTN_PARTS; part++)
        for (size_t pass = 0; pass < ATTN_PASSES; pass++)
            result->parts[part][pass] = summary_of(b, SAMPLE_PARTS + part * ATTN_PASSES + pass);
    for (size_t i = 0; i < result->n_products; i++)
        result->products[i].all = summary_of(b, SAMPLE_PRODUCTS + i);
    result->threads = attn_context_threads(b->context);
    result->dtype = b->options->model->dtype;
    snprintf(result->isa, sizeof result->isa, "%s", attn_context_isa(b->context));
    snprintf(result->dense_name, sizeof result->dense_name, "%s", attn_context_dense(b->context));
}

attn_status attn_bench_step_run(const attn_bench_step_options *options, attn_bench_step *result,
                                attn_error *error)
{
    bench b = {.options = options, .result = result};
    memset(result, 0, sizeof *result);
    attn_memory_reset_peaks();
    double first_s = 0.0;
    attn_status status = set_up(&b, error);
    if (status == ATTN_OK) status = run_step(&b, &first_s, error);
    result->peak_bytes = (double)attn_memory_usage(ATTN_MEMORY_CATEGORIES).peak_bytes;
    if (status == ATTN_OK) status = set_up_products(&b, error);
    if (status == ATTN_OK) status = run_repeat(&b, SIZE_MAX, error);
    for (size_t i = 0; i < options->repeats && status == ATTN_OK; i++)
        status = run_repeat(&b, i, error);
    if (status == ATTN_OK) summarise(&b);
    tear_down(&b);
    return status;
}
