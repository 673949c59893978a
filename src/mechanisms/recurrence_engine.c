/* The recurrence engine: forward, decode and counts. See recurrence_engine.h. */
#include "mechanisms/recurrence_engine.h"

#include "base/memory.h"
#include "base/threads.h"
#include "mechanisms/head_rows.h"
#include "mechanisms/recurrence_chunk.h"

#include <string.h>

size_t attn_chunk_end(size_t first, size_t length, const uint32_t *document_start)
{
    const size_t end = attn_smaller(first + ATTN_CHUNK, length);
    if (!document_start) return end;
    size_t t = first + 1;
    while (t < end && document_start[t] != t) t++;
    return t;
}

attn_chunk_counts attn_chunk_counts_of(size_t length, const uint32_t *document_start)
{
    attn_chunk_counts counts = {0};
    for (size_t t = 0, end; t < length; t = end) {
        end = attn_chunk_end(t, length, document_start);
        const bool goes_on = end < length && !(document_start && document_start[end] == end);
        counts.all++;
        counts.passed += goes_on;
        counts.tokens_passed += goes_on ? end - t : 0;
    }
    return counts;
}

/* Chunks start at multiples of ATTN_CHUNK behind their document's start. */
size_t attn_chunk_start(size_t end, const uint32_t *document_start)
{
    const size_t document = document_start ? document_start[end - 1] : 0;
    return end - 1 - (end - 1 - document) % ATTN_CHUNK;
}

size_t attn_recurrence_saved(const attn_layer *layer, size_t batch, size_t length)
{
    return batch * layer->heads * length; /* den */
}

static size_t optional_count(const attn_layer *layer, size_t (*count)(const attn_layer *layer))
{
    return count ? count(layer) : 0;
}

attn_recurrence_sizes attn_recurrence_sizes_of(const attn_layer *layer)
{
    const attn_feature_map *map = layer->mechanism->features;
    return (attn_recurrence_sizes){.m = map->count(layer),
                                   .d = layer->head_dim,
                                   .shared = optional_count(layer, map->shared_count),
                                   .own = optional_count(layer, map->own_count)};
}

bool attn_recurrence_inner(const attn_layer *layer, size_t length)
{
    return layer->is_causal || length == 1;
}

void attn_recurrence_prepare(const attn_core_call *call)
{
    const attn_feature_map *map = call->layer->mechanism->features;
    if (!map->prepare) return;
    map->prepare(call, call->scratch);
    attn_work_add(&call->context->work, map->shared_work(call->layer));
}

/* What decoding keeps of a head: S, z and the map's own. */
static size_t state_count(attn_recurrence_sizes s)
{
    return s.m * s.d + s.m + s.own;
}

/* Forward, per worker: Q, K, K^T, V, num and A of a chunk, the carry; and each head's state. */
static size_t forward_worker(attn_recurrence_sizes s, size_t together)
{
    return ATTN_CHUNK * (3 * s.m + 2 * s.d) + ATTN_CHUNK * ATTN_CHUNK + s.m +
           together * state_count(s);
}

size_t attn_recurrence_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    const attn_recurrence_sizes s = attn_recurrence_sizes_of(layer);
    const size_t together = attn_heads_together(layer->heads, batch, threads);
    const size_t forward = forward_worker(s, together);
    const size_t backward = attn_recurrence_backward_worker(s, length, together);
    return s.shared + threads * (forward > backward ? forward : backward);
}

size_t attn_recurrence_cache(const attn_layer *layer, size_t batch, size_t capacity)
{
    (void)capacity; /* the state does not grow */
    return batch * layer->heads * state_count(attn_recurrence_sizes_of(layer));
}

typedef struct forward_job {
    const attn_core_call *call;
    const attn_feature_map *map;
    attn_recurrence_sizes sizes;
    size_t together; /* heads of a task */
    attn_tally tally;
} forward_job;

/* Memory of a walk over chunks; state, z and own are those of one head at a time. */
typedef struct chunk_room {
    size_t m, d;
    float *q, *k, *k_transposed, *v, *num, *a, *carry, *state, *z, *own;
    attn_ahead ahead;
} chunk_room;

static void place_state(chunk_room *room, float *state)
{
    room->state = state;
    room->z = state + room->m * room->d;
    room->own = room->z + room->m;
}

