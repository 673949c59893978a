/* The recurrence engine: backward. See recurrence_engine.h for the equations.
 *
 * The heads of a task walk together: forward for the states before chunks, then back, and a chunk
 * gets all of its gradients at once. Bidirectional: the state is that of all tokens, and a walk
 * between the two takes the gradients of queries and with them the whole dS.
 *
 * A chunk that a key cuts, since a reference rises there, is done in parts, last part first; the
 * parts before the one at hand are absorbed again. */
#include "base/threads.h"
#include "mechanisms/recurrence_chunk.h"

#include <string.h>

typedef struct backward_job {
    const attn_core_call *call;
    const attn_feature_map *map;
    attn_recurrence_sizes sizes;
    size_t together; /* heads of a task */
    attn_tally tally;
} backward_job;

/* A state: S^T [d][m], z [m], and the map's own. */
static size_t state_count(attn_recurrence_sizes s)
{
    return s.m * s.d + s.m + s.own;
}

/* States kept of a head: 0 is zeros; each other stands for a whole chunk before it, or for all. */
static size_t states_kept(size_t length)
{
    return 2 + (length - 1) / ATTN_CHUNK;
}

/* A worker's memory. */
typedef struct room {
    size_t m, d;
    float *q, *k, *v, *dnum; /* [C][m] and [C][d]; dv in place of v */
    float *a, *da, *dden;    /* [C][C], [C] */
    float *turned, *sum;     /* a transpose [max(m, d)][C], a sum [C][m] */
    float *ds_t;             /* [d][m] */
    float *carry;            /* [m]: what the part at hand multiplies the state by */
    float *part;             /* the state before that part */
    float *heads;            /* of each head: dS, dz, and its states */
    attn_ahead ahead;
} room;

static size_t head_count(attn_recurrence_sizes s, size_t length)
{
    return s.m * s.d + s.m + states_kept(length) * state_count(s);
}

static room divide_room(float *memory, attn_recurrence_sizes s)
{
    const size_t C = ATTN_CHUNK;
    room r = {.m = s.m, .d = s.d};
    r.q = attn_cut(&memory, C * s.m);
    r.k = attn_cut(&memory, C * s.m);
    r.v = attn_cut(&memory, C * s.d);
    r.dnum = attn_cut(&memory, C * s.d);
    r.a = attn_cut(&memory, C * C);
    r.da = attn_cut(&memory, C * C);
    r.dden = attn_cut(&memory, C);
    r.turned = attn_cut(&memory, C * (s.m > s.d ? s.m : s.d));
    r.sum = attn_cut(&memory, C * s.m);
    r.ds_t = attn_cut(&memory, s.m * s.d);
    r.carry = attn_cut(&memory, s.m);
    r.part = attn_cut(&memory, state_count(s));
    r.heads = memory;
    return r;
}

size_t attn_recurrence_backward_worker(attn_recurrence_sizes s, size_t length, size_t together)
{
    const size_t C = ATTN_CHUNK, wide = s.m > s.d ? s.m : s.d;
    return C * (3 * s.m + 2 * s.d + 2 * C + 1 + wide) + s.m * s.d + s.m + state_count(s) +
           together * head_count(s, length);
}

/* One head's part of a task: a chunk, or a part of it, [t, t + c). */
typedef struct place {
    const backward_job *job;
    room *room;
    attn_feature_walk walk;
    size_t index;      /* of the head in the batch */
    size_t t, c;       /* in the sequence */
    size_t row, o_row; /* where the head's first row lies, in q, k, v and in o */
    bool is_first;     /* t starts a document */
    bool inner;
    float *ds, *dz;
} place;

static const float *row_of(const place *p, const float *x)
{
    return x + p->row + p->t * p->job->call->row;
}

/* ---- states ------------------------------------------------------------------------------ */

/* K of tokens from t up to `end`, as many as fit the reference of `state`, which is carried to it;
 * returns whether it had to be. */
