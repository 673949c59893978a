/* The roofline. Constants that no data sheet states are guesses with wide intervals. */
#include "cost/roofline.h"

#include <math.h>
#include <stdio.h>

const char *attn_cost_bound_name(attn_cost_bound bound)
{
    static const char *const names[] = {"matmul", "vector", "memory", "launch"};
    return names[bound];
}

/* One way to see the device: as its data sheet, as programs find it, or worse. */
typedef struct view {
    double matmul, core, projection, head, exponential, other, bandwidth; /* a second */
    double overlap, launch_s;
} view;

enum { HOPEFUL, CENTRAL, DOUBTFUL, VIEWS };

static double known_or(attn_quantity q, double otherwise)
{
    return q.value > 0.0 ? q.value : otherwise;
}

static bool is_calibrated(const attn_device *d)
{
    return d->other_rate.value > 0.0;
}

/* libattn keeps cores in float32 whatever the products' type. */
static bool keeps_float32(const attn_device *d, const attn_cost_part *part, double element_bytes)
{
    return is_calibrated(d) && part->class == ATTN_COST_CORE && element_bytes < 4.0;
}

/* The share of the peak that large products reach. */
static double matmul_share(const attn_device *d)
{
    if (is_calibrated(d)) return 1.0;
    const double peak = d->rates[ATTN_COST_BF16].value;
    return d->matmul_measured.value > 0.0 && peak > 0.0 ? d->matmul_measured.value / peak : 0.7;
}

static view view_of(const attn_device *d, double rate, size_t which)
{
    const double fp32 = known_or(d->rates[ATTN_COST_F32], rate / 16.0);
    const bool is_gpu = d->kind != ATTN_DEVICE_CPU, is_known = is_calibrated(d);
    view v = {.matmul = 1e12 * rate * matmul_share(d),
              .exponential = 1e12 * known_or(d->exponential, fp32 / 16.0),
              .other = 1e12 * known_or(d->other_rate, fp32 / 2.0),
              .bandwidth = 1e9 * d->bandwidth_gb_s.value * (is_known ? 1.0 : 0.85),
              .overlap = is_gpu ? 0.5 : 0.0,
              .launch_s = known_or(d->launch_s, is_gpu ? 4e-6 : 10e-6)};
    /* the kinds of products differ by as much in every type */
    v.core = is_known ? 1e12 * fp32 : v.matmul;
    v.projection = v.matmul * (is_known ? known_or(d->projection_rate, fp32) / fp32 : 1.0);
    v.head = v.matmul * (is_known ? known_or(d->head_rate, fp32) / fp32 : 1.0);
    if (which == HOPEFUL) {
        const double more = is_known ? 1.25 : 1.0;
        v.matmul = is_known ? more * v.matmul : 1e12 * rate;
        v.core = is_known ? more * v.core : v.matmul;
        v.projection = is_known ? more * v.projection : v.matmul;
        v.head = is_known ? more * v.head : v.matmul;
        v.bandwidth = is_known ? more * v.bandwidth : 1e9 * d->bandwidth_gb_s.high;
        v.overlap = is_gpu ? 1.0 : v.overlap;
        v.launch_s *= 0.5;
    }
    if (which == DOUBTFUL) {
        const double less = is_known ? 0.7 : 0.5;
        v.matmul *= less;
        v.core *= less;
        v.projection *= less;
        v.head *= less;
        v.exponential *= less;
        v.other *= less;
        v.bandwidth *= is_known ? less : 0.7;
        v.overlap = 0.0;
        v.launch_s *= 2.0;
    }
    return v;
}

/* ---- bytes ---------------------------------------------------------------------------------- */

double attn_cost_tile_rows(const attn_device *d, const attn_cost_part *part, double e)
{
    const attn_cost_traffic *t = &part->traffic;
    const double chip = 1024.0 * (d ? known_or(d->on_chip_kib, 128.0) : 128.0);
    const double dk = (double)t->heads.key_width, dv = (double)t->heads.value_width;
    const double keys = 64.0, per_row = e * dk + 4.0 * (dv + 2.0) + 4.0 * keys;
    const double rows = (chip - 2.0 * e * keys * (dk + dv)) / per_row;
    return fmax(16.0, 16.0 * floor(rows / 16.0));
}

