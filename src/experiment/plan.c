/* Plans: parsing mechanism lists, checks, JSON, and the order of trials. */
#include "experiment/plan.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "meters/energy_model.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static attn_status check_mechanism(const attn_plan *plan, const attn_plan_mechanism *mechanism,
                                   attn_error *error)
{
    attn_model_config config = attn_plan_model(plan, mechanism);
    size_t future_blocks = 0;
    config.is_causal = false;
    attn_status status = attn_model_check(&config, plan->length, &future_blocks, error);
    if (status != ATTN_OK || future_blocks == 0) return status;
    if (plan->is_packed)
        return attn_fail(error, ATTN_EARGUMENT,
                         "%s sees later tokens and cannot keep packed documents apart: leave out "
                         "--pack",
                         mechanism->label);
    if (plan->allows_leak) return ATTN_OK;
    attn_error reason = {0};
    config.is_causal = true;
    status = attn_model_check(&config, plan->length, &future_blocks, &reason);
    return attn_fail(error, status, "%s; --allow-leak runs it, out of competition", reason.text);
}

attn_status attn_plan_set_mechanisms(attn_plan *plan, const char *list, attn_error *error)
{
    attn_status status = attn_patterns_parse(list, attn_mechanism_is_causal, plan->mechanisms,
                                             &plan->n_mechanisms, error);
    for (size_t i = 0; i < plan->n_mechanisms && status == ATTN_OK; i++)
        status = check_mechanism(plan, &plan->mechanisms[i], error);
    return status;
}

attn_status attn_plan_add_again(attn_plan *plan, attn_error *error)
{
    if (plan->n_mechanisms == ATTN_PLAN_MECHANISMS_MAX)
        return attn_fail(error, ATTN_EARGUMENT,
                         "--aa needs room for one more of at most %d mechanisms",
                         ATTN_PLAN_MECHANISMS_MAX);
    attn_plan_mechanism *again = &plan->mechanisms[plan->n_mechanisms];
    *again = plan->mechanisms[0];
    const size_t used = strlen(again->label);
    static const char mark[] = " (A/A)";
    if (used + sizeof mark > sizeof again->label)
        return attn_fail(error, ATTN_EARGUMENT, "--aa: the name '%s' is too long", again->label);
    memcpy(again->label + used, mark, sizeof mark);
    plan->n_mechanisms++;
    plan->measuring.has_again = true;
    return ATTN_OK;
}

attn_model_config attn_plan_model(const attn_plan *plan, const attn_plan_mechanism *mechanism)
{
    attn_model_config config = plan->sizes;
    /* The twin has a name of its own and the first mechanism's blocks. */
    const bool is_again =
        plan->measuring.has_again &&
        strcmp(mechanism->label, plan->mechanisms[plan->n_mechanisms - 1].label) == 0;
    config.mechanism = is_again ? plan->mechanisms[0].label : mechanism->label;
    config.is_causal = !plan->allows_leak;
    config.dtype = strcmp(plan->dtype, "bf16") == 0 ? ATTN_BF16 : ATTN_F32;
    return config;
}

attn_status attn_plan_check(const attn_plan *plan, attn_error *error)
{
    const size_t positions = plan->sizes.positions;
    if (plan->length > positions)
        return attn_fail(error, ATTN_ESHAPE,
                         "sequences of %zu tokens are longer than the %zu positions of %s: "
                         "use --seq %zu or less",
                         plan->length, positions, plan->model, positions);
    if (plan->timing_warmup >= plan->steps)
        return attn_fail(error, ATTN_EARGUMENT,
                         "%zu steps leave none to time behind %zu of warm-up: use more --steps",
                         plan->steps, plan->timing_warmup);
    attn_energy_model model;
    const attn_machine_cpu cpu = attn_machine_cpu_read("");
    return attn_energy_model_choose(&model, &cpu, plan->cpu_watts, error);
}

attn_status attn_plan_json(const attn_plan *plan, const char *data_sha256, const char *model_sha256,
                           char **json, attn_error *error)
{
    *json = NULL;
    json_t *names = json_array();
    for (size_t i = 0; names && i < plan->n_mechanisms; i++)
        if (json_array_append_new(names, json_string(plan->mechanisms[i].label)) != 0) {
            json_decref(names);
            names = NULL;
        }
    const attn_plan_measuring *m = &plan->measuring;
    json_t *measuring = json_pack(
        "{s:s?, s:s?, s:s?, s:f, s:b, s:f, s:f, s:f, s:f, s:f, s:s?, s:s?}", "gpus", m->gpus,
        "meter_cmd", m->command, "meter_csv", m->csv, "meter_offset", m->csv_offset_s, "dcmi",
        m->uses_dcmi, "idle", m->idle_s, "steady", m->steady, "cool_down", m->cool_down_s, "pue",
        m->pue, "carbon_intensity", m->carbon_g_per_kwh, "carbon_source", m->carbon_source, "again",
        m->has_again ? plan->mechanisms[plan->n_mechanisms - 1].label : NULL);
    /* Paths are left out: the contents decide, wherever the file lies. */
    json_t *root = json_pack(
        "{s:o, s:I, s:s, s:s?, s:I, s:I, s:I, s:s, s:s, s:b, s:b, s:f, s:I, s:I, s:f, s:f, s:f, "
        "s:s, s:I, s:I, s:I, s:I, s:I, s:s?, s:s?, s:o}",
        "mechanisms", names, "rounds", (json_int_t)plan->rounds, "model",
        plan->is_model_file ? "file" : plan->model, "model_sha256", model_sha256, "batch",
        (json_int_t)plan->batch, "seq", (json_int_t)plan->length, "steps", (json_int_t)plan->steps,
        "dtype", plan->dtype, "data_sha256", data_sha256, "pack", plan->is_packed,
        "loss_on_answers", plan->is_loss_on_answers, "held_out", plan->held_out, "evaluate_every",
        (json_int_t)plan->evaluate_every, "evaluate_batches", (json_int_t)plan->evaluate_batches,
        "learning_rate", plan->learning_rate, "weight_decay", plan->weight_decay, "clip",
        plan->clip, "schedule", plan->schedule == ATTN_SCHEDULE_COSINE ? "cosine" : "constant",
        "learning_rate_warmup", (json_int_t)plan->learning_rate_warmup, "timing_warmup",
        (json_int_t)plan->timing_warmup, "decode_tokens", (json_int_t)plan->decode_tokens, "seed",
        (json_int_t)plan->seed, "threads", (json_int_t)plan->threads, "isa", plan->isa, "cpu_watts",
        plan->cpu_watts, "measuring", measuring);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    if (text) *json = attn_strdup(text);
    free(text);
    json_decref(root);
    return *json ? ATTN_OK : attn_fail(error, ATTN_EMEMORY, "no memory for the plan");
}

void attn_plan_order(const attn_plan *plan, size_t round, size_t *order)
{
    const size_t n = plan->n_mechanisms;
    size_t base[ATTN_PLAN_MECHANISMS_MAX];
    /* A new shuffle for each full square of n rounds. */
    attn_random_permutation(
        plan->seed, attn_random_stream(ATTN_RANDOM_SCHEDULE, (uint32_t)(round / n)), n, base);
    for (size_t i = 0; i < n; i++) order[i] = base[(i + round) % n];
}
