/* Models of different blocks: places, starting values, gradients, what is refused, and models
 * that see the future. Counted work and decoding are with the other models' tests. */
#include "model_fixture.h"

#include "mechanisms/mechanism.h"
#include "model/generation.h"

#include <math.h>
#include <string.h>

enum { B = 2, T = 19 };

static attn_model_config wide_config(const char *mechanism, size_t layers)
{
    attn_model_config config = small_config();
    config.heads = 4;
    config.d_model = 32;
    config.layers = layers;
    config.mechanism = mechanism;
    return config;
}

/* ---- places ------------------------------------------------------------------------------ */

static void test_blocks(void **state)
{
    (void)state;
    const attn_model_config config = wide_config("sliding:window=5+sliding:window=5+gla", 5);
    attn_model *model = make_model(&config, 3);
    assert_string_equal(attn_model_configuration(model)->mechanism, "sliding:window=5*2+gla");

    /* sliding sliding gla sliding sliding: repeated, and cut */
    size_t n = 0;
    const attn_model_kind *kinds = attn_model_kinds(model, &n);
    assert_int_equal(n, 2);
    assert_int_equal(kinds[0].n_blocks, 4);
    assert_int_equal(kinds[1].n_blocks, 1);
    for (size_t block = 0; block < 5; block++)
        assert_ptr_equal(attn_model_layer(model, block), kinds[block == 2].layer);
    assert_int_equal(attn_model_future_blocks(model), 0);

    const attn_block_offsets *blocks = attn_model_layout(model)->blocks;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    size_t at = 0, gates = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(tensors[i].offset >= at && tensors[i].offset - at < 16);
        at = tensors[i].offset + tensors[i].count;
        char name[ATTN_TENSOR_NAME_BYTES];
        snprintf(name, sizeof name, "h.%zu.", tensors[i].block);
        if (strncmp(tensors[i].name, "h.", 2) == 0)
            assert_memory_equal(tensors[i].name, name, strlen(name));
        gates += strstr(tensors[i].name, ".attn.wg.weight") != NULL;
    }
    assert_int_equal(gates, 1);
    assert_int_equal(attn_model_find(model, "h.2.attn.wq.weight")->offset, blocks[2].attention);
    assert_int_equal(attn_model_find(model, "h.4.mlp.c_proj.bias")->offset, blocks[4].down_bias);
    attn_model_free(model);
}

/* A tensor starts as it does in every model that has it, own starts included. */
static void test_initial(void **state)
{
    (void)state;
    const attn_model_config mixed = wide_config("sliding:window=5*2+gated-deltanet", 4);
    attn_model *model = make_model(&mixed, 3);
    static const char *const names[] = {"sliding:window=5", "gated-deltanet"};
    size_t n = 0, n_own = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    for (size_t k = 0; k < 2; k++) {
        const attn_model_config plain = wide_config(names[k], 4);
        attn_model *other = make_model(&plain, 3);
        for (size_t i = 0; i < n; i++) {
            if (k != (tensors[i].block == 2)) continue;
            const attn_model_tensor *t = attn_model_find(other, tensors[i].name);
            assert_non_null(t);
            assert_memory_equal(attn_model_parameters(model) + tensors[i].offset,
                                attn_model_parameters(other) + t->offset, t->count * sizeof(float));
            n_own += t->initial == ATTN_INITIAL_OWN;
        }
        attn_model_free(other);
    }
    assert_true(n_own > 0);
    attn_model_free(model);
}

/* ---- gradients --------------------------------------------------------------------------- */

/* Larger weights, so that every block matters. */
static attn_model *make_strong(const attn_model_config *config)
{
    attn_model *model = make_model(config, 9);
    float *p = attn_model_parameters(model);
    for (size_t i = 0; i < attn_model_block_count(model); i++) p[i] *= 3.0f;
    return model;
}

static double loss_of(attn_trainer *trainer, const test_batch *b)
{
    attn_error error = {0};
    attn_loss loss;
    assert_ok(attn_trainer_evaluate(trainer, &b->batch, &loss, &error), &error);
    return loss.mean;
}

static double take_gradients(attn_trainer *trainer, const test_batch *b)
{
    attn_error error = {0};
    attn_loss loss;
    assert_ok(attn_trainer_loss(trainer, &b->batch, &loss, &error), &error);
    assert_ok(attn_trainer_backward(trainer, &error), &error);
    return loss.mean;
}

/* Along each tensor's own gradient g the loss changes by |g|^2: a central difference whose step
 * changes the loss by a thousandth, and the tensor by no more than a thousandth of its norm. */
