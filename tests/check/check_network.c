/* Slots of the network around attention: layer norm, activations, AdamW. */
#include "check_kernels.h"

#include <math.h>

/* ---- layer norm -------------------------------------------------------------------------- */

/* The mean is off by up to (n + 1) u avg|x|; that shifts every x - mean, and the variance by its
 * square. The reciprocal deviation has half the variance's relative error and four roundings. */
void check_slot_layer_norm(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n ? shape->n : 1;
    const double u = CHECK_UNIT, count = (double)n, epsilon = 1e-5;
    const float *gain = check_random(run, &(check_shape){n, shape->place, 1.0}, n);
    const float *bias = check_random(run, &(check_shape){n, shape->place, 1.0}, n);
    float *x = check_random(run, shape, n), *y[2], mean[2], inverse[2];
    for (size_t i = 0; i < n; i++) x[i] += (float)(3.0 * shape->scale); /* not centred */
    for (size_t pass = 0; pass < 2; pass++) {
        y[pass] = check_floats(run, n, shape->place);
        check_table(run, pass)->layer_norm(n, (float)epsilon, x, gain, bias, y[pass], &mean[pass],
                                           &inverse[pass]);
    }
    double sum = 0.0, sizes = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i], sizes += fabs((double)x[i]);
    const double mu = sum / count, mu_bound = (count + 1.0) * u * sizes / count;
    for (size_t i = 0; i < n; i++) squares += ((double)x[i] - mu) * ((double)x[i] - mu);
    const double spread = squares / count + (double)(float)epsilon, r = 1.0 / sqrt(spread);
    const double r_bound = r * (0.5 * (mu_bound * mu_bound / spread + (count + 3.0) * u) + 4.0 * u);
    check_number(run, (double)mean[0], (double)mean[1], mu, mu_bound + CHECK_TINY, "mean");
    check_number(run, (double)inverse[0], (double)inverse[1], r, r_bound, "inverse deviation");
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    for (size_t i = 0; i < n; i++) {
        const double d = (double)x[i] - mu, g = fabs((double)gain[i]), b = fabs((double)bias[i]);
        want[i] = d * r * (double)gain[i] + (double)bias[i];
        bounds[i] =
            g * ((mu_bound + u * fabs(d)) * r + (fabs(d) + mu_bound) * (r_bound + 3.0 * u * r)) +
            2.0 * u * b + CHECK_TINY;
    }
    check_output(run, n, y[0], y[1], want, bounds, "y");
}

void check_slot_layer_norm_gradient(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n ? shape->n : 1;
    const double u = CHECK_UNIT, count = (double)n;
    const check_shape ordinary = {n, shape->place, 1.0};
    const float *x = check_random(run, &ordinary, n), *gain = check_random(run, &ordinary, n);
    const float *dy = check_random(run, shape, n), *start[3];
    const float mean = 0.125f, inverse = 0.8f;
    float *out[3][2]; /* dx, dgain, dbias */
    for (size_t k = 0; k < 3; k++) {
        start[k] = check_random(run, shape, n);
        for (size_t pass = 0; pass < 2; pass++) out[k][pass] = check_copy(run, shape, n, start[k]);
    }
    for (size_t pass = 0; pass < 2; pass++)
        check_table(run, pass)->layer_norm_gradient(n, x, gain, mean, inverse, dy, out[0][pass],
                                                    out[1][pass], out[2][pass]);
    const double mu = (double)mean, r = (double)inverse;
    double mean_g = 0.0, mean_gx = 0.0, size_g = 0.0, size_gx = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double g = (double)gain[i] * (double)dy[i], gx = g * ((double)x[i] - mu) * r;
        mean_g += g / count, size_g += fabs(g) / count;
        mean_gx += gx / count, size_gx += fabs(gx) / count;
    }
    double *want[3], *bounds[3];
    for (size_t k = 0; k < 3; k++)
        want[k] = check_doubles(run, n), bounds[k] = check_doubles(run, n);
    for (size_t i = 0; i < n; i++) {
        const double x_hat = ((double)x[i] - mu) * r, d = (double)dy[i], g = (double)gain[i] * d;
        const double s0 = (double)start[0][i], s1 = (double)start[1][i], s2 = (double)start[2][i];
        want[0][i] = s0 + (g - mean_g - x_hat * mean_gx) * r;
        want[1][i] = s1 + d * x_hat;
        want[2][i] = s2 + d;
        const double terms = fabs(g) + fabs(mean_g) + fabs(x_hat * mean_gx);
        const double means = (count + 3.0) * u * size_g + (count + 6.0) * u * size_gx * fabs(x_hat);
        bounds[0][i] = r * (8.0 * u * terms + means) + 2.0 * u * fabs(s0) + CHECK_TINY;
        bounds[1][i] = 5.0 * u * fabs(d * x_hat) + u * fabs(s1) + CHECK_TINY;
        bounds[2][i] = u * (fabs(s2) + fabs(d)) + CHECK_TINY;
    }
    static const char *const names[] = {"dx", "dgain", "dbias"};
    for (size_t k = 0; k < 3; k++)
        check_output(run, n, out[k][0], out[k][1], want[k], bounds[k], names[k]);
}

