/* AdamW over pieces of the trained tensors: one pass that reads gradients, moments and
 * parameters once and packs the weights of a bfloat16 model while they are near, after one pass for
 * the gradients' norm when they are to be clipped. */
#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "kernels/context.h"
#include "kernels/dense_bf16.h"
#include "model/training_internal.h"

#include <math.h>

enum { PIECE_NUMBERS = 1 << 16 };

attn_adamw attn_adamw_default(void)
{
    return (attn_adamw){.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .decay = 0.01};
}

/* The weights of the product that a tensor belongs to, when its rows can be packed without those of
 * another tensor: it begins and ends at whole strips, or ends the product. */
static const attn_model_weights *weights_of(const attn_model *model, const attn_model_tensor *t)
{
    size_t n = 0;
    const attn_model_weights *all = attn_model_product_weights(model, &n);
    for (size_t i = 0; i < n; i++) {
        const attn_model_weights *w = &all[i];
        if (t->offset < w->offset || t->offset - w->offset >= w->out * w->in) continue;
        const size_t first = t->offset - w->offset, end = first + t->count;
        const size_t strip = ATTN_DENSE_BF16_ROWS * w->in;
        return first % strip == 0 && (end % strip == 0 || end == w->out * w->in) ? w : NULL;
    }
    return NULL;
}

/* Numbers of a tensor's pieces. */
static size_t piece_numbers(const attn_model_weights *w)
{
    if (!w) return PIECE_NUMBERS;
    const size_t strip = ATTN_DENSE_BF16_ROWS * w->in;
    return strip < PIECE_NUMBERS ? PIECE_NUMBERS / strip * strip : strip;
}

attn_status attn_trainer_cut(attn_trainer *trainer, attn_error *error)
{
    size_t n_tensors = 0, n = 0, n_packed = 0;
    const attn_model_tensor *tensors = attn_model_tensors(trainer->model, &n_tensors);
    for (size_t i = 0; i < n_tensors; i++) {
        const size_t most = piece_numbers(weights_of(trainer->model, &tensors[i]));
        if (tensors[i].is_trained) n += (tensors[i].count + most - 1) / most;
    }
    trainer->pieces = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *trainer->pieces);
    trainer->squares = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *trainer->squares);
    if (!trainer->pieces || !trainer->squares)
        return attn_fail(error, ATTN_EMEMORY, "no memory for a trainer");
    for (size_t i = 0; i < n_tensors; i++) {
        const attn_model_tensor *t = &tensors[i];
        const attn_model_weights *w = weights_of(trainer->model, t);
        const size_t most = piece_numbers(w);
        for (size_t first = 0; t->is_trained && first < t->count; first += most) {
            attn_update_piece *piece = &trainer->pieces[trainer->n_pieces++];
            *piece = (attn_update_piece){.offset = t->offset + first,
                                         .count = t->count - first < most ? t->count - first : most,
                                         .is_decayed = t->is_decayed};
            if (!w) continue;
            const size_t row = (piece->offset - w->offset) / w->in;
            piece->in = w->in;
            piece->packed = w->packed + attn_dense_bf16_packed(row, w->in);
            n_packed += piece->count;
        }
    }
    size_t n_weights = 0, wanted = 0;
    const attn_model_weights *weights = attn_model_product_weights(trainer->model, &n_weights);
    for (size_t i = 0; i < n_weights; i++) wanted += weights[i].out * weights[i].in;
    trainer->packs_apart = n_packed != wanted;
    return ATTN_OK;
}

static void sum_piece(void *argument, size_t index, size_t worker)
{
    (void)worker;
    attn_trainer *t = argument;
    const attn_update_piece *piece = &t->pieces[index];
    t->squares[index] =
        t->context->kernels->sum_squares(piece->count, t->gradients + piece->offset);
}

static double gradient_norm(attn_trainer *t)
{
    attn_parallel(t->context->threads, t->n_pieces, sum_piece, t);
    double squares = 0.0;
    for (size_t i = 0; i < t->n_pieces; i++) squares += t->squares[i];
    /* a square and an addition each, and the scaling inside the update */
    t->context->work.other += 3 * (uint64_t)attn_model_parameter_count(t->model);
    return sqrt(squares);
}

typedef struct update_job {
    attn_trainer *trainer;
    attn_adamw_step decayed, plain;
} update_job;

static void update_piece(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const update_job *job = argument;
    attn_trainer *t = job->trainer;
    const attn_update_piece *piece = &t->pieces[index];
    const size_t at = piece->offset;
    t->context->kernels->adamw(piece->count, piece->is_decayed ? &job->decayed : &job->plain,
                               t->gradients + at, t->moment1 + at, t->moment2 + at,
                               attn_model_parameters(t->model) + at);
    if (piece->in && !t->packs_apart)
        attn_dense_bf16_pack_rows(t->context, piece->count / piece->in, piece->in,
                                  attn_model_parameters(t->model) + at,
                                  attn_model_packed(t->model) + piece->packed);
}

attn_status attn_trainer_update(attn_trainer *trainer, const attn_adamw *adamw,
                                double learning_rate, double *norm, attn_error *error)
{
    if (!trainer->gradients)
        return attn_fail(error, ATTN_EARGUMENT, "this trainer was made for evaluation alone");
    const uint64_t since = attn_clock_ns();
    double taken = NAN, scale = 1.0;
    if (adamw->max_norm > 0.0) {
        taken = gradient_norm(trainer);
        if (!isfinite(taken))
            return attn_fail(error, ATTN_EARGUMENT,
                             "step %zu: the gradients' norm is not finite; the run diverged, take "
                             "a smaller learning rate",
                             trainer->steps + 1);
        scale = fmin(1.0, adamw->max_norm / (taken + 1e-6));
    }
    trainer->steps++;
    /* the kernel works with the betas as floats: corrections from the same numbers cancel */
    const float beta1 = (float)adamw->beta1, beta2 = (float)adamw->beta2;
    const double step = (double)trainer->steps;
    update_job job = {.trainer = trainer,
                      .plain = {.learning_rate = (float)learning_rate,
                                .beta1 = beta1,
                                .beta2 = beta2,
                                .epsilon = (float)adamw->epsilon,
                                .correction1 = (float)(1.0 - pow((double)beta1, step)),
                                .correction2 = (float)(1.0 - pow((double)beta2, step)),
                                .gradient_scale = (float)scale}};
    job.decayed = job.plain;
    job.decayed.decay = (float)adamw->decay;
    attn_parallel(trainer->context->threads, trainer->n_pieces, update_piece, &job);
    if (trainer->packs_apart) attn_model_pack(trainer->model, trainer->context);
    const uint64_t parameters = attn_model_parameter_count(trainer->model);
    trainer->context->work.exponential += parameters;
    trainer->context->work.other += 15 * parameters;
    if (norm) *norm = taken;
    attn_profile_lap(&trainer->stack.profile, ATTN_PART_OPTIMIZER, ATTN_PASS_UPDATE, since);
    return ATTN_OK;
}
