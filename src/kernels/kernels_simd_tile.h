/* A product in registers, included once for float and once for double: REAL and VECTOR are the types,
 * WIDTH is the lanes of a vector, and OF(name) the name for this type. A tile of `rows` x `vectors`
 * accumulators stays in registers over all of k; the last vector of a row may be masked. */

static inline __attribute__((always_inline)) void
OF(tile_step)(size_t rows, size_t vectors, vmask last, bool is_tail, const REAL *a, size_t a_row,
              const REAL *b, VECTOR sums[PRODUCT_ROWS][PRODUCT_VECTORS])
{
    VECTOR bp[PRODUCT_VECTORS];
    UNROLL for (size_t j = 0; j < vectors; j++)
    {
        const REAL *from = b + j * WIDTH;
        bp[j] = is_tail && j + 1 == vectors ? OF(load_some)(from, last) : OF(load)(from);
    }
    UNROLL for (size_t i = 0; i < rows; i++)
    {
        const VECTOR aip = OF(all)(a[i * a_row]);
        UNROLL for (size_t j = 0; j < vectors; j++) sums[i][j] = OF(fused)(aip, bp[j], sums[i][j]);
    }
}

static inline __attribute__((always_inline)) void
OF(product_tile)(size_t rows, size_t vectors, vmask last, bool is_tail, size_t k, const REAL *a,
                 size_t a_row, size_t a_column, const REAL *b, size_t b_row, REAL *c, size_t c_row,
                 bool accumulate, const float *const *asked)
{
    VECTOR sums[PRODUCT_ROWS][PRODUCT_VECTORS];
    REAL *row = c;
    UNROLL for (size_t i = 0; i < rows; i++, row += c_row)
    {
        STEPWISE(row);
        UNROLL for (size_t j = 0; j < vectors; j++)
        {
            const REAL *from = row + j * WIDTH;
            sums[i][j] = !accumulate                   ? OF(zero)()
                         : is_tail && j + 1 == vectors ? OF(load_some)(from, last)
                                                       : OF(load)(from);
        }
    }
#define STEP(p)                                                                                    \
    OF(tile_step)(rows, vectors, last, is_tail, a + (p)*a_column, a_row, b + (p)*b_row, sums)
    size_t p = 0;
    for (; p + 2 <= k; p += 2) {
        if (asked) __builtin_prefetch(asked[p / 2], 0, 1);
        STEP(p);
        STEP(p + 1);
    }
    if (p < k) STEP(p);
#undef STEP
    row = c;
    UNROLL for (size_t i = 0; i < rows; i++, row += c_row)
    {
        STEPWISE(row);
        UNROLL for (size_t j = 0; j < vectors; j++)
        {
            REAL *to = row + j * WIDTH;
            if (is_tail && j + 1 == vectors)
                OF(store_some)(to, last, sums[i][j]);
            else
                OF(store)(to, sums[i][j]);
        }
    }
}

/* One column strip of c: all rows, `vectors` vectors wide. */
static inline __attribute__((always_inline)) void
OF(strip)(size_t vectors, vmask last, bool is_tail, size_t m, size_t k, const REAL *a, size_t a_row,
          size_t a_column, const REAL *b, size_t b_row, REAL *c, size_t c_row, bool accumulate,
          const float *const *asked)
{
#define ROWS(rows)                                                                                 \
    OF(product_tile)                                                                               \
    (rows, vectors, last, is_tail, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row,     \
     c_row, accumulate, asked)
    size_t i = 0;
    for (; i + PRODUCT_ROWS <= m; i += PRODUCT_ROWS) ROWS(PRODUCT_ROWS);
    switch (m - i) {
    case 5:
        ROWS(5);
        break;
    case 4:
        ROWS(4);
        break;
    case 3:
        ROWS(3);
        break;
    case 2:
        ROWS(2);
        break;
    case 1:
        ROWS(1);
        break;
    default:
        break;
    }
#undef ROWS
}

static inline __attribute__((always_inline)) void
OF(whole_product)(size_t m, size_t n, size_t k, const REAL *a, size_t a_row, size_t a_column,
                  const REAL *b, size_t b_row, REAL *c, size_t c_row, bool accumulate,
                  const float *const *asked)
{
#define STRIP(vectors, is_tail)                                                                    \
    OF(strip)                                                                                      \
    (vectors, last, is_tail, m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, accumulate,     \
     asked)
    const size_t wide = PRODUCT_VECTORS * WIDTH, rest = n % wide;
    const size_t vectors = (rest + WIDTH - 1) / WIDTH;
    const vmask last = OF(first_lanes)(vectors ? rest - (vectors - 1) * WIDTH : WIDTH);
    size_t j = 0;
    for (; j + wide <= n; j += wide) STRIP(PRODUCT_VECTORS, false);
    switch (vectors) {
    case 0:
        break;
    case 1:
        STRIP(1, true);
        break;
    case 2:
        STRIP(2, true);
        break;
    case 3:
        STRIP(PRODUCT_VECTORS - 1, true);
        break; /* where there may be four */
    default:
        STRIP(PRODUCT_VECTORS, true);
        break;
    }
#undef STRIP
}

static void OF(kernel_product)(size_t m, size_t n, size_t k, const REAL *a, size_t a_row,
                               size_t a_column, const REAL *b, size_t b_row, REAL *c, size_t c_row,
                               bool accumulate)
{
    OF(whole_product)(m, n, k, a, a_row, a_column, b, b_row, c, c_row, accumulate, NULL);
}

#undef REAL
#undef VECTOR
#undef WIDTH
#undef OF
