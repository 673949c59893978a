/* Every kernel slot at every size where a vector loop can go wrong: none, one, around a vector,
 * around two, primes, hundreds; at three places between pages that may not be touched; with
 * ordinary, tiny and huge numbers. And exp over all exponents. */
#include "check_kernels.h"

#include <math.h>
#include <string.h>

typedef struct slot {
    const char *name;
    check_slot_body *body;
} slot;

#define SLOT(name)                                                                                 \
    {                                                                                              \
        "kernel." #name, check_slot_##name                                                         \
    }
static const slot slots[] = {SLOT(product),
                             SLOT(product_asking),
                             SLOT(product_double),
                             SLOT(transpose),
                             SLOT(copy_rows),
                             SLOT(store_rows),
                             SLOT(round_rows),
                             SLOT(maximum),
                             SLOT(sum),
                             SLOT(sum_squares),
                             SLOT(dot),
                             SLOT(dot_double),
                             SLOT(dot_rows),
                             SLOT(weigh_rows),
                             SLOT(add),
                             SLOT(add_scaled),
                             SLOT(scale),
                             SLOT(keep_lower),
                             SLOT(scale_rows),
                             SLOT(add_ramp),
                             SLOT(softcap),
                             SLOT(exp_shifted),
                             SLOT(online_softmax),
                             SLOT(online_softmax_gradient),
                             SLOT(running_softmax),
                             SLOT(running_softmax_gradient),
                             SLOT(softmax_gradient),
                             SLOT(layer_norm),
                             SLOT(layer_norm_gradient),
                             SLOT(gelu),
                             SLOT(gelu_gradient),
                             SLOT(elu_plus_one),
                             SLOT(elu_plus_one_gradient),
                             SLOT(multiply),
                             SLOT(add_product),
                             SLOT(silu),
                             SLOT(silu_gradient),
                             SLOT(log_sigmoid),
                             SLOT(log_sigmoid_gradient),
                             SLOT(rotate),
                             SLOT(decayed_scores),
                             SLOT(decayed_scores_gradient),
                             SLOT(bf16_from_float),
                             SLOT(bf16_to_float),
                             SLOT(bf16_strip),
                             SLOT(cross_entropy),
                             SLOT(adamw)};
#undef SLOT

/* One slot more than there are pointers behind `isa`, or fewer, and this does not compile. */
_Static_assert(sizeof slots / sizeof *slots ==
                   (sizeof(attn_kernels) - offsetof(attn_kernels, product)) /
                       sizeof(void (*)(void)),
               "every slot of attn_kernels has its check");

void check_kernel_slots(check_run *run)
{
    static const size_t sizes[] = {0,  1,  2,  3,  7,  8,  9,   13,  15,  16,
                                   17, 31, 32, 33, 61, 64, 128, 257, 1021};
    static const double scales[] = {1.0, 1e-15, 1e15};
    static const char *const places[CHECK_PLACES] = {"end", "start", "unaligned"};
    const slot *s = run->group->what;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int place = 0; place < CHECK_PLACES; place++)
            for (size_t k = 0; k < sizeof scales / sizeof *scales; k++) {
                const check_shape shape = {sizes[i], (check_place)place, scales[k]};
                check_case(run, "n=%zu at %s, scale %g", shape.n, places[place], shape.scale);
                s->body(run, &shape);
                check_guards(run);
            }
}

const void *check_slot_find(const char *name)
{
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        if (strcmp(slots[i].name, name) == 0) return &slots[i];
    return NULL;
}

/* ---- exp --------------------------------------------------------------------------------- */

/* Distance in units of the last place of `want` as a float. */
static double ulps(double got, double want)
{
    int exponent = 0;
    frexp(want, &exponent);
    return fabs(got - want) / ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
}

/* Floats by their bit patterns, every `step`-th one from a random first. Where the result is a
 * normal float it must be within 1.1 ulp; elsewhere it must be 0, infinite or in between. */
