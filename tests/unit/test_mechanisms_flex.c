/* flex with functions of the caller: the same results as options that mean the same, gradients
 * against the oracle, packed documents, decoding, causality that no mask can lift. */
#include "attn/attn.h"
#include "base/memory.h"
#include "base/random.h"
#include "mechanisms/oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { B = 2, HEADS = 3, C = 24, T = 150, N = B * T * C };

/* ---- functions that a caller might write ------------------------------------------------- */

static void alibi(void *user, size_t head, size_t query, size_t key, size_t count, float *s,
                  float *slope)
{
    (void)user;
    const float m = (float)exp2(-8.0 * (double)(head + 1) / HEADS);
    for (size_t j = 0; j < count; j++) {
        s[j] -= m * ((float)query - (float)(key + j));
        if (slope) slope[j] = 1.0f;
    }
}

static void softcap(void *user, size_t head, size_t query, size_t key, size_t count, float *s,
                    float *slope)
{
    (void)head;
    (void)query;
    (void)key;
    const float cap = *(const float *)user;
    for (size_t j = 0; j < count; j++) {
        const float t = tanhf(s[j] / cap);
        s[j] = cap * t;
        if (slope) slope[j] = 1.0f - t * t;
    }
}

/* The last 60 keys for head 1, all for the others. */
static void window(void *user, size_t head, size_t query, size_t key, size_t count, bool *seen)
{
    (void)user;
    for (size_t j = 0; j < count; j++) seen[j] = head != 1 || key + j + 60 > query;
}

static void nothing(void *user, size_t head, size_t query, size_t key, size_t count, bool *seen)
{
    (void)user;
    (void)head;
    (void)query;
    (void)key;
    memset(seen, 0, count * sizeof *seen);
}

/* ---- layers ------------------------------------------------------------------------------ */

static attn_layer *layer_of(const char *options, const attn_flex *flex)
{
    attn_layer *layer = NULL;
    attn_error error = {0};
    const attn_layer_config config = {.mechanism = "flex",
                                      .options = options,
                                      .d_model = C,
                                      .heads = HEADS,
                                      .positions = T,
                                      .is_causal = true};
    assert_int_equal(attn_layer_create_flex(&layer, &config, flex, &error), ATTN_OK);
    return layer;
}

typedef struct results {
    float y[N], dx[N], gradients[4 * C * C + 4 * C];
} results;

static float *floats(size_t count)
{
    return attn_alloc_array(ATTN_MEMORY_OTHER, count, sizeof(float));
}

static void compute(const attn_layer *layer, const uint32_t *documents, results *out)
{
    attn_context *context = NULL;
    assert_int_equal(attn_context_create(&context, 2, NULL, NULL), ATTN_OK);
    const size_t P = attn_layer_parameter_count(layer);
    assert_true(P * sizeof(float) <= sizeof out->gradients);
    float *x = floats(N), *dy = floats(N), *parameters = floats(P);
    float *saved = floats(attn_layer_saved_count(layer, B, T));
    float *scratch = floats(attn_layer_scratch_count(layer, context, B, T));
    attn_random_fill_normal(1, 1, 1.0, N, x);
    attn_random_fill_normal(1, 2, 1.0, N, dy);
    attn_random_fill_normal(1, 3, 1.0 / sqrt((double)C), P, parameters);
    const attn_call call = {.batch = B,
                            .length = T,
                            .parameters = parameters,
                            .x = x,
                            .y = out->y,
                            .saved = saved,
                            .scratch = scratch,
                            .document_start = documents,
                            .dy = dy,
                            .dx = out->dx,
                            .gradients = out->gradients};
    for (int phase = ATTN_PHASE_FORWARD; phase <= ATTN_PHASE_BACKWARD; phase++) {
        const attn_work before = attn_context_work(context);
        assert_int_equal((phase == ATTN_PHASE_FORWARD ? attn_layer_forward
                                                      : attn_layer_backward)(context, layer, &call),
                         ATTN_OK);
        const attn_work after = attn_context_work(context);
        const attn_work want = attn_layer_work(layer, (attn_phase)phase, B, T, documents);
        assert_int_equal(after.matmul - before.matmul, want.matmul);
        assert_int_equal(after.exponential - before.exponential, want.exponential);
        assert_int_equal(after.other - before.other, want.other);
    }
    attn_free(x);
    attn_free(dy);
    attn_free(parameters);
    attn_free(saved);
    attn_free(scratch);
    attn_context_free(context);
}

