/* Conventions of others as oracles, and the roofline's worked numbers. */
#include "attn/layer.h"
#include "cost/convention.h"
#include "cost/roofline.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static attn_catalog catalog;

static int load(void **state)
{
    (void)state;
    return attn_catalog_load(&catalog, NULL, NULL, NULL) == ATTN_OK ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    attn_catalog_free(&catalog);
    return 0;
}

static attn_cost_estimate estimate(const char *model, const char *mechanism, attn_cost_phase phase,
                                   attn_cost_type type, size_t batch, size_t keys)
{
    static attn_cost_estimate e;
    attn_error error = {0};
    attn_cost_request r = {.catalog = &catalog,
                           .spec = attn_records_find(&catalog.models, model, NULL),
                           .phase = phase,
                           .type = type,
                           .batch = batch,
                           .keys = keys};
    assert_int_equal(attn_pattern_parse(mechanism, &r.pattern, NULL), ATTN_OK);
    if (attn_cost_estimate_make(&r, &e, &error) != ATTN_OK) fail_msg("%s", error.text);
    return e;
}

static const attn_device *device(const char *name)
{
    const attn_device *d = attn_records_find(&catalog.devices, name, NULL);
    assert_non_null(d);
    return d;
}

static void assert_about(double value, double expected, double relative)
{
    if (!(fabs(value / expected - 1.0) <= relative)) fail_msg("%.9g is not %.9g", value, expected);
}

/* ---- conventions ---------------------------------------------------------------------------- */

/* GPT-2's products by hand: 12 layers of 2 N d (3 d + d + 4 d + 4 d), and the logits. */
static void test_conventions_of_gpt2(void **state)
{
    (void)state;
    const double N = 1024, d = 768, L = 12, T = 512, V = 50257;
    const double products = 2 * N * (L * 12 * d * d + d * V), square = 2 * 12 * T * T * 64;
    const attn_cost_estimate flash =
        estimate("gpt2", "flash", ATTN_COST_TRAIN, ATTN_COST_F32, 2, 512);
    const attn_cost_estimate eager =
        estimate("gpt2", "softmax", ATTN_COST_TRAIN, ATTN_COST_F32, 2, 512);
    /* FlopCounterMode: mm, addmm and sdpa, 4 and 10 T^2 d a head, or bmm, 4 and 8 */
    assert_true(attn_convention_flop(&flash, ATTN_CONVENTION_TORCH) ==
                3 * products + L * square * (4 + 10));
    assert_true(attn_convention_flop(&eager, ATTN_CONVENTION_TORCH) ==
                3 * products + L * square * (4 + 8));
    assert_true(attn_convention_flop(&eager, ATTN_CONVENTION_TORCH) == (double)(816962863104));
    /* nanoGPT's estimate_mfu(): 817.7 GFLOP */
    const double nanogpt = (6.0 * (124439808 - 1024 * 768) + 12 * 12 * 12 * 64 * 512.0) * N;
    assert_true(attn_convention_flop(&flash, ATTN_CONVENTION_NANOGPT) == nanogpt);
    assert_true(attn_convention_flop(&flash, ATTN_CONVENTION_PALM) == nanogpt);
    /* Megatron: 3 x (products + half of the cores) */
    assert_true(attn_convention_flop(&flash, ATTN_CONVENTION_MEGATRON) ==
                3 * products + 3 * L * square * 2);
    /* 72 B s l h^2 (1 + s / 6h + V / 12lh) with the whole square: Megatron's paper */
    const double h = d, paper = 72 * 2 * T * L * h * h * (1 + T / (6 * h) + V / (12 * L * h));
    assert_about(attn_convention_flop(&eager, ATTN_CONVENTION_DENSE), paper, 1e-12);
    /* flash-attention: 4 B s^2 H d / 2, x 3.5 */
    assert_true(attn_convention_flop(&flash, ATTN_CONVENTION_FLASH) ==
                3.5 * L * 4 * 2 * T * T * 12 * 64 / 2);
    assert_true(attn_convention_flop(&flash, ATTN_CONVENTION_EXECUTED) ==
                (double)(263865237504 + 533166292992));
    assert_true(attn_convention_flop(&flash, ATTN_CONVENTION_USEFUL) ==
                3 * products + 3 * L * 2 * 12 * 4 * 64 * (T * (T + 1) / 2));
    const attn_cost_estimate gla = estimate("gpt2", "gla", ATTN_COST_TRAIN, ATTN_COST_F32, 2, 512);
    assert_true(isnan(attn_convention_flop(&gla, ATTN_CONVENTION_TORCH)));
    assert_true(attn_convention_flop(&gla, ATTN_CONVENTION_USEFUL) ==
                attn_convention_flop(&gla, ATTN_CONVENTION_EXECUTED));
    for (size_t c = 0; c < ATTN_CONVENTIONS; c++)
        assert_int_equal(attn_convention_parse(attn_convention_name((attn_cost_convention)c)), c);
}

