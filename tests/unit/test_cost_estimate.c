/* Whole models: parameters, the worked numbers of the literature, and the model that trains. */
#include "base/memory.h"
#include "cost/estimate.h"
#include "kernels/context.h"
#include "model/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static attn_catalog catalog;

static int load(void **state)
{
    (void)state;
    return attn_catalog_load(&catalog, NULL, NULL, NULL) == ATTN_OK ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    attn_catalog_free(&catalog);
    return attn_memory_live_blocks() == 0 ? 0 : -1;
}

static attn_cost_request request(const char *model, const char *mechanism, size_t batch,
                                 size_t keys)
{
    attn_cost_request r = {.catalog = &catalog,
                           .spec = attn_records_find(&catalog.models, model, NULL),
                           .type = ATTN_COST_F32,
                           .batch = batch,
                           .keys = keys};
    assert_non_null(r.spec);
    assert_int_equal(attn_pattern_parse(mechanism, &r.pattern, NULL), ATTN_OK);
    return r;
}

static attn_cost_estimate make(attn_cost_request r)
{
    static attn_cost_estimate e;
    attn_error error = {0};
    if (attn_cost_estimate_make(&r, &e, &error) != ATTN_OK) fail_msg("%s", error.text);
    return e;
}

static const attn_cost_part *part(const attn_cost_estimate *e, const char *name)
{
    for (size_t i = 0; i < e->n_parts; i++)
        if (strcmp(e->parts[i].name, name) == 0) return &e->parts[i];
    fail_msg("no part '%s'", name);
    return NULL;
}

/* To as many digits as somebody printed. */
static void assert_digits(double value, double expected, double half_of_last_digit)
{
    if (fabs(value - expected) > half_of_last_digit * 1.0001)
        fail_msg("%.9g is not %.9g", value, expected);
}

/* ---- parameters ----------------------------------------------------------------------------- */

/* The sum over parts is the published total: no part is missing, none counted twice. */
static void test_parts_hold_all_parameters(void **state)
{
    (void)state;
    for (size_t i = 0; i < catalog.models.count; i++) {
        const attn_spec *spec = attn_records_at(&catalog.models, i);
        if (spec->kind == ATTN_SPEC_VISION_LANGUAGE) continue;
        for (int phase = ATTN_COST_TRAIN; phase <= ATTN_COST_DECODE; phase++) {
            attn_cost_request r = request(spec->record.name, "flash", 1, 64);
            r.phase = (attn_cost_phase)phase;
            const bool is_decoder = spec->kind == ATTN_SPEC_DECODER;
            if (phase == ATTN_COST_DECODE && !is_decoder) continue;
            const attn_cost_estimate e = make(r);
            uint64_t expected = attn_spec_parameters(spec);

            assert_int_equal(e.parameters, expected);
        }
    }
}

/* ---- worked numbers ------------------------------------------------------------------------- */

