/* attncheck: holds the kernels and mechanisms against their definitions. See docs/numerics.md
 * for the rules of comparison. */
#define _GNU_SOURCE
#include "check.h"

#include "base/clock.h"

#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void collect_test(check_list *list)
{
    check_collect_kernels(list);
    check_collect_parts(list);
    check_collect_dense(list);
    check_collect_bf16(list);
    check_collect_dense_bf16(list);
    check_collect_mechanisms(list);
}

#ifndef ATTN_HAVE_TOOL
void check_collect_golden(check_list *list)
{
    (void)list;
}
#endif

const check_mode check_modes[] = {
    {"test", collect_test, "kernels, dense products and mechanisms against float64"},
    {"half", check_collect_half, "mechanisms in bfloat16"},
    {"grad", check_collect_grad, "gradients against central differences of the oracle"},
    {"prop", check_collect_prop, "what must hold whatever the numbers: order, batches, threads"},
    {"golden", check_collect_golden, "the golden files"},
    {"dispatch", check_collect_dispatch, "the kernels chosen at each level, and the names"},
    {"fault", check_collect_fault, "failing allocations"},
    {"selftest", check_collect_selftest, "faults planted on purpose, which must be caught"},
    {NULL, NULL, NULL}};

/* ---- lists ------------------------------------------------------------------------------- */

const char *check_text(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *text = NULL;
    const int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0) exit(2);
    return text;
}

void check_list_add(check_list *list, check_group group)
{
    if (list->subject && fnmatch(list->subject, group.subject, 0) != 0) return;
    if (list->isa && (group.is_level_free || strcmp(list->isa, attn_isa_name(group.isa)) != 0))
        return;
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 64;
        list->groups = realloc(list->groups, list->capacity * sizeof *list->groups);
        if (!list->groups) exit(2);
    }
    list->groups[list->count++] = group;
}

bool check_level_is_own(attn_isa isa)
{
    return isa == ATTN_ISA_REF || attn_kernels_for(isa) != attn_kernels_for((attn_isa)(isa - 1));
}

static void skip_level(check_run *run)
{
    check_case(run, "all");
    check_skip(run, "this machine offers %s at most", attn_isa_name(attn_cpu_best_isa()));
}

void check_list_add_levels(check_list *list, check_group group)
{
    check_body *const body = group.body;
    for (int level = 0; level < ATTN_ISA_LEVELS; level++) {
        group.isa = (attn_isa)level;
        if (!check_level_is_own(group.isa)) continue;
        group.body = group.isa <= attn_cpu_best_isa() ? body : skip_level;
        check_list_add(list, group);
    }
}

/* ---- running ----------------------------------------------------------------------------- */

typedef struct options {
    check_list list;
    const char *modes[16];
    size_t n_modes;
    uint64_t seed;
    size_t repeat;
    FILE *json;
} options;

typedef struct totals {
    size_t passed, failed, skipped;
    bool has_row;
} totals;

static const char *level_name(const check_group *group)
{
    return group->is_level_free ? "-" : attn_isa_name(group->isa);
}

/* A process of its own for the body: a crash there ends that process alone. */
static pid_t start_child(const check_group *group, uint64_t seed, check_result *result)
{
    const pid_t child = fork();
    if (child < 0) {
        perror("attncheck: fork");
        exit(2);
    }
    if (child == 0) {
        check_run_body(group, seed, result);
        _exit(0);
    }
    return child;
}

/* What the wait status says about the end: a signal, an exit code, or 0. */
static int end_of(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        ;
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status) ? -WEXITSTATUS(status) : 0;
}

int check_run_child(const check_group *group, uint64_t seed, check_result *result)
{
    return end_of(start_child(group, seed, result));
}

static void judge_end(check_result *r, int end)
{
    if (end == 0 && r->is_finished && r->passed + r->failed + r->skipped > 0) return;
    char *text = r->failures[r->n_failures < CHECK_KEPT ? r->n_failures : CHECK_KEPT - 1];
    const size_t room = sizeof r->failures[0];
    if (end > 0)
        snprintf(text, room, "%.240s: died of signal %d (%s)", r->now, end, strsignal(end));
    else if (end < 0)
        snprintf(text, room, "%.240s: the process ended with code %d", r->now, -end);
    else
        snprintf(text, room, "no case ran");
    r->n_failures++;
    r->failed++;
}

