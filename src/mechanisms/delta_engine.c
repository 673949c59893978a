/* The delta engine: chunks, forward, and counts. See delta_engine.h. */
#include "mechanisms/delta_engine.h"

#include "mechanisms/delta_chunk.h"

#include <string.h>

enum { C = ATTN_CHUNK, SOLVE_ROWS = 8 };

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t attn_delta_chunk_room(size_t key_dim, size_t value_dim)
{
    return C * (2 + 3 * C + larger(key_dim, value_dim) + key_dim + value_dim);
}

size_t attn_delta_room(size_t key_dim, size_t value_dim)
{
    return attn_delta_chunk_room(key_dim, value_dim) + attn_delta_backward_room(key_dim, value_dim);
}

float *attn_delta_divide(const attn_delta_input *in, attn_delta_chunk *chunk)
{
    float *room = in->room;
    const size_t dk = in->key_dim, dv = in->value_dim;
    chunk->incoming = attn_cut(&room, C);
    chunk->outgoing = attn_cut(&room, C);
    chunk->gamma = attn_cut(&room, C * C);
    chunk->m = attn_cut(&room, C * C);
    chunk->p = attn_cut(&room, C * C);
    chunk->turned = attn_cut(&room, C * larger(dk, dv));
    chunk->keys = attn_cut(&room, C * dk);
    chunk->u = attn_cut(&room, C * dv);
    chunk->total = 1.0f;
    return room;
}

/* ---- decays ------------------------------------------------------------------------------ */

void attn_delta_fill_ends(const attn_delta_input *in, attn_delta_chunk *chunk)
{
    const size_t c = in->length;
    const float *g = in->log_decay;
    if (!g) return;
    float sum = 0.0f;
    for (size_t t = 0; t < c; t++) chunk->incoming[t] = sum += g[t];
    sum = 0.0f;
    for (size_t t = c; t-- > 0; sum += g[t]) chunk->outgoing[t] = sum;
    in->on.work->other += 2 * (uint64_t)c;
    attn_counted_exp(in->on, c, chunk->incoming);
    attn_counted_exp(in->on, c, chunk->outgoing);
    chunk->total = chunk->incoming[c - 1];
}

void attn_delta_fill_gamma(const attn_delta_input *in, const attn_delta_chunk *chunk)
{
    if (!in->log_decay) return;
    for (size_t i = 0; i < in->length; i++) {
        float *row = chunk->gamma + i * C;
        const float *before = row - C; /* its exponents: rows become exponentials below */
        for (size_t j = 0; j < i; j++) row[j] = before[j] + in->log_decay[i];
        row[i] = 0.0f;
    }
    for (size_t i = 0; i < in->length; i++) attn_counted_exp(in->on, i + 1, chunk->gamma + i * C);
    in->on.work->other += (uint64_t)in->length * (in->length - 1) / 2;
}

void attn_delta_weigh(const attn_delta_input *in, const float *factors, size_t n, float *x)
{
    if (in->log_decay) attn_counted_scale_rows(in->on, in->length, n, factors, x, n);
}

/* ---- matrices of a chunk ----------------------------------------------------------------- */

void attn_delta_keep_strict(const attn_delta_input *in, float *a)
{
    const size_t c = in->length;
    memset(a, 0, c * sizeof *a);
    in->on.kernels->keep_lower(c - 1, c, NULL, a + C, C);
}

void attn_delta_scores(const attn_delta_input *in, const attn_delta_chunk *chunk,
                       const float *row_factors, const float *column_factors)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim;
    on.kernels->transpose(c, dk, in->k, dk, chunk->turned, C);
    attn_counted_product(on, c, c, dk, in->q, dk, 1, chunk->turned, C, chunk->p, C, false);
    attn_counted_product(on, c, c, dk, in->k, dk, 1, chunk->turned, C, chunk->m, C, false);
    on.kernels->keep_lower(c, c, NULL, chunk->p, C);
    attn_delta_keep_strict(in, chunk->m);
    for (size_t i = 0; i < c; i++) {
        if (in->log_decay) {
            attn_counted_multiply(on, i + 1, chunk->gamma + i * C, chunk->p + i * C);
            attn_counted_multiply(on, i, chunk->gamma + i * C, chunk->m + i * C);
        }
        if (column_factors) attn_counted_multiply(on, i, column_factors, chunk->m + i * C);
        attn_counted_scale(on, i, row_factors ? -row_factors[i] : -1.0f, chunk->m + i * C);
    }
}

/* x [c][n] becomes the solution of (I - m) x' = x, m strictly lower triangular: SOLVE_ROWS rows
 * at a time, after one product with all rows that are solved. */
