/* Readers of this process and of the system: on fake trees for every edge, on the real /proc for
 * the one promise that a fake cannot prove, that peaks rise and fall with memory. */
#include "fake_tree.h"

#include "base/memory.h"
#include "meters/process.h"
#include "meters/sysfs.h"
#include "meters/system_clock.h"

#include <errno.h>
#include <math.h>

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

static void memory_from_a_tree(void **state)
{
    (void)state;
    tree_write(root, "/proc/self/status",
               "Name:\ttest\nVmPeak:\t  999 kB\nVmHWM:\t    2172 kB\nVmRSS:\t    1000 kB\n");
    const attn_figure peak = attn_process_memory_peak(root);
    assert_string_equal(peak.name, "memory_peak_bytes");
    assert_string_equal(peak.unit, "byte");
    assert_int_equal(peak.provenance, ATTN_MEASURED);
    assert_true(peak.value == 2172.0 * 1024.0);
    assert_true(attn_process_memory_resident(root).value == 1000.0 * 1024.0);
}

static void memory_that_is_not_told(void **state)
{
    (void)state;
    attn_figure figure = attn_process_memory_peak(root);
    assert_int_equal(figure.provenance, ATTN_UNAVAILABLE);
    assert_true(isnan(figure.value));
    assert_non_null(strstr(figure.why, "No such file"));
    static const char *const texts[] = {"Name:\ttest\n", "VmHWM:\t\n", "VmHWM: -5 kB\n",
                                        "VmHWM: many kB\n", "xVmHWM: 5 kB\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        tree_write(root, "/proc/self/status", texts[i]);
        figure = attn_process_memory_peak(root);
        assert_int_equal(figure.provenance, ATTN_UNAVAILABLE);
        assert_string_equal(figure.why, "/proc/self/status has no number for VmHWM");
    }
}

static void peak_resets_on_request(void **state)
{
    (void)state;
    attn_error error = {0};
    tree_write(root, "/proc/self/clear_refs", "");
    assert_int_equal(attn_process_memory_reset_peak(root, &error), ATTN_OK);
    char text[8];
    assert_int_equal(attn_sysfs_read(root, "/proc/self/clear_refs", text, sizeof text), 0);
    assert_string_equal(text, "5");
    assert_int_equal(attn_process_memory_reset_peak("/nowhere", &error), ATTN_EIO);
    assert_non_null(strstr(error.text, "/nowhere/proc/self/clear_refs"));
    assert_non_null(strstr(error.text, "whole life of the process"));
}

static void real_peak_rises_and_falls(void **state)
{
    (void)state;
    attn_error error = {0};
    if (attn_process_memory_reset_peak("", &error) != ATTN_OK) skip();
    const double before = attn_process_memory_peak("").value;
    const size_t size_bytes = (size_t)64 << 20;
    char *block = attn_alloc(ATTN_MEMORY_OTHER, size_bytes);
    assert_non_null(block);
    for (size_t i = 0; i < size_bytes; i += 4096) block[i] = 1;
    const double with = attn_process_memory_peak("").value;
    attn_free(block);
    assert_true(attn_process_memory_peak("").value > with - 1e6);
    assert_int_equal(attn_process_memory_reset_peak("", &error), ATTN_OK);
    const double after = attn_process_memory_peak("").value;
    assert_true(with - before > 48e6);
    assert_true(with - after > 48e6);
}

