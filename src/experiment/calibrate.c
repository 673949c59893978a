/* Probes. Each runs for a fixed time in slices; rates are medians over the slices. */
#define _DEFAULT_SOURCE
#include "experiment/calibrate.h"

#include "attn/layer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/statistics.h"
#include "base/text.h"
#include "base/threads.h"
#include "experiment/calibrate_core.h"
#include "kernels/dense.h"
#include "kernels/dense_bf16.h"
#include "meters/energy.h"
#include "meters/machine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SLICES = 15, SMALL = 4096, ROWS = 1024, WIDTH = 768, WIDE = 3072, TRIES = 4 };
static const double steady = 0.05;       /* between the quartiles, of the median */
static const double long_cores_s = 0.05; /* of a probe */
static const size_t stream_count = (size_t)64
                                   << 20; /* floats of each of two arrays: more than caches hold */

typedef struct probing {
    const attn_calibration_options *options;
    attn_calibration *out;
    attn_context *context;
    attn_energy_meter *meter;
    attn_energy_snapshot *before, *after;
    float *x, *y; /* stream_count floats each: every probe's memory */
    size_t n_threads;
    attn_energy_probe energy[ATTN_PROBES + 1]; /* the first is rest */
    size_t n_energy;
    attn_error *error;
} probing;

const char *attn_probe_name(attn_probe probe)
{
    static const char *const names[] = {"product",     "projection", "head",   "bfloat16",
                                        "exponential", "other",      "memory", "launch"};
    return names[probe];
}

/* ---- what is probed; each gives its work and traffic ------------------------------------------- */

typedef attn_energy_probe probe_function(probing *p);

/* The three products of a dense layer; what each reads and writes once. */
static attn_energy_probe dense(probing *p, size_t rows, size_t in, size_t out, bool accumulate)
{
    const float *w = p->x + rows * (in + out);
    float *y = p->y + rows * in + in * out;
    attn_dense_forward(p->context, rows, in, out, p->x, w, NULL, y);
    attn_dense_input_gradient(p->context, rows, in, out, p->x, w, p->y, false);
    attn_dense_weight_gradient(p->context, rows, in, out, p->x, p->x + rows * in, p->y + rows * in,
                               NULL, accumulate);
    return (attn_energy_probe){.matmul = 3.0 * 2.0 * (double)(rows * in * out),
                               .bytes = 3.0 * 4.0 * (double)(rows * (in + out) + in * out)};
}

static attn_energy_probe sum(attn_energy_probe a, attn_energy_probe b)
{
    return (attn_energy_probe){.matmul = a.matmul + b.matmul,
                               .exponential = a.exponential + b.exponential,
                               .other = a.other + b.other,
                               .bytes = a.bytes + b.bytes};
}

/* Up and down are in turns in a model. */
static attn_energy_probe probe_product(probing *p)
{
    const attn_energy_probe up = dense(p, ROWS, WIDTH, WIDE, false);
    return sum(up, dense(p, ROWS, WIDE, WIDTH, false));
}

static attn_energy_probe probe_projection(probing *p)
{
    const attn_energy_probe heads = dense(p, ROWS, WIDTH, 3 * WIDTH, false);
    return sum(heads, dense(p, ROWS, WIDTH, WIDTH, false));
}

static attn_energy_probe probe_head(probing *p)
{
    enum { HEAD_ROWS = 256, WORDS = 50257 }; /* rows as in the blocks of the model's head */
    return dense(p, HEAD_ROWS, WIDTH, WORDS, true);
}

