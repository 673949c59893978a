/* nystrom: backward. The landmarks' sums are computed again and B kept for each number m of
 * landmarks; then the segments are walked in reverse. With P, F the softmaxes of a block:
 *
 *     dlogit = w (1 - w) dO . (near - far)          the weight w of near against far
 *     dS_near = P o (w dO V^T - w dO . near + dlogit)
 *     dS_far  = F o ((1 - w) dO M^T - (1 - w) dO . far - dlogit),   dM = F^T ((1 - w) dO)
 *     dZ = dM B^T,  dB = Z^T dM,  dA by pseudo_inverse.h, and through its softmax
 *
 * B_m[l] is landmark l's softmax, with maximum c_m and sum l_m, over the keys before segment m: one
 * key of segment g serves all B_m[l] with m > g and m > l. Walking m down, these are gathered in
 *
 *     G[l] = sum_m dB_m[l] exp(c - c_m) / l_m,   H[l] the same of dB_m[l] . B_m[l],
 *
 * c being the maximum of the last m that was added, so that with e = exp(s - c) the key gets
 * dv = e G, ds = e (G . v - H), and no exponential exceeds 1. */
#include "mechanisms/nystrom.h"
#include "mechanisms/pseudo_inverse.h"
#include "mechanisms/tile_engine.h"

#include <math.h>
#include <string.h>

/* Where a document's gradients go. */
typedef struct gradients {
    float *dq, *dk, *dv;
    const float *d_o;
    float *taps; /* the head's part of dconv */
} gradients;

/* P V / l of a block whose scores are in `s`, which becomes exp(scale s - top). */
static void attend_again(const attn_nystrom_job *j, size_t ni, size_t n, float *s, size_t s_row,
                         const float *top, const float *total, const float *values,
                         size_t values_row, float *room_total, float *correction, float *room_top,
                         float *o)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const size_t d = j->z.d;
    memcpy(room_top, top, ni * sizeof *top);
    memset(room_total, 0, ni * sizeof *room_total);
    kernels->online_softmax(ni, n, j->z.scale, s, s_row, room_top, room_total, correction);
    kernels->product(ni, d, n, s, s_row, 1, values, values_row, o, d, false);
    for (size_t i = 0; i < ni; i++) kernels->scale(d, 1.0f / total[i], o + i * d);
}

/* dP = x values^T by its transpose, then dS = P o (dP - delta + shift) in its place, where x and
 * shift are divided by l already and p by nothing. delta = rowsum(P o dP): exact for a row of one. */
static void score_gradient(const attn_nystrom_job *j, size_t ni, size_t n, const float *x,
                           const float *values_t, size_t values_row, const float *p, float *ds,
                           size_t row, const float *total, const float *shift)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const size_t d = j->z.d;
    kernels->product(ni, n, d, x, d, 1, values_t, values_row, ds, row, false);
    for (size_t i = 0; i < ni; i++) {
        const float *pi = p + i * row;
        float *dsi = ds + i * row;
        const float delta = kernels->dot(n, pi, dsi) / total[i] - shift[i];
        kernels->softmax_gradient(n, 1.0f, pi, dsi, delta, dsi);
    }
}

