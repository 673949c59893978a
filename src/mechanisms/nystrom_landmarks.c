/* nystrom: a worker's memory, the landmarks and their sums. See nystrom.c for the equations. */
#include "mechanisms/nystrom.h"
#include "mechanisms/pseudo_inverse.h"

#include <math.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------------------------ */

enum { LINE_FLOATS = 16 };

/* Sums over all stages: landmarks 0..c-1 of each stage c, or (bidirectional) the one stage. */
static size_t stage_rows(const attn_nystrom_sizes *z)
{
    return z->is_causal ? z->marks * (z->marks + 1) / 2 : z->marks;
}

size_t attn_nystrom_worker(const attn_nystrom_sizes *z, bool is_backward)
{
    const size_t d = z->d, N = z->marks, n = z->block, tiles = (z->T + n - 1) / n;
    const size_t square = N * attn_pseudo_inverse_row(N);
    size_t wide = square + attn_pseudo_inverse_count(N) + 2 * N * d;
    size_t count =
        tiles * n * d + 6 * N * d + 2 * N + (N > n ? N : n) + n * (n + N + d + 4) + N * N;
    if (is_backward) {
        wide += 2 * square + 3 * N * d;
        count += n * (n + N + 3 * d) + (d + n) * (n + z->kernel) + stage_rows(z) * (d + 2) +
                 5 * N * d + 2 * N + z->kernel;
    }
    return 2 * wide + count + LINE_FLOATS; /* for the alignment of doubles */
}

attn_nystrom_room attn_nystrom_divide(float *memory, const attn_nystrom_sizes *z, bool is_backward)
{
    const size_t d = z->d, N = z->marks, n = z->block, tiles = (z->T + n - 1) / n;
    attn_nystrom_room r = {.k_t = NULL};
    const size_t square = N * attn_pseudo_inverse_row(N);
    /* scratch memory may start on any float */
    const size_t past = (uintptr_t)memory / sizeof *memory % LINE_FLOATS;
    r.a = (double *)(void *)(memory + (past ? LINE_FLOATS - past : 0));
    r.inverse = r.a + square;
    r.b_wide = r.inverse + attn_pseudo_inverse_count(N);
    r.m_wide = r.b_wide + N * d;
    double *end = r.m_wide + N * d;
    if (is_backward) {
        r.dz = end;
        r.da = r.dz + square;
        r.dm_wide = r.da + square;
        r.db_wide = r.dm_wide + N * d;
        r.b_wide_t = r.db_wide + N * d;
        end = r.b_wide_t + N * d;
    }
    float *rest = (float *)(void *)end;
    r.k_t = attn_cut(&rest, tiles * n * d);
    r.q_mark = attn_cut(&rest, N * d);
    r.k_mark = attn_cut(&rest, N * d);
    r.k_mark_t = attn_cut(&rest, N * d);
    r.sum = attn_cut(&rest, N * d);
    r.top = attn_cut(&rest, N);
    r.total = attn_cut(&rest, N);
    r.correction = attn_cut(&rest, N > n ? N : n);
    r.b = attn_cut(&rest, N * d);
    r.m = attn_cut(&rest, N * d);
    r.near = attn_cut(&rest, n * n);
    r.far = attn_cut(&rest, n * N);
    r.o_far = attn_cut(&rest, n * d);
    for (size_t i = 0; i < 4; i++) r.row[i] = attn_cut(&rest, n);
    r.a_scores = attn_cut(&rest, N * N);
    if (!is_backward) return r;
    r.d_near = attn_cut(&rest, n * n);
    r.d_far = attn_cut(&rest, n * N);
    r.o_near = attn_cut(&rest, n * d);
    r.do_near = attn_cut(&rest, n * d);
    r.do_far = attn_cut(&rest, n * d);
    r.turned = attn_cut(&rest, d * (n + z->kernel));
    r.window = attn_cut(&rest, n * (n + z->kernel));
    r.stage_b = attn_cut(&rest, stage_rows(z) * d);
    r.stage_top = attn_cut(&rest, stage_rows(z));
    r.stage_total = attn_cut(&rest, stage_rows(z));
    r.m_t = attn_cut(&rest, N * d);
    r.dm = attn_cut(&rest, N * d);
    r.dq_mark = attn_cut(&rest, N * d);
    r.dk_mark = attn_cut(&rest, N * d);
    r.g = attn_cut(&rest, N * d);
    r.h = attn_cut(&rest, N);
    r.reference = attn_cut(&rest, N);
    r.taps = attn_cut(&rest, z->kernel);
    return r;
}

size_t attn_nystrom_saved(const attn_layer *layer, size_t batch, size_t length)
{
    return 4 * batch * layer->heads * length; /* maximum and sum of near and far rows */
}

/* Backward: each head's part of the gradient of its convolution, before the workers. */
size_t attn_nystrom_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    const attn_nystrom_sizes z = attn_nystrom_sizes_of(layer, length);
    const size_t pass = batch * layer->heads * z.kernel + threads * attn_nystrom_worker(&z, true);
    if (!layer->is_causal) return pass;
    const attn_nystrom_sizes longest = attn_nystrom_sizes_of(layer, layer->positions);
    const size_t decode = threads * attn_nystrom_worker(&longest, false);
    return pass > decode ? pass : decode;
}

