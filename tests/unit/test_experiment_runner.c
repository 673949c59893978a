/* Whole runs of a tiny model: what the store holds afterwards, whatever happened in between. */
#include "experiment_fixture.h"

#include "base/clock.h"
#include "store/sql.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* ---- what a run leaves -------------------------------------------------------------------- */

static void assert_figure_is_whole(const attn_figure *f)
{
    if (f->name[0] == '\0' || f->source[0] == '\0' || f->provenance >= ATTN_PROVENANCES ||
        isnan(f->value) != (f->provenance == ATTN_UNAVAILABLE) ||
        (f->provenance == ATTN_UNAVAILABLE && f->why[0] == '\0') ||
        (f->has_interval && !(f->low <= f->value && f->value <= f->high)))
        fail_msg("figure %s: %g %s (%s) from '%s', why '%s'", f->name, f->value, f->unit,
                 attn_provenance_name(f->provenance), f->source, f->why);
}

static double value_of(const attn_store_trial *trial, const char *name)
{
    const attn_figure *figure = find_figure(trial, name);
    if (!figure) fail_msg("%s has no %s", trial->mechanism, name);
    return figure->value;
}

static void assert_trial_is_complete(const attn_plan *plan, const attn_store_trial *t)
{
    assert_int_equal(t->state, ATTN_TRIAL_DONE);
    assert_string_equal(t->reason, "");
    assert_true(t->started_utc[0] && t->ended_utc[0]);
    assert_int_equal(t->n_steps, plan->steps);
    for (size_t i = 0; i < t->n_steps; i++) {
        const attn_store_step *step = &t->steps[i];
        assert_int_equal(step->step, i + 1);
        assert_true(step->loss > 5.0 && step->loss < 15.0);
        assert_true(step->gradient_norm > 0.0 && step->learning_rate == plan->learning_rate);
        assert_int_equal(step->tokens, plan->batch * plan->length);
        assert_true(step->target_tokens > 0 && step->target_tokens < step->tokens);
        assert_true(step->forward_s > 0.0 && step->backward_s > 0.0 && step->optimizer_s > 0.0);
        assert_true(step->matmul_flop > 0 && step->exponential_op > 0 && step->other_op > 0);
    }
    for (size_t i = 0; i < t->n_figures; i++) assert_figure_is_whole(&t->figures[i]);
    assert_true(value_of(t, "work_equals_closed_form") == 1.0);
    assert_true(value_of(t, "step_matmul_flop") == (double)t->steps[t->n_steps - 1].matmul_flop);
    assert_true(value_of(t, "train_loss_first") == t->steps[0].loss);
    assert_true(value_of(t, "latency_forward_s") > 0.0);
    assert_true(value_of(t, "cache_bytes") > 0.0);
    assert_true(value_of(t, "memory_gradients_bytes") >= 4.0 * value_of(t, "parameters"));
    assert_true(value_of(t, "memory_optimizer_bytes") >= 8.0 * value_of(t, "parameters"));

    /* The steps' own times fit into the window around the timed ones. */
    double steps_s = 0.0;
    for (size_t i = plan->timing_warmup; i < t->n_steps; i++)
        steps_s += t->steps[i].data_s + t->steps[i].forward_s + t->steps[i].backward_s +
                   t->steps[i].optimizer_s;
    assert_true(value_of(t, "train_time_s") >= steps_s);
}

