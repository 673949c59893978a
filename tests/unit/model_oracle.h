/* A whole model in float64 by its definition, with gradients from the tape and, if asked for, the
 * roundings of a bfloat16 model: the factors of every dense product, up and the gradient of its
 * GELU. */
#ifndef UNIT_MODEL_ORACLE_H
#define UNIT_MODEL_ORACLE_H

#include "model_fixture.h"

#include "mechanisms/mechanism.h"
#include "model/model.h"

typedef struct model_oracle {
    attn_tape *tape;
    const attn_model *model;
    attn_node *tensors[256]; /* leaves, as the model's tensors */
    size_t n_tensors, next;  /* the next one that the forward pass reads */
    size_t batch, length;
    const attn_training_batch *data;
} model_oracle;

static inline attn_node *oracle_take(model_oracle *o)
{
    return o->tensors[o->next++];
}

/* [rows][columns] with a 1 where `column` says, to pick rows of a table. */
static inline attn_node *oracle_pick(model_oracle *o, size_t columns, const uint32_t *column,
                                     size_t period)
{
    const size_t rows = o->batch * o->length;
    attn_node *pick = attn_filled(o->tape, rows, columns, 0.0);
    for (size_t i = 0; i < rows; i++)
        pick->value[i * columns + (column ? column[i] : i % period)] = 1.0;
    return pick;
}

static inline attn_node *oracle_norm(model_oracle *o, attn_node *x)
{
    const double share = 1.0 / (double)x->columns;
    attn_node *gain = oracle_take(o), *bias = oracle_take(o);
    attn_node *mean = attn_scaled(o->tape, attn_row_sums(o->tape, x), -share);
    attn_node *y =
        attn_normal(o->tape, attn_plus(o->tape, x, mean), share, (double)ATTN_MODEL_NORM_EPSILON);
    return attn_plus(o->tape, attn_times(o->tape, y, gain), bias);
}

static inline attn_node *oracle_attention(model_oracle *o, size_t block, attn_node *x)
{
    const attn_layer *layer = attn_model_layer(o->model, block);
    attn_node *const *parameters = o->tensors + o->next, *y = NULL;
    o->next += layer->n_parameters;
    for (size_t b = 0; b < o->batch; b++) {
        attn_node *part = layer->mechanism->functions->oracle(
            o->tape, layer, attn_rows(o->tape, x, b * o->length, o->length), parameters, NULL,
            NULL);
        y = y ? attn_above(o->tape, y, part) : part;
    }
    return y;
}

static inline attn_node *oracle_gelu(attn_tape *tape, attn_node *x)
{
    attn_node *cube = attn_times(tape, x, attn_times(tape, x, x));
    attn_node *u = attn_plus(tape, x, attn_scaled(tape, cube, 0.044715));
    return attn_times(tape, x, attn_sigmoid(tape, attn_scaled(tape, u, 1.5957691216057308)));
}

static inline attn_node *oracle_mlp(model_oracle *o, attn_node *x)
{
    attn_node *up = oracle_take(o), *up_bias = oracle_take(o);
    attn_node *down = oracle_take(o), *down_bias = oracle_take(o);
    attn_node *inner = attn_rounded_factor(o->tape, attn_linear(o->tape, x, up, up_bias));
    attn_node *gelu = attn_rounded_gradient(o->tape, oracle_gelu(o->tape, inner));
    return attn_linear(o->tape, gelu, down, down_bias);
}

/* Mean loss of the batch; `gradients` get the layout of the model's block. */
static inline double oracle_loss(const attn_model *model, const attn_training_batch *data,
                                 size_t batch, size_t length, attn_rounding rounding,
                                 double *gradients)
{
    const attn_model_config *config = attn_model_configuration(model);
    const size_t rows = batch * length, v = config->vocabulary;
    model_oracle o = {.tape = attn_tape_create(rounding),
                      .model = model,
                      .batch = batch,
                      .length = length,
                      .data = data};
    assert_non_null(o.tape);
    const attn_model_tensor *tensors = attn_model_tensors(model, &o.n_tensors);
    assert_true(o.n_tensors <= sizeof o.tensors / sizeof *o.tensors);
    for (size_t i = 0; i < o.n_tensors; i++) {
        const attn_model_tensor *t = &tensors[i];
        const size_t down = t->dimensions == 1 ? 1 : t->shape[0];
        o.tensors[i] = attn_filled(o.tape, down, t->count / down, 0.0);
        for (size_t j = 0; j < t->count; j++)
            o.tensors[i]->value[j] = (double)attn_model_parameters(model)[t->offset + j];
    }

    attn_node *wte = oracle_take(&o), *wpe = oracle_take(&o);
    attn_node *x =
        attn_plus(o.tape, attn_matmul(o.tape, oracle_pick(&o, v, data->inputs, 0), wte),
                  attn_matmul(o.tape, oracle_pick(&o, config->positions, NULL, length), wpe));
    for (size_t l = 0; l < config->layers; l++) {
        x = attn_plus(o.tape, x, oracle_attention(&o, l, oracle_norm(&o, x)));
        x = attn_plus(o.tape, x, oracle_mlp(&o, oracle_norm(&o, x)));
    }
    attn_node *logits = attn_linear(o.tape, oracle_norm(&o, x), wte, NULL);
    attn_node *wanted =
        attn_row_sums(o.tape, attn_times(o.tape, logits, oracle_pick(&o, v, data->targets, 0)));
    attn_node *total = attn_log(o.tape, attn_row_sums(o.tape, attn_exp(o.tape, logits)));
    attn_node *nll = attn_plus(o.tape, total, attn_scaled(o.tape, wanted, -1.0));

    double weight = 0.0, loss = 0.0, share[BATCH_TOKENS_MAX];
    for (size_t i = 0; i < rows; i++) weight += (double)data->weights[i];
    for (size_t i = 0; i < rows; i++) share[i] = (double)data->weights[i] / weight;
    attn_tape_backward(o.tape, nll, share);
    assert_false(attn_tape_failed(o.tape));
    for (size_t i = 0; i < rows; i++) loss += share[i] * nll->value[i];
    for (size_t i = 0; i < o.n_tensors; i++)
        for (size_t j = 0; j < tensors[i].count; j++)
            gradients[tensors[i].offset + j] =
                tensors[i].is_trained ? o.tensors[i]->gradient[j] : 0.0;
    attn_tape_free(o.tape);
    return loss;
}

#endif
