/* Merging of byte pairs. All occurrences of a pair merge before any later merge: a merge makes
 * only pairs that contain its result, and those have higher numbers than itself. So picking one
 * pair at a time, lowest first and then leftmost, equals GPT-2's pass over the whole word. */
#include "data/bpe.h"

#include "base/error.h"
#include "base/memory.h"

#include <string.h>

enum { SLOT_BITS = 17, SHORT_WORD = 48 };

attn_status attn_merges_create(attn_merges *merges, attn_error *error)
{
    merges->slots =
        attn_alloc_array(ATTN_MEMORY_OTHER, (size_t)1 << SLOT_BITS, sizeof *merges->slots);
    if (!merges->slots) return attn_fail(error, ATTN_EMEMORY, "no memory for the merge table");
    return ATTN_OK;
}

void attn_merges_free(attn_merges *merges)
{
    attn_free(merges->slots);
    merges->slots = NULL;
}

static size_t slot_of(const attn_merges *merges, uint32_t pair)
{
    const size_t last = ((size_t)1 << SLOT_BITS) - 1;
    size_t slot = pair * 0x9E3779B1u >> (32 - SLOT_BITS);
    while (merges->slots[slot].result != 0 && merges->slots[slot].pair != pair)
        slot = (slot + 1) & last;
    return slot;
}

void attn_merges_add(attn_merges *merges, uint16_t left, uint16_t right, uint16_t result)
{
    const uint32_t pair = (uint32_t)left << 16 | right;
    struct attn_merge *slot = &merges->slots[slot_of(merges, pair)];
    if (slot->result == 0) *slot = (struct attn_merge){.pair = pair, .result = result};
}

uint16_t attn_merges_find(const attn_merges *merges, uint16_t left, uint16_t right)
{
    const uint32_t result = merges->slots[slot_of(merges, (uint32_t)left << 16 | right)].result;
    return result == 0 ? ATTN_NO_MERGE : (uint16_t)result;
}

static size_t merge_short(const attn_merges *merges, uint16_t *ids, size_t n)
{
    uint16_t results[SHORT_WORD]; /* of ids[i] with ids[i + 1] */
    for (size_t i = 0; i + 1 < n; i++) results[i] = attn_merges_find(merges, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (results[i] < results[best]) best = i;
        if (results[best] == ATTN_NO_MERGE) break;
        ids[best] = results[best];
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) {
            memmove(results + best + 1, results + best + 2, (n - best - 2) * sizeof *results);
            results[best] = attn_merges_find(merges, ids[best], ids[best + 1]);
        }
        if (best > 0) results[best - 1] = attn_merges_find(merges, ids[best - 1], ids[best]);
    }
    return n;
}

/* ---- long words: a linked list of tokens and a heap of (result, position) ---------------- */

static attn_status make_room(attn_bpe_scratch *scratch, size_t n, attn_error *error)
{
    if (n <= scratch->capacity) return ATTN_OK;
    attn_bpe_scratch_free(scratch);
    /* n - 1 pairs to begin with, and each of at most n - 1 merges takes one and adds two */
    scratch->heap = attn_alloc_array(ATTN_MEMORY_OTHER, n, 2 * sizeof *scratch->heap);
    scratch->previous = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *scratch->previous);
    scratch->next = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *scratch->next);
    if (!scratch->heap || !scratch->previous || !scratch->next) {
        attn_bpe_scratch_free(scratch);
        return attn_fail(error, ATTN_EMEMORY, "no memory to encode a word of %zu bytes", n);
    }
    scratch->capacity = n;
    return ATTN_OK;
}

static void heap_push(uint64_t *heap, size_t *n, uint64_t key)
{
    size_t at = (*n)++;
    for (; at > 0 && heap[(at - 1) / 2] > key; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    const uint64_t top = heap[0], key = heap[--*n];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < *n; at = child) {
        if (child + 1 < *n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= key) break;
        heap[at] = heap[child];
    }
    heap[at] = key;
    return top;
}

enum { RESULT_SHIFT = 48 }; /* heap keys: result above, position below */

static void push_pair(const attn_merges *merges, attn_bpe_scratch *scratch, size_t *n_heap,
                      const uint16_t *ids, size_t left, size_t right)
{
    const uint16_t result = attn_merges_find(merges, ids[left], ids[right]);
    if (result != ATTN_NO_MERGE)
        heap_push(scratch->heap, n_heap, (uint64_t)result << RESULT_SHIFT | left);
}

static attn_status merge_long(const attn_merges *merges, attn_bpe_scratch *scratch, uint16_t *ids,
                              size_t *n, attn_error *error)
{
    const size_t end = *n; /* no token: behind the last one */
    if (end >= UINT32_MAX)
        return attn_fail(error, ATTN_ESHAPE, "a word of %zu bytes is longer than 4 GiB", end);
    const attn_status status = make_room(scratch, end, error);
    if (status != ATTN_OK) return status;
    uint32_t *previous = scratch->previous, *next = scratch->next;
    size_t n_heap = 0;
    for (size_t i = 0; i < end; i++) {
        previous[i] = (uint32_t)i - 1; /* of 0: never read */
        next[i] = (uint32_t)i + 1;
        if (i + 1 < end) push_pair(merges, scratch, &n_heap, ids, i, i + 1);
    }
    while (n_heap > 0) {
        const uint64_t key = heap_pop(scratch->heap, &n_heap);
        const size_t left = (size_t)(key & (((uint64_t)1 << RESULT_SHIFT) - 1));
        const uint16_t result = (uint16_t)(key >> RESULT_SHIFT);
        /* Entries are not taken out when their pair goes: they are recognised here. Tokens that
         * were merged into the one before them have ATTN_NO_MERGE for an id. */
        if (ids[left] == ATTN_NO_MERGE || next[left] == end) continue;
        const size_t right = next[left];
        if (attn_merges_find(merges, ids[left], ids[right]) != result) continue;
        ids[left] = result;
        ids[right] = ATTN_NO_MERGE;
        next[left] = next[right];
        if (next[left] != end) {
            previous[next[left]] = (uint32_t)left;
            push_pair(merges, scratch, &n_heap, ids, left, next[left]);
        }
        if (left > 0) push_pair(merges, scratch, &n_heap, ids, previous[left], left);
    }
    *n = 0;
    for (size_t i = 0; i != end; i = next[i]) ids[(*n)++] = ids[i];
    return ATTN_OK;
}

void attn_bpe_scratch_free(attn_bpe_scratch *scratch)
{
    attn_free(scratch->heap);
    attn_free(scratch->previous);
    attn_free(scratch->next);
    *scratch = (attn_bpe_scratch){0};
}

attn_status attn_bpe_merge(const attn_merges *merges, attn_bpe_scratch *scratch, uint16_t *ids,
                           size_t *n, attn_error *error)
{
    if (*n > SHORT_WORD) return merge_long(merges, scratch, ids, n, error);
    *n = merge_short(merges, ids, *n);
    return ATTN_OK;
}
