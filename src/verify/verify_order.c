/* Who may know of whom: positions nothing of later ones, sequences nothing of each other, packed
 * documents nothing of their neighbours. */
#include "verify/compare.h"
#include "verify/probe.h"

#include <math.h>
#include <string.h>

enum { RANDOM_POSITIONS = 6 };

/* Positions where mistakes live: the ends, and around the borders of tiles and chunks. */
static const size_t borders[] = {1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257};

/* Those below T, T - 1 and some random ones, at least 1; returns how many. */
static size_t choose_positions(attn_probe *p, size_t *out)
{
    size_t n = 0;
    for (size_t i = 0; i < sizeof borders / sizeof *borders; i++)
        if (borders[i] < p->T) out[n++] = borders[i];
    out[n++] = p->T - 1;
    for (size_t i = 0; i < RANDOM_POSITIONS; i++) out[n++] = 1 + attn_probe_below(p, p->T - 1);
    return n;
}

enum { POSITIONS_MAX = sizeof borders / sizeof *borders + 1 + RANDOM_POSITIONS };

/* y of the whole batch for other x; NULL when the call failed. */
static const float *outputs_of(attn_probe *p, const float *x)
{
    attn_call call = attn_probe_call(p);
    call.x = x;
    return x && attn_probe_forward(p, p->context, &call, false) ? call.y : NULL;
}

/* ---- order ------------------------------------------------------------------------------- */

void attn_check_future(attn_probe *p)
{
    attn_verdict *v = &p->result->of[ATTN_PROPERTY_FUTURE];
    size_t positions[POSITIONS_MAX];
    const size_t n = choose_positions(p, positions), sequence = p->T * p->C;
    const float *y = outputs_of(p, p->x);
    p->is_extreme = true;
    for (size_t i = 0; i < n && y; i++) {
        const size_t t = positions[i];
        struct attn_probe_block *mark = attn_probe_mark(p);
        float *x = attn_probe_floats(p, p->n, "x");
        if (!x) return;
        memcpy(x, p->x, p->n * sizeof *x);
        for (size_t b = 0; b < p->B; b++)
            attn_probe_normal(p, 30.0, (p->T - t) * p->C, x + b * sequence + t * p->C);
        const float *changed = outputs_of(p, x);
        if (!changed) return;
        for (size_t b = 0; b < p->B; b++)
            attn_verdict_bits(v, t * p->C, changed + b * sequence, y + b * sequence,
                              "outputs before token %zu, behind which all changed", t);
        attn_probe_release(p, mark);
    }
}

/* Tokens [0, length) of every sequence. */
static float *prefix_of(attn_probe *p, const float *from, size_t length)
{
    float *out = attn_probe_floats(p, p->B * length * p->C, "x");
    for (size_t b = 0; out && b < p->B; b++)
        memcpy(out + b * length * p->C, from + b * p->T * p->C, length * p->C * sizeof *out);
    return out;
}

void attn_check_prefix(attn_probe *p)
{
    attn_verdict *v = &p->result->of[ATTN_PROPERTY_PREFIX];
    size_t positions[POSITIONS_MAX];
    const size_t n = choose_positions(p, positions);
    const float *y = outputs_of(p, p->x);
    for (size_t i = 0; i < n && y; i++) {
        struct attn_probe_block *mark = attn_probe_mark(p);
        attn_call call = attn_probe_call(p);
        call.length = positions[i];
        call.x = prefix_of(p, p->x, call.length);
        const float *want = prefix_of(p, y, call.length);
        if (!call.x || !want || !attn_probe_forward(p, p->context, &call, false)) return;
        attn_verdict_same(v, p->B * call.length * p->C, call.y, want, p->same.y,
                          "the first %zu tokens alone", call.length);
        attn_probe_release(p, mark);
    }
}

/* ---- batch ------------------------------------------------------------------------------- */

