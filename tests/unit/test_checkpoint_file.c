/* Checkpoints: exact round trips, Hugging Face's layout, truncated files, faults. */
#define _POSIX_C_SOURCE 200809L
#include "checkpoint_fixture.h"

static void test_round_trip(void **state)
{
    (void)state;
    attn_error error = {0};
    const attn_model_config config = small_config();
    attn_model *model = make_distinct(&config), *loaded = NULL;
    assert_ok(attn_checkpoint_save(model, path, &error), &error);
    assert_ok(load(&loaded, NULL, &error), &error);
    assert_same(model, loaded);
    const attn_model_config *stored = attn_model_configuration(loaded);
    assert_int_equal(stored->layers, config.layers);
    assert_int_equal(stored->heads, config.heads);
    assert_int_equal(stored->positions, config.positions);
    assert_string_equal(stored->mechanism, "softmax");
    assert_true(stored->is_causal);
    attn_model_free(loaded);

    /* Over an existing file, with nothing left beside it. */
    assert_ok(attn_checkpoint_save(model, path, &error), &error);
    attn_model_free(model);
}

/* Every mechanism's tensors come back, and another mechanism with the same ones takes them. */
static void test_mechanisms(void **state)
{
    (void)state;
    for (size_t i = 0; language_mechanism(i); i++) {
        attn_error error = {0};
        attn_model_config config = small_config();
        config.d_model = 32;
        config.heads = 4;
        config.mechanism = language_mechanism(i);
        attn_model *model = make_distinct(&config), *loaded = NULL;
        assert_ok(attn_checkpoint_save(model, path, &error), &error);
        assert_ok(load(&loaded, NULL, &error), &error);
        assert_same(model, loaded);
        assert_string_equal(attn_model_configuration(loaded)->mechanism, config.mechanism);
        attn_model_free(loaded);
        attn_model_free(model);
    }
    attn_error error = {0};
    attn_model_config config = small_config();
    config.mechanism = "sliding:window=8";
    attn_model *model = make_distinct(&config), *loaded = NULL;
    assert_ok(attn_checkpoint_save(model, path, &error), &error);
    assert_ok(load(&loaded, NULL, &error), &error);
    assert_string_equal(attn_model_configuration(loaded)->mechanism, "sliding:window=8");
    attn_model_free(loaded);
    config.mechanism = "flash";
    assert_ok(load(&loaded, &config, &error), &error);
    assert_same(model, loaded);
    attn_model_free(loaded);
    attn_model_free(model);
}

static bool is_there(const char *name)
{
    attn_error error = {0};
    attn_safetensors *file = NULL;
    assert_ok(attn_safetensors_open(&file, path, &error), &error);
    const bool found = attn_safetensors_find(file, name) != NULL;
    attn_safetensors_close(file);
    return found;
}

/* Each block in its own layout; a model of other blocks does not take them. */
static void test_pattern(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_model_config config = small_config();
    config.layers = 5;
    config.mechanism = "flash+gla+flash:causal=true+flash";
    attn_model *model = make_distinct(&config), *loaded = NULL;
    assert_ok(attn_checkpoint_save(model, path, &error), &error);
    assert_ok(load(&loaded, NULL, &error), &error);
    assert_same(model, loaded);
    assert_string_equal(attn_model_configuration(loaded)->mechanism,
                        "flash+gla+flash:causal=true+flash");
    assert_true(is_there("h.0.attn.c_attn.weight") && is_there("h.4.attn.c_attn.weight"));
    assert_true(is_there("h.1.attn.wg.weight") && !is_there("h.1.attn.c_attn.weight"));
    attn_model_free(loaded);
    config.mechanism = "flash+gla";
    assert_int_equal(load(&loaded, &config, &error), ATTN_ENOTFOUND);
    assert_non_null(strstr(error.text, "tensor h.3.attn.wq.weight"));
    attn_model_free(model);
}

/* A model that sees the future says so in its file, and comes back. */
static void test_leaking(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_model_config config = small_config();
    config.mechanism = "flex:mask=full";
    config.is_causal = false;
    attn_model *model = make_distinct(&config), *loaded = NULL;
    assert_ok(attn_checkpoint_save(model, path, &error), &error);
    assert_ok(load(&loaded, NULL, &error), &error);
    assert_same(model, loaded);
    assert_false(attn_model_configuration(loaded)->is_causal);
    assert_int_equal(attn_model_future_blocks(loaded), 2);
    attn_model_free(loaded);
    attn_model_free(model);
}

/* The first files keep the options apart. */
static void test_options_apart(void **state)
{
    (void)state;
    attn_error error = {0};
    static const char *const pairs[][2] = {{"layers", "1"},
                                           {"heads", "1"},
                                           {"d_model", "8"},
                                           {"positions", "9"},
                                           {"vocabulary", "11"},
                                           {"mechanism", "sliding"},
                                           {"options", "window=4,sinks=2"}};
    attn_safetensors_writer *writer = NULL;
    attn_checkpoint *checkpoint = NULL;
    assert_ok(attn_safetensors_create(&writer, path, &error), &error);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        assert_ok(attn_safetensors_describe(writer, pairs[i][0], pairs[i][1], &error), &error);
    assert_ok(attn_safetensors_commit(writer, &error), &error);
    attn_safetensors_writer_free(writer);
    assert_ok(attn_checkpoint_open(&checkpoint, path, &error), &error);
    assert_string_equal(attn_checkpoint_config(checkpoint)->mechanism, "sliding:window=4:sinks=2");
    attn_checkpoint_close(checkpoint);
}

