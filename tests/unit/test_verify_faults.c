/* Faults planted into flash: each must fail the properties it breaks, and no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "mechanisms/exact_core.h"
#include "verify/verify.h"

#include <math.h>
#include <string.h>

/* ---- the faults -------------------------------------------------------------------------- */

static float *output_row(const attn_core_call *call, size_t b, size_t t)
{
    return call->o + (b * call->length + t) * call->o_row;
}

static const float *value_row(const attn_core_call *call, size_t b, size_t t)
{
    return call->v + (b * call->length + t) * call->row;
}

static void scale_outputs(const attn_core_call *call, float factor)
{
    for (size_t b = 0; b < call->batch; b++)
        for (size_t t = 0; t < call->length; t++)
            for (size_t i = 0; i < call->layer->d_model; i++) output_row(call, b, t)[i] *= factor;
}

/* A ten-millionth of the next token's value: no error of the output shows it. */
static void peek_forward(const attn_core_call *call)
{
    attn_core_flash.forward(call);
    for (size_t b = 0; b < call->batch; b++)
        for (size_t t = 0; t + 1 < call->length; t++)
            for (size_t i = 0; i < call->layer->d_model; i++)
                output_row(call, b, t)[i] += 1e-7f * value_row(call, b, t + 1)[i];
}

static void wrong_forward(const attn_core_call *call)
{
    attn_core_flash.forward(call);
    scale_outputs(call, 1.0001f);
}

static void nan_forward(const attn_core_call *call)
{
    attn_core_flash.forward(call);
    output_row(call, 0, 0)[0] = NAN;
}

/* The same function of x, but not of x[:t]. */
static void length_forward(const attn_core_call *call)
{
    attn_core_flash.forward(call);
    if (call->length < 40 && !call->saved) scale_outputs(call, 1.00002f);
}

static void batch_forward(const attn_core_call *call)
{
    attn_core_flash.forward(call);
    if (call->batch == 1 && call->length == 40 && !call->saved) scale_outputs(call, 1.00001f);
}

static void thread_forward(const attn_core_call *call)
{
    attn_core_flash.forward(call);
    scale_outputs(call, 1.0f + 2e-7f * (float)call->context->threads);
}

static void document_forward(const attn_core_call *call)
{
    attn_core_call blind = *call;
    blind.document_start = NULL;
    attn_core_flash.forward(&blind);
    call->context->work = (attn_work){0}; /* keep the counts out of it */
}

/* Without taking the maximum off, an exponential of 1e4 is infinite, and so is their sum. */
static void overflow_forward(const attn_core_call *call)
{
    attn_core_flash.forward(call);
    if (fabsf(call->q[0]) > 10.0f) scale_outputs(call, INFINITY);
}

static void overrun_forward(const attn_core_call *call)
{
    attn_core_flash.forward(call);
    const size_t count = attn_core_flash.saved(call->layer, call->batch, call->length);
    if (call->saved) call->saved[(count + 15) / 16 * 16] = 0.0f;
}

static void underrun_decode(const attn_core_call *call)
{
    attn_core_flash.decode(call);
    call->cache[-1] = 0.0f;
}

static void wrong_decode(const attn_core_call *call)
{
    attn_core_flash.decode(call);
    scale_outputs(call, 1.001f);
}

static void wrong_backward(const attn_core_call *call)
{
    attn_core_flash.backward(call);
    for (size_t t = 0; t < call->batch * call->length; t++) call->dk[t * call->row] *= 1.01f;
}

static void nan_backward(const attn_core_call *call)
{
    attn_core_flash.backward(call);
    call->dq[0] = NAN;
}

static attn_work off_by_one(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                            const uint32_t *document_start)
{
    attn_work work = attn_core_flash.work(layer, phase, batch, length, document_start);
    work.other++;
    return work;
}

static attn_work off_in_decode(const attn_layer *layer, attn_phase phase, size_t batch,
                               size_t length, const uint32_t *document_start)
{
    attn_work work = attn_core_flash.work(layer, phase, batch, length, document_start);
    if (phase == ATTN_PHASE_DECODE) work.exponential--;
    return work;
}

/* ---- the verdicts ------------------------------------------------------------------------ */

#define BIT(property) (1u << ATTN_PROPERTY_##property)

typedef struct fault {
    const char *name;
    attn_core with; /* what differs from flash */
    unsigned fails;
} fault;

