/* Logs of wall meters, written after the fact: what is read, what is refused and in which line, and
 * the shift between two clocks, known here, found again from steps of load. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "meters/meter_log.h"
#include "scratch_folder.h"

#include <math.h>

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != ATTN_OK) fail_msg("%s: %s", #call, error.text);                              \
    } while (0)

static const char *write_log(const char *text)
{
    const char *path = scratch_path("wall.csv");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* ---- reading ----------------------------------------------------------------------------- */

static void readings_are_read(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_meter_log log;
    assert_ok(attn_meter_log_read(
        &log, write_log("time,watts\n# begin\n100 50\n\n101,50\r\n102; 70\n103\t70 \n"), 5.0,
        &error));
    assert_int_equal(log.n, 4);
    assert_false(log.is_counter);
    assert_true(log.interval_s == 1.0 && log.time_s[0] == 105.0 && log.time_s[3] == 108.0);
    assert_int_equal(log.lines[2], 6);
    assert_int_equal(strlen(log.sha256), 64);
    char why[ATTN_FIGURE_TEXT_BYTES] = "";
    assert_true(fabs(attn_meter_log_energy(&log, 105.0, 108.0, why) - 180.0) < 1e-9);
    assert_true(fabs(attn_meter_log_energy(&log, 105.5, 107.5, why) - 120.0) < 1e-9);
    assert_string_equal(why, "");
    assert_true(isnan(attn_meter_log_energy(&log, 104.9, 107.0, why)));
    assert_non_null(strstr(why, "does not cover"));
    assert_true(isnan(attn_meter_log_energy(&log, 105.0, 108.1, why)));
    attn_meter_log_free(&log);

    /* Joules of its own count, whatever the watts say. */
    assert_ok(attn_meter_log_read(
        &log, write_log("100 50 7\n101 50 107\n102 50 207 more\n103 50 307\n"), 0.0, &error));
    assert_true(log.is_counter);
    assert_true(fabs(attn_meter_log_energy(&log, 100.5, 102.5, why) - 200.0) < 1e-9);
    attn_meter_log_free(&log);
}

static void bad_lines_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
        attn_status status;
    } cases[] = {
        {"1 50\n2 50\n2 50\n", ":3: its time is not behind", ATTN_EFORMAT},
        {"1 50\n3 50\n2.5 50\n", ":3: its time is not behind", ATTN_EFORMAT},
        {"t w\n1 50\nsoon 50\n", ":3: a line must be", ATTN_EFORMAT},
        {"1 50\n2\n3 50\n", ":2: a line must be", ATTN_EFORMAT},
        {"1 50\n2 50 ?\n3 50\n", ":2: a line must be", ATTN_EFORMAT},
        {"1 50\n2 nan\n3 50\n", ":2: the power is no number", ATTN_EFORMAT},
        {"1 50\n2 -1\n3 50\n", ":2: the power is no number", ATTN_EFORMAT},
        {"1 50\ninf 2\n3 50\n", ":2: the time is no number", ATTN_EFORMAT},
        {"1 50 1\n2 50\n3 50 3\n", ":2: it has no joules", ATTN_EFORMAT},
        {"1 50\n2 50 1\n3 50\n", ":2: it has joules", ATTN_EFORMAT},
        {"1 50 1\n2 50 -4\n3 50 3\n", ":2: the joules are no number", ATTN_EFORMAT},
        {"1 50\n2 50\n", "holds 2 readings", ATTN_EFORMAT},
        {"", "holds 0 readings", ATTN_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_error error = {0};
        attn_meter_log log;
        assert_int_equal(attn_meter_log_read(&log, write_log(cases[i].text), 0.0, &error),
                         cases[i].status);
        if (!strstr(error.text, cases[i].words) || !strstr(error.text, "wall.csv"))
            fail_msg("%s: %s", cases[i].words, error.text);
        attn_meter_log_free(&log); /* what was refused is empty */
    }
    char *text = malloc(2000);
    memset(text, '1', 1999);
    text[1999] = '\0';
    attn_error error = {0}, missing = {0};
    attn_meter_log log;
    assert_int_equal(attn_meter_log_read(&log, write_log(text), 0.0, &error), ATTN_EFORMAT);
    assert_non_null(strstr(error.text, ":1: the line is too long"));
    free(text);
    assert_int_equal(attn_meter_log_read(&log, scratch_path("absent.csv"), 0.0, &missing),
                     ATTN_ENOTFOUND);
}

