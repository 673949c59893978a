/* Slots of softmax and its gradients. The exponent x - shift is rounded once, which is a relative
 * error of u |x - shift| in its exponential; exp itself adds CHECK_EXP_ERROR. */
#include "check_kernels.h"

#include <math.h>
#include <string.h>

static double exp_bound(double exponent, double value)
{
    if (!isfinite(exponent)) return CHECK_EXP_FLOOR;
    return value * (CHECK_UNIT * fabs(exponent) + CHECK_EXP_ERROR) + CHECK_EXP_FLOOR;
}

/* A power of two of the running softmax and its bound; at the border it may be 0 or not. */
static double running_power(double exponent, double *bound)
{
    const double value = exp2(exponent), least = (double)ATTN_RUNNING_LEAST;
    *bound = exp_bound(exponent, value);
    if (exponent > least + 1e-4) return value;
    *bound = exponent < least - 1e-4 ? 0.0 : value;
    return exponent < least - 1e-4 ? 0.0 : value;
}

/* Scores of the kind that attention has: ordinary, wide apart, far below zero, hidden ones among
 * them. The shape's scale chooses, since every scale of numbers is one here. */
static float *scores(check_run *run, const check_shape *shape, size_t n)
{
    const bool is_ordinary = shape->scale == 1.0, is_low = shape->scale < 1.0;
    float *s = check_floats(run, n, shape->place);
    check_fill_normal(run, is_ordinary ? 2.0 : is_low ? 5.0 : 4000.0, n, s);
    for (size_t i = 0; i < n; i++) {
        if (is_low) s[i] -= 25000.0f;
        if (check_below(run, 7) == 0) s[i] = -INFINITY;
    }
    return s;
}

void check_slot_exp_shifted(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    float *start = scores(run, shape, n), *x[2];
    const float top = attn_kernels_ref.maximum(n, start), shift = isfinite(top) ? top : 0.5f;
    double sums[2];
    for (size_t variant = 0; variant < 2; variant++) {
        if (n && variant) start[check_below(run, n)] = NAN;
        for (size_t pass = 0; pass < 2; pass++) {
            x[pass] = check_copy(run, shape, n, start);
            sums[pass] = (double)check_table(run, pass)->exp_shifted(n, shift, x[pass]);
        }
        double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
        double total = 0.0, bound = 0.0;
        for (size_t i = 0; i < n; i++) {
            const double exponent = (double)start[i] - (double)shift;
            want[i] = exp(exponent);
            bounds[i] = exp_bound(exponent, want[i]);
            total += want[i];
            bound += bounds[i];
        }
        check_output(run, n, x[0], x[1], want, bounds, "exp");
        check_number(run, sums[0], sums[1], total, bound + (double)n * CHECK_UNIT * total, "sum");
    }
}

/* ---- online softmax ---------------------------------------------------------------------- */

enum { ROWS = 5 };

/* Row by row: seen before or not, the new tile hidden or not. */
static void start_rows(check_run *run, const check_shape *shape, size_t n, size_t row, float *s,
                       float *top, float *total)
{
    for (size_t i = 0; i < ROWS; i++) {
        const bool has_seen = i % 2 == 1;
        top[i] = has_seen ? (shape->scale < 1.0 ? -25010.0f : 1.5f) : -INFINITY;
        total[i] = has_seen ? 3.25f : 0.0f;
        for (size_t j = 0; i >= 3 && j < n; j++) s[i * row + j] = -INFINITY;
    }
    if (n && check_below(run, 3) == 0) s[2 * row + check_below(run, n)] = NAN;
}

