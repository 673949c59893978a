/* Advice: predictions, sorted, and judged against flash, which computes the model's own attention. */
#include "cost/advice.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *attn_quality_name(attn_quality quality)
{
    static const char *const names[] = {"exact", "near", "other"};
    return names[quality];
}

/* Exact: pairs, all that causal order shows, plain scores, the model's heads. */
attn_quality attn_mechanism_quality(const char *name)
{
    const attn_mechanism *m = attn_mechanism_find(name);
    if (!m || !m->core || m->core->walk == ATTN_WALK_NONE) return ATTN_QUALITY_ANY;
    return m->core->walk != ATTN_WALK_SCORED && !m->options && !m->check ? ATTN_QUALITY_EXACT
                                                                         : ATTN_QUALITY_NEAR;
}

static attn_quality quality_of(const attn_pattern *pattern)
{
    attn_quality worst = ATTN_QUALITY_EXACT;
    for (size_t i = 0; i < pattern->n_kinds; i++) {
        const attn_quality one = attn_mechanism_quality(pattern->kinds[i].name);
        if (one > worst) worst = one;
    }
    return worst;
}

const char *attn_sureness_name(attn_sureness sureness)
{
    static const char *const names[] = {"modelled", "calibrated", "near", "measured"};
    return names[sureness];
}

/* ---- one mechanism -------------------------------------------------------------------------- */

/* Estimates are large: one of each serves all. */
typedef struct workspace {
    attn_cost_request request;
    const attn_device *device;
    attn_advice_evidences evidences;
    attn_cost_estimate estimate;
    attn_prediction prediction;
    attn_sureness sure; /* of the prediction */
    int64_t run;
} workspace;

static attn_status model(workspace *w, const attn_pattern *mechanism, size_t batch, size_t keys,
                         attn_error *error)
{
    w->request.pattern = *mechanism;
    w->request.batch = batch;
    w->request.keys = keys;
    const attn_status status = attn_cost_estimate_make(&w->request, &w->estimate, error);
    if (status != ATTN_OK) return status;
    return attn_cost_predict(&w->estimate, w->device, &w->prediction, error);
}

static double distance(size_t a, size_t b)
{
    return fabs(log((double)a / (double)b));
}

/* The measurement nearest to the sizes, of those that are near; NULL: none. */
static const attn_advice_evidence *nearest(const workspace *w, const char *label, size_t batch,
                                           size_t keys)
{
    const attn_advice_evidence *best = NULL;
    const double most = log(ATTN_ADVICE_NEAR) + 1e-9;
    double least = INFINITY;
    for (size_t i = 0; i < w->evidences.count; i++) {
        const attn_advice_evidence *e = &w->evidences.list[i];
        if (strcmp(e->mechanism, label) != 0) continue;
        const double in_keys = distance(e->keys, keys), in_batch = distance(e->batch, batch);
        if (in_keys > most || in_batch > most || in_keys + in_batch >= least) continue;
        least = in_keys + in_batch;
        best = e;
    }
    return best;
}

/* A measurement of the sizes themselves takes the model's place; one of near sizes moves it by as
 * much as it is off there. */
static attn_status predict(workspace *w, const attn_pattern *mechanism, size_t keys,
                           attn_error *error)
{
    const size_t batch = w->request.batch;
    const attn_advice_evidence *e = nearest(w, mechanism->label, batch, keys);
    const bool is_same = e && e->keys == keys && e->batch == batch;
    double off = 1.0;
    if (e && !is_same && model(w, mechanism, e->batch, e->keys, NULL) == ATTN_OK)
        off = e->time_s / w->prediction.time_s.value;
    const attn_status status = model(w, mechanism, batch, keys, error);
    if (status != ATTN_OK) return status;
    attn_cost_span *time = &w->prediction.time_s;
    w->run = e ? e->run : 0;
    w->sure = is_same                       ? ATTN_SURE_MEASURED
              : e                           ? ATTN_SURE_NEAR
              : w->prediction.is_calibrated ? ATTN_SURE_CALIBRATED
                                            : ATTN_SURE_MODELLED;
    *time = is_same ? (attn_cost_span){e->time_s, e->low, e->high}
                    : (attn_cost_span){off * time->value, off * time->low, off * time->high};
    return ATTN_OK;
}

/* Time at a length; infinite where there is no form. */
static double time_at(workspace *w, const attn_pattern *mechanism, size_t keys)
{
    return predict(w, mechanism, keys, NULL) == ATTN_OK ? w->prediction.time_s.value : INFINITY;
}

static bool is_ahead(workspace *w, const attn_pattern *mechanism, size_t keys)
{
    return time_at(w, mechanism, keys) * (1.0 + ATTN_ADVICE_MATTERS) <
           time_at(w, &attn_cost_flash, keys);
}

/* By doubling, then halving the interval to a sixteenth of the length. */
static size_t ahead_from(workspace *w, const attn_pattern *mechanism)
{
    size_t keys = 64;
    while (keys <= ATTN_ADVICE_LENGTH_MAX && !is_ahead(w, mechanism, keys)) keys *= 2;
    if (keys > ATTN_ADVICE_LENGTH_MAX) return 0;
    if (keys == 64) return keys;
    size_t below = keys / 2;
    while (keys - below > keys / 16) {
        const size_t middle = below + (keys - below) / 2;
        if (is_ahead(w, mechanism, middle))
            keys = middle;
        else
            below = middle;
    }
    return keys;
}

