/* Layers of attention: pairs against counting one by one, and closed forms against libattn's. */
#include "cost/attention.h"
#include "cost/pairs.h"
#include "mechanisms/exact_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* ---- pairs ---------------------------------------------------------------------------------- */

static void count_by_hand(const attn_cost_pairs *p, uint64_t *visible, attn_tile_count *tiles)
{
    const size_t offset = p->keys - p->queries;
    *visible = 0;
    *tiles = (attn_tile_count){0};
    for (size_t i0 = 0; i0 < p->queries; i0 += p->tile_queries)
        for (size_t j0 = 0; j0 < p->keys; j0 += p->tile_keys) {
            attn_tile tile = {.i0 = offset + i0, .j0 = j0};
            tile.ni = attn_smaller(p->tile_queries, p->queries - i0);
            tile.nj = attn_smaller(p->tile_keys, p->keys - j0);
            const attn_tile_kind kind = p->mask.tile(p->mask.rule, 0, &tile, NULL);
            uint64_t seen = 0;
            for (size_t i = 0; i < tile.ni; i++)
                for (size_t j = 0; j < tile.nj; j++)
                    seen += p->mask.sees(p->mask.rule, 0, tile.i0 + i, j0 + j, 0);
            *visible += seen;
            if (kind == ATTN_TILE_EMPTY) {
                assert_int_equal(seen, 0);
                continue;
            }
            tiles->elements += tile.ni * tile.nj;
            tiles->row_visits += tile.ni;
            if (kind == ATTN_TILE_PARTIAL) tiles->masked += tile.ni * tile.nj;
        }
    *visible *= p->heads;
    tiles->elements *= p->heads;
    tiles->row_visits *= p->heads;
    tiles->masked *= p->heads;
}

static void check_pairs(const attn_visibility *rule, size_t T, size_t S, size_t bq, size_t bk)
{
    const attn_cost_pairs p = {.mask = attn_visibility_mask(rule),
                               .rule = rule,
                               .heads = 3,
                               .queries = T,
                               .keys = S,
                               .tile_queries = bq,
                               .tile_keys = bk};
    uint64_t visible, by_hand;
    attn_tile_count tiles, tiles_by_hand;
    count_by_hand(&p, &by_hand, &tiles_by_hand);
    assert_true(attn_cost_visible(&p, &visible));
    assert_true(attn_cost_executed(&p, &tiles));
    assert_int_equal(visible, by_hand);
    assert_int_equal(tiles.elements, tiles_by_hand.elements);
    assert_int_equal(tiles.row_visits, tiles_by_hand.row_visits);
    assert_int_equal(tiles.masked, tiles_by_hand.masked);
    if (T == S) assert_int_equal(visible, 3 * attn_count_pairs(rule, T));
}

static void test_pairs_by_rule(void **state)
{
    (void)state;
    static const size_t keys[] = {1, 2, 7, 64, 65, 130}, windows[] = {1, 3, 64, 100, 0};
    static const size_t sinks[] = {0, 1, 5, 70}, tiles[] = {1, 4, 64};
    for (size_t k = 0; k < 6; k++)
        for (size_t q = 0; q < 6; q++)
            for (size_t w = 0; w < 5; w++)
                for (size_t s = 0; s < 4; s++)
                    for (size_t b = 0; b < 9; b++) {
                        if (keys[q] > keys[k]) continue;
                        const attn_visibility rule = {.is_causal = true,
                                                      .window =
                                                          windows[w] ? windows[w] : ATTN_NO_WINDOW,
                                                      .sinks = sinks[s]};
                        check_pairs(&rule, keys[q], keys[k], tiles[b / 3], tiles[b % 3]);
                    }
    for (size_t w = 0; w < 5; w++) {
        const attn_visibility rule = {.window = windows[w] ? windows[w] : ATTN_NO_WINDOW,
                                      .sinks = w};
        check_pairs(&rule, 130, 130, 64, 64);
    }
}

