/* Products of few rows with rows from far away, a part of kernels_simd_few.h: float32 or bfloat16
 * rows. A sum has the same bits whichever rows it stands among. */
#ifndef KERNELS_SIMD_FAR_H
#define KERNELS_SIMD_FAR_H

enum { SHORT_BYTES = 1 << 10 }; /* longer rows keep the machine's prefetchers busy */

TEMPLATE const char *far_row(bool is_half, attn_far_rows y, size_t row)
{
    return is_half ? (const char *)(y.half + row * y.row) : (const char *)(y.single + row * y.row);
}

TEMPLATE vf far_load(bool is_half, const char *row, size_t at)
{
    return is_half ? load_bf16((const attn_bf16 *)(const void *)row + at)
                   : load((const float *)(const void *)row + at);
}

static __attribute__((noinline)) vf half_rest(const attn_bf16 *half, size_t left)
{
    float wide[LANES] = {0};
    for (size_t i = 0; i < left; i++) wide[i] = attn_bf16_to_float(half[i]);
    return load(wide);
}

/* The last `left` < LANES numbers of a row, zeros behind them. */
TEMPLATE vf far_rest(bool is_half, const char *row, size_t at, size_t left)
{
    return is_half ? half_rest((const attn_bf16 *)(const void *)row + at, left)
                   : load_some((const float *)(const void *)row + at, first_lanes(left));
}

TEMPLATE size_t far_bytes(bool is_half, attn_far_rows y)
{
    return y.row * (is_half ? sizeof *y.half : sizeof *y.single);
}

/* How many rows ahead of its use a row is asked for; 0: rows are long. */
TEMPLATE size_t rows_ahead(bool is_half, attn_far_rows y)
{
    const size_t row_bytes = far_bytes(is_half, y);
    return row_bytes == 0 || row_bytes > SHORT_BYTES ? 0 : AHEAD_BYTES / row_bytes;
}

/* Asks for `count` of the `rows` rows, `ahead` behind row j. */
TEMPLATE void ask_ahead(bool is_half, attn_far_rows y, size_t ahead, size_t rows, size_t j,
                        size_t count)
{
    if (ahead == 0 || j + ahead + count > rows) return;
    const char *from = far_row(is_half, y, j + ahead);
    for (size_t at = 0; at < count * far_bytes(is_half, y); at += LINE_BYTES)
        __builtin_prefetch(from + at, 0, INTO_SECOND_CACHE);
}

/* ---- x y^T ------------------------------------------------------------------------------- */

/* Four rows of y, of which `count` are there: as many streams from memory, and sums that do not
 * wait for each other. */