/* GPT-2 124M, batch 2, 512 tokens, to the last digit. */
static void test_gpt2_integers(void **state)
{
    (void)state;
    const attn_cost_estimate eager = make(request("gpt2", "softmax", 2, 512));
    assert_int_equal(eager.forward.matmul, 272320954368);
    assert_int_equal(eager.backward.matmul, 544641908736);
    attn_cost_request r = request("gpt2", "flash", 2, 512);
    r.tile = 64;
    const attn_cost_estimate flash = make(r);
    assert_int_equal(flash.forward.matmul, 263865237504);
    assert_int_equal(flash.backward.matmul, 533166292992);
    assert_int_equal(flash.update.exponential, 124439808);
    assert_int_equal(flash.update.other, 15 * 124439808ull);
    r.recompute = ATTN_RECOMPUTE_FULL;
    const attn_cost_estimate again = make(r);
    attn_cost_request q = request("gpt2", "softmax", 2, 512);
    q.recompute = ATTN_RECOMPUTE_FULL;
    assert_digits((double)attn_cost_total(&again).matmul, 981.8e9, 0.05e9);
    const attn_cost_estimate eager_again = make(q);
    assert_digits((double)attn_cost_total(&eager_again).matmul, 1010.2e9, 0.05e9);
    /* one layer: GFLOP, and exponentials and others in millions */
    assert_digits((double)part(&eager, "q, k, v")->work[0].matmul, 3.624e9, 5e5);
    assert_digits((double)part(&eager, "core")->work[0].matmul, 1.611e9, 5e5);
    assert_digits((double)part(&eager, "core")->work[1].matmul, 3.221e9, 5e5);
    assert_digits((double)part(&eager, "core")->work[0].exponential, 6.29e6, 5e3);
    assert_digits((double)part(&eager, "core")->work[0].other, 37.7e6, 0.07e6);
    assert_digits((double)part(&flash, "core")->work[0].matmul, 0.906e9, 5e5);
    assert_digits((double)part(&flash, "core")->useful[0], 0.807e9, 5e5);
    assert_digits((double)part(&flash, "core")->work[1].matmul, 2.265e9, 5e5);
    /* The literature rescales at every tile: (E + R + T) exponentials and R (dv + 3) + T others
     * more, R = 2304 rows visited by 24 heads; our tiles rescale when they must. */
    assert_digits((double)part(&flash, "core")->work[0].exponential + 24 * (2304 + 512), 3.61e6,
                  5e3);
    assert_digits((double)part(&flash, "core")->work[0].other + 24 * (2304 * 67 + 512), 19.5e6,
                  5e4);
    assert_digits((double)part(&flash, "core")->work[1].exponential, 3.54e6, 5e3);
    assert_digits((double)part(&flash, "o")->work[0].matmul, 1.208e9, 5e5);
    assert_digits((double)part(&flash, "activation")->work[1].other, 50.3e6, 5e4);
    assert_digits((double)part(&flash, "logits")->work[0].matmul, 79.05e9, 5e6);
    /* whole forward: EX 164.7 M and 132.5 M; EW 1.15 G and 0.93 G */
    assert_digits((double)eager.forward.exponential, 164.7e6, 5e4);
    assert_digits((double)flash.forward.exponential + 12 * 24 * (2304 + 512), 132.5e6, 5e4);
    assert_digits((double)eager.forward.other, 1.15e9, 5e6);
    assert_digits((double)flash.forward.other + 12 * 24 * (2304 * 67 + 512), 0.93e9, 5e6);
}

static void test_gpt2_memory_and_bytes(void **state)
{
    (void)state;
    const attn_cost_estimate eager = make(request("gpt2", "softmax", 2, 512));
    const attn_cost_estimate flash = make(request("gpt2", "flash", 2, 512));
    const attn_cost_memory *m = &eager.memory;
    assert_int_equal(m->parameters + m->gradients + m->optimizer, 16 * 124439808ull);
    assert_int_equal(m->logits, 4 * 1024 * 50257);
    uint64_t eager_layers = 0, flash_layers = 0, layer_bytes = 0;
    for (size_t i = 0; i < eager.n_parts; i++)
        if (eager.parts[i].is_in_layer)
            eager_layers += eager.parts[i].times * eager.parts[i].kept_bytes;
    for (size_t i = 0; i < flash.n_parts; i++) {
        const attn_cost_part *p = &flash.parts[i];
        if (!p->is_in_layer) continue;
        flash_layers += p->times * p->kept_bytes;
        layer_bytes += p->times * p->bytes[0];
    }
    assert_digits((double)eager_layers, 906.2e6, 5e4);
    /* the literature keeps one number a row, our kernels two: 12 x 2 x 12 x 512 more */
    assert_digits((double)flash_layers - 4.0 * 12 * 2 * 12 * 512, 604.8e6, 5e4);
    assert_digits((double)layer_bytes / 12, 147.8e6, 5e4 + 12 * 1024 * 4);
    attn_cost_request r = request("gpt2", "flash", 2, 512);
    r.type = ATTN_COST_FP16;
    r.phase = ATTN_COST_PREFILL;
    const attn_cost_estimate prefill = make(r);
    assert_int_equal(prefill.cache_bytes, 36864 * 1024);
    r.phase = ATTN_COST_DECODE;
    r.batch = 1;
    const attn_cost_estimate decode = make(r);
    assert_digits((double)decode.forward.matmul, 265.9e6, 5e4);
    assert_digits((double)(12 * part(&decode, "core")->work[0].matmul), 18.9e6, 5e4);
    r = request("gpt2", "flash", 2, 512);
    r.recompute = ATTN_RECOMPUTE_FULL;
    assert_true(make(r).memory.activations < flash.memory.activations / 5);
}