void check_slot_online_softmax(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n, row = n + check_below(run, 3);
    const float factor = 0.35355338f;
    float *start = scores(run, shape, ROWS * row), first_top[ROWS], first_total[ROWS];
    start_rows(run, shape, n, row, start, first_top, first_total);
    float *s[2], *top[2], *total[2], *correction[2];
    for (size_t pass = 0; pass < 2; pass++) {
        s[pass] = check_copy(run, shape, ROWS * row, start);
        top[pass] = check_copy(run, shape, ROWS, first_top);
        total[pass] = check_copy(run, shape, ROWS, first_total);
        correction[pass] = check_floats(run, ROWS, shape->place);
        check_table(run, pass)->online_softmax(ROWS, n, factor, s[pass], row, top[pass],
                                               total[pass], correction[pass]);
    }
    double *want = check_doubles(run, ROWS * row), *bounds = check_doubles(run, ROWS * row);
    double want_total[ROWS], total_bounds[ROWS], want_correction[ROWS], correction_bounds[ROWS];
    float want_top[ROWS];
    for (size_t i = 0; i < ROWS; i++) {
        const float here = factor * attn_kernels_ref.maximum(n, start + i * row);
        const float c = here > first_top[i] ? here : first_top[i];
        const bool is_empty = c == -INFINITY;
        double sum = 0.0, bound = 0.0;
        for (size_t j = 0; j < row; j++) {
            const size_t at = i * row + j;
            const double exponent = (double)factor * (double)start[at] - (double)c;
            want[at] = j >= n ? (double)start[at] : exp(is_empty ? (double)start[at] : exponent);
            bounds[at] = j >= n ? 0.0 : exp_bound(exponent, want[at]);
            if (j < n) sum += want[at], bound += bounds[at];
        }
        const double down = is_empty ? 0.0 : (double)first_top[i] - (double)c;
        want_top[i] = c;
        want_correction[i] = exp(down);
        correction_bounds[i] = exp_bound(down, want_correction[i]);
        want_total[i] = want_correction[i] * (double)first_total[i] + sum;
        total_bounds[i] = bound + correction_bounds[i] * (double)first_total[i] +
                          (double)(n + 2) * CHECK_UNIT * want_total[i];
    }
    check_same_bits(run, ROWS, top[0], want_top, "top");
    check_output(run, ROWS * row, s[0], s[1], want, bounds, "probabilities");
    check_output(run, ROWS, correction[0], correction[1], want_correction, correction_bounds,
                 "correction");
    check_output(run, ROWS, total[0], total[1], want_total, total_bounds, "total");
}

/* Running: the differences of scores are exponents of 2. */
static void check_tile_gradient(check_run *run, const check_shape *shape, bool is_running)
{
    const size_t n = shape->n, row = n + check_below(run, 3), dp_row = n + check_below(run, 3);
    const float factor = 0.25f, delta[ROWS] = {0.5f, -2.0f, 0.0f, 1.0f, 3.0f};
    const float *s_start = scores(run, shape, ROWS * row);
    const float *dp_start = check_random(run, shape, ROWS * dp_row);
    float top[ROWS], *s[2], *dp[2];
    for (size_t i = 0; i < ROWS; i++)
        top[i] = factor * attn_kernels_ref.maximum(n, s_start + i * row);
    for (size_t i = 0; i < ROWS; i++)
        if (i == 2 || !isfinite(top[i])) top[i] = INFINITY; /* a row that saw nothing: P = 0 */
    for (size_t pass = 0; pass < 2; pass++) {
        s[pass] = check_copy(run, shape, ROWS * row, s_start);
        dp[pass] = check_copy(run, shape, ROWS * dp_row, dp_start);
        (is_running ? check_table(run, pass)->running_softmax_gradient
                    : check_table(run, pass)->online_softmax_gradient)(
            ROWS, n, factor, top, delta, s[pass], row, dp[pass], dp_row);
    }
    double *want_p = check_doubles(run, ROWS * row), *p_bounds = check_doubles(run, ROWS * row);
    double *want_dp = check_doubles(run, ROWS * dp_row),
           *dp_bounds = check_doubles(run, ROWS * dp_row);
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t j = n; j < row; j++) want_p[i * row + j] = (double)s_start[i * row + j];
        for (size_t j = n; j < dp_row; j++)
            want_dp[i * dp_row + j] = (double)dp_start[i * dp_row + j];
        for (size_t j = 0; j < n; j++) {
            const size_t at = i * row + j, dat = i * dp_row + j;
            const double exponent = (double)factor * (double)s_start[at] - (double)top[i];
            const double rest = (double)dp_start[dat] - (double)delta[i];
            want_p[at] = is_running ? running_power(exponent, &p_bounds[at]) : exp(exponent);
            if (!is_running) p_bounds[at] = exp_bound(exponent, want_p[at]);
            want_dp[dat] = want_p[at] * rest;
            dp_bounds[dat] =
                (p_bounds[at] + 3.0 * CHECK_UNIT * want_p[at]) * fabs(rest) + CHECK_TINY;
        }
    }
    check_output(run, ROWS * row, s[0], s[1], want_p, p_bounds, "p");
    check_output(run, ROWS * dp_row, dp[0], dp[1], want_dp, dp_bounds, "dp");
}

