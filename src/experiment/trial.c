/* One trial: build, train, evaluate, generate, and report every number as it becomes known. */
#define _DEFAULT_SOURCE
#include "experiment/trial.h"

#include "attn/context.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "data/batches.h"
#include "experiment/latency.h"
#include "experiment/measuring.h"
#include "experiment/record.h"
#include "experiment/trial_figures.h"
#include "meters/system_clock.h"
#include "model/checkpoint.h"
#include "model/training.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Everything a trial holds; freed in one place. */
typedef struct workshop {
    const attn_trial *trial;
    attn_figure_sink sink;
    attn_context *context;
    attn_model *model;
    attn_trainer *trainer;
    attn_batches *training, *held_out;
    attn_batch batch;
    attn_energy_meter *meter;
    attn_step_log log;
    double *scratch;    /* one number a step, for medians */
    size_t epoch_batch; /* next batch of the epoch */
    uint32_t epoch;
} workshop;

/* Alike for all mechanisms of a round; from round to round the losses show their spread. */
static uint64_t trial_seed(const attn_trial *trial)
{
    return trial->plan->seed + trial->round - 1;
}

static attn_status open_part(const attn_trial *trial, attn_batch_part part, attn_batches **out,
                             attn_error *error)
{
    const attn_plan *plan = trial->plan;
    const attn_batches_options options = {
        .n_sequences = plan->batch,
        .n_positions = plan->length,
        .seed = trial_seed(trial),
        .held_out_fraction = plan->held_out,
        .part = part,
        .loss = plan->is_loss_on_answers ? ATTN_LOSS_ANSWERS : ATTN_LOSS_ALL,
        .layout = plan->is_packed ? ATTN_LAYOUT_PACKED : ATTN_LAYOUT_PADDED};
    return attn_batches_create(out, trial->dataset, &options, error);
}

static attn_status open_batches(const attn_trial *trial, attn_batches **training,
                                attn_batches **held_out, attn_error *error)
{
    const attn_status status = open_part(trial, ATTN_PART_TRAINING, training, error);
    if (status != ATTN_OK || trial->plan->held_out <= 0.0) return status;
    return open_part(trial, ATTN_PART_HELD_OUT, held_out, error);
}

static attn_status check_folder(const char *path, attn_error *error)
{
    struct stat about;
    if (stat(path, &about) == 0 && !S_ISDIR(about.st_mode))
        errno = ENOTDIR;
    else if (access(path, W_OK | X_OK) == 0)
        return ATTN_OK;
    return attn_fail_errno(error, ATTN_EIO, errno, "cannot save models in %s", path);
}

attn_status attn_trial_check(const attn_plan *plan, const attn_dataset *dataset, attn_error *error)
{
    attn_status status = plan->save ? check_folder(plan->save, error) : ATTN_OK;
    for (size_t round = 1; round <= plan->rounds && status == ATTN_OK; round++) {
        const attn_trial trial = {.plan = plan, .round = round, .dataset = dataset};
        attn_batches *training = NULL, *held_out = NULL;
        status = open_batches(&trial, &training, &held_out, error);
        attn_batches_free(training);
        attn_batches_free(held_out);
    }
    return status;
}

