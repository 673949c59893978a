/* Times what float32 flash attention is made of, forward, on all cores: products with keys, the softmax
 * and products with values alone, and all three in the engine's order, over data that lies packed
 * already, without masks. What the engine takes beyond that is packing, storing and diagonals.
 *
 *     bench_walk_f32 [READINGS]
 *
 * Blocks of 384 queries, steps of 48, 128 keys at a time, as mechanisms/tile_engine.c has them. Medians of
 * all readings; shares are of multiply-adds in registers, read before each turn. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/statistics.h"
#include "base/threads.h"
#include "kernels/kernels.h"
#include "kernels/peak.h"
#include "mechanisms/head_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUERIES = 384, STEP = 48, TILE = 64, KEYS = 2 * TILE, KEYS_MOST = 8192, WIDTH_MOST = 128 };
enum { READINGS_MOST = 1000, PEAK_ROUNDS = 3000000, WORK_KEYS = 1 << 14 };
enum { SCORES = 1, SOFTMAX = 2, VALUES = 4, ALL = SCORES | SOFTMAX | VALUES };

static const struct walk {
    const char *name;
    size_t keys; /* up to 512 KiB of them and their values lie in the second cache */
    int parts;
} walks[] = {
    {"scores", 512, SCORES}, {"softmax", 512, SOFTMAX}, {"values", 512, VALUES},
    {"together", 512, ALL},  {"together", 4096, ALL},   {"together", 8192, ALL},
};

enum { WALKS = sizeof walks / sizeof *walks };

typedef struct job {
    const attn_kernels *kernels;
    const attn_peaks *peaks;
    const struct walk *walk;
    size_t width;
    const float *keys, *values; /* [keys / TILE][width][TILE] and [keys][width] */
    float *workers;             /* [threads][WORKER] */
    double peak_flop[ATTN_THREADS_MAX];
} job;

enum { WORKER = QUERIES * (2 * WIDTH_MOST + ATTN_RUNNING_SUMS + 1) + STEP * KEYS };

static void run_step(const job *j, float *room, size_t i, size_t key, attn_ahead *ahead)
{
    const size_t width = j->width;
    float *s = room, *q = s + STEP * KEYS + i * width, *o = q + QUERIES * width;
    float *total = room + WORKER - QUERIES * (ATTN_RUNNING_SUMS + 1),
          *top = room + WORKER - QUERIES;
    const attn_running_rows state = {top + i, total + i * ATTN_RUNNING_SUMS, o, width, width,
                                     false};
    for (size_t t = 0; t < KEYS && (j->walk->parts & SCORES); t += TILE)
        attn_ahead_product(j->kernels, ahead, STEP, TILE, width, q, width, 1,
                           j->keys + (key + t) * width, TILE, s + t, KEYS, false);
    if (j->walk->parts & SOFTMAX) j->kernels->running_softmax(STEP, KEYS, 0.18f, s, KEYS, &state);
    if (j->walk->parts & VALUES)
        j->kernels->product(STEP, width, KEYS, s, KEYS, 1, j->values + key * width, width, o, width,
                            true);
}

static void run_walk(void *argument, size_t task, size_t worker)
{
    const job *j = argument;
    const size_t keys = j->walk->keys, width = j->width;
    float *room = j->workers + worker * WORKER;
    (void)task;
    for (size_t done = 0; done < WORK_KEYS; done += KEYS) {
        const size_t key = done % keys, next = (done + KEYS) % keys;
        attn_ahead ahead = {.rows = KEYS};
        attn_ahead_add(&ahead, width, j->keys + next * width, width, false);
        attn_ahead_add(&ahead, width, j->values + next * width, width, false);
        for (size_t i = 0; i < QUERIES; i += STEP) run_step(j, room, i, key, &ahead);
    }
}

static void run_peak(void *argument, size_t task, size_t worker)
{
    job *j = argument;
    (void)worker;
    j->peak_flop[task] = j->peaks->multiply_add(PEAK_ROUNDS);
}