void check_slot_online_softmax_gradient(check_run *run, const check_shape *shape)
{
    check_tile_gradient(run, shape, false);
}

void check_slot_running_softmax_gradient(check_run *run, const check_shape *shape)
{
    check_tile_gradient(run, shape, true);
}

/* ---- running softmax --------------------------------------------------------------------- */

/* What a row should become: its reference, what the old sums are multiplied by, p and its sum. */
typedef struct running_row {
    float top;
    double down, down_bound, sum, sum_bound;
} running_row;

static running_row want_running_row(size_t n, float factor, float top, const float *s, double *want,
                                    double *bounds)
{
    const float largest = factor * attn_kernels_ref.maximum(n, s);
    const bool is_raised = largest - top > ATTN_RUNNING_ROOM;
    running_row row = {.top = is_raised ? largest : top, .down = 1.0};
    if (is_raised) {
        row.down = running_power((double)top - (double)largest, &row.down_bound);
    }
    for (size_t j = 0; j < n; j++) {
        const double exponent = (double)factor * (double)s[j] - (double)row.top;
        want[j] = running_power(exponent, &bounds[j]);
        row.sum += want[j];
        row.sum_bound += bounds[j];
    }
    return row;
}

/* The sums of rows 1 and 3 are not zero: they have seen something. Row 1 has a reference that
 * ordinary scores do not raise, and those of thousands do. */
void check_slot_running_softmax(check_run *run, const check_shape *shape)
{
    enum { WIDTH = 19, SUMS = ROWS * ATTN_RUNNING_SUMS };
    const size_t n = shape->n, row = n + check_below(run, 3), o_row = WIDTH + check_below(run, 3);
    const float factor = 0.35355338f;
    float *start = scores(run, shape, ROWS * row), first_top[ROWS], seen[ROWS];
    start_rows(run, shape, n, row, start, first_top, seen);
    float *first_o = check_floats(run, ROWS * o_row, shape->place);
    float *first_total = check_floats(run, SUMS, shape->place);
    check_fill_normal(run, 1.0, ROWS * o_row, first_o);
    for (size_t i = 0; i < ROWS; i++) {
        if (first_top[i] == -INFINITY) first_top[i] = ATTN_RUNNING_START;
        for (size_t j = 0; j < ATTN_RUNNING_SUMS; j++)
            first_total[i * ATTN_RUNNING_SUMS + j] = j == 0 ? seen[i] : 0.0f;
        for (size_t j = 0; seen[i] == 0.0f && j < o_row; j++) first_o[i * o_row + j] = 0.0f;
    }
    float *s[2], *top[2], *total[2], *o[2], sums[2][ROWS];
    for (size_t pass = 0; pass < 2; pass++) {
        s[pass] = check_copy(run, shape, ROWS * row, start);
        top[pass] = check_copy(run, shape, ROWS, first_top);
        total[pass] = check_copy(run, shape, SUMS, first_total);
        o[pass] = check_copy(run, shape, ROWS * o_row, first_o);
        const attn_running_rows state = {top[pass], total[pass], o[pass], o_row, WIDTH, false};
        check_table(run, pass)->running_softmax(ROWS, n, factor, s[pass], row, &state);
        for (size_t i = 0; i < ROWS; i++)
            sums[pass][i] =
                attn_kernels_ref.sum(ATTN_RUNNING_SUMS, total[pass] + i * ATTN_RUNNING_SUMS);
    }
    double *want = check_doubles(run, ROWS * row), *bounds = check_doubles(run, ROWS * row);
    double *want_o = check_doubles(run, ROWS * o_row), *o_bounds = check_doubles(run, ROWS * o_row);
    double want_total[ROWS], total_bounds[ROWS];
    float want_top[ROWS];
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t j = n; j < row; j++) want[i * row + j] = (double)start[i * row + j];
        const running_row r = want_running_row(n, factor, first_top[i], start + i * row,
                                               want + i * row, bounds + i * row);
        want_top[i] = r.top;
        want_total[i] = r.down * (double)seen[i] + r.sum;
        total_bounds[i] = r.sum_bound + r.down_bound * (double)seen[i] +
                          (double)(n + ATTN_RUNNING_SUMS) * CHECK_UNIT * want_total[i];
        for (size_t j = 0; j < o_row; j++) {
            const double before = (double)first_o[i * o_row + j];
            want_o[i * o_row + j] = j < WIDTH ? r.down * before : before;
            if (j < WIDTH && r.down_bound > 0.0)
                o_bounds[i * o_row + j] =
                    (r.down_bound + CHECK_UNIT * r.down) * fabs(before) + CHECK_TINY;
        }
    }
    check_same_bits(run, ROWS, top[0], want_top, "top");
    check_output(run, ROWS * row, s[0], s[1], want, bounds, "probabilities");
    check_output(run, ROWS * o_row, o[0], o[1], want_o, o_bounds, "sum of values");
    check_output(run, ROWS, sums[0], sums[1], want_total, total_bounds, "total");
}