static void everything_is_recorded(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = tiny_plan("flash,linear,sliding:window=4");
    plan.rounds = 3;
    attn_store *store = open_store(scratch_path("whole.db"));
    telling told = {0};
    assert_ok(run_plan(&plan, store, false, note, &told, &error));
    assert_int_equal(told.begins, 9);
    assert_int_equal(told.ends, 9);
    assert_int_equal(told.steps, 9 * plan.steps);
    assert_int_equal(told.last_trial, 9);
    assert_true(told.left_s == 0.0);

    attn_store_result *result = load_newest(store);
    assert_string_equal(result->run.state, "done");
    assert_int_equal(result->n_trials, 9);
    for (size_t i = 0; i < 9; i++) {
        const attn_store_trial *t = &result->trials[i];
        size_t order[ATTN_PLAN_MECHANISMS_MAX];
        attn_plan_order(&plan, i / 3, order);
        assert_int_equal(t->round, i / 3 + 1);
        assert_int_equal(t->position, i % 3 + 1);
        assert_string_equal(t->mechanism, plan.mechanisms[order[i % 3]].label);
        assert_trial_is_complete(&plan, t);
        /* before, after steps 2 and 4 */
        assert_int_equal(t->n_evaluations, 3);
        for (size_t e = 0; e < 3; e++) assert_int_equal(t->evaluations[e].step, 2 * e);
        assert_true(value_of(t, "held_out_loss") == t->evaluations[2].loss);
        assert_true(value_of(t, "held_out_loss_first") == t->evaluations[0].loss);
        /* within a round all train on the same data, each round on other data */
        const attn_store_trial *first = &result->trials[i / 3 * 3];
        for (size_t s = 0; s < t->n_steps; s++)
            assert_int_equal(t->steps[s].target_tokens, first->steps[s].target_tokens);
        for (size_t k = 0; k < i; k++)
            if (strcmp(t->mechanism, result->trials[k].mechanism) == 0)
                assert_true(t->steps[0].loss != result->trials[k].steps[0].loss);
    }
    attn_store_result_free(result);

    /* a run that is done is shown again, not done again */
    told = (telling){0};
    assert_ok(run_plan(&plan, store, true, note, &told, &error));
    assert_int_equal(told.begins, 0);
    attn_store_close(store);
}

/* Each field away from the fixture's value in a way that takes another path through a trial. */
static void other_plans_are_recorded_too(void **state)
{
    (void)state;
    for (int variant = 0; variant < 7; variant++) {
        attn_error error = {0};
        attn_plan plan = tiny_plan("sdpa");
        size_t evaluations = 3;
        switch (variant) {
        case 0:
            plan.held_out = 0.0;
            evaluations = 0;
            break;
        case 1:
            plan.evaluate_every = 3;
            break; /* 0, 3, 4 */
        case 2:
            plan.evaluate_every = 0;
            evaluations = 2;
            break;
        case 3:
            plan.is_packed = true;
            break;
        case 4:
            plan.is_loss_on_answers = true;
            plan.length = 48;
            break;
        case 5:
            plan.batch = 5;
            plan.clip = 1e9;
            break; /* held out: 2 rows of 24 */
        case 6:
            plan.decode_tokens = 0;
            plan.isa = "ref";
            plan.evaluate_every = 1;
            evaluations = 5;
            break;
        }
        attn_store *store = open_store(scratch_path("variants.db"));
        assert_ok(run_plan(&plan, store, false, NULL, NULL, &error));
        attn_store_result *result = load_newest(store);
        const attn_store_trial *t = &result->trials[0];
        assert_trial_is_complete(&plan, t);
        assert_int_equal(t->n_evaluations, evaluations);
        assert_int_equal(find_figure(t, "held_out_loss")->provenance,
                         variant == 0 ? ATTN_UNAVAILABLE : ATTN_DERIVED);
        assert_int_equal(find_figure(t, "latency_token_s")->provenance,
                         variant == 6 ? ATTN_UNAVAILABLE : ATTN_MEASURED);
        attn_store_result_free(result);
        attn_store_close(store);
    }
}

/* ---- trials that fail --------------------------------------------------------------------- */

/* One mechanism's allocation number `at` fails, in the worker. */
typedef struct shortage {
    size_t at, n_failed, n_done; /* failures so far; successes since the last of them */
} shortage;

static void make_memory_short(void *argument, const attn_run_progress *p)
{
    shortage *s = argument;
    const bool is_short = strcmp(p->label, "linear") == 0;
    if (p->step == 0 && is_short) attn_memory_fail_at(s->at);
    if (!p->is_ended) return;
    attn_memory_fail_at(0);
    if (!is_short || p->state == ATTN_TRIAL_DONE) {
        assert_int_equal(p->state, ATTN_TRIAL_DONE);
        s->n_done += is_short;
        return;
    }
    assert_int_equal(p->state, ATTN_TRIAL_FAILED);
    if (!strstr(p->reason, "memory")) fail_msg("allocation %zu: '%s'", s->at, p->reason);
    s->n_failed++;
    s->n_done = 0;
}

/* The dense library's memory is optional, so a trial can do without some allocations; one that
 * does without many in a row has no more of them. */