static void print_json_text(FILE *file, const char *text)
{
    fputc('"', file);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') fputc('\\', file);
        if ((unsigned char)*text >= 0x20) fputc(*text, file);
    }
    fputc('"', file);
}

static void print_json(FILE *file, const check_group *g, const check_result *r, uint64_t seed,
                       bool is_first)
{
    fprintf(file,
            "%s\n  {\"mode\": \"%s\", \"subject\": \"%s\", \"isa\": \"%s\", \"seed\": %llu, "
            "\"passed\": %zu, \"failed\": %zu, \"skipped\": %zu, \"worst\": ",
            is_first ? "" : ",", g->mode, g->subject, level_name(g), (unsigned long long)seed,
            r->passed, r->failed, r->skipped);
    if (isfinite(r->worst))
        fprintf(file, "%.6g", r->worst);
    else
        fputs("null", file);
    fputs(", \"where\": ", file);
    print_json_text(file, r->worst_where);
    fputs(", \"failure\": ", file);
    if (r->n_failures)
        print_json_text(file, r->failures[0]);
    else
        fputs("null", file);
    fputc('}', file);
}

static void print_row(const check_group *g, const check_result *r, uint64_t seed)
{
    const char *verdict = r->failed ? "FAILED" : r->passed ? "ok" : "skipped";
    printf("%-8s %-24s %-7s %-7s %5zu cases", g->mode, g->subject, level_name(g), verdict,
           r->passed + r->failed);
    if (r->worst_where[0]) printf("  worst %.2g of tolerance: %s", r->worst, r->worst_where);
    putchar('\n');
    const size_t shown = r->n_failures < CHECK_KEPT ? r->n_failures : CHECK_KEPT;
    for (size_t i = 0; i < shown; i++) printf("    %s\n", r->failures[i]);
    if (r->n_failures > shown) printf("    and %zu more\n", r->n_failures - shown);
    if (r->failed) {
        printf("    repeat: attncheck %s --mechanism '%s'", g->mode, g->subject);
        if (!g->is_level_free) printf(" --isa %s", level_name(g));
        printf(" --seed %llu\n", (unsigned long long)seed);
    }
    const size_t skips = r->n_skips < CHECK_KEPT ? r->n_skips : CHECK_KEPT;
    for (size_t i = 0; i < skips; i++) printf("    skipped %s\n", r->skips[i]);
    if (r->n_skips > skips) printf("    and %zu more skipped\n", r->n_skips - skips);
}

static void *shared(size_t size_bytes)
{
    void *memory =
        mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) exit(2);
    return memory;
}

/* Two groups run at once where there are cores for it; rows come in order. */
static void run_groups(const options *o, uint64_t seed, totals *sum)
{
    enum { AT_ONCE = 2 };
    const check_list *list = &o->list;
    check_result *results = shared((list->count + 1) * sizeof *results);
    pid_t children[AT_ONCE] = {0};
    for (size_t started = 0, done = 0; done < list->count; done++) {
        for (; started < list->count && started < done + AT_ONCE; started++)
            children[started % AT_ONCE] =
                start_child(&list->groups[started], seed, &results[started]);
        check_result *r = &results[done];
        judge_end(r, end_of(children[done % AT_ONCE]));
        print_row(&list->groups[done], r, seed);
        fflush(stdout);
        if (o->json) print_json(o->json, &list->groups[done], r, seed, !sum->has_row);
        sum->has_row = true;
        sum->passed += r->passed;
        sum->failed += r->failed;
        sum->skipped += r->skipped;
    }
    munmap(results, (list->count + 1) * sizeof *results);
}

static void print_list(const check_list *list)
{
    for (int level = 0; level < ATTN_ISA_LEVELS; level++)
        printf("level    %-24s %s\n", attn_isa_name((attn_isa)level),
               (attn_isa)level > attn_cpu_best_isa()  ? "not offered by this machine: skipped"
               : !check_level_is_own((attn_isa)level) ? "the kernels of the level below: no rows"
                                                      : "runs");
    for (size_t i = 0; i < list->count; i++)
        printf("%-8s %-24s %s\n", list->groups[i].mode, list->groups[i].subject,
               level_name(&list->groups[i]));
}