/* One block of queries that sees `near` keys of its own and m landmarks. */
static void backward_block(const attn_nystrom_job *j, const attn_nystrom_document *x,
                           const gradients *g, size_t t, size_t near, size_t m)
{
    const attn_core_call *call = j->call;
    const attn_kernels *kernels = call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, N = z->marks, n = z->block, row = call->row, T = call->length;
    const size_t ni = attn_smaller(n, x->n - t);
    const float *kept = x->kept + x->first + t;
    const float *q = x->q + t * row, *v = x->v + t * row, *d_o = g->d_o + t * call->o_row;
    float *dq = g->dq + t * row, *shift_near = r->row[1], *shift_far = r->row[3];
    attn_nystrom_scores(j, x, t, ni, near, m);
    if (near)
        attend_again(j, ni, near, r->near, n, kept, kept + T, v, row, r->row[1], r->correction,
                     r->row[0], r->o_near);
    if (m)
        attend_again(j, ni, m, r->far, N, kept + 2 * T, kept + 3 * T, r->m, d, r->row[3],
                     r->correction, r->row[2], r->o_far);
    for (size_t i = 0; i < ni; i++) {
        const float *doi = d_o + i * call->o_row;
        const float l = kept[T + i], l_far = kept[3 * T + i];
        const float near_part = near ? kernels->dot(d, doi, r->o_near + i * d) : 0.0f;
        const float far_part = m ? kernels->dot(d, doi, r->o_far + i * d) : 0.0f;
        const float w = !m      ? 1.0f
                        : !near ? 0.0f
                                : attn_nystrom_near_weight(z, kept[i], l, kept[2 * T + i], l_far);
        const float dlogit = (near_part - far_part) * w * (1.0f - w);
        if (near) {
            memcpy(r->do_near + i * d, doi, d * sizeof *doi);
            kernels->scale(d, w / l, r->do_near + i * d);
            shift_near[i] = dlogit / l;
        }
        if (m) {
            memcpy(r->do_far + i * d, doi, d * sizeof *doi);
            kernels->scale(d, (1.0f - w) / l_far, r->do_far + i * d);
            shift_far[i] = -dlogit / l_far;
        }
    }
    if (near) {
        kernels->transpose(near, d, v, row, r->turned, n);
        score_gradient(j, ni, near, r->do_near, r->turned, n, r->near, r->d_near, n, kept + T,
                       shift_near);
        kernels->product(near, d, ni, r->near, 1, n, r->do_near, d, g->dv + t * row, row, true);
        kernels->product(near, d, ni, r->d_near, 1, n, q, row, g->dk + t * row, row, true);
        kernels->product(ni, d, near, r->d_near, n, 1, x->k + t * row, row, dq, row, false);
    }
    if (m) {
        score_gradient(j, ni, m, r->do_far, r->m_t, N, r->far, r->d_far, N, kept + 3 * T,
                       shift_far);
        kernels->product(m, d, ni, r->far, 1, N, r->do_far, d, r->dm, d, true);
        kernels->product(m, d, ni, r->d_far, 1, N, q, row, r->dk_mark, d, true);
        kernels->product(ni, d, m, r->d_far, N, 1, r->k_mark, d, dq, row, near > 0);
    }
    attn_work_add(x->work, attn_nystrom_block_gradient_work(z, ni, near, m));
}

/* From dM to dB, which joins G and H, and through the inverse and A to the landmarks. */
static void backward_stage(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t m,
                           const double *inverse, size_t stage)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, N = z->marks, wide_row = attn_pseudo_inverse_row(m);
    for (size_t l = 0; l < m; l++)
        for (size_t i = 0; i < d; i++) {
            r->dm_wide[l * d + i] = (double)r->dm[l * d + i];
            r->b_wide_t[i * m + l] = r->b_wide[l * d + i];
        }
    kernels->product_double(m, m, d, r->dm_wide, d, 1, r->b_wide_t, m, r->dz, wide_row, false);
    kernels->product_double(m, d, m, inverse, 1, wide_row, r->dm_wide, d, r->db_wide, d, false);
    attn_pseudo_inverse_gradient(kernels, m, r->a, r->inverse, r->dz, r->da);
    for (size_t i = 0; i < m; i++) {
        const double *a = r->a + i * wide_row, *da = r->da + i * wide_row;
        double along = 0.0;
        for (size_t k = 0; k < m; k++) along += a[k] * da[k];
        for (size_t k = 0; k < m; k++) r->a_scores[i * N + k] = (float)(a[k] * (da[k] - along));
    }
    kernels->product(m, d, m, r->a_scores, N, 1, r->k_mark, d, r->dq_mark, d, true);
    kernels->product(m, d, m, r->a_scores, 1, N, r->q_mark, d, r->dk_mark, d, true);
    for (size_t l = 0; l < m; l++) {
        const float top = r->stage_top[stage + l], inverse_total = 1.0f / r->stage_total[stage + l];
        const float lower = expf(top - r->reference[l]);
        float *db = r->dm + l * d; /* dM is done with */
        for (size_t i = 0; i < d; i++) db[i] = (float)r->db_wide[l * d + i];
        kernels->scale(d, lower, r->g + l * d);
        kernels->add_scaled(d, inverse_total, db, r->g + l * d);
        r->h[l] =
            lower * r->h[l] + inverse_total * kernels->dot(d, db, r->stage_b + (stage + l) * d);
        r->reference[l] = top;
    }
    attn_work_add(x->work, attn_nystrom_stage_gradient_work(z, m));
}