/* The counts of section 3.1 of the cost model, worked by hand. */
static void test_pairs_worked(void **state)
{
    (void)state;
    const attn_visibility causal = {.is_causal = true, .window = ATTN_NO_WINDOW};
    attn_cost_pairs p = {.mask = attn_visibility_mask(&causal),
                         .rule = &causal,
                         .heads = 1,
                         .queries = 512,
                         .keys = 512,
                         .tile_queries = 64,
                         .tile_keys = 64};
    uint64_t visible;
    attn_tile_count tiles;
    assert_true(attn_cost_visible(&p, &visible) && attn_cost_executed(&p, &tiles));
    assert_int_equal(visible, 512 * 513 / 2);
    assert_int_equal(tiles.elements, 512 * (512 + 64) / 2);
    p.queries = p.keys = (size_t)1 << 28; /* a closed form: no walk over 2^44 tiles */
    assert_true(attn_cost_visible(&p, &visible));
    assert_true(visible == ((uint64_t)1 << 55) + ((uint64_t)1 << 27));
    p.rule = NULL;
    assert_false(attn_cost_visible(&p, &visible));
    assert_false(attn_cost_executed(&p, &tiles));
}

/* ---- mechanisms ----------------------------------------------------------------------------- */

static void assert_work(attn_work a, attn_work b, const char *what)
{
    if (a.matmul == b.matmul && a.exponential == b.exponential && a.other == b.other) return;
    fail_msg("%s: %llu %llu %llu, not %llu %llu %llu", what, (unsigned long long)a.matmul,
             (unsigned long long)a.exponential, (unsigned long long)a.other,
             (unsigned long long)b.matmul, (unsigned long long)b.exponential,
             (unsigned long long)b.other);
}

/* What libattn's layer does beside the core: [q k v] and o with their biases. */
static attn_work projections(const attn_cost_core *core, size_t rows, size_t width, size_t heads,
                             bool is_backward)
{
    const uint64_t row = width + 2 * core->kv_heads * (width / heads) + width;
    return (attn_work){.matmul = (is_backward ? 4 : 2) * rows * width * row, .other = rows * row};
}

typedef struct size_case {
    size_t batch, heads, width, length, documents;
} size_case;

/* Every mechanism of the registry, forward, backward and decoding: what the cost model says of a
 * layer is attn_layer_work(), which the kernels' own tests hold equal to what they count. */
