/* Summaries: medians, spreads, ratios, what must never be put together, and orders. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "report/findings.h"
#include "report/ranking.h"
#include "report/summary.h"
#include "scratch_folder.h"
#include "synthetic_result.h"

enum { TRIALS_MOST = 64 };

/* A result built by hand: one figure per trial. */
typedef struct made {
    attn_store_trial trials[TRIALS_MOST];
    attn_figure figures[TRIALS_MOST];
    attn_store_result result;
    char plan[200];
} made;

static void made_begin(made *m, const char *plan)
{
    memset(m, 0, sizeof *m);
    snprintf(m->plan, sizeof m->plan, "%s", plan);
    m->result.run.plan_json = m->plan;
    m->result.trials = m->trials;
}

static void made_add(made *m, const char *mechanism, uint32_t round, attn_figure figure)
{
    const size_t i = m->result.n_trials++;
    m->figures[i] = figure;
    m->trials[i] = (attn_store_trial){
        .round = round, .state = ATTN_TRIAL_DONE, .figures = &m->figures[i], .n_figures = 1};
    snprintf(m->trials[i].mechanism, sizeof m->trials[i].mechanism, "%s", mechanism);
}

static const char *const precisions[] = {
    "Between the projections, gla multiplies in float32, the others in bfloat16: what differs "
    "between the two groups may be due to the type.",
    "Between the projections, linear, gla multiply in float32, the other in bfloat16: what differs "
    "between the two groups may be due to the type."};

static attn_figure seconds(double value)
{
    return attn_figure_make("step_time_s", "s", value, ATTN_MEASURED, "clock");
}

static attn_summary *summarise(const made *m)
{
    attn_error error = {0};
    attn_summary *summary = NULL;
    assert_int_equal(attn_summary_make(&m->result, &summary, &error), ATTN_OK);
    return summary;
}

static void few_rounds_have_a_range(void **state)
{
    (void)state;
    made m;
    made_begin(&m, "{}");
    const double values[] = {3, 1, 2};
    for (uint32_t r = 0; r < 3; r++) made_add(&m, "a", r + 1, seconds(values[r]));
    made_add(&m, "b", 1, seconds(7));
    attn_summary *s = summarise(&m);
    const attn_summary_figure *f = attn_summary_find(&s->mechanisms[0], "step_time_s");
    assert_int_equal(f->n, 3);
    assert_true(f->median == 2 && f->minimum == 1 && f->maximum == 3);
    assert_int_equal(f->spread, ATTN_SPREAD_RANGE);
    assert_true(f->low == 1 && f->high == 3);
    f = attn_summary_find(&s->mechanisms[1], "step_time_s");
    assert_int_equal(f->spread, ATTN_SPREAD_NONE);
    assert_true(f->median == 7 && isnan(f->low) && isnan(f->high));
    assert_string_equal(attn_spread_label(f).text, "1 round");
    assert_true(isnan(attn_summary_value(&s->mechanisms[0], "unheard_of")));
    assert_int_equal(s->n_rounds, 3);
    attn_summary_free(s);
    attn_summary_free(NULL);
}

/* Ranks of the exact sign test, as in tables of the binomial distribution. */
static void six_rounds_have_an_interval(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, rank;
    } cases[] = {{5, 0}, {6, 1}, {7, 1}, {8, 1}, {9, 2}, {10, 2}, {12, 3}, {20, 6}, {30, 10}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        made m;
        made_begin(&m, "{}");
        for (uint32_t r = 1; r <= cases[c].n; r++) /* 7 is prime to every n here: a shuffle */
            made_add(&m, "a", r, seconds(1 + (r * 7) % cases[c].n));
        attn_summary *s = summarise(&m);
        const attn_summary_figure *f = attn_summary_find(&s->mechanisms[0], "step_time_s");
        if (cases[c].n == 7) { /* all the same there */
            assert_true(f->low == f->high);
        } else if (cases[c].rank == 0) {
            assert_int_equal(f->spread, ATTN_SPREAD_RANGE);
        } else {
            assert_int_equal(f->spread, ATTN_SPREAD_CONFIDENCE);
            assert_true(f->low == cases[c].rank);
            assert_true(f->high == cases[c].n + 1 - cases[c].rank);
        }
        attn_summary_free(s);
    }
}

