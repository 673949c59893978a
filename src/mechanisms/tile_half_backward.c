/* The tile engine at level `amx` in bfloat16: backward. See tile_engine.h for the equations.
 *
 * A task owns a key/value head with all its query heads. It goes by blocks of 256 queries and 256
 * keys. In each, by units of 32 queries and 32 keys, S and dP = dO' V^T become P and dS, rounded, in
 * the order in which products read them; S and dP of the next unit are made beside that. Then the
 * block adds
 *     dQ += dS K,  dK^T += Q^T dS,  dV^T += dO'^T P.
 * All queries see a range of keys that the second cache has room for, then the next one. */
#include "mechanisms/tile_half.h"

#include "base/threads.h"
#include "mechanisms/head_rows.h"

#include <math.h>
#include <string.h>

enum {
    GROUP = 4, /* tiles of a block, either way */
    GROUP_STRIPS = GROUP * ATTN_TILE_STRIPS,
    RANGE = 2 * GROUP,                   /* key tiles that all queries see before others */
    UNITS = GROUP_STRIPS * GROUP_STRIPS, /* strips of queries and of keys in a block */
    SQUARE = ATTN_STRIP * ATTN_STRIP,
    FACTOR = UNITS * ATTN_CELL /* numbers of P or dS of a block */
};

typedef struct backward_job {
    const attn_tile_call *call;
    float scale, factor;           /* as in forward */
    size_t key_cells, value_cells; /* strips of dk and of dv */
    size_t key_strips, query_strips;
    size_t held_strips; /* of the keys, in memory at a time */
    float *workers;
    size_t worker_count;
    attn_tally tally;
} backward_job;

/* Packed factors and sums of one key/value head, and of one of its query heads. */
typedef struct head_room {
    attn_bf16 *keys, *values, *key_rows;     /* right factors of S, of dP, of dQ */
    attn_bf16 *q, *d_o;                      /* left factors of S and of dP */
    attn_bf16 *q_columns, *d_o_columns;      /* Q^T and dO'^T: left factors of dK^T and dV^T */
    attn_bf16 *p_right, *ds_right, *ds_left; /* of a block */
    float *dk, *dv;                          /* [key strips][strips of the width][32][32] */
    float *dq;                               /* [T][strips of dk * 32] */
    bool *has_dk, *has_dq;                   /* of a tile of keys or queries: not just 0 */
    float *top, *delta;                      /* [T] */
    float *s, *dp;                           /* of two units */
    float *slope;                            /* of one */
    float *rows;                             /* 64 of dO', or 32 x 32 of a result */
} head_room;

/* A range of keys is done with once, unless several query heads come back to it. */
static size_t held_strips(const attn_tile_shape *shape)
{
    const size_t all = attn_amx_row_strips(shape->keys);
    return shape->heads > shape->kv_heads ? all : attn_smaller(all, RANGE * ATTN_TILE_STRIPS);
}

static size_t sums_count(size_t strips, size_t width)
{
    return strips * attn_strips(width) * SQUARE;
}

static size_t rows_count(const attn_tile_shape *shape)
{
    return attn_rounded(ATTN_TILE_QUERIES * shape->value_width) + SQUARE;
}

static head_room divide_room(float *room, const backward_job *job)
{
    const attn_tile_shape *shape = &job->call->shape;
    const size_t S = job->held_strips * ATTN_STRIP, T = shape->queries;
    const size_t dk = shape->key_width, dv = shape->value_width;
    const size_t rows = job->query_strips * ATTN_STRIP;
    head_room r;
    r.keys = attn_half_cut(&room, attn_amx_form_count(S, dk));
    r.values = attn_half_cut(&room, attn_amx_form_count(S, dv));
    r.key_rows = attn_half_cut(&room, attn_amx_form_count(S, dk));
    r.q = attn_half_cut(&room, attn_amx_form_count(T, dk));
    r.d_o = attn_half_cut(&room, attn_amx_form_count(T, dv));
    r.q_columns = attn_half_cut(&room, attn_amx_form_count(T, dk));
    r.d_o_columns = attn_half_cut(&room, attn_amx_form_count(T, dv));
    r.p_right = attn_half_cut(&room, FACTOR);
    r.ds_right = attn_half_cut(&room, FACTOR);
    r.ds_left = attn_half_cut(&room, FACTOR);
    r.dk = attn_cut(&room, sums_count(job->held_strips, dk));
    r.dv = attn_cut(&room, sums_count(job->held_strips, dv));
    r.dq = attn_cut(&room, sums_count(job->query_strips, dk));
    r.has_dk = (bool *)(void *)attn_cut(&room, attn_rounded(job->held_strips));
    r.has_dq = (bool *)(void *)attn_cut(&room, attn_rounded(job->query_strips));
    r.top = attn_cut(&room, rows);
    r.delta = attn_cut(&room, rows);
    r.s = attn_cut(&room, 2 * SQUARE);
    r.dp = attn_cut(&room, 2 * SQUARE);
    r.slope = attn_cut(&room, SQUARE);
    r.rows = room;
    return r;
}

