/* The tile engine: forward. Keys are transposed and values copied once a head, then every block
 * of queries is a task. */
#include "mechanisms/tile_engine.h"

#include "mechanisms/head_rows.h"
#include "mechanisms/tile_half.h"
#include "mechanisms/tile_heads.h"

#include <string.h>

/* Queries of a task: more of them read each key fewer times from far away. Queries of a step:
 * a multiple of the rows of a product's register tile, with scores that fit the nearest cache. */
enum { FORWARD_QUERIES = 6 * ATTN_TILE_QUERIES, STEP_QUERIES = 48, PAIR_KEYS = 2 * ATTN_TILE_KEYS };

size_t attn_packed_count(size_t length, size_t n)
{
    return (length + ATTN_TILE_KEYS - 1) / ATTN_TILE_KEYS * ATTN_TILE_KEYS * n;
}

/* A tile of rows [nj][n], transposed. */
static void pack_half_tile(const attn_kernels *kernels, size_t nj, size_t n, const attn_bf16 *from,
                           size_t row, float *to)
{
    float square[ATTN_TILE_KEYS * ATTN_TILE_KEYS];
    for (size_t first = 0; first < n; first += ATTN_TILE_KEYS) {
        const size_t columns = attn_smaller(ATTN_TILE_KEYS, n - first);
        for (size_t j = 0; j < nj; j++)
            kernels->bf16_to_float(columns, from + j * row + first, square + j * columns);
        kernels->transpose(nj, columns, square, columns, to + first * ATTN_TILE_KEYS,
                           ATTN_TILE_KEYS);
    }
}

void attn_pack_transposed(const attn_kernels *kernels, size_t length, size_t n, attn_far_rows from,
                          float *to)
{
    for (size_t j0 = 0; j0 < length; j0 += ATTN_TILE_KEYS) {
        const size_t nj = attn_smaller(ATTN_TILE_KEYS, length - j0), at = j0 * from.row;
        if (from.half)
            pack_half_tile(kernels, nj, n, from.half + at, from.row, to + j0 * n);
        else
            kernels->transpose(nj, n, from.single + at, from.row, to + j0 * n, ATTN_TILE_KEYS);
    }
}

void attn_take_rows(const attn_kernels *kernels, size_t rows, size_t n, attn_far_rows from,
                    float *to)
{
    if (from.single) kernels->copy_rows(rows, n, 1.0f, NULL, from.single, from.row, to, n);
    for (size_t i = 0; from.half && i < rows; i++)
        kernels->bf16_to_float(n, from.half + i * from.row, to + i * n);
}

void attn_store_rows(const attn_kernels *kernels, size_t rows, size_t n, float factor,
                     const float *from, size_t from_row, attn_result_rows to)
{
    if (to.half)
        kernels->round_rows(rows, n, factor, NULL, from, from_row, to.half, to.row);
    else
        kernels->store_rows(rows, n, factor, NULL, from, from_row, to.single, to.row);
}

void attn_copy_head(size_t rows, size_t n, const float *from, size_t row, float *to)
{
    for (size_t i = 0; i < rows; i++) memcpy(to + i * n, from + i * row, n * sizeof *to);
}

size_t attn_tile_saved(const attn_tile_shape *shape)
{
    return 2 * shape->batch * shape->heads * shape->queries; /* c and l of each row */
}

/* Per worker, forward: queries and output of a block; scores of two tiles, or of a row of tiles;
 * the running state. */
static size_t forward_worker(const attn_tile_shape *shape)
{
    return FORWARD_QUERIES * (shape->key_width + shape->value_width + 1 + ATTN_RUNNING_SUMS) +
           ATTN_TILE_QUERIES * attn_packed_count(shape->keys, 1);
}

/* Packed floats of one key/value head. */
static size_t packed_head(const attn_tile_shape *shape)
{
    return attn_packed_count(shape->keys, shape->key_width + shape->value_width);
}

/* Key/value heads that are packed together: as many as stay near until they are read, and not
 * fewer than threads. */
static size_t packed_heads(const attn_tile_shape *shape, size_t threads)
{
    enum { NEAR_FLOATS = 2 << 20 };
    const size_t near = NEAR_FLOATS / packed_head(shape);
    return attn_smaller(near > threads ? near : threads, shape->batch * shape->kv_heads);
}