/* ---- the command line -------------------------------------------------------------------- */

static int usage(void)
{
    fputs("usage: attncheck MODE... [--mechanism PATTERN] [--isa LEVEL] [--seed N] [--repeat N] "
          "[--json FILE]\n",
          stderr);
    for (const check_mode *m = check_modes; m->name; m++)
        fprintf(stderr, "  %-9s %s\n", m->name, m->help);
    fputs("  list      every group of the modes before it, or of all modes\n", stderr);
    return 2;
}

static bool parse_number(const char *text, uint64_t *out)
{
    char *end = NULL;
    *out = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end;
}

static bool is_mode(const char *name)
{
    if (strcmp(name, "list") == 0) return true;
    for (const check_mode *m = check_modes; m->name; m++)
        if (strcmp(m->name, name) == 0) return true;
    return false;
}

static bool parse_options(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        uint64_t number = 0;
        if (name[0] != '-') {
            if (!is_mode(name) || o->n_modes == sizeof o->modes / sizeof *o->modes) return false;
            o->modes[o->n_modes++] = name;
            continue;
        }
        if (!value) return false;
        i++;
        if (strcmp(name, "--mechanism") == 0) {
            o->list.subject = value;
        } else if (strcmp(name, "--isa") == 0) {
            o->list.isa = value;
        } else if (strcmp(name, "--json") == 0) {
            if (!(o->json = fopen(value, "w"))) {
                perror(value);
                return false;
            }
        } else if (strcmp(name, "--seed") == 0 && parse_number(value, &number)) {
            o->seed = number;
        } else if (strcmp(name, "--repeat") == 0 && parse_number(value, &number) && number > 0) {
            o->repeat = (size_t)number;
        } else {
            return false;
        }
    }
    return o->n_modes > 0;
}

/* Groups of the modes that were named, `list` apart; of all modes when that leaves none. */
static bool collect(options *o)
{
    bool is_list = false, is_any = false;
    for (size_t i = 0; i < o->n_modes; i++) {
        const bool names_list = strcmp(o->modes[i], "list") == 0;
        is_list = is_list || names_list;
        is_any = is_any || !names_list;
    }
    for (const check_mode *m = check_modes; m->name; m++) {
        bool wanted = !is_any;
        for (size_t i = 0; i < o->n_modes; i++)
            wanted = wanted || strcmp(o->modes[i], m->name) == 0;
        if (wanted) m->collect(&o->list);
    }
    return is_list;
}

int main(int argc, char **argv)
{
    options o = {.seed = (uint64_t)time(NULL), .repeat = 1};
    const char *seed = getenv("ATTNCHECK_SEED"); /* of ./check: each commit has its own */
    if (seed && !parse_number(seed, &o.seed)) return usage();
    if (!parse_options(argc, argv, &o)) return usage();
    if (collect(&o)) {
        print_list(&o.list);
        return 0;
    }
    const uint64_t start_ns = attn_clock_ns();
    totals sum = {0};
    printf("seed %llu\n", (unsigned long long)o.seed);
    fflush(stdout);
    if (o.json) fputc('[', o.json);
    for (size_t i = 0; i < o.repeat; i++) run_groups(&o, o.seed + i, &sum);
    bool is_written = true;
    if (o.json) is_written = fputs("\n]\n", o.json) >= 0 && fclose(o.json) == 0;
    if (!is_written) fputs("attncheck: writing the JSON file failed\n", stderr);
    if (sum.passed + sum.failed == 0 && sum.skipped == 0) {
        puts("nothing was run: no such mode, mechanism or level");
        sum.failed = 1;
    }
    printf("%.1f s\n", attn_clock_seconds(start_ns, attn_clock_ns()));
    printf("%zu passed, %zu failed, %zu skipped\n", sum.passed, sum.failed, sum.skipped);
    free(o.list.groups);
    return sum.failed || !is_written ? 1 : 0;
}
