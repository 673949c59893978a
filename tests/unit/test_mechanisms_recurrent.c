/* Layers around a recurrence: options, starting values, and gates at the ends of their range. */
#include "attn/attn.h"
#include "base/memory.h"
#include "base/random.h"
#include "mechanisms/oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static attn_layer *make(const char *mechanism, const char *options, size_t width, size_t heads,
                        attn_error *error)
{
    attn_layer *layer = NULL;
    const attn_layer_config config = {.mechanism = mechanism,
                                      .options = options,
                                      .d_model = width,
                                      .heads = heads,
                                      .positions = 1024,
                                      .is_causal = true};
    const attn_status status = attn_layer_create(&layer, &config, error);
    assert_true((status == ATTN_OK) == (layer != NULL));
    return layer;
}

static void expect_refusal(const char *mechanism, const char *options, size_t width, size_t heads,
                           const char *text)
{
    attn_error error = {0};
    assert_null(make(mechanism, options, width, heads, &error));
    assert_string_equal(error.text, text);
}

static const attn_parameter *parameter(const attn_layer *layer, const char *name, size_t *index)
{
    size_t count = 0;
    const attn_parameter *p = attn_layer_parameters(layer, &count);
    for (*index = 0; *index < count; ++*index)
        if (strcmp(p[*index].name, name) == 0) return &p[*index];
    return NULL;
}

static void options_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    expect_refusal("gla", "key_dim=50", 96, 4, "gla: key_dim=50 is no multiple of the 4 heads");
    expect_refusal("gla", "gate_rank=0", 96, 4,
                   "gla: option gate_rank takes a whole number from 1 to 65536, not '0'");
    expect_refusal("retnet", "", 45, 3,
                   "retnet: rotary positions need an even width of a head, not 15");
    expect_refusal("deltanet", "gated=true", 96, 4, "deltanet has no option 'gated'");
}

static void parameters_at_gpt2_width(void **state)
{
    (void)state;
    static const struct {
        const char *mechanism, *options;
        size_t count;
    } cases[] = {{"retnet", "", 5 * 768 * 768},
                 {"gla", "", 4 * 768 * 768 + 16 * 768 + 384 * 16 + 384 + 64},
                 {"gla", "key_dim=768,gate_rank=8", 5 * 768 * 768 + 8 * 768 + 768 * 8 + 768 + 64},
                 {"deltanet", "", 4 * 768 * 768 + 12 * 768 + 64},
                 {"gated-deltanet", "", 5 * 768 * 768 + 2 * 12 * 768 + 2 * 12 + 64}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_error error = {0};
        attn_layer *layer = make(cases[i].mechanism, cases[i].options, 768, 12, &error);
        assert_int_equal(attn_layer_parameter_count(layer), cases[i].count);
        attn_layer_free(layer);
    }
}

static void start_of(const char *mechanism, const char *name, float *out, size_t count)
{
    attn_error error = {0};
    size_t index = 0;
    attn_layer *layer = make(mechanism, "", 768, 12, &error);
    const attn_parameter *p = parameter(layer, name, &index);
    assert_non_null(p);
    assert_int_equal(p->initial, ATTN_INITIAL_OWN);
    assert_int_equal(p->count, count);
    assert_true(attn_layer_initialise_own(layer, index, 5, 7, out));
    assert_non_null(parameter(layer, "wq.weight", &index));
    assert_false(attn_layer_initialise_own(layer, index, 5, 7, out));
    attn_layer_free(layer);
}

static void gates_start_where_they_remember(void **state)
{
    (void)state;
    float bias[384], rate[12], dt[12];
    start_of("gla", "w_a2.bias", bias, 384);
    for (size_t i = 0; i < 384; i++)
        assert_true(fabsf(bias[i] - 6.0f * (float)(i % 32) / 31.0f) < 1e-6f);
    start_of("gated-deltanet", "a_log", rate, 12);
    start_of("gated-deltanet", "dt_bias", dt, 12);
    for (size_t h = 0; h < 12; h++) {
        const double step = log1p(exp((double)dt[h]));
        assert_true(isfinite(rate[h]) && exp((double)rate[h]) <= 16.0001);
        assert_true(step > 0.000999 && step < 0.1001);
        assert_true(h == 0 || (dt[h] != dt[h - 1] && rate[h] != rate[h - 1]));
    }
}

/* ---- gates at the ends of their range ---------------------------------------------------- */

enum { WIDTH = 48, HEADS = 3 };

static double distance(size_t n, const float *got, const double *want)
{
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += want[i] * want[i];
    }
    return sqrt(difference / size);
}

static double *widened(size_t n, const float *from)
{
    double *to = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *to);
    assert_non_null(to);
    for (size_t i = 0; from && i < n; i++) to[i] = (double)from[i];
    return to;
}

static float *drawn(size_t n, uint32_t stream, double scale)
{
    float *to = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *to);
    assert_non_null(to);
    attn_random_fill_normal(11, attn_random_stream(ATTN_RANDOM_TEST, stream), scale, n, to);
    return to;
}

/* A layer with everything that one forward and backward call needs. */
typedef struct trial {
    attn_layer *layer;
    attn_context *context;
    size_t B, T, n, P;
    float *x, *dy, *w, *y, *dx, *gradients, *saved, *scratch;
} trial;

