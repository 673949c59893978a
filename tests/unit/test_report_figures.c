/* Figures for papers: their data, their scripts, and what is not drawn. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "files/text_file.h"
#include "report/figures.h"
#include "synthetic_result.h"

#include <sys/stat.h>

static char *text_of(const char *name)
{
    attn_error error = {0};
    char *text = NULL;
    const attn_status status = attn_text_file_read(scratch_path(name), &text, NULL, &error);
    if (status != ATTN_OK) print_error("%s\n", error.text);
    assert_int_equal(status, ATTN_OK);
    return text;
}

static bool is_there(const char *name)
{
    return access(scratch_path(name), F_OK) == 0;
}

static attn_figures write_all(const synthetic_report *r)
{
    attn_error error = {0};
    attn_figures made;
    const attn_status status = attn_figures_write(scratch_folder, r->summary, &made, &error);
    if (status != ATTN_OK) print_error("%s\n", error.text);
    assert_int_equal(status, ATTN_OK);
    return made;
}

static size_t occurrences(const char *text, const char *wanted)
{
    size_t n = 0;
    for (; (text = strstr(text, wanted)); text += strlen(wanted)) n++;
    return n;
}

static void data_are_those_of_the_run(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){.has_energy = true});
    const attn_figures made = write_all(&r);
    assert_int_equal(made.n, 8);
    for (size_t i = 0; i < made.n; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.gp", made.names[i]);
        char *script = text_of(name);
        assert_int_equal(occurrences(script, "set output '"), 2);
        attn_free(script);
    }
    char *loss = text_of("loss.tsv");
    assert_int_equal(occurrences(loss, "# softmax, training\n"), 1);
    assert_int_equal(occurrences(loss, "held-out\n"), 6);
    attn_free(loss);
    /* Every number of the bars comes back. */
    char *time = text_of("time.tsv");
    const char *row = strstr(time, "\nflash\t");
    double forward = 0, backward = 0, optimizer = 0, data = 0, step = 0, low = 0, high = 0;
    assert_non_null(row);
    assert_int_equal(sscanf(row, "\nflash\t%lf\t%lf\t%lf\t%lf\t%lf\t%lf\t%lf", &forward, &backward,
                            &optimizer, &data, &step, &low, &high),
                     7);
    const attn_summary_mechanism *flash = &r.summary->mechanisms[2];
    assert_true(fabs(forward - 1e3 * attn_summary_value(flash, "forward_time_s")) < 1e-6);
    assert_true(fabs(data - 1e3 * attn_summary_value(flash, "data_time_s")) < 1e-6);
    assert_true(fabs(step - 1e3 * attn_summary_value(flash, "step_time_s")) < 1e-6);
    assert_true(fabs(low - 1e3 * attn_summary_find(flash, "step_time_s")->low) < 1e-6);
    assert_true(low < step && step < high);
    assert_non_null(strstr(time, "# step_time_s: measured, CLOCK_MONOTONIC_RAW; range over 3"));
    attn_free(time);
    synthetic_report_free(&r);
}

/* gnuplot counts blocks that have a row, and scripts count blocks. */
static void blocks_keep_their_numbers(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 4});
    r.result->trials[1].n_evaluations = 0; /* of sdpa */
    write_all(&r);
    char *loss = text_of("loss.tsv"), *script = text_of("loss-steps.gp");
    size_t n_blocks = 0, gqa = 0;
    bool has_row = false, is_held_out_of_gqa = false;
    for (char *line = strtok(loss, "\n"); line; line = strtok(NULL, "\n")) {
        if (line[0] != '#') {
            if (!has_row && is_held_out_of_gqa) gqa = n_blocks;
            n_blocks += !has_row;
            has_row = true;
            continue;
        }
        if (strncmp(line, "# step", 6) != 0) has_row = false;
        if (strchr(line, ',')) is_held_out_of_gqa = strcmp(line, "# gqa, held-out") == 0;
    }
    assert_int_equal(n_blocks, 12);
    assert_int_equal(gqa, 7);
    assert_non_null(strstr(script, "index 7 using 1:5 with linespoints lc rgb '#791c5c' dt 3 pt 13 "
                                   "title 'gqa'"));
    attn_free(loss);
    attn_free(script);
    synthetic_report_free(&r);
}

/* Lowest on the list is the front: by rising cost, losses fall; what sees the future is not on. */
static void the_front_competes(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){.has_energy = true});
    for (int pass = 0; pass < 2; pass++) {
        r.summary->mechanisms[3].sees_future = pass == 1; /* gqa, the fastest */
        write_all(&r);
        char *pareto = text_of("pareto-seconds.tsv");
        const char *front = strstr(pareto, "# none beats these in both\n");
        assert_non_null(front);
        assert_int_equal(occurrences(pareto, "# gqa"), 1);
        double cost = 0, loss = 0, cost_before = 0, loss_before = 0;
        int used = 0;
        size_t n = 0;
        bool has_gqa = false;
        const double gqa = attn_summary_value(&r.summary->mechanisms[3], "train_time_s");
        for (front = strchr(front, '\n') + 1;
             sscanf(front, "%lf\t%lf\n%n", &cost, &loss, &used) == 2; front += used, n++) {
            has_gqa |= fabs(cost - gqa) < 1e-6;
            assert_true(n == 0 || (cost > cost_before && loss < loss_before));
            cost_before = cost;
            loss_before = loss;
        }
        assert_true(n > 0);
        assert_int_equal(has_gqa, pass == 0);
        attn_free(pareto);
        char *script = text_of("pareto-seconds.gp");
        assert_int_equal(occurrences(script, "(sees the future)"), pass);
        attn_free(script);
    }
    synthetic_report_free(&r);
}