static size_t worker_count(const attn_tile_shape *shape)
{
    const size_t key_strips = held_strips(shape),
                 query_strips = attn_amx_row_strips(shape->queries);
    const size_t S = key_strips * ATTN_STRIP, T = shape->queries;
    const size_t dk = shape->key_width, dv = shape->value_width;
    const size_t numbers = 2 * attn_amx_form_count(S, dk) + attn_amx_form_count(S, dv) +
                           2 * attn_amx_form_count(T, dk) + 2 * attn_amx_form_count(T, dv) +
                           3 * (size_t)FACTOR;
    return attn_half_floats(numbers) + sums_count(key_strips, dk) + sums_count(key_strips, dv) +
           sums_count(query_strips, dk) + attn_rounded(key_strips) + attn_rounded(query_strips) +
           2 * query_strips * ATTN_STRIP + 5 * (size_t)SQUARE + rows_count(shape);
}

size_t attn_half_backward_scratch(const attn_tile_shape *shape, size_t threads)
{
    return threads * worker_count(shape) + ATTN_HALF_LINE;
}

/* ---- packing ----------------------------------------------------------------------------- */

/* The rows of some tiles of keys or queries. */
typedef struct tiles {
    size_t first, last; /* last: behind it */
} tiles;

static size_t tile_rows(const tiles *t, size_t rows)
{
    return attn_smaller(t->last * ATTN_TILE_KEYS, rows) - t->first * ATTN_TILE_KEYS;
}

/* Where a tile of keys is in memory. */
static size_t key_place(const backward_job *job, size_t tile)
{
    return tile % (job->held_strips / ATTN_TILE_STRIPS);
}