static bool take_keys(place *p, size_t end, float *state)
{
    const attn_core_call *call = p->job->call;
    const size_t m = p->room->m, d = p->room->d;
    bool has_carry = false;
    p->walk.own = state + m * d + m;
    p->c = p->job->map->keys(&p->walk, end - p->t, p->is_first, row_of(p, call->k), p->room->k,
                             p->room->carry, &has_carry);
    if (!has_carry) return false;
    for (size_t i = 0; i < d + 1; i++) /* z lies behind S^T */
        for (size_t r = 0; r < m; r++) state[i * m + r] *= p->room->carry[r];
    p->walk.work->other += m * d + m;
    return true;
}

/* S^T += V^T K, z += colsum(K) */
static void absorb(const place *p, float *state)
{
    const attn_kernels *kernels = p->job->call->kernels;
    const size_t m = p->room->m, d = p->room->d;
    kernels->copy_rows(p->c, d, 1.0f, NULL, row_of(p, p->job->call->v), p->job->call->row,
                       p->room->v, d);
    attn_ahead_product(kernels, &p->room->ahead, d, m, p->c, p->room->v, 1, d, p->room->k, m, state,
                       m, true);
    attn_add_rows(kernels, p->c, m, NULL, p->room->k, state + m * d);
}

/* The state behind the chunk up to `end`, from that before it. */
static void advance(place *p, size_t end, const float *before, float *state)
{
    memcpy(state, before, state_count(p->job->sizes) * sizeof *state);
    for (const size_t first = p->t; p->t < end; p->t += p->c) {
        p->is_first = p->is_first && p->t == first;
        take_keys(p, end, state);
        absorb(p, state);
    }
}

/* ---- gradients of a part ----------------------------------------------------------------- */

/* Values, dnum and dden. */
static void load_values(const place *p)
{
    const attn_core_call *call = p->job->call;
    const attn_kernels *kernels = call->kernels;
    room *r = p->room;
    const size_t d = r->d, o_at = p->o_row + p->t * call->o_row;
    const float *den = call->saved + p->index * call->length + p->t;
    float inverse[ATTN_CHUNK];
    for (size_t i = 0; i < p->c; i++) inverse[i] = 1.0f / den[i];
    kernels->copy_rows(p->c, d, 1.0f, NULL, row_of(p, call->v), call->row, r->v, d);
    kernels->copy_rows(p->c, d, 1.0f, inverse, call->d_o + o_at, call->o_row, r->dnum, d);
    for (size_t i = 0; i < p->c; i++) {
        const float *o = call->o + o_at + i * call->o_row, *dnum = r->dnum + i * d;
        float dot = 0.0f;
        if (i + ATTN_ROWS_AHEAD < p->c) attn_fetch_rows(1, d, o + ATTN_ROWS_AHEAD * call->o_row, 0);
        if (p->is_first && i == 0) /* o is v: in the order of dA, so that both cancel */
            kernels->product(1, 1, d, dnum, d, 1, o, 1, &dot, 1, false);
        else
            dot = kernels->dot(d, dnum, o);
        r->dden[i] = -dot;
    }
}

/* dQ, through the feature map, to the call's dq. */
static void query_gradient(const place *p, const float *state)
{
    const attn_core_call *call = p->job->call;
    const attn_kernels *kernels = call->kernels;
    room *r = p->room;
    const size_t m = r->m, d = r->d, c = p->c;
    float *dq = r->sum, *da = r->da;
    const float *z = state + m * d;
    attn_ahead_product(kernels, &r->ahead, c, m, d, r->dnum, d, 1, state, m, dq, m, false);
    if (p->inner) {
        kernels->transpose(c, d, r->v, d, r->turned, ATTN_CHUNK);
        attn_ahead_product(kernels, &r->ahead, c, c, d, r->dnum, d, 1, r->turned, ATTN_CHUNK, da,
                           ATTN_CHUNK, false);
        for (size_t i = 0; i < c; i++)
            for (size_t j = 0; j < c; j++) da[i * ATTN_CHUNK + j] += r->dden[i];
        kernels->keep_lower(c, c, NULL, da, ATTN_CHUNK);
        attn_ahead_product(kernels, &r->ahead, c, m, c, da, ATTN_CHUNK, 1, r->k, m, dq, m, true);
    }
    for (size_t i = 0; i < c; i++) kernels->add_scaled(m, r->dden[i], z, dq + i * m);
    p->job->map->queries_gradient(&p->walk, c, row_of(p, call->q), r->q, dq,
                                  call->dq + p->row + p->t * call->row);
}

