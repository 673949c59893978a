/* The whole model against PyTorch in float64 (tests/data/make_gpt2_parity.py): logits, loss,
 * every gradient, and ten steps of AdamW with decay, clipping, warm-up and cosine.
 *
 * Error of a tensor: ||got - want|| / max(||want||, s), s = 0.01 max ||gradient|| for gradients
 * and 0 elsewhere. The floor is for the key's bias, whose gradient is zero in exact arithmetic
 * (it adds the same number to all scores of a query). AdamW divides what rounding leaves of it
 * by its own size, so after steps the key's bias is any number and is left out; no output
 * depends on it. */
#include "model_fixture.h"

#include "files/safetensors.h"
#include "model/checkpoint.h"
#include "model/schedule.h"

#include <math.h>
#include <string.h>

enum { BATCH = 2, LENGTH = 14, TOKENS = BATCH * LENGTH, VOCABULARY = 101, STEPS = 10 };

static const double tolerance = 1e-5;       /* logits, losses, gradients */
static const double tolerance_after = 1e-4; /* parameters after ten steps: float32 torch 5e-6 */

static const attn_schedule schedule = {
    .kind = ATTN_SCHEDULE_COSINE, .peak = 2e-3, .floor = 2e-4, .warmup_steps = 4, .steps = STEPS};

static const attn_adamw adamw = {
    .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .decay = 0.1, .max_norm = 1.0};

/* One of the checkpoints as a model, so that gradients, too, are in our layout. */
static attn_model *load(const char *name, const char *mechanism)
{
    attn_error error = {0};
    char path[512];
    attn_model *model = NULL;
    attn_checkpoint *checkpoint = NULL;
    snprintf(path, sizeof path, "%s/gpt2_parity/%s.safetensors", TEST_DATA, name);
    assert_ok(attn_checkpoint_open(&checkpoint, path, &error), &error);
    attn_model_config config = *attn_checkpoint_config(checkpoint);
    config.mechanism = mechanism;
    assert_ok(attn_model_create(&model, &config, &error), &error);
    assert_ok(attn_checkpoint_read(checkpoint, model, &error), &error);
    attn_checkpoint_close(checkpoint);
    return model;
}

/* What is not a parameter. */
typedef struct expected_run {
    float inputs[TOKENS], targets[TOKENS], weights[TOKENS];
    double logits[TOKENS * VOCABULARY], loss[STEPS + 1], norm[STEPS], rate[STEPS];
} expected_run;

static const attn_tensor *tensor_of(const attn_safetensors *file, const char *name, size_t count)
{
    const attn_tensor *t = attn_safetensors_find(file, name);
    assert_non_null(t);
    assert_int_equal(t->count, count);
    return t;
}

static void load_run(expected_run *run)
{
    attn_error error = {0};
    attn_safetensors *file = NULL;
    assert_ok(attn_safetensors_open(&file, TEST_DATA "/gpt2_parity/run.safetensors", &error),
              &error);
    attn_tensor_to_float(tensor_of(file, "inputs", TOKENS), run->inputs);
    attn_tensor_to_float(tensor_of(file, "targets", TOKENS), run->targets);
    attn_tensor_to_float(tensor_of(file, "weights", TOKENS), run->weights);
    attn_tensor_to_double(tensor_of(file, "logits", TOKENS * VOCABULARY), run->logits);
    attn_tensor_to_double(tensor_of(file, "loss", STEPS + 1), run->loss);
    attn_tensor_to_double(tensor_of(file, "norm", STEPS), run->norm);
    attn_tensor_to_double(tensor_of(file, "rate", STEPS), run->rate);
    attn_safetensors_close(file);
}

/* ---- errors ------------------------------------------------------------------------------ */

static double norm_of(size_t n, const float *x)
{
    double squares = 0.0;
    for (size_t i = 0; i < n; i++) squares += (double)x[i] * (double)x[i];
    return sqrt(squares);
}

static double distance(size_t n, const float *x, const float *y)
{
    double squares = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)x[i] - (double)y[i];
        squares += d * d;
    }
    return sqrt(squares);
}

static bool is_key_bias(const attn_model_tensor *t)
{
    return strstr(t->name, "attn.wk.bias") != NULL;
}

