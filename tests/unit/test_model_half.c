/* Models in bfloat16: loss and every gradient against the float64 definition with and without the
 * same roundings, the head's blocks and pieces against float32, the same bits for any number of
 * threads, weights that are packed anew, and what the memory is charged to. */
#include "model_fixture.h"
#include "model_oracle.h"

#include "kernels/dense_bf16.h"
#include "model/generation.h"
#include "verify/compare.h"
#include "verify/tolerance.h"

#include <math.h>
#include <string.h>

static attn_model_config half_config(const char *mechanism)
{
    attn_model_config config = small_config();
    config.mechanism = mechanism;
    config.heads = 4;
    config.d_model = 32;
    config.dtype = ATTN_BF16;
    return config;
}

/* Loss and gradients of one batch; the trainer is the caller's. */
static attn_trainer *run_batch(attn_model *model, attn_context *context,
                               const attn_training_batch *batch, size_t sequences, size_t length,
                               double *loss)
{
    attn_error error = {0};
    attn_trainer *trainer = NULL;
    attn_loss taken;
    assert_ok(attn_trainer_create(&trainer, model, context, sequences, length, true, &error),
              &error);
    assert_ok(attn_trainer_loss(trainer, batch, &taken, &error), &error);
    assert_ok(attn_trainer_backward(trainer, &error), &error);
    *loss = taken.mean;
    return trainer;
}

/* ---- against the definition -------------------------------------------------------------- */

enum { B = 2, T = 17, DRAWS = 8, TENSORS_MAX = 64 };

/* The largest norm of a tensor's gradient: small ones are measured against a share of it. */
static double gradient_floor(const attn_model *model, const double *gradients)
{
    size_t n = 0;
    double most = 0.0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    for (size_t i = 0; i < n; i++)
        most = fmax(most, attn_norm(tensors[i].count, attn_reals(gradients + tensors[i].offset)));
    return ATTN_GRADIENT_FLOOR * most;
}

static double tensor_error(const attn_model_tensor *t, attn_numbers got, const double *want,
                           double floor)
{
    if (got.single) got.single += t->offset;
    if (got.real) got.real += t->offset;
    return attn_relative_error(t->count, got, attn_reals(want + t->offset), floor);
}

/* The definition, the same rounded to the nearest, and how far rounding at random moves it. */
typedef struct truth {
    size_t n; /* of the block */
    double *exact, *rounded, *room;
    double loss, rounded_loss, loss_moves, moves[TENSORS_MAX];
} truth;

static void find_truth(truth *t, const attn_model *model, const attn_training_batch *batch)
{
    size_t n_tensors = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n_tensors);
    assert_true(n_tensors <= TENSORS_MAX);
    *t = (truth){.n = attn_model_block_count(model)};
    t->exact = attn_alloc_array(ATTN_MEMORY_OTHER, 3 * t->n, sizeof *t->exact);
    assert_non_null(t->exact);
    t->rounded = t->exact + t->n;
    t->room = t->rounded + t->n;
    t->loss = oracle_loss(model, batch, B, T, (attn_rounding){ATTN_ROUND_NOT, 0}, t->exact);
    t->rounded_loss =
        oracle_loss(model, batch, B, T, (attn_rounding){ATTN_ROUND_NEAREST, 0}, t->rounded);
    const double floor = gradient_floor(model, t->exact);
    for (size_t draw = 0; draw < DRAWS; draw++) {
        const double loss =
            oracle_loss(model, batch, B, T, (attn_rounding){ATTN_ROUND_RANDOMLY, draw}, t->room);
        t->loss_moves += (loss - t->loss) * (loss - t->loss) / DRAWS;
        for (size_t i = 0; i < n_tensors; i++) {
            const double e = tensor_error(&tensors[i], attn_reals(t->room), t->exact, floor);
            t->moves[i] += e * e / DRAWS;
        }
    }
    t->loss_moves = sqrt(t->loss_moves);
    for (size_t i = 0; i < n_tensors; i++) t->moves[i] = sqrt(t->moves[i]);
}