TEMPLATE void dot_tile(bool is_half, size_t m, size_t count, size_t n, const float *x, size_t x_row,
                       attn_far_rows y, size_t j0, float *out, size_t out_row)
{
    const size_t whole = n - n % LANES;
    const char *of[4];
    vf sums[FEW_MOST][4];
    UNROLL for (size_t j = 0; j < 4; j++) of[j] = far_row(is_half, y, j0 + (j < count ? j : 0));
    UNROLL for (size_t i = 0; i < m; i++) UNROLL for (size_t j = 0; j < 4; j++) sums[i][j] = zero();
    for (size_t at = 0; at < whole; at += LANES) {
        vf yj[4];
        UNROLL for (size_t j = 0; j < 4; j++) yj[j] = far_load(is_half, of[j], at);
        UNROLL for (size_t i = 0; i < m; i++)
        {
            const vf xi = load(x + i * x_row + at);
            UNROLL for (size_t j = 0; j < 4; j++) sums[i][j] = fused(xi, yj[j], sums[i][j]);
        }
    }
    if (whole < n) {
        const vmask last = first_lanes(n - whole);
        UNROLL for (size_t j = 0; j < 4; j++)
        {
            const vf yj = far_rest(is_half, of[j], whole, n - whole);
            UNROLL for (size_t i = 0; i < m; i++) sums[i][j] =
                fused(load_some(x + i * x_row + whole, last), yj, sums[i][j]);
        }
    }
    UNROLL for (size_t i = 0; i < m; i++)
    {
        float some[4], *to = out + i * out_row + j0;
        store_sums(count < 4 ? some : to, sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
        if (count < 4) memcpy(to, some, count * sizeof *some);
    }
}

TEMPLATE void dot_rows(bool is_half, size_t m, size_t rows, size_t n, const float *x, size_t x_row,
                       attn_far_rows y, float *out, size_t out_row)
{
    const size_t ahead = rows_ahead(is_half, y);
    for (size_t j = 0; j < rows; j += 4) {
        const size_t count = rows - j < 4 ? rows - j : 4;
        ask_ahead(is_half, y, ahead, rows, j, 4);
#define DOT_TILE(i, tile_m)                                                                        \
    dot_tile(is_half, tile_m, count, n, x + i * x_row, x_row, y, j, out + i * out_row, out_row)
        FEW_TILES(m, DOT_TILE);
#undef DOT_TILE
    }
}

static void kernel_dot_rows(size_t m, size_t rows, size_t n, const float *x, size_t x_row,
                            attn_far_rows y, float *out, size_t out_row)
{
    if (y.half)
        dot_rows(true, m, rows, n, x, x_row, y, out, out_row);
    else
        dot_rows(false, m, rows, n, x, x_row, y, out, out_row);
}

/* ---- w y --------------------------------------------------------------------------------- */

/* Columns [0, vectors LANES) of out, or the last `left`, from rows [first, end) of y. */
TEMPLATE void weigh_tile(bool is_half, size_t m, size_t vectors, size_t left, size_t rows,
                         size_t first, size_t end, const float *w, size_t w_row, attn_far_rows y,
                         size_t at, float *out, size_t out_row, size_t ahead)
{
    vf sums[FEW_MOST][WEIGH_VECTORS];
    UNROLL for (size_t i = 0; i < m; i++) UNROLL for (size_t v = 0; v < vectors; v++)
    {
        const float *from = out + i * out_row + at + v * LANES;
        sums[i][v] = left ? load_some(from, first_lanes(left)) : load(from);
    }
    for (size_t j = first; j < end; j++) {
        const char *row = far_row(is_half, y, j);
        vf yv[WEIGH_VECTORS];
        ask_ahead(is_half, y, ahead, rows, j, 1);
        UNROLL for (size_t v = 0; v < vectors; v++) yv[v] =
            left ? far_rest(is_half, row, at, left) : far_load(is_half, row, at + v * LANES);
        UNROLL for (size_t i = 0; i < m; i++)
        {
            const vf wi = all(w[i * w_row + j]);
            UNROLL for (size_t v = 0; v < vectors; v++) sums[i][v] = fused(wi, yv[v], sums[i][v]);
        }
    }
    UNROLL for (size_t i = 0; i < m; i++) UNROLL for (size_t v = 0; v < vectors; v++)
    {
        float *to = out + i * out_row + at + v * LANES;
        if (left)
            store_some(to, first_lanes(left), sums[i][v]);
        else
            store(to, sums[i][v]);
    }
}

TEMPLATE void weigh_columns(bool is_half, size_t m, size_t rows, size_t first, size_t end, size_t n,
                            const float *w, size_t w_row, attn_far_rows y, float *out,
                            size_t out_row, size_t ahead)
{
    size_t at = 0;
    for (; at + WEIGH_VECTORS * LANES <= n; at += WEIGH_VECTORS * LANES)
        weigh_tile(is_half, m, WEIGH_VECTORS, 0, rows, first, end, w, w_row, y, at, out, out_row,
                   at == 0 ? ahead : 0);
    for (; at + LANES <= n; at += LANES)
        weigh_tile(is_half, m, 1, 0, rows, first, end, w, w_row, y, at, out, out_row,
                   at == 0 ? ahead : 0);
    if (at < n)
        weigh_tile(is_half, m, 1, n - at, rows, first, end, w, w_row, y, at, out, out_row,
                   at == 0 ? ahead : 0);
}

/* Rows of y come some at a time, for all rows of w. */
TEMPLATE void weigh_rows(bool is_half, size_t m, size_t rows, size_t n, const float *w,
                         size_t w_row, attn_far_rows y, float *out, size_t out_row)
{
    enum { TOGETHER = 32 };
    const size_t ahead = rows_ahead(is_half, y);
    for (size_t first = 0; first < rows; first += TOGETHER) {
        const size_t end = rows - first < TOGETHER ? rows : first + TOGETHER;
#define WEIGH_TILE(i, tile_m)                                                                      \
    weigh_columns(is_half, tile_m, rows, first, end, n, w + i * w_row, w_row, y,                   \
                  out + i * out_row, out_row, i == 0 ? ahead : 0)
        FEW_TILES(m, WEIGH_TILE);
#undef WEIGH_TILE
    }
}

static void kernel_weigh_rows(size_t m, size_t rows, size_t n, const float *w, size_t w_row,
                              attn_far_rows y, float *out, size_t out_row)
{
    if (y.half)
        weigh_rows(true, m, rows, n, w, w_row, y, out, out_row);
    else
        weigh_rows(false, m, rows, n, w, w_row, y, out, out_row);
}

#endif
