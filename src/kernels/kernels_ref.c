/* The plain meaning of every slot: scalar C, one rounding per operation, sums in order. The
 * vector versions are checked against this table and against float64. */
#include "kernels/bf16_cells.h"
#include "kernels/kernels.h"

#include <math.h>

static void product(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_column,
                    const float *b, size_t b_row, float *c, size_t c_row, bool accumulate)
{
    for (size_t i = 0; i < m; i++) {
        float *ci = c + i * c_row;
        if (!accumulate)
            for (size_t j = 0; j < n; j++) ci[j] = 0.0f;
        for (size_t p = 0; p < k; p++) {
            const float aip = a[i * a_row + p * a_column];
            const float *bp = b + p * b_row;
            for (size_t j = 0; j < n; j++) ci[j] += aip * bp[j];
        }
    }
}

static void product_asking(size_t m, size_t n, size_t k, const float *a, size_t a_row,
                           size_t a_column, const float *b, size_t b_row, float *c, size_t c_row,
                           bool accumulate, const float *const *asked)
{
    (void)asked;
    product(m, n, k, a, a_row, a_column, b, b_row, c, c_row, accumulate);
}

static void product_double(size_t m, size_t n, size_t k, const double *a, size_t a_row,
                           size_t a_column, const double *b, size_t b_row, double *c, size_t c_row,
                           bool accumulate)
{
    for (size_t i = 0; i < m; i++) {
        double *ci = c + i * c_row;
        if (!accumulate)
            for (size_t j = 0; j < n; j++) ci[j] = 0.0;
        for (size_t p = 0; p < k; p++) {
            const double aip = a[i * a_row + p * a_column];
            const double *bp = b + p * b_row;
            for (size_t j = 0; j < n; j++) ci[j] += aip * bp[j];
        }
    }
}

static void transpose(size_t rows, size_t columns, const float *in, size_t in_row, float *out,
                      size_t out_row)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) out[j * out_row + i] = in[i * in_row + j];
}

static void copy_rows(size_t rows, size_t n, float factor, const float *factors, const float *from,
                      size_t from_row, float *to, size_t to_row)
{
    for (size_t i = 0; i < rows; i++) {
        const float by = factors ? factor * factors[i] : factor;
        for (size_t j = 0; j < n; j++) to[i * to_row + j] = by * from[i * from_row + j];
    }
}

static void round_rows(size_t rows, size_t n, float factor, const float *factors, const float *from,
                       size_t from_row, attn_bf16 *to, size_t to_row)
{
    for (size_t i = 0; i < rows; i++) {
        const float by = factors ? factor * factors[i] : factor;
        for (size_t j = 0; j < n; j++)
            to[i * to_row + j] = attn_bf16_from_float(by * from[i * from_row + j]);
    }
}

static float maximum(size_t n, const float *x)
{
    float m = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (x[i] > m) m = x[i];
    return m;
}

static float sum(size_t n, const float *x)
{
    float s = 0.0f;
    for (size_t i = 0; i < n; i++) s += x[i];
    return s;
}

static double dot_double(size_t n, const float *x, const float *y)
{
    double s = 0.0;
    for (size_t i = 0; i < n; i++) s += (double)x[i] * (double)y[i];
    return s;
}

static double sum_squares(size_t n, const float *x)
{
    return dot_double(n, x, x);
}

static float dot(size_t n, const float *x, const float *y)
{
    float s = 0.0f;
    for (size_t i = 0; i < n; i++) s += x[i] * y[i];
    return s;
}

static float far_number(attn_far_rows y, size_t row, size_t at)
{
    return y.half ? attn_bf16_to_float(y.half[row * y.row + at]) : y.single[row * y.row + at];
}

static void dot_rows(size_t m, size_t rows, size_t n, const float *x, size_t x_row, attn_far_rows y,
                     float *out, size_t out_row)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < rows; j++) {
            float s = 0.0f;
            for (size_t p = 0; p < n; p++) s += x[i * x_row + p] * far_number(y, j, p);
            out[i * out_row + j] = s;
        }
}

static void weigh_rows(size_t m, size_t rows, size_t n, const float *w, size_t w_row,
                       attn_far_rows y, float *out, size_t out_row)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < rows; j++)
            for (size_t p = 0; p < n; p++)
                out[i * out_row + p] += w[i * w_row + j] * far_number(y, j, p);
}