/* ---- landmarks --------------------------------------------------------------------------- */

static void mean_of(const attn_kernels *kernels, size_t n, size_t d, const float *x, size_t row,
                    float *mean)
{
    memset(mean, 0, d * sizeof *mean);
    for (size_t i = 0; i < n; i++) kernels->add(d, x + i * row, mean);
    kernels->scale(d, 1.0f / (float)n, mean);
}

void attn_nystrom_mark(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t l,
                       const float *q, size_t q_row, const float *k, size_t k_row)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d;
    mean_of(kernels, z->segment, d, q, q_row, r->q_mark + l * d);
    mean_of(kernels, z->segment, d, k, k_row, r->k_mark + l * d);
    for (size_t i = 0; i < d; i++) r->k_mark_t[i * z->marks + l] = r->k_mark[l * d + i];
    r->top[l] = -INFINITY;
    r->total[l] = 0.0f;
    memset(r->sum + l * d, 0, d * sizeof *r->sum);
    attn_work_add(x->work, attn_nystrom_mark_work(z));
}

void attn_nystrom_absorb(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t l,
                         size_t count, const float *k_t, const float *v, size_t v_row, size_t n)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d;
    float *sum = r->sum + l * d;
    kernels->product(count, n, d, r->q_mark + l * d, d, 1, k_t, z->block, r->far, z->block, false);
    kernels->online_softmax(count, n, z->scale, r->far, z->block, r->top + l, r->total + l,
                            r->correction);
    kernels->scale_rows(count, d, r->correction, sum, d);
    kernels->product(count, d, n, r->far, z->block, 1, v, v_row, sum, d, true);
    attn_work_add(x->work, attn_nystrom_absorb_work(z, count, n));
}

void attn_nystrom_average(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t m,
                          float *b)
{
    const attn_nystrom_room *r = x->room;
    const size_t d = j->z.d;
    memcpy(b, r->sum, m * d * sizeof *b);
    for (size_t l = 0; l < m; l++)
        j->call->context->kernels->scale(d, 1.0f / r->total[l], b + l * d);
    attn_work_add(x->work, attn_nystrom_average_work(&j->z, m));
}

const double *attn_nystrom_inverse(const attn_nystrom_job *j, const attn_nystrom_document *x,
                                   size_t m, const float *b)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d, N = z->marks, wide_row = attn_pseudo_inverse_row(m);
    kernels->product(m, m, d, r->q_mark, d, 1, r->k_mark_t, N, r->a_scores, N, false);
    for (size_t i = 0; i < m; i++) {
        float *row = r->a_scores + i * N, top = -INFINITY, total = 0.0f, correction = 0.0f;
        kernels->online_softmax(1, m, z->scale, row, N, &top, &total, &correction);
        for (size_t jj = 0; jj < m; jj++) r->a[i * wide_row + jj] = (double)row[jj] / (double)total;
    }
    const double *inverse = attn_pseudo_inverse(kernels, m, r->a, r->inverse);
    for (size_t i = 0; i < m * d; i++) r->b_wide[i] = (double)b[i];
    kernels->product_double(m, d, m, inverse, wide_row, 1, r->b_wide, d, r->m_wide, d, false);
    for (size_t i = 0; i < m * d; i++) r->m[i] = (float)r->m_wide[i];
    attn_work_add(x->work, attn_nystrom_inverse_work(z, m));
    return inverse;
}

void attn_nystrom_turn_keys(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t first)
{
    const size_t n = attn_smaller(j->z.block, x->n - first), row = j->call->row;
    j->call->context->kernels->transpose(n, j->z.d, x->k + first * row, row,
                                         x->room->k_t + first * j->z.d, j->z.block);
}

void attn_nystrom_advance(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t m)
{
    const size_t s = j->z.segment, row = j->call->row, newest = (m - 1) * s;
    attn_nystrom_mark(j, x, m - 1, x->q + newest * row, row, x->k + newest * row, row);
    attn_nystrom_absorb(j, x, 0, m - 1, x->room->k_t + newest * j->z.d, x->v + newest * row, row,
                        s);
    for (size_t t = 0; t <= newest; t += s)
        attn_nystrom_absorb(j, x, m - 1, 1, x->room->k_t + t * j->z.d, x->v + t * row, row, s);
}

void attn_nystrom_gather(const attn_nystrom_job *j, const attn_nystrom_document *x)
{
    const attn_nystrom_sizes *z = &j->z;
    const size_t row = j->call->row;
    for (size_t l = 0; l < z->marks; l++)
        attn_nystrom_mark(j, x, l, x->q + l * z->segment * row, row, x->k + l * z->segment * row,
                          row);
    for (size_t t = 0; t < x->n; t += z->block) {
        attn_nystrom_turn_keys(j, x, t);
        attn_nystrom_absorb(j, x, 0, z->marks, x->room->k_t + t * z->d, x->v + t * row, row,
                            attn_smaller(z->block, x->n - t));
    }
}
