/* Runs that are stopped, rest, and go on. */
#include "experiment_fixture.h"

#include "base/clock.h"
#include "report/comparison.h"
#include "report/export.h"
#include "report/findings.h"
#include "store/likeness.h"

/* ---- stopping and going on ---------------------------------------------------------------- */

typedef struct stop_at {
    size_t trial, step;
} stop_at;

static void stop_there(void *argument, const attn_run_progress *p)
{
    const stop_at *at = argument;
    if (p->trial == at->trial && p->step == at->step) stop = 1;
}

/* A worker runs ahead of its records, so on a busy machine one that is to be stopped may be done
 * already; but not all of them. */
static void stopped_runs_resume_to_the_same_result(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = tiny_plan("flash,linear,gqa");
    plan.steps = 12;
    size_t n_interrupted = 0;
    attn_store *whole = open_store(scratch_path("uninterrupted.db"));
    assert_ok(run_plan(&plan, whole, false, NULL, NULL, &error));
    attn_store_result *expected = load_newest(whole);
    attn_store_close(whole);

    const stop_at places[] = {{1, 1}, {2, 0}, {2, 2}, {3, 1}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        attn_store *store = open_store(scratch_path("stopped.db"));
        stop_at at = places[i];
        attn_error stopped = {0};
        const attn_status status = run_plan(&plan, store, false, stop_there, &at, &stopped);
        attn_store_result *result = load_newest(store);
        assert_int_equal(result->n_trials, at.trial);
        for (size_t k = 0; k + 1 < at.trial; k++)
            assert_int_equal(result->trials[k].state, ATTN_TRIAL_DONE);
        const attn_store_trial *last = &result->trials[at.trial - 1];
        const bool is_interrupted = last->state == ATTN_TRIAL_INTERRUPTED;
        const size_t n_left = 3 - at.trial + is_interrupted;
        assert_int_equal(status, n_left ? ATTN_EINTERRUPTED : ATTN_OK);
        assert_string_equal(result->run.state, n_left ? "interrupted" : "done");
        if (n_left) assert_non_null(strstr(stopped.text, "go on with --resume"));
        if (is_interrupted)
            assert_string_equal(last->reason, "stopped by the user");
        else
            assert_int_equal(last->state, ATTN_TRIAL_DONE);
        n_interrupted += is_interrupted;
        const int64_t run_id = result->run.id;
        attn_store_result_free(result);

        /* stopped before anything begins: nothing is lost either */
        attn_error again = {0};
        assert_int_equal(run_plan(&plan, store, true, NULL, NULL, &again), status);

        stop = 0;
        telling told = {0};
        assert_ok(run_plan(&plan, store, true, note, &told, &error));
        assert_int_equal(told.begins, n_left); /* what was done is not done again */
        result = load_newest(store);
        assert_int_equal(result->run.id, run_id);
        assert_string_equal(result->run.state, "done");
        assert_same_work(result, expected);
        attn_store_result_free(result);
        attn_store_close(store);
    }
    assert_true(n_interrupted > 0);
    attn_store_result_free(expected);
}

/* ---- rest between trials ------------------------------------------------------------------ */

typedef struct rest {
    uint64_t ended_ns;
    double shortest_s;
    size_t n;
    bool stops; /* with the end of a trial */
} rest;

static void note_rest(void *argument, const attn_run_progress *p)
{
    rest *r = argument;
    if (p->is_ended) {
        r->ended_ns = attn_clock_ns();
        if (r->stops) stop = 1;
    } else if (p->step == 0 && r->ended_ns > 0) {
        const double rested_s = attn_clock_seconds(r->ended_ns, attn_clock_ns());
        r->n++;
        r->shortest_s = fmin(r->shortest_s, rested_s);
    }
}

static void machines_rest_between_trials(void **state)
{
    (void)state;
    attn_error error = {0}, stopped = {0};
    attn_plan plan = tiny_plan("flash,linear,gqa");
    plan.measuring.cool_down_s = 0.7;
    attn_store *store = open_store(scratch_path("rest.db"));
    rest r = {.shortest_s = INFINITY};
    assert_ok(run_plan(&plan, store, false, note_rest, &r, &error));
    assert_int_equal(r.n, 2);
    assert_true(r.shortest_s >= 0.7);
    /* Who stops a rest does not wait for its end. */
    plan.measuring.cool_down_s = 600.0;
    r = (rest){.shortest_s = INFINITY, .stops = true};
    const uint64_t begin_ns = attn_clock_ns();
    assert_int_equal(run_plan(&plan, store, false, note_rest, &r, &stopped), ATTN_EINTERRUPTED);
    assert_true(attn_clock_seconds(begin_ns, attn_clock_ns()) < 300.0);
    attn_store_close(store);
}

