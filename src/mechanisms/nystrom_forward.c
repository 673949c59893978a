/* nystrom: landmarks, forward and decode. See nystrom.c for the equations. */
#include "mechanisms/nystrom.h"
#include "mechanisms/pseudo_inverse.h"
#include "mechanisms/tile_engine.h"

#include <math.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------------------------ */

/* Sums over all stages: landmarks 0..c-1 of each stage c, or (bidirectional) the one stage. */
static size_t stage_rows(const attn_nystrom_sizes *z)
{
    return z->is_causal ? z->marks * (z->marks + 1) / 2 : z->marks;
}

size_t attn_nystrom_worker(const attn_nystrom_sizes *z, bool is_backward)
{
    const size_t d = z->d, N = z->marks, n = z->block, tiles = (z->T + n - 1) / n;
    size_t wide = N * N + attn_pseudo_inverse_count(N) + 2 * N * d;
    size_t count =
        tiles * n * d + 6 * N * d + 2 * N + (N > n ? N : n) + n * (n + N + d + 4) + N * N;
    if (is_backward) {
        wide += 2 * N * N + 3 * N * d;
        count += n * (n + N + 3 * d) + (d + n) * (n + z->kernel) + stage_rows(z) * (d + 2) +
                 5 * N * d + 2 * N + z->kernel;
    }
    return 2 * wide + count + 1; /* one for the alignment of doubles */
}

attn_nystrom_room attn_nystrom_divide(float *memory, const attn_nystrom_sizes *z, bool is_backward)
{
    const size_t d = z->d, N = z->marks, n = z->block, tiles = (z->T + n - 1) / n;
    attn_nystrom_room r = {.k_t = NULL};
    /* scratch memory may start on any float */
    r.a = (double *)(void *)((uintptr_t)memory % sizeof(double) ? memory + 1 : memory);
    r.inverse = r.a + N * N;
    r.b_wide = r.inverse + attn_pseudo_inverse_count(N);
    r.m_wide = r.b_wide + N * d;
    double *end = r.m_wide + N * d;
    if (is_backward) {
        r.dz = end;
        r.da = r.dz + N * N;
        r.dm_wide = r.da + N * N;
        r.db_wide = r.dm_wide + N * d;
        r.b_wide_t = r.db_wide + N * d;
        end = r.b_wide_t + N * d;
    }
    float *rest = (float *)(void *)end;
    r.k_t = attn_cut(&rest, tiles * n * d);
    r.q_mark = attn_cut(&rest, N * d);
    r.k_mark = attn_cut(&rest, N * d);
    r.k_mark_t = attn_cut(&rest, N * d);
    r.sum = attn_cut(&rest, N * d);
    r.top = attn_cut(&rest, N);
    r.total = attn_cut(&rest, N);
    r.correction = attn_cut(&rest, N > n ? N : n);
    r.b = attn_cut(&rest, N * d);
    r.m = attn_cut(&rest, N * d);
    r.near = attn_cut(&rest, n * n);
    r.far = attn_cut(&rest, n * N);
    r.o_far = attn_cut(&rest, n * d);
    for (size_t i = 0; i < 4; i++) r.row[i] = attn_cut(&rest, n);
    r.a_scores = attn_cut(&rest, N * N);
    if (!is_backward) return r;
    r.d_near = attn_cut(&rest, n * n);
    r.d_far = attn_cut(&rest, n * N);
    r.o_near = attn_cut(&rest, n * d);
    r.do_near = attn_cut(&rest, n * d);
    r.do_far = attn_cut(&rest, n * d);
    r.turned = attn_cut(&rest, d * (n + z->kernel));
    r.window = attn_cut(&rest, n * (n + z->kernel));
    r.stage_b = attn_cut(&rest, stage_rows(z) * d);
    r.stage_top = attn_cut(&rest, stage_rows(z));
    r.stage_total = attn_cut(&rest, stage_rows(z));
    r.m_t = attn_cut(&rest, N * d);
    r.dm = attn_cut(&rest, N * d);
    r.dq_mark = attn_cut(&rest, N * d);
    r.dk_mark = attn_cut(&rest, N * d);
    r.g = attn_cut(&rest, N * d);
    r.h = attn_cut(&rest, N);
    r.reference = attn_cut(&rest, N);
    r.taps = attn_cut(&rest, z->kernel);
    return r;
}