/* What the keys and values of the block at t get from all landmarks' softmaxes, and these. */
static void backward_keys(const attn_nystrom_job *j, const attn_nystrom_document *x,
                          const gradients *g, size_t t, size_t marks)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, row = j->call->row, n = attn_smaller(z->block, x->n - t), w = z->block;
    kernels->product(marks, n, d, r->q_mark, d, 1, r->k_t + t * d, w, r->far, w, false);
    kernels->transpose(n, d, x->v + t * row, row, r->turned, w);
    kernels->product(marks, n, d, r->g, d, 1, r->turned, w, r->d_far, w, false);
    kernels->online_softmax_gradient(marks, n, z->scale, r->reference, r->h, r->far, w, r->d_far,
                                     w);
    kernels->product(n, d, marks, r->far, 1, w, r->g, d, g->dv + t * row, row, true);
    kernels->product(n, d, marks, r->d_far, 1, w, r->q_mark, d, g->dk + t * row, row, true);
    kernels->product(marks, d, n, r->d_far, w, 1, x->k + t * row, row, r->dq_mark, d, true);
    attn_work_add(x->work, attn_nystrom_key_gradient_work(z, marks, n));
}

/* dv through the convolution, and its own gradient: sums along the diagonals of dO V^T. */
static void backward_convolution(const attn_nystrom_job *j, const attn_nystrom_document *x,
                                 const gradients *g)
{
    const attn_core_call *call = j->call;
    const attn_kernels *kernels = call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, row = call->row, width = z->block + z->kernel,
                 right = z->kernel - 1 - z->left;
    for (size_t i = 0; i < z->kernel; i++) r->taps[i] = x->taps[z->kernel - 1 - i];
    for (size_t t = 0; t < x->n; t++) { /* outputs [first, end) read value t */
        const size_t first = t > right ? t - right : 0;
        const size_t end = attn_smaller(x->n, t + z->left + 1);
        kernels->product(1, d, end - first, r->taps + (first + right - t), 1, 1,
                         g->d_o + first * call->o_row, call->o_row, g->dv + t * row, row, true);
    }
    uint64_t pairs = 0;
    for (size_t t = 0, first, end; t < x->n; t += z->block) {
        const size_t ni = attn_smaller(z->block, x->n - t);
        attn_nystrom_window(z, x->n, t, ni, &first, &end);
        kernels->transpose(end - first, d, x->v + first * row, row, r->turned, width);
        kernels->product(ni, end - first, d, g->d_o + t * call->o_row, call->o_row, 1, r->turned,
                         width, r->window, width, false);
        pairs += ni * (end - first);
        for (size_t i = 0; i < ni; i++) {
            size_t from, to;
            attn_nystrom_window(z, x->n, t + i, 1, &from, &to);
            kernels->add(to - from, r->window + i * width + (from - first),
                         g->taps + (from + z->left - t - i));
        }
    }
    const uint64_t taps = attn_nystrom_taps(z, x->n);
    x->work->matmul += 2 * (taps + pairs) * d;
    x->work->other += taps;
}

/* The landmarks' gradients to their tokens, and the scale of the scores. */
static void spread(const attn_nystrom_job *j, const attn_nystrom_document *x, const gradients *g,
                   size_t marks)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const size_t d = z->d, row = j->call->row;
    kernels->scale(marks * d, 1.0f / (float)z->segment, x->room->dq_mark);
    kernels->scale(marks * d, 1.0f / (float)z->segment, x->room->dk_mark);
    for (size_t t = 0; t < x->n; t++) {
        const size_t l = t / z->segment;
        if (l < marks) {
            kernels->add(d, x->room->dq_mark + l * d, g->dq + t * row);
            kernels->add(d, x->room->dk_mark + l * d, g->dk + t * row);
        }
        kernels->scale(d, z->scale, g->dq + t * row);
        kernels->scale(d, z->scale, g->dk + t * row);
    }
    x->work->other += 2 * (marks * z->segment * d + marks * d) + 2 * x->n * d;
}

/* B, its maxima and sums for m landmarks, to row `stage` and those behind it. */
static void keep_stage(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t m,
                       size_t stage)
{
    const attn_nystrom_room *r = x->room;
    attn_nystrom_average(j, x, m, r->stage_b + stage * j->z.d);
    memcpy(r->stage_top + stage, r->top, m * sizeof *r->top);
    memcpy(r->stage_total + stage, r->total, m * sizeof *r->total);
}

/* Z and M of m landmarks, with dM cleared; G and H start with the last stage. */
static const double *enter_stage(const attn_nystrom_job *j, const attn_nystrom_document *x,
                                 size_t m, size_t stage)
{
    const attn_nystrom_room *r = x->room;
    const size_t d = j->z.d;
    const double *inverse = attn_nystrom_inverse(j, x, m, r->stage_b + stage * d);
    j->call->context->kernels->transpose(m, d, r->m, d, r->m_t, j->z.marks);
    memset(r->dm, 0, m * d * sizeof *r->dm);
    return inverse;
}

