/* Every term of an estimate, and the catalog as lists. */
#include "cli/cost_report.h"
#include "report/format.h"

#include <math.h>
#include <string.h>

static void print_pass(FILE *out, const char *name, attn_work work, uint64_t bytes)
{
    fprintf(out, "    %-9s %10s %10s %10s %12s\n", name,
            work.matmul ? attn_format_si((double)work.matmul, 4, "").text : "0",
            work.exponential ? attn_format_si((double)work.exponential, 4, "").text : "0",
            work.other ? attn_format_si((double)work.other, 4, "").text : "0",
            bytes ? attn_format_si((double)bytes, 4, "byte").text : "0");
}

/* Traffic of a core by three ways, and the intensity of each. */
static void print_traffic(FILE *out, const cli_cost_rows *rows, const attn_cost_estimate *e,
                          const attn_cost_part *p)
{
    const attn_device *device = rows->question->n_devices ? rows->question->devices[0] : NULL;
    const double size = (double)attn_cost_type_bytes(e->request.type);
    const double tile =
        e->request.tile ? (double)e->request.tile : attn_cost_tile_rows(device, p, size);
    const double matmul = (double)p->work[ATTN_COST_FORWARD].matmul;
    const double bytes[] = {(double)p->bytes[ATTN_COST_FORWARD],
                            attn_cost_tiled_bytes(p, ATTN_COST_FORWARD, size, tile),
                            attn_cost_eager_bytes(p, ATTN_COST_FORWARD, size)};
    char names[3][32] = {"each tensor once", "", "square in memory"};
    snprintf(names[1], sizeof names[1], "tiles of %.0f queries", tile);
    for (size_t i = 0; i < 3; i++)
        fprintf(out, "    forward   %-24s %12s %10.1f FLOP/byte\n", names[i],
                attn_format_si(bytes[i], 4, "byte").text, matmul / bytes[i]);
}

static void print_part(FILE *out, const cli_cost_row *row, size_t index, const cli_cost_rows *rows)
{
    const attn_cost_estimate *e = &row->estimate;
    const attn_cost_part *p = &e->parts[index];
    fprintf(out, "  %s, %llu times\n", p->name, (unsigned long long)p->times);
    if (p->formula[0]) {
        fputs("    matmul    ", out);
        attn_format_wrapped(out, p->formula, 14, 14, 80);
    }
    print_pass(out, "forward", p->work[ATTN_COST_FORWARD], p->bytes[ATTN_COST_FORWARD]);
    if (e->request.phase == ATTN_COST_TRAIN && p->class != ATTN_COST_UPDATE)
        print_pass(out, "backward", p->work[ATTN_COST_BACKWARD], p->bytes[ATTN_COST_BACKWARD]);
    if (p->traffic.is_softmax) print_traffic(out, rows, e, p);
    if (p->parameters)
        fprintf(out, "    parameters %s\n", attn_format_count((double)p->parameters, " ").text);
    if (e->request.phase == ATTN_COST_TRAIN && p->kept_bytes)
        fprintf(out, "    kept       %s for the backward pass\n",
                attn_format_si((double)p->kept_bytes, 4, "byte").text);
    for (size_t d = 0; d < rows->question->n_devices; d++)
        fprintf(out, "    %-10s %s modelled for all, %s\n", rows->question->devices[d]->record.name,
                attn_format_si(row->predictions[d].part_s[index], 3, "s").text,
                attn_cost_bound_name(row->predictions[d].part_bound[index]));
}

static void print_memory(FILE *out, const attn_cost_memory *m)
{
    const struct {
        const char *name;
        uint64_t bytes;
    } lines[] = {{"parameters", m->parameters}, {"gradients", m->gradients},
                 {"optimizer", m->optimizer},   {"activations", m->activations},
                 {"logits", m->logits},         {"cache", m->cache},
                 {"together", m->total}};
    fputs("  memory\n", out);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (lines[i].bytes)
            fprintf(out, "    %-11s %s\n", lines[i].name,
                    attn_format_si((double)lines[i].bytes, 4, "byte").text);
}

static void print_conventions(FILE *out, const attn_cost_estimate *e)
{
    fputs("  matmul FLOP by convention\n", out);
    for (size_t c = 0; c < ATTN_CONVENTIONS; c++) {
        const double flop = attn_convention_flop(e, (attn_cost_convention)c);
        fprintf(out, "    %-15s %s\n", attn_convention_name((attn_cost_convention)c),
                isnan(flop) ? "says nothing of this" : attn_format_si(flop, 4, "").text);
    }
}

void cli_cost_explain(FILE *out, const cli_cost_rows *rows)
{
    for (size_t i = 0; i < rows->count; i++) {
        const cli_cost_row *row = &rows->rows[i];
        fprintf(out, "%s%s, %zu tokens", i ? "\n" : "",
                rows->question->mechanisms[row->mechanism].label,
                rows->question->lengths.values[row->length]);
        if (row->reason[0]) {
            fprintf(out, ": %s\n", row->reason);
            continue;
        }
        fprintf(out, "\n    %-9s %10s %10s %10s %12s\n", "once", "matmul", "exp", "other", "bytes");
        for (size_t p = 0; p < row->estimate.n_parts; p++) print_part(out, row, p, rows);
        print_memory(out, &row->estimate.memory);
        print_conventions(out, &row->estimate);
    }
}

/* ---- the catalog ---------------------------------------------------------------------------- */

