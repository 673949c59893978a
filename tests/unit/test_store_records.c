/* The store as its callers use it: what goes in comes out, and wrong use is refused. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "scratch_folder.h"
#include "store/store.h"
#include "synthetic_run.h"

static attn_store *open_store(const char *name, attn_store_mode mode)
{
    attn_error error = {0};
    attn_store *store = NULL;
    const attn_status status = attn_store_open(&store, scratch_path(name), mode, &error);
    if (status != ATTN_OK) print_error("%s\n", error.text);
    assert_int_equal(status, ATTN_OK);
    return store;
}

static void assert_same_number(double a, double b)
{
    if (isnan(a))
        assert_true(isnan(b));
    else
        assert_memory_equal(&a, &b, sizeof a);
}

static void records_come_back(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_store *store = open_store("records.db", ATTN_STORE_WRITE);
    int64_t run = 0, trial = 0;
    assert_int_equal(attn_store_begin_run(store, "title \"é\n'", "{\"a\":1}", "{}", &run, &error),
                     0);
    assert_int_equal(attn_store_begin_trial(store, run, 3, 2, "softmax", &trial, &error), 0);
    const attn_store_step steps[] = {
        {1, 2.5, 1.0, 1e-4, 100, 90, 0.1, 0.2, 0.3, 0.4, INT64_MAX, 7, 0},
        {2, NAN, INFINITY, -0.0, 0, 0, 0, 5e-324, 1.7976931348623157e308, 0, 1, 2, 3},
    };
    const attn_store_evaluation evaluations[] = {{0, 9.0, 12, 0.5}, {2, NAN, 0, 0}};
    attn_figure figures[] = {
        attn_figure_make("train_time_s", "s", 0.1, ATTN_MEASURED, "clock"),
        attn_figure_make("not_a_number", "", NAN, ATTN_DERIVED, "0 / 0"),
        attn_figure_make("energy_modelled_cpu_j", "J", 5, ATTN_MODELLED, "model"),
        attn_figure_unavailable("energy_dram_j", "J", "powercap", "no counters; use a host"),
    };
    figures[2].has_interval = true;
    figures[2].low = 1;
    figures[2].high = 9;
    snprintf(figures[0].why, sizeof figures[0].why, "flagged: 'clock' jumped");
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(attn_store_add_step(store, trial, &steps[i], &error), 0);
        assert_int_equal(attn_store_add_evaluation(store, trial, &evaluations[i], &error), 0);
    }
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(attn_store_add_figure(store, trial, &figures[i], &error), 0);
    assert_int_equal(attn_store_end_trial(store, trial, ATTN_TRIAL_FAILED, "it broke", &error), 0);
    assert_int_equal(attn_store_end_run(store, run, "interrupted", &error), 0);
    attn_store_close(store);

    store = open_store("records.db", ATTN_STORE_READ);
    attn_store_result *result = NULL;
    int64_t newest = 0;
    assert_int_equal(attn_store_newest_run(store, &newest, &error), 0);
    assert_int_equal(newest, run);
    assert_int_equal(attn_store_load(store, run, &result, &error), 0);
    assert_string_equal(result->run.title, "title \"é\n'");
    assert_string_equal(result->run.plan_json, "{\"a\":1}");
    assert_string_equal(result->run.environment_json, "{}");
    assert_string_equal(result->run.state, "interrupted");
    assert_int_equal(strlen(result->run.created_utc), strlen("2026-01-01T00:00:00Z"));
    assert_int_equal(result->n_trials, 1);
    const attn_store_trial *t = &result->trials[0];
    assert_int_equal(t->id, trial);
    assert_int_equal(t->run_id, run);
    assert_int_equal(t->round, 3);
    assert_int_equal(t->position, 2);
    assert_string_equal(t->mechanism, "softmax");
    assert_int_equal(t->state, ATTN_TRIAL_FAILED);
    assert_string_equal(t->reason, "it broke");
    assert_true(strcmp(t->started_utc, t->ended_utc) <= 0 && t->started_utc[0] == '2');
    assert_int_equal(t->n_steps, 2);
    assert_int_equal(t->n_evaluations, 2);
    assert_int_equal(t->n_figures, 4);
    for (size_t i = 0; i < 2; i++) {
        const attn_store_step *a = &steps[i], *b = &t->steps[i];
        assert_int_equal(a->step, b->step);
        assert_same_number(a->loss, b->loss);
        assert_same_number(a->gradient_norm, b->gradient_norm);
        assert_true(a->learning_rate == b->learning_rate);
        assert_int_equal(a->tokens, b->tokens);
        assert_int_equal(a->target_tokens, b->target_tokens);
        assert_same_number(a->data_s, b->data_s);
        assert_same_number(a->forward_s, b->forward_s);
        assert_same_number(a->backward_s, b->backward_s);
        assert_same_number(a->optimizer_s, b->optimizer_s);
        assert_int_equal(a->matmul_flop, b->matmul_flop);
        assert_int_equal(a->exponential_op, b->exponential_op);
        assert_int_equal(a->other_op, b->other_op);
        assert_int_equal(evaluations[i].step, t->evaluations[i].step);
        assert_same_number(evaluations[i].loss, t->evaluations[i].loss);
        assert_int_equal(evaluations[i].target_tokens, t->evaluations[i].target_tokens);
        assert_same_number(evaluations[i].time_s, t->evaluations[i].time_s);
    }
    for (size_t i = 0; i < 4; i++) {
        const attn_figure *a = &figures[i], *b = &t->figures[i];
        assert_string_equal(a->name, b->name);
        assert_string_equal(a->unit, b->unit);
        assert_same_number(a->value, b->value);
        assert_int_equal(a->provenance, b->provenance);
        assert_int_equal(a->has_interval, b->has_interval);
        assert_same_number(a->low, b->low);
        assert_same_number(a->high, b->high);
        assert_string_equal(a->source, b->source);
        assert_string_equal(a->why, b->why);
    }
    attn_store_result_free(result);
    attn_store_close(store);
    assert_int_equal(error.status, ATTN_OK);
}

static void trials_come_by_round_and_position(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_store *store = open_store("order.db", ATTN_STORE_WRITE);
    int64_t run = 0, trial = 0;
    assert_int_equal(attn_store_begin_run(store, "", "", "", &run, &error), 0);
    const uint32_t places[][2] = {{2, 1}, {1, 2}, {2, 2}, {1, 1}};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(
            attn_store_begin_trial(store, run, places[i][0], places[i][1], "m", &trial, &error), 0);
    attn_store_result *result = NULL;
    assert_int_equal(attn_store_load(store, run, &result, &error), 0);
    assert_int_equal(result->n_trials, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(result->trials[i].round, 1 + i / 2);
        assert_int_equal(result->trials[i].position, 1 + i % 2);
        assert_int_equal(result->trials[i].state, ATTN_TRIAL_RUNNING);
        assert_string_equal(result->trials[i].ended_utc, "");
    }
    attn_store_result_free(result);
    attn_store_close(store);
}

/* A refusal has the given status and a one-line text that contains `text`; then the record is
 * clean for the next one. */
