/* Runs shown together: letters, order, what forbids it, and the page and table of them. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "report/curves.h"
#include "report/findings.h"
#include "report/overlay.h"
#include "report/report.h"
#include "synthetic_result.h"

static char *written(const attn_overlay *overlay, attn_report_format format)
{
    attn_error error = {0};
    char *caught = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&caught, &n);
    const attn_status status =
        attn_report_write(out, format, &overlay->result, overlay->summary, "time", false, &error);
    fclose(out);
    if (status != ATTN_OK) print_error("%s\n", error.text);
    assert_int_equal(status, ATTN_OK);
    return caught;
}

static attn_overlay *overlay_of(const synthetic_report *a, const synthetic_report *b,
                                bool is_forced)
{
    attn_error error = {0};
    attn_overlay *overlay = NULL;
    const attn_store_result *both[] = {a->result, b->result};
    const attn_status status = attn_overlay_make(both, 2, is_forced, &overlay, &error);
    if (status != ATTN_OK) print_error("%s\n", error.text);
    assert_int_equal(status, ATTN_OK);
    return overlay;
}

static double step_time(const attn_summary *summary, const char *name)
{
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        if (strcmp(summary->mechanisms[i].name, name) == 0)
            return attn_summary_value(&summary->mechanisms[i], "step_time_s");
    return NAN;
}

static void two_runs_side_by_side(void **state)
{
    (void)state;
    synthetic_report a = synthetic_report_make(&(synthetic_options){.rounds = 2, .steps = 4});
    synthetic_report b = synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 4});
    attn_overlay *overlay = overlay_of(&a, &b, false);
    const attn_summary *s = overlay->summary;
    static const char *const names[] = {"A softmax", "B softmax", "A sdpa",   "B sdpa",
                                        "A flash",   "B flash",   "A gqa",    "B gqa",
                                        "A sliding", "B sliding", "A linear", "B linear"};
    assert_int_equal(s->n_mechanisms, 12);
    for (size_t i = 0; i < 12; i++) {
        assert_string_equal(s->mechanisms[i].name, names[i]);
        assert_int_equal(attn_overlay_run(&s->mechanisms[i]), i % 2);
        /* Every value is that of its own run. */
        const attn_summary *own = i % 2 ? b.summary : a.summary;
        assert_true(step_time(s, names[i]) == step_time(own, names[i] + 2));
        /* A mechanism keeps its colour; dash and point are those of its run. */
        const attn_curve_look look = attn_curves_look(s, i);
        assert_int_equal(look.colour, i / 2);
        assert_int_equal(look.dash, i % 2);
        assert_int_equal(look.point, i % 2);
    }
    assert_int_equal(s->n_trials_planned, 18);
    assert_int_equal(s->n_trials_done, 17);
    assert_true(s->overlay == overlay);

    char *page = written(overlay, ATTN_REPORT_HTML);
    assert_non_null(strstr(page, "<title>attnscope: 2 runs</title>"));
    assert_non_null(strstr(page, "<h1>2 runs beside each other</h1>"));
    assert_non_null(strstr(page, "<strong>A</strong> run 1:"));
    assert_non_null(strstr(page, "<strong>B</strong> run 1:"));
    assert_non_null(strstr(page, "<caption>B beside A: how much B is above or below</caption>"));
    assert_non_null(strstr(page, "<a href=\"#runs\">Runs</a>"));
    assert_non_null(strstr(page, "<h3>Run B was called as</h3>"));
    assert_non_null(strstr(page, "Run B: machine, compiler and libraries"));
    assert_null(strstr(page, "Not comparable"));
    free(page);
    char *table = written(overlay, ATTN_REPORT_TABLE);
    assert_non_null(strstr(table, "A  run 1, "));
    assert_non_null(strstr(table, "B  run 1, "));
    assert_non_null(strstr(table, "\nB beside A\n"));
    assert_non_null(strstr(table, "Runs: A to B, comparable. They followed each other"));
    free(table);

    /* JSON holds one run. */
    attn_error error = {0};
    FILE *out = fopen("/dev/null", "w");
    assert_int_equal(
        attn_report_write(out, ATTN_REPORT_JSON, &overlay->result, s, "time", false, &error),
        ATTN_EARGUMENT);
    fclose(out);
    attn_overlay_free(overlay);
    synthetic_report_free(&a);
    synthetic_report_free(&b);
}