static void add(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

static void add_scaled(size_t n, float a, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] += a * x[i];
}

static void scale(size_t n, float a, float *x)
{
    for (size_t i = 0; i < n; i++) x[i] *= a;
}

static float exp_shifted(size_t n, float shift, float *x)
{
    float s = 0.0f;
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - shift);
        s += x[i];
    }
    return s;
}

static void online_softmax(size_t rows, size_t n, float factor, float *s, size_t s_row, float *top,
                           float *total, float *correction)
{
    for (size_t i = 0; i < rows; i++) {
        float *si = s + i * s_row;
        const float here = factor * maximum(n, si), c = here > top[i] ? here : top[i];
        const bool is_empty = c == -INFINITY;
        float row_sum = 0.0f;
        for (size_t j = 0; j < n; j++) {
            if (!is_empty)
                si[j] = expf(fmaf(factor, si[j], -c));
            else if (si[j] == -INFINITY)
                si[j] = 0.0f; /* else NaN, and stays */
            row_sum += si[j];
        }
        correction[i] = is_empty ? 1.0f : expf(top[i] - c);
        total[i] = correction[i] * total[i] + row_sum;
        top[i] = c;
    }
}

static void online_softmax_gradient(size_t rows, size_t n, float factor, const float *top,
                                    const float *delta, float *s, size_t s_row, float *dp,
                                    size_t dp_row)
{
    for (size_t i = 0; i < rows; i++) {
        float *si = s + i * s_row, *di = dp + i * dp_row;
        for (size_t j = 0; j < n; j++) {
            si[j] = expf(fmaf(factor, si[j], -top[i]));
            di[j] = si[j] * (di[j] - delta[i]);
        }
    }
}

static float power_of_two(float x)
{
    return x < (float)ATTN_RUNNING_LEAST ? 0.0f : exp2f(x);
}

static void running_softmax(size_t rows, size_t n, float factor, float *s, size_t s_row,
                            const attn_running_rows *state)
{
    for (size_t i = 0; i < rows; i++) {
        float *si = s + i * s_row, *top = &state->top[i];
        const float largest = factor * maximum(n, si);
        if (largest - *top > ATTN_RUNNING_ROOM) {
            const float next = state->has_whole_tops ? ceilf(largest) : largest;
            const float down = power_of_two(*top - next);
            scale(ATTN_RUNNING_SUMS, down, state->total + i * ATTN_RUNNING_SUMS);
            scale(state->width, down, state->o + i * state->o_row);
            *top = next;
        }
        for (size_t j = 0; j < n; j++) {
            si[j] = power_of_two(fmaf(factor, si[j], -*top));
            state->total[i * ATTN_RUNNING_SUMS] += si[j];
        }
    }
}

static void running_softmax_gradient(size_t rows, size_t n, float factor, const float *top,
                                     const float *delta, float *s, size_t s_row, float *dp,
                                     size_t dp_row)
{
    for (size_t i = 0; i < rows; i++) {
        float *si = s + i * s_row, *di = dp + i * dp_row;
        for (size_t j = 0; j < n; j++) {
            si[j] = power_of_two(fmaf(factor, si[j], -top[i]));
            di[j] = si[j] * (di[j] - delta[i]);
        }
    }
}

static void add_ramp(size_t n, float factor, float step, float first, float *s)
{
    for (size_t j = 0; j < n; j++) s[j] = fmaf(step, first + (float)j, factor * s[j]);
}

static void softcap(size_t n, float factor, float cap, float *s, float *slope)
{
    for (size_t j = 0; j < n; j++) {
        const float t = tanhf(factor * s[j] / cap);
        s[j] = cap * t;
        if (slope) slope[j] = 1.0f - t * t;
    }
}

static void keep_lower(size_t rows, size_t n, const float *factors, float *a, size_t a_row)
{
    for (size_t i = 0; i < rows; i++, a += a_row)
        for (size_t j = 0; j < n; j++)
            a[j] = j > i ? 0.0f : factors ? a[j] * factors[rows - 1 - i + j] : a[j];
}

static void scale_rows(size_t rows, size_t n, const float *factors, float *x, size_t x_row)
{
    for (size_t i = 0; i < rows; i++) scale(n, factors[i], x + i * x_row);
}

