/* Decoding from a key/value cache. The keys are split into parts of fixed size, so that few heads
 * can keep many threads busy: a task attends to one part for all query heads of a key/value head,
 * which read it together. What the parts found is then added up in their order.
 *
 * In bfloat16 q, keys, values and P are rounded, as in the tile engine, with whole numbers as
 * references. */
#include "base/threads.h"
#include "mechanisms/kv_cache.h"

#include <math.h>
#include <string.h>

/* Keys of a part: long parts are read faster, and short ones keep threads busy. */
enum { PART_LEAST = 4 * ATTN_TILE_KEYS, PART_MOST = 16 * ATTN_TILE_KEYS, PARTS_WANTED = 16 };

typedef struct decode_job {
    const attn_core_call *call;
    const attn_visibility *slots; /* which slots there are */
    const attn_tile_rule *rule;   /* NULL: every occupied slot is seen */
    size_t live;                  /* occupied slots, the new one included */
    size_t parts, part;           /* how many, and keys of each */
    size_t group;                 /* query heads of a key/value head */
    bool is_half;                 /* the cache holds bfloat16 numbers */
    float factor;                 /* of scores that become exponents of 2 */
    float *found; /* [batch][kv_heads][parts]: top[group], total[group], o[group][d] */
    float *rooms; /* [threads]: scores[group][part], sums[group] of the running softmax; rounded
                     q[group][d] */
    attn_tally tally;
} decode_job;

/* The query heads of a key/value head and one part of its keys, from key j0 on. */
typedef struct decode_part {
    size_t first_head, j0, n;
    const float *q;          /* of the first head */
    size_t keys, values;     /* of the part's first key, in numbers of the cache */
    float *s;                /* [group][part] */
    attn_running_rows state; /* of the group's heads */
    attn_work *work;
} decode_part;

static size_t part_keys(size_t keys)
{
    size_t part = PART_LEAST;
    while (part < PART_MOST && keys > PARTS_WANTED * part) part *= 2;
    return part;
}

static size_t part_count(size_t keys)
{
    return (keys + part_keys(keys) - 1) / part_keys(keys);
}

/* For any number of keys up to this one. */
static size_t part_count_most(size_t keys)
{
    const size_t most = part_count(keys);
    return keys > PARTS_WANTED * PART_LEAST && most < PARTS_WANTED ? PARTS_WANTED : most;
}

/* Floats of what one part finds for a group of heads. */
static size_t record_count(const attn_layer *layer)
{
    return layer->heads / layer->kv_heads * (2 + layer->head_dim);
}

static size_t room_count(const attn_layer *layer)
{
    const size_t group = layer->heads / layer->kv_heads, d = layer->head_dim;
    return group * (PART_MOST + ATTN_RUNNING_SUMS + d);
}

size_t attn_kv_cache_scratch(const attn_layer *layer, size_t threads, size_t batch)
{
    return threads * room_count(layer) +
           batch * layer->kv_heads * part_count_most(layer->positions) * record_count(layer);
}

/* ---- parts ------------------------------------------------------------------------------- */

/* Keys or values of which the first is number `at` of the cache. */
static attn_far_rows cached_rows(const decode_job *job, size_t at)
{
    const attn_core_call *call = job->call;
    attn_far_rows rows = {.row = call->layer->head_dim};
    if (job->is_half)
        rows.half = attn_kv_halves(call) + at;
    else
        rows.single = call->cache + at;
    return rows;
}

/* s = q K^T for `rows` heads from q on and n keys of the part from `first` on. */
static void take_scores(const decode_job *job, const decode_part *part, size_t rows, const float *q,
                        size_t first, size_t n)
{
    const size_t d = job->call->layer->head_dim;
    job->call->context->kernels->dot_rows(
        rows, n, d, q, d, cached_rows(job, part->keys + first * d), part->s, job->part);
}

/* o += softmax(s) V for the same heads, whose state is given, and keys. */
static void add_values(const decode_job *job, const decode_part *part, size_t rows,
                       const attn_running_rows *state, size_t first, size_t n)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const size_t d = job->call->layer->head_dim;
    kernels->running_softmax(rows, n, job->factor, part->s, job->part, state);
    if (job->is_half) attn_round_rows(kernels, rows, n, part->s, job->part);
    kernels->weigh_rows(rows, n, d, part->s, job->part, cached_rows(job, part->values + first * d),
                        state->o, d);
    attn_work_add(part->work, attn_work_times((attn_work){.matmul = 4 * (uint64_t)n * d,
                                                          .exponential = n,
                                                          .other = 4 * (uint64_t)n + 1},
                                              rows));
}