/* The model that trains counts the same, for every mechanism that can train it. */
static void test_equals_trained_model(void **state)
{
    (void)state;
    size_t compared = 0;
    static const char *const patterns[] = {"sliding*3+flash", "gla+softmax"};
    const size_t alone = attn_mechanism_count();
    for (size_t m = 0; m < alone + 2; m++) {
        const char *name = m < alone ? attn_mechanism_name(m) : patterns[m - alone];
        if (m < alone && !attn_mechanism_is_causal(name)) continue;
        attn_model_config config;
        attn_model *model = NULL;
        attn_error error = {0};
        assert_int_equal(attn_model_preset("gpt2", &config, &error), ATTN_OK);
        config.layers = 5;
        config.vocabulary = 512;
        config.mechanism = name;
        if (attn_model_create(&model, &config, &error) != ATTN_OK) fail_msg("%s", error.text);
        attn_spec spec = *(const attn_spec *)attn_records_find(&catalog.models, "gpt2", NULL);
        spec.layers = 5;
        spec.vocabulary = 512;
        attn_cost_request r = request("gpt2", name, 3, 192);
        r.spec = &spec;
        const attn_cost_estimate train = make(r);
        const attn_work forward = attn_model_work(model, ATTN_MODEL_FORWARD, 3, 192, NULL);
        const attn_work backward = attn_model_work(model, ATTN_MODEL_BACKWARD, 3, 192, NULL);
        const attn_work update = attn_model_work(model, ATTN_MODEL_UPDATE, 3, 192, NULL);
        assert_memory_equal(&train.forward, &forward, sizeof forward);
        assert_memory_equal(&train.backward, &backward, sizeof backward);
        /* tensors that are not trained are parameters, but nobody updates them */
        assert_true(train.update.other >= update.other);
        r.phase = ATTN_COST_PREFILL;
        const attn_cost_estimate prefill = make(r);
        const attn_work first = attn_model_work(model, ATTN_MODEL_PREFILL, 3, 192, NULL);
        assert_memory_equal(&prefill.forward, &first, sizeof first);
        r.phase = ATTN_COST_DECODE;
        const attn_cost_estimate decode = make(r);
        const attn_work one = attn_model_work(model, ATTN_MODEL_DECODE, 3, 191, NULL);
        assert_memory_equal(&decode.forward, &one, sizeof one);
        attn_model_free(model);
        compared++;
    }
    assert_true(compared >= 10);
}

static double layer_matmul(const attn_cost_estimate *e, size_t pass, size_t layers)
{
    double sum = 0.0;
    for (size_t i = 0; i < e->n_parts; i++)
        if (e->parts[i].is_in_layer)
            sum += (double)e->parts[i].work[pass].matmul * (double)e->parts[i].times;
    return sum / (double)layers;
}

static void test_llama(void **state)
{
    (void)state;
    static const struct {
        const char *mechanism;
        size_t length;
        double core[2], core_half, layer[2], layer_half[2], kept, kept_half;
    } rows[] = {
        {"softmax", 2048, {68.7e9, 137.4e9}, 5e7, {962.1e9, 1.924e12}, {5e7, 5e8}, 553.7e6, 5e4},
        {"flash", 2048, {36.5e9, 91.3e9}, 5e7, {929.9e9, 1.878e12}, {5e7, 5e8}, 285.5e6, 1e6},
        {"softmax",
         8192,
         {1.0995e12, 2.199e12},
         5e8,
         {4.673e12, 9.346e12},
         {5e8, 5e8},
         5.436e9,
         5e5},
        {"flash", 8192, {558.3e9, 1.396e12}, 5e8, {4.132e12, 8.543e12}, {5e8, 5e8}, 1.142e9, 2e6},
    };
    for (size_t i = 0; i < 4; i++) {
        attn_cost_request r = request("llama3-8b", rows[i].mechanism, 1, rows[i].length);
        r.type = ATTN_COST_BF16;
        if (i % 2) r.tile = 128;
        const attn_cost_estimate e = make(r);
        for (size_t pass = 0; pass < 2; pass++) {
            assert_digits((double)part(&e, "core")->work[pass].matmul, rows[i].core[pass],
                          rows[i].core_half);
            assert_digits(layer_matmul(&e, pass, 32), rows[i].layer[pass],
                          rows[i].layer_half[pass]);
        }
        double kept = 0.0;
        for (size_t p = 0; p < e.n_parts; p++)
            if (e.parts[p].is_in_layer)
                kept += (double)(e.parts[p].kept_bytes * e.parts[p].times) / 32;
        assert_digits(kept, rows[i].kept, rows[i].kept_half);
    }
    static const struct {
        size_t length;
        double layer, half, cache;
    } decode[] = {{2048, 469.8e6, 5e4, 8388608},
                  {8192, 570.4e6, 5e4, 33554432},
                  {131072, 2.584e9, 5e5, 536870912}};
    for (size_t i = 0; i < 3; i++) {
        attn_cost_request r = request("llama3-8b", "flash", 1, decode[i].length);
        r.phase = ATTN_COST_DECODE;
        r.type = ATTN_COST_BF16;
        const attn_cost_estimate e = make(r);
        assert_digits(layer_matmul(&e, 0, 32), decode[i].layer, decode[i].half);
        assert_digits((double)e.cache_bytes / 32, decode[i].cache, 0);
    }
    attn_cost_request r = request("llama2-7b", "flash", 1, 2048);
    r.tile = 128;
    const attn_cost_estimate e = make(r);
    assert_digits(layer_matmul(&e, 0, 32), 865.4e9, 5e7);
    assert_digits(layer_matmul(&e, 1, 32), 1.749e12, 5e8);
    assert_digits((double)part(&e, "core")->useful[0], 549.8e9 / 16, 1e9);
}

