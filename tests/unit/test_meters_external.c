/* Wall meters: commands, growing files and the board controller, with lines as they come in life:
 * late, repeated, out of order, no numbers, none at all. Time is real here; windows are short. */
#include "fake_tree.h"

#include "base/clock.h"
#include "base/memory.h"
#include "meters/energy.h"

#include <math.h>
#include <time.h>

static char root[TREE_PATH_BYTES];

static int set_up(void **state)
{
    (void)state;
    tree_make(root);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tree_remove(root);
    return 0;
}

static attn_status open_meter(attn_energy_meter **meter, attn_energy_options options,
                              attn_error *error)
{
    static const attn_energy_operations *const sources[] = {&attn_energy_external,
                                                            &attn_energy_dcmi};
    options.sources = sources;
    options.n_sources = 2;
    options.probe_s = 0.01;
    options.period_s = 0.02;
    return attn_energy_open(meter, &options, error);
}

static void sleep_s(double seconds)
{
    const struct timespec wait = {.tv_sec = (time_t)seconds,
                                  .tv_nsec = (long)(1e9 * (seconds - floor(seconds)))};
    nanosleep(&wait, NULL);
}

static attn_figure figures[ATTN_ENERGY_FIGURES];

static const attn_figure *watch(attn_energy_meter *meter, double seconds)
{
    static attn_energy_snapshot begin, end;
    attn_error error = {0};
    assert_int_equal(attn_energy_start(meter, &error), ATTN_OK);
    attn_energy_mark(meter, &begin);
    sleep_s(seconds);
    attn_energy_mark(meter, &end);
    attn_energy_stop(meter);
    attn_energy_between(meter, &begin, &end, figures);
    const double window_s = (double)(end.time_ns - begin.time_ns) * 1e-9;
    attn_figure *system = &figures[ATTN_ENERGY_FIGURE_SYSTEM];
    if (system->provenance != ATTN_UNAVAILABLE) system->value /= window_s; /* watts, here */
    return system;
}

static void commands_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        double watts;
    } cases[] = {
        {"echo \"$now 100\"", 100.0},
        {"echo 'time,watts'; echo \"$now,100.5\"; echo \"$now,999\"", 100.5}, /* repeated */
        {"echo \"$now 100\"; echo '5 7000'; echo \"$((${now%.*} + 1)).5 nan\"; echo nonsense; "
         "echo \"$now -4\"",
         100.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char command[400];
        snprintf(command, sizeof command, "while :; do now=$(date +%%s.%%N); %s; sleep 0.05; done",
                 cases[i].format);
        attn_energy_meter *meter = NULL;
        attn_error error = {0};
        if (open_meter(&meter, (attn_energy_options){.command = command}, &error) != ATTN_OK)
            fail_msg("%s", error.text);
        /* A second is the least that the meter believes such a device to need. */
        const attn_figure *power = watch(meter, 1.3);
        if (power->provenance != ATTN_INTEGRATED) fail_msg("%s", power->why);
        assert_true(fabs(power->value - cases[i].watts) < 1.0);
        assert_non_null(strstr(power->source, "while :"));
        attn_energy_close(meter);
    }
}

static void joules_count_and_watts_check(void **state)
{
    (void)state;
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    static const char command[] =
        "first=$(date +%s%N); while :; do now=$(date +%s%N); "
        "echo \"${now%?????????}.${now#??????????} 200 $(((now - first) / 5000000))\"; "
        "sleep 0.02; done"; /* 200 J a second, however slow this machine is now */
    assert_int_equal(open_meter(&meter, (attn_energy_options){.command = command}, &error), 0);
    const attn_energy_source *source = attn_energy_source_at(meter, 0);
    assert_int_equal(source->n_channels, 2);
    assert_int_equal(source->channels[1].twin_of, 0);
    assert_true(attn_energy_is_counted(meter, source, 0));
    assert_false(attn_energy_is_counted(meter, source, 1));
    const attn_figure *power = watch(meter, 2.0);
    if (power->provenance != ATTN_MEASURED) fail_msg("%s", power->why);
    assert_true(power->value > 100.0 && power->value < 300.0); /* lines are late when it is busy */
    attn_energy_close(meter);
}

static void meters_that_fall_silent_are_silent(void **state)
{
    (void)state;
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    /* Its last line is old by the time of the mark: 7 s in the past, with half a second between. */
    static const char command[] = "now=$(date +%s); echo \"$now 50\"; exit 0";
    assert_int_equal(open_meter(&meter, (attn_energy_options){.command = command}, &error), 0);
    sleep_s(6.2);
    assert_int_equal(watch(meter, 0.1)->provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_SYSTEM].why, "nothing to say"));
    attn_energy_close(meter);
}

static void wrong_meters_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *command, *words;
    } cases[] = {
        {"exit 1", "gave no line"},
        {"echo hello", "gave no line"},
        {"echo \"$(date +%s) nan\"", "gives no numbers of watts"},
        {"echo \"$(($(date +%s) - 100)) 40\"", "s behind ours"},
        {"echo \"$(($(date +%s) + 100)) 40\"", "s ahead of ours"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_energy_meter *meter = NULL;
        attn_error error = {0};
        const attn_energy_options options = {.command = cases[i].command};
        assert_int_not_equal(open_meter(&meter, options, &error), ATTN_OK);
        if (!strstr(error.text, cases[i].words)) fail_msg("'%s'", error.text);
        assert_null(meter);
    }
}

