/* Which keys a query sees, by position alone: causal order, windows, sinks, documents.
 * The one place for the rule, its tiles and its pairs. */
#ifndef MECHANISMS_VISIBILITY_H
#define MECHANISMS_VISIBILITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATTN_NO_WINDOW SIZE_MAX

/* Causal: query i sees key j <= i with i - j < window, or j < sinks. Bidirectional: |i - j| <
 * window, or j < sinks, or i < sinks. */
typedef struct attn_visibility {
    bool is_causal;
    size_t window; /* >= 1; ATTN_NO_WINDOW: all */
    size_t sinks;
} attn_visibility;

typedef enum attn_tile_kind { ATTN_TILE_EMPTY, ATTN_TILE_PARTIAL, ATTN_TILE_FULL } attn_tile_kind;

/* `document` is the first position of query i's document: keys before it are not seen, and
 * sinks are the document's first tokens. */
bool attn_is_visible(const attn_visibility *rule, size_t i, size_t j, size_t document);

/* What queries [i0, i0 + ni) see of keys [j0, j0 + nj) within one document. */
attn_tile_kind attn_tile_of(const attn_visibility *rule, size_t i0, size_t ni, size_t j0, size_t nj);

/* Sets scores[0..nj) of query i and keys j0.. to -inf where the key is not seen. */
void attn_hide(const attn_visibility *rule, size_t i, size_t j0, size_t nj, size_t document,
               float *scores);

/* Tiles that a walk over block_q x block_k tiles of a T x T square executes. */
typedef struct attn_tile_count {
    uint64_t elements;   /* executed pairs: tile areas, ragged edges as they are */
    uint64_t row_visits; /* query rows summed over tiles */
    uint64_t masked;     /* elements of partial tiles */
} attn_tile_count;

attn_tile_count attn_count_tiles(const attn_visibility *rule, size_t length, size_t block_q,
                                 size_t block_k);

/* Visible pairs of a T x T square: the useful work. */
uint64_t attn_count_pairs(const attn_visibility *rule, size_t length);

#endif