static void load_keys(const backward_job *job, const head_room *room, size_t b, size_t g,
                      const tiles *t)
{
    const attn_tile_call *call = job->call;
    const size_t S = call->shape.keys, n = tile_rows(t, S);
    const size_t place = key_place(job, t->first), strip = place * ATTN_TILE_STRIPS;
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

/* Of one query head: q, dO' = dO / l, and delta from what dO' is rounded to. */
static void load_queries(const backward_job *job, const head_room *room, size_t b, size_t h,
                         const tiles *t)
{
    const attn_tile_call *call = job->call;
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->shape.queries, dk = call->shape.key_width, dv = call->shape.value_width;
    const size_t first = t->first * ATTN_TILE_QUERIES, strip = t->first * ATTN_TILE_STRIPS;
    const size_t at = b * T * call->o_at.row + h * call->o_at.head;
    const float *saved = call->saved + 2 * (b * call->shape.heads + h) * T;
    const attn_amx_forms q = {
        .left = room->q, .transposed = room->q_columns, .row_strips = job->query_strips};
    const attn_amx_forms d_o = {
        .left = room->d_o, .transposed = room->d_o_columns, .row_strips = job->query_strips};
    attn_amx_pack(strip, tile_rows(t, T), dk, attn_tile_rows(call->q, call->q_at, b * T + first, h),
                  &q);
    for (size_t i = first; i < t->last * ATTN_TILE_QUERIES; i++) {
        const float l = i < T ? saved[T + i] : 0.0f;
        room->top[i] = l == 0.0f ? INFINITY : saved[i]; /* saw nothing: P is 2^-inf = 0 */
        room->delta[i] = l == 0.0f ? 0.0f : 1.0f / l;
    }
    for (size_t i0 = first; i0 < first + tile_rows(t, T); i0 += ATTN_TILE_QUERIES) {
        const size_t n = attn_smaller(ATTN_TILE_QUERIES, T - i0);
        const size_t from = at + i0 * call->o_at.row;
        kernels->copy_rows(n, dv, 1.0f, room->delta + i0, call->d_o + from, call->o_at.row,
                           room->rows, dv);
        attn_tile_round(call, n * dv, room->rows);
        for (size_t i = 0; i < n; i++)
            room->delta[i0 + i] =
                kernels->dot(dv, room->rows + i * dv, call->o + from + i * call->o_at.row);
        const attn_far_rows rounded = {.single = room->rows, .row = dv};
        attn_amx_pack(i0 / ATTN_STRIP, n, dv, rounded, &d_o);
    }
    memset(room->has_dq + t->first, 0, (t->last - t->first) * sizeof *room->has_dq);
}

static void clear_rows(size_t rows, size_t n, float *to, size_t to_row)
{
    for (size_t i = 0; i < rows; i++) memset(to + i * to_row, 0, n * sizeof *to);
}

static void store_keys(const backward_job *job, const head_room *room, const tiles *t, size_t width,
                       const float *sums, float scale, float *to, size_t to_row)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const size_t S = job->call->shape.keys, strips = attn_strips(width);
    const size_t first = t->first * ATTN_TILE_STRIPS, n_strips = attn_strips(tile_rows(t, S));
    const size_t place = key_place(job, t->first) * ATTN_TILE_STRIPS;
    for (size_t j = first, from = place; j < first + n_strips; j++, from++)
        for (size_t i = 0; i < strips; i++) {
            const size_t n = attn_smaller(ATTN_STRIP, S - j * ATTN_STRIP);
            const size_t columns = attn_smaller(ATTN_STRIP, width - i * ATTN_STRIP);
            float *at = to + j * ATTN_STRIP * to_row + i * ATTN_STRIP;
            if (!room->has_dk[from / ATTN_TILE_STRIPS]) {
                clear_rows(n, columns, at, to_row);
                continue;
            }
            for (size_t r = ATTN_STRIP; r < attn_smaller(2 * ATTN_STRIP, S - j * ATTN_STRIP); r++)
                attn_claim_row(columns, at + r * to_row);
            kernels->transpose(columns, n, sums + (from * strips + i) * SQUARE, ATTN_STRIP,
                               room->rows, ATTN_STRIP);
            kernels->copy_rows(n, columns, scale, NULL, room->rows, ATTN_STRIP, at, to_row);
        }
}

static void store_queries(const backward_job *job, const head_room *room, size_t b, size_t h,
                          const tiles *t)
{
    const attn_tile_call *call = job->call;
    const size_t T = call->shape.queries, dk = call->shape.key_width, row = call->q_at.row;
    const size_t sums_row = job->key_cells * ATTN_STRIP;
    for (size_t i = t->first; i < t->last; i++) {
        const size_t i0 = i * ATTN_TILE_QUERIES, n = attn_smaller(ATTN_TILE_QUERIES, T - i0);
        float *to = call->dq + (b * T + i0) * row + h * call->q_at.head;
        if (room->has_dq[i])
            call->context->kernels->copy_rows(n, dk, job->scale, NULL, room->dq + i0 * sums_row,
                                              sums_row, to, row);
        else
            clear_rows(n, dk, to, row);
    }
}

/* ---- a block ----------------------------------------------------------------------------- */

/* Strips of tiles that are seen, of a row of the block or of a column. */
typedef struct seen {
    size_t n;
    uint32_t cells[GROUP_STRIPS];
} seen;

/* Tiles from query tile i0 and key tile j0 on, up to GROUP of each. */
typedef struct block {
    size_t i0, j0;
    size_t place; /* of the first key tile in memory */
    attn_tile_kind kind[GROUP][GROUP];
    seen row[GROUP], column[GROUP];
} block;

static void add_tile(seen *s, size_t at)
{
    for (size_t i = 0; i < ATTN_TILE_STRIPS; i++)
        s->cells[s->n++] = (uint32_t)(at * ATTN_TILE_STRIPS + i);
}

static attn_tile tile_at(const backward_job *job, const block *b, size_t i, size_t j)
{
    const attn_tile_shape *shape = &job->call->shape;
    attn_tile t = {.i0 = (b->i0 + i) * ATTN_TILE_QUERIES, .j0 = (b->j0 + j) * ATTN_TILE_KEYS};
    t.ni = attn_smaller(ATTN_TILE_QUERIES, shape->queries - t.i0);
    t.nj = attn_smaller(ATTN_TILE_KEYS, shape->keys - t.j0);
    return t;
}

