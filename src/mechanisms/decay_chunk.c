/* The decay engine: a chunk's decays and its matrix A. See decay_engine.h. */
#include "mechanisms/decay_chunk.h"

#include <string.h>

enum { C = ATTN_CHUNK };

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t attn_decay_chunk_room(size_t key_dim, size_t value_dim)
{
    return C * (5 * key_dim + larger(key_dim, value_dim) + 2 + C) + key_dim + 1;
}

float *attn_decay_divide(const attn_decay_head *head, float *room, attn_decay_chunk *chunk)
{
    const size_t dk = head->key_dim;
    chunk->incoming = attn_cut(&room, C * dk);
    chunk->outgoing = attn_cut(&room, C * dk);
    chunk->factor = attn_cut(&room, C * dk);
    chunk->mixed = attn_cut(&room, C * dk);
    chunk->rows = attn_cut(&room, C * dk);
    chunk->turned = attn_cut(&room, C * larger(dk, head->value_dim));
    chunk->a = attn_cut(&room, C * C);
    chunk->falling = attn_cut(&room, C);
    chunk->powers = attn_cut(&room, C + 1);
    chunk->total = attn_cut(&room, dk);
    if (head->log_decay) return room;
    double power = 1.0;
    for (size_t i = 0; i <= C; i++, power *= head->decay) {
        chunk->powers[i] = (float)power;
        if (i < C) chunk->falling[C - 1 - i] = (float)power;
    }
    head->on.work->other += C;
    return room;
}

void attn_decay_enter(const attn_decay_head *head, size_t t, size_t c, attn_decay_chunk *chunk)
{
    const size_t dk = head->key_dim;
    chunk->c = c;
    chunk->q = head->q + t * dk;
    chunk->k = head->k + t * dk;
    chunk->v = head->v + t * head->value_dim;
    chunk->log_decay = head->log_decay ? head->log_decay + t * dk : NULL;
}

/* ---- A of a constant --------------------------------------------------------------------- */

/* Row i times decay^(i - j), j <= i; 0 behind. */
static void decay_lower(const attn_decay_head *head, const attn_decay_chunk *chunk, float *a)
{
    for (size_t i = 0; i < chunk->c; i++) {
        attn_counted_multiply(head->on, i + 1, chunk->falling + C - 1 - i, a + i * C);
        memset(a + i * C + i + 1, 0, (chunk->c - i - 1) * sizeof *a);
    }
}

static void scores_of_constant(const attn_decay_head *head, const attn_decay_chunk *chunk,
                               float *da, float *dq, float *dk_out)
{
    const attn_counted on = head->on;
    const size_t c = chunk->c, dk = head->key_dim;
    on.kernels->transpose(c, dk, chunk->k, dk, chunk->turned, C);
    attn_counted_product(on, c, c, dk, chunk->q, dk, 1, chunk->turned, C, chunk->a, C, false);
    decay_lower(head, chunk, chunk->a);
    if (!da) return;
    decay_lower(head, chunk, da);
    attn_counted_product(on, c, dk, c, da, C, 1, chunk->k, dk, dq, dk, false);
    attn_counted_product(on, c, dk, c, da, 1, C, chunk->q, dk, dk_out, dk, false);
}

/* ---- A of vectors, by halves ------------------------------------------------------------- */

/* At a level, `incoming` holds g summed from the start of t's half up to t, and `outgoing` from
 * behind t to the half's end. The level's exponents are those of the keys in first halves and
 * of the queries in second ones. Returns how many rows have a part in it. */
static size_t mix_level(const attn_decay_head *head, const attn_decay_chunk *chunk, size_t half)
{
    const size_t c = chunk->c, dk = head->key_dim, row = dk * sizeof(float);
    size_t end = 0;
    for (size_t m = half; m < c; m += 2 * half) {
        const size_t first = (m - half) * dk, second = m * dk;
        end = attn_block_end(m, half, c);
        memcpy(chunk->factor + first, chunk->outgoing + first, half * row);
        memcpy(chunk->factor + second, chunk->incoming + second, (end - m) * row);
        memcpy(chunk->mixed + first, chunk->k + first, half * row);
        memcpy(chunk->mixed + second, chunk->q + second, (end - m) * row);
    }
    attn_counted_exp(head->on, end * dk, chunk->factor);
    attn_counted_multiply(head->on, end * dk, chunk->factor, chunk->mixed);
    return end;
}

static void block_scores(const attn_decay_head *head, const attn_decay_chunk *chunk, size_t half,
                         size_t m, size_t queries)
{
    const size_t dk = head->key_dim;
    const float *first = chunk->mixed + (m - half) * dk, *second = chunk->mixed + m * dk;
    head->on.kernels->transpose(half, dk, first, dk, chunk->turned, half);
    attn_counted_product(head->on, queries, half, dk, second, dk, 1, chunk->turned, half,
                         chunk->a + m * C + m - half, C, false);
}