static void counts_between_two_marks(void **state)
{
    (void)state;
    tree_write(root, "/proc/self/io",
               "rchar: 9\nread_bytes: 4096\nwrite_bytes: 100\n"
               "cancelled_write_bytes: 7\n");
    tree_write(root, "/proc/stat", "cpu  100 0 50 800 10 0 5 35 0 0\ncpu0 1 1 1\n");
    const attn_process_mark begin = attn_process_mark_now(root);
    tree_write(root, "/proc/self/io", "rchar: 9\nread_bytes: 12288\nwrite_bytes: 100\n");
    tree_write(root, "/proc/stat", "cpu  150 0 60 830 10 0 5 45 0 0\ncpu0 1 1 1\n");
    const attn_process_mark end = attn_process_mark_now(root);
    attn_figure figures[ATTN_PROCESS_FIGURES];
    attn_process_between(&begin, &end, figures);
    assert_string_equal(figures[ATTN_PROCESS_READ_BYTES].name, "disk_read_bytes");
    assert_int_equal(figures[ATTN_PROCESS_READ_BYTES].provenance, ATTN_COUNTED);
    assert_true(figures[ATTN_PROCESS_READ_BYTES].value == 8192.0);
    assert_true(figures[ATTN_PROCESS_WRITE_BYTES].value == 0.0); /* counted, so 0 is a finding */
    assert_true(fabs(figures[ATTN_PROCESS_STEAL].value - 0.1) < 1e-12);
    assert_true(figures[ATTN_PROCESS_MINOR_FAULTS].value >= 0.0);
    /* The other way round nothing is known. */
    attn_process_between(&end, &begin, figures);
    assert_int_equal(figures[ATTN_PROCESS_READ_BYTES].provenance, ATTN_UNAVAILABLE);
    assert_int_equal(figures[ATTN_PROCESS_STEAL].provenance, ATTN_UNAVAILABLE);
}

static void heat_is_counted(void **state)
{
    (void)state;
#define THROTTLE "/sys/devices/system/cpu/cpu%d/thermal_throttle/"
    attn_figure figures[ATTN_PROCESS_FIGURES];
    const attn_figure *heat = &figures[ATTN_PROCESS_THROTTLES];
    attn_process_mark begin = attn_process_mark_now(root);
    attn_process_between(&begin, &begin, figures);
    assert_int_equal(heat->provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(heat->why, "no processor tells"));

    char path[128];
    tree_write(root, "/sys/devices/system/cpu/online", "0-1\n");
    for (int core = 0; core < 2; core++) {
        snprintf(path, sizeof path, THROTTLE "core_throttle_count", core);
        tree_write(root, path, "5\n");
    }
    begin = attn_process_mark_now(root);
    attn_process_between(&begin, &begin, figures);
    assert_string_equal(heat->name, "thermal_throttles");
    assert_int_equal(heat->provenance, ATTN_COUNTED);
    assert_true(heat->value == 0.0);
    assert_string_equal(heat->why, "");

    tree_write(root, path, "7\n");
    snprintf(path, sizeof path, THROTTLE "package_throttle_count", 1);
    tree_write(root, path, "1\n");
    const attn_process_mark end = attn_process_mark_now(root);
    attn_process_between(&begin, &end, figures);
    assert_true(heat->value == 3.0);
    assert_non_null(strstr(heat->why, "slowed itself down for heat"));
    attn_process_between(&end, &begin, figures);
    assert_int_equal(heat->provenance, ATTN_UNAVAILABLE);
    tree_write(root, path, "much\n");
    begin = attn_process_mark_now(root);
    assert_int_equal(begin.throttle_problem, EBADMSG);
}

static void counts_that_are_not_told(void **state)
{
    (void)state;
    attn_figure figures[ATTN_PROCESS_FIGURES];
    attn_process_mark mark = attn_process_mark_now(root);
    attn_process_between(&mark, &mark, figures);
    assert_int_equal(figures[ATTN_PROCESS_READ_BYTES].provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(figures[ATTN_PROCESS_READ_BYTES].why, "CONFIG_TASK_IO_ACCOUNTING"));
    assert_int_equal(figures[ATTN_PROCESS_STEAL].provenance, ATTN_UNAVAILABLE);
    assert_int_equal(figures[ATTN_PROCESS_MINOR_FAULTS].provenance, ATTN_COUNTED);

    tree_write(root, "/proc/self/io", "read_bytes: none\n");
    tree_write(root, "/proc/stat", "cpu 1 2 3\n");
    mark = attn_process_mark_now(root);
    assert_int_equal(mark.io_problem, EBADMSG);
    assert_int_equal(mark.steal_problem, EBADMSG);
    mark.io_problem = EACCES;
    attn_process_between(&mark, &mark, figures);
    assert_non_null(strstr(figures[ATTN_PROCESS_WRITE_BYTES].why, "Permission denied"));
}