static void provenances_are_never_mixed(void **state)
{
    (void)state;
    made m;
    made_begin(&m, "{}");
    made_add(&m, "a", 1, seconds(1));
    made_add(&m, "a", 2, attn_figure_make("step_time_s", "s", 2, ATTN_MODELLED, "guess"));
    made_add(&m, "b", 1, seconds(1));
    made_add(&m, "b", 2, attn_figure_make("step_time_s", "ms", 1000, ATTN_MEASURED, "clock"));
    made_add(&m, "c", 1, seconds(1));
    made_add(&m, "c", 2, attn_figure_unavailable("step_time_s", "s", "clock", "it stopped"));
    made_add(&m, "d", 1, attn_figure_unavailable("step_time_s", "s", "clock", "no clock"));
    made_add(&m, "e", 1, seconds(1));
    made_add(&m, "e", 2, seconds(NAN));
    attn_summary *s = summarise(&m);
    for (size_t i = 0; i < 2; i++) {
        const attn_summary_figure *f = attn_summary_find(&s->mechanisms[i], "step_time_s");
        assert_true(f->is_mixed && isnan(f->median) && isnan(f->ratio));
        assert_non_null(strstr(f->why, "differ"));
    }
    const attn_summary_figure *f = attn_summary_find(&s->mechanisms[2], "step_time_s");
    assert_true(!f->is_mixed && f->n == 1 && f->median == 1);
    f = attn_summary_find(&s->mechanisms[3], "step_time_s");
    assert_int_equal(f->provenance, ATTN_UNAVAILABLE);
    assert_string_equal(f->why, "no clock");
    f = attn_summary_find(&s->mechanisms[4], "step_time_s");
    assert_true(f->n == 2 && isnan(f->median));
    assert_string_equal(f->why, "not a finite number in 1 of 2 rounds");
    attn_summary_free(s);
}

static void ratios_are_paired_by_round(void **state)
{
    (void)state;
    made m;
    made_begin(&m, "{\"mechanisms\": [{\"name\": \"base\"}, \"x\"], \"rounds\": 3}");
    /* x is faster by a fifth in each round, while the machine slows down. */
    for (uint32_t r = 1; r <= 3; r++) {
        made_add(&m, "x", r, seconds(0.8 * r));
        made_add(&m, "base", r, seconds(r));
    }
    attn_summary *s = summarise(&m);
    assert_string_equal(s->mechanisms[0].name, "base"); /* the plan decides, not the first trial */
    assert_int_equal(s->n_trials_planned, 6);
    const attn_summary_figure *f = attn_summary_find(&s->mechanisms[1], "step_time_s");
    assert_true(fabs(f->ratio - 0.8) < 1e-12 && fabs(f->ratio_low - 0.8) < 1e-12 &&
                fabs(f->ratio_high - 0.8) < 1e-12);
    assert_false(
        attn_summary_resolved(s, 1, 0, "step_time_s")); /* three rounds, and they overlap */
    attn_summary_free(s);
}

/* Spreads overlap by far, since the machine slows down; the pairs tell all the same. An A/A pair
 * that differs by more takes the claim back. */
