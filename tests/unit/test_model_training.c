/* Training steps: bits do not depend on threads, nothing is allocated inside a step, packed
 * documents, untrained padding, refusals and faults. */
#include "model_fixture.h"

#include <math.h>
#include <string.h>

/* ---- threads and memory ------------------------------------------------------------------ */

/* Parameters after three steps. */
static float *train(const char *mechanism, const char *isa, size_t threads, size_t *count)
{
    attn_context *context = make_context(threads, isa);
    attn_model_config config = small_config();
    config.mechanism = mechanism;
    config.heads = 4;
    config.d_model = 32;
    attn_model *model = make_model(&config, 5);
    attn_trainer *trainer = make_trainer(model, context, 3, 37);
    test_batch b;
    make_batch(&b, 3 * 37, config.vocabulary, 6);
    for (int step = 0; step < 3; step++) take_step(trainer, &b.batch, 1.0);
    *count = attn_model_block_count(model);
    float *result = attn_alloc_array(ATTN_MEMORY_OTHER, *count, sizeof *result);
    assert_non_null(result);
    memcpy(result, attn_model_parameters(model), *count * sizeof *result);
    attn_trainer_free(trainer);
    attn_model_free(model);
    attn_context_free(context);
    return result;
}

static void check_threads(const char *mechanism, const char *isa)
{
    size_t n = 0;
    float *one = train(mechanism, isa, 1, &n);
    for (size_t threads = 2; threads <= 3; threads++) {
        float *more = train(mechanism, isa, threads, &n);
        if (strcmp(isa, "ref") == 0) assert_memory_equal(one, more, n * sizeof *one);
        /* AdamW's step is 1e-3 at most, so a wrong gradient shows at that size. */
        for (size_t i = 0; i < n; i++)
            if (!(fabsf(one[i] - more[i]) < 2e-5f))
                fail_msg("%s, %zu threads: %g and %g", mechanism, threads, (double)one[i],
                         (double)more[i]);
        attn_free(more);
    }
    attn_free(one);
}

static void test_threads(void **state)
{
    (void)state;
    for (size_t i = 0; language_mechanism(i); i++) check_threads(language_mechanism(i), "ref");
    check_threads("flash", "auto");
}

static void check_steps_allocate_nothing(attn_dtype dtype)
{
    attn_error error = {0};
    attn_context *context = make_context(2, "auto");
    attn_model_config config = small_config();
    config.dtype = dtype;
    attn_model *model = make_model(&config, 5);
    attn_trainer *trainer = make_trainer(model, context, 2, 20);
    test_batch b;
    make_batch(&b, 40, config.vocabulary, 6);
    attn_loss loss;
    assert_ok(attn_trainer_evaluate(trainer, &b.batch, &loss, &error), &error);
    take_step(trainer, &b.batch, 1.0); /* the dense library prepares its shapes */

    const attn_memory_account before = attn_memory_usage(ATTN_MEMORY_CATEGORIES);
    const size_t live = attn_memory_live_blocks();
    attn_memory_fail_at(1);
    assert_ok(attn_trainer_evaluate(trainer, &b.batch, &loss, &error), &error);
    for (int step = 0; step < 3; step++) take_step(trainer, &b.batch, 1.0);
    assert_null(attn_alloc(ATTN_MEMORY_OTHER, 1)); /* nobody took the armed failure */
    const attn_memory_account after = attn_memory_usage(ATTN_MEMORY_CATEGORIES);
    assert_int_equal(after.current_bytes, before.current_bytes);
    assert_int_equal(after.peak_bytes, before.peak_bytes);
    assert_int_equal(attn_memory_live_blocks(), live);
    attn_trainer_free(trainer);
    attn_model_free(model);
    attn_context_free(context);
}

static void test_steps_allocate_nothing(void **state)
{
    (void)state;
    check_steps_allocate_nothing(ATTN_F32);
    check_steps_allocate_nothing(ATTN_BF16);
}

static void test_short_memory(void **state)
{
    (void)state;
    attn_context *context = make_context(1, "ref");
    const attn_model_config config = small_config();
    attn_model *model = make_model(&config, 5);
    const size_t live = attn_memory_live_blocks();
    size_t n = 1;
    for (;; n++) {
        attn_error error = {0};
        attn_trainer *trainer = NULL;
        attn_memory_fail_at(n);
        const attn_status status =
            attn_trainer_create(&trainer, model, context, 2, 20, true, &error);
        attn_memory_fail_at(0);
        attn_trainer_free(trainer);
        assert_int_equal(attn_memory_live_blocks(), live);
        if (status == ATTN_OK) break;
        assert_int_equal(status, ATTN_EMEMORY);
    }
    assert_true(n > 8);
    attn_model_free(model);
    attn_context_free(context);
}

