/* The fit of picojoules, on counters that were made up: known watts and picojoules come back. */
#include "base/random.h"
#include "cost/energy_fit.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* What a machine of 20 W at rest would draw. */
typedef struct truth {
    double idle_w, matmul_pj, exponential_pj, other_pj, dram_pj;
} truth;
static const truth machine = {20.0, 60.0, 900.0, 110.0, 180.0};

/* The work of a second of each probe of attnscope calibrate on two cores; rest is the first. */
static const attn_energy_probe works[] = {
    {.time_s = 1.0},
    {.time_s = 1.0, .matmul = 271e9, .bytes = 1.2e9},
    {.time_s = 1.0, .matmul = 281e9, .bytes = 1.6e9},
    {.time_s = 1.0, .matmul = 232e9, .bytes = 2.5e9},
    {.time_s = 1.0, .exponential = 8.2e9},
    {.time_s = 1.0, .other = 65e9},
    {.time_s = 1.0, .other = 7.3e9, .bytes = 44e9},
    {.time_s = 1.0},
};
enum { PROBES = sizeof works / sizeof *works };

/* Energies with a relative error of `noise`, one standard deviation. */
static void counter(const truth *t, double noise, uint64_t seed, attn_energy_probe *probes)
{
    float errors[PROBES];
    attn_random_fill_normal(seed, attn_random_stream(ATTN_RANDOM_TEST, 0), noise, PROBES, errors);
    for (size_t i = 0; i < PROBES; i++) {
        probes[i] = works[i];
        probes[i].energy_j =
            (1.0 + (double)errors[i]) *
            (t->idle_w * works[i].time_s +
             1e-12 * (t->matmul_pj * works[i].matmul + t->exponential_pj * works[i].exponential +
                      t->other_pj * works[i].other + t->dram_pj * works[i].bytes));
    }
}

static void assert_found(const char *what, attn_quantity q, double expected, double relative)
{
    if (!(fabs(q.value / expected - 1.0) <= relative))
        fail_msg("%s: %g, not %g", what, q.value, expected);
    if (!(q.low <= q.value && q.value <= q.high)) fail_msg("%s: outside its interval", what);
}

static void assert_machine(const attn_energy_constants *c, double relative)
{
    assert_found("rest", c->idle_w, machine.idle_w, relative);
    assert_found("products", c->matmul_pj, machine.matmul_pj, relative);
    assert_found("exponentials", c->exponential_pj, machine.exponential_pj, relative);
    assert_found("other", c->other_pj, machine.other_pj, relative);
    assert_found("memory", c->dram_pj, machine.dram_pj, relative);
}

static void test_exact_counter(void **state)
{
    (void)state;
    attn_energy_probe probes[PROBES];
    attn_energy_constants c;
    counter(&machine, 0.0, 1, probes);
    assert_true(attn_energy_fit(probes, PROBES, &c));
    assert_machine(&c, 1e-6);
    assert_true(c.spread < 1e-6);
}

/* The length of a probe does not matter, only what happens in it. */
static void test_lengths(void **state)
{
    (void)state;
    attn_energy_probe probes[PROBES];
    attn_energy_constants c;
    counter(&machine, 0.0, 1, probes);
    for (size_t i = 0; i < PROBES; i++) {
        const double times = 0.01 * (double)(i + 1);
        attn_energy_probe *p = &probes[i];
        *p = (attn_energy_probe){times * p->time_s,      times * p->energy_j, times * p->matmul,
                                 times * p->exponential, times * p->other,    times * p->bytes};
    }
    assert_true(attn_energy_fit(probes, PROBES, &c));
    assert_machine(&c, 1e-6);
}

/* A counter that is off by 2 %: what takes most of a probe's energy is found to 15 %, and every
 * interval holds the truth nearly always. */
static void test_noise(void **state)
{
    (void)state;
    enum { TRIES = 200, KINDS = 5 };
    size_t held[KINDS] = {0};
    for (uint64_t seed = 1; seed <= TRIES; seed++) {
        attn_energy_probe probes[PROBES];
        attn_energy_constants c;
        counter(&machine, 0.02, seed, probes);
        assert_true(attn_energy_fit(probes, PROBES, &c));
        assert_found("products", c.matmul_pj, machine.matmul_pj, 0.15);
        assert_found("rest", c.idle_w, machine.idle_w, 0.15);
        assert_true(c.spread > 1e-4 && c.spread < 0.06);
        const attn_quantity found[KINDS] = {c.idle_w, c.matmul_pj, c.exponential_pj, c.other_pj,
                                            c.dram_pj};
        const double truths[KINDS] = {machine.idle_w, machine.matmul_pj, machine.exponential_pj,
                                      machine.other_pj, machine.dram_pj};
        for (size_t k = 0; k < KINDS; k++)
            held[k] += found[k].low <= truths[k] && truths[k] <= found[k].high;
    }
    /* three degrees of freedom: two deviations hold the truth in 86 % */
    for (size_t k = 0; k < KINDS; k++)
        if (held[k] < TRIES * 3 / 4 || held[k] > TRIES * 97 / 100)
            fail_msg("interval %zu held the truth in %zu of %d fits", k, held[k], TRIES);
}

/* Nothing comes out below 0: a machine whose exponentials cost nothing that can be seen. */
static void test_nothing_negative(void **state)
{
    (void)state;
    const truth t = {20.0, 60.0, 0.0, 110.0, 0.0};
    for (uint64_t seed = 1; seed <= 50; seed++) {
        attn_energy_probe probes[PROBES];
        attn_energy_constants c;
        counter(&t, 0.02, seed, probes);
        assert_true(attn_energy_fit(probes, PROBES, &c));
        assert_true(c.exponential_pj.value >= 0.0 && c.exponential_pj.low >= 0.0);
        assert_true(c.dram_pj.value >= 0.0);
        assert_found("products", c.matmul_pj, t.matmul_pj, 0.15);
    }
}

static void test_no_counter(void **state)
{
    (void)state;
    attn_energy_probe probes[PROBES];
    attn_energy_constants c;
    counter(&machine, 0.0, 1, probes);
    probes[2].energy_j = NAN;
    assert_false(attn_energy_fit(probes, PROBES, &c));
    assert_true(isnan(c.idle_w.value) && isnan(c.matmul_pj.value) && isnan(c.spread));
    /* probes that do not tell the kinds apart */
    counter(&machine, 0.0, 1, probes);
    assert_false(attn_energy_fit(probes, 3, &c));
    assert_true(isnan(c.dram_pj.value));
    assert_false(attn_energy_fit(probes, 0, &c));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact_counter),
                                       cmocka_unit_test(test_lengths), cmocka_unit_test(test_noise),
                                       cmocka_unit_test(test_nothing_negative),
                                       cmocka_unit_test(test_no_counter)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
