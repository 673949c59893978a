/* Probes. Each runs for a fixed time in slices; rates are medians over the slices. */
#define _DEFAULT_SOURCE
#include "experiment/calibrate.h"

#include "attn/context.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/statistics.h"
#include "base/text.h"
#include "base/threads.h"
#include "kernels/dense.h"
#include "mechanisms/exact_core.h"
#include "meters/energy.h"
#include "meters/machine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SLICES = 15, SMALL = 4096, ROWS = 1024, IN = 768, OUT = 3072 };
enum { CORE_BATCH = 1, CORE_LENGTH = 1024 };
enum { CORE_HEADS = ATTN_CALIBRATION_HEADS, CORE_WIDTH = ATTN_CALIBRATION_WIDTH };
static const size_t stream_count = (size_t)64
                                   << 20; /* floats of each of two arrays: more than caches hold */

typedef struct probing {
    const attn_calibration_options *options;
    attn_calibration *out;
    attn_context *context;
    attn_energy_meter *meter;
    attn_energy_snapshot *before, *after;
    float *x, *y;   /* stream_count floats each: every probe's memory */
    float *scratch; /* of the tile engine */
    size_t n_threads;
    attn_error *error;
} probing;

const char *attn_probe_name(attn_probe probe)
{
    static const char *const names[] = {"product", "exponential", "other", "memory",
                                        "head",    "core",        "launch"};
    return names[probe];
}

/* ---- what is probed; each gives its units of work --------------------------------------------- */

typedef double probe_function(probing *p);