static void trials_without_memory_fail_alone(void **state)
{
    (void)state;
    shortage s = {.at = 0};
    while (s.n_done < 8) {
        s.at++;
        attn_error error = {0};
        attn_plan plan = tiny_plan(s.at == 1 ? "flash,linear,sdpa" : "linear");
        plan.steps = 2;
        attn_store *store = open_store(scratch_path("memory.db"));
        const size_t n_failed = s.n_failed;
        assert_ok(run_plan(&plan, store, false, make_memory_short, &s, &error));
        attn_store_result *result = load_newest(store);
        assert_string_equal(result->run.state, "done");
        assert_int_equal(result->n_trials, plan.n_mechanisms);
        for (size_t i = 0; i < result->n_trials; i++)
            assert_int_equal(result->trials[i].state == ATTN_TRIAL_FAILED,
                             s.n_failed > n_failed &&
                                 strcmp(result->trials[i].mechanism, "linear") == 0);
        attn_store_result_free(result);
        attn_store_close(store);
    }
    print_message("%zu of %zu allocations failed a trial\n", s.n_failed, s.at - s.n_done);
    assert_true(s.n_failed > 20);
}

/* The worker cannot be started: no descriptor is left for its pipe. */
static void leave_no_descriptor(void *argument, const attn_run_progress *p)
{
    struct rlimit *before = argument;
    if (p->step == 0 && strcmp(p->label, "linear") == 0) {
        const int next = dup(0);
        const struct rlimit none = {.rlim_cur = (rlim_t)next, .rlim_max = before->rlim_max};
        close(next);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    } else if (p->is_ended) {
        assert_int_equal(setrlimit(RLIMIT_NOFILE, before), 0);
    }
}

static void workers_that_cannot_start_are_rows(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = tiny_plan("flash,linear,sdpa");
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    attn_store *store = open_store(scratch_path("descriptors.db"));
    assert_ok(run_plan(&plan, store, false, leave_no_descriptor, &before, &error));
    attn_store_result *result = load_newest(store);
    for (size_t i = 0; i < 3; i++) {
        const attn_store_trial *t = &result->trials[i];
        if (strcmp(t->mechanism, "linear") == 0) {
            assert_int_equal(t->state, ATTN_TRIAL_FAILED);
            assert_string_equal(t->reason, "no pipe for a trial: Too many open files");
        } else {
            assert_int_equal(t->state, ATTN_TRIAL_DONE);
        }
    }
    attn_store_result_free(result);
    attn_store_close(store);
}

static void diverged_trials_fail(void **state)
{
    (void)state;
    static const double clips[] = {0.0, 1.0};
    for (size_t i = 0; i < 2; i++) {
        attn_error error = {0};
        attn_plan plan = tiny_plan("flash");
        plan.learning_rate = 1e30;
        plan.clip = clips[i];
        plan.steps = 8;
        plan.evaluate_every = i ? 0 : 1;
        attn_store *store = open_store(scratch_path("diverged.db"));
        assert_ok(run_plan(&plan, store, false, NULL, NULL, &error));
        attn_store_result *result = load_newest(store);
        const attn_store_trial *t = &result->trials[0];
        assert_int_equal(t->state, ATTN_TRIAL_FAILED);
        if (!strstr(t->reason, "loss is no longer finite at step") ||
            !strstr(t->reason, "lower --learning-rate"))
            fail_msg("'%s'", t->reason);
        assert_true(t->n_steps >= 1 && t->n_steps < plan.steps);
        for (size_t s = 0; s < t->n_steps; s++) assert_true(isfinite(t->steps[s].loss));
        for (size_t e = 0; e < t->n_evaluations; e++) assert_true(isfinite(t->evaluations[e].loss));
        attn_store_result_free(result);
        attn_store_close(store);
    }
}

/* A made-up data set of one row whose only target falls on the cut between two sequences. */
static void targets_that_are_cut_off_do_not_hang(void **state)
{
    (void)state;
    uint16_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t mask[8] = {0, 0, 0, 0, 1, 0, 0, 0};
    attn_dataset_row rows[2] = {{.first_token = 0}, {.first_token = 8}};
    const attn_dataset unlucky = {
        .ids = ids, .mask = mask, .n_tokens = 8, .rows = rows, .n_rows = 1, .sha256 = "0"};
    attn_error error = {0};
    attn_plan plan = tiny_plan("flash");
    plan.is_packed = plan.is_loss_on_answers = true;
    plan.length = 4;
    plan.held_out = 0.0;
    attn_dataset *usual = dataset;
    dataset = (attn_dataset *)&unlucky;
    attn_store *store = open_store(scratch_path("unlucky.db"));
    assert_ok(run_plan(&plan, store, false, NULL, NULL, &error));
    dataset = usual;
    attn_store_result *result = load_newest(store);
    assert_int_equal(result->trials[0].state, ATTN_TRIAL_FAILED);
    assert_non_null(strstr(result->trials[0].reason, "no target token is left in 2 batches"));
    attn_store_result_free(result);
    attn_store_close(store);
}