/* Heads whose k and v are read at the same time: units take blocks of queries, head after head. */
static double heads_at_work(const attn_device *d, const attn_cost_part *part, double e)
{
    const attn_cost_traffic *t = &part->traffic;
    const double blocks = ceil((double)t->queries / attn_cost_tile_rows(d, part, e));
    const double all = (double)t->batch * (double)t->heads.kv_heads;
    return fmin(all, ceil(known_or(d->units, 1.0) / blocks));
}

/* k and v of the heads at work stay in the last cache when they fit. */
static bool keys_stay(const attn_device *d, const attn_cost_part *part, double e)
{
    const attn_cost_traffic *t = &part->traffic;
    const double width = (double)(t->heads.key_width + t->heads.value_width);
    const double bytes = heads_at_work(d, part, e) * e * (double)t->keys * width;
    return bytes <= 1048576.0 * known_or(d->cache_mib, 0.0);
}

/* Rows that one reading of k and v serves: a block, or with a common cache the blocks of all units
 * on the same head, which run in step. */
static double rows_served(const attn_device *d, const attn_cost_part *part, double e)
{
    const double block = attn_cost_tile_rows(d, part, e);
    if (!(d->cache_mib.value > 0.0)) return block;
    return block * fmax(1.0, known_or(d->units, 1.0) / heads_at_work(d, part, e));
}

double attn_cost_tiled_bytes(const attn_cost_part *part, size_t pass, double e, double rows)
{
    const attn_cost_traffic *t = &part->traffic;
    const double ideal = (double)part->bytes[pass];
    const double heads = (double)t->batch * (double)t->heads.heads;
    const double T = (double)t->queries, S = (double)t->keys;
    const double dk = (double)t->heads.key_width, dv = (double)t->heads.value_width;
    if (pass == ATTN_COST_FORWARD) {
        const double sweeps = t->executed_share * ceil(T / rows);
        return fmax(ideal, heads * e * (T * (dk + dv) + sweeps * S * (dk + dv)));
    }
    /* keys outside: queries and gradients pass once for each block of keys, dq in float32 */
    const double sweeps = t->executed_share * ceil(S / rows);
    return fmax(ideal, heads * (e * (2.0 * S * (dk + dv) + sweeps * T * (dk + dv)) +
                                8.0 * sweeps * T * dk));
}

/* Times that the square of scores passes to or from memory. */
static double square_bytes(const attn_cost_part *part, double e)
{
    const attn_cost_traffic *t = &part->traffic;
    return e * (double)t->batch * (double)t->heads.heads * (double)t->queries * (double)t->keys;
}

double attn_cost_eager_bytes(const attn_cost_part *part, size_t pass, double e)
{
    static const double passes[ATTN_COST_PASSES] = {8.0, 9.0};
    return (double)part->bytes[pass] + passes[pass] * square_bytes(part, e);
}

double attn_cost_part_bytes(const attn_cost_part *part, const attn_device *d, size_t pass, double e)
{
    const attn_cost_traffic *t = &part->traffic;
    if (!t->is_softmax) return (double)part->bytes[pass];
    if (!t->is_square)
        return t->queries == 1 || keys_stay(d, part, e)
                   ? (double)part->bytes[pass]
                   : attn_cost_tiled_bytes(part, pass, e, rows_served(d, part, e));
    if (d->kind != ATTN_DEVICE_CPU) return attn_cost_eager_bytes(part, pass, e);
    /* libattn keeps the square in cache and writes what the backward pass reads, twice */
    return (double)part->bytes[pass] +
           (pass == ATTN_COST_FORWARD ? 1.0 : 2.0) * square_bytes(part, e);
}