static void check_differences(const char *mechanism, size_t layers)
{
    attn_error error = {0};
    attn_context *context = make_context(1, "ref");
    const attn_model_config config = wide_config(mechanism, layers);
    attn_model *model = make_strong(&config);
    attn_trainer *trainer = NULL;
    test_batch b;
    make_batch(&b, B * T, config.vocabulary, 10);
    assert_ok(attn_trainer_create(&trainer, model, context, B, T, true, &error), &error);
    take_gradients(trainer, &b);
    const size_t count = attn_model_block_count(model);
    float *g = attn_alloc_array(ATTN_MEMORY_OTHER, count, sizeof *g);
    float *start = attn_alloc_array(ATTN_MEMORY_OTHER, count, sizeof *start);
    memcpy(g, attn_trainer_gradients(trainer), count * sizeof *g);
    memcpy(start, attn_model_parameters(model), count * sizeof *start);
    size_t n = 0, n_checked = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    for (size_t i = 0; i < n; i++) {
        const attn_model_tensor *t = &tensors[i];
        double squares = 0.0, size = 0.0, ends[2];
        for (size_t j = t->offset; j < t->offset + t->count; j++) {
            squares += (double)g[j] * (double)g[j];
            size += (double)start[j] * (double)start[j];
        }
        if (!t->is_trained || squares < 1e-6) continue; /* as the bias of keys, which is 0 */
        const double step = fmin(1e-3 / squares, 1e-3 * (1.0 + sqrt(size)) / sqrt(squares));
        float *p = attn_model_parameters(model);
        for (int side = 0; side < 2; side++) {
            for (size_t j = t->offset; j < t->offset + t->count; j++)
                p[j] = (float)((double)start[j] + (side ? step : -step) * (double)g[j]);
            ends[side] = loss_of(trainer, &b);
        }
        memcpy(p + t->offset, start + t->offset, t->count * sizeof *p);
        const double slope = (ends[1] - ends[0]) / (2.0 * step);
        if (!(fabs(slope / squares - 1.0) < 0.02))
            fail_msg("%s, %s: %g by differences, %g by the backward pass", mechanism, t->name,
                     slope, squares);
        n_checked += strstr(t->name, ".attn.") != NULL;
    }
    assert_true(n_checked > 4 * layers);
    attn_free(start);
    attn_free(g);
    attn_trainer_free(trainer);
    attn_model_free(model);
    attn_context_free(context);
}

static void test_differences(void **state)
{
    (void)state;
    check_differences("sliding:window=5:sinks=1*2+gla+flash", 5);
    check_differences("linear+gqa:kv_heads=2+retnet", 3);
    check_differences("softmax*2+flex:mask=causal:score=softcap:cap=9", 4);
}

/* Blocks that compute the same function in different ways make the same model. */
static void test_equal_functions(void **state)
{
    (void)state;
    attn_error error = {0};
    static const char *const same[] = {"softmax", "softmax*2+flash", "sdpa+sliding:window=40"};
    double losses[3];
    float *first = NULL;
    size_t count = 0;
    for (size_t i = 0; i < 3; i++) {
        attn_context *context = make_context(1, "ref");
        const attn_model_config config = wide_config(same[i], 4);
        attn_model *model = make_strong(&config);
        attn_trainer *trainer = NULL;
        test_batch b;
        make_batch(&b, B * T, config.vocabulary, 10);
        assert_ok(attn_trainer_create(&trainer, model, context, B, T, true, &error), &error);
        losses[i] = take_gradients(trainer, &b);
        const float *g = attn_trainer_gradients(trainer);
        if (i == 0) {
            count = attn_model_block_count(model);
            first = attn_alloc_array(ATTN_MEMORY_OTHER, count, sizeof *first);
            memcpy(first, g, count * sizeof *first);
        }
        assert_int_equal(attn_model_block_count(model), count);
        double off = 0.0, size = 0.0;
        for (size_t j = 0; j < count; j++) {
            off += pow((double)g[j] - (double)first[j], 2.0);
            size += pow((double)first[j], 2.0);
        }
        assert_true(off <= 1e-10 * size);
        assert_true(fabs(losses[i] - losses[0]) < 1e-6);
        attn_trainer_free(trainer);
        attn_model_free(model);
        attn_context_free(context);
    }
    attn_free(first);
}

/* ---- what is refused, and what sees the future ------------------------------------------- */

static void refuse(const attn_model_config *config, attn_status status, const char *text)
{
    attn_error errors[2] = {{0}};
    attn_model *model = NULL;
    size_t future_blocks = 0;
    const size_t live = attn_memory_live_blocks();
    assert_int_equal(attn_model_create(&model, config, &errors[0]), status);
    assert_int_equal(attn_model_check(config, T, &future_blocks, &errors[1]), status);
    assert_null(model);
    for (size_t i = 0; i < 2; i++) assert_string_equal(errors[i].text, text);
    assert_int_equal(attn_memory_live_blocks(), live);
}