/* ---- roofline ------------------------------------------------------------------------------- */

static attn_prediction predict(const attn_cost_estimate *e, const attn_device *d)
{
    static attn_prediction p;
    attn_error error = {0};
    if (attn_cost_predict(e, d, &p, &error) != ATTN_OK) fail_msg("%s", error.text);
    return p;
}

/* Llama-3-8B, one token behind 8192 on an H100: 16.08 GB, 4.80 ms at the peak of the memory. */
static void test_decoding_is_bound_by_memory(void **state)
{
    (void)state;
    const attn_cost_estimate e =
        estimate("llama3-8b", "flash", ATTN_COST_DECODE, ATTN_COST_BF16, 1, 8192);
    const attn_prediction p = predict(&e, device("h100-sxm"));
    assert_about(p.bytes, 16.08e9, 2e-3);
    assert_int_equal(p.bound, ATTN_BOUND_MEMORY);
    assert_true(p.time_s.low >= 4.80e-3 && p.time_s.low < 6.0e-3);
    assert_true(p.time_s.low < p.time_s.value && p.time_s.value < p.time_s.high);
    assert_true(p.energy_j.value > 0.8 && p.energy_j.value < 2.0);
    assert_true(p.energy_j.low < p.energy_j.value && p.energy_j.value < p.energy_j.high);
    assert_true(p.fits);
    assert_false(p.is_calibrated);
}

static void test_training_is_bound_by_products(void **state)
{
    (void)state;
    const attn_cost_estimate e =
        estimate("gpt2", "flash", ATTN_COST_TRAIN, ATTN_COST_BF16, 64, 1024);
    const attn_prediction p = predict(&e, device("a100-80-sxm"));
    /* nothing is faster than its products at the peak */
    assert_true(p.time_s.low > (double)attn_cost_total(&e).matmul / 312e12);
    double parts = 0.0;
    for (size_t i = 0; i < e.n_parts; i++) parts += p.part_s[i];
    assert_about(parts, p.time_s.value, 1e-9);
    assert_true(p.core_share > 0.0 && p.core_share < p.attention_share && p.attention_share < 1.0);
}

/* The square in memory costs traffic that tiles do not have. */
static void test_softmax_moves_more(void **state)
{
    (void)state;
    const attn_cost_estimate eager =
        estimate("gpt2", "softmax", ATTN_COST_TRAIN, ATTN_COST_F32, 2, 512);
    const attn_device *h100 = device("h100-sxm");
    for (size_t i = 0; i < eager.n_parts; i++) {
        const attn_cost_part *part = &eager.parts[i];
        if (!part->traffic.is_square) continue;
        assert_about(attn_cost_part_bytes(part, h100, ATTN_COST_FORWARD, 4.0), 213.9e6, 1e-3);
        assert_about(attn_cost_part_bytes(part, h100, ATTN_COST_BACKWARD, 4.0), 251.7e6, 1e-2);
    }
    const attn_cost_estimate flash =
        estimate("gpt2", "flash", ATTN_COST_TRAIN, ATTN_COST_F32, 2, 512);
    for (size_t i = 0; i < flash.n_parts; i++) {
        const attn_cost_part *part = &flash.parts[i];
        if (!part->traffic.is_softmax) continue;
        /* 24 heads: q and o once, and 8 sweeps of k and v of which 9/16 happen */
        const double share = part->traffic.executed_share;
        assert_about(attn_cost_tiled_bytes(part, ATTN_COST_FORWARD, 4.0, 64.0),
                     4.0 * 24 * (512 * 128 + 8 * share * 512 * 128), 1e-12);
        assert_about((double)part->bytes[ATTN_COST_FORWARD], 12.6e6, 5e-3);
        assert_about((double)part->bytes[ATTN_COST_BACKWARD], 25.2e6, 7e-3);
        assert_about(attn_cost_eager_bytes(part, ATTN_COST_FORWARD, 4.0), 213.9e6, 1e-3);
        /* a block of all queries reads everything once */
        assert_true(attn_cost_tiled_bytes(part, ATTN_COST_FORWARD, 4.0, 512.0) ==
                    (double)part->bytes[ATTN_COST_FORWARD]);
        assert_true(attn_cost_tile_rows(h100, part, 2.0) > attn_cost_tile_rows(NULL, part, 2.0));
    }
    assert_true(predict(&eager, h100).bytes > predict(&flash, h100).bytes);
}

