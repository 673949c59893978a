/* Which tokens share a bucket, and their order.
 *
 * A bucket is a decision, and one that float32 numbers take differently in another order of sums:
 * with another instruction set, in another batch, when decoding, and against the definition. Another
 * bucket is another output. Here the bucket is that of q in double, always: float32 decides where
 * the largest of [q R, -q R] leads by more than rounding can have moved it, and where it does not,
 * about one time in a hundred, q is computed again in double from x. The bound is probabilistic
 * (Higham & Mary 2019): a float32 sum of n products errs by less than lambda sqrt(n) u |x| |w|; the
 * projections must be done in float32. What is computed again depends on data and is counted
 * nowhere; it is below 1 % of the layer's work. */
#include "mechanisms/lsh.h"

#include "mechanisms/tile_engine.h"

#include <math.h>
#include <string.h>

static const double unit = 0x1p-24, lambda = 2.0;

static size_t rotations_of(const attn_layer *layer)
{
    return layer->options[ATTN_LSH_BUCKETS].size / 2;
}

static const float *parameter(const attn_lsh *run, const char *name)
{
    return run->call->parameters + attn_layer_offset(run->layer, name);
}

/* R_r [d][buckets / 2] */
static const float *rotation(const attn_lsh *run, size_t r)
{
    return parameter(run, "rotations.weight") + r * run->d * (run->buckets / 2);
}

/* ---- sizes ------------------------------------------------------------------------------- */

/* [B][T] of (x, 1), [H] of (W_h, b_h) with the largest column of R and the factors of the bound */
size_t attn_lsh_measure_count(const attn_layer *layer, size_t batch, size_t length)
{
    return batch * length + layer->heads;
}

static double largest_rotation(const attn_lsh *run)
{
    const size_t n = run->buckets / 2;
    double largest = 0.0;
    for (size_t r = 0; r < run->rounds; r++)
        for (size_t j = 0; j < n; j++) {
            const float *column = rotation(run, r) + j;
            double square = 0.0;
            for (size_t f = 0; f < run->d; f++)
                square += (double)column[f * n] * (double)column[f * n];
            largest = fmax(largest, square);
        }
    return sqrt(largest);
}

static void measure_head(const attn_lsh *run, size_t h, float *out)
{
    const attn_kernels *kernels = run->context->kernels;
    const double weights =
        kernels->sum_squares(run->d * run->C, parameter(run, "wqk.weight") + h * run->d * run->C);
    const double biases = kernels->sum_squares(run->d, parameter(run, "wqk.bias") + h * run->d);
    *out = (float)(lambda * unit * sqrt((double)(run->C + run->d)) * sqrt(weights + biases) *
                   largest_rotation(run));
}

static void measure(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const attn_lsh *run = argument;
    const size_t rows = run->call->batch * run->T;
    if (index < run->H) {
        measure_head(run, index, run->measures + rows + index);
        return;
    }
    const size_t i0 = (index - run->H) * ATTN_TILE_QUERIES;
    const size_t end = attn_smaller(rows, i0 + ATTN_TILE_QUERIES);
    for (size_t i = i0; i < end; i++)
        run->measures[i] = (float)sqrt(
            1.0 + run->context->kernels->sum_squares(run->C, run->call->x + i * run->C));
}

void attn_lsh_measure(attn_lsh *run)
{
    const size_t rows = run->call->batch * run->T;
    attn_parallel(run->context->threads,
                  run->H + (rows + ATTN_TILE_QUERIES - 1) / ATTN_TILE_QUERIES, measure, run);
    attn_work_add(&run->context->work, (attn_work){.matmul = 2 * (uint64_t)rows * run->C});
    attn_work_add(
        &run->context->work,
        attn_work_times((attn_work){.matmul = 2 * (uint64_t)run->d * (run->C + 1) +
                                              run->rounds * run->buckets * (uint64_t)run->d},
                        run->H));
}

attn_work attn_lsh_measure_work(const attn_layer *layer, size_t batch, size_t length)
{
    const uint64_t C = layer->d_model, H = layer->heads, d = layer->head_dim;
    const uint64_t columns = layer->options[ATTN_LSH_ROUNDS].size * rotations_of(layer);
    return (attn_work){.matmul = 2 * batch * length * C + 2 * C * (C + 1) + 2 * H * columns * d};
}

/* ---- hashing ----------------------------------------------------------------------------- */

/* u = q R of a tile, or q in double and what aligns it. */
size_t attn_lsh_hash_room(const attn_layer *layer)
{
    const size_t tile = ATTN_TILE_QUERIES * rotations_of(layer), exact = 2 * layer->head_dim + 1;
    return tile > exact ? tile : exact;
}

/* The first index of the largest of [u, -u], and by how much it leads. */
typedef struct leader {
    size_t index;
    float lead;
} leader;

static leader find_leader(size_t n, const float *u)
{
    size_t largest = 0;
    float size = fabsf(u[0]), second = -size; /* its own opposite comes last */
    for (size_t j = 1; j < n; j++) {
        const float other = fabsf(u[j]);
        second = fmaxf(second, fminf(size, other));
        if (other > size) size = other, largest = j;
    }
    return (leader){.index = u[largest] < 0.0f ? n + largest : largest, .lead = size - second};
}

