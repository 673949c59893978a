/* Normal equations by Cholesky; columns are scaled first, so that units do not matter. */
#include "base/least_squares.h"

#include <math.h>

typedef double square[ATTN_UNKNOWNS_MAX][ATTN_UNKNOWNS_MAX];

/* a = l l^T in place, below the diagonal; false when a is singular to working precision. */
static bool decompose(size_t n, square a)
{
    for (size_t j = 0; j < n; j++) {
        double pivot = a[j][j];
        for (size_t k = 0; k < j; k++) pivot -= a[j][k] * a[j][k];
        if (!(pivot > 1e-12)) return false;
        a[j][j] = sqrt(pivot);
        for (size_t i = j + 1; i < n; i++) {
            double sum = a[i][j];
            for (size_t k = 0; k < j; k++) sum -= a[i][k] * a[j][k];
            a[i][j] = sum / a[j][j];
        }
    }
    return true;
}

static void substitute(size_t n, square l, double *x)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) x[i] -= l[i][k] * x[k];
        x[i] /= l[i][i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; k++) x[i] -= l[k][i] * x[k];
        x[i] /= l[i][i];
    }
}

bool attn_least_squares(size_t unknowns, size_t equations, const attn_equation *equation,
                        const double *prior, attn_solution *out)
{
    size_t place[ATTN_UNKNOWNS_MAX], n = 0; /* of the unknowns that are not 0 by their prior */
    double scale[ATTN_UNKNOWNS_MAX], right[ATTN_UNKNOWNS_MAX] = {0};
    square normal = {{0}};
    *out = (attn_solution){0};
    for (size_t k = 0; k < unknowns; k++)
        if (prior[k] > 0.0) place[n++] = k;
    for (size_t e = 0; e < equations; e++)
        for (size_t i = 0; i < n; i++) {
            const double factor = equation[e].factor[place[i]] / equation[e].error;
            right[i] += factor * equation[e].value / equation[e].error;
            for (size_t j = 0; j <= i; j++)
                normal[i][j] += factor * equation[e].factor[place[j]] / equation[e].error;
        }
    for (size_t i = 0; i < n; i++) {
        normal[i][i] += 1.0 / (prior[place[i]] * prior[place[i]]);
        if (!(normal[i][i] > 0.0) || !isfinite(normal[i][i]) || !isfinite(right[i])) return false;
        scale[i] = 1.0 / sqrt(normal[i][i]);
    }
    for (size_t i = 0; i < n; i++) {
        right[i] *= scale[i];
        for (size_t j = 0; j <= i; j++) normal[i][j] *= scale[i] * scale[j];
    }
    if (!decompose(n, normal)) return false;
    substitute(n, normal, right);
    for (size_t i = 0; i < n; i++) {
        double unit[ATTN_UNKNOWNS_MAX] = {0};
        unit[i] = 1.0;
        substitute(n, normal, unit);
        out->x[place[i]] = scale[i] * right[i];
        out->deviation[place[i]] = scale[i] * sqrt(unit[i]);
    }
    return true;
}
