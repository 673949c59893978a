/* The core and layer benchmarks: sizes one after the other; at each, all mechanisms in turns, and
 * between them the peaks, so that whatever slows the machine slows all of them. */
#include "experiment/bench_core.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "experiment/bench_subject.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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
    attn_bench_subject *subjects;    /* [n_mechanisms] */
    double *times;                   /* [n_mechanisms][repeats] */
    double *ratios, *shares;         /* [repeats] */
    double *now[ATTN_BENCH_PEAKS];   /* [repeats]: the peaks beside the times */
    double *every[ATTN_BENCH_PEAKS]; /* every reading of the run */
    size_t n_every[ATTN_BENCH_PEAKS];
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
    const size_t cells = groups * o->lengths.count;
    attn_status status = attn_context_create(&b->context, o->threads, o->isa, error);
    if (status == ATTN_OK) status = attn_peak_probe_create(&b->probe, o->threads, o->isa, error);
    if (status != ATTN_OK) return status;
    attn_bench_core *r = b->result;
    r->rows = attn_alloc_array(ATTN_MEMORY_OTHER, cells * o->n_mechanisms, sizeof *r->rows);
    r->crossovers =
        attn_alloc_array(ATTN_MEMORY_OTHER, groups * o->n_mechanisms, sizeof *r->crossovers);
    b->subjects = attn_alloc_array(ATTN_MEMORY_OTHER, o->n_mechanisms, sizeof *b->subjects);
    b->times = attn_alloc_array(ATTN_MEMORY_OTHER, o->n_mechanisms * o->repeats, sizeof *b->times);
    b->ratios = attn_alloc_array(ATTN_MEMORY_OTHER, o->repeats, sizeof *b->ratios);
    b->shares = attn_alloc_array(ATTN_MEMORY_OTHER, o->repeats, sizeof *b->shares);
    bool is_complete =
        r->rows && r->crossovers && b->subjects && b->times && b->ratios && b->shares;
    for (size_t i = 0; i < ATTN_BENCH_PEAKS; i++) {
        b->now[i] = attn_alloc_array(ATTN_MEMORY_OTHER, o->repeats, sizeof *b->now[i]);
        b->every[i] = attn_alloc_array(ATTN_MEMORY_OTHER, cells * o->repeats, sizeof *b->every[i]);
        is_complete = is_complete && b->now[i] && b->every[i];
    }
    if (!is_complete) return attn_fail(error, ATTN_EMEMORY, "no memory for the benchmark");
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
    for (size_t i = 0; i < ATTN_BENCH_PEAKS; i++) {
        attn_free(b->now[i]);
        attn_free(b->every[i]);
    }
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
 * scores are computed again. */
static double useful_flop(attn_bench_size s, attn_bench_direction direction)
{
    const double T = (double)s.length, heads = (double)s.batch * (double)s.heads;
    const double pairs = direction == ATTN_BENCH_DECODE ? T : T * (T + 1.0) / 2.0;
    return (direction == ATTN_BENCH_BACKWARD ? 10.0 : 4.0) * pairs * (double)s.head_dim * heads;
}

/* Seconds that the work of a call needs at the peaks of repeat i. */
static double least_time(const bench *b, const attn_bench_row *row, attn_work work, size_t i)
{
    if (row->direction == ATTN_BENCH_DECODE) return row->bytes / b->now[ATTN_PEAK_MEMORY][i];
    const double flop = (double)work.matmul, fma = flop / b->now[ATTN_PEAK_FMA][i];
    if (b->options->dtype == ATTN_F32) return fma;
    const double tiles = b->now[ATTN_PEAK_TILES][i];
    return (isnan(tiles) ? fma : flop / tiles) +
           (double)work.exponential / b->now[ATTN_PEAK_EXPONENTIAL][i];
}