/* Categories hold what they say, and an evaluation-only trainer leaves the rest out. */
static void test_memory_categories(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_context *context = make_context(1, "ref");
    const attn_model_config config = small_config();
    attn_model *model = make_model(&config, 5);
    const size_t block = attn_model_block_count(model) * sizeof(float);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_PARAMETERS).current_bytes, block);
    attn_trainer *trainer = make_trainer(model, context, 2, 20);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_GRADIENTS).current_bytes, block);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_OPTIMIZER).current_bytes, 2 * block);
    const size_t kept = attn_memory_usage(ATTN_MEMORY_ACTIVATIONS).current_bytes;
    attn_trainer_free(trainer);

    assert_ok(attn_trainer_create(&trainer, model, context, 2, 20, false, &error), &error);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_GRADIENTS).current_bytes, 0);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_OPTIMIZER).current_bytes, 0);
    assert_true(attn_memory_usage(ATTN_MEMORY_ACTIVATIONS).current_bytes < kept / 2);
    test_batch b;
    make_batch(&b, 40, config.vocabulary, 6);
    attn_loss loss;
    assert_ok(attn_trainer_evaluate(trainer, &b.batch, &loss, &error), &error);
    assert_null(attn_trainer_gradients(trainer));
    assert_int_equal(attn_trainer_loss(trainer, &b.batch, &loss, &error), ATTN_EARGUMENT);
    assert_string_equal(error.text, "this trainer was made for evaluation alone");
    attn_trainer_free(trainer);
    attn_model_free(model);
    attn_context_free(context);
}

/* ---- results ----------------------------------------------------------------------------- */

static void check_learning(attn_dtype dtype)
{
    attn_error error = {0};
    attn_context *context = make_context(2, "auto");
    attn_model_config config = small_config();
    config.dtype = dtype;
    attn_model *model = make_model(&config, 5);
    attn_trainer *trainer = make_trainer(model, context, 2, 20);
    test_batch b;
    make_batch(&b, 40, config.vocabulary, 6);
    attn_loss evaluated, trained;
    assert_ok(attn_trainer_evaluate(trainer, &b.batch, &evaluated, &error), &error);
    assert_ok(attn_trainer_loss(trainer, &b.batch, &trained, &error), &error);
    assert_true(fabs(evaluated.mean - trained.mean) < 1e-6 * trained.mean);
    assert_true(trained.weight == 27.0);
    assert_true(fabs(trained.mean - log(67.0)) < 0.1); /* untrained: about uniform */
    double sum = 0.0;
    for (size_t i = 0; i < 40; i++) sum += (double)b.weights[i] * attn_trainer_nll(trainer)[i];
    assert_true(fabs(sum / 27.0 - trained.mean) < 1e-12);

    double loss = 0.0;
    for (int step = 0; step < 150; step++) loss = take_step(trainer, &b.batch, 0.0);
    assert_true(loss < 2.0);
    assert_int_equal(attn_trainer_steps(trainer), 150);

    /* Padding between tensors stays as it was: nothing trains it. */
    size_t n = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    for (size_t i = 0; i + 1 < n; i++)
        for (size_t at = tensors[i].offset + tensors[i].count; at < tensors[i + 1].offset; at++)
            assert_true(attn_model_parameters(model)[at] == 0.0f);

    const attn_profile *profile = attn_trainer_profile(trainer);
    for (size_t part = 0; part < ATTN_PARTS; part++) {
        const bool is_update = part == ATTN_PART_OPTIMIZER, has_backward = part != ATTN_PART_LOSS;
        assert_int_equal(profile->ns[part][ATTN_PASS_FORWARD] > 0, !is_update);
        assert_int_equal(profile->ns[part][ATTN_PASS_BACKWARD] > 0, !is_update && has_backward);
        assert_int_equal(profile->ns[part][ATTN_PASS_UPDATE] > 0, is_update);
    }
    assert_true(attn_profile_seconds(profile, ATTN_PASS_FORWARD) > 0.0);
    attn_trainer_free(trainer);
    attn_model_free(model);
    attn_context_free(context);
}

static void test_learning(void **state)
{
    (void)state;
    check_learning(ATTN_F32);
    check_learning(ATTN_BF16);
}

