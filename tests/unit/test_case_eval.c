/* Cases: golden ones in both precisions, results written and read back, and files that are none. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "files/safetensors.h"
#include "scratch_folder.h"
#include "verify/case.h"
#include "verify/compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- golden cases ------------------------------------------------------------------------ */

static void assert_case(const char *name, const char *mechanism, attn_case_precision precision)
{
    char path[512];
    snprintf(path, sizeof path, "%s/golden/%s.safetensors", TEST_DATA, name);
    attn_error error = {0};
    attn_case *c = NULL;
    const attn_case_error *errors = NULL;
    size_t count = 0;
    if (attn_case_open(&c, path, mechanism, &error) != ATTN_OK ||
        attn_case_compute(c, precision, "auto", 2, &error) != ATTN_OK ||
        attn_case_compare(c, &errors, &count, &error) != ATTN_OK)
        fail_msg("%s", error.text);
    assert_string_equal(attn_case_about(c).mechanism, mechanism ? mechanism : "gqa");
    assert_int_equal(count, 10); /* y, dx and eight gradients */
    double worst = 0.0;
    for (size_t i = 0; i < count; i++) {
        assert_true(errors[i].is_known);
        /* bfloat16: float32's at least, and that of some roundings of 2^-8 at most; but gradients
         * through the scores may be 0 but for roundings, which then are all of them. */
        const bool is_of_scores = strstr(errors[i].name, ".wq.") || strstr(errors[i].name, ".wk.");
        if (precision == ATTN_CASE_BF16)
            assert_true(errors[i].tolerance >= 2e-5 &&
                        errors[i].tolerance < (is_of_scores ? 1.0 : 0.1));
        else
            assert_true(errors[i].tolerance == (precision == ATTN_CASE_F64 ? 1e-10 : 2e-5));
        if (!(errors[i].error <= errors[i].tolerance))
            fail_msg("%s, %s: %g", name, errors[i].name, errors[i].error);
        worst = fmax(worst, errors[i].error);
    }
    /* float64 agrees to rounding and no better, float32 visibly less */
    assert_true(worst > (precision == ATTN_CASE_F64 ? 0.0 : 1e-8));
    attn_case_close(c);
}