/* ---- activations ------------------------------------------------------------------------- */

/* Arguments of an activation: ordinary, tiny, or up to hundreds, with a NaN among the last. */
static float *arguments(check_run *run, const check_shape *shape)
{
    float *x = check_floats(run, shape->n, shape->place);
    const bool is_wide = shape->scale > 1.0;
    check_fill_normal(run, shape->scale < 1.0 ? 1e-15 : is_wide ? 200.0 : 2.0, shape->n, x);
    if (is_wide && shape->n) x[check_below(run, shape->n)] = NAN;
    return x;
}

/* GELU's gate s = 1 / (1 + exp(-w)), w = x (c1 + c3 x^2): w has four roundings, which s feels
 * times w (1 - s), and then exp, the sum and the quotient. */
typedef struct gate {
    double w, s, rest, bound, slope; /* rest = 1 - s; bound: relative; slope = dw/dx */
} gate;

static gate gate_of(double x)
{
    const double c1 = 1.5957691216057308, c3 = 0.07135481282952614;
    gate g = {.w = x * (c1 + c3 * x * x), .slope = c1 + 3.0 * c3 * x * x};
    g.s = 1.0 / (1.0 + exp(-g.w));
    g.rest = 1.0 / (1.0 + exp(g.w));
    g.bound = 5.0 * CHECK_UNIT * fabs(g.w) * g.rest + CHECK_EXP_ERROR + 3.0 * CHECK_UNIT;
    return g;
}

void check_slot_gelu(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    const float *x = arguments(run, shape);
    float *y[2];
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    for (size_t pass = 0; pass < 2; pass++) {
        y[pass] = check_floats(run, n, shape->place);
        check_table(run, pass)->gelu(n, x, y[pass]);
    }
    for (size_t i = 0; i < n; i++) {
        const double xi = (double)x[i];
        const gate g = gate_of(xi);
        want[i] = xi * g.s;
        bounds[i] = fabs(want[i]) * (g.bound + CHECK_UNIT) + CHECK_EXP_FLOOR * (1.0 + fabs(xi));
    }
    check_output(run, n, y[0], y[1], want, bounds, "y");
}

void check_slot_gelu_gradient(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    const float *x = arguments(run, shape);
    const float *dy = check_random(run, &(check_shape){n, shape->place, 1.0}, n);
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    for (size_t i = 0; i < n; i++) {
        const double xi = (double)x[i], d = (double)dy[i];
        const gate g = gate_of(xi);
        const double bend = fabs(xi * g.slope) * g.s; /* times 1 - s, which is off by s's error */
        want[i] = d * (g.s + xi * g.s * g.rest * g.slope);
        bounds[i] =
            fabs(d) * (g.s * (g.bound + 2.0 * CHECK_UNIT) + bend * (g.s * g.bound + CHECK_UNIT) +
                       bend * g.rest * (g.bound + 6.0 * CHECK_UNIT) +
                       CHECK_EXP_FLOOR * (1.0 + fabs(xi * g.slope)));
    }
    for (size_t in_place = 0; in_place < 2; in_place++) {
        float *dx[2], *y = in_place ? check_floats(run, n, shape->place) : NULL;
        float *same = check_floats(run, n, shape->place);
        for (size_t pass = 0; pass < 2; pass++) {
            dx[pass] =
                in_place ? check_copy(run, shape, n, dy) : check_floats(run, n, shape->place);
            check_table(run, pass)->gelu_gradient(n, x, in_place ? dx[pass] : dy, dx[pass], y);
            check_table(run, pass)->gelu(n, x, same);
            if (y) check_same_bits(run, n, y, same, "y beside dx");
        }
        check_output(run, n, dx[0], dx[1], want, bounds, "dx");
    }
}

void check_slot_elu_plus_one(check_run *run, const check_shape *shape)
{
    enum { ROWS = 2 };
    const size_t n = shape->n, all = ROWS * n, gap = check_below(run, 2) * 3;
    float *x = check_random(run, shape, ROWS * (n + gap)), *y[2];
    if (n > 3) x[check_below(run, n)] = -INFINITY, x[check_below(run, n)] = 0.0f;
    const bool is_below = check_below(run, 2); /* row 1 */
    for (size_t i = 0; is_below && i < n; i++) x[n + gap + i] = -fabsf(x[n + gap + i]) - 1e-30f;
    double *want = check_doubles(run, all), *bounds = check_doubles(run, all);
    bool any[ROWS] = {false};
    for (size_t i = 0; i < all; i++) {
        const double xi = (double)x[i / n * (n + gap) + i % n];
        want[i] = xi > 0.0 ? xi + 1.0 : exp(xi);
        bounds[i] = want[i] * CHECK_EXP_ERROR + CHECK_EXP_FLOOR;
        any[i / n] = any[i / n] || xi >= 0.0;
    }
    for (size_t pass = 0; pass < 2; pass++) {
        y[pass] = check_floats(run, all, shape->place);
        const bool each = check_table(run, pass)->elu_plus_one(ROWS, n, x, n + gap, y[pass]);
        check_that(run, each == (any[0] && any[1]), "whether each row has a number not below 0");
    }
    check_output(run, all, y[0], y[1], want, bounds, "y");
}

