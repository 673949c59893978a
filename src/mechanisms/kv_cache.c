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
    const attn_visibility *slots; /* which slots there are */
    const attn_tile_rule *rule;   /* NULL: every occupied slot is seen */
    size_t live;                  /* occupied slots, the new one included */
    attn_tally tally;
} decode_job;

/* One head's query and what is cached for it. */
typedef struct decode_head {
    size_t head;
    const float *q, *keys, *values;
    float *s, *o;
} decode_head;

/* softmax of n scores at s; the sum that divides the output */
static float softmax(const attn_kernels *kernels, size_t n, float scale, float *s)
{
    float top = -INFINITY, total = 0.0f, correction = 0.0f;
    kernels->online_softmax(1, n, scale, s, n, &top, &total, &correction);
    return total;
}

static void count_head(attn_work *work, size_t n, size_t d)
{
    attn_work_add(work, (attn_work){.matmul = 4 * (uint64_t)n * d,
                                    .exponential = n + 1,
                                    .other = 4 * (uint64_t)n + 4 + d + 1});
}

static void attend_to_all(const decode_job *job, const decode_head *at, attn_work *work)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const size_t d = job->call->layer->head_dim, n = job->live;
    for (size_t j = 0; j < n; j++) at->s[j] = kernels->dot(d, at->q, at->keys + j * d);
    const float total = softmax(kernels, n, 1.0f / sqrtf((float)d), at->s);
    kernels->product(1, d, n, at->s, n, 1, at->values, d, at->o, d, false);
    kernels->scale(d, 1.0f / total, at->o);
    count_head(work, n, d);
}

/* The next tile from key `j0` on that the newest query sees; false when there is none. */
static bool next_tile(const attn_mask *mask, size_t head, size_t live, size_t j0, attn_tile *tile,
                      attn_tile_kind *kind)
{
    for (; j0 < live; j0 += ATTN_TILE_KEYS) {
        *tile = (attn_tile){live - 1, 1, j0, attn_smaller(ATTN_TILE_KEYS, live - j0)};
        *kind = mask->tile(mask->rule, head, tile, NULL);
        if (*kind != ATTN_TILE_EMPTY) return true;
    }
    return false;
}

/* Scores of the tiles that are seen lie behind each other. */
static void attend_to_seen(const decode_job *job, const decode_head *at, attn_work *work)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const attn_tile_rule *rule = job->rule;
    const size_t d = job->call->layer->head_dim;
    const float scale = 1.0f / sqrtf((float)d);
    attn_tile tile;
    attn_tile_kind kind;
    size_t n = 0;
    for (size_t j0 = 0; next_tile(&rule->mask, at->head, job->live, j0, &tile, &kind);
         j0 = tile.j0 + ATTN_TILE_KEYS) {
        float *s = at->s + n;
        for (size_t j = 0; j < tile.nj; j++)
            s[j] = kernels->dot(d, at->q, at->keys + (tile.j0 + j) * d);
        attn_tile_finish_scores(rule, kernels, at->head, &tile, kind, NULL, scale, s, tile.nj, NULL,
                                0);
        if (kind == ATTN_TILE_PARTIAL) work->other += tile.nj;
        if (rule->score) attn_work_add(work, attn_work_times(rule->score->value, tile.nj));
        n += tile.nj;
    }
    const float total = softmax(kernels, n, rule->score ? 1.0f : scale, at->s);
    memset(at->o, 0, d * sizeof *at->o);
    n = 0;
    for (size_t j0 = 0; next_tile(&rule->mask, at->head, job->live, j0, &tile, &kind);
         j0 = tile.j0 + ATTN_TILE_KEYS) {
        kernels->product(1, d, tile.nj, at->s + n, tile.nj, 1, at->values + tile.j0 * d, d, at->o,
                         d, true);
        n += tile.nj;
    }
    kernels->scale(d, total == 0.0f ? 0.0f : 1.0f / total, at->o);
    count_head(work, n, d);
}

static void decode_kv_head(void *argument, size_t index, size_t worker)
{
    decode_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_layer *layer = call->layer;
    const size_t d = layer->head_dim, group = layer->heads / layer->kv_heads;
    const size_t b = index / layer->kv_heads, g = index % layer->kv_heads;
    store_token(call, job->slots, index, 0, call->position);
    for (size_t h = g * group; h < (g + 1) * group; h++) {
        const decode_head at = {.head = h,
                                .q = call->q + b * call->row + h * d,
                                .keys = head_slots(call, job->slots, index),
                                .values = value_slots(call, job->slots, index),
                                .s = call->scratch + worker * call->cache_capacity,
                                .o = call->o + b * call->o_row + h * d};
        if (job->rule)
            attend_to_seen(job, &at, &job->tally.of[worker]);
        else
            attend_to_all(job, &at, &job->tally.of[worker]);
    }
}

static void decode(const attn_core_call *call, const attn_visibility *slots,
                   const attn_tile_rule *rule)
{
    decode_job job = {
        .call = call,
        .slots = slots,
        .rule = rule,
        .live = attn_smaller(call->position + 1, slot_count(slots, call->cache_capacity))};
    const size_t threads = call->context->threads;
    attn_parallel(threads, call->batch * call->layer->kv_heads, decode_kv_head, &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}

void attn_kv_cache_decode(const attn_core_call *call, const attn_visibility *rule)
{
    decode(call, rule, NULL);
}

void attn_kv_cache_decode_masked(const attn_core_call *call, const attn_tile_rule *rule)
{
    const attn_visibility all = {.is_causal = true, .window = ATTN_NO_WINDOW};
    decode(call, &all, rule);
}

attn_work attn_kv_cache_work(const attn_layer *layer, const attn_visibility *rule, size_t batch,
                             size_t cached)
{
    const uint64_t n = slot_count(rule, cached + 1), d = layer->head_dim;
    return attn_work_times(
        (attn_work){.matmul = 4 * n * d, .exponential = n + 1, .other = 4 * n + 5 + d},
        (uint64_t)batch * layer->heads);
}

attn_work attn_kv_cache_masked_work(const attn_layer *layer, const attn_tile_rule *rule,
                                    size_t batch, size_t cached)
{
    const uint64_t d = layer->head_dim;
    const size_t heads = rule->mask.is_by_head ? layer->heads : 1;
    attn_work work = {0};
    for (size_t h = 0; h < heads; h++) {
        uint64_t n = 0, masked = 0;
        attn_tile tile = {.j0 = 0};
        attn_tile_kind kind;
        for (size_t j0 = 0; next_tile(&rule->mask, h, cached + 1, j0, &tile, &kind);
             j0 = tile.j0 + ATTN_TILE_KEYS) {
            n += tile.nj;
            masked += kind == ATTN_TILE_PARTIAL ? tile.nj : 0;
        }
        attn_work_add(&work, (attn_work){.matmul = 4 * n * d,
                                         .exponential = n + 1,
                                         .other = 4 * n + masked + 5 + d});
        if (rule->score) attn_work_add(&work, attn_work_times(rule->score->value, n));
    }
    return attn_work_times(work, (uint64_t)batch * (layer->heads / heads));
}