static void count_tile(const backward_job *job, const attn_tile *tile, attn_tile_kind kind,
                       attn_work *work)
{
    const attn_tile_shape *shape = &job->call->shape;
    const attn_score *score = job->call->rule.score;
    const uint64_t pairs = (uint64_t)tile->ni * tile->nj;
    work->matmul += pairs * (6 * shape->key_width + 4 * shape->value_width);
    work->exponential += pairs;
    work->other += (kind == ATTN_TILE_FULL ? 4 : 5) * pairs;
    if (!score) return;
    attn_work_add(work, attn_work_times(score->value, pairs));
    attn_work_add(work, attn_work_times(score->slope, pairs));
}

static void find_tiles(const backward_job *job, size_t head, const uint32_t *documents, block *b,
                       attn_work *work)
{
    const attn_mask *mask = &job->call->rule.mask;
    const size_t rows = job->query_strips / 2 - b->i0, columns = job->key_strips / 2 - b->j0;
    for (size_t i = 0; i < GROUP; i++)
        for (size_t j = 0; j < GROUP; j++) {
            attn_tile_kind *kind = &b->kind[i][j];
            *kind = ATTN_TILE_EMPTY;
            if (i >= rows || j >= columns) continue;
            const attn_tile tile = tile_at(job, b, i, j);
            *kind = mask->tile(mask->rule, head, &tile, documents);
            if (*kind == ATTN_TILE_EMPTY) continue;
            add_tile(&b->row[i], j);
            add_tile(&b->column[j], i);
            count_tile(job, &tile, *kind, work);
        }
}

static attn_tile_kind unit_kind(const block *b, size_t unit)
{
    return b->kind[unit / GROUP_STRIPS / ATTN_TILE_STRIPS][unit % GROUP_STRIPS / ATTN_TILE_STRIPS];
}

/* The first unit from this one on of a tile that is not empty, or UNITS. */
static size_t find_unit(const block *b, size_t unit)
{
    while (unit < UNITS && unit_kind(b, unit) == ATTN_TILE_EMPTY) unit++;
    return unit;
}

static attn_amx_scores ask_scores(const backward_job *job, const head_room *room, const block *b,
                                  size_t unit, size_t turn)
{
    const size_t row = ATTN_TILE_STRIPS * b->i0 + unit / GROUP_STRIPS;
    const size_t column = ATTN_TILE_STRIPS * b->place + unit % GROUP_STRIPS;
    return (attn_amx_scores){.q = room->q + row * job->key_cells * ATTN_CELL,
                             .keys = room->keys + column * job->key_cells * ATTN_CELL,
                             .d_o = room->d_o + row * job->value_cells * ATTN_CELL,
                             .values = room->values + column * job->value_cells * ATTN_CELL,
                             .key_cells = job->key_cells,
                             .value_cells = job->value_cells,
                             .scores = room->s + turn % 2 * SQUARE,
                             .dp = room->dp + turn % 2 * SQUARE};
}

/* From products to scores. Keys behind the last one are not seen. */
static void finish_scores(const backward_job *job, const head_room *room, size_t head,
                          const uint32_t *documents, const block *b, size_t unit, float *s)
{
    const attn_tile_call *call = job->call;
    const attn_tile_rule *rule = &call->rule;
    const size_t T = call->shape.queries, S = call->shape.keys;
    const bool has_slope = rule->score && rule->score->has_slope;
    attn_tile tile = {.i0 = b->i0 * ATTN_TILE_QUERIES + unit / GROUP_STRIPS * ATTN_STRIP,
                      .j0 = b->j0 * ATTN_TILE_KEYS + unit % GROUP_STRIPS * ATTN_STRIP};
    tile.ni = tile.i0 < T ? attn_smaller(ATTN_STRIP, T - tile.i0) : 0;
    tile.nj = tile.j0 < S ? attn_smaller(ATTN_STRIP, S - tile.j0) : 0;
    attn_tile_kind kind = tile.ni * tile.nj > 0 ? unit_kind(b, unit) : ATTN_TILE_EMPTY;
    if (kind == ATTN_TILE_PARTIAL) kind = rule->mask.tile(rule->mask.rule, head, &tile, documents);
    if (has_slope && (kind == ATTN_TILE_EMPTY || tile.ni * tile.nj < SQUARE))
        memset(room->slope, 0, SQUARE * sizeof *room->slope);
    if (kind == ATTN_TILE_EMPTY)
        tile.nj = 0;
    else
        attn_tile_finish_scores(rule, call->context->kernels, head, &tile, kind, documents,
                                job->scale, s, ATTN_STRIP, has_slope ? room->slope : NULL,
                                ATTN_STRIP);
    if (tile.nj == ATTN_STRIP) return;
    for (size_t i = 0; i < ATTN_STRIP; i++)
        for (size_t j = tile.nj; j < ATTN_STRIP; j++) s[i * ATTN_STRIP + j] = -INFINITY;
}

