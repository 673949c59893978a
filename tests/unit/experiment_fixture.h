/* A model of 1.6 million parameters, a data set of made-up sentences and a store in the test's
 * folder, so that a whole trial takes a tenth of a second. */
#ifndef UNIT_EXPERIMENT_FIXTURE_H
#define UNIT_EXPERIMENT_FIXTURE_H

#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "base/memory.h"
#include "data/tokenizer.h"
#include "experiment/runner.h"
#include "experiment/trial.h"
#include "scratch_folder.h"

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != ATTN_OK) fail_msg("%s: %s", #call, error.text);                              \
    } while (0)

static attn_dataset *dataset;
static volatile sig_atomic_t stop;

static inline int load_dataset(void **state)
{
    if (scratch_folder_make(state) != 0) return -1;
    FILE *file = fopen(scratch_path("rows.jsonl"), "w");
    if (!file) return -1;
    for (int i = 2; i < 26; i++)
        fprintf(file,
                "{\"messages\": [{\"role\": \"user\", \"content\": \"What is %d and %d?\"}, "
                "{\"role\": \"assistant\", \"content\": \"%d and %d make %d, since %d is the "
                "number that comes %d after %d.\"}]}\n",
                i, i + 1, i, i + 1, 2 * i + 1, 2 * i + 1, i, i + 1);
    if (fclose(file) != 0) return -1;
    attn_error error = {0};
    attn_tokenizer *tokenizer = NULL;
    attn_status status = attn_tokenizer_load(&tokenizer, SOURCE_DIR "/data/gpt2/vocab.bpe", &error);
    if (status == ATTN_OK)
        status = attn_dataset_load(&dataset, scratch_path("rows.jsonl"), tokenizer, &error);
    attn_tokenizer_free(tokenizer);
    if (status != ATTN_OK) print_error("%s\n", error.text);
    return status == ATTN_OK ? 0 : -1;
}

static inline int free_dataset(void **state)
{
    attn_dataset_free(dataset);
    return scratch_folder_remove(state);
}

static inline attn_plan tiny_plan(const char *mechanisms)
{
    attn_plan plan = {.rounds = 1,
                      .model = "tiny",
                      .sizes = {.layers = 1,
                                .heads = 2,
                                .d_model = 16,
                                .positions = 64,
                                .vocabulary = ATTN_GPT2_TOKENS},
                      .batch = 1,
                      .length = 16,
                      .steps = 4,
                      .dtype = "f32",
                      .data = "rows.jsonl",
                      .held_out = 0.1,
                      .evaluate_every = 2,
                      .evaluate_batches = 1,
                      .learning_rate = 1e-3,
                      .weight_decay = 0.01,
                      .clip = 1.0,
                      .timing_warmup = 1,
                      .decode_tokens = 2,
                      .seed = 1,
                      .threads = 1};
    attn_error error = {0};
    assert_ok(attn_plan_set_mechanisms(&plan, mechanisms, &error));
    assert_ok(attn_plan_check(&plan, &error));
    assert_ok(attn_trial_check(&plan, dataset, &error));
    return plan;
}

static inline char *plan_text(const attn_plan *plan)
{
    attn_error error = {0};
    char *json = NULL;
    assert_ok(attn_plan_json(plan, dataset ? dataset->sha256 : "0", NULL, &json, &error));
    return json;
}

static inline attn_store *open_store(const char *path)
{
    attn_error error = {0};
    attn_store *store = NULL;
    assert_ok(attn_store_open(&store, path, ATTN_STORE_WRITE, &error));
    return store;
}

static const char *environment = "{}"; /* of the runs that follow */
static bool is_forced;                 /* they go on under another one too */

typedef void run_observer(void *argument, const attn_run_progress *progress);

/* Runs the plan in the store; the result's status. */
static inline attn_status run_plan(const attn_plan *plan, attn_store *store, bool resumes,
                                   run_observer *observe, void *argument, attn_error *error)
{
    char *json = plan_text(plan);
    int64_t run_id = 0;
    const attn_run_options options = {.plan = plan,
                                      .plan_json = json,
                                      .environment_json = environment,
                                      .title = "attnscope run",
                                      .dataset = dataset,
                                      .store = store,
                                      .resumes = resumes,
                                      .is_forced = is_forced,
                                      .observe = observe,
                                      .argument = argument,
                                      .stop = &stop};
    const attn_status status = attn_run(&options, &run_id, error);
    attn_free(json);
    return status;
}

static inline attn_store_result *load_newest(attn_store *store)
{
    attn_error error = {0};
    attn_store_result *result = NULL;
    int64_t run_id = 0;
    assert_ok(attn_store_newest_run(store, &run_id, &error));
    assert_ok(attn_store_load(store, run_id, &result, &error));
    return result;
}

static inline const attn_figure *find_figure(const attn_store_trial *trial, const char *name)
{
    for (size_t i = 0; i < trial->n_figures; i++)
        if (strcmp(trial->figures[i].name, name) == 0) return &trial->figures[i];
    return NULL;
}

/* Same trials, and in each bit-equal losses and the same counted work. */
static inline void assert_same_work(const attn_store_result *a, const attn_store_result *b)
{
    assert_int_equal(a->n_trials, b->n_trials);
    for (size_t i = 0; i < a->n_trials; i++) {
        const attn_store_trial *left = &a->trials[i], *right = &b->trials[i];
        assert_string_equal(left->mechanism, right->mechanism);
        assert_int_equal(left->round, right->round);
        assert_int_equal(left->position, right->position);
        assert_int_equal(left->state, ATTN_TRIAL_DONE);
        assert_int_equal(right->state, ATTN_TRIAL_DONE);
        assert_int_equal(left->n_steps, right->n_steps);
        assert_int_equal(left->n_evaluations, right->n_evaluations);
        assert_int_equal(left->n_figures, right->n_figures);
        for (size_t s = 0; s < left->n_steps; s++) {
            assert_memory_equal(&left->steps[s].loss, &right->steps[s].loss, sizeof(double));
            assert_int_equal(left->steps[s].matmul_flop, right->steps[s].matmul_flop);
            assert_int_equal(left->steps[s].exponential_op, right->steps[s].exponential_op);
            assert_int_equal(left->steps[s].other_op, right->steps[s].other_op);
        }
        for (size_t e = 0; e < left->n_evaluations; e++)
            assert_memory_equal(&left->evaluations[e].loss, &right->evaluations[e].loss,
                                sizeof(double));
    }
}

/* No stop is asked for. */
static inline int ask_for_no_stop(void **state)
{
    (void)state;
    stop = 0;
    return 0;
}

/* What a run has told of itself. */
typedef struct telling {
    size_t begins, steps, ends, last_trial;
    double left_s;
} telling;

static inline void note(void *argument, const attn_run_progress *p)
{
    telling *t = argument;
    assert_true(p->trial >= 1 && p->trial <= p->n_trials && p->round >= 1);
    assert_true(p->left_s >= 0.0 || isnan(p->left_s));
    t->begins += p->step == 0;
    t->steps += p->step > 0 && !p->is_ended;
    t->ends += p->is_ended;
    t->last_trial = p->trial;
    t->left_s = p->left_s;
}

#endif