static void fill_line(const workspace *w, attn_advice_line *line)
{
    const attn_prediction *p = &w->prediction;
    line->sure = w->sure;
    line->run = w->run;
    line->time_s = p->time_s;
    line->energy_j = p->energy_j;
    line->bound = p->bound;
    line->core_share = p->core_share;
    line->attention_share = p->attention_share;
    line->memory_bytes = (uint64_t)p->memory_bytes;
    line->cache_bytes = w->estimate.cache_bytes;
}

static void apply_limits(attn_advice_line *line, const attn_device *device,
                         const attn_advice_limits *limits)
{
    const double memory =
        limits->memory_bytes > 0.0 ? limits->memory_bytes : 1e9 * device->memory_gb.value;
    char *why = line->why_not;
    const size_t room = sizeof line->why_not;
    if (line->quality > limits->worst)
        snprintf(why, room, "%s attention was not asked for", attn_quality_name(line->quality));
    else if ((double)line->memory_bytes > memory)
        snprintf(why, room, "needs %.3g GB of %.3g", 1e-9 * (double)line->memory_bytes,
                 1e-9 * memory);
    else if (limits->energy_j > 0.0 && isnan(line->energy_j.value))
        snprintf(why, room, "its energy is not known, and a limit was set");
    else if (limits->energy_j > 0.0 && line->energy_j.value > limits->energy_j)
        snprintf(why, room, "takes %.3g J of %.3g", line->energy_j.value, limits->energy_j);
}

/* ---- all of them ---------------------------------------------------------------------------- */

/* Candidates before the others, then by time; lines without a time last. */
static int by_time(const void *a_pointer, const void *b_pointer)
{
    const attn_advice_line *a = a_pointer, *b = b_pointer;
    const bool a_is = !a->why_not[0], b_is = !b->why_not[0];
    if (a_is != b_is) return a_is ? -1 : 1;
    const double x = a->time_s.value > 0.0 ? a->time_s.value : INFINITY;
    const double y = b->time_s.value > 0.0 ? b->time_s.value : INFINITY;
    return x < y ? -1 : x > y ? 1 : (int)a->quality - (int)b->quality;
}

/* The exact one to name: flash when it is as fast as any, else the fastest; `candidates` for none. */
static size_t best_exact(const attn_advice *a)
{
    size_t best = 0;
    while (best < a->candidates && a->lines[best].quality != ATTN_QUALITY_EXACT) best++;
    for (size_t i = best; i < a->candidates; i++)
        if (strcmp(a->lines[i].mechanism.label, attn_cost_flash.label) == 0 &&
            a->lines[i].time_s.value <= (1.0 + ATTN_ADVICE_MATTERS) * a->lines[best].time_s.value)
            return i;
    return best;
}

static void judge(attn_advice *out)
{
    qsort(out->lines, out->count, sizeof *out->lines, by_time);
    while (out->candidates < out->count && !out->lines[out->candidates].why_not[0])
        out->n_sure[out->lines[out->candidates++].sure]++;
    if (!out->candidates) {
        out->verdict = ATTN_ADVICE_NOTHING_FITS;
        return;
    }
    const size_t exact = best_exact(out);
    const bool matters =
        exact == out->candidates ||
        out->lines[exact].time_s.value > (1.0 + ATTN_ADVICE_MATTERS) * out->lines[0].time_s.value;
    out->pick = matters ? 0 : exact;
    const bool is_first = out->lines[0].quality == ATTN_QUALITY_EXACT;
    out->verdict = matters || is_first ? ATTN_ADVICE_TAKE : ATTN_ADVICE_NO_DIFFERENCE;
}

attn_status attn_advise(const attn_cost_request *request, const attn_pattern *mechanisms,
                        size_t count, const attn_device *device, const attn_advice_limits *limits,
                        attn_advice_evidences evidences, attn_advice *out, attn_error *error)
{
    *out = (attn_advice){0};
    workspace *w = attn_alloc(ATTN_MEMORY_OTHER, sizeof *w);
    if (!w) return attn_fail(error, ATTN_EMEMORY, "no memory for advice");
    w->request = *request;
    w->device = device;
    w->evidences = evidences;
    attn_status status = predict(w, &attn_cost_flash, request->keys, error);
    if (status == ATTN_OK) {
        out->reference.mechanism = attn_cost_flash;
        fill_line(w, &out->reference);
        out->is_calibrated = w->prediction.is_calibrated;
    }
    for (size_t i = 0; status == ATTN_OK && i < count; i++) {
        attn_advice_line *line = &out->lines[out->count++];
        attn_error here = {0};
        line->mechanism = mechanisms[i];
        line->quality = quality_of(&mechanisms[i]);
        const attn_status one = predict(w, &mechanisms[i], request->keys, &here);
        if (one == ATTN_OK) {
            fill_line(w, line);
            apply_limits(line, device, limits);
            const bool may_grow = request->keys > 0 && strcmp(mechanisms[i].label, "flash") != 0;
            line->ahead_from = may_grow ? ahead_from(w, &mechanisms[i]) : 0;
        } else if (one == ATTN_EUNSUPPORTED || one == ATTN_ESHAPE) {
            attn_text_copy(line->why_not, sizeof line->why_not, here.text);
        } else {
            status = attn_fail(error, one, "%s", here.text);
        }
    }
    attn_free(w);
    if (status == ATTN_OK) judge(out);
    return status;
}