static void files_may_grow(void **state)
{
    (void)state;
    char path[TREE_PATH_BYTES], command[2 * TREE_PATH_BYTES];
    snprintf(path, sizeof path, "%.200s/meter.csv", root);
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    assert_int_equal(open_meter(&meter, (attn_energy_options){.csv = path}, &error), ATTN_EIO);
    tree_write(root, "/meter.csv", "time,watts\n");
    error = (attn_error){0};
    assert_int_equal(open_meter(&meter, (attn_energy_options){.csv = path}, &error), ATTN_EIO);
    /* Its clock is an hour behind, which the user says. */
    snprintf(command, sizeof command,
             "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27; do "
             "now=$(date +%%s.%%N); echo \"$((${now%%.*} - 3600)).${now#*.},80\" >>'%.200s'; "
             "sleep 0.1; done &",
             path);
    assert_int_equal(system(command), 0);
    sleep_s(0.5);
    error = (attn_error){0};
    assert_int_equal(open_meter(&meter, (attn_energy_options){.csv = path}, &error),
                     ATTN_EARGUMENT);
    const char *offset = strstr(error.text, "--meter-offset ");
    assert_non_null(offset);
    assert_true(fabs(strtod(offset + strlen("--meter-offset "), NULL) - 3600.0) < 10.0);
    const attn_energy_options options = {.csv = path, .csv_offset_s = 3600.0};
    error = (attn_error){0};
    if (open_meter(&meter, options, &error) != ATTN_OK) fail_msg("%s", error.text);
    const attn_figure *power = watch(meter, 1.2);
    if (power->provenance != ATTN_INTEGRATED) fail_msg("%s", power->why);
    assert_true(fabs(power->value - 80.0) < 0.5);
    attn_energy_close(meter);
    sleep_s(1.5); /* the writer ends before its folder goes */
}

/* A tool that stands first in the path, and prints what ipmitool prints. */
static void board_controllers_are_asked(void **state)
{
    (void)state;
    static const char *const tools[][2] = {
        {"/ipmitool", "#!/bin/sh\n[ \"$*\" = 'dcmi power reading' ] || exit 2\necho\n"
                      "echo '    Instantaneous power reading:                   212 Watts'\n"
                      "echo '    Minimum during sampling period:                  9 Watts'\n"
                      "echo '    IPMI timestamp:                           Thu Jan  1 00:00:20'\n"},
        {"/ipmi-dcmi", "#!/bin/sh\necho 'Current Power                        : 212 Watts'\n"
                       "echo 'Minimum Power over sampling duration : 9 watts'\n"},
    };
    char *before = attn_strdup(getenv("PATH"));
    for (size_t i = 0; i < 2; i++) {
        char path[TREE_PATH_BYTES], search[4096];
        tree_write(root, tools[i][0], tools[i][1]);
        snprintf(path, sizeof path, "%.200s%s", root, tools[i][0]);
        assert_int_equal(chmod(path, 0755), 0);
        snprintf(search, sizeof search, "%.200s:/usr/bin:/bin", root);
        setenv("PATH", search, 1);
        attn_energy_meter *meter = NULL;
        attn_error error = {0};
        assert_int_equal(open_meter(&meter, (attn_energy_options){.uses_dcmi = true}, &error), 0);
        assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, 1);
        const attn_figure *power = watch(meter, 1.3);
        if (power->provenance != ATTN_INTEGRATED) fail_msg("%s", power->why);
        assert_true(fabs(power->value - 212.0) < 0.01);
        assert_true(power->has_interval); /* a second's meter needs 100 s for 1 % */
        attn_energy_close(meter);
        remove(path);
    }
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    assert_int_equal(open_meter(&meter, (attn_energy_options){.uses_dcmi = true}, &error), 0);
    assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, 0);
    assert_non_null(strstr(attn_energy_source_at(meter, 0)->fix, "apt-get install ipmitool"));
    attn_energy_close(meter);
    setenv("PATH", before, 1);
    attn_free(before);
}

/* A process that has ended may wait in the table for whoever adopted it. */
static bool is_running(int process)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", process);
    FILE *file = fopen(path, "r");
    if (!file) return false;
    const bool is_read = fgets(text, sizeof text, file) != NULL;
    fclose(file);
    const char *name_end = strrchr(text, ')');
    return is_read && name_end && name_end[2] != 'Z';
}

/* Nothing of a closed meter goes on: its group is ended, whatever it waits for. */
static void closed_meters_leave_no_process(void **state)
{
    (void)state;
    char command[2 * TREE_PATH_BYTES], path[TREE_PATH_BYTES], text[32] = "";
    snprintf(path, sizeof path, "%.200s/pid", root);
    snprintf(command, sizeof command,
             "sleep 600 & echo $! >'%.200s'; echo \"$(date +%%s.%%N) 1\"; trap '' TERM; wait",
             path);
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    assert_int_equal(open_meter(&meter, (attn_energy_options){.command = command}, &error), 0);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    assert_true(is_running(atoi(text)));
    attn_energy_close(meter);
    sleep_s(0.1);
    assert_false(is_running(atoi(text)));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(commands_are_read),
        CASE(joules_count_and_watts_check),
        CASE(meters_that_fall_silent_are_silent),
        CASE(wrong_meters_are_refused),
        CASE(files_may_grow),
        CASE(board_controllers_are_asked),
        CASE(closed_meters_leave_no_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
