/* The tile engine at level `amx` in bfloat16, backward: what is kept of a head, how its rows are packed,
 * and how gradients are stored. */
#include "mechanisms/tile_half_backward.h"

#include <math.h>
#include <string.h>

/* A range of keys is done with once, unless several query heads come back to it. */
size_t attn_half_held_strips(const attn_tile_shape *shape)
{
    const size_t all = attn_amx_row_strips(shape->keys);
    return shape->heads > shape->kv_heads ? all
                                          : attn_smaller(all, ATTN_HALF_RANGE * ATTN_TILE_STRIPS);
}

static size_t sums_count(size_t strips, size_t width)
{
    return strips * attn_strips(width) * ATTN_HALF_SQUARE;
}

attn_half_head attn_half_divide(float *room, const attn_half_gradients *job)
{
    const attn_tile_shape *shape = &job->call->shape;
    const size_t S = job->held_strips * ATTN_STRIP, T = shape->queries;
    const size_t dk = shape->key_width, dv = shape->value_width;
    const size_t rows = job->query_strips * ATTN_STRIP;
    attn_half_head r;
    r.keys = attn_half_cut(&room, attn_amx_form_count(S, dk));
    r.values = attn_half_cut(&room, attn_amx_form_count(S, dv));
    r.key_rows = attn_half_cut(&room, attn_amx_form_count(S, dk));
    r.q = attn_half_cut(&room, attn_amx_form_count(T, dk));
    r.d_o = attn_half_cut(&room, attn_amx_form_count(T, dv));
    r.q_columns = attn_half_cut(&room, attn_amx_form_count(T, dk));
    r.d_o_columns = attn_half_cut(&room, attn_amx_form_count(T, dv));
    r.p_right = attn_half_cut(&room, ATTN_HALF_FACTOR);
    r.ds_right = attn_half_cut(&room, ATTN_HALF_FACTOR);
    r.ds_left = attn_half_cut(&room, ATTN_HALF_FACTOR);
    r.dk = attn_cut(&room, sums_count(job->held_strips, dk));
    r.dv = attn_cut(&room, sums_count(job->held_strips, dv));
    r.dq = attn_cut(&room, sums_count(job->query_strips, dk));
    r.has_dk = (bool *)(void *)attn_cut(&room, attn_rounded(job->held_strips));
    r.has_dq = (bool *)(void *)attn_cut(&room, attn_rounded(job->query_strips));
    r.top = attn_cut(&room, rows);
    r.delta = attn_cut(&room, rows);
    r.s = attn_cut(&room, 2 * ATTN_HALF_SQUARE);
    r.dp = attn_cut(&room, 2 * ATTN_HALF_SQUARE);
    r.slope = attn_cut(&room, ATTN_HALF_SQUARE);
    r.rows = room;
    return r;
}

size_t attn_half_backward_worker(const attn_tile_shape *shape)
{
    const size_t key_strips = attn_half_held_strips(shape);
    const size_t query_strips = attn_amx_row_strips(shape->queries);
    const size_t S = key_strips * ATTN_STRIP, T = shape->queries;
    const size_t dk = shape->key_width, dv = shape->value_width;
    const size_t numbers = 2 * attn_amx_form_count(S, dk) + attn_amx_form_count(S, dv) +
                           2 * attn_amx_form_count(T, dk) + 2 * attn_amx_form_count(T, dv) +
                           3 * (size_t)ATTN_HALF_FACTOR;
    return attn_half_floats(numbers) + sums_count(key_strips, dk) + sums_count(key_strips, dv) +
           sums_count(query_strips, dk) + attn_rounded(key_strips) + attn_rounded(query_strips) +
           2 * query_strips * ATTN_STRIP + 6 * (size_t)ATTN_HALF_SQUARE;
}

/* ---- rows -------------------------------------------------------------------------------- */

static size_t tile_rows(const attn_half_tiles *t, size_t rows)
{
    return attn_smaller(t->last * ATTN_TILE_KEYS, rows) - t->first * ATTN_TILE_KEYS;
}

void attn_half_load_keys(const attn_half_gradients *job, const attn_half_head *room, size_t b,
                         size_t g, const attn_half_tiles *t)
{
    const attn_tile_call *call = job->call;
    const size_t S = call->shape.keys, n = tile_rows(t, S);
    const size_t place = attn_half_key_place(job, t->first), strip = place * ATTN_TILE_STRIPS;
    const size_t at = b * S + t->first * ATTN_TILE_KEYS;
    const attn_amx_forms keys = {
        .right = room->keys, .right_of_p = room->key_rows, .row_strips = job->held_strips};
    const attn_amx_forms values = {.right = room->values};
    attn_amx_pack(strip, n, call->shape.key_width, attn_tile_rows(call->k, call->k_at, at, g),
                  &keys);
    attn_amx_pack(strip, n, call->shape.value_width, attn_tile_rows(call->v, call->v_at, at, g),
                  &values);
    memset(room->has_dk + place, 0, (t->last - t->first) * sizeof *room->has_dk);
}

