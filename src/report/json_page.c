/* The JSON that a page carries for its charts. */
#include "report/json.h"

#include "base/error.h"
#include "report/curves.h"
#include "report/json_parts.h"
#include "report/overlay.h"

#include <string.h>

enum { CURVE_POINTS_MOST = 200, POWER_POINTS_MOST = 120 };

/* Under a name that comes from a store. */
static void put_named(json_t *object, const char *name, json_t *value, bool *failed)
{
    json_t *key = report_text(name);
    if (!key) *failed = true;
    report_put(object, key ? json_string_value(key) : "", value, failed);
    json_decref(key);
}

static json_t *curve_value(const attn_curve_point *points, size_t n, bool *failed)
{
    static const struct {
        const char *name;
        size_t offset;
    } columns[] = {{"steps", offsetof(attn_curve_point, step)},
                   {"seconds", offsetof(attn_curve_point, time_s)},
                   {"flop", offsetof(attn_curve_point, operations)},
                   {"joules", offsetof(attn_curve_point, energy_j)},
                   {"loss", offsetof(attn_curve_point, loss)}};
    json_t *o = json_object();
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
        json_t *column = json_array();
        for (size_t i = 0; i < n; i++) {
            double value = 0;
            memcpy(&value, (const char *)&points[i] + columns[c].offset, sizeof value);
            report_add(column, report_number(value), failed);
        }
        report_put(o, columns[c].name, column, failed);
    }
    return o;
}

/* Mean power of equal shares of the samples of one domain, which are n from `first` on. */
static json_t *power_value(const attn_store_sample *first, size_t n, bool *failed)
{
    json_t *o = json_object(), *time = json_array(), *power = json_array();
    const size_t n_points = n < POWER_POINTS_MOST ? n : POWER_POINTS_MOST;
    for (size_t i = 0; i < n_points; i++) {
        const size_t begin = i * n / n_points, end = (i + 1) * n / n_points;
        double sum_w = 0.0;
        for (size_t k = begin; k < end; k++) sum_w += first[k].power_w;
        report_add(time, report_number(first[end - 1].time_s), failed);
        report_add(power, report_number(sum_w / (double)(end - begin)), failed);
    }
    report_put(o, "seconds", time, failed);
    report_put(o, "watts", power, failed);
    return o;
}

static json_t *domains_value(const attn_store_trial *trial, bool *failed)
{
    json_t *o = json_object();
    for (size_t i = 0, end = 0; i < trial->n_samples; i = end) {
        for (end = i; end < trial->n_samples; end++)
            if (strcmp(trial->samples[end].domain, trial->samples[i].domain) != 0) break;
        put_named(o, trial->samples[i].domain, power_value(&trial->samples[i], end - i, failed),
                  failed);
    }
    return o;
}

static attn_status mechanism_value(const attn_summary *summary, size_t index, json_t *mechanisms,
                                   bool *failed, attn_error *error)
{
    const attn_summary_mechanism *m = &summary->mechanisms[index];
    attn_curves curves;
    const attn_status status = attn_curves_make(summary, index, CURVE_POINTS_MOST, &curves, error);
    if (status != ATTN_OK) return status;
    json_t *o = json_object(), *figures = json_object();
    report_put(o, "mechanism", report_text(m->name), failed);
    if (summary->overlay)
        report_put(o, "run", json_integer((json_int_t)attn_overlay_run(m)), failed);
    const attn_curve_look look = attn_curves_look(summary, index);
    report_put(
        o, "look",
        json_pack("[III]", (json_int_t)look.colour, (json_int_t)look.dash, (json_int_t)look.point),
        failed);
    report_put(o, "sees_future", json_boolean(m->sees_future), failed);
    report_put(o, "reason", m->reason ? report_text(m->reason) : json_null(), failed);
    for (size_t i = 0; i < m->n_figures; i++) {
        const attn_summary_figure *f = &m->figures[i];
        json_t *figure = json_array();
        report_add(figure, report_number(f->median), failed);
        report_add(figure, report_number(f->low), failed);
        report_add(figure, report_number(f->high), failed);
        put_named(figures, f->name, figure, failed);
    }
    report_put(o, "figures", figures, failed);
    report_put(o, "training", curve_value(curves.training, curves.n_training, failed), failed);
    report_put(o, "held_out", curve_value(curves.held_out, curves.n_held_out, failed), failed);
    json_t *front = json_array(); /* of which costs */
    for (size_t i = 0; i < ATTN_CURVES_COSTS; i++)
        if (attn_curves_is_on_front(summary, index, attn_curves_costs[i]))
            report_add(front, json_string(attn_curves_costs[i]), failed);
    report_put(o, "front", front, failed);
    const attn_store_trial *metered = attn_curves_power_trial(summary, index);
    if (metered) report_put(o, "power", domains_value(metered, failed), failed);
    report_add(mechanisms, o, failed);
    attn_curves_free(&curves);
    return ATTN_OK;
}

/* In a script element neither "</script" nor "<!--" may stand. '<' occurs in strings only. */
static int write_for_script(const char *bytes, size_t n, void *data)
{
    FILE *out = data;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '<')
            fputs("\\u003c", out);
        else
            fputc(bytes[i], out);
    }
    return ferror(out) ? -1 : 0;
}

attn_status attn_report_json_page(FILE *out, const attn_summary *summary, attn_error *error)
{
    bool failed = false;
    attn_status status = ATTN_OK;
    json_t *mechanisms = json_array();
    for (size_t i = 0; i < summary->n_mechanisms && status == ATTN_OK; i++)
        status = mechanism_value(summary, i, mechanisms, &failed, error);
    if (status == ATTN_OK && (!mechanisms || failed))
        status = attn_fail(error, ATTN_EMEMORY, "no memory for the charts of a page");
    if (status == ATTN_OK &&
        json_dump_callback(mechanisms, write_for_script, out,
                           JSON_REAL_PRECISION(6) | JSON_COMPACT | JSON_ENSURE_ASCII) != 0)
        status = attn_fail(error, ATTN_EIO, "writing a page failed");
    json_decref(mechanisms);
    return status;
}
