/* Generation: decoding gives the logits of the full forward pass, sampling follows the seed,
 * counted work equals its closed form, refusals and faults. */
#include "model_fixture.h"

#include "model/generation.h"
#include "verify/compare.h"

#include <math.h>
#include <string.h>

enum { BATCH = 2, LENGTH = 15, PROMPT = 6, VOCABULARY = 67 };

static attn_generator *make_generator(const attn_model *model, attn_context *context,
                                      size_t capacity)
{
    attn_error error = {0};
    attn_generator *generator = NULL;
    assert_ok(attn_generator_create(&generator, model, context, BATCH, capacity, &error), &error);
    return generator;
}

/* Logits of token t of each sequence against those of a whole pass, [B][LENGTH][V]: sums in another
 * order, for each of two layers as much as docs/numerics.md allows one. */
static void assert_logits(const attn_generator *generator, const float *whole, size_t t)
{
    for (size_t b = 0; b < BATCH; b++) {
        const double e = attn_relative_error(
            VOCABULARY, attn_singles(attn_generator_logits(generator) + b * VOCABULARY),
            attn_singles(whole + (b * LENGTH + t) * VOCABULARY), 0.0);
        if (!(e <= 2 * 4e-6))
            fail_msg("token %zu, sequence %zu: logits are off by %g of their norm", t, b, e);
    }
}

static void check_decoding(const char *mechanism, const char *isa, size_t threads)
{
    attn_error error = {0};
    attn_context *context = make_context(threads, isa);
    if (!context) return;
    attn_model_config config = small_config();
    config.mechanism = mechanism;
    config.heads = 4;
    config.d_model = 32;
    attn_model *model = make_model(&config, 9);
    /* larger weights, so that attention and logits are far from uniform */
    float *parameters = attn_model_parameters(model);
    for (size_t i = 0; i < attn_model_block_count(model); i++) parameters[i] *= 4.0f;
    test_batch b;
    make_batch(&b, BATCH * LENGTH, VOCABULARY, 10);
    attn_trainer *trainer = NULL;
    attn_loss loss;
    static float whole[BATCH * LENGTH * VOCABULARY];
    assert_ok(attn_trainer_create(&trainer, model, context, BATCH, LENGTH, false, &error), &error);
    assert_ok(attn_trainer_evaluate(trainer, &b.batch, &loss, &error), &error);
    attn_trainer_logits(trainer, 0, BATCH * LENGTH, whole);

    attn_generator *generator = make_generator(model, context, LENGTH);
    for (size_t prompt = 1; prompt <= PROMPT; prompt += PROMPT - 1) {
        uint32_t ids[BATCH * PROMPT];
        for (size_t i = 0; i < BATCH * prompt; i++)
            ids[i] = b.inputs[i / prompt * LENGTH + i % prompt];
        assert_ok(attn_generator_prefill(generator, ids, prompt, &error), &error);
        assert_logits(generator, whole, prompt - 1);
        for (size_t t = prompt; t < LENGTH; t++) {
            for (size_t s = 0; s < BATCH; s++) ids[s] = b.inputs[s * LENGTH + t];
            assert_ok(attn_generator_feed(generator, ids, &error), &error);
            assert_int_equal(attn_generator_position(generator), t + 1);
            assert_logits(generator, whole, t);
        }
        assert_int_equal(attn_generator_feed(generator, ids, &error), ATTN_ESHAPE);
        assert_string_equal(error.text, "the sequences are full: 15 tokens is their capacity");
        error = (attn_error){0};
    }
    attn_generator_free(generator);
    attn_trainer_free(trainer);
    attn_model_free(model);
    attn_context_free(context);
}

static void test_decoding(void **state)
{
    (void)state;
    for (size_t i = 0; language_mechanism(i); i++) {
        check_decoding(language_mechanism(i), "ref", 1);
        check_decoding(language_mechanism(i), "auto", 2);
    }
    /* caches of different sizes beside each other */
    check_decoding("sliding:window=5:sinks=1+gla", "ref", 1);
    check_decoding("retnet+flash", "auto", 2);
}

