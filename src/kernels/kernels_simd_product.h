/* Vector kernels on matrices, a part of kernels_simd.h: written over the names of simd_<isa>.h and
 * the helpers that stand before its inclusion. A product's tile of `rows` x `vectors` accumulators
 * stays in registers over all of k. */
#ifndef KERNELS_SIMD_PRODUCT_H
#define KERNELS_SIMD_PRODUCT_H

static inline __attribute__((always_inline)) void
product_tile(size_t rows, size_t vectors, vmask last, bool is_tail, size_t k, const float *a,
             size_t a_row, size_t a_column, const float *b, size_t b_row, float *c, size_t c_row,
             bool accumulate)
{
    vf sums[PRODUCT_ROWS][PRODUCT_VECTORS];
    UNROLL for (size_t i = 0; i < rows; i++) UNROLL for (size_t j = 0; j < vectors; j++)
    {
        const float *from = c + i * c_row + j * LANES;
        sums[i][j] = !accumulate ? zero() : is_tail ? load_some(from, last) : load(from);
    }
    for (size_t p = 0; p < k; p++) {
        vf bp[PRODUCT_VECTORS];
        UNROLL for (size_t j = 0; j < vectors; j++) bp[j] =
            is_tail ? load_some(b + p * b_row + j * LANES, last) : load(b + p * b_row + j * LANES);
        UNROLL for (size_t i = 0; i < rows; i++)
        {
            const vf aip = all(a[i * a_row + p * a_column]);
            UNROLL for (size_t j = 0; j < vectors; j++) sums[i][j] = fused(aip, bp[j], sums[i][j]);
        }
    }
    UNROLL for (size_t i = 0; i < rows; i++) UNROLL for (size_t j = 0; j < vectors; j++)
    {
        float *to = c + i * c_row + j * LANES;
        if (is_tail)
            store_some(to, last, sums[i][j]);
        else
            store(to, sums[i][j]);
    }
}

/* One column strip of c: all rows, `vectors` vectors wide (one, masked, for a tail). */
#define STRIP(vectors, is_tail)                                                                    \
    do {                                                                                           \
        size_t i = 0;                                                                              \
        for (; i + PRODUCT_ROWS <= m; i += PRODUCT_ROWS)                                           \
            product_tile(PRODUCT_ROWS, vectors, last, is_tail, k, a + i * a_row, a_row, a_column,  \
                         b, b_row, c + i * c_row, c_row, accumulate);                              \
        const float *ai = a + i * a_row;                                                           \
        float *ci = c + i * c_row;                                                                 \
        switch (m - i) {                                                                           \
        case 5:                                                                                    \
            product_tile(5, vectors, last, is_tail, k, ai, a_row, a_column, b, b_row, ci, c_row,   \
                         accumulate);                                                              \
            break;                                                                                 \
        case 4:                                                                                    \
            product_tile(4, vectors, last, is_tail, k, ai, a_row, a_column, b, b_row, ci, c_row,   \
                         accumulate);                                                              \
            break;                                                                                 \
        case 3:                                                                                    \
            product_tile(3, vectors, last, is_tail, k, ai, a_row, a_column, b, b_row, ci, c_row,   \
                         accumulate);                                                              \
            break;                                                                                 \
        case 2:                                                                                    \
            product_tile(2, vectors, last, is_tail, k, ai, a_row, a_column, b, b_row, ci, c_row,   \
                         accumulate);                                                              \
            break;                                                                                 \
        case 1:                                                                                    \
            product_tile(1, vectors, last, is_tail, k, ai, a_row, a_column, b, b_row, ci, c_row,   \
                         accumulate);                                                              \
            break;                                                                                 \
        default:                                                                                   \
            break;                                                                                 \
        }                                                                                          \
    } while (0)

#define STRIP_ARGUMENTS                                                                            \
    size_t m, size_t k, const float *a, size_t a_row, size_t a_column, const float *b,             \
        size_t b_row, float *c, size_t c_row, bool accumulate

static void strip_wide(STRIP_ARGUMENTS)
{
    const vmask last = first_lanes(LANES - 1); /* unused: the strip is full */
    STRIP(PRODUCT_VECTORS, false);
}

