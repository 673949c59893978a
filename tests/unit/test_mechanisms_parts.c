/* Layers whose core multiplies in two bfloat16 parts at level amx: the same bits with 1 and 3 threads,
 * no output that depends on a later token, and what level avx512 has, whose core is float32, but for
 * a few bfloat16 numbers of the projections on the other side of a middle. Skipped where there is
 * no AMX. */
#include "attn/context.h"
#include "attn/layer.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "base/random.h"
#include "mechanisms/mechanism.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* Factors that differ by 2e-5 before they are rounded differ by sqrt(2e-5 2^-7) = 4e-4 of themselves
 * afterwards (docs/numerics.md). The seed leaves no row of retnet that nearly vanishes before its
 * norm, which would magnify that. */
static const double tolerance = 1e-3;

enum { BATCH = 2, HEADS = 3, HEAD_DIM = 64, WIDTH = HEADS * HEAD_DIM, LENGTH = 205 };
enum { COUNT = BATCH * LENGTH * WIDTH };

typedef struct results {
    float *y, *dx, *gradients;
    size_t n_gradients;
} results;

static float *floats(size_t n, uint32_t stream)
{
    float *x = attn_alloc_array(ATTN_MEMORY_OTHER, n ? n : 1, sizeof *x);
    assert_non_null(x);
    if (stream) attn_random_fill_normal(7, attn_random_stream(ATTN_RANDOM_TEST, stream), 1.0, n, x);
    return x;
}

static void draw_parameters(const attn_layer *layer, float *out)
{
    for (size_t i = 0; i < layer->n_parameters; i++) {
        const attn_parameter *p = &layer->parameters[i];
        const uint64_t stream = attn_random_stream(ATTN_RANDOM_PARAMETERS, (uint32_t)i);
        if (p->initial == ATTN_INITIAL_OWN &&
            attn_layer_initialise_own(layer, i, 3, stream, out + p->offset))
            continue;
        attn_random_fill_normal(3, stream, 0.1, p->count, out + p->offset);
    }
}

/* Tokens from `changed` on are others. */
static results run_layer(const char *isa, size_t threads, const char *mechanism, size_t changed)
{
    attn_error error = {0};
    attn_context *context = NULL;
    attn_layer *layer = NULL;
    const attn_layer_config config = {.mechanism = mechanism,
                                      .d_model = WIDTH,
                                      .heads = HEADS,
                                      .positions = LENGTH,
                                      .is_causal = true,
                                      .dtype = ATTN_BF16};
    assert_int_equal(attn_context_create(&context, threads, isa, &error), ATTN_OK);
    assert_int_equal(attn_layer_create(&layer, &config, &error), ATTN_OK);
    assert_true(layer->mechanism->multiplies_parts);
    const size_t n = attn_layer_parameter_count(layer);
    results r = {floats(COUNT, 0), floats(COUNT, 0), floats(n, 0), n};
    float *x = floats(COUNT, 1), *other = floats(COUNT, 2), *dy = floats(COUNT, 3);
    float *parameters = floats(n, 0);
    float *saved = floats(attn_layer_saved_count(layer, BATCH, LENGTH), 0);
    float *scratch = floats(attn_layer_scratch_count(layer, context, BATCH, LENGTH), 0);
    attn_bf16 *packed =
        attn_alloc_array(ATTN_MEMORY_OTHER, attn_layer_packed_count(layer), sizeof *packed);
    assert_non_null(packed);
    for (size_t b = 0; b < BATCH; b++)
        for (size_t i = (b * LENGTH + changed) * WIDTH; i < (b + 1) * LENGTH * WIDTH; i++)
            x[i] = other[i];
    draw_parameters(layer, parameters);
    attn_layer_pack(context, layer, parameters, packed);
    const attn_call call = {.batch = BATCH,
                            .length = LENGTH,
                            .x = x,
                            .y = r.y,
                            .parameters = parameters,
                            .packed = packed,
                            .saved = saved,
                            .scratch = scratch,
                            .dy = dy,
                            .dx = r.dx,
                            .gradients = r.gradients};
    assert_int_equal(attn_layer_forward(context, layer, &call), ATTN_OK);
    assert_int_equal(attn_layer_backward(context, layer, &call), ATTN_OK);
    float *const memory[] = {x, other, dy, parameters, saved, scratch};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) attn_free(memory[i]);
    attn_free(packed);
    attn_layer_free(layer);
    attn_context_free(context);
    return r;
}

static void free_results(results *r)
{
    attn_free(r->y);
    attn_free(r->dx);
    attn_free(r->gradients);
}

static void assert_near(size_t n, const float *got, const float *want)
{
    double error = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double x = (double)got[i], y = (double)want[i];
        error += (x - y) * (x - y);
        size += y * y;
    }
    assert_true(sqrt(error) <= tolerance * sqrt(size));
}

static void check(void **state)
{
    const char *mechanism = *state;
    enum { CHANGED = 77 };
    if (attn_cpu_best_isa() < ATTN_ISA_AMX) {
        print_message("no AMX here: nothing to compare its tiles with\n");
        skip();
    }
    results want = run_layer("avx512", 2, mechanism, LENGTH);
    results got = run_layer("amx", 1, mechanism, LENGTH);
    results again = run_layer("amx", 3, mechanism, LENGTH);
    results changed = run_layer("amx", 2, mechanism, CHANGED);
    assert_near(COUNT, got.y, want.y);
    assert_near(COUNT, got.dx, want.dx);
    assert_near(got.n_gradients, got.gradients, want.gradients);
    assert_memory_not_equal(got.y, want.y, COUNT * sizeof *got.y); /* the tiles were used */
    assert_memory_equal(got.y, again.y, COUNT * sizeof *got.y);
    assert_memory_equal(got.dx, again.dx, COUNT * sizeof *got.dx);
    assert_memory_equal(got.gradients, again.gradients, got.n_gradients * sizeof *got.gradients);
    for (size_t b = 0; b < BATCH; b++)
        assert_memory_equal(changed.y + b * LENGTH * WIDTH, got.y + b * LENGTH * WIDTH,
                            CHANGED * WIDTH * sizeof *got.y);
    free_results(&want);
    free_results(&got);
    free_results(&again);
    free_results(&changed);
}

#define LAYER(name)                                                                                \
    {                                                                                              \
        name, check, NULL, NULL, (void *)(uintptr_t)name                                           \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAYER("linear"),  LAYER("performer"), LAYER("retnet"),        LAYER("deltanet"),
        LAYER("softmax"), LAYER("linformer"), LAYER("gated-deltanet")};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
