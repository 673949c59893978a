/* linformer: scores, forward and decode. See linformer.h. */
#include "mechanisms/linformer.h"
#include "mechanisms/tile_engine.h"

#include <math.h>
#include <string.h>

/* ---- one head ---------------------------------------------------------------------------- */

static size_t worker_count(const attn_linformer_sizes *z)
{
    return 2 * z->n * z->rank + 6 * z->far * z->d + z->block * (3 * z->d + 2 * z->width + 3);
}

static attn_linformer_room divide_room(float *memory, const attn_linformer_sizes *z)
{
    attn_linformer_room r;
    r.e_t = attn_cut(&memory, z->n * z->rank);
    r.f_t = attn_cut(&memory, z->n * z->rank);
    r.far_k_t = attn_cut(&memory, z->far * z->d);
    r.far_v = attn_cut(&memory, z->far * z->d);
    r.far_k = attn_cut(&memory, z->far * z->d);
    r.far_v_t = attn_cut(&memory, z->far * z->d);
    r.d_far_k = attn_cut(&memory, z->far * z->d);
    r.d_far_v = attn_cut(&memory, z->far * z->d);
    r.near_t = attn_cut(&memory, z->block * z->d);
    r.near_v_t = attn_cut(&memory, z->block * z->d);
    r.d_o = attn_cut(&memory, z->block * z->d);
    r.s = attn_cut(&memory, z->block * z->width);
    r.ds = attn_cut(&memory, z->block * z->width);
    r.top = attn_cut(&memory, z->block);
    r.total = attn_cut(&memory, z->block);
    r.correction = attn_cut(&memory, z->block);
    return r;
}

size_t attn_linformer_saved(const attn_layer *layer, size_t batch, size_t length)
{
    return 2 * batch * layer->heads * length; /* c and l of each row */
}

size_t attn_linformer_part(const attn_layer *layer)
{
    return 2 * layer->options[ATTN_LINFORMER_RANK].size * attn_linformer_columns(layer);
}

size_t attn_linformer_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    const attn_linformer_sizes z = attn_linformer_sizes_of(layer, length),
                               longest = attn_linformer_sizes_of(layer, layer->positions);
    const size_t pass =
        batch * layer->heads * attn_linformer_part(layer) + threads * worker_count(&z);
    const size_t decode = threads * longest.width;
    return pass > decode ? pass : decode;
}

attn_linformer_head attn_linformer_head_of(const attn_linformer_job *j, size_t index, size_t worker)
{
    const attn_core_call *call = j->call;
    const attn_layer *layer = call->layer;
    const size_t b = index / layer->heads, h = index % layer->heads, T = call->length;
    attn_linformer_head s = {.at = b * T * call->row + h * j->z.d,
                             .o_at = b * T * call->o_row + h * j->z.d};
    s.q = call->q + s.at;
    s.k = call->k + s.at;
    s.v = call->v + s.at;
    s.documents = call->document_start ? call->document_start + b * T : NULL;
    if (call->saved) {
        s.top = call->saved + 2 * index * T;
        s.total = s.top + T;
    }
    const size_t parts = call->d_o ? call->batch * layer->heads * attn_linformer_part(layer) : 0;
    s.room = divide_room(call->scratch + parts + worker * worker_count(&j->z), &j->z);
    const attn_kernels *kernels = call->kernels;
    kernels->transpose(j->z.rank, j->z.n, j->e, j->z.columns, s.room.e_t, j->z.rank);
    kernels->transpose(j->z.rank, j->z.n, j->f, j->z.columns, s.room.f_t, j->z.rank);
    return s;
}

void attn_linformer_compress(const attn_linformer_job *j, const attn_linformer_head *s, size_t at,
                             size_t row)
{
    const attn_kernels *kernels = j->call->kernels;
    const attn_linformer_sizes *z = &j->z;
    const size_t step = j->call->row;
    kernels->product(z->d, z->rank, z->n, s->k + row, 1, step, s->room.e_t, z->rank,
                     s->room.far_k_t + at, z->far, false);
    kernels->product(z->rank, z->d, z->n, j->f, z->columns, 1, s->v + row, step,
                     s->room.far_v + at * z->d, z->d, false);
}

