/* The decay engine: backward. See decay_engine.h for the equations. States and their gradients
 * are needed as transposes as well: S^T [dv][dk] is what the sweep forward keeps. */
#include "mechanisms/decay_chunk.h"

#include <string.h>

enum { C = ATTN_CHUNK };

/* Behind the chunk's memory. */
typedef struct backward_room {
    float *da;        /* [C][C] */
    float *diagonal;  /* [C]: dA_ii, apart since e^0 has no gradient */
    float *ds, *ds_t; /* [dk][dv] and its transpose */
    float *run;       /* [dk]: dg, summed from the end */
    float *states;    /* S^T before each chunk that does not start a document; the first is 0 */
} backward_room;

/* States kept at once: each stands for a whole chunk before it. */
static size_t state_count(size_t length)
{
    return 1 + (length - 1) / C;
}

size_t attn_decay_backward_room(size_t length, size_t dk, size_t dv)
{
    return C * (C + 1) + dk + (2 + state_count(length)) * dk * dv;
}

static backward_room divide(const attn_decay_head *head, float *room)
{
    const size_t square = head->key_dim * head->value_dim;
    backward_room r;
    r.da = attn_cut(&room, C * C);
    r.diagonal = attn_cut(&room, C);
    r.ds = attn_cut(&room, square);
    r.ds_t = attn_cut(&room, square);
    r.run = attn_cut(&room, head->key_dim);
    r.states = room;
    return r;
}

static bool is_document_start(const attn_decay_head *head, size_t t)
{
    return t == 0 || (head->documents && head->documents[t] == t);
}

static bool is_document_end(const attn_decay_head *head, size_t end)
{
    return end == head->length || is_document_start(head, end);
}

/* S'^T = S^T diag(e^{G_C}) + V^T (K o e^{G_C - G}) */
static void next_state(const attn_decay_head *head, const attn_decay_chunk *chunk,
                       const float *state, float *next)
{
    const size_t c = chunk->c, dk = head->key_dim, dv = head->value_dim;
    attn_decay_fill_outgoing(head, chunk);
    memcpy(chunk->rows, chunk->k, c * dk * sizeof *chunk->rows);
    attn_decay_weigh_outgoing(head, chunk, chunk->rows);
    memcpy(next, state, dk * dv * sizeof *next);
    for (size_t i = 0; i < dv; i++)
        attn_counted_multiply(head->on, dk, chunk->total, next + i * dk);
    attn_counted_product(head->on, dv, dk, c, chunk->v, 1, dv, chunk->rows, dk, next, dk, true);
}

/* dg of a chunk from dq and dk, before the diagonal of A adds to them. */
static void decay_gradient(const attn_decay_head *head, const attn_decay_chunk *chunk,
                           const float *ds_t, const float *state_after, const float *dq,
                           const float *dk_in, float *run, float *d_log_decay)
{
    const size_t c = chunk->c, dk = head->key_dim, dv = head->value_dim;
    memset(run, 0, dk * sizeof *run);
    for (size_t i = 0; state_after && i < dv; i++)
        attn_counted_add_product(head->on, dk, ds_t + i * dk, state_after + i * dk, run);
    for (size_t t = c; t-- > 0;) {
        float *row = d_log_decay + t * dk;
        memcpy(row, chunk->k + t * dk, dk * sizeof *row);
        attn_counted_scale(head->on, dk, -1.0f, row);
        attn_counted_multiply(head->on, dk, dk_in + t * dk, row);
        attn_counted_add_product(head->on, dk, chunk->q + t * dk, dq + t * dk, row);
        attn_counted_add(head->on, dk, row, run);
        memcpy(row, run, dk * sizeof *row);
    }
}

/* The gradients of one chunk; `state` is S^T before it, `state_after` S'^T or NULL where the
 * document ends and dS is 0. */