size_t attn_tile_scratch(const attn_tile_shape *shape, size_t threads)
{
    const size_t forward =
        packed_heads(shape, threads) * packed_head(shape) + threads * forward_worker(shape);
    const size_t backward =
        threads * attn_tile_backward_worker(shape) + attn_tile_backward_gathered(shape, threads);
    const size_t most = forward > backward ? forward : backward;
#if defined(__x86_64__)
    if (shape->dtype == ATTN_BF16) {
        const size_t half = attn_half_scratch(shape, threads);
        return most > half ? most : half;
    }
#endif
    return most;
}

void attn_tile_round(const attn_tile_call *call, size_t n, float *x)
{
    attn_tile_round_rows(call, 1, n, x, n);
}

void attn_tile_round_rows(const attn_tile_call *call, size_t rows, size_t n, float *x, size_t row)
{
    if (call->shape.dtype == ATTN_BF16) attn_round_rows(call->context->kernels, rows, n, x, row);
}

void attn_round_rows(const attn_kernels *kernels, size_t rows, size_t n, float *x, size_t row)
{
    enum { PIECE = 512 };
    attn_bf16 half[PIECE];
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < n; j += PIECE) {
            const size_t count = attn_smaller(PIECE, n - j);
            kernels->bf16_from_float(count, x + i * row + j, half);
            kernels->bf16_to_float(count, half, x + i * row + j);
        }
}

typedef struct forward_job {
    const attn_tile_call *call;
    float scale;          /* of the products */
    float factor;         /* of the scores in the softmax, whose exponents are of 2 */
    float *keys, *values; /* of `together` heads: packed transposed [S][dk], and [S][dv] */
    float *workers;
    size_t query_blocks;
    attn_tally tally;
} forward_job;

static void pack_head(void *argument, size_t place, size_t head, size_t first, size_t n)
{
    const forward_job *job = argument;
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const attn_kernels *kernels = call->context->kernels;
    const size_t S = shape->keys, dk = shape->key_width, dv = shape->value_width;
    const size_t t = head / shape->kv_heads * S + first, h = head % shape->kv_heads;
    float *keys = job->keys + place * attn_packed_count(S, dk) + first * dk;
    float *values = job->values + place * attn_packed_count(S, dv) + first * dv;
    attn_pack_transposed(kernels, n, dk, attn_tile_rows(call->k, call->k_at, t, h), keys);
    attn_take_rows(kernels, n, dv, attn_tile_rows(call->v, call->v_at, t, h), values);
    attn_tile_round(call, attn_packed_count(n, dk), keys);
    attn_tile_round(call, n * dv, values);
}

/* A block of queries of one head. */
typedef struct query_block {
    size_t head, i0, ni;
    const float *keys, *values; /* the head's packed keys and copied values */
    const uint32_t *documents;  /* of the sequence, or NULL */
    float *q, *s, *o;           /* [ni][dk]; scores; accumulated output [ni][dv] */
    float *top, *total;         /* of the running softmax */
    float *to;                  /* where the output goes */
    attn_ahead *ahead;          /* what comes next */
} query_block;

bool attn_tile_next_run(const attn_mask *mask, size_t head, const uint32_t *documents, size_t *i0,
                        size_t end, attn_tile *run, attn_tile_kind *kind)
{
    attn_tile tile = *run;
    run->ni = 0;
    for (tile.i0 = *i0; tile.i0 < end; tile.i0 += ATTN_TILE_QUERIES) {
        tile.ni = attn_smaller(ATTN_TILE_QUERIES, end - tile.i0);
        const attn_tile_kind found = mask->tile(mask->rule, head, &tile, documents);
        if (run->ni > 0 && found != *kind) break;
        if (found == ATTN_TILE_EMPTY) continue;
        if (run->ni == 0) run->i0 = tile.i0;
        run->ni += tile.ni;
        *kind = found;
    }
    *i0 = run->ni > 0 ? run->i0 + run->ni : end;
    return run->ni > 0;
}

