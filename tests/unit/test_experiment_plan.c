/* Plans: lists of mechanisms, what does not fit together, JSON and the order of trials. */
#include "experiment_fixture.h"

#include <math.h>

static attn_plan micro_plan(void)
{
    return (attn_plan){.rounds = 2,
                       .model = "micro",
                       .sizes = {.layers = 1,
                                 .heads = 4,
                                 .d_model = 32,
                                 .positions = 512,
                                 .vocabulary = ATTN_GPT2_TOKENS},
                       .batch = 1,
                       .length = 512,
                       .steps = 3,
                       .dtype = "f32",
                       .timing_warmup = 2,
                       .learning_rate = 1e-3,
                       .seed = 1};
}

static void lists_are_parted(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = micro_plan();
    assert_ok(
        attn_plan_set_mechanisms(&plan, "flash,sliding:window=64:sinks=4,gqa:kv_heads=2", &error));
    assert_int_equal(plan.n_mechanisms, 3);
    assert_string_equal(plan.mechanisms[0].label, "flash");
    assert_string_equal(plan.mechanisms[0].kinds[0].options, "");
    assert_string_equal(plan.mechanisms[1].label, "sliding:window=64:sinks=4");
    assert_string_equal(plan.mechanisms[1].kinds[0].name, "sliding");
    assert_string_equal(plan.mechanisms[1].kinds[0].options, "window=64,sinks=4");
    assert_string_equal(plan.mechanisms[2].kinds[0].options, "kv_heads=2");

    const attn_model_config config = attn_plan_model(&plan, &plan.mechanisms[1]);
    assert_string_equal(config.mechanism, "sliding:window=64:sinks=4");
    assert_true(config.is_causal);
    assert_int_equal(config.d_model, 32);

    /* the same mechanism twice, with options that differ */
    assert_ok(attn_plan_set_mechanisms(&plan, "sliding:window=8,sliding:window=16", &error));
    assert_int_equal(plan.n_mechanisms, 2);

    assert_ok(attn_plan_set_mechanisms(&plan, "all", &error));
    size_t n = 0;
    for (size_t i = 0; i < attn_mechanism_count(); i++)
        if (attn_mechanism_is_causal(attn_mechanism_name(i)))
            assert_string_equal(plan.mechanisms[n++].label, attn_mechanism_name(i));
    assert_int_equal(plan.n_mechanisms, n);
    assert_in_range(n, 1, attn_mechanism_count() - 1); /* cross is none of a language model's */
}

/* The twin has a name of its own and is the first mechanism for the rest. */
static void twins_are_the_first_again(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = micro_plan();
    assert_ok(attn_plan_set_mechanisms(&plan, "sliding:window=64,flash", &error));
    assert_ok(attn_plan_add_again(&plan, &error));
    assert_int_equal(plan.n_mechanisms, 3);
    assert_string_equal(plan.mechanisms[2].label, "sliding:window=64 (A/A)");
    static const char *const models[] = {"sliding:window=64", "flash", "sliding:window=64"};
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(attn_plan_model(&plan, &plan.mechanisms[i]).mechanism, models[i]);
    char *json = NULL;
    assert_ok(attn_plan_json(&plan, "0", NULL, &json, &error));
    assert_non_null(strstr(json, "\"again\":\"sliding:window=64 (A/A)\""));
    attn_free(json);
}

static void assert_list_fails(const char *list, attn_status status, const char *text)
{
    attn_error error = {0};
    attn_plan plan = micro_plan();
    const attn_status got = attn_plan_set_mechanisms(&plan, list, &error);
    if (got != status || !strstr(error.text, text))
        fail_msg("'%s': status %d, \"%s\"", list, got, error.text);
}

static void bad_lists_are_refused(void **state)
{
    (void)state;
    assert_list_fails("", ATTN_EARGUMENT, "an empty name among the mechanisms");
    assert_list_fails("flash,,linear", ATTN_EARGUMENT, "an empty name");
    assert_list_fails("flash,", ATTN_EARGUMENT, "an empty name");
    assert_list_fails(",flash", ATTN_EARGUMENT, "an empty name");
    assert_list_fails(":window=3", ATTN_ENOTFOUND, "unknown mechanism ''");
    assert_list_fails("flash,flash", ATTN_EARGUMENT, "mechanism 'flash' is named twice");
    assert_list_fails("flahs", ATTN_ENOTFOUND, "unknown mechanism 'flahs'; did you mean 'flash'?");
    assert_list_fails("flash linear", ATTN_ENOTFOUND, "unknown mechanism");
    assert_list_fails("all,flash", ATTN_ENOTFOUND, "unknown mechanism 'all'");
    assert_list_fails("sliding:windw=3", ATTN_ENOTFOUND, "did you mean 'window'?");
    assert_list_fails("sliding:window", ATTN_EARGUMENT, "needs a value");
    assert_list_fails("sliding:window=0", ATTN_EARGUMENT, "window");
    assert_list_fails("flex:mask=prefix", ATTN_EARGUMENT,
                      "flex:mask=prefix lets a token see later ones, which gives away what a "
                      "language model is to predict; --allow-leak runs it, out of competition");
    assert_list_fails("sliding*3+flex:mask=full", ATTN_ESHAPE,
                      "the pattern 'sliding*3+flex:mask=full' is 4 blocks long, but the model has "
                      "1: shorten it");
    assert_list_fails("flex:mask=half", ATTN_EARGUMENT,
                      "one of auto|causal|full|prefix|document, not 'half'");
    assert_list_fails("gqa:kv_heads=5", ATTN_ESHAPE, "kv_heads=5 does not divide the 4 heads");

    char list[2048] = "sliding:window=";
    memset(list + strlen(list), '1', ATTN_LABEL_BYTES);
    assert_list_fails(list, ATTN_EARGUMENT, "is too long for a mechanism");
    list[0] = '\0';
    for (int i = 1; i <= ATTN_PLAN_MECHANISMS_MAX + 1; i++)
        sprintf(list + strlen(list), "%ssliding:window=%d", i > 1 ? "," : "", i);
    assert_list_fails(list, ATTN_EARGUMENT, "more than 32 mechanisms in one run");
    *strrchr(list, ',') = '\0';
    attn_error error = {0};
    attn_plan plan = micro_plan();
    assert_ok(attn_plan_set_mechanisms(&plan, list, &error));
    assert_int_equal(plan.n_mechanisms, ATTN_PLAN_MECHANISMS_MAX);
}

