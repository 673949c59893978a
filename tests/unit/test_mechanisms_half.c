/* Layers in bfloat16: what a caller must give them, and what packing does. */
#include "attn/attn.h"
#include "base/memory.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { B = 2, T = 9, C = 48, HEADS = 3 };

/* A layer with everything that its calls need. */
typedef struct trial {
    attn_layer *layer;
    attn_context *context;
    attn_bf16 *packed;
    attn_call call;
} trial;

static float *drawn(size_t n, uint32_t stream)
{
    float *to = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *to);
    assert_non_null(to);
    attn_random_fill_normal(3, attn_random_stream(ATTN_RANDOM_TEST, stream), 0.2, n, to);
    return to;
}

static trial trial_of(const char *mechanism, attn_dtype dtype)
{
    attn_error error = {0};
    const attn_layer_config config = {.mechanism = mechanism,
                                      .d_model = C,
                                      .heads = HEADS,
                                      .positions = T,
                                      .is_causal = true,
                                      .dtype = dtype};
    trial t = {0};
    if (attn_layer_create(&t.layer, &config, &error) != ATTN_OK) fail_msg("%s", error.text);
    assert_int_equal(attn_context_create(&t.context, 2, NULL, &error), ATTN_OK);
    const size_t parameters = attn_layer_parameter_count(t.layer);
    const size_t packed = attn_layer_packed_count(t.layer);
    t.packed = attn_alloc_array(ATTN_MEMORY_PARAMETERS, packed, sizeof *t.packed);
    assert_non_null(t.packed);
    t.call = (attn_call){
        .batch = B,
        .length = T,
        .parameters = drawn(parameters, 1),
        .x = drawn(B * T * C, 2),
        .y = drawn(B * T * C, 3),
        .saved = drawn(attn_layer_saved_count(t.layer, B, T), 4),
        .scratch = drawn(attn_layer_scratch_count(t.layer, t.context, B, T), 5),
        .cache = drawn(attn_layer_cache_count(t.layer, B, T), 6),
        .cache_capacity = T,
        .dy = drawn(B * T * C, 7),
        .dx = drawn(B * T * C, 8),
        .gradients = drawn(parameters, 9),
    };
    return t;
}

static void trial_free(trial *t)
{
    const attn_call *c = &t->call;
    const float *const floats[] = {c->parameters, c->x,  c->y,  c->saved,    c->scratch,
                                   c->cache,      c->dy, c->dx, c->gradients};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) attn_free((void *)floats[i]);
    attn_free(t->packed);
    attn_context_free(t->context);
    attn_layer_free(t->layer);
}

typedef attn_status layer_call(attn_context *context, const attn_layer *layer,
                               const attn_call *call);

/* A call without packed weights says so and writes nothing. */
static void expect_refusal(trial *t, layer_call *run, const char *mechanism)
{
    char text[128];
    snprintf(text, sizeof text, "%s in bfloat16 reads packed weights: call attn_layer_pack() first",
             mechanism);
    float *y = drawn(B * T * C, 3), *gradients = drawn(attn_layer_parameter_count(t->layer), 9);
    assert_int_equal(run(t->context, t->layer, &t->call), ATTN_EARGUMENT);
    assert_string_equal(attn_context_error(t->context)->text, text);
    assert_memory_equal(t->call.y, y, B * T * C * sizeof *y);
    assert_memory_equal(t->call.gradients, gradients,
                        attn_layer_parameter_count(t->layer) * sizeof *gradients);
    attn_free(gradients);
    attn_free(y);
}

static void calls_without_packed_weights_are_refused(void **state)
{
    (void)state;
    static const char *const mechanisms[] = {"flash", "mla", "lsh", "gla", "gated-deltanet"};
    for (size_t i = 0; i < sizeof mechanisms / sizeof *mechanisms; i++) {
        trial t = trial_of(mechanisms[i], ATTN_BF16);
        assert_true(attn_layer_packed_count(t.layer) > 0);
        expect_refusal(&t, attn_layer_forward, mechanisms[i]);
        expect_refusal(&t, attn_layer_backward, mechanisms[i]);
        t.call.length = 1;
        expect_refusal(&t, attn_layer_decode, mechanisms[i]);
        /* and with them all three succeed */
        attn_layer_pack(t.context, t.layer, t.call.parameters, t.packed);
        t.call.packed = t.packed;
        assert_int_equal(attn_layer_decode(t.context, t.layer, &t.call), ATTN_OK);
        t.call.length = T;
        assert_int_equal(attn_layer_forward(t.context, t.layer, &t.call), ATTN_OK);
        assert_int_equal(attn_layer_backward(t.context, t.layer, &t.call), ATTN_OK);
        trial_free(&t);
    }
}

/* A float32 layer has nothing to pack, and reads nothing packed. */
static void float32_layers_need_none(void **state)
{
    (void)state;
    trial t = trial_of("flash", ATTN_F32);
    assert_int_equal(attn_layer_packed_count(t.layer), 0);
    attn_layer_pack(t.context, t.layer, t.call.parameters, NULL);
    assert_int_equal(attn_layer_forward(t.context, t.layer, &t.call), ATTN_OK);
    assert_int_equal(attn_layer_backward(t.context, t.layer, &t.call), ATTN_OK);
    trial_free(&t);
}

/* Until weights are packed again the layer computes with those that were. */
static void packed_weights_are_a_copy(void **state)
{
    (void)state;
    trial t = trial_of("flash", ATTN_BF16);
    t.call.packed = t.packed;
    attn_layer_pack(t.context, t.layer, t.call.parameters, t.packed);
    assert_int_equal(attn_layer_forward(t.context, t.layer, &t.call), ATTN_OK);
    float *before = drawn(B * T * C, 1), *changed = (float *)t.call.parameters;
    memcpy(before, t.call.y, B * T * C * sizeof *before);
    for (size_t i = 0; i < (size_t)C * C; i++) changed[i] *= 1.5f; /* wq.weight */
    assert_int_equal(attn_layer_forward(t.context, t.layer, &t.call), ATTN_OK);
    assert_memory_equal(t.call.y, before, B * T * C * sizeof *before);
    attn_layer_pack(t.context, t.layer, t.call.parameters, t.packed);
    assert_int_equal(attn_layer_forward(t.context, t.layer, &t.call), ATTN_OK);
    assert_memory_not_equal(t.call.y, before, B * T * C * sizeof *before);
    attn_free(before);
    trial_free(&t);
}

static int nothing_is_left(void **state)
{
    (void)state;
    return attn_memory_live_blocks() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_without_packed_weights_are_refused),
        cmocka_unit_test(float32_layers_need_none),
        cmocka_unit_test(packed_weights_are_a_copy),
    };
    return cmocka_run_group_tests(tests, NULL, nothing_is_left);
}