static attn_status set_up(workshop *w, attn_error *error)
{
    const attn_plan *plan = w->trial->plan;
    const attn_model_config config = attn_plan_model(plan, w->trial->mechanism);
    attn_status status = attn_context_create(&w->context, plan->threads, plan->isa, error);
    if (status == ATTN_OK) status = attn_model_create(&w->model, &config, error);
    if (status != ATTN_OK) return status;
    const size_t future_blocks = attn_model_future_blocks(w->model);
    if (future_blocks > 0) /* first, so that a trial which fails is marked too */
        attn_sink_value(&w->sink, ATTN_FIGURE_SEES_FUTURE, "block", (double)future_blocks,
                        ATTN_COUNTED, "blocks whose attention lets a token see later ones");
    attn_model_initialise(w->model, trial_seed(w->trial));
    if (plan->is_model_file) status = attn_checkpoint_load(w->model, plan->model, error);
    if (status == ATTN_OK)
        status = attn_trainer_create(&w->trainer, w->model, w->context, plan->batch, plan->length,
                                     true, error);
    if (status == ATTN_OK) status = open_batches(w->trial, &w->training, &w->held_out, error);
    if (status == ATTN_OK) status = attn_batch_create(&w->batch, plan->batch, plan->length, error);
    const attn_energy_options meters = attn_measuring_meters(plan);
    if (status == ATTN_OK) status = attn_energy_open(&w->meter, &meters, error);
    if (status == ATTN_OK) status = attn_energy_start(w->meter, error);
    if (status != ATTN_OK) return status;
    w->log.steps = attn_alloc_array(ATTN_MEMORY_OTHER, plan->steps, sizeof *w->log.steps);
    w->log.closed_form =
        attn_alloc_array(ATTN_MEMORY_OTHER, plan->steps, sizeof *w->log.closed_form);
    w->log.profiles = attn_alloc_array(ATTN_MEMORY_OTHER, plan->steps, sizeof *w->log.profiles);
    w->scratch = attn_alloc_array(ATTN_MEMORY_OTHER, plan->steps, sizeof *w->scratch);
    if (!w->log.steps || !w->log.closed_form || !w->log.profiles || !w->scratch)
        return attn_fail(error, ATTN_EMEMORY, "no memory for the record of %zu steps", plan->steps);
    return ATTN_OK;
}

static void tear_down(workshop *w)
{
    attn_trainer_free(w->trainer);
    attn_model_free(w->model);
    attn_batches_free(w->training);
    attn_batches_free(w->held_out);
    attn_batch_free(&w->batch);
    attn_energy_close(w->meter);
    attn_free(w->log.steps);
    attn_free(w->log.closed_form);
    attn_free(w->log.profiles);
    attn_free(w->scratch);
    attn_context_free(w->context);
}

/* The arrays of a batch as the model takes them. */
static attn_training_batch as_model_batch(const workshop *w)
{
    return (attn_training_batch){.inputs = w->batch.inputs,
                                 .targets = w->batch.targets,
                                 .weights = w->batch.weights,
                                 .document_start =
                                     w->trial->plan->is_packed ? w->batch.document_start : NULL};
}

/* A diverged run has no result. `step` is the number of updates before, or in progress. */
static attn_status check_loss(const workshop *w, const char *which, size_t step, double loss,
                              attn_error *error)
{
    if (isfinite(loss)) return ATTN_OK;
    if (step == 0)
        return attn_fail(error, ATTN_EFORMAT,
                         "the %s loss is not finite before training: the weights of %s are damaged",
                         which, w->trial->plan->model);
    return attn_fail(error, ATTN_EARGUMENT,
                     "the %s loss is no longer finite at step %zu: lower --learning-rate", which,
                     step);
}

static attn_status evaluate(workshop *w, size_t step, double *loss, attn_error *error)
{
    *loss = NAN;
    if (!w->held_out) return ATTN_OK;
    const size_t all = attn_batches_get_facts(w->held_out).n_batches;
    const size_t n =
        w->trial->plan->evaluate_batches < all ? w->trial->plan->evaluate_batches : all;
    const uint64_t begin_ns = attn_clock_ns();
    double total = 0.0, weight = 0.0;
    for (size_t i = 0; i < n; i++) {
        attn_batches_fill(w->held_out, i, &w->batch);
        if (w->batch.n_targets == 0) continue;
        const attn_training_batch batch = as_model_batch(w);
        attn_loss part = {0};
        const attn_status status = attn_trainer_evaluate(w->trainer, &batch, &part, error);
        if (status != ATTN_OK) return status;
        total += part.mean * part.weight;
        weight += part.weight;
    }
    if (weight == 0.0)
        return attn_fail(error, ATTN_ESHAPE,
                         "the held-out rows hold no target token: use a larger "
                         "--held-out or --seq");
    *loss = total / weight;
    const attn_status status = check_loss(w, "held-out", step, *loss, error);
    if (status != ATTN_OK) return status;
    const attn_record record = {
        .kind = ATTN_RECORD_EVALUATION,
        .evaluation = {.step = step,
                       .loss = *loss,
                       .target_tokens = (uint64_t)weight,
                       .time_s = attn_clock_seconds(begin_ns, attn_clock_ns())}};
    return attn_record_write(w->sink.descriptor, &record, error);
}

