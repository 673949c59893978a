/* Attention in bfloat16 over several blocks of queries and keys: the engine of level amx against
 * the float32 engine that rounds in place. Both round the same numbers, summed in another order, so
 * some of them fall on the other side of a middle: docs/numerics.md. Skipped where there is no AMX.
 * And, at every level, numbers that lie in memory rounded against the same as floats. */
#include "attn/context.h"
#include "attn/flex.h"
#include "attn/layer.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "base/random.h"
#include "mechanisms/mechanism.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* 3 sqrt(2e-5 2^-7): three deviations of factors that differ by 2e-5 before they are rounded */
static const double tolerance = 1.2e-3;

enum { BATCH = 2, HEADS = 4 };

/* o and the gradients of a core at one level; gradients of halves stand in the first half. */
typedef struct results {
    float *o, *d_qkv;
} results;

typedef enum numbers { SINGLES, ROUNDED_SINGLES, HALVES } numbers;

static float *floats(size_t n, uint32_t stream)
{
    float *x = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *x);
    assert_non_null(x);
    if (stream) attn_random_fill_normal(7, attn_random_stream(ATTN_RANDOM_TEST, stream), 1.0, n, x);
    return x;
}

/* Keys grow along a sequence, up to so many times what was drawn: references have to rise. */
static void grow_keys(size_t length, size_t kv, float growth, float *k, size_t row)
{
    for (size_t i = 0; i < BATCH * length; i++)
        for (size_t j = 0; j < kv; j++)
            k[i * row + j] *= growth * (float)(i % length + 1) / (float)length;
}

/* Two tiles of keys that nobody sees, and two tiles and a half of queries that see nothing. */
static void hide_tiles(void *user, size_t head, size_t query, size_t key, size_t count, bool *seen)
{
    (void)user;
    (void)head;
    for (size_t j = 0; j < count; j++)
        seen[j] = (key + j < 128 || key + j >= 256) && (query < 600 || query >= 764);
}

static void halve(void *user, size_t head, size_t query, size_t key, size_t count, float *s,
                  float *slope)
{
    (void)user;
    (void)head;
    (void)query;
    (void)key;
    for (size_t j = 0; j < count; j++) {
        s[j] *= 0.5f;
        if (slope) slope[j] = 0.5f;
    }
}

static attn_layer *create_layer(const attn_layer_config *config)
{
    static const attn_flex flex = {.score = halve, .mask = hide_tiles};
    attn_error error = {0};
    attn_layer *layer = NULL;
    if (strcmp(config->mechanism, "flex") == 0)
        assert_int_equal(attn_layer_create_flex(&layer, config, &flex, &error), ATTN_OK);
    else
        assert_int_equal(attn_layer_create(&layer, config, &error), ATTN_OK);
    return layer;
}

/* In place. */
static void round_numbers(size_t n, float *x, numbers kind)
{
    attn_bf16 *halves = (attn_bf16 *)(void *)x;
    for (size_t i = 0; i < n; i++) {
        const attn_bf16 half = attn_bf16_from_float(x[i]);
        if (kind == HALVES) halves[i] = half;
        if (kind == ROUNDED_SINGLES) x[i] = attn_bf16_to_float(half);
    }
}

/* Scratch and results begin with numbers that mean nothing. */
static results run_core(const char *isa, size_t threads, const char *mechanism, const char *options,
                        size_t length, size_t head_dim, float growth, numbers kind)
{
    attn_error error = {0};
    attn_context *context = NULL;
    const attn_layer_config config = {.mechanism = mechanism,
                                      .options = options,
                                      .d_model = HEADS * head_dim,
                                      .heads = HEADS,
                                      .positions = length,
                                      .is_causal = true,
                                      .dtype = ATTN_BF16};
    assert_int_equal(attn_context_create(&context, threads, isa, &error), ATTN_OK);
    attn_layer *layer = create_layer(&config);
    const attn_core *core = layer->mechanism->core;
    const size_t tokens = BATCH * length, C = HEADS * head_dim;
    const size_t kv = layer->kv_heads * head_dim, row = C + 2 * kv;
    float *qkv = floats(tokens * row, 1), *d_o = floats(tokens * C, 2);
    if (growth > 0.0f) grow_keys(length, kv, growth, qkv + C, row);
    float *saved = floats(core->saved(layer, BATCH, length), 0);
    float *scratch = floats(core->scratch(layer, threads, BATCH, length), 3);
    results r = {.o = floats(tokens * C, 4), .d_qkv = floats(tokens * row, 5)};
    attn_core_call call = {.context = context,
                           .kernels = attn_core_kernels(context, layer),
                           .layer = layer,
                           .batch = BATCH,
                           .length = length,
                           .q = qkv,
                           .k = qkv + C,
                           .v = qkv + C + kv,
                           .row = row,
                           .o = r.o,
                           .o_row = C,
                           .saved = saved,
                           .scratch = scratch,
                           .d_o = d_o,
                           .dq = r.d_qkv,
                           .dk = r.d_qkv + C,
                           .dv = r.d_qkv + C + kv};
    round_numbers(tokens * row, qkv, kind);
    round_numbers(tokens * C, d_o, kind);
    if (kind == HALVES) {
        attn_core_set_rows(&call, qkv);
        attn_core_set_gradients(&call, d_o, r.d_qkv);
    }
    core->forward(&call);
    core->backward(&call);
    attn_free(qkv);
    attn_free(d_o);
    attn_free(saved);
    attn_free(scratch);
    attn_layer_free(layer);
    attn_context_free(context);
    return r;
}