/* Numbers that were left there by floats are as good as any. */
static attn_energy_probe probe_half(probing *p)
{
    const attn_bf16 *x = (const attn_bf16 *)p->x, *dy = x + ROWS * WIDE;
    const size_t packed = attn_dense_bf16_packed(WIDE, WIDTH);
    attn_bf16 *weights = (attn_bf16 *)p->y;
    float *y = p->y + packed, *dw = y + ROWS * WIDE;
    attn_dense_bf16_forward(p->context, ROWS, WIDTH, WIDE, x, weights, NULL,
                            (attn_dense_output){.single = y});
    attn_dense_bf16_input_gradient(p->context, ROWS, WIDTH, WIDE, dy, WIDE, weights,
                                   (attn_dense_output){.single = y});
    attn_dense_bf16_weight_gradient(p->context, ROWS, WIDTH, WIDE, x, dy, WIDE, dw, NULL, false);
    return (attn_energy_probe){.matmul = 3.0 * 2.0 * ROWS * (double)(WIDTH * WIDE)};
}

enum { TASK_REPEATS = 64 };

static void task_exponential(void *argument, size_t index, size_t worker)
{
    (void)index;
    probing *p = argument;
    float *x = p->y + worker * SMALL;
    for (size_t i = 0; i < TASK_REPEATS; i++) {
        memcpy(x, p->x, SMALL * sizeof *x); /* exp of exp would overflow */
        (void)p->context->kernels->exp_shifted(SMALL, 0.0f, x);
    }
}

static attn_energy_probe probe_exponential(probing *p)
{
    attn_parallel(p->n_threads, p->n_threads, task_exponential, p);
    return (attn_energy_probe){.exponential = (double)p->n_threads * TASK_REPEATS * SMALL};
}

static void task_other(void *argument, size_t index, size_t worker)
{
    (void)index;
    probing *p = argument;
    for (size_t i = 0; i < TASK_REPEATS; i++)
        p->context->kernels->add_scaled(SMALL, 1e-9f, p->x, p->y + worker * SMALL);
}

static attn_energy_probe probe_other(probing *p)
{
    attn_parallel(p->n_threads, p->n_threads, task_other, p);
    return (attn_energy_probe){.other = 2.0 * (double)p->n_threads * TASK_REPEATS * SMALL};
}

static void task_memory(void *argument, size_t index, size_t worker)
{
    (void)worker;
    probing *p = argument;
    const size_t part = stream_count / p->n_threads;
    p->context->kernels->add_scaled(part, 1e-9f, p->x + index * part, p->y + index * part);
}

/* x and y read, y written */
static attn_energy_probe probe_memory(probing *p)
{
    attn_parallel(p->n_threads, p->n_threads, task_memory, p);
    const double count = (double)(stream_count / p->n_threads * p->n_threads);
    return (attn_energy_probe){.other = 2.0 * count, .bytes = 12.0 * count};
}

static void task_nothing(void *argument, size_t index, size_t worker)
{
    (void)argument;
    (void)index;
    (void)worker;
}

enum { REGIONS = 64 };

static attn_energy_probe probe_launch(probing *p)
{
    for (size_t i = 0; i < REGIONS; i++) attn_parallel(p->n_threads, p->n_threads, task_nothing, p);
    return (attn_energy_probe){0};
}

/* What the probe's rate counts. */
static double units_of(attn_probe probe, const attn_energy_probe *done)
{
    switch (probe) {
    case ATTN_PROBE_EXPONENTIAL:
        return done->exponential;
    case ATTN_PROBE_OTHER:
        return done->other;
    case ATTN_PROBE_MEMORY:
        return done->bytes;
    case ATTN_PROBE_LAUNCH:
        return REGIONS;
    default:
        return done->matmul;
    }
}

/* ---- measuring ------------------------------------------------------------------------------ */

/* Energy of the processor, and of memory where it has a counter, since the last mark. */
static double energy_since(probing *p)
{
    attn_figure figures[ATTN_ENERGY_FIGURES];
    attn_energy_mark(p->meter, p->after);
    attn_energy_between(p->meter, p->before, p->after, figures);
    const attn_figure *package = &figures[ATTN_ENERGY_FIGURE_PACKAGE];
    const attn_figure *dram = &figures[ATTN_ENERGY_FIGURE_DRAM];
    if (isnan(package->value) && !p->out->energy_why[0])
        attn_text_copy(p->out->energy_why, sizeof p->out->energy_why, package->why);
    return package->value + (isnan(dram->value) ? 0.0 : dram->value);
}