/* The next tile of keys [j0, end) that the newest query sees; false when there is none. */
static bool next_tile(const attn_mask *mask, size_t head, size_t query, size_t j0, size_t end,
                      attn_tile *tile, attn_tile_kind *kind)
{
    for (; j0 < end; j0 += ATTN_TILE_KEYS) {
        *tile = (attn_tile){query, 1, j0, attn_smaller(ATTN_TILE_KEYS, end - j0)};
        *kind = mask->tile(mask->rule, head, tile, NULL);
        if (*kind != ATTN_TILE_EMPTY) return true;
    }
    return false;
}

/* One head under its mask. */
static void attend_to_seen(const decode_job *job, const decode_part *part, size_t row)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const attn_tile_rule *rule = job->rule;
    const size_t d = job->call->layer->head_dim, end = part->j0 + part->n;
    const size_t head = part->first_head + row;
    attn_running_rows state = part->state;
    state.top += row;
    state.total += row * ATTN_RUNNING_SUMS;
    state.o += row * d;
    attn_tile tile;
    attn_tile_kind kind;
    for (size_t j0 = part->j0; next_tile(&rule->mask, head, job->live - 1, j0, end, &tile, &kind);
         j0 = tile.j0 + ATTN_TILE_KEYS) {
        const size_t first = tile.j0 - part->j0;
        take_scores(job, part, 1, part->q + row * d, first, tile.nj);
        attn_tile_finish_scores(rule, kernels, head, &tile, kind, NULL, 1.0f / sqrtf((float)d),
                                part->s, tile.nj, NULL, 0);
        if (kind == ATTN_TILE_PARTIAL) part->work->other += tile.nj;
        if (rule->score) attn_work_add(part->work, attn_work_times(rule->score->value, tile.nj));
        add_values(job, part, 1, &state, first, tile.nj);
    }
}

/* The queries of a group as factors, from number `at` on: where they lie, or rounded in `room`. */
static const float *group_queries(const decode_job *job, size_t at, float *room)
{
    const attn_core_call *call = job->call;
    const attn_kernels *kernels = call->context->kernels;
    const size_t count = job->group * call->layer->head_dim;
    if (!job->is_half) return call->q + at;
    if (call->half.q) {
        kernels->bf16_to_float(count, call->half.q + at, room);
        return room;
    }
    memcpy(room, call->q + at, count * sizeof *room);
    attn_round_rows(kernels, 1, count, room, count);
    return room;
}

static void run_part(void *argument, size_t index, size_t worker)
{
    decode_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_layer *layer = call->layer;
    const size_t d = layer->head_dim, group = job->group;
    const size_t kv = index / job->parts, j0 = index % job->parts * job->part;
    const size_t b = kv / layer->kv_heads, g = kv % layer->kv_heads;
    const size_t n = attn_smaller(job->part, job->live - j0);
    const size_t new_slot = attn_kv_slot_of(job->slots, call->position);
    if (new_slot >= j0 && new_slot - j0 < n) attn_kv_store(call, job->slots, kv, 0, call->position);

    float *found = job->found + index * record_count(layer);
    float *room = job->rooms + worker * room_count(layer);
    float *top = attn_cut(&found, group), *total = attn_cut(&found, group), *o = found;
    float *s = attn_cut(&room, group * job->part),
          *sums = attn_cut(&room, group * ATTN_RUNNING_SUMS);
    for (size_t i = 0; i < group; i++) top[i] = ATTN_RUNNING_START;
    memset(sums, 0, group * ATTN_RUNNING_SUMS * sizeof *sums);
    memset(o, 0, group * d * sizeof *o);
    const decode_part part = {.first_head = g * group,
                              .j0 = j0,
                              .n = n,
                              .q = group_queries(job, b * call->row + g * group * d, room),
                              .keys = attn_kv_keys(call, job->slots, kv) + j0 * d,
                              .values = attn_kv_values(call, job->slots, kv) + j0 * d,
                              .s = s,
                              .state = {top, sums, o, d, d, job->is_half},
                              .work = &job->tally.of[worker]};
    if (!job->rule) {
        take_scores(job, &part, group, part.q, 0, n);
        add_values(job, &part, group, &part.state, 0, n);
    }
    for (size_t i = 0; job->rule && i < group; i++) attend_to_seen(job, &part, i);
    for (size_t i = 0; i < group; i++)
        total[i] = call->context->kernels->sum(ATTN_RUNNING_SUMS, sums + i * ATTN_RUNNING_SUMS);
}

