/* Decoding from caches so long that their keys are split into several parts: the last row of a
 * forward pass, the same bits for any number of threads, and the work of the closed form. */
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

enum { B = 2, HEADS = 4, C = 64, T = 600 };

static float *floats(size_t count)
{
    return attn_alloc_array(ATTN_MEMORY_OTHER, count, sizeof(float));
}

/* y[B][C] of token T - 1, after a prompt of `prompt` tokens and decoding from there. */
static void decode(const attn_layer *layer, const float *parameters, const float *x, size_t prompt,
                   size_t threads, float *y)
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

static void check_mechanism(const char *mechanism, const char *options)
{
    attn_layer *layer = NULL;
    attn_context *context = NULL;
    attn_error error = {0};
    const attn_layer_config config = {.mechanism = mechanism,
                                      .options = options,
                                      .d_model = C,
                                      .heads = HEADS,
                                      .positions = T,
                                      .is_causal = true};
    assert_int_equal(attn_layer_create(&layer, &config, &error), ATTN_OK);
    assert_int_equal(attn_context_create(&context, 1, NULL, NULL), ATTN_OK);
    const size_t P = attn_layer_parameter_count(layer);
    float *parameters = floats(P), *x = floats(B * T * C), *y = floats(B * T * C);
    float *scratch = floats(attn_layer_scratch_count(layer, context, B, T));
    attn_random_fill_normal(1, 1, 2.0, B * T * C, x);
    attn_random_fill_normal(1, 2, 1.0 / sqrt((double)C), P, parameters);
    const attn_call call = {
        .batch = B, .length = T, .parameters = parameters, .x = x, .y = y, .scratch = scratch};
    assert_int_equal(attn_layer_forward(context, layer, &call), ATTN_OK);

    float single[B * C], triple[B * C];
    decode(layer, parameters, x, T - 40, 1, single);
    decode(layer, parameters, x, T - 40, 3, triple);
    assert_memory_equal(single, triple, sizeof single);
    double difference = 0.0, norm = 0.0;
    for (size_t b = 0; b < B; b++)
        for (size_t i = 0; i < C; i++) {
            const double want = (double)y[(b * T + T - 1) * C + i];
            norm += want * want;
            difference += ((double)single[b * C + i] - want) * ((double)single[b * C + i] - want);
        }
    if (!(difference <= 4e-6 * 4e-6 * norm))
        fail_msg("%s %s: |a - b| = %g |b|", mechanism, options ? options : "",
                 sqrt(difference / norm));
    attn_free(parameters);
    attn_free(x);
    attn_free(y);
    attn_free(scratch);
    attn_layer_free(layer);
    attn_context_free(context);
}

static void test_all_keys(void **state)
{
    (void)state;
    check_mechanism("flash", NULL);
    check_mechanism("mqa", NULL);
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
        cmocka_unit_test(test_all_keys),
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_hidden_parts),
    };
    return cmocka_run_group_tests_name("decoding", tests, NULL, NULL);
}