static void assert_refused(attn_status got, attn_status expected, attn_error *error,
                           const char *text)
{
    if (got != expected || !strstr(error->text, text))
        print_error("status %d, text \"%s\", expected \"%s\"\n", got, error->text, text);
    assert_int_equal(got, expected);
    assert_non_null(strstr(error->text, text));
    assert_null(strchr(error->text, '\n'));
    *error = (attn_error){0};
}

static void wrong_use_is_refused(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_store *store = open_store("wrong.db", ATTN_STORE_WRITE);
    int64_t run = 0, trial = 0, other = 0;
    assert_refused(attn_store_newest_run(store, &run, &error), ATTN_ENOTFOUND, &error,
                   "no run yet");
    assert_int_equal(attn_store_begin_run(store, "", "", "", &run, &error), 0);
    assert_int_equal(attn_store_begin_trial(store, run, 1, 1, "m", &trial, &error), 0);
    assert_refused(attn_store_begin_trial(store, run, 1, 1, "n", &other, &error), ATTN_EARGUMENT,
                   &error, "begin a trial");
    assert_refused(attn_store_begin_trial(store, 99, 1, 1, "n", &other, &error), ATTN_ENOTFOUND,
                   &error, "begin a trial");
    char long_name[sizeof((attn_store_trial *)NULL)->mechanism + 1] = "";
    memset(long_name, 'x', sizeof long_name - 1);
    assert_refused(attn_store_begin_trial(store, run, 1, 2, long_name, &other, &error),
                   ATTN_EARGUMENT, &error, "too long");

    attn_store_step step = {.step = 1};
    const attn_store_evaluation evaluation = {.step = 1};
    attn_figure figure = attn_figure_make("a_s", "s", 1, ATTN_MEASURED, "clock");
    assert_refused(attn_store_add_step(store, 99, &step, &error), ATTN_ENOTFOUND, &error, "step");
    assert_refused(attn_store_add_evaluation(store, 99, &evaluation, &error), ATTN_ENOTFOUND,
                   &error, "evaluation");
    assert_refused(attn_store_add_figure(store, 99, &figure, &error), ATTN_ENOTFOUND, &error,
                   "figure");
    assert_int_equal(attn_store_add_step(store, trial, &step, &error), 0);
    assert_refused(attn_store_add_step(store, trial, &step, &error), ATTN_EARGUMENT, &error,
                   "step");
    step.other_op = UINT64_MAX;
    assert_refused(attn_store_add_step(store, trial, &step, &error), ATTN_EARGUMENT, &error,
                   "2^63");
    assert_int_equal(attn_store_add_figure(store, trial, &figure, &error), 0);
    assert_refused(attn_store_add_figure(store, trial, &figure, &error), ATTN_EARGUMENT, &error,
                   "figure");
    figure = attn_figure_unavailable("b_s", "s", "clock", "");
    assert_refused(attn_store_add_figure(store, trial, &figure, &error), ATTN_EARGUMENT, &error,
                   "why");
    figure.provenance = ATTN_PROVENANCES;
    assert_refused(attn_store_add_figure(store, trial, &figure, &error), ATTN_EARGUMENT, &error,
                   "provenance");

    assert_refused(attn_store_end_trial(store, trial, ATTN_TRIAL_RUNNING, "", &error),
                   ATTN_EARGUMENT, &error, "running");
    assert_refused(attn_store_end_trial(store, 99, ATTN_TRIAL_DONE, "", &error), ATTN_ENOTFOUND,
                   &error, "trial 99");
    assert_refused(attn_store_end_run(store, run, "finished", &error), ATTN_EARGUMENT, &error,
                   "end a run");
    assert_refused(attn_store_end_run(store, 99, "done", &error), ATTN_ENOTFOUND, &error, "run 99");
    attn_store_result *result = NULL;
    assert_refused(attn_store_load(store, 99, &result, &error), ATTN_ENOTFOUND, &error, "run 99");
    assert_null(result);
    attn_store_close(store);

    store = open_store("wrong.db", ATTN_STORE_READ);
    assert_refused(attn_store_add_step(store, trial, &step, &error), ATTN_EARGUMENT, &error,
                   "2^63");
    step.other_op = 0;
    assert_refused(attn_store_add_step(store, trial, &step, &error), ATTN_EARGUMENT, &error,
                   "open for reading");
    attn_store_close(store);
    attn_store_close(NULL);
    attn_store_result_free(NULL);
    attn_store_overviews_free(NULL, 0);
}

