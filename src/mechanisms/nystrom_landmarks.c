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

static size_t band_count(const attn_nystrom_sizes *z)
{
    return ATTN_NYSTROM_BAND * (ATTN_NYSTROM_BAND + z->kernel - 1);
}

/* Of transposed values: a block's, or those that a piece of outputs reads. */
static size_t turned_row(const attn_nystrom_sizes *z)
{
    const size_t piece = ATTN_NYSTROM_PIECE + z->kernel - 1;
    return z->block > piece ? z->block : piece;
}

size_t attn_nystrom_worker(const attn_nystrom_sizes *z, bool is_backward)
{
    const size_t d = z->d, N = z->marks, n = z->block, more = z->kernel - 1;
    const size_t square = N * attn_pseudo_inverse_row(N);
    size_t wide = square + attn_pseudo_inverse_count(N) + 2 * N * d;
    size_t count = (5 * n + more) * d + 6 * N * d + 2 * N + (N > n ? N : n) + n * (n + N + 6) +
                   band_count(z) + N * N;
    if (is_backward) {
        wide += 2 * square + 3 * N * d;
        count += n * (n + N + 1) + (4 * n + more) * d + d * turned_row(z) +
                 ATTN_NYSTROM_PIECE * (ATTN_NYSTROM_PIECE + more) + band_count(z) +
                 stage_rows(z) * (d + 2) + 5 * N * d + 2 * N;
    }
    return 2 * wide + count + LINE_FLOATS; /* for the alignment of doubles */
}

attn_nystrom_room attn_nystrom_divide(float *memory, const attn_nystrom_sizes *z, bool is_backward)
{
    const size_t d = z->d, N = z->marks, n = z->block, more = z->kernel - 1;
    const size_t square = N * attn_pseudo_inverse_row(N);
    attn_nystrom_room r = {.k_t = NULL};
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
    r.q = attn_cut(&rest, n * d);
    r.k = attn_cut(&rest, n * d);
    r.k_t = attn_cut(&rest, n * d);
    r.o = attn_cut(&rest, n * d);
    r.v = attn_cut(&rest, (n + more) * d);
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
    for (size_t i = 0; i < 4; i++) r.row[i] = attn_cut(&rest, n);
    r.near_by = attn_cut(&rest, n);
    r.far_by = attn_cut(&rest, n);
    r.band = attn_cut(&rest, band_count(z));
    r.a_scores = attn_cut(&rest, N * N);
    if (!is_backward) return r;
    r.d_near = attn_cut(&rest, n * n);
    r.d_far = attn_cut(&rest, n * N);
    r.d_o = attn_cut(&rest, (n + more) * d);
    r.dq = attn_cut(&rest, n * d);
    r.dk = attn_cut(&rest, n * d);
    r.dv = attn_cut(&rest, n * d);
    r.delta = attn_cut(&rest, n);
    r.v_t = attn_cut(&rest, d * turned_row(z));
    r.window = attn_cut(&rest, ATTN_NYSTROM_PIECE * (ATTN_NYSTROM_PIECE + more));
    r.taps_band = attn_cut(&rest, band_count(z));
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

void attn_nystrom_mark_all(const attn_nystrom_job *j, const attn_nystrom_document *x)
{
    const size_t marks = attn_nystrom_marks(&j->z, x->n), step = j->z.segment * j->call->row;
    for (size_t l = 0; l < marks; l++)
        attn_nystrom_mark(j, x, l, x->q + l * step, j->call->row, x->k + l * step, j->call->row);
}

void attn_nystrom_absorb(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t l,
                         size_t count, const float *v, size_t n)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t d = z->d;
    float *sum = r->sum + l * d;
    kernels->product(count, n, d, r->q_mark + l * d, d, 1, r->k_t, z->block, r->far, z->block,
                     false);
    kernels->online_softmax(count, n, z->scale, r->far, z->block, r->top + l, r->total + l,
                            r->correction);
    kernels->scale_rows(count, d, r->correction, sum, d);
    kernels->product(count, d, n, r->far, z->block, 1, v, d, sum, d, true);
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

/* ---- blocks ------------------------------------------------------------------------------ */

void attn_nystrom_load_window(const attn_nystrom_job *j, size_t length, size_t t, size_t before,
                              size_t n, const float *from, size_t row, float *to)
{
    const size_t d = j->z.d, lacking = attn_smaller(t < before ? before - t : 0, n);
    const size_t first = t + lacking - before, end = attn_smaller(length, t + n - before);
    const size_t count = end > first ? end - first : 0;
    memset(to, 0, lacking * d * sizeof *to);
    j->call->context->kernels->copy_rows(count, d, 1.0f, NULL, from + first * row, row,
                                         to + lacking * d, d);
    memset(to + (lacking + count) * d, 0, (n - lacking - count) * d * sizeof *to);
}

void attn_nystrom_load_keys(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t t,
                            size_t n)
{
    const attn_kernels *kernels = j->call->context->kernels;
    const attn_nystrom_sizes *z = &j->z;
    const attn_nystrom_room *r = x->room;
    const size_t row = j->call->row;
    kernels->copy_rows(n, z->d, 1.0f, NULL, x->k + t * row, row, r->k, z->d);
    kernels->transpose(n, z->d, r->k, z->d, r->k_t, z->block);
    attn_nystrom_load_window(j, x->n, t, z->left, n + z->kernel - 1, x->v, row, r->v);
}

void attn_nystrom_load(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t t,
                       size_t n)
{
    const size_t row = j->call->row, d = j->z.d;
    j->call->context->kernels->copy_rows(n, d, 1.0f, NULL, x->q + t * row, row, x->room->q, d);
    attn_nystrom_load_keys(j, x, t, n);
}

void attn_nystrom_fill_band(const attn_nystrom_sizes *z, const float *taps, ptrdiff_t step,
                            float *band)
{
    const size_t row = ATTN_NYSTROM_BAND + z->kernel - 1;
    memset(band, 0, ATTN_NYSTROM_BAND * row * sizeof *band);
    for (size_t i = 0; i < ATTN_NYSTROM_BAND; i++)
        for (size_t k = 0; k < z->kernel; k++) band[i * row + i + k] = taps[(ptrdiff_t)k * step];
}

void attn_nystrom_convolve(const attn_nystrom_job *j, const float *band, size_t n, const float *x,
                           float *y)
{
    const size_t d = j->z.d, more = j->z.kernel - 1, row = ATTN_NYSTROM_BAND + more;
    for (size_t t = 0; t < n; t += ATTN_NYSTROM_BAND) {
        const size_t m = attn_smaller(ATTN_NYSTROM_BAND, n - t);
        j->call->context->kernels->product(m, d, m + more, band, row, 1, x + t * d, d, y + t * d, d,
                                           true);
    }
}
