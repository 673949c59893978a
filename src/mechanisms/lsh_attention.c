/* One head of lsh. In the order of a round's buckets what a token sees is a band: the places
 * [first, p) before it, `reach` of them at most. So each block of queries meets `reach` keys and
 * those of its own block, wherever the buckets end: what is executed depends on no data.
 *
 *     S = Q K^T in the band,  P = exp(S - c),  o = (sum over rounds P V) / l
 *
 * with the running maximum c and total l of each token over all rounds (Dao 2023): one softmax
 * over the multiset. Later tokens move a token's place within its block, yet must not move a bit of
 * its output: scores are sums over features, P V adds in the order of places with zeros outside
 * the band, and a row's total begins at its first key.
 *
 * Backward, with dO' = dO / l and delta = rowsum(dO' o O), for each round
 *     dV += P^T dO',  dS = P o (dO' V^T - delta),  dQ += dS K,  dK += dS^T Q
 * and at the end, from k = q / |q|,  dq += (dk - k (k . dk)) / |q|. */
#include "mechanisms/lsh.h"
#include "mechanisms/tile_engine.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { BLOCK = ATTN_TILE_QUERIES };

/* ---- sizes and places -------------------------------------------------------------------- */

/* Places before a block that its queries may see, in whole tiles. */
static size_t band_behind(const attn_layer *layer)
{
    return attn_packed_count(layer->options[ATTN_LSH_REACH].size, 1);
}

static size_t scores_row(const attn_layer *layer, size_t length)
{
    return attn_smaller(band_behind(layer), attn_packed_count(length, 1)) + BLOCK;
}

static attn_tile band_of(const attn_lsh *run, size_t i0)
{
    attn_tile band = {.i0 = i0, .ni = attn_smaller(BLOCK, run->T - i0)};
    band.j0 = i0 - attn_smaller(i0, band_behind(run->layer));
    band.nj = i0 + band.ni - band.j0;
    return band;
}

size_t attn_lsh_record_count(const attn_layer *layer, size_t length)
{
    return (2 + layer->options[ATTN_LSH_ROUNDS].size) * length;
}

attn_lsh_record attn_lsh_record_at(const attn_lsh *run, float *memory)
{
    attn_lsh_record record;
    record.top = attn_cut(&memory, run->T);
    record.total = attn_cut(&memory, run->T);
    record.buckets = memory;
    return record;
}

/* A head's place in the call, and what both passes need of it. */
typedef struct head {
    size_t b, h;
    const attn_kernels *kernels;
    const uint32_t *documents;
    const float *q, *v; /* rows apart by `row` */
    size_t row;
    float *o; /* rows apart by C */
    attn_lsh_record record;
    attn_work *work;
} head;

static head head_of(attn_lsh *run, size_t index, size_t worker)
{
    const size_t T = run->T;
    head s = {.b = index / run->H,
              .h = index % run->H,
              .kernels = run->context->kernels,
              .row = 2 * run->C,
              .work = &run->tally.of[worker]};
    s.q = run->rows + s.b * T * s.row + s.h * run->d;
    s.v = s.q + run->C;
    s.o = run->o + s.b * T * run->C + s.h * run->d;
    if (run->call->document_start) s.documents = run->call->document_start + s.b * T;
    if (run->records)
        s.record =
            attn_lsh_record_at(run, run->records + index * attn_lsh_record_count(run->layer, T));
    return s;
}

float attn_lsh_key(const attn_kernels *kernels, size_t d, const float *q, float *k)
{
    const double size = sqrt(kernels->sum_squares(d, q));
    const float inverse = size < (double)FLT_MIN ? 0.0f : (float)(1.0 / size);
    memcpy(k, q, d * sizeof *k);
    kernels->scale(d, inverse, k);
    return inverse;
}

static const attn_work key_work = {.matmul = 2, .other = 1}; /* of each feature */

/* All keys [T][d]. */
static void make_keys(const attn_lsh *run, const head *s, float *keys)
{
    for (size_t t = 0; t < run->T; t++)
        attn_lsh_key(s->kernels, run->d, s->q + t * s->row, keys + t * run->d);
    attn_work_add(s->work, attn_work_times(key_work, (uint64_t)run->T * run->d));
}

