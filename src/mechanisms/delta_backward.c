/* The delta engine: backward. See delta_engine.h for the equations. S^T [dv][dk] is what the
 * sweep forward keeps. */
#include "mechanisms/delta_chunk.h"

#include <string.h>

enum { C = ATTN_CHUNK, SOLVE_ROWS = 8 };

/* Behind the chunk's memory. */
typedef struct backward_room {
    float *dp, *dm;   /* [C][C] */
    float *z, *below; /* [C]: a row of gradients of log Gamma, and the sums of those below */
    float *du, *dr;   /* [C][dv] */
    float *rows;      /* [C][dk] */
    float *ds;        /* [dk][dv]: the caller's */
    float *ds_t;      /* [dv][dk]: its transpose */
} backward_room;

size_t attn_delta_backward_room(size_t dk, size_t dv)
{
    return C * (2 * C + 2 + dk + 2 * dv) + dk * dv;
}

static backward_room divide(const attn_delta_input *in, float *room, float *ds)
{
    const size_t dk = in->key_dim, dv = in->value_dim;
    backward_room r;
    r.dp = attn_cut(&room, C * C);
    r.dm = attn_cut(&room, C * C);
    r.z = attn_cut(&room, C);
    r.below = attn_cut(&room, C);
    r.du = attn_cut(&room, C * dv);
    r.dr = attn_cut(&room, C * dv);
    r.rows = attn_cut(&room, C * dk);
    r.ds_t = room;
    r.ds = ds;
    return r;
}

/* S'^T = e^{G_C} S^T + U^T E K */
void attn_delta_advance(const attn_delta_input *in, const float *r, const float *state, float *next)
{
    const size_t c = in->length, dk = in->key_dim, dv = in->value_dim;
    attn_delta_chunk chunk;
    attn_delta_divide(in, &chunk);
    attn_delta_fill_ends(in, &chunk);
    attn_delta_updates(in, &chunk, r);
    memcpy(chunk.keys, in->k, c * dk * sizeof *chunk.keys);
    attn_delta_weigh(in, chunk.outgoing, dk, chunk.keys);
    memcpy(next, state, dk * dv * sizeof *next);
    if (in->log_decay) attn_counted_scale(in->on, dk * dv, chunk.total, next);
    attn_counted_product(in->on, dv, dk, c, chunk.u, 1, dv, chunk.keys, dk, next, dk, true);
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
static void update_gradients(const attn_delta_input *in, const attn_delta_chunk *chunk,
                             const backward_room *room, const float *r, const float *d_o,
                             float *dv_out, float *d_rate)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim, dv = in->value_dim;
    attn_delta_updates(in, chunk, r);
    memcpy(chunk->keys, in->k, c * dk * sizeof *chunk->keys);
    attn_delta_weigh(in, chunk->outgoing, dk, chunk->keys);
    attn_counted_product(on, c, dv, dk, chunk->keys, dk, 1, room->ds, dv, room->du, dv, false);
    attn_counted_product(on, c, dv, c, chunk->p, 1, C, d_o, dv, room->du, dv, true);
    solve_upper(on, c, dv, chunk->m, room->du);
    for (size_t t = 0; t < c; t++)
        d_rate[t] = attn_counted_dot(on, dv, room->du + t * dv, r + t * dv);
    memcpy(room->dr, room->du, c * dv * sizeof *r);
    attn_counted_scale_rows(on, c, dv, in->rate, room->dr, dv);
    memcpy(dv_out, room->dr, c * dv * sizeof *r);
}

/* dP and dM, 0 above; and g's part through Gamma: with Z = dP o P + dM o M before dP and dM meet
 * Gamma, dg_t gets the sum of Z_ij over i >= t > j. */
static void score_gradients(const attn_delta_input *in, const attn_delta_chunk *chunk,
                            const backward_room *room, const float *d_o, float *d_log_decay)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dv = in->value_dim;
    on.kernels->transpose(c, dv, chunk->u, dv, chunk->turned, C);
    attn_counted_product(on, c, c, dv, d_o, dv, 1, chunk->turned, C, room->dp, C, false);
    attn_counted_product(on, c, c, dv, room->du, dv, 1, chunk->turned, C, room->dm, C, false);
    on.kernels->keep_lower(c, c, NULL, room->dp, C);
    attn_delta_keep_strict(in, room->dm);
    memset(room->below, 0, c * sizeof(float));
    for (size_t i = c; i-- > 0;) {
        float *dp = room->dp + i * C, *dm = room->dm + i * C;
        if (in->log_decay) {
            /* m is -diag(b) M, and dm so far dU U^T */
            memcpy(room->z, dp, i * sizeof *dp);
            attn_counted_multiply(on, i, chunk->p + i * C, room->z);
            attn_counted_add_product(on, i, dm, chunk->m + i * C, room->z);
            attn_counted_add(on, i, room->z, room->below);
            d_log_decay[i] = on.kernels->sum(i, room->below);
            on.work->other += i;
            attn_counted_multiply(on, i + 1, chunk->gamma + i * C, dp);
            attn_counted_multiply(on, i, chunk->gamma + i * C, dm);
        }
        attn_counted_scale(on, i, -in->rate[i], dm);
    }
}

/* dg's part through the chunk's ends: what came in from the state reaches every g up to its row,
 * what goes out every g behind its row. x [c][dk] are gradients of q or k by that way alone. */
