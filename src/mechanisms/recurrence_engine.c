/* The recurrence engine: forward, decode and counts. See recurrence_engine.h. */
#include "mechanisms/recurrence_engine.h"

#include "base/memory.h"
#include "base/threads.h"
#include "mechanisms/recurrence_chunk.h"
#include "mechanisms/tile_engine.h"

#include <string.h>

size_t attn_chunk_end(size_t first, size_t length, const uint32_t *document_start)
{
    const size_t end = attn_smaller(first + ATTN_CHUNK, length);
    if (!document_start) return end;
    size_t t = first + 1;
    while (t < end && document_start[t] != t) t++;
    return t;
}

size_t attn_recurrence_saved(const attn_layer *layer, size_t batch, size_t length)
{
    return batch * layer->heads * length; /* den */
}

/* Forward, per worker: Q, K, K^T, V, A and num of a chunk, S and z. */
static size_t forward_worker(size_t d)
{
    return 5 * ATTN_CHUNK * d + ATTN_CHUNK * ATTN_CHUNK + d * d + d;
}

size_t attn_recurrence_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    (void)batch;
    const size_t forward = forward_worker(layer->head_dim);
    const size_t backward = attn_recurrence_backward_worker(layer->head_dim, length);
    return threads * (forward > backward ? forward : backward);
}

size_t attn_recurrence_cache(const attn_layer *layer, size_t batch, size_t capacity)
{
    (void)capacity; /* the state does not grow */
    const size_t d = layer->head_dim;
    return batch * layer->heads * (d * d + d);
}

typedef struct forward_job {
    const attn_core_call *call;
    attn_tally tally;
} forward_job;

/* Memory of one head's walk over chunks. */
typedef struct chunk_room {
    float *q, *k, *k_transposed, *v, *num, *a, *state, *z;
} chunk_room;

static chunk_room divide_room(float *room, size_t d)
{
    const size_t n = ATTN_CHUNK * d;
    return (chunk_room){.q = room, .k = room + n, .k_transposed = room + 2 * n, .v = room + 3 * n,
                        .num = room + 4 * n, .a = room + 5 * n,
                        .state = room + 5 * n + ATTN_CHUNK * ATTN_CHUNK,
                        .z = room + 5 * n + ATTN_CHUNK * ATTN_CHUNK + d * d};
}

void attn_feature_rows(const attn_kernels *kernels, size_t rows, size_t d, const float *x,
                       size_t row, float *phi)
{
    for (size_t i = 0; i < rows; i++) kernels->elu_plus_one(d, x + i * row, phi + i * d);
}

void attn_clear_upper(size_t c, float *a)
{
    for (size_t i = 0; i < c; i++)
        for (size_t j = i + 1; j < c; j++) a[i * ATTN_CHUNK + j] = 0.0f;
}

/* S += K^T V, z += colsum(K) */
static void absorb(const attn_kernels *kernels, const chunk_room *room, size_t c, size_t d)
{
    kernels->product(d, d, c, room->k, 1, d, room->v, d, room->state, d, true);
    for (size_t i = 0; i < c; i++) kernels->add(d, room->k + i * d, room->z);
}

/* o = num / den of one chunk; `inner`: with the chunk's own A. */
static void emit(const attn_core_call *call, const chunk_room *room, size_t c, bool inner, float *o,
                 float *den_saved)
{
    const attn_kernels *kernels = call->context->kernels;
    const size_t d = call->layer->head_dim;
    kernels->product(c, d, d, room->q, d, 1, room->state, d, room->num, d, false);
    if (inner) {
        kernels->transpose(c, d, room->k, d, room->k_transposed, ATTN_CHUNK);
        kernels->product(c, c, d, room->q, d, 1, room->k_transposed, ATTN_CHUNK, room->a, ATTN_CHUNK,
                         false);
        attn_clear_upper(c, room->a);
        kernels->product(c, d, c, room->a, ATTN_CHUNK, 1, room->v, d, room->num, d, true);
    }
    for (size_t i = 0; i < c; i++) {
        const float own = inner ? kernels->sum(c, room->a + i * ATTN_CHUNK) : 0.0f;
        const float den = kernels->dot(d, room->q + i * d, room->z) + own;
        memcpy(o + i * call->o_row, room->num + i * d, d * sizeof *o);
        kernels->scale(d, 1.0f / den, o + i * call->o_row);
        if (den_saved) den_saved[i] = den;
    }
}

