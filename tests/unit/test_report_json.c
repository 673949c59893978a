/* JSON: exact output for a small run, and what must hold for any run. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "report/json.h"
#include "scratch_folder.h"
#include "synthetic_result.h"

#include <jansson.h>

/* NULL instead of a result: what the page carries. */
static attn_status write_json(FILE *out, const attn_store_result *result,
                              const attn_summary *summary, attn_error *error)
{
    return result ? attn_report_json(out, result, summary, error)
                  : attn_report_json_page(out, summary, error);
}

static char *json_of(const attn_store_result *result, const attn_summary *summary)
{
    attn_error error = {0};
    char *caught = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&caught, &n);
    const attn_status status = write_json(out, result, summary, &error);
    fclose(out);
    if (status != ATTN_OK) print_error("%s\n", error.text);
    assert_int_equal(status, ATTN_OK);
    return caught;
}

/* clang-format off */
static const char small_run[] =
    "{\"schema\":1,"
    "\"run\":{\"id\":7,\"created_utc\":\"2026-01-02T03:04:05Z\",\"title\":\"run <b> \\u00E9\","
    "\"state\":\"running\",\"trials_planned\":2,\"trials_done\":1},"
    "\"environment\":\"not JSON \\u2028\","
    "\"plan\":{\"mechanisms\":[\"m\"],\"rounds\":2},"
    "\"trials\":[{\"id\":3,\"round\":1,\"position\":1,\"mechanism\":\"m\","
    "\"sees_future\":false,\"state\":\"done\","
    "\"reason\":\"\",\"started_utc\":\"2026-01-02T03:04:06Z\",\"ended_utc\":null,"
    "\"steps\":{\"step\":[1],\"loss\":[null],\"gradient_norm\":[0.1],\"learning_rate\":[0.001],"
    "\"tokens\":[8],\"target_tokens\":[6],\"data_s\":[0.0],\"forward_s\":[0.25],"
    "\"backward_s\":[0.5],\"optimizer_s\":[null],\"matmul_flop\":[9007199254740993],"
    "\"exponential_op\":[2],\"other_op\":[3]},"
    "\"evaluations\":[{\"step\":1,\"loss\":2.5,\"target_tokens\":6,\"time_s\":0.125}],"
    "\"figures\":["
    "{\"name\":\"a_s\",\"unit\":\"s\",\"value\":0.1,\"provenance\":\"measured\","
    "\"source\":\"clock\",\"low\":null,\"high\":null,\"why\":\"\"},"
    "{\"name\":\"b_j\",\"unit\":\"J\",\"value\":null,\"provenance\":\"unavailable\","
    "\"source\":\"rapl\",\"low\":null,\"high\":null,\"why\":\"no counters\"},"
    "{\"name\":\"c\",\"unit\":\"\",\"value\":null,\"provenance\":\"derived\","
    "\"source\":\"0 / 0\",\"low\":1.0,\"high\":2.0,\"why\":\"not a finite number\"}]}],"
    "\"summary\":[{\"mechanism\":\"m\",\"is_baseline\":true,\"sees_future\":false,"
    "\"trials\":{\"running\":0,\"done\":1,\"failed\":0,\"crashed\":0,\"interrupted\":0},"
    "\"reason\":null,\"figures\":["
    "{\"name\":\"a_s\",\"unit\":\"s\",\"median\":0.1,\"provenance\":\"measured\",\"rounds\":1,"
    "\"minimum\":0.1,\"maximum\":0.1,\"spread\":\"none\",\"low\":null,\"high\":null,"
    "\"ratio_to_baseline\":1.0,\"why\":\"\"},"
    "{\"name\":\"b_j\",\"unit\":\"J\",\"median\":null,\"provenance\":\"unavailable\",\"rounds\":0,"
    "\"minimum\":null,\"maximum\":null,\"spread\":\"none\",\"low\":null,\"high\":null,"
    "\"ratio_to_baseline\":null,\"why\":\"no counters\"},"
    "{\"name\":\"c\",\"unit\":\"\",\"median\":null,\"provenance\":\"derived\",\"rounds\":1,"
    "\"minimum\":null,\"maximum\":null,\"spread\":\"none\",\"low\":null,\"high\":null,"
    "\"ratio_to_baseline\":null,\"why\":\"not a finite number in 1 of 1 rounds\"}]}]}";
