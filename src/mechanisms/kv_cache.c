/* Key/value caches. Token j keeps slot j; behind the sinks a window's slots are used in turn, so
 * that every occupied slot is always visible to the newest query. */
#include "mechanisms/kv_cache.h"

#include "base/threads.h"

#include <math.h>
#include <string.h>

static size_t slot_count(const attn_visibility *rule, size_t capacity)
{
    if (rule->window == ATTN_NO_WINDOW) return capacity;
    return attn_smaller(capacity, rule->sinks + rule->window);
}

static size_t slot_of(const attn_visibility *rule, size_t position)
{
    if (rule->window == ATTN_NO_WINDOW || position < rule->sinks) return position;
    return rule->sinks + (position - rule->sinks) % rule->window;
}

size_t attn_kv_cache_count(const attn_layer *layer, const attn_visibility *rule, size_t batch,
                           size_t capacity)
{
    return 2 * batch * layer->kv_heads * slot_count(rule, capacity) * layer->head_dim;
}

/* The slots of one head's keys; its values lie half a cache further. */
static float *head_slots(const attn_core_call *call, const attn_visibility *rule, size_t index)
{
    return call->cache + index * slot_count(rule, call->cache_capacity) * call->layer->head_dim;
}

static float *value_slots(const attn_core_call *call, const attn_visibility *rule, size_t index)
{
    return head_slots(call, rule, call->batch * call->layer->kv_heads + index);
}

static void store_token(const attn_core_call *call, const attn_visibility *rule, size_t index,
                        size_t token, size_t position)
{
    const size_t d = call->layer->head_dim, kv = call->layer->kv_heads;
    const size_t from = (index / kv * call->length + token) * call->row + index % kv * d;
    const size_t to = slot_of(rule, position) * d;
    memcpy(head_slots(call, rule, index) + to, call->k + from, d * sizeof *call->cache);
    memcpy(value_slots(call, rule, index) + to, call->v + from, d * sizeof *call->cache);
}

void attn_kv_cache_fill(const attn_core_call *call, const attn_visibility *rule)
{
    for (size_t index = 0; index < call->batch * call->layer->kv_heads; index++)
        for (size_t t = 0; t < call->length; t++) store_token(call, rule, index, t, t);
}

typedef struct decode_job {
    const attn_core_call *call;
    const attn_visibility *rule;
    size_t live; /* occupied slots, the new one included */
    attn_tally tally;
} decode_job;

static void decode_kv_head(void *argument, size_t index, size_t worker)
{
    decode_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_layer *layer = call->layer;
    const attn_kernels *kernels = call->context->kernels;
    const size_t d = layer->head_dim, group = layer->heads / layer->kv_heads, n = job->live;
    const size_t b = index / layer->kv_heads, g = index % layer->kv_heads;
    const float scale = 1.0f / sqrtf((float)d);
    float *s = call->scratch + worker * call->cache_capacity;

    store_token(call, job->rule, index, 0, call->position);
    const float *keys = head_slots(call, job->rule, index);
    const float *values = value_slots(call, job->rule, index);
    for (size_t h = g * group; h < (g + 1) * group; h++) {
        const float *q = call->q + b * call->row + h * d;
        float *o = call->o + b * call->o_row + h * d;
        float top = -INFINITY, total = 0.0f, correction = 0.0f;
        for (size_t j = 0; j < n; j++) s[j] = kernels->dot(d, q, keys + j * d);
        kernels->online_softmax(1, n, scale, s, n, &top, &total, &correction);
        kernels->product(1, d, n, s, n, 1, values, d, o, d, false);
        kernels->scale(d, 1.0f / total, o);
    }
    attn_work_add(&job->tally.of[worker],
                  attn_work_times((attn_work){.matmul = 4 * n * d, .exponential = n + 1,
                                              .other = 4 * n + 4 + d + 1}, group));
}

void attn_kv_cache_decode(const attn_core_call *call, const attn_visibility *rule)
{
    decode_job job = {.call = call, .rule = rule,
                      .live = attn_smaller(call->position + 1, slot_count(rule, call->cache_capacity))};
    const size_t threads = call->context->threads;
    attn_parallel(threads, call->batch * call->layer->kv_heads, decode_kv_head, &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}

attn_work attn_kv_cache_work(const attn_layer *layer, const attn_visibility *rule, size_t batch,
                             size_t cached)
{
    const uint64_t n = slot_count(rule, cached + 1), d = layer->head_dim;
    return attn_work_times((attn_work){.matmul = 4 * n * d, .exponential = n + 1,
                                       .other = 4 * n + 5 + d}, (uint64_t)batch * layer->heads);
}