static double time_s(attn_task *task, size_t threads, job *j)
{
    const uint64_t start_ns = attn_clock_ns();
    attn_parallel(threads, threads, task, j);
    return attn_clock_seconds(start_ns, attn_clock_ns());
}

/* Small numbers of both signs; a walk leaves sums that the next one begins with. */
static void fill(size_t n, float *x)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)(i * 29 % 61) / 61.0f - 0.5f;
}

static double read_peak(size_t threads, job *j)
{
    const double s = time_s(run_peak, threads, j);
    double flop = 0.0;
    for (size_t i = 0; i < threads; i++) flop += j->peak_flop[i];
    return flop / s;
}

static void print_walks(size_t threads, size_t readings, job *j)
{
    static double rates[WALKS][READINGS_MOST], shares[WALKS][READINGS_MOST], peaks[READINGS_MOST];
    const double pairs = (double)(threads * QUERIES) * WORK_KEYS;
    for (size_t r = 0; r < readings; r++) {
        peaks[r] = read_peak(threads, j);
        for (size_t w = 0; w < WALKS; w++) {
            j->walk = &walks[w];
            fill(threads * WORKER, j->workers);
            const size_t products =
                (j->walk->parts & SCORES ? 1 : 0) + (j->walk->parts & VALUES ? 1 : 0);
            const double per_pair = products ? 2.0 * (double)(products * j->width) : 1.0;
            rates[w][r] = per_pair * pairs / time_s(run_walk, threads, j);
            shares[w][r] = products ? 100.0 * rates[w][r] / peaks[r] : 0.0;
        }
    }
    attn_statistics_sort(peaks, readings);
    printf("\nheads of %zu, fma_f32 %.0f GFLOP/s\n", j->width,
           1e-9 * attn_statistics_median(peaks, readings));
    for (size_t w = 0; w < WALKS; w++) {
        attn_statistics_sort(rates[w], readings);
        attn_statistics_sort(shares[w], readings);
        printf("%-10s %4zu keys %7.1f G/s", walks[w].name, walks[w].keys,
               1e-9 * attn_statistics_median(rates[w], readings));
        if (walks[w].parts != SOFTMAX)
            printf(" %5.1f %% of fma_f32 (%.1f to %.1f)",
                   attn_statistics_median(shares[w], readings),
                   attn_statistics_quantile(shares[w], readings, 0.25),
                   attn_statistics_quantile(shares[w], readings, 0.75));
        putchar('\n');
    }
}

int main(int count, char **arguments)
{
    const size_t readings = count > 1 ? strtoul(arguments[1], NULL, 10) : 15;
    const size_t threads = attn_cores_available(), packed = (size_t)KEYS_MOST * WIDTH_MOST;
    if (readings < 1 || readings > READINGS_MOST || threads > ATTN_THREADS_MAX) {
        fprintf(stderr, "usage: bench_walk_f32 [READINGS up to %d]\n", READINGS_MOST);
        return EXIT_FAILURE;
    }
    const attn_isa isa = attn_cpu_best_isa();
    float *data = attn_alloc_array(ATTN_MEMORY_OTHER, 2 * packed + threads * WORKER, sizeof *data);
    if (!data) {
        fprintf(stderr, "bench_walk_f32: no memory\n");
        return EXIT_FAILURE;
    }
    fill(2 * packed, data);
    job j = {.kernels = attn_kernels_for(isa),
             .peaks = attn_peaks_for(isa),
             .keys = data,
             .values = data + packed,
             .workers = data + 2 * packed};
    printf("float32 attention forward without packing, storing and masks; %zu threads\n", threads);
    for (j.width = TILE; j.width <= WIDTH_MOST; j.width *= 2) print_walks(threads, readings, &j);
    attn_free(data);
    return EXIT_SUCCESS;
}
