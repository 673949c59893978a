/* Small models, batches and comparisons that the tests of src/model share. */
#ifndef UNIT_MODEL_FIXTURE_H
#define UNIT_MODEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "model/training.h"

#define assert_ok(call, error)                                                                     \
    do {                                                                                           \
        const attn_status status_of_call = (call);                                                 \
        if (status_of_call != ATTN_OK) fail_msg("%s: %s", #call, (error)->text);                   \
    } while (0)

static inline attn_model_config small_config(void)
{
    return (attn_model_config){.layers = 2,
                               .heads = 3,
                               .d_model = 24,
                               .positions = 40,
                               .vocabulary = 67,
                               .mechanism = "softmax",
                               .is_causal = true};
}

/* The mechanisms that a language model may have; NULL past the last. */
static inline const char *language_mechanism(size_t index)
{
    for (size_t i = 0; i < attn_mechanism_count(); i++) {
        const char *name = attn_mechanism_name(i);
        if (attn_mechanism_is_causal(name) && index-- == 0) return name;
    }
    return NULL;
}

static inline attn_model *make_model(const attn_model_config *config, uint64_t seed)
{
    attn_error error = {0};
    attn_model *model = NULL;
    assert_ok(attn_model_create(&model, config, &error), &error);
    attn_model_initialise(model, seed);
    return model;
}

/* NULL when the machine lacks the instruction set. */
static inline attn_context *make_context(size_t threads, const char *isa)
{
    attn_error error = {0};
    attn_context *context = NULL;
    const attn_status status = attn_context_create(&context, threads, isa, &error);
    if (status == ATTN_EUNSUPPORTED) {
        print_message("[ SKIPPED  ] instruction set %s: %s\n", isa, error.text);
        return NULL;
    }
    assert_ok(status, &error);
    return context;
}

enum { BATCH_TOKENS_MAX = 512 };

/* A batch with memory of its own. */
typedef struct test_batch {
    uint32_t inputs[BATCH_TOKENS_MAX], targets[BATCH_TOKENS_MAX], starts[BATCH_TOKENS_MAX];
    float weights[BATCH_TOKENS_MAX];
    attn_training_batch batch; /* no documents */
} test_batch;

/* Random tokens; every third target does not count. */
static inline void make_batch(test_batch *b, size_t tokens, size_t vocabulary, uint64_t seed)
{
    const uint64_t stream = attn_random_stream(ATTN_RANDOM_TEST, 1);
    for (size_t i = 0; i < tokens; i++) {
        b->inputs[i] = (uint32_t)attn_random_below(seed, stream, 2 * i, vocabulary);
        b->targets[i] = (uint32_t)attn_random_below(seed, stream, 2 * i + 1, vocabulary);
        b->weights[i] = i % 3 == 2 ? 0.0f : 1.0f;
    }
    b->batch =
        (attn_training_batch){.inputs = b->inputs, .targets = b->targets, .weights = b->weights};
}

static inline attn_trainer *make_trainer(attn_model *model, attn_context *context, size_t batch,
                                         size_t length)
{
    attn_error error = {0};
    attn_trainer *trainer = NULL;
    assert_ok(attn_trainer_create(&trainer, model, context, batch, length, true, &error), &error);
    return trainer;
}

/* One step of training at a rate of 1e-3; gives the mean loss before it. */
static inline double take_step(attn_trainer *trainer, const attn_training_batch *batch,
                               double max_norm)
{
    attn_error error = {0};
    attn_loss loss;
    attn_adamw adamw = attn_adamw_default();
    adamw.max_norm = max_norm;
    assert_ok(attn_trainer_loss(trainer, batch, &loss, &error), &error);
    assert_ok(attn_trainer_backward(trainer, &error), &error);
    assert_ok(attn_trainer_update(trainer, &adamw, 1e-3, NULL, &error), &error);
    return loss.mean;
}

/* Work that was counted after `before`. */
static inline attn_work since(const attn_context *context, attn_work before)
{
    const attn_work now = attn_context_work(context);
    return (attn_work){.matmul = now.matmul - before.matmul,
                       .exponential = now.exponential - before.exponential,
                       .other = now.other - before.other};
}

static inline void assert_work(attn_work got, attn_work want)
{
    assert_int_equal(got.matmul, want.matmul);
    assert_int_equal(got.exponential, want.exponential);
    assert_int_equal(got.other, want.other);
}

#endif
