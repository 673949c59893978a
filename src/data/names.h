/* Byte strings numbered in the order of their first coming: the tokens of a vocabulary, the
 * sources of a data set. Zero-initialise to begin; any bytes may occur in a name. */
#ifndef DATA_NAMES_H
#define DATA_NAMES_H

#include "attn/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct attn_names {
    char *bytes; /* all names, one behind the other */
    size_t n_bytes, bytes_capacity;
    size_t *ends; /* name i ends here, and name i + 1 begins */
    size_t n, capacity;
    uint32_t *slots; /* open addressing: number + 1, 0 = free */
    size_t n_slots;  /* a power of two, at most half full */
} attn_names;

/* The number of a name, which is added when it is new. */
ATTN_MUST_CHECK attn_status attn_names_add(attn_names *names, const char *name, size_t n_bytes,
                                           uint32_t *number, attn_error *error);

/* False when there is no such name. */
bool attn_names_find(const attn_names *names, const char *name, size_t n_bytes, uint32_t *number);

/* The bytes of name `number` < names->n, without a closing NUL; valid until the next addition. */
const char *attn_names_get(const attn_names *names, size_t number, size_t *n_bytes);

void attn_names_free(attn_names *names); /* leaves it empty */

/* A 64-bit hash of any bytes (FNV-1a): fast, and not for identity against an adversary. */
uint64_t attn_hash_bytes(const char *bytes, size_t n_bytes);

#endif
