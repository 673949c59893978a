/* Whole trials beside a graphics board that draws a known power all the time: every energy of the
 * store follows from its time. The board is a library that behaves as NVML does, on this machine's
 * clock, and quicker than real ones. */
#include "experiment_fixture.h"

#include "../fake/fake_nvml.h"
#include "base/clock.h"

#include <dlfcn.h>
#include <math.h>

#define POWER_W 100.0

static fake_nvml_state *nvml;

static int set_up(void **state)
{
    setenv("ATTNSCOPE_NVML", FAKE_NVML, 1);
    void *library = dlopen(FAKE_NVML, RTLD_NOW); /* the workers', too: they are forks */
    nvml = library ? dlsym(library, "fake_nvml") : NULL;
    return nvml ? load_dataset(state) : -1;
}

static void set_board(uint64_t step_ns)
{
    *nvml = (fake_nvml_state){.n_boards = 1, .now_ns = attn_clock_ns};
    nvml->boards[0] = (fake_board){.address = "00000000:65:00.0",
                                   .name = "NVIDIA A100",
                                   .power_w = POWER_W,
                                   .counter_gain = 1.0,
                                   .step_ns = step_ns,
                                   .limit_mw = 400000,
                                   .default_limit_mw = 400000};
}

static attn_plan metered_plan(void)
{
    attn_plan plan = tiny_plan("flash");
    plan.isa = "ref"; /* slowly */
    plan.batch = 2;
    plan.sizes.d_model = 32;
    plan.steps = 5;
    plan.evaluate_every = 4;
    plan.timing_warmup = 2;
    plan.measuring.gpus = "all";
    return plan;
}

static attn_store_result *run_trial(const attn_plan *plan)
{
    attn_error error = {0};
    attn_store *store = open_store(scratch_path("metered.db"));
    assert_ok(run_plan(plan, store, false, NULL, NULL, &error));
    attn_store_result *result = load_newest(store);
    attn_store_close(store);
    assert_int_equal(result->trials[0].state, ATTN_TRIAL_DONE);
    return result;
}

static const attn_figure *need(const attn_store_trial *trial, const char *name)
{
    const attn_figure *figure = find_figure(trial, name);
    if (!figure) fail_msg("there is no %s", name);
    return figure;
}

/* Within `share` of the energy that the board drew in so many seconds, and what it drew in
 * `pause_s`, for which a busy machine may let us wait between two clocks. */
static void assert_energy(const attn_store_trial *trial, const char *name, double time_s,
                          double share, double pause_s)
{
    const attn_figure *figure = need(trial, name);
    if (!(fabs(figure->value - POWER_W * time_s) < POWER_W * (share * time_s + pause_s)))
        fail_msg("%s: %g J in %g s (%s)", name, figure->value, time_s, figure->why);
}

static void energies_follow_from_times(void **state)
{
    (void)state;
    attn_plan plan = metered_plan();
    plan.measuring.idle_s = 0.5;
    set_board(200000);
    attn_store_result *result = run_trial(&plan);
    const attn_store_trial *t = &result->trials[0];
    const double train_s = need(t, "train_time_s")->value;
    assert_int_equal(need(t, "energy_gpu_board_j")->provenance, ATTN_MEASURED);
    assert_energy(t, "energy_gpu_board_j", train_s, 0.003, 0.02);
    assert_energy(t, "energy_components_j", train_s, 0.003, 0.02);
    assert_energy(t, "energy_step_j", train_s / 3.0, 0.003, 0.02);
    assert_energy(t, "power_idle_before_w", 1.0, 0.01, 0.04);
    assert_energy(t, "power_idle_after_w", 1.0, 0.01, 0.04);
    /* At rest it draws as much: nothing is dynamic. */
    const attn_figure *dynamic = need(t, "energy_dynamic_j");
    assert_true(fabs(dynamic->value) < POWER_W * (0.02 * train_s + 0.05));
    /* When it was at work: before, between and behind the two rests; timed as train_time_s is. */
    double timed_s = 0.0;
    size_t n_work = 0;
    for (size_t i = 0; i < t->n_spans; i++) {
        assert_true(t->spans[i].begin_s > 1.6e9 && t->spans[i].end_s >= t->spans[i].begin_s);
        if (t->spans[i].is_timed) timed_s += t->spans[i].end_s - t->spans[i].begin_s;
        n_work += !t->spans[i].is_timed;
    }
    assert_int_equal(n_work, 3);
    assert_true(fabs(timed_s - train_s) < 0.01 * train_s + 0.05);
    double evaluation_s = 0.0;
    for (size_t i = 1; i < t->n_evaluations; i++) evaluation_s += t->evaluations[i].time_s;
    assert_int_equal(need(t, "energy_evaluation_j")->provenance, ATTN_MEASURED);
    assert_energy(t, "energy_evaluation_j", evaluation_s, 0.05, 0.3);
    attn_store_result_free(result);
}

/* A board that was cool and free before training, and is hot and slowed when it ends. */
static void boards_are_looked_at_before_and_after(void **state)
{
    (void)state;
    attn_plan plan = metered_plan();
    set_board(200000);
    nvml->boards[0].temperature_c = 41;
    nvml->boards[0].heating_c = 44;
    nvml->boards[0].clock_mhz = 1410;
    nvml->boards[0].reasons_later = 0x40;
    attn_store_result *result = run_trial(&plan);
    const attn_store_trial *t = &result->trials[0];
    assert_true(need(t, "gpu_temperature_before_c")->value == 41.0);
    assert_true(need(t, "gpu_temperature_after_c")->value == 85.0);
    assert_true(need(t, "gpu_clock_before_mhz")->value == 1410.0);
    assert_true(need(t, "gpu_clock_after_mhz")->value == 1410.0);
    assert_true(need(t, "gpu_slowdowns_before")->value == 0.0);
    assert_true(need(t, "gpu_slowdowns_after")->value == 1.0);
    assert_string_equal(need(t, "gpu_slowdowns_after")->why, "00000000:65:00.0: hardware thermal");
    attn_store_result_free(result);
    plan.measuring.gpus = "none"; /* nobody asks for boards */
    result = run_trial(&plan);
    assert_null(find_figure(&result->trials[0], "gpu_temperature_after_c"));
    attn_store_result_free(result);
}