static void pairs_tell_what_spreads_hide(void **state)
{
    (void)state;
    for (int has_again = 0; has_again < 2; has_again++) {
        made m;
        made_begin(&m, has_again
                           ? "{\"mechanisms\": [\"base\", \"x\", \"base (A/A)\"], \"rounds\": 9, "
                             "\"measuring\": {\"again\": \"base (A/A)\"}}"
                           : "{\"mechanisms\": [\"base\", \"x\"], \"rounds\": 9}");
        for (uint32_t r = 1; r <= 9; r++) {
            made_add(&m, "base", r, seconds(r));
            made_add(&m, "x", r, seconds((0.95 + 0.001 * r) * r));
            if (has_again) made_add(&m, "base (A/A)", r, seconds((r % 2 ? 1.08 : 0.93) * r));
        }
        attn_summary *s = summarise(&m);
        assert_int_equal(attn_summary_resolved(s, 1, 0, "step_time_s"), !has_again);
        assert_true(has_again ? fabs(attn_summary_floor(s, "step_time_s") - log(1.08)) < 1e-9
                              : isnan(attn_summary_floor(s, "step_time_s")));
        attn_finding findings[ATTN_FINDINGS_MAX];
        const size_t n = attn_findings_make(s, findings);
        bool says_floor = false;
        for (size_t i = 0; i < n; i++) {
            if (strcmp(findings[i].label, "Noise floor") == 0) {
                says_floor = true;
                assert_string_equal(findings[i].subject, "8.0 %");
                assert_non_null(strstr(findings[i].detail, "smaller differences are not resolved"));
            }
            if (strcmp(findings[i].label, "Fastest training step") != 0) continue;
            assert_string_equal(findings[i].subject, "x"); /* never the twin */
            assert_int_equal(strstr(findings[i].detail, "Not resolved against base") != NULL,
                             has_again);
        }
        assert_int_equal(says_floor, has_again);
        attn_summary_free(s);
    }
}

static void plans_of_any_form_are_survived(void **state)
{
    (void)state;
    static const char *const plans[] = {
        "",
        "not JSON",
        "[]",
        "{}",
        "{\"mechanisms\": 3}",
        "{\"mechanisms\": [1, null, \"never run\"], \"rounds\": -1}"};
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        made m;
        made_begin(&m, plans[i]);
        made_add(&m, "b", 1, seconds(1));
        made_add(&m, "a", 1, seconds(1));
        attn_summary *s = summarise(&m);
        assert_int_equal(s->n_mechanisms, 2);
        assert_string_equal(s->mechanisms[0].name, "b");
        assert_int_equal(s->n_trials_planned, 0);
        attn_summary_free(s);
    }
    made m;
    made_begin(&m, "{}");
    attn_summary *s = summarise(&m);
    attn_finding findings[ATTN_FINDINGS_MAX];
    assert_int_equal(s->n_mechanisms, 0);
    assert_int_equal(attn_findings_make(s, findings), 0);
    attn_summary_free(s);
}

static void orders_put_absent_values_last(void **state)
{
    (void)state;
    made m;
    made_begin(&m, "{}");
    made_add(&m, "none", 1, attn_figure_unavailable("step_time_s", "s", "clock", "no clock"));
    made_add(&m, "slow", 1, seconds(3));
    made_add(&m, "fast", 1, seconds(1));
    made_add(&m, "tie", 1, seconds(3));
    attn_summary *s = summarise(&m);
    size_t order[4];
    attn_summary_order(s, "step_time_s", true, order);
    const size_t rising[] = {2, 1, 3, 0}, falling[] = {1, 3, 2, 0};
    assert_memory_equal(order, rising, sizeof order);
    attn_summary_order(s, "step_time_s", false, order);
    assert_memory_equal(order, falling, sizeof order);
    attn_summary_free(s);
}

