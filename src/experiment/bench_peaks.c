/* Peaks. Each thread runs a loop of kernels/peak.h for some milliseconds on its own memory. */
#include "experiment/bench_peaks.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "kernels/context.h"
#include "kernels/peak.h"

#include <math.h>
#include <stdio.h>

enum {
    MEMORY_FLOATS = 64 << 18, /* 64 MiB a thread: more than its share of any cache */
    FIRST_CACHE_FLOATS = 6 << 10,
    SECOND_CACHE_FLOATS = 128 << 10,
    TILE = 64,
    TILE_FLOATS = TILE * TILE
};

struct attn_peak_probe {
    attn_context *context;
    const attn_peaks *peaks;
    float *memory; /* [threads][MEMORY_FLOATS] */
    size_t threads;
};

typedef struct peak_job {
    attn_peak_probe *probe;
    attn_bench_peak peak;
    double done[ATTN_THREADS_MAX];
} peak_job;

static const struct {
    const char *name, *unit;
} peaks[ATTN_BENCH_PEAKS] = {
    [ATTN_PEAK_FMA] = {"fma_f32", "FLOP/s"},
    [ATTN_PEAK_PRODUCT] = {"product_f32", "FLOP/s"},
    [ATTN_PEAK_EXPONENTIAL] = {"exp_f32", "op/s"},
    [ATTN_PEAK_FIRST_CACHE] = {"read_l1", "byte/s"},
    [ATTN_PEAK_SECOND_CACHE] = {"read_l2", "byte/s"},
    [ATTN_PEAK_MEMORY] = {"read_memory", "byte/s"},
    [ATTN_PEAK_TILES] = {"amx_bf16", "FLOP/s"},
};

const char *attn_bench_peak_name(attn_bench_peak peak)
{
    return peaks[peak].name;
}

const char *attn_bench_peak_unit(attn_bench_peak peak)
{
    return peaks[peak].unit;
}

attn_status attn_peak_probe_create(attn_peak_probe **out, size_t threads, const char *isa,
                                   attn_error *error)
{
    *out = NULL;
    attn_peak_probe *probe = attn_alloc(ATTN_MEMORY_OTHER, sizeof *probe);
    if (!probe) return attn_fail(error, ATTN_EMEMORY, "no memory for a probe");
    const attn_status status = attn_context_create(&probe->context, threads, isa, error);
    if (status != ATTN_OK) {
        attn_peak_probe_free(probe);
        return status;
    }
    probe->threads = attn_context_threads(probe->context);
    probe->peaks = attn_peaks_for(probe->context->isa);
    probe->memory = attn_alloc_array(ATTN_MEMORY_OTHER, probe->threads,
                                     (size_t)MEMORY_FLOATS * sizeof *probe->memory);
    if (!probe->memory) {
        attn_peak_probe_free(probe);
        return attn_fail(error, ATTN_EMEMORY, "no memory to read from: 64 MiB a thread");
    }
    /* Fresh pages are all one page of zeros until they are written. */
    for (size_t i = 0; i < probe->threads * MEMORY_FLOATS; i++) probe->memory[i] = 1.0f;
    *out = probe;
    return ATTN_OK;
}

void attn_peak_probe_free(attn_peak_probe *probe)
{
    if (!probe) return;
    attn_free(probe->memory);
    attn_context_free(probe->context);
    attn_free(probe);
}

static double read_again(const attn_peaks *peaks_of_isa, size_t n, const float *from)
{
    double bytes = 0.0;
    for (size_t done = 0; done < MEMORY_FLOATS; done += n) bytes += peaks_of_isa->read(n, from);
    return bytes;
}

/* c = a b on three tiles of the thread's memory */
static double multiply_products(const attn_kernels *kernels, float *memory)
{
    enum { ROUNDS = 4000 };
    float *a = memory, *b = a + TILE_FLOATS, *c = b + TILE_FLOATS;
    for (size_t i = 0; i < ROUNDS; i++)
        kernels->product(TILE, TILE, TILE, a, TILE, 1, b, TILE, c, TILE, false);
    return 2.0 * TILE * TILE_FLOATS * ROUNDS;
}

static void run_peak(void *argument, size_t index, size_t worker)
{
    (void)worker;
    peak_job *job = argument;
    const attn_peaks *of_isa = job->probe->peaks;
    float *memory = job->probe->memory + index * MEMORY_FLOATS;
    const bool is_ref = of_isa->isa == ATTN_ISA_REF;
    double *done = &job->done[index];
    switch (job->peak) {
    case ATTN_PEAK_FMA:
        *done = of_isa->multiply_add(is_ref ? 300000 : 3000000);
        break;
    case ATTN_PEAK_PRODUCT:
        *done = multiply_products(job->probe->context->kernels, memory);
        break;
    case ATTN_PEAK_EXPONENTIAL:
        *done = of_isa->exponential(is_ref ? 1000 : 40000);
        break;
    case ATTN_PEAK_FIRST_CACHE:
        for (size_t i = 0; i < 16; i++) *done += read_again(of_isa, FIRST_CACHE_FLOATS, memory);
        break;
    case ATTN_PEAK_SECOND_CACHE:
        for (size_t i = 0; i < 16; i++) *done += read_again(of_isa, SECOND_CACHE_FLOATS, memory);
        break;
    case ATTN_PEAK_MEMORY:
        *done = read_again(of_isa, MEMORY_FLOATS, memory);
        break;
    case ATTN_PEAK_TILES:
        *done = of_isa->multiply_tiles(300000);
        break;
    case ATTN_BENCH_PEAKS:
        break;
    }
}

double attn_peak_probe_read(attn_peak_probe *probe, attn_bench_peak peak)
{
    if (peak == ATTN_PEAK_TILES && !probe->peaks->multiply_tiles) return NAN;
    peak_job job = {.probe = probe, .peak = peak};
    const uint64_t begin_ns = attn_clock_ns();
    attn_parallel(probe->threads, probe->threads, run_peak, &job);
    const double time_s = attn_clock_seconds(begin_ns, attn_clock_ns());
    double sum = 0.0;
    for (size_t i = 0; i < probe->threads; i++) sum += job.done[i];
    return sum / time_s;
}

attn_status attn_bench_peaks_run(const attn_bench_peaks_options *options, attn_bench_peaks *result,
                                 attn_error *error)
{
    const size_t n = options->repeats;
    attn_peak_probe *probe = NULL;
    *result = (attn_bench_peaks){.threads = 0};
    attn_status status = attn_peak_probe_create(&probe, options->threads, options->isa, error);
    if (status != ATTN_OK) return status;
    double *rates = attn_alloc_array(ATTN_MEMORY_OTHER, n * ATTN_BENCH_PEAKS, sizeof *rates);
    if (!rates) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory for %zu repeats", n);
        goto done;
    }
    for (size_t repeat = 0; repeat <= n; repeat++) /* the first one warms up */
        for (size_t peak = 0; peak < ATTN_BENCH_PEAKS; peak++) {
            const double rate = attn_peak_probe_read(probe, (attn_bench_peak)peak);
            if (repeat > 0) rates[peak * n + repeat - 1] = rate;
        }
    for (size_t peak = 0; peak < ATTN_BENCH_PEAKS; peak++) {
        result->is_known[peak] = !isnan(rates[peak * n]);
        if (result->is_known[peak]) result->rate[peak] = attn_bench_spread_of(rates + peak * n, n);
    }
    result->threads = probe->threads;
    snprintf(result->isa, sizeof result->isa, "%s", attn_context_isa(probe->context));
done:
    attn_free(rates);
    attn_peak_probe_free(probe);
    return status;
}