/* The step's parts: in windows of their own, or attributed by time where counters are slow. */
static void parts_of_a_step_add_up(void **state)
{
    (void)state;
    attn_plan plan = metered_plan();
    plan.evaluate_every = 0;
    for (int is_slow = 0; is_slow < 2; is_slow++) {
        bool has_windows = false;
        /* A machine that is busy beyond measure may interrupt all readings. */
        for (int tries = 0; tries < 5 && !has_windows; tries++) {
            set_board(is_slow ? 30000000 : 10000);
            attn_store_result *result = run_trial(&plan);
            const attn_store_trial *t = &result->trials[0];
            const double train_s = need(t, "train_time_s")->value;
            double sum_j = 0.0, times_s[4] = {0};
            for (size_t i = 2; i < 5; i++) {
                times_s[0] += t->steps[i].data_s;
                times_s[1] += t->steps[i].forward_s;
                times_s[2] += t->steps[i].backward_s;
                times_s[3] += t->steps[i].optimizer_s;
            }
            static const char *const names[] = {"energy_data_j", "energy_forward_j",
                                                "energy_backward_j", "energy_optimizer_j"};
            for (size_t p = 0; p < 4; p++) sum_j += need(t, names[p])->value;
            assert_true(fabs(sum_j / (POWER_W * train_s) - 1.0) < 0.05);
            /* The power is always the same, so that each part's energy follows from its time;
             * between the parts lies what no profile sees. */
            for (size_t p = 1; p < 4; p++) assert_energy(t, names[p], times_s[p], 0.2, 0.05);
            has_windows = strstr(need(t, names[3])->source, "in 3 windows of its own") != NULL &&
                          strstr(need(t, names[1])->source, "in 3 windows of its own") != NULL;
            if (is_slow) { /* parts of fewer than ten updates */
                if (times_s[3] < 3 * 0.2)
                    assert_non_null(strstr(need(t, names[3])->source, "attributed: "));
                if (times_s[1] + times_s[2] < 3 * 0.2)
                    assert_non_null(strstr(need(t, names[1])->source, "attributed: "));
            } else if (has_windows) {
                assert_int_equal(need(t, names[3])->provenance, ATTN_MEASURED);
                assert_non_null(strstr(need(t, names[2])->source, "of the forward windows"));
            }
            attn_store_result_free(result);
            if (is_slow) break;
        }
        if (!is_slow) assert_true(has_windows);
    }
}

/* Long questions and short answers, one behind the other: most pieces of a row hold no target, and
 * each step looks through hundreds of them for the next one that does. */
static attn_dataset *make_slow_data(void)
{
    attn_error error = {0};
    attn_dataset *data = NULL;
    attn_tokenizer *tokenizer = NULL;
    const char *path = scratch_path("long.jsonl");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int row = 0; row < 8; row++) {
        fputs("{\"messages\": [{\"role\": \"user\", \"content\": \"", file);
        for (int i = 0; i < 20000; i++) fputs("and so ", file);
        fputs("on?\"}, {\"role\": \"assistant\", \"content\": \"Yes.\"}]}\n", file);
    }
    assert_int_equal(fclose(file), 0);
    assert_ok(attn_tokenizer_load(&tokenizer, SOURCE_DIR "/data/gpt2/vocab.bpe", &error));
    assert_ok(attn_dataset_load(&data, path, tokenizer, &error));
    attn_tokenizer_free(tokenizer);
    return data;
}

static void data_has_windows_of_its_own(void **state)
{
    (void)state;
    attn_plan plan = metered_plan();
    plan.batch = 1;
    plan.is_packed = plan.is_loss_on_answers = true;
    plan.held_out = 0.0;
    plan.evaluate_every = 0;
    attn_dataset *usual = dataset, *slow = make_slow_data();
    dataset = slow;
    bool has_windows = false;
    for (int tries = 0; tries < 5 && !has_windows; tries++) {
        set_board(1000);
        nvml->boards[0].power_w = 5000.0; /* so that a microsecond shows */
        attn_store_result *result = run_trial(&plan);
        const attn_store_trial *t = &result->trials[0];
        const attn_figure *energy = need(t, "energy_data_j");
        double data_s = 0.0;
        for (size_t i = 2; i < 5; i++) data_s += t->steps[i].data_s;
        has_windows = strstr(energy->source, "in 3 windows of its own") != NULL &&
                      fabs(energy->value / (5000.0 * data_s) - 1.0) < 0.2;
        if (!has_windows)
            print_message("%g J in %g s, %s\n", energy->value, data_s, energy->source);
        attn_store_result_free(result);
    }
    dataset = usual;
    attn_dataset_free(slow);
    assert_true(has_windows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(energies_follow_from_times),
        cmocka_unit_test(boards_are_looked_at_before_and_after),
        cmocka_unit_test(parts_of_a_step_add_up),
        cmocka_unit_test(data_has_windows_of_its_own),
    };
    return cmocka_run_group_tests(tests, set_up, free_dataset);
}
