/* The golden files: float64 results of definitions written elsewhere and in another language.
 * Every layer of them that exists here must agree: the oracle to 1e-10, float32 to 2e-5, bfloat16 to
 * what its roundings explain. */
#define _GNU_SOURCE
#include "check_layer.h"

#include "verify/case.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- one file ---------------------------------------------------------------------------- */

static void compare_as(check_run *run, const char *path, attn_case_precision precision)
{
    attn_case *c = NULL;
    attn_error error = {0};
    const attn_case_error *errors = NULL;
    size_t count = 0;
    attn_status status = attn_case_open(&c, path, run->group->subject, &error);
    if (status == ATTN_OK)
        status = attn_case_compute(c, precision, attn_isa_name(run->group->isa), 2, &error);
    if (status == ATTN_OK) status = attn_case_compare(c, &errors, &count, &error);
    check_ok(run, status, &error, "evaluating the file");
    for (size_t i = 0; i < count && status == ATTN_OK; i++) {
        const double none = 0.0;
        if (check_that(run, errors[i].is_known, "the file has no %s", errors[i].name))
            check_compare(
                run, 1, (check_numbers){.real = &errors[i].error}, (check_numbers){.real = &none},
                (check_rule){.bounds = &errors[i].tolerance}, "error of %s", errors[i].name);
    }
    attn_case_close(c);
}

static void compare_file(check_run *run, const char *path)
{
    if (run->group->is_level_free) {
        compare_as(run, path, ATTN_CASE_F64);
        return;
    }
    compare_as(run, path, ATTN_CASE_F32);
    compare_as(run, path, ATTN_CASE_BF16);
}

/* ---- all files --------------------------------------------------------------------------- */

/* A case may be computed by other mechanisms than the one it names. */
static bool runs_under(attn_case_facts facts, const char *mechanism)
{
    static const char *const others[][3] = {
        {"softmax", "", "sdpa"}, {"softmax", "", "flash"}, {"gqa", "kv_heads=1", "mqa"}};
    if (strcmp(facts.mechanism, mechanism) == 0) return true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(facts.mechanism, others[i][0]) == 0 &&
            strcmp(facts.options, others[i][1]) == 0 && strcmp(mechanism, others[i][2]) == 0)
            return true;
    return false;
}

static int is_golden(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".safetensors") == 0;
}

/* Opens every file of the folder and hands it over; `c` is NULL where `error` says why. */
static void each_file(check_run *run, const char *folder,
                      void (*visit)(check_run *run, const char *path, const attn_case *c,
                                    const attn_error *error))
{
    struct dirent **entries = NULL;
    const int count = scandir(folder, &entries, is_golden, alphasort);
    for (int i = 0; i < count; i++) {
        const char *path = check_text("%s/%s", folder, entries[i]->d_name);
        attn_case *c = NULL;
        attn_error error = {0};
        if (attn_case_open(&c, path, NULL, &error) != ATTN_OK) c = NULL;
        visit(run, path, c, &error);
        attn_case_close(c);
        free(entries[i]);
    }
    free(entries);
}

static void visit_mechanism(check_run *run, const char *path, const attn_case *c,
                            const attn_error *error)
{
    (void)error;
    if (!c || !runs_under(attn_case_about(c), run->group->subject)) return;
    check_case(run, "%s", strrchr(path, '/') + 1);
    compare_file(run, path);
}

/* A layer that does not exist here is left out by name; any other failure is one. */
static void visit_unknown(check_run *run, const char *path, const attn_case *c,
                          const attn_error *error)
{
    if (c) return;
    check_case(run, "%s", strrchr(path, '/') + 1);
    if (error->status == ATTN_ENOTFOUND && strstr(error->text, "unknown mechanism"))
        check_skip(run, "%s", error->text);
    else
        check_that(run, false, "%s", error->text);
}

static bool has_shared(void)
{
    return access(SHARED_DATA "/golden", R_OK) == 0;
}

static void run_golden(check_run *run)
{
    each_file(run, TEST_DATA "/golden", visit_mechanism);
    if (has_shared()) each_file(run, SHARED_DATA "/golden", visit_mechanism);
    if (run->is_open) return;
    check_case(run, "all");
    check_skip(run, "no golden file of this mechanism%s", has_shared() ? "" : " in tests/data");
}

static void run_unknown(check_run *run)
{
    each_file(run, TEST_DATA "/golden", visit_unknown);
    if (has_shared())
        each_file(run, SHARED_DATA "/golden", visit_unknown);
    else
        check_case(run, "all"), check_skip(run, "%s is absent", SHARED_DATA "/golden");
    if (run->is_open) return;
    check_case(run, "all layers exist");
    check_that(run, true, "nothing left out");
}

void check_collect_golden(check_list *list)
{
    for (const attn_mechanism_entry *e = attn_mechanisms; e->name; e++)
        check_list_add(list, (check_group){.mode = "golden",
                                           .subject = e->name,
                                           .what = e,
                                           .is_level_free = true,
                                           .body = run_golden});
    check_list_add_mechanisms(list, "golden", run_golden, NULL);
    check_list_add(list, (check_group){.mode = "golden",
                                       .subject = "other layers",
                                       .is_level_free = true,
                                       .body = run_unknown});
}