/* ---- time ----------------------------------------------------------------------------------- */

static double rate_of(attn_cost_class class, const view *v)
{
    switch (class) {
    case ATTN_COST_CORE:
        return v->core;
    case ATTN_COST_PROJECTION:
        return v->projection;
    case ATTN_COST_HEAD:
        return v->head;
    default:
        return v->matmul;
    }
}

/* What was measured in the step's type, or in float32, which cores without products in bfloat16
 * stay in; 1 when nothing was. */
static double factor_at(const attn_device *d, size_t mechanism, bool is_narrow, size_t pass,
                        size_t length)
{
    const double narrow = d->cores[ATTN_CORE_BF16][pass][length][mechanism];
    if (is_narrow && narrow > 0.0) return narrow;
    const double factor = d->cores[ATTN_CORE_F32][pass][length][mechanism];
    return factor > 0.0 ? factor : 1.0;
}

/* How many times longer the core's pass takes than its operations: as at the lengths that were
 * measured, between them by the logarithm of the length. Decoding has kernels of its own. */
static double core_factor(const attn_cost_estimate *e, const attn_device *d,
                          const attn_cost_part *part, size_t pass)
{
    if (part->mechanism == SIZE_MAX || part->traffic.queries == 1) return 1.0;
    const bool is_narrow = attn_cost_type_bytes(e->request.type) < 4;
    const double at_short = factor_at(d, part->mechanism, is_narrow, pass, 0);
    const double at_long = factor_at(d, part->mechanism, is_narrow, pass, 1);
    const double from = (double)attn_core_length(0), to = (double)attn_core_length(1);
    const double way = log((double)e->request.keys / from) / log(to / from);
    return at_short * pow(at_long / at_short, fmin(fmax(way, 0.0), 1.0));
}

static attn_cost_terms terms_of(const attn_cost_part *part, size_t pass, double bytes,
                                double factor, const view *v)
{
    const attn_work *work = &part->work[pass];
    return (attn_cost_terms){.matmul_s = factor * (double)work->matmul / rate_of(part->class, v),
                             .exponential_s = factor * (double)work->exponential / v->exponential,
                             .other_s = factor * (double)work->other / v->other,
                             .memory_s = bytes / v->bandwidth,
                             .launch_s = v->launch_s * (double)part->kernels[pass]};
}

static double pass_time(const attn_cost_terms *t, double overlap, attn_cost_bound *bound)
{
    const double vector = t->exponential_s + t->other_s;
    const double compute = fmax(t->matmul_s + (1.0 - overlap) * vector, vector);
    const double busy = fmax(compute, t->memory_s);
    *bound = t->launch_s > busy       ? ATTN_BOUND_LAUNCH
             : t->memory_s >= compute ? ATTN_BOUND_MEMORY
             : t->matmul_s >= vector  ? ATTN_BOUND_MATMUL
                                      : ATTN_BOUND_VECTOR;
    return busy + t->launch_s;
}

static void add_terms(attn_cost_terms *sum, const attn_cost_terms *t, double times)
{
    sum->matmul_s += times * t->matmul_s;
    sum->exponential_s += times * t->exponential_s;
    sum->other_s += times * t->other_s;
    sum->memory_s += times * t->memory_s;
    sum->launch_s += times * t->launch_s;
}

/* How often a pass of a part runs in the step. */
static double runs(const attn_cost_estimate *e, const attn_cost_part *part, size_t pass)
{
    const bool is_training = e->request.phase == ATTN_COST_TRAIN;
    if (pass == ATTN_COST_BACKWARD)
        return is_training && part->class != ATTN_COST_UPDATE ? (double)part->times : 0.0;
    const attn_cost_recompute r = e->request.recompute;
    const bool again =
        is_training &&
        (r == ATTN_RECOMPUTE_FULL ? part->is_in_layer
                                  : r == ATTN_RECOMPUTE_CORE && part->class == ATTN_COST_CORE);
    return (again ? 2.0 : 1.0) * (double)part->times;
}