static void test_equals_layer_work(void **state)
{
    (void)state;
    static const size_case cases[] = {{1, 4, 32, 1, 1},    {2, 4, 64, 37, 1},  {1, 12, 768, 64, 1},
                                      {3, 6, 96, 200, 1},  {2, 6, 96, 120, 3}, {1, 12, 768, 512, 1},
                                      {1, 6, 384, 130, 2}, {4, 8, 64, 256, 4}};
    size_t counted = 0;
    for (size_t m = 0; m < attn_mechanism_count(); m++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const size_case *s = &cases[i];
            attn_label label = {.options = ""};
            snprintf(label.name, sizeof label.name, "%s", attn_mechanism_name(m));
            const attn_mechanism *entry = attn_mechanism_find(label.name);
            const attn_layer_config config = {.mechanism = label.name,
                                              .d_model = s->width,
                                              .heads = s->heads,
                                              .positions = s->length,
                                              .is_causal = attn_mechanism_is_causal(label.name)};
            attn_layer *layer = NULL;
            attn_error error = {0};
            if (attn_layer_create(&layer, &config, NULL) != ATTN_OK || entry->reads_memory ||
                (entry->check_length && entry->check_length(layer, s->length, NULL) != ATTN_OK) ||
                (s->documents > 1 && !attn_layer_is_causal(layer))) {
                attn_layer_free(layer);
                continue;
            }
            const attn_cost_heads heads = {.width = s->width,
                                           .heads = s->heads,
                                           .kv_heads = s->heads,
                                           .key_width = s->width / s->heads,
                                           .value_width = s->width / s->heads,
                                           .is_causal = attn_layer_is_causal(layer)};
            attn_cost_call call = {.batch = s->batch,
                                   .queries = s->length,
                                   .keys = s->length,
                                   .documents = s->documents};
            uint32_t starts[2 * 4 * 256];
            for (size_t t = 0; t < s->batch * s->length; t++)
                starts[t] = (uint32_t)(t % s->length / (s->length / s->documents) *
                                       (s->length / s->documents));
            const uint32_t *documents = s->documents > 1 ? starts : NULL;
            attn_cost_core core;
            if (attn_cost_core_count(&label, &heads, &call, &core, &error) != ATTN_OK)
                fail_msg("%s", error.text);
            const size_t rows = s->batch * s->length;
            attn_work forward = core.forward, backward = core.backward;
            if (core.has_pairs) {
                attn_work_add(&forward, projections(&core, rows, s->width, s->heads, false));
                attn_work_add(&backward, projections(&core, rows, s->width, s->heads, true));
            }
            assert_work(forward,
                        attn_layer_work(layer, ATTN_PHASE_FORWARD, s->batch, s->length, documents),
                        label.name);
            assert_work(backward,
                        attn_layer_work(layer, ATTN_PHASE_BACKWARD, s->batch, s->length, documents),
                        label.name);
            if (attn_layer_is_causal(layer) && s->documents == 1) {
                call.is_decoding = true;
                call.queries = 1;
                if (attn_cost_core_count(&label, &heads, &call, &core, &error) != ATTN_OK)
                    fail_msg("%s", error.text);
                attn_work decode = core.forward;
                if (core.has_pairs)
                    attn_work_add(&decode, projections(&core, s->batch, s->width, s->heads, false));
                assert_work(
                    decode,
                    attn_layer_work(layer, ATTN_PHASE_DECODE, s->batch, s->length - 1, NULL),
                    label.name);
                assert_int_equal(core.cache, attn_layer_cache_count(layer, s->batch, s->length));
            }
            counted += i == 1;
            attn_layer_free(layer);
        }
    /* one that reads a memory has a test of its own */
    size_t readers = 0;
    for (size_t m = 0; m < attn_mechanism_count(); m++)
        readers += attn_mechanism_find(attn_mechanism_name(m))->reads_memory;
    assert_int_equal(counted, attn_mechanism_count() - readers);
}

static attn_status count(const char *name, attn_cost_heads heads, attn_cost_call call,
                         attn_cost_core *core, attn_error *error)
{
    attn_label label = {.options = ""};
    snprintf(label.name, sizeof label.name, "%s", name);
    return attn_cost_core_count(&label, &heads, &call, core, error);
}

static void test_refusals(void **state)
{
    (void)state;
    const attn_cost_heads heads = {4096, 32, 8, 128, 128, 0, true};
    const size_t most = (size_t)1 << 28;
    static const char *const names[] = {"flash", "softmax", "linear", "gla"};
    attn_cost_core core;
    for (size_t i = 0; i < 4; i++) {
        attn_error error = {0};
        const attn_cost_call call = {false, most, most, most, 1, 0};
        assert_int_equal(count(names[i], heads, call, &core, &error), ATTN_ESHAPE);
        assert_non_null(strstr(error.text, "64-bit"));
    }
    attn_error error = {0};
    assert_int_equal(count("flash", heads, (attn_cost_call){false, 1, 8, 4, 1, 0}, &core, &error),
                     ATTN_ESHAPE);
    assert_non_null(strstr(error.text, "8 queries against 4 keys"));
    error = (attn_error){0};
    assert_int_equal(count("gla", heads, (attn_cost_call){false, 1, 8, 16, 1, 0}, &core, &error),
                     ATTN_EUNSUPPORTED);
    error = (attn_error){0};
    assert_int_equal(count("flahs", heads, (attn_cost_call){false, 1, 8, 8, 1, 0}, &core, &error),
                     ATTN_ENOTFOUND);
    assert_non_null(strstr(error.text, "did you mean 'flash'"));
    error = (attn_error){0};
    assert_int_equal(count("flash", heads, (attn_cost_call){false, 1, 9, 9, 2, 0}, &core, &error),
                     ATTN_ESHAPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_by_rule), cmocka_unit_test(test_pairs_worked),
        cmocka_unit_test(test_equals_layer_work), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