void attn_tile_finish_scores(const attn_tile_rule *rule, const attn_kernels *kernels, size_t head,
                             const attn_tile *tile, attn_tile_kind kind, const uint32_t *documents,
                             float scale, float *s, size_t s_row, float *slope, size_t slope_row)
{
    const attn_score *f = rule->score;
    if (f) f->modify(f->self, kernels, head, tile, documents, scale, s, s_row, slope, slope_row);
    const size_t i0 = tile->i0, ni = tile->ni;
    if (kind == ATTN_TILE_FULL && (!documents || documents[i0 + ni - 1] <= tile->j0)) return;
    for (size_t i = 0; i < ni; i++)
        rule->mask.hide(rule->mask.rule, head, i0 + i, tile->j0, tile->nj,
                        documents ? documents[i0 + i] : 0, s + i * s_row);
}

/* Scores of a tile that is not empty, at s. */
static void score_tile(const forward_job *job, const query_block *block, const attn_tile *tile,
                       attn_tile_kind kind, float *s, size_t s_row, attn_work *work)
{
    const attn_tile_rule *rule = &job->call->rule;
    const attn_kernels *kernels = job->call->context->kernels;
    const attn_tile_shape *shape = &job->call->shape;
    const size_t dk = shape->key_width;
    attn_ahead_product(kernels, block->ahead, tile->ni, tile->nj, dk,
                       block->q + (tile->i0 - block->i0) * dk, dk, 1, block->keys + tile->j0 * dk,
                       ATTN_TILE_KEYS, s, s_row, false);
    attn_tile_finish_scores(rule, kernels, block->head, tile, kind, block->documents, job->scale, s,
                            s_row, NULL, 0);
    const uint64_t pairs = (uint64_t)tile->ni * tile->nj;
    work->matmul += 2 * pairs * (dk + shape->value_width);
    work->other += kind == ATTN_TILE_FULL ? 0 : pairs;
    if (rule->score) attn_work_add(work, attn_work_times(rule->score->value, pairs));
}

/* O += P V for the queries of `tile` and the `n` keys from j0 on whose scores lie at s. */
static void add_values(const forward_job *job, const query_block *block, const attn_tile *tile,
                       size_t j0, size_t n, float *s, size_t s_row, attn_work *work)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const size_t dv = job->call->shape.value_width, at = tile->i0 - block->i0;
    const attn_running_rows state = {.top = block->top + at,
                                     .total = block->total + at * ATTN_RUNNING_SUMS,
                                     .o = block->o + at * dv,
                                     .o_row = dv,
                                     .width = dv,
                                     .has_whole_tops = job->call->shape.dtype == ATTN_BF16};
    kernels->running_softmax(tile->ni, n, job->factor, s, s_row, &state);
    attn_tile_round_rows(job->call, tile->ni, n, s, s_row);
    kernels->product(tile->ni, dv, n, s, s_row, 1, block->values + j0 * dv, dv, state.o, dv, true);
    /* per score a scale, maximum, difference and sum */
    work->exponential += (uint64_t)tile->ni * n;
    work->other += (uint64_t)4 * tile->ni * n;
}

/* Two tiles of keys side by side, and queries that see both of them alike. */
typedef struct pair_run {
    size_t i0, ni;
    attn_tile_kind kinds[2];
} pair_run;

static attn_tile_kind kind_of(const forward_job *job, const query_block *block, size_t i0,
                              size_t ni, size_t j0)
{
    const attn_mask *mask = &job->call->rule.mask;
    const size_t S = job->call->shape.keys;
    if (j0 >= S) return ATTN_TILE_EMPTY;
    const attn_tile tile = {i0, ni, j0, attn_smaller(ATTN_TILE_KEYS, S - j0)};
    return mask->tile(mask->rule, block->head, &tile, block->documents);
}

/* The next run from *i0 on, with *i0 behind it, of queries that see keys of the pair at j0. False: no
 * more. */
static bool next_pair_run(const forward_job *job, const query_block *block, size_t j0, size_t *i0,
                          pair_run *run)
{
    const size_t end = block->i0 + block->ni;
    run->ni = 0;
    for (size_t i = *i0; i < end; i += ATTN_TILE_QUERIES) {
        const size_t ni = attn_smaller(ATTN_TILE_QUERIES, end - i);
        const attn_tile_kind first = kind_of(job, block, i, ni, j0);
        const attn_tile_kind second = kind_of(job, block, i, ni, j0 + ATTN_TILE_KEYS);
        if (run->ni > 0 && (first != run->kinds[0] || second != run->kinds[1])) break;
        if (first == ATTN_TILE_EMPTY && second == ATTN_TILE_EMPTY) continue;
        if (run->ni == 0) *run = (pair_run){.i0 = i, .kinds = {first, second}};
        run->ni += ni;
    }
    *i0 = run->ni > 0 ? run->i0 + run->ni : end;
    return run->ni > 0;
}

