/* Checkpoints as other programs write them, and what may be wrong with such a file. */
#define _POSIX_C_SOURCE 200809L
#include "checkpoint_fixture.h"

/* What to change when copying the checkpoint of a model. */
typedef struct edit {
    const char *prefix;   /* before every name */
    const char *left_out; /* a tensor */
    const char *reshaped; /* a tensor that gets one row more */
    const char *integers; /* a tensor whose dtype becomes I32 */
    const char *added;    /* a tensor of one element */
    bool with_head;       /* lm_head.weight, a copy of wte */
    bool with_other_head; /* ... with its last element changed */
    bool has_metadata;
    attn_tensor_dtype dtype;
} edit;

static void store(attn_safetensors_writer *writer, const attn_tensor *t, const edit *e, size_t rows)
{
    attn_error error = {0};
    const bool is_integer = e->integers && strcmp(e->integers, t->name) == 0;
    const size_t count = t->count / t->shape[0] * rows;
    float *values = attn_alloc_array(ATTN_MEMORY_OTHER, count + t->count, sizeof *values);
    attn_tensor_to_float(t, values);
    if (e->dtype == ATTN_DTYPE_BF16 && !is_integer) {
        uint16_t *halves = attn_alloc_array(ATTN_MEMORY_OTHER, count, sizeof *halves);
        for (size_t i = 0; i < count; i++) {
            uint32_t bits = 0;
            memcpy(&bits, &values[i], sizeof bits);
            halves[i] = (uint16_t)(bits >> 16);
        }
        assert_ok(attn_safetensors_write(writer, halves, count * sizeof *halves, &error), &error);
        attn_free(halves);
    } else
        assert_ok(attn_safetensors_write(writer, values, count * sizeof *values, &error), &error);
    attn_free(values);
}

/* Rewrites the file at `path`. */
static void rewrite(const edit *e)
{
    attn_error error = {0};
    attn_safetensors *file = NULL;
    attn_safetensors_writer *writer = NULL;
    assert_ok(attn_safetensors_open(&file, path, &error), &error);
    assert_ok(attn_safetensors_create(&writer, path, &error), &error);
    static const char *const keys[] = {"layers",    "heads",      "d_model",
                                       "positions", "vocabulary", "mechanism"};
    for (size_t i = 0; e->has_metadata && i < sizeof keys / sizeof *keys; i++)
        assert_ok(attn_safetensors_describe(writer, keys[i],
                                            attn_safetensors_metadata(file, keys[i]), &error),
                  &error);
    const size_t n = attn_safetensors_count(file);
    size_t rows[64];
    for (size_t i = 0; i < n; i++) {
        const attn_tensor *t = attn_safetensors_at(file, i);
        char name[128];
        snprintf(name, sizeof name, "%s%s", e->prefix ? e->prefix : "", t->name);
        size_t shape[2] = {t->shape[0], t->dimensions > 1 ? t->shape[1] : 0};
        if (e->left_out && strcmp(e->left_out, t->name) == 0) {
            rows[i] = 0;
            continue;
        }
        if (e->reshaped && strcmp(e->reshaped, t->name) == 0) shape[0]++;
        rows[i] = shape[0];
        const bool is_integer = e->integers && strcmp(e->integers, t->name) == 0;
        assert_ok(attn_safetensors_declare(writer, name, is_integer ? ATTN_DTYPE_I32 : e->dtype,
                                           shape, t->dimensions, &error),
                  &error);
    }
    const attn_tensor *wte = attn_safetensors_find(file, "wte.weight");
    if (e->with_head || e->with_other_head)
        assert_ok(
            attn_safetensors_declare(writer, "lm_head.weight", e->dtype, wte->shape, 2, &error),
            &error);
    const size_t one = 1;
    if (e->added)
        assert_ok(attn_safetensors_declare(writer, e->added, ATTN_DTYPE_F32, &one, 1, &error),
                  &error);
    for (size_t i = 0; i < n; i++)
        if (rows[i] > 0) store(writer, attn_safetensors_at(file, i), e, rows[i]);
    if (e->with_head) store(writer, wte, e, wte->shape[0]);
    if (e->with_other_head) {
        float *values = attn_alloc_array(ATTN_MEMORY_OTHER, wte->count, sizeof *values);
        attn_tensor_to_float(wte, values);
        values[wte->count - 1] += 1.0f;
        assert_ok(attn_safetensors_write(writer, values, wte->count * sizeof *values, &error),
                  &error);
        attn_free(values);
    }
    const float value = 1.0f;
    if (e->added) assert_ok(attn_safetensors_write(writer, &value, sizeof value, &error), &error);
    assert_ok(attn_safetensors_commit(writer, &error), &error);
    attn_safetensors_writer_free(writer);
    attn_safetensors_close(file);
}