/* Runs that must not be compared are refused; forced, every place says so. */
static void what_differs_is_refused(void **state)
{
    (void)state;
    synthetic_report a = synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 2});
    synthetic_report b = synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 2});
    char *batch = strstr(b.result->run.plan_json, "\"batch\": 2");
    assert_non_null(batch);
    batch[9] = '4';
    attn_error error = {0};
    attn_overlay *overlay = NULL;
    const attn_store_result *both[] = {a.result, b.result};
    assert_int_equal(attn_overlay_make(both, 2, false, &overlay, &error), ATTN_EUNSUPPORTED);
    assert_non_null(strstr(error.text, "batch: 2 and 4"));
    assert_null(overlay);
    overlay = overlay_of(&a, &b, true);
    char *page = written(overlay, ATTN_REPORT_HTML);
    assert_non_null(strstr(page, "<strong>Not comparable, shown together by force.</strong>"));
    assert_non_null(strstr(page, "<li>batch: 2 and 4</li>"));
    assert_non_null(strstr(page, "not comparable, forced"));
    free(page);
    char *table = written(overlay, ATTN_REPORT_TABLE);
    assert_non_null(strstr(table, "NOT COMPARABLE, forced: batch: 2 and 4"));
    assert_non_null(strstr(table, "Runs: not comparable, forced."));
    free(table);
    attn_overlay_free(overlay);
    batch[9] = '2';

    /* Energy measured here, unavailable there: shown, not compared. Modelled there: refused. */
    synthetic_report measured =
        synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 2, .has_energy = true});
    overlay = overlay_of(&a, &measured, false);
    attn_overlay_free(overlay);
    both[0] = measured.result;
    synthetic_report modelled =
        synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 2, .has_energy = true});
    for (size_t t = 0; t < modelled.result->n_trials; t++)
        for (size_t f = 0; f < modelled.result->trials[t].n_figures; f++)
            if (strcmp(modelled.result->trials[t].figures[f].name, "energy_step_j") == 0)
                modelled.result->trials[t].figures[f].provenance = ATTN_MODELLED;
    both[1] = modelled.result;
    error = (attn_error){0};
    assert_int_equal(attn_overlay_make(both, 2, false, &overlay, &error), ATTN_EUNSUPPORTED);
    assert_non_null(strstr(error.text, "energy_step_j of softmax: measured and modelled"));
    synthetic_report_free(&modelled);
    synthetic_report_free(&measured);
    synthetic_report_free(&a);
    synthetic_report_free(&b);
}

/* Without a mechanism in common there is nothing to compare, and all is shown. */
static void other_mechanisms(void **state)
{
    (void)state;
    synthetic_report a = synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 2});
    synthetic_report b = synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 2});
    for (size_t t = 0; t < b.result->n_trials; t++)
        memmove(b.result->trials[t].mechanism + 1, "-other", 7);
    attn_overlay *overlay = overlay_of(&a, &b, false);
    assert_int_equal(overlay->summary->n_mechanisms,
                     6 + 4); /* sdpa, softmax, sliding are s-other */
    assert_int_equal(overlay->comparisons[1]->n_rows, 0);
    char *page = written(overlay, ATTN_REPORT_HTML);
    assert_non_null(strstr(page, "A and B have no mechanism in common."));
    free(page);
    attn_overlay_free(overlay);

    /* A name that leaves no room for a letter would be cut, and two might become one. */
    memset(b.result->trials[0].mechanism, 'x', 126);
    b.result->trials[0].mechanism[126] = '\0';
    attn_error error = {0};
    const attn_store_result *both[] = {a.result, b.result};
    assert_int_equal(attn_overlay_make(both, 2, false, &overlay, &error), ATTN_EUNSUPPORTED);
    assert_non_null(strstr(error.text, "too long a name"));
    b.result->trials[0].mechanism[125] = '\0';
    attn_overlay_free(overlay_of(&a, &b, false));

    error = (attn_error){0};
    assert_int_equal(attn_overlay_make(both, 1, false, &overlay, &error), ATTN_EARGUMENT);
    synthetic_report_free(&a);
    synthetic_report_free(&b);
}

static void memory_may_fail(void **state)
{
    (void)state;
    synthetic_report a = synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 2});
    synthetic_report b = synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 2});
    const attn_store_result *both[] = {a.result, b.result};
    const size_t before = attn_memory_live_blocks();
    size_t n = 1;
    for (bool is_done = false; !is_done; n++) {
        attn_error error = {0};
        attn_overlay *overlay = NULL;
        attn_memory_fail_at(n);
        const attn_status status = attn_overlay_make(both, 2, false, &overlay, &error);
        attn_memory_fail_at(0);
        is_done = status == ATTN_OK;
        assert_true(is_done || status == ATTN_EMEMORY);
        attn_overlay_free(overlay);
        assert_int_equal(attn_memory_live_blocks(), before);
    }
    assert_true(n > 20);
    synthetic_report_free(&a);
    synthetic_report_free(&b);
}

