/* Walks of a recurrence's layer. See recurrent_walk.h. */
#include "mechanisms/recurrent_walk.h"

#include "mechanisms/head_rows.h"
#include "mechanisms/recurrent_exact.h"

#include <string.h>

typedef attn_recurrent_job job;

static const attn_recurrence *recurrence_of(const attn_layer *layer)
{
    return layer->mechanism->recurrence;
}

/* ---- memory ------------------------------------------------------------------------------ */

/* States kept of a head: each stands for a whole chunk before it. */
static size_t state_count(size_t length)
{
    return 1 + (length - 1) / ATTN_CHUNK;
}

/* The worker's memory: o of a chunk or its gradient, rows between o and wo, first tokens in double,
 * the recurrence's own; and for each head of a task its state, or the gradient of it, and the states
 * before chunks, the first of which is 0. */
typedef struct worker_room {
    float *o, *rows, *exact, *own, *states;
    size_t square, head; /* floats of a state; of all of a head's */
} worker_room;

enum { GATE_ROWS = 16, GATE_BLOCKS = 5 }; /* what gates take at once: it stays in the first cache */

static void divide_worker(const attn_layer *layer, size_t length, float *memory, worker_room *room)
{
    const size_t dv = layer->head_dim;
    float *at = memory;
    room->o = attn_cut(&at, attn_rounded(ATTN_CHUNK * dv));
    room->rows = attn_cut(&at, attn_rounded(GATE_BLOCKS * GATE_ROWS * dv));
    room->exact = attn_cut(&at, attn_rounded(attn_recurrent_mend_room(layer)));
    room->own = attn_cut(&at, attn_rounded(recurrence_of(layer)->room(layer)));
    room->square = attn_rounded(recurrence_of(layer)->key_dim(layer) * dv);
    room->head = (1 + state_count(length)) * room->square;
    room->states = at;
}

size_t attn_recurrent_worker(const attn_layer *layer, size_t length, size_t together)
{
    const size_t dv = layer->head_dim, square = recurrence_of(layer)->key_dim(layer) * dv;
    return attn_rounded(ATTN_CHUNK * dv) + attn_rounded(GATE_BLOCKS * GATE_ROWS * dv) +
           attn_rounded(attn_recurrent_mend_room(layer)) +
           attn_rounded(recurrence_of(layer)->room(layer)) +
           together * (1 + state_count(length)) * attn_rounded(square);
}
/* What one task walks: a group of heads, chunk by chunk. */
typedef struct walk {
    job *job;
    attn_head_range heads;
    const uint32_t *documents; /* of the sequence; NULL: one */
    worker_room room;
    attn_work work; /* a worker's own cache line until the task ends */
    attn_ahead ahead;
} walk;

static void start_walk(job *j, size_t task, size_t worker, walk *w)
{
    const attn_call *call = j->run.call;
    const attn_layer *layer = j->run.layer;
    const size_t T = call->length, count = attn_recurrent_worker(layer, T, j->together);
    *w = (walk){.job = j, .heads = attn_heads_of(task, layer->heads, j->together)};
    if (call->document_start) w->documents = call->document_start + w->heads.sequence * T;
    divide_worker(layer, T, j->place.workers + worker * count, &w->room);
}

static bool is_document_start(const walk *w, size_t t)
{
    return t == 0 || (w->documents && w->documents[t] == t);
}

static bool is_document_end(const walk *w, size_t end)
{
    return end == w->job->run.call->length || is_document_start(w, end);
}

/* Head h of the chunk [t, end). */
static attn_recurrent_head chunk_of(walk *w, size_t h, size_t t, size_t end)
{
    const job *j = w->job;
    return (attn_recurrent_head){.run = &j->run,
                                 .index = w->heads.sequence * j->run.layer->heads + h,
                                 .h = h,
                                 .start = t,
                                 .length = end - t,
                                 .first = w->heads.sequence * j->run.call->length + t,
                                 .position = t - (w->documents ? w->documents[t] : 0),
                                 .on = {j->run.kernels, &w->work, &w->ahead},
                                 .room = w->room.own};
}