static void add_incoming(const attn_delta_input *in, const float *q, const float *x,
                         float *d_log_decay)
{
    const size_t dk = in->key_dim;
    float sum = 0.0f;
    for (size_t t = in->length; t-- > 0;)
        d_log_decay[t] += sum += attn_counted_dot(in->on, dk, q + t * dk, x + t * dk);
    in->on.work->other += 2 * (uint64_t)in->length;
}

static void add_outgoing(const attn_delta_input *in, float start, const float *x,
                         float *d_log_decay)
{
    const size_t dk = in->key_dim;
    float sum = start;
    for (size_t t = 0; t < in->length; t++) {
        d_log_decay[t] += sum;
        sum += attn_counted_dot(in->on, dk, in->k + t * dk, x + t * dk);
    }
    in->on.work->other += 2 * (uint64_t)in->length;
}

/* dQ and dK by way of the states at the chunk's ends, and dg. */
static void state_gradients(const attn_delta_input *in, const attn_delta_chunk *chunk,
                            const backward_room *room, const float *d_o, const float *state,
                            float *dq, float *dk_out, float *d_log_decay)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim, dv = in->value_dim;
    /* dQ = D dO S^T */
    attn_counted_product(on, c, dk, dv, d_o, dv, 1, state, dk, dq, dk, false);
    attn_delta_weigh(in, chunk->incoming, dk, dq);
    /* dK = -D dR S^T */
    attn_counted_product(on, c, dk, dv, room->dr, dv, 1, state, dk, dk_out, dk, false);
    attn_delta_weigh(in, chunk->incoming, dk, dk_out);
    attn_counted_scale(on, c * dk, -1.0f, dk_out);
    if (in->log_decay) {
        add_incoming(in, in->q, dq, d_log_decay);
        add_incoming(in, in->k, dk_out, d_log_decay);
    }
    /* dK += E U dS^T */
    attn_counted_product(on, c, dk, dv, chunk->u, dv, 1, room->ds_t, dk, room->rows, dk, false);
    attn_delta_weigh(in, chunk->outgoing, dk, room->rows);
    if (in->log_decay) {
        const float through = attn_counted_dot(on, dk * dv, room->ds_t, state);
        add_outgoing(in, chunk->total * through, room->rows, d_log_decay);
    }
    attn_counted_add(on, c * dk, room->rows, dk_out);
}

void attn_delta_backward(const attn_delta_input *in, const attn_chunk_states *states,
                         const float *r, const float *d_o, const attn_delta_gradients *to)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim, dv = in->value_dim;
    attn_delta_chunk memory, *chunk = &memory;
    const backward_room rest = divide(in, attn_delta_divide(in, chunk), states->ds), *room = &rest;
    float *dq = to->dq, *dk_out = to->dk, *rows = room->rows;
    on.kernels->transpose(dk, dv, room->ds, dv, room->ds_t, dk);
    attn_delta_fill_ends(in, chunk);
    attn_delta_fill_gamma(in, chunk);
    attn_delta_scores(in, chunk, in->rate, NULL);
    update_gradients(in, chunk, room, r, d_o, to->dv, to->d_rate);
    score_gradients(in, chunk, room, d_o, to->d_log_decay);
    state_gradients(in, chunk, room, d_o, states->before, dq, dk_out, to->d_log_decay);

    /* dQ += dP K,  dK += dM K + dM^T K + dP^T Q */
    attn_counted_product(on, c, dk, c, room->dp, C, 1, in->k, dk, dq, dk, true);
    attn_counted_product(on, c, dk, c, room->dm, C, 1, in->k, dk, dk_out, dk, true);
    attn_counted_product(on, c, dk, c, room->dm, 1, C, in->k, dk, dk_out, dk, true);
    attn_counted_product(on, c, dk, c, room->dp, 1, C, in->q, dk, dk_out, dk, true);

    /* dS <- e^{G_C} dS + (D Q)^T dO - (D K)^T dR */
    if (in->log_decay) attn_counted_scale(on, dk * dv, chunk->total, room->ds);
    memcpy(rows, in->q, c * dk * sizeof *rows);
    attn_delta_weigh(in, chunk->incoming, dk, rows);
    attn_counted_product(on, dk, dv, c, rows, 1, dk, d_o, dv, room->ds, dv, true);
    memcpy(rows, in->k, c * dk * sizeof *rows);
    attn_delta_weigh(in, chunk->incoming, dk, rows);
    attn_counted_scale(on, c * dk, -1.0f, rows);
    attn_counted_product(on, dk, dv, c, rows, 1, dk, room->dr, dv, room->ds, dv, true);
}

attn_work attn_delta_backward_chunk(uint64_t c, uint64_t dk, uint64_t dv, bool has_decay,
                                    bool ends_document)
{
    const uint64_t pairs = c * (c - 1) / 2;
    attn_work work = attn_delta_scores_work(c, dk, has_decay);
    work.matmul += 12 * c * dk * dv + c * c * (6 * dv + 8 * dk) + 2 * pairs * dv + 2 * c * dv;
    /* U, dR; dM; signs of dK and D K; dK's sum */
    work.other += 2 * c * dv + pairs + 3 * c * dk;
    if (has_decay) {
        work.matmul += 6 * c * dk + 2 * dk * dv;
        work.other += 7 * pairs + c + 6 * c * dk + dk * dv + 6 * c;
    }
    if (ends_document) return work;
    work.matmul += 2 * c * dk * dv; /* the state behind the chunk */
    work.other += c * dv;
    if (has_decay) {
        work.exponential += 2 * c;
        work.other += 2 * c + c * dk + dk * dv;
    }
    return work;
}