/* Rows of `from`, apart by `row`, that belong to n places. */
static void gather(const uint32_t *tokens, size_t n, size_t d, const float *from, size_t row,
                   float *to)
{
    for (size_t i = 0; i < n; i++) memcpy(to + i * d, from + tokens[i] * row, d * sizeof *to);
}

/* The same of all places, packed as by attn_pack_transposed(); `tile` is [BLOCK][d]. */
static void gather_packed(const attn_lsh *run, const head *s, const uint32_t *tokens,
                          const float *from, size_t row, float *tile, float *to)
{
    const size_t d = run->d;
    for (size_t p0 = 0; p0 < run->T; p0 += BLOCK) {
        const size_t n = attn_smaller(BLOCK, run->T - p0);
        gather(tokens + p0, n, d, from, row, tile);
        s->kernels->transpose(n, d, tile, d, to + p0 * d, BLOCK);
    }
}

/* out [ni][nj] = a [ni][d] times the band's packed keys or values */
static void multiply_band(const attn_lsh *run, const head *s, const attn_tile *band, const float *a,
                          const float *packed, float *out, size_t row)
{
    for (size_t j = 0; j < band->nj; j += BLOCK)
        s->kernels->product(band->ni, attn_smaller(BLOCK, band->nj - j), run->d, a, run->d, 1,
                            packed + (band->j0 + j) * run->d, BLOCK, out + j, row, false);
    s->work->matmul += 2 * (uint64_t)band->ni * band->nj * run->d;
}

static void hide(const attn_tile *band, const uint32_t *first, float *scores, size_t row)
{
    for (size_t i = 0; i < band->ni; i++) {
        float *s = scores + i * row;
        for (size_t j = 0; j < first[band->i0 + i] - band->j0; j++) s[j] = -INFINITY;
        for (size_t j = band->i0 + i - band->j0; j < band->nj; j++) s[j] = -INFINITY;
    }
}

/* ---- forward ----------------------------------------------------------------------------- */

typedef struct forward_room {
    float *keys, *packed, *values; /* of tokens; of places */
    float *tile, *out, *s;
    float *top, *total, *ignored, *correction; /* [BLOCK] */
    float *order, *rest;
} forward_room;

size_t attn_lsh_forward_room(const attn_layer *layer, size_t length)
{
    const size_t d = layer->head_dim;
    return 2 * length * d + attn_packed_count(length, d) +
           BLOCK * (2 * d + scores_row(layer, length) + 4) + attn_lsh_order_room(layer, length) +
           attn_lsh_hash_room(layer) + attn_lsh_record_count(layer, length);
}

static forward_room divide_forward(const attn_lsh *run, float *memory)
{
    const size_t T = run->T, d = run->d;
    forward_room r;
    r.keys = attn_cut(&memory, T * d);
    r.packed = attn_cut(&memory, attn_packed_count(T, d));
    r.values = attn_cut(&memory, T * d);
    r.tile = attn_cut(&memory, BLOCK * d);
    r.out = attn_cut(&memory, BLOCK * d);
    r.s = attn_cut(&memory, BLOCK * scores_row(run->layer, T));
    r.top = attn_cut(&memory, BLOCK);
    r.total = attn_cut(&memory, BLOCK);
    r.ignored = attn_cut(&memory, BLOCK);
    r.correction = attn_cut(&memory, BLOCK);
    r.order = attn_cut(&memory, attn_lsh_order_room(run->layer, T));
    r.rest = memory;
    return r;
}

