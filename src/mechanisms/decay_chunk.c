/* The decay engine: a chunk's decays and its matrix A. See decay_engine.h. */
#include "mechanisms/decay_chunk.h"

#include <string.h>

enum { C = ATTN_CHUNK, BLOCK = ATTN_DECAY_BLOCK };

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t attn_decay_chunk_room(size_t key_dim, size_t value_dim)
{
    return C * (C + 6 * key_dim + 2 * larger(key_dim, value_dim)) + key_dim;
}

float *attn_decay_divide(const attn_decay_input *in, attn_decay_chunk *chunk)
{
    const size_t dk = in->key_dim, wide = larger(dk, in->value_dim);
    float *room = in->room;
    chunk->a = attn_cut(&room, C * C);
    chunk->q_in = attn_cut(&room, C * dk);
    chunk->k_out_t = attn_cut(&room, C * dk);
    chunk->rows = attn_cut(&room, C * wide);
    chunk->turned = attn_cut(&room, C * wide);
    chunk->decay = attn_cut(&room, C * dk);
    chunk->within = attn_cut(&room, C * dk);
    chunk->q_block = attn_cut(&room, C * dk);
    chunk->k_outward = attn_cut(&room, C * dk);
    chunk->total = attn_cut(&room, dk);
    return room;
}

void attn_decay_fill_powers(double decay, float *powers)
{
    float *falling = powers + C + 1;
    double power = 1.0;
    for (size_t i = 0; i <= C; i++, power *= decay) {
        powers[i] = (float)power;
        if (i < C) falling[C - 1 - i] = (float)power;
    }
}

/* Powers c - 1 .. 0. */
static const float *falling_powers(const attn_decay_input *in, size_t c)
{
    return in->powers + 2 * C + 1 - c;
}

/* ---- a constant -------------------------------------------------------------------------- */

/* Row i times decay^(i - j), j <= i; 0 behind. */
static void decay_lower(const attn_decay_input *in, float *a)
{
    const size_t c = in->length;
    in->on.kernels->keep_lower(c, c, falling_powers(in, c), a, C);
    in->on.work->other += (uint64_t)c * (c + 1) / 2;
}

static void scores_of_constant(const attn_decay_input *in, const attn_decay_chunk *chunk, float *da,
                               float *dq, float *dk_out)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim;
    on.kernels->transpose(c, dk, in->k, dk, chunk->k_out_t, C);
    attn_counted_product(on, c, c, dk, in->q, dk, 1, chunk->k_out_t, C, chunk->a, C, false);
    decay_lower(in, chunk->a);
    for (size_t f = 0; f < dk; f++) {
        attn_counted_multiply(on, c, falling_powers(in, c), chunk->k_out_t + f * C);
        chunk->total[f] = in->powers[c];
    }
    memcpy(chunk->q_in, in->q, c * dk * sizeof *in->q);
    attn_counted_scale_rows(on, c, dk, in->powers + 1, chunk->q_in, dk);
    if (!da) return;
    decay_lower(in, da);
    attn_counted_scale_rows(on, c, dk, in->powers + 1, dq, dk);
    attn_counted_product(on, c, dk, c, da, C, 1, in->k, dk, dq, dk, true);
    attn_counted_scale_rows(on, c, dk, falling_powers(in, c), dk_out, dk);
    attn_counted_product(on, c, dk, c, da, 1, C, in->q, dk, dk_out, dk, true);
}

/* ---- vectors, by blocks ------------------------------------------------------------------ */

static void multiply_rows(attn_counted on, size_t rows, size_t n, const float *by, float *x)
{
    for (size_t i = 0; i < rows; i++) attn_counted_multiply(on, n, by, x + i * n);
}

/* a = e^g */
static void fill_decays(const attn_decay_input *in, const attn_decay_chunk *chunk)
{
    const size_t count = in->length * in->key_dim;
    memcpy(chunk->decay, in->log_decay, count * sizeof *chunk->decay);
    attn_counted_exp(in->on, count, chunk->decay);
}

/* Row t = all decays behind t, up to the end of its span of tokens. */
static void fill_outward(const attn_decay_input *in, const attn_decay_chunk *chunk, size_t span)
{
    const size_t dk = in->key_dim;
    for (size_t end = in->length, t = end; t-- > 0;) {
        float *row = chunk->k_outward + t * dk;
        const bool is_last = t + 1 == end || (t + 1) % span == 0;
        for (size_t f = 0; is_last && f < dk; f++) row[f] = 1.0f;
        if (is_last) continue;
        memcpy(row, chunk->decay + (t + 1) * dk, dk * sizeof *row);
        attn_counted_multiply(in->on, dk, row + dk, row);
    }
}

static void fill_within(const attn_decay_input *in, const attn_decay_chunk *chunk)
{
    const size_t c = in->length, dk = in->key_dim;
    memcpy(chunk->within, chunk->decay, c * dk * sizeof *chunk->within);
    for (size_t t = 1; t < c; t++)
        if (t % BLOCK != 0)
            attn_counted_multiply(in->on, dk, chunk->within + (t - 1) * dk, chunk->within + t * dk);
    memcpy(chunk->q_block, in->q, c * dk * sizeof *in->q);
    attn_counted_multiply(in->on, c * dk, chunk->within, chunk->q_block);
}