/* P and dS of all units, strip of queries by strip of queries. */
static void make_factors(const backward_job *job, const head_room *room, size_t head,
                         const uint32_t *documents, const block *b)
{
    const bool has_slope = job->call->rule.score && job->call->rule.score->has_slope;
    size_t unit = find_unit(b, 0);
    if (unit == UNITS) return;
    attn_amx_scores next = ask_scores(job, room, b, unit, 0);
    attn_amx_run_gradient(NULL, &next);
    for (size_t turn = 0, after; unit < UNITS; turn++, unit = after) {
        const size_t strip = unit / GROUP_STRIPS, column = unit % GROUP_STRIPS;
        const size_t first = b->i0 * ATTN_TILE_QUERIES + strip * ATTN_STRIP;
        const size_t right = (column * GROUP_STRIPS + strip) * ATTN_CELL;
        float *s = room->s + turn % 2 * SQUARE;
        finish_scores(job, room, head, documents, b, unit, s);
        after = find_unit(b, unit + 1);
        if (after < UNITS) next = ask_scores(job, room, b, after, turn + 1);
        attn_amx_run_gradient(&(attn_amx_gradient){.factor = job->factor,
                                                   .scores = s,
                                                   .dp = room->dp + turn % 2 * SQUARE,
                                                   .slope = has_slope ? room->slope : NULL,
                                                   .top = room->top + first,
                                                   .delta = room->delta + first,
                                                   .p_right = room->p_right + right,
                                                   .ds_right = room->ds_right + right,
                                                   .ds_left = room->ds_left + unit * ATTN_CELL},
                              after < UNITS ? &next : NULL);
    }
}

/* dQ += dS K. What stays near is a strip of K's columns. */
static void add_queries(const backward_job *job, const head_room *room, const block *b)
{
    const size_t row = job->key_cells * ATTN_STRIP;
    for (size_t i = 0; i < job->key_cells; i++) {
        attn_amx_block blocks[GROUP_STRIPS];
        size_t n = 0;
        for (size_t strip = 0; strip < GROUP_STRIPS; strip++) {
            const seen *keys = &b->row[strip / ATTN_TILE_STRIPS];
            const size_t at = 2 * b->i0 + strip;
            if (keys->n == 0) continue;
            blocks[n++] = (attn_amx_block){
                .left = room->ds_left + strip * GROUP_STRIPS * ATTN_CELL,
                .right = room->key_rows + (i * job->held_strips + 2 * b->place) * ATTN_CELL,
                .left_cells = keys->cells,
                .right_cells = keys->cells,
                .n_cells = keys->n,
                .sums = room->dq + at * ATTN_STRIP * row + i * ATTN_STRIP,
                .sums_row = row,
                .adds = room->has_dq[at / ATTN_TILE_STRIPS]};
        }
        attn_amx_multiply(n, blocks);
    }
}

/* sums += left^T times P or dS. What stays near is a strip of the left factor's columns. */
static void add_keys(const backward_job *job, const head_room *room, const block *b,
                     size_t width_strips, const attn_bf16 *left, const attn_bf16 *right,
                     float *sums)
{
    for (size_t i = 0; i < width_strips; i++) {
        attn_amx_block blocks[GROUP_STRIPS];
        size_t n = 0;
        for (size_t strip = 0; strip < GROUP_STRIPS; strip++) {
            const seen *queries = &b->column[strip / ATTN_TILE_STRIPS];
            const size_t at = 2 * b->place + strip;
            if (queries->n == 0) continue;
            blocks[n++] =
                (attn_amx_block){.left = left + (i * job->query_strips + 2 * b->i0) * ATTN_CELL,
                                 .right = right + strip * GROUP_STRIPS * ATTN_CELL,
                                 .left_cells = queries->cells,
                                 .right_cells = queries->cells,
                                 .n_cells = queries->n,
                                 .sums = sums + (at * width_strips + i) * SQUARE,
                                 .sums_row = ATTN_STRIP,
                                 .adds = room->has_dk[at / ATTN_TILE_STRIPS]};
        }
        attn_amx_multiply(n, blocks);
    }
}

