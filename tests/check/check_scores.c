/* Slots of score functions. */
#include "check_kernels.h"

#include <math.h>

void check_slot_add_ramp(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    const float *start = check_random(run, shape, n);
    const float factor = 0.125f, step = 0.63f, first = -1000.0f;
    float *s[2];
    for (size_t pass = 0; pass < 2; pass++) {
        s[pass] = check_copy(run, shape, n, start);
        check_table(run, pass)->add_ramp(n, factor, step, first, s[pass]);
    }
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    for (size_t j = 0; j < n; j++) {
        const double scaled = (double)factor * (double)start[j];
        const double ramp = (double)step * ((double)first + (double)j);
        want[j] = scaled + ramp;
        bounds[j] = CHECK_UNIT * (fabs(scaled) + fabs(want[j])) + CHECK_TINY;
    }
    check_output(run, n, s[0], s[1], want, bounds, "s");
}

/* Arguments around 0, ordinary ones, and far out where tanh is 1. */
void check_slot_softcap(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    const float factor = 0.125f, cap = 5.0f;
    float *start = check_floats(run, n, shape->place);
    check_fill_normal(run, shape->scale == 1.0 ? 60.0 : shape->scale < 1.0 ? 1e-3 : 3e4, n, start);
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    double *slopes = check_doubles(run, n), *slope_bounds = check_doubles(run, n);
    for (size_t j = 0; j < n; j++) {
        const double t = tanh((double)factor * (double)start[j] / (double)cap);
        want[j] = (double)cap * t;
        bounds[j] = fabs(want[j]) * 12.0 * CHECK_UNIT + CHECK_TINY;
        slopes[j] = 1.0 - t * t;
        slope_bounds[j] = 24.0 * CHECK_UNIT;
    }
    for (size_t wants_slope = 0; wants_slope < 2; wants_slope++) {
        float *s[2], *slope[2];
        for (size_t pass = 0; pass < 2; pass++) {
            s[pass] = check_copy(run, shape, n, start);
            slope[pass] = wants_slope ? check_floats(run, n, shape->place) : NULL;
            check_table(run, pass)->softcap(n, factor, cap, s[pass], slope[pass]);
        }
        check_output(run, n, s[0], s[1], want, bounds, "s");
        if (wants_slope) check_output(run, n, slope[0], slope[1], slopes, slope_bounds, "slope");
    }
}