/* The block of n tokens from s on meets all before it: their part of A, and of dq. */
static void meet_earlier(const attn_decay_input *in, const attn_decay_chunk *chunk, size_t s,
                         size_t n, const float *da, float *dq)
{
    const attn_counted on = in->on;
    const size_t dk = in->key_dim;
    float *keys = chunk->turned;
    attn_counted_product(on, n, s, dk, chunk->q_block + s * dk, dk, 1, chunk->k_out_t, C,
                         chunk->a + s * C, C, false);
    memcpy(chunk->q_in + s * dk, chunk->q_block + s * dk, n * dk * sizeof *dq);
    multiply_rows(on, n, dk, chunk->total, chunk->q_in + s * dk);
    if (!da) return;
    multiply_rows(on, n, dk, chunk->total, dq + s * dk);
    on.kernels->transpose(dk, s, chunk->k_out_t, C, keys, dk);
    attn_counted_product(on, n, dk, s, da + s * C, C, 1, keys, dk, dq + s * dk, dk, true);
}

/* What decays within the block costs: A's part there leaves k_out_t decayed to the block's end. */
static void meet_block(const attn_decay_input *in, const attn_decay_chunk *chunk, size_t s,
                       size_t n)
{
    const size_t dk = in->key_dim;
    const uint64_t pairs = n * (n - 1) / 2;
    in->on.kernels->decayed_scores(n, dk, in->q + s * dk, chunk->decay + s * dk, chunk->k_out_t + s,
                                   C, chunk->a + s * C + s, C);
    in->on.work->matmul += 2 * dk * (pairs + n);
    in->on.work->other += dk * pairs;
    for (size_t i = s; i < s + n; i++)
        memset(chunk->a + i * C + s + n, 0, (in->length - s - n) * sizeof *chunk->a);
}

/* dk from what lies behind each block's end, in reverse. */
static void key_gradients(const attn_decay_input *in, const attn_decay_chunk *chunk,
                          const float *da, float *dk_out)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim;
    fill_outward(in, chunk, BLOCK);
    for (size_t end = c, s; end > 0; end = s) {
        s = (end - 1) / BLOCK * BLOCK;
        const float *block_total = chunk->within + (end - 1) * dk;
        attn_counted_multiply(on, (end - s) * dk, chunk->k_outward + s * dk, dk_out + s * dk);
        multiply_rows(on, s, dk, block_total, dk_out);
        attn_counted_product(on, s, dk, end - s, da + s * C, 1, C, chunk->q_block + s * dk, dk,
                             dk_out, dk, true);
    }
}

static void block_gradients(const attn_decay_input *in, const attn_decay_chunk *chunk, size_t s,
                            size_t n, const float *da, float *dq, float *dk_out)
{
    const size_t dk = in->key_dim, at = s * dk;
    const uint64_t pairs = n * (n - 1) / 2;
    in->on.kernels->decayed_scores_gradient(n, dk, in->q + at, in->k + at, chunk->decay + at,
                                            da + s * C + s, C, dq + at, dk_out + at);
    in->on.work->matmul += 4 * dk * pairs;
    in->on.work->other += 2 * dk * pairs;
}

static void scores_of_vectors(const attn_decay_input *in, const attn_decay_chunk *chunk, float *da,
                              float *dq, float *dk_out)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim;
    fill_decays(in, chunk);
    fill_within(in, chunk);
    on.kernels->transpose(c, dk, in->k, dk, chunk->k_out_t, C);
    memcpy(chunk->q_in, chunk->q_block, attn_smaller(c, BLOCK) * dk * sizeof *dq);
    for (size_t s = 0; s < c; s += BLOCK) {
        const size_t n = attn_smaller(BLOCK, c - s);
        const float *block_total = chunk->within + (s + n - 1) * dk;
        if (s > 0) meet_earlier(in, chunk, s, n, da, dq);
        meet_block(in, chunk, s, n);
        attn_counted_scale_rows(on, dk, s, block_total, chunk->k_out_t, C);
        if (s == 0)
            memcpy(chunk->total, block_total, dk * sizeof *block_total);
        else
            attn_counted_multiply(on, dk, block_total, chunk->total);
    }
    if (!da) return;
    attn_counted_multiply(on, c * dk, chunk->within, dq);
    key_gradients(in, chunk, da, dk_out);
    for (size_t s = 0; s < c; s += BLOCK)
        block_gradients(in, chunk, s, attn_smaller(BLOCK, c - s), da, dq, dk_out);
}

void attn_decay_scores(const attn_decay_input *in, const attn_decay_chunk *chunk, float *da,
                       float *dq, float *dk)
{
    if (in->log_decay)
        scores_of_vectors(in, chunk, da, dq, dk);
    else
        scores_of_constant(in, chunk, da, dq, dk);
}

void attn_decay_outgoing(const attn_decay_input *in, const attn_decay_chunk *chunk)
{
    const attn_counted on = in->on;
    const size_t c = in->length, dk = in->key_dim;
    memcpy(chunk->rows, in->k, c * dk * sizeof *in->k);
    if (!in->log_decay) {
        attn_counted_scale_rows(on, c, dk, falling_powers(in, c), chunk->rows, dk);
        for (size_t f = 0; f < dk; f++) chunk->total[f] = in->powers[c];
        return;
    }
    fill_decays(in, chunk);
    fill_outward(in, chunk, C);
    attn_counted_multiply(on, c * dk, chunk->k_outward, chunk->rows);
    memcpy(chunk->total, chunk->decay, dk * sizeof *chunk->total);
    attn_counted_multiply(on, dk, chunk->k_outward, chunk->total);
}