/* dS += Q^T dnum, dz += Q^T dden */
static void absorb_gradient(const place *p)
{
    const attn_kernels *kernels = p->job->call->kernels;
    room *r = p->room;
    attn_ahead_product(kernels, &r->ahead, r->m, r->d, p->c, r->q, 1, r->m, r->dnum, r->d, p->ds,
                       r->d, true);
    attn_add_rows(kernels, p->c, r->m, r->dden, r->q, p->dz);
}

/* dK and dV. */
static void key_gradient(const place *p)
{
    const attn_core_call *call = p->job->call;
    const attn_kernels *kernels = call->kernels;
    room *r = p->room;
    const size_t m = r->m, d = r->d, c = p->c, row = p->row + p->t * call->row;
    float *dk = r->sum, *dv = r->v; /* in place of v, once dk has read it */
    kernels->transpose(m, d, p->ds, d, r->ds_t, m);
    attn_ahead_product(kernels, &r->ahead, c, m, d, r->v, d, 1, r->ds_t, m, dk, m, false);
    attn_ahead_product(kernels, &r->ahead, c, d, m, r->k, m, 1, p->ds, d, dv, d, false);
    if (p->inner) {
        kernels->transpose(c, m, r->k, m, r->turned, ATTN_CHUNK);
        attn_ahead_product(kernels, &r->ahead, c, c, m, r->q, m, 1, r->turned, ATTN_CHUNK, r->a,
                           ATTN_CHUNK, false);
        kernels->keep_lower(c, c, NULL, r->a, ATTN_CHUNK);
        attn_ahead_product(kernels, &r->ahead, c, m, c, r->da, 1, ATTN_CHUNK, r->q, m, dk, m, true);
        attn_ahead_product(kernels, &r->ahead, c, d, c, r->a, 1, ATTN_CHUNK, r->dnum, d, dv, d,
                           true);
    }
    kernels->copy_rows(c, d, 1.0f, NULL, dv, d, call->dv + row, call->row);
    for (size_t i = 0; i < c; i++) kernels->add(m, p->dz, dk + i * m);
    p->job->map->keys_gradient(&p->walk, c, call->k + row, r->k, dk, call->dk + row);
}

/* All gradients of a part whose K and state are there. */
static void part_gradients(const place *p, bool has_carry, const float *state)
{
    const attn_core_call *call = p->job->call;
    const attn_kernels *kernels = call->kernels;
    room *r = p->room;
    if (p->inner) {
        p->job->map->queries(&p->walk, p->c, row_of(p, call->q), r->q);
        load_values(p);
        query_gradient(p, state);
    } else {
        kernels->copy_rows(p->c, r->d, 1.0f, NULL, row_of(p, call->v), call->row, r->v, r->d);
    }
    key_gradient(p);
    if (p->inner) absorb_gradient(p);
    if (p->is_first) memset(p->ds, 0, (r->m * r->d + r->m) * sizeof *p->ds); /* dz lies behind */
    if (!has_carry) return;
    kernels->scale_rows(r->m, r->d, r->carry, p->ds, r->d);
    for (size_t i = 0; i < r->m; i++) p->dz[i] *= r->carry[i];
    p->walk.work->other += r->m * r->d + r->m;
}