static void sweep_exp(check_run *run)
{
    enum { STEP = 1009, CHUNK = 1000 };
    static float x[CHUNK], e[CHUNK];
    check_case(run, "all exponents, every %d-th float", STEP);
    double worst = 0.0;
    float worst_x = 0.0f;
    bool is_sane = true;
    uint64_t pattern = check_below(run, STEP);
    while (pattern < (uint64_t)1 << 32) {
        size_t n = 0;
        for (; n < CHUNK && pattern < (uint64_t)1 << 32; pattern += STEP) {
            const uint32_t word = (uint32_t)pattern;
            memcpy(&x[n], &word, sizeof word);
            if (!isnan(x[n])) n++;
        }
        memcpy(e, x, sizeof e);
        run->kernels->exp_shifted(n, 0.0f, e);
        for (size_t i = 0; i < n; i++) {
            const double want = exp((double)x[i]), got = (double)e[i];
            const bool is_normal = want >= (double)FLT_MIN * 1.001 && want <= (double)FLT_MAX;
            if (is_normal && !(ulps(got, want) <= worst)) {
                worst = ulps(got, want);
                worst_x = x[i];
            }
            if (want > (double)FLT_MAX) /* infinite, but for what an error of 1.1 ulp may save */
                is_sane = is_sane && (isinf(e[i]) || want < (double)FLT_MAX * 1.001) && got > 0.0;
            else if (!is_normal)
                is_sane = is_sane && got >= 0.0 && got <= want * 1.001 + 1e-45;
        }
    }
    check_that(run, is_sane, "overflow is +inf; below the smallest normal float is 0 or the value");
    const double limit = 1.1;
    check_compare(run, 1, (check_numbers){.real = &worst}, (check_numbers){.real = &(double){0.0}},
                  (check_rule){.bounds = &limit}, "%.3f ulp at x = %.9g", worst, (double)worst_x);
}

void check_collect_kernels(check_list *list)
{
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        check_list_add_levels(list, (check_group){.mode = "test",
                                                  .subject = slots[i].name,
                                                  .body = check_kernel_slots,
                                                  .what = &slots[i]});
    check_list_add_levels(
        list, (check_group){.mode = "test", .subject = "kernel.exp", .body = sweep_exp});
}

/* ---- for the slots ----------------------------------------------------------------------- */

void check_output(check_run *run, size_t n, const float *got, const float *plain,
                  const double *want, const double *bounds, const char *what)
{
    double *wider = check_doubles(run, 2 * n), *plain_wide = wider + n;
    for (size_t i = 0; i < n; i++) wider[i] = 2.0 * bounds[i];
    check_widen(n, plain, plain_wide);
    check_compare(run, n, (check_numbers){.single = got}, (check_numbers){.real = want},
                  (check_rule){.bounds = bounds, .nan_is_wanted = true}, "%s", what);
    check_compare(run, n, (check_numbers){.single = got}, (check_numbers){.real = plain_wide},
                  (check_rule){.bounds = wider, .nan_is_wanted = true}, "%s against ref", what);
}

void check_number(check_run *run, double got, double plain, double want, double bound,
                  const char *what)
{
    const double twice = 2.0 * bound;
    check_compare(run, 1, (check_numbers){.real = &got}, (check_numbers){.real = &want},
                  (check_rule){.bounds = &bound, .nan_is_wanted = true}, "%s", what);
    check_compare(run, 1, (check_numbers){.real = &got}, (check_numbers){.real = &plain},
                  (check_rule){.bounds = &twice, .nan_is_wanted = true}, "%s against ref", what);
}

float *check_random(check_run *run, const check_shape *shape, size_t n)
{
    float *x = check_floats(run, n, shape->place);
    check_fill_normal(run, shape->scale, n, x);
    return x;
}

float *check_copy(check_run *run, const check_shape *shape, size_t n, const float *from)
{
    float *x = check_floats(run, n, shape->place);
    if (n) memcpy(x, from, n * sizeof *x);
    return x;
}
