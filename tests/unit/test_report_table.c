/* The table for terminals and the list of runs: exact output. With a file name as its argument
 * the program writes the made-up run there: tests/data/store/schema-1.db was made so. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "report/runs.h"
#include "report/table.h"
#include "scratch_folder.h"
#include "synthetic_result.h"

/* clang-format off */
static const char table_by_loss[] =
    "run 1, 2026-01-02T03:04:05Z, done: attnscope run --rounds 3 --steps 60\n"
    "\n"
    "mechanism  held-out  step   +/-  tokens    energy  memory   matmul  token\n"
    "              nat M  ms M     %   1/s D  J/step -   MiB C  GFLOP C   ms M\n"
    "softmax       4.042   136  0.34    3770         -   246.2    11.27   1.93\n"
    "sdpa          4.042   124  0.55    4140         -   207.3    11.27   1.69\n"
    "flash         4.042   119  0.71    4310         -   202.9    10.87   1.67\n"
    "gqa           4.072   110  0.16    4640         -   184.8    10.07   1.53\n"
    "sliding       4.091   116  0.31    4410         -   199.7    10.27   1.63\n"
    "linear        4.328   128  0.17    4010         -   208.2     9.97   1.46\n"
    "\n"
    "M measured  I integrated  C counted  D derived  ~ modelled  - unavailable\n"
    "medians; +/- of the step time is half the range over 3 rounds\n"
    "\n"
    "modelled CPU energy of a trial, not a measurement, ranks nothing:\n"
    "  softmax    ~470 J  (227 to 723 J)\n"
    "  sdpa       ~430 J  (205 to 655 J)\n"
    "  flash      ~410 J  (196 to 629 J)\n"
    "  gqa        ~380 J  (184 to 585 J)\n"
    "  sliding    ~400 J  (194 to 618 J)\n"
    "  linear     ~440 J  (213 to 676 J)\n"
    "\n"
    "Fastest training step: gqa, 110.4 ms. 110.3 to 110.6 ms (range over 2 rounds).\n"
    "  19 % less than softmax.\n"
    "Lowest held-out loss: softmax, 4.042 nat. 4.042 to 4.044 nat (range over 3\n"
    "  rounds). Not resolved against sdpa, flash: the spreads overlap. After 30 720\n"
    "  training tokens each.\n"
    "Least memory in training: gqa, 184.8 MiB. Counted, the same in every round. 25 %\n"
    "  less than softmax.\n"
    "Fastest next token: linear, 1.46 ms. 1.45 to 1.46 ms (range over 3 rounds). 25 %\n"
    "  less than softmax.\n"
    "Energy: not measured. Reason: this virtual machine has no RAPL counters; run on\n"
    "  the host, or give --power-meter. A modelled value is shown apart; it does not\n"
    "  rank mechanisms.\n"
    "Counted work: equals the formula. Operations counted as the kernels ran equal\n"
    "  the closed form to the last digit, for all 6 mechanisms.\n"
    "Trials: 17 of 18 done. gqa, round 2: crashed (killed by signal 9 after step 17:\n"
    "  out of memory?). Only trials that are done count.\n";

static const char table_by_energy[] =
    "run 1, 2026-01-02T03:04:05Z, done: attnscope run --rounds 3 --steps 60\n"
    "\n"
    "mechanism  held-out  step   +/-  tokens    energy  memory   matmul  token\n"
    "              nat M  ms M     %   1/s D  J/step M   MiB C  GFLOP C   ms M\n"
    "gqa           4.071   111   1.4    4630      6.75   184.8    10.07   1.53\n"
    "sliding       4.091   116  0.36    4400      7.10   199.7    10.27   1.61\n"
    "flash         4.042   117  0.84    4360      7.17   202.9    10.87   1.67\n"
    "sdpa          4.042   124  0.99    4140      7.55   207.3    11.27   1.72\n"
    "linear        4.328   127  0.75    4020      7.77   208.2     9.97   1.45\n"
    "softmax       4.042   137  0.97    3740      8.34   246.2    11.27   1.93\n"
    "\n"
    "M measured  I integrated  C counted  D derived  ~ modelled  - unavailable\n"
    "medians; +/- of the step time is half the 95 % interval over 6 rounds,\n"
    "or half the range where fewer rounds are done\n";
/* clang-format on */

/* The table as one text; free() it. */
static char *table_of(const synthetic_report *r, const char *sort, bool is_bold)
{
    attn_error error = {0};
    char *caught = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&caught, &n);
    const attn_status status = attn_report_table(out, r->result, r->summary, sort, is_bold, &error);
    fclose(out);
    if (status != ATTN_OK) print_error("%s\n", error.text);
    assert_int_equal(status, ATTN_OK);
    return caught;
}

static void assert_text(const char *got, const char *expected)
{
    if (strcmp(got, expected) != 0) print_error("---- got\n%s---- expected\n%s", got, expected);
    assert_true(strcmp(got, expected) == 0);
}

/* No line is wider than 80 columns; escape sequences take none. */
static void assert_narrow(const char *text)
{
    size_t column = 0;
    for (const char *c = text; *c; c++) {
        if (*c == '\033') {
            c += strcspn(c, "m");
            continue;
        }
        column = *c == '\n' ? 0 : column + ((*c & 0xc0) != 0x80);
        if (column > 80) print_error("%s", text);
        assert_true(column <= 80);
    }
}

static void a_run_as_a_table(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){0});
    char *text = table_of(&r, "loss", false);
    assert_text(text, table_by_loss);
    assert_narrow(text);
    free(text);
    synthetic_report_free(&r);
}