static void test_ridges(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double ridge;
    } rows[] = {{"a100-80-sxm", 153}, {"a100-40-sxm", 201}, {"h100-sxm", 295}, {"l4", 403},
                {"tpu-v5e", 241},     {"mi300x", 247},      {"gb200", 312},    {"gaudi2", 176}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_true(fabs(attn_device_ridge(device(rows[i].name), ATTN_COST_BF16) - rows[i].ridge) <=
                    0.5);
}

/* Every device predicts every type it has, within an interval, and refuses the others. */
static void test_all_devices(void **state)
{
    (void)state;
    for (size_t type = 0; type < ATTN_COST_TYPES; type++) {
        const attn_cost_estimate e =
            estimate("llama3.2-1b", "flash", ATTN_COST_PREFILL, (attn_cost_type)type, 1, 4096);
        for (size_t i = 0; i < catalog.devices.count; i++) {
            const attn_device *d = attn_records_at(&catalog.devices, i);
            attn_error error = {0};
            attn_prediction p;
            const bool has = attn_device_rate(d, (attn_cost_type)type, NULL) != NULL;
            assert_int_equal(attn_cost_predict(&e, d, &p, &error) == ATTN_OK, has);
            if (!has) continue;
            assert_true(p.time_s.low > 0.0 && p.time_s.low <= p.time_s.value &&
                        p.time_s.value <= p.time_s.high);
            assert_true(isnan(p.energy_j.value) == (p.energy_why[0] != '\0'));
            assert_true(isnan(p.energy_j.value) || (p.energy_j.low <= p.energy_j.value &&
                                                    p.energy_j.value <= p.energy_j.high));
        }
    }
}

/* ---- a machine that was measured ------------------------------------------------------------ */

static attn_quantity exactly(double value)
{
    return (attn_quantity){value, value, value};
}

static attn_device measured_machine(void)
{
    attn_device d = *device("xeon-8480");
    d.rates[ATTN_COST_F32] = exactly(0.25);
    d.rates[ATTN_COST_BF16] = exactly(2.0);
    d.exponential = exactly(0.008);
    d.other_rate = exactly(0.064);
    d.projection_rate = exactly(0.125);
    d.head_rate = exactly(0.5);
    d.launch_s = exactly(1e-6);
    d.tdp_w = exactly(NAN);
    d.memory_gb = exactly(2.2);
    return d;
}

static size_t place_of(const char *mechanism)
{
    size_t i = 0;
    while (strcmp(attn_mechanism_name(i), mechanism) != 0) i++;
    return i;
}

/* The factor of float32 at the shorter length. */
static double *core_of(attn_device *d, size_t pass, const char *mechanism)
{
    return &d->cores[ATTN_CORE_F32][pass][0][place_of(mechanism)];
}