/* Heads of 64, so that the sizes follow from the shapes. */
static attn_model_config published_config(void)
{
    return (attn_model_config){.layers = 2,
                               .heads = 2,
                               .d_model = 128,
                               .positions = 16,
                               .vocabulary = 50,
                               .mechanism = "softmax",
                               .is_causal = true};
}

static void test_foreign_files(void **state)
{
    (void)state;
    attn_error error = {0};
    const attn_model_config config = published_config();
    attn_model *model = make_model(&config, 4), *loaded = NULL;
    const edit edits[] = {{.dtype = ATTN_DTYPE_F32},
                          {.dtype = ATTN_DTYPE_F32, .prefix = "transformer.", .with_head = true},
                          {.dtype = ATTN_DTYPE_F32, .added = "h.0.attn.bias"},
                          {.dtype = ATTN_DTYPE_F32, .added = "transformer.h.1.attn.masked_bias"}};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        assert_ok(attn_checkpoint_save(model, path, &error), &error);
        rewrite(&edits[i]);
        assert_ok(load(&loaded, NULL, &error), &error);
        assert_same(model, loaded);
        assert_int_equal(attn_model_configuration(loaded)->heads, 2);
        attn_model_free(loaded);
    }

    /* bfloat16: the upper halves of the floats */
    rewrite(&(edit){.dtype = ATTN_DTYPE_BF16});
    assert_ok(load(&loaded, NULL, &error), &error);
    size_t n = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < tensors[i].count; j++) {
            uint32_t want = 0, got = 0;
            const size_t at = tensors[i].offset + j;
            memcpy(&want, &attn_model_parameters(model)[at], sizeof want);
            memcpy(&got, &attn_model_parameters(loaded)[at], sizeof got);
            assert_int_equal(got, want & 0xFFFF0000u);
        }
    attn_model_free(loaded);
    attn_model_free(model);
}

/* ---- what is wrong with a file ----------------------------------------------------------- */