/* Cache bytes a token, of all layers. */
static void test_caches(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        double bytes;
    } rows[] = {{"llama2-7b", 524288}, {"llama3-8b", 131072},       {"qwen3-8b", 147456},
                {"gemma2-9b", 344064}, {"deepseek-v2-lite", 31104}, {"deepseek-v3", 70272}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        attn_cost_request r = request(rows[i].model, "flash", 1, 1000);
        r.phase = ATTN_COST_DECODE;
        r.type = ATTN_COST_BF16;
        assert_true((double)make(r).cache_bytes == 1000 * rows[i].bytes);
        r.phase = ATTN_COST_PREFILL;
        assert_true((double)make(r).cache_bytes == 1000 * rows[i].bytes);
    }
    attn_cost_request r = request("gemma2-9b", "flash", 1, 8192);
    r.phase = ATTN_COST_DECODE;
    r.type = ATTN_COST_BF16;
    assert_digits((double)make(r).cache_bytes, 2.114e9, 5e5); /* half of the layers stop at 4096 */
}

static void test_latent_decoding(void **state)
{
    (void)state;
    attn_cost_request r = request("deepseek-v3", "flash", 1, 4096);
    r.phase = ATTN_COST_DECODE;
    r.type = ATTN_COST_BF16;
    const attn_cost_estimate absorbed = make(r);
    const attn_cost_part *core = part(&absorbed, "core");
    const attn_cost_part *up = part(&absorbed, "k, v up, absorbed");
    /* 2 H r (dn + dv) + 2 S H (2 r + dr), which is 1.174 GFLOP; AI 242 */
    assert_int_equal(up->work[0].matmul + core->work[0].matmul,
                     2ull * 128 * 512 * 256 + 2ull * 4096 * 128 * (2 * 512 + 64));
    assert_digits((double)(up->work[0].matmul + core->work[0].matmul), 1.174e9, 5e5);
    assert_digits((double)core->work[0].matmul / (double)core->bytes[0], 242, 0.5);
    r.latent = ATTN_LATENT_NAIVE;
    const attn_cost_estimate naive = make(r);
    assert_int_equal(part(&naive, "core")->work[0].matmul, 2ull * 4096 * 128 * (128 + 64 + 128));
    assert_int_equal(part(&naive, "k, v up, of the whole cache")->work[0].matmul,
                     2ull * 4096 * 512 * 128 * 256);
    /* prefill: backward over forward of the core is 2.6 with values narrower than keys */
    attn_cost_request t = request("deepseek-v3", "flash", 1, 4096);
    const attn_cost_estimate train = make(t);
    assert_digits((double)part(&train, "core")->work[1].matmul /
                      (double)part(&train, "core")->work[0].matmul,
                  2.6, 1e-9);
}

static void test_vision(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        double flop, half;
    } rows[] = {{"vit-b16", 35.13e9, 5e6},
                {"vit-l14", 162.0e9, 5e7},
                {"clip-vit-l14-336", 381.9e9, 5e7},
                {"blip2-qformer", 12.75e9, 5e6}};
    for (size_t i = 0; i < 4; i++) {
        attn_cost_request r = request(rows[i].model, "flash", 1, 0);
        r.phase = ATTN_COST_PREFILL;
        assert_digits((double)make(r).forward.matmul, rows[i].flop, rows[i].half);
    }
    attn_cost_request r = request("vit-l14", "flash", 1, 0);
    r.phase = ATTN_COST_PREFILL;
    r.image = 336;
    assert_digits((double)make(r).forward.matmul, 381.9e9, 5e7);
    r = request("llava-1.5-7b", "flash", 1, 0);
    r.phase = ATTN_COST_PREFILL;
    r.text = 128;
    r.tile = 1; /* executed pairs are the visible ones */
    const attn_cost_estimate e = make(r);
    double language = 0.0;
    for (size_t i = 0; i < e.n_parts; i++)
        if (strncmp(e.parts[i].name, "language", 8) == 0)
            language += (double)e.parts[i].work[0].matmul * (double)e.parts[i].times;
    assert_digits(language, 9.25e12, 5e9);
    /* Q-Former: its cross cores */
    r = request("blip2-qformer", "flash", 1, 0);
    r.phase = ATTN_COST_PREFILL;
    const attn_cost_estimate q = make(r);
    assert_digits((double)part(&q, "cross core")->work[0].matmul, 25.3e6, 5e4);
    assert_int_equal(part(&q, "cross core")->times, 6);
    assert_digits((double)part(&q, "cross k, v")->work[0].matmul, 1.112e9, 5e5);
}

