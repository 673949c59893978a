/* Against the float64 definition: ordinary inputs with every gradient, and inputs so large that
 * exponentials overflow and underflow. */
#include "verify/compare.h"
#include "verify/probe.h"

#include <math.h>
#include <string.h>

static bool all_finite(size_t n, attn_numbers values)
{
    return isfinite(attn_norm(n, values));
}

static size_t memory_count(const attn_probe *p)
{
    return p->B * p->memory_length * p->memory_width;
}

/* The probe's inputs times `scale`, in double. With `wobble` every element is off by a random
 * multiple of it, normally distributed. */
typedef struct inputs {
    double *x, *memory;
} inputs;

static bool scaled_inputs(attn_probe *p, double scale, double wobble, inputs *out)
{
    const size_t counts[] = {p->n, memory_count(p)};
    const float *from[] = {p->x, p->memory};
    double *to[2];
    for (size_t k = 0; k < 2; k++) {
        float *noise = attn_probe_floats(p, counts[k], "the comparison");
        to[k] = attn_probe_doubles(p, counts[k]);
        if (!noise || !to[k]) return false;
        attn_probe_normal(p, wobble, counts[k], noise);
        for (size_t i = 0; i < counts[k]; i++)
            to[k][i] = scale * (double)from[k][i] * (1.0 + (double)noise[i]);
    }
    *out = (inputs){.x = to[0], .memory = p->memory ? to[1] : NULL};
    return true;
}

/* ---- ordinary inputs --------------------------------------------------------------------- */

/* Of dx, as a share of the memory's gradient. */
static const double single_key_floor = 0.05;

static void compare_gradients(attn_probe *p, const attn_call *call, const attn_oracle_call *want,
                              const char *what)
{
    attn_verdict *v = &p->result->of[ATTN_PROPERTY_GRADIENTS];
    /* With a memory of one position every softmax is 1, and dx zero in exact arithmetic. */
    double floor = 0.0;
    if (p->memory_length == 1)
        floor = single_key_floor * attn_norm(memory_count(p), attn_reals(want->d_memory));
    attn_verdict_error(
        v, attn_relative_error(p->n, attn_singles(call->dx), attn_reals(want->dx), floor),
        p->within.dx, "dx%s", what);
    if (p->memory)
        attn_verdict_error(v,
                           attn_relative_error(memory_count(p), attn_singles(call->d_memory),
                                               attn_reals(want->d_memory), 0.0),
                           p->within.d_memory, "gradient of the memory%s", what);
    attn_probe_compare_gradients(p, v, call->gradients, want->gradients, &p->within, what);
}

/* Of the probe's layer; `what` follows the names of what differs. */
static void compare_with_definition(attn_probe *p, const char *what)
{
    attn_verdict *v = &p->result->of[ATTN_PROPERTY_OUTPUT];
    attn_call training = attn_probe_call(p), inference = training;
    attn_oracle_call want;
    inputs in;
    if (!scaled_inputs(p, 1.0, 0.0, &in)) return;
    if (!attn_probe_oracle(p, in.x, in.memory, true, (attn_rounding){0}, &want)) return;
    if (!attn_probe_forward(p, p->context, &training, true)) return;
    if (!attn_probe_forward(p, p->context, &inference, false)) return;
    attn_verdict_error(v,
                       attn_relative_error(p->n, attn_singles(training.y), attn_reals(want.y), 0.0),
                       p->within.y, "y%s", what);
    attn_verdict_error(
        v, attn_relative_error(p->n, attn_singles(inference.y), attn_reals(want.y), 0.0),
        p->within.y, "y of inference%s", what);
    if (attn_probe_backward(p, p->context, &training)) compare_gradients(p, &training, &want, what);
}

/* ---- empty rows -------------------------------------------------------------------------- */

static void hide_from_every_third(void *user, size_t head, size_t query, size_t key, size_t count,
                                  bool *seen)
{
    (void)user;
    (void)head;
    (void)key;
    if (query % 3 == 1) memset(seen, 0, count * sizeof *seen);
}

/* Causal rows see themselves: only a mask of the caller's own leaves one empty, and flex alone
 * takes such masks. */
static bool can_have_empty_rows(const attn_layer *layer)
{
    return strcmp(layer->name, "flex") == 0 && !layer->flex.mask;
}

