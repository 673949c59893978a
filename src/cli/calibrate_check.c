/* What a calibration is worth: steps and cores that it had no part in. */
#include "cli/calibrate_check.h"

#include "base/error.h"
#include "base/memory.h"
#include "cli/cost_compare.h"
#include "experiment/bench_step.h"
#include "experiment/calibrate_core.h"

#include <math.h>
#include <stdio.h>

enum { BATCH = 2, LENGTH = 512, LAYERS = 4 }; /* of the step */

typedef struct checking {
    size_t threads;
    const char *isa;
    attn_catalog catalog;
    const attn_device *device;
    attn_pattern mechanisms[ATTN_PATTERNS_MAX];
    size_t n_mechanisms;
    attn_cost_estimate *estimate;
    cli_cost_comparison *comparison;
    attn_context *context;
    size_t within, compared; /* cores */
    attn_error *error;
} checking;

static attn_status predict(checking *c, const attn_spec *spec, const attn_pattern *mechanism,
                           attn_cost_type type, size_t batch, size_t length, attn_prediction *out)
{
    const attn_cost_request request = {.catalog = &c->catalog,
                                       .spec = spec,
                                       .pattern = *mechanism,
                                       .type = type,
                                       .batch = batch,
                                       .keys = length};
    const attn_status status = attn_cost_estimate_make(&request, c->estimate, c->error);
    return status == ATTN_OK ? attn_cost_predict(c->estimate, c->device, out, c->error) : status;
}

/* Four layers of GPT-2. */
static attn_status small_model(const char *mechanism, attn_model_config *config, attn_error *error)
{
    const attn_status status = attn_model_preset("gpt2", config, error);
    if (status != ATTN_OK) return status;
    config->layers = LAYERS;
    config->mechanism = mechanism;
    return ATTN_OK;
}

attn_status cli_calibrate_check_list(const char *mechanisms, attn_error *error)
{
    attn_pattern patterns[ATTN_PATTERNS_MAX];
    size_t n = 0, future;
    attn_model_config config;
    attn_status status =
        attn_patterns_parse(mechanisms, attn_mechanism_is_causal, patterns, &n, error);
    for (size_t i = 0; i < n && status == ATTN_OK; i++) {
        status = small_model(patterns[i].label, &config, error);
        if (status == ATTN_OK) status = attn_model_check(&config, LENGTH, &future, error);
    }
    return status;
}

static double part_s(const attn_bench_step *b, attn_part part, attn_pass pass)
{
    return b->parts[part][pass].median_s;
}

static attn_cost_measured measured_of(const attn_bench_step *b)
{
    attn_cost_measured m = {.step_s = b->step.median_s};
    for (size_t i = 0; i < ATTN_COST_PASSES; i++) {
        const attn_pass pass = i == ATTN_COST_FORWARD ? ATTN_PASS_FORWARD : ATTN_PASS_BACKWARD;
        m.place_s[ATTN_PLACE_ATTENTION][i] = part_s(b, ATTN_PART_ATTENTION, pass);
        m.place_s[ATTN_PLACE_FEED_FORWARD][i] =
            part_s(b, ATTN_PART_MLP_DENSE, pass) + part_s(b, ATTN_PART_GELU, pass);
        m.place_s[ATTN_PLACE_NORMS][i] = part_s(b, ATTN_PART_NORM, pass);
        m.place_s[ATTN_PLACE_ENDS][i] = part_s(b, ATTN_PART_EMBEDDING, pass);
        m.place_s[ATTN_PLACE_HEAD][i] =
            part_s(b, ATTN_PART_HEAD, pass) + part_s(b, ATTN_PART_LOSS, pass);
    }
    m.update_s = part_s(b, ATTN_PART_OPTIMIZER, ATTN_PASS_UPDATE);
    return m;
}

/* A step of four layers of GPT-2, measured and predicted. */
static attn_status check_step(checking *c, const attn_pattern *mechanism)
{
    enum { REPEATS = 3 };
    attn_model_config config;
    attn_status status = small_model(mechanism->label, &config, c->error);
    if (status != ATTN_OK) return status;
    attn_bench_step measured;
    const attn_bench_step_options bench = {.model = &config,
                                           .batch = BATCH,
                                           .length = LENGTH,
                                           .repeats = REPEATS,
                                           .threads = c->threads,
                                           .isa = c->isa,
                                           .seed = 1};
    status = attn_bench_step_run(&bench, &measured, c->error);
    attn_spec spec = *(const attn_spec *)attn_records_find(&c->catalog.models, "gpt2", NULL);
    spec.layers = LAYERS;
    attn_prediction prediction;
    if (status == ATTN_OK)
        status = predict(c, &spec, mechanism, ATTN_COST_F32, BATCH, LENGTH, &prediction);
    if (status != ATTN_OK) return status;
    const attn_cost_measured m = measured_of(&measured);
    cli_cost_compare(c->comparison, mechanism->label, &prediction, &m);
    return ATTN_OK;
}

