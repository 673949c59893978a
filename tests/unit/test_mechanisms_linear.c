/* linear where exp(x) leaves float32: queries and keys hundreds below zero, by feature and by time.
 * They are sums of whole sixteenths, so that the float64 definition means the very same numbers and
 * the usual tolerance applies to y, dx and every gradient. */
#include "attn/attn.h"
#include "base/memory.h"
#include "base/random.h"
#include "mechanisms/oracle.h"
#include "verify/compare.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* The last two columns of x are the levels of keys and queries; v does not see them. */
enum { B = 2, HEADS = 2, D = 6, C = 12, T = 150, N = B * T * C, P = 4 * C * C + 4 * C, FREE = 10 };

/* Feature r of a key is a small number + key_share[r] * key_level(t). */
typedef struct scene {
    const char *name;
    float (*key_level)(size_t t), (*query_level)(size_t t);
    float key_share[D], query_share[D];
} scene;

static float none(size_t t)
{
    (void)t;
    return 0.0f;
}

static float low(size_t t)
{
    (void)t;
    return -170.0f;
}

static float lowest(size_t t)
{
    (void)t;
    return -300.0f;
}

static float jumps(size_t t)
{
    return t == 0 ? -120.0f : t % 23 == 0 ? -300.0f : t % 7 == 3 ? 0.0f : -200.0f;
}

static float climbs(size_t t)
{
    return t < 70 ? -350.0f + 5.0f * (float)t : 0.0f;
}

#define ALL                                                                                        \
    {                                                                                              \
        1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f                                                         \
    }

static const scene scenes[] = {
    {"keys", lowest, none, ALL, ALL},
    {"queries", none, lowest, ALL, ALL},
    {"both", low, low, ALL, ALL},
    {"keys that jump", jumps, none, ALL, ALL},
    {"keys that climb", climbs, none, ALL, ALL},
    {"queries that jump", none, jumps, ALL, ALL},
    {"some features of keys", climbs, none, {1.0f, 0.0f, 1.0f, 0.5f, 1.0f, 0.25f}, ALL},
    /* the feature that a query has is the one that no key has */
    {"apart", low, low, {1.0f, 0, 0, 0, 0, 0}, {-0.5f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f}},
};

/* ---- one layer --------------------------------------------------------------------------- */

typedef struct layer_room {
    attn_layer *layer;
    attn_context *context;
    float x[N], dy[N], parameters[P], y[N], dx[N], gradients[P];
    double real_x[N], real_dy[N], real_parameters[P], want_y[N], want_dx[N], want_gradients[P];
} layer_room;

static layer_room room; /* too large for a stack */

static void draw_projection(size_t offset, const float *share, size_t level_column)
{
    float *w = room.parameters + offset;
    memset(w, 0, C * C * sizeof *w);
    for (size_t i = 0; i < C; i++) {
        w[i * C + i % FREE] = 1.0f;
        w[i * C + level_column] = share[i % D];
    }
}

static void draw(const scene *s)
{
    attn_random_fill_normal(3, 1, 1.0, N, room.x);
    attn_random_fill_normal(3, 2, 1.0, N, room.dy);
    attn_random_fill_normal(3, 3, 0.3, P, room.parameters);
    for (size_t i = 0; i < N; i++) room.x[i] = rintf(16.0f * room.x[i]) / 16.0f;
    for (size_t i = 0; i < B * T; i++) {
        room.x[i * C + FREE] = s->key_level(i % T);
        room.x[i * C + FREE + 1] = s->query_level(i % T);
    }
    size_t count = 0;
    const attn_parameter *p = attn_layer_parameters(room.layer, &count);
    for (size_t i = 0; i < count; i++) {
        float *values = room.parameters + p[i].offset;
        if (strcmp(p[i].name, "wq.weight") == 0)
            draw_projection(p[i].offset, s->query_share, FREE + 1);
        if (strcmp(p[i].name, "wk.weight") == 0) draw_projection(p[i].offset, s->key_share, FREE);
        if (strcmp(p[i].name, "wq.bias") == 0 || strcmp(p[i].name, "wk.bias") == 0)
            memset(values, 0, C * sizeof *values);
        if (strcmp(p[i].name, "wv.weight") == 0)
            for (size_t row = 0; row < C; row++)
                values[row * C + FREE] = values[row * C + FREE + 1] = 0.0f;
    }
    for (size_t i = 0; i < N; i++) room.real_x[i] = (double)room.x[i];
    for (size_t i = 0; i < N; i++) room.real_dy[i] = (double)room.dy[i];
    for (size_t i = 0; i < P; i++) room.real_parameters[i] = (double)room.parameters[i];
}

