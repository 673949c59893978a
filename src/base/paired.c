/* Paired comparison: sign test by default, bootstrap on request. */
#include "base/paired.h"

#include "base/random.h"
#include "base/statistics.h"

#include <math.h>
#include <string.h>

enum { RESAMPLES = 10000 };

/* ---- the exact interval ------------------------------------------------------------------- */

/* The largest k with 2 P(Binomial(n, 1/2) < k) <= level; 0 when there is none. */
static size_t sign_rank(size_t n, double level)
{
    double outside = 0.0;
    size_t k = 0;
    for (; k < n / 2; k++) {
        const double log_choose =
            lgamma((double)n + 1.0) - lgamma((double)k + 1.0) - lgamma((double)(n - k) + 1.0);
        outside += exp(log_choose - (double)n * log(2.0));
        if (2.0 * outside > level * (1.0 + 1e-9)) break;
    }
    return k;
}

/* ---- bootstrap ---------------------------------------------------------------------------- */

static double normal_below(double x)
{
    return 0.5 * erfc(-x / sqrt(2.0));
}

/* The inverse, by halving: some thousand times in a program's life. */
static double normal_quantile(double p)
{
    double low = -10.0, high = 10.0;
    for (int i = 0; i < 80; i++) {
        const double middle = 0.5 * (low + high);
        if (normal_below(middle) < p)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}

/* Acceleration from the jackknife of the median. */
static double acceleration(const double *sorted, size_t n)
{
    double values[ATTN_PAIRS_MAX], mean = 0.0, cubes = 0.0, squares = 0.0;
    for (size_t left_out = 0; left_out < n; left_out++) {
        double rest[ATTN_PAIRS_MAX];
        memcpy(rest, sorted, left_out * sizeof *rest);
        memcpy(rest + left_out, sorted + left_out + 1, (n - left_out - 1) * sizeof *rest);
        values[left_out] = attn_statistics_median(rest, n - 1);
        mean += values[left_out] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        const double d = mean - values[i];
        squares += d * d;
        cubes += d * d * d;
    }
    return squares > 0.0 ? cubes / (6.0 * pow(squares, 1.5)) : 0.0;
}

static void bootstrap(const double *sorted, size_t n, const attn_paired_options *options,
                      double level, double *low, double *high)
{
    static _Thread_local double medians[RESAMPLES];
    const double median = attn_statistics_median(sorted, n);
    double below = 0.0;
    for (size_t r = 0; r < RESAMPLES; r++) {
        double draw[ATTN_PAIRS_MAX];
        const uint64_t stream = attn_random_stream(ATTN_RANDOM_BOOTSTRAP, (uint32_t)r);
        for (size_t i = 0; i < n; i++)
            draw[i] = sorted[attn_random_below(options->seed, stream, i, n)];
        attn_statistics_sort(draw, n);
        medians[r] = attn_statistics_median(draw, n);
        below += medians[r] < median ? 1.0 : medians[r] > median ? 0.0 : 0.5; /* ties count half */
    }
    attn_statistics_sort(medians, RESAMPLES);
    const double bias = normal_quantile(below / RESAMPLES);
    const double a = acceleration(sorted, n);
    const double tails[] = {normal_quantile(0.5 * level), normal_quantile(1.0 - 0.5 * level)};
    double bounds[2];
    for (size_t t = 0; t < 2; t++) {
        const double z = bias + tails[t];
        bounds[t] =
            attn_statistics_quantile(medians, RESAMPLES, normal_below(bias + z / (1.0 - a * z)));
    }
    *low = bounds[0];
    *high = bounds[1];
}

/* ---- the comparison ----------------------------------------------------------------------- */

static attn_paired_verdict judge(const attn_paired *pair, double floor)
{
    if (pair->is_exact && pair->ratio == 1.0) return ATTN_VERDICT_NOT_RESOLVED;
    if (isnan(pair->low)) return ATTN_VERDICT_TOO_FEW;
    const double low = log(pair->low), high = log(pair->high);
    if (low > 0.0 && fabs(log(pair->ratio)) > floor) return ATTN_VERDICT_HIGHER;
    if (high < 0.0 && fabs(log(pair->ratio)) > floor) return ATTN_VERDICT_LOWER;
    return ATTN_VERDICT_NOT_RESOLVED;
}

attn_paired attn_paired_compare(const double *a, const double *b, size_t n,
                                const attn_paired_options *options)
{
    double logs[ATTN_PAIRS_MAX], sum = 0.0, squares = 0.0;
    attn_paired pair = {
        .ratio = NAN, .low = NAN, .high = NAN, .least = NAN, .greatest = NAN, .spread = NAN};
    const double all = options->level > 0.0 ? options->level : 0.05;
    pair.level = all / (double)(options->comparisons > 0 ? options->comparisons : 1);
    for (size_t i = 0; i < n && pair.n < ATTN_PAIRS_MAX; i++)
        if (a[i] > 0.0 && b[i] > 0.0 && isfinite(a[i]) && isfinite(b[i]))
            logs[pair.n++] = log(a[i] / b[i]);
    if (pair.n == 0) return pair;
    for (size_t i = 0; i < pair.n; i++) sum += logs[i] / (double)pair.n;
    for (size_t i = 0; i < pair.n; i++) squares += (logs[i] - sum) * (logs[i] - sum);
    if (pair.n > 1) pair.spread = sqrt(squares / (double)(pair.n - 1));
    attn_statistics_sort(logs, pair.n);
    pair.least = exp(logs[0]);
    pair.greatest = exp(logs[pair.n - 1]);
    pair.is_exact = logs[0] == logs[pair.n - 1];
    pair.ratio = exp(attn_statistics_median(logs, pair.n));
    const size_t rank = sign_rank(pair.n, pair.level);
    /* The rule of six pairs holds for the bootstrap too: below it resamples only repeat. */
    if (rank > 0 && options->kind == ATTN_INTERVAL_BOOTSTRAP) {
        bootstrap(logs, pair.n, options, pair.level, &pair.low, &pair.high);
    } else if (rank > 0) {
        pair.low = logs[rank - 1];
        pair.high = logs[pair.n - rank];
    }
    pair.low = exp(pair.low);
    pair.high = exp(pair.high);
    pair.verdict = judge(&pair, options->floor);
    return pair;
}

/* P(Binomial(n, p) < k) */
static double binomial_below(size_t n, double p, size_t k)
{
    double sum = 0.0;
    for (size_t i = 0; i < k; i++)
        sum +=
            exp(lgamma((double)n + 1.0) - lgamma((double)i + 1.0) - lgamma((double)(n - i) + 1.0) +
                (double)i * log(p) + (double)(n - i) * log1p(-p));
    return sum;
}

/* With normal log ratios a pair falls on the wrong side of 1 with probability `wrong`; the test
 * speaks when fewer than its rank do. Above some hundred pairs the normal approximation serves:
 * 2.8 = 1.96 + 0.84, and the sign test needs pi / 2 times the pairs of a mean. */
size_t attn_paired_rounds_needed(double spread, double resolution)
{
    enum { EXACT_MOST = 300 };
    if (!(spread >= 0.0) || !(resolution > 0.0)) return 0;
    const double wrong = fmax(normal_below(-log1p(resolution) / fmax(spread, 1e-300)), 1e-300);
    for (size_t n = 6; n <= EXACT_MOST; n++)
        if (binomial_below(n, wrong, sign_rank(n, 0.05)) >= 0.8) return n;
    const double needed = 1.5707963 * pow(2.8 * spread / log1p(resolution), 2.0);
    return (size_t)fmin(ceil(needed), 1e9);
}

double attn_paired_floor(const attn_paired *pair)
{
    return fmax(fabs(log(pair->low)), fabs(log(pair->high)));
}
