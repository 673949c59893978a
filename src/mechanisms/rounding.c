/* bfloat16 numbers nearest to, or around, doubles. */
#include "mechanisms/rounding.h"

#include "base/random.h"

#include <math.h>

enum { SIGNIFICAND_BITS = 8 };

void attn_rounding_apply(attn_rounding rounding, uint32_t stream, size_t n, double *x)
{
    const uint64_t random = attn_random_stream(ATTN_RANDOM_TEST, stream);
    for (size_t i = 0; i < n && rounding.mode != ATTN_ROUND_NOT; i++) {
        int exponent = 0;
        frexp(x[i], &exponent);
        const double steps = ldexp(x[i], SIGNIFICAND_BITS - exponent);
        const double whole = rounding.mode == ATTN_ROUND_NEAREST
                                 ? nearbyint(steps)
                                 : floor(steps + attn_random_uniform(rounding.seed, random, i));
        x[i] = ldexp(whole, exponent - SIGNIFICAND_BITS);
    }
}