/* `difference` is that of the float32 numbers which factors are rounded from. */
static void compare_level(const char *mechanism, const char *isa, attn_model *model,
                          const attn_training_batch *batch, const truth *t, double difference)
{
    attn_context *context = make_context(2, isa);
    if (!context) return;
    double loss = 0.0, worst = 0.0;
    attn_trainer *trainer = run_batch(model, context, batch, B, T, &loss);
    const attn_numbers got = attn_singles(attn_trainer_gradients(trainer));
    const double floor = gradient_floor(model, t->exact);
    size_t n_tensors = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n_tensors);
    if (!(fabs(loss - t->loss) <= 2e-5 + ATTN_BF16_DEVIATIONS * t->loss_moves))
        fail_msg("%s, %s: loss %.8g, defined as %.8g, which moves by %.2g", mechanism, isa, loss,
                 t->loss, t->loss_moves);
    for (size_t i = 0; i < n_tensors; i++) {
        const double far = tensor_error(&tensors[i], got, t->exact, floor);
        const double near = tensor_error(&tensors[i], got, t->rounded, floor);
        const double may = ATTN_TOLERANCE_F32 + ATTN_BF16_DEVIATIONS * t->moves[i];
        const double same = ATTN_TOLERANCE_F32 + attn_bf16_share(difference) * t->moves[i];
        worst = fmax(worst, far / may);
        if (!(far <= may) || !(near <= same))
            fail_msg("%s, %s: gradient of %s: off by %.3g, may %.3g; from the rounded definition "
                     "by %.3g, may %.3g",
                     mechanism, isa, tensors[i].name, far, may, near, same);
    }
    print_message("%s, %s: at most %.2f of the tolerance\n", mechanism, isa, worst);
    attn_trainer_free(trainer);
    attn_context_free(context);
}

static void test_definition(void **state)
{
    (void)state;
    static const char *const levels[] = {"ref", "avx2", "avx512", "amx"};
    /* Where the core rounds as well, its factors come from numbers that factors before have moved by
     * falling on different sides: by the square root in attn_bf16_share(). */
    static const struct {
        const char *name;
        bool core_rounds;
    } mechanisms[] = {{"softmax", false},    {"flash", true}, {"sliding:window=5", true},
                      {"gla", false},        {"mla", true},   {"gqa", true},
                      {"linear+flash", true}};
    const double moved = sqrt(ATTN_TOLERANCE_F32 * 0x1p-7);
    for (size_t m = 0; m < sizeof mechanisms / sizeof *mechanisms; m++) {
        const attn_model_config config = half_config(mechanisms[m].name);
        attn_model *model = make_model(&config, 3);
        float *p = attn_model_parameters(model); /* far from uniform attention and logits */
        for (size_t i = 0; i < attn_model_block_count(model); i++) p[i] *= 3.0f;
        test_batch b;
        make_batch(&b, B * T, config.vocabulary, 4);
        truth t;
        find_truth(&t, model, &b.batch);
        for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
            compare_level(mechanisms[m].name, levels[i], model, &b.batch, &t,
                          mechanisms[m].core_rounds ? moved : ATTN_TOLERANCE_F32);
        attn_free(t.exact);
        attn_model_free(model);
    }
}

/* ---- the head ---------------------------------------------------------------------------- */

/* A vocabulary of several pieces and rows of several blocks and groups, the last of each shorter:
 * float32's gradients but for roundings. */
static void test_head_pieces(void **state)
{
    (void)state;
    enum { LENGTH = 401, SEQUENCES = 2, WORDS = 50257 };
    attn_model_config config = half_config("flash");
    config.layers = 1;
    config.vocabulary = WORDS;
    config.positions = LENGTH;
    attn_context *context = make_context(2, "auto");
    static uint32_t tokens[2][SEQUENCES * LENGTH];
    static float weights[SEQUENCES * LENGTH];
    const uint64_t stream = attn_random_stream(ATTN_RANDOM_TEST, 1);
    for (size_t i = 0; i < SEQUENCES * LENGTH; i++) {
        tokens[0][i] = (uint32_t)attn_random_below(1, stream, 2 * i, WORDS);
        tokens[1][i] = (uint32_t)attn_random_below(1, stream, 2 * i + 1, WORDS);
        weights[i] = i % 5 == 1 ? 0.0f : 1.0f;
    }
    const attn_training_batch batch = {
        .inputs = tokens[0], .targets = tokens[1], .weights = weights};
    double losses[2];
    attn_model *models[2];
    attn_trainer *trainers[2];
    for (int dtype = 0; dtype < 2; dtype++) {
        config.dtype = (attn_dtype)dtype;
        models[dtype] = make_model(&config, 3);
        trainers[dtype] =
            run_batch(models[dtype], context, &batch, SEQUENCES, LENGTH, &losses[dtype]);
    }
    assert_true(fabs(losses[0] - losses[1]) < 1e-4 * losses[0]);
    size_t n = 0;
    const attn_model_tensor *tensors = attn_model_tensors(models[0], &n);
    const float *single = attn_trainer_gradients(trainers[0]);
    const float *half = attn_trainer_gradients(trainers[1]);
    double largest = 0.0;
    for (size_t i = 0; i < n; i++)
        largest =
            fmax(largest, attn_norm(tensors[i].count, attn_singles(single + tensors[i].offset)));
    for (size_t i = 0; i < n; i++) {
        const size_t at = tensors[i].offset;
        const double error = attn_relative_error(tensors[i].count, attn_singles(half + at),
                                                 attn_singles(single + at), 0.01 * largest);
        if (!(error < 0.02)) fail_msg("%s is off by %g", tensors[i].name, error);
    }
    for (int dtype = 0; dtype < 2; dtype++) {
        attn_trainer_free(trainers[dtype]);
        attn_model_free(models[dtype]);
    }
    attn_context_free(context);
}

