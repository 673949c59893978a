/* The one comparison. Written so that no NaN gets through: errors are accepted by `<=`, never
 * refused by `>`, and the maximum keeps a NaN that it has met. */
#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static double at(check_numbers v, size_t i)
{
    return v.single ? (double)v.single[i] : v.real[i];
}

/* |got - want|; infinity where one of them is infinite or NaN and the other is not the same. */
static double difference(double got, double want, bool nan_is_wanted)
{
    if (isnan(want)) return isnan(got) && nan_is_wanted ? 0.0 : INFINITY;
    if (isinf(want) || isinf(got)) return got == want ? 0.0 : INFINITY;
    return fabs(got - want); /* NaN when got is */
}

static double share_of(double error, double tolerance)
{
    return error == 0.0 ? 0.0 : error / tolerance; /* 0 / 0 is no error; x / 0 is infinite */
}

typedef struct worst {
    double share;
    size_t index;
} worst;

static void keep_worst(worst *w, double share, size_t index)
{
    if (isnan(w->share) || share <= w->share) return;
    w->share = share;
    w->index = index;
}

double check_norm(size_t n, check_numbers values)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += at(values, i) * at(values, i);
    return sqrt(sum);
}

static void record_share(check_run *run, double share, const char *what)
{
    check_result *r = run->result;
    if (isnan(r->worst) || share <= r->worst) return;
    r->worst = share;
    snprintf(r->worst_where, sizeof r->worst_where, "%.80s, %.160s", what, r->now);
}

bool check_compare(check_run *run, size_t n, check_numbers got, check_numbers want, check_rule rule,
                   const char *format, ...)
{
    char what[CHECK_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);

    worst element = {0};
    double squares = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = difference(at(got, i), at(want, i), rule.nan_is_wanted);
        squares += d * d;
        keep_worst(&element, rule.bounds ? share_of(d, rule.bounds[i]) : d, i);
    }
    double share = element.share;
    if (!rule.bounds) {
        const double scale = fmax(check_norm(n, want), rule.floor);
        share = share_of(sqrt(squares), rule.tolerance * scale);
    }
    record_share(run, share, what);
    const size_t i = element.index;
    return check_that(run, share <= 1.0,
                      "%s: %.3g of the tolerance; worst at %zu of %zu: got %.9g, want %.9g", what,
                      share, i, n, n ? at(got, i) : 0.0, n ? at(want, i) : 0.0);
}

bool check_same_bits(check_run *run, size_t n, const float *got, const float *want,
                     const char *format, ...)
{
    char what[CHECK_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    size_t i = 0;
    while (i < n && memcmp(got + i, want + i, sizeof *got) == 0) i++;
    return check_that(run, i == n, "%s: bits differ first at %zu of %zu: got %.9g, want %.9g", what,
                      i, n, i < n ? (double)got[i] : 0.0, i < n ? (double)want[i] : 0.0);
}
