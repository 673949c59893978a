/* Pairs of query and key: how many a mask shows, and how many a walk over tiles computes. One
 * count serves every mechanism that has pairs.
 *
 * Queries are the last T of S positions (bottom-right alignment): query i stands at S - T + i. */
#ifndef COST_PAIRS_H
#define COST_PAIRS_H

#include "mechanisms/tile_engine.h"

/* A mask over T queries and S keys, T <= S, with tiles of tile_queries by tile_keys. */
typedef struct attn_cost_pairs {
    attn_mask mask;
    const attn_visibility
        *rule;            /* when the mask is this rule's: counted without walking; or NULL */
    size_t heads;         /* of one sequence */
    size_t queries, keys; /* T, S */
    size_t tile_queries, tile_keys;
} attn_cost_pairs;

/* Masks without a rule are walked tile by tile; above these many tiles a count is refused. */
#define ATTN_COST_TILES_MAX ((uint64_t)1 << 30)
/* And above these many pairs the visible ones of such a mask are not counted. */
#define ATTN_COST_VISITS_MAX ((uint64_t)1 << 28)

/* Pairs that the mask shows, over all heads of one sequence. False: too many to visit. */
bool attn_cost_visible(const attn_cost_pairs *pairs, uint64_t *count);

/* Tiles that are walked, over all heads of one sequence. False: too many to visit. */
bool attn_cost_executed(const attn_cost_pairs *pairs, attn_tile_count *count);

#endif
