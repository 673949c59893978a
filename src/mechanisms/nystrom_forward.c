/* nystrom: forward and decode. See nystrom.c for the equations. */
#include "mechanisms/nystrom.h"
#include "mechanisms/tile_engine.h"

#include <math.h>
#include <string.h>

void attn_nystrom_scores(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t ni,
                         size_t near, size_t m)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, n = z->block;
    if (m) kernels->product(ni, m, d, r->q, d, 1, r->k_mark_t, z->marks, r->far, z->marks, false);
    if (!near) return;
    kernels->product(ni, near, d, r->q, d, 1, r->k_t, n, r->near, n, false);
    for (size_t i = 0; i < ni; i++)
        for (size_t jj = i + 1; jj < near; jj++) r->near[i * n + jj] = -INFINITY;
}

/* The weight of the near part from the maxima and sums of one row. */
static float near_weight(const attn_nystrom_sizes *z, float near_top, float near_total,
                         float far_top, float far_total)
{
    const float rest = (far_top - near_top) + logf((float)z->segment * far_total / near_total);
    return 1.0f / (1.0f + expf(rest));
}

void attn_nystrom_shares(const attn_nystrom_sizes *z, size_t ni, size_t near, size_t m,
                         const float *const row[4], float *near_by, float *far_by)
{
    for (size_t i = 0; i < ni; i++) {
        const float w = !m      ? 1.0f
                        : !near ? 0.0f
                                : near_weight(z, row[0][i], row[1][i], row[2][i], row[3][i]);
        if (near) near_by[i] = w / row[1][i];
        if (m) far_by[i] = (1.0f - w) / row[3][i];
    }
}

/* Scores to exponentials, with the maximum and the sum of each row. */
static void start_softmax(const attn_kernels *kernels, float scale, size_t rows, size_t n, float *s,
                          size_t s_row, float *top, float *total, float *correction)
{
    for (size_t i = 0; i < rows; i++) {
        top[i] = -INFINITY;
        total[i] = 0.0f;
    }
    kernels->online_softmax(rows, n, scale, s, s_row, top, total, correction);
}

/* o of `ni` rows from the scores in room->near and room->far. */
static void mix(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t ni, size_t near,
                size_t m, const float *v, float *o)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, n = z->block, N = z->marks;
    if (near)
        start_softmax(kernels, z->scale, ni, near, r->near, n, r->row[0], r->row[1], r->correction);
    if (m) start_softmax(kernels, z->scale, ni, m, r->far, N, r->row[2], r->row[3], r->correction);
    attn_nystrom_shares(z, ni, near, m, (const float *const *)r->row, r->near_by, r->far_by);
    if (near) {
        kernels->scale_rows(ni, near, r->near_by, r->near, n);
        kernels->product(ni, d, near, r->near, n, 1, v, d, o, d, false);
    }
    if (m) {
        kernels->scale_rows(ni, m, r->far_by, r->far, N);
        kernels->product(ni, d, m, r->far, N, 1, r->m, d, o, d, near > 0);
    }
    attn_work_add(x->work, attn_nystrom_block_work(z, ni, near, m));
}

static void forward_document(const attn_nystrom_job *j, const attn_nystrom_document *x)
{
    const attn_core_call *call = j->call;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t marks = attn_nystrom_marks(z, x->n);
    attn_nystrom_mark_all(j, x);
    for (size_t t = 0; !z->is_causal && t < x->n; t += z->block) {
        const size_t ni = attn_smaller(z->block, x->n - t);
        attn_nystrom_load_keys(j, x, t, ni);
        attn_nystrom_absorb(j, x, 0, marks, attn_nystrom_values(z, r), ni);
    }
    attn_nystrom_fill_band(z, x->taps, 1, r->band);
    for (size_t t = 0; t < x->n; t += z->block) {
        const size_t ni = attn_smaller(z->block, x->n - t), near = z->is_causal ? ni : 0;
        const size_t m = z->is_causal ? t / z->segment : marks;
        attn_nystrom_load(j, x, t, ni);
        if (z->is_causal ? m > 0 : t == 0) {
            attn_nystrom_average(j, x, m, r->b);
            attn_nystrom_inverse(j, x, m, r->b);
        }
        attn_nystrom_scores(j, x, ni, near, m);
        mix(j, x, ni, near, m, attn_nystrom_values(z, r), r->o);
        attn_nystrom_convolve(j, r->band, ni, r->v, r->o);
        attn_work_add(x->work, attn_nystrom_convolution_work(z, ni));
        call->context->kernels->copy_rows(ni, z->d, 1.0f, NULL, r->o, z->d, x->o + t * call->o_row,
                                          call->o_row);
        for (size_t i = 0; x->kept && i < 4; i++)
            memcpy(x->kept + i * call->length + x->first + t, r->row[i], ni * sizeof *x->kept);
        if (z->is_causal && m < marks)
            attn_nystrom_absorb(j, x, 0, marks, attn_nystrom_values(z, r), ni);
    }
}