/* Each kind of product has its rate, and each mechanism's core its factor. */
static void test_constants_of_a_machine(void **state)
{
    (void)state;
    static attn_cost_estimate e;
    attn_device d = measured_machine();
    const double N = 1024, L = 12, width = 768;
    e = estimate("gpt2", "flash", ATTN_COST_TRAIN, ATTN_COST_F32, 2, 512);
    const attn_prediction plain = predict(&e, &d);
    assert_true(plain.is_calibrated);
    assert_about(plain.terms[ATTN_COST_PROJECTION][ATTN_COST_FORWARD].matmul_s,
                 L * 2 * N * 4 * width * width / 0.125e12, 1e-12);
    assert_about(plain.terms[ATTN_COST_FEED_FORWARD][ATTN_COST_BACKWARD].matmul_s,
                 2 * L * 2 * N * 8 * width * width / 0.25e12, 1e-12);
    assert_about(plain.terms[ATTN_COST_HEAD][ATTN_COST_FORWARD].matmul_s,
                 2 * N * width * 50257 / 0.5e12, 1e-12);
    double sum = 0.0;
    for (size_t class = 0; class < ATTN_COST_CLASSES; class ++)
        for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++) sum += plain.class_s[class][pass];
    assert_about(sum, plain.time_s.value, 1e-12);

    *core_of(&d, ATTN_COST_FORWARD, "flash") = 3.0;
    *core_of(&d, ATTN_COST_BACKWARD, "gla") = 5.0; /* another's */
    const attn_prediction slow = predict(&e, &d);
    assert_about(slow.terms[ATTN_COST_CORE][ATTN_COST_FORWARD].matmul_s,
                 3.0 * plain.terms[ATTN_COST_CORE][ATTN_COST_FORWARD].matmul_s, 1e-12);
    assert_true(slow.class_s[ATTN_COST_CORE][ATTN_COST_BACKWARD] ==
                plain.class_s[ATTN_COST_CORE][ATTN_COST_BACKWARD]);
    assert_true(slow.time_s.low < slow.time_s.value && slow.time_s.value < slow.time_s.high);
    e = estimate("gpt2", "flash+gla", ATTN_COST_TRAIN, ATTN_COST_F32, 2, 512);
    const double both = predict(&e, &d).class_s[ATTN_COST_CORE][ATTN_COST_BACKWARD];
    *core_of(&d, ATTN_COST_BACKWARD, "gla") = 1.0;
    assert_true(both > predict(&e, &d).class_s[ATTN_COST_CORE][ATTN_COST_BACKWARD]);
    /* decoding has other kernels */
    e = estimate("gpt2", "flash", ATTN_COST_DECODE, ATTN_COST_F32, 1, 512);
    *core_of(&d, ATTN_COST_FORWARD, "flash") = NAN;
    const double decoding_s = predict(&e, &d).time_s.value;
    *core_of(&d, ATTN_COST_FORWARD, "flash") = 100.0;
    assert_true(predict(&e, &d).time_s.value == decoding_s);
}