/* What products ask for before the pair at j0: its keys and values, since a head's do not fit the
 * second cache, or just so; nothing when no query sees it. */
static attn_ahead pair_ahead(const attn_tile_call *call, const query_block *block, bool is_seen,
                             size_t j0)
{
    const size_t dk = call->shape.key_width, dv = call->shape.value_width;
    attn_ahead ahead = {0};
    if (!is_seen) return ahead;
    ahead.rows = attn_smaller(PAIR_KEYS, call->shape.keys - j0);
    attn_ahead_add(&ahead, dk, block->keys + j0 * dk, dk, false);
    attn_ahead_add(&ahead, dv, block->values + j0 * dv, dv, false);
    return ahead;
}

/* Two tiles of keys stay near for all queries of the block, which go by them in steps that suit the
 * product better than a tile does. One softmax and one product with values for both: sums of O are
 * loaded and stored half as often as for each tile alone. */
static void run_online(const forward_job *job, const query_block *block, attn_work *work)
{
    const size_t S = job->call->shape.keys;
    const size_t s_row = attn_smaller(PAIR_KEYS, attn_packed_count(S, 1));
    for (size_t j0 = 0; j0 < S; j0 += PAIR_KEYS) {
        pair_run run;
        size_t next = block->i0;
        const bool is_seen = next_pair_run(job, block, j0 + PAIR_KEYS, &next, &run);
        *block->ahead = pair_ahead(job->call, block, is_seen, j0 + PAIR_KEYS);
        for (size_t i0 = block->i0; next_pair_run(job, block, j0, &i0, &run);) {
            const size_t first = run.kinds[0] == ATTN_TILE_EMPTY ? ATTN_TILE_KEYS : 0;
            const size_t last = run.kinds[1] == ATTN_TILE_EMPTY ? ATTN_TILE_KEYS : PAIR_KEYS;
            const size_t end = attn_smaller(last, S - j0);
            for (size_t i = run.i0; i < i0; i += STEP_QUERIES) {
                attn_tile step = {.i0 = i, .ni = attn_smaller(STEP_QUERIES, i0 - i)};
                for (size_t j = first; j < end; j += ATTN_TILE_KEYS) {
                    step.j0 = j0 + j;
                    step.nj = attn_smaller(ATTN_TILE_KEYS, end - j);
                    score_tile(job, block, &step, run.kinds[j / ATTN_TILE_KEYS], block->s + j,
                               s_row, work);
                    work->other += step.ni; /* a look at a row's reference, one for each tile */
                }
                add_values(job, block, &step, j0 + first, end - first, block->s + first, s_row,
                           work);
            }
        }
    }
}

/* Scores of all tiles that some queries see side by side, then one softmax. */
static void run_rows(const forward_job *job, const query_block *block, attn_work *work)
{
    const size_t S = job->call->shape.keys, block_end = block->i0 + block->ni;
    const size_t s_row = attn_packed_count(S, 1);
    const attn_mask *mask = &job->call->rule.mask;
    attn_tile tile;
    for (tile.i0 = block->i0; tile.i0 < block_end; tile.i0 += ATTN_TILE_QUERIES) {
        size_t first = 0, end = 0;
        tile.ni = attn_smaller(ATTN_TILE_QUERIES, block_end - tile.i0);
        for (tile.j0 = 0; tile.j0 < S; tile.j0 += ATTN_TILE_KEYS) {
            tile.nj = attn_smaller(ATTN_TILE_KEYS, S - tile.j0);
            const attn_tile_kind kind =
                mask->tile(mask->rule, block->head, &tile, block->documents);
            if (kind == ATTN_TILE_EMPTY) continue;
            score_tile(job, block, &tile, kind, block->s + tile.j0, s_row, work);
            if (end == 0) first = tile.j0;
            end = tile.j0 + tile.nj;
        }
        add_values(job, block, &tile, first, end - first, block->s + first, s_row, work);
        work->other += tile.ni;
    }
}

