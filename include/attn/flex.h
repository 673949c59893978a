/* Attention with a score function and a mask of the caller's own. */
#ifndef ATTN_FLEX_H
#define ATTN_FLEX_H

#include "attn/layer.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * What a caller adds to the mechanism "flex". Both functions work on a stretch of one query's
 * keys: `key`, key + 1, ..., key + count - 1, of one head. Positions count from the start of the
 * token's document. They are called from several threads at once, for the same pairs in the
 * forward and in the backward pass, and must answer by their arguments alone.
 */
typedef struct attn_flex {
    /** s[0..count) holds scores q.k / sqrt(d) and becomes f(s); slope[0..count), when not NULL,
     *  becomes the derivative f'(s). Both are finite whenever s is. NULL: the option `score`. */
    void (*score)(void *user, size_t head, size_t query, size_t key, size_t count, float *s,
                  float *slope);
    /** Clears seen[0..count), true before, for keys that the query does not see; the option
     *  `mask` hides what it hides all the same. A query may be left without keys: its output is
     *  0 then. NULL: the option alone. */
    void (*mask)(void *user, size_t head, size_t query, size_t key, size_t count, bool *seen);
    void *user; /**< handed to both; must outlive the layer */
} attn_flex;

/**
 * As attn_layer_create() with the mechanism "flex", with the caller's functions.
 *
 * The layer computes, differentiates, decodes and counts as any other. Work inside the functions
 * is not counted. Tiles of 64 x 64 pairs of which `mask` leaves nothing are not computed.
 *
 * @param config in  `mechanism` is "flex"; `options` may set `mask`, and `score` without a function.
 * @param flex   in  copied.
 */
ATTN_MUST_CHECK attn_status attn_layer_create_flex(attn_layer **out,
                                                   const attn_layer_config *config,
                                                   const attn_flex *flex, attn_error *error);

#ifdef __cplusplus
}
#endif
#endif