/* Sizes of four layers, so that patterns fit. */
static attn_plan deep_plan(void)
{
    attn_plan plan = micro_plan();
    plan.sizes.layers = 4;
    return plan;
}

static void patterns_are_models(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = deep_plan();
    assert_ok(attn_plan_set_mechanisms(&plan, "flash,sliding*2+sliding+softmax", &error));
    assert_string_equal(plan.mechanisms[1].label, "sliding*3+softmax");
    const attn_model_config config = attn_plan_model(&plan, &plan.mechanisms[1]);
    assert_string_equal(config.mechanism, "sliding*3+softmax");
    assert_true(config.is_causal);
    char *json = plan_text(&plan);
    assert_non_null(strstr(json, "\"mechanisms\":[\"flash\",\"sliding*3+softmax\"]"));
    attn_free(json);
}

static void assert_leak(attn_plan plan, const char *list, attn_status status, const char *text)
{
    attn_error error = {0};
    const attn_status got = attn_plan_set_mechanisms(&plan, list, &error);
    if (got != status || strcmp(error.text, text) != 0)
        fail_msg("%s: status %d, \"%s\"", list, got, error.text);
}

/* What the layers say decides, block by block, whatever the mechanism is called. */
static void leaks_need_leave(void **state)
{
    (void)state;
    attn_plan plan = deep_plan();
#define LEAK                                                                                       \
    " lets a token see later ones, which gives away what a language model is to predict; "         \
    "--allow-leak runs it, out of competition"
    assert_leak(plan, "flex:mask=full", ATTN_EARGUMENT, "flex:mask=full" LEAK);
    assert_leak(plan, "flash,flash*3+flex:mask=prefix", ATTN_EARGUMENT, "flex:mask=prefix" LEAK);
    assert_leak(plan, "linformer:causal=false", ATTN_EARGUMENT, "linformer:causal=false" LEAK);
    assert_leak(plan, "nystrom:causal=false", ATTN_EARGUMENT, "nystrom:causal=false" LEAK);
    assert_leak(plan, "flex:mask=causal,flex:mask=document,linformer", ATTN_OK, "");
    assert_leak(plan, "gla:causal=false", ATTN_EARGUMENT, "gla has no bidirectional form");
    plan.allows_leak = true;
    assert_leak(plan, "flex:mask=full,flash*3+flex:mask=prefix,nystrom:causal=false", ATTN_OK, "");
    plan.length = 500;
    assert_leak(plan, "nystrom:causal=false:landmarks=64", ATTN_ESHAPE,
                "nystrom: landmarks=64 do not divide the 500 tokens of the sequence");
    plan.is_packed = true;
    assert_leak(plan, "flash,nystrom", ATTN_OK, "");
    assert_leak(plan, "flash+flex:mask=full", ATTN_EARGUMENT,
                "flash+flex:mask=full sees later tokens and cannot keep packed documents apart: "
                "leave out --pack");
}

static void assert_check_fails(const attn_plan *plan, attn_status status, const char *text)
{
    attn_error error = {0};
    const attn_status got = attn_plan_check(plan, &error);
    if (got != status || !strstr(error.text, text)) fail_msg("status %d, \"%s\"", got, error.text);
}

static void fields_must_fit_each_other(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = micro_plan();
    assert_ok(attn_plan_check(&plan, &error));
    plan.length = 513;
    assert_check_fails(&plan, ATTN_ESHAPE, "use --seq 512 or less");
    plan = micro_plan();
    plan.timing_warmup = 3;
    assert_check_fails(&plan, ATTN_EARGUMENT, "use more --steps");
    plan = micro_plan();
    plan.cpu_watts = "0.5:4";
    assert_ok(attn_plan_check(&plan, &error));
    plan.cpu_watts = "4";
    assert_check_fails(&plan, ATTN_EARGUMENT, "processor watts '4'");
}

