/* The delta engine: backward. See delta_engine.h for the equations. S^T [dv][dk] is what the
 * sweep forward keeps. */
#include "mechanisms/delta_chunk.h"

#include <string.h>

enum { C = ATTN_CHUNK, SOLVE_ROWS = 8 };

/* Behind the chunk's memory. */
typedef struct backward_room {
    float *dp, *dm;   /* [C][C] */
    float *diagonal;  /* [C]: of dP, apart since e^0 has no gradient */
    float *du, *dr;   /* [C][dv] */
    float *x, *y;     /* [C][dk] */
    float *ds, *ds_t; /* [dk][dv] and its transpose */
    float *states;    /* S^T before each chunk that does not start a document; the first is 0 */
} backward_room;

/* States kept at once: each stands for a whole chunk before it. */
static size_t state_count(size_t length)
{
    return 1 + (length - 1) / C;
}

size_t attn_delta_backward_room(size_t length, size_t dk, size_t dv)
{
    return C * (2 * C + 1 + 2 * dk + 2 * dv) + (2 + state_count(length)) * dk * dv;
}

static backward_room divide(const attn_delta_head *head, float *room)
{
    const size_t dk = head->key_dim, dv = head->value_dim;
    backward_room r;
    r.dp = attn_cut(&room, C * C);
    r.dm = attn_cut(&room, C * C);
    r.diagonal = attn_cut(&room, C);
    r.du = attn_cut(&room, C * dv);
    r.dr = attn_cut(&room, C * dv);
    r.x = attn_cut(&room, C * dk);
    r.y = attn_cut(&room, C * dk);
    r.ds = attn_cut(&room, dk * dv);
    r.ds_t = attn_cut(&room, dk * dv);
    r.states = room;
    return r;
}

static bool is_document_start(const attn_delta_head *head, size_t t)
{
    return t == 0 || (head->documents && head->documents[t] == t);
}

static bool is_document_end(const attn_delta_head *head, size_t end)
{
    return end == head->length || is_document_start(head, end);
}

/* S'^T = e^{G_C} S^T + U^T E K */
static void next_state(const attn_delta_head *head, attn_delta_chunk *chunk, const float *r,
                       const float *state, float *next)
{
    const size_t c = chunk->c, dk = head->key_dim, dv = head->value_dim;
    attn_delta_fill_ends(head, chunk);
    attn_delta_updates(head, chunk, r);
    memcpy(chunk->keys, chunk->k, c * dk * sizeof *chunk->keys);
    attn_delta_weigh(head, chunk, chunk->outgoing, dk, chunk->keys);
    memcpy(next, state, dk * dv * sizeof *next);
    if (chunk->log_decay) attn_counted_scale(head->on, dk * dv, chunk->total, next);
    attn_counted_product(head->on, dv, dk, c, chunk->u, 1, dv, chunk->keys, dk, next, dk, true);
}

/* x [c][n] becomes the solution of (I - m^T) x' = x, m strictly lower triangular, from below. */
static void solve_upper(attn_counted on, size_t c, size_t n, const float *m, float *x)
{
    for (size_t end = c, i0; end > 0; end = i0) {
        i0 = (end - 1) / SOLVE_ROWS * SOLVE_ROWS;
        attn_counted_product(on, end - i0, n, c - end, m + end * C + i0, 1, C, x + end * n, n,
                             x + i0 * n, n, true);
        for (size_t i = end - 1; i-- > i0;)
            attn_counted_product(on, 1, n, end - 1 - i, m + (i + 1) * C + i, 1, C, x + (i + 1) * n,
                                 n, x + i * n, n, true);
    }
}

/* U; dU, dR = dV and db. Needs p, m with rows times b, and the ends. */
static void update_gradients(const attn_delta_head *head, const attn_delta_chunk *chunk,
                             const backward_room *room, const float *r, const float *d_o,
                             float *dv_out, float *d_rate)
{
    const attn_counted on = head->on;
    const size_t c = chunk->c, dk = head->key_dim, dv = head->value_dim;
    attn_delta_updates(head, chunk, r);
    memcpy(chunk->keys, chunk->k, c * dk * sizeof *chunk->keys);
    attn_delta_weigh(head, chunk, chunk->outgoing, dk, chunk->keys);
    attn_counted_product(on, c, dv, dk, chunk->keys, dk, 1, room->ds, dv, room->du, dv, false);
    attn_counted_product(on, c, dv, c, chunk->p, 1, C, d_o, dv, room->du, dv, true);
    solve_upper(on, c, dv, chunk->m, room->du);
    for (size_t t = 0; t < c; t++)
        d_rate[t] = attn_counted_dot(on, dv, room->du + t * dv, r + t * dv);
    memcpy(room->dr, room->du, c * dv * sizeof *r);
    attn_counted_scale_rows(on, c, dv, chunk->rate, room->dr, dv);
    memcpy(dv_out, room->dr, c * dv * sizeof *r);
}