/* A stop that comes when all is done is no interruption. */
static void stop_at_the_very_end(void *argument, const attn_run_progress *p)
{
    (void)argument;
    if (p->is_ended && p->trial == p->n_trials) stop = 1;
}

static void finished_runs_are_not_interrupted(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = tiny_plan("flash,linear");
    attn_store *store = open_store(scratch_path("late.db"));
    assert_ok(run_plan(&plan, store, false, stop_at_the_very_end, NULL, &error));
    attn_store_result *result = load_newest(store);
    assert_string_equal(result->run.state, "done");
    attn_store_result_free(result);
    attn_store_close(store);
}

static void another_plan_is_not_resumed(void **state)
{
    (void)state;
    attn_plan plan = tiny_plan("flash");
    attn_store *store = open_store(scratch_path("plans.db"));
    attn_error nothing = {0}, error = {0}, other = {0};
    assert_int_equal(run_plan(&plan, store, true, NULL, NULL, &nothing), ATTN_ENOTFOUND);
    assert_ok(run_plan(&plan, store, false, NULL, NULL, &error));
    plan.seed++;
    assert_int_equal(run_plan(&plan, store, true, NULL, NULL, &other), ATTN_EARGUMENT);
    assert_non_null(strstr(other.text, "has another plan"));
    attn_store_result *result = load_newest(store);
    assert_string_equal(result->run.state, "done"); /* left as it was */
    assert_int_equal(result->n_trials, 1);
    attn_store_result_free(result);
    attn_store_close(store);
}

static void another_machine_is_not_resumed(void **state)
{
    (void)state;
    attn_plan plan = tiny_plan("flash");
    attn_store *store = open_store(scratch_path("machines.db"));
    attn_error error = {0}, other = {0};
    environment = "{\"cpu\": {\"model_name\": \"one\"}, \"build\": {\"version\": \"1\"}}";
    stop = 1;
    assert_int_equal(run_plan(&plan, store, false, NULL, NULL, &error), ATTN_EINTERRUPTED);
    stop = 0;
    static const char *const elsewhere[] = {
        "{\"cpu\": {\"model_name\": \"other\"}, \"build\": {\"version\": \"1\"}}",
        "{\"cpu\": {\"model_name\": \"one\"}, \"build\": {\"version\": \"2\"}}"};
    static const char *const words[] = {"cpu.model_name: \"one\" and \"other\"",
                                        "build.version: \"1\" and \"2\""};
    const char *here = environment;
    for (size_t i = 0; i < 2; i++) {
        environment = elsewhere[i];
        other = (attn_error){0};
        assert_int_equal(run_plan(&plan, store, true, NULL, NULL, &other), ATTN_EARGUMENT);
        assert_non_null(strstr(other.text, words[i]));
        assert_non_null(strstr(other.text, "leave out --resume"));
    }
    attn_store_result *result = load_newest(store);
    assert_string_equal(result->run.state, "interrupted"); /* left as it was */
    attn_store_result_free(result);
    environment = here;
    assert_ok(run_plan(&plan, store, true, NULL, NULL, &error));
    environment = "{}";
    attn_store_close(store);
}