size_t attn_nystrom_saved(const attn_layer *layer, size_t batch, size_t length)
{
    return 4 * batch * layer->heads * length; /* maximum and sum of near and far rows */
}

/* Backward: each head's part of the gradient of its convolution, before the workers. */
size_t attn_nystrom_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    const attn_nystrom_sizes z = attn_nystrom_sizes_of(layer, length);
    const size_t pass = batch * layer->heads * z.kernel + threads * attn_nystrom_worker(&z, true);
    if (!layer->is_causal) return pass;
    const attn_nystrom_sizes longest = attn_nystrom_sizes_of(layer, layer->positions);
    const size_t decode = threads * attn_nystrom_worker(&longest, false);
    return pass > decode ? pass : decode;
}

/* ---- landmarks --------------------------------------------------------------------------- */

static void mean_of(const attn_kernels *kernels, size_t n, size_t d, const float *x, size_t row,
                    float *mean)
{
    memset(mean, 0, d * sizeof *mean);
    for (size_t i = 0; i < n; i++) kernels->add(d, x + i * row, mean);
    kernels->scale(d, 1.0f / (float)n, mean);
}

void attn_nystrom_mark(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t l,
                       const float *q, size_t q_row, const float *k, size_t k_row)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d;
    mean_of(kernels, z->segment, d, q, q_row, r->q_mark + l * d);
    mean_of(kernels, z->segment, d, k, k_row, r->k_mark + l * d);
    for (size_t i = 0; i < d; i++) r->k_mark_t[i * z->marks + l] = r->k_mark[l * d + i];
    r->top[l] = -INFINITY;
    r->total[l] = 0.0f;
    memset(r->sum + l * d, 0, d * sizeof *r->sum);
    attn_work_add(x->work, attn_nystrom_mark_work(z));
}

void attn_nystrom_absorb(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t l,
                         size_t count, const float *k_t, const float *v, size_t v_row, size_t n)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d;
    float *sum = r->sum + l * d;
    kernels->product(count, n, d, r->q_mark + l * d, d, 1, k_t, z->block, r->far, z->block, false);
    kernels->online_softmax(count, n, z->scale, r->far, z->block, r->top + l, r->total + l,
                            r->correction);
    kernels->scale_rows(count, d, r->correction, sum, d);
    kernels->product(count, d, n, r->far, z->block, 1, v, v_row, sum, d, true);
    attn_work_add(x->work, attn_nystrom_absorb_work(z, count, n));
}

void attn_nystrom_average(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t m,
                          float *b)
{
    const attn_nystrom_room *r = x->room;
    const size_t d = j->z.d;
    memcpy(b, r->sum, m * d * sizeof *b);
    for (size_t l = 0; l < m; l++)
        j->call->context->kernels->scale(d, 1.0f / r->total[l], b + l * d);
    attn_work_add(x->work, attn_nystrom_average_work(&j->z, m));
}

const double *attn_nystrom_inverse(const attn_nystrom_job *j, const attn_nystrom_document *x,
                                   size_t m, const float *b)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, N = z->marks;
    kernels->product(m, m, d, r->q_mark, d, 1, r->k_mark_t, N, r->a_scores, N, false);
    for (size_t i = 0; i < m; i++) {
        float *row = r->a_scores + i * N, top = -INFINITY, total = 0.0f, correction = 0.0f;
        kernels->online_softmax(1, m, z->scale, row, N, &top, &total, &correction);
        for (size_t jj = 0; jj < m; jj++) r->a[i * m + jj] = (double)row[jj] / (double)total;
    }
    const double *inverse = attn_pseudo_inverse(kernels, m, r->a, r->inverse);
    for (size_t i = 0; i < m * d; i++) r->b_wide[i] = (double)b[i];
    kernels->product_double(m, d, m, inverse, m, 1, r->b_wide, d, r->m_wide, d, false);
    for (size_t i = 0; i < m * d; i++) r->m[i] = (float)r->m_wide[i];
    attn_work_add(x->work, attn_nystrom_inverse_work(z, m));
    return inverse;
}