void attn_check_definition(attn_probe *p)
{
    compare_with_definition(p, "");
    if (!can_have_empty_rows(p->layer) || p->status != ATTN_OK) return;
    const attn_layer *const whole = p->layer;
    attn_layer with_empty_rows = *whole;
    with_empty_rows.flex.mask = hide_from_every_third;
    p->layer = &with_empty_rows;
    compare_with_definition(p, ", with empty rows");
    p->layer = whole;
}

/* ---- extreme inputs ---------------------------------------------------------------------- */

/* Scores grow with the square of the scale: at 256 they are tens of thousands, of either sign, so
 * that every row of exponentials overflows, or vanishes, unless its maximum is taken off first.
 * Where the definition itself leaves float64, the next scale is tried. */
static const double scales[] = {256.0, 64.0, 16.0, 4.0};

/* Rounding x to float32 moves y by some amount even in exact arithmetic: where two scores nearly
 * tie, by much or by little as it happens to fall, so that several roundings are looked at. A
 * float32 computation rounds some more times than once. */
static const double rounding_unit = 0x1p-23, roundings = 16.0;
enum { WOBBLES = 4 };

static bool extreme_truth(attn_probe *p, double scale, attn_oracle_call *want, double *tolerance)
{
    const bool is_half = p->layer->dtype == ATTN_BF16;
    double moved = 0.0;
    inputs in;
    if (!scaled_inputs(p, scale, 0.0, &in)) return false;
    if (!attn_probe_oracle(p, in.x, in.memory, false, (attn_rounding){0}, want)) return false;
    if (!all_finite(p->n, attn_reals(want->y))) return false;
    for (size_t i = 0; i < WOBBLES; i++) {
        const attn_rounding rounding = {is_half ? ATTN_ROUND_RANDOMLY : ATTN_ROUND_NOT, i};
        attn_oracle_call other;
        if (!scaled_inputs(p, scale, rounding_unit, &in)) return false;
        if (!attn_probe_oracle(p, in.x, in.memory, false, rounding, &other)) return false;
        moved += attn_relative_error(p->n, attn_reals(other.y), attn_reals(want->y), 0.0) / WOBBLES;
    }
    *tolerance = ATTN_TOLERANCE_F32 + (is_half ? ATTN_BF16_DEVIATIONS : roundings) * moved;
    return true;
}

static void compare_extreme(attn_probe *p, double scale, const double *want, double tolerance)
{
    attn_verdict *v = &p->result->of[ATTN_PROPERTY_EXTREME];
    const size_t n_memory = memory_count(p);
    float *x = attn_probe_floats(p, p->n, "x");
    float *memory = attn_probe_floats(p, n_memory, "memory");
    attn_call call = attn_probe_call(p);
    if (!x || !memory) return;
    for (size_t i = 0; i < p->n; i++) x[i] = (float)scale * p->x[i];
    for (size_t i = 0; i < n_memory; i++) memory[i] = (float)scale * p->memory[i];
    call.x = x;
    if (p->memory) call.memory = memory;
    p->is_extreme = true;
    if (!attn_probe_forward(p, p->context, &call, true)) return;
    attn_verdict_error(v, attn_relative_error(p->n, attn_singles(call.y), attn_reals(want), 0.0),
                       tolerance, "y of inputs times %g", scale);
    if (!attn_probe_backward(p, p->context, &call)) return;
    attn_verdict_that(v, all_finite(p->n, attn_singles(call.dx)),
                      "dx of inputs times %g is not finite", scale);
    for (size_t i = 0; i < p->layer->n_parameters; i++) {
        const attn_parameter *q = &p->layer->parameters[i];
        if (q->is_trained)
            attn_verdict_that(v, all_finite(q->count, attn_singles(call.gradients + q->offset)),
                              "gradient of %s with inputs times %g is not finite", q->name, scale);
    }
}

void attn_check_extreme(attn_probe *p)
{
    attn_oracle_call want;
    double tolerance = 0.0;
    for (size_t i = 0; i < sizeof scales / sizeof *scales && p->status == ATTN_OK; i++)
        if (extreme_truth(p, scales[i], &want, &tolerance)) {
            compare_extreme(p, scales[i], want.y, tolerance);
            return;
        }
    attn_verdict_skip(&p->result->of[ATTN_PROPERTY_EXTREME],
                      "the float64 definition itself is not finite for large inputs");
}