/* The same in float64. */
static void compute_oracle(const attn_layer *layer, const uint32_t *documents, results *out)
{
    const size_t P = attn_layer_parameter_count(layer);
    float *single = floats(2 * N + P);
    double *real = attn_alloc_array(ATTN_MEMORY_OTHER, 4 * N + 2 * P, sizeof *real);
    attn_random_fill_normal(1, 1, 1.0, N, single);
    attn_random_fill_normal(1, 2, 1.0, N, single + N);
    attn_random_fill_normal(1, 3, 1.0 / sqrt((double)C), P, single + 2 * N);
    for (size_t i = 0; i < 2 * N + P; i++) real[i] = (double)single[i];
    const attn_oracle_call call = {.batch = B,
                                   .length = T,
                                   .parameters = real + 2 * N,
                                   .x = real,
                                   .document_start = documents,
                                   .y = real + 2 * N + P,
                                   .dy = real + N,
                                   .dx = real + 3 * N + P,
                                   .gradients = real + 4 * N + P};
    assert_int_equal(attn_layer_oracle(layer, &call, NULL), ATTN_OK);
    for (size_t i = 0; i < N; i++) {
        out->y[i] = (float)call.y[i];
        out->dx[i] = (float)call.dx[i];
    }
    for (size_t i = 0; i < P; i++) out->gradients[i] = (float)call.gradients[i];
    attn_free(single);
    attn_free(real);
}

static double distance(size_t n, const float *got, const float *want)
{
    double apart = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)got[i] - (double)want[i];
        apart += d * d;
        size += (double)want[i] * (double)want[i];
    }
    return sqrt(apart / size);
}

static void assert_close(const attn_layer *layer, const results *got, const results *want)
{
    const size_t P = attn_layer_parameter_count(layer);
    assert_true(distance(N, got->y, want->y) < 2e-6);
    assert_true(distance(N, got->dx, want->dx) < 4e-6);
    assert_true(distance(P, got->gradients, want->gradients) < 4e-6);
}

static const uint32_t *documents(void)
{
    static uint32_t start[B * T];
    for (size_t i = 0; i < B * T; i++) start[i] = i % T < 30 ? 0 : i % T < 77 ? 30 : 77;
    return start;
}

/* ---- tests ------------------------------------------------------------------------------- */

static results one, other; /* too large for a stack */

static void check_against(const attn_flex *flex, const char *options)
{
    for (int packed = 0; packed < 2; packed++) {
        const uint32_t *start = packed ? documents() : NULL;
        attn_layer *mine = layer_of("", flex), *known = layer_of(options, &(attn_flex){0});
        compute(mine, start, &one);
        compute(known, start, &other);
        assert_close(mine, &one, &other);
        compute_oracle(mine, start, &other);
        assert_close(mine, &one, &other);
        attn_layer_free(mine);
        attn_layer_free(known);
    }
}

static void functions_do_what_options_do(void **state)
{
    (void)state;
    float cap = 2.0f;
    check_against(&(attn_flex){.score = alibi}, "score=alibi");
    check_against(&(attn_flex){.score = softcap, .user = &cap}, "score=softcap,cap=2");
}

static void masks_narrow_the_option(void **state)
{
    (void)state;
    attn_layer *layer = layer_of("", &(attn_flex){.mask = window});
    for (int packed = 0; packed < 2; packed++) {
        const uint32_t *start = packed ? documents() : NULL;
        compute(layer, start, &one);
        compute_oracle(layer, start, &other);
        assert_close(layer, &one, &other);
    }
    attn_layer *all = layer_of("", &(attn_flex){0});
    const attn_work fewer = attn_layer_work(layer, ATTN_PHASE_FORWARD, B, T, NULL);
    const attn_work usual = attn_layer_work(all, ATTN_PHASE_FORWARD, B, T, NULL);
    /* head 1 of 3 leaves out the one tile of queries 128.. and keys ..63, of both sequences */
    assert_int_equal(usual.matmul - fewer.matmul, (uint64_t)B * 4 * (T - 128) * 64 * (C / HEADS));
    attn_layer_free(all);
    attn_layer_free(layer);
}