static chunk_room divide_room(float *memory, attn_recurrence_sizes s)
{
    chunk_room room = {.m = s.m, .d = s.d, .q = memory};
    room.k = room.q + ATTN_CHUNK * s.m;
    room.k_transposed = room.k + ATTN_CHUNK * s.m;
    room.v = room.k_transposed + ATTN_CHUNK * s.m;
    room.num = room.v + ATTN_CHUNK * s.d;
    room.a = room.num + ATTN_CHUNK * s.d;
    room.carry = room.a + ATTN_CHUNK * ATTN_CHUNK;
    place_state(&room, room.carry + s.m);
    return room;
}

void attn_add_rows(const attn_kernels *kernels, size_t rows, size_t n, const float *factors,
                   const float *x, float *sum)
{
    static const float one = 1.0f;
    kernels->product(1, n, rows, factors ? factors : &one, 0, factors ? 1 : 0, x, n, sum, n, true);
}

static void clear_state(chunk_room *room)
{
    memset(room->state, 0, (room->m * room->d + room->m) * sizeof *room->state);
}

/* K of up to c tokens, with S and z carried to its reference; returns how many it took. */
static size_t load_keys(const forward_job *job, const attn_feature_walk *walk, chunk_room *room,
                        size_t at, size_t c, bool is_first)
{
    const attn_kernels *kernels = job->call->kernels;
    bool has_carry = false;
    const size_t taken =
        job->map->keys(walk, c, is_first, job->call->k + at, room->k, room->carry, &has_carry);
    if (!has_carry) return taken;
    kernels->scale_rows(room->m, room->d, room->carry, room->state, room->d);
    for (size_t r = 0; r < room->m; r++) room->z[r] *= room->carry[r];
    walk->work->other += room->m * room->d + room->m;
    return taken;
}

/* S += K^T V, z += colsum(K) */
static void absorb(const attn_kernels *kernels, chunk_room *room, size_t c, const float *v,
                   size_t v_row)
{
    const size_t m = room->m, d = room->d;
    attn_ahead_product(kernels, &room->ahead, m, d, c, room->k, 1, m, v, v_row, room->state, d,
                       true);
    attn_add_rows(kernels, c, m, NULL, room->k, room->z);
}

/* o = num / den of one chunk; `inner`: with the chunk's own A. `alone`: v of the only key that the
 * first query sees, or NULL. It is o, which the quotient would miss by its rounding; and so would
 * miss 0 what that key and query get back from it. */
static void emit(const attn_core_call *call, chunk_room *room, size_t c, bool inner,
                 const float *alone, float *o, float *den_saved)
{
    const attn_kernels *kernels = call->kernels;
    const size_t m = room->m, d = room->d;
    attn_ahead_product(kernels, &room->ahead, c, d, m, room->q, m, 1, room->state, d, room->num, d,
                       false);
    if (inner) {
        kernels->transpose(c, m, room->k, m, room->k_transposed, ATTN_CHUNK);
        attn_ahead_product(kernels, &room->ahead, c, c, m, room->q, m, 1, room->k_transposed,
                           ATTN_CHUNK, room->a, ATTN_CHUNK, false);
        kernels->keep_lower(c, c, NULL, room->a, ATTN_CHUNK);
        attn_ahead_product(kernels, &room->ahead, c, d, c, room->a, ATTN_CHUNK, 1, room->v, d,
                           room->num, d, true);
    }
    float inverse[ATTN_CHUNK];
    const attn_far_rows queries = {.single = room->q, .row = m};
    kernels->dot_rows(1, c, m, room->z, m, queries, inverse, c);
    for (size_t i = 0; i < c; i++) {
        const float den = inverse[i] + (inner ? kernels->sum(c, room->a + i * ATTN_CHUNK) : 0.0f);
        inverse[i] = 1.0f / den;
        if (den_saved) den_saved[i] = den;
    }
    kernels->copy_rows(c, d, 1.0f, inverse, room->num, d, o, call->o_row);
    if (alone) memcpy(o, alone, d * sizeof *o);
}

/* Without the features. */
static attn_work chunk_work(attn_recurrence_sizes s, uint64_t c, bool inner)
{
    attn_work work = {.matmul = 4 * c * s.m * s.d + 2 * c * s.m,
                      .other = c * s.m + c * s.d + c}; /* z, quotient */
    if (inner) {
        work.matmul += 2 * c * c * (s.m + s.d);
        work.other += 2 * c * c + c; /* mask, row sums, and their addition to den */
    }
    return work;
}