/* ---- their sum --------------------------------------------------------------------------- */

static attn_work sum_work(uint64_t parts, uint64_t d)
{
    return (attn_work){.exponential = parts, .other = parts * (2 * d + 3) + d + 1};
}

static void add_parts(void *argument, size_t index, size_t worker)
{
    decode_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_kernels *kernels = call->context->kernels;
    const attn_layer *layer = call->layer;
    const size_t d = layer->head_dim, count = record_count(layer), group = job->group;
    const size_t b = index / layer->heads, h = index % layer->heads, kv = index / group;
    const float *found = job->found + kv * job->parts * count + h % group; /* its top in part 0 */
    float *o = call->o + b * call->o_row + h * d;
    float top = ATTN_RUNNING_START, total = 0.0f;
    for (size_t i = 0; i < job->parts; i++)
        if (found[i * count] > top) top = found[i * count];
    memset(o, 0, d * sizeof *o);
    for (size_t i = 0; i < job->parts; i++) {
        const float *part = found + i * count, down = exp2f(part[0] - top);
        total += down * part[group];
        kernels->add_scaled(d, down, part + (2 * group - h % group) + h % group * d, o);
    }
    kernels->scale(d, total == 0.0f ? 0.0f : 1.0f / total, o);
    attn_work_add(&job->tally.of[worker], sum_work(job->parts, d));
}

static void decode(const attn_core_call *call, const attn_visibility *slots,
                   const attn_tile_rule *rule)
{
    const attn_layer *layer = call->layer;
    const size_t threads = call->context->threads;
    const double scale = rule && rule->score ? 1.0 : (double)(1.0f / sqrtf((float)layer->head_dim));
    decode_job job = {
        .call = call,
        .slots = slots,
        .rule = rule,
        .live = attn_smaller(call->position + 1, attn_kv_slot_count(slots, call->cache_capacity)),
        .factor = (float)(1.4426950408889634 * scale),
        .group = layer->heads / layer->kv_heads,
        .is_half = attn_kv_is_half(layer),
        .rooms = call->scratch,
        .found = call->scratch + threads * room_count(layer)};
    job.parts = part_count(job.live);
    job.part = part_keys(job.live);
    attn_parallel(threads, call->batch * layer->kv_heads * job.parts, run_part, &job);
    attn_parallel(threads, call->batch * layer->heads, add_parts, &job);
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

/* ---- closed forms ------------------------------------------------------------------------ */

attn_work attn_kv_cache_work(const attn_layer *layer, const attn_visibility *rule, size_t batch,
                             size_t cached)
{
    const uint64_t n = attn_kv_slot_count(rule, cached + 1), d = layer->head_dim;
    const uint64_t parts = part_count(n);
    attn_work work = {.matmul = 4 * n * d, .exponential = n, .other = 4 * n + parts};
    attn_work_add(&work, sum_work(parts, d));
    return attn_work_times(work, (uint64_t)batch * layer->heads);
}

attn_work attn_kv_cache_masked_work(const attn_layer *layer, const attn_tile_rule *rule,
                                    size_t batch, size_t cached)
{
    const uint64_t d = layer->head_dim;
    const size_t heads = rule->mask.is_by_head ? layer->heads : 1;
    attn_work work = {0};
    for (size_t h = 0; h < heads; h++) {
        attn_tile tile = {.j0 = 0};
        attn_tile_kind kind;
        for (size_t j0 = 0; next_tile(&rule->mask, h, cached, j0, cached + 1, &tile, &kind);
             j0 = tile.j0 + ATTN_TILE_KEYS) {
            const uint64_t n = tile.nj, masked = kind == ATTN_TILE_PARTIAL ? n : 0;
            attn_work_add(
                &work,
                (attn_work){.matmul = 4 * n * d, .exponential = n, .other = 4 * n + masked + 1});
            if (rule->score) attn_work_add(&work, attn_work_times(rule->score->value, n));
        }
        attn_work_add(&work, sum_work(part_count(cached + 1), d));
    }
    return attn_work_times(work, (uint64_t)batch * (layer->heads / heads));
}