/* By force a run goes on under other circumstances, and says so wherever it is shown. */
static void forced_runs_are_marked(void **state)
{
    (void)state;
    attn_plan plan = tiny_plan("flash,linear,gqa");
    attn_store *store = open_store(scratch_path("forced.db"));
    attn_error error = {0}, refused = {0};
    environment = "{\"system\": {\"kernel\": \"6.1\"}, \"cpu\": {\"microcode\": \"0x1\"}}";
    const stop_at at = {2, 0};
    assert_int_equal(run_plan(&plan, store, false, stop_there, (void *)&at, &error),
                     ATTN_EINTERRUPTED);
    stop = 0;
    error = (attn_error){0};
    environment = "{\"system\": {\"kernel\": \"6.2\"}, \"cpu\": {\"microcode\": \"0x2\"}}";
    assert_int_equal(run_plan(&plan, store, true, NULL, NULL, &refused), ATTN_EARGUMENT);
    assert_non_null(strstr(refused.text, "or --force it, which marks the run"));
    is_forced = true;
    const stop_at later = {3, 0};
    assert_int_equal(run_plan(&plan, store, true, stop_there, (void *)&later, &error),
                     ATTN_EINTERRUPTED);
    stop = 0;
    error = (attn_error){0};
    /* Nothing has changed since: no force is needed, and nothing is noted again. */
    is_forced = false;
    assert_ok(run_plan(&plan, store, true, NULL, NULL, &error));
    attn_store_result *result = load_newest(store);
    assert_string_equal(result->run.state, "done");
    assert_int_equal(result->n_trials, 3);
    for (size_t t = 0; t < 3; t++) {
        const attn_figure *mark = find_figure(&result->trials[t], ATTN_FIGURE_CIRCUMSTANCES);
        assert_int_equal(mark != NULL, t > 0);
        if (mark) assert_true(mark->value == 2.0 && strstr(mark->why, "cpu.microcode") != NULL);
    }
    attn_differences list = {.n = 0};
    attn_likeness_resumed(result->run.environment_json, &list);
    assert_int_equal(list.n, 2);
    assert_string_equal(list.texts[1], "system.kernel: \"6.1\" and \"6.2\" from trial 2 on");
    assert_non_null(strstr(result->run.environment_json, "\"trials_done\":1"));

    attn_summary *summary = NULL;
    attn_finding findings[ATTN_FINDINGS_MAX];
    assert_ok(attn_summary_make(result, &summary, &error));
    const size_t n = attn_findings_make(summary, findings);
    const attn_finding *found = NULL;
    for (size_t i = 0; i < n; i++)
        if (strcmp(findings[i].label, "Circumstances") == 0) found = &findings[i];
    assert_non_null(found);
    assert_true(found->is_caution && strstr(found->detail, "from trial 2 on") != NULL);
    char *text = NULL;
    size_t size_bytes = 0;
    FILE *out = open_memstream(&text, &size_bytes);
    assert_ok(attn_report_export(out, "md", result, summary, "loss", &error));
    fclose(out);
    assert_non_null(strstr(text, "resumed by force under other circumstances: cpu.microcode"));
    free(text);
    attn_summary_free(summary);

    /* A run of one piece beside it. */
    attn_comparison *comparison = NULL;
    attn_error apart = {0};
    environment = "{\"system\": {\"kernel\": \"6.1\"}, \"cpu\": {\"microcode\": \"0x1\"}}";
    assert_ok(run_plan(&plan, store, false, NULL, NULL, &error));
    attn_store_result *other = load_newest(store);
    attn_comparison_options how = {.is_forced = false};
    for (int i = 0; i < 2; i++) {
        apart = (attn_error){0};
        assert_int_equal(
            attn_comparison_make(i ? result : other, i ? other : result, &how, &comparison, &apart),
            ATTN_EUNSUPPORTED);
        assert_non_null(strstr(apart.text, "from trial 2 on, and more"));
    }
    how.is_forced = true;
    assert_ok(attn_comparison_make(other, result, &how, &comparison, &error));
    assert_int_equal(comparison->forbidding.n, 2);
    attn_comparison_free(comparison);
    attn_store_result_free(other);
    attn_store_result_free(result);
    environment = "{}";
    attn_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(stopped_runs_resume_to_the_same_result, ask_for_no_stop),
        cmocka_unit_test_setup(machines_rest_between_trials, ask_for_no_stop),
        cmocka_unit_test_setup(finished_runs_are_not_interrupted, ask_for_no_stop),
        cmocka_unit_test_setup(another_plan_is_not_resumed, ask_for_no_stop),
        cmocka_unit_test_setup(another_machine_is_not_resumed, ask_for_no_stop),
        cmocka_unit_test_setup(forced_runs_are_marked, ask_for_no_stop),
    };
    return cmocka_run_group_tests(tests, load_dataset, free_dataset);
}