/* Head h of the chunk [t, end). In parts where a key makes the reference rise. */
typedef struct chunk {
    size_t sequence, h, t, end;
    bool starts_document;
} chunk;

static void absorb_chunk(const forward_job *job, const attn_feature_walk *walk, chunk_room *room,
                         chunk at)
{
    const attn_core_call *call = job->call;
    const size_t column = at.h * room->d, first = at.sequence * call->length;
    for (size_t t = at.t, c; t < at.end; t += c) {
        const size_t row = (first + t) * call->row + column;
        c = load_keys(job, walk, room, row, at.end - t, at.starts_document && t == at.t);
        absorb(call->kernels, room, c, call->v + row, call->row);
    }
}

static void forward_chunk(const forward_job *job, const attn_feature_walk *walk, chunk_room *room,
                          chunk at, bool inner)
{
    const attn_core_call *call = job->call;
    const attn_kernels *kernels = call->kernels;
    const size_t column = at.h * room->d, first = at.sequence * call->length;
    const size_t kept = (at.sequence * call->layer->heads + at.h) * call->length;
    if (at.starts_document && inner) clear_state(room);
    for (size_t t = at.t, c; t < at.end; t += c) {
        const size_t row = (first + t) * call->row + column;
        const bool is_first = at.starts_document && t == at.t && inner;
        c = at.end - t;
        if (inner) {
            c = load_keys(job, walk, room, row, c, is_first);
            kernels->copy_rows(c, room->d, 1.0f, NULL, call->v + row, call->row, room->v, room->d);
        }
        job->map->queries(walk, c, call->q + row, room->q);
        emit(call, room, c, inner, is_first ? call->v + row : NULL,
             call->o + (first + t) * call->o_row + column,
             call->saved ? call->saved + kept + t : NULL);
        if (inner) absorb(kernels, room, c, room->v, room->d);
        attn_work_add(walk->work, chunk_work(job->sizes, c, inner));
    }
}

/* What head h of the chunk at t will read and write. */
static void look_ahead(const attn_core_call *call, const attn_head_range *heads, size_t h, size_t t,
                       size_t end, attn_ahead *ahead)
{
    const size_t d = call->layer->head_dim, first = heads->sequence * call->length + t;
    const size_t at = first * call->row + h * d;
    *ahead = (attn_ahead){.rows = end - t};
    if (t == end) return;
    attn_ahead_add(ahead, d, call->k + at, call->row, false);
    attn_ahead_add(ahead, d, call->v + at, call->row, false);
    attn_ahead_add(ahead, d, call->q + at, call->row, false);
    attn_ahead_add(ahead, d, call->o + first * call->o_row + h * d, call->o_row, true);
}

static void forward_heads(void *argument, size_t task, size_t worker)
{
    forward_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_layer *layer = call->layer;
    const attn_recurrence_sizes s = job->sizes;
    const attn_head_range heads = attn_heads_of(task, layer->heads, job->together);
    const size_t T = call->length, count = state_count(s);
    const uint32_t *documents =
        call->document_start ? call->document_start + heads.sequence * T : NULL;
    float *memory = call->scratch + s.shared + worker * forward_worker(s, job->together);
    chunk_room room = divide_room(memory, s);
    float *states = room.state;
    attn_work work = {0}; /* a worker's own cache line until the task ends */
    attn_feature_walk walk = {.call = call, .shared = call->scratch, .work = &work};
    const bool inner = attn_recurrence_inner(layer, T);

    for (size_t pass = inner ? 1 : 0; pass < 2; pass++)
        for (size_t t = 0, end; t < T; t = end) {
            const bool starts = t == 0 || (documents && documents[t] == t);
            end = attn_chunk_end(t, T, documents);
            for (size_t h = heads.first; h < heads.end; h++) {
                const chunk at = {heads.sequence, h, t, end, starts};
                place_state(&room, states + (h - heads.first) * count);
                walk.own = room.own;
                if (h + 1 < heads.end)
                    look_ahead(call, &heads, h + 1, t, end, &room.ahead);
                else
                    look_ahead(call, &heads, heads.first, end,
                               end < T ? attn_chunk_end(end, T, documents) : T, &room.ahead);
                if (pass == 0 && t == 0) clear_state(&room);
                if (pass == 0)
                    absorb_chunk(job, &walk, &room, at);
                else
                    forward_chunk(job, &walk, &room, at, inner);
            }
        }
    if (call->cache)
        memcpy(call->cache + (heads.sequence * layer->heads + heads.first) * count, states,
               (heads.end - heads.first) * count * sizeof *states);
    attn_work_add(&job->tally.of[worker], work);
}

