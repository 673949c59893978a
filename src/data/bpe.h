/* Byte pair encoding of one word: the merge table and the merging itself. */
#ifndef DATA_BPE_H
#define DATA_BPE_H

#include "attn/status.h"

#include <stddef.h>
#include <stdint.h>

/* Which pair of tokens becomes which token. Of two merges the one with the lower result comes
 * first: GPT-2 numbers tokens in the order of its merges. */
typedef struct attn_merges {
    struct attn_merge {
        uint32_t pair;   /* left << 16 | right */
        uint32_t result; /* 0 = free slot: no merge makes token 0 */
    } * slots;
} attn_merges;

enum { ATTN_NO_MERGE = UINT16_MAX };

ATTN_MUST_CHECK attn_status attn_merges_create(attn_merges *merges, attn_error *error);
void attn_merges_free(attn_merges *merges);

/* At most 65,535 of them; a pair that is there already stays as it is. */
void attn_merges_add(attn_merges *merges, uint16_t left, uint16_t right, uint16_t result);

/* ATTN_NO_MERGE when the pair stays apart. */
uint16_t attn_merges_find(const attn_merges *merges, uint16_t left, uint16_t right);

/* Memory of the merging, kept from word to word. Zero-initialise. */
typedef struct attn_bpe_scratch {
    uint64_t *heap;
    uint32_t *previous, *next;
    size_t capacity; /* tokens */
} attn_bpe_scratch;

void attn_bpe_scratch_free(attn_bpe_scratch *scratch);

/* Merges ids[0..*n) in place, lowest result first and leftmost among equals, until no pair is
 * left that merges. Short words by scanning, long ones with a heap: n log n. */
ATTN_MUST_CHECK attn_status attn_bpe_merge(const attn_merges *merges, attn_bpe_scratch *scratch,
                                           uint16_t *ids, size_t *n, attn_error *error);

#endif
