/* A run's plan gives the request; the medians of its step and of the model's parts are what the
 * prediction is held against. Runs of older versions have no parts: their passes stand in. */
#include "cli/cost_against.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "model/model.h"
#include "report/summary.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

typedef struct against {
    FILE *out;
    const attn_device *device;
    attn_spec spec;
    attn_cost_request request;
    attn_cost_estimate *estimate;
    cli_cost_comparison *comparison;
    cli_cost_form form;
    attn_error *error;
} against;

/* Sizes of a preset that only the trainer knows. */
static attn_status spec_of_preset(against *a, const char *name)
{
    attn_model_config config;
    const attn_status status = attn_model_preset(name, &config, a->error);
    if (status != ATTN_OK) return status;
    a->spec.layers = config.layers;
    a->spec.width = config.d_model;
    a->spec.heads = a->spec.kv_heads = config.heads;
    a->spec.head_dim = config.d_model / config.heads;
    a->spec.ffn = ATTN_MODEL_EXPANSION * config.d_model;
    a->spec.positions = config.positions;
    a->spec.vocabulary = config.vocabulary;
    attn_text_copy(a->spec.record.name, sizeof a->spec.record.name, name);
    return ATTN_OK;
}

static attn_status read_plan(against *a, const attn_catalog *catalog, const char *plan_json)
{
    json_t *plan = json_loads(plan_json, 0, NULL);
    const char *model = json_string_value(json_object_get(plan, "model"));
    const char *dtype = json_string_value(json_object_get(plan, "dtype"));
    const json_int_t batch = json_integer_value(json_object_get(plan, "batch"));
    const json_int_t length = json_integer_value(json_object_get(plan, "seq"));
    const attn_cost_type type = dtype ? attn_cost_type_parse(dtype) : ATTN_COST_TYPES;
    attn_status status = ATTN_OK;
    if (!model || batch < 1 || length < 1 || type == ATTN_COST_TYPES)
        status = attn_fail(a->error, ATTN_EUNSUPPORTED,
                           "the run's plan does not name a model, a batch, a length and a type");
    else if (strcmp(model, "file") == 0)
        status = attn_fail(a->error, ATTN_EUNSUPPORTED,
                           "the run started from a file of weights, whose sizes its plan does not "
                           "hold: compare runs of a preset");
    if (status == ATTN_OK) {
        /* GPT-2's kind of layers, with the preset's sizes */
        a->spec = *(const attn_spec *)attn_records_find(&catalog->models, "gpt2", NULL);
        a->spec.parameters = 0;
        status = spec_of_preset(a, model);
        a->request = (attn_cost_request){.catalog = catalog,
                                         .spec = &a->spec,
                                         .phase = ATTN_COST_TRAIN,
                                         .type = type,
                                         .batch = (size_t)batch,
                                         .keys = (size_t)length};
    }
    json_decref(plan);
    return status;
}

/* ---- what was measured ------------------------------------------------------------------------ */

/* The sum of two figures; the second may be absent. */
static double measured_sum(const attn_summary_mechanism *m, const char *first, const char *second,
                           const char *pass)
{
    char name[2][ATTN_FIGURE_NAME_BYTES];
    snprintf(name[0], sizeof name[0], "%s_%s_time_s", first, pass);
    snprintf(name[1], sizeof name[1], "%s_%s_time_s", second, pass);
    const double more = attn_summary_value(m, name[1]);
    return attn_summary_value(m, name[0]) + (isnan(more) ? 0.0 : more);
}

static attn_cost_measured measured_of(const attn_summary_mechanism *m)
{
    static const char *const parts[ATTN_PLACES][2] = {{"attention", "-"}, {"mlp_dense", "gelu"},
                                                      {"norm", "-"},      {"embedding", "-"},
                                                      {"head", "loss"},   {"-", "-"}};
    attn_cost_measured out = {.step_s = attn_summary_value(m, "step_time_s"),
                              .forward_s = attn_summary_value(m, "forward_time_s"),
                              .backward_s = attn_summary_value(m, "backward_time_s"),
                              .update_s = attn_summary_value(m, "optimizer_time_s")};
    for (size_t place = 0; place < ATTN_PLACES; place++) {
        const char *const *names = parts[place];
        out.place_s[place][ATTN_COST_FORWARD] = measured_sum(m, names[0], names[1], "forward");
        out.place_s[place][ATTN_COST_BACKWARD] = measured_sum(m, names[0], names[1], "backward");
    }
    return out;
}

/* ---- the run -------------------------------------------------------------------------------- */

/* A run's A/A twin is the mechanism once more. */
static attn_status pattern_of(const attn_summary_mechanism *m, attn_pattern *pattern,
                              attn_error *error)
{
    char name[ATTN_PATTERN_BYTES];
    attn_text_copy(name, sizeof name, m->name);
    char *space = strchr(name, ' ');
    if (space) *space = '\0';
    return attn_pattern_parse(name, pattern, error);
}

static attn_status add_mechanism(against *a, const attn_summary_mechanism *m)
{
    attn_prediction p;
    attn_status status = pattern_of(m, &a->request.pattern, a->error);
    if (status == ATTN_OK) status = attn_cost_estimate_make(&a->request, a->estimate, a->error);
    if (status == ATTN_OK) status = attn_cost_predict(a->estimate, a->device, &p, a->error);
    if (status != ATTN_OK) return status;
    const attn_cost_measured measured = measured_of(m);
    cli_cost_compare(a->comparison, m->name, &p, &measured);
    return ATTN_OK;
}

static attn_status print_run(against *a, const attn_store_result *result,
                             const attn_summary *summary)
{
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < summary->n_mechanisms && i < ATTN_PATTERNS_MAX && status == ATTN_OK; i++)
        status = add_mechanism(a, &summary->mechanisms[i]);
    if (status != ATTN_OK) return status;
    fprintf(a->out,
            "run %lld: %s, batch %zu, %zu tokens, %s; predicted for %s, a training step\n\n",
            (long long)result->run.id, a->spec.record.name, a->request.batch, a->request.keys,
            attn_cost_type_name(a->request.type), a->device->record.name);
    cli_cost_comparison_print(a->out, a->comparison, a->form);
    return ATTN_OK;
}

attn_status cli_cost_against(FILE *out, const char *store_path, int64_t run,
                             const attn_catalog *catalog, const attn_device *device,
                             cli_cost_form form, attn_error *error)
{
    against a = {.out = out, .device = device, .form = form, .error = error};
    attn_store *store = NULL;
    attn_store_result *result = NULL;
    attn_summary *summary = NULL;
    a.estimate = attn_alloc(ATTN_MEMORY_OTHER, sizeof *a.estimate);
    a.comparison = attn_alloc(ATTN_MEMORY_OTHER, sizeof *a.comparison);
    attn_status status = a.estimate && a.comparison
                             ? attn_store_open(&store, store_path, ATTN_STORE_READ, error)
                             : attn_fail(error, ATTN_EMEMORY, "no memory to compare");
    if (status == ATTN_OK && run == 0) status = attn_store_newest_run(store, &run, error);
    if (status == ATTN_OK) status = attn_store_load(store, run, &result, error);
    if (status == ATTN_OK) status = attn_summary_make(result, &summary, error);
    if (status == ATTN_OK) status = read_plan(&a, catalog, result->run.plan_json);
    if (status == ATTN_OK) status = print_run(&a, result, summary);
    attn_summary_free(summary);
    attn_store_result_free(result);
    attn_store_close(store);
    attn_free(a.estimate);
    attn_free(a.comparison);
    return status;
}