void attn_recurrence_forward(const attn_core_call *call)
{
    const attn_layer *layer = call->layer;
    const size_t threads = call->context->threads;
    forward_job job = {.call = call,
                       .map = layer->mechanism->features,
                       .sizes = attn_recurrence_sizes_of(layer),
                       .together = attn_heads_together(layer->heads, call->batch, threads)};
    attn_recurrence_prepare(call);
    attn_parallel(threads, attn_head_tasks(layer->heads, call->batch, job.together), forward_heads,
                  &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}

/* One token is a chunk of one: its key is absorbed before its query reads the state. */
void attn_recurrence_decode(const attn_core_call *call)
{
    const attn_layer *layer = call->layer;
    const attn_kernels *kernels = call->kernels;
    const attn_feature_map *map = layer->mechanism->features;
    const attn_recurrence_sizes s = attn_recurrence_sizes_of(layer);
    const forward_job job = {.call = call, .map = map, .sizes = s};
    chunk_room room = divide_room(call->scratch + s.shared, s);
    attn_recurrence_prepare(call);
    for (size_t index = 0; index < call->batch * layer->heads; index++) {
        const size_t b = index / layer->heads, h = index % layer->heads;
        const size_t at = b * call->row + h * s.d;
        float *o = call->o + b * call->o_row + h * s.d;
        place_state(&room, call->cache + index * state_count(s));
        const attn_feature_walk walk = {
            .call = call, .shared = call->scratch, .own = room.own, .work = &call->context->work};
        if (call->position == 0) clear_state(&room);
        load_keys(&job, &walk, &room, at, 1, call->position == 0);
        map->queries(&walk, 1, call->q + at, room.q);
        absorb(kernels, &room, 1, call->v + at, call->row);
        emit(call, &room, 1, false, call->position == 0 ? call->v + at : NULL, o, NULL);
        attn_work_add(walk.work, chunk_work(s, 1, false));
    }
}

attn_work attn_recurrence_work(const attn_layer *layer, attn_phase phase, size_t batch,
                               size_t length, const uint32_t *document_start)
{
    const attn_feature_map *map = layer->mechanism->features;
    const attn_recurrence_sizes s = attn_recurrence_sizes_of(layer);
    const bool decodes = phase == ATTN_PHASE_DECODE;
    const bool inner = !decodes && attn_recurrence_inner(layer, length);
    const size_t tokens = decodes ? 1 : length;
    attn_work total = {0};
    for (size_t b = 0; b < batch; b++) {
        const uint32_t *documents = document_start ? document_start + b * length : NULL;
        for (size_t t = 0, end; t < tokens; t = end) {
            end = attn_chunk_end(t, tokens, documents);
            const bool goes_on = end < tokens && !(documents && documents[end] == end);
            attn_work_add(&total,
                          phase == ATTN_PHASE_BACKWARD
                              ? attn_recurrence_backward_chunk(s, end - t, inner, goes_on || !inner)
                              : chunk_work(s, end - t, inner));
        }
        const uint64_t again = phase != ATTN_PHASE_BACKWARD ? 0
                               : inner ? attn_chunk_counts_of(tokens, documents).tokens_passed
                                       : tokens;
        attn_work_add(&total, map->head_work(layer, phase, tokens, again));
    }
    total = attn_work_times(total, layer->heads);
    if (map->shared_work) attn_work_add(&total, map->shared_work(layer));
    return total;
}

attn_node *attn_recurrence_visible(attn_tape *tape, const attn_layer *layer, attn_node *a,
                                   const uint32_t *document_start)
{
    const size_t T = a->rows;
    bool *allowed = attn_alloc_array(ATTN_MEMORY_OTHER, T * T, sizeof *allowed);
    if (!allowed) return attn_tape_fail(tape);
    for (size_t i = 0; i < T; i++)
        for (size_t j = 0; j < T; j++)
            allowed[i * T + j] =
                (!layer->is_causal || j <= i) && (!document_start || j >= document_start[i]);
    attn_node *masked = attn_masked(tape, a, allowed);
    attn_free(allowed);
    return masked;
}
