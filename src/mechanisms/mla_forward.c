/* mla: forward, and what all passes share. Norms and rotations go by blocks of rows, products
 * over all rows at once. */
#include "mechanisms/exact_core.h"
#include "mechanisms/mla.h"
#include "mechanisms/rope.h"

#include <string.h>

/* ---- rows -------------------------------------------------------------------------------- */

size_t attn_mla_block(const attn_mla_run *run, size_t index, size_t *first)
{
    *first = index * ATTN_MLA_BLOCK;
    return attn_smaller(*first + ATTN_MLA_BLOCK, run->rows);
}

void attn_mla_each_block(attn_mla_run *run, attn_task *task)
{
    attn_parallel(run->context->threads, (run->rows + ATTN_MLA_BLOCK - 1) / ATTN_MLA_BLOCK, task,
                  run);
}

void attn_mla_turn(const attn_mla_run *run, attn_counted on, size_t row, float sign, float *u)
{
    const size_t T = run->call->length, half = run->z.rope / 2, t = row % T;
    const uint32_t *documents = run->call->document_start;
    const size_t p = documents ? t - documents[row] : t;
    const float *cosine = run->angles + p * half, *sine = cosine + T * half;
    on.kernels->rotate(half, cosine, sine, sign, u, u);
    on.work->other += 6 * (uint64_t)half;
}

void attn_mla_turn_queries(const attn_mla_run *run, attn_counted on, size_t row, float sign,
                           float *q)
{
    for (size_t h = 0; h < run->z.heads; h++)
        attn_mla_turn(run, on, row, sign, q + h * run->z.key + run->z.nope);
}

static void prepare_block(void *argument, size_t index, size_t worker)
{
    attn_mla_run *run = argument;
    const attn_mla_sizes *z = &run->z;
    const attn_counted on = attn_mla_counted(run, worker);
    size_t first = 0;
    const size_t end = attn_mla_block(run, index, &first);
    for (size_t row = first; row < end; row++) {
        float *x = run->at.x + row * z->row, *u = x + z->latent;
        float *c = run->at.c + row * z->kv_rank, *cq = run->at.cq + row * z->q_rank;
        attn_counted_norm(on, z->kv_rank, u, c);
        attn_counted_multiply(on, z->kv_rank, attn_mla_weight(run, ATTN_MLA_KV_NORM), c);
        if (run->is_new) attn_mla_turn(run, on, row, 1.0f, u + z->kv_rank);
        if (z->q_rank) {
            attn_counted_norm(on, z->q_rank, x, cq);
            attn_counted_multiply(on, z->q_rank, attn_mla_weight(run, ATTN_MLA_Q_NORM), cq);
        } else if (run->is_new) {
            attn_mla_turn_queries(run, on, row, 1.0f, x);
        }
    }
}

static void turn_block(void *argument, size_t index, size_t worker)
{
    attn_mla_run *run = argument;
    size_t first = 0;
    const size_t end = attn_mla_block(run, index, &first);
    for (size_t row = first; row < end; row++)
        attn_mla_turn_queries(run, attn_mla_counted(run, worker), row, 1.0f,
                              run->at.q + row * run->z.q_at.row);
}

void attn_mla_prepare(attn_mla_run *run, size_t position)
{
    const attn_mla_sizes *z = &run->z;
    const size_t T = run->call->length, half = z->rope / 2;
    attn_rope_fill(position, T, half, run->angles, run->angles + T * half);
    run->context->work.other += 6 * (uint64_t)T * half;
    attn_mla_each_block(run, prepare_block);
    if (!z->q_rank) return;
    attn_projection_forward(run->context, run->layer, run->call, ATTN_MLA_UP_Q, run->rows,
                            run->at.cq, run->at.q);
    attn_mla_each_block(run, turn_block);
}

/* k_h = [k_c,h | k_r] */
static void join_block(void *argument, size_t index, size_t worker)
{
    (void)worker;
    attn_mla_run *run = argument;
    const attn_mla_sizes *z = &run->z;
    size_t first = 0;
    const size_t end = attn_mla_block(run, index, &first);
    for (size_t row = first; row < end; row++) {
        const float *k_r = run->at.x + row * z->row + z->latent + z->kv_rank;
        for (size_t h = 0; h < z->heads; h++) {
            float *k = run->at.k + row * z->k_at.row + h * z->key;
            memcpy(k, run->at.kv + row * z->kv_at.row + h * z->kv_at.head, z->nope * sizeof *k);
            memcpy(k + z->nope, k_r, z->rope * sizeof *k);
        }
    }
}

void attn_mla_expand(attn_mla_run *run)
{
    attn_projection_forward(run->context, run->layer, run->call, ATTN_MLA_UP_KV, run->rows,
                            run->at.c, run->at.kv);
    attn_mla_each_block(run, join_block);
}

void attn_mla_project(attn_mla_run *run)
{
    attn_projection_forward(run->context, run->layer, run->call, ATTN_MLA_ROWS, run->rows,
                            run->call->x, run->at.x);
    run->is_new = true;
}

void attn_mla_store(const attn_mla_run *run, size_t position)
{
    const attn_mla_sizes *z = &run->z;
    const attn_call *call = run->call;
    const size_t slot = z->kv_rank + z->rope;
    for (size_t row = 0; row < run->rows; row++) {
        const size_t b = row / call->length, t = position + row % call->length;
        float *to = call->cache + (b * call->cache_capacity + t) * slot;
        const float *k_r = run->at.x + row * z->row + z->latent + z->kv_rank;
        memcpy(to, run->at.c + row * z->kv_rank, z->kv_rank * sizeof *to);
        memcpy(to + z->kv_rank, k_r, z->rope * sizeof *to);
    }
}

attn_tile_call attn_mla_tiles(const attn_mla_run *run, const attn_visibility *rule)
{
    const attn_mla_sizes *z = &run->z;
    return (attn_tile_call){.context = run->context,
                            .shape = attn_mla_shape(z, run->call->batch, run->call->length),
                            .rule = attn_rule_tiles(rule, ATTN_TILE_ONLINE),
                            .document_start = run->call->document_start,
                            .q_at = z->q_at,
                            .k_at = z->k_at,
                            .v_at = z->kv_at,
                            .o_at = z->o_at,
                            .q = {.single = run->at.q},
                            .k = {.single = run->at.k},
                            .v = {.single = run->at.kv + z->nope},
                            .o = run->at.o};
}

/* ---- forward ----------------------------------------------------------------------------- */

void attn_mla_forward(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    const attn_mla_sizes z = attn_mla_sizes_of(layer);
    const attn_visibility rule = attn_rule_all(layer);
    float *room = call->scratch, *kept = call->saved;
    attn_mla_run run = {.context = context,
                        .layer = layer,
                        .call = call,
                        .z = z,
                        .rows = call->batch * call->length};
    run.at = attn_mla_cut(&z, run.rows, kept ? &kept : &room, &room);
    run.angles = attn_cut(&room, attn_mla_angles_count(&z, call->length));

    attn_mla_project(&run);
    attn_mla_prepare(&run, 0);
    attn_mla_expand(&run);
    attn_tile_call tiles = attn_mla_tiles(&run, &rule);
    tiles.saved = kept;
    tiles.scratch = room;
    attn_tile_forward(&tiles);
    if (call->cache) attn_mla_store(&run, 0);
    attn_projection_forward(context, layer, call, ATTN_MLA_OUT, run.rows, run.at.o, call->y);
    attn_tally_collect(&run.tally, context->threads, &context->work);
}