/* dP without its diagonal, which is kept apart, and dM; 0 above. */
static void score_gradients(const attn_delta_head *head, const attn_delta_chunk *chunk,
                            const backward_room *room, const float *d_o)
{
    const attn_counted on = head->on;
    const size_t c = chunk->c, dv = head->value_dim;
    on.kernels->transpose(c, dv, chunk->u, dv, chunk->turned, C);
    attn_counted_product(on, c, c, dv, d_o, dv, 1, chunk->turned, C, room->dp, C, false);
    attn_counted_product(on, c, c, dv, room->dr, dv, 1, chunk->turned, C, room->dm, C, false);
    for (size_t i = 0; i < c; i++) {
        float *dp = room->dp + i * C, *dm = room->dm + i * C;
        room->diagonal[i] = dp[i];
        memset(dp + i, 0, (c - i) * sizeof *dp);
        memset(dm + i, 0, (c - i) * sizeof *dm);
        attn_counted_scale(on, i, -1.0f, dm);
        if (!chunk->log_decay) continue;
        attn_counted_multiply(on, i, chunk->gamma + i * C, dp);
        attn_counted_multiply(on, i, chunk->gamma + i * C, dm);
    }
}

/* dg of a chunk, before the diagonal of P adds to dq and y. */
static void decay_gradient(const attn_delta_head *head, const attn_delta_chunk *chunk,
                           const backward_room *room, const float *state_after, const float *dq,
                           float *d_log_decay)
{
    const attn_counted on = head->on;
    const size_t dk = head->key_dim, dv = head->value_dim;
    float run = state_after ? attn_counted_dot(on, dk * dv, room->ds_t, state_after) : 0.0f;
    for (size_t t = chunk->c; t-- > 0;) {
        const float *k = chunk->k + t * dk;
        run += attn_counted_dot(on, dk, chunk->q + t * dk, dq + t * dk) +
               attn_counted_dot(on, dk, k, room->x + t * dk) -
               attn_counted_dot(on, dk, k, room->y + t * dk);
        d_log_decay[t] = run;
    }
    on.work->other += 3 * (uint64_t)chunk->c;
}

/* One chunk; `state` is S^T before it, `state_after` S'^T or NULL where the document ends and dS
 * is 0. */