/* clang-format on */

static void a_small_run_to_the_letter(void **state)
{
    (void)state;
    char title[] = "run <b> \xc3\xa9", plan[] = "{\"mechanisms\":[\"m\"],\"rounds\":2}";
    char environment[] = "not JSON \xe2\x80\xa8";
    attn_store_step step = {.step = 1,
                            .loss = NAN,
                            .gradient_norm = 0.1,
                            .learning_rate = 1e-3,
                            .tokens = 8,
                            .target_tokens = 6,
                            .forward_s = 0.25,
                            .backward_s = 0.5,
                            .optimizer_s = INFINITY,
                            .matmul_flop = 9007199254740993u, /* not a double */
                            .exponential_op = 2,
                            .other_op = 3};
    attn_store_evaluation evaluation = {1, 2.5, 6, 0.125};
    attn_figure figures[] = {attn_figure_make("a_s", "s", 0.1, ATTN_MEASURED, "clock"),
                             attn_figure_unavailable("b_j", "J", "rapl", "no counters"),
                             attn_figure_make("c", "", NAN, ATTN_DERIVED, "0 / 0")};
    figures[2].has_interval = true;
    figures[2].low = 1;
    figures[2].high = 2;
    attn_store_trial trial = {.id = 3,
                              .round = 1,
                              .position = 1,
                              .mechanism = "m",
                              .state = ATTN_TRIAL_DONE,
                              .started_utc = "2026-01-02T03:04:06Z",
                              .steps = &step,
                              .n_steps = 1,
                              .evaluations = &evaluation,
                              .n_evaluations = 1,
                              .figures = figures,
                              .n_figures = 3};
    const attn_store_result result = {.run = {.id = 7,
                                              .created_utc = "2026-01-02T03:04:05Z",
                                              .title = title,
                                              .plan_json = plan,
                                              .environment_json = environment,
                                              .state = "running"},
                                      .trials = &trial,
                                      .n_trials = 1};
    attn_error error = {0};
    attn_summary *summary = NULL;
    assert_int_equal(attn_summary_make(&result, &summary, &error), ATTN_OK);
    char *indented = json_of(&result, summary);
    json_t *root = json_loads(indented, 0, NULL);
    char *text = json_dumps(root, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(15));
    assert_non_null(text);
    if (strcmp(text, small_run) != 0) print_error("%s\n", text);
    assert_true(strcmp(text, small_run) == 0);

    json_decref(root);
    /* The page gets what its charts need, in one line that no script element breaks on. */
    char *page = json_of(NULL, summary);
    assert_string_equal(
        page,
        "[{\"mechanism\":\"m\",\"look\":[0,0,0],\"sees_future\":false,\"reason\":null,"
        "\"figures\":{\"a_s\":[0.1,null,null],\"b_j\":[null,null,null],\"c\":[null,null,null]},"
        "\"training\":{\"steps\":[1.0],\"seconds\":[null],\"flop\":[9.0072e15],"
        "\"joules\":[null],\"loss\":[null]},"
        "\"held_out\":{\"steps\":[1.0],\"seconds\":[null],\"flop\":[9.0072e15],"
        "\"joules\":[null],\"loss\":[2.5]},\"front\":[]}]");
    free(page);
    free(indented);
    free(text);
    attn_summary_free(summary);
}