/* One try: rates of the slices, ascending, and what was done in all of them. */
static attn_energy_probe try_probe(probing *p, attn_probe probe, probe_function *function,
                                   double rates[SLICES])
{
    attn_energy_probe all = {0};
    for (size_t i = 0; i < SLICES; i++) {
        const uint64_t slice_ns = attn_clock_ns();
        double work = 0.0, time_s = 0.0;
        while (time_s < p->options->probe_s / SLICES) {
            const attn_energy_probe done = function(p);
            all = sum(all, done);
            work += units_of(probe, &done);
            time_s = attn_clock_seconds(slice_ns, attn_clock_ns());
        }
        rates[i] = work / time_s;
    }
    attn_statistics_sort(rates, SLICES);
    return all;
}

/* A probe that something disturbs is done again, a few times; the steadiest try counts. */
static void measure(probing *p, attn_probe probe, probe_function *function)
{
    double rates[SLICES], least = INFINITY;
    attn_calibration *out = p->out;
    attn_energy_probe kept = {0};
    (void)function(p); /* warms up */
    for (size_t try = 0; try < TRIES && least > steady; try++) {
        attn_energy_mark(p->meter, p->before);
        const uint64_t begin_ns = attn_clock_ns();
        attn_energy_probe all = try_probe(p, probe, function, rates);
        all.time_s = attn_clock_seconds(begin_ns, attn_clock_ns());
        all.energy_j = energy_since(p);
        const double median = attn_statistics_median(rates, SLICES);
        const double low = attn_statistics_quantile(rates, SLICES, 0.25);
        const double high = attn_statistics_quantile(rates, SLICES, 0.75);
        if (!((high - low) / median < least)) continue;
        least = (high - low) / median;
        kept = all;
        out->value[probe] = median;
        out->low[probe] = low;
        out->high[probe] = high;
    }
    /* a FLOP of another type has another energy */
    if (probe != ATTN_PROBE_HALF) p->energy[p->n_energy++] = kept;
}

static void measure_rest(probing *p)
{
    attn_energy_mark(p->meter, p->before);
    const uint64_t begin_ns = attn_clock_ns();
    usleep((useconds_t)(1e6 * p->options->probe_s));
    p->energy[p->n_energy++] = (attn_energy_probe){
        .time_s = attn_clock_seconds(begin_ns, attn_clock_ns()), .energy_j = energy_since(p)};
}

double attn_calibration_factor(const attn_calibration *c, attn_work work, double time_s)
{
    const double operations_s = (double)work.matmul / c->value[ATTN_PROBE_PRODUCT] +
                                (double)work.exponential / c->value[ATTN_PROBE_EXPONENTIAL] +
                                (double)work.other / c->value[ATTN_PROBE_OTHER];
    return time_s / operations_s;
}

/* One core in one type, at one length. */
static attn_status measure_core(probing *p, size_t mechanism, size_t type, size_t length)
{
    attn_core_times times;
    attn_label label = {.options = ""};
    attn_text_copy(label.name, sizeof label.name, attn_mechanism_name(mechanism));
    const attn_core_probe probe = {.mechanism = &label,
                                   .dtype = type == ATTN_CORE_F32 ? ATTN_F32 : ATTN_BF16,
                                   .length = attn_core_length(length)};
    if (!attn_core_is_apart(label.name, probe.dtype)) return ATTN_OK;
    const attn_status status =
        attn_core_time(p->context, &probe, p->options->probe_s, &times, p->error);
    if (status != ATTN_OK) return status;
    double(*factors)[ATTN_CORE_LENGTHS][ATTN_DEVICE_MECHANISMS] = p->out->cores[type];
    factors[ATTN_COST_FORWARD][length][mechanism] =
        attn_calibration_factor(p->out, times.forward, times.forward_s);
    factors[ATTN_COST_BACKWARD][length][mechanism] =
        attn_calibration_factor(p->out, times.backward, times.backward_s);
    return ATTN_OK;
}