static size_t find_exactly(size_t n, size_t d, const double *q, const float *columns)
{
    double top = -INFINITY, bottom = INFINITY;
    size_t highest = 0, lowest = 0;
    for (size_t j = 0; j < n; j++) {
        double u = 0.0;
        for (size_t f = 0; f < d; f++) u += q[f] * (double)columns[f * n + j];
        if (u > top) top = u, highest = j;
        if (u < bottom) bottom = u, lowest = j;
    }
    return top < -bottom ? n + lowest : highest;
}

void attn_lsh_hash_exactly(const attn_lsh *run, size_t h, const float *x, float *q, float *buckets,
                           size_t apart, float *room)
{
    const size_t d = run->d, C = run->C;
    const float *w = parameter(run, "wqk.weight") + h * d * C;
    const float *bias = parameter(run, "wqk.bias") + h * d;
    double *wide = (double *)(void *)((uintptr_t)room % sizeof *wide ? room + 1 : room);
    for (size_t f = 0; f < d; f++) {
        wide[f] = run->context->kernels->dot_double(C, x, w + f * C) + (double)bias[f];
        if (q) q[f] = (float)wide[f];
    }
    for (size_t r = 0; r < run->rounds; r++)
        buckets[r * apart] = (float)find_exactly(run->buckets / 2, d, wide, rotation(run, r));
}

attn_work attn_lsh_hash_exactly_work(const attn_layer *layer)
{
    const uint64_t C = layer->d_model, d = layer->head_dim;
    const uint64_t columns = layer->options[ATTN_LSH_ROUNDS].size * rotations_of(layer);
    return (attn_work){.matmul = 2 * d * (C + columns), .other = d + 2 * columns};
}

/* A tile of tokens from t0 on; DOUBT where float32 cannot tell. */
static const float DOUBT = -1.0f;

static void hash_tile(const attn_lsh *run, size_t b, size_t h, size_t t0, size_t n, float *buckets,
                      float *u, attn_work *work)
{
    const size_t T = run->T, d = run->d, columns = run->buckets / 2;
    const float *sizes = run->measures + b * T + t0;
    const float slack = run->measures[run->call->batch * T + h];
    const float *q = run->rows + (b * T + t0) * 2 * run->C + h * d;
    for (size_t r = 0; r < run->rounds; r++) {
        run->context->kernels->product(n, columns, d, q, 2 * run->C, 1, rotation(run, r), columns,
                                       u, columns, false);
        for (size_t i = 0; i < n; i++) {
            const leader found = find_leader(columns, u + i * columns);
            const bool is_sure = found.lead > 2.0f * slack * sizes[i];
            buckets[r * T + t0 + i] = is_sure ? (float)found.index : DOUBT;
        }
        work->matmul += 2 * (uint64_t)n * d * columns;
        work->other += 3 * (uint64_t)n * columns;
    }
}

void attn_lsh_hash(const attn_lsh *run, size_t b, size_t h, float *buckets, float *room,
                   attn_work *work)
{
    const size_t T = run->T;
    for (size_t t0 = 0; t0 < T; t0 += ATTN_TILE_QUERIES)
        hash_tile(run, b, h, t0, attn_smaller(ATTN_TILE_QUERIES, T - t0), buckets, room, work);
    for (size_t t = 0; t < T; t++) {
        bool is_sure = true;
        for (size_t r = 0; r < run->rounds; r++) is_sure = is_sure && buckets[r * T + t] != DOUBT;
        if (!is_sure)
            attn_lsh_hash_exactly(run, h, run->call->x + (b * T + t) * run->C, NULL, buckets + t, T,
                                  room);
    }
}

attn_work attn_lsh_hash_work(const attn_layer *layer, size_t length)
{
    const uint64_t columns = layer->options[ATTN_LSH_ROUNDS].size * rotations_of(layer);
    return (attn_work){.matmul = 2 * length * layer->head_dim * columns,
                       .other = 3 * length * columns};
}

/* ---- order ------------------------------------------------------------------------------- */

size_t attn_lsh_order_room(const attn_layer *layer, size_t length)
{
    return 2 * length + layer->options[ATTN_LSH_BUCKETS].size;
}

/* Counting sort: stable, so that tokens of a bucket stay in the order of their positions. */
attn_lsh_order attn_lsh_sort(const attn_lsh *run, const uint32_t *documents, const float *buckets,
                             float *room)
{
    const size_t T = run->T;
    const attn_lsh_order order = {.token = (uint32_t *)(void *)room,
                                  .first = (uint32_t *)(void *)room + T};
    uint32_t *next = order.first + T, start = 0; /* next place in each bucket */
    memset(next, 0, run->buckets * sizeof *next);
    for (size_t t = 0; t < T; t++) next[(size_t)buckets[t]]++;
    for (size_t k = 0; k < run->buckets; k++) {
        const uint32_t count = next[k];
        next[k] = start;
        start += count;
    }
    for (size_t t = 0; t < T; t++) order.token[next[(size_t)buckets[t]]++] = (uint32_t)t;
    start = 0;
    for (uint32_t p = 0; p < T; p++) {
        const uint32_t t = order.token[p], before = p ? order.token[p - 1] : t;
        if (buckets[t] != buckets[before] || (documents && documents[t] != documents[before]))
            start = p;
        order.first[p] = p - start > run->reach ? p - (uint32_t)run->reach : start;
    }
    return order;
}