static void equal_plans_have_equal_texts(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plans[2] = {micro_plan(), micro_plan()};
    for (int i = 0; i < 2; i++)
        assert_ok(attn_plan_set_mechanisms(&plans[i], "flash,linear", &error));
    plans[1].data = "/elsewhere/the-same-file"; /* contents decide, not places */
    plans[1].save = "models";
    char *a = plan_text(&plans[0]), *b = plan_text(&plans[1]);
    assert_string_equal(a, b);
    attn_free(b);

    /* every field that decides the work shows */
    for (int field = 0;; field++) {
        attn_plan p = plans[0];
        switch (field) {
        case 0:
            p.n_mechanisms = 1;
            break;
        case 1:
            p.rounds++;
            break;
        case 2:
            p.batch++;
            break;
        case 3:
            p.length--;
            break;
        case 4:
            p.steps++;
            break;
        case 5:
            p.is_packed = true;
            break;
        case 6:
            p.is_loss_on_answers = true;
            break;
        case 7:
            p.held_out = nextafter(p.held_out, 1.0);
            break;
        case 8:
            p.evaluate_every++;
            break;
        case 9:
            p.evaluate_batches++;
            break;
        case 10:
            p.learning_rate = nextafter(p.learning_rate, 1.0);
            break;
        case 11:
            p.weight_decay += 0.1;
            break;
        case 12:
            p.clip += 0.1;
            break;
        case 13:
            p.schedule = ATTN_SCHEDULE_COSINE;
            break;
        case 14:
            p.learning_rate_warmup++;
            break;
        case 15:
            p.timing_warmup--;
            break;
        case 16:
            p.decode_tokens++;
            break;
        case 17:
            p.seed++;
            break;
        case 18:
            p.threads++;
            break;
        case 19:
            p.isa = "ref";
            break;
        case 20:
            p.model = "other";
            break;
        case 21:
            p.is_model_file = true;
            break;
        case 22:
            p.cpu_watts = "1:2";
            break;
        default:
            attn_free(a);
            return;
        }
        char *changed = plan_text(&p);
        if (strcmp(changed, a) == 0) fail_msg("field %d does not show", field);
        attn_free(changed);
    }
}

static void contents_decide(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = micro_plan();
    char *texts[3] = {NULL};
    assert_ok(attn_plan_set_mechanisms(&plan, "flash", &error));
    assert_ok(attn_plan_json(&plan, "aa", NULL, &texts[0], &error));
    assert_ok(attn_plan_json(&plan, "ab", NULL, &texts[1], &error));
    assert_ok(attn_plan_json(&plan, "aa", "cc", &texts[2], &error));
    assert_string_not_equal(texts[0], texts[1]);
    assert_string_not_equal(texts[0], texts[2]);
    for (int i = 0; i < 3; i++) attn_free(texts[i]);
    attn_memory_fail_at(1);
    assert_int_equal(attn_plan_json(&plan, "aa", NULL, &texts[0], &error), ATTN_EMEMORY);
    attn_memory_fail_at(0);
    assert_null(texts[0]);
}

/* Over n rounds each of n mechanisms takes each place once, and each round tries all of them. */
static void order_is_a_latin_square(void **state)
{
    (void)state;
    size_t seeds_that_differ = 0;
    for (size_t n = 1; n <= ATTN_PLAN_MECHANISMS_MAX; n++) {
        attn_plan plan = {.n_mechanisms = n, .seed = n};
        size_t first[ATTN_PLAN_MECHANISMS_MAX] = {0}, order[ATTN_PLAN_MECHANISMS_MAX];
        for (size_t square = 0; square < 3; square++) {
            size_t places[ATTN_PLAN_MECHANISMS_MAX][ATTN_PLAN_MECHANISMS_MAX] = {{0}};
            for (size_t round = 0; round < n; round++) {
                attn_plan_order(&plan, square * n + round, order);
                for (size_t place = 0; place < n; place++) {
                    assert_true(order[place] < n);
                    places[order[place]][place]++;
                }
                if (square == 0 && round == 0) memcpy(first, order, sizeof first);
            }
            for (size_t m = 0; m < n; m++)
                for (size_t place = 0; place < n; place++) assert_int_equal(places[m][place], 1);
        }
        attn_plan_order(&plan, 0, order);
        assert_memory_equal(order, first, n * sizeof *order); /* the seed alone decides */
        plan.seed += 1000;
        attn_plan_order(&plan, 0, order);
        seeds_that_differ += memcmp(order, first, n * sizeof *order) != 0;
    }
    assert_true(seeds_that_differ > ATTN_PLAN_MECHANISMS_MAX / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_parted),
        cmocka_unit_test(twins_are_the_first_again),
        cmocka_unit_test(bad_lists_are_refused),
        cmocka_unit_test(patterns_are_models),
        cmocka_unit_test(leaks_need_leave),
        cmocka_unit_test(fields_must_fit_each_other),
        cmocka_unit_test(equal_plans_have_equal_texts),
        cmocka_unit_test(contents_decide),
        cmocka_unit_test(order_is_a_latin_square),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