/* The energy of a step of the processors is not that of the whole machine. */
static void energies_of_other_extent_are_refused(void **state)
{
    (void)state;
    const synthetic_options options = {.rounds = 1, .steps = 4, .has_energy = true};
    synthetic_report a = synthetic_report_make(&options), b = synthetic_report_make(&options);
    attn_store_result *both[] = {a.result, b.result};
    for (size_t r = 0; r < 2; r++)
        for (size_t t = 0; t < both[r]->n_trials; t++)
            for (size_t f = 0; f < both[r]->trials[t].n_figures; f++) {
                attn_figure *figure = &both[r]->trials[t].figures[f];
                if (strcmp(figure->name, "energy_step_j") != 0) continue;
                figure->provenance = ATTN_DERIVED;
                strcpy(figure->source, r == 0 ? "energy_cpu_package_j / steps timed"
                                              : "energy_system_j / steps timed");
            }
    for (size_t other = 0; other < 2; other++) {
        attn_error error = {0};
        attn_overlay *overlay = NULL;
        const attn_store_result *pair[] = {a.result, both[other]};
        const attn_status status = attn_overlay_make(pair, 2, false, &overlay, &error);
        assert_int_equal(status, other ? ATTN_EUNSUPPORTED : ATTN_OK);
        if (other) assert_non_null(strstr(error.text, "energy_system_j / steps timed"));
        attn_overlay_free(overlay);
    }
    synthetic_report_free(&a);
    synthetic_report_free(&b);
}

/* The detail of a finding; its subject must not be `never`. */
static const attn_finding *finding(const attn_summary *summary, const char *label,
                                   const char *never)
{
    static attn_finding all[ATTN_FINDINGS_MAX];
    const size_t n = attn_findings_make(summary, all);
    for (size_t i = 0; i < n; i++) {
        assert_string_not_equal(all[i].subject, never);
        if (strcmp(all[i].label, label) == 0) return &all[i];
    }
    fail_msg("no finding '%s'", label);
    return NULL;
}

/* The A/A twin of a later run is its twin here too: no competitor, and its noise counts. */
static void twins_of_every_run_are_twins(void **state)
{
    (void)state;
    const synthetic_options options = {.rounds = 6, .steps = 4};
    synthetic_report a = synthetic_report_make(&options), b = synthetic_report_make(&options);
    for (size_t t = 0; t < b.result->n_trials; t++) { /* sdpa takes the part of the twin */
        attn_store_trial *trial = &b.result->trials[t];
        if (strcmp(trial->mechanism, "sdpa") != 0) continue;
        strcpy(trial->mechanism, "softmax (A/A)");
        for (size_t f = 0; f < trial->n_figures; f++) /* and would be the best of all */
            if (strcmp(trial->figures[f].name, "step_time_s") == 0) trial->figures[f].value *= 0.5;
    }
    attn_free(b.result->run.plan_json);
    b.result->run.plan_json =
        attn_strdup("{\"mechanisms\": [\"softmax\"], \"rounds\": 6, \"measuring\": "
                    "{\"again\": \"softmax (A/A)\"}}");
    attn_error error = {0};
    attn_overlay *overlay = overlay_of(&a, &b, true);
    const attn_summary *s = overlay->summary;
    size_t twin = s->n_mechanisms;
    for (size_t i = 0; i < s->n_mechanisms; i++) {
        const bool is_twin = strcmp(s->mechanisms[i].name, "B softmax (A/A)") == 0;
        assert_int_equal(s->mechanisms[i].is_again, is_twin);
        if (is_twin) twin = i;
    }
    assert_true(twin < s->n_mechanisms && s->n_twins == 1);
    assert_string_equal(s->mechanisms[s->mechanisms[twin].original].name, "B softmax");
    assert_true(attn_summary_floor(s, "step_time_s") > 0.3); /* half the time is no noise to us */
    assert_false(attn_curves_is_on_front(s, twin, "train_time_s"));
    const char *detail = finding(s, "Noise floor", "B softmax (A/A)")->detail;
    assert_non_null(strstr(detail, "B softmax and B softmax (A/A) are one and the same"));
    attn_overlay_free(overlay);

    /* Both runs have one: the greater floor counts. */
    const attn_store_result *both[] = {b.result, b.result};
    assert_int_equal(attn_overlay_make(both, 2, true, &overlay, &error), ATTN_OK);
    assert_int_equal(overlay->summary->n_twins, 2);
    detail = finding(overlay->summary, "Noise floor", "A softmax (A/A)")->detail;
    assert_non_null(strstr(detail, "B softmax and B softmax (A/A) are each one and the same"));
    attn_overlay_free(overlay);
    synthetic_report_free(&a);
    synthetic_report_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_runs_side_by_side),
        cmocka_unit_test(what_differs_is_refused),
        cmocka_unit_test(other_mechanisms),
        cmocka_unit_test(memory_may_fail),
        cmocka_unit_test(twins_of_every_run_are_twins),
        cmocka_unit_test(energies_of_other_extent_are_refused),
    };
    return cmocka_run_group_tests_name("report overlay", tests, scratch_folder_make,
                                       scratch_folder_remove);
}