bool attn_nystrom_next(const attn_nystrom_job *j, size_t index, attn_nystrom_document *x)
{
    const attn_core_call *call = j->call;
    const attn_layer *layer = call->layer;
    const size_t b = index / layer->heads, h = index % layer->heads, T = call->length;
    const uint32_t *documents = call->document_start ? call->document_start + b * T : NULL;
    x->first += x->n;
    if (x->first >= T) return false;
    size_t end = x->first + 1;
    while (end < T && (!documents || documents[end] != end)) end++;
    x->n = end - x->first;
    const size_t at = (b * T + x->first) * call->row + h * j->z.d;
    x->q = call->q + at;
    x->k = call->k + at;
    x->v = call->v + at;
    x->o = call->o + (b * T + x->first) * call->o_row + h * j->z.d;
    x->taps = j->conv + h * j->z.kernel;
    x->kept = call->saved ? call->saved + 4 * index * T : NULL;
    return true;
}

/* ---- the cache --------------------------------------------------------------------------- */

/* What decoding keeps of a head: all keys and values, since a new landmark's softmax goes over all
 * keys; the open segment's queries; the landmarks, their sums and M. */
typedef struct kept {
    float *keys, *values, *open_q, *q_mark, *k_mark_t, *sum, *top, *total, *m;
} kept;

static size_t kept_count(const attn_nystrom_sizes *z)
{
    return (2 * z->T + z->block + 4 * z->marks) * z->d + 2 * z->marks;
}

static kept kept_of(const attn_nystrom_sizes *z, float *cache, size_t index)
{
    float *rest = cache + index * kept_count(z);
    kept c;
    c.keys = attn_cut(&rest, z->T * z->d);
    c.values = attn_cut(&rest, z->T * z->d);
    c.open_q = attn_cut(&rest, z->block * z->d);
    c.q_mark = attn_cut(&rest, z->marks * z->d);
    c.k_mark_t = attn_cut(&rest, z->marks * z->d);
    c.sum = attn_cut(&rest, z->marks * z->d);
    c.m = attn_cut(&rest, z->marks * z->d);
    c.top = attn_cut(&rest, z->marks);
    c.total = attn_cut(&rest, z->marks);
    return c;
}

size_t attn_nystrom_cache(const attn_layer *layer, size_t batch, size_t capacity)
{
    const attn_nystrom_sizes z = attn_nystrom_sizes_of(layer, capacity);
    return batch * layer->heads * kept_count(&z);
}

static void fill_cache(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t index)
{
    const attn_core_call *call = j->call;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_sizes whole = attn_nystrom_sizes_of(call->layer, call->cache_capacity);
    const kept c = kept_of(&whole, call->cache, index);
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, N = z->marks, open = N * z->segment;
    attn_copy_head(x->n, d, x->k, call->row, c.keys);
    attn_copy_head(x->n, d, x->v, call->row, c.values);
    attn_copy_head(x->n - open, d, x->q + open * call->row, call->row, c.open_q);
    for (size_t i = 0; i < d; i++)
        memcpy(c.k_mark_t + i * whole.marks, r->k_mark_t + i * N, N * sizeof *c.k_mark_t);
    memcpy(c.q_mark, r->q_mark, N * d * sizeof *c.q_mark);
    memcpy(c.sum, r->sum, N * d * sizeof *c.sum);
    memcpy(c.m, r->m, N * d * sizeof *c.m);
    memcpy(c.top, r->top, N * sizeof *c.top);
    memcpy(c.total, r->total, N * sizeof *c.total);
}