/* Energy that nobody measured has no figure, and none that lay there from before stays. */
static void no_energy_no_figure(void **state)
{
    (void)state;
    synthetic_report with = synthetic_report_make(&(synthetic_options){.has_energy = true});
    synthetic_report without = synthetic_report_make(&(synthetic_options){0});
    write_all(&with);
    assert_true(is_there("loss-joules.gp") && is_there("pareto-joules.tsv"));
    FILE *old = fopen(scratch_path("pareto-joules.pdf"), "w");
    fclose(old);
    const attn_figures made = write_all(&without);
    assert_int_equal(made.n, 6);
    assert_false(is_there("loss-joules.gp") || is_there("pareto-joules.gp") ||
                 is_there("pareto-joules.tsv") || is_there("pareto-joules.pdf"));
    assert_true(is_there("loss-steps.gp") && is_there("memory.gp"));
    /* Nor has a model one. */
    for (size_t i = 0; i < with.summary->n_mechanisms; i++)
        for (size_t f = 0; f < with.summary->mechanisms[i].n_figures; f++)
            if (strcmp(with.summary->mechanisms[i].figures[f].name, "energy_cpu_package_j") == 0)
                with.summary->mechanisms[i].figures[f].provenance = ATTN_MODELLED;
    write_all(&with);
    assert_false(is_there("pareto-joules.gp"));
    synthetic_report_free(&with);
    synthetic_report_free(&without);
}

/* gnuplot runs what stands in backquotes, and quotes end a string. */
static void names_cannot_command(void **state)
{
    (void)state;
    synthetic_report r =
        synthetic_report_make(&(synthetic_options){.first_name = "a'`id`\"$x\\\n!b", .steps = 2});
    const attn_figures made = write_all(&r);
    for (size_t i = 0; i < made.n; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.gp", made.names[i]);
        char *script = text_of(name);
        assert_null(strchr(script, '`'));
        assert_null(strchr(script, '!'));
        assert_null(strchr(script, '"'));
        assert_int_equal(occurrences(script, "'") % 2, 0);
        attn_free(script);
    }
    char *script = text_of("loss-steps.gp");
    assert_non_null(strstr(script, "title 'a??id???x???b'"));
    attn_free(script);
    synthetic_report_free(&r);
}

static void failures_are_said(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){.steps = 2, .rounds = 1});
    attn_error error = {0};
    attn_figures made;
    assert_int_equal(attn_figures_write(scratch_path("no/where"), r.summary, &made, &error),
                     ATTN_EIO);
    assert_non_null(strstr(error.text, "cannot make the folder '"));
    error = (attn_error){0};
    FILE *file = fopen(scratch_path("file"), "w");
    fclose(file);
    assert_int_equal(attn_figures_write(scratch_path("file"), r.summary, &made, &error), ATTN_EIO);
    assert_non_null(strstr(error.text, "Not a directory"));
    /* A full disk. */
    error = (attn_error){0};
    assert_int_equal(symlink("/dev/full", scratch_path("time.tsv.part")), 0);
    assert_int_equal(attn_figures_write(scratch_folder, r.summary, &made, &error), ATTN_EIO);
    assert_non_null(strstr(error.text, "No space left"));
    assert_false(is_there("time.tsv"));

    size_t n = 1;
    for (bool is_done = false; !is_done; n++) {
        error = (attn_error){0};
        attn_memory_fail_at(n);
        const attn_status status = attn_figures_write(scratch_folder, r.summary, &made, &error);
        attn_memory_fail_at(0);
        is_done = status == ATTN_OK;
        assert_true(is_done || status == ATTN_EMEMORY);
    }
    assert_true(n > 20);

    for (size_t i = 0; i < r.result->n_trials; i++) r.result->trials[i].state = ATTN_TRIAL_CRASHED;
    attn_summary *nothing = NULL;
    error = (attn_error){0};
    assert_int_equal(attn_summary_make(r.result, &nothing, &error), ATTN_OK);
    assert_int_equal(attn_figures_write(scratch_folder, nothing, &made, &error), ATTN_EUNSUPPORTED);
    assert_false(is_there("loss-steps.gp"));
    attn_summary_free(nothing);
    synthetic_report_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_are_those_of_the_run), cmocka_unit_test(the_front_competes),
        cmocka_unit_test(blocks_keep_their_numbers), cmocka_unit_test(no_energy_no_figure),
        cmocka_unit_test(names_cannot_command),      cmocka_unit_test(failures_are_said),
    };
    return cmocka_run_group_tests_name("report figures", tests, scratch_folder_make,
                                       scratch_folder_remove);
}
