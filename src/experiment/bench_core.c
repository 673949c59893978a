/* The core and layer benchmarks: sizes one after the other; at each, all variants in turns, and
 * between them the peaks, so that whatever slows the machine slows all of them. */
#include "experiment/bench_core.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "experiment/bench_peaks.h"
#include "experiment/bench_subject.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *attn_bench_dtype_name(attn_dtype dtype)
{
    return dtype == ATTN_BF16 ? "bf16" : "f32";
}

static const double reading_s = 2e-3; /* short calls are made several times for one reading */
enum { CALLS_MAX = 10000 };

const char *attn_bench_direction_name(attn_bench_direction direction)
{
    static const char *const names[ATTN_BENCH_DIRECTIONS] = {"forward", "backward", "decode"};
    return names[direction];
}

typedef struct bench {
    const attn_bench_core_options *options;
    attn_bench_core *result;
    attn_context *context;
    attn_peak_probe *probe;
    attn_bench_subject *subjects;     /* [n_variants] */
    double *times;                    /* [n_variants][repeats] */
    double *ratios, *shares, *limits; /* [repeats] */
    double *peaks;      /* [ATTN_BENCH_PEAKS][cells][repeats]: every reading of the run */
    size_t cell, cells; /* a direction at a size; how many there are */
} bench;

static size_t direction_count(const attn_bench_core_options *o)
{
    size_t n = 0;
    for (int i = 0; i < ATTN_BENCH_DIRECTIONS; i++) n += o->directions[i];
    return n;
}

static attn_status set_up(bench *b, attn_error *error)
{
    const attn_bench_core_options *o = b->options;
    const size_t groups = o->heads.count * o->head_dims.count * direction_count(o);
    b->cells = groups * o->lengths.count;
    attn_status status = attn_context_create(&b->context, o->threads, o->isa, error);
    if (status == ATTN_OK) status = attn_peak_probe_create(&b->probe, o->threads, o->isa, error);
    if (status != ATTN_OK) return status;
    attn_bench_core *r = b->result;
    r->rows = attn_alloc_array(ATTN_MEMORY_OTHER, b->cells * o->n_variants, sizeof *r->rows);
    r->crossovers =
        attn_alloc_array(ATTN_MEMORY_OTHER, groups * o->n_variants, sizeof *r->crossovers);
    b->subjects = attn_alloc_array(ATTN_MEMORY_OTHER, o->n_variants, sizeof *b->subjects);
    b->times = attn_alloc_array(ATTN_MEMORY_OTHER, o->n_variants * o->repeats, sizeof *b->times);
    b->ratios = attn_alloc_array(ATTN_MEMORY_OTHER, o->repeats, sizeof *b->ratios);
    b->shares = attn_alloc_array(ATTN_MEMORY_OTHER, o->repeats, sizeof *b->shares);
    b->limits = attn_alloc_array(ATTN_MEMORY_OTHER, o->repeats, sizeof *b->limits);
    b->peaks = attn_alloc_array(ATTN_MEMORY_OTHER, ATTN_BENCH_PEAKS * b->cells * o->repeats,
                                sizeof *b->peaks);
    if (!r->rows || !r->crossovers || !b->subjects || !b->times || !b->ratios || !b->shares ||
        !b->limits || !b->peaks)
        return attn_fail(error, ATTN_EMEMORY, "no memory for the benchmark");
    r->threads = attn_context_threads(b->context);
    snprintf(r->isa, sizeof r->isa, "%s", attn_context_isa(b->context));
    snprintf(r->dense, sizeof r->dense, "%s", attn_context_dense(b->context));
    return ATTN_OK;
}

static void tear_down(bench *b)
{
    attn_free(b->subjects);
    attn_free(b->times);
    attn_free(b->ratios);
    attn_free(b->shares);
    attn_free(b->limits);
    attn_free(b->peaks);
    attn_peak_probe_free(b->probe);
    attn_context_free(b->context);
}

/* Seconds of one call. */
static attn_status time_calls(attn_bench_subject *s, attn_bench_direction direction, double *time_s,
                              attn_error *error)
{
    attn_status status = ATTN_OK;
    const uint64_t begin_ns = attn_clock_ns();
    for (size_t i = 0; i < s->calls && status == ATTN_OK; i++)
        status = attn_bench_subject_run(s, direction, error);
    *time_s = attn_clock_seconds(begin_ns, attn_clock_ns()) / (double)s->calls;
    return status;
}

static attn_status choose_calls(attn_bench_subject *s, attn_bench_direction direction,
                                attn_error *error)
{
    double time_s = 0.0;
    s->calls = 1;
    const attn_status status = time_calls(s, direction, &time_s, error);
    const double wanted = ceil(reading_s / (time_s > 1e-9 ? time_s : 1e-9));
    s->calls = wanted < 1.0 ? 1 : wanted > CALLS_MAX ? CALLS_MAX : (size_t)wanted;
    return status;
}

