/* Slots of gates and recurrences. */
#include "check_kernels.h"

#include <math.h>

/* Arguments of sigmoids: ordinary, near 0, and far out where they saturate. */
static float *gates(check_run *run, const check_shape *shape)
{
    float *x = check_floats(run, shape->n, shape->place);
    check_fill_normal(run,
                      shape->scale == 1.0  ? 3.0
                      : shape->scale < 1.0 ? 1e-3
                                           : 60.0,
                      shape->n, x);
    return x;
}

static void check_elementwise(check_run *run, const check_shape *shape, bool adds)
{
    const size_t n = shape->n;
    const float *a = check_random(run, shape, n), *start = check_random(run, shape, n);
    const float *b = check_random(run, &(check_shape){n, shape->place, 1.0}, n);
    float *y[2];
    for (size_t pass = 0; pass < 2; pass++) {
        const attn_kernels *kernels = check_table(run, pass);
        y[pass] = check_copy(run, shape, n, start);
        if (adds)
            kernels->add_product(n, a, b, y[pass]);
        else
            kernels->multiply(n, b, y[pass]);
    }
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    for (size_t i = 0; i < n; i++) {
        const double term = (double)b[i] * (double)(adds ? a[i] : start[i]);
        const double base = adds ? (double)start[i] : 0.0;
        want[i] = base + term;
        bounds[i] = CHECK_UNIT * (2.0 * fabs(term) + fabs(base)) + CHECK_TINY;
    }
    check_output(run, n, y[0], y[1], want, bounds, "y");
}

void check_slot_multiply(check_run *run, const check_shape *shape)
{
    check_elementwise(run, shape, false);
}

void check_slot_add_product(check_run *run, const check_shape *shape)
{
    check_elementwise(run, shape, true);
}

void check_slot_silu(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    const float *x = gates(run, shape);
    float *y[2];
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    for (size_t pass = 0; pass < 2; pass++) {
        y[pass] = check_floats(run, n, shape->place);
        check_table(run, pass)->silu(n, x, y[pass]);
    }
    for (size_t i = 0; i < n; i++) {
        const double xi = (double)x[i];
        want[i] = xi / (1.0 + exp(-xi));
        bounds[i] = fabs(want[i]) * (CHECK_EXP_ERROR + 3.0 * CHECK_UNIT) +
                    CHECK_EXP_FLOOR * (1.0 + fabs(xi));
    }
    check_output(run, n, y[0], y[1], want, bounds, "y");
}

/* dy times the slope, which is s + x s (1 - s) or 1 - s with s = sigmoid(x). */
static void check_slope(check_run *run, const check_shape *shape, bool is_silu)
{
    const size_t n = shape->n;
    const float *x = gates(run, shape);
    const float *dy = check_random(run, &(check_shape){n, shape->place, 1.0}, n);
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    for (size_t i = 0; i < n; i++) {
        const double xi = (double)x[i], d = (double)dy[i];
        const double s = 1.0 / (1.0 + exp(-xi)), rest = 1.0 / (1.0 + exp(xi));
        const double relative = CHECK_EXP_ERROR + 3.0 * CHECK_UNIT;
        want[i] = is_silu ? d * (s + xi * s * rest) : d * rest;
        /* 1 - s is off by the error of s */
        bounds[i] = is_silu ? fabs(d) * ((s + fabs(xi) * s * rest) * (relative + 4.0 * CHECK_UNIT) +
                                         fabs(xi) * s * s * (relative + CHECK_UNIT))
                            : fabs(d) * rest * relative;
        bounds[i] += CHECK_EXP_FLOOR * (1.0 + fabs(xi)) * (1.0 + fabs(d));
    }
    for (size_t in_place = 0; in_place < 2; in_place++) {
        float *dx[2];
        for (size_t pass = 0; pass < 2; pass++) {
            const attn_kernels *kernels = check_table(run, pass);
            dx[pass] =
                in_place ? check_copy(run, shape, n, dy) : check_floats(run, n, shape->place);
            const float *from = in_place ? dx[pass] : dy;
            if (is_silu)
                kernels->silu_gradient(n, x, from, dx[pass]);
            else
                kernels->log_sigmoid_gradient(n, x, from, dx[pass]);
        }
        check_output(run, n, dx[0], dx[1], want, bounds, "dx");
    }
}

void check_slot_silu_gradient(check_run *run, const check_shape *shape)
{
    check_slope(run, shape, true);
}

void check_slot_log_sigmoid_gradient(check_run *run, const check_shape *shape)
{
    check_slope(run, shape, false);
}

void check_slot_log_sigmoid(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    float *x = gates(run, shape);
    if (n > 3) x[check_below(run, n)] = -1e30f, x[check_below(run, n)] = 0.0f;
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    for (size_t i = 0; i < n; i++) {
        const double xi = (double)x[i], e = log1p(exp(-fabs(xi)));
        want[i] = (xi < 0.0 ? xi : 0.0) - e;
        bounds[i] =
            e * (CHECK_EXP_ERROR + 6.0 * CHECK_UNIT) + CHECK_UNIT * fabs(want[i]) + CHECK_EXP_FLOOR;
    }
    for (size_t in_place = 0; in_place < 2; in_place++) {
        float *y[2];
        for (size_t pass = 0; pass < 2; pass++) {
            y[pass] = in_place ? check_copy(run, shape, n, x) : check_floats(run, n, shape->place);
            check_table(run, pass)->log_sigmoid(n, in_place ? y[pass] : x, y[pass]);
        }
        check_output(run, n, y[0], y[1], want, bounds, "y");
    }
}

void check_slot_rotate(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    const float *x = check_random(run, shape, 2 * n);
    float *cosine = check_floats(run, n, shape->place), *sine = check_floats(run, n, shape->place);
    check_fill_normal(run, 3.0, n, cosine);
    for (size_t i = 0; i < n; i++) {
        sine[i] = sinf(cosine[i]);
        cosine[i] = cosf(cosine[i]);
    }
    for (size_t variant = 0; variant < 4; variant++) {
        const float sign = variant & 1 ? -1.0f : 1.0f;
        double *want = check_doubles(run, 2 * n), *bounds = check_doubles(run, 2 * n);
        for (size_t i = 0; i < n; i++) {
            const double u = (double)x[i], w = (double)x[i + n];
            const double c = (double)cosine[i], s = (double)sign * (double)sine[i];
            want[i] = u * c - w * s;
            want[i + n] = w * c + u * s;
            bounds[i] = 2.0 * CHECK_UNIT * (fabs(u * c) + fabs(w * s)) + CHECK_TINY;
            bounds[i + n] = 2.0 * CHECK_UNIT * (fabs(w * c) + fabs(u * s)) + CHECK_TINY;
        }
        float *y[2];
        for (size_t pass = 0; pass < 2; pass++) {
            const bool in_place = variant & 2;
            y[pass] = in_place ? check_copy(run, shape, 2 * n, x)
                               : check_floats(run, 2 * n, shape->place);
            check_table(run, pass)->rotate(n, cosine, sine, sign, in_place ? y[pass] : x, y[pass]);
        }
        check_output(run, 2 * n, y[0], y[1], want, bounds, "y");
    }
}
