/* Which keys a query sees: what every rule of visibility answers to the tile engine, to caches
 * and to oracles. Positions are those in the sequence; a rule may differ from head to head. */
#ifndef MECHANISMS_MASK_H
#define MECHANISMS_MASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Queries [i0, i0 + ni) and keys [j0, j0 + nj). */
typedef struct attn_tile {
    size_t i0, ni, j0, nj;
} attn_tile;

typedef enum attn_tile_kind { ATTN_TILE_EMPTY, ATTN_TILE_PARTIAL, ATTN_TILE_FULL } attn_tile_kind;

/* In all three, `document` is the first position of query i's document; keys before it are not
 * seen, and a rule that depends on positions counts them from there. */
typedef struct attn_mask {
    const void *rule;
    bool is_by_head; /* false: the same for every head */
    /* The definition, for oracles. */
    bool (*sees)(const void *rule, size_t head, size_t i, size_t j, size_t document);
    /* What the tile's queries see of its keys: EMPTY tiles are left out, in FULL ones nothing is
     * hidden but keys before a document, and PARTIAL is right when in doubt. `documents` holds
     * the first position of every query's document; NULL: all are 0. */
    attn_tile_kind (*tile)(const void *rule, size_t head, const attn_tile *tile,
                           const uint32_t *documents);
    /* Sets scores[0..nj) of query i and keys j0.. to -inf where the key is not seen. */
    void (*hide)(const void *rule, size_t head, size_t i, size_t j0, size_t nj, size_t document,
                 float *scores);
} attn_mask;

/* How a core computes the pairs of query and key that its mask shows. */
typedef enum attn_walk {
    ATTN_WALK_NONE,   /* it has no pairs */
    ATTN_WALK_SQUARE, /* all T S of them, whatever is hidden */
    ATTN_WALK_ROWS,   /* tiles of the engine, each row whole */
    ATTN_WALK_ONLINE, /* tiles of the engine with an online softmax */
    ATTN_WALK_SCORED  /* the same with a function of each score */
} attn_walk;

#endif
