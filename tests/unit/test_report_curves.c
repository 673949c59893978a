/* Curves over rounds, computed by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "report/curves.h"

#include <math.h>
#include <string.h>

enum { STEPS = 5, ROUNDS = 3 };

/* Round r takes 1 + r seconds a step, 10 operations, and its loss is 10 - step + r / 10. */
typedef struct made_run {
    attn_store_step steps[ROUNDS][STEPS];
    attn_store_evaluation evaluations[ROUNDS][3];
    attn_figure energy[ROUNDS];
    attn_store_trial trials[ROUNDS + 1];
    char plan[3];
    attn_store_result result;
} made_run;

static void make_run(made_run *run)
{
    memset(run, 0, sizeof *run);
    strcpy(run->plan, "{}");
    for (size_t r = 0; r < ROUNDS; r++) {
        for (size_t s = 0; s < STEPS; s++)
            run->steps[r][s] = (attn_store_step){.step = s + 1,
                                                 .loss = 9.0 - (double)s + 0.1 * (double)r,
                                                 .data_s = 0.25,
                                                 .forward_s = 0.25 + (double)r,
                                                 .backward_s = 0.25,
                                                 .optimizer_s = 0.25,
                                                 .matmul_flop = 7,
                                                 .exponential_op = 2,
                                                 .other_op = 1};
        for (size_t e = 0; e < 3; e++)
            run->evaluations[r][e] =
                (attn_store_evaluation){.step = 2 * e, .loss = 8.0 - (double)e + 0.1 * (double)r};
        run->energy[r] = attn_figure_make("energy_step_j", "J", 5.0 + (double)r, ATTN_MEASURED, "");
        run->trials[r] = (attn_store_trial){.round = (uint32_t)r + 1,
                                            .position = 1,
                                            .mechanism = "m",
                                            .state = ATTN_TRIAL_DONE,
                                            .steps = run->steps[r],
                                            .n_steps = STEPS,
                                            .evaluations = run->evaluations[r],
                                            .n_evaluations = 3,
                                            .figures = &run->energy[r],
                                            .n_figures = 1};
    }
    run->trials[ROUNDS] = (attn_store_trial){
        .round = 1, .position = 2, .mechanism = "lost", .state = ATTN_TRIAL_CRASHED};
    run->result = (attn_store_result){
        .run = {.plan_json = run->plan}, .trials = run->trials, .n_trials = ROUNDS + 1};
}

static attn_curves curves_of(const made_run *run, size_t mechanism, size_t points_most)
{
    attn_error error = {0};
    attn_summary *summary = NULL;
    attn_curves curves;
    assert_int_equal(attn_summary_make(&run->result, &summary, &error), ATTN_OK);
    assert_int_equal(attn_curves_make(summary, mechanism, points_most, &curves, &error), ATTN_OK);
    attn_summary_free(summary);
    return curves;
}

static void assert_point(const attn_curve_point *p, double step, double time_s, double operations,
                         double energy_j, double loss)
{
    assert_true(p->step == step && p->operations == operations);
    assert_true(fabs(p->time_s - time_s) < 1e-12 && fabs(p->loss - loss) < 1e-12);
    assert_true(isnan(energy_j) ? isnan(p->energy_j) : fabs(p->energy_j - energy_j) < 1e-12);
}

static void medians_at_each_step(void **state)
{
    (void)state;
    made_run run;
    make_run(&run);
    attn_curves c = curves_of(&run, 0, 100);
    assert_int_equal(c.n_training, STEPS);
    for (size_t i = 0; i < STEPS; i++) { /* round 2 is the median of all */
        const double step = (double)(i + 1);
        assert_point(&c.training[i], step, 2 * step, 10 * step, 6 * step, 10.1 - step);
    }
    assert_int_equal(c.n_held_out, 3);
    assert_point(&c.held_out[0], 0, 0, 0, 0, 8.1);
    assert_point(&c.held_out[1], 2, 4, 20, 12, 7.1);
    assert_point(&c.held_out[2], 4, 8, 40, 24, 6.1);
    attn_curves_free(&c);

    c = curves_of(&run, 0, 2); /* thinned: the last step stays, sums are of all steps */
    assert_int_equal(c.n_training, 3);
    assert_point(&c.training[0], 1, 2, 10, 6, 9.1);
    assert_point(&c.training[1], 4, 8, 40, 24, 6.1);
    assert_point(&c.training[2], 5, 10, 50, 30, 5.1);
    attn_curves_free(&c);

    c = curves_of(&run, 1, 100); /* no trial done */
    assert_int_equal(c.n_training + c.n_held_out, 0);
    attn_curves_free(&c);
}

