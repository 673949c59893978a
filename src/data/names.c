/* A string table with open addressing. */
#include "data/names.h"

#include "base/error.h"
#include "base/memory.h"

#include <string.h>

uint64_t attn_hash_bytes(const char *bytes, size_t n_bytes)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n_bytes; i++) hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return hash ^ hash >> 32; /* the low bits choose the slot */
}

const char *attn_names_get(const attn_names *names, size_t number, size_t *n_bytes)
{
    const size_t start = number == 0 ? 0 : names->ends[number - 1];
    *n_bytes = names->ends[number] - start;
    return names->bytes + start;
}

/* The slot that holds the name, or the free one where it belongs. */
static size_t slot_of(const attn_names *names, const char *name, size_t n_bytes)
{
    size_t slot = (size_t)attn_hash_bytes(name, n_bytes) & (names->n_slots - 1);
    for (;; slot = (slot + 1) & (names->n_slots - 1)) {
        if (names->slots[slot] == 0) return slot;
        size_t length;
        const char *held = attn_names_get(names, names->slots[slot] - 1, &length);
        if (length == n_bytes && (n_bytes == 0 || memcmp(held, name, n_bytes) == 0)) return slot;
    }
}

bool attn_names_find(const attn_names *names, const char *name, size_t n_bytes, uint32_t *number)
{
    if (names->n_slots == 0) return false;
    const size_t slot = slot_of(names, name, n_bytes);
    if (names->slots[slot] == 0) return false;
    *number = names->slots[slot] - 1;
    return true;
}

static attn_status grow_slots(attn_names *names)
{
    const size_t n_slots = names->n_slots ? 2 * names->n_slots : 64;
    uint32_t *slots = attn_alloc_array(ATTN_MEMORY_OTHER, n_slots, sizeof *slots);
    if (!slots) return ATTN_EMEMORY;
    attn_free(names->slots);
    names->slots = slots;
    names->n_slots = n_slots;
    for (size_t i = 0; i < names->n; i++) {
        size_t length;
        const char *name = attn_names_get(names, i, &length);
        names->slots[slot_of(names, name, length)] = (uint32_t)i + 1;
    }
    return ATTN_OK;
}

static attn_status make_room(attn_names *names, size_t n_bytes)
{
    if (2 * (names->n + 1) > names->n_slots && grow_slots(names) != ATTN_OK) return ATTN_EMEMORY;
    if (names->n == names->capacity) {
        const size_t capacity = names->capacity ? 2 * names->capacity : 32;
        size_t *ends = attn_realloc(names->ends, capacity * sizeof *ends);
        if (!ends) return ATTN_EMEMORY;
        names->ends = ends;
        names->capacity = capacity;
    }
    if (n_bytes > names->bytes_capacity - names->n_bytes || !names->bytes) {
        const size_t capacity = 2 * (names->n_bytes + n_bytes) + 256;
        char *bytes = attn_realloc(names->bytes, capacity);
        if (!bytes) return ATTN_EMEMORY;
        names->bytes = bytes;
        names->bytes_capacity = capacity;
    }
    return ATTN_OK;
}

attn_status attn_names_add(attn_names *names, const char *name, size_t n_bytes, uint32_t *number,
                           attn_error *error)
{
    if (attn_names_find(names, name, n_bytes, number)) return ATTN_OK;
    if (names->n >= UINT32_MAX - 1)
        return attn_fail(error, ATTN_ESHAPE, "more than 4 billion different names");
    if (make_room(names, n_bytes) != ATTN_OK)
        return attn_fail(error, ATTN_EMEMORY, "no memory for a table of %zu names", names->n + 1);
    names->slots[slot_of(names, name, n_bytes)] = (uint32_t)names->n + 1;
    if (n_bytes > 0) memcpy(names->bytes + names->n_bytes, name, n_bytes);
    names->n_bytes += n_bytes;
    names->ends[names->n] = names->n_bytes;
    *number = (uint32_t)names->n++;
    return ATTN_OK;
}

void attn_names_free(attn_names *names)
{
    attn_free(names->bytes);
    attn_free(names->ends);
    attn_free(names->slots);
    *names = (attn_names){0};
}