static void generate(const attn_model *model, attn_context *context, attn_sampling sampling,
                     uint32_t *tokens)
{
    attn_error error = {0};
    attn_generator *generator = make_generator(model, context, LENGTH);
    const uint32_t prompt[BATCH * 2] = {3, 4, 3, 4};
    assert_ok(attn_generator_prefill(generator, prompt, 2, &error), &error);
    for (size_t t = 2; t < LENGTH; t++, tokens += BATCH) {
        assert_ok(attn_generator_next(generator, &sampling, tokens, &error), &error);
        assert_int_equal(attn_generator_position(generator), t);
    }
    attn_generator_free(generator);
}

static void test_sampling(void **state)
{
    (void)state;
    enum { CHOSEN = BATCH * (LENGTH - 2) };
    attn_context *context = make_context(1, "ref");
    const attn_model_config config = small_config();
    attn_model *model = make_model(&config, 9);
    uint32_t first[CHOSEN], second[CHOSEN];
    const attn_sampling greedy = {.temperature = 0.0};
    generate(model, context, greedy, first);
    generate(model, context, greedy, second);
    assert_memory_equal(first, second, sizeof first);
    for (size_t i = 0; i < CHOSEN; i += 2) assert_int_equal(first[i], first[i + 1]);

    /* Warm: the seed decides, sequences differ. Cold: the same as greedy. */
    generate(model, context, (attn_sampling){.temperature = 1.0, .seed = 1}, first);
    generate(model, context, (attn_sampling){.temperature = 1.0, .seed = 1}, second);
    assert_memory_equal(first, second, sizeof first);
    size_t different = 0;
    for (size_t i = 0; i < CHOSEN; i += 2) different += first[i] != first[i + 1];
    assert_true(different > 5);
    generate(model, context, (attn_sampling){.temperature = 1.0, .seed = 2}, second);
    assert_int_not_equal(memcmp(first, second, sizeof first), 0);
    generate(model, context, greedy, first);
    generate(model, context, (attn_sampling){.temperature = 1e-9, .seed = 3}, second);
    assert_memory_equal(first, second, sizeof first);
    attn_model_free(model);
    attn_context_free(context);
}

/* The share of each token drawn is its probability: a model whose logits are known. */
static void test_distribution(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_context *context = make_context(1, "ref");
    attn_model_config config = small_config();
    config.vocabulary = 3;
    attn_model *model = make_model(&config, 9);
    attn_generator *generator = make_generator(model, context, 2);
    const uint32_t prompt[BATCH] = {1, 1};
    size_t counts[3] = {0};
    double p[3], total = 0.0;
    enum { DRAWS = 4000 };
    assert_ok(attn_generator_prefill(generator, prompt, 1, &error), &error);
    for (size_t v = 0; v < 3; v++)
        total += p[v] = exp((double)attn_generator_logits(generator)[v] / 0.1);
    for (uint64_t seed = 0; seed < DRAWS / BATCH; seed++) {
        uint32_t ids[BATCH];
        const attn_sampling sampling = {.temperature = 0.1, .seed = seed};
        assert_ok(attn_generator_prefill(generator, prompt, 1, &error), &error);
        assert_ok(attn_generator_next(generator, &sampling, ids, &error), &error);
        for (size_t b = 0; b < BATCH; b++) counts[ids[b]]++;
    }
    for (size_t v = 0; v < 3; v++) {
        const double want = p[v] / total, got = (double)counts[v] / DRAWS;
        assert_true(fabs(got - want) < 4.0 * sqrt(want * (1.0 - want) / DRAWS) + 1e-9);
    }
    attn_generator_free(generator);
    attn_model_free(model);
    attn_context_free(context);
}