/* y is phi(x) times a factor that differs from element to element. */
void check_slot_elu_plus_one_gradient(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    float *x = arguments(run, shape), *y = check_floats(run, n, shape->place);
    const float *dy = check_random(run, shape, n), *factors = check_random(run, shape, n);
    attn_kernels_ref.elu_plus_one(1, n, x, n, y);
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    for (size_t i = 0; i < n; i++) {
        const double xi = (double)x[i];
        y[i] *= factors[i];
        want[i] = (double)dy[i] * (double)y[i] / (xi > 0.0 ? xi + 1.0 : 1.0);
        bounds[i] = CHECK_UNIT * (xi > 0.0 ? 3.0 : 1.0) * fabs(want[i]) +
                    CHECK_TINY * (1.0 + fabs((double)dy[i]));
    }
    for (size_t in_place = 0; in_place < 2; in_place++) {
        float *dx[2];
        for (size_t pass = 0; pass < 2; pass++) {
            dx[pass] =
                in_place ? check_copy(run, shape, n, dy) : check_floats(run, n, shape->place);
            check_table(run, pass)->elu_plus_one_gradient(n, x, y, in_place ? dx[pass] : dy,
                                                          dx[pass]);
        }
        check_output(run, n, dx[0], dx[1], want, bounds, "dx");
    }
}

/* ---- AdamW ------------------------------------------------------------------------------- */

void check_slot_adamw(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    const double u = CHECK_UNIT;
    const attn_adamw_step step = {.learning_rate = 3e-3f,
                                  .beta1 = 0.9f,
                                  .beta2 = 0.95f,
                                  .epsilon = 1e-8f,
                                  .decay = 0.1f,
                                  .correction1 = 0.271f,
                                  .correction2 = 0.142625f,
                                  .gradient_scale = 0.5f};
    const check_shape ordinary = {n, shape->place, 1.0};
    const double scale = shape->scale;
    const check_shape gradients = {n, shape->place, scale > 1.0 ? 1e6 : scale < 1.0 ? 1e-8 : 1.0};
    const float *g = check_random(run, &gradients, n), *p0 = check_random(run, &ordinary, n);
    const float *m0 = check_random(run, &gradients, n);
    float *v0 = check_random(run, &gradients, n), *m[2], *v[2], *p[2];
    for (size_t i = 0; i < n; i++) v0[i] *= v0[i];
    for (size_t pass = 0; pass < 2; pass++) {
        m[pass] = check_copy(run, shape, n, m0);
        v[pass] = check_copy(run, shape, n, v0);
        p[pass] = check_copy(run, shape, n, p0);
        check_table(run, pass)->adamw(n, &step, g, m[pass], v[pass], p[pass]);
    }
    const double b1 = (double)step.beta1, b2 = (double)step.beta2;
    const double lr = (double)step.learning_rate, keep = 1.0 - lr * (double)step.decay;
    double *want[3], *bounds[3];
    for (size_t k = 0; k < 3; k++)
        want[k] = check_doubles(run, n), bounds[k] = check_doubles(run, n);
    for (size_t i = 0; i < n; i++) {
        const double gi = (double)step.gradient_scale * (double)g[i];
        const double m_old = b1 * (double)m0[i], m_new = (1.0 - b1) * gi;
        const double v_old = b2 * (double)v0[i], v_new = (1.0 - b2) * gi * gi;
        want[0][i] = m_old + m_new;
        bounds[0][i] = 4.0 * u * (fabs(m_old) + fabs(m_new)) + CHECK_TINY;
        want[1][i] = v_old + v_new;
        bounds[1][i] = 6.0 * u * (v_old + v_new) + CHECK_TINY;
        const double root = sqrt(want[1][i] / (double)step.correction2) + (double)step.epsilon;
        const double rate = lr / (double)step.correction1 / root, kept = keep * (double)p0[i];
        want[2][i] = kept - rate * want[0][i];
        bounds[2][i] =
            4.0 * u * fabs(kept) + rate * (bounds[0][i] + 14.0 * u * fabs(want[0][i])) + CHECK_TINY;
    }
    check_output(run, n, m[0], m[1], want[0], bounds[0], "m");
    check_output(run, n, v[0], v[1], want[1], bounds[1], "v");
    check_output(run, n, p[0], p[1], want[2], bounds[2], "p");
}