/* Where one element of ours lies in Hugging Face's layout. */
static void test_layout(void **state)
{
    (void)state;
    attn_error error = {0};
    const attn_model_config config = small_config();
    const size_t c = config.d_model;
    attn_model *model = make_distinct(&config);
    assert_ok(attn_checkpoint_save(model, path, &error), &error);
    attn_safetensors *file = NULL;
    assert_ok(attn_safetensors_open(&file, path, &error), &error);
    assert_int_equal(attn_safetensors_count(file), 4 + 12 * config.layers);

    static const struct {
        const char *ours, *theirs;
        size_t out, in, column; /* our element; its column in their matrix */
    } places[] = {{"h.1.attn.wq.weight", "h.1.attn.c_attn.weight", 5, 7, 5},
                  {"h.1.attn.wk.weight", "h.1.attn.c_attn.weight", 5, 7, 24 + 5},
                  {"h.0.attn.wv.weight", "h.0.attn.c_attn.weight", 23, 0, 48 + 23},
                  {"h.0.attn.wo.weight", "h.0.attn.c_proj.weight", 2, 9, 2},
                  {"h.1.mlp.c_fc.weight", "h.1.mlp.c_fc.weight", 95, 11, 95},
                  {"h.0.mlp.c_proj.weight", "h.0.mlp.c_proj.weight", 20, 90, 20}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const attn_model_tensor *ours = attn_model_find(model, places[i].ours);
        const attn_tensor *theirs = attn_safetensors_find(file, places[i].theirs);
        assert_non_null(theirs);
        assert_int_equal(theirs->shape[0], ours->shape[1]);
        float got = 0.0f;
        memcpy(&got,
               (const char *)theirs->data +
                   (places[i].in * theirs->shape[1] + places[i].column) * sizeof got,
               sizeof got);
        assert_true(got ==
                    attn_model_parameters(
                        model)[ours->offset + places[i].out * ours->shape[1] + places[i].in]);
    }
    const attn_tensor *bias = attn_safetensors_find(file, "h.1.attn.c_attn.bias");
    assert_int_equal(bias->count, 3 * c);
    float got = 0.0f;
    memcpy(&got, (const char *)bias->data + (c + 4) * sizeof got, sizeof got);
    assert_true(got == attn_model_parameters(
                           model)[attn_model_find(model, "h.1.attn.wk.bias")->offset + 4]);
    assert_string_equal(attn_safetensors_metadata(file, "format"), "pt");
    size_t size_bytes = 0;
    for (size_t i = 0; i < attn_safetensors_count(file); i++)
        size_bytes += attn_safetensors_at(file, i)->count * sizeof(float);
    assert_int_equal(attn_checkpoint_bytes(model), size_bytes);
    attn_safetensors_close(file);
    attn_model_free(model);
}

static void test_truncated(void **state)
{
    (void)state;
    attn_error error = {0};
    const attn_model_config config = small_config();
    attn_model *model = make_model(&config, 4), *loaded = NULL;
    assert_ok(attn_checkpoint_save(model, path, &error), &error);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const long size = ftell(file);
    fclose(file);
    for (long keep = size - 1; keep > 0; keep /= 3) {
        assert_int_equal(truncate(path, keep), 0);
        error = (attn_error){0};
        assert_int_equal(load(&loaded, NULL, &error), ATTN_EFORMAT);
    }
    unlink(path);
    error = (attn_error){0};
    assert_int_equal(load(&loaded, NULL, &error), ATTN_ENOTFOUND);
    assert_non_null(strstr(error.text, path));
    attn_model_free(model);
}

/* Every allocation of save and load fails once; the file is there whole or not at all. */
static void test_short_memory(void **state)
{
    (void)state;
    const attn_model_config config = small_config();
    attn_model *model = make_distinct(&config), *loaded = make_model(&config, 1);
    unlink(path);
    const size_t live = attn_memory_live_blocks();
    attn_status status = ATTN_EMEMORY;
    size_t n = 1;
    for (; status != ATTN_OK; n++) {
        attn_error error = {0};
        attn_memory_fail_at(n);
        status = attn_checkpoint_save(model, path, &error);
        attn_memory_fail_at(0);
        assert_int_equal(attn_memory_live_blocks(), live);
        assert_int_equal(access(path, F_OK) == 0, status == ATTN_OK);
        if (status != ATTN_OK) assert_int_equal(status, ATTN_EMEMORY);
    }
    assert_true(n > 3);
    status = ATTN_EMEMORY;
    for (n = 1; status != ATTN_OK; n++) {
        attn_error error = {0};
        attn_memory_fail_at(n);
        status = attn_checkpoint_load(loaded, path, &error);
        attn_memory_fail_at(0);
        assert_int_equal(attn_memory_live_blocks(), live);
        if (status != ATTN_OK) assert_int_equal(status, ATTN_EMEMORY);
    }
    assert_true(n > 3);
    assert_same(model, loaded);

    attn_error error = {0};
    assert_int_equal(attn_checkpoint_save(model, "/nonexistent/model.safetensors", &error),
                     ATTN_EIO);
    attn_model_free(loaded);
    attn_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_mechanisms),
        cmocka_unit_test(test_pattern),       cmocka_unit_test(test_leaking),
        cmocka_unit_test(test_options_apart), cmocka_unit_test(test_layout),
        cmocka_unit_test(test_truncated),     cmocka_unit_test(test_short_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
