/* Decoding from caches so long that their keys are split into several parts: the last row of a
 * forward pass, the same bits for any number of threads, and the work of the closed form. In
 * bfloat16 decoding rounds what the forward pass rounds, up to numbers that float32's errors move to
 * the other side of a middle. */
#include "attn/attn.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { B = 2, HEADS = 4, C = 64, SHORT = 600, LONG = 4200 };

static float *floats(size_t count)
{
    return attn_alloc_array(ATTN_MEMORY_OTHER, count, sizeof(float));
}

/* y[B][C] of the last of T tokens, after a prompt of `prompt` tokens and decoding from there. */
static void decode(const attn_layer *layer, const float *parameters, const attn_bf16 *packed,
                   const float *x, size_t T, size_t prompt, size_t threads, float *y)
{
    attn_context *context = NULL;
    assert_int_equal(attn_context_create(&context, threads, NULL, NULL), ATTN_OK);
    float *cache = floats(attn_layer_cache_count(layer, B, T));
    float *scratch = floats(attn_layer_scratch_count(layer, context, B, T));
    float *head = floats(B * prompt * C), *all = floats(B * prompt * C), *token = floats(B * C);
    for (size_t b = 0; b < B; b++)
        memcpy(head + b * prompt * C, x + b * T * C, prompt * C * sizeof *head);
    attn_call call = {.batch = B,
                      .length = prompt,
                      .parameters = parameters,
                      .packed = packed,
                      .x = head,
                      .y = all,
                      .scratch = scratch,
                      .cache = cache,
                      .cache_capacity = T};
    assert_int_equal(attn_layer_forward(context, layer, &call), ATTN_OK);
    for (call.position = prompt; call.position < T; call.position++) {
        for (size_t b = 0; b < B; b++)
            memcpy(token + b * C, x + (b * T + call.position) * C, C * sizeof *token);
        call.length = 1;
        call.x = token;
        call.y = y;
        const attn_work before = attn_context_work(context);
        assert_int_equal(attn_layer_decode(context, layer, &call), ATTN_OK);
        const attn_work after = attn_context_work(context);
        const attn_work want = attn_layer_work(layer, ATTN_PHASE_DECODE, B, call.position, NULL);
        assert_int_equal(after.matmul - before.matmul, want.matmul);
        assert_int_equal(after.exponential - before.exponential, want.exponential);
        assert_int_equal(after.other - before.other, want.other);
    }
    attn_free(cache);
    attn_free(scratch);
    attn_free(head);
    attn_free(all);
    attn_free(token);
    attn_context_free(context);
}

/* Two computations in another order: 3 sqrt(2e-5 2^-7) in bfloat16, docs/numerics.md. */
static double tolerance_of(attn_dtype dtype)
{
    return dtype == ATTN_BF16 ? 1.2e-3 : 4e-6;
}