static void clear_gradients(const attn_nystrom_job *j, const attn_nystrom_document *x,
                            const gradients *g, size_t marks, size_t stage)
{
    const attn_nystrom_room *r = x->room;
    const size_t d = j->z.d, row = j->call->row;
    for (size_t t = 0; t < x->n; t++) {
        memset(g->dk + t * row, 0, d * sizeof *g->dk);
        memset(g->dv + t * row, 0, d * sizeof *g->dv);
    }
    memset(r->dq_mark, 0, marks * d * sizeof *r->dq_mark);
    memset(r->dk_mark, 0, marks * d * sizeof *r->dk_mark);
    memset(r->g, 0, marks * d * sizeof *r->g);
    memset(r->h, 0, marks * sizeof *r->h);
    memcpy(r->reference, r->stage_top + stage, marks * sizeof *r->reference);
}

static void backward_causal(const attn_nystrom_job *j, const attn_nystrom_document *x,
                            const gradients *g)
{
    const size_t s = j->z.segment, marks = (x->n - 1) / s;
    for (size_t c = 0; c <= marks; c++) {
        attn_nystrom_turn_keys(j, x, c * s);
        if (c == 0) continue;
        attn_nystrom_advance(j, x, c);
        keep_stage(j, x, c, c * (c - 1) / 2);
    }
    clear_gradients(j, x, g, marks, marks ? marks * (marks - 1) / 2 : 0);
    for (size_t c = marks + 1; c-- > 0;) {
        const size_t stage = c ? c * (c - 1) / 2 : 0, near = attn_smaller(s, x->n - c * s);
        const double *inverse = c ? enter_stage(j, x, c, stage) : NULL;
        backward_block(j, x, g, c * s, near, c);
        if (c == 0) break;
        backward_stage(j, x, c, inverse, stage);
        backward_keys(j, x, g, (c - 1) * s, marks);
    }
    spread(j, x, g, marks);
}

static void backward_full(const attn_nystrom_job *j, const attn_nystrom_document *x,
                          const gradients *g)
{
    const size_t marks = j->z.marks, n = j->z.block;
    attn_nystrom_gather(j, x);
    keep_stage(j, x, marks, 0);
    clear_gradients(j, x, g, marks, 0);
    const double *inverse = enter_stage(j, x, marks, 0);
    for (size_t t = 0; t < x->n; t += n) backward_block(j, x, g, t, 0, marks);
    backward_stage(j, x, marks, inverse, 0);
    for (size_t t = 0; t < x->n; t += n) backward_keys(j, x, g, t, marks);
    spread(j, x, g, marks);
}

static void backward_head(void *argument, size_t index, size_t worker)
{
    attn_nystrom_job *j = argument;
    const attn_core_call *call = j->call;
    const attn_nystrom_sizes *z = &j->z;
    const size_t parts = call->batch * call->layer->heads * z->kernel;
    float *memory = call->scratch + parts + worker * attn_nystrom_worker(z, true);
    attn_nystrom_room room = attn_nystrom_divide(memory, z, true);
    attn_nystrom_document x = {.room = &room, .work = &j->tally.of[worker]};
    gradients g = {.taps = call->scratch + index * z->kernel};
    memset(g.taps, 0, z->kernel * sizeof *g.taps);
    while (attn_nystrom_next(j, index, &x)) {
        const ptrdiff_t at = x.q - call->q;
        g.dq = call->dq + at;
        g.dk = call->dk + at;
        g.dv = call->dv + at;
        g.d_o = call->d_o + (x.o - call->o);
        if (z->is_causal)
            backward_causal(j, &x, &g);
        else
            backward_full(j, &x, &g);
        backward_convolution(j, &x, &g);
    }
}

void attn_nystrom_backward(const attn_core_call *call)
{
    const attn_layer *layer = call->layer;
    const size_t count = layer->heads * layer->options[ATTN_NYSTROM_KERNEL].size;
    float *gradient = call->gradients + attn_layer_offset(layer, "conv.weight");
    attn_nystrom_run(call, backward_head, call->length);
    memset(gradient, 0, count * sizeof *gradient);
    for (size_t b = 0; b < call->batch; b++)
        call->context->kernels->add(count, call->scratch + b * count, gradient);
    call->context->work.other += call->batch * count;
}
