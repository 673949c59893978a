/* Starting values: a tensor's random stream is the hash of its name, and its numbers are drawn
 * in tasks of fixed size. */
#include "base/random.h"
#include "base/threads.h"
#include "model/model.h"

#include <math.h>

enum { TASK_NUMBERS = 1 << 15 };

static const double weight_deviation = 0.02;

/* FNV-1a over the name's bytes. */
static uint32_t name_hash(const char *name)
{
    uint32_t hash = 2166136261u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 16777619u;
    return hash;
}

typedef struct normal_job {
    uint64_t seed, stream;
    double deviation;
    size_t count;
    float *out;
} normal_job;

static void draw(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const normal_job *job = argument;
    const size_t first = index * TASK_NUMBERS;
    const size_t last = first + TASK_NUMBERS < job->count ? first + TASK_NUMBERS : job->count;
    for (size_t i = first; i < last; i++)
        job->out[i] = (float)(job->deviation * attn_random_normal(job->seed, job->stream, i));
}

static void fill_normal(const attn_tensor *t, double deviation, uint64_t seed, size_t threads,
                        float *out)
{
    normal_job job = {.seed = seed,
                      .stream = attn_random_stream(ATTN_RANDOM_PARAMETERS, name_hash(t->name)),
                      .deviation = deviation,
                      .count = t->count,
                      .out = out};
    attn_parallel(threads, (t->count + TASK_NUMBERS - 1) / TASK_NUMBERS, draw, &job);
}

void attn_model_initialise(attn_model *model, uint64_t seed, size_t threads)
{
    const double residual =
        weight_deviation / sqrt(2.0 * (double)attn_model_configuration(model)->layers);
    size_t n = 0;
    const attn_tensor *tensors = attn_model_tensors(model, &n);
    for (size_t i = 0; i < n; i++) {
        float *out = attn_model_parameters(model) + tensors[i].offset;
        switch (tensors[i].initial) {
        case ATTN_INITIAL_WEIGHT:
            fill_normal(&tensors[i], weight_deviation, seed, threads, out);
            break;
        case ATTN_INITIAL_RESIDUAL:
            fill_normal(&tensors[i], residual, seed, threads, out);
            break;
        case ATTN_INITIAL_ONE:
        case ATTN_INITIAL_ZERO:
            for (size_t j = 0; j < tensors[i].count; j++)
                out[j] = tensors[i].initial == ATTN_INITIAL_ONE ? 1.0f : 0.0f;
            break;
        }
    }
}