static void measured_energy_ranks(void **state)
{
    (void)state;
    synthetic_report r =
        synthetic_report_make(&(synthetic_options){.has_energy = true, .rounds = 6});
    char *text = table_of(&r, "energy", false);
    assert_narrow(text);
    *strstr(text, "\nmodelled CPU energy") = '\0';
    assert_text(text, table_by_energy);
    free(text);
    synthetic_report_free(&r);
}

/* A run under way, one round, a name that would break a terminal or a narrow table. */
static void odd_runs_are_survived(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(
        &(synthetic_options){.rounds = 1,
                             .is_running = true,
                             .first_name = "\033[31mextraordinarily-long-mechanism-name-\xc3\xa9"});
    char *text = table_of(&r, "time", false);
    assert_narrow(text);
    assert_null(strchr(text, '\033'));
    assert_non_null(strstr(text, "\n?[31mextraordinarily-long-mechanism-name-??\n"
                                 "              4.042"));
    assert_non_null(strstr(text, "linear     not ended\n"));
    assert_non_null(strstr(text, "one round: no spread is known\n"));
    assert_non_null(strstr(text, "Trials: 5 done. 1 has begun"));
    free(text);
    synthetic_report_free(&r);
}

/* The best of a column and what is not resolved from it: bold, on request only. */
static void the_best_is_bold(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){0});
    char *text = table_of(&r, "loss", true);
    assert_narrow(text);
    assert_non_null(strstr(text, "\nsoftmax    \033[1m   4.042\033[0m   136"));
    assert_non_null(strstr(text, "\nsdpa       \033[1m   4.042\033[0m   124"));
    assert_non_null(strstr(text, "\ngqa           4.072  \033[1m 110\033[0m"));
    size_t n_bold = 0;
    for (const char *c = text; (c = strstr(c, "\033[1m")); c++) n_bold++;
    assert_int_equal(n_bold, 3 + 5); /* three losses are not told apart */
    free(text);
    synthetic_report_free(&r);
}

/* Rounds that nearly agree, and rounds that agree: their numbers stand apart from the ones before. */
static void small_spreads_stand_apart(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){0});
    attn_summary_mechanism *softmax = &r.summary->mechanisms[0];
    size_t n_seen = 0;
    for (size_t i = 0; i < softmax->n_figures; i++) {
        attn_summary_figure *f = &softmax->figures[i];
        if (strcmp(f->name, "step_time_s") != 0) continue;
        n_seen++;
        f->low = f->median * (1 - 1.8e-5);
        f->high = f->median * (1 + 1.8e-5);
        char *text = table_of(&r, "time", false);
        assert_non_null(strstr(text, " <0.01    3770"));
        assert_narrow(text);
        free(text);
        f->low = f->high = f->median;
        text = table_of(&r, "time", false);
        assert_non_null(strstr(text, "  0    3770"));
        free(text);
    }
    assert_int_equal(n_seen, 1);
    synthetic_report_free(&r);
}

static void runs_as_lines(void **state)
{
    (void)state;
    char plan[] = "{\"mechanisms\": [\"a\", \"b\"], \"rounds\": 3}", none[] = "", title[] = "x";
    char long_title[] = "attnscope run --preset paper --mechanisms softmax,sdpa,flash";
    const attn_store_overview runs[] = {
        {.run = {.id = 1,
                 .created_utc = "2026-01-02T03:04:05Z",
                 .title = long_title,
                 .plan_json = plan,
                 .state = "interrupted"},
         .n_trials = {[ATTN_TRIAL_DONE] = 4, [ATTN_TRIAL_CRASHED] = 1}},
        {.run = {.id = 12,
                 .created_utc = "2026-01-02T03:04:05Z",
                 .title = title,
                 .plan_json = none,
                 .state = "done"},
         .n_trials = {[ATTN_TRIAL_DONE] = 1}},
    };
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    attn_report_runs(out, runs, 2);
    fclose(out);
    assert_text(text,
                " run  begun                 state         trials  called as\n"
                "   1  2026-01-02T03:04:05Z  interrupted      4/6  attnscope run --preset paper\n"
                "                                                  --mechanisms\n"
                "                                                  softmax,sdpa,flash\n"
                "  12  2026-01-02T03:04:05Z  done               1  x\n");
    assert_narrow(text);
    free(text);
    out = open_memstream(&text, &n);
    attn_report_runs(out, NULL, 0);
    fclose(out);
    assert_text(text, "no runs\n");
    free(text);
}

static void a_lack_of_memory_is_said(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){.rounds = 1});
    attn_error error = {0};
    FILE *out = fopen("/dev/null", "w");
    attn_memory_fail_at(1);
    assert_int_equal(attn_report_table(out, r.result, r.summary, "loss", false, &error),
                     ATTN_EMEMORY);
    attn_memory_fail_at(0);
    fclose(out);
    synthetic_report_free(&r);
}

static int make_store(const char *path)
{
    attn_error error = {0};
    attn_store *store = NULL;
    int64_t run = 0;
    attn_status status = attn_store_open(&store, path, ATTN_STORE_WRITE, &error);
    if (status == ATTN_OK)
        status = synthetic_run(store, &(synthetic_options){.rounds = 2, .steps = 5}, &run, &error);
    attn_store_close(store);
    if (status != ATTN_OK) fprintf(stderr, "%s\n", error.text);
    return status != ATTN_OK;
}

int main(int argc, char **argv)
{
    if (argc == 2) return make_store(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_as_a_table),          cmocka_unit_test(measured_energy_ranks),
        cmocka_unit_test(odd_runs_are_survived),     cmocka_unit_test(the_best_is_bold),
        cmocka_unit_test(small_spreads_stand_apart), cmocka_unit_test(runs_as_lines),
        cmocka_unit_test(a_lack_of_memory_is_said),
    };
    return cmocka_run_group_tests_name("report table", tests, scratch_folder_make,
                                       scratch_folder_remove);
}
