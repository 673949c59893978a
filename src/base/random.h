/* Counter-based random numbers (Philox 4x32-10; Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011). A number depends on (seed, stream, index) alone, so results do
 * not depend on the number of threads or on the order of calls. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Streams keep uses apart: two uses with the same seed must not share one. A caller forms a
 * stream from one of these in the high half and its own index (layer, epoch) in the low. */
typedef enum attn_random_use {
    ATTN_RANDOM_PARAMETERS = 1,
    ATTN_RANDOM_SHUFFLE = 2,
    ATTN_RANDOM_SPLIT = 3,
    ATTN_RANDOM_SAMPLING = 4,
    ATTN_RANDOM_SCHEDULE = 5,
    ATTN_RANDOM_TEST = 6,
    ATTN_RANDOM_PATTERN = 7,
    ATTN_RANDOM_BOOTSTRAP = 20
} attn_random_use;

uint64_t attn_random_stream(attn_random_use use, uint32_t index);

/* Four 32-bit words for counter `index` of `stream`. */
void attn_random_words(uint64_t seed, uint64_t stream, uint64_t index, uint32_t words[4]);

/* Uniform integer in [0, bound), bound > 0; the bias is below bound / 2^64. */
uint64_t attn_random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t bound);

/* Uniform in [0, 1), 53 random bits. */
double attn_random_uniform(uint64_t seed, uint64_t stream, uint64_t index);

/* Standard normal: Box-Muller on the words of counter index / 2, the cosine for even indices and
 * the sine for odd ones. */
double attn_random_normal(uint64_t seed, uint64_t stream, uint64_t index);

/* out[i] = scale * normal(seed, stream, i); a parallel region when n is large. */
void attn_random_fill_normal(uint64_t seed, uint64_t stream, double scale, size_t n, float *out);

/* A permutation of 0..n-1 (Fisher-Yates). */
void attn_random_permutation(uint64_t seed, uint64_t stream, size_t n, size_t *out);

#endif