static void gaps_and_resets_are_not_bridged(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_meter_log log;
    char why[ATTN_FIGURE_TEXT_BYTES] = "";
    assert_ok(attn_meter_log_read(&log, write_log("1 50\n2 50\n3 50\n4 50\n10 50\n11 50\n12 50\n"),
                                  0.0, &error));
    assert_true(isnan(attn_meter_log_energy(&log, 3.5, 10.5, why)));
    assert_string_equal(why, "the log of the meter has a gap of 6 s before line 5");
    assert_true(isnan(attn_meter_log_energy(&log, 5.0, 6.0, why)));
    assert_true(fabs(attn_meter_log_energy(&log, 10.0, 11.5, why) - 75.0) < 1e-9);
    assert_true(fabs(attn_meter_log_energy(&log, 1.0, 3.9, why) - 145.0) < 1e-9);
    attn_meter_log_free(&log);
    /* A counter goes on counting through a gap; one that falls was reset. */
    assert_ok(attn_meter_log_read(
        &log, write_log("1 50 1000\n2 50 1050\n3 50 1100\n10 50 1450\n11 50 3\n12 50 53\n"), 0.0,
        &error));
    assert_true(fabs(attn_meter_log_energy(&log, 2.0, 10.0, why) - 400.0) < 1e-9);
    assert_true(isnan(attn_meter_log_energy(&log, 2.0, 11.5, why)));
    assert_string_equal(why, "the joules of the meter fall in line 5 of its log");
    attn_meter_log_free(&log);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    attn_meter_log log;
    const char *path = write_log("1 50 1\n2 50 51\n3 50 101\n");
    const size_t before = attn_memory_live_blocks();
    attn_status status = ATTN_EMEMORY;
    for (size_t n = 1; status == ATTN_EMEMORY; n++) {
        attn_error error = {0};
        attn_memory_fail_at(n);
        status = attn_meter_log_read(&log, path, 0.0, &error);
        attn_memory_fail_at(0);
        if (status != ATTN_OK) assert_int_equal(attn_memory_live_blocks(), before);
    }
    assert_int_equal(status, ATTN_OK);
    attn_meter_log_free(&log);
    assert_int_equal(attn_memory_live_blocks(), before);
}

/* ---- clocks ------------------------------------------------------------------------------ */

#define BEGIN_S 1.76e9 /* of the run */
#define REST_W  80.0

/* Six trials of 20 s with 4 s of rest in between. */
enum { LOADS = 6 };

static void make_loads(attn_meter_load loads[LOADS], double work_s, double rest_s)
{
    for (int i = 0; i < LOADS; i++) {
        loads[i].begin_s = BEGIN_S + (work_s + rest_s) * i;
        loads[i].end_s = loads[i].begin_s + work_s;
    }
}

static double power_at(const attn_meter_load *loads, double time_s)
{
    for (int i = 0; i < LOADS; i++)
        if (time_s >= loads[i].begin_s && time_s < loads[i].end_s) return REST_W + 100.0 + 10.0 * i;
    return REST_W;
}

/* A log whose clock is `shift_s` ahead, every interval_s from from_s before the run. */
static void make_log(attn_meter_log *log, const attn_meter_load *loads, double shift_s,
                     double interval_s, double from_s, double to_s, double noise_w, bool is_flat)
{
    const char *path = scratch_path("made.csv");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    size_t n = 0;
    for (double t = loads[0].begin_s - from_s + 0.37 * interval_s;
         t < loads[LOADS - 1].end_s + to_s; t += interval_s) {
        const double noise = noise_w * (attn_random_uniform(7, 0, n++) - 0.5);
        fprintf(file, "%.6f %.4f\n", t + shift_s,
                fmax(0.0, (is_flat ? REST_W : power_at(loads, t)) + noise));
    }
    assert_int_equal(fclose(file), 0);
    attn_error error = {0};
    assert_ok(attn_meter_log_read(log, path, 0.0, &error));
}

static void shifts_are_found(void **state)
{
    (void)state;
    static const struct {
        double shift_s, interval_s, noise_w;
    } cases[] = {{0.0, 1.0, 0.0},   {7.3, 1.0, 20.0},   {-41.62, 1.0, 60.0}, {3.21, 0.1, 20.0},
                 {59.0, 0.5, 10.0}, {-0.4, 2.0, 100.0}, {12.0, 5.0, 20.0}};
    attn_meter_load loads[LOADS];
    make_loads(loads, 20.0, 4.0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_meter_log log;
        attn_meter_shift shift;
        attn_error error = {0};
        make_log(&log, loads, cases[i].shift_s, cases[i].interval_s, 20.0, 20.0, cases[i].noise_w,
                 false);
        const attn_status status = attn_meter_log_align(&log, loads, LOADS, &shift, &error);
        if (status != ATTN_OK) fail_msg("case %zu: %s", i, error.text);
        const double off_s = fabs(shift.shift_s - cases[i].shift_s);
        if (off_s > shift.within_s || off_s > cases[i].interval_s ||
            shift.within_s > 2.0 * cases[i].interval_s)
            fail_msg("case %zu: %g s within %g s, not %g s", i, shift.shift_s, shift.within_s,
                     cases[i].shift_s);
        assert_true(fabs(shift.step_w - 125.0) < 20.0);
        assert_true(shift.explained > (cases[i].noise_w < 50.0 ? 0.8 : 0.5));
        attn_meter_log_free(&log);
    }
}

