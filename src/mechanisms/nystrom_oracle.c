/* nystrom in float64 over the tape, as nystrom.c states it: every segment's formula written out. */
#include "base/memory.h"
#include "mechanisms/nystrom.h"
#include "mechanisms/pseudo_inverse.h"

#include <math.h>

static attn_node *oracle_softmax(attn_tape *tape, attn_node *a, attn_node *b, bool is_causal)
{
    attn_node *s = attn_matmul(tape, a, attn_transpose(tape, b));
    const size_t columns = s->columns;
    bool *allowed = attn_alloc_array(ATTN_MEMORY_OTHER, s->rows * columns + 1, sizeof *allowed);
    if (!allowed) return attn_tape_fail(tape);
    for (size_t i = 0; i < s->rows; i++)
        for (size_t j = 0; j < columns; j++) allowed[i * columns + j] = !is_causal || j <= i;
    attn_node *p = attn_softmax(tape, s, allowed);
    attn_free(allowed);
    return p;
}

/* [1, 1]: the largest row sum of a; the choice of the row has no gradient. */
static attn_node *largest_row_sum(attn_tape *tape, attn_node *a)
{
    attn_node *sums = attn_row_sums(tape, a);
    size_t most = 0;
    for (size_t i = 1; i < sums->rows; i++)
        if (sums->value[i] > sums->value[most]) most = i;
    return sums->rows ? attn_rows(tape, sums, most, 1) : attn_tape_fail(tape);
}

static attn_node *oracle_identity(attn_tape *tape, size_t n, double diagonal)
{
    attn_node *i = attn_filled(tape, n, n, 0.0);
    for (size_t k = 0; k < n && !attn_tape_failed(tape); k++) i->value[k * n + k] = diagonal;
    return i;
}

/* diagonal I - a b */
static attn_node *oracle_rest(attn_tape *tape, double diagonal, attn_node *a, attn_node *b)
{
    attn_node *product = attn_scaled(tape, attn_matmul(tape, a, b), -1.0);
    return attn_plus(tape, product, oracle_identity(tape, a->rows, diagonal));
}

static attn_node *oracle_inverse(attn_tape *tape, attn_node *a)
{
    attn_node *turned = attn_transpose(tape, a);
    attn_node *size = attn_times(tape, largest_row_sum(tape, a), largest_row_sum(tape, turned));
    attn_node *z = attn_times(tape, turned, attn_reciprocal(tape, size));
    for (size_t k = 0; k < ATTN_PSEUDO_INVERSE_STEPS; k++) {
        attn_node *y = attn_matmul(tape, a, z);
        attn_node *w =
            attn_plus(tape, attn_scaled(tape, y, -1.0), oracle_identity(tape, a->rows, 7.0));
        w = oracle_rest(tape, 13.0, y, oracle_rest(tape, 15.0, y, w));
        z = attn_scaled(tape, attn_matmul(tape, z, w), 0.25);
    }
    return z;
}

static attn_node *oracle_far(attn_tape *tape, attn_node *q, attn_node *k, attn_node *v,
                             attn_node *q_mark, attn_node *k_mark)
{
    attn_node *b = attn_matmul(tape, oracle_softmax(tape, q_mark, k, false), v);
    attn_node *z = oracle_inverse(tape, oracle_softmax(tape, q_mark, k_mark, false));
    return attn_matmul(tape, oracle_softmax(tape, q, k_mark, false), attn_matmul(tape, z, b));
}

/* Means of `count` groups of n rows. */
static attn_node *oracle_means(attn_tape *tape, attn_node *x, size_t count, size_t n)
{
    attn_node *share = attn_filled(tape, count, count * n, 0.0);
    for (size_t i = 0; i < count * n && !attn_tape_failed(tape); i++)
        share->value[i / n * count * n + i] = 1.0 / (double)n;
    return attn_matmul(tape, share, attn_rows(tape, x, 0, count * n));
}

static attn_node *oracle_exps(attn_tape *tape, attn_node *a, attn_node *b, bool is_causal)
{
    attn_node *s = attn_exp(tape, attn_matmul(tape, a, attn_transpose(tape, b)));
    bool *allowed = attn_alloc_array(ATTN_MEMORY_OTHER, s->rows * s->columns + 1, sizeof *allowed);
    if (!allowed) return attn_tape_fail(tape);
    for (size_t i = 0; i < s->rows; i++)
        for (size_t j = 0; j < s->columns; j++) allowed[i * s->columns + j] = !is_causal || j <= i;
    attn_node *sums = attn_row_sums(tape, attn_masked(tape, s, allowed));
    attn_free(allowed);
    return sums;
}

