/* Advice: kinds of mechanisms, verdicts at different lengths, limits, crossovers. */
#include "base/memory.h"
#include "cost/advice.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static attn_catalog catalog;
static attn_pattern every[ATTN_PATTERNS_MAX];
static size_t n_every;
static attn_advice advice;
static attn_advice_evidences evidences;

static int load(void **state)
{
    (void)state;
    if (attn_patterns_parse("all", attn_mechanism_is_causal, every, &n_every, NULL) != ATTN_OK)
        return -1;
    return attn_catalog_load(&catalog, NULL, NULL, NULL) == ATTN_OK ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    attn_catalog_free(&catalog);
    return attn_memory_live_blocks() == 0 ? 0 : -1;
}

static const attn_advice *advise(attn_cost_phase phase, size_t keys, attn_advice_limits limits)
{
    const attn_cost_request request = {.catalog = &catalog,
                                       .spec =
                                           attn_records_find(&catalog.models, "llama3-8b", NULL),
                                       .phase = phase,
                                       .type = ATTN_COST_BF16,
                                       .batch = 1,
                                       .keys = keys};
    attn_error error = {0};
    if (attn_advise(&request, every, n_every, attn_records_find(&catalog.devices, "h100-sxm", NULL),
                    &limits, evidences, &advice, &error) != ATTN_OK)
        fail_msg("%s", error.text);
    return &advice;
}

static const attn_advice_line *line(const attn_advice *a, const char *label)
{
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->lines[i].mechanism.label, label) == 0) return &a->lines[i];
    fail_msg("no line of %s", label);
    return NULL;
}

static const attn_advice_limits free_choice = {.worst = ATTN_QUALITY_ANY};

static void test_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        attn_quality quality;
    } rows[] = {{"softmax", ATTN_QUALITY_EXACT}, {"sdpa", ATTN_QUALITY_EXACT},
                {"flash", ATTN_QUALITY_EXACT},   {"gqa", ATTN_QUALITY_NEAR},
                {"mqa", ATTN_QUALITY_NEAR},      {"sliding", ATTN_QUALITY_NEAR},
                {"sparse", ATTN_QUALITY_NEAR},   {"flex", ATTN_QUALITY_NEAR},
                {"linear", ATTN_QUALITY_ANY},    {"gla", ATTN_QUALITY_ANY},
                {"deltanet", ATTN_QUALITY_ANY}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(attn_mechanism_quality(rows[i].name), rows[i].quality);
}

static void test_lengths(void **state)
{
    (void)state;
    const attn_advice *a = advise(ATTN_COST_PREFILL, 512, free_choice);
    assert_int_equal(a->verdict, ATTN_ADVICE_NO_DIFFERENCE);
    assert_string_equal(a->lines[a->pick].mechanism.label, "flash");
    assert_true(a->reference.core_share < 0.05);
    a = advise(ATTN_COST_PREFILL, 8192, free_choice);
    assert_int_equal(a->verdict, ATTN_ADVICE_TAKE);
    assert_true(a->lines[a->pick].quality != ATTN_QUALITY_EXACT);
    const double at_8k = a->reference.time_s.value / a->lines[a->pick].time_s.value;
    a = advise(ATTN_COST_PREFILL, 131072, free_choice);
    assert_int_equal(a->verdict, ATTN_ADVICE_TAKE);
    assert_true(a->reference.time_s.value / a->lines[a->pick].time_s.value > 2.0 * at_8k);
    /* sorted, candidates first */
    for (size_t i = 1; i < a->candidates; i++)
        assert_true(a->lines[i - 1].time_s.value <= a->lines[i].time_s.value);
    for (size_t i = a->candidates; i < a->count; i++) assert_true(a->lines[i].why_not[0]);
    assert_int_equal(a->count, n_every);
}

/* A crossover is where the sign changes: ahead at it, not ahead a quarter below. */
static void test_crossovers(void **state)
{
    (void)state;
    const attn_advice *a = advise(ATTN_COST_PREFILL, 512, free_choice);
    static const char *const names[] = {"sliding", "gla", "linear"};
    for (size_t i = 0; i < 3; i++) {
        a = advise(ATTN_COST_PREFILL, 512, free_choice);
        const size_t from = line(a, names[i])->ahead_from;
        assert_true(from > 512 && from < 32768);
        a = advise(ATTN_COST_PREFILL, from, free_choice);
        assert_true(line(a, names[i])->time_s.value * (1.0 + ATTN_ADVICE_MATTERS) <
                    a->reference.time_s.value);
        a = advise(ATTN_COST_PREFILL, from * 3 / 4, free_choice);
        assert_false(line(a, names[i])->time_s.value * (1.0 + ATTN_ADVICE_MATTERS) <
                     a->reference.time_s.value);
    }
    assert_int_equal(line(a, "softmax")->ahead_from, 0);
}

