/* The pseudo-inverse and its gradient. With f = 1 / (|A|_1 |A|_inf) and Y = A Z, every iterate is
 * Z = f A^T R for a polynomial R of f A A^T, and so is Y: these are symmetric and commute, so that of
 * each product half is enough. One step, from R = I and Y = f A A^T:
 *
 *     S = Y Y,  E = S - 7/2 Y,  P = 13 I - 15 Y + 7 S - S Y
 *     R' = R P / 4,  Y' = (13 Y - 11/4 S - E E) / 4,  which is Y P / 4
 *
 * and backward, where only the symmetric part (X + X^T) / 2 =: <X> of any gradient matters:
 *
 *     dP = <dR' R> / 4,  dR = <dR' P> / 4,  dE = -<dY' E> / 2
 *     dS = 7 dP - <dP Y> + dE - 11/16 dY'
 *     dY = 13/4 dY' - 7/2 dE - 15 dP + <(2 dS - dP Y) Y>
 *
 * Small singular values grow by 13/4 a step, 1178 times in all, and their rounding no more. */
#include "mechanisms/pseudo_inverse.h"

/* Behind Y and R of each step: three temporaries. */
enum { STEPS = ATTN_PSEUDO_INVERSE_STEPS, TEMPORARIES = 3 };

/* Columns of a symmetric product that are done together, down to the diagonal. */
enum { STRIP = 32, LINE = 8 };

size_t attn_pseudo_inverse_row(size_t n)
{
    return ((n + LINE - 1) / LINE | 1) * LINE;
}

size_t attn_pseudo_inverse_count(size_t n)
{
    return (2 * STEPS + TEMPORARIES) * n * attn_pseudo_inverse_row(n);
}

/* The matrices of one call. */
typedef struct squares {
    const attn_kernels *kernels;
    size_t n, row, count; /* count = n row */
    double *y, *r,
        *temporary[TEMPORARIES]; /* Y of step k at y + k count, R behind it at r + k count */
} squares;

static squares divide(const attn_kernels *kernels, size_t n, double *room)
{
    squares m = {.kernels = kernels, .n = n, .row = attn_pseudo_inverse_row(n), .y = room};
    m.count = n * m.row;
    m.r = m.y + STEPS * m.count;
    for (size_t i = 0; i < TEMPORARIES; i++) m.temporary[i] = m.r + (STEPS + i) * m.count;
    return m;
}

typedef struct largest {
    size_t row, column; /* with the largest sums */
    double row_sum, column_sum;
} largest;

static largest largest_sums(const squares *m, const double *a)
{
    largest l = {.row_sum = -1.0, .column_sum = -1.0};
    for (size_t i = 0; i < m->n; i++) {
        double row = 0.0, column = 0.0;
        for (size_t j = 0; j < m->n; j++) {
            row += a[i * m->row + j];
            column += a[j * m->row + i];
        }
        if (!(row <= l.row_sum)) l.row = i, l.row_sum = row;
        if (!(column <= l.column_sum)) l.column = i, l.column_sum = column;
    }
    return l;
}

/* c = a b */
static void multiply(const squares *m, const double *a, const double *b, double *c)
{
    m->kernels->product_double(m->n, m->n, m->n, a, m->row, 1, b, m->row, c, m->row, false);
}

/* c = a b where that is symmetric: the upper triangle, and some elements below it. */
static void multiply_upper(const squares *m, const double *a, const double *b, double *c)
{
    for (size_t j = 0; j < m->n; j += STRIP)
        m->kernels->product_double(attn_smaller(j + STRIP, m->n), attn_smaller(STRIP, m->n - j),
                                   m->n, a, m->row, 1, b + j, m->row, c + j, m->row, false);
}

static uint64_t upper_work(uint64_t n)
{
    uint64_t work = 0;
    for (uint64_t j = 0; j < n; j += STRIP)
        work += 2 * n * attn_smaller(j + STRIP, n) * attn_smaller(STRIP, n - j);
    return work;
}

