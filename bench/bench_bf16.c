/* Times the dense products of GPT-2 124M in bfloat16, ours and oneDNN's in turns.
 *
 *     bench_bf16 [TOKENS [REPEATS]]
 *
 * Medians, with what share of the tiles' peak they are. oneDNN's weights are packed beforehand,
 * as ours are; the factors of a weight gradient lie as they are for both. */
#include "bench_bf16.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/statistics.h"
#include "base/threads.h"
#include "kernels/dense_bf16.h"
#include "kernels/peak.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { REPEATS_MOST = 1000, WARM_UP = 2 };

typedef enum direction { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, DIRECTIONS } direction;

static const char *const direction_names[DIRECTIONS] = {"forward", "dx", "dw"};

typedef struct layer {
    size_t in, out;
    attn_bf16 *x, *dy, *packed; /* the factors; weights packed */
    attn_bf16 *result;          /* y or dx */
    float *w, *dw, *bias;
} layer;

static const size_t sizes[][2] = {{768, 768}, {768, 2304}, {768, 3072}, {3072, 768}, {768, 50257}};

/* ---- the limit --------------------------------------------------------------------------- */

enum { PEAK_ROUNDS = 100000, PEAK_READINGS = 5 };

static void multiply_tiles(void *argument, size_t index, size_t worker)
{
    (void)worker;
    double *operations = argument;
    operations[index] = attn_peaks_for(ATTN_ISA_AMX)->multiply_tiles(PEAK_ROUNDS);
}

/* What AMX tiles do with factors from the L1 cache, operations a second; 0 without AMX. */
static double tile_peak(const attn_context *context)
{
    double peak = 0.0, operations[ATTN_THREADS_MAX];
    if (context->isa < ATTN_ISA_AMX) return 0.0;
    for (size_t i = 0; i < PEAK_READINGS; i++) {
        const uint64_t start_ns = attn_clock_ns();
        attn_parallel(context->threads, context->threads, multiply_tiles, operations);
        const double time_s = attn_clock_seconds(start_ns, attn_clock_ns());
        double sum = 0.0;
        for (size_t k = 0; k < context->threads; k++) sum += operations[k];
        peak = fmax(peak, sum / time_s);
    }
    return peak;
}

/* ---- products ---------------------------------------------------------------------------- */

static void fail(const char *text)
{
    fprintf(stderr, "bench_bf16: %s\n", text);
    exit(1);
}

/* in seconds */
static double since(uint64_t start_ns)
{
    return attn_clock_seconds(start_ns, attn_clock_ns());
}

static void *room(size_t count, size_t size_bytes)
{
    void *block = attn_alloc_array(ATTN_MEMORY_OTHER, count, size_bytes);
    if (!block) fail("out of memory");
    return block;
}

static attn_bf16 *random_halves(const attn_context *context, size_t count, uint32_t stream)
{
    float *wide = room(count, sizeof *wide);
    attn_bf16 *out = room(count, sizeof *out);
    attn_random_fill_normal(1, attn_random_stream(ATTN_RANDOM_TEST, stream), 1.0, count, wide);
    context->kernels->bf16_from_float(count, wide, out);
    attn_free(wide);
    return out;
}

static void layer_make(layer *l, attn_context *context, size_t tokens)
{
    const size_t packed = attn_dense_bf16_packed(l->out, l->in);
    l->x = random_halves(context, tokens * l->in, 1);
    l->dy = random_halves(context, tokens * l->out, 2);
    l->result = room(tokens * (l->in > l->out ? l->in : l->out), sizeof *l->result);
    l->w = room(l->out * l->in, sizeof *l->w);
    attn_random_fill_normal(1, attn_random_stream(ATTN_RANDOM_TEST, 3), 0.02, l->out * l->in, l->w);
    l->dw = room(l->out * l->in, sizeof *l->dw);
    l->bias = room(l->out, sizeof *l->bias);
    l->packed = room(packed, sizeof *l->packed);
}

static void layer_free(layer *l)
{
    attn_free(l->x);
    attn_free(l->dy);
    attn_free(l->result);
    attn_free(l->w);
    attn_free(l->dw);
    attn_free(l->bias);
    attn_free(l->packed);
}

static double pack(attn_context *context, const layer *l)
{
    const uint64_t start_ns = attn_clock_ns();
    attn_dense_bf16_pack(context, l->out, l->in, l->w, l->packed);
    return since(start_ns);
}

