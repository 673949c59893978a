/* Estimates for programs: JSON and CSV. */
#include "base/error.h"
#include "cli/cost_report.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>

/* ---- CSV ------------------------------------------------------------------------------------ */

static void csv_number(FILE *out, double value)
{
    if (isnan(value))
        fputc(',', out);
    else
        fprintf(out, ",%.9g", value);
}

static void csv_row(FILE *out, const cli_cost_rows *rows, const cli_cost_row *row, size_t device)
{
    const attn_cost_estimate *e = &row->estimate;
    const attn_cost_request *r = &e->request;
    const attn_work work = attn_cost_total(e);
    fprintf(out, "%s,%s,%s,%s,%zu,%zu,%zu,%" PRIu64 ",%" PRIu64 ",%" PRIu64, r->spec->record.name,
            r->pattern.label, cli_cost_phase_text(r->phase), attn_cost_type_name(r->type), r->batch,
            r->queries, r->keys, work.matmul, work.exponential, work.other);
    for (size_t c = ATTN_CONVENTION_USEFUL; c < ATTN_CONVENTIONS; c++)
        csv_number(out, attn_convention_flop(e, (attn_cost_convention)c));
    fprintf(out, ",%" PRIu64 ",%" PRIu64 ",%" PRIu64, e->parameters, e->memory.total,
            e->cache_bytes);
    if (rows->question->n_devices) {
        const attn_prediction *p = &row->predictions[device];
        fprintf(out, ",%s,modelled,%.6g,%.6g,%.6g,%s", p->device->record.name, p->time_s.value,
                p->time_s.low, p->time_s.high, attn_cost_bound_name(p->bound));
        csv_number(out, p->energy_j.value);
        csv_number(out, p->energy_j.low);
        csv_number(out, p->energy_j.high);
    } else {
        fputs(",,,,,,,,,", out);
    }
    fputc('\n', out);
}

void cli_cost_csv(FILE *out, const cli_cost_rows *rows)
{
    fputs("model,mechanism,phase,dtype,batch,queries,keys,matmul_flop,exponential_op,other_op",
          out);
    for (size_t c = ATTN_CONVENTION_USEFUL; c < ATTN_CONVENTIONS; c++)
        fprintf(out, ",%s_flop", attn_convention_name((attn_cost_convention)c));
    fputs(",parameters,memory_bytes,cache_bytes,device,provenance,time_s,time_low_s,time_high_s,"
          "bound,energy_j,energy_low_j,energy_high_j\n",
          out);
    const size_t devices = rows->question->n_devices ? rows->question->n_devices : 1;
    for (size_t i = 0; i < rows->count; i++)
        for (size_t d = 0; d < devices && !rows->rows[i].reason[0]; d++)
            csv_row(out, rows, &rows->rows[i], d);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

/* Whole numbers beyond what JSON readers take as such become real. */
static json_t *whole(uint64_t value)
{
    return value <= INT64_MAX ? json_integer((json_int_t)value) : json_real((double)value);
}

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *work_json(attn_work work)
{
    return json_pack("{s:o, s:o, s:o}", "matmul_flop", whole(work.matmul), "exponential_op",
                     whole(work.exponential), "other_op", whole(work.other));
}

static json_t *span_json(attn_cost_span span)
{
    return json_pack("{s:o, s:o, s:o, s:s}", "value", number(span.value), "low", number(span.low),
                     "high", number(span.high), "provenance",
                     isnan(span.value) ? "unavailable" : "modelled");
}

static json_t *memory_json(const attn_cost_memory *m)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "parameters_bytes",
                     whole(m->parameters), "gradients_bytes", whole(m->gradients),
                     "optimizer_bytes", whole(m->optimizer), "activations_bytes",
                     whole(m->activations), "logits_bytes", whole(m->logits), "cache_bytes",
                     whole(m->cache), "total_bytes", whole(m->total));
}

static json_t *part_json(const cli_cost_rows *rows, const attn_cost_request *r,
                         const attn_cost_part *p)
{
    const attn_device *device = rows->question->n_devices ? rows->question->devices[0] : NULL;
    const double size = (double)attn_cost_type_bytes(r->type);
    const double tile = r->tile ? (double)r->tile : attn_cost_tile_rows(device, p, size);
    json_t *part = json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "name", p->name,
        "class", attn_cost_class_name(p->class), "times", whole(p->times), "forward",
        work_json(p->work[ATTN_COST_FORWARD]), "backward", work_json(p->work[ATTN_COST_BACKWARD]),
        "useful_forward_flop", whole(p->useful[ATTN_COST_FORWARD]), "dense_forward_flop",
        whole(p->dense[ATTN_COST_FORWARD]), "forward_bytes", whole(p->bytes[ATTN_COST_FORWARD]),
        "backward_bytes", whole(p->bytes[ATTN_COST_BACKWARD]), "kept_bytes", whole(p->kept_bytes),
        "parameters", whole(p->parameters), "is_in_layer", json_boolean(p->is_in_layer), "formula",
        p->formula);
    static const char *const names[][2] = {{"eager_forward_bytes", "tiled_forward_bytes"},
                                           {"eager_backward_bytes", "tiled_backward_bytes"}};
    for (size_t pass = 0; pass < ATTN_COST_PASSES && p->traffic.is_softmax; pass++) {
        json_object_set_new(part, names[pass][0], number(attn_cost_eager_bytes(p, pass, size)));
        json_object_set_new(part, names[pass][1],
                            number(attn_cost_tiled_bytes(p, pass, size, tile)));
    }
    if (p->traffic.is_softmax) json_object_set_new(part, "tile_queries", number(tile));
    return part;
}