static void check_in(attn_dtype dtype, const char *mechanism, const char *options, size_t T,
                     size_t decoded)
{
    attn_layer *layer = NULL;
    attn_context *context = NULL;
    attn_error error = {0};
    const attn_layer_config config = {.mechanism = mechanism,
                                      .options = options,
                                      .d_model = C,
                                      .heads = HEADS,
                                      .positions = T,
                                      .is_causal = true,
                                      .dtype = dtype};
    assert_int_equal(attn_layer_create(&layer, &config, &error), ATTN_OK);
    assert_int_equal(attn_context_create(&context, 1, NULL, NULL), ATTN_OK);
    const size_t P = attn_layer_parameter_count(layer);
    float *parameters = floats(P), *x = floats(B * T * C), *y = floats(B * T * C);
    float *scratch = floats(attn_layer_scratch_count(layer, context, B, T));
    attn_random_fill_normal(1, 1, 2.0, B * T * C, x);
    attn_random_fill_normal(1, 2, 1.0 / sqrt((double)C), P, parameters);
    attn_bf16 *packed =
        attn_alloc_array(ATTN_MEMORY_OTHER, attn_layer_packed_count(layer) + 1, sizeof *packed);
    attn_layer_pack(context, layer, parameters, packed);
    const attn_call call = {.batch = B,
                            .length = T,
                            .parameters = parameters,
                            .packed = packed,
                            .x = x,
                            .y = y,
                            .scratch = scratch};
    assert_int_equal(attn_layer_forward(context, layer, &call), ATTN_OK);

    float single[B * C], triple[B * C];
    decode(layer, parameters, packed, x, T, T - decoded, 1, single);
    decode(layer, parameters, packed, x, T, T - decoded, 3, triple);
    assert_memory_equal(single, triple, sizeof single);
    double difference = 0.0, norm = 0.0;
    for (size_t b = 0; b < B; b++)
        for (size_t i = 0; i < C; i++) {
            const double want = (double)y[(b * T + T - 1) * C + i];
            norm += want * want;
            difference += ((double)single[b * C + i] - want) * ((double)single[b * C + i] - want);
        }
    if (!(sqrt(difference) <= tolerance_of(dtype) * sqrt(norm)))
        fail_msg("%s %s%s: |a - b| = %g |b|", mechanism, options ? options : "",
                 dtype == ATTN_BF16 ? " in bfloat16" : "", sqrt(difference / norm));
    attn_free(packed);
    attn_free(parameters);
    attn_free(x);
    attn_free(y);
    attn_free(scratch);
    attn_layer_free(layer);
    attn_context_free(context);
}

static void check_mechanism(const char *mechanism, const char *options)
{
    check_in(ATTN_F32, mechanism, options, SHORT, 40);
    check_in(ATTN_BF16, mechanism, options, SHORT, 40);
}

static size_t cache_count(const char *mechanism, attn_dtype dtype)
{
    attn_layer *layer = NULL;
    const attn_layer_config config = {.mechanism = mechanism,
                                      .d_model = C,
                                      .heads = HEADS,
                                      .positions = SHORT,
                                      .is_causal = true,
                                      .dtype = dtype};
    assert_int_equal(attn_layer_create(&layer, &config, NULL), ATTN_OK);
    const size_t count = attn_layer_cache_count(layer, B, SHORT);
    attn_layer_free(layer);
    return count;
}

/* A bfloat16 layer whose core is float32 has a float32 cache. */
static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(cache_count("flash", ATTN_F32), 2 * B * SHORT * C);
    assert_int_equal(cache_count("flash", ATTN_BF16), B * SHORT * C);
    assert_int_equal(cache_count("softmax", ATTN_BF16), 2 * B * SHORT * C);
}

static void test_all_keys(void **state)
{
    (void)state;
    check_mechanism("flash", NULL);
    check_mechanism("mqa", NULL);
}

/* Parts are longer behind more keys. */
static void test_long_parts(void **state)
{
    (void)state;
    check_in(ATTN_F32, "mqa", NULL, LONG, 3);
    check_in(ATTN_BF16, "mqa", NULL, LONG, 3);
    check_in(ATTN_F32, "flex", "mask=document,doc_len=700", LONG, 3);
}

/* The ring wraps within the 40 tokens and spans more than one part. */
static void test_ring(void **state)
{
    (void)state;
    check_mechanism("sliding", "window=290,sinks=5");
}

/* Parts without a visible key add nothing. */
static void test_hidden_parts(void **state)
{
    (void)state;
    check_mechanism("sparse", NULL);
    check_mechanism("flex", "mask=document,doc_len=130");
    check_mechanism("flex", "score=softcap,cap=3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),        cmocka_unit_test(test_all_keys),
        cmocka_unit_test(test_long_parts),   cmocka_unit_test(test_ring),
        cmocka_unit_test(test_hidden_parts),
    };
    return cmocka_run_group_tests_name("decoding", tests, NULL, NULL);
}