static void block_gradients(const attn_decay_head *head, const attn_decay_chunk *chunk, size_t half,
                            size_t m, size_t queries, const float *da, float *dq, float *dk_out)
{
    const size_t dk = head->key_dim, first = (m - half) * dk, second = m * dk;
    const float *block = da + m * C + m - half;
    attn_counted_product(head->on, queries, dk, half, block, C, 1, chunk->mixed + first, dk,
                         chunk->rows, dk, false);
    attn_counted_add_product(head->on, queries * dk, chunk->factor + second, chunk->rows,
                             dq + second);
    attn_counted_product(head->on, half, dk, queries, block, 1, C, chunk->mixed + second, dk,
                         chunk->rows, dk, false);
    attn_counted_add_product(head->on, half * dk, chunk->factor + first, chunk->rows,
                             dk_out + first);
}

/* The sums of both halves of a block become those of the block. */
static void join_halves(const attn_decay_head *head, const attn_decay_chunk *chunk, size_t half,
                        size_t m, size_t end)
{
    const size_t dk = head->key_dim;
    const float *second_total = chunk->incoming + (end - 1) * dk;
    const float *first_total = chunk->incoming + (m - 1) * dk;
    for (size_t t = m - half; t < m; t++)
        attn_counted_add(head->on, dk, second_total, chunk->outgoing + t * dk);
    for (size_t t = m; t < end; t++)
        attn_counted_add(head->on, dk, first_total, chunk->incoming + t * dk);
}

static void scores_of_vectors(const attn_decay_head *head, const attn_decay_chunk *chunk, float *da,
                              float *dq, float *dk_out)
{
    const size_t c = chunk->c, dk = head->key_dim, count = c * dk;
    memcpy(chunk->incoming, chunk->log_decay, count * sizeof(float));
    memset(chunk->outgoing, 0, count * sizeof(float));
    if (da) {
        memset(dq, 0, count * sizeof(float));
        memset(dk_out, 0, count * sizeof(float));
    }
    for (size_t i = 0; i < c; i++) {
        chunk->a[i * C + i] = attn_counted_dot(head->on, dk, chunk->q + i * dk, chunk->k + i * dk);
        memset(chunk->a + i * C + i + 1, 0, (c - i - 1) * sizeof(float));
    }
    for (size_t half = 1; half < c; half *= 2) {
        mix_level(head, chunk, half);
        for (size_t m = half; m < c; m += 2 * half) {
            const size_t end = attn_block_end(m, half, c);
            block_scores(head, chunk, half, m, end - m);
            if (da) block_gradients(head, chunk, half, m, end - m, da, dq, dk_out);
            join_halves(head, chunk, half, m, end);
        }
    }
}

void attn_decay_scores(const attn_decay_head *head, const attn_decay_chunk *chunk, float *da,
                       float *dq, float *dk)
{
    if (head->log_decay)
        scores_of_vectors(head, chunk, da, dq, dk);
    else
        scores_of_constant(head, chunk, da, dq, dk);
}

/* ---- to and from the chunk's ends -------------------------------------------------------- */

void attn_decay_fill_incoming(const attn_decay_head *head, const attn_decay_chunk *chunk)
{
    if (!head->log_decay) return;
    const size_t c = chunk->c, dk = head->key_dim;
    float *sum = chunk->incoming;
    memcpy(sum, chunk->log_decay, c * dk * sizeof *sum);
    for (size_t t = 1; t < c; t++) attn_counted_add(head->on, dk, sum + (t - 1) * dk, sum + t * dk);
    attn_counted_exp(head->on, c * dk, sum);
}

void attn_decay_fill_outgoing(const attn_decay_head *head, const attn_decay_chunk *chunk)
{
    const size_t c = chunk->c, dk = head->key_dim;
    if (!head->log_decay) {
        for (size_t i = 0; i < dk; i++) chunk->total[i] = chunk->powers[c];
        return;
    }
    const float *g = chunk->log_decay;
    float *sum = chunk->outgoing;
    memset(sum + (c - 1) * dk, 0, dk * sizeof *sum);
    for (size_t t = c - 1; t-- > 0;) {
        memcpy(sum + t * dk, g + (t + 1) * dk, dk * sizeof *sum);
        attn_counted_add(head->on, dk, sum + (t + 1) * dk, sum + t * dk);
    }
    memcpy(chunk->total, g, dk * sizeof *g);
    attn_counted_add(head->on, dk, sum, chunk->total);
    attn_counted_exp(head->on, c * dk, sum);
    attn_counted_exp(head->on, dk, chunk->total);
}

void attn_decay_weigh_incoming(const attn_decay_head *head, const attn_decay_chunk *chunk, float *x)
{
    const size_t c = chunk->c, dk = head->key_dim;
    if (head->log_decay)
        attn_counted_multiply(head->on, c * dk, chunk->incoming, x);
    else
        attn_counted_scale_rows(head->on, c, dk, chunk->powers + 1, x, dk);
}

void attn_decay_weigh_outgoing(const attn_decay_head *head, const attn_decay_chunk *chunk, float *x)
{
    const size_t c = chunk->c, dk = head->key_dim;
    if (head->log_decay)
        attn_counted_multiply(head->on, c * dk, chunk->outgoing, x);
    else
        attn_counted_scale_rows(head->on, c, dk, chunk->falling + C - c, x, dk);
}