/* One block of a round: what its queries have seen so far, and what they see here. */
static void forward_block(const attn_lsh *run, const head *s, const forward_room *r,
                          const attn_lsh_order *order, size_t i0)
{
    const size_t d = run->d, row = scores_row(run->layer, run->T);
    const attn_tile band = band_of(run, i0);
    const uint32_t *tokens = order->token + i0;
    gather(tokens, band.ni, d, s->q, s->row, r->tile);
    multiply_band(run, s, &band, r->tile, r->packed, r->s, row);
    hide(&band, order->first, r->s, row);
    for (size_t i = 0; i < band.ni; i++) {
        r->top[i] = s->record.top[tokens[i]];
        r->ignored[i] = 0.0f; /* the slot's total, in an order that later tokens decide */
    }
    s->kernels->online_softmax(band.ni, band.nj, 1.0f, r->s, row, r->top, r->ignored,
                               r->correction);
    s->kernels->product(band.ni, d, band.nj, r->s, row, 1, r->values + band.j0 * d, d, r->out, d,
                        false);
    for (size_t i = 0; i < band.ni; i++) {
        const size_t p = i0 + i, first = order->first[p], t = tokens[i];
        float *o = s->o + t * run->C;
        s->record.top[t] = r->top[i];
        s->record.total[t] = r->correction[i] * s->record.total[t] +
                             s->kernels->sum(p - first, r->s + i * row + (first - band.j0));
        s->kernels->scale(d, r->correction[i], o);
        s->kernels->add(d, r->out + i * d, o);
    }
    const uint64_t pairs = (uint64_t)band.ni * band.nj;
    s->work->matmul += 2 * pairs * d;
    s->work->exponential += pairs + band.ni;
    s->work->other += 5 * pairs + band.ni * (2 * d + 4); /* mask and softmax; what was before */
}

static void forward_round(const attn_lsh *run, const head *s, const forward_room *r, size_t round)
{
    const size_t T = run->T, d = run->d;
    const attn_lsh_order order =
        attn_lsh_sort(run, s->documents, s->record.buckets + round * T, r->order);
    gather_packed(run, s, order.token, r->keys, d, r->tile, r->packed);
    gather(order.token, T, d, s->v, s->row, r->values);
    for (size_t i0 = 0; i0 < T; i0 += BLOCK) forward_block(run, s, r, &order, i0);
}

void attn_lsh_forward_head(void *argument, size_t index, size_t worker)
{
    attn_lsh *run = argument;
    const size_t T = run->T, d = run->d;
    head s = head_of(run, index, worker);
    forward_room r =
        divide_forward(run, run->workers + worker * attn_lsh_forward_room(run->layer, T));
    float *hash_room = attn_cut(&r.rest, attn_lsh_hash_room(run->layer));
    if (!run->records) s.record = attn_lsh_record_at(run, r.rest);
    attn_lsh_hash(run, s.b, s.h, s.record.buckets, hash_room, s.work);
    make_keys(run, &s, r.keys);
    for (size_t t = 0; t < T; t++) {
        s.record.top[t] = -INFINITY;
        s.record.total[t] = 0.0f;
        memset(s.o + t * run->C, 0, d * sizeof *s.o);
    }
    for (size_t round = 0; round < run->rounds; round++) forward_round(run, &s, &r, round);
    for (size_t t = 0; t < T; t++) {
        const float total = s.record.total[t];
        float *o = s.o + t * run->C;
        s.kernels->scale(d, total == 0.0f ? 0.0f : 1.0f / total, o);
        if (total == 0.0f) memcpy(o, s.v + t * s.row, d * sizeof *o);
    }
    s.work->other += (uint64_t)T * (d + 1);
    if (run->call->cache) attn_lsh_cache_fill(run, s.b, s.h, r.keys, s.record.buckets);
}

/* ---- backward ---------------------------------------------------------------------------- */

typedef struct backward_room {
    float *keys, *inverse, *d_o, *top, *delta, *dk;                /* of tokens */
    float *key_rows, *packed_keys, *packed_values, *dk_at, *dv_at; /* of places */
    float *q_tile, *o_tile, *dq_tile, *top_tile, *delta_tile, *s, *ds;
    float *order;
} backward_room;

size_t attn_lsh_backward_room(const attn_layer *layer, size_t length)
{
    const size_t d = layer->head_dim;
    return length * (6 * d + 3) + 2 * attn_packed_count(length, d) +
           BLOCK * (3 * d + 2 + 2 * scores_row(layer, length)) + attn_lsh_order_room(layer, length);
}

