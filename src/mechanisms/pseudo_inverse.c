/* The pseudo-inverse and its gradient. One step, with Y = A Z:
 *
 *     W1 = 7 I - Y,  W2 = 15 I - Y W1,  W3 = 13 I - Y W2,  Z' = Z W3 / 4
 *
 *     D = dZ' / 4,     dW3 = Z^T D,    dW2 = -Y^T dW3,   dW1 = -Y^T dW2
 *     dY = -dW3 W2^T - dW2 W1^T - dW1,  dA += dY Z^T,     dZ = D W3^T + A^T dY */
#include "mechanisms/pseudo_inverse.h"

#include <string.h>

enum { STEPS = ATTN_PSEUDO_INVERSE_STEPS, TEMPORARIES = 8 };

size_t attn_pseudo_inverse_count(size_t n)
{
    return (STEPS + 1 + TEMPORARIES) * n * n;
}

typedef struct largest {
    size_t row, column; /* with the largest sums */
    double row_sum, column_sum;
} largest;

static largest largest_sums(size_t n, const double *a)
{
    largest l = {.row_sum = -1.0, .column_sum = -1.0};
    for (size_t i = 0; i < n; i++) {
        double row = 0.0, column = 0.0;
        for (size_t j = 0; j < n; j++) {
            row += a[i * n + j];
            column += a[j * n + i];
        }
        if (!(row <= l.row_sum)) l.row = i, l.row_sum = row;
        if (!(column <= l.column_sum)) l.column = i, l.column_sum = column;
    }
    return l;
}

/* x = diagonal I - x */
static void subtract_from(size_t n, double diagonal, double *x)
{
    for (size_t i = 0; i < n * n; i++) x[i] = -x[i];
    for (size_t i = 0; i < n; i++) x[i * n + i] += diagonal;
}

static void scale(size_t count, double factor, double *x)
{
    for (size_t i = 0; i < count; i++) x[i] *= factor;
}

/* One step's Y, W1, W2, W3, in the order of memory. */
static void step_factors(const attn_kernels *kernels, size_t n, const double *a, const double *z,
                         double *y)
{
    const size_t count = n * n;
    double *w1 = y + count, *w2 = w1 + count, *w3 = w2 + count;
    kernels->product_double(n, n, n, a, n, 1, z, n, y, n, false);
    memcpy(w1, y, count * sizeof *w1);
    subtract_from(n, 7.0, w1);
    kernels->product_double(n, n, n, y, n, 1, w1, n, w2, n, false);
    subtract_from(n, 15.0, w2);
    kernels->product_double(n, n, n, y, n, 1, w2, n, w3, n, false);
    subtract_from(n, 13.0, w3);
}

const double *attn_pseudo_inverse(const attn_kernels *kernels, size_t n, const double *a,
                                  double *room)
{
    const size_t count = n * n;
    double *z = room, *y = room + (STEPS + 1) * count;
    const largest l = largest_sums(n, a);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) z[i * n + j] = a[j * n + i] / (l.row_sum * l.column_sum);
    for (size_t k = 0; k < STEPS; k++, z += count) {
        step_factors(kernels, n, a, z, y);
        kernels->product_double(n, n, n, z, n, 1, y + 3 * count, n, z + count, n, false);
        scale(count, 0.25, z + count);
    }
    return z;
}

static const double *transposed(size_t n, const double *x, double *out)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) out[j * n + i] = x[i * n + j];
    return out;
}

/* dz' to dz, in place; da grows. */
static void step_gradient(const attn_kernels *kernels, size_t n, const double *a, const double *z,
                          double *y, double *dz, double *da)
{
    const size_t count = n * n;
    const double *w1 = y + count, *w2 = w1 + count, *w3 = w2 + count;
    double *turned = y + 4 * count, *dw = turned + count, *next = dw + count, *dy = next + count;
    step_factors(kernels, n, a, z, y);
    scale(count, 0.25, dz);                                         /* D */
    kernels->product_double(n, n, n, z, 1, n, dz, n, dw, n, false); /* dW3 */
    scale(count, -1.0, dw);
    kernels->product_double(n, n, n, dw, n, 1, transposed(n, w2, turned), n, dy, n, false);
    kernels->product_double(n, n, n, y, 1, n, dw, n, next, n, false); /* dW2 */
    scale(count, -1.0, next);
    kernels->product_double(n, n, n, next, n, 1, transposed(n, w1, turned), n, dy, n, true);
    kernels->product_double(n, n, n, y, 1, n, next, n, dw, n, false); /* dW1 */
    for (size_t i = 0; i < count; i++) dy[i] -= dw[i];
    kernels->product_double(n, n, n, dy, n, 1, transposed(n, z, turned), n, da, n, true);
    kernels->product_double(n, n, n, dz, n, 1, transposed(n, w3, turned), n, next, n, false);
    kernels->product_double(n, n, n, a, 1, n, dy, n, next, n, true);
    memcpy(dz, next, count * sizeof *dz);
}

void attn_pseudo_inverse_gradient(const attn_kernels *kernels, size_t n, const double *a,
                                  double *room, double *dz, double *da)
{
    const size_t count = n * n;
    double *y = room + (STEPS + 1) * count;
    memset(da, 0, count * sizeof *da);
    for (size_t k = STEPS; k-- > 0;) step_gradient(kernels, n, a, room + k * count, y, dz, da);
    /* Z0 = A^T / (|A|_1 |A|_inf) */
    const largest l = largest_sums(n, a);
    const double inverse = 1.0 / (l.row_sum * l.column_sum);
    double along = 0.0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            along += dz[i * n + j] * room[i * n + j];
            da[j * n + i] += dz[i * n + j] * inverse;
        }
    for (size_t i = 0; i < n; i++) {
        da[l.row * n + i] -= along / l.row_sum;
        da[i * n + l.column] -= along / l.column_sum;
    }
}

attn_work attn_pseudo_inverse_work(uint64_t n)
{
    /* sums and their comparison, Z0; W1, W2, W3 and the quarter of each step */
    return (attn_work){.matmul = STEPS * 8 * n * n * n,
                       .other = 3 * n * n + 2 * n + STEPS * (4 * n * n + 3 * n)};
}

attn_work attn_pseudo_inverse_gradient_work(uint64_t n)
{
    /* W1, W2, W3, quarter, two signs and dY of each step; the start */
    return (attn_work){.matmul = STEPS * 22 * n * n * n,
                       .other = STEPS * (7 * n * n + 3 * n) + 6 * n * n + 4 * n};
}
