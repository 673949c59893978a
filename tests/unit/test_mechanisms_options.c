/* Options that do not fit: one line each, which names the option, what was found and what is
 * needed; nothing is made. And calls of layers with a memory. */
#include "attn/attn.h"
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const attn_layer_config sizes = {
    .d_model = 64, .heads = 4, .positions = 100, .is_causal = true};

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *mechanism, *options, *text;
        attn_status status;
    } cases[] = {
        {"sliding", "window=0",
         "sliding: option window takes a whole number from 1 to 268435456, not '0'",
         ATTN_EARGUMENT},
        {"sliding", "window=4.5",
         "sliding: option window takes a whole number from 1 to 268435456, not '4.5'",
         ATTN_EARGUMENT},
        {"flash", "causal=maybe", "flash: option causal is true or false, not 'maybe'",
         ATTN_EARGUMENT},
        {"flash", "casual=false", "flash has no option 'casual'; did you mean 'causal'?",
         ATTN_ENOTFOUND},
        {"gla", "causal=false", "gla has no bidirectional form", ATTN_EARGUMENT},
        {"sliding", "window", "sliding: option 'window' needs a value: window=...", ATTN_EARGUMENT},
        {"sliding", "sinks=101", "sliding: sinks=101 are more than the 100 positions", ATTN_ESHAPE},
        {"sparse", "block=0",
         "sparse: option block takes a whole number from 1 to 1048576 or auto, not '0'",
         ATTN_EARGUMENT},
        {"sparse", "block=101", "sparse: block=101 is longer than the 100 positions", ATTN_ESHAPE},
        {"sparse", "local=0",
         "sparse: option local takes a whole number from 1 to 1048576, not '0'", ATTN_EARGUMENT},
        {"sparse", "block=20,global=6",
         "sparse: global=6 blocks of 20 tokens are more than the 100 positions", ATTN_ESHAPE},
        {"sparse", "random=65", "sparse: option random takes a whole number from 0 to 64, not '65'",
         ATTN_EARGUMENT},
        {"sparse", "blok=4", "sparse has no option 'blok'; did you mean 'block'?", ATTN_ENOTFOUND},
        {"flex", "score=alibbi",
         "flex: option score is one of alibi|alibi-paper|none|softcap, not 'alibbi'",
         ATTN_EARGUMENT},
        {"flex", "mask=window",
         "flex: option mask is one of auto|causal|full|prefix|document, not 'window'",
         ATTN_EARGUMENT},
        {"flex", "score=softcap,cap=0",
         "flex: option cap takes a number from 0.001 to 1000000, not '0'", ATTN_EARGUMENT},
        {"flex", "mask=document,doc_len=0",
         "flex: option doc_len takes a whole number from 1 to 268435456, not '0'", ATTN_EARGUMENT},
        {"flex", "mask=prefix,prefix=101", "flex: prefix=101 is more than the 100 positions",
         ATTN_ESHAPE},
        {"mla", "kv_rank=0",
         "mla: option kv_rank takes a whole number from 1 to 1048576 or auto, not '0'",
         ATTN_EARGUMENT},
        {"mla", "kv_rank=1",
         "mla: kv_rank=1 leaves nothing but a sign behind the norm; take 2 or more", ATTN_ESHAPE},
        {"mla", "kv_rank=65", "mla: kv_rank=65 is more than the width 64 of the model",
         ATTN_ESHAPE},
        {"mla", "q_rank=1",
         "mla: q_rank=1 leaves nothing but a sign behind the norm; take 2 or more", ATTN_ESHAPE},
        {"mla", "q_rank=65", "mla: q_rank=65 is more than the width 64 of the model", ATTN_ESHAPE},
        {"mla", "q_rank=auto",
         "mla: option q_rank takes a whole number from 0 to 1048576, not 'auto'", ATTN_EARGUMENT},
        {"mla", "rope_dim=7", "mla: rope_dim=7 is odd, and rotary features come in pairs",
         ATTN_ESHAPE},
        {"mla", "v_dim=0",
         "mla: option v_dim takes a whole number from 1 to 65536 or auto, not '0'", ATTN_EARGUMENT},
        {"lsh", "buckets=5",
         "lsh: buckets=5 is odd: buckets are pairs, a direction and its opposite", ATTN_ESHAPE},
        {"lsh", "reach=0", "lsh: option reach takes a whole number from 1 to 65536, not '0'",
         ATTN_EARGUMENT},
        {"lsh", "round=3", "lsh has no option 'round'; did you mean 'rounds'?", ATTN_ENOTFOUND},
        {"cross", "", "cross has no causal form: it reads a memory beside the tokens",
         ATTN_EUNSUPPORTED},
    };
    const size_t live = attn_memory_live_blocks();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_layer_config config = sizes;
        attn_layer *layer = NULL;
        attn_error error = {0};
        config.mechanism = cases[i].mechanism;
        config.options = cases[i].options;
        const attn_status status = attn_layer_create(&layer, &config, &error);
        assert_string_equal(error.text, cases[i].text);
        assert_int_equal(status, cases[i].status);
        assert_null(layer);
    }
    assert_int_equal(attn_memory_live_blocks(), live);
}

