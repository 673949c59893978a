/* Runs a mechanism's oracle, one sequence at a time. */
#include "mechanisms/oracle.h"

#include "base/error.h"
#include "mechanisms/mechanism.h"

#include <string.h>

static attn_status run_sequence(const attn_layer *layer, const attn_oracle_call *call, size_t b)
{
    attn_tape *tape = attn_tape_create(call->rounding);
    if (!tape) return ATTN_EMEMORY;
    const size_t T = call->length, C = layer->d_model, at = b * T * C;
    attn_node *parameters[ATTN_PARAMETERS_MAX];
    for (size_t i = 0; i < layer->n_parameters; i++) {
        const attn_parameter *p = &layer->parameters[i];
        const size_t rows = p->dimensions == 1 ? 1 : p->shape[0]; /* vectors are rows */
        parameters[i] = attn_leaf(tape, rows, p->count / rows, call->parameters + p->offset);
    }
    attn_node *x = attn_leaf(tape, T, C, call->x + at);
    const size_t memory_count = call->memory_length * call->memory_width;
    attn_node *memory = NULL;
    if (call->memory)
        memory = attn_leaf(tape, call->memory_length, call->memory_width,
                           call->memory + b * memory_count);
    attn_node *y = layer->mechanism->functions->oracle(
        tape, layer, x, parameters, memory,
        call->document_start ? call->document_start + b * T : NULL);
    if (call->dy && !attn_tape_failed(tape)) attn_tape_backward(tape, y, call->dy + at);
    const attn_status status = attn_tape_failed(tape) ? ATTN_EMEMORY : ATTN_OK;
    if (status == ATTN_OK) {
        memcpy(call->y + at, y->value, T * C * sizeof *call->y);
        if (call->dy) {
            memcpy(call->dx + at, x->gradient, T * C * sizeof *call->dx);
            if (memory)
                memcpy(call->d_memory + b * memory_count, memory->gradient,
                       memory_count * sizeof *call->d_memory);
            for (size_t i = 0; i < layer->n_parameters; i++)
                for (size_t j = 0;
                     layer->parameters[i].is_trained && j < layer->parameters[i].count; j++)
                    call->gradients[layer->parameters[i].offset + j] += parameters[i]->gradient[j];
        }
    }
    attn_tape_free(tape);
    return status;
}

attn_status attn_layer_oracle(const attn_layer *layer, const attn_oracle_call *call,
                              attn_error *error)
{
    attn_status status = ATTN_OK;
    if (call->dy) memset(call->gradients, 0, layer->parameter_count * sizeof *call->gradients);
    for (size_t b = 0; b < call->batch && status == ATTN_OK; b++)
        status = run_sequence(layer, call, b);
    if (status != ATTN_OK)
        return attn_fail(error, status, "no memory for the float64 oracle of %s", layer->name);
    return ATTN_OK;
}