static void test_refusals(void **state)
{
    (void)state;
    attn_model_config config = wide_config("sliding*3+softmax", 3);
    refuse(&config, ATTN_ESHAPE,
           "the pattern 'sliding*3+softmax' is 4 blocks long, but the model has 3: shorten it");
    config = wide_config("sliding+", 3);
    refuse(&config, ATTN_EARGUMENT,
           "'sliding+': a mechanism is missing beside + or *, as in sliding*3+softmax");
    config = wide_config("flash+flahs", 3);
    refuse(&config, ATTN_ENOTFOUND, "unknown mechanism 'flahs'; did you mean 'flash'?");
    config = wide_config("flash+gqa:kv_heads=3", 3);
    refuse(&config, ATTN_ESHAPE, "gqa: kv_heads=3 does not divide the 4 heads");
    config = wide_config("flash*2+flex:mask=full", 3);
    refuse(&config, ATTN_EARGUMENT,
           "flex:mask=full lets a token see later ones, which gives away what a language model is "
           "to predict");
    for (size_t i = 0; i < attn_mechanism_count(); i++) {
        const char *name = attn_mechanism_name(i);
        if (!attn_mechanism_find(name)->reads_memory) continue;
        char text[128];
        snprintf(text, sizeof text,
                 "%s reads a memory beside the tokens, and a language model has none", name);
        config = wide_config(name, 3);
        refuse(&config, ATTN_EARGUMENT, text);
        config.is_causal = false;
        refuse(&config, ATTN_EARGUMENT, text);
    }
}

static void test_future(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_context *context = make_context(1, "ref");
    attn_model_config config = wide_config("flash+linformer:causal=false", 3);
    size_t future_blocks = 99;
    config.is_causal = false;
    assert_ok(attn_model_check(&config, T, &future_blocks, &error), &error);
    assert_int_equal(future_blocks, 1);
    attn_model *model = make_strong(&config);
    assert_int_equal(attn_model_future_blocks(model), 1);

    /* It does see it: another last token changes the loss of the first. */
    attn_trainer *trainer = NULL;
    test_batch b;
    make_batch(&b, B * T, config.vocabulary, 10);
    assert_ok(attn_trainer_create(&trainer, model, context, B, T, true, &error), &error);
    loss_of(trainer, &b);
    const double before = attn_trainer_nll(trainer)[0];
    b.inputs[T - 1] = (b.inputs[T - 1] + 1) % (uint32_t)config.vocabulary;
    loss_of(trainer, &b);
    assert_true(attn_trainer_nll(trainer)[0] != before);
    assert_true(take_gradients(trainer, &b) > 0.0);
    attn_trainer_free(trainer);

    /* It reads a text at once, but cannot go on token by token. */
    attn_generator *generator = NULL;
    assert_ok(attn_generator_create(&generator, model, context, B, T, &error), &error);
    assert_ok(attn_generator_prefill(generator, b.inputs, T, &error), &error);
    assert_int_equal(attn_generator_cache_bytes(generator), 0);
    assert_int_equal(attn_generator_feed(generator, b.inputs, &error), ATTN_EUNSUPPORTED);
    assert_string_equal(error.text, "the model sees later tokens, so it cannot go on one by one");
    error = (attn_error){0};
    assert_int_equal(attn_generator_prefill(generator, b.inputs, T - 1, &error), ATTN_ESHAPE);
    assert_string_equal(error.text, "a prompt of 18 tokens, but the model sees later tokens and "
                                    "reads texts of the capacity alone, 19");
    attn_generator_free(generator);
    attn_model_free(model);
    attn_context_free(context);
}

static void test_short_memory(void **state)
{
    (void)state;
    const attn_model_config config = wide_config("sliding*2+gla+flash", 5);
    const size_t live = attn_memory_live_blocks();
    attn_status status = ATTN_EMEMORY;
    size_t n = 1;
    for (; status != ATTN_OK; n++) {
        attn_error error = {0};
        attn_model *model = NULL;
        attn_memory_fail_at(n);
        status = attn_model_create(&model, &config, &error);
        attn_memory_fail_at(0);
        attn_model_free(model);
        assert_int_equal(attn_memory_live_blocks(), live);
        if (status != ATTN_OK) assert_int_equal(status, ATTN_EMEMORY);
    }
    assert_true(n > 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),       cmocka_unit_test(test_initial),
        cmocka_unit_test(test_differences),  cmocka_unit_test(test_equal_functions),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_future),
        cmocka_unit_test(test_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
