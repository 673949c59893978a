/* Counted work of training steps equals its closed form; the list of dense products is the step's. */
#include "model_fixture.h"

static void check_work(const char *mechanism, size_t threads, const char *isa, size_t batch,
                       size_t length, size_t layers, attn_dtype dtype)
{
    attn_error error = {0};
    attn_context *context = make_context(threads, isa);
    if (!context) return;
    attn_model_config config = small_config();
    config.mechanism = mechanism;
    config.heads = 4;
    config.d_model = 32;
    config.layers = layers;
    config.dtype = dtype;
    attn_model *model = make_model(&config, 3);
    attn_trainer *trainer = make_trainer(model, context, batch, length);
    test_batch b;
    make_batch(&b, batch * length, config.vocabulary, 4);
    attn_loss loss;
    attn_adamw adamw = attn_adamw_default();

    const attn_work forward = attn_model_work(model, ATTN_MODEL_FORWARD, batch, length, NULL);
    attn_work step = attn_model_work(model, ATTN_MODEL_BACKWARD, batch, length, NULL);
    step.matmul += forward.matmul;
    step.exponential += forward.exponential;
    step.other += forward.other;

    attn_work before = attn_context_work(context);
    assert_ok(attn_trainer_evaluate(trainer, &b.batch, &loss, &error), &error);
    assert_work(since(context, before), forward);
    before = attn_context_work(context);
    assert_ok(attn_trainer_loss(trainer, &b.batch, &loss, &error), &error);
    assert_ok(attn_trainer_backward(trainer, &error), &error);
    assert_work(since(context, before), step);
    before = attn_context_work(context);
    assert_ok(attn_trainer_update(trainer, &adamw, 1e-3, NULL, &error), &error);
    assert_work(since(context, before), attn_model_work(model, ATTN_MODEL_UPDATE, 0, 0, NULL));
    adamw.max_norm = 1.0;
    before = attn_context_work(context);
    assert_ok(attn_trainer_update(trainer, &adamw, 1e-3, NULL, &error), &error);
    assert_work(since(context, before),
                attn_model_work(model, ATTN_MODEL_UPDATE_CLIPPED, 0, 0, NULL));
    attn_trainer_free(trainer);
    attn_model_free(model);
    attn_context_free(context);
}

static void test_work(void **state)
{
    (void)state;
    for (size_t i = 0; language_mechanism(i); i++) {
        const char *mechanism = language_mechanism(i);
        check_work(mechanism, 1, "ref", 2, 17, 2, ATTN_F32);
        check_work(mechanism, 2, "avx2", 1, 1, 1, ATTN_F32);
        check_work(mechanism, 2, "auto", 3, 40, 1, ATTN_F32);
        check_work(mechanism, 3, "auto", 2, 33, 3, ATTN_F32);
        check_work(mechanism, 1, "ref", 2, 17, 2, ATTN_BF16);
        check_work(mechanism, 2, "auto", 3, 33, 2, ATTN_BF16);
    }
    check_work("sliding:window=9*2+gla+flash", 1, "ref", 2, 17, 6, ATTN_F32);
    check_work("linear+sliding:window=5", 2, "auto", 3, 33, 3, ATTN_F32);
    check_work("linear+sliding:window=5", 2, "auto", 3, 33, 3, ATTN_BF16);
}

/* The list's operations, with the attention's scores left out, are the step's. */
static void check_products(attn_dtype dtype)
{
    attn_error error = {0};
    attn_model_config config;
    attn_model *model = NULL;
    assert_ok(attn_model_preset("gpt2", &config, &error), &error);
    config.dtype = dtype;
    assert_ok(attn_model_create(&model, &config, &error), &error);
    attn_model_product products[ATTN_MODEL_PRODUCTS_MAX];
    uint64_t operations[ATTN_PRODUCT_KINDS] = {0};
    const size_t n = attn_model_dense_products(model, 2, 512, products);
    assert_true(n <= ATTN_MODEL_PRODUCTS_MAX);
    for (size_t i = 0; i < n; i++)
        operations[products[i].kind] +=
            2 * (uint64_t)products[i].rows * products[i].in * products[i].out * products[i].times;
    /* 12 layers of 12 C^2, and the head, for 1024 tokens */
    const uint64_t each = 2 * UINT64_C(1024) * 768 * (12 * 12 * 768 + 50257);
    for (size_t kind = 0; kind < ATTN_PRODUCT_KINDS; kind++)
        assert_int_equal(operations[kind], each);
    attn_model_free(model);
}

static void test_products(void **state)
{
    (void)state;
    check_products(ATTN_F32);
    check_products(ATTN_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work),
        cmocka_unit_test(test_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
