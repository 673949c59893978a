/* How the tile engine's forward pass shares out key/value heads among threads. */
#ifndef MECHANISMS_TILE_HEADS_H
#define MECHANISMS_TILE_HEADS_H

#include <stddef.h>

/* Every head is packed, at one of `together` places and not fewer than threads or heads, and then its
 * blocks of queries are run, in their order. Both functions are called from several threads at once. */
typedef struct attn_tile_heads {
    void *job;
    size_t heads, together;
    size_t keys, blocks; /* of each head */
    /* Keys [first, first + n) of a head; `first` is where a tile begins. */
    void (*pack)(void *job, size_t place, size_t head, size_t first, size_t n);
    void (*run)(void *job, size_t place, size_t head, size_t block, size_t worker);
} attn_tile_heads;

void attn_tile_run_heads(const attn_tile_heads *heads, size_t threads);

#endif