/* In 200 logs with other phases and noise the stated bound holds in 95 %. */
static void bounds_hold(void **state)
{
    (void)state;
    enum { TRIES = 200 };
    attn_meter_load loads[LOADS];
    size_t n_held = 0;
    for (size_t i = 0; i < TRIES; i++) {
        make_loads(loads, 12.0 + attn_random_uniform(1, 1, i), 3.0);
        const double shift_s = 100.0 * attn_random_uniform(1, 2, i) - 50.0;
        attn_meter_log log;
        attn_meter_shift shift;
        attn_error error = {0};
        make_log(&log, loads, shift_s, 0.5 + attn_random_uniform(1, 3, i), 15.0, 15.0, 80.0, false);
        assert_ok(attn_meter_log_align(&log, loads, LOADS, &shift, &error));
        n_held += fabs(shift.shift_s - shift_s) <= shift.within_s;
        attn_meter_log_free(&log);
    }
    if (n_held < 190) fail_msg("%zu of %d", n_held, TRIES);
}

static void refuse(const attn_meter_log *log, const attn_meter_load *loads, size_t n_loads,
                   const char *words)
{
    attn_meter_shift shift;
    attn_error error = {0};
    if (attn_meter_log_align(log, loads, n_loads, &shift, &error) == ATTN_OK)
        fail_msg("'%s': %g s within %g s, %.3g explained", words, shift.shift_s, shift.within_s,
                 shift.explained);
    if (!strstr(error.text, words)) fail_msg("'%s' is not in: %s", words, error.text);
}

static void what_cannot_be_aligned_is_refused(void **state)
{
    (void)state;
    attn_meter_load loads[LOADS];
    attn_meter_log log;
    make_loads(loads, 20.0, 4.0);
    make_log(&log, loads, 4000.0, 1.0, 20.0, 20.0, 5.0, false); /* another hour */
    refuse(&log, loads, LOADS, "do not overlap: the log begins");
    refuse(&log, loads, LOADS, "--meter-offset");
    attn_meter_log_free(&log);
    make_log(&log, loads, -4000.0, 1.0, 20.0, 20.0, 5.0, false);
    refuse(&log, loads, LOADS, "do not overlap: the log ends");
    attn_meter_log_free(&log);
    make_log(&log, loads, 0.0, 1.0, 20.0, 20.0, 5.0, true); /* of another machine */
    refuse(&log, loads, LOADS, "does not follow the run");
    attn_meter_log_free(&log);
    make_log(&log, loads, 75.0, 1.0, 100.0, 100.0, 5.0, false); /* just out of reach */
    refuse(&log, loads, LOADS,
           "75 s ahead of this machine's: if that is so, say it with "
           "--meter-offset -75");
    attn_meter_log_free(&log);
    make_log(&log, loads, 140.0, 1.0, 200.0, 200.0, 5.0, false); /* some trials fit nearer by */
    refuse(&log, loads, LOADS, "--meter-offset");
    attn_meter_log_free(&log);
    /* One long load that began before the log and ended behind it: there is no step. */
    const attn_meter_load all[] = {{BEGIN_S, BEGIN_S + 500.0}};
    make_log(&log, loads, 0.0, 1.0, 0.0, 0.0, 5.0, true);
    refuse(&log, all, 1, "some seconds of rest before and behind");
    attn_meter_log_free(&log);
}

/* Loads that are all alike fit one period further nearly as well where the ends are not seen. */
static void shifts_that_fit_twice_are_refused(void **state)
{
    (void)state;
    attn_meter_load loads[LOADS], inner[2];
    attn_meter_log log;
    make_loads(loads, 10.0, 10.0);
    memcpy(inner, loads + 2, sizeof inner); /* the run; beside it others did the same */
    make_log(&log, loads, 0.0, 1.0, 60.0, 60.0, 200.0, false);
    refuse(&log, inner, 2, "");
    attn_meter_log_free(&log);
}

/* A meter that follows slowly: the steps are not sharp, and what it says is not certain. */
static void slow_meters_are_not_trusted(void **state)
{
    (void)state;
    attn_meter_load loads[LOADS];
    attn_meter_log log;
    make_loads(loads, 20.0, 10.0);
    make_log(&log, loads, 0.0, 0.1, 30.0, 30.0, 2.0, false);
    double shown_w = log.power_w[0];
    for (size_t i = 0; i < log.n; i++)
        log.power_w[i] = shown_w += 0.1 / 8.0 * (log.power_w[i] - shown_w);
    refuse(&log, loads, LOADS, "the shift of the log's clock is not certain: anything from");
    attn_meter_log_free(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readings_are_read),
        cmocka_unit_test(bad_lines_are_named),
        cmocka_unit_test(gaps_and_resets_are_not_bridged),
        cmocka_unit_test(memory_may_run_out),
        cmocka_unit_test(shifts_are_found),
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(what_cannot_be_aligned_is_refused),
        cmocka_unit_test(shifts_that_fit_twice_are_refused),
        cmocka_unit_test(slow_meters_are_not_trusted),
    };
    return cmocka_run_group_tests(tests, scratch_folder_make, scratch_folder_remove);
}