static void store_output(const forward_job *job, const query_block *block, size_t b)
{
    const attn_tile_call *call = job->call;
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->shape.queries, dv = call->shape.value_width;
    float *saved = NULL;
    if (call->saved)
        saved = call->saved + 2 * (b * call->shape.heads + block->head) * T + block->i0;
    for (size_t i = 0; i < block->ni; i++) {
        const float total = kernels->sum(ATTN_RUNNING_SUMS, block->total + i * ATTN_RUNNING_SUMS);
        if (saved) {
            saved[i] = block->top[i];
            saved[T + i] = total;
        }
        block->top[i] = total == 0.0f ? 0.0f : 1.0f / total;
    }
    kernels->store_rows(block->ni, dv, 1.0f, block->top, block->o, dv, block->to, call->o_at.row);
}

/* Blocks of queries of one query head after the other, of those that share key/value head `head`; late
 * blocks, which see the most keys, go first. */
static void run_block(void *argument, size_t place, size_t head, size_t index, size_t worker)
{
    forward_job *job = argument;
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const size_t T = shape->queries, dk = shape->key_width, dv = shape->value_width;
    const size_t block_index = job->query_blocks - 1 - index % job->query_blocks;
    const size_t b = head / shape->kv_heads, group = shape->heads / shape->kv_heads;
    const size_t h = head % shape->kv_heads * group + index / job->query_blocks;
    float *room = job->workers + worker * forward_worker(shape);

    attn_ahead ahead = {0};
    query_block block = {.head = h, .i0 = block_index * FORWARD_QUERIES, .ahead = &ahead};
    block.ni = attn_smaller(FORWARD_QUERIES, T - block.i0);
    block.keys = job->keys + place * attn_packed_count(shape->keys, dk);
    block.values = job->values + place * attn_packed_count(shape->keys, dv);
    block.to = call->o + (b * T + block.i0) * call->o_at.row + h * call->o_at.head;
    block.documents = call->document_start ? call->document_start + b * T : NULL;
    block.q = attn_cut(&room, FORWARD_QUERIES * dk);
    block.o = attn_cut(&room, FORWARD_QUERIES * dv);
    block.total = attn_cut(&room, FORWARD_QUERIES * ATTN_RUNNING_SUMS);
    block.top = attn_cut(&room, FORWARD_QUERIES);
    block.s = room;
    attn_take_rows(call->context->kernels, block.ni, dk,
                   attn_tile_rows(call->q, call->q_at, b * T + block.i0, h), block.q);
    attn_tile_round(call, block.ni * dk, block.q);
    for (size_t i = 0; i < block.ni; i++) block.top[i] = ATTN_RUNNING_START;
    memset(block.total, 0, block.ni * ATTN_RUNNING_SUMS * sizeof *block.total);
    memset(block.o, 0, block.ni * dv * sizeof *block.o);

    attn_work *work = &job->tally.of[worker];
    if (call->rule.order == ATTN_TILE_ROWS)
        run_rows(job, &block, work);
    else
        run_online(job, &block, work);
    store_output(job, &block, b);
    attn_end_stores();
    work->other += (uint64_t)block.ni * (dv + 1);
}

void attn_tile_forward(const attn_tile_call *call)
{
#if defined(__x86_64__)
    if (attn_half_applies(call)) {
        attn_half_forward(call);
        return;
    }
#endif
    const attn_tile_shape *shape = &call->shape;
    const size_t heads = shape->batch * shape->kv_heads, threads = call->context->threads;
    const size_t together = packed_heads(shape, threads);
    float *room = call->scratch;
    forward_job job = {.call = call,
                       .scale = attn_tile_scale(shape),
                       .factor = attn_tile_factor(&call->rule, shape),
                       .query_blocks = (shape->queries + FORWARD_QUERIES - 1) / FORWARD_QUERIES};
    job.keys = attn_cut(&room, together * attn_packed_count(shape->keys, shape->key_width));
    job.values = attn_cut(&room, together * attn_packed_count(shape->keys, shape->value_width));
    job.workers = room;
    attn_tile_run_heads(
        &(attn_tile_heads){.job = &job,
                           .heads = heads,
                           .together = together,
                           .keys = shape->keys,
                           .blocks = shape->heads / shape->kv_heads * job.query_blocks,
                           .pack = pack_head,
                           .run = run_block},
        threads);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}
