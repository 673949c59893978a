/* The decay engine: forward, and counts. See decay_engine.h. */
#include "mechanisms/decay_engine.h"

#include "mechanisms/decay_chunk.h"

#include <string.h>

enum { C = ATTN_CHUNK };

size_t attn_decay_room(size_t length, size_t key_dim, size_t value_dim)
{
    return attn_decay_chunk_room(key_dim, value_dim) +
           attn_decay_backward_room(length, key_dim, value_dim);
}

/* O = A V + (Q o e^G) S, then S' = diag(e^{G_C}) S + (K o e^{G_C - G})^T V */
static void forward_chunk(const attn_decay_head *head, const attn_decay_chunk *chunk, float *state,
                          float *o)
{
    const attn_counted on = head->on;
    const size_t c = chunk->c, dk = head->key_dim, dv = head->value_dim;
    float *rows = chunk->rows;
    attn_decay_scores(head, chunk, NULL, NULL, NULL);
    attn_decay_fill_incoming(head, chunk);
    attn_decay_fill_outgoing(head, chunk);

    memcpy(rows, chunk->q, c * dk * sizeof *rows);
    attn_decay_weigh_incoming(head, chunk, rows);
    attn_counted_product(on, c, dv, dk, rows, dk, 1, state, dv, o, dv, false);
    attn_counted_product(on, c, dv, c, chunk->a, C, 1, chunk->v, dv, o, dv, true);

    memcpy(rows, chunk->k, c * dk * sizeof *rows);
    attn_decay_weigh_outgoing(head, chunk, rows);
    attn_counted_scale_rows(on, dk, dv, chunk->total, state, dv);
    attn_counted_product(on, dk, dv, c, rows, 1, dk, chunk->v, dv, state, dv, true);
}

void attn_decay_forward(const attn_decay_head *head, float *state, float *o)
{
    const size_t T = head->length, dk = head->key_dim, dv = head->value_dim;
    attn_decay_chunk chunk;
    attn_decay_divide(head, head->room, &chunk);
    for (size_t t = 0, end; t < T; t = end) {
        end = attn_chunk_end(t, T, head->documents);
        if (head->documents && head->documents[t] == t) memset(state, 0, dk * dv * sizeof *state);
        attn_decay_enter(head, t, end - t, &chunk);
        forward_chunk(head, &chunk, state, o + t * dv);
    }
}

/* ---- counts ------------------------------------------------------------------------------ */

/* Rows that have a part in the blocks of a level: all up to the end of the last second half. */
static uint64_t level_rows(uint64_t c, uint64_t half)
{
    const uint64_t whole = c / (2 * half) * (2 * half);
    return c - whole > half ? c : whole;
}

/* attn_decay_scores() */
attn_work attn_decay_scores_work(uint64_t c, uint64_t dk, bool is_vector, bool has_gradient)
{
    const uint64_t pairs = c * (c - 1) / 2;
    if (!is_vector)
        return (attn_work){.matmul = (has_gradient ? 6 : 2) * c * c * dk,
                           .other = (has_gradient ? 2 : 1) * (pairs + c)};
    attn_work work = {.matmul = 2 * dk * (c + (has_gradient ? 3 : 1) * pairs)};
    for (uint64_t half = 1; half < c; half *= 2) {
        const uint64_t rows = level_rows(c, half);
        work.exponential += rows * dk;
        work.other += (has_gradient ? 4 : 2) * rows * dk; /* products, sums, gradients */
    }
    return work;
}

static attn_work forward_chunk_work(uint64_t c, uint64_t dk, uint64_t dv, bool is_vector)
{
    attn_work work = attn_decay_scores_work(c, dk, is_vector, false);
    work.matmul += 4 * c * dk * dv + 2 * c * c * dv;
    work.other += 2 * c * dk + dk * dv;
    if (is_vector) {
        work.exponential += 2 * c * dk + dk;
        work.other += 2 * (c - 1) * dk + dk; /* sums */
    }
    return work;
}

attn_work attn_decay_work(attn_phase phase, size_t key_dim, size_t value_dim, bool is_vector,
                          size_t length, const uint32_t *documents)
{
    attn_work total = {.other = is_vector ? 0 : C};
    for (size_t t = 0, end; t < length; t = end) {
        end = attn_chunk_end(t, length, documents);
        const bool ends_document = end == length || (documents && documents[end] == end);
        attn_work_add(&total, phase == ATTN_PHASE_BACKWARD
                                  ? attn_decay_backward_chunk(end - t, key_dim, value_dim,
                                                              is_vector, ends_document)
                                  : forward_chunk_work(end - t, key_dim, value_dim, is_vector));
    }
    return total;
}
