/* Verdicts. Errors are accepted by `<=`, never refused by `>`, so that no NaN passes; the first
 * failure keeps its text. */
#include "verify/verdict.h"

#include "verify/compare.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { WHAT_BYTES = 160 };

static void hold(attn_verdict *v)
{
    if (v->outcome != ATTN_OUTCOME_UNCHECKED) return;
    v->outcome = ATTN_OUTCOME_HOLDS;
    v->is_exact = true;
}

static void fail(attn_verdict *v, const char *what, const char *format, ...) ATTN_PRINTF(3, 4);

static void fail(attn_verdict *v, const char *what, const char *format, ...)
{
    if (v->outcome == ATTN_OUTCOME_FAILS) return;
    v->outcome = ATTN_OUTCOME_FAILS;
    const int n = snprintf(v->text, sizeof v->text, "%s", what);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(v->text + n, sizeof v->text - (size_t)n, format, arguments);
    va_end(arguments);
}

#define FORMAT_WHAT(what, format)                                                                  \
    char what[WHAT_BYTES];                                                                         \
    do {                                                                                           \
        va_list arguments;                                                                         \
        va_start(arguments, format);                                                               \
        vsnprintf(what, sizeof what, format, arguments);                                           \
        va_end(arguments);                                                                         \
    } while (0)

static double share(double error, double tolerance)
{
    return error == 0.0 ? 0.0 : error / tolerance;
}

/* Keeps what lies nearer to its tolerance, or further beyond it; a NaN stays. */
static void keep_worst(attn_verdict *v, double error, double tolerance)
{
    if (v->tolerance > 0.0 &&
        (isnan(v->error) || share(error, tolerance) <= share(v->error, v->tolerance)))
        return;
    v->error = error;
    v->tolerance = tolerance;
}

static void compare_error(attn_verdict *v, double error, double tolerance, const char *what)
{
    hold(v);
    v->is_exact = false;
    keep_worst(v, error, tolerance);
    if (!(error <= tolerance))
        fail(v, what, ": error %.2e, tolerance %.0e", fabs(error), tolerance);
}

void attn_verdict_error(attn_verdict *v, double error, double tolerance, const char *format, ...)
{
    FORMAT_WHAT(what, format);
    compare_error(v, error, tolerance, what);
}

/* The first element whose bits differ; n when none does. */
static size_t first_difference(size_t n, const float *got, const float *want)
{
    size_t i = 0;
    while (i < n && memcmp(got + i, want + i, sizeof *got) == 0) i++;
    return i;
}

void attn_verdict_bits(attn_verdict *v, size_t n, const float *got, const float *want,
                       const char *format, ...)
{
    FORMAT_WHAT(what, format);
    hold(v);
    const size_t i = first_difference(n, got, want);
    if (i < n)
        fail(v, what, ": bits differ, first at %zu of %zu: %.9g, not %.9g", i, n, (double)got[i],
             (double)want[i]);
}

void attn_verdict_same(attn_verdict *v, size_t n, const float *got, const float *want,
                       double tolerance, const char *format, ...)
{
    FORMAT_WHAT(what, format);
    hold(v);
    if (first_difference(n, got, want) == n) return;
    compare_error(v, attn_relative_error(n, attn_singles(got), attn_singles(want), 0.0), tolerance,
                  what);
}

void attn_verdict_that(attn_verdict *v, bool holds, const char *format, ...)
{
    FORMAT_WHAT(what, format);
    hold(v);
    if (!holds) fail(v, what, "%s", "");
}

void attn_verdict_skip(attn_verdict *v, const char *format, ...)
{
    *v = (attn_verdict){.outcome = ATTN_OUTCOME_NOT_APPLICABLE};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(v->text, sizeof v->text, format, arguments);
    va_end(arguments);
}

void attn_verdict_merge(attn_verdict *v, const attn_verdict *other, const char *name)
{
    if (attn_outcome_is_exempt(other->outcome)) return;
    if (attn_outcome_is_exempt(v->outcome)) {
        *v = *other;
        return;
    }
    const bool is_exact = v->is_exact && other->is_exact;
    if (other->outcome == ATTN_OUTCOME_FAILS) fail(v, name, ": %.200s", other->text);
    if (other->outcome == ATTN_OUTCOME_UNCHECKED) fail(v, name, ": nothing could be compared");
    if (other->tolerance > 0.0) keep_worst(v, other->error, other->tolerance);
    v->is_exact = is_exact;
}