static const fault faults[] = {
    {"none", {0}, 0},
    {"a peek at the next token", {.forward = peek_forward}, BIT(FUTURE)},
    {"wrong outputs",
     {.forward = wrong_forward},
     BIT(OUTPUT) | BIT(GRADIENTS) | BIT(EXTREME) | BIT(DECODE)},
    {"one NaN",
     {.forward = nan_forward},
     BIT(OUTPUT) | BIT(GRADIENTS) | BIT(EXTREME) | BIT(BATCH) | BIT(DECODE) | BIT(DOCUMENTS)},
    {"dependence on the length", {.forward = length_forward}, BIT(PREFIX)},
    {"dependence on the batch", {.forward = batch_forward}, BIT(BATCH)},
    {"dependence on threads", {.forward = thread_forward}, BIT(THREADS)},
    {"overflow", {.forward = overflow_forward}, BIT(EXTREME)},
    {"writing behind saved", {.forward = overrun_forward}, BIT(MEMORY)},
    {"writing before the cache", {.decode = underrun_decode}, BIT(MEMORY)},
    {"wrong decoding", {.decode = wrong_decode}, BIT(DECODE)},
    {"wrong gradients", {.backward = wrong_backward}, BIT(GRADIENTS)},
    {"NaN among the gradients",
     {.backward = nan_backward},
     BIT(GRADIENTS) | BIT(EXTREME) | BIT(DOCUMENTS)},
    {"a count off by one", {.work = off_by_one}, BIT(WORK)},
    {"a count of decoding off by one", {.work = off_in_decode}, BIT(WORK)},
    {"blindness to documents", {.forward = document_forward}, BIT(DOCUMENTS) | BIT(WORK)},
};

static const attn_verify_options options = {
    .isa = "ref", .threads = 1, .seed = 5, .batch = 2, .length = 40};

static attn_layer *make_layer(const char *mechanism, bool is_causal)
{
    const attn_layer_config config = {
        .mechanism = mechanism, .d_model = 24, .heads = 3, .positions = 40, .is_causal = is_causal};
    attn_error error = {0};
    attn_layer *layer = NULL;
    if (attn_layer_create(&layer, &config, &error) != ATTN_OK) fail_msg("%s", error.text);
    return layer;
}

static void verify(const attn_layer *layer, attn_verification *out)
{
    attn_error error = {0};
    const size_t live = attn_memory_live_blocks();
    if (attn_verify_layer(layer, &options, out, &error) != ATTN_OK) fail_msg("%s", error.text);
    assert_int_equal(attn_memory_live_blocks(), live);
}

static void test_faults(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        const fault *f = &faults[i];
        attn_core core = attn_core_flash;
        if (f->with.forward) core.forward = f->with.forward;
        if (f->with.backward) core.backward = f->with.backward;
        if (f->with.decode) core.decode = f->with.decode;
        if (f->with.work) core.work = f->with.work;
        attn_mechanism mechanism = *attn_mechanism_find("flash");
        mechanism.core = &core;
        attn_layer *layer = make_layer("flash", true);
        layer->mechanism = &mechanism;
        attn_verification got;
        verify(layer, &got);
        attn_layer_free(layer);
        for (size_t k = 0; k < ATTN_PROPERTIES; k++) {
            const bool should_fail = f->fails >> k & 1u;
            const attn_verdict *v = &got.of[k];
            if (v->outcome != (should_fail ? ATTN_OUTCOME_FAILS : ATTN_OUTCOME_HOLDS))
                fail_msg("%s: %s has outcome %d (%s)", f->name,
                         attn_property_name((attn_property)k), (int)v->outcome, v->text);
            assert_int_equal(strlen(v->text) > 0, should_fail);
        }
        assert_int_equal(attn_verification_holds(&got), f->fails == 0);
    }
}

/* What a row without keys is instead of 0. */
static void full_forward(const attn_core_call *call)
{
    attn_mechanism_find("flex")->core->forward(call);
    if (call->layer->flex.mask) output_row(call, 0, 1)[0] += 1.0f;
}

static void test_empty_rows(void **state)
{
    (void)state;
    attn_mechanism mechanism = *attn_mechanism_find("flex");
    attn_core core = *mechanism.core;
    core.forward = full_forward;
    mechanism.core = &core;
    attn_layer *layer = make_layer("flex", true);
    attn_verification got;
    verify(layer, &got);
    assert_true(attn_verification_holds(&got));
    layer->mechanism = &mechanism;
    verify(layer, &got);
    attn_layer_free(layer);
    assert_int_equal(got.of[ATTN_PROPERTY_OUTPUT].outcome, ATTN_OUTCOME_FAILS);
    assert_non_null(strstr(got.of[ATTN_PROPERTY_OUTPUT].text, "y, with empty rows"));
    assert_int_equal(got.of[ATTN_PROPERTY_DOCUMENTS].outcome, ATTN_OUTCOME_HOLDS);
}

