/* Decoding of lsh: all earlier keys and values of a head with their buckets, of which each round's
 * last `reach` of the newest token's bucket are looked up. */
#include "mechanisms/lsh.h"

#include <math.h>
#include <string.h>

/* A head of the cache: keys and values [capacity][d], buckets [rounds][capacity]. */
typedef struct cached {
    float *keys, *values, *buckets;
} cached;

static size_t head_cache(const attn_layer *layer, size_t capacity)
{
    return capacity * (2 * layer->head_dim + layer->options[ATTN_LSH_ROUNDS].size);
}

size_t attn_lsh_cache_count(const attn_layer *layer, size_t batch, size_t capacity)
{
    return batch * layer->heads * head_cache(layer, capacity);
}

static cached cached_of(const attn_lsh *run, size_t index)
{
    const size_t capacity = run->call->cache_capacity;
    float *memory = run->call->cache + index * head_cache(run->layer, capacity);
    cached c;
    c.keys = attn_cut(&memory, capacity * run->d);
    c.values = attn_cut(&memory, capacity * run->d);
    c.buckets = memory;
    return c;
}

void attn_lsh_cache_fill(const attn_lsh *run, size_t b, size_t h, const float *keys,
                         const float *buckets)
{
    const size_t T = run->T, d = run->d;
    const cached c = cached_of(run, b * run->H + h);
    const float *v = run->rows + b * T * 2 * run->C + run->C + h * d;
    memcpy(c.keys, keys, T * d * sizeof *keys);
    for (size_t t = 0; t < T; t++) memcpy(c.values + t * d, v + t * 2 * run->C, d * sizeof *v);
    for (size_t r = 0; r < run->rounds; r++)
        memcpy(c.buckets + r * run->call->cache_capacity, buckets + r * T, T * sizeof *buckets);
}

/* The most that one round can show the newest token: what is worked on in any case. */
static size_t slots_most(const attn_lsh *run)
{
    return attn_smaller(run->reach, run->call->position);
}

/* A worker's query, room for hashing, slots and scores of all rounds. */
size_t attn_lsh_decode_room(const attn_layer *layer)
{
    const size_t slots = layer->options[ATTN_LSH_ROUNDS].size *
                         attn_smaller(layer->options[ATTN_LSH_REACH].size, layer->positions);
    return layer->head_dim + attn_lsh_hash_room(layer) + 2 * slots;
}

/* What a round shows, the latest first; returns how many those are. */
static size_t find_slots(const attn_lsh *run, const float *buckets, uint32_t *slots)
{
    const size_t most = slots_most(run), newest = run->call->position;
    size_t n = 0;
    for (size_t j = newest; j-- > 0 && n < most;)
        if (buckets[j] == buckets[newest]) slots[n++] = (uint32_t)j;
    return n;
}

/* Scores of all slots of a round: those that its bucket leaves empty are worked on and hidden. */
static void score_round(const attn_lsh *run, const cached *c, size_t round, const float *q,
                        uint32_t *slots, float *s)
{
    const size_t most = slots_most(run);
    const size_t n = find_slots(run, c->buckets + round * run->call->cache_capacity, slots);
    for (size_t j = n; j < most; j++) slots[j] = (uint32_t)run->call->position;
    for (size_t j = 0; j < most; j++)
        s[j] = run->context->kernels->dot(run->d, q, c->keys + slots[j] * run->d);
    for (size_t j = n; j < most; j++) s[j] = -INFINITY;
}

void attn_lsh_decode_head(void *argument, size_t index, size_t worker)
{
    attn_lsh *run = argument;
    const attn_kernels *kernels = run->context->kernels;
    const size_t d = run->d, C = run->C, b = index / run->H, h = index % run->H;
    const size_t newest = run->call->position, most = slots_most(run), n = run->rounds * most;
    const cached c = cached_of(run, index);
    float *room = run->workers + worker * attn_lsh_decode_room(run->layer), *q = attn_cut(&room, d);
    float *hash_room = attn_cut(&room, attn_lsh_hash_room(run->layer)), *s = attn_cut(&room, n);
    uint32_t *slots = (uint32_t *)(void *)room;
    float *o = run->o + b * C + h * d, top = -INFINITY, total = 0.0f, correction = 0.0f;
    const float *v = run->rows + b * C + h * d;

    attn_lsh_hash_exactly(run, h, run->call->x + b * C, q, c.buckets + newest,
                          run->call->cache_capacity, hash_room);
    attn_lsh_key(kernels, d, q, c.keys + newest * d);
    memcpy(c.values + newest * d, v, d * sizeof *v);
    for (size_t r = 0; r < run->rounds; r++)
        score_round(run, &c, r, q, slots + r * most, s + r * most);
    kernels->online_softmax(1, n, 1.0f, s, n, &top, &total, &correction);
    memset(o, 0, d * sizeof *o);
    for (size_t j = 0; j < n; j++) kernels->add_scaled(d, s[j], c.values + slots[j] * d, o);
    kernels->scale(d, total == 0.0f ? 0.0f : 1.0f / total, o);
    if (total == 0.0f) memcpy(o, v, d * sizeof *o);
    attn_work_add(&run->tally.of[worker],
                  (attn_work){.matmul = 2 * d * (C + run->rounds * (run->buckets / 2) + 1 + 2 * n),
                              .exponential = n + 1,
                              .other = run->rounds * run->buckets + 3 * d + 4 * n + 5});
}

attn_work attn_lsh_decode_work(const attn_layer *layer, size_t before)
{
    const uint64_t d = layer->head_dim, rounds = layer->options[ATTN_LSH_ROUNDS].size;
    const uint64_t n = rounds * attn_smaller(layer->options[ATTN_LSH_REACH].size, before);
    attn_work work = attn_lsh_hash_exactly_work(layer);
    attn_work_add(
        &work,
        (attn_work){.matmul = 2 * d + 4 * n * d, .exponential = n + 1, .other = 2 * d + 4 * n + 5});
    return work;
}