/* The Q-Former's cross-attention is the layer `cross` of libattn, forward and backward. */
static void test_cross_attention(void **state)
{
    (void)state;
    const attn_layer_config config = {.mechanism = "cross",
                                      .options = "mem_len=257,mem_dim=1408",
                                      .d_model = 768,
                                      .heads = 12,
                                      .positions = 32};
    attn_layer *layer = NULL;
    attn_error error = {0};
    if (attn_layer_create(&layer, &config, &error) != ATTN_OK) fail_msg("%s", error.text);
    const attn_cost_estimate e = make(request("blip2-qformer", "flash", 3, 0));
    static const char *const parts[] = {"cross q", "cross k, v", "cross core", "cross o"};
    size_t parameters = 0;
    for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++) {
        attn_work sum = {0};
        for (size_t i = 0; i < 4; i++) {
            attn_work_add(&sum, part(&e, parts[i])->work[pass]);
            parameters += pass == 0 ? part(&e, parts[i])->parameters : 0;
        }
        const attn_work layer_work = attn_layer_work(
            layer, pass == 0 ? ATTN_PHASE_FORWARD : ATTN_PHASE_BACKWARD, 3, 32, NULL);
        assert_memory_equal(&sum, &layer_work, sizeof sum);
    }
    assert_int_equal(parameters, attn_layer_parameter_count(layer));
    attn_layer_free(layer);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *model, *mechanism, *why;
        attn_cost_phase phase;
        size_t batch, keys, queries, image, text;
    } rows[] = {
        {"gpt2", "flash", "--seq must be", ATTN_COST_TRAIN, 1, 0, 0, 0, 0},
        {"gpt2", "flash", "--queries 9 is above --seq 8", ATTN_COST_DECODE, 1, 8, 9, 0, 0},
        {"bert-base", "flash", "does not decode", ATTN_COST_DECODE, 1, 8, 0, 0, 0},
        {"vit-b16", "flash", "no multiple of the patch", ATTN_COST_PREFILL, 1, 0, 0, 230, 0},
        {"gpt2", "flash", "sees no image", ATTN_COST_PREFILL, 1, 8, 0, 224, 0},
        {"gpt2", "flsh", "did you mean", ATTN_COST_PREFILL, 1, 8, 0, 0, 0},
        {"llava-1.5-7b", "flash", "for --phase prefill", ATTN_COST_TRAIN, 1, 0, 0, 0, 9},
        {"llava-1.5-7b", "flash", "give --text", ATTN_COST_PREFILL, 1, 0, 0, 0, 0},
        {"llama3-70b", "flash", "64-bit", ATTN_COST_TRAIN, 65536, 1 << 22, 0, 0, 0},
        {"llama3-70b", "gla", "64-bit", ATTN_COST_TRAIN, 65536, 1 << 26, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        attn_cost_request r =
            request(rows[i].model, rows[i].mechanism, rows[i].batch, rows[i].keys);
        r.phase = rows[i].phase;
        r.queries = rows[i].queries;
        r.image = rows[i].image;
        r.text = rows[i].text;
        attn_cost_estimate e;
        attn_error error = {0};
        if (attn_cost_estimate_make(&r, &e, &error) == ATTN_OK)
            fail_msg("%s %s is accepted", rows[i].model, rows[i].mechanism);
        if (!strstr(error.text, rows[i].why)) fail_msg("'%s' lacks '%s'", error.text, rows[i].why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parts_hold_all_parameters),
                                       cmocka_unit_test(test_gpt2_integers),
                                       cmocka_unit_test(test_gpt2_memory_and_bytes),
                                       cmocka_unit_test(test_equals_trained_model),
                                       cmocka_unit_test(test_llama),
                                       cmocka_unit_test(test_caches),
                                       cmocka_unit_test(test_latent_decoding),
                                       cmocka_unit_test(test_vision),
                                       cmocka_unit_test(test_cross_attention),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, load, unload);
}