/* Over the upper triangle: `at` is the place of (i, j) and `turned` that of (j, i). */
#define FOR_PAIRS(m)                                                                               \
    for (size_t i = 0; i < (m)->n; i++)                                                            \
        for (size_t at = i * ((m)->row + 1), turned = at, end = i * (m)->row + (m)->n; at < end;   \
             at++, turned += (m)->row)

/* S, and E from it */
static void step_squares(const squares *m, const double *y, double *s, double *e)
{
    multiply_upper(m, y, y, s);
    FOR_PAIRS(m)
    {
        s[turned] = s[at];
        e[turned] = e[at] = s[at] - 3.5 * y[at];
    }
}

static void step_polynomial(const squares *m, const double *y, const double *s, double *p)
{
    multiply_upper(m, s, y, p);
    FOR_PAIRS(m)
    {
        p[turned] = p[at] = 7.0 * s[at] - 15.0 * y[at] - p[at] + (at == turned ? 13.0 : 0.0);
    }
}

const double *attn_pseudo_inverse(const attn_kernels *kernels, size_t n, const double *a,
                                  double *room)
{
    const squares m = divide(kernels, n, room);
    const largest l = largest_sums(&m, a);
    const double factor = 1.0 / (l.row_sum * l.column_sum);
    double *s = m.temporary[0], *e = m.temporary[1], *p = m.temporary[2];
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) s[j * m.row + i] = factor * a[i * m.row + j];
    multiply_upper(&m, a, s, m.y);
    FOR_PAIRS(&m) m.y[turned] = m.y[at];
    for (size_t k = 0; k < STEPS; k++) {
        double *y = m.y + k * m.count, *next_y = y + m.count, *next_r = m.r + k * m.count;
        step_squares(&m, y, s, e);
        step_polynomial(&m, y, s, p);
        if (k > 0) multiply_upper(&m, next_r - m.count, p, next_r);
        const double *product = k > 0 ? next_r : p;
        FOR_PAIRS(&m) next_r[turned] = next_r[at] = 0.25 * product[at];
        if (k + 1 == STEPS) break;
        multiply_upper(&m, e, e, next_y);
        FOR_PAIRS(&m)
        {
            next_y[turned] = next_y[at] = 0.25 * (13.0 * y[at] - 2.75 * s[at] - next_y[at]);
        }
    }
    kernels->product_double(n, n, n, a, 1, m.row, m.r + (STEPS - 1) * m.count, m.row, s, m.row,
                            false);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) s[i * m.row + j] *= factor;
    return s;
}

/* The gradients on their way back through the steps, and matrices to work in. */
typedef struct gradients {
    double *dr, *dy;
    double *s, *e, *w, *spare;
} gradients;

/* Through step k. Behind the last one dY' is 0; before the first one R is the unit matrix. */
static void step_gradient(const squares *m, size_t k, gradients *g)
{
    const double *y = m->y + k * m->count;
    double *r = m->r + (k > 0 ? k - 1 : 0) * m->count, *s = g->s, *e = g->e, *w = g->w;
    const bool is_last = k + 1 == STEPS;
    step_squares(m, y, s, e);
    if (!is_last) multiply(m, g->dy, e, w);
    double *ds = e; /* twice what E adds to dS */
    if (!is_last) FOR_PAIRS(m)
        {
            const double de = -0.25 * (w[at] + w[turned]), dy = g->dy[at];
            ds[turned] = ds[at] = 2.0 * de - 1.375 * dy;
            g->dy[turned] = g->dy[at] = 3.25 * dy - 3.5 * de;
        }
    double *dp = g->dr;
    if (k > 0) {
        double *p = g->spare;
        step_polynomial(m, y, s, p);
        multiply(m, g->dr, p, w);
        FOR_PAIRS(m) p[turned] = p[at] = 0.125 * (w[at] + w[turned]);
        multiply(m, g->dr, r, w);
        g->dr = p;
        g->spare = dp;
        FOR_PAIRS(m) dp[turned] = dp[at] = 0.125 * (w[at] + w[turned]);
    } else {
        FOR_PAIRS(m) dp[turned] = dp[at] = 0.25 * dp[at];
    }
    multiply(m, dp, y, w);
    FOR_PAIRS(m)
    {
        const double known = 14.0 * dp[at] + (is_last ? 0.0 : ds[at]), mean = w[at] + w[turned];
        ds[at] = known - mean - w[at];
        ds[turned] = known - mean - w[turned];
    }
    multiply(m, ds, y, w);
    if (is_last) g->dy = r; /* which is done with */
    FOR_PAIRS(m)
    {
        const double known = is_last ? 0.0 : g->dy[at];
        g->dy[turned] = g->dy[at] = known - 15.0 * dp[at] + 0.5 * (w[at] + w[turned]);
    }
}