/* Bytes of a pass as the device's program moves them. */
static double moved_bytes(const attn_cost_estimate *e, const attn_device *d,
                          const attn_cost_part *part, size_t pass, double element)
{
    double bytes = attn_cost_part_bytes(part, d, pass, element);
    if (keeps_float32(d, part, element)) bytes *= 4.0 / element;
    /* the update packs the weights for forward products */
    if (is_calibrated(d) && element < 4.0 && part->class == ATTN_COST_UPDATE)
        bytes += element * (double)e->parameters;
    return bytes;
}

static void predict_time(const attn_cost_estimate *e, const attn_device *d, double rate,
                         attn_prediction *out)
{
    const double element = (double)attn_cost_type_bytes(e->request.type);
    double times[VIEWS] = {0}, core[VIEWS] = {0}, bounds[ATTN_BOUNDS] = {0};
    for (size_t i = 0; i < e->n_parts; i++) {
        const attn_cost_part *part = &e->parts[i];
        double longest = 0.0;
        for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++) {
            const double bytes = moved_bytes(e, d, part, pass, element);
            const double n = runs(e, part, pass), factor = core_factor(e, d, part, pass);
            out->bytes += n * bytes;
            for (size_t which = 0; which < VIEWS; which++) {
                const view v = view_of(d, rate, which);
                const attn_cost_terms terms = terms_of(part, pass, bytes, factor, &v);
                attn_cost_bound bound;
                const double time = n * pass_time(&terms, v.overlap, &bound);
                times[which] += time;
                if (part->class == ATTN_COST_CORE) core[which] += time;
                if (which != CENTRAL) continue;
                bounds[bound] += time;
                if (part->class == ATTN_COST_CORE || part->class == ATTN_COST_PROJECTION)
                    out->attention_share += time;
                add_terms(&out->terms[part->class][pass], &terms, n);
                out->class_s[part->class][pass] += time;
                out->part_s[i] += time;
                if (time > longest) out->part_bound[i] = bound;
                longest = fmax(longest, time);
            }
        }
    }
    out->time_s = (attn_cost_span){times[CENTRAL], times[HOPEFUL], times[DOUBTFUL]};
    out->core_s = (attn_cost_span){core[CENTRAL], core[HOPEFUL], core[DOUBTFUL]};
    for (size_t b = 1; b < ATTN_BOUNDS; b++)
        if (bounds[b] > bounds[out->bound]) out->bound = (attn_cost_bound)b;
    out->bound_share = bounds[out->bound] / times[CENTRAL];
    out->core_share = core[CENTRAL] / times[CENTRAL];
    out->attention_share /= times[CENTRAL];
}

/* ---- energy --------------------------------------------------------------------------------- */

/* Picojoules and watts at rest. */
typedef struct energies {
    attn_quantity matmul, exponential, other, dram, idle_w;
} energies;

/* A guess is right within a factor; a data sheet's typical value within less. Where nothing can be
 * guessed, a fit found nothing. */
static attn_quantity energy_or(attn_quantity known, double guess)
{
    if (known.value > 0.0 && known.high > known.low) return known;
    if (!(known.value > 0.0) && isnan(guess)) return (attn_quantity){0};
    const double spread = known.value > 0.0 ? 1.3 : 2.0;
    const double value = known_or(known, guess);
    return (attn_quantity){value, value / spread, value * spread};
}

static attn_quantity scaled(attn_quantity q, double factor)
{
    return (attn_quantity){q.value * factor, q.low * factor, q.high * factor};
}