/* ---- bits -------------------------------------------------------------------------------- */

/* Parameters after three steps, and the losses. */
static float *train(const char *mechanism, const char *isa, size_t threads, double *losses,
                    size_t *count)
{
    attn_error error = {0};
    attn_context *context = make_context(threads, isa);
    if (!context) return NULL;
    const attn_model_config config = half_config(mechanism);
    attn_model *model = make_model(&config, 5);
    attn_trainer *trainer = NULL;
    attn_adamw adamw = attn_adamw_default();
    adamw.max_norm = 1.0;
    test_batch b;
    make_batch(&b, 3 * 37, config.vocabulary, 6);
    assert_ok(attn_trainer_create(&trainer, model, context, 3, 37, true, &error), &error);
    for (int step = 0; step < 3; step++) {
        attn_loss loss;
        assert_ok(attn_trainer_loss(trainer, &b.batch, &loss, &error), &error);
        assert_ok(attn_trainer_backward(trainer, &error), &error);
        assert_ok(attn_trainer_update(trainer, &adamw, 1e-3, NULL, &error), &error);
        losses[step] = loss.mean;
    }
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
    double losses[2][3];
    size_t n = 0;
    float *one = train(mechanism, isa, 1, losses[0], &n);
    for (size_t threads = 1; one && threads <= 3; threads++) {
        float *more = train(mechanism, isa, threads, losses[1], &n);
        if (memcmp(losses[0], losses[1], sizeof losses[0]) != 0 ||
            memcmp(one, more, n * sizeof *one) != 0)
            fail_msg("%s, %s: other bits with %zu threads", mechanism, isa, threads);
        attn_free(more);
    }
    attn_free(one);
}

/* All products are our own, so no level's bits depend on threads, except where `lsh` computes its
 * decisions in float32. */
static void test_threads(void **state)
{
    (void)state;
    static const char *const levels[] = {"ref", "avx2", "avx512", "amx"};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) check_threads("flash", levels[i]);
    for (size_t i = 0; language_mechanism(i); i++)
        if (strcmp(language_mechanism(i), "lsh") != 0) check_threads(language_mechanism(i), "auto");
}

/* ---- packed weights ---------------------------------------------------------------------- */

/* What an update packs on its way, and what it must pack apart since a tensor ends within a strip
 * of 32 rows, is what packing everything gives. */