static void solve_lower(attn_counted on, size_t c, size_t n, const float *m, float *x)
{
    for (size_t i0 = 0; i0 < c; i0 += SOLVE_ROWS) {
        const size_t end = attn_smaller(i0 + SOLVE_ROWS, c);
        attn_counted_product(on, end - i0, n, i0, m + i0 * C, C, 1, x, n, x + i0 * n, n, true);
        for (size_t i = i0 + 1; i < end; i++)
            attn_counted_product(on, 1, n, i - i0, m + i * C + i0, C, 1, x + i0 * n, n, x + i * n,
                                 n, true);
    }
}

void attn_delta_updates(const attn_delta_input *in, const attn_delta_chunk *chunk, const float *r)
{
    const size_t dv = in->value_dim;
    memcpy(chunk->u, r, in->length * dv * sizeof *r);
    attn_counted_scale_rows(in->on, in->length, dv, in->rate, chunk->u, dv);
}

/* ---- forward ----------------------------------------------------------------------------- */

void attn_delta_forward(const attn_delta_input *in, float *state, float *o, float *r)
{
    attn_delta_chunk room, *chunk = &room;
    attn_delta_divide(in, chunk);
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim, dv = in->value_dim;
    float *rows = chunk->keys;
    attn_delta_fill_ends(in, chunk);
    attn_delta_fill_gamma(in, chunk);
    attn_delta_scores(in, chunk, NULL, in->rate);

    /* R = (I + M diag(b))^-1 (V - D K S) */
    memcpy(rows, in->k, c * dk * sizeof *rows);
    attn_delta_weigh(in, chunk->incoming, dk, rows);
    attn_counted_scale(on, c * dk, -1.0f, rows);
    memcpy(r, in->v, c * dv * sizeof *r);
    attn_counted_product(on, c, dv, dk, rows, dk, 1, state, dv, r, dv, true);
    solve_lower(on, c, dv, chunk->m, r);
    attn_delta_updates(in, chunk, r);

    /* O = D Q S + P U */
    memcpy(rows, in->q, c * dk * sizeof *rows);
    attn_delta_weigh(in, chunk->incoming, dk, rows);
    attn_counted_product(on, c, dv, dk, rows, dk, 1, state, dv, o, dv, false);
    attn_counted_product(on, c, dv, c, chunk->p, C, 1, chunk->u, dv, o, dv, true);

    /* S' = e^{G_C} S + (E K)^T U */
    memcpy(rows, in->k, c * dk * sizeof *rows);
    attn_delta_weigh(in, chunk->outgoing, dk, rows);
    if (in->log_decay) attn_counted_scale(on, dk * dv, chunk->total, state);
    attn_counted_product(on, dk, dv, c, rows, 1, dk, chunk->u, dv, state, dv, true);
}

/* ---- counts ------------------------------------------------------------------------------ */

/* attn_delta_fill_ends(), _fill_gamma() and _scores() */
attn_work attn_delta_scores_work(uint64_t c, uint64_t dk, bool has_decay)
{
    const uint64_t pairs = c * (c - 1) / 2;
    attn_work work = {.matmul = 4 * c * c * dk, .other = pairs};
    if (has_decay) {
        work.exponential += 2 * c + pairs + c;
        work.other += 2 * c + 3 * pairs + c; /* sums; products with gamma */
    }
    return work;
}

static attn_work forward_chunk_work(uint64_t c, uint64_t dk, uint64_t dv, bool has_decay)
{
    const uint64_t pairs = c * (c - 1) / 2;
    attn_work work = attn_delta_scores_work(c, dk, has_decay);
    work.matmul += 6 * c * dk * dv + 2 * c * c * dv + 2 * pairs * dv;
    work.other += pairs + c * dk + c * dv; /* column factors, sign, U */
    if (has_decay) work.other += 3 * c * dk + dk * dv;
    return work;
}

attn_work attn_delta_work(attn_phase phase, size_t key_dim, size_t value_dim, bool has_decay,
                          size_t length, const uint32_t *documents)
{
    attn_work total = {0};
    for (size_t t = 0, end; t < length; t = end) {
        end = attn_chunk_end(t, length, documents);
        const bool ends_document = end == length || (documents && documents[end] == end);
        attn_work_add(&total, phase == ATTN_PHASE_BACKWARD
                                  ? attn_delta_backward_chunk(end - t, key_dim, value_dim,
                                                              has_decay, ends_document)
                                  : forward_chunk_work(end - t, key_dim, value_dim, has_decay));
    }
    return total;
}
