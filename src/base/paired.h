/* Two variants measured side by side, round by round: what the pairs say. Ratios are compared as
 * logarithms, so that twice and half are alike, and pairing takes out whatever a round did to
 * both. No function allocates. */
#ifndef BASE_PAIRED_H
#define BASE_PAIRED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ATTN_PAIRS_MAX = 4096 };

typedef enum attn_interval_kind {
    ATTN_INTERVAL_SIGN,     /* exact sign test of the median: no assumption on distributions */
    ATTN_INTERVAL_BOOTSTRAP /* BCa of the median, 10 000 resamples, of the given seed */
} attn_interval_kind;

typedef enum attn_verdict {
    ATTN_VERDICT_TOO_FEW,      /* below 6 pairs, or more for a stricter level: nothing is said */
    ATTN_VERDICT_NOT_RESOLVED, /* the interval holds 1, or lies within the noise floor */
    ATTN_VERDICT_LOWER,        /* a is less than b */
    ATTN_VERDICT_HIGHER
} attn_paired_verdict;

typedef struct attn_paired_options {
    double level;       /* of error, of all comparisons together; 0: 0.05 */
    size_t comparisons; /* that are made at once (Bonferroni); 0: 1 */
    double floor;       /* least |log ratio| that an A/A pair shows resolvable; 0: none */
    attn_interval_kind kind;
    uint64_t seed;
} attn_paired_options;

typedef struct attn_paired {
    size_t n;                /* pairs with two positive, finite values */
    double ratio, low, high; /* median of a / b, and its interval; NaN bounds when too few */
    double least, greatest;  /* ratio of any pair */
    double level;            /* of this comparison */
    double spread;           /* standard deviation of the log ratios, NaN below 2 */
    bool is_exact;           /* all pairs have one and the same ratio: counts, not samples */
    attn_paired_verdict verdict;
} attn_paired;

/* `a[i]` and `b[i]` are of one round. Pairs that are not two positive numbers are left out. */
attn_paired attn_paired_compare(const double *a, const double *b, size_t n,
                                const attn_paired_options *options);

/* Pairs needed to tell a difference of `resolution` (0.01: one percent) in four of five runs, when
 * log ratios spread by `spread`; at least the six that any statement needs. */
size_t attn_paired_rounds_needed(double spread, double resolution);

/* The noise floor of an A/A pair: the bound of |log ratio| that its interval leaves; NaN below six
 * pairs. */
double attn_paired_floor(const attn_paired *pair);

#endif