static void check_update_packs(const char *mechanism, size_t vocabulary, bool clips)
{
    attn_error error = {0};
    attn_context *context = make_context(2, "auto");
    attn_model_config config = half_config(mechanism);
    config.vocabulary = vocabulary;
    attn_model *model = make_model(&config, 5);
    attn_trainer *trainer = NULL;
    attn_adamw adamw = attn_adamw_default();
    adamw.max_norm = clips ? 1.0 : 0.0;
    attn_loss loss;
    test_batch b;
    make_batch(&b, 40, vocabulary, 6);
    assert_ok(attn_trainer_create(&trainer, model, context, 2, 20, true, &error), &error);
    size_t n = 0, count = 0;
    const attn_model_weights *weights = attn_model_product_weights(model, &n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(weights[i].packed, count);
        count += attn_dense_bf16_packed(weights[i].out, weights[i].in);
    }
    attn_bf16 *before = attn_alloc_array(ATTN_MEMORY_OTHER, 2 * count, sizeof *before);
    attn_bf16 *after = before + count;
    assert_non_null(before);
    memcpy(before, attn_model_packed(model), count * sizeof *before);
    assert_ok(attn_trainer_loss(trainer, &b.batch, &loss, &error), &error);
    assert_ok(attn_trainer_backward(trainer, &error), &error);
    assert_ok(attn_trainer_update(trainer, &adamw, 1e-2, NULL, &error), &error);
    memcpy(after, attn_model_packed(model), count * sizeof *after);
    attn_model_pack(model, context);
    for (size_t i = 0; i < n; i++) {
        const size_t at = weights[i].packed;
        const size_t size = attn_dense_bf16_packed(weights[i].out, weights[i].in) * sizeof *before;
        if (memcmp(after + at, attn_model_packed(model) + at, size) != 0)
            fail_msg("%s: weights %zu of %zu rows are not packed anew", mechanism, i,
                     weights[i].out);
        assert_int_not_equal(memcmp(after + at, before + at, size), 0);
    }
    attn_free(before);
    attn_trainer_free(trainer);
    attn_model_free(model);
    attn_context_free(context);
}

static void test_update_packs(void **state)
{
    (void)state;
    for (size_t i = 0; language_mechanism(i); i++)
        check_update_packs(language_mechanism(i), 67, i % 2);
    check_update_packs("flash", 5000, false); /* several pieces a tensor */
    check_update_packs("gqa:kv_heads=1+flash", 64, true);
}

static void test_packing(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_context *context = make_context(2, "auto");
    attn_model_config config = half_config("flash");
    attn_model *model = make_model(&config, 5);
    attn_trainer *trainer = NULL;
    attn_adamw adamw = attn_adamw_default();
    attn_loss before, after, fresh;
    test_batch b;
    make_batch(&b, 40, config.vocabulary, 6);
    assert_ok(attn_trainer_create(&trainer, model, context, 2, 20, true, &error), &error);
    assert_ok(attn_trainer_loss(trainer, &b.batch, &before, &error), &error);
    assert_ok(attn_trainer_backward(trainer, &error), &error);
    assert_ok(attn_trainer_update(trainer, &adamw, 1e-2, NULL, &error), &error);
    assert_ok(attn_trainer_evaluate(trainer, &b.batch, &after, &error), &error);
    assert_true(after.mean < before.mean - 0.05);
    /* packing again changes nothing */
    attn_model_pack(model, context);
    assert_ok(attn_trainer_evaluate(trainer, &b.batch, &fresh, &error), &error);
    assert_true(fresh.mean == after.mean);
    /* parameters changed by the caller count once they are packed */
    float *p = attn_model_parameters(model);
    for (size_t i = 0; i < attn_model_block_count(model); i++) p[i] *= 2.0f;
    attn_model_pack(model, context);
    assert_ok(attn_trainer_evaluate(trainer, &b.batch, &fresh, &error), &error);
    assert_true(fabs(fresh.mean - after.mean) > 0.05);
    attn_trainer_free(trainer);
    attn_model_free(model);

    config.dtype = ATTN_F32;
    model = make_model(&config, 5);
    assert_null(attn_model_packed(model));
    attn_model_pack(model, context);
    attn_model_free(model);
    attn_context_free(context);
}

/* Packed weights count as parameters; gradients and moments stay float32; of what is kept for the
 * backward pass about half is left. */