static backward_room divide_backward(const attn_lsh *run, float *memory)
{
    const size_t T = run->T, d = run->d;
    backward_room r;
    r.keys = attn_cut(&memory, T * d);
    r.inverse = attn_cut(&memory, T);
    r.d_o = attn_cut(&memory, T * d);
    r.top = attn_cut(&memory, T);
    r.delta = attn_cut(&memory, T);
    r.dk = attn_cut(&memory, T * d);
    r.key_rows = attn_cut(&memory, T * d);
    r.packed_keys = attn_cut(&memory, attn_packed_count(T, d));
    r.packed_values = attn_cut(&memory, attn_packed_count(T, d));
    r.dk_at = attn_cut(&memory, T * d);
    r.dv_at = attn_cut(&memory, T * d);
    r.q_tile = attn_cut(&memory, BLOCK * d);
    r.o_tile = attn_cut(&memory, BLOCK * d);
    r.dq_tile = attn_cut(&memory, BLOCK * d);
    r.top_tile = attn_cut(&memory, BLOCK);
    r.delta_tile = attn_cut(&memory, BLOCK);
    r.s = attn_cut(&memory, BLOCK * scores_row(run->layer, T));
    r.ds = attn_cut(&memory, BLOCK * scores_row(run->layer, T));
    r.order = memory;
    return r;
}

/* A head's gradients in d_rows: rows of dq and dv. */
typedef struct gradients {
    float *dq, *dv;
    const float *d_o; /* rows apart by C */
} gradients;

/* Keys, dO / l and delta of every token; cleared sums. */
static void load_tokens(const attn_lsh *run, const head *s, const gradients *g,
                        const backward_room *r)
{
    const size_t T = run->T, d = run->d;
    for (size_t t = 0; t < T; t++) {
        const float total = s->record.total[t];
        r->inverse[t] = attn_lsh_key(s->kernels, d, s->q + t * s->row, r->keys + t * d);
        memcpy(r->d_o + t * d, g->d_o + t * run->C, d * sizeof *r->d_o);
        s->kernels->scale(d, total == 0.0f ? 0.0f : 1.0f / total, r->d_o + t * d);
        r->delta[t] = s->kernels->dot(d, r->d_o + t * d, s->o + t * run->C);
        r->top[t] = total == 0.0f ? INFINITY : s->record.top[t]; /* P = exp(-inf) = 0 */
        memset(g->dq + t * s->row, 0, d * sizeof *g->dq);
        memset(g->dv + t * s->row, 0, d * sizeof *g->dv);
    }
    memset(r->dk, 0, T * d * sizeof *r->dk);
    attn_work_add(s->work, attn_work_times(key_work, (uint64_t)T * d));
    s->work->matmul += 2 * (uint64_t)T * d;
    s->work->other += (uint64_t)T * (d + 1);
}

static void backward_block(const attn_lsh *run, const head *s, const gradients *g,
                           const backward_room *r, const attn_lsh_order *order, size_t i0)
{
    const size_t d = run->d, row = scores_row(run->layer, run->T);
    const attn_kernels *kernels = s->kernels;
    const attn_tile band = band_of(run, i0);
    const size_t ni = band.ni, nj = band.nj, j0 = band.j0;
    const uint32_t *tokens = order->token + i0;
    gather(tokens, ni, d, s->q, s->row, r->q_tile);
    gather(tokens, ni, d, r->d_o, d, r->o_tile);
    gather(tokens, ni, 1, r->top, 1, r->top_tile);
    gather(tokens, ni, 1, r->delta, 1, r->delta_tile);
    multiply_band(run, s, &band, r->q_tile, r->packed_keys, r->s, row);
    multiply_band(run, s, &band, r->o_tile, r->packed_values, r->ds, row);
    hide(&band, order->first, r->s, row);
    kernels->online_softmax_gradient(ni, nj, 1.0f, r->top_tile, r->delta_tile, r->s, row, r->ds,
                                     row);
    kernels->product(nj, d, ni, r->s, 1, row, r->o_tile, d, r->dv_at + j0 * d, d, true);
    kernels->product(nj, d, ni, r->ds, 1, row, r->q_tile, d, r->dk_at + j0 * d, d, true);
    kernels->product(ni, d, nj, r->ds, row, 1, r->key_rows + j0 * d, d, r->dq_tile, d, false);
    for (size_t i = 0; i < ni; i++) kernels->add(d, r->dq_tile + i * d, g->dq + tokens[i] * s->row);
    const uint64_t pairs = (uint64_t)ni * nj;
    s->work->matmul += 6 * pairs * d;
    s->work->exponential += pairs;
    s->work->other += 5 * pairs + ni * d;
}