static void forward_head(void *argument, size_t index, size_t worker)
{
    attn_nystrom_job *j = argument;
    const size_t count = attn_nystrom_worker(&j->z, false);
    attn_nystrom_room room = attn_nystrom_divide(j->call->scratch + worker * count, &j->z, false);
    attn_nystrom_document x = {.room = &room, .work = &j->tally.of[worker]};
    while (attn_nystrom_next(j, index, &x)) {
        forward_document(j, &x);
        if (j->call->cache) fill_cache(j, &x, index); /* one document then */
    }
}

void attn_nystrom_run(const attn_core_call *call, attn_task *task, size_t length)
{
    const attn_layer *layer = call->layer;
    attn_nystrom_job j = {.call = call,
                          .z = attn_nystrom_sizes_of(layer, length),
                          .conv = call->parameters + attn_layer_offset(layer, "conv.weight")};
    const size_t threads = call->context->threads;
    attn_parallel(threads, call->batch * layer->heads, task, &j);
    attn_tally_collect(&j.tally, threads, &call->context->work);
}

void attn_nystrom_forward(const attn_core_call *call)
{
    attn_nystrom_run(call, forward_head, call->length);
}

/* ---- decode ------------------------------------------------------------------------------ */

/* The first token behind a segment makes its landmark. */
static void close_segment(const attn_nystrom_job *j, const attn_nystrom_document *x, const kept *c,
                          size_t m)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, s = z->segment, newest = (m - 1) * s;
    attn_nystrom_mark(j, x, m - 1, c->open_q, d, c->keys + newest * d, d);
    for (size_t t = 0; t <= newest; t += s) {
        const size_t first = t == newest ? 0 : m - 1; /* the old ones know what was before */
        kernels->transpose(s, d, c->keys + t * d, d, r->k_t, z->block);
        attn_nystrom_absorb(j, x, first, m - first, c->values + t * d, s);
    }
    attn_nystrom_average(j, x, m, r->b);
    attn_nystrom_inverse(j, x, m, r->b);
}

static void decode_head(void *argument, size_t index, size_t worker)
{
    attn_nystrom_job *j = argument;
    const attn_core_call *call = j->call;
    const attn_kernels *kernels = call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const size_t d = z->d, b = index / call->layer->heads, h = index % call->layer->heads;
    const size_t slot = call->position % z->segment, m = call->position / z->segment;
    const size_t at = b * call->row + h * d, count = attn_nystrom_worker(z, false);
    const kept c = kept_of(z, call->cache, index);
    attn_nystrom_room room = attn_nystrom_divide(call->scratch + worker * count, z, false);
    room.q_mark = c.q_mark;
    room.k_mark_t = c.k_mark_t;
    room.sum = c.sum;
    room.top = c.top;
    room.total = c.total;
    room.m = c.m;
    const attn_nystrom_document x = {.room = &room, .work = &j->tally.of[worker]};
    const float *q = call->q + at, *open = c.keys + m * z->segment * d;
    float *o = call->o + b * call->o_row + h * d;
    if (slot == 0 && m) close_segment(j, &x, &c, m);
    memcpy(c.open_q + slot * d, q, d * sizeof *c.open_q);
    memcpy(c.keys + call->position * d, call->k + at, d * sizeof *c.keys);
    memcpy(c.values + call->position * d, call->v + at, d * sizeof *c.values);
    for (size_t i = 0; i <= slot; i++) room.near[i] = kernels->dot(d, q, open + i * d);
    if (m) kernels->product(1, m, d, q, d, 1, c.k_mark_t, z->marks, room.far, z->marks, false);
    mix(j, &x, 1, slot + 1, m, c.values + m * z->segment * d, o);
    const size_t taps = attn_smaller(z->kernel, call->position + 1);
    kernels->product(1, d, taps, j->conv + (h + 1) * z->kernel - taps, 1, 1,
                     c.values + (call->position + 1 - taps) * d, d, o, d, true);
    x.work->matmul += 2 * taps * d;
}

void attn_nystrom_decode(const attn_core_call *call)
{
    attn_nystrom_run(call, decode_head, call->cache_capacity);
}