static void strip_single(STRIP_ARGUMENTS)
{
    const vmask last = first_lanes(LANES - 1); /* unused: the strip is full */
    STRIP(1, false);
}

static void strip_tail(size_t columns, STRIP_ARGUMENTS)
{
    const vmask last = first_lanes(columns);
    STRIP(1, true);
}

static void kernel_product(size_t m, size_t n, size_t k, const float *a, size_t a_row,
                           size_t a_column, const float *b, size_t b_row, float *c, size_t c_row,
                           bool accumulate)
{
    const size_t wide = PRODUCT_VECTORS * LANES;
    size_t j = 0;
    for (; j + wide <= n; j += wide)
        strip_wide(m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, accumulate);
    for (; j + LANES <= n; j += LANES)
        strip_single(m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, accumulate);
    if (j < n) strip_tail(n - j, m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, accumulate);
}

/* Plain C that the compiler makes vectors of: four rows of b for each visit of a row of c. */
static void kernel_product_double(size_t m, size_t n, size_t k, const double *a, size_t a_row,
                                  size_t a_column, const double *b, size_t b_row, double *c,
                                  size_t c_row, bool accumulate)
{
    for (size_t i = 0; i < m; i++) {
        double *restrict ci = c + i * c_row;
        const double *ai = a + i * a_row;
        size_t p = 0;
        if (!accumulate)
            for (size_t j = 0; j < n; j++) ci[j] = 0.0;
        for (; p + 4 <= k; p += 4) {
            const double a0 = ai[p * a_column], a1 = ai[(p + 1) * a_column];
            const double a2 = ai[(p + 2) * a_column], a3 = ai[(p + 3) * a_column];
            const double *restrict b0 = b + p * b_row, *restrict b1 = b0 + b_row;
            const double *restrict b2 = b1 + b_row, *restrict b3 = b2 + b_row;
            for (size_t j = 0; j < n; j++)
                ci[j] = fma(a3, b3[j], fma(a2, b2[j], fma(a1, b1[j], fma(a0, b0[j], ci[j]))));
        }
        for (; p < k; p++) {
            const double ap = ai[p * a_column];
            const double *restrict bp = b + p * b_row;
            for (size_t j = 0; j < n; j++) ci[j] = fma(ap, bp[j], ci[j]);
        }
    }
}

/* Squares of LANES x LANES in registers; the edges one by one. */
static void kernel_transpose(size_t rows, size_t columns, const float *in, size_t in_row,
                             float *out, size_t out_row)
{
    const size_t whole_rows = rows - rows % LANES, whole_columns = columns - columns % LANES;
    for (size_t i = 0; i < whole_rows; i += LANES)
        for (size_t j = 0; j < whole_columns; j += LANES) {
            vf square[LANES];
            UNROLL for (size_t r = 0; r < LANES; r++) square[r] = load(in + (i + r) * in_row + j);
            transpose_square(square);
            UNROLL for (size_t r = 0; r < LANES; r++) store(out + (j + r) * out_row + i, square[r]);
        }
    for (size_t i = 0; i < rows; i++)
        for (size_t j = i < whole_rows ? whole_columns : 0; j < columns; j++)
            out[j * out_row + i] = in[i * in_row + j];
}

/* Rows of one head lie far apart, where no prefetcher of the machine looks: those to come are
 * asked for, and those to be written. An address behind the last row does no harm. */
static void kernel_copy_rows(size_t rows, size_t n, float factor, const float *factors,
                             const float *from, size_t from_row, float *to, size_t to_row)
{
    enum { AHEAD = 8, LINE = 16 };
    for (size_t i = 0; i < rows; i++) {
        const vf by = all(factors ? factor * factors[i] : factor);
        const float *row = from + i * from_row;
        if (i + AHEAD < rows)
            for (size_t j = 0; j < n; j += LINE) {
                __builtin_prefetch(row + AHEAD * from_row + j);
                __builtin_prefetch(to + (i + AHEAD) * to_row + j, 1);
            }
        FOR_VECTORS(n) put(to + i * to_row + at, left, mul(by, take(row + at, left)));
    }
}

#endif