static void backward_chunk(const attn_decay_head *head, const attn_decay_chunk *chunk,
                           const backward_room *room, size_t t, const float *d_o,
                           const float *state, const float *state_after,
                           const attn_decay_gradients *to)
{
    const attn_counted on = head->on;
    const size_t c = chunk->c, dk = head->key_dim, dv = head->value_dim;
    float *dq = to->dq + t * dk, *dk_out = to->dk + t * dk, *dv_out = to->dv + t * dv;
    float *rows = chunk->rows, *da = room->da;

    on.kernels->transpose(c, dv, chunk->v, dv, chunk->turned, C);
    attn_counted_product(on, c, c, dv, d_o, dv, 1, chunk->turned, C, da, C, false);
    for (size_t i = 0; i < c; i++) {
        room->diagonal[i] = da[i * C + i];
        da[i * C + i] = 0.0f;
    }
    attn_decay_scores(head, chunk, da, dq, dk_out);
    attn_decay_fill_incoming(head, chunk);
    attn_decay_fill_outgoing(head, chunk);

    /* dV = A^T dO + (K o e^{G_C - G}) dS */
    memcpy(rows, chunk->k, c * dk * sizeof *rows);
    attn_decay_weigh_outgoing(head, chunk, rows);
    attn_counted_product(on, c, dv, dk, rows, dk, 1, room->ds, dv, dv_out, dv, false);
    attn_counted_product(on, c, dv, c, chunk->a, 1, C, d_o, dv, dv_out, dv, true);
    /* dQ += e^G o (dO S^T),  dK += e^{G_C - G} o (V dS^T) */
    attn_counted_product(on, c, dk, dv, d_o, dv, 1, state, dk, rows, dk, false);
    attn_decay_weigh_incoming(head, chunk, rows);
    attn_counted_add(on, c * dk, rows, dq);
    attn_counted_product(on, c, dk, dv, chunk->v, dv, 1, room->ds_t, dk, rows, dk, false);
    attn_decay_weigh_outgoing(head, chunk, rows);
    attn_counted_add(on, c * dk, rows, dk_out);
    if (to->d_log_decay)
        decay_gradient(head, chunk, room->ds_t, state_after, dq, dk_out, room->run,
                       to->d_log_decay + t * dk);
    for (size_t i = 0; i < c; i++) {
        attn_counted_add_scaled(on, dk, room->diagonal[i], chunk->k + i * dk, dq + i * dk);
        attn_counted_add_scaled(on, dk, room->diagonal[i], chunk->q + i * dk, dk_out + i * dk);
    }
    /* dS <- diag(e^{G_C}) dS + (Q o e^G)^T dO */
    memcpy(rows, chunk->q, c * dk * sizeof *rows);
    attn_decay_weigh_incoming(head, chunk, rows);
    attn_counted_scale_rows(on, dk, dv, chunk->total, room->ds, dv);
    attn_counted_product(on, dk, dv, c, rows, 1, dk, d_o, dv, room->ds, dv, true);
    on.kernels->transpose(dk, dv, room->ds, dv, room->ds_t, dk);
}

void attn_decay_backward(const attn_decay_head *head, const float *d_o,
                         const attn_decay_gradients *gradients)
{
    const size_t T = head->length, dv = head->value_dim, square = head->key_dim * dv;
    attn_decay_chunk chunk;
    const backward_room room = divide(head, attn_decay_divide(head, head->room, &chunk));
    size_t kept = 0; /* the last state's place */
    memset(room.states, 0, square * sizeof(float));
    for (size_t t = 0, end; t < T; t = end) {
        end = attn_chunk_end(t, T, head->documents);
        if (is_document_end(head, end)) continue;
        const float *state = room.states + (is_document_start(head, t) ? 0 : kept) * square;
        attn_decay_enter(head, t, end - t, &chunk);
        next_state(head, &chunk, state, room.states + ++kept * square);
    }
    for (size_t end = T, t; end > 0; end = t) {
        t = attn_chunk_start(end, head->documents);
        const bool is_last = is_document_end(head, end);
        const float *after = is_last ? NULL : room.states + kept-- * square;
        const float *state = room.states + (is_document_start(head, t) ? 0 : kept) * square;
        if (is_last) memset(room.ds, 0, 2 * square * sizeof(float)); /* and ds_t */
        attn_decay_enter(head, t, end - t, &chunk);
        backward_chunk(head, &chunk, &room, t, d_o + t * dv, state, after, gradients);
    }
}

attn_work attn_decay_backward_chunk(uint64_t c, uint64_t dk, uint64_t dv, bool is_vector,
                                    bool ends_document)
{
    attn_work work = attn_decay_scores_work(c, dk, is_vector, true);
    work.matmul += 4 * c * c * dv + 8 * c * dk * dv;
    work.other += 10 * c * dk + dk * dv; /* four weighings, two sums, twice the diagonal; dS */
    if (is_vector) {
        work.exponential += 2 * c * dk + dk;
        work.other += 2 * (c - 1) * dk + dk + 5 * c * dk; /* sums; dg */
    }
    if (ends_document) return work;
    work.matmul += 2 * c * dk * dv; /* the state behind the chunk */
    work.other += c * dk + dk * dv;
    if (is_vector) {
        work.exponential += c * dk + dk;
        work.other += (c - 1) * dk + dk + 2 * dk * dv; /* sums; rowsum(dS o S') */
    }
    return work;
}
