/* Every heap block of the program, 64-byte aligned and accounted by category.
 *
 * The accounts are process-wide and thread-safe; a trial is one process, so they are the
 * trial's exact memory figures. Blocks of 2 MiB and more ask the kernel for huge pages:
 * page faults cost a third of a training step on virtual machines. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum attn_memory_category {
    ATTN_MEMORY_PARAMETERS,
    ATTN_MEMORY_GRADIENTS,
    ATTN_MEMORY_OPTIMIZER,
    ATTN_MEMORY_ACTIVATIONS, /* what forward keeps for backward */
    ATTN_MEMORY_WORKSPACE,   /* what one call needs and gives back; caches of a library */
    ATTN_MEMORY_OTHER,
    ATTN_MEMORY_CATEGORIES
} attn_memory_category;

typedef struct attn_memory_account {
    size_t current_bytes;
    size_t peak_bytes;
} attn_memory_account;

/* "parameters", "gradients", ... */
const char *attn_memory_category_name(attn_memory_category category);

/* NULL when memory is short, or when this is the call that attn_memory_fail_at() chose.
 * The block is zeroed and 64-byte aligned. size_bytes 0 gives a valid, empty block. */
void *attn_alloc(attn_memory_category category, size_t size_bytes);

/* count * size_bytes with the overflow checked (NULL on overflow). */
void *attn_alloc_array(attn_memory_category category, size_t count, size_t size_bytes);

/* Keeps the category and the first bytes; NULL leaves `block` as it was. `block` may be NULL,
 * then the category is OTHER. Grown bytes are zeroed. */
void *attn_realloc(void *block, size_t size_bytes);

char *attn_strdup(const char *text);
void attn_free(void *block); /* NULL is fine */

/* Bytes of one category, or of all with ATTN_MEMORY_CATEGORIES (whose peak is the peak of the
 * sum, not the sum of the peaks). Counts what was asked for, without headers. */
attn_memory_account attn_memory_usage(attn_memory_category category);

/* Set every peak to its current value, at the start of a phase. */
void attn_memory_reset_peaks(void);

/* Blocks not yet freed, for leak checks in tests. */
size_t attn_memory_live_blocks(void);

/* Make the n-th allocation from now fail (1 = the next); 0 = never. For tests. */
void attn_memory_fail_at(size_t n);

/* a * b and a + b, false on overflow. */
bool attn_size_multiply(size_t a, size_t b, size_t *product);
bool attn_size_add(size_t a, size_t b, size_t *sum);

#endif