static void add_row(bench *b, size_t mechanism, attn_bench_direction direction)
{
    const size_t n = b->options->repeats;
    const attn_bench_subject *s = &b->subjects[mechanism];
    const double *first = b->times, *times = b->times + mechanism * n;
    const bool decodes = direction == ATTN_BENCH_DECODE;
    const attn_work work = attn_bench_subject_work(s, direction);
    attn_bench_row *row = &b->result->rows[b->result->n_rows++];
    *row = (attn_bench_row){.mechanism = mechanism,
                            .direction = direction,
                            .length = s->size.length,
                            .heads = s->size.heads,
                            .head_dim = s->size.head_dim,
                            .useful_flop = useful_flop(s->size, direction),
                            .executed_flop = (double)work.matmul,
                            .bytes = decodes ? attn_bench_subject_cache_bytes(s) : 0.0};
    for (size_t i = 0; i < n; i++) {
        b->ratios[i] = times[i] / first[i];
        b->shares[i] = least_time(b, row, work, i) / times[i];
    }
    row->ratio = attn_bench_spread_of(b->ratios, n);
    row->share = attn_bench_spread_of(b->shares, n);
}

/* Sorting the times comes last: ratios pair them repeat by repeat. */
static void add_rows(bench *b, attn_bench_direction direction)
{
    const size_t n = b->options->n_mechanisms, before = b->result->n_rows;
    for (size_t m = 0; m < n; m++) add_row(b, m, direction);
    for (size_t m = 0; m < n; m++)
        b->result->rows[before + m].time =
            attn_bench_time_of(b->times + m * b->options->repeats, b->options->repeats);
}

static void read_peak(bench *b, attn_bench_peak peak, size_t i)
{
    const double rate = attn_peak_probe_read(b->probe, peak);
    b->now[peak][i] = rate;
    if (!isnan(rate)) b->every[peak][b->n_every[peak]++] = rate;
}

static void read_peaks(bench *b, attn_bench_direction direction, size_t i)
{
    read_peak(b, direction == ATTN_BENCH_DECODE ? ATTN_PEAK_MEMORY : ATTN_PEAK_FMA, i);
    if (direction == ATTN_BENCH_DECODE || b->options->dtype == ATTN_F32) return;
    read_peak(b, ATTN_PEAK_TILES, i);
    read_peak(b, ATTN_PEAK_EXPONENTIAL, i);
}

static attn_status run_direction(bench *b, attn_bench_direction direction, attn_error *error)
{
    const attn_bench_core_options *o = b->options;
    attn_status status = ATTN_OK;
    for (size_t m = 0; m < o->n_mechanisms && status == ATTN_OK; m++)
        status = choose_calls(&b->subjects[m], direction, error);
    for (size_t i = 0; i < o->repeats && status == ATTN_OK; i++) {
        read_peaks(b, direction, i);
        for (size_t m = 0; m < o->n_mechanisms && status == ATTN_OK; m++)
            status = time_calls(&b->subjects[m], direction, &b->times[m * o->repeats + i], error);
    }
    if (status == ATTN_OK) add_rows(b, direction);
    return status;
}

static attn_status run_size(bench *b, attn_bench_size size, attn_error *error)
{
    const attn_bench_core_options *o = b->options;
    attn_status status = ATTN_OK;
    size_t made = 0;
    for (; made < o->n_mechanisms && status == ATTN_OK; made++)
        status = attn_bench_subject_create(&b->subjects[made], &o->mechanisms[made], o, b->context,
                                           size, error);
    for (int i = 0; i < ATTN_BENCH_DIRECTIONS && status == ATTN_OK; i++)
        if (o->directions[i]) status = run_direction(b, (attn_bench_direction)i, error);
    for (size_t m = 0; m < made; m++) attn_bench_subject_free(&b->subjects[m]);
    return status;
}

static void find_crossovers(bench *b)
{
    const attn_bench_core_options *o = b->options;
    attn_bench_core *r = b->result;
    const size_t directions = direction_count(o), row_step = directions * o->n_mechanisms;
    const size_t group = o->lengths.count * row_step;
    for (size_t g = 0; g < o->heads.count * o->head_dims.count; g++)
        for (size_t d = 0; d < directions; d++)
            for (size_t m = 1; m < o->n_mechanisms; m++) {
                const attn_bench_row *rows[ATTN_RANGE_MAX];
                for (size_t i = 0; i < o->lengths.count; i++)
                    rows[i] = &r->rows[g * group + i * row_step + d * o->n_mechanisms + m];
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
        find_crossovers(&b);
        for (size_t i = 0; i < ATTN_BENCH_PEAKS; i++)
            if (b.n_every[i]) result->peaks[i] = attn_bench_spread_of(b.every[i], b.n_every[i]);
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
