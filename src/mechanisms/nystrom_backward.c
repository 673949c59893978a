/* nystrom: backward. The landmarks' sums are computed again and B kept for each number m of
 * landmarks; then the segments are walked in reverse. With P, F the softmaxes of a block:
 *
 *     D = w dO . near + (1 - w) dO . far, where dO . near = sum_j P_j (dO V^T)_j
 *     dS_near = w P o (dO V^T - D),   dS_far = (1 - w) F o (dO M^T - D),   dM = (1 - w) F^T dO
 *     dZ = dM B^T,  dB = Z^T dM,  dA by pseudo_inverse.h, and through its softmax
 *
 * B_m[l] is landmark l's softmax, with maximum c_m and sum l_m, over the keys before segment m: one
 * key of segment g serves all B_m[l] with m > g and m > l. Walking m down, these are gathered in
 *
 *     G[l] = sum_m dB_m[l] exp(c - c_m) / l_m,   H[l] the same of dB_m[l] . B_m[l],
 *
 * c being the maximum of the last m that was added, so that with e = exp(s - c) the key gets
 * dv = e G, ds = e (G . v - H), and no exponential exceeds 1. */
#include "mechanisms/head_rows.h"
#include "mechanisms/nystrom.h"
#include "mechanisms/pseudo_inverse.h"

#include <math.h>
#include <string.h>

/* Where a document's gradients go. */
typedef struct gradients {
    float *dq, *dk, *dv;
    const float *d_o;
    float *taps; /* the head's part of dconv */
} gradients;

/* Scores to exponentials with the maxima that forward found, `part` = p . dp / total of each row. */
static void weigh(const attn_nystrom_job *j, const attn_nystrom_room *r, size_t ni, size_t n,
                  float *s, const float *dp, size_t row, const float *top, const float *total,
                  float *part)
{
    const attn_kernels *kernels = j->call->context->kernels;
    memcpy(r->row[0], top, ni * sizeof *top);
    memset(part, 0, ni * sizeof *part); /* for the sums, which are known */
    kernels->online_softmax(ni, n, j->z.scale, s, row, r->row[0], part, r->correction);
    for (size_t i = 0; i < ni; i++) part[i] = kernels->dot(n, s + i * row, dp + i * row) / total[i];
}

/* p becomes by p, and dp becomes p (dp - delta). */
static void score_gradient(const attn_kernels *kernels, size_t ni, size_t n, const float *by,
                           const float *delta, float *p, float *dp, size_t row)
{
    kernels->scale_rows(ni, n, by, p, row);
    for (size_t i = 0; i < ni; i++)
        kernels->softmax_gradient(n, 1.0f, p + i * row, dp + i * row, delta[i], dp + i * row);
}

/* One block of queries that sees `near` keys of its own and m landmarks: dq, what it adds to dk and
 * dv of its keys, to dM and to dk_mark. */
static void backward_block(const attn_nystrom_job *j, const attn_nystrom_document *x,
                           const gradients *g, size_t t, size_t ni, size_t near, size_t m)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, N = z->marks, n = z->block, T = j->call->length;
    const float *kept = x->kept + x->first + t, *d_o = r->d_o + (z->kernel - 1 - z->left) * d;
    const float *const row[4] = {kept, kept + T, kept + 2 * T, kept + 3 * T};
    float *near_part = r->row[1], *far_part = r->row[3];
    attn_nystrom_scores(j, x, ni, near, m);
    attn_nystrom_shares(z, ni, near, m, row, r->near_by, r->far_by);
    if (near) {
        kernels->transpose(near, d, attn_nystrom_values(z, r), d, r->v_t, n);
        kernels->product(ni, near, d, d_o, d, 1, r->v_t, n, r->d_near, n, false);
        weigh(j, r, ni, near, r->near, r->d_near, n, row[0], row[1], near_part);
    }
    if (m) {
        kernels->product(ni, m, d, d_o, d, 1, r->m_t, N, r->d_far, N, false);
        weigh(j, r, ni, m, r->far, r->d_far, N, row[2], row[3], far_part);
    }
    for (size_t i = 0; i < ni; i++) {
        const float w = near ? r->near_by[i] * row[1][i] : 0.0f;
        r->delta[i] = !m      ? near_part[i]
                      : !near ? far_part[i]
                              : w * near_part[i] + (1.0f - w) * far_part[i];
    }
    if (near) {
        score_gradient(kernels, ni, near, r->near_by, r->delta, r->near, r->d_near, n);
        kernels->product(near, d, ni, r->near, 1, n, d_o, d, r->dv, d, true);
        kernels->product(near, d, ni, r->d_near, 1, n, r->q, d, r->dk, d, true);
        kernels->product(ni, d, near, r->d_near, n, 1, r->k, d, r->dq, d, false);
    }
    if (m) {
        score_gradient(kernels, ni, m, r->far_by, r->delta, r->far, r->d_far, N);
        kernels->product(m, d, ni, r->far, 1, N, d_o, d, r->dm, d, true);
        kernels->product(m, d, ni, r->d_far, 1, N, r->q, d, r->dk_mark, d, true);
        kernels->product(ni, d, m, r->d_far, N, 1, r->k_mark, d, r->dq, d, near > 0);
    }
    kernels->copy_rows(ni, d, z->scale, NULL, r->dq, d, g->dq + t * j->call->row, j->call->row);
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

