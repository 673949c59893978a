/* The tile engine: softmax attention over blocks of queries and keys, with tiles that nobody
 * sees left out, in float32.
 *
 * Forward, FlashAttention-2 (Dao 2023, algorithm 1), for a block of queries:
 *     S = Q K_j^T, P = exp(scale S - c), O += P V_j over key tiles j, with the running maximum c
 *     and total l of each row; O / l at the end. c and l are saved (not c + log l: with logits of
 *     1e4 the rounding of their sum would cost three digits of P in the backward pass).
 * Backward recomputes P. With dO' = dO / l and delta = rowsum(dO' o O):
 *     dV_j += P^T dO',  dS = P o (dO' V_j^T - delta),  dQ += scale dS K_j,  dK_j += scale dS^T Q
 * One task owns a key/value head with all its query heads, so sums have one order whatever the
 * number of threads. */
#ifndef MECHANISMS_TILE_ENGINE_H
#define MECHANISMS_TILE_ENGINE_H

#include "mechanisms/mechanism.h"
#include "mechanisms/visibility.h"

enum { ATTN_TILE_KEYS = 64, ATTN_TILE_QUERIES = 64 };

typedef enum attn_tile_order {
    ATTN_TILE_ONLINE, /* key tile after key tile, online softmax */
    ATTN_TILE_ROWS    /* whole rows of scores, one softmax */
} attn_tile_order;

size_t attn_tile_saved(const attn_layer *layer, size_t batch, size_t length);
size_t attn_tile_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length);
void attn_tile_forward(const attn_core_call *call, const attn_visibility *rule,
                       attn_tile_order order);
void attn_tile_backward(const attn_core_call *call, const attn_visibility *rule);
attn_work attn_tile_work(const attn_layer *layer, const attn_visibility *rule,
                         attn_tile_order order, attn_phase phase, size_t batch, size_t length,
                         const uint32_t *document_start);

/* Floats of one worker's memory in the backward pass. */
size_t attn_tile_backward_worker(const attn_layer *layer, size_t length);

/* The rule that decides which tiles are walked: with documents and sinks any earlier tile may
 * hold a document's sinks. */
attn_visibility attn_tile_walk(const attn_visibility *rule, bool has_documents);

/* Must scores of a walked tile with keys from j0 be hidden one by one? `is_full` is by the walk,
 * which may be wider than the rule; `last_document` is where the last query's document starts. */
static inline bool attn_tile_hides(const attn_visibility *rule, const attn_visibility *walk,
                                   bool is_full, size_t j0, size_t last_document)
{
    return !is_full || walk->window != rule->window || last_document > j0;
}

/* Copies one head, rows apart by `row`, to [rows][n] without gaps. */
void attn_copy_head(size_t rows, size_t n, const float *from, size_t row, float *to);

/* Packs one head's rows [length][n] as transposed tiles: tile t holds [n][ATTN_TILE_KEYS] from
 * row t * ATTN_TILE_KEYS on. */
void attn_pack_transposed(const attn_kernels *kernels, size_t length, size_t n, const float *from,
                          size_t row, float *to);
/* Floats of such a packing. */
size_t attn_packed_count(size_t length, size_t n);

#endif