static double sum_products(const squares *m, const double *a, const double *b)
{
    double sum = 0.0;
    for (size_t i = 0; i < m->n; i++)
        for (size_t j = 0; j < m->n; j++) sum += a[i * m->row + j] * b[i * m->row + j];
    return sum;
}

void attn_pseudo_inverse_gradient(const attn_kernels *kernels, size_t n, const double *a,
                                  double *room, double *dz, double *da)
{
    const squares m = divide(kernels, n, room);
    const largest l = largest_sums(&m, a);
    const double factor = 1.0 / (l.row_sum * l.column_sum);
    double *r = m.r + (STEPS - 1) * m.count;
    gradients g = {.s = m.temporary[0], .e = m.temporary[1], .dr = m.temporary[2]};
    /* Z = f A^T R */
    multiply(&m, a, dz, g.dr);
    FOR_PAIRS(&m) g.dr[turned] = g.dr[at] = 0.5 * factor * (g.dr[at] + g.dr[turned]);
    multiply(&m, dz, r, da);
    double along = sum_products(&m, g.dr, r);
    g.w = dz;
    g.spare = r;
    for (size_t k = STEPS; k-- > 0;) step_gradient(&m, k, &g);
    /* Y = f A A^T */
    along += sum_products(&m, g.dy, m.y);
    multiply(&m, g.dy, a, g.w);
    FOR_PAIRS(&m)
    {
        const double upper = da[at], lower = da[turned];
        da[at] = factor * (2.0 * g.w[at] + lower);
        da[turned] = factor * (2.0 * g.w[turned] + upper);
    }
    for (size_t i = 0; i < n; i++) {
        da[l.row * m.row + i] -= along / l.row_sum;
        da[i * m.row + l.column] -= along / l.column_sum;
    }
}

attn_work attn_pseudo_inverse_work(uint64_t n)
{
    const uint64_t half = n * (n + 1) / 2, upper = upper_work(n);
    /* sums and their comparison, f A^T, f; E, P, R' and Y' */
    return (attn_work){.matmul = (4 * STEPS - 1) * upper + 2 * n * n * n,
                       .other = 4 * n * n + 2 * n + STEPS * (8 * half) + (STEPS - 1) * 5 * half};
}

attn_work attn_pseudo_inverse_gradient_work(uint64_t n)
{
    const uint64_t half = n * (n + 1) / 2, square = 2 * n * n * n;
    /* Products: three at the ends; dY' E, dR' P, dR' R of all steps but one, and two of each.
     * The rest: sums of A and dR, along, da; E, dE, P, dR, dP, dS and dY */
    return (attn_work){.matmul = (3 + 3 * (STEPS - 1) + 2 * STEPS) * square +
                                 (2 * STEPS - 1) * upper_work(n),
                       .other = 8 * n * n + 6 * n + STEPS * 20 * half + (STEPS - 1) * 15 * half};
}