static void models_rank_nothing(void **state)
{
    (void)state;
    attn_error error = {0};
    size_t order[SYNTHETIC_MECHANISMS];
    synthetic_report r = synthetic_report_make(&(synthetic_options){0});
    assert_non_null(r.summary);
    assert_int_equal(attn_ranking_order(r.summary, "energy", order, &error), ATTN_EARGUMENT);
    assert_non_null(strstr(error.text, "no RAPL counters"));
    error = (attn_error){0};
    assert_int_equal(attn_ranking_order(r.summary, "beauty", order, &error), ATTN_EARGUMENT);
    assert_non_null(strstr(error.text, ATTN_RANKING_KEYS));
    error = (attn_error){0};
    assert_int_equal(attn_ranking_order(r.summary, "memory", order, &error), ATTN_OK);
    assert_int_equal(order[0], 3);
    synthetic_report_free(&r);

    made m;
    made_begin(&m, "{}");
    made_add(&m, "a", 1, attn_figure_make("energy_step_j", "J", 1, ATTN_MODELLED, "model"));
    made_add(&m, "b", 1, attn_figure_make("energy_step_j", "J", 2, ATTN_MODELLED, "model"));
    attn_summary *s = summarise(&m);
    assert_int_equal(attn_ranking_order(s, "energy", order, &error), ATTN_EARGUMENT);
    assert_non_null(strstr(error.text, "modelled"));
    attn_ranking_column columns[ATTN_RANKING_COLUMNS];
    attn_ranking_columns(s, columns);
    for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++)
        assert_false(attn_ranking_is_best(s, &columns[c], 0));
    attn_summary_free(s);

    made_begin(&m, "{}"); /* apart by far, by its own intervals: still the model's words */
    for (uint32_t i = 0; i < 2; i++) {
        attn_figure figure = attn_figure_make("energy_step_j", "J", 1 + 9 * i, ATTN_MODELLED, "");
        figure.has_interval = true;
        figure.low = figure.value - 0.5;
        figure.high = figure.value + 0.5;
        made_add(&m, i == 0 ? "a" : "b", 1, figure);
    }
    s = summarise(&m);
    assert_int_equal(attn_summary_find(&s->mechanisms[0], "energy_step_j")->spread,
                     ATTN_SPREAD_MODEL);
    assert_false(attn_summary_resolved(s, 0, 1, "energy_step_j"));
    attn_summary_free(s);

    made_begin(&m, "{}"); /* measured for the packages alone */
    made_add(&m, "a", 1, attn_figure_make("energy_cpu_package_j", "J", 2, ATTN_MEASURED, "rapl"));
    made_add(&m, "b", 1, attn_figure_make("energy_cpu_package_j", "J", 1, ATTN_MEASURED, "rapl"));
    s = summarise(&m);
    error = (attn_error){0};
    assert_int_equal(attn_ranking_order(s, "energy", order, &error), ATTN_OK);
    assert_int_equal(order[0], 1);
    attn_summary_free(s);
}

static void failures_keep_their_reason(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){0});
    const attn_summary_mechanism *gqa = &r.summary->mechanisms[3];
    assert_string_equal(gqa->name, "gqa");
    assert_int_equal(gqa->n_trials[ATTN_TRIAL_DONE], 2);
    assert_int_equal(gqa->n_trials[ATTN_TRIAL_CRASHED], 1);
    assert_int_equal(gqa->reason_round, 2);
    assert_non_null(strstr(gqa->reason, "signal 9"));
    assert_int_equal(attn_summary_find(gqa, "step_time_s")->n, 2);
    assert_int_equal(gqa->tokens, 512 * SYNTHETIC_STEPS);
    const attn_summary_figure *modelled = attn_summary_find(gqa, "energy_modelled_cpu_j");
    assert_int_equal(modelled->spread, ATTN_SPREAD_MODEL);
    assert_true(modelled->low < 0.5 * modelled->median && modelled->high > 1.5 * modelled->median);
    assert_true(isnan(modelled->ratio));
    synthetic_report_free(&r);
}