/* Where the chunk's rows from t on hold the head's columns of o and of all that is like it. */
static size_t value_at(const attn_recurrent_head *head, size_t t)
{
    return (head->first + t) * head->run->layer->d_model + head->h * head->run->shape.value_dim;
}

static size_t gate_at(const attn_recurrent_head *head, size_t t)
{
    const attn_recurrent_shape *s = &head->run->shape;
    return (head->first + t) * s->row + s->gate + head->h * s->value_dim;
}

/* ---- between o and wo -------------------------------------------------------------------- */

static void weigh_rows(const job *j, attn_counted on, size_t rows, float *x)
{
    const size_t d = j->run.layer->head_dim;
    for (size_t i = 0; j->norm_weight && i < rows; i++)
        attn_counted_multiply(on, d, j->norm_weight, x + i * d);
}

/* gated = w o norm(o) o silu(g) of rows from t on; o is used up */
static void gate_rows(const job *j, const attn_recurrent_head *head, size_t t, size_t rows,
                      float *blocks, float *o)
{
    const attn_counted on = head->on;
    const attn_kernels *kernels = on.kernels;
    const size_t d = j->run.layer->head_dim, width = j->run.layer->d_model;
    float factors[GATE_ROWS], *gate = blocks;
    attn_counted_norm_rows(on, rows, d, o, factors);
    weigh_rows(j, on, rows, o);
    if (recurrence_of(j->run.layer)->has_gate) {
        kernels->copy_rows(rows, d, 1.0f, NULL, j->run.rows + gate_at(head, t), j->run.shape.row,
                           gate, d);
        attn_counted_silu(on, rows * d, gate, gate);
        attn_counted_multiply(on, rows * d, gate, o);
    }
    kernels->copy_rows(rows, d, 1.0f, NULL, o, d, j->place.gated + value_at(head, t), width);
}

/* The same again from the o that was kept, and back: `gated` for wo's gradient, the gradients of g
 * and norm.weight, and that of o to d_o. */
static void gate_rows_gradient(const job *j, const attn_recurrent_head *head, size_t t, size_t rows,
                               float *blocks, float *d_norm, float *d_o)
{
    const attn_counted on = head->on;
    const attn_kernels *kernels = on.kernels;
    const attn_recurrent_shape *s = &j->run.shape;
    const size_t d = s->value_dim, count = rows * d, width = j->run.layer->d_model;
    const size_t at = value_at(head, t), block = GATE_ROWS * d;
    float *n = blocks, *scaled = n + block, *g = scaled + block, *gate = g + block;
    float *gated = gate + block, factors[GATE_ROWS];

    kernels->copy_rows(rows, d, 1.0f, NULL, j->o + at, width, n, d);
    kernels->copy_rows(rows, d, 1.0f, NULL, j->place.d_gated + at, width, d_o, d);
    attn_counted_norm_rows(on, rows, d, n, factors);
    memcpy(scaled, n, count * sizeof *n);
    weigh_rows(j, on, rows, scaled);
    memcpy(gated, scaled, count * sizeof *n);
    if (recurrence_of(j->run.layer)->has_gate) {
        const size_t from = gate_at(head, t);
        kernels->copy_rows(rows, d, 1.0f, NULL, j->run.rows + from, s->row, g, d);
        attn_counted_silu(on, count, g, gate);
        attn_counted_multiply(on, count, gate, gated);
        attn_counted_multiply(on, count, d_o, scaled);
        attn_counted_silu_gradient(on, count, g, scaled, scaled);
        kernels->copy_rows(rows, d, 1.0f, NULL, scaled, d, j->run.d_rows + from, s->row);
        attn_counted_multiply(on, count, gate, d_o);
    }
    kernels->copy_rows(rows, d, 1.0f, NULL, gated, d, j->place.gated + at, width);
    for (size_t i = 0; j->norm_weight && i < rows; i++)
        attn_counted_add_product(on, d, d_o + i * d, n + i * d, d_norm);
    weigh_rows(j, on, rows, d_o);
    for (size_t i = 0; i < rows; i++)
        attn_counted_norm_gradient(on, d, n + i * d, factors[i], d_o + i * d);
}