/* No figure without a value lacks a reason; texts cut inside a character do not break it. */
static void absent_values_say_why(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(
        &(synthetic_options){.is_running = true, .first_name = "caf\xc3\xa9-\xff</script>"});
    snprintf(r.result->trials[1].reason, 8, "\xc3");
    char *page = json_of(NULL, r.summary);
    assert_null(strchr(page, '<'));
    for (const char *c = page; *c; c++) assert_true((unsigned char)*c < 0x80);
    free(page);
    char *text = json_of(r.result, r.summary);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    const json_t *trials = json_object_get(root, "trials");
    assert_int_equal(json_array_size(trials), 18);
    size_t n_absent = 0;
    for (size_t t = 0; t < json_array_size(trials); t++) {
        const json_t *figures = json_object_get(json_array_get(trials, t), "figures");
        for (size_t i = 0; i < json_array_size(figures); i++) {
            const json_t *f = json_array_get(figures, i);
            if (!json_is_null(json_object_get(f, "value"))) continue;
            assert_string_equal(json_string_value(json_object_get(f, "provenance")), "unavailable");
            assert_true(json_string_length(json_object_get(f, "why")) > 0);
            n_absent++;
        }
    }
    assert_int_equal(n_absent, 16 * 3); /* three energy figures in each trial that is done */
    const json_t *first = json_array_get(json_object_get(root, "summary"), 0);
    assert_string_equal(json_string_value(json_object_get(first, "mechanism")),
                        "caf\?\?-?</script>");
    json_decref(root);
    free(text);
    synthetic_report_free(&r);
}

static void the_list_of_runs(void **state)
{
    (void)state;
    char title[] = "x \"y\"", plan[] = "{\"mechanisms\": [\"a\"], \"rounds\": 2}";
    const attn_store_overview run = {.run = {.id = 1,
                                             .created_utc = "2026-01-02T03:04:05Z",
                                             .title = title,
                                             .plan_json = plan,
                                             .state = "done"},
                                     .n_trials = {[ATTN_TRIAL_DONE] = 2}};
    attn_error error = {0};
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    assert_int_equal(attn_report_json_list(out, &run, 1, &error), ATTN_OK);
    fclose(out);
    json_t *list = json_loads(text, 0, NULL);
    json_t *expected = json_loads(
        "[{\"id\": 1, \"created_utc\": \"2026-01-02T03:04:05Z\", \"state\": \"done\","
        " \"title\": \"x \\\"y\\\"\", \"trials_planned\": 2, \"trials\": {\"running\": 0,"
        " \"done\": 2, \"failed\": 0, \"crashed\": 0, \"interrupted\": 0}}]",
        0, NULL);
    assert_true(json_equal(list, expected));
    json_decref(list);
    json_decref(expected);
    free(text);
}

static size_t memory_countdown;

static void *malloc_or_not(size_t size)
{
    return memory_countdown && --memory_countdown == 0 ? NULL : malloc(size);
}

static void failures_are_said(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 2});
    attn_error error = {0};
    FILE *full = fopen("/dev/full", "w");
    attn_status status = attn_report_json(full, r.result, r.summary, &error);
    if (status == ATTN_OK) status = fflush(full) == 0 ? ATTN_OK : ATTN_EIO;
    assert_int_equal(status, ATTN_EIO);
    fclose(full);

    /* Jansson's allocations fail in turn: an error, or the same text as without failure. */
    for (int is_page = 0; is_page < 2; is_page++) {
        const attn_store_result *result = is_page ? NULL : r.result;
        char *whole = json_of(result, r.summary);
        size_t n_failures = 0;
        bool has_fired = true;
        json_set_alloc_funcs(malloc_or_not, free);
        for (size_t n = 1; has_fired; n += 1 + n / 16) {
            char *text = NULL;
            size_t n_bytes = 0;
            FILE *out = open_memstream(&text, &n_bytes);
            error = (attn_error){0};
            memory_countdown = n;
            status = write_json(out, result, r.summary, &error);
            has_fired = memory_countdown == 0;
            memory_countdown = 0;
            fclose(out);
            if (status == ATTN_OK)
                assert_string_equal(text, whole);
            else
                assert_true(status == ATTN_EMEMORY || status == ATTN_EIO);
            n_failures += status != ATTN_OK;
            free(text);
        }
        json_set_alloc_funcs(malloc, free);
        free(whole);
        assert_true(n_failures > 40);
    }
    synthetic_report_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_run_to_the_letter),
        cmocka_unit_test(absent_values_say_why),
        cmocka_unit_test(the_list_of_runs),
        cmocka_unit_test(failures_are_said),
    };
    return cmocka_run_group_tests_name("report JSON", tests, scratch_folder_make,
                                       scratch_folder_remove);
}