static void softmax_gradient(size_t n, float factor, const float *p, const float *dp, float delta,
                             float *ds)
{
    for (size_t i = 0; i < n; i++) ds[i] = factor * p[i] * (dp[i] - delta);
}

static void layer_norm(size_t n, float epsilon, const float *x, const float *gain,
                       const float *bias, float *y, float *mean, float *inverse_deviation)
{
    float total = 0.0f, squares = 0.0f;
    for (size_t i = 0; i < n; i++) total += x[i];
    const float mu = total / (float)n;
    for (size_t i = 0; i < n; i++) squares += (x[i] - mu) * (x[i] - mu);
    const float r = 1.0f / sqrtf(squares / (float)n + epsilon);
    for (size_t i = 0; i < n; i++) y[i] = (x[i] - mu) * r * gain[i] + bias[i];
    *mean = mu;
    *inverse_deviation = r;
}

static void layer_norm_gradient(size_t n, const float *x, const float *gain, float mean,
                                float inverse_deviation, const float *dy, float *dx, float *dgain,
                                float *dbias)
{
    float mean_g = 0.0f, mean_gx = 0.0f; /* of g = gain dy, and of g x_hat */
    for (size_t i = 0; i < n; i++) {
        const float x_hat = (x[i] - mean) * inverse_deviation, g = gain[i] * dy[i];
        mean_g += g;
        mean_gx += g * x_hat;
    }
    mean_g /= (float)n;
    mean_gx /= (float)n;
    for (size_t i = 0; i < n; i++) {
        const float x_hat = (x[i] - mean) * inverse_deviation, g = gain[i] * dy[i];
        dx[i] += (g - mean_g - x_hat * mean_gx) * inverse_deviation;
        dgain[i] += dy[i] * x_hat;
        dbias[i] += dy[i];
    }
}

/* GELU's inner argument, doubled: 2 sqrt(2/pi) (x + 0.044715 x^3) = x (c1 + c3 x^2). */
static const float gelu_c1 = 1.5957691216057308f, gelu_c3 = 0.07135481282952614f;

static void gelu(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * (1.0f / (1.0f + expf(-x[i] * (gelu_c1 + gelu_c3 * (x[i] * x[i])))));
}

static void gelu_gradient(size_t n, const float *x, const float *dy, float *dx, float *y)
{
    for (size_t i = 0; i < n; i++) {
        /* y = x s, s = sigmoid(u): y' = s + x s (1 - s) u' */
        const float square = x[i] * x[i];
        const float s = 1.0f / (1.0f + expf(-x[i] * (gelu_c1 + gelu_c3 * square)));
        const float du = gelu_c1 + 3.0f * gelu_c3 * square;
        dx[i] = dy[i] * (s + x[i] * s * (1.0f - s) * du);
        if (y) y[i] = x[i] * s;
    }
}

static bool elu_plus_one(size_t rows, size_t n, const float *x, size_t x_row, float *y)
{
    size_t found = 0; /* rows with a number that is not below 0 */
    for (size_t i = 0; i < rows; i++, x += x_row, y += n) {
        bool any = false;
        for (size_t j = 0; j < n; j++) any = any || x[j] >= 0.0f;
        for (size_t j = 0; j < n; j++) y[j] = x[j] > 0.0f ? x[j] + 1.0f : expf(x[j]);
        found += any;
    }
    return found == rows;
}

static void elu_plus_one_gradient(size_t n, const float *x, const float *y, const float *dy,
                                  float *dx)
{
    for (size_t i = 0; i < n; i++) dx[i] = dy[i] * (x[i] > 0.0f ? y[i] / (x[i] + 1.0f) : y[i]);
}

static void multiply(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] *= x[i];
}

static void add_product(size_t n, const float *a, const float *b, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] += a[i] * b[i];
}

static void silu(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] / (1.0f + expf(-x[i]));
}

static void silu_gradient(size_t n, const float *x, const float *dy, float *dx)
{
    for (size_t i = 0; i < n; i++) {
        const float s = 1.0f / (1.0f + expf(-x[i]));
        dx[i] = dy[i] * (s + x[i] * s * (1.0f - s));
    }
}

static void log_sigmoid(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = (x[i] < 0.0f ? x[i] : 0.0f) - log1pf(expf(-fabsf(x[i])));
}