static attn_work chunk_work(uint64_t c, uint64_t d, bool inner)
{
    attn_work work = {.matmul = 4 * c * d * d + 2 * c * d, .exponential = 2 * c * d,
                      .other = 2 * c * d + c * d + c * d + c}; /* phi, z, quotient */
    if (inner) {
        work.matmul += 4 * c * c * d;
        work.other += 2 * c * c + c; /* mask, row sums, and their addition to den */
    }
    return work;
}

static void load_chunk(const attn_core_call *call, const chunk_room *room, size_t at, size_t c)
{
    const attn_kernels *kernels = call->context->kernels;
    const size_t d = call->layer->head_dim;
    attn_feature_rows(kernels, c, d, call->k + at, call->row, room->k);
    attn_copy_head(c, d, call->v + at, call->row, room->v);
}

static void forward_head(void *argument, size_t index, size_t worker)
{
    forward_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_layer *layer = call->layer;
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->length, d = layer->head_dim;
    const size_t b = index / layer->heads, h = index % layer->heads;
    const size_t at = b * T * call->row + h * d, o_at = b * T * call->o_row + h * d;
    const uint32_t *documents = call->document_start ? call->document_start + b * T : NULL;
    const chunk_room room = divide_room(call->scratch + worker * forward_worker(d), d);
    const bool inner = layer->is_causal;
    memset(room.state, 0, (d * d + d) * sizeof *room.state);

    for (size_t t = 0, end; !inner && t < T; t = end) {
        end = attn_chunk_end(t, T, NULL);
        load_chunk(call, &room, at + t * call->row, end - t);
        absorb(kernels, &room, end - t, d);
    }
    for (size_t t = 0, end; t < T; t = end) {
        end = attn_chunk_end(t, T, documents);
        const size_t c = end - t;
        if (documents && documents[t] == t) memset(room.state, 0, (d * d + d) * sizeof *room.state);
        attn_feature_rows(kernels, c, d, call->q + at + t * call->row, call->row, room.q);
        if (inner) load_chunk(call, &room, at + t * call->row, c);
        emit(call, &room, c, inner, call->o + o_at + t * call->o_row,
             call->saved ? call->saved + index * T + t : NULL);
        if (inner) absorb(kernels, &room, c, d);
        attn_work_add(&job->tally.of[worker], chunk_work(c, d, inner));
    }
    if (call->cache)
        memcpy(call->cache + index * (d * d + d), room.state, (d * d + d) * sizeof *room.state);
}

void attn_recurrence_forward(const attn_core_call *call)
{
    forward_job job = {.call = call};
    const size_t threads = call->context->threads;
    attn_parallel(threads, call->batch * call->layer->heads, forward_head, &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}

void attn_recurrence_decode(const attn_core_call *call)
{
    const attn_layer *layer = call->layer;
    const attn_kernels *kernels = call->context->kernels;
    const size_t d = layer->head_dim;
    float *q = call->scratch, *k = call->scratch + d;
    for (size_t index = 0; index < call->batch * layer->heads; index++) {
        const size_t b = index / layer->heads, h = index % layer->heads;
        const size_t at = b * call->row + h * d;
        float *state = call->cache + index * (d * d + d), *z = state + d * d;
        float *o = call->o + b * call->o_row + h * d;
        kernels->elu_plus_one(d, call->q + at, q);
        kernels->elu_plus_one(d, call->k + at, k);
        kernels->product(d, d, 1, k, 1, 1, call->v + at, d, state, d, true);
        kernels->add(d, k, z);
        kernels->product(1, d, d, q, d, 1, state, d, o, d, false);
        kernels->scale(d, 1.0f / kernels->dot(d, q, z), o);
    }
    attn_work_add(&call->context->work,
                  attn_recurrence_work(layer, ATTN_PHASE_DECODE, call->batch, 0, NULL));
}

attn_work attn_recurrence_work(const attn_layer *layer, attn_phase phase, size_t batch,
                               size_t length, const uint32_t *document_start)
{
    const uint64_t d = layer->head_dim;
    attn_work total = {0};
    if (phase == ATTN_PHASE_DECODE)
        return attn_work_times((attn_work){.matmul = 4 * d * d + 2 * d, .exponential = 2 * d,
                                           .other = 4 * d + 1}, (uint64_t)batch * layer->heads);
    for (size_t b = 0; b < batch; b++) {
        const uint32_t *documents = document_start ? document_start + b * length : NULL;
        for (size_t t = 0, end; t < length; t = end) {
            end = attn_chunk_end(t, length, documents);
            const uint64_t c = end - t;
            attn_work_add(&total, phase == ATTN_PHASE_FORWARD
                                      ? chunk_work(c, d, layer->is_causal)
                                      : attn_recurrence_backward_chunk(c, d, layer->is_causal));
        }
    }
    return attn_work_times(total, layer->heads);
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
