/* Edit distance and suggestions. */
#include "base/nearest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void distances_are_known(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        size_t distance;
    } cases[] = {{"", "", 0},           {"", "abc", 3},
                 {"abc", "abc", 0},     {"kitten", "sitting", 3},
                 {"flash", "falsh", 1}, {"ab", "ba", 1},
                 {"ca", "abc", 3},      {"gqa", "mqa", 1},
                 {"a", "b", 1},         {"saturday", "sunday", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(attn_edit_distance(cases[i].a, cases[i].b), cases[i].distance);
        assert_int_equal(attn_edit_distance(cases[i].b, cases[i].a), cases[i].distance);
    }
    char longest[ATTN_NEAREST_NAME_BYTES + 1];
    memset(longest, 'x', sizeof longest);
    longest[ATTN_NEAREST_NAME_BYTES - 1] = '\0';
    assert_int_equal(attn_edit_distance(longest, ""), ATTN_NEAREST_NAME_BYTES - 1);
    longest[ATTN_NEAREST_NAME_BYTES - 1] = 'x';
    longest[ATTN_NEAREST_NAME_BYTES] = '\0';
    assert_true(attn_edit_distance(longest, longest) == SIZE_MAX);
}

static void expect_hint(const char *wanted, const char *hint)
{
    static const char *const names[] = {"flash", "gqa", "mqa", "sliding", "linear", "linformer"};
    attn_nearest nearest = {.wanted = wanted};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        attn_nearest_offer(&nearest, names[i]);
    assert_string_equal(attn_nearest_hint(&nearest, "--"), hint);
}

static void near_names_are_suggested(void **state)
{
    (void)state;
    expect_hint("falsh", "; did you mean '--flash'?");
    expect_hint("fqa", "; did you mean '--gqa'?"); /* the first of equals */
    expect_hint("linformr", "; did you mean '--linformer'?");
    expect_hint("mqa", "; did you mean '--mqa'?");
    expect_hint("softmax", "");
    expect_hint("", "");
    char longer[4 * ATTN_NEAREST_NAME_BYTES];
    memset(longer, 'f', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    expect_hint(longer, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distances_are_known),
        cmocka_unit_test(near_names_are_suggested),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