/* Of the chunk up to `end`, from the state before it. */
static void chunk_gradients(place *p, size_t end, const float *before)
{
    size_t starts[ATTN_CHUNK], n = 0;
    const size_t first = p->t, state_size = state_count(p->job->sizes) * sizeof(float);
    const bool starts_document = p->is_first;
    float *state = p->room->part;
    bool has_carry = false;
    memcpy(state, before, state_size);
    for (;;) { /* once, but for a key that makes the reference rise */
        p->is_first = starts_document && p->t == first;
        has_carry = take_keys(p, end, state);
        starts[n++] = p->t;
        if (p->t + p->c == end) break;
        absorb(p, state);
        p->t += p->c;
    }
    part_gradients(p, has_carry, state);
    while (--n > 0) {
        memcpy(state, before, state_size);
        for (size_t i = 0; i < n; i++) {
            p->t = starts[i];
            p->is_first = starts_document && i == 0;
            has_carry = take_keys(p, starts[i + 1], state);
            if (i + 1 < n) absorb(p, state);
        }
        part_gradients(p, has_carry, state);
    }
}

/* ---- a task ------------------------------------------------------------------------------ */

typedef struct task_walk {
    backward_job *job;
    room room;
    attn_head_range heads;
    const uint32_t *documents;
    attn_work work; /* a worker's own cache line until the task ends */
} task_walk;

static float *head_memory(const task_walk *w, size_t h)
{
    return w->room.heads + (h - w->heads.first) * head_count(w->job->sizes, w->job->call->length);
}

/* State number i of head h; dS and dz lie before them. */
static float *kept_state(const task_walk *w, size_t h, size_t i)
{
    const attn_recurrence_sizes s = w->job->sizes;
    return head_memory(w, h) + s.m * s.d + s.m + i * state_count(s);
}

static bool is_document_start(const task_walk *w, size_t t)
{
    return t == 0 || (w->documents && w->documents[t] == t);
}

static place place_of(task_walk *w, size_t h, size_t t)
{
    const attn_core_call *call = w->job->call;
    const attn_recurrence_sizes s = w->job->sizes;
    const size_t first = w->heads.sequence * call->length;
    float *ds = head_memory(w, h);
    return (place){.job = w->job,
                   .room = &w->room,
                   .walk = {.call = call, .shared = call->scratch, .work = &w->work},
                   .index = w->heads.sequence * call->layer->heads + h,
                   .t = t,
                   .row = first * call->row + h * s.d,
                   .o_row = first * call->o_row + h * s.d,
                   .is_first = is_document_start(w, t),
                   .inner = attn_recurrence_inner(call->layer, call->length),
                   .ds = ds,
                   .dz = ds + s.m * s.d};
}

/* Bidirectional: dQ and the whole dS, from the state of all tokens. */
static void queries_of_all(task_walk *w, size_t kept)
{
    const attn_core_call *call = w->job->call;
    const size_t square = w->room.m * w->room.d;
    for (size_t t = 0, end; t < call->length; t = end) {
        end = attn_chunk_end(t, call->length, w->documents);
        for (size_t h = w->heads.first; h < w->heads.end; h++) {
            place p = place_of(w, h, t);
            float *state = kept_state(w, h, kept);
            p.c = end - t;
            p.walk.own = state + square + w->room.m;
            w->job->map->queries(&p.walk, p.c, row_of(&p, call->q), w->room.q);
            load_values(&p);
            query_gradient(&p, state);
            absorb_gradient(&p);
        }
    }
}

/* What head h of the chunk [t, end) will read, of keys alone or all, and write. */
static void look_ahead(task_walk *w, size_t h, size_t t, size_t end, bool is_all)
{
    const attn_core_call *call = w->job->call;
    const size_t d = w->room.d, first = w->heads.sequence * call->length + t;
    const size_t at = first * call->row + h * d, o_at = first * call->o_row + h * d;
    attn_ahead *ahead = &w->room.ahead;
    *ahead = (attn_ahead){.rows = end - t};
    if (t == end) return;
    attn_ahead_add(ahead, d, call->k + at, call->row, false);
    attn_ahead_add(ahead, d, call->v + at, call->row, false);
    if (!is_all) return;
    attn_ahead_add(ahead, d, call->q + at, call->row, false);
    attn_ahead_add(ahead, d, call->d_o + o_at, call->o_row, false);
    attn_ahead_add(ahead, d, call->o + o_at, call->o_row, false);
    attn_ahead_add(ahead, d, call->dq + at, call->row, true);
    attn_ahead_add(ahead, d, call->dv + at, call->row, true);
    attn_ahead_add(ahead, d, call->dk + at, call->row, true);
}