/* Loss and gradients of tokens first .. first + length - 1 of the batch alone. */
static attn_trainer *run_document(attn_model *model, attn_context *context, const test_batch *b,
                                  size_t first, size_t length, attn_loss *loss)
{
    attn_error error = {0};
    attn_trainer *trainer = make_trainer(model, context, 1, length);
    const attn_training_batch batch = {
        .inputs = b->inputs + first, .targets = b->targets + first, .weights = b->weights + first};
    assert_ok(attn_trainer_loss(trainer, &batch, loss, &error), &error);
    assert_ok(attn_trainer_backward(trainer, &error), &error);
    return trainer;
}

/* Two documents packed into one sequence: each token has the loss that it has alone, and the
 * gradients are those of both documents by their share of the weight. */
static void check_documents(const char *mechanism)
{
    enum { FIRST = 9, SECOND = 14, LENGTH = FIRST + SECOND };
    attn_error error = {0};
    attn_context *context = make_context(2, "auto");
    attn_model_config config = small_config();
    config.mechanism = mechanism;
    config.heads = 4;
    config.d_model = 32;
    attn_model *model = make_model(&config, 5);
    test_batch b;
    make_batch(&b, LENGTH, config.vocabulary, 6);
    for (size_t i = 0; i < LENGTH; i++) b.starts[i] = i < FIRST ? 0 : FIRST;
    attn_training_batch batch = b.batch;
    batch.document_start = b.starts;
    attn_loss whole, part[2];
    attn_trainer *packed = make_trainer(model, context, 1, LENGTH);
    const attn_work before = attn_context_work(context);
    assert_ok(attn_trainer_loss(packed, &batch, &whole, &error), &error);
    assert_ok(attn_trainer_backward(packed, &error), &error);
    attn_work want = attn_model_work(model, ATTN_MODEL_FORWARD, 1, LENGTH, b.starts);
    const attn_work backward = attn_model_work(model, ATTN_MODEL_BACKWARD, 1, LENGTH, b.starts);
    want.matmul += backward.matmul;
    want.exponential += backward.exponential;
    want.other += backward.other;
    assert_work(since(context, before), want);

    attn_trainer *alone[] = {run_document(model, context, &b, 0, FIRST, &part[0]),
                             run_document(model, context, &b, FIRST, SECOND, &part[1])};
    assert_true(part[0].weight + part[1].weight == whole.weight);
    for (size_t i = 0; i < LENGTH; i++) {
        const double nll =
            i < FIRST ? attn_trainer_nll(alone[0])[i] : attn_trainer_nll(alone[1])[i - FIRST];
        if (!(fabs(attn_trainer_nll(packed)[i] - nll) < 1e-5))
            fail_msg("%s: token %zu: %g, alone %g", mechanism, i, attn_trainer_nll(packed)[i], nll);
    }
    double squares = 0.0, total = 0.0;
    for (size_t i = 0; i < attn_model_block_count(model); i++) {
        double gradient = 0.0;
        for (size_t d = 0; d < 2; d++)
            gradient += part[d].weight / whole.weight * (double)attn_trainer_gradients(alone[d])[i];
        const double difference = gradient - (double)attn_trainer_gradients(packed)[i];
        squares += difference * difference;
        total += gradient * gradient;
    }
    if (!(sqrt(squares / total) < 1e-5))
        fail_msg("%s: gradients differ by %g", mechanism, sqrt(squares / total));
    attn_trainer_free(alone[1]);
    attn_trainer_free(alone[0]);
    attn_trainer_free(packed);
    attn_model_free(model);
    attn_context_free(context);
}

static void test_documents(void **state)
{
    (void)state;
    for (size_t i = 0; language_mechanism(i); i++) check_documents(language_mechanism(i));
}

/* A token that occurs at many places collects the gradient of each: the sum over all tokens of
 * the embedding's share is the sum over all positions. */
static void test_embedding_gradient(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_context *context = make_context(3, "ref");
    const attn_model_config config = small_config();
    attn_model *model = make_model(&config, 5);
    attn_trainer *trainer = make_trainer(model, context, 2, 20);
    test_batch b;
    make_batch(&b, 40, config.vocabulary, 6);
    for (size_t i = 0; i < 40; i += 2) b.inputs[i] = 11;
    attn_loss loss;
    assert_ok(attn_trainer_loss(trainer, &b.batch, &loss, &error), &error);
    const attn_model_offsets *at = attn_model_layout(model);
    const float *gradients = attn_trainer_gradients(trainer);
    const size_t c = config.d_model;
    double before[24] = {0}, tokens[24] = {0}, positions[24] = {0};
    for (size_t v = 0; v < config.vocabulary; v++)
        for (size_t j = 0; j < c; j++) before[j] += (double)gradients[at->tokens + v * c + j];
    assert_ok(attn_trainer_backward(trainer, &error), &error);
    for (size_t v = 0; v < config.vocabulary; v++)
        for (size_t j = 0; j < c; j++) tokens[j] += (double)gradients[at->tokens + v * c + j];
    for (size_t t = 0; t < config.positions; t++)
        for (size_t j = 0; j < c; j++) {
            positions[j] += (double)gradients[at->positions + t * c + j];
            if (t >= 20) assert_true(gradients[at->positions + t * c + j] == 0.0f);
        }
    for (size_t j = 0; j < c; j++)
        assert_true(fabs(tokens[j] - before[j] - positions[j]) < 1e-6 + 1e-4 * fabs(positions[j]));
    attn_trainer_free(trainer);
    attn_model_free(model);
    attn_context_free(context);
}

