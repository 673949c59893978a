/* Other programs' formulas, from the sizes that they use. */
#include "cost/convention.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {"executed", "useful", "dense",    "torch",
                                    "nanogpt",  "palm",   "megatron", "flash-attention"};

const char *attn_convention_name(attn_cost_convention convention)
{
    return names[convention];
}

attn_cost_convention attn_convention_parse(const char *name)
{
    size_t i = 0;
    while (i < ATTN_CONVENTIONS && strcmp(names[i], name) != 0) i++;
    return (attn_cost_convention)i;
}

static bool is_training(const attn_cost_estimate *e)
{
    return e->request.phase == ATTN_COST_TRAIN;
}

/* Matrix products outside cores with pairs. */
static double products(const attn_cost_estimate *e)
{
    double sum = 0.0;
    for (size_t i = 0; i < e->n_parts; i++) {
        const attn_cost_part *p = &e->parts[i];
        if (p->traffic.is_softmax) continue;
        sum += (double)p->times * (double)p->work[ATTN_COST_FORWARD].matmul;
        if (is_training(e)) sum += (double)p->times * (double)p->work[ATTN_COST_BACKWARD].matmul;
    }
    return sum;
}

static bool has_cores(const attn_cost_estimate *e)
{
    for (size_t i = 0; i < e->n_parts; i++)
        if (e->parts[i].traffic.is_softmax) return true;
    return false;
}

/* Sum over cores of the square of one pass, times key widths and value widths as asked. */
static double squares(const attn_cost_estimate *e, double key_times, double value_times)
{
    double sum = 0.0;
    for (size_t i = 0; i < e->n_parts; i++) {
        const attn_cost_traffic *t = &e->parts[i].traffic;
        if (!t->is_softmax) continue;
        const double square = (double)t->batch * (double)t->heads.heads * (double)t->queries *
                              (double)t->keys * (double)e->parts[i].times;
        sum += square * (key_times * (double)t->heads.key_width +
                         value_times * (double)t->heads.value_width);
    }
    return sum;
}

static bool is_square(const attn_cost_estimate *e)
{
    for (size_t i = 0; i < e->n_parts; i++)
        if (e->parts[i].traffic.is_square) return true;
    return false;
}

static double causal_half(const attn_cost_estimate *e)
{
    const bool is_causal = e->request.spec->kind == ATTN_SPEC_DECODER;
    return is_causal && e->request.phase != ATTN_COST_DECODE ? 0.5 : 1.0;
}

static double torch_flop(const attn_cost_estimate *e)
{
    double flop = products(e) + squares(e, 2.0, 2.0);
    /* The fused backward pass computes the scores again, the other one does not. */
    if (is_training(e)) flop += is_square(e) ? squares(e, 4.0, 4.0) : squares(e, 6.0, 4.0);
    return flop;
}

static double palm_flop(const attn_cost_estimate *e)
{
    const attn_spec *s = e->request.spec;
    if (s->kind != ATTN_SPEC_DECODER && s->kind != ATTN_SPEC_ENCODER) return NAN;
    const size_t positions = s->position == ATTN_SPEC_LEARNED ? s->positions * s->width : 0;
    const double n = (double)(attn_spec_active_parameters(s) - positions);
    const double core =
        12.0 * (double)s->layers * (double)s->heads * (double)s->head_dim * (double)e->request.keys;
    const double flop = (6.0 * n + core) * (double)e->rows;
    return is_training(e) ? flop : flop / 3.0;
}

static double megatron_flop(const attn_cost_estimate *e)
{
    const double core = causal_half(e) * squares(e, 2.0, 2.0);
    return products(e) + (is_training(e) ? 3.0 : 1.0) * core;
}

double attn_convention_flop(const attn_cost_estimate *e, attn_cost_convention convention)
{
    const bool needs_cores = convention >= ATTN_CONVENTION_TORCH;
    if (needs_cores && !has_cores(e)) return NAN;
    switch (convention) {
    case ATTN_CONVENTION_EXECUTED:
        return (double)attn_cost_total(e).matmul;
    case ATTN_CONVENTION_USEFUL:
        return e->has_useful ? (double)e->useful : NAN;
    case ATTN_CONVENTION_DENSE:
        return (double)e->dense;
    case ATTN_CONVENTION_TORCH:
        return torch_flop(e);
    case ATTN_CONVENTION_NANOGPT:
    case ATTN_CONVENTION_PALM:
        return palm_flop(e);
    case ATTN_CONVENTION_MEGATRON:
        return megatron_flop(e);
    case ATTN_CONVENTION_FLASH:
        return causal_half(e) * squares(e, 2.0, 2.0) * (is_training(e) ? 3.5 : 1.0);
    case ATTN_CONVENTIONS:
        break;
    }
    return NAN;
}
