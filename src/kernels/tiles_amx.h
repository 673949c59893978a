/* What all code on AMX tiles begins with. Only static inline functions: nothing here may be emitted
 * for other files. */
#ifndef KERNELS_TILES_AMX_H
#define KERNELS_TILES_AMX_H

#include <immintrin.h>
#include <stdint.h>

/* Eight tiles of 16 rows of 64 bytes. */
static inline void configure_tiles(void)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } tiles = {.palette = 1,
               .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
               .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&tiles);
}

/* Tile instructions of some compilers do not say that they read memory. */
static inline void settle_memory(void)
{
    __asm__ volatile("" ::: "memory");
}

#endif