/* What the sentences claim: nothing from models, nothing from spreads that overlap. */
static void findings_claim_no_more_than_the_data(void **state)
{
    (void)state;
    attn_finding f[ATTN_FINDINGS_MAX];
    made m;
    made_begin(&m, "{}");
    for (uint32_t r = 1; r <= 3; r++) {
        made_add(&m, "base", r, seconds(1.00 + 0.01 * r));
        made_add(&m, "same", r, seconds(0.99 + 0.01 * r));
        made_add(&m, "slow", r, seconds(2.00 + 0.01 * r));
    }
    attn_summary *s = summarise(&m);
    size_t n = attn_findings_make(s, f);
    assert_int_equal(n, 2); /* step time and energy: nothing else was recorded */
    assert_string_equal(f[0].label, "Fastest training step");
    assert_string_equal(f[0].subject, "same");
    assert_string_equal(f[0].value.text, "1.01 s");
    assert_string_equal(f[0].detail, "1.00 to 1.02 s (range over 3 rounds). Not resolved against "
                                     "base: the spreads overlap.");
    assert_string_equal(f[1].subject, "not measured");
    attn_summary_free(s);

    made_begin(&m, "{}");
    made_add(&m, "a", 1, attn_figure_make("energy_step_j", "J", 1, ATTN_MODELLED, "model"));
    s = summarise(&m);
    n = attn_findings_make(s, f);
    assert_int_equal(n, 1);
    assert_string_equal(f[0].subject, "not measured");
    attn_summary_free(s);

    /* The meter that was asked for failed: its reason, not that of counters that are not there. */
    made_begin(&m, "{}");
    made_add(&m, "a", 1,
             attn_figure_unavailable("energy_cpu_package_j", "J", "rapl", "no counters here"));
    made_add(&m, "a", 2,
             attn_figure_unavailable("energy_system_j", "J", "wall.csv", "the log ends too early"));
    s = summarise(&m);
    n = attn_findings_make(s, f);
    assert_int_equal(n, 1);
    assert_string_equal(f[0].detail, "Reason: the log ends too early.");
    attn_summary_free(s);

    /* One type of cores is nothing to tell of, two are. */
    for (uint32_t wide = 0; wide < 3; wide++) {
        static const char *const names[] = {"flash", "linear", "gla"};
        made_begin(&m, "{}");
        for (uint32_t i = 0; i < 3; i++)
            made_add(&m, names[i], 1,
                     attn_figure_make("core_factor_bits", "bit", i < 3 - wide ? 16 : 32,
                                      ATTN_COUNTED, "types"));
        s = summarise(&m);
        n = attn_findings_make(s, f);
        assert_int_equal(n, wide > 0 ? 2 : 1); /* beside energy, which was not measured */
        if (wide > 0) {
            assert_string_equal(f[1].label, "Precision");
            assert_string_equal(f[1].detail, wide == 1 ? precisions[0] : precisions[1]);
        }
        attn_summary_free(s);
    }

    /* Unequal numbers of tokens: losses must not be compared. */
    made_begin(&m, "{}");
    attn_store_step steps[2] = {{.tokens = 10}, {.tokens = 10}};
    for (uint32_t i = 0; i < 2; i++) {
        made_add(&m, i ? "more" : "less", 1,
                 attn_figure_make("held_out_loss", "nat", 3 - i, ATTN_MEASURED, "loss"));
        m.trials[i].steps = steps;
        m.trials[i].n_steps = 1 + i;
    }
    s = summarise(&m);
    attn_findings_make(s, f);
    assert_string_equal(f[0].subject, "more");
    assert_true(f[0].is_caution);
    assert_non_null(strstr(f[0].detail, "different numbers of tokens"));
    attn_summary_free(s);

    /* Counts are exact: equal ones are the same, a difference of one is a difference. */
    made_begin(&m, "{}");
    const double counts[] = {1001, 1000, 1000};
    static const char *const names[] = {"x", "y", "z"};
    for (size_t i = 0; i < 3; i++)
        for (uint32_t r = 1; r <= 2; r++)
            made_add(&m, names[i], r,
                     attn_figure_make("memory_peak_bytes", "byte", counts[i], ATTN_COUNTED, ""));
    s = summarise(&m);
    attn_findings_make(s, f);
    assert_string_equal(f[0].subject, "y");
    assert_string_equal(f[0].detail, "Counted, the same in every round. 0.10 % less than x. "
                                     "The same for z.");
    attn_ranking_column columns[ATTN_RANKING_COLUMNS];
    attn_ranking_columns(s, columns);
    for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++) {
        if (strcmp(columns[c].figure, "memory_peak_bytes") != 0) continue;
        assert_false(attn_ranking_is_best(s, &columns[c], 0));
        assert_true(attn_ranking_is_best(s, &columns[c], 1));
        assert_true(attn_ranking_is_best(s, &columns[c], 2));
    }
    attn_summary_free(s);
}