static void backward_heads(void *argument, size_t task, size_t worker)
{
    backward_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_recurrence_sizes s = job->sizes;
    const size_t T = call->length, count = attn_recurrence_backward_worker(s, T, job->together);
    const bool inner = attn_recurrence_inner(call->layer, T);
    task_walk w = {.job = job,
                   .room = divide_room(call->scratch + s.shared + worker * count, s),
                   .heads = attn_heads_of(task, call->layer->heads, job->together)};
    if (call->document_start) w.documents = call->document_start + w.heads.sequence * T;
    for (size_t h = w.heads.first; h < w.heads.end; h++) /* dS, dz and the first state */
        memset(head_memory(&w, h), 0, (s.m * s.d + s.m + state_count(s)) * sizeof(float));

    size_t kept = 0; /* the last state's number */
    for (size_t t = 0, end; t < T; t = end) {
        end = attn_chunk_end(t, T, w.documents);
        if (inner && (end == T || is_document_start(&w, end))) continue;
        const size_t before = is_document_start(&w, t) ? 0 : kept;
        kept++;
        for (size_t h = w.heads.first; h < w.heads.end; h++) {
            place p = place_of(&w, h, t);
            if (h + 1 < w.heads.end)
                look_ahead(&w, h + 1, t, end, false);
            else
                look_ahead(&w, w.heads.first, end, attn_smaller(end + ATTN_CHUNK, T), false);
            advance(&p, end, kept_state(&w, h, before), kept_state(&w, h, kept));
        }
    }
    if (!inner) queries_of_all(&w, kept);
    if (!inner) kept--; /* that of all tokens */
    for (size_t end = T, t; end > 0; end = t) {
        t = attn_chunk_start(end, w.documents);
        const size_t before = is_document_start(&w, t) ? 0 : kept--;
        for (size_t h = w.heads.first; h < w.heads.end; h++) {
            place p = place_of(&w, h, t);
            if (h + 1 < w.heads.end)
                look_ahead(&w, h + 1, t, end, true);
            else
                look_ahead(&w, w.heads.first, t - attn_smaller(ATTN_CHUNK, t), t, true);
            chunk_gradients(&p, end, kept_state(&w, h, before));
        }
        attn_work_add(&w.work,
                      attn_work_times(attn_recurrence_backward_chunk(
                                          s, end - t, inner,
                                          !inner || !(end == T || is_document_start(&w, end))),
                                      w.heads.end - w.heads.first));
    }
    attn_work_add(&job->tally.of[worker], w.work);
}

void attn_recurrence_backward(const attn_core_call *call)
{
    const attn_layer *layer = call->layer;
    const size_t threads = call->context->threads;
    backward_job job = {.call = call,
                        .map = layer->mechanism->features,
                        .sizes = attn_recurrence_sizes_of(layer),
                        .together = attn_heads_together(layer->heads, call->batch, threads)};
    attn_recurrence_prepare(call);
    attn_parallel(threads, attn_head_tasks(layer->heads, call->batch, job.together), backward_heads,
                  &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}

attn_work attn_recurrence_backward_chunk(attn_recurrence_sizes s, uint64_t c, bool is_causal,
                                         bool is_absorbed)
{
    attn_work work = {.matmul = 8 * c * s.m * s.d,
                      /* dnum 1, dden 2; dden z 2, dz 2 + 1; 1 / den, sign */
                      .other = c * (3 * s.d + 5 * s.m) + 2 * c};
    if (is_absorbed) {
        work.matmul += 2 * c * s.m * s.d;
        work.other += c * s.m; /* z */
    }
    if (is_causal) {
        work.matmul += c * c * (4 * s.d + 6 * s.m);
        work.other += 3 * c * c; /* dden added, two masks */
    }
    return work;
}
