/* Presets and their totals, the table of tensors, starting values, schedules and refusals. */
#include "model_fixture.h"

#include "model/schedule.h"

#include <math.h>
#include <string.h>

static void test_preset_totals(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t parameters;
    } expected[] = {{"gpt2", 124439808},
                    {"gpt2-medium", 354823168},
                    {"gpt2-large", 774030080},
                    {"gpt2-xl", 1557611200},
                    /* 50257 256 + 512 256 + 4 (12 256^2 + 13 256) + 2 256 */
                    {"gpt2-micro", 16156416}};
    attn_error error = {0};
    size_t n = 0;
    while (attn_model_preset_name(n)) n++;
    assert_int_equal(n, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < n; i++) {
        attn_model_config config;
        attn_model *model = NULL;
        assert_ok(attn_model_preset(expected[i].name, &config, &error), &error);
        assert_ok(attn_model_create(&model, &config, &error), &error);
        assert_int_equal(attn_model_parameter_count(model), expected[i].parameters);
        attn_model_free(model);
    }
    attn_model_config config;
    assert_int_equal(attn_model_preset("gpt3", &config, &error), ATTN_ENOTFOUND);
    assert_string_equal(error.text, "no model is called 'gpt3': take one of gpt2-micro, gpt2, "
                                    "gpt2-medium, gpt2-large, gpt2-xl");
}

/* Tensors follow each other without overlap, and only padding lies between them. */
static void test_table(void **state)
{
    (void)state;
    const attn_model_config config = small_config();
    attn_model *model = make_model(&config, 1);
    size_t n = 0, at = 0, trained = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    for (size_t i = 0; i < n; i++) {
        const attn_model_tensor *t = &tensors[i];
        size_t count = 1;
        for (size_t d = 0; d < t->dimensions; d++) count *= t->shape[d];
        assert_int_equal(t->count, count);
        assert_true(t->offset >= at && t->offset - at < 16);
        assert_int_equal(t->is_decayed, t->dimensions >= 2);
        assert_ptr_equal(attn_model_find(model, t->name), t);
        at = t->offset + t->count;
        trained += t->is_trained ? t->count : 0;
    }
    assert_true(at <= attn_model_block_count(model));
    assert_int_equal(trained, attn_model_parameter_count(model));
    assert_null(attn_model_find(model, "h.2.ln_1.weight"));

    const attn_model_offsets *offsets = attn_model_layout(model);
    const attn_block_offsets *second = &offsets->blocks[1];
    assert_int_equal(attn_model_find(model, "wte.weight")->offset, offsets->tokens);
    assert_int_equal(attn_model_find(model, "h.1.mlp.c_fc.weight")->offset, second->up_weight);
    assert_int_equal(attn_model_find(model, "h.1.attn.wq.weight")->offset, second->attention);
    assert_int_equal(attn_model_find(model, "ln_f.bias")->offset, offsets->final_bias);
    attn_model_free(model);
}

static double deviation(const attn_model *model, const char *name)
{
    const attn_model_tensor *t = attn_model_find(model, name);
    const float *x = attn_model_parameters(model) + t->offset;
    double squares = 0.0;
    for (size_t i = 0; i < t->count; i++) squares += (double)x[i] * (double)x[i];
    return sqrt(squares / (double)t->count);
}

static void test_initial_values(void **state)
{
    (void)state;
    attn_model_config config = {.layers = 8,
                                .heads = 4,
                                .d_model = 128,
                                .positions = 256,
                                .vocabulary = 1000,
                                .mechanism = "softmax",
                                .is_causal = true};
    attn_model *model = make_model(&config, 7);
    static const char *const plain[] = {"wte.weight", "wpe.weight", "h.0.mlp.c_fc.weight",
                                        "h.7.attn.wq.weight"};
    static const char *const residual[] = {"h.3.mlp.c_proj.weight", "h.3.attn.wo.weight"};
    for (size_t i = 0; i < 4; i++)
        assert_true(fabs(deviation(model, plain[i]) / 0.02 - 1.0) < 0.03);
    for (size_t i = 0; i < 2; i++)
        assert_true(fabs(deviation(model, residual[i]) / (0.02 / 4.0) - 1.0) < 0.03);
    const attn_model_tensor *gain = attn_model_find(model, "h.1.ln_2.weight");
    for (size_t i = 0; i < gain->count; i++)
        assert_true(attn_model_parameters(model)[gain->offset + i] == 1.0f);
    assert_true(deviation(model, "h.1.mlp.c_fc.bias") == 0.0);

    /* Layers differ from each other; the same tensor is the same in a deeper model. */
    const float *p = attn_model_parameters(model);
    const attn_model_tensor *first = attn_model_find(model, "h.0.mlp.c_fc.weight");
    const attn_model_tensor *second = attn_model_find(model, "h.1.mlp.c_fc.weight");
    const size_t size_bytes = first->count * sizeof *p;
    assert_int_not_equal(memcmp(p + first->offset, p + second->offset, size_bytes), 0);
    config.layers = 9;
    attn_model *deeper = make_model(&config, 7), *other = make_model(&config, 8);
    const size_t at = attn_model_find(deeper, "h.1.mlp.c_fc.weight")->offset;
    assert_memory_equal(attn_model_parameters(deeper) + at, p + second->offset, size_bytes);
    assert_int_not_equal(memcmp(attn_model_parameters(other) + at, p + second->offset, size_bytes),
                         0);
    attn_model_free(other);
    attn_model_free(deeper);
    attn_model_free(model);
}

