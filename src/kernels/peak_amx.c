/* The peak of AMX: products of bfloat16 tiles whose factors come from the L1 cache, four sums at a
 * time. The numbers are not zero: with zeros the processor needs less power and clocks higher. */
#include "kernels/peak.h"
#include "kernels/tiles_amx.h"

enum { TILE = 16 * 32, FACTORS = 4, TILES = 4 * FACTORS };

static double multiply_tiles(size_t rounds)
{
    _Alignas(64) uint16_t numbers[TILES * TILE];
    for (size_t i = 0; i < TILES * TILE; i++)
        numbers[i] = (uint16_t)(0x3f00 | (i * 2654435761u >> 20 & 0x80ff)); /* 0.5 to 2, signed */
    configure_tiles();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t i = 0; i < rounds; i++) {
        const uint16_t *at = numbers + i % FACTORS * 4 * TILE;
        _tile_loadd(4, at, 64);
        _tile_loadd(5, at + TILE, 64);
        _tile_loadd(6, at + 2 * TILE, 64);
        _tile_loadd(7, at + 3 * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return 4.0 * 2.0 * 16 * 16 * 32 * (double)rounds;
}

static double multiply_add(size_t rounds)
{
    return attn_peaks_avx512.multiply_add(rounds);
}

static double exponential(size_t rounds)
{
    return attn_peaks_avx512.exponential(rounds);
}

static double read(size_t n, const float *from)
{
    return attn_peaks_avx512.read(n, from);
}

const attn_peaks attn_peaks_amx = {.isa = ATTN_ISA_AMX,
                                   .multiply_add = multiply_add,
                                   .exponential = exponential,
                                   .read = read,
                                   .multiply_tiles = multiply_tiles};