static void log_sigmoid_gradient(size_t n, const float *x, const float *dy, float *dx)
{
    for (size_t i = 0; i < n; i++) dx[i] = dy[i] / (1.0f + expf(x[i]));
}

static void rotate(size_t n, const float *cosine, const float *sine, float sign, const float *x,
                   float *y)
{
    for (size_t i = 0; i < n; i++) {
        const float u = x[i], w = x[i + n], s = sign * sine[i];
        y[i] = u * cosine[i] - w * s;
        y[i + n] = w * cosine[i] + u * s;
    }
}

static void decayed_scores(size_t n, size_t d, const float *q, const float *a, float *k_t,
                           size_t k_row, float *scores, size_t s_row)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) scores[i * s_row + j] = 0.0f;
    for (size_t f = 0; f < d; f++)
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j <= i; j++) {
                float *k = &k_t[f * k_row + j];
                if (j < i) *k *= a[i * d + f];
                scores[i * s_row + j] += q[i * d + f] * *k;
            }
}

static void decayed_scores_gradient(size_t n, size_t d, const float *q, const float *k,
                                    const float *a, const float *ds, size_t ds_row, float *dq,
                                    float *dk)
{
    for (size_t f = 0; f < d; f++)
        for (size_t j = 0; j < n; j++) {
            float decay = 1.0f;
            for (size_t i = j + 1; i < n; i++) {
                decay *= a[i * d + f];
                dq[i * d + f] += ds[i * ds_row + j] * (k[j * d + f] * decay);
                dk[j * d + f] += ds[i * ds_row + j] * (q[i * d + f] * decay);
            }
        }
}

static void bf16_from_float(size_t n, const float *x, attn_bf16 *y)
{
    for (size_t i = 0; i < n; i++) y[i] = attn_bf16_from_float(x[i]);
}

static void bf16_to_float(size_t n, const attn_bf16 *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = attn_bf16_to_float(x[i]);
}

static void bf16_strip(size_t m, size_t cells, const float *x, size_t x_row, const attn_bf16 *strip,
                       float *sums, bool accumulate)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < ATTN_STRIP; j++) {
            float s = accumulate ? sums[i * ATTN_STRIP + j] : 0.0f;
            for (size_t k = 0; k < cells * ATTN_STRIP; k++)
                s += x[i * x_row + k] * attn_bf16_to_float(strip[attn_cell_place(k, j)]);
            sums[i * ATTN_STRIP + j] = s;
        }
}

#include "kernels/kernels_ref_training.h"

const attn_kernels attn_kernels_ref = {
    .isa = ATTN_ISA_REF,
    .product = product,
    .product_asking = product_asking,
    .product_double = product_double,
    .transpose = transpose,
    .copy_rows = copy_rows,
    .store_rows = copy_rows,
    .round_rows = round_rows,
    .maximum = maximum,
    .sum = sum,
    .sum_squares = sum_squares,
    .dot = dot,
    .dot_double = dot_double,
    .dot_rows = dot_rows,
    .weigh_rows = weigh_rows,
    .add = add,
    .add_scaled = add_scaled,
    .scale = scale,
    .exp_shifted = exp_shifted,
    .online_softmax = online_softmax,
    .online_softmax_gradient = online_softmax_gradient,
    .running_softmax = running_softmax,
    .running_softmax_gradient = running_softmax_gradient,
    .add_ramp = add_ramp,
    .softcap = softcap,
    .keep_lower = keep_lower,
    .scale_rows = scale_rows,
    .softmax_gradient = softmax_gradient,
    .layer_norm = layer_norm,
    .layer_norm_gradient = layer_norm_gradient,
    .gelu = gelu,
    .gelu_gradient = gelu_gradient,
    .elu_plus_one = elu_plus_one,
    .elu_plus_one_gradient = elu_plus_one_gradient,
    .multiply = multiply,
    .add_product = add_product,
    .silu = silu,
    .silu_gradient = silu_gradient,
    .log_sigmoid = log_sigmoid,
    .log_sigmoid_gradient = log_sigmoid_gradient,
    .rotate = rotate,
    .decayed_scores = decayed_scores,
    .decayed_scores_gradient = decayed_scores_gradient,
    .bf16_from_float = bf16_from_float,
    .bf16_to_float = bf16_to_float,
    .bf16_strip = bf16_strip,
    .cross_entropy = cross_entropy,
    .adamw = adamw,
};