static trial trial_of(const char *mechanism, size_t B, size_t T, double x_scale, double w_scale)
{
    attn_error error = {0};
    trial t = {
        .layer = make(mechanism, "", WIDTH, HEADS, &error), .B = B, .T = T, .n = B * T * WIDTH};
    assert_int_equal(attn_context_create(&t.context, 2, NULL, &error), ATTN_OK);
    t.P = attn_layer_parameter_count(t.layer);
    t.x = drawn(t.n, 1, x_scale);
    t.dy = drawn(t.n, 2, 1.0);
    t.w = drawn(t.P, 3, w_scale);
    t.y = drawn(t.n, 4, 1.0);
    t.dx = drawn(t.n, 4, 1.0);
    t.gradients = drawn(t.P, 4, 1.0);
    t.saved = drawn(attn_layer_saved_count(t.layer, B, T), 4, 1.0);
    t.scratch = drawn(attn_layer_scratch_count(t.layer, t.context, B, T), 4, 1.0);
    return t;
}

static void trial_run(const trial *t)
{
    const attn_call call = {.batch = t->B,
                            .length = t->T,
                            .parameters = t->w,
                            .x = t->x,
                            .y = t->y,
                            .saved = t->saved,
                            .scratch = t->scratch,
                            .dy = t->dy,
                            .dx = t->dx,
                            .gradients = t->gradients};
    assert_int_equal(attn_layer_forward(t->context, t->layer, &call), ATTN_OK);
    assert_int_equal(attn_layer_backward(t->context, t->layer, &call), ATTN_OK);
}

static void trial_free(const trial *t)
{
    float *const floats[] = {t->x, t->dy, t->w, t->y, t->dx, t->gradients, t->saved, t->scratch};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) attn_free(floats[i]);
    attn_context_free(t->context);
    attn_layer_free(t->layer);
}

/* y, dx and all gradients against the oracle. */
static void compare(const trial *t, double tolerance)
{
    attn_error error = {0};
    trial_run(t);
    double *w = widened(t->P, t->w), *x = widened(t->n, t->x), *dy = widened(t->n, t->dy);
    double *y = widened(t->n, NULL), *dx = widened(t->n, NULL), *gradients = widened(t->P, NULL);
    const attn_oracle_call oracle = {.batch = t->B,
                                     .length = t->T,
                                     .parameters = w,
                                     .x = x,
                                     .y = y,
                                     .dy = dy,
                                     .dx = dx,
                                     .gradients = gradients};
    assert_int_equal(attn_layer_oracle(t->layer, &oracle, &error), ATTN_OK);
    assert_true(distance(t->n, t->y, y) < tolerance);
    assert_true(distance(t->n, t->dx, dx) < tolerance);
    assert_true(distance(t->P, t->gradients, gradients) < tolerance);
    double *const doubles[] = {w, x, dy, y, dx, gradients};
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++) attn_free(doubles[i]);
}

/* The layer with `name` set to values[i % 4]. */
static void compare_with_gates(const char *mechanism, const char *name, const float values[4])
{
    size_t index = 0;
    const trial t = trial_of(mechanism, 2, 150, 1.0, 1.0 / sqrt(WIDTH));
    const attn_parameter *p = parameter(t.layer, name, &index);
    for (size_t i = 0; i < p->count; i++) t.w[p->offset + i] = values[i % 4];
    compare(&t, 5e-6);
    trial_free(&t);
}

/* Of hundreds of first tokens in three heads some have q . k, and so o, hundreds of times smaller
 * than its terms: rounded terms would be in all gradients, which the norm multiplies. */
static void outputs_that_nearly_vanish(void **state)
{
    (void)state;
    static const char *const mechanisms[] = {"retnet", "gla", "deltanet", "gated-deltanet"};
    for (size_t i = 0; i < 4; i++) {
        const trial t = trial_of(mechanisms[i], 300, 2, 1.0, 1.0 / sqrt(WIDTH));
        compare(&t, 2e-6);
        trial_free(&t);
    }
}

/* Per token: exp(-50), nearly 1, exp(-1.25), exp(-6): a chunk's prefix sums reach -3000, beside
 * decays that need every digit. */
static void strong_decays_cost_no_digits(void **state)
{
    (void)state;
    compare_with_gates("gla", "w_a2.bias", (const float[]){-800.0f, 9.0f, -20.0f, -100.0f});
    compare_with_gates("gla", "w_a2.bias", (const float[]){-3.0f, -8.0f, 20.0f, 2.0f});
    compare_with_gates("gated-deltanet", "a_log", (const float[]){4.0f, -9.0f, 1.0f, 0.0f});
    compare_with_gates("gated-deltanet", "dt_bias", (const float[]){60.0f, -20.0f, 3.0f, 0.0f});
}

/* Numbers of any size that a float holds: results that are numbers. */
static void extreme_inputs_stay_finite(void **state)
{
    (void)state;
    static const char *const mechanisms[] = {"retnet", "gla", "deltanet", "gated-deltanet"};
    static const double scales[] = {0.0, 1e-30, 1e4, 1e8};
    for (size_t i = 0; i < 16; i++) {
        const trial t = trial_of(mechanisms[i / 4], 2, 150, scales[i % 4], 2.0);
        trial_run(&t);
        for (size_t j = 0; j < t.n; j++) assert_true(isfinite(t.y[j]) && isfinite(t.dx[j]));
        for (size_t j = 0; j < t.P; j++) assert_true(isfinite(t.gradients[j]));
        trial_free(&t);
    }
}

static int nothing_is_left(void **state)
{
    (void)state;
    return attn_memory_live_blocks() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_that_do_not_fit_are_refused),
        cmocka_unit_test(parameters_at_gpt2_width),
        cmocka_unit_test(gates_start_where_they_remember),
        cmocka_unit_test(outputs_that_nearly_vanish),
        cmocka_unit_test(strong_decays_cost_no_digits),
        cmocka_unit_test(extreme_inputs_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, nothing_is_left);
}
