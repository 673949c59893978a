/* A trainer's memory, the check of batches, loss and backward. */
#include "model/training.h"

#include "base/error.h"
#include "base/memory.h"
#include "model/head.h"
#include "model/training_internal.h"

#include <math.h>
#include <string.h>

static attn_status take_memory(attn_trainer *t, bool is_training, attn_error *error)
{
    const size_t block = attn_model_block_count(t->model);
    t->nll =
        attn_alloc_array(ATTN_MEMORY_ACTIVATIONS, t->stack.batch * t->stack.length, sizeof *t->nll);
    if (!t->nll) return attn_fail(error, ATTN_EMEMORY, "no memory for a trainer");
    if (!is_training) return ATTN_OK;
    t->gradients = attn_alloc_array(ATTN_MEMORY_GRADIENTS, block, sizeof *t->gradients);
    t->moment1 = attn_alloc_array(ATTN_MEMORY_OPTIMIZER, block, sizeof *t->moment1);
    t->moment2 = attn_alloc_array(ATTN_MEMORY_OPTIMIZER, block, sizeof *t->moment2);
    if (!t->gradients || !t->moment1 || !t->moment2)
        return attn_fail(error, ATTN_EMEMORY,
                         "no memory for the gradients and moments of %zu parameters", block);
    return attn_trainer_cut(t, error);
}

attn_status attn_trainer_create(attn_trainer **out, attn_model *model, attn_context *context,
                                size_t batch, size_t length, bool is_training, attn_error *error)
{
    *out = NULL;
    attn_trainer *t = attn_alloc(ATTN_MEMORY_OTHER, sizeof *t);
    if (!t) return attn_fail(error, ATTN_EMEMORY, "no memory for a trainer");
    t->model = model;
    t->context = context;

    const attn_model_config *config = attn_model_configuration(model);
    size_t rows = 0, scratch = 0;
    attn_status status = ATTN_OK;
    if (batch > 0 && length > 0 && attn_size_multiply(batch, length, &rows))
        scratch = attn_head_scratch_count(rows, config->vocabulary, config->dtype, is_training);
    status =
        attn_stack_create(&t->stack, model, context, batch, length, is_training, scratch, error);
    if (status == ATTN_OK) status = take_memory(t, is_training, error);
    if (status != ATTN_OK) {
        attn_trainer_free(t);
        return status;
    }
    attn_model_pack(model, context);
    *out = t;
    return ATTN_OK;
}

void attn_trainer_free(attn_trainer *trainer)
{
    if (!trainer) return;
    attn_free(trainer->squares);
    attn_free(trainer->pieces);
    attn_free(trainer->moment2);
    attn_free(trainer->moment1);
    attn_free(trainer->gradients);
    attn_free(trainer->nll);
    attn_stack_destroy(&trainer->stack);
    attn_free(trainer);
}

/* ---- a batch ----------------------------------------------------------------------------- */

static attn_status check_batch(const attn_trainer *t, const attn_training_batch *batch,
                               double *weight, attn_error *error)
{
    const size_t length = t->stack.length,
                 vocabulary = attn_model_configuration(t->model)->vocabulary;
    *weight = 0.0;
    for (size_t i = 0; i < t->stack.batch * length; i++) {
        if (batch->inputs[i] >= vocabulary || batch->targets[i] >= vocabulary)
            return attn_fail(error, ATTN_EARGUMENT,
                             "sequence %zu, token %zu: id %u with target %u, but the vocabulary "
                             "ends at %zu",
                             i / length, i % length, batch->inputs[i], batch->targets[i],
                             vocabulary - 1);
        if (!(batch->weights[i] >= 0.0f && batch->weights[i] < INFINITY))
            return attn_fail(error, ATTN_EARGUMENT,
                             "sequence %zu, token %zu: weight %g is no share of a loss", i / length,
                             i % length, (double)batch->weights[i]);
        if (batch->document_start && batch->document_start[i] > i % length)
            return attn_fail(error, ATTN_EARGUMENT,
                             "sequence %zu, token %zu: its document starts later, at %u",
                             i / length, i % length, batch->document_start[i]);
        *weight += (double)batch->weights[i];
    }
    if (*weight > 0.0) return ATTN_OK;
    return attn_fail(error, ATTN_EARGUMENT,
                     "no target of this batch counts: all weights are 0, so it has no loss");
}

/* Forward pass and loss; with gradients of the head when `keeps`. */
static attn_status forward(attn_trainer *t, const attn_training_batch *batch, bool keeps,
                           attn_loss *loss, attn_error *error)
{
    const attn_model_offsets *at = attn_model_layout(t->model);
    const attn_model_config *config = attn_model_configuration(t->model);
    t->has_pending = false;
    attn_status status = check_batch(t, batch, &loss->weight, error);
    if (status != ATTN_OK) return status;
    const attn_stack_input input = {.batch = t->stack.batch,
                                    .length = t->stack.length,
                                    .tokens = batch->inputs,
                                    .document_start = batch->document_start,
                                    .keeps = keeps};
    status = attn_stack_forward(&t->stack, &input, error);
    if (status != ATTN_OK) return status;
    const attn_head head = {.rows = input.batch * input.length,
                            .n = config->d_model,
                            .vocabulary = config->vocabulary,
                            .x = t->stack.final,
                            .x_half = t->stack.final_half,
                            .packed = attn_stack_packed(&t->stack, at->packed_head),
                            .wte = attn_model_parameters(t->model) + at->tokens,
                            .targets = batch->targets,
                            .weights = batch->weights,
                            .weight = loss->weight,
                            .scratch = t->stack.scratch,
                            .nll = t->nll,
                            .dx = keeps ? t->stack.branch : NULL,
                            .dwte = keeps ? t->gradients + at->tokens : NULL};
    loss->mean = attn_head_loss(t->context, &head, &t->stack.profile) / loss->weight;
    t->pending = input;
    t->has_pending = keeps;
    return ATTN_OK;
}

attn_status attn_trainer_loss(attn_trainer *trainer, const attn_training_batch *batch,
                              attn_loss *loss, attn_error *error)
{
    if (!trainer->gradients)
        return attn_fail(error, ATTN_EARGUMENT, "this trainer was made for evaluation alone");
    return forward(trainer, batch, true, loss, error);
}

attn_status attn_trainer_evaluate(attn_trainer *trainer, const attn_training_batch *batch,
                                  attn_loss *loss, attn_error *error)
{
    return forward(trainer, batch, false, loss, error);
}

attn_status attn_trainer_backward(attn_trainer *trainer, attn_error *error)
{
    if (!trainer->has_pending)
        return attn_fail(error, ATTN_EARGUMENT,
                         "a backward pass needs the loss of a batch before it");
    trainer->has_pending = false;
    return attn_stack_backward(&trainer->stack, &trainer->pending, trainer->gradients, error);
}

/* ---- questions --------------------------------------------------------------------------- */

const double *attn_trainer_nll(const attn_trainer *trainer)
{
    return trainer->nll;
}

void attn_trainer_logits(attn_trainer *trainer, size_t first, size_t rows, float *logits)
{
    attn_stack_logits(&trainer->stack, first, 1, rows, logits);
}

float *attn_trainer_gradients(attn_trainer *trainer)
{
    return trainer->gradients;
}

size_t attn_trainer_steps(const attn_trainer *trainer)
{
    return trainer->steps;
}

attn_profile *attn_trainer_profile(attn_trainer *trainer)
{
    return &trainer->stack.profile;
}