static void test_limits(void **state)
{
    (void)state;
    const attn_advice *a =
        advise(ATTN_COST_PREFILL, 8192, (attn_advice_limits){.worst = ATTN_QUALITY_EXACT});
    assert_int_equal(a->candidates, 3);
    assert_string_equal(a->lines[a->pick].mechanism.label, "flash");
    assert_non_null(strstr(line(a, "gla")->why_not, "not asked for"));
    a = advise(ATTN_COST_PREFILL, 8192,
               (attn_advice_limits){.worst = ATTN_QUALITY_ANY, .memory_bytes = 1e9});
    assert_int_equal(a->verdict, ATTN_ADVICE_NOTHING_FITS);
    assert_int_equal(a->candidates, 0);
    assert_non_null(strstr(line(a, "flash")->why_not, "GB of 1"));
    a = advise(ATTN_COST_PREFILL, 8192,
               (attn_advice_limits){.worst = ATTN_QUALITY_ANY, .energy_j = 1e-3});
    assert_int_equal(a->verdict, ATTN_ADVICE_NOTHING_FITS);
    /* a training step needs 129 GB; the device has 80 */
    a = advise(ATTN_COST_TRAIN, 2048, free_choice);
    assert_int_equal(a->verdict, ATTN_ADVICE_NOTHING_FITS);
}

/* Measurements: of the very sizes, near them, and too far away. */
static void test_evidence(void **state)
{
    (void)state;
    const attn_advice *a = advise(ATTN_COST_PREFILL, 2048, free_choice);
    const double flash_s = line(a, "flash")->time_s.value, gla_s = line(a, "gla")->time_s.value;
    assert_int_equal(line(a, "gla")->sure, ATTN_SURE_MODELLED);
    assert_int_equal(line(a, "gla")->run, 0);
    a = advise(ATTN_COST_PREFILL, 1024, free_choice);
    const double near_s = line(a, "linear")->time_s.value;
    static attn_advice_evidence list[] = {
        {.mechanism = "gla", .batch = 1, .keys = 2048, .low = 1e-9, .high = 1.0, .run = 7},
        {.mechanism = "linear", .batch = 1, .keys = 1024, .run = 6},
        {.mechanism = "flash", .batch = 1, .keys = 256, .time_s = 1.0, .run = 5},
        {.mechanism = "softmax", .batch = 8, .keys = 2048, .time_s = 1.0, .run = 4}};
    list[0].time_s = 0.25 * gla_s;
    list[1].time_s = 3.0 * near_s;
    a = advise(ATTN_COST_PREFILL, 2048, free_choice);
    const double linear_s = line(a, "linear")->time_s.value;
    evidences = (attn_advice_evidences){list, 4};
    a = advise(ATTN_COST_PREFILL, 2048, free_choice);
    /* the measurement itself, with its range, is first now */
    assert_true(line(a, "gla")->time_s.value == 0.25 * gla_s);
    assert_true(line(a, "gla")->time_s.low == 1e-9 && line(a, "gla")->time_s.high == 1.0);
    assert_int_equal(line(a, "gla")->sure, ATTN_SURE_MEASURED);
    assert_int_equal(line(a, "gla")->run, 7);
    assert_string_equal(a->lines[0].mechanism.label, "gla");
    /* as far off as at the sizes of the run */
    assert_true(fabs(line(a, "linear")->time_s.value / (3.0 * linear_s) - 1.0) < 1e-9);
    assert_int_equal(line(a, "linear")->sure, ATTN_SURE_NEAR);
    /* eight times as long, and eight times as many sequences, are too far */
    assert_true(line(a, "flash")->time_s.value == flash_s);
    assert_int_equal(line(a, "flash")->sure, ATTN_SURE_MODELLED);
    assert_int_equal(line(a, "softmax")->sure, ATTN_SURE_MODELLED);
    assert_int_equal(a->n_sure[ATTN_SURE_MEASURED], 1);
    assert_int_equal(a->n_sure[ATTN_SURE_NEAR], 1);
    assert_int_equal(a->n_sure[ATTN_SURE_MODELLED], a->candidates - 2);
    evidences = (attn_advice_evidences){0};
}

static void test_short_memory(void **state)
{
    (void)state;
    const attn_cost_request request = {.catalog = &catalog,
                                       .spec = attn_records_find(&catalog.models, "gpt2", NULL),
                                       .phase = ATTN_COST_PREFILL,
                                       .batch = 1,
                                       .keys = 64};
    const size_t live = attn_memory_live_blocks();
    attn_error error = {0};
    attn_memory_fail_at(1);
    assert_int_equal(attn_advise(&request, every, 1,
                                 attn_records_find(&catalog.devices, "l4", NULL), &free_choice,
                                 (attn_advice_evidences){0}, &advice, &error),
                     ATTN_EMEMORY);
    attn_memory_fail_at(0);
    assert_int_equal(attn_memory_live_blocks(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),      cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_crossovers), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_evidence),   cmocka_unit_test(test_short_memory)};
    return cmocka_run_group_tests(tests, load, unload);
}