/* The core of every mechanism that can be trained. Who has little time does without the longer
 * length, where one pass may take seconds. */
static attn_status measure_cores(probing *p)
{
    const size_t n_lengths = p->options->probe_s < long_cores_s ? 1 : ATTN_CORE_LENGTHS;
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < ATTN_DEVICE_MECHANISMS; i++)
        for (size_t type = 0; type < ATTN_CORE_TYPES; type++)
            for (size_t length = 0; length < n_lengths && status == ATTN_OK; length++)
                if (attn_mechanism_is_causal(attn_mechanism_name(i)))
                    status = measure_core(p, i, type, length);
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static attn_status set_up(probing *p)
{
    attn_status status =
        attn_context_create(&p->context, p->options->threads, p->options->isa, p->error);
    if (status == ATTN_OK) status = attn_energy_open(&p->meter, NULL, p->error);
    if (status != ATTN_OK) return status;
    p->n_threads = attn_context_threads(p->context);
    p->x = attn_alloc_array(ATTN_MEMORY_OTHER, stream_count, sizeof *p->x);
    p->y = attn_alloc_array(ATTN_MEMORY_OTHER, stream_count, sizeof *p->y);
    p->before = attn_alloc(ATTN_MEMORY_OTHER, sizeof *p->before);
    p->after = attn_alloc(ATTN_MEMORY_OTHER, sizeof *p->after);
    if (!p->x || !p->y || !p->before || !p->after)
        return attn_fail(p->error, ATTN_EMEMORY, "no memory for the probes");
    attn_random_fill_normal(1, attn_random_stream(ATTN_RANDOM_TEST, 0), 1.0, stream_count, p->x);
    return ATTN_OK;
}

static void describe(probing *p)
{
    attn_calibration *out = p->out;
    const attn_machine_cpu cpu = attn_machine_cpu_read("");
    out->threads = p->n_threads;
    attn_text_copy(out->isa, sizeof out->isa, attn_context_isa(p->context));
    attn_text_copy(out->dense, sizeof out->dense, attn_context_dense(p->context));
    attn_text_copy(out->processor, sizeof out->processor,
                   cpu.name[0] ? cpu.name : "unnamed processor");
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    out->memory_gb = pages > 0 && page > 0 ? 1e-9 * (double)pages * (double)page : NAN;
    const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    out->cache_mib = cache > 0 ? (double)cache / 1048576.0 : NAN;
}

static attn_status measure_all(probing *p)
{
    static probe_function *const functions[] = {probe_product, probe_projection,  probe_head,
                                                probe_half,    probe_exponential, probe_other,
                                                probe_memory,  probe_launch};
    attn_calibration *out = p->out;
    describe(p);
    measure_rest(p);
    for (size_t i = 0; i < ATTN_PROBES; i++) measure(p, (attn_probe)i, functions[i]);
    /* regions a second to seconds a region */
    out->value[ATTN_PROBE_LAUNCH] = 1.0 / out->value[ATTN_PROBE_LAUNCH];
    const double slow = 1.0 / out->low[ATTN_PROBE_LAUNCH];
    out->low[ATTN_PROBE_LAUNCH] = 1.0 / out->high[ATTN_PROBE_LAUNCH];
    out->high[ATTN_PROBE_LAUNCH] = slow;
    if (!attn_energy_fit(p->energy, p->n_energy, &out->energy) && !out->energy_why[0])
        attn_text_copy(out->energy_why, sizeof out->energy_why,
                       "the probes' energies do not tell the kinds of work apart");
    return measure_cores(p);
}

attn_status attn_calibrate(const attn_calibration_options *options, attn_calibration *out,
                           attn_error *error)
{
    *out = (attn_calibration){0};
    probing p = {.options = options, .out = out, .error = error};
    attn_status status = set_up(&p);
    if (status == ATTN_OK) status = measure_all(&p);
    attn_context_free(p.context);
    attn_energy_close(p.meter);
    attn_free(p.x);
    attn_free(p.y);
    attn_free(p.before);
    attn_free(p.after);
    return status;
}