/* The next batch with a target; epochs follow each other. */
static attn_status next_batch(workshop *w, attn_error *error)
{
    const size_t n = attn_batches_get_facts(w->training).n_batches;
    for (size_t tried = 0; tried <= n; tried++) {
        if (w->epoch_batch == n) {
            attn_batches_start_epoch(w->training, ++w->epoch);
            w->epoch_batch = 0;
        }
        attn_batches_fill(w->training, w->epoch_batch++, &w->batch);
        if (w->batch.n_targets > 0) return ATTN_OK;
    }
    /* Packed rows are cut anywhere, so few targets can all fall on cuts. */
    return attn_fail(error, ATTN_ESHAPE,
                     "no target token is left in %zu batches: use a larger --seq, or more rows", n);
}

static attn_work step_closed_form(const workshop *w)
{
    const attn_plan *plan = w->trial->plan;
    const uint32_t *documents = plan->is_packed ? w->batch.document_start : NULL;
    const attn_model_phase phases[] = {ATTN_MODEL_FORWARD, ATTN_MODEL_BACKWARD,
                                       plan->clip > 0.0 ? ATTN_MODEL_UPDATE_CLIPPED
                                                        : ATTN_MODEL_UPDATE};
    attn_work sum = {0};
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        const attn_work part =
            attn_model_work(w->model, phases[i], plan->batch, plan->length, documents);
        sum.matmul += part.matmul;
        sum.exponential += part.exponential;
        sum.other += part.other;
    }
    return sum;
}

static attn_status run_step(workshop *w, attn_phases *phases, size_t step, attn_error *error)
{
    const attn_plan *plan = w->trial->plan;
    const attn_adamw adamw = {.beta1 = 0.9,
                              .beta2 = 0.999,
                              .epsilon = 1e-8,
                              .decay = plan->weight_decay,
                              .max_norm = plan->clip};
    const attn_schedule schedule = {.kind = plan->schedule,
                                    .peak = plan->learning_rate,
                                    .floor = 0.1 * plan->learning_rate,
                                    .warmup_steps = plan->learning_rate_warmup,
                                    .steps = plan->steps};
    attn_store_step record = {.step = step + 1,
                              .learning_rate = attn_schedule_rate(&schedule, step)};
    attn_profile *profile = attn_trainer_profile(w->trainer);
    memset(profile, 0, sizeof *profile);
    const attn_work before = attn_context_work(w->context);

    attn_phases_step(phases);
    const uint64_t begin_ns = attn_clock_ns();
    attn_status status = next_batch(w, error);
    if (status != ATTN_OK) return status;
    record.data_s = attn_clock_seconds(begin_ns, attn_clock_ns());
    attn_phases_end(phases, ATTN_STEP_DATA);
    const attn_training_batch batch = as_model_batch(w);
    attn_loss loss = {0};
    status = attn_trainer_loss(w->trainer, &batch, &loss, error);
    if (status == ATTN_OK) status = check_loss(w, "training", step + 1, loss.mean, error);
    attn_phases_end(phases, ATTN_STEP_FORWARD);
    if (status == ATTN_OK) status = attn_trainer_backward(w->trainer, error);
    attn_phases_end(phases, ATTN_STEP_BACKWARD);
    if (status == ATTN_OK)
        status = attn_trainer_update(w->trainer, &adamw, record.learning_rate,
                                     &record.gradient_norm, error);
    if (status != ATTN_OK) return status;
    attn_phases_end(phases, ATTN_STEP_OPTIMIZER);

    const attn_work after = attn_context_work(w->context);
    record.loss = loss.mean;
    record.tokens = (uint64_t)plan->batch * plan->length;
    record.target_tokens = w->batch.n_targets;
    record.forward_s = attn_profile_seconds(profile, ATTN_PASS_FORWARD);
    record.backward_s = attn_profile_seconds(profile, ATTN_PASS_BACKWARD);
    record.optimizer_s = attn_profile_seconds(profile, ATTN_PASS_UPDATE);
    record.matmul_flop = after.matmul - before.matmul;
    record.exponential_op = after.exponential - before.exponential;
    record.other_op = after.other - before.other;
    w->log.steps[w->log.n] = record;
    w->log.profiles[w->log.n] = *profile;
    w->log.closed_form[w->log.n++] = step_closed_form(w);
    const attn_record message = {.kind = ATTN_RECORD_STEP, .step = record};
    return attn_record_write(w->sink.descriptor, &message, error);
}

