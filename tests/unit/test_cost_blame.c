/* Causes of errors, on steps that were made up: the prediction's own terms with one resource changed
 * are the measurement, and that resource must be found. */
#include "cost/blame.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static attn_catalog catalog;
static attn_device machine; /* two cores, measured */

static int load(void **state)
{
    (void)state;
    if (attn_catalog_load(&catalog, NULL, NULL, NULL) != ATTN_OK) return -1;
    machine = *(const attn_device *)attn_records_find(&catalog.devices, "xeon-8480", NULL);
    machine.rates[ATTN_COST_F32] = (attn_quantity){0.27, 0.27, 0.27};
    machine.exponential = (attn_quantity){0.008, 0.008, 0.008};
    machine.other_rate = (attn_quantity){0.065, 0.065, 0.065};
    machine.bandwidth_gb_s = (attn_quantity){45, 45, 45};
    machine.launch_s = (attn_quantity){1e-6, 1e-6, 1e-6};
    return 0;
}

static int unload(void **state)
{
    (void)state;
    attn_catalog_free(&catalog);
    return 0;
}

/* A training step of GPT-2. */
static attn_prediction predict(const char *mechanism, size_t batch, size_t keys)
{
    static attn_cost_estimate e;
    attn_prediction p = {0};
    attn_error error = {0};
    attn_cost_request r = {.catalog = &catalog,
                           .spec = attn_records_find(&catalog.models, "gpt2", NULL),
                           .phase = ATTN_COST_TRAIN,
                           .type = ATTN_COST_F32,
                           .batch = batch,
                           .keys = keys};
    if (attn_pattern_parse(mechanism, &r.pattern, &error) != ATTN_OK ||
        attn_cost_estimate_make(&r, &e, &error) != ATTN_OK ||
        attn_cost_predict(&e, &machine, &p, &error) != ATTN_OK)
        fail_msg("%s", error.text);
    return p;
}

/* The step in parts as they were predicted, each exact. */
static attn_cost_measured as_predicted(const attn_prediction *p)
{
    attn_cost_measured m = {.step_s = p->time_s.value};
    attn_cost_gap gaps[ATTN_GAPS_MAX];
    for (size_t place = 0; place < ATTN_PLACES; place++)
        for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++) m.place_s[place][pass] = 1.0;
    m.update_s = 1.0;
    const size_t n = attn_cost_gaps(p, &m, gaps);
    assert_int_equal(n, ATTN_GAPS_MAX - 1);
    for (size_t i = 0; i < n; i++) {
        m.place_s[gaps[i].place][gaps[i].pass] = gaps[i].predicted_s;
        (gaps[i].pass == ATTN_COST_FORWARD ? &m.forward_s : &m.backward_s)[0] +=
            gaps[i].place == ATTN_PLACE_UPDATE ? 0.0 : gaps[i].predicted_s;
        if (gaps[i].place == ATTN_PLACE_UPDATE) m.update_s = gaps[i].predicted_s;
    }
    return m;
}

/* Gaps of three mechanisms when every resource takes so many times longer. */
typedef struct slow {
    double products, exponential, other, bytes, launch;
} slow;

enum { STEPS = 3 };

static size_t slowed_at(size_t keys, const slow *s, attn_cost_gap gaps[STEPS * ATTN_GAPS_MAX])
{
    static const char *const mechanisms[STEPS] = {"flash", "softmax", "linear"};
    size_t n = 0;
    for (size_t k = 0; k < STEPS; k++) {
        const attn_prediction p = predict(mechanisms[k], 1024 / keys + 1, keys);
        const attn_cost_measured m = as_predicted(&p);
        const size_t count = attn_cost_gaps(&p, &m, gaps + n);
        for (size_t i = n; i < n + count; i++) {
            const attn_cost_terms *t = &gaps[i].terms;
            const double more = (s->products - 1.0) * t->matmul_s +
                                (s->exponential - 1.0) * t->exponential_s +
                                (s->other - 1.0) * t->other_s + (s->launch - 1.0) * t->launch_s;
            /* of what memory takes, computing hides no more than it does */
            const bool is_memory = t->memory_s > t->matmul_s + t->exponential_s + t->other_s;
            gaps[i].measured_s +=
                is_memory ? (s->bytes - 1.0) * t->memory_s + (s->launch - 1.0) * t->launch_s : more;
        }
        n += count;
    }
    return n;
}

static size_t slowed(const slow *s, attn_cost_gap gaps[STEPS * ATTN_GAPS_MAX])
{
    return slowed_at(512, s, gaps);
}

static const attn_cost_gap *find(const attn_cost_gap *gaps, attn_cost_place place, size_t pass)
{
    while (gaps->place != place || gaps->pass != pass) gaps++;
    return gaps;
}

static attn_cost_blame blame(const attn_cost_gap *gaps, size_t n, attn_cost_place place,
                             size_t pass)
{
    const attn_cost_changes changes = attn_cost_fit(gaps, n);
    return attn_cost_blame_of(find(gaps, place, pass), &changes);
}

static void assert_cause(attn_cost_blame b, attn_cost_cause cause, bool is_everywhere)
{
    if (b.cause != cause || b.is_everywhere != is_everywhere)
        fail_msg("%s %s, not %s", attn_cost_cause_name(b.cause), b.is_everywhere ? "all" : "here",
                 attn_cost_cause_name(cause));
}

static void test_exact_prediction(void **state)
{
    (void)state;
    attn_cost_gap gaps[STEPS * ATTN_GAPS_MAX];
    const slow none = {1, 1, 1, 1, 1};
    const size_t n = slowed(&none, gaps);
    const attn_cost_changes changes = attn_cost_fit(gaps, n);
    for (size_t k = 0; k < ATTN_CAUSE_TERMS; k++) assert_true(fabs(changes.share[k]) < 1e-9);
    double sum = 0.0;
    for (size_t i = 0; i < n / STEPS; i++) sum += gaps[i].predicted_s;
    assert_true(fabs(sum / gaps[0].step_s - 1.0) < 1e-9); /* parts are the step */
}

