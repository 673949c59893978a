/* Slots of scores whose keys decay: shape->n features, blocks of every number of tokens. */
#include "check_kernels.h"

#include <math.h>

/* A block, in float and with the products of its decays in double. */
typedef struct block {
    size_t n, d;
    const float *q, *k, *a, *ds;
    double *decay; /* [n][n][d]: a_{j+1} .. a_i for j <= i */
} block;

static block make_block(check_run *run, const check_shape *shape)
{
    const size_t whole = ATTN_DECAY_BLOCK, d = shape->n;
    const size_t n = check_below(run, 3) == 0 ? whole : 1 + check_below(run, whole);
    float *a = check_floats(run, n * d, shape->place);
    for (size_t i = 0; i < n * d; i++)
        a[i] = check_below(run, 16) == 0 ? 1.0f : 0.3f + 1e-3f * (float)check_below(run, 700);
    block b = {.n = n,
               .d = d,
               .q = check_random(run, shape, n * d),
               .k = check_random(run, shape, n * d),
               .a = a,
               .ds = check_random(run, &(check_shape){0, shape->place, 1.0}, n * n),
               .decay = check_doubles(run, n * n * d)};
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++)
            for (size_t f = 0; f < d; f++) {
                double product = 1.0;
                for (size_t s = j + 1; s <= i; s++) product *= (double)a[s * d + f];
                b.decay[(i * n + j) * d + f] = product;
            }
    return b;
}

void check_slot_decayed_scores(check_run *run, const check_shape *shape)
{
    const block b = make_block(run, shape);
    const size_t n = b.n, d = b.d;
    float *scores[2], *turned[2];
    for (size_t pass = 0; pass < 2; pass++) {
        scores[pass] = check_floats(run, n * n, shape->place);
        turned[pass] = check_floats(run, n * d, shape->place);
        attn_kernels_ref.transpose(n, d, b.k, d, turned[pass], n);
        check_table(run, pass)->decayed_scores(n, d, b.q, b.a, turned[pass], n, scores[pass], n);
    }
    double *want = check_doubles(run, n * n), *bounds = check_doubles(run, n * n);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0.0, size = 0.0;
            for (size_t f = 0; j <= i && f < d; f++) {
                const double term =
                    (double)b.q[i * d + f] * (double)b.k[j * d + f] * b.decay[(i * n + j) * d + f];
                sum += term;
                size += fabs(term);
            }
            want[i * n + j] = sum;
            bounds[i * n + j] =
                j > i ? 0.0 : CHECK_UNIT * (double)(d + n + 2) * size + (double)d * CHECK_TINY;
        }
    check_output(run, n * n, scores[0], scores[1], want, bounds, "scores");
    double *keys = check_doubles(run, n * d), *key_bounds = check_doubles(run, n * d);
    for (size_t f = 0; f < d; f++)
        for (size_t j = 0; j < n; j++) {
            const double key = (double)b.k[j * d + f] * b.decay[((n - 1) * n + j) * d + f];
            keys[f * n + j] = key;
            key_bounds[f * n + j] = CHECK_UNIT * (double)(n + 1) * fabs(key) + CHECK_TINY;
        }
    check_output(run, n * d, turned[0], turned[1], keys, key_bounds, "keys");
}

void check_slot_decayed_scores_gradient(check_run *run, const check_shape *shape)
{
    const block b = make_block(run, shape);
    const size_t n = b.n, d = b.d;
    const float *start = check_random(run, shape, n * d);
    float *dq[2], *dk[2];
    for (size_t pass = 0; pass < 2; pass++) {
        dq[pass] = check_copy(run, shape, n * d, start);
        dk[pass] = check_copy(run, shape, n * d, start);
        check_table(run, pass)->decayed_scores_gradient(n, d, b.q, b.k, b.a, b.ds, n, dq[pass],
                                                        dk[pass]);
    }
    for (size_t side = 0; side < 2; side++) {
        double *want = check_doubles(run, n * d), *bounds = check_doubles(run, n * d);
        for (size_t t = 0; t < n; t++)
            for (size_t f = 0; f < d; f++) {
                double sum = (double)start[t * d + f], size = fabs(sum);
                for (size_t s = side ? t + 1 : 0; s < (side ? n : t); s++) {
                    const size_t i = side ? s : t, j = side ? t : s;
                    const double other = (double)(side ? b.q : b.k)[s * d + f];
                    const double term =
                        (double)b.ds[i * n + j] * other * b.decay[(i * n + j) * d + f];
                    sum += term;
                    size += fabs(term);
                }
                want[t * d + f] = sum;
                bounds[t * d + f] = CHECK_UNIT * (double)(2 * n + 2) * size + CHECK_TINY;
            }
        check_output(run, n * d, side ? dk[0] : dq[0], side ? dk[1] : dq[1], want, bounds,
                     side ? "dk" : "dq");
    }
}