/* ---- refusals ---------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    (void)state;
    attn_context *context = make_context(1, "ref");
    const attn_model_config config = small_config();
    attn_model *model = make_model(&config, 5);
    attn_trainer *trainer = NULL;
    attn_loss loss;

    static const struct {
        size_t batch, length;
        const char *text;
    } sizes[] = {
        {1, 41,
         "sequences of 41 tokens, but the model has 40 positions: take shorter sequences or a "
         "model with more positions"},
        {0, 4, "a batch of 0 sequences of 4 tokens: give sizes above 0"},
        {SIZE_MAX / 16, 40, "1152921504606846975 sequences of 40 tokens do not fit into memory"},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        attn_error error = {0};
        const size_t live = attn_memory_live_blocks();
        assert_int_equal(attn_trainer_create(&trainer, model, context, sizes[i].batch,
                                             sizes[i].length, true, &error),
                         ATTN_ESHAPE);
        assert_string_equal(error.text, sizes[i].text);
        assert_null(trainer);
        assert_int_equal(attn_memory_live_blocks(), live);
    }

    trainer = make_trainer(model, context, 2, 20);
    test_batch good, b;
    make_batch(&good, 40, config.vocabulary, 6);
    for (int fault = 0; fault < 6; fault++) {
        static const char *const texts[] = {
            "no target of this batch counts: all weights are 0, so it has no loss",
            "sequence 1, token 3: id 67 with target 7, but the vocabulary ends at 66",
            "sequence 0, token 19: id 5 with target 4294967295, but the vocabulary ends at 66",
            "sequence 0, token 2: weight -1 is no share of a loss",
            "sequence 1, token 0: weight nan is no share of a loss",
            "sequence 1, token 4: its document starts later, at 5"};
        attn_error error = {0};
        b = good;
        b.batch = (attn_training_batch){b.inputs, b.targets, b.weights, NULL};
        memset(b.starts, 0, sizeof b.starts);
        switch (fault) {
        case 0:
            memset(b.weights, 0, sizeof b.weights);
            break;
        case 1:
            b.inputs[23] = 67;
            b.targets[23] = 7;
            break;
        case 2:
            b.inputs[19] = 5;
            b.targets[19] = UINT32_MAX;
            break;
        case 3:
            b.weights[2] = -1.0f;
            break;
        case 4:
            b.weights[20] = NAN;
            break;
        default:
            b.starts[24] = 5;
            b.batch.document_start = b.starts;
            break;
        }
        assert_int_equal(attn_trainer_loss(trainer, &b.batch, &loss, &error), ATTN_EARGUMENT);
        assert_string_equal(error.text, texts[fault]);
        error = (attn_error){0};
        assert_int_equal(attn_trainer_backward(trainer, &error), ATTN_EARGUMENT);
        assert_string_equal(error.text, "a backward pass needs the loss of a batch before it");
    }

    /* Diverged: the parameters stay. */
    attn_error error = {0};
    attn_adamw adamw = attn_adamw_default();
    adamw.max_norm = 1.0;
    assert_ok(attn_trainer_loss(trainer, &good.batch, &loss, &error), &error);
    assert_ok(attn_trainer_backward(trainer, &error), &error);
    attn_trainer_gradients(trainer)[attn_model_layout(model)->tokens] = NAN;
    const float first = attn_model_parameters(model)[0];
    assert_int_equal(attn_trainer_update(trainer, &adamw, 1e-3, NULL, &error), ATTN_EARGUMENT);
    assert_string_equal(error.text, "step 1: the gradients' norm is not finite; the run diverged, "
                                    "take a smaller learning rate");
    assert_true(attn_model_parameters(model)[0] == first);
    assert_int_equal(attn_trainer_steps(trainer), 0);
    attn_trainer_free(trainer);
    attn_model_free(model);
    attn_context_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_steps_allocate_nothing),
        cmocka_unit_test(test_short_memory),
        cmocka_unit_test(test_memory_categories),
        cmocka_unit_test(test_learning),
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_embedding_gradient),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