static void plans_that_cannot_work_are_refused(void **state)
{
    (void)state;
    static const struct {
        double held_out;
        size_t length;
        bool is_on_answers;
        const char *save, *text;
    } cases[] = {
        {0.99, 16, false, NULL, "no row is left for training"},
        {0.1, 4, true, NULL, "has a target within its first 4 tokens"},
        {0.1, 1, false, NULL, "at least 2 tokens"},
        {0.0, 16, false, "/nonexistent/models", "cannot save models in /nonexistent/models"},
        {0.0, 16, false, "/dev/null", "Not a directory"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_error error = {0};
        attn_plan plan = tiny_plan("flash");
        plan.held_out = cases[i].held_out;
        plan.length = cases[i].length;
        plan.is_loss_on_answers = cases[i].is_on_answers;
        plan.save = cases[i].save;
        assert_int_not_equal(attn_trial_check(&plan, dataset, &error), ATTN_OK);
        if (!strstr(error.text, cases[i].text)) fail_msg("%zu: %s", i, error.text);
    }
}

static void models_are_saved(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = tiny_plan("flash");
    plan.save = scratch_folder;
    attn_store *store = open_store(scratch_path("saved.db"));
    assert_ok(attn_trial_check(&plan, dataset, &error));
    assert_ok(run_plan(&plan, store, false, NULL, NULL, &error));
    attn_store_result *result = load_newest(store);
    const attn_figure *size = find_figure(&result->trials[0], "checkpoint_bytes");
    assert_int_equal(size->provenance, ATTN_MEASURED);
    assert_true(size->value > 4.0 * value_of(&result->trials[0], "parameters"));
    assert_int_equal(access(scratch_path("flash-round1.safetensors"), R_OK), 0);
    attn_store_result_free(result);
    attn_store_close(store);
}

/* ---- a store that fails ------------------------------------------------------------------- */

static void full_stores_end_the_run(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = tiny_plan("flash");
    plan.steps = 5000;
    attn_store *store = open_store(scratch_path("full.db"));
    assert_int_equal(sqlite3_exec(store->db, "PRAGMA max_page_count = 24", NULL, NULL, NULL), 0);
    assert_int_equal(run_plan(&plan, store, false, NULL, NULL, &error), ATTN_EIO);
    assert_non_null(strstr(error.text, "full.db"));
    assert_non_null(strstr(error.text, "free some space"));
    assert_null(strchr(error.text, '\n'));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no worker is left behind */
    assert_int_equal(errno, ECHILD);

    /* with room again the run goes on */
    assert_int_equal(sqlite3_exec(store->db, "PRAGMA max_page_count = 100000", NULL, NULL, NULL),
                     0);
    attn_store_result *result = load_newest(store);
    const size_t kept = result->trials[0].n_steps;
    assert_true(kept > 0 && kept < plan.steps);
    attn_store_result_free(result);
    attn_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(everything_is_recorded, ask_for_no_stop),
        cmocka_unit_test_setup(other_plans_are_recorded_too, ask_for_no_stop),
        cmocka_unit_test_setup(trials_without_memory_fail_alone, ask_for_no_stop),
        cmocka_unit_test_setup(workers_that_cannot_start_are_rows, ask_for_no_stop),
        cmocka_unit_test_setup(diverged_trials_fail, ask_for_no_stop),
        cmocka_unit_test_setup(targets_that_are_cut_off_do_not_hang, ask_for_no_stop),
        cmocka_unit_test_setup(plans_that_cannot_work_are_refused, ask_for_no_stop),
        cmocka_unit_test_setup(models_are_saved, ask_for_no_stop),
        cmocka_unit_test_setup(full_stores_end_the_run, ask_for_no_stop),
    };
    return cmocka_run_group_tests(tests, load_dataset, free_dataset);
}
