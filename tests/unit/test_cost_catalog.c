/* The catalog of devices and models: the program's own data, published totals, and files of
 * users that extend, change or break it. */
#define _POSIX_C_SOURCE 200809L
#include "base/memory.h"
#include "cost/catalog.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void load(attn_catalog *catalog, const char *devices, const char *models)
{
    attn_error error = {0};
    if (attn_catalog_load(catalog, devices, models, &error) != ATTN_OK) fail_msg("%s", error.text);
}

/* Totals as published with the models. */
static const struct {
    const char *name;
    uint64_t parameters, active;
} published[] = {
    {"gpt2", 124439808, 0},
    {"gpt2-medium", 354823168, 0},
    {"gpt2-large", 774030080, 0},
    {"gpt2-xl", 1557611200, 0},
    {"llama2-7b", 6738415616, 0},
    {"llama2-13b", 13015864320, 0},
    {"llama2-70b", 68976648192, 0},
    {"llama3-8b", 8030261248, 0},
    {"llama3-70b", 70553706496, 0},
    {"llama3.2-1b", 1235814400, 0},
    {"llama3.2-3b", 3212749824, 0},
    {"mistral-7b-v0.1", 7241732096, 0},
    {"mixtral-8x7b", 46702792704, 12879925248},
    {"qwen2.5-0.5b", 494032768, 0},
    {"qwen2.5-7b", 7615616512, 0},
    {"qwen3-8b", 8190735360, 0},
    {"gemma2-9b", 9241705984, 0},
    {"smollm2-135m", 134515008, 0},
    {"smollm2-360m", 361821120, 0},
    {"smollm2-1.7b", 1711376384, 0},
    {"deepseek-v2-lite", 15706484224, 2661150208},
    {"deepseek-v3", 671026419200, 37552297472},
    {"bert-base", 109482240, 0},
    {"bert-large", 335141888, 0},
    {"vit-b16", 86567656, 0},
    {"clip-vit-l14", 303966208, 0},
    /* without a published total: by the same formulas elsewhere */
    {"vit-l14", 303178752, 0},
    {"clip-vit-l14-336", 304293888, 0},
    {"blip2-qformer", 185683968, 0},
};

static void test_published_totals(void **state)
{
    (void)state;
    attn_catalog catalog;
    load(&catalog, NULL, NULL);
    size_t with_total = 0;
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        const attn_spec *spec = attn_records_find(&catalog.models, published[i].name, NULL);
        assert_non_null(spec);
        assert_int_equal(attn_spec_parameters(spec), published[i].parameters);
        assert_int_equal(attn_spec_active_parameters(spec),
                         published[i].active ? published[i].active : published[i].parameters);
        if (spec->parameters) assert_int_equal(spec->parameters, published[i].parameters);
        with_total += spec->parameters > 0;
    }
    assert_int_equal(with_total, 26);
    assert_int_equal(catalog.models.count, 31);
    assert_int_equal(catalog.devices.count, 28);
    attn_catalog_free(&catalog);
    assert_int_equal(attn_memory_live_blocks(), 0);
}

static void test_devices(void **state)
{
    (void)state;
    attn_catalog catalog;
    attn_error error = {0};
    load(&catalog, NULL, NULL);
    const attn_device *h100 = attn_records_find(&catalog.devices, "h100-sxm", &error);
    assert_true(attn_device_rate(h100, ATTN_COST_BF16, &error)->value == 989.0);
    assert_true(attn_device_rate(h100, ATTN_COST_FP8, &error)->value == 1979.0);
    assert_string_equal(attn_record_origin_of(&catalog.devices, h100, "bf16_tflops")->confidence,
                        "verified");
    const attn_device *b200 = attn_records_find(&catalog.devices, "b200-sxm", &error);
    assert_true(b200->rates[ATTN_COST_F32].low == 75.0 && b200->rates[ATTN_COST_F32].high == 80.0);
    const attn_device *a100 = attn_records_find(&catalog.devices, "a100-80-sxm", &error);
    assert_null(attn_device_rate(a100, ATTN_COST_FP8, &error));
    assert_string_equal(error.text,
                        "a100-80-sxm has no unit for fp8: take one of f32, tf32, bf16, fp16, int8");
    error = (attn_error){0};
    const attn_device *gaudi = attn_records_find(&catalog.devices, "gaudi2", NULL);
    assert_null(attn_device_rate(gaudi, ATTN_COST_FP16, &error));
    assert_non_null(strstr(error.text, "no published rate of fp16"));
    error = (attn_error){0};
    assert_null(attn_records_find(&catalog.devices, "h100-sxn", &error));
    assert_string_equal(error.text, "unknown device 'h100-sxn'; did you mean 'h100-sxm'?");
    attn_catalog_free(&catalog);
}