/* What one round lacks, none has. */
static void what_is_missing_is_not_made_up(void **state)
{
    (void)state;
    made_run run;
    make_run(&run);
    run.trials[1].n_steps = 4;
    run.steps[2][1].loss = NAN;
    run.evaluations[0][1].step = 3;
    run.energy[1] = attn_figure_unavailable("energy_step_j", "J", "", "no counter");
    attn_curves c = curves_of(&run, 0, 100);
    assert_int_equal(c.n_training, 4);
    assert_true(isnan(c.training[1].loss));
    assert_true(!isnan(c.training[2].loss));
    for (size_t i = 0; i < 4; i++) assert_true(isnan(c.training[i].energy_j));
    assert_int_equal(c.n_held_out, 2); /* steps 0 and 4 */
    assert_point(&c.held_out[1], 4, 8, 40, NAN, 6.1);
    attn_curves_free(&c);

    make_run(&run); /* a model is no measurement */
    for (size_t r = 0; r < ROUNDS; r++) run.energy[r].provenance = ATTN_MODELLED;
    c = curves_of(&run, 0, 100);
    assert_true(isnan(c.training[0].energy_j));
    attn_curves_free(&c);
}

static void memory_may_fail(void **state)
{
    (void)state;
    made_run run;
    make_run(&run);
    attn_error error = {0};
    attn_summary *summary = NULL;
    assert_int_equal(attn_summary_make(&run.result, &summary, &error), ATTN_OK);
    size_t n = 1;
    for (;; n++) {
        attn_curves c;
        error = (attn_error){0};
        attn_memory_fail_at(n);
        const attn_status status = attn_curves_make(summary, 0, 10, &c, &error);
        attn_memory_fail_at(0);
        if (status == ATTN_OK) {
            attn_curves_free(&c);
            break;
        }
        assert_int_equal(status, ATTN_EMEMORY);
        assert_null(c.training);
    }
    assert_int_equal(n, 5);
    attn_summary_free(summary);
}

/* Of equal ones both; not what is beaten, sees the future, is a twin, or has no loss. */
static void the_front_is_what_none_beats(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double time_s, loss;
        bool is_on_front;
    } cases[] = {{"fast", 1.0, 5.0, true},    {"as-fast", 1.0, 5.0, true},
                 {"slower", 1.1, 5.0, false}, {"worse", 1.0, 5.1, false},
                 {"between", 2.0, 4.0, true}, {"beaten", 2.5, 4.5, false},
                 {"slow", 3.0, 3.0, true},    {"slow (A/A)", 2.9, 3.0, false},
                 {"future", 0.5, 1.0, false}, {"unknown", 0.1, NAN, false}};
    enum { N = sizeof cases / sizeof *cases };
    attn_figure figures[N][3];
    attn_store_trial trials[N];
    char plan[] = "{\"mechanisms\": [\"slow\"], \"measuring\": {\"again\": \"slow (A/A)\"}}";
    for (size_t i = 0; i < N; i++) {
        figures[i][0] = attn_figure_make("train_time_s", "s", cases[i].time_s, ATTN_MEASURED, "");
        figures[i][1] =
            isnan(cases[i].loss)
                ? attn_figure_unavailable("held_out_loss", "nat", "", "none was held out")
                : attn_figure_make("held_out_loss", "nat", cases[i].loss, ATTN_DERIVED, "");
        figures[i][2] = attn_figure_make(ATTN_FIGURE_SEES_FUTURE, "block", 1.0, ATTN_COUNTED, "");
        trials[i] = (attn_store_trial){.round = 1,
                                       .position = (uint32_t)i + 1,
                                       .state = ATTN_TRIAL_DONE,
                                       .figures = figures[i],
                                       .n_figures = strcmp(cases[i].name, "future") == 0 ? 3 : 2};
        strcpy(trials[i].mechanism, cases[i].name);
    }
    const attn_store_result result = {.run = {.plan_json = plan}, .trials = trials, .n_trials = N};
    attn_error error = {0};
    attn_summary *summary = NULL;
    assert_int_equal(attn_summary_make(&result, &summary, &error), ATTN_OK);
    assert_int_equal(summary->n_mechanisms, N);
    for (size_t i = 0; i < N; i++)
        for (size_t m = 0; m < N; m++)
            if (strcmp(summary->mechanisms[m].name, cases[i].name) == 0 &&
                attn_curves_is_on_front(summary, m, "train_time_s") != cases[i].is_on_front)
                fail_msg("%s", cases[i].name);
    attn_summary_free(summary);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(medians_at_each_step),
        cmocka_unit_test(what_is_missing_is_not_made_up),
        cmocka_unit_test(memory_may_fail),
        cmocka_unit_test(the_front_is_what_none_beats),
    };
    return cmocka_run_group_tests_name("report curves", tests, NULL, NULL);
}