/* FLOPs of exact attention over the pairs in causal order; 2.5 times as many backward, where
 * scores are computed again. Layers: and of the projections to q, k, v and from o. */
static double useful_flop(attn_bench_size s, bool is_layer, attn_bench_direction direction)
{
    const bool decodes = direction == ATTN_BENCH_DECODE;
    const bool is_backward = direction == ATTN_BENCH_BACKWARD;
    const double B = (double)s.batch, T = (double)s.length, heads = (double)s.heads;
    const double width = heads * (double)s.head_dim, tokens = decodes ? 1.0 : T;
    const double pairs = decodes ? T : T * (T + 1.0) / 2.0;
    double flop = (is_backward ? 10.0 : 4.0) * pairs * width * B;
    if (is_layer) flop += (is_backward ? 16.0 : 8.0) * B * tokens * width * width;
    return flop;
}

/* ---- peaks ------------------------------------------------------------------------------- */

static double *peak_readings(const bench *b, attn_bench_peak peak)
{
    return b->peaks + (size_t)peak * b->cells * b->options->repeats;
}

/* The reading of the cell in work. */
static double *peak_at(const bench *b, attn_bench_peak peak, size_t repeat)
{
    return peak_readings(b, peak) + b->cell * b->options->repeats + repeat;
}

/* Which peaks the options' shares and limits are made from. */
static void choose_peaks(bench *b)
{
    const attn_bench_core_options *o = b->options;
    bool *has = b->result->has_peak;
    has[ATTN_PEAK_FMA] = has[ATTN_PEAK_EXPONENTIAL] =
        o->directions[ATTN_BENCH_FORWARD] || o->directions[ATTN_BENCH_BACKWARD];
    has[ATTN_PEAK_MEMORY] = o->directions[ATTN_BENCH_DECODE];
    for (size_t i = 0; i < o->n_variants; i++)
        if (o->variants[i].dtype == ATTN_BF16 && has[ATTN_PEAK_FMA])
            has[ATTN_PEAK_TILES] = !isnan(attn_peak_probe_read(b->probe, ATTN_PEAK_TILES));
}

static void read_peaks(bench *b, attn_bench_direction direction, size_t repeat)
{
    for (int i = 0; i < ATTN_BENCH_PEAKS; i++) {
        const attn_bench_peak peak = (attn_bench_peak)i;
        const bool is_meant = (peak == ATTN_PEAK_MEMORY) == (direction == ATTN_BENCH_DECODE);
        *peak_at(b, peak, repeat) =
            is_meant && b->result->has_peak[i] ? attn_peak_probe_read(b->probe, peak) : NAN;
    }
}

static void summarise_peaks(bench *b)
{
    const size_t n = b->cells * b->options->repeats;
    for (int i = 0; i < ATTN_BENCH_PEAKS; i++) {
        double *readings = peak_readings(b, (attn_bench_peak)i);
        size_t known = 0;
        for (size_t at = 0; at < n; at++)
            if (!isnan(readings[at])) readings[known++] = readings[at];
        if (known > 0) b->result->peaks[i] = attn_bench_spread_of(readings, known);
    }
}

/* Seconds that the work takes at the peaks of a repeat: products, and then exponentials. Levels
 * without units for bfloat16 widen it and use those of float32. */
static double limit_s(const bench *b, const attn_bench_work *work, size_t repeat,
                      double *products_s)
{
    const double fma = *peak_at(b, ATTN_PEAK_FMA, repeat);
    const double tiles = *peak_at(b, ATTN_PEAK_TILES, repeat);
    *products_s = work->f32_flop / fma + work->bf16_flop / (isnan(tiles) ? fma : tiles) +
                  work->parts_flop / (isnan(tiles) ? fma : tiles / 3.0);
    return *products_s + work->exponentials / *peak_at(b, ATTN_PEAK_EXPONENTIAL, repeat);
}

/* ---- rows -------------------------------------------------------------------------------- */