static void discarding_frees_the_place(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_store *store = open_store("discard.db", ATTN_STORE_WRITE);
    int64_t run = 0, lost = 0, done = 0, again = 0;
    const attn_store_step step = {.step = 1};
    assert_int_equal(attn_store_begin_run(store, "", "", "", &run, &error), 0);
    assert_int_equal(attn_store_begin_trial(store, run, 1, 1, "a", &done, &error), 0);
    assert_int_equal(attn_store_add_step(store, done, &step, &error), 0);
    assert_int_equal(attn_store_end_trial(store, done, ATTN_TRIAL_DONE, "", &error), 0);
    assert_int_equal(attn_store_begin_trial(store, run, 1, 2, "b", &lost, &error), 0);
    assert_int_equal(attn_store_add_step(store, lost, &step, &error), 0);

    assert_refused(attn_store_discard_trial(store, done, &error), ATTN_ENOTFOUND, &error,
                   "unfinished trial");
    assert_int_equal(attn_store_discard_trial(store, lost, &error), 0);
    assert_refused(attn_store_discard_trial(store, lost, &error), ATTN_ENOTFOUND, &error,
                   "unfinished trial");
    assert_refused(attn_store_add_step(store, lost, &step, &error), ATTN_ENOTFOUND, &error, "step");
    assert_int_equal(attn_store_begin_trial(store, run, 1, 2, "b", &again, &error), 0);
    assert_int_not_equal(again, lost); /* late records of the lost one must not land here */
    attn_store_result *result = NULL;
    assert_int_equal(attn_store_load(store, run, &result, &error), 0);
    assert_int_equal(result->n_trials, 2);
    assert_int_equal(result->trials[0].n_steps, 1);
    assert_int_equal(result->trials[1].n_steps, 0);
    attn_store_result_free(result);
    attn_store_close(store);
}