static energies energies_of(const attn_device *d, attn_cost_type type, double rate)
{
    static const double dram[] = {50.0, 65.0, 150.0, 40.0}; /* hbm, gddr, ddr, lpddr */
    const double tdp = d->tdp_w.value;
    const double best = type == ATTN_COST_BF16 ? rate * matmul_share(d) : rate;
    const double fp32 = known_or(d->rates[ATTN_COST_F32], rate / 16.0);
    const bool is_cpu = d->kind == ATTN_DEVICE_CPU, is_fitted = is_calibrated(d);
    const double rest = is_fitted ? 0.0 : 0.1 * tdp;
    energies e = {.matmul = energy_or(d->matmul_pj, 0.6 * tdp / best),
                  .dram = energy_or(d->dram_pj, is_fitted ? NAN : dram[d->memory_kind]),
                  .idle_w = d->idle_w.value > 0.0 ? d->idle_w : (attn_quantity){rest, rest, rest}};
    /* fitted in float32; another type's products draw the same power */
    if (is_fitted) e.matmul = scaled(e.matmul, fp32 / rate);
    e.other = energy_or(d->other_pj, is_cpu ? 0.6 * tdp / fp32 : 10.0 * e.matmul.value);
    e.exponential = energy_or(d->exponential_pj, (is_cpu ? 20.0 : 4.0) * e.other.value);
    return e;
}

static double joules(double matmul, double exponential, double other, double dram,
                     const attn_work *work, double bytes)
{
    return 1e-12 * (matmul * (double)work->matmul + exponential * (double)work->exponential +
                    other * (double)work->other + dram * bytes);
}

static void predict_energy(const attn_cost_estimate *e, const attn_device *d, double rate,
                           attn_prediction *out)
{
    out->energy_j = (attn_cost_span){NAN, NAN, NAN};
    if (!(d->tdp_w.value > 0.0) && !(d->matmul_pj.value > 0.0)) {
        snprintf(out->energy_why, sizeof out->energy_why,
                 "the power limit of %s is not published and nothing of it was measured",
                 d->record.name);
        return;
    }
    const energies pj = energies_of(d, e->request.type, rate);
    const attn_work work = attn_cost_total(e);
    const double dynamic = joules(pj.matmul.value, pj.exponential.value, pj.other.value,
                                  pj.dram.value, &work, out->bytes);
    const double tdp = d->tdp_w.value, rest_w = pj.idle_w.value;
    /* More than the limit cannot flow: then time follows power. */
    if (tdp > 0.0 && dynamic + rest_w * out->time_s.value > tdp * out->time_s.value)
        out->time_s.value = fmin(out->time_s.high, dynamic / (tdp - rest_w));
    out->energy_j.value = dynamic + rest_w * out->time_s.value;
    out->energy_j.low =
        joules(pj.matmul.low, pj.exponential.low, pj.other.low, pj.dram.low, &work, out->bytes) +
        pj.idle_w.low * out->time_s.low;
    out->energy_j.high = joules(pj.matmul.high, pj.exponential.high, pj.other.high, pj.dram.high,
                                &work, out->bytes) +
                         pj.idle_w.high * out->time_s.high;
}

attn_status attn_cost_predict(const attn_cost_estimate *e, const attn_device *d,
                              attn_prediction *out, attn_error *error)
{
    *out = (attn_prediction){.device = d, .is_calibrated = is_calibrated(d)};
    const attn_quantity *rate = attn_device_rate(d, e->request.type, error);
    if (!rate) return ATTN_EARGUMENT;
    /* gradients are float32; and where there is no optimizer, there are float32 weights yet */
    out->memory_bytes = (double)e->memory.total;
    if (is_calibrated(d) && attn_cost_type_bytes(e->request.type) < 4)
        out->memory_bytes +=
            (e->request.phase == ATTN_COST_TRAIN ? 2.0 : 4.0) * (double)e->parameters;
    out->fits = out->memory_bytes <= 1e9 * d->memory_gb.value;
    predict_time(e, d, rate->value, out);
    predict_energy(e, d, rate->value, out);
    return ATTN_OK;
}

double attn_device_ridge(const attn_device *d, attn_cost_type type)
{
    const attn_quantity *rate = attn_device_rate(d, type, NULL);
    return rate ? 1e3 * rate->value / d->bandwidth_gb_s.value : NAN;
}
