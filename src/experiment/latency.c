/* Inference latency. */
#include "experiment/latency.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/statistics.h"
#include "model/generation.h"

#include <stdio.h>

static const char cannot_decode[] = "the model sees later tokens, so it cannot decode";

enum { FORWARD_REPEATS = 7 }; /* the first one warms up and is not counted */

static attn_status time_forward(attn_generator *generator, const attn_plan *plan,
                                const uint32_t *ids, double *median_s, attn_error *error)
{
    double times_s[FORWARD_REPEATS];
    for (size_t i = 0; i < FORWARD_REPEATS; i++) {
        const uint64_t begin_ns = attn_clock_ns();
        const attn_status status = attn_generator_prefill(generator, ids, plan->length, error);
        times_s[i] = attn_clock_seconds(begin_ns, attn_clock_ns());
        if (status != ATTN_OK) return status;
    }
    attn_statistics_sort(times_s + 1, FORWARD_REPEATS - 1);
    *median_s = attn_statistics_median(times_s + 1, FORWARD_REPEATS - 1);
    return ATTN_OK;
}

/* Fills the cache up to the last `n` tokens and feeds those one by one. */
static attn_status time_tokens(attn_generator *generator, const attn_plan *plan,
                               const uint32_t *ids, size_t n, double *times_s, attn_error *error)
{
    attn_status status = attn_generator_prefill(generator, ids, plan->length - n, error);
    for (size_t i = 0; i < n && status == ATTN_OK; i++) {
        const uint64_t begin_ns = attn_clock_ns();
        status = attn_generator_feed(generator, ids + plan->length - n + i, error);
        times_s[i] = attn_clock_seconds(begin_ns, attn_clock_ns());
    }
    return status;
}

attn_status attn_put_latency_figures(attn_figure_sink *sink, const attn_model *model,
                                     attn_context *context, const attn_plan *plan,
                                     const uint32_t *ids, attn_error *error)
{
    const bool decodes = attn_model_future_blocks(model) == 0;
    const size_t most = plan->decode_tokens < plan->length ? plan->decode_tokens : plan->length - 1;
    const size_t n = decodes ? most : 0;
    attn_error reset_error = {0};
    const bool has_peak = attn_process_memory_reset_peak("", &reset_error) == ATTN_OK;
    attn_generator *generator = NULL;
    double *times_s = attn_alloc_array(ATTN_MEMORY_OTHER, n ? n : 1, sizeof *times_s);
    attn_status status =
        times_s ? ATTN_OK : attn_fail(error, ATTN_EMEMORY, "no memory for %zu latencies", n);
    if (status == ATTN_OK)
        status = attn_generator_create(&generator, model, context, 1, plan->length, error);
    if (status != ATTN_OK) goto done;

    double forward_s = 0.0;
    char source[ATTN_FIGURE_TEXT_BYTES];
    status = time_forward(generator, plan, ids, &forward_s, error);
    if (status != ATTN_OK) goto done;
    snprintf(source, sizeof source, "median of %d forward passes over one sequence of %zu tokens",
             FORWARD_REPEATS - 1, plan->length);
    attn_sink_value(sink, "latency_forward_s", "s", forward_s, ATTN_MEASURED, source);

    if (decodes) status = time_tokens(generator, plan, ids, n, times_s, error);
    if (status != ATTN_OK) goto done;
    if (n == 0) {
        const attn_figure none = attn_figure_unavailable(
            "latency_token_s", "s", "decoding",
            decodes ? "no token was decoded: use --decode-tokens" : cannot_decode);
        attn_sink_put(sink, &none);
    } else {
        attn_statistics_sort(times_s, n);
        const double median_s = attn_statistics_median(times_s, n);
        snprintf(source, sizeof source, "over %zu tokens decoded one by one behind %zu cached", n,
                 plan->length - n);
        attn_sink_value(sink, "latency_token_s", "s", median_s, ATTN_MEASURED, source);
        attn_sink_value(sink, "latency_token_p90_s", "s", attn_statistics_quantile(times_s, n, 0.9),
                        ATTN_MEASURED, source);
        attn_sink_value(sink, "decode_tokens_per_s", "token/s", 1.0 / median_s, ATTN_DERIVED,
                        "1 / latency_token_s");
    }
    snprintf(source, sizeof source, "caches or states of all layers, one sequence of %zu tokens",
             plan->length);
    const attn_figure cache =
        decodes
            ? attn_figure_make("cache_bytes", "byte", (double)attn_generator_cache_bytes(generator),
                               ATTN_COUNTED, source)
            : attn_figure_unavailable("cache_bytes", "byte", "decoding", cannot_decode);
    attn_sink_put(sink, &cache);
    attn_put_renamed(
        sink,
        has_peak ? attn_process_memory_peak("")
                 : attn_figure_unavailable("", "byte", "/proc/self/clear_refs", reset_error.text),
        "vmhwm_infer_bytes");
    status = sink->status;
done:
    attn_generator_free(generator);
    attn_free(times_s);
    return status;
}
