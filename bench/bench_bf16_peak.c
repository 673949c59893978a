/* The limit of the tiles: four independent sums, factors that never leave their registers. */
#include "bench_bf16.h"

#include "base/clock.h"
#include "base/threads.h"

#include <immintrin.h>
#include <stdint.h>

enum { ROUNDS = 100000, PRODUCTS = 4, PRODUCT_OPERATIONS = 2 * 16 * 16 * 32 };

static void multiply_registers(void *argument, size_t index, size_t worker)
{
    (void)argument, (void)index, (void)worker;
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } tiles = {.palette = 1,
               .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
               .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&tiles);
    for (size_t i = 0; i < ROUNDS; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
}

double bench_amx_peak(size_t threads)
{
    const uint64_t start_ns = attn_clock_ns();
    attn_parallel(threads, threads, multiply_registers, NULL);
    const double time_s = attn_clock_seconds(start_ns, attn_clock_ns());
    return (double)threads * ROUNDS * PRODUCTS * PRODUCT_OPERATIONS / time_s;
}