void check_slot_softmax_gradient(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    const float factor = 0.125f, delta = 0.3f;
    const float *p = check_random(run, shape, n), *dp = check_random(run, shape, n);
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    for (size_t i = 0; i < n; i++) {
        want[i] = (double)factor * (double)p[i] * ((double)dp[i] - (double)delta);
        bounds[i] = 3.0 * CHECK_UNIT * fabs(want[i]) + CHECK_TINY;
    }
    for (size_t in_place = 0; in_place < 2; in_place++) { /* ds may be dp */
        float *ds[2];
        for (size_t pass = 0; pass < 2; pass++) {
            ds[pass] =
                in_place ? check_copy(run, shape, n, dp) : check_floats(run, n, shape->place);
            check_table(run, pass)->softmax_gradient(n, factor, p, in_place ? ds[pass] : dp, delta,
                                                     ds[pass]);
        }
        check_output(run, n, ds[0], ds[1], want, bounds, "ds");
    }
}

/* ---- loss -------------------------------------------------------------------------------- */

void check_slot_cross_entropy(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n ? shape->n : 1, target = check_below(run, n);
    float *start = check_floats(run, n, shape->place);
    check_fill_normal(run, shape->scale == 1.0 ? 2.0 : shape->scale < 1.0 ? 0.01 : 30.0, n, start);
    const double top = (double)attn_kernels_ref.maximum(n, start);
    double total = 0.0, total_bound = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double e = exp((double)start[i] - top);
        total += e;
        total_bound += exp_bound((double)start[i] - top, e);
    }
    const double relative = total_bound / total + (double)n * CHECK_UNIT;
    const double gap = (double)start[target] - top, loss = log(total) - gap;
    const float factors[] = {0.0f, 0.7f};
    for (size_t k = 0; k < 2; k++) {
        const double factor = (double)factors[k];
        float *x[2];
        double losses[2];
        for (size_t pass = 0; pass < 2; pass++) {
            x[pass] = check_copy(run, shape, n, start);
            losses[pass] =
                check_table(run, pass)->cross_entropy(n, x[pass], target, factors[k], NULL);
        }
        check_number(run, losses[0], losses[1], loss,
                     relative + CHECK_UNIT * fabs(gap) + 1e-14 * fabs(loss), "loss");
        if (k == 0) {
            check_same_bits(run, n, x[0], start, "logits without a gradient");
            continue;
        }
        double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
        for (size_t i = 0; i < n; i++) {
            const double e = exp((double)start[i] - top), p = e / total;
            want[i] = factor * (p - (i == target ? 1.0 : 0.0));
            bounds[i] = factor * (exp_bound((double)start[i] - top, e) / total +
                                  p * (relative + 4.0 * CHECK_UNIT)) +
                        2.0 * CHECK_UNIT * factor * (i == target ? 1.0 : 0.0) + CHECK_EXP_FLOOR;
        }
        check_output(run, n, x[0], x[1], want, bounds, "gradient of the logits");
        float *again = check_copy(run, shape, n, start);
        attn_bf16 *half = check_halves(run, n, shape->place);
        attn_bf16 *rounded = check_halves(run, n, shape->place);
        const double same = run->kernels->cross_entropy(n, again, target, factors[k], half);
        run->kernels->bf16_from_float(n, x[0], rounded);
        check_that(run, same == losses[0] && memcmp(half, rounded, n * sizeof *half) == 0,
                   "loss and gradient in bfloat16");
    }
}
