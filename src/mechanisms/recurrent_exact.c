/* The first outputs of a document in double. See recurrent_exact.h.
 *
 * With tokens counted from the document's first, and D_ts the decays of s + 1 .. t:
 *
 *     u_t = b_t (v_t [- sum_{s < t} (k_t . D_ts k_s) u_s]),   o_t = sum_{s <= t} (q_t . D_ts k_s) u_s
 *
 * in which [ ] is the delta rule's and b_t is 1 elsewhere. */
#include "mechanisms/recurrent_exact.h"

#include "mechanisms/tile_engine.h"

#include <math.h>

/* From the FIRST-th on, o is a sum of more vectors than will point the same way by chance. */
enum { FIRST = 4 };

static const double lost = 4.0;        /* terms over |o|: two bits */
static const double norm_floor = 1e-5; /* the norm's, beside the mean square of o */

/* ---- which ------------------------------------------------------------------------------- */

/* By the root of the sum of squares of all products q_i k_i v_j that make o, which is what |o| is
 * when they are independent. Decays and b are below 1 and left out. */
static bool is_cancelled(const attn_recurrent_head *head, size_t t, const float *o)
{
    const attn_recurrent_shape *shape = &head->run->shape;
    const size_t dk = shape->key_dim, dv = shape->value_dim;
    /* forward() has left them */
    const float *q = head->room, *k = q + ATTN_CHUNK * dk, *v = k + ATTN_CHUNK * dk;
    double terms = 0.0;
    for (size_t s = 0; s <= t; s++) {
        double squares = 0.0;
        for (size_t i = 0; i < dk; i++) {
            const double product = (double)q[t * dk + i] * (double)k[s * dk + i];
            squares += product * product;
        }
        terms += squares * head->on.kernels->sum_squares(dv, v + s * dv);
    }
    const double kept = head->on.kernels->sum_squares(dv, o + t * dv) + (double)dv * norm_floor;
    return terms > lost * lost * kept;
}

/* ---- again ------------------------------------------------------------------------------- */

typedef struct places {
    double *keys, *updates; /* [FIRST] rows: D_ts k_s, u_s */
    double *q, *decay, *more, *o;
} places;

static size_t more_of(const attn_layer *layer)
{
    const attn_recurrence *r = layer->mechanism->recurrence;
    return r->more ? r->more(layer) : 0;
}

static size_t double_count(const attn_layer *layer)
{
    const size_t dk = layer->mechanism->recurrence->key_dim(layer), dv = layer->head_dim;
    return FIRST * (dk + dv) + 2 * dk + more_of(layer) + dv;
}

size_t attn_recurrent_mend_room(const attn_layer *layer)
{
    return 2 * double_count(layer) + 1; /* one to align */
}

static places divide(const attn_layer *layer, float *room)
{
    const size_t dk = layer->mechanism->recurrence->key_dim(layer), dv = layer->head_dim;
    double *at = (double *)(void *)((uintptr_t)room % sizeof *at ? room + 1 : room);
    places p;
    p.keys = at;
    p.updates = p.keys + FIRST * dk;
    p.q = p.updates + FIRST * dv;
    p.decay = p.q + dk;
    p.more = p.decay + dk;
    p.o = p.more + more_of(layer);
    return p;
}

/* Columns from `column` on of x W^T, for token t. */
static void project(const attn_recurrent_head *head, size_t t, size_t column, size_t count,
                    double *to)
{
    const attn_call *call = head->run->call;
    const size_t C = head->run->layer->d_model;
    const float *w = call->parameters + attn_layer_offset(head->run->layer, "wq.weight");
    const float *x = call->x + (head->first + t) * C;
    for (size_t i = 0; i < count; i++)
        to[i] = head->on.kernels->dot_double(C, x, w + (column + i) * C);
}

static double dot(size_t n, const double *x, const double *y)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

static void add_scaled(size_t n, double a, const double *x, double *y)
{
    for (size_t i = 0; i < n; i++) y[i] += a * x[i];
}

/* q_t, and keys and updates up to t; those before are there. */
static void enter(const attn_recurrent_head *head, const places *p, size_t t)
{
    const attn_recurrent_shape *shape = &head->run->shape;
    const attn_recurrence *r = head->run->layer->mechanism->recurrence;
    const size_t dk = shape->key_dim, dv = shape->value_dim;
    double *k = p->keys + t * dk, *u = p->updates + t * dv;
    attn_recurrent_token token = {
        .position = t, .q = p->q, .k = k, .v = u, .more = p->more, .decay = p->decay, .rate = 1.0};
    project(head, t, shape->q + head->h * dk, dk, p->q);
    project(head, t, shape->k + head->h * dk, dk, k);
    project(head, t, shape->v + head->h * dv, dv, u);
    project(head, t, shape->more, more_of(head->run->layer), p->more);
    for (size_t i = 0; i < dk; i++) p->decay[i] = 1.0;
    r->token(head, &token);
    for (size_t s = 0; s < t; s++) {
        double *before = p->keys + s * dk;
        for (size_t i = 0; i < dk; i++) before[i] *= p->decay[i];
        if (r->corrects) add_scaled(dv, -dot(dk, k, before), p->updates + s * dv, u);
    }
    for (size_t j = 0; j < dv; j++) u[j] *= token.rate;
}

static void compute(const attn_recurrent_head *head, const places *p, size_t t, float *o)
{
    const size_t dk = head->run->shape.key_dim, dv = head->run->shape.value_dim;
    for (size_t j = 0; j < dv; j++) p->o[j] = 0.0;
    for (size_t s = 0; s <= t; s++)
        add_scaled(dv, dot(dk, p->q, p->keys + s * dk), p->updates + s * dv, p->o);
    for (size_t j = 0; j < dv; j++) o[t * dv + j] = (float)p->o[j];
}

/* Those tokens alone that need it: whether an early one is computed again must not depend on a
 * later one. */
void attn_recurrent_mend(const attn_recurrent_head *head, float *room, float *o)
{
    const places p = divide(head->run->layer, room);
    size_t entered = 0;
    for (size_t t = 0; t < head->length && t < FIRST; t++) {
        if (!is_cancelled(head, t, o)) continue;
        for (; entered <= t; entered++) enter(head, &p, entered);
        compute(head, &p, t, o);
    }
}
