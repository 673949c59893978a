/* A run's plan gives the request; its median step time is what the prediction is held against. */
#include "cli/cost_against.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "cost/roofline.h"
#include "model/model.h"
#include "report/format.h"
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
    bool is_markdown;
    size_t within, compared; /* mechanisms off by at most 15 %, and all */
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

/* "matmul 71%, core 9%": where the model says the time goes */
static void where_text(const attn_prediction *p, char *text, size_t room)
{
    snprintf(text, room, "%s %.0f%%, core %.0f%%", attn_cost_bound_name(p->bound),
             100.0 * p->bound_share, 100.0 * p->core_share);
}

static attn_status print_mechanism(against *a, const attn_summary_mechanism *m)
{
    const attn_summary_figure *step = attn_summary_find(m, "step_time_s");
    attn_prediction p;
    attn_status status = attn_pattern_parse(m->name, &a->request.pattern, a->error);
    if (status != ATTN_OK) return status;
    status = attn_cost_estimate_make(&a->request, a->estimate, a->error);
    if (status == ATTN_OK) status = attn_cost_predict(a->estimate, a->device, &p, a->error);
    if (status != ATTN_OK) return status;
    const char *form =
        a->is_markdown ? "| %s | %s | %s | %s | %s |\n" : "%-24s %10s %10s %8s  %s\n";
    char where[64], off[32] = "-";
    where_text(&p, where, sizeof where);
    const bool is_measured = step && step->n > 0 && step->provenance == ATTN_MEASURED;
    if (is_measured) {
        const double error = p.time_s.value / step->median - 1.0;
        snprintf(off, sizeof off, "%+.0f%%", 100.0 * error);
        a->compared++;
        a->within += fabs(error) <= 0.15;
    }
    fprintf(a->out, form, m->name,
            is_measured ? attn_format_si(step->median, 3, "s").text : "not measured",
            attn_format_si(p.time_s.value, 3, "s").text, off, where);
    return ATTN_OK;
}

static attn_status print_run(against *a, const attn_store_result *result,
                             const attn_summary *summary)
{
    fprintf(a->out,
            "run %lld: %s, batch %zu, %zu tokens, %s; predicted for %s, a training step\n\n",
            (long long)result->run.id, a->spec.record.name, a->request.batch, a->request.keys,
            attn_cost_type_name(a->request.type), a->device->record.name);
    if (a->is_markdown)
        fputs("| mechanism | measured | predicted | off by | the model's time goes to |\n"
              "|---|---:|---:|---:|---|\n",
              a->out);
    else
        fprintf(a->out, "%-24s %10s %10s %8s  %s\n", "mechanism", "measured", "predicted", "off by",
                "time goes to");
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < summary->n_mechanisms && status == ATTN_OK; i++)
        status = print_mechanism(a, &summary->mechanisms[i]);
    if (status == ATTN_OK) fprintf(a->out, "\nwithin 15%%: %zu of %zu\n", a->within, a->compared);
    return status;
}

attn_status cli_cost_against(FILE *out, const char *store_path, int64_t run,
                             const attn_catalog *catalog, const attn_device *device,
                             bool is_markdown, attn_error *error)
{
    against a = {.out = out, .device = device, .is_markdown = is_markdown, .error = error};
    attn_store *store = NULL;
    attn_store_result *result = NULL;
    attn_summary *summary = NULL;
    a.estimate = attn_alloc(ATTN_MEMORY_OTHER, sizeof *a.estimate);
    attn_status status = a.estimate ? attn_store_open(&store, store_path, ATTN_STORE_READ, error)
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
    return status;
}
