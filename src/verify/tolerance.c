/* Tolerances for bfloat16: conditioned by what the same roundings do to the definition. */
#include "verify/tolerance.h"

#include "base/error.h"
#include "base/memory.h"
#include "verify/compare.h"

#include <math.h>

attn_tolerances attn_tolerances_uniform(double tolerance)
{
    attn_tolerances t = {.y = tolerance, .dx = tolerance, .d_memory = tolerance};
    for (size_t i = 0; i < ATTN_PARAMETERS_MAX; i++) t.parameters[i] = tolerance;
    return t;
}

attn_tolerances attn_tolerances_with(double base, double share, const attn_tolerances *moves)
{
    attn_tolerances t = {.y = base + share * moves->y,
                         .dx = base + share * moves->dx,
                         .d_memory = base + share * moves->d_memory};
    for (size_t i = 0; i < ATTN_PARAMETERS_MAX; i++)
        t.parameters[i] = base + share * moves->parameters[i];
    return t;
}

/* Rounding x at random to steps of size s moves it by s / sqrt(6) in the root mean square; s is
 * between 2^-8 and 2^-7 of x, which makes 0.6 2^-8 with all x alike likely on a scale of powers. */
static const double random_error = 0.6 * 0x1p-8;

double attn_bf16_share(double difference)
{
    return ATTN_BF16_DEVIATIONS * sqrt(difference * 0x1p-7) / random_error;
}

static double squared_error(size_t n, const double *got, const double *want, double floor)
{
    const double error = attn_relative_error(n, attn_reals(got), attn_reals(want), floor);
    return error * error;
}

typedef struct sizes {
    size_t x, memory, parameters;
} sizes;

/* Adds one draw's squared errors. */
static void add_errors(const attn_layer *layer, const sizes *n, const attn_oracle_call *got,
                       const attn_oracle_call *want, attn_tolerances *sums)
{
    double floor = 0.0;
    sums->y += squared_error(n->x, got->y, want->y, 0.0);
    if (!want->dy) return;
    sums->dx += squared_error(n->x, got->dx, want->dx, 0.0);
    if (n->memory) sums->d_memory += squared_error(n->memory, got->d_memory, want->d_memory, 0.0);
    for (size_t i = 0; i < layer->n_parameters; i++)
        floor = fmax(floor, attn_norm(layer->parameters[i].count,
                                      attn_reals(want->gradients + layer->parameters[i].offset)));
    for (size_t i = 0; i < layer->n_parameters; i++) {
        const attn_parameter *p = &layer->parameters[i];
        sums->parameters[i] +=
            squared_error(p->count, got->gradients + p->offset, want->gradients + p->offset,
                          ATTN_GRADIENT_FLOOR * floor);
    }
}

attn_status attn_bf16_moves(const attn_layer *layer, const attn_oracle_call *truth, size_t draws,
                            uint64_t seed, attn_tolerances *moves, attn_error *error)
{
    const sizes n = {
        .x = truth->batch * truth->length * layer->d_model,
        .memory = truth->memory ? truth->batch * truth->memory_length * truth->memory_width : 0,
        .parameters = layer->parameter_count};
    double *room =
        attn_alloc_array(ATTN_MEMORY_OTHER, 2 * n.x + n.memory + n.parameters, sizeof *room);
    if (!room)
        return attn_fail(error, ATTN_EMEMORY, "no memory for the roundings of %s", layer->name);
    attn_oracle_call call = *truth;
    call.y = room;
    call.dx = room + n.x;
    call.d_memory = room + 2 * n.x;
    call.gradients = room + 2 * n.x + n.memory;
    call.rounding.mode = ATTN_ROUND_RANDOMLY;
    attn_status status = ATTN_OK;
    attn_tolerances sums = attn_tolerances_uniform(0.0);
    for (size_t i = 0; i < draws && status == ATTN_OK; i++) {
        call.rounding.seed = seed + i;
        status = attn_layer_oracle(layer, &call, error);
        if (status == ATTN_OK) add_errors(layer, &n, &call, truth, &sums);
    }
    attn_free(room);
    moves->y = sqrt(sums.y / (double)draws);
    moves->dx = sqrt(sums.dx / (double)draws);
    moves->d_memory = sqrt(sums.d_memory / (double)draws);
    for (size_t i = 0; i < ATTN_PARAMETERS_MAX; i++)
        moves->parameters[i] = sqrt(sums.parameters[i] / (double)draws);
    return status;
}