/* What the n keys and values of a block get from all landmarks' softmaxes, and these. */
static void backward_keys(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t marks,
                          size_t n)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, w = z->block;
    kernels->product(marks, n, d, r->q_mark, d, 1, r->k_t, w, r->far, w, false);
    kernels->transpose(n, d, attn_nystrom_values(z, r), d, r->v_t, w);
    kernels->product(marks, n, d, r->g, d, 1, r->v_t, w, r->d_far, w, false);
    kernels->online_softmax_gradient(marks, n, z->scale, r->reference, r->h, r->far, w, r->d_far,
                                     w);
    kernels->product(n, d, marks, r->far, 1, w, r->g, d, r->dv, d, false);
    kernels->product(n, d, marks, r->d_far, 1, w, r->q_mark, d, r->dk, d, false);
    kernels->product(marks, d, n, r->d_far, w, 1, r->k, d, r->dq_mark, d, true);
    attn_work_add(x->work, attn_nystrom_key_gradient_work(z, marks, n));
}

/* The convolution's part of a block's dv, and its own gradient: sums along the diagonals of
 * dO V^T. */
static void backward_convolution(const attn_nystrom_job *j, const attn_nystrom_document *x,
                                 const gradients *g, size_t n)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, more = z->kernel - 1, width = ATTN_NYSTROM_PIECE + more;
    attn_nystrom_convolve(j, r->taps_band, n, r->d_o, r->dv);
    for (size_t t = 0; t < n; t += ATTN_NYSTROM_PIECE) {
        const size_t ni = attn_smaller(ATTN_NYSTROM_PIECE, n - t);
        kernels->transpose(ni + more, d, r->v + t * d, d, r->v_t, width);
        kernels->product(ni, ni + more, d, r->d_o + (t + more - z->left) * d, d, 1, r->v_t, width,
                         r->window, width, false);
        for (size_t i = 0; i < ni; i++) kernels->add(z->kernel, r->window + i * width + i, g->taps);
    }
    attn_work_add(x->work, attn_nystrom_convolution_work(z, n));
    attn_work_add(x->work, attn_nystrom_tap_gradient_work(z, n));
}

/* A block's keys and values are done: with what their landmarks get to where they belong. */
static void store_keys(const attn_nystrom_job *j, const attn_nystrom_document *x,
                       const gradients *g, size_t marks, size_t t, size_t n)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, row = j->call->row;
    for (size_t i = 0; i < n; i++) {
        const size_t l = (t + i) / z->segment;
        if (l == marks) break; /* the last segment has no landmark */
        kernels->add_scaled(d, 1.0f / (float)z->segment, r->dk_mark + l * d, r->dk + i * d);
    }
    kernels->copy_rows(n, d, z->scale, NULL, r->dk, d, g->dk + t * row, row);
    kernels->copy_rows(n, d, 1.0f, NULL, r->dv, d, g->dv + t * row, row);
}

