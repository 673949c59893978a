/* bfloat16 conversions against their definition: the nearest of two neighbours in float64, the
 * even one of two equally near; at all sizes and places, and over every bfloat16 number. */
#include "check_kernels.h"

#include <math.h>
#include <string.h>

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The number that upper bits stand for; what would be infinity is one step above the largest. */
static double magnitude(uint32_t upper)
{
    return upper == 0x7f80u ? 0x1p128 : (double)float_of(upper << 16);
}

static uint16_t definition(float x)
{
    const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000u, below = bits >> 16 & 0x7fffu;
    if (isnan(x)) return (uint16_t)(bits >> 16 | 0x40u);
    if (isinf(x)) return (uint16_t)(bits >> 16);
    const double value = fabs((double)x);
    const double down = value - magnitude(below), up = magnitude(below + 1) - value;
    const bool goes_up = up < down || (up == down && below % 2 == 1);
    return (uint16_t)(sign | (below + (goes_up ? 1u : 0u)));
}

attn_bf16 *check_halves(check_run *run, size_t n, check_place place)
{
    attn_bf16 *words = (attn_bf16 *)(void *)check_floats(run, (n + 1) / 2, place);
    return words + (n % 2 && place == CHECK_AT_END);
}

/* The half of a word that an odd number of them leaves over is as it was. */
static void check_spare(check_run *run, const attn_bf16 *x, size_t n, check_place place)
{
    if (n % 2 == 0) return;
    const bool is_before = place == CHECK_AT_END;
    const unsigned spare = (is_before ? x[-1] : x[n]).bits;
    check_that(run, spare == (is_before ? 0xdeadu : 0x7fc0u), "%x beside %zu numbers", spare, n);
}

void check_slot_bf16_from_float(check_run *run, const check_shape *shape)
{
    static const uint32_t special[] = {0,          0x80000000, 1,          0x8000,     0x8001,
                                       0x18000,    0x807fffff, 0x7f7f7fff, 0x7f7f8000, 0x7f7fffff,
                                       0x7f800000, 0xff800000, 0x7f800001, 0xffc12345, 0x3f808000,
                                       0x3f818000, 0x3f808001, 0xbf807fff};
    const size_t n = shape->n, n_special = sizeof special / sizeof *special;
    float *x = check_random(run, shape, n);
    for (size_t i = 0; i < n; i++)
        if (check_below(run, 2)) x[i] = float_of(special[check_below(run, n_special)]);
    attn_bf16 *y = check_halves(run, n, shape->place);
    run->kernels->bf16_from_float(n, x, y);
    for (size_t i = 0; i < n; i++)
        check_that(run, y[i].bits == definition(x[i]), "%08x becomes %04x, not %04x",
                   (unsigned)bits_of(x[i]), y[i].bits, definition(x[i]));
    check_spare(run, y, n, shape->place);
    check_that(run, attn_bf16_from_float(1.0f).bits == 0x3f80, "1 has the bits 3f80");
}

void check_slot_bf16_to_float(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    attn_bf16 *x = check_halves(run, n, shape->place);
    for (size_t i = 0; i < n; i++) x[i].bits = (uint16_t)check_below(run, 1 << 16);
    float *y = check_floats(run, n, shape->place);
    run->kernels->bf16_to_float(n, x, y);
    for (size_t i = 0; i < n; i++)
        check_that(run, bits_of(y[i]) == (uint32_t)x[i].bits << 16, "%04x becomes %08x", x[i].bits,
                   (unsigned)bits_of(y[i]));
    check_that(run, attn_bf16_to_float((attn_bf16){0x3f80}) == 1.0f, "the bits 3f80 are 1");
}

/* Every bfloat16 number there and back, and the floats where rounding changes its mind. */
static void sweep(check_run *run)
{
    enum { COUNT = 1 << 16 };
    static const uint32_t offsets[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    static float x[COUNT];
    static attn_bf16 y[COUNT];
    for (size_t k = 0; k < sizeof offsets / sizeof *offsets; k++) {
        check_case(run, "all numbers + %x", (unsigned)offsets[k]);
        for (uint32_t i = 0; i < COUNT; i++) x[i] = float_of(i << 16 | offsets[k]);
        run->kernels->bf16_from_float(COUNT, x, y);
        size_t wrong = 0;
        for (size_t i = 0; i < COUNT; i++) wrong += y[i].bits != definition(x[i]);
        check_that(run, wrong == 0, "%zu of them are rounded otherwise", wrong);
    }
    check_case(run, "back");
    for (uint32_t i = 0; i < COUNT; i++) y[i].bits = (uint16_t)i;
    run->kernels->bf16_to_float(COUNT, y, x);
    size_t wrong = 0;
    for (uint32_t i = 0; i < COUNT; i++) wrong += bits_of(x[i]) != i << 16;
    check_that(run, wrong == 0, "%zu numbers are widened otherwise", wrong);
}

void check_collect_bf16(check_list *list)
{
    check_list_add_levels(list,
                          (check_group){.mode = "test", .subject = "kernel.bf16", .body = sweep});
}
