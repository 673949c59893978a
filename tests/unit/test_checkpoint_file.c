/* Checkpoints: exact round trips, files as Hugging Face writes them, damaged files, faults. */
#define _POSIX_C_SOURCE 200809L
#include "model_fixture.h"

#include "files/safetensors.h"
#include "model/checkpoint.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/attn-checkpoint-XXXXXX";
static char path[128];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* A model whose every element differs, padding aside. */
static attn_model *make_distinct(const attn_model_config *config)
{
    attn_model *model = make_model(config, 3);
    size_t n = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < tensors[i].count; j++)
            attn_model_parameters(model)[tensors[i].offset + j] =
                (float)(1000 * i) + 0.125f * (float)j;
    return model;
}

/* The file at `path` as a new model, or the failure. */
static attn_status load(attn_model **model, const attn_model_config *config, attn_error *error)
{
    attn_checkpoint *checkpoint = NULL;
    *model = NULL;
    attn_status status = attn_checkpoint_open(&checkpoint, path, error);
    if (status == ATTN_OK)
        status =
            attn_model_create(model, config ? config : attn_checkpoint_config(checkpoint), error);
    if (status == ATTN_OK) status = attn_checkpoint_read(checkpoint, *model, error);
    attn_checkpoint_close(checkpoint);
    if (status != ATTN_OK) {
        attn_model_free(*model);
        *model = NULL;
    }
    return status;
}

static void assert_same(const attn_model *a, const attn_model *b)
{
    assert_int_equal(attn_model_block_count(a), attn_model_block_count(b));
    assert_memory_equal(attn_model_parameters(a), attn_model_parameters(b),
                        attn_model_block_count(a) * sizeof(float));
}

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

/* ---- files as others write them ---------------------------------------------------------- */

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
        cmocka_unit_test(test_foreign_files), cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_heads_unknown), cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_truncated),     cmocka_unit_test(test_short_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
