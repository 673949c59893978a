/* A wall meter's log attached to a run that is over: the run is made up, so that the energy of each
 * trial is known to the joule. */
#define _GNU_SOURCE
#include "store_fixture.h"

#include "base/memory.h"
#include "experiment/attach.h"

#include <math.h>

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != ATTN_OK) fail_msg("%s: %s", #call, error.text);                              \
    } while (0)

#define BEGIN_S 1.76e9
#define REST_W  60.0
#define WORK_W  160.0
#define TIMED_S 18.0 /* in two stretches of 9 s, with an evaluation of 2 s in between */

enum { TRIALS = 4, STEPS = 12, WARMUP = 2 };

/* Of trial `t`: at work for 25 s, 5 s of rest behind it. */
static double trial_begin_s(size_t t)
{
    return BEGIN_S + 30.0 * (double)t;
}

static void add(attn_store *store, int64_t trial, const char *name, double value)
{
    attn_error error = {0};
    const attn_figure figure = attn_figure_make(name, "", value, ATTN_COUNTED, "made up");
    assert_ok(attn_store_add_figure(store, trial, &figure, &error));
}

static attn_store *make_run(const char *name, const char *plan, bool has_spans)
{
    attn_error error = {0};
    attn_store *store = NULL;
    int64_t run = 0, trial = 0;
    const char *path = scratch_path(name);
    unlink(path);
    assert_ok(attn_store_open(&store, path, ATTN_STORE_WRITE, &error));
    assert_ok(attn_store_begin_run(store, "attnscope run", plan, "{}", &run, &error));
    for (size_t t = 0; t < TRIALS; t++) {
        assert_ok(attn_store_begin_trial(store, run, (uint32_t)(t / 2 + 1), (uint32_t)(t % 2 + 1),
                                         t % 2 ? "linear" : "flash", &trial, &error));
        for (size_t s = 1; s <= STEPS; s++) {
            const attn_store_step step = {.step = s, .loss = 1.0, .forward_s = 0.5};
            assert_ok(attn_store_add_step(store, trial, &step, &error));
        }
        add(store, trial, "warmup_steps", WARMUP);
        add(store, trial, "clock_step_s", 0.0);
        const attn_figure none =
            attn_figure_unavailable("energy_system_j", "J", "external", "there was no meter");
        if (t == 1) assert_ok(attn_store_add_figure(store, trial, &none, &error));
        const double begin_s = trial_begin_s(t);
        const attn_store_span spans[] = {{begin_s, begin_s + 25.0, false},
                                         {begin_s + 3.0, begin_s + 12.0, true},
                                         {begin_s + 14.0, begin_s + 23.0, true}};
        for (size_t i = 0; has_spans && i < 3; i++)
            assert_ok(attn_store_add_span(store, trial, &spans[i], &error));
        assert_ok(attn_store_end_trial(store, trial, ATTN_TRIAL_DONE, "", &error));
    }
    assert_ok(attn_store_end_run(store, run, "done", &error));
    return store;
}

/* A reading every interval_s, by a clock that is shift_s ahead; the watts of work rise by 10 from
 * trial to trial. */
static const char *make_log(double shift_s, double interval_s, double from_s, double to_s,
                            bool has_joules, double gap_begin_s, double gap_end_s)
{
    const char *path = scratch_path("wall.csv");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    double joules = 500.0;
    fputs("time;watts\n", file);
    for (double t = BEGIN_S + from_s; t < BEGIN_S + to_s; t += interval_s) {
        double power_w = REST_W;
        for (size_t k = 0; k < TRIALS; k++)
            if (t >= trial_begin_s(k) && t < trial_begin_s(k) + 25.0)
                power_w = WORK_W + 10.0 * (double)k;
        joules += power_w * interval_s;
        if (t - BEGIN_S > gap_begin_s && t - BEGIN_S < gap_end_s) continue;
        fprintf(file, "%.4f;%.4f", t + shift_s, power_w);
        if (has_joules) fprintf(file, ";%.4f", joules);
        fputc('\n', file);
    }
    assert_int_equal(fclose(file), 0);
    return path;
}

