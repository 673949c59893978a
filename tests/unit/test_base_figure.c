/* Figures and the names of provenance. */
#include "base/figure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void names_and_values_match(void **state)
{
    (void)state;
    for (int i = 0; i < ATTN_PROVENANCES; i++)
        assert_int_equal(attn_provenance_parse(attn_provenance_name((attn_provenance)i)), i);
    assert_int_equal(attn_provenance_parse("Measured"), ATTN_PROVENANCES);
    assert_int_equal(attn_provenance_parse(""), ATTN_PROVENANCES);
    assert_string_equal(attn_provenance_name(ATTN_PROVENANCES), "unknown");
}

static void a_figure_keeps_what_it_is_given(void **state)
{
    (void)state;
    const attn_figure figure =
        attn_figure_make("train_time_s", "s", 1.25, ATTN_MEASURED, "CLOCK_MONOTONIC_RAW");
    assert_string_equal(figure.name, "train_time_s");
    assert_string_equal(figure.unit, "s");
    assert_true(figure.value == 1.25);
    assert_int_equal(figure.provenance, ATTN_MEASURED);
    assert_false(figure.has_interval);
    assert_true(isnan(figure.low) && isnan(figure.high));
    assert_string_equal(figure.source, "CLOCK_MONOTONIC_RAW");
    assert_string_equal(figure.why, "");
}

static void what_is_unavailable_is_not_zero(void **state)
{
    (void)state;
    const attn_figure figure =
        attn_figure_unavailable("energy_cpu_package_j", "J", "powercap", "no counter; run as root");
    assert_true(isnan(figure.value));
    assert_int_equal(figure.provenance, ATTN_UNAVAILABLE);
    assert_string_equal(figure.why, "no counter; run as root");
}

/* Cut to the field, and never inside a character: such text could not be stored as JSON. */
static void long_texts_are_cut(void **state)
{
    (void)state;
    char longer[2 * ATTN_FIGURE_TEXT_BYTES];
    for (size_t shift = 0; shift < 2; shift++) {
        memset(longer, 'x', shift);
        for (size_t at = shift; at + 3 < sizeof longer; at += 2) memcpy(longer + at, "\xc2\xb5", 3);
        const attn_figure figure = attn_figure_unavailable(longer, longer, longer, longer);
        const struct {
            const char *text;
            size_t room;
        } fields[] = {{figure.name, sizeof figure.name},
                      {figure.unit, sizeof figure.unit},
                      {figure.source, sizeof figure.source},
                      {figure.why, sizeof figure.why}};
        for (size_t i = 0; i < 4; i++) {
            const size_t kept = strlen(fields[i].text);
            assert_true(kept + 2 >= fields[i].room - 1 && kept < fields[i].room);
            assert_int_equal((kept - shift) % 2, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_values_match),
        cmocka_unit_test(a_figure_keeps_what_it_is_given),
        cmocka_unit_test(what_is_unavailable_is_not_zero),
        cmocka_unit_test(long_texts_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
