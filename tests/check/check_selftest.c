/* The harness against itself: every planted fault must be caught, the same check without it must
 * pass, and the comparison must refuse what wrong kernels produce. */
#define _GNU_SOURCE
#include "check_kernels.h"
#include "check_layer.h"
#include "check_plants.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>

/* ---- planted faults ---------------------------------------------------------------------- */

static const void *what_of(const check_fault *fault)
{
    for (const attn_mechanism_entry *e = attn_mechanisms; e->name; e++)
        if (strcmp(e->name, fault->subject) == 0) return e;
    return check_slot_find(fault->subject);
}

/* Failed cases of the check, a crash being one. */
static size_t failures_of(check_run *run, const check_fault *fault, const check_plant *plant,
                          check_result *result)
{
    const check_group group = {.mode = "selftest",
                               .subject = fault->subject,
                               .isa = ATTN_ISA_REF,
                               .body = fault->body,
                               .what = what_of(fault),
                               .plant = plant};
    memset(result, 0, sizeof *result);
    const int end = check_run_child(&group, run->seed, result);
    return result->failed + (end != 0);
}

static void run_plants(check_run *run)
{
    check_result *result =
        mmap(NULL, sizeof *result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (result == MAP_FAILED) {
        check_case(run, "memory");
        check_that(run, false, "no memory to share");
        return;
    }
    for (const check_fault *f = check_faults(); f->name; f++) {
        check_case(run, "%s", f->name);
        if (f->plant.kernels_for && attn_cpu_best_isa() <= ATTN_ISA_AVX2) {
            check_skip(run, "this machine has no level above avx2");
            continue;
        }
        check_that(run, failures_of(run, f, &f->plant, result) > 0, "not caught");
    }
    munmap(result, sizeof *result);
}

/* Without the faults the same checks must pass, or catching would mean nothing. */
static void run_controls(check_run *run)
{
    check_result *result =
        mmap(NULL, sizeof *result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (result == MAP_FAILED) return;
    const check_fault *faults = check_faults();
    for (const check_fault *f = faults; f->name; f++) {
        bool is_repeat = false;
        for (const check_fault *g = faults; g < f; g++)
            is_repeat = is_repeat || (g->body == f->body && strcmp(g->subject, f->subject) == 0);
        if (is_repeat) continue;
        check_case(run, "%s without a fault, as for %s", f->subject, f->name);
        check_that(run, failures_of(run, f, NULL, result) == 0, "fails: %s", result->failures[0]);
    }
    munmap(result, sizeof *result);
}

/* ---- the comparison ---------------------------------------------------------------------- */

/* Runs one comparison in a run of its own; tells whether it was accepted. */
static bool is_accepted(const check_run *run, size_t n, const float *got, const double *want,
                        check_rule rule)
{
    check_result result = {0};
    check_run inner = {.group = run->group, .result = &result};
    check_compare(&inner, n, (check_numbers){.single = got}, (check_numbers){.real = want}, rule,
                  "inner");
    return result.n_failures == 0;
}

static void run_comparison(check_run *run)
{
    static const double ones[4] = {1.0, 1.0, 1.0, 1.0}, zeros[4] = {0};
    static const double infinite[2] = {INFINITY, 1.0}, nan_first[2] = {NAN, 1.0};
    const check_rule each = {.bounds = ones}, exact = {.bounds = zeros}, norm = {.tolerance = 1e-3};
    const check_rule wants_nan = {.bounds = ones, .nan_is_wanted = true};
    check_case(run, "what must be accepted");
    check_that(run, is_accepted(run, 2, (float[]){1.5f, 1.0f}, ones, each), "within the bound");
    check_that(run, is_accepted(run, 2, (float[]){1.0f, 1.0f}, ones, exact), "equal, bound 0");
    check_that(run, is_accepted(run, 2, (float[]){INFINITY, 1.0f}, infinite, each),
               "equal infinities");
    check_that(run, is_accepted(run, 2, (float[]){NAN, 1.0f}, nan_first, wants_nan),
               "a wanted NaN");
    check_that(run, is_accepted(run, 4, (float[]){1.0f, 1.0f, 1.0f, 1.001f}, ones, norm), "norm");
    check_that(run, is_accepted(run, 2, (float[]){0.0f, 0.0f}, zeros, norm), "zeros, norm 0");
    check_case(run, "what must be refused");
    check_that(run, !is_accepted(run, 4, (float[]){NAN, 1.0f, 1.0f, 1.0f}, ones, each),
               "a NaN with good values behind it");
    check_that(run, !is_accepted(run, 4, (float[]){1.0f, 1.0f, 1.0f, NAN}, ones, norm),
               "NaN, norm");
    check_that(run, !is_accepted(run, 2, (float[]){NAN, 1.0f}, nan_first, each), "an unwanted NaN");
    check_that(run, !is_accepted(run, 2, (float[]){1.0f, 1.0f}, nan_first, wants_nan), "no NaN");
    check_that(run, !is_accepted(run, 2, (float[]){FLT_MAX, 1.0f}, infinite, each),
               "FLT_MAX, not inf");
    check_that(run, !is_accepted(run, 2, (float[]){-INFINITY, 1.0f}, infinite, each),
               "-inf, not inf");
    check_that(run, !is_accepted(run, 2, (float[]){INFINITY, 1.0f}, ones, norm), "inf, norm");
    check_that(run, !is_accepted(run, 2, (float[]){0.0f, 1e-30f}, zeros, norm),
               "any error of norm 0");
    check_that(run, !is_accepted(run, 2, (float[]){1.0f, 1.0000001f}, ones, exact), "bound 0");
    check_that(run, !is_accepted(run, 2, (float[]){1.0f, 2.5f}, ones, each), "beyond the bound");
    check_that(run, !is_accepted(run, 4, (float[]){1.0f, 1.0f, 1.0f, 1.01f}, ones, norm), "norm");
}

/* ---- the frame --------------------------------------------------------------------------- */

static void body_without_cases(check_run *run)
{
    (void)run;
}

static void body_with_empty_case(check_run *run)
{
    check_case(run, "compares nothing");
}

static void body_that_only_skips(check_run *run)
{
    check_case(run, "skips");
    check_skip(run, "on purpose");
}

static void run_frame(check_run *run)
{
    check_result result = {0};
    check_group group = {.mode = "selftest", .subject = "frame", .body = body_without_cases};
    check_case(run, "empty groups and cases");
    check_run_body(&group, run->seed, &result);
    check_that(run, result.passed + result.failed + result.skipped == 0, "no case, no result");
    group.body = body_with_empty_case;
    check_run_body(&group, run->seed, &result);
    check_that(run, result.failed == 1 && result.passed == 0, "an empty case fails");
    memset(&result, 0, sizeof result);
    group.body = body_that_only_skips;
    check_run_body(&group, run->seed, &result);
    check_that(run, result.skipped == 1 && result.passed == 0 && result.failed == 0,
               "a skip is a skip");
}

void check_collect_selftest(check_list *list)
{
    check_group group = {.mode = "selftest", .is_level_free = true};
    group.subject = "comparison", group.body = run_comparison;
    check_list_add(list, group);
    group.subject = "frame", group.body = run_frame;
    check_list_add(list, group);
    group.subject = "controls", group.body = run_controls;
    check_list_add(list, group);
    group.subject = "planted faults", group.body = run_plants;
    check_list_add(list, group);
}