/* Timing begins when the warm-up is over, and rests while the model is evaluated. */
static attn_status train(workshop *w, attn_measured *measured, double *first_loss,
                         double *last_loss, attn_error *error)
{
    const attn_plan *plan = w->trial->plan;
    bool is_timed = false;
    attn_status status = evaluate(w, 0, first_loss, error);
    for (size_t step = 0; step < plan->steps && status == ATTN_OK; step++) {
        const size_t done = step + 1;
        const bool evaluates =
            done == plan->steps || (plan->evaluate_every && done % plan->evaluate_every == 0);
        bool opens = is_timed && plan->evaluate_every && step % plan->evaluate_every == 0;
        if (!is_timed) {
            measured->warmth = attn_judge_warmth(plan, w->log.steps, step);
            is_timed = opens = measured->warmth != ATTN_WARMING;
            measured->warmup = w->log.warmup = step;
            if (is_timed && step > 0)
                attn_phases_begin(&measured->phases, w->meter,
                                  attn_step_time_s(&w->log.steps[step - 1]));
        }
        if (opens) attn_window_open(&measured->window);
        status = run_step(w, &measured->phases, step, error);
        if (is_timed && evaluates) {
            attn_window_close(&measured->window);
            attn_put_span(&w->sink, measured->window.begin_epoch_s, measured->window.end_epoch_s,
                          true);
        }
        if (status != ATTN_OK || !evaluates) continue;
        if (w->held_out) attn_window_open(&measured->evaluation);
        status = evaluate(w, done, last_loss, error);
        if (w->held_out) attn_window_close(&measured->evaluation);
    }
    return status;
}

static void put_loss_figures(attn_figure_sink *sink, const workshop *w, double first, double last)
{
    if (!w->held_out) {
        const attn_figure none = attn_figure_unavailable("held_out_loss", "nat", "held-out rows",
                                                         "no rows were held out: use --held-out");
        attn_sink_put(sink, &none);
        return;
    }
    const char *source = "mean over the target tokens of the held-out batches";
    attn_sink_value(sink, "held_out_loss_first", "nat", first, ATTN_DERIVED, source);
    attn_sink_value(sink, "held_out_loss", "nat", last, ATTN_DERIVED, source);
    attn_sink_value(sink, "perplexity", "", exp(last), ATTN_DERIVED, "exp(held_out_loss)");
}

/* Parameters, and the model's file: measured where it is kept, else computed. */
static attn_status put_size_figures(attn_figure_sink *sink, const workshop *w, attn_error *error)
{
    const attn_trial *trial = w->trial;
    const size_t parameters = attn_model_parameter_count(w->model);
    size_t attention = 0, n_kinds = 0;
    const attn_model_kind *kinds = attn_model_kinds(w->model, &n_kinds);
    bool is_half_inside = true;
    for (size_t i = 0; i < n_kinds; i++) {
        attention += kinds[i].n_blocks * attn_layer_parameter_count(kinds[i].layer);
        is_half_inside = is_half_inside && attn_layer_core_dtype(kinds[i].layer) == ATTN_BF16;
    }
    const bool is_half = attn_model_configuration(w->model)->dtype == ATTN_BF16;
    attn_sink_value(sink, "product_factor_bits", "bit", is_half ? 16.0 : 32.0, ATTN_COUNTED,
                    is_half ? "factors of dense products in bfloat16" : "everything in float32");
    attn_sink_value(sink, "core_factor_bits", "bit", is_half_inside ? 16.0 : 32.0, ATTN_COUNTED,
                    "factors of products between the projections of attention; the widest of any "
                    "layer");
    attn_sink_value(sink, "parameters", "", (double)parameters, ATTN_COUNTED,
                    "trained parameters of the model");
    attn_sink_value(sink, "attention_parameters", "", (double)attention, ATTN_COUNTED,
                    "parameters of all attention layers");
    if (!trial->plan->save) {
        attn_sink_value(sink, "checkpoint_bytes", "byte", 4.0 * (double)parameters, ATTN_DERIVED,
                        "4 * parameters: a float32 model file without its header");
        return ATTN_OK;
    }
    char path[4096];
    const int n = snprintf(path, sizeof path, "%s/%s-round%zu.safetensors", trial->plan->save,
                           trial->mechanism->label, trial->round);
    if (n < 0 || (size_t)n >= sizeof path)
        return attn_fail(error, ATTN_EARGUMENT, "%s: the folder's name is too long",
                         trial->plan->save);
    const attn_status status = attn_checkpoint_save(w->model, path, error);
    struct stat about;
    if (status == ATTN_OK && stat(path, &about) == 0)
        attn_sink_value(sink, "checkpoint_bytes", "byte", (double)about.st_size, ATTN_MEASURED,
                        path);
    return status;
}