/* A core alone. */
static attn_status check_core(checking *c, const attn_pattern *mechanism, attn_dtype dtype,
                              size_t length)
{
    const attn_label *label = &mechanism->kinds[0];
    if (!attn_core_is_apart(label->name, dtype)) return ATTN_OK;
    const attn_spec *spec = attn_records_find(&c->catalog.models, "gpt2", NULL);
    const attn_core_probe probe = {.mechanism = label, .dtype = dtype, .length = length};
    const bool is_wide = dtype == ATTN_F32;
    attn_prediction prediction;
    attn_core_times times;
    attn_status status = predict(c, spec, mechanism, is_wide ? ATTN_COST_F32 : ATTN_COST_BF16, 1,
                                 length, &prediction);
    if (status == ATTN_OK) status = attn_core_time(c->context, &probe, 0.5, &times, c->error);
    if (status != ATTN_OK) return status;
    const double predicted_s = prediction.core_s.value / (double)spec->layers;
    const double measured_s = times.forward_s + times.backward_s;
    const double off = predicted_s / measured_s - 1.0;
    c->compared++;
    c->within += fabs(off) <= 0.25;
    printf("%-16s %-4s %6zu %9.1f ms %9.1f ms %+8.0f%%\n", mechanism->label,
           is_wide ? "f32" : "bf16", length, 1e3 * measured_s, 1e3 * predicted_s, 100.0 * off);
    return ATTN_OK;
}

/* In both types, from half the shorter probe's length to twice the longer one's. */
static attn_status check_cores(checking *c, const attn_pattern *mechanism)
{
    attn_status status = ATTN_OK;
    for (size_t type = 0; type < 2; type++)
        for (size_t length = 512; length <= 8192 && status == ATTN_OK; length *= 2)
            status = check_core(c, mechanism, type == 0 ? ATTN_F32 : ATTN_BF16, length);
    return status;
}

static attn_status check_all(checking *c)
{
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < c->n_mechanisms && status == ATTN_OK; i++)
        status = check_step(c, &c->mechanisms[i]);
    if (status != ATTN_OK) return status;
    puts("\nresiduals: a training step of four layers of GPT-2, batch 2, 512 tokens\n");
    cli_cost_comparison_print(stdout, c->comparison, CLI_COST_EXPLAIN);
    puts("\nresiduals: attention between projections, forward and backward, 12 heads of 64\n");
    for (size_t i = 0; i < c->n_mechanisms && status == ATTN_OK; i++)
        if (c->mechanisms[i].n_kinds == 1) status = check_cores(c, &c->mechanisms[i]);
    printf("\nwithin 25%%: %zu of %zu\n", c->within, c->compared);
    return status;
}

attn_status cli_calibrate_check(const char *mechanisms, const char *path, size_t threads,
                                const char *isa, attn_error *error)
{
    checking c = {.threads = threads, .isa = isa, .error = error};
    c.estimate = attn_alloc(ATTN_MEMORY_OTHER, sizeof *c.estimate);
    c.comparison = attn_alloc(ATTN_MEMORY_OTHER, sizeof *c.comparison);
    attn_status status = c.estimate && c.comparison
                             ? attn_catalog_load(&c.catalog, path, NULL, error)
                             : attn_fail(error, ATTN_EMEMORY, "no memory to compare");
    c.device = status == ATTN_OK ? attn_records_find(&c.catalog.devices, "this", error) : NULL;
    if (status == ATTN_OK)
        status = attn_patterns_parse(mechanisms, attn_mechanism_is_causal, c.mechanisms,
                                     &c.n_mechanisms, error);
    if (status == ATTN_OK) status = attn_context_create(&c.context, threads, isa, error);
    if (status == ATTN_OK) status = check_all(&c);
    attn_context_free(c.context);
    attn_catalog_free(&c.catalog);
    attn_free(c.estimate);
    attn_free(c.comparison);
    return status;
}