/* Factors of cores between and beyond the lengths that were measured, and in bfloat16. */
static void test_factors_of_cores(void **state)
{
    (void)state;
    static attn_cost_estimate e;
    const size_t flash = place_of("flash");
    const struct {
        size_t length;
        attn_cost_type type;
        double factor;
    } cases[] = {
        {256, ATTN_COST_F32, 1.0},    {512, ATTN_COST_F32, 1.0},   {1024, ATTN_COST_F32, 2.0},
        {2048, ATTN_COST_F32, 4.0},   {4096, ATTN_COST_F32, 8.0},  {8192, ATTN_COST_F32, 8.0},
        {512, ATTN_COST_BF16, 0.125}, {1024, ATTN_COST_BF16, 0.5}, {4096, ATTN_COST_BF16, 8.0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_device d = measured_machine();
        e = estimate("gpt2", "flash", ATTN_COST_TRAIN, cases[i].type, 2, cases[i].length);
        const double plain = predict(&e, &d).terms[ATTN_COST_CORE][ATTN_COST_FORWARD].exponential_s;
        d.cores[ATTN_CORE_F32][ATTN_COST_FORWARD][0][flash] = 1.0;
        d.cores[ATTN_CORE_F32][ATTN_COST_FORWARD][1][flash] = 8.0;
        d.cores[ATTN_CORE_BF16][ATTN_COST_FORWARD][0][flash] =
            0.125; /* the longer one is missing */
        assert_about(predict(&e, &d).terms[ATTN_COST_CORE][ATTN_COST_FORWARD].exponential_s,
                     cases[i].factor * plain, 1e-12);
    }
    assert_string_equal(attn_core_field(ATTN_CORE_BF16, ATTN_COST_BACKWARD, 1),
                        "core_backward_bf16_long");
}

/* What libattn does with bfloat16: products alone are faster; cores, gradients and master weights
 * stay float32, weights are packed twice. */
static void test_bfloat16_of_a_machine(void **state)
{
    (void)state;
    static attn_cost_estimate e;
    const attn_device d = measured_machine();
    e = estimate("gpt2", "flash", ATTN_COST_TRAIN, ATTN_COST_F32, 2, 512);
    const attn_prediction wide = predict(&e, &d);
    e = estimate("gpt2", "flash", ATTN_COST_TRAIN, ATTN_COST_BF16, 2, 512);
    const attn_prediction narrow = predict(&e, &d);
    static const attn_cost_class faster[] = {ATTN_COST_PROJECTION, ATTN_COST_FEED_FORWARD,
                                             ATTN_COST_HEAD};
    for (size_t i = 0; i < 3; i++)
        assert_about(wide.terms[faster[i]][ATTN_COST_FORWARD].matmul_s /
                         narrow.terms[faster[i]][ATTN_COST_FORWARD].matmul_s,
                     2.0 / 0.25, 1e-12);
    for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++)
        assert_about(narrow.class_s[ATTN_COST_CORE][pass], wide.class_s[ATTN_COST_CORE][pass],
                     2e-2);
    const double P = 124439808;
    assert_about(wide.terms[ATTN_COST_UPDATE][ATTN_COST_FORWARD].memory_s, 28 * P / 307e9, 1e-12);
    assert_about(narrow.terms[ATTN_COST_UPDATE][ATTN_COST_FORWARD].memory_s, 30 * P / 307e9, 1e-12);
    /* 18 bytes a parameter where others hold 16 */
    assert_true(narrow.memory_bytes == (double)e.memory.total + 2 * P);
    assert_true(predict(&e, device("h100-sxm")).memory_bytes == (double)e.memory.total);
    e = estimate("gpt2", "flash", ATTN_COST_TRAIN, ATTN_COST_BF16, 1, 64);
    assert_true((double)e.memory.total < 2.2e9);
    assert_false(predict(&e, &d).fits);
}

/* Fitted picojoules: in float32, and for other types by the same power. */
static void test_energy_of_a_machine(void **state)
{
    (void)state;
    static attn_cost_estimate e;
    attn_device d = measured_machine();
    e = estimate("gpt2", "flash", ATTN_COST_TRAIN, ATTN_COST_F32, 2, 512);
    assert_true(isnan(predict(&e, &d).energy_j.value));
    assert_true(predict(&e, &d).energy_why[0]);
    d.matmul_pj = (attn_quantity){50.0, 40.0, 60.0};
    d.exponential_pj = (attn_quantity){800.0, 700.0, 900.0};
    d.idle_w = (attn_quantity){10.0, 9.0, 11.0};
    const attn_prediction p = predict(&e, &d);
    const attn_work work = attn_cost_total(&e);
    assert_about(p.energy_j.value,
                 50e-12 * (double)work.matmul + 800e-12 * (double)work.exponential +
                     10.0 * p.time_s.value,
                 1e-12);
    assert_about(p.energy_j.low,
                 40e-12 * (double)work.matmul + 700e-12 * (double)work.exponential +
                     9.0 * p.time_s.low,
                 1e-12);
    assert_true(p.energy_j.high > p.energy_j.value);
    e = estimate("gpt2", "flash", ATTN_COST_TRAIN, ATTN_COST_BF16, 2, 512);
    assert_true(predict(&e, &d).energy_j.value < 0.3 * p.energy_j.value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_conventions_of_gpt2),
                                       cmocka_unit_test(test_decoding_is_bound_by_memory),
                                       cmocka_unit_test(test_training_is_bound_by_products),
                                       cmocka_unit_test(test_softmax_moves_more),
                                       cmocka_unit_test(test_ridges),
                                       cmocka_unit_test(test_all_devices),
                                       cmocka_unit_test(test_constants_of_a_machine),
                                       cmocka_unit_test(test_factors_of_cores),
                                       cmocka_unit_test(test_bfloat16_of_a_machine),
                                       cmocka_unit_test(test_energy_of_a_machine)};
    return cmocka_run_group_tests(tests, load, unload);
}