static void write_text(char *path, const char *text)
{
    strcpy(path, "/tmp/attn_catalog_XXXXXX");
    const int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, text, strlen(text)), (ssize_t)strlen(text));
    close(file);
}

#define SOURCES "\"sources\": {\"*\": {\"from\": \"a test\", \"confidence\": \"verified\"}}"

static void test_user_files(void **state)
{
    (void)state;
    char path[32];
    write_text(path,
               "{\"schema\": 1, \"devices\": [{\"name\": \"h100-sxm\", \"tdp_w\": 650, " SOURCES
               "}, {\"name\": \"mine\", \"title\": \"My card\", \"kind\": \"gpu\", "
               "\"architecture\": \"ada\", \"peaks\": \"dense\", \"memory_kind\": \"gddr\", "
               "\"memory_gb\": 12, \"bandwidth_gb_s\": [450, 500], \"bf16_tflops\": 80, " SOURCES
               "}]}");
    attn_catalog catalog;
    load(&catalog, path, NULL);
    assert_int_equal(catalog.devices.count, 29);
    const attn_device *h100 = attn_records_find(&catalog.devices, "h100-sxm", NULL);
    assert_true(h100->tdp_w.value == 650.0);
    assert_true(h100->rates[ATTN_COST_BF16].value == 989.0); /* kept */
    assert_string_equal(h100->record.file, path);
    const attn_device *mine = attn_records_find(&catalog.devices, "mine", NULL);
    assert_true(mine->bandwidth_gb_s.value == 475.0 && mine->bandwidth_gb_s.low == 450.0);
    assert_true(isnan(mine->tdp_w.value)); /* not known, which is not 0 */
    attn_catalog_free(&catalog);
    unlink(path);
}

#define DEVICE(more)                                                                               \
    "{\"schema\": 1, \"devices\": [{\"name\": \"x\", \"title\": \"X\", \"kind\": \"gpu\", "        \
    "\"architecture\": \"ampere\", \"peaks\": \"dense\", \"memory_kind\": \"hbm\", "               \
    "\"memory_gb\": 8, \"bandwidth_gb_s\": 100" more ", " SOURCES "}]}"
#define MODEL(more)                                                                                \
    "{\"schema\": 1, \"models\": [{\"name\": \"y\", \"title\": \"Y\", \"kind\": \"decoder\", "     \
    "\"vocabulary\": 10, \"layers\": 2, \"width\": 64, \"heads\": 4, \"kv_heads\": 2, "            \
    "\"ffn\": 128" more ", " SOURCES "}]}"

