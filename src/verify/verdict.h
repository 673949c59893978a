/* How verdicts come about: one comparison after the other. */
#ifndef VERIFY_VERDICT_H
#define VERIFY_VERDICT_H

#include "verify/verify.h"

/* A relative error: fails unless it is at most the tolerance; NaN fails. `format` says what was
 * compared. */
void attn_verdict_error(attn_verdict *verdict, double error, double tolerance, const char *format,
                        ...) ATTN_PRINTF(4, 5);

/* Bits that must be equal. */
void attn_verdict_bits(attn_verdict *verdict, size_t n, const float *got, const float *want,
                       const char *format, ...) ATTN_PRINTF(5, 6);

/* Bits where they are equal, and otherwise a relative error within the tolerance. */
void attn_verdict_same(attn_verdict *verdict, size_t n, const float *got, const float *want,
                       double tolerance, const char *format, ...) ATTN_PRINTF(6, 7);

/* Anything else that must hold. */
void attn_verdict_that(attn_verdict *verdict, bool holds, const char *format, ...)
    ATTN_PRINTF(3, 4);

/* The property means nothing here; what was compared before is forgotten. */
void attn_verdict_skip(attn_verdict *verdict, const char *format, ...) ATTN_PRINTF(2, 3);

/* The worse of two verdicts on one property; a failure of `other` says `name` first. */
void attn_verdict_merge(attn_verdict *verdict, const attn_verdict *other, const char *name);

/* Between two float32 evaluations of the same sums, perhaps in another order. */
#define ATTN_ROUNDING 4e-6

#endif