static attn_store_result *load(attn_store *store)
{
    attn_error error = {0};
    attn_store_result *result = NULL;
    assert_ok(attn_store_load(store, 1, &result, &error));
    return result;
}

static const attn_figure *find(const attn_store_trial *trial, const char *name)
{
    for (size_t i = 0; i < trial->n_figures; i++)
        if (strcmp(trial->figures[i].name, name) == 0) return &trial->figures[i];
    return NULL;
}

static void assert_value(const attn_store_trial *trial, const char *name, double value,
                         double within)
{
    const attn_figure *f = find(trial, name);
    if (!f) fail_msg("there is no %s", name);
    if (!(fabs(f->value - value) <= within))
        fail_msg("%s: %g, not %g (%s)", name, f->value, value, f->why);
}

static void refuse(attn_store *store, const char *path, attn_status status, const char *words)
{
    attn_error error = {0};
    attn_attached attached;
    attn_store_result *before = load(store);
    assert_int_equal(attn_attach_log(store, 1, path, 0.0, &attached, &error), status);
    if (!strstr(error.text, words)) fail_msg("'%s' is not in: %s", words, error.text);
    attn_store_result *after = load(store);
    for (size_t t = 0; t < TRIALS; t++) {
        assert_int_equal(after->trials[t].n_figures, before->trials[t].n_figures);
        assert_int_equal(after->trials[t].n_samples, 0);
    }
    attn_store_result_free(before);
    attn_store_result_free(after);
}

static void energies_come_from_the_log(void **state)
{
    (void)state;
    for (int has_joules = 0; has_joules < 2; has_joules++) {
        attn_error error = {0};
        attn_attached attached;
        attn_store *store = make_run("run.db",
                                     "{\"measuring\": {\"pue\": 1.5, \"carbon_intensity\": 360, "
                                     "\"carbon_source\": \"grid\"}}",
                                     true);
        const char *path = make_log(11.7, 0.25, -20.0, 140.0, has_joules, INFINITY, INFINITY);
        assert_ok(attn_attach_log(store, 1, path, 0.0, &attached, &error));
        assert_int_equal(attached.n_done, TRIALS);
        assert_int_equal(attached.n_measured, TRIALS);
        assert_int_equal(attached.n_unknown, 0);
        assert_true(fabs(attached.shift.shift_s - 11.7) <= attached.shift.within_s);
        assert_true(attached.shift.within_s < 0.5 && attached.is_counter == has_joules);
        if (has_joules)
            assert_true(fabs(attached.disagreement) < 0.01);
        else
            assert_true(isnan(attached.disagreement));
        attn_store_result *result = load(store);
        for (size_t t = 0; t < TRIALS; t++) {
            const attn_store_trial *trial = &result->trials[t];
            const double power_w = WORK_W + 10.0 * (double)t, energy_j = power_w * TIMED_S;
            const attn_figure *energy = find(trial, "energy_system_j");
            assert_value(trial, "energy_system_j", energy_j, 0.1);
            assert_value(trial, "energy_step_j", energy_j / (STEPS - WARMUP), 0.01);
            assert_value(trial, "energy_facility_j", 1.5 * energy_j, 0.2);
            assert_value(trial, "carbon_g", 1.5 * energy_j * 360.0 / 3.6e6, 1e-4);
            assert_value(trial, "meter_shift_s", 11.7, 0.3);
            assert_int_equal(energy->provenance, has_joules ? ATTN_MEASURED : ATTN_INTEGRATED);
            assert_true(energy->has_interval && energy->low <= energy_j + 0.1 &&
                        energy->high >= energy_j - 0.1);
            assert_true(energy->high - energy->low < 0.1 * energy_j);
            assert_non_null(strstr(energy->source, "wall.csv, sha256 "));
            assert_non_null(strstr(energy->source, attached.sha256));
            assert_non_null(strstr(energy->why, "ahead of this machine's"));
            assert_int_equal(trial->n_samples, 20);
            /* Timing began behind two steps of half a second. */
            assert_true(fabs(trial->samples[0].time_s - 2.0) < 1e-6);
            assert_true(fabs(trial->samples[3].power_w - power_w) < 0.5);
            assert_string_equal(trial->samples[0].domain, "system");
        }
        attn_store_result_free(result);
        /* Nothing twice. */
        attn_error again = {0};
        assert_int_equal(attn_attach_log(store, 1, path, 0.0, &attached, &again), ATTN_EARGUMENT);
        assert_non_null(strstr(again.text, "nothing is counted twice"));
        assert_non_null(strstr(again.text, "wall.csv"));
        attn_store_close(store);
    }
}

