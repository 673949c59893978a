/* Runs merged under letters. Trials are copied shallowly: their records stay with their runs. */
#include "report/overlay.h"

#include "base/error.h"
#include "base/memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

char attn_overlay_letter(size_t run)
{
    return (char)('A' + run);
}

size_t attn_overlay_run(const attn_summary_mechanism *mechanism)
{
    return (size_t)(mechanism->name[0] - 'A');
}

static attn_status copy_trials(attn_overlay *overlay, const attn_store_result *const *results,
                               attn_error *error)
{
    size_t n = 0;
    for (size_t r = 0; r < overlay->n_runs; r++) n += results[r]->n_trials;
    overlay->result.trials = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *overlay->result.trials);
    if (!overlay->result.trials) return attn_fail(error, ATTN_EMEMORY, "no memory for %zu runs", n);
    for (size_t r = 0; r < overlay->n_runs; r++)
        for (size_t t = 0; t < results[r]->n_trials; t++) {
            const attn_store_trial *source = &results[r]->trials[t];
            attn_store_trial *trial = &overlay->result.trials[overlay->result.n_trials++];
            *trial = *source;
            trial->mechanism[0] = attn_overlay_letter(r);
            trial->mechanism[1] = ' ';
            const size_t room = sizeof trial->mechanism - 2, length = strlen(source->mechanism);
            if (length >= room) /* cut names could be taken for each other */
                return attn_fail(error, ATTN_EUNSUPPORTED,
                                 "the mechanism '%s' has too long a name to be shown beside those "
                                 "of another run: show its run alone",
                                 source->mechanism);
            memcpy(trial->mechanism + 2, source->mechanism, length + 1);
        }
    return ATTN_OK;
}

static bool add_name(json_t *names, size_t run, const char *mechanism)
{
    return json_array_append_new(names,
                                 json_sprintf("%c %s", attn_overlay_letter(run), mechanism)) == 0;
}

static bool has_mechanism(const attn_summary *summary, const char *name)
{
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        if (strcmp(summary->mechanisms[i].name, name) == 0) return true;
    return false;
}

/* The order of rows: a mechanism of the first run that has it, then its namesakes. The A/A twins
 * stay the twins of their runs' originals. */
static char *merged_plan(const attn_summary *const *summaries, size_t n_runs)
{
    bool is_whole = true;
    json_t *names = json_array();
    for (size_t r = 0; r < n_runs; r++)
        for (size_t i = 0; i < summaries[r]->n_mechanisms; i++) {
            const char *name = summaries[r]->mechanisms[i].name;
            bool is_shown = false;
            for (size_t before = 0; before < r; before++)
                is_shown |= has_mechanism(summaries[before], name);
            for (size_t k = r; k < n_runs && !is_shown; k++)
                if (has_mechanism(summaries[k], name)) is_whole &= add_name(names, k, name);
        }
    json_t *twins = json_array();
    for (size_t r = 0; r < n_runs; r++)
        for (size_t i = 0; i < summaries[r]->n_mechanisms; i++) {
            const attn_summary_mechanism *m = &summaries[r]->mechanisms[i];
            json_t *pair = m->is_again ? json_array() : NULL;
            if (!pair) continue;
            is_whole &= add_name(pair, r, m->name) &&
                        add_name(pair, r, summaries[r]->mechanisms[m->original].name);
            is_whole &= json_array_append_new(twins, pair) == 0;
        }
    json_t *plan = json_pack("{s:o, s:{s:o}}", "mechanisms", names, "measuring", "again", twins);
    char *text = is_whole && plan ? json_dumps(plan, JSON_COMPACT) : NULL;
    char *copy = text ? attn_strdup(text) : NULL;
    free(text);
    json_decref(plan);
    return copy;
}

static attn_status merge(attn_overlay *overlay, const attn_store_result *const *results,
                         attn_error *error)
{
    attn_summary *summaries[ATTN_OVERLAY_RUNS_MAX] = {NULL};
    const attn_summary *constant[ATTN_OVERLAY_RUNS_MAX];
    attn_status status = ATTN_OK;
    size_t n_planned = 0;
    bool all_planned = true;
    overlay->result.run = *overlay->runs[0];
    overlay->result.run.plan_json = NULL;
    for (size_t r = 0; r < overlay->n_runs && status == ATTN_OK; r++) {
        status = attn_summary_make(results[r], &summaries[r], error);
        if (status != ATTN_OK) break;
        constant[r] = summaries[r];
        n_planned += summaries[r]->n_trials_planned;
        all_planned &= summaries[r]->n_trials_planned > 0;
    }
    if (status == ATTN_OK) {
        overlay->result.run.plan_json = merged_plan(constant, overlay->n_runs);
        if (!overlay->result.run.plan_json)
            status = attn_fail(error, ATTN_EMEMORY, "no memory to show several runs");
    }
    if (status == ATTN_OK) status = attn_summary_make(&overlay->result, &overlay->summary, error);
    if (status == ATTN_OK) {
        overlay->summary->overlay = overlay;
        overlay->summary->n_trials_planned = all_planned ? n_planned : 0;
    }
    for (size_t r = 0; r < overlay->n_runs; r++) attn_summary_free(summaries[r]);
    return status;
}

attn_status attn_overlay_make(const attn_store_result *const *results, size_t n_runs,
                              bool is_forced, attn_overlay **out, attn_error *error)
{
    *out = NULL;
    if (n_runs < 2 || n_runs > ATTN_OVERLAY_RUNS_MAX)
        return attn_fail(error, ATTN_EARGUMENT, "2 to %d runs can be shown together, not %zu",
                         ATTN_OVERLAY_RUNS_MAX, n_runs);
    attn_overlay *overlay = attn_alloc(ATTN_MEMORY_OTHER, sizeof *overlay);
    if (!overlay) return attn_fail(error, ATTN_EMEMORY, "no memory to show several runs");
    overlay->n_runs = n_runs;
    for (size_t r = 0; r < n_runs; r++) overlay->runs[r] = &results[r]->run;
    attn_status status = copy_trials(overlay, results, error);
    const attn_comparison_options how = {.is_forced = is_forced, .may_share_none = true};
    for (size_t r = 1; r < n_runs && status == ATTN_OK; r++) {
        status =
            attn_comparison_make(results[0], results[r], &how, &overlay->comparisons[r], error);
        if (status == ATTN_OK) overlay->comparisons[r]->letter = attn_overlay_letter(r);
    }
    if (status == ATTN_OK) status = merge(overlay, results, error);
    if (status == ATTN_OK)
        *out = overlay;
    else
        attn_overlay_free(overlay);
    return status;
}

void attn_overlay_free(attn_overlay *overlay)
{
    if (!overlay) return;
    attn_summary_free(overlay->summary);
    for (size_t r = 0; r < overlay->n_runs; r++) attn_comparison_free(overlay->comparisons[r]);
    attn_free(overlay->result.run.plan_json);
    attn_free(overlay->result.trials);
    attn_free(overlay);
}
