/* Runs of the machine that `this` was calibrated on, told by the processor's name. */
#include "cli/cost_evidence.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "report/summary.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

enum { RUNS_MAX = 32 }; /* the newest that are looked at */

typedef struct reading {
    const cli_cost_question *question;
    const attn_device *device;
    cli_cost_evidence *out;
    attn_error *error;
} reading;

static const char *text_at(const json_t *object, const char *first, const char *second)
{
    const json_t *at = json_object_get(object, first);
    return json_string_value(second ? json_object_get(at, second) : at);
}

/* Sizes of a run that says something of the question; 0: it does not. */
static size_t batch_of(const reading *r, const attn_store_run *run, size_t *keys)
{
    json_t *plan = json_loads(run->plan_json, 0, NULL);
    json_t *environment = json_loads(run->environment_json, 0, NULL);
    const char *model = text_at(plan, "model", NULL), *dtype = text_at(plan, "dtype", NULL);
    const char *processor = text_at(environment, "cpu", "model_name");
    const attn_cost_request *asked = &r->question->request;
    const json_int_t batch = json_integer_value(json_object_get(plan, "batch"));
    const json_int_t length = json_integer_value(json_object_get(plan, "seq"));
    size_t found = 0;
    *keys = length > 0 ? (size_t)length : 0;
    if (model && dtype && processor && batch > 0 && length > 0 &&
        strcmp(model, asked->spec->record.name) == 0 &&
        strcmp(dtype, attn_cost_type_name(asked->type)) == 0 &&
        strcmp(processor, r->device->title) == 0)
        found =
            asked->phase == ATTN_COST_TRAIN ? (size_t)batch : 1; /* serving is of one sequence */
    json_decref(plan);
    json_decref(environment);
    return found;
}

static void add(reading *r, const attn_summary_mechanism *m, size_t batch, size_t keys, int64_t run)
{
    static const char *const figures[] = {"step_time_s", "latency_forward_s", "latency_token_s"};
    const attn_summary_figure *f = attn_summary_find(m, figures[r->question->request.phase]);
    if (!f || f->provenance != ATTN_MEASURED || !(f->median > 0.0)) return;
    attn_advice_evidence *e = &r->out->list[r->out->found.count++];
    *e = (attn_advice_evidence){.batch = batch,
                                .keys = keys,
                                .time_s = f->median,
                                .low = f->minimum,
                                .high = f->maximum,
                                .run = run};
    attn_text_copy(e->mechanism, sizeof e->mechanism, m->name);
}

static attn_status read_run(reading *r, attn_store *store, const attn_store_run *run)
{
    size_t keys;
    const size_t batch = batch_of(r, run, &keys);
    if (!batch) return ATTN_OK;
    attn_store_result *result = NULL;
    attn_summary *summary = NULL;
    attn_status status = attn_store_load(store, run->id, &result, r->error);
    if (status == ATTN_OK) status = attn_summary_make(result, &summary, r->error);
    for (size_t i = 0; status == ATTN_OK && i < summary->n_mechanisms && i < ATTN_PATTERNS_MAX; i++)
        add(r, &summary->mechanisms[i], batch, keys, run->id);
    attn_summary_free(summary);
    attn_store_result_free(result);
    return status;
}

static attn_status read_store(reading *r, const char *path)
{
    attn_store *store = NULL;
    attn_store_overview *runs = NULL;
    size_t n_runs = 0;
    attn_status status = attn_store_open(&store, path, ATTN_STORE_READ, r->error);
    if (status == ATTN_OK) status = attn_store_list(store, &runs, &n_runs, r->error);
    for (size_t i = 0; i < n_runs && i < RUNS_MAX && status == ATTN_OK; i++)
        status = read_run(r, store, &runs[n_runs - 1 - i].run);
    attn_store_overviews_free(runs, n_runs);
    attn_store_close(store);
    return status;
}

attn_status cli_cost_evidence_read(cli_cost_evidence *evidence, const char *path,
                                   const cli_cost_question *question, attn_error *error)
{
    static const char usual[] = "attnscope.db";
    reading r = {.question = question, .out = evidence, .error = error};
    *evidence = (cli_cost_evidence){0};
    for (size_t d = 0; d < question->n_devices; d++)
        if (strcmp(question->devices[d]->record.name, "this") == 0) r.device = question->devices[d];
    if (path && !r.device)
        return attn_fail(error, ATTN_EARGUMENT,
                         "--store has runs of this machine: it goes with --device this");
    if (!r.device || (!path && access(usual, F_OK) != 0)) return ATTN_OK;
    evidence->list = attn_alloc_array(ATTN_MEMORY_OTHER, (size_t)RUNS_MAX * ATTN_PATTERNS_MAX,
                                      sizeof *evidence->list);
    if (!evidence->list) return attn_fail(error, ATTN_EMEMORY, "no memory for the store's runs");
    const attn_status status = read_store(&r, path ? path : usual);
    evidence->found.list = evidence->list;
    return status;
}

void cli_cost_evidence_free(cli_cost_evidence *evidence)
{
    attn_free(evidence->list);
}