/* One resource is slow everywhere. */
static void test_resources(void **state)
{
    (void)state;
    attn_cost_gap gaps[STEPS * ATTN_GAPS_MAX];
    size_t n = slowed(&(slow){1.2, 1, 1, 1, 1}, gaps);
    assert_true(fabs(attn_cost_fit(gaps, n).share[ATTN_CAUSE_PRODUCTS] - 0.2) < 0.02);
    assert_int_equal(attn_cost_carrier(gaps, n / STEPS)->place, ATTN_PLACE_FEED_FORWARD);
    assert_cause(blame(gaps, n, ATTN_PLACE_HEAD, ATTN_COST_BACKWARD), ATTN_CAUSE_PRODUCTS, true);
    assert_cause(blame(gaps, n, ATTN_PLACE_ATTENTION, ATTN_COST_BACKWARD), ATTN_CAUSE_PRODUCTS,
                 true);

    n = slowed(&(slow){1, 1, 1, 1.5, 1}, gaps);
    assert_cause(blame(gaps, n, ATTN_PLACE_UPDATE, ATTN_COST_FORWARD), ATTN_CAUSE_BYTES, true);
    assert_cause(blame(gaps, n, ATTN_PLACE_NORMS, ATTN_COST_FORWARD), ATTN_CAUSE_BYTES, true);

    /* long texts have as many exponentials as it takes to see them */
    n = slowed_at(4096, &(slow){1, 2, 1, 1, 1}, gaps);
    assert_cause(blame(gaps, n, ATTN_PLACE_ATTENTION, ATTN_COST_FORWARD), ATTN_CAUSE_EXPONENTIAL,
                 true);
    assert_int_equal(attn_cost_carrier(gaps, n / STEPS)->place, ATTN_PLACE_ATTENTION);
}

/* Memory that need not be read: the counted bytes came from a cache. */
static void test_cache(void **state)
{
    (void)state;
    attn_cost_gap gaps[STEPS * ATTN_GAPS_MAX];
    const size_t n = slowed(&(slow){1, 1, 1, 0.5, 1}, gaps);
    const attn_cost_blame b = blame(gaps, n, ATTN_PLACE_UPDATE, ATTN_COST_FORWARD);
    assert_cause(b, ATTN_CAUSE_CACHE, true);
    assert_true(b.seconds < 0.0);
}

/* One part of one step is slow: it is its own. */
static void test_one_part(void **state)
{
    (void)state;
    attn_cost_gap gaps[STEPS * ATTN_GAPS_MAX];
    const size_t n = slowed(&(slow){1, 1, 1, 1, 1}, gaps);
    attn_cost_gap *slow_part = (attn_cost_gap *)find(gaps, ATTN_PLACE_HEAD, ATTN_COST_BACKWARD);
    slow_part->measured_s *= 1.4;
    assert_ptr_equal(attn_cost_carrier(gaps, n / STEPS), slow_part);
    attn_cost_blame b = blame(gaps, n, ATTN_PLACE_HEAD, ATTN_COST_BACKWARD);
    assert_cause(b, ATTN_CAUSE_PRODUCTS, false);
    assert_true(b.seconds > 0.2 * slow_part->predicted_s);
    /* what memory takes beside computing, and no more, was not hidden */
    slow_part->measured_s = slow_part->predicted_s + slow_part->terms.memory_s;
    slow_part->step_s *= 0.01; /* so that it is no noise */
    b = attn_cost_blame_of(slow_part, &(attn_cost_changes){{0}});
    assert_cause(b, ATTN_CAUSE_BYTES, false);
    /* thousands of regions in a small step */
    slow_part->terms = (attn_cost_terms){.matmul_s = 1e-4, .launch_s = 1e-3};
    slow_part->predicted_s = 1.1e-3;
    slow_part->measured_s = 2e-3;
    b = attn_cost_blame_of(slow_part, &(attn_cost_changes){{0}});
    assert_cause(b, ATTN_CAUSE_LAUNCH, false);
}

/* Without parts the passes stand in; without those there is nothing to say. */
static void test_coarse(void **state)
{
    (void)state;
    const attn_prediction p = predict("flash", 2, 512);
    attn_cost_measured m = as_predicted(&p);
    attn_cost_gap gaps[ATTN_GAPS_MAX];
    m.place_s[ATTN_PLACE_HEAD][ATTN_COST_FORWARD] = NAN;
    m.backward_s *= 1.5;
    const size_t n = attn_cost_gaps(&p, &m, gaps);
    assert_int_equal(n, 3);
    const attn_cost_gap *carrier = attn_cost_carrier(gaps, n);
    assert_int_equal(carrier->place, ATTN_PLACE_ALL);
    assert_int_equal(carrier->pass, ATTN_COST_BACKWARD);
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += gaps[i].predicted_s;
    assert_true(fabs(sum / p.time_s.value - 1.0) < 1e-9);
    m.forward_s = m.backward_s = m.update_s = NAN;
    assert_int_equal(attn_cost_gaps(&p, &m, gaps), 0);
    assert_null(attn_cost_carrier(gaps, 0));
    assert_true(attn_cost_fit(gaps, 0).share[ATTN_CAUSE_BYTES] == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_prediction), cmocka_unit_test(test_resources),
        cmocka_unit_test(test_cache), cmocka_unit_test(test_one_part),
        cmocka_unit_test(test_coarse)};
    return cmocka_run_group_tests(tests, load, unload);
}
