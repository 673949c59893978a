/* mla: backward. The rows of x's product and o are kept; c, q, k and v are made again. */
#include "mechanisms/exact_core.h"
#include "mechanisms/mla.h"

#include <string.h>

/* From dk, beside dv: the gradients of k_c, of k_r, which all heads share, and of q before its
 * rotation. */
static void part_block(void *argument, size_t index, size_t worker)
{
    attn_mla_run *run = argument;
    const attn_mla_sizes *z = &run->z;
    const attn_counted on = attn_mla_counted(run, worker);
    size_t first = 0;
    const size_t end = attn_mla_block(run, index, &first);
    for (size_t row = first; row < end; row++) {
        float *dk_r = run->d.x + row * z->row + z->latent + z->kv_rank;
        for (size_t h = 0; h < z->heads; h++) {
            const float *dk = run->d.k + row * z->k_at.row + h * z->key;
            memcpy(run->d.kv + row * z->kv_at.row + h * z->kv_at.head, dk, z->nope * sizeof *dk);
            if (h == 0)
                memcpy(dk_r, dk + z->nope, z->rope * sizeof *dk);
            else
                attn_counted_add(on, z->rope, dk + z->nope, dk_r);
        }
        attn_mla_turn(run, on, row, -1.0f, dk_r);
        attn_mla_turn_queries(run, on, row, -1.0f, run->d.q + row * z->q_at.row);
    }
}

/* Back through w o norm(u): `d` holds the gradient of that and becomes u's; `sum` += w's. `n` is
 * room for norm(u). */
static void norm_gradient(attn_counted on, size_t count, const float *weight, const float *u,
                          float *n, float *d, float *sum)
{
    const float factor = attn_counted_norm(on, count, u, n);
    attn_counted_add_product(on, count, d, n, sum);
    attn_counted_multiply(on, count, weight, d);
    attn_counted_norm_gradient(on, count, n, factor, d);
}

/* The norms; at.c and at.cq serve as room. */
static void norm_block(void *argument, size_t index, size_t worker)
{
    attn_mla_run *run = argument;
    const attn_mla_sizes *z = &run->z;
    const attn_counted on = attn_mla_counted(run, worker);
    float *sum = run->sums + index * (z->kv_rank + z->q_rank);
    size_t first = 0;
    const size_t end = attn_mla_block(run, index, &first);
    memset(sum, 0, (z->kv_rank + z->q_rank) * sizeof *sum);
    for (size_t row = first; row < end; row++) {
        const float *x = run->at.x + row * z->row;
        float *dx = run->d.x + row * z->row;
        float *dc = run->d.c + row * z->kv_rank, *dcq = run->d.cq + row * z->q_rank;
        norm_gradient(on, z->kv_rank, attn_mla_weight(run, ATTN_MLA_KV_NORM), x + z->latent,
                      run->at.c + row * z->kv_rank, dc, sum);
        memcpy(dx + z->latent, dc, z->kv_rank * sizeof *dc);
        if (!z->q_rank) continue;
        norm_gradient(on, z->q_rank, attn_mla_weight(run, ATTN_MLA_Q_NORM), x,
                      run->at.cq + row * z->q_rank, dcq, sum + z->kv_rank);
        memcpy(dx, dcq, z->q_rank * sizeof *dcq);
    }
}

/* The blocks' sums, in their order, to the gradients of the norms' weights. */
static void sum_norms(attn_mla_run *run, float *d_kv_norm, float *d_q_norm)
{
    const attn_mla_sizes *z = &run->z;
    const attn_counted on = attn_mla_counted(run, 0);
    memset(d_kv_norm, 0, z->kv_rank * sizeof *d_kv_norm);
    if (z->q_rank) memset(d_q_norm, 0, z->q_rank * sizeof *d_q_norm);
    for (size_t row = 0; row < run->rows; row += ATTN_MLA_BLOCK) {
        const float *sum = run->sums + row / ATTN_MLA_BLOCK * (z->kv_rank + z->q_rank);
        attn_counted_add(on, z->kv_rank, sum, d_kv_norm);
        if (z->q_rank) attn_counted_add(on, z->q_rank, sum + z->kv_rank, d_q_norm);
    }
}

static float *gradient_of(const attn_mla_run *run, size_t parameter)
{
    return run->call->gradients + run->layer->parameters[parameter].offset;
}

/* Both gradients of one product of all rows. */
static void product_gradient(const attn_mla_run *run, size_t projection, const float *input,
                             const float *d_output, float *d_input)
{
    attn_projection_backward(run->context, run->layer, run->call, projection, run->rows, input,
                             d_output, d_input);
}

void attn_mla_backward(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    const attn_mla_sizes z = attn_mla_sizes_of(layer);
    const attn_visibility rule = attn_rule_all(layer);
    float *room = call->scratch, *kept = call->saved;
    attn_mla_run run = {.context = context,
                        .layer = layer,
                        .call = call,
                        .z = z,
                        .rows = call->batch * call->length};
    run.at = attn_mla_cut(&z, run.rows, &kept, &room);
    run.d = attn_mla_cut(&z, run.rows, &room, &room);
    run.angles = attn_cut(&room, attn_mla_angles_count(&z, call->length));
    run.sums = attn_cut(&room, attn_mla_sums_count(&z, run.rows));

    /* y = o Wo^T + b */
    product_gradient(&run, ATTN_MLA_OUT, run.at.o, call->dy, run.d.o);
    /* o = softmax(q k^T) v */
    attn_mla_prepare(&run, 0);
    attn_mla_expand(&run);
    attn_tile_call tiles = attn_mla_tiles(&run, &rule);
    tiles.saved = kept;
    tiles.scratch = room;
    tiles.d_o.single = run.d.o;
    tiles.dq.single = run.d.q;
    tiles.dk.single = run.d.k;
    tiles.dv.single = run.d.kv + z.nope;
    attn_tile_backward(&tiles);
    attn_mla_each_block(&run, part_block);
    /* [k_c | v] = c W_UKV^T, q = cq W_UQ^T */
    product_gradient(&run, ATTN_MLA_UP_KV, run.at.c, run.d.kv, run.d.c);
    if (z.q_rank) product_gradient(&run, ATTN_MLA_UP_Q, run.at.cq, run.d.q, run.d.cq);
    attn_mla_each_block(&run, norm_block);
    sum_norms(&run, gradient_of(&run, ATTN_MLA_KV_NORM),
              z.q_rank ? gradient_of(&run, ATTN_MLA_Q_NORM) : NULL);
    /* x W^T, for both weights that meet x */
    product_gradient(&run, ATTN_MLA_ROWS, call->x, run.d.x, call->dx);
    attn_tally_collect(&run.tally, context->threads, &context->work);
}