/* Queries of one segment that starts at t, with c landmarks before. */
static attn_node *oracle_segment(attn_tape *tape, size_t segment, attn_node *q, attn_node *k,
                                 attn_node *v, size_t t, size_t n)
{
    const size_t c = t / segment;
    attn_node *qs = attn_rows(tape, q, t, n), *ks = attn_rows(tape, k, t, n);
    attn_node *near =
        attn_matmul(tape, oracle_softmax(tape, qs, ks, true), attn_rows(tape, v, t, n));
    if (c == 0) return near;
    attn_node *q_mark = oracle_means(tape, q, c, segment);
    attn_node *k_mark = oracle_means(tape, k, c, segment);
    attn_node *far =
        oracle_far(tape, qs, attn_rows(tape, k, 0, t), attn_rows(tape, v, 0, t), q_mark, k_mark);
    /* w = near mass / (near mass + far mass) */
    attn_node *mass = oracle_exps(tape, qs, ks, true);
    attn_node *far_mass = attn_scaled(tape, oracle_exps(tape, qs, k_mark, false), (double)segment);
    attn_node *inverse = attn_reciprocal(tape, attn_plus(tape, mass, far_mass));
    return attn_plus(tape, attn_times(tape, near, attn_times(tape, mass, inverse)),
                     attn_times(tape, far, attn_times(tape, far_mass, inverse)));
}

static attn_node *oracle_convolution(attn_tape *tape, const attn_nystrom_sizes *z, attn_node *v,
                                     attn_node *taps)
{
    attn_node *sum = NULL;
    for (size_t j = 0; j < z->kernel; j++) {
        const size_t T = v->rows;
        attn_node *shift = attn_filled(tape, T, T, 0.0);
        for (size_t t = 0; t < T && !attn_tape_failed(tape); t++)
            if (t + j >= z->left && t + j - z->left < T)
                shift->value[t * T + t + j - z->left] = 1.0;
        attn_node *term =
            attn_times(tape, attn_matmul(tape, shift, v), attn_columns(tape, taps, j, 1));
        sum = sum ? attn_plus(tape, sum, term) : term;
    }
    return sum;
}

static attn_node *oracle_document(attn_tape *tape, const attn_nystrom_sizes *z, attn_node *q,
                                  attn_node *k, attn_node *v, attn_node *taps)
{
    const size_t T = q->rows;
    attn_node *o = NULL;
    q = attn_scaled(tape, q, 1.0 / sqrt((double)z->d));
    if (!z->is_causal)
        o = oracle_far(tape, q, k, v, oracle_means(tape, q, z->marks, z->segment),
                       oracle_means(tape, k, z->marks, z->segment));
    for (size_t t = 0; z->is_causal && t < T; t += z->segment) {
        attn_node *part =
            oracle_segment(tape, z->segment, q, k, v, t, attn_smaller(z->segment, T - t));
        o = o ? attn_above(tape, o, part) : part;
    }
    if (attn_tape_failed(tape)) return attn_tape_fail(tape);
    return attn_plus(tape, o, oracle_convolution(tape, z, v, taps));
}

attn_node *attn_nystrom_oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                               attn_node *k, attn_node *v, attn_node *const *parameters,
                               const uint32_t *document_start)
{
    if (attn_tape_failed(tape)) return attn_tape_fail(tape);
    const attn_nystrom_sizes z = attn_nystrom_sizes_of(layer, q->rows);
    attn_node *taps = attn_rows(tape, parameters[0], head, 1), *o = NULL;
    for (size_t t = 0, end; t < q->rows; t = end) {
        end = t + 1;
        while (end < q->rows && (!document_start || document_start[end] != end)) end++;
        attn_node *part =
            oracle_document(tape, &z, attn_rows(tape, q, t, end - t),
                            attn_rows(tape, k, t, end - t), attn_rows(tape, v, t, end - t), taps);
        o = o ? attn_above(tape, o, part) : part;
        if (attn_tape_failed(tape)) return attn_tape_fail(tape);
    }
    return o;
}