static void begin(const scene *s, bool is_causal, const char *isa)
{
    const attn_layer_config config = {.mechanism = "linear",
                                      .d_model = C,
                                      .heads = HEADS,
                                      .positions = T,
                                      .is_causal = is_causal};
    assert_int_equal(attn_layer_create(&room.layer, &config, NULL), ATTN_OK);
    assert_int_equal(attn_context_create(&room.context, 2, isa, NULL), ATTN_OK);
    assert_int_equal(attn_layer_parameter_count(room.layer), P);
    draw(s);
}

static void end(void)
{
    attn_layer_free(room.layer);
    attn_context_free(room.context);
}

static float *floats(size_t count)
{
    float *values = attn_alloc_array(ATTN_MEMORY_OTHER, count, sizeof *values);
    assert_non_null(values);
    return values;
}

static void compute(const uint32_t *documents)
{
    float *saved = floats(attn_layer_saved_count(room.layer, B, T));
    float *scratch = floats(attn_layer_scratch_count(room.layer, room.context, B, T));
    const attn_call call = {.batch = B,
                            .length = T,
                            .parameters = room.parameters,
                            .x = room.x,
                            .y = room.y,
                            .saved = saved,
                            .scratch = scratch,
                            .document_start = documents,
                            .dy = room.dy,
                            .dx = room.dx,
                            .gradients = room.gradients};
    assert_int_equal(attn_layer_forward(room.context, room.layer, &call), ATTN_OK);
    assert_int_equal(attn_layer_backward(room.context, room.layer, &call), ATTN_OK);
    attn_free(saved);
    attn_free(scratch);
    const attn_oracle_call truth = {.batch = B,
                                    .length = T,
                                    .parameters = room.real_parameters,
                                    .x = room.real_x,
                                    .document_start = documents,
                                    .y = room.want_y,
                                    .dy = room.real_dy,
                                    .dx = room.want_dx,
                                    .gradients = room.want_gradients};
    assert_int_equal(attn_layer_oracle(room.layer, &truth, NULL), ATTN_OK);
}

static void assert_error(const scene *s, const char *what, double error)
{
    if (error <= ATTN_TOLERANCE_F32) return;
    print_error("%s, %s: error %.2g\n", s->name, what, error);
    fail();
}

static void assert_right(const scene *s)
{
    size_t count = 0;
    const attn_parameter *p = attn_layer_parameters(room.layer, &count);
    double largest = 0.0;
    assert_error(s, "y", attn_relative_error(N, attn_singles(room.y), attn_reals(room.want_y), 0));
    assert_error(s, "dx",
                 attn_relative_error(N, attn_singles(room.dx), attn_reals(room.want_dx), 0));
    for (size_t i = 0; i < count; i++)
        largest =
            fmax(largest, attn_norm(p[i].count, attn_reals(room.want_gradients + p[i].offset)));
    assert_true(largest > 0.0);
    for (size_t i = 0; i < count; i++)
        assert_error(s, p[i].name,
                     attn_relative_error(p[i].count, attn_singles(room.gradients + p[i].offset),
                                         attn_reals(room.want_gradients + p[i].offset),
                                         ATTN_GRADIENT_FLOOR * largest));
}

static const uint32_t *some_documents(void)
{
    static uint32_t start[B * T];
    for (size_t i = 0; i < B * T; i++) start[i] = i % T < 30 ? 0 : i % T < 77 ? 30 : 77;
    return start;
}

/* ---- tests ------------------------------------------------------------------------------- */

static void features_of_any_size_are_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
        for (int variant = 0; variant < 4; variant++) {
            begin(&scenes[i], variant != 2, variant == 3 ? "ref" : NULL);
            compute(variant == 1 ? some_documents() : NULL);
            assert_right(&scenes[i]);
            end();
        }
}

static void decoding_carries_the_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        begin(&scenes[i], true, NULL);
        compute(NULL);
        float *cache = floats(attn_layer_cache_count(room.layer, B, T));
        float *scratch = floats(attn_layer_scratch_count(room.layer, room.context, B, 1));
        float x[B * C], y[B * C];
        for (size_t t = 0; t < T; t++) {
            for (size_t b = 0; b < B; b++)
                memcpy(x + b * C, room.x + (b * T + t) * C, C * sizeof *x);
            const attn_call call = {.batch = B,
                                    .length = 1,
                                    .parameters = room.parameters,
                                    .x = x,
                                    .y = y,
                                    .scratch = scratch,
                                    .cache = cache,
                                    .cache_capacity = T,
                                    .position = t};
            assert_int_equal(attn_layer_decode(room.context, room.layer, &call), ATTN_OK);
            for (size_t b = 0; b < B; b++)
                memcpy(room.y + (b * T + t) * C, y + b * C, C * sizeof *y);
        }
        assert_error(&scenes[i], "decoding",
                     attn_relative_error(N, attn_singles(room.y), attn_reals(room.want_y), 0));
        attn_free(cache);
        attn_free(scratch);
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_of_any_size_are_right),
        cmocka_unit_test(decoding_carries_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