/* Those that see the future come last whatever is sorted by, and win nothing. */
static void the_future_wins_nothing(void **state)
{
    (void)state;
    made m;
    made_begin(&m, "{\"mechanisms\": [\"leaks\", \"slow\", \"fast\"]}");
    made_add(&m, "leaks", 1, seconds(1));
    made_add(&m, "slow", 1, seconds(3));
    made_add(&m, "fast", 1, seconds(2));
    /* a trial that failed before it was timed is marked all the same */
    made_add(&m, "leaks", 2,
             attn_figure_make(ATTN_FIGURE_SEES_FUTURE, "block", 4, ATTN_COUNTED, "x"));
    m.trials[3].state = ATTN_TRIAL_FAILED;
    attn_summary *s = summarise(&m);
    attn_error error = {0};
    size_t order[3];
    assert_int_equal(attn_ranking_order(s, "time", order, &error), ATTN_OK);
    assert_string_equal(s->mechanisms[order[0]].name, "fast");
    assert_string_equal(s->mechanisms[order[1]].name, "slow");
    assert_true(s->mechanisms[order[2]].sees_future);

    attn_ranking_column columns[ATTN_RANKING_COLUMNS];
    attn_ranking_columns(s, columns);
    size_t n_best = 0;
    for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++) {
        assert_false(attn_ranking_is_best(s, &columns[c], order[2]));
        n_best += attn_ranking_is_best(s, &columns[c], order[0]);
    }
    assert_int_equal(n_best, 1);

    attn_finding f[ATTN_FINDINGS_MAX];
    const size_t n = attn_findings_make(s, f);
    assert_string_equal(f[0].subject, "fast");
    assert_string_equal(f[n - 2].label, "Out of competition");
    assert_string_equal(f[n - 2].subject, "1 mechanism sees the future");
    assert_string_equal(f[n - 2].detail,
                        "leaks: a token sees later ones, which it is to predict, so "
                        "that the loss is not that of a language model.");
    attn_summary_free(s);

    /* Among themselves they keep an order. */
    made_begin(&m, "{}");
    static const char *const names[] = {"c", "a", "b"};
    for (uint32_t i = 0; i < 3; i++) {
        made_add(&m, names[i], 1, seconds(3 - i));
        made_add(&m, names[i], 2,
                 attn_figure_make(ATTN_FIGURE_SEES_FUTURE, "block", 1, ATTN_COUNTED, "x"));
    }
    s = summarise(&m);
    assert_int_equal(attn_ranking_order(s, "time", order, &error), ATTN_OK);
    for (size_t i = 0; i < 3; i++) assert_string_equal(s->mechanisms[order[i]].name, names[2 - i]);
    attn_summary_free(s);
}

static void allocations_may_fail(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){.rounds = 1});
    const size_t live = attn_memory_live_blocks();
    attn_status status = ATTN_EMEMORY;
    size_t n = 1;
    for (; status != ATTN_OK; n++) {
        attn_error error = {0};
        attn_summary *summary = NULL;
        attn_memory_fail_at(n);
        status = attn_summary_make(r.result, &summary, &error);
        attn_memory_fail_at(0);
        attn_summary_free(summary);
        assert_int_equal(attn_memory_live_blocks(), live);
        assert_true(status == ATTN_OK || status == ATTN_EMEMORY);
    }
    assert_true(n > 5);
    synthetic_report_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_rounds_have_a_range),
        cmocka_unit_test(six_rounds_have_an_interval),
        cmocka_unit_test(provenances_are_never_mixed),
        cmocka_unit_test(ratios_are_paired_by_round),
        cmocka_unit_test(pairs_tell_what_spreads_hide),
        cmocka_unit_test(plans_of_any_form_are_survived),
        cmocka_unit_test(orders_put_absent_values_last),
        cmocka_unit_test(models_rank_nothing),
        cmocka_unit_test(failures_keep_their_reason),
        cmocka_unit_test(findings_claim_no_more_than_the_data),
        cmocka_unit_test(the_future_wins_nothing),
        cmocka_unit_test(allocations_may_fail),
    };
    return cmocka_run_group_tests_name("report summary", tests, scratch_folder_make,
                                       scratch_folder_remove);
}