static double probe_product(probing *p)
{
    const float *w = p->x + ROWS * OUT;
    attn_dense_forward(p->context, ROWS, IN, OUT, p->x, w, NULL, p->y);
    attn_dense_input_gradient(p->context, ROWS, IN, OUT, p->x, w, p->y, false);
    attn_dense_weight_gradient(p->context, ROWS, IN, OUT, p->x, w, p->y, NULL, false);
    return 3.0 * 2.0 * ROWS * IN * OUT;
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

static double probe_exponential(probing *p)
{
    attn_parallel(p->n_threads, p->n_threads, task_exponential, p);
    return (double)p->n_threads * TASK_REPEATS * SMALL;
}

static void task_other(void *argument, size_t index, size_t worker)
{
    (void)index;
    probing *p = argument;
    for (size_t i = 0; i < TASK_REPEATS; i++)
        p->context->kernels->add_scaled(SMALL, 1e-9f, p->x, p->y + worker * SMALL);
}

static double probe_other(probing *p)
{
    attn_parallel(p->n_threads, p->n_threads, task_other, p);
    return 2.0 * (double)p->n_threads * TASK_REPEATS * SMALL;
}

static void task_memory(void *argument, size_t index, size_t worker)
{
    (void)worker;
    probing *p = argument;
    const size_t part = stream_count / p->n_threads;
    p->context->kernels->add_scaled(part, 1e-9f, p->x + index * part, p->y + index * part);
}

/* x and y read, y written */
static double probe_memory(probing *p)
{
    attn_parallel(p->n_threads, p->n_threads, task_memory, p);
    return 12.0 * (double)(stream_count / p->n_threads * p->n_threads);
}

static double probe_head(probing *p)
{
    enum { HEAD_ROWS = 256, WORDS = 50257 }; /* rows as in the blocks of the model's head */
    float *logits = p->y + IN * HEAD_ROWS;
    attn_dense_forward(p->context, HEAD_ROWS, IN, WORDS, p->y, p->x, NULL, logits);
    attn_dense_input_gradient(p->context, HEAD_ROWS, IN, WORDS, logits, p->x, p->y, false);
    attn_dense_weight_gradient(p->context, HEAD_ROWS, IN, WORDS, p->x, p->x + IN * HEAD_ROWS, p->y,
                               NULL, true);
    return 3.0 * 2.0 * HEAD_ROWS * IN * WORDS;
}

static attn_tile_shape core_shape(size_t batch, size_t length)
{
    return (attn_tile_shape){.batch = batch,
                             .heads = CORE_HEADS,
                             .kv_heads = CORE_HEADS,
                             .queries = length,
                             .keys = length,
                             .key_width = CORE_WIDTH,
                             .value_width = CORE_WIDTH};
}

/* Products of one pass forward and backward; x and y are the memory of everything. */
static double run_core(probing *p, size_t batch, size_t length)
{
    const attn_visibility causal = {.is_causal = true, .window = ATTN_NO_WINDOW};
    const size_t n = batch * length * CORE_HEADS * CORE_WIDTH;
    const attn_head_layout at = {.row = CORE_HEADS * CORE_WIDTH, .head = CORE_WIDTH};
    attn_tile_call call = {.context = p->context,
                           .shape = core_shape(batch, length),
                           .rule = attn_rule_tiles(&causal, ATTN_TILE_ONLINE),
                           .q_at = at,
                           .k_at = at,
                           .v_at = at,
                           .o_at = at,
                           .q = p->x,
                           .k = p->x + n,
                           .v = p->x + 2 * n,
                           .o = p->y,
                           .saved = p->y + n,
                           .scratch = p->scratch,
                           .d_o = p->x + 3 * n,
                           .dq = p->y + 2 * n,
                           .dk = p->y + 3 * n,
                           .dv = p->y + 4 * n};
    attn_tile_forward(&call);
    attn_tile_backward(&call);
    const attn_tile_rule rule = call.rule;
    return (double)(attn_tile_work(&call.shape, &rule, ATTN_PHASE_FORWARD, NULL).matmul +
                    attn_tile_work(&call.shape, &rule, ATTN_PHASE_BACKWARD, NULL).matmul);
}

static double probe_core(probing *p)
{
    return run_core(p, CORE_BATCH, CORE_LENGTH);
}

static void task_nothing(void *argument, size_t index, size_t worker)
{
    (void)argument;
    (void)index;
    (void)worker;
}

static double probe_launch(probing *p)
{
    enum { REGIONS = 64 };
    for (size_t i = 0; i < REGIONS; i++) attn_parallel(p->n_threads, p->n_threads, task_nothing, p);
    return REGIONS;
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

static void measure(probing *p, attn_probe probe, probe_function *function)
{
    double rates[SLICES];
    attn_calibration *out = p->out;
    (void)function(p); /* warms up */
    attn_energy_mark(p->meter, p->before);
    const uint64_t begin_ns = attn_clock_ns();
    double all = 0.0;
    for (size_t i = 0; i < SLICES; i++) {
        const uint64_t slice_ns = attn_clock_ns();
        double work = 0.0, time_s = 0.0;
        while (time_s < p->options->probe_s / SLICES) {
            work += function(p);
            time_s = attn_clock_seconds(slice_ns, attn_clock_ns());
        }
        rates[i] = work / time_s;
        all += work;
    }
    const double time_s = attn_clock_seconds(begin_ns, attn_clock_ns());
    out->picojoule[probe] = 1e12 * (energy_since(p) - out->idle_w * time_s) / all;
    attn_statistics_sort(rates, SLICES);
    out->value[probe] = attn_statistics_median(rates, SLICES);
    out->low[probe] = attn_statistics_quantile(rates, SLICES, 0.25);
    out->high[probe] = attn_statistics_quantile(rates, SLICES, 0.75);
}

static void measure_rest(probing *p)
{
    attn_energy_mark(p->meter, p->before);
    const uint64_t begin_ns = attn_clock_ns();
    usleep((useconds_t)(1e6 * p->options->probe_s));
    p->out->idle_w = energy_since(p) / attn_clock_seconds(begin_ns, attn_clock_ns());
}

double attn_calibration_core_rate(double matmul, double exponential, double other, double time_s,
                                  double exponential_rate, double other_rate)
{
    const double vector_s = exponential / exponential_rate + other / other_rate;
    /* vector work that the engine does better than the loops of the probes leaves no remainder */
    return matmul / fmax(time_s - vector_s, 0.25 * time_s);
}

/* From FLOP of products a second to the rate of products alone, behind the vector work. */
static void fit_core(attn_calibration *out)
{
    const attn_tile_shape shape = core_shape(CORE_BATCH, CORE_LENGTH);
    const attn_visibility causal = {.is_causal = true, .window = ATTN_NO_WINDOW};
    const attn_tile_rule rule = attn_rule_tiles(&causal, ATTN_TILE_ONLINE);
    attn_work work = attn_tile_work(&shape, &rule, ATTN_PHASE_FORWARD, NULL);
    attn_work_add(&work, attn_tile_work(&shape, &rule, ATTN_PHASE_BACKWARD, NULL));
    double *const ends[] = {&out->value[ATTN_PROBE_CORE], &out->low[ATTN_PROBE_CORE],
                            &out->high[ATTN_PROBE_CORE]};
    for (size_t i = 0; i < 3; i++)
        *ends[i] = attn_calibration_core_rate((double)work.matmul, (double)work.exponential,
                                              (double)work.other, (double)work.matmul / *ends[i],
                                              out->value[ATTN_PROBE_EXPONENTIAL],
                                              out->value[ATTN_PROBE_OTHER]);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static attn_status set_up(probing *p)
{
    attn_status status =
        attn_context_create(&p->context, p->options->threads, p->options->isa, p->error);
    if (status == ATTN_OK) status = attn_energy_open(&p->meter, NULL, p->error);
    if (status != ATTN_OK) return status;
    const attn_tile_shape shape = core_shape(CORE_BATCH, CORE_LENGTH);
    p->n_threads = attn_context_threads(p->context);
    p->x = attn_alloc_array(ATTN_MEMORY_OTHER, stream_count, sizeof *p->x);
    p->y = attn_alloc_array(ATTN_MEMORY_OTHER, stream_count, sizeof *p->y);
    p->scratch = attn_alloc_array(ATTN_MEMORY_OTHER, attn_tile_scratch(&shape, p->n_threads),
                                  sizeof *p->scratch);
    p->before = attn_alloc(ATTN_MEMORY_OTHER, sizeof *p->before);
    p->after = attn_alloc(ATTN_MEMORY_OTHER, sizeof *p->after);
    if (!p->x || !p->y || !p->scratch || !p->before || !p->after)
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

attn_status attn_calibrate(const attn_calibration_options *options, attn_calibration *out,
                           attn_error *error)
{
    *out = (attn_calibration){0};
    probing p = {.options = options, .out = out, .error = error};
    const attn_status status = set_up(&p);
    if (status == ATTN_OK) {
        static probe_function *const functions[] = {probe_product, probe_exponential, probe_other,
                                                    probe_memory,  probe_head,        probe_core,
                                                    probe_launch};
        describe(&p);
        measure_rest(&p);
        for (size_t i = 0; i < ATTN_PROBES; i++) measure(&p, (attn_probe)i, functions[i]);
        fit_core(out);
        /* regions a second to seconds a region */
        out->value[ATTN_PROBE_LAUNCH] = 1.0 / out->value[ATTN_PROBE_LAUNCH];
        const double slow = 1.0 / out->low[ATTN_PROBE_LAUNCH];
        out->low[ATTN_PROBE_LAUNCH] = 1.0 / out->high[ATTN_PROBE_LAUNCH];
        out->high[ATTN_PROBE_LAUNCH] = slow;
    }
    attn_context_free(p.context);
    attn_energy_close(p.meter);
    attn_free(p.x);
    attn_free(p.y);
    attn_free(p.scratch);
    attn_free(p.before);
    attn_free(p.after);
    return status;
}

attn_status attn_calibration_core_time(const attn_calibration_options *options, size_t length,
                                       double *time_s, attn_error *error)
{
    enum { REPEATS = 5 };
    probing p = {.options = options, .error = error};
    double times[REPEATS];
    const attn_tile_shape shape = core_shape(1, length);
    const size_t n = length * CORE_HEADS * CORE_WIDTH, kept = attn_tile_saved(&shape);
    attn_status status = attn_context_create(&p.context, options->threads, options->isa, error);
    if (status == ATTN_OK) {
        p.x = attn_alloc_array(ATTN_MEMORY_OTHER, 4 * n, sizeof *p.x);
        p.y = attn_alloc_array(ATTN_MEMORY_OTHER, 5 * n + kept, sizeof *p.y);
        p.scratch = attn_alloc_array(ATTN_MEMORY_OTHER,
                                     attn_tile_scratch(&shape, attn_context_threads(p.context)),
                                     sizeof *p.scratch);
        if (!p.x || !p.y || !p.scratch)
            status = attn_fail(error, ATTN_EMEMORY, "no memory for %zu tokens", length);
    }
    if (status == ATTN_OK) {
        attn_random_fill_normal(1, attn_random_stream(ATTN_RANDOM_TEST, 0), 1.0, 4 * n, p.x);
        (void)run_core(&p, 1, length);
        for (size_t i = 0; i < REPEATS; i++) {
            const uint64_t begin_ns = attn_clock_ns();
            (void)run_core(&p, 1, length);
            times[i] = attn_clock_seconds(begin_ns, attn_clock_ns());
        }
        attn_statistics_sort(times, REPEATS);
        *time_s = attn_statistics_median(times, REPEATS);
    }
    attn_context_free(p.context);
    attn_free(p.x);
    attn_free(p.y);
    attn_free(p.scratch);
    return status;
}