static void test_memory(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_context *context = make_context(1, "ref");
    size_t kept[2];
    for (int dtype = 0; dtype < 2; dtype++) {
        attn_model_config config = half_config("flash");
        config.dtype = (attn_dtype)dtype;
        attn_model *model = make_model(&config, 5);
        attn_trainer *trainer = NULL;
        const size_t block = attn_model_block_count(model) * sizeof(float);
        /* 2 bytes for each number of 32 x 32 blocks: 4 C^2 and 8 C^2 a layer, and the head */
        const size_t packed = dtype == 1 ? 2 * (2 * 12 * 32 * 32 + 96 * 32) : 0;
        assert_int_equal(attn_memory_usage(ATTN_MEMORY_PARAMETERS).current_bytes, block + packed);
        assert_ok(attn_trainer_create(&trainer, model, context, 2, 20, true, &error), &error);
        assert_int_equal(attn_memory_usage(ATTN_MEMORY_PARAMETERS).current_bytes, block + packed);
        assert_int_equal(attn_memory_usage(ATTN_MEMORY_GRADIENTS).current_bytes, block);
        assert_int_equal(attn_memory_usage(ATTN_MEMORY_OPTIMIZER).current_bytes, 2 * block);
        kept[dtype] = attn_memory_usage(ATTN_MEMORY_ACTIVATIONS).current_bytes;
        attn_trainer_free(trainer);
        attn_model_free(model);
    }
    assert_true((double)kept[1] < 0.65 * (double)kept[0]);
    attn_context_free(context);
}

/* ---- generation -------------------------------------------------------------------------- */

/* Token by token, what the whole text gives: float32 sums in another order, which move a factor
 * to the other side of the middle between two bfloat16 numbers now and then. `mla` decodes with
 * other factors (docs/numerics.md), so the limit is what roundings make of the logits. */
static void test_decoding(void **state)
{
    (void)state;
    enum { LENGTH = 15, PROMPT = 6, WORDS = 67 };
    static const char *const levels[] = {"ref", "auto"};
    for (size_t i = 0; language_mechanism(i); i++)
        for (size_t level = 0; level < 2; level++) {
            attn_error error = {0};
            const attn_model_config config = half_config(language_mechanism(i));
            attn_context *context = make_context(2, levels[level]);
            attn_model *model = make_model(&config, 9);
            float *p = attn_model_parameters(model);
            for (size_t k = 0; k < attn_model_block_count(model); k++) p[k] *= 4.0f;
            test_batch b;
            make_batch(&b, LENGTH, WORDS, 10);
            attn_trainer *trainer = NULL;
            attn_generator *generator = NULL;
            attn_loss loss;
            static float whole[LENGTH * WORDS];
            assert_ok(attn_trainer_create(&trainer, model, context, 1, LENGTH, false, &error),
                      &error);
            assert_ok(attn_trainer_evaluate(trainer, &b.batch, &loss, &error), &error);
            attn_trainer_logits(trainer, 0, LENGTH, whole);
            assert_ok(attn_generator_create(&generator, model, context, 1, LENGTH, &error), &error);
            assert_ok(attn_generator_prefill(generator, b.inputs, PROMPT, &error), &error);
            for (size_t t = PROMPT;; t++) {
                const double e =
                    attn_relative_error(WORDS, attn_singles(attn_generator_logits(generator)),
                                        attn_singles(whole + (t - 1) * WORDS), 0.0);
                if (!(e < 2e-2))
                    fail_msg("%s, %s: logits of token %zu are off by %g", config.mechanism,
                             levels[level], t - 1, e);
                if (t == LENGTH) break;
                assert_ok(attn_generator_feed(generator, &b.inputs[t], &error), &error);
            }
            attn_generator_free(generator);
            attn_trainer_free(trainer);
            attn_model_free(model);
            attn_context_free(context);
        }
}

/* ---- faults ------------------------------------------------------------------------------ */

static void test_short_memory(void **state)
{
    (void)state;
    attn_context *context = make_context(1, "ref");
    const attn_model_config config = half_config("flash");
    const size_t live = attn_memory_live_blocks();
    size_t n = 1;
    for (;; n++) {
        attn_error error = {0};
        attn_model *model = NULL;
        attn_trainer *trainer = NULL;
        attn_memory_fail_at(n);
        attn_status status = attn_model_create(&model, &config, &error);
        if (status == ATTN_OK)
            status = attn_trainer_create(&trainer, model, context, 2, 20, true, &error);
        attn_memory_fail_at(0);
        attn_trainer_free(trainer);
        attn_model_free(model);
        assert_int_equal(attn_memory_live_blocks(), live);
        if (status == ATTN_OK) break;
        assert_int_equal(status, ATTN_EMEMORY);
    }
    assert_true(n > 12);
    attn_context_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition), cmocka_unit_test(test_head_pieces),
        cmocka_unit_test(test_threads),    cmocka_unit_test(test_update_packs),
        cmocka_unit_test(test_packing),    cmocka_unit_test(test_memory),
        cmocka_unit_test(test_decoding),   cmocka_unit_test(test_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