static void test_wrong_files(void **state)
{
    (void)state;
    const attn_model_config config = published_config();
    attn_model *model = make_model(&config, 4), *loaded = NULL;
    static const struct {
        edit change;
        attn_status status;
        const char *text;
    } cases[] = {
        {{.left_out = "h.1.mlp.c_fc.weight", .has_metadata = true, .dtype = ATTN_DTYPE_F32},
         ATTN_ENOTFOUND,
         "tensor h.1.mlp.c_fc.weight [128, 512] is missing"},
        {{.reshaped = "h.0.attn.c_attn.weight", .has_metadata = true, .dtype = ATTN_DTYPE_F32},
         ATTN_ESHAPE,
         "tensor h.0.attn.c_attn.weight is [129, 384], expected [128, 384]"},
        {{.reshaped = "ln_f.bias", .dtype = ATTN_DTYPE_F32},
         ATTN_ESHAPE,
         "tensor ln_f.bias is [129], expected [128]"},
        {{.integers = "wpe.weight", .dtype = ATTN_DTYPE_F32},
         ATTN_EFORMAT,
         "tensor wpe.weight holds integers (I32), expected floats"},
        {{.added = "h.2.ln_2.weight", .dtype = ATTN_DTYPE_F32},
         ATTN_ESHAPE,
         "tensor h.2.ln_2.weight has no place in a model of 2 layers with softmax attention"},
        {{.with_other_head = true, .dtype = ATTN_DTYPE_F32},
         ATTN_EUNSUPPORTED,
         "lm_head.weight differs from wte.weight, but the head is tied to the embedding here"},
        {{.left_out = "wte.weight", .dtype = ATTN_DTYPE_F32},
         ATTN_EFORMAT,
         "no GPT-2: wte.weight or wpe.weight is missing or no matrix"},
    };
    const size_t live = attn_memory_live_blocks();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_error error = {0};
        char text[ATTN_ERROR_TEXT_BYTES];
        assert_ok(attn_checkpoint_save(model, path, &error), &error);
        rewrite(&cases[i].change);
        assert_int_equal(load(&loaded, NULL, &error), cases[i].status);
        snprintf(text, sizeof text, "%s: %s", path, cases[i].text);
        assert_string_equal(error.text, text);
        assert_int_equal(attn_memory_live_blocks(), live);
    }

    /* A model of other sizes than the file's, which keeps its values. */
    attn_error error = {0};
    attn_model_config other = config;
    other.layers = 1;
    attn_model *smaller = make_model(&other, 4), *unchanged = make_model(&other, 4);
    assert_ok(attn_checkpoint_save(model, path, &error), &error);
    assert_int_equal(attn_checkpoint_load(smaller, path, &error), ATTN_ESHAPE);
    assert_same(smaller, unchanged);
    other = config;
    other.heads = 4;
    attn_model *narrow = make_model(&other, 4);
    error = (attn_error){0};
    assert_int_equal(attn_checkpoint_load(narrow, path, &error), ATTN_ESHAPE);
    assert_non_null(strstr(error.text, "trained with 2 heads, but the model has 4"));
    attn_model_free(narrow);
    attn_model_free(unchanged);
    attn_model_free(smaller);
    attn_model_free(model);
}

static void test_heads_unknown(void **state)
{
    (void)state;
    attn_error error = {0};
    const attn_model_config config = small_config(); /* width 24 */
    attn_model *model = make_model(&config, 4), *loaded = NULL;
    assert_ok(attn_checkpoint_save(model, path, &error), &error);
    rewrite(&(edit){.dtype = ATTN_DTYPE_F32});
    assert_int_equal(load(&loaded, NULL, &error), ATTN_EFORMAT);
    assert_non_null(strstr(error.text, "width 24 is no multiple of 64 and the metadata does not "
                                       "tell the number of heads"));
    attn_model_free(model);
}

static void test_metadata(void **state)
{
    (void)state;
    static const char *const values[] = {"x", "", "-2", "12x", "99999999999999999999999"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        attn_error error = {0};
        attn_safetensors_writer *writer = NULL;
        attn_checkpoint *checkpoint = NULL;
        assert_ok(attn_safetensors_create(&writer, path, &error), &error);
        assert_ok(attn_safetensors_describe(writer, "mechanism", "softmax", &error), &error);
        assert_ok(attn_safetensors_describe(writer, "layers", values[i], &error), &error);
        assert_ok(attn_safetensors_commit(writer, &error), &error);
        attn_safetensors_writer_free(writer);
        assert_int_equal(attn_checkpoint_open(&checkpoint, path, &error), ATTN_EFORMAT);
        char text[ATTN_ERROR_TEXT_BYTES];
        snprintf(text, sizeof text, "%s: metadata 'layers' is %s, not a size", path, values[i]);
        assert_string_equal(error.text, text);
        assert_null(checkpoint);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_foreign_files),
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_heads_unknown),
        cmocka_unit_test(test_metadata),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