static void real_faults_are_seen(void **state)
{
    (void)state;
    const attn_process_mark begin = attn_process_mark_now("");
    char *block = attn_alloc(ATTN_MEMORY_OTHER, (size_t)8 << 20);
    assert_non_null(block);
    for (size_t i = 0; i < (size_t)8 << 20; i += 4096) block[i] = 1;
    const attn_process_mark end = attn_process_mark_now("");
    attn_free(block);
    attn_figure figures[ATTN_PROCESS_FIGURES];
    attn_process_between(&begin, &end, figures);
    assert_true(figures[ATTN_PROCESS_MINOR_FAULTS].value >= 4.0); /* huge pages: one per 2 MiB */
}

static void load(void **state)
{
    (void)state;
    assert_int_equal(attn_system_load(root).provenance, ATTN_UNAVAILABLE);
    tree_write(root, "/proc/loadavg", "1.25 0.50 0.10 1/100 1234\n");
    assert_true(attn_system_load(root).value == 1.25);
    tree_write(root, "/proc/loadavg", "high\n");
    assert_int_equal(attn_system_load(root).provenance, ATTN_UNAVAILABLE);
}

static void small_files(void **state)
{
    (void)state;
    char text[8];
    uint64_t value = 0;
    assert_int_equal(attn_sysfs_read(root, "/absent", text, sizeof text), ENOENT);
    assert_string_equal(text, "");
    tree_write(root, "/sys/long", "0123456789\n");
    assert_int_equal(attn_sysfs_read(root, "/sys/long", text, sizeof text), 0);
    assert_string_equal(text, "0123456");
    tree_write(root, "/sys/empty", " \n");
    assert_int_equal(attn_sysfs_read(root, "/sys/empty", text, sizeof text), ENODATA);
    assert_int_equal(attn_sysfs_read(root, "/sys", text, sizeof text), EISDIR);
    tree_write(root, "/sys/number", "18446744073709551615\n");
    assert_int_equal(attn_sysfs_read_number(root, "/sys/number", &value), 0);
    assert_true(value == UINT64_MAX);
    assert_false(attn_sysfs_parse_number("18446744073709551616", &value));
    assert_false(attn_sysfs_parse_number("+1", &value));
    assert_false(attn_sysfs_parse_number("", &value));
    assert_true(attn_sysfs_parse_number(" 7 \n", &value) && value == 7);
    char found[8];
    assert_true(attn_sysfs_find("A=1\nNAME=\"Debian\"\n", "NAME", found, sizeof found));
    assert_string_equal(found, "Debian");
    assert_false(attn_sysfs_find("model name : x\n", "model", found, sizeof found));
    assert_true(attn_sysfs_has_word("sse avx512f fma", "fma"));
    assert_false(attn_sysfs_has_word("sse avx512f fma4", "avx512"));
    assert_int_equal(attn_sysfs_count_list("0-3,8,10-11"), 7);
    assert_int_equal(attn_sysfs_count_list(""), 0);
}

static void clocks(void **state)
{
    (void)state;
    const double cpu_s = attn_clock_cpu_s();
    volatile double sum = 0.0;
    for (int i = 0; i < 2000000; i++) sum = sum + 1.0;
    const double spent_s = attn_clock_cpu_s() - cpu_s;
    assert_true(spent_s > 0.0 && spent_s < 10.0);
    const double suspended_s = attn_clock_suspended_s();
    assert_true(fabs(attn_clock_suspended_s() - suspended_s) < 1e-3);
    char utc[ATTN_CLOCK_UTC_BYTES];
    attn_clock_utc(utc);
    int year, month, day, hour, minute, second;
    char zone;
    assert_int_equal(sscanf(utc, "%4d-%2d-%2dT%2d:%2d:%2d%c", &year, &month, &day, &hour, &minute,
                            &second, &zone),
                     7);
    assert_int_equal(strlen(utc), 20);
    assert_true(year >= 2024 && zone == 'Z');
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(memory_from_a_tree),
        CASE(memory_that_is_not_told),
        CASE(peak_resets_on_request),
        CASE(real_peak_rises_and_falls),
        CASE(counts_between_two_marks),
        CASE(heat_is_counted),
        CASE(counts_that_are_not_told),
        CASE(real_faults_are_seen),
        CASE(load),
        CASE(small_files),
        CASE(clocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