static void check_work(const char *mechanism, size_t threads)
{
    attn_error error = {0};
    attn_context *context = make_context(threads, "auto");
    attn_model_config config = small_config();
    config.mechanism = mechanism;
    config.heads = 4;
    config.d_model = 32;
    attn_model *model = make_model(&config, 9);
    attn_generator *generator = make_generator(model, context, LENGTH);
    const uint32_t ids[BATCH * PROMPT] = {0};
    attn_work before = attn_context_work(context);
    assert_ok(attn_generator_prefill(generator, ids, PROMPT, &error), &error);
    attn_work want = attn_model_work(model, ATTN_MODEL_PREFILL, BATCH, PROMPT, NULL);
    attn_work got = since(context, before);
    assert_memory_equal(&got, &want, sizeof got);
    for (size_t t = PROMPT; t < LENGTH; t++) {
        before = attn_context_work(context);
        assert_ok(attn_generator_feed(generator, ids, &error), &error);
        want = attn_model_work(model, ATTN_MODEL_DECODE, BATCH, t, NULL);
        got = since(context, before);
        assert_memory_equal(&got, &want, sizeof got);
    }
    attn_generator_free(generator);
    attn_model_free(model);
    attn_context_free(context);
}

static void test_work(void **state)
{
    (void)state;
    for (size_t i = 0; language_mechanism(i); i++)
        for (size_t threads = 1; threads <= 3; threads++)
            check_work(language_mechanism(i), threads);
}

static void test_refusals(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_context *context = make_context(1, "ref");
    const attn_model_config config = small_config();
    attn_model *model = make_model(&config, 9);
    attn_generator *generator = NULL;
    assert_int_equal(attn_generator_create(&generator, model, context, 1, 41, &error), ATTN_ESHAPE);
    assert_null(generator);

    generator = make_generator(model, context, LENGTH);
    /* keys and values of two sequences and two layers */
    assert_int_equal(attn_generator_cache_bytes(generator),
                     2 * sizeof(float) * BATCH * LENGTH * config.d_model * config.layers);
    uint32_t ids[BATCH * 2] = {1, 2, 3, VOCABULARY};
    const attn_sampling sampling = {.temperature = -1.0};
    error = (attn_error){0};
    assert_int_equal(attn_generator_next(generator, &sampling, ids, &error), ATTN_EARGUMENT);
    assert_string_equal(error.text, "temperature -1: give 0 or above");
    error = (attn_error){0};
    assert_int_equal(attn_generator_next(generator, &(attn_sampling){0}, ids, &error),
                     ATTN_EARGUMENT);
    assert_string_equal(error.text, "generation needs a prompt first");
    error = (attn_error){0};
    assert_int_equal(attn_generator_prefill(generator, ids, 2, &error), ATTN_EARGUMENT);
    assert_string_equal(error.text, "sequence 1: token id 67, but the vocabulary ends at 66");
    error = (attn_error){0};
    assert_int_equal(attn_generator_prefill(generator, ids, LENGTH + 1, &error), ATTN_ESHAPE);
    assert_string_equal(error.text, "a prompt of 16 tokens: give 1 to 15");
    attn_generator_free(generator);
    attn_model_free(model);
    attn_context_free(context);
}

static void test_short_memory(void **state)
{
    (void)state;
    attn_context *context = make_context(1, "ref");
    const attn_model_config config = small_config();
    attn_model *model = make_model(&config, 9);
    const size_t live = attn_memory_live_blocks();
    size_t n = 1;
    for (;; n++) {
        attn_error error = {0};
        attn_generator *generator = NULL;
        attn_memory_fail_at(n);
        const attn_status status =
            attn_generator_create(&generator, model, context, BATCH, LENGTH, &error);
        attn_memory_fail_at(0);
        attn_generator_free(generator);
        assert_int_equal(attn_memory_live_blocks(), live);
        if (status == ATTN_OK) break;
        assert_int_equal(status, ATTN_EMEMORY);
    }
    assert_true(n > 6);
    attn_model_free(model);
    attn_context_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoding),     cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_distribution), cmocka_unit_test(test_work),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