void attn_nystrom_turn_keys(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t first)
{
    const size_t n = attn_smaller(j->z.block, x->n - first), row = j->call->row;
    j->call->context->kernels->transpose(n, j->z.d, x->k + first * row, row,
                                         x->room->k_t + first * j->z.d, j->z.block);
}

void attn_nystrom_advance(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t m)
{
    const size_t s = j->z.segment, row = j->call->row, newest = (m - 1) * s;
    attn_nystrom_mark(j, x, m - 1, x->q + newest * row, row, x->k + newest * row, row);
    attn_nystrom_absorb(j, x, 0, m - 1, x->room->k_t + newest * j->z.d, x->v + newest * row, row,
                        s);
    for (size_t t = 0; t <= newest; t += s)
        attn_nystrom_absorb(j, x, m - 1, 1, x->room->k_t + t * j->z.d, x->v + t * row, row, s);
}

void attn_nystrom_gather(const attn_nystrom_job *j, const attn_nystrom_document *x)
{
    const attn_nystrom_sizes *z = &j->z;
    const size_t row = j->call->row;
    for (size_t l = 0; l < z->marks; l++)
        attn_nystrom_mark(j, x, l, x->q + l * z->segment * row, row, x->k + l * z->segment * row,
                          row);
    for (size_t t = 0; t < x->n; t += z->block) {
        attn_nystrom_turn_keys(j, x, t);
        attn_nystrom_absorb(j, x, 0, z->marks, x->room->k_t + t * z->d, x->v + t * row, row,
                            attn_smaller(z->block, x->n - t));
    }
}

/* ---- forward ----------------------------------------------------------------------------- */

void attn_nystrom_scores(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t first,
                         size_t ni, size_t near, size_t m)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t row = j->call->row;
    const float *q = x->q + first * row;
    if (m) kernels->product(ni, m, z->d, q, row, 1, r->k_mark_t, z->marks, r->far, z->marks, false);
    if (!near) return;
    kernels->product(ni, near, z->d, q, row, 1, r->k_t + first * z->d, z->block, r->near, z->block,
                     false);
    for (size_t i = 0; i < ni; i++)
        for (size_t jj = i + 1; jj < near; jj++) r->near[i * z->block + jj] = -INFINITY;
}

float attn_nystrom_near_weight(const attn_nystrom_sizes *z, float near_top, float near_total,
                               float far_top, float far_total)
{
    const float rest = (far_top - near_top) + logf((float)z->segment * far_total / near_total);
    return 1.0f / (1.0f + expf(rest));
}

/* softmax of n scores a row, times `values`, to o. */
static void attend(const attn_kernels *kernels, const attn_nystrom_sizes *z, size_t rows, size_t n,
                   float *s, size_t s_row, const float *values, size_t values_row, float *top,
                   float *total, float *correction, float *o, size_t o_row)
{
    for (size_t i = 0; i < rows; i++) {
        top[i] = -INFINITY;
        total[i] = 0.0f;
    }
    kernels->online_softmax(rows, n, z->scale, s, s_row, top, total, correction);
    kernels->product(rows, z->d, n, s, s_row, 1, values, values_row, o, o_row, false);
    for (size_t i = 0; i < rows; i++) kernels->scale(z->d, 1.0f / total[i], o + i * o_row);
}

