/* The decay engine: backward. See decay_engine.h for the equations. States are kept as transposes,
 * S^T [dv][dk]. */
#include "mechanisms/decay_chunk.h"

#include <string.h>

enum { C = ATTN_CHUNK };

/* Behind the chunk's memory. */
typedef struct backward_room {
    float *da;       /* [C][C] */
    float *diagonal; /* [C]: dA_ii, apart since no decay stands there */
    float *ds_t;     /* [dv][dk]: dS^T */
    float *run;      /* [dk]: dg, summed from the end */
} backward_room;

size_t attn_decay_backward_room(size_t dk, size_t dv)
{
    return C * (C + 1) + dk * dv + dk;
}

static backward_room divide(const attn_decay_input *in, float *room)
{
    backward_room r;
    r.da = attn_cut(&room, C * C);
    r.ds_t = attn_cut(&room, in->key_dim * in->value_dim);
    r.diagonal = attn_cut(&room, C);
    r.run = room;
    return r;
}

/* S'^T = S^T diag(D_C) + V^T (K o D_C.) */
void attn_decay_advance(const attn_decay_input *in, const float *state, float *next)
{
    const size_t c = in->length, dk = in->key_dim, dv = in->value_dim;
    attn_decay_chunk chunk;
    attn_decay_divide(in, &chunk);
    attn_decay_outgoing(in, &chunk);
    memcpy(next, state, dk * dv * sizeof *next);
    for (size_t i = 0; i < dv; i++) attn_counted_multiply(in->on, dk, chunk.total, next + i * dk);
    attn_counted_product(in->on, dv, dk, c, in->v, 1, dv, chunk.rows, dk, next, dk, true);
}

/* dg of a chunk from dq and dk, before the diagonal of A adds to them. */
static void decay_gradient(const attn_decay_input *in, const backward_room *room,
                           const float *state_after, const attn_decay_gradients *to)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim, dv = in->value_dim;
    float *dg = to->d_log_decay, *last = dg + (c - 1) * dk;
    memcpy(dg, in->k, c * dk * sizeof *dg);
    attn_counted_scale(on, c * dk, -1.0f, dg);
    attn_counted_multiply(on, c * dk, to->dk, dg);
    attn_counted_add_product(on, c * dk, in->q, to->dq, dg);
    if (state_after) {
        memset(room->run, 0, dk * sizeof *room->run);
        for (size_t i = 0; i < dv; i++)
            attn_counted_add_product(on, dk, room->ds_t + i * dk, state_after + i * dk, room->run);
        attn_counted_add(on, dk, room->run, last);
    }
    for (size_t t = c - 1; t-- > 0;) attn_counted_add(on, dk, dg + (t + 1) * dk, dg + t * dk);
}

void attn_decay_backward(const attn_decay_input *in, const attn_chunk_states *states,
                         const float *d_o, const attn_decay_gradients *to)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim, dv = in->value_dim;
    attn_decay_chunk chunk;
    const backward_room room = divide(in, attn_decay_divide(in, &chunk));
    float *da = room.da;

    on.kernels->transpose(c, dv, in->v, dv, chunk.turned, C);
    attn_counted_product(on, c, c, dv, d_o, dv, 1, chunk.turned, C, da, C, false);
    for (size_t i = 0; i < c; i++) {
        room.diagonal[i] = da[i * C + i];
        da[i * C + i] = 0.0f;
    }
    /* dQ = [dA K] + D o (dO S^T),  dK = [dA^T Q] + D_C. o (V dS^T) */
    on.kernels->transpose(dk, dv, states->ds, dv, room.ds_t, dk);
    attn_counted_product(on, c, dk, dv, d_o, dv, 1, states->before, dk, to->dq, dk, false);
    attn_counted_product(on, c, dk, dv, in->v, dv, 1, room.ds_t, dk, to->dk, dk, false);
    attn_decay_scores(in, &chunk, da, to->dq, to->dk);
    if (to->d_log_decay) decay_gradient(in, &room, states->after, to);
    for (size_t i = 0; i < c; i++) {
        attn_counted_add_scaled(on, dk, room.diagonal[i], in->k + i * dk, to->dq + i * dk);
        attn_counted_add_scaled(on, dk, room.diagonal[i], in->q + i * dk, to->dk + i * dk);
    }
    /* dV = (K o D_C.) dS + A^T dO */
    attn_counted_product(on, c, dv, dk, chunk.k_out_t, 1, C, states->ds, dv, to->dv, dv, false);
    attn_counted_product(on, c, dv, c, chunk.a, 1, C, d_o, dv, to->dv, dv, true);
    /* dS <- diag(D_C) dS + (Q o D)^T dO */
    attn_counted_scale_rows(on, dk, dv, chunk.total, states->ds, dv);
    attn_counted_product(on, dk, dv, c, chunk.q_in, 1, dk, d_o, dv, states->ds, dv, true);
}

attn_work attn_decay_backward_chunk(uint64_t c, uint64_t dk, uint64_t dv, bool is_vector,
                                    bool ends_document)
{
    attn_work work = attn_decay_scores_work(c, dk, is_vector, true);
    work.matmul += 4 * c * c * dv + 8 * c * dk * dv;
    work.other += 4 * c * dk + dk * dv; /* twice the diagonal; dS */
    if (is_vector) work.other += 4 * c * dk + (c - 1) * dk;
    if (ends_document) return work;
    attn_work_add(&work, attn_decay_outgoing_work(c, dk, is_vector));
    work.matmul += 2 * c * dk * dv; /* the state behind the chunk */
    work.other += dk * dv;
    if (is_vector) work.other += 2 * dk * dv + dk; /* rowsum(dS o S') */
    return work;
}