/* The edges of what fits, and defaults at sizes where the usual ones do not. */
static void test_edges(void **state)
{
    (void)state;
    static const struct {
        const char *mechanism, *options;
        size_t width, heads, positions;
    } cases[] = {
        {"sliding", "window=1,sinks=100", 64, 4, 100},
        {"sparse", "block=100", 64, 4, 100},
        {"sparse", "block=20,global=5", 64, 4, 100},
        {"sparse", "", 64, 4, 1},
        {"sparse", "block=auto", 64, 4, 63},
        {"flex", "mask=prefix,prefix=100", 64, 4, 100},
        {"lsh", "rounds=64,buckets=2,reach=65536", 64, 64, 1},
        {"mla", "kv_rank=64,q_rank=64", 64, 4, 100},
        {"mla", "kv_rank=auto,nope_dim=auto,rope_dim=0,v_dim=auto", 64, 4, 100},
        {"mla", "", 2, 2, 100},
        {"mla", "", 5, 1, 100},
        {"mla", "", 256, 4, 512},
        {"mla", "", 1600, 25, 1024},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const attn_layer_config config = {.mechanism = cases[i].mechanism,
                                          .options = cases[i].options,
                                          .d_model = cases[i].width,
                                          .heads = cases[i].heads,
                                          .positions = cases[i].positions,
                                          .is_causal = true};
        attn_layer *layer = NULL;
        attn_error error = {0};
        if (attn_layer_create(&layer, &config, &error) != ATTN_OK)
            fail_msg("%s:%s: %s", config.mechanism, config.options, error.text);
        attn_layer_free(layer);
    }
}

/* What the published sizes come to at the width of GPT-2: 2,089,216 weights and a bias, and a
 * cache of 288 numbers a token in place of 1536. */
static void test_latent_sizes(void **state)
{
    (void)state;
    attn_layer *layer = NULL;
    const attn_layer_config config = {
        .mechanism = "mla", .d_model = 768, .heads = 12, .positions = 1024, .is_causal = true};
    assert_int_equal(attn_layer_create(&layer, &config, NULL), ATTN_OK);
    assert_int_equal(attn_layer_parameter_count(layer), 2089216 + 768);
    assert_int_equal(attn_layer_cache_count(layer, 2, 1000), 2 * 1000 * 288);
    attn_layer_free(layer);
}

static void test_memory(void **state)
{
    (void)state;
    attn_layer *layer = NULL;
    attn_context *context = NULL;
    attn_layer_config config = sizes;
    size_t length = 9, width = 9;
    config.mechanism = "flash";
    assert_int_equal(attn_layer_create(&layer, &config, NULL), ATTN_OK);
    attn_layer_memory(layer, &length, &width);
    assert_int_equal(length, 0);
    assert_int_equal(width, 0);
    attn_layer_free(layer);

    config.mechanism = "cross";
    config.options = "mem_len=3";
    config.is_causal = false;
    assert_int_equal(attn_layer_create(&layer, &config, NULL), ATTN_OK);
    attn_layer_memory(layer, &length, &width);
    assert_int_equal(length, 3);
    assert_int_equal(width, 64);
    assert_false(attn_layer_is_causal(layer));
    assert_int_equal(attn_layer_cache_count(layer, 1, 100), 0);

    assert_int_equal(attn_context_create(&context, 1, NULL, NULL), ATTN_OK);
    const float x[64] = {0};
    const attn_call without = {.batch = 1, .length = 1, .x = x};
    attn_call other = without;
    other.memory = x;
    other.memory_length = 2;
    assert_int_equal(attn_layer_forward(context, layer, &without), ATTN_ESHAPE);
    assert_string_equal(attn_context_error(context)->text,
                        "cross reads a memory of 3 positions: 0 were given");
    attn_context_clear_error(context);
    assert_int_equal(attn_layer_backward(context, layer, &other), ATTN_ESHAPE);
    assert_string_equal(attn_context_error(context)->text,
                        "cross reads a memory of 3 positions: 2 were given");
    attn_context_free(context);
    attn_layer_free(layer);
}

/* causal=... is an option of all that have both forms, and outweighs the caller. */
static void test_forms(void **state)
{
    (void)state;
    static const struct {
        const char *mechanism, *options;
        bool asked, got;
    } cases[] = {
        {"flash", "causal=false", true, false},
        {"flash", "causal=true", false, true},
        {"sliding", "window=4,causal=0", true, false},
        {"linformer", "causal=false", true, false},
        {"flex", "causal=false", true, false},
        {"flex", "mask=causal,causal=false", true, true}, /* the mask decides */
        {"gla", "causal=true", true, true},
        {"gla", "causal=true", false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_layer_config config = sizes;
        config.mechanism = cases[i].mechanism;
        config.options = cases[i].options;
        config.is_causal = cases[i].asked;
        attn_layer *layer = NULL;
        assert_int_equal(attn_layer_create(&layer, &config, NULL), ATTN_OK);
        assert_int_equal(attn_layer_is_causal(layer), cases[i].got);
        attn_layer_free(layer);
    }
    /* What the caller wants and there is not is no mistake in the options. */
    attn_layer_config config = sizes;
    attn_error error = {0};
    attn_layer *layer = NULL;
    config.mechanism = "gla";
    config.is_causal = false;
    assert_int_equal(attn_layer_create(&layer, &config, &error), ATTN_EUNSUPPORTED);
    assert_string_equal(error.text, "gla has no bidirectional form");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_edges),
        cmocka_unit_test(test_latent_sizes), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