/* o of `ni` rows from the scores in room->near and room->far. */
static void mix(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t ni, size_t near,
                size_t m, const float *v, size_t v_row, float *o)
{
    const attn_core_call *call = j->call;
    const attn_kernels *kernels = call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    float *far = near ? r->o_far : o;
    const size_t far_row = near ? z->d : call->o_row;
    if (near)
        attend(kernels, z, ni, near, r->near, z->block, v, v_row, r->row[0], r->row[1],
               r->correction, o, call->o_row);
    if (m)
        attend(kernels, z, ni, m, r->far, z->marks, r->m, z->d, r->row[2], r->row[3], r->correction,
               far, far_row);
    for (size_t i = 0; near && m && i < ni; i++) {
        const float w =
            attn_nystrom_near_weight(z, r->row[0][i], r->row[1][i], r->row[2][i], r->row[3][i]);
        kernels->scale(z->d, w, o + i * call->o_row);
        kernels->add_scaled(z->d, 1.0f - w, far + i * z->d, o + i * call->o_row);
    }
    attn_work_add(x->work, attn_nystrom_block_work(z, ni, near, m));
}

static void forward_document(const attn_nystrom_job *j, const attn_nystrom_document *x)
{
    const attn_core_call *call = j->call;
    const attn_kernels *kernels = call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    if (!z->is_causal) {
        attn_nystrom_gather(j, x);
        attn_nystrom_average(j, x, z->marks, x->room->b);
        attn_nystrom_inverse(j, x, z->marks, x->room->b);
    }
    for (size_t t = 0; t < x->n; t += z->block) {
        const size_t ni = attn_smaller(z->block, x->n - t), near = z->is_causal ? ni : 0;
        const size_t m = z->is_causal ? t / z->segment : z->marks;
        if (z->is_causal) attn_nystrom_turn_keys(j, x, t);
        if (z->is_causal && m) {
            attn_nystrom_advance(j, x, m);
            attn_nystrom_average(j, x, m, x->room->b);
            attn_nystrom_inverse(j, x, m, x->room->b);
        }
        attn_nystrom_scores(j, x, t, ni, near, m);
        mix(j, x, ni, near, m, x->v + t * call->row, call->row, x->o + t * call->o_row);
        for (size_t i = 0; x->kept && i < 4; i++)
            memcpy(x->kept + i * call->length + x->first + t, x->room->row[i],
                   ni * sizeof *x->kept);
    }
    for (size_t t = 0, first, end; t < x->n; t++) {
        attn_nystrom_window(z, x->n, t, 1, &first, &end);
        kernels->product(1, z->d, end - first, x->taps + (first + z->left - t), 1, 1,
                         x->v + first * call->row, call->row, x->o + t * call->o_row, call->o_row,
                         true);
    }
    x->work->matmul += 2 * attn_nystrom_taps(z, x->n) * z->d;
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

/* The first token behind a segment makes its landmark, as attn_nystrom_advance() does. */
static void close_segment(const attn_nystrom_job *j, const attn_nystrom_document *x, const kept *c,
                          size_t m)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, s = z->segment, newest = (m - 1) * s;
    attn_nystrom_mark(j, x, m - 1, c->open_q, d, c->keys + newest * d, d);
    for (size_t t = 0; t <= newest; t += s) {
        kernels->transpose(s, d, c->keys + t * d, d, r->k_t, z->block);
        if (t == newest) attn_nystrom_absorb(j, x, 0, m - 1, r->k_t, c->values + t * d, d, s);
        attn_nystrom_absorb(j, x, m - 1, 1, r->k_t, c->values + t * d, d, s);
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
    mix(j, &x, 1, slot + 1, m, c.values + m * z->segment * d, d, o);
    const size_t taps = attn_smaller(z->kernel, call->position + 1);
    kernels->product(1, d, taps, j->conv + (h + 1) * z->kernel - taps, 1, 1,
                     c.values + (call->position + 1 - taps) * d, d, o, d, true);
    x.work->matmul += 2 * taps * d;
}

void attn_nystrom_decode(const attn_core_call *call)
{
    attn_nystrom_run(call, decode_head, call->cache_capacity);
}
