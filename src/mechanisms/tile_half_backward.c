/* */
#include "mechanisms/tile_half.h"

size_t attn_half_backward_scratch(const attn_tile_shape *shape, size_t threads)
{
    (void)shape;
    (void)threads;
    return 0;
}