static void test_refusals(void **state)
{
    (void)state;
    const struct {
        attn_model_config config;
        attn_status status;
        const char *text;
    } cases[] = {
        {{0, 1, 8, 4, 9, "softmax", true, ATTN_F32},
         ATTN_ESHAPE,
         "a model of 0 layers: give 1 to 4096"},
        {{1, 1, 8, 0, 9, "softmax", true, ATTN_F32},
         ATTN_ESHAPE,
         "a model of width 8 and 0 positions: give sizes above 0"},
        {{1, 1, 8, 4, 1, "softmax", true, ATTN_F32},
         ATTN_ESHAPE,
         "a vocabulary of 1 tokens: give 2 to 4294967295"},
        {{1, 1, (size_t)1 << 40, 4, 9, "softmax", true, ATTN_F32},
         ATTN_ESHAPE,
         "a model of width 1099511627776 does not fit into memory"},
        {{1, 3, 8, 4, 9, "softmax", true, ATTN_F32},
         ATTN_ESHAPE,
         "3 heads do not divide the width 8"},
        {{1, 1, 8, 4, 9, NULL, true, ATTN_F32},
         ATTN_EARGUMENT,
         "a model needs an attention mechanism"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_error error = {0};
        attn_model *model = NULL;
        const size_t live = attn_memory_live_blocks();
        assert_int_equal(attn_model_create(&model, &cases[i].config, &error), cases[i].status);
        assert_string_equal(error.text, cases[i].text);
        assert_null(model);
        assert_int_equal(attn_memory_live_blocks(), live);
    }
    attn_error error = {0};
    attn_model *model = NULL;
    attn_model_config config = small_config();
    config.mechanism = "sofmax";
    assert_int_equal(attn_model_create(&model, &config, &error), ATTN_ENOTFOUND);
}

static void test_short_memory(void **state)
{
    (void)state;
    const attn_model_config config = small_config();
    const size_t live = attn_memory_live_blocks();
    size_t n = 1;
    for (;; n++) {
        attn_error error = {0};
        attn_model *model = NULL;
        attn_memory_fail_at(n);
        const attn_status status = attn_model_create(&model, &config, &error);
        attn_memory_fail_at(0);
        attn_model_free(model);
        assert_int_equal(attn_memory_live_blocks(), live);
        if (status == ATTN_OK) break;
        assert_int_equal(status, ATTN_EMEMORY);
    }
    assert_true(n > 5);
}

static void test_schedule(void **state)
{
    (void)state;
    const attn_schedule cosine = {
        .kind = ATTN_SCHEDULE_COSINE, .peak = 1.0, .floor = 0.1, .warmup_steps = 4, .steps = 15};
    assert_true(attn_schedule_rate(&cosine, 0) == 0.25);
    assert_true(attn_schedule_rate(&cosine, 3) == 1.0);
    assert_true(attn_schedule_rate(&cosine, 4) == 1.0);
    assert_true(fabs(attn_schedule_rate(&cosine, 9) - 0.55) < 1e-12);
    assert_true(attn_schedule_rate(&cosine, 14) == 0.1);
    assert_true(attn_schedule_rate(&cosine, 1000) == 0.1);
    const attn_schedule constant = {.kind = ATTN_SCHEDULE_CONSTANT, .peak = 3.0, .warmup_steps = 2};
    assert_true(attn_schedule_rate(&constant, 0) == 1.5);
    assert_true(attn_schedule_rate(&constant, 100000) == 3.0);
    const attn_schedule all_warmup = {
        .kind = ATTN_SCHEDULE_COSINE, .peak = 1.0, .floor = 0.0, .warmup_steps = 5, .steps = 5};
    assert_true(attn_schedule_rate(&all_warmup, 4) == 1.0);
    assert_true(attn_schedule_rate(&all_warmup, 5) == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preset_totals),  cmocka_unit_test(test_table),
        cmocka_unit_test(test_initial_values), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_short_memory),   cmocka_unit_test(test_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