static void run_block(const backward_job *job, const head_room *room, size_t head,
                      const uint32_t *documents, block *b, attn_work *work)
{
    find_tiles(job, head, documents, b, work);
    make_factors(job, room, head, documents, b);
    add_queries(job, room, b);
    add_keys(job, room, b, job->value_cells, room->d_o_columns, room->p_right, room->dv);
    add_keys(job, room, b, job->key_cells, room->q_columns, room->ds_right, room->dk);
    for (size_t i = 0; i < GROUP; i++) {
        if (b->row[i].n > 0) room->has_dq[b->i0 + i] = true;
        if (b->column[i].n > 0) room->has_dk[b->place + i] = true;
    }
}

static void store_key_range(const backward_job *job, const head_room *room, size_t b, size_t g,
                            const tiles *range)
{
    const attn_tile_call *call = job->call;
    const size_t S = call->shape.keys, dk = call->shape.key_width, dv = call->shape.value_width;
    store_keys(job, room, range, dk, room->dk, job->scale,
               call->dk + b * S * call->k_at.row + g * call->k_at.head, call->k_at.row);
    store_keys(job, room, range, dv, room->dv, 1.0f,
               call->dv + b * S * call->v_at.row + g * call->v_at.head, call->v_at.row);
}

/* What a task needs is packed, and what it is done with stored, while it is near. */
static void run_kv_head(void *argument, size_t index, size_t worker)
{
    backward_job *job = argument;
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const size_t dk = shape->key_width, group = shape->heads / shape->kv_heads;
    const size_t n_keys = job->key_strips / ATTN_TILE_STRIPS;
    const size_t n_queries = job->query_strips / ATTN_TILE_STRIPS;
    const size_t b = index / shape->kv_heads, g = index % shape->kv_heads;
    const head_room room = divide_room(job->workers + worker * job->worker_count, job);
    const uint32_t *documents =
        call->document_start ? call->document_start + b * shape->queries : NULL;
    attn_work *work = &job->tally.of[worker];

    for (size_t h = g * group; h < (g + 1) * group; h++)
        for (size_t j0 = 0; j0 < n_keys; j0 += RANGE) {
            const tiles keys = {.first = j0, .last = attn_smaller(j0 + RANGE, n_keys)};
            if (h == g * group) load_keys(job, &room, b, g, &keys);
            for (size_t i0 = 0; i0 < n_queries; i0 += GROUP) {
                const tiles queries = {.first = i0, .last = attn_smaller(i0 + GROUP, n_queries)};
                if (j0 == 0) load_queries(job, &room, b, h, &queries);
                attn_amx_begin();
                for (size_t j = j0; j < keys.last; j += GROUP) {
                    block now = {.i0 = i0, .j0 = j, .place = key_place(job, j)};
                    run_block(job, &room, h, documents, &now, work);
                }
                attn_amx_end();
                if (keys.last == n_keys) store_queries(job, &room, b, h, &queries);
            }
            if (h == (g + 1) * group - 1) store_key_range(job, &room, b, g, &keys);
        }
    /* dO / l, delta, 1 / l and the scale of dq; that of dk */
    work->other += (uint64_t)group * shape->queries * (3 * shape->value_width + dk + 1);
    work->other += (uint64_t)shape->keys * dk;
}

void attn_half_backward(const attn_tile_call *call)
{
    const attn_tile_shape *shape = &call->shape;
    const size_t threads = call->context->threads;
    backward_job job = {.call = call,
                        .scale = attn_tile_scale(shape),
                        .factor = attn_tile_factor(&call->rule, shape),
                        .key_cells = attn_strips(shape->key_width),
                        .value_cells = attn_strips(shape->value_width),
                        .key_strips = attn_amx_row_strips(shape->keys),
                        .held_strips = held_strips(shape),
                        .query_strips = attn_amx_row_strips(shape->queries),
                        .workers = attn_half_aligned(call->scratch),
                        .worker_count = worker_count(shape)};
    attn_parallel(threads, shape->batch * shape->kv_heads, run_kv_head, &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}