static void queries_without_keys_give_nothing(void **state)
{
    (void)state;
    attn_layer *layer = layer_of("", &(attn_flex){.mask = nothing});
    compute(layer, NULL, &one);
    for (size_t i = C; i < N; i++) assert_true(one.y[i] == one.y[i - C]); /* the bias of wo */
    for (size_t i = 0; i < N; i++) assert_true(one.dx[i] == 0.0f);
    attn_layer_free(layer);
}

static void tokens_decode_as_they_train(void **state)
{
    (void)state;
    float cap = 2.0f;
    attn_layer *layer = layer_of("", &(attn_flex){.score = softcap, .mask = window, .user = &cap});
    compute(layer, NULL, &one);
    attn_context *context = NULL;
    assert_int_equal(attn_context_create(&context, 1, NULL, NULL), ATTN_OK);
    const size_t P = attn_layer_parameter_count(layer);
    float *x = floats(N), *parameters = floats(P), *row = floats(2 * B * C);
    float *cache = floats(attn_layer_cache_count(layer, B, T));
    float *scratch = floats(attn_layer_scratch_count(layer, context, B, 1));
    attn_random_fill_normal(1, 1, 1.0, N, x);
    attn_random_fill_normal(1, 3, 1.0 / sqrt((double)C), P, parameters);
    for (size_t t = 0; t < T; t++) {
        for (size_t b = 0; b < B; b++) memcpy(row + b * C, x + (b * T + t) * C, C * sizeof *row);
        const attn_call call = {.batch = B,
                                .length = 1,
                                .parameters = parameters,
                                .x = row,
                                .y = row + B * C,
                                .scratch = scratch,
                                .cache = cache,
                                .cache_capacity = T,
                                .position = t};
        assert_int_equal(attn_layer_decode(context, layer, &call), ATTN_OK);
        for (size_t b = 0; b < B; b++)
            memcpy(other.y + (b * T + t) * C, row + (B + b) * C, C * sizeof *row);
    }
    assert_true(distance(N, other.y, one.y) < 2e-6);
    attn_free(x);
    attn_free(parameters);
    attn_free(row);
    attn_free(cache);
    attn_free(scratch);
    attn_context_free(context);
    attn_layer_free(layer);
}

static void masks_decide_on_causality(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        bool asked, got;
    } cases[] = {{"", true, true},
                 {"", false, false},
                 {"mask=causal", false, true},
                 {"mask=document", false, true},
                 {"mask=full", true, false},
                 {"mask=prefix", true, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_layer *layer = NULL;
        const attn_layer_config config = {.mechanism = "flex",
                                          .options = cases[i].options,
                                          .d_model = C,
                                          .heads = HEADS,
                                          .positions = T,
                                          .is_causal = cases[i].asked};
        assert_int_equal(attn_layer_create(&layer, &config, NULL), ATTN_OK);
        assert_int_equal(attn_layer_is_causal(layer), cases[i].got);
        attn_layer_free(layer);
    }
}

static void other_mechanisms_take_no_functions(void **state)
{
    (void)state;
    attn_layer *layer = NULL;
    attn_error error = {0};
    const attn_layer_config config = {
        .mechanism = "flash", .d_model = C, .heads = HEADS, .positions = T, .is_causal = true};
    assert_int_equal(attn_layer_create_flex(&layer, &config, &(attn_flex){0}, &error),
                     ATTN_EARGUMENT);
    assert_null(layer);
    assert_string_equal(error.text, "score and mask functions go with flex, not 'flash'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(functions_do_what_options_do),
                                       cmocka_unit_test(masks_narrow_the_option),
                                       cmocka_unit_test(queries_without_keys_give_nothing),
                                       cmocka_unit_test(tokens_decode_as_they_train),
                                       cmocka_unit_test(masks_decide_on_causality),
                                       cmocka_unit_test(other_mechanisms_take_no_functions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