/* Power at rest, which ends one stretch of work, that began at *busy_epoch_s, and begins another. */
static attn_figure rest(workshop *w, double *busy_epoch_s, const char *name)
{
    attn_put_span(&w->sink, *busy_epoch_s, attn_clock_epoch_s(), false);
    const attn_figure power = attn_measure_idle(w->meter, w->trial->plan->measuring.idle_s, name);
    *busy_epoch_s = attn_clock_epoch_s();
    return power;
}

attn_status attn_trial_run(const attn_trial *trial, int descriptor, attn_error *error)
{
    workshop w = {.trial = trial,
                  .sink = {.descriptor = descriptor, .status = ATTN_OK, .error = error}};
    double busy_epoch_s = attn_clock_epoch_s(); /* since when the machine is at work */
    attn_error reset_error = {0};
    const bool has_peak = attn_process_memory_reset_peak("", &reset_error) == ATTN_OK;
    attn_memory_reset_peaks();
    attn_status status = set_up(&w, error);
    if (status != ATTN_OK) goto done;

    attn_measured measured = {.window.meter = w.meter, .evaluation.meter = w.meter};
    const double idle_s = trial->plan->measuring.idle_s;
    double first_loss = NAN, last_loss = NAN;
    if (idle_s > 0.0) measured.idle_before = rest(&w, &busy_epoch_s, "power_idle_before_w");
    const char *gpus = trial->plan->measuring.gpus;
    measured.n_gpus = attn_gpu_figures(NULL, gpus, "before", measured.gpus);
    const uint64_t begin_ns = attn_clock_ns();
    status = train(&w, &measured, &first_loss, &last_loss, error);
    if (status != ATTN_OK) goto done;
    measured.n_gpus += attn_gpu_figures(NULL, gpus, "after", measured.gpus + measured.n_gpus);
    if (idle_s > 0.0) measured.idle_after = rest(&w, &busy_epoch_s, "power_idle_after_w");
    const attn_figure train_peak =
        has_peak ? attn_process_memory_peak("")
                 : attn_figure_unavailable("vmhwm_train_bytes", "byte", "/proc/self/clear_refs",
                                           reset_error.text);
    attn_put_step_figures(&w.sink, trial->plan, &w.log, w.scratch);
    attn_put_window_figures(&w.sink, trial->plan, w.log.n - w.log.warmup,
                            attn_context_threads(w.context), &measured.window, train_peak.value);
    attn_put_measuring_figures(&w.sink, trial->plan, &w.log, &measured);
    attn_energy_stop(w.meter);
    attn_put_samples(&w.sink, w.meter, begin_ns);
    attn_put_memory_figures(&w.sink);
    attn_put_renamed(&w.sink, train_peak, "vmhwm_train_bytes");
    put_loss_figures(&w.sink, &w, first_loss, last_loss);
    status = put_size_figures(&w.sink, &w, error);
    if (status == ATTN_OK) status = w.sink.status;
    if (status != ATTN_OK) goto done;

    attn_trainer_free(w.trainer); /* what training needed is not there when serving */
    w.trainer = NULL;
    status =
        attn_put_latency_figures(&w.sink, w.model, w.context, trial->plan, w.batch.inputs, error);
    attn_put_span(&w.sink, busy_epoch_s, attn_clock_epoch_s(), false);
    if (status == ATTN_OK) status = w.sink.status;
done:
    tear_down(&w);
    return status;
}
