/* mla: decoding in the absorbed form. With W_UK,h [dn][r] and W_UV,h [dv][r] of head h:
 *
 *     a_h = [W_UK,h^T q_c,h | q_r,h],  P_h = softmax(a_h [c | k_r]^T / sqrt(dn + dr)),
 *     o_h = W_UV,h (P_h c)
 *
 * so that every head reads the same r + dr cached numbers of a token, as in multi-query
 * attention. Three regions: a_h by head; scores by block of tokens, of all heads at once, so
 * that a block is read once; the rest by a few heads, which share what they read. */
#include "mechanisms/mla.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 256, HEADS = 6 }; /* of a task */

typedef struct decode_job {
    attn_mla_run run;
    size_t slot, live; /* r + dr; cached tokens, the new one included */
    float *absorbed;   /* [B][r + dr][H] */
    float *scores;     /* [B][H][live] */
    float *workers;    /* max(r + dr, BLOCK H, HEADS r) floats each */
} decode_job;

static size_t worker_count(const attn_mla_sizes *z)
{
    const size_t slot = z->kv_rank + z->rope, block = BLOCK * z->heads, mixed = HEADS * z->kv_rank;
    const size_t most = slot > block ? slot : block;
    return attn_rounded(most > mixed ? most : mixed);
}

size_t attn_mla_decode_scratch(const attn_mla_sizes *z, size_t threads, size_t batch,
                               size_t positions)
{
    return attn_rounded(batch * z->heads * (z->kv_rank + z->rope)) +
           attn_rounded(batch * z->heads * positions) + threads * worker_count(z);
}

/* W_UK of a head; its W_UV lies nope rows further. */
static const float *up_weight(const decode_job *job, size_t head)
{
    return attn_mla_weight(&job->run, ATTN_MLA_UKV) +
           head * job->run.z.kv_at.head * job->run.z.kv_rank;
}

static void absorb_head(void *argument, size_t index, size_t worker)
{
    decode_job *job = argument;
    const attn_mla_sizes *z = &job->run.z;
    const attn_counted on = attn_mla_counted(&job->run, worker);
    const size_t b = index / z->heads, h = index % z->heads, r = z->kv_rank;
    const float *q = job->run.at.q + b * z->q_at.row + h * z->key;
    float *a = job->workers + worker * worker_count(z);
    attn_counted_product(on, 1, r, z->nope, q, z->nope, 1, up_weight(job, h), r, a, r, false);
    memcpy(a + r, q + z->nope, z->rope * sizeof *a);
    on.kernels->transpose(1, job->slot, a, job->slot, job->absorbed + b * job->slot * z->heads + h,
                          z->heads);
}

static void score_block(void *argument, size_t index, size_t worker)
{
    decode_job *job = argument;
    const attn_mla_sizes *z = &job->run.z;
    const attn_counted on = attn_mla_counted(&job->run, worker);
    const size_t blocks = (job->live + BLOCK - 1) / BLOCK, H = z->heads, slot = job->slot;
    const size_t b = index / blocks, j0 = index % blocks * BLOCK;
    const size_t nj = attn_smaller(BLOCK, job->live - j0);
    const float *tokens = job->run.call->cache + (b * job->run.call->cache_capacity + j0) * slot;
    float *s = job->workers + worker * worker_count(z);
    attn_counted_product(on, nj, H, slot, tokens, slot, 1, job->absorbed + b * slot * H, H, s, H,
                         false);
    on.kernels->transpose(nj, H, s, H, job->scores + b * H * job->live + j0, job->live);
}

static void attend_heads(void *argument, size_t index, size_t worker)
{
    decode_job *job = argument;
    const attn_mla_sizes *z = &job->run.z;
    const attn_counted on = attn_mla_counted(&job->run, worker);
    const size_t groups = (z->heads + HEADS - 1) / HEADS, n = job->live, r = z->kv_rank;
    const size_t b = index / groups, first = index % groups * HEADS;
    const size_t count = attn_smaller(HEADS, z->heads - first);
    const float *tokens = job->run.call->cache + b * job->run.call->cache_capacity * job->slot;
    const float scale = 1.0f / sqrtf((float)z->key);
    float *p = job->scores + (b * z->heads + first) * n;
    float *mixed = job->workers + worker * worker_count(z);
    float top[HEADS], total[HEADS] = {0}, correction[HEADS];
    for (size_t i = 0; i < count; i++) top[i] = -INFINITY;
    on.kernels->online_softmax(count, n, scale, p, n, top, total, correction);
    on.work->exponential += count * ((uint64_t)n + 1);
    on.work->other += count * (4 * (uint64_t)n + 4);
    attn_counted_product(on, count, r, n, p, n, 1, tokens, job->slot, mixed, r, false);
    for (size_t i = 0; i < count; i++) {
        const float *w_uv = up_weight(job, first + i) + z->nope * r;
        float *o = job->run.at.o + b * z->o_at.row + (first + i) * z->value;
        for (size_t j = 0; j < z->value; j++)
            o[j] = attn_counted_dot(on, r, w_uv + j * r, mixed + i * r);
        attn_counted_scale(on, z->value, 1.0f / total[i], o);
        on.work->other += 1;
    }
}

attn_work attn_mla_decode_work(const attn_mla_sizes *z, uint64_t cached)
{
    const uint64_t n = cached + 1, r = z->kv_rank;
    const attn_work head = {.matmul = 2 * (r * (z->nope + z->value) + n * (2 * r + z->rope)),
                            .exponential = n + 1,
                            .other = 4 * n + 5 + z->value};
    return attn_work_times(head, z->heads);
}

void attn_mla_decode(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    const attn_mla_sizes z = attn_mla_sizes_of(layer);
    const size_t B = call->batch, H = z.heads;
    attn_call single = *call;
    single.document_start = NULL;
    float *room = call->scratch;
    decode_job job = {
        .run = {.context = context, .layer = layer, .call = &single, .z = z, .rows = B},
        .slot = z.kv_rank + z.rope,
        .live = call->position + 1};
    job.run.at = attn_mla_cut(&z, B, &room, &room);
    job.run.angles = attn_cut(&room, attn_mla_angles_count(&z, 1));
    job.absorbed = attn_cut(&room, attn_rounded(B * H * job.slot));
    job.scores = attn_cut(&room, attn_rounded(B * H * job.live));
    job.workers = room;

    attn_mla_project(&job.run);
    attn_mla_prepare(&job.run, call->position);
    attn_mla_store(&job.run, call->position);
    attn_parallel(context->threads, B * H, absorb_head, &job);
    attn_parallel(context->threads, B * ((job.live + BLOCK - 1) / BLOCK), score_block, &job);
    attn_parallel(context->threads, B * ((H + HEADS - 1) / HEADS), attend_heads, &job);
    attn_projection_forward(context, layer, &single, ATTN_MLA_OUT, B, job.run.at.o, call->y);
    attn_tally_collect(&job.run.tally, context->threads, &context->work);
}