void attn_half_load_queries(const attn_half_gradients *job, const attn_half_head *room, size_t b,
                            size_t h, const attn_half_tiles *t)
{
    const attn_tile_call *call = job->call;
    const size_t T = call->shape.queries, dk = call->shape.key_width, dv = call->shape.value_width;
    const size_t first = t->first * ATTN_TILE_QUERIES, strip = t->first * ATTN_TILE_STRIPS;
    const size_t at = b * T + first;
    const float *saved = call->saved + 2 * (b * call->shape.heads + h) * T;
    const attn_amx_forms q = {
        .left = room->q, .transposed = room->q_columns, .row_strips = job->query_strips};
    const attn_amx_forms d_o = {
        .left = room->d_o, .transposed = room->d_o_columns, .row_strips = job->query_strips};
    attn_amx_pack(strip, tile_rows(t, T), dk, attn_tile_rows(call->q, call->q_at, at, h), &q);
    for (size_t i = first; i < t->last * ATTN_TILE_QUERIES; i++) {
        const float l = i < T ? saved[T + i] : 0.0f;
        room->top[i] = l == 0.0f ? INFINITY : saved[i]; /* saw nothing: P is 2^-inf = 0 */
        room->delta[i] = l == 0.0f ? 0.0f : 1.0f / l;
    }
    attn_amx_pack_gradient(
        strip, tile_rows(t, T), dv,
        &(attn_amx_output_rows){.d_o = attn_tile_rows(call->d_o, call->o_at, at, h),
                                .o = call->o + at * call->o_at.row + h * call->o_at.head,
                                .o_row = call->o_at.row,
                                .delta = room->delta + first},
        &d_o);
    memset(room->has_dq + t->first, 0, (t->last - t->first) * sizeof *room->has_dq);
}

static void clear_rows(size_t rows, size_t n, attn_result_rows to)
{
    for (size_t i = 0; i < rows; i++)
        if (to.half)
            memset(to.half + i * to.row, 0, n * sizeof *to.half);
        else
            memset(to.single + i * to.row, 0, n * sizeof *to.single);
}

/* Sums of keys, from the first of some tiles on, to the rows of the first. */
static void store_sums(const attn_half_gradients *job, const attn_half_head *room,
                       const attn_half_tiles *t, size_t width, const float *sums, float scale,
                       attn_result_rows to)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const size_t rows = tile_rows(t, job->call->shape.keys), strips = attn_strips(width);
    const size_t place = attn_half_key_place(job, t->first) * ATTN_TILE_STRIPS;
    for (size_t j = 0; j < attn_strips(rows); j++)
        for (size_t i = 0; i < strips; i++) {
            const size_t first = j * ATTN_STRIP, column = i * ATTN_STRIP;
            const size_t n = attn_smaller(ATTN_STRIP, rows - first);
            const size_t columns = attn_smaller(ATTN_STRIP, width - column);
            const float *square = sums + ((place + j) * strips + i) * ATTN_HALF_SQUARE;
            const attn_result_rows at = attn_results_from(to, first, column);
            if (!room->has_dk[(place + j) / ATTN_TILE_STRIPS]) {
                clear_rows(n, columns, at);
                continue;
            }
            kernels->transpose(columns, n, square, ATTN_STRIP, room->rows, ATTN_STRIP);
            attn_store_rows(kernels, n, columns, scale, room->rows, ATTN_STRIP, at);
        }
}

void attn_half_store_queries(const attn_half_gradients *job, const attn_half_head *room, size_t b,
                             size_t h, const attn_half_tiles *t)
{
    const attn_tile_call *call = job->call;
    const size_t T = call->shape.queries, dk = call->shape.key_width;
    const size_t sums_row = job->key_cells * ATTN_STRIP;
    for (size_t i = t->first; i < t->last; i++) {
        const size_t i0 = i * ATTN_TILE_QUERIES, n = attn_smaller(ATTN_TILE_QUERIES, T - i0);
        const attn_result_rows to = attn_tile_results(call->dq, call->q_at, b * T + i0, h);
        if (room->has_dq[i])
            attn_store_rows(call->context->kernels, n, dk, job->scale, room->dq + i0 * sums_row,
                            sums_row, to);
        else
            clear_rows(n, dk, to);
    }
}

void attn_half_store_keys(const attn_half_gradients *job, const attn_half_head *room, size_t b,
                          size_t g, const attn_half_tiles *t)
{
    const attn_tile_call *call = job->call;
    const size_t first = b * call->shape.keys + t->first * ATTN_TILE_KEYS;
    store_sums(job, room, t, call->shape.key_width, room->dk, job->scale,
               attn_tile_results(call->dk, call->k_at, first, g));
    store_sums(job, room, t, call->shape.value_width, room->dv, 1.0f,
               attn_tile_results(call->dv, call->v_at, first, g));
}