static void other_energies_stay(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_attached attached;
    attn_store *store = make_run("beside.db", "{}", true);
    attn_store_result *result = load(store);
    add(store, result->trials[0].id, "energy_step_j", 5.0); /* of the processor */
    add(store, result->trials[3].id, "energy_system_j", 7.0);
    attn_store_result_free(result);
    assert_ok(attn_attach_log(store, 1, make_log(0.0, 0.5, -20.0, 140.0, false, INFINITY, INFINITY),
                              0.0, &attached, &error));
    assert_int_equal(attached.n_measured, 3);
    result = load(store);
    assert_value(&result->trials[0], "energy_system_j", WORK_W * TIMED_S, 0.1);
    assert_value(&result->trials[0], "energy_step_j", 5.0, 0.0);
    assert_value(&result->trials[3], "energy_system_j", 7.0, 0.0);
    assert_null(find(&result->trials[0], "energy_facility_j"));
    attn_store_result_free(result);
    attn_store_close(store);
}

/* A trial in which the log has a gap, or that it does not cover, or whose clock was set, is told so;
 * the others have their energy. */
static void trials_without_readings_are_told(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_attached attached;
    attn_store *store = make_run("gaps.db", "{}", true);
    attn_store_result *result = load(store);
    assert_int_equal(
        sqlite3_exec(store->db,
                     "UPDATE figure SET value = 3 WHERE name = 'clock_step_s' AND trial_id = 3",
                     NULL, NULL, NULL),
        SQLITE_OK);
    attn_store_result_free(result);
    const char *path = make_log(-3.0, 0.5, -20.0, 100.0, false, 35.0, 41.0);
    assert_ok(attn_attach_log(store, 1, path, 0.0, &attached, &error));
    assert_int_equal(attached.n_measured, 1);
    assert_int_equal(attached.n_unknown, 3);
    assert_non_null(strstr(attached.why, "a gap of 6 s before line 113"));
    result = load(store);
    static const char *const words[TRIALS] = {NULL, "a gap of 6 s before line 113", "clock was set",
                                              "does not cover"};
    for (size_t t = 0; t < TRIALS; t++) {
        const attn_figure *energy = find(&result->trials[t], "energy_system_j");
        assert_int_equal(energy->provenance == ATTN_UNAVAILABLE, t > 0);
        if (t > 0 && !strstr(energy->why, words[t])) fail_msg("%zu: %s", t, energy->why);
        assert_int_equal(find(&result->trials[t], "energy_step_j") == NULL, t > 0);
    }
    attn_store_result_free(result);
    /* A better log fills what is missing. */
    assert_ok(attn_attach_log(store, 1, make_log(0.0, 0.5, -20.0, 140.0, false, INFINITY, INFINITY),
                              0.0, &attached, &error));
    assert_int_equal(attached.n_measured, 2);
    attn_store_close(store);
}