/* The landmarks' gradients to their queries. */
static void spread_queries(const attn_nystrom_job *j, const attn_nystrom_document *x,
                           const gradients *g, size_t marks)
{
    const attn_nystrom_sizes *z = &j->z;
    const size_t d = z->d, row = j->call->row, n = marks * z->segment;
    for (size_t t = 0; t < n; t++) {
        if (t + ATTN_ROWS_AHEAD < n)
            attn_fetch_rows(1, d, g->dq + (t + ATTN_ROWS_AHEAD) * row, row);
        j->call->context->kernels->add_scaled(d, z->scale / (float)z->segment,
                                              x->room->dq_mark + t / z->segment * d,
                                              g->dq + t * row);
    }
    x->work->other += 4 * n * d + 2 * x->n * d;
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

/* Everything that both forms start with: landmarks without gradients. */
static void start(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t marks)
{
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t count = marks * z->d;
    attn_nystrom_mark_all(j, x);
    attn_nystrom_fill_band(z, x->taps + z->kernel - 1, -1, r->taps_band);
    memset(r->dq_mark, 0, count * sizeof *r->dq_mark);
    memset(r->dk_mark, 0, count * sizeof *r->dk_mark);
    memset(r->g, 0, count * sizeof *r->g);
    memset(r->h, 0, marks * sizeof *r->h);
}

/* A block with what its gradients need. */
static void load(const attn_nystrom_job *j, const attn_nystrom_document *x, const gradients *g,
                 size_t t, size_t n)
{
    const attn_nystrom_sizes *z = &j->z;
    attn_nystrom_load(j, x, t, n);
    attn_nystrom_load_window(j, x->n, t, z->kernel - 1 - z->left, n + z->kernel - 1, g->d_o,
                             j->call->o_row, x->room->d_o);
}

static void backward_causal(const attn_nystrom_job *j, const attn_nystrom_document *x,
                            const gradients *g)
{
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t s = z->segment, marks = attn_nystrom_marks(z, x->n), last = x->n - marks * s;
    start(j, x, marks);
    for (size_t c = 1; c <= marks; c++) {
        attn_nystrom_load_keys(j, x, (c - 1) * s, s);
        attn_nystrom_absorb(j, x, 0, marks, attn_nystrom_values(z, r), s);
        keep_stage(j, x, c, c * (c - 1) / 2);
    }
    if (marks) memcpy(r->reference, r->top, marks * sizeof *r->reference);
    memset(r->dk, 0, last * z->d * sizeof *r->dk);
    memset(r->dv, 0, last * z->d * sizeof *r->dv);
    load(j, x, g, marks * s, last);
    for (size_t c = marks + 1, n = last; c-- > 0; n = s) {
        const size_t stage = c ? c * (c - 1) / 2 : 0;
        const double *inverse = c ? enter_stage(j, x, c, stage) : NULL;
        backward_block(j, x, g, c * s, n, n, c);
        backward_convolution(j, x, g, n);
        store_keys(j, x, g, marks, c * s, n);
        if (c == 0) break;
        backward_stage(j, x, c, inverse, stage);
        load(j, x, g, (c - 1) * s, s);
        backward_keys(j, x, marks, s);
    }
    spread_queries(j, x, g, marks);
}

static void backward_full(const attn_nystrom_job *j, const attn_nystrom_document *x,
                          const gradients *g)
{
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t marks = z->marks, n = z->block;
    start(j, x, marks);
    for (size_t t = 0; t < x->n; t += n) {
        const size_t ni = attn_smaller(n, x->n - t);
        attn_nystrom_load_keys(j, x, t, ni);
        attn_nystrom_absorb(j, x, 0, marks, attn_nystrom_values(z, r), ni);
    }
    keep_stage(j, x, marks, 0);
    memcpy(r->reference, r->top, marks * sizeof *r->reference);
    const double *inverse = enter_stage(j, x, marks, 0);
    for (size_t t = 0; t < x->n; t += n) {
        const size_t ni = attn_smaller(n, x->n - t);
        load(j, x, g, t, ni);
        backward_block(j, x, g, t, ni, 0, marks);
    }
    backward_stage(j, x, marks, inverse, 0);
    for (size_t t = 0; t < x->n; t += n) {
        const size_t ni = attn_smaller(n, x->n - t);
        load(j, x, g, t, ni);
        backward_keys(j, x, marks, ni);
        backward_convolution(j, x, g, ni);
        store_keys(j, x, g, marks, t, ni);
    }
    spread_queries(j, x, g, marks);
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
