/* lsh where buckets are hard to tell: rotations so alike that no float32 sum can decide between
 * them. Every way to compute the layer must take the decisions of the definition. */
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

enum { B = 2, T = 150, C = 48, HEADS = 3, N = B * T * C };

/* ---- a layer and its memory -------------------------------------------------------------- */

static float *drawn(size_t n, uint32_t stream, double scale)
{
    float *to = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *to);
    assert_non_null(to);
    attn_random_fill_normal(11, attn_random_stream(ATTN_RANDOM_TEST, stream), scale, n, to);
    return to;
}

static double *widened(size_t n, const float *from)
{
    double *to = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *to);
    assert_non_null(to);
    for (size_t i = 0; from && i < n; i++) to[i] = (double)from[i];
    return to;
}

static double distance(size_t n, const float *got, const double *want)
{
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += want[i] * want[i];
    }
    return sqrt(difference / size);
}

typedef struct trial {
    attn_layer *layer;
    size_t P;
    float *x, *dy, *w, *y, *dx, *gradients;
} trial;

/* Of two rounds' eight rotations each, 1 lies an ulp beside 0 and 3 on 2, and so on. */
static trial trial_of(double scale)
{
    enum { ROTATIONS = 8 };
    const attn_layer_config config = {.mechanism = "lsh",
                                      .options = "buckets=16,reach=9",
                                      .d_model = C,
                                      .heads = HEADS,
                                      .positions = T,
                                      .is_causal = true};
    trial t = {0};
    assert_int_equal(attn_layer_create(&t.layer, &config, NULL), ATTN_OK);
    t.P = attn_layer_parameter_count(t.layer);
    t.x = drawn(N, 1, scale);
    t.dy = drawn(N, 2, 1.0);
    t.w = drawn(t.P, 3, scale / sqrt(C));
    t.y = drawn(N, 4, 1.0);
    t.dx = drawn(N, 4, 1.0);
    t.gradients = drawn(t.P, 4, 1.0);
    size_t count = 0;
    const attn_parameter *p = attn_layer_parameters(t.layer, &count), *last = &p[count - 1];
    assert_string_equal(last->name, "rotations.weight");
    assert_false(last->is_trained);
    assert_true(attn_layer_initialise_own(t.layer, count - 1, 5, 7, t.w + last->offset));
    for (size_t i = 0; i < last->count; i += 4) {
        float *r = t.w + last->offset + i;
        r[1] = nextafterf(r[0], INFINITY);
        r[3] = r[2];
    }
    assert_int_equal(last->shape[2], ROTATIONS);
    return t;
}

static void trial_free(const trial *t)
{
    float *const floats[] = {t->x, t->dy, t->w, t->y, t->dx, t->gradients};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) attn_free(floats[i]);
    attn_layer_free(t->layer);
}

/* Forward and backward; false where the machine has no such level. */
static bool trial_run(const trial *t, const char *isa)
{
    attn_error error = {0};
    attn_context *context = NULL;
    if (attn_context_create(&context, 2, isa, &error) != ATTN_OK) return false;
    float *saved = drawn(attn_layer_saved_count(t->layer, B, T), 4, 1.0);
    float *scratch = drawn(attn_layer_scratch_count(t->layer, context, B, T), 4, 1.0);
    const attn_call call = {.batch = B,
                            .length = T,
                            .parameters = t->w,
                            .x = t->x,
                            .y = t->y,
                            .saved = saved,
                            .scratch = scratch,
                            .dy = t->dy,
                            .dx = t->dx,
                            .gradients = t->gradients};
    assert_int_equal(attn_layer_forward(context, t->layer, &call), ATTN_OK);
    assert_int_equal(attn_layer_backward(context, t->layer, &call), ATTN_OK);
    attn_free(saved);
    attn_free(scratch);
    attn_context_free(context);
    return true;
}

/* ---- decisions --------------------------------------------------------------------------- */

static void near_ties_fall_as_defined(void **state)
{
    (void)state;
    static const char *const levels[] = {"ref", "avx2", "avx512"};
    const trial t = trial_of(1.0);
    attn_error error = {0};
    double *w = widened(t.P, t.w), *x = widened(N, t.x), *dy = widened(N, t.dy);
    double *y = widened(N, NULL), *dx = widened(N, NULL), *gradients = widened(t.P, NULL);
    const attn_oracle_call oracle = {.batch = B,
                                     .length = T,
                                     .parameters = w,
                                     .x = x,
                                     .y = y,
                                     .dy = dy,
                                     .dx = dx,
                                     .gradients = gradients};
    assert_int_equal(attn_layer_oracle(t.layer, &oracle, &error), ATTN_OK);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (!trial_run(&t, levels[i])) continue;
        assert_true(distance(N, t.y, y) < 5e-6);
        assert_true(distance(N, t.dx, dx) < 5e-6);
        assert_true(distance(t.P, t.gradients, gradients) < 5e-6);
    }
    double *const doubles[] = {w, x, dy, y, dx, gradients};
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++) attn_free(doubles[i]);
    trial_free(&t);
}

/* Sequence 0, token by token, against the first rows of a batch. */
static void near_ties_fall_alike_when_decoding(void **state)
{
    (void)state;
    const trial t = trial_of(1.0);
    attn_error error = {0};
    attn_context *context = NULL;
    assert_true(trial_run(&t, NULL));
    assert_int_equal(attn_context_create(&context, 1, NULL, &error), ATTN_OK);
    float *cache = drawn(attn_layer_cache_count(t.layer, 1, T), 4, 1.0);
    float *scratch = drawn(attn_layer_scratch_count(t.layer, context, 1, 1), 4, 1.0);
    float *y = drawn((size_t)T * C, 4, 1.0);
    for (size_t i = 0; i < T; i++) {
        const attn_call call = {.batch = 1,
                                .length = 1,
                                .parameters = t.w,
                                .x = t.x + i * C,
                                .y = y + i * C,
                                .scratch = scratch,
                                .cache = cache,
                                .cache_capacity = T,
                                .position = i};
        assert_int_equal(attn_layer_decode(context, t.layer, &call), ATTN_OK);
    }
    double *want = widened((size_t)T * C, t.y);
    assert_true(distance((size_t)T * C, y, want) < 4e-6);
    attn_free(want);
    attn_free(y);
    attn_free(scratch);
    attn_free(cache);
    attn_context_free(context);
    trial_free(&t);
}

/* Queries without a direction, as all are where x and biases are 0, and numbers of any size. */
static void extreme_inputs_stay_finite(void **state)
{
    (void)state;
    static const double scales[] = {0.0, 1e-30, 1e4, 1e8};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        const trial t = trial_of(scales[i]);
        assert_true(trial_run(&t, NULL));
        for (size_t j = 0; j < N; j++) assert_true(isfinite(t.y[j]) && isfinite(t.dx[j]));
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
        cmocka_unit_test(near_ties_fall_as_defined),
        cmocka_unit_test(near_ties_fall_alike_when_decoding),
        cmocka_unit_test(extreme_inputs_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, nothing_is_left);
}