static void nothing_is_attached_by_guess(void **state)
{
    (void)state;
    attn_store *store = make_run("refused.db", "{}", true);
    refuse(store, make_log(5000.0, 0.5, -20.0, 140.0, false, INFINITY, INFINITY), ATTN_ENOTFOUND,
           "do not overlap");
    refuse(store, make_log(0.0, 15.0, -200.0, 300.0, false, INFINITY, INFINITY), ATTN_ENOTFOUND,
           "");
    refuse(store, make_log(0.0, 0.5, 1.0, 24.0, false, INFINITY, INFINITY), ATTN_ENOTFOUND,
           "does not follow the run");
    refuse(store, scratch_path("absent.csv"), ATTN_ENOTFOUND, "cannot read");
    refuse(store, scratch_path("refused.db"), ATTN_EFORMAT, "refused.db:1: ");
    attn_store_close(store);
    store = make_run("old.db", "{}", false);
    refuse(store, make_log(0.0, 0.5, -20.0, 140.0, false, INFINITY, INFINITY), ATTN_EARGUMENT,
           "does not say when its trials were at work");
    attn_error error = {0};
    attn_attached attached;
    assert_int_equal(attn_attach_log(store, 7, "x", 0.0, &attached, &error), ATTN_ENOTFOUND);
    attn_store_close(store);
}

static void coarse_logs_have_wide_intervals(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_attached attached;
    attn_store *store = make_run("coarse.db", "{}", true);
    assert_ok(attn_attach_log(store, 1, make_log(2.0, 2.0, -20.0, 140.0, false, INFINITY, INFINITY),
                              0.0, &attached, &error));
    attn_store_result *result = load(store);
    const attn_figure *energy = find(&result->trials[0], "energy_system_j");
    /* 9 s with a reading every 2: two in seven. */
    assert_true(energy->high - energy->value >= 2.0 / 7.0 * energy->value - 1e-6);
    assert_true(energy->low < WORK_W * TIMED_S && energy->high > WORK_W * TIMED_S);
    assert_non_null(strstr(energy->why, "far apart for stretches so short"));
    attn_store_result_free(result);
    attn_store_close(store);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    attn_store *store = make_run("memory.db", "{}", true);
    const char *path = make_log(0.0, 0.5, -20.0, 140.0, false, INFINITY, INFINITY);
    const size_t before = attn_memory_live_blocks();
    attn_status status = ATTN_EMEMORY;
    for (size_t n = 1; status == ATTN_EMEMORY; n++) {
        attn_error error = {0};
        attn_attached attached;
        attn_memory_fail_at(n);
        status = attn_attach_log(store, 1, path, 0.0, &attached, &error);
        attn_memory_fail_at(0);
        if (status != ATTN_OK && status != ATTN_EMEMORY) fail_msg("%zu: %s", n, error.text);
        assert_int_equal(attn_memory_live_blocks(), before);
    }
    attn_store_result *result = load(store); /* whole, once */
    for (size_t t = 0; t < TRIALS; t++)
        assert_non_null(find(&result->trials[t], "energy_system_j"));
    attn_store_result_free(result);
    attn_store_close(store);
}

/* A write that fails in the middle leaves the run as it was. */
static void failing_writes_attach_nothing(void **state)
{
    (void)state;
    attn_store *store = make_run("trigger.db", "{}", true);
    assert_int_equal(sqlite3_exec(store->db,
                                  "CREATE TRIGGER full BEFORE INSERT ON figure WHEN NEW.trial_id = "
                                  "3 BEGIN SELECT RAISE(ABORT, 'disk is full'); END",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    const char *path = make_log(0.0, 0.5, -20.0, 140.0, false, INFINITY, INFINITY);
    attn_error error = {0};
    attn_attached attached;
    assert_int_not_equal(attn_attach_log(store, 1, path, 0.0, &attached, &error), ATTN_OK);
    attn_store_result *result = load(store);
    for (size_t t = 0; t < TRIALS; t++) assert_null(find(&result->trials[t], "meter_shift_s"));
    assert_int_equal(find(&result->trials[1], "energy_system_j")->provenance, ATTN_UNAVAILABLE);
    attn_store_result_free(result);
    attn_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(energies_come_from_the_log),
        cmocka_unit_test(other_energies_stay),
        cmocka_unit_test(trials_without_readings_are_told),
        cmocka_unit_test(nothing_is_attached_by_guess),
        cmocka_unit_test(coarse_logs_have_wide_intervals),
        cmocka_unit_test(memory_may_run_out),
        cmocka_unit_test(failing_writes_attach_nothing),
    };
    return cmocka_run_group_tests(tests, scratch_folder_make, scratch_folder_remove);
}
