/* linformer: backward. P is computed again, block by block; what a document's virtual keys and
 * values receive is passed on to its tokens and to E and F at its end. */
#include "mechanisms/linformer.h"
#include "mechanisms/tile_engine.h"

#include <string.h>

/* ---- backward ---------------------------------------------------------------------------- */

static void backward_block(const attn_linformer_job *j, const attn_linformer_head *s,
                           const attn_linformer_block *b)
{
    const attn_core_call *call = j->call;
    const attn_kernels *kernels = call->kernels;
    const attn_linformer_sizes *z = &j->z;
    const attn_linformer_room *r = &s->room;
    const size_t d = z->d, w = z->width, row = call->row, at = b->first * row;
    const size_t o_at = s->o_at + b->first * call->o_row;
    float *dq = call->dq + s->at + at, *delta = r->total;
    attn_copy_head(b->ni, d, call->d_o + o_at, call->o_row, r->d_o);
    for (size_t i = 0; i < b->ni; i++) {
        kernels->scale(d, 1.0f / s->total[b->first + i], r->d_o + i * d);
        delta[i] = kernels->dot(d, r->d_o + i * d, call->o + o_at + i * call->o_row);
    }
    attn_linformer_score(j, s, b);
    kernels->product(b->ni, b->far, d, r->d_o, d, 1, r->far_v_t, z->far, r->ds, w, false);
    if (b->near) {
        kernels->transpose(b->near, d, s->v + at, row, r->near_v_t, z->block);
        kernels->product(b->ni, b->near, d, r->d_o, d, 1, r->near_v_t, z->block, r->ds + b->far, w,
                         false);
    }
    kernels->online_softmax_gradient(b->ni, b->far + b->near, z->scale, s->top + b->first, delta,
                                     r->s, w, r->ds, w);
    if (b->far) {
        kernels->product(b->far, d, b->ni, r->s, 1, w, r->d_o, d, r->d_far_v, d, true);
        kernels->product(b->far, d, b->ni, r->ds, 1, w, s->q + at, row, r->d_far_k, d, true);
        kernels->product(b->ni, d, b->far, r->ds, w, 1, r->far_k, d, dq, row, false);
    }
    if (b->near) {
        float *dk = call->dk + s->at + at, *dv = call->dv + s->at + at;
        kernels->product(b->near, d, b->ni, r->s + b->far, 1, w, r->d_o, d, dv, row, false);
        kernels->product(b->near, d, b->ni, r->ds + b->far, 1, w, s->q + at, row, dk, row, false);
        kernels->product(b->ni, d, b->near, r->ds + b->far, w, 1, s->k + at, row, dq, row,
                         b->far > 0);
        for (size_t i = 0; i < b->near; i++) kernels->scale(d, z->scale, dk + i * row);
    }
    for (size_t i = 0; i < b->ni; i++) kernels->scale(d, z->scale, dq + i * row);
}

/* What virtual key `at` and those behind it pass on to the n tokens at `first`, and to E. `x` is k
 * or v, `gathered` dE K or dF V. */
static void expand(const attn_linformer_job *j, const float *x, const float *weight,
                   const float *gathered, size_t at, float *turned, float *dx, float *d_weight)
{
    const attn_kernels *kernels = j->call->kernels;
    const attn_linformer_sizes *z = &j->z;
    const size_t d = z->d, row = j->call->row;
    gathered += at * d;
    kernels->product(z->n, d, z->rank, weight, 1, z->columns, gathered, d, dx, row,
                     j->call->layer->is_causal);
    for (size_t t = 0; t < z->n; t += z->block) {
        const size_t nt = attn_smaller(z->block, z->n - t);
        kernels->transpose(nt, d, x + t * row, row, turned, z->block);
        kernels->product(z->rank, nt, d, gathered, d, 1, turned, z->block, d_weight + t, z->columns,
                         true);
    }
}

/* The blocks of one document, which starts at `b`; then its segments. */
static void backward_document(const attn_linformer_job *j, const attn_linformer_head *s,
                              attn_linformer_block *b, float *part, attn_work *work)
{
    const attn_core_call *call = j->call;
    const attn_layer *layer = call->layer;
    const attn_kernels *kernels = call->kernels;
    const attn_linformer_sizes *z = &j->z;
    const attn_linformer_room *r = &s->room;
    const size_t document = b->document, n_far = z->far * z->d;
    size_t far = 0;
    memset(r->d_far_k, 0, n_far * sizeof *r->d_far_k);
    memset(r->d_far_v, 0, n_far * sizeof *r->d_far_v);
    bool goes_on = true;
    while (goes_on && b->document == document) {
        if (attn_linformer_compresses(layer, b)) {
            const size_t to = layer->is_causal ? far : 0;
            attn_linformer_compress(j, s, to, (document + far / z->rank * z->n) * call->row);
            kernels->transpose(z->d, z->rank, r->far_k_t + to, z->far, r->far_k + to * z->d, z->d);
            kernels->transpose(z->rank, z->d, r->far_v + to * z->d, z->d, r->far_v_t + to, z->far);
            far += z->rank;
        }
        backward_block(j, s, b);
        attn_work_add(work,
                      attn_linformer_block_work(z, ATTN_PHASE_BACKWARD, b->ni, b->far, b->near));
        goes_on = attn_linformer_next(layer, z, call->length, s->documents, b);
    }
    kernels->scale(far * z->d, z->scale, r->d_far_k);
    for (size_t at = 0; at < far; at += z->rank) {
        const size_t row = (document + at / z->rank * z->n) * call->row;
        expand(j, s->k + row, j->e, r->d_far_k, at, r->near_t, call->dk + s->at + row, part);
        expand(j, s->v + row, j->f, r->d_far_v, at, r->near_t, call->dv + s->at + row,
               part + z->rank * z->columns);
        attn_work_add(work, attn_linformer_compress_work(z, ATTN_PHASE_BACKWARD));
    }
}

static void backward_head(void *argument, size_t index, size_t worker)
{
    attn_linformer_job *j = argument;
    const attn_core_call *call = j->call;
    const attn_linformer_head s = attn_linformer_head_of(j, index, worker);
    float *part = call->scratch + index * attn_linformer_part(call->layer);
    memset(part, 0, attn_linformer_part(call->layer) * sizeof *part);
    attn_linformer_block b = {0};
    attn_linformer_next(call->layer, &j->z, call->length, s.documents, &b);
    while (b.first < call->length) backward_document(j, &s, &b, part, &j->tally.of[worker]);
}

void attn_linformer_backward(const attn_core_call *call)
{
    const attn_layer *layer = call->layer;
    const size_t count = attn_linformer_part(layer);
    float *gradient = call->gradients + attn_layer_offset(layer, "e.weight"); /* and f behind it */
    attn_linformer_run(call, backward_head, call->length);
    memset(gradient, 0, count * sizeof *gradient);
    for (size_t i = 0; i < call->batch * layer->heads; i++)
        call->kernels->add(count, call->scratch + i * count, gradient);
    call->context->work.other += call->batch * layer->heads * count;
}