void attn_check_batch(attn_probe *p)
{
    attn_verdict *v = &p->result->of[ATTN_PROPERTY_BATCH];
    const size_t sequence = p->T * p->C, memory = p->memory_length * p->memory_width;
    const float *y = outputs_of(p, p->x);
    for (size_t b = 0; b < p->B && y; b++) {
        attn_call call = attn_probe_call(p);
        call.batch = 1;
        call.x = p->x + b * sequence;
        if (p->memory) call.memory = p->memory + b * memory;
        if (!attn_probe_forward(p, p->context, &call, false)) return;
        attn_verdict_same(v, sequence, call.y, y + b * sequence, p->same.y, "sequence %zu alone",
                          b);
    }
}

/* ---- documents --------------------------------------------------------------------------- */

/* Starts of documents: random ones, and around the border of a tile; some are one token long. */
static void draw_documents(attn_probe *p, uint32_t *documents)
{
    enum { USUAL = 29 };
    for (size_t b = 0; b < p->B; b++) {
        uint32_t start = 0;
        for (size_t t = 0; t < p->T; t++) {
            const bool is_border = b == 0 && (t == 1 || (t >= 63 && t <= 65));
            if (t > 0 && (is_border || attn_probe_below(p, USUAL) == 0)) start = (uint32_t)t;
            documents[b * p->T + t] = start;
        }
    }
}

/* One document in a call of its own; its gradients are added to `sum`. */
static bool compare_document(attn_probe *p, const attn_call *packed, size_t first, size_t length,
                             double floor, double *sum)
{
    attn_verdict *v = &p->result->of[ATTN_PROPERTY_DOCUMENTS];
    const size_t at = first * p->C, n = length * p->C;
    struct attn_probe_block *mark = attn_probe_mark(p);
    attn_call call = attn_probe_call(p);
    call.batch = 1;
    call.length = length;
    call.x = p->x + at;
    call.dy = p->dy + at;
    if (!attn_probe_forward(p, p->context, &call, true)) return false;
    if (!attn_probe_backward(p, p->context, &call)) return false;
    attn_verdict_error(
        v, attn_relative_error(n, attn_singles(packed->y + at), attn_singles(call.y), 0.0),
        p->within.y, "y of the document of %zu tokens at %zu", length, first % p->T);
    attn_verdict_error(
        v, attn_relative_error(n, attn_singles(packed->dx + at), attn_singles(call.dx), floor),
        p->within.dx, "dx of the document of %zu tokens at %zu", length, first % p->T);
    for (size_t i = 0; i < p->P; i++) sum[i] += (double)call.gradients[i];
    attn_probe_release(p, mark);
    return true;
}

void attn_check_documents(attn_probe *p)
{
    attn_verdict *v = &p->result->of[ATTN_PROPERTY_DOCUMENTS];
    uint32_t *documents = attn_probe_words(p, p->B * p->T);
    double *sum = attn_probe_doubles(p, p->P);
    attn_call packed = attn_probe_call(p);
    if (!documents || !sum) return;
    memset(sum, 0, p->P * sizeof *sum);
    draw_documents(p, documents);
    packed.document_start = documents;
    if (!attn_probe_forward(p, p->context, &packed, true)) {
        attn_verdict_skip(v, "%s", attn_context_error(p->context)->text);
        return;
    }
    if (!attn_probe_backward(p, p->context, &packed)) return;
    const double floor =
        ATTN_GRADIENT_FLOOR * attn_norm(p->n, attn_singles(packed.dx)) / sqrt((double)p->B);
    for (size_t b = 0; b < p->B; b++)
        for (size_t t = 0, end = 0; t < p->T; t = end) {
            while (end < p->T && documents[b * p->T + end] == t) end++;
            if (!compare_document(p, &packed, b * p->T + t, end - t, floor, sum)) return;
        }
    attn_probe_compare_gradients(p, v, packed.gradients, sum, &p->within, " over all documents");
}