static double ours(attn_context *context, size_t tokens, const layer *l, direction d)
{
    const uint64_t start_ns = attn_clock_ns();
    if (d == FORWARD)
        attn_dense_bf16_forward(context, tokens, l->in, l->out, l->x, l->packed, l->bias,
                                (attn_dense_output){.half = l->result});
    else if (d == INPUT_GRADIENT)
        attn_dense_bf16_input_gradient(context, tokens, l->in, l->out, l->dy, l->out, l->packed,
                                       (attn_dense_output){.half = l->result});
    else
        attn_dense_bf16_weight_gradient(context, tokens, l->in, l->out, l->x, l->dy, l->out, l->dw,
                                        NULL, false);
    return since(start_ns);
}

static bench_onednn *theirs_make(size_t tokens, const layer *l, direction d)
{
    bench_product p = {.m = tokens, .n = l->out, .k = l->in, .packs = true};
    if (d == FORWARD) {
        p.a = l->x, p.a_row = l->in, p.a_column = 1, p.c = l->result;
    } else if (d == INPUT_GRADIENT) {
        p.n = l->in, p.k = l->out;
        p.a = l->dy, p.a_row = l->out, p.a_column = 1, p.c = l->result;
    } else {
        p = (bench_product){.m = l->out, .n = l->in, .k = tokens, .c = l->dw, .c_is_float = true};
        p.a = l->dy, p.a_row = 1, p.a_column = l->out;
        p.b = l->x, p.b_row = l->in, p.b_column = 1;
    }
    return bench_onednn_create(&p);
}

static double theirs(bench_onednn *onednn)
{
    const uint64_t start_ns = attn_clock_ns();
    return bench_onednn_run(onednn) ? since(start_ns) : NAN;
}

static double median(double *values, size_t n)
{
    attn_statistics_sort(values, n);
    return attn_statistics_median(values, n);
}

static void bench_layer(attn_context *context, size_t tokens, size_t repeats, double peak,
                        size_t in, size_t out)
{
    static double packed_s[REPEATS_MOST];
    static double ours_s[DIRECTIONS][REPEATS_MOST], theirs_s[DIRECTIONS][REPEATS_MOST];
    bench_onednn *onednn[DIRECTIONS];
    layer l = {.in = in, .out = out};
    layer_make(&l, context, tokens);
    for (direction d = FORWARD; d < DIRECTIONS; d++) onednn[d] = theirs_make(tokens, &l, d);
    for (size_t r = 0; r < repeats + WARM_UP; r++) {
        const size_t at = r < WARM_UP ? 0 : r - WARM_UP; /* the first ones are written over */
        packed_s[at] = pack(context, &l);
        for (direction d = FORWARD; d < DIRECTIONS; d++) {
            ours_s[d][at] = ours(context, tokens, &l, d);
            if (onednn[d]) theirs_s[d][at] = theirs(onednn[d]);
        }
    }
    const double operations = 2.0 * (double)tokens * (double)l.in * (double)l.out;
    for (direction d = FORWARD; d < DIRECTIONS; d++) {
        const double rate = operations / median(ours_s[d], repeats);
        printf("%5zu -> %5zu  %-8s %8.2f", l.in, l.out, direction_names[d], 1e-12 * rate);
        if (peak > 0.0) printf("  %4.0f %%", 100.0 * rate / peak);
        if (onednn[d]) {
            const double other = operations / median(theirs_s[d], repeats);
            printf("  %8.2f  %5.2f", 1e-12 * other, rate / other);
        }
        printf("\n");
        bench_onednn_free(onednn[d]);
    }
    printf("%5zu -> %5zu  packing: %.2f ms\n", l.in, l.out, 1e3 * median(packed_s, repeats));
    layer_free(&l);
}

static size_t argument(int count, char **arguments, int at, size_t otherwise, size_t most)
{
    if (at >= count) return otherwise;
    char *end = NULL;
    const unsigned long value = strtoul(arguments[at], &end, 10);
    if (*end || value < 1 || value > most) fail("usage: bench_bf16 [TOKENS [REPEATS]]");
    return value;
}

int main(int count, char **arguments)
{
    const size_t tokens = argument(count, arguments, 1, 1024, 1 << 20);
    const size_t repeats = argument(count, arguments, 2, 15, REPEATS_MOST);
    attn_error error = {0};
    attn_context *context = NULL;
    if (attn_context_create(&context, 0, NULL, &error) != ATTN_OK) fail(error.text);
    const size_t threads = attn_context_threads(context);
    const double peak = tile_peak(context);
    printf("%s, %zu threads, %zu tokens, medians of %zu", attn_context_isa(context), threads,
           tokens, repeats);
    if (peak > 0.0) printf("; AMX peak %.2f TFLOP/s", 1e-12 * peak);
    printf("\nin -> out       product   TFLOP/s%s    oneDNN  ratio\n", peak > 0.0 ? "  peak" : "");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        bench_layer(context, tokens, repeats, peak, sizes[i][0], sizes[i][1]);
    attn_context_free(context);
    return 0;
}