static attn_text quantity_text(attn_quantity q)
{
    attn_text text = {"n/p"};
    if (q.value == 0.0) strcpy(text.text, "-");
    if (q.value > 0.0 && q.low == q.high) snprintf(text.text, sizeof text.text, "%g", q.value);
    if (q.value > 0.0 && q.low < q.high)
        snprintf(text.text, sizeof text.text, "%g-%g", q.low, q.high);
    return text;
}

void cli_cost_list(FILE *out, const attn_catalog *catalog)
{
    fprintf(out, "%-15s %-34s %9s %9s %9s\n", "device", "", "TFLOP/s", "GB/s", "GB");
    for (size_t i = 0; i < catalog->devices.count; i++) {
        const attn_device *d = attn_records_at(&catalog->devices, i);
        attn_quantity best = d->rates[ATTN_COST_BF16];
        if (!(best.value > 0.0)) best = d->rates[ATTN_COST_FP16];
        if (!(best.value > 0.0)) best = d->rates[ATTN_COST_F32];
        fprintf(out, "%-15s %-34s %9s %9s %9s\n", d->record.name, d->title,
                quantity_text(best).text, quantity_text(d->bandwidth_gb_s).text,
                quantity_text(d->memory_gb).text);
    }
    fprintf(out, "\n%-18s %-34s %18s\n", "model", "", "parameters");
    for (size_t i = 0; i < catalog->models.count; i++) {
        const attn_spec *s = attn_records_at(&catalog->models, i);
        const uint64_t n = attn_spec_parameters(s);
        fprintf(out, "%-18s %-34s %18s\n", s->record.name, s->title,
                n ? attn_format_count((double)n, " ").text : "composed");
    }
}

static void markdown_device(FILE *out, const attn_records *records, const attn_device *d)
{
    const attn_quantity columns[] = {d->fp64,
                                     d->rates[ATTN_COST_F32],
                                     d->rates[ATTN_COST_TF32],
                                     d->rates[ATTN_COST_BF16],
                                     d->rates[ATTN_COST_FP16],
                                     d->rates[ATTN_COST_FP8],
                                     d->rates[ATTN_COST_INT8],
                                     d->memory_gb,
                                     d->bandwidth_gb_s,
                                     d->cache_mib,
                                     d->tdp_w};
    fprintf(out, "| %s | %s ", d->record.name, d->title);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        fprintf(out, "| %s ", quantity_text(columns[i]).text);
    attn_cost_type type = ATTN_COST_BF16;
    if (!(d->rates[type].value > 0.0)) type = ATTN_COST_FP16;
    if (!(d->rates[type].value > 0.0)) type = ATTN_COST_F32;
    fprintf(out, "| %.0f | %s |\n", attn_device_ridge(d, type),
            attn_record_origin_of(records, d, "bandwidth_gb_s")->confidence);
}

static void markdown_sources(FILE *out, const attn_records *records)
{
    for (size_t i = 0; i < records->count; i++) {
        const attn_record *r = attn_records_at(records, i);
        fprintf(out, "- **%s**", r->name);
        const attn_record_origin *last = NULL;
        for (size_t f = 0; f < records->table->n_fields; f++) {
            const attn_record_origin *origin = &r->origins[f];
            if (!origin->from[0]) continue;
            bool is_new = true;
            for (size_t g = 0; g < f; g++)
                is_new &= strcmp(r->origins[g].from, origin->from) != 0 ||
                          strcmp(r->origins[g].confidence, origin->confidence) != 0;
            if (!is_new) continue;
            fprintf(out, "%s %s: %s", last ? ";" : ":", records->table->fields[f].name,
                    origin->from);
            fprintf(out, " (%s)", origin->confidence);
            last = origin;
        }
        fputc('\n', out);
    }
}

void cli_cost_list_markdown(FILE *out, const attn_catalog *catalog)
{
    fputs("| device | | fp64 | fp32 | tf32 | bf16 | fp16 | fp8 | int8 | GB | GB/s | cache MiB | "
          "TDP W | ridge | confidence |\n"
          "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n",
          out);
    for (size_t i = 0; i < catalog->devices.count; i++)
        markdown_device(out, &catalog->devices, attn_records_at(&catalog->devices, i));
    fputs("\n| model | | layers | width | heads | kv heads | head dim | ffn | vocabulary | "
          "parameters | active |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
          out);
    for (size_t i = 0; i < catalog->models.count; i++) {
        const attn_spec *s = attn_records_at(&catalog->models, i);
        if (s->kind == ATTN_SPEC_VISION_LANGUAGE) {
            fprintf(out, "| %s | %s: %s and %s | | | | | | | | | |\n", s->record.name, s->title,
                    s->vision, s->language);
            continue;
        }
        fprintf(out, "| %s | %s | %zu | %zu | %zu | %zu | %zu | %zu | %zu | %s ", s->record.name,
                s->title, s->layers, s->width, s->heads, s->kv_heads, s->head_dim, s->ffn,
                s->vocabulary, attn_format_count((double)attn_spec_parameters(s), " ").text);
        fprintf(out, "| %s |\n",
                s->experts ? attn_format_count((double)attn_spec_active_parameters(s), " ").text
                           : "");
    }
    fputs("\n## Where the numbers come from\n\nThe first field of each source is named; further "
          "fields have the same one.\n\n",
          out);
    markdown_sources(out, &catalog->devices);
    fputc('\n', out);
    markdown_sources(out, &catalog->models);
}
