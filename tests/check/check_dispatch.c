/* Which kernels each level gets, what the environment and bad names do, and that every name is
 * there once. What the processor offers is asked a second time, of the compiler's library. */
#define _GNU_SOURCE
#include "check.h"

#include "base/memory.h"
#include "kernels/context.h"
#include "mechanisms/mechanism.h"

#include <stdlib.h>
#include <string.h>

typedef const attn_kernels *kernels_lookup(attn_isa isa);

static attn_isa offered(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return ATTN_ISA_REF;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return ATTN_ISA_AVX2;
    return ATTN_ISA_AVX512; /* and AMX, which only the system can tell */
#else
    return ATTN_ISA_REF;
#endif
}

static const attn_kernels *expected_table(attn_isa isa)
{
#if defined(__x86_64__)
    if (isa >= ATTN_ISA_AVX512) return &attn_kernels_avx512;
    if (isa == ATTN_ISA_AVX2) return &attn_kernels_avx2;
#else
    (void)isa;
#endif
    return &attn_kernels_ref;
}

/* Every slot filled; a vector table shares none with the plain one. */
static void check_slots(check_run *run, const attn_kernels *table)
{
    typedef void slot(void);
    const size_t first = offsetof(attn_kernels, product), size = sizeof(attn_kernels) - first;
    for (size_t i = 0; i < size / sizeof(slot *); i++) {
        slot *here = NULL, *plain = NULL;
        memcpy(&here, (const char *)table + first + i * sizeof here, sizeof here);
        memcpy(&plain, (const char *)&attn_kernels_ref + first + i * sizeof plain, sizeof plain);
        check_that(run, here != NULL, "slot %zu is empty", i);
        check_that(run, table == &attn_kernels_ref || here != plain,
                   "slot %zu is the plain version", i);
    }
}

void check_dispatch_levels(check_run *run)
{
    kernels_lookup *planted = run->group->plant ? run->group->plant->kernels_for : NULL;
    kernels_lookup *lookup = planted ? planted : attn_kernels_for;
    check_case(run, "the machine");
    const attn_isa best = attn_cpu_best_isa();
    check_that(run, best == offered() || (best == ATTN_ISA_AMX && offered() == ATTN_ISA_AVX512),
               "detected %s, the processor offers %s", attn_isa_name(best),
               attn_isa_name(offered()));
    for (int i = 0; i < ATTN_ISA_LEVELS; i++) {
        const attn_isa isa = (attn_isa)i;
        attn_context *context = NULL;
        attn_error error = {0};
        check_case(run, "level %s", attn_isa_name(isa));
        const attn_status status = attn_context_create(&context, 1, attn_isa_name(isa), &error);
        if (isa > best) {
            check_that(run, status == ATTN_EUNSUPPORTED && !context && error.text[0],
                       "a level that the machine lacks: %s", attn_status_text(status));
            continue;
        }
        if (!check_ok(run, status, &error, "context")) continue;
        check_that(run, strcmp(attn_context_isa(context), attn_isa_name(isa)) == 0,
                   "the context says %s", attn_context_isa(context));
        check_that(run, context->kernels == lookup(isa), "the context has another table");
        check_that(run, lookup(isa) == expected_table(isa), "the table is that of %s",
                   attn_isa_name(lookup(isa)->isa));
        check_that(run, lookup(isa)->isa == expected_table(isa)->isa, "the table calls itself %s",
                   attn_isa_name(lookup(isa)->isa));
        check_slots(run, lookup(isa));
        if (isa == ATTN_ISA_REF)
            check_that(run, strcmp(attn_context_dense(context), "plain") == 0,
                       "ref has dense products by %s", attn_context_dense(context));
        attn_context_free(context);
    }
}

static void expect_default(check_run *run, const char *wish, attn_status expected, attn_isa isa)
{
    attn_context *context = NULL;
    attn_error error = {0};
    if (wish)
        setenv("ATTNSCOPE_ISA", wish, 1);
    else
        unsetenv("ATTNSCOPE_ISA");
    check_case(run, "ATTNSCOPE_ISA %s", wish ? wish : "unset");
    const attn_status status = attn_context_create(&context, 1, NULL, &error);
    check_that(run, status == expected, "%s", attn_status_text(status));
    if (status != ATTN_OK)
        check_that(run, !context && error.text[0], "no context, but a text");
    else
        check_that(run, context->isa == isa, "level %s", attn_context_isa(context));
    attn_context_free(context);
}

static void run_environment(check_run *run)
{
    const attn_isa best = attn_cpu_best_isa();
    expect_default(run, NULL, ATTN_OK, best);
    expect_default(run, "", ATTN_OK, best);
    expect_default(run, "auto", ATTN_OK, best);
    expect_default(run, "AVX2", ATTN_EARGUMENT, best);
    for (int i = 0; i < ATTN_ISA_LEVELS; i++)
        expect_default(run, attn_isa_name((attn_isa)i),
                       (attn_isa)i <= best ? ATTN_OK : ATTN_EUNSUPPORTED, (attn_isa)i);
}

static void run_names(check_run *run)
{
    check_case(run, "levels");
    for (int i = 0; i < ATTN_ISA_LEVELS; i++)
        for (int j = 0; j < i; j++)
            check_that(run, strcmp(attn_isa_name((attn_isa)i), attn_isa_name((attn_isa)j)) != 0,
                       "two levels are called %s", attn_isa_name((attn_isa)i));
    check_case(run, "mechanisms");
    const size_t count = attn_mechanism_count();
    check_that(run, count > 0 && !attn_mechanism_name(count), "%zu mechanisms", count);
    for (size_t i = 0; i < count; i++) {
        const char *name = attn_mechanism_name(i);
        const attn_mechanism *m = attn_mechanism_find(name);
        check_that(run, m == attn_mechanisms[i].mechanism, "%s is found as itself", name);
        check_that(run, m && m->title && *m->title && m->source && *m->source,
                   "%s has a title and a source", name);
        for (size_t j = 0; j < i; j++)
            check_that(run, strcmp(name, attn_mechanism_name(j)) != 0, "two are called %s", name);
    }
    check_that(run, !attn_mechanism_find("no such mechanism"), "an unknown name is not found");
    check_case(run, "options");
    for (size_t i = 0; i < count; i++) {
        const attn_option *o = attn_mechanisms[i].mechanism->options;
        for (size_t a = 0; o && o[a].name; a++) {
            check_that(run, o[a].help && *o[a].help && o[a].initial, "%s: option %s is described",
                       attn_mechanism_name(i), o[a].name);
            for (size_t b = 0; b < a; b++)
                check_that(run, strcmp(o[a].name, o[b].name) != 0, "%s: two options %s",
                           attn_mechanism_name(i), o[a].name);
        }
    }
}

void check_collect_dispatch(check_list *list)
{
    check_group group = {.mode = "dispatch", .is_level_free = true};
    group.subject = "levels", group.body = check_dispatch_levels;
    check_list_add(list, group);
    group.subject = "environment", group.body = run_environment;
    check_list_add(list, group);
    group.subject = "names", group.body = run_names;
    check_list_add(list, group);
}