/* ---- walks ------------------------------------------------------------------------------- */

/* Tokens before decoding's are not there any more, and the roundings of bfloat16 stay. */
static bool can_mend(const job *j)
{
    return j->run.layer->dtype == ATTN_F32 && j->run.position == 0;
}

/* A head's state: in the cache where there is one. */
static float *state_of(const walk *w, size_t h)
{
    const job *j = w->job;
    const size_t square = j->run.shape.key_dim * j->run.shape.value_dim;
    const size_t index = w->heads.sequence * j->run.layer->heads + h;
    return j->run.call->cache ? j->run.call->cache + index * square
                              : w->room.states + (h - w->heads.first) * w->room.head;
}

static void forward_chunk(walk *w, const attn_recurrent_head *head)
{
    const job *j = w->job;
    const attn_layer *layer = j->run.layer;
    const size_t d = layer->head_dim;
    const bool starts = is_document_start(w, head->start);
    float *o = w->room.o, *state = state_of(w, head->h);
    if (starts && !j->is_decoding) memset(state, 0, j->run.shape.key_dim * d * sizeof *state);
    recurrence_of(layer)->forward(head, state, o);
    if (starts && can_mend(j)) attn_recurrent_mend(head, w->room.exact, o);
    if (j->o)
        head->on.kernels->copy_rows(head->length, d, 1.0f, NULL, o, d, j->o + value_at(head, 0),
                                    layer->d_model);
    for (size_t t = 0; t < head->length; t += GATE_ROWS)
        gate_rows(j, head, t, attn_smaller(GATE_ROWS, head->length - t), w->room.rows, o + t * d);
}

/* What the walk comes to next: head h of the chunk [t, end), all of it or what states are made of. */
static void look_ahead(walk *w, size_t h, size_t t, size_t end, bool is_backward, bool is_all)
{
    const job *j = w->job;
    const attn_recurrent_shape *s = &j->run.shape;
    const attn_recurrent_head head = {
        .run = &j->run, .first = w->heads.sequence * j->run.call->length + t, .h = h};
    const size_t dk = s->key_dim, dv = s->value_dim, width = j->run.layer->d_model;
    const size_t at = head.first * s->row, value = value_at(&head, 0);
    const float *rows = j->run.rows + at;
    attn_ahead *ahead = &w->ahead;
    *ahead = (attn_ahead){.rows = end - t};
    if (t == end) return;
    attn_ahead_add(ahead, dk, rows + s->k + h * dk, s->row, false);
    attn_ahead_add(ahead, dv, rows + s->v + h * dv, s->row, false);
    if (!is_all) return;
    attn_ahead_add(ahead, dk, rows + s->q + h * dk, s->row, false);
    if (is_backward) {
        attn_ahead_add(ahead, dv, j->o + value, width, false);
        attn_ahead_add(ahead, dv, j->place.d_gated + value, width, false);
        attn_ahead_add(ahead, dk, j->run.d_rows + at + s->q + h * dk, s->row, true);
        attn_ahead_add(ahead, dk, j->run.d_rows + at + s->k + h * dk, s->row, true);
        attn_ahead_add(ahead, dv, j->run.d_rows + at + s->v + h * dv, s->row, true);
    } else if (j->o) {
        attn_ahead_add(ahead, dv, j->o + value, width, true);
    }
    if (recurrence_of(j->run.layer)->has_gate)
        attn_ahead_add(ahead, dv, rows + s->gate + h * dv, s->row, false);
    attn_ahead_add(ahead, dv, j->place.gated + value, width, true);
}

