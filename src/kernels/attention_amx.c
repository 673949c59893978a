/* Products on AMX tiles with nothing beside them: blocks of 32 x 32 sums in four tiles, which two of
 * each factor feed. */
#include "kernels/attention_beside_amx.h"

void attn_amx_begin(void)
{
    configure_tiles();
}

void attn_amx_end(void)
{
    _tile_release();
}

/* Quarters of a block's sums, of 16 x 16, each in the tile of its number: top left, bottom left, top
 * right, bottom right. */
static inline __attribute__((always_inline)) float *quarter_at(const attn_amx_block *b, size_t at)
{
    return b->sums + at % 2 * 16 * b->sums_row + at / 2 * 16;
}

#define STORE(held, at) _tile_stored(at, quarter_at(held, at), (held)->sums_row * sizeof(float))

/* A quarter's first product. Sums stay in their tiles until the next block needs these, which gives
 * the products before time to end. */
#define START(held, b, at)                                                                         \
    do {                                                                                           \
        if (held) STORE(held, at);                                                                 \
        if ((b)->adds)                                                                             \
            _tile_loadd(at, quarter_at(b, at), (b)->sums_row * sizeof(float));                     \
        else                                                                                       \
            _tile_zero(at);                                                                        \
    } while (0)

static inline __attribute__((always_inline)) const attn_bf16 *
cell_at(const attn_bf16 *from, const uint32_t *cells, size_t cell)
{
    return from + (cells ? cells[cell] : cell) * ATTN_CELL;
}

static inline __attribute__((always_inline)) void store_block(const attn_amx_block *held)
{
    STORE(held, 0);
    STORE(held, 1);
    STORE(held, 2);
    STORE(held, 3);
}

static inline __attribute__((always_inline)) void multiply_block(const attn_amx_block *held,
                                                                 const attn_amx_block *b)
{
    for (size_t cell = 0; cell < b->n_cells; cell++) {
        const attn_bf16 *left = cell_at(b->left, b->left_cells, cell);
        const attn_bf16 *right = cell_at(b->right, b->right_cells, cell);
        if (cell == 0) START(held, b, 0);
        _tile_loadd(6, right, 64);
        _tile_loadd(4, left, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (cell == 0) START(held, b, 1);
        _tile_loadd(5, left + HALF_CELL, 64);
        _tile_dpbf16ps(1, 5, 6);
        if (cell == 0) START(held, b, 2);
        _tile_loadd(7, right + HALF_CELL, 64);
        _tile_dpbf16ps(2, 4, 7);
        if (cell == 0) START(held, b, 3);
        _tile_dpbf16ps(3, 5, 7);
    }
}

void attn_amx_multiply(size_t n_blocks, const attn_amx_block *blocks)
{
    const attn_amx_block *held = NULL;
    settle_memory();
    for (const attn_amx_block *b = blocks; b < blocks + n_blocks; held = b++)
        multiply_block(held, b);
    if (held) store_block(held);
    settle_memory();
}
