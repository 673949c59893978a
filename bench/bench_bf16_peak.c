/* The limit of the tiles: the inner loop of a product, with factors that stay in the L1 cache.
 * The numbers are random: with zeros in one factor the processor clocks higher. */
#include "bench_bf16.h"

#include "base/clock.h"
#include "base/random.h"
#include "base/threads.h"

#include <immintrin.h>

enum {
    TILE = 16 * 32,
    STEPS = 4, /* 4 tiles each: 16 KiB */
    NUMBERS = STEPS * 4 * TILE,
    SUMS = 24, /* steps into the same sums */
    ROUNDS = 4000,
    PRODUCT_OPERATIONS = 2 * 16 * 16 * 32
};

static void multiply(void *argument, size_t index, size_t worker)
{
    (void)index, (void)worker;
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } tiles = {.palette = 1,
               .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
               .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    const attn_bf16 *numbers = argument;
    _tile_loadconfig(&tiles);
    for (size_t round = 0; round < ROUNDS; round++) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (size_t i = 0; i < SUMS; i++) {
            const attn_bf16 *at = numbers + i % STEPS * 4 * TILE;
            _tile_loadd(4, at, 64);
            _tile_loadd(5, at + TILE, 64);
            _tile_loadd(6, at + 2 * TILE, 64);
            _tile_loadd(7, at + 3 * TILE, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_release();
}

double bench_amx_peak(size_t threads)
{
    static float random[NUMBERS];
    static _Alignas(64) attn_bf16 numbers[NUMBERS]; /* a row of a tile is a cache line */
    attn_random_fill_normal(1, attn_random_stream(ATTN_RANDOM_TEST, 0), 1.0, NUMBERS, random);
    for (size_t i = 0; i < NUMBERS; i++) numbers[i] = attn_bf16_from_float(random[i]);
    const uint64_t start_ns = attn_clock_ns();
    attn_parallel(threads, threads, multiply, numbers);
    const double time_s = attn_clock_seconds(start_ns, attn_clock_ns());
    return (double)threads * ROUNDS * SUMS * 4 * PRODUCT_OPERATIONS / time_s;
}
