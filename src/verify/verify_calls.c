/* Different ways to compute the same: token by token, and with other numbers of threads. */
#include "verify/compare.h"
#include "verify/probe.h"

#include <string.h>

/* ---- decoding ---------------------------------------------------------------------------- */

/* What one run of decoding works with; a cache for the whole length. */
typedef struct decoding {
    float *cache, *scratch, *x, *y;
} decoding;

static bool make_decoding(attn_probe *p, decoding *d)
{
    const size_t cache_count = attn_layer_cache_count(p->layer, p->B, p->T);
    *d = (decoding){
        .cache = attn_probe_floats(p, cache_count, "the cache"),
        .scratch = attn_probe_floats(p, attn_layer_scratch_count(p->layer, p->context, p->B, 1),
                                     "scratch"),
        .x = attn_probe_floats(p, p->B * p->C, "x"),
        .y = attn_probe_floats(p, p->B * p->C, "y"),
    };
    /* An empty cache is zeros; what prefills one may find anything. */
    return p->status == ATTN_OK;
}

/* The first tokens of every sequence in one call. */
static bool prefill(attn_probe *p, const decoding *d, size_t count)
{
    float *x = attn_probe_floats(p, p->B * count * p->C, "x");
    attn_call call = attn_probe_call(p);
    if (!x) return false;
    for (size_t b = 0; b < p->B; b++)
        memcpy(x + b * count * p->C, p->x + b * p->T * p->C, count * p->C * sizeof *x);
    call.length = count;
    call.x = x;
    call.cache = d->cache;
    call.cache_capacity = p->T;
    return attn_probe_forward(p, p->context, &call, false);
}

/* Tokens from `first` on, one by one; their rows go to y [B][T][C]. */
static bool decode_rest(attn_probe *p, const decoding *d, size_t first, float *y)
{
    attn_call call = attn_probe_call(p);
    call.length = 1;
    call.x = d->x;
    call.y = d->y;
    call.scratch = d->scratch;
    call.cache = d->cache;
    call.cache_capacity = p->T;
    for (size_t t = first; t < p->T; t++) {
        for (size_t b = 0; b < p->B; b++)
            memcpy(d->x + b * p->C, p->x + (b * p->T + t) * p->C, p->C * sizeof *y);
        call.position = t;
        if (!attn_probe_decode(p, p->context, &call)) return false;
        for (size_t b = 0; b < p->B; b++)
            memcpy(y + (b * p->T + t) * p->C, d->y + b * p->C, p->C * sizeof *y);
    }
    return true;
}

void attn_check_decode(attn_probe *p)
{
    attn_verdict *v = &p->result->of[ATTN_PROPERTY_DECODE];
    const size_t prefilled[] = {0, 1, 64, p->T / 2, p->T - 1};
    attn_call whole = attn_probe_call(p);
    if (!attn_probe_forward(p, p->context, &whole, false)) return;
    for (size_t i = 0; i < sizeof prefilled / sizeof *prefilled; i++) {
        const size_t first = prefilled[i];
        struct attn_probe_block *mark = attn_probe_mark(p);
        float *y = attn_probe_floats(p, p->n, "y");
        decoding d;
        if (first >= p->T) continue;
        if (!y || !make_decoding(p, &d)) return;
        memcpy(y, whole.y, p->n * sizeof *y);
        if (first == 0)
            memset(d.cache, 0, attn_layer_cache_count(p->layer, p->B, p->T) * sizeof *d.cache);
        if ((first > 0 && !prefill(p, &d, first)) || !decode_rest(p, &d, first, y)) {
            attn_verdict_skip(v, "%s", attn_context_error(p->context)->text);
            return;
        }
        attn_verdict_error(v,
                           attn_relative_error(p->n, attn_singles(y), attn_singles(whole.y), 0.0),
                           p->within.y, "tokens behind a cache of %zu", first);
        attn_probe_release(p, mark);
    }
}

/* ---- threads ----------------------------------------------------------------------------- */

/* A context's forward and backward of the whole batch, and the context freed. */
static bool run_threads(attn_probe *p, size_t threads, bool is_plain, attn_call *call)
{
    attn_context *context = attn_probe_context(p, threads, is_plain);
    *call = attn_probe_call(p);
    const bool is_done =
        attn_probe_forward(p, context, call, true) && attn_probe_backward(p, context, call);
    attn_context_free(context);
    return is_done;
}

/* With products of our own every sum has one order, so every bit is the same. */
static void compare_bits(attn_probe *p, const attn_call *got, const attn_call *want, size_t threads)
{
    attn_verdict *v = &p->result->of[ATTN_PROPERTY_THREADS];
    attn_verdict_bits(v, p->n, got->y, want->y, "y with %zu threads and plain products", threads);
    attn_verdict_bits(v, p->n, got->dx, want->dx, "dx with %zu threads and plain products",
                      threads);
    attn_verdict_bits(v, p->P, got->gradients, want->gradients,
                      "gradients with %zu threads and plain products", threads);
}

/* A library may cut its products by the number of threads. */
static void compare_rounding(attn_probe *p, const attn_call *got, const attn_call *want,
                             size_t threads)
{
    attn_verdict *v = &p->result->of[ATTN_PROPERTY_THREADS];
    double *wanted = attn_probe_doubles(p, p->P);
    if (!wanted) return;
    attn_widen(p->P, want->gradients, wanted);
    attn_verdict_same(v, p->n, got->y, want->y, p->same.y, "y with %zu threads", threads);
    attn_verdict_same(v, p->n, got->dx, want->dx, p->same.dx, "dx with %zu threads", threads);
    if (memcmp(got->gradients, want->gradients, p->P * sizeof *got->gradients) != 0)
        attn_probe_compare_gradients(p, v, got->gradients, wanted, &p->same, " with more threads");
}

void attn_check_threads(attn_probe *p)
{
    static const size_t threads[] = {2, 3};
    for (size_t pass = 0; pass < 2; pass++) {
        const bool is_plain = pass == 0;
        struct attn_probe_block *mark = attn_probe_mark(p);
        attn_call one, more;
        if (!run_threads(p, 1, is_plain, &one)) return;
        for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
            if (!run_threads(p, threads[i], is_plain, &more)) return;
            (is_plain ? compare_bits : compare_rounding)(p, &more, &one, threads[i]);
        }
        attn_probe_release(p, mark);
    }
}