void attn_linformer_score(const attn_linformer_job *j, const attn_linformer_head *s,
                          const attn_linformer_block *b)
{
    const attn_kernels *kernels = j->call->kernels;
    const attn_linformer_sizes *z = &j->z;
    const size_t step = j->call->row;
    const float *q = s->q + b->first * step;
    for (size_t i = 0; z->bias != 0.0f && i < b->ni; i++)
        for (size_t jj = 0; jj < b->far; jj++) s->room.s[i * z->width + jj] = z->bias;
    kernels->product(b->ni, b->far, z->d, q, step, 1, s->room.far_k_t, z->far, s->room.s, z->width,
                     z->bias != 0.0f);
    if (b->near == 0) return;
    kernels->transpose(b->near, z->d, s->k + b->first * step, step, s->room.near_t, z->block);
    kernels->product(b->ni, b->near, z->d, q, step, 1, s->room.near_t, z->block, s->room.s + b->far,
                     z->width, false);
    for (size_t i = 0; i < b->ni; i++)
        for (size_t jj = i + 1; jj < b->near; jj++)
            s->room.s[i * z->width + b->far + jj] = -INFINITY;
}

static attn_linformer_job job_of(const attn_core_call *call, size_t length)
{
    const attn_layer *layer = call->layer;
    return (attn_linformer_job){.call = call,
                                .z = attn_linformer_sizes_of(layer, length),
                                .e = call->parameters + attn_layer_offset(layer, "e.weight"),
                                .f = call->parameters + attn_layer_offset(layer, "f.weight")};
}

void attn_linformer_run(const attn_core_call *call, attn_task *task, size_t length)
{
    attn_linformer_job j = job_of(call, length);
    const size_t threads = call->context->threads;
    attn_parallel(threads, call->batch * call->layer->heads, task, &j);
    attn_tally_collect(&j.tally, threads, &call->context->work);
}

/* ---- forward ----------------------------------------------------------------------------- */

static void forward_block(const attn_linformer_job *j, const attn_linformer_head *s,
                          const attn_linformer_block *b)
{
    const attn_core_call *call = j->call;
    const attn_kernels *kernels = call->kernels;
    const attn_linformer_sizes *z = &j->z;
    const attn_linformer_room *r = &s->room;
    float *o = call->o + s->o_at + b->first * call->o_row;
    for (size_t i = 0; i < b->ni; i++) {
        r->top[i] = -INFINITY;
        r->total[i] = 0.0f;
    }
    attn_linformer_score(j, s, b);
    kernels->online_softmax(b->ni, b->far + b->near, z->scale, r->s, z->width, r->top, r->total,
                            r->correction);
    if (b->far)
        kernels->product(b->ni, z->d, b->far, r->s, z->width, 1, r->far_v, z->d, o, call->o_row,
                         false);
    if (b->near)
        kernels->product(b->ni, z->d, b->near, r->s + b->far, z->width, 1,
                         s->v + b->first * call->row, call->row, o, call->o_row, b->far > 0);
    for (size_t i = 0; i < b->ni; i++)
        kernels->scale(z->d, 1.0f / r->total[i], o + i * call->o_row);
    if (!s->top) return;
    memcpy(s->top + b->first, r->top, b->ni * sizeof *s->top);
    memcpy(s->total + b->first, r->total, b->ni * sizeof *s->total);
}

/* A head's cache: virtual keys and values [far][d], then those of the open segment [block][d]. */
static size_t cache_count(const attn_linformer_sizes *z)
{
    return 2 * (z->far + z->block) * z->d;
}

static void fill_cache(const attn_linformer_job *j, const attn_linformer_head *s,
                       const attn_linformer_block *last, float *cache)
{
    const attn_core_call *call = j->call;
    const attn_linformer_sizes *z = &j->z,
                               c = attn_linformer_sizes_of(call->layer, call->cache_capacity);
    float *values = cache + c.far * z->d, *open = values + c.far * z->d;
    call->kernels->transpose(z->d, last->far, s->room.far_k_t, z->far, cache, z->d);
    memcpy(values, s->room.far_v, last->far * z->d * sizeof *values);
    attn_copy_head(last->ni, z->d, s->k + last->first * call->row, call->row, open);
    attn_copy_head(last->ni, z->d, s->v + last->first * call->row, call->row,
                   open + c.block * z->d);
}