static void backward_chunk(const attn_delta_head *head, attn_delta_chunk *chunk,
                           const backward_room *room, size_t t, const float *r, const float *d_o,
                           const float *state, const float *state_after,
                           const attn_delta_gradients *to)
{
    const attn_counted on = head->on;
    const size_t c = chunk->c, dk = head->key_dim, dv = head->value_dim;
    float *dq = to->dq + t * dk, *dk_out = to->dk + t * dk, *x = room->x, *y = room->y;
    attn_delta_fill_ends(head, chunk);
    attn_delta_fill_gamma(head, chunk);
    attn_delta_scores(head, chunk, chunk->rate, NULL);
    update_gradients(head, chunk, room, r, d_o, to->dv + t * dv, to->d_rate + t);
    score_gradients(head, chunk, room, d_o);

    /* dQ = D dO S^T + dP K */
    attn_counted_product(on, c, dk, dv, d_o, dv, 1, state, dk, dq, dk, false);
    attn_delta_weigh(head, chunk, chunk->incoming, dk, dq);
    attn_counted_product(on, c, dk, c, room->dp, C, 1, chunk->k, dk, dq, dk, true);
    /* X = dM K - D dR S^T */
    attn_counted_product(on, c, dk, dv, room->dr, dv, 1, state, dk, x, dk, false);
    attn_delta_weigh(head, chunk, chunk->incoming, dk, x);
    attn_counted_scale(on, c * dk, -1.0f, x);
    attn_counted_product(on, c, dk, c, room->dm, C, 1, chunk->k, dk, x, dk, true);
    /* Y = E U dS^T + dP^T Q + dM^T K */
    attn_counted_product(on, c, dk, dv, chunk->u, dv, 1, room->ds_t, dk, y, dk, false);
    attn_delta_weigh(head, chunk, chunk->outgoing, dk, y);
    attn_counted_product(on, c, dk, c, room->dp, 1, C, chunk->q, dk, y, dk, true);
    attn_counted_product(on, c, dk, c, room->dm, 1, C, chunk->k, dk, y, dk, true);
    if (chunk->log_decay) decay_gradient(head, chunk, room, state_after, dq, to->d_log_decay + t);
    for (size_t i = 0; i < c; i++) {
        attn_counted_add_scaled(on, dk, room->diagonal[i], chunk->k + i * dk, dq + i * dk);
        attn_counted_add_scaled(on, dk, room->diagonal[i], chunk->q + i * dk, y + i * dk);
    }
    memcpy(dk_out, x, c * dk * sizeof *x);
    attn_counted_add(on, c * dk, y, dk_out);

    /* dS <- e^{G_C} dS + (D Q)^T dO - (D K)^T dR */
    if (chunk->log_decay) attn_counted_scale(on, dk * dv, chunk->total, room->ds);
    memcpy(x, chunk->q, c * dk * sizeof *x);
    attn_delta_weigh(head, chunk, chunk->incoming, dk, x);
    attn_counted_product(on, dk, dv, c, x, 1, dk, d_o, dv, room->ds, dv, true);
    memcpy(x, chunk->k, c * dk * sizeof *x);
    attn_delta_weigh(head, chunk, chunk->incoming, dk, x);
    attn_counted_scale(on, c * dk, -1.0f, x);
    attn_counted_product(on, dk, dv, c, x, 1, dk, room->dr, dv, room->ds, dv, true);
    on.kernels->transpose(dk, dv, room->ds, dv, room->ds_t, dk);
}

void attn_delta_backward(const attn_delta_head *head, const float *r, const float *d_o,
                         const attn_delta_gradients *gradients)
{
    const size_t T = head->length, dv = head->value_dim, square = head->key_dim * dv;
    attn_delta_chunk chunk;
    const backward_room room = divide(head, attn_delta_divide(head, head->room, &chunk));
    size_t kept = 0; /* the last state's place */
    memset(room.states, 0, square * sizeof(float));
    for (size_t t = 0, end; t < T; t = end) {
        end = attn_chunk_end(t, T, head->documents);
        if (is_document_end(head, end)) continue;
        const float *state = room.states + (is_document_start(head, t) ? 0 : kept) * square;
        attn_delta_enter(head, t, end - t, &chunk);
        next_state(head, &chunk, r + t * dv, state, room.states + ++kept * square);
    }
    for (size_t end = T, t; end > 0; end = t) {
        t = attn_chunk_start(end, head->documents);
        const bool is_last = is_document_end(head, end);
        const float *after = is_last ? NULL : room.states + kept-- * square;
        const float *state = room.states + (is_document_start(head, t) ? 0 : kept) * square;
        if (is_last) memset(room.ds, 0, 2 * square * sizeof(float)); /* and ds_t */
        attn_delta_enter(head, t, end - t, &chunk);
        backward_chunk(head, &chunk, &room, t, r + t * dv, d_o + t * dv, state, after, gradients);
    }
}

attn_work attn_delta_backward_chunk(uint64_t c, uint64_t dk, uint64_t dv, bool has_decay,
                                    bool ends_document)
{
    const uint64_t pairs = c * (c - 1) / 2;
    attn_work work = attn_delta_scores_work(c, dk, has_decay);
    work.matmul += 12 * c * dk * dv + c * c * (6 * dv + 8 * dk) + 2 * pairs * dv + 2 * c * dv;
    /* U, dR; sign of dM; signs of X and D K; twice the diagonal; X + Y */
    work.other += 2 * c * dv + pairs + 2 * c * dk + 4 * c * dk + c * dk;
    if (has_decay) {
        work.matmul += 6 * c * dk;
        work.other += 2 * pairs + 6 * c * dk + dk * dv + 3 * c;
    }
    if (ends_document) return work;
    work.matmul += 2 * c * dk * dv; /* the state behind the chunk */
    work.other += c * dv;
    if (has_decay) {
        work.matmul += 2 * dk * dv;
        work.exponential += 2 * c;
        work.other += 2 * c + c * dk + dk * dv;
    }
    return work;
}