static void runs_are_listed(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_store *store = open_store("list.db", ATTN_STORE_WRITE);
    attn_store_overview *runs = NULL;
    size_t n = 1;
    assert_int_equal(attn_store_list(store, &runs, &n, &error), 0);
    assert_int_equal(n, 0);
    attn_store_overviews_free(runs, n);

    int64_t id = 0;
    assert_int_equal(synthetic_run(store, &(synthetic_options){0}, &id, &error), 0);
    assert_int_equal(synthetic_run(store, &(synthetic_options){.is_running = true}, &id, &error),
                     0);
    assert_int_equal(attn_store_list(store, &runs, &n, &error), 0);
    assert_int_equal(n, 2);
    assert_int_equal(runs[0].run.id, 1);
    assert_string_equal(runs[0].run.state, "done");
    assert_string_equal(runs[1].run.state, "running");
    assert_string_equal(runs[1].run.title, "attnscope run --rounds 3 --steps 60");
    assert_int_equal(runs[0].n_trials[ATTN_TRIAL_DONE], 17);
    assert_int_equal(runs[0].n_trials[ATTN_TRIAL_CRASHED], 1);
    assert_int_equal(runs[1].n_trials[ATTN_TRIAL_DONE], 16);
    assert_int_equal(runs[1].n_trials[ATTN_TRIAL_RUNNING], 1);
    attn_store_overviews_free(runs, n);
    attn_store_close(store);
}

/* A store that an earlier version wrote stays readable, for good. test_report_table.c made it. */
static void old_stores_are_read(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_store *store = NULL;
    attn_store_result *result = NULL;
    assert_int_equal(
        attn_store_open(&store, TEST_DATA "/store/schema-1.db", ATTN_STORE_READ, &error), ATTN_OK);
    assert_int_equal(attn_store_load(store, 1, &result, &error), ATTN_OK);
    assert_string_equal(result->run.title, "attnscope run --rounds 3 --steps 60");
    assert_int_equal(result->n_trials, 12);
    const attn_store_trial *flash = &result->trials[2];
    assert_string_equal(flash->mechanism, "flash");
    assert_int_equal(flash->n_steps, 5);
    assert_int_equal(flash->steps[4].matmul_flop, 10871635968);
    assert_int_equal(flash->n_figures, 45);
    assert_string_equal(flash->figures[0].name, "train_time_s");
    attn_store_result_free(result);
    attn_store_close(store);
}

/* Allocation n fails, for n = 1, 2, ... until one goes through: no leak, no wrong result. */
static void allocations_may_fail(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_store *store = open_store("memory.db", ATTN_STORE_WRITE);
    int64_t run = 0;
    assert_int_equal(synthetic_run(store, &(synthetic_options){.rounds = 1}, &run, &error), 0);
    attn_store_close(store);
    const size_t live = attn_memory_live_blocks();
    size_t n_failures = 0;
    for (size_t n = 1;; n++) {
        error = (attn_error){0};
        attn_store_result *result = NULL;
        attn_store_overview *runs = NULL;
        size_t n_runs = 0;
        store = NULL;
        attn_memory_fail_at(n);
        attn_status status =
            attn_store_open(&store, scratch_path("memory.db"), ATTN_STORE_READ, &error);
        if (status == ATTN_OK) status = attn_store_load(store, run, &result, &error);
        if (status == ATTN_OK) status = attn_store_list(store, &runs, &n_runs, &error);
        attn_memory_fail_at(0);
        if (status == ATTN_OK) assert_int_equal(result->n_trials, 6);
        attn_store_overviews_free(runs, n_runs);
        attn_store_result_free(result);
        attn_store_close(store);
        assert_int_equal(attn_memory_live_blocks(), live);
        if (status == ATTN_OK) break;
        assert_int_equal(status, ATTN_EMEMORY);
        n_failures++;
    }
    assert_true(n_failures > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_back),    cmocka_unit_test(trials_come_by_round_and_position),
        cmocka_unit_test(wrong_use_is_refused), cmocka_unit_test(discarding_frees_the_place),
        cmocka_unit_test(runs_are_listed),      cmocka_unit_test(old_stores_are_read),
        cmocka_unit_test(allocations_may_fail),
    };
    return cmocka_run_group_tests_name("store records", tests, scratch_folder_make,
                                       scratch_folder_remove);
}
