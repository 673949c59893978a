/* Where there are enough heads, each is one task: a worker packs it at a place of its own, where it
 * stays near, and nobody waits for another. Otherwise some are packed by all threads, and each of
 * their blocks is a task. */
#include "mechanisms/tile_heads.h"

#include "base/threads.h"
#include "mechanisms/tile_engine.h"

enum {
    PACK_ROWS = 2 * ATTN_TILE_KEYS, /* of a task */
    MANY = 32                       /* heads for a thread: what others wait for the last is little */
};

/* Heads that are packed together. */
typedef struct shared_heads {
    const attn_tile_heads *of;
    size_t first, n;
} shared_heads;

/* Some rows of all of them: those of one token lie side by side. */
static void pack_rows(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const shared_heads *s = argument;
    const size_t first = index * PACK_ROWS, last = attn_smaller(first + PACK_ROWS, s->of->keys);
    for (size_t row = first; row < last; row += ATTN_TILE_KEYS)
        for (size_t i = 0; i < s->n; i++)
            s->of->pack(s->of->job, i, s->first + i, row, attn_smaller(ATTN_TILE_KEYS, last - row));
}

static void run_block(void *argument, size_t index, size_t worker)
{
    const shared_heads *s = argument;
    const size_t place = index / s->of->blocks;
    s->of->run(s->of->job, place, s->first + place, index % s->of->blocks, worker);
}

static void run_head(void *argument, size_t head, size_t worker)
{
    const attn_tile_heads *h = argument;
    h->pack(h->job, worker, head, 0, h->keys);
    for (size_t block = 0; block < h->blocks; block++) h->run(h->job, worker, head, block, worker);
}

void attn_tile_run_heads(const attn_tile_heads *heads, size_t threads)
{
    attn_tile_heads own = *heads;
    if (heads->heads % threads == 0 || heads->heads >= MANY * threads) {
        attn_parallel(threads, heads->heads, run_head, &own);
        return;
    }
    shared_heads s = {.of = heads};
    for (; s.first < heads->heads; s.first += heads->together) {
        s.n = attn_smaller(heads->together, heads->heads - s.first);
        attn_parallel(threads, (heads->keys + PACK_ROWS - 1) / PACK_ROWS, pack_rows, &s);
        attn_parallel(threads, s.n * heads->blocks, run_block, &s);
    }
}