static json_t *prediction_json(const attn_prediction *p)
{
    return json_pack("{s:s, s:b, s:o, s:o, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:b}", "device",
                     p->device->record.name, "is_calibrated", p->is_calibrated, "time_s",
                     span_json(p->time_s), "energy_j", span_json(p->energy_j), "energy_why",
                     p->energy_why, "bound", attn_cost_bound_name(p->bound), "bound_share",
                     p->bound_share, "core_share", p->core_share, "attention_share",
                     p->attention_share, "traffic_bytes", p->bytes, "memory_bytes", p->memory_bytes,
                     "fits_memory", p->fits);
}

static json_t *row_json(const cli_cost_rows *rows, const cli_cost_row *row)
{
    const attn_cost_estimate *e = &row->estimate;
    const char *label = rows->question->mechanisms[row->mechanism].label;
    if (row->reason[0])
        return json_pack("{s:s, s:I, s:s}", "mechanism", label, "keys",
                         (json_int_t)rows->question->lengths.values[row->length], "why",
                         row->reason);
    json_t *conventions = json_object(), *parts = json_array(), *predictions = json_array();
    for (size_t c = 0; c < ATTN_CONVENTIONS; c++)
        json_object_set_new(conventions, attn_convention_name((attn_cost_convention)c),
                            number(attn_convention_flop(e, (attn_cost_convention)c)));
    for (size_t i = 0; i < e->n_parts; i++)
        json_array_append_new(parts, part_json(rows, &e->request, &e->parts[i]));
    for (size_t d = 0; d < rows->question->n_devices; d++)
        json_array_append_new(predictions, prediction_json(&row->predictions[d]));
    return json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "mechanism", label, "batch", (json_int_t)e->request.batch, "queries",
                     (json_int_t)e->request.queries, "keys", (json_int_t)e->request.keys, "forward",
                     work_json(e->forward), "backward", work_json(e->backward), "recomputed",
                     work_json(e->again), "update", work_json(e->update), "matmul_by_convention",
                     conventions, "parameters", whole(e->parameters), "memory",
                     memory_json(&e->memory), "cache_bytes", whole(e->cache_bytes), "predictions",
                     predictions, "parts", parts);
}

static json_t *device_json(const attn_device *d, attn_cost_type type)
{
    const attn_record_origin *origin = attn_device_rate_origin(d, type);
    return json_pack("{s:s, s:s, s:f, s:f, s:f, s:s, s:s}", "name", d->record.name, "title",
                     d->title, "matmul_flop_per_s", 1e12 * attn_device_rate(d, type, NULL)->value,
                     "bandwidth_byte_per_s", 1e9 * d->bandwidth_gb_s.value, "ridge_flop_per_byte",
                     attn_device_ridge(d, type), "source", origin->from, "confidence",
                     origin->confidence);
}

/* Writes text in which nothing can end a script element. */
static int write_script(const char *text, size_t size, void *out)
{
    for (size_t i = 0; i < size; i++)
        if (text[i] == '<')
            fputs("\\u003c", out);
        else
            fputc(text[i], out);
    return 0;
}

attn_status cli_cost_json(FILE *out, const cli_cost_rows *rows, bool is_script, attn_error *error)
{
    static const char *const phases[] = {"train", "prefill", "decode"};
    const cli_cost_question *q = rows->question;
    const attn_cost_request *r = &q->request;
    json_t *list = json_array(), *devices = json_array();
    for (size_t i = 0; i < rows->count; i++)
        json_array_append_new(list, row_json(rows, &rows->rows[i]));
    for (size_t d = 0; d < q->n_devices; d++)
        json_array_append_new(devices, device_json(q->devices[d], r->type));
    json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:o, s:o}", "schema", 1, "model",
                             r->spec->record.name, "phase", phases[r->phase], "dtype",
                             attn_cost_type_name(r->type), "devices", devices, "rows", list);
    const int failed =
        !root       ? -1
        : is_script ? json_dump_callback(root, write_script, out, JSON_COMPACT | JSON_ENSURE_ASCII)
                    : json_dumpf(root, out, JSON_INDENT(2));
    json_decref(root);
    if (failed) return attn_fail(error, ATTN_EIO, "the estimates could not be written as JSON");
    if (!is_script) fputc('\n', out);
    return ATTN_OK;
}