void attn_recurrent_forward_task(void *argument, size_t task, size_t worker)
{
    job *j = argument;
    const size_t T = j->run.call->length;
    walk w;
    start_walk(j, task, worker, &w);
    for (size_t t = 0, end; t < T; t = end) {
        end = attn_chunk_end(t, T, w.documents);
        const size_t next = end < T ? attn_chunk_end(end, T, w.documents) : T;
        for (size_t h = w.heads.first; h < w.heads.end; h++) {
            const attn_recurrent_head head = chunk_of(&w, h, t, end);
            if (h + 1 < w.heads.end)
                look_ahead(&w, h + 1, t, end, false, true);
            else
                look_ahead(&w, w.heads.first, end, next, false, true);
            forward_chunk(&w, &head);
        }
    }
    attn_work_add(&j->tally.of[worker], w.work);
}

/* Of head h, state number i; 0 is zeros. The gradient of the state lies before them. */
static float *kept_state(const walk *w, size_t h, size_t i)
{
    return w->room.states + (h - w->heads.first) * w->room.head + (1 + i) * w->room.square;
}

static void backward_chunk(walk *w, const attn_recurrent_head *head, size_t before, bool ends,
                           size_t after)
{
    const job *j = w->job;
    const size_t d = j->run.shape.value_dim;
    float *d_o = w->room.o, *ds = w->room.states + (head->h - w->heads.first) * w->room.head;
    float *d_norm = j->place.d_norm + head->index * d;
    for (size_t t = 0; t < head->length; t += GATE_ROWS)
        gate_rows_gradient(j, head, t, attn_smaller(GATE_ROWS, head->length - t), w->room.rows,
                           d_norm, d_o + t * d);
    if (ends) memset(ds, 0, w->room.square * sizeof *ds);
    const attn_chunk_states states = {.before = kept_state(w, head->h, before),
                                      .after = ends ? NULL : kept_state(w, head->h, after),
                                      .ds = ds};
    recurrence_of(j->run.layer)->backward(head, &states, d_o);
}

void attn_recurrent_backward_task(void *argument, size_t task, size_t worker)
{
    job *j = argument;
    const size_t T = j->run.call->length, d = j->run.layer->head_dim;
    const attn_recurrence *r = recurrence_of(j->run.layer);
    walk w;
    size_t kept = 0; /* the last state's number */
    start_walk(j, task, worker, &w);
    for (size_t h = w.heads.first; h < w.heads.end; h++) {
        const attn_recurrent_head head = chunk_of(&w, h, 0, 0);
        memset(j->place.d_norm + head.index * d, 0, d * sizeof(float));
        memset(kept_state(&w, h, 0), 0, w.room.square * sizeof(float));
    }
    for (size_t t = 0, end; t < T; t = end) {
        end = attn_chunk_end(t, T, w.documents);
        if (is_document_end(&w, end)) continue;
        const size_t before = is_document_start(&w, t) ? 0 : kept;
        kept++;
        for (size_t h = w.heads.first; h < w.heads.end; h++) {
            const attn_recurrent_head head = chunk_of(&w, h, t, end);
            if (h + 1 < w.heads.end)
                look_ahead(&w, h + 1, t, end, true, false);
            else
                look_ahead(&w, w.heads.first, end, attn_smaller(end + ATTN_CHUNK, T), true, false);
            r->advance(&head, kept_state(&w, h, before), kept_state(&w, h, kept));
        }
    }
    for (size_t end = T, t; end > 0; end = t) {
        t = attn_chunk_start(end, w.documents);
        const bool ends = is_document_end(&w, end);
        const size_t after = kept;
        if (!ends) kept--;
        for (size_t h = w.heads.first; h < w.heads.end; h++) {
            const attn_recurrent_head head = chunk_of(&w, h, t, end);
            if (h + 1 < w.heads.end)
                look_ahead(&w, h + 1, t, end, true, true);
            else
                look_ahead(&w, w.heads.first, t - attn_smaller(ATTN_CHUNK, t), t, true, true);
            backward_chunk(&w, &head, is_document_start(&w, t) ? 0 : kept, ends, after);
        }
    }
    attn_work_add(&j->tally.of[worker], w.work);
}
