/* Energies are fitted relatively: a short probe counts as much as a long one. */
#include "cost/energy_fit.h"

#include "base/least_squares.h"

#include <math.h>

enum { PROBES_MAX = 64, KINDS = 5 };

static double left_of(const attn_equation *e, const attn_solution *s)
{
    double sum = -e->value;
    for (size_t k = 0; k < KINDS; k++) sum += e->factor[k] * s->x[k];
    return sum / e->value;
}

/* An unknown that comes out below 0 is 0, and the others are asked again. */
static bool solve(const attn_equation *equations, size_t count, attn_solution *s)
{
    double prior[KINDS] = {INFINITY, INFINITY, INFINITY, INFINITY, INFINITY};
    for (size_t round = 0; round < KINDS; round++) {
        if (!attn_least_squares(KINDS, count, equations, prior, s)) return false;
        size_t worst = 0;
        for (size_t k = 1; k < KINDS; k++)
            if (s->x[k] < s->x[worst]) worst = k;
        if (s->x[worst] >= 0.0) return true;
        prior[worst] = 0.0;
    }
    return false;
}

bool attn_energy_fit(const attn_energy_probe *probes, size_t count, attn_energy_constants *out)
{
    attn_equation equations[PROBES_MAX];
    attn_solution s;
    attn_quantity *const quantities[KINDS] = {&out->idle_w, &out->matmul_pj, &out->exponential_pj,
                                              &out->other_pj, &out->dram_pj};
    for (size_t k = 0; k < KINDS; k++) *quantities[k] = (attn_quantity){NAN, NAN, NAN};
    out->spread = NAN;
    if (count > PROBES_MAX) count = PROBES_MAX;
    for (size_t i = 0; i < count; i++) {
        const attn_energy_probe *p = &probes[i];
        if (!(p->energy_j > 0.0)) return false;
        equations[i] =
            (attn_equation){.factor = {p->time_s, 1e-12 * p->matmul, 1e-12 * p->exponential,
                                       1e-12 * p->other, 1e-12 * p->bytes},
                            .value = p->energy_j,
                            .error = p->energy_j};
    }
    if (!solve(equations, count, &s)) return false;
    double squares = 0.0;
    for (size_t i = 0; i < count; i++) squares += pow(left_of(&equations[i], &s), 2.0);
    const double freedom = fmax(1.0, (double)count - KINDS);
    out->spread = sqrt(squares / (double)count);
    for (size_t k = 0; k < KINDS; k++) {
        const double deviation = s.deviation[k] * sqrt(squares / freedom);
        const double width = fmax(2.0 * deviation, out->spread * s.x[k]);
        *quantities[k] = (attn_quantity){s.x[k], fmax(0.0, s.x[k] - width), s.x[k] + width};
    }
    return true;
}