static void test_golden(void **state)
{
    (void)state;
    static const struct {
        const char *name, *mechanism;
    } cases[] = {{"gqa", NULL},           {"mqa", NULL},
                 {"mqa", "mqa"},          {"softmax-one", "softmax"},
                 {"softmax-one", "sdpa"}, {"softmax-one", "flash"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_case(cases[i].name, cases[i].mechanism, ATTN_CASE_F64);
        assert_case(cases[i].name, cases[i].mechanism, ATTN_CASE_F32);
        assert_case(cases[i].name, cases[i].mechanism, ATTN_CASE_BF16);
    }
}

/* ---- cases of our own -------------------------------------------------------------------- */

enum { B = 2, T = 3, C = 4, N = B * T * C };

/* A case of "softmax" with two heads, with one thing different. */
typedef struct variant {
    const char *layer, *config; /* NULL: the usual */
    const char *leave_out;
    const char *odd;  /* the tensor that has another shape or a NaN */
    const char *add;  /* a tensor more, of x's shape */
    size_t odd_width; /* 0: the usual */
    bool has_nan, has_dy;
} variant;

static const char usual_config[] = "{\"d_model\": 4, \"heads\": 2, \"causal\": true, \"seq\": 3}";

static void fill(size_t seed, size_t n, double *values)
{
    for (size_t i = 0; i < n; i++) values[i] = sin(1.0 + 0.7 * (double)i + 1.3 * (double)seed);
}

static void make_case(const char *path, const variant *v)
{
    static const struct {
        const char *name;
        size_t dimensions, shape[3];
    } tensors[] = {
        {"x", 3, {B, T, C}},
        {"param.wq.weight", 2, {C, C}},
        {"param.wk.weight", 2, {C, C}},
        {"param.wv.weight", 2, {C, C}},
        {"param.wo.weight", 2, {C, C}},
        {"param.wq.bias", 1, {C}},
        {"param.wk.bias", 1, {C}},
        {"param.wv.bias", 1, {C}},
        {"param.wo.bias", 1, {C}},
        {"dy", 3, {B, T, C}},
        {NULL, 3, {B, T, C}},
    };
    enum { COUNT = sizeof tensors / sizeof *tensors };
    attn_error error = {0};
    attn_safetensors_writer *writer = NULL;
    double values[COUNT][2 * N];
    size_t counts[COUNT] = {0};
    assert_int_equal(attn_safetensors_create(&writer, path, &error), ATTN_OK);
    const char *layer = v->layer ? v->layer : "softmax";
    const char *config = v->config ? v->config : usual_config;
    if (*layer)
        assert_int_equal(attn_safetensors_describe(writer, "layer", layer, &error), ATTN_OK);
    if (*config)
        assert_int_equal(attn_safetensors_describe(writer, "config", config, &error), ATTN_OK);
    for (size_t i = 0; i < COUNT; i++) {
        const char *name = tensors[i].name ? tensors[i].name : v->add;
        if (!name || (v->leave_out && strcmp(name, v->leave_out) == 0)) continue;
        if (strcmp(name, "dy") == 0 && !v->has_dy) continue;
        size_t shape[3];
        memcpy(shape, tensors[i].shape, sizeof shape);
        const bool is_odd = v->odd && strcmp(name, v->odd) == 0;
        if (is_odd && v->odd_width) shape[tensors[i].dimensions - 1] = v->odd_width;
        counts[i] = 1;
        for (size_t k = 0; k < tensors[i].dimensions; k++) counts[i] *= shape[k];
        fill(i, counts[i], values[i]);
        if (is_odd && v->has_nan) values[i][1] = NAN;
        assert_int_equal(attn_safetensors_declare(writer, name, ATTN_DTYPE_F64, shape,
                                                  tensors[i].dimensions, &error),
                         ATTN_OK);
    }
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(
            attn_safetensors_write(writer, values[i], counts[i] * sizeof(double), &error), ATTN_OK);
    assert_int_equal(attn_safetensors_commit(writer, &error), ATTN_OK);
    attn_safetensors_writer_free(writer);
}

/* What is computed, written and read back is what is compared. */
static void test_round_trip(void **state)
{
    (void)state;
    const char *path = scratch_path("case"), *out = scratch_path("out");
    for (size_t k = 0; k < 4; k++) {
        const attn_case_precision precision = k % 2 ? ATTN_CASE_F32 : ATTN_CASE_F64;
        const bool has_dy = k / 2;
        make_case(path, &(variant){.has_dy = has_dy});
        attn_error error = {0};
        attn_case *c = NULL;
        const attn_case_error *errors = NULL;
        size_t count = 0;
        if (attn_case_open(&c, path, NULL, &error) != ATTN_OK ||
            attn_case_compute(c, precision, "ref", 1, &error) != ATTN_OK ||
            attn_case_write(c, out, &error) != ATTN_OK)
            fail_msg("%s", error.text);
        assert_int_equal(attn_case_about(c).has_gradients, has_dy);
        assert_int_equal(attn_case_about(c).batch, B);
        /* the case holds no results */
        assert_int_equal(attn_case_compare(c, &errors, &count, &error), ATTN_ENOTFOUND);
        attn_case_close(c);
        attn_safetensors *file = NULL;
        error = (attn_error){0};
        assert_int_equal(attn_safetensors_open(&file, out, &error), ATTN_OK);
        assert_int_equal(attn_safetensors_count(file), has_dy ? 10 : 1);
        const attn_tensor *y = attn_safetensors_find(file, "y");
        assert_non_null(y);
        assert_int_equal(y->dtype, precision == ATTN_CASE_F64 ? ATTN_DTYPE_F64 : ATTN_DTYPE_F32);
        assert_int_equal(y->count, N);
        assert_string_equal(attn_safetensors_metadata(file, "layer"), "softmax");
        assert_string_equal(attn_safetensors_metadata(file, "mechanism"), "softmax");
        attn_safetensors_close(file);
    }
}

#define CROSS(length, width)                                                                       \
    "{\"d_model\": 4, \"heads\": 2, \"seq\": 3, \"causal\": false, \"mem_len\": " length           \
    ", \"mem_dim\": " width "}"

static void assert_refused(const variant *v, const char *mechanism, const char *text)
{
    const char *path = scratch_path("case");
    char expected[PATH_MAX + 512];
    snprintf(expected, sizeof expected, "%s: %s", path, text);
    make_case(path, v);
    const size_t live = attn_memory_live_blocks();
    attn_error error = {0};
    attn_case *c = NULL;
    assert_int_not_equal(attn_case_open(&c, path, mechanism, &error), ATTN_OK);
    assert_null(c);
    assert_string_equal(error.text, expected);
    assert_int_equal(attn_memory_live_blocks(), live);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        variant v;
        const char *text;
    } cases[] = {
        {{.leave_out = "x"}, "tensor x [1][3][4] is missing"},
        {{.leave_out = "param.wo.weight"}, "tensor param.wo.weight [4][4] is missing"},
        {{.odd = "param.wk.weight", .odd_width = 5},
         "tensor param.wk.weight is [4][5], and the config makes it [4][4]"},
        {{.odd = "param.wv.bias", .odd_width = 1},
         "tensor param.wv.bias is [1], and the config makes it [4]"},
        {{.odd = "x", .odd_width = 6}, "tensor x is [2][3][6], and the config makes it [2][3][4]"},
        {{.odd = "dy", .odd_width = 1, .has_dy = true},
         "tensor dy is [2][3][1], and the config makes it [2][3][4]"},
        {{.odd = "x", .has_nan = true}, "element 1 of tensor x is NaN"},
        {{.odd = "param.wq.weight", .has_nan = true}, "element 1 of tensor param.wq.weight is NaN"},
        {{.add = "dY"}, "softmax has no tensor 'dY'; did you mean 'dy'?"},
        {{.add = "param.wq.bios"},
         "softmax has no tensor 'param.wq.bios'; did you mean 'param.wq.bias'?"},
        {{.add = "memory"}, "there is a memory, and softmax reads none"},
        {{.layer = ""}, "__metadata__ has no 'layer'"},
        {{.config = ""}, "__metadata__ has no 'config'"},
        {{.config = "[1]"}, "the config of __metadata__ is no JSON object"},
        {{.config = "{\"d_model\": 4"}, "the config of __metadata__ is no JSON object"},
        {{.layer = "softmix"}, "unknown mechanism 'softmix'; did you mean 'softmax'?"},
        {{.config = "{\"heads\": 2, \"seq\": 3}"}, "config: d_model is missing"},
        {{.config = "{\"d_model\": 4, \"heads\": 0, \"seq\": 3}"},
         "config: heads is no whole number above 0"},
        {{.config = "{\"d_model\": 4, \"heads\": \"2\", \"seq\": 3}"},
         "config: heads is no whole number above 0"},
        {{.config = "{\"d_model\": 4, \"heads\": 3, \"seq\": 3}"},
         "3 heads do not divide the width 4"},
        {{.config = "{\"d_model\": 4, \"heads\": 2, \"seq\": 4}"},
         "tensor x is [2][3][4], and the config makes it [2][4][4]"},
        {{.config = "{\"d_model\": 4, \"heads\": 2, \"seq\": 3, \"causal\": 1}"},
         "config: causal is neither true nor false"},
        {{.config = "{\"d_model\": 4, \"heads\": 2, \"seq\": 3, \"window\": 7}"},
         "softmax has no option 'window'"},
        {{.layer = "sliding",
          .config = "{\"d_model\": 4, \"heads\": 2, \"seq\": 3, \"window\": 0}"},
         "sliding: option window takes a whole number from 1 to 268435456, not '0'"},
        {{.layer = "sliding", .config = "{\"d_model\": 4, \"heads\": 2, \"seq\": 3, \"windw\": 2}"},
         "sliding has no option 'windw'; did you mean 'window'?"},
        {{.layer = "sliding",
          .config = "{\"d_model\": 4, \"heads\": 2, \"seq\": 3, \"window\": \"2,sinks=1\"}"},
         "config: the value of 'window' is no option"},
        {{.layer = "sliding",
          .config = "{\"d_model\": 4, \"heads\": 2, \"seq\": 3, \"window\": [2]}"},
         "config: the value of 'window' is no option"},
        {{.layer = "mqa", .config = "{\"d_model\": 4, \"heads\": 2, \"seq\": 3, \"kv_heads\": 2}"},
         "config: kv_heads is 2, and mqa has one key/value head"},
        {{.layer = "cross", .config = CROSS("3", "4")}, "tensor memory [2][3][4] is missing"},
        {{.layer = "cross", .config = CROSS("5", "4"), .add = "memory"},
         "tensor memory is [2][3][4], and the config makes it [2][5][4]"},
        {{.layer = "cross", .config = CROSS("3", "7"), .add = "memory"},
         "tensor param.wk.weight is [4][4], and the config makes it [4][7]"},
        {{.layer = "cross", .config = CROSS("0", "4"), .add = "memory"},
         "cross: option mem_len takes a whole number from 1 to 268435456, not '0'"},
        {{.layer = "cross", .config = "{\"d_model\": 4, \"heads\": 2, \"seq\": 3}"},
         "cross has no causal form: it reads a memory beside the tokens"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(&cases[i].v, NULL, cases[i].text);
    assert_refused(&(variant){.has_dy = true}, "flahs",
                   "unknown mechanism 'flahs'; did you mean 'flash'?");
    /* more key/value heads than mqa has */
    assert_refused(&(variant){.has_dy = true}, "mqa",
                   "tensor param.wk.weight is [4][4], and the config makes it [2][4]");
}

static void test_uncomparable(void **state)
{
    (void)state;
    static const struct {
        variant v;
        const char *text;
    } cases[] = {
        {{.has_dy = true}, "neither y nor a gradient to compare with"},
        {{.add = "grad.wq.weight"},
         "grad.wq.weight cannot be compared: there is no dy to compute it from"},
        {{.add = "dx"}, "dx cannot be compared: there is no dy to compute it from"},
        {{.add = "y", .odd = "y", .has_nan = true}, "element 1 of tensor y is NaN"},
        {{.add = "y", .odd = "y", .odd_width = 3},
         "tensor y is [2][3][3], and the config makes it [2][3][4]"},
    };
    const char *path = scratch_path("case");
    char expected[PATH_MAX + 512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_case(path, &cases[i].v);
        attn_error error = {0};
        attn_case *c = NULL;
        const attn_case_error *errors = NULL;
        size_t count = 0;
        if (attn_case_open(&c, path, NULL, &error) != ATTN_OK) fail_msg("%s", error.text);
        assert_int_equal(attn_case_compute(c, ATTN_CASE_F64, NULL, 1, &error), ATTN_OK);
        assert_int_not_equal(attn_case_compare(c, &errors, &count, &error), ATTN_OK);
        snprintf(expected, sizeof expected, "%s: %s", path, cases[i].text);
        assert_string_equal(error.text, expected);
        attn_case_close(c);
    }
    /* a wrong result is seen */
    make_case(path, &(variant){.add = "y"});
    attn_error error = {0};
    attn_case *c = NULL;
    const attn_case_error *errors = NULL;
    size_t count = 0;
    assert_int_equal(attn_case_open(&c, path, NULL, &error), ATTN_OK);
    assert_int_equal(attn_case_compute(c, ATTN_CASE_F64, NULL, 1, &error), ATTN_OK);
    assert_int_equal(attn_case_compare(c, &errors, &count, &error), ATTN_OK);
    assert_int_equal(count, 1);
    assert_true(errors[0].error > 0.1);
    attn_case_close(c);
}

/* ---- faults ------------------------------------------------------------------------------ */

static attn_status whole_way(const char *path, const char *out, attn_case_precision precision,
                             attn_error *error)
{
    attn_case *c = NULL;
    const attn_case_error *errors = NULL;
    size_t count = 0;
    attn_status status = attn_case_open(&c, path, NULL, error);
    if (status == ATTN_OK) status = attn_case_compute(c, precision, "ref", 1, error);
    if (status == ATTN_OK) status = attn_case_compare(c, &errors, &count, error);
    if (status == ATTN_OK) status = attn_case_write(c, out, error);
    attn_case_close(c);
    return status;
}

static void test_short_memory(void **state)
{
    (void)state;
    const char *path = scratch_path("case"), *out = scratch_path("never");
    make_case(path, &(variant){.add = "y", .has_dy = true});
    for (int precision = 0; precision < 2; precision++) {
        bool is_done = false;
        for (size_t n = 1; !is_done; n++) {
            const size_t live = attn_memory_live_blocks();
            attn_error error = {0};
            attn_memory_fail_at(n);
            const attn_status status = whole_way(path, out, (attn_case_precision)precision, &error);
            attn_memory_fail_at(0);
            is_done = status == ATTN_OK;
            FILE *file = fopen(out, "rb");
            assert_int_equal(file != NULL, is_done);
            if (file) fclose(file);
            if (!is_done) assert_int_equal(status, ATTN_EMEMORY);
            assert_int_equal(attn_memory_live_blocks(), live);
        }
        remove(out);
    }
}

static void test_unreadable(void **state)
{
    (void)state;
    const char *path = scratch_path("absent");
    attn_error error = {0};
    attn_case *c = NULL;
    assert_int_equal(attn_case_open(&c, path, NULL, &error), ATTN_ENOTFOUND);
    assert_null(c);
    make_case(path, &(variant){.add = "y"});
    assert_int_equal(attn_case_open(&c, path, NULL, NULL), ATTN_OK);
    error = (attn_error){0};
    assert_int_equal(attn_case_compute(c, ATTN_CASE_F32, "sse", 1, &error), ATTN_EARGUMENT);
    attn_case_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),       cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_uncomparable),
        cmocka_unit_test(test_short_memory), cmocka_unit_test(test_unreadable),
    };
    return cmocka_run_group_tests(tests, scratch_folder_make, scratch_folder_remove);
}