static void forward_head(void *argument, size_t index, size_t worker)
{
    attn_linformer_job *j = argument;
    const attn_core_call *call = j->call;
    const attn_linformer_head s = attn_linformer_head_of(j, index, worker);
    attn_work *work = &j->tally.of[worker];
    attn_linformer_block b = {0};
    while (attn_linformer_next(call->layer, &j->z, call->length, s.documents, &b)) {
        const bool is_causal = call->layer->is_causal;
        if (attn_linformer_compresses(call->layer, &b)) {
            attn_linformer_compress(j, &s, is_causal ? b.far - j->z.rank : 0,
                                    (is_causal ? b.first - j->z.n : 0) * call->row);
            attn_work_add(work, attn_linformer_compress_work(&j->z, ATTN_PHASE_FORWARD));
        }
        forward_block(j, &s, &b);
        attn_work_add(work,
                      attn_linformer_block_work(&j->z, ATTN_PHASE_FORWARD, b.ni, b.far, b.near));
    }
    if (!call->cache) return;
    const attn_linformer_sizes c = attn_linformer_sizes_of(call->layer, call->cache_capacity);
    const size_t open = (call->length - 1) / j->z.n * j->z.n;
    const attn_linformer_block last = {
        .first = open, .ni = call->length - open, .far = open / j->z.n * j->z.rank};
    fill_cache(j, &s, &last, call->cache + index * cache_count(&c));
}

void attn_linformer_forward(const attn_core_call *call)
{
    attn_linformer_run(call, forward_head, call->length);
}

/* ---- decode ------------------------------------------------------------------------------ */

size_t attn_linformer_cache(const attn_layer *layer, size_t batch, size_t capacity)
{
    const attn_linformer_sizes z = attn_linformer_sizes_of(layer, capacity);
    return batch * layer->heads * cache_count(&z);
}

/* The first token behind a segment attn_linformer_compresses it; every token sees what is virtual and open. */
static void decode_head(void *argument, size_t index, size_t worker)
{
    attn_linformer_job *j = argument;
    const attn_core_call *call = j->call;
    const attn_layer *layer = call->layer;
    const attn_kernels *kernels = call->kernels;
    const attn_linformer_sizes *z = &j->z;
    const size_t d = z->d, slot = call->position % z->n;
    const size_t far = call->position / z->n * z->rank, n = far + slot + 1;
    const size_t at = index / layer->heads * call->row + index % layer->heads * d;
    float *keys = call->cache + index * cache_count(z), *values = keys + z->far * d;
    float *open_k = values + z->far * d, *open_v = open_k + z->block * d;
    float *s = call->scratch + worker * z->width;
    float *o = call->o + index / layer->heads * call->o_row + index % layer->heads * d;
    attn_work *work = &j->tally.of[worker];
    if (slot == 0 && far > 0) {
        const size_t to = (far - z->rank) * d;
        kernels->product(z->rank, d, z->n, j->e, z->n, 1, open_k, d, keys + to, d, false);
        kernels->product(z->rank, d, z->n, j->f, z->n, 1, open_v, d, values + to, d, false);
        attn_work_add(work, attn_linformer_compress_work(z, ATTN_PHASE_DECODE));
    }
    memcpy(open_k + slot * d, call->k + at, d * sizeof *open_k);
    memcpy(open_v + slot * d, call->v + at, d * sizeof *open_v);

    float top = -INFINITY, total = 0.0f, correction = 0.0f;
    for (size_t i = 0; i < far; i++) s[i] = kernels->dot(d, call->q + at, keys + i * d) + z->bias;
    for (size_t i = 0; i <= slot; i++) s[far + i] = kernels->dot(d, call->q + at, open_k + i * d);
    kernels->online_softmax(1, n, z->scale, s, n, &top, &total, &correction);
    kernels->product(1, d, slot + 1, s + far, n, 1, open_v, d, o, d, false);
    if (far) kernels->product(1, d, far, s, n, 1, values, d, o, d, true);
    kernels->scale(d, 1.0f / total, o);
    attn_work_add(work, attn_linformer_block_work(z, ATTN_PHASE_DECODE, 1, far, slot + 1));
}

void attn_linformer_decode(const attn_core_call *call)
{
    attn_linformer_run(call, decode_head, call->cache_capacity);
}