static void add_row(bench *b, size_t variant, attn_bench_direction direction)
{
    const size_t n = b->options->repeats;
    const attn_bench_subject *s = &b->subjects[variant];
    const double *first = b->times, *times = b->times + variant * n;
    const attn_bench_work work = attn_bench_subject_work(s, direction);
    attn_bench_row *row = &b->result->rows[b->result->n_rows++];
    *row = (attn_bench_row){.variant = variant,
                            .direction = direction,
                            .length = s->size.length,
                            .heads = s->size.heads,
                            .head_dim = s->size.head_dim,
                            .useful_flop = useful_flop(s->size, s->is_layer, direction),
                            .executed_flop = work.f32_flop + work.bf16_flop + work.parts_flop,
                            .exponentials = work.exponentials,
                            .read_bytes = work.read_bytes,
                            .held_bytes = (double)s->held_bytes};
    for (size_t i = 0; i < n; i++) {
        double least_s = 0.0, products_s = 0.0;
        if (direction == ATTN_BENCH_DECODE)
            least_s = products_s = work.read_bytes / *peak_at(b, ATTN_PEAK_MEMORY, i);
        else
            least_s = limit_s(b, &work, i, &products_s);
        b->ratios[i] = times[i] / first[i];
        b->shares[i] = products_s / times[i];
        b->limits[i] = times[i] / least_s;
    }
    row->ratio = attn_bench_spread_of(b->ratios, n);
    row->share = attn_bench_spread_of(b->shares, n);
    row->limit = attn_bench_spread_of(b->limits, n);
}

/* Sorting the times comes last: ratios pair them repeat by repeat. */
static void add_rows(bench *b, attn_bench_direction direction)
{
    const size_t n = b->options->n_variants, before = b->result->n_rows;
    for (size_t m = 0; m < n; m++) add_row(b, m, direction);
    for (size_t m = 0; m < n; m++)
        b->result->rows[before + m].time =
            attn_bench_time_of(b->times + m * b->options->repeats, b->options->repeats);
}

static attn_status run_direction(bench *b, attn_bench_direction direction, attn_error *error)
{
    const attn_bench_core_options *o = b->options;
    attn_status status = ATTN_OK;
    for (size_t m = 0; m < o->n_variants && status == ATTN_OK; m++)
        status = choose_calls(&b->subjects[m], direction, error);
    for (size_t i = 0; i < o->repeats && status == ATTN_OK; i++) {
        read_peaks(b, direction, i);
        for (size_t m = 0; m < o->n_variants && status == ATTN_OK; m++)
            status = time_calls(&b->subjects[m], direction, &b->times[m * o->repeats + i], error);
    }
    if (status == ATTN_OK) add_rows(b, direction);
    b->cell++;
    return status;
}

static attn_status run_size(bench *b, attn_bench_size size, attn_error *error)
{
    const attn_bench_core_options *o = b->options;
    attn_status status = ATTN_OK;
    size_t made = 0;
    for (; made < o->n_variants && status == ATTN_OK; made++)
        status = attn_bench_subject_create(&b->subjects[made], o, made, b->context, size, error);
    for (int i = 0; i < ATTN_BENCH_DIRECTIONS && status == ATTN_OK; i++)
        if (o->directions[i]) status = run_direction(b, (attn_bench_direction)i, error);
    for (size_t m = 0; m < made; m++) attn_bench_subject_free(&b->subjects[m]);
    return status;
}

static void find_crossovers(bench *b)
{
    const attn_bench_core_options *o = b->options;
    attn_bench_core *r = b->result;
    const size_t directions = direction_count(o), row_step = directions * o->n_variants;
    const size_t group = o->lengths.count * row_step;
    for (size_t g = 0; g < o->heads.count * o->head_dims.count; g++)
        for (size_t d = 0; d < directions; d++)
            for (size_t m = 1; m < o->n_variants; m++) {
                const attn_bench_row *rows[ATTN_RANGE_MAX];
                for (size_t i = 0; i < o->lengths.count; i++)
                    rows[i] = &r->rows[g * group + i * row_step + d * o->n_variants + m];
                r->crossovers[r->n_crossovers++] =
                    attn_bench_find_crossover(rows, o->lengths.count);
            }
}

attn_status attn_bench_core_run(const attn_bench_core_options *options, attn_bench_core *result,
                                attn_error *error)
{
    bench b = {.options = options, .result = result};
    memset(result, 0, sizeof *result);
    attn_status status = set_up(&b, error);
    if (status == ATTN_OK) choose_peaks(&b);
    for (size_t h = 0; h < options->heads.count; h++)
        for (size_t d = 0; d < options->head_dims.count; d++)
            for (size_t t = 0; t < options->lengths.count && status == ATTN_OK; t++)
                status = run_size(&b,
                                  (attn_bench_size){.batch = options->batch,
                                                    .length = options->lengths.values[t],
                                                    .heads = options->heads.values[h],
                                                    .head_dim = options->head_dims.values[d]},
                                  error);
    if (status == ATTN_OK) {
        if (options->lengths.count > 1) find_crossovers(&b);
        summarise_peaks(&b);
    } else {
        attn_bench_core_free(result);
    }
    tear_down(&b);
    return status;
}

void attn_bench_core_free(attn_bench_core *result)
{
    if (!result) return;
    attn_free(result->rows);
    attn_free(result->crossovers);
    *result = (attn_bench_core){.n_rows = 0};
}