/* ---- forms, refusals and memory ---------------------------------------------------------- */

static void test_bidirectional(void **state)
{
    (void)state;
    static const attn_property ordered[] = {ATTN_PROPERTY_FUTURE, ATTN_PROPERTY_PREFIX,
                                            ATTN_PROPERTY_DECODE, ATTN_PROPERTY_DOCUMENTS};
    attn_layer *layer = make_layer("flash", false);
    attn_verification got;
    verify(layer, &got);
    attn_layer_free(layer);
    assert_true(attn_verification_holds(&got));
    for (size_t i = 0; i < sizeof ordered / sizeof *ordered; i++) {
        assert_int_equal(got.of[ordered[i]].outcome, ATTN_OUTCOME_BY_DESIGN);
        assert_string_equal(got.of[ordered[i]].text, "not causal by design");
    }
    assert_int_equal(got.of[ATTN_PROPERTY_OUTPUT].outcome, ATTN_OUTCOME_HOLDS);
    assert_true(got.of[ATTN_PROPERTY_OUTPUT].error > 0.0);
    assert_true(got.of[ATTN_PROPERTY_WORK].is_exact);
}

/* Every mechanism of the registry in both forms, at a length that no tile divides. */
static void test_every_mechanism(void **state)
{
    (void)state;
    const attn_verify_options longer = {
        .isa = "auto", .threads = 1, .seed = 11, .batch = 2, .length = 70};
    for (size_t i = 0; i < attn_mechanism_count(); i++) {
        const attn_layer_config config = {
            .mechanism = attn_mechanism_name(i), .d_model = 64, .heads = 4, .positions = 70};
        attn_error error = {0};
        attn_verification got;
        if (attn_verify_mechanism(&config, &longer, &got, &error) != ATTN_OK)
            fail_msg("%s: %s", config.mechanism, error.text);
        for (size_t k = 0; k < ATTN_PROPERTIES; k++)
            if (got.of[k].outcome != ATTN_OUTCOME_HOLDS &&
                got.of[k].outcome != ATTN_OUTCOME_NOT_APPLICABLE)
                fail_msg("%s, %s: %s", config.mechanism, attn_property_name((attn_property)k),
                         got.of[k].text);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    attn_layer_config config = {.mechanism = "flahs", .d_model = 24, .heads = 3, .positions = 40};
    attn_verify_options wanted = options;
    attn_verification got;
    attn_error error = {0};
    assert_int_equal(attn_verify_mechanism(&config, &wanted, &got, &error), ATTN_ENOTFOUND);
    assert_string_equal(error.text, "unknown mechanism 'flahs'; did you mean 'flash'?");
    error = (attn_error){0};
    config.mechanism = "flash";
    wanted.length = 1;
    assert_int_equal(attn_verify_mechanism(&config, &wanted, &got, &error), ATTN_EARGUMENT);
    error = (attn_error){0};
    wanted.length = 41;
    assert_int_equal(attn_verify_mechanism(&config, &wanted, &got, &error), ATTN_ESHAPE);
    error = (attn_error){0};
    wanted = options;
    wanted.isa = "sse";
    assert_int_equal(attn_verify_mechanism(&config, &wanted, &got, &error), ATTN_EARGUMENT);
}

/* The n-th allocation fails: always a report, never a verdict or a leak. */
static void test_short_memory(void **state)
{
    (void)state;
    const attn_layer_config config = {
        .mechanism = "flash", .d_model = 4, .heads = 2, .positions = 3};
    attn_verify_options small = options;
    small.length = 3;
    small.batch = 1;
    const size_t live = attn_memory_live_blocks();
    bool is_done = false;
    for (size_t n = 1; !is_done; n += 1 + n / 8) {
        attn_verification got;
        attn_error error = {0};
        attn_memory_fail_at(n);
        const attn_status status = attn_verify_mechanism(&config, &small, &got, &error);
        attn_memory_fail_at(0);
        is_done = status == ATTN_OK;
        if (!is_done) assert_int_equal(status, ATTN_EMEMORY);
        assert_int_equal(attn_memory_live_blocks(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults),        cmocka_unit_test(test_empty_rows),
        cmocka_unit_test(test_bidirectional), cmocka_unit_test(test_every_mechanism),
        cmocka_unit_test(test_refusals),      cmocka_unit_test(test_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