static void assert_near(size_t n, const float *got, const float *want)
{
    double error = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double x = (double)got[i], y = (double)want[i];
        error += (x - y) * (x - y);
        size += y * y;
    }
    assert_true(sqrt(error) <= tolerance * sqrt(size));
}

static void compare(const char *mechanism, const char *options, size_t length, size_t head_dim,
                    size_t kv_heads, float growth)
{
    if (attn_cpu_best_isa() < ATTN_ISA_AMX) {
        print_message("no AMX here: nothing to compare its tiles with\n");
        skip();
    }
    const size_t tokens = BATCH * length, o_count = tokens * HEADS * head_dim;
    const size_t qkv_count = tokens * (HEADS + 2 * kv_heads) * head_dim;
    results want = run_core("avx512", 2, mechanism, options, length, head_dim, growth, SINGLES);
    results got = run_core("amx", 1, mechanism, options, length, head_dim, growth, SINGLES);
    results again = run_core("amx", 3, mechanism, options, length, head_dim, growth, SINGLES);
    assert_near(o_count, got.o, want.o);
    assert_near(qkv_count, got.d_qkv, want.d_qkv);
    assert_memory_equal(got.o, again.o, o_count * sizeof *got.o);
    assert_memory_equal(got.d_qkv, again.d_qkv, qkv_count * sizeof *got.d_qkv);
    const results all[] = {want, got, again};
    for (size_t i = 0; i < 3; i++) {
        attn_free(all[i].o);
        attn_free(all[i].d_qkv);
    }
}

/* The results of halves are those of the same numbers as floats, dq, dk and dv rounded. */
static void compare_halves(const char *mechanism, const char *options, size_t length,
                           size_t head_dim, size_t kv_heads)
{
    static const char *const levels[] = {"ref", "avx2", "avx512", "amx"};
    const size_t tokens = BATCH * length, o_count = tokens * HEADS * head_dim;
    const size_t qkv_count = tokens * (HEADS + 2 * kv_heads) * head_dim;
    for (size_t level = 0; level <= (size_t)attn_cpu_best_isa(); level++) {
        const char *isa = levels[level];
        results want = run_core(isa, 2, mechanism, options, length, head_dim, 0, ROUNDED_SINGLES);
        results got = run_core(isa, 2, mechanism, options, length, head_dim, 0, HALVES);
        const attn_bf16 *halves = (const attn_bf16 *)(const void *)got.d_qkv;
        assert_memory_equal(got.o, want.o, o_count * sizeof *got.o);
        for (size_t i = 0; i < qkv_count; i++)
            assert_int_equal(halves[i].bits, attn_bf16_from_float(want.d_qkv[i]).bits);
        attn_free(want.o);
        attn_free(want.d_qkv);
        attn_free(got.o);
        attn_free(got.d_qkv);
    }
}

static void test_halves_of_64(void **state)
{
    (void)state;
    compare_halves("flash", NULL, 333, 64, HEADS);
}

static void test_halves_of_shared_keys(void **state)
{
    (void)state;
    compare_halves("gqa", "kv_heads=2", 150, 40, 2);
}

static void test_halves_of_hidden_tiles(void **state)
{
    (void)state;
    compare_halves("flex", NULL, 780, 20, HEADS);
}

static void test_flash_of_64(void **state)
{
    (void)state;
    compare("flash", NULL, 1100, 64, HEADS, 0.0f);
}

static void test_flash_of_96(void **state)
{
    (void)state;
    compare("flash", NULL, 577, 96, HEADS, 0.0f);
}

static void test_rows_of_128(void **state)
{
    (void)state;
    compare("sdpa", NULL, 640, 128, HEADS, 0.0f);
}

static void test_shared_keys(void **state)
{
    (void)state;
    compare("gqa", "kv_heads=2", 700, 40, 2, 0.0f);
}

static void test_window(void **state)
{
    (void)state;
    compare("sliding", "window=150,sinks=3", 900, 64, HEADS, 0.0f);
}

static void test_hidden_tiles(void **state)
{
    (void)state;
    compare("flex", NULL, 1050, 64, HEADS, 0.0f);
}

static void test_rising_references(void **state)
{
    (void)state;
    compare("flash", NULL, 515, 64, HEADS, 40.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flash_of_64),
        cmocka_unit_test(test_flash_of_96),
        cmocka_unit_test(test_rows_of_128),
        cmocka_unit_test(test_shared_keys),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_rising_references),
        cmocka_unit_test(test_hidden_tiles),
        cmocka_unit_test(test_halves_of_64),
        cmocka_unit_test(test_halves_of_shared_keys),
        cmocka_unit_test(test_halves_of_hidden_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