static void backward_round(const attn_lsh *run, const head *s, const gradients *g,
                           const backward_room *r, size_t round)
{
    const size_t T = run->T, d = run->d;
    const attn_lsh_order order =
        attn_lsh_sort(run, s->documents, s->record.buckets + round * T, r->order);
    gather(order.token, T, d, r->keys, d, r->key_rows);
    gather_packed(run, s, order.token, r->keys, d, r->q_tile, r->packed_keys);
    gather_packed(run, s, order.token, s->v, s->row, r->q_tile, r->packed_values);
    memset(r->dk_at, 0, T * d * sizeof *r->dk_at);
    memset(r->dv_at, 0, T * d * sizeof *r->dv_at);
    for (size_t i0 = 0; i0 < T; i0 += BLOCK) backward_block(run, s, g, r, &order, i0);
    for (size_t p = 0; p < T; p++) {
        s->kernels->add(d, r->dk_at + p * d, r->dk + order.token[p] * d);
        s->kernels->add(d, r->dv_at + p * d, g->dv + order.token[p] * s->row);
    }
    s->work->other += 2 * (uint64_t)T * d;
}

/* What a token's key and its own value, where it saw nothing, still owe. */
static void finish_tokens(const attn_lsh *run, const head *s, const gradients *g,
                          const backward_room *r)
{
    const size_t T = run->T, d = run->d;
    for (size_t t = 0; t < T; t++) {
        float *dk = r->dk + t * d;
        const float *k = r->keys + t * d;
        s->kernels->add_scaled(d, -s->kernels->dot(d, k, dk), k, dk);
        s->kernels->add_scaled(d, r->inverse[t], dk, g->dq + t * s->row);
        if (s->record.total[t] == 0.0f) s->kernels->add(d, g->d_o + t * run->C, g->dv + t * s->row);
    }
    s->work->matmul += 2 * (uint64_t)T * d;
    s->work->other += 4 * (uint64_t)T * d;
}

void attn_lsh_backward_head(void *argument, size_t index, size_t worker)
{
    attn_lsh *run = argument;
    const head s = head_of(run, index, worker);
    const backward_room r =
        divide_backward(run, run->workers + worker * attn_lsh_backward_room(run->layer, run->T));
    const size_t rows_at = (size_t)(s.q - run->rows);
    const gradients g = {.dq = run->d_rows + rows_at,
                         .dv = run->d_rows + rows_at + run->C,
                         .d_o = run->d_o + (s.o - run->o)};
    load_tokens(run, &s, &g, &r);
    for (size_t round = 0; round < run->rounds; round++) backward_round(run, &s, &g, &r, round);
    finish_tokens(run, &s, &g, &r);
}

/* ---- closed forms ------------------------------------------------------------------------ */

/* Executed pairs of a round: in block b, `ni` queries meet min(b, behind) blocks and their own. */
static uint64_t count_pairs(const attn_layer *layer, size_t length)
{
    const uint64_t blocks = length / BLOCK, rest = length % BLOCK;
    const uint64_t behind = band_behind(layer) / BLOCK;
    const uint64_t all = blocks < behind ? blocks : behind; /* blocks before whose band is cut */
    const uint64_t met = all * (all - (all ? 1 : 0)) / 2 + (blocks - all) * behind;
    return BLOCK * BLOCK * (blocks + met) + rest * (all * BLOCK + rest);
}

attn_work attn_lsh_head_work(const attn_layer *layer, attn_phase phase, size_t length)
{
    const uint64_t T = length, d = layer->head_dim, rounds = layer->options[ATTN_LSH_ROUNDS].size;
    const uint64_t pairs = rounds * count_pairs(layer, length);
    attn_work work = attn_work_times(key_work, T * d);
    if (phase == ATTN_PHASE_BACKWARD) {
        attn_work_add(&work,
                      (attn_work){.matmul = 10 * pairs * d + 4 * T * d,
                                  .exponential = pairs,
                                  .other = 5 * pairs + 3 * rounds * T * d + T * (5 * d + 1)});
        return work;
    }
    attn_work_add(&work, attn_lsh_hash_work(layer, length));
    attn_work_add(&work, (attn_work){.matmul = 4 * pairs * d,
                                     .exponential = pairs + rounds * T,
                                     .other = 5 * pairs + rounds * T * (2 * d + 4) + T * (d + 1)});
    return work;
}