/* Every tensor of `got` against `want`; returns the largest error. */
static double compare(const char *run, const attn_model *want, const float *got, double floor_share,
                      bool with_key_bias, double limit)
{
    size_t n = 0;
    const attn_model_tensor *tensors = attn_model_tensors(want, &n);
    const float *wanted = attn_model_parameters(want);
    double largest = 0.0, worst = 0.0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, norm_of(tensors[i].count, wanted + tensors[i].offset));
    for (size_t i = 0; i < n; i++) {
        const attn_model_tensor *t = &tensors[i];
        if (!with_key_bias && is_key_bias(t)) continue;
        const double scale = fmax(norm_of(t->count, wanted + t->offset), floor_share * largest);
        const double error = distance(t->count, got + t->offset, wanted + t->offset) / scale;
        if (!(error <= limit)) fail_msg("%s: %s: error %g, limit %g", run, t->name, error, limit);
        worst = fmax(worst, error);
    }
    return worst;
}

static double relative(double got, double want)
{
    return fabs(got - want) / fabs(want);
}

/* ---- one run ----------------------------------------------------------------------------- */

static void check_logits(const char *name, attn_trainer *trainer, const expected_run *want)
{
    static float logits[TOKENS * VOCABULARY];
    attn_trainer_logits(trainer, 0, TOKENS, logits);
    double squares = 0.0, total = 0.0;
    for (size_t i = 0; i < TOKENS * VOCABULARY; i++) {
        squares += ((double)logits[i] - want->logits[i]) * ((double)logits[i] - want->logits[i]);
        total += want->logits[i] * want->logits[i];
    }
    const double error = sqrt(squares / total);
    if (!(error <= tolerance)) fail_msg("%s: logits: error %g", name, error);
}

static void check_run(attn_context *context, const char *mechanism, const char *name)
{
    attn_error error = {0};
    attn_model *model = load("initial", mechanism), *gradients = load("gradients", mechanism);
    attn_model *after = load("after", mechanism);
    static expected_run want;
    load_run(&want);
    uint32_t inputs[TOKENS], targets[TOKENS];
    for (size_t i = 0; i < TOKENS; i++) {
        inputs[i] = (uint32_t)want.inputs[i];
        targets[i] = (uint32_t)want.targets[i];
    }
    const attn_training_batch batch = {
        .inputs = inputs, .targets = targets, .weights = want.weights};
    attn_trainer *trainer = NULL;
    assert_ok(attn_trainer_create(&trainer, model, context, BATCH, LENGTH, true, &error), &error);

    double worst_loss = 0.0, worst_gradient = 0.0;
    for (size_t step = 0; step <= STEPS; step++) {
        attn_loss loss;
        double norm = 0.0;
        assert_ok(attn_trainer_loss(trainer, &batch, &loss, &error), &error);
        worst_loss = fmax(worst_loss, relative(loss.mean, want.loss[step]));
        if (!(relative(loss.mean, want.loss[step]) <= tolerance))
            fail_msg("%s: loss %zu is %.9g, expected %.9g", name, step, loss.mean, want.loss[step]);
        if (step == STEPS) break;
        if (step == 0) check_logits(name, trainer, &want);
        assert_ok(attn_trainer_backward(trainer, &error), &error);
        if (step == 0)
            worst_gradient =
                compare(name, gradients, attn_trainer_gradients(trainer), 0.01, true, tolerance);
        const double rate = attn_schedule_rate(&schedule, step);
        assert_true(relative(rate, want.rate[step]) < 1e-12);
        assert_ok(attn_trainer_update(trainer, &adamw, rate, &norm, &error), &error);
        if (!(relative(norm, want.norm[step]) <= tolerance))
            fail_msg("%s: norm %zu is %.9g, expected %.9g", name, step, norm, want.norm[step]);
    }
    const double worst_after =
        compare(name, after, attn_model_parameters(model), 0.0, false, tolerance_after);
    print_message("%s: gradients %.1e, losses %.1e, parameters after %d steps %.1e\n", name,
                  worst_gradient, worst_loss, STEPS, worst_after);
    attn_trainer_free(trainer);
    attn_model_free(after);
    attn_model_free(gradients);
    attn_model_free(model);
}

/* The three that compute the same function by different routes. */
static void check_mechanism(const char *mechanism)
{
    static const char *const isas[] = {"ref", "avx2", "avx512", "amx"};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
        for (size_t threads = 1; threads <= 2; threads++) {
            attn_context *context = make_context(threads, isas[i]);
            if (!context) continue;
            char name[64];
            snprintf(name, sizeof name, "%s, %s, %zu threads", mechanism, isas[i], threads);
            check_run(context, mechanism, name);
            attn_context_free(context);
        }
}

static void test_softmax(void **state)
{
    (void)state;
    check_mechanism("softmax");
}

static void test_sdpa(void **state)
{
    (void)state;
    check_mechanism("sdpa");
}

static void test_flash(void **state)
{
    (void)state;
    check_mechanism("flash");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_softmax), cmocka_unit_test(test_sdpa),
                                       cmocka_unit_test(test_flash)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