static const struct {
    bool is_model;
    const char *text, *why;
} broken[] = {
    {false, "{\"schema\": 1,", ":1:"},
    {false, "[]", "not of the form"},
    {false, "{\"schema\": 2, \"devices\": []}", "not of the form"},
    {false, "{\"schema\": 1, \"devices\": [{}]}", "number 1 of \"devices\" needs a short name"},
    {false, DEVICE(", \"bf16_tflop\": 1"),
     "unknown field 'bf16_tflop'; did you mean 'bf16_tflops'?"},
    {false, DEVICE(", \"bf16_tflops\": -1"), "field 'bf16_tflops' takes numbers from 0 to"},
    {false, DEVICE(", \"bf16_tflops\": \"many\""), "takes a number, [low, high] or null"},
    {false, DEVICE(", \"bf16_tflops\": [2, 1]"), "field 'bf16_tflops' takes numbers"},
    {false, DEVICE(", \"fp8_tflops\": 624"), "ampere has no unit for fp8: write null"},
    {false, DEVICE(", \"tf32_tflops\": 156, \"bf16_tflops\": 624"),
     "looks like a figure for sparse"},
    {false, DEVICE(", \"peaks\": \"sparse\""), "duplicate"},
    {false, DEVICE(", \"bf16_tflops\": 10, \"matmul_measured_tflops\": 11"),
     "is above 'bf16_tflops'"},
    {false, "{\"schema\": 1, \"devices\": [{\"name\": \"x\", \"title\": \"X\"}]}", "has no source"},
    {false, "{\"schema\": 1, \"devices\": [{\"name\": \"x\", \"title\": \"X\", " SOURCES "}]}",
     "field 'kind' is missing: add it"},
    {false,
     "{\"schema\": 1, \"devices\": [{\"name\": \"h100-sxm\", \"peaks\": \"sparse\", " SOURCES "}]}",
     "device 'h100-sxm': field 'peaks' is one of dense"},
    {false,
     "{\"schema\": 1, \"devices\": [{\"name\": \"h100-sxm\", " SOURCES
     "}, {\"name\": \"h100-sxm\", " SOURCES "}]}",
     "device 'h100-sxm' stands there twice"},
    {false, "{\"schema\": 1, \"devices\": [{\"name\": \"l4\", \"sources\": {\"tdp_w\": {}}}]}",
     "field 'tdp_w' has a source but no value"},
    {false,
     "{\"schema\": 1, \"devices\": [{\"name\": \"l4\", \"tdp_w\": 70, \"sources\": {\"*\": "
     "{\"from\": \"x\", \"confidence\": \"sure\"}}}]}",
     "a confidence that is none of verified|"},
    {true, MODEL(""), "field 'head_dim' is missing: it is not always width / heads"},
    {true, MODEL(", \"head_dim\": 16.5"), "field 'head_dim' takes a whole number"},
    {true, MODEL(", \"head_dim\": 16, \"experts\": 8"), "field 'experts' needs 'expert_ffn'"},
    {true, MODEL(", \"head_dim\": 16, \"parameters\": 5"),
     "field 'parameters' is 5, but the sizes make"},
    {true, MODEL(", \"head_dim\": 16, \"rank_kv\": 5"), "field 'rank_kv' needs"},
    {true, MODEL(", \"head_dim\": 16, \"value_dim\": 8"), "field 'value_dim' differs"},
};

static void test_broken_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char path[32];
        write_text(path, broken[i].text);
        attn_catalog catalog;
        attn_error error = {0};
        const attn_status status = attn_catalog_load(&catalog, broken[i].is_model ? NULL : path,
                                                     broken[i].is_model ? path : NULL, &error);
        assert_int_equal(status, ATTN_EFORMAT);
        if (!strstr(error.text, broken[i].why) || !strstr(error.text, path))
            fail_msg("'%s' lacks '%s' or the file", error.text, broken[i].why);
        attn_catalog_free(&catalog);
        unlink(path);
    }
    attn_catalog catalog;
    attn_error error = {0};
    assert_int_equal(attn_catalog_load(&catalog, "/nowhere/devices.json", NULL, &error), ATTN_EIO);
    attn_catalog_free(&catalog);
    assert_int_equal(attn_memory_live_blocks(), 0);
}

static void test_short_memory(void **state)
{
    (void)state;
    for (size_t n = 1;; n++) {
        attn_catalog catalog;
        attn_error error = {0};
        attn_memory_fail_at(n);
        const attn_status status = attn_catalog_load(&catalog, NULL, NULL, &error);
        attn_memory_fail_at(0);
        attn_catalog_free(&catalog);
        assert_int_equal(attn_memory_live_blocks(), 0);
        if (status == ATTN_OK) break;
        assert_int_equal(status, ATTN_EMEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_totals), cmocka_unit_test(test_devices),
        cmocka_unit_test(test_user_files), cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_short_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
