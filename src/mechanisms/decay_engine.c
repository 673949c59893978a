/* The decay engine: forward, and counts. See decay_engine.h. */
#include "mechanisms/decay_engine.h"

#include "mechanisms/decay_chunk.h"

enum { C = ATTN_CHUNK, BLOCK = ATTN_DECAY_BLOCK };

size_t attn_decay_room(size_t key_dim, size_t value_dim)
{
    return attn_decay_chunk_room(key_dim, value_dim) + attn_decay_backward_room(key_dim, value_dim);
}

/* O = (Q o D) S + A V, then S' = diag(D_C) S + (K o D_C.)^T V */
void attn_decay_forward(const attn_decay_input *in, float *state, float *o)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim, dv = in->value_dim;
    attn_decay_chunk chunk;
    attn_decay_divide(in, &chunk);
    attn_decay_scores(in, &chunk, NULL, NULL, NULL);
    attn_counted_product(on, c, dv, dk, chunk.q_in, dk, 1, state, dv, o, dv, false);
    attn_counted_product(on, c, dv, c, chunk.a, C, 1, in->v, dv, o, dv, true);
    attn_counted_scale_rows(on, dk, dv, chunk.total, state, dv);
    attn_counted_product(on, dk, dv, c, chunk.k_out_t, C, 1, in->v, dv, state, dv, true);
}

/* ---- counts ------------------------------------------------------------------------------ */

attn_work attn_decay_scores_work(uint64_t c, uint64_t dk, bool is_vector, bool has_gradient)
{
    const uint64_t pairs = c * (c - 1) / 2;
    if (!is_vector)
        return (attn_work){.matmul = (has_gradient ? 6 : 2) * c * c * dk,
                           .other = (has_gradient ? 2 : 1) * (pairs + c + 2 * c * dk)};
    attn_work work = {.matmul = 2 * dk * (c + (has_gradient ? 3 : 1) * pairs),
                      .exponential = c * dk,
                      .other = c * dk}; /* Q o within */
    if (has_gradient) work.other += 2 * c * dk;
    for (uint64_t s = 0; s < c; s += BLOCK) {
        const uint64_t n = c - s < BLOCK ? c - s : BLOCK, inner = n * (n - 1) / 2;
        work.other += dk * (n - 1 + inner); /* within; keys that decay token by token */
        if (has_gradient) work.other += dk * (n - 1 + 2 * inner);
        if (s == 0) continue;
        work.other += dk * (n + s + 1); /* q_in; k_out_t; total */
        if (has_gradient) work.other += dk * (n + s);
    }
    return work;
}

attn_work attn_decay_outgoing_work(uint64_t c, uint64_t dk, bool is_vector)
{
    attn_work work = {.other = c * dk};
    if (!is_vector) return work;
    work.exponential += c * dk;
    work.other += c * dk; /* products behind each row, and behind the start */
    return work;
}

static attn_work forward_chunk_work(uint64_t c, uint64_t dk, uint64_t dv, bool is_vector)
{
    attn_work work = attn_decay_scores_work(c, dk, is_vector, false);
    work.matmul += 4 * c * dk * dv + 2 * c * c * dv;
    work.other += dk * dv;
    return work;
}

attn_work attn_decay_work(attn_phase phase, size_t key_dim, size_t value_dim, bool is_vector,
                          size_t length, const uint32_t *documents)
{
    attn_work total = {0};
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
