/* The n-th allocation fails, for n = 1, 2, ... until the work succeeds: each failure must be
 * reported as such, leave nothing behind and give nothing out. */
#include "check_layer.h"

#include "base/error.h"
#include "base/memory.h"
#include "kernels/dense.h"
#include "mechanisms/oracle.h"

#include <string.h>

/* Does the work once; *made tells whether it gave something out. */
typedef attn_status work_function(check_run *run, bool *made, attn_error *error);

static void fail_each(check_run *run, const char *what, work_function *work)
{
    enum { TRIES = 10000 };
    check_case(run, "%s", what);
    const size_t live = attn_memory_live_blocks();
    for (size_t n = 1; n <= TRIES; n++) {
        bool made = false;
        attn_error error = {0};
        attn_memory_fail_at(n);
        const attn_status status = work(run, &made, &error);
        attn_memory_fail_at(0);
        check_that(run, attn_memory_live_blocks() == live,
                   "allocation %zu failed: %zu blocks leaked", n, attn_memory_live_blocks() - live);
        if (status == ATTN_OK) {
            check_that(run, made && n > 1, "success after %zu failures", n - 1);
            return;
        }
        check_that(run, status == ATTN_EMEMORY && error.status == ATTN_EMEMORY && error.text[0],
                   "allocation %zu failed: %s", n, attn_status_text(status));
        check_that(run, !made, "allocation %zu failed, and yet there is a result", n);
    }
    check_that(run, false, "no success after %d failures", TRIES);
}

static attn_status make_context(check_run *run, bool *made, attn_error *error)
{
    attn_context *context = NULL;
    const attn_status status =
        attn_context_create(&context, 1, attn_isa_name(run->group->isa), error);
    *made = context != NULL;
    attn_context_free(context);
    return status;
}

/* With memory short the library behind dense products gives way to the plain one. */
static void check_dense_fallback(check_run *run)
{
    enum { ROWS = 300, IN = 20, OUT = 24 };
    check_case(run, "dense products");
    float *x = check_floats(run, ROWS * IN, CHECK_AT_END),
          *w = check_floats(run, OUT * IN, CHECK_AT_END);
    float *y = check_floats(run, ROWS * OUT, CHECK_AT_END);
    double *want = check_doubles(run, ROWS * OUT);
    check_fill_normal(run, 1.0, ROWS * IN, x);
    check_fill_normal(run, 1.0, OUT * IN, w);
    for (size_t i = 0; i < ROWS * OUT; i++)
        for (size_t p = 0; p < IN; p++)
            want[i] += (double)x[i / OUT * IN + p] * (double)w[i % OUT * IN + p];
    for (size_t n = 1; n <= 3; n++) {
        attn_context *context = NULL;
        attn_error error = {0};
        if (!check_ok(run, attn_context_create(&context, 1, attn_isa_name(run->group->isa), &error),
                      &error, "context"))
            return;
        for (size_t i = 0; i < ROWS * OUT; i++) y[i] = -1.0f;
        attn_memory_fail_at(n);
        attn_dense_forward(context, ROWS, IN, OUT, x, w, NULL, y);
        attn_memory_fail_at(0);
        check_compare(run, ROWS * OUT, (check_numbers){.single = y}, (check_numbers){.real = want},
                      (check_rule){.tolerance = 1e-6}, "the product while allocation %zu fails", n);
        attn_context_free(context);
    }
}

static void run_context(check_run *run)
{
    fail_each(run, "context", make_context);
    check_dense_fallback(run);
}

static attn_status make_layer(check_run *run, bool *made, attn_error *error)
{
    const char *name = check_entry(run)->name;
    attn_layer *layer = NULL;
    const attn_layer_config config = {.mechanism = name,
                                      .options = check_subject_options(check_subject_find(name))[0],
                                      .d_model = 12,
                                      .heads = 6,
                                      .positions = CHECK_POSITIONS,
                                      .is_causal = attn_mechanism_is_causal(name)};
    const attn_status status = attn_layer_create(&layer, &config, error);
    *made = layer != NULL;
    attn_layer_free(layer);
    return status;
}

/* The oracle of a tiny layer; the layer is made before, in peace. */
static const attn_layer *oracle_layer;

static attn_status run_oracle(check_run *run, bool *made, attn_error *error)
{
    enum { B = 2, T = 3, C = 12, S_C = 2000 };
    (void)run;
    const size_t count = attn_layer_parameter_count(oracle_layer);
    static double parameters[4096], gradients[4096], x[B * T * C], y[B * T * C], dx[B * T * C];
    static double memory[B * S_C], d_memory[B * S_C];
    size_t S = 0, C_memory = 0;
    attn_layer_memory(oracle_layer, &S, &C_memory);
    if (count > sizeof parameters / sizeof *parameters)
        return attn_fail(error, ATTN_ESHAPE, "%zu parameters are more than the check has room for",
                         count);
    if (S * C_memory > S_C)
        return attn_fail(error, ATTN_ESHAPE,
                         "a memory of %zu numbers is more than there is room for", S * C_memory);
    const attn_oracle_call call = {.batch = B,
                                   .length = T,
                                   .parameters = parameters,
                                   .x = x,
                                   .y = y,
                                   .dy = x,
                                   .dx = dx,
                                   .gradients = gradients,
                                   .memory = S ? memory : NULL,
                                   .memory_length = S,
                                   .memory_width = C_memory,
                                   .d_memory = d_memory};
    const attn_status status = attn_layer_oracle(oracle_layer, &call, error);
    *made = status == ATTN_OK;
    return status;
}

static void run_mechanism(check_run *run)
{
    fail_each(run, "layer", make_layer);
    check_layer l;
    check_case(run, "layer of the oracle");
    const check_config config = {.batch = 1,
                                 .heads = 6,
                                 .head_dim = 2,
                                 .length = 3,
                                 .is_causal = attn_mechanism_is_causal(check_entry(run)->name)};
    if (!check_layer_begin(
            run, &l, check_subject_options(check_subject_find(check_entry(run)->name))[0], &config))
        return;
    oracle_layer = l.layer;
    fail_each(run, "oracle", run_oracle);
    check_layer_end(&l);
}

void check_collect_fault(check_list *list)
{
    check_list_add_levels(
        list, (check_group){.mode = "fault", .subject = "context", .body = run_context});
    for (const attn_mechanism_entry *e = attn_mechanisms; e->name; e++)
        check_list_add(list, (check_group){.mode = "fault",
                                           .subject = e->name,
                                           .is_level_free = true,
                                           .body = run_mechanism,
                                           .what = e});
}
