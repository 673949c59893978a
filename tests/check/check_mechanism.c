/* Every mechanism, with each of its options, in every level and with 1 to 3 threads against its
 * float64 oracle: y, dx, every gradient, and the counted work of each call. */
#include "check_layer.h"
#include "check_prop.h"

#include <string.h>

/* Lengths around the tiles and chunks of 64; head sizes around the vectors of 8 and 16. */
static const check_config configs[] = {
    {.batch = 16, .heads = 6, .head_dim = 8, .length = 1},
    {.batch = 8, .heads = 6, .head_dim = 8, .length = 2},
    {.batch = 2, .heads = 6, .head_dim = 20, .length = 37},
    {.batch = 1, .heads = 6, .head_dim = 32, .length = 63},
    {.batch = 1, .heads = 6, .head_dim = 8, .length = 64},
    {.batch = 1, .heads = 6, .head_dim = 64, .length = 65},
    {.batch = 1, .heads = 6, .head_dim = 20, .length = 130},
    {.batch = 1, .heads = 6, .head_dim = 8, .length = 200},
};
/* Head sizes with an exact 1 / sqrt(d), so that extreme scores stay exact. */
static const check_config extreme[] = {
    {.batch = 2, .heads = 6, .head_dim = 4, .length = 37},
    {.batch = 1, .heads = 6, .head_dim = 16, .length = 130},
};

/* Decoding rounds what a forward pass rounds: the second half of the tokens, one by one. */
static void check_half_decoding(check_run *run, const check_layer *l)
{
    if (!attn_layer_is_causal(l->layer) || l->documents) return;
    if (check_subject_find(run->group->subject)->decodes_single) return;
    float *y = check_floats(run, l->n, CHECK_AT_END);
    memcpy(y, l->y, l->n * sizeof *y);
    if (check_prop_decode_behind(run, l, check_context(run, 2), l->T / 2, y))
        check_layer_compare_y(run, l, y, CHECK_LAYER_TOLERANCE, "y of decoding");
}

static void check_one(check_run *run, const char *options, const check_config *config,
                      size_t first_threads, size_t last_threads)
{
    check_layer l;
    check_case(run, "%s %s", options, check_config_text(config));
    if (!check_layer_begin(run, &l, options, config)) return;
    check_layer_oracle(run, &l);
    for (size_t threads = first_threads; threads <= last_threads; threads++) {
        attn_context *context = check_context(run, threads);
        if (!check_layer_forward(run, &l, context)) break;
        check_layer_backward(run, &l, context);
        check_layer_compare(run, &l, CHECK_LAYER_TOLERANCE);
        if (threads == first_threads && config->dtype == ATTN_BF16) check_half_decoding(run, &l);
    }
    check_guards(run);
    check_layer_end(&l);
}

/* The first option string runs every configuration; the others the long ones. */
static void check_option(check_run *run, const check_subject *subject, const char *options,
                         bool is_first)
{
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        for (int variant = 0; variant < 3; variant++) {
            check_config config = configs[i];
            config.is_causal = variant < 2;
            config.has_documents = variant == 1;
            if (config.has_documents && config.length < 37) continue;
            if (!is_first && (config.length < 130 || variant == 2) && config.length != 37) continue;
            const size_t threads = 1 + i % CHECK_THREADS;
            const bool is_each = config.length == 130 && is_first;
            check_one(run, options, &config, is_each ? 1 : threads,
                      is_each ? CHECK_THREADS : threads);
        }
    for (size_t i = 0; subject->has_scores && i < sizeof extreme / sizeof *extreme; i++)
        for (int variant = 0; variant < 4; variant++) {
            check_config config = extreme[i];
            config.is_causal = variant % 2 == 0;
            config.family = variant < 2 ? CHECK_SCORES_THOUSANDS : CHECK_SCORES_LOW;
            if (is_first || config.length == 37) check_one(run, options, &config, 1 + i, 1 + i);
        }
}

/* bfloat16: widths around the strips of 32, and the largest of them with each number of threads.
 * The definition takes long there: levels that share their loops with a better one of the machine
 * leave it out, and options beyond the first see it with documents alone. */
static void check_half(check_run *run, const char *options, bool is_first)
{
    static const check_config halves[] = {
        {.batch = 16, .heads = 6, .head_dim = 8, .length = 1, .dtype = ATTN_BF16},
        {.batch = 2, .heads = 6, .head_dim = 20, .length = 37, .dtype = ATTN_BF16},
        {.batch = 1, .heads = 6, .head_dim = 32, .length = 130, .dtype = ATTN_BF16},
    };
    const attn_isa isa = run->group->isa;
    const bool is_shared = isa < ATTN_ISA_AVX512 && isa < attn_cpu_best_isa();
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++)
        for (int variant = 0; variant < 3; variant++) {
            check_config config = halves[i];
            config.is_causal = variant < 2;
            config.has_documents = variant == 1;
            if (config.has_documents && config.length == 1) continue;
            const bool is_large = config.length == 130;
            if (is_large && (is_shared || (!is_first && !config.has_documents))) continue;
            check_one(run, options, &config, 1, is_large ? CHECK_THREADS : 1);
        }
}

void check_mechanism_all(check_run *run)
{
    const check_subject *subject = check_subject_find(run->group->subject);
    const char *const *options = check_subject_options(subject);
    for (size_t i = 0; options[i]; i++) check_option(run, subject, options[i], i == 0);
}

void check_half_all(check_run *run)
{
    const char *const *options = check_subject_options(check_subject_find(run->group->subject));
    for (size_t i = 0; options[i]; i++) check_half(run, options[i], i == 0);
}

void check_collect_mechanisms(check_list *list)
{
    check_list_add_mechanisms(list, "test", check_mechanism_all, NULL);
}

/* Level `amx` has bfloat16 products of its own, and everything else of the level below. */
void check_collect_half(check_list *list)
{
    check_list_add_mechanisms(list, "half", check_half_all, NULL);
    if (attn_cpu_best_isa() < ATTN_ISA_AMX) return;
    for (const attn_mechanism_entry *e = attn_mechanisms; e->name; e++)
        check_list_add(list, (check_group){.mode = "half",
                                           .subject = e->name,
                                           .isa = ATTN_ISA_AMX,
                                           .body = check_half_all,
                                           .what = e});
}
