/* Numbers as people read them. */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "report/format.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void digits_follow_the_spread(void **state)
{
    (void)state;
    assert_int_equal(attn_format_digits(118, 117, 119), 3);
    assert_int_equal(attn_format_digits(118, 100, 140), 2);
    assert_int_equal(attn_format_digits(118, 117.999, 118.001), 4); /* never more than 4 */
    assert_int_equal(attn_format_digits(1, -50, 50), 2);            /* never less than 2 */
    assert_int_equal(attn_format_digits(118, 118, 118), 4);
    assert_int_equal(attn_format_digits(118, NAN, NAN), 4);
    assert_int_equal(attn_format_digits(0, -1, 1), 4);
    assert_int_equal(attn_format_digits(NAN, 1, 2), 4);
}

static void numbers_are_rounded_once(void **state)
{
    (void)state;
    static const struct {
        double value;
        int digits;
        const char *text;
    } cases[] = {
        {118.26, 3, "118"},
        {4338, 3, "4340"},
        {0.012345, 3, "0.0123"},
        {999.7, 3, "1000"},
        {9.996, 3, "10.0"},
        {-2.5, 2, "-2.5"},
        {0, 3, "0"},
        {1.2e15, 2, "1.2e+15"},
        {1.5e-9, 2, "1.5e-09"},
        {1, 4, "1.000"},
        {NAN, 3, "nan"},
        {INFINITY, 3, "inf"},
        {-INFINITY, 3, "-inf"},
        {123456789, 9, "123456789"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(attn_format_number(cases[i].value, cases[i].digits).text,
                            cases[i].text);
}

static void columns_line_up(void **state)
{
    (void)state;
    assert_string_equal(attn_format_fixed(10.07, 2).text, "10.07");
    assert_string_equal(attn_format_fixed(9.966, 2).text, "9.97");
    assert_string_equal(attn_format_fixed(9.9961, 2).text, "10.00");
    assert_string_equal(attn_format_fixed(4338, -1).text, "4340");
    assert_string_equal(attn_format_fixed(0.00123, 1).text, "0.0012"); /* two digits at least */
    assert_string_equal(attn_format_fixed(0, 2).text, "0");
    assert_int_equal(attn_format_decimals(118.2, 3), 0);
    assert_int_equal(attn_format_decimals(4338, 3), -1);
    assert_int_equal(attn_format_decimals(0.5, 2), 2);
    assert_int_equal(attn_format_decimals(NAN, 2), 0);
}

static void counts_are_grouped(void **state)
{
    (void)state;
    assert_string_equal(attn_format_count(0, " ").text, "0");
    assert_string_equal(attn_format_count(9999, " ").text, "9999");
    assert_string_equal(attn_format_count(10000, " ").text, "10 000");
    assert_string_equal(attn_format_count(-1234567, ",").text, "-1,234,567");
    assert_string_equal(attn_format_count(123456, "").text, "123456");
    assert_string_equal(attn_format_count(1e300, " ").text, "1.000e+300");
}

static void prefixes_leave_one_to_999(void **state)
{
    (void)state;
    static const struct {
        double value;
        int digits;
        const char *unit, *text;
    } cases[] = {
        {0.11826, 3, "s", "118 ms"},
        {0.9996, 3, "s", "1.00 s"},
        {1.5e-6, 2, "s", "1.5 \xc2\xb5s"},
        {2e-12, 2, "s", "0.0020 ns"},
        {10.87e9, 4, "flop", "10.87 GFLOP"},
        {7087872, 3, "", "7.09 M"},
        {42, 2, "", "42"},
        {3769.5, 4, "1/s", "3770 1/s"},
        {0.25, 2, "nat", "0.25 nat"},
        {12, 3, "W", "12.0 W"},
        {3e25, 2, "J", "30000000 EJ"},
        {999, 3, "byte", "999 B"},
        {1000, 3, "byte", "0.977 KiB"},
        {258170265, 4, "byte", "246.2 MiB"},
        {0, 3, "byte", "0 B"},
        {0, 3, "J", "0 J"},
        {NAN, 3, "J", "nan"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(attn_format_si(cases[i].value, cases[i].digits, cases[i].unit).text,
                            cases[i].text);
    assert_string_equal(attn_format_range(0.118, 0.1171, 0.1189, "s").text, "117 to 119 ms");
    assert_string_equal(attn_format_range(4.042, 4.0394, 4.0441, "nat").text, "4.039 to 4.044 nat");
    assert_string_equal(attn_format_range(100, 98, 102, "").text, "98 to 102");
}

static void durations_are_spoken(void **state)
{
    (void)state;
    assert_string_equal(attn_format_duration(0.0123).text, "12.3 ms");
    assert_string_equal(attn_format_duration(59.9).text, "59.9 s");
    assert_string_equal(attn_format_duration(60).text, "1 min 0 s");
    assert_string_equal(attn_format_duration(192).text, "3 min 12 s");
    assert_string_equal(attn_format_duration(3725).text, "1 h 02 min");
    assert_string_equal(attn_format_duration(90000).text, "25 h 00 min");
    assert_string_equal(attn_format_duration(NAN).text, "nan");
}

static void long_texts_are_wrapped(void **state)
{
    (void)state;
    static const struct {
        const char *text, *wrapped;
        size_t start;
    } cases[] = {
        {"one two three four", "one two\n  three\n  four\n", 0},
        {"", "\n", 0},
        {"unbreakable-word x", "unbreakabl\n  e-word x\n", 0},
        {"a twelve-bytes", "a\n  twelve-b\n  ytes\n", 0},
        {"a\033[31mb\tc\nd", "a?[31mb c\n  d\n", 0},
        {"late start", "late\n  start\n", 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *caught = NULL;
        size_t n = 0;
        FILE *out = open_memstream(&caught, &n);
        attn_format_wrapped(out, cases[i].text, cases[i].start, 2, 10);
        fclose(out);
        assert_string_equal(caught, cases[i].wrapped);
        free(caught);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digits_follow_the_spread),  cmocka_unit_test(numbers_are_rounded_once),
        cmocka_unit_test(columns_line_up),           cmocka_unit_test(counts_are_grouped),
        cmocka_unit_test(prefixes_leave_one_to_999), cmocka_unit_test(durations_are_spoken),
        cmocka_unit_test(long_texts_are_wrapped),
    };
    return cmocka_run_group_tests_name("report format", tests, NULL, NULL);
}
